//! Bodies of EST: base64 in every shape, certificates, and the two parts of a key that the server made.
//!
//! What stands before the first line end is the content type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_ca::est;

fuzz_target!(|data: &[u8]| {
    if let Ok(der) = est::parse_body(data) {
        let again = est::parse_body(est::body(&der).as_bytes());
        assert!(der.is_empty() || again.as_deref() == Ok(&*der));
    }
    let _ = est::parse_certificates(data);
    let mut parts = data.splitn(2, |b| *b == b'\n');
    if let (Some(kind), Some(body)) = (parts.next(), parts.next()) {
        let _ = est::parse_server_key(&String::from_utf8_lossy(kind), body);
    }
});
