//! Folders with a key and a certificate: the operator's, the controller's, a gateway's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sallyport_ca::{Certificate, KeyAlgorithm, Profile, pem};
use zeroize::Zeroizing;

use crate::app::Core;
use crate::authority::{self, IssueRequest, Owner};
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
    let owner = Owner { member: core.node.id(), ..Owner::default() };
    pair(core, request, owner, &dir.join("cert.pem"), &KeyPlace::File(dir.join("key.pem"))).await?;
    write_if_other(&dir.join("ca.pem"), core.roots_pem().as_bytes())
}

/// How often a lock is asked for, and the pause between: ten seconds.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

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
    pair(core, link, Owner::default(), &dir.join("grpc.pem"), &KeyPlace::File(dir.join("grpc.key"))).await?;
    for (key, file) in [(KeyAlgorithm::Rsa2048, "ike-rsa"), (KeyAlgorithm::EcdsaP256, "ike-ecdsa")] {
        let sans = others.to_vec();
        let request = IssueRequest { profile: Profile::Gateway, name: first.clone(), sans, key, days: 0 };
        let key = KeyPlace::File(dir.join(format!("{file}.key")));
        pair(core, request, Owner::gateway(core, name), &dir.join(format!("{file}.pem")), &key).await?;
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

/// Sees that two files hold a certificate as asked for and its key; makes both anew where they do not.
pub(crate) async fn pair(
    core: &Arc<Core>,
    request: IssueRequest,
    owner: Owner<'_>,
    cert: &Path,
    key: &KeyPlace<'_>,
) -> Result<(), Error> {
    // An operator renews his folder by himself, too.
    let shared = owner.member != 0 && matches!(key, KeyPlace::File(_));
    {
        let _lock = shared.then(|| lock(cert));
        finish_pair(cert, key)?;
        if is_good(core, &request, cert, key)? {
            return Ok(());
        }
    }
    let issued = match authority::issue_to(core, request, owner).await {
        // An operator's rule that does not fit this controller is no reason to stop it while it has a certificate.
        Err(Error::Refused(why)) if is_in_force(core, cert)? => {
            tracing::warn!(path = %cert.display(), %why, "a certificate should be renewed, and its profile does not allow it");
            return Ok(());
        }
        issued => issued?,
    };
    let _lock = shared.then(|| lock(cert));
    begin_pair(&issued.chain_pem(), &pem::encode("PRIVATE KEY", &issued.private_key), cert, key)?;
    finish_pair(cert, key)
}

/// Waits until nobody else changes this pair, `sallyport cert renew` for example: between its two files each would take the other's
/// half for a crash's. Only the files of one moment are behind it, so whoever has it for longer has forgotten it.
fn lock(cert: &Path) -> Option<std::fs::File> {
    let file =
        std::fs::File::options().create(true).truncate(false).write(true).open(cert.with_extension("lock")).ok()?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(std::fs::TryLockError::Error(_)) => break,
        }
    }
    tracing::warn!(path = %cert.display(), "somebody holds the lock of this certificate; going on without");
    None
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
    // The same below an authority that issues no more: its key may be in other hands, and soon nobody believes what is below it.
    let retired = state.issuers.get(&record.issuer).is_some_and(|issuer| !issuer.in_force());
    if retired || root.is_some_and(|root| root != state.root_number()) {
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

    #[test]
    fn whoever_renews_the_same_folder_at_the_same_time_is_waited_for() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (cert, place) = (dir.path().join("cert.pem"), KeyPlace::File(dir.path().join("key.pem")));
        let rng = SystemRandom::new();
        let make = || {
            let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
            let chain = key.self_signed("x", UnixTime(1), Duration::from_secs(60), &rng).expect("a certificate");
            (pem::encode("CERTIFICATE", &chain).to_string(), key.pkcs8_pem())
        };
        let (old, new) = (make(), make());
        begin_pair(&old.0, &old.1, &cert, &place).expect("writes");
        finish_pair(&cert, &place).expect("finishes");
        // `cert renew` is between its two files when the controller looks.
        let held = lock(&cert).expect("nobody has it");
        files::write_private(&next_to(&cert), new.0.as_bytes()).expect("writes");
        let (of, by) = (cert.clone(), KeyPlace::File(dir.path().join("key.pem")));
        let (begun, looks) = std::sync::mpsc::channel();
        let controller = std::thread::spawn(move || {
            begun.send(()).expect("the test waits");
            let _lock = lock(&of);
            finish_pair(&of, &by).expect("finishes");
        });
        looks.recv().expect("it looks");
        std::thread::yield_now();
        place.write(new.1.as_bytes()).expect("writes");
        drop(held);
        controller.join().expect("ends");
        assert_eq!(files::read_public(&cert).expect("reads").expect("there"), new.0.as_bytes());
    }
}
