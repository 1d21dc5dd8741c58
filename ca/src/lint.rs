//! What is never signed. The draft of a certificate is parsed again and held against its profile, by code that shares
//! nothing with the code that built it; one broken rule and the authority's key is not touched.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Version;

use crate::{
    AltName, Fingerprint, IssuingConfig, KeyAlgorithm, NameConstraints, Profile, PublicKey, RecordedService, Serial,
    Service, Subject, UnixTime,
};

/// DER contents of id-at-commonName and id-at-organizationName, 2.5.4.3 and 2.5.4.10.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];

/// A rule that a draft breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lint {
    /// It is not a version 3 certificate that can be parsed to its end.
    #[error("not a version 3 certificate")]
    Structure,
    /// Serial numbers are positive and have 16 to 20 octets (RFC 5280 §4.1.2.2; 16 for the sake of randomness).
    #[error("the serial number is not positive or has not 16 to 20 octets")]
    Serial,
    /// The issuer is not the authority, byte by byte.
    #[error("the issuer's name differs from the authority's")]
    Issuer,
    /// The subject is empty, or another one than was asked for.
    #[error("the subject is empty or differs from what was asked for")]
    Subject,
    /// It lives longer than its profile allows, or at a time when its authority does not.
    #[error("the validity period is outside what the profile and the authority allow")]
    Validity,
    /// A leaf profile must give a critical basicConstraints with CA:FALSE.
    #[error("it would be an authority, or its basic constraints are missing or not critical")]
    BasicConstraints,
    /// An issuing authority has a critical basicConstraints with CA:TRUE and a pathLenConstraint of 0, below an authority that
    /// may have one.
    #[error("it would not be an authority with none below itself, or its issuer may have none")]
    PathLen,
    /// Key usage must be critical, and digitalSignature (with keyEncipherment for RSA).
    #[error("the key usage differs from the profile's")]
    KeyUsage,
    /// The extended key usages are not exactly the profile's.
    #[error("the extended key usages differ from the profile's")]
    ExtendedKeyUsage,
    /// The alternative names are not exactly the subject's, or the profile does not admit them.
    #[error("the alternative names differ from the subject's, or the profile does not admit them")]
    AltNames,
    /// The name constraints of its authority do not permit a name in it; or those of an authority are not what was asked for.
    #[error(
        "a name in it is outside of its authority's name constraints, or its own constraints are not what was asked for"
    )]
    NameConstraints,
    /// The subject or authority key identifier is missing or wrong.
    #[error("a key identifier is missing or wrong")]
    KeyIdentifier,
    /// The key in it is not the requester's.
    #[error("the public key differs from the requester's")]
    PublicKey,
    /// It has an extension that no profile has.
    #[error("it has an extension that no profile has")]
    UnknownExtension,
    /// It is not what its record says.
    #[error("its {0} differs from what was recorded")]
    Record(&'static str),
}

/// What was recorded of a certificate before it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// From which profile.
    pub profile: Profile,
    /// Its serial number.
    pub serial: &'a Serial,
    /// Its names.
    pub subject: &'a Subject,
    /// First and last second of its validity.
    pub period: (UnixTime, UnixTime),
    /// The kind of its key.
    pub key: KeyAlgorithm,
    /// SHA-256 of its key (SubjectPublicKeyInfo), where that is known.
    pub key_sha256: Option<&'a [u8; 32]>,
}

/// What a draft is held against: facts of the authority's own certificate.
#[derive(Clone, Debug)]
pub(crate) struct Issuer {
    pub(crate) subject: Vec<u8>,
    pub(crate) key_id: Vec<u8>,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    /// Whether it may have authorities below itself.
    pub(crate) may_have_authorities: bool,
    /// Its certificate in DER, if that has name constraints.
    pub(crate) constrained: Option<Vec<u8>>,
}

impl Issuer {
    pub(crate) fn from_certificate(certificate: &X509Certificate<'_>) -> Self {
        let key_id = certificate.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        // Without an identifier of its own rcgen derives one as RFC 7093 §2 method 1 does over the whole key info.
        let derive = || {
            let digest = ring::digest::digest(&ring::digest::SHA256, certificate.public_key().raw);
            digest.as_ref().iter().take(20).copied().collect()
        };
        Self {
            subject: certificate.subject().as_raw().to_vec(),
            key_id: key_id.unwrap_or_else(derive),
            not_before: UnixTime(certificate.validity().not_before.timestamp()),
            not_after: UnixTime(certificate.validity().not_after.timestamp()),
            may_have_authorities: match certificate.basic_constraints() {
                Ok(Some(c)) => c.value.ca && c.value.path_len_constraint != Some(0),
                _ => false,
            },
            constrained: certificate
                .iter_extensions()
                .any(|e| matches!(e.parsed_extension(), ParsedExtension::NameConstraints(_)))
                .then(|| certificate.as_raw().to_vec()),
        }
    }

    /// Holds the names in a draft against the authority's constraints, as a reader of the path will.
    fn permits_names(&self, draft: &X509Certificate<'_>) -> bool {
        let Some(der) = &self.constrained else { return true };
        let Ok(([], own)) = X509Certificate::from_der(der) else { return false };
        crate::verify::permits_names(draft, &own)
    }
}

fn rule(kept: bool, broken: Lint) -> Result<(), Lint> {
    if kept { Ok(()) } else { Err(broken) }
}

/// What holds for each draft, whatever it is for: version, serial, issuer, a common name, the key.
fn check_common(cert: &X509Certificate<'_>, key: &PublicKey, issuer: &Issuer) -> Result<(), Lint> {
    rule(cert.version() == X509Version::V3, Lint::Structure)?;
    let serial = cert.raw_serial();
    let positive = serial.first().is_some_and(|b| *b < 0x80) && serial.iter().any(|b| *b != 0);
    rule(positive && (16..=20).contains(&serial.len()), Lint::Serial)?;
    rule(cert.issuer().as_raw() == issuer.subject, Lint::Issuer)?;
    rule(cert.subject().iter_common_name().count() == 1, Lint::Subject)?;
    rule(cert.public_key().raw == key.spki_der(), Lint::PublicKey)?;
    cert.extensions_map().map_err(|_| Lint::UnknownExtension)?; // refuses an extension that comes twice

    let own = Issuer::from_certificate(cert).key_id;
    let (mut authority_key, mut own_key) = (None, None);
    for extension in cert.iter_extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(aki) => authority_key = aki.key_identifier.as_ref().map(|k| k.0),
            ParsedExtension::SubjectKeyIdentifier(ski) => own_key = Some(ski.0),
            _ => {}
        }
    }
    rule(authority_key == Some(&issuer.key_id[..]) && own_key == Some(&own[..]), Lint::KeyIdentifier)
}

/// Checks the draft of an issuing authority: CA:TRUE with nothing below, certificates and lists to sign, no extended key usage
/// and no alternative name, inside the life of the root.
pub(crate) fn check_issuing(
    draft: &[u8],
    config: &IssuingConfig,
    key: &PublicKey,
    issuer: &Issuer,
) -> Result<(), Lint> {
    let Ok(([], cert)) = X509Certificate::from_der(draft) else { return Err(Lint::Structure) };
    rule(issuer.may_have_authorities, Lint::PathLen)?;
    check_common(&cert, key, issuer)?;
    let named = cert.subject().iter_common_name().next().and_then(|n| crate::name::attribute_text(n.attr_value()));
    rule(named.as_deref() == Some(&config.common_name) && cert.subject().as_raw() != issuer.subject, Lint::Subject)?;
    let (from, to) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    rule(from >= issuer.not_before.0 && from < to && to <= issuer.not_after.0, Lint::Validity)?;
    let constraints = cert.basic_constraints().map_err(|_| Lint::PathLen)?;
    let lowest = constraints.is_some_and(|c| c.critical && c.value.ca && c.value.path_len_constraint == Some(0));
    rule(lowest, Lint::PathLen)?;
    /// keyCertSign is bit 5, cRLSign bit 6.
    const SIGN: u16 = 1 << 5 | 1 << 6;
    let usage = cert.key_usage().map_err(|_| Lint::KeyUsage)?;
    rule(usage.is_some_and(|u| u.critical && u.value.flags == SIGN), Lint::KeyUsage)?;
    let constraints = cert.name_constraints().map_err(|_| Lint::NameConstraints)?;
    rule(constraints.is_none_or(|c| c.critical), Lint::NameConstraints)?;
    let asked = matches!(NameConstraints::of(&cert), Ok(Some(found)) if found == config.constraints);
    rule(asked && issuer.permits_names(&cert), Lint::NameConstraints)?;
    let known = cert.iter_extensions().all(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::SubjectKeyIdentifier(_)
                | ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::CRLDistributionPoints(_)
                | ParsedExtension::AuthorityInfoAccess(_)
                | ParsedExtension::NameConstraints(_)
        )
    });
    rule(known, Lint::UnknownExtension)
}

/// Checks a draft (a certificate with a void signature) against its profile and what was asked for.
pub(crate) fn check(
    draft: &[u8],
    profile: Profile,
    subject: &Subject,
    key: &PublicKey,
    issuer: &Issuer,
) -> Result<(), Lint> {
    let Ok(([], cert)) = X509Certificate::from_der(draft) else { return Err(Lint::Structure) };
    rule(cert.public_key().raw == key.spki_der(), Lint::PublicKey)?;
    check_against(&cert, profile, subject, issuer)
}

/// The same for a draft that was made elsewhere or earlier, against what was recorded of it.
pub(crate) fn recheck(draft: &[u8], recorded: &Recorded<'_>, issuer: &Issuer) -> Result<(), Lint> {
    let Ok(([], cert)) = X509Certificate::from_der(draft) else { return Err(Lint::Structure) };
    rule(Serial::from_be_bytes(cert.raw_serial()) == *recorded.serial, Lint::Record("serial number"))?;
    let (from, to) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    rule((UnixTime(from), UnixTime(to)) == recorded.period, Lint::Record("validity period"))?;
    let key = PublicKey::from_spki_der(cert.public_key().raw).map_err(|_| Lint::PublicKey)?;
    rule(key.algorithm() == recorded.key, Lint::Record("kind of key"))?;
    let hash = Fingerprint::of(key.spki_der()).0;
    rule(recorded.key_sha256.is_none_or(|recorded| *recorded == hash), Lint::Record("public key"))?;
    check_against(&cert, recorded.profile, recorded.subject, issuer)
}

/// The same for the certificate of a service; what its service makes of it is looked at there.
pub(crate) fn check_service(
    cert: &X509Certificate<'_>,
    recorded: &RecordedService<'_>,
    key: &PublicKey,
    issuer: &Issuer,
) -> Result<(), Lint> {
    /// DER contents of id-pkix-ocsp-nocheck, 1.3.6.1.5.5.7.48.1.5.
    const OCSP_NO_CHECK: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 5];
    rule(Serial::from_be_bytes(cert.raw_serial()) == *recorded.serial, Lint::Record("serial number"))?;
    let (from, to) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    rule((UnixTime(from), UnixTime(to)) == recorded.period, Lint::Record("validity period"))?;
    rule(from >= issuer.not_before.0 && from < to && to <= issuer.not_after.0, Lint::Validity)?;
    rule(key.algorithm() == recorded.key, Lint::Record("kind of key"))?;
    let hash = Fingerprint::of(key.spki_der()).0;
    rule(recorded.key_sha256.is_none_or(|recorded| *recorded == hash), Lint::Record("public key"))?;
    check_common(cert, key, issuer)?;
    let named = cert.subject().iter_common_name().next().and_then(|n| crate::name::attribute_text(n.attr_value()));
    rule(named.as_deref() == Some(recorded.name), Lint::Subject)?;
    rule(issuer.permits_names(cert), Lint::NameConstraints)?;
    let known = cert.iter_extensions().all(|extension| {
        let parsed = matches!(
            extension.parsed_extension(),
            ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::SubjectKeyIdentifier(_)
                | ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::CRLDistributionPoints(_)
                | ParsedExtension::AuthorityInfoAccess(_)
        );
        parsed || (recorded.service == Service::OcspSigner && extension.oid.as_bytes() == OCSP_NO_CHECK)
    });
    rule(known, Lint::UnknownExtension)
}

fn check_against(cert: &X509Certificate<'_>, profile: Profile, subject: &Subject, issuer: &Issuer) -> Result<(), Lint> {
    let key = PublicKey::from_spki_der(cert.public_key().raw).map_err(|_| Lint::PublicKey)?;
    check_common(cert, &key, issuer)?;
    check_subject(cert, subject)?;

    let (from, to) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    let life = to.saturating_sub(from);
    // Five minutes of backdating come on top of the profile's longest life.
    let longest = profile.max_validity().as_secs() as i64 + 300;
    let inside = from >= issuer.not_before.0 && to <= issuer.not_after.0;
    rule(inside && life > 0 && life <= longest, Lint::Validity)?;

    let constraints = cert.basic_constraints().map_err(|_| Lint::BasicConstraints)?;
    let leaf = constraints.is_some_and(|c| c.critical && !c.value.ca && c.value.path_len_constraint.is_none());
    rule(leaf, Lint::BasicConstraints)?;

    /// digitalSignature is bit 0, keyEncipherment bit 2.
    const SIGN: u16 = 1;
    const SIGN_AND_ENCIPHER: u16 = 1 | 4;
    let wanted = if key.algorithm().is_rsa() { SIGN_AND_ENCIPHER } else { SIGN };
    let usage = cert.key_usage().map_err(|_| Lint::KeyUsage)?;
    rule(usage.is_some_and(|u| u.critical && u.value.flags == wanted), Lint::KeyUsage)?;

    check_extended_key_usage(cert, profile)?;
    check_alt_names(cert, profile, subject)?;
    rule(issuer.permits_names(cert), Lint::NameConstraints)?;

    let known = cert.iter_extensions().all(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::SubjectKeyIdentifier(_)
                | ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
                | ParsedExtension::CRLDistributionPoints(_)
                | ParsedExtension::AuthorityInfoAccess(_)
        )
    });
    rule(known, Lint::UnknownExtension)
}

/// DER contents of id-kp-cmcRA, 1.3.6.1.5.5.7.3.28: what tells the enrollment endpoint from every other server.
const CMC_RA: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 28];

/// serverAuth, clientAuth, and ikeIntermediate with ipsecIKE or cmcRA: what profiles give, as the parser reports it.
fn check_extended_key_usage(cert: &X509Certificate<'_>, profile: Profile) -> Result<(), Lint> {
    /// DER contents of 1.3.6.1.5.5.8.2.2 and 1.3.6.1.5.5.7.3.17.
    const IKE: &[&[u8]] = &[&[0x2b, 6, 1, 5, 5, 8, 2, 2], &[0x2b, 6, 1, 5, 5, 7, 3, 17]];
    let (server, client, wanted): (_, _, &[&[u8]]) = match profile {
        Profile::Gateway => (true, false, IKE),
        Profile::Controller => (true, true, &[]),
        Profile::Endpoint => (true, false, &[CMC_RA]),
        Profile::GatewayLink | Profile::Operator | Profile::User => (false, true, &[]),
        Profile::Machine => (false, true, IKE),
    };
    let Ok(Some(usage)) = cert.extended_key_usage() else { return Err(Lint::ExtendedKeyUsage) };
    let usage = usage.value;
    let others: Vec<&[u8]> = usage.other.iter().map(|oid| oid.as_bytes()).collect();
    let foreign =
        usage.any || usage.code_signing || usage.email_protection || usage.time_stamping || usage.ocsp_signing;
    if !foreign && usage.server_auth == server && usage.client_auth == client && others == wanted {
        Ok(())
    } else {
        Err(Lint::ExtendedKeyUsage)
    }
}

/// The common name is the one that was asked for, and beside it stands an organization at most.
fn check_subject(cert: &X509Certificate<'_>, subject: &Subject) -> Result<(), Lint> {
    let mut attributes = cert.subject().iter_attributes();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| crate::name::attribute_text(a.attr_value());
    let right = attributes.all(|attribute| match attribute.attr_type().as_bytes() {
        COMMON_NAME => text(attribute).as_deref() == Some(&subject.common_name),
        ORGANIZATION => subject.organization.is_none() || text(attribute) == subject.organization,
        _ => false,
    });
    rule(right, Lint::Subject)
}

fn check_alt_names(cert: &X509Certificate<'_>, profile: Profile, subject: &Subject) -> Result<(), Lint> {
    let extension = cert.subject_alternative_name().map_err(|_| Lint::AltNames)?;
    let mut found = Vec::new();
    for name in extension.iter().flat_map(|e| &e.value.general_names) {
        found.push(match name {
            GeneralName::DNSName(dns) => AltName::Dns((*dns).to_owned()),
            GeneralName::RFC822Name(email) => AltName::Email((*email).to_owned()),
            GeneralName::IPAddress(octets) => AltName::Ip(crate::verify::address(octets).ok_or(Lint::AltNames)?),
            _ => return Err(Lint::AltNames),
        });
    }
    if found == subject.encoded_alt_names() && profile.admits(&found) { Ok(()) } else { Err(Lint::AltNames) }
}
