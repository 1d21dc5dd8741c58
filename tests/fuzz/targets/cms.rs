//! CMS: certificates, signatures and envelopes, in BER or DER.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sallyport_ca::cms::{DecryptionKey, Enveloped, Signed, certificates, certs_only};
use sallyport_ca::{KeyPair, SystemRandom};

static KEY: LazyLock<DecryptionKey> = LazyLock::new(|| {
    let key = KeyPair::from_pkcs8_der(include_bytes!("../seeds/rsa.p8")).expect("a key");
    DecryptionKey::new(&key, include_bytes!("../seeds/rsa.der")).expect("its certificate")
});

fuzz_target!(|data: &[u8]| {
    if let Ok(list) = certificates(data) {
        assert_eq!(certificates(&certs_only(&list)).as_ref(), Ok(&list));
    }
    if let Ok(signed) = Signed::verify(data) {
        assert!(signed.certificates.contains(&signed.signer));
    }
    if let Ok(message) = Enveloped::parse(data) {
        let _ = message.decrypt(&KEY, &SystemRandom::new());
    }
});
