//! What a worker has received from outside: buffers, each with one packet or with several of equal length behind one
//! another, as the system's receive offload gives them.

use std::net::SocketAddr;

use super::buffer::Buffers;
use crate::net::Role;

/// Buffers of one receive call: enough for a burst of clients that send one packet at a time.
pub const RECEIVE_BUFFERS: usize = 16;

/// Size of each: the longest datagram, or as many short ones as the system puts together.
pub const RECEIVE_BUFFER: usize = 65_535;

/// What one buffer holds.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Through which kind of socket it came.
    pub role: Role,
    /// Bytes in the buffer.
    pub len: usize,
    /// Length of each packet in it but the last.
    pub stride: usize,
    /// The address that it was sent to. Its port is that of our socket.
    pub local: SocketAddr,
    /// Where it came from.
    pub remote: SocketAddr,
}

/// The buffers of one receive call and what is in them.
#[derive(Debug)]
pub struct ReceiveBatch {
    /// The bytes; the first [`ReceiveBatch::filled`] are in use.
    pub buffers: Buffers,
    /// What is in the buffers, in their order.
    pub filled: Vec<Received>,
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self { buffers: Buffers::new(RECEIVE_BUFFERS, RECEIVE_BUFFER), filled: Vec::with_capacity(RECEIVE_BUFFERS) }
    }
}

impl ReceiveBatch {
    /// Puts datagrams of equal length into the next buffer: for tests and benchmarks. `false` if there is no buffer or
    /// no room left.
    pub fn push<'p>(
        &mut self,
        role: Role,
        local: SocketAddr,
        remote: SocketAddr,
        packets: impl IntoIterator<Item = &'p [u8]>,
    ) -> bool {
        let Some(buffer) = self.buffers.buffer_mut(self.filled.len()) else { return false };
        let (mut len, mut stride) = (0, 0);
        for packet in packets {
            let Some(to) = buffer.get_mut(len..len + packet.len()) else { return false };
            to.copy_from_slice(packet);
            len += packet.len();
            stride = stride.max(packet.len());
        }
        self.filled.push(Received { role, len, stride, local, remote });
        true
    }
}
