//! strongSwan with a key in a token: <https://docs.strongswan.org/docs/latest/plugins/pkcs11.html>.

use zeroize::Zeroizing;

use super::MARK;
use super::host::{Host, SHARED};
use crate::files::PRIVATE;
use crate::{Error, Result, TokenKey};

/// Which key, and its PIN.
const SECRET: &str = "/etc/swanctl/conf.d/sallyport-token.conf";
/// The token's module.
const MODULE: &str = "/etc/strongswan.d/sallyport-token.conf";
/// The plugin, as Debian and Fedora install it.
const PLUGINS: [&str; 3] = [
    "/usr/lib/ipsec/plugins/libstrongswan-pkcs11.so",
    "/usr/lib64/strongswan/plugins/libstrongswan-pkcs11.so",
    "/usr/lib/strongswan/plugins/libstrongswan-pkcs11.so",
];

/// Says whether anything changed.
pub(super) fn put(host: &mut Host<'_>, key: &TokenKey) -> Result<bool> {
    let add = "move it away and run `sallyport enroll install` to have ours";
    if host.put_marked(MODULE, SHARED, &module(&key.place().module), add)? {
        host.advise("strongSwan learns of the token's module when it starts: `systemctl restart strongswan`");
    }
    if host.is_live() && !PLUGINS.iter().any(|path| host.exists(path)) {
        host.advise("strongSwan's plugin pkcs11 is not installed: `apt-get install libstrongswan-extra-plugins`");
    }
    let pin = key.pin()?;
    let pin = core::str::from_utf8(&pin).map_err(|_| Error::machine("the PIN is not UTF-8", ""))?;
    host.put_marked(SECRET, PRIVATE, &secret(&key.handle(), pin), add)
}

/// Says whether there was anything.
pub(super) fn remove(host: &mut Host<'_>) -> Result<bool> {
    Ok(host.remove_marked(SECRET)? | host.remove_marked(MODULE)?)
}

fn module(path: &str) -> String {
    format!(
        "\
# {MARK}.
charon {{
  plugins {{
    pkcs11 {{
      modules {{
        sallyport {{
          path = {}
          load_certs = no
        }}
      }}
    }}
  }}
}}
",
        quoted(path).as_str()
    )
}

fn secret(handle: &str, pin: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(1024));
    text.push_str(&format!(
        "\
# {MARK}. It holds the PIN of a token: mode 600.
secrets {{
  token-sallyport {{
    module = sallyport
    handle = {handle}
    pin = "
    ));
    text.push_str(&quoted(pin));
    text.push_str("\n  }\n}\n");
    text
}

/// A value of strongSwan's settings in quotes. There are no control characters in it.
fn quoted(value: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(2 * value.len() + 2));
    out.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_stays_in_its_quotes() {
        assert!(secret("ab", "1\"2\\3#").contains("    handle = ab\n    pin = \"1\\\"2\\\\3#\"\n  }\n}\n"));
        assert!(module("/opt/a b.so").contains("path = \"/opt/a b.so\"\n"));
    }
}
