"""`sallyport enroll`, as a user runs it: one line with a token; strongSwan's connection is what it writes."""
import json

from programs import sh
from report import Failed

SALLYPORT = "/mnt/guest/sallyport"
CONNECTION = "sallyport"            # the name of the connection that it writes


def enroll(cfg):
    sh(SALLYPORT, "enroll", "--token-file", cfg["token"], "--for", "strongswan", timeout=60)


def status():
    found = json.loads(sh(SALLYPORT, "enroll", "status", "--output", "json", timeout=30))
    return found[0] if isinstance(found, list) else found


def renew(cfg):
    """Renews at once; the certificate must be another one, for the same name. Its serial number."""
    before = status()
    sh(SALLYPORT, "enroll", "renew", "--force", timeout=60)
    after = status()
    if before["serial"] == after["serial"] or before["name"] != after["name"]:
        raise Failed(f"the certificate was not renewed: {before} {after}")
    return after["serial"]
