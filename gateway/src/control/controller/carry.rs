//! Connections of machines that enroll, carried to a controller.

use std::net::SocketAddr;
use std::time::Duration;

use sallyport_proto::v1;
use sallyport_proto::v1::gateway_client::GatewayClient;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::debug;

use super::{BACKOFF, Carrier, Controllers, passes, words};

/// Pieces on their way to the controller.
const QUEUE: usize = 4;
/// How often all of them are asked.
const ROUNDS: usize = 3;
/// How long a controller is looked for; shorter while none is known to be there.
const PATIENCE: Duration = Duration::from_secs(10);
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

/// The way to a controller that takes one connection: where pieces go, and whence they come.
pub type Carried = (mpsc::Sender<v1::CarryEnrollmentRequest>, Streaming<v1::CarryEnrollmentResponse>);

impl Controllers {
    /// Finds a controller that takes a connection. The error is the cause in words.
    pub async fn carry(&self, remote: SocketAddr, port: v1::EnrollmentPort) -> Result<Carried, String> {
        let tries = async {
            let mut last = String::new();
            let mut pause = BACKOFF.0;
            for n in 1..=ROUNDS.saturating_mul(self.controllers) {
                match begin(self.carrier.clone(), self.member(), remote, port).await {
                    Ok(carried) => return Ok(carried),
                    Err(status) if status.code() == Code::ResourceExhausted || !passes(&status) => {
                        return Err(format!("the controller answered: {}", status.message()));
                    }
                    Err(status) => {
                        debug!(%status, "no controller takes a connection of a machine that enrolls, trying again");
                        last = format!(": {}", words(&status));
                    }
                }
                // All of them were asked.
                if n % self.controllers == 0 {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
            Err(format!("no controller takes it{last}"))
        };
        let patience = if self.are_away() { SHORT_PATIENCE } else { PATIENCE };
        match tokio::time::timeout(patience, tries).await {
            Ok(carried) => carried,
            Err(_) => Err("the controllers are away".into()),
        }
    }
}

async fn begin(
    mut carrier: GatewayClient<Carrier>,
    member: v1::Member,
    remote: SocketAddr,
    port: v1::EnrollmentPort,
) -> Result<Carried, Status> {
    let (outgoing, requests) = mpsc::channel(QUEUE);
    let begin = v1::EnrollmentBegin { member: Some(member), remote: remote.to_string(), port: port.into() };
    let first = v1::CarryEnrollmentRequest { begin: Some(begin), ..Default::default() };
    outgoing.send(first).await.map_err(|_| Status::internal("a queue that ends before it is used"))?;
    let response = carrier.carry_enrollment(ReceiverStream::new(requests)).await?;
    Ok((outgoing, response.into_inner()))
}
