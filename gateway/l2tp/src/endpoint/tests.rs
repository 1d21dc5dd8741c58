mod net;
mod peers;

use hex_literal::hex;
use proptest::collection::vec as prop_vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use self::net::{Net, PEER, Side, count, is_refused, is_session_down, is_session_up, is_tunnel_down, name};
use super::*;
use crate::config::{Limits, TunnelSecret};
use crate::output::{Event, Phase};
use crate::result::cdn;

fn net(seed: u8) -> Net {
    Net::new(seed, Config::client("laptop"), Config::default())
}

fn with_secret(config: Config, secret: &str) -> Config {
    Config { secret: Some(TunnelSecret::new(secret)), ..config }
}

fn refusals(events: &[Event]) -> Vec<(Phase, String)> {
    events
        .iter()
        .filter_map(|e| match e {
            Event::Refused(r) => Some((r.phase, r.cause.clone())),
            _ => None,
        })
        .collect()
}

#[test]
fn a_tunnel_and_a_session_come_up_and_both_ends_agree_on_the_ids() {
    let mut net = net(1);
    net.connect();
    net.run_for(1);
    let (lac, lns) = net.session();
    assert_eq!((lac.local_tunnel, lac.local_session), (lns.peer_tunnel, lns.peer_session));
    assert_eq!((lac.peer_tunnel, lac.peer_session), (lns.local_tunnel, lns.local_session));
    assert_eq!(lns.host_name, "laptop");
    assert!(lac.initiator && !lns.initiator && !lns.sequencing);
    assert_eq!(net.sent(Side::Lac), ["SCCRQ", "SCCCN", "ICRQ", "ICCN"]);
    assert_eq!(net.sent(Side::Lns), ["SCCRP", "ZLB", "ICRP", "ZLB"]);
}

#[test]
fn the_reply_goes_to_the_port_that_the_client_chose() {
    let mut net = net(2);
    net.lac_port = 51_234;
    net.connect();
    net.run_for(1);
    assert_eq!(net.session().1.peer_port, 51_234);
}

#[test]
fn a_tunnel_comes_up_although_any_one_message_is_lost() {
    for nth in 1..=8 {
        let mut net = net(3);
        net.drop_nth = vec![nth];
        net.connect();
        net.run_for(20);
        net.session();
        assert_eq!(count(&net.lns_events, is_session_up), 1, "message {nth} lost");
        assert_eq!(count(&net.lac_events, is_session_up), 1, "message {nth} lost");
    }
}

#[test]
fn the_session_is_one_on_a_network_that_loses_repeats_and_reorders() {
    for seed in 0..60 {
        // HELLO at the LNS, since a LAC that gave up can no longer tell it so.
        let lns = Config { hello: Some(core::time::Duration::from_secs(60)), ..Config::default() };
        let mut net = Net::new(seed, Config::client("laptop"), lns);
        (net.loss, net.duplication, net.jitter_ms) = (25, 25, 900);
        net.connect();
        net.run_for(45);
        let up = (count(&net.lac_events, is_session_up), count(&net.lns_events, is_session_up));
        assert!(up == (1, 1) || up == (0, 0) || up == (0, 1) || up == (1, 0), "seed {seed}: {up:?}");
        // Whatever came up goes down once the network heals and the client leaves.
        (net.loss, net.duplication, net.jitter_ms) = (0, 0, 0);
        net.lac.shutdown(net.now);
        net.run_for(200);
        for (endpoint, events) in [(&net.lac, &net.lac_events), (&net.lns, &net.lns_events)] {
            assert_eq!((endpoint.tunnel_count(), endpoint.session_count()), (0, 0), "seed {seed}");
            assert_eq!(count(events, is_session_up), count(events, is_session_down), "seed {seed}");
            let tunnels_up = count(events, |e| matches!(e, Event::TunnelUp(_)));
            assert_eq!(tunnels_up, count(events, is_tunnel_down), "seed {seed}");
        }
    }
}

#[test]
fn most_attempts_succeed_at_a_tenth_lost() {
    let mut up = 0;
    for seed in 0..100 {
        let mut net = net(seed);
        (net.loss, net.duplication, net.jitter_ms) = (10, 10, 100);
        net.connect();
        net.run_for(60);
        up += count(&net.lns_events, is_session_up);
    }
    assert_eq!(up, 100);
}

#[test]
fn both_ends_prove_that_they_know_the_secret() {
    for hide_avps in [false, true] {
        let config = |c: Config| Config { hide_avps, ..with_secret(c, "s3cret *") };
        let mut net = Net::new(4, config(Config::client("laptop")), config(Config::default()));
        net.connect();
        net.run_for(1);
        net.session();
    }
}

#[test]
fn a_wrong_or_missing_secret_is_refused_once_with_its_cause() {
    let client = || Config::client("laptop");
    let cases = [
        (with_secret(client(), "a"), with_secret(Config::default(), "b"), "secret is another one"),
        (client(), with_secret(Config::default(), "b"), "no L2TP secret"),
        (with_secret(client(), "a"), Config::default(), "asks for L2TP tunnel authentication"),
    ];
    for (lac, lns, cause) in cases {
        let mut net = Net::new(5, lac, lns);
        net.connect();
        net.run_for(120);
        let refused = (refusals(&net.lac_events), refusals(&net.lns_events));
        assert_eq!((refused.0.len(), refused.1.len()), (1, 1), "{cause}");
        // Whichever end found out says so; the other says that the peer closed.
        assert!(
            refused.0.iter().chain(&refused.1).any(|(p, c)| *p == Phase::Tunnel && c.contains(cause)),
            "{refused:?}"
        );
        assert_eq!(net.lns.tunnel_count() + net.lac.tunnel_count(), 0);
    }
}

#[test]
fn a_call_is_ended_by_either_side_with_a_reason() {
    for by_lac in [true, false] {
        let mut net = net(6);
        net.connect();
        net.run_for(1);
        let (lac, lns) = net.session();
        let code = ResultCode::new(cdn::ADMINISTRATIVE, "user request");
        match by_lac {
            true => net.lac.disconnect_session(net.now, lac.local_session, code),
            false => net.lns.disconnect_session(net.now, lns.local_session, code),
        }
        net.run_for(1);
        for events in [&net.lac_events, &net.lns_events] {
            let down: Vec<String> = events
                .iter()
                .filter_map(|e| match e {
                    Event::SessionDown(down) => Some(down.reason.to_string()),
                    _ => None,
                })
                .collect();
            assert_eq!(down.len(), 1);
            assert!(down[0].contains("user request"), "{down:?}");
        }
        // The empty tunnel follows, and lingers for a retransmission cycle.
        net.run_for(61);
        assert_eq!(count(&net.lns_events, is_tunnel_down), 1);
        net.run_for(60);
        assert_eq!((net.lns.tunnel_count(), net.lac.tunnel_count()), (0, 0));
        assert_eq!(count(&net.lns_events, is_refused) + count(&net.lac_events, is_refused), 0);
    }
}

#[test]
fn a_closed_tunnel_still_acknowledges_late_duplicates() {
    let mut net = net(7);
    let tunnel = net.connect();
    net.run_for(1);
    net.lac.disconnect_tunnel(net.now, tunnel, ResultCode::new(stop_ccn::CLEAR, "bye"));
    net.run_for(1);
    let stop = net.log.iter().rev().find(|(_, bytes)| name(bytes) == "STOPCCN").expect("StopCCN").1.clone();
    let before = net.sent(Side::Lns).len();
    net.lns.handle_control(net.now, PEER, 1701, &stop);
    net.run_for(1);
    assert_eq!(net.sent(Side::Lns).len(), before + 1, "acknowledged again");
    net.run_for(40);
    assert_eq!(net.lns.tunnel_count(), 0);
    net.lns.handle_control(net.now, PEER, 1701, &stop);
    assert_eq!(net.lns.stats().unknown_tunnel, 1);
}

#[test]
fn a_peer_that_vanishes_is_noticed_by_hello_where_hello_is_on() {
    let hello = |c: Config| Config { hello: Some(core::time::Duration::from_secs(60)), ..c };
    let mut net = Net::new(8, Config { hello: None, ..Config::client("laptop") }, hello(Config::default()));
    net.connect();
    net.run_for(300);
    assert_eq!(count(&net.lns_events, is_session_down), 0, "answered");
    assert!(net.sent(Side::Lns).iter().filter(|m| *m == "HELLO").count() >= 4);
    net.loss = 100;
    net.run_for(60 + 31 + 1);
    assert_eq!(count(&net.lns_events, is_session_down), 1);
    assert_eq!(net.lns.tunnel_count(), 0);
}

#[test]
fn without_hello_a_silent_peer_keeps_its_session() {
    let mut net = Net::new(9, Config { hello: None, ..Config::client("laptop") }, Config::default());
    net.connect();
    net.run_for(1);
    let sent = net.log.len();
    net.loss = 100;
    net.run_for(100_000);
    assert_eq!(net.log.len(), sent);
    assert_eq!(count(&net.lns_events, is_session_down), 0);
}

#[test]
fn when_the_ipsec_peer_is_gone_all_is_dropped_at_once() {
    let mut net = net(10);
    net.connect();
    net.run_for(1);
    net.lns.peer_gone(net.now, PEER);
    assert_eq!((net.lns.tunnel_count(), net.lns.session_count()), (0, 0));
    assert_eq!(net.lns.poll_timeout(), None);
    let sent = net.log.len();
    net.run_for(1);
    assert_eq!(net.log.len(), sent, "not a word");
    assert_eq!(count(&net.lns_events, is_session_down), 1);
    assert_eq!(count(&net.lns_events, is_tunnel_down), 1);
}

#[test]
fn a_client_that_vanishes_during_set_up_is_refused_once() {
    let mut net = net(11);
    net.drop_nth = (2..100).collect();
    net.connect();
    net.run_for(200);
    assert_eq!(refusals(&net.lns_events).len(), 1);
    assert_eq!(refusals(&net.lac_events).len(), 1);
    assert_eq!((net.lns.tunnel_count(), net.lac.tunnel_count()), (0, 0));
    assert_eq!((net.lns.poll_timeout(), net.lac.poll_timeout()), (None, None));
}

#[test]
fn shutdown_tells_all_peers_and_takes_no_more() {
    let mut net = net(12);
    net.connect();
    net.run_for(1);
    net.lns.shutdown(net.now);
    net.run_for(1);
    assert_eq!(count(&net.lac_events, is_session_down), 1);
    net.connect();
    net.run_for(120);
    assert_eq!(refusals(&net.lns_events).len(), 1, "one attempt, however often it was sent");
    assert_eq!(net.lns.tunnel_count(), 0);
}

#[test]
fn many_sessions_share_a_tunnel_up_to_the_limit() {
    let limits = |n| Limits { sessions_per_tunnel: n, ..Limits::default() };
    let lac = Config { limits: limits(100), ..Config::client("laptop") };
    let mut net = Net::new(13, lac, Config { limits: limits(10), ..Config::default() });
    let tunnel = net.connect();
    net.run_for(1);
    for _ in 0..30 {
        net.lac.open_session(net.now, tunnel).expect("a session");
    }
    net.run_for(10);
    assert_eq!(count(&net.lns_events, is_session_up), 10);
    assert_eq!(count(&net.lac_events, is_session_up), 10);
    assert_eq!(refusals(&net.lns_events).len(), 21);
    assert_eq!(refusals(&net.lac_events).len(), 21);
    assert_eq!((net.lns.session_count(), net.lac.session_count()), (10, 10));
}

#[test]
fn thousands_of_tunnels_stay_within_the_limit_and_each_has_its_own_ids() {
    let limits = Limits { tunnels: 3000, ..Limits::default() };
    let mut lns = Endpoint::new(Config { limits, ..Config::default() }, [1; 32], Instant::ZERO);
    for i in 0..4000u64 {
        lns.handle_control(Instant::ZERO, PeerId(i), 1701, &sccrq(1, &[]));
    }
    assert_eq!(lns.tunnel_count(), 3000);
    let mut refused = 0;
    while let Some(output) = lns.poll_output() {
        refused += usize::from(matches!(output, Output::Event(Event::Refused(_))));
    }
    assert_eq!(refused, 1000);
    // Nobody goes on: all are forgotten.
    let mut now = Instant::ZERO;
    while let Some(at) = lns.poll_timeout() {
        now = now.max(at);
        lns.handle_timeout(now);
        while lns.poll_output().is_some() {}
    }
    assert_eq!(lns.tunnel_count(), 0);
}

#[test]
fn ids_are_found_until_the_last() {
    let mut rng = Rng::from_seed([3; 32]);
    let mut taken = std::collections::BTreeSet::new();
    for _ in 0..65_535 {
        let id = fresh_id(&mut rng, |id| taken.contains(&id));
        assert!(id != 0 && taken.insert(id));
    }
    assert_eq!(fresh_id(&mut rng, |id| taken.contains(&id)), 0, "none is left");
}

/// An SCCRQ with this Assigned Tunnel ID and these AVPs after it.
fn sccrq(tunnel: u16, more: &[u8]) -> Vec<u8> {
    let mut body =
        hex!("8008 0000 0000 0001  8008 0000 0002 0100  800a 0000 0003 00000003  8008 0000 0009 0000").to_vec();
    let at = body.len() - 2;
    body[at..].copy_from_slice(&tunnel.to_be_bytes());
    body.extend_from_slice(more);
    let mut bytes = ControlHeader { tunnel_id: 0, session_id: 0, ns: 0, nr: 0 }.emit(body.len()).to_vec();
    bytes.extend_from_slice(&body);
    bytes
}

proptest! {
    #[test]
    fn no_datagram_makes_it_panic_or_grow(datagrams in prop_vec((prop_vec(any::<u8>(), 0..60), 0u16..20, 0u16..4, 0u16..4), 0..40)) {
        let mut net = net(20);
        net.connect();
        net.run_for(1);
        let (_, lns) = net.session();
        for (body, kind, ns, nr) in datagrams {
            let mut avps = hex!("8008 0000 0000 0000").to_vec();
            avps[6..8].copy_from_slice(&kind.to_be_bytes());
            avps.extend_from_slice(&body);
            let header = ControlHeader { tunnel_id: lns.local_tunnel, session_id: lns.local_session, ns: 4 + ns, nr: 2 + nr };
            let mut bytes = header.emit(avps.len()).to_vec();
            bytes.extend_from_slice(&avps);
            net.lns.handle_control(net.now, PEER, 1701, &bytes);
            net.lns.handle_control(net.now, PEER, 1701, &body);
        }
        prop_assert!(net.lns.tunnel_count() <= 4);
        net.lns.peer_gone(net.now, PEER);
        prop_assert_eq!((net.lns.tunnel_count(), net.lns.session_count()), (0, 0));
        while let Some(output) = net.lns.poll_output() {
            if let Output::Event(event) = output {
                net.lns_events.push(event);
            }
        }
        prop_assert_eq!(count(&net.lns_events, is_session_up), count(&net.lns_events, is_session_down));
        prop_assert_eq!(count(&net.lns_events, |e| matches!(e, Event::TunnelUp(_))), count(&net.lns_events, is_tunnel_down));
    }
}
