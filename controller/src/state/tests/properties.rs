//! Any log at all: never two sessions on one address, each command once, the same state wherever and however it is applied.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::{machine_record, net};
use crate::LEVEL;
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
    let record = (serial(), until()).prop_map(|(serial, not_after_ms)| {
        let record = CertificateRow { not_after_ms, fingerprint: vec![7; 32], ..machine_record(&serial) };
        Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() })
    });
    let any_serial = prop_oneof![2 => serial(), 3 => (0..8_u8).prop_map(|n| format!("f{n}"))];
    let compact = prop::collection::vec(any_serial, 0..8)
        .prop_map(|serials| Action::CompactCertificates(CompactCertificates { serials }));
    let which = || {
        prop_oneof![
            2 => serial().prop_map(Selector::Serial),
            1 => Just(Selector::Machine("LAPTOP".into())),
            2 => machine().prop_map(Selector::Machine),
            2 => holder().prop_map(Selector::Holder),
        ]
    };
    let revoke = (which(), prop::sample::select(vec![0, 1, 6])).prop_map(|(which, code)| {
        let text = String::new();
        Action::RevokeCertificates(RevokeCertificates { which: Some(which), code, text })
    });
    let release = which().prop_map(|which| Action::ReleaseCertificates(ReleaseCertificates { which: Some(which) }));
    prop_oneof![
        1 => settings,
        1 => revoke,
        1 => release,
        1 => (REVOCATION_LEVEL..=LEVEL).prop_map(|level| Action::RaiseLevel(RaiseLevel { level, since: String::new() })),
        2 => record,
        3 => compact,
        1 => serial().prop_map(|serial| Action::RevokeCertificate(RevokeCertificate { serial, reason: "x".into() })),
        1 => Just(Action::SetPsk(SetPsk { sealed: vec![1, 2, 3] })),
        1 => Just(Action::ClearPsk(ClearPsk {})),
        1 => Just(Action::Bootstrap(Bootstrap { cluster_id: vec![1; 16], ..Bootstrap::default() })),
    ]
}

/// Ended soon, or never.
fn until() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![50_000, u64::MAX])
}

fn machine() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a.example.com", "A.Example.com", "b.example.com"]).prop_map(str::to_owned)
}

fn holder() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "Ada", "ADA", "Bob"]).prop_map(str::to_owned)
}

/// Few ids, keys and numbers, so that they are often those of something.
fn enrollment() -> impl Strategy<Value = Action> {
    let profile = || String::from("machine");
    let make = (0..6_u8, machine(), holder(), 1..90_000_u64).prop_map(move |(id, name, holder, ttl_ms)| {
        Action::CreateEnrollToken(CreateEnrollToken {
            id: vec![id; 8],
            hash: vec![id; 32],
            profile: profile(),
            name,
            ttl_ms,
            uses: 2,
            holder,
            ..CreateEnrollToken::default()
        })
    });
    let take = (0..6_u8).prop_map(|id| Action::RevokeEnrollToken(RevokeEnrollToken { id: vec![id; 8] }));
    let put = (machine(), holder(), 0..3_u8, any::<bool>(), any::<bool>()).prop_map(
        move |(name, holder, key, place, keep)| {
            let key_sha256 = if key == 0 { Vec::new() } else { vec![key; 32] };
            let network = place.then(|| net("192.0.2.0/24"));
            let row = MachineRow { name, profile: profile(), holder, key_sha256, network, ..MachineRow::default() };
            Action::PutMachines(PutMachines { machines: vec![row], keep })
        },
    );
    let remove = machine().prop_map(|name| Action::RemoveMachine(RemoveMachine { key: name.to_lowercase() }));
    let queue = (3..7_u8, 0..2_u8).prop_map(move |(key, source)| {
        Action::QueueRequest(QueueRequest {
            key_sha256: vec![key; 32],
            source: format!("198.51.100.{source}"),
            profile: profile(),
            ..QueueRequest::default()
        })
    });
    let decide = (1..12_u64, any::<bool>(), machine(), holder()).prop_map(|(number, approve, name, holder)| {
        Action::DecideRequest(DecideRequest { number, approve, name, holder, ..DecideRequest::default() })
    });
    let proof = prop_oneof![
        3 => (0..6_u8).prop_map(|id| Some(ProofKind::Token(TokenProof { id: vec![id; 8], hash: vec![id; 32] }))),
        1 => (1..12_u64).prop_map(|number| Some(ProofKind::Approved(number))),
    ];
    let intend = (proof, machine(), 0..8_u8, 3..7_u8).prop_map(|(kind, name, serial, key)| {
        let record = CertificateRow {
            serial: format!("e{serial}"),
            name,
            not_after_ms: 90_000,
            key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
            ..machine_record("")
        };
        Action::IntendCertificate(IntendCertificate {
            transaction: vec![serial; 16],
            proof: Some(Proof { kind }),
            key_sha256: vec![key; 32],
            source: "198.51.100.1".into(),
            record: Some(record),
            ..IntendCertificate::default()
        })
    });
    let abandon =
        (0..8_u8).prop_map(|serial| Action::AbandonCertificate(AbandonCertificate { serial: format!("e{serial}") }));
    let issue = (0..8_u8, machine(), until()).prop_map(|(serial, name, until)| {
        let record = CertificateRow { serial: format!("f{serial}"), name, not_after_ms: until, ..machine_record("") };
        Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() })
    });
    let raise = (6..=LEVEL).prop_map(|level| Action::RaiseLevel(RaiseLevel { level, since: String::new() }));
    let revoke = prop_oneof![machine().prop_map(Selector::Machine), holder().prop_map(Selector::Holder)];
    let revoke = (revoke, prop::sample::select(vec![1, 6])).prop_map(|(which, code)| {
        Action::RevokeCertificates(RevokeCertificates { which: Some(which), code, text: String::new() })
    });
    prop_oneof![
        4 => make, 1 => take, 3 => put, 1 => remove, 3 => queue, 3 => decide, 6 => intend, 2 => abandon, 3 => issue,
        1 => raise, 2 => revoke,
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
        1 => (name(), prop::option::of(name())).prop_map(|(name, other)| {
            Action::SetGatewayNames(SetGatewayNames { name, names: other.into_iter().collect() })
        }),
        1 => (name(), prop::collection::vec(1..7i32, 0..3), any::<bool>()).prop_map(|(name, roles, all)| {
            Action::SetOperatorRoles(SetOperatorRoles { name, roles, all })
        }),
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
    let action = prop_oneof![
        2 => users_and_pools(),
        1 => settings_and_certificates(),
        4 => gateways_and_sessions(),
        2 => enrollment(),
    ];
    command_of(action)
}

fn command_of(action: impl Strategy<Value = Action>) -> impl Strategy<Value = Command> {
    // Seldom far ahead: tokens and requests are forgotten, and certificates that had ended make room.
    let at = prop_oneof![80 => 0..100_000_u64, 10 => 0..10 * ANSWER_MS, 10 => Just(0), 1 => Just(40 * 86_400_000), 1 => Just(50_000 + KEPT_MS)];
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
    fn what_is_found_by_an_index_is_what_the_rows_say(
        log in prop::collection::vec(command_of(prop_oneof![4 => enrollment(), 1 => settings_and_certificates()]), 0..60)
    ) {
        let mut state = State::new();
        for command in &log {
            state.apply(command);
            prop_assert_eq!(format!("{:?}", state.build_index()), format!("{:?}", state.index));
            for key in ["a.example.com", "b.example.com"] {
                let named = |name: &str| name.to_lowercase() == key;
                let tokens = state.enroll_tokens.iter().filter(|(_, row)| named(&row.name)).map(|(id, _)| id.clone());
                prop_assert_eq!(state.tokens_of(key), tokens.collect::<Vec<_>>());
                let requests = state.requests.iter().filter(|(_, row)| named(&row.name)).map(|(number, _)| *number);
                prop_assert_eq!(state.requests_of(key), requests.collect::<Vec<_>>());
                let records = state.intents.iter().filter_map(|(_, row)| row.record.as_ref());
                let serials = records.filter(|record| named(&record.name)).map(|record| record.serial.clone());
                prop_assert_eq!(state.intents_of(key), serials.collect::<Vec<_>>());
            }
            let of_ada = |holder: &str| holder.to_lowercase() == "ada";
            let machines = state.machines.iter().filter(|(_, row)| of_ada(&row.holder)).map(|(key, _)| key.clone());
            let tokens = state.enroll_tokens.iter().filter(|(_, row)| of_ada(&row.holder)).map(|(_, row)| &row.name);
            let requests = state.requests.iter().filter(|(_, row)| of_ada(&row.holder)).map(|(_, row)| &row.name);
            let made = tokens.chain(requests).map(|name| name.to_lowercase());
            prop_assert_eq!(state.held_by("aDa").collect::<BTreeSet<_>>(), machines.chain(made).collect::<BTreeSet<_>>());
            let at_ms = state.now_ms();
            let revoked = state.certificates.iter().filter(|(_, row)| row.revoked_ms != 0 && row.not_after_ms > at_ms);
            let revoked: BTreeSet<&String> = revoked.map(|(serial, _)| serial).collect();
            prop_assert_eq!(state.all_revoked(at_ms).map(|row| &row.serial).collect::<BTreeSet<_>>(), revoked);
        }
    }

    #[test]
    fn what_was_ever_recorded_is_known_for_ever_and_its_number_is_used(
        log in prop::collection::vec(command_of(prop_oneof![1 => enrollment(), 3 => settings_and_certificates()]), 0..60)
    ) {
        let mut state = State::new();
        // What there is of each at the end of its record.
        let mut known: BTreeMap<String, CertificateRow> = BTreeMap::new();
        for command in &log {
            let number = state.last_certificate();
            state.apply(command);
            let changed = state.live_changes(number, usize::MAX).into_iter().map(|(_, row)| row);
            known.extend(changed.map(|row| (row.serial.clone(), row.clone())));
        }
        prop_assert_eq!(state.certificates.len() + state.ended.len(), known.len());
        for (serial, was) in &known {
            let s = |ms: u64| ms / 1_000;
            match (state.certificates.get(serial), state.ended.get(serial)) {
                (Some(row), None) => prop_assert_eq!(row, was),
                (None, Some(old)) => {
                    prop_assert!(was.not_after_ms + KEPT_MS <= state.now_ms() && !was.is_on_hold());
                    prop_assert_eq!((old.name, old.profile, s(old.not_after_ms)), (was.name.as_str(), was.profile(), s(was.not_after_ms)));
                    prop_assert_eq!((old.revoked_ms == 0, old.reason), (was.revoked_ms == 0, was.reason()));
                    prop_assert!(old.tag.iter().zip(&was.fingerprint).all(|(a, b)| a == b));
                    prop_assert!(state.machine_certificate(serial, 0).is_err());
                }
                other => prop_assert!(false, "{serial}: {other:?}"),
            }
            let record = CertificateRow { serial: serial.clone(), ..was.clone() };
            let refused = state.record_certificate(Some(&record)).outcome;
            prop_assert!(matches!(refused, Some(Outcome::Conflict(c)) if c.kind() == ConflictKind::AlreadyExists));
        }
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
