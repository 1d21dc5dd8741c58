//! Who calls: the certificate of the connection, looked up in the records at each call.

use sallyport_proto::v1;
use subtle::ConstantTimeEq;
use tonic::{Request, Status};

use super::server::Peer;
use crate::app::Core;
use crate::state::State;

/// A caller whose certificate is good.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The name in the certificate's record.
    pub(super) name: String,
    /// Its serial number.
    pub(super) serial: String,
}

impl Caller {
    /// The caller of a request, if its certificate is of the right kind.
    pub(super) fn of<T>(core: &Core, request: &Request<T>, profile: v1::CertificateProfile) -> Result<Self, Status> {
        let peer = request.extensions().get::<Peer>();
        let (serial, fingerprint) = peer
            .and_then(|p| p.certificate.as_ref())
            .ok_or_else(|| Status::unauthenticated("no client certificate on this connection"))?;
        let state = core.node.shared().read();
        let caller = Self::check(&state, core.clock.unix_ms(), serial, Some(fingerprint), profile);
        if let (Err(status), Some(peer)) = (&caller, peer) {
            tracing::warn!(remote = %peer.remote, %serial, reason = status.message(), "refused a caller");
        }
        caller
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
            .ok_or_else(|| Status::unauthenticated("this certificate is not in the records of this authority"))?;
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
        Ok(Self { name: record.name.clone(), serial: serial.to_owned() })
    }
}

/// Whether the certificate of a connection is good for any call at all.
pub(super) fn opens_a_service(core: &Core, peer: &Peer) -> bool {
    let Some((serial, fingerprint)) = &peer.certificate else { return false };
    let (state, now_ms) = (core.node.shared().read(), core.clock.unix_ms());
    [v1::CertificateProfile::GatewayLink, v1::CertificateProfile::Operator]
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
        P::Controller => "controller",
        P::Root => "root",
    }
}
