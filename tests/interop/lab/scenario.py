"""Scenarios are data: one TOML file each, read into these types. README.md explains every key."""
import dataclasses
import os
import re
import tomllib

from .shell import Failed
from .stories import STORIES

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "scenarios")

CHOICES = {
    "daemon": ("strongswan", "libreswan"),
    "machine": ("rsa", "ecdsa", "token", "psk", "wrong-psk", "expired", "stranger", *STORIES),
    "net": ("direct", "nat1", "nat2"),
    "ppp": ("mschapv2", "chap", "pap"),
    "user": ("known", "unknown"),
    "password": ("right", "wrong"),
    "l2tp_port": ("1701", "any"),
    "leave": ("clean", "vanish", "revoked"),
    "during": ("", "transfers", "comes", "leaves"),
}
CONTROLLERS = ("", "restart", "away")


@dataclasses.dataclass(frozen=True)
class Client:
    """One guest, and how it connects."""
    daemon: str = "strongswan"
    machine: str = "rsa"
    net: str = "direct"
    ppp: str = "mschapv2"
    user: str = "known"
    password: str = "right"
    l2tp_port: str = "1701"
    leave: str = "clean"
    during: str = ""                    # its part while the controllers are restarted or away
    ike: str | None = None
    esp: str | None = None
    ike_life: int | None = None
    esp_life: int | None = None
    dpd: int | None = None
    transfer_mib: int = 0
    trickle_seconds: int = 0
    address: int | None = None          # last byte of its own address; any free one without
    timeout: int = 30

    def __post_init__(self):
        for key, allowed in CHOICES.items():
            if getattr(self, key) not in allowed:
                raise Failed(f"{key} = {getattr(self, key)!r}: not one of {', '.join(allowed)}")


@dataclasses.dataclass(frozen=True)
class Refused:
    """That the first attempt is refused, and what the audit says of it (regular expressions)."""
    phase: str
    cause: str
    remedy: str = "."


@dataclasses.dataclass(frozen=True)
class Flood:
    """First IKE messages from spoofed addresses while the clients connect."""
    messages: int
    per_second: int


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    shows: str
    clients: tuple[Client, ...]
    server: str = "site"
    alone: bool = False                 # nothing else uses its server meanwhile
    refused: Refused | None = None
    rekeys: int = 0                     # least number of times that the ESP SA was renewed
    gone_within: int = 15               # seconds after which session and lease of a client that left are gone
    controllers: str = ""               # what befalls them: restarted in turn, or away for a while
    flood: Flood | None = None
    at_most: dict = dataclasses.field(default_factory=dict)     # metric -> bound, read again and again

    def __post_init__(self):
        if self.controllers not in CONTROLLERS:
            raise Failed(f"controllers = {self.controllers!r}: not one of {', '.join(CONTROLLERS)}")
        if bool(self.controllers) != any(c.during == "transfers" for c in self.clients):
            raise Failed("`controllers` needs a client with during = \"transfers\", and that needs `controllers`")


def make(kind, table):
    known = {f.name for f in dataclasses.fields(kind)}
    for key in table:
        if key not in known:
            raise Failed(f"unknown key {key!r}")
    try:
        return kind(**table)
    except TypeError as e:
        raise Failed(str(e)) from e


def load(path):
    """Reads one scenario; a fault names the file."""
    name = os.path.basename(path).removesuffix(".toml")
    try:
        with open(path, "rb") as f:
            table = tomllib.load(f)
        table["clients"] = tuple(make(Client, client) for client in table.pop("client", [{}]))
        for key, kind in (("refused", Refused), ("flood", Flood)):
            if key in table:
                table[key] = make(kind, table[key])
        return make(Scenario, {"name": name, **table})
    except (Failed, tomllib.TOMLDecodeError) as e:
        raise Failed(f"{os.path.relpath(path)}: {e}") from e


def load_all(only=None):
    """All scenarios, or those whose name the regular expression `only` finds."""
    found = [load(f"{FOLDER}/{f}") for f in sorted(os.listdir(FOLDER)) if f.endswith(".toml")]
    return [s for s in found if not only or re.search(only, s.name)]
