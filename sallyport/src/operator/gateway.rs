//! `sallyport gateway`: without a further word the role itself; with one the gateways of the cluster.

use std::time::Duration;

use clap::{Args, Subcommand};
use sallyport_proto::v1::{
    CreateEnrollTokenRequest, GatewayInfo, GetClusterRequest, ListGatewaysRequest, RemoveGatewayRequest,
    SetGatewayNamesRequest,
};
use serde::Serialize;

use super::{Context, PAGE, pages, refused, unix};
use crate::cli::Global;
use crate::clock::unix_now;
use crate::daemon;
use crate::duration::parse_duration;
use crate::error::{Error, Result};
use crate::output::{Column, Record, age, rfc3339};

/// Run a gateway, or see those that run.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
A gateway gets its first certificates by a token, and renews them by itself, with no restart and no lost session. \
Which names stand in them, operators say: `sallyport setting set public-names=vpn.example.com`, or `gateway set`.

Examples:
  sallyport gateway token gw1.example.com                                     # with an operator's identity
  sudo sallyport gateway --controller controller.example.com:7443 --token-file -   # on the gateway; it asks for the token
  sallyport gateway list"
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
    /// Take a gateway out for good: end its sessions, revoke its certificates.
    #[command(alias = "rm")]
    Remove {
        /// The gateway.
        name: String,
    },
    /// Make a token with which a gateway gets its first certificates.
    #[command(after_help = "\
The token is shown once. It names this authority by the fingerprint of its root, so that the gateway knows whom it talks to.
With a * in the name, it is for a fleet: each gateway gets digits of its own in place of the *.

Examples:
  sallyport gateway token gw1.example.com
  sallyport gateway token 'gw-*.example.com' --uses 100 --expires 90d")]
    Token {
        /// Name of the gateway, or with a * those of many.
        name: String,
        /// How long it is good: 15m, 2h, 7d, at most 90d.
        #[arg(long, default_value = "1d", value_name = "TIME", value_parser = parse_duration)]
        expires: Duration,
        /// How many gateways may use it.
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
    },
    /// Set the public names of one gateway; it enrolls for them within a minute. Without any, those of the service.
    Set {
        /// The gateway.
        name: String,
        /// DNS name or address that clients dial; may be given several times, the first is the common name.
        #[arg(long = "public-name", value_name = "NAME")]
        public_names: Vec<String>,
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
    public_names: Vec<String>,
    certificate_not_after: String,
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
            public_names: gateway.public_names,
            certificate_not_after: rfc3339(unix(gateway.certificate_not_after_unix_ms)),
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
        Column::left("CERTIFICATE UNTIL"),
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
            self.certificate_not_after.clone(),
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

#[derive(Serialize)]
struct Token {
    token: String,
    command: String,
    id: String,
    name: String,
    uses: u32,
    expires: String,
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
            let text = format!("gateway {name} is out, and its certificates are revoked");
            context.printer.one(&Removed { gateway: &name, ended_sessions }, &text)
        }
        Command::Token { name, expires, uses } => {
            let ttl_s = u32::try_from(expires.as_secs()).unwrap_or(u32::MAX);
            if ttl_s == 0 {
                return Err(Error::usage("a token that is good for no time is good for nothing: --expires 1d"));
            }
            let (profile, server) = ("gateway-link".into(), String::new());
            let request =
                CreateEnrollTokenRequest { profile, name, ttl_s, uses, server, ..CreateEnrollTokenRequest::default() };
            let response = client.create_enroll_token(request).await.map_err(refused)?.into_inner();
            let members = client.get_cluster(GetClusterRequest {}).await.map_err(refused)?.into_inner().members;
            let addresses: Vec<String> = members.into_iter().map(|m| m.address).collect();
            let secret = response.token.unwrap_or_default();
            let token = std::str::from_utf8(&secret.value).unwrap_or_default().to_owned();
            let info = response.info.unwrap_or_default();
            let made = Token {
                command: format!("sallyport gateway --controller {} --token-file -", addresses.join(",")),
                expires: rfc3339(unix(info.expires_unix_ms)),
                id: info.id,
                name: info.name,
                uses: info.uses,
                token,
            };
            let text = format!(
                "{}\n\nGood until {} for {} gateway(s): {}. There, as root (it asks for the token):\n\n  {}{}",
                made.token,
                made.expires,
                made.uses,
                made.name,
                made.command,
                super::cluster::reach(&addresses)
            );
            context.printer.one(&made, &text)
        }
        Command::Set { name, public_names } => {
            let request = SetGatewayNamesRequest { name: name.clone(), public_names: public_names.clone() };
            client.set_gateway_names(request).await.map_err(refused)?;
            let text = match public_names.is_empty() {
                true => format!("gateway {name} has the public names of the service"),
                false => format!("gateway {name} enrolls for {}", public_names.join(" ")),
            };
            context.printer.one(&serde_json::json!({ "gateway": name, "public_names": public_names }), &text)
        }
    }
}
