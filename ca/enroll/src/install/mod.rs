//! Puts a machine's key and certificate where VPN software looks for them, with a connection that is ready to be started.
//!
//! Whatever is written here carries [`MARK`], or `sallyport` in its name; a file of somebody else is never replaced: what would
//! have to be added to it is said instead. Installing twice is as good as once, so a crash in the middle is mended by the next
//! run. Renewals replace keys and certificates only: a connection that somebody changed stays changed.

mod host;
pub(crate) mod l2tp;
pub(crate) mod libreswan;
mod networkmanager;
mod pkcs11;
pub(crate) mod strongswan;
mod timer;

use std::str::FromStr;

use sallyport_ca::{KeyAlgorithm, SecureRandom};
use zeroize::Zeroizing;

pub use host::{Host, Ran, Runner};
pub use networkmanager::connection_file;

use crate::{Error, Identity, Kind, Result};

/// On the first line of each file of configuration.
pub(crate) const MARK: &str = "Made by sallyport enroll";

/// Software that a certificate is installed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Software {
    /// charon and swanctl, with xl2tpd.
    Strongswan,
    /// pluto, with xl2tpd.
    Libreswan,
    /// NetworkManager with its plugin for L2TP.
    NetworkManager,
}

impl Software {
    /// All of it.
    pub const ALL: [Self; 3] = [Self::Strongswan, Self::Libreswan, Self::NetworkManager];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strongswan => "strongswan",
            Self::Libreswan => "libreswan",
            Self::NetworkManager => "networkmanager",
        }
    }

    /// Whether it is on this machine.
    pub fn is_there(self, host: &Host<'_>) -> bool {
        match self {
            Self::Strongswan => strongswan::is_there(host),
            Self::Libreswan => libreswan::is_there(host),
            Self::NetworkManager => networkmanager::is_there(host),
        }
    }

    /// Whether it can use a key in a PKCS #11 token, as it is set up here.
    pub const fn takes_token(self) -> bool {
        matches!(self, Self::Strongswan)
    }

    /// Whether it can use such a key in IKEv1.
    pub const fn takes(self, algorithm: KeyAlgorithm) -> bool {
        match self {
            Self::Strongswan | Self::NetworkManager => true,
            Self::Libreswan => algorithm.is_rsa(),
        }
    }
}

impl core::fmt::Display for Software {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Software {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|s| s.name() == text).ok_or_else(|| {
            Error::new(
                Kind::Usage,
                format!("{:?} is not known", crate::error::foreign(text)),
                "one of strongswan, libreswan, networkmanager",
            )
        })
    }
}

/// What a connection is made of, beside the certificate.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The VPN's public name or address.
    pub gateway: String,
    /// Who connects.
    pub user: Option<String>,
    /// With which password; where there is none, the person is asked or writes it down.
    pub password: Option<Zeroizing<String>>,
}

impl Connection {
    /// Checks what will stand in files of others: no line may be added by a name or a password.
    pub fn check(&self) -> Result {
        let plain = |text: &str| !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
        let name = |text: &str| plain(text) && !text.contains(['"', '\\', '#', ';']) && text.trim() == text;
        let parts = [
            (name(&self.gateway) && !self.gateway.contains(char::is_whitespace), "the gateway's name"),
            (self.user.as_deref().is_none_or(name), "the user's name"),
            (self.password.as_deref().is_none_or(|p| plain(p)), "the password"),
        ];
        match parts.iter().find(|(good, _)| !good) {
            Some((_, what)) => Err(Error::new(
                Kind::Usage,
                format!("{what} cannot be written into a configuration"),
                "1 to 256 characters without control characters; names also without quotes, \\, # and ;",
            )),
            None => Ok(()),
        }
    }
}

/// Key, certificate and a connection.
pub fn install(
    software: Software,
    host: &mut Host<'_>,
    identity: &Identity,
    connection: &Connection,
    rng: &dyn SecureRandom,
) -> Result {
    connection.check()?;
    fits(software, identity)?;
    match software {
        Software::Strongswan => {
            strongswan::credentials(host, identity)?;
            strongswan::connection(host, connection)?;
            l2tp::connection(host, connection)?;
            strongswan::load(host)
        }
        Software::Libreswan => {
            libreswan::credentials(host, identity, rng)?;
            libreswan::connection(host, connection)?;
            l2tp::connection(host, connection)?;
            libreswan::load(host)
        }
        Software::NetworkManager => {
            networkmanager::connection(host, identity, connection)?;
            networkmanager::load(host)
        }
    }
}

/// Key and certificate after a renewal; where the present ones are there already, nothing is done.
pub fn refresh(software: Software, host: &mut Host<'_>, identity: &Identity, rng: &dyn SecureRandom) -> Result {
    fits(software, identity)?;
    match software {
        Software::Strongswan => {
            if strongswan::credentials(host, identity)? {
                strongswan::load(host)?;
            }
            Ok(())
        }
        Software::Libreswan => {
            if libreswan::credentials(host, identity, rng)? {
                libreswan::load(host)?;
            }
            Ok(())
        }
        // It reads the folder's own files each time it connects.
        Software::NetworkManager => Ok(()),
    }
}

/// Takes away what [`install`] put there. What the others need stays: `remaining` are those.
pub fn uninstall(software: Software, host: &mut Host<'_>, remaining: &[Software]) -> Result {
    match software {
        Software::Strongswan => strongswan::uninstall(host)?,
        Software::Libreswan => libreswan::uninstall(host)?,
        Software::NetworkManager => networkmanager::uninstall(host)?,
    }
    if remaining.iter().all(|s| *s == Software::NetworkManager) {
        l2tp::uninstall(host)?;
    }
    Ok(())
}

/// Whether what renews can run `program` with the folder `dir`: to be asked before anything is changed.
pub fn check_timer(host: &Host<'_>, program: &str, dir: &str) -> Result {
    timer::check(host, program, dir)
}

/// Whether a path can be written into files of configuration: it is absolute, and no control character in it adds a line.
pub(crate) fn check_path(what: &str, path: &str) -> Result {
    // What is not UTF-8 was replaced when it became text.
    let plain = !path.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER);
    if plain && path.starts_with('/') && path.len() <= 1024 {
        return Ok(());
    }
    Err(Error::new(
        Kind::Usage,
        format!("{what} cannot be written into a configuration: {:?}", crate::error::foreign(path)),
        "an absolute path in UTF-8 without control characters, of at most 1024 bytes, is needed",
    ))
}

/// A word for a shell.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | ':' | '=');
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Has `sallyport enroll renew` run every hour: `program` is the path of this one, `dir` the machine's folder.
pub fn install_timer(host: &mut Host<'_>, program: &str, dir: &str) -> Result {
    timer::install(host, program, dir)
}

/// The reverse.
pub fn uninstall_timer(host: &mut Host<'_>) -> Result {
    timer::uninstall(host)
}

fn fits(software: Software, identity: &Identity) -> Result {
    if identity.key.token().is_some() && !software.takes_token() {
        return Err(Error::new(
            Kind::Usage,
            format!("the key is in a token, which {software} is not set up for here"),
            "use strongSwan, or enroll with a key in a file",
        ));
    }
    let algorithm = identity.key.public_key().algorithm();
    if software.takes(algorithm) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Usage,
        format!("{software} cannot use an {algorithm} key in IKEv1"),
        "enroll with --key rsa-2048, or use strongSwan",
    ))
}

#[cfg(test)]
mod tests;
