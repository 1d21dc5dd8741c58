//! What the members say of themselves.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use sallyport_proto::v1;
use tonic::Request;

use crate::app::Core;

/// How long a member may take to describe itself. All are asked at a time, and of one that is away there is its last contact.
const PATIENCE: Duration = Duration::from_millis(500);

/// What this node knows of itself.
pub(crate) fn own(core: &Core) -> v1::MemberVitals {
    let figures = core.node.figures();
    let raft = core.paths.raft();
    v1::MemberVitals {
        id: figures.id,
        version: core.software.version.clone(),
        level: core.software.level,
        term: figures.term,
        leader_id: figures.leader,
        last_log_index: figures.last_log,
        applied_index: figures.applied,
        snapshot_index: figures.snapshot,
        disk_bytes: size_of(&raft),
        disk_free_bytes: free_at(&raft),
        engine: core.config.storage.engine.name().into(),
        unsealed: core.is_ready(),
        started_unix_ms: core.started_ms(),
        wall_unix_ms: core.clock.unix_ms(),
        clock_offset_ms: core.node.time().offset_ms(),
    }
}

/// Asks another member; `None` when it does not answer.
pub(crate) async fn ask(core: &Core, id: u64, address: &str) -> Option<v1::MemberVitals> {
    let mut client = core.links.peer(address).ok()?;
    let mut request = Request::new(v1::DescribeRequest { target: id });
    request.set_timeout(PATIENCE);
    match tokio::time::timeout(PATIENCE, client.describe(request)).await {
        Ok(Ok(answer)) => answer.into_inner().vitals,
        Ok(Err(status)) => {
            core.links.removal().refused_by(id, &status);
            None
        }
        Err(_) => None,
    }
}

/// The members as this node sees them; how far each log is, the leader knows best.
pub(crate) async fn cluster(core: &Core) -> v1::GetClusterResponse {
    let figures = core.node.figures();
    let membership = core.node.membership();
    let replicated = core.node.replicated();
    let (level, level_held, rows): (_, _, Vec<_>) = {
        let state = core.node.shared().read();
        let known = state.members.iter();
        let rows = known
            .filter(|(id, m)| m.removed_ms == 0 || membership.addresses.contains_key(id))
            .map(|(id, m)| (*id, m.clone()))
            .collect();
        (state.level(), state.settings().hold_upgrade, rows)
    };
    let asked = rows.iter().map(|(id, row)| async move {
        if *id == figures.id { Some(own(core)) } else { ask(core, *id, &row.address).await }
    });
    let mut members = Vec::with_capacity(rows.len());
    for ((id, row), vitals) in rows.iter().zip(join_all(asked).await) {
        let role = if row.removed_ms != 0 || !membership.addresses.contains_key(id) {
            v1::MemberRole::Changing
        } else if *id == figures.leader {
            v1::MemberRole::Leader
        } else if membership.voters.contains(id) {
            v1::MemberRole::Voter
        } else {
            v1::MemberRole::Learner
        };
        let says = vitals.as_ref().map_or(0, |v| v.last_log_index);
        let reached = match replicated.get(id) {
            _ if *id == figures.id => figures.last_log,
            Some(known) => (*known).max(says),
            None => says,
        };
        members.push(v1::ClusterMember {
            id: *id,
            name: row.name.clone(),
            address: row.address.clone(),
            role: role.into(),
            lag: figures.last_log.saturating_sub(reached),
            vitals,
            joined_unix_ms: row.joined_ms,
            wants_vote: row.wants_vote,
            version: row.version.clone(),
            level: row.level(),
            last_contact_unix_ms: core.links.last_contact(*id),
        });
    }
    v1::GetClusterResponse {
        members,
        last_log_index: figures.last_log,
        leader_id: figures.leader,
        term: figures.term,
        cluster_id: core.cluster_id(),
        level,
        level_held,
        seen_by: figures.id,
        stale: Some(crate::api::live::stale_policy(core)),
    }
}

/// Bytes of the files below a folder.
fn size_of(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Bytes that the file system of a folder has free for us.
fn free_at(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize))
}
