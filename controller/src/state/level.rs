//! The level of the group: what its members may write, because every one of them understands it. See `software`.

use super::rows::PACKS_LEVEL;
use super::{Action, ConflictKind, MemberRow, RaiseLevel, Reply, State};

impl MemberRow {
    /// Up to which level its software goes.
    pub fn level(&self) -> u32 {
        self.supports_level.max(1)
    }
}

impl State {
    /// The level in force.
    pub fn level(&self) -> u32 {
        self.core_row().map_or(1, |core| core.level.max(1))
    }

    /// The version of this software that brought the level in force; empty where nobody has said so.
    pub fn level_since(&self) -> &str {
        self.core_row().map_or("", |core| &core.level_since)
    }

    /// The level that every member reaches, if that is higher than the one in force and the settings let it be raised.
    pub fn level_ahead(&self) -> Option<u32> {
        let all = self.live_members().map(|(_, m)| m.level()).min()?;
        (all > self.level() && !self.settings().hold_upgrade).then_some(all)
    }

    /// Whether the group is far enough for a change; otherwise why not, and what to do.
    pub fn permits(&self, action: &Action) -> Result<(), String> {
        let (needed, now) = (action.level(), self.level());
        if needed <= now {
            return Ok(());
        }
        let reason = match self.behind(needed) {
            Some(who) => {
                format!("all controllers must run version {} or newer first; {who}", crate::software::since(needed))
            }
            None if self.settings().hold_upgrade => {
                "the setting hold-upgrade keeps it there; sallyport setting set hold-upgrade=false lets it rise".into()
            }
            None => "it is about to rise; try again".into(),
        };
        Err(format!("this needs level {needed} of the cluster, which is at level {now}: {reason}"))
    }

    /// Who does not reach a level, in words.
    fn behind(&self, level: u32) -> Option<String> {
        let behind = self.live_members().filter(|(_, m)| m.level() < level);
        let texts: Vec<String> =
            behind.map(|(id, m)| format!("controller {id} ({}) runs {}", m.name, m.version)).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    /// Why a member with such software cannot take part.
    pub fn refuses_software(&self, version: &str, level: u32) -> Option<String> {
        let now = self.level();
        (level.max(1) < now).then(|| {
            let since = self.level_since();
            format!(
                "this cluster is at level {now}, and version {version} knows levels up to {}: install version {since} or newer",
                level.max(1)
            )
        })
    }

    pub(super) fn raise_level(&mut self, command: &RaiseLevel) -> Reply {
        if command.level <= self.level() {
            return Reply::done(); // another leader was first
        }
        if let Some(who) = self.behind(command.level) {
            let message = format!("not every controller reaches level {}: {who}", command.level);
            return Reply::conflict(ConflictKind::Precondition, message);
        }
        if self.settings().hold_upgrade {
            let message = "the setting hold-upgrade keeps the level as it is";
            return Reply::conflict(ConflictKind::Precondition, message);
        }
        self.change_core(|core| {
            core.level = command.level;
            core.level_since.clone_from(&command.since);
        });
        self.review_publication();
        self.begin_packs();
        Reply::done()
    }

    /// From the level on that knows packs, what comes is stored in them.
    pub(super) fn begin_packs(&mut self) {
        if self.level() >= PACKS_LEVEL && self.core_row().is_some_and(|core| core.packed_attempts.is_none()) {
            self.change_core(|core| {
                core.packed_attempts = Some(core.next_attempt);
                core.packed_answers = Some(core.next_answer);
            });
            self.follow_packs();
        }
    }

    /// Has the tables do as the core says.
    pub(super) fn follow_packs(&mut self) {
        let (attempts, answers) =
            self.core_row().map_or((None, None), |core| (core.packed_attempts, core.packed_answers));
        self.attempts.pack_from(attempts);
        self.answers.pack_from(answers);
    }
}

#[cfg(test)]
mod tests;
