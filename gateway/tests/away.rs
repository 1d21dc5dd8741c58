//! The whole gateway in memory while no controller answers: see `world`.

mod world;

use std::time::Duration;

use sallyport_ca::{KeyAlgorithm, Profile};
use sallyport_client::{Auth, Event};
use sallyport_gateway::link::FromData;
use sallyport_proto::v1;
use world::{AWAY, PSK, Pki, World, settings};
use zeroize::Zeroizing;

/// Lets this much time pass.
fn pass(w: &mut World, time: Duration) {
    let until = w.now + time;
    w.run(time, move |w| w.now >= until);
}

#[test]
fn a_tunnel_that_is_up_passes_data_and_renews_both_phases_for_hours() {
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048] {
        let pki = Pki::new("Root");
        let mut w = World::new(&pki, settings(pki.laptop(algorithm), "wonderland", true));
        w.connect();
        w.controllers_away = true;
        let (phase1, phase2) = (w.machine.stats().0.phase1_up, w.machine.stats().0.phase2_up);
        // Nine hours: LCP's echoes, and the client's renewal of both phases.
        for _ in 0..27 {
            pass(&mut w, Duration::from_secs(1_200));
            w.exchange();
        }
        let stats = *w.machine.stats().0;
        assert!(stats.phase1_up > phase1, "the client renewed the ISAKMP SA: {stats:?}");
        assert!(stats.phase2_up > phase2 + 1, "the client renewed the ESP SA: {stats:?}");
        // And the gateway's.
        let (peer, spi_in) = *w.installed.last().unwrap();
        w.machine.handle_data(w.now, FromData::SaSoftLimit { peer, spi_in });
        pass(&mut w, Duration::from_secs(60));
        assert_ne!(*w.installed.last().unwrap(), (peer, spi_in), "the gateway renewed the ESP SA");
        w.exchange();
        assert!(!w.is_down(), "{:?}", w.events.last());
        assert_eq!((w.machine.vitals().live_sessions, w.attempts.len()), (1, 0));
        // It ends as ever, and says so to whoever will listen.
        w.client.disconnect(w.now);
        w.run(Duration::from_secs(30), World::is_down);
        pass(&mut w, Duration::from_secs(1));
        let last = w.sessions.last().unwrap();
        assert_eq!((last.state(), last.end_reason()), (v1::SessionState::Down, v1::EndReason::Client));
        assert_eq!((w.machine.vitals().live_sessions, w.machine.peers()), (0, 0));
    }
}

#[test]
fn a_new_machine_is_refused_in_ike_and_a_new_user_in_ppp_with_that_cause_while_others_go_on() {
    let pki = Pki::new("Root");
    let psk = || Auth::PreSharedKey(Zeroizing::new(PSK.to_vec()));
    for (auth, phase) in
        [(pki.laptop(KeyAlgorithm::EcdsaP256), v1::Phase::IkeMainMode), (psk(), v1::Phase::Authentication)]
    {
        let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
        w.connect();
        w.controllers_away = true;
        w.replace_client(settings(auth, "wonderland", true));
        w.run(Duration::from_secs(120), |w| !w.attempts.is_empty() && w.is_down());
        assert!(!w.is_up());
        let [attempt] = w.attempts.as_slice() else { panic!("{:?}", w.attempts) };
        assert_eq!(attempt.phase(), phase);
        assert!(attempt.cause.contains(AWAY), "{}", attempt.cause);
        assert!(attempt.remedy.contains("look at the controllers"), "{}", attempt.remedy);
        // The client hears no, not nothing.
        let Some(Event::Down { cause, .. }) = w.events.last() else { panic!("{:?}", w.events) };
        let told = if phase == v1::Phase::Authentication { "649" } else { "AUTHENTICATION_FAILED" };
        assert!(cause.contains(told), "{cause}");
        assert_eq!(w.machine.vitals().live_sessions, 1, "the first one is still there");
        // The same one is let in as soon as somebody decides.
        w.controllers_away = false;
        w.replace_client(settings(psk(), "wonderland", true));
        w.connect();
        w.exchange();
    }
}

#[test]
fn what_is_known_of_a_machine_lets_it_renew_and_opens_no_second_session() {
    let pki = Pki::new("Root");
    let (key, der) = pki.issue(Profile::Machine, "laptop.test", KeyAlgorithm::EcdsaP256);
    let laptop = || settings(pki.with_certificate(&key, der.clone()), "wonderland", true);
    let mut w = World::new(&pki, laptop());
    w.connect();
    w.controllers_away = true;
    // The machine is in, so IKE lets it come again; its user must be decided on.
    w.replace_client(laptop());
    w.run(Duration::from_secs(120), |w| !w.attempts.is_empty() && w.is_down());
    assert!(!w.is_up());
    assert_eq!(w.attempts.last().unwrap().phase(), v1::Phase::Authentication);
    // Once nothing of it is left here, it is not known any more.
    w.gone = true;
    w.run(Duration::from_secs(1_200), |w| w.machine.peers() == 0);
    assert_eq!(w.machine.peers(), 0);
    w.gone = false;
    w.attempts.clear();
    w.replace_client(laptop());
    w.run(Duration::from_secs(120), |w| !w.attempts.is_empty());
    assert_eq!(w.attempts.last().unwrap().phase(), v1::Phase::IkeMainMode);
}

#[test]
fn another_certificate_under_the_serial_number_of_one_that_is_in_is_not_it() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    let serial = w.last_serial.clone();
    let proven = |fingerprint| sallyport_gateway::control::machine::Proven {
        name: "laptop.test".into(),
        serial: serial.clone(),
        fingerprint,
    };
    assert!(w.machine.is_in(&proven(w.last_fingerprint)));
    assert!(!w.machine.is_in(&proven([7; 32])));
}
