//! Machines without a token: on the list, or approved by an operator.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::*;
use sallyport_ca::{Fingerprint, Profile, PublicKey};
use sallyport_enroll::{Access, Folder, Kind, Progress, Request, Waiting, enroll};

/// An office that certifies keys that were approved; others wait.
fn approving(world: &World) -> Arc<Mutex<Vec<String>>> {
    let approved: Arc<Mutex<Vec<String>>> = Arc::default();
    let (of, list) = (Arc::clone(&world.hierarchy), certs(&world.hierarchy.authorities()));
    let (keys, now) = (Arc::clone(&approved), world.machine.clock.now());
    world.server.behave(Box::new(move |asked| {
        if asked.path.ends_with("cacerts") {
            return list.clone();
        }
        assert!(asked.authorization.is_none() && asked.certificate.is_none());
        let key = PublicKey::from_csr_der(&asked.csr).unwrap();
        if keys.lock().unwrap().contains(&Fingerprint::of(key.spki_der()).to_string()) {
            return certs(&[of.issue(Profile::Machine, NAME, &key, now, 30).der()]);
        }
        answer("202 Accepted", "Retry-After: 60\r\n", b"the request waits for an operator")
    }));
    approved
}

fn listed(world: &World) -> Request {
    let waiting = Waiting {
        server: world.server.name(),
        roots: vec![Fingerprint::of(&world.hierarchy.root).to_string()],
        key: "ecdsa-p256".into(),
        key_in: None,
        name: None,
        gateway: None,
        user: Some("ada".into()),
        software: vec!["strongswan".into()],
    };
    Request { claim: Some("pos1".into()), waiting: Some(waiting.clone()), ..waiting.request(Duration::ZERO).unwrap() }
}

fn key_told(world: &World) -> String {
    let told = world.machine.told.lock().unwrap();
    told.iter().rev().find_map(|p| if let Progress::Key(key) = p { Some(key.clone()) } else { None }).unwrap()
}

#[tokio::test]
async fn the_key_that_was_told_is_approved_and_another_run_gets_its_certificate() {
    let world = World::new().await;
    let approved = approving(&world);
    let error = enroll(&world.folder(), &listed(&world), &world.machine).await.err().unwrap();
    let key = key_told(&world);
    assert_eq!(error.kind, Kind::Pending, "{error}");
    assert!(error.remedy.contains("request approve") && error.remedy.contains(&key), "{error}");
    let (waiting, shown) = Folder::look_waiting(&world.dir()).unwrap().unwrap();
    assert_eq!((shown, waiting.user.as_deref()), (key.clone(), Some("ada")));

    approved.lock().unwrap().push(key);
    let (folder, waiting) = Folder::open_waiting(&world.dir()).unwrap().unwrap();
    assert!(folder.answered().unwrap().is_none());
    let (settings, identity) =
        enroll(&folder, &waiting.request(Duration::ZERO).unwrap(), &world.machine).await.unwrap();
    assert_eq!((settings.name.as_str(), settings.root), (NAME, waiting.roots[0].clone()));
    let requests = world.server.requests("simpleenroll");
    assert!(requests.len() == 2 && requests[0].csr == requests[1].csr);
    assert_eq!(sallyport_ca::claimed_name(&requests[0].csr), "CN=pos1");
    // Until whoever asked for it has installed it: a run that is killed in between asks for no second one.
    let (_, again) = folder.answered().unwrap().unwrap();
    assert_eq!(again.certificate, identity.certificate);
    folder.clear_waiting().unwrap();
    drop(folder);
    assert!(Folder::open_waiting(&world.dir()).unwrap().is_none());
}

#[tokio::test]
async fn an_approval_is_waited_for_as_long_as_was_said() {
    let world = World::new().await;
    approving(&world);
    let request = Request { wait: Duration::from_secs(200), ..listed(&world) };
    let error = enroll(&world.folder(), &request, &world.machine).await.err().unwrap();
    assert_eq!((error.kind, world.machine.paused.lock().unwrap().len()), (Kind::Pending, 3));
    let told = world.machine.told.lock().unwrap();
    let left =
        told.iter().filter_map(|p| if let Progress::Waiting { left, .. } = p { Some(left.as_secs()) } else { None });
    assert_eq!(left.collect::<Vec<_>>(), [200, 140, 80]);
}

/// The timer waits for ten minutes: nobody at that machine shall wait as long to be shown or to install something.
#[tokio::test]
async fn others_have_the_folder_while_an_approval_is_waited_for_and_what_they_did_is_seen() {
    let world = World::new().await;
    approving(&world);
    let request = Request { wait: Duration::from_secs(200), ..listed(&world) };
    let (dir, mut seen) = (world.dir(), 0);
    *world.machine.meanwhile.lock().unwrap() = Some(Box::new(move || {
        let _free = Folder::open(&dir).expect("nobody holds it");
        seen += 1;
        assert!(seen <= 3);
    }));
    let error = enroll(&world.folder(), &request, &world.machine).await.err().unwrap();
    assert_eq!((error.kind, world.machine.paused.lock().unwrap().len()), (Kind::Pending, 3));
    // Somebody has removed what waits.
    let dir = world.dir();
    *world.machine.meanwhile.lock().unwrap() = Some(Box::new(move || {
        Folder::open(&dir).expect("nobody holds it").remove().expect("removes");
    }));
    let asked = world.server.requests("simpleenroll").len();
    let error = enroll(&world.folder(), &request, &world.machine).await.err().unwrap();
    assert!(error.kind == Kind::Machine && error.cause.contains("meanwhile"), "{error}");
    assert_eq!(world.server.requests("simpleenroll").len(), asked + 1, "nothing is asked with a key that is gone");
}

#[tokio::test]
async fn a_machine_that_nobody_knows_hears_how_it_becomes_known() {
    let world = World::new().await;
    let list = certs(&world.hierarchy.authorities());
    world.server.behave(Box::new(move |asked| match asked.path.ends_with("cacerts") {
        true => list.clone(),
        false => answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"show a token"),
    }));
    let error = enroll(&world.folder(), &listed(&world), &world.machine).await.err().unwrap();
    assert_eq!(error.kind, Kind::Refused, "{error}");
    assert!(error.remedy.contains(&format!("machine add NAME --key {}", key_told(&world))), "{error}");
    assert!(Folder::open_waiting(&world.dir()).unwrap().is_none(), "nobody waits for a no");
}

#[tokio::test]
async fn another_root_is_told_nothing() {
    let world = World::new().await;
    approving(&world);
    let other = Fingerprint::of(&Hierarchy::new().root);
    let request = Request { access: Access::Listed(vec![other]), ..listed(&world) };
    let error = enroll(&world.folder(), &request, &world.machine).await.err().unwrap();
    assert!(error.kind == Kind::Untrusted && error.remedy.contains("ca show root"), "{error}");
    assert!(world.server.requests("simpleenroll").is_empty());
    assert!(!world.dir().join("pending").exists() && Folder::look_waiting(&world.dir()).unwrap().is_none());
    let error =
        enroll(&world.folder(), &Request { server: None, ..listed(&world) }, &world.machine).await.err().unwrap();
    assert!(error.remedy.contains("--server"), "{error}");
}
