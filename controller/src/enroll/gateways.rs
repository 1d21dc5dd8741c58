//! Gateways' certificates: by a token, by the certificate that they call with, or by one that has ended a while ago.

use std::net::IpAddr;
use std::sync::Arc;

use sallyport_ca::{Certificate, EnrollToken, Fingerprint, PublicKey};
use sallyport_proto::{possession, v1};
use zeroize::Zeroizing;

use super::{Case, Enrolled, decide, is_ours, refuse, transaction};
use crate::app::Core;
use crate::authority::algorithm_to_proto;
use crate::error::Error;
use crate::state::{Applicant, GatewayProof, ProofKind, Refusal, RefusalKind, TokenProof};

/// Longest certificate that is looked at, bytes: strangers may show one.
const MAX_SHOWN: usize = 8 * 1024;

/// What a gateway shows.
pub(crate) enum Asked {
    /// A token, for its link.
    Token(Zeroizing<String>),
    /// Its link certificate outside of a handshake: it may have ended.
    Late(v1::Possession),
    /// The connection: the serial number of the certificate that it came with.
    Calling {
        /// Serial number.
        link: String,
        /// What for.
        purpose: v1::GatewayPurpose,
        /// The certificate for IKE that the new one follows.
        present: Option<v1::Possession>,
    },
}

fn unproven(cause: &str) -> Refusal {
    let remedy = "make a token for the gateway: sallyport gateway token NAME".into();
    Refusal { kind: RefusalKind::Unproven, cause: cause.into(), remedy }
}

/// The certificate whose key somebody holds. Whether it is ours is looked up later.
fn held(shown: &v1::Possession, purpose: v1::GatewayPurpose, csr: &[u8]) -> Option<Certificate> {
    if shown.certificate.len() > MAX_SHOWN {
        return None;
    }
    let certificate = Certificate::from_der(&shown.certificate).ok()?;
    let key = PublicKey::from_spki_der(&certificate.spki_der()).ok()?;
    key.verifies(&possession::input(purpose, csr), &shown.signature).then_some(certificate)
}

fn token_of(text: &str) -> Result<ProofKind, Refusal> {
    match EnrollToken::parse(text) {
        Ok(token) => Ok(ProofKind::Token(TokenProof { id: token.id.to_vec(), hash: token.hash().to_vec() })),
        Err(_) => Err(unproven("what was shown as a token is none")),
    }
}

/// Whether what is shown is anybody's, which costs nothing: most strangers get no further.
fn is_known(core: &Core, asked: &Asked) -> Result<(), Refusal> {
    match asked {
        Asked::Token(text) => {
            let token = token_of(text)?;
            let refusal = core.node.shared().read().refuses_to_look(&token, core.now_ms());
            refusal.map_or(Ok(()), Err)
        }
        Asked::Late(shown) if shown.certificate.len() > MAX_SHOWN => {
            Err(unproven("what was shown as a certificate is none"))
        }
        Asked::Late(shown) => is_ours(core, &shown.certificate),
        Asked::Calling { .. } => Ok(()),
    }
}

/// Decides, and issues. `source` is where the question came from, for the log.
pub(crate) async fn for_gateway(core: &Arc<Core>, asked: Asked, csr: &[u8], source: IpAddr) -> Result<Enrolled, Error> {
    if is_known(core, &asked).is_err() {
        // It may have been made a moment ago, at another controller.
        core.sight().await?;
        if let Err(refusal) = is_known(core, &asked) {
            return Ok(refuse(core, &source, refusal));
        }
    }
    let (purpose, possession) = match &asked {
        Asked::Token(_) => (v1::GatewayPurpose::Link, None),
        Asked::Late(present) => (v1::GatewayPurpose::Link, Some(present.clone())),
        Asked::Calling { purpose: v1::GatewayPurpose::Link, .. } => (v1::GatewayPurpose::Link, None),
        Asked::Calling { purpose, present, .. } => (*purpose, present.clone()),
    };
    // Two signatures are looked at, not on a thread that others wait for.
    let request = csr.to_vec();
    let read = tokio::task::spawn_blocking(move || {
        let key = PublicKey::from_csr_der(&request)?;
        let holds = possession.map(|shown| held(&shown, purpose, &request).map(|c| (c.serial.to_string(), shown)));
        Ok::<_, sallyport_ca::Error>((key, holds))
    });
    let (key, holds) = match read.await.map_err(|_| Error::Internal("reading a request panicked".into()))? {
        Ok(read) => read,
        Err(e) => return Ok(Enrolled::Invalid(e.to_string())),
    };
    if let Some(None) = holds {
        let refusal = unproven("the gateway does not hold the key of the certificate that it shows");
        return Ok(refuse(core, &source, refusal));
    }
    let (present, shown) = holds.flatten().map(|(serial, shown)| (serial, shown.certificate)).unzip();
    let present = present.unwrap_or_default();
    let proof = match asked {
        Asked::Token(text) => match token_of(&text) {
            Ok(token) => token,
            Err(refusal) => return Ok(refuse(core, &source, refusal)),
        },
        Asked::Late(_) => {
            let profile = v1::CertificateProfile::GatewayLink.into();
            ProofKind::Gateway(GatewayProof { link: present, profile, late: true, ..GatewayProof::default() })
        }
        Asked::Calling { link, purpose: v1::GatewayPurpose::Link, .. } => {
            let profile = v1::CertificateProfile::GatewayLink.into();
            ProofKind::Gateway(GatewayProof { link, profile, ..GatewayProof::default() })
        }
        Asked::Calling { link, purpose: v1::GatewayPurpose::Ike, .. } => {
            let profile = v1::CertificateProfile::Gateway.into();
            ProofKind::Gateway(GatewayProof { link, profile, present, ..GatewayProof::default() })
        }
        Asked::Calling { purpose: v1::GatewayPurpose::Unspecified, .. } => {
            return Ok(Enrolled::Invalid("purpose: for the link or for IKE".into()));
        }
    };
    let stray = match &proof {
        ProofKind::Gateway(by) => core.node.shared().read().is_stray_link(&by.link).then(|| by.link.clone()),
        _ => None,
    };
    let key_sha256 = Fingerprint::of(key.spki_der()).0.to_vec();
    let case = Case {
        transaction: transaction(Some(&proof), &key_sha256),
        applicant: Applicant {
            proof: Some(proof),
            key_sha256,
            key: algorithm_to_proto(key.algorithm()),
            source: source.to_canonical().to_string(),
        },
        claims: String::new(),
        key,
    };
    // No gateway waits for an operator: what proves something is granted or refused.
    let decided = decide(core, &case, shown.as_deref(), &source).await?.unwrap_or(Enrolled::Waiting);
    if let (Some(serial), Enrolled::Issued { .. }) = (stray, &decided) {
        tracing::error!(
            %source, %serial,
            "a gateway got a certificate by one that newer ones had replaced: two have its key, or one goes on from an old copy of its \
             folder. If it was not set back, somebody has stolen it: sallyport gateway remove NAME, then enroll it anew by a token"
        );
    }
    Ok(decided)
}

#[cfg(test)]
mod tests;
