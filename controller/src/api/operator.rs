//! The service for operators.

use std::sync::Arc;

use sallyport_proto::v1::operator_client::OperatorClient;
use sallyport_proto::v1::operator_server::Operator;
use sallyport_proto::{MAX_MESSAGE_BYTES, v1};
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::error::done;
use super::forward::{self, Leader};
use super::gateway::dedup_id;
use super::observed;
use crate::actor;
use crate::app::Core;
use crate::metrics::Rpc;
use crate::state::{Action, Done};

mod audit;
mod authorities;
mod backup;
mod certificates;
mod cluster;
mod enrollment;
mod renewal;
mod revocation;
mod root;
mod search;
mod sessions;
mod settings;
mod users;

/// The service.
pub(super) struct OperatorService {
    core: Arc<Core>,
    /// A place for the one backup that may be made at a time.
    backups: Arc<tokio::sync::Semaphore>,
}

impl OperatorService {
    /// The service over `core`.
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, backups: Arc::new(tokio::sync::Semaphore::new(1)) }
    }

    /// The caller is an operator; all that was acknowledged is in the state. Returns what was asked.
    async fn operator<T>(&self, request: Request<T>) -> Result<(Caller, T), Status> {
        Caller::of(&self.core, &request, v1::CertificateProfile::Operator)?;
        self.core.linearizable().await?;
        // Once more: the certificate may have been revoked by something acknowledged before this call.
        let caller = Caller::of(&self.core, &request, v1::CertificateProfile::Operator)?;
        Ok((caller, request.into_inner()))
    }

    /// Puts a change into the log and notes who made it.
    async fn change(&self, caller: &Caller, what: &str, action: Action) -> Result<Done, Status> {
        let reply = match &caller.request_id {
            Some(id) => self.core.propose_as(dedup_id(&caller.serial, what, id), action).await?,
            None => self.core.propose(action).await?,
        };
        let done = done(reply)?;
        self.core.catch_up().await;
        tracing::info!(operator = %caller.name, serial = %caller.serial, what, "an operator changed something");
        Ok(done)
    }
}

/// One method of the trait: counted, timed, passed on where another node leads, and handed to the function of the same name.
macro_rules! calls {
    ($($method:ident, $rpc:ident, $request:ident -> $response:ident, $implementation:ident;)*) => {
        #[tonic::async_trait]
        impl Operator for OperatorService {
            $(
                async fn $method(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                    observed(&self.core, Rpc::$rpc, async {
                        match forward::leader(&self.core, forward::is_forwarded(&request)).await? {
                            Leader::Here => {
                                let (caller, request) = self.operator(request).await?;
                                let actor = caller.actor();
                                actor::in_the_name_of(actor, self.$implementation(&caller, request)).await
                            }
                            Leader::There(channel) => {
                                let mut leader = OperatorClient::new(channel)
                                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                                    .max_encoding_message_size(MAX_MESSAGE_BYTES);
                                let passed = forward::on_behalf(request)?;
                                leader.$method(passed).await.map(Response::into_inner).map_err(forward::failed)
                            }
                        }
                    })
                    .await
                }
            )*

            // Not of the state but of the members, and wanted most when they are in trouble.
            async fn get_cluster(
                &self,
                request: Request<v1::GetClusterRequest>,
            ) -> Result<Response<v1::GetClusterResponse>, Status> {
                observed(&self.core, Rpc::GetCluster, self.do_get_cluster(request)).await
            }

            type CreateBackupStream = backup::Parts;

            async fn create_backup(
                &self,
                request: Request<v1::CreateBackupRequest>,
            ) -> Result<Response<Self::CreateBackupStream>, Status> {
                observed(&self.core, Rpc::CreateBackup, self.do_create_backup(request)).await
            }
        }
    };
}

calls! {
    add_user, AddUser, AddUserRequest -> AddUserResponse, do_add_user;
    list_users, ListUsers, ListUsersRequest -> ListUsersResponse, do_list_users;
    remove_user, RemoveUser, RemoveUserRequest -> RemoveUserResponse, do_remove_user;
    set_password, SetPassword, SetPasswordRequest -> SetPasswordResponse, do_set_password;
    set_user_enabled, SetUserEnabled, SetUserEnabledRequest -> SetUserEnabledResponse, do_set_user_enabled;
    update_user, UpdateUser, UpdateUserRequest -> UpdateUserResponse, do_update_user;
    unlock_user, UnlockUser, UnlockUserRequest -> UnlockUserResponse, do_unlock_user;
    add_pool, AddPool, AddPoolRequest -> AddPoolResponse, do_add_pool;
    list_pools, ListPools, ListPoolsRequest -> ListPoolsResponse, do_list_pools;
    remove_pool, RemovePool, RemovePoolRequest -> RemovePoolResponse, do_remove_pool;
    issue_certificate, IssueCertificate, IssueCertificateRequest -> IssueCertificateResponse, do_issue_certificate;
    list_certificates, ListCertificates, ListCertificatesRequest -> ListCertificatesResponse, do_list_certificates;
    revoke_certificate, RevokeCertificate, RevokeCertificateRequest -> RevokeCertificateResponse, do_revoke_certificate;
    revoke_certificates, RevokeCertificates, RevokeCertificatesRequest -> RevokeCertificatesResponse, do_revoke_certificates;
    release_certificates, ReleaseCertificates, ReleaseCertificatesRequest -> ReleaseCertificatesResponse,
        do_release_certificates;
    get_revocation, GetRevocation, GetRevocationRequest -> GetRevocationResponse, do_get_revocation;
    list_authorities, ListAuthorities, ListAuthoritiesRequest -> ListAuthoritiesResponse, do_list_authorities;
    add_issuer, AddIssuer, AddIssuerRequest -> AddIssuerResponse, do_add_issuer;
    retire_issuer, RetireIssuer, RetireIssuerRequest -> RetireIssuerResponse, do_retire_issuer;
    manage_root, ManageRoot, ManageRootRequest -> ManageRootResponse, do_manage_root;
    list_roots, ListRoots, ListRootsRequest -> ListRootsResponse, do_list_roots;
    set_psk, SetPsk, SetPskRequest -> SetPskResponse, do_set_psk;
    clear_psk, ClearPsk, ClearPskRequest -> ClearPskResponse, do_clear_psk;
    get_settings, GetSettings, GetSettingsRequest -> GetSettingsResponse, do_get_settings;
    update_settings, UpdateSettings, UpdateSettingsRequest -> UpdateSettingsResponse, do_update_settings;
    list_sessions, ListSessions, ListSessionsRequest -> ListSessionsResponse, do_list_sessions;
    kill_session, KillSession, KillSessionRequest -> KillSessionResponse, do_kill_session;
    list_gateways, ListGateways, ListGatewaysRequest -> ListGatewaysResponse, do_list_gateways;
    remove_gateway, RemoveGateway, RemoveGatewayRequest -> RemoveGatewayResponse, do_remove_gateway;
    renew_operator, RenewOperator, RenewOperatorRequest -> RenewOperatorResponse, do_renew_operator;
    set_gateway_names, SetGatewayNames, SetGatewayNamesRequest -> SetGatewayNamesResponse, do_set_gateway_names;
    list_attempts, ListAttempts, ListAttemptsRequest -> ListAttemptsResponse, do_list_attempts;
    get_status, GetStatus, GetStatusRequest -> GetStatusResponse, do_get_status;
    create_cluster_token, CreateClusterToken, CreateClusterTokenRequest -> CreateClusterTokenResponse, do_create_cluster_token;
    revoke_cluster_tokens, RevokeClusterTokens, RevokeClusterTokensRequest -> RevokeClusterTokensResponse,
        do_revoke_cluster_tokens;
    remove_member, RemoveMember, RemoveMemberRequest -> RemoveMemberResponse, do_remove_member;
    promote_member, PromoteMember, PromoteMemberRequest -> PromoteMemberResponse, do_promote_member;
    create_enroll_token, CreateEnrollToken, CreateEnrollTokenRequest -> CreateEnrollTokenResponse, do_create_enroll_token;
    list_enroll_tokens, ListEnrollTokens, ListEnrollTokensRequest -> ListEnrollTokensResponse, do_list_enroll_tokens;
    revoke_enroll_token, RevokeEnrollToken, RevokeEnrollTokenRequest -> RevokeEnrollTokenResponse, do_revoke_enroll_token;
    put_machines, PutMachines, PutMachinesRequest -> PutMachinesResponse, do_put_machines;
    list_machines, ListMachines, ListMachinesRequest -> ListMachinesResponse, do_list_machines;
    remove_machine, RemoveMachine, RemoveMachineRequest -> RemoveMachineResponse, do_remove_machine;
    list_requests, ListRequests, ListRequestsRequest -> ListRequestsResponse, do_list_requests;
    decide_request, DecideRequest, DecideRequestRequest -> DecideRequestResponse, do_decide_request;
    list_profiles, ListProfiles, ListProfilesRequest -> ListProfilesResponse, do_list_profiles;
    set_profile, SetProfile, SetProfileRequest -> SetProfileResponse, do_set_profile;
    get_log, GetLog, GetLogRequest -> GetLogResponse, do_get_log;
    read_log, ReadLog, ReadLogRequest -> ReadLogResponse, do_read_log;
    accept_log, AcceptLog, AcceptLogRequest -> AcceptLogResponse, do_accept_log;
    transfer_leader, TransferLeader, TransferLeaderRequest -> TransferLeaderResponse, do_transfer_leader;
}
