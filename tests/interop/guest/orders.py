"""A guest that is led: the host writes one order after the other (`lab/led.py`), each is carried out and answered by an event.

It gets certificates in several ways, and connects by each.
"""
import glob
import json
import os
import shutil
import time

import checks
import l2tp
import strongswan
from programs import RUN, end_all, read, sh, wait_for, write
from report import WATCH, Failed, event

ORDER = "/mnt/guest/order-"         # and its number
PATIENCE = 300                      # seconds until the next one must have come
SALLYPORT = "/mnt/guest/sallyport"
SLOW = 120                          # seconds for what makes keys, or asks the endpoint
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"


def obey(cfg):
    """Carries out orders until there are no more. Which came to nothing is in the error."""
    number = 0
    while True:
        number += 1
        order = following(number)
        do = order.pop("do")
        if do == "end":
            return
        event(f"done-{number}", said=ORDERS[do](cfg, **order) or {})


def following(number):
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(f"{ORDER}{number}.json"):
        if time.monotonic() > deadline:
            raise Failed(f"no order {number} within {PATIENCE} s")
        time.sleep(0.05)
    return json.loads(read(f"{ORDER}{number}.json"))


# ------------------------------------------------------------------- certificates


def enroll(_cfg, machine, words, then=()):
    """`sallyport enroll`, the first certificate or what comes later (`then`: renew, install). What its status says."""
    folder = ("--dir", f"/etc/sallyport/{machine}")
    more = [] if then else ["--for", "strongswan", "--no-timer"]
    sh(SALLYPORT, "enroll", *then, *words, *more, *folder, timeout=SLOW)
    found = json.loads(sh(SALLYPORT, "enroll", "status", "--output", "json", *folder, timeout=SLOW))
    return found[0] if isinstance(found, list) else found


def make_token(_cfg, label, pin):
    """A PKCS #11 token in software, as an administrator makes one; the file with its PIN."""
    sh("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", pin, timeout=SLOW)
    return {"pin_file": write(f"{RUN}/{label}.pin", pin + "\n"), "module": SOFTHSM}


def est(cfg, machine, root, token):
    """EST by strongSwan's `pki`: a key, a request that claims nothing, the token as password (on no command line); then the next
    certificate by that one."""
    own = fresh(machine)
    write(f"{own}/options", f"--userpass :{token}\n")
    shutil.copy(root, f"{own}/ca.pem")
    sh("sh", "-ec", f"""cd {own}
pki --estca --url https://{cfg['server_name']} --cacert ca.pem --caout got --outform pem --force
for ca in got*; do known="$known --cacert $ca"; done
enroll() {{
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $1.key
    pki --req --in $1.key --type ecdsa --dn CN=somebody --outform pem > $1.csr
    pki --est --url https://{cfg['server_name']} $known --in $1.csr --outform pem $2 $3 $4 $5 > $1.pem
}}
enroll first --options options
enroll second --cert first.pem --key first.key
mv second.key key.pem
mv second.pem cert.pem
""", timeout=SLOW)
    return {"folder": own, "authorities": len(glob.glob(f"{own}/got*"))}


def scep(cfg, machine, root, token):
    """SCEP by certmonger, which makes the key; the token is the challenge password. The bus starts the daemon and ends it."""
    own = fresh(machine)
    shutil.copy(root, f"{own}/ca.pem")
    script = write(f"{own}/script", f"""set -e
ulimit -n 64    # each of its many helpers closes all descriptors that there might be
getcert add-scep-ca -s -c ours -u http://{cfg['server_name']}/scep -I {own}/ca.pem
getcert request -s -c ours -k {own}/key.pem -f {own}/cert.pem -N CN=somebody -L {token} -w
getcert list -s -f {own}/cert.pem
""")
    said = sh("env", f"HOME={own}", "dbus-run-session", "bash", script, timeout=SLOW)
    if "status: MONITORING" not in said:
        raise Failed(f"certmonger has no certificate: {said[-300:]}")
    return {"folder": own}


def fresh(machine):
    own = f"{RUN}/{machine.partition('.')[0]}"
    os.makedirs(own, mode=0o700)
    return own


# -------------------------------------------------------------------- connections


def connect(cfg, **how):
    """Connects by a certificate and moves data: `installed` is the connection of `sallyport enroll`; `folder` one with cert.pem,
    key.pem and ca.pem; `p12` a file, with `p12_password` and `local_id`, the name in it."""
    own = {**cfg, **how}
    if how.get("folder"):
        own |= {kind: f"{how['folder']}/{kind}.pem" for kind in ("cert", "key", "ca")}
    WATCH.begin({**strongswan.PHASES, **l2tp.PHASES})
    strongswan.connect(own)
    l2tp.connect(own)
    found = l2tp.assigned()
    sh("ip", "route", "add", cfg["inside"], "dev", l2tp.device())
    checks.ping(cfg["target"], 2)
    seen = checks.page(cfg["target"])
    if seen != found["address"]:
        raise Failed(f"the LAN host saw {seen}, not {found['address']}")
    checks.transfer(cfg["target"], 1)
    path = [line for (line,) in WATCH.matches(r"(?:using (?:un)?trusted|reached self-signed).*")]
    return {"address": found["address"], "path": path}


def cut_off(_cfg):
    """Waits for the far end to hang up."""
    wait_for(lambda: not l2tp.device(), "the end of the PPP link", 60)


def hang_up(_cfg):
    l2tp.disconnect()
    strongswan.disconnect()


def refused(cfg, **how):
    """Tries to connect, in vain; the line that says so."""
    WATCH.begin({**strongswan.PHASES, **l2tp.PHASES})
    try:
        strongswan.connect({**cfg, **how})
    except Failed as e:
        return {"why": str(e)}
    raise Failed("was let in, but must not be")


def forget(_cfg):
    """Nothing is left of strongSwan: no process, and nothing that one would load."""
    end_all()
    for what in ("state", "policy"):
        sh("ip", "xfrm", what, "flush", check=False)
    strongswan.forget()


ORDERS = {"enroll": enroll, "make-token": make_token, "est": est, "scep": scep, "connect": connect, "cut-off": cut_off,
          "hang-up": hang_up, "refused": refused, "forget": forget}
