//! strongSwan by swanctl: <https://docs.strongswan.org/docs/latest/swanctl/swanctlConf.html>.

use super::host::{Host, SHARED};
use super::{Connection, MARK, pkcs11};
use crate::files::PRIVATE;
use crate::{Identity, Result};

const FOLDER: &str = "/etc/swanctl";
const CONF: &str = "/etc/swanctl/conf.d/sallyport.conf";
const KEY: &str = "/etc/swanctl/private/sallyport.pem";
const CERTIFICATE: &str = "/etc/swanctl/x509/sallyport.pem";
const AUTHORITIES: &str = "/etc/swanctl/x509ca";
/// Where charon takes orders, as distributions have it.
const VICI: [&str; 2] = ["/run/charon.vici", "/var/run/charon.vici"];

pub(super) fn is_there(host: &Host<'_>) -> bool {
    host.exists(FOLDER) || host.has("swanctl")
}

/// Says whether anything changed.
pub(super) fn credentials(host: &mut Host<'_>, identity: &Identity) -> Result<bool> {
    let mut changed = match identity.key.token() {
        Some(key) => pkcs11::put(host, key)? | host.remove(KEY)?,
        None => pkcs11::remove(host)? | host.put(KEY, PRIVATE, identity.key.pem().as_bytes())?,
    };
    changed |= host.put(CERTIFICATE, SHARED, identity.certificate.pem().as_bytes())?;
    // One certificate a file: of a file with several swanctl loads the first.
    let all: Vec<String> = identity
        .roots
        .iter()
        .chain(&identity.chain)
        .map(|der| sallyport_ca::pem::encode("CERTIFICATE", der).to_string())
        .collect();
    for (n, pem) in all.iter().enumerate() {
        changed |= host.put(&authority(n), SHARED, pem.as_bytes())?;
    }
    let kept: Vec<String> = (0..all.len()).map(authority).collect();
    for path in authorities(host) {
        if !kept.contains(&path) {
            changed |= host.remove(&path)?;
        }
    }
    Ok(changed)
}

fn authority(n: usize) -> String {
    match n {
        0 => format!("{AUTHORITIES}/sallyport.pem"),
        n => format!("{AUTHORITIES}/sallyport-{n}.pem"),
    }
}

fn authorities(host: &Host<'_>) -> Vec<String> {
    let ours = |name: &String| {
        let middle = name.strip_prefix("sallyport").and_then(|n| n.strip_suffix(".pem"));
        middle.is_some_and(|m| m.is_empty() || m.strip_prefix('-').is_some_and(|n| n.parse::<u8>().is_ok()))
    };
    host.names(AUTHORITIES).into_iter().filter(ours).map(|name| format!("{AUTHORITIES}/{name}")).collect()
}

pub(super) fn connection(host: &mut Host<'_>, connection: &Connection) -> Result {
    host.put_marked(CONF, SHARED, &conf(connection), "move it away and run `sallyport enroll install` to have ours")?;
    Ok(())
}

/// The connection as swanctl reads it. The proposals are the gateway's first choices; a site that changed those changes them here.
pub(crate) fn conf(connection: &Connection) -> String {
    let gateway = &connection.gateway;
    format!(
        "\
# {MARK}. Renewals leave it as it is.
connections {{
  sallyport {{
    version = 1
    remote_addrs = {gateway}
    proposals = aes256-sha256-ecp256
    dpd_delay = 30s
    local {{
      auth = pubkey
      certs = sallyport.pem
    }}
    remote {{
      auth = pubkey
      id = {gateway}
    }}
    children {{
      sallyport {{
        mode = transport
        local_ts = dynamic[udp/1701]
        remote_ts = dynamic[udp/1701]
        esp_proposals = aes256gcm16
      }}
    }}
  }}
}}
"
    )
}

/// Has a charon that runs read it all again.
pub(super) fn load(host: &mut Host<'_>) -> Result {
    if !host.is_live() {
        return Ok(());
    }
    if VICI.iter().any(|path| host.exists(path)) {
        host.tell("swanctl", &["--load-all", "--noprompt"])
    } else {
        host.advise("strongSwan does not run: start it with `systemctl restart strongswan`");
        Ok(())
    }
}

pub(super) fn uninstall(host: &mut Host<'_>) -> Result {
    let mut any = host.remove_marked(CONF)? | pkcs11::remove(host)?;
    for path in [KEY.to_owned(), CERTIFICATE.to_owned()].into_iter().chain(authorities(host)) {
        any |= host.remove(&path)?;
    }
    if any { load(host) } else { Ok(()) }
}
