use proptest::prelude::*;

use super::*;

#[test]
fn base64_is_read_in_every_shape_that_clients_send() {
    let der = [&[0x30, 0x82, 1, 0][..], &[7; 256]].concat();
    let plain = body(&der);
    let wrap = |end: &str| {
        plain.as_bytes().chunks(64).map(|l| format!("{}{end}", str::from_utf8(l).unwrap())).collect::<String>()
    };
    let armoured = |label: &str| format!("-----BEGIN {label}-----\r\n{}-----END {label}-----\r\n", wrap("\r\n"));
    let unpadded = plain.trim_end_matches('=').to_owned();
    let label = "CERTIFICATE REQUEST";
    for text in [
        plain.clone(),
        wrap("\n"),
        wrap("\r\n"),
        format!(" {plain}\r\n\r\n"),
        armoured(label),
        armoured("PKCS7"),
        unpadded,
    ] {
        assert_eq!(*parse_body(text.as_bytes()).unwrap(), der, "{text}");
    }
    assert_eq!(*parse_body(&der).unwrap(), der);
    let long = "A".repeat(MAX_BODY + 1);
    for bad in ["", "=", "AA===", "A=A=", "AAAA*AAA", "-----BEGIN X", "-----BEGIN X-----AAAA", "\u{fc}", &long] {
        assert!(parse_body(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(parse_body(&[0xff; 9]).is_err());
}

#[test]
fn a_key_made_by_the_server_comes_with_its_certificates() {
    let (key, certificates) = ([0x30, 0x80, 1], [vec![0x30, 1, 5], vec![0x30, 2, 6, 6]]);
    let text = server_key(&key, &certificates);
    let (read, list) = parse_server_key(MULTIPART, text.as_bytes()).unwrap();
    assert_eq!((read.as_slice(), list.as_slice()), (&key[..], &certificates[..]));
    // As others write it: a preamble, a quoted boundary, line feeds only, wrapped lines, no final boundary.
    let other = text.replace("\r\n", "\n").replace(BOUNDARY, "b1").replace("--b1--", "");
    let other = format!("preamble\n{other}");
    assert!(parse_server_key("Multipart/Mixed ; Boundary=\"b1\"; x=y", other.as_bytes()).is_ok());
    for (kind, text) in [
        ("multipart/mixed", text.as_str()),
        ("multipart/mixed; boundary=", &text),
        ("text/plain; boundary=sallyport-est-part", &text),
        (MULTIPART, ""),
        (MULTIPART, &text[..60]),
        (MULTIPART, &text.replace("application/pkcs8", "text/plain")),
        (MULTIPART, &text.replace("application/pkcs7-mime", "text/plain")),
    ] {
        assert!(parse_server_key(kind, text.as_bytes()).is_err(), "{kind} {text}");
    }
}

proptest! {
    #[test]
    fn what_is_sent_is_read_back_and_junk_is_refused(der in proptest::collection::vec(any::<u8>(), 1..300), kind in ".{0,80}") {
        prop_assert_eq!(&*parse_body(body(&der).as_bytes()).unwrap(), &der);
        let _ = parse_body(&der);
        let _ = parse_certificates(&der);
        prop_assert!(parse_server_key(&kind, &der).is_err());
    }
}
