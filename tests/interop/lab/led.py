"""A guest that is led: told what to do, one thing after the other (`guest/orders.py`), with the operator's commands in between."""
import contextlib
import json
import os
import shutil
import time

from .shell import Failed, read, write

PATIENCE = 300              # seconds that one order may take: only what hangs takes so long


class Led:
    def __init__(self, trial, guest, user, seen):
        self.trial, self.server, self.guest, self.user, self.seen = trial, trial.server, guest, user, seen
        self.orders = 0
        self.ends = []              # why each session ended, the first one first

    def tell(self, do, **more):
        """Has the guest do something; what it answers."""
        self.orders += 1
        path = f"{self.guest.dir}/order-{self.orders}"
        write(f"{path}.new", json.dumps({"do": do, **more}))
        os.rename(f"{path}.new", f"{path}.json")        # never seen half written
        if do == "end":
            return None
        answer = self.guest.wait(f"done-{self.orders}", PATIENCE)
        if not answer:
            error = self.guest.result["attempts"][-1].get("error", "the guest ended")
            raise Failed(f"{do}: {error}{self.trial.last_word(self.user, self.seen)}")
        return answer["said"]

    def give(self, name, path):
        """Brings a file to the guest; where it has it."""
        shutil.copy(path, f"{self.guest.dir}/{name}")
        return f"/mnt/guest/{name}"

    def say(self, name, text):
        """The same with a text."""
        write(f"{self.guest.dir}/{name}", text, 0o600)
        return f"/mnt/guest/{name}"

    def ask(self, *words):
        """What a command of the operator says, as data."""
        return json.loads(self.server.operator(*words, "--output", "json"))

    @contextlib.contextmanager
    def logs(self, text):
        """What is done meanwhile has the server say this in its log."""
        mark = len(read(self.server.log))
        yield
        self.trial.until(PATIENCE, f"in the log: {text}", lambda: text in read(self.server.log)[mark:])

    def machine(self, name):
        """What the inventory has of a machine."""
        rows = [row for row in self.ask("machine", "list", name) if row["name"] == name]
        return rows[0] if rows else None

    def token(self, name):
        """A token for a machine, as text."""
        return self.ask("token", "create", "--machine", name)["token"]

    def connect(self, serial, **how):
        """Connects by a certificate of this serial number; its session must say so."""
        answer = self.tell("connect", **how)
        session = self.trial.check_session(self.user, self.seen, answer["address"])
        if session["certificate_serial"] != serial:
            raise Failed(f"the session is by certificate {session['certificate_serial']}, not {serial}")
        return answer

    def hang_up(self):
        self.tell("hang-up")
        self.tell("forget")
        self.ends.append("client")
        self.trial.until(PATIENCE, f"the session of {self.user} gone", lambda: not self.server.sessions(self.user))

    def revoked(self, name):
        """Takes back all certificates of a machine that is connected; seconds until it was out."""
        begun = time.monotonic()
        said = self.ask("cert", "revoke", "--machine", name, "--reason", "key-compromise", "--wait")
        gateway, = said["gateways"]
        if gateway["state"] != "acknowledged" or gateway["tunnels_closed"] != 1:
            raise Failed(f"{name}: the gateway should have acknowledged that it closed one tunnel: {gateway}")
        self.tell("cut-off")
        out = time.monotonic() - begun
        self.tell("forget")
        self.ends.append("revoked")
        self.trial.until(PATIENCE, f"the session of {self.user} gone", lambda: not self.server.sessions(self.user))
        return out
