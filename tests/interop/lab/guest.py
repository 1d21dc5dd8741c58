"""One User-Mode Linux guest, seen from the host.

A guest boots a Linux kernel as an ordinary process. Its root is the host's file system, read only, under the layers
and a tmpfs (`guest/init`); its network card is a TAP device in a namespace; its console is a file in which the lines of
its driver (`guest/driver.py`) begin with `@`.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import threading
import time

from . import install
from .shell import Failed, read, write

GUEST_FILES = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "guest")
MEMORY_MIB = 192


class Guest:
    def __init__(self, network, run_dir, name, node, config, layers):
        self.network, self.name, self.node, self.config, self.layers = network, name, node, config, layers
        self.dir = f"{run_dir}/guests/{name}"
        self.log = f"{self.dir}/console.log"
        self.proc = self.result = None
        self.offset, self.partial = 0, ""
        self.lines, self.events = [], {}
        self.reading = threading.Lock()

    def start(self, tap):
        """Boots the guest on the TAP device `tap` of its node. `config["files"]` travels along."""
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        for name, path in self.config.get("files", {}).items():
            write(f"{self.dir}/{name}", read(path), 0o600)
        if self.config.get("binary"):
            shutil.copy(self.config["binary"], f"{self.dir}/sallyport")
        write(f"{self.dir}/config.json", json.dumps(self.config))
        modules = f"{install.UML_MODULES}/{sorted(os.listdir(install.UML_MODULES))[-1]}"
        layers = ":".join(install.layer(name) for name in [*self.layers, "base"])
        # gro and depth: without them the driver drops large incoming frames, or crawls
        self.proc = self.network.spawn(
            self.node, install.UML, "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"mem={MEMORY_MIB}M",
            f"umid={self.name}", f"uml_dir={self.dir}", "con=null", "ssl=null", "con0=null,fd:1", "quiet", "loglevel=3",
            "random.trust_cpu=on", f"init={GUEST_FILES}/init", f"lab_layers={layers}", f"lab_modules={modules}",
            f"lab_driver={GUEST_FILES}", f"lab_guest={self.dir}",
            f"vec0:transport=tap,ifname={tap},depth=128,gro=1", log=self.log,
            env={"PATH": os.environ["PATH"], "TMPDIR": "/dev/shm"})

    def poll(self):
        """Takes in what the guest has said since the last call."""
        with self.reading, open(self.log, errors="replace") as f:
            f.seek(self.offset)
            text = f.read()
            self.offset = f.tell()
            *lines, self.partial = (self.partial + text).split("\n")
            for line in lines:
                line = line.rstrip("\r")
                if line.startswith("@E "):
                    event = json.loads(line[3:])
                    self.events.setdefault(event["event"], event)
                elif line.startswith("@R "):
                    self.result = json.loads(line[3:])
                else:
                    self.lines.append(line)

    def wait(self, event, timeout):
        """Until the guest reports `event` ("result" is its last). Returns the event; None if the result came first."""
        deadline = time.monotonic() + timeout
        while True:
            gone = self.proc.poll() is not None
            self.poll()
            if event in self.events:
                return self.events[event]
            if self.result is not None:
                return self.result if event == "result" else None
            if gone:
                raise Failed(f"{self.name}: the guest ended without a result")
            if time.monotonic() > deadline:
                raise Failed(f"{self.name}: no {event} within {timeout:.0f} s")
            time.sleep(0.02)

    def tell(self, what):
        """Tells its driver something (`checks.told`)."""
        write(f"{self.dir}/told-{what}", "")

    def stop(self):
        """Switches the guest off at once: what it had open stays open at the far end."""
        if self.proc is None:
            return
        while members := session_members(self.proc.pid):
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self.proc.wait()

    def tail(self, count=30):
        """The last log lines, without the PPP echo chatter."""
        keep = [line.removeprefix("@L ") for line in self.lines
                if line.startswith("@L ") and not re.search("LCP Echo", line)]
        return (keep or self.lines)[-count:]


def session_members(session):
    """The living processes of a session."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(pid)
    return found
