//! Who may have which certificate: one function for all protocols, on the node that is asked and in the log.

use std::net::Ipv4Addr;

use sallyport_ca::Profile;
use sallyport_proto::v1;

use super::machines::DAY_MS;
use super::{
    GUARDS_LEVEL, MAX_RENEWALS, ProfileRow, Proof, ProofKind, RULES_LEVEL, RequestRow, canonical_name, profile_named,
};
use crate::state::net::Net;
use crate::state::{CertificateRow, State};

/// Whoever wants a certificate: what is proven about him. Nothing of it is a word of his request.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// A token or a certificate; without either the list and the queue are looked at.
    pub proof: Option<ProofKind>,
    /// SHA-256 of the public key, whose private half he holds.
    pub key_sha256: Vec<u8>,
    /// Kind of that key.
    pub key: v1::KeyAlgorithm,
    /// The address that he comes from.
    pub source: String,
}

/// What may be issued.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// From which profile.
    pub profile: Profile,
    /// And that as it is now.
    pub rules: ProfileRow,
    /// The name.
    pub name: String,
    /// Further names.
    pub sans: Vec<String>,
    /// Whose machine it is; empty where nobody said.
    pub holder: String,
    /// What is used up by it.
    pub proof: Proof,
    /// The way.
    pub method: v1::EnrollMethod,
}

/// Why a certificate is refused: a closed set, also for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalKind {
    /// Nothing, or nothing true, was shown.
    Unproven,
    /// What was shown has ended.
    Ended,
    /// What was shown was used up.
    UsedUp,
    /// The certificate that was shown is revoked.
    Revoked,
    /// Somebody decided against it.
    Decided,
    /// The profile does not allow this way, name or key.
    Profile,
    /// Too many renewals within a day.
    TooOften,
}

/// A refusal: for the audit in full, for the applicant in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub kind: RefusalKind,
    /// What is wrong.
    pub cause: String,
    /// What to change.
    pub remedy: String,
}

/// What becomes of an application.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// A certificate.
    Granted(Box<Grant>),
    /// The one that this has brought before, by serial number.
    Has(String),
    /// The request with this number waits for an operator.
    Waiting(u64),
    /// It may wait for an operator.
    MayQueue,
    /// None.
    Refused(Refusal),
}

fn is_in(network: Net, source: &str) -> bool {
    let address = source.parse::<Ipv4Addr>().map(u32::from);
    address.is_ok_and(|address| (network.bounds().0..=network.bounds().1).contains(&address))
}

pub(super) fn refused(kind: RefusalKind, cause: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Verdict::Refused(Refusal { kind, cause: cause.into(), remedy: remedy.into() })
}

const NEW_TOKEN: &str = "make a token for the machine: sallyport token create --machine NAME";

impl State {
    /// Decides, by the log's time `at_ms`.
    pub fn authorise(&self, applicant: &Applicant, at_ms: u64) -> Verdict {
        if let Some(row) = self.has_already(applicant, at_ms) {
            return Verdict::Has(row.serial.clone());
        }
        let verdict = match &applicant.proof {
            Some(ProofKind::Token(token)) => self.by_token(&token.id, &token.hash, &applicant.key_sha256, at_ms),
            Some(ProofKind::Certificate(serial)) => self.by_certificate(serial, at_ms),
            Some(ProofKind::Gateway(proof)) => self.by_gateway(proof, at_ms),
            None | Some(ProofKind::Listed(_) | ProofKind::Approved(_)) => self.by_list(applicant),
            // Nobody shows that.
            Some(ProofKind::Office(_)) => {
                refused(RefusalKind::Unproven, "neither a token nor a certificate was shown", NEW_TOKEN)
            }
        };
        let Verdict::Granted(grant) = verdict else { return verdict };
        // Ways are for machines: gateways have theirs, whatever the row says.
        if grant.profile == Profile::Machine && !grant.rules.allows(grant.method) {
            return refused(
                RefusalKind::Profile,
                format!("the profile {} does not allow this way to a certificate", grant.profile),
                format!("sallyport cert profile set {} --methods ... adds it", grant.profile),
            );
        }
        if !grant.rules.keys.contains(&applicant.key.into()) {
            return refused(
                RefusalKind::Profile,
                format!("the profile {} does not certify {:?} keys", grant.profile, applicant.key),
                format!(
                    "use another kind of key, or allow it: sallyport cert profile set {} --keys ...",
                    grant.profile
                ),
            );
        }
        if !grant.rules.admits_name(&grant.name) {
            return refused(
                RefusalKind::Profile,
                format!("the profile {} no longer allows the name {}", grant.profile, grant.name),
                format!("sallyport cert profile show {} says which names it allows", grant.profile),
            );
        }
        let further = grant.rules.refused_name(grant.profile, &grant.sans).filter(|_| self.level() >= RULES_LEVEL);
        if let Some(name) = further {
            return refused(
                RefusalKind::Profile,
                format!("the profile {} does not allow the further name {name}", grant.profile),
                format!("sallyport cert profile show {} says which names it allows", grant.profile),
            );
        }
        let profile = crate::authority::profile_to_proto(grant.profile);
        if let Some(cause) = self.outside(profile, applicant.key, &grant.name, &grant.sans) {
            return refused(
                RefusalKind::Profile,
                cause,
                "sallyport ca list shows which names authorities may certify: give it a name of those, or make an authority for \
                 more names: sallyport ca issuer add --replace ...",
            );
        }
        // What follows is about machines' names.
        if grant.profile != Profile::Machine {
            return Verdict::Granted(grant);
        }
        if self.machine_on_hold(&grant.name) {
            let cause = format!("the certificate of {} is on hold", grant.name);
            let remedy = format!("sallyport cert release --machine {} lets it in again", grant.name);
            return refused(RefusalKind::Revoked, cause, remedy);
        }
        if let Some(name) = self.gateways_name_among(grant.sans.iter().chain([&grant.name])) {
            return refused(
                RefusalKind::Profile,
                format!("{name} is the name of a gateway, and a machine has none of those"),
                "give the machine a name of its own: sallyport token create --machine NAME",
            );
        }
        Verdict::Granted(grant)
    }

    /// Whether what was shown is still good for the answer that it brought before.
    pub fn still_proves(&self, proof: Option<&ProofKind>) -> bool {
        match proof {
            Some(ProofKind::Token(token)) => {
                self.enroll_tokens.get(&token.id).is_some_and(|row| row.hash == token.hash)
            }
            Some(ProofKind::Certificate(serial)) => {
                self.certificates.get(serial).is_some_and(|row| row.revoked_ms == 0)
            }
            Some(ProofKind::Gateway(proof)) => {
                self.certificates.get(&proof.link).is_some_and(|row| row.revoked_ms == 0)
            }
            Some(ProofKind::Listed(_) | ProofKind::Approved(_) | ProofKind::Office(_)) | None => true,
        }
    }

    fn granted(
        &self,
        profile: &str,
        name: (&str, &[String], &str),
        method: v1::EnrollMethod,
        proof: ProofKind,
    ) -> Verdict {
        let Some((profile, _)) = profile_named(profile).filter(|(p, _)| super::ENROLLABLE.contains(p)) else {
            return refused(RefusalKind::Profile, format!("there is no profile {profile:?} for machines"), NEW_TOKEN);
        };
        let (name, sans, holder) = name;
        Verdict::Granted(Box::new(Grant {
            profile,
            rules: self.profile(profile),
            name: name.to_owned(),
            sans: sans.to_vec(),
            holder: holder.to_owned(),
            proof: Proof { kind: Some(proof) },
            method,
        }))
    }

    pub(super) fn by_token(&self, id: &[u8], hash: &[u8], key_sha256: &[u8], at_ms: u64) -> Verdict {
        // The hash of a random secret of 128 bits: how long this comparison takes tells nothing of use.
        let Some(row) = self.enroll_tokens.get(&id.to_vec()).filter(|row| row.hash == hash) else {
            let cause = "this token is not known, or was taken back";
            return refused(RefusalKind::Unproven, cause, NEW_TOKEN);
        };
        if row.expires_ms <= at_ms {
            return refused(RefusalKind::Ended, format!("the token for {} has ended", row.name), NEW_TOKEN);
        }
        if row.used >= row.uses {
            let cause = format!("the token for {} was used {} times, all that it is good for", row.name, row.used);
            return refused(RefusalKind::UsedUp, cause, NEW_TOKEN);
        }
        if self.was_replaced(&row.name, key_sha256) {
            let cause = format!("the certificate of {} for this key was replaced by newer ones", row.name);
            return refused(RefusalKind::UsedUp, cause, "enroll with a new key, or renew by the newest certificate");
        }
        let proof = ProofKind::Token(super::TokenProof { id: id.to_vec(), hash: hash.to_vec() });
        if row.profile == Profile::GatewayLink.name() {
            return self.gateway_by_token(&row.name, key_sha256, proof);
        }
        self.granted(&row.profile, (&row.name, &row.sans, &row.holder), v1::EnrollMethod::Token, proof)
    }

    pub(super) fn by_certificate(&self, serial: &str, at_ms: u64) -> Verdict {
        let Some(row) = self.certificates.get(&serial.to_owned()) else {
            if let Some((kind, cause)) = self.refuse_ended(serial) {
                return refused(kind, cause, NEW_TOKEN);
            }
            let cause = format!("the log of this authority holds no certificate with serial number {serial}");
            return refused(RefusalKind::Unproven, cause, NEW_TOKEN);
        };
        if row.revoked_ms != 0 {
            let cause = format!("the certificate of {} (serial number {serial}) is revoked", row.name);
            return refused(RefusalKind::Revoked, cause, NEW_TOKEN);
        }
        let Some(profile) =
            super::ENROLLABLE.into_iter().find(|p| crate::authority::profile_to_proto(*p) == row.profile())
        else {
            let cause = format!("the certificate of {} is not a machine's", row.name);
            return refused(RefusalKind::Unproven, cause, "renew by the machine's own certificate");
        };
        let rules = self.profile(profile);
        if row.not_after_ms.saturating_add(rules.late_renewal_s.saturating_mul(1_000)) <= at_ms {
            let cause = format!(
                "the certificate of {} has ended more than {} days ago, too long to be renewed",
                row.name,
                rules.late_renewal_s / 86_400
            );
            return refused(RefusalKind::Ended, cause, NEW_TOKEN);
        }
        let (sans, holder) = match self.machine(&row.name) {
            Some(machine) if machine.removed => {
                let cause = format!("the machine {} was removed", row.name);
                return refused(RefusalKind::Revoked, cause, NEW_TOKEN);
            }
            Some(machine) if machine.renewals >= MAX_RENEWALS && at_ms.saturating_sub(machine.day_ms) < DAY_MS => {
                let cause = format!("{} has renewed {} times within a day", row.name, machine.renewals);
                return refused(RefusalKind::TooOften, cause, "look at that machine; it can renew again a day later");
            }
            // One that was replaced twice is nobody's way back in.
            Some(machine) if machine.serial == row.serial || machine.previous == row.serial => {
                (&machine.sans, machine.holder.as_str())
            }
            Some(_) => {
                let cause = format!("the certificate {serial} of {} was replaced by newer ones", row.name);
                return refused(RefusalKind::UsedUp, cause, "renew by the newest certificate of the machine");
            }
            None => (&row.sans, ""),
        };
        let proof = ProofKind::Certificate(serial.to_owned());
        self.granted(profile.name(), (&row.name, sans, holder), v1::EnrollMethod::Renewal, proof)
    }

    /// Without proof: a key or a place that the list names, or a request that was decided on.
    fn by_list(&self, applicant: &Applicant) -> Verdict {
        let by_key = self.index.enroll.machine_of_key.get(&applicant.key_sha256);
        let request = self.index.enroll.request_of_key.get(&applicant.key_sha256);
        let request = request.and_then(|number| Some((*number, self.requests.get(number)?)));
        // What an operator decided of this very key goes before a place where others are, too.
        if let Some((number, row)) = request.filter(|_| by_key.is_none())
            && matches!(row.state(), v1::RequestState::Approved | v1::RequestState::Refused)
        {
            return self.by_request(number, row);
        }
        if let Some(key) = by_key.or_else(|| self.listed_at(&applicant.source))
            && let Some(row) = self.machines.get(key)
            && row.network.is_none_or(|network| is_in(network, &applicant.source))
        {
            // Whoever took a machine away has its key, too, and maybe its place.
            if self.is_revoked(&row.serial) {
                let cause =
                    format!("the certificate of {} is revoked, and with it what the list says of its key", row.name);
                return refused(RefusalKind::Revoked, cause, NEW_TOKEN);
            }
            let proof = ProofKind::Listed(key.clone());
            return self.granted(&row.profile, (&row.name, &row.sans, &row.holder), v1::EnrollMethod::List, proof);
        }
        if let Some((number, row)) = request {
            return self.by_request(number, row);
        }
        if self.profile(Profile::Machine).allows(v1::EnrollMethod::Approval) {
            return Verdict::MayQueue;
        }
        refused(RefusalKind::Unproven, "neither a token nor a certificate was shown", NEW_TOKEN)
    }

    fn by_request(&self, number: u64, row: &RequestRow) -> Verdict {
        match row.state() {
            v1::RequestState::Approved => {
                let name = (row.name.as_str(), row.sans.as_slice(), row.holder.as_str());
                self.granted(&row.profile, name, v1::EnrollMethod::Approval, ProofKind::Approved(number))
            }
            v1::RequestState::Waiting => Verdict::Waiting(number),
            v1::RequestState::Refused => refused(
                RefusalKind::Decided,
                format!("request {number} was refused by {}", row.decided_by),
                format!("sallyport request approve {number} --name NAME changes that"),
            ),
            v1::RequestState::Issued | v1::RequestState::Unspecified => refused(
                RefusalKind::UsedUp,
                format!("request {number} was approved for one certificate, which {} has", row.name),
                "renew by that certificate",
            ),
        }
    }

    fn is_revoked(&self, serial: &String) -> bool {
        self.standing(serial).is_some_and(|c| c.revoked_ms != 0)
    }

    /// The one machine of the list that comes from there. Where there are two, neither is known.
    fn listed_at(&self, source: &str) -> Option<&String> {
        let inside = |key: &&String| {
            let network = self.machines.get(key).and_then(|m| m.network);
            network.is_some_and(|network| is_in(network, source))
        };
        let mut found = self.index.enroll.machines_by_network.iter().filter(inside);
        found.next().filter(|_| found.next().is_none())
    }

    /// Whether a record is what a grant allows.
    pub(super) fn fits(&self, grant: &Grant, record: &CertificateRow, at_ms: u64) -> bool {
        // What is signed may be a little older than the entry that says so.
        const SLACK_MS: u64 = 3_600_000;
        let longest = at_ms.saturating_add(grant.rules.validity_s.saturating_mul(1_000)).saturating_add(SLACK_MS);
        // An address can be written in several ways; certificates have one.
        let by_form = self.level() >= GUARDS_LEVEL;
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b) || (by_form && canonical_name(a) == canonical_name(b));
        record.profile() == crate::authority::profile_to_proto(grant.profile)
            && record.name == grant.name
            && grant.sans.iter().all(|san| record.sans.iter().any(|s| same(s, san)))
            && record.sans.iter().all(|san| same(san, &grant.name) || grant.sans.iter().any(|s| same(s, san)))
            && record.not_after_ms <= longest
            && record.not_before_ms <= at_ms.saturating_add(SLACK_MS)
            && record.member == 0
    }
}
