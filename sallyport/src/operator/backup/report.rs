//! What is in a backup, for people and for programs.

use std::path::{Path, PathBuf};

use sallyport_base::UnixTime;
use sallyport_controller::backup::Contents;
use serde::Serialize;

use crate::operator::unix;
use crate::output::{one_line, rfc3339};

#[derive(Serialize)]
struct Root {
    subject: String,
    key: String,
    fingerprint: String,
    not_after: String,
}

/// What was found in a backup.
#[derive(Serialize)]
pub(super) struct Report {
    file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored_into: Option<PathBuf>,
    cluster_id: String,
    created: String,
    log_time: String,
    applied_index: u64,
    version: String,
    users: usize,
    pools: usize,
    sessions: usize,
    gateways: usize,
    certificates: usize,
    revoked: usize,
    last_certificate_number: u64,
    attempts: usize,
    psk_set: bool,
    roots: Vec<Root>,
}

impl Report {
    /// A report on a backup, and where it was restored to.
    pub(super) fn new(file: &Path, contents: &Contents, restored_into: Option<&Path>) -> Self {
        let info = &contents.info;
        let roots = contents.roots.iter().map(|root| Root {
            subject: root.subject.clone(),
            key: root.key.clone(),
            fingerprint: crate::hex::lower(&root.fingerprint),
            not_after: rfc3339(UnixTime(root.not_after)),
        });
        Self {
            file: file.into(),
            restored_into: restored_into.map(Path::to_path_buf),
            cluster_id: crate::hex::lower(&info.cluster_id),
            created: rfc3339(unix(info.created_unix_ms)),
            log_time: rfc3339(unix(info.log_time_unix_ms)),
            applied_index: info.applied_index,
            version: info.version.clone(),
            users: contents.users,
            pools: contents.pools,
            sessions: contents.sessions,
            gateways: contents.gateways,
            certificates: contents.certificates,
            revoked: contents.revoked,
            last_certificate_number: contents.last_certificate,
            attempts: contents.attempts,
            psk_set: contents.psk,
            roots: roots.collect(),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "cluster         {}\n\
             made            {} by version {}, at log index {}\n\
             users           {}\n\
             pools           {}\n\
             sessions        {} when it was made\n\
             gateways        {}\n\
             certificates    {}, {} of them revoked; the last number is {}\n\
             audit           {} attempts\n\
             pre-shared key  {}",
            self.cluster_id,
            self.created,
            one_line(&self.version),
            self.applied_index,
            self.users,
            self.pools,
            self.sessions,
            self.gateways,
            self.certificates,
            self.revoked,
            self.last_certificate_number,
            self.attempts,
            if self.psk_set { "set, opens" } else { "not set" },
        );
        for root in &self.roots {
            let subject = one_line(&root.subject);
            text.push_str(&format!(
                "\nroot            {subject}, {} key opens and fits, valid until {}\n                {}",
                root.key, root.not_after, root.fingerprint
            ));
        }
        text
    }
}
