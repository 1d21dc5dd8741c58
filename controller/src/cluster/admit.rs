//! Taking a node in: the leader's side of joining.

use std::sync::Arc;

use ring::digest;
use sallyport_ca::PublicKey;
use sallyport_proto::v1;
use tonic::Status;

use super::token::Token;
use crate::app::Core;
use crate::authority;
use crate::state::{Action, AdmitMember, DescribeMember, Outcome, ReadmitMember, RecordCertificate};

/// Longest text of a candidate that is kept, bytes.
const MAX_TEXT: usize = 256;
/// Names for a certificate.
const MAX_NAMES: usize = 16;

/// What a candidate signs to prove that it holds its key: all that it says of itself.
pub(crate) fn proof_input(request: &v1::JoinRequest) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(b"sallyport join");
    part(&request.token_id);
    part(&request.public_key);
    part(&request.wrap_key);
    part(request.name.as_bytes());
    part(request.address.as_bytes());
    for name in &request.names {
        part(name.as_bytes());
    }
    context.finish().as_ref().to_vec()
}

fn describe(id: u64, name: &str, address: &str, version: &str, level: u32) -> Result<DescribeMember, Status> {
    let long = [name, address, version].iter().any(|t| t.len() > MAX_TEXT);
    let printable = |t: &str| t.chars().all(|c| !c.is_control());
    if long || !printable(name) || !printable(address) || !printable(version) {
        return Err(Status::invalid_argument("name, address and version: printable text of at most 256 bytes"));
    }
    let port =
        address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok())?);
    if port.is_none_or(|p| p == 0) {
        return Err(Status::invalid_argument(format!("{address:?} is not HOST:PORT")));
    }
    Ok(DescribeMember { id, name: name.into(), address: address.into(), version: version.into(), level })
}

fn admitted(reply: crate::state::Reply) -> Result<u64, Status> {
    match reply.outcome {
        Some(Outcome::Admitted(a)) => Ok(a.member_id),
        Some(Outcome::Conflict(c)) => Err(crate::api::conflict(c)),
        other => Err(Status::internal(format!("unexpected answer {other:?}"))),
    }
}

/// The addresses of the members in force.
pub(crate) fn addresses(core: &Core) -> Vec<String> {
    core.node.shared().read().live_members().map(|(_, m)| m.address.clone()).collect()
}

/// Admits a candidate with a token. Only the leader calls this.
pub(crate) async fn admit(core: &Arc<Core>, request: v1::JoinRequest) -> Result<v1::JoinResponse, Status> {
    if request.names.len() > MAX_NAMES {
        return Err(Status::invalid_argument(format!("names: at most {MAX_NAMES}")));
    }
    let member = describe(0, &request.name, &request.address, &request.version, request.level)?;
    let wrap_key: [u8; 32] =
        request.wrap_key.as_slice().try_into().map_err(|_| Status::invalid_argument("wrap_key must have 32 bytes"))?;
    let secret = request.token.clone().map(v1::Secret::into_inner).unwrap_or_default();
    let hash = Token::hash(&secret);
    // Looked at before anything is verified or signed; the log has the last word.
    let plausible = {
        let state = core.node.shared().read();
        state.tokens.get(&request.token_id).is_some_and(|token| token.hash == hash)
    };
    let command_id = command_id(&request, &hash);
    if !plausible && core.node.shared().read().answered(&command_id).is_none() {
        let message = "this token is not known, or was used before: make another with sallyport cluster token";
        return Err(Status::permission_denied(message));
    }
    let public = PublicKey::from_spki_der(&request.public_key)
        .map_err(|e| Status::invalid_argument(format!("public_key: {e}")))?;
    if !public.verifies(&proof_input(&request), &request.proof) {
        return Err(Status::invalid_argument("proof: not a signature with that key"));
    }
    // Whoever has no token is not told which version runs here.
    let refused = core.node.shared().read().refuses_software(&request.version, request.level);
    if let Some(why) = refused {
        return Err(Status::failed_precondition(why));
    }
    let issue = authority::ControllerCertificate { names: request.names.clone(), member: 0 };
    let made = authority::controller_certificate(core, &public, issue).await?;
    let (certificate, record) = (made.certificate, made.record);
    let command = AdmitMember {
        token: request.token_id.clone(),
        hash,
        member: Some(member),
        learner: request.learner,
        record: Some(record.clone()),
    };
    let member_id = admitted(core.propose_as(command_id, Action::AdmitMember(command)).await?)?;
    // The answer may be one of a while ago.
    if core.node.shared().read().member(member_id).is_none() {
        let message = format!("controller {member_id} was removed from the cluster; join with a new token");
        return Err(Status::permission_denied(message));
    }
    // The same question again: its first answer was lost, and with it the certificate.
    if !core.node.shared().read().certificates.contains(&record.serial) {
        let record = crate::state::CertificateRow { member: member_id, ..record };
        core.propose(Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() })).await?;
    }
    tracing::info!(id = member_id, name = %request.name, address = %request.address, "a controller joined");
    let context = wrap_context(&core.cluster_id(), member_id);
    let restored_unix_ms = core.node.shared().read().begun_ms();
    Ok(v1::JoinResponse {
        member_id,
        cluster_id: core.cluster_id(),
        certificate,
        issuers: made.issuers,
        root: core.root().der().to_vec(),
        wrapped_seal_key: core.sealer.wrap_for(&wrap_key, &context)?,
        members: addresses(core),
        restored_unix_ms,
        revoked_controllers: crate::api::revoked_controllers(core)?,
    })
}

/// What the wrapped seal key is bound to.
pub(crate) fn wrap_context(cluster: &[u8], member: u64) -> Vec<u8> {
    [b"sallyport member".as_slice(), cluster, &member.to_be_bytes()].concat()
}

/// The same candidate with the same token is the same question. Whoever lacks the token's secret asks another one, even if
/// he knows the rest: the token's id stands in the log, the key in the certificate.
fn command_id(request: &v1::JoinRequest, token_hash: &[u8]) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [b"sallyport join".as_slice(), &request.token_id, token_hash, &request.public_key] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    id
}

/// Gives a member that lost its store a new id. Only the leader calls this; `caller` is who its certificate says.
pub(crate) async fn readmit(core: &Core, caller: u64, request: v1::RejoinRequest) -> Result<v1::JoinResponse, Status> {
    if caller != request.old_id {
        return Err(Status::permission_denied(format!(
            "this certificate is controller {caller}'s, not controller {}'s",
            request.old_id
        )));
    }
    let member = describe(0, &request.name, &request.address, &request.version, request.level)?;
    let command = ReadmitMember { old_id: request.old_id, member: Some(member) };
    let member_id = admitted(core.propose(Action::ReadmitMember(command)).await?)?;
    tracing::info!(old = request.old_id, id = member_id, "a controller came back without its store");
    let restored_unix_ms = core.node.shared().read().begun_ms();
    Ok(v1::JoinResponse {
        member_id,
        cluster_id: core.cluster_id(),
        certificate: Vec::new(),
        issuers: Vec::new(),
        root: core.root().der().to_vec(),
        wrapped_seal_key: Vec::new(),
        members: addresses(core),
        restored_unix_ms,
        revoked_controllers: crate::api::revoked_controllers(core)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_secret_of_a_used_token_nobody_gets_the_answer_that_it_gave() {
        let request = v1::JoinRequest { token_id: vec![1; 8], public_key: vec![2; 91], ..Default::default() };
        let id = |secret: &[u8]| command_id(&request, &Token::hash(secret));
        assert_eq!(id(&[3; 16]), id(&[3; 16]), "asked again");
        assert_ne!(id(&[3; 16]), id(&[4; 16]));
        assert_ne!(id(&[3; 16]), id(&[]));
    }
}
