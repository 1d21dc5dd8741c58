//! The gateway: terminates IPsec, L2TP and PPP in user space for a controller that decides.
//!
//! Two planes that meet in [`link`] only: the control plane ([`control`], one task that owns every state machine and asks
//! the controllers) and the data plane ([`data`], threads that move packets and never wait for the former).

pub mod app;
pub mod clock;
pub mod config;
pub mod control;
pub mod data;
pub mod enrollment;
pub mod first;
pub mod folder;
pub mod identity;
pub mod link;
pub mod metrics;
pub mod net;
pub mod renewal;
