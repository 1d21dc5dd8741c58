use hex_literal::hex;
use proptest::prelude::*;

use super::*;

// The hidden values and responses below were computed with another MD5 (Python's) from the formulas of RFC 2661.
const SECRET: &[u8] = b"sallyport tunnel secret";
const VECTOR: [u8; 16] = hex!("000102030405060708090a0b0c0d0e0f");

fn secret() -> TunnelSecret {
    TunnelSecret::new(SECRET)
}

fn emitted(avp: &Avp) -> Vec<u8> {
    let mut w = Writer::new();
    avp.emit(&mut w);
    w.into_vec()
}

#[test]
fn an_assigned_session_id_is_hidden_as_the_rfc_says() {
    let avp = Avp::new(AvpType::ASSIGNED_SESSION_ID, Value::U16(0x1234));
    let mut w = Writer::new();
    avp.emit_hidden(&mut w, &secret(), &VECTOR, &[0; 12]);
    assert_eq!(w.into_vec(), hex!("c016 0000 000e df57dca8a14a8a54a1f53a568666e25a"));
}

#[test]
fn a_hidden_value_of_several_chunks_is_opened() {
    let mut body = emitted(&Avp::new(AvpType::RANDOM_VECTOR, Value::Octets(VECTOR.to_vec())));
    body.extend_from_slice(&hex!(
        "4030 0000 0021
        74c0a425942671311bbf5ae45fdc15bf1ab10afa058ac6e4255da814f107de529b2b4e5ff83fc2f83b97"
    ));
    let avps = Avps::parse(&body, Some(&secret()));
    assert_eq!(avps.fault, None);
    assert_eq!(avps.find(AvpType::PROXY_AUTHEN_RESPONSE), Some(&Value::Octets((0..40).collect())));
}

#[test]
fn a_hidden_mandatory_avp_without_the_right_secret_or_vector_is_a_fault() {
    let hidden = hex!("c016 0000 000e df57dca8a14a8a54a1f53a568666e25a");
    let mut body = emitted(&Avp::new(AvpType::RANDOM_VECTOR, Value::Octets(VECTOR.to_vec())));
    body.extend_from_slice(&hidden);
    let fault = Some(Fault::Hidden(AvpType::ASSIGNED_SESSION_ID));
    assert_eq!(Avps::parse(&body, None).fault, fault);
    assert_eq!(Avps::parse(&body, Some(&TunnelSecret::new("wrong"))).fault, fault);
    assert_eq!(Avps::parse(&hidden, Some(&secret())).fault, fault, "no vector before it");
    assert_eq!(Avps::parse(&body, Some(&secret())).find(AvpType::ASSIGNED_SESSION_ID), Some(&Value::U16(0x1234)));
}

#[test]
fn the_vendor_is_looked_at_before_the_number() {
    // Windows puts vendor 311 type 1 into ICRQ: not a Result Code, and skipped since its M bit is clear.
    let body = hex!("8008 0000 0000 000a  8008 0000 000e 0007  0016 0137 0001 00112233445566778899aabbccddeeff");
    let avps = Avps::parse(&body, None);
    assert_eq!(avps.fault, None);
    assert_eq!(avps.find(AvpType::RESULT_CODE), None);
    assert_eq!(avps.list[2].name(), "311:1");
}

#[test]
fn an_unknown_avp_is_skipped_or_fatal_as_its_m_bit_says() {
    assert_eq!(Avps::parse(&hex!("0008 0000 1234 0000"), None).fault, None);
    let fault = Some(Fault::Unrecognized { vendor: 0, attribute: 0x1234 });
    assert_eq!(Avps::parse(&hex!("8008 0000 1234 0000"), None).fault, fault);
    // A reserved bit makes a known AVP unknown (§4.1).
    let fault = Some(Fault::Unrecognized { vendor: 0, attribute: 9 });
    assert_eq!(Avps::parse(&hex!("a008 0000 0009 0001"), None).fault, fault);
}

#[test]
fn a_value_of_the_wrong_length_is_skipped_or_fatal_as_its_m_bit_says() {
    // RFC 2661 §7.1 names this one: Rx Connect Speed in 2 octets.
    let avps = Avps::parse(&hex!("0008 0000 0026 0001"), None);
    assert_eq!((avps.fault, avps.find(AvpType::RX_CONNECT_SPEED)), (None, None));
    assert_eq!(Avps::parse(&hex!("8007 0000 0009 01"), None).fault, Some(Fault::BadValue(AvpType::ASSIGNED_TUNNEL_ID)));
}

#[test]
fn hostile_lengths_end_the_list_and_keep_what_came_before() {
    let good = hex!("8008 0000 0000 0004");
    for bad in
        [&hex!("8005 0000 00")[..], &hex!("83ff 0000 0009 0001"), &hex!("8000"), &hex!("80"), &hex!("8006 0000 00")]
    {
        let mut body = good.to_vec();
        body.extend_from_slice(bad);
        let avps = Avps::parse(&body, None);
        assert_eq!(avps.list.len(), 1);
        assert!(matches!(avps.fault, Some(Fault::Malformed(_))));
    }
}

#[test]
fn the_number_of_avps_is_bounded() {
    let body = hex!("0006 0000 1234").repeat(MAX_AVPS + 1);
    let avps = Avps::parse(&body, None);
    assert_eq!(avps.list.len(), MAX_AVPS);
    assert!(matches!(avps.fault, Some(Fault::Malformed(DecodeError::TooMany(..)))));
}

#[test]
fn names_of_peers_are_printable() {
    assert_eq!(printable(b"MacBook\0"), "MacBook");
    assert_eq!(printable(b"a\x1b[31m\xff\n"), "a\u{fffd}[31m\u{fffd}\u{fffd}");
    assert_eq!(printable(&[b'x'; 2000]).len(), 256);
}

fn value() -> impl Strategy<Value = (AvpType, Value)> {
    let octets = || prop::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        any::<u16>().prop_map(|v| (AvpType::ASSIGNED_TUNNEL_ID, Value::U16(v))),
        any::<u32>().prop_map(|v| (AvpType::CALL_SERIAL_NUMBER, Value::U32(v))),
        any::<u64>().prop_map(|v| (AvpType::TIE_BREAKER, Value::U64(v))),
        octets().prop_map(|v| (AvpType::CHALLENGE, Value::Octets(v))),
        octets().prop_map(|v| (AvpType::HOST_NAME, Value::Text(v))),
        any::<u16>().prop_map(|v| (AvpType::MESSAGE_TYPE, Value::MessageType(MessageType(v)))),
        any::<(u8, u8)>().prop_map(|v| (AvpType::PROTOCOL_VERSION, Value::Version(v.0, v.1))),
        (any::<u16>(), any::<u8>(), octets()).prop_map(|v| (AvpType::Q931_CAUSE_CODE, Value::Q931(v.0, v.1, v.2))),
        any::<[u32; 6]>().prop_map(|v| (AvpType::CALL_ERRORS, Value::CallErrors(v))),
        any::<(u32, u32)>().prop_map(|v| (AvpType::ACCM, Value::Accm(v.0, v.1))),
        Just((AvpType::SEQUENCING_REQUIRED, Value::Empty)),
        (1u16..12, prop::option::of(0u16..9)).prop_map(|v| (
            AvpType::RESULT_CODE,
            Value::ResultCode(ResultCode { result: v.0, error: v.1, message: None })
        )),
        octets().prop_map(|v| (AvpType(999), Value::Unknown(v))),
    ]
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed(values in prop::collection::vec(value(), 0..20)) {
        let list: Vec<Avp> = values.into_iter().map(|(attribute, value)| Avp::new(attribute, value)).collect();
        let mut w = Writer::new();
        emit_all(&list, &mut w, None);
        prop_assert_eq!(Avps::parse(&w.into_vec(), None).list, list);
    }

    #[test]
    fn what_is_hidden_is_opened(values in prop::collection::vec(value(), 0..20), random: [u8; 32]) {
        let list: Vec<Avp> = values.into_iter().map(|(attribute, value)| Avp::new(attribute, value)).collect();
        let mut w = Writer::new();
        emit_all(&list, &mut w, Some((&secret(), random)));
        let avps = Avps::parse(&w.into_vec(), Some(&secret()));
        let values: Vec<Value> =
            avps.list.into_iter().filter(|a| a.attribute != AvpType::RANDOM_VECTOR).map(|a| a.value).collect();
        prop_assert_eq!(values, list.into_iter().map(|a| a.value).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let avps = Avps::parse(&body, Some(&secret()));
        let _ = avps.list.iter().map(ToString::to_string).collect::<String>();
        prop_assert!(avps.list.len() <= MAX_AVPS);
    }

    #[test]
    fn a_known_type_with_any_octets_does_not_panic(attribute in 0u16..50, octets in prop::collection::vec(any::<u8>(), 0..60), hidden: bool) {
        let avp = Avp { mandatory: true, hidden, vendor: 0, attribute: AvpType(attribute), value: Value::Unknown(octets.clone()) };
        let mut body = emitted(&Avp::new(AvpType::RANDOM_VECTOR, Value::Octets(VECTOR.to_vec())));
        body.extend_from_slice(&emitted(&avp));
        if hidden {
            body[22] |= 0x40;
        }
        let avps = Avps::parse(&body, Some(&secret()));
        prop_assert_eq!(avps.list.len(), 2);
        let _ = avps.list[1].to_string();
    }
}
