//! The controllers themselves: tokens, status, removal, promotion, the lead.

use std::time::Duration;

use sallyport_proto::v1::operator_client::OperatorClient;
use sallyport_proto::{MAX_MESSAGE_BYTES, v1};
use tonic::{Request, Status};
use zeroize::Zeroizing;

use super::super::caller::Caller;
use super::super::error::done;
use super::super::forward;
use super::OperatorService;
use crate::cluster::token::Token;
use crate::cluster::{admit, lead, status};
use crate::state::{Action, CreateToken, PromoteMember, RemoveMember, RevokeTokens};

/// How long a token is good when nothing is asked for, and at most, seconds.
const TTL: (u32, u32) = (3_600, 86_400);
/// How long the leader may take to say how the members are, its own questions to them included.
const LEADER_VIEW: Duration = Duration::from_millis(1_500);

impl OperatorService {
    pub(super) async fn do_create_cluster_token(
        &self,
        caller: &Caller,
        request: v1::CreateClusterTokenRequest,
    ) -> Result<v1::CreateClusterTokenResponse, Status> {
        let ttl_s = if request.ttl_s == 0 { TTL.0 } else { request.ttl_s };
        if ttl_s > TTL.1 {
            return Err(Status::invalid_argument("ttl_s: at most a day"));
        }
        let core = &self.core;
        let addresses = admit::addresses(core);
        if addresses.iter().all(|a| a.starts_with("0.0.0.0:") || a.starts_with("[::]:")) {
            return Err(Status::failed_precondition(
                "no other machine reaches this controller yet: say in controller.advertise at which HOST:PORT it is, and start it again",
            ));
        }
        let token = Token {
            id: core.sealer.random()?,
            secret: Zeroizing::new(core.sealer.random()?),
            root: core.root().fingerprint.0,
        };
        let ttl_ms = u64::from(ttl_s) * 1_000;
        let command = CreateToken {
            id: token.id.to_vec(),
            hash: Token::hash(token.secret.as_slice()),
            ttl_ms,
            made_by: caller.name.clone(),
        };
        // Not under the caller's request id: asked again, the log would keep the token of the first time, whose secret is lost
        // with its answer. Two tokens do no harm, as the lost one ends by itself.
        done(core.propose(Action::CreateToken(command)).await?)?;
        tracing::info!(operator = %caller.name, serial = %caller.serial, ttl_s, "an operator made a cluster token");
        let expires_unix_ms = core.node.shared().read().now_ms().saturating_add(ttl_ms);
        let text = token.to_text();
        Ok(v1::CreateClusterTokenResponse {
            token: Some(v1::Secret::new(text.as_bytes().to_vec())),
            expires_unix_ms,
            addresses,
        })
    }

    pub(super) async fn do_revoke_cluster_tokens(
        &self,
        caller: &Caller,
        _request: v1::RevokeClusterTokensRequest,
    ) -> Result<v1::RevokeClusterTokensResponse, Status> {
        self.change(caller, "revoke cluster tokens", Action::RevokeTokens(RevokeTokens {})).await?;
        Ok(v1::RevokeClusterTokensResponse {})
    }

    /// The leader's view where it answers soon; otherwise what this node knows by itself. Nothing here waits for a majority.
    pub(super) async fn do_get_cluster(
        &self,
        request: Request<v1::GetClusterRequest>,
    ) -> Result<v1::GetClusterResponse, Status> {
        let core = &self.core;
        Caller::of(core, &request, v1::CertificateProfile::Operator)?;
        let leader = core.node.leader().filter(|(id, _)| *id != core.node.id());
        if let Some((_, address)) = leader
            && !forward::is_forwarded(&request)
            && let Ok(channel) = core.links.calls(&address)
        {
            let passed = forward::on_behalf(request)?;
            let mut leader = OperatorClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
            if let Ok(Ok(answer)) = tokio::time::timeout(LEADER_VIEW, leader.get_cluster(passed)).await {
                return Ok(answer.into_inner());
            }
        }
        Ok(status::cluster(core).await)
    }

    pub(super) async fn do_remove_member(
        &self,
        caller: &Caller,
        request: v1::RemoveMemberRequest,
    ) -> Result<v1::RemoveMemberResponse, Status> {
        self.change(caller, "remove controller", Action::RemoveMember(RemoveMember { id: request.id })).await?;
        Ok(v1::RemoveMemberResponse {})
    }

    pub(super) async fn do_promote_member(
        &self,
        caller: &Caller,
        request: v1::PromoteMemberRequest,
    ) -> Result<v1::PromoteMemberResponse, Status> {
        self.change(caller, "promote controller", Action::PromoteMember(PromoteMember { id: request.id })).await?;
        Ok(v1::PromoteMemberResponse {})
    }

    pub(super) async fn do_transfer_leader(
        &self,
        caller: &Caller,
        request: v1::TransferLeaderRequest,
    ) -> Result<v1::TransferLeaderResponse, Status> {
        let leader_id = lead::hand_over(&self.core, request.id).await?;
        tracing::info!(operator = %caller.name, leader = leader_id, "the lead was handed over");
        Ok(v1::TransferLeaderResponse { leader_id })
    }
}
