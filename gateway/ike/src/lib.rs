//! IKEv1 (RFC 2407, 2408, 2409, 3706, 3947, 4754, 4945, 5903) as a state machine without I/O: responder and initiator.
//!
//! The shell owns sockets, clocks, threads and keys; an [`Endpoint`] owns the protocol:
//!
//! ```text
//! loop {
//!     while let Some(output) = endpoint.poll_output() {
//!         match output {
//!             Output::Transmit { local, remote, bytes } => socket.send(...),   // marker in front on port 4500
//!             Output::Keepalive { local, remote } => socket.send(&[0xff]),
//!             Output::Job { id, job } => pool.run(id, job),                    // answer comes back later
//!             Output::Event(event) => ...
//!         }
//!     }
//!     wait for a datagram, an answer, or endpoint.poll_timeout();
//!     endpoint.handle_datagram(...) / handle_answer(...) / handle_timeout(...)
//! }
//! ```
//!
//! Slow work (Diffie-Hellman, signatures) and decisions (certificates, pre-shared keys) are [`Job`]s, so that a flood
//! of handshakes never holds up the peers that are up. Nothing asymmetric is computed for a peer that has not shown
//! that it receives what we send.
//!
//! [`Message::parse`] reads any message in the clear, of IKEv1 and IKEv2, for tools that decode captures.

pub mod config;
mod embryonic;
mod endpoint;
pub mod error;
mod fragment;
pub mod header;
mod message;
mod nat;
pub mod output;
pub mod payload;
pub mod proposal;
mod queue;
mod shared;
mod stats;
mod stranger;
pub mod timer;
mod v1;

pub use config::{Config, Credential, CredentialId, Limits};
pub use endpoint::{Connect, ConnectAuth, Endpoint, Gauges};
pub use error::{Phase, Refusal, RefusalKind};
pub use header::{Cookie, ExchangeType, Header};
pub use message::Message;
pub use output::{
    Answer, ChildSa, DownReason, Event, Job, JobId, Output, PeerUp, Role, Verified, Verify, VerifyRefusal,
};
pub use payload::{CertEncoding, IdType, Identification};
pub use proposal::{AuthMethod, Phase1Transform};
pub use stats::Stats;
