//! The packet path in both directions.

use sallyport_base::PeerId;
use sallyport_crypto::suite::EspSuite;

use super::config::{DataConfig, DataLimits};
use super::packet::build::{checksums_are_right, ipv4, tcp, udp};
use super::packet::{PROTO_ICMP, PROTO_TCP, u16_at, u32_at};
use super::rig::*;
use super::segment::{F_NEEDS_CSUM, GSO_TCPV4, VnetHeader};
use super::stats::{Count, DropReason};
use super::transmit::Carrier;
use crate::link::{FromData, InstallSession, OuterPath, SessionCounters, SessionNetwork, ToData};
use crate::net::Role;

mod control;
mod properties;

const GCM: EspSuite = EspSuite::AES128_GCM16;
const SUITES: [EspSuite; 4] = [GCM, EspSuite::AES256_GCM16, EspSuite::AES256_CBC_SHA1, EspSuite::TRIPLE_DES_SHA1];

fn rig() -> Rig {
    Rig::new(&DataConfig::default())
}

fn from_client(c: &Client, len: usize) -> Vec<u8> {
    udp(c.address, SERVER, (5000, 53), true, &vec![7; len])
}

fn to_client(c: &Client, len: usize, df: bool) -> Vec<u8> {
    udp(SERVER, c.address, (53, 5000), df, &vec![8; len])
}

#[test]
fn a_client_s_packet_comes_out_inside_as_it_was() {
    for suite in SUITES {
        let mut rig = rig();
        let mut c = rig.client(suite, 1);
        let packets: Vec<_> = [0, 1, 100, 1372].iter().map(|n| from_client(&c, *n)).collect();
        let sealed: Vec<_> = packets.iter().map(|p| c.data(p)).collect();
        rig.receive(c.path, &sealed);
        assert_eq!(rig.taken_inside(), packets, "{suite}");
        assert_eq!(rig.fast.counters.dropped_total(), 0);
    }
}

#[test]
fn a_packet_from_inside_comes_out_at_the_client_as_it_was() {
    for suite in SUITES {
        let mut rig = rig();
        let mut c = rig.client(suite, 1);
        let packets: Vec<_> = [0, 1, 100, 1372].iter().map(|n| to_client(&c, *n, true)).collect();
        for p in &packets {
            rig.give_inside(p, false);
        }
        rig.flush();
        let sent = std::mem::take(&mut rig.sent.packets);
        assert!(sent.iter().all(|s| (s.0, s.1, s.2) == (Carrier::Udp, c.path.local, c.path.remote)));
        let got: Vec<_> = sent.iter().map(|s| c.open_data(&s.3)).collect();
        assert_eq!(got, packets, "{suite}");
    }
}

#[test]
fn a_batch_that_the_system_put_together_is_opened_packet_by_packet() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let packets: Vec<_> = (0..40).map(|n| from_client(&c, if n == 39 { 10 } else { 1000 })).collect();
    let sealed: Vec<_> = packets.iter().map(|p| c.data(p)).collect();
    rig.receive.push(Role::NatT, c.path.local, c.path.remote, sealed.iter().map(|p| &p[..]));
    rig.process();
    let inside = rig.taken_inside();
    assert_eq!(inside.len(), 40);
    assert!(inside.iter().zip(&packets).all(|(a, b)| a[20..] == b[20..]));
}

#[test]
fn a_superpacket_from_inside_is_one_send() {
    let mut rig = rig();
    let mut c = rig.client(EspSuite::AES256_CBC_SHA1, 1);
    let payload: Vec<u8> = (0..=255).cycle().take(60_000).collect();
    let packet = tcp(SERVER, c.address, (80, 9), 5, 0x18, &[], &payload);
    let vnet = VnetHeader { flags: F_NEEDS_CSUM, gso_type: GSO_TCPV4, gso_size: 1340, ..VnetHeader::default() };
    rig.give_inside(&[&vnet.emit()[..], &packet].concat(), true);
    rig.flush();
    assert_eq!((rig.sent.sends, rig.sent.packets.len()), (1, 45));
    let mut got = Vec::new();
    for s in std::mem::take(&mut rig.sent.packets) {
        let p = c.open_data(&s.3);
        assert!(checksums_are_right(&p));
        assert_eq!(u32_at(&p, 24) as usize, 5 + got.len());
        got.extend_from_slice(&p[40..]);
    }
    assert_eq!(got, payload);
}

#[test]
fn a_superpacket_of_tiny_segments_is_sent_in_parts_and_loses_nothing() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let payload: Vec<u8> = (0..=255).cycle().take(60_001).collect();
    let packet = tcp(SERVER, c.address, (80, 9), 0, 0x10, &[], &payload);
    let vnet = VnetHeader { flags: F_NEEDS_CSUM, gso_type: GSO_TCPV4, gso_size: 8, ..VnetHeader::default() };
    rig.give_inside(&[&vnet.emit()[..], &packet].concat(), true);
    rig.flush();
    let got: Vec<u8> =
        std::mem::take(&mut rig.sent.packets).iter().flat_map(|s| c.open_data(&s.3)[40..].to_vec()).collect();
    assert_eq!(got, payload);
}

#[test]
fn small_packets_to_one_peer_share_a_send_and_those_to_another_do_not() {
    let mut rig = rig();
    let (a, b) = (rig.client(GCM, 1), rig.client(GCM, 2));
    for c in [&a, &a, &a, &b, &b, &a] {
        rig.give_inside(&to_client(c, 100, true), false);
    }
    rig.flush();
    assert_eq!((rig.sent.sends, rig.sent.packets.len()), (3, 6));
}

#[test]
fn native_esp_has_its_ip_header_taken_off_and_goes_back_without_udp() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let path = OuterPath { local: addr("198.51.100.1:0"), remote: addr("203.0.113.5:0"), encap: false };
    rig.apply(ToData::MovePeer { peer: c.peer, path });
    let packet = from_client(&c, 100);
    let esp = c.data(&packet);
    let outer = ipv4("203.0.113.5".parse().unwrap(), "198.51.100.1".parse().unwrap(), 50, false, &esp);
    rig.receive_as(Role::Esp, path.local, path.remote, &[outer]);
    assert_eq!(rig.taken_inside(), [packet]);
    rig.give_inside(&to_client(&c, 10, true), false);
    rig.flush();
    assert_eq!((rig.sent.packets[0].0, rig.sent.packets[0].2), (Carrier::Esp, path.remote));
}

#[test]
fn a_session_of_another_peer_is_out_of_reach() {
    let mut rig = rig();
    let (mut a, b) = (rig.client(GCM, 1), rig.client(GCM, 2));
    a.ids = b.ids;
    let packet = udp(b.address, SERVER, (1, 2), true, b"mine");
    let sealed = a.data(&packet);
    let frame = a.l2tp(&[0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 8, 0, 0, 0, 0]);
    let control = a.seal(&frame);
    rig.receive(a.path, &[sealed, control]);
    assert!(rig.taken_inside().is_empty() && rig.control.is_empty());
    assert_eq!(rig.fast.counters.dropped(DropReason::WrongPeer), 2);
}

#[test]
fn a_client_sends_from_its_own_address_only() {
    let mut rig = rig();
    let (mut a, b) = (rig.client(GCM, 1), rig.client(GCM, 2));
    for source in [b.address, SERVER, std::net::Ipv4Addr::UNSPECIFIED] {
        let sealed = a.data(&udp(source, SERVER, (1, 2), true, b"spoof"));
        rig.receive(a.path, &[sealed]);
    }
    assert!(rig.taken_inside().is_empty());
    assert_eq!(rig.fast.counters.dropped(DropReason::SpoofedSource), 3);
}

#[test]
fn clients_reach_each_other_only_where_that_is_allowed() {
    for allowed in [true, false] {
        let mut rig = Rig::new(&DataConfig { client_to_client: allowed, ..DataConfig::default() });
        let (mut a, b) = (rig.client(GCM, 1), rig.client(GCM, 2));
        let packet = udp(a.address, b.address, (1, 2), true, b"hello");
        let sealed = a.data(&packet);
        rig.receive(a.path, &[sealed]);
        assert_eq!(rig.taken_inside().len(), usize::from(allowed));
        assert_eq!(rig.fast.counters.dropped(DropReason::ClientToClient), u64::from(!allowed));
    }
}

#[test]
fn l2tp_in_the_clear_is_counted_and_nothing_else() {
    let mut rig = rig();
    let c = rig.client(GCM, 1);
    let clear = c.l2tp(&[&[0xff, 0x03, 0x00, 0x21][..], &from_client(&c, 10)].concat());
    rig.receive_as(Role::ClearL2tp, addr("198.51.100.1:1701"), addr("203.0.113.5:1701"), &[clear.clone(), clear]);
    assert!(rig.taken_inside().is_empty() && rig.control.is_empty());
    assert_eq!(rig.fast.counters.dropped(DropReason::L2tpInClear), 2);
}

#[test]
fn replays_and_changed_packets_are_dropped() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let packet = from_client(&c, 10);
    let sealed = c.data(&packet);
    let mut changed = c.data(&packet);
    changed[20] ^= 1;
    let mut unknown = c.data(&packet);
    unknown[0] ^= 0x40;
    rig.receive(c.path, &[sealed.clone(), sealed.clone(), changed, unknown, sealed]);
    assert_eq!(rig.taken_inside().len(), 1);
    let count = |d| rig.fast.counters.dropped(d);
    assert_eq!((count(DropReason::Replayed), count(DropReason::Integrity), count(DropReason::UnknownSpi)), (2, 1, 1));
}

#[test]
fn a_packet_that_must_not_be_cut_and_is_too_big_is_answered_with_icmp() {
    let mut rig = rig();
    let c = rig.client(GCM, 1);
    let packet = to_client(&c, 1373, true);
    rig.inside.plain = true;
    rig.give_inside(&packet, false);
    rig.flush();
    assert!(rig.sent.packets.is_empty());
    let icmp = rig.taken_inside().pop().unwrap();
    assert!(checksums_are_right(&icmp));
    assert_eq!((&icmp[12..16], &icmp[16..20]), (&ROUTER.octets()[..], &SERVER.octets()[..]));
    assert_eq!((icmp[9], icmp[20], icmp[21], u16_at(&icmp, 26)), (PROTO_ICMP, 3, 4, MTU));
    assert_eq!(rig.fast.counters.dropped(DropReason::TooBig), 1);
}

#[test]
fn icmp_errors_are_limited() {
    let mut rig = rig();
    let c = rig.client(GCM, 1);
    for _ in 0..1000 {
        rig.give_inside(&to_client(&c, 1400, true), false);
    }
    assert_eq!(rig.fast.counters.count(Count::IcmpSent), 256);
    rig.fast.report_liveness(&mut rig.control);
    rig.give_inside(&to_client(&c, 1400, true), false);
    assert_eq!(rig.fast.counters.count(Count::IcmpSent), 257);
}

#[test]
fn a_packet_that_may_be_cut_is_cut() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let packet = to_client(&c, 3000, false);
    rig.give_inside(&packet, false);
    rig.flush();
    let mut payload = Vec::new();
    for s in std::mem::take(&mut rig.sent.packets) {
        let f = c.open_data(&s.3);
        assert!(f.len() <= usize::from(MTU));
        payload.extend_from_slice(&f[20..]);
    }
    assert_eq!(payload, packet[20..]);
}

#[test]
fn the_mss_of_both_directions_is_clamped() {
    let mss = |p: &[u8]| u16_at(p, 42);
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let options = [2, 4, 0x05, 0xb4];
    let up = tcp(c.address, SERVER, (9, 80), 0, 2, &options, &[]);
    let sealed = c.data(&up);
    rig.receive(c.path, &[sealed]);
    rig.give_inside(&tcp(SERVER, c.address, (80, 9), 0, 0x12, &options, &[]), false);
    rig.flush();
    let down = c.open_data(&rig.sent.packets[0].3);
    for p in [rig.taken_inside().remove(0), down] {
        assert_eq!((p[9], mss(&p)), (PROTO_TCP, MTU - 40));
        assert!(checksums_are_right(&p));
    }
}

#[test]
fn every_form_of_header_that_clients_mix_is_taken() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let packet = from_client(&c, 20);
    let (t, s) = (c.ids.0.to_be_bytes(), c.ids.1.to_be_bytes());
    let mut padded = packet.clone();
    padded.extend([0; 6]);
    let ids = [t, s].concat();
    let len = |extra: usize, body: usize| ((6 + extra + body) as u16).to_be_bytes();
    let ppp = [&[0xff, 0x03, 0x00, 0x21][..], &packet].concat();
    let messages = [
        [&[0, 2][..], &ids, &[0x21], &packet].concat(),
        [&[0, 2][..], &ids, &[0x00, 0x21], &packet].concat(),
        [&[0, 2][..], &ids, &[0xff, 0x03, 0x21], &padded].concat(),
        [&[0x40, 2][..], &len(2, ppp.len()), &ids, &ppp, &[9, 9]].concat(),
        [&[0x48, 2][..], &len(6, ppp.len()), &ids, &[0, 5, 0, 0], &ppp].concat(),
        [&[0x02, 2][..], &ids, &[0, 3, 1, 2, 3], &ppp].concat(),
        [&[0x01, 2][..], &ids, &ppp].concat(),
    ];
    for m in &messages {
        let sealed = c.seal(m);
        rig.receive(c.path, &[sealed]);
        assert_eq!(rig.taken_inside(), std::slice::from_ref(&packet), "{:02x?}", &m[..12]);
    }
}

#[test]
fn compression_of_headers_and_sequence_numbers_are_used_when_agreed() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    rig.apply(ToData::InstallSession(Box::new(InstallSession {
        peer: c.peer,
        peer_port: 40_000,
        local_tunnel: 1,
        local_session: 1,
        peer_tunnel: 21,
        peer_session: 22,
        sequencing: true,
        network: SessionNetwork { acfc: true, pfc: true, ..network(c.address) },
    })));
    let packet = to_client(&c, 5, true);
    rig.give_inside(&packet, false);
    rig.give_inside(&packet, false);
    rig.apply(ToData::SendPpp { local_tunnel: 1, local_session: 1, frame: vec![0xff, 3, 0xc0, 0x21] });
    rig.flush();
    for (n, s) in std::mem::take(&mut rig.sent.packets).iter().enumerate() {
        let m = c.open(&s.3);
        assert_eq!(m[..10], [8, 2, 0, 21, 0, 22, 0, n as u8, 0, 0]);
        let body = if n < 2 { [&[0x21], &packet[..]].concat() } else { vec![0xff, 3, 0xc0, 0x21] };
        assert_eq!(m[10..], body);
    }
}

#[test]
fn a_session_that_takes_everything_is_the_initiator_s_side() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let (local_tunnel, local_session) = c.ids;
    let network = SessionNetwork { default_route: true, ..network(c.address) };
    rig.apply(ToData::UpdateSession { local_tunnel, local_session, network });
    let from_server = udp(SERVER, c.address, (53, 1), true, b"answer");
    let sealed = c.data(&from_server);
    rig.receive(c.path, &[sealed]);
    assert_eq!(rig.taken_inside(), [from_server]);
    let to_server = udp(c.address, SERVER, (1, 53), true, b"question");
    rig.give_inside(&to_server, false);
    rig.flush();
    assert_eq!(c.open_data(&rig.sent.packets[0].3), to_server);
}

#[test]
fn what_is_not_l2tp_is_refused_inside_esp_too() {
    let mut rig = rig();
    let mut c = rig.client(GCM, 1);
    let mut wrong_port = vec![0; 20];
    wrong_port[3] = 53;
    wrong_port[5] = 20;
    let packets = [
        c.seal_bare(&wrong_port, 17),
        c.seal_bare(&from_client(&rig.client(GCM, 2), 5), 4),
        c.seal_bare(&[6, 165, 6, 165, 0, 99, 0, 0, 0, 2], 17),
        c.seal(&[0x00, 0x03, 0, 0, 0, 0, 0, 0]),
        c.seal(&[0x00, 0x02, 0, 101, 0, 201, 0xff, 0x03]),
    ];
    rig.receive(c.path, &packets);
    let count = |d| rig.fast.counters.dropped(d);
    assert_eq!((count(DropReason::NotL2tp), count(DropReason::Truncated), count(DropReason::L2tpMalformed)), (2, 1, 1));
    assert_eq!((count(DropReason::PppMalformed), rig.taken_inside().len()), (1, 0));
}
