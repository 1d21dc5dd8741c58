//! An issued certificate, and the two values that name one.

use core::fmt;

use ring::rand::SecureRandom;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::{Error, UnixTime, pem};

/// The serial number of a certificate, without leading zero octets. Ours have 17 octets; those of other authorities can
/// have any length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// A random serial: an epoch octet of 1, then 128 random bits.
    pub fn generate(rng: &dyn SecureRandom) -> Result<Self, Error> {
        Self::generate_in_epoch(1, rng)
    }

    /// A random serial of another epoch (1 to 127): the epoch goes up when the authority's records were restored from a
    /// backup, so that serials of the lost records cannot come again.
    pub fn generate_in_epoch(epoch: u8, rng: &dyn SecureRandom) -> Result<Self, Error> {
        if !(1..=127).contains(&epoch) {
            return Err(Error::Crypto("the epoch of a serial is 1 to 127"));
        }
        let mut octets = vec![0; 17];
        rng.fill(&mut octets).map_err(|_| Error::Crypto("the random source failed"))?;
        if let Some(first) = octets.first_mut() {
            *first = epoch;
        }
        Ok(Self(octets))
    }

    /// The serial of these big-endian octets, which need not come from this authority.
    pub fn from_be_bytes(octets: &[u8]) -> Self {
        let zeros = octets.iter().take_while(|b| **b == 0).count();
        Self(octets.get(zeros..).unwrap_or_default().to_vec())
    }

    /// The big-endian octets.
    pub fn as_be_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("00");
        }
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::str::FromStr for Serial {
    type Err = Error;

    /// Reads hexadecimal digits, with or without colons.
    fn from_str(s: &str) -> Result<Self, Error> {
        let digits: Option<Vec<u8>> =
            s.chars().filter(|c| *c != ':').map(|c| c.to_digit(16).map(|d| d as u8)).collect();
        let digits = digits.filter(|d| (1..=128).contains(&d.len())).ok_or(Error::Request("not a serial number"))?;
        let (odd, pairs) = digits.split_at(digits.len() % 2);
        let mut octets = odd.to_vec();
        octets.extend(pairs.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low));
        Ok(Self::from_be_bytes(&octets))
    }
}

/// The SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(der: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, der).as_ref());
        Self(out)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A certificate with the facts that a record of it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub(crate) der: Vec<u8>,
    /// The serial number.
    pub serial: Serial,
    /// The subject as text, for people: see [`crate::text_of_name`].
    pub subject: String,
    /// First second of its validity.
    pub not_before: UnixTime,
    /// Last second of its validity.
    pub not_after: UnixTime,
    /// SHA-256 of the DER form.
    pub fingerprint: Fingerprint,
}

impl Certificate {
    /// Reads a certificate in DER; nothing is verified.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let Ok(([], parsed)) = X509Certificate::from_der(der) else {
            return Err(Error::Authority("not an X.509 certificate in DER"));
        };
        Ok(Self {
            der: der.to_vec(),
            serial: Serial::from_be_bytes(parsed.raw_serial()),
            subject: crate::name::text(parsed.subject()),
            not_before: UnixTime(parsed.validity().not_before.timestamp()),
            not_after: UnixTime(parsed.validity().not_after.timestamp()),
            fingerprint: Fingerprint::of(der),
        })
    }

    /// The certificate of what was signed and its signature (RFC 5280 §4.1.1). The signature is not checked.
    pub fn assemble(tbs: &[u8], signature: &[u8]) -> Result<Self, Error> {
        Self::from_der(&crate::authority::with_signature(tbs, crate::authority::CERTIFICATE_HEAD, signature)?)
    }

    /// Whether its subject alternative names hold this DNS name (RFC 5280 §4.2.1.6).
    pub fn names_host(&self, host: &str) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(&self.der) else { return false };
        let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
        names
            .value
            .general_names
            .iter()
            .any(|n| matches!(n, x509_parser::extensions::GeneralName::DNSName(n) if n.eq_ignore_ascii_case(host)))
    }

    /// Reads the first `CERTIFICATE` block of a PEM text; nothing is verified.
    pub fn from_pem(text: &[u8]) -> Result<Self, Error> {
        let list = pem::certificates(text)?;
        list.first().map_or(Err(Error::Pem("CERTIFICATE")), |der| Self::from_der(der))
    }

    /// The addresses of the list on which it would stand if it were revoked: its CRL distribution points (RFC 5280 §4.2.1.13).
    pub fn list_addresses(&self) -> Vec<String> {
        let Ok((_, certificate)) = X509Certificate::from_der(&self.der) else { return Vec::new() };
        let points = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::CRLDistributionPoints(points) => Some(points),
            _ => None,
        });
        let names =
            points.into_iter().flat_map(|points| &points.points).filter_map(|point| match &point.distribution_point {
                Some(DistributionPointName::FullName(names)) => Some(names),
                _ => None,
            });
        names
            .flatten()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some((*uri).to_owned()),
                _ => None,
            })
            .collect()
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate in PEM.
    pub fn pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der).to_string()
    }

    /// The subject's distinguished name in DER: what an ID payload of type ID_DER_ASN1_DN and a CERTREQ hold.
    pub fn subject_der(&self) -> Vec<u8> {
        match X509Certificate::from_der(&self.der) {
            Ok((_, parsed)) => parsed.subject().as_raw().to_vec(),
            Err(_) => Vec::new(),
        }
    }

    /// The SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> Vec<u8> {
        match X509Certificate::from_der(&self.der) {
            Ok((_, parsed)) => parsed.public_key().raw.to_vec(),
            Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_positive_unique_and_read_back_from_text() {
        let rng = ring::rand::SystemRandom::new();
        let (a, b) = (Serial::generate(&rng).unwrap(), Serial::generate_in_epoch(127, &rng).unwrap());
        assert_ne!(a, b);
        assert_eq!((a.as_be_bytes().len(), a.as_be_bytes()[0], b.as_be_bytes()[0]), (17, 1, 127));
        assert_eq!(a.to_string().parse::<Serial>().unwrap(), a);
        assert_eq!("1:02".parse::<Serial>().unwrap(), Serial::from_be_bytes(&[0, 1, 2]));
        assert_eq!(Serial::from_be_bytes(&[0]).to_string(), "00");
        assert!("".parse::<Serial>().is_err() && "xy".parse::<Serial>().is_err());
        assert!(Serial::generate_in_epoch(0, &rng).is_err());
    }
}
