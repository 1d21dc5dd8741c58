//! Framing: address, control and protocol fields (RFC 1661 §2, RFC 1662 §3.1), without allocation.

sallyport_base::wire_enum! {
    /// IANA "PPP DLL Protocol Numbers", as far as clients send them.
    pub struct Protocol(u16) {
        IPV4 = 0x0021, VJ_COMPRESSED = 0x002d, VJ_UNCOMPRESSED = 0x002f, MULTILINK = 0x003d, IPV6 = 0x0057,
        COMPRESSED = 0x00fd, MPLS_UNICAST = 0x0281,
        IPCP = 0x8021, IPV6CP = 0x8057, CCP = 0x80fd, ECP = 0x8053, MPLSCP = 0x8281, ACSCP = 0x8235,
        LCP = 0xc021, PAP = 0xc023, LQR = 0xc025, CBCP = 0xc029, BACP = 0xc02b, CHAP = 0xc223, EAP = 0xc227,
    }
}

/// What stands before an IPv4 packet in full form: address, control, protocol.
pub const IPV4_HEADER: &[u8] = &[0xff, 0x03, 0x00, 0x21];
/// The same for a peer that takes frames without address and control (ACFC).
pub const IPV4_HEADER_ACFC: &[u8] = &[0x00, 0x21];
/// The longest header that stands before an IPv4 packet: reserve this much headroom.
pub const MAX_HEADER_LEN: usize = 4;

/// Takes the header off a received frame: the protocol number and its packet.
///
/// `FF 03` may be there or not, and the protocol field may be one byte or two: clients mix the forms, whatever was
/// agreed. `None` is a frame without a whole protocol field.
pub fn strip(frame: &[u8]) -> Option<(u16, &[u8])> {
    let rest = match frame {
        [0xff, 0x03, rest @ ..] => rest,
        _ => frame,
    };
    match rest {
        // The least significant bit of a protocol field's last byte is 1, that of an earlier byte is 0 (RFC 1661 §2).
        [low, payload @ ..] if low & 1 == 1 => Some((u16::from(*low), payload)),
        [high, low, payload @ ..] => Some((u16::from_be_bytes([*high, *low]), payload)),
        _ => None,
    }
}

/// A control frame in full form. LCP always travels so (RFC 1661 §6.5, §6.6), and we send all control so.
pub fn control_frame(protocol: Protocol, packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(4 + packet.len());
    frame.extend_from_slice(&[0xff, 0x03]);
    frame.extend_from_slice(&protocol.0.to_be_bytes());
    frame.extend_from_slice(packet);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_header_is_taken() {
        assert_eq!(strip(&[0xff, 3, 0, 0x21, 9]), Some((0x21, &[9][..])));
        assert_eq!(strip(&[0xff, 3, 0x21, 9]), Some((0x21, &[9][..])));
        assert_eq!(strip(&[0, 0x21, 9]), Some((0x21, &[9][..])));
        assert_eq!(strip(&[0x21, 9]), Some((0x21, &[9][..])));
        assert_eq!(strip(&[0xc0, 0x21]), Some((0xc021, &[][..])));
        assert_eq!(strip(&[0xff, 3, 0xc0]), None);
        assert_eq!(strip(&[0xff, 3]), None);
        assert_eq!(strip(&[]), None);
    }

    #[test]
    fn a_control_frame_is_stripped_to_what_it_was_made_of() {
        let frame = control_frame(Protocol::LCP, &[1, 2, 3]);
        assert_eq!(strip(&frame), Some((0xc021, &[1, 2, 3][..])));
    }
}
