//! What the control plane asks for and is told.

use super::*;

#[test]
fn two_pairs_serve_at_once_while_a_peer_rekeys() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let (mut new, mut outbound, mut inbound) = pair(EspSuite::AES256_CBC_SHA1, c.peer, 0x2222_2222, c.path);
    new.activate = false;
    rig.apply(ToData::InstallSa(Box::new(new)));

    // Both are received on, in one batch even; sent is on the old one until the switch.
    let packet = from_client(&c, 10);
    let old = c.data(&packet);
    std::mem::swap(&mut c.outbound, &mut outbound);
    let fresh = c.data(&packet);
    rig.receive(c.path, &[old, fresh]);
    assert_eq!(rig.taken_inside().len(), 2);
    rig.give_inside(&to_client(&c, 10, true), false);
    rig.flush();
    assert_eq!(c.open_data(&rig.sent.packets.pop().unwrap().3), to_client(&c, 10, true));

    rig.apply(ToData::SwitchOutbound { spi_in: 0x2222_2222 });
    std::mem::swap(&mut c.inbound, &mut inbound);
    rig.give_inside(&to_client(&c, 11, true), false);
    rig.flush();
    assert_eq!(c.open_data(&rig.sent.packets.pop().unwrap().3), to_client(&c, 11, true));

    rig.apply(ToData::RemoveSa { spi_in: c.spi_in });
    std::mem::swap(&mut c.outbound, &mut outbound);
    let late = c.data(&packet);
    rig.receive(c.path, &[late]);
    assert_eq!(rig.fast.counters.dropped(DropReason::UnknownSpi), 1);
    rig.give_inside(&to_client(&c, 12, true), false);
    rig.flush();
    assert_eq!(c.open_data(&rig.sent.packets.pop().unwrap().3), to_client(&c, 12, true));
}

#[test]
fn when_the_newest_pair_goes_the_one_before_is_sent_through() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let (new, _, _) = pair(GCM, c.peer, 0x2222_2222, c.path);
    rig.apply(ToData::InstallSa(Box::new(new)));
    rig.apply(ToData::RemoveSa { spi_in: 0x2222_2222 });
    rig.give_inside(&to_client(&c, 10, true), false);
    rig.flush();
    assert_eq!(c.open_data(&rig.sent.packets.pop().unwrap().3), to_client(&c, 10, true));
    rig.apply(ToData::RemoveSa { spi_in: c.spi_in });
    rig.give_inside(&to_client(&c, 10, true), false);
    assert_eq!(rig.fast.counters.dropped(DropReason::NoSa), 1);
    // The session waits for the next pair.
    let (new, _, inbound) = pair(GCM, c.peer, 0x3333_3333, c.path);
    c.inbound = inbound;
    rig.apply(ToData::InstallSa(Box::new(new)));
    rig.give_inside(&to_client(&c, 10, true), false);
    rig.flush();
    assert_eq!(c.open_data(&rig.sent.packets.pop().unwrap().3), to_client(&c, 10, true));
}

#[test]
fn the_peer_is_followed_to_where_its_newest_packet_came_from() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let packet = from_client(&c, 10);
    let elsewhere = OuterPath { remote: addr("203.0.113.77:61000"), ..c.path };
    let old = c.data(&packet);
    let newer = c.data(&packet);
    rig.receive(c.path, &[newer]);
    // Genuine but older: somebody held it back. It is taken, its address is not.
    rig.receive(elsewhere, &[old]);
    assert_eq!(rig.taken_inside().len(), 2);
    assert!(rig.control.is_empty());
    // A forged one proves nothing at all.
    let mut forged = c.data(&packet);
    forged[30] ^= 1;
    rig.receive(elsewhere, &[forged]);
    assert!(rig.control.is_empty());
    let newest = c.data(&packet);
    rig.receive(elsewhere, &[newest]);
    let moved = FromData::PeerMoved { peer: c.peer, local: elsewhere.local, remote: elsewhere.remote };
    assert_eq!(rig.control, [moved]);
    rig.give_inside(&to_client(&c, 10, true), false);
    rig.flush();
    assert_eq!(rig.sent.packets[0].2, elsewhere.remote);
}

#[test]
fn control_messages_and_frames_go_to_control_and_back_through_the_sa() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let sccrq = [0xc8, 0x02, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0];
    let lcp = [0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 8, 0, 0, 0, 0];
    let ipcp = [0x80, 0x21, 1, 1, 0, 4];
    let messages = [sccrq.to_vec(), c.l2tp(&lcp), c.l2tp(&ipcp)].map(|m| c.seal(&m));
    rig.receive(c.path, &messages);
    let frame = |frame: &[u8]| FromData::PppFrame {
        peer: c.peer,
        local_tunnel: c.ids.0,
        local_session: c.ids.1,
        frame: frame.to_vec(),
    };
    let control = FromData::L2tpControl { peer: c.peer, peer_port: 40_000, bytes: sccrq.to_vec() };
    assert_eq!(rig.control, [control, frame(&lcp), frame(&ipcp)]);

    rig.apply(ToData::SendL2tpControl { peer: c.peer, peer_port: 40_000, bytes: sccrq.to_vec() });
    let (local_tunnel, local_session) = c.ids;
    rig.apply(ToData::SendPpp { local_tunnel, local_session, frame: lcp.to_vec() });
    rig.flush();
    let sent = std::mem::take(&mut rig.sent.packets);
    assert_eq!(c.open(&sent[0].3), sccrq);
    assert_eq!(c.open(&sent[1].3), [&[0, 2, 0, 21, 0, 22], &lcp[..]].concat());
}

#[test]
fn a_frame_that_overtakes_its_session_reaches_control_but_only_so_many() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    c.ids = (7, 7);
    let lcp = c.l2tp(&[0xff, 0x03, 0xc0, 0x21, 1, 1, 0, 4]);
    let frames: Vec<_> = (0..300).map(|_| c.seal(&lcp)).collect();
    rig.receive(c.path, &frames);
    assert_eq!(rig.control.len(), 256);
    assert_eq!(rig.fast.counters.dropped(DropReason::UnknownSession), 44);
    let packet = from_client(&c, 1);
    let data = c.data(&packet);
    rig.receive(c.path, &[data]);
    assert_eq!(rig.fast.counters.dropped(DropReason::UnknownSession), 45);
}

#[test]
fn nothing_passes_before_ipcp_is_open_nor_after_it_closed() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let (local_tunnel, local_session) = c.ids;
    let packet = from_client(&c, 20);
    let down = to_client(&c, 20, true);
    for (network, passes) in [(SessionNetwork::closed(), 0), (network(c.address), 1)] {
        rig.apply(ToData::UpdateSession { local_tunnel, local_session, network });
        let sealed = c.data(&packet);
        rig.receive(c.path, &[sealed]);
        rig.give_inside(&down, false);
        rig.flush();
        assert_eq!((rig.taken_inside().len(), rig.sent.packets.len()), (passes, passes));
    }
    let count = |d| rig.fast.counters.dropped(d);
    assert_eq!((count(DropReason::NotOpened), count(DropReason::NoSession)), (1, 1));
}

#[test]
fn ike_is_handed_over_from_both_ports_without_the_marker() {
    let mut rig = rig();
    let (local, nat_t, remote) = (addr("198.51.100.1:500"), addr("198.51.100.1:4500"), addr("203.0.113.5:46"));
    let message = vec![7; 28];
    rig.receive_as(Role::Ike, local, remote, &[message.clone(), vec![0xff], vec![7; 27]]);
    let marked = [&[0; 4][..], &message].concat();
    rig.receive_as(Role::NatT, nat_t, remote, &[marked.clone(), vec![0xff], vec![0; 3]]);
    let ike = |local| FromData::IkeDatagram { local, remote, bytes: message.clone() };
    assert_eq!(rig.control, [ike(local), ike(nat_t)]);
    assert_eq!(rig.fast.counters.count(Count::Keepalives), 1);
    for local in [local, nat_t] {
        rig.apply(ToData::SendIke { local, remote, bytes: message.clone() });
    }
    rig.flush();
    let sent: Vec<_> = rig.sent.packets.iter().map(|s| s.3.clone()).collect();
    assert_eq!(sent, [message, marked]);
}

#[test]
fn liveness_and_counters_are_reported_once_for_what_changed() {
    let mut rig = rig();
    let (mut a, _idle) = (rig.client(GCM, 1), rig.client(GCM, 2));
    let packet = from_client(&a, 72);
    let sealed = [a.data(&packet), a.data(&packet)];
    rig.receive(a.path, &sealed);
    rig.give_inside(&to_client(&a, 22, true), false);
    rig.fast.report_liveness(&mut rig.control);
    rig.fast.report_counters(&mut rig.control);
    let counters = SessionCounters {
        local_tunnel: a.ids.0,
        local_session: a.ids.1,
        packets_in: 2,
        bytes_in: 200,
        packets_out: 1,
        bytes_out: 50,
    };
    let expected = [FromData::Liveness { peers: vec![a.peer] }, FromData::CounterSnapshot { sessions: vec![counters] }];
    assert_eq!(rig.control, expected);
    rig.fast.report_liveness(&mut rig.control);
    rig.fast.report_counters(&mut rig.control);
    assert_eq!(rig.control.len(), 2);
}

#[test]
fn a_removed_session_gives_its_last_counters_and_a_removed_peer_leaves_nothing() {
    let mut rig = rig();
    let mut a = rig.client(GCM, 1);
    let b = rig.client(GCM, 2);
    let packet = from_client(&a, 72);
    let sealed = a.data(&packet);
    rig.receive(a.path, std::slice::from_ref(&sealed));
    rig.apply(ToData::RemoveSession { local_tunnel: a.ids.0, local_session: a.ids.1 });
    let last = rig.control.iter().rev().find_map(|m| match m {
        FromData::CounterSnapshot { sessions } => sessions.last().copied(),
        _ => None,
    });
    assert_eq!(last.map(|c| (c.packets_in, c.bytes_in)), Some((1, 100)));
    rig.apply(ToData::RemovePeer { peer: a.peer });
    assert_eq!(rig.fast.tables.sizes(), (1, 1, 1));
    rig.receive(a.path, &[sealed]);
    assert_eq!(rig.fast.counters.dropped(DropReason::UnknownSpi), 1);
    rig.apply(ToData::RemovePeer { peer: b.peer });
    rig.apply(ToData::RemovePeer { peer: PeerId(99) });
    assert_eq!(rig.fast.tables.sizes(), (0, 0, 0));
}

#[test]
fn full_tables_refuse_and_count() {
    let mut rig =
        Rig::new(&DataConfig { limits: DataLimits { peers: 2, sas: 3, sessions: 2 }, ..DataConfig::default() });
    let clients: Vec<_> = (1..=3).map(|n| rig.client(GCM, n)).collect();
    assert_eq!(rig.fast.tables.sizes(), (2, 2, 2));
    assert_eq!(rig.fast.counters.dropped(DropReason::TableFull), 1);
    assert_eq!(rig.fast.counters.dropped(DropReason::NoSa), 1);
    for spi in [0x9000_0001, 0x9000_0002] {
        let (new, _, _) = pair(GCM, clients[0].peer, spi, clients[0].path);
        rig.apply(ToData::InstallSa(Box::new(new)));
    }
    assert_eq!(rig.fast.tables.sizes(), (2, 3, 2));
    assert_eq!(rig.fast.counters.dropped(DropReason::TableFull), 2);
}

#[test]
fn the_soft_limit_of_an_sa_is_said_once() {
    let mut rig = rig();
    let c = rig.client(GCM, 1);
    let (mut sa, _, _) = pair(GCM, c.peer, 0x2222_2222, c.path);
    let suite = GCM;
    let keys = suite.split_keymat(&vec![3; suite.keymat_len()]).unwrap();
    let mut config = sallyport_esp::SaConfig::new(0x2222_2222, keys);
    config.limits.soft_packets = 2;
    config.limits.hard_packets = 4;
    sa.inbound = sallyport_esp::InboundSa::new(&config);
    let outbound = sallyport_esp::OutboundSa::new(&config, &mut sallyport_crypto::Rng::from_seed([1; 32]));
    rig.apply(ToData::InstallSa(Box::new(sa)));
    let mut client = Client { outbound, ..c };
    // The client's own SA has the same limit: seven packets need two of them.
    for _ in 0..4 {
        let packet = from_client(&client, 1);
        let sealed = client.data(&packet);
        rig.receive(client.path, &[sealed]);
    }
    let soft = FromData::SaSoftLimit { peer: client.peer, spi_in: 0x2222_2222 };
    assert_eq!(rig.control.iter().filter(|m| **m == soft).count(), 1);
    assert_eq!(rig.taken_inside().len(), 4);
}

#[test]
fn the_hard_limit_of_an_sa_is_said_once_a_second_while_packets_come() {
    let mut rig = rig();
    let c = rig.client(GCM, 1);
    let (mut sa, _, _) = pair(GCM, c.peer, 0x2222_2222, c.path);
    let keys = || GCM.split_keymat(&vec![3; GCM.keymat_len()]).unwrap();
    let mut config = sallyport_esp::SaConfig::new(0x2222_2222, keys());
    let outbound = sallyport_esp::OutboundSa::new(&config, &mut sallyport_crypto::Rng::from_seed([1; 32]));
    config.limits.hard_packets = 2;
    sa.inbound = sallyport_esp::InboundSa::new(&config);
    rig.apply(ToData::InstallSa(Box::new(sa)));
    let mut client = Client { outbound, ..c };
    let hard = FromData::SaHardLimit { peer: client.peer, spi_in: 0x2222_2222 };
    for tick in 1..=2 {
        for _ in 0..4 {
            let packet = from_client(&client, 1);
            let sealed = client.data(&packet);
            rig.receive(client.path, &[sealed]);
        }
        assert_eq!(rig.control.iter().filter(|m| **m == hard).count(), tick);
        rig.fast.report_liveness(&mut rig.control);
        rig.fast.report_liveness(&mut rig.control);
        assert_eq!(rig.control.iter().filter(|m| **m == hard).count(), tick, "silence says nothing");
    }
    assert_eq!(rig.taken_inside().len(), 2);
    assert_eq!(rig.fast.counters.dropped(DropReason::SaExpired), 6);
}
