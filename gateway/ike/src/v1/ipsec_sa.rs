//! An ESP SA pair, after quick mode.

use core::time::Duration;

use sallyport_base::{Instant, PeerId};
use sallyport_crypto::suite::EspSuite;

use crate::payload::Identification;

/// What the endpoint remembers of an ESP SA; its keys are with the data plane only.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub(crate) peer: PeerId,
    pub(crate) spi_out: u32,
    pub(crate) suite: EspSuite,
    pub(crate) installed: Instant,
    pub(crate) lifetime: Duration,
    /// A successor is up: this one only receives what is still on its way.
    pub(crate) replaced: bool,
    /// A successor is being negotiated by us.
    pub(crate) rekeying: bool,
    /// How often the data plane said that it is past its hard limit.
    pub(crate) overrun: u8,
    /// The identities of its quick mode, ours first.
    pub(crate) ids: Box<(Identification, Identification)>,
}
