//! `sallyport gateway`: without a further word the role itself; with one the gateways of the cluster.

use clap::{Args, Subcommand};
use sallyport_proto::v1::{GatewayInfo, ListGatewaysRequest, RemoveGatewayRequest};
use serde::Serialize;

use super::{Context, PAGE, pages, refused, unix};
use crate::cli::Global;
use crate::clock::unix_now;
use crate::daemon;
use crate::error::Result;
use crate::output::{Column, Record, age, rfc3339};

/// Run a gateway, or see those that run.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  sudo sallyport cert issue --gateway gw1.example.com --out gw1   # on the controller; copy gw1 over
  sudo sallyport gateway --controller controller.example.com:7443 # on the gateway; or say so in its configuration
  sallyport gateway list                                          # with an operator's identity"
)]
pub(crate) struct RunOrNoun {
    #[command(flatten)]
    run: daemon::gateway::Arguments,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do with gateways.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the gateways.
    #[command(alias = "ls")]
    List,
    /// Forget a gateway that is gone, and end its sessions.
    #[command(alias = "rm")]
    Remove {
        /// The gateway.
        name: String,
    },
}

#[derive(Serialize)]
struct Row {
    name: String,
    slot: u32,
    alive: bool,
    draining: bool,
    sessions: u32,
    reported_sessions: u32,
    half_open: u32,
    audit_log_entries: u64,
    audit_log_alarm: String,
    addresses: Vec<String>,
    version: String,
    epoch: u64,
    registered: String,
    last_seen: String,
    /// Certificates that it knows to be live.
    live_certificates: Option<u64>,
    /// How old what it knows of revocations is.
    revocations_age_ms: Option<u32>,
    revocations_current: bool,
    /// It lets nobody new in, as it has heard nothing of revocations for too long.
    stale: bool,
    #[serde(skip)]
    silence: String,
}

impl From<GatewayInfo> for Row {
    fn from(gateway: GatewayInfo) -> Self {
        let live = gateway.live;
        Self {
            live_certificates: live.map(|held| held.certificates),
            revocations_age_ms: live.map(|held| held.age_ms),
            revocations_current: gateway.current,
            stale: live.is_some_and(|held| held.stale),
            silence: age(unix(gateway.last_seen_unix_ms), unix_now()),
            registered: rfc3339(unix(gateway.registered_unix_ms)),
            last_seen: rfc3339(unix(gateway.last_seen_unix_ms)),
            name: gateway.name,
            slot: gateway.slot,
            alive: gateway.alive,
            draining: gateway.draining,
            sessions: gateway.sessions,
            reported_sessions: gateway.reported_sessions,
            half_open: gateway.half_open,
            audit_log_entries: gateway.log_size,
            audit_log_alarm: gateway.log_alarm,
            addresses: gateway.addresses,
            version: gateway.version,
            epoch: gateway.epoch,
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("GATEWAY"),
        Column::right("SLOT"),
        Column::left("STATE"),
        Column::right("SESSIONS"),
        Column::right("HALF OPEN"),
        Column::right("LAST SEEN"),
        Column::left("REVOCATIONS"),
        Column::left("ADDRESSES"),
        Column::left("VERSION"),
        Column::left("AUDIT LOG"),
    ];

    fn cells(&self) -> Vec<String> {
        let state = match (self.alive, self.draining) {
            (false, _) => "lost",
            (true, true) => "draining",
            (true, false) => "alive",
        };
        vec![
            self.name.clone(),
            self.slot.to_string(),
            state.into(),
            self.sessions.to_string(),
            self.half_open.to_string(),
            self.silence.clone(),
            self.revocations(),
            self.addresses.join(","),
            self.version.clone(),
            match (self.audit_log_entries, self.audit_log_alarm.as_str()) {
                (0, _) => String::new(),
                (entries, "") => entries.to_string(),
                (_, alarm) => format!("ALARM: {alarm}"),
            },
        ]
    }
}

impl Row {
    /// How current what it knows of revocations is.
    fn revocations(&self) -> String {
        match self.revocations_age_ms {
            None => "as commands".into(), // older software, which keeps no set
            Some(_) if self.revocations_current => "current".into(),
            Some(u32::MAX) => "not known".into(),
            Some(ms) if self.stale => format!("{} s old, lets nobody in", ms / 1_000),
            Some(ms) => format!("{} s old", ms / 1_000),
        }
    }
}

#[derive(Serialize)]
struct Removed<'a> {
    gateway: &'a str,
    ended_sessions: u32,
}

/// Runs the command.
pub(crate) async fn run(arguments: RunOrNoun, global: &Global) -> Result {
    let Some(command) = arguments.command else { return daemon::gateway::run(arguments.run, global).await };
    let mut context = Context::open(global).await?;
    let client = &mut context.connection.client;
    match command {
        Command::List => {
            let gateways = pages(async |page_token| {
                let request = ListGatewaysRequest { page_size: PAGE, page_token };
                let response = client.list_gateways(request).await.map_err(refused)?.into_inner();
                Ok((response.gateways, response.next_page_token))
            })
            .await?;
            let rows: Vec<Row> = gateways.into_iter().map(Row::from).collect();
            context.printer.list(&rows, "no gateways; `sallyport gateway --help` says how to start one")
        }
        Command::Remove { name } => {
            let request = RemoveGatewayRequest { name: name.clone() };
            let ended_sessions = client.remove_gateway(request).await.map_err(refused)?.into_inner().ended_sessions;
            context.printer.one(&Removed { gateway: &name, ended_sessions }, &format!("forgot gateway {name}"))
        }
    }
}
