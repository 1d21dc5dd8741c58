//! The set of live certificates in the whole gateway: who is let in by it, who must go, and what silence does.

use std::time::Duration;

use sallyport_ca::{KeyAlgorithm, Profile};
use sallyport_client::{Auth, Event, Settings};
use sallyport_gateway::clock::Clock;
use sallyport_proto::v1::{self, CertificateVerdict as Verdict, RevocationReason as Reason};
use zeroize::Zeroizing;

use crate::world::{AWAY, Pki, World, settings};

const LIFE: u64 = 5;
const MAX_STALE: u32 = 600;

/// A laptop, and what the controllers say of its certificate.
struct Laptop {
    key: Zeroizing<Vec<u8>>,
    der: Vec<u8>,
    tag: Vec<u8>,
}

impl Laptop {
    fn new(pki: &Pki) -> Self {
        let (key, der) = pki.issue(Profile::Machine, "laptop.test", KeyAlgorithm::EcdsaP256);
        let digest = sallyport_ca::Fingerprint::of(&der);
        Self { key, tag: digest.0[..16].to_vec(), der }
    }

    fn auth(&self, pki: &Pki) -> Auth {
        pki.with_certificate(&self.key, self.der.clone())
    }

    fn settings(&self, pki: &Pki) -> Settings {
        settings(self.auth(pki), "wonderland", true)
    }

    fn live(&self) -> Vec<u8> {
        let end = u32::try_from(Clock::unix().0 + 86_400).unwrap();
        [self.tag.as_slice(), &end.to_be_bytes()].concat()
    }

    fn revoked(&self, number: u64, reason: Reason) -> Vec<v1::RevokedCertificate> {
        vec![v1::RevokedCertificate {
            fingerprint: self.tag.clone(),
            reason: reason.into(),
            not_after_unix_s: u64::try_from(Clock::unix().0).unwrap() + 86_400,
            number,
        }]
    }
}

fn whole(index: u64) -> v1::LiveUpdate {
    v1::LiveUpdate { lineage: LIFE, snapshot: true, index, ..Default::default() }
}

fn change(after: u64, index: u64) -> v1::LiveUpdate {
    v1::LiveUpdate { lineage: LIFE, after, index, ..Default::default() }
}

/// The controllers say this, and confirm that it is all.
fn say(w: &mut World, update: &v1::LiveUpdate) {
    w.machine.handle_live(w.now, update).unwrap();
    confirm(w, update.index);
}

fn confirm(w: &mut World, index: u64) {
    w.machine.handle_newest(w.now, v1::LiveFrom { lineage: LIFE, index }, w.now);
}

/// A gateway with this policy of silence that knows one laptop, at number 10, which comes.
fn world(pki: &Pki, laptop: &Laptop, fail_closed: bool) -> World {
    let mut w = World::new(pki, laptop.settings(pki));
    w.machine.set_stale_policy(w.now, MAX_STALE, fail_closed);
    say(&mut w, &v1::LiveUpdate { live: laptop.live(), ..whole(10) });
    w
}

/// Lets this much time pass.
fn pass(w: &mut World, time: Duration) {
    let until = w.now + time;
    w.run(time, move |w| w.now >= until);
    w.now = w.now.max(until);
    w.machine.handle_timeout(w.now);
}

/// Another client comes, a moment later: it draws its numbers by the time.
fn come(w: &mut World, client: Settings) {
    pass(w, Duration::from_millis(100));
    w.replace_client(client);
}

/// The client comes and is refused: with which cause.
fn refused(w: &mut World, client: Settings) -> (Verdict, String) {
    w.attempts.clear();
    come(w, client);
    w.run(Duration::from_secs(120), |w| !w.attempts.is_empty());
    assert!(!w.is_up());
    let attempt = w.attempts.last().expect("an attempt");
    assert_eq!(attempt.phase(), v1::Phase::IkeMainMode);
    assert!(!attempt.remedy.is_empty());
    (attempt.certificate_verdict(), attempt.cause.clone())
}

#[test]
fn a_machine_that_is_known_to_be_live_is_let_in_without_a_question_and_is_out_when_it_is_revoked() {
    let pki = Pki::new("Root");
    let laptop = Laptop::new(&pki);
    let mut w = world(&pki, &laptop, false);
    w.connect();
    w.exchange();
    assert_eq!(w.asked, 0);
    say(&mut w, &v1::LiveUpdate { revoked: laptop.revoked(11, Reason::KeyCompromise), ..change(10, 11) });
    w.run(Duration::from_secs(5), |w| w.is_down() && w.machine.peers() == 0);
    assert!(w.is_down());
    assert_eq!((w.machine.peers(), w.machine.vitals().live_sessions), (0, 0));
    assert_eq!(w.sessions.last().unwrap().end_reason(), v1::EndReason::Revoked);
    let (held, done) = w.machine.live_report(w.now);
    assert_eq!(held.unwrap().at, Some(v1::LiveFrom { lineage: LIFE, index: 11 }));
    assert_eq!(done, [v1::RevocationDone { number: 11, tunnels: 1 }]);

    let (verdict, cause) = refused(&mut w, laptop.settings(&pki));
    assert!(verdict == Verdict::Revoked && cause.contains("is revoked: key-compromise"), "{cause}");
    assert_eq!(w.asked, 0, "no is no");
}

#[test]
fn a_machine_on_hold_is_out_until_it_is_released() {
    let pki = Pki::new("Root");
    let laptop = Laptop::new(&pki);
    let mut w = world(&pki, &laptop, false);
    w.connect();
    say(&mut w, &v1::LiveUpdate { revoked: laptop.revoked(11, Reason::CertificateHold), ..change(10, 11) });
    w.run(Duration::from_secs(5), World::is_down);
    let (verdict, cause) = refused(&mut w, laptop.settings(&pki));
    assert!(verdict == Verdict::Revoked && cause.contains("is on hold"), "{cause}");
    say(&mut w, &v1::LiveUpdate { live: laptop.live(), ..change(11, 12) });
    come(&mut w, laptop.settings(&pki));
    w.connect();
    w.exchange();
    // While nothing is heard, what is revoked is asked about: it may have been released.
    say(&mut w, &v1::LiveUpdate { revoked: laptop.revoked(13, Reason::CertificateHold), ..change(12, 13) });
    w.run(Duration::from_secs(5), World::is_down);
    pass(&mut w, Duration::from_secs(30));
    let asked = w.asked;
    come(&mut w, laptop.settings(&pki));
    w.connect();
    assert_eq!(w.asked, asked + 1);
    w.controllers_away = true;
    say(&mut w, &v1::LiveUpdate { revoked: laptop.revoked(15, Reason::CertificateHold), ..change(13, 15) });
    w.run(Duration::from_secs(5), World::is_down);
    pass(&mut w, Duration::from_secs(30));
    let (verdict, cause) = refused(&mut w, laptop.settings(&pki));
    assert!(verdict == Verdict::Revoked && cause.contains("is on hold"), "{cause}");
}

#[test]
fn a_certificate_that_was_made_with_a_stolen_key_is_asked_about_even_under_the_number_of_one_that_is_live() {
    let pki = Pki::new("Root");
    let laptop = Laptop::new(&pki);
    let mut w = world(&pki, &laptop, false);
    w.connect();
    // The authority's key in other hands makes another certificate, with the same serial number, name and dates.
    let serial: sallyport_ca::Serial = w.last_serial.parse().unwrap();
    let (key, der) = pki.issue_under(Profile::Machine, "laptop.test", KeyAlgorithm::EcdsaP256, serial);
    let forged = Laptop { key, der, tag: Vec::new() };
    w.refuse_machines = true; // as a controller does that finds another fingerprint
    let (_, cause) = refused(&mut w, forged.settings(&pki));
    assert_eq!((w.asked, cause.as_str()), (1, "revoked"));
}

#[test]
fn a_machine_that_is_revoked_while_it_comes_up_or_is_asked_about_does_not_come_in() {
    let pki = Pki::new("Root");
    let laptop = Laptop::new(&pki);
    let mut w = world(&pki, &laptop, false);
    // IKE has been told that the certificate is good, and the peer is not up yet.
    w.run(Duration::from_secs(60), |w| !w.last_serial.is_empty());
    say(&mut w, &v1::LiveUpdate { revoked: laptop.revoked(11, Reason::Superseded), ..change(10, 11) });
    w.run(Duration::from_secs(10), |w| w.is_up() || w.is_down());
    assert!(!w.is_up(), "{:?}", w.events);
    assert_eq!((w.machine.peers(), w.machine.vitals().live_sessions), (0, 0));

    // The controllers are asked about another one, and say yes; the revocation overtakes their answer.
    for revoked in [false, true] {
        let laptop = Laptop::new(&pki);
        let mut w = World::new(&pki, laptop.settings(&pki));
        say(&mut w, &whole(10));
        w.slow = true;
        w.run(Duration::from_secs(60), |w| !w.unanswered.is_empty());
        assert_eq!((w.asked, w.unanswered.len()), (1, 1));
        let gone = if revoked { laptop.revoked(11, Reason::Superseded) } else { Vec::new() };
        say(&mut w, &v1::LiveUpdate { revoked: gone, ..change(10, 11) });
        w.answer();
        w.run(Duration::from_secs(60), |w| w.is_up() || !w.attempts.is_empty());
        assert_eq!((w.is_up(), w.machine.peers()), (!revoked, usize::from(!revoked)), "{:?}", w.attempts);
        if let Some(attempt) = w.attempts.last() {
            assert_eq!(attempt.certificate_verdict(), Verdict::Revoked);
            assert!(attempt.cause.contains("is revoked: superseded"), "{}", attempt.cause);
        }
    }
}

#[test]
fn a_gateway_that_is_cut_off_lets_in_whom_it_knows_for_a_while_and_then_nobody_and_keeps_its_sessions() {
    let pki = Pki::new("Root");
    let (laptop, stranger) = (Laptop::new(&pki), Laptop::new(&pki));
    let mut w = world(&pki, &laptop, false);
    w.connect();
    w.controllers_away = true;
    pass(&mut w, Duration::from_secs(60));
    // Stale: whom it knows it lets in, though nobody decides on the user; whom it does not know it refuses.
    come(&mut w, laptop.settings(&pki));
    w.run(Duration::from_secs(60), |w| !w.attempts.is_empty());
    assert_eq!(w.attempts.last().unwrap().phase(), v1::Phase::Authentication);
    let (verdict, cause) = refused(&mut w, stranger.settings(&pki));
    assert!(verdict == Verdict::Unknown && cause.starts_with("unknown:") && cause.contains(AWAY), "{cause}");
    assert!(!w.machine.live_report(w.now).0.unwrap().stale);

    // The time is over: the one that is in stays and renews, others do not come in.
    w.gone = true; // the second one
    pass(&mut w, Duration::from_secs(700));
    w.gone = false;
    let (held, _) = w.machine.live_report(w.now);
    assert!(held.unwrap().stale);
    let other = Laptop::new(&pki);
    w.controllers_away = false;
    w.machine.handle_live(w.now, &v1::LiveUpdate { live: other.live(), ..change(10, 11) }).unwrap();
    w.controllers_away = true;
    let (verdict, cause) = refused(&mut w, other.settings(&pki));
    assert!(verdict == Verdict::Unspecified && cause.contains("max-stale"), "{cause}");
    // They are back.
    w.controllers_away = false;
    confirm(&mut w, 11);
    let asked = w.asked;
    come(&mut w, other.settings(&pki));
    w.connect();
    assert_eq!(w.asked, asked);
}

#[test]
fn sessions_outlive_the_silence_unless_the_operator_chose_otherwise() {
    for fail_closed in [false, true] {
        let pki = Pki::new("Root");
        let laptop = Laptop::new(&pki);
        let mut w = world(&pki, &laptop, fail_closed);
        w.connect();
        w.controllers_away = true;
        pass(&mut w, Duration::from_secs(u64::from(MAX_STALE) - 10));
        w.exchange();
        pass(&mut w, Duration::from_secs(20));
        assert_eq!(w.is_down(), fail_closed, "{:?}", w.events);
        assert_eq!((w.machine.peers(), w.machine.vitals().live_sessions), if fail_closed { (0, 0) } else { (1, 1) });
        if fail_closed {
            assert_eq!(w.sessions.last().unwrap().end_reason(), v1::EndReason::Killed);
        } else {
            // For hours, with renewals of both phases.
            for _ in 0..27 {
                pass(&mut w, Duration::from_secs(1_200));
                w.exchange();
            }
            assert!(w.events.iter().any(|e| matches!(e, Event::Rekeyed)), "{:?}", w.events);
        }
    }
}

#[test]
fn a_set_that_comes_anew_ends_who_was_revoked_meanwhile_and_nobody_else() {
    let pki = Pki::new("Root");
    for revoked in [true, false] {
        let (laptop, other) = (Laptop::new(&pki), Laptop::new(&pki));
        let mut w = World::new(&pki, laptop.settings(&pki));
        say(&mut w, &whole(10));
        // A certificate that is seconds old: the controllers let it in, and no set has it yet.
        w.connect();
        assert_eq!((w.asked, w.machine.peers()), (1, 1));
        let gone = if revoked { &laptop } else { &other };
        let first =
            v1::LiveUpdate { more: true, said: 3, revoked: gone.revoked(14, Reason::KeyCompromise), ..whole(15) };
        w.machine.handle_live(w.now, &first).unwrap();
        assert_eq!(w.machine.peers(), 1, "half a set is none");
        say(&mut w, &v1::LiveUpdate { after: 3, ..whole(15) });
        w.run(Duration::from_secs(5), |w| w.is_down());
        assert_eq!((w.is_down(), w.machine.peers()), (revoked, usize::from(!revoked)));
        assert_eq!(w.machine.live_report(w.now).1.len(), usize::from(revoked));
    }
}
