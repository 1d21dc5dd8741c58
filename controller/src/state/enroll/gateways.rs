//! Gateways enroll by themselves: under which names, and what is known of the certificates that they have.

mod row;

use std::collections::{BTreeMap, BTreeSet};

use sallyport_ca::{AltName, Profile, check_dns_name};
use sallyport_proto::{CONTROLLER_NAME, v1};

pub use row::*;

use super::authorise::{Grant, RefusalKind, Verdict, refused};
use super::machines::DAY_MS;
use super::{IntentRow, Proof, ProofKind};
use crate::state::{CertificateRow, ConflictKind, Index, Reply, RevokeCertificate, State};

/// The level of everything here.
pub(crate) const GATEWAYS_LEVEL: u32 = 7;
/// Most public names of the service, and of one gateway.
pub const MAX_PUBLIC_NAMES: usize = 16;
/// Most gateways whose names or certificates are known.
pub const MAX_GATEWAY_IDENTITIES: usize = 20_000;
/// Certificates that one gateway may have within a day: more is somebody who gathers them.
pub const MAX_GATEWAY_RENEWALS: u32 = 60;
/// Certificates for IKE of one gateway that were replaced and have not ended: as many are gathered, not used.
pub const MAX_REPLACED: usize = 256;
/// Certificates within a day by link certificates that were replaced twice.
pub const MAX_STRAYS: u32 = 8;
/// In a token's name: what stands for a number of each gateway's own.
const EACH: char = '*';
/// Digits of that number, 80 bits: whoever has the token and makes keys until one has the name of another gateway makes keys for ever.
const DIGITS: usize = 20;

const NEW_TOKEN: &str = "make a token for the gateway: sallyport gateway token NAME";

/// Public names as they are kept: in small letters, addresses in their shortest form, none twice. The error is for people.
pub fn public_names(names: &[String]) -> Result<Vec<String>, String> {
    if names.len() > MAX_PUBLIC_NAMES {
        return Err(format!("at most {MAX_PUBLIC_NAMES} public names"));
    }
    let mut kept: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let canonical = match crate::authority::alt_name(name) {
            AltName::Ip(address) => address.to_string(),
            AltName::Dns(dns) if check_dns_name(&dns).is_ok() && dns != CONTROLLER_NAME && !dns.contains('*') => dns,
            _ => return Err(format!("{name:?} is no public name: DNS names and IP addresses are")),
        };
        if !kept.contains(&canonical) {
            kept.push(canonical);
        }
    }
    Ok(kept)
}

/// The name that a token gives to the gateway with this key.
fn name_for(pattern: &str, key_sha256: &[u8]) -> String {
    let digits: String = key_sha256.iter().map(|b| format!("{b:02x}")).collect();
    pattern.replace(EACH, digits.get(..DIGITS).unwrap_or_default())
}

/// Whether gateways may be named so by a token.
pub(super) fn check_gateway_name(pattern: &str, uses: u32) -> Result<(), String> {
    let stars = pattern.matches(EACH).count();
    if stars > 1 || check_dns_name(&name_for(pattern, &[0; 32])).is_err() {
        return Err(format!("{pattern:?} is no gateway's name: a DNS name is, with at most one * in it"));
    }
    if pattern.eq_ignore_ascii_case(CONTROLLER_NAME) {
        return Err(format!("{pattern} is the name of controllers; choose another"));
    }
    if uses > 1 && stars == 0 {
        return Err(format!(
            "a token for several gateways needs a name for each: write it with a *, such as gw-*.{}",
            pattern.split_once('.').map_or("example.com", |(_, domain)| domain)
        ));
    }
    Ok(())
}

impl IntentRow {
    /// Of what only one certificate is on its way at a time: of a machine's name, or of a gateway's purpose.
    pub(super) fn lane(&self) -> String {
        let record = self.record.clone().unwrap_or_default();
        match record.profile() {
            // What is not proven with cannot be used for two.
            _ if self.office().is_some() => format!("office {}", record.serial),
            // Many gateways have the same public name. No name holds a blank.
            v1::CertificateProfile::Gateway | v1::CertificateProfile::GatewayLink => {
                format!("{} {} {}", self.holder, record.profile, is_rsa(&record))
            }
            _ => record.name,
        }
    }
}

/// Whether a certificate for IKE is of the RSA kind; there is one of each.
fn is_rsa(record: &CertificateRow) -> bool {
    use v1::KeyAlgorithm as K;
    record.profile() == v1::CertificateProfile::Gateway
        && matches!(record.key_algorithm(), K::Rsa2048 | K::Rsa3072 | K::Rsa4096)
}

impl GatewayIdentityRow {
    fn of(&self, profile: v1::CertificateProfile) -> impl Iterator<Item = &GatewayCertificateRow> {
        self.certificates.iter().filter(move |c| c.profile() == profile)
    }

    /// Whether a link certificate was replaced twice: two have its key, or one goes on from an old copy of its folder. Which of them
    /// is the gateway, nobody can tell from here; it is not the one who is locked out.
    fn is_stray(&self, link: &str) -> bool {
        let known = |c: &GatewayCertificateRow| c.serial == link || c.previous == link;
        let mut links = self.of(v1::CertificateProfile::GatewayLink).peekable();
        links.peek().is_some() && !links.any(known)
    }

    fn serials(&self) -> impl Iterator<Item = &String> {
        let newest = self.certificates.iter().flat_map(|c| [&c.serial, &c.previous]);
        newest.chain(&self.replaced).filter(|s| !s.is_empty())
    }
}

impl Index {
    pub(in crate::state) fn note_link_certificate(&mut self, row: &CertificateRow) {
        if row.profile() == v1::CertificateProfile::GatewayLink {
            self.enroll.links_of_gateway.entry(row.name.clone()).or_default().insert(row.serial.clone());
        }
    }

    pub(in crate::state) fn drop_link_certificate(&mut self, row: &CertificateRow) {
        if row.profile() == v1::CertificateProfile::GatewayLink
            && let Some(serials) = self.enroll.links_of_gateway.get_mut(&row.name)
        {
            serials.remove(&row.serial);
            if serials.is_empty() {
                self.enroll.links_of_gateway.remove(&row.name);
            }
        }
    }
}

impl State {
    /// What is known of a gateway's names and certificates.
    pub fn gateway_identity(&self, gateway: &str) -> Option<&GatewayIdentityRow> {
        self.gateway_identities.get(&gateway.to_owned())
    }

    /// Whose a certificate for IKE is, by its serial number: those that gateways have asked for, and those before them.
    pub(crate) fn gateways_of_certificates(&self) -> BTreeMap<&String, &String> {
        let rows = self.gateway_identities.iter();
        rows.flat_map(|(name, row)| row.serials().map(move |serial| (serial, name))).collect()
    }

    /// Gateways whose certificates should have been renewed by a time, but for those that are gone.
    pub fn overdue_gateways(&self, by_ms: u64) -> impl Iterator<Item = &String> {
        let overdue =
            move |row: &GatewayIdentityRow| row.certificates.iter().any(|c| c.due_ms != 0 && c.due_ms <= by_ms);
        let waits = move |(name, row): &(&String, &GatewayIdentityRow)| overdue(row) && !self.is_gone(name);
        self.gateway_identities.iter().filter(waits).map(|(name, _)| name)
    }

    /// When the first of a gateway's newest certificates ends; `None` where none is known.
    pub fn gateway_not_after(&self, gateway: &str) -> Option<u64> {
        let row = self.gateway_identity(gateway)?;
        row.certificates.iter().filter_map(|c| self.standing(&c.serial)).map(|c| c.not_after_ms).min()
    }

    /// The public names that were set for a gateway, or for all of them.
    pub fn names_set_for(&self, gateway: &str) -> Vec<String> {
        let own = self.gateway_identity(gateway).filter(|row| !row.names.is_empty());
        own.map_or_else(|| self.settings().public_names, |row| row.names.clone())
    }

    /// All names that were set, those of the service first.
    pub(in crate::state) fn names_set(&self) -> impl Iterator<Item = &String> {
        let of_service = self.core_row().and_then(|core| core.settings.as_ref()).map(|s| s.public_names.iter());
        of_service.into_iter().flatten().chain(self.gateway_identities.iter().flat_map(|(_, row)| &row.names))
    }

    pub(in crate::state) fn set_gateway_names(&mut self, command: &SetGatewayNames) -> Reply {
        let may_be = check_gateway_name(&command.name, 1).is_ok() && !command.name.contains(EACH);
        let names = match public_names(&command.names) {
            Ok(names) if may_be || self.knows_gateway(&command.name) => names,
            Ok(_) => {
                let why = format!("there is no gateway {:?}, and none can have that name", command.name);
                return Reply::conflict(ConflictKind::NotFound, why);
            }
            Err(why) => return Reply::conflict(ConflictKind::Invalid, why),
        };
        if let Some(why) = self.refuses_public_names(&names) {
            return Reply::conflict(ConflictKind::Precondition, why);
        }
        let mut row = self.gateway_identity(&command.name).cloned().unwrap_or_default();
        row.names = names;
        if !self.put_gateway_identity(&command.name, row) {
            return Reply::conflict(ConflictKind::Exhausted, "too many gateways are known; remove those that are gone");
        }
        self.change_policy();
        Reply::done()
    }

    fn knows_gateway(&self, name: &str) -> bool {
        self.slot_of_gateway(name).is_some() || self.index.enroll.links_of_gateway.contains_key(name)
    }

    /// Keeps what is known; a row of nothing goes. Whether there was room.
    fn put_gateway_identity(&mut self, gateway: &str, row: GatewayIdentityRow) -> bool {
        let key = gateway.to_owned();
        if row.names.is_empty() && row.certificates.is_empty() {
            self.take_gateway_identity(gateway);
            return true;
        }
        if !self.gateway_identities.contains(&key) && self.gateway_identities.len() >= MAX_GATEWAY_IDENTITIES {
            return false;
        }
        self.take_gateway_identity(gateway);
        self.index.enroll.keep_names(true, gateway, &row.names);
        self.gateway_identities.insert(key, row);
        true
    }

    fn take_gateway_identity(&mut self, gateway: &str) -> Option<GatewayIdentityRow> {
        let row = self.gateway_identities.remove(&gateway.to_owned())?;
        self.index.enroll.keep_names(false, gateway, &row.names);
        Some(row)
    }

    /// A gateway's first link certificate, by a token.
    pub(super) fn gateway_by_token(&self, pattern: &str, key_sha256: &[u8], proof: ProofKind) -> Verdict {
        let name = name_for(pattern, key_sha256);
        self.gateway_grant(Profile::GatewayLink, &name, vec![name.clone()], proof, v1::EnrollMethod::Token)
    }

    /// A gateway's next certificate, by its link certificate.
    pub(super) fn by_gateway(&self, proof: &GatewayProof, at_ms: u64) -> Verdict {
        let link = match self.link_of(proof, at_ms) {
            Ok(link) => link,
            Err(verdict) => return *verdict,
        };
        let (profile, names) = match proof.profile() {
            v1::CertificateProfile::GatewayLink => (Profile::GatewayLink, vec![link.name.clone()]),
            v1::CertificateProfile::Gateway if self.gathers(&link.name) => {
                let cause = format!("{} has replaced {MAX_REPLACED} certificates that have not ended", link.name);
                return refused(RefusalKind::TooOften, cause, "look at that gateway; it can renew again when they end");
            }
            v1::CertificateProfile::Gateway => match self.names_for(&link.name, proof, at_ms) {
                Ok(names) => (Profile::Gateway, names),
                Err(verdict) => return *verdict,
            },
            _ => {
                let cause = "a gateway gets certificates for its link and for IKE, and no others";
                return refused(RefusalKind::Profile, cause, NEW_TOKEN);
            }
        };
        self.gateway_grant(profile, &link.name, names, ProofKind::Gateway(proof.clone()), v1::EnrollMethod::Renewal)
    }

    /// The record of the link certificate that was shown, if it still opens anything.
    fn link_of(&self, proof: &GatewayProof, at_ms: u64) -> Result<&CertificateRow, Box<Verdict>> {
        let no = |kind, cause: String| Err(Box::new(refused(kind, cause, NEW_TOKEN)));
        let Some(link) = self.certificates.get(&proof.link) else {
            if let Some((kind, cause)) = self.refuse_ended(&proof.link) {
                return no(kind, cause);
            }
            let cause = format!("the log of this authority holds no certificate with serial number {}", proof.link);
            return no(RefusalKind::Unproven, cause);
        };
        let gateway = &link.name;
        if link.profile() != v1::CertificateProfile::GatewayLink {
            return no(RefusalKind::Unproven, format!("the certificate of {gateway} is not for a gateway's link"));
        }
        if link.revoked_ms != 0 {
            let cause = format!("the certificate of {gateway} (serial number {}) is revoked", proof.link);
            return no(RefusalKind::Revoked, cause);
        }
        let late_s = if proof.late { self.profile(Profile::GatewayLink).late_renewal_s } else { 0 };
        if link.not_after_ms.saturating_add(late_s.saturating_mul(1_000)) <= at_ms {
            return no(
                RefusalKind::Ended,
                format!("the certificate of {gateway} has ended, too long ago to be renewed"),
            );
        }
        let Some(row) = self.gateway_identity(gateway) else { return Ok(link) };
        let today = at_ms.saturating_sub(row.stray_day_ms) < DAY_MS;
        if row.is_stray(&proof.link) && (proof.late || (today && row.strays >= MAX_STRAYS)) {
            let cause = format!("the certificate {} of {gateway} was replaced by newer ones", proof.link);
            return no(RefusalKind::UsedUp, cause);
        }
        if row.renewals >= MAX_GATEWAY_RENEWALS && at_ms.saturating_sub(row.day_ms) < DAY_MS {
            let cause = format!("{gateway} has had {} certificates within a day", row.renewals);
            return no(RefusalKind::TooOften, cause);
        }
        Ok(link)
    }

    /// Whether a gateway has replaced more certificates for IKE than one that uses them does.
    fn gathers(&self, gateway: &str) -> bool {
        let live = |row: &GatewayIdentityRow| row.replaced.iter().filter(|serial| self.is_live(serial)).count();
        self.gateway_identity(gateway)
            .is_some_and(|row| row.replaced.len() >= MAX_REPLACED && live(row) >= MAX_REPLACED)
    }

    fn is_live(&self, serial: &String) -> bool {
        self.certificates.get(serial).is_some_and(|c| c.revoked_ms == 0 && c.not_after_ms > self.now_ms())
    }

    /// The names for IKE: those that were set, else those of the certificate that the new one follows.
    fn names_for(&self, gateway: &str, proof: &GatewayProof, at_ms: u64) -> Result<Vec<String>, Box<Verdict>> {
        let set = self.names_set_for(gateway);
        if !set.is_empty() {
            return Ok(set);
        }
        let no = |kind, cause: String| {
            Err(Box::new(refused(kind, cause, "set the names: sallyport setting set public-names=...")))
        };
        let known = self.gateway_identity(gateway);
        let newest = known.into_iter().flat_map(|row| row.of(v1::CertificateProfile::Gateway)).map(|c| &c.serial);
        let serials = std::iter::once(&proof.present).filter(|s| !s.is_empty()).chain(newest);
        let late_ms = self.profile(Profile::Gateway).late_renewal_s.saturating_mul(1_000);
        for record in serials.filter_map(|serial| self.certificates.get(serial)) {
            if record.profile() != v1::CertificateProfile::Gateway {
                return no(
                    RefusalKind::Unproven,
                    format!("the certificate {} is not for a gateway in IKE", record.serial),
                );
            }
            if record.revoked_ms != 0 {
                return no(RefusalKind::Revoked, format!("the certificate {} is revoked", record.serial));
            }
            if record.not_after_ms.saturating_add(late_ms) > at_ms {
                let others = record.sans.iter().filter(|san| !san.eq_ignore_ascii_case(&record.name));
                return Ok(std::iter::once(&record.name).chain(others).cloned().collect());
            }
        }
        if gateway.contains('.') && check_dns_name(gateway).is_ok() {
            return Ok(vec![gateway.to_owned()]);
        }
        no(RefusalKind::Profile, format!("nobody has said which public names {gateway} has"))
    }

    fn gateway_grant(
        &self,
        profile: Profile,
        gateway: &str,
        names: Vec<String>,
        proof: ProofKind,
        method: v1::EnrollMethod,
    ) -> Verdict {
        let mut names = names.into_iter();
        Verdict::Granted(Box::new(Grant {
            profile,
            rules: self.profile(profile),
            name: names.next().unwrap_or_default(),
            sans: names.collect(),
            holder: gateway.to_owned(),
            proof: Proof { kind: Some(proof) },
            method,
        }))
    }

    /// Whether a gateway's link certificate was replaced twice.
    pub(crate) fn is_stray_link(&self, serial: &str) -> bool {
        let link = self.certificates.get(&serial.to_owned());
        link.and_then(|link| self.gateway_identity(&link.name)).is_some_and(|row| row.is_stray(serial))
    }

    /// A gateway has a new certificate, by this proof if it asked for it itself.
    pub(in crate::state) fn note_gateway_certificate(
        &mut self,
        record: &CertificateRow,
        gateway: &str,
        due_ms: u64,
        proof: Option<&GatewayProof>,
    ) {
        let mut row = self.gateway_identity(gateway).cloned().unwrap_or_default();
        let (now_ms, stray) = (self.now_ms(), proof.filter(|proof| row.is_stray(&proof.link)));
        if stray.is_some() {
            let today = now_ms.saturating_sub(row.stray_day_ms) < DAY_MS;
            (row.stray_day_ms, row.strays) =
                if today { (row.stray_day_ms, row.strays.saturating_add(1)) } else { (now_ms, 1) };
        }
        let (profile, rsa) = (record.profile, is_rsa(record));
        let known = row.certificates.iter().position(|c| c.profile == profile && c.rsa == rsa);
        let mut slot = known.map_or_else(
            || GatewayCertificateRow { profile, rsa, ..GatewayCertificateRow::default() },
            |at| row.certificates.remove(at),
        );
        if slot.serial != record.serial {
            let replaced = std::mem::replace(&mut slot.previous, std::mem::take(&mut slot.serial));
            slot.serial.clone_from(&record.serial);
            match proof {
                // It goes on from there; whoever has the other one does, too.
                Some(proof) if stray.is_some() && record.profile() == v1::CertificateProfile::GatewayLink => {
                    slot.previous.clone_from(&proof.link);
                }
                // One that an operator made, and nobody said for which gateway: now its key has.
                Some(proof) if slot.previous.is_empty() => slot.previous.clone_from(&proof.present),
                _ => {}
            }
            // Clients believe it until it ends, whoever has its key: it goes with the gateway. Links have an index of their own.
            row.replaced.retain(|serial| self.is_live(serial));
            if record.profile() == v1::CertificateProfile::Gateway && self.is_live(&replaced) {
                row.replaced.push(replaced);
            }
        }
        slot.due_ms = due_ms;
        row.certificates.push(slot);
        let same_day = now_ms.saturating_sub(row.day_ms) < DAY_MS;
        (row.day_ms, row.renewals) = if same_day { (row.day_ms, row.renewals.saturating_add(1)) } else { (now_ms, 1) };
        // Where there is no room, the certificate is good all the same.
        self.put_gateway_identity(gateway, row);
    }

    /// A gateway is gone for good: nobody connects, or gets another certificate, by what it had. Whether it was known.
    pub(in crate::state) fn retire_gateway(&mut self, gateway: &str) -> bool {
        let row = self.take_gateway_identity(gateway);
        let mut serials: BTreeSet<String> = row.iter().flat_map(GatewayIdentityRow::serials).cloned().collect();
        serials.extend(self.index.enroll.links_of_gateway.get(gateway).into_iter().flatten().cloned());
        // Those that an operator had made for it.
        let open = (self.now_ms().saturating_add(1), String::new())..;
        let made = self.index.certificates_of_gateways.range(open).map(|(_, serial)| serial);
        serials.extend(made.filter(|s| self.certificates.get(s).is_some_and(|c| c.gateway == gateway)).cloned());
        let mut known = row.is_some();
        for serial in serials {
            if self.certificates.get(&serial).is_some_and(|c| c.revoked_ms == 0) {
                known = true;
                self.revoke_certificate(&RevokeCertificate { serial, reason: "the gateway was removed".into() });
            }
        }
        known
    }
}

#[cfg(test)]
mod tests;
