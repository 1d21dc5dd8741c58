//! The list of controllers' certificates that were taken back: for whoever must tell a controller from one that was.

use std::sync::{Arc, Mutex, PoisonError};

use sallyport_ca::crl::CONTROLLERS;
use sallyport_ca::{Serial, UnixTime};
use sallyport_proto::v1;
use sallyport_proto::v1::revocation_server::Revocation;
use tonic::{Request, Response, Status};

use super::forward;
use crate::app::Core;
use crate::state::State;

/// A list is signed anew when it is this old.
const FRESH_MS: u64 = 24 * 3_600 * 1_000;

/// What stands in a list, and the list.
#[derive(Clone, Debug, Default)]
struct Signed {
    revoked: Vec<(String, u64)>,
    at_ms: u64,
    crl: Vec<u8>,
}

/// The service. Whoever calls may be anybody: the list is signed once and then handed out.
#[derive(Clone)]
pub(super) struct RevocationService {
    core: Arc<Core>,
    last: Arc<Mutex<Signed>>,
}

/// Serial numbers of controllers' certificates that are revoked and would still be valid, and when they were.
fn revoked(state: &State, now_ms: u64) -> Vec<(String, u64)> {
    let of_controllers = state
        .certificates_of_members()
        .filter(|c| c.revoked_ms != 0 && c.not_after_ms > now_ms && c.profile() == v1::CertificateProfile::Controller);
    of_controllers.map(|c| (c.serial.clone(), c.revoked_ms)).collect()
}

fn time(ms: u64) -> UnixTime {
    UnixTime(i64::try_from(ms / 1_000).unwrap_or(i64::MAX))
}

fn sign(core: &Core, revoked: &[(String, u64)], number: u64, now_ms: u64) -> Result<Vec<u8>, Status> {
    let broken = |e: sallyport_ca::Error| Status::internal(format!("the revocation list: {e}"));
    let entries = revoked.iter().map(|(serial, at_ms)| Ok((serial.parse::<Serial>()?, time(*at_ms))));
    let entries = entries.collect::<Result<Vec<_>, sallyport_ca::Error>>().map_err(broken)?;
    // Readers know the root, and of the authorities below it nothing.
    let root = core.root_authority()?.authority;
    root.revocation_list(CONTROLLERS, number, &entries, time(now_ms), core.sealer.rng()).map_err(broken)
}

/// The list as it is now, for a node that is about to receive the state.
pub(crate) fn revoked_controllers(core: &Core) -> Result<Vec<u8>, Status> {
    let now_ms = core.now_ms();
    let (revoked, number) = {
        let state = core.node.shared().read();
        (revoked(&state, now_ms), state.last_certificate())
    };
    sign(core, &revoked, number, now_ms)
}

impl RevocationService {
    /// The service over `core`.
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, last: Arc::default() }
    }

    fn list(&self) -> Result<Vec<u8>, Status> {
        let now_ms = self.core.now_ms();
        let (revoked, number) = {
            let state = self.core.node.shared().read();
            (revoked(&state, now_ms), state.last_certificate())
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !last.crl.is_empty() && last.revoked == revoked && now_ms.saturating_sub(last.at_ms) < FRESH_MS {
            return Ok(last.crl.clone());
        }
        let crl = sign(&self.core, &revoked, number, now_ms)?;
        *last = Signed { revoked, at_ms: now_ms, crl };
        Ok(last.crl.clone())
    }
}

#[tonic::async_trait]
impl Revocation for RevocationService {
    async fn list_controllers(
        &self,
        _request: Request<v1::ListControllersRequest>,
    ) -> Result<Response<v1::ListControllersResponse>, Status> {
        forward::ready(&self.core)?;
        Ok(Response::new(v1::ListControllersResponse { crl: self.list()? }))
    }
}
