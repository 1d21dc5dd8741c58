//! Name constraints, RFC 5280 §4.2.1.10, as an authority of ours is made with them: which names it may certify. Those of other
//! people's authorities are read in [`crate::verify`].

use core::fmt;
use std::net::IpAddr;

use rcgen::{CidrSubnet, GeneralSubtree};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree as ParsedSubtree, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::name::{check_dns_name, safe_text};
use crate::{AltName, Error};

/// Most names and networks in all: our own path validation, and others', read no more.
pub const MAX_CONSTRAINTS: usize = 64;

/// Names of one kind that are permitted or excluded together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subtree {
    /// A domain: itself and all that is below it.
    Dns(String),
    /// A network: its address, and how many bits of it count.
    Ip(IpAddr, u8),
}

impl fmt::Display for Subtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(domain) => f.write_str(domain),
            Self::Ip(address, bits) => write!(f, "{address}/{bits}"),
        }
    }
}

/// As it is displayed: a network with its length, anything else is a domain.
impl core::str::FromStr for Subtree {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains('/') { Self::ip(text) } else { Self::dns(text) }
    }
}

fn bad(text: String) -> Error {
    Error::NameConstraints(text)
}

/// Whether the first `bits` of both are the same.
fn same_prefix(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    let differ = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).checked_shr(32_u32.saturating_sub(bits.into())),
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let differ = (u128::from(a) ^ u128::from(b)).checked_shr(128_u32.saturating_sub(bits.into()));
            differ.map(|d| u32::from(d != 0))
        }
        _ => Some(1),
    };
    // Where no bit counts there is nothing left to differ.
    differ.unwrap_or(0) == 0
}

impl Subtree {
    /// A domain as an operator writes it. A leading dot has no meaning for host names in RFC 5280, and readers differ on it; letters
    /// beyond ASCII are written as certificates have them (A-labels, RFC 5280 §7.2).
    pub fn dns(text: &str) -> Result<Self, Error> {
        let shown = safe_text(text);
        if let Some(domain) = text.strip_prefix('.') {
            let domain = safe_text(domain);
            return Err(bad(format!(
                "{shown:?}: leave out the dot; a constraint of host names says nothing by it, and {domain} means what is below \
                 it, too"
            )));
        }
        if !text.is_ascii() {
            return Err(bad(format!("{shown:?}: write it as certificates do, in ASCII (xn--...)")));
        }
        if text.contains('/') || text.parse::<IpAddr>().is_ok() {
            return Err(bad(format!("{shown:?} is no domain; addresses and networks have options of their own")));
        }
        check_dns_name(text).map_err(|_| bad(format!("{shown:?} is no domain like example.com")))?;
        Ok(Self::Dns(text.to_ascii_lowercase()))
    }

    /// A network as an operator writes it, `10.0.0.0/8` or `2001:db8::/32`; an address alone is itself.
    pub fn ip(text: &str) -> Result<Self, Error> {
        let shown = safe_text(text);
        let wrong = || bad(format!("{shown:?} is no network like 10.0.0.0/8 or 2001:db8::/32"));
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most: u8 = if address.is_ipv4() { 32 } else { 128 };
        let digits = |bits: &str| bits.bytes().all(|b| b.is_ascii_digit()).then(|| bits.parse::<u8>().ok()).flatten();
        let bits = bits.map_or(Some(most), digits).filter(|bits| *bits <= most).ok_or_else(wrong)?;
        if let IpAddr::V6(v6) = address
            && v6.to_ipv4_mapped().is_some()
        {
            return Err(bad(format!(
                "{shown:?}: write the IPv4 network itself; certificates have IPv4 addresses as such"
            )));
        }
        let network = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::from((u32::from(v4) & mask).to_be_bytes())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::from((u128::from(v6) & mask).to_be_bytes())
            }
        };
        if network != address {
            return Err(bad(format!("{shown:?} is an address in a network; the network is {network}/{bits}")));
        }
        Ok(Self::Ip(network, bits))
    }

    /// Whether a host name is in it; nothing of a network.
    fn has_host(&self, host: &str) -> bool {
        let Self::Dns(domain) = self else { return false };
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        host == domain || host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
    }

    fn has_address(&self, address: IpAddr) -> bool {
        matches!(self, Self::Ip(network, bits) if same_prefix(*network, address, *bits))
    }

    /// Whether all of `other` is in it.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dns(_), Self::Dns(below)) => self.has_host(below),
            (Self::Ip(network, bits), Self::Ip(below, more)) => bits <= more && same_prefix(*network, *below, *bits),
            _ => false,
        }
    }

    fn encoded(&self) -> GeneralSubtree {
        match self {
            Self::Dns(domain) => GeneralSubtree::DnsName(domain.clone()),
            Self::Ip(address, bits) => GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, *bits)),
        }
    }

    /// What we would have written; `None` for what others may.
    fn parse(base: &GeneralName<'_>) -> Option<Self> {
        match base {
            GeneralName::DNSName(domain) => Self::dns(domain).ok(),
            GeneralName::IPAddress(octets) => {
                let (address, mask) = octets.split_at_checked(octets.len() / 2)?;
                let address = crate::verify::address(address)?;
                let ones: u32 = mask.iter().map(|b| b.count_ones()).sum();
                let leading: u32 = mask.iter().take_while(|b| **b == 0xff).count() as u32 * 8
                    + mask.iter().find(|b| **b != 0xff).map_or(0, |b| b.leading_ones());
                (ones == leading).then(|| u8::try_from(ones).ok()).flatten().map(|bits| Self::Ip(address, bits))
            }
            _ => None,
        }
    }
}

/// What an authority may certify. Names of a kind that no permitted subtree is of are bound by the excluded ones alone, as RFC 5280
/// has it. Empty is no constraint at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameConstraints {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
}

/// A name that an authority may not certify, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} {name} is outside of the name constraints: {rule}")]
pub struct Outside {
    /// What kind of name, and why it counts.
    what: &'static str,
    name: String,
    rule: String,
}

fn listed<'a>(subtrees: impl Iterator<Item = &'a Subtree>) -> String {
    subtrees.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl NameConstraints {
    /// These, without what is said twice. Refused are more than [`MAX_CONSTRAINTS`], and permissions that the exclusions leave
    /// nothing of.
    pub fn new(permitted: Vec<Subtree>, excluded: Vec<Subtree>) -> Result<Self, Error> {
        let count = permitted.len() + excluded.len();
        if count > MAX_CONSTRAINTS {
            return Err(bad(format!("{count} names and networks are too many: at most {MAX_CONSTRAINTS} in all")));
        }
        let once = |list: Vec<Subtree>| {
            let mut kept = Vec::with_capacity(list.len());
            for subtree in list {
                if !kept.contains(&subtree) {
                    kept.push(subtree);
                }
            }
            kept
        };
        let (permitted, excluded) = (once(permitted), once(excluded));
        let void = permitted.iter().find(|p| excluded.iter().any(|e| e.covers(p)));
        if let Some(void) = void {
            return Err(bad(format!("{void} is permitted, and excluded as a whole")));
        }
        Ok(Self { permitted, excluded })
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.permitted.is_empty() && self.excluded.is_empty()
    }

    /// What is permitted.
    pub fn permitted(&self) -> &[Subtree] {
        &self.permitted
    }

    /// What is excluded, whatever is permitted.
    pub fn excluded(&self) -> &[Subtree] {
        &self.excluded
    }

    /// Those of a certificate in DER; none if it has none. Of somebody else's they may be of kinds that are not known here: then
    /// it is an error.
    pub fn of_certificate(der: &[u8]) -> Result<Self, Error> {
        let unread = || Error::Authority("its name constraints cannot be read");
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| unread())?;
        Self::of(&certificate)?.ok_or_else(unread)
    }

    /// See [`Self::of_certificate`]; `None` where there is something that we would not write.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Result<Option<Self>, Error> {
        let found = certificate.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::NameConstraints(constraints) => Some(constraints),
            _ => None,
        });
        let Some(found) = found else { return Ok(Some(Self::default())) };
        let read = |list: &Option<Vec<ParsedSubtree<'_>>>| -> Option<Vec<Subtree>> {
            list.iter().flatten().map(|subtree| Subtree::parse(&subtree.base)).collect()
        };
        match (read(&found.permitted_subtrees), read(&found.excluded_subtrees)) {
            (Some(permitted), Some(excluded)) => Self::new(permitted, excluded).map(Some),
            _ => Ok(None),
        }
    }

    /// As rcgen takes them.
    pub(crate) fn encoded(&self) -> Option<rcgen::NameConstraints> {
        (!self.is_empty()).then(|| rcgen::NameConstraints {
            permitted_subtrees: self.permitted.iter().map(Subtree::encoded).collect(),
            excluded_subtrees: self.excluded.iter().map(Subtree::encoded).collect(),
        })
    }

    /// Whether a certificate of these names may be had. Where there is no dNSName the common name counts as one, whatever it
    /// looks like: so OpenSSL, GnuTLS and NSS have it, each a little differently.
    pub fn check(&self, common_name: &str, alt_names: &[AltName]) -> Result<(), Outside> {
        alt_names.iter().try_for_each(|name| self.check_name(name))?;
        if alt_names.iter().any(|name| matches!(name, AltName::Dns(_))) {
            return Ok(());
        }
        let what = "common name (which counts as a host name where there is no other)";
        self.check_one(what, common_name, |s| matches!(s, Subtree::Dns(_)), |s| s.has_host(common_name))
    }

    /// Whether one alternative name may be had.
    pub fn check_name(&self, name: &AltName) -> Result<(), Outside> {
        match name {
            AltName::Dns(host) => self.check_one("name", host, |s| matches!(s, Subtree::Dns(_)), |s| s.has_host(host)),
            // One network permitted forbids all addresses of the other version, too: iPAddress is one kind of name.
            AltName::Ip(address) => {
                let text = address.to_string();
                self.check_one("address", &text, |s| matches!(s, Subtree::Ip(..)), |s| s.has_address(*address))
            }
            AltName::Email(_) => Ok(()),
        }
    }

    fn check_one(
        &self,
        what: &'static str,
        name: &str,
        is_about: impl Fn(&Subtree) -> bool,
        has: impl Fn(&Subtree) -> bool,
    ) -> Result<(), Outside> {
        let outside = |rule| Err(Outside { what, name: safe_text(name), rule });
        if let Some(excluded) = self.excluded.iter().find(|s| is_about(s) && has(s)) {
            return outside(format!("{excluded} is excluded"));
        }
        let mut about = self.permitted.iter().filter(|s| is_about(s)).peekable();
        if about.peek().is_none() || self.permitted.iter().any(|s| is_about(s) && has(s)) {
            return Ok(());
        }
        outside(format!("permitted is {}", listed(about)))
    }
}

impl fmt::Display for NameConstraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.permitted.is_empty(), self.excluded.is_empty()) {
            (true, true) => f.write_str("none"),
            (false, true) => write!(f, "permitted: {}", listed(self.permitted.iter())),
            (true, false) => write!(f, "excluded: {}", listed(self.excluded.iter())),
            (false, false) => {
                write!(f, "permitted: {}; excluded: {}", listed(self.permitted.iter()), listed(self.excluded.iter()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
