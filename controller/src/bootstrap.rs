//! The first start of a cluster, and what each start makes sure of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sallyport_ca::{Authority, KeyAlgorithm, Profile, RootConfig, UnixTime};
use sallyport_proto::{CONTROLLER_NAME, v1};

use crate::api::Tls;
use crate::app::{Core, Paths};
use crate::auth::Authenticator;
use crate::auth::password::Workers;
use crate::authority::{self, IssueRequest, Owner};
use crate::cluster::admit;
use crate::cluster::links::Links;
use crate::cluster::member::MemberFile;
use crate::cluster::pass::Pass;
use crate::config::UnsealConfig;
use crate::error::Error;
use crate::identity::KeyPlace;
use crate::own_key::OwnKey;
use crate::raft::Health;
use crate::seal::Sealer;
use crate::state::{Action, Bootstrap, DescribeMember, Outcome};
use crate::{files, identity};

/// How often to look at the age of this node's certificates, and whether what the cluster knows of it is still true.
const LOOK: Duration = Duration::from_secs(3_600);
/// The same while it could not be set right.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Pause between two looks for the state that a new member receives.
const RECEIVING: Duration = Duration::from_millis(100);

/// Sees that this node has its certificate, making the cluster where it shall be made. Returns the TLS side of the gRPC
/// address.
pub(crate) async fn identify(core: &Arc<Core>) -> Result<Tls, Error> {
    if MemberFile::read(&core.paths.member())?.is_none() {
        // Nobody else is in the group yet: it can decide alone.
        core.linearizable().await?;
        if !core.node.shared().read().is_bootstrapped() {
            make_cluster(core).await?;
        }
        core.open_authorities()?;
        authority::first_issuers(core).await?;
        keep_authority_files(core)?;
        if core.node.shared().read().members.is_empty() {
            core.propose(Action::DescribeMember(describe(core))).await?;
        }
        own_certificate(core).await?;
        identity::operator(core, &core.paths.operator()).await?;
        write_member(core)?;
    }
    if let Some(file) = MemberFile::read(&core.paths.member())?
        && core.paths.operator().is_dir()
    {
        write_addresses(core, &file)?;
    }
    show_identity(&core.paths, &core.sealer, &core.config.unseal, &core.links)?;
    Tls::new(core)
}

/// Opens what all calls need, once the state is there: a new member receives it first.
pub(crate) async fn open(core: &Arc<Core>, workers: Workers) -> Result<(), Error> {
    let mut health = core.node.health();
    let mut removed = core.links.removal().subscribe();
    while !core.node.shared().read().is_bootstrapped() {
        match health.borrow_and_update().clone() {
            Health::Running => {}
            Health::Failed { path, cause } => return Err(Error::Storage { path, cause }),
            Health::Outdated(beyond) => return Err(Error::Outdated(beyond)),
            Health::Stopped => {
                return Err(Error::Internal("the Raft group stopped while the state was received".into()));
            }
        }
        if *removed.borrow_and_update() {
            return Err(Error::Removed { id: core.node.id(), state: core.paths.root().into() });
        }
        tokio::time::sleep(RECEIVING).await;
    }
    if !core.knows_root() {
        core.open_authorities()?;
        keep_authority_files(core)?;
    }
    let authenticator = Authenticator::new(workers, &core.sealer, &core.cluster_id()).await?;
    let _ = core.authenticator.set(authenticator); // this function runs once
    Ok(())
}

/// What the cluster shall know of this node.
fn describe(core: &Core) -> DescribeMember {
    let name = if core.config.name.is_empty() { files::host_name() } else { core.config.name.clone() };
    DescribeMember {
        id: core.node.id(),
        name,
        address: core.address.clone(),
        version: core.software.version.clone(),
        level: core.software.level,
    }
}

/// A crash anywhere in here leaves nothing that the next start would not make again: nobody has seen it.
async fn make_cluster(core: &Arc<Core>) -> Result<(), Error> {
    let config = &core.config.authority;
    let root = RootConfig {
        organization: config.organization.clone(),
        common_name: config.common_name.clone(),
        key: config.key,
        validity: core.config.root_validity(),
    };
    let now = UnixTime(i64::try_from(core.now_ms() / 1_000).unwrap_or(i64::MAX));
    let worker = core.clone();
    let made = tokio::task::spawn_blocking(move || {
        let rng = worker.sealer.rng();
        let (authority, sealed) = Authority::create(&root, worker.sealer.key(), now, rng)?;
        // The root's own record is named like its subject.
        Ok::<_, sallyport_ca::Error>((authority.certificate().clone(), sealed, root))
    });
    let (certificate, sealed, root) = made
        .await
        .map_err(|_| Error::Internal("making the root panicked".into()))?
        .map_err(|e| Error::Authority(e.to_string()))?;
    let record =
        authority::record_of(&certificate, v1::CertificateProfile::Root, &root.common_name, Vec::new(), root.key);
    let cluster_id: [u8; 16] = core.sealer.random()?;
    let reply = core
        .propose(Action::Bootstrap(Bootstrap {
            cluster_id: cluster_id.to_vec(),
            root_certificate: certificate.der().to_vec(),
            sealed_root_key: sealed.into_bytes(),
            record: Some(record),
            member: Some(describe(core)),
        }))
        .await?;
    match reply.outcome {
        Some(Outcome::Done(_)) => {
            tracing::info!(fingerprint = %certificate.fingerprint, "made a new cluster and its root certificate");
            Ok(())
        }
        other => Err(Error::Internal(format!("making the cluster: {other:?}"))),
    }
}

/// The authorities outside the store, so that the loss of the store is not their loss. The log has the last word.
fn keep_authority_files(core: &Core) -> Result<(), Error> {
    let dir = core.paths.ca();
    files::private_dir(&dir)?;
    files::private_dir(&core.paths.controller())?;
    core.close_erased();
    let mut wanted = vec![
        (core.paths.controller().join("ca.pem"), core.roots_pem().into_bytes()),
        (dir.join("root.pem"), core.root().pem().into_bytes()),
    ];
    {
        let state = core.node.shared().read();
        let of_root = state.root_in_force().map(|(_, root)| root.sealed_key.clone());
        match of_root.filter(|key| !key.is_empty()) {
            Some(key) => wanted.push((dir.join("root.key.sealed"), key)),
            None => files::destroy(&dir.join("root.key.sealed"))?,
        }
        for (number, row) in state.issuers.iter() {
            wanted
                .push((dir.join(format!("issuing-{number}.pem")), authority::pem_of([&row.certificate]).into_bytes()));
            wanted.push((dir.join(format!("issuing-{number}.key.sealed")), row.sealed_key.clone()));
        }
    }
    for (path, contents) in wanted {
        if files::read_public(&path)?.as_deref() != Some(&contents) {
            files::write_private(&path, &contents)?;
        }
    }
    Ok(())
}

/// The controller's own certificate: its common name and first alternative name are the same for all controllers.
pub(crate) async fn own_certificate(core: &Arc<Core>) -> Result<(), Error> {
    let dir = core.paths.controller();
    files::private_dir(&dir)?;
    let request = IssueRequest {
        profile: Profile::Controller,
        name: CONTROLLER_NAME.into(),
        sans: core.config.names.clone(),
        key: KeyAlgorithm::EcdsaP256,
        days: 0,
    };
    let key = OwnKey::of(&core.paths, &core.sealer, &core.config.unseal);
    let owner = Owner { member: core.node.id(), ..Owner::default() };
    identity::pair(core, request, owner, &dir.join("cert.pem"), &KeyPlace::Own(key)).await
}

/// Shows other members the certificate in the state folder from now on, and whose member this node is.
pub(crate) fn show_identity(paths: &Paths, sealer: &Sealer, unseal: &UnsealConfig, links: &Links) -> Result<(), Error> {
    let dir = paths.controller();
    let missing = |path: std::path::PathBuf| Error::File {
        path,
        cause: "missing".into(),
        remedy: "put it back from a backup of the state folder, or remove the folder and join with a new token".into(),
    };
    let read = |name: &str| files::read_public(&dir.join(name))?.ok_or_else(|| missing(dir.join(name)));
    let own = OwnKey::of(paths, sealer, unseal);
    own.put_away()?;
    identity::finish_pair(&dir.join("cert.pem"), &KeyPlace::Own(OwnKey::of(paths, sealer, unseal)))?;
    let key = own.read()?.ok_or_else(|| missing(own.path().clone()))?;
    if let Some(member) = MemberFile::read(&paths.member())? {
        links.belong(Pass::new(sealer, &member));
    }
    let ca = read("ca.pem")?;
    links.trust().read_list(paths, &ca)?;
    links.identify(ca, read("cert.pem")?, key);
    Ok(())
}

/// Notes who this node is and where the others are, for a start after the loss of the store.
fn write_member(core: &Core) -> Result<(), Error> {
    let begun_ms = core.node.shared().read().begun_ms();
    let file = MemberFile { cluster: core.cluster_id(), begun_ms, id: core.node.id(), members: admit::addresses(core) };
    file.write(&core.paths.member())?;
    write_addresses(core, &file)
}

/// For operator commands on this machine: this controller first, then the others.
fn write_addresses(core: &Core, file: &MemberFile) -> Result<(), Error> {
    let own = core.reachable.to_string();
    let others = file.members.iter().filter(|m| **m != own && **m != core.address);
    let text: String = std::iter::once(&own).chain(others).map(|m| format!("{m}\n")).collect();
    identity::write_if_other(&core.paths.operator().join("controller"), text.as_bytes())
}

/// Where members are by the state, and by Raft's membership, which follows it.
fn in_use(core: &Core) -> BTreeSet<String> {
    let of_group = core.node.membership().addresses.into_values();
    let state = core.node.shared().read();
    of_group.chain(state.live_members().map(|(_, m)| m.address.clone())).collect()
}

/// Sees that this node's certificates are young, and that what the cluster knows of it is true. A renewed certificate is shown to whoever
/// connects from then on, and in connections to other members; those that are open stay. Returns whether there is a state to do it by.
pub(crate) async fn refresh(core: &Arc<Core>, tls: &Tls) -> Result<bool, Error> {
    if !core.is_ready() {
        return Ok(false);
    }
    let wanted = describe(core);
    if core.node.shared().read().members.get(&wanted.id).is_some_and(|m| m.removed_ms != 0) {
        core.links.removal().certain();
    }
    let known = core.node.shared().read().member(wanted.id).cloned();
    if let Some(known) = known
        && (known.name != wanted.name
            || known.address != wanted.address
            || known.version != wanted.version
            || known.supports_level != wanted.level)
    {
        match core.node.leader() {
            Some(_) => drop(core.propose(Action::DescribeMember(wanted)).await?),
            None => core.propose_anywhere(Action::DescribeMember(wanted)).await?,
        }
    }
    own_certificate(core).await?;
    identity::operator(core, &core.paths.operator()).await?;
    write_member(core)?;
    keep_authority_files(core)?;
    show_identity(&core.paths, &core.sealer, &core.config.unseal, &core.links)?;
    core.links.keep_only(&in_use(core));
    tls.reload(core)?;
    Ok(true)
}

/// Does so until the process ends.
pub(crate) async fn keep_fresh(core: Arc<Core>, tls: Arc<Tls>) {
    let mut changes = core.node.shared().changes();
    loop {
        let pause = match refresh(&core, &tls).await {
            Ok(true) => LOOK,
            Ok(false) => RECEIVING,
            Err(e) => {
                tracing::debug!(error = %e, "this node's certificates and description could not be looked after; trying again");
                LOOK_AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Members come and go rarely, and their addresses are what a node without a store needs.
            changed = changes.changed(), if core.is_ready() => {
                if changed.is_err() { return }
                if let Err(e) = write_member(&core) {
                    tracing::warn!(error = %e, "could not note the members");
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}
