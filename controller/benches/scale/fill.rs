//! States are made by commands, as a controller applies them.

use std::path::Path;
use std::sync::Arc;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId};
use sallyport_controller::Engine;
use sallyport_controller::raft::kv::{Kv, KvError};
use sallyport_controller::raft::{LogStore, StateMachine, TypeConfig, store};
use sallyport_controller::state::{
    Action, Bootstrap, CertificateRow, Command, CommandBatch, DescribeMember, Outcome, RecordCertificate,
};
use sallyport_proto::v1;

/// Commands in an entry, as when many arrive at once.
const BATCH: usize = 256;
/// Entries in the log: those between two snapshots and those that are kept behind one.
pub(crate) const LOG: u64 = 11_000;
/// The log's time at the first command, milliseconds since 1970.
pub(crate) const BEGIN_MS: u64 = 1_700_000_000_000;

/// Makes entries of commands.
pub(crate) struct Filler {
    pub(crate) machine: StateMachine,
    index: u64,
    commands: Vec<Command>,
    /// Number of the first request, and of the last.
    first: u64,
    requests: u64,
    /// The log's time at the first request: it goes on by a tenth of a millisecond with each.
    pub(crate) at_ms: u64,
    kept: Option<(Arc<dyn Kv>, LogStore)>,
}

fn opened(path: &Path, engine: Engine) -> Arc<dyn Kv> {
    loop {
        match store::open(path, engine) {
            Err(KvError::Locked { .. }) => std::thread::yield_now(),
            other => return other.unwrap(),
        }
    }
}

impl Filler {
    /// Begins a cluster of this level in an empty folder.
    pub(crate) async fn begin(path: &Path, engine: Engine, level: u32) -> Self {
        let kv = opened(&path.join("store"), engine);
        let log = LogStore::new(kv.clone()).unwrap();
        let machine = StateMachine::open(kv.clone(), &path.join("snapshots")).unwrap();
        let mut this = Self::new(machine, 0, 0);
        this.kept = Some((kv, log));
        let root = CertificateRow {
            serial: serial(u64::MAX),
            profile: v1::CertificateProfile::Root.into(),
            not_after_ms: BEGIN_MS * 2,
            fingerprint: vec![0xff; 32],
            ..CertificateRow::default()
        };
        let address = "192.0.2.1:7400".into();
        let member = DescribeMember { id: 1, name: "ctl1".into(), address, version: "0.1.0".into(), level };
        let bootstrap = Bootstrap {
            cluster_id: vec![1; 16],
            root_certificate: vec![2; 500],
            sealed_root_key: vec![3; 100],
            record: Some(root),
            member: (level > 0).then_some(member),
        };
        this.put(Action::Bootstrap(bootstrap)).await;
        this
    }

    /// Goes on behind an entry, with numbers of requests from one on.
    pub(crate) fn new(machine: StateMachine, index: u64, first: u64) -> Self {
        Self { machine, index, commands: Vec::new(), first, requests: first, at_ms: BEGIN_MS, kept: None }
    }

    fn entry(&mut self, commands: Vec<Command>) -> Entry<TypeConfig> {
        self.index += 1;
        let log_id = LogId::new(CommittedLeaderId::new(1, 1), self.index);
        Entry { log_id, payload: EntryPayload::Normal(CommandBatch { commands }.into()) }
    }

    /// Another command; none may be refused.
    pub(crate) async fn put(&mut self, action: Action) {
        self.requests += 1;
        let mut request_id = vec![0; 8];
        request_id.extend_from_slice(&self.requests.to_be_bytes());
        let at_ms = self.at_ms + (self.requests - self.first) / 10;
        self.commands.push(Command { request_id, at_ms, action: Some(action) });
        if self.commands.len() == BATCH {
            self.apply().await;
        }
    }

    /// Applies what was put.
    pub(crate) async fn apply(&mut self) {
        let commands = std::mem::take(&mut self.commands);
        let entry = self.entry(commands);
        for reply in self.machine.apply([entry]).await.unwrap().remove(0).replies {
            let refused = matches!(reply.outcome, Some(Outcome::Conflict(_) | Outcome::Denied(_)));
            assert!(!refused, "{reply:?}");
        }
    }

    /// Writes the log, which holds what was applied long ago, and everything to the disk.
    pub(crate) async fn end(mut self) {
        self.apply().await;
        let (kv, mut log) = self.kept.take().unwrap();
        let first = self.index.saturating_sub(LOG) + 1;
        let last = LogId::new(CommittedLeaderId::new(1, 1), self.index);
        let at = Command { request_id: vec![7; 16], at_ms: 5, action: None };
        let record = CertificateRow {
            serial: serial(0),
            name: "laptop-0000000.example.org".into(),
            fingerprint: vec![0; 32],
            ..CertificateRow::default()
        };
        let record = Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() });
        let entries: Vec<_> = (first..=self.index)
            .map(|index| Entry {
                log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
                payload: EntryPayload::Normal(
                    CommandBatch { commands: vec![Command { action: Some(record.clone()), ..at.clone() }] }.into(),
                ),
            })
            .collect();
        for entries in entries.chunks(100) {
            log.blocking_append(entries.to_vec()).await.unwrap();
        }
        log.save_committed(Some(last)).await.unwrap();
        kv.sync().unwrap();
    }
}

/// Spread as random ones are, all 16 bytes long.
pub(crate) fn serial(n: u64) -> String {
    let high = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{high:016x}{n:016x}")
}
