//! Enrollment: who may have which certificate, and certificates on their way from intent to record.
//!
//! Everything that decides is here, in the state: [`State::authorise`] is the one function behind all protocols, and the entry that
//! uses a proof up is the one that says what will be signed.

mod again;
mod authorise;
mod command;
mod gateways;
mod guards;
mod index;
mod issue;
mod machines;
mod office;
mod profiles;
mod requests;
mod row;
mod rules;
mod tokens;

pub(crate) use again::{AGAIN_LEVEL, Kept, kept_key, kept_of};
pub use authorise::{Applicant, Grant, Refusal, RefusalKind, Verdict};
pub use command::*;
pub(crate) use gateways::GATEWAYS_LEVEL;
pub use gateways::*;
pub(crate) use guards::{GUARDS_LEVEL, canonical_name};
pub(super) use index::EnrollIndex;
pub(super) use machines::machine_key;
pub(crate) use office::OFFICE_LEVEL;
pub(super) use profiles::MAX_LATE_S;
pub use profiles::{ENROLLABLE, profile_named};
pub use row::*;
pub use rules::{ISSUABLE, Maker};
pub(crate) use rules::{RULES_LEVEL, profile_of};

use super::State;

/// The level of everything here.
pub(crate) const ENROLL_LEVEL: u32 = 6;
/// Most tokens that are out.
pub const MAX_ENROLL_TOKENS: usize = 100_000;
/// Most machines.
pub const MAX_MACHINES: usize = 2_000_000;
/// Most machines of the list that may enroll by the network that they come from.
pub const MAX_MACHINE_NETWORKS: usize = 1_000;
/// Most requests that are kept.
pub const MAX_REQUESTS: usize = 10_000;
/// And of them those that came from one address and wait.
pub const MAX_REQUESTS_OF_SOURCE: usize = 20;
/// How long a request is kept, in the log's time: a week.
pub const REQUEST_MS: u64 = 7 * 86_400 * 1_000;
/// Most renewals of a machine within a day: more is somebody who gathers certificates.
pub const MAX_RENEWALS: u32 = 20;
/// Most certificates between intent and record.
pub const MAX_INTENTS: usize = 10_000;
/// How long an issued certificate is kept for whoever asks again, in the log's time.
pub const ISSUED_MS: u64 = 86_400 * 1_000;
/// And at most so many of them: the oldest go first.
pub const MAX_ISSUED: usize = 20_000;

impl State {
    /// Whether a certificate is about to be signed.
    pub(super) fn has_intent(&self, serial: &str) -> bool {
        self.index.enroll.intent_of_serial.contains_key(serial)
    }

    /// A number of the row that there is once, counted on.
    fn next_enrollment(&mut self) -> u64 {
        let mut number = 0;
        self.change_core(|core| {
            core.last_enrollment += 1;
            number = core.last_enrollment;
        });
        number
    }
}

#[cfg(test)]
mod tests;
