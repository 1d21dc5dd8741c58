//! The next certificates, by the present one.

use std::time::Duration;

use sallyport_ca::{Certificate, UnixTime};

use crate::chain;
use crate::enroll::{Asking, Surroundings, obtain};
use crate::est::{self, Proof};
use crate::tls::Own;
use crate::{Error, Folder, Identity, Result, Server, Settings};

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

/// Gets a new certificate for a new key if one is due, or in any case. On any failure what was in force stays in force.
pub async fn renew<S: Surroundings>(
    folder: &Folder,
    settings: &Settings,
    present: &Identity,
    force: bool,
    wait: Duration,
    s: &S,
) -> Result<Outcome> {
    if !force && s.now() < due(&present.certificate) {
        return Ok(Outcome::NotDue);
    }
    let server: Server = settings.server.parse()?;
    let authorities = est::known_authorities(&server, &present.roots, s.now()).await?;
    let roots = chain::learn(&present.roots, &authorities, s.now());
    let pending = folder.begin(settings.key.parse()?, &settings.name, s.rng())?;
    let mut own = vec![present.certificate.der()];
    own.extend(present.chain.iter().map(Vec::as_slice));
    let proof = Proof::Certificate(Own { key: present.key.as_ref(), chain: own });
    let asking = Asking { server: &server, roots: &roots, authorities: &authorities, wait };
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
