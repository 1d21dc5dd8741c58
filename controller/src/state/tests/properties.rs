//! Any log at all: never two sessions on one address, each command once, the same state wherever and however it is applied.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::{machine_record, net};
use crate::raft::kv::Table;

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned)
}

fn serial() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["01", "02", "03"]).prop_map(str::to_owned)
}

fn session() -> impl Strategy<Value = u64> {
    0..12u64
}

fn guesser() -> impl Strategy<Value = Guesser> {
    (name(), prop::option::of(0..3u8))
        .prop_map(|(user, last)| Guesser::new(&user, last.map(|last| [192, 0, 2, last].into())))
}

fn credentials() -> Credentials {
    Credentials { sealed_nt_hash: vec![1], sealed_verifier: vec![2], sealed_password: vec![3] }
}

/// Slots and epochs are guessed small, so that they are often right.
fn member() -> impl Strategy<Value = (u32, u64)> {
    (0..4u32, 0..8u64)
}

fn address() -> impl Strategy<Value = u32> {
    (0..24u32).prop_map(|last| 0x0a00_0000 + last)
}

fn networks() -> impl Strategy<Value = Vec<net::Net>> {
    let one = (0..8u32, 27..=33u32).prop_map(|(i, prefix)| net::Net { address: 0x0a00_0000 + i * 4, prefix });
    prop::collection::vec(one, 0..3)
}

fn users_and_pools() -> impl Strategy<Value = Action> {
    let add_user = (name(), name(), prop::option::of(address()), 0..3u32, any::<bool>()).prop_map(
        |(key, pool, address, max_sessions, any_pool)| {
            Action::AddUser(AddUser {
                name: key.to_uppercase(),
                key,
                credentials: Some(credentials()),
                pool: if any_pool { String::new() } else { pool },
                address: address.unwrap_or(0),
                max_sessions,
                enabled: true,
                comment: String::new(),
            })
        },
    );
    let update_user = (
        name(),
        prop::option::of(prop_oneof![name(), Just(String::new())]),
        prop::option::of(prop_oneof![address(), Just(0)]),
        prop::option::of(0..3u32),
    )
        .prop_map(|(key, pool, address, max_sessions)| {
            Action::UpdateUser(UpdateUser { key, pool, address, max_sessions, comment: None })
        });
    let add_pool = (name(), networks(), address(), networks()).prop_map(|(name, networks, router, excluded)| {
        Action::AddPool(AddPool { name, networks, router, excluded, ..AddPool::default() })
    });
    prop_oneof![
        4 => add_user,
        1 => name().prop_map(|key| Action::RemoveUser(RemoveUser { key })),
        1 => name().prop_map(|key| Action::SetPassword(SetPassword { key, credentials: Some(credentials()) })),
        1 => (name(), any::<bool>()).prop_map(|(key, enabled)| Action::SetUserEnabled(SetUserEnabled { key, enabled })),
        3 => update_user,
        1 => name().prop_map(|key| Action::UnlockUser(UnlockUser { key })),
        4 => add_pool,
        1 => (name(), any::<bool>()).prop_map(|(name, force)| Action::RemovePool(RemovePool { name, force })),
    ]
}

fn settings_and_certificates() -> impl Strategy<Value = Action> {
    let settings =
        (0..6u64, any::<bool>(), 0..3u32, 0..6u32, 0..3u32).prop_map(|(version, keep, sessions, audit, lockout)| {
            Action::UpdateSettings(UpdateSettings {
                settings: Some(SettingsRow {
                    version,
                    store_chap_secrets: keep,
                    max_sessions_per_user: sessions,
                    audit_keep: audit,
                    lockout_failures: lockout,
                    lockout_s: lockout * 10,
                    ..SettingsRow::default()
                }),
            })
        });
    let record = |serial: String| {
        Action::RecordCertificate(RecordCertificate { record: Some(machine_record(&serial)), answer: Vec::new() })
    };
    let which = || prop_oneof![serial().prop_map(Selector::Serial), Just(Selector::Machine("LAPTOP".into()))];
    let revoke = (which(), prop::sample::select(vec![0, 1, 6])).prop_map(|(which, code)| {
        let text = String::new();
        Action::RevokeCertificates(RevokeCertificates { which: Some(which), code, text })
    });
    let release = which().prop_map(|which| Action::ReleaseCertificates(ReleaseCertificates { which: Some(which) }));
    prop_oneof![
        settings,
        revoke,
        release,
        Just(Action::RaiseLevel(RaiseLevel { level: REVOCATION_LEVEL, since: String::new() })),
        serial().prop_map(record),
        serial().prop_map(|serial| Action::RevokeCertificate(RevokeCertificate { serial, reason: "x".into() })),
        Just(Action::SetPsk(SetPsk { sealed: vec![1, 2, 3] })),
        Just(Action::ClearPsk(ClearPsk {})),
        Just(Action::Bootstrap(Bootstrap { cluster_id: vec![1; 16], ..Bootstrap::default() })),
    ]
}

fn gateways_and_sessions() -> impl Strategy<Value = Action> {
    let register = (name(), 1..4u8, 0..6u32).prop_map(|(name, boot, max_sessions)| {
        Action::RegisterGateway(RegisterGateway {
            name,
            boot_id: vec![boot; 16],
            max_sessions,
            ..RegisterGateway::default()
        })
    });
    let open = (session(), name(), 0..12u64, member(), prop::option::of(serial()), prop::option::of(guesser()))
        .prop_map(|(id, user, version, (slot, epoch), serial, guesser)| {
            Action::OpenSession(OpenSession {
                session_id: id,
                user,
                credentials_version: version,
                slot,
                epoch,
                machine: serial.map(|certificate_serial| v1::MachineIdentity {
                    auth: v1::MachineAuth::Certificate.into(),
                    certificate_serial,
                    ..v1::MachineIdentity::default()
                }),
                attempt_id: vec![7; 16],
                guesser,
                ..OpenSession::default()
            })
        });
    let up = (member(), prop::collection::vec(session(), 0..4))
        .prop_map(|((slot, epoch), session_ids)| Action::SessionsUp(SessionsUp { slot, epoch, session_ids }));
    let end = (member(), prop::collection::vec(session(), 0..4)).prop_map(|((slot, epoch), ids)| {
        let sessions =
            ids.into_iter().map(|session_id| EndedSession { session_id, ..EndedSession::default() }).collect();
        Action::EndSessions(EndSessions { slot, epoch, sessions })
    });
    let attempts = prop::collection::vec((0..5u8, name()), 0..4).prop_map(|ids| {
        let attempt = |(id, gateway)| v1::Attempt { id: vec![id; 16], gateway, ..v1::Attempt::default() };
        Action::RecordAttempts(RecordAttempts {
            attempts: ids.into_iter().map(attempt).collect(),
            ..Default::default()
        })
    });
    let wrong = (guesser(), prop::option::of(name())).prop_map(|(guesser, gateway)| {
        let (guesser, gateway) = (Some(guesser), gateway.unwrap_or_default());
        Action::RecordAttempts(RecordAttempts { guesser, gateway, ..Default::default() })
    });
    prop_oneof![
        3 => register,
        1 => member().prop_map(|(slot, epoch)| Action::LoseGateway(LoseGateway { slot, epoch })),
        1 => name().prop_map(|name| Action::RemoveGateway(RemoveGateway { name })),
        10 => open,
        2 => up,
        2 => end,
        1 => session().prop_map(|session_id| Action::KillSession(KillSession { session_id, text: "x".into() })),
        1 => attempts,
        3 => wrong,
    ]
}

/// Request ids come again often, times jump back and far forward.
fn command() -> impl Strategy<Value = Command> {
    let action = prop_oneof![2 => users_and_pools(), 1 => settings_and_certificates(), 4 => gateways_and_sessions()];
    let at = prop_oneof![8 => 0..100_000u64, 1 => 0..10 * ANSWER_MS, 1 => Just(0)];
    (0..200u64, at, prop::option::weighted(0.98, action)).prop_map(|(request, at_ms, action)| Command {
        request_id: request.to_be_bytes().repeat(2),
        at_ms,
        action,
    })
}

fn log() -> impl Strategy<Value = Vec<Command>> {
    prop::collection::vec(command(), 0..120)
}

/// What must hold after every command.
fn check(state: &State) {
    let mut leases: BTreeMap<u32, u64> = BTreeMap::new();
    for (id, session) in state.sessions.iter() {
        assert_eq!(leases.insert(session.address, *id), None, "two sessions on one address");
        let gateway = state.gateways.get(&session.slot).expect("a session's gateway is known");
        assert_eq!(gateway.epoch, session.epoch, "a session belongs to the incarnation in force");
        assert!(!gateway.lost);
    }
    assert_eq!(state.leases(), leases.len());
    for (name, pool) in state.pools.iter() {
        let (size, used) = state.pool_use(name);
        let leased = leases.keys().filter(|a| pool.ranges().contains(**a)).count() as u64;
        assert_eq!(used, leased, "use of pool {name}");
        assert!(used <= size);
    }
    assert!(state.attempts.len() <= state.settings().audit_keep.max(1) as usize);
    assert!(state.answers.len() <= MAX_ANSWERS);
    assert_eq!(state.lockouts.len(), state.index.lockouts.len());
    let fixed = state.users.iter().filter(|(_, user)| user.address != 0).map(|(key, user)| (user.address, key.clone()));
    assert_eq!(fixed.collect::<BTreeMap<_, _>>(), state.index.fixed, "no address is fixed twice");
    let by_weight = state.index.lockouts_by_weight.values().map(BTreeSet::len).sum::<usize>();
    assert_eq!(by_weight, state.lockouts.len());
}

/// The store's side: rows as they are written, change by change.
#[derive(Default)]
struct Store(BTreeMap<Vec<u8>, Vec<u8>>);

impl Store {
    fn write(&mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Put(Table::State, key, value) => drop(self.0.insert(key, value)),
                Op::Del(Table::State, key) => drop(self.0.remove(&key)),
                other => panic!("{other:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_log_keeps_the_invariants(log in log()) {
        let mut state = State::new();
        for command in &log {
            state.apply(command);
            check(&state);
        }
        prop_assert_eq!(format!("{:?}", state.build_index()), format!("{:?}", state.index));
    }

    #[test]
    fn the_same_log_gives_the_same_state_and_replies_however_it_is_cut(log in log(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)) {
        let mut one = State::new();
        let replies: Vec<Reply> = log.iter().map(|c| one.apply(c)).collect();

        // In batches, with a restart from the store or from a snapshot between them.
        let mut ends: Vec<usize> = cuts.iter().map(|c| c.index(log.len() + 1)).collect();
        ends.push(log.len());
        ends.sort_unstable();
        let (mut other, mut store, mut begin, mut replies_other) = (State::new(), Store::default(), 0, Vec::new());
        for (i, end) in ends.into_iter().enumerate() {
            replies_other.extend(other.apply_batch(&CommandBatch { commands: log[begin..end].to_vec() }).replies);
            store.write(other.take_changes());
            other = if i % 2 == 0 {
                State::from_rows(store.0.clone()).expect("loads")
            } else {
                State::from_bytes(&other.to_bytes()).expect("loads")
            };
            begin = end;
        }
        prop_assert_eq!(one.to_bytes(), other.to_bytes());
        prop_assert_eq!(replies, replies_other);
        prop_assert_eq!(one.rows().into_iter().collect::<BTreeMap<_, _>>(), store.0);
    }

    #[test]
    fn a_command_twice_is_a_command_once(log in log()) {
        // Ids of their own, and a time that stays, so that nothing is forgotten.
        let log: Vec<Command> = log.into_iter().enumerate().map(|(i, c)| Command {
            request_id: (i as u128).to_be_bytes().to_vec(),
            at_ms: 1,
            ..c
        }).collect();
        let (mut once, mut twice) = (State::new(), State::new());
        for command in &log {
            let first = once.apply(command);
            prop_assert_eq!(twice.apply(command), first.clone());
            let again = twice.apply(command);
            // A conflict is judged anew, but against the same state.
            prop_assert_eq!(again, first);
            prop_assert_eq!(once.to_bytes(), twice.to_bytes());
        }
    }

    #[test]
    fn commands_survive_their_encoding(log in log()) {
        let batch = CommandBatch { commands: log };
        let bytes = postcard::to_stdvec(&batch).expect("encodes");
        prop_assert_eq!(postcard::from_bytes::<CommandBatch>(&bytes).expect("decodes"), batch);
    }

    #[test]
    fn arbitrary_bytes_are_no_state(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = State::from_bytes(&bytes); // never panics
        let mut tagged = State::new().to_bytes();
        tagged.extend(bytes);
        let _ = State::from_bytes(&tagged);
    }
}

#[test]
fn networks_beyond_what_can_be_do_not_upset_a_pool() {
    // `prefix` 33 comes out of the strategy above; here it is alone.
    let mut state = State::new();
    let pool = AddPool { name: "p".into(), networks: vec![net::Net { address: 1, prefix: 33 }], ..AddPool::default() };
    state.apply(&Command { request_id: vec![1], at_ms: 1, action: Some(Action::AddPool(pool)) });
    assert!(state.pools.is_empty());
    assert_eq!(net("10.0.0.0/8").to_string(), "10.0.0.0/8");
}
