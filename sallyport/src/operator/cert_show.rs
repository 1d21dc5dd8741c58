//! `sallyport cert show`.

use sallyport_proto::v1::GetCertificateRequest;

use super::cert::Row;
use super::{Context, refused};
use crate::cli::Global;
use crate::error::Result;
use crate::output::one_line;

/// Shows one certificate.
pub(super) async fn run(serial: String, global: &Global) -> Result {
    let mut context = Context::open(global).await?;
    let answer = context.connection.client.get_certificate(GetCertificateRequest { serial }).await.map_err(refused)?;
    let row = Row::from(answer.into_inner().info.unwrap_or_default());
    context.printer.one(&row, &text(&row))
}

fn text(row: &Row) -> String {
    let names = row.sans.join(", ");
    let why = match row.revocation_reason.as_str() {
        "" => row.reason.to_owned(),
        text => format!("{} ({text})", row.reason),
    };
    let lines = [
        ("name", row.name.as_str()),
        ("names", &names),
        ("profile", row.profile),
        ("key", row.key),
        ("state", row.state),
        ("issued", &row.issued),
        ("not before", if row.compacted { "" } else { &row.not_before }),
        ("not after", &row.not_after),
        ("revoked", &row.revoked),
        ("reason", if row.revoked.is_empty() { "" } else { &why }),
        ("serial", &row.serial),
        (if row.compacted { "SHA-256 begins with" } else { "SHA-256" }, &row.fingerprint),
    ];
    let lines = lines.iter().filter(|(_, value)| !value.is_empty());
    let mut text: Vec<String> = lines.map(|(what, value)| format!("{what}: {}", one_line(value))).collect();
    if row.compacted {
        text.push("it ended long ago; sallyport audit list has the rest of what is known of it".into());
    }
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use sallyport_proto::v1::{self, CertificateInfo};

    use super::*;

    #[test]
    fn what_is_not_known_is_not_shown() {
        let whole = CertificateInfo {
            serial: "01ab".into(),
            profile: v1::CertificateProfile::Machine.into(),
            name: "laptop7.example.com".into(),
            sans: vec!["laptop7.example.com".into()],
            not_before_unix_ms: 1_600_000_000_000,
            not_after_unix_ms: 1_602_000_000_000,
            fingerprint: vec![7; 32],
            issued_unix_ms: 1_600_000_000_000,
            revoked_unix_ms: 1_601_000_000_000,
            revocation_code: v1::RevocationReason::KeyCompromise.into(),
            revocation_reason: "stolen".into(),
            ..CertificateInfo::default()
        };
        let shown = text(&Row::from(whole.clone()));
        for part in
            ["name: laptop7.example.com", "state: revoked", "(stolen)", "serial: 01ab", "not before: 2020-09-13"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let old = CertificateInfo {
            compacted: true,
            fingerprint: vec![7; 16],
            sans: Vec::new(),
            not_before_unix_ms: 0,
            revoked_unix_ms: 0,
            ..whole
        };
        let shown = text(&Row::from(old));
        assert!(shown.contains("state: expired") && shown.contains("begins with: 0707"), "{shown}");
        for part in ["names:", "not before", "revoked", "stolen"] {
            assert!(!shown.contains(part), "{part}: {shown}");
        }
    }
}
