//! TLS towards the endpoint: once without knowing it, to fetch what the token's fingerprint then picks from; otherwise verified
//! against exactly the roots that this machine trusts.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName};
use sallyport_ca::{Certificate, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::{Error, KeyStore, Kind, Result, Server};

/// A time that was handed in.
#[derive(Debug)]
struct Given(UnixTime);

impl TimeProvider for Given {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        let seconds = u64::try_from(self.0.0).ok()?;
        Some(rustls_pki_types::UnixTime::since_unix_epoch(core::time::Duration::from_secs(seconds)))
    }
}

/// How the machine proves who it is.
pub(crate) struct Own<'a> {
    /// Its key.
    pub(crate) key: &'a dyn KeyStore,
    /// Its certificate and those up to the root, DER.
    pub(crate) chain: Vec<&'a [u8]>,
}

/// For a connection over which no secret is said.
pub(crate) fn unverified(now: UnixTime) -> Result<ClientConfig> {
    let provider = Arc::new(default_provider());
    let builder =
        ClientConfig::builder_with_details(provider, Arc::new(Given(now))).with_safe_default_protocol_versions();
    let mut config =
        builder.map_err(unusable)?.dangerous().with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// For a connection to the enrollment endpoint: a server whose chain ends at one of these roots (DER), with the usage that the
/// authority gives to nobody else.
pub(crate) fn verified(roots: &[Vec<u8>], own: Option<&Own<'_>>, now: UnixTime) -> Result<ClientConfig> {
    let provider = Arc::new(default_provider());
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root.clone())).map_err(unusable)?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|e| Error::machine(format!("the roots cannot be used: {e}"), ""))?;
    let builder =
        ClientConfig::builder_with_details(provider, Arc::new(Given(now))).with_safe_default_protocol_versions();
    let endpoint = Arc::new(TheEndpoint(verifier));
    let builder = builder.map_err(unusable)?.dangerous().with_custom_certificate_verifier(endpoint);
    let mut config = match own {
        Some(own) => {
            let chain = own.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
            let key = CertifiedKey::new(chain, own.key.tls()?);
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn unusable(error: rustls::Error) -> Error {
    Error::machine(format!("TLS cannot be used: {error}"), "")
}

/// Why no connection came about, for a person.
pub(crate) fn refused(error: &rustls::Error, server: &Server, now: UnixTime) -> Error {
    let clock = || {
        let shown = now.0;
        (
            format!("this machine's clock ({}) is not within the life of the server's certificate", date(shown)),
            "set the clock (timedatectl set-ntp true), then run the command again",
        )
    };
    let (cause, remedy) = match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => clock(),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                format!("the server's certificate is not for {}", server.host),
                "pass one of the service's public names with --server",
            ),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                format!("{server} is not of the authority that this machine trusts"),
                "check --server and where its name leads; something may stand in between and read along",
            ),
            CertificateError::Other(reason) if reason.0.is::<NotTheEndpoint>() => (
                format!(
                    "{server} answers with a certificate of the right authority that is not the enrollment endpoint's"
                ),
                "nothing secret was sent. Something in between ends TLS: a proxy, a load balancer, or a gateway that was taken \
                 over. It must pass the connection on unopened; if nothing is, tell the operator of the VPN",
            ),
            other => {
                (format!("the certificate of {server} is not acceptable: {other:?}"), "ask the operator of the VPN")
            }
        },
        rustls::Error::AlertReceived(alert) => (
            format!("{server} breaks the connection off ({alert:?})"),
            "if this machine's certificate has lapsed or was revoked, get a token and enroll again",
        ),
        other => (format!("{server} does not speak TLS as it should: {other}"), "check --server, host and port"),
    };
    Error::new(Kind::Untrusted, cause, remedy)
}

/// A day and a time in UTC; the number where it is none.
fn date(seconds: i64) -> String {
    x509_parser::time::ASN1Time::from_timestamp(seconds).map_or_else(|_| seconds.to_string(), |t| t.to_string())
}

/// id-kp-cmcRA, 1.3.6.1.5.5.7.3.28 (RFC 6402 §2.10), DER contents.
const CMC_RA: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 28];

/// The certificate has not the usage of the enrollment endpoint.
#[derive(Debug)]
struct NotTheEndpoint;

impl std::fmt::Display for NotTheEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("its extended key usages lack cmcRA")
    }
}

impl std::error::Error for NotTheEndpoint {}

/// Takes a server of the roots and the name only if it is the endpoint: gateways have the same names, serverAuth, and a key each.
#[derive(Debug)]
struct TheEndpoint(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for TheEndpoint {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: rustls_pki_types::UnixTime,
    ) -> core::result::Result<ServerCertVerified, rustls::Error> {
        let verified = self.0.verify_server_cert(certificate, intermediates, name, ocsp, now)?;
        let parsed = X509Certificate::from_der(certificate);
        let usages = parsed.as_ref().ok().and_then(|(_, parsed)| parsed.extended_key_usage().ok().flatten());
        if usages.is_some_and(|usages| usages.value.other.iter().any(|oid| oid.as_bytes() == CMC_RA)) {
            return Ok(verified);
        }
        let reason = CertificateError::Other(OtherError(Arc::new(NotTheEndpoint)));
        Err(rustls::Error::InvalidCertificate(reason))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> core::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> core::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Takes any certificate: what comes over such a connection is believed only by its fingerprint.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> core::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> core::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> core::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate is in force.
pub(crate) fn in_force(certificate: &Certificate, now: UnixTime) -> bool {
    certificate.not_before <= now && now <= certificate.not_after
}
