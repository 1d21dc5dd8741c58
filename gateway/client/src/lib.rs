//! An L2TP/IPsec client out of the gateway's own machines, as initiator: for the demo, for tests and for load.
//!
//! [`Client`] does no I/O: it takes datagrams, inner packets and time, and gives datagrams, inner packets and events.
//! Unlike a gateway it carries out IKE's jobs itself, on the caller's thread. [`Driver`] gives it sockets and a device.

mod client;
mod driver;
mod settings;
mod tunnel;

pub use client::{Client, Event, Output, Phase};
pub use driver::{DriveError, Driver};
pub use settings::{Auth, Certificate, Settings, SettingsError};
