//! The gRPC address: accepting, handshakes, bounds, orderly end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sallyport_ca::Certificate;
use sallyport_proto::v1::gateway_server::GatewayServer;
use sallyport_proto::v1::joining_server::JoiningServer;
use sallyport_proto::v1::operator_server::OperatorServer;
use sallyport_proto::v1::peer_server::PeerServer;
use sallyport_proto::v1::revocation_server::RevocationServer;
use sallyport_proto::{CONTROLLER_NAME, MAX_MESSAGE_BYTES};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::gate::GateLayer;
use super::gateway::GatewayService;
use super::joining::JoiningService;
use super::operator::OperatorService;
use super::peer::PeerService;
use super::places::{Evicted, Place, Places, Settled};
use super::revocation::RevocationService;
use super::{Tls, caller};
use crate::app::Core;
use crate::cluster::links::MAX_PEER_MESSAGE;
use crate::metrics::Connection;

/// Connections whose handshake is done and that wait to be served.
const BACKLOG: usize = 64;
/// Silence after which a connection is asked for a life sign, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// How long somebody without a certificate that opens a service may stay: long enough to join.
const VISIT: Duration = Duration::from_secs(60);
/// Largest message of somebody who wants to join, bytes.
const MAX_JOIN: usize = 64 * 1024;
/// Calls at a time of such a one.
const VISITS: usize = 8;
/// The same of another controller whose record is not here, whose messages may be large: a heartbeat, an election, entries and a
/// snapshot are enough for Raft.
const UNKNOWN_MEMBER_CALLS: usize = 4;
/// How long running calls may take once we stop.
const DRAIN: Duration = Duration::from_secs(5);
/// The same for those of other controllers, afterwards.
const DRAIN_MEMBERS: Duration = Duration::from_secs(1);
/// Pause after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Address and port.
    pub(crate) remote: SocketAddr,
    /// Serial number of the certificate shown, and its fingerprint; the chain was verified.
    pub(crate) certificate: Option<(String, [u8; 32])>,
    /// Whether it names a controller: only this authority's certificates for controllers do.
    pub(crate) is_controller: bool,
    /// Calls that may run at a time, for whoever is only on a visit.
    pub(crate) visit: Option<Arc<Semaphore>>,
}

/// A connection with its place among those allowed.
struct Conn {
    stream: TlsStream<TcpStream>,
    /// When the connection is closed; `None` once nothing stands against it.
    end: Option<End>,
    peer: Peer,
    _place: Place,
}

impl Connected for Conn {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(end) = &mut self.end
            && end.has_come(cx)
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let filled = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > filled && self.end.as_ref().is_some_and(|end| !end.visit) {
            self.end = None;
        }
        read
    }
}

/// When a connection is closed.
struct End {
    until: Pin<Box<Sleep>>,
    /// Others want to be heard.
    evicted: Option<Evicted>,
    /// Whether it comes even to one that speaks.
    visit: bool,
}

impl End {
    fn has_come(&mut self, cx: &mut Context<'_>) -> bool {
        let evicted = self.evicted.as_mut().is_some_and(|evicted| Pin::new(evicted).poll(cx).is_ready());
        evicted || self.until.as_mut().poll(cx).is_ready()
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connections that wait to be served.
#[derive(Clone)]
struct Ready {
    /// Of other controllers.
    members: mpsc::Sender<io::Result<Conn>>,
    /// Of everybody else.
    clients: mpsc::Sender<io::Result<Conn>>,
}

/// Serves until `stopped` turns true, then lets running calls end. Other controllers are heard until they have: a call that waits
/// for this node's log to go on would wait in vain.
pub(crate) async fn serve(listener: TcpListener, core: Arc<Core>, tls: Arc<Tls>, mut stopped: watch::Receiver<bool>) {
    let (members, of_members) = mpsc::channel(BACKLOG);
    let (clients, of_clients) = mpsc::channel(BACKLOG);
    let accepting = tokio::spawn(accept(listener, core.clone(), tls, Ready { members, clients }));
    let (last, mut drained) = watch::channel(false);
    let gate = GateLayer::new(core.clone());
    let (core_for_members, gate_for_members, stopped_for_members) = (core.clone(), gate.clone(), stopped.clone());
    let for_members = tokio::spawn(async move {
        serve_some(core_for_members, gate_for_members, of_members, stopped_for_members, async move {
            let _ = drained.wait_for(|done| *done).await; // the sender gone is a stop, too
        })
        .await;
    });
    let for_clients = serve_some(core, gate, of_clients, stopped.clone(), {
        let mut stopped = stopped.clone();
        async move {
            let _ = stopped.wait_for(|stop| *stop).await; // the same
        }
    });
    let patience = async {
        let _ = stopped.wait_for(|stop| *stop).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = for_clients => {}
        () = patience => tracing::warn!("some calls did not end in time"),
    }
    last.send_replace(true);
    let members = for_members.abort_handle();
    // Connections of members carry no calls of ours that are worth waiting for.
    if tokio::time::timeout(DRAIN_MEMBERS, for_members).await.is_err() {
        members.abort();
    }
    accepting.abort();
    let _ = accepting.await; // aborted
}

async fn serve_some(
    core: Arc<Core>,
    gate: GateLayer,
    connections: mpsc::Receiver<io::Result<Conn>>,
    stopped: watch::Receiver<bool>,
    end: impl Future<Output = ()>,
) {
    let limits = core.config.limits;
    let gateway = GatewayServer::new(GatewayService::new(core.clone(), stopped))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let operator = OperatorServer::new(OperatorService::new(core.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let peer = PeerServer::new(PeerService::new(core.clone()))
        .max_decoding_message_size(MAX_PEER_MESSAGE)
        .max_encoding_message_size(MAX_PEER_MESSAGE);
    let joining = JoiningServer::new(JoiningService::new(core.clone())).max_decoding_message_size(MAX_JOIN);
    let revocation = RevocationServer::new(RevocationService::new(core)).max_decoding_message_size(MAX_JOIN);
    let served = Server::builder()
        .layer(gate)
        .concurrency_limit_per_connection(limits.calls_per_connection)
        .max_concurrent_streams(u32::try_from(limits.calls_per_connection).ok())
        // As much is under way as the line carries, or a life sign would stand in line behind a snapshot.
        .http2_adaptive_window(Some(true))
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(gateway)
        .add_service(operator)
        .add_service(peer)
        .add_service(joining)
        .add_service(revocation)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), end);
    if let Err(e) = served.await {
        tracing::error!(error = %e, "the gRPC server ended");
    }
}

async fn accept(listener: TcpListener, core: Arc<Core>, tls: Arc<Tls>, ready: Ready) {
    let places = Places::new(core.config.limits.connections);
    let patience = Duration::from_millis(core.config.limits.handshake_ms);
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(error = %e, "gRPC: cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (place, mut evicted) = places.arrive(remote.ip());
        let (core, tls, ready) = (core.clone(), tls.clone(), ready.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true); // slower at worst
            let shaken = tokio::select! {
                biased;
                shaken = tokio::time::timeout(patience, tls.acceptor().accept(stream)) => shaken,
                // Others from there wait, too, and this one does nothing.
                _ = &mut evicted => return core.metrics.connection(Connection::TooMany),
            };
            match shaken {
                Ok(Ok(stream)) => {
                    let mut peer = peer_of(&stream, remote);
                    let serial = peer.certificate.as_ref().map_or("", |(serial, _)| serial);
                    // Somebody whose record is still to come is no visitor. What does not come is said to his first call.
                    if !peer.is_controller && caller::is_unknown(&core, &peer, None) {
                        tokio::select! {
                            _ = core.linearizable() => {}
                            _ = &mut evicted => return core.metrics.connection(Connection::TooMany),
                        }
                    }
                    let welcome = caller::opens_a_service(&core, &peer);
                    let (place, evicted) = match place.settle(serial, welcome) {
                        Settled::Stays(place) => (place, None),
                        Settled::Visits(place, evicted) => (place, Some(evicted)),
                        Settled::Full => {
                            core.metrics.connection(Connection::TooMany);
                            tracing::warn!(
                                %remote, serial,
                                "refused a connection: its certificate holds too many, or all places are taken \
                                 (limits.connections)"
                            );
                            return;
                        }
                    };
                    if !welcome {
                        let calls = if peer.is_controller { UNKNOWN_MEMBER_CALLS } else { VISITS };
                        peer.visit = Some(Arc::new(Semaphore::new(calls)));
                    }
                    core.metrics.connection(Connection::Accepted);
                    // Nobody is waited for longer than for a handshake before he has said the first word.
                    let until = Box::pin(tokio::time::sleep(if welcome { patience } else { VISIT }));
                    let end = Some(End { until, evicted, visit: !welcome });
                    let ready = if peer.is_controller { ready.members } else { ready.clients };
                    let _ = ready.send(Ok(Conn { stream, end, peer, _place: place })).await; // gone when we stop
                }
                Ok(Err(e)) => {
                    core.metrics.connection(Connection::TlsFailed);
                    tracing::debug!(%remote, error = %e, "TLS failed");
                }
                Err(_) => core.metrics.connection(Connection::TlsTimeout),
            }
        });
    }
}

fn peer_of(stream: &TlsStream<TcpStream>, remote: SocketAddr) -> Peer {
    let (_, connection) = stream.get_ref();
    let der = connection.peer_certificates().and_then(|chain| chain.first());
    match der.and_then(|der| Certificate::from_der(der).ok()) {
        Some(certificate) => Peer {
            remote,
            is_controller: certificate.names_host(CONTROLLER_NAME),
            certificate: Some((certificate.serial.to_string(), certificate.fingerprint.0)),
            visit: None,
        },
        None => Peer { remote, certificate: None, is_controller: false, visit: None },
    }
}
