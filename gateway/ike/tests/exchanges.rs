//! Two peers on a simulated network: our initiator against our responder.

mod sim;

use std::time::Duration;

use sallyport_crypto::dh::DhGroup;
use sallyport_crypto::sign::SignatureMethod;
use sallyport_crypto::suite::EspSuite;
use sallyport_ike::*;
use sim::*;

fn certificate(method: SignatureMethod) -> ConnectAuth {
    ConnectAuth::Certificate(CredentialId(u32::from(method.number())))
}

fn methods() -> Vec<ConnectAuth> {
    use SignatureMethod::*;
    vec![ConnectAuth::PreSharedKey, certificate(Rsa), certificate(EcdsaP256), certificate(EcdsaP384)]
}

#[test]
fn a_client_connects_with_every_method_with_and_without_nat() {
    for nat in [false, true] {
        for auth in methods() {
            let mut net = pair(nat);
            let id = net.connect(CLIENT, "192.0.2.1", auth.clone());
            net.secs(5);
            net.check_children(CLIENT, GATEWAY);
            let gateway = &net.nodes[GATEWAY];
            let up = gateway.peer_ups();
            assert_eq!((up.len(), gateway.children.len()), (1, 1), "{auth:?} nat {nat}");
            assert_eq!((up[0].behind_nat, up[0].role), (nat, Role::Responder));
            assert_eq!(net.nodes[CLIENT].peer_ups()[0].peer, id);
            let child = gateway.children.values().next().unwrap();
            assert_eq!((child.udp_encap, child.client_port, child.gateway_port), (nat, 1701, 1701));
            assert_eq!(child.local.port(), if nat { 4500 } else { 500 });
            if auth != ConnectAuth::PreSharedKey {
                assert_eq!(up[0].name, "machine client.example");
                assert_eq!(up[0].token, 7);
            }
            assert!(gateway.refusals().is_empty() && net.nodes[CLIENT].refusals().is_empty());
            assert_eq!(gateway.ep.gauges().half_open, 0);
        }
    }
}

#[test]
fn every_group_and_pfs_work() {
    let mut config = gateway_config();
    config.groups = DhGroup::ALL.to_vec();
    for group in DhGroup::ALL {
        let mut client = client_config();
        client.groups = vec![group];
        let mut net = pair_with(true, config.clone(), client);
        let connect = Connect {
            local: addr("192.168.1.2:500"),
            remote: addr("192.0.2.1:500"),
            auth: ConnectAuth::PreSharedKey,
            identity: None,
            client_port: 0,
            phase1: Vec::new(),
            esp: vec![EspSuite::AES256_CBC_SHA1],
            pfs: Some(group),
        };
        net.connect_with(CLIENT, connect);
        net.secs(5);
        net.check_children(CLIENT, GATEWAY);
        assert_eq!(net.nodes[GATEWAY].children.values().next().unwrap().client_port, 0);
    }
}

#[test]
fn every_suite_hash_and_cipher_works() {
    use sallyport_crypto::cbc::CbcAlg;
    use sallyport_crypto::hash::HashAlg;
    let mut config = gateway_config();
    config.ciphers = vec![CbcAlg::TripleDes, CbcAlg::Aes128, CbcAlg::Aes192, CbcAlg::Aes256];
    config.hashes = vec![HashAlg::Md5, HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512];
    config.esp_suites = EspSuite::all().collect();
    for cipher in config.ciphers.clone() {
        for hash in config.hashes.clone() {
            let mut net = pair_with(false, config.clone(), client_config());
            let method = AuthMethod::PreSharedKey;
            net.connect_with(
                CLIENT,
                Connect {
                    local: addr("198.51.100.7:500"),
                    remote: addr("192.0.2.1:500"),
                    auth: ConnectAuth::PreSharedKey,
                    identity: Some(Identification::fqdn("laptop")),
                    client_port: 40_000,
                    phase1: vec![Phase1Transform { cipher, hash, group: DhGroup::Ecp256, method }],
                    esp: EspSuite::all().skip(hash.output_len() % 5).collect(),
                    pfs: None,
                },
            );
            net.secs(5);
            net.check_children(CLIENT, GATEWAY);
        }
    }
    for suite in EspSuite::all() {
        let mut net = pair_with(true, config.clone(), config.clone());
        net.connect_with(
            CLIENT,
            Connect {
                local: addr("192.168.1.2:500"),
                remote: addr("192.0.2.1:500"),
                auth: ConnectAuth::PreSharedKey,
                identity: None,
                client_port: 1701,
                phase1: Vec::new(),
                esp: vec![suite],
                pfs: None,
            },
        );
        net.secs(5);
        net.check_children(CLIENT, GATEWAY);
        assert_eq!(net.nodes[GATEWAY].children.values().next().unwrap().suite, suite);
    }
}

#[test]
fn connections_come_up_on_a_bad_network() {
    for seed in 0..60 {
        let mut net = pair(seed % 2 == 0);
        net.rng = sallyport_crypto::Rng::from_seed([seed; 32]);
        (net.loss, net.duplication, net.reordering) = (20, 20, 20);
        for n in &mut net.nodes {
            n.job_delay = Duration::from_millis(30);
        }
        let auth = methods()[usize::from(seed) % 4].clone();
        net.connect(CLIENT, "192.0.2.1", auth);
        net.secs(60);
        let (gateway, client) = (&net.nodes[GATEWAY], &net.nodes[CLIENT]);
        // Each message is sent five times: all five are lost now and then, and then it is said.
        if client.refusals().is_empty() && gateway.refusals().is_empty() {
            net.check_children(CLIENT, GATEWAY);
            assert_eq!(gateway.peer_ups().len(), 1, "seed {seed}");
        } else {
            assert!(client.refusals().len() <= 1 && gateway.refusals().len() <= 1, "{:?}", gateway.refusals());
        }
    }
}

#[test]
fn any_single_lost_packet_is_survived() {
    for lost in 0..9 {
        let mut net = pair(true);
        net.drop = vec![lost];
        net.connect(CLIENT, "192.0.2.1", certificate(SignatureMethod::EcdsaP256));
        net.secs(8);
        net.check_children(CLIENT, GATEWAY);
        assert_eq!(net.nodes[GATEWAY].children.len(), 1, "packet {lost}");
    }
}

#[test]
fn a_wrong_pre_shared_key_is_refused_once_and_named() {
    let mut net = pair(true);
    net.nodes[CLIENT].psk = Some(b"Secret".to_vec());
    let id = net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(60);
    let gateway = net.nodes[GATEWAY].refusals();
    assert_eq!(gateway.len(), 1);
    assert_eq!((gateway[0].phase, gateway[0].kind), (Phase::MainMode, RefusalKind::WrongPreSharedKey));
    assert!(gateway[0].cause.contains("pre-shared key"));
    let client = net.nodes[CLIENT].refusals();
    assert_eq!(client.len(), 1);
    assert_eq!(client[0].peer, Some(id));
    assert!(client[0].cause.contains("pre-shared key"), "{}", client[0].cause);
    assert!(net.nodes[CLIENT].peer_ups().is_empty());
    for n in &net.nodes {
        assert_eq!(n.ep.gauges(), Gauges::default(), "{} forgot something", n.name);
    }
}

#[test]
fn a_gateway_without_key_says_so() {
    let mut net = pair(false);
    net.nodes[GATEWAY].psk = None;
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(60);
    let refusals = net.nodes[GATEWAY].refusals();
    assert_eq!((refusals.len(), refusals[0].kind), (1, RefusalKind::NoPreSharedKey));
}

#[test]
fn a_refused_certificate_is_refused_with_the_verifiers_words() {
    let mut net = pair(true);
    net.nodes[GATEWAY].refuse_certificates = true;
    net.connect(CLIENT, "192.0.2.1", certificate(SignatureMethod::Rsa));
    net.secs(60);
    let refusals = net.nodes[GATEWAY].refusals();
    assert_eq!((refusals.len(), refusals[0].kind), (1, RefusalKind::Certificate));
    assert_eq!(refusals[0].cause, "the certificate is of a strange authority");
    assert_eq!(refusals[0].identity.as_deref(), Some("client.example"));
    let client = net.nodes[CLIENT].refusals();
    assert_eq!(client.len(), 1);
    assert!(client[0].cause.contains("AUTHENTICATION_FAILED"), "{}", client[0].cause);
}

#[test]
fn a_client_that_refuses_the_gateway_leaves_one_refusal_on_each_side() {
    let mut net = pair(true);
    net.nodes[CLIENT].refuse_certificates = true;
    net.connect(CLIENT, "192.0.2.1", certificate(SignatureMethod::EcdsaP384));
    net.secs(300);
    assert_eq!(net.nodes[CLIENT].refusals().len(), 1);
    let gateway = net.nodes[GATEWAY].refusals();
    assert_eq!((gateway.len(), gateway[0].phase), (1, Phase::QuickMode), "{gateway:?}");
    assert!(gateway[0].cause.contains("never asked for an ESP SA"));
    assert_eq!(net.nodes[GATEWAY].ep.gauges(), Gauges::default());
}

#[test]
fn no_common_proposal_is_explained() {
    let mut client = client_config();
    client.groups = vec![DhGroup::Modp1024];
    let mut net = pair_with(false, gateway_config(), client);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(60);
    let r = net.nodes[GATEWAY].refusals();
    assert_eq!((r.len(), r[0].kind), (1, RefusalKind::NoProposal));
    assert!(r[0].cause.contains("MODP_1024") && r[0].cause.contains("modp2048"), "{}", r[0].cause);
    assert_eq!(r[0].remedy, "to let this client in, add \"modp1024\" to groups in [gateway.ike]");
    let c = net.nodes[CLIENT].refusals();
    assert_eq!(c.len(), 1);
    assert!(c[0].cause.contains("NO_PROPOSAL_CHOSEN"), "{}", c[0].cause);
}

#[test]
fn no_common_esp_suite_is_explained_on_both_sides() {
    let mut gateway = gateway_config();
    gateway.esp_suites = vec![EspSuite::AES128_GCM16];
    let mut client = client_config();
    client.esp_suites = vec![EspSuite::AES256_CBC_SHA1];
    let mut net = pair_with(true, gateway, client);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(60);
    let r = net.nodes[GATEWAY].refusals();
    assert_eq!((r.len(), r[0].phase, r[0].kind), (1, Phase::QuickMode, RefusalKind::NoProposal));
    assert_eq!(r[0].remedy, "to let this client in, add \"aes256-sha1\" to suites in [gateway.esp]");
    let c = net.nodes[CLIENT].refusals();
    assert_eq!((c.len(), c[0].phase), (1, Phase::QuickMode));
    assert!(c[0].cause.contains("NO_PROPOSAL_CHOSEN"), "{}", c[0].cause);
    assert_eq!(net.nodes[GATEWAY].ep.gauges(), Gauges::default());
}

#[test]
fn the_esp_sa_is_rekeyed_by_the_client_and_the_old_one_goes_later() {
    let mut client = client_config();
    client.phase2_lifetime = Duration::from_secs(600);
    let mut net = pair_with(true, gateway_config(), client);
    let id = net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(5);
    let first = *net.nodes[GATEWAY].children.keys().next().unwrap();
    net.secs(505);
    assert_eq!(net.nodes[GATEWAY].children.len(), 2, "both live for a while");
    net.check_children(CLIENT, GATEWAY);
    let newest = net.nodes[GATEWAY].events.iter().rev().find_map(|e| match e {
        Event::ChildUp(c) => Some((c.spi_in, c.replaces, c.peer)),
        _ => None,
    });
    let (spi, replaces, peer) = newest.unwrap();
    assert_eq!(replaces, Some(first));
    assert_ne!(spi, first);
    net.secs(60);
    assert_eq!(net.nodes[GATEWAY].children.keys().copied().collect::<Vec<_>>(), [spi]);
    net.check_children(CLIENT, GATEWAY);
    net.secs(3600 * 3);
    assert_eq!(net.nodes[CLIENT].peer_ups().len(), 1);
    assert_eq!(net.nodes[CLIENT].peer_ups()[0].peer, id);
    assert!(net.nodes[GATEWAY].children.values().all(|c| c.peer == peer));
    net.check_children(CLIENT, GATEWAY);
    assert!(net.nodes[GATEWAY].refusals().is_empty() && net.nodes[CLIENT].refusals().is_empty());
}

#[test]
fn the_data_plane_can_ask_for_a_new_esp_sa_on_either_side() {
    for side in [CLIENT, GATEWAY] {
        let client = Config {
            esp_suites: vec![EspSuite::AES128_CBC_SHA1, EspSuite::AES256_GCM16, EspSuite::AES256_CBC_SHA256],
            ..client_config()
        };
        let mut net = pair_with(true, gateway_config(), client);
        net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
        net.secs(5);
        let first = *net.nodes[side].children.keys().next().unwrap();
        net.with(side, |ep, now| ep.child_expiring(now, first));
        net.with(side, |ep, now| ep.child_expiring(now, first));
        net.secs(5);
        assert_eq!(net.nodes[side].children.len(), 2);
        net.check_children(CLIENT, GATEWAY);
        net.secs(60);
        assert_eq!((net.nodes[CLIENT].children.len(), net.nodes[GATEWAY].children.len()), (1, 1));
        assert!(!net.nodes[side].children.contains_key(&first));
        let child = net.nodes[GATEWAY].children.values().next().unwrap();
        assert_eq!((child.client_port, child.gateway_port), (1701, 1701));
        assert_eq!(child.suite, EspSuite::AES128_CBC_SHA1, "as the first time");
    }
}

#[test]
fn an_esp_sa_past_its_hard_limit_goes_as_soon_as_it_has_a_successor() {
    let mut net = pair(true);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(5);
    let first = *net.nodes[GATEWAY].children.keys().next().unwrap();
    let theirs = *net.nodes[CLIENT].children.keys().next().unwrap();
    net.with(GATEWAY, |ep, now| ep.child_expired(now, first));
    assert!(net.nodes[CLIENT].children.contains_key(&theirs), "not before there is another");
    net.secs(2);
    assert_eq!(net.nodes[GATEWAY].children.len(), 2);
    net.with(GATEWAY, |ep, now| ep.child_expired(now, first));
    net.secs(1);
    assert!(!net.nodes[CLIENT].children.contains_key(&theirs), "the client heard it, and sends through the new one");
    net.secs(60);
    net.check_children(CLIENT, GATEWAY);
    assert_eq!((net.nodes[CLIENT].children.len(), net.nodes[GATEWAY].children.len()), (1, 1));
    assert_eq!(net.nodes[GATEWAY].count(|e| matches!(e, Event::PeerDown { .. } | Event::Refused(_))), 0);
}

#[test]
fn an_esp_sa_past_its_hard_limit_that_gets_no_successor_ends() {
    let mut net = pair(true);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(5);
    let first = *net.nodes[GATEWAY].children.keys().next().unwrap();
    net.nodes[CLIENT].gone = true;
    for _ in 0..=sallyport_ike::timer::OVERRUN_TOLD {
        assert!(net.nodes[GATEWAY].children.contains_key(&first));
        net.with(GATEWAY, |ep, now| ep.child_expired(now, first));
        net.secs(1);
    }
    assert!(net.nodes[GATEWAY].children.is_empty());
}

#[test]
fn phase_1_is_rekeyed_and_the_peer_and_its_esp_sas_stay() {
    for nat in [false, true] {
        let mut client = client_config();
        client.phase1_lifetime = Duration::from_secs(900);
        let mut net = pair_with(nat, gateway_config(), client);
        net.connect(CLIENT, "192.0.2.1", certificate(SignatureMethod::EcdsaP256));
        net.secs(2600);
        for side in [CLIENT, GATEWAY] {
            let n = &net.nodes[side];
            assert_eq!(n.peer_ups().len(), 1, "{nat} {:?}", n.events);
            assert!(n.count(|e| matches!(e, Event::PeerRekeyed { .. })) >= 3, "{:?}", n.events);
            assert_eq!(
                n.count(|e| matches!(e, Event::ChildDown { .. } | Event::PeerDown { .. } | Event::Refused(_))),
                0
            );
            assert_eq!(n.children.len(), 1);
            assert!(n.ep.gauges().isakmp_sas <= 2);
        }
    }
}

#[test]
fn an_esp_sa_outlives_its_isakmp_sa() {
    let mut client = client_config();
    client.phase1_lifetime_max = Duration::from_secs(400);
    let mut gateway = gateway_config();
    gateway.phase1_lifetime_max = Duration::from_secs(200);
    let mut net = pair_with(true, gateway, client);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(300);
    let n = &net.nodes[GATEWAY];
    assert_eq!((n.ep.gauges().isakmp_sas, n.children.len()), (0, 1));
    assert_eq!(n.count(|e| matches!(e, Event::PeerDown { .. })), 0);
    // The client needs one again, to rekey.
    let spi = *net.nodes[CLIENT].children.keys().next().unwrap();
    net.with(CLIENT, |ep, now| ep.child_expiring(now, spi));
    net.secs(100);
    assert_eq!(net.nodes[GATEWAY].count(|e| matches!(e, Event::PeerRekeyed { .. })), 1);
    assert_eq!(net.nodes[GATEWAY].children.len(), 1);
    net.check_children(CLIENT, GATEWAY);
}

#[test]
fn a_client_that_vanishes_is_found_dead() {
    let mut net = pair(true);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(200);
    assert_eq!(net.nodes[GATEWAY].count(|e| matches!(e, Event::PeerDown { .. })), 0);
    net.nodes[CLIENT].gone = true;
    net.secs(85);
    assert_eq!(net.nodes[GATEWAY].children.len(), 1);
    net.secs(60);
    let n = &net.nodes[GATEWAY];
    assert_eq!(n.count(|e| matches!(e, Event::PeerDown { reason: DownReason::PeerSilent, .. })), 1);
    assert_eq!(n.count(|e| matches!(e, Event::ChildDown { reason: DownReason::PeerSilent, .. })), 1);
    assert!(n.refusals().is_empty());
    assert_eq!(n.ep.gauges(), Gauges::default());
}

#[test]
fn traffic_counts_as_life() {
    let mut net = pair(true);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(5);
    let before = net.nodes[GATEWAY].ep.stats().dpd_sent;
    let peer = net.nodes[GATEWAY].peer_ups()[0].peer;
    net.nodes[CLIENT].gone = true;
    for _ in 0..300 {
        net.secs(1);
        net.with(GATEWAY, |ep, now| ep.note_inbound(now, peer));
    }
    assert_eq!(net.nodes[GATEWAY].ep.stats().dpd_sent, before);
    assert_eq!(net.nodes[GATEWAY].children.len(), 1);
}

#[test]
fn a_disconnect_of_either_side_is_told() {
    for (side, other) in [(CLIENT, GATEWAY), (GATEWAY, CLIENT)] {
        let mut net = pair(true);
        net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
        net.secs(5);
        let peer = net.nodes[side].peer_ups()[0].peer;
        net.with(side, |ep, now| ep.disconnect(now, peer, "enough"));
        net.secs(1);
        for (n, reason) in [(side, DownReason::Local("enough".into())), (other, DownReason::PeerDeleted)] {
            let n = &net.nodes[n];
            let down = n.events.iter().find_map(|e| match e {
                Event::PeerDown { reason, .. } => Some(reason.clone()),
                _ => None,
            });
            assert_eq!(down, Some(reason), "{}", n.name);
            assert!(n.children.is_empty() && n.refusals().is_empty());
            assert_eq!(n.ep.gauges(), Gauges::default(), "{}", n.name);
        }
    }
}

#[test]
fn a_peer_is_followed_to_its_new_mapping() {
    let mut net = pair(true);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(5);
    let before = net.nodes[GATEWAY].peer_ups()[0].remote;
    net.rebind();
    net.secs(60); // the client's own DPD goes out from the new port
    let moved = net.nodes[GATEWAY].events.iter().find_map(|e| match e {
        Event::PeerMoved { remote, .. } => Some(*remote),
        _ => None,
    });
    assert_ne!(moved.expect("moved"), before);
    net.secs(600);
    assert_eq!(net.nodes[GATEWAY].children.len(), 1);
}

#[test]
fn two_clients_with_one_inside_address_behind_one_nat_are_two_peers() {
    let gateway = Node::new("gateway", "192.0.2.1", gateway_config(), 1).psk("secret");
    let a = Node::new("client a", "192.168.1.2", client_config(), 2).behind("198.51.100.7").psk("secret");
    let b = Node::new("client b", "192.168.1.3", client_config(), 4).behind("198.51.100.7").psk("secret");
    let mut net = Net::new(vec![gateway, a, b], 3);
    let identity = Some(Identification::address("192.168.1.2".parse().unwrap()));
    for n in [1, 2] {
        let local = std::net::SocketAddr::new(net.nodes[n].at, 500);
        net.connect_with(
            n,
            Connect {
                local,
                remote: addr("192.0.2.1:500"),
                auth: ConnectAuth::PreSharedKey,
                identity: identity.clone(),
                client_port: 1701,
                phase1: Vec::new(),
                esp: Vec::new(),
                pfs: None,
            },
        );
    }
    net.secs(100);
    assert_eq!((net.nodes[GATEWAY].peer_ups().len(), net.nodes[GATEWAY].children.len()), (2, 2));
    net.check_children(1, GATEWAY);
    net.check_children(2, GATEWAY);
}

#[test]
fn a_client_that_starts_anew_takes_its_old_self_away() {
    let mut net = pair(false);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(5);
    // The machine crashes and comes back: it knows nothing, and says INITIAL-CONTACT.
    net.nodes[CLIENT] = Node::new("client", "198.51.100.7", client_config(), 77).psk("secret");
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(5);
    let n = &net.nodes[GATEWAY];
    assert_eq!(n.count(|e| matches!(e, Event::PeerDown { reason: DownReason::InitialContact, .. })), 1);
    assert_eq!((n.peer_ups().len(), n.children.len(), n.ep.gauges().peers), (2, 1, 1));
    net.check_children(CLIENT, GATEWAY);
}

#[test]
fn large_certificates_travel_in_fragments() {
    let mut gateway = gateway_config();
    let mut client = client_config();
    gateway.credentials = vec![credential(SignatureMethod::Rsa, "gateway", 3000)];
    client.credentials = vec![credential(SignatureMethod::Rsa, "client", 5000)];
    for loss in [0, 10] {
        let mut net = pair_with(true, gateway.clone(), client.clone());
        net.loss = loss;
        net.reordering = loss;
        net.connect(CLIENT, "192.0.2.1", certificate(SignatureMethod::Rsa));
        net.secs(60);
        if net.nodes[CLIENT].refusals().is_empty() {
            net.check_children(CLIENT, GATEWAY);
        }
        assert!(net.nodes[GATEWAY].ep.stats().fragments >= 5);
        assert!(net.largest <= 1280);
    }
}

#[test]
fn without_plain_esp_the_client_is_made_to_use_udp() {
    for (which, config) in [(GATEWAY, gateway_config()), (CLIENT, client_config())] {
        let config = Config { native_esp: false, ..config };
        let mut net = match which {
            GATEWAY => pair_with(false, config, client_config()),
            _ => pair_with(false, gateway_config(), config),
        };
        net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
        net.secs(5);
        net.check_children(CLIENT, GATEWAY);
        let child = net.nodes[GATEWAY].children.values().next().unwrap();
        assert!(child.udp_encap);
        assert_eq!(child.local.port(), 4500);
    }
}

#[test]
fn a_public_address_of_a_load_balancer_counts_as_ours() {
    // The balancer rewrites the destination: the client dials 203.0.113.9, the gateway sees 192.0.2.1.
    for known in [false, true] {
        let mut config = gateway_config();
        if known {
            config.public_addresses = vec!["203.0.113.9".parse().unwrap()];
        }
        let mut gateway = Endpoint::new(config, [1; 32], sallyport_base::Instant::ZERO);
        let mut client = Endpoint::new(client_config(), [2; 32], sallyport_base::Instant::ZERO);
        let now = sallyport_base::Instant::from_secs(1);
        client.connect(
            now,
            Connect {
                local: addr("198.51.100.7:500"),
                remote: addr("203.0.113.9:500"),
                auth: ConnectAuth::PreSharedKey,
                identity: None,
                client_port: 1701,
                phase1: Vec::new(),
                esp: Vec::new(),
                pfs: None,
            },
        );
        let mut rng = sallyport_crypto::Rng::from_seed([9; 32]);
        let mut child = None;
        for _ in 0..100 {
            for (is_client, ep) in [(true, 0), (false, 1)] {
                let _ = ep;
                let (me, other) = if is_client { (&mut client, &mut gateway) } else { (&mut gateway, &mut client) };
                while let Some(o) = me.poll_output() {
                    match o {
                        Output::Transmit { local, remote, bytes } if is_client => {
                            let to = std::net::SocketAddr::new("192.0.2.1".parse().unwrap(), remote.port());
                            other.handle_datagram(now, to, local, &bytes);
                        }
                        Output::Transmit { local, remote, bytes } => {
                            let from = std::net::SocketAddr::new("203.0.113.9".parse().unwrap(), local.port());
                            other.handle_datagram(now, remote, from, &bytes);
                        }
                        Output::Job { id, job } => {
                            let answer = match job.compute(&mut rng) {
                                Ok(a) => a,
                                Err(_) => Answer::PreSharedKey(Some(b"k".to_vec().into())),
                            };
                            me.handle_answer(now, id, answer);
                        }
                        Output::Event(Event::ChildUp(c)) => child = Some(c),
                        _ => {}
                    }
                }
            }
        }
        assert_eq!(child.expect("child").udp_encap, !known);
    }
}

#[test]
fn unprotected_informationals_end_nothing() {
    let mut net = pair(true);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.run(Duration::from_millis(70));
    // NO-PROPOSAL-CHOSEN and a Delete in the clear, with the right cookies, to both sides.
    let mm2 = net.nodes[CLIENT].received.first().expect("message 2").clone();
    let mut forged = mm2[..16].to_vec();
    forged.extend([11, 0x10, 5, 0, 1, 2, 3, 4, 0, 0, 0, 40, 0, 0, 0, 12, 0, 0, 0, 1, 1, 0, 0, 14]);
    let mut delete = mm2[..16].to_vec();
    delete.extend([12, 0x10, 5, 0, 1, 2, 3, 5, 0, 0, 0, 56, 0, 0, 0, 28, 0, 0, 0, 1, 1, 16, 0, 1]);
    delete.extend(&mm2[..16]);
    for bytes in [forged, delete] {
        net.inject(addr("192.0.2.1:500"), addr("198.51.100.7:20001"), bytes.clone());
        net.inject(addr("198.51.100.7:20001"), addr("192.0.2.1:500"), bytes);
    }
    net.secs(10);
    net.check_children(CLIENT, GATEWAY);
    assert!(net.nodes[GATEWAY].ep.stats().unprotected_informational >= 2);
    assert!(net.nodes[CLIENT].ep.stats().unprotected_informational >= 2);
}

/// Takes the vendor IDs of RFC 3947 and of the drafts before 02\n out of first messages: what Windows XP sends.
fn only_draft_02_n(bytes: &[u8]) -> Vec<u8> {
    use sallyport_ike::payload::{ChainWriter, Payload, PayloadType};
    let Ok(m) = Message::parse(bytes) else { return bytes.to_vec() };
    if m.header.exchange != ExchangeType::MAIN_MODE || !m.header.cky_r.is_zero() {
        return bytes.to_vec();
    }
    let mut chain = ChainWriter::new();
    for p in &m.payloads {
        match p {
            Payload::Sa(_, body) => drop(chain.bytes(PayloadType::SA, body)),
            Payload::VendorId(v) if v.0.starts_with(&[0x90, 0xcb]) || v.name().is_none_or(|n| !n.contains("NAT-T")) => {
                chain.bytes(PayloadType::VENDOR_ID, v.0);
            }
            _ => {}
        }
    }
    let mut out = bytes[..28].to_vec();
    let len = u32::try_from(28 + chain.as_slice().len()).unwrap();
    out[24..28].copy_from_slice(&len.to_be_bytes());
    out.extend(chain.as_slice());
    out
}

#[test]
fn a_client_of_the_nat_t_drafts_connects() {
    for nat in [false, true] {
        let mut net = pair(nat);
        net.rewrite = Some(only_draft_02_n);
        net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
        net.secs(5);
        net.check_children(CLIENT, GATEWAY);
        assert_eq!(net.nodes[GATEWAY].children.values().next().unwrap().udp_encap, nat);
        // NAT-D under the number of the drafts.
        let mm3 = net.nodes[GATEWAY].received.iter().filter_map(|b| Message::parse(b).ok()).nth(1).unwrap();
        assert!(mm3.payloads.iter().any(|p| matches!(p, sallyport_ike::payload::Payload::NatD(_))));
        let raw = &net.nodes[GATEWAY].received[1];
        assert!(raw.windows(4).any(|w| w == [130, 0, 0, 36]) || raw.windows(4).any(|w| w[0] == 130 && w[1] == 0));
    }
}

#[test]
fn ipv6_works() {
    let gateway = Node::new("gateway", "2001:db8::1", gateway_config(), 1).psk("secret");
    let client = Node::new("client", "2001:db8:7::2", client_config(), 2).psk("secret");
    let mut net = Net::new(vec![gateway, client], 3);
    net.connect(CLIENT, "2001:db8::1", certificate(SignatureMethod::Rsa));
    net.secs(5);
    net.check_children(CLIENT, GATEWAY);
}

#[test]
fn both_sides_may_ask_for_a_new_esp_sa_at_once() {
    let mut net = pair(true);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(5);
    let first: Vec<u32> = [CLIENT, GATEWAY].map(|n| *net.nodes[n].children.keys().next().unwrap()).to_vec();
    net.with(CLIENT, |ep, now| ep.child_expiring(now, first[0]));
    net.with(GATEWAY, |ep, now| ep.child_expiring(now, first[1]));
    net.secs(60);
    net.check_children(CLIENT, GATEWAY);
    net.check_children(GATEWAY, CLIENT);
    assert!(!net.nodes[CLIENT].children.contains_key(&first[0]));
    assert_eq!(net.nodes[CLIENT].children.len(), 2, "each got the one that it asked for");
    assert!(net.nodes[CLIENT].refusals().is_empty() && net.nodes[GATEWAY].refusals().is_empty());
}

#[test]
fn a_client_behind_a_nat_keeps_its_mapping() {
    let mut net = pair(true);
    net.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    net.secs(100);
    assert_eq!(net.nodes[GATEWAY].ep.stats().keepalives, 4);
    let mut direct = pair(false);
    direct.connect(CLIENT, "192.0.2.1", ConnectAuth::PreSharedKey);
    direct.secs(100);
    assert_eq!(direct.nodes[GATEWAY].ep.stats().keepalives, 0);
}

#[test]
fn the_gateway_shows_the_certificate_that_the_client_asks_for() {
    let rsa = |id: u32, root: &str| Credential {
        id: CredentialId(id),
        issuers: vec![root.as_bytes().to_vec()],
        identity: Identification::fqdn(&format!("{root}.example")),
        ..credential(SignatureMethod::Rsa, "gateway", 0)
    };
    for (root, want) in [("old", "old.example"), ("new", "new.example"), ("unknown", "old.example")] {
        let gateway = Config { credentials: vec![rsa(1, "old"), rsa(2, "new")], ..gateway_config() };
        let client = Config { trusted_issuers: vec![b"else".to_vec(), root.as_bytes().to_vec()], ..client_config() };
        let mut net = pair_with(true, gateway, client);
        net.connect(CLIENT, "192.0.2.1", certificate(SignatureMethod::Rsa));
        net.secs(5);
        assert_eq!(net.nodes[CLIENT].peer_ups()[0].id.to_string(), want);
    }
}

#[test]
fn whatever_happens_nothing_is_left_behind() {
    for seed in 0..40u8 {
        let mut gateway = gateway_config();
        let mut client = client_config();
        gateway.phase1_lifetime_max = Duration::from_secs(if seed % 4 == 0 { 150 } else { 86_400 });
        client.phase1_lifetime = Duration::from_secs(300);
        client.phase2_lifetime = Duration::from_secs(200);
        let mut net = pair_with(seed % 2 == 0, gateway, client);
        net.rng = sallyport_crypto::Rng::from_seed([seed; 32]);
        (net.loss, net.duplication, net.reordering) = (u32::from(seed % 3) * 8, 10, 10);
        let mut dice = sallyport_crypto::Rng::from_seed([seed ^ 0xff; 32]);
        let auth = methods()[usize::from(seed) % 4].clone();
        let mut ids = Vec::new();
        for _ in 0..40 {
            let side = usize::from(dice.u16() % 2);
            match dice.u16() % 8 {
                0 => ids.push(net.connect(CLIENT, "192.0.2.1", auth.clone())),
                1 => net.rebind(),
                2 | 3 => {
                    let spis: Vec<u32> = net.nodes[side].children.keys().copied().collect();
                    if let Some(spi) = spis.last().copied() {
                        net.with(side, |ep, now| ep.child_expiring(now, spi));
                    }
                }
                4 if dice.u16().is_multiple_of(4) => {
                    let peers: Vec<_> = net.nodes[side].peer_ups().iter().map(|p| p.peer).collect();
                    if let Some(peer) = peers.last().copied() {
                        net.with(side, |ep, now| ep.disconnect(now, peer, "by chance"));
                    }
                }
                _ => {}
            }
            net.run(Duration::from_millis(u64::from(dice.u16())));
            for n in &net.nodes {
                let g = n.ep.gauges();
                assert!(g.children == n.children.len(), "{} reports {} of {:?}", n.name, n.children.len(), g);
            }
        }
        for n in [CLIENT, GATEWAY] {
            let peers: Vec<_> = net.nodes[n].peer_ups().iter().map(|p| p.peer).chain(ids.clone()).collect();
            for p in peers {
                net.with(n, |ep, now| ep.disconnect(now, p, "the end"));
            }
        }
        net.secs(400);
        for n in &net.nodes {
            assert_eq!(n.ep.gauges(), Gauges::default(), "seed {seed}: {} forgot something", n.name);
            let up = n.count(|e| matches!(e, Event::PeerUp(_)));
            let down = n.count(|e| matches!(e, Event::PeerDown { .. }));
            assert_eq!(up, down, "seed {seed}: {}", n.name);
            assert!(n.children.is_empty());
        }
    }
}
