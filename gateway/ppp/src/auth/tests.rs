use hex_literal::hex;
use proptest::collection::vec as octets;
use proptest::prelude::{any, prop_assert_eq, proptest};

use super::*;

fn pap(bytes: &[u8]) -> Result<Pap, DecodeError> {
    Pap::parse(&ControlPacket::parse(bytes)?)
}

#[test]
fn a_pap_request_is_read() {
    let request = pap(&hex!("01 07 000e 04 616e6e61 04 70617373")).unwrap();
    assert_eq!(request, Pap::Request { user: b"anna".to_vec(), password: Password::new("pass") });
    assert!(pap(&hex!("01 07 0009 05 616e6e61")).is_err());
    assert!(pap(&hex!("01 07 000b 04 616e6e61 04 70")).is_err());
}

#[test]
fn a_pap_reply_needs_no_message() {
    assert_eq!(pap(&hex!("02 07 0004")), Ok(Pap::Ack(vec![])));
    assert_eq!(pap(&hex!("03 07 0005 00")), Ok(Pap::Nak(vec![])));
    assert_eq!(pap(&hex!("03 07 0007 ff 6e6f")), Ok(Pap::Nak(b"no".to_vec())), "a length that lies");
}

#[test]
fn an_mschapv2_response_has_49_octets() {
    let value = MsChapV2Response { peer_challenge: [1; 16], nt_response: [2; 24], flags: 3 };
    assert_eq!(value.emit().len(), 49);
    assert_eq!(MsChapV2Response::parse(&value.emit()), Ok(value));
    assert!(MsChapV2Response::parse(&[0; 48]).is_err());
    assert!(MsChapV2Response::parse(&[0; 50]).is_err());
}

#[test]
fn a_failure_is_written_as_rfc_2759_section_6_says() {
    let failure = MsChapFailure { error: 691, retry: true, challenge: Some([0xab; 16]), message: "try again".into() };
    let text = failure.emit();
    assert_eq!(text, "E=691 R=1 C=ABABABABABABABABABABABABABABABAB V=3 M=try again");
    assert_eq!(MsChapFailure::parse(text.as_bytes()), failure);
    // Servers leave fields out.
    let short = MsChapFailure::parse(b"E=648 R=0 V=3");
    assert_eq!((short.error, short.retry, short.challenge, short.message.as_str()), (648, false, None, ""));
    assert_eq!(MsChapFailure::parse(b"no").error, 0);
}

proptest! {
    #[test]
    fn pap_is_read_as_it_was_written(user in octets(any::<u8>(), 0..256), password in octets(any::<u8>(), 0..256)) {
        let request = Pap::Request { user, password: Password::new(password) };
        prop_assert_eq!(pap(&request.emit(9)), Ok(request));
    }

    #[test]
    fn chap_is_read_as_it_was_written(value in octets(any::<u8>(), 0..256), name in octets(any::<u8>(), 0..64)) {
        for packet in [
            Chap::Challenge { value: value.clone(), name: name.clone() },
            Chap::Response { value: value.clone(), name: name.clone() },
            Chap::Success(name.clone()),
            Chap::Failure(name.clone()),
        ] {
            let bytes = packet.emit(9);
            prop_assert_eq!(Chap::parse(&ControlPacket::parse(&bytes).unwrap()), Ok(packet));
        }
    }

    #[test]
    fn nothing_makes_them_panic(code in 0u8..9, data in octets(any::<u8>(), 0..100)) {
        let packet = ControlPacket { code, identifier: 1, data: &data };
        let _ = (Pap::parse(&packet), Chap::parse(&packet), MsChapV2Response::parse(&data));
        let _ = (MsChapFailure::parse(&data), printable(&data));
    }
}
