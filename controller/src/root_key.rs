//! The root's private key outside the cluster: a file that a passphrase opens, or a file and `n` shares of which any `k` open it.
//!
//! ```text
//! | "SPROOT1\n" | holder (1) | length (4) | certificate | KiB, passes, lanes (4 each), salt (16): with a passphrase | sealed PKCS #8 |
//! ```
//!
//! The key is sealed under one that is derived from the passphrase (Argon2id), or that is shared: so a share is a line of one
//! length, whatever the root's key is. What stands before the sealed key is bound to it.

use ring::rand::SecureRandom;
use sallyport_ca::seal::{Purpose, SealKey, Sealed};
use sallyport_ca::shares::{self, Share};
use sallyport_ca::{Certificate, KeyPair};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::seal::passphrase::{self, Costs, SALT, SHORTEST};

pub use crate::authority::root::erasure_proof;

const MAGIC: &[u8; 8] = b"SPROOT1\n";
const PURPOSE: Purpose = Purpose::new("exported root key");
/// Longest file that is read, bytes.
pub const MAX_FILE: usize = 64 * 1024;

const PASSPHRASE: u8 = 1;
const SHARES: u8 = 2;

/// A root's certificate and private key. Wiped when dropped, never printed.
pub struct RootKey {
    certificate: Certificate,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootKey").field("certificate", &self.certificate.fingerprint).finish_non_exhaustive()
    }
}

/// What opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A passphrase.
    Passphrase,
    /// Shares.
    Shares,
}

/// A file with a root's key, which is still sealed.
#[derive(Clone, Debug)]
pub struct Exported {
    certificate: Certificate,
    holder: Holder,
    costs: Option<(Costs, [u8; SALT])>,
    head: Vec<u8>,
    sealed: Sealed,
}

impl RootKey {
    /// A certificate (DER) and its key (PKCS #8 DER), which must fit.
    pub fn new(certificate: &[u8], pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, Error> {
        let certificate = Certificate::from_der(certificate).map_err(|e| Error::Refused(e.to_string()))?;
        let key = KeyPair::from_pkcs8_der(&pkcs8).map_err(|e| Error::Refused(e.to_string()))?;
        if key.public_key().spki_der() != certificate.spki_der() {
            return Err(Error::Refused("the private key is not that of the root's certificate".into()));
        }
        Ok(Self { certificate, pkcs8 })
    }

    /// The certificate.
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The key, PKCS #8 DER.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Shows the cluster of this id that this key is in other hands, so that it may be erased there.
    pub fn prove_kept(&self, cluster_id: &[u8], rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        let key = KeyPair::from_pkcs8_der(&self.pkcs8).map_err(|e| Error::Refused(e.to_string()))?;
        let signed = key.sign(&erasure_proof(cluster_id, self.certificate.der()), rng);
        signed.map_err(|e| Error::Internal(e.to_string()))
    }

    /// A file that a passphrase opens.
    pub fn to_passphrase(&self, passphrase: &[u8], rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        self.to_passphrase_at(Costs::RECOMMENDED, passphrase, rng)
    }

    fn to_passphrase_at(&self, costs: Costs, passphrase: &[u8], rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        if passphrase.len() < SHORTEST {
            return Err(Error::Refused(format!(
                "the passphrase has {} bytes; give at least {SHORTEST}, for whoever gets the file may guess without end",
                passphrase.len()
            )));
        }
        let mut salt = [0; SALT];
        rng.fill(&mut salt).map_err(|_| Error::Internal("the system gives no random bytes".into()))?;
        let mut head = self.head(PASSPHRASE);
        for cost in [costs.memory_kib, costs.passes, costs.lanes] {
            head.extend_from_slice(&cost.to_be_bytes());
        }
        head.extend_from_slice(&salt);
        let key = passphrase::derive(costs, &salt, passphrase);
        let key = key.ok_or_else(|| Error::Internal("the usual costs of a passphrase are refused".into()))?;
        self.seal(head, &SealKey::from_bytes(&key), rng)
    }

    /// A file and `n` shares, any `k` of which open it.
    pub fn to_shares(&self, k: u8, n: u8, rng: &dyn SecureRandom) -> Result<(Vec<u8>, Vec<Share>), Error> {
        let key = SealKey::generate(rng).map_err(|e| Error::Internal(e.to_string()))?;
        let made = shares::split(&*key.to_bytes(), k, n, rng).map_err(|e| Error::Refused(e.to_string()))?;
        Ok((self.seal(self.head(SHARES), &key, rng)?, made))
    }

    fn head(&self, holder: u8) -> Vec<u8> {
        let der = self.certificate.der();
        let mut head = MAGIC.to_vec();
        head.push(holder);
        head.extend_from_slice(&u32::try_from(der.len()).unwrap_or(u32::MAX).to_be_bytes());
        head.extend_from_slice(der);
        head
    }

    fn seal(&self, mut head: Vec<u8>, key: &SealKey, rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        let sealed = key.seal(PURPOSE, &[&head], &self.pkcs8, rng).map_err(|e| Error::Internal(e.to_string()))?;
        head.extend_from_slice(sealed.as_bytes());
        Ok(head)
    }
}

impl Exported {
    /// Reads a file; nothing is opened yet.
    pub fn parse(file: &[u8]) -> Result<Self, Error> {
        let none = || Error::Refused("this is no file that `sallyport ca root export` made, or it is damaged".into());
        if file.len() > MAX_FILE {
            return Err(none());
        }
        let rest = file.strip_prefix(MAGIC).ok_or_else(none)?;
        let (&[holder], rest) = rest.split_first_chunk().ok_or_else(none)?;
        let (length, rest) = rest.split_first_chunk().ok_or_else(none)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| none())?;
        let (certificate, mut rest) = rest.split_at_checked(length).ok_or_else(none)?;
        let certificate = Certificate::from_der(certificate).map_err(|_| none())?;
        let (holder, costs) = match holder {
            PASSPHRASE => {
                let (costs, after) = rest.split_first_chunk::<12>().ok_or_else(none)?;
                let (salt, after) = after.split_first_chunk::<SALT>().ok_or_else(none)?;
                rest = after;
                let [memory_kib, passes, lanes] = [0, 4, 8].map(|at| {
                    let four = costs.get(at..at + 4).and_then(|c| c.first_chunk().copied());
                    u32::from_be_bytes(four.unwrap_or_default())
                });
                (Holder::Passphrase, Some((Costs { memory_kib, passes, lanes }, *salt)))
            }
            SHARES => (Holder::Shares, None),
            _ => return Err(none()),
        };
        let head = file.get(..file.len() - rest.len()).ok_or_else(none)?.to_vec();
        Ok(Self { certificate, holder, costs, head, sealed: Sealed::from_bytes(rest.to_vec()) })
    }

    /// Whose key it is.
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// What opens it.
    pub const fn holder(&self) -> Holder {
        self.holder
    }

    /// Opens it with its passphrase.
    pub fn open_with_passphrase(&self, passphrase: &[u8]) -> Result<RootKey, Error> {
        let Some((costs, salt)) = self.costs else {
            return Err(Error::Refused("shares open this file, not a passphrase".into()));
        };
        let key = passphrase::derive(costs, &salt, passphrase)
            .ok_or_else(|| Error::Refused("this file asks for unreasonable work; it is damaged, or not ours".into()))?;
        self.open(&SealKey::from_bytes(&key), "the passphrase is wrong, or the file was altered")
    }

    /// Opens it with shares.
    pub fn open_with_shares(&self, given: &[Share]) -> Result<RootKey, Error> {
        if self.holder != Holder::Shares {
            return Err(Error::Refused("a passphrase opens this file, not shares".into()));
        }
        let key = shares::combine(given).map_err(|e| Error::Refused(e.to_string()))?;
        let key: &[u8; 32] =
            key.as_slice().try_into().map_err(|_| Error::Refused("these shares are of something else".into()))?;
        self.open(&SealKey::from_bytes(key), "these shares are of another export, or the file was altered")
    }

    fn open(&self, key: &SealKey, wrong: &str) -> Result<RootKey, Error> {
        let pkcs8 = key.open(PURPOSE, &[&self.head], &self.sealed).map_err(|_| Error::Refused(wrong.into()))?;
        RootKey::new(self.certificate.der(), pkcs8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use sallyport_ca::{Authority, RootConfig, UnixTime};

    use super::*;

    const CHEAP: Costs = Costs { memory_kib: 64, passes: 1, lanes: 1 };

    fn root() -> RootKey {
        let (rng, seal, now) = (SystemRandom::new(), SealKey::from_bytes(&[7; 32]), UnixTime(1_800_000_000));
        let (authority, sealed) = Authority::create(&RootConfig::new("O", "Root"), &seal, now, &rng).expect("a root");
        let place = authority.certificate().fingerprint.0;
        let pkcs8 = seal.open(Purpose::CA_KEY, &[&place], &sealed).expect("opens");
        RootKey::new(authority.certificate().der(), pkcs8).expect("fits")
    }

    #[test]
    fn a_passphrase_opens_what_it_closed_and_nothing_that_was_altered() {
        let (root, rng) = (root(), SystemRandom::new());
        let file = root.to_passphrase_at(CHEAP, b"correct horse battery", &rng).expect("writes");
        assert!(!file.windows(32).any(|w| w == &root.pkcs8()[36..68]), "the key is in it in the clear");
        let exported = Exported::parse(&file).expect("reads");
        assert_eq!((exported.holder(), exported.certificate()), (Holder::Passphrase, root.certificate()));
        let opened = exported.open_with_passphrase(b"correct horse battery").expect("opens");
        assert_eq!(opened.pkcs8(), root.pkcs8());
        assert!(exported.open_with_passphrase(b"wrong horse battery").is_err());
        assert!(exported.open_with_shares(&[]).expect_err("refused").to_string().contains("passphrase"));
        assert!(root.to_passphrase_at(CHEAP, b"short", &rng).expect_err("refused").to_string().contains("at least 12"));
        for at in (0..file.len()).step_by(7) {
            let mut altered = file.clone();
            altered[at] ^= 1;
            // What asks for more memory than that is refused unpaid; the rest costs little.
            let opened = Exported::parse(&altered).and_then(|e| e.open_with_passphrase(b"correct horse battery"));
            assert!(opened.is_err(), "byte {at}");
        }
    }

    #[test]
    fn any_two_of_three_shares_open_it_and_shares_of_another_export_do_not() {
        let (root, rng) = (root(), SystemRandom::new());
        let (file, all) = root.to_shares(2, 3, &rng).expect("shares");
        let (_, others) = root.to_shares(2, 3, &rng).expect("shares");
        let exported = Exported::parse(&file).expect("reads");
        for two in [[0, 1], [2, 0], [1, 2]] {
            let given = two.map(|at: usize| all[at].clone());
            assert_eq!(exported.open_with_shares(&given).expect("opens").pkcs8(), root.pkcs8());
        }
        assert!(exported.open_with_shares(&all[..1]).is_err());
        assert!(exported.open_with_shares(&others).expect_err("refused").to_string().contains("another export"));
        assert!(exported.open_with_passphrase(b"correct horse battery").is_err());
        assert!(root.to_shares(1, 3, &rng).is_err());
    }

    #[test]
    fn a_key_that_is_not_the_certificates_is_refused() {
        let (root, other) = (root(), root());
        let refused = RootKey::new(root.certificate().der(), Zeroizing::new(other.pkcs8().to_vec()));
        assert!(refused.expect_err("refused").to_string().contains("not that of the root"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_root(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Exported::parse(&bytes).is_err());
            let mut after = MAGIC.to_vec();
            after.extend(bytes);
            prop_assert!(Exported::parse(&after).is_err());
        }
    }
}
