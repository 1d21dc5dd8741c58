//! Connections to a gateway's enrollment ports: they end here, TLS and all.

use std::net::SocketAddr;
use std::time::Duration;

use sallyport_endpoint::{Arrival, Kind, serve};
use sallyport_proto::carry::{PIECE, pump};
use sallyport_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::{GatewayService, check_member};

/// How long a gateway may take to say whose connection it is.
const BEGIN: Duration = Duration::from_secs(5);
/// Longest life of a connection; the endpoint ends it before.
const LIFE: Duration = Duration::from_secs(600);
/// How long an answer may take whose client has closed its side.
const LINGER: Duration = Duration::from_secs(60);
/// How long one may go on once this controller stops.
const DRAIN: Duration = Duration::from_secs(3);
/// Pieces on their way to the gateway.
const QUEUE: usize = 4;

impl GatewayService {
    pub(super) async fn do_carry(
        &self,
        request: Request<Streaming<v1::CarryEnrollmentRequest>>,
    ) -> Result<ReceiverStream<Result<v1::CarryEnrollmentResponse, Status>>, Status> {
        let caller = self.caller(&request)?;
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(BEGIN, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("nobody said whose connection it is"))??;
        let begin = first.and_then(|m| m.begin).ok_or_else(|| Status::invalid_argument("begin is missing"))?;
        // By the state as it is: whoever enrolls is asked by the endpoint, and a gateway that was given up is told by the rest.
        let via = check_member(&self.core.node.shared().read(), &caller, begin.member)?.slot;
        let source: SocketAddr =
            begin.remote.parse().map_err(|_| Status::invalid_argument("remote is no address and port"))?;
        let kind = match begin.port() {
            v1::EnrollmentPort::Https => Kind::Tls,
            v1::EnrollmentPort::Http => Kind::Plain,
            v1::EnrollmentPort::Unspecified => return Err(Status::invalid_argument("port is missing")),
        };
        let front = self.core.front().ok_or_else(|| Status::unavailable("this controller is stopping"))?;
        let place = front
            .place(&caller.name)
            .ok_or_else(|| Status::resource_exhausted("this gateway carries as many connections to here as one may"))?;
        let endpoint = front.endpoint().clone();
        let (outgoing, responses) = mpsc::channel(QUEUE);
        let (ours, theirs) = tokio::io::duplex(PIECE);
        let mut stopped = self.stopped.clone();
        tokio::spawn(async move {
            let _place = place;
            let carried = async {
                // Whichever ends first, the other hears of it: the duplex ends.
                let arrival = Arrival { source, kind, via };
                tokio::join!(serve(theirs, arrival, &endpoint), pump(ours, incoming, outgoing, LINGER)).1
            };
            let stop = async {
                let _ = stopped.wait_for(|stop| *stop).await; // the sender gone is a stop, too
            };
            let end = async {
                tokio::select! {
                    () = tokio::time::sleep(LIFE) => {}
                    () = stop => tokio::time::sleep(DRAIN).await,
                }
            };
            tokio::select! {
                carried = carried => if let Err(error) = carried {
                    tracing::debug!(gateway = %caller.name, %source, %error, "a carried connection broke off");
                },
                () = end => {}
            }
        });
        Ok(ReceiverStream::new(responses))
    }
}
