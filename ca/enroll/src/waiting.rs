//! A machine that asked for its first certificate and has no answer yet: what another run, or the timer, needs to go on.

use std::time::Duration;

use sallyport_ca::{Fingerprint, KeyAlgorithm, PublicKey};
use serde::{Deserialize, Serialize};

use crate::enroll::{Access, Request};
use crate::files::{self, PRIVATE};
use crate::{Error, Folder, Identity, Kind, Result, Settings};

const WAITING: &str = "waiting.toml";
const HEAD: &str = "# Written by `sallyport enroll`: this machine waits for its first certificate. `sallyport enroll renew` goes on.\n";

/// What `waiting.toml` says. A token is never in it: who has one needs no approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    /// Where the request is, HOST or HOST:PORT.
    pub server: String,
    /// SHA-256 of the roots that the authority is known by, in hexadecimal digits.
    pub roots: Vec<String>,
    /// The kind of key.
    pub key: String,
    /// The token that the key is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_in: Option<String>,
    /// The name that the certificate must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The VPN's public name or address, if it is not the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The user of the connections that will be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// For which software the certificate will be installed.
    #[serde(default)]
    pub software: Vec<String>,
}

impl Waiting {
    /// The same request once more.
    pub fn request(&self, wait: Duration) -> Result<Request> {
        let root = |text: &String| {
            parse_fingerprint(text)
                .ok_or_else(|| Error::machine(format!("{text:?} is no fingerprint"), "run sallyport enroll anew"))
        };
        Ok(Request {
            access: Access::Listed(self.roots.iter().map(root).collect::<Result<_>>()?),
            server: Some(self.server.parse()?),
            name: self.name.clone(),
            claim: None,
            key: self.key.parse::<KeyAlgorithm>()?,
            key_in: self.key_in.as_deref().map(str::parse).transpose()?,
            gateway: self.gateway.clone(),
            wait,
            waiting: None,
        })
    }
}

/// A SHA-256 as people copy it: 64 hexadecimal digits, with or without colons, perhaps behind `sha256 Fingerprint=` or `SHA256:`.
pub fn parse_fingerprint(text: &str) -> Option<Fingerprint> {
    let text = text.trim().rsplit('=').next().unwrap_or_default();
    let text = match text.get(..7) {
        Some(head) if head.eq_ignore_ascii_case("sha256:") => text.get(7..).unwrap_or_default(),
        _ => text,
    };
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(Fingerprint(hash))
}

impl Folder {
    /// Takes the folder of a machine that waits for its first certificate; `None` where it does not.
    pub fn open_waiting(dir: &std::path::Path) -> Result<Option<(Self, Waiting)>> {
        if !dir.join(WAITING).exists() {
            return Ok(None);
        }
        let folder = Self::open(dir)?;
        Ok(Self::look_waiting(dir)?.map(|(waiting, _)| (folder, waiting)))
    }

    /// The same, to be shown, with the SHA-256 of the key that waits; the folder is neither taken nor changed.
    pub fn look_waiting(dir: &std::path::Path) -> Result<Option<(Waiting, String)>> {
        let path = dir.join(WAITING);
        let Some(text) = files::read(&path)? else { return Ok(None) };
        let waiting = toml::from_str(core::str::from_utf8(&text).unwrap_or_default()).map_err(|e| {
            let cause = format!("{} cannot be read: {}", path.display(), e.message());
            Error::new(Kind::Machine, cause, "remove it and run sallyport enroll anew")
        })?;
        let csr = files::read(&dir.join("pending").join("request.der"))?;
        let key = csr.and_then(|der| PublicKey::from_csr_der(&der).ok());
        let key = key.map(|k| Fingerprint::of(k.spki_der()).to_string()).unwrap_or_default();
        Ok(Some((waiting, key)))
    }

    pub(crate) fn write_waiting(&self, waiting: &Waiting) -> Result {
        let text = toml::to_string(waiting).map_err(|e| Error::machine(e.to_string(), ""))?;
        files::put(&self.path().join(WAITING), PRIVATE, format!("{HEAD}{text}").as_bytes())
    }

    /// What the waiting was for, if it came and the run that got it ended before it said so.
    pub fn answered(&self) -> Result<Option<(Settings, Identity)>> {
        if self.path().join("pending").exists() {
            return Ok(None);
        }
        Ok(self.settings()?.zip(self.identity()?))
    }

    /// The waiting is over.
    pub fn clear_waiting(&self) -> Result {
        files::remove(&self.path().join(WAITING)).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_taken_as_it_is_copied() {
        let plain = "00".repeat(31) + "ff";
        let colons = ["00"; 31].join(":") + ":FF";
        let mut expected = [0; 32];
        expected[31] = 255;
        for text in [plain.clone(), colons.clone(), format!("sha256 Fingerprint={colons}\n"), format!("SHA256:{plain}")]
        {
            assert_eq!(parse_fingerprint(&text), Some(Fingerprint(expected)), "{text}");
        }
        for bad in ["", "00", &plain[..62], &format!("{plain}0"), &"0g".repeat(32), &"é".repeat(32)] {
            assert_eq!(parse_fingerprint(bad), None, "{bad}");
        }
    }
}
