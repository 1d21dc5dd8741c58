//! Pre-shared key, settings, status.

use sallyport_proto::v1;
use tonic::Status;

use super::super::caller::Caller;
use super::super::convert::{settings, settings_row};
use super::OperatorService;
use crate::state::{Action, ClearPsk, SetPsk, UpdateSettings};

/// Shortest and longest pre-shared key, bytes.
const PSK: std::ops::RangeInclusive<usize> = 8..=256;

impl OperatorService {
    pub(super) async fn do_set_psk(
        &self,
        caller: &Caller,
        request: v1::SetPskRequest,
    ) -> Result<v1::SetPskResponse, Status> {
        let psk = request.psk.map(v1::Secret::into_inner).unwrap_or_default();
        if !PSK.contains(&psk.len()) {
            return Err(Status::invalid_argument("psk: 8 to 256 bytes"));
        }
        let sealed = self.core.sealer.seal_psk(&self.core.cluster_id(), &psk)?;
        self.change(caller, "set pre-shared key", Action::SetPsk(SetPsk { sealed })).await?;
        Ok(v1::SetPskResponse {})
    }

    pub(super) async fn do_clear_psk(
        &self,
        caller: &Caller,
        _request: v1::ClearPskRequest,
    ) -> Result<v1::ClearPskResponse, Status> {
        self.change(caller, "clear pre-shared key", Action::ClearPsk(ClearPsk {})).await?;
        Ok(v1::ClearPskResponse {})
    }

    pub(super) async fn do_get_settings(
        &self,
        _caller: &Caller,
        _request: v1::GetSettingsRequest,
    ) -> Result<v1::GetSettingsResponse, Status> {
        Ok(v1::GetSettingsResponse { settings: Some(settings(&self.core.node.shared().read())) })
    }

    pub(super) async fn do_update_settings(
        &self,
        caller: &Caller,
        request: v1::UpdateSettingsRequest,
    ) -> Result<v1::UpdateSettingsResponse, Status> {
        let wanted = request.settings.ok_or_else(|| Status::invalid_argument("settings are missing"))?;
        let row = settings_row(wanted)?;
        let command = Action::UpdateSettings(UpdateSettings { settings: Some(row) });
        self.change(caller, "update settings", command).await?;
        Ok(v1::UpdateSettingsResponse { settings: Some(settings(&self.core.node.shared().read())) })
    }

    pub(super) async fn do_get_status(
        &self,
        _caller: &Caller,
        _request: v1::GetStatusRequest,
    ) -> Result<v1::GetStatusResponse, Status> {
        let core = &self.core;
        let figures = core.node.figures();
        let gateways_alive = u32::try_from(core.gateways_alive()).unwrap_or(u32::MAX);
        let root_fingerprint = core.root().fingerprint.0.to_vec();
        let state = core.node.shared().read();
        let (leases_size, leases_used) = state
            .pools
            .iter()
            .map(|(name, _)| state.pool_use(name))
            .fold((0, 0), |(size, used), (s, u)| (size + s, used + u));
        Ok(v1::GetStatusResponse {
            version: core.software.version.clone(),
            node_id: figures.id,
            leader_id: figures.leader,
            term: figures.term,
            applied_index: figures.applied,
            started_unix_ms: core.started_ms(),
            now_unix_ms: core.now_ms(),
            users: state.users.len() as u64,
            sessions: state.sessions.len() as u64,
            gateways_alive,
            gateways: u32::try_from(state.gateways.len()).unwrap_or(u32::MAX),
            certificates: state.certificates.len() as u64,
            leases_size,
            leases_used,
            root_fingerprint,
            policy_version: state.policy_version(),
            machines_overdue: state.count_overdue(core.now_ms()) as u64,
            gateways_overdue: u32::try_from(state.overdue_gateways(core.now_ms()).count()).unwrap_or(u32::MAX),
            starting: core.with_gateway && gateways_alive == 0,
        })
    }
}
