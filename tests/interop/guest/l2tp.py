"""xl2tpd and pppd, the upper half of every client here."""
import os
import time

from programs import RUN, daemon, fifo, sh, wait_for, write
from report import WATCH

PHASES = {"l2tp_tunnel": [r"Connection established to .*\d+\. +Local"],
          "l2tp_session": [r"Call established with"],
          "ppp_lcp": [r"rcvd \[LCP ConfAck", r"sent \[LCP ConfAck"],
          "ppp_auth": [r"(PAP|CHAP) authentication succeeded|rcvd \[PAP AuthAck"],
          "ppp_ip": [r"remote IP address"]}
# pppd's word for each method, by ours.
METHODS = {"pap": "pap", "chap": "chap", "mschap": "mschap", "mschapv2": "mschap-v2", "eap": "eap"}
CONTROL = f"{RUN}/l2tp-control"


def connect(cfg):
    refuse = "".join(f"refuse-{word}\n" for method, word in METHODS.items() if method != cfg["ppp"])
    options = write(f"{RUN}/ppp.options", f"""noauth
nodefaultroute
usepeerdns
ipcp-accept-local
ipcp-accept-remote
nodetach
debug
logfile {fifo('pppd')}
name "{cfg['user']}"
password "{cfg['password']}"
mtu 1400
mru 1400
lcp-echo-interval 10
lcp-echo-failure 4
lcp-restart 1
noipv6
noccp
{refuse}""")
    conf = write(f"{RUN}/xl2tpd.conf", f"""[global]
port = {cfg['l2tp_port']}
access control = no
[lac vpn]
lns = {cfg['server']}
pppoptfile = {options}
ppp debug = no
length bit = yes
""")
    if os.path.exists(CONTROL):
        os.unlink(CONTROL)
    daemon("xl2tpd", "xl2tpd", "-D", "-c", conf, "-C", CONTROL, "-p", f"{RUN}/xl2tpd.pid")
    wait_for(lambda: os.path.exists(CONTROL), "xl2tpd's control pipe")
    write(CONTROL, "c vpn\n")
    WATCH.wait("ppp_ip", cfg["timeout"])


def device():
    """The name of the PPP device, or None."""
    return next((d for d in os.listdir("/sys/class/net") if d.startswith("ppp")), None)


def assigned():
    """What the server handed out."""
    found = {"address": WATCH.last(r"local  IP address (\S+)"), "peer": WATCH.last(r"remote IP address (\S+)"),
             "auth": WATCH.last(r"sent \[LCP ConfAck.*<auth ([^>]+)>")}
    dns = [WATCH.last(rf"{which} +DNS address (\S+)") for which in ("primary", "secondary")]
    return {**found, "dns": list(dict.fromkeys(d for d in dns if d))}


def disconnect():
    """PPP says goodbye, then L2TP."""
    if device():
        sh("pkill", "-TERM", "-x", "pppd", check=False)
        wait_for(lambda: not device(), "the end of the PPP link", 8)
    if os.path.exists(CONTROL):
        time.sleep(0.2)                 # xl2tpd notices that pppd is gone and closes the session
        write(CONTROL, "d vpn\n")
        time.sleep(0.2)
