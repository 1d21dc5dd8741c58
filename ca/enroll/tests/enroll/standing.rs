//! Whether a certificate is revoked, as its machine finds out.

use std::time::Duration;

use crate::support::*;
use sallyport_ca::crl::{Contents, Reason, Revoked};
use sallyport_ca::{Authority, KeyAlgorithm, Profile, RevocationUrls, Serial, Subject, SystemRandom, UnixTime};
use sallyport_enroll::{FileKey, Identity, KeyStore as _, Settings, revoked_since};

const ADDRESS: &str = "http://former.example.com/ca/1/7.crl";

fn list(by: &Authority, address: &str, revoked: &[Revoked], now: UnixTime) -> Vec<u8> {
    let (this_update, next_update) = (now, UnixTime(now.0 + DAY));
    let contents = Contents { distribution_points: &[address], number: 1, revoked, this_update, next_update };
    by.sign_revocation_list(&by.prepare_revocation_list(&contents).unwrap(), &SystemRandom::new()).unwrap()
}

/// A machine of this world with a certificate that names a list, or none.
fn machine(world: &World, address: Option<&str>) -> (Settings, Identity) {
    let rng = SystemRandom::new();
    let urls = RevocationUrls { crl: address.map(str::to_owned), ..RevocationUrls::default() };
    let authority = world.hierarchy.issuing.with_urls(urls).unwrap();
    let key = FileKey::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
    let (subject, serial) = (Subject::new(NAME, vec![]).unwrap(), Serial::generate(&rng).unwrap());
    let (now, life) = (world.machine.clock.now(), Duration::from_secs(30 * 86_400));
    let prepared = authority.prepare(Profile::Machine, &subject, &key.public_key(), now, life, serial).unwrap();
    let certificate = authority.sign(&prepared, &rng).unwrap();
    let chain = vec![world.hierarchy.issuing.certificate().der().to_vec()];
    let settings = Settings {
        server: world.server.name(),
        name: NAME.into(),
        root: String::new(),
        key: "ecdsa-p256".into(),
        key_in: None,
        gateway: "localhost".into(),
        user: None,
        installed: Vec::new(),
    };
    let identity = Identity { key: Box::new(key), certificate, chain, roots: vec![world.hierarchy.root.clone()] };
    (settings, identity)
}

#[tokio::test]
async fn the_list_that_the_certificate_names_says_whether_it_is_revoked_wherever_the_endpoint_is_now() {
    let world = World::new().await;
    let (settings, identity) = machine(&world, Some(ADDRESS));
    let now = world.machine.clock.now();
    let of = world.hierarchy.clone();
    let entry = Revoked {
        serial: identity.certificate.serial.clone(),
        at: UnixTime(now.0 - 60),
        reason: Reason::KeyCompromise,
    };
    let say = |address: &'static str, revoked: Vec<Revoked>| {
        let of = of.clone();
        world.server.behave(Box::new(move |asked| {
            assert_eq!(asked.path, "/ca/1/7.crl");
            answer("200 OK", "", &list(&of.issuing, address, &revoked, now))
        }));
    };
    say(ADDRESS, Vec::new());
    assert_eq!(revoked_since(&settings, &identity, now).await, Ok(None));
    say("http://vpn.example.com/ca/1/7.crl", vec![entry.clone()]);
    assert_eq!(revoked_since(&settings, &identity, now).await, Ok(Some(entry.at)));
    // Another shard does not know it, and says nothing of it.
    say("http://vpn.example.com/ca/1/8.crl", Vec::new());
    assert!(revoked_since(&settings, &identity, now).await.is_err());
    // Nor does a list that somebody else has signed.
    let other = Hierarchy::new();
    world.server.behave(Box::new(move |_| answer("200 OK", "", &list(&other.issuing, ADDRESS, &[], now))));
    assert!(revoked_since(&settings, &identity, now).await.is_err());
    world.server.behave(Box::new(|_| answer("404 Not Found", "", b"")));
    assert!(revoked_since(&settings, &identity, now).await.unwrap_err().cause.contains("404"));
    let (settings, identity) = machine(&world, None);
    assert!(revoked_since(&settings, &identity, now).await.unwrap_err().cause.contains("names no revocation list"));
}
