//! Clamping the TCP maximum segment size of packets that pass.

/// Lowers the MSS option of a TCP SYN to what fits `mtu`, in place. Filled in soon.
pub fn clamp_mss(packet: &mut [u8], mtu: u16) -> bool {
    let _ = (packet, mtu);
    false
}
