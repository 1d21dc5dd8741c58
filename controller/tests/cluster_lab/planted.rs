//! The checker is checked: each fault that it is for is put into a history on purpose, into small ones here and into the history
//! of every scenario after it was found good.

use super::check::check;
use super::history::{Event, Last, Row};

/// What became of faults that were put into a good history.
#[derive(Debug, Default)]
pub(crate) struct Planted {
    /// The checker named them.
    pub(crate) found: usize,
    /// It found nothing, or something else.
    pub(crate) missed: Vec<String>,
    /// The history has no place for them.
    pub(crate) unplaced: Vec<&'static str>,
}

/// Puts one fault after the other into a good history, and looks whether the checker names it.
pub(crate) fn plant(events: &[Event], last: &Last) -> Planted {
    let mut planted = Planted::default();
    for (name, plant) in FAULTS {
        let (mut events, mut last) = (events.to_vec(), last.clone());
        let Some(words) = plant(&mut events, &mut last) else {
            planted.unplaced.push(name);
            continue;
        };
        match check(&events, &last) {
            Err(violation) if words.iter().any(|words| violation.what.contains(words)) => planted.found += 1,
            said => planted.missed.push(format!("{name} ({said:?} instead of {words:?})")),
        }
    }
    planted
}

/// Returns what the checker must say: one of these; `None` where the history has no place for the fault.
type Plant = fn(&mut Vec<Event>, &mut Last) -> Option<Vec<String>>;

const FAULTS: &[(&str, Plant)] = &[
    ("an acknowledged session is lost", |events, last| {
        let lost = stays(events, last, 0).next()?.session;
        last.sessions.retain(|row| row.session != lost);
        Some(vec![format!("session {lost} was acknowledged and is lost")])
    }),
    ("an acknowledged session is lost for a while", |events, last| {
        let lost = stays(events, last, 0).next()?;
        let opened = opening(events, &lost)?;
        let rows = events.iter_mut().find_map(|e| match e {
            Event::Listed { begun, rows, .. } if *begun > opened => Some(rows),
            _ => None,
        })?;
        rows.retain(|row| row.session != lost.session);
        Some(vec![format!("does not show session {}", lost.session)])
    }),
    ("a list is older than what was acknowledged", |events, last| {
        // What the first list showed is shown again by the last one, though something that stays was opened in between.
        let lists = || events.iter().enumerate().filter(|(_, e)| matches!(e, Event::Listed { .. }));
        let ((first, old), (second, _)) = (lists().next()?, lists().next_back()?);
        let (old, opened) = (old.clone(), opening(events, &stays(events, last, first).next()?)?);
        if let (Event::Listed { rows: old, .. }, Event::Listed { begun, rows, .. }) = (old, &mut events[second]) {
            (*begun > opened).then_some(())?;
            *rows = old;
        }
        // It may also show what has ended by then.
        Some(vec!["does not show session".into(), "after its end was acknowledged".into()])
    }),
    ("a session that ended is back", |events, last| {
        let ended = events.iter().find_map(|e| if let Event::Ended { session } = e { Some(session) } else { None })?;
        last.sessions.push(Row { session: ended.clone(), address: "198.18.0.1".into(), request: u64::MAX });
        Some(vec![format!("session {ended} has ended and is there")])
    }),
    ("an address is leased twice", |events, last| {
        let (held, later) = stays(events, last, 0).find_map(|held| {
            let later = opened_once_after(events, opening(events, &held)?).find(|later| *later != held.session)?;
            Some((held, later.to_owned()))
        })?;
        let address = events.iter_mut().find_map(|e| match e {
            Event::Opened { session, address, .. } if *session == later => Some(address),
            _ => None,
        })?;
        address.clone_from(&held.address);
        Some(vec![format!("address {} was leased to {later} while {} had it", held.address, held.session)])
    }),
    ("a request is applied twice", |_, last| {
        let twice = last.sessions.first()?.clone();
        let (first, request) = (twice.session.clone(), twice.request);
        last.sessions.push(Row { session: "again".into(), address: "198.18.0.2".into(), ..twice });
        Some(vec![format!("request {request} made two sessions: {first} and again")])
    }),
    ("a request is answered with another session", |events, _| {
        let first = events.iter().find(|e| matches!(e, Event::Opened { .. }))?.clone();
        let Event::Opened { begun, request, session, address } = first else { return None };
        events.push(Event::Opened { begun, request, session: "another".into(), address });
        Some(vec![format!("request {request} made two sessions: {session} and another")])
    }),
    ("a read is stale", |events, _| {
        let first = events.iter().find(|e| matches!(e, Event::Read { .. }))?.clone();
        let newest = position(events, |e| matches!(e, Event::Written { .. }))?;
        let Event::Read { member, version, value, .. } = first else { return None };
        events.push(Event::Read { begun: newest + 1, member, version, value });
        Some(vec![format!("member {member} shows version {version} when version")])
    }),
    ("a write is acknowledged and lost", |events, last| {
        position(events, |e| matches!(e, Event::Written { .. }))?;
        let version = last.register.0;
        last.register.0 -= 1;
        Some(vec![format!("version {version} of the register was acknowledged and is lost")])
    }),
    ("a write is applied after a later one", |events, _| {
        let (version, value) = events.iter().find_map(|e| match e {
            Event::Writing { version, value, .. } => Some((*version, *value)),
            _ => None,
        })?;
        position(events, |e| matches!(e, Event::Written { .. }))?;
        let late = u64::MAX;
        events.extend([Event::Writing { write: late, version, value }, Event::Written { write: late }]);
        // Whether the first one was acknowledged is not known.
        let both = format!("and {late} were both acknowledged as version {version}");
        Some(vec![both, format!("write {late} made version {version} when version")])
    }),
    ("a certificate is acknowledged and lost", |events, last| {
        let lost = events.iter().find_map(|e| match e {
            Event::Issued { name, serial } => Some((name, serial)),
            _ => None,
        })?;
        last.certificates.retain(|(_, serial)| serial != lost.1);
        Some(vec![format!("certificate {} of {} was acknowledged and is lost", lost.1, lost.0)])
    }),
    ("a serial is used twice", |_, last| {
        let (name, serial) = last.certificates.first()?.clone();
        last.certificates.push(("another.example".into(), serial.clone()));
        Some(vec![format!("serial {serial} is on two certificates: {name} and another.example")])
    }),
];

fn position(events: &[Event], wanted: impl Fn(&Event) -> bool) -> Option<usize> {
    events.iter().position(wanted)
}

fn opening(events: &[Event], row: &Row) -> Option<usize> {
    position(events, |e| matches!(e, Event::Opened { session, .. } if *session == row.session))
}

/// Sessions that were opened after `from` and are there at the end, for certain.
fn stays(events: &[Event], last: &Last, from: usize) -> impl Iterator<Item = Row> {
    let certain = move |row: &&Row| {
        let ends = events.iter().any(|e| matches!(e, Event::Ending { session } if *session == row.session));
        // A list that was under way may have been first to show it.
        !ends
            && opening(events, row).is_some_and(|at| matches!(events[at], Event::Opened { begun, .. } if begun >= from))
    };
    last.sessions.iter().filter(certain).cloned()
}

/// Sessions that were acknowledged after `from`, and once only.
fn opened_once_after(events: &[Event], from: usize) -> impl Iterator<Item = &str> {
    let opened = |e: &Event, which: &str| matches!(e, Event::Opened { session, .. } if session == which);
    events.iter().skip(from + 1).filter_map(move |e| match e {
        Event::Opened { session, .. } if events.iter().filter(|e| opened(e, session)).count() == 1 => {
            Some(session.as_str())
        }
        _ => None,
    })
}

fn row(session: &str, address: &str, request: u64) -> Row {
    Row { session: session.into(), address: address.into(), request }
}

fn opened(begun: usize, request: u64, session: &str, address: &str) -> Event {
    Event::Opened { begun, request, session: session.into(), address: address.into() }
}

fn ending(session: &str) -> Event {
    Event::Ending { session: session.into() }
}

fn ended(session: &str) -> Event {
    Event::Ended { session: session.into() }
}

fn listed(begun: usize, sessions: &[(&str, &str, u64)]) -> Event {
    Event::Listed { begun, member: 1, rows: sessions.iter().map(|(s, a, r)| row(s, a, *r)).collect() }
}

/// The checker's words, empty for a good history.
fn verdict(events: &[Event], last: &[(&str, &str, u64)]) -> String {
    let sessions = last.iter().map(|(s, a, r)| row(s, a, *r)).collect();
    check(events, &Last { sessions, ..Last::default() }).err().map(|v| v.what).unwrap_or_default()
}

#[test]
fn each_fault_of_sessions_and_leases_is_found() {
    let good =
        [opened(0, 1, "a", "x"), ending("a"), opened(0, 2, "b", "x"), ended("a"), opened(0, 3, "c", "y"), ending("c")];
    assert_eq!(verdict(&good, &[("b", "x", 2)]), "");
    assert_eq!(verdict(&good, &[("b", "x", 2), ("c", "y", 3)]), "", "whether c's end came through is not known");
    assert!(verdict(&good, &[]).contains("b was acknowledged and is lost"));
    assert!(verdict(&good, &[("b", "x", 2), ("a", "z", 1)]).contains("a has ended and is there"));
    assert!(verdict(&good, &[("b", "z", 2)]).contains("had x and has z"));
    assert!(verdict(&good, &[("b", "x", 2), ("d", "x", 4)]).contains("same address"));
    assert!(verdict(&good, &[("b", "x", 2), ("d", "z", 2)]).contains("made two sessions"));
    assert!(verdict(&good, &[("b", "x", 2), ("d", "z", 3)]).contains("made two sessions"));
    assert!(verdict(&[opened(0, 1, "a", "x"), opened(0, 2, "b", "x")], &[]).contains("while a had it"));
    assert!(verdict(&[opened(0, 1, "a", "x"), opened(0, 1, "b", "y")], &[]).contains("made two sessions"));
    assert!(verdict(&[opened(0, 1, "a", "x"), opened(0, 2, "a", "x")], &[]).contains("given to two requests"));
    assert!(verdict(&[Event::Odd { what: "refused".into() }], &[]).contains("refused"));
}

#[test]
fn each_list_that_cannot_be_is_found() {
    let (a, stays) = (("a", "x", 1), [("a", "x", 1)]);
    // Asked for at 0 and acknowledged at 2: a list in between may show it or not.
    let between = |first: &[_], second: &[_]| {
        verdict(&[listed(0, first), listed(1, second), opened(0, 1, "a", "x"), listed(3, &[a])], &stays)
    };
    assert_eq!(between(&[], &[]), "");
    assert_eq!(between(&[], &[a]), "");
    assert_eq!(between(&[a], &[a]), "");
    assert!(between(&[a], &[]).contains("does not show"), "once seen, it stays");
    // Lists that overlap may differ.
    assert_eq!(verdict(&[listed(0, &[a]), listed(0, &[]), opened(0, 1, "a", "x")], &stays), "");
    assert!(verdict(&[opened(0, 1, "a", "x"), listed(1, &[])], &stays).contains("does not show"));
    assert_eq!(verdict(&[opened(0, 1, "a", "x"), listed(0, &[])], &stays), "", "asked before it was there");
    assert!(verdict(&[listed(0, &[a]), opened(1, 1, "a", "x")], &stays).contains("before it was asked for"));
    let gone = |first: &[_], second: &[_]| {
        verdict(
            &[opened(0, 1, "a", "x"), ending("a"), listed(2, first), listed(3, second), ended("a"), listed(5, &[])],
            &[],
        )
    };
    assert_eq!(gone(&[a], &[a]), "");
    assert_eq!(gone(&[a], &[]), "");
    assert!(gone(&[], &[a]).contains("does not show"), "once gone, it stays away");
    let back = [opened(0, 1, "a", "x"), ending("a"), ended("a"), listed(3, &[a])];
    assert!(verdict(&back, &[]).contains("after its end was acknowledged"));
    assert!(verdict(&[listed(0, &[("a", "x", 1), ("b", "x", 2)])], &[]).contains("same address"));
}

#[test]
fn each_fault_of_the_register_is_found() {
    let read = |begun, version, value| Event::Read { begun, member: 2, version, value };
    let writing = |write, version, value| Event::Writing { write, version, value };
    let (written, refused) = (|write| Event::Written { write }, |write| Event::Refused { write });
    let verdict = |events: &[Event], register| {
        let last = Last { register, ..Last::default() };
        check(events, &last).err().map(|v| v.what).unwrap_or_default()
    };
    let good = [read(0, 1, 9), writing(1, 2, 7), writing(2, 2, 8), written(1), refused(2), read(3, 2, 7)];
    assert_eq!(verdict(&good, (2, 7)), "");
    assert!(verdict(&good, (1, 9)).contains("is lost"));
    assert!(verdict(&good, (2, 8)).contains("is 7 and 8"));
    assert!(verdict(&[read(0, 1, 9), writing(1, 2, 7), written(1), read(3, 1, 9)], (2, 7)).contains("shows version 1"));
    assert_eq!(verdict(&[read(0, 1, 9), writing(1, 2, 7), written(1), read(2, 1, 9)], (2, 7)), "", "asked before");
    let seen = [read(0, 1, 9), writing(1, 2, 7), read(2, 2, 7), read(3, 1, 9)];
    assert!(verdict(&seen, (2, 7)).contains("shows version 1"), "who has seen it knows");
    let both = [read(0, 1, 9), writing(1, 2, 7), writing(2, 2, 8), written(1), written(2)];
    assert!(verdict(&both, (2, 7)).contains("both acknowledged"));
    assert!(verdict(&[read(0, 1, 9), writing(1, 2, 7), refused(1), read(3, 2, 7)], (2, 7)).contains("nobody wrote"));
    assert!(verdict(&[read(0, 1, 9), read(0, 2, 7)], (2, 7)).contains("nobody wrote"));
    assert!(verdict(&[read(0, 5, 9), writing(1, 5, 7), written(1)], (5, 7)).contains("when version 5 was there"));
}

#[test]
fn each_fault_of_certificates_is_found() {
    let issued = |name: &str, serial: &str| Event::Issued { name: name.into(), serial: serial.into() };
    let verdict = |events: &[Event], certificates: &[(&str, &str)]| {
        let certificates = certificates.iter().map(|(n, s)| ((*n).to_owned(), (*s).to_owned())).collect();
        check(events, &Last { certificates, ..Last::default() }).err().map(|v| v.what).unwrap_or_default()
    };
    let good = [issued("a", "01"), issued("b", "02")];
    assert_eq!(verdict(&good, &[("a", "01"), ("b", "02"), ("c", "03")]), "", "c's answer was lost");
    assert!(verdict(&good, &[("a", "01")]).contains("02 of b was acknowledged and is lost"));
    assert!(verdict(&good, &[("a", "01"), ("b", "02"), ("c", "02")]).contains("on two certificates"));
    assert!(verdict(&good, &[("a", "01"), ("b", "02"), ("b", "03")]).contains("made two certificates"));
    assert!(verdict(&[issued("a", "01"), issued("b", "01")], &[("a", "01")]).contains("used twice"));
}

#[test]
fn each_planted_fault_has_a_place_in_a_small_history_and_is_named() {
    let events = [
        Event::Read { begun: 0, member: 1, version: 1, value: 9 },
        listed(1, &[]),
        opened(2, 1, "a", "x"),
        opened(3, 2, "b", "y"),
        ending("b"),
        ended("b"),
        Event::Writing { write: 1, version: 2, value: 7 },
        Event::Written { write: 1 },
        Event::Issued { name: "m".into(), serial: "01".into() },
        listed(9, &[("a", "x", 1)]),
    ];
    let last =
        Last { sessions: vec![row("a", "x", 1)], certificates: vec![("m".into(), "01".into())], register: (2, 7) };
    assert_eq!(check(&events, &last), Ok(()));
    let planted = plant(&events, &last);
    assert_eq!((planted.found, &planted.missed[..], &planted.unplaced[..]), (FAULTS.len(), &[][..], &[][..]));
    let nothing = plant(&[], &Last::default());
    assert_eq!((nothing.found, nothing.unplaced.len()), (0, FAULTS.len()));
}
