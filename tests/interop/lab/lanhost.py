#!/usr/bin/env python3
"""The host on the inside network that clients reach through the tunnel; run as a program in its namespace.

HTTP on port 80:
    GET /                           "lan-host", and the address of the caller
    POST /upload                    SHA-256 of the body, in hexadecimal
    GET /download?bytes=N&rate=R    N bytes (at R bytes a second; 0: at once), then their SHA-256 in hexadecimal
DNS on port 53: every question for an address is answered with this host's own. The kernel answers ping.
"""
import hashlib
import http.server
import os
import socket
import socketserver
import struct
import sys
import threading
import time
import urllib.parse

ADDRESS = sys.argv[1]
BLOCK = 1 << 18


class Http(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def answer(self, length):
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def text(self, body):
        self.answer(len(body))
        self.wfile.write(body.encode())

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path != "/download":
            return self.text(f"lan-host {self.client_address[0]}\n")
        query = dict(urllib.parse.parse_qsl(url.query))
        size, rate = int(query["bytes"]), int(query.get("rate", 0))
        self.answer(size + 64)
        digest, block, begun = hashlib.sha256(), os.urandom(BLOCK), time.monotonic()
        for at in range(0, size, BLOCK):
            chunk = (struct.pack(">Q", at) + block[8:])[:size - at]     # no two blocks alike
            digest.update(chunk)
            self.wfile.write(chunk)
            if rate:
                time.sleep(max(0, begun + (at + len(chunk)) / rate - time.monotonic()))
        self.wfile.write(digest.hexdigest().encode())

    def do_POST(self):
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            chunk = self.rfile.read1(min(BLOCK, left))
            if not chunk:
                return
            digest.update(chunk)
            left -= len(chunk)
        self.text(digest.hexdigest())

    def log_message(self, *args):
        pass


class Dns(socketserver.BaseRequestHandler):
    def handle(self):
        query, sock = self.request
        end = query.index(0, 12) + 5                # one question: name, type, class
        is_a = query[end - 4:end - 2] == b"\0\1"
        answer = struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(ADDRESS) if is_a else b""
        sock.sendto(query[:2] + struct.pack(">HHHHH", 0x8580, 1, is_a, 0, 0) + query[12:end] + answer,
                    self.client_address)


if __name__ == "__main__":
    dns = socketserver.ThreadingUDPServer((ADDRESS, 53), Dns)
    threading.Thread(target=dns.serve_forever, daemon=True).start()
    http.server.ThreadingHTTPServer((ADDRESS, 80), Http).serve_forever()
