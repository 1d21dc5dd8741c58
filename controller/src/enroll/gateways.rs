//! Gateways' certificates: by a token, by the certificate that they call with, or by one that has ended a while ago.

use std::net::IpAddr;
use std::sync::Arc;

use sallyport_ca::{Certificate, EnrollToken, Fingerprint, PublicKey};
use sallyport_proto::{possession, v1};
use zeroize::Zeroizing;

use super::{Case, Enrolled, decide, refuse, transaction};
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

/// Decides, and issues. `source` is where the question came from, for the log.
pub(crate) async fn for_gateway(core: &Arc<Core>, asked: Asked, csr: &[u8], source: IpAddr) -> Result<Enrolled, Error> {
    let key = match PublicKey::from_csr_der(csr) {
        Ok(key) => key,
        Err(e) => return Ok(Enrolled::Invalid(e.to_string())),
    };
    let mut shown = None;
    let proof = match asked {
        Asked::Token(text) => match EnrollToken::parse(&text) {
            Ok(token) => ProofKind::Token(TokenProof { id: token.id.to_vec(), hash: token.hash().to_vec() }),
            Err(_) => return Ok(refuse(core, &source, unproven("what was shown as a token is none"))),
        },
        Asked::Late(present) => {
            let Some(certificate) = held(&present, v1::GatewayPurpose::Link, csr) else {
                let refusal = unproven("the gateway does not hold the key of the certificate that it shows");
                return Ok(refuse(core, &source, refusal));
            };
            shown = Some(present.certificate);
            let profile = v1::CertificateProfile::GatewayLink.into();
            let link = certificate.serial.to_string();
            ProofKind::Gateway(GatewayProof { link, profile, late: true, ..GatewayProof::default() })
        }
        Asked::Calling { link, purpose: v1::GatewayPurpose::Link, .. } => {
            let profile = v1::CertificateProfile::GatewayLink.into();
            ProofKind::Gateway(GatewayProof { link, profile, ..GatewayProof::default() })
        }
        Asked::Calling { link, purpose: purpose @ v1::GatewayPurpose::Ike, present } => {
            let mut proof =
                GatewayProof { link, profile: v1::CertificateProfile::Gateway.into(), ..GatewayProof::default() };
            if let Some(present) = present {
                let Some(certificate) = held(&present, purpose, csr) else {
                    let refusal = unproven("the gateway does not hold the key of the certificate whose names it wants");
                    return Ok(refuse(core, &source, refusal));
                };
                proof.present = certificate.serial.to_string();
                shown = Some(present.certificate);
            }
            ProofKind::Gateway(proof)
        }
        Asked::Calling { purpose: v1::GatewayPurpose::Unspecified, .. } => {
            return Ok(Enrolled::Invalid("purpose: for the link or for IKE".into()));
        }
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
    Ok(decide(core, &case, shown.as_deref(), &source).await?.unwrap_or(Enrolled::Waiting))
}

#[cfg(test)]
mod tests;
