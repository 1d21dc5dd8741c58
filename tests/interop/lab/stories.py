"""What guests are led through: certificates from each path, and a change of roots, with one guest that has one machine's identity after
the other."""
import json
import time

from .shell import Failed

PIN = "4938-17"


def paths(led):
    """A machine for each way to a certificate: it enrolls at the gateway's endpoint, connects, moves data, and is out when it is revoked."""
    root = led.say("root.pem", led.server.operator("ca", "show", "root", "--pem"))
    for way, (get, method) in PATHS.items():
        name, begun = f"{way}.{led.user}.interop.test", time.monotonic()
        how = get(led, name, root)
        row = led.machine(name)
        if not row or row["method"] != method:
            raise Failed(f"{name} should have its certificate by {method}: {row}")
        led.connect(row["serial"], **how)
        took, out = time.monotonic() - begun, led.revoked(name)
        led.trial.notes.append(f"{way}: up in {took:.1f} s, out after {out:.1f} s")


def listed(led, name, _root):
    """A machine without a token, on the list by its key, which `sallyport enroll` has shown."""
    key = asks(led, name)
    led.server.operator("machine", "add", name, "--key", key)
    return goes_on(led, name)


def approved(led, name, _root):
    """A machine without a token: an operator finds the same key in the queue and says yes."""
    key = asks(led, name)
    number, = [row["number"] for row in led.ask("request", "list", "--waiting") if row["key_sha256"] == key]
    led.server.operator("request", "approve", str(number), "--name", name)
    return goes_on(led, name)


def asks(led, name):
    """Asks without a token, and leaves; the SHA-256 of the key that it made."""
    fingerprint, = [row["fingerprint"] for row in led.ask("ca", "list") if row["authority"] == "root"]
    words = ["--server", led.server.host_name, "--root-fingerprint", fingerprint, "--no-wait"]
    said = led.tell("enroll", machine=name, words=words)
    if said["state"] != "waiting":
        raise Failed(f"{name} should wait: {said}")
    return said["key_sha256"]


def goes_on(led, name):
    """What the timer does; then the certificate is installed."""
    said = led.tell("enroll", machine=name, words=[], then=["renew"])
    if (said["state"], said["name"]) != ("valid", name):
        raise Failed(f"{name} should have its certificate: {said}")
    return {"installed": True}


def in_token(led, name, _root):
    """`sallyport enroll` by a token, with a key that SoftHSM2 makes and keeps; charon signs there, too."""
    made = led.tell("make-token", label="vpn", pin=PIN)
    token = led.say("token", led.token(name))
    words = ["--token-file", token, "--pin-file", made["pin_file"], "--key", f"pkcs11:token=vpn?module-path={made['module']}"]
    said = led.tell("enroll", machine=name, words=words)
    if "token=vpn" not in (said.get("key_in") or ""):
        raise Failed(f"the key of {name} should be in a token: {said}")
    return {"installed": True}


def by_est(led, name, root):
    """EST by strongSwan's own `pki`: a token as password, then a renewal."""
    said = led.tell("est", machine=name, root=root, token=led.token(name))
    if said["authorities"] < 2:
        raise Failed(f"EST should give out the root and the issuing authority: {said}")
    return {"folder": said["folder"]}


def by_scep(led, name, root):
    """SCEP by certmonger, with a token as challenge password: an RSA key."""
    led.server.operator("setting", "set", "scep=true")
    return {"folder": led.tell("scep", machine=name, root=root, token=led.token(name))["folder"]}


def imported(led, name, _root):
    """`sallyport profile p12` of what an operator made, imported by strongSwan."""
    out = f"{led.server.dir}/machines/{name}"
    led.server.operator("cert", "issue", "--machine", name, "--key", "rsa-2048", "--out", out)
    made = json.loads(led.server.operator("profile", "p12", "--from", out, "--output", "json"))
    file, = made["files"]
    return {"p12": led.give("machine.p12", file), "p12_password": made["password"], "local_id": name}


# By the order: what is asked for and how the inventory calls it.
PATHS = {
    "list": (listed, "list"),
    "approval": (approved, "approval"),
    "est": (by_est, "renewal"),
    "scep": (by_scep, "token"),
    "p12": (imported, "operator"),
    "pkcs11": (in_token, "token"),
}


def rollover(led):
    """A machine from before a change of roots and one from after it connect side by side; the first renews, and goes on when it is over."""
    old, new = (f"{when}.{led.user}.interop.test" for when in ("before", "after"))
    first = enrolls(led, old)
    led.ask("ca", "rollover", "begin")
    # The endpoint shows the way from the next root within a second: before, a machine that knows only that one does not believe it.
    with led.logs("the enrollment endpoint has a certificate"):
        led.ask("ca", "rollover", "activate")
    second = enrolls(led, new)
    if first["issuer"] == second["issuer"]:
        raise Failed(f"both are below {first['issuer']}")
    # By that the gateway gets new certificates, below the next root: who knows the root before alone is led on.
    with led.logs("the gateway shows new certificates"):
        led.server.operator("setting", "set", f"public-names={led.server.host_name},next.{led.server.host_name}")
    path = uses(led, old, first)["path"]
    if not any("Sallyport Root 2" in line for line in path) or not any("path length of 2" in line for line in path):
        raise Failed(f"{old} should be led to the next root by the one that it trusts: {path}")
    uses(led, new, second)
    renewed = led.tell("enroll", machine=old, words=[], then=["renew", "--force"])
    if renewed["issuer"] != second["issuer"]:
        raise Failed(f"{old} should be below the next root by now: {renewed}")
    # The gateway and the controllers have moved by themselves.
    for _ in range(60):
        if led.ask("ca", "rollover", "status")["still_below_the_root_before"] == 0:
            break
        time.sleep(1)
    led.ask("ca", "rollover", "finish")
    uses(led, old, renewed)


def enrolls(led, name):
    said = led.tell("enroll", machine=name, words=["--token-file", led.say(f"{name}.token", led.token(name))])
    led.tell("forget")
    return said


def uses(led, name, own):
    """Connects by what a machine has, and hangs up."""
    led.tell("enroll", machine=name, words=["--for", "strongswan", "--no-timer"], then=["install"])
    answer = led.connect(own["serial"], installed=True)
    led.hang_up()
    return answer


STORIES = {"paths": paths, "rollover": rollover}
