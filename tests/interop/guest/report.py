"""What the guest tells the host, and how it knows how far it has come.

Console lines meant for the host begin with "@":
    @L <ms> <source> <text>     one log line of a program
    @E {"event": .., "ms": ..}  something was reached
    @R {...}                    the result, last of all
"""
import json
import os
import re
import threading
import time

START = time.monotonic()
CONSOLE = threading.Lock()


class Failed(Exception):
    """A step did not work; the text is for the person who reads the report."""


def emit(tag, text):
    with CONSOLE:
        os.write(1, f"@{tag} {text}\n".encode())


def ms(since=START):
    return round((time.monotonic() - since) * 1000)


def event(name, **more):
    emit("E", json.dumps({"event": name, "ms": ms(), **more}))


class Watch:
    """Watches the log lines of the programs for the patterns that mark each phase of connecting."""

    # A line that matches means there is no point in waiting any longer.
    FATAL = re.compile(r"received (AUTHENTICATION_FAILED|NO_PROPOSAL_CHOSEN|INVALID_ID_INFORMATION)[^,]* error"
                       r"|establishing .* failed|giving up after|(PAP|CHAP) authentication failed"
                       r"|Maximum retries exceeded|LCP: timeout sending|peer refused to authenticate"
                       r"|Connection terminated\.", re.I)

    def __init__(self):
        self.patterns, self.hits = {}, {}
        self.reached = {}               # phase -> ms since the attempt began
        self.begun = time.monotonic()
        self.fatal = None               # the first line that means the attempt is lost
        self.lines = []                 # everything seen
        self.changed = threading.Condition()

    def begin(self, patterns):
        """Starts an attempt anew; `patterns` has for each phase a list, all of which must be seen."""
        with self.changed:
            self.patterns = {name: [re.compile(p) for p in pats] for name, pats in patterns.items()}
            self.hits = {name: set() for name in patterns}
            self.reached, self.fatal, self.lines = {}, None, []
            self.begun = time.monotonic()

    def feed(self, source, line):
        emit("L", f"{ms()} {source} {line}")
        with self.changed:
            self.lines.append(line)
            for name, pats in self.patterns.items():
                self.hits[name].update(i for i, pat in enumerate(pats) if pat.search(line))
                if name not in self.reached and len(self.hits[name]) == len(pats):
                    self.reached[name] = ms(self.begun)
            if self.fatal is None and self.FATAL.search(line):
                self.fatal = line
            self.changed.notify_all()

    def wait(self, name, timeout):
        deadline = time.monotonic() + timeout
        with self.changed:
            while name not in self.reached:
                left = deadline - time.monotonic()
                if self.fatal:
                    raise Failed(f"{name}: {self.fatal}")
                if left <= 0:
                    raise Failed(f"{name}: not reached within {timeout:.0f} s")
                self.changed.wait(min(left, 0.5))

    def matches(self, pattern):
        """The groups of every line that matches, oldest first."""
        rx = re.compile(pattern)
        with self.changed:
            lines = list(self.lines)
        return [found.groups() or (found.group(0),) for found in map(rx.search, lines) if found]

    def last(self, pattern):
        """The first group of the last line that matches, or None."""
        found = self.matches(pattern)
        return found[-1][0] if found else None


WATCH = Watch()
