"""Starting programs in the guest, with everything they say going into the log."""
import os
import re
import socket
import subprocess
import threading
import time

from report import WATCH, Failed

RUN = "/run/lab"                        # scratch space in the guest's tmpfs
RUNNING = []


def sh(*cmd, timeout=15, check=True, quiet=False):
    """Runs a command; its output goes to the log. Returns its output."""
    try:
        proc = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=timeout, text=True, errors="replace")
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{cmd[0]}: no end within {timeout} s") from e
    if not quiet:
        for line in proc.stdout.splitlines():
            WATCH.feed(os.path.basename(cmd[0]), line)
    if check and proc.returncode:
        raise Failed(f"{' '.join(cmd)}: exit {proc.returncode}: {proc.stdout.strip()[-200:]}")
    return proc.stdout


def write(path, text, mode=0o600):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", opener=lambda p, flags: os.open(p, flags, mode)) as f:
        f.write(text)
    return path


def read(path):
    with open(path) as f:
        return f.read()


def follow(source, stream):
    def run():
        for line in stream:
            WATCH.feed(source, line.rstrip("\n\0 "))
    threading.Thread(target=run, daemon=True).start()


def daemon(source, *cmd, **kw):
    """Starts a program that stays; end_all() ends it."""
    proc = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, errors="replace", bufsize=1, **kw)
    follow(source, proc.stdout)
    RUNNING.append(proc)
    return proc


def end(name):
    """Ends what daemon() started of a program, and waits for it."""
    for proc in [proc for proc in RUNNING if proc.args[0] == name]:
        proc.terminate()
        try:
            proc.wait(10)
        except subprocess.TimeoutExpired:
            proc.kill()
            proc.wait()
        RUNNING.remove(proc)


def end_all():
    """Ends all that daemon() started, with pppd, which xl2tpd started."""
    sh("pkill", "-9", "-x", "pppd", check=False)
    for proc in RUNNING:
        proc.kill()
        proc.wait()
    RUNNING.clear()


def fifo(source):
    """A named pipe whose lines join the log: pppd writes its log file there."""
    path = f"{RUN}/{source}.log"
    if not os.path.exists(path):
        os.mkfifo(path)
        follow(source, os.fdopen(os.open(path, os.O_RDWR), errors="replace"))
    return path


def syslog():
    """Takes in what programs send to syslog (except pppd, which has a log file of its own here)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind("/dev/log")

    def run():
        while True:
            text = sock.recv(4096).decode(errors="replace").rstrip("\n\0 ")
            if "pppd[" not in text:
                WATCH.feed("syslog", re.sub(r"^<\d+>\w+ +\d+ [\d:]+ ", "", text))
    threading.Thread(target=run, daemon=True).start()


def wait_for(test, what, timeout=10):
    deadline = time.monotonic() + timeout
    while not test():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not there within {timeout} s")
        time.sleep(0.02)
