//! Options that several of the commands have.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use sallyport_enroll::install::{Host, Software};
use zeroize::Zeroizing;

use super::here::Programs;
use crate::error::{Error, Result};
use crate::secret;

/// Where the files are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// Folder of key and certificate.
    #[arg(long, value_name = "DIR", default_value = "/etc/sallyport/enroll", value_hint = ValueHint::DirPath)]
    pub(super) dir: PathBuf,
    /// Folder that stands for `/`, to prepare an image: nothing is started or reloaded.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) root: Option<PathBuf>,
}

impl Place {
    pub(super) fn folder(&self) -> PathBuf {
        match &self.root {
            Some(root) => root.join(self.dir.strip_prefix("/").unwrap_or(&self.dir)),
            None => std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone()),
        }
    }

    /// The folder as the machine names it.
    pub(super) fn named(&self) -> String {
        let dir = if self.root.is_some() { self.dir.clone() } else { self.folder() };
        dir.to_string_lossy().into_owned()
    }

    pub(super) fn host<'a>(&self, programs: &'a mut Programs) -> Host<'a> {
        Host::new(self.root.clone(), &self.named(), programs)
    }
}

/// What has the certificate renewed.
#[derive(Clone, Debug, Args)]
pub(crate) struct TimerOptions {
    /// The program that the timer runs [default: this one]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) binary: Option<PathBuf>,
    /// Leave the timer out: something else runs `sallyport enroll renew` every day.
    #[arg(long, conflicts_with = "binary")]
    pub(super) no_timer: bool,
}

/// What a connection needs.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConnectionOptions {
    /// Software to install for [default: what is on this machine]
    #[arg(long = "for", value_name = "SOFTWARE", value_delimiter = ',', value_parser = ["strongswan", "libreswan", "networkmanager"])]
    pub(super) software: Vec<String>,
    /// User who connects; the password is asked for unless --password-file is given.
    #[arg(long, value_name = "NAME")]
    pub(super) user: Option<String>,
    /// File with the user's password on its first line, which nobody else may read.
    #[arg(long, value_name = "FILE", requires = "user", value_hint = ValueHint::FilePath)]
    pub(super) password_file: Option<PathBuf>,
    /// The VPN's name or address, as clients dial it [default: the server's]
    #[arg(long, value_name = "HOST")]
    pub(super) gateway: Option<String>,
}

impl ConnectionOptions {
    /// What was named, else what is there.
    pub(super) fn software(&self, host: &Host<'_>) -> Result<Vec<Software>> {
        let mut chosen = named(&self.software)?;
        if chosen.is_empty() {
            chosen = Software::ALL.into_iter().filter(|s| s.is_there(host)).collect();
        }
        Ok(chosen)
    }

    /// The user's password from its file, or from a person who sits there.
    pub(super) fn password(&self) -> Result<Option<Zeroizing<String>>> {
        let text = |bytes: &[u8]| {
            let text = str::from_utf8(bytes).map_err(|_| Error::usage("the password is not text in UTF-8"))?;
            Ok(Some(Zeroizing::new(text.to_owned())))
        };
        match (&self.user, &self.password_file) {
            (None, _) => Ok(None),
            (Some(_), Some(path)) => text(&secret::from_file(path)?),
            (Some(user), None) if std::io::stdin().is_terminal() => {
                let secret = secret::known(false, &format!("Password of {user}"), "--password-file")?;
                text(&Zeroizing::new(secret.into_inner()))
            }
            // What is written says where it goes.
            (Some(_), None) => Ok(None),
        }
    }
}

/// Software by its names, each once.
pub(super) fn named(names: &[String]) -> Result<Vec<Software>> {
    let mut chosen = Vec::new();
    for name in names {
        let one = name.parse()?;
        if !chosen.contains(&one) {
            chosen.push(one);
        }
    }
    Ok(chosen)
}
