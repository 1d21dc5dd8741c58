//! The authority: one CA certificate, its private key, and the issuing of certificates from it.

mod cross;
mod issuing;
mod service;

use core::time::Duration;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension, IsCa, Issuer, KeyUsagePurpose,
    PublicKeyData, SerialNumber, SigningKey,
};
use ring::rand::SecureRandom;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use crate::crl::shard_of;
use crate::der::{self, BIT_STRING, SEQUENCE};
use crate::name::{check_attribute, distinguished_name, san};
use crate::seal::{Purpose, SealKey, Sealed};
use crate::{
    AltName, Certificate, Error, Fingerprint, KeyAlgorithm, KeyPair, NameConstraints, Profile, PublicKey, Recorded,
    Serial, Subject, UnixTime, lint,
};

pub use self::cross::MAX_ABOVE;
pub use self::issuing::{DEFAULT_ISSUING_VALIDITY, IssuingConfig};
pub use self::service::{MAX_OCSP_SIGNER_VALIDITY, MAX_RA_VALIDITY, RecordedService, Service};

/// How long a root lives unless the configuration says otherwise: ten years.
pub const DEFAULT_ROOT_VALIDITY: Duration = Duration::from_secs(3650 * 86_400);
/// The longest life of a root: thirty years.
const MAX_ROOT_VALIDITY: Duration = Duration::from_secs(30 * 366 * 86_400);
/// Clocks of clients run behind: a certificate is valid from five minutes before it was issued.
const BACKDATE: i64 = 300;
/// The last second that RFC 5280 §4.1.2.5 can express as it should, before the "no expiry" value of 9999-12-31.
const LAST_SECOND: i64 = 253_402_300_798;

/// What a new enterprise root is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootConfig {
    /// The organization; certificates issued from the root carry it, too.
    pub organization: String,
    /// The root's own common name.
    pub common_name: String,
    /// The kind of its key.
    pub key: KeyAlgorithm,
    /// How long it lives.
    pub validity: Duration,
}

impl RootConfig {
    /// A P-256 root that lives for ten years.
    pub fn new(organization: &str, common_name: &str) -> Self {
        Self {
            organization: organization.to_owned(),
            common_name: common_name.to_owned(),
            key: KeyAlgorithm::default(),
            validity: DEFAULT_ROOT_VALIDITY,
        }
    }
}

/// Where third parties find the authority's certificate and revocation information. Each is a plain `http` URL, because
/// it is needed before the tunnel is up. What is `None` is left out of the certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationUrls {
    /// CRL distribution point. `{shard}` in it stands for the certificate's shard ([`crate::crl::shard_of`]).
    pub crl: Option<String>,
    /// The same for what gateways and the endpoint show to strangers; `None` is as above. It should be a list of everything, with no
    /// issuing distribution point: NSS reads no other, and strongSwan and GnuTLS take whichever shard they have for the right one.
    pub whole_crl: Option<String>,
    /// The authority's certificate (AIA caIssuers).
    pub ca_issuers: Option<String>,
    /// OCSP responder (AIA ocsp).
    pub ocsp: Option<String>,
}

impl RevocationUrls {
    /// The distribution point of a certificate, if there is any.
    fn distribution_points(&self, profile: Option<Profile>, serial: &Serial) -> Vec<CrlDistributionPoint> {
        let whole = matches!(profile, Some(Profile::Gateway | Profile::Endpoint));
        let url = self.whole_crl.as_ref().filter(|_| whole).or(self.crl.as_ref());
        let uri = |url: &String| url.replace("{shard}", &shard_of(serial).to_string());
        url.map(|url| CrlDistributionPoint { uris: vec![uri(url)] }).into_iter().collect()
    }
}

/// What will be signed, before the authority's key is touched: it can be recorded first. Building it twice from equal
/// input gives equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    tbs: Vec<u8>,
    profile: Profile,
    period: (UnixTime, UnixTime),
    cut_short: bool,
}

impl Prepared {
    /// The TBSCertificate in DER.
    pub fn tbs(&self) -> &[u8] {
        &self.tbs
    }

    /// First and last second of its validity.
    pub const fn period(&self) -> (UnixTime, UnixTime) {
        self.period
    }

    /// Whether the life was cut short because the authority's own ends earlier: time to renew the authority.
    pub const fn cut_short(&self) -> bool {
        self.cut_short
    }
}

/// A certificate authority that is open for issuing.
#[derive(Debug)]
pub struct Authority {
    key: Arc<KeyPair>,
    certificate: Certificate,
    organization: Option<String>,
    facts: lint::Issuer,
    /// Which names it may certify, as far as we would write such constraints; the lint has them all.
    constraints: NameConstraints,
    urls: RevocationUrls,
    /// Who issued its certificate, up to the root; empty for a root.
    issuers: Vec<Certificate>,
}

impl Authority {
    /// Makes a new enterprise root, and its private key sealed for storage. The key is sealed to the root's certificate:
    /// both are needed to open it.
    pub fn create(
        config: &RootConfig,
        seal_key: &SealKey,
        now: UnixTime,
        rng: &dyn SecureRandom,
    ) -> Result<(Self, Sealed), Error> {
        check_attribute(&config.organization, "organization of 1 to 64 printable characters")?;
        check_attribute(&config.common_name, "common name of 1 to 64 printable characters")?;
        if config.validity.is_zero() || config.validity > MAX_ROOT_VALIDITY {
            return Err(Error::Validity("a root lives for at most 30 years"));
        }
        let key = KeyPair::generate(config.key, rng)?;
        let (not_before, not_after) = period(now, config.validity, None)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(Some(&config.organization), &config.common_name);
        params.serial_number = Some(SerialNumber::from_slice(Serial::generate(rng)?.as_be_bytes()));
        (params.not_before, params.not_after) = (date(not_before)?, date(not_after)?);
        // A root may have issuing authorities below it, and one time another root, whom it cross-certifies, with his.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(2));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let unsigned = Unsigned { spki: &key.public_key(), algorithm: key.signature_algorithm() };
        let tbs = params.self_signed(&unsigned).map_err(|_| Error::Crypto("the root could not be encoded"))?;
        let der = attach_signature(&tbs_of(tbs.der())?, CERTIFICATE_HEAD, &key, rng)?;
        let authority = Self::from_parts(key, &der)?;
        let sealed = authority.seal(seal_key, rng)?;
        Ok((authority, sealed))
    }

    /// Opens an authority from its sealed key and its certificate in DER.
    pub fn open(sealed_key: &Sealed, seal_key: &SealKey, certificate: &[u8]) -> Result<Self, Error> {
        let pkcs8 = seal_key.open(Purpose::CA_KEY, &[&Fingerprint::of(certificate).0], sealed_key)?;
        Self::from_parts(KeyPair::from_pkcs8_der(&pkcs8)?, certificate)
    }

    /// Takes an authority that was made elsewhere: a key, and a CA certificate for it in DER.
    pub fn from_parts(key: KeyPair, certificate: &[u8]) -> Result<Self, Error> {
        let Ok(([], parsed)) = X509Certificate::from_der(certificate) else {
            return Err(Error::Authority("not an X.509 certificate in DER"));
        };
        if parsed.public_key().raw != key.public_key().spki_der() {
            return Err(Error::Authority("it is for another key"));
        }
        let constraints = parsed.basic_constraints().ok().flatten();
        if !constraints.is_some_and(|c| c.value.ca) {
            return Err(Error::Authority("it is not for an authority (no CA:TRUE)"));
        }
        let usage = parsed.key_usage().map_err(|_| Error::Authority("its key usage cannot be read"))?;
        if usage.is_some_and(|u| !u.value.key_cert_sign()) {
            return Err(Error::Authority("its key may not sign certificates"));
        }
        let facts = lint::Issuer::from_certificate(&parsed);
        let organization = parsed.subject().iter_organization().next();
        let organization = organization.and_then(|o| crate::name::attribute_text(o.attr_value()));
        Ok(Self {
            organization: organization.filter(|o| check_attribute(o, "").is_ok()),
            certificate: Certificate::from_der(certificate)?,
            key: Arc::new(key),
            facts,
            constraints: NameConstraints::of(&parsed).ok().flatten().unwrap_or_default(),
            urls: RevocationUrls::default(),
            issuers: Vec::new(),
        })
    }

    /// Seals the private key again, for example under a new seal key.
    pub fn seal(&self, seal_key: &SealKey, rng: &dyn SecureRandom) -> Result<Sealed, Error> {
        Ok(seal_key.seal(Purpose::CA_KEY, &[&self.certificate.fingerprint.0], self.key.pkcs8_der(), rng)?)
    }

    pub(crate) fn key(&self) -> &KeyPair {
        &self.key
    }

    /// The private key: for whoever takes it out of the cluster.
    pub fn private_key(&self) -> &KeyPair {
        &self.key
    }

    /// The authority's own certificate.
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The kind of the authority's key.
    pub fn key_algorithm(&self) -> KeyAlgorithm {
        self.key.public_key().algorithm()
    }

    /// Puts these addresses into what is issued from now on.
    pub fn set_urls(&mut self, urls: RevocationUrls) -> Result<(), Error> {
        for url in [&urls.crl, &urls.whole_crl, &urls.ca_issuers, &urls.ocsp].into_iter().flatten() {
            if !url.starts_with("http://") || url.len() > 255 || !url.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(Error::Name(crate::name::NameError::Syntax(url.clone(), "plain http URL")));
            }
        }
        self.urls = urls;
        Ok(())
    }

    /// The same authority, with these addresses in what it issues.
    pub fn with_urls(&self, urls: RevocationUrls) -> Result<Self, Error> {
        let mut authority = Self {
            key: self.key.clone(),
            certificate: self.certificate.clone(),
            organization: self.organization.clone(),
            facts: self.facts.clone(),
            constraints: self.constraints.clone(),
            urls: RevocationUrls::default(),
            issuers: self.issuers.clone(),
        };
        authority.set_urls(urls)?;
        Ok(authority)
    }

    /// Issues a certificate with the profile's usual life.
    pub fn issue(
        &self,
        profile: Profile,
        subject: &Subject,
        key: &PublicKey,
        now: UnixTime,
        serial: Serial,
        rng: &dyn SecureRandom,
    ) -> Result<Certificate, Error> {
        let prepared = self.prepare(profile, subject, key, now, profile.default_validity(), serial)?;
        self.sign(&prepared, rng)
    }

    /// Builds and lints what [`Authority::sign`] will sign; the authority's key is not touched.
    ///
    /// It is valid from five minutes before `now`, but never before the authority, and for `validity` from `now`, but
    /// never longer than the authority.
    pub fn prepare(
        &self,
        profile: Profile,
        subject: &Subject,
        key: &PublicKey,
        now: UnixTime,
        validity: Duration,
        serial: Serial,
    ) -> Result<Prepared, Error> {
        if validity.is_zero() || validity > profile.max_validity() {
            return Err(Error::Validity("the profile allows at most 398 days"));
        }
        if now < self.certificate.not_before || now >= self.certificate.not_after {
            return Err(Error::AuthorityExpired);
        }
        self.constraints.check(&subject.common_name, &subject.encoded_alt_names())?;
        let (not_before, not_after) = period(now, validity, Some(&self.certificate))?;
        let mut params = CertificateParams::default();
        let organization = subject.organization.as_deref().or(self.organization.as_deref());
        params.distinguished_name = distinguished_name(organization, &subject.common_name);
        params.serial_number = Some(SerialNumber::from_slice(serial.as_be_bytes()));
        (params.not_before, params.not_after) = (date(not_before)?, date(not_after)?);
        params.subject_alt_names = subject.encoded_alt_names().iter().map(san).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if key.algorithm().is_rsa() {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = profile.extended_key_usages();
        params.use_authority_key_identifier_extension = true;
        params.crl_distribution_points = self.urls.distribution_points(Some(profile), &serial);
        params.custom_extensions.extend(authority_information(&self.urls));

        let unsigned = Unsigned { spki: &self.key.public_key(), algorithm: self.key.signature_algorithm() };
        let issuer = Issuer::from_ca_cert_der(&self.certificate.der().into(), unsigned)
            .map_err(|_| Error::Authority("its name or extensions cannot be copied"))?;
        let spki = rcgen::SubjectPublicKeyInfo::from_der(key.spki_der())
            .map_err(|_| Error::PublicKey("its encoding is not the usual one of its algorithm"))?;
        let draft =
            params.signed_by(&spki, &issuer).map_err(|_| Error::Crypto("the certificate could not be encoded"))?;
        lint::check(draft.der(), profile, subject, key, &self.facts)?;
        let cut_short = not_after.0 < now.0.saturating_add(validity.as_secs() as i64);
        Ok(Prepared { tbs: tbs_of(draft.der())?, profile, period: (not_before, not_after), cut_short })
    }

    /// The signature over a TBSCertificate that was made earlier, after it was held against its record and against what no profile
    /// may contain: it must be this authority's, for those names, that key and that time, and no authority itself.
    pub fn sign_recorded(&self, tbs: &[u8], recorded: &Recorded<'_>, rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        let draft = with_signature(tbs, CERTIFICATE_HEAD, &[0]).map_err(|_| lint::Lint::Structure)?;
        lint::recheck(&draft, recorded, &self.facts)?;
        self.key.sign(tbs, rng)
    }

    /// The certificate of what was recorded and its signature, after both were checked again: whoever signed may have had another
    /// key, or made a mistake that gives the key away.
    pub fn check_recorded(&self, tbs: &[u8], signature: &[u8], recorded: &Recorded<'_>) -> Result<Certificate, Error> {
        let certificate = Certificate::assemble(tbs, signature)?;
        lint::recheck(certificate.der(), recorded, &self.facts)?;
        self.has_signed(&certificate)?;
        Ok(certificate)
    }

    /// Signs what [`Authority::prepare`] built.
    pub fn sign(&self, prepared: &Prepared, rng: &dyn SecureRandom) -> Result<Certificate, Error> {
        let der = attach_signature(&prepared.tbs, CERTIFICATE_HEAD, &self.key, rng)?;
        let certificate = Certificate::from_der(&der)?;
        self.has_signed(&certificate)?;
        Ok(certificate)
    }

    /// A wrong signature helps nobody but whoever computes the key from it.
    fn has_signed(&self, certificate: &Certificate) -> Result<(), Error> {
        if certificate.is_issued_by(&self.certificate) {
            return Ok(());
        }
        Err(Error::Authority("its key has not made this signature"))
    }
}

impl Subject {
    /// The alternative names as they are encoded: with each address repeated as a dNSName if that was asked for.
    pub(crate) fn encoded_alt_names(&self) -> Vec<AltName> {
        let mut names = self.alt_names.clone();
        if self.address_as_dns {
            let addresses = self.alt_names.iter().filter(|n| matches!(n, AltName::Ip(_)));
            names.extend(addresses.map(|n| AltName::Dns(n.to_string())));
        }
        names
    }
}

/// From five minutes ago for `validity`, inside the life of the issuer.
fn period(now: UnixTime, validity: Duration, issuer: Option<&Certificate>) -> Result<(UnixTime, UnixTime), Error> {
    let out_of_range = Error::Validity("beyond the dates that a certificate can hold");
    let seconds = i64::try_from(validity.as_secs()).map_err(|_| out_of_range.clone())?;
    let mut from = now.0.saturating_sub(BACKDATE);
    let mut to = now.0.saturating_add(seconds).min(LAST_SECOND);
    if let Some(issuer) = issuer {
        from = from.max(issuer.not_before.0);
        to = to.min(issuer.not_after.0);
    }
    if from < to { Ok((UnixTime(from), UnixTime(to))) } else { Err(out_of_range) }
}

pub(crate) fn date(time: UnixTime) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp(time.0)
        .map_err(|_| Error::Validity("beyond the dates that a certificate can hold"))
}

/// Authority Information Access, RFC 5280 §4.2.2.1, if there is anything to say in it.
fn authority_information(urls: &RevocationUrls) -> Option<CustomExtension> {
    /// `[6]`, a uniformResourceIdentifier among the general names.
    const URI: u8 = 0x86;
    /// id-ad-ocsp and id-ad-caIssuers differ in their last arc: 1.3.6.1.5.5.7.48.1 and .2.
    const ID_AD: [u8; 7] = [0x2b, 6, 1, 5, 5, 7, 48];
    let entry = |method: u8, url: &String| {
        der::encode(SEQUENCE, &[&der::encode(der::OID, &[&ID_AD, &[method]]), &der::encode(URI, &[url.as_bytes()])])
    };
    let ocsp = urls.ocsp.as_ref().map(|u| entry(1, u));
    let issuers = urls.ca_issuers.as_ref().map(|u| entry(2, u));
    let content: Vec<u8> = ocsp.into_iter().chain(issuers).flatten().collect();
    let oid = [1, 3, 6, 1, 5, 5, 7, 1, 1];
    (!content.is_empty()).then(|| CustomExtension::from_oid_content(&oid, der::encode(SEQUENCE, &[&content])))
}

/// Stands for the authority's key while a certificate is built: rcgen gets an empty signature and the key stays shut.
pub(crate) struct Unsigned<'a> {
    pub(crate) spki: &'a PublicKey,
    pub(crate) algorithm: &'static rcgen::SignatureAlgorithm,
}

impl PublicKeyData for Unsigned<'_> {
    fn der_bytes(&self) -> &[u8] {
        use x509_parser::x509::SubjectPublicKeyInfo;
        // The subjectPublicKey bits are the end of the encoding; their length is found by reading it.
        match SubjectPublicKeyInfo::from_der(self.spki.spki_der()) {
            Ok((_, parsed)) => {
                let len = parsed.subject_public_key.data.len();
                let spki = self.spki.spki_der();
                spki.get(spki.len().saturating_sub(len)..).unwrap_or(&[])
            }
            Err(_) => &[],
        }
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for Unsigned<'_> {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(vec![0])
    }
}

/// What stands before the algorithm in a TBSCertificate: version and serialNumber (RFC 5280 §4.1).
pub(crate) const CERTIFICATE_HEAD: &[u8] = &[der::CONTEXT_0, der::INTEGER];

/// What is signed inside a certificate or a revocation list.
pub(crate) fn tbs_of(signed: &[u8]) -> Result<Vec<u8>, Error> {
    let outer = der::Der::new(signed).expect(SEQUENCE);
    let tbs = outer.and_then(|c| der::Der::new(c.content).expect(SEQUENCE));
    tbs.map(|t| t.whole.to_vec()).ok_or(Error::Crypto("the certificate could not be encoded"))
}

/// The certificate or list of what is signed: its own signature algorithm, which stands behind elements of the tags `head`,
/// then the signature (RFC 5280 §4.1.1, §5.1.1).
pub(crate) fn attach_signature(
    tbs: &[u8],
    head: &[u8],
    key: &KeyPair,
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, Error> {
    with_signature(tbs, head, &Zeroizing::new(key.sign(tbs, rng)?))
}

/// The same with a signature that was made before.
pub(crate) fn with_signature(tbs: &[u8], head: &[u8], signature: &[u8]) -> Result<Vec<u8>, Error> {
    let algorithm = || {
        let mut fields = der::Der::new(der::Der::new(tbs).expect(SEQUENCE)?.content);
        for tag in head {
            fields.expect(*tag)?;
        }
        fields.expect(SEQUENCE)
    };
    let algorithm = algorithm().ok_or(Error::Crypto("the certificate could not be encoded"))?;
    Ok(der::encode(SEQUENCE, &[tbs, algorithm.whole, &der::encode(BIT_STRING, &[&[0], signature])]))
}
