//! One session: an L2TP session, its PPP link, and what the controller said about it.

use std::net::Ipv4Addr;
use std::time::Duration;

use sallyport_base::Instant;
use sallyport_l2tp::SessionInfo;
use sallyport_ppp::output::mschap_error;
use sallyport_ppp::{Accept, Answer, AuthProof, AuthRequest, Link, QuestionId, Reject};
use sallyport_proto::v1;

use super::audit::Who;
use crate::link::{SessionCounters, SessionNetwork};

/// A session from ICCN to CDN.
pub struct Session {
    /// Its L2TP side.
    pub info: SessionInfo,
    /// Its PPP side.
    pub link: Link,
    /// Who it is, for records.
    pub who: Who,
    /// The question to the controller that is open, and the id under which it is asked.
    pub asked: Option<(u64, QuestionId)>,
    /// The id of the last question: the controller recorded its answer under it.
    pub last_request: Option<[u8; 16]>,
    /// What LCP agreed on, for the data plane.
    pub lcp: (bool, bool),
    /// The controller's session, once accepted.
    pub accepted: Option<Accepted>,
    /// Whether IPCP is open.
    pub up: bool,
    /// Counters as last heard from the data plane.
    pub counters: SessionCounters,
    /// When the next report is due.
    pub next_report: Option<Instant>,
    /// When it was reported last.
    pub last_report: Option<Instant>,
    /// Why L2TP or IKE ended it, if they did.
    pub ended_below: Option<(v1::EndReason, String)>,
    /// Whether the link has said everything and the session is to be dropped.
    pub finished: bool,
}

/// What the controller gave.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The session's name at the controllers.
    pub session_id: String,
    /// The client's address.
    pub address: Ipv4Addr,
    /// Ours.
    pub router: Ipv4Addr,
}

impl Session {
    /// A session whose client has said nothing yet.
    pub fn new(info: SessionInfo, link: Link, who: Who) -> Self {
        let counters = SessionCounters {
            local_tunnel: info.local_tunnel,
            local_session: info.local_session,
            ..SessionCounters::default()
        };
        Self {
            info,
            link,
            who,
            asked: None,
            last_request: None,
            lcp: (false, false),
            accepted: None,
            up: false,
            counters,
            next_report: None,
            last_report: None,
            ended_below: None,
            finished: false,
        }
    }

    /// What the data plane must know once IPCP is open.
    pub fn network(&self, up: &sallyport_ppp::NetworkUp) -> SessionNetwork {
        SessionNetwork {
            opened: true,
            client: up.peer,
            router: up.local,
            mtu: up.mtu,
            pfc: self.lcp.0,
            acfc: self.lcp.1,
            default_route: false,
        }
    }

    /// A report of this session, if the controllers know it.
    pub fn report(&self, state: v1::SessionState, now_ms: u64) -> Option<v1::SessionReport> {
        let accepted = self.accepted.as_ref()?;
        Some(v1::SessionReport {
            session_id: accepted.session_id.clone(),
            state: state.into(),
            counters: Some(v1::Counters {
                rx_bytes: self.counters.bytes_in,
                tx_bytes: self.counters.bytes_out,
                rx_packets: self.counters.packets_in,
                tx_packets: self.counters.packets_out,
                dropped: 0,
            }),
            remote: self.who.remote.clone(),
            end_reason: v1::EndReason::Unspecified.into(),
            end_text: String::new(),
            time_unix_ms: now_ms,
        })
    }
}

/// The question to the controller.
pub fn question(
    session: &Session,
    local: &str,
    esp_suite: &str,
    request: AuthRequest,
    request_id: [u8; 16],
) -> v1::AuthenticateRequest {
    use v1::authenticate_request::Method;
    let method = match request.method {
        AuthProof::Pap { password } => {
            Method::Pap(v1::Pap { password: Some(v1::Secret { value: password.as_bytes().to_vec() }) })
        }
        AuthProof::ChapMd5 { identifier, challenge, response } => Method::ChapMd5(v1::ChapMd5 {
            identifier: identifier.into(),
            challenge: challenge.to_vec(),
            response: response.to_vec(),
        }),
        AuthProof::MsChapV2 { identifier, authenticator_challenge, peer_challenge, nt_response, flags: _ } => {
            Method::Mschapv2(v1::MsChapV2 {
                authenticator_challenge: authenticator_challenge.to_vec(),
                peer_challenge: peer_challenge.to_vec(),
                nt_response: nt_response.to_vec(),
                identifier: identifier.into(),
            })
        }
    };
    v1::AuthenticateRequest {
        member: None,
        request_id: request_id.to_vec(),
        user: request.user,
        method: Some(method),
        session_key: (u64::from(session.info.local_tunnel) << 16) | u64::from(session.info.local_session),
        remote: session.who.remote.clone(),
        machine: session.who.machine.clone(),
        tunnel: Some(v1::TunnelInfo {
            local: local.into(),
            host_name: session.info.host_name.clone(),
            tunnel_id: session.info.local_tunnel.into(),
            session_id: session.info.local_session.into(),
            esp_suite: esp_suite.into(),
        }),
    }
}

/// The controller's decision as PPP takes it, and what the session keeps of it.
pub fn answer(
    decision: Result<v1::authenticate_response::Decision, String>,
) -> (Answer, Option<Accepted>, Option<String>) {
    use v1::authenticate_response::Decision;
    match decision {
        Ok(Decision::Accept(accept)) => match accepted(&accept) {
            Ok((answer, kept)) => (Answer::Accept(answer), Some(kept), None),
            // The session exists at the controllers and must be given back.
            Err(cause) => (unavailable(cause), None, Some(accept.session_id)),
        },
        Ok(Decision::Reject(reject)) => (
            Answer::Reject(Reject {
                error: reject.error_code,
                retry: reject.retry,
                message: reject.message,
                cause: reject.cause,
                remedy: reject.remedy,
            }),
            None,
            None,
        ),
        Err(cause) => (unavailable(cause), None, None),
    }
}

fn unavailable(cause: String) -> Answer {
    Answer::Reject(Reject {
        error: mschap_error::NO_DIALIN_PERMISSION,
        retry: false,
        message: "The VPN service cannot decide right now; try again later".into(),
        cause: format!("nobody decided whether this user may in: {cause}"),
        remedy: super::audit::CONTROLLERS_AWAY.into(),
    })
}

/// The answer to a machine that asks too often.
pub fn too_many() -> Answer {
    Answer::Reject(Reject {
        error: mschap_error::AUTHENTICATION_FAILURE,
        retry: false,
        message: "too many attempts; try again later".into(),
        cause: "this machine tries users and passwords faster than people type; the controllers were not asked".into(),
        remedy: "check the saved password on the machine; if nobody mistyped, somebody guesses passwords on it".into(),
    })
}

fn accepted(accept: &v1::Accept) -> Result<(Accept, Accepted), String> {
    let lease = accept.lease.as_ref().ok_or("the controller gave no lease")?;
    let v4 = |text: &str| text.parse::<Ipv4Addr>().map_err(|_| format!("the controller gave the address {text:?}"));
    let two = |list: &[String]| -> Result<[Option<Ipv4Addr>; 2], String> {
        // IPCP carries IPv4 servers, two of them (RFC 1877); others are of no use to this link.
        let mut found = list.iter().filter_map(|a| a.parse::<Ipv4Addr>().ok());
        Ok([found.next(), found.next()])
    };
    let (peer, local) = (v4(&lease.address)?, v4(&lease.router)?);
    let seconds = |s: u32| (s > 0).then(|| Duration::from_secs(s.into()));
    Ok((
        Accept {
            authenticator_response: Some(accept.authenticator_response.clone()).filter(|s| !s.is_empty()),
            message: accept.message.clone(),
            local,
            peer,
            dns: two(&lease.dns)?,
            nbns: two(&lease.nbns)?,
            idle_timeout: seconds(accept.idle_timeout_s),
            session_timeout: seconds(accept.session_timeout_s),
        },
        Accepted { session_id: accept.session_id.clone(), address: peer, router: local },
    ))
}
