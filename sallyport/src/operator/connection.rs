//! The way to the controllers: gRPC over TLS, both sides proven by certificates of our authority.
//!
//! Whoever was a controller has such a certificate, too. So all controllers are asked which certificates were taken back, and what
//! they say is kept in the identity's folder (`revoked`): it is signed by the root, whoever tells it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use rustls::time_provider::DefaultTimeProvider;
use sallyport_proto::MAX_MESSAGE_BYTES;
use sallyport_proto::dial::{self, Anchors, Authorities, Channel, Judge, Material, Shown};
use sallyport_proto::failover::{Failover, REQUEST_ID};
use sallyport_proto::v1::operator_client::OperatorClient;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use super::renewal;
use super::revoked::Revoked;
use crate::cli::Global;
use crate::error::{Error, Exit, Result};

/// File beside the identity with the controller's address.
const ADDRESS_FILE: &str = "controller";
/// Patience with a controller that does not accept the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the others may take to say which certificates were taken back, once one has answered.
const OTHERS: Duration = Duration::from_millis(500);
/// Patience with one that does not answer; making an RSA key on a slow machine takes seconds.
const ANSWER: Duration = Duration::from_secs(60);

/// A connection to a controller.
pub(crate) struct Connection {
    /// The calls.
    pub(crate) client: OperatorClient<Named>,
    /// HOST:PORT of the controllers, separated by commas.
    pub(crate) address: String,
    /// The roots, and the certificates of controllers that were taken back.
    pub(crate) revoked: Revoked,
}

/// Calls to any of the controllers, each under a name: one that is repeated because a controller went away is made once.
pub(crate) type Named = InterceptedService<Failover<Channel>, Name>;

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
        Self::open_identity(&Self::folder(global), global.controller.as_deref()).await
    }

    /// The folder of the operator's identity that the global options say.
    pub(crate) fn folder(global: &Global) -> PathBuf {
        global.identity.clone().unwrap_or_else(|| global.state.join("operator"))
    }

    /// Connects with the identity in a folder, to the controllers that it names unless others are.
    pub(crate) async fn open_identity(dir: &Path, address: Option<&str>) -> Result<Self> {
        let text = match address {
            Some(address) => address.to_owned(),
            None => read_text(&dir.join(ADDRESS_FILE), dir)?,
        };
        let addresses: Vec<&str> = text.split([',', '\n']).map(str::trim).filter(|a| !a.is_empty()).collect();
        renewal::finish(dir);
        let certificate = read_text(&dir.join("cert.pem"), dir)?;
        let key = Zeroizing::new(read_text(&dir.join("key.pem"), dir)?);
        let ca = read_text(&dir.join("ca.pem"), dir)?;
        let material = Material { ca: ca.as_bytes(), chain: certificate.as_bytes(), key: key.as_bytes() };
        let revoked = Revoked::read(dir, &ca)?;
        Self::connect(&addresses, &material, revoked).await
    }

    /// Connects with what was read: one controller must answer, the others are asked when it goes away.
    async fn connect(addresses: &[&str], material: &Material<'_>, revoked: Revoked) -> Result<Self> {
        let cannot =
            |e: &dyn std::fmt::Display| Error::failed(format!("the operator's certificate cannot be used: {e}"));
        let judge = revoked.judge();
        let shown = Shown::new(material.chain, material.key).map_err(|e| cannot(&e))?;
        let by = |anchors: &Anchors| {
            let tls = dial::tls_showing(anchors, &shown, Arc::new(DefaultTimeProvider), judge.clone());
            channels(addresses, &tls.map_err(|e| cannot(&e))?, &judge)
        };
        let mut channels = by(revoked.anchors())?;
        // Commands spread over the controllers.
        let seed = u64::from_be_bytes(random()?);
        if !channels.is_empty() {
            let first = usize::try_from(seed % channels.len() as u64).unwrap_or(0);
            channels.rotate_left(first);
        }
        let (silent, said) = ask_all(&channels, &revoked).await;
        if let Some(left) = revoked.without_the_unsaid(&said, channels.len()) {
            // A root goes only if the others are enough to know most controllers by: who said so may not mean well.
            let anchors = revoked.anchors_of(&left).map_err(|e| cannot(&e))?;
            let known =
                join_all(by(&anchors)?.into_iter().map(|channel| async move { channel.connect().await.is_ok() }));
            if known.await.into_iter().filter(|known| *known).count() * 2 > channels.len() {
                revoked.put_in_force(left);
            }
        }
        let why_not = |channel: &Channel| channel.refusal().or_else(|| silent.get(channel.address())?.clone());
        // Those that do not answer may do so later.
        let (good, rest): (Vec<_>, Vec<_>) = channels.into_iter().partition(|channel| why_not(channel).is_none());
        if good.is_empty() {
            let why: Vec<String> = rest
                .iter()
                .map(|channel| format!("{}: {}", channel.address(), why_not(channel).unwrap_or_default()))
                .collect();
            return Err(Error::new(Exit::Unreachable, format!("no controller answers at {}", why.join("; ")))
                .remedy("start it (`sallyport standalone`), or name others with --controller HOST:PORT,..."));
        }
        let channels = good.into_iter().chain(rest).collect();
        let client = OperatorClient::with_interceptor(Failover::in_order(channels, seed), Name::new()?)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { client, address: addresses.join(","), revoked })
    }
}

/// A connection to each controller, made when it is used.
fn channels(addresses: &[&str], tls: &Arc<rustls::ClientConfig>, judge: &Judge) -> Result<Vec<Channel>> {
    let channel = |address: &&str| {
        let endpoint = dial::endpoint(address).ok_or_else(|| {
            Error::usage(format!("`{address}` is no address of a controller")).remedy("write HOST:PORT")
        })?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .http2_keep_alive_interval(CONNECT)
            .keep_alive_timeout(CONNECT);
        Ok(Channel::new(endpoint, address, tls.clone(), judge.clone()))
    };
    addresses.iter().map(channel).collect()
}

/// Connects to all controllers and asks them which roots there are and which certificates were taken back; gives those that did not answer
/// in time, and why, and what the others said.
async fn ask_all(channels: &[Channel], revoked: &Revoked) -> (BTreeMap<String, Option<String>>, Vec<Authorities>) {
    let mut silent: BTreeMap<String, Option<String>> =
        channels.iter().map(|c| (c.address().to_owned(), Some("no answer yet".to_owned()))).collect();
    let mut asked: FuturesUnordered<_> = channels
        .iter()
        .map(|channel| {
            async move {
                if let Err(error) = channel.connect().await {
                    // What authorities have signed is so whoever says it, and may be what keeps us from a controller.
                    let said = ask_anybody(channel.address()).await.ok_or_else(|| sources(&error))?;
                    revoked.learn(&said);
                    channel.connect().await.map_err(|e| sources(&e))?;
                }
                // One with older software has none; one that is starting says so when it is asked for more.
                Ok::<_, String>(channel.authorities(CONNECT).await.ok())
            }
            .map(move |said| (channel.address().to_owned(), said))
        })
        .collect();
    let (mut answered, mut all) = (false, Vec::new());
    loop {
        let next = match answered {
            false => asked.next().await,
            true => tokio::time::timeout(OTHERS, asked.next()).await.unwrap_or(None),
        };
        let Some((address, said)) = next else { return (silent, all) };
        match said {
            Ok(said) => {
                answered = true;
                silent.insert(address, None);
                if let Some(said) = said {
                    revoked.learn(&said);
                    all.push(said);
                }
            }
            Err(why) => drop(silent.insert(address, Some(why))),
        }
    }
}

async fn ask_anybody(address: &str) -> Option<Authorities> {
    let endpoint = dial::endpoint(address)?.connect_timeout(CONNECT);
    dial::to_anybody(endpoint, address).ok()?.authorities(CONNECT).await.ok()
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
        // Of a role that is missing the message says it all.
        Code::PermissionDenied if message.contains("does not have the role") => Error::new(Exit::Refused, message),
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
