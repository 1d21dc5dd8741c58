//! NetworkManager with its plugin for L2TP: a keyfile whose certificates are the folder's own files, so that a renewal has
//! nothing to do.

use sallyport_ca::Fingerprint;
use zeroize::Zeroizing;

use super::host::Host;
use super::{Connection, MARK};
use crate::files::PRIVATE;
use crate::{Identity, Result};

const FOLDER: &str = "/etc/NetworkManager/system-connections";
const FILE: &str = "/etc/NetworkManager/system-connections/sallyport.nmconnection";
/// The plugin, as its packages install it.
const PLUGINS: [&str; 2] =
    ["/usr/lib/NetworkManager/VPN/nm-l2tp-service.name", "/etc/NetworkManager/VPN/nm-l2tp-service.name"];

pub(super) fn is_there(host: &Host<'_>) -> bool {
    PLUGINS.iter().any(|path| host.exists(path))
}

/// The keyfile of a connection, with the paths of root, certificate and key. The password is kept in it if it is given; else
/// the person is asked.
pub fn connection_file(
    connection: &Connection,
    name: &str,
    ca: &str,
    certificate: &str,
    key: &str,
) -> Zeroizing<String> {
    let gateway = &connection.gateway;
    let mut text = Zeroizing::new(String::with_capacity(4096));
    text.push_str(&format!(
        "\
# {MARK}.
[connection]
id=Sallyport {gateway}
uuid={}
type=vpn
autoconnect=false

[vpn]
service-type=org.freedesktop.NetworkManager.l2tp
gateway={gateway}
ipsec-enabled=yes
ipsec-remote-id={gateway}
machine-auth-type=tls
machine-ca={}
machine-cert={}
machine-key={}
machine-certpass-flags=4
mtu=1400
refuse-chap=yes
refuse-eap=yes
refuse-mschap=yes
refuse-pap=yes
",
        uuid(&[gateway, name]),
        escaped(ca).as_str(),
        escaped(certificate).as_str(),
        escaped(key).as_str(),
    ));
    if let Some(user) = &connection.user {
        text.push_str(&format!("user={}\n", escaped(user).as_str()));
    }
    match &connection.password {
        // 0: NetworkManager keeps it, 2: asked each time
        Some(password) => {
            text.push_str(&format!("password-flags=0\n\n[vpn-secrets]\npassword={}\n", escaped(password).as_str()))
        }
        None => text.push_str("password-flags=2\n"),
    }
    text.push_str("\n[ipv4]\nmethod=auto\nnever-default=true\n\n[ipv6]\nmethod=disabled\n");
    text
}

/// A value of a keyfile: backslashes, and a space at its beginning, are written as GKeyFile reads them.
fn escaped(value: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(2 * value.len() + 2));
    for (n, c) in value.chars().enumerate() {
        match c {
            '\\' => out.push_str("\\\\"),
            ' ' if n == 0 => out.push_str("\\s"),
            c => out.push(c),
        }
    }
    out
}

/// A UUID that is the same for the same connection (version 8 of RFC 9562).
fn uuid(of: &[&str]) -> String {
    let mut id = [0; 16];
    id.copy_from_slice(Fingerprint::of(of.join("\n").as_bytes()).0.first_chunk::<16>().unwrap_or(&[0; 16]));
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default().to_owned()).join("-")
}

pub(super) fn connection(host: &mut Host<'_>, identity: &Identity, connection: &Connection) -> Result {
    let dir = host.folder.clone();
    super::check_path("the path of the folder", &dir)?;
    let path = |name: &str| format!("{dir}/{name}");
    let text = connection_file(connection, &identity.name(), &path("ca.pem"), &path("cert.pem"), &path("key.pem"));
    crate::files::make_dir(&host.path(FOLDER), 0o700)?;
    host.put_marked(FILE, PRIVATE, &text, "remove that connection and run `sallyport enroll install` again")?;
    if !is_there(host) {
        host.advise("NetworkManager's plugin is not installed: `apt-get install network-manager-l2tp` (or dnf install NetworkManager-l2tp)");
    }
    Ok(())
}

pub(super) fn load(host: &mut Host<'_>) -> Result {
    if host.is_live() && host.has("nmcli") && host.exists("/run/NetworkManager") {
        return host.tell("nmcli", &["connection", "reload"]);
    }
    Ok(())
}

pub(super) fn uninstall(host: &mut Host<'_>) -> Result {
    if host.remove_marked(FILE)? { load(host) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_one_uuid_for_good() {
        assert_eq!(uuid(&["a", "b"]), uuid(&["a", "b"]));
        assert_ne!(uuid(&["a", "b"]), uuid(&["a", "c"]));
        let id = uuid(&["a"]);
        assert_eq!((id.len(), &id[14..15], id.matches('-').count()), (36, "8", 4));
    }
}
