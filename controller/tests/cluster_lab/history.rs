//! What clients saw, in the order in which they saw it.
//!
//! The history is only ever added to. An event's place in it is its time: what was noted before a question was asked (see
//! [`History::now`]) lies in the past of that question.

use std::sync::{Mutex, PoisonError};

/// One row of a list of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The session.
    pub(crate) session: String,
    /// Its address.
    pub(crate) address: String,
    /// Number of the question that opened it.
    pub(crate) request: u64,
}

/// What a client saw or did. `begun` is when it asked; the event is noted when the answer has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A session was acknowledged. The same request may be acknowledged again.
    Opened { begun: usize, request: u64, session: String, address: String },
    /// A session's end is about to be reported.
    Ending { session: String },
    /// The end was acknowledged.
    Ended { session: String },
    /// Somebody listed the sessions.
    Listed { begun: usize, member: u32, rows: Vec<Row> },
    /// The register is about to be changed from the version before `version` to this one.
    Writing { write: u64, version: u64, value: u32 },
    /// That was acknowledged.
    Written { write: u64 },
    /// That was refused: somebody else was first.
    Refused { write: u64 },
    /// The register was read.
    Read { begun: usize, member: u32, version: u64, value: u32 },
    /// A certificate was acknowledged; names are not asked for twice.
    Issued { name: String, serial: String },
    /// An answer that nobody should get.
    Odd { what: String },
    /// Something that was done to the cluster; for whoever reads the history.
    Fault { what: String },
}

/// What is there at the end, at one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) sessions: Vec<Row>,
    /// Name and serial.
    pub(crate) certificates: Vec<(String, String)>,
    /// Version and value of the register.
    pub(crate) register: (u64, u32),
}

/// The events.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Vec<Event>>);

impl History {
    /// The present: whatever is noted later is later.
    pub(crate) fn now(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Adds an event.
    pub(crate) fn note(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// Adds what was done to the cluster.
    pub(crate) fn fault(&self, what: impl Into<String>) {
        self.note(Event::Fault { what: what.into() });
    }

    /// Whether there is such an event.
    pub(crate) fn has(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(wanted)
    }

    /// All of them.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The events around `at`, one a line, lists in short.
pub(crate) fn excerpt(events: &[Event], at: usize) -> String {
    let first = at.saturating_sub(15);
    let lines = events.iter().enumerate().skip(first).take(25).map(|(n, event)| {
        let mark = if n == at { "->" } else { "  " };
        match event {
            Event::Listed { begun, member, rows } => {
                format!("{mark} {n}: Listed begun {begun} at member {member}, {} sessions\n", rows.len())
            }
            other => format!("{mark} {n}: {other:?}\n"),
        }
    });
    lines.collect()
}
