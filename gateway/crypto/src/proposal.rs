//! Proposals as operators write them, for the controller that stores them and the gateway that obeys.

use crate::cbc::CbcAlg;
use crate::dh::DhGroup;
use crate::hash::HashAlg;
use crate::suite::EspSuite;

const CIPHERS: [(&str, CbcAlg); 4] =
    [("aes128", CbcAlg::Aes128), ("aes192", CbcAlg::Aes192), ("aes256", CbcAlg::Aes256), ("3des", CbcAlg::TripleDes)];

const HASHES: [(&str, HashAlg); 4] =
    [("sha1", HashAlg::Sha1), ("sha256", HashAlg::Sha256), ("sha384", HashAlg::Sha384), ("sha512", HashAlg::Sha512)];

const GROUPS: [(&str, DhGroup); 7] = [
    ("modp1024", DhGroup::Modp1024),
    ("modp1536", DhGroup::Modp1536),
    ("modp2048", DhGroup::Modp2048),
    ("modp3072", DhGroup::Modp3072),
    ("modp4096", DhGroup::Modp4096),
    ("ecp256", DhGroup::Ecp256),
    ("ecp384", DhGroup::Ecp384),
];

const SUITES: [(&str, EspSuite); 7] = [
    ("aes256gcm16", EspSuite::AES256_GCM16),
    ("aes128gcm16", EspSuite::AES128_GCM16),
    ("aes256-sha256", EspSuite::AES256_CBC_SHA256),
    ("aes128-sha256", EspSuite::AES128_CBC_SHA256),
    ("aes256-sha1", EspSuite::AES256_CBC_SHA1),
    ("aes128-sha1", EspSuite::AES128_CBC_SHA1),
    ("3des-sha1", EspSuite::TRIPLE_DES_SHA1),
];

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
}

fn names<T>(table: &[(&'static str, T)]) -> String {
    table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// A proposal for IKE's phase 1 such as `aes256-sha256-modp2048`: encryption, hash, Diffie-Hellman group.
///
/// # Errors
/// What is wrong with it, and the words that would be right.
pub fn ike(text: &str) -> Result<(CbcAlg, HashAlg, DhGroup), String> {
    let mut parts = text.split('-');
    let mut part = || parts.next().unwrap_or_default();
    let (cipher, hash, group) = (part(), part(), part());
    let none = |what: &str, word: &str, known: String| format!("{text:?}: {word:?} is no {what}; there are {known}");
    let cipher = find(&CIPHERS, cipher).ok_or_else(|| none("encryption", cipher, names(&CIPHERS)))?;
    let hash = find(&HASHES, hash).ok_or_else(|| none("hash", hash, names(&HASHES)))?;
    let group = find(&GROUPS, group).ok_or_else(|| none("Diffie-Hellman group", group, names(&GROUPS)))?;
    match parts.next() {
        None => Ok((cipher, hash, group)),
        Some(_) => Err(format!("{text:?} has more than encryption, hash and group, such as aes256-sha256-modp2048")),
    }
}

/// A proposal for ESP such as `aes256gcm16` or `aes256-sha1`.
///
/// # Errors
/// That it is none, and all there are.
pub fn esp(text: &str) -> Result<EspSuite, String> {
    find(&SUITES, text).ok_or_else(|| format!("{text:?} is no ESP proposal; there are {}", names(&SUITES)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_understood_or_named() {
        assert_eq!(ike("aes256-sha256-modp2048"), Ok((CbcAlg::Aes256, HashAlg::Sha256, DhGroup::Modp2048)));
        assert_eq!(ike("3des-sha1-modp1024"), Ok((CbcAlg::TripleDes, HashAlg::Sha1, DhGroup::Modp1024)));
        for (wrong, why) in [
            ("", "\"\" is no encryption; there are aes128"),
            ("des-sha1-modp1024", "\"des\" is no encryption"),
            ("aes256", "\"\" is no hash"),
            ("aes256-md5-modp2048", "\"md5\" is no hash"),
            ("aes256-sha1-modp768", "\"modp768\" is no Diffie-Hellman group"),
            ("aes256-sha1-modp2048-", "more than"),
        ] {
            assert!(ike(wrong).is_err_and(|e| e.contains(why)), "{wrong}: {:?}", ike(wrong));
        }
        assert_eq!(esp("aes128gcm16"), Ok(EspSuite::AES128_GCM16));
        // What `session list` prints can be written into the settings.
        for (name, suite) in SUITES {
            assert_eq!((suite.to_string().as_str(), esp(&suite.to_string())), (name, Ok(suite)));
        }
        assert!(esp("null").is_err_and(|e| e.contains("aes256-sha1")));
    }
}
