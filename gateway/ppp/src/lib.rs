//! PPP as a state machine without I/O: LCP, PAP, CHAP-MD5, MS-CHAPv2 and IPCP, as the authenticator and as the peer.
//!
//! One [`Link`] runs on each L2TP session. Drive it like this: hand received control frames to
//! [`Link::handle_frame`], call [`Link::handle_timeout`] when [`Link::poll_timeout`] says so, and after each call drain
//! [`Link::poll_output`]. IPv4 packets never pass through it: the data path takes the header off with
//! [`strip`](frame::strip) and hands the link whatever is not protocol 0x0021.

pub mod auth;
pub mod automaton;
pub mod config;
pub mod decode;
pub mod frame;
mod ipcp;
mod lcp;
mod link;
mod mss;
mod negotiate;
pub mod option;
pub mod output;
pub mod packet;
mod stats;
mod terminate;
pub mod timer;

pub use config::{AuthMethod, ClientConfig, LinkConfig, Password, ServerConfig};
pub use frame::{IPV4_HEADER, IPV4_HEADER_ACFC, MAX_HEADER_LEN, Protocol, strip};
pub use link::Link;
pub use mss::clamp_mss;
pub use output::{
    Accept, Answer, AuthProof, AuthRequest, CloseReason, DownReason, Event, LcpUp, NetworkUp, Output, Phase,
    QuestionId, Refusal, Reject,
};
pub use stats::Stats;
pub use terminate::{terminate_reason, windows_error};

/// The part of a user name that MS-CHAPv2 hashes: what stands behind the last backslash (RFC 2759 §8.2 leaves out the
/// domain).
pub fn user_part(user: &str) -> &str {
    sallyport_crypto::mschap::name_without_domain(user)
}
