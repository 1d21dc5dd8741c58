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
mod roles;
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

/// One method of the trait: counted, timed, passed on where another node leads, and, if the caller has the role, handed to the function
/// of the same name.
macro_rules! calls {
    ($($method:ident, $rpc:ident, $request:ident -> $response:ident, $implementation:ident, $needs:ident;)*) => {
        #[tonic::async_trait]
        impl Operator for OperatorService {
            $(
                async fn $method(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                    observed(&self.core, Rpc::$rpc, async {
                        match forward::leader(&self.core, forward::is_forwarded(&request)).await? {
                            Leader::Here => {
                                let (caller, request) = self.operator(request).await?;
                                self.may(&caller, roles::$needs)?;
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
    add_user, AddUser, AddUserRequest -> AddUserResponse, do_add_user, USERS;
    list_users, ListUsers, ListUsersRequest -> ListUsersResponse, do_list_users, LOOK;
    remove_user, RemoveUser, RemoveUserRequest -> RemoveUserResponse, do_remove_user, USERS;
    set_password, SetPassword, SetPasswordRequest -> SetPasswordResponse, do_set_password, USERS;
    set_user_enabled, SetUserEnabled, SetUserEnabledRequest -> SetUserEnabledResponse, do_set_user_enabled, USERS;
    update_user, UpdateUser, UpdateUserRequest -> UpdateUserResponse, do_update_user, USERS;
    unlock_user, UnlockUser, UnlockUserRequest -> UnlockUserResponse, do_unlock_user, USERS;
    add_pool, AddPool, AddPoolRequest -> AddPoolResponse, do_add_pool, POLICY;
    list_pools, ListPools, ListPoolsRequest -> ListPoolsResponse, do_list_pools, LOOK;
    remove_pool, RemovePool, RemovePoolRequest -> RemovePoolResponse, do_remove_pool, POLICY;
    issue_certificate, IssueCertificate, IssueCertificateRequest -> IssueCertificateResponse,
        do_issue_certificate, AS_ASKED;
    list_certificates, ListCertificates, ListCertificatesRequest -> ListCertificatesResponse,
        do_list_certificates, LOOK;
    get_certificate, GetCertificate, GetCertificateRequest -> GetCertificateResponse, do_get_certificate, LOOK;
    revoke_certificate, RevokeCertificate, RevokeCertificateRequest -> RevokeCertificateResponse,
        do_revoke_certificate, AS_ASKED;
    revoke_certificates, RevokeCertificates, RevokeCertificatesRequest -> RevokeCertificatesResponse,
        do_revoke_certificates, AS_ASKED;
    release_certificates, ReleaseCertificates, ReleaseCertificatesRequest -> ReleaseCertificatesResponse,
        do_release_certificates, AS_ASKED;
    get_revocation, GetRevocation, GetRevocationRequest -> GetRevocationResponse, do_get_revocation, LOOK;
    list_authorities, ListAuthorities, ListAuthoritiesRequest -> ListAuthoritiesResponse, do_list_authorities, LOOK;
    add_issuer, AddIssuer, AddIssuerRequest -> AddIssuerResponse, do_add_issuer, KEYS;
    retire_issuer, RetireIssuer, RetireIssuerRequest -> RetireIssuerResponse, do_retire_issuer, KEYS;
    manage_root, ManageRoot, ManageRootRequest -> ManageRootResponse, do_manage_root, AS_ASKED;
    list_roots, ListRoots, ListRootsRequest -> ListRootsResponse, do_list_roots, LOOK;
    set_psk, SetPsk, SetPskRequest -> SetPskResponse, do_set_psk, POLICY;
    clear_psk, ClearPsk, ClearPskRequest -> ClearPskResponse, do_clear_psk, POLICY;
    get_settings, GetSettings, GetSettingsRequest -> GetSettingsResponse, do_get_settings, LOOK;
    update_settings, UpdateSettings, UpdateSettingsRequest -> UpdateSettingsResponse, do_update_settings, POLICY;
    list_sessions, ListSessions, ListSessionsRequest -> ListSessionsResponse, do_list_sessions, LOOK;
    kill_session, KillSession, KillSessionRequest -> KillSessionResponse, do_kill_session, USERS;
    list_gateways, ListGateways, ListGatewaysRequest -> ListGatewaysResponse, do_list_gateways, LOOK;
    remove_gateway, RemoveGateway, RemoveGatewayRequest -> RemoveGatewayResponse, do_remove_gateway, GATEWAYS;
    renew_operator, RenewOperator, RenewOperatorRequest -> RenewOperatorResponse, do_renew_operator, AS_ASKED;
    list_operators, ListOperators, ListOperatorsRequest -> ListOperatorsResponse, do_list_operators, LOOK;
    set_operator_roles, SetOperatorRoles, SetOperatorRolesRequest -> SetOperatorRolesResponse,
        do_set_operator_roles, OPERATORS;
    set_gateway_names, SetGatewayNames, SetGatewayNamesRequest -> SetGatewayNamesResponse,
        do_set_gateway_names, GATEWAYS;
    list_attempts, ListAttempts, ListAttemptsRequest -> ListAttemptsResponse, do_list_attempts, LOOK;
    get_status, GetStatus, GetStatusRequest -> GetStatusResponse, do_get_status, LOOK;
    create_cluster_token, CreateClusterToken, CreateClusterTokenRequest -> CreateClusterTokenResponse,
        do_create_cluster_token, KEYS;
    revoke_cluster_tokens, RevokeClusterTokens, RevokeClusterTokensRequest -> RevokeClusterTokensResponse,
        do_revoke_cluster_tokens, KEYS;
    remove_member, RemoveMember, RemoveMemberRequest -> RemoveMemberResponse, do_remove_member, KEYS;
    promote_member, PromoteMember, PromoteMemberRequest -> PromoteMemberResponse, do_promote_member, KEYS;
    create_enroll_token, CreateEnrollToken, CreateEnrollTokenRequest -> CreateEnrollTokenResponse,
        do_create_enroll_token, AS_ASKED;
    list_enroll_tokens, ListEnrollTokens, ListEnrollTokensRequest -> ListEnrollTokensResponse,
        do_list_enroll_tokens, LOOK;
    revoke_enroll_token, RevokeEnrollToken, RevokeEnrollTokenRequest -> RevokeEnrollTokenResponse,
        do_revoke_enroll_token, AS_ASKED;
    put_machines, PutMachines, PutMachinesRequest -> PutMachinesResponse, do_put_machines, ENROLLMENT;
    list_machines, ListMachines, ListMachinesRequest -> ListMachinesResponse, do_list_machines, LOOK;
    remove_machine, RemoveMachine, RemoveMachineRequest -> RemoveMachineResponse, do_remove_machine, ENROLLMENT;
    list_requests, ListRequests, ListRequestsRequest -> ListRequestsResponse, do_list_requests, LOOK;
    decide_request, DecideRequest, DecideRequestRequest -> DecideRequestResponse, do_decide_request, ENROLLMENT;
    list_profiles, ListProfiles, ListProfilesRequest -> ListProfilesResponse, do_list_profiles, LOOK;
    set_profile, SetProfile, SetProfileRequest -> SetProfileResponse, do_set_profile, POLICY;
    get_log, GetLog, GetLogRequest -> GetLogResponse, do_get_log, LOOK;
    read_log, ReadLog, ReadLogRequest -> ReadLogResponse, do_read_log, LOOK;
    accept_log, AcceptLog, AcceptLogRequest -> AcceptLogResponse, do_accept_log, KEYS;
    transfer_leader, TransferLeader, TransferLeaderRequest -> TransferLeaderResponse, do_transfer_leader, KEYS;
}
