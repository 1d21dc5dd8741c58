//! Identifiers that cross protocol crates.

use serde::{Deserialize, Serialize};

/// One IPsec peer of this process: the thing that survives a rekey of either phase.
///
/// IKE assigns it, ESP SAs, L2TP tunnels and PPP links hang on it. It is never an address: several clients share one
/// (client-visible NAT), and one client can change its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub u64);

impl core::fmt::Debug for PeerId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "peer#{}", self.0)
    }
}

impl core::fmt::Display for PeerId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}
