//! The sockets outside: UDP 500 and 4500, IP protocol 50, and UDP 1701 where nothing is spoken.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use socket2::{Domain, Protocol, Socket, Type};

use crate::data::{DataConfig, DataError};

/// IP protocol of ESP (RFC 4303 §2).
const ESP: i32 = 50;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// IKE without NAT.
    Ike,
    /// IKE and ESP in UDP (RFC 3948).
    NatT,
    /// ESP as an IP protocol. With IPv4 the system hands over the IP header too.
    Esp,
    /// L2TP in the clear: counted and dropped.
    ClearL2tp,
}

/// One socket outside, non-blocking, with batches where the system has them.
#[derive(Debug)]
pub struct OuterSocket {
    socket: Socket,
    state: UdpSocketState,
    role: Role,
    bound: SocketAddr,
}

impl OuterSocket {
    fn open(role: Role, bound: SocketAddr, buffer: usize) -> io::Result<Self> {
        let domain = Domain::for_address(bound);
        let socket = match role {
            Role::Esp => Socket::new(domain, Type::RAW, Some(Protocol::from(ESP)))?,
            _ => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?,
        };
        if bound.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        raise_buffers(&socket, buffer);
        socket.bind(&bound.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        if bound.is_ipv4() {
            // The crate wants packets never to be fragmented. But an IKE message with a chain of certificates is longer
            // than any path, and an ESP packet that grew past the path must arrive somehow.
            set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?;
        }
        let bound = match role {
            Role::Esp => bound,
            _ => socket.local_addr()?.as_socket().unwrap_or(bound),
        };
        Ok(Self { socket, state, role, bound })
    }

    /// What it is for.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The address and port that it is bound to; the address may be unspecified.
    pub const fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Whether a packet that shall leave from `local` can leave from here.
    pub fn serves(&self, local: SocketAddr) -> bool {
        let same_port = self.role == Role::Esp || self.bound.port() == local.port();
        same_port
            && self.bound.is_ipv4() == local.is_ipv4()
            && (self.bound.ip() == local.ip() || self.bound.ip().is_unspecified() || local.ip().is_unspecified())
    }

    /// Most equal datagrams that one send takes.
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Whether one receive can give many datagrams in one buffer.
    pub fn receives_batches(&self) -> bool {
        self.state.gro_segments() > 1
    }

    /// Receives into as many of `bufs` as have something; `WouldBlock` when none has.
    pub fn receive(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        self.state.recv(UdpSockRef::from(&self.socket), bufs, meta)
    }

    /// Sends `contents`, cut into datagrams of `segment` bytes if that is given.
    pub fn send(&self, from: IpAddr, to: SocketAddr, contents: &[u8], segment: Option<usize>) -> io::Result<()> {
        let src_ip = if from.is_unspecified() { None } else { Some(from) };
        // A raw socket takes no port.
        let to = if self.role == Role::Esp { SocketAddr::new(to.ip(), 0) } else { to };
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size: segment, src_ip };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }
}

impl AsFd for OuterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks for more than `net.core.rmem_max` allows, and takes what it allows where the privilege is missing.
fn raise_buffers(socket: &Socket, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = socket.set_recv_buffer_size(bytes);
    }
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        let _ = socket.set_send_buffer_size(bytes);
    }
}

/// Opens all sockets that `config` names. The second part says what is missing and can be done without.
pub fn open_sockets(config: &DataConfig) -> Result<(Vec<OuterSocket>, Vec<String>), DataError> {
    let (mut sockets, mut warnings) = (Vec::new(), Vec::new());
    for ip in &config.listen {
        for (role, port) in [(Role::Ike, config.ike_port), (Role::NatT, config.nat_t_port)] {
            let at = SocketAddr::new(*ip, port);
            let socket = OuterSocket::open(role, at, config.socket_buffer)
                .map_err(|e| DataError::Socket { what: format!("UDP {at}"), error: explain(e) })?;
            if socket.max_segments() == 1 || !socket.receives_batches() {
                warnings.push(format!("UDP {at}: this kernel has no segmentation offload; throughput will be lower"));
            }
            sockets.push(socket);
        }
        if config.native_esp {
            match OuterSocket::open(Role::Esp, SocketAddr::new(*ip, 0), config.socket_buffer) {
                Ok(socket) => sockets.push(socket),
                Err(e) => warnings.push(format!(
                    "native ESP (IP protocol 50) on {ip} is off: {e}. It needs CAP_NET_RAW; clients behind NAT are \
                     not affected, others must use UDP encapsulation"
                )),
            }
        }
        if let Some(port) = config.clear_l2tp_port {
            // A packet here is dropped, so nothing needs room to wait.
            match OuterSocket::open(Role::ClearL2tp, SocketAddr::new(*ip, port), 64 << 10) {
                Ok(socket) => sockets.push(socket),
                Err(e) => warnings.push(format!("UDP {ip}:{port}: {e}: L2TP in the clear will not be counted")),
            }
        }
    }
    Ok((sockets, warnings))
}

fn explain(e: io::Error) -> io::Error {
    let more = match e.kind() {
        io::ErrorKind::AddrInUse => "another IKE daemon (charon, pluto) may be running",
        io::ErrorKind::PermissionDenied => "a port below 1024 needs CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => return e,
    };
    io::Error::new(e.kind(), format!("{e}: {more}"))
}
