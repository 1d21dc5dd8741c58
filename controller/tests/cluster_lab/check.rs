//! Whether a history can be: nothing acknowledged is lost, nothing is given twice, nothing is done twice, and every read shows
//! what was acknowledged before it.
//!
//! - *Sessions*: each is there from a moment between its question and its acknowledgement until a moment between the report of
//!   its end and the acknowledgement of that. Such moments must exist that fit all lists (that is linearizability of the
//!   session, decided exactly). Where two sessions are there for certain, they have two addresses.
//! - *Register*: its writers compare and set, so each version has one writer, and versions are an order; what came before in
//!   real time must come before in it.
//! - *Certificates*: each acknowledged one is there under its serial, and no serial twice.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Event, Last, Row};

/// What cannot be, and the event at which it shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) what: String,
    pub(crate) at: usize,
}

type Verdict = Result<(), Violation>;

fn wrong(at: usize, what: impl Into<String>) -> Verdict {
    Err(Violation { what: what.into(), at })
}

/// Later than everything.
const NEVER: usize = usize::MAX;

/// Compares the events with each other and with what is there at the end.
pub(crate) fn check(events: &[Event], last: &Last) -> Verdict {
    for (at, event) in events.iter().enumerate() {
        if let Event::Odd { what } = event {
            return wrong(at, what.clone());
        }
    }
    let sessions = Sessions::collect(events)?;
    sessions.leases(events)?;
    sessions.lists(events)?;
    sessions.end(events.len(), &last.sessions)?;
    register(events, last.register)?;
    certificates(events, &last.certificates)
}

/// One session: between which moments it began and ended.
#[derive(Debug)]
struct Session<'a> {
    id: &'a str,
    address: &'a str,
    asked: usize,
    opened: usize,
    ending: usize,
    ended: usize,
}

#[derive(Debug, Default)]
struct Sessions<'a> {
    all: Vec<Session<'a>>,
    by_id: BTreeMap<&'a str, usize>,
    by_request: BTreeMap<u64, usize>,
}

impl<'a> Sessions<'a> {
    fn collect(events: &'a [Event]) -> Result<Self, Violation> {
        let mut found = Self::default();
        for (at, event) in events.iter().enumerate() {
            match event {
                Event::Opened { begun, request, session, address } => {
                    found.open(at, *begun, *request, session, address)?
                }
                Event::Ending { session } => {
                    if let Some(session) = found.by_id.get(session.as_str()).map(|n| &mut found.all[*n]) {
                        session.ending = session.ending.min(at);
                    }
                }
                Event::Ended { session } => {
                    if let Some(session) = found.by_id.get(session.as_str()).map(|n| &mut found.all[*n]) {
                        session.ended = session.ended.min(at);
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn open(&mut self, at: usize, asked: usize, request: u64, id: &'a str, address: &'a str) -> Verdict {
        if let Some(n) = self.by_request.get(&request) {
            let first = &self.all[*n];
            if first.id != id {
                return wrong(at, format!("request {request} made two sessions: {} and {id}", first.id));
            }
            if first.address != address {
                return wrong(at, format!("session {id} was answered with {} and then {address}", first.address));
            }
            return Ok(());
        }
        if self.by_id.contains_key(id) {
            return wrong(at, format!("session {id} was given to two requests"));
        }
        self.by_request.insert(request, self.all.len());
        self.by_id.insert(id, self.all.len());
        self.all.push(Session { id, address, asked, opened: at, ending: NEVER, ended: NEVER });
        Ok(())
    }

    /// No address belongs to two sessions at once.
    fn leases(&self, events: &[Event]) -> Verdict {
        let mut holder: BTreeMap<&str, &str> = BTreeMap::new();
        let mut changes: Vec<(usize, bool, usize)> = Vec::new();
        for (n, session) in self.all.iter().enumerate() {
            changes.push((session.opened, true, n));
            changes.push((session.ending, false, n));
        }
        changes.sort_unstable();
        for (at, opens, n) in changes.into_iter().filter(|(at, ..)| *at != NEVER) {
            let session = &self.all[n];
            if !opens {
                if holder.get(session.address) == Some(&session.id) {
                    holder.remove(session.address);
                }
            } else if let Some(other) = holder.insert(session.address, session.id) {
                return wrong(
                    at,
                    format!("address {} was leased to {} while {other} had it", session.address, session.id),
                );
            }
        }
        for (at, event) in events.iter().enumerate() {
            if let Event::Listed { rows, .. } = event {
                distinct(at, rows)?;
            }
        }
        Ok(())
    }

    /// Every list can be explained.
    fn lists(&self, events: &[Event]) -> Verdict {
        let lists: Vec<(usize, usize, u32, BTreeSet<usize>)> = events
            .iter()
            .enumerate()
            .filter_map(|(at, event)| match event {
                Event::Listed { begun, member, rows } => {
                    let known = rows.iter().filter_map(|row| self.by_id.get(row.session.as_str()).copied());
                    Some((*begun, at, *member, known.collect()))
                }
                _ => None,
            })
            .collect();
        // The latest beginning and the earliest end that the lists which show a session allow.
        let mut began: Vec<usize> = self.all.iter().map(|s| s.opened).collect();
        let mut ended: Vec<usize> = self.all.iter().map(|s| s.ending).collect();
        for (begun, at, member, shown) in &lists {
            for n in shown {
                let session = &self.all[*n];
                if *at < session.asked || *begun > session.ended {
                    let when =
                        if *at < session.asked { "before it was asked for" } else { "after its end was acknowledged" };
                    return wrong(*at, format!("member {member} shows session {} {when}", session.id));
                }
                began[*n] = began[*n].min(*at);
                ended[*n] = if ended[*n] == NEVER { NEVER } else { ended[*n].max(*begun) };
            }
        }
        for (begun, at, member, shown) in &lists {
            for (n, session) in self.all.iter().enumerate() {
                if began[n] < *begun && *at < ended[n] && !shown.contains(&n) {
                    return wrong(
                        *at,
                        format!(
                            "member {member} does not show session {}, which was there from {} to {}",
                            session.id, began[n], ended[n]
                        ),
                    );
                }
            }
        }
        Ok(())
    }

    /// What is there at the end is what was acknowledged.
    fn end(&self, at: usize, last: &[Row]) -> Verdict {
        distinct(at, last)?;
        let there: BTreeMap<&str, &Row> = last.iter().map(|row| (row.session.as_str(), row)).collect();
        for row in last {
            if let Some(n) = self.by_request.get(&row.request)
                && self.all[*n].id != row.session
            {
                let other = self.all[*n].id;
                return wrong(at, format!("request {} made two sessions: {other} and {}", row.request, row.session));
            }
        }
        for session in &self.all {
            match there.get(session.id) {
                None if session.ending == NEVER => {
                    return wrong(session.opened, format!("session {} was acknowledged and is lost", session.id));
                }
                Some(_) if session.ended != NEVER => {
                    return wrong(session.ended, format!("session {} has ended and is there", session.id));
                }
                Some(now) if now.address != session.address => {
                    let what = format!("session {} had {} and has {}", session.id, session.address, now.address);
                    return wrong(session.opened, what);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// In one list, nothing is there twice.
fn distinct(at: usize, rows: &[Row]) -> Verdict {
    let (mut ids, mut addresses, mut requests) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    for row in rows {
        if !ids.insert(&row.session) {
            return wrong(at, format!("session {} is listed twice", row.session));
        }
        if let Some(other) = addresses.insert(&row.address, &row.session) {
            return wrong(at, format!("sessions {other} and {} have the same address {}", row.session, row.address));
        }
        if let Some(other) = requests.insert(row.request, &row.session) {
            return wrong(at, format!("request {} made two sessions: {other} and {}", row.request, row.session));
        }
    }
    Ok(())
}

/// A write of the register.
struct Write {
    begun: usize,
    version: u64,
    value: u32,
}

fn register(events: &[Event], last: (u64, u32)) -> Verdict {
    let refused: BTreeSet<u64> =
        events.iter().filter_map(|e| if let Event::Refused { write } = e { Some(*write) } else { None }).collect();
    let mut writes: BTreeMap<u64, Write> = BTreeMap::new();
    // What a version was seen to hold, and the highest version whose existence was known at each moment.
    let mut values: BTreeMap<u64, u32> = BTreeMap::new();
    let mut writer: BTreeMap<u64, u64> = BTreeMap::new();
    let mut known: Vec<u64> = vec![0];
    let mut initial = None;
    for (at, event) in events.iter().enumerate() {
        let mut highest = known[at];
        match event {
            Event::Writing { write, version, value } => {
                writes.insert(*write, Write { begun: at, version: *version, value: *value });
            }
            Event::Written { write } => {
                let Some(Write { begun, version, value }) = writes.get(write) else {
                    return wrong(at, format!("write {write} was never asked for"));
                };
                if let Some(other) = writer.insert(*version, *write) {
                    return wrong(
                        at,
                        format!("writes {other} and {write} were both acknowledged as version {version}"),
                    );
                }
                if known[*begun] >= *version {
                    let known = known[*begun];
                    return wrong(at, format!("write {write} made version {version} when version {known} was there"));
                }
                agree(&mut values, at, *version, *value)?;
                highest = highest.max(*version);
            }
            Event::Read { begun, member, version, value } => {
                initial.get_or_insert(*version);
                if known[*begun] > *version {
                    let newer = known[*begun];
                    return wrong(
                        at,
                        format!("member {member} shows version {version} when version {newer} was there"),
                    );
                }
                let origin =
                    |w: &(&u64, &Write)| w.1.version == *version && w.1.value == *value && !refused.contains(w.0);
                if initial != Some(*version) && !writes.iter().any(|w| origin(&w)) {
                    return wrong(
                        at,
                        format!("member {member} shows version {version} with {value}, which nobody wrote"),
                    );
                }
                agree(&mut values, at, *version, *value)?;
                highest = highest.max(*version);
            }
            _ => {}
        }
        known.push(highest);
    }
    let (version, value) = last;
    let (at, highest) = (events.len(), known.last().copied().unwrap_or_default());
    if version < highest {
        return wrong(
            at,
            format!("version {highest} of the register was acknowledged and is lost: {version} is there"),
        );
    }
    agree(&mut values, at, version, value)
}

fn agree(values: &mut BTreeMap<u64, u32>, at: usize, version: u64, value: u32) -> Verdict {
    match values.insert(version, value) {
        Some(other) if other != value => wrong(at, format!("version {version} of the register is {other} and {value}")),
        _ => Ok(()),
    }
}

fn certificates(events: &[Event], last: &[(String, String)]) -> Verdict {
    let mut serials = BTreeMap::new();
    for (name, serial) in last {
        if let Some(other) = serials.insert(serial, name) {
            return wrong(events.len(), format!("serial {serial} is on two certificates: {other} and {name}"));
        }
    }
    let mut names = BTreeMap::new();
    for (name, serial) in last {
        if let Some(other) = names.insert(name, serial) {
            return wrong(events.len(), format!("one request for {name} made two certificates: {other} and {serial}"));
        }
    }
    let mut seen = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        let Event::Issued { name, serial } = event else { continue };
        if let Some(other) = seen.insert(serial, name) {
            return wrong(at, format!("serial {serial} was used twice: {other} and {name}"));
        }
        if serials.get(serial) != Some(&name) {
            return wrong(at, format!("certificate {serial} of {name} was acknowledged and is lost"));
        }
    }
    Ok(())
}
