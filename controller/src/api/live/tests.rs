use super::*;
use crate::state::{
    Action, Bootstrap, Command, Outcome, RecordCertificate, RegisterGateway, ReleaseCertificates, RevokeCertificates,
    Selector,
};

/// A state with so many machines' certificates, numbered from 1.
fn state(certificates: u32) -> State {
    let mut state = State::new();
    let root = CertificateRow {
        serial: "r00t".into(),
        profile: v1::CertificateProfile::Root.into(),
        ..CertificateRow::default()
    };
    apply(
        &mut state,
        Action::Bootstrap(Bootstrap {
            cluster_id: vec![1; 16],
            root_certificate: vec![2],
            sealed_root_key: vec![3],
            record: Some(root),
            member: Some(crate::state::DescribeMember {
                id: 1,
                address: "a:1".into(),
                level: crate::software::LEVEL,
                ..Default::default()
            }),
        }),
    );
    for n in 1..=certificates {
        issue(&mut state, n);
    }
    state
}

fn apply(state: &mut State, action: Action) -> Outcome {
    state.apply(&Command { request_id: Vec::new(), at_ms: 1_000, action: Some(action) }).outcome.expect("an outcome")
}

fn tag(n: u32) -> [u8; TAG] {
    let mut tag = [0; TAG];
    tag[..4].copy_from_slice(&n.to_be_bytes());
    tag
}

fn issue(state: &mut State, n: u32) {
    let record = CertificateRow {
        serial: format!("{n:08x}"),
        profile: v1::CertificateProfile::Machine.into(),
        name: format!("m{n}"),
        not_after_ms: 5_000_000,
        key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
        fingerprint: [tag(n), [9; TAG]].concat(),
        ..CertificateRow::default()
    };
    let done = apply(state, Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() }));
    assert!(matches!(done, Outcome::Done(_)), "{done:?}");
}

fn revoke(state: &mut State, n: u32, code: u32) {
    let which = Some(Selector::Serial(format!("{n:08x}")));
    let done = apply(state, Action::RevokeCertificates(RevokeCertificates { which, code, text: String::new() }));
    assert!(matches!(done, Outcome::Revoked(_)), "{done:?}");
}

/// All that a cursor has to say.
fn drain(cursor: &mut Cursor, state: &State) -> Vec<v1::LiveUpdate> {
    std::iter::from_fn(|| cursor.next(state)).collect()
}

fn live(update: &v1::LiveUpdate) -> Vec<[u8; 20]> {
    assert_eq!(update.live.len() % 20, 0);
    update.live.as_chunks::<20>().0.to_vec()
}

#[test]
fn the_whole_set_comes_in_parts_of_bounded_size_and_then_what_has_changed() {
    let count = u32::try_from(CHUNK).expect("small") * 2 + 10;
    let mut state = state(count);
    revoke(&mut state, 7, 1);
    let mut cursor = Cursor::new(v1::LiveFrom::default(), &state);
    let first = cursor.next(&state).expect("a part");
    assert!(first.snapshot && first.more && live(&first).len() + first.revoked.len() <= CHUNK);
    // Meanwhile something happens.
    revoke(&mut state, count, 6);
    issue(&mut state, count + 1);
    let rest = drain(&mut cursor, &state);
    assert_eq!(cursor.next(&state), None);
    let parts: Vec<_> = rest.iter().map(|u| (u.snapshot, u.more)).collect();
    assert_eq!(parts, [(true, true), (true, false), (false, false)], "two more parts, and the changes");
    assert!(first.after == 0 && rest[0].after == first.said && rest[1].after == rest[0].said);
    let changes = rest.last().expect("changes");
    assert!(changes.after == first.index && changes.index == state.last_certificate());
    assert_eq!(changes.revoked.iter().map(|r| r.reason()).collect::<Vec<_>>(), [v1::RevocationReason::CertificateHold]);
    assert_eq!(live(changes)[0][..TAG], tag(count + 1));
    assert_eq!(live(changes)[0][TAG..], 5_000_u32.to_be_bytes());
    let all: usize = std::iter::once(&first).chain(&rest[..2]).map(|u| live(u).len() + u.revoked.len()).sum();
    assert_eq!(all, count as usize);
    assert!(prost::Message::encoded_len(&first) < 200_000);
}

#[test]
fn a_gateway_goes_on_where_it_was_at_any_controller_and_begins_anew_in_another_life_of_the_cluster() {
    let mut state = state(3);
    let here = v1::LiveFrom { lineage: lineage(&state), index: state.last_certificate() };
    assert_eq!(drain(&mut Cursor::new(here, &state), &state), []);
    revoke(&mut state, 2, 1);
    let said = drain(&mut Cursor::new(here, &state), &state);
    assert!(said.len() == 1 && !said[0].snapshot && said[0].after == here.index);
    assert_eq!(said[0].revoked[0].fingerprint, tag(2));
    let mut release = Cursor::new(said_at(&said[0]), &state);
    revoke(&mut state, 3, 6);
    let which = Some(Selector::Serial(format!("{:08x}", 3)));
    apply(&mut state, Action::ReleaseCertificates(ReleaseCertificates { which }));
    let said = drain(&mut release, &state);
    assert!(said.len() == 1 && said[0].revoked.is_empty() && live(&said[0])[0][..TAG] == tag(3));

    // One that is ahead of this controller, or of another life, hears the whole.
    for from in [
        v1::LiveFrom { index: state.last_certificate() + 1, ..here },
        v1::LiveFrom { lineage: here.lineage ^ 1, index: 1 },
        v1::LiveFrom { index: u64::MAX, ..here },
    ] {
        assert!(drain(&mut Cursor::new(from, &state), &state)[0].snapshot, "{from:?}");
    }
    let mut cursor = Cursor::new(said_at(&said[0]), &state);
    state.begin_anew(2_000);
    assert!(cursor.next(&state).expect("the whole").snapshot);
}

fn said_at(update: &v1::LiveUpdate) -> v1::LiveFrom {
    v1::LiveFrom { lineage: update.lineage, index: update.index }
}

#[test]
fn a_gateway_has_acknowledged_or_may_still_or_its_lease_has_lapsed() {
    use v1::RevocationState::{Acknowledged, Lapsed, Waiting};
    let mut state = state(3);
    let Outcome::Registered(place) = apply(
        &mut state,
        Action::RegisterGateway(RegisterGateway { name: "gw".into(), boot_id: vec![1; 16], ..Default::default() }),
    ) else {
        panic!("registers")
    };
    let after = state.last_certificate();
    revoke(&mut state, 1, 1);
    let change = v1::RevocationChange { after, last: state.last_certificate(), at_unix_ms: 1_000 };
    let (live, metrics) = (Live::default(), Metrics::new().expect("metrics"));
    let member = v1::Member { slot: place.slot, epoch: place.epoch };
    let line = lineage(&state);
    let state_of = |live: &Live, log_ms| {
        let progress = live.progress(place.slot, place.epoch, line, change, log_ms);
        (progress.state(), progress.after_ms, progress.tunnels)
    };
    assert_eq!(state_of(&live, 1_000), (Waiting, 0, 0));
    assert_eq!(state_of(&live, 1_000 + LEASE_MS), (Lapsed, 0, 0));
    let say = |live: &Live, lineage, index, tunnels: &[(u64, u32)], log_ms| {
        let at = Some(v1::LiveFrom { lineage, index });
        let request = v1::HeartbeatRequest {
            live: Some(v1::LiveHeld { at, certificates: 2, age_ms: 10, stale: false }),
            revocations: tunnels
                .iter()
                .map(|(number, tunnels)| v1::RevocationDone { number: *number, tunnels: *tunnels })
                .collect(),
            ..Default::default()
        };
        live.note(member, &request, &state, Times { monotonic_ms: log_ms, log_ms }, &metrics);
    };
    say(&live, line, after, &[], 1_050);
    assert_eq!(state_of(&live, 1_100).0, Waiting);
    say(&live, line ^ 1, change.last, &[], 1_150);
    assert_eq!(state_of(&live, 1_100).0, Waiting, "numbers of another life say nothing");
    say(&live, line, change.last, &[(change.last, 2), (after, 7)], 1_200);
    assert_eq!(state_of(&live, 1_300), (Acknowledged, 200, 2));
    say(&live, line, change.last + 5, &[(change.last, 2)], 1_400);
    assert_eq!(state_of(&live, 9_300), (Acknowledged, 200, 2), "once is enough");
    assert_eq!(live.held(place.slot, place.epoch, 1_900).map(|held| held.age_ms), Some(510));
    assert_eq!(live.held(place.slot, place.epoch + 1, 1_900), None, "that was another process");
    for n in 0..1_000_u32 {
        say(&live, line, change.last + 6 + u64::from(n), &[(u64::from(n), 1)], 2_000);
    }
    let said = live.said();
    assert!(said[&place.slot].acknowledged.len() <= REMEMBERED && said[&place.slot].ended.len() <= REMEMBERED);
}
