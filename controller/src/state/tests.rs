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

mod properties;

#[test]
fn a_cluster_that_begins_anew_knows_none_of_the_old_controllers() {
    let mut b = Bench::new();
    let describe = |id, address: &str| DescribeMember { id, address: address.into(), ..DescribeMember::default() };
    b.apply(Action::DescribeMember(describe(1, "a:1")));
    let hash = vec![7; 32];
    let token = CreateToken { id: vec![1; 8], hash: hash.clone(), ttl_ms: 1_000, made_by: "x".into() };
    b.done(Action::CreateToken(token.clone()));
    let record = CertificateRow {
        serial: "c2".into(),
        profile: v1::CertificateProfile::Controller.into(),
        ..CertificateRow::default()
    };
    let admit = AdmitMember {
        token: token.id.clone(),
        hash,
        member: Some(describe(0, "b:1")),
        learner: false,
        record: Some(record),
    };
    match b.apply(Action::AdmitMember(admit.clone())) {
        Outcome::Admitted(admitted) => assert_eq!(admitted.member_id, 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(b.conflict(Action::AdmitMember(admit)).0, ConflictKind::NotFound, "a token works once");
    b.done(Action::CreateToken(token));
    b.state.begin_anew(9_000);
    assert!(b.state.members.is_empty() && b.state.tokens.is_empty());
    let second = b.state.certificates.get(&"c2".to_owned()).expect("there");
    assert!(second.revoked_ms != 0 && !b.state.was_removed(second), "the old ones may be a cluster still");
    b.apply(Action::DescribeMember(describe(1, "a:1")));
    assert_eq!(b.state.live_members().map(|(id, _)| id).collect::<Vec<_>>(), [1]);
    assert_eq!(b.state.last_member(), 2, "ids are not used again");
}

impl Bench {
    fn wrong(&mut self, user: &str, last: u8) -> u32 {
        let guesser = from(user, last);
        self.done(Action::RecordAttempts(RecordAttempts { guesser: Some(guesser.clone()), ..Default::default() }));
        self.state.wrong_passwords(&guesser, self.now).0
    }

    fn counted(&self, user: &str, last: u8, after_ms: u64) -> (u32, u64) {
        self.state.wrong_passwords(&from(user, last), self.now + after_ms)
    }
}

fn from(user: &str, last: u8) -> Guesser {
    Guesser::new(user, Some([192, 0, 2, last].into()))
}

#[test]
fn wrong_passwords_count_for_their_user_and_address_and_for_a_while() {
    let mut b = Bench::new();
    assert_eq!((b.wrong("ada", 1), b.wrong("ada", 1)), (1, 2));
    assert_eq!(b.counted("ada", 1, 0), (2, 60_000));
    assert_eq!((b.counted("ada", 2, 0), b.counted("bob", 1, 0)), ((0, 0), (0, 0)));
    assert_eq!(b.counted("ada", 1, 59_999), (2, 1));
    assert_eq!(b.counted("ada", 1, 60_000), (0, 0));
    // A new leader, from the store or from a snapshot, counts on.
    b.state = State::from_bytes(&b.state.to_bytes()).expect("loads");
    b.state = State::from_rows(b.state.rows()).expect("loads");
    assert_eq!(b.wrong("ada", 1), 3);
    b.now += 60_000;
    assert_eq!(b.wrong("bob", 1), 1);
    assert_eq!(b.state.lockouts.len(), 1, "who no longer has to wait is forgotten");
    assert_eq!(b.wrong("ada", 1), 1, "counting starts anew");
}

#[test]
fn the_right_password_forgets_the_wrong_ones_and_one_that_changed_meanwhile_does_not() {
    let mut b = Bench::new();
    b.wrong("ada", 1);
    b.wrong("ada", 2);
    let wish = OpenSession { guesser: Some(from("ada", 1)), ..b.wish(1, "ada") };
    let stale = OpenSession { credentials_version: 77, ..wish.clone() };
    assert_eq!(b.conflict(Action::OpenSession(stale)).0, ConflictKind::StaleCredentials);
    assert_eq!(b.counted("ada", 1, 0).0, 1);
    b.open_as(wish).expect("opens");
    assert_eq!((b.counted("ada", 1, 0).0, b.counted("ada", 2, 0).0), (0, 1));
}

#[test]
fn nothing_is_counted_where_nobody_shall_wait() {
    let mut b = Bench::new();
    let settings = SettingsRow { lockout_failures: 0, ..b.state.settings() };
    b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
    assert_eq!(b.wrong("ada", 1), 0);
    assert!(b.state.lockouts.is_empty());
}

#[test]
fn the_table_of_wrong_passwords_is_bounded_and_forgets_the_oldest() {
    let mut b = Bench::new();
    let settings = SettingsRow { lockout_s: 1_000_000, audit_keep: 1, ..b.state.settings() };
    b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
    for i in 0..MAX_LOCKOUTS + 10 {
        b.state.change_core(|core| core.now_ms += 1);
        b.state.count_wrong_password(&from(&format!("u{i}"), 1), "");
    }
    assert_eq!((b.state.lockouts.len(), b.state.index.lockouts.len()), (MAX_LOCKOUTS, MAX_LOCKOUTS));
    let counted = |user| b.state.wrong_passwords(&from(user, 1), b.state.now_ms()).0;
    assert_eq!((counted("u9"), counted("u10")), (0, 1));
}

#[test]
fn a_time_before_the_logs_is_the_logs() {
    let mut b = Bench::new();
    let now = b.state.now_ms();
    b.now = 5;
    b.wrong("ada", 1);
    assert_eq!((b.state.now_ms(), b.state.wrong_passwords(&from("ada", 1), now)), (now, (1, 60_000)));
}

#[test]
fn an_address_for_each_guess_does_not_help_a_gateway() {
    let mut b = Bench::new();
    let wrong = |b: &mut Bench, gateway: &str, user: &str, last: u8| {
        let guesser = Some(from(user, last));
        b.done(Action::RecordAttempts(RecordAttempts { guesser, gateway: gateway.into(), ..Default::default() }));
        b.state.wrong_passwords_through(gateway, user, b.now).0
    };
    let counts: Vec<u32> = (0..20).map(|last| wrong(&mut b, "gw1", "ada", last)).collect();
    assert_eq!(counts, (1..=20).collect::<Vec<_>>());
    assert_eq!(b.counted("ada", 19, 0).0, 1);
    assert_eq!((wrong(&mut b, "gw2", "ada", 1), wrong(&mut b, "gw1", "bob", 1)), (1, 1));
    // Nor a right password from one of the addresses.
    let wish = OpenSession { guesser: Some(from("ada", 19)), ..b.wish(1, "ada") };
    b.open_as(wish).expect("opens");
    assert_eq!(b.counted("ada", 19, 0).0, 0);
    assert_eq!(b.state.wrong_passwords_through("gw1", "ada", b.now).0, 20);
    b.state = State::from_bytes(&b.state.to_bytes()).expect("loads");
    assert_eq!(wrong(&mut b, "gw1", "ada", 77), 21);
    b.now += 60_000;
    assert_eq!(b.state.wrong_passwords_through("gw1", "ada", b.now).0, 0);
    // Entries of before level 4 name no gateway, and count for none.
    b.wrong("eve", 1);
    assert_eq!(b.state.wrong_passwords_through("", "eve", b.now).0, 0);
    let with = RecordAttempts { gateway: "gw1".into(), ..Default::default() };
    assert_eq!((Action::RecordAttempts(with).level(), Action::RecordAttempts(Default::default()).level()), (4, 1));
}

#[test]
fn a_gateway_that_floods_the_table_forgets_its_own_rows_only() {
    let mut b = Bench::new();
    let settings = SettingsRow { lockout_s: 1_000_000, ..b.state.settings() };
    b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
    b.state.count_wrong_password(&from("ada", 1), "gw1");
    for i in 0..MAX_LOCKOUTS_OF_GATEWAY {
        b.state.change_core(|core| core.now_ms += 1);
        b.state.count_wrong_password(&from(&format!("u{i}"), 1), "gw2");
    }
    assert_eq!(b.state.lockouts.len(), MAX_LOCKOUTS_OF_GATEWAY + 2);
    let now_ms = b.state.now_ms();
    assert_eq!(b.state.wrong_passwords_through("gw1", "ada", now_ms).0, 1);
    assert_eq!((b.counted("u0", 1, 0).0, b.counted("u4095", 1, 0).0), (0, 1));
    let loaded = State::from_bytes(&b.state.to_bytes()).expect("loads");
    assert_eq!(loaded.index.lockouts_of_gateway, b.state.index.lockouts_of_gateway);
}

#[test]
fn invented_names_do_not_have_a_users_wrong_passwords_forgotten() {
    // Members with older software forget whoever failed longest ago.
    for (level, kept) in [(5, 2), (4, 0)] {
        let mut b = with_member(level);
        b.add_user("ada", AddUser::default());
        let settings = SettingsRow { lockout_s: 1_000_000, ..b.state.settings() };
        b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
        let flood = |b: &mut Bench, gateway: &str, names: usize| {
            for i in 0..names {
                b.state.change_core(|core| core.now_ms += 1);
                b.state.count_wrong_password(&from(&format!("{gateway}-{i}"), 1), gateway);
            }
        };
        for _ in 0..2 {
            b.state.count_wrong_password(&from("ada", 1), "gw1");
            flood(&mut b, "gw1", MAX_LOCKOUTS_OF_GATEWAY);
        }
        let counted = |b: &Bench| {
            let now_ms = b.state.now_ms();
            let through = b.state.wrong_passwords_through("gw1", "ada", now_ms).0;
            (b.state.wrong_passwords(&from("ada", 1), now_ms).0, through)
        };
        assert_eq!(counted(&b), (kept, kept), "level {level}");
        if level == 4 {
            continue;
        }
        // Nor by many gateways together.
        for gateway in 2..=MAX_LOCKOUTS / MAX_LOCKOUTS_OF_GATEWAY + 1 {
            flood(&mut b, &format!("gw{gateway}"), MAX_LOCKOUTS_OF_GATEWAY / 2);
        }
        assert_eq!((counted(&b), b.state.lockouts.len()), ((kept, kept), MAX_LOCKOUTS));
        let loaded = State::from_bytes(&b.state.to_bytes()).expect("loads");
        assert_eq!(loaded.index.lockouts_by_weight, b.state.index.lockouts_by_weight);
    }
}

/// A state at the newest level, with controller 1 at `level`.
fn with_member(level: u32) -> Bench {
    let mut b = Bench::empty();
    let member = DescribeMember { id: 1, address: "a:1".into(), level, ..DescribeMember::default() };
    b.apply(Action::DescribeMember(member));
    if level > 1 {
        b.done(Action::RaiseLevel(RaiseLevel { level, since: "0.1.0".into() }));
    }
    b
}

#[test]
fn controllers_that_were_removed_long_ago_are_forgotten_and_their_certificates_stay_revoked() {
    for (level, kept) in [(4, MAX_REMOVED_MEMBERS), (3, MAX_REMOVED_MEMBERS + 5)] {
        let mut b = with_member(level);
        for id in 2..MAX_REMOVED_MEMBERS as u64 + 8 {
            let (token, hash) = (id.to_be_bytes().to_vec(), vec![7; 32]);
            b.done(Action::CreateToken(CreateToken {
                id: token.clone(),
                hash: hash.clone(),
                ttl_ms: 1_000,
                made_by: String::new(),
            }));
            let profile = v1::CertificateProfile::Controller.into();
            let record = Some(CertificateRow { serial: format!("c{id}"), profile, ..CertificateRow::default() });
            let member = DescribeMember { id: 0, address: "b:1".into(), level, ..DescribeMember::default() };
            let admit = AdmitMember { token, hash, member: Some(member), record, learner: true };
            let admitted = b.apply(Action::AdmitMember(admit));
            assert!(matches!(admitted, Outcome::Admitted(a) if a.member_id == id));
            b.done(Action::RemoveMember(RemoveMember { id }));
        }
        // One is removed after the last was let in.
        assert_eq!(b.state.members.len(), 1 + kept + 1, "level {level}");
        assert_eq!(b.state.members.contains(&2), level < 4);
        assert_ne!(b.state.certificates.get(&"c2".to_owned()).map(|c| c.revoked_ms), Some(0));
        assert!(b.state.certificates_of_members().any(|c| c.serial == "c2"), "it is on the list of revoked ones");
        assert!(
            b.state.certificates.get(&"c2".to_owned()).is_some_and(|c| b.state.was_removed(c)),
            "whose it is, is told"
        );
    }
}

#[test]
fn where_no_id_is_left_no_controller_is_taken_in() {
    let mut b = with_member(1);
    b.state.change_core(|core| core.last_member = u64::MAX);
    let hash = vec![7; 32];
    b.done(Action::CreateToken(CreateToken { id: vec![1], hash: hash.clone(), ttl_ms: 1_000, made_by: String::new() }));
    let member = DescribeMember { address: "b:1".into(), ..DescribeMember::default() };
    let record = Some(CertificateRow { serial: "c2".into(), ..CertificateRow::default() });
    let admit = AdmitMember { token: vec![1], hash, member: Some(member.clone()), record, learner: false };
    assert_eq!(b.conflict(Action::AdmitMember(admit)).0, ConflictKind::Exhausted);
    let readmit = ReadmitMember { old_id: 1, member: Some(member) };
    assert_eq!(b.conflict(Action::ReadmitMember(readmit)).0, ConflictKind::Exhausted);
}

#[test]
fn a_user_is_given_another_pool_address_limit_and_comment_and_sessions_stay() {
    let mut b = Bench::new();
    b.add_pool("q", "10.0.1.0/29", &[]);
    let set = |more: UpdateUser| Action::UpdateUser(UpdateUser { key: "ada".into(), ..more });
    let row = |b: &Bench| b.state.users.get(&"ada".to_owned()).expect("there").clone();
    assert_eq!(b.open(1, "ada"), Ok(ip(2)));
    let before = row(&b);

    let pool = |name: &str| UpdateUser { pool: Some(name.into()), ..UpdateUser::default() };
    b.done(set(pool("q")));
    assert_eq!(row(&b), UserRow { pool: "q".into(), ..before.clone() }, "nothing else changed");
    assert_eq!(b.conflict(set(pool("none"))).0, ConflictKind::Precondition);
    assert_eq!(b.open(2, "ada"), Ok(u32::from_be_bytes([10, 0, 1, 2])));

    let fixed = |address: u32| UpdateUser { address: Some(address), ..UpdateUser::default() };
    let (kind, why) = b.conflict(set(fixed(ip(3))));
    assert!(kind == ConflictKind::Precondition && why.contains("not in \"q\""), "{why}");
    b.done(set(UpdateUser { address: Some(ip(3)), ..pool("p") }));
    let of_bob = Action::UpdateUser(UpdateUser { key: "bob".into(), ..fixed(ip(3)) });
    assert_eq!(b.conflict(of_bob).0, ConflictKind::AlreadyExists);
    b.done(Action::UpdateUser(UpdateUser { key: "bob".into(), ..pool("p") }));
    assert_eq!(b.open(3, "bob"), Err(DenialKind::NoAddress), ".2 is leased, .3 is ada's");
    b.done(set(fixed(ip(3)))); // the one that she has
    assert_eq!(b.open(4, "ada"), Ok(ip(3)));
    b.end(4);
    b.done(set(fixed(0)));
    assert_eq!(b.open(5, "bob"), Ok(ip(3)), "it is nobody's any more");

    b.done(set(UpdateUser { max_sessions: Some(2), comment: Some("2nd floor".into()), ..UpdateUser::default() }));
    assert_eq!((row(&b).max_sessions, row(&b).comment.as_str(), row(&b).pool.as_str()), (2, "2nd floor", "p"));
    assert_eq!(b.open(6, "ada"), Err(DenialKind::SessionLimit));
    assert_eq!(b.state.sessions_of_user("ada"), 2, "what was up stayed up");
    let nobody = Action::UpdateUser(UpdateUser { key: "eve".into(), ..UpdateUser::default() });
    assert_eq!(b.conflict(nobody).0, ConflictKind::NotFound);
    assert_eq!(State::from_bytes(&b.state.to_bytes()).expect("loads").index.fixed, b.state.index.fixed);
}

#[test]
fn a_user_whose_pool_is_gone_can_be_changed_all_the_same() {
    let mut b = Bench::new();
    b.add_user("eve", AddUser { address: ip(2), ..AddUser::default() });
    b.done(Action::RemovePool(RemovePool { name: "p".into(), force: true }));
    let set = |more: UpdateUser| Action::UpdateUser(UpdateUser { key: "eve".into(), ..more });
    b.done(set(UpdateUser { max_sessions: Some(1), ..UpdateUser::default() }));
    assert_eq!(
        b.conflict(set(UpdateUser { pool: Some(String::new()), ..UpdateUser::default() })).0,
        ConflictKind::Precondition
    );
    b.done(set(UpdateUser { pool: Some(String::new()), address: Some(0), ..UpdateUser::default() }));
}

#[test]
fn an_unlocked_user_may_try_again_from_anywhere_and_through_every_gateway_and_nobody_else() {
    let mut b = Bench::new();
    let mut wrong = |user: &str, source: Option<std::net::IpAddr>, gateway: &str| {
        let guesser = Some(Guesser::new(user, source));
        b.done(Action::RecordAttempts(RecordAttempts { guesser, gateway: gateway.into(), ..Default::default() }));
    };
    let v6 = Some("2001:db8::1".parse().expect("an address"));
    for (source, gateway) in [(Some([192, 0, 2, 1].into()), "gw1"), (v6, "gw2"), (None, "gw1"), (v6, "")] {
        for user in ["ada", "adam", "bada", "a"] {
            wrong(user, source, gateway);
        }
    }
    let rows = b.state.lockouts.len();
    assert_eq!(rows, 4 * 5);
    let unlock = |key: &str| Action::UnlockUser(UnlockUser { key: key.into() });
    assert_eq!(b.done(unlock("ada")).forgotten, 5);
    assert_eq!((b.state.lockouts.len(), b.counted("ada", 1, 0).0, b.counted("adam", 1, 0).0), (rows - 5, 0, 1));
    let through = |b: &Bench, user: &str| b.state.wrong_passwords_through("gw1", user, b.now).0;
    assert_eq!((through(&b, "ada"), through(&b, "adam")), (0, 2));
    assert_eq!(format!("{:?}", b.state.build_index()), format!("{:?}", b.state.index));
    // Again, and for names that are no users but were guessed at, and that were not.
    assert_eq!((b.done(unlock("ada")).forgotten, b.done(unlock("adam")).forgotten), (0, 5));
    assert_eq!(b.conflict(unlock("eve")).0, ConflictKind::NotFound);
}

#[test]
fn the_remedy_for_a_users_own_limit_names_user_set_from_level_5_on() {
    let refused = |level: u32| {
        let mut b = Bench::new();
        b.state.change_core(|core| core.level = level);
        b.add_user("one", AddUser { max_sessions: 1, ..AddUser::default() });
        assert!(b.open(1, "one").is_ok());
        let wish = b.wish(2, "one");
        let Outcome::Denied(denied) = b.apply(Action::OpenSession(wish)) else { panic!("has one") };
        denied.remedy
    };
    // What members with older software make of the same entry.
    let old = "end one of them (sallyport session list, session kill), or raise the limit: it is this user's own, which \
               sallyport user add --max-sessions N has set";
    assert_eq!((refused(1), refused(4)), (old.to_owned(), old.to_owned()));
    assert!(refused(5).ends_with("sallyport user set one --max-sessions 2"), "{}", refused(5));
}
