//! Connections to one controller: mutual TLS, and a say in whether the one that answers is a controller still.
//!
//! A certificate that chains to the root says that its owner *was* a controller. Who was removed, or has stolen a folder, has
//! such a certificate, too; so whoever connects hands in a [`Judge`], which is asked about the server's certificate in each
//! handshake, and again before each call: a connection to a server that lost its standing meanwhile is given up.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::Endpoint;

use crate::CONTROLLER_NAME;
use crate::v1;
use crate::v1::revocation_client::RevocationClient;

/// File in the folder of a gateway's or operator's identity: lists of controllers' certificates that were taken back, in DER, one
/// behind the other.
pub const REVOKED: &str = "controllers.crl";

/// Says of a controller's certificate (DER), whose chain is good, whether its owner is to be talked to; if not, why.
pub type Judge = Arc<dyn Fn(&[u8]) -> Result<(), String> + Send + Sync>;

/// What TLS needs, PEM.
pub struct Material<'a> {
    /// The roots.
    pub ca: &'a [u8],
    /// Our certificate and what is between it and the root.
    pub chain: &'a [u8],
    /// Our key.
    pub key: &'a [u8],
}

/// What a controller says of authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities {
    /// Lists of controllers that are none any more, and certificates of those below a root that have signed some, in DER, one behind
    /// the other.
    pub lists: Vec<u8>,
    /// The roots that it trusts, DER; none from older software.
    pub roots: Vec<Vec<u8>>,
    /// Certificates of one root by another, DER.
    pub crossing: Vec<Vec<u8>>,
}

/// Our certificate, our key or the roots are not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// TLS towards controllers. Certificates are judged by `time`, then by `judge`.
pub fn tls(material: &Material<'_>, time: Arc<dyn TimeProvider>, judge: Judge) -> Result<Arc<ClientConfig>, Unusable> {
    tls_showing(&Anchors::new(material.ca)?, &Shown::new(material.chain, material.key)?, time, judge)
}

/// The roots that controllers' certificates must lead to. They can change: connections to come go by the new ones.
#[derive(Clone)]
pub struct Anchors {
    verifier: Arc<RwLock<Arc<WebPkiServerVerifier>>>,
    authorities: Judge,
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anchors").finish_non_exhaustive()
    }
}

fn verifier(ca: &[u8]) -> Result<Arc<WebPkiServerVerifier>, Unusable> {
    let unusable = |e: &dyn fmt::Display| Unusable(e.to_string());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca).collect::<Result<Vec<_>, _>>().map_err(|e| unusable(&e))? {
        roots.add(root).map_err(|e| unusable(&e))?;
    }
    // Named, not looked up: another provider in the process must not matter.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|e| unusable(&e))
}

impl Anchors {
    /// These, PEM.
    pub fn new(ca: &[u8]) -> Result<Self, Unusable> {
        Ok(Self { verifier: Arc::new(RwLock::new(verifier(ca)?)), authorities: Arc::new(|_| Ok(())) })
    }

    /// The same, where the way to them leads through no authority that this judge refuses.
    pub fn judging(ca: &[u8], authorities: Judge) -> Result<Self, Unusable> {
        Ok(Self { authorities, ..Self::new(ca)? })
    }

    /// Others from now on, PEM. Connections that are open stay: see [`Channel::reconnect`].
    pub fn change(&self, ca: &[u8]) -> Result<(), Unusable> {
        let verifier = verifier(ca)?;
        *self.verifier.write().unwrap_or_else(PoisonError::into_inner) = verifier;
        Ok(())
    }

    fn now(&self) -> Arc<WebPkiServerVerifier> {
        self.verifier.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The certificate that is shown to controllers. It can change: connections to come show the new one.
#[derive(Clone)]
pub struct Shown(Arc<RwLock<Arc<CertifiedKey>>>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

fn certified(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, Unusable> {
    let unusable = |e: &dyn fmt::Display| Unusable(e.to_string());
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().map_err(|e| unusable(&e))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| unusable(&e))?;
    let provider = rustls::crypto::ring::default_provider();
    // Also looks whether the key is that of the certificate.
    CertifiedKey::from_der(chain, key, &provider).map(Arc::new).map_err(|e| unusable(&e))
}

impl Shown {
    /// A certificate with what is between it and the root, and its key, PEM.
    pub fn new(chain: &[u8], key: &[u8]) -> Result<Self, Unusable> {
        Ok(Self(Arc::new(RwLock::new(certified(chain, key)?))))
    }

    /// Another one from now on. Connections that are open stay with theirs: see [`Channel::reconnect`].
    pub fn change(&self, chain: &[u8], key: &[u8]) -> Result<(), Unusable> {
        let certified = certified(chain, key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        shown.key.choose_scheme(schemes).is_some().then_some(shown)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// TLS for one who has no certificate yet, or none that is good: controllers let him join, and nothing else.
pub fn tls_of_stranger(
    anchors: &Anchors,
    time: Arc<dyn TimeProvider>,
    judge: Judge,
) -> Result<Arc<ClientConfig>, Unusable> {
    let mut config = judged(anchors, time, judge)?.with_no_client_auth();
    finish(&mut config);
    Ok(Arc::new(config))
}

/// As [`tls`], with roots and a certificate that can change.
pub fn tls_showing(
    anchors: &Anchors,
    shown: &Shown,
    time: Arc<dyn TimeProvider>,
    judge: Judge,
) -> Result<Arc<ClientConfig>, Unusable> {
    let mut config = judged(anchors, time, judge)?.with_client_cert_resolver(Arc::new(shown.clone()));
    finish(&mut config);
    Ok(Arc::new(config))
}

fn finish(config: &mut ClientConfig) {
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A connection that is resumed shows no certificate.
    config.resumption = rustls::client::Resumption::disabled();
}

fn judged(
    anchors: &Anchors,
    time: Arc<dyn TimeProvider>,
    judge: Judge,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Unusable> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Unusable(e.to_string()))?;
    let judged = Judged { anchors: anchors.clone(), judge };
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(judged)))
}

/// The usual verification, then the judge.
struct Judged {
    anchors: Anchors,
    judge: Judge,
}

impl fmt::Debug for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judged").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Judged {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = |judge: &Judge, shown: &CertificateDer<'_>| {
            judge(shown).map_err(|why| CertificateError::Other(OtherError(Arc::new(Unusable(why)))))
        };
        // A path leads through none of those that are refused; one that is shown beside a good path does no harm.
        let authority = |shown: &CertificateDer<'_>| judged(&self.anchors.authorities, shown);
        let open: Vec<_> = intermediates.iter().filter(|shown| authority(shown).is_ok()).cloned().collect();
        let chains = self.anchors.now();
        let good = match chains.verify_server_cert(end_entity, &open, server_name, ocsp_response, now) {
            Err(error) => match intermediates.iter().try_for_each(authority) {
                Err(why) => return Err(why.into()),
                Ok(()) => return Err(error),
            },
            Ok(good) => good,
        };
        judged(&self.judge, end_entity)?;
        Ok(good)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.anchors.now().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.anchors.now().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.anchors.now().supported_verify_schemes()
    }
}

/// A connection to whoever answers at HOST:PORT: nothing secret goes over it, and what comes over it is compared with what is known
/// otherwise, such as the fingerprint of a root in a token.
pub fn to_anybody(endpoint: Endpoint, address: &str) -> Result<Channel, Unusable> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Unusable(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    finish(&mut config);
    Ok(Channel::new(endpoint, address, Arc::new(config), Arc::new(|_| Ok(()))))
}

/// Accepts every certificate whose key signs the handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// How a controller is reached.
struct Way {
    endpoint: Endpoint,
    address: String,
    tls: Arc<ClientConfig>,
    judge: Judge,
    /// The certificate that was shown last.
    server: Arc<Mutex<Option<CertificateDer<'static>>>>,
    open: Mutex<tonic::transport::Channel>,
}

/// Calls to one controller, over a connection that is made when it is used. Clones share it.
#[derive(Clone)]
pub struct Channel(Arc<Way>);

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.0.address).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    /// To HOST:PORT, with the habits of `endpoint`, which must not speak TLS by itself (see [`endpoint`]).
    pub fn new(endpoint: Endpoint, address: &str, tls: Arc<ClientConfig>, judge: Judge) -> Self {
        let (server, address) = (Arc::default(), address.to_owned());
        let open = Mutex::new(endpoint.connect_with_connector_lazy(connector(&address, &tls, &server)));
        Self(Arc::new(Way { endpoint, address, tls, judge, server, open }))
    }

    /// HOST:PORT.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Connects now.
    pub async fn connect(&self) -> Result<(), tonic::transport::Error> {
        let connector = connector(&self.0.address, &self.0.tls, &self.0.server);
        let open = self.0.endpoint.connect_with_connector(connector).await?;
        *lock(&self.0.open) = open;
        Ok(())
    }

    /// Calls to come go over a connection that is made anew, with the certificate that is shown now. Calls that are under way end
    /// where they began.
    pub fn reconnect(&self) {
        let way = &*self.0;
        *lock(&way.open) = way.endpoint.connect_with_connector_lazy(connector(&way.address, &way.tls, &way.server));
    }

    /// Asks which controllers' certificates were taken back, and which roots there are; the caller looks at the signatures. Whoever is
    /// asked may keep it back or give an old one, so all are asked, and what they say adds up (`sallyport_ca::crl::Revocations`,
    /// `sallyport_ca::roots::Roots`).
    pub async fn authorities(&self, patience: Duration) -> Result<Authorities, Status> {
        let mut client = RevocationClient::new(self.clone()).max_decoding_message_size(crate::MAX_MESSAGE_BYTES);
        match tokio::time::timeout(patience, client.list_controllers(v1::ListControllersRequest {})).await {
            Ok(answer) => {
                let v1::ListControllersResponse { crl, below, roots, crossing } = answer?.into_inner();
                Ok(Authorities { lists: [crl, below].concat(), roots, crossing })
            }
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    /// Why whoever showed a certificate last is not to be talked to; `None` if there is nothing against it.
    pub fn refusal(&self) -> Option<String> {
        let server = lock(&self.0.server);
        server.as_ref().and_then(|shown| (self.0.judge)(shown).err())
    }

    /// The connection, unless its server may not be talked to any more: then one that is made anew.
    fn current(&self) -> tonic::transport::Channel {
        let way = &*self.0;
        let mut open = lock(&way.open);
        let mut server = lock(&way.server);
        if server.as_ref().is_some_and(|shown| (way.judge)(shown).is_err()) {
            *server = None;
            *open = way.endpoint.connect_with_connector_lazy(connector(&way.address, &way.tls, &way.server));
        }
        open.clone()
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut open = self.current();
        Box::pin(async move {
            std::future::poll_fn(|cx| open.poll_ready(cx)).await?;
            open.call(request).await
        })
    }
}

/// An endpoint for HOST:PORT; `None` if that is none.
pub fn endpoint(address: &str) -> Option<Endpoint> {
    // To tonic this looks like plain HTTP: the connector speaks TLS by itself.
    Endpoint::from_shared(format!("http://{address}")).ok()
}

type Connecting = Pin<Box<dyn Future<Output = std::io::Result<Stream>> + Send>>;
type Stream = hyper_util::rt::TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

fn connector(
    address: &str,
    tls: &Arc<ClientConfig>,
    server: &Arc<Mutex<Option<CertificateDer<'static>>>>,
) -> impl Service<http::Uri, Response = Stream, Error = std::io::Error, Future = Connecting> + Send + Clone + 'static {
    let (connector, target, server) = (TlsConnector::from(tls.clone()), address.to_owned(), server.clone());
    tower::service_fn(move |_: http::Uri| -> Connecting {
        let (connector, target, server) = (connector.clone(), target.clone(), server.clone());
        Box::pin(async move {
            let stream = TcpStream::connect(&target).await?;
            let _ = stream.set_nodelay(true); // slower at worst
            let name = ServerName::try_from(CONTROLLER_NAME).map_err(std::io::Error::other)?;
            let stream = connector.connect(name, stream).await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            *lock(&server) = shown.map(|certificate| certificate.clone().into_owned());
            Ok(hyper_util::rt::TokioIo::new(stream))
        })
    })
}
