//! How a machine gets its certificate and keeps it.
//!
//! * [`enroll`] gets the first certificate by a token, by the machine list or by an operator's approval, [`renew`] the next ones by
//!   the present one (EST, RFC 7030). The root is known by its fingerprint before any secret is said; what an answer holds is checked before anything on disk changes.
//! * [`Folder`] keeps keys and certificates so that a crash at any point loses nothing and mixes nothing up.
//! * [`install`] puts them where strongSwan, libreswan and NetworkManager look for them; [`profile`] makes files for other systems.
//!
//! Nothing here reads a clock or a random source of its own, prints, or runs a command: [`Surroundings`] and
//! [`install::Host`] do.

mod chain;
mod enroll;
mod error;
mod est;
mod files;
mod folder;
mod http;
pub mod install;
mod key;
pub mod profile;
mod renew;
mod server;
mod standing;
mod tls;
mod token;
mod waiting;

pub use chain::is_root;
pub use enroll::{Access, Progress, Request, Surroundings, enroll};
pub use error::{Error, Kind, Result};
pub use folder::{Folder, Identity, Settings};
pub use key::{FileKey, KeyStore};
pub use renew::{Outcome, due, renew};
pub use server::Server;
pub use standing::revoked_since;
pub use token::{TokenKey, TokenPlace};
pub use waiting::{Waiting, parse_fingerprint};
