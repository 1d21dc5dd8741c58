"""What the laboratory needs, and how it gets there.

A few tools are installed on the host (none of them starts a service). The VPN software is only *unpacked*, one layer a
folder, so that strongSwan and libreswan can live side by side and nothing runs on the host; guests see these
layers laid over the host's root file system.
"""
import os
import shutil
import tempfile

from .shell import read, sh, write

DATA = os.environ.get("SALLYPORT_INTEROP_DATA", "/var/lib/sallyport-interop")
UML = "/usr/bin/linux.uml"
UML_MODULES = "/usr/lib/uml/modules"

HOST_PACKAGES = "user-mode-linux iproute2 nftables openssl iputils-ping procps faketime".split()
LAYERS = {
    "base": "kmod iputils-ping iproute2 ppp xl2tpd",
    "strongswan": "strongswan-charon strongswan-libcharon libstrongswan strongswan-swanctl "
                  "libcharon-extra-plugins libstrongswan-standard-plugins libstrongswan-extra-plugins",
    "libreswan": "libreswan libnss3-tools",
    "enrollment": "strongswan-pki certmonger dbus dbus-bin dbus-daemon softhsm2 softhsm2-common libsofthsm2 openssl",
}
APT = ["-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"]


def layer(name):
    return f"{DATA}/layers/{name}"


def missing_packages():
    return [p for p in HOST_PACKAGES
            if "ok installed" not in sh("dpkg-query", "-Wf", "${Status}", p, check=False)]


def stale_layers():
    """Layers that are not there, or were made from another list of packages."""
    return [name for name, packages in LAYERS.items()
            if not os.path.exists(f"{layer(name)}/packages") or read(f"{layer(name)}/packages") != packages]


def why_not():
    """Why scenarios cannot run here, in words; None if they can."""
    if os.geteuid():
        return "needs root: network namespaces with devices of their own"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    if not shutil.which("dpkg-query"):
        return "needs Debian 12 or a relative of it: the clients come from its packages"
    absent = missing_packages() + [f"layer {name}" for name in stale_layers()]
    return f"not installed: {', '.join(absent)}" if absent else None


def install():
    """Installs and unpacks what is missing; does nothing where all is there."""
    packages, layers = missing_packages(), stale_layers()
    if not packages and not layers:
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    sh("apt-get", "update", "-o", "Acquire::Retries=3", timeout=300)
    if packages:
        print("installing", *packages, flush=True)
        sh("apt-get", "install", *APT, *packages, env=env, timeout=900)
    for name in layers:
        print("unpacking layer", name, flush=True)
        unpack(name, env)


def unpack(name, env):
    """Fetches the packages of a layer, with those dependencies that the host lacks, and unpacks them."""
    dest, new = layer(name), f"{layer(name)}.new"
    shutil.rmtree(new, ignore_errors=True)
    with tempfile.TemporaryDirectory() as archives:
        os.mkdir(f"{archives}/partial")
        sh("apt-get", "install", *APT, "--download-only", "--reinstall", "--allow-downgrades", "-o", "Debug::NoLocking=1",
           "-o", f"Dir::Cache::archives={archives}", *LAYERS[name].split(), env=env, timeout=900)
        for folder in ("bin", "sbin", "lib"):           # a layer must look like a system with merged /usr
            os.makedirs(f"{new}/usr/{folder}")
            os.symlink(f"usr/{folder}", f"{new}/{folder}")
        for deb in sorted(f for f in os.listdir(archives) if f.endswith(".deb")):
            sh("sh", "-c", 'dpkg-deb --fsys-tarfile "$0" | tar -x --keep-directory-symlink -C "$1"',
               f"{archives}/{deb}", new, timeout=120)
    write(f"{new}/packages", LAYERS[name])
    shutil.rmtree(dest, ignore_errors=True)
    os.rename(new, dest)
