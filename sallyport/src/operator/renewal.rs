//! `sallyport cert renew`: the operator's own certificate.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sallyport_ca::{Certificate, KeyAlgorithm, KeyPair, SystemRandom, pem};
use sallyport_proto::v1::RenewOperatorRequest;
use zeroize::Zeroizing;

use super::identity_files::{Folder, PRIVATE, PUBLIC, certificate_pem};
use super::{Connection, Context, refused};
use crate::cli::Global;
use crate::clock::unix_now;
use crate::error::{Error, Result};
use crate::output::{Printer, rfc3339};

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// The new certificate, until its key is in place: from then on the new pair is the one in force.
const NEXT: &str = "cert.next";
/// Whoever has it changes the pair; a controller knows the same name.
const LOCK: &str = "cert.lock";
/// How often it is asked for, and the pause between: two seconds.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Runs the command.
pub(super) async fn run(force: bool, global: &Global) -> Result {
    let dir = Connection::folder(global);
    {
        let _lock = lock(&dir);
        finish(&dir);
    }
    let path = dir.join(CERTIFICATE);
    let text = fs::read(&path).map_err(|e| Error::file("read", &path, &e))?;
    let unusable = |e: sallyport_ca::Error| Error::failed(format!("{}: {e}", path.display()));
    let present = Certificate::from_pem(&text).map_err(unusable)?;
    let due = present.renewal_due();
    let early = !force && unix_now() < due;
    // Where nobody can be asked, the certificate is good all the same.
    let opened = Context::open(global).await;
    let chain = pem::certificates(&text).unwrap_or_default();
    if early && !opened.as_ref().is_ok_and(|context| context.connection.revoked.is_superseded(&chain)) {
        let due = rfc3339(due);
        let said = serde_json::json!({ "renewed": false, "due": due });
        return Printer::new(global.output)
            .one(&said, &format!("not due before {due}; --force renews it all the same"));
    }
    let mut context = opened?;
    let rng = SystemRandom::new();
    let failed = |e: sallyport_ca::Error| Error::failed(e.to_string());
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).map_err(failed)?;
    let csr = key.request("operator", None, &rng).map_err(failed)?.to_vec();
    let answer = context.connection.client.renew_operator(RenewOperatorRequest { csr }).await;
    let answer = answer.map_err(refused)?.into_inner();
    let new = Certificate::from_der(&answer.certificate).map_err(failed)?;
    if new.spki_der() != key.public_key().spki_der() || new.subject_der() != present.subject_der() {
        return Err(Error::failed(
            "what the controller sent is for another key or name; the present one stays in force",
        ));
    }
    let between = answer.chain.split_last().map_or(&[][..], |(_, between)| between);
    let chain: String = std::iter::once(&answer.certificate).chain(between).map(|der| certificate_pem(der)).collect();
    let folder = Folder::at(&dir);
    let _lock = lock(&dir);
    folder.put(NEXT, PUBLIC, chain.as_bytes())?;
    folder.put(KEY, PRIVATE, key.pkcs8_pem().as_bytes())?;
    finish(&dir);
    let until = rfc3339(new.not_after);
    let said = serde_json::json!({ "renewed": true, "serial": new.serial.to_string(), "not_after": until });
    context.printer.one(&said, &format!("renewed, serial {}, valid until {until}", new.serial))
}

/// Waits until nobody else changes the folder: a controller looks after its own operator's. Without it, in a folder that is read-only for
/// example, it goes on all the same.
fn lock(dir: &Path) -> Option<fs::File> {
    let file = fs::File::options().create(true).truncate(false).write(true).open(dir.join(LOCK)).ok()?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(fs::TryLockError::Error(_)) => break,
        }
    }
    None
}

/// Puts a new certificate in place of the one before, if its key is the one in force: what a crash left undone, too. Where that cannot be
/// done, the certificate does not fit its key, which connecting says.
pub(super) fn finish(dir: &Path) {
    let next = dir.join(NEXT);
    let (Ok(chain), Ok(key)) = (fs::read(&next), fs::read(dir.join(KEY)).map(Zeroizing::new)) else { return };
    let fits = Certificate::from_pem(&chain).ok().zip(KeyPair::from_pem(&key).ok());
    if fits.is_some_and(|(certificate, key)| certificate.spki_der() == key.public_key().spki_der()) {
        let _ = fs::rename(&next, dir.join(CERTIFICATE)); // a folder that is read-only stays as it is
    }
}
