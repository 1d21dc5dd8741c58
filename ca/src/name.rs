//! The names that certificates carry: checked before they go in, turned into safe text when they come out.

use core::fmt::Write as _;
use std::net::IpAddr;

use rcgen::string::{Ia5String, PrintableString};
use rcgen::{DistinguishedName, DnType, DnValue, SanType};
use x509_parser::x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name};

/// ub-common-name and ub-organization-name of RFC 5280 appendix A.1, in characters.
const MAX_ATTRIBUTE: usize = 64;
/// How many alternative names one certificate may carry: a gateway has a handful of public names.
const MAX_ALT_NAMES: usize = 32;
/// Names of others are cut to this many characters when they are turned into text for a log.
const MAX_TEXT: usize = 256;

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty, longer than its standard allows, or has characters that it does not allow there.
    #[error("{0:?} is not a {1}")]
    Syntax(String, &'static str),
    /// More alternative names than this implementation puts into one certificate.
    #[error("more than {MAX_ALT_NAMES} alternative names")]
    TooMany,
}

/// An alternative name of a subject (RFC 5280 §4.2.1.6), of the kinds that RFC 4945 §5.1.3.3 knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AltName {
    /// dNSName, in ASCII.
    Dns(String),
    /// iPAddress.
    Ip(IpAddr),
    /// rfc822Name, a mailbox.
    Email(String),
}

impl core::fmt::Display for AltName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Dns(name) | Self::Email(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

/// Who a certificate will be for. It cannot hold a name that may not be certified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub(crate) common_name: String,
    pub(crate) organization: Option<String>,
    pub(crate) alt_names: Vec<AltName>,
    pub(crate) address_as_dns: bool,
}

impl Subject {
    /// The subject `CN=name` with these alternative names. With none given, `name` itself becomes the alternative name
    /// if it is a host name, an address or a mailbox.
    pub fn new(name: &str, mut alt_names: Vec<AltName>) -> Result<Self, NameError> {
        check_attribute(name, "common name of 1 to 64 printable characters")?;
        if alt_names.is_empty() {
            if let Ok(address) = name.parse() {
                alt_names.push(AltName::Ip(address));
            } else if name.contains('@') {
                alt_names.push(AltName::Email(name.to_owned()));
            } else if check_dns_name(name).is_ok() {
                alt_names.push(AltName::Dns(name.to_ascii_lowercase()));
            }
        }
        if alt_names.len() > MAX_ALT_NAMES {
            return Err(NameError::TooMany);
        }
        for alt in &alt_names {
            match alt {
                AltName::Dns(dns) => check_dns_name(dns)?,
                AltName::Email(email) => check_email(email)?,
                AltName::Ip(_) => {}
            }
        }
        let mut unique = Vec::with_capacity(alt_names.len());
        for alt in alt_names {
            if !unique.contains(&alt) {
                unique.push(alt);
            }
        }
        Ok(Self { common_name: name.to_owned(), organization: None, alt_names: unique, address_as_dns: false })
    }

    /// The same subject in another organization than its issuer's.
    pub fn with_organization(mut self, organization: &str) -> Result<Self, NameError> {
        check_attribute(organization, "organization of 1 to 64 printable characters")?;
        self.organization = Some(organization.to_owned());
        Ok(self)
    }

    /// The same subject with each of its addresses also written out as a dNSName. It is wrong by RFC 5280 and needed where
    /// users type an address into the Windows client, which looks for it there.
    pub fn with_addresses_as_dns(mut self) -> Self {
        self.address_as_dns = true;
        self
    }

    /// The common name.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// The alternative names.
    pub fn alt_names(&self) -> &[AltName] {
        &self.alt_names
    }
}

/// Checks an attribute value of a distinguished name that will be certified.
pub(crate) fn check_attribute(value: &str, what: &'static str) -> Result<(), NameError> {
    let fits = (1..=MAX_ATTRIBUTE).contains(&value.chars().count());
    if fits && value.trim() == value && !value.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(NameError::Syntax(value.to_owned(), what))
    }
}

/// Checks a host name in the preferred syntax of RFC 1034 §3.5 as RFC 1123 §2.1 changed it: letters, digits and hyphens
/// in labels of 1 to 63, 253 characters in all, no wildcard (RFC 4945 §5.1.3.3), and a last label that is not a number,
/// which would read as an address.
pub fn check_dns_name(name: &str) -> Result<(), NameError> {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    if name.len() <= 253 && name.split('.').all(label_ok) && !last_is_number {
        Ok(())
    } else {
        Err(NameError::Syntax(name.to_owned(), "host name"))
    }
}

/// Checks a mailbox: an atom of RFC 5321 §4.1.2 before one `@`, a host name after it.
fn check_email(email: &str) -> Result<(), NameError> {
    let wrong = || NameError::Syntax(email.to_owned(), "mailbox");
    let (local, domain) = email.split_once('@').ok_or_else(wrong)?;
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    if (1..=64).contains(&local.len()) && local.bytes().all(atom) && check_dns_name(domain).is_ok() {
        Ok(())
    } else {
        Err(wrong())
    }
}

/// PrintableString where the characters allow it, UTF8String otherwise (RFC 5280 §4.1.2.4): the two encodings that every
/// IKE implementation compares correctly.
fn dn_value(value: &str) -> DnValue {
    match PrintableString::try_from(value) {
        Ok(printable) => DnValue::PrintableString(printable),
        Err(_) => DnValue::Utf8String(value.to_owned()),
    }
}

/// `O=organization, CN=common name`, the most general attribute first (X.501 §9.2).
pub(crate) fn distinguished_name(organization: Option<&str>, common_name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    if let Some(organization) = organization {
        dn.push(DnType::OrganizationName, dn_value(organization));
    }
    dn.push(DnType::CommonName, dn_value(common_name));
    dn
}

/// The alternative name as rcgen takes it.
pub(crate) fn san(alt: &AltName) -> Result<SanType, NameError> {
    let ia5 = |s: &str, what| Ia5String::try_from(s).map_err(|_| NameError::Syntax(s.to_owned(), what));
    Ok(match alt {
        AltName::Dns(name) => SanType::DnsName(ia5(name, "host name")?),
        AltName::Ip(address) => SanType::IpAddress(*address),
        AltName::Email(email) => SanType::Rfc822Name(ia5(email, "mailbox")?),
    })
}

/// Short names of RFC 4514 §3, and of what else is seen in machine certificates. The value is the DER content of the OID.
const ATTRIBUTES: &[(&[u8], &str)] = &[
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 42], "GN"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
];

/// A distinguished name (DER) as text for a person: `O=Example, CN=laptop7`, in the order of the encoding. Control
/// characters and separators are escaped as in RFC 4514 §2.4, and the text is cut to 256 characters, so that it can be
/// logged whoever made it.
pub fn text_of_name(der: &[u8]) -> String {
    use x509_parser::prelude::FromDer as _;
    match X509Name::from_der(der) {
        Ok(([], name)) => text(&name),
        _ => "(not a name)".to_owned(),
    }
}

/// See [`text_of_name`].
pub(crate) fn text(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    for attribute in name.iter_attributes() {
        if !out.is_empty() {
            out.push_str(", ");
        }
        let oid = attribute.attr_type();
        match ATTRIBUTES.iter().find(|(bytes, _)| *bytes == oid.as_bytes()) {
            Some((_, short)) => out.push_str(short),
            None => {
                let _ = write!(out, "{oid}");
            }
        }
        out.push('=');
        match attribute_text(attribute.attr_value()) {
            Some(value) => escape_into(&mut out, &value),
            None => {
                out.push('#');
                for b in attribute.as_slice().iter().take(64) {
                    let _ = write!(out, "{b:02x}");
                }
            }
        }
        if out.len() > MAX_TEXT * 4 {
            break;
        }
    }
    cut(out)
}

/// Text of a peer made safe for a log line: control characters escaped, length bounded.
pub(crate) fn safe_text(s: &str) -> String {
    let mut out = String::new();
    escape_into(&mut out, s);
    cut(out)
}

fn cut(s: String) -> String {
    match s.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{}…", s.get(..at).unwrap_or_default()),
        None => s,
    }
}

fn escape_into(out: &mut String, value: &str) {
    for c in value.chars().take(MAX_TEXT + 1) {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => out.extend(['\\', c]),
            c if c.is_control() || is_format_character(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
}

/// Characters that change what stands beside them, or are not seen: directions of writing (Unicode's Bidi_Control), joiners, breaks of
/// lines, variation selectors, marks of byte order and tags. With them a name can look like another one.
pub(crate) const fn is_format_character(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The text of an attribute value of any of the string types of X.520; `None` for other types or bad encodings.
pub(crate) fn attribute_text(value: &x509_parser::der_parser::asn1_rs::Any<'_>) -> Option<String> {
    use x509_parser::der_parser::asn1_rs::Tag;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            String::from_utf8(value.data.to_vec()).ok()
        }
        Tag::T61String => Some(value.data.iter().map(|b| char::from(*b)).collect()), // in practice ISO 8859-1
        Tag::BmpString => {
            let (units, odd) = value.data.as_chunks::<2>();
            let units: Vec<u16> = units.iter().map(|u| u16::from_be_bytes(*u)).collect();
            odd.is_empty().then(|| String::from_utf16(&units).ok())?
        }
        Tag::UniversalString => {
            let (units, odd) = value.data.as_chunks::<4>();
            let s = units.iter().map(|u| char::from_u32(u32::from_be_bytes(*u))).collect::<Option<String>>();
            odd.is_empty().then_some(s)?
        }
        _ => None,
    }
}

/// Whether two distinguished names are the same one: equal bytes, or equal by RFC 5280 §7.1, that is attribute by
/// attribute without regard to case, to runs of spaces and to the string type. Peers build an ID payload from the text in
/// their configuration, so its encoding often differs from the certificate's.
pub(crate) fn same_name(a: &X509Name<'_>, b: &X509Name<'_>) -> bool {
    if a.as_raw() == b.as_raw() {
        return true;
    }
    within(a, b) && a.iter_rdn().count() == b.iter_rdn().count()
}

/// Whether a distinguished name is below another, or the same one (RFC 5280 §4.2.1.10, §7.1).
pub(crate) fn within(name: &X509Name<'_>, base: &X509Name<'_>) -> bool {
    let mut own = name.iter_rdn();
    base.iter_rdn().all(|wanted| own.next().is_some_and(|rdn| same_rdn(rdn, wanted)))
}

fn same_rdn(a: &RelativeDistinguishedName<'_>, b: &RelativeDistinguishedName<'_>) -> bool {
    let folded = |value: &x509_parser::der_parser::asn1_rs::Any<'_>| {
        attribute_text(value).map(|s| s.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
    };
    let same = |x: &AttributeTypeAndValue<'_>, y: &AttributeTypeAndValue<'_>| {
        let (vx, vy) = (x.attr_value(), y.attr_value());
        x.attr_type() == y.attr_type()
            && match (folded(vx), folded(vy)) {
                (Some(tx), Some(ty)) => tx == ty,
                _ => vx.tag() == vy.tag() && vx.data == vy.data,
            }
    };
    a.iter().count() == b.iter().count() && a.iter().zip(b.iter()).all(|(x, y)| same(x, y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_follow_rfc_1123() {
        for good in ["a", "vpn.example.com", "xn--bcher-kva.example", "3com.com", "A-b.C", "1.2.3.4.in-addr.arpa"] {
            assert!(check_dns_name(good).is_ok(), "{good}");
        }
        let long = format!("{}.com", "a".repeat(64));
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "*.a.com",
            "a b",
            "a_b",
            "b\u{fc}cher.de",
            "10.0.0.1",
            "a\0b",
            &long,
        ] {
            assert!(check_dns_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_subject_names_itself_when_nothing_else_is_given() {
        let alt = |s| Subject::new(s, vec![]).unwrap().alt_names;
        assert_eq!(alt("VPN.example.com"), [AltName::Dns("vpn.example.com".into())]);
        assert_eq!(alt("192.0.2.1"), [AltName::Ip("192.0.2.1".parse().unwrap())]);
        assert_eq!(alt("ann@example.com"), [AltName::Email("ann@example.com".into())]);
        assert_eq!(alt("Ann Example"), []);
        assert!(Subject::new("ann@", vec![]).is_err());
        assert!(Subject::new("", vec![]).is_err());
        assert!(Subject::new("a\nb", vec![]).is_err());
        assert!(Subject::new(&"a".repeat(65), vec![]).is_err());
        assert!(Subject::new("a", vec![AltName::Dns("*.example.com".into())]).is_err());
        assert!(Subject::new("a", vec![AltName::Email("a@b@c".into())]).is_err());
        assert!(Subject::new("a", vec![AltName::Ip("::1".parse().unwrap()); 33]).is_err());
    }

    #[test]
    fn text_for_logs_has_no_control_characters() {
        assert_eq!(safe_text("a\r\nb\u{202e},c"), "a\\u{d}\\u{a}b\\u{202e}\\,c");
        assert_eq!(safe_text(&"x".repeat(1000)).chars().count(), 257);
        assert_eq!(text_of_name(b"junk"), "(not a name)");
    }
}
