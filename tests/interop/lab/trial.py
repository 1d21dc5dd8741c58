"""Carrying out one scenario: clients on one side, the operator's view of the server on the other."""
import contextlib
import json
import re
import threading
import time
from datetime import datetime

from . import network
from .flooding import Flooding
from .guest import Guest
from .led import Led
from .outage import Outage
from .server import PASSWORD, PSK
from .shell import Failed
from .stories import STORIES

# With what a client that was refused tries again, in the same guest: it must be let in.
RIGHT = {"user": "known", "password": "right"}
RIGHT_MACHINE = {"wrong-psk": "psk", "expired": "rsa", "stranger": "rsa"}
HELD_MIB = 24               # that a client transfers each way while something befalls the controllers
# What the record of its end says of a session, by how the client left.
END_REASON = {"clean": "client", "vanish": "peer-silent", "revoked": "revoked"}
CUT_OFF = 5                 # seconds after which a machine whose certificate was revoked must be out


class Trial:
    """One scenario on one server. `places` hands out free client addresses, guest numbers and the like."""

    def __init__(self, scenario, server, net, run_dir, places):
        self.scenario, self.server, self.net, self.run_dir, self.places = scenario, server, net, run_dir, places
        self.begun = time.time()
        self.guests, self.results, self.notes = [], [], []
        self.attempts = []              # what the audit has of our clients
        self.flood = Flooding(self) if scenario.flood else None
        self.outage = Outage(self) if scenario.controllers else None

    def carry_out(self):
        """Runs the scenario; raises Failed if anything is not as declared."""
        try:
            errors = self.in_parallel(self.run_client)
            if errors:
                raise errors[0]
            if self.flood:
                self.notes.append(self.flood.finish())
        finally:
            if self.flood:
                self.flood.stop()
        self.check_bounds()
        if self.outage:
            self.until(self.scenario.gone_within, "all addresses free", lambda: not self.server.leases())
        self.server.check_unharmed()

    def in_parallel(self, work):
        """One thread for each client; returns what went wrong."""
        errors = []

        def one(index, client):
            try:
                work(index, client)
            except Failed as e:
                errors.append(e)
            except Exception as e:          # a fault of ours must not look like a client that never ended
                errors.append(Failed(f"{type(e).__name__}: {e}"))

        threads = [threading.Thread(target=one, args=pair) for pair in enumerate(self.scenario.clients, 1)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return errors

    # ---------------------------------------------------------------- clients

    def run_client(self, index, client):
        name = self.scenario.name if len(self.scenario.clients) == 1 else f"{self.scenario.name}-{index}"
        self.server.add_user(name)
        node = "wan" if client.net == "direct" else client.net
        subnet = network.CLIENTS if client.net == "direct" else network.NATTED
        with contextlib.ExitStack() as stack:
            number = stack.enter_context(self.places.take("guest", range(1, 100)))
            allowed = [client.address] if client.address else range(10, 200)
            address = subnet + str(stack.enter_context(self.places.take(client.net, allowed)))
            # What the server sees of it: its own address, or the NAT box's.
            seen = address if client.net == "direct" else network.CLIENTS + client.net.removeprefix("nat")
            config, layers = self.guest_config(name, client, number, address, subnet)
            guest = Guest(self.net, self.run_dir, name, node, config, layers)
            self.guests.append(guest)
            tap = f"tap{number}"
            self.net.add_tap(node, tap)
            stack.callback(self.net.delete_tap, node, tap)
            stack.callback(guest.stop)
            guest.start(tap)
            self.follow(guest, client, name, seen, len(config["attempts"]))

    def is_refused(self, client):
        """Whether the first attempt of a client is one that must be refused."""
        return self.scenario.refused and (not self.outage or client.during == "comes")

    def guest_config(self, name, client, number, address, subnet):
        """What the guest is told, and the layers that it needs."""
        attempts, files = [], {}
        clients = [client]
        if self.is_refused(client):
            again = {**vars(client), **RIGHT, "machine": RIGHT_MACHINE.get(client.machine, client.machine)}
            clients.append(type(client)(**again))
        for n, c in enumerate(clients, 1):
            own = {key: value for key, value in vars(c).items() if value is not None}
            own["user"] = name if c.user == "known" else f"nobody-{name}"
            own["password"] = PASSWORD if c.password == "right" else "Wrong-Land0"
            own["l2tp_port"] = 40000 + number if c.l2tp_port == "any" else 1701
            own |= {"transfers": {"held_mib": HELD_MIB}, "comes": {"waits": True}, "leaves": {"stays": True}}.get(c.during, {})
            own["led"] = c.machine in STORIES
            if c.machine.endswith("psk"):
                own["psk"] = PSK if c.machine == "psk" else "not-the-shared-key"
            for kind, path in self.server.credentials(c.machine, name).items():
                files[f"{kind}{n}.pem"] = path
                own[kind] = f"/mnt/guest/{kind}{n}.pem"
            attempts.append(own)
        config = {"name": name, "server": self.server.outside, "server_name": self.server.host_name,
                  "target": network.LAN_HOST, "inside": network.LAN + "0/24", "files": files, "attempts": attempts,
                  "binary": self.server.binary if client.machine in ("token", *STORIES) else None,
                  "nic": {"address": f"{address}/24", "gateway": f"{subnet}254"}}
        return config, [client.daemon] + ["enrollment"] * (client.machine in STORIES)

    def follow(self, guest, client, user, seen, attempts):
        """Watches a guest through its attempts, and the server beside it."""
        patience = 60 + 4 * client.timeout + 6 * client.trickle_seconds + client.transfer_mib
        last = attempts
        guest.wait("booted", patience)
        if client.machine in STORIES:
            self.lead(guest, client, user, seen, patience)
            return
        if self.flood:
            self.flood.start()
        if client.during == "comes":
            self.outage.comes(guest)
        connected = guest.wait(f"connected-{last}", patience)
        if connected:
            if self.flood and not self.flood.running():
                raise Failed("the flood was over before the client had connected")
            self.check_session(user, seen, connected["address"])
        if connected and client.during in ("transfers", "leaves"):
            {"transfers": lambda: self.outage.befall(guest, user), "leaves": lambda: self.outage.leaves(guest)}[client.during]()
        if connected and client.leave == "revoked":
            self.revoke(guest, user, patience)
        result = guest.wait("result", patience)
        self.results.extend(result["attempts"])
        for number, outcome in enumerate(result["attempts"], 1):
            if number < last:
                self.check_refused(outcome, user, seen)
            elif not outcome["ok"]:
                again = " (after it was refused, as it should be)" if last > 1 else ""
                raise Failed(f"{user}{again}: {outcome['error']}{self.last_word(user, seen)}")
            else:
                self.check_connected(outcome, client, user, seen)
        guest.stop()
        self.check_gone(user)
        # Newest first. Who enrolls itself hangs up once, to connect by its new certificate.
        self.check_ended(user, seen, [END_REASON[client.leave]] + ["client"] * (client.machine == "token"))

    def lead(self, guest, client, user, seen, patience):
        """Leads a guest through its story; each of its sessions is in the audit with the reason of its end."""
        led = Led(self, guest, user, seen)
        STORIES[client.machine](led)
        led.tell("end")
        guest.wait("result", patience)
        guest.stop()
        self.check_gone(user)
        self.check_ended(user, seen, led.ends[::-1])

    def revoke(self, guest, user, patience):
        """Waits until the machine has renewed its certificate and connected by it, takes both back, and looks how soon it is out."""
        renewed = guest.wait("renewed", patience)
        anew = renewed and guest.wait("connected-anew", patience)
        if not anew:
            return
        def by_the_new_one():
            return [s for s in self.server.sessions(user) if s["state"] == "up" and s["address"] == anew["address"]
                    and s["certificate_serial"] == renewed["serial"]]
        self.until(10, f"a session of {user} by the new certificate, {renewed['serial']}", by_the_new_one)
        self.notes.append("connected anew by the new certificate")
        begun = time.monotonic()
        said = self.server.revoke(user)
        reasons = [c["reason"] for c in said["certificates"]]
        if reasons != ["key-compromise"] * 2:
            raise Failed(f"both certificates of {user} should have been revoked for key-compromise: {reasons}")
        gateway, = said["gateways"]
        if gateway["state"] != "acknowledged" or gateway["tunnels_closed"] != 1:
            raise Failed(f"the gateway should have acknowledged that it closed one tunnel: {gateway}")
        self.notes.append(f"tunnel closed and acknowledged after {gateway['after_ms']} ms")
        self.until(CUT_OFF, f"the session of {user} gone", lambda: not self.server.sessions(user))
        if guest.wait("cut-off", CUT_OFF):
            self.notes.append(f"out {time.monotonic() - begun:.1f} s after it was revoked")

    # --------------------------------------------------- what the operator sees

    def audit(self, user, seen):
        """The attempts of one of our clients since the scenario began, newest first."""
        known = self.server.listing("attempt", "--limit", "200")
        return [a for a in known if datetime.fromisoformat(a["time"]).timestamp() >= int(self.begun)
                and (a["user"] in (user, f"nobody-{user}") or not a["user"] and a["remote"].startswith(f"{seen}:"))]

    def last_word(self, user, seen):
        """What the audit says of the last attempt, to stand behind an error."""
        try:
            latest = self.audit(user, seen)[0]
        except (Failed, IndexError):
            return ""
        return f"\naudit: {latest['phase']}: {latest['cause']}\n       {latest['remedy']}"

    def until(self, seconds, what, test):
        """Asks again and again, until `test` gives something true; returns that."""
        deadline = time.monotonic() + seconds
        while not (found := test()):
            if time.monotonic() > deadline:
                raise Failed(f"not within {seconds} s: {what}")
            time.sleep(0.3)
        return found

    def check_session(self, user, seen, address):
        def listed():
            return [s for s in self.server.sessions(user) if s["state"] == "up"]
        session, = self.until(10, f"a session of {user} in the list", listed)
        if session["address"] != address:
            raise Failed(f"the session of {user} has {session['address']}, the client {address}")
        if not session["remote"].startswith(f"{seen}:"):
            raise Failed(f"the session of {user} comes from {session['remote']}, not {seen}")
        return session

    def check_connected(self, outcome, client, user, seen):
        rekeys = self.scenario.rekeys if client.during in ("", "transfers") else 0
        if outcome["esp_sas"] - 1 < rekeys:
            raise Failed(f"{user}: the ESP SA was renewed {outcome['esp_sas'] - 1} times, not {rekeys}")
        self.until(10, f"an accepted attempt of {user} in the audit",
                   lambda: [a for a in self.audit(user, seen) if a["outcome"] == "accepted" and a["user"] == user])
        if transfer := outcome.get("transfer"):
            self.notes.append(f"up {transfer['up_mbps']:.0f}, down {transfer['down_mbps']:.0f} Mbit/s")
        if rekeys:
            self.notes.append(f"{outcome['esp_sas'] - 1} renewals")

    def check_refused(self, outcome, user, seen):
        expected = self.scenario.refused
        if outcome["ok"]:
            raise Failed(f"{user} was let in, but must not be")
        refused = self.until(40, f"a refusal of {user} in the audit",
                             lambda: [a for a in self.audit(user, seen) if a["outcome"] == "refused"])
        for a in refused:
            self.attempts.append({key: a[key] for key in ("phase", "cause", "remedy")})
        for key, value in vars(expected).items():
            if not all(re.search(value, a[key]) for a in refused):
                raise Failed(f"the audit's {key} of {user} is not {value!r}: {json.dumps(self.attempts)}")

    def check_gone(self, user):
        def gone():
            counted = self.scenario.alone and not self.outage        # else others have leases too
            return not self.server.sessions(user) and not (counted and self.server.leases())
        begun = time.monotonic()
        self.until(self.scenario.gone_within, f"the session of {user} gone", gone)
        if any(c.leave == "vanish" for c in self.scenario.clients):
            self.notes.append(f"gone after {time.monotonic() - begun:.0f} s")

    def check_ended(self, user, seen, reasons):
        """That the audit says of each session once that it came up, once that it ended, and why (the newest first)."""
        def ended():
            found = [a for a in self.audit(user, seen) if a["outcome"] == "ended" and a["user"] == user]
            return found if len(found) >= len(reasons) else None
        records = self.until(10, f"a record of how each session of {user} ended", ended)
        accepted = [a for a in self.audit(user, seen) if a["outcome"] == "accepted" and a["user"] == user]
        if (len(records), len(accepted)) != (len(reasons), len(reasons)):
            raise Failed(f"{user}: {len(accepted)} sessions came up and {len(records)} ended: {json.dumps(records)}")
        for record, begun, expected in zip(records, accepted, reasons):
            if record["end_reason"] != expected or not record["cause"] or record["session"] != begun["session"]:
                raise Failed(f"the record of the end of {user} does not say {expected!r} of it: {json.dumps(record)}")

    def check_bounds(self):
        """That no metric is above its bound; returns the bounded ones."""
        if not self.scenario.at_most:
            return {}
        metrics = self.server.metrics()
        for name, bound in self.scenario.at_most.items():
            if name not in metrics:
                raise Failed(f"no metric {name}")
            if metrics[name] > bound:
                raise Failed(f"metric {name} is {metrics[name]:.0f}, above {bound}")
        return {name: metrics[name] for name in self.scenario.at_most}
