//! `sallyport backup create`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use sallyport_ca::SystemRandom;
use sallyport_ca::seal::{RecipientKey, SealKey};
use sallyport_controller::backup::{self, Info, Lock, Writer, wrap_context};
use sallyport_proto::v1::create_backup_response::Part;
use sallyport_proto::v1::{BackupHead, CreateBackupRequest, CreateBackupResponse};
use serde::Serialize;
use tonic::Streaming;

use super::meter::Meter;
use super::{PASSPHRASE, PassphraseSource};
use crate::cli::Global;
use crate::daemon::controller_error;
use crate::error::{Error, Result};
use crate::operator::{Context, names, refused, unix};
use crate::output::rfc3339;

/// A new backup.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File to write; it must not be there yet [default: sallyport-TIME.backup in this folder]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    /// Public key of somebody who can read it, NAME.pub, in place of a passphrase; may be given several times.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = PASSPHRASE)]
    recipient: Vec<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

impl Arguments {
    fn lock(&self) -> Result<Lock> {
        if self.recipient.is_empty() {
            return Lock::passphrase(self.passphrase.read(true)?).map_err(controller_error);
        }
        let keys: std::result::Result<Vec<_>, _> = self.recipient.iter().map(|p| backup::read_recipient(p)).collect();
        keys.and_then(Lock::recipients).map_err(controller_error)
    }
}

#[derive(Serialize)]
struct Created {
    file: PathBuf,
    bytes: u64,
    cluster_id: String,
    created: String,
    applied_index: u64,
}

/// Runs the command.
pub(super) async fn run(arguments: Arguments, global: &Global) -> Result {
    if let Some(there) = arguments.out.as_ref().filter(|out| out.symlink_metadata().is_ok()) {
        return Err(Error::failed(format!("{} is there already", there.display()))
            .remedy("choose another name; a backup never overwrites one"));
    }
    // Asked for before the controller makes a copy of its state.
    let lock = arguments.lock()?;
    let rng = SystemRandom::new();
    let failed = |e: sallyport_ca::seal::SealError| Error::failed(format!("the key to the secrets: {e}"));
    let key = RecipientKey::generate(&rng).map_err(failed)?;
    let mut context = Context::open(global).await?;
    let request = CreateBackupRequest { public_key: key.public().to_vec() };
    let mut parts = context.connection.client.create_backup(request).await.map_err(refused)?.into_inner();
    let Some(Part::Head(head)) = next(&mut parts).await? else {
        return Err(Error::failed("the controller's answer does not begin with its head").remedy("update this program"));
    };
    let seal_key = key.unwrap(&head.wrapped_seal_key, &wrap_context(&head.cluster_id)).map_err(failed)?;
    let info = info(head);
    let path = arguments.out.unwrap_or_else(|| default_name(&info));
    let writer = Writer::create(&path, info.clone(), &lock, &SealKey::from_bytes(&seal_key), &rng);
    let mut writer = writer.map_err(controller_error)?;
    let (mut meter, mut done) = (Meter::new("received"), 0);
    while let Some(part) = next(&mut parts).await? {
        if let Part::State(piece) = part {
            writer.write(&piece).map_err(controller_error)?;
            done += piece.len() as u64;
            meter.show(done, info.state_bytes);
        }
    }
    drop(meter);
    let bytes = writer.finish().map_err(|e| controller_error(e).context("the backup is not whole and was removed"))?;
    let created = Created {
        bytes,
        cluster_id: crate::hex::lower(&info.cluster_id),
        created: rfc3339(unix(info.created_unix_ms)),
        applied_index: info.applied_index,
        file: path,
    };
    let text = format!(
        "wrote {}, {}; check it: sallyport backup verify {}",
        created.file.display(),
        names::bytes(bytes),
        created.file.display()
    );
    context.printer.one(&created, &text)
}

async fn next(parts: &mut Streaming<CreateBackupResponse>) -> Result<Option<Part>> {
    Ok(parts.message().await.map_err(refused)?.and_then(|message| message.part))
}

fn info(head: BackupHead) -> Info {
    Info {
        cluster_id: head.cluster_id,
        created_unix_ms: head.created_unix_ms,
        log_time_unix_ms: head.log_time_unix_ms,
        applied_index: head.applied_index,
        version: head.version,
        state_bytes: head.state_bytes,
    }
}

/// A name that says when the backup was made, without characters that other systems refuse in names.
fn default_name(info: &Info) -> PathBuf {
    let time: String = rfc3339(unix(info.created_unix_ms)).chars().filter(|c| !matches!(c, ':' | '-')).collect();
    PathBuf::from(format!("sallyport-{time}.backup"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_named_by_its_time() {
        let info = Info { created_unix_ms: 1_800_000_000_999, ..Info::default() };
        assert_eq!(default_name(&info), PathBuf::from("sallyport-20270115T080000Z.backup"));
    }
}
