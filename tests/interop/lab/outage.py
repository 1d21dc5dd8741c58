"""What befalls the controllers while a client transfers: they are restarted in turn, or all away for a while.

The client that transfers sets the pace (`befall`, in its thread); the others take part in theirs.
"""
import threading

from .shell import Failed

PATIENCE = 120


class Outage:
    def __init__(self, trial):
        self.trial, self.server = trial, trial.server
        self.away, self.back = threading.Event(), threading.Event()
        others = [c.during for c in trial.scenario.clients]
        self.connected = threading.Semaphore(0)         # clients that will leave meanwhile
        self.over = threading.Semaphore(0)              # clients that have left, or were refused
        self.leaving, self.coming = others.count("leaves"), others.count("comes")

    def befall(self, guest, user):
        guest.wait("transferring", PATIENCE)
        before, = self.server.sessions(user)
        if self.trial.scenario.controllers == "restart":
            self.server.restart_in_turn()
        else:
            self.all_away()
        after, = self.server.sessions(user)
        for key in ("id", "address", "gateway", "created"):
            if before.get(key) != after.get(key):
                raise Failed(f"the session of {user} has another {key}: {before.get(key)}, then {after.get(key)}")
        guest.tell("go-on")

    def all_away(self):
        for _ in range(self.leaving):
            self.wait(self.connected.acquire, "a client to connect that shall leave")
        renewals = self.server.esp_renewals()
        self.server.kill_all()
        self.away.set()
        for _ in range(self.leaving + self.coming):
            self.wait(self.over.acquire, "a client to be refused, or to leave, without controllers")
        self.trial.until(PATIENCE, "a renewal of an ESP SA without controllers",
                         lambda: self.server.esp_renewals() > renewals)
        self.server.start_all()
        self.back.set()

    def comes(self, guest):
        """A client that first tries without controllers."""
        self.wait(self.away.wait, "the controllers to be away")
        guest.tell("connect-1")
        guest.wait("ended-1", PATIENCE)
        self.over.release()
        self.wait(self.back.wait, "the controllers to be back")
        guest.tell("connect-2")

    def leaves(self, guest):
        """A client that was there before and leaves without controllers."""
        self.connected.release()
        self.wait(self.away.wait, "the controllers to be away")
        guest.tell("leave")
        guest.wait("ended-1", PATIENCE)
        self.over.release()
        self.wait(self.back.wait, "the controllers to be back")

    @staticmethod
    def wait(what, name):
        if not what(timeout=PATIENCE):
            raise Failed(f"waited in vain for {name}")
