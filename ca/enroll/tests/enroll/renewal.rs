//! The certificates after the first.

use std::time::Duration;

use crate::support::*;
use sallyport_ca::{Profile, UnixTime};
use sallyport_enroll::{Folder, Identity, Kind, Outcome, Result, due, renew};

async fn run(world: &World, force: bool) -> Result<Outcome> {
    let (folder, settings, identity) = Folder::open_enrolled(&world.dir())?;
    renew(&folder, &settings, &identity, force, Duration::ZERO, &world.machine).await
}

fn in_force(world: &World) -> Identity {
    world.folder().identity().unwrap().unwrap()
}

#[tokio::test]
async fn a_certificate_is_renewed_when_it_is_due_with_a_new_key_and_by_the_old_one() {
    let world = World::new().await;
    let (_, first) = world.enroll().await.unwrap();
    let at = due(&first.certificate);
    let (from, to) = (first.certificate.not_before.0, first.certificate.not_after.0);
    assert!(at.0 >= from + (to - from) / 3 * 2 && at.0 <= from + (to - from) / 6 * 5, "{at:?}");

    world.machine.clock.set(at.0 - 1);
    assert!(matches!(run(&world, false).await.unwrap(), Outcome::NotDue));
    assert!(world.server.requests("simplereenroll").is_empty());

    world.machine.clock.set(at.0);
    let Outcome::Renewed(second) = run(&world, false).await.unwrap() else { panic!("not renewed") };
    let asked = world.server.requests("simplereenroll").pop().unwrap();
    assert_eq!(asked.certificate.as_deref(), Some(first.certificate.der()));
    assert_eq!(asked.authorization, None);
    assert_ne!(second.key.public_key(), first.key.public_key());
    assert_eq!(second.certificate.subject, first.certificate.subject);
    assert_eq!(in_force(&world).certificate, second.certificate);
    assert!(matches!(run(&world, false).await.unwrap(), Outcome::NotDue));

    // The pair before is kept, those before that are not.
    assert_eq!(Identity::read(&world.dir().join("1")).unwrap().certificate, first.certificate);
    let Outcome::Renewed(third) = run(&world, true).await.unwrap() else { panic!("not renewed") };
    assert_eq!(Identity::read(&world.dir().join("2")).unwrap().certificate, second.certificate);
    assert_eq!(in_force(&world).certificate, third.certificate);
    assert!(!world.dir().join("1").exists());
}

#[tokio::test]
async fn a_certificate_whose_issuer_was_replaced_is_renewed_within_hours() {
    let world = World::new().await;
    let (_, first) = world.enroll().await.unwrap();
    assert!(matches!(run(&world, false).await.unwrap(), Outcome::NotDue));
    let looks = || world.server.requests("cacerts").len();
    let before = looks();
    let other = world.hierarchy.another_issuing();
    let list = certs(&[other.certificate().der().to_vec(), world.hierarchy.root.clone()]);
    let (clock, issuing) = (world.machine.clock.clone(), other.certificate().der().to_vec());
    world.server.behave(Box::new(move |asked| {
        if asked.path.ends_with("cacerts") {
            return list.clone();
        }
        let rng = sallyport_ca::SystemRandom::new();
        let (key, serial) =
            (sallyport_ca::PublicKey::from_csr_der(&asked.csr).unwrap(), sallyport_ca::Serial::generate(&rng));
        let (subject, life) = (sallyport_ca::Subject::new(NAME, vec![]).unwrap(), Duration::from_secs(30 * 86_400));
        let prepared = other.prepare(Profile::Machine, &subject, &key, clock.now(), life, serial.unwrap()).unwrap();
        certs(&[other.sign(&prepared, &rng).unwrap().der()])
    }));
    // It was looked a moment ago.
    assert!(matches!(run(&world, false).await.unwrap(), Outcome::NotDue));
    assert_eq!(looks(), before);
    world.machine.clock.set(NOW + 6 * 3_600);
    let Outcome::Renewed(second) = run(&world, false).await.unwrap() else { panic!("not renewed") };
    assert_eq!(second.chain, [issuing]);
    assert_ne!(second.certificate, first.certificate);
    world.machine.clock.set(NOW + 12 * 3_600);
    assert!(matches!(run(&world, false).await.unwrap(), Outcome::NotDue), "once");

    // Whoever does not answer, or names no issuing authority, has said nothing.
    for silence in [answer("503 Not Now", "", b""), certs(std::slice::from_ref(&world.hierarchy.root))] {
        world.machine.clock.set(world.machine.clock.now().0 + 6 * 3_600);
        world.server.behave(Box::new(move |_| silence.clone()));
        assert!(matches!(run(&world, false).await.unwrap(), Outcome::NotDue));
    }
}

#[tokio::test]
async fn machines_that_were_enrolled_together_do_not_come_back_together() {
    let (hierarchy, rng) = (Hierarchy::new(), sallyport_ca::SystemRandom::new());
    let key = sallyport_ca::KeyPair::generate(sallyport_ca::KeyAlgorithm::EcdsaP256, &rng).unwrap().public_key();
    let life = 30 * DAY + 300;
    let mut sixths = [0; 6];
    for _ in 0..300 {
        let certificate = hierarchy.issue(Profile::Machine, NAME, &key, UnixTime(NOW), 30);
        let after = due(&certificate).0 - certificate.not_before.0 - life / 3 * 2;
        assert!((0..=life / 6).contains(&after), "{after}");
        sixths[usize::try_from(after * 6 / (life / 6 + 1)).unwrap()] += 1;
    }
    // 50 each; fewer than 10 happen once in 10^12 times.
    assert!(sixths.iter().all(|n| *n >= 10), "{sixths:?}");
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_the_present_certificate() {
    let world = World::new().await;
    let (_, first) = world.enroll().await.unwrap();
    let now = world.machine.clock.now();
    let list = certs(&world.hierarchy.authorities());
    let of = std::sync::Arc::clone(&world.hierarchy);
    let answers: Vec<(&str, Kind, Conduct)> = vec![
        (
            "not for laptop7",
            Kind::Untrusted,
            Box::new(move |asked| {
                let key = sallyport_ca::PublicKey::from_csr_der(&asked.csr).unwrap();
                certs(&[of.issue(Profile::Machine, "laptop8.example.com", &key, now, 30).der()])
            }),
        ),
        ("does not renew", Kind::Refused, Box::new(|_| answer("403 Forbidden", "", b"the certificate was revoked"))),
        ("yet to approve", Kind::Pending, Box::new(|_| answer("202 Accepted", "Retry-After: 5\r\n", b""))),
        ("is busy", Kind::Unreachable, Box::new(|_| answer("503 Slow Down", "Retry-After: 5\r\n", b""))),
        ("no list of certificates", Kind::Untrusted, Box::new(|_| answer("200 OK", "", b"AAAA"))),
    ];
    for (part, kind, mut conduct) in answers {
        let list = list.clone();
        world
            .server
            .behave(Box::new(move |asked| if asked.path.ends_with("cacerts") { list.clone() } else { conduct(asked) }));
        let error = run(&world, true).await.err().unwrap();
        assert!(error.kind == kind, "{part}: {error:?}");
        assert_eq!(in_force(&world).certificate, first.certificate);
    }
    world.be_honest();
    assert!(matches!(run(&world, true).await.unwrap(), Outcome::Renewed(_)));
    let asked = world.server.requests("simplereenroll");
    assert!(asked.iter().all(|a| a.csr == asked[0].csr), "one key, one request, until it is answered");
}

#[tokio::test]
async fn a_renewal_asks_only_a_server_of_its_own_root() {
    let world = World::new().await;
    world.enroll().await.unwrap();
    let evil = Hierarchy::new();
    let list = certs(&world.hierarchy.authorities());
    let between = Server::start(&evil, "localhost", &world.machine.clock, Box::new(move |_| list.clone())).await;
    let (folder, mut settings, identity) = Folder::open_enrolled(&world.dir()).unwrap();
    settings.server = between.name();
    let error = renew(&folder, &settings, &identity, true, Duration::ZERO, &world.machine).await.err().unwrap();
    assert_eq!(error.kind, Kind::Untrusted, "{error}");
    assert!(between.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_renewal_shows_nothing_to_a_gateway_that_poses_as_the_endpoint() {
    let world = World::new().await;
    let (_, first) = world.enroll().await.unwrap();
    let (clock, conduct) = (&world.machine.clock, honest(&world.hierarchy, &world.token, &world.machine.clock));
    let hostile = Server::start_as(Profile::Gateway, &world.hierarchy, "localhost", clock, conduct).await;
    let (folder, mut settings, identity) = Folder::open_enrolled(&world.dir()).unwrap();
    settings.server = hostile.name();
    let error = renew(&folder, &settings, &identity, true, Duration::ZERO, &world.machine).await.err().unwrap();
    assert!(error.kind == Kind::Untrusted && error.cause.contains("not the enrollment endpoint's"), "{error}");
    assert!(hostile.asked.lock().unwrap().is_empty());
    drop(folder);
    assert_eq!(in_force(&world).certificate, first.certificate);
}

#[tokio::test]
async fn a_certificate_that_has_lapsed_is_refused_with_the_way_back() {
    let world = World::new().await;
    world.enroll().await.unwrap();
    world.machine.clock.set(NOW + 40 * DAY);
    let error = run(&world, false).await.err().unwrap();
    assert!(error.remedy.contains("token"), "{error}");
    assert!(matches!(error.kind, Kind::Untrusted | Kind::Refused), "{error:?}");
}

#[tokio::test]
async fn a_machine_that_is_not_enrolled_says_how() {
    let temp = tempfile::tempdir().unwrap();
    let error = Folder::open_enrolled(&temp.path().join("none")).err().unwrap();
    assert!(error.cause.contains("not enrolled") && error.remedy.contains("--token-file"), "{error}");
    assert!(!temp.path().join("none").exists());
}

#[tokio::test]
async fn two_processes_do_not_renew_at_once() {
    let world = World::new().await;
    world.enroll().await.unwrap();
    let held = world.folder();
    let error = Folder::open_enrolled(&world.dir()).err().unwrap();
    assert!(error.cause.contains("another process"), "{error}");
    drop(held);
    assert!(Folder::open_enrolled(&world.dir()).is_ok());
}

#[tokio::test]
async fn what_is_removed_is_all_removed() {
    let world = World::new().await;
    world.enroll().await.unwrap();
    run(&world, true).await.unwrap();
    world.folder().remove().unwrap();
    assert!(!world.dir().exists());
}
