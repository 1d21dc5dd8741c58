//! What the operators' rules for a profile say of certificates that nobody enrolls for: those that an operator has made, and those
//! that the controllers make for themselves. All since level 7.

use std::net::IpAddr;

use sallyport_ca::Profile;
use sallyport_proto::{CONTROLLER_NAME, v1};

use super::ProfileRow;
use crate::state::{CertificateRow, ConflictKind, Reply, State};

/// The level from which on the log refuses what breaks these rules.
pub(crate) const RULES_LEVEL: u32 = 7;
/// Profiles of which an operator can have a certificate made, key and all.
pub const ISSUABLE: [Profile; 5] =
    [Profile::Machine, Profile::Gateway, Profile::GatewayLink, Profile::Operator, Profile::User];
/// Profiles of which the controllers make certificates for themselves, with keys of this kind.
const OWN: [Profile; 3] = [Profile::Controller, Profile::Operator, Profile::Endpoint];
const OWN_KEY: v1::KeyAlgorithm = v1::KeyAlgorithm::EcdsaP256;
/// What is signed may be a little older than the entry that says so.
const SLACK_MS: u64 = 3_600_000;

/// Who has a certificate made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// An operator, who names it.
    Operator,
    /// The cluster, for one of its controllers.
    Cluster,
}

impl Maker {
    fn of(record: &CertificateRow) -> Self {
        if record.member == 0 && record.profile() != v1::CertificateProfile::Controller {
            Self::Operator
        } else {
            Self::Cluster
        }
    }
}

/// The profile of a record, if it is one that has rules.
pub(crate) fn profile_of(record: &CertificateRow) -> Option<Profile> {
    let profile = record.profile();
    let named = profile != v1::CertificateProfile::Unspecified;
    Profile::ALL.into_iter().find(|p| named && crate::authority::profile_to_proto(*p) == profile)
}

impl ProfileRow {
    /// The first of these names that may not stand in a certificate.
    pub fn refused_name<'a>(
        &self,
        profile: Profile,
        names: impl IntoIterator<Item = &'a String>,
    ) -> Option<&'a String> {
        // All controllers have it, by whatever other names they are reached.
        let given = |name: &str| profile == Profile::Controller && name.eq_ignore_ascii_case(CONTROLLER_NAME);
        names.into_iter().find(|name| {
            if name.parse::<IpAddr>().is_ok() {
                return self.no_addresses;
            }
            let host = name.rsplit_once('@').map_or(name.as_str(), |(_, host)| host);
            !given(name) && !self.admits_name(host)
        })
    }

    /// Whether an operator can have such certificates made.
    pub fn opens_to_operators(&self, profile: Profile) -> bool {
        ISSUABLE.contains(&profile) && !self.not_by_operators
    }

    /// What this software itself needs, so that a rule does not end the cluster at the next renewal.
    pub(super) fn check_own(&self, profile: Profile) -> Result<(), String> {
        if OWN.contains(&profile) && !self.keys.contains(&OWN_KEY.into()) {
            return Err(format!(
                "controllers make certificates of the profile {profile} for themselves, with ecdsa-p256 keys: leave that kind in"
            ));
        }
        Ok(())
    }
}

impl State {
    /// How a certificate is to be made that nobody enrolls for, or why not, with what to do. `names` are all that stand in it;
    /// `validity_s` is what was asked for, 0 for what the profile says.
    pub fn may_make(
        &self,
        profile: Profile,
        maker: Maker,
        key: v1::KeyAlgorithm,
        names: &[String],
        validity_s: u64,
    ) -> Result<ProfileRow, String> {
        let rules = self.profile(profile);
        if maker == Maker::Operator && !rules.opens_to_operators(profile) {
            return Err(format!(
                "the profile {profile} does not let operators make its certificates: sallyport cert profile set {profile} \
                 --methods ...,operator allows it"
            ));
        }
        if !rules.keys.contains(&key.into()) {
            return Err(format!(
                "the profile {profile} certifies no {} keys: choose another kind (--key), or allow it: sallyport cert profile \
                 set {profile} --keys ...",
                key.as_str_name().trim_start_matches("KEY_ALGORITHM_").to_ascii_lowercase().replace('_', "-")
            ));
        }
        let bound = maker == Maker::Operator || profile != Profile::Operator;
        if let Some(name) = rules.refused_name(profile, names).filter(|_| bound) {
            return Err(format!(
                "the profile {profile} does not allow the name {name}: sallyport cert profile show {profile} says which names it \
                 allows"
            ));
        }
        if let Some((name, sans)) = names.split_first()
            && let Some(why) = self.outside(crate::authority::profile_to_proto(profile), key, name, sans)
        {
            return Err(format!("{why}: sallyport ca list shows which names authorities may certify"));
        }
        if validity_s > rules.validity_s {
            let most = match rules.validity_s {
                whole if whole.is_multiple_of(86_400) => format!("{} days", whole / 86_400),
                part => format!("{} hours", part / 3_600),
            };
            return Err(format!(
                "certificates of the profile {profile} live for at most {most}: ask for less, or sallyport cert profile set \
                 {profile} --validity ..."
            ));
        }
        Ok(rules)
    }

    /// Whether the log may hold a certificate that was made by rules of a moment ago. Whoever made it looks at the rules again.
    pub(in crate::state) fn against_rules(&self, record: &CertificateRow) -> Option<Reply> {
        let profile = profile_of(record).filter(|_| self.level() >= RULES_LEVEL)?;
        let names: Vec<String> = std::iter::once(&record.name).chain(&record.sans).cloned().collect();
        let made = self.may_make(profile, Maker::of(record), record.key_algorithm(), &names, 0);
        let refused = match made {
            Ok(rules) => {
                let life_ms = rules.validity_s.saturating_mul(1_000).saturating_add(SLACK_MS);
                (record.not_after_ms > self.now_ms().saturating_add(life_ms))
                    .then(|| format!("a certificate of the profile {profile} may not live for so long"))
            }
            Err(why) => Some(why),
        };
        refused.map(|why| Reply::conflict(ConflictKind::Changed, why))
    }

    /// A rule for controllers' names must fit those that are there: else they could not renew their certificates.
    pub(super) fn fits_controllers(&self, profile: Profile, rules: &ProfileRow) -> Result<(), String> {
        if profile != Profile::Controller {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let live = self.certificates_of_members().filter(|c| {
            c.profile() == v1::CertificateProfile::Controller
                && c.revoked_ms == 0
                && c.not_after_ms > now_ms
                && self.member(c.member).is_some()
        });
        for record in live {
            if let Some(name) = rules.refused_name(profile, &record.sans) {
                let member = record.member;
                return Err(format!("controller {member} has the name {name}: it could not renew its certificate"));
            }
        }
        Ok(())
    }

    /// Those of the endpoint's names that its profile allows.
    pub(crate) fn allowed_at_endpoint(&self, names: Vec<String>) -> Vec<String> {
        let rules = self.profile(Profile::Endpoint);
        names.into_iter().filter(|name| rules.refused_name(Profile::Endpoint, [name]).is_none()).collect()
    }
}
