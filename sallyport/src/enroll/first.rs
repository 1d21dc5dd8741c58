//! A first certificate.

use std::env;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueHint};
use sallyport_ca::{Certificate, EnrollToken, Fingerprint, KeyAlgorithm, SystemRandom, pem};
use sallyport_enroll::install::{self, Software};
use sallyport_enroll::{
    Access, Folder, Identity, Kind, Request, Server, Settings, TokenPlace, Waiting, due, enroll, parse_fingerprint,
};
use zeroize::Zeroizing;

use super::here::{Here, Programs};
use super::options::{ConnectionOptions, Place, TimerOptions, named};
use super::put::{Wanted, install_all, program};
use super::shown::{Done, Row};
use crate::duration::parse_duration;
use crate::error::{Error, Result};
use crate::output::{Format, rfc3339};
use crate::secret;

/// Environment variable with a token, for services: command lines are seen by every user of a machine.
const TOKEN: &str = "SALLYPORT_TOKEN";

/// A first certificate.
#[derive(Debug, Args)]
pub(crate) struct Enroll {
    /// File with the token on its first line; - is standard input, at a terminal it is asked for.
    #[arg(long, value_name = "FILE", conflicts_with = "token", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// The token itself. Every user of this machine sees it here (ps): better is --token-file, or SALLYPORT_TOKEN.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Without a token: SHA-256 of the root of the VPN's authority, by which it is known; `sallyport ca show root` has it.
    #[arg(long, value_name = "SHA256", conflicts_with_all = ["token", "token_file"], value_parser = fingerprint)]
    root_fingerprint: Option<Fingerprint>,
    /// Without a token: file with the root of the VPN's authority, in PEM.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token", "token_file", "root_fingerprint"], value_hint = ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// Enrollment endpoint, HOST or HOST:PORT [default: what the token says]
    #[arg(long, value_name = "HOST")]
    server: Option<String>,
    /// Name that the certificate must have; the token, the list or the operator says which it has.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Kind of key (ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096), or what it is made in and never leaves
    /// (pkcs11:token=LABEL?module-path=FILE, tpm), or both [default: ecdsa-p256, with libreswan rsa-2048, in a file]
    #[arg(long = "key", value_name = "KEY", value_parser = key_option)]
    keys: Vec<KeyOption>,
    /// File with the PIN of --key pkcs11:... on its first line [default: it is asked for]. It is kept in DIR, for the owner only.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pin_file: Option<PathBuf>,
    /// How long to wait where an operator has to approve.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    wait: Duration,
    /// Do not wait for an approval: the timer, or `sallyport enroll renew`, goes on with the same key.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    #[command(flatten)]
    pub(super) connection: ConnectionOptions,
    #[command(flatten)]
    timer: TimerOptions,
    #[command(flatten)]
    pub(super) place: Place,
}

fn fingerprint(text: &str) -> std::result::Result<Fingerprint, String> {
    parse_fingerprint(text).ok_or_else(|| "64 hexadecimal digits are expected, with or without colons".to_owned())
}

impl Enroll {
    pub(super) async fn run(mut self, format: Format) -> Result {
        let timer = program(&self.timer, &self.place)?;
        let access = self.access()?;
        let server = self.server.as_deref().map(str::parse::<Server>).transpose()?;
        let software = self.connection.software(&self.place.host(&mut Programs))?;
        let software = self.that_take_the_key(software)?;
        let key = self.algorithm(&software)?;
        // Asked for before the network is: a person may have gone when an approval comes.
        let password = match self.no_wait && self.connection.password_file.is_none() {
            true => None, // it would mostly be asked for in vain
            false => self.connection.password()?,
        };
        let folder = Folder::open(&self.place.folder())?;
        let key_in = self.token(&folder)?;
        let (name, gateway, user) = (self.name.take(), self.connection.gateway.clone(), self.connection.user.clone());
        let waiting = match (&access, &server) {
            (Access::Listed(roots), Some(server)) => Some(Waiting {
                server: server.to_string(),
                roots: roots.iter().map(Fingerprint::to_string).collect(),
                key: key.to_string(),
                key_in: key_in.as_ref().map(TokenPlace::to_string),
                name: name.clone(),
                gateway: gateway.clone(),
                user: user.clone(),
                software: software.iter().map(|s| s.name().to_owned()).collect(),
            }),
            _ => None,
        };
        let wait = if self.no_wait { Duration::ZERO } else { self.wait };
        let request = Request { access, server, name, claim: host_name(), key, key_in, gateway, wait, waiting };
        let wanted = Wanted { software, password, user, timer };
        match enroll(&folder, &request, &Here::new()).await {
            Ok((settings, identity)) => arrived(&folder, settings, &identity, wanted, &self.place)?.print(format),
            Err(e) if e.kind == Kind::Pending && request.waiting.is_some() => {
                drop(folder);
                leave(e, wanted, self.no_wait, &self.place, format)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// What lets this machine in.
    pub(super) fn access(&mut self) -> Result<Access> {
        if let Some(path) = &self.ca {
            return Ok(Access::Listed(roots(path)?));
        }
        if let Some(root) = self.root_fingerprint {
            return Ok(Access::Listed(vec![root]));
        }
        let text = match &self.token_file {
            Some(path) => {
                let bytes = secret::from_file_or_stdin(path, "Token")?;
                let text = str::from_utf8(&bytes).map_err(|_| Error::usage("the token is not text"))?;
                Zeroizing::new(text.to_owned())
            }
            None => self.token.take().or_else(|| env::var(TOKEN).ok()).map(Zeroizing::new).ok_or_else(|| {
                Error::usage("what lets this machine in?").remedy(
                    "make a token on a controller (sallyport token create) and pass --token-file FILE, or - to be asked; without one, \
                     for a machine on the list or to be approved: --server HOST --root-fingerprint SHA256",
                )
            })?,
        };
        EnrollToken::parse(&text).map(Access::Token).map_err(|e| Error::usage(e.to_string()))
    }

    pub(super) fn algorithm(&self, chosen: &[Software]) -> Result<KeyAlgorithm> {
        let libreswan = chosen.contains(&Software::Libreswan);
        let default = if libreswan { KeyAlgorithm::Rsa2048 } else { KeyAlgorithm::EcdsaP256 };
        let kind = |option: &KeyOption| if let KeyOption::Kind(kind) = option { Some(*kind) } else { None };
        let algorithm = self.keys.iter().find_map(kind).unwrap_or(default);
        match chosen.iter().find(|s| !s.takes(algorithm)) {
            Some(software) => Err(Error::usage(format!("{software} cannot use an {algorithm} key in IKEv1"))
                .remedy("pass --key rsa-2048, or leave it out with --for")),
            None => Ok(algorithm),
        }
    }
}

impl Enroll {
    fn in_a_token(&self) -> Option<&KeyOption> {
        self.keys.iter().find(|option| !matches!(option, KeyOption::Kind(_)))
    }

    /// Of what is on this machine, what can use a key where it is to be; what was named must.
    pub(super) fn that_take_the_key(&self, mut software: Vec<Software>) -> Result<Vec<Software>> {
        if self.in_a_token().is_none() {
            return Ok(software);
        }
        let named = !self.connection.software.is_empty();
        match software.iter().find(|s| !s.takes_token()) {
            Some(other) if named => {
                Err(Error::usage(format!("{other} cannot use a key in a token, as it is set up here"))
                    .remedy("pass --for strongswan, or leave the token out"))
            }
            _ => {
                software.retain(|s| s.takes_token());
                Ok(software)
            }
        }
    }

    /// The token that the key is to be made in. What its PIN is, is in the folder from then on.
    fn token(&self, folder: &Folder) -> Result<Option<TokenPlace>> {
        let Some(option) = self.in_a_token() else { return Ok(None) };
        if self.place.root.is_some() {
            return Err(Error::usage("a token is part of a machine, not of an image")
                .remedy("run `sallyport enroll` on the machine itself"));
        }
        let given = match &self.pin_file {
            Some(path) => Some(folder.keep_pin(&secret::from_file(path)?)?),
            None => None,
        };
        if matches!(option, KeyOption::Tpm) {
            common_tpm_store()?;
        }
        let place = match option {
            KeyOption::Tpm => match given {
                Some(pin_file) => TokenPlace { pin_file, ..TokenPlace::tpm()? },
                None => folder.make_token(&TokenPlace::tpm()?, &SystemRandom::new())?,
            },
            KeyOption::Token(place) => {
                let pin_file = match given.or_else(|| folder.kept_pin()) {
                    Some(kept) => kept,
                    None if !place.pin_file.is_empty() => place.pin_file.clone(),
                    None => {
                        let asked = secret::known(false, &format!("PIN of token {}", place.token), "--pin-file")?;
                        folder.keep_pin(&Zeroizing::new(asked.into_inner()))?
                    }
                };
                TokenPlace { pin_file, ..place.clone() }
            }
            KeyOption::Kind(_) => return Ok(None),
        };
        Ok(Some(place))
    }
}

/// Makes the folder where tpm2-pkcs11 keeps what its TPM has wrapped, unless another one is named: without it each program would look
/// into the home folder of its user, and services have none.
fn common_tpm_store() -> Result {
    let store = Path::new("/etc/tpm2_pkcs11");
    if env::var_os("TPM2_PKCS11_STORE").is_some() || store.exists() {
        return Ok(());
    }
    DirBuilder::new().mode(0o700).create(store).map_err(|e| Error::file("make the folder", store, &e))
}

/// What `--key` says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum KeyOption {
    Kind(KeyAlgorithm),
    Token(TokenPlace),
    Tpm,
}

fn key_option(text: &str) -> std::result::Result<KeyOption, String> {
    match text {
        "tpm" => Ok(KeyOption::Tpm),
        uri if uri.starts_with("pkcs11:") => uri.parse().map(KeyOption::Token).map_err(|e| {
            let e: sallyport_enroll::Error = e;
            e.to_string()
        }),
        kind => kind.parse().map(KeyOption::Kind).map_err(|_| {
            "ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096, pkcs11:token=LABEL?module-path=FILE or tpm is expected".to_owned()
        }),
    }
}

/// The roots in a file: what has signed itself.
fn roots(path: &PathBuf) -> Result<Vec<Fingerprint>> {
    let text = std::fs::read(path).map_err(|e| Error::file("read", path, &e))?;
    let all = pem::certificates(&text).map_err(|e| Error::failed(e.to_string()).context(path.display()))?;
    let root = |der: &Vec<u8>| Certificate::from_der(der).ok().filter(sallyport_enroll::is_root);
    let roots: Vec<Fingerprint> = all.iter().filter_map(root).map(|c| c.fingerprint).collect();
    match roots.is_empty() {
        true => Err(Error::usage(format!("{} holds no root certificate", path.display()))
            .remedy("`sallyport ca show root --pem` on a controller prints it")),
        false => Ok(roots),
    }
}

/// What this machine is called: for a person who decides on it, and for nothing else.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!name.is_empty() && name.len() <= 64 && name.chars().all(plain)).then(|| name.to_owned())
}

/// Goes on where a run without a token was put off.
pub(super) async fn go_on(folder: Folder, waiting: &Waiting, wait: Duration, place: &Place, format: Format) -> Result {
    let software = named(&waiting.software)?;
    // The timer is there, or was not wanted.
    let wanted = Wanted { software, password: None, user: waiting.user.clone(), timer: None };
    let (settings, identity) = match folder.answered()? {
        Some(answer) => answer,
        None => enroll(&folder, &waiting.request(wait)?, &Here::new()).await?,
    };
    arrived(&folder, settings, &identity, wanted, place)?.print(format)
}

fn arrived(folder: &Folder, settings: Settings, identity: &Identity, wanted: Wanted, place: &Place) -> Result<Done> {
    let certificate = &identity.certificate;
    let headline = format!(
        "{} has a certificate: serial {}, valid until {}, renewed from {}",
        settings.name,
        certificate.serial,
        rfc3339(certificate.not_after),
        rfc3339(due(certificate)),
    );
    let done = install_all(folder, settings, identity, wanted, place, headline)?;
    folder.clear_waiting()?;
    Ok(done)
}

/// The request is in; the timer goes on with it. Who did not want to wait has what he asked for.
fn leave(error: sallyport_enroll::Error, wanted: Wanted, content: bool, place: &Place, format: Format) -> Result {
    let mut programs = Programs;
    let mut host = place.host(&mut programs);
    let goes_on = wanted.timer.is_some();
    if let Some(program) = wanted.timer {
        install::install_timer(&mut host, &program, &place.named())?;
    }
    if let Some(user) = &wanted.user {
        host.advise(format!(
            "no password is kept: once the certificate is there, `sallyport enroll install --user {user}` asks for it"
        ));
    }
    let row = Row::look(&place.folder())?;
    host.advise(format!(
        "on a controller: `sallyport request list` and, if the key is {}, `sallyport request approve N --name NAME`",
        row.key_sha256
    ));
    host.advise(if goes_on {
        "then the timer brings the certificate within an hour or two, `sallyport enroll renew` at once"
    } else {
        "then run `sallyport enroll renew`"
    });
    let done = Done::new(format!("{} has the request; an operator has to approve it", row.server), row, host);
    done.print(format)?;
    if content { Ok(()) } else { Err(error.into()) }
}
