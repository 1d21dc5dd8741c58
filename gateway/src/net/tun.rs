//! The TUN device as the worker of the data plane uses it: whole frames, non-blocking, several buffers a write.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use tun_rs::{DeviceBuilder, SyncDevice};

use super::NetError;

/// Length of the `virtio_net_hdr` before each frame when offloads are on (`linux/virtio_net.h`).
pub const VNET_HEADER_LEN: usize = 10;

/// Longest read from the device: a superpacket of the largest IPv4 length with its header.
pub const MAX_INSIDE_FRAME: usize = VNET_HEADER_LEN + 65_535;

/// The inside device, as the data plane's worker owns it.
pub struct Tun {
    device: SyncDevice,
    offload: bool,
    uso: bool,
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tun").field("offload", &self.offload).field("uso", &self.uso).finish_non_exhaustive()
    }
}

impl Tun {
    /// Creates the device and brings it up, with segmentation offloads if the kernel grants them.
    pub fn create(name: &str, mtu: u16) -> Result<Self, NetError> {
        let build = |offload: bool| {
            DeviceBuilder::new()
                .name(name)
                .mtu(mtu)
                .with(|b| {
                    b.offload(offload);
                })
                .build_sync()
        };
        let device = build(true).or_else(|_| build(false)).map_err(|e| NetError::new(what(name), why(&e)))?;
        device.set_nonblocking(true).map_err(|e| NetError::new(what(name), e))?;
        let (offload, uso) = (device.tcp_gso(), device.udp_gso());
        Ok(Self { device, offload, uso })
    }

    /// The device's name as the system gave it.
    pub fn name(&self) -> io::Result<String> {
        self.device.name()
    }

    /// The device's interface index.
    pub fn index(&self) -> io::Result<u32> {
        self.device.if_index()
    }

    /// Whether frames carry a `virtio_net_hdr`, and TCP superpackets pass both ways.
    pub const fn offload(&self) -> bool {
        self.offload
    }

    /// Whether UDP superpackets pass too (Linux 6.2).
    pub const fn uso(&self) -> bool {
        self.uso
    }

    /// Reads one frame; `WouldBlock` when there is none.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.device.recv(buf)
    }

    /// Writes one frame that lies in several places.
    pub fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.device.send_vectored(parts)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn what(name: &str) -> String {
    format!("TUN device {name}")
}

fn why(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(
                "{e}: a gateway needs CAP_NET_ADMIN in its network namespace and access to /dev/net/tun; run it as root or by \
                 its systemd unit"
            )
        }
        io::ErrorKind::NotFound => format!("{e}: /dev/net/tun is not there; load the tun module or pass the device in"),
        io::ErrorKind::ResourceBusy => format!("{e}: another process owns a device of this name"),
        _ => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_may_not_be_made_says_once_what_is_missing() {
        let error = NetError::new(what("sallyport0"), why(&io::Error::from(io::ErrorKind::PermissionDenied)));
        let said = crate::app::StartError::from(error).to_string();
        assert_eq!(said.matches("CAP_NET_ADMIN").count(), 1, "{said}");
    }
}
