//! What a requester may send as a certification request: PKCS #10, its key, its challenge password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_ca::{PublicKey, request};

fuzz_target!(|data: &[u8]| {
    if let Ok(key) = PublicKey::from_csr_der(data) {
        // What was accepted is a key of a kind that is certified.
        assert!(PublicKey::from_spki_der(key.spki_der()).is_ok());
    }
    let _ = request::challenge_password(data);
    let _ = PublicKey::from_spki_der(data);
    let _ = PublicKey::from_csr_pem(data);
});
