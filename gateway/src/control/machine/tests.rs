//! What the tests of the whole gateway cannot reach: a peer that misbehaves above IKE.

use super::*;
use crate::control::policy;

const PEER: PeerId = PeerId(7);

/// A machine with one peer, which has one session.
fn machine() -> Machine {
    let config = Config {
        ike: policy::ike_config(&Default::default(), &Default::default()),
        l2tp: l2tp::Config::default(),
        ppp: ppp::ServerConfig::default(),
        report_interval: Duration::from_secs(60),
    };
    let now = Instant::ZERO;
    let mut m = Machine::new(config, [1; 32], now);
    let peer = Peer {
        who: Who::default(),
        local: ([192, 0, 2, 1], 4500).into(),
        suite: String::new(),
        certificate_serial: String::new(),
        fingerprint: None,
        spis: BTreeSet::new(),
        encap: true,
        key: MachineKey::Certificate("01".into()),
    };
    assert!(m.add_peer_of(now, &peer.key));
    m.peers.insert(PEER, peer);
    let info = l2tp::SessionInfo {
        peer: PEER,
        peer_port: 1701,
        local_tunnel: 1,
        local_session: 2,
        peer_tunnel: 3,
        peer_session: 4,
        host_name: "laptop".into(),
        sequencing: false,
        call_serial: 0,
        initiator: false,
    };
    m.session_up(now, info);
    m.out.clear();
    m
}

#[test]
fn a_machine_that_guesses_is_stopped_before_the_controllers_are_asked() {
    let mut m = machine();
    let asked = |m: &mut Machine, now, times: u32| {
        for i in 0..times {
            let proof = ppp::AuthProof::ChapMd5 { identifier: 1, challenge: [0; 16], response: [0; 16] };
            let request = ppp::AuthRequest { user: format!("user{i}"), method: proof, attempt: 1 };
            m.ask(now, 2, ppp::QuestionId(i), request);
        }
        m.out.drain(..).filter(|o| matches!(o, Output::Authenticate(..))).count()
    };
    assert_eq!(asked(&mut m, Instant::ZERO, 1_000), 20);
    assert_eq!(asked(&mut m, Instant::from_secs(30), 1_000), 10);
    assert_eq!(m.questions.len(), 1, "a newer question replaces the one before");
}

#[test]
fn a_machine_that_is_refused_without_end_fills_no_audit() {
    let mut m = machine();
    let refuse = |m: &mut Machine, now, times: u32| {
        for _ in 0..times {
            m.handle_l2tp(
                now,
                l2tp::Output::Event(l2tp::Event::Refused(l2tp::Refusal {
                    peer: PEER,
                    phase: l2tp::Phase::Tunnel,
                    local_tunnel: 0,
                    host_name: String::new(),
                    cause: "no".into(),
                    remedy: "stop".into(),
                })),
            );
        }
        let causes = m.out.drain(..).filter_map(|o| match o {
            Output::Report(Report::Attempt(a)) => Some(a.cause),
            _ => None,
        });
        causes.collect::<Vec<_>>()
    };
    assert_eq!(refuse(&mut m, Instant::ZERO, 1_000), ["no"; 20]);
    let later = refuse(&mut m, Instant::from_secs(10), 5);
    assert_eq!(later, ["no (980 more refusals of this machine before this one are not listed)"]);
}

#[test]
fn a_machine_that_comes_again_and_again_draws_on_the_same_allowance() {
    let mut m = machine();
    let key = MachineKey::Certificate("01".into());
    for _ in 0..20 {
        assert!(m.allowance(PEER).unwrap().questions.take(Instant::ZERO));
    }
    m.remove_peer_of(&key);
    assert!(m.add_peer_of(Instant::ZERO, &key));
    assert!(!m.allowance(PEER).unwrap().questions.take(Instant::ZERO));
    for _ in 0..PEERS_OF_MACHINE - 1 {
        assert!(m.add_peer_of(Instant::ZERO, &key));
    }
    assert!(!m.add_peer_of(Instant::ZERO, &key), "so many at a time");
}

#[test]
fn the_table_of_machines_is_bounded_and_keeps_those_that_are_here() {
    let mut m = machine();
    for n in 0..MACHINES as u32 + 100 {
        let key = MachineKey::Source(Source::of(std::net::Ipv4Addr::from_bits(n).into()));
        m.add_peer_of(Instant::ZERO, &key);
        m.remove_peer_of(&key);
    }
    assert!(m.allowances.len() <= MACHINES && m.allowance_order.len() == m.allowances.len());
    assert!(m.allowance(PEER).is_some());
}

#[test]
fn a_peer_has_few_sessions_without_a_user() {
    let mut m = machine();
    for id in 3..100 {
        let mut info = m.sessions.values().next().unwrap().info.clone();
        info.local_session = id;
        m.session_up(Instant::ZERO, info);
    }
    assert_eq!(m.sessions.len(), UNKNOWN_USERS);
}
