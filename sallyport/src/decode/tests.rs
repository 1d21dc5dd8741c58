//! Odd captures of our own making: every kind of link and wrapping, ports moved by NATs, fragments, cut and damaged files.

use std::io::Write as _;

use proptest::prelude::*;

use super::capture::{Frame, Reader, Trouble};
use super::layers::Decoder;
use super::record::{Clock, Printer, Record};
use super::*;

/// A main mode message 1 in its shortest form: header, and one Vendor ID of eight bytes.
fn ike(cky_i: u64, cky_r: u64) -> Vec<u8> {
    let mut m = [cky_i.to_be_bytes(), cky_r.to_be_bytes()].concat();
    m.extend([13, 0x10, 2, 0, 0, 0, 0, 0, 0, 0, 0, 40]);
    m.extend([0, 0, 0, 12]);
    m.extend(hex_literal::hex!("09002689dfd6b712"));
    m
}

fn esp(spi: u32) -> Vec<u8> {
    [&spi.to_be_bytes()[..], &[0, 0, 0, 9], &[0xaa; 24]].concat()
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() + 8) as u16;
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

fn ipv4_fragment(protocol: u8, id: u16, field: u16, payload: &[u8]) -> Vec<u8> {
    let total = (payload.len() + 20) as u16;
    let mut p = vec![0x45, 0];
    p.extend(total.to_be_bytes());
    p.extend(id.to_be_bytes());
    p.extend(field.to_be_bytes());
    p.extend([64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    p.extend(payload);
    p
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_fragment(protocol, 1, 0, payload)
}

/// An IPv6 packet with extension headers: each is a protocol number and the bytes behind its Next Header field.
fn ipv6(extensions: &[(u8, &[u8])], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (i, (_, rest)) in extensions.iter().enumerate() {
        body.push(extensions.get(i + 1).map_or(protocol, |(next, _)| *next));
        body.extend(*rest);
    }
    body.extend(payload);
    let mut p = vec![0x60, 0, 0, 0];
    p.extend((body.len() as u16).to_be_bytes());
    p.extend([extensions.first().map_or(protocol, |(first, _)| *first), 64]);
    p.extend(std::net::Ipv6Addr::LOCALHOST.octets());
    p.extend("2001:db8::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    p.extend(body);
    p
}

fn ethernet(kind: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1][..], &[2, 0, 0, 0, 0, 2], kind, payload].concat()
}

fn frames(link: u32, packets: &[Vec<u8>]) -> Vec<Frame> {
    let frame = |(i, data): (usize, &Vec<u8>)| Frame {
        number: i as u64 + 1,
        time: Some(1_800_000_000_000_000_000 + i as u64 * 1_000_000),
        link,
        original_len: data.len(),
        data: data.clone(),
    };
    packets.iter().enumerate().map(frame).collect()
}

fn decode_frames(frames: &[Frame], show_secrets: bool) -> Vec<Record> {
    let mut decoder = Decoder::new(show_secrets);
    frames.iter().for_each(|f| decoder.frame(f));
    decoder.finish();
    decoder.records
}

fn decode(link: u32, packets: &[Vec<u8>]) -> Vec<Record> {
    decode_frames(&frames(link, packets), false)
}

fn protocols(records: &[Record]) -> Vec<&'static str> {
    records.iter().map(|r| if r.malformed.is_some() { "malformed" } else { r.protocol }).collect()
}

/// The only line of one packet.
fn line(link: u32, packet: Vec<u8>) -> String {
    let records = decode(link, &[packet]);
    assert_eq!(records.len(), 1, "{records:?}");
    Printer::new(false, Clock::Relative, None).line(&records[0])
}

/// A capture file with one record for each frame; `cut` bytes of each are missing.
fn pcap(link: u32, packets: &[Vec<u8>], cut: usize) -> Vec<u8> {
    let mut file = hex_literal::hex!("d4c3b2a1 0200 0400 00000000 00000000 00000400").to_vec();
    file.extend(link.to_le_bytes());
    for p in packets {
        let kept = p.len().saturating_sub(cut);
        for field in [1_800_000_000, 5, kept as u32, p.len() as u32] {
            file.extend(field.to_le_bytes());
        }
        file.extend(&p[..kept]);
    }
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut padded = body.to_vec();
    padded.resize(body.len().next_multiple_of(4), 0);
    let len = (padded.len() as u32 + 12).to_be_bytes();
    [&kind.to_be_bytes()[..], &len, &padded, &len].concat()
}

fn read(file: &[u8]) -> (Vec<Frame>, Option<Trouble>) {
    let mut reader = match Reader::new(file) {
        Ok(reader) => reader,
        Err(trouble) => return (vec![], Some(trouble)),
    };
    let mut frames = vec![];
    loop {
        match reader.next() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(trouble) => return (frames, Some(trouble)),
        }
    }
}

#[test]
fn messages_are_found_on_every_kind_of_link() {
    let packet = ipv4(17, &udp(500, 500, &ike(1, 0)));
    let v6 = ipv6(&[], 17, &udp(500, 500, &ike(1, 0)));
    let sll = |kind: [u8; 2], p: &[u8]| [&[0; 14][..], &kind, p].concat();
    let sll2 = |kind: [u8; 2], p: &[u8]| [&kind[..], &[0; 18], p].concat();
    let nflog = [&hex_literal::hex!("02000000")[..], &[5, 0, 10, 0, b'x', 0, 0, 0]].concat();
    let nflog = [&nflog[..], &((packet.len() + 4) as u16).to_ne_bytes(), &9_u16.to_ne_bytes(), &packet].concat();
    let pppoe = |p: &[u8]| [&[0x11, 0, 0, 7][..], &((p.len() + 2) as u16).to_be_bytes(), &[0, 0x21], p].concat();
    for (link, frame) in [
        (1, ethernet(&[8, 0], &packet)),
        (1, ethernet(&[0x86, 0xdd], &v6)),
        (1, ethernet(&[0x81, 0, 0, 5, 8, 0], &packet)),
        (1, ethernet(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd], &v6)),
        (1, ethernet(&[0x88, 0x47, 0, 0, 0, 64, 0, 0, 1, 64], &packet)),
        (1, ethernet(&[0, 60, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &packet)),
        (113, sll([8, 0], &packet)),
        (276, sll2([0x86, 0xdd], &v6)),
        (101, packet.clone()),
        (12, v6.clone()),
        (228, packet.clone()),
        (229, v6.clone()),
        (0, [&[2, 0, 0, 0][..], &packet].concat()),
        (0, [&[0, 0, 0, 30][..], &v6].concat()),
        (108, [&[0, 0, 0, 2][..], &packet].concat()),
        (109, [&[0; 12][..], &packet].concat()),
        (239, nflog),
        (104, [&[0x0f, 0, 8, 0][..], &packet].concat()),
    ] {
        let records = decode(link, &[frame]);
        assert_eq!(protocols(&records), ["IKEv1"], "link {link}");
        let ends = format!("{} {}", records[0].place.source, records[0].place.destination);
        assert!(["192.0.2.1:500 192.0.2.2:500", "[::1]:500 [2001:db8::2]:500"].contains(&&*ends), "{ends}");
    }
    // Links of PPP: the packet is a PPP message of its own.
    for (link, frame) in [
        (9, [&[0xff, 3, 0, 0x21][..], &packet].concat()),
        (9, [&[0x21][..], &packet].concat()),
        (50, [&[0xff, 3, 0x21][..], &packet].concat()),
        (166, [&[0, 3, 0, 0x21][..], &packet].concat()),
        (204, [&[1, 0xff, 3, 0, 0x21][..], &packet].concat()),
        (51, pppoe(&packet)),
        (1, ethernet(&[0x88, 0x64], &pppoe(&packet))),
        (1, ethernet(&[8, 0], &ipv4(47, &[&[0, 0, 0x88, 0x0b, 0x21][..], &packet].concat()))),
    ] {
        assert_eq!(protocols(&decode(link, &[frame])), ["PPP", "IKEv1"], "link {link}");
    }
    let sent = decode(166, &[hex_literal::hex!("01 03 c021 09010008 01020304").to_vec()]);
    assert_eq!((sent[0].place.source, sent[0].protocol), (record::End::Local, "LCP"));
}

#[test]
fn a_link_that_is_not_known_is_named_once() {
    let mut decoder = Decoder::new(false);
    frames(127, &[vec![1], vec![2]]).iter().for_each(|f| decoder.frame(f));
    assert_eq!((decoder.records.len(), decoder.unknown_links().collect::<Vec<_>>()), (0, vec![127]));
}

#[test]
fn extension_headers_and_tunnels_are_taken_off() {
    let message = udp(4500, 4500, &[&[0; 4][..], &ike(1, 0)].concat());
    let options: (u8, &[u8]) = (0, &[0, 0, 0, 0, 0, 0, 0]);
    let routing: (u8, &[u8]) = (43, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let atomic: (u8, &[u8]) = (44, &[0, 0, 0, 0, 0, 0, 1]);
    let v6 = ipv6(&[options, routing, (60, options.1), atomic], 17, &message);
    assert_eq!(protocols(&decode(101, std::slice::from_ref(&v6))), ["IKEv1"]);
    assert_eq!(protocols(&decode(101, &[ipv4(41, &v6)])), ["IKEv1"]);
    let gre_key = [&[0x30, 0, 0x08, 0, 0, 0, 0, 1, 0, 0, 0, 2][..], &ipv4(50, &esp(0x1000))].concat();
    assert_eq!(protocols(&decode(101, &[ipv4(47, &gre_key)])), ["ESP"]);
    let bridged = [&[0, 0, 0x65, 0x58][..], &ethernet(&[8, 0], &ipv4(17, &message))].concat();
    assert_eq!(protocols(&decode(101, &[ipv4(47, &bridged)])), ["IKEv1"]);
    let ah = [&hex_literal::hex!("32 04 0000 00001234 00000007")[..], &[0; 12], &esp(0x1000)].concat();
    assert_eq!(protocols(&decode(101, &[ipv4(51, &ah)])), ["AH", "ESP"]);
    // A packet in a packet in a packet: the digging ends.
    let mut nested = ipv4(50, &esp(0x1000));
    for _ in 0..100 {
        nested = ipv4(4, &nested);
    }
    assert!(decode(101, &[nested]).is_empty());
}

#[test]
fn fragments_are_put_together_in_any_order_and_missing_ones_are_told() {
    let mut long = ike(1, 0);
    long.truncate(28);
    long[27] = 0;
    long[26] = 0x0c; // 3072 bytes
    long[16] = 43;
    long.extend([0, 0, 0x0b, 0xe4]);
    long.resize(3072, 0x41);
    let whole = udp(500, 500, &long);
    let piece = |id, from: usize, to: usize| {
        let more = if to < whole.len() { 0x2000 } else { 0 };
        ipv4_fragment(17, id, more | (from / 8) as u16, &whole[from..to])
    };
    let end = whole.len();
    let records = decode(101, &[piece(7, 2960, end), piece(7, 0, 1480), piece(8, 0, 1480), piece(7, 1480, 2960)]);
    assert_eq!(protocols(&records), ["IKEv1", "malformed"]);
    assert_eq!((records[0].place.frame, records[1].place.frame), (4, 3));
    let why = records[1].malformed.as_deref().unwrap();
    assert_eq!(why, "IP fragments are missing: 1480 of an unknown number bytes arrived");

    let v6_piece = |from: usize, to: usize| {
        let field = (from as u16 | u16::from(to < end)).to_be_bytes();
        let header = [&[0][..], &field, &[0, 0, 0, 9]].concat();
        ipv6(&[(44, &header)], 17, &whole[from..to])
    };
    assert_eq!(protocols(&decode(101, &[v6_piece(1480, end), v6_piece(0, 1480)])), ["IKEv1"]);
    // A capture with short frames keeps the start of the first one only.
    let (frames, _) = read(&pcap(101, &[piece(9, 0, 1480), piece(9, 1480, 2960)], 1400));
    let records = decode_frames(&frames, false);
    assert_eq!(protocols(&records), ["malformed"]);
    assert!(records[0].summary.starts_with("MAIN_MODE"));
    // Fragments of other people's datagrams are not our business.
    let dns = udp(5000, 53, &[0; 2000]);
    assert!(decode(101, &[ipv4_fragment(17, 1, 0x2000, &dns[..1480])]).is_empty());
}

#[test]
fn conversations_are_followed_to_the_ports_that_a_nat_gives_them() {
    let known = 0x1122_3344_5566_7788;
    let marked = |cky_r| [&[0; 4][..], &ike(known, cky_r)].concat();
    let back = |mut packet: Vec<u8>| {
        packet[12..20].rotate_left(4); // source and destination
        packet
    };
    let records = decode(
        101,
        &[
            ipv4(17, &udp(17_023, 500, &ike(known, 0))),
            back(ipv4(17, &udp(500, 17_023, &ike(known, 5)))),
            // A gateway behind a port forwarding: neither side has a port that tells.
            ipv4(17, &udp(40_000, 14_500, &marked(5))),
            back(ipv4(17, &udp(14_500, 40_000, &esp(0xc0de_0001)))),
            ipv4(17, &udp(40_000, 14_500, &[0xff])),
            // Others' datagrams on other ports stay unseen, whatever they look like.
            ipv4(17, &udp(40_001, 14_500, &esp(0xc0de_0001))),
            ipv4(17, &udp(40_001, 14_500, &ike(9, 5))),
            ipv4(17, &udp(4500, 53, &[0x12; 40])),
            ipv4(17, &udp(443, 1701, &[0x40; 40])),
            // But the first message of a conversation looks like nothing else.
            ipv4(17, &udp(40_002, 14_500, &ike(9, 0))),
        ],
    );
    assert_eq!(protocols(&records), ["IKEv1", "IKEv1", "IKEv1", "ESP", "NAT-T", "IKEv1"]);
    assert_eq!(records.iter().map(|r| r.place.frame).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 10]);
}

#[test]
fn the_early_drafts_put_esp_on_port_500() {
    let draft = [&[0; 8][..], &esp(0xc0de_0001)].concat();
    assert_eq!(protocols(&decode(101, &[ipv4(17, &udp(500, 500, &draft))])), ["ESP"]);
    assert_eq!(protocols(&decode(101, &[ipv4(17, &udp(500, 500, &[0; 40]))])), ["malformed"]);
    assert_eq!(protocols(&decode(101, &[ipv4(17, &udp(4500, 4500, &[0, 0, 0]))])), ["malformed"]);
    // A peer that forgets the marker on port 4500.
    assert_eq!(protocols(&decode(101, &[ipv4(17, &udp(4500, 4500, &ike(1, 0)))])), ["IKEv1"]);
}

/// An L2TP data message around a PPP frame.
fn l2tp(frame: &[u8]) -> Vec<u8> {
    ipv4(17, &udp(1701, 1701, &[&hex_literal::hex!("0002 0005 0007")[..], frame].concat()))
}

#[test]
fn ppp_in_l2tp_is_opened() {
    let lcp = hex_literal::hex!("ff03 c021 01 05 001a 0104 0578 0506 0c6f3548 0702 0802 0305 c223 81 0d03 06");
    let expected =
        "LCP     Configure-Request id 5: MRU=1400 MAGIC=0c6f3548 PFC ACFC AUTH=MS-CHAPv2 CALLBACK=6  [in L2TP 5/7]\n";
    assert!(line(101, l2tp(&lcp)).ends_with(expected), "{}", line(101, l2tp(&lcp)));
    let ipcp = hex_literal::hex!("8021 03 02 0010 0306 0a580001 8106 0a4d0035");
    assert!(line(101, l2tp(&ipcp)).contains("Configure-Nak id 2: ADDRESS=10.88.0.1 DNS1=10.77.0.53"));
    let terminate = hex_literal::hex!("c021 05 06 0010 0c6f3548 003ccd74 000002dc");
    assert!(line(101, l2tp(&terminate)).contains("Terminate-Request id 6: Windows error 732"));
    let reject = hex_literal::hex!("c021 08 07 0006 80fd");
    assert!(line(101, l2tp(&reject)).contains("Protocol-Reject id 7: CCP"));
    let whole_fragment = hex_literal::hex!("003d c0000005 c021 09010008 01020304");
    assert!(line(101, l2tp(&whole_fragment)).contains("LCP     Echo-Request id 1: magic 01020304"));
    let bad = hex_literal::hex!("c021 01 05 0008 0100 0578");
    assert!(line(101, l2tp(&bad)).contains("malformed: bad length of option: 0 (Configure-Request id 5)"));
    assert!(line(101, l2tp(&[0xc0])).contains("malformed: truncated: PPP protocol"));
    assert!(line(101, l2tp(&[])).contains("data tunnel 5 session 7, empty"));
    assert!(line(101, ipv4(17, &udp(1701, 1701, &[0xc8, 3]))).contains("L2TP    malformed: bad value in version: 3"));
}

#[test]
fn passwords_are_shown_only_when_asked_for() {
    let pap = l2tp(&hex_literal::hex!("c023 01 01 000f 03 616461 06 7365 63726574"));
    let proxy = hex_literal::hex!(
        "c802 0020 0001 0001 0000 0000"
        "8008 0000 0000 000c"
        "800c 0000 0021 736563726574"
    );
    let proxy = ipv4(17, &udp(1701, 1701, &proxy));
    let gtc = l2tp(&hex_literal::hex!("c227 02 01 000b 06 736563726574"));
    let chap = l2tp(&[&hex_literal::hex!("c223 02 01 0018 10")[..], b"0123456789abcdef", b"ada"].concat());
    for (packet, shown) in [(pap, true), (proxy, false), (gtc, false), (chap, false)] {
        let print = |show: bool, json: bool| {
            let records = decode_frames(&frames(101, std::slice::from_ref(&packet)), show);
            assert_eq!(records.len(), 1);
            assert_eq!(records[0].malformed, None);
            Printer::new(json, Clock::Utc, None).line(&records[0])
        };
        for json in [false, true] {
            let text = print(false, json);
            for secret in ["secret", "736563726574", "0123456789abcdef", "303132333435"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
        assert_eq!(print(true, false).contains("\"secret\""), shown);
    }
}

#[test]
fn pptp_control_messages_are_named_and_repeated_segments_are_not() {
    let message = hex_literal::hex!("0018 0001 1a2b3c4d 000f 0000 0100 0000 ffffffff ffffffff");
    let segment = |seq: u32, payload: &[u8]| {
        let head = [&[4, 0, 6, 0xbb][..], &seq.to_be_bytes(), &[0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0]].concat();
        ipv4(6, &[&head[..], payload].concat())
    };
    let two = [message, message].concat();
    let packets = [
        segment(100, &message),
        segment(100, &message),
        segment(124, &two),
        segment(172, b"garbage"),
        segment(179, b""),
    ];
    let records = decode(101, &packets);
    assert_eq!(protocols(&records), ["PPTP", "PPTP", "PPTP"]);
    assert_eq!(records[0].summary, "Set-Link-Info call 256");
}

#[test]
fn a_cut_frame_says_so() {
    let file = pcap(101, &[ipv4(17, &udp(500, 500, &ike(1, 0))), ipv4(50, &esp(0x1000))], 6);
    let (frames, trouble) = read(&file);
    assert!(trouble.is_none());
    let records = decode_frames(&frames, false);
    assert_eq!(protocols(&records), ["malformed", "ESP"]);
    assert_eq!(records[0].malformed.as_deref(), Some("the capture kept 62 of 68 bytes of the frame"));
    assert!(records[0].summary.starts_with("MAIN_MODE 0000000000000001"));
}

#[test]
fn json_lines_hold_all_fields() {
    let records = decode(1, &[ethernet(&[0x81, 0, 0, 5, 8, 0], &ipv4(17, &udp(500, 501, &ike(1, 0))))]);
    let mut printer = Printer::new(true, Clock::Relative, Some("a.pcap".into()));
    printer.note_time(records[0].place.time);
    let line = printer.line(&records[0]);
    assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    let expected = serde_json::json!({
        "file": "a.pcap", "frame": 1, "time": "2027-01-15T08:00:00.000000Z", "seconds": 0.0,
        "source": "192.0.2.1:500", "destination": "192.0.2.2:501", "protocol": "IKEv1",
        "summary": "MAIN_MODE 0000000000000001 0000000000000000 id 00000000: VID(XAUTH)",
        "inside": { "vlan": [5] },
        "message": {
            "initiator_spi": "0000000000000001", "responder_spi": "0000000000000000", "version": "1.0",
            "exchange": "MAIN_MODE", "exchange_number": 2, "flags": [], "flags_octet": 0, "message_id": 0,
            "next_payload": "VENDOR_ID", "length": 40, "datagram_length": 40, "non_esp_marker": false,
            "payloads": [{ "type": "VID", "name": "XAUTH", "data": "09002689dfd6b712" }],
        },
    });
    assert_eq!(value, expected);
}

#[test]
fn every_file_format_gives_the_same_frames() {
    let packet = ipv4(17, &udp(500, 500, &ike(1, 0)));
    let little = pcap(101, std::slice::from_ref(&packet), 0);
    let swapped = |file: &[u8], extra: bool| {
        let mut out = vec![];
        let kuznetzov = hex_literal::hex!("a1b2cd34");
        out.extend(if extra { kuznetzov } else { hex_literal::hex!("a1b2c3d4") });
        out.extend([0, 2, 0, 4]);
        for word in file[8..24].chunks(4).chain(file[24..40].chunks(4)) {
            out.extend(word.iter().rev());
        }
        out.extend(vec![0; if extra { 8 } else { 0 }]);
        out.extend(&file[40..]);
        out
    };
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    gz.write_all(&little).unwrap();
    let section = block(0x0a0d_0d0a, &hex_literal::hex!("1a2b3c4d 0001 0000 ffffffff ffffffff"));
    // Resolution 10^-9, offset 1,800,000,000 s.
    let options = hex_literal::hex!("0009 0001 09000000 000e 0008 000000006b49d200 0000 0000");
    let interface = block(1, &[&hex_literal::hex!("0065 0000 00000000")[..], &options].concat());
    let len = (packet.len() as u32).to_be_bytes();
    let enhanced = block(6, &[&[0; 4][..], &[0; 4], &5000_u32.to_be_bytes(), &len, &len, &packet].concat());
    let old = block(2, &[&[0; 4][..], &[0; 4], &5000_u32.to_be_bytes(), &len, &len, &packet].concat());
    let simple = block(3, &[&len[..], &packet].concat());
    let unknown = block(0x8000_0001, b"other data");
    let pcapng = [section, interface, unknown, enhanced, old, simple].concat();

    let expected =
        Frame { number: 1, time: Some(1_800_000_000_000_005_000), link: 101, original_len: packet.len(), data: packet };
    for file in [&little, &swapped(&little, false), &swapped(&little, true), &gz.finish().unwrap()] {
        let (frames, trouble) = read(file);
        assert!(trouble.is_none(), "{trouble:?}");
        assert_eq!(frames, std::slice::from_ref(&expected));
    }
    let (frames, trouble) = read(&pcapng);
    assert!(trouble.is_none(), "{trouble:?}");
    assert_eq!(frames[..2], [expected.clone(), Frame { number: 2, ..expected.clone() }]);
    assert_eq!(frames[2], Frame { number: 3, time: None, ..expected });
}

#[test]
fn what_is_no_capture_is_refused_and_what_breaks_off_is_read_so_far() {
    for (file, why) in [
        (&b""[..], "the file is empty"),
        (b"hello, world", "it is neither pcap nor pcapng"),
        (b"BZh91AY", "it is compressed with something else than gzip; unpack it first"),
    ] {
        assert!(matches!(read(file).1, Some(Trouble::NotACapture(w)) if w == why));
    }
    let packets = [ipv4(50, &esp(0x1000)), ipv4(50, &esp(0x1000))];
    let file = pcap(101, &packets, 0);
    for n in 24..file.len() {
        let (frames, trouble) = read(&file[..n]);
        let whole = (n - 24) / (16 + packets[0].len());
        assert_eq!(frames.len(), whole, "{n} bytes");
        assert_eq!(trouble.is_some(), n != 24 + whole * (16 + packets[0].len()), "{n} bytes: {trouble:?}");
    }
    let mut huge = file.clone();
    huge[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&huge), (frames, Some(Trouble::Damaged(_))) if frames.is_empty()));
}

#[test]
fn hexadecimal_digits_are_read_in_any_grouping() {
    assert_eq!(from_hex(b"0a 0B:0c\n0d"), Some(vec![10, 11, 12, 13]));
    assert_eq!(from_hex(b"0a0"), None);
    assert_eq!(from_hex(b"xyz0"), None);
    assert_eq!(from_hex(b""), None);
}

/// Everything that the command does with a file, without the file.
fn whole_way(file: &[u8]) -> usize {
    let (frames, _) = read(file);
    let records = decode_frames(&frames, true);
    for json in [false, true] {
        let mut printer = Printer::new(json, Clock::Relative, None);
        for record in &records {
            printer.note_time(record.place.time);
            let line = printer.line(record);
            assert_eq!(line.matches('\n').count(), 1, "one line each");
            assert!(!line.trim_end_matches('\n').contains(|c: char| c.is_control()), "{line:?}");
            if json {
                assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
            }
        }
    }
    records.len()
}

/// Captures to damage: our own recordings, and the odd ones above.
fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    SAMPLES.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures");
        let recorded = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        let recorded = recorded.filter(|p| p.extension().is_some_and(|e| e == "pcap"));
        let mut samples: Vec<Vec<u8>> = recorded.filter_map(|p| std::fs::read(p).ok()).collect();
        samples.sort();
        let gre = [&hex_literal::hex!("3001 880b 000c 0100 00000001 ff03 c021 09010008 01020304")[..]].concat();
        let odd = [
            ethernet(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0], &ipv4(17, &udp(500, 500, &ike(1, 0)))),
            ethernet(
                &[0x86, 0xdd],
                &ipv6(&[(0, &[0; 7]), (44, &[0, 0, 1, 0, 0, 0, 1])], 17, &udp(4500, 9, &esp(4096))),
            ),
            ethernet(&[8, 0], &ipv4(47, &gre)),
            ethernet(&[8, 0], &ipv4_fragment(17, 3, 0x2000, &udp(500, 500, &[1; 16]))),
            ethernet(&[8, 0], &ipv4_fragment(17, 3, 3, &[2; 30])),
            ethernet(&[0x88, 0x64], &hex_literal::hex!("1100 0007 000c c023 01 01 000a 01 61 03 616263")),
        ];
        samples.push(pcap(1, &odd, 0));
        samples
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn damaged_captures_never_panic(
        which: prop::sample::Index, cut in prop::option::of(any::<prop::sample::Index>()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..200),
    ) {
        let mut file = samples()[which.index(samples().len())].clone();
        for (index, value) in changes {
            let at = index.index(file.len());
            file[at] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        whole_way(&file);
    }

    #[test]
    fn messages_damaged_inside_sound_frames_never_panic(
        which: prop::sample::Index, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let (mut frames, _) = read(&samples()[which.index(samples().len())]);
        for frame in &mut frames {
            // Behind the Ethernet and IPv4 headers, so that the damage reaches the messages.
            let Some(message) = frame.data.get_mut(34..).filter(|m| !m.is_empty()) else { continue };
            for (index, value) in &changes {
                let at = index.index(message.len());
                message[at] ^= value;
            }
        }
        let records = decode_frames(&frames, true);
        let mut printer = Printer::new(true, Clock::Relative, None);
        records.iter().for_each(|r| drop(printer.line(r)));
    }

    #[test]
    fn arbitrary_frames_of_any_link_never_panic(
        link in prop::sample::select(vec![0_u32, 1, 9, 12, 50, 51, 101, 104, 108, 109, 113, 166, 204, 239, 276, 999]),
        data in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        decode(link, &[data]);
    }

    #[test]
    fn arbitrary_bare_messages_never_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
        for raw in [Raw::Ike, Raw::Esp, Raw::L2tp, Raw::Ppp, Raw::Ip, Raw::Ethernet] {
            let mut decoder = Decoder::new(true);
            decoder.raw(raw, &data);
        }
    }
}
