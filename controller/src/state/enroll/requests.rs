//! The queue of those who asked without proof of who they are.

use sallyport_proto::v1;

use super::guards::network_of;
use super::machines::check_names;
use super::{
    DecideRequest, GUARDS_LEVEL, MAX_REQUESTS, MAX_REQUESTS_OF_SOURCE, QueueRequest, REQUEST_MS, RequestRow,
    profile_named,
};
use crate::state::{ConflictKind, Reply, State};

/// Longest name that a request says of itself, and longest source, bytes.
const MAX_TEXT: usize = 256;

impl State {
    pub(in crate::state) fn queue_request(&mut self, command: &QueueRequest) -> Reply {
        self.forget_requests();
        if command.key_sha256.len() != 32 || command.claims.len() > MAX_TEXT || command.source.len() > MAX_TEXT {
            return Reply::conflict(ConflictKind::Invalid, "a request has a key, and short texts");
        }
        if self.index.enroll.request_of_key.contains_key(&command.key_sha256) {
            return Reply::done(); // asked twice at a time
        }
        if self.level() >= GUARDS_LEVEL
            && let Some(why) = self.refuses_to_queue(&command.source)
        {
            return Reply::conflict(ConflictKind::Exhausted, why);
        }
        let of_source = self.waiting_from(&command.source);
        if of_source >= MAX_REQUESTS_OF_SOURCE {
            let message = format!("{of_source} requests from {} wait for a decision already", command.source);
            return Reply::conflict(ConflictKind::Exhausted, message);
        }
        if self.requests.len() >= MAX_REQUESTS {
            // Decided ones make room first, and of those the oldest.
            let Some(number) = self.index.enroll.closed_requests.first().copied() else {
                return Reply::conflict(ConflictKind::Exhausted, "too many requests wait for a decision");
            };
            self.forget_request(number);
        }
        let number = self.next_enrollment();
        let row = RequestRow {
            key_sha256: command.key_sha256.clone(),
            key: command.key,
            claims: command.claims.clone(),
            source: command.source.clone(),
            profile: command.profile.clone(),
            at_ms: self.now_ms(),
            state: v1::RequestState::Waiting.into(),
            ..RequestRow::default()
        };
        self.index.note_request(number, &row);
        self.requests.insert(number, row);
        Reply::done()
    }

    /// How many wait that came from exactly there.
    fn waiting_from(&self, source: &str) -> usize {
        let network = network_of(source);
        let numbers = self.index.enroll.waiting_of(&network);
        numbers.filter(|number| self.requests.get(number).is_some_and(|row| row.source == source)).count()
    }

    /// Forgets what is older than a week.
    fn forget_requests(&mut self) {
        let now_ms = self.now_ms();
        // Numbers grow with the log's time, so the first rows are the oldest.
        let is_old = |row: &RequestRow| row.at_ms.saturating_add(REQUEST_MS) < now_ms;
        loop {
            let oldest = self.requests.iter().next().filter(|(_, row)| is_old(row)).map(|(number, _)| *number);
            let Some(number) = oldest else { break };
            self.forget_request(number);
        }
    }

    fn forget_request(&mut self, number: u64) {
        if let Some(row) = self.requests.remove(&number) {
            self.index.drop_request(number, &row);
        }
    }

    pub(in crate::state) fn change_request(&mut self, number: u64, change: impl FnOnce(&mut RequestRow)) {
        if let Some(row) = self.requests.change(&number) {
            self.index.drop_request(number, row);
            change(row);
            self.index.note_request(number, row);
        }
    }

    pub(in crate::state) fn decide_request(&mut self, command: &DecideRequest) -> Reply {
        let Some(row) = self.requests.get(&command.number) else {
            let message = format!("there is no request {}; see sallyport request list", command.number);
            return Reply::conflict(ConflictKind::NotFound, message);
        };
        if row.state() == v1::RequestState::Issued {
            let message =
                format!("the machine has its certificate: sallyport cert revoke takes it back ({})", row.name);
            return Reply::conflict(ConflictKind::Precondition, message);
        }
        if command.approve {
            let Some((profile, _)) = profile_named(&row.profile) else {
                return Reply::conflict(ConflictKind::NotFound, format!("there is no profile {:?}", row.profile));
            };
            if let Err(why) = check_names(&self.profile(profile), &command.name, &command.sans) {
                return Reply::conflict(ConflictKind::Invalid, why);
            }
            if let Some(name) = self.gateways_name_among(command.sans.iter().chain([&command.name])) {
                let message = format!("{name} is the name of a gateway; give the machine another");
                return Reply::conflict(ConflictKind::Invalid, message);
            }
        }
        let now_ms = self.now_ms();
        let state = if command.approve { v1::RequestState::Approved } else { v1::RequestState::Refused };
        self.change_request(command.number, |row| {
            row.state = state.into();
            row.name.clone_from(&command.name);
            row.sans.clone_from(&command.sans);
            row.holder.clone_from(&command.holder);
            row.decided_by.clone_from(&command.decided_by);
            row.decided_ms = now_ms;
        });
        Reply::done()
    }
}
