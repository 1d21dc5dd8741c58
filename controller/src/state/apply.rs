//! Commands to changes.

use super::{
    ANSWER_MS, Action, AnswerRow, Bootstrap, ClearPsk, Command, CommandBatch, ConflictKind, MAX_ANSWERS, MAX_ATTEMPTS,
    Outcome, Reply, ReplyBatch, RevokeTokens, RootRow, SetPsk, SettingsRow, State, UpdateSettings, publication_name,
};
use crate::software::since;

impl State {
    /// Applies commands in order.
    pub fn apply_batch(&mut self, batch: &CommandBatch) -> ReplyBatch {
        ReplyBatch { replies: batch.commands.iter().map(|c| self.apply(c)).collect() }
    }

    /// Applies one command, once: the same request id again gives the same answer and changes nothing.
    pub fn apply(&mut self, command: &Command) -> Reply {
        if let Some(reply) = self.answered(&command.request_id) {
            return reply.clone();
        }
        let now_ms = self.now_ms().max(command.at_ms);
        self.change_core(|core| core.now_ms = now_ms);
        let (action, by) = super::ledger::unwrapped(command);
        let mark = self.mark(action);
        let reply = match action {
            Some(action) => self.act(action),
            // The state machine never lets one get here: see `CommandBatch::is_known`.
            None => Reply::conflict(ConflictKind::Invalid, "a command of a newer version; update this controller"),
        };
        // A conflict changed nothing, so asking again may have another answer: the gateway has registered again, the
        // password was checked anew. Whatever changed something, or decided on somebody, is answered the same for ever.
        if !matches!(reply.outcome, Some(Outcome::Conflict(_))) {
            if let Some(action) = action {
                self.log_change(&mark, action, by);
            }
            self.remember(&command.request_id, now_ms, &reply);
        }
        reply
    }

    fn act(&mut self, action: &Action) -> Reply {
        match action {
            Action::Bootstrap(c) => self.bootstrap(c),
            Action::AddUser(c) => self.add_user(c),
            Action::RemoveUser(c) => self.remove_user(c),
            Action::SetPassword(c) => self.set_password(c),
            Action::SetUserEnabled(c) => self.set_user_enabled(c),
            Action::AddPool(c) => self.add_pool(c),
            Action::RemovePool(c) => self.remove_pool(c),
            Action::RecordCertificate(c) => self.issue_certificate(c),
            Action::RevokeCertificate(c) => self.revoke_certificate(c),
            Action::SetPsk(c) => self.set_psk(c),
            Action::ClearPsk(ClearPsk {}) => self.clear_psk(),
            Action::UpdateSettings(c) => self.update_settings(c),
            Action::RegisterGateway(c) => self.register_gateway(c),
            Action::LoseGateway(c) => self.lose_gateway(c),
            Action::RemoveGateway(c) => self.remove_gateway(c),
            Action::OpenSession(c) => self.open_session(c),
            Action::SessionsUp(c) => self.sessions_up(c),
            Action::EndSessions(c) => self.end_sessions(c),
            Action::KillSession(c) => self.kill_session(c),
            Action::RecordAttempts(c) => {
                for attempt in &c.attempts {
                    self.record_attempt(attempt.clone());
                }
                if let Some(guesser) = &c.guesser {
                    self.count_wrong_password(guesser, &c.gateway);
                }
                Reply::done()
            }
            Action::CreateToken(c) => self.create_token(c),
            Action::AdmitMember(c) => self.admit_member(c),
            Action::ReadmitMember(c) => self.readmit_member(c),
            Action::DescribeMember(c) => self.describe_member(c),
            Action::PromoteMember(c) => self.promote_member(c),
            Action::RemoveMember(c) => self.remove_member(c),
            Action::RaiseLevel(c) => self.raise_level(c),
            Action::RevokeTokens(RevokeTokens {}) => self.revoke_tokens(),
            Action::UpdateUser(c) => self.update_user(c),
            Action::UnlockUser(c) => self.unlock_user(c),
            Action::AddIssuers(c) => self.add_issuers(c),
            Action::RetireIssuer(c) => self.retire_issuer(c),
            Action::EraseRootKey(c) => self.erase_root_key(c),
            Action::RestoreRootKey(c) => self.restore_root_key(c),
            Action::InstallRootChain(c) => self.install_root_chain(c),
            Action::BeginRollover(c) => self.begin_rollover(c),
            Action::TurnRollover(c) => self.turn_rollover(c),
            Action::SetProfile(c) => self.set_profile(c),
            Action::CreateEnrollToken(c) => self.create_enroll_token(c),
            Action::RevokeEnrollToken(c) => self.revoke_enroll_token(c),
            Action::PutMachines(c) => self.put_machines(c),
            Action::RemoveMachine(c) => self.remove_machine(c),
            Action::QueueRequest(c) => self.queue_request(c),
            Action::DecideRequest(c) => self.decide_request(c),
            Action::IntendCertificate(c) => self.intend_certificate(c),
            Action::CompleteCertificate(c) => self.complete_certificate(c),
            Action::AbandonCertificate(c) => self.abandon_certificate(c),
            Action::RevokeCertificates(c) => self.revoke_certificates(c),
            Action::ReleaseCertificates(c) => self.release_certificates(c),
            Action::CompactCertificates(c) => self.compact_certificates(c),
            Action::AddScepRa(c) => self.add_scep_ra(c),
            Action::Attributed(_) => Reply::conflict(ConflictKind::Invalid, "a change in two names"),
            Action::AcceptHeads(c) => self.accept_heads(c),
            Action::NoteKeyUse(c) => self.note_key_use(c),
            Action::SetGatewayNames(c) => self.set_gateway_names(c),
            Action::SetOperatorRoles(c) => self.set_operator_roles(c),
        }
    }

    /// Remembers an answer, and forgets by the time that the log carries.
    pub(super) fn remember(&mut self, request_id: &[u8], now_ms: u64, reply: &Reply) {
        if request_id.is_empty() {
            return;
        }
        let mut number = 0;
        self.change_core(|core| {
            number = core.next_answer;
            core.next_answer += 1;
        });
        self.index.answer_of.insert(request_id.to_vec(), number);
        let row = AnswerRow { request_id: request_id.to_vec(), at_ms: now_ms, reply: Some(reply.clone()) };
        self.answers.insert(number, row);
        // Numbers grow with the log's time, so the first row is the oldest.
        while self.answers.len() > MAX_ANSWERS
            || self.answers.iter().next().is_some_and(|(_, oldest)| oldest.at_ms.saturating_add(ANSWER_MS) < now_ms)
        {
            if let Some((_, row)) = self.answers.pop_first() {
                self.index.answer_of.remove(&row.request_id);
            }
        }
    }

    fn bootstrap(&mut self, command: &Bootstrap) -> Reply {
        if self.is_bootstrapped() {
            return Reply::conflict(ConflictKind::AlreadyExists, "this cluster has had its first command");
        }
        if command.cluster_id.is_empty() || command.root_certificate.is_empty() {
            return Reply::conflict(ConflictKind::Invalid, "a cluster needs an id and a root");
        }
        let recorded = self.record_certificate(command.record.as_ref());
        if matches!(recorded.outcome, Some(Outcome::Conflict(_))) {
            return recorded;
        }
        self.change_core(|core| {
            core.cluster_id.clone_from(&command.cluster_id);
            core.settings = Some(SettingsRow::initial());
            // The first member is the whole group: what it understands, everybody does.
            let level = command.member.as_ref().map_or(0, |m| m.level);
            (core.level, core.level_since) = (level, since(level).into());
        });
        let root =
            RootRow { certificate: command.root_certificate.clone(), sealed_key: command.sealed_root_key.clone() };
        self.roots.insert(1, root);
        if let Some(member) = &command.member {
            self.describe_member(member);
        }
        self.begin_packs();
        self.change_policy();
        recorded
    }

    fn set_psk(&mut self, command: &SetPsk) -> Reply {
        if command.sealed.is_empty() {
            return Reply::conflict(ConflictKind::Invalid, "an empty pre-shared key; clear it instead");
        }
        self.change_core(|core| {
            core.sealed_psk.clone_from(&command.sealed);
            core.psk_set_ms = core.now_ms;
        });
        self.change_policy();
        Reply::done()
    }

    fn clear_psk(&mut self) -> Reply {
        if self.sealed_psk().is_some() {
            self.change_core(|core| {
                core.sealed_psk.clear();
                core.psk_set_ms = 0;
            });
            self.change_policy();
        }
        Reply::done()
    }

    fn update_settings(&mut self, command: &UpdateSettings) -> Reply {
        let current = self.settings();
        let Some(mut settings) = command.settings.clone() else {
            return Reply::conflict(ConflictKind::Invalid, "no settings in the command");
        };
        if settings.version != current.version {
            return Reply::conflict(
                ConflictKind::Changed,
                format!(
                    "the settings were changed meanwhile (version {} is now {}); read them again and repeat the change",
                    settings.version, current.version
                ),
            );
        }
        if !settings.publication_name.is_empty() && publication_name(&settings.publication_name).is_none() {
            return Reply::conflict(ConflictKind::Invalid, "a public name is a host, or HOST:PORT, without http://");
        }
        if let Some(why) = self.refuses_public_names(&settings.public_names) {
            return Reply::conflict(ConflictKind::Precondition, why);
        }
        settings.version += 1;
        settings.audit_keep = settings.audit_keep.clamp(1, MAX_ATTEMPTS);
        if !settings.store_chap_secrets {
            self.forget_chap_secrets();
        }
        self.change_core(|core| core.settings = Some(settings));
        self.trim_attempts();
        self.review_publication();
        self.review_deltas();
        self.change_policy();
        Reply::done()
    }
}
