//! The first start of a cluster, and what each start makes sure of.

use std::sync::Arc;
use std::time::Duration;

use sallyport_ca::{Authority, KeyAlgorithm, Profile, RootConfig, UnixTime};
use sallyport_proto::{CONTROLLER_NAME, v1};

use crate::api::Tls;
use crate::app::Core;
use crate::auth::Authenticator;
use crate::auth::password::Workers;
use crate::authority::{self, IssueRequest};
use crate::error::Error;
use crate::state::{Action, Bootstrap, Outcome};
use crate::{files, identity};

/// How often the controller looks at the age of its own certificate.
const RENEWAL_CHECK: Duration = Duration::from_secs(3_600);

/// Makes the cluster where there is none, and opens what all parts need. Returns the TLS side of the gRPC address.
pub(crate) async fn run(core: &Arc<Core>, workers: Workers) -> Result<Tls, Error> {
    core.node.linearizable().await?;
    if !core.node.shared().read().is_bootstrapped() {
        make_cluster(core).await?;
    }
    let authority = authority::open(core)?;
    keep_root_files(core, &authority)?;
    let _ = core.authority.set(authority); // this function runs once
    let authenticator = Authenticator::new(workers, &core.sealer, &core.cluster_id()).await?;
    let _ = core.authenticator.set(authenticator);
    identity::operator(core, &core.paths.operator()).await?;
    own_certificate(core).await?;
    Tls::new(core)
}

/// A crash anywhere in here leaves nothing that the next start would not make again: nobody has seen it.
async fn make_cluster(core: &Arc<Core>) -> Result<(), Error> {
    let config = &core.config.authority;
    let root = RootConfig {
        organization: config.organization.clone(),
        common_name: config.common_name.clone(),
        key: config.key,
        validity: core.config.root_validity(),
    };
    let now = UnixTime(i64::try_from(core.clock.unix_ms() / 1_000).unwrap_or(i64::MAX));
    let worker = core.clone();
    let made = tokio::task::spawn_blocking(move || {
        let rng = worker.sealer.rng();
        let (authority, sealed) = Authority::create(&root, worker.sealer.key(), now, rng)?;
        // The root's own record is named like its subject.
        Ok::<_, sallyport_ca::Error>((authority.certificate().clone(), sealed, root))
    });
    let (certificate, sealed, root) = made
        .await
        .map_err(|_| Error::Internal("making the root panicked".into()))?
        .map_err(|e| Error::Authority(e.to_string()))?;
    let record =
        authority::record_of(&certificate, v1::CertificateProfile::Root, &root.common_name, Vec::new(), root.key);
    let cluster_id: [u8; 16] = core.sealer.random()?;
    let reply = core
        .propose(Action::Bootstrap(Bootstrap {
            cluster_id: cluster_id.to_vec(),
            root_certificate: certificate.der().to_vec(),
            sealed_root_key: sealed.into_bytes(),
            record: Some(record),
        }))
        .await?;
    match reply.outcome {
        Some(Outcome::Done(_)) => {
            tracing::info!(fingerprint = %certificate.fingerprint, "made a new cluster and its root certificate");
            Ok(())
        }
        other => Err(Error::Internal(format!("making the cluster: {other:?}"))),
    }
}

/// The root outside the store, so that the loss of the store is not the loss of the authority. The log has the last word.
fn keep_root_files(core: &Core, authority: &Authority) -> Result<(), Error> {
    let dir = core.paths.ca();
    files::private_dir(&dir)?;
    let sealed = {
        let state = core.node.shared().read();
        state.roots.iter().next_back().map(|(_, root)| root.sealed_key.clone()).unwrap_or_default()
    };
    let pem = authority.certificate().pem();
    for (name, contents) in [("root.pem", pem.as_bytes()), ("root.key.sealed", &sealed)] {
        let path = dir.join(name);
        if files::read_public(&path)?.as_deref() != Some(contents) {
            files::write_private(&path, contents)?;
        }
    }
    Ok(())
}

/// The controller's own certificate: its common name and first alternative name are the same for all controllers.
pub(crate) async fn own_certificate(core: &Arc<Core>) -> Result<(), Error> {
    let dir = core.paths.controller();
    files::private_dir(&dir)?;
    let request = IssueRequest {
        profile: Profile::Controller,
        name: CONTROLLER_NAME.into(),
        sans: core.config.names.clone(),
        key: KeyAlgorithm::EcdsaP256,
        days: 0,
    };
    identity::pair(core, request, &dir.join("cert.pem"), &dir.join("key.pem")).await
}

/// Renews the controller's certificate while it runs; connections that are open keep the old one.
pub(crate) async fn keep_certificate_fresh(core: Arc<Core>, tls: Arc<Tls>) {
    loop {
        tokio::time::sleep(RENEWAL_CHECK).await;
        let renewed = async {
            own_certificate(&core).await?;
            tls.reload(&core)
        };
        if let Err(e) = renewed.await {
            tracing::warn!(error = %e, "could not renew the controller's certificate; trying again in an hour");
        }
    }
}
