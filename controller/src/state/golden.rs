//! What `apply` takes from others' code, held against fixed answers: the parser of certificates, and the tables of Unicode in Rust's library.
//!
//! All members must come to the same state, also while some run a newer version. If one of these tests fails after an upgrade of a
//! dependency or of the toolchain, members of both versions could differ. Then either nothing that reaches `apply` can have what
//! differs, and the answer here is put right, or the new behaviour begins at a level of its own (see `software`).

use ring::digest;
use sallyport_ca::{Certificate, Subject};

/// What OpenSSL 3.0.19 signed: `openssl req -x509 -utf8 -subj "/O=Beispiel Bücher/CN=Golden 1" -set_serial 0x0123...`.
const TBS: &str = "\
    30820154a00302010202110123456789abcdef0123456789abcdef01300a06082a8648ce3d040302302e31193017060355040a0c104265697370\
    69656c2042c3bc636865723111300f06035504030c08476f6c64656e2031301e170d3236313132333133303631325a170d333631313230313330\
    3631325a302e31193017060355040a0c10426569737069656c2042c3bc636865723111300f06035504030c08476f6c64656e2031305930130607\
    2a8648ce3d020106082a8648ce3d030107034200049f6f91627edeec8a09caf7158cbdeb39679c991bd9f9eefc49f76ceeba5aad093f0f5969c2\
    c1fd3b841ca267cd9644de4e48789f738622e44b0d26d3b466db76a3533051301d0603551d0e0416041480cebcc53d839c20f5a3b75cfb3cc5f7\
    7adb01c9301f0603551d2304183016801480cebcc53d839c20f5a3b75cfb3cc5f77adb01c9300f0603551d130101ff040530030101ff";
const SIGNATURE: &str = "\
    3045022100eb26a944f5d2e00796b81149cc1011935cbfb2295460394071867d1cd6b1469302207846eeaffa2a2eb8a9a305ab308f57f5a77a32\
    6740fc1dafa8936be670eee5b1";

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn a_certificate_is_put_together_as_openssl_did() {
    let certificate = Certificate::assemble(&bytes(TBS), &bytes(SIGNATURE)).expect("reads");
    assert_eq!(certificate.fingerprint.to_string(), "a52a36cd30b5df131160978e392cdfef8e04453949e12fafe15c5954d2ad06d4");
    assert_eq!(certificate.serial.to_string(), "0123456789abcdef0123456789abcdef01");
    assert_eq!((certificate.not_before.0, certificate.not_after.0), (1_795_439_172, 2_110_799_172));
    assert_eq!(certificate.subject, "O=Beispiel B\u{fc}cher, CN=Golden 1");
}

/// Each octet of what is to be signed changed in three ways: what is a certificate to the parser, and what is not.
#[test]
fn the_parser_takes_and_refuses_what_it_always_did() {
    const ANSWERS: (usize, &str) = (183, "6e34225a3f1aa7b4898499f61a73af28c5215f5dda93247ee054578f662227fd");
    let (tbs, signature) = (bytes(TBS), bytes(SIGNATURE));
    let mut taken = String::new();
    for at in 0..tbs.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut changed = tbs.clone();
            changed[at] ^= flip;
            let said = Certificate::assemble(&changed, &signature);
            taken += &said.map_or_else(|_| "no;".to_owned(), |c| format!("{} {};", c.serial, c.subject));
        }
    }
    for cut in [0, 1, tbs.len() / 2, tbs.len() - 1] {
        assert!(Certificate::assemble(&tbs[..cut], &signature).is_err(), "{cut}");
    }
    let refused = taken.matches("no;").count();
    assert_eq!((refused, sha256(taken.as_bytes()).as_str()), ANSWERS);
}

/// Machines are found by their name in lower case, and names in certificates have no control characters and no blanks at their ends.
#[test]
fn the_tables_of_unicode_are_those_that_the_log_was_written_with() {
    const FOLDED: &str = "3d6ecd5c11d6213f77bfe77ad2e59bfc06ccdd246c42519558f71f8d6157ea6f";
    const APART: &str = "c0913a9a731df7be8fb07627f020ad1449ba3ce88bf5c761019b76c32ca6dffa";
    let (mut folded, mut apart) = (String::new(), String::new());
    for c in '\0'..=char::MAX {
        let lower = c.to_lowercase();
        if lower.clone().ne([c]) {
            folded += &format!("{:x} {lower};", u32::from(c));
        }
        if c.is_control() || c.is_whitespace() {
            apart += &format!("{:x} {};", u32::from(c), c.is_control());
        }
    }
    assert_eq!((sha256(folded.as_bytes()).as_str(), sha256(apart.as_bytes()).as_str()), (FOLDED, APART));
    for (name, lower) in [
        ("LAPTOP7.Example.COM", "laptop7.example.com"),
        ("\u{130}.example.com", "i\u{307}.example.com"),
        ("STRASSE \u{1e9e}", "strasse \u{df}"),
        ("\u{3a3}\u{391}\u{3a3}", "\u{3c3}\u{3b1}\u{3c2}"),
        ("\u{212a}elvin", "kelvin"),
    ] {
        assert_eq!(name.to_lowercase(), lower);
    }
}

#[test]
fn names_and_addresses_are_read_as_they_always_were() {
    for (name, admitted) in [
        ("laptop7.example.com", true),
        ("laptop 7", true),
        ("b\u{fc}ro", true),
        ("192.0.2.1", true),
        ("a\u{85}b", false),
        ("a\u{200b}b", true),
        ("\u{a0}a", false),
        ("a\u{2028}", false),
        ("", false),
    ] {
        assert_eq!(Subject::new(name, Vec::new()).is_ok(), admitted, "{name:?}");
    }
    for (text, address) in [
        ("192.0.2.1", Some("192.0.2.1")),
        ("192.0.2.01", None),
        ("192.0.2", None),
        ("0300.0.2.1", None),
        ("2001:DB8:0::1", Some("2001:db8::1")),
        ("::ffff:192.0.2.1", Some("::ffff:192.0.2.1")),
        ("fe80::1%eth0", None),
        ("[::1]", None),
        ("1:2:3:4:5:6:7::", Some("1:2:3:4:5:6:7:0")),
    ] {
        let read = text.parse::<std::net::IpAddr>().ok().map(|a| a.to_string());
        assert_eq!(read.as_deref(), address, "{text}");
    }
}
