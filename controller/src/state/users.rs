//! Users.

use sallyport_proto::v1;

use super::{
    AddUser, ConflictKind, Credentials, Done, MAX_USERS, Outcome, RemoveUser, Reply, SetPassword, SetUserEnabled,
    State, UnlockUser, UpdateUser, UserRow,
};

/// The level from which on users can be changed and unlocked.
pub(crate) const USERS_LEVEL: u32 = 5;

fn no_such_user(key: &str) -> Reply {
    Reply::conflict(ConflictKind::NotFound, format!("there is no user {key:?}"))
}

impl State {
    pub(super) fn add_user(&mut self, command: &AddUser) -> Reply {
        if command.key.is_empty() || command.credentials.is_none() {
            return Reply::conflict(ConflictKind::Invalid, "a user needs a name and a password");
        }
        if self.users.contains(&command.key) {
            return Reply::conflict(
                ConflictKind::AlreadyExists,
                format!("there is a user {:?} already; remove it first, or set its password", command.name),
            );
        }
        if self.users.len() >= MAX_USERS {
            return Reply::conflict(
                ConflictKind::Exhausted,
                format!("there are {MAX_USERS} users, the most there can be"),
            );
        }
        if let Err((kind, message)) = self.check_place(&command.key, &command.pool, command.address) {
            return Reply::conflict(kind, message);
        }
        let now_ms = self.now_ms();
        let row = UserRow {
            name: command.name.clone(),
            enabled: command.enabled,
            credentials: self.allowed(command.credentials.as_ref()),
            credentials_version: self.next_credentials(),
            pool: command.pool.clone(),
            address: command.address,
            max_sessions: command.max_sessions,
            created_ms: now_ms,
            password_set_ms: now_ms,
            comment: command.comment.clone(),
            last_address: 0,
        };
        if row.address != 0 {
            self.index.fixed.insert(row.address, command.key.clone());
        }
        self.users.insert(command.key.clone(), row);
        Reply::done()
    }

    /// Whether a user may have this pool (empty for any) and this fixed address (0 for none).
    fn check_place(&self, key: &str, pool: &String, fixed: u32) -> Result<(), (ConflictKind, String)> {
        if !pool.is_empty() && !self.pools.contains(pool) {
            return Err((ConflictKind::Precondition, format!("there is no pool {pool:?}; add it first")));
        }
        if fixed == 0 {
            return Ok(());
        }
        let address = std::net::Ipv4Addr::from(fixed);
        if let Some(other) = self.index.fixed.get(&fixed).filter(|other| *other != key) {
            return Err((
                ConflictKind::AlreadyExists,
                format!("{address} is the fixed address of user {other:?}; choose another"),
            ));
        }
        match self.pool_of(fixed) {
            Some(of) if pool.is_empty() || of == pool => Ok(()),
            Some(of) => Err((ConflictKind::Precondition, format!("{address} is in pool {of:?}, not in {pool:?}"))),
            None => Err((
                ConflictKind::Precondition,
                format!("no pool may lease {address}; add a pool that holds it (and does not exclude it) first"),
            )),
        }
    }

    pub(super) fn update_user(&mut self, command: &UpdateUser) -> Reply {
        let Some(user) = self.users.get(&command.key) else { return no_such_user(&command.key) };
        let (pool, address) = (command.pool.as_ref().unwrap_or(&user.pool), command.address.unwrap_or(user.address));
        // What the user has may have lost its pool meanwhile; that is no reason to refuse another change.
        if (command.pool.is_some() || command.address.is_some())
            && let Err((kind, message)) = self.check_place(&command.key, pool, address)
        {
            return Reply::conflict(kind, message);
        }
        let Some(user) = self.users.change(&command.key) else { return no_such_user(&command.key) };
        if let Some(pool) = &command.pool {
            user.pool.clone_from(pool);
        }
        if let Some(max_sessions) = command.max_sessions {
            user.max_sessions = max_sessions;
        }
        if let Some(comment) = &command.comment {
            user.comment.clone_from(comment);
        }
        let before = std::mem::replace(&mut user.address, address);
        if before != address {
            self.index.fixed.remove(&before);
        }
        if address != 0 {
            self.index.fixed.insert(address, command.key.clone());
        }
        Reply::done()
    }

    pub(super) fn unlock_user(&mut self, command: &UnlockUser) -> Reply {
        let forgotten = self.forget_all_wrong_passwords(&command.key);
        if forgotten == 0 && !self.users.contains(&command.key) {
            return no_such_user(&command.key);
        }
        Outcome::Done(Done { forgotten, ..Done::default() }).into()
    }

    pub(super) fn remove_user(&mut self, command: &RemoveUser) -> Reply {
        let Some(user) = self.users.remove(&command.key) else { return no_such_user(&command.key) };
        self.index.fixed.remove(&user.address);
        Reply::ended(self.doom_user(&command.key, "the user was removed"))
    }

    pub(super) fn set_password(&mut self, command: &SetPassword) -> Reply {
        if command.credentials.is_none() {
            return Reply::conflict(ConflictKind::Invalid, "no password in the command");
        }
        if !self.users.contains(&command.key) {
            return no_such_user(&command.key);
        }
        let (now_ms, version) = (self.now_ms(), self.next_credentials());
        let credentials = self.allowed(command.credentials.as_ref());
        let Some(user) = self.users.change(&command.key) else { return no_such_user(&command.key) };
        user.credentials = credentials;
        user.credentials_version = version;
        user.password_set_ms = now_ms;
        Reply::done()
    }

    pub(super) fn set_user_enabled(&mut self, command: &SetUserEnabled) -> Reply {
        let Some(user) = self.users.change(&command.key) else { return no_such_user(&command.key) };
        user.enabled = command.enabled;
        Reply::ended(if command.enabled { 0 } else { self.doom_user(&command.key, "the user was disabled") })
    }

    fn doom_user(&mut self, key: &str, text: &str) -> u32 {
        let ids = self.index.sessions_of_user.get(key).cloned().unwrap_or_default();
        self.doom(ids, v1::EndReason::Revoked, text)
    }

    fn next_credentials(&mut self) -> u64 {
        let mut number = 0;
        self.change_core(|core| {
            core.last_credentials += 1;
            number = core.last_credentials;
        });
        number
    }

    /// What the settings in force let us keep; they may have changed since the command was made.
    fn allowed(&self, credentials: Option<&Credentials>) -> Option<Credentials> {
        let mut credentials = credentials.cloned()?;
        if !self.settings().store_chap_secrets {
            credentials.sealed_password.clear();
        }
        Some(credentials)
    }

    /// The operator no longer wants passwords kept for CHAP-MD5.
    pub(super) fn forget_chap_secrets(&mut self) {
        let has = |user: &UserRow| user.credentials.as_ref().is_some_and(|c| !c.sealed_password.is_empty());
        let keys: Vec<String> = self.users.iter().filter(|(_, u)| has(u)).map(|(k, _)| k.clone()).collect();
        for key in keys {
            if let Some(credentials) = self.users.change(&key).and_then(|u| u.credentials.as_mut()) {
                credentials.sealed_password.clear();
            }
        }
    }

    /// Sessions of a user.
    pub fn sessions_of_user(&self, key: &str) -> usize {
        self.index.sessions_of_user.get(key).map_or(0, std::collections::BTreeSet::len)
    }
}
