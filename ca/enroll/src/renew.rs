//! The next certificates, by the present one.

use std::time::Duration;

use sallyport_ca::{Certificate, UnixTime};

use crate::chain;
use crate::enroll::{Asking, Surroundings, obtain};
use crate::est::{self, Proof};
use crate::tls::Own;
use crate::{Error, Folder, Identity, Result, Server, Settings, TokenPlace};

/// How a run of `renew` ended.
pub enum Outcome {
    /// It is too early.
    NotDue,
    /// There is a new certificate.
    Renewed(Identity),
}

/// When a certificate is renewed: see [`sallyport_ca::renewal::Life::renewed_from`].
pub fn due(certificate: &Certificate) -> UnixTime {
    certificate.renewal_due()
}

/// How often a machine that has nothing to renew looks which authorities are in force, seconds.
const LOOK: i64 = 6 * 3_600;

/// Whether the authority that issued the present certificate issues no more: then the operators have replaced it, maybe because its
/// key was stolen, and nobody waits for two thirds of a life. Who cannot be asked has said nothing; the certificate is good.
async fn superseded<S: Surroundings>(folder: &Folder, settings: &Settings, present: &Identity, s: &S) -> Result<bool> {
    let now = s.now();
    if folder.looked()?.is_some_and(|at| (at.0..at.0.saturating_add(LOOK)).contains(&now.0)) {
        return Ok(false);
    }
    let server: Server = settings.server.parse()?;
    let Ok(authorities) = est::known_authorities(&server, &present.roots, now).await else { return Ok(false) };
    folder.note_look(now)?;
    let Some(issuer) = present.chain.first().and_then(|der| Certificate::from_der(der).ok()) else { return Ok(false) };
    let mut issuing =
        authorities.iter().filter_map(|der| Certificate::from_der(der).ok()).filter(|c| !chain::is_root(c));
    let same = |c: &Certificate| c.subject_der() == issuer.subject_der() && c.spki_der() == issuer.spki_der();
    // An answer without any says nothing of this one.
    let first = issuing.next();
    Ok(first.as_ref().is_some_and(|c| !same(c)) && !issuing.any(|c| same(&c)))
}

/// Gets a new certificate for a new key if one is due, or its issuer has been replaced, or in any case. On any failure what was in force stays in force.
pub async fn renew<S: Surroundings>(
    folder: &Folder,
    settings: &Settings,
    present: &Identity,
    force: bool,
    wait: Duration,
    s: &S,
) -> Result<Outcome> {
    if !force && s.now() < due(&present.certificate) && !superseded(folder, settings, present, s).await? {
        return Ok(Outcome::NotDue);
    }
    let server: Server = settings.server.parse()?;
    let authorities = est::known_authorities(&server, &present.roots, s.now()).await?;
    let roots = chain::learn(&present.roots, &authorities, s.now());
    let place = settings.key_in.as_deref().map(str::parse::<TokenPlace>).transpose()?;
    let pending = folder.begin((place.as_ref(), settings.key.parse()?), &settings.name, s.rng())?;
    let mut own = vec![present.certificate.der()];
    own.extend(present.chain.iter().map(Vec::as_slice));
    let proof = Proof::Certificate(Own { key: present.key.as_ref(), chain: own });
    let asking = Asking { folder, server: &server, roots: &roots, authorities: &authorities, wait };
    let issued = obtain(&asking, &pending, &proof, s).await?;
    // RFC 7030 §4.2.2: a renewal changes no name; connections and records go by it.
    if issued.leaf.subject_der() != present.certificate.subject_der() {
        return Err(Error::untrusted(
            format!("the new certificate is for {}, not for {}", issued.leaf.subject, present.certificate.subject),
            "tell the operator; the present certificate stays in force",
        ));
    }
    Ok(Outcome::Renewed(folder.complete(&issued, &roots)?))
}
