//! Stand-ins for the types of `sallyport_esp`, until that crate has them.

/// What we receive with.
#[derive(Debug)]
pub struct InboundSa;

/// What we send with.
#[derive(Debug)]
pub struct OutboundSa;
