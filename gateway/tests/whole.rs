//! The whole gateway in memory and virtual time: see `world`.

#[path = "whole/revocation.rs"]
mod revocation;
mod world;

use std::time::Duration;

use sallyport_ca::KeyAlgorithm;
use sallyport_client::{Auth, Event, Phase};
use sallyport_proto::v1;
use world::{PSK, Pki, REQUEST, World, settings};
use zeroize::Zeroizing;

#[test]
fn a_laptop_with_an_ecdsa_certificate_connects_and_data_pass_both_ways() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    let reached: Vec<Phase> = w
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Reached { phase, .. } => Some(*phase),
            _ => None,
        })
        .collect();
    use Phase::*;
    assert_eq!(reached, [IkeSa, IpsecSa, L2tpTunnel, L2tpSession, PppLcp, PppAuth, PppIp]);
    w.exchange();
    assert_eq!(w.machine.vitals().live_sessions, 1);
    assert_eq!(w.attempts.len(), 0);
}

#[test]
fn a_laptop_with_an_rsa_certificate_connects_in_udp() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::Rsa2048), "wonderland", false));
    w.connect();
    w.exchange();
}

#[test]
fn a_laptop_with_the_pre_shared_key_connects() {
    let pki = Pki::new("Root");
    let auth = Auth::PreSharedKey(Zeroizing::new(PSK.to_vec()));
    let mut w = World::new(&pki, settings(auth, "wonderland", true));
    w.connect();
    w.exchange();
}

#[test]
fn hanging_up_ends_session_tunnel_and_peer() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    w.client.disconnect(w.now);
    w.run(Duration::from_secs(30), World::is_down);
    assert!(w.is_down());
    w.run(Duration::from_secs(1), |_| false);
    let last = w.sessions.last().unwrap();
    assert_eq!((last.state(), last.end_reason()), (v1::SessionState::Down, v1::EndReason::Client));
    assert_eq!(w.machine.vitals().live_sessions, 0);
    assert_eq!(w.machine.peers(), 0);
}

#[test]
fn a_laptop_that_vanishes_is_found_dead_and_its_session_ends() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    w.gone = true;
    w.run(Duration::from_secs(600), |w| w.sessions.last().is_some_and(|s| s.state() == v1::SessionState::Down));
    let last = w.sessions.last().unwrap();
    assert_eq!((last.state(), last.end_reason()), (v1::SessionState::Down, v1::EndReason::PeerSilent));
    w.run(Duration::from_secs(600), |w| w.machine.peers() == 0);
    assert_eq!(w.machine.peers(), 0);
}

#[test]
fn a_wrong_password_is_refused_with_its_cause_and_the_gateway_goes_on() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "looking-glass", true));
    w.run(Duration::from_secs(60), |w| !w.attempts.is_empty() && w.is_down());
    assert!(!w.is_up());
    assert_eq!(w.attempts.len(), 1, "{:?}", w.attempts);
    assert_eq!(w.attempts[0].phase(), v1::Phase::Authentication);
    assert_eq!(w.attempts[0].cause, "wrong password");
    assert_eq!(w.attempts[0].user, "alice");
    w.replace_client(settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    w.exchange();
}

#[test]
fn a_certificate_of_a_strange_authority_is_refused_as_such() {
    let (pki, strange) = (Pki::new("Root"), Pki::new("Somebody Else"));
    let mut w = World::new(&pki, settings(strange.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.run(Duration::from_secs(120), |w| !w.attempts.is_empty());
    assert_eq!(w.attempts.len(), 1, "{:?} {:?}", w.attempts, w.events);
    assert_eq!(w.attempts[0].phase(), v1::Phase::IkeMainMode);
}

#[test]
fn a_wrong_pre_shared_key_is_refused_as_such() {
    let pki = Pki::new("Root");
    let auth = Auth::PreSharedKey(Zeroizing::new(b"another secret".to_vec()));
    let mut w = World::new(&pki, settings(auth, "wonderland", true));
    w.run(Duration::from_secs(120), |w| !w.attempts.is_empty());
    assert_eq!(w.attempts.len(), 1);
    assert!(w.attempts[0].cause.contains("pre-shared key"), "{}", w.attempts[0].cause);
}

#[test]
fn a_rekey_of_the_esp_sa_loses_no_packet() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    w.exchange();
    // Eight hours pass: both phases are rekeyed more than once.
    for _ in 0..48 {
        let until = w.now + Duration::from_secs(1_200);
        w.run(Duration::from_secs(1_200), move |w| w.now >= until);
        w.exchange();
    }
    assert!(w.events.iter().filter(|e| matches!(e, Event::Rekeyed)).count() >= 1, "{:?}", w.events);
    assert!(!w.is_down(), "{:?}", w.events.last());
}

#[test]
fn a_machine_that_the_controllers_turn_away_is_recorded_under_their_id() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.refuse_machines = true;
    w.run(Duration::from_secs(120), |w| !w.attempts.is_empty());
    assert_eq!(w.attempts.len(), 1);
    assert_eq!((w.attempts[0].id.as_slice(), w.attempts[0].phase()), (&REQUEST[..], v1::Phase::IkeMainMode));
    assert!(w.attempts[0].cause.contains("revoked"), "{}", w.attempts[0].cause);
}

#[test]
fn a_gateway_that_was_given_up_hangs_up_at_once() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    w.machine.handle_given_up(w.now);
    w.run(Duration::from_secs(10), World::is_down);
    assert!(w.is_down());
    assert_eq!(w.machine.vitals().live_sessions, 0);
}

#[test]
fn a_session_stays_and_is_rekeyed_while_the_gateway_gets_new_certificates() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    w.exchange();
    w.swap(&pki, "vpn.test");
    w.exchange();
    // A day and more: both phases are rekeyed, main mode with the new certificate, and between them there is another one.
    for round in 0..10 {
        let until = w.now + Duration::from_secs(10_800);
        w.run(Duration::from_secs(10_800), move |w| w.now >= until);
        w.exchange();
        if round == 5 {
            w.swap(&pki, "vpn.test");
        }
    }
    assert!(w.events.iter().filter(|e| matches!(e, Event::Rekeyed)).count() >= 1, "{:?}", w.events);
    assert!(!w.is_down(), "{:?}", w.events.last());
    assert_eq!(w.attempts.len(), 0, "{:?}", w.attempts);
}

#[test]
fn new_clients_see_the_new_name_and_whoever_is_in_stays() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    w.swap(&pki, "vpn2.test");
    w.exchange();
    assert_eq!(w.machine.vitals().live_sessions, 1);
    w.replace_client(settings(pki.laptop_dialling("vpn2.test"), "wonderland", true));
    w.connect();
    w.exchange();
    w.replace_client(settings(pki.laptop_dialling("vpn.test"), "wonderland", true));
    w.run(Duration::from_secs(60), |w| w.is_up() || w.is_down());
    assert!(!w.is_up(), "the old name is in no certificate any more");
}

#[test]
fn a_handshake_ends_with_the_certificate_that_it_began_with_wherever_the_swap_comes() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    for steps in 0..16 {
        w.replace_client(settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
        for _ in 0..steps {
            w.step();
        }
        w.swap(&pki, "vpn.test");
        w.connect();
        w.exchange();
        w.client.disconnect(w.now);
        w.run(Duration::from_secs(30), World::is_down);
    }
    assert_eq!(w.attempts.len(), 0, "{:?}", w.attempts);
}
