//! Making issuing authorities below the root.

use std::sync::Arc;

use sallyport_ca::{Authority, IssuingConfig, KeyAlgorithm, NameConstraints, UnixTime};
use sallyport_proto::v1;

use super::{Issuing, record_of};
use crate::app::Core;
use crate::error::Error;
use crate::state::{Action, AddIssuers, ConstraintsRow, ISSUERS_LEVEL, NewIssuer, Outcome};

/// Longest common name (RFC 5280, ub-common-name), characters.
const LONGEST_NAME: usize = 64;

/// The common name of an issuing authority: after the root's, with its number, so that no two have the same name.
fn name_below(root: &str, number: u64) -> String {
    named(root, &format!(" Issuing {number}"))
}

/// The common name of the root that follows one.
pub(super) fn next_root_name(root: &str, number: u64) -> String {
    named(root, &format!(" Root {number}"))
}

/// What a root is called without "Root" and a number, and an end of another.
fn named(root: &str, end: &str) -> String {
    let stem = root.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end();
    let stem = stem.strip_suffix(" Root").or_else(|| root.strip_suffix(" Root CA")).unwrap_or(root);
    let room = LONGEST_NAME.saturating_sub(end.len());
    let stem: String = stem.chars().take(room).collect();
    format!("{}{end}", stem.trim_end())
}

/// The common name in a subject as text.
pub(super) fn common_name(root: &sallyport_ca::Certificate) -> String {
    root.subject.rsplit_once("CN=").map_or_else(|| "Sallyport".to_owned(), |(_, name)| name.to_owned())
}

/// An issuing authority that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Kind of its key.
    pub(crate) key: KeyAlgorithm,
    /// Which names it may certify; empty for all.
    pub(crate) constraints: NameConstraints,
}

impl From<KeyAlgorithm> for Wanted {
    fn from(key: KeyAlgorithm) -> Self {
        Self { key, constraints: NameConstraints::default() }
    }
}

/// Makes these issuing authorities and puts all of them into the log. With `replace`, those of the same kinds that are in force are
/// retired by the same entry. Gives their numbers.
pub(crate) async fn add(core: &Arc<Core>, wanted: Vec<Wanted>, replace: bool) -> Result<Vec<u64>, Error> {
    // Before anything is made: below that level nobody may.
    if wanted.iter().any(|w| !w.constraints.is_empty()) {
        let probe = NewIssuer { constraints: Some(ConstraintsRow::default()), ..NewIssuer::default() };
        let action = Action::AddIssuers(AddIssuers { issuers: vec![probe], replace });
        core.node.shared().read().permits(&action).map_err(Error::Refused)?;
    }
    let issuers = make(core, core.root_authority()?, wanted).await?;
    let numbers: Vec<u64> = issuers.iter().map(|new| new.number).collect();
    let reply = core.propose(Action::AddIssuers(AddIssuers { issuers, replace })).await?;
    match reply.outcome {
        Some(Outcome::Done(_)) => {
            core.catch_up().await;
            tracing::info!(?numbers, "made issuing authorities");
            Ok(numbers)
        }
        Some(Outcome::Conflict(conflict)) => Err(Error::Refused(conflict.message)),
        other => Err(Error::Internal(format!("making issuing authorities: {other:?}"))),
    }
}

/// These issuing authorities below a root. They issue once they are in the log.
pub(super) async fn make(core: &Arc<Core>, root: Issuing, wanted: Vec<Wanted>) -> Result<Vec<NewIssuer>, Error> {
    let root = core.publishing_root(root)?;
    let first = core.node.shared().read().next_issuer();
    let now = UnixTime(i64::try_from(core.now_ms() / 1_000).unwrap_or(i64::MAX));
    let worker = core.clone();
    // An RSA key takes a tenth of a second and more.
    let made = tokio::task::spawn_blocking(move || -> Result<Vec<NewIssuer>, sallyport_ca::Error> {
        let rng = worker.sealer.rng();
        let above = common_name(root.authority.certificate());
        let each = wanted.into_iter().zip(first..).map(|(Wanted { key, constraints }, number)| {
            let config = IssuingConfig {
                common_name: name_below(&above, number),
                key,
                validity: worker.config.issuing_validity(),
                constraints,
            };
            let (made, sealed) = Authority::create_issuing(&root.authority, &config, worker.sealer.key(), now, rng)?;
            let profile = v1::CertificateProfile::Issuing;
            let record = record_of(made.certificate(), profile, &config.common_name, Vec::new(), key);
            Ok(NewIssuer {
                number,
                certificate: made.certificate().der().to_vec(),
                sealed_key: sealed.into_bytes(),
                root: root.number,
                record: Some(record),
                constraints: ConstraintsRow::of(&config.constraints),
            })
        });
        each.collect()
    });
    made.await
        .map_err(|_| Error::Internal("making an issuing authority panicked".into()))?
        .map_err(|e| Error::Authority(e.to_string()))
}

/// The first issuing authorities of a cluster, as configured, once all members know of such; nothing if there are some. Only who
/// leads, or is alone, calls this.
pub(crate) async fn first(core: &Arc<Core>) -> Result<(), Error> {
    {
        let state = core.node.shared().read();
        if state.level() < ISSUERS_LEVEL || !state.issuers.is_empty() {
            return Ok(());
        }
    }
    let mut kinds = core.config.authority.issuing.clone();
    if kinds.is_empty() {
        kinds.push(core.root_authority()?.authority.key_algorithm());
    }
    add(core, kinds.into_iter().map(Wanted::from).collect(), false).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuing_authority_is_named_after_its_root_in_at_most_64_characters() {
        assert_eq!(name_below("Sallyport Root", 1), "Sallyport Issuing 1");
        assert_eq!(name_below("Example", 12), "Example Issuing 12");
        assert_eq!(name_below("Example Root CA", 1), "Example Issuing 1");
        assert_eq!(name_below("Sallyport Root 2", 3), "Sallyport Issuing 3");
        assert_eq!(next_root_name("Sallyport Root", 2), "Sallyport Root 2");
        assert_eq!(next_root_name("Sallyport Root 2", 3), "Sallyport Root 3");
        assert_eq!(next_root_name("Plant 7", 2), "Plant 7 Root 2");
        let long = name_below(&"ü".repeat(64), u64::MAX);
        assert!(long.chars().count() <= LONGEST_NAME && long.ends_with(&u64::MAX.to_string()), "{long}");
    }
}
