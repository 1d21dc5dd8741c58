//! What operators may change: which role each call needs. Looking needs none.

use sallyport_proto::v1::{self, CertificateProfile, OperatorRole};
use tonic::Status;

use super::super::caller::Caller;
use super::OperatorService;
use crate::state::{Action, ROLES, SetOperatorRoles, role_name};

/// What a call needs; `None` for nothing, or where that follows from what it asks for: then the function of the call says so itself.
pub(super) type Needs = Option<OperatorRole>;

pub(super) const USERS: Needs = Some(OperatorRole::Users);
pub(super) const ENROLLMENT: Needs = Some(OperatorRole::Enrollment);
pub(super) const GATEWAYS: Needs = Some(OperatorRole::Gateways);
pub(super) const POLICY: Needs = Some(OperatorRole::Policy);
pub(super) const KEYS: Needs = Some(OperatorRole::Keys);
pub(super) const OPERATORS: Needs = Some(OperatorRole::Operators);
pub(super) const LOOK: Needs = None;
pub(super) const AS_ASKED: Needs = None;

/// The role of whoever hands out and takes back such certificates: whoever can make one can be what it says.
pub(super) const fn role_of(profile: CertificateProfile) -> OperatorRole {
    use CertificateProfile as P;
    match profile {
        P::Machine | P::User => OperatorRole::Enrollment,
        P::Gateway | P::GatewayLink | P::Endpoint => OperatorRole::Gateways,
        P::Operator => OperatorRole::Operators,
        P::Unspecified | P::Controller | P::Root | P::Issuing | P::OcspSigner | P::ScepRa => OperatorRole::Keys,
    }
}

impl OperatorService {
    /// Refuses a caller that does not have the role.
    pub(super) fn may(&self, caller: &Caller, needs: Needs) -> Result<(), Status> {
        let Some(role) = needs else { return Ok(()) };
        if self.core.node.shared().read().operator_may(&caller.name, role) {
            return Ok(());
        }
        let role = role_name(role);
        tracing::warn!(operator = %caller.name, serial = %caller.serial, role, "an operator asked for what is another role's");
        Err(Status::permission_denied(format!(
            "{name} does not have the role {role}; whoever has the role operators can give it, with those that {name} has (sallyport \
             operator list): sallyport operator set {name} --role {role}",
            name = caller.name
        )))
    }

    /// The same for a certificate that is on record; the state says of any other that there is none.
    pub(super) fn may_touch(&self, caller: &Caller, serial: &str) -> Result<(), Status> {
        let profile = self.core.node.shared().read().certificates.get(&serial.to_owned()).map(|row| row.profile());
        self.may(caller, profile.map(role_of))
    }

    pub(super) async fn do_list_operators(
        &self,
        _caller: &Caller,
        _request: v1::ListOperatorsRequest,
    ) -> Result<v1::ListOperatorsResponse, Status> {
        Ok(v1::ListOperatorsResponse { operators: self.core.node.shared().read().operators() })
    }

    pub(super) async fn do_set_operator_roles(
        &self,
        caller: &Caller,
        request: v1::SetOperatorRolesRequest,
    ) -> Result<v1::SetOperatorRolesResponse, Status> {
        if request.roles.len() > ROLES.len() || request.roles().count() != request.roles.len() {
            return Err(Status::invalid_argument("roles: each at most once, and only those that there are"));
        }
        let command = SetOperatorRoles { name: request.name.clone(), roles: request.roles, all: request.all };
        self.change(caller, "set an operator's roles", Action::SetOperatorRoles(command)).await?;
        let state = self.core.node.shared().read();
        let info = state.operators().into_iter().find(|info| info.name == request.name);
        // One with all roles and no certificate is not listed.
        let roles = || state.operator_roles(&request.name).into_iter().map(Into::into).collect();
        let info = info.unwrap_or_else(|| v1::OperatorInfo {
            name: request.name.clone(),
            roles: roles(),
            ..Default::default()
        });
        Ok(v1::SetOperatorRolesResponse { info: Some(info) })
    }
}
