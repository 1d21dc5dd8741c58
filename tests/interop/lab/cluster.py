"""A server in several parts: three controllers, each in a namespace of its own on the inside network, and a gateway.

A server whose folder has a `controller.toml` beside its `config.toml` is one. In that file $address stands for the
controller's address.
"""
import contextlib
import json
import os
import shutil
import signal
import string
import time

from . import network, pki
from .server import FOLDER, Server
from .shell import Failed, read, write

PORT = 7443
PATIENCE = 60


def is_cluster(name):
    """Whether the server of this name is one."""
    return os.path.exists(f"{FOLDER}/{name}/controller.toml")


class Controller:
    """One of them: its process, and where it lives."""

    def __init__(self, cluster, number):
        self.cluster, self.number = cluster, number
        self.node, self.host = f"ctl{number}", network.controller(number)
        self.address = f"{self.host}:{PORT}"
        self.dir = f"{cluster.dir}/controller{number}"
        self.state, self.log = f"{self.dir}/state", f"{self.dir}/controller.log"
        self.proc = None

    def start(self, *how):
        text = string.Template(read(f"{FOLDER}/{self.cluster.name}/controller.toml")).substitute(address=self.host)
        config = write(f"{self.dir}/config.toml", text)
        env = {**os.environ, "SALLYPORT_LOG": os.environ.get("SALLYPORT_LOG", "info")}
        env.pop("NOTIFY_SOCKET", None)
        self.proc = self.cluster.net.spawn(self.node, self.cluster.binary, "--state", self.state, "controller",
                                           "--config", config, *how, log=self.log, env=env)

    def signal(self, number):
        if self.proc and self.proc.poll() is None:
            self.proc.send_signal(number)

    def ended(self, seconds=PATIENCE):
        """Waits for the process to end; returns its exit code."""
        deadline = time.monotonic() + seconds
        while self.proc.poll() is None:
            if time.monotonic() > deadline:
                raise Failed(f"controller {self.number} did not end within {seconds} s of its signal")
            time.sleep(0.02)
        return self.proc.returncode


class Cluster(Server):
    def __init__(self, net, run_dir, binary, name, number, needs_past):
        if needs_past:
            raise Failed(f"server {name}: an expired certificate needs a server in one part")
        super().__init__(net, run_dir, binary, name, number, needs_past)
        self.controllers = [Controller(self, n) for n in range(1, network.CONTROLLERS + 1)]
        self.state, self.identity = self.controllers[0].state, f"{self.dir}/gateway"
        self.words |= {"controllers": ", ".join(f'"{c.address}"' for c in self.controllers), "identity": self.identity}

    # ---------------------------------------------------------------- running

    def start(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        self.config = write(f"{self.dir}/config.toml", self.fill("config.toml"))
        first, *others = self.controllers
        first.start("--bootstrap")
        self.settled([first])
        for number, other in enumerate(others, 2):
            token = json.loads(self.operator("cluster", "token", "--output", "json"))["token"]
            other.start("--join", first.address, "--token", token)
            self.settled(self.controllers[:number])
        self.operator("cert", "issue", "--gateway", self.host_name, "--out", self.identity)
        self.run()
        self.set_up()

    def command(self):
        return ["--state", f"{self.dir}/gateway-state", "gateway"]

    def settled(self, members=None):
        """Until these controllers (or all) answer, vote and know all that the leader knows."""
        members, why = members or self.controllers, "no answer yet"
        deadline = time.monotonic() + PATIENCE
        while True:
            for c in members:
                if c.proc.poll() is not None:
                    raise Failed(f"controller {c.number} ended with {c.proc.returncode}:\n{read(c.log)[-2000:]}")
            try:
                rows = json.loads(self.operator("cluster", "status", "--output", "json"))
                fine = [r for r in rows if r["role"] in ("leader", "voter") and r["answers"] and r["unsealed"] and not r["lag"]]
                if len(fine) == len(rows) == len(members) and any(r["role"] == "leader" for r in rows):
                    return
                why = json.dumps(rows)
            except (Failed, ValueError) as e:
                why = str(e)
            if time.monotonic() > deadline:
                raise Failed(f"the controllers are not one group within {PATIENCE} s: {why}")
            time.sleep(0.1)

    def stop(self):
        super().stop()
        for c in self.controllers:
            c.signal(signal.SIGTERM)
        for c in self.controllers:
            if c.proc:
                with contextlib.suppress(Failed):
                    c.ended(15)
                c.signal(signal.SIGKILL)

    def check_unharmed(self):
        super().check_unharmed()
        for c in self.controllers:
            if c.proc.poll() is not None:
                raise Failed(f"controller {c.number} ended with {c.proc.returncode}")
            if panics := [line for line in read(c.log).splitlines() if "panicked at" in line]:
                raise Failed(f"controller {c.number} panicked: {panics[0]}")

    def logs(self):
        return {"server.log": self.log, **{f"controller{c.number}.log": c.log for c in self.controllers}}

    # ----------------------------------------------------- what befalls them

    def restart_in_turn(self):
        """Each is told to end, and started again when it has; the next follows when all are one group again."""
        for c in self.controllers:
            c.signal(signal.SIGTERM)
            if code := c.ended():
                raise Failed(f"controller {c.number} ended with {code} on SIGTERM")
            c.start()
            self.settled()

    def kill_all(self):
        for c in self.controllers:
            c.signal(signal.SIGKILL)
        for c in self.controllers:
            c.ended()

    def start_all(self):
        for c in self.controllers:
            c.start()
        self.settled()

    # ------------------------------------------------------- what operators do

    def operator(self, *args, input=None):
        addresses = ",".join(c.address for c in self.controllers if c.proc and c.proc.poll() is None)
        return self.net.run(self.node, self.binary, "--state", self.state, "--controller", addresses, *args, input=input)
