//! The LNS against bytes of other implementations, made by hand after their published AVP lists.

use super::*;

/// A hand-driven client.
struct Client {
    lns: Endpoint,
    now: Instant,
    peer: PeerId,
    ns: u16,
    nr: u16,
    tunnel: u16,
    session: u16,
    events: Vec<Event>,
    received: Vec<String>,
}

impl Client {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        Self {
            lns: Endpoint::new(config, [9; 32], Instant::ZERO),
            now: Instant::from_secs(5),
            peer: PEER,
            ns: 0,
            nr: 0,
            tunnel: 0,
            session: 0,
            events: Vec::new(),
            received: Vec::new(),
        }
    }

    fn send(&mut self, session: u16, body: &[u8]) {
        let header = ControlHeader { tunnel_id: self.tunnel, session_id: session, ns: self.ns, nr: self.nr };
        self.ns += u16::from(!body.is_empty());
        let mut bytes = header.emit(body.len()).to_vec();
        bytes.extend_from_slice(body);
        self.send_raw(&bytes);
    }

    fn send_raw(&mut self, bytes: &[u8]) {
        self.lns.handle_control(self.now, self.peer, 1701, bytes);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.lns.poll_output() {
            match output {
                Output::Event(event) => self.events.push(event),
                Output::Transmit(t) => {
                    self.received.push(name(&t.bytes));
                    let Ok(Packet::Control(header, body)) = Packet::parse(&t.bytes) else { panic!("not control") };
                    let message = ControlMessage::parse(header, body, None);
                    if !body.is_empty() && header.ns == self.nr {
                        self.nr += 1;
                    }
                    match message.message_type().and_then(|k| Message::from_avps(k, &message.avps)) {
                        Some(Message::Sccrp(reply)) => self.tunnel = reply.assigned_tunnel_id.unwrap(),
                        Some(Message::Icrp(reply)) => self.session = reply.assigned_session_id.unwrap(),
                        _ => {}
                    }
                }
            }
        }
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now + core::time::Duration::from_secs(secs);
        self.lns.handle_timeout(self.now);
        self.drain();
    }

    fn received(&mut self) -> Vec<String> {
        core::mem::take(&mut self.received)
    }

    /// Through to an open session, with Apple's short messages.
    fn open(&mut self) {
        self.send_raw(&sccrq(77, &[]));
        self.ns = 1;
        self.send(0, SCCCN);
        self.send(0, &hex!("8008 0000 0000 000a  8008 0000 000e 0005  800a 0000 000f 00000001"));
        self.send(self.session, ICCN);
        assert_eq!(count(&self.events, is_session_up), 1);
        self.received();
    }
}

const SCCCN: &[u8] = &hex!("8008 0000 0000 0003");
const ICCN: &[u8] = &hex!("8008 0000 0000 000c  800a 0000 0018 000f4240  800a 0000 0013 00000001");

#[test]
fn windows_comes_in_with_its_vendor_avps_and_correlation_id() {
    let mut c = Client::new();
    // Framing 1, bearer 0, firmware 0a00, "pc", "Microsoft", tunnel 24, window 8.
    c.send_raw(&{
        let body = hex!(
            "8008 0000 0000 0001  8008 0000 0002 0100  800a 0000 0003 00000001  800a 0000 0004 00000000
            0008 0000 0006 0a00  8008 0000 0007 7063  000f 0000 0008 4d6963726f736f6674  8008 0000 0009 0018
            8008 0000 000a 0008"
        );
        let mut bytes = ControlHeader { tunnel_id: 0, session_id: 0, ns: 0, nr: 0 }.emit(body.len()).to_vec();
        bytes.extend_from_slice(&body);
        bytes
    });
    c.ns = 1;
    c.send(0, SCCCN);
    // ICRQ: 14, 15, 18, and vendor 311 type 1 (correlation id).
    c.send(
        0,
        &hex!(
            "8008 0000 0000 000a  8008 0000 000e 0001  800a 0000 000f 00000000  800a 0000 0012 00000002
        0016 0137 0001 000102030405060708090a0b0c0d0e0f"
        ),
    );
    c.send(c.session, ICCN);
    assert_eq!(c.received(), ["SCCRP", "ZLB", "ICRP", "ZLB"]);
    let Some(Event::SessionUp(info)) = c.events.last() else { panic!("{:?}", c.events) };
    assert_eq!((info.host_name.as_str(), info.peer_tunnel, info.peer_session), ("pc", 24, 1));
    let Some(Event::TunnelUp(info)) = c.events.first() else { panic!("{:?}", c.events) };
    assert_eq!(info.vendor_name, "Microsoft");
}

#[test]
fn apple_has_a_nul_behind_its_host_name_and_little_endian_result_codes() {
    let mut c = Client::new();
    c.send_raw(&sccrq(3, &hex!("800a 0000 0007 6d616300  8008 0000 000a 0004")));
    c.ns = 1;
    c.send(0, SCCCN);
    c.send(0, &hex!("8008 0000 0000 000a  8008 0000 000e 0009  800a 0000 000f 00000001"));
    c.send(c.session, ICCN);
    let Some(Event::SessionUp(info)) = c.events.last() else { panic!("{:?}", c.events) };
    assert_eq!(info.host_name, "mac");
    // CDN, then StopCCN, each with a Result Code of 8 octets: the number in the wrong order and rubbish.
    c.send(c.session, &hex!("8008 0000 0000 000e  800e 0000 0001 0300 0100 deadbeef  8008 0000 000e 0009"));
    assert_eq!(count(&c.events, is_session_down), 1);
    let Some(Event::SessionDown(down)) = c.events.last() else { panic!("{:?}", c.events) };
    assert!(down.reason.to_string().contains("administrative"), "{}", down.reason);
    c.send(0, &hex!("8008 0000 0000 0004  8008 0000 0009 0003  800e 0000 0001 0100 0000 deadbeef"));
    assert_eq!(count(&c.events, is_tunnel_down), 1);
}

#[test]
fn a_stop_ccn_whose_avps_overrun_the_message_ends_the_tunnel_all_the_same() {
    let mut c = Client::new();
    c.open();
    c.send(0, &hex!("8008 0000 0000 0004  800e 0000 0001 0100"));
    assert_eq!(count(&c.events, is_tunnel_down), 1);
    assert_eq!(c.received(), ["ZLB"]);
}

#[test]
fn android_has_a_window_of_one() {
    let mut c = Client::new();
    c.send_raw(&sccrq(3, &hex!("800f 0000 0007 616e6f6e796d6f7573  8008 0000 000a 0001")));
    c.ns = 1;
    c.send(0, SCCCN);
    c.send(0, &hex!("8008 0000 0000 000a  8008 0000 000e 0009  800a 0000 000f 00000001"));
    c.send(c.session, ICCN);
    c.received();
    let session = c.session;
    // Two messages of ours: the second waits for the acknowledgement of the first.
    c.lns.disconnect_session(c.now, session, ResultCode::new(cdn::ADMINISTRATIVE, "x"));
    let tunnel = c.tunnel;
    c.lns.disconnect_tunnel(c.now, tunnel, ResultCode::new(stop_ccn::CLEAR, "x"));
    c.drain();
    assert_eq!(c.received(), ["CDN"]);
    c.send(0, &[]);
    assert_eq!(c.received(), ["STOPCCN"]);
}

#[test]
fn a_repeated_sccrq_is_a_retransmission_and_not_a_new_tunnel() {
    let mut c = Client::new();
    for _ in 0..5 {
        c.send_raw(&sccrq(24, &[]));
    }
    assert_eq!(c.lns.tunnel_count(), 1);
    assert_eq!(c.received(), ["SCCRP"; 5]);
    c.ns = 1;
    c.send(0, SCCCN);
    c.received();
    c.send_raw(&sccrq(24, &[]));
    assert_eq!((c.lns.tunnel_count(), c.received()), (1, vec!["ZLB".into()]));
    assert_eq!(count(&c.events, is_tunnel_down), 0);
}

#[test]
fn two_peers_may_have_the_same_tunnel_id() {
    let mut c = Client::new();
    c.send_raw(&sccrq(24, &[]));
    let first = c.tunnel;
    c.peer = PeerId(8);
    c.nr = 0;
    c.send_raw(&sccrq(24, &[]));
    assert_ne!(first, c.tunnel);
    assert_eq!(c.lns.tunnel_count(), 2);
    // Neither can speak for the other.
    c.tunnel = first;
    c.ns = 1;
    c.send(0, &hex!("8008 0000 0000 0004  8008 0000 0001 0001"));
    assert_eq!((c.lns.stats().unknown_tunnel, c.events.len()), (1, 0));
}

#[test]
fn a_client_that_starts_anew_with_its_old_tunnel_id_replaces_the_old_tunnel() {
    let mut c = Client::new();
    c.open();
    c.wait(40);
    let old = c.tunnel;
    c.nr = 0;
    c.send_raw(&sccrq(77, &[]));
    assert_eq!(c.received(), ["SCCRP"]);
    assert_ne!(c.tunnel, old);
    assert_eq!((c.lns.tunnel_count(), c.lns.session_count()), (1, 0));
    assert!(matches!(c.events.iter().rev().nth(1), Some(Event::SessionDown(d)) if d.reason == DownReason::Replaced));
}

#[test]
fn a_zlb_may_carry_the_session_id_and_takes_no_sequence_number() {
    let mut c = Client::new();
    c.open();
    let session = c.session;
    (0..3).for_each(|_| c.send(session, &[]));
    c.send(0, &hex!("8008 0000 0000 0006"));
    assert_eq!(c.received(), ["ZLB"]);
    assert_eq!(c.lns.stats().duplicates, 0);
}

#[test]
fn an_unknown_mandatory_avp_ends_the_session_or_the_tunnel_that_it_is_about() {
    let mut c = Client::new();
    c.open();
    // About a session that is not there yet: refused, the rest stays.
    c.send(0, &hex!("8008 0000 0000 000a  8008 0000 000e 0006  800a 0000 000f 00000001  8008 0000 0fff 0000"));
    assert_eq!(c.received(), ["CDN"]);
    assert_eq!(refusals(&c.events).len(), 1);
    assert_eq!(c.lns.session_count(), 1);
    // About the tunnel: all is closed.
    c.send(0, &hex!("8008 0000 0000 0006  8008 0000 0fff 0000"));
    assert_eq!(c.received(), ["STOPCCN"]);
    assert_eq!((count(&c.events, is_session_down), count(&c.events, is_tunnel_down)), (1, 1));
}

#[test]
fn an_unknown_message_is_skipped_or_fatal_as_its_m_bit_says() {
    let mut c = Client::new();
    c.open();
    c.send(0, &hex!("0008 0000 0000 0063"));
    assert_eq!((c.received(), count(&c.events, is_tunnel_down)), (vec!["ZLB".into()], 0));
    c.send(0, &hex!("8008 0000 0000 0063"));
    assert_eq!((c.received(), count(&c.events, is_tunnel_down)), (vec!["STOPCCN".into()], 1));
}

#[test]
fn an_sccrq_of_another_version_or_without_a_tunnel_id_is_refused() {
    let mut c = Client::new();
    let mut v2 = sccrq(5, &[]);
    v2[12 + 8 + 6] = 2;
    c.send_raw(&v2);
    assert_eq!(c.received(), ["STOPCCN"]);
    assert!(refusals(&c.events)[0].1.contains("L2TP 2.0"));
    // Its retransmission gets the same answer and no record.
    c.send_raw(&v2);
    assert_eq!((c.received(), refusals(&c.events).len()), (vec!["STOPCCN".into()], 1));
    c.send_raw(&sccrq(0, &[]));
    c.send_raw(&sccrq(0, &[]));
    assert_eq!((c.received().len(), refusals(&c.events).len()), (0, 2));
}

#[test]
fn a_peer_cannot_open_tunnels_without_end() {
    let mut c = Client::new();
    for id in 1..1000 {
        c.send_raw(&sccrq(id, &[]));
    }
    assert_eq!(c.lns.tunnel_count(), 4);
    // Nor by closing them at once.
    let mut c = Client::new();
    for id in 1..1000 {
        c.nr = 0;
        c.send_raw(&sccrq(id, &[]));
        c.ns = 1;
        c.send(0, &hex!("8008 0000 0000 0004  8008 0000 0001 0001"));
        assert!(c.lns.tunnel_count() <= 4);
    }
    assert_eq!(refusals(&c.events).len(), 999);
}

#[test]
fn sequencing_is_told_when_the_client_asks_for_it() {
    let mut c = Client::new();
    c.send_raw(&sccrq(77, &[]));
    c.ns = 1;
    c.send(0, SCCCN);
    c.send(0, &hex!("8008 0000 0000 000a  8008 0000 000e 0005  800a 0000 000f 00000001"));
    c.send(c.session, &hex!("8008 0000 0000 000c  800a 0000 0018 000f4240  800a 0000 0013 00000001  8006 0000 0027"));
    assert!(matches!(c.events.last(), Some(Event::SessionUp(info)) if info.sequencing));
}

#[test]
fn an_outgoing_call_is_refused_and_the_tunnel_stays() {
    let mut c = Client::new();
    c.open();
    c.send(0, &hex!("8008 0000 0000 0007  8008 0000 000e 0008"));
    assert_eq!((c.received(), count(&c.events, is_tunnel_down)), (vec!["CDN".into()], 0));
}

#[test]
fn a_client_that_takes_its_sccrq_back_before_it_knows_our_id_is_heard() {
    let mut c = Client::new();
    c.send_raw(&sccrq(5, &[]));
    c.tunnel = 0;
    c.ns = 1;
    c.send(0, &hex!("8008 0000 0000 0004  8008 0000 0009 0005  8008 0000 0001 0001"));
    assert_eq!(refusals(&c.events).len(), 1);
}

#[test]
fn an_l2tpv3_request_is_dropped() {
    let mut c = Client::new();
    let mut v3 = sccrq(5, &[]);
    v3[1] = 3;
    c.send_raw(&v3);
    assert_eq!((c.received().len(), c.events.len(), c.lns.stats().malformed), (0, 0, 1));
}

#[test]
fn messages_that_arrive_out_of_order_are_put_in_order() {
    let mut c = Client::new();
    c.send_raw(&sccrq(77, &[]));
    // ICRQ overtakes SCCCN.
    c.ns = 2;
    c.send(0, &hex!("8008 0000 0000 000a  8008 0000 000e 0005  800a 0000 000f 00000001"));
    c.received();
    c.ns = 1;
    c.send(0, SCCCN);
    assert_eq!(c.received(), ["ICRP"]);
    assert_eq!(c.lns.stats().out_of_order, 1);
}
