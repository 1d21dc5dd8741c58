use hex_literal::hex;
use proptest::prelude::*;

use super::*;

#[test]
fn a_control_header_is_read_and_written() {
    // A HELLO with Ns 1 and Nr 1.
    let bytes = hex!("c802001400010000000100018008000000000006");
    let Ok(Packet::Control(header, body)) = Packet::parse(&bytes) else { panic!("not control") };
    assert_eq!(header, ControlHeader { tunnel_id: 1, session_id: 0, ns: 1, nr: 1 });
    assert_eq!(body, hex!("8008000000000006"));
    assert_eq!(header.emit(body.len()), bytes[..12]);
    assert!(Packet::is_control(&bytes));
}

#[test]
fn data_headers_come_with_any_mix_of_optional_fields() {
    let frame = [0xff, 3, 0xc0, 0x21];
    for mix in 0..16u16 {
        let (l, s, o, p) = (mix & 1 != 0, mix & 2 != 0, mix & 4 != 0, mix & 8 != 0);
        let mut flags = 2u16;
        let mut rest = Vec::new();
        if s {
            flags |= S;
        }
        rest.extend_from_slice(&[0, 7, 0, 9]);
        if s {
            rest.extend_from_slice(&[0, 1, 0, 2]);
        }
        if o {
            flags |= O;
            rest.extend_from_slice(&[0, 3, 0xaa, 0xbb, 0xcc]); // An odd pad.
        }
        if p {
            flags |= P;
        }
        rest.extend_from_slice(&frame);
        let mut bytes = Vec::new();
        if l {
            flags |= L;
            bytes.extend_from_slice(&flags.to_be_bytes());
            bytes.extend_from_slice(&u16::try_from(rest.len() + 4).unwrap().to_be_bytes());
        } else {
            bytes.extend_from_slice(&flags.to_be_bytes());
        }
        bytes.extend_from_slice(&rest);
        let (header, payload) = DataHeader::parse(&bytes).unwrap();
        assert_eq!((header.tunnel_id, header.session_id), (7, 9));
        assert_eq!(header.sequence, s.then_some((1, 2)));
        assert_eq!(header.offset, o.then_some(3));
        assert_eq!(header.priority, p);
        assert_eq!(payload, frame);
    }
}

#[test]
fn a_length_below_the_datagram_cuts_the_rest_off() {
    let (_, payload) = DataHeader::parse(&hex!("4002 0009 0007 0009 21 ffff")).unwrap();
    assert_eq!(payload, hex!("21"));
}

#[test]
fn lengths_that_lie_are_refused() {
    assert!(Packet::parse(&hex!("4002 00ff 0007 0009 21")).is_err(), "longer than the datagram");
    assert!(Packet::parse(&hex!("4002 0003 0007 0009 21")).is_err(), "shorter than itself");
    assert!(Packet::parse(&hex!("0202 0007 0009 ffff 21")).is_err(), "offset beyond the end");
    assert!(Packet::parse(&hex!("c802 000b 0001 0000 0001 00")).is_err(), "truncated");
}

#[test]
fn other_versions_and_incomplete_control_headers_are_refused() {
    assert_eq!(
        Packet::parse(&hex!("c803 0014 00000000 0000 0000 8008000000000001")),
        Err(DecodeError::Value("version", 3))
    );
    assert!(Packet::parse(&hex!("c801 0014 00000000 0000 0000")).is_err(), "L2F");
    assert!(Packet::parse(&hex!("8002 0001 0000 0001 0001")).is_err(), "control without L and S");
    assert!(Packet::parse(&hex!("c002 0008 0001 0000")).is_err(), "control without S");
}

#[test]
fn a_data_header_does_not_fit_a_short_buffer() {
    assert_eq!(DataHeader::new(1, 2).emit(&mut [0; 5]), None);
    let mut out = [0; MAX_DATA_HEADER_LEN];
    assert_eq!(DataHeader::new(1, 2).emit(&mut out), Some(6));
    assert_eq!(out[..6], hex!("0002 0001 0002"));
}

#[test]
fn data_sequence_numbers_wrap_and_old_ones_are_refused() {
    let mut sequence = DataSequence { ns: 0xffff, nr: 0xfffe };
    assert_eq!(sequence.next_pair(), (0xffff, 0xfffe));
    assert_eq!(sequence.next_pair().0, 0);
    assert!(sequence.accept(0xfffe));
    assert!(!sequence.accept(0xfffe), "again");
    assert!(sequence.accept(2), "a gap is a loss");
    assert!(!sequence.accept(0xffff), "late");
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed(tunnel: u16, session: u16, sequence: Option<(u16, u16)>, with_length: bool,
                                 priority: bool, frame in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut header = DataHeader { sequence, priority, ..DataHeader::new(tunnel, session) };
        if with_length {
            header.length = Some(0);
            header.length = Some(u16::try_from(header.emitted_len() + frame.len()).unwrap());
        }
        let mut bytes = [0; MAX_DATA_HEADER_LEN];
        let n = header.emit(&mut bytes).unwrap();
        prop_assert_eq!(n, header.emitted_len());
        let mut bytes = bytes[..n].to_vec();
        bytes.extend_from_slice(&frame);
        prop_assert_eq!(DataHeader::parse(&bytes), Ok((header, &frame[..])));
    }

    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), flags: u16) {
        let _ = Packet::parse(&bytes);
        let mut bytes = bytes;
        bytes.splice(0..0, ((flags & 0xfff0) | 2).to_be_bytes());
        let _ = Packet::parse(&bytes);
    }
}
