"""Validates chains by the verifier of Python's cryptography: `python validate.py FILE`, with a FILE as Validate.java reads it.

It knows no revocation lists. A name that begins with `vpn` is a server's, dialled by its common name; any other one is a client.
"""
import datetime
import sys

from cryptography import x509
from cryptography.x509 import verification


def certificate(file):
    with open(file, "rb") as f:
        return x509.load_der_x509_certificate(f.read())


for line in open(sys.argv[1], encoding="ascii"):
    name, millis, root, _lists, chain = line.rstrip("\n").split("|")
    leaf, *others = (certificate(file) for file in chain.split(","))
    time = datetime.datetime.fromtimestamp(int(millis) / 1000, datetime.timezone.utc)
    builder = verification.PolicyBuilder().store(verification.Store([certificate(root)])).time(time)
    try:
        if name.startswith("vpn"):
            (dialled,) = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            builder.build_server_verifier(x509.DNSName(dialled.value)).verify(leaf, others)
        else:
            builder.build_client_verifier().verify(leaf, others)
        print(name, "good")
    except verification.VerificationError as e:
        print(name, str(e).replace("\n", " "))
