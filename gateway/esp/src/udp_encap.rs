//! ESP in UDP on port 4500: RFC 3948.

/// Four zero bytes before an IKE message on port 4500, where an ESP packet has its SPI (RFC 3948 §2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The whole of a NAT-keepalive datagram (RFC 3948 §2.3).
pub const KEEPALIVE: [u8; 1] = [0xff];

/// What a datagram on port 4500 carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpEncap<'a> {
    /// NAT-keepalive: nothing to do.
    Keepalive,
    /// An IKE message, without the marker.
    Ike(&'a [u8]),
    /// An ESP packet, the whole datagram. Whether its SPI is anybody's is not looked at.
    Esp(&'a [u8]),
    /// Too short to be any of them.
    Malformed,
}

/// Tells apart what RFC 3948 §2 puts on one port.
#[must_use]
pub fn classify(datagram: &[u8]) -> UdpEncap<'_> {
    match datagram.split_first_chunk() {
        Some((&NON_ESP_MARKER, ike)) => UdpEncap::Ike(ike),
        Some(_) => UdpEncap::Esp(datagram),
        None if *datagram == KEEPALIVE => UdpEncap::Keepalive,
        None => UdpEncap::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_are_told_apart() {
        assert_eq!(classify(&[0xff]), UdpEncap::Keepalive);
        assert_eq!(classify(&[0, 0, 0, 0, 1, 2]), UdpEncap::Ike(&[1, 2]));
        assert_eq!(classify(&[0, 0, 0, 0]), UdpEncap::Ike(&[]));
        assert_eq!(classify(&[0, 0, 1, 0, 9]), UdpEncap::Esp(&[0, 0, 1, 0, 9]));
        assert_eq!(classify(&[0xff; 4]), UdpEncap::Esp(&[0xff; 4]));
        for short in [&[][..], &[0], &[0xfe], &[0xff, 0xff], &[0, 0, 0]] {
            assert_eq!(classify(short), UdpEncap::Malformed);
        }
    }
}
