//! `sallyport token`: how a machine gets its first certificate.

use std::time::Duration;

use clap::{Args, Subcommand};
use sallyport_proto::v1;
use serde::Serialize;

use super::{Context, PAGE, pages, refused, unix};
use crate::cli::Global;
use crate::clock::unix_now;
use crate::duration::parse_duration;
use crate::error::{Error, Result};
use crate::output::{Column, Record, rfc3339};

/// What to run on the machine. Without the token: on a command line everybody sees it.
const ENROLL: &str = "sallyport enroll --token-file -";

/// What to do with tokens of machines.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A token is bound to the name that the certificate gets; nothing of the machine's own request is taken for it.
On the machine: sallyport enroll --token-file - asks for it. Tools that speak EST give it as the password.")]
pub(crate) enum Command {
    /// Make a token with which a machine gets its first certificate.
    #[command(after_help = "\
The token is shown once. It names this authority by the fingerprint of its root, so that the machine knows whom it talks to.

Examples:
  sallyport token create --machine laptop7.example.com
  sallyport token create --machine kiosk.example.com --expires 7d --uses 3 --holder 'front desk'   may be set up anew twice")]
    Create(Create),
    /// List the tokens, used and ended ones for a month.
    #[command(alias = "ls")]
    List {
        /// Leave out what is used up or has ended.
        #[arg(long)]
        live: bool,
    },
    /// Take a token back. Certificates that were had by it stay.
    #[command(alias = "rm")]
    Revoke {
        /// Its id, as `token list` shows it.
        id: String,
    },
}

/// A new token.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The machine's name in its certificate: a DNS name.
    #[arg(long, value_name = "NAME")]
    machine: String,
    /// Further DNS name or IP address in its certificate; may be given several times.
    #[arg(long = "san", value_name = "NAME")]
    sans: Vec<String>,
    /// The certificate profile.
    #[arg(long, default_value = "machine", value_name = "PROFILE")]
    profile: String,
    /// How long it is good: 15m, 2h, 7d, at most 90d.
    #[arg(long, default_value = "1d", value_name = "TIME", value_parser = parse_duration)]
    expires: Duration,
    /// For how many certificates of that one machine it is good: it has its newest two, and those before are revoked.
    #[arg(long, default_value_t = 1, value_name = "N")]
    uses: u32,
    /// Whose machine it is, for the records.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    holder: String,
    /// HOST or HOST:PORT of the enrollment endpoint [default: the first name in a gateway's certificate]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "HOST")]
    server: String,
}

#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    sans: Vec<String>,
    profile: String,
    state: &'static str,
    used: u32,
    uses: u32,
    expires: String,
    made_by: String,
    made: String,
    holder: String,
}

impl From<v1::EnrollToken> for Row {
    fn from(token: v1::EnrollToken) -> Self {
        let state = match token {
            _ if token.used >= token.uses => "used",
            _ if unix(token.expires_unix_ms) <= unix_now() => "ended",
            _ => "good",
        };
        Self {
            state,
            expires: rfc3339(unix(token.expires_unix_ms)),
            made: rfc3339(unix(token.made_unix_ms)),
            id: token.id,
            name: token.name,
            sans: token.sans,
            profile: token.profile,
            used: token.used,
            uses: token.uses,
            made_by: token.made_by,
            holder: token.holder,
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("TOKEN"),
        Column::left("MACHINE"),
        Column::left("STATE"),
        Column::right("USED"),
        Column::left("EXPIRES"),
        Column::left("MADE BY"),
        Column::left("HOLDER"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.name.clone(),
            self.state.into(),
            format!("{}/{}", self.used, self.uses),
            self.expires.clone(),
            self.made_by.clone(),
            self.holder.clone(),
        ]
    }
}

#[derive(Serialize)]
struct Created {
    token: String,
    command: &'static str,
    #[serde(flatten)]
    info: Row,
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let mut context = Context::open(global).await?;
    let client = &mut context.connection.client;
    match command {
        Command::Create(create) => {
            let ttl_s = u32::try_from(create.expires.as_secs()).unwrap_or(u32::MAX);
            if ttl_s == 0 {
                return Err(Error::usage("a token that is good for no time is good for nothing: --expires 1d"));
            }
            let request = v1::CreateEnrollTokenRequest {
                profile: create.profile,
                name: create.machine,
                sans: create.sans,
                ttl_s,
                uses: create.uses,
                holder: create.holder,
                server: create.server,
            };
            let response = client.create_enroll_token(request).await.map_err(refused)?.into_inner();
            let secret = response.token.unwrap_or_default();
            let token = std::str::from_utf8(&secret.value).unwrap_or_default().to_owned();
            let info = Row::from(response.info.unwrap_or_default());
            let text = format!(
                "{token}\n\nGood until {} for {} certificate(s) of {}. On that machine, as root (it asks for the token):\n\n  {ENROLL}",
                info.expires, info.uses, info.name
            );
            context.printer.one(&Created { token, command: ENROLL, info }, &text)
        }
        Command::List { live } => {
            let tokens = pages(async |page_token| {
                let request = v1::ListEnrollTokensRequest { page_size: PAGE, page_token };
                let response = client.list_enroll_tokens(request).await.map_err(refused)?.into_inner();
                Ok((response.tokens, response.next_page_token))
            })
            .await?;
            let mut rows: Vec<Row> = tokens.into_iter().map(Row::from).collect();
            rows.retain(|row| !live || row.state == "good");
            rows.sort_by(|a, b| b.made.cmp(&a.made).then_with(|| a.id.cmp(&b.id)));
            context.printer.list(&rows, "no tokens; `sallyport token create --machine NAME` makes one")
        }
        Command::Revoke { id } => {
            let request = v1::RevokeEnrollTokenRequest { id: id.clone() };
            client.revoke_enroll_token(request).await.map_err(refused)?;
            context.printer.one(&serde_json::json!({ "id": id }), &format!("token {id} is good for nothing any more"))
        }
    }
}
