//! Mutual TLS: our certificate, which can change while we run, and the demand for a client's.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sallyport_ca::pem;
use tokio_rustls::TlsAcceptor;

use crate::app::Core;
use crate::error::Error;
use crate::files;
use crate::own_key::OwnKey;

/// The TLS side of the gRPC address.
pub(crate) struct Tls {
    own: Arc<Own>,
    provider: Arc<CryptoProvider>,
    config: ArcSwap<ServerConfig>,
}

#[derive(Debug)]
struct Own(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Reads our certificate and the roots that we trust.
    pub(crate) fn new(core: &Core) -> Result<Self, Error> {
        // Named, not looked up: another provider in the process must not matter.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own = Arc::new(Own(ArcSwap::from_pointee(load(core, &provider)?)));
        let config = ArcSwap::from_pointee(config(core, &provider, &own)?);
        Ok(Self { own, provider, config })
    }

    /// Takes up a renewed certificate, and the roots of today, for connections to come.
    pub(crate) fn reload(&self, core: &Core) -> Result<(), Error> {
        self.own.0.store(Arc::new(load(core, &self.provider)?));
        self.config.store(Arc::new(config(core, &self.provider, &self.own)?));
        Ok(())
    }

    /// Accepts connections.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

fn config(core: &Core, provider: &Arc<CryptoProvider>, own: &Arc<Own>) -> Result<ServerConfig, Error> {
    let internal = |e: &dyn std::fmt::Display| Error::Internal(format!("TLS: {e}"));
    let mut roots = RootCertStore::empty();
    // From the file: a new member has no state yet.
    let path = core.paths.controller().join("ca.pem");
    let text = files::read_public(&path)?.unwrap_or_default();
    for root in pem::certificates(&text).map_err(|e| internal(&e))? {
        roots.add(CertificateDer::from(root)).map_err(|e| internal(&e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        // Who wants to join has no certificate; every other call asks for one.
        .allow_unauthenticated()
        .build()
        .map_err(|e| internal(&e))?;
    let mut config = ServerConfig::builder_with_details(provider.clone(), core.node.time().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| internal(&e))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: each connection shows its certificate.
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn load(core: &Core, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let dir = core.paths.controller();
    let cert = dir.join("cert.pem");
    let own = OwnKey::of(&core.paths, &core.sealer, &core.config.unseal);
    let key = own.path().clone();
    let broken = |path: &std::path::Path, cause: String| Error::File {
        path: path.into(),
        cause,
        remedy: "delete this folder; the next start makes it anew".into(),
    };
    let text = files::read_public(&cert)?.ok_or_else(|| broken(&cert, "missing".into()))?;
    let chain = pem::certificates(&text).map_err(|e| broken(&cert, e.to_string()))?;
    let text = own.read()?.ok_or_else(|| broken(&key, "missing".into()))?;
    let private = pem::private_key(&text).map_err(|e| broken(&key, e.to_string()))?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(private.to_vec()));
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    CertifiedKey::from_der(chain, private, provider).map_err(|e| broken(&key, e.to_string()))
}
