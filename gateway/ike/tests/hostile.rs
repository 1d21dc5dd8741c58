//! Floods, forgeries and nonsense.

mod sim;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use sallyport_base::Instant;
use sallyport_crypto::Rng;
use sallyport_crypto::dh::DhGroup;
use sallyport_crypto::sign::SignatureMethod;
use sallyport_ike::*;
use sim::*;

/// The first message of a client with this configuration.
fn first_message(config: Config) -> Vec<u8> {
    let mut ep = Endpoint::new(config, [42; 32], Instant::ZERO);
    ep.connect(
        Instant::ZERO,
        Connect {
            local: addr("10.0.0.1:500"),
            remote: addr("10.0.0.2:500"),
            auth: ConnectAuth::PreSharedKey,
            identity: None,
            client_port: 1701,
            phase1: Vec::new(),
            esp: Vec::new(),
            pfs: None,
        },
    );
    match ep.poll_output() {
        Some(Output::Transmit { bytes, .. }) => bytes,
        other => panic!("{other:?}"),
    }
}

fn spoofed(rng: &mut Rng, message: &[u8]) -> (SocketAddr, Vec<u8>) {
    let from = SocketAddr::new(Ipv4Addr::from(rng.u32()).into(), rng.u16().max(1));
    let mut bytes = message.to_vec();
    rng.fill(&mut bytes[..8]);
    (from, bytes)
}

#[test]
fn a_flood_of_first_messages_leaves_bounded_tables_and_clients_get_through() {
    let mut net = pair(true);
    let limits = net.nodes[GATEWAY].ep.config().limits;
    let good = first_message(client_config());
    let bad = first_message(Config { groups: vec![DhGroup::Modp1024], ..client_config() });
    let mut rng = Rng::from_seed([5; 32]);
    let to = addr("192.0.2.1:500");
    // 100,000 in two seconds, half of them with proposals that are refused; the client begins in the middle.
    for n in 0..1000 {
        if n == 500 {
            net.connect(CLIENT, "192.0.2.1", ConnectAuth::Certificate(CredentialId(9)));
        }
        for k in 0..100 {
            let (from, bytes) = spoofed(&mut rng, if k % 2 == 0 { &good } else { &bad });
            net.inject(from, to, bytes);
        }
        net.run(Duration::from_millis(2));
        assert!(net.nodes[GATEWAY].ep.gauges().embryonic <= limits.embryonic);
        net.nodes[GATEWAY].received.clear();
    }
    let gateway = &net.nodes[GATEWAY];
    assert!(gateway.ep.stats().main_mode_1 >= 50_000);
    assert_eq!((gateway.peer_ups().len(), gateway.children.len()), (1, 1), "the client is in before the flood ends");
    net.check_children(CLIENT, GATEWAY);
    let gateway = &net.nodes[GATEWAY];
    assert!(gateway.refusals().len() <= 80, "{}", gateway.refusals().len());
    assert!(gateway.ep.stats().refusals_suppressed > 40_000);
    assert_eq!(gateway.ep.stats().half_open_evicted, 0);
    net.secs(60);
    let gateway = &net.nodes[GATEWAY];
    assert_eq!(gateway.ep.gauges().embryonic, 0, "what nobody follows up is forgotten");
    assert!(gateway.refusals().len() <= 64 + 4 * 65);
    let told: u64 = gateway.refusals().iter().map(|r| r.suppressed + 1).sum();
    assert!(told > 50_000, "what was left out is told as a number: {told}");
}

#[test]
fn one_source_cannot_take_all_handshakes() {
    let mut config = gateway_config();
    config.limits.half_open_per_source = 8;
    config.limits.embryonic_per_source = 32;
    let mut net = pair_with(false, config, client_config());
    net.nodes[GATEWAY].job_delay = Duration::from_secs(20);
    // A hostile machine that goes as far as message 3, again and again, and never answers.
    for n in 0..100u8 {
        let mut attacker = Endpoint::new(client_config(), [n; 32], net.now);
        let local = SocketAddr::new("203.0.113.66".parse::<IpAddr>().unwrap(), 500 + u16::from(n));
        attacker.connect(
            net.now,
            Connect {
                local,
                remote: addr("192.0.2.1:500"),
                auth: ConnectAuth::PreSharedKey,
                identity: None,
                client_port: 1701,
                phase1: Vec::new(),
                esp: Vec::new(),
                pfs: None,
            },
        );
        let mut rng = Rng::from_seed([n; 32]);
        for _ in 0..6 {
            while let Some(o) = attacker.poll_output() {
                match o {
                    Output::Transmit { local, remote, bytes } => {
                        let now = net.now;
                        let gateway = &mut net.nodes[GATEWAY].ep;
                        gateway.handle_datagram(now, remote, local, &bytes);
                        let mut back = Vec::new();
                        while let Some(o) = gateway.poll_output() {
                            if let Output::Transmit { bytes, .. } = o {
                                back.push(bytes);
                            }
                        }
                        for b in back {
                            attacker.handle_datagram(now, local, remote, &b);
                        }
                    }
                    Output::Job { id, job } => {
                        if let Ok(a) = job.compute(&mut rng) {
                            attacker.handle_answer(net.now, id, a);
                        }
                    }
                    Output::Event(_) | Output::Keepalive { .. } => {}
                }
            }
        }
        let g = net.nodes[GATEWAY].ep.gauges();
        assert!(g.half_open <= 8 && g.embryonic <= 32, "{g:?}");
    }
    assert_eq!(net.nodes[GATEWAY].ep.gauges().half_open, 8);
    net.nodes[GATEWAY].job_delay = Duration::ZERO;
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(5);
    net.check_children(CLIENT, GATEWAY);
}

#[test]
fn an_undecryptable_message_5_does_not_end_the_exchange() {
    let mut net = pair(false);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.run(Duration::from_millis(90)); // message 4 has reached the client, message 5 is on its way
    let mut forged = net.nodes[CLIENT].received.last().unwrap()[..28].to_vec();
    forged[16] = 5;
    forged[19] = 1;
    forged[27] = 28 + 64;
    forged[26] = 0;
    forged.extend([0x5a; 64]);
    net.inject(addr("198.51.100.7:500"), addr("192.0.2.1:500"), forged);
    net.secs(5);
    assert!(net.nodes[GATEWAY].ep.stats().unauthentic >= 1);
    net.check_children(CLIENT, GATEWAY);
    assert!(net.nodes[GATEWAY].refusals().is_empty());
}

#[test]
fn nothing_that_is_replayed_changes_anything() {
    let mut net = pair(true);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::Certificate(CredentialId(3)));
    net.secs(100); // DPD has gone both ways
    let from = addr("203.0.113.200:4500");
    let recorded: Vec<Vec<u8>> = net.nodes[GATEWAY].received.clone();
    let before = (net.nodes[GATEWAY].events.len(), net.nodes[GATEWAY].ep.gauges().peers);
    for wait in [0, 100] {
        net.secs(wait);
        for bytes in &recorded {
            net.inject(from, addr("192.0.2.1:4500"), bytes.clone());
            net.run(Duration::from_millis(100));
        }
    }
    let gateway = &net.nodes[GATEWAY];
    let news: Vec<_> = gateway.events[before.0..]
        .iter()
        // A replayed message 1 of quick mode may begin one, which comes to nothing.
        .filter(|e| !matches!(e, Event::ChildPrepared(_) | Event::Refused(_)))
        .filter(|e| !matches!(e, Event::ChildDown { reason: DownReason::Failed, .. }))
        .collect();
    assert!(news.is_empty(), "{news:?}");
    assert_eq!(gateway.ep.gauges().peers, before.1);
    assert_eq!(gateway.children.len(), 1);
    net.check_children(CLIENT, GATEWAY);
}

#[test]
fn damaged_copies_of_every_message_do_no_harm_to_the_gateway() {
    for seed in 0..20u8 {
        let mut net = pair(seed % 2 == 0);
        let mut rng = Rng::from_seed([seed; 32]);
        let auth = if seed % 3 == 0 {
            ConnectAuth::PreSharedKey
        } else {
            ConnectAuth::Certificate(CredentialId(u32::from(SignatureMethod::EcdsaP256.number())))
        };
        net.connect(CLIENT, "192.0.2.1", auth);
        for _ in 0..400 {
            net.run(Duration::from_millis(5));
            let seen: Vec<Vec<u8>> = net.nodes[GATEWAY].received.iter().rev().take(3).cloned().collect();
            for original in seen {
                let mut bytes = original;
                for _ in 0..=rng.u16() % 4 {
                    let at = usize::from(rng.u16()) % bytes.len().max(1);
                    match rng.u16() % 4 {
                        0 => bytes.truncate(at),
                        1 => bytes.extend_from_slice(&rng.bytes::<4>()),
                        _ if !bytes.is_empty() => bytes[at] = rng.bytes::<1>()[0],
                        _ => {}
                    }
                }
                net.inject(addr("198.51.100.7:4500"), addr("192.0.2.1:4500"), bytes);
            }
        }
        net.secs(120);
        let g = net.nodes[GATEWAY].ep.gauges();
        assert!(g.embryonic == 0 && g.half_open == 0 && g.peers <= 1 && g.isakmp_sas <= 2, "{g:?}");
    }
}

#[test]
fn nonsense_is_counted_and_dropped() {
    let mut ep = Endpoint::new(gateway_config(), [1; 32], Instant::ZERO);
    let mut rng = Rng::from_seed([8; 32]);
    let (local, remote) = (addr("192.0.2.1:500"), addr("203.0.113.1:500"));
    let mut now = Instant::from_secs(1);
    for n in 0..20_000u32 {
        let mut bytes = vec![0; usize::from(rng.u16() % 600)];
        rng.fill(&mut bytes);
        if bytes.len() >= 28 && n % 3 > 0 {
            // Plausible headers get deeper.
            bytes[17] = 0x10;
            bytes[18] = [2, 4, 5, 6, 32, 33, 243][usize::from(rng.u16()) % 7];
            bytes[16] = [1, 13, 132, 5, 8, 11, 12][usize::from(rng.u16()) % 7];
            bytes[19] &= 1;
            let len = u32::try_from(bytes.len()).unwrap();
            bytes[24..28].copy_from_slice(&len.to_be_bytes());
            if n % 2 == 0 {
                bytes[8..16].fill(0);
            }
        }
        ep.handle_datagram(now, local, remote, &bytes);
        now = now + Duration::from_millis(1);
        ep.handle_timeout(now);
    }
    let mut events = 0;
    while let Some(o) = ep.poll_output() {
        events += usize::from(matches!(o, Output::Event(_)));
    }
    assert!(events < 200, "{events}");
    let s = ep.stats();
    assert!(s.malformed > 1000 && s.unknown_cookies > 100 && s.authip > 100 && s.not_spoken > 100, "{s:?}");
    ep.handle_datagram(now, local, remote, &[0xff]);
    assert_eq!(ep.stats().keepalives, 1);
}

#[test]
fn ikev2_and_aggressive_mode_are_explained() {
    let mut ep = Endpoint::new(gateway_config(), [1; 32], Instant::ZERO);
    let (local, remote) = (addr("192.0.2.1:500"), addr("203.0.113.1:500"));
    let now = Instant::from_secs(1);
    let mut v2 = vec![7; 8];
    v2.extend([0; 8]);
    v2.extend([40, 0x20, 34, 8, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 4]);
    let mut aggressive = vec![8; 8];
    aggressive.extend([0; 8]);
    aggressive.extend([1, 0x10, 4, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 4]);
    for (bytes, notify, word) in
        [(v2, "INVALID_MAJOR_VERSION", "IKEv2"), (aggressive, "UNSUPPORTED_EXCHANGE_TYPE", "aggressive mode")]
    {
        for _ in 0..3 {
            ep.handle_datagram(now, local, remote, &bytes);
        }
        let mut refusals = Vec::new();
        let mut replies = Vec::new();
        while let Some(o) = ep.poll_output() {
            match o {
                Output::Transmit { bytes, .. } => replies.push(bytes),
                Output::Event(Event::Refused(r)) => refusals.push(r),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((refusals.len(), replies.len()), (1, 3));
        assert!(refusals[0].cause.contains(word));
        assert!(Message::parse(&replies[0]).unwrap().to_string().contains(notify));
        assert_eq!(replies[0], replies[2]);
    }
}

#[test]
fn a_message_of_authip_gets_no_answer() {
    let mut ep = Endpoint::new(gateway_config(), [1; 32], Instant::ZERO);
    let mut bytes = vec![7; 8];
    bytes.extend([0; 8]);
    bytes.extend([1, 0x10, 243, 0, 0, 0, 0, 0, 0, 0, 0, 28]);
    ep.handle_datagram(Instant::ZERO, addr("192.0.2.1:500"), addr("203.0.113.1:500"), &bytes);
    assert!(ep.poll_output().is_none());
    assert_eq!(ep.stats().authip, 1);
}
