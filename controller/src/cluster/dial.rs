//! Connections to other members: mutual TLS whose sense of time is the log's.
//!
//! tonic's own TLS judges certificates by the machine's wall clock: a leader whose clock is set back an hour would no longer
//! reach a member that has a certificate of today.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use sallyport_ca::pem;
use sallyport_proto::CONTROLLER_NAME;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::error::Error;
use crate::raft::LogTime;

/// What TLS towards members needs, from PEM: the root, our chain and our key.
pub(super) fn tls(ca: &[u8], chain: &[u8], key: &[u8], time: Arc<LogTime>) -> Result<ClientConfig, Error> {
    let broken = |e: &dyn std::fmt::Display| Error::Internal(format!("TLS to other controllers: {e}"));
    let mut roots = RootCertStore::empty();
    for root in pem::certificates(ca).map_err(|e| broken(&e))? {
        roots.add(CertificateDer::from(root)).map_err(|e| broken(&e))?;
    }
    let chain = pem::certificates(chain).map_err(|e| broken(&e))?.into_iter().map(CertificateDer::from).collect();
    let key = pem::private_key(key).map_err(|e| broken(&e))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| broken(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| broken(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// A channel to HOST:PORT that connects when it is used.
pub(super) fn channel(endpoint: &Endpoint, address: &str, tls: ClientConfig) -> Channel {
    let (connector, target) = (TlsConnector::from(Arc::new(tls)), address.to_owned());
    let connect = tower::service_fn(move |_| {
        let (connector, target) = (connector.clone(), target.clone());
        async move {
            let stream = TcpStream::connect(&target).await?;
            let _ = stream.set_nodelay(true); // slower at worst
            let name = ServerName::try_from(CONTROLLER_NAME).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    endpoint.connect_with_connector_lazy(connect)
}
