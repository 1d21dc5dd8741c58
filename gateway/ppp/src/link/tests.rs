mod net;
mod windows;

use core::net::Ipv4Addr;

use hex_literal::hex;

use self::net::{DNS, LEASED, LOCAL, Net, PASSWORD, Side, check_promises, downs, network, refusals};
use super::*;
use crate::config::AuthMethod;

fn server(methods: &[AuthMethod]) -> ServerConfig {
    ServerConfig { methods: methods.to_vec(), ..ServerConfig::default() }
}

fn client(user: &str, methods: &[AuthMethod]) -> ClientConfig {
    ClientConfig { methods: methods.to_vec(), ..ClientConfig::new(user, PASSWORD) }
}

const ALL: [AuthMethod; 3] = [AuthMethod::MsChapV2, AuthMethod::ChapMd5, AuthMethod::Pap];

#[test]
fn each_method_leads_to_a_network() {
    for method in ALL {
        let mut net = Net::new(1, server(&[method]), client("alice", &ALL));
        net.run_for(5);
        let (s, c) = net.networks();
        let (s, c) = (s.expect("server"), c.expect("client"));
        assert_eq!((s.local, s.peer, c.local, c.peer), (LOCAL, LEASED, LEASED, LOCAL), "{method}");
        assert_eq!((s.mtu, c.mtu, c.dns), (1400, 1400, [Some(DNS), None]));
        assert_eq!((s.ipv4_header, c.ipv4_header), (IPV4_HEADER_ACFC, IPV4_HEADER_ACFC));
        assert_eq!(net.questions.len(), 1);
        assert!(net.server_events.contains(&Event::Authenticated { user: "alice".into(), method: Some(method) }));
    }
}

#[test]
fn a_client_that_begins_at_once_waits_for_no_timer() {
    let mut net = Net::new(2, server(&ALL), client("alice", &ALL));
    let start = net.now;
    while network(&net.server_events).is_none() {
        net.run_until(net.now + Duration::from_millis(1));
    }
    assert!(net.now.since(start) < Duration::from_millis(250), "{:?}", net.now.since(start));
}

#[test]
fn a_domain_in_front_of_the_user_is_handed_on_and_not_hashed() {
    let mut net = Net::new(3, server(&ALL), client("CORP\\alice", &ALL));
    net.run_for(5);
    assert!(net.networks().0.is_some());
    assert_eq!(net.questions[0].user, "CORP\\alice");
}

#[test]
fn the_client_chooses_the_method_by_nak() {
    for wanted in ALL {
        let mut net = Net::new(4, server(&ALL), client("alice", &[wanted]));
        net.run_for(5);
        assert!(net.networks().0.is_some());
        assert_eq!(net.questions[0].method.method(), wanted);
    }
}

#[test]
fn without_a_common_method_both_ends_say_so() {
    let mut net = Net::new(5, server(&[AuthMethod::MsChapV2]), client("alice", &[AuthMethod::Pap]));
    net.run_for(30);
    let refused = refusals(&net.server_events);
    assert_eq!((refused.len(), refused[0].phase), (1, Phase::Lcp));
    assert!(refused[0].cause.contains("asks for PAP; allowed here: MS-CHAPv2"), "{}", refused[0].cause);
    assert_eq!(refusals(&net.client_events).len(), 1);
    check_promises(&net.server_events);
    check_promises(&net.client_events);
    assert!(net.server.is_finished() && net.client.is_finished());
}

#[test]
fn a_wrong_password_or_unknown_user_is_refused_once() {
    for method in ALL {
        for user in ["alice", "mallory"] {
            let mut config = client(user, &[method]);
            config.password = crate::Password::new("wrong");
            let mut net = Net::new(6, server(&[method]), config);
            net.run_for(30);
            let refused = refusals(&net.server_events);
            assert_eq!(refused.len(), 1);
            assert_eq!((refused[0].phase, refused[0].user.as_deref()), (Phase::Authentication, Some(user)));
            assert_eq!((refused[0].cause.as_str(), refused[0].remedy.as_str()), ("wrong password", "type it again"));
            let refused = refusals(&net.client_events);
            assert_eq!((refused.len(), refused[0].phase), (1, Phase::Authentication));
            assert!(refused[0].cause.contains("refused"), "{}", refused[0].cause);
            assert!(net.server.is_finished() && net.client.is_finished());
        }
    }
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let mut net = Net::new(7, server(&[AuthMethod::MsChapV2]), client("alice", &ALL));
    // The controller's answer comes first, from a liar.
    net.thinking_ms = 1_000_000;
    net.run_for(2);
    let mut lie = net::accept();
    lie.authenticator_response = Some(format!("S={}", "0".repeat(40)));
    net.server.handle_answer(net.now, QuestionId(1), Answer::Accept(lie));
    net.run_for(30);
    let refused = refusals(&net.client_events);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].cause.contains("could not prove"), "{}", refused[0].cause);
    assert!(net.networks().1.is_none());
}

#[test]
fn an_mschapv2_acceptance_without_its_proof_is_a_fault_of_ours() {
    let mut net = Net::new(8, server(&[AuthMethod::MsChapV2]), client("alice", &ALL));
    net.thinking_ms = 1_000_000;
    net.run_for(2);
    net.server.handle_answer(net.now, QuestionId(1), Answer::Accept(net::accept()));
    net.run_for(30);
    assert!(refusals(&net.server_events)[0].cause.contains("authenticator response"));
}

#[test]
fn a_network_comes_up_on_a_bad_path() {
    for method in ALL {
        let mut up = 0;
        for seed in 0..60 {
            let mut net = Net::new(seed, server(&[method]), client("alice", &ALL));
            (net.loss, net.duplication, net.jitter_ms) = (15, 15, 300);
            net.run_for(120);
            let (s, c) = net.networks();
            up += usize::from(s.is_some() && c.is_some() && downs(&net.server_events).is_empty());
            check_promises(&net.server_events);
            check_promises(&net.client_events);
            // Whatever became of it ends when the client leaves and the path heals.
            (net.loss, net.duplication, net.jitter_ms) = (0, 0, 0);
            net.client.close(net.now, CloseReason::User);
            net.run_for(400);
            assert!(net.server.is_finished() && net.client.is_finished(), "{method} seed {seed}");
            check_promises(&net.server_events);
            check_promises(&net.client_events);
        }
        assert!(up >= 57, "{method}: {up} of 60");
    }
}

#[test]
fn at_moderate_loss_every_attempt_succeeds() {
    for seed in 0..100 {
        let mut net = Net::new(seed, server(&ALL), client("alice", &ALL));
        (net.loss, net.duplication, net.jitter_ms) = (5, 5, 50);
        net.run_for(60);
        let (s, c) = net.networks();
        assert!(s.is_some() && c.is_some(), "seed {seed}: {:?} {:?}", net.server_events, net.client_events);
    }
}

#[test]
fn either_end_hangs_up_and_the_other_knows_why() {
    for by in [Side::Server, Side::Client] {
        let mut net = Net::new(9, server(&ALL), client("alice", &ALL));
        net.run_for(5);
        match by {
            Side::Server => net.server.close(net.now, CloseReason::Operator),
            Side::Client => net.client.close(net.now, CloseReason::User),
        }
        net.run_for(10);
        let (own, other, text) = match by {
            Side::Server => (&net.server_events, &net.client_events, "ended by an operator"),
            Side::Client => (&net.client_events, &net.server_events, "user request"),
        };
        assert!(matches!(downs(own)[..], [DownReason::Closed(_)]));
        assert_eq!(downs(other), [DownReason::PeerTerminated(Some(text.into()))]);
        assert!(net.server.is_finished() && net.client.is_finished());
        assert_eq!((net.server.poll_timeout(), net.client.poll_timeout()), (None, None));
        assert_eq!(refusals(own).len() + refusals(other).len(), 0);
    }
}

#[test]
fn a_client_that_vanishes_is_found_by_echo_and_its_traffic_counts_as_life() {
    let mut net = Net::new(10, server(&ALL), client("alice", &ALL));
    net.run_for(1000);
    assert_eq!(downs(&net.server_events), [], "echoes are answered");
    net.loss = 100;
    // ESP still sees data: no echo is missed.
    for _ in 0..30 {
        net.run_for(20);
        net.server.note_inbound(net.now);
    }
    assert_eq!(downs(&net.server_events), []);
    net.run_for(200);
    assert_eq!(downs(&net.server_events), [DownReason::EchoTimeout]);
    assert!(net.server.is_finished());
}

#[test]
fn an_idle_link_and_one_that_is_too_old_end() {
    for (idle, session, reason) in
        [(Some(60), None, DownReason::IdleTimeout), (None, Some(100), DownReason::SessionTimeout)]
    {
        let mut net = Net::new(11, server(&[AuthMethod::Pap]), client("alice", &ALL));
        net.thinking_ms = 1_000_000;
        net.run_for(2);
        let mut accept = net::accept();
        accept.idle_timeout = idle.map(Duration::from_secs);
        accept.session_timeout = session.map(Duration::from_secs);
        net.server.handle_answer(net.now, QuestionId(1), Answer::Accept(accept));
        for _ in 0..4 {
            net.run_for(20);
            net.server.note_data(net.now);
        }
        assert_eq!(downs(&net.server_events), []);
        net.run_for(61);
        assert_eq!(downs(&net.server_events), [reason]);
    }
}

#[test]
fn a_controller_that_never_answers_is_the_cause() {
    let mut net = Net::new(12, server(&ALL), client("alice", &ALL));
    net.thinking_ms = 1_000_000;
    net.run_for(100);
    assert!(refusals(&net.server_events)[0].cause.contains("before the controller had answered"));
    // A late answer finds nothing to do.
    net.server.handle_answer(net.now, QuestionId(1), Answer::Accept(net::accept()));
    net.run_for(10);
    check_promises(&net.server_events);
}

#[test]
fn a_silent_client_is_refused_after_max_configure() {
    let mut net = Net::new(13, server(&ALL), client("alice", &ALL));
    net.loss = 100;
    net.run_for(100);
    let refused = refusals(&net.server_events);
    assert_eq!((refused.len(), refused[0].phase), (1, Phase::Lcp));
    assert_eq!(refused[0].cause, "the client does not answer LCP");
    let sent = net.log.iter().filter(|(side, frame)| *side == Side::Server && frame[4] == 1).count();
    assert_eq!(sent, 10);
    check_promises(&net.server_events);
    check_promises(&net.client_events);
}

#[test]
fn a_looped_link_is_recognized() {
    let now = Instant::from_secs(5);
    let mut link = Link::server(server(&ALL), [14; 32], now);
    let mut events = Vec::new();
    let mut at = now;
    for _ in 0..200 {
        while let Some(output) = link.poll_output() {
            match output {
                Output::Frame(frame) => link.handle_frame(at, &frame),
                Output::Event(event) => events.push(event),
                Output::Question(..) => panic!("nobody is there"),
            }
        }
        let Some(next) = link.poll_timeout() else { break };
        at = at.max(next);
        link.handle_timeout(at);
    }
    assert!(refusals(&events)[0].cause.contains("looped back"), "{events:?}");
    check_promises(&events);
}

#[test]
fn when_the_tunnel_below_is_gone_nothing_more_is_said() {
    let mut net = Net::new(15, server(&ALL), client("alice", &ALL));
    net.run_for(5);
    let sent = net.log.len();
    net.server.close(net.now, CloseReason::LowerLayerDown);
    assert!(net.server.is_finished());
    net.server.handle_frame(net.now, &hex!("c021 09 01 0008 00000000"));
    net.run_for(1);
    assert_eq!(net.log.len(), sent);
    assert_eq!(downs(&net.server_events), [DownReason::Closed(CloseReason::LowerLayerDown)]);
}

#[test]
fn a_link_that_is_closed_before_it_began_says_so_once() {
    let mut net = Net::new(16, server(&ALL), client("alice", &ALL));
    net.server.close(net.now, CloseReason::Shutdown);
    net.server.close(net.now, CloseReason::Shutdown);
    net.run_for(10);
    assert_eq!(refusals(&net.server_events).len(), 1);
    assert!(net.server.is_finished());
    check_promises(&net.server_events);
}

#[test]
fn debug_output_holds_no_password() {
    let mut net = Net::new(17, server(&[AuthMethod::Pap]), client("alice", &ALL));
    net.thinking_ms = 1_000_000;
    net.run_for(2);
    let shown = format!("{:?} {:?} {:?}", net.server, net.client, net.questions);
    assert!(!shown.contains(PASSWORD));
    let octets: Vec<String> = PASSWORD.bytes().map(|b| b.to_string()).collect();
    assert!(!shown.contains(&octets.join(", ")));
    assert!(!format!("{:?}", client("alice", &ALL)).contains(PASSWORD));
}

#[test]
fn an_address_of_zero_is_not_a_network() {
    let mut net = Net::new(18, server(&[AuthMethod::Pap]), client("alice", &ALL));
    net.thinking_ms = 1_000_000;
    net.run_for(2);
    let accept = Accept { peer: Ipv4Addr::UNSPECIFIED, ..net::accept() };
    net.server.handle_answer(net.now, QuestionId(1), Answer::Accept(accept));
    net.run_for(20);
    assert!(net.networks().0.is_none());
    assert_eq!(refusals(&net.server_events)[0].phase, Phase::Ipcp);
}

mod hostile {
    use proptest::collection::vec as octets;
    use proptest::prelude::{any, proptest};

    use super::*;

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]
        #[test]
        fn no_frame_makes_a_link_panic_or_break_its_promises(
            frames in octets((0usize..7, 0u8..14, 0u8..4, octets(any::<u8>(), 0..40)), 0..60),
            when in 0u64..4000,
        ) {
            let mut net = Net::new(19, server(&ALL), client("alice", &ALL));
            net.run_until(net.now + Duration::from_millis(when));
            let protocols = [Protocol::LCP, Protocol::PAP, Protocol::CHAP, Protocol::IPCP, Protocol::CCP, Protocol::IPV4, Protocol(0x4001)];
            for (protocol, code, id, data) in frames {
                let packet = ControlPacket { code, identifier: id, data: &data }.emit();
                let frame = control_frame(protocols[protocol], &packet);
                net.server.handle_frame(net.now, &frame);
                net.client.handle_frame(net.now, &frame);
                net.server.handle_frame(net.now, &data);
            }
            net.run_for(300);
            net.server.close(net.now, CloseReason::Shutdown);
            net.client.close(net.now, CloseReason::Shutdown);
            net.run_for(300);
            check_promises(&net.server_events);
            check_promises(&net.client_events);
            assert!(net.server.is_finished() && net.client.is_finished());
        }
    }
}
