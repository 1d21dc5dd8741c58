//! What a peer presents as its certificates and its identity: X.509, PKCS #7, paths, names.
//!
//! The first packet of an input is the identity (its choice byte is the type), the others are CERT payloads (the choice
//! byte is the encoding).
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sallyport_ca::crl::Revocations;
use sallyport_ca::{UnixTime, pem};
use sallyport_ca::verify::{CertPayload, IkeId, PeerRole, TrustStore, describe_id, verify_peer};
use sallyport_fuzz::steps;

/// 2030: within the validity of the seeds.
const NOW: UnixTime = UnixTime(1_900_000_000);

static TRUST: LazyLock<TrustStore> = LazyLock::new(|| {
    let mut trust = TrustStore::new();
    trust.add_anchor_der(include_bytes!("../seeds/root.der")).expect("a root");
    trust
});

fuzz_target!(|data: &[u8]| {
    let mut steps = steps(data);
    let Some(first) = steps.next() else { return };
    let id = IkeId { id_type: first.choice, data: first.packet };
    let _ = describe_id(id);
    let received: Vec<CertPayload<'_>> =
        steps.map(|step| CertPayload { encoding: step.choice, data: step.packet }).collect();
    let role = if first.now.as_micros() == 0 { PeerRole::Machine } else { PeerRole::Gateway };
    for id in [None, Some(id)] {
        match verify_peer(&TRUST, &received, id, role, NOW) {
            Ok(peer) => drop(peer.display_name()),
            Err(error) => drop(error.to_string()),
        }
    }
    // A configured authority is read by the same code.
    for payload in &received {
        let _ = TrustStore::new().add_anchor_der(payload.data);
        // And what a controller says of others that were taken back: lists, and certificates of who signed them.
        if let Ok(known) = Revocations::trusting(pem::encode("CERTIFICATE", include_bytes!("../seeds/root.der")).as_bytes()) {
            let _ = known.take_all(payload.data);
        }
    }
});
