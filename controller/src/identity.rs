//! Folders with a key and a certificate: the operator's, the controller's, a gateway's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sallyport_ca::{Certificate, KeyAlgorithm, Profile, pem};
use zeroize::Zeroizing;

use crate::app::Core;
use crate::authority::{self, IssueRequest};
use crate::error::Error;
use crate::files;
use crate::own_key::OwnKey;

/// Name in the certificate of a controller's own operator's folder.
pub(crate) const OPERATOR: &str = "operator";

/// The operator's folder: `cert.pem`, `key.pem`, `ca.pem`. It is this controller's: whoever takes away the machine has it, too,
/// and so it loses its use when the member is removed.
pub(crate) async fn operator(core: &Arc<Core>, dir: &Path) -> Result<(), Error> {
    files::private_dir(dir)?;
    let request = IssueRequest {
        profile: Profile::Operator,
        name: OPERATOR.into(),
        sans: Vec::new(),
        key: KeyAlgorithm::EcdsaP256,
        days: 0,
    };
    pair(core, request, core.node.id(), &dir.join("cert.pem"), &KeyPlace::File(dir.join("key.pem"))).await?;
    write_if_other(&dir.join("ca.pem"), core.roots_pem().as_bytes())
}

/// A gateway's folder.
pub(crate) async fn gateway(core: &Arc<Core>, name: &str, public_names: &[String], dir: &Path) -> Result<(), Error> {
    // What operators set takes the place of what the gateway's configuration says.
    let set = core.node.shared().read().names_set_for(name);
    let public_names = if set.is_empty() { public_names } else { &set };
    let Some((first, others)) = public_names.split_first() else {
        return Err(Error::Refused("a gateway needs at least one public name or address that clients dial".into()));
    };
    files::private_dir(dir)?;
    let link = IssueRequest {
        profile: Profile::GatewayLink,
        name: name.into(),
        sans: Vec::new(),
        key: KeyAlgorithm::EcdsaP256,
        days: 0,
    };
    pair(core, link, 0, &dir.join("grpc.pem"), &KeyPlace::File(dir.join("grpc.key"))).await?;
    for (key, file) in [(KeyAlgorithm::Rsa2048, "ike-rsa"), (KeyAlgorithm::EcdsaP256, "ike-ecdsa")] {
        let sans = others.to_vec();
        let request = IssueRequest { profile: Profile::Gateway, name: first.clone(), sans, key, days: 0 };
        let key = KeyPlace::File(dir.join(format!("{file}.key")));
        pair(core, request, 0, &dir.join(format!("{file}.pem")), &key).await?;
    }
    write_if_other(&dir.join("ca.pem"), core.roots_pem().as_bytes())
}

/// Where a private key is kept.
pub(crate) enum KeyPlace<'a> {
    /// In a file of mode 0600.
    File(PathBuf),
    /// This controller's own.
    Own(OwnKey<'a>),
}

impl KeyPlace<'_> {
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        match self {
            Self::File(path) => files::read_private(path),
            Self::Own(key) => key.read(),
        }
    }

    fn write(&self, key: &[u8]) -> Result<(), Error> {
        match self {
            Self::File(path) => files::write_private(path, key),
            Self::Own(own) => own.write(key),
        }
    }
}

/// Sees that two files hold a certificate as asked for and its key; makes both anew where they do not. They go with the
/// controller `member`, or with none if that is 0.
pub(crate) async fn pair(
    core: &Arc<Core>,
    request: IssueRequest,
    member: u64,
    cert: &Path,
    key: &KeyPlace<'_>,
) -> Result<(), Error> {
    finish_pair(cert, key)?;
    if is_good(core, &request, cert, key)? {
        return Ok(());
    }
    let issued = match authority::issue_to(core, request, member).await {
        // An operator's rule that does not fit this controller is no reason to stop it while it has a certificate.
        Err(Error::Refused(why)) if is_in_force(core, cert)? => {
            tracing::warn!(path = %cert.display(), %why, "a certificate should be renewed, and its profile does not allow it");
            return Ok(());
        }
        issued => issued?,
    };
    begin_pair(&issued.chain_pem(), &pem::encode("PRIVATE KEY", &issued.private_key), cert, key)?;
    finish_pair(cert, key)
}

/// Writes a new certificate beside the one in force, then its key in place of the other: from then on the new pair is the one in force,
/// whatever [`finish_pair`] has yet to do.
fn begin_pair(chain: &str, private: &str, cert: &Path, key: &KeyPlace<'_>) -> Result<(), Error> {
    files::write_private(&next_to(cert), chain.as_bytes())?;
    key.write(private.as_bytes())
}

fn next_to(cert: &Path) -> PathBuf {
    cert.with_extension("next")
}

/// Puts a new certificate in place of the one before, if its key is the one in force: what a crash left undone, too.
pub(crate) fn finish_pair(cert: &Path, key: &KeyPlace<'_>) -> Result<(), Error> {
    let next = next_to(cert);
    let Some(chain) = files::read_public(&next)? else { return Ok(()) };
    let key = key.read()?.and_then(|text| sallyport_ca::KeyPair::from_pem(&text).ok());
    let of_key = Certificate::from_pem(&chain).ok().zip(key);
    if of_key.is_some_and(|(certificate, key)| certificate.spki_der() == key.public_key().spki_der()) {
        return files::rename(&next, cert);
    }
    files::remove(&next)
}

/// Whether the files hold what a request would give, good for more than a third of its life.
fn is_good(core: &Core, request: &IssueRequest, cert: &Path, key: &KeyPlace<'_>) -> Result<bool, Error> {
    let (Some(cert), Some(key)) = (files::read_public(cert)?, key.read()?) else { return Ok(false) };
    let Ok(certificate) = Certificate::from_pem(&cert) else { return Ok(false) };
    let Ok(key) = sallyport_ca::KeyPair::from_pem(&key) else { return Ok(false) };
    if certificate.spki_der() != key.public_key().spki_der() {
        return Ok(false);
    }
    let now_ms = core.now_ms();
    let state = core.node.shared().read();
    let Some(record) = state.certificates.get(&certificate.serial.to_string()) else { return Ok(false) };
    // Below a root that another one follows: as soon as that one issues, this is made anew.
    let root = state.issuers.get(&record.issuer).map(|issuer| issuer.root);
    if root.is_some_and(|root| root != state.root_number()) {
        return Ok(false);
    }
    let life = record.not_after_ms.saturating_sub(record.not_before_ms);
    let as_asked = record.name == request.name
        && request.sans.iter().all(|san| record.sans.contains(&san.to_ascii_lowercase()))
        && record.fingerprint == certificate.fingerprint.0;
    Ok(as_asked && record.revoked_ms == 0 && now_ms.saturating_add(life / 3) < record.not_after_ms)
}

/// Whether the file holds a certificate of the records that is good at this moment.
fn is_in_force(core: &Core, cert: &Path) -> Result<bool, Error> {
    let Some(certificate) = files::read_public(cert)?.and_then(|pem| Certificate::from_pem(&pem).ok()) else {
        return Ok(false);
    };
    let now_ms = core.now_ms();
    let state = core.node.shared().read();
    let record = state.certificates.get(&certificate.serial.to_string());
    Ok(record
        .is_some_and(|r| r.fingerprint == certificate.fingerprint.0 && r.revoked_ms == 0 && now_ms < r.not_after_ms))
}

pub(crate) fn write_if_other(path: &Path, contents: &[u8]) -> Result<(), Error> {
    match files::read_public(path)? {
        Some(present) if present == contents => Ok(()),
        _ => files::write_private(path, contents),
    }
}

#[cfg(test)]
mod tests {
    use sallyport_ca::seal::SealKey;
    use sallyport_ca::{Authority, KeyPair, RootConfig, Serial, Subject, SystemRandom, UnixTime};

    use super::*;

    #[test]
    fn a_crash_at_any_step_leaves_a_certificate_with_its_key() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (cert, path) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let place = KeyPlace::File(path.clone());
        let rng = SystemRandom::new();
        let seal = SealKey::generate(&rng).expect("a key");
        let config = RootConfig::new("Example", "Example Root");
        let (authority, _) = Authority::create(&config, &seal, UnixTime(0), &rng).expect("a root");
        let make = || {
            let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
            let (subject, serial) =
                (Subject::new("x", Vec::new()).expect("a name"), Serial::generate(&rng).expect("a number"));
            let made = authority.issue(Profile::Operator, &subject, &key.public_key(), UnixTime(1), serial, &rng);
            (made.expect("issues").pem(), key.pkcs8_pem())
        };
        let in_force = || {
            finish_pair(&cert, &place).expect("finishes");
            let text = files::read_public(&cert).expect("reads").expect("there");
            let key = KeyPair::from_pem(&place.read().expect("reads").expect("there")).expect("a key");
            let certificate = Certificate::from_pem(&text).expect("a certificate");
            assert_eq!(certificate.spki_der(), key.public_key().spki_der());
            String::from_utf8(text).expect("text")
        };
        let (old, new) = (make(), make());
        begin_pair(&old.0, &old.1, &cert, &place).expect("writes");
        assert_eq!(in_force(), old.0);
        // Cut short after the certificate was written, and before its key was.
        files::write_private(&next_to(&cert), new.0.as_bytes()).expect("writes");
        assert_eq!(in_force(), old.0);
        assert!(!next_to(&cert).exists());
        // Cut short after both, and before the certificate took its place.
        begin_pair(&new.0, &new.1, &cert, &place).expect("writes");
        assert_eq!(in_force(), new.0);
        assert_eq!(in_force(), new.0, "again");
    }
}
