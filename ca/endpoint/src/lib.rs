//! The enrollment endpoint as machines see it: EST (RFC 7030, RFC 8951), SCEP (RFC 8894), CA certificates, revocation lists,
//! OCSP (RFC 6960) and a page for people, over HTTPS and plain HTTP.
//!
//! [`serve`] speaks over any stream, so it does not matter whether a connection came to a controller or through a gateway.
//! Nothing is decided here: who gets a certificate is asked of an [`Office`]. What is here is the face to strangers: TLS,
//! HTTP, and [`Limits`] on whatever they can make us hold or do.

#![allow(clippy::result_large_err, reason = "the error is an answer, and there is one a request")]

mod answer;
mod clock;
mod conditional;
mod counts;
mod est;
mod limits;
mod listener;
mod office;
mod page;
mod public;
mod route;
mod scep;
mod serve;
mod tls;

pub use clock::Clock;
pub use counts::{Counts, Limit, Outcome, Service};
pub use hyper::body::Bytes;
pub use limits::Limits;
pub use listener::listen;
pub use office::{Answer, Crl, Enrollment, Office, Proof, Protocol, ScepAnswer};
pub use route::{Est, Route};
pub use serve::{Arrival, Endpoint, Kind, serve};

/// Why the endpoint cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The certificate or its key cannot be used.
    #[error("the endpoint's certificate cannot be used: {0}; a new one is made at the next start")]
    Certificate(String),
}
