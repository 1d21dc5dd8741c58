//! Who calls: the certificate of the connection, looked up in the records at each call.

use sallyport_proto::v1;
use subtle::ConstantTimeEq;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::server::Peer;
use crate::actor::Actor;
use crate::app::Core;
use crate::cluster::removal::REMOVED;
use crate::state::State;

/// Metadata of a call that another controller passes on: the serial number of whoever made it. That controller has verified
/// the certificate, and its record is looked up here.
pub(super) const ON_BEHALF: &str = "sallyport-on-behalf-of";

/// And the address that it came from.
pub(super) const SOURCE: &str = "sallyport-source";
/// Longest address.
const MAX_SOURCE: usize = 64;

/// A caller whose certificate is good.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The name in the certificate's record.
    pub(super) name: String,
    /// Its serial number.
    pub(super) serial: String,
    /// The caller's name for the change that it asks for.
    pub(super) request_id: Option<Vec<u8>>,
    /// The address that it calls from; empty where that is not known.
    pub(super) source: String,
}

impl Caller {
    /// The caller of a request, if its certificate is of the right kind.
    pub(super) fn of<T>(core: &Core, request: &Request<T>, profile: v1::CertificateProfile) -> Result<Self, Status> {
        let peer = request.extensions().get::<Peer>();
        let (serial, fingerprint) = peer
            .and_then(|p| p.certificate.as_ref())
            .ok_or_else(|| Status::unauthenticated("no client certificate on this connection"))?;
        super::forward::ready(core)?;
        let state = core.node.shared().read();
        let caller = match request.metadata().get(ON_BEHALF).map(|v| v.to_str()) {
            None => Self::check(&state, core.now_ms(), serial, Some(fingerprint), profile),
            Some(for_whom) => Self::member(&state, core.now_ms(), serial, fingerprint).and_then(|_| {
                let serial = for_whom.map_err(|_| Status::invalid_argument("a serial number that is no text"))?;
                Self::check(&state, core.now_ms(), serial, None, profile)
            }),
        };
        if let (Err(status), Some(peer)) = (&caller, peer) {
            tracing::warn!(remote = %peer.remote, %serial, reason = status.message(), "refused a caller");
        }
        let request_id = request.metadata().get(super::REQUEST_ID).map(|id| id.as_bytes().to_vec());
        if request_id.as_ref().is_some_and(|id| id.len() != 32) {
            return Err(Status::invalid_argument("sallyport-request-id: 32 hexadecimal digits"));
        }
        // Who passes a call on says whence it came.
        let passed = request.metadata().get(SOURCE).and_then(|source| source.to_str().ok());
        let source = match (request.metadata().contains_key(ON_BEHALF), peer) {
            (true, _) => passed.filter(|source| source.len() <= MAX_SOURCE).unwrap_or_default().to_owned(),
            (false, Some(peer)) => peer.remote.ip().to_canonical().to_string(),
            (false, None) => String::new(),
        };
        Ok(Self { request_id, source, ..caller? })
    }

    /// The caller as the audit log names it.
    pub(super) fn actor(&self) -> Actor {
        Actor { name: self.name.clone(), serial: self.serial.clone(), source: self.source.clone() }
    }

    /// The member whose certificate this is.
    fn member(state: &State, now_ms: u64, serial: &str, fingerprint: &[u8; 32]) -> Result<u64, Status> {
        let profile = v1::CertificateProfile::Controller;
        let record = state.certificates.get(&serial.to_owned());
        let member = record.map_or(0, |record| record.member);
        if record.is_some_and(|record| state.was_removed(record)) {
            let mut status = Status::permission_denied(format!("controller {member} was removed from the cluster"));
            status.metadata_mut().insert(REMOVED, MetadataValue::from_static("1"));
            return Err(status);
        }
        Self::check(state, now_ms, serial, Some(fingerprint), profile)?;
        Ok(member)
    }

    /// Checks again, for calls that last.
    pub(super) fn still_good(&self, state: &State, now_ms: u64, profile: v1::CertificateProfile) -> Result<(), Status> {
        Self::check(state, now_ms, &self.serial, None, profile).map(drop)
    }

    fn check(
        state: &State,
        now_ms: u64,
        serial: &str,
        fingerprint: Option<&[u8; 32]>,
        profile: v1::CertificateProfile,
    ) -> Result<Self, Status> {
        let record = state
            .certificates
            .get(&serial.to_owned())
            .filter(|record| fingerprint.is_none_or(|f| bool::from(record.fingerprint.ct_eq(f))))
            .ok_or_else(|| match state.ended.contains(serial) {
                true => Status::unauthenticated("this certificate has expired"),
                false => Status::unauthenticated("this certificate is not in the records of this authority"),
            })?;
        if record.revoked_ms != 0 {
            return Err(Status::unauthenticated("this certificate is revoked"));
        }
        if record.not_after_ms <= now_ms {
            return Err(Status::unauthenticated("this certificate has expired"));
        }
        if record.profile() != profile {
            let (is, needed) = (name_of(record.profile()), name_of(profile));
            return Err(Status::permission_denied(format!(
                "the certificate of {:?} is a {is}'s; this call is for {needed}s",
                record.name
            )));
        }
        let (name, serial) = (record.name.clone(), serial.to_owned());
        Ok(Self { name, serial, request_id: None, source: String::new() })
    }
}

/// The serial number of the certificate of a connection.
pub(super) fn serial_of<T>(request: &Request<T>) -> Result<String, Status> {
    let certificate = request.extensions().get::<Peer>().and_then(|p| p.certificate.as_ref());
    let none = || Status::unauthenticated("no client certificate on this connection");
    certificate.map(|(serial, _)| serial.clone()).ok_or_else(none)
}

/// The member that calls; see [`member_at`].
pub(super) fn member_of<T>(core: &Core, request: &Request<T>) -> Result<u64, Status> {
    match request.extensions().get::<Peer>() {
        Some(peer) => member_at(core, peer),
        None => Err(Status::internal("a connection of nobody")),
    }
}

/// The member at the other end. 0 while this node has no state yet: then a certificate of the authority for a controller is
/// enough, unless the root has taken it back, and whoever has one could be the leader that brings the state.
fn member_at(core: &Core, peer: &Peer) -> Result<u64, Status> {
    let (serial, fingerprint) = certificate_of(peer)?;
    if !peer.is_controller {
        return Err(Status::permission_denied("this call is for controllers"));
    }
    let state = core.node.shared().read();
    // Entries that this node has yet to apply may hold the record of a member that joined lately.
    let may_come = state.members.is_empty() || (!state.certificates.contains(serial) && !core.node.leads());
    let member = if may_come { 0 } else { Caller::member(&state, core.now_ms(), serial, fingerprint)? };
    // Nor may they tell yet of its removal.
    if core.links.trust().is_revoked(serial) {
        return Err(Status::permission_denied("the certificate of this controller is revoked"));
    }
    Ok(member)
}

fn certificate_of(peer: &Peer) -> Result<&(String, [u8; 32]), Status> {
    peer.certificate.as_ref().ok_or_else(|| Status::unauthenticated("no client certificate on this connection"))
}

/// Whether the certificate of a connection is good for a call of callers of this kind. Controllers make calls of every kind, in
/// the name of others: for these they must be known, while a message of Raft may bring the record of its sender.
pub(super) fn may_call(core: &Core, peer: &Peer, profile: v1::CertificateProfile) -> Result<(), Status> {
    if profile == v1::CertificateProfile::Controller {
        return member_at(core, peer).map(drop);
    }
    let (serial, fingerprint) = certificate_of(peer)?;
    super::forward::ready(core)?;
    let state = core.node.shared().read();
    if peer.is_controller {
        return Caller::member(&state, core.now_ms(), serial, fingerprint).map(drop);
    }
    Caller::check(&state, core.now_ms(), serial, Some(fingerprint), profile).map(drop)
}

/// Whether this node has no record of a caller, or of whom it speaks for. It may have yet to apply that.
pub(super) fn is_unknown(core: &Core, peer: &Peer, on_behalf: Option<&str>) -> bool {
    let state = core.node.shared().read();
    let unknown = |serial: &str| state.standing(&serial.to_owned()).is_none();
    !state.members.is_empty()
        && (peer.certificate.as_ref().is_some_and(|(serial, _)| unknown(serial)) || on_behalf.is_some_and(unknown))
}

/// Whether the certificate of a connection is good for any call at all.
pub(super) fn opens_a_service(core: &Core, peer: &Peer) -> bool {
    let Some((serial, fingerprint)) = &peer.certificate else { return false };
    let (state, now_ms) = (core.node.shared().read(), core.now_ms());
    if state.members.is_empty() {
        return peer.is_controller && !core.links.trust().is_revoked(serial);
    }
    [v1::CertificateProfile::GatewayLink, v1::CertificateProfile::Operator, v1::CertificateProfile::Controller]
        .into_iter()
        .any(|profile| Caller::check(&state, now_ms, serial, Some(fingerprint), profile).is_ok())
}

const fn name_of(profile: v1::CertificateProfile) -> &'static str {
    use v1::CertificateProfile as P;
    match profile {
        P::Unspecified => "nobody",
        P::Machine => "machine",
        P::Gateway => "gateway (IKE)",
        P::GatewayLink => "gateway",
        P::Operator => "operator",
        P::User => "user",
        P::Controller => "controller",
        P::Root => "root",
        P::Endpoint => "endpoint",
        P::Issuing => "issuing authority",
        P::OcspSigner => "signer of OCSP",
        P::ScepRa => "RA of SCEP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        Action, AdmitMember, Bootstrap, CertificateRow, Command, CreateToken, DescribeMember, MAX_REMOVED_MEMBERS,
        RaiseLevel, RecordCertificate, RemoveMember, RevokeCertificate,
    };

    const LEVEL: u32 = 4;

    fn record(id: u64) -> CertificateRow {
        let profile = v1::CertificateProfile::Controller.into();
        let serial = format!("c{id}");
        CertificateRow { serial, profile, fingerprint: vec![7; 32], not_after_ms: u64::MAX, ..Default::default() }
    }

    fn member(id: u64) -> Option<DescribeMember> {
        Some(DescribeMember { id, address: format!("{id}:1"), level: LEVEL, ..Default::default() })
    }

    /// So many controllers have come and gone that nothing is left of the first of them but its certificate's record.
    fn long_lived() -> State {
        let mut state = State::new();
        let root = v1::CertificateProfile::Root.into();
        let mut actions = vec![
            Action::Bootstrap(Bootstrap {
                cluster_id: vec![1; 16],
                root_certificate: vec![2],
                sealed_root_key: vec![3],
                record: Some(CertificateRow { serial: "r00t".into(), profile: root, ..Default::default() }),
                member: member(1),
            }),
            Action::RaiseLevel(RaiseLevel { level: LEVEL, since: "0.1.0".into() }),
            Action::RecordCertificate(RecordCertificate {
                record: Some(CertificateRow { member: 1, ..record(1) }),
                ..Default::default()
            }),
        ];
        for id in 2..MAX_REMOVED_MEMBERS as u64 + 5 {
            let (token, hash) = (id.to_be_bytes().to_vec(), vec![7; 32]);
            let made_by = String::new();
            actions.extend([
                Action::CreateToken(CreateToken { id: token.clone(), hash: hash.clone(), ttl_ms: 60_000, made_by }),
                Action::AdmitMember(AdmitMember {
                    token,
                    hash,
                    member: member(0).map(|m| DescribeMember { address: "b:1".into(), ..m }),
                    record: Some(record(id)),
                    learner: true,
                }),
                Action::RemoveMember(RemoveMember { id }),
            ]);
        }
        for (at, action) in (1_u64..).zip(actions) {
            let request_id = at.to_be_bytes().repeat(2);
            state.apply(&Command { request_id, at_ms: at, action: Some(action) });
        }
        state
    }

    #[test]
    fn a_controller_that_was_removed_is_told_so_however_long_ago_that_was() {
        let mut state = long_lived();
        assert!(!state.members.contains(&2), "nothing else is known of it");
        let answer = |state: &State, serial: &str| Caller::member(state, 1_000_000, serial, &[7; 32]);
        for serial in ["c2", "c1000"] {
            let refused = answer(&state, serial).expect_err("removed");
            assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
            assert!(refused.metadata().contains_key(REMOVED), "{refused}");
        }
        assert_eq!(answer(&state, "c1").expect("a member"), 1);
        // A certificate that was taken back is not the end of its member.
        let revoke = Action::RevokeCertificate(RevokeCertificate { serial: "c1".into(), reason: "stolen".into() });
        state.apply(&Command { request_id: vec![9; 16], at_ms: 1_000_000, action: Some(revoke) });
        let refused = answer(&state, "c1").expect_err("revoked");
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        assert!(!refused.metadata().contains_key(REMOVED));
    }
}
