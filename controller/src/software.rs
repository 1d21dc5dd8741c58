//! What this software is to the other controllers: its version, and the feature level up to which it understands the group.
//!
//! A group is upgraded node by node, so that for a while its members run different versions. Whatever an older version would
//! misread or silently leave out belongs to a *level*: a command, a field of one, a field or table of the state, the encoding
//! of a snapshot or of a message between members; and every text that is made while a command is applied (a conflict, a cause, a
//! remedy), for such texts are in answers and in the audit, and the state must be the same on all members. Each member says in its row up to which level its software goes. The level in
//! force is part of the state; the leader raises it once everybody's software reaches it, and it is never lowered. Until then
//! nobody writes or sends what belongs to the next one.
//!
//! | level | since | what it brought |
//! |---|---|---|
//! | 1 | 0.1.0 | everything up to here; a member that names no level has this one |
//! | 2 | 0.1.0 | tokens to join with can be taken back (`RevokeTokens`) |
//! | 3 | 0.1.0 | a certificate's entry carries the answer to its request (`RecordCertificate::answer`), which is asked for once |
//! | 4 | 0.1.0 | wrong passwords count for their gateway, too (`RecordAttempts::gateway`, `LockoutRow::gateway`); rows of removed controllers end |
//! | 5 | 0.1.0 | users can be changed and unlocked (`UpdateUser`, `UnlockUser`, `Done::forgotten`), and the remedy for a user's limit of sessions says so; rows of wrong passwords of names that no user has make room first (`LockoutRow::of_user`) |
//! | 6 | 0.1.0 | issuing authorities below the root (`AddIssuers`, `RetireIssuer`, table 13, `CertificateRow::issuer`); enrollment: profiles, tokens, machines, requests, certificates from intent to record (tables 14 to 19) |
//! | 7 | 0.1.0 | the rest of certificates: revocation by holder and with hold, the audit's tree, keys that the cluster shares for SCEP, the root's key out of the cluster, rollover |
//! | 8 | 0.1.0 | who revokes machines leaves what is made for gateways, and tokens that were used up are not counted; a kept certificate goes with its compacted record; name constraints (`NewIssuer::constraints`, `IssuerRow::constraints`); delta lists (`SettingsRow::delta_crl`, `CoreRow::deltas`); a member sends several commands to the leader in one call (`ProposeRequest::commands`); certificates that nobody enrolls for have an intent, too (`ProofKind::Office`, `Issued::certificate`); issuing authorities whose keys are in other hands (`RetireIssuer::compromised`, `IssuerRow::compromised_ms`); since when a gateway is silent (`GatewayRow::lost_ms`); records of attempts and answers to commands are stored in packs (`CoreRow::packed_attempts`, tables 31 and 32) |
//!
//! Whoever adds a level adds a row here and its version to `SINCE`, names the level in `Action::level`, and sees that
//! nothing of it is written below that level. Below it, what is there stays as it is, to the letter.

/// The version that brought each level, from level 1 on.
const SINCE: &[&str] = &["0.1.0", "0.1.0", "0.1.0", "0.1.0", "0.1.0", "0.1.0", "0.1.0", "0.1.0"];

/// The highest level that this software understands.
#[allow(clippy::cast_possible_truncation, reason = "a handful")]
pub const LEVEL: u32 = SINCE.len() as u32;

/// The version that brought a level; of one that is not known here, the text of none.
pub(crate) fn since(level: u32) -> &'static str {
    level.checked_sub(1).and_then(|at| SINCE.get(at as usize)).copied().unwrap_or_default()
}

/// A version of this software, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Software {
    /// Its version.
    pub version: String,
    /// The highest level that it understands. A test makes an older software of this one by a lower level: whatever is beyond
    /// it is then treated as unknown.
    pub level: u32,
}

impl Software {
    /// This one.
    pub fn current() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").into(), level: LEVEL }
    }

    /// Whether it can take part at a level; `since` is the version that brought that level.
    pub(crate) fn reaches(&self, level: u32, since: &str) -> Result<(), Beyond> {
        if level <= self.level {
            return Ok(());
        }
        Err(Beyond { what: format!("the cluster is at level {level}"), install: since.into(), software: self.clone() })
    }

    /// What to say of a command that this software does not know.
    pub(crate) fn unknown_command(&self) -> Beyond {
        Beyond {
            what: "the log holds a command of a newer version".into(),
            install: String::new(),
            software: self.clone(),
        }
    }
}

impl Default for Software {
    fn default() -> Self {
        Self::current()
    }
}

/// What a node met that is beyond its software. It stops, and nothing is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    what: String,
    /// Version that is needed, if it is known.
    install: String,
    software: Software,
}

impl std::fmt::Display for Beyond {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Software { version, level } = &self.software;
        write!(f, "{}, and this software is version {version}, which knows levels up to {level}: ", self.what)?;
        match self.install.as_str() {
            "" => f.write_str("install the version that the other controllers run (sallyport cluster status)"),
            version => write!(f, "install version {version} or newer"),
        }?;
        f.write_str(" on this machine and start again; its state is kept as it is")
    }
}

impl std::error::Error for Beyond {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_a_version_and_what_is_beyond_names_the_one_to_install() {
        let current = Software::current();
        for level in 1..=LEVEL {
            assert!(!since(level).is_empty(), "level {level}");
            assert_eq!(current.reaches(level, since(level)), Ok(()));
        }
        assert_eq!((since(0), since(LEVEL + 1)), ("", ""));
        let beyond = current.reaches(LEVEL + 1, "9.8.7").expect_err("beyond").to_string();
        assert!(beyond.contains("install version 9.8.7 or newer") && beyond.contains(&current.version), "{beyond}");
        assert!(current.unknown_command().to_string().contains("cluster status"));
    }
}
