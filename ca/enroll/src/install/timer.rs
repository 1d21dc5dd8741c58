//! What has the certificate renewed: a timer of systemd, or a line for cron.

use super::MARK;
use super::host::{Host, SHARED};
use crate::Result;

const SERVICE: &str = "/etc/systemd/system/sallyport-renew.service";
const TIMER: &str = "/etc/systemd/system/sallyport-renew.timer";
const UNIT: &str = "sallyport-renew.timer";
/// Where systemd is the init (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

pub(super) fn install(host: &mut Host<'_>, program: &str, dir: &str) -> Result {
    if host.is_live() && !host.exists(SYSTEMD) {
        host.advise(format!("no systemd runs here: have cron renew the certificate, for example\n17 3 * * * root {program} enroll renew --dir {dir}"));
        return Ok(());
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
