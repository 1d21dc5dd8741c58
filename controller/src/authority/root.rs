//! The root's key out of the cluster and back, and a root elsewhere above ours.

use std::sync::Arc;

use sallyport_ca::crl::{Contents, Revoked};
use sallyport_ca::seal::Sealed;
use sallyport_ca::{Authority, Certificate, KeyPair, UnixTime};
use sallyport_endpoint::Crl;
use zeroize::Zeroizing;

use super::Issuing;
use crate::app::Core;
use crate::error::Error;
use crate::state::{Action, ConflictKind, EraseRootKey, InstallRootChain, MAX_ROOTS, Outcome, RestoreRootKey};

/// How long the list is good that a root signs before its key goes: so often there is a ceremony at least. 400 days, milliseconds.
const LIST_MS: u64 = 400 * 86_400 * 1_000;
/// Before a list of a root ends whose key is away, its operators are told so many days.
const WARN_DAYS: i64 = 60;
/// Longest stay of a key that came back for a while: a month, seconds.
const LONGEST_STAY_S: u32 = 31 * 86_400;
/// How often a revocation may come between the signing of the last lists and their entry in the log.
const TRIES: usize = 5;

fn time(ms: u64) -> UnixTime {
    UnixTime(i64::try_from(ms / 1_000).unwrap_or(i64::MAX))
}

/// What the key is erased with: the lists that it signs last.
fn farewell(core: &Core, root: &Issuing) -> Result<EraseRootKey, Error> {
    let now_ms = core.now_ms();
    let (last_revocation, revoked) = {
        let state = core.node.shared().read();
        let rows = state.revoked_of(0, now_ms);
        let revoked: Vec<Revoked> = rows
            .filter_map(|c| {
                let serial = c.serial.parse().ok()?;
                Some(Revoked { serial, at: time(c.revoked_ms), reason: c.reason() })
            })
            .collect();
        (state.last_revocation(), revoked)
    };
    let certificate = root.authority.certificate();
    let end_ms = u64::try_from(certificate.not_after.0).unwrap_or(0).saturating_mul(1_000);
    let own_list_until_ms = now_ms.saturating_add(LIST_MS).min(end_ms);
    let contents = Contents {
        distribution_points: &[],
        number: crate::lists::number(core),
        revoked: &revoked,
        this_update: time(now_ms),
        next_update: time(own_list_until_ms),
    };
    let broken = |e: sallyport_ca::Error| Error::Authority(format!("the root's last list: {e}"));
    let tbs = root.authority.prepare_revocation_list(&contents).map_err(broken)?;
    let own_list = root.authority.sign_revocation_list(&tbs, core.sealer.rng()).map_err(broken)?;
    let controllers_list = crate::api::signed_list(core, &root.authority)?;
    Ok(EraseRootKey { root: root.number, controllers_list, own_list, own_list_until_ms, last_revocation })
}

fn refused(what: &str, outcome: Option<Outcome>) -> Error {
    match outcome {
        Some(Outcome::Conflict(conflict)) => Error::Authority(conflict.message),
        other => Error::Internal(format!("{what}: {other:?}")),
    }
}

/// Erases the private key of a root from the state. Its last lists are signed and put into the same entry.
pub(crate) async fn erase(core: &Arc<Core>, number: u64) -> Result<(), Error> {
    for _ in 0..TRIES {
        let root = core.root_authority_of(number)?;
        let worker = core.clone();
        let command = tokio::task::spawn_blocking(move || farewell(&worker, &root)).await;
        let command = command.map_err(|_| Error::Internal("signing the root's last lists panicked".into()))??;
        let reply = core.propose(Action::EraseRootKey(command)).await?;
        match reply.outcome {
            Some(Outcome::Done(_)) => {
                core.catch_up().await;
                core.close_erased();
                return Ok(());
            }
            Some(Outcome::Conflict(conflict)) if conflict.kind() == ConflictKind::Changed => {}
            other => return Err(refused("erasing the root's key", other)),
        }
    }
    Err(Error::Superseded("certificates are revoked all the time; try again in a moment".into()))
}

/// What is signed to show that a root's key is in other hands: for this cluster and this root, and good for nothing else.
pub fn erasure_proof(cluster_id: &[u8], certificate: &[u8]) -> Vec<u8> {
    let fingerprint = sallyport_ca::Fingerprint::of(certificate).0;
    [b"sallyport: the root's key is kept elsewhere\0".as_slice(), &fingerprint, cluster_id].concat()
}

/// Takes a root's key back; it is erased again after so many seconds, unless that is 0.
pub(crate) async fn import(core: &Arc<Core>, number: u64, pkcs8: Zeroizing<Vec<u8>>, for_s: u32) -> Result<(), Error> {
    if for_s > LONGEST_STAY_S {
        return Err(Error::Refused("for: at most 31 days; without an end: --keep".into()));
    }
    let certificate = core.node.shared().read().roots.get(&number).map(|row| row.certificate.clone());
    let certificate = certificate.ok_or_else(|| Error::Refused(format!("there is no root {number}")))?;
    let worker = core.clone();
    let sealed = tokio::task::spawn_blocking(move || {
        let key = KeyPair::from_pkcs8_der(&pkcs8)?;
        let authority = Authority::from_parts(key, &certificate)?;
        authority.seal(worker.sealer.key(), worker.sealer.rng())
    });
    let sealed: Sealed = sealed
        .await
        .map_err(|_| Error::Internal("sealing the root's key panicked".into()))?
        .map_err(|e| Error::Refused(format!("this is not the key of root {number}: {e}")))?;
    let until_ms = match for_s {
        0 => 0,
        for_s => core.now_ms().saturating_add(u64::from(for_s) * 1_000).max(1),
    };
    let command = RestoreRootKey { root: number, sealed_key: sealed.into_bytes(), until_ms };
    let reply = core.propose(Action::RestoreRootKey(command)).await?;
    match reply.outcome {
        Some(Outcome::Done(_)) => {
            core.catch_up().await;
            Ok(())
        }
        other => Err(refused("bringing the root's key back", other)),
    }
}

/// Erases the keys whose stay is over, and says when a ceremony is due. Only the leader calls this.
pub(crate) async fn sweep(core: &Arc<Core>) -> Result<(), Error> {
    let now_ms = core.now_ms();
    if let Some(list) = kept_list(core)
        && core.authorities.warns_of_list(now_ms)
    {
        let days = (list.next_update.0 - time(now_ms).0) / 86_400;
        if days < WARN_DAYS {
            tracing::warn!(
                days,
                "the root's list of what it has taken back ends in so many days, for its key is out of the cluster: bring that back \
                 for a moment (sallyport ca root import)"
            );
        }
    }
    let over: Vec<u64> = {
        let state = core.node.shared().read();
        state.visiting_keys().filter(|(_, until_ms)| *until_ms <= now_ms).map(|(number, _)| number).collect()
    };
    for root in over {
        erase(core, root).await?;
        tracing::warn!(root, "the root's private key was here for a while, and is erased again");
    }
    Ok(())
}

/// More than there are roots.
const ROOTS: u64 = MAX_ROOTS as u64 + 1;

/// The list of the root in force while its key is away: the last that it signed.
pub(crate) fn kept_list(core: &Core) -> Option<Crl> {
    let state = core.node.shared().read();
    let (number, row) = state.root_in_force()?;
    if !row.sealed_key.is_empty() {
        return None;
    }
    let life = state.root_life(number);
    // It is told from other lists by its end, and from another root's by that; when it was made nobody has written down.
    let number = life.own_list_until_ms / 1_000 * ROOTS + number % ROOTS;
    let next_update = time(life.own_list_until_ms);
    Some(Crl { der: life.own_list.into(), number, this_update: UnixTime(0), next_update })
}

/// Puts a root below an authority elsewhere; nothing above takes it away from there.
pub(crate) async fn install(core: &Arc<Core>, number: u64, above: Vec<Vec<u8>>) -> Result<(), Error> {
    let own = core.node.shared().read().roots.get(&number).map(|row| row.certificate.clone());
    let own = own.ok_or_else(|| Error::Refused(format!("there is no root {number}")))?;
    if !above.is_empty() {
        let parse = |der: &[u8]| Certificate::from_der(der).map_err(|e| Error::Refused(e.to_string()));
        let chain = above.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
        parse(&own)?.stands_below(&chain, time(core.now_ms())).map_err(Error::Refused)?;
    }
    let reply = core.propose(Action::InstallRootChain(InstallRootChain { root: number, above })).await?;
    match reply.outcome {
        Some(Outcome::Done(_)) => {
            core.catch_up().await;
            Ok(())
        }
        other => Err(refused("installing a chain", other)),
    }
}
