//! L2TPv2 (RFC 2661) as a state machine without I/O: LNS and LAC, control connection and incoming calls.
//!
//! One [`Endpoint`] holds all tunnels. Drive it like this: hand received control messages to
//! [`Endpoint::handle_control`], call [`Endpoint::handle_timeout`] when [`Endpoint::poll_timeout`] says so, and after
//! each call drain [`Endpoint::poll_output`]. Data messages never pass through it: the data path tells them apart with
//! [`Packet::is_control`](header::Packet::is_control) and reads their header with [`DataHeader::parse`].

pub mod avp;
pub mod config;
mod endpoint;
mod handle;
pub mod header;
pub mod message;
pub mod output;
mod reliable;
pub mod result;
mod stats;
pub mod timer;
mod tunnel;

pub use config::{Config, Limits, TunnelSecret};
pub use endpoint::{Endpoint, LimitReached, PORT};
pub use header::{ControlHeader, DataHeader, DataSequence, Packet};
pub use message::{ControlMessage, Message, MessageType};
pub use output::{
    DownReason, Event, Output, Phase, Refusal, SessionDown, SessionInfo, Transmit, TunnelDown, TunnelInfo,
};
pub use result::ResultCode;
pub use stats::Stats;
