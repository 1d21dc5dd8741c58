"""A flood of first IKE messages beside a scenario, and a watch over what the server bounds meanwhile."""
import contextlib
import json
import os
import signal
import threading
import time

from . import network
from .shell import Failed, read


class Flooding:
    def __init__(self, trial):
        self.trial, self.log = trial, f"{trial.server.dir}/flood.log"
        self.proc = self.error = None
        self.peaks = {}
        self.starting = threading.Lock()

    def start(self):
        """Begins to send, once; the server's bounds are looked at from now on."""
        with self.starting:
            if self.proc:
                return
            flood, server = self.trial.scenario.flood, self.trial.server
            self.memory = server.memory_kib()
            self.proc = self.trial.net.spawn("wan", "/usr/bin/python3", f"{network.HERE}/flood.py", server.outside,
                                             str(flood.messages), str(flood.per_second), log=self.log)
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        try:
            while self.running():
                for name, value in self.trial.check_bounds().items():
                    self.peaks[name] = max(self.peaks.get(name, 0), value)
                time.sleep(0.5)
        except Failed as e:
            self.error = e

    def running(self):
        return self.proc is not None and self.proc.poll() is None

    def finish(self):
        """Lets it come to its end; says what was seen."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.proc.pid, signal.SIGTERM)
        if self.proc.wait(120) or self.error:
            raise self.error or Failed(f"the flood did not work: {read(self.log)}")
        sent = json.loads(read(self.log))
        grown = (self.trial.server.memory_kib() - self.memory) / 1024
        peaks = "".join(f", {name} at most {value:.0f}" for name, value in self.peaks.items())
        return f"{sent['sent']} first messages in {sent['seconds']} s{peaks}, {grown:+.0f} MiB"

    def stop(self):
        if self.running():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.proc.pid, signal.SIGKILL)
            self.proc.wait()
