//! `sallyport psk`: the pre-shared key, for machines that have no certificate.

use clap::Subcommand;
use sallyport_proto::v1::{ClearPskRequest, GetSettingsRequest, SetPskRequest};
use serde::Serialize;

use super::{Context, refused, unix};
use crate::cli::Global;
use crate::error::Result;
use crate::output::rfc3339;
use crate::secret;

/// Shortest key that the controller takes, bytes.
const SHORTEST: usize = 8;

/// What to do with the pre-shared key.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set the key and so let machines in that know it.
    #[command(after_help = "\
Whoever knows the key can pose as the gateway to every machine that uses it. Prefer certificates.

Examples:
  sallyport psk set
  openssl rand -base64 24 | tee psk.txt | sallyport psk set --psk-stdin")]
    Set {
        /// Read the key from the first line of standard input instead of asking for it.
        #[arg(long)]
        psk_stdin: bool,
    },
    /// Forget the key: only machines with a certificate may connect.
    Clear,
    /// Whether a key is set. The key itself is never shown.
    Status,
}

#[derive(Serialize)]
struct Psk {
    set: bool,
    since: String,
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    match command {
        Command::Set { psk_stdin } => {
            let psk = Some(secret::read(psk_stdin, "Pre-shared key", "--psk-stdin", SHORTEST)?);
            let mut context = Context::open(global).await?;
            context.connection.client.set_psk(SetPskRequest { psk }).await.map_err(refused)?;
            show(&mut context).await
        }
        Command::Clear => {
            let mut context = Context::open(global).await?;
            context.connection.client.clear_psk(ClearPskRequest {}).await.map_err(refused)?;
            show(&mut context).await
        }
        Command::Status => show(&mut Context::open(global).await?).await,
    }
}

async fn show(context: &mut Context) -> Result {
    let response = context.connection.client.get_settings(GetSettingsRequest {}).await.map_err(refused)?;
    let settings = response.into_inner().settings.unwrap_or_default();
    let psk = Psk { set: settings.psk_set, since: rfc3339(unix(settings.psk_set_unix_ms)) };
    let text = if psk.set {
        format!("a pre-shared key is set since {}", psk.since)
    } else {
        "no pre-shared key is set: machines need a certificate".to_owned()
    };
    context.printer.one(&psk, &text)
}
