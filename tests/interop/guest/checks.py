"""What is asked of a tunnel that is up. The far end of every check is `lab/lanhost.py`."""
import hashlib
import http.client
import os
import re
import socket
import struct
import threading
import time
import urllib.request

from programs import sh
from report import Failed, ms

BLOCK = 1 << 18
TIMEOUT = 30                # seconds without a byte after which a transfer has failed
TOLD = "/mnt/guest/"        # where the host puts a file to tell us something
PATIENCE = 240              # seconds until it must have
HOLD = 120                  # seconds that a transfer lasts which the host does not end


def told(what):
    return os.path.exists(f"{TOLD}told-{what}")


def until_told(what):
    deadline = time.monotonic() + PATIENCE
    while not told(what):
        if time.monotonic() > deadline:
            raise Failed(f"was not told to {what}")
        time.sleep(0.1)


def ping(host, count, *options):
    text = sh("ping", "-n", "-c", str(count), "-i", "0.2", "-W", "2", *options, host,
              timeout=count + 15, check=False, quiet=True)
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    sent, received = map(int, counts.groups()) if counts else (count, 0)
    if not received:
        raise Failed(f"no answer to ping {' '.join(options)} from {host}")
    return {"sent": sent, "received": received}


def name(server, target):
    """Asks the assigned name server, whose every answer is the LAN host."""
    query = struct.pack(">HHHHHH", os.getpid() & 0xFFFF, 0x0100, 1, 0, 0, 0)
    query += b"".join(bytes([len(p)]) + p.encode() for p in ("www", "interop", "test")) + struct.pack(">BHH", 0, 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        for _ in range(3):
            s.sendto(query, (server, 53))
            try:
                answer = socket.inet_ntoa(s.recv(512)[-4:])
            except TimeoutError:
                continue
            if answer != target:
                raise Failed(f"{server} says that www.interop.test is {answer}")
            return answer
    raise Failed(f"no answer from the name server {server}")


def page(host):
    """Fetches a page; returns the address that the LAN host saw."""
    try:
        return urllib.request.urlopen(f"http://{host}/", timeout=10).read().decode().split()[1]
    except OSError as e:
        raise Failed(f"no page from {host}: {e}") from e


def slowly(done, begun, rate):
    """Waits until `done` bytes are due: at `rate` bytes a second, if there is one, and only until the host says "go on"."""
    while rate and time.monotonic() < begun + done / rate and not told("go-on"):
        time.sleep(0.1)


def upload(host, size, rate, _hold=False):
    """Sends `size` random bytes, and compares the checksum that the LAN host found with ours."""
    digest, block, begun = hashlib.sha256(), os.urandom(BLOCK), time.monotonic()

    def body():
        for at in range(0, size, BLOCK):
            chunk = (struct.pack(">Q", at) + block[8:])[:size - at]     # no two blocks alike
            digest.update(chunk)
            yield chunk
            slowly(at + len(chunk), begun, rate)

    link = http.client.HTTPConnection(host, timeout=TIMEOUT, blocksize=BLOCK)
    link.request("POST", "/upload", body(), {"Content-Length": str(size)})
    seen = link.getresponse().read().decode()
    if seen != digest.hexdigest():
        raise Failed(f"upload of {size} bytes: checksum {seen}, not {digest.hexdigest()}")


def download(host, size, rate, hold=False):
    """Receives `size` bytes and the sender's checksum of them, and compares it with ours. The sender keeps to the rate, or
    we do (`hold`)."""
    link, begun = http.client.HTTPConnection(host, timeout=TIMEOUT), time.monotonic()
    link.request("GET", f"/download?bytes={size}&rate={0 if hold else rate or 0}")
    response, digest, left = link.getresponse(), hashlib.sha256(), size
    while left:
        slowly(size - left, begun, hold and rate)
        chunk = response.read(min(BLOCK, left))
        if not chunk:
            raise Failed(f"download of {size} bytes: ended {left} bytes too early")
        digest.update(chunk)
        left -= len(chunk)
    sent = response.read().decode()
    if sent != digest.hexdigest():
        raise Failed(f"download of {size} bytes: checksum {digest.hexdigest()}, not {sent}")


def timed(action, host, size, rate=None, hold=False):
    """Runs a transfer; returns its Mbit/s."""
    begun = time.monotonic()
    try:
        action(host, size, rate, hold)
    except (OSError, http.client.HTTPException) as e:
        raise Failed(f"{action.__name__} broke off after {ms(begun)} ms: {e!r}") from e
    return round(size * 8 / 1e6 / (time.monotonic() - begun), 1)


def transfer(host, mib):
    """`mib` MiB each way, one after the other, as fast as it goes."""
    return {"up_mbps": timed(upload, host, mib << 20), "down_mbps": timed(download, host, mib << 20)}


def both_ways(host, size, rate, hold=False):
    """Both ways at once, slowly."""
    errors = []

    def one(action):
        try:
            timed(action, host, size, rate, hold)
        except Failed as e:
            errors.append(e)

    threads = [threading.Thread(target=one, args=(action,)) for action in (upload, download)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]


def trickle(host, seconds, rate=1 << 20):
    """Both ways at once and slowly, so that two connections stay open for `seconds`."""
    both_ways(host, seconds * rate, rate)
    return {"seconds": seconds, "bytes_each_way": seconds * rate}


def held(host, mib):
    """The same, until the host says "go on": the rest then goes as fast as it can."""
    both_ways(host, mib << 20, (mib << 20) / HOLD, hold=True)
    if not told("go-on"):
        raise Failed("the transfer was over before the host said so")
    return {"bytes_each_way": mib << 20}
