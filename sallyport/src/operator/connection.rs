//! The way to a controller: gRPC over TLS, both sides proven by certificates of our authority.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sallyport_proto::v1::operator_client::OperatorClient;
use sallyport_proto::{CONTROLLER_NAME, MAX_MESSAGE_BYTES};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
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
    pub(crate) client: OperatorClient<Channel>,
    /// HOST:PORT of the controller.
    pub(crate) address: String,
}

impl Connection {
    /// Connects with the identity and to the address that the global options say.
    pub(crate) async fn open(global: &Global) -> Result<Self> {
        let dir = global.identity.clone().unwrap_or_else(|| global.state.join("operator"));
        Self::open_identity(&dir, global.controller.as_deref()).await
    }

    /// Connects with the identity in a folder, to the controller that issued it unless another is named.
    pub(crate) async fn open_identity(dir: &Path, address: Option<&str>) -> Result<Self> {
        let address = match address {
            Some(address) => address.to_owned(),
            None => read_text(&dir.join(ADDRESS_FILE), dir)?.trim().to_owned(),
        };
        let certificate = read_text(&dir.join("cert.pem"), dir)?;
        let key = Zeroizing::new(read_text(&dir.join("key.pem"), dir)?);
        let ca = read_text(&dir.join("ca.pem"), dir)?;
        Self::connect(&address, &certificate, &key, &ca).await
    }

    /// Connects with what was read.
    async fn connect(address: &str, certificate: &str, key: &str, ca: &str) -> Result<Self> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(certificate, key))
            .domain_name(CONTROLLER_NAME);
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .map_err(|_| Error::usage(format!("`{address}` is no address of a controller")).remedy("write HOST:PORT"))?
            .tls_config(tls)
            .map_err(|e| Error::failed(format!("the operator's certificate cannot be used: {}", sources(&e))))?
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|e| {
            Error::new(Exit::Unreachable, format!("no controller answers at {address}: {}", sources(&e)))
                .remedy("start it (`sallyport standalone`), or name another with --controller HOST:PORT")
        })?;
        let client = OperatorClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { client, address: address.to_owned() })
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
