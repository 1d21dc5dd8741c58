//! What clients saw, in the order in which they saw it, and whether it can be.
//!
//! An event is noted after an answer came (`Opened`, `Ended`) or before a question is asked (`Ending`). Between `Opened` and
//! `Ending` a session is there for certain, and its address is nobody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// What a client saw or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A session was acknowledged.
    Opened {
        /// Number of the question.
        request: u64,
        /// The session.
        session: String,
        /// Its address.
        address: String,
    },
    /// Its end is about to be reported.
    Ending {
        /// The session.
        session: String,
    },
    /// The end was acknowledged.
    Ended {
        /// The session.
        session: String,
    },
}

/// The events.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Vec<Event>>);

impl History {
    /// Adds an event.
    pub(crate) fn note(&self, event: Event) {
        self.0.lock().expect("not poisoned").push(event);
    }

    /// Compares with the sessions (id and address) that are there at the end. The error is what cannot be.
    pub(crate) fn check(&self, last: &[(String, String)]) -> Result<(), String> {
        let events = self.0.lock().expect("not poisoned");
        let (mut holder, mut address_of) = (BTreeMap::new(), BTreeMap::new());
        let (mut requests, mut ending, mut ended) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for event in events.iter() {
            match event {
                Event::Opened { request, session, address } => {
                    if let Some(other) = requests.insert(*request, session) {
                        return Err(format!("request {request} made two sessions: {other} and {session}"));
                    }
                    if address_of.insert(session, address).is_some() {
                        return Err(format!("session {session} was given twice"));
                    }
                    if let Some(other) = holder.insert(address, session) {
                        return Err(format!("address {address} was leased to {session} while {other} had it"));
                    }
                }
                Event::Ending { session } => {
                    ending.insert(session);
                    if let Some(address) = address_of.get(session) {
                        holder.remove(*address);
                    }
                }
                Event::Ended { session } => {
                    ended.insert(session);
                }
            }
        }
        let there: BTreeMap<&String, &String> = last.iter().map(|(id, address)| (id, address)).collect();
        if there.len() != last.len() {
            return Err("a session is listed twice".into());
        }
        if there.values().collect::<BTreeSet<_>>().len() != last.len() {
            return Err("two sessions have the same address at the end".into());
        }
        for (session, address) in &address_of {
            match there.get(*session) {
                None if !ending.contains(*session) => {
                    return Err(format!("session {session} was acknowledged and is lost"));
                }
                Some(_) if ended.contains(*session) => return Err(format!("session {session} has ended and is there")),
                Some(now) if now != address => return Err(format!("session {session} had {address} and has {now}")),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The checker is checked: each fault that it is for is put in on purpose.
#[test]
fn each_fault_is_found() {
    let open = |request, session: &str, address: &str| Event::Opened {
        request,
        session: session.into(),
        address: address.into(),
    };
    let ending = |session: &str| Event::Ending { session: session.into() };
    let ended = |session: &str| Event::Ended { session: session.into() };
    let verdict = |events: &[Event], last: &[(&str, &str)]| {
        let history = History::default();
        events.iter().for_each(|event| history.note(event.clone()));
        let last: Vec<(String, String)> = last.iter().map(|(s, a)| ((*s).to_owned(), (*a).to_owned())).collect();
        history.check(&last).err().unwrap_or_default()
    };
    let good = [open(1, "a", "x"), ending("a"), open(2, "b", "x"), ended("a"), open(3, "c", "y"), ending("c")];
    assert_eq!(verdict(&good, &[("b", "x")]), "");
    assert_eq!(verdict(&good, &[("b", "x"), ("c", "y")]), "", "whether c's end came through is not known");
    assert!(verdict(&good, &[]).contains("b was acknowledged and is lost"));
    assert!(verdict(&good, &[("b", "x"), ("a", "z")]).contains("a has ended and is there"));
    assert!(verdict(&good, &[("b", "z")]).contains("had x and has z"));
    assert!(verdict(&good, &[("b", "x"), ("d", "x")]).contains("same address"));
    assert!(verdict(&[open(1, "a", "x"), open(2, "b", "x")], &[]).contains("while a had it"));
    assert!(verdict(&[open(1, "a", "x"), open(1, "b", "y")], &[]).contains("made two sessions"));
}
