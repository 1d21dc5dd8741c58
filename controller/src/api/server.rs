//! The gRPC address: accepting, handshakes, bounds, orderly end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sallyport_ca::Certificate;
use sallyport_proto::MAX_MESSAGE_BYTES;
use sallyport_proto::v1::gateway_server::GatewayServer;
use sallyport_proto::v1::operator_server::OperatorServer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::gateway::GatewayService;
use super::operator::OperatorService;
use super::places::{Place, Places};
use super::{Tls, caller};
use crate::app::Core;
use crate::metrics::Connection;

/// Connections whose handshake is done and that wait to be served.
const BACKLOG: usize = 64;
/// Silence after which a connection is asked for a life sign, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// How long running calls may take once we stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Address and port.
    pub(crate) remote: SocketAddr,
    /// Serial number of the certificate shown, and its fingerprint; the chain was verified.
    pub(crate) certificate: Option<(String, [u8; 32])>,
}

/// A connection with its place among those allowed.
struct Conn {
    stream: TlsStream<TcpStream>,
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
        Pin::new(&mut self.stream).poll_read(cx, buf)
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

/// Serves until `stopped` turns true, then lets running calls end.
pub(crate) async fn serve(listener: TcpListener, core: Arc<Core>, tls: Arc<Tls>, mut stopped: watch::Receiver<bool>) {
    let limits = core.config.limits;
    let (ready, connections) = mpsc::channel::<io::Result<Conn>>(BACKLOG);
    let accepting = tokio::spawn(accept(listener, core.clone(), tls, ready));
    let gateway = GatewayServer::new(GatewayService::new(core.clone(), stopped.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let operator = OperatorServer::new(OperatorService::new(core.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let mut drained = stopped.clone();
    let served = Server::builder()
        .timeout(Duration::from_millis(limits.call_ms))
        .concurrency_limit_per_connection(limits.calls_per_connection)
        .max_concurrent_streams(u32::try_from(limits.calls_per_connection).ok())
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(gateway)
        .add_service(operator)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
            let _ = stopped.wait_for(|stop| *stop).await; // the sender gone is a stop, too
        });
    let patience = async {
        let _ = drained.wait_for(|stop| *stop).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = served => {
            if let Err(e) = result {
                tracing::error!(error = %e, "the gRPC server ended");
            }
        }
        () = patience => tracing::warn!("some calls did not end in time"),
    }
    accepting.abort();
    let _ = accepting.await; // aborted
}

async fn accept(listener: TcpListener, core: Arc<Core>, tls: Arc<Tls>, ready: mpsc::Sender<io::Result<Conn>>) {
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
        let Some(place) = places.arrive(remote.ip()) else {
            core.metrics.connection(Connection::TooMany);
            continue; // closes it
        };
        let (core, tls, ready) = (core.clone(), tls.clone(), ready.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true); // slower at worst
            match tokio::time::timeout(patience, tls.acceptor().accept(stream)).await {
                Ok(Ok(stream)) => {
                    let peer = Peer { remote, certificate: certificate_of(&stream) };
                    let serial = peer.certificate.as_ref().map_or("", |(serial, _)| serial);
                    let Some(place) = place.settle(serial, caller::opens_a_service(&core, &peer)) else {
                        core.metrics.connection(Connection::TooMany);
                        tracing::warn!(%remote, serial, "refused a connection: its certificate holds too many");
                        return;
                    };
                    core.metrics.connection(Connection::Accepted);
                    let _ = ready.send(Ok(Conn { stream, peer, _place: place })).await; // gone when we stop
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

fn certificate_of(stream: &TlsStream<TcpStream>) -> Option<(String, [u8; 32])> {
    let (_, connection) = stream.get_ref();
    let der = connection.peer_certificates()?.first()?;
    let certificate = Certificate::from_der(der).ok()?;
    Some((certificate.serial.to_string(), certificate.fingerprint.0))
}
