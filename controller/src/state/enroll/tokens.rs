//! Tokens for first certificates.

use sallyport_ca::Profile;

use super::gateways::check_gateway_name;
use super::machines::check_names;
use super::{CreateEnrollToken, EnrollTokenRow, GATEWAYS_LEVEL, MAX_ENROLL_TOKENS, RevokeEnrollToken, profile_named};
use crate::state::{ConflictKind, Reply, State};

/// A token that has ended is listed for so long, in the log's time.
const KEEP_MS: u64 = 30 * 86_400 * 1_000;

impl State {
    pub(in crate::state) fn create_enroll_token(&mut self, command: &CreateEnrollToken) -> Reply {
        if command.id.is_empty() || command.hash.len() != 32 || command.ttl_ms == 0 || command.uses == 0 {
            return Reply::conflict(ConflictKind::Invalid, "a token needs an id, a hash, a time to live and a use");
        }
        let gateways = self.level() >= GATEWAYS_LEVEL;
        let known = |p: &Profile| super::ENROLLABLE.contains(p) || (*p == Profile::GatewayLink && gateways);
        let Some((profile, _)) = profile_named(&command.profile).filter(|(p, _)| known(p)) else {
            return Reply::conflict(
                ConflictKind::NotFound,
                format!("there is no profile {:?} for tokens", command.profile),
            );
        };
        let names = match profile {
            Profile::GatewayLink if !command.sans.is_empty() => Err("a gateway's link has one name".into()),
            Profile::GatewayLink => check_gateway_name(&command.name, command.uses),
            _ => check_names(&self.profile(profile), &command.name, &command.sans),
        };
        if let Err(why) = names {
            return Reply::conflict(ConflictKind::Invalid, why);
        }
        if profile != Profile::GatewayLink
            && let Some(name) = self.gateways_name_among(command.sans.iter().chain([&command.name]))
        {
            let message = format!("{name} is the name of a gateway; give the machine another");
            return Reply::conflict(ConflictKind::Invalid, message);
        }
        let now_ms = self.now_ms();
        while let Some((end_ms, id)) = self.index.enroll.tokens_by_end.first().cloned()
            && end_ms.saturating_add(KEEP_MS) <= now_ms
        {
            self.drop_enroll_token(&id);
        }
        if self.enroll_tokens.len() >= MAX_ENROLL_TOKENS {
            return Reply::conflict(
                ConflictKind::Exhausted,
                "too many tokens are out; sallyport token revoke takes back what is not needed",
            );
        }
        if self.enroll_tokens.contains(&command.id) {
            return Reply::conflict(ConflictKind::AlreadyExists, "a random token id came twice; try again");
        }
        let row = EnrollTokenRow {
            hash: command.hash.clone(),
            profile: command.profile.clone(),
            name: command.name.clone(),
            sans: command.sans.clone(),
            expires_ms: now_ms.saturating_add(command.ttl_ms),
            uses: command.uses,
            used: 0,
            made_by: command.made_by.clone(),
            made_ms: now_ms,
            holder: command.holder.clone(),
        };
        self.index.note_token(&command.id, &row);
        self.enroll_tokens.insert(command.id.clone(), row);
        Reply::done()
    }

    pub(in crate::state) fn revoke_enroll_token(&mut self, command: &RevokeEnrollToken) -> Reply {
        if !self.enroll_tokens.contains(&command.id) {
            return Reply::conflict(ConflictKind::NotFound, "there is no such token; see sallyport token list");
        }
        self.drop_enroll_token(&command.id);
        Reply::done()
    }

    /// It is good for nothing any more.
    pub(in crate::state) fn drop_enroll_token(&mut self, id: &Vec<u8>) {
        if let Some(row) = self.enroll_tokens.remove(id) {
            self.index.drop_token(id, &row);
        }
    }
}
