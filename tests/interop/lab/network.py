"""The topology: every box is a network namespace, nothing leaves the machine.

    direct clients  172.31.0.10 … ───────┐                           ┌─ gw1 172.30.0.1 | 10.77.0.1 ─┐
    192.168.50.10 … ── nat1 ─ 172.31.0.1 ┼─ 172.31.0.254  wan  .254 ─┼─ gw2 172.30.0.2 | 10.77.0.2 ─┼─ lan 10.77.0.10
    192.168.50.10 … ── nat2 ─ 172.31.0.2 ┘       172.30.0.0/24       └─ gw3 …                       ┘

Both NAT boxes masquerade the same inner network, so that two clients can have one private address behind different
NATs, and any number can share one NAT. The LAN host reaches the clients of gateway i, 10.88.i.0/24, through it.
Controllers that are not part of a gateway, ctl1 to ctl3, are 10.77.0.101 to .103 on the LAN.
"""
import contextlib
import os
import signal
import subprocess
import time

from .shell import Failed, sh

OUTSIDE = "172.30.0."
CLIENTS = "172.31.0."
NATTED = "192.168.50."
LAN = "10.77.0."
LAN_HOST = LAN + "10"
SPOOFED = "198.18.0.0/15"       # benchmark addresses (RFC 2544): the sources of a flood
NATS = 2
CONTROLLERS = 3
HERE = os.path.dirname(os.path.realpath(__file__))


def pool(gateway):
    """The network that gateway `gateway` leases to its clients."""
    return f"10.88.{gateway}.0/24"


def controller(number):
    """The address of a controller."""
    return f"{LAN}{100 + number}"


class Network:
    """All namespaces of one run; their names begin with `prefix`."""

    def __init__(self, prefix, gateways, controllers):
        self.prefix, self.gateways, self.controllers = prefix, gateways, CONTROLLERS if controllers else 0
        self.nodes = ["wan", "lan", *(f"gw{i}" for i in range(1, gateways + 1)),
                      *(f"ctl{i}" for i in range(1, self.controllers + 1)),
                      *(f"nat{i}" for i in range(1, NATS + 1))]

    def __enter__(self):
        self.down()                     # what an interrupted run may have left
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_):
        self.down()

    def ns(self, node):
        return f"{self.prefix}-{node}"

    def command(self, node, *cmd):
        """A command line that runs `cmd` in a node."""
        return ["ip", "netns", "exec", self.ns(node), *cmd]

    def run(self, node, *cmd, **kw):
        return sh(*self.command(node, *cmd), **kw)

    def spawn(self, node, *cmd, log, **kw):
        """Starts a program in a node; it gets a session of its own and both its streams go to the file `log`."""
        with open(log, "ab") as out:
            return subprocess.Popen(self.command(node, *cmd), stdin=subprocess.DEVNULL, stdout=out,
                                    stderr=subprocess.STDOUT, start_new_session=True, **kw)

    def ip(self, node, text):
        """Lines of `ip` commands, run in a node (on the host without one)."""
        where = ["-n", self.ns(node)] if node else []
        sh("ip", *where, "-batch", "-", input="".join(line.strip() + "\n" for line in text.splitlines()))

    def add_tap(self, node, tap):
        self.ip(node, f"tuntap add dev {tap} mode tap\nlink set {tap} master clients up")

    def delete_tap(self, node, tap):
        self.run(node, "ip", "link", "del", tap, check=False)

    def up(self):
        for node in self.nodes:
            sh("ip", "netns", "add", self.ns(node))
            self.run(node, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0",
                     "net.ipv4.conf.default.rp_filter=0", "net.ipv6.conf.all.disable_ipv6=1",
                     "net.ipv6.conf.default.disable_ipv6=1")
            self.ip(node, "link set lo up")
        # "wan" is the internet: one bridge for the gateways, one for the clients, and it routes between them.
        # (A bridge without an address of its own takes one of its ports', and changes it as ports come and go.)
        self.ip("wan", f"""link add gateways address 02:00:00:00:00:01 type bridge
            link add clients address 02:00:00:00:00:02 type bridge
            addr add {OUTSIDE}254/24 dev gateways
            addr add {CLIENTS}254/24 dev clients
            link set gateways up
            link set clients up
            route add blackhole {SPOOFED}""")
        self.ip("lan", f"""link add lan address 02:00:00:00:00:03 type bridge
            addr add {LAN_HOST}/24 dev lan
            link set lan up""")
        for i in range(1, self.gateways + 1):
            self.add_gateway(i)
        for i in range(1, self.controllers + 1):
            self.add_controller(i)
        for i in range(1, NATS + 1):
            self.add_nat(i)

    def add_gateway(self, i):
        gw = f"gw{i}"
        self.ip(None, f"""link add out netns {self.ns(gw)} type veth peer name {gw} netns {self.ns('wan')}
            link add lan netns {self.ns(gw)} type veth peer name {gw} netns {self.ns('lan')}""")
        self.ip("wan", f"link set {gw} master gateways up")
        self.ip("lan", f"link set {gw} master lan up\nroute add {pool(i)} via {LAN}{i}")
        self.ip(gw, f"""addr add {OUTSIDE}{i}/24 dev out
            addr add {LAN}{i}/24 dev lan
            link set out up
            link set lan up
            route add default via {OUTSIDE}254""")

    def add_controller(self, i):
        ctl = f"ctl{i}"
        self.ip(None, f"link add lan netns {self.ns(ctl)} type veth peer name {ctl} netns {self.ns('lan')}")
        self.ip("lan", f"link set {ctl} master lan up")
        self.ip(ctl, f"addr add {controller(i)}/24 dev lan\nlink set lan up")

    def add_nat(self, i):
        nat = f"nat{i}"
        self.ip(None, f"link add out netns {self.ns(nat)} type veth peer name {nat} netns {self.ns('wan')}")
        self.ip("wan", f"link set {nat} master clients up")
        self.ip(nat, f"""link set out up
            addr add {CLIENTS}{i}/24 dev out
            route add default via {CLIENTS}254
            link add clients address 02:00:00:00:00:04 type bridge
            addr add {NATTED}254/24 dev clients
            link set clients up""")
        # An ordinary home router: masquerading, and nothing from outside unless asked for.
        self.run(nat, "nft", """table ip nat {
            chain post { type nat hook postrouting priority 100; oifname "out" masquerade; }
            chain inward { type filter hook forward priority 0;
                           iifname "out" ct state established,related accept; iifname "out" drop; }
        }""")

    def pids(self, node):
        """Processes that run in a node."""
        text = sh("ip", "netns", "pids", self.ns(node), check=False)
        return [int(line) for line in text.split() if line.isdigit()]

    def down(self):
        """Ends everything that runs in our namespaces and removes them, also those of an earlier run."""
        existing = {line.split()[0] for line in sh("ip", "netns", "list", check=False).splitlines() if line.strip()}
        nodes = [name.removeprefix(f"{self.prefix}-") for name in existing if name.startswith(f"{self.prefix}-")]
        deadline = time.monotonic() + 10
        while any(self.kill(node) for node in nodes):
            if time.monotonic() > deadline:
                raise Failed("processes of an earlier run do not end")
            time.sleep(0.05)
        for node in nodes:
            sh("ip", "netns", "del", self.ns(node), check=False)

    def kill(self, node):
        """Kills what runs in a node and says whether there was anything."""
        pids = self.pids(node)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)
