//! What keeps strangers' requests, names and lists within bounds. All since level 7: below it what was there decides as it did.

use std::net::{IpAddr, Ipv6Addr};

use sallyport_proto::v1;

use super::{MAX_REQUESTS, MAX_REQUESTS_OF_SOURCE, MachineRow, ProofKind, Refusal, Verdict};
use crate::state::{CertificateRow, State};

/// The level of everything here.
pub(crate) const GUARDS_LEVEL: u32 = 7;

/// A name as it stands in certificates: host names in lower case, addresses in their one form (RFC 5952).
pub(crate) fn canonical_name(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |address| address.to_string())
}

/// Whom requests are counted for: whoever has an IPv6 address has all of its network of 64 bits.
pub(super) fn network_of(source: &str) -> String {
    match source.parse() {
        Ok(IpAddr::V6(v6)) => format!("{}/64", Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        Ok(IpAddr::V4(_)) | Err(_) => source.to_owned(),
    }
}

impl State {
    /// Why no further request of this source may wait for an operator; asked before anything is put into the log, and there again.
    pub fn refuses_to_queue(&self, source: &str) -> Option<String> {
        let network = network_of(source);
        let of_source = self.index.enroll.waiting_of(&network).count();
        if of_source >= MAX_REQUESTS_OF_SOURCE {
            return Some(format!("{of_source} requests from {network} wait for a decision already"));
        }
        // Decided ones make room.
        let full = self.requests.len() >= MAX_REQUESTS && self.index.enroll.closed_requests.is_empty();
        full.then(|| "too many requests wait for a decision".to_owned())
    }

    /// Why something that was shown is worth nothing, whoever shows it; asked before the request itself costs anything. What is
    /// used up or has ended may still be good for the answer that it brought.
    pub fn refuses_to_look(&self, proof: &ProofKind, at_ms: u64) -> Option<Refusal> {
        let verdict = match proof {
            ProofKind::Token(token) if self.enroll_tokens.get(&token.id).is_none_or(|row| row.hash != token.hash) => {
                self.by_token(&token.id, &token.hash, &[], at_ms)
            }
            ProofKind::Certificate(serial) if !self.certificates.contains(serial) => self.by_certificate(serial, at_ms),
            _ => return None,
        };
        match verdict {
            Verdict::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether clients dial a gateway under this name, in its one form: what [`Self::public_names`] has, without a look at the others.
    pub(in crate::state) fn is_gateways_name(&self, name: &str) -> bool {
        let settings = self.core_row().and_then(|core| core.settings.as_ref());
        settings.is_some_and(|s| s.public_names.iter().any(|n| canonical_name(n) == name))
            || self.index.enroll.is_name_set(name)
            || self.shows_name(name)
    }

    /// Whether a certificate in force that some gateway shows has this name, in its one form.
    fn shows_name(&self, name: &str) -> bool {
        let open = (name.to_owned(), self.now_ms().saturating_add(1), String::new())..;
        let mut named = self.index.names_of_gateways.range(open).take_while(|(of, _, _)| of == name);
        named.any(|(_, _, serial)| self.certificates.get(serial).is_some_and(|c| c.revoked_ms == 0))
    }

    /// Why these cannot become names under which clients dial gateways.
    pub(in crate::state) fn refuses_public_names(&self, names: &[String]) -> Option<String> {
        if let Some(outside) = self.outside_all(names) {
            return Some(outside);
        }
        let new = names.iter().filter(|name| !self.is_gateways_name(&canonical_name(name)));
        let machine = self.machines_name_among(new)?;
        Some(format!(
            "{machine} is the name of a machine; sallyport machine remove {machine} and revoke its certificates first"
        ))
    }

    /// The first of these public names that a machine has.
    fn machines_name_among<'a>(&self, mut names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
        names.find(|name| self.machine(name).is_some_and(|machine| !machine.removed))
    }

    /// The name among these that is a gateway's: whoever has a certificate for it could pose as that gateway.
    pub(super) fn gateways_name_among<'a>(&self, names: impl Iterator<Item = &'a String>) -> Option<String> {
        if self.level() < GUARDS_LEVEL {
            return None;
        }
        names.map(|name| canonical_name(name)).find(|name| self.is_gateways_name(name))
    }

    /// Why a certificate may not be recorded: a machine and a gateway of one name cannot be told apart by those who dial it.
    pub(in crate::state) fn refuses_name_of(&self, record: &CertificateRow) -> Option<String> {
        if self.level() < GUARDS_LEVEL {
            return None;
        }
        let names = || std::iter::once(&record.name).chain(&record.sans);
        match record.profile() {
            v1::CertificateProfile::Machine => {
                let name = self.gateways_name_among(names())?;
                Some(format!("{name} is the name of a gateway; give the machine another"))
            }
            v1::CertificateProfile::Gateway => {
                // What gateways show already they may go on showing: else a machine on a list could end them.
                let new = names().filter(|name| !self.shows_name(&canonical_name(name)));
                let machine = self.machines_name_among(new)?;
                Some(format!(
                    "{machine} is the name of a machine; sallyport machine remove {machine} and revoke its certificates first"
                ))
            }
            _ => None,
        }
    }

    /// What a list says of a machine: with `keep`, what it leaves out stays as it is known.
    pub(super) fn listed(&self, row: &MachineRow, keep: bool) -> MachineRow {
        let Some(known) = self.machine(&row.name).filter(|known| keep && !known.removed) else { return row.clone() };
        let mut row = row.clone();
        if row.sans.is_empty() {
            row.sans.clone_from(&known.sans);
            // In records a machine's own name is one of them.
            let own = canonical_name(&row.name);
            row.sans.retain(|san| canonical_name(san) != own);
        }
        if row.holder.is_empty() {
            row.holder.clone_from(&known.holder);
        }
        if row.key_sha256.is_empty() {
            row.key_sha256.clone_from(&known.key_sha256);
        }
        row.network = row.network.or(known.network);
        row
    }

    /// Whether only a token lets a machine in: the list names neither its key nor a network, and it has no certificate to renew by.
    pub fn needs_token(&self, name: &str) -> bool {
        self.machine(name).is_none_or(|m| m.key_sha256.is_empty() && m.network.is_none() && m.serial.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use sallyport_ca::Profile;

    use super::*;
    use crate::state::tests::Bench;
    use crate::state::{
        Action, Applicant, ConflictKind, CreateEnrollToken, Grant, Outcome, ProfileRow, Proof, PutMachines,
        QueueRequest, RecordCertificate, RevokeCertificate, SetGatewayNames, SettingsRow, TokenProof, UpdateSettings,
    };

    fn bench(level: u32) -> Bench {
        let mut bench = Bench::empty();
        bench.raise(level);
        bench
    }

    fn conflict(bench: &mut Bench, action: Action) -> (ConflictKind, String) {
        match bench.apply(action) {
            Outcome::Conflict(c) => (c.kind(), c.message),
            other => panic!("{other:?}"),
        }
    }

    fn put(name: &str, keep: bool, more: MachineRow) -> Action {
        let machine = MachineRow { name: name.into(), profile: "machine".into(), ..more };
        Action::PutMachines(PutMachines { machines: vec![machine], keep })
    }

    fn record(serial: &str, profile: v1::CertificateProfile, name: &str) -> Action {
        let (serial, name, profile) = (serial.into(), name.into(), profile.into());
        let (key_algorithm, not_after_ms) = (v1::KeyAlgorithm::EcdsaP256.into(), 86_400_000);
        let record = CertificateRow { serial, name, profile, key_algorithm, not_after_ms, ..CertificateRow::default() };
        Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() })
    }

    fn token(id: u8, name: &str) -> Action {
        Action::CreateEnrollToken(CreateEnrollToken {
            id: vec![id; 8],
            hash: vec![id; 32],
            profile: "machine".into(),
            name: name.into(),
            ttl_ms: 1_000,
            uses: 1,
            ..CreateEnrollToken::default()
        })
    }

    #[test]
    fn one_ipv6_network_has_one_share_of_the_queue_and_is_refused_before_the_log() {
        let mut b = bench(GUARDS_LEVEL);
        let ask = |n: usize, source: String| {
            let (key_sha256, profile) = (vec![u8::try_from(n).expect("small"); 32], "machine".into());
            Action::QueueRequest(QueueRequest { key_sha256, source, profile, ..QueueRequest::default() })
        };
        for n in 0..MAX_REQUESTS_OF_SOURCE {
            let source = format!("2001:db8::{n:x}:1");
            assert_eq!(b.state.refuses_to_queue(&source), None);
            b.done(ask(n, source));
        }
        let source = "2001:db8::ffff:ffff:ffff:ffff".to_owned();
        assert!(b.state.refuses_to_queue(&source).is_some_and(|why| why.contains("2001:db8::/64")));
        assert_eq!(conflict(&mut b, ask(200, source)).0, ConflictKind::Exhausted);
        assert_eq!(b.state.refuses_to_queue("2001:db8:0:1::1"), None);
        b.done(ask(201, "2001:db8:0:1::1".into()));
        // Below the level each address counts for itself, as before.
        let mut b = bench(GUARDS_LEVEL - 1);
        for n in 0..=MAX_REQUESTS_OF_SOURCE {
            b.done(ask(n, format!("2001:db8::{n:x}:1")));
        }
    }

    #[test]
    fn what_an_operator_leaves_out_stays_and_is_taken_away_only_if_he_says_so() {
        let mut b = bench(GUARDS_LEVEL);
        let network = Some("198.51.100.0/24".parse().expect("a network"));
        let (sans, holder, key_sha256) = (vec!["b.example.com".to_owned()], "ada".to_owned(), vec![9; 32]);
        b.done(put("a.example.com", true, MachineRow { sans, holder, key_sha256, network, ..MachineRow::default() }));
        b.done(put("A.example.com", true, MachineRow { holder: "bob".into(), ..MachineRow::default() }));
        let row = b.state.machine("a.example.com").expect("known").clone();
        assert_eq!((row.holder.as_str(), row.sans.len(), row.key_sha256.len(), row.network), ("bob", 1, 32, network));
        assert!(!b.state.needs_token("a.example.com"));
        b.done(put("a.example.com", false, MachineRow::default()));
        let row = b.state.machine("a.example.com").expect("known").clone();
        assert_eq!((row.holder.as_str(), row.sans.len(), row.key_sha256.len(), row.network), ("", 0, 0, None));
        assert!(b.state.needs_token("a.example.com"));
    }

    #[test]
    fn a_machine_has_no_name_of_a_gateway_and_a_gateway_none_of_a_machine() {
        let mut b = bench(GUARDS_LEVEL);
        b.done(token(1, "vpn.example.com"));
        b.done(record("a1", v1::CertificateProfile::Gateway, "VPN.example.com"));
        for action in [
            put("vpn.example.com", true, MachineRow::default()),
            put("x.example.com", true, MachineRow { sans: vec!["Vpn.Example.com".into()], ..MachineRow::default() }),
            token(2, "vpn.example.com"),
            record("a2", v1::CertificateProfile::Machine, "vpn.example.com"),
        ] {
            assert!(conflict(&mut b, action).1.contains("vpn.example.com is the name of a gateway"));
        }
        // The token of before.
        let applicant = Applicant {
            proof: Some(ProofKind::Token(TokenProof { id: vec![1; 8], hash: vec![1; 32] })),
            key_sha256: vec![1; 32],
            key: v1::KeyAlgorithm::EcdsaP256,
            source: "192.0.2.7".into(),
        };
        let Verdict::Refused(refusal) = b.state.authorise(&applicant, b.state.now_ms()) else { panic!("granted") };
        assert!(refusal.cause.contains("a gateway"), "{refusal:?}");
        b.done(put("gw2.example.com", true, MachineRow::default()));
        let (kind, text) = conflict(&mut b, record("a3", v1::CertificateProfile::Gateway, "gw2.example.com"));
        assert!(kind == ConflictKind::Precondition && text.contains("machine remove gw2.example.com"), "{text}");
        // Below the level it was as it was.
        let mut b = bench(GUARDS_LEVEL - 1);
        b.done(record("a1", v1::CertificateProfile::Gateway, "vpn.example.com"));
        b.done(put("vpn.example.com", false, MachineRow::default()));
    }

    #[test]
    fn a_gateway_keeps_the_name_that_it_shows_although_a_machine_has_it_and_gets_no_new_one() {
        let mut b = bench(GUARDS_LEVEL - 1);
        b.done(record("a1", v1::CertificateProfile::Gateway, "vpn.example.com"));
        b.done(put("vpn.example.com", false, MachineRow::default()));
        b.done(put("pos1.example.com", false, MachineRow::default()));
        b.raise(GUARDS_LEVEL);
        b.done(record("a2", v1::CertificateProfile::Gateway, "vpn.example.com"));
        let new = conflict(&mut b, record("a3", v1::CertificateProfile::Gateway, "pos1.example.com"));
        assert_eq!(new.0, ConflictKind::Precondition);
        let settings = SettingsRow { public_names: vec!["pos1.example.com".into()], ..b.state.settings() };
        let set = Action::UpdateSettings(UpdateSettings { settings: Some(settings) });
        assert!(conflict(&mut b, set).1.contains("is the name of a machine"));
        let own = SetGatewayNames { name: "gw1.example.com".into(), names: vec!["pos1.example.com".into()] };
        assert!(conflict(&mut b, Action::SetGatewayNames(own)).1.contains("is the name of a machine"));
    }

    #[test]
    fn the_names_of_gateways_are_found_by_an_index_that_says_the_same_as_all_of_them() {
        let mut b = bench(GUARDS_LEVEL);
        for n in 0..20 {
            b.done(record(&format!("a{n}"), v1::CertificateProfile::Gateway, &format!("VPN{n}.example.com")));
        }
        b.done(Action::RevokeCertificate(RevokeCertificate { serial: "a3".into(), reason: String::new() }));
        let own = SetGatewayNames { name: "gw1".into(), names: vec!["gw1.example.com".into(), "2001:db8::1".into()] };
        b.done(record("b1", v1::CertificateProfile::GatewayLink, "gw1"));
        b.done(Action::SetGatewayNames(own));
        let settings = SettingsRow { public_names: vec!["all.example.com".into()], ..b.state.settings() };
        b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
        let asked: Vec<String> = (0..22)
            .map(|n| format!("vpn{n}.example.com"))
            .chain(["gw1.example.com", "2001:DB8:0::1", "all.example.com", "gw1", "example.com"].map(str::to_owned))
            .collect();
        let agree = |state: &State| {
            let all: std::collections::BTreeSet<String> = state.public_names().map(|n| canonical_name(n)).collect();
            for name in &asked {
                let found = state.gateways_name_among(std::iter::once(name)).is_some();
                assert_eq!(found, all.contains(&canonical_name(name)), "{name}");
            }
        };
        agree(&b.state);
        agree(&State::from_rows(b.state.rows()).expect("loads"));
        b.done(Action::SetGatewayNames(SetGatewayNames { name: "gw1".into(), names: Vec::new() }));
        agree(&b.state);
        // They have ended.
        let at_ms = 86_400_001;
        let action = Some(Action::ClearPsk(crate::state::ClearPsk {}));
        b.state.apply(&crate::state::Command { request_id: Vec::new(), at_ms, action });
        agree(&b.state);
        assert!(b.state.gateways_name_among(asked.iter().take(1)).is_none());
    }

    #[test]
    fn an_address_fits_however_it_was_written() {
        for (level, fits) in [(GUARDS_LEVEL - 1, false), (GUARDS_LEVEL, true)] {
            let b = bench(level);
            let grant = Grant {
                profile: Profile::Machine,
                rules: ProfileRow::initial(Profile::Machine),
                name: "a.example.com".into(),
                sans: vec!["2001:DB8:0::1".into(), "B.example.com".into()],
                holder: String::new(),
                proof: Proof { kind: None },
                method: v1::EnrollMethod::Token,
            };
            let record = CertificateRow {
                profile: v1::CertificateProfile::Machine.into(),
                name: "a.example.com".into(),
                sans: ["a.example.com", "2001:db8::1", "b.example.com"].map(str::to_owned).to_vec(),
                ..CertificateRow::default()
            };
            assert_eq!(b.state.fits(&grant, &record, 0), fits, "level {level}");
        }
    }

    #[test]
    fn what_nobody_made_is_refused_before_its_request_is_read() {
        let mut b = bench(GUARDS_LEVEL);
        b.done(token(1, "a.example.com"));
        let shown = |id: u8, hash: u8| ProofKind::Token(TokenProof { id: vec![id; 8], hash: vec![hash; 32] });
        assert_eq!(b.state.refuses_to_look(&shown(1, 1), u64::MAX), None, "it may be good for its answer");
        assert!(b.state.refuses_to_look(&shown(1, 2), 0).is_some());
        assert!(b.state.refuses_to_look(&shown(2, 2), 0).is_some());
        assert!(b.state.refuses_to_look(&ProofKind::Certificate("ab".into()), 0).is_some());
    }

    #[test]
    fn a_name_has_one_form_and_an_ipv6_network_is_one_source() {
        for (name, canonical) in [
            ("2001:DB8:0::1", "2001:db8::1"),
            ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
            ("VPN.Example.COM", "vpn.example.com"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.01", "192.0.2.01"),
        ] {
            assert_eq!(canonical_name(name), canonical);
        }
        assert_eq!(network_of("2001:db8:1:2:3:4:5:6"), network_of("2001:db8:1:2:ffff::"));
        assert_ne!(network_of("2001:db8:1:2::1"), network_of("2001:db8:1:3::1"));
        assert_ne!(network_of("192.0.2.1"), network_of("192.0.2.2"));
        assert_eq!(network_of("unix"), "unix");
    }
}
