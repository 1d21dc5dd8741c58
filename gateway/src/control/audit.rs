//! One record per attempt: phase, cause, what to change.

use sallyport_proto::v1;

use crate::clock::Clock;

/// What to do where no controller decided.
pub const CONTROLLERS_AWAY: &str = "look at the controllers (`sallyport cluster status`) and at the network to them; tunnels \
    that are up go on meanwhile";

/// What is known of the one who tried; filled in as the attempt goes on.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// Outer address and port.
    pub remote: String,
    /// The proven machine.
    pub machine: Option<v1::MachineIdentity>,
    /// The claimed IKE identity.
    pub claimed_identity: String,
    /// The user name as sent.
    pub user: String,
}

/// A failed attempt as the contract writes it. `id` is the controller's request id where the controller has decided:
/// it then keeps one of the two records.
pub fn attempt(id: [u8; 16], who: &Who, phase: v1::Phase, cause: String, remedy: String) -> Box<v1::Attempt> {
    Box::new(v1::Attempt {
        id: id.to_vec(),
        time_unix_ms: Clock::unix_ms(),
        remote: who.remote.clone(),
        machine: who.machine.clone(),
        claimed_identity: who.claimed_identity.clone(),
        user: who.user.clone(),
        phase: phase.into(),
        outcome: v1::Outcome::Refused.into(),
        cause,
        remedy,
        ..v1::Attempt::default()
    })
}

/// The contract's name of a PPP phase.
pub const fn ppp_phase(phase: sallyport_ppp::Phase) -> v1::Phase {
    match phase {
        sallyport_ppp::Phase::Lcp => v1::Phase::Lcp,
        sallyport_ppp::Phase::Authentication => v1::Phase::Authentication,
        sallyport_ppp::Phase::Ipcp => v1::Phase::Ipcp,
    }
}

/// The contract's name of an L2TP phase.
pub const fn l2tp_phase(phase: sallyport_l2tp::Phase) -> v1::Phase {
    match phase {
        sallyport_l2tp::Phase::Tunnel => v1::Phase::L2tpTunnel,
        sallyport_l2tp::Phase::Session => v1::Phase::L2tpSession,
    }
}

/// Why a session is down, from the PPP link's reason.
pub const fn end_reason(reason: &sallyport_ppp::DownReason) -> v1::EndReason {
    use sallyport_ppp::{CloseReason, DownReason};
    match reason {
        DownReason::PeerTerminated(_) | DownReason::PeerRestarted => v1::EndReason::Client,
        DownReason::EchoTimeout => v1::EndReason::PeerSilent,
        DownReason::IdleTimeout => v1::EndReason::IdleTimeout,
        DownReason::SessionTimeout => v1::EndReason::SessionTimeout,
        DownReason::Closed(CloseReason::Operator) => v1::EndReason::Killed,
        DownReason::Closed(CloseReason::Revoked) => v1::EndReason::Revoked,
        DownReason::Closed(CloseReason::Shutdown) => v1::EndReason::GatewayShutdown,
        DownReason::Closed(CloseReason::LowerLayerDown | CloseReason::Replaced | CloseReason::User) => {
            v1::EndReason::Client
        }
        DownReason::Closed(CloseReason::Other(_)) | DownReason::Refused | DownReason::Ipcp(_) => {
            v1::EndReason::ProtocolError
        }
    }
}

/// Why a session is down that L2TP ended, or IKE below it: `ike` is there when the IPsec peer is gone.
pub fn end_below(
    l2tp: &sallyport_l2tp::DownReason,
    ike: Option<&sallyport_ike::DownReason>,
) -> (v1::EndReason, String) {
    use sallyport_ike::DownReason as Ike;
    use sallyport_l2tp::DownReason as L2tp;
    match (l2tp, ike) {
        (L2tp::PeerGone, Some(Ike::Expired)) => {
            let text = "the IPsec SAs came to the end of their life, and the client did not agree on new ones";
            (v1::EndReason::ProtocolError, text.into())
        }
        (L2tp::PeerGone, Some(Ike::PeerSilent)) => {
            (v1::EndReason::PeerSilent, "the client no longer answers (dead peer detection of IKE)".into())
        }
        (L2tp::PeerGone, Some(reason)) => (v1::EndReason::Client, format!("the IPsec connection ended: {reason}")),
        (L2tp::PeerSilent, _) => (v1::EndReason::PeerSilent, l2tp.to_string()),
        (L2tp::Local(_) | L2tp::SetupTimeout | L2tp::Empty, _) => (v1::EndReason::ProtocolError, l2tp.to_string()),
        (L2tp::PeerGone | L2tp::Replaced | L2tp::PeerEndedSession(_) | L2tp::PeerEndedTunnel(_), _) => {
            (v1::EndReason::Client, l2tp.to_string())
        }
    }
}
