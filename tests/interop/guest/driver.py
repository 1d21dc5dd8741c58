#!/usr/bin/env python3
"""The driver inside a guest: connects with real VPN software, checks the tunnel, and reports on the console.

It works through the attempts of its configuration one after the other, each with fresh daemons.
"""
import json
import os
import socket
import sys
import time

import checks
import enrollment
import l2tp
import libreswan
import orders
import strongswan
from programs import RUN, end, end_all, sh, syslog, wait_for, write
from report import WATCH, Failed, emit, event

# Loaded beforehand, so that loading them does not count as time to connect.
MODULES = ("esp4 xfrm_user authenc echainiv seqiv cbc gcm hmac sha512_generic des_generic l2tp_ppp ppp_async "
           "ppp_synctty").split()
IKE_DAEMONS = {"strongswan": strongswan, "libreswan": libreswan}


def set_up(cfg):
    syslog()
    sh("modprobe", "-a", *MODULES, check=False)
    nic = cfg["nic"]
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "set", "vec0", "up")
    sh("ip", "addr", "add", nic["address"], "dev", "vec0")
    sh("ip", "route", "add", "default", "via", nic["gateway"], "dev", "vec0")
    # Have the kernel build the usual algorithms now, for the same reason.
    for algorithms in (["aead", "rfc4106(gcm(aes))", "0x" + "00" * 20, "128"],
                       ["enc", "cbc(aes)", "0x" + "00" * 32, "auth-trunc", "hmac(sha1)", "0x" + "00" * 20, "96"]):
        sa = "src 127.0.0.1 dst 127.0.0.1 proto esp spi 0x100".split()
        sh("ip", "xfrm", "state", "add", *sa, *algorithms, check=False)
        sh("ip", "xfrm", "state", "del", *sa, check=False)
    for script in ("ip-pre-up", "ip-up", "ip-down"):    # slow, and of no use here
        if os.path.exists(f"/etc/ppp/{script}"):
            os.unlink(f"/etc/ppp/{script}")
    write("/etc/hosts", f"127.0.0.1 localhost\n{cfg['server']} {cfg['server_name']}\n", 0o644)
    socket.sethostname(cfg["name"])


def attempt(cfg, number):
    """Connects, checks and leaves, as `cfg` says. Returns what came of it."""
    result, daemon = {"ok": False}, IKE_DAEMONS[cfg["daemon"]]
    if cfg.get("waits"):
        checks.until_told(f"connect-{number}")
    phases = {**daemon.PHASES, **l2tp.PHASES}
    WATCH.begin(phases)
    event(f"connecting-{number}")
    try:
        if cfg.get("token"):
            enrollment.enroll(cfg)
        daemon.connect(cfg)
        l2tp.connect(cfg)
        result["algorithms"] = daemon.algorithms()
        result["assigned"] = l2tp.assigned()
        sh("ip", "route", "add", cfg["inside"], "dev", l2tp.device())
        event(f"connected-{number}", address=result["assigned"]["address"])
        check_tunnel(cfg, result)
        if cfg.get("token"):
            serial = enrollment.renew(cfg)
            checks.ping(cfg["target"], 3)
            event("renewed", serial=serial)
            connect_anew(cfg, daemon, phases)
            event("connected-anew", address=l2tp.assigned()["address"])
        if cfg["leave"] == "revoked":
            wait_for(lambda: not l2tp.device(), "the end of the PPP link", 60)
            event("cut-off")
        result["esp_sas"] = daemon.esp_sas()
        result["ok"] = True
    except Failed as e:
        result["error"] = str(e)
    except Exception as e:              # a fault of ours: say so instead of hanging
        result["error"] = f"in the guest's driver: {type(e).__name__}: {e}"
    result["reached"] = dict(WATCH.reached)
    if cfg["leave"] != "vanish" or not result["ok"]:
        leave(daemon, result)
    return result


def led(cfg):
    """Does as it is told, until it is told to end."""
    try:
        orders.obey(cfg)
        return {"ok": True}
    except Failed as e:
        return {"ok": False, "error": str(e)}
    except Exception as e:              # a fault of ours: say so instead of hanging
        return {"ok": False, "error": f"in the guest's driver: {type(e).__name__}: {e}"}
    finally:
        end_all()


def connect_anew(cfg, daemon, phases):
    """Hangs up and connects once more: the daemon that runs must show the certificate that it was given meanwhile."""
    l2tp.disconnect()
    # pppd's last line counts as the end of an attempt: it must not be taken for that of the next.
    wait_for(lambda: WATCH.matches(r"Connection terminated\."), "pppd's last word")
    end("xl2tpd")
    daemon.disconnect()
    WATCH.begin(phases)
    daemon.initiate(cfg)
    l2tp.connect(cfg)
    sh("ip", "route", "replace", cfg["inside"], "dev", l2tp.device())
    checks.ping(cfg["target"], 3)


def check_tunnel(cfg, result):
    target = cfg["target"]
    result["ping"] = checks.ping(target, 5)
    checks.ping(target, 3, "-s", "3000")                # travels in fragments
    checks.name(result["assigned"]["dns"][0] if result["assigned"]["dns"] else target, target)
    result["seen_as"] = checks.page(target)
    if result["seen_as"] != result["assigned"]["address"]:
        raise Failed(f"the LAN host saw {result['seen_as']}, not {result['assigned']['address']}")
    if cfg.get("transfer_mib"):
        result["transfer"] = checks.transfer(target, cfg["transfer_mib"])
    if cfg.get("trickle_seconds"):
        result["trickle"] = checks.trickle(target, cfg["trickle_seconds"])
    if cfg.get("held_mib"):
        event("transferring")
        result["held"] = checks.held(target, cfg["held_mib"])
    if cfg.get("stays"):
        checks.until_told("leave")


def leave(daemon, result):
    """Each layer says goodbye, from the top; then nothing of the attempt remains."""
    try:
        l2tp.disconnect()
        daemon.disconnect()
    except Failed as e:
        result.setdefault("error", f"leaving: {e}")
        result["ok"] = False
    end_all()
    for what in ("state", "policy"):
        sh("ip", "xfrm", what, "flush", check=False)


def main():
    with open(sys.argv[1]) as f:
        cfg = json.load(f)
    os.makedirs(RUN, exist_ok=True)
    event("booted")
    results = []
    try:
        set_up(cfg)
        for number, own in enumerate(cfg["attempts"], 1):
            own = {**cfg, **own}
            results.append(led(own) if own["led"] else attempt(own, number))
            event(f"ended-{number}")
    except Failed as e:
        results.append({"ok": False, "error": f"setting the guest up: {e}", "reached": {}})
    emit("R", json.dumps({"attempts": results}))
    time.sleep(60)                      # the host switches this guest off


if __name__ == "__main__":
    main()
