use hex_literal::hex;
use proptest::prelude::*;

use super::*;
use crate::result::error_code;

fn round_trip(message: &Message) {
    let header = ControlHeader { tunnel_id: 7, session_id: 9, ns: 3, nr: 4 };
    let bytes = message.emit(header, None);
    let Ok(crate::Packet::Control(parsed, body)) = crate::Packet::parse(&bytes) else { panic!("not control") };
    assert_eq!(parsed, header);
    let raw = ControlMessage::parse(parsed, body, None);
    assert_eq!(raw.avps.fault, None);
    let kind = raw.message_type().expect("a type");
    assert_eq!(Message::from_avps(kind, &raw.avps).as_ref(), Some(message));
}

#[test]
fn every_message_is_read_as_it_was_written() {
    let code = ResultCode::error(error_code::UNKNOWN_AVP, "no");
    let messages = [
        Message::Sccrq(Sccrq {
            protocol_version: Some((1, 0)),
            framing_capabilities: Some(3),
            bearer_capabilities: Some(0),
            tie_breaker: Some(5),
            firmware_revision: Some(0x0690),
            host_name: Some("laptop".into()),
            vendor_name: Some("vendor".into()),
            assigned_tunnel_id: Some(24),
            receive_window_size: Some(8),
            challenge: Some(vec![1; 16]),
        }),
        Message::Sccrp(Sccrp { challenge_response: Some(vec![2; 16]), ..Sccrp::default() }),
        Message::Scccn(Scccn::default()),
        Message::StopCcn(StopCcn { assigned_tunnel_id: Some(1), result_code: Some(code.clone()) }),
        Message::Hello(Hello {}),
        Message::Ocrq(Ocrq { called_number: Some("1".into()), minimum_bps: Some(1), ..Ocrq::default() }),
        Message::Ocrp(Ocrp { assigned_session_id: Some(2), physical_channel_id: Some(3) }),
        Message::Occn(Occn { sequencing_required: Some(()), ..Occn::default() }),
        Message::Icrq(Icrq { assigned_session_id: Some(2), call_serial_number: Some(3), ..Icrq::default() }),
        Message::Icrp(Icrp { assigned_session_id: Some(4) }),
        Message::Iccn(Iccn { tx_connect_speed: Some(5), sequencing_required: Some(()), ..Iccn::default() }),
        Message::Cdn(Cdn { result_code: Some(code), assigned_session_id: Some(6) }),
        Message::Wen(Wen { call_errors: Some([1, 2, 3, 4, 5, 6]) }),
        Message::Sli(Sli { accm: Some((0, u32::MAX)) }),
    ];
    messages.iter().for_each(round_trip);
}

#[test]
fn apples_result_code_is_read_in_its_own_byte_order_without_the_stale_octets() {
    assert_eq!(
        ResultCode::parse(&hex!("0300 0100 deadbeef")),
        Some(ResultCode { result: 3, error: None, message: None })
    );
    assert_eq!(ResultCode::parse(&hex!("0100")), Some(ResultCode { result: 1, error: None, message: None }));
    // And the regular forms.
    assert_eq!(ResultCode::parse(&hex!("0003")), Some(ResultCode { result: 3, error: None, message: None }));
    let full = ResultCode { result: 2, error: Some(8), message: Some("no".into()) };
    assert_eq!(ResultCode::parse(&hex!("0002 0008 6e6f")), Some(full));
    assert_eq!(ResultCode::parse(&[1]), None);
}

#[test]
fn codes_are_told_in_words() {
    let code = ResultCode::error(error_code::UNKNOWN_AVP, "type 99");
    assert_eq!(code.describe_stop_ccn(), "unknown mandatory AVP (2/8: type 99)");
    assert_eq!(ResultCode { result: 3, ..ResultCode::default() }.describe_cdn(), "administrative reasons (3)");
}

#[test]
fn challenge_responses_match_an_independent_md5() {
    let secret = TunnelSecret::new("sallyport tunnel secret");
    let challenge = hex!("000102030405060708090a0b0c0d0e0f");
    let sccrp = challenge_response(MessageType::SCCRP, &secret, &challenge);
    assert_eq!(sccrp, hex!("3a6760f1d6192bbc739ea15a7cf9e232"));
    let scccn = challenge_response(MessageType::SCCCN, &secret, &challenge);
    assert_eq!(scccn, hex!("6515acd9ea195a6241fa899ccdec8a48"));
}

#[test]
fn a_message_is_shown_on_one_line() {
    let header = ControlHeader { tunnel_id: 1, session_id: 0, ns: 1, nr: 1 };
    assert_eq!(ControlMessage::parse(header, &[], None).to_string(), "ZLB tunnel=1 session=0 ns=1 nr=1");
    let body = hex!("8008 0000 0000 0004  8008 0000 0009 0018  8008 0000 0001 0001");
    let shown = ControlMessage::parse(header, &body, None).to_string();
    assert_eq!(shown, "STOPCCN tunnel=1 session=0 ns=1 nr=1 ASSIGNED_TUNNEL_ID=24 RESULT_CODE=1");
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(kind in 0u16..20, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = hex!("8008 0000 0000 0000").to_vec();
        bytes[6..8].copy_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&body);
        let header = ControlHeader { tunnel_id: 1, session_id: 0, ns: 1, nr: 1 };
        let message = ControlMessage::parse(header, &bytes, None);
        let _ = message.to_string();
        let _ = message.message_type().and_then(|kind| Message::from_avps(kind, &message.avps));
    }
}
