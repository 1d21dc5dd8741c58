//! `sallyport cluster`: the controllers themselves.

use std::time::Duration;

use clap::Subcommand;
use sallyport_proto::v1;
use serde::Serialize;

use super::{Context, names, refused, unix};
use crate::cli::Global;
use crate::clock::unix_now;
use crate::duration::parse_duration;
use crate::error::{Error, Result};
use crate::output::{Column, Record, age, rfc3339};

/// What to do with the controllers.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Three controllers, each on a machine of its own that the others reach at the address which `controller.advertise` says:
  sudo sallyport controller --bootstrap                        on the first
  sallyport cluster token                                      there; prints the token and the line for the others:
  sudo sallyport controller --join A:7443 --token-file -       on the second, and with another token on the third
  sallyport cluster status                                     on any")]
pub(crate) enum Command {
    /// Show the controllers: role, log, lag, disk, version, level. It needs no majority.
    #[command(alias = "list", alias = "ls")]
    Status,
    /// Take back all tokens that are out: none of them lets a controller join any more.
    RevokeTokens,
    /// Make a token with which one controller can join.
    #[command(after_help = "\
The token is shown once. It names this cluster by the fingerprint of its root, works for one controller, and ends by itself.

Examples:
  sallyport cluster token
  sallyport cluster token --ttl 15m -o json")]
    Token {
        /// How long it is good: 90s, 15m, 2h, at most 1d.
        #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_duration)]
        ttl: Duration,
    },
    /// Take a controller out for good. Its certificate is revoked, and its old data are of no use to it.
    #[command(
        alias = "rm",
        after_help = "\
The certificate in its operator folder is revoked, too. Where that is the one you use, use another controller's, or one that
`sallyport cert issue --operator NAME` made."
    )]
    Remove {
        /// Its id, as `cluster status` shows it.
        id: u64,
    },
    /// Let a controller vote that joined with --learner.
    Promote {
        /// Its id, as `cluster status` shows it.
        id: u64,
    },
    /// Hand the lead to another controller, for example before its machine is restarted.
    TransferLeader {
        /// Id of the new leader [default: the one whose log reaches furthest].
        id: Option<u64>,
    },
}

/// What is said of the group as a whole.
struct Cluster {
    level: u32,
    held: bool,
    leader: u64,
    seen_by: u64,
    stale: Option<v1::StalePolicy>,
}

impl Cluster {
    fn of(answer: &v1::GetClusterResponse) -> Self {
        Self {
            level: answer.level.max(1),
            held: answer.level_held,
            leader: answer.leader_id,
            seen_by: answer.seen_by,
            stale: answer.stale,
        }
    }

    /// Below the table: the level in force, what keeps the next one away, and whose view this is.
    fn remark(&self, rows: &[Row]) -> String {
        let mut text = format!("level {} in force", self.level);
        let newest = rows.iter().map(|row| row.level).max().unwrap_or_default();
        if newest > self.level {
            let behind: Vec<String> = rows
                .iter()
                .filter(|row| row.level < newest)
                .map(|row| format!("controller {} ({}) runs {}", row.id, row.name, row.version))
                .collect();
            let why = match (behind.is_empty(), self.held) {
                (false, _) => format!("as soon as all controllers understand it; {}", behind.join(", ")),
                (true, true) => {
                    "when the setting hold-upgrade lets it rise: sallyport setting set hold-upgrade=false".into()
                }
                (true, false) => "in a moment".into(),
            };
            text.push_str(&format!("; level {newest} {why}"));
        }
        if let Some(v1::StalePolicy { lease_s, max_stale_s, fail_closed }) = self.stale {
            let sessions = if fail_closed { "and ends its sessions" } else { "and keeps its sessions" };
            text.push_str(&format!(
                "\na gateway that hears of no revocations for {lease_s} s lets in only machines that it knows, after {max_stale_s} s \
                 nobody, {sessions} (settings max-stale, fail-closed; sallyport gateway list)"
            ));
        }
        if self.seen_by != 0 && self.leader != self.seen_by {
            let leader = if self.leader == 0 { "there is no leader" } else { "the leader does not answer" };
            text.push_str(&format!("\n{leader}: this is what controller {} knows by itself", self.seen_by));
        }
        text
    }
}

#[derive(Serialize)]
struct Row {
    id: u64,
    name: String,
    address: String,
    role: &'static str,
    answers: bool,
    term: u64,
    last_log_index: u64,
    applied_index: u64,
    snapshot_index: u64,
    lag: u64,
    disk_bytes: u64,
    disk_free_bytes: u64,
    engine: String,
    unsealed: bool,
    /// By how much the clock of its machine is ahead of the cluster's time, seconds.
    clock_offset_s: Option<f64>,
    version: String,
    level: u32,
    cluster_level: u32,
    last_contact: String,
    seen_by: u64,
    joined: String,
    started: String,
    #[serde(skip)]
    up: String,
    #[serde(skip)]
    silent: String,
}

impl Row {
    fn new(member: v1::ClusterMember, cluster: &Cluster) -> Self {
        let role = names::member_role(member.role());
        let answers = member.vitals.is_some();
        let contact = unix(member.last_contact_unix_ms);
        let heard = member.last_contact_unix_ms != 0;
        let vitals = member.vitals.unwrap_or_default();
        Self {
            id: member.id,
            name: member.name,
            address: member.address,
            role,
            answers,
            term: vitals.term,
            last_log_index: vitals.last_log_index,
            applied_index: vitals.applied_index,
            snapshot_index: vitals.snapshot_index,
            lag: member.lag,
            disk_bytes: vitals.disk_bytes,
            disk_free_bytes: vitals.disk_free_bytes,
            engine: vitals.engine,
            unsealed: vitals.unsealed,
            clock_offset_s: vitals.clock_offset_ms.map(|ms| ms as f64 / 1_000.0),
            // What runs says it better than the records, which may be of before an upgrade.
            version: if answers { vitals.version } else { member.version },
            level: if answers { vitals.level.max(1) } else { member.level },
            cluster_level: cluster.level,
            last_contact: if heard { rfc3339(contact) } else { String::new() },
            seen_by: cluster.seen_by,
            joined: rfc3339(unix(member.joined_unix_ms)),
            started: rfc3339(unix(vitals.started_unix_ms)),
            up: if answers { age(unix(vitals.started_unix_ms), unix_now()) } else { String::new() },
            silent: if heard && !answers { age(contact, unix_now()) } else { String::new() },
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::right("ID"),
        Column::left("NAME"),
        Column::left("ADDRESS"),
        Column::left("ROLE"),
        Column::left("STATE"),
        Column::right("TERM"),
        Column::right("LOG"),
        Column::right("APPLIED"),
        Column::right("LAG"),
        Column::right("DISK"),
        Column::right("FREE"),
        Column::left("ENGINE"),
        Column::right("CLOCK"),
        Column::right("UP"),
        Column::left("VERSION"),
        Column::right("LEVEL"),
    ];

    fn cells(&self) -> Vec<String> {
        let state = match (self.answers, self.unsealed) {
            (false, _) if self.silent.is_empty() => "no answer".to_owned(),
            (false, _) => format!("silent for {}", self.silent),
            (true, false) => "starting".to_owned(),
            (true, true) => "unsealed".to_owned(),
        };
        let known = |text: String| if self.answers { text } else { String::new() };
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.address.clone(),
            self.role.into(),
            state,
            known(self.term.to_string()),
            known(self.last_log_index.to_string()),
            known(self.applied_index.to_string()),
            self.lag.to_string(),
            known(names::bytes(self.disk_bytes)),
            known(names::bytes(self.disk_free_bytes)),
            self.engine.clone(),
            self.clock_offset_s.map(|s| format!("{s:+.1}s")).unwrap_or_default(),
            self.up.clone(),
            self.version.clone(),
            self.level.to_string(),
        ]
    }
}

#[derive(Serialize)]
struct Token {
    token: String,
    expires: String,
    addresses: Vec<String>,
    command: String,
}

#[derive(Serialize)]
struct Revoked {
    revoked: bool,
}

/// Above the line for the others.
const TOKEN_USE: &str = "On the machine that joins, this asks for it:";

/// What to say where a command for another machine has addresses that it cannot reach.
pub(super) fn reach(addresses: &[String]) -> &'static str {
    if addresses.iter().all(|address| is_loopback(address)) {
        "\nOnly this machine reaches that address: set controller.listen and controller.advertise of this controller first."
    } else {
        ""
    }
}

/// Whether only programs on the same machine reach HOST:PORT.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What a removed controller takes along.
const KNEW: &str = "
What it knew it still knows: the key to all that is sealed in the cluster's state, and with it the CA's private key, the pre-shared
key and what every password is checked against. Nothing of that changes by itself. If others may have its disk or its memory,
  change the passwords            sallyport user passwd NAME
  and the pre-shared key          sallyport psk set
  revoke what you do not know     sallyport cert list --live, then sallyport cert revoke SERIAL
  and SCEP's RA, if there is one  sallyport cert list --profile scep-ra, and revoke it: another one is made at once
and because of the CA's key put another root in its place, which it does not know:
  make it, and let it issue       sallyport ca rollover begin, then activate
  for who does not enroll         sallyport cert issue --machine NAME, sallyport cert issue --gateway NAME
  trust the one before no more    sallyport ca rollover finish
A controller that only failed, and whose disk you have, needs none of this.";

#[derive(Serialize)]
struct Changed {
    id: u64,
}

#[derive(Serialize)]
struct Lead {
    leader: u64,
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let mut context = Context::open(global).await?;
    let client = &mut context.connection.client;
    match command {
        Command::Status => {
            let cluster = client.get_cluster(v1::GetClusterRequest {}).await.map_err(refused)?.into_inner();
            let about = Cluster::of(&cluster);
            let rows: Vec<Row> = cluster.members.into_iter().map(|member| Row::new(member, &about)).collect();
            context.printer.list(&rows, "no controllers")?;
            context.printer.remark(&about.remark(&rows))
        }
        Command::Token { ttl } => {
            let ttl_s = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
            if ttl_s == 0 {
                return Err(Error::usage("a token that ends at once").remedy("write a time such as 1h"));
            }
            let request = v1::CreateClusterTokenRequest { ttl_s };
            let made = client.create_cluster_token(request).await.map_err(refused)?.into_inner();
            let secret = made.token.map(v1::Secret::into_inner).unwrap_or_default();
            let token = String::from_utf8_lossy(&secret).into_owned();
            let address = made.addresses.first().cloned().unwrap_or_default();
            // The token is not in it: command lines are seen by every user of the machine, and kept by sudo and shells.
            let command = format!("sallyport controller --join {address} --token-file -");
            let expires = rfc3339(unix(made.expires_unix_ms));
            let hint = reach(&made.addresses);
            let text =
                format!("{token}\n\n{TOKEN_USE}\n  sudo {command}\nGood for one controller until {expires}.{hint}");
            context.printer.one(&Token { token, expires, addresses: made.addresses, command }, &text)
        }
        Command::RevokeTokens => {
            client.revoke_cluster_tokens(v1::RevokeClusterTokensRequest {}).await.map_err(refused)?;
            context.printer.one(&Revoked { revoked: true }, "no token is good any more")
        }
        Command::Remove { id } => {
            client.remove_member(v1::RemoveMemberRequest { id }).await.map_err(refused)?;
            context
                .printer
                .one(&Changed { id }, &format!("removed controller {id}: its certificates are revoked\n{KNEW}"))
        }
        Command::Promote { id } => {
            client.promote_member(v1::PromoteMemberRequest { id }).await.map_err(refused)?;
            context.printer.one(&Changed { id }, &format!("controller {id} votes as soon as it has caught up"))
        }
        Command::TransferLeader { id } => {
            let request = v1::TransferLeaderRequest { id: id.unwrap_or(0) };
            let leader = client.transfer_leader(request).await.map_err(refused)?.into_inner().leader_id;
            context.printer.one(&Lead { leader }, &format!("controller {leader} leads"))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    /// The commands in a text, each up to the comma or the end of its line.
    fn commands(text: &str) -> Vec<Vec<&str>> {
        let parts = text.lines().flat_map(|line| line.split(','));
        parts.filter_map(|part| Some(part.get(part.find("sallyport ")?..)?.split_whitespace().collect())).collect()
    }

    #[test]
    fn each_command_that_the_end_of_a_controller_calls_for_exists() {
        let named = commands(KNEW);
        assert_eq!(named.len(), 9, "{named:?}");
        for command in named {
            assert!(Cli::try_parse_from(&command).is_ok(), "{command:?}");
        }
        assert!(
            Cli::try_parse_from(["sallyport", "cluster", "rotate"]).is_err(),
            "the parser refuses what there is not"
        );
    }

    #[test]
    fn addresses_that_only_this_machine_reaches_are_known() {
        for address in ["127.0.0.1:7443", "127.8.0.1:7443", "[::1]:7443", "localhost:7443"] {
            assert!(is_loopback(address), "{address}");
        }
        for address in ["10.0.0.1:7443", "[2001:db8::1]:7443", "localhost.example.com:7443", "c1.example.com:7443"] {
            assert!(!is_loopback(address), "{address}");
        }
    }
}
