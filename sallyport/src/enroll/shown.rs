//! What `sallyport enroll` prints.

use std::path::Path;
use std::time::Duration;

use sallyport_ca::{Certificate, Fingerprint};
use sallyport_enroll::install::Host;
use sallyport_enroll::{Folder, Identity, Settings, due, revoked_since};
use serde::Serialize;

use crate::clock::unix_now;
use crate::error::Result;
use crate::output::{Column, Format, Printer, Record, rfc3339};

/// The certificate of this machine.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Row {
    name: String,
    state: &'static str,
    pub(super) serial: String,
    issuer: String,
    key: String,
    /// The token that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_in: Option<String>,
    /// SHA-256 of the public key, as operators see it.
    pub(super) key_sha256: String,
    pub(super) server: String,
    not_before: String,
    pub(super) not_after: String,
    due: String,
    /// What the authority's list says, where it was asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    revocation: String,
    installed: Vec<String>,
}

/// How long the list may take.
const LIST: Duration = Duration::from_secs(5);

impl Row {
    /// Of a machine that has a certificate, or waits for its first.
    pub(super) fn look(dir: &Path) -> Result<Self> {
        if let Some((waiting, key_sha256)) = Folder::look_waiting(dir)? {
            return Ok(Self {
                name: waiting.name.unwrap_or_default(),
                state: "waiting",
                key: waiting.key,
                key_in: waiting.key_in,
                key_sha256,
                server: waiting.server,
                ..Self::default()
            });
        }
        let (settings, identity) = Folder::look(dir)?;
        Ok(Self::new(&settings, &identity))
    }

    /// The same with what the authority's list says: a certificate that is revoked looks like any other.
    pub(super) async fn ask(dir: &Path) -> Result<Self> {
        let mut row = Self::look(dir)?;
        if row.state == "waiting" {
            return Ok(row);
        }
        let (settings, identity) = Folder::look(dir)?;
        let asked = tokio::time::timeout(LIST, revoked_since(&settings, &identity, unix_now())).await;
        row.revocation = match asked {
            Ok(Ok(None)) => "not revoked".into(),
            Ok(Ok(Some(since))) => {
                row.state = "revoked";
                format!("since {}", rfc3339(since))
            }
            Ok(Err(e)) => format!("not known: {}", e.cause),
            Err(_) => format!("not known: {} does not answer", settings.server),
        };
        Ok(row)
    }

    pub(super) fn new(settings: &Settings, identity: &Identity) -> Self {
        let (certificate, now) = (&identity.certificate, unix_now());
        let above = identity.chain.first().or(identity.roots.first());
        let issuer = above.and_then(|der| Certificate::from_der(der).ok()).map(|c| c.subject).unwrap_or_default();
        let state = match now {
            _ if now > certificate.not_after => "expired",
            _ if now < certificate.not_before => "not yet valid",
            _ if now >= due(certificate) => "due",
            _ => "valid",
        };
        Self {
            name: settings.name.clone(),
            state,
            serial: certificate.serial.to_string(),
            issuer,
            key: identity.key.public_key().algorithm().to_string(),
            key_in: settings.key_in.clone(),
            key_sha256: Fingerprint::of(&certificate.spki_der()).to_string(),
            server: settings.server.clone(),
            not_before: rfc3339(certificate.not_before),
            not_after: rfc3339(certificate.not_after),
            due: rfc3339(due(certificate)),
            revocation: String::new(),
            installed: settings.installed.clone(),
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("NAME"),
        Column::left("STATE"),
        Column::left("REVOKED"),
        Column::left("NOT AFTER"),
        Column::left("RENEWED FROM"),
        Column::left("INSTALLED FOR"),
        Column::left("ISSUER"),
        Column::left("SERIAL"),
        Column::left("KEY SHA-256"),
    ];

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        vec![
            or_dash(&self.name),
            self.state.into(),
            or_dash(&self.revocation),
            or_dash(&self.not_after),
            or_dash(&self.due),
            or_dash(&self.installed.join(",")),
            or_dash(&self.issuer),
            or_dash(&self.serial),
            self.key_sha256.clone(),
        ]
    }
}

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    #[serde(flatten)]
    certificate: Row,
    #[serde(skip)]
    headline: String,
    wrote: Vec<String>,
    removed: Vec<String>,
    ran: Vec<String>,
    to_do: Vec<String>,
}

impl Done {
    pub(super) fn new(headline: String, certificate: Row, host: Host<'_>) -> Self {
        let Host { wrote, removed, ran, mut advice, .. } = host;
        let mut seen = Vec::new();
        advice.retain(|a| {
            !seen.contains(a) && {
                seen.push(a.clone());
                true
            }
        });
        Self { certificate, headline, wrote, removed, ran, to_do: advice }
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.headline);
        for (what, list) in [("wrote", &self.wrote), ("removed", &self.removed), ("ran", &self.ran)] {
            list.iter().for_each(|item| text += &format!("{what} {item}\n"));
        }
        self.to_do.iter().for_each(|item| text += &format!("to do: {item}\n"));
        text
    }

    pub(super) fn print(&self, format: Format) -> Result {
        Printer::new(format).one(self, &self.text())
    }
}
