use std::os::unix::fs::PermissionsExt as _;

use sallyport_ca::{KeyAlgorithm, SystemRandom};
use zeroize::Zeroizing;

use super::*;
use crate::identity::IkeIdentity;

fn identity(name: &str) -> Identity {
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).unwrap();
    let certificate = |what: &str| pem::encode("CERTIFICATE", format!("{name} {what}").as_bytes()).as_bytes().to_vec();
    Identity {
        grpc_chain: certificate("link"),
        grpc_key: Zeroizing::new(key.pkcs8_pem().as_bytes().to_vec()),
        ca: certificate("root"),
        gone: Vec::new(),
        revoked: Some(b"a list".to_vec()),
        ike: vec![IkeIdentity {
            chain: vec![format!("{name} ike").into_bytes(), b"issuer".to_vec()],
            key: Zeroizing::new(key.pkcs8_der().to_vec()),
        }],
    }
}

/// What is in force is this, whole: each certificate with its own key.
fn holds(dir: &Path, wanted: &Identity) {
    let there = Identity::load(dir).unwrap();
    assert_eq!(there.grpc_chain, wanted.grpc_chain);
    assert_eq!((&there.grpc_key, &there.ca, &there.revoked), (&wanted.grpc_key, &wanted.ca, &wanted.revoked));
    let ike = |identity: &Identity| identity.ike.iter().map(|i| (i.chain.clone(), i.key.to_vec())).collect::<Vec<_>>();
    assert_eq!(ike(&there), ike(wanted));
}

#[test]
fn a_crash_between_any_two_steps_leaves_the_old_set_or_the_new_one() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("gateway");
    let [old, new, newer] = ["old", "new", "newer"].map(identity);
    write(&dir, &old).unwrap();
    holds(&dir, &old);
    stage(&dir, &new).unwrap();
    holds(&dir, &old);
    // Begun again after a crash there, and ended before it counted.
    stage(&dir, &new).unwrap();
    promote(&dir).unwrap();
    holds(&dir, &old);
    write(&dir, &newer).unwrap();
    holds(&dir, &newer);
    stage(&dir, &new).unwrap();
    let number = promote(&dir).unwrap();
    point(&dir, number).unwrap();
    holds(&dir, &new);
    prune(&dir, number).unwrap();
    holds(&dir, &new);
    assert_eq!(numbers(&dir).unwrap(), [number - 1, number]);
}

#[test]
fn keys_are_for_their_owner_only() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("gateway");
    write(&dir, &identity("x")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("1"))), (0o700, 0o700));
    for key in ["grpc.key", "ike-ecdsa.key"] {
        assert_eq!(mode(&dir.join(CURRENT).join(key)), 0o600, "{key}");
    }
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).unwrap();
    assert!(pending(&dir).is_none());
    keep_pending(&dir, &key).unwrap();
    assert_eq!(mode(&dir.join(PENDING)), 0o600);
    assert_eq!(pending(&dir).unwrap().pkcs8_der(), key.pkcs8_der());
    forget_pending(&dir).unwrap();
    assert!(pending(&dir).is_none());
}

#[test]
fn an_operator_who_writes_the_folder_anew_is_heard() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let by_operator = |identity: &Identity| {
        stage(dir, identity).unwrap();
        for name in ["ca.pem", "grpc.pem", "grpc.key", "ike-ecdsa.pem", "ike-ecdsa.key", REVOKED] {
            fs::rename(dir.join(NEXT).join(name), dir.join(name)).unwrap();
        }
        remove(&dir.join(NEXT)).unwrap();
    };
    let [first, renewed, second, again] = ["first", "renewed", "second", "again"].map(identity);
    by_operator(&first);
    holds(dir, &first);
    write(dir, &renewed).unwrap();
    holds(dir, &renewed);
    by_operator(&second);
    holds(dir, &second);
    write(dir, &again).unwrap();
    holds(dir, &again);
}

#[test]
fn a_folder_that_cannot_be_written_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(write(&file.join("gateway"), &identity("x")).is_err());
}
