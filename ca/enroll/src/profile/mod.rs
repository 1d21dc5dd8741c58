//! Files that make a connection on a machine where `sallyport enroll` does not run, from a folder with a certificate and its key.
//!
//! The certificate goes as PKCS #12 under a password, which is told to a person once and stands in none of the files: who has
//! one of them without the password has no key.

mod apple;
mod swan;
mod windows;
mod xml;

use sallyport_ca::SecureRandom;
use sallyport_ca::pkcs12::{self, Contents, Protection};
use zeroize::Zeroizing;

use crate::install::{Connection, check_path, shell_word};
use crate::{Identity, Result};

/// For which system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// macOS (and iOS, which takes the certificates): a configuration profile.
    Apple,
    /// Windows: a PowerShell script.
    Windows,
    /// Linux with NetworkManager: a keyfile, with the certificates beside it.
    NetworkManager,
    /// Linux with strongSwan and xl2tpd.
    Strongswan,
    /// Linux with libreswan and xl2tpd.
    Libreswan,
    /// Whatever imports PKCS #12.
    Pkcs12,
}

/// A file to be written.
pub struct File {
    /// Its name.
    pub name: String,
    /// Whether others may read it: not where it holds a key or a user's password.
    pub public: bool,
    /// Its content.
    pub content: Zeroizing<Vec<u8>>,
}

impl File {
    fn public(name: &str, text: String) -> Self {
        Self { name: name.to_owned(), public: true, content: Zeroizing::new(text.into_bytes()) }
    }

    fn private(name: &str, content: &[u8]) -> Self {
        Self { name: name.to_owned(), public: false, content: Zeroizing::new(content.to_vec()) }
    }
}

/// What was made.
pub struct Profile {
    /// The files.
    pub files: Vec<File>,
    /// The password of what is encrypted in them.
    pub password: Option<Zeroizing<String>>,
    /// What is to be done with them, a step a line.
    pub steps: Vec<String>,
}

/// How it is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// How PKCS #12 is encrypted.
    pub protection: Protection,
    /// The password of PKCS #12; if there is none, one is made.
    pub password: Option<&'a str>,
    /// Where the files will be on that machine, for NetworkManager.
    pub dir: Option<&'a str>,
}

/// Makes the files for a system.
pub fn make(
    system: System,
    identity: &Identity,
    connection: &Connection,
    options: &Options<'_>,
    rng: &dyn SecureRandom,
) -> Result<Profile> {
    connection.check()?;
    identity.key.pkcs8()?; // one in a token goes nowhere
    match system {
        System::NetworkManager => return network_manager(identity, connection, options),
        System::Strongswan => return Ok(swan::strongswan(identity, connection)),
        _ => {}
    }
    let password = match options.password {
        Some(given) => Zeroizing::new(given.to_owned()),
        None => crate::install::libreswan::password(rng)?,
    };
    let name = file_name(&identity.name());
    let shown = if system == System::Libreswan { "sallyport".to_owned() } else { identity.name() };
    let p12 = |authorities: bool| -> Result<Zeroizing<Vec<u8>>> {
        let key = identity.key.pkcs8()?;
        let above: Vec<&[u8]> = identity.chain.iter().chain(&identity.roots).map(Vec::as_slice).collect();
        let contents = Contents {
            key: &key,
            certificate: identity.certificate.der(),
            authorities: if authorities { &above } else { &[] },
            name: &shown,
        };
        Ok(pkcs12::encode(&contents, &password, options.protection, rng)?)
    };
    let mut profile = match system {
        System::Apple => apple::make(identity, connection, &p12(false)?, &name, rng)?,
        System::Windows => windows::make(identity, connection, &p12(false)?, &name),
        System::Libreswan => swan::libreswan(identity, connection, p12(false)?)?,
        _ => Profile {
            steps: vec![format!("import {name}.p12 for the whole machine; it holds key, certificate and roots")],
            files: vec![File { name: format!("{name}.p12"), public: false, content: p12(true)? }],
            password: None,
        },
    };
    profile.password = Some(password);
    let algorithm = identity.key.public_key().algorithm();
    if matches!(system, System::Apple | System::Windows) && !algorithm.is_rsa() {
        // What they offer in IKEv1 is a pre-shared key or RSA signatures.
        profile.steps.insert(
            0,
            format!(
                "the key is {algorithm}, and the L2TP of this system authenticates by RSA keys only: issue another certificate with \
                 --key rsa-2048 and make this profile anew"
            ),
        );
    }
    Ok(profile)
}

fn network_manager(identity: &Identity, connection: &Connection, options: &Options<'_>) -> Result<Profile> {
    let dir = options.dir.unwrap_or("/etc/sallyport/profile");
    check_path("the folder on that machine", dir)?;
    let path = |name: &str| format!("{}/{name}", dir.trim_end_matches('/'));
    let (ca, certificate, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
    let keyfile = crate::install::connection_file(connection, &identity.name(), &ca, &certificate, &key);
    let (dir, key) = (shell_word(dir), shell_word(&key));
    Ok(Profile {
        files: vec![
            File::private("sallyport.nmconnection", keyfile.as_bytes()),
            File::private("key.pem", identity.key.pem().as_bytes()),
            File::public("cert.pem", identity.certificate.pem() + &identity.chain_pem()),
            File::public("ca.pem", identity.roots_pem()),
        ],
        password: None,
        steps: vec![
            "on that machine, as root: install network-manager-l2tp (Fedora: NetworkManager-l2tp)".to_owned(),
            format!("mkdir -p -m 700 {dir} && mv key.pem cert.pem ca.pem {dir} && chmod 600 {key}"),
            "install -m 600 sallyport.nmconnection /etc/NetworkManager/system-connections/ && nmcli connection reload"
                .to_owned(),
            format!("nmcli connection up 'Sallyport {}' --ask", connection.gateway),
        ],
    })
}

/// A name that is harmless as a file's and inside quotes of any shell.
fn file_name(name: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let name: String = name.chars().map(good).take(100).collect();
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() { "machine".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests;
