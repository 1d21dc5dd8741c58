"""An authority that the server does not know, made with openssl."""
import os

from .shell import sh, write

EKU = "clientAuth,1.3.6.1.5.5.7.3.17,1.3.6.1.5.5.8.2.2"     # and: IPsec IKE, IKE intermediate


def openssl(folder, *args):
    sh("openssl", *args, cwd=folder)


def strange_authority(folder):
    os.makedirs(folder, exist_ok=True)
    openssl(folder, "req", "-x509", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-days", "3650", "-subj", "/O=Strange/CN=Strange Root", "-addext", "keyUsage=critical,keyCertSign,cRLSign")


def strange_machine(folder, machine):
    """A certificate of the strange authority for a machine; returns the paths of certificate and key."""
    name = f"{machine}.interop.test"
    write(f"{folder}/{machine}.ext", f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                                     f"extendedKeyUsage={EKU}\nsubjectAltName=DNS:{name}\n")
    openssl(folder, "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{machine}.key", "-out",
            f"{machine}.csr", "-subj", f"/O=Strange/CN={name}")
    openssl(folder, "x509", "-req", "-in", f"{machine}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "365", "-extfile", f"{machine}.ext", "-out", f"{machine}.pem")
    return {"cert": f"{folder}/{machine}.pem", "key": f"{folder}/{machine}.key"}
