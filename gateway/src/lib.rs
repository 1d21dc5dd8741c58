//! The gateway: terminates IPsec, L2TP and PPP in user space for a controller that decides.
//!
//! Two planes that meet in `link` only: the control plane (one task that owns every state machine and asks the
//! controller) and the data plane (threads that move packets and never wait for the former).

pub mod config;
pub mod data;
pub mod link;
pub mod net;
