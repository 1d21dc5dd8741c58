//! Revocation lists, RFC 5280 §5: what the authority has taken back, signed by it, so that anybody may carry it.
//!
//! A list that is kept from its reader is all that a hostile carrier can do; so a reader asks several, and what it has learned
//! once it keeps ([`Revocations`]): a certificate that is revoked stays revoked.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use core::time::Duration;

use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, Issuer, KeyIdMethod,
    RevokedCertParams, SerialNumber,
};
use ring::rand::SecureRandom;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::authority::{Unsigned, attach_signature, date, tbs_of};
use crate::name::same_name;
use crate::verify::is_strong_signature;
use crate::{Authority, Certificate, Error, Serial, UnixTime, pem};

/// The list with the certificates of controllers, and of nobody else (its issuing distribution point).
pub const CONTROLLERS: &str = "urn:sallyport:controllers";
/// When the next list comes at the latest. Readers here do not mind: nobody may talk them out of what they know.
const NEXT: Duration = Duration::from_secs(7 * 86_400);
/// Longest list that is read, octets.
pub const MAX_LIST_LEN: usize = 1024 * 1024;
/// Serial numbers that one reader keeps.
const MAX_SERIALS: usize = 65_536;

impl Authority {
    /// A list of these certificates, each with the time of its revocation. `scope` says which part of the authority's
    /// certificates it is about, `number` grows with each list of that part.
    pub fn revocation_list(
        &self,
        scope: &str,
        number: u64,
        revoked: &[(Serial, UnixTime)],
        now: UnixTime,
        rng: &dyn SecureRandom,
    ) -> Result<Vec<u8>, Error> {
        let revoked_certs = revoked.iter().map(|(serial, at)| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial.as_be_bytes()),
                revocation_time: date(*at)?,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: date(now)?,
            next_update: date(UnixTime(now.0.saturating_add(NEXT.as_secs() as i64)))?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: Some(CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris: vec![scope.to_owned()] },
                scope: None,
            }),
            revoked_certs: revoked_certs.collect::<Result<_, Error>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let unsigned = Unsigned { spki: &self.key().public_key(), algorithm: self.key().signature_algorithm() };
        let issuer = Issuer::from_ca_cert_der(&self.certificate().der().into(), unsigned)
            .map_err(|_| Error::Authority("its name or extensions cannot be copied"))?;
        let draft = params.signed_by(&issuer).map_err(|_| Error::Crypto("the revocation list could not be encoded"))?;
        // version, then the algorithm (RFC 5280 §5.1).
        attach_signature(&tbs_of(draft.der())?, &[crate::der::INTEGER], self.key(), rng)
    }
}

/// A list whose signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// Its number, big-endian without leading zeros.
    pub number: Serial,
    /// The revoked certificates.
    pub serials: BTreeSet<Serial>,
}

impl RevocationList {
    /// Reads a list in DER that one of these authorities (certificates in DER) has signed. Its age does not matter.
    pub fn verify(der: &[u8], authorities: &[Vec<u8>]) -> Result<Self, Error> {
        const BAD: fn(&'static str) -> Error = Error::RevocationList;
        if der.len() > MAX_LIST_LEN {
            return Err(BAD("it is too long"));
        }
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Err(BAD("it is none in DER"));
        };
        if list.signature_algorithm != list.tbs_cert_list.signature || !is_strong_signature(&list.signature_algorithm) {
            return Err(BAD("its signature is of a weak or unclear kind"));
        }
        let signed = authorities.iter().any(|authority| {
            X509Certificate::from_der(authority).is_ok_and(|(_, authority)| {
                same_name(list.issuer(), authority.subject()) && list.verify_signature(authority.public_key()).is_ok()
            })
        });
        if !signed {
            return Err(BAD("none of the trusted authorities has signed it"));
        }
        let number = list.crl_number().ok_or(BAD("it has no number"))?;
        Ok(Self {
            number: Serial::from_be_bytes(&number.to_bytes_be()),
            serials: list.iter_revoked_certificates().map(|c| Serial::from_be_bytes(c.raw_serial())).collect(),
        })
    }
}

/// What a reader has learned from lists, for as long as it runs. It only grows.
#[derive(Debug, Default)]
pub struct Revocations {
    authorities: Vec<Vec<u8>>,
    serials: RwLock<BTreeSet<Serial>>,
}

impl Revocations {
    /// Of one that trusts the authorities in a PEM text.
    pub fn trusting(authorities: &[u8]) -> Result<Self, Error> {
        Ok(Self { authorities: pem::certificates(authorities)?, serials: RwLock::default() })
    }

    /// Takes up a list; gives the certificates that were not known to be revoked.
    pub fn take(&self, der: &[u8]) -> Result<Vec<Serial>, Error> {
        let list = RevocationList::verify(der, &self.authorities)?;
        let mut known = self.serials.write().unwrap_or_else(PoisonError::into_inner);
        let mut news = Vec::new();
        for serial in list.serials {
            if known.len() < MAX_SERIALS && known.insert(serial.clone()) {
                news.push(serial);
            }
        }
        Ok(news)
    }

    /// The serial number of a certificate in DER, if it is revoked. What is no certificate counts as one without a number.
    pub fn refuses(&self, certificate: &[u8]) -> Option<Serial> {
        let known = self.serials.read().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            return None;
        }
        let serial = Certificate::from_der(certificate).map_or_else(|_| Serial::from_be_bytes(&[]), |c| c.serial);
        (serial.as_be_bytes().is_empty() || known.contains(&serial)).then_some(serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::SealKey;
    use crate::{KeyAlgorithm, KeyPair, Profile, RootConfig, Subject, SystemRandom};

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn authority(key: KeyAlgorithm) -> Authority {
        let rng = SystemRandom::new();
        let config = RootConfig { key, ..RootConfig::new("Example", "Example VPN Root") };
        Authority::create(&config, &SealKey::generate(&rng).unwrap(), NOW, &rng).unwrap().0
    }

    fn controller(authority: &Authority) -> Certificate {
        let rng = SystemRandom::new();
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
        let (subject, serial) = (Subject::new("c1.example.com", vec![]).unwrap(), Serial::generate(&rng).unwrap());
        authority.issue(Profile::Controller, &subject, &key.public_key(), NOW, serial, &rng).unwrap()
    }

    fn list(authority: &Authority, number: u64, revoked: &[&Certificate]) -> Vec<u8> {
        let revoked: Vec<_> = revoked.iter().map(|c| (c.serial.clone(), NOW)).collect();
        authority.revocation_list(CONTROLLERS, number, &revoked, NOW, &SystemRandom::new()).unwrap()
    }

    #[test]
    fn what_is_on_a_list_is_refused_and_stays_refused_whatever_list_comes_later() {
        for key in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
            let authority = authority(key);
            let (bad, good) = (controller(&authority), controller(&authority));
            let known = Revocations::trusting(authority.certificate().pem().as_bytes()).unwrap();
            assert_eq!(known.refuses(bad.der()), None);
            assert_eq!(known.take(&list(&authority, 1, &[])).unwrap(), []);
            assert_eq!(known.take(&list(&authority, 2, &[&bad])).unwrap(), std::slice::from_ref(&bad.serial));
            assert_eq!(known.take(&list(&authority, 3, &[])).unwrap(), [], "{key}");
            assert_eq!(known.refuses(bad.der()), Some(bad.serial.clone()));
            assert_eq!(known.refuses(good.der()), None);
            assert!(known.refuses(b"no certificate").is_some());
        }
    }

    #[test]
    fn a_list_that_the_authority_has_not_signed_says_nothing() {
        let (authority, other) = (authority(KeyAlgorithm::EcdsaP256), authority(KeyAlgorithm::EcdsaP256));
        let good = controller(&authority);
        let known = Revocations::trusting(authority.certificate().pem().as_bytes()).unwrap();
        // Of the same name, by another key.
        assert!(known.take(&list(&other, 9, &[&good])).is_err());
        let signed = list(&authority, 9, &[&good]);
        let serial = signed.windows(17).position(|w| w == good.serial.as_be_bytes()).unwrap();
        for at in [serial + 3, signed.len() - 1] {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert!(known.take(&changed).is_err(), "{at}");
        }
        assert!(known.take(&[]).is_err() && known.take(good.der()).is_err());
        assert!(known.take(&[signed.as_slice(), &[0]].concat()).is_err());
        assert_eq!(known.refuses(good.der()), None);
        assert_eq!(RevocationList::verify(&signed, &known.authorities).unwrap().number, Serial::from_be_bytes(&[9]));
    }
}
