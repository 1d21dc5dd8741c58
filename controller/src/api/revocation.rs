//! The list of controllers' certificates that were taken back: for whoever must tell a controller from one that was.

use std::sync::{Arc, Mutex, PoisonError};

use sallyport_ca::crl::CONTROLLERS;
use sallyport_ca::{Authority, Serial, UnixTime};
use sallyport_proto::v1;
use sallyport_proto::v1::revocation_server::Revocation;
use tonic::{Request, Response, Status};

use super::forward;
use crate::app::Core;
use crate::error::Error;
use crate::state::State;

/// A list is signed anew when it is this old.
const FRESH_MS: u64 = 24 * 3_600 * 1_000;

/// What stands in a list, and the list.
#[derive(Clone, Debug, Default)]
struct Signed {
    revoked: Vec<(String, u64)>,
    at_ms: u64,
    /// Version of what gateways are told: it changes when authorities do.
    policy: u64,
    said: v1::ListControllersResponse,
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
    // And authorities whose keys are in other hands: whoever has one makes himself a controller's certificate.
    let issuers = state.compromised_issuers(now_ms).map(|(serial, at_ms)| (serial.clone(), at_ms));
    of_controllers.map(|c| (c.serial.clone(), c.revoked_ms)).chain(issuers).collect()
}

fn time(ms: u64) -> UnixTime {
    UnixTime(i64::try_from(ms / 1_000).unwrap_or(i64::MAX))
}

fn sign(core: &Core, by: &Authority, revoked: &[(String, u64)], number: u64, now_ms: u64) -> Result<Vec<u8>, Error> {
    let broken = |e: sallyport_ca::Error| Error::Authority(format!("the revocation list: {e}"));
    let entries = revoked.iter().map(|(serial, at_ms)| Ok((serial.parse::<Serial>()?, time(*at_ms))));
    let entries = entries.collect::<Result<Vec<_>, sallyport_ca::Error>>().map_err(broken)?;
    by.revocation_list(CONTROLLERS, number, &entries, time(now_ms), core.sealer.rng()).map_err(broken)
}

/// The list as it is now, signed by this root.
pub(crate) fn signed_list(core: &Core, root: &Authority) -> Result<Vec<u8>, Error> {
    let now_ms = core.now_ms();
    let (revoked, number) = {
        let state = core.node.shared().read();
        (revoked(&state, now_ms), state.last_certificate())
    };
    sign(core, root, &revoked, number, now_ms)
}

/// What is said, now. Readers know a root, and of the authorities below it nothing: so the root signs. While its key is away, or another
/// root follows it, an issuing authority does, and the way to each root comes with its list; who only knows roots takes a list of the
/// older root's, which it signed last or does now.
fn say(
    core: &Core,
    revoked: &[(String, u64)],
    number_of_list: u64,
    now_ms: u64,
) -> Result<v1::ListControllersResponse, Error> {
    let (oldest, has_key, alone, kept, issuer, cross, roots, trusted, crossing) = {
        let state = core.node.shared().read();
        let rollover = state.rollover();
        let oldest = rollover.map_or_else(|| state.root_number(), |r| r.from.min(r.to));
        let has_key = state.roots.get(&oldest).is_some_and(|row| !row.sealed_key.is_empty());
        let issuer = state.issuers_in_force().next().map(|(number, _)| number);
        let kept = state.root_life(oldest).controllers_list;
        let roots: Vec<Vec<u8>> = state.trusted_roots().map(|(_, row)| row.certificate.clone()).collect();
        let trusted: Vec<u64> = state.trusted_roots().map(|(number, _)| number).collect();
        let (cross, crossing) = (state.cross_certificates(), state.root_crossings());
        (oldest, has_key, rollover.is_none(), kept, issuer, cross, roots, trusted, crossing)
    };
    let crl = match has_key {
        true => sign(core, &core.root_authority_of(oldest)?.authority, revoked, number_of_list, now_ms)?,
        false => kept,
    };
    if has_key && alone {
        return Ok(v1::ListControllersResponse { crl, below: Vec::new(), roots, crossing });
    }
    let by = core.issuer(issuer.ok_or_else(|| Error::Authority("no authority is there to sign the list".into()))?)?;
    let mut below = by.authority.certificate().der().to_vec();
    below.extend(cross.concat());
    below.extend(sign(core, &by.authority, revoked, number_of_list, now_ms)?);
    // What is said of an authority counts only if a root has signed it: the list of each whose key is here.
    for number in trusted.into_iter().filter(|number| *number != oldest) {
        if let Ok(root) = core.root_authority_of(number) {
            below.extend(sign(core, &root.authority, revoked, number_of_list, now_ms)?);
        }
    }
    Ok(v1::ListControllersResponse { crl, below, roots, crossing })
}

/// The lists as they are now, for a node that is about to receive the state.
pub(crate) fn revoked_controllers(core: &Core) -> Result<Vec<u8>, Status> {
    let now_ms = core.now_ms();
    let (revoked, number) = {
        let state = core.node.shared().read();
        (revoked(&state, now_ms), state.last_certificate())
    };
    let v1::ListControllersResponse { crl, below, .. } = say(core, &revoked, number, now_ms)?;
    // Such a node knows of other signers, and trusts the root in force alone: another root's list would be an error there.
    Ok(if below.is_empty() { crl } else { below })
}

impl RevocationService {
    /// The service over `core`.
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, last: Arc::default() }
    }

    fn list(&self) -> Result<v1::ListControllersResponse, Status> {
        let now_ms = self.core.now_ms();
        let (revoked, number, policy) = {
            let state = self.core.node.shared().read();
            (revoked(&state, now_ms), state.last_certificate(), state.policy_version())
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let same = last.revoked == revoked && last.policy == policy;
        if last.at_ms != 0 && same && now_ms.saturating_sub(last.at_ms) < FRESH_MS {
            return Ok(last.said.clone());
        }
        let said = say(&self.core, &revoked, number, now_ms)?;
        *last = Signed { revoked, at_ms: now_ms, policy, said };
        Ok(last.said.clone())
    }
}

#[tonic::async_trait]
impl Revocation for RevocationService {
    async fn list_controllers(
        &self,
        _request: Request<v1::ListControllersRequest>,
    ) -> Result<Response<v1::ListControllersResponse>, Status> {
        forward::ready(&self.core)?;
        Ok(Response::new(self.list()?))
    }
}
