//! Another root in the place of one: made, vouched for by the old one and trusted beside it, then issuing, then alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use sallyport_ca::{Authority, Certificate, KeyAlgorithm, RootConfig, UnixTime};
use sallyport_proto::v1;

use super::issuers::{self, Wanted};
use super::{algorithm_to_proto, record_of};
use crate::app::Core;
use crate::error::Error;
use crate::state::{Action, BeginRollover, ConstraintsRow, Outcome, Rollover, RolloverStep, TurnRollover};

/// Of those who wait, so many are named.
const NAMED: usize = 100;
/// Certificates that are counted before others may have the state.
const AT_A_TIME: usize = 10_000;

fn none() -> Error {
    Error::Authority("no change of roots is under way; begin one: sallyport ca rollover begin".into())
}

/// Makes the next root, with the root in force vouching for it and the reverse.
pub(crate) async fn begin(core: &Arc<Core>, key: Option<KeyAlgorithm>, name: String) -> Result<(), Error> {
    let old = core.root_authority()?;
    let (number, now) = (core.node.shared().read().next_root(), UnixTime(core.now_ms() as i64 / 1_000));
    let worker = core.clone();
    let made = tokio::task::spawn_blocking(move || -> Result<BeginRollover, sallyport_ca::Error> {
        let (rng, before) = (worker.sealer.rng(), old.authority.certificate());
        let above = issuers::common_name(before);
        let config = RootConfig {
            organization: worker.config.authority.organization.clone(),
            common_name: if name.is_empty() { issuers::next_root_name(&above, number) } else { name },
            key: key.unwrap_or_else(|| old.authority.key_algorithm()),
            validity: worker.config.root_validity(),
        };
        let (new, sealed) = Authority::create(&config, worker.sealer.key(), now, rng)?;
        if new.certificate().subject_der() == before.subject_der() {
            return Err(sallyport_ca::Error::Authority("it has the name of the root in force; choose another"));
        }
        let profile = v1::CertificateProfile::Root;
        let record = record_of(new.certificate(), profile, &config.common_name, Vec::new(), config.key);
        Ok(BeginRollover {
            number,
            certificate: new.certificate().der().to_vec(),
            sealed_key: sealed.into_bytes(),
            record: Some(record),
            before: old.number,
            by_before: old.authority.cross_certify(new.certificate(), now, rng)?.der().to_vec(),
            of_before: new.cross_certify(before, now, rng)?.der().to_vec(),
        })
    });
    let command = made
        .await
        .map_err(|_| Error::Internal("making a root panicked".into()))?
        .map_err(|e| Error::Authority(e.to_string()))?;
    put(core, Action::BeginRollover(command)).await
}

async fn put(core: &Core, action: Action) -> Result<(), Error> {
    match core.propose(action).await?.outcome {
        Some(Outcome::Done(_)) => {
            core.catch_up().await;
            Ok(())
        }
        Some(Outcome::Conflict(conflict)) => Err(Error::Authority(conflict.message)),
        other => Err(Error::Internal(format!("changing roots: {other:?}"))),
    }
}

/// Makes issuing authorities below the next root, of the kinds and with the name constraints that are in force, and lets them issue instead of these.
pub(crate) async fn activate(core: &Arc<Core>, force: bool) -> Result<(), Error> {
    let info = status(core).await?.ok_or_else(none)?;
    if info.activated_unix_ms != 0 {
        return Err(Error::Authority("the next root is in force already".into()));
    }
    if info.waiting != 0 && !info.leads_on && !force {
        return Err(Error::Authority(format!(
            "{} have yet to renew and learn of the next root, and the path length of the root in force (1) does not let it lead \
             them there: they would refuse what is issued from then on. Wait (sallyport ca rollover status lists them), or \
             activate with --force",
            info.waiting
        )));
    }
    let wanted: Vec<Wanted> = {
        let state = core.node.shared().read();
        let in_force: Vec<_> =
            state.issuers_in_force().map(|(_, row)| (row.key_algorithm(), row.constraints.clone())).collect();
        let of = |kind: KeyAlgorithm| {
            let same = in_force.iter().filter(move |(of, _)| *of == algorithm_to_proto(kind));
            same.map(move |(_, row)| (kind, row.as_ref().and_then(ConstraintsRow::read).unwrap_or_default()))
        };
        KeyAlgorithm::ALL.into_iter().flat_map(of).map(|(key, constraints)| Wanted { key, constraints }).collect()
    };
    let root = core.root_authority_of(info.to)?;
    let issuers = issuers::make(core, root, wanted).await?;
    let step = RolloverStep::Activate.into();
    put(core, Action::TurnRollover(TurnRollover { step, from: info.from, to: info.to, issuers })).await
}

/// Trusts the root before no more.
pub(crate) async fn finish(core: &Arc<Core>, force: bool) -> Result<(), Error> {
    let rollover = core.node.shared().read().rollover().ok_or_else(none)?;
    if rollover.activated_ms != 0
        && !force
        && let Some(info) = status(core).await?.filter(|info| info.below_from != 0)
    {
        return Err(Error::Authority(format!(
            "{} have their newest certificate below the root before, and it would be of no use from then on: wait until they \
             renew (sallyport ca rollover status), or finish with --force",
            info.below_from
        )));
    }
    turn(core, rollover, RolloverStep::Finish).await
}

/// Goes back.
pub(crate) async fn abort(core: &Arc<Core>) -> Result<(), Error> {
    let rollover = core.node.shared().read().rollover().ok_or_else(none)?;
    turn(core, rollover, RolloverStep::Abort).await
}

async fn turn(core: &Core, rollover: Rollover, step: RolloverStep) -> Result<(), Error> {
    let command = TurnRollover { step: step.into(), from: rollover.from, to: rollover.to, issuers: Vec::new() };
    put(core, Action::TurnRollover(command)).await
}

/// The newest live certificate of somebody.
struct Newest {
    ready: bool,
    not_after_ms: u64,
    below_from: bool,
}

/// How far the change of roots is that is under way. All live certificates are looked at, on a thread of its own.
pub(crate) async fn status(core: &Arc<Core>) -> Result<Option<v1::RolloverInfo>, Error> {
    if core.node.shared().read().rollover().is_none() {
        return Ok(None);
    }
    let worker = core.clone();
    let looked = tokio::task::spawn_blocking(move || look(&worker)).await;
    looked.map_err(|_| Error::Internal("looking at the change of roots panicked".into()))
}

/// Certificates of the cluster itself, which it replaces before anybody could wait for them.
const fn is_for_the_cluster(profile: v1::CertificateProfile) -> bool {
    use v1::CertificateProfile as P;
    // What answers for a retired authority is below it as long as somebody asks.
    matches!(profile, P::Root | P::Issuing | P::OcspSigner | P::ScepRa | P::Endpoint)
}

const fn is_rsa(kind: v1::KeyAlgorithm) -> bool {
    matches!(kind, v1::KeyAlgorithm::Rsa2048 | v1::KeyAlgorithm::Rsa3072 | v1::KeyAlgorithm::Rsa4096)
}

/// The gateways that have said which roots they trust, and whether they trust this one.
fn told_gateways(core: &Core, root: u64) -> BTreeMap<String, bool> {
    let bit = u32::try_from(root.saturating_sub(1)).ok().and_then(|n| 1_u64.checked_shl(n)).unwrap_or(0);
    let state = core.node.shared().read();
    let signs = core.soft.lock();
    let said = state.gateways.iter().filter_map(|(slot, row)| {
        let signs = signs.gateways.get(slot).filter(|signs| signs.epoch == row.epoch && signs.roots != 0)?;
        Some((row.name.clone(), signs.roots & bit != 0))
    });
    said.collect()
}

fn look(core: &Core) -> Option<v1::RolloverInfo> {
    let (Rollover { from, to, activated_ms }, begun_ms, leads_on) = {
        let state = core.node.shared().read();
        let rollover = state.rollover()?;
        let before = state.roots.get(&rollover.from).and_then(|row| Certificate::from_der(&row.certificate).ok());
        // Below it stand the next root's certificate by it, and an issuing authority.
        let leads_on = before.is_some_and(|before| before.path_length().is_none_or(|limit| limit >= 2));
        (rollover, state.root_life(rollover.from.max(rollover.to)).begun_ms, leads_on)
    };
    let now_ms = core.now_ms();
    let told = told_gateways(core, to);
    let of_gateways: BTreeMap<String, String> = {
        let state = core.node.shared().read();
        state.gateways_of_certificates().into_iter().map(|(serial, name)| (serial.clone(), name.clone())).collect()
    };
    let mut holders = BTreeMap::<(i32, bool, String), Newest>::new();
    let mut before = u64::MAX;
    loop {
        let state = core.node.shared().read();
        let mut seen = 0;
        for row in state.certificates_before(before).take(AT_A_TIME) {
            (before, seen) = (row.number, seen + 1);
            if row.revoked_ms != 0 || row.not_after_ms <= now_ms || is_for_the_cluster(row.profile()) {
                continue;
            }
            // Whose it is: many gateways have the same public name, and one may have had several.
            let gateway = match row.profile() {
                v1::CertificateProfile::GatewayLink => Some(&row.name),
                v1::CertificateProfile::Gateway => {
                    of_gateways.get(&row.serial).or_else(|| Some(&row.gateway).filter(|name| !name.is_empty()))
                }
                _ => None,
            };
            if gateway.is_some_and(|name| state.is_gone(name)) {
                continue;
            }
            // What a root itself has issued is of the time before there were issuing authorities: of the first root.
            let root = state.issuers.get(&row.issuer).map_or(1, |issuer| issuer.root);
            // The newest comes first.
            // A gateway that says which roots it trusts is taken at its word.
            let said = gateway.and_then(|name| told.get(name)).copied();
            let ready = said.unwrap_or(row.issued_ms >= begun_ms);
            let newest = Newest { ready, not_after_ms: row.not_after_ms, below_from: root == from };
            let member = if row.member == 0 { String::new() } else { format!(" (controller {})", row.member) };
            // A gateway shows one of each kind of key.
            let rsa = row.profile() == v1::CertificateProfile::Gateway && is_rsa(row.key_algorithm());
            let name = gateway.unwrap_or(&row.name);
            holders.entry((row.profile, rsa, format!("{name}{member}"))).or_insert(newest);
        }
        if seen < AT_A_TIME {
            break;
        }
    }
    let mut waiting: Vec<v1::WaitingInfo> = Vec::new();
    let (mut ready, mut below_from) = (0, 0);
    for ((profile, _, name), newest) in holders {
        below_from += u64::from(newest.below_from);
        match newest.ready {
            true => ready += 1,
            false => waiting.push(v1::WaitingInfo { name, profile, not_after_unix_ms: newest.not_after_ms }),
        }
    }
    waiting.sort_by_key(|w| w.not_after_unix_ms);
    let count = waiting.len() as u64;
    waiting.truncate(NAMED);
    Some(v1::RolloverInfo {
        from,
        to,
        begun_unix_ms: begun_ms,
        activated_unix_ms: activated_ms,
        ready,
        waiting: count,
        below_from,
        leads_on,
        waiting_first: waiting,
    })
}
