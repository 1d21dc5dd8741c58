use super::net::Net;
use super::*;

/// A state with one gateway, one pool of three addresses and two users, and a way to apply commands to it.
pub(super) struct Bench {
    pub(super) state: State,
    now: u64,
    requests: u64,
}

pub(super) fn net(text: &str) -> Net {
    text.parse().expect("a network")
}

pub(super) fn machine_record(serial: &str) -> CertificateRow {
    CertificateRow {
        serial: serial.into(),
        profile: v1::CertificateProfile::Machine.into(),
        name: "laptop".into(),
        not_after_ms: u64::MAX,
        ..CertificateRow::default()
    }
}

impl Bench {
    pub(super) fn empty() -> Self {
        let mut bench = Self { state: State::new(), now: 1_000, requests: 0 };
        let record = CertificateRow {
            serial: "r00t".into(),
            profile: v1::CertificateProfile::Root.into(),
            ..CertificateRow::default()
        };
        bench.done(Action::Bootstrap(Bootstrap {
            cluster_id: vec![1; 16],
            root_certificate: vec![2],
            sealed_root_key: vec![3],
            record: Some(record),
            member: None,
        }));
        bench
    }

    /// The state is at this level from now on.
    pub(super) fn raise(&mut self, level: u32) {
        self.state.change_core(|core| core.level = level);
    }

    pub(super) fn new() -> Self {
        let mut bench = Self::empty();
        bench.register("gw1", 1);
        bench.add_pool("p", "10.0.0.0/29", &["10.0.0.4/31", "10.0.0.6/31"]);
        bench.add_user("ada", AddUser::default());
        bench.add_user("bob", AddUser::default());
        bench
    }

    pub(super) fn apply(&mut self, action: Action) -> Outcome {
        self.requests += 1;
        self.now += 1;
        let mut request_id = vec![0; 8];
        request_id.extend_from_slice(&self.requests.to_be_bytes());
        let command = Command { request_id, at_ms: self.now, action: Some(action) };
        self.state.apply(&command).outcome.expect("an outcome")
    }

    pub(super) fn done(&mut self, action: Action) -> Done {
        match self.apply(action) {
            Outcome::Done(done) => done,
            other => panic!("{other:?}"),
        }
    }

    fn conflict(&mut self, action: Action) -> (ConflictKind, String) {
        match self.apply(action) {
            Outcome::Conflict(c) => (c.kind(), c.message),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn register(&mut self, name: &str, boot: u8) -> (u32, u64) {
        let command = RegisterGateway { name: name.into(), boot_id: vec![boot; 16], ..RegisterGateway::default() };
        match self.apply(Action::RegisterGateway(command)) {
            Outcome::Registered(r) => (r.slot, r.epoch),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn add_pool(&mut self, name: &str, network: &str, excluded: &[&str]) {
        let networks = vec![net(network)];
        let router = networks[0].host_bounds().0;
        let excluded = excluded.iter().map(|e| net(e)).collect();
        let command = AddPool { name: name.into(), networks, router, excluded, ..AddPool::default() };
        self.done(Action::AddPool(command));
    }

    pub(super) fn add_user(&mut self, key: &str, more: AddUser) {
        let credentials = Some(Credentials { sealed_password: vec![9], ..Credentials::default() });
        self.done(Action::AddUser(AddUser { key: key.into(), name: key.into(), credentials, enabled: true, ..more }));
    }

    pub(super) fn wish(&self, id: u64, user: &str) -> OpenSession {
        let gateway = self.state.gateways.get(&1).cloned().unwrap_or_default();
        OpenSession {
            session_id: id,
            user: user.into(),
            credentials_version: self.state.users.get(&user.to_owned()).map_or(0, |u| u.credentials_version),
            slot: 1,
            epoch: gateway.epoch,
            attempt_id: id.to_be_bytes().to_vec(),
            ..OpenSession::default()
        }
    }

    fn open(&mut self, id: u64, user: &str) -> Result<u32, DenialKind> {
        let wish = self.wish(id, user);
        self.open_as(wish)
    }

    fn open_as(&mut self, wish: OpenSession) -> Result<u32, DenialKind> {
        match self.apply(Action::OpenSession(wish)) {
            Outcome::Opened(opened) => Ok(opened.address),
            Outcome::Denied(denied) => Err(denied.kind()),
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, id: u64) -> u32 {
        let epoch = self.state.gateways.get(&1).expect("registered").epoch;
        let sessions = vec![EndedSession { session_id: id, ..EndedSession::default() }];
        self.done(Action::EndSessions(EndSessions { slot: 1, epoch, sessions })).ended_sessions
    }

    fn up(&mut self, ids: &[u64]) -> Vec<u64> {
        let epoch = self.state.gateways.get(&1).expect("registered").epoch;
        self.done(Action::SessionsUp(SessionsUp { slot: 1, epoch, session_ids: ids.to_vec() })).unknown
    }
}

fn ip(last: u8) -> u32 {
    u32::from_be_bytes([10, 0, 0, last])
}

#[test]
fn addresses_rest_before_they_are_used_again_and_users_get_theirs_back() {
    let mut b = Bench::new();
    assert_eq!(b.state.pool_use("p"), (2, 0)); // .2 and .3: .1 is the router
    assert_eq!(b.open(1, "ada"), Ok(ip(2)));
    assert_eq!(b.open(2, "bob"), Ok(ip(3)));
    assert_eq!(b.open(3, "ada"), Err(DenialKind::NoAddress));
    assert_eq!(b.state.pool_use("p"), (2, 2));
    assert_eq!((b.end(1), b.end(2), b.end(2)), (1, 1, 0));
    assert_eq!(b.open(4, "bob"), Ok(ip(3)), "bob's last address");
    assert_eq!(b.open(5, "bob"), Ok(ip(2)));
    assert_eq!(b.state.leases(), 2);
}

#[test]
fn a_fixed_address_is_its_users_alone() {
    let mut b = Bench::new();
    b.add_user("eve", AddUser { address: ip(2), ..AddUser::default() });
    assert_eq!(b.open(1, "ada"), Ok(ip(3)));
    assert_eq!(b.open(2, "ada"), Err(DenialKind::NoAddress));
    assert_eq!(b.open(3, "eve"), Ok(ip(2)));
    assert_eq!(b.open(4, "eve"), Err(DenialKind::NoAddress), "it is in use");
    let taken =
        AddUser { key: "x".into(), credentials: Some(Credentials::default()), address: ip(2), ..AddUser::default() };
    assert_eq!(b.conflict(Action::AddUser(taken.clone())).0, ConflictKind::AlreadyExists);
    let outside = AddUser { address: ip(77), ..taken };
    assert_eq!(b.conflict(Action::AddUser(outside)).0, ConflictKind::Precondition);
}

#[test]
fn a_repeated_command_is_applied_once() {
    let mut b = Bench::new();
    let command =
        Command { request_id: vec![9; 16], at_ms: 5_000, action: Some(Action::OpenSession(b.wish(1, "ada"))) };
    let first = b.state.apply(&command);
    let bytes = b.state.to_bytes();
    let mut again = command.clone();
    again.at_ms = 6_000;
    assert_eq!(b.state.apply(&again), first);
    assert_eq!(b.state.to_bytes(), bytes);
    // Long after, it is forgotten, and the same id means a new question.
    again.at_ms = 5_000 + ANSWER_MS + 1;
    b.now = again.at_ms;
    b.done(Action::ClearPsk(ClearPsk {}));
    assert!(b.state.answered(&command.request_id).is_none());
}

#[test]
fn a_conflict_is_not_an_answer_for_ever() {
    let mut b = Bench::new();
    let mut wish = b.wish(1, "ada");
    wish.epoch = 99;
    let mut command = Command { request_id: vec![9; 16], at_ms: 5_000, action: Some(Action::OpenSession(wish)) };
    let kind = |reply: Reply| match reply.outcome {
        Some(Outcome::Conflict(c)) => Some(c.kind()),
        _ => None,
    };
    assert_eq!(kind(b.state.apply(&command)), Some(ConflictKind::StaleMember));
    command.action = Some(Action::OpenSession(b.wish(1, "ada")));
    assert_eq!(kind(b.state.apply(&command)), None);
}

#[test]
fn a_new_process_of_a_gateway_ends_the_sessions_of_the_old_one() {
    let mut b = Bench::new();
    let (slot, epoch) = b.register("gw1", 1);
    assert!(b.open(1, "ada").is_ok());
    assert_eq!(b.register("gw1", 1), (slot, epoch), "the same process keeps its place");
    assert_eq!(b.state.sessions.len(), 1);
    let (slot_now, epoch_now) = b.register("gw1", 2);
    assert_eq!(slot_now, slot);
    assert!(epoch_now > epoch);
    assert_eq!((b.state.sessions.len(), b.state.leases()), (0, 0));
}

#[test]
fn a_gateway_that_was_given_up_must_register_again() {
    let mut b = Bench::new();
    let (slot, epoch) = b.register("gw1", 1);
    assert!(b.open(1, "ada").is_ok());
    let done = b.done(Action::LoseGateway(LoseGateway { slot, epoch }));
    assert_eq!((done.ended_sessions, b.state.leases()), (1, 0));
    let wish = b.wish(2, "ada");
    assert_eq!(b.conflict(Action::OpenSession(wish)).0, ConflictKind::StaleMember);
    let (_, again) = b.register("gw1", 1);
    assert!(again > epoch, "the same process, but its sessions are gone");
    assert_eq!(b.done(Action::LoseGateway(LoseGateway { slot, epoch })).ended_sessions, 0, "an old judgement");
    assert!(b.open(3, "ada").is_ok());
}

#[test]
fn a_gateway_that_is_silent_for_fourteen_days_is_waited_for_no_more_until_it_comes_back() {
    const DAY: u64 = 24 * 3_600 * 1_000;
    for (level, forgets) in [(7, false), (8, true)] {
        let mut b = Bench::new();
        b.raise(level);
        let (slot, epoch) = b.register("gw1", 1);
        let due = GatewayCertificateRow { due_ms: 1, ..GatewayCertificateRow::default() };
        let row = GatewayIdentityRow { certificates: vec![due], ..GatewayIdentityRow::default() };
        b.state.gateway_identities.insert("gw1".into(), row);
        let waited_for = |b: &Bench| b.state.overdue_gateways(b.state.now_ms()).any(|name| name == "gw1");
        b.now += 30 * DAY;
        b.add_user("cleo", AddUser::default());
        assert!(waited_for(&b) && !b.state.is_gone("gw1"), "it was heard of all the time");
        b.done(Action::LoseGateway(LoseGateway { slot, epoch }));
        let lost = b.state.now_ms();
        b.now = lost + 14 * DAY - 2;
        b.add_user("dan", AddUser::default());
        assert_eq!(b.state.now_ms(), lost + 14 * DAY - 1);
        assert!(waited_for(&b) && !b.state.is_gone("gw1"), "a moment before");
        b.add_user("eve", AddUser::default());
        // Below level 8 nobody knows since when it is silent.
        assert_eq!((b.state.is_gone("gw1"), waited_for(&b)), (forgets, !forgets), "level {level}");
        b.register("gw1", 2);
        assert!(waited_for(&b) && !b.state.is_gone("gw1"), "it is back, and still late");
    }
}

#[test]
fn slots_are_reused_and_epochs_are_not() {
    let mut b = Bench::empty();
    let (one, first) = b.register("a", 1);
    let (two, second) = b.register("b", 1);
    assert_eq!((one, two), (1, 2));
    b.done(Action::RemoveGateway(RemoveGateway { name: "a".into() }));
    let (again, third) = b.register("c", 1);
    assert_eq!(again, 1);
    assert!(third > second && second > first);
    assert_eq!(b.conflict(Action::RemoveGateway(RemoveGateway { name: "a".into() })).0, ConflictKind::NotFound);
}

#[test]
fn disabling_removing_and_revoking_doom_sessions_but_keep_their_addresses() {
    let mut b = Bench::new();
    b.done(Action::RecordCertificate(RecordCertificate { record: Some(machine_record("ab")), answer: Vec::new() }));
    let machine = v1::MachineIdentity {
        auth: v1::MachineAuth::Certificate.into(),
        certificate_serial: "ab".into(),
        ..v1::MachineIdentity::default()
    };
    let wish = OpenSession { machine: Some(machine.clone()), ..b.wish(1, "ada") };
    b.open_as(wish).expect("opens");
    let revoke = Action::RevokeCertificate(RevokeCertificate { serial: "ab".into(), reason: "lost".into() });
    assert_eq!(b.done(revoke).ended_sessions, 1);
    assert_eq!(b.state.doomed(1).map(|(id, d)| (id, d.reason())).collect::<Vec<_>>(), [(1, v1::EndReason::Revoked)]);
    assert_eq!(b.state.leases(), 1, "the gateway still forwards for it");
    let wish = OpenSession { machine: Some(machine), ..b.wish(2, "ada") };
    assert_eq!(b.open_as(wish), Err(DenialKind::MachineRefused));
    assert_eq!(b.end(1), 1);
    assert_eq!((b.state.leases(), b.state.doomed(1).count()), (0, 0));

    assert!(b.open(3, "ada").is_ok());
    let disable = Action::SetUserEnabled(SetUserEnabled { key: "ada".into(), enabled: false });
    assert_eq!(b.done(disable).ended_sessions, 1);
    assert_eq!(b.open(4, "ada"), Err(DenialKind::Disabled));
    assert_eq!(b.done(Action::RemoveUser(RemoveUser { key: "ada".into() })).ended_sessions, 1);
    assert_eq!(b.open(5, "ada"), Err(DenialKind::UserGone));
    let texts: Vec<&str> = b.state.attempts.iter().map(|(_, a)| a.cause.as_str()).collect();
    assert!(texts[0].contains("revoked: lost") && texts[1].contains("disabled") && texts[2].contains("removed"));
}

#[test]
fn certificates_that_are_not_a_live_machines_are_refused_with_the_reason() {
    let mut b = Bench::new();
    let cause = |b: &Bench, serial: &str, at| b.state.machine_certificate(serial, at).err().map(|(cause, _)| cause);
    let record =
        |row: CertificateRow| Action::RecordCertificate(RecordCertificate { record: Some(row), answer: Vec::new() });
    b.done(record(CertificateRow { not_after_ms: 500, ..machine_record("aa") }));
    b.done(record(CertificateRow { profile: v1::CertificateProfile::Operator.into(), ..machine_record("bb") }));
    assert_eq!(b.conflict(record(machine_record("aa"))).0, ConflictKind::AlreadyExists);
    assert_eq!(cause(&b, "aa", 499), None);
    assert!(cause(&b, "aa", 500).is_some_and(|c| c.contains("expired")));
    assert!(cause(&b, "bb", 0).is_some_and(|c| c.contains("not a machine's")));
    assert!(cause(&b, "cc", 0).is_some_and(|c| c.contains("no certificate with serial number cc")));
    let root = Action::RevokeCertificate(RevokeCertificate { serial: "r00t".into(), reason: String::new() });
    assert_eq!(b.conflict(root).0, ConflictKind::Precondition);
}

#[test]
fn limits_of_users_and_gateways_hold() {
    let mut b = Bench::new();
    b.add_user("one", AddUser { max_sessions: 1, ..AddUser::default() });
    assert!(b.open(1, "one").is_ok());
    assert_eq!(b.open(2, "one"), Err(DenialKind::SessionLimit));
    let full =
        RegisterGateway { name: "gw1".into(), boot_id: vec![1; 16], max_sessions: 1, ..RegisterGateway::default() };
    b.apply(Action::RegisterGateway(full));
    assert_eq!(b.open(3, "ada"), Err(DenialKind::GatewayFull));
}

#[test]
fn a_password_changed_meanwhile_is_noticed() {
    let mut b = Bench::new();
    let wish = b.wish(1, "ada");
    let change = SetPassword { key: "ada".into(), credentials: Some(Credentials::default()) };
    b.done(Action::SetPassword(change));
    assert_eq!(b.conflict(Action::OpenSession(wish)).0, ConflictKind::StaleCredentials);
    assert!(b.open(1, "ada").is_ok());
}

#[test]
fn settings_are_replaced_only_from_the_version_they_were_read_in() {
    let mut b = Bench::new();
    let settings = SettingsRow { store_chap_secrets: true, ..b.state.settings() };
    let update = |settings: &SettingsRow| Action::UpdateSettings(UpdateSettings { settings: Some(settings.clone()) });
    b.done(update(&settings));
    assert_eq!(b.conflict(update(&settings)).0, ConflictKind::Changed);
    assert_eq!(b.state.settings().version, settings.version + 1);
    // Passwords are kept only while the settings say so.
    let kept = |b: &Bench, key: &str| {
        let user = b.state.users.get(&key.to_owned()).expect("there");
        user.credentials.as_ref().is_some_and(|c| !c.sealed_password.is_empty())
    };
    assert!(!kept(&b, "ada"), "added before it was allowed");
    b.add_user("new", AddUser::default());
    assert!(kept(&b, "new"));
    b.done(update(&SettingsRow { store_chap_secrets: false, ..b.state.settings() }));
    assert!(!kept(&b, "new"));
}

#[test]
fn the_audit_is_a_ring_that_knows_repeated_reports() {
    let mut b = Bench::new();
    b.done(Action::UpdateSettings(UpdateSettings {
        settings: Some(SettingsRow { audit_keep: 3, ..b.state.settings() }),
    }));
    let attempt =
        |id: u8, gateway: &str| v1::Attempt { id: vec![id; 16], gateway: gateway.into(), ..Default::default() };
    let attempts = vec![attempt(1, "a"), attempt(1, "a"), attempt(1, "b"), attempt(2, "a")];
    b.done(Action::RecordAttempts(RecordAttempts { attempts, ..Default::default() }));
    assert_eq!(b.state.attempts.len(), 3);
    b.done(Action::RecordAttempts(RecordAttempts { attempts: vec![attempt(3, "a")], ..Default::default() }));
    let ids: Vec<u8> = b.state.attempts.iter().map(|(_, a)| a.id[0]).collect();
    assert_eq!(ids, [1, 2, 3], "the oldest went");
    assert_eq!(b.state.attempts.iter().next().map(|(_, a)| a.gateway.as_str()), Some("b"));
}

#[test]
fn coming_up_is_recorded_once_and_strangers_are_named() {
    let mut b = Bench::new();
    assert!(b.open(1, "ada").is_ok());
    assert_eq!(b.up(&[1, 7]), [7]);
    assert_eq!(b.up(&[1]), [0u64; 0]);
    let accepted: Vec<_> = b.state.attempts.iter().map(|(_, a)| (a.outcome(), a.session_id.clone())).collect();
    assert_eq!(accepted, [(v1::Outcome::Accepted, "0000000000000001".to_owned())]);
}

#[test]
fn the_end_of_a_session_that_was_up_is_recorded_with_its_reason() {
    let mut b = Bench::new();
    assert!(b.open(1, "ada").is_ok() && b.open(2, "bob").is_ok());
    b.up(&[1]);
    b.now += 7_000;
    let epoch = b.state.gateways.get(&1).expect("registered").epoch;
    let silent = |id| EndedSession { session_id: id, reason: v1::EndReason::PeerSilent.into(), text: "gone".into() };
    let never = EndedSession { session_id: 2, reason: v1::EndReason::NeverUp.into(), text: "left".into() };
    let sessions = vec![silent(1), never, silent(1)];
    b.done(Action::EndSessions(EndSessions { slot: 1, epoch, sessions }));
    let ended: Vec<_> =
        b.state.attempts.iter().map(|(_, a)| a).filter(|a| a.outcome() == v1::Outcome::Ended).cloned().collect();
    assert_eq!(ended.len(), 1, "the other was never up");
    let one = &ended[0];
    assert_eq!((one.session_id.as_str(), one.user.as_str(), one.cause.as_str()), ("0000000000000001", "ada", "gone"));
    assert_eq!((one.end_reason(), one.phase()), (v1::EndReason::PeerSilent, v1::Phase::Up));
    assert!((7..=8).contains(&one.up_s), "{}", one.up_s);
    assert_eq!((one.id.len(), one.gateway.as_str()), (16, "gw1"));
    assert!(b.open(3, "ada").is_ok());
    b.up(&[3]);
    b.done(Action::RemoveGateway(RemoveGateway { name: "gw1".into() }));
    let last = b.state.attempts.iter().next_back().map(|(_, a)| (a.outcome(), a.gateway.clone()));
    assert_eq!(last, Some((v1::Outcome::Ended, "gw1".to_owned())));
}

#[test]
fn comings_and_goings_do_not_push_out_what_went_wrong() {
    let mut b = Bench::new();
    let settings = SettingsRow { audit_keep: 100, ..b.state.settings() };
    b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
    let attempt = |n: u32, outcome: v1::Outcome| v1::Attempt {
        id: [n.to_be_bytes(), [0; 4], [0; 4], [outcome as u8; 4]].concat(),
        outcome: outcome.into(),
        ..v1::Attempt::default()
    };
    let refused = (0..60).map(|n| attempt(n, v1::Outcome::Refused)).collect();
    b.done(Action::RecordAttempts(RecordAttempts { attempts: refused, ..Default::default() }));
    for n in 0..500 {
        b.done(Action::RecordAttempts(RecordAttempts {
            attempts: vec![attempt(n, v1::Outcome::Ended)],
            ..Default::default()
        }));
    }
    let kept = b.state.attempts.iter().filter(|(_, a)| a.outcome() == v1::Outcome::Refused).count();
    assert_eq!((b.state.attempts.len(), kept), (100, 50));
}

#[test]
fn a_gateway_that_reports_without_end_pushes_out_its_own() {
    let mut b = Bench::new();
    let settings = SettingsRow { audit_keep: 100, ..b.state.settings() };
    b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
    let mut report = |gateway: &str, numbers: std::ops::Range<u64>| {
        let attempt = |n: u64| v1::Attempt {
            id: n.to_be_bytes().to_vec(),
            gateway: gateway.into(),
            outcome: v1::Outcome::Refused.into(),
            ..v1::Attempt::default()
        };
        b.done(Action::RecordAttempts(RecordAttempts {
            attempts: numbers.map(attempt).collect(),
            ..Default::default()
        }));
        let of = |name: &str| b.state.attempts.iter().filter(|(_, a)| a.gateway == name).count();
        (of("honest"), of("talker"))
    };
    assert_eq!(report("honest", 0..80), (80, 0), "alone, all of the room is its own");
    assert_eq!(report("talker", 0..1_000), (50, 50));
    assert_eq!(report("honest", 80..85), (50, 50), "the newest are kept");
    assert_eq!(report("honest", 80..85), (50, 50), "and known");
    let loaded = State::from_bytes(&b.state.to_bytes()).expect("loads");
    let talkers = loaded.attempts.iter().filter(|(_, a)| a.gateway == "talker").count();
    assert_eq!((talkers, loaded.attempt("honest", &84_u64.to_be_bytes()).is_some()), (50, true));
}

#[test]
fn pools_do_not_overlap_and_do_not_leave_under_their_users() {
    let mut b = Bench::new();
    let pool = |name: &str, network: &str| {
        Action::AddPool(AddPool { name: name.into(), networks: vec![net(network)], ..AddPool::default() })
    };
    assert!(b.conflict(pool("q", "10.0.0.0/24")).1.contains("overlaps 10.0.0.0/29 of pool \"p\""));
    assert_eq!(b.conflict(pool("p", "10.1.0.0/24")).0, ConflictKind::AlreadyExists);
    assert_eq!(b.conflict(pool("big", "0.0.0.0/0")).0, ConflictKind::Precondition);
    assert!(b.open(1, "ada").is_ok());
    let remove = |force| Action::RemovePool(RemovePool { name: "p".into(), force });
    assert_eq!(b.conflict(remove(false)).0, ConflictKind::Precondition);
    assert_eq!(b.done(remove(true)).ended_sessions, 1);
    b.add_pool("again", "10.0.0.0/29", &[]);
    assert_eq!(b.state.pool_use("again"), (5, 1), "the old session still holds its address");
    assert_eq!(b.open(2, "bob"), Ok(ip(3)));
    assert_eq!(b.end(1), 1);
    assert_eq!(b.state.pool_use("again"), (5, 1));
}

#[test]
fn a_state_survives_its_bytes() {
    let mut b = Bench::new();
    assert!(b.open(1, "ada").is_ok());
    b.up(&[1]);
    let bytes = b.state.to_bytes();
    let mut read = State::from_bytes(&bytes).expect("reads");
    assert_eq!(read.to_bytes(), bytes);
    assert_eq!(format!("{:?}", read.index), format!("{:?}", b.state.index));
    assert!(read.take_changes().is_empty());
    for cut in 0..bytes.len() {
        let _ = State::from_bytes(&bytes[..cut]); // never panics
    }
    let mut other = bytes.clone();
    other[0] = 2;
    assert!(State::from_bytes(&other).is_err_and(|e| e.to_string().contains("newer version")));
}

mod lockouts;
mod members;
mod properties;
mod users;
