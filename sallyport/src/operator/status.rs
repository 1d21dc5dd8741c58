//! `sallyport status`: the controller in a few numbers.

use std::time::Duration;

use clap::Args;
use sallyport_proto::v1::{GetStatusRequest, GetStatusResponse};
use serde::Serialize;

use super::{Context, refused, unix};
use crate::cli::Global;
use crate::clock::unix_now;
use crate::duration::parse_duration;
use crate::error::{Error, Result};
use crate::output::{Printer, age, rfc3339};

#[derive(Serialize)]
struct Status {
    version: String,
    node_id: u64,
    leader_id: u64,
    term: u64,
    applied_index: u64,
    started: String,
    clock: String,
    clock_offset_s: i64,
    users: u64,
    sessions: u64,
    gateways: u32,
    gateways_alive: u32,
    certificates: u64,
    leases_size: u64,
    leases_used: u64,
    root_fingerprint: String,
    policy_version: u64,
    starting: bool,
    machines_overdue: u64,
    gateways_overdue: u32,
    #[serde(skip)]
    up: String,
}

impl From<GetStatusResponse> for Status {
    fn from(status: GetStatusResponse) -> Self {
        let now = unix_now();
        Self {
            up: age(unix(status.started_unix_ms), unix(status.now_unix_ms)),
            clock_offset_s: unix(status.now_unix_ms).0.saturating_sub(now.0),
            started: rfc3339(unix(status.started_unix_ms)),
            clock: rfc3339(unix(status.now_unix_ms)),
            version: status.version,
            node_id: status.node_id,
            leader_id: status.leader_id,
            term: status.term,
            applied_index: status.applied_index,
            users: status.users,
            sessions: status.sessions,
            gateways: status.gateways,
            gateways_alive: status.gateways_alive,
            certificates: status.certificates,
            leases_size: status.leases_size,
            leases_used: status.leases_used,
            root_fingerprint: crate::hex::lower(&status.root_fingerprint),
            policy_version: status.policy_version,
            starting: status.starting,
            machines_overdue: status.machines_overdue,
            gateways_overdue: status.gateways_overdue,
        }
    }
}

impl Status {
    fn text(&self) -> String {
        let leader = match self.leader_id {
            0 => "no leader".to_owned(),
            id if id == self.node_id => "leader".to_owned(),
            id => format!("follower of node {id}"),
        };
        // A second or two is the time that the answer took.
        let clock = match self.clock_offset_s.unsigned_abs() {
            0..=2 => String::new(),
            offset => format!(" ({offset} s off this machine's clock)"),
        };
        let overdue = match (self.machines_overdue, self.gateways_overdue) {
            (0, 0) => String::new(),
            (machines, 0) => {
                format!("; {machines} machines are overdue with their renewal: sallyport machine list --overdue")
            }
            (0, gateways) => format!("; {gateways} gateways are overdue with their renewal: sallyport gateway list"),
            (machines, gateways) => format!(
                "; {machines} machines and {gateways} gateways are overdue with their renewal: sallyport machine list --overdue"
            ),
        };
        format!(
            "controller    {}, node {}, {leader} in term {}, up {}\n\
             clock         {}{clock}\n\
             gateways      {} alive of {}\n\
             sessions      {}\n\
             addresses     {} leased of {}\n\
             users         {}\n\
             certificates  {}{overdue}\n\
             root          {}\n\
             policy        version {}, log index {}",
            self.version,
            self.node_id,
            self.term,
            self.up,
            self.clock,
            self.gateways_alive,
            self.gateways,
            self.sessions,
            self.leases_used,
            self.leases_size,
            self.users,
            self.certificates,
            self.root_fingerprint,
            self.policy_version,
            self.applied_index,
        )
    }
}

/// How to ask.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sallyport standalone & sallyport status --wait 30s && sallyport pool list")]
pub(crate) struct Arguments {
    /// Wait so long for a controller that is starting, and for the gateway beside it in standalone, such as 30s.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait: Option<Duration>,
}

/// Pause between two tries to reach a controller that is starting.
const RETRY: Duration = Duration::from_millis(200);

/// Runs the command.
pub(crate) async fn run(arguments: Arguments, global: &Global) -> Result {
    let deadline = tokio::time::Instant::now() + arguments.wait.unwrap_or_default();
    loop {
        let waits = tokio::time::Instant::now() < deadline;
        match ask(global).await {
            // A controller's first start makes the operator's identity, too.
            Err(error) if error.may_pass() && waits => {}
            Err(error) => return Err(error),
            Ok((_, status)) if status.starting && waits => {}
            Ok((printer, status)) => {
                printer.one(&status, &status.text())?;
                if status.starting && arguments.wait.is_some() {
                    return Err(Error::failed("the gateway beside this controller has not registered in that time")
                        .remedy("its log says why"));
                }
                return Ok(());
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn ask(global: &Global) -> Result<(Printer, Status)> {
    let mut context = Context::open(global).await?;
    let response = context.connection.client.get_status(GetStatusRequest {}).await.map_err(refused)?;
    Ok((context.printer, Status::from(response.into_inner())))
}
