//! What operators may change: each call by an operator of each role.

use sallyport_ca::Profile;
use sallyport_proto::v1::operator_client::OperatorClient;
use sallyport_proto::v1::{self, CertificateProfile, OperatorRole as Role};
use tonic::Code;
use tonic::transport::Channel;

use crate::common::{issue, site};

/// Each call that changes something, with the role that it needs. What is asked for is mostly nothing: whoever may ask is told so.
macro_rules! calls {
    ($($role:ident: $method:ident($request:expr);)*) => {
        /// The role, the call and what came of it.
        async fn try_all(client: &mut OperatorClient<Channel>) -> Vec<(Role, &'static str, Code)> {
            let mut all = Vec::new();
            $({
                let code = client.$method($request).await.map_or_else(|status| status.code(), |_| Code::Ok);
                all.push((Role::$role, concat!(stringify!($method), " ", stringify!($request)), code));
            })*
            all
        }
    };
}

fn certificate_of(profile: CertificateProfile) -> v1::IssueCertificateRequest {
    // No name: nothing is issued.
    v1::IssueCertificateRequest { profile: profile.into(), ..Default::default() }
}

fn token_of(profile: &str) -> v1::CreateEnrollTokenRequest {
    v1::CreateEnrollTokenRequest { profile: profile.into(), ..Default::default() }
}

fn machine() -> v1::RevokeCertificatesRequest {
    use v1::revoke_certificates_request::Which;
    v1::RevokeCertificatesRequest { which: Some(Which::Machine("nobody".into())), ..Default::default() }
}

fn held() -> v1::ReleaseCertificatesRequest {
    use v1::release_certificates_request::Which;
    v1::ReleaseCertificatesRequest { which: Some(Which::Holder("nobody".into())) }
}

fn finish() -> v1::ManageRootRequest {
    use v1::manage_root_request::Step;
    v1::ManageRootRequest { root: 0, step: Some(Step::Finish(v1::FinishRollover { force: false })) }
}

calls! {
    Users: add_user(v1::AddUserRequest::default());
    Users: remove_user(v1::RemoveUserRequest::default());
    Users: set_password(v1::SetPasswordRequest::default());
    Users: set_user_enabled(v1::SetUserEnabledRequest::default());
    Users: update_user(v1::UpdateUserRequest::default());
    Users: unlock_user(v1::UnlockUserRequest::default());
    Users: kill_session(v1::KillSessionRequest::default());
    Policy: add_pool(v1::AddPoolRequest::default());
    Policy: remove_pool(v1::RemovePoolRequest::default());
    Policy: set_psk(v1::SetPskRequest::default());
    Policy: clear_psk(v1::ClearPskRequest::default());
    Policy: update_settings(v1::UpdateSettingsRequest::default());
    Policy: set_profile(v1::SetProfileRequest::default());
    Keys: add_issuer(v1::AddIssuerRequest::default());
    Keys: retire_issuer(v1::RetireIssuerRequest::default());
    Keys: manage_root(finish());
    Keys: revoke_cluster_tokens(v1::RevokeClusterTokensRequest::default());
    Keys: create_cluster_token(v1::CreateClusterTokenRequest { ttl_s: u32::MAX });
    Keys: remove_member(v1::RemoveMemberRequest::default());
    Keys: promote_member(v1::PromoteMemberRequest::default());
    Keys: transfer_leader(v1::TransferLeaderRequest::default());
    Keys: accept_log(v1::AcceptLogRequest::default());
    Keys: create_backup(v1::CreateBackupRequest::default());
    Gateways: remove_gateway(v1::RemoveGatewayRequest::default());
    Gateways: set_gateway_names(v1::SetGatewayNamesRequest::default());
    Gateways: issue_certificate(certificate_of(CertificateProfile::Gateway));
    Gateways: issue_certificate(certificate_of(CertificateProfile::GatewayLink));
    Gateways: create_enroll_token(token_of("gateway-link"));
    Enrollment: issue_certificate(certificate_of(CertificateProfile::Machine));
    Enrollment: issue_certificate(certificate_of(CertificateProfile::User));
    Enrollment: create_enroll_token(token_of(""));
    Enrollment: put_machines(v1::PutMachinesRequest::default());
    Enrollment: remove_machine(v1::RemoveMachineRequest::default());
    Enrollment: decide_request(v1::DecideRequestRequest::default());
    Enrollment: revoke_certificates(machine());
    Enrollment: release_certificates(held());
    Operators: issue_certificate(certificate_of(CertificateProfile::Operator));
    Operators: set_operator_roles(v1::SetOperatorRolesRequest::default());
}

const ALL: [Role; 6] = [Role::Users, Role::Enrollment, Role::Gateways, Role::Policy, Role::Keys, Role::Operators];

fn roles(name: &str, roles: &[Role]) -> v1::SetOperatorRolesRequest {
    let roles = roles.iter().map(|role| (*role).into()).collect();
    v1::SetOperatorRolesRequest { name: name.into(), roles, all: false }
}

/// ESC 4, 5 and 7 of AD CS: whoever may hand out certificates cannot change profiles or take keys, and the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_one_roles_and_no_other_opens_it() {
    let site = site().await;
    let mut ada = site.operator().await;
    let olga = issue(&site.running, Profile::Operator, "olga").await;
    let mut client = OperatorClient::new(site.channel(&olga).await.expect("connects"));
    let mut tried = 0;
    for has in ALL {
        ada.set_operator_roles(roles("olga", &[has])).await.expect("sets");
        for (needs, call, code) in try_all(&mut client).await {
            assert_eq!(code == Code::PermissionDenied, needs != has, "{call} by {has:?}: {code:?}");
            tried += 1;
        }
        client.get_status(v1::GetStatusRequest {}).await.expect("all may look");
    }
    assert!(tried > 200, "{tried}");
    let set = ada.set_operator_roles(roles("olga", &[])).await.expect("sets").into_inner().info.expect("info");
    assert!(set.restricted && set.roles.is_empty());
    assert!(try_all(&mut client).await.iter().all(|(_, _, code)| *code == Code::PermissionDenied));
    site.running.shutdown().await;
}

/// By serial number, what a certificate is for says whose it is to take back.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_revoke_machines_shuts_out_neither_operators_nor_gateways_nor_controllers() {
    let site = site().await;
    let mut ada = site.operator().await;
    let olga = issue(&site.running, Profile::Operator, "olga").await;
    let mut client = OperatorClient::new(site.channel(&olga).await.expect("connects"));
    ada.set_operator_roles(roles("olga", &[Role::Enrollment])).await.expect("sets");
    let revoke = |serial: &str| v1::RevokeCertificateRequest { serial: serial.into(), ..Default::default() };
    for profile in [Profile::Operator, Profile::Gateway, Profile::GatewayLink] {
        let issued = issue(&site.running, profile, "other.example.com").await;
        let refused = client.revoke_certificate(revoke(&issued.record.serial)).await.expect_err("is refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{profile:?}");
        assert!(refused.message().contains("does not have the role"), "{}", refused.message());
        use v1::revoke_certificates_request::Which;
        let which = Some(Which::Serial(issued.record.serial));
        let request = v1::RevokeCertificatesRequest { which, ..Default::default() };
        let refused = client.revoke_certificates(request).await.expect_err("is refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{profile:?}");
    }
    let machine = issue(&site.running, Profile::Machine, "laptop7.example.com").await;
    client.revoke_certificate(revoke(&machine.record.serial)).await.expect("revokes");
    // Nor does she make herself more: not by her own certificate's renewal either, which has her name.
    let refused = client.set_operator_roles(roles("olga", &ALL)).await.expect_err("is refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let listed = client.list_operators(v1::ListOperatorsRequest {}).await.expect("lists").into_inner().operators;
    let hers = listed.iter().find(|o| o.name == "olga").expect("she is listed");
    assert_eq!((hers.roles().collect::<Vec<_>>(), hers.certificates), (vec![Role::Enrollment], 1));
    site.running.shutdown().await;
}
