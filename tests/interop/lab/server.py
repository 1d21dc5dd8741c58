"""The server under test: `sallyport standalone` in a gateway's namespace, set up and questioned by its own commands.

The folder servers/NAME holds its configuration (`config.toml`) and the operator's commands that prepare it (`setup`, one
a line; what stands behind `<<<` is the command's standard input). In both, $gateway, $outside and $pool stand for the
server's number, outside address and address pool.
"""
import json
import os
import re
import shutil
import signal
import string
import time

from . import network, pki
from .guest import session_members
from .shell import Failed, read, sh, write
from .stories import STORIES

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "servers")
METRICS = "127.0.0.1:9464"
PSK = "interop-shared-key"
PASSWORD = "Wonder-Land9"
PAST = "-3 days"            # when the expired certificate is issued, for one day


class Server:
    def __init__(self, net, run_dir, binary, name, number, needs_past):
        self.net, self.binary, self.name, self.number, self.needs_past = net, binary, name, number, needs_past
        self.node, self.outside = f"gw{number}", f"{network.OUTSIDE}{number}"
        self.host_name = f"gw{number}.interop.test"
        self.dir = f"{run_dir}/servers/{name}"
        self.state, self.log = f"{self.dir}/state", f"{self.dir}/server.log"
        self.proc = None
        self.words = {"gateway": str(number), "outside": self.outside, "pool": network.pool(number),
                      "name": self.host_name, "dns": network.LAN_HOST, "psk": PSK, "metrics": METRICS}

    # ---------------------------------------------------------------- running

    def start(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        self.config = write(f"{self.dir}/config.toml", self.fill("config.toml"))
        if self.needs_past:
            self.run("faketime", PAST)
            self.issue("expired", "rsa-2048", "--validity", "1d")
            self.stop()
        self.run()
        self.set_up()

    def set_up(self):
        """Carries out the operator's commands of `setup`."""
        for line in filter(None, map(str.strip, self.fill("setup").splitlines())):
            if not line.startswith("#"):
                words, _, stdin = line.partition("<<<")
                self.operator(*words.split(), input=stdin.strip() + "\n" if stdin else None)
        pki.strange_authority(f"{self.dir}/stranger")

    def fill(self, file):
        return string.Template(read(f"{FOLDER}/{self.name}/{file}")).substitute(self.words)

    def run(self, *wrapper):
        env = {**os.environ, "SALLYPORT_LOG": os.environ.get("SALLYPORT_LOG", "info"), "DONT_FAKE_MONOTONIC": "1"}
        env.pop("NOTIFY_SOCKET", None)
        self.proc = self.net.spawn(self.node, *wrapper, self.binary, *self.command(), "--config", self.config,
                                   log=self.log, env=env)
        deadline = time.monotonic() + 60
        while True:
            if self.proc.poll() is not None:
                raise Failed(f"server {self.name} ended with {self.proc.returncode}:\n{self.tail()}")
            try:
                if any(gateway["alive"] for gateway in self.listing("gateway")):
                    return
            except Failed as e:
                if time.monotonic() > deadline:
                    raise Failed(f"server {self.name} is not ready after 60 s: {e}\n{self.tail()}") from e
            time.sleep(0.2)

    def command(self):
        """The role that it runs in, and where its state is."""
        return ["--state", self.state, "standalone"]

    def logs(self):
        """name -> path."""
        return {"server.log": self.log}

    def stop(self):
        if self.proc and self.proc.poll() is None:
            os.killpg(self.proc.pid, signal.SIGTERM)    # with the child that `faketime` makes of it
            deadline = time.monotonic() + 15
            while (members := session_members(self.proc.pid)) and time.monotonic() < deadline:
                time.sleep(0.05)
            if members:
                self.net.kill(self.node)
            self.proc.wait()
            if members:
                raise Failed(f"server {self.name} did not end within 15 s of SIGTERM")
        self.proc = None

    def check_unharmed(self):
        """That the process lives and no part of it has panicked."""
        if self.proc.poll() is not None:
            raise Failed(f"the server ended with {self.proc.returncode}:\n{self.tail()}")
        panics = [line for line in read(self.log).splitlines() if "panicked at" in line]
        if panics:
            raise Failed(f"the server panicked: {panics[0]}")

    def tail(self, count=30):
        return "\n".join(read(self.log).splitlines()[-count:])

    # ------------------------------------------------------- what operators do

    def operator(self, *args, input=None):
        return self.net.run(self.node, self.binary, "--state", self.state, *args, input=input)

    def listing(self, noun, *options):
        """What `sallyport NOUN list` says, as data."""
        text = self.operator(noun, "list", *options, "--output", "json")
        try:
            return json.loads(text)
        except ValueError as e:
            raise Failed(f"{noun} list: not JSON: {text[:200]}") from e

    def issue(self, machine, key, *options):
        """Issues a machine certificate, once; returns the paths of certificate, key and CA."""
        out = f"{self.dir}/machines/{machine}"
        if not os.path.exists(out):
            self.operator("cert", "issue", "--machine", f"{machine}.interop.test", "--key", key, "--out", out, *options)
        return {"cert": f"{out}/cert.pem", "key": f"{out}/key.pem", "ca": f"{out}/ca.pem", "chain": f"{out}/chain.pem"}

    def credentials(self, kind, machine):
        """The files that a client with such a machine authentication needs; `machine` names it in the certificate."""
        if kind in ("psk", "wrong-psk", *STORIES):
            return {}
        if kind == "expired":
            return self.issue("expired", "rsa-2048")    # start() did, in the past
        if kind == "stranger":
            files = self.issue(machine, "rsa-2048")     # knows us, but shows what another authority issued
            return {**files, **pki.strange_machine(f"{self.dir}/stranger", machine)}
        if kind == "token":
            made = self.operator("token", "create", "--machine", f"{machine}.interop.test", "--output", "json")
            return {"token": write(f"{self.dir}/{machine}.token", json.loads(made)["token"], 0o600)}
        return self.issue(machine, {"rsa": "rsa-2048", "ecdsa": "ecdsa-p256"}[kind])

    def revoke(self, machine):
        """Takes back every certificate of a machine, and waits for the gateways; what the command says."""
        return json.loads(self.operator("cert", "revoke", "--machine", f"{machine}.interop.test", "--reason", "key-compromise",
                                        "--wait", "--output", "json"))

    def add_user(self, name):
        self.operator("user", "add", name, "--password-stdin", input=PASSWORD + "\n")

    def sessions(self, user):
        return [s for s in self.listing("session") if s["user"] == user]

    def leases(self):
        """Addresses that are leased now, over all pools."""
        return sum(pool["used"] for pool in self.listing("pool"))

    def metrics(self):
        """name{labels} -> value."""
        text = self.net.run(self.node, "/usr/bin/python3", "-c", "import urllib.request as u;"
                            f"print(u.urlopen('http://{METRICS}/metrics', timeout=5).read().decode())")
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines if re.fullmatch(r"[-+.\w]+", value)}

    def esp_renewals(self):
        """Quick modes that ended well."""
        return self.metrics()['sallyport_gateway_ike_total{what="phase2_up"}']

    def memory_kib(self):
        return int(re.search(r"VmRSS:\s+(\d+)", read(f"/proc/{self.proc.pid}/status")).group(1))
