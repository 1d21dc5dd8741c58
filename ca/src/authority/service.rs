//! Certificates of the authority's own services, which no record names and nobody asks for: the responder of OCSP, the RA of SCEP.
//! The key of such a service can do nothing else.

use core::time::Duration;

use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rcgen::{KeyUsagePurpose, SerialNumber};
use ring::rand::SecureRandom;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{
    Authority, CERTIFICATE_HEAD, Unsigned, attach_signature, authority_information, date, period, tbs_of,
    with_signature,
};
use crate::name::{check_attribute, distinguished_name};
use crate::profile::CMC_RA;
use crate::{Certificate, Error, KeyAlgorithm, Lint, PublicKey, Serial, UnixTime, der, lint};

/// The longest life of a responder's certificate, which cannot be revoked (ocsp-nocheck): 31 days.
pub const MAX_OCSP_SIGNER_VALIDITY: Duration = Duration::from_secs(31 * 86_400);
/// The longest life of an RA's certificate.
pub const MAX_RA_VALIDITY: Duration = Duration::from_secs(398 * 86_400);
/// id-pkix-ocsp-nocheck, 1.3.6.1.5.5.7.48.1.5 (RFC 6960 §4.2.2.2.1).
const OCSP_NO_CHECK: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 48, 1];

/// A service of an authority's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It answers by OCSP (RFC 6960 §4.2.2.2): `id-kp-OCSPSigning` and `ocsp-nocheck`, for at most 31 days.
    OcspSigner,
    /// It is a SCEP RA (RFC 8894 §2.1.2): an RSA key, for at most 398 days.
    ScepRa,
}

/// What was recorded of a service's certificate before it is signed.
#[derive(Clone, Copy, Debug)]
pub struct RecordedService<'a> {
    /// Which service.
    pub service: Service,
    /// Its serial number.
    pub serial: &'a Serial,
    /// Its common name.
    pub name: &'a str,
    /// First and last second of its validity.
    pub period: (UnixTime, UnixTime),
    /// The kind of its key.
    pub key: KeyAlgorithm,
    /// SHA-256 of its key (SubjectPublicKeyInfo), where that is known.
    pub key_sha256: Option<&'a [u8; 32]>,
}

impl Service {
    fn extended_key_usages(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::OcspSigner => vec![ExtendedKeyUsagePurpose::OcspSigning],
            // Clients that verify with OpenSSL's PKCS7_verify (certmonger) want a certificate for mail where usages are named.
            Self::ScepRa => {
                vec![ExtendedKeyUsagePurpose::Other(CMC_RA.to_vec()), ExtendedKeyUsagePurpose::EmailProtection]
            }
        }
    }

    fn key_usages(self) -> Vec<KeyUsagePurpose> {
        match self {
            Self::OcspSigner => vec![KeyUsagePurpose::DigitalSignature],
            Self::ScepRa => vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment],
        }
    }

    /// Whether this is what was meant, and not by chance an authority's or a machine's certificate.
    fn admits(self, draft: &X509Certificate<'_>) -> Result<(), Lint> {
        let rule = |kept: bool, broken: Lint| if kept { Ok(()) } else { Err(broken) };
        let constraints = draft.basic_constraints().map_err(|_| Lint::BasicConstraints)?;
        rule(constraints.is_some_and(|c| c.critical && !c.value.ca), Lint::BasicConstraints)?;
        let usage = draft.key_usage().map_err(|_| Lint::KeyUsage)?;
        let wanted = if self == Self::OcspSigner { 1 } else { 1 | 4 };
        rule(usage.is_some_and(|u| u.critical && u.value.flags == wanted), Lint::KeyUsage)?;
        let Ok(Some(usage)) = draft.extended_key_usage() else { return Err(Lint::ExtendedKeyUsage) };
        let usage = usage.value;
        let foreign = usage.any || usage.server_auth || usage.client_auth || usage.code_signing || usage.time_stamping;
        let ocsp = self == Self::OcspSigner;
        let exact = usage.ocsp_signing == ocsp && usage.email_protection != ocsp && usage.other.is_empty() == ocsp;
        rule(exact && !foreign, Lint::ExtendedKeyUsage)?;
        rule(matches!(draft.subject_alternative_name(), Ok(None)), Lint::AltNames)
    }
}

impl Authority {
    /// Issues the certificate of an OCSP responder (RFC 6960 §4.2.2.2): `id-kp-OCSPSigning` and `ocsp-nocheck`, for at most 31 days.
    /// `name` becomes its common name.
    pub fn issue_ocsp_signer(
        &self,
        name: &str,
        key: &PublicKey,
        now: UnixTime,
        validity: Duration,
        serial: Serial,
        rng: &dyn SecureRandom,
    ) -> Result<Certificate, Error> {
        let (tbs, _) = self.prepare_service(Service::OcspSigner, name, key, now, validity, serial)?;
        Certificate::from_der(&attach_signature(&tbs, CERTIFICATE_HEAD, &self.key, rng)?)
    }

    /// Issues the certificate of a SCEP RA (RFC 8894 §2.1.2) for this RSA key, for at most 398 days. `name` becomes its common name.
    pub fn issue_scep_ra(
        &self,
        name: &str,
        key: &PublicKey,
        now: UnixTime,
        validity: Duration,
        serial: Serial,
        rng: &dyn SecureRandom,
    ) -> Result<Certificate, Error> {
        let (tbs, _) = self.prepare_service(Service::ScepRa, name, key, now, validity, serial)?;
        Certificate::from_der(&attach_signature(&tbs, CERTIFICATE_HEAD, &self.key, rng)?)
    }

    /// What will be signed for a service, a TBSCertificate in DER, and its validity; the authority's key is not touched.
    pub fn prepare_service(
        &self,
        service: Service,
        name: &str,
        key: &PublicKey,
        now: UnixTime,
        validity: Duration,
        serial: Serial,
    ) -> Result<(Vec<u8>, (UnixTime, UnixTime)), Error> {
        match service {
            Service::OcspSigner if validity > MAX_OCSP_SIGNER_VALIDITY => {
                return Err(Error::Validity("a responder's certificate lives for at most 31 days"));
            }
            Service::ScepRa if validity > MAX_RA_VALIDITY => {
                return Err(Error::Validity("an RA's certificate lives for at most 398 days"));
            }
            Service::ScepRa if !key.algorithm().is_rsa() => {
                return Err(Error::PublicKey("an RA needs an RSA key, since requests are encrypted to it"));
            }
            Service::OcspSigner | Service::ScepRa => {}
        }
        check_attribute(name, "common name of 1 to 64 printable characters")?;
        if validity.is_zero() {
            return Err(Error::Validity("it would never be valid"));
        }
        if now < self.certificate.not_before || now >= self.certificate.not_after {
            return Err(Error::AuthorityExpired);
        }
        let (not_before, not_after) = period(now, validity, Some(&self.certificate))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(self.organization.as_deref(), name);
        params.serial_number = Some(SerialNumber::from_slice(serial.as_be_bytes()));
        (params.not_before, params.not_after) = (date(not_before)?, date(not_after)?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = service.key_usages();
        params.extended_key_usages = service.extended_key_usages();
        params.use_authority_key_identifier_extension = true;
        if service == Service::OcspSigner {
            let oid: Vec<u64> = OCSP_NO_CHECK.iter().copied().chain([5]).collect();
            params.custom_extensions.push(CustomExtension::from_oid_content(&oid, der::NULL.to_vec()));
        } else {
            params.crl_distribution_points = self.urls.distribution_points(None, &serial);
            params.custom_extensions.extend(authority_information(&self.urls));
        }
        let unsigned = Unsigned { spki: &self.key.public_key(), algorithm: self.key.signature_algorithm() };
        let issuer = Issuer::from_ca_cert_der(&self.certificate.der().into(), unsigned)
            .map_err(|_| Error::Authority("its name or extensions cannot be copied"))?;
        let spki = rcgen::SubjectPublicKeyInfo::from_der(key.spki_der())
            .map_err(|_| Error::PublicKey("its encoding is not the usual one of its algorithm"))?;
        let draft =
            params.signed_by(&spki, &issuer).map_err(|_| Error::Crypto("the certificate could not be encoded"))?;
        let Ok(([], parsed)) = X509Certificate::from_der(draft.der()) else { return Err(Lint::Structure.into()) };
        service.admits(&parsed)?;
        if parsed.public_key().raw != key.spki_der() {
            return Err(Lint::PublicKey.into());
        }
        Ok((tbs_of(draft.der())?, (not_before, not_after)))
    }

    /// The signature over what [`Self::prepare_service`] made earlier, after it was held against its record.
    pub fn sign_recorded_service(
        &self,
        tbs: &[u8],
        recorded: &RecordedService<'_>,
        rng: &dyn SecureRandom,
    ) -> Result<Vec<u8>, Error> {
        let draft = with_signature(tbs, CERTIFICATE_HEAD, &[0]).map_err(|_| Lint::Structure)?;
        self.recheck_service(&draft, recorded)?;
        self.key.sign(tbs, rng)
    }

    /// The certificate of what was recorded and its signature, after both were checked again.
    pub fn check_recorded_service(
        &self,
        tbs: &[u8],
        signature: &[u8],
        recorded: &RecordedService<'_>,
    ) -> Result<Certificate, Error> {
        let certificate = Certificate::assemble(tbs, signature)?;
        self.recheck_service(certificate.der(), recorded)?;
        self.has_signed(&certificate)?;
        Ok(certificate)
    }

    /// Holds a draft against what was recorded of it, and against what such a certificate may contain.
    fn recheck_service(&self, draft: &[u8], recorded: &RecordedService<'_>) -> Result<(), Error> {
        let Ok(([], cert)) = X509Certificate::from_der(draft) else { return Err(Lint::Structure.into()) };
        let (service, key) = (recorded.service, PublicKey::from_spki_der(cert.public_key().raw)?);
        lint::check_service(&cert, recorded, &key, &self.facts)?;
        service.admits(&cert)?;
        if service == Service::ScepRa && !key.algorithm().is_rsa() {
            return Err(Lint::PublicKey.into());
        }
        Ok(())
    }
}
