//! The server against a Windows 7 client, frame by frame in the form and order that real ones are known to send
//! (numbers, names and keys are made up), and against what is known of other clients.

use super::*;
use crate::decode::Frame;
use crate::output::{AuthProof, Reject};

struct Windows {
    link: Link,
    now: Instant,
    events: Vec<Event>,
    questions: Vec<(QuestionId, crate::output::AuthRequest)>,
    sent: Vec<Vec<u8>>,
}

impl Windows {
    fn new(config: ServerConfig) -> Self {
        let now = Instant::from_secs(100);
        let link = Link::server(config, [7; 32], now);
        let mut this = Self { link, now, events: Vec::new(), questions: Vec::new(), sent: Vec::new() };
        this.drain();
        this
    }

    fn drain(&mut self) {
        while let Some(output) = self.link.poll_output() {
            match output {
                Output::Frame(frame) => self.sent.push(frame),
                Output::Event(event) => self.events.push(event),
                Output::Question(id, request) => self.questions.push((id, request)),
            }
        }
    }

    fn send(&mut self, frame: &[u8]) {
        self.link.handle_frame(self.now, frame);
        self.drain();
    }

    fn answer(&mut self, answer: Answer) {
        let (id, _) = self.questions.last().expect("a question");
        self.link.handle_answer(self.now, *id, answer);
        self.drain();
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
        self.link.handle_timeout(self.now);
        self.drain();
    }

    /// What the server has said since the last look, one line each.
    fn said(&mut self) -> Vec<String> {
        self.sent.drain(..).map(|f| Frame::parse(&f).map_or_else(|e| e.to_string(), |f| f.to_string())).collect()
    }

    /// The last frame of this protocol and code, as its packet.
    fn last(&self, protocol: Protocol, code: u8) -> Vec<u8> {
        let mut packets = self.sent.iter().filter_map(|f| strip(f)).filter(|(p, _)| *p == protocol.0).map(|(_, p)| p);
        packets.rfind(|p| p[0] == code).expect("a frame").to_vec()
    }

    /// Acknowledges our LCP request as it stands.
    fn ack_lcp(&mut self) {
        let mut request = self.last(Protocol::LCP, 1);
        request[0] = 2;
        self.send(&control_frame(Protocol::LCP, &request));
    }

    /// Through LCP, as Windows does it.
    fn lcp(&mut self) {
        self.send(&hex!("ff03 c021 01 00 0015 01040578 05061a2b3c4d 0702 0802 0d0306"));
        self.send(&hex!("ff03 c021 01 01 0012 01040578 05061a2b3c4d 0702 0802"));
        self.ack_lcp();
    }

    /// A response to a challenge, with values of our own.
    fn response(&self, id: u8) -> Vec<u8> {
        let mut packet = hex!(
            "02 00 003a 31 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 0000000000000000
            b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7 00 616e6e61"
        )
        .to_vec();
        packet[1] = id;
        [&hex!("c223")[..], &packet].concat()
    }

    fn challenge_id(&self) -> u8 {
        self.last(Protocol::CHAP, 1)[1]
    }
}

/// A proof in the right form, which is all that the link looks at.
fn accept() -> Answer {
    let response = "S=0123456789ABCDEF0123456789ABCDEF01234567".into();
    Answer::Accept(Accept { authenticator_response: Some(response), ..net::accept() })
}

fn mschap() -> ServerConfig {
    server(&[AuthMethod::MsChapV2])
}

#[test]
fn windows_7_connects() {
    let mut w = Windows::new(mschap());
    assert_eq!(w.said().len(), 0, "the server waits for the client to begin");
    w.send(&hex!("ff03 c021 01 00 0015 01040578 05061a2b3c4d 0702 0802 0d0306"));
    let said = w.said();
    assert!(said[0].starts_with("LCP CONFIGURE_REQUEST id=1 MRU=1400 AUTH=MS-CHAPv2 MAGIC="), "{said:?}");
    assert_eq!(said[1], "LCP CONFIGURE_REJECT id=0 CALLBACK=6");
    w.send(&hex!("ff03 c021 01 01 0012 01040578 05061a2b3c4d 0702 0802"));
    assert_eq!(w.said(), ["LCP CONFIGURE_ACK id=1 MRU=1400 MAGIC=1a2b3c4d PFC=yes ACFC=yes"]);
    // Windows was not ready for our first request and acknowledges its retransmission, 3 s later.
    w.wait(3);
    w.ack_lcp();
    let challenge = w.challenge_id();
    w.said();
    assert!(matches!(w.events[..], [Event::LcpUp(LcpUp { peer_mru: 1400, pfc: true, acfc: true, .. })]));
    // Three identifications; the last is a GUID.
    w.send(&hex!("c021 0c 02 0012 1a2b3c4d 4d53524153 56352e3230"));
    w.send(&hex!("c021 0c 03 0014 1a2b3c4d 4d535241532d302d50432d37"));
    w.send(&hex!("c021 0c 04 0018 1a2b3c4d f0e1d2c3b4a5968778695a4b3c2d1e0f"));
    assert_eq!(
        w.events[1..],
        [Event::PeerIdentified("MSRASV5.20".into()), Event::PeerIdentified("MSRAS-0-PC-7".into())]
    );
    assert_eq!(w.said(), [""; 0]);
    w.send(&w.response(challenge));
    let (_, request) = &w.questions[0];
    assert_eq!(request.user, "anna");
    let AuthProof::MsChapV2 { peer_challenge, nt_response, .. } = &request.method else { panic!("{request:?}") };
    assert_eq!((peer_challenge[0], nt_response[23]), (0xa0, 0xc7));
    w.answer(accept());
    let said = w.said();
    assert!(said[0].starts_with("CHAP SUCCESS") && said[0].contains("S=0123456789ABCDEF0123456789ABCDEF01234567 M="));
    assert_eq!(said[1], "IPCP CONFIGURE_REQUEST id=1 ADDRESS=10.9.0.1");
    // The network protocols, in the client's order.
    w.send(&hex!("8057 01 05 000e 01 0a 0211223344556677"));
    assert_eq!(w.said(), ["LCP PROTOCOL_REJECT id=1 rejected=IPV6CP"]);
    w.send(&hex!("80fd 01 06 000a 12 06 01000040"));
    assert_eq!(w.said(), ["LCP PROTOCOL_REJECT id=2 rejected=CCP"]);
    w.send(&hex!("8021 01 07 0022 0306 00000000 8106 00000000 8206 00000000 8306 00000000 8406 00000000"));
    assert_eq!(w.said(), ["IPCP CONFIGURE_REJECT id=7 NBNS1=0.0.0.0 DNS2=0.0.0.0 NBNS2=0.0.0.0"]);
    w.send(&hex!("8021 01 08 0010 0306 00000000 8106 00000000"));
    assert_eq!(w.said(), ["IPCP CONFIGURE_NAK id=8 ADDRESS=10.9.0.77 DNS1=10.9.0.53"]);
    w.send(&hex!("8021 01 09 0010 0306 0a09004d 8106 0a090035"));
    assert_eq!(w.said(), ["IPCP CONFIGURE_ACK id=9 ADDRESS=10.9.0.77 DNS1=10.9.0.53"]);
    w.send(&hex!("8021 02 01 000a 0306 0a090001"));
    let up = network(&w.events).expect("a network");
    assert_eq!((up.local, up.peer, up.mtu), (LOCAL, LEASED, 1400));
    // It hangs up with its error number, twice.
    w.send(&hex!("c021 05 0a 0010 1a2b3c4d 003ccd74 00000000"));
    assert_eq!(w.said(), ["LCP TERMINATE_ACK id=10"]);
    assert_eq!(downs(&w.events), [DownReason::PeerTerminated(Some("the user disconnected (Windows)".into()))]);
    w.now = w.now + Duration::from_secs(2);
    w.send(&hex!("c021 05 0b 0010 1a2b3c4d 003ccd74 00000000"));
    assert_eq!(w.said(), ["LCP TERMINATE_ACK id=11"]);
    w.wait(3);
    assert!(w.link.is_finished());
    check_promises(&w.events);
}

#[test]
fn a_name_server_that_we_lack_is_rejected_and_all_options_are_answered_at_once() {
    let mut w = Windows::new(mschap());
    w.lcp();
    w.send(&w.response(w.challenge_id()));
    let Answer::Accept(accept) = accept() else { panic!() };
    w.answer(Answer::Accept(Accept { dns: [None; 2], ..accept }));
    w.said();
    w.send(&hex!("8021 01 07 0022 0306 00000000 8106 00000000 8206 00000000 8306 00000000 8406 00000000"));
    assert_eq!(w.said(), ["IPCP CONFIGURE_REJECT id=7 DNS1=0.0.0.0 NBNS1=0.0.0.0 DNS2=0.0.0.0 NBNS2=0.0.0.0"]);
    // Van Jacobson compression is rejected, too.
    w.send(&hex!("8021 01 08 0010 0206 002d0f01 0306 00000000"));
    assert_eq!(w.said(), ["IPCP CONFIGURE_REJECT id=8 COMPRESSION=002d0f01"]);
}

#[test]
fn ipcp_that_comes_before_the_answer_is_held_and_then_answered() {
    let mut w = Windows::new(mschap());
    w.lcp();
    w.send(&w.response(w.challenge_id()));
    w.said();
    w.send(&hex!("8021 01 07 000a 0306 00000000"));
    assert_eq!(w.said(), [""; 0]);
    w.answer(accept());
    let said = w.said();
    assert_eq!(
        said[1..],
        ["IPCP CONFIGURE_REQUEST id=1 ADDRESS=10.9.0.1", "IPCP CONFIGURE_NAK id=7 ADDRESS=10.9.0.77"]
    );
}

#[test]
fn windows_2000_and_multilink_are_rejected_in_one_packet() {
    let mut w = Windows::new(mschap());
    w.send(&hex!(
        "ff03 c021 01 00 002c 05060badcafe 0702 0802 0d0306 1104064e 1317 01 0102030405060708090a0b0c0d0e0f1011121314"
    ));
    let said = w.said();
    assert!(said[1].starts_with("LCP CONFIGURE_REJECT id=0 CALLBACK=6 MRRU=1614 ENDPOINT=1:0102"), "{said:?}");
}

#[test]
fn apples_acsp_is_rejected_and_its_options_are_taken() {
    let mut w = Windows::new(mschap());
    // MRU 1280, ACCM 0, magic, PFC, ACFC.
    w.send(&hex!("ff03 c021 01 01 0018 01040500 0206 00000000 0506 11223344 0702 0802"));
    assert!(w.said()[1].starts_with("LCP CONFIGURE_ACK id=1 MRU=1280 ACCM=00000000"));
    w.wait(3);
    w.ack_lcp();
    w.send(&w.response(w.challenge_id()));
    w.answer(accept());
    w.said();
    w.send(&hex!("8235 01 01 000a 01 06 00000001"));
    assert_eq!(w.said(), ["LCP PROTOCOL_REJECT id=1 rejected=ACSCP"]);
    w.send(&hex!("8021 01 01 0016 0306 00000000 8106 00000000 8306 00000000"));
    w.send(&hex!("8021 01 02 0010 0306 0a09004d 8106 0a090035"));
    w.send(&hex!("8021 02 01 000a 0306 0a090001"));
    assert_eq!(network(&w.events).expect("a network").mtu, 1280);
}

#[test]
fn a_wrong_password_may_be_typed_again_with_the_new_challenge() {
    for next_id in [0, 1] {
        let mut w = Windows::new(mschap());
        w.lcp();
        let id = w.challenge_id();
        w.send(&w.response(id));
        w.answer(Answer::Reject(Reject { retry: true, ..net::reject(true) }));
        let failure = String::from_utf8(w.last(Protocol::CHAP, 4)[4..].to_vec()).unwrap();
        assert!(failure.starts_with("E=691 R=1 C=") && failure.contains(" V=3 M="), "{failure}");
        let fresh = crate::auth::MsChapFailure::parse(failure.as_bytes()).challenge.expect("a challenge");
        w.said();
        // Its old response again is a retransmission.
        w.send(&w.response(id));
        assert!(w.said()[0].starts_with("CHAP FAILURE"));
        assert_eq!(w.questions.len(), 1);
        // The user takes half a minute.
        w.wait(30);
        assert_eq!(w.said().iter().filter(|f| !f.contains("ECHO")).count(), 0);
        let mut second = w.response(id.wrapping_add(next_id));
        second[8] ^= 1;
        w.send(&second);
        assert_eq!(w.questions.len(), 2);
        let (_, request) = &w.questions[1];
        assert_eq!(request.attempt, 2);
        assert!(
            matches!(request.method, AuthProof::MsChapV2 { authenticator_challenge, .. } if authenticator_challenge == fresh)
        );
        w.answer(accept());
        assert!(w.said()[0].starts_with(&format!("CHAP SUCCESS id={}", id.wrapping_add(next_id))));
        assert_eq!(refusals(&w.events), []);
    }
}

#[test]
fn the_number_of_attempts_is_bounded() {
    let mut w = Windows::new(mschap());
    w.lcp();
    let mut id = w.challenge_id();
    for attempt in 1..=3u8 {
        let mut response = w.response(id);
        response[8] ^= attempt;
        w.send(&response);
        w.answer(Answer::Reject(net::reject(true)));
        id = id.wrapping_add(1);
    }
    assert_eq!(w.questions.len(), 3);
    let retries = w.events.iter().filter(|e| matches!(e, Event::AuthenticationRetry { .. })).count();
    assert_eq!((retries, refusals(&w.events).len()), (2, 1));
    let said = w.said();
    assert!(said.iter().any(|f| f.contains("R=0")), "{said:?}");
    assert!(said.last().unwrap().starts_with("LCP TERMINATE_REQUEST"), "{said:?}");
}

#[test]
fn a_user_who_gives_up_after_a_wrong_password_is_recorded_with_that_cause() {
    let mut w = Windows::new(mschap());
    w.lcp();
    w.send(&w.response(w.challenge_id()));
    w.answer(Answer::Reject(net::reject(true)));
    w.send(&hex!("c021 05 0a 0010 1a2b3c4d 003ccd74 000002b3"));
    let refused = refusals(&w.events);
    assert_eq!(refused[0].cause, "wrong password; the client then hung up");
    assert_eq!(refused[0].user.as_deref(), Some("anna"));
}

#[test]
fn a_lost_success_is_sent_again_when_the_client_repeats_its_response() {
    let mut w = Windows::new(mschap());
    w.lcp();
    let id = w.challenge_id();
    w.send(&w.response(id));
    w.send(&w.response(id));
    assert_eq!(w.questions.len(), 1, "the controller is asked once");
    w.answer(accept());
    w.said();
    w.send(&w.response(id));
    assert!(w.said()[0].starts_with("CHAP SUCCESS"));
    assert_eq!(w.questions.len(), 1);
}

#[test]
fn an_unanswered_challenge_is_repeated_and_then_given_up() {
    let mut w = Windows::new(mschap());
    w.lcp();
    w.said();
    for _ in 0..9 {
        w.wait(3);
        assert_eq!(w.said().iter().filter(|f| f.starts_with("CHAP CHALLENGE")).count(), 1);
    }
    w.wait(3);
    assert!(refusals(&w.events)[0].cause.contains("does not answer the MS-CHAPv2 challenge"));
}

#[test]
fn windows_tells_by_number_that_it_got_no_address() {
    let mut w = Windows::new(mschap());
    w.lcp();
    w.send(&w.response(w.challenge_id()));
    w.answer(accept());
    w.send(&hex!("c021 05 0a 0010 1a2b3c4d 003ccd74 000002e2"));
    let refused = refusals(&w.events);
    assert_eq!((refused.len(), refused[0].phase), (1, Phase::Ipcp));
    assert!(
        refused[0].cause.contains("Windows error 738: the server did not assign an address"),
        "{}",
        refused[0].cause
    );
}

#[test]
fn a_client_that_insists_on_its_own_address_is_refused_in_the_end() {
    let mut w = Windows::new(mschap());
    w.lcp();
    w.send(&w.response(w.challenge_id()));
    w.answer(accept());
    for id in 0..6 {
        let mut frame = hex!("8021 01 00 000a 0306 c0a80105");
        frame[3] = id;
        w.send(&frame);
    }
    let refused = refusals(&w.events);
    assert_eq!((refused.len(), refused[0].phase), (1, Phase::Ipcp));
    assert!(refused[0].cause.contains("192.168.1.5 instead of 10.9.0.77"), "{}", refused[0].cause);
}

#[test]
fn a_client_that_wants_eap_is_told_what_is_allowed() {
    let mut w = Windows::new(server(&[AuthMethod::MsChapV2, AuthMethod::Pap]));
    w.send(&hex!("ff03 c021 01 00 000e 01040578 05061a2b3c4d"));
    for id in 1..=2 {
        let mut nak = hex!("c021 03 00 0008 0304 c227");
        nak[3] = id;
        w.send(&nak);
    }
    let refused = refusals(&w.events);
    assert_eq!((refused.len(), refused[0].phase), (1, Phase::Lcp));
    assert!(refused[0].cause.contains("asks for EAP; allowed here: MS-CHAPv2, PAP"), "{}", refused[0].cause);
}

#[test]
fn a_client_that_refuses_to_authenticate_is_refused() {
    let mut w = Windows::new(mschap());
    w.send(&hex!("ff03 c021 01 00 000e 01040578 05061a2b3c4d"));
    w.send(&hex!("c021 04 01 0009 0305 c22381"));
    assert_eq!(refusals(&w.events)[0].cause, "the client refuses to authenticate");
}

#[test]
fn echoes_are_answered_with_our_magic_number() {
    let mut w = Windows::new(mschap());
    w.lcp();
    let request = w.last(Protocol::LCP, 1);
    let at = request.windows(2).position(|o| o == [5, 6]).expect("magic") + 2;
    let magic = &request[at..at + 4];
    w.said();
    w.send(&hex!("c021 09 07 000c 1a2b3c4d 01020304"));
    let expected = [&hex!("ff03 c021 0a 07 000c")[..], magic, &hex!("01020304")].concat();
    assert_eq!(w.sent, [expected]);
    // What is echoed is bounded by what was received, and an echo without a magic number is none.
    w.said();
    w.send(&hex!("c021 09 07 0004"));
    assert_eq!(w.said(), [""; 0]);
}

#[test]
fn an_unknown_code_is_rejected_and_discard_and_time_remaining_are_not() {
    let mut w = Windows::new(mschap());
    w.lcp();
    w.said();
    w.send(&hex!("c021 0b 07 0008 1a2b3c4d"));
    w.send(&hex!("c021 0d 07 000c 1a2b3c4d 00000010"));
    assert_eq!(w.said(), [""; 0]);
    w.send(&hex!("c021 63 07 0006 abcd"));
    assert_eq!(w.said(), ["LCP CODE_REJECT id=2 data=63070006abcd"]);
}

#[test]
fn a_lost_configure_ack_does_not_take_the_link_down() {
    let mut w = Windows::new(mschap());
    w.lcp();
    w.said();
    // The client has not seen our Ack and asks again, the same under the same number.
    w.send(&hex!("ff03 c021 01 01 0012 01040578 05061a2b3c4d 0702 0802"));
    assert_eq!(w.said(), ["LCP CONFIGURE_ACK id=1 MRU=1400 MAGIC=1a2b3c4d PFC=yes ACFC=yes"]);
    // Another request is a new negotiation, with authentication and all.
    w.send(&hex!("ff03 c021 01 05 0012 01040578 05061a2b3c4e 0702 0802"));
    let said = w.said();
    assert!(said[0].starts_with("LCP CONFIGURE_REQUEST") && said[1].starts_with("LCP CONFIGURE_ACK id=5"), "{said:?}");
    assert_eq!(refusals(&w.events), []);
}

#[test]
fn a_new_negotiation_after_data_flowed_ends_the_link() {
    let mut w = Windows::new(mschap());
    w.lcp();
    w.send(&w.response(w.challenge_id()));
    w.answer(accept());
    w.send(&hex!("8021 01 09 000a 0306 0a09004d"));
    w.send(&hex!("8021 02 01 000a 0306 0a090001"));
    assert!(network(&w.events).is_some());
    // IPCP once more, with the same outcome: nothing happens to the data.
    w.send(&hex!("8021 01 0a 000a 0306 0a09004d"));
    let again = w.last(Protocol::IPCP, 1);
    w.send(&control_frame(Protocol::IPCP, &[&[2], &again[1..]].concat()));
    assert_eq!(downs(&w.events), []);
    w.wait(100);
    assert_eq!(downs(&w.events), []);
    w.send(&hex!("ff03 c021 01 05 0012 01040578 05061a2b3c4e 0702 0802"));
    assert_eq!(downs(&w.events), [DownReason::PeerRestarted]);
}
