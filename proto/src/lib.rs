//! The gRPC contract between gateways, controllers and operators.
//!
//! The `.proto` files under `sallyport/v1` are the source; this crate holds what is generated from them, the little
//! that a message with a secret needs, and the way to several controllers ([`dial`], [`failover`]), and
//! what carries a connection in messages ([`carry`]), and what proves that somebody holds a key ([`possession`]). See the comments at the head of
//! `types.proto` for the conventions.

/// Version 1 of the contract.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated code; tests/documented.rs checks that each message and field carries a comment"
)]
pub mod v1 {
    tonic::include_proto!("sallyport.v1");
}

pub mod carry;
pub mod dial;
pub mod failover;
pub mod possession;
mod secret;

/// Largest message either side accepts, bytes: 1,000 reports or attempts with long texts stay below it.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// The DNS name in every controller's certificate: what gateways and operators ask TLS to verify, whatever address they
/// dialled. (Which controller it is, is in the certificate's other names.)
pub const CONTROLLER_NAME: &str = "controller.sallyport.internal";
