//! Putting a certificate where software looks for it, and having it renewed.

use std::env;
use std::path::PathBuf;

use sallyport_ca::SystemRandom;
use sallyport_enroll::install::{self, Connection, Host, Software};
use sallyport_enroll::{Folder, Identity, Settings};
use zeroize::Zeroizing;

use super::here::Programs;
use super::options::{ConnectionOptions, Place, TimerOptions};
use super::shown::{Done, Row};
use crate::error::{Error, Result};

/// What is to be there in the end.
pub(super) struct Wanted {
    pub(super) software: Vec<Software>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Zeroizing<String>>,
    /// What the timer runs.
    pub(super) timer: Option<String>,
}

/// The program that the timer runs: what was named, else this one; none where no timer is wanted. Whether systemd can run it is looked
/// at before anything is done.
pub(super) fn program(options: &TimerOptions, place: &Place) -> Result<Option<String>> {
    const USUAL: &str = "/usr/local/bin/sallyport";
    if options.no_timer {
        return Ok(None);
    }
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let program = match (&options.binary, &place.root) {
        (Some(path), _) => text(path.clone()),
        // An image has its own programs.
        (None, Some(_)) => USUAL.to_owned(),
        (None, None) => env::current_exe().map_or_else(|_| USUAL.to_owned(), text),
    };
    let mut programs = Programs;
    install::check_timer(&place.host(&mut programs), &program, &place.named())?;
    Ok(Some(program))
}

/// Installs for all that is wanted, and goes on where one of them fails.
pub(super) fn install_all(
    folder: &Folder,
    mut settings: Settings,
    identity: &Identity,
    wanted: Wanted,
    place: &Place,
    headline: String,
) -> Result<Done> {
    let mut programs = Programs;
    let mut host = place.host(&mut programs);
    settings.user = wanted.user.or(settings.user);
    let connection =
        Connection { gateway: settings.gateway.clone(), user: settings.user.clone(), password: wanted.password };
    let mut failed = None;
    for software in &wanted.software {
        let name = software.name().to_owned();
        match install::install(*software, &mut host, identity, &connection, &SystemRandom::new()) {
            Ok(()) if settings.installed.contains(&name) => {}
            Ok(()) => settings.installed.push(name),
            Err(e) => {
                failed.get_or_insert_with(|| {
                    Error::from(e).context(format!("the certificate is there, but not installed for {name}"))
                });
            }
        }
    }
    if wanted.software.is_empty() {
        host.advise(
            "no VPN software was found: install it and run `sallyport enroll install`, or use the files of this folder",
        );
    }
    if let Some(program) = wanted.timer {
        install::install_timer(&mut host, &program, &place.named())?;
    }
    folder.write_settings(&settings)?;
    match failed {
        Some(error) => Err(error),
        None => Ok(Done::new(headline, Row::new(&settings, identity), host)),
    }
}

/// `enroll install`.
pub(super) fn put(
    folder: &Folder,
    mut settings: Settings,
    identity: &Identity,
    options: &ConnectionOptions,
    timer: &TimerOptions,
    place: &Place,
    headline: String,
) -> Result<Done> {
    let timer = program(timer, place)?;
    if let Some(gateway) = &options.gateway {
        settings.gateway.clone_from(gateway);
    }
    let mut software = options.software(&place.host(&mut Programs))?;
    if identity.key.token().is_some() && options.software.is_empty() {
        software.retain(|s| s.takes_token());
    }
    let wanted = Wanted { software, user: options.user.clone(), password: options.password()?, timer };
    install_all(folder, settings, identity, wanted, place, headline)
}

/// Puts right what is installed; the first thing that fails.
pub(super) fn refresh(settings: &Settings, identity: &Identity, host: &mut Host<'_>) -> Option<Error> {
    let mut failed = None;
    for name in &settings.installed {
        let refreshed =
            name.parse().and_then(|software| install::refresh(software, host, identity, &SystemRandom::new()));
        if let Err(e) = refreshed {
            failed.get_or_insert_with(|| Error::from(e).context(format!("not installed for {name}")));
        }
    }
    failed
}
