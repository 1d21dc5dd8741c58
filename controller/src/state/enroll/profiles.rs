//! Profiles as the operator set them.

use sallyport_ca::Profile;
use sallyport_ca::renewal::{DEFAULT_OVERDUE_PERCENT, OVERDUE_PERCENT};
use sallyport_proto::v1;

use super::{ProfileRow, RULES_LEVEL, SetProfile};
use crate::state::{ConflictKind, Reply, State};

/// Profiles that the endpoint issues: the others are for the cluster's own parts and its operators.
pub const ENROLLABLE: [Profile; 1] = [Profile::Machine];

const DAY_S: u64 = 86_400;
/// Shortest life of a certificate: below it clocks and renewals no longer fit.
const MIN_VALIDITY_S: u64 = 3_600;
/// Longest time after its end in which a certificate can be renewed.
pub(in crate::state) const MAX_LATE_S: u64 = 366 * DAY_S;
/// Most name suffixes.
const MAX_SUFFIXES: usize = 64;

/// The profile of a name, as records have it.
pub fn profile_named(name: &str) -> Option<(Profile, v1::CertificateProfile)> {
    let profile: Profile = name.parse().ok()?;
    Some((profile, crate::authority::profile_to_proto(profile)))
}

impl ProfileRow {
    /// What a profile is before anybody has changed it.
    pub fn initial(profile: Profile) -> Self {
        use v1::KeyAlgorithm as Key;
        let keys = [Key::EcdsaP256, Key::EcdsaP384, Key::Rsa2048, Key::Rsa3072, Key::Rsa4096];
        let methods = match profile {
            Profile::Machine => vec![
                v1::EnrollMethod::Token,
                v1::EnrollMethod::List,
                v1::EnrollMethod::Approval,
                v1::EnrollMethod::Renewal,
            ],
            _ => Vec::new(),
        };
        Self {
            version: 1,
            validity_s: profile.default_validity().as_secs(),
            keys: keys.map(i32::from).to_vec(),
            overdue_percent: DEFAULT_OVERDUE_PERCENT,
            late_renewal_s: 30 * DAY_S,
            methods: methods.into_iter().map(i32::from).collect(),
            name_suffixes: Vec::new(),
            server_keys: false,
            no_addresses: false,
            not_by_operators: false,
        }
    }

    /// Whether it opens this way.
    pub(super) fn allows(&self, method: v1::EnrollMethod) -> bool {
        self.methods.contains(&method.into())
    }

    /// Whether a name may stand in its certificates.
    pub(super) fn admits_name(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let fits = |suffix: &String| {
            let suffix = suffix.trim_start_matches('.').to_ascii_lowercase();
            name == suffix || name.strip_suffix(&suffix).is_some_and(|head| head.ends_with('.'))
        };
        self.name_suffixes.is_empty() || self.name_suffixes.iter().any(fits)
    }

    fn check(&self, profile: Profile) -> Result<(), String> {
        let max_s = profile.max_validity().as_secs();
        if !(MIN_VALIDITY_S..=max_s).contains(&self.validity_s) {
            return Err(format!("a certificate lives for an hour to {} days", max_s / DAY_S));
        }
        if !OVERDUE_PERCENT.contains(&self.overdue_percent) {
            return Err("machines renew up to five sixths of the life: they are overdue after 84 to 99 percent".into());
        }
        if self.late_renewal_s > MAX_LATE_S {
            return Err("a certificate can be renewed for at most a year after its end".into());
        }
        let known = |key: &i32| v1::KeyAlgorithm::try_from(*key).is_ok_and(|k| k != v1::KeyAlgorithm::Unspecified);
        if self.keys.is_empty() || !self.keys.iter().all(known) {
            return Err("at least one kind of key".into());
        }
        let open = |method: &i32| {
            matches!(
                v1::EnrollMethod::try_from(*method),
                Ok(v1::EnrollMethod::Token
                    | v1::EnrollMethod::List
                    | v1::EnrollMethod::Approval
                    | v1::EnrollMethod::Renewal)
            )
        };
        if !self.methods.iter().all(open) {
            return Err("ways to a certificate are token, list, approval and renewal".into());
        }
        if !self.methods.is_empty() && !ENROLLABLE.contains(&profile) {
            return Err(format!("certificates of the profile {profile} are not given out by the enrollment endpoint"));
        }
        if self.name_suffixes.len() > MAX_SUFFIXES
            || self.name_suffixes.iter().any(|s| sallyport_ca::check_dns_name(s.trim_start_matches('.')).is_err())
        {
            return Err(format!("at most {MAX_SUFFIXES} suffixes, each a DNS name"));
        }
        Ok(())
    }
}

impl State {
    /// A profile as it is now.
    pub fn profile(&self, profile: Profile) -> ProfileRow {
        self.profiles.get(&profile.name().to_owned()).cloned().unwrap_or_else(|| ProfileRow::initial(profile))
    }

    pub(in crate::state) fn set_profile(&mut self, command: &SetProfile) -> Reply {
        let Some((profile, _)) = profile_named(&command.name) else {
            return Reply::conflict(ConflictKind::NotFound, format!("there is no profile {:?}", command.name));
        };
        let Some(mut row) = command.profile.clone() else {
            return Reply::conflict(ConflictKind::Invalid, "no profile in the command");
        };
        let current = self.profile(profile);
        if row.version != current.version {
            return Reply::conflict(
                ConflictKind::Changed,
                format!(
                    "the profile was changed meanwhile (version {} is now {}); read it again and repeat the change",
                    row.version, current.version
                ),
            );
        }
        let right = row.check(profile).and_then(|()| {
            if self.level() < RULES_LEVEL {
                return Ok(());
            }
            row.check_own(profile)?;
            self.fits_controllers(profile, &row)
        });
        if let Err(why) = right {
            return Reply::conflict(ConflictKind::Invalid, why);
        }
        row.version += 1;
        self.profiles.insert(command.name.clone(), row);
        Reply::done()
    }
}
