//! A gateway without a certificate that is good: its first ones by a token, and the way back for one that was away too long.

mod known;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use ring::digest;
use sallyport_ca::{Certificate, EnrollToken, KeyAlgorithm, KeyPair, SystemRandom, UnixTime, pem};
use sallyport_proto::dial;
use sallyport_proto::failover::Failover;
use sallyport_proto::v1;
use sallyport_proto::v1::enroll_gateway_request::Proof;
use sallyport_proto::v1::gateway_client::GatewayClient;
use sallyport_proto::v1::joining_client::JoiningClient;
use tonic::Code;
use tracing::{info, warn};
use zeroize::Zeroizing;

use self::known::{Known, Round};
use crate::folder;
use crate::identity::{Identity, IkeIdentity};
use crate::renewal::{RenewalError, fresh, keep, pems, possess, shown};

/// How long one controller may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// First and longest pause between two rounds over all controllers.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Kinds of key for IKE: old clients have RSA only.
const KINDS: [KeyAlgorithm; 2] = [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256];

/// What became of a question.
pub(crate) enum Said<T> {
    Yes(T),
    /// Another may say yes, or this one later.
    NotNow(String),
}

fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

fn endpoint(address: &str) -> Result<tonic::transport::Endpoint, RenewalError> {
    let endpoint = dial::endpoint(address);
    let endpoint = endpoint.ok_or_else(|| RenewalError::Refused(format!("{address:?} is not HOST:PORT")))?;
    Ok(endpoint.connect_timeout(PATIENCE).timeout(PATIENCE))
}

/// The next link certificate of a gateway whose present one has ended; one round over all controllers, as far as this identity knows
/// them for such.
pub(crate) async fn late(
    addresses: &[String],
    identity: &Identity,
    present: v1::Possession,
    csr: Vec<u8>,
) -> Result<Said<v1::EnrollGatewayResponse>, RenewalError> {
    let request = v1::EnrollGatewayRequest { proof: Some(Proof::Present(present)), csr };
    Known::by_identity(identity)?.round(addresses, &request).await
}

/// The root that a controller shows, DER, if it is the one of the token.
async fn root(address: &str, token: &EnrollToken) -> Result<Said<Vec<u8>>, RenewalError> {
    let unusable = |e: dial::Unusable| RenewalError::Unusable(e.to_string());
    let channel = dial::to_anybody(endpoint(address)?, address).map_err(unusable)?;
    let root = match JoiningClient::new(channel).show_root(v1::ShowRootRequest {}).await {
        Ok(shown) => shown.into_inner().root,
        Err(status) => return Ok(Said::NotNow(words(&status))),
    };
    if digest::digest(&digest::SHA256, &root).as_ref() == token.root {
        return Ok(Said::Yes(root));
    }
    Err(RenewalError::Refused(format!(
        "{address} is a controller of another cluster than the token: its root has another fingerprint; look at [gateway] controllers"
    )))
}

/// One round over all controllers. The first that shows the token's root makes the others known; nobody is told the token before all were
/// asked who is none any more.
async fn round(
    addresses: &[String],
    token: &EnrollToken,
    csr: &[u8],
) -> Result<Said<(Vec<u8>, v1::EnrollGatewayResponse)>, RenewalError> {
    let mut said = Round::default();
    for address in addresses {
        match root(address, token).await {
            Err(refusal) => said.refused(address, refusal),
            Ok(Said::NotNow(text)) => said.not_now(address, &text),
            Ok(Said::Yes(root)) => {
                let ca = pem::encode("CERTIFICATE", &root).as_bytes().to_vec();
                let secret = v1::Secret::new(token.to_text().as_bytes().to_vec());
                let request = v1::EnrollGatewayRequest { proof: Some(Proof::Token(secret)), csr: csr.to_vec() };
                return Ok(match Known::by(&ca, None)?.round(addresses, &request).await? {
                    Said::Yes(answer) => Said::Yes((ca, answer)),
                    Said::NotNow(text) => Said::NotNow(text),
                });
            }
        }
    }
    said.end()
}

/// The first certificates, by what `sallyport gateway token` printed. Waits until a controller answers. What comes of it is kept in the
/// folder, if that can be written.
pub async fn enroll(addresses: &[String], token: &str, dir: &Path) -> Result<Identity, RenewalError> {
    let token = EnrollToken::parse(token).map_err(|_| {
        RenewalError::Refused("this is no token: copy all of what `sallyport gateway token NAME` printed".into())
    })?;
    // Made once: should the answer be lost, the same key with the same token gets the same answer again.
    let (link, csr) = match folder::pending(dir) {
        Some(key) => {
            let csr = key.request("gateway", None, &SystemRandom::new());
            let csr = csr.map_err(|e| RenewalError::Key(e.to_string()))?.to_vec();
            (key, csr)
        }
        None => {
            let (key, csr) = fresh(KeyAlgorithm::EcdsaP256).await?;
            if let Err(error) = folder::keep_pending(dir, &key) {
                warn!(folder = %dir.display(), %error, "the gateway's folder cannot be written: its keys are in memory only");
            }
            (key, csr)
        }
    };
    let mut pause = PAUSE.0;
    let (ca, answer) = loop {
        match round(addresses, &token, &csr).await? {
            Said::Yes(answer) => break answer,
            Said::NotNow(said) => warn!(said, "waiting for a controller"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    };
    let mut identity = Identity {
        grpc_chain: pems(&shown(&link.public_key(), &answer.certificate, &answer.chain)?),
        grpc_key: Zeroizing::new(link.pkcs8_pem().as_bytes().to_vec()),
        ca,
        gone: Vec::new(),
        revoked: (!answer.revoked_controllers.is_empty()).then_some(answer.revoked_controllers),
        ike: Vec::new(),
    };
    identity.ike = for_ike(addresses, &identity, &[]).await?;
    match folder::write(dir, &identity).and_then(|()| folder::forget_pending(dir)) {
        Ok(()) => info!(folder = %dir.display(), "the gateway has its first certificates"),
        Err(error) => warn!(
            folder = %dir.display(), %error,
            "the gateway has its first certificates, in memory only: its folder cannot be written, and the next start needs a token"
        ),
    }
    Ok(identity)
}

/// The identity of a gateway that was away until some of its certificates ended: by their keys it has others. Waits until a controller
/// answers. One whose certificates are all good is given back as it is.
pub async fn revive(
    addresses: &[String],
    identity: Identity,
    dir: Option<&Path>,
    now: UnixTime,
) -> Result<Identity, RenewalError> {
    let unusable = |e: sallyport_ca::Error| RenewalError::Unusable(e.to_string());
    let leaves = identity.ike.iter().map(|ike| Certificate::from_der(ike.chain.first().map_or(&[], Vec::as_slice)));
    let leaves = leaves.collect::<Result<Vec<_>, _>>().map_err(unusable)?;
    let link = Certificate::from_pem(&identity.grpc_chain).map_err(unusable)?;
    let (link_ended, ike_ended) = (now >= link.not_after, leaves.iter().any(|leaf| now >= leaf.not_after));
    if !link_ended && !ike_ended {
        return Ok(identity);
    }
    warn!(link_ended, ike_ended, "certificates of this gateway have ended; asking for others by their keys");
    let mut next = identity.clone();
    if link_ended {
        let present = KeyPair::from_pem(&identity.grpc_key).map_err(unusable)?;
        let (key, csr) = fresh(present.public_key().algorithm()).await?;
        let possession = possess(link.der(), &present, v1::GatewayPurpose::Link, &csr)?;
        let mut pause = PAUSE.0;
        let answer = loop {
            match late(addresses, &identity, possession.clone(), csr.clone()).await? {
                Said::Yes(answer) => break answer,
                Said::NotNow(said) => warn!(said, "waiting for a controller"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        };
        next.grpc_chain = pems(&shown(&key.public_key(), &answer.certificate, &answer.chain)?);
        next.grpc_key = Zeroizing::new(key.pkcs8_pem().as_bytes().to_vec());
    }
    if ike_ended {
        next.ike = for_ike(addresses, &next, &identity.ike).await?;
    }
    if let Some(dir) = dir {
        keep(dir, &next);
    }
    Ok(next)
}

/// Certificates for IKE, by the link: of the kinds of those that are there, whose names they get unless others were set; else one of each
/// kind that the operators allow.
async fn for_ike(
    addresses: &[String],
    identity: &Identity,
    present: &[IkeIdentity],
) -> Result<Vec<IkeIdentity>, RenewalError> {
    let unreadable = |e: sallyport_ca::Error| RenewalError::Unusable(e.to_string());
    let known = Known::by_identity(identity)?;
    let channels = known.callers(addresses, identity)?;
    known.look(&channels).await;
    let mut client = GatewayClient::new(Failover::new(channels, 0).patience(PATIENCE));
    // A kind of key, and what the new certificate of that kind follows.
    let mut wanted = Vec::new();
    for ike in present {
        let key = KeyPair::from_pkcs8_der(&ike.key).map_err(unreadable)?;
        wanted.push((key.public_key().algorithm(), ike.chain.first().map(|leaf| (key, leaf.as_slice()))));
    }
    if wanted.is_empty() {
        wanted.extend(KINDS.map(|kind| (kind, None)));
    }
    let (mut made, mut refused) = (Vec::new(), String::new());
    for (kind, before) in wanted {
        let (key, csr) = fresh(kind).await?;
        let purpose = v1::GatewayPurpose::Ike;
        let present = before.map(|(key, leaf)| possess(leaf, &key, purpose, &csr)).transpose()?;
        let request = v1::RenewRequest { purpose: purpose.into(), csr, present };
        let mut pause = PAUSE.0;
        let answer = loop {
            match client.renew(request.clone()).await {
                Ok(answer) => break Some(answer.into_inner()),
                Err(status) if matches!(status.code(), Code::PermissionDenied | Code::InvalidArgument) => {
                    warn!(%kind, reason = status.message(), "no certificate for IKE of this kind");
                    refused = status.message().to_owned();
                    break None;
                }
                Err(status) => warn!(status = %words(&status), "waiting for a controller"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        };
        let Some(answer) = answer else { continue };
        let chain = shown(&key.public_key(), &answer.certificate, &answer.chain)?;
        made.push(IkeIdentity { chain, key: Zeroizing::new(key.pkcs8_der().to_vec()) });
    }
    if made.is_empty() { Err(RenewalError::Refused(refused)) } else { Ok(made) }
}
