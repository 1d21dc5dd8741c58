//! Under which name the authority publishes its lists and certificates, and what changes lists.
//!
//! The name stands in certificates that nobody can change later, so it is chosen by the state and stays as it is for as long as it is one
//! of the service's. Lists name former ones, too, until the last certificate has ended that may have them.

use std::net::IpAddr;

use super::{CoreRow, State};

/// The level from which on certificates say where the lists about them are.
pub(crate) const PUBLICATION_LEVEL: u32 = 7;
/// How long a certificate may live that was made while a name was the present one: 398 days, and some for clocks.
const NAMED_MS: u64 = 400 * 86_400 * 1_000;
/// Most former names; beyond that the one goes whose certificates end first.
const MAX_FORMER: usize = 16;
/// In place of a name: nothing is written into what is issued.
pub(crate) const NO_NAME: &str = "none";
/// Longest name with its port, bytes.
const MAX_NAME: usize = 253 + 6;

/// Where lists are published.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PublicationRow {
    /// Host, or host and port, in the addresses of what is issued now; empty while there is none.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Names before it that certificates in force may have.
    #[prost(message, repeated, tag = "2")]
    pub former: Vec<FormerName>,
}

/// A name that was the present one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FormerName {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// When the last certificate with it has ended, log's time.
    #[prost(uint64, tag = "2")]
    pub until_ms: u64,
}

/// What changed lists last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListsChange {
    /// Its number in the order of what happens to certificates.
    pub(crate) number: u64,
    /// When, log's time.
    pub(crate) at_ms: u64,
}

/// How a name of the service stands in an address, if it can: lower case, an IPv6 address in brackets.
fn host(name: &str) -> Option<String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        });
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (name.len() <= 253 && name.split('.').all(label)).then(|| name.to_ascii_lowercase())
}

/// A name as an operator may set it, as it stands in addresses: a host, or a host and a port other than 80. `none` is that there are
/// no addresses.
pub fn publication_name(text: &str) -> Option<String> {
    if text.len() > MAX_NAME {
        return None;
    }
    let bare = text.strip_prefix('[').and_then(|t| t.split_once(']'));
    let (name, port) = match bare {
        Some((v6, "")) => (v6, None),
        Some((v6, port)) => (v6, Some(port.strip_prefix(':')?)),
        None => match text.split_once(':') {
            Some((name, port)) if !port.contains(':') => (name, Some(port)),
            _ => (text, None),
        },
    };
    let host = host(name)?;
    match port {
        None | Some("80") => Some(host),
        Some(port) => {
            let number = port.parse::<u16>().ok().filter(|n| *n != 0 && n.to_string() == *port)?;
            Some(format!("{host}:{number}"))
        }
    }
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<IpAddr>().is_ok()
}

/// Whether it means something here alone: a name without a domain.
fn is_local(host: &str) -> bool {
    !is_address(host) && !host.contains('.')
}

impl State {
    /// Whether the present name stays, for a gateway has it.
    fn keeps_published(&self, name: &str) -> bool {
        !name.is_empty() && !is_local(name) && self.is_gateways_name(name.trim_matches(['[', ']']))
    }

    fn publication(&self) -> PublicationRow {
        self.core_row().and_then(|core| core.publication.clone()).unwrap_or_default()
    }

    /// The host in the addresses of what is issued now.
    pub fn published_name(&self) -> Option<&str> {
        let core = self.core_row().filter(|_| self.level() >= PUBLICATION_LEVEL)?;
        core.publication.as_ref().map(|p| p.name.as_str()).filter(|name| !name.is_empty())
    }

    /// All hosts in the addresses of what was in force at a time, the present one first. A list says that of its own date: by the time at
    /// which it happens to be made, two members could sign different lists of one number.
    pub fn published_names(&self, at_ms: u64) -> Vec<String> {
        let row = self.publication();
        let former = row.former.into_iter().filter(|f| f.until_ms > at_ms).map(|f| f.name);
        std::iter::once(row.name).filter(|name| !name.is_empty()).chain(former).collect()
    }

    /// The last thing that changed what stands in any list.
    pub(crate) fn lists_change(&self) -> ListsChange {
        let noted = |core: &CoreRow| ListsChange { number: core.lists_number, at_ms: core.lists_ms };
        let noted = self.core_row().map_or_else(ListsChange::default, noted);
        let number = self.last_revocation();
        if noted.number >= number {
            return noted;
        }
        // Of before that level.
        let at_ms = self.revocations_after(number.saturating_sub(1)).next().map_or(0, |row| row.revoked_ms);
        ListsChange { number, at_ms }
    }

    /// What has this number among all that happens to certificates changes lists, now.
    pub(super) fn note_lists_change(&mut self, number: u64) {
        if self.level() < PUBLICATION_LEVEL {
            return;
        }
        let now_ms = self.now_ms();
        self.mark_span(now_ms);
        self.change_core(|core| (core.lists_number, core.lists_ms) = (number, now_ms));
        self.notices += 1;
    }

    /// Chooses the name: that of the settings, or the present one while a gateway has it, or the first that gateways have. Where
    /// no gateway is left the present one stays.
    pub(super) fn review_publication(&mut self) {
        if self.level() < PUBLICATION_LEVEL {
            return;
        }
        let (row, settings) = (self.publication(), self.settings());
        let wanted = match settings.publication_name.as_str() {
            NO_NAME => Some(String::new()),
            // All gateways are looked at only where none shows the present name: one entry may be about hundreds of certificates.
            "" if self.keeps_published(&row.name) => return,
            set => publication_name(set).or_else(|| {
                let mut names: Vec<String> = self.public_names().filter_map(|name| host(name)).collect();
                // A name can be pointed elsewhere, an address can not.
                names.sort_by_key(|name| (is_local(name), is_address(name)));
                let stays = names.iter().position(|name| *name == row.name && !is_local(name)).unwrap_or(0);
                names.into_iter().nth(stays)
            }),
        };
        let Some(wanted) = wanted.filter(|wanted| *wanted != row.name) else { return };
        let now_ms = self.now_ms();
        let mut former: Vec<FormerName> =
            row.former.into_iter().filter(|f| f.until_ms > now_ms && f.name != wanted).collect();
        if !row.name.is_empty() {
            former.push(FormerName { name: row.name, until_ms: now_ms.saturating_add(NAMED_MS) });
        }
        // The oldest is first: each was pushed later than those before it.
        former.drain(..former.len().saturating_sub(MAX_FORMER));
        self.change_core(|core| core.publication = Some(PublicationRow { name: wanted, former }));
        let number = self.next_certificate();
        self.note_lists_change(number);
    }
}

#[cfg(test)]
mod tests {
    use sallyport_proto::v1;

    use super::*;
    use crate::state::{
        Action, Bootstrap, CertificateRow, Command, ConflictKind, DescribeMember, Outcome, RecordCertificate,
        RevokeCertificate, UpdateSettings,
    };

    const DAY_MS: u64 = 86_400 * 1_000;

    fn record(serial: &str, profile: v1::CertificateProfile, name: &str) -> CertificateRow {
        let (serial, name) = (serial.into(), name.into());
        let key_algorithm = v1::KeyAlgorithm::EcdsaP256.into();
        CertificateRow {
            serial,
            name,
            profile: profile.into(),
            key_algorithm,
            not_after_ms: DAY_MS,
            ..Default::default()
        }
    }

    fn apply_at(state: &mut State, at_ms: u64, action: Action) -> Result<(), ConflictKind> {
        match state.apply(&Command { request_id: Vec::new(), at_ms, action: Some(action) }).outcome {
            Some(Outcome::Conflict(c)) => Err(c.kind()),
            _ => Ok(()),
        }
    }

    fn describe(level: u32) -> DescribeMember {
        let (name, address, version) = ("c1".into(), "c1:7443".into(), "0.1.0".into());
        DescribeMember { id: 1, name, address, version, level }
    }

    fn state(level: u32) -> State {
        let mut state = State::new();
        let member = describe(level);
        let bootstrap = Bootstrap {
            cluster_id: vec![1; 16],
            root_certificate: vec![9],
            sealed_root_key: vec![2],
            record: Some(record("a0", v1::CertificateProfile::Root, "Root")),
            member: Some(member),
        };
        apply_at(&mut state, 5, Action::Bootstrap(bootstrap)).expect("begins");
        state
    }

    fn gateway(state: &mut State, at_ms: u64, serial: &str, name: &str) {
        let record = record(serial, v1::CertificateProfile::Gateway, name);
        let command = RecordCertificate { record: Some(record), answer: Vec::new() };
        apply_at(state, at_ms, Action::RecordCertificate(command)).expect("records");
    }

    fn set(state: &mut State, at_ms: u64, name: &str) -> Result<(), ConflictKind> {
        let settings = crate::state::SettingsRow { publication_name: name.into(), ..state.settings() };
        apply_at(state, at_ms, Action::UpdateSettings(UpdateSettings { settings: Some(settings) }))
    }

    fn revoke(state: &mut State, at_ms: u64, serial: &str) {
        let command = RevokeCertificate { serial: serial.into(), ..RevokeCertificate::default() };
        apply_at(state, at_ms, Action::RevokeCertificate(command)).expect("revokes");
    }

    #[test]
    fn names_stand_in_addresses_as_everybody_reads_them() {
        for (text, name) in [
            ("VPN.example.com", Some("vpn.example.com")),
            ("vpn.example.com:80", Some("vpn.example.com")),
            ("vpn.example.com:8080", Some("vpn.example.com:8080")),
            ("192.0.2.1:8080", Some("192.0.2.1:8080")),
            ("2001:DB8:0::1", Some("[2001:db8::1]")),
            ("[2001:db8::1]:8080", Some("[2001:db8::1]:8080")),
            ("vpn.example.com:080", None),
            ("vpn.example.com:0", None),
            ("http://vpn.example.com", None),
            ("vpn example", None),
            ("*.example.com", None),
            ("vpn.example.com/x", None),
            ("", None),
            ("b\u{fc}ro.example", None),
        ] {
            assert_eq!(publication_name(text).as_deref(), name, "{text}");
        }
    }

    #[test]
    fn the_name_is_the_first_gateways_until_the_last_with_it_is_gone_or_an_operator_sets_another() {
        let mut state = state(PUBLICATION_LEVEL);
        assert_eq!(state.published_name(), None);
        gateway(&mut state, 10, "b1", "192.0.2.1");
        assert_eq!(state.published_name(), Some("192.0.2.1"));
        gateway(&mut state, 20, "b2", "VPN.example.com");
        assert_eq!(state.published_name(), Some("192.0.2.1"), "it stays while a gateway has it");
        let before = state.lists_change();
        revoke(&mut state, 30, "b1");
        assert_eq!(state.published_names(state.now_ms()), ["vpn.example.com", "192.0.2.1"]);
        assert!(state.lists_change() > before);
        set(&mut state, 40, "pki.example.com:8080").expect("sets");
        assert_eq!(state.published_names(state.now_ms()), ["pki.example.com:8080", "192.0.2.1", "vpn.example.com"]);
        set(&mut state, 50, "").expect("clears");
        assert_eq!(state.published_name(), Some("vpn.example.com"));
        revoke(&mut state, 60, "b2");
        assert_eq!(state.published_name(), Some("vpn.example.com"), "none is better");
        assert_eq!(set(&mut state, 60, "http://x/"), Err(ConflictKind::Invalid));
        // Former names go when nothing has them any more.
        set(&mut state, 60 + NAMED_MS, "x.example.com").expect("sets");
        assert_eq!(state.published_names(state.now_ms()), ["x.example.com", "vpn.example.com"]);
        let again = State::from_rows(state.rows()).expect("reads");
        assert_eq!(
            (again.published_names(again.now_ms()), again.lists_change()),
            (state.published_names(state.now_ms()), state.lists_change())
        );
    }

    #[test]
    fn a_name_without_a_domain_gives_way_to_any_other() {
        let mut state = state(PUBLICATION_LEVEL);
        gateway(&mut state, 10, "b1", "gw1");
        assert_eq!(state.published_name(), Some("gw1"), "where there is no other");
        gateway(&mut state, 20, "b2", "192.0.2.1");
        assert_eq!(state.published_name(), Some("192.0.2.1"));
        gateway(&mut state, 30, "b3", "gw0");
        assert_eq!(state.published_name(), Some("192.0.2.1"));
        assert_eq!(state.published_names(state.now_ms()), ["192.0.2.1", "gw1"]);
    }

    #[test]
    fn an_operator_can_have_no_addresses_and_lists_keep_those_that_were_given_out() {
        let mut state = state(PUBLICATION_LEVEL);
        gateway(&mut state, 10, "b1", "vpn.example.com");
        set(&mut state, 20, NO_NAME).expect("sets");
        assert_eq!(state.published_name(), None);
        assert_eq!(state.published_names(state.now_ms()), ["vpn.example.com"]);
        gateway(&mut state, 30, "b2", "vpn2.example.com");
        assert_eq!(state.published_name(), None);
        set(&mut state, 40, "").expect("clears");
        assert_eq!(state.published_name(), Some("vpn.example.com"));
    }

    #[test]
    fn former_names_are_bounded() {
        let mut state = state(PUBLICATION_LEVEL);
        for n in 0..40 {
            set(&mut state, 100 + n, &format!("v{n}.example.com")).expect("sets");
        }
        assert_eq!(state.published_names(state.now_ms()).len(), 1 + MAX_FORMER);
        assert_eq!(state.published_names(state.now_ms()).get(1).map(String::as_str), Some("v23.example.com"));
    }

    #[test]
    fn below_its_level_nothing_is_chosen_and_it_is_when_the_level_rises() {
        let mut state = state(PUBLICATION_LEVEL - 1);
        gateway(&mut state, 10, "b1", "vpn.example.com");
        revoke(&mut state, 20, "b1");
        gateway(&mut state, 30, "b2", "vpn.example.com");
        assert_eq!((state.published_name(), state.published_names(state.now_ms()).len()), (None, 0));
        assert_eq!(state.lists_change(), ListsChange { number: state.last_revocation(), at_ms: 20 });
        apply_at(&mut state, 40, Action::DescribeMember(describe(PUBLICATION_LEVEL))).expect("describes");
        let raise = crate::state::RaiseLevel { level: PUBLICATION_LEVEL, since: "9".into() };
        apply_at(&mut state, 50, Action::RaiseLevel(raise)).expect("raises");
        assert_eq!(state.published_name(), Some("vpn.example.com"));
    }
}
