//! The service for nodes that are not members yet. Whoever calls may be anybody.

mod limits;

use std::sync::Arc;

use sallyport_proto::v1;
use sallyport_proto::v1::joining_client::JoiningClient;
use sallyport_proto::v1::joining_server::Joining;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use self::limits::Limits;
use super::forward::{self, Leader};
use super::gateway::renew;
use crate::app::Core;
use crate::cluster::admit;
use crate::enroll::Asked;

/// The service.
pub(super) struct JoiningService {
    core: Arc<Core>,
    limits: Limits,
}

impl JoiningService {
    /// The service over `core`.
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, limits: Limits::default() }
    }
}

#[tonic::async_trait]
impl Joining for JoiningService {
    async fn show_root(
        &self,
        _request: Request<v1::ShowRootRequest>,
    ) -> Result<Response<v1::ShowRootResponse>, Status> {
        forward::ready(&self.core)?;
        let root = self.core.root().der().to_vec();
        Ok(Response::new(v1::ShowRootResponse { root }))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        forward::ready(&self.core)?;
        match forward::leader(&self.core, forward::is_forwarded(&request)).await? {
            Leader::Here => Ok(Response::new(admit::admit(&self.core, request.into_inner()).await?)),
            Leader::There(channel) => {
                let mut passed = Request::new(request.into_inner());
                forward::mark(&mut passed);
                JoiningClient::new(channel).join(passed).await
            }
        }
    }

    async fn enroll_gateway(
        &self,
        request: Request<v1::EnrollGatewayRequest>,
    ) -> Result<Response<v1::EnrollGatewayResponse>, Status> {
        use v1::enroll_gateway_request::Proof;
        // Any member decides: what it puts into the log goes through the leader.
        forward::ready(&self.core)?;
        let source = renew::source(&request);
        let _turn = self.limits.turn(source, self.core.clock.monotonic_ms()).map_err(|wait| {
            Status::resource_exhausted(format!(
                "too many ask for a gateway's certificate; ask again in {} s",
                wait.as_secs()
            ))
        })?;
        let request = request.into_inner();
        let asked = match request.proof {
            Some(Proof::Token(token)) => {
                let token = token.into_inner();
                let text = str::from_utf8(&token).map_err(|_| Status::invalid_argument("token: not text"))?;
                Asked::Token(Zeroizing::new(text.to_owned()))
            }
            Some(Proof::Present(present)) => Asked::Late(present),
            None => return Err(Status::invalid_argument("a token, or the present certificate")),
        };
        let (certificate, chain) = renew::certify(&self.core, asked, &request.csr, source).await?;
        let revoked_controllers = super::revoked_controllers(&self.core)?;
        Ok(Response::new(v1::EnrollGatewayResponse { certificate, chain, revoked_controllers }))
    }
}
