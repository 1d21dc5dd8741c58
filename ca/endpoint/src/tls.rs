//! TLS of the endpoint: a certificate that can be swapped, and clients that may show one.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};

use crate::{Clock, Error};

/// The configuration, and what swaps its certificate.
pub(crate) fn config(clock: Arc<dyn Clock>) -> Result<(Arc<ServerConfig>, Arc<Shown>), Error> {
    // Named, not looked up: another provider in the process must not matter.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let shown = Arc::new(Shown { provider: provider.clone(), key: ArcSwapOption::empty() });
    let mut config = ServerConfig::builder_with_details(provider.clone(), Arc::new(Time(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| Error::Certificate(e.to_string()))?
        .with_client_cert_verifier(Arc::new(Holder(provider)))
        .with_cert_resolver(shown.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Nobody comes often enough for resumption to be worth its memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((Arc::new(config), shown))
}

/// The certificate that is shown.
#[derive(Debug)]
pub(crate) struct Shown {
    provider: Arc<CryptoProvider>,
    key: ArcSwapOption<CertifiedKey>,
}

impl Shown {
    /// Shows this one from the next handshake on.
    pub(crate) fn set(&self, chain: &[Vec<u8>], pkcs8: &[u8]) -> Result<(), Error> {
        let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
        let certified =
            CertifiedKey::from_der(chain, key, &self.provider).map_err(|e| Error::Certificate(e.to_string()))?;
        self.key.store(Some(Arc::new(certified)));
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }
}

/// Takes any client certificate whose key signs the handshake. Whether it is worth anything is the office's question: it
/// knows each certificate that was issued, and late renewals show one that has expired.
#[derive(Debug)]
struct Holder(Arc<CryptoProvider>);

impl ClientCertVerifier for Holder {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hint: a client may hold a certificate of a CA that is not in force any more.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Our clock as rustls takes it.
#[derive(Debug)]
struct Time(Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.unix().0).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(core::time::Duration::from_secs(seconds)))
    }
}
