//! What every protocol crate of the gateway shares: bytes to fields ([`Reader`]), fields to bytes ([`Writer`]),
//! numbers of the wire that keep values they do not know ([`wire_enum!`]), time and timers that a test can own
//! ([`Instant`], [`Timers`]), a limit of rates ([`Bucket`]), and the one decode error ([`DecodeError`]).
//!
//! Nothing here reads a clock, a socket or a random source.

mod bucket;
mod error;
mod id;
mod reader;
mod source;
mod time;
mod timer;
mod wire_enum;
mod writer;

pub use bucket::Bucket;
pub use error::DecodeError;
pub use id::PeerId;
pub use reader::Reader;
pub use source::Source;
pub use time::{Instant, UnixTime};
pub use timer::Timers;
pub use writer::{Mark, Writer};
