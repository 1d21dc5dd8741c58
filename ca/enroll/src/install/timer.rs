//! What has the certificate renewed: a timer of systemd, or a line for cron.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::host::{Host, SHARED};
use super::{MARK, check_path, shell_word};
use crate::{Error, Kind, Result};

const SERVICE: &str = "/etc/systemd/system/sallyport-renew.service";
const TIMER: &str = "/etc/systemd/system/sallyport-renew.timer";
const UNIT: &str = "sallyport-renew.timer";
/// Where systemd is the init (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// What the service does not see (ProtectHome, PrivateTmp), or what is gone after the next start.
const HIDDEN: [&str; 6] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp", "/dev/shm"];

/// Whether the service will find the program and the folder.
pub(super) fn check(host: &Host<'_>, program: &str, dir: &str) -> Result {
    check_path("the path of the program", program)?;
    check_path("the path of the folder", dir)?;
    if host.is_live() && !host.exists(SYSTEMD) {
        return Ok(()); // cron runs anything
    }
    let hidden = |path: &str| HIDDEN.iter().find(|dir| Path::new(path).starts_with(dir)).copied();
    let copy = format!(
        "install -m 755 {} /usr/local/bin/sallyport, and run that one; or name one with --binary, or pass --no-timer",
        shell_word(program)
    );
    if let Some(hidden) = hidden(program) {
        return Err(usage(format!("systemd's timer cannot run {program}: services do not see {hidden}"), copy));
    }
    if let Some(hidden) = hidden(dir) {
        let remedy = "choose another folder with --dir, such as /etc/sallyport/enroll, or pass --no-timer";
        return Err(usage(format!("systemd's timer cannot use {dir}: services do not see {hidden}"), remedy));
    }
    if !host.is_live() {
        return Ok(()); // the image may get its program later
    }
    match fs::metadata(program) {
        Err(e) => Err(usage(format!("systemd's timer cannot run {program}: {e}"), copy)),
        Ok(file) if !file.is_file() || file.mode() & 0o111 == 0 => {
            Err(usage(format!("systemd's timer cannot run {program}: it is no program"), copy))
        }
        Ok(file) if file.uid() != 0 || file.mode() & 0o022 != 0 => Err(usage(
            format!("{program} belongs to a user, or others may change it: root's timer must not run it"),
            copy,
        )),
        Ok(_) => Ok(()),
    }
}

fn usage(cause: String, remedy: impl Into<String>) -> Error {
    Error::new(Kind::Usage, cause, remedy)
}

pub(super) fn install(host: &mut Host<'_>, program: &str, dir: &str) -> Result {
    check(host, program, dir)?;
    if host.is_live() && !host.exists(SYSTEMD) {
        // In a crontab % is the end of the line.
        let word = |text: &str| shell_word(text).replace('%', "\\%");
        host.advise(format!(
            "no systemd runs here: have cron renew the certificate, for example\n17 * * * * root {} enroll renew --wait 10m --dir {}",
            word(program),
            word(dir)
        ));
        return Ok(());
    }
    if !host.is_live() && !host.exists(program) {
        host.advise(format!("the timer runs {program}: put the program there in the image"));
    }
    let service = format!(
        "\
# {MARK}.
[Unit]
Description=Renew this machine's VPN certificate when it is due
Documentation=man:sallyport-enroll-renew(1)
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={} enroll renew --wait 10m --dir {}
NoNewPrivileges=yes
PrivateTmp=yes
ProtectHome=yes
",
        quoted(program),
        quoted(dir)
    );
    let timer = format!(
        "\
# {MARK}.
[Unit]
Description=Look every hour whether this machine's VPN certificate is due
Documentation=man:sallyport-enroll-renew(1)

[Timer]
OnCalendar=hourly
RandomizedDelaySec=1h
Persistent=true

[Install]
WantedBy=timers.target
"
    );
    let hint = "run `systemctl edit --full` on it, or remove it and run `sallyport enroll install`";
    let mut changed = host.put_marked(SERVICE, SHARED, &service, hint)?;
    changed |= host.put_marked(TIMER, SHARED, &timer, hint)?;
    if changed {
        host.tell("systemctl", &["daemon-reload"])?;
    }
    host.tell("systemctl", &["enable", "--now", UNIT])
}

/// A word of a unit file (systemd.service(5)).
fn quoted(word: &str) -> String {
    let doubled = word.replace('%', "%%").replace('$', "$$");
    if doubled.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | ';')) {
        return doubled;
    }
    format!("\"{}\"", doubled.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) fn uninstall(host: &mut Host<'_>) -> Result {
    if host.exists(TIMER) && host.exists(SYSTEMD) {
        host.tell("systemctl", &["disable", "--now", UNIT])?;
    }
    let mut changed = host.remove_marked(TIMER)?;
    changed |= host.remove_marked(SERVICE)?;
    if changed && host.exists(SYSTEMD) {
        host.tell("systemctl", &["daemon-reload"])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_unit_stay_whole() {
        assert_eq!(quoted("/usr/local/bin/sallyport"), "/usr/local/bin/sallyport");
        assert_eq!(quoted("/opt/my vpn/100%/\"x\""), "\"/opt/my vpn/100%%/\\\"x\\\"\"");
    }
}
