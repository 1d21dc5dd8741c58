//! Enrollment as operators see it: tokens, machines, requests, profiles.

use std::ops::Bound;

use sallyport_ca::{EnrollToken, Profile};
use sallyport_proto::v1;
use tonic::Status;

use super::super::caller::Caller;
use super::super::convert::{number_token, page};
use super::super::error::done;
use super::OperatorService;
use super::roles::{ENROLLMENT, GATEWAYS, Needs};
use super::search::search;
use crate::state::{
    Action, CreateEnrollToken, DecideRequest, EnrollTokenRow, ISSUABLE, MachineRow, ProfileRow, PutMachines,
    RULES_LEVEL, RemoveMachine, RequestRow, RevokeEnrollToken, SetProfile, State, canonical_name, profile_named,
};

/// How long a token is good when nothing is asked for, and at most, seconds.
const TTL: (u32, u32) = (86_400, 90 * 86_400);
/// Most certificates by one token.
const MAX_USES: u32 = 1_000;
/// Most machines in one call.
const MAX_MACHINES: usize = 1_000;
/// Longest text that people write, bytes.
const MAX_TEXT: usize = 256;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = (text.len() == 16 && text.is_ascii()).then_some(text)?;
    (0..8).map(|at| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()).collect()
}

fn token_info(id: &[u8], row: &EnrollTokenRow) -> v1::EnrollToken {
    v1::EnrollToken {
        id: hex(id),
        profile: row.profile.clone(),
        name: row.name.clone(),
        sans: row.sans.clone(),
        expires_unix_ms: row.expires_ms,
        uses: row.uses,
        used: row.used,
        made_by: row.made_by.clone(),
        made_unix_ms: row.made_ms,
        holder: row.holder.clone(),
    }
}

fn machine_info(state: &State, row: &MachineRow) -> v1::Machine {
    let certificate = state.standing(&row.serial);
    v1::Machine {
        name: row.name.clone(),
        profile: row.profile.clone(),
        sans: row.sans.clone(),
        holder: row.holder.clone(),
        key_sha256: row.key_sha256.clone(),
        network: row.network.map(|n| n.to_string()).unwrap_or_default(),
        certificate_serial: row.serial.clone(),
        not_after_unix_ms: certificate.map_or(0, |c| c.not_after_ms),
        due_unix_ms: row.due_ms,
        enrolled_unix_ms: row.enrolled_ms,
        method: row.method,
        revoked: certificate.is_some_and(|c| c.revoked_ms != 0),
        known_unix_ms: row.known_ms,
    }
}

fn request_info(number: u64, row: &RequestRow) -> v1::EnrollRequest {
    v1::EnrollRequest {
        number,
        key_sha256: row.key_sha256.clone(),
        key_algorithm: row.key,
        claims: row.claims.clone(),
        source: row.source.clone(),
        profile: row.profile.clone(),
        at_unix_ms: row.at_ms,
        state: row.state,
        name: row.name.clone(),
        decided_by: row.decided_by.clone(),
        decided_unix_ms: row.decided_ms,
    }
}

fn profile_info(profile: Profile, row: ProfileRow) -> v1::Profile {
    let mut methods = row.methods.clone();
    if row.opens_to_operators(profile) {
        methods.push(v1::EnrollMethod::Operator.into());
    }
    v1::Profile {
        methods,
        no_addresses: row.no_addresses,
        name: profile.name().into(),
        version: row.version,
        validity_s: row.validity_s,
        keys: row.keys,
        overdue_percent: row.overdue_percent,
        late_renewal_s: row.late_renewal_s,
        name_suffixes: row.name_suffixes,
        server_keys: row.server_keys,
        extended_key_usages: profile.usage_names().iter().map(|u| (*u).to_owned()).collect(),
        max_validity_s: profile.max_validity().as_secs(),
    }
}

/// Names in the form that certificates have, each once.
fn canonical(names: Vec<String>) -> Vec<String> {
    let mut out = Vec::with_capacity(names.len());
    for name in names.iter().map(|name| canonical_name(name)) {
        if !out.contains(&name) {
            out.push(name);
        }
    }
    out
}

/// The role of whoever makes tokens for certificates of a profile.
fn role_of_token(profile: &str) -> Needs {
    if profile == Profile::GatewayLink.name() { GATEWAYS } else { ENROLLMENT }
}

fn profile_or_machine(name: String) -> String {
    if name.is_empty() { Profile::Machine.name().into() } else { name }
}

impl OperatorService {
    pub(super) async fn do_create_enroll_token(
        &self,
        caller: &Caller,
        request: v1::CreateEnrollTokenRequest,
    ) -> Result<v1::CreateEnrollTokenResponse, Status> {
        self.may(caller, role_of_token(&request.profile))?;
        let ttl_s = if request.ttl_s == 0 { TTL.0 } else { request.ttl_s };
        if ttl_s > TTL.1 {
            return Err(Status::invalid_argument("ttl_s: at most 90 days"));
        }
        if request.uses > MAX_USES || request.holder.len() > MAX_TEXT || request.server.len() > MAX_TEXT {
            return Err(Status::invalid_argument("uses: at most 1,000; holder and server: at most 256 bytes"));
        }
        let core = &self.core;
        let server = match request.server {
            // Whoever is nowhere reachable makes tokens, too: the machine is told where to ask.
            none if none.is_empty() && request.profile == Profile::GatewayLink.name() => String::new(), // it asks controllers
            none if none.is_empty() => core.node.shared().read().public_names().next().cloned().unwrap_or_default(),
            given => given,
        };
        let root = core.root().fingerprint.0;
        let token = EnrollToken::generate(root, &server, core.sealer.rng())
            .map_err(|e| Status::unavailable(format!("making a token: {e}")))?;
        let command = CreateEnrollToken {
            id: token.id.to_vec(),
            hash: token.hash().to_vec(),
            profile: profile_or_machine(request.profile),
            name: request.name,
            sans: canonical(request.sans),
            ttl_ms: u64::from(ttl_s) * 1_000,
            uses: request.uses.max(1),
            made_by: caller.name.clone(),
            holder: request.holder,
        };
        // Not under the caller's request id, as with tokens of controllers: the secret of the first time would be lost.
        done(core.propose(Action::CreateEnrollToken(command)).await?)?;
        core.catch_up().await;
        tracing::info!(operator = %caller.name, token = %hex(&token.id), "an operator made a token for a machine");
        let state = core.node.shared().read();
        let id = token.id.to_vec();
        Ok(v1::CreateEnrollTokenResponse {
            token: Some(v1::Secret::new(token.to_text().as_bytes().to_vec())),
            info: state.enroll_tokens.get(&id).map(|row| token_info(&id, row)),
        })
    }

    pub(super) async fn do_list_enroll_tokens(
        &self,
        _caller: &Caller,
        request: v1::ListEnrollTokensRequest,
    ) -> Result<v1::ListEnrollTokensResponse, Status> {
        let after = match request.page_token.as_str() {
            "" => Vec::new(),
            text => unhex(text).ok_or_else(|| Status::invalid_argument("page_token is not one of ours"))?,
        };
        let state = self.core.node.shared().read();
        let rows = state.enroll_tokens.range((Bound::Excluded(after), Bound::Unbounded));
        let (rows, next_page_token) = page(rows, request.page_size, |(id, _)| hex(id));
        let tokens = rows.into_iter().map(|(id, row)| token_info(id, row)).collect();
        Ok(v1::ListEnrollTokensResponse { tokens, next_page_token })
    }

    pub(super) async fn do_revoke_enroll_token(
        &self,
        caller: &Caller,
        request: v1::RevokeEnrollTokenRequest,
    ) -> Result<v1::RevokeEnrollTokenResponse, Status> {
        let id = unhex(&request.id)
            .ok_or_else(|| Status::invalid_argument("id: 16 hexadecimal digits; see sallyport token list"))?;
        let profile = self.core.node.shared().read().enroll_tokens.get(&id).map(|row| row.profile.clone());
        self.may(caller, profile.and_then(|profile| role_of_token(&profile)))?;
        self.change(caller, "revoke token", Action::RevokeEnrollToken(RevokeEnrollToken { id })).await?;
        Ok(v1::RevokeEnrollTokenResponse {})
    }

    pub(super) async fn do_put_machines(
        &self,
        caller: &Caller,
        request: v1::PutMachinesRequest,
    ) -> Result<v1::PutMachinesResponse, Status> {
        if request.machines.is_empty() || request.machines.len() > MAX_MACHINES {
            return Err(Status::invalid_argument(format!("machines: 1 to {MAX_MACHINES} in one call")));
        }
        let row = |machine: v1::Machine| {
            let network = match machine.network.as_str() {
                "" => None,
                text => Some(
                    text.parse()
                        .map_err(|e| Status::invalid_argument(format!("machine {:?}: network: {e}", machine.name)))?,
                ),
            };
            Ok::<_, Status>(MachineRow {
                name: machine.name,
                profile: profile_or_machine(machine.profile),
                sans: canonical(machine.sans),
                holder: machine.holder,
                key_sha256: machine.key_sha256,
                network,
                ..MachineRow::default()
            })
        };
        let machines = request.machines.into_iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = machines.iter().map(|m| m.name.clone()).collect();
        let command = PutMachines { machines, keep: request.keep };
        self.change(caller, "put machines", Action::PutMachines(command)).await?;
        let state = self.core.node.shared().read();
        let need_token = names.iter().filter(|name| state.needs_token(name)).count();
        Ok(v1::PutMachinesResponse { need_token: u32::try_from(need_token).unwrap_or(u32::MAX) })
    }

    pub(super) async fn do_list_machines(
        &self,
        _caller: &Caller,
        request: v1::ListMachinesRequest,
    ) -> Result<v1::ListMachinesResponse, Status> {
        let (wanted, now_ms) = (request.contains.to_lowercase(), self.core.now_ms());
        let fits = move |key: &String, row: &MachineRow| {
            !row.removed
                && (!request.overdue_only || (row.due_ms != 0 && row.due_ms < now_ms))
                && (key.contains(&wanted) || row.holder.to_lowercase().contains(&wanted))
        };
        let (machines, next) = search(&self.core, (request.page_token, request.page_size), move |state, after, put| {
            let mut rows = state.machines.range((Bound::Excluded(after.clone()), Bound::Unbounded));
            rows.try_for_each(|(key, row)| put(key, fits(key, row).then(|| machine_info(state, row))))
        })
        .await?;
        Ok(v1::ListMachinesResponse { machines, next_page_token: next.unwrap_or_default() })
    }

    pub(super) async fn do_remove_machine(
        &self,
        caller: &Caller,
        request: v1::RemoveMachineRequest,
    ) -> Result<v1::RemoveMachineResponse, Status> {
        let command = RemoveMachine { key: request.name.to_lowercase() };
        self.change(caller, "remove machine", Action::RemoveMachine(command)).await?;
        Ok(v1::RemoveMachineResponse {})
    }

    pub(super) async fn do_list_requests(
        &self,
        _caller: &Caller,
        request: v1::ListRequestsRequest,
    ) -> Result<v1::ListRequestsResponse, Status> {
        let after = number_token(&request.page_token, 10)?.unwrap_or(0);
        let state = self.core.node.shared().read();
        let rows = state
            .requests
            .range((Bound::Excluded(after), Bound::Unbounded))
            .filter(|(_, row)| !request.waiting_only || row.state() == v1::RequestState::Waiting);
        let (rows, next_page_token) = page(rows, request.page_size, |(number, _)| number.to_string());
        let requests = rows.into_iter().map(|(number, row)| request_info(*number, row)).collect();
        Ok(v1::ListRequestsResponse { requests, next_page_token })
    }

    pub(super) async fn do_decide_request(
        &self,
        caller: &Caller,
        request: v1::DecideRequestRequest,
    ) -> Result<v1::DecideRequestResponse, Status> {
        if request.holder.len() > MAX_TEXT {
            return Err(Status::invalid_argument("holder: at most 256 bytes"));
        }
        let number = request.number;
        let (decided_by, approve) = (caller.name.clone(), request.approve);
        let command = match approve {
            true => {
                let (name, sans, holder) = (request.name, canonical(request.sans), request.holder);
                DecideRequest { number, approve, name, sans, decided_by, holder }
            }
            // Nobody has looked at the names, and nothing becomes of them.
            false => DecideRequest { number, approve, decided_by, ..DecideRequest::default() },
        };
        self.change(caller, "decide on a request", Action::DecideRequest(command)).await?;
        let state = self.core.node.shared().read();
        Ok(v1::DecideRequestResponse { request: state.requests.get(&number).map(|row| request_info(number, row)) })
    }

    pub(super) async fn do_list_profiles(
        &self,
        _caller: &Caller,
        _request: v1::ListProfilesRequest,
    ) -> Result<v1::ListProfilesResponse, Status> {
        let state = self.core.node.shared().read();
        Ok(v1::ListProfilesResponse {
            profiles: Profile::ALL.into_iter().map(|p| profile_info(p, state.profile(p))).collect(),
        })
    }

    pub(super) async fn do_set_profile(
        &self,
        caller: &Caller,
        request: v1::SetProfileRequest,
    ) -> Result<v1::SetProfileResponse, Status> {
        let wanted = request.profile.ok_or_else(|| Status::invalid_argument("the profile is missing"))?;
        let operators = i32::from(v1::EnrollMethod::Operator);
        let by_operators = wanted.methods.contains(&operators);
        let named = profile_named(&wanted.name).map(|(profile, _)| profile);
        let issuable = named.is_some_and(|profile| ISSUABLE.contains(&profile));
        let now = named.map(|profile| profile_info(profile, self.core.node.shared().read().profile(profile)));
        // Whoever asks for others must not believe that he has them; what was read may come back.
        if now.is_some_and(|now| {
            !wanted.extended_key_usages.is_empty() && wanted.extended_key_usages != now.extended_key_usages
        }) {
            return Err(Status::invalid_argument(format!(
                "the extended key usages of the profile {} are fixed",
                wanted.name
            )));
        }
        if by_operators && !issuable {
            return Err(Status::invalid_argument(format!(
                "certificates of the profile {} are not made for operators",
                wanted.name
            )));
        }
        // A row of an earlier level cannot say that operators are shut out.
        let can_say = self.core.node.shared().read().level() >= RULES_LEVEL;
        let row = ProfileRow {
            no_addresses: wanted.no_addresses,
            not_by_operators: issuable && !by_operators && can_say,
            version: wanted.version,
            validity_s: wanted.validity_s,
            keys: wanted.keys,
            overdue_percent: wanted.overdue_percent,
            late_renewal_s: wanted.late_renewal_s,
            methods: wanted.methods.into_iter().filter(|method| *method != operators).collect(),
            name_suffixes: wanted.name_suffixes,
            server_keys: wanted.server_keys,
        };
        let command = SetProfile { name: wanted.name.clone(), profile: Some(row) };
        self.change(caller, "set profile", Action::SetProfile(command)).await?;
        let state = self.core.node.shared().read();
        let profile = profile_named(&wanted.name).map(|(p, _)| profile_info(p, state.profile(p)));
        Ok(v1::SetProfileResponse { profile })
    }
}
