//! Sessions, and with them leases.

use std::collections::BTreeSet;

use sallyport_proto::v1;

use super::users::USERS_LEVEL;
use super::{
    ConflictKind, DenialKind, Denied, Done, Doom, EndSessions, Index, KillSession, OpenSession, Opened, Outcome, Reply,
    SessionRow, SessionsUp, State,
};

impl Index {
    pub(super) fn add_session(&mut self, id: u64, session: &SessionRow) {
        self.leases.insert(session.address, id);
        self.sessions_of_user.entry(session.user.clone()).or_default().insert(id);
        self.sessions_of_slot.entry(session.slot).or_default().insert(id);
        if let Some(serial) = session.machine_serial() {
            self.sessions_of_machine.entry(serial.to_owned()).or_default().insert(id);
        }
        if session.doom.is_some() {
            self.doomed.entry(session.slot).or_default().insert(id);
        }
        for (pool, ranges) in &self.ranges {
            if ranges.contains(session.address) {
                *self.used.entry(pool.clone()).or_default() += 1;
            }
        }
    }

    fn remove_session(&mut self, id: u64, session: &SessionRow) {
        fn forget<K: Ord>(map: &mut std::collections::BTreeMap<K, BTreeSet<u64>>, key: &K, id: u64) {
            if let Some(ids) = map.get_mut(key) {
                ids.remove(&id);
                if ids.is_empty() {
                    map.remove(key);
                }
            }
        }
        self.leases.remove(&session.address);
        forget(&mut self.sessions_of_user, &session.user, id);
        forget(&mut self.sessions_of_slot, &session.slot, id);
        forget(&mut self.doomed, &session.slot, id);
        if let Some(serial) = session.machine_serial() {
            forget(&mut self.sessions_of_machine, &serial.to_owned(), id);
        }
        for (pool, ranges) in &self.ranges {
            if ranges.contains(session.address)
                && let Some(used) = self.used.get_mut(pool)
            {
                *used = used.saturating_sub(1);
            }
        }
    }
}

impl SessionRow {
    /// Serial number of the machine's certificate, if it came with one.
    pub fn machine_serial(&self) -> Option<&str> {
        self.machine.as_ref().map(|m| m.certificate_serial.as_str()).filter(|s| !s.is_empty())
    }
}

/// A refusal, before it becomes a reply and an audit record.
struct Denial {
    kind: DenialKind,
    cause: String,
    remedy: String,
}

impl Denial {
    fn new(kind: DenialKind, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, cause: cause.into(), remedy: remedy.into() }
    }
}

fn stale_member() -> Reply {
    let message = "this gateway was given up or replaced; it must register again";
    Reply::conflict(ConflictKind::StaleMember, message)
}

impl State {
    /// The owner of a session speaks; anyone else must register again.
    fn is_member(&self, slot: u32, epoch: u64) -> bool {
        self.gateways.get(&slot).is_some_and(|gateway| gateway.epoch == epoch && !gateway.lost)
    }

    pub(super) fn open_session(&mut self, command: &OpenSession) -> Reply {
        if !self.is_member(command.slot, command.epoch) {
            return stale_member();
        }
        if command.session_id == 0 || self.sessions.contains(&command.session_id) {
            return Reply::conflict(ConflictKind::Invalid, "the session id is in use; draw another");
        }
        let Some(user) = self.users.get(&command.user).cloned() else {
            let denial = Denial::new(
                DenialKind::UserGone,
                format!("user {:?} was removed while the password was checked", command.user),
                "add the user again if that was a mistake",
            );
            return self.deny(command, &command.user, denial);
        };
        if user.credentials_version != command.credentials_version {
            return Reply::conflict(ConflictKind::StaleCredentials, "the password was changed meanwhile");
        }
        if let Some(guesser) = &command.guesser {
            self.forget_wrong_passwords(guesser);
        }
        match self.authorize(command, &user).and_then(|()| {
            self.choose_address(&command.user, &user)
                .map_err(|none| Denial::new(DenialKind::NoAddress, none.cause, none.remedy))
        }) {
            Ok((address, pool)) => self.open(command, &user.name, address, pool),
            Err(denial) => self.deny(command, &user.name, denial),
        }
    }

    fn authorize(&self, command: &OpenSession, user: &super::UserRow) -> Result<(), Denial> {
        if !user.enabled {
            let remedy = format!("enable the user: sallyport user enable {}", user.name);
            return Err(Denial::new(DenialKind::Disabled, format!("user {:?} is disabled", user.name), remedy));
        }
        if let Some(machine) = &command.machine
            && machine.auth() == v1::MachineAuth::Certificate
        {
            self.machine_certificate(&machine.certificate_serial, self.now_ms())
                .map_err(|(cause, remedy)| Denial::new(DenialKind::MachineRefused, cause, remedy))?;
        }
        let settings = self.settings();
        let limit = if user.max_sessions == 0 { settings.max_sessions_per_user } else { user.max_sessions } as usize;
        let live = self.sessions_of_user(&command.user);
        if limit != 0 && live >= limit {
            let raise = match user.max_sessions {
                0 => format!("sallyport setting set max-sessions-per-user={}", limit.saturating_add(1)),
                _ if self.level() >= USERS_LEVEL => {
                    format!(
                        "it is this user's own: sallyport user set {} --max-sessions {}",
                        user.name,
                        limit.saturating_add(1)
                    )
                }
                // To the letter as below that level: a member with older software makes the same text.
                _ => "it is this user's own, which sallyport user add --max-sessions N has set".into(),
            };
            return Err(Denial::new(
                DenialKind::SessionLimit,
                format!("user {:?} has {live} sessions, the limit is {limit}", user.name),
                format!("end one of them (sallyport session list, session kill), or raise the limit: {raise}"),
            ));
        }
        if let Some(gateway) = self.gateways.get(&command.slot)
            && gateway.max_sessions != 0
            && self.sessions_of_slot(command.slot) >= gateway.max_sessions as usize
        {
            return Err(Denial::new(
                DenialKind::GatewayFull,
                format!(
                    "gateway {:?} carries {} sessions, as many as it is set to",
                    gateway.name, gateway.max_sessions
                ),
                "add a gateway",
            ));
        }
        Ok(())
    }

    fn open(&mut self, command: &OpenSession, name: &str, address: u32, pool: String) -> Reply {
        let row = SessionRow {
            user: command.user.clone(),
            address,
            pool: pool.clone(),
            slot: command.slot,
            epoch: command.epoch,
            session_key: command.session_key,
            remote: command.remote.clone(),
            machine: command.machine.clone(),
            tunnel: command.tunnel.clone(),
            method: command.method,
            created_ms: self.now_ms(),
            up_ms: 0,
            doom: None,
        };
        self.index.add_session(command.session_id, &row);
        self.sessions.insert(command.session_id, row);
        if self.users.get(&command.user).is_some_and(|u| u.last_address != address)
            && let Some(user) = self.users.change(&command.user)
        {
            user.last_address = address;
        }
        let settings = self.settings();
        let from = self.pools.get(&pool);
        Outcome::Opened(Opened {
            session_id: command.session_id,
            address,
            router: from.map_or(0, |p| p.router),
            dns: from.map(|p| p.dns.clone()).unwrap_or_default(),
            nbns: from.map(|p| p.nbns.clone()).unwrap_or_default(),
            pool,
            user: name.to_owned(),
            idle_timeout_s: settings.idle_timeout_s,
            session_timeout_s: settings.session_timeout_s,
            mru: settings.ppp.map_or(0, |p| p.mru),
        })
        .into()
    }

    fn deny(&mut self, command: &OpenSession, user: &str, denial: Denial) -> Reply {
        let error_code = denial.kind.error_code();
        let gateway = self.gateways.get(&command.slot).map(|g| g.name.clone()).unwrap_or_default();
        self.record_attempt(v1::Attempt {
            id: command.attempt_id.clone(),
            time_unix_ms: self.now_ms(),
            gateway,
            remote: command.remote.clone(),
            machine: command.machine.clone(),
            user: user.to_owned(),
            phase: super::DENIAL_PHASE.into(),
            outcome: v1::Outcome::Refused.into(),
            cause: denial.cause.clone(),
            remedy: denial.remedy.clone(),
            client_error: error_code,
            controller_time: true,
            ..v1::Attempt::default()
        });
        Outcome::Denied(Denied { kind: denial.kind.into(), cause: denial.cause, remedy: denial.remedy, error_code })
            .into()
    }

    pub(super) fn sessions_up(&mut self, command: &SessionsUp) -> Reply {
        if !self.is_member(command.slot, command.epoch) {
            return stale_member();
        }
        let now_ms = self.now_ms();
        let mut unknown = Vec::new();
        for id in &command.session_ids {
            match self.sessions.get(id).filter(|s| (s.slot, s.epoch) == (command.slot, command.epoch)) {
                Some(session) if session.up_ms == 0 => {
                    let record = self.session_record(b"session:", *id, session);
                    let attempt = v1::Attempt { outcome: v1::Outcome::Accepted.into(), ..record };
                    if let Some(session) = self.sessions.change(id) {
                        session.up_ms = now_ms;
                    }
                    self.record_attempt(attempt);
                }
                Some(_) => {}
                None => unknown.push(*id),
            }
        }
        Outcome::Done(Done { unknown, ..Done::default() }).into()
    }

    /// The record of something that befell a session once: `what` and its id name it, since session ids are never used again.
    fn session_record(&self, what: &[u8; 8], id: u64, session: &SessionRow) -> v1::Attempt {
        let attempt_id = [what.as_slice(), &id.to_be_bytes()].concat();
        v1::Attempt {
            id: attempt_id,
            time_unix_ms: self.now_ms(),
            gateway: self.gateways.get(&session.slot).map(|g| g.name.clone()).unwrap_or_default(),
            remote: session.remote.clone(),
            machine: session.machine.clone(),
            user: self.users.get(&session.user).map_or_else(|| session.user.clone(), |u| u.name.clone()),
            phase: v1::Phase::Up.into(),
            session_id: format!("{id:016x}"),
            controller_time: true,
            ..v1::Attempt::default()
        }
    }

    pub(super) fn end_sessions(&mut self, command: &EndSessions) -> Reply {
        if !self.is_member(command.slot, command.epoch) {
            return stale_member();
        }
        let mut ended = 0;
        for end in &command.sessions {
            let owner = self.sessions.get(&end.session_id).map(|s| (s.slot, s.epoch));
            if owner == Some((command.slot, command.epoch)) {
                self.end_session(end.session_id, end.reason(), &end.text);
                ended += 1;
            }
        }
        Reply::ended(ended) // a session that is not there has been ended before
    }

    /// Forgets a session, frees its address, and records why it ended if it was up.
    pub(super) fn end_session(&mut self, id: u64, reason: v1::EndReason, text: &str) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.index.remove_session(id, &session);
        if session.up_ms != 0 || !matches!(reason, v1::EndReason::NeverUp | v1::EndReason::Unspecified) {
            let since = if session.up_ms == 0 { session.created_ms } else { session.up_ms };
            let attempt = v1::Attempt {
                outcome: v1::Outcome::Ended.into(),
                cause: text.to_owned(),
                end_reason: reason.into(),
                up_s: self.now_ms().saturating_sub(since) / 1_000,
                ..self.session_record(b"ended:::", id, &session)
            };
            self.record_attempt(attempt);
        }
    }

    pub(super) fn kill_session(&mut self, command: &KillSession) -> Reply {
        if !self.sessions.contains(&command.session_id) {
            let message = format!("there is no session {:016x}", command.session_id);
            return Reply::conflict(ConflictKind::NotFound, message);
        }
        Reply::ended(self.doom([command.session_id], v1::EndReason::Killed, &command.text))
    }

    /// Marks sessions to end. Each keeps its address until its gateway has reported it down or was given up: before that,
    /// the gateway still forwards for it.
    pub(super) fn doom(&mut self, ids: impl IntoIterator<Item = u64>, reason: v1::EndReason, text: &str) -> u32 {
        let mut doomed = 0;
        for id in ids {
            if let Some(session) = self.sessions.change(&id) {
                session.doom = Some(Doom { reason: reason.into(), text: text.to_owned() });
                self.index.doomed.entry(session.slot).or_default().insert(id);
                doomed += 1;
            }
        }
        if doomed > 0 {
            self.notices += 1;
        }
        doomed
    }

    /// Sessions of a slot.
    pub fn sessions_of_slot(&self, slot: u32) -> usize {
        self.index.sessions_of_slot.get(&slot).map_or(0, BTreeSet::len)
    }

    /// Sessions that the gateway in `slot` must end.
    pub fn doomed(&self, slot: u32) -> impl Iterator<Item = (u64, &Doom)> {
        let ids = self.index.doomed.get(&slot).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.sessions.get(id)?.doom.as_ref()?)))
    }

    /// Number of leased addresses.
    pub fn leases(&self) -> usize {
        self.index.leases.len()
    }
}
