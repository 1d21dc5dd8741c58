//! xl2tpd and pppd, the upper half of a connection by strongSwan or libreswan.

use zeroize::Zeroizing;

use super::host::{Host, SHARED};
use super::{Connection, MARK};
use crate::Result;
use crate::files::PRIVATE;

const CONF: &str = "/etc/xl2tpd/xl2tpd.conf";
/// What was there before, if it was nothing but comments.
const BEFORE: &str = "/etc/xl2tpd/xl2tpd.conf.before-sallyport";
pub(crate) const OPTIONS: &str = "/etc/ppp/options.sallyport";
/// What pppd is told of every connection.
pub(crate) const FIXED: &str = "\
noauth
refuse-eap
refuse-pap
refuse-chap
refuse-mschap
nodefaultroute
usepeerdns
noccp
noipv6
mtu 1400
mru 1400
";

pub(super) fn connection(host: &mut Host<'_>, connection: &Connection) -> Result {
    let Some(user) = &connection.user else {
        host.advise("no user was named: `sallyport enroll install --user NAME` writes the L2TP part");
        return Ok(());
    };
    options(host, user, connection.password.as_ref().map(|p| p.as_str()))?;
    conf(host, &connection.gateway)?;
    if host.is_live() && !host.has("xl2tpd") {
        host.advise("xl2tpd is not installed: `apt-get install xl2tpd` (or dnf)");
    }
    host.advise(
        "connect: `swanctl --initiate --child sallyport` (libreswan: `ipsec auto --up sallyport`), \
         then `echo \"c sallyport\" > /run/xl2tpd/l2tp-control`",
    );
    Ok(())
}

fn options(host: &mut Host<'_>, user: &str, password: Option<&str>) -> Result {
    let mut text = Zeroizing::new(String::with_capacity(2048));
    text.push_str(&format!("# {MARK}. It holds a password: mode 600.\nname \"{user}\"\n"));
    match password {
        Some(password) => {
            text.push_str("password \"");
            // pppd(8): a backslash takes the next character as it is.
            for c in password.chars() {
                if matches!(c, '"' | '\\') {
                    text.push('\\');
                }
                text.push(c);
            }
            text.push_str("\"\n");
        }
        None => {
            let kept = host.read(OPTIONS)?.and_then(|old| kept_password(&old, user));
            match kept {
                Some(line) => text.push_str(&line),
                None => host.advise(format!("no password was given: add the line `password \"...\"` to {OPTIONS}")),
            }
        }
    }
    text.push_str(FIXED);
    host.put_marked(OPTIONS, PRIVATE, &text, "remove it and run `sallyport enroll install` again")?;
    Ok(())
}

/// The line of a password that is there for the same user.
fn kept_password(old: &[u8], user: &str) -> Option<Zeroizing<String>> {
    let old = core::str::from_utf8(old).ok()?;
    let same = old.lines().any(|line| line == format!("name \"{user}\""));
    let line = old.lines().find(|line| line.starts_with("password "))?;
    same.then(|| Zeroizing::new(format!("{line}\n")))
}

/// The connection as xl2tpd reads it.
pub(crate) fn section(gateway: &str) -> String {
    format!("[lac sallyport]\nlns = {gateway}\npppoptfile = {OPTIONS}\nlength bit = yes\n")
}

fn conf(host: &mut Host<'_>, gateway: &str) -> Result {
    let section = section(gateway);
    if let Some(there) = host.read(CONF)? {
        let text = String::from_utf8_lossy(&there);
        // What distributions bring: examples, all of them comments.
        let comments = text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with([';', '#']));
        if comments && !text.contains(MARK) {
            host.put(BEFORE, SHARED, &there)?;
            host.remove(CONF)?;
        }
    }
    let whole = format!(
        "; {MARK}. It has no includes: add further sections here and remove this line.\n[global]\nport = 1701\n\n{section}"
    );
    host.put_marked(CONF, SHARED, &whole, &format!("add to it, unless it is there:\n{section}"))?;
    Ok(())
}

pub(super) fn uninstall(host: &mut Host<'_>) -> Result {
    host.remove_marked(OPTIONS)?;
    if host.remove_marked(CONF)?
        && let Some(before) = host.read(BEFORE)?
    {
        host.put(CONF, SHARED, &before)?;
        host.remove(BEFORE)?;
    }
    Ok(())
}
