use hex_literal::hex;

use super::*;

// RFC 2759 §9.2.
const AUTHENTICATOR_CHALLENGE: [u8; 16] = hex!("5B5D7C7D7B3F2F3E3C2C602132262628");
const PEER_CHALLENGE: [u8; 16] = hex!("21402324255E262A28295F2B3A337C7E");
const NT_RESPONSE: [u8; 24] = hex!("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF");

#[test]
fn every_step_matches_rfc_2759_section_9_2() {
    let challenge = challenge_hash(&PEER_CHALLENGE, &AUTHENTICATOR_CHALLENGE, "User");
    assert_eq!(challenge, hex!("D02E4386BCE91226"));
    let hash = nt_password_hash("clientPass");
    assert_eq!(hash.as_bytes(), &hex!("44EBBA8D5312B8D611474411F56989AE"));
    assert_eq!(challenge_response(&challenge, &hash), NT_RESPONSE);
    assert_eq!(generate_nt_response(&AUTHENTICATOR_CHALLENGE, &PEER_CHALLENGE, "User", "clientPass"), NT_RESPONSE);
    assert_eq!(*hash_nt_password_hash(&hash), hex!("41C00C584BD2D91C4017A2A12FA59F3F"));
    let s = generate_authenticator_response(&hash, &NT_RESPONSE, &PEER_CHALLENGE, &AUTHENTICATOR_CHALLENGE, "User");
    assert_eq!(s, "S=407A5589115FD0D6209F510FE9C04566932CDA56");
}

#[test]
fn the_des_key_is_spread_as_in_rfc_2759_section_9_3() {
    // The section shows seven raw bytes and the eight-byte key with parity; DES ignores parity, so compare ciphertexts.
    let raw = hex!("FC156AF7EDCD6C");
    let mut block = [0u8; 8].into();
    des::Des::new(&hex!("FD0B5B5E7F6E34D9").into()).encrypt_block(&mut block);
    assert_eq!(des_encrypt(&raw, [0; 8]), <[u8; 8]>::from(block));
}

#[test]
fn the_server_refuses_a_wrong_password_user_or_challenge() {
    let good = nt_password_hash("clientPass");
    let check = |a: &_, p: &_, user, hash: &_| check_nt_response(a, p, user, hash, &NT_RESPONSE);
    assert!(check(&AUTHENTICATOR_CHALLENGE, &PEER_CHALLENGE, "User", &good));
    assert!(!check(&AUTHENTICATOR_CHALLENGE, &PEER_CHALLENGE, "user", &good));
    assert!(!check(&AUTHENTICATOR_CHALLENGE, &PEER_CHALLENGE, "User", &nt_password_hash("clientpass")));
    assert!(!check(&PEER_CHALLENGE, &AUTHENTICATOR_CHALLENGE, "User", &good));
}

#[test]
fn the_client_checks_the_servers_proof() {
    let hash = nt_password_hash("clientPass");
    let check =
        |s| check_authenticator_response(&hash, &NT_RESPONSE, &PEER_CHALLENGE, &AUTHENTICATOR_CHALLENGE, "User", s);
    assert!(check("S=407A5589115FD0D6209F510FE9C04566932CDA56"));
    assert!(check("S=407a5589115fd0d6209f510fe9c04566932cda56"));
    for bad in
        ["", "S=", "S=407A5589115FD0D6209F510FE9C04566932CDA57", "S=407A5589115FD0D6209F510FE9C04566932CDA56 M=ok"]
    {
        assert!(!check(bad), "{bad}");
    }
}

#[test]
fn the_nt_hash_of_known_passwords() {
    // RFC 2759 §9.3.
    assert_eq!(nt_password_hash("MyPw").as_bytes(), &hex!("FC156AF7EDCD6C0EDDE3337D427F4EAC"));
    // The hash of no password is widely published; beyond the BMP a character is two UTF-16 units.
    assert_eq!(nt_password_hash("").as_bytes(), &hex!("31d6cfe0d16ae931b73c59d7e0c089c0"));
    let long = "x".repeat(300);
    assert_eq!(nt_password_hash(&long), nt_password_hash(&long[..256]));
    assert_ne!(nt_password_hash("pässwörd €😀"), nt_password_hash("pässwörd €"));
}

#[test]
fn the_domain_is_left_out() {
    assert_eq!(name_without_domain(r"CORP\alice"), "alice");
    assert_eq!(name_without_domain("alice@corp.example"), "alice@corp.example");
    assert_eq!(name_without_domain(r"a\b\c"), "c");
    assert_eq!(name_without_domain("alice"), "alice");
}

#[test]
fn chap_md5_is_md5_over_identifier_secret_and_challenge() {
    let whole = crate::hash::HashAlg::Md5.digest(&[b"\x17secretchallenge"]);
    assert_eq!(chap_md5(0x17, b"secret", b"challenge"), *whole);
}
