//! The first certificate: from an honest server, and from those that are not.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::support::*;
use sallyport_ca::{KeyAlgorithm, KeyPair, Profile, SystemRandom, pem};
use sallyport_enroll::{Kind, Progress, enroll};

#[tokio::test]
async fn a_token_brings_a_certificate_and_a_folder_that_says_all_about_it() {
    let world = World::new().await;
    let (settings, identity) = world.enroll().await.unwrap();
    assert_eq!(
        (settings.name.as_str(), settings.server, settings.gateway.as_str()),
        (NAME, world.server.name(), "localhost")
    );
    assert_eq!(
        (identity.chain.clone(), identity.roots.clone()),
        (vec![world.hierarchy.authorities()[0].clone()], vec![world.hierarchy.root.clone()])
    );
    assert_eq!(identity.certificate.spki_der(), identity.key.public_key().spki_der());

    let file = |name: &str| std::fs::read(world.dir().join(name)).unwrap();
    assert_eq!(KeyPair::from_pem(&file("key.pem")).unwrap().public_key(), identity.key.public_key());
    assert_eq!(pem::certificates(&file("cert.pem")).unwrap(), [identity.certificate.der()]);
    assert_eq!(pem::certificates(&file("chain.pem")).unwrap(), identity.chain);
    assert_eq!(pem::certificates(&file("ca.pem")).unwrap(), identity.roots);
    let mode = |name: &str| std::fs::metadata(world.dir().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("key.pem"), mode("cert.pem"), mode("enrollment.toml"), mode("")], [0o600, 0o644, 0o600, 0o700]);
    assert!(!world.dir().join("pending").exists());

    // Not on the first connection, whose server nobody knows.
    let said: Vec<bool> = world.server.asked.lock().unwrap().iter().map(|a| a.authorization.is_some()).collect();
    assert_eq!(said, [false, false, true]);
    assert!(
        matches!(&world.machine.told.lock().unwrap()[..], [Progress::Known(root)] if root.contains("Example Root"))
    );
}

#[tokio::test]
async fn every_kind_of_key_is_enrolled() {
    for algorithm in [KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
        let world = World::new().await;
        let wanted = sallyport_enroll::Request { key: algorithm, ..request(&world.token) };
        let (settings, identity) = enroll(&world.folder(), &wanted, &world.machine).await.unwrap();
        assert_eq!((identity.key.public_key().algorithm(), settings.key.as_str()), (algorithm, algorithm.name()));
    }
}

#[tokio::test]
async fn a_server_of_another_root_hears_no_token() {
    let world = World::new().await;
    let other = Hierarchy::new();
    let wanted = request(&other.token(&world.server.name()));
    let error = enroll(&world.folder(), &wanted, &world.machine).await.err().unwrap();
    assert_eq!(error.kind, Kind::Untrusted, "{error}");
    assert!(error.cause.contains("not of the authority that made the token"), "{error}");
    assert!(!world.server.heard_a_token());
    assert!(!world.dir().join("pending").exists(), "no key is made for a stranger");
}

#[tokio::test]
async fn who_shows_the_right_root_but_has_another_certificate_hears_no_token() {
    let (world, evil) = (World::new().await, Hierarchy::new());
    let (honest_list, clock) = (certs(&world.hierarchy.authorities()), world.machine.clock.clone());
    let between = Server::start(&evil, "localhost", &clock, Box::new(move |_| honest_list.clone())).await;
    let wanted = request(&world.hierarchy.token(&between.name()));
    let error = enroll(&world.folder(), &wanted, &world.machine).await.err().unwrap();
    assert_eq!(error.kind, Kind::Untrusted, "{error}");
    assert!(error.cause.contains("not of the authority that this machine trusts"), "{error}");
    assert!(!between.heard_a_token());
    assert_eq!(between.requests("cacerts").len(), 1);
}

/// A gateway that was taken over has its own key and certificate for IKE: of the same root, for the names that clients dial, with
/// serverAuth. It shows them at the port where it should pass connections on.
#[tokio::test]
async fn a_gateway_that_poses_as_the_endpoint_hears_no_token() {
    let (world, clock) = (World::new().await, Machine::new().clock);
    for profile in [Profile::Gateway, Profile::Controller] {
        let conduct = honest(&world.hierarchy, &world.token, &clock);
        let hostile = Server::start_as(profile, &world.hierarchy, "localhost", &clock, conduct).await;
        let wanted = request(&world.hierarchy.token(&hostile.name()));
        let error = enroll(&world.folder(), &wanted, &world.machine).await.err().unwrap();
        assert_eq!(error.kind, Kind::Untrusted, "{profile}: {error}");
        assert!(error.cause.contains("not the enrollment endpoint's"), "{error}");
        assert!(error.remedy.contains("pass the connection on unopened"), "{error}");
        // It was asked once, by somebody who says nothing, and then hung up on in the handshake.
        assert!(!hostile.heard_a_token() && hostile.asked.lock().unwrap().len() == 1, "{profile}");
        assert!(!world.dir().join("pending").exists(), "no key is made for it");
    }
}

#[tokio::test]
async fn a_server_of_another_name_hears_no_token() {
    let world = World::named("vpn.example.com").await;
    let error = world.enroll().await.err().unwrap();
    assert!(error.cause.contains("not for localhost") && error.remedy.contains("--server"), "{error}");
    assert!(!world.server.heard_a_token());
}

#[tokio::test]
async fn a_clock_that_is_off_is_named() {
    let world = World::new().await;
    for off in [NOW - 2 * DAY, NOW + 400 * DAY, NOW + 4000 * DAY] {
        world.machine.clock.set(off);
        let error = world.enroll().await.err().unwrap();
        assert!(error.cause.contains("clock") && error.remedy.contains("timedatectl"), "{error}");
    }
    assert!(!world.server.heard_a_token());
}

#[tokio::test]
async fn a_refusal_says_what_the_server_says_and_what_to_do() {
    let world = World::new().await;
    let wrong = request(&world.hierarchy.token(&world.server.name()));
    let error = enroll(&world.folder(), &wrong, &world.machine).await.err().unwrap();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.cause.contains("the token is used up") && error.remedy.contains("token create"), "{error}");

    for (status, kind, part) in [
        ("403 Forbidden", Kind::Refused, "refuses: \u{fffd}?[31mno"),
        ("400 Bad Request", Kind::Refused, "cannot use the request"),
        ("404 Not Found", Kind::Unreachable, "answers 404"),
        ("500 Oh", Kind::Unreachable, "answers 500"),
        ("302 Found", Kind::Unreachable, "answers 302"),
    ] {
        let list = certs(&world.hierarchy.authorities());
        world.server.behave(Box::new(move |asked| match asked.path.ends_with("cacerts") {
            true => list.clone(),
            false => answer(status, "", b"\xff?\x1b[31mno\nmore\n"),
        }));
        let error = world.enroll().await.err().unwrap();
        assert!(error.kind == kind && error.cause.contains(part), "{error:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let world = World::new().await;
    let mut wanted = request(&world.token);
    // A port that was free a moment ago, and that nobody has listened on since.
    let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    wanted.server = Some(format!("127.0.0.1:{port}").parse().unwrap());
    let error = enroll(&world.folder(), &wanted, &world.machine).await.err().unwrap();
    assert!(error.kind == Kind::Unreachable && error.cause.starts_with("cannot reach 127.0.0.1:"), "{error}");

    wanted = request(&world.hierarchy.token(""));
    let error = enroll(&world.folder(), &wanted, &world.machine).await.err().unwrap();
    assert!(error.kind == Kind::Usage && error.remedy.contains("--server"), "{error}");
}

#[tokio::test]
async fn an_approval_is_waited_for_and_asked_for_again_with_the_same_request() {
    let world = World::new().await;
    let (list, mut honest, mut asks) =
        (certs(&world.hierarchy.authorities()), honest(&world.hierarchy, &world.token, &world.machine.clock), 0);
    world.server.behave(Box::new(move |asked| {
        if asked.path.ends_with("cacerts") {
            return list.clone();
        }
        asks += 1;
        if asks < 4 { answer("202 Accepted", "Retry-After: 60\r\n", b"waiting for approval") } else { honest(asked) }
    }));
    // Not as long as the server wants.
    let error = world.enroll().await.err().unwrap();
    assert_eq!(error.kind, Kind::Pending);
    assert!(error.cause.contains("waiting for approval") && error.remedy.contains("60 seconds"), "{error}");
    let wanted = sallyport_enroll::Request { wait: Duration::from_secs(150), ..request(&world.token) };
    let (_, identity) = enroll(&world.folder(), &wanted, &world.machine).await.unwrap();
    assert_eq!(*world.machine.paused.lock().unwrap(), [Duration::from_secs(60); 2]);
    let requests = world.server.requests("simpleenroll");
    assert!(requests.len() == 4 && requests.iter().all(|r| r.csr == requests[0].csr));
    assert_eq!(identity.name(), NAME);
}

#[tokio::test]
async fn a_server_that_puts_off_for_ever_is_left() {
    let world = World::new().await;
    for (fields, wait, pauses) in [
        ("Retry-After: 0\r\n", 5, 5),
        ("", 100, 3),
        ("Retry-After: 18446744073709551615\r\n", 100, 0),
        ("Retry-After: soon\r\n", 100, 3),
    ] {
        let list = certs(&world.hierarchy.authorities());
        world.server.behave(Box::new(move |asked| match asked.path.ends_with("cacerts") {
            true => list.clone(),
            false => answer("202 Accepted", fields, b""),
        }));
        world.machine.paused.lock().unwrap().clear();
        let wanted = sallyport_enroll::Request { wait: Duration::from_secs(wait), ..request(&world.token) };
        let error = enroll(&world.folder(), &wanted, &world.machine).await.err().unwrap();
        assert_eq!((error.kind, world.machine.paused.lock().unwrap().len()), (Kind::Pending, pauses), "{fields}");
    }
}

#[tokio::test]
async fn a_wrong_answer_changes_nothing_and_the_same_request_is_sent_again() {
    let world = World::new().await;
    world.enroll().await.unwrap();
    let before = snapshot(&world.dir());
    let evil = Hierarchy::new();
    let stranger = KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).unwrap().public_key();
    let now = world.machine.clock.now();
    let for_another_key = certs(&[world.hierarchy.issue(Profile::Machine, NAME, &stranger, now, 30).der()]);
    let endless = |head: &str| [head.as_bytes(), &vec![b'A'; 2 << 20]].concat();
    let answers: Vec<(&str, Conduct)> = vec![
        ("another key", Box::new(move |_| for_another_key.clone())),
        (
            "another authority",
            Box::new(move |asked| {
                let key = sallyport_ca::PublicKey::from_csr_der(&asked.csr).unwrap();
                let mut list = vec![evil.issue(Profile::Machine, NAME, &key, now, 30).der().to_vec()];
                list.extend(evil.authorities());
                certs(&list)
            }),
        ),
        ("nothing in it", Box::new(|_| answer("200 OK", "", b""))),
        ("no base64", Box::new(|_| answer("200 OK", "", b"<html>welcome to the hotel</html>"))),
        ("no certificates", Box::new(|_| certs::<&[u8]>(&[]))),
        ("no certificate", Box::new(|_| certs(&[b"\x30\x03\x02\x01\x01"]))),
        ("a long body", Box::new(move |_| endless("HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n"))),
        ("a body without an end", Box::new(move |_| endless("HTTP/1.1 200 OK\r\n\r\n"))),
        ("a long head", Box::new(move |_| endless("HTTP/1.1 200 OK\r\nX-Pad: "))),
        ("a body that breaks off", Box::new(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nMII".to_vec())),
        ("no HTTP", Box::new(|_| b"220 mail.example.com ESMTP\r\n".to_vec())),
        ("silence", Box::new(|_| Vec::new())),
    ];
    let mut sent = None;
    for (what, mut conduct) in answers {
        let list = certs(&world.hierarchy.authorities());
        world
            .server
            .behave(Box::new(move |asked| if asked.path.ends_with("cacerts") { list.clone() } else { conduct(asked) }));
        let error = world.enroll().await.err().unwrap();
        assert!(matches!(error.kind, Kind::Untrusted | Kind::Unreachable), "{what}: {error}");
        let mut after = snapshot(&world.dir());
        after.retain(|name, _| !name.starts_with("pending/"));
        assert_eq!(after, before, "{what}");
        let csr = world.server.requests("simpleenroll").pop().unwrap().csr;
        assert_eq!(*sent.get_or_insert(csr.clone()), csr, "{what}");
    }
    world.be_honest();
    world.enroll().await.unwrap();
    assert_eq!(world.server.requests("simpleenroll").pop().unwrap().csr, sent.unwrap());
}

#[tokio::test]
async fn a_token_for_another_machine_is_noticed() {
    let world = World::new().await;
    let wanted = sallyport_enroll::Request { name: Some("laptop8.example.com".into()), ..request(&world.token) };
    let error = enroll(&world.folder(), &wanted, &world.machine).await.err().unwrap();
    assert!(error.cause.contains("calls this machine laptop7.example.com, not laptop8.example.com"), "{error}");
    assert!(world.folder().identity().unwrap().is_none());
    // As the remedy says: the same request, and so the certificate that the token already brought.
    world.enroll().await.unwrap();
    let requests = world.server.requests("simpleenroll");
    assert_eq!(requests[0].csr, requests[1].csr);
}

#[tokio::test]
async fn a_rollover_is_followed_where_the_known_root_vouches_for_the_new_one() {
    let world = World::new().await;
    let (next, foreign) = (Hierarchy::next(), Hierarchy::next());
    let mut list = world.hierarchy.authorities();
    list.extend([next.root.clone(), world.hierarchy.cross(&next), foreign.root.clone()]);
    let (list, mut honest) = (certs(&list), honest(&world.hierarchy, &world.token, &world.machine.clock));
    world
        .server
        .behave(Box::new(move |asked| if asked.path.ends_with("cacerts") { list.clone() } else { honest(asked) }));
    let (_, identity) = world.enroll().await.unwrap();
    assert_eq!(identity.roots, [world.hierarchy.root.clone(), next.root]);
}

#[tokio::test]
async fn a_certificate_below_the_next_root_is_taken_with_the_cross_certificate_that_leads_to_the_known_one() {
    let (world, next) = (World::new().await, Hierarchy::next());
    let cross = world.hierarchy.cross(&next);
    let mut list = next.authorities();
    list.push(cross.clone());
    list.extend(world.hierarchy.authorities());
    let (list, now) = (certs(&list), world.machine.clock.now());
    let issuing = next.issuing.certificate().der().to_vec();
    world.server.behave(Box::new(move |asked| match asked.path.ends_with("cacerts") {
        true => list.clone(),
        false => {
            let key = sallyport_ca::PublicKey::from_csr_der(&asked.csr).unwrap();
            certs(&[next.issue(Profile::Machine, NAME, &key, now, 30).der()])
        }
    }));
    let (_, identity) = world.enroll().await.unwrap();
    assert_eq!(identity.chain, [issuing, cross]);
    assert_eq!(identity.roots.len(), 2);
}
