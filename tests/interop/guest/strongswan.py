"""charon as IKEv1 initiator: main mode, then transport mode for L2TP."""
import os
import re
import shutil

from programs import daemon, read, sh, wait_for, write
from enrollment import CONNECTION
from report import WATCH

PHASES = {"ike_sa": [r"IKE_SA \S+ established between"], "ipsec_sa": [r"CHILD_SA \S+ established with SPIs"]}

PLUGINS = ("random nonce openssl kdf aes sha1 sha2 md5 hmac gcm ctr ccm gmp pem pkcs1 pkcs8 pubkey x509 revocation "
           "constraints kernel-netlink socket-default vici updown")
# What desktop systems commonly offer for L2TP/IPsec.
IKE = "aes256-sha1-ecp384,aes128-sha1-ecp256,aes256-sha1-modp2048,3des-sha1-modp2048"
ESP = "aes256-sha1,aes128-sha1,3des-sha1"


FOLDER = "/etc/swanctl"
OF_TOKEN = "/etc/strongswan.d/sallyport-token.conf"     # where `sallyport enroll` names a PKCS #11 module


def connect(cfg):
    write("/etc/strongswan.conf", f"""
charon {{
    load = {PLUGINS}{" pkcs11" if os.path.exists(OF_TOKEN) else ""}
    install_routes = yes
    retransmit_tries = 3
    retransmit_timeout = 3
    filelog {{ stderr {{ default = 1
                         flush_line = yes }} }}
}}
pki {{ load = random nonce openssl kdf pem pkcs1 pkcs7 pkcs8 pubkey x509 revocation constraints }}
swanctl {{ load = random nonce openssl pem pkcs1 pkcs8 pubkey x509 }}
""" + (f"include {OF_TOKEN}\n" if os.path.exists(OF_TOKEN) else ""), 0o644)
    if cfg.get("token") or cfg.get("installed"):        # `sallyport enroll` has written all the rest
        start(cfg, CONNECTION)
        return
    for kind, name in (("x509", "cert"), ("private", "key"), ("x509ca", "ca"), ("x509ca", "chain")):
        if cfg.get(name):
            write(f"{FOLDER}/{kind}/{name}.pem", read(cfg[name]))
    own = "certs = cert.pem"
    if cfg.get("p12"):                  # it is found among what the file holds by the name in it
        os.makedirs(f"{FOLDER}/pkcs12", exist_ok=True)
        shutil.copy(cfg["p12"], f"{FOLDER}/pkcs12/machine.p12")
        own = f"id = {cfg['local_id']}"
    auth = "psk" if cfg.get("psk") else "pubkey"
    options = f"    proposals = {cfg.get('ike', IKE)}\n"
    if cfg.get("dpd"):
        options += f"    dpd_delay = {cfg['dpd']}s\n"
    if cfg.get("ike_life"):
        options += (f"    rekey_time = {cfg['ike_life']}s\n    over_time = {2 * cfg['ike_life']}s\n"
                    "    rand_time = 0\n    reauth_time = 0\n")
    child = f"      esp_proposals = {cfg.get('esp', ESP)}\n"
    if cfg.get("esp_life"):
        child += f"      rekey_time = {cfg['esp_life']}s\n      life_time = {3 * cfg['esp_life']}s\n      rand_time = 0\n"
    secret = f'secrets {{ ike-l2tp {{ secret = "{cfg["psk"]}" }} }}\n' if auth == "psk" else ""
    if cfg.get("p12"):
        secret = f'secrets {{ pkcs12-machine {{ file = machine.p12\n secret = "{cfg["p12_password"]}" }} }}\n'
    write(f"{FOLDER}/swanctl.conf", f"""
connections {{ l2tp {{
    version = 1
    remote_addrs = {cfg['server']}
{options}
    local {{
      auth = {auth}
      {own if auth == 'pubkey' else ''}
    }}
    remote {{
      auth = {auth}
      id = {cfg['server_name'] if auth == 'pubkey' else '%any'}
    }}
    children {{ l2tp {{
      mode = transport
      local_ts = dynamic[udp/{cfg['l2tp_port']}]
      remote_ts = dynamic[udp/1701]
{child}    }} }}
}} }}
{secret}""")
    start(cfg, "l2tp")


def start(cfg, child):
    """Starts charon with what is configured, and connects."""
    for left in ("/run/charon.vici", "/run/charon.pid"):
        if os.path.exists(left):
            os.unlink(left)
    daemon("charon", "/usr/lib/ipsec/charon", "--use-syslog")
    wait_for(lambda: os.path.exists("/run/charon.vici"), "charon's control socket")
    sh("swanctl", "--load-all", "--noprompt")
    initiate(cfg, child)


def initiate(cfg, child=CONNECTION):
    """Connects by what charon has loaded."""
    daemon("swanctl", "swanctl", "--initiate", "--child", child)
    WATCH.wait("ipsec_sa", cfg["timeout"])


def algorithms():
    """What was negotiated, as `swanctl --list-sas` tells it."""
    text = sh("swanctl", "--list-sas", check=False)
    ike = re.search(r"^  ((?:AES|3DES)\S+)$", text, re.M)
    esp = re.search(r"INSTALLED, (\S+), ESP:(\S+)", text)
    return {"ike": ike and ike.group(1), "esp": esp and esp.group(2), "esp_mode": esp and esp.group(1)}


def esp_sas():
    """How many ESP SAs there have been, the first included (charon and swanctl both log it)."""
    return len(set(WATCH.matches(r"CHILD_SA \S+ established with SPIs (\S+)")))


def disconnect():
    sh("swanctl", "--terminate", "--ike", CONNECTION, check=False)
    sh("swanctl", "--terminate", "--ike", "l2tp", check=False)


def forget():
    """As it was installed: no credentials, no connections."""
    for left in ("/run/charon.vici", "/run/charon.pid", OF_TOKEN):
        if os.path.exists(left):
            os.unlink(left)
    for folder in ("x509", "x509ca", "private", "pkcs12", "conf.d"):
        shutil.rmtree(f"{FOLDER}/{folder}", ignore_errors=True)
        os.makedirs(f"{FOLDER}/{folder}")
    write(f"{FOLDER}/swanctl.conf", "include conf.d/*.conf\n", 0o644)
