//! What `sallyport enroll` prints.

use sallyport_ca::Certificate;
use sallyport_enroll::install::Host;
use sallyport_enroll::{Identity, Settings, due};
use serde::Serialize;

use crate::clock::unix_now;
use crate::error::Result;
use crate::output::{Column, Format, Printer, Record, rfc3339};

/// The certificate of this machine.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    name: String,
    state: &'static str,
    pub(super) serial: String,
    issuer: String,
    key: String,
    server: String,
    not_before: String,
    pub(super) not_after: String,
    due: String,
    installed: Vec<String>,
}

impl Row {
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
            server: settings.server.clone(),
            not_before: rfc3339(certificate.not_before),
            not_after: rfc3339(certificate.not_after),
            due: rfc3339(due(certificate)),
            installed: settings.installed.clone(),
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("NAME"),
        Column::left("STATE"),
        Column::left("NOT AFTER"),
        Column::left("RENEWED FROM"),
        Column::left("INSTALLED FOR"),
        Column::left("ISSUER"),
        Column::left("SERIAL"),
    ];

    fn cells(&self) -> Vec<String> {
        let installed = if self.installed.is_empty() { "-".to_owned() } else { self.installed.join(",") };
        let (name, issuer) = (self.name.clone(), self.issuer.clone());
        vec![name, self.state.into(), self.not_after.clone(), self.due.clone(), installed, issuer, self.serial.clone()]
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
