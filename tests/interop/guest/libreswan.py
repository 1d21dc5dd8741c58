"""pluto as IKEv1 initiator. (It has no ECDSA for IKEv1.)"""
import os
import shutil

from programs import daemon, sh, wait_for, write
from report import WATCH

PHASES = {"ike_sa": [r"(IKE|ISAKMP) SA established"], "ipsec_sa": [r"IPsec SA established"]}
NSS = "/var/lib/ipsec/nss"


def connect(cfg):
    auth = "secret" if cfg.get("psk") else "rsasig"
    for folder in (NSS, "/run/pluto"):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
    os.makedirs("/etc/ipsec.d/policies", exist_ok=True)
    sh("certutil", "-N", "-d", f"sql:{NSS}", "--empty-password")
    ends = "    rightid=%any\n"
    if auth == "rsasig":
        sh("openssl", "pkcs12", "-export", "-name", "machine", "-in", cfg["cert"], "-inkey", cfg["key"],
           "-passout", "pass:x", "-out", "/run/lab/machine.p12")
        sh("pk12util", "-i", "/run/lab/machine.p12", "-d", f"sql:{NSS}", "-W", "x", "-K", "")
        sh("certutil", "-A", "-d", f"sql:{NSS}", "-n", "ca", "-t", "CT,,", "-i", cfg["ca"])
        ends = ("    leftcert=machine\n    leftsendcert=always\n    leftid=%fromcert\n    rightca=%same\n"
                f"    rightid=@{cfg['server_name']}\n")
    write("/etc/ipsec.secrets", f': PSK "{cfg["psk"]}"\n' if auth == "secret" else "")
    options = ""
    for key, option in (("ike", "ike"), ("esp", "esp"), ("ike_life", "ikelifetime"), ("esp_life", "salifetime")):
        if cfg.get(key):
            options += f"    {option}={cfg[key]}{'s' if option.endswith('time') else ''}\n"
    write("/etc/ipsec.conf", f"""config setup
    logtime=no
    ikev1-policy=accept
conn l2tp
    type=transport
    ikev2=no
    authby={auth}
    auto=add
    left=%defaultroute
    leftprotoport=17/{cfg['l2tp_port']}
    right={cfg['server']}
    rightprotoport=17/1701
    rekey=yes
    pfs=no
{ends}{options}""", 0o644)
    daemon("pluto", "/usr/libexec/ipsec/pluto", "--nofork", "--stderrlog", "--config", "/etc/ipsec.conf",
           "--nssdir", NSS)
    wait_for(lambda: os.path.exists("/run/pluto/pluto.ctl"), "pluto's control socket")
    sh("ipsec", "whack", "--listen")
    sh("ipsec", "auto", "--add", "l2tp")
    daemon("whack", "ipsec", "auto", "--up", "l2tp")
    WATCH.wait("ipsec_sa", cfg["timeout"])


def algorithms():
    esp = WATCH.matches(r"IPsec SA established (\S+).*?\{ESP(inUDP)?.*?xfrm=(\S+)")
    mode, udp, suite = esp[-1] if esp else (None, None, None)
    return {"ike": WATCH.last(r"SA established.*\{auth=(.*?)\}"), "esp": suite,
            "esp_mode": mode and mode + ("-in-UDP" if udp else "")}


def esp_sas():
    """How many ESP SAs there have been, the first included (each is logged by pluto and by whack)."""
    return len(set(WATCH.matches(r"IPsec SA established .*=>(0x[0-9a-f]+)")))


def disconnect():
    sh("ipsec", "auto", "--delete", "l2tp", check=False)
