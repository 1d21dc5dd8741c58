//! `sallyport profile`: files that make a connection on another machine.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use sallyport_ca::SystemRandom;
use sallyport_ca::pkcs12::Protection;
use sallyport_enroll::install::Connection;
use sallyport_enroll::profile::{self, File, Options};
use sallyport_enroll::{Folder, Identity};
use serde::Serialize;

use crate::cli::Global;
use crate::error::{Error, Result};
use crate::output::Printer;
use crate::secret;

/// How to write a profile.
#[derive(Debug, Args)]
#[command(after_help = "\
The folder is one that `sallyport cert issue --machine` wrote, or that of `sallyport enroll`. Keys go into PKCS #12 under a password that is
printed once and stands in no file: give it to the person by another way than the file. Remove the files here once they are over there.

A machine that can run `sallyport enroll` needs none of this, and renews by itself; these files have to be made anew before the
certificate ends.

Examples:
  sallyport cert issue --machine mac3.example.com --out mac3
  sallyport profile apple --from mac3 --gateway vpn.example.com --user ada
  sallyport profile windows --from pc9 --gateway vpn.example.com
  sallyport profile p12 --from phone3 --legacy                    for importers that know only 3DES and SHA-1")]
pub(crate) struct Arguments {
    /// For which system.
    #[arg(value_enum)]
    system: System,
    /// Folder with the machine's key.pem, cert.pem and ca.pem.
    #[arg(long, value_name = "DIR", default_value = "/etc/sallyport/enroll", value_hint = ValueHint::DirPath)]
    from: PathBuf,
    /// The VPN's name or address, as clients dial it [default: what the machine was enrolled with]
    #[arg(long, value_name = "HOST")]
    gateway: Option<String>,
    /// User who connects; passwords of users are not written.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Folder to write to; it is made if it is not there [default: the one with the key, and SYSTEM below it]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Encrypt PKCS #12 with 3DES and SHA-1, for importers that know nothing newer.
    #[arg(long)]
    legacy: bool,
    /// File with the password for PKCS #12 on its first line [default: one is made and printed]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    password_file: Option<PathBuf>,
    /// Where the files will be on that machine (for networkmanager).
    #[arg(long, value_name = "DIR", default_value = "/etc/sallyport/profile")]
    there: String,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

/// A system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// macOS: a .mobileconfig with roots, identity and an L2TP connection (iOS: certificates only).
    Apple,
    /// Windows: a PowerShell script.
    Windows,
    /// Linux with NetworkManager and its L2TP plugin.
    #[value(name = "networkmanager")]
    NetworkManager,
    /// Key, certificate and roots in one file.
    #[value(name = "p12")]
    Pkcs12,
    /// Linux with strongSwan and xl2tpd.
    Strongswan,
    /// Linux with libreswan and xl2tpd.
    Libreswan,
}

impl From<System> for profile::System {
    fn from(system: System) -> Self {
        match system {
            System::Apple => Self::Apple,
            System::Windows => Self::Windows,
            System::NetworkManager => Self::NetworkManager,
            System::Pkcs12 => Self::Pkcs12,
            System::Strongswan => Self::Strongswan,
            System::Libreswan => Self::Libreswan,
        }
    }
}

#[derive(Serialize)]
struct Written {
    files: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    steps: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result {
    let identity = Identity::read(&arguments.from)?;
    let gateway = match &arguments.gateway {
        Some(gateway) => gateway.clone(),
        // A file alone says nothing of where it is used.
        None if arguments.system == System::Pkcs12 => "vpn".to_owned(),
        None => Folder::look(&arguments.from).map(|(settings, _)| settings.gateway).map_err(|_| {
            Error::usage("which VPN is it for?").remedy("pass --gateway with the name that clients dial")
        })?,
    };
    let connection = Connection { gateway, user: arguments.user.clone(), password: None };
    let given = arguments.password_file.as_deref().map(secret::from_file).transpose()?;
    let given = given.as_ref().map(|bytes| str::from_utf8(bytes)).transpose();
    let options = Options {
        protection: if arguments.legacy { Protection::Legacy } else { Protection::Modern },
        password: given.map_err(|_| Error::usage("the password is not text in UTF-8"))?,
        dir: Some(&arguments.there),
    };
    let made = profile::make(arguments.system.into(), &identity, &connection, &options, &SystemRandom::new())?;
    let name = arguments.system.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
    let out = arguments.out.clone().unwrap_or_else(|| arguments.from.join(name));
    let files = write(&out, &made.files, arguments.force)?;
    // Somebody who gave one knows it.
    let password = made.password.filter(|_| arguments.password_file.is_none()).map(|p| p.as_str().to_owned());
    let written = Written { files, password, steps: made.steps };
    Printer::new(global.output).one(&written, &written.text())
}

impl Written {
    fn text(&self) -> String {
        let mut text: String = self.files.iter().map(|f| format!("wrote {}\n", f.display())).collect();
        self.steps.iter().for_each(|step| text += &format!("to do: {step}\n"));
        if let Some(password) = &self.password {
            text += &format!("password of the certificate, shown only here: {password}\n");
        }
        text
    }
}

/// Writes all files, or none where one of them is there already.
fn write(dir: &Path, files: &[File], force: bool) -> Result<Vec<PathBuf>> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| Error::file("make the folder", dir, &e))?;
    let paths: Vec<PathBuf> = files.iter().map(|f| dir.join(&f.name)).collect();
    if let Some(there) = paths.iter().find(|p| !force && p.symlink_metadata().is_ok()) {
        return Err(Error::failed(format!("{} is there already", there.display()))
            .remedy("choose another folder with --out, or replace it with --force"));
    }
    for (file, path) in files.iter().zip(&paths) {
        let mode = if file.public { 0o644 } else { 0o600 };
        let temporary = dir.join(format!(".{}.new", file.name));
        let put = || {
            match std::fs::remove_file(&temporary) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut to = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
            to.write_all(&file.content)?;
            to.sync_all()?;
            std::fs::rename(&temporary, path)
        };
        put().map_err(|e| Error::file("write", path, &e))?;
    }
    Ok(paths)
}
