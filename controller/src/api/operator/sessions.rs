//! Sessions, gateways, and the audit.

use std::net::Ipv4Addr;
use std::ops::Bound;

use sallyport_proto::v1;
use tonic::Status;

use super::super::caller::Caller;
use super::super::convert::{number_token, page, session_text, source};
use super::super::live::LEASE_MS;
use super::OperatorService;
use crate::auth::user_key;
use crate::soft::Signs;
use crate::state::{Action, GatewayRow, KillSession, RemoveGateway, SessionRow, SetGatewayNames, State};

/// Shortest beginning of a session id that names a session.
const MIN_PREFIX: usize = 4;
/// Longest reason for a kill, bytes.
const MAX_REASON: usize = 256;
/// Attempts looked at for one page: a filter that matches little must not hold the state for long.
const MAX_SCAN: usize = 100_000;

fn session(state: &State, signs: &Signs, id: u64, row: &SessionRow) -> v1::SessionInfo {
    let signs = signs.sessions.get(&id).cloned().unwrap_or_default();
    let up = if row.up_ms == 0 { v1::SessionState::Authorized } else { v1::SessionState::Up };
    v1::SessionInfo {
        session_id: session_text(id),
        state: up.into(),
        user: state.users.get(&row.user).map_or_else(|| row.user.clone(), |u| u.name.clone()),
        address: Ipv4Addr::from(row.address).to_string(),
        pool: row.pool.clone(),
        gateway: state.gateways.get(&row.slot).map(|g| g.name.clone()).unwrap_or_default(),
        remote: if signs.remote.is_empty() { row.remote.clone() } else { signs.remote },
        machine: row.machine.clone(),
        tunnel: row.tunnel.clone(),
        auth_method: row.method,
        created_unix_ms: row.created_ms,
        up_unix_ms: row.up_ms,
        counters: Some(signs.counters),
        counters_unix_ms: signs.counters_unix_ms,
    }
}

impl OperatorService {
    pub(super) async fn do_list_sessions(
        &self,
        _caller: &Caller,
        request: v1::ListSessionsRequest,
    ) -> Result<v1::ListSessionsResponse, Status> {
        let after = number_token(&request.page_token, 16)?.unwrap_or(0);
        let state = self.core.node.shared().read();
        let signs = self.core.soft.lock();
        let user = user_key(&request.user).1;
        let slot = match request.gateway.as_str() {
            "" => None,
            name => Some(
                state
                    .slot_of_gateway(name)
                    .ok_or_else(|| Status::not_found(format!("there is no gateway {name:?}")))?,
            ),
        };
        let rows = state
            .sessions
            .range((Bound::Excluded(after), Bound::Unbounded))
            .filter(|(_, s)| user.is_empty() || s.user == user)
            .filter(|(_, s)| slot.is_none_or(|slot| s.slot == slot));
        let (rows, next_page_token) = page(rows, request.page_size, |(id, _)| session_text(**id));
        let sessions = rows.into_iter().map(|(id, row)| session(&state, &signs, *id, row)).collect();
        Ok(v1::ListSessionsResponse { sessions, next_page_token })
    }

    pub(super) async fn do_kill_session(
        &self,
        caller: &Caller,
        request: v1::KillSessionRequest,
    ) -> Result<v1::KillSessionResponse, Status> {
        if request.reason.len() > MAX_REASON {
            return Err(Status::invalid_argument(format!("reason: at most {MAX_REASON} bytes")));
        }
        let id = self.find_session(&request.session_id)?;
        let text = if request.reason.is_empty() { "killed by an operator".into() } else { request.reason };
        let command = KillSession { session_id: id, text };
        self.change(caller, "kill session", Action::KillSession(command)).await?;
        Ok(v1::KillSessionResponse { session_id: session_text(id) })
    }

    fn find_session(&self, text: &str) -> Result<u64, Status> {
        let digits = text.to_ascii_lowercase();
        let fits = (MIN_PREFIX..=16).contains(&digits.len());
        let (Ok(prefix), true) = (u64::from_str_radix(&digits, 16), fits) else {
            return Err(Status::invalid_argument("session_id: 4 to 16 hexadecimal digits, as session list shows them"));
        };
        let free_bits = 4 * (16 - digits.len());
        let first = prefix << free_bits;
        let last = first | ((1_u64 << free_bits) - 1);
        let state = self.core.node.shared().read();
        let mut found = state.sessions.range(first..=last).map(|(id, _)| *id);
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(Status::not_found(format!("no session's id begins with {text:?}"))),
            (Some(_), Some(_)) => {
                Err(Status::failed_precondition(format!("more than one session's id begins with {text:?}")))
            }
        }
    }

    fn gateway(&self, state: &State, signs: &Signs, slot: u32, row: &GatewayRow) -> v1::GatewayInfo {
        let now = self.core.clock.monotonic_ms();
        let witness = self.core.audit.witnesses.of(slot, row.epoch);
        let trouble = witness.as_ref().and_then(|seen| seen.trouble);
        let signs = signs.gateways.get(&slot).copied().filter(|g| g.epoch == row.epoch).unwrap_or_default();
        let timeout = u64::from(self.core.config.gateways.timeout_ms);
        let live = self.core.live.held(slot, row.epoch, now);
        v1::GatewayInfo {
            slot,
            name: row.name.clone(),
            epoch: row.epoch,
            version: row.version.clone(),
            addresses: row.addresses.clone(),
            last_seen_unix_ms: signs.seen_unix_ms,
            alive: !row.lost && signs.seen_unix_ms != 0 && now.saturating_sub(signs.seen_ms) <= timeout,
            sessions: u32::try_from(state.sessions_of_slot(slot)).unwrap_or(u32::MAX),
            reported_sessions: signs.live_sessions,
            draining: signs.draining,
            registered_unix_ms: row.registered_ms,
            half_open: signs.half_open,
            current: live.is_some_and(|held| u64::from(held.age_ms) < LEASE_MS),
            live,
            log_size: witness.map_or(0, |seen| seen.head.head.size),
            log_alarm: trouble.filter(|t| t.is_evidence()).map(|trouble| trouble.text().to_owned()).unwrap_or_default(),
            public_names: state.gateway_identity(&row.name).map(|i| i.names.clone()).unwrap_or_default(),
            certificate_not_after_unix_ms: state.gateway_not_after(&row.name).unwrap_or(0),
        }
    }

    pub(super) async fn do_list_gateways(
        &self,
        _caller: &Caller,
        request: v1::ListGatewaysRequest,
    ) -> Result<v1::ListGatewaysResponse, Status> {
        let after = u32::try_from(number_token(&request.page_token, 10)?.unwrap_or(0)).unwrap_or(u32::MAX);
        let state = self.core.node.shared().read();
        let signs = self.core.soft.lock();
        let rows = state.gateways.range((Bound::Excluded(after), Bound::Unbounded));
        let (rows, next_page_token) = page(rows, request.page_size, |(slot, _)| slot.to_string());
        let gateways = rows.into_iter().map(|(slot, row)| self.gateway(&state, &signs, *slot, row)).collect();
        Ok(v1::ListGatewaysResponse { gateways, next_page_token })
    }

    pub(super) async fn do_set_gateway_names(
        &self,
        caller: &Caller,
        request: v1::SetGatewayNamesRequest,
    ) -> Result<v1::SetGatewayNamesResponse, Status> {
        let command = SetGatewayNames { name: request.name, names: request.public_names };
        self.change(caller, "set a gateway's names", Action::SetGatewayNames(command)).await?;
        Ok(v1::SetGatewayNamesResponse {})
    }

    pub(super) async fn do_remove_gateway(
        &self,
        caller: &Caller,
        request: v1::RemoveGatewayRequest,
    ) -> Result<v1::RemoveGatewayResponse, Status> {
        let command = Action::RemoveGateway(RemoveGateway { name: request.name });
        let done = self.change(caller, "remove gateway", command).await?;
        Ok(v1::RemoveGatewayResponse { ended_sessions: done.ended_sessions })
    }

    pub(super) async fn do_list_attempts(
        &self,
        _caller: &Caller,
        request: v1::ListAttemptsRequest,
    ) -> Result<v1::ListAttemptsResponse, Status> {
        let before = number_token(&request.page_token, 10)?.unwrap_or(u64::MAX);
        let filter = Filter::new(&request);
        let state = self.core.node.shared().read();
        let size = super::super::convert::page_size(request.limit);
        let (mut attempts, mut next) = (Vec::new(), None);
        for (looked_at, (number, attempt)) in state.attempts.range(..before).rev().enumerate() {
            if attempts.len() == size || looked_at == MAX_SCAN {
                // `number` was not looked at: the next page begins with it.
                next = Some(number + 1);
                break;
            }
            if filter.fits(attempt) {
                attempts.push(attempt.clone());
            }
        }
        let next_page_token = next.map(|n| n.to_string()).unwrap_or_default();
        Ok(v1::ListAttemptsResponse { attempts, next_page_token })
    }
}

/// Which attempts are wanted.
struct Filter<'a> {
    request: &'a v1::ListAttemptsRequest,
    user: String,
    identity: String,
}

impl<'a> Filter<'a> {
    fn new(request: &'a v1::ListAttemptsRequest) -> Self {
        Self { request, user: user_key(&request.user).1, identity: request.identity.to_lowercase() }
    }

    fn fits(&self, attempt: &v1::Attempt) -> bool {
        let request = self.request;
        let user = self.user.is_empty() || user_key(&attempt.user).1 == self.user;
        let remote = request.remote.is_empty()
            || attempt.remote == request.remote
            || request.remote.parse().is_ok_and(|wanted| source(&attempt.remote) == Some(wanted));
        let machine = attempt.machine.as_ref().map_or("", |m| m.name.as_str());
        let identity = self.identity.is_empty()
            || machine.to_lowercase().contains(&self.identity)
            || attempt.claimed_identity.to_lowercase().contains(&self.identity);
        let since = attempt.time_unix_ms >= request.since_unix_ms;
        user && remote && identity && since && (!request.failed_only || failed(attempt))
    }
}

/// Whether something went wrong that nobody wanted.
fn failed(attempt: &v1::Attempt) -> bool {
    use v1::EndReason as End;
    match attempt.outcome() {
        v1::Outcome::Accepted => false,
        v1::Outcome::Ended => {
            matches!(attempt.end_reason(), End::PeerSilent | End::GatewayLost | End::ProtocolError | End::Unspecified)
        }
        v1::Outcome::Refused | v1::Outcome::Abandoned | v1::Outcome::Unspecified => true,
    }
}
