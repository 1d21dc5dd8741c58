//! Authorities below a root: they do the daily work, so that the root's key can be away.

use core::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose, SerialNumber};
use ring::rand::SecureRandom;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{
    Authority, CERTIFICATE_HEAD, MAX_ROOT_VALIDITY, Unsigned, attach_signature, authority_information, date, period,
    tbs_of,
};
use crate::name::{check_attribute, distinguished_name, same_name};
use crate::seal::{SealKey, Sealed};
use crate::verify::{MAX_PATH, is_framed_as_signed, is_strong_signature};
use crate::{Certificate, Error, KeyAlgorithm, KeyPair, NameConstraints, PublicKey, Serial, UnixTime, lint};

/// How long an issuing authority lives unless the configuration says otherwise: five years.
pub const DEFAULT_ISSUING_VALIDITY: Duration = Duration::from_secs(1825 * 86_400);

/// What a new issuing authority is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuingConfig {
    /// Its common name: another one for each, for two of one name are told apart by their keys only.
    pub common_name: String,
    /// The kind of its key.
    pub key: KeyAlgorithm,
    /// How long it lives; never longer than the root.
    pub validity: Duration,
    /// Which names it may certify; empty for all.
    pub constraints: NameConstraints,
}

impl IssuingConfig {
    /// An authority with such a key that lives for five years.
    pub fn new(common_name: &str, key: KeyAlgorithm) -> Self {
        let (validity, constraints) = (DEFAULT_ISSUING_VALIDITY, NameConstraints::default());
        Self { common_name: common_name.to_owned(), key, validity, constraints }
    }
}

impl Authority {
    /// Makes an authority below `root` that issues certificates and revocation lists, and none below itself; and its private
    /// key sealed for storage, bound to its certificate. Its life is cut to the root's.
    pub fn create_issuing(
        root: &Self,
        config: &IssuingConfig,
        seal_key: &SealKey,
        now: UnixTime,
        rng: &dyn SecureRandom,
    ) -> Result<(Self, Sealed), Error> {
        let key = KeyPair::generate(config.key, rng)?;
        let certificate = root.certify_issuing(config, &key.public_key(), now, rng)?;
        let mut authority = Self::from_parts(key, certificate.der())?;
        authority.set_issuers(root.chain().cloned().collect())?;
        let sealed = authority.seal(seal_key, rng)?;
        Ok((authority, sealed))
    }

    /// The certificate of an issuing authority for a key that is elsewhere.
    pub fn certify_issuing(
        &self,
        config: &IssuingConfig,
        key: &PublicKey,
        now: UnixTime,
        rng: &dyn SecureRandom,
    ) -> Result<Certificate, Error> {
        check_attribute(&config.common_name, "common name of 1 to 64 printable characters")?;
        if config.validity.is_zero() || config.validity > MAX_ROOT_VALIDITY {
            return Err(Error::Validity("an issuing authority lives for at most 30 years"));
        }
        if now < self.certificate.not_before || now >= self.certificate.not_after {
            return Err(Error::AuthorityExpired);
        }
        let (not_before, not_after) = period(now, config.validity, Some(&self.certificate))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(self.organization.as_deref(), &config.common_name);
        let serial = Serial::generate(rng)?;
        params.serial_number = Some(SerialNumber::from_slice(serial.as_be_bytes()));
        (params.not_before, params.not_after) = (date(not_before)?, date(not_after)?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = config.constraints.encoded();
        params.use_authority_key_identifier_extension = true;
        params.crl_distribution_points = self.urls.distribution_points(None, &serial);
        params.custom_extensions.extend(authority_information(&self.urls));

        let unsigned = Unsigned { spki: &self.key.public_key(), algorithm: self.key.signature_algorithm() };
        let issuer = rcgen::Issuer::from_ca_cert_der(&self.certificate.der().into(), unsigned)
            .map_err(|_| Error::Authority("its name or extensions cannot be copied"))?;
        let spki = rcgen::SubjectPublicKeyInfo::from_der(key.spki_der())
            .map_err(|_| Error::PublicKey("its encoding is not the usual one of its algorithm"))?;
        let draft =
            params.signed_by(&spki, &issuer).map_err(|_| Error::Crypto("the certificate could not be encoded"))?;
        lint::check_issuing(draft.der(), config, key, &self.facts)?;
        let der = attach_signature(&tbs_of(draft.der())?, CERTIFICATE_HEAD, &self.key, rng)?;
        Certificate::from_der(&der)
    }

    /// Which names it may certify.
    pub const fn name_constraints(&self) -> &NameConstraints {
        &self.constraints
    }

    /// Says who issued this authority's certificate, and so on up to the root, which is the last. Each must have signed the
    /// one before.
    pub fn set_issuers(&mut self, issuers: Vec<Certificate>) -> Result<(), Error> {
        // Below all of them stands what this authority issues.
        if issuers.len() + 2 > MAX_PATH {
            return Err(Error::Authority("there are too many authorities above it"));
        }
        let mut below = &self.certificate;
        for issuer in &issuers {
            if !below.is_issued_by(issuer) {
                return Err(Error::Authority("what was given as its issuer has not signed it"));
            }
            below = issuer;
        }
        self.issuers = issuers;
        Ok(())
    }

    /// This authority's certificate, those above it and the root: what follows the certificates that it issues.
    pub fn chain(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.certificate).chain(&self.issuers)
    }
}

impl Certificate {
    /// Whether the key of `issuer` signed this certificate and the names fit. Dates and usages do not matter.
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        let (Ok((_, own)), Ok((_, above))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&issuer.der))
        else {
            return false;
        };
        same_name(own.issuer(), above.subject())
            && is_strong_signature(&own.signature_algorithm)
            && is_framed_as_signed(&self.der)
            && own.signature_value.unused_bits == 0
            && own.verify_signature(Some(above.public_key())).is_ok()
    }
}
