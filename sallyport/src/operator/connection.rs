//! The way to the controllers: gRPC over TLS, both sides proven by certificates of our authority.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sallyport_proto::failover::{Failover, REQUEST_ID};
use sallyport_proto::v1::operator_client::OperatorClient;
use sallyport_proto::{CONTROLLER_NAME, MAX_MESSAGE_BYTES};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use crate::cli::Global;
use crate::error::{Error, Exit, Result};

/// File beside the identity with the controller's address.
const ADDRESS_FILE: &str = "controller";
/// Patience with a controller that does not accept the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Patience with one that does not answer; making an RSA key on a slow machine takes seconds.
const ANSWER: Duration = Duration::from_secs(60);

/// A connection to a controller.
pub(crate) struct Connection {
    /// The calls.
    pub(crate) client: OperatorClient<Named>,
    /// HOST:PORT of the controllers, separated by commas.
    pub(crate) address: String,
}

/// Calls to any of the controllers, each under a name: one that is repeated because a controller went away is made once.
pub(crate) type Named = InterceptedService<Failover, Name>;

/// Gives each call of a command its name.
#[derive(Clone)]
pub(crate) struct Name {
    command: [u8; 12],
    next: Arc<AtomicU32>,
}

impl Name {
    fn new() -> Result<Self> {
        Ok(Self { command: random()?, next: Arc::default() })
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes)
        .map_err(|_| Error::failed("the system gives no random bytes"))?;
    Ok(bytes)
}

impl Interceptor for Name {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = crate::hex::lower(&[self.command.as_slice(), &number.to_be_bytes()].concat());
        let id = id.parse().map_err(|_| Status::internal("a name that is no text"))?;
        request.metadata_mut().insert(REQUEST_ID, id);
        Ok(request)
    }
}

impl Connection {
    /// Connects with the identity and to the address that the global options say.
    pub(crate) async fn open(global: &Global) -> Result<Self> {
        let dir = global.identity.clone().unwrap_or_else(|| global.state.join("operator"));
        Self::open_identity(&dir, global.controller.as_deref()).await
    }

    /// Connects with the identity in a folder, to the controllers that it names unless others are.
    pub(crate) async fn open_identity(dir: &Path, address: Option<&str>) -> Result<Self> {
        let text = match address {
            Some(address) => address.to_owned(),
            None => read_text(&dir.join(ADDRESS_FILE), dir)?,
        };
        let addresses: Vec<&str> = text.split([',', '\n']).map(str::trim).filter(|a| !a.is_empty()).collect();
        let certificate = read_text(&dir.join("cert.pem"), dir)?;
        let key = Zeroizing::new(read_text(&dir.join("key.pem"), dir)?);
        let ca = read_text(&dir.join("ca.pem"), dir)?;
        Self::connect(&addresses, &certificate, &key, &ca).await
    }

    /// Connects with what was read: one controller must answer, the others are asked when it goes away.
    async fn connect(addresses: &[&str], certificate: &str, key: &str, ca: &str) -> Result<Self> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(certificate, key))
            .domain_name(CONTROLLER_NAME);
        let mut endpoints = Vec::with_capacity(addresses.len());
        for address in addresses {
            let wrong =
                |_| Error::usage(format!("`{address}` is no address of a controller")).remedy("write HOST:PORT");
            let endpoint = Endpoint::from_shared(format!("https://{address}"))
                .map_err(wrong)?
                .tls_config(tls.clone())
                .map_err(|e| Error::failed(format!("the operator's certificate cannot be used: {}", sources(&e))))?
                .connect_timeout(CONNECT)
                .timeout(ANSWER)
                .http2_keep_alive_interval(CONNECT)
                .keep_alive_timeout(CONNECT)
                .tcp_nodelay(true);
            endpoints.push((*address, endpoint));
        }
        // Commands spread over the controllers.
        let seed = u64::from_be_bytes(random()?);
        if !endpoints.is_empty() {
            let first = usize::try_from(seed % endpoints.len() as u64).unwrap_or(0);
            endpoints.rotate_left(first);
        }
        let (mut channels, mut silent) = (Vec::new(), Vec::new());
        let mut answered = false;
        for (address, endpoint) in endpoints {
            if answered {
                channels.push(endpoint.connect_lazy());
                continue;
            }
            match endpoint.connect().await {
                Ok(channel) => {
                    answered = true;
                    channels.push(channel);
                }
                Err(e) => silent.push(format!("{address}: {}", sources(&e))),
            }
        }
        if !answered {
            return Err(Error::new(Exit::Unreachable, format!("no controller answers at {}", silent.join("; ")))
                .remedy("start it (`sallyport standalone`), or name others with --controller HOST:PORT,..."));
        }
        let client = OperatorClient::with_interceptor(Failover::in_order(channels, seed), Name::new()?)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { client, address: addresses.join(",") })
    }
}

fn read_text(path: &Path, dir: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(Exit::Unreachable, format!("no operator's identity: {} is missing", path.display())).remedy(
                format!(
                    "start the controller once, which writes {}, or point --state or --identity to the folder",
                    dir.display()
                ),
            )
        }
        _ => Error::file("read", path, &e),
    })
}

/// The cause behind a transport error: the outermost one says only "transport error".
fn sources(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    if texts.len() > 1 {
        texts.remove(0);
    }
    texts.join(": ")
}

/// What a controller's refusal means for the command. Its message is a sentence already: cause, then remedy.
pub(crate) fn refused(status: Status) -> Error {
    let message =
        if status.message().is_empty() { format!("{:?}", status.code()) } else { status.message().to_owned() };
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            Error::new(Exit::Unreachable, message).remedy("is the controller running? try again")
        }
        Code::Unauthenticated | Code::PermissionDenied => Error::new(Exit::Refused, message)
            .remedy("use an operator's certificate: `sallyport cert issue --operator NAME` makes one"),
        Code::Internal | Code::Unknown | Code::DataLoss => {
            Error::failed(message).remedy("the controller's log says more")
        }
        _ => Error::new(Exit::Refused, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_controller_that_is_away() {
        assert_eq!(refused(Status::not_found("no user ada")).exit(), Exit::Refused);
        assert_eq!(refused(Status::unavailable("no leader")).exit(), Exit::Unreachable);
        assert_eq!(refused(Status::internal("disk")).exit(), Exit::Failed);
        assert_eq!(refused(Status::new(Code::NotFound, "")).cause(), "NotFound");
    }

    #[test]
    fn the_innermost_cause_is_told_once() {
        let io = std::io::Error::other(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(sources(&io), "connection refused");
    }
}
