//! The operator's nouns: one file each, all of them clients of the controller's gRPC.

pub(crate) mod attempt;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod ca;
mod ca_rollover;
mod ca_root;
pub(crate) mod cert;
mod cert_profile;
mod cert_show;
pub(crate) mod cluster;
mod connection;
pub(crate) mod gateway;
pub(crate) mod identity_files;
pub(crate) mod machine;
mod names;
pub(crate) mod operators;
pub(crate) mod pool;
pub(crate) mod psk;
mod renewal;
pub(crate) mod request;
mod revoke;
mod revoked;
pub(crate) mod session;
pub(crate) mod setting;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod user;

pub(crate) use connection::{Connection, refused};
pub(crate) use names::unix;

use crate::cli::Global;
use crate::error::{Error, Exit, Result};
use crate::output::Printer;

/// What an operator command works with.
pub(crate) struct Context {
    /// How to print.
    pub(crate) printer: Printer,
    /// Whom to ask.
    pub(crate) connection: Connection,
}

impl Context {
    /// Finds the controller and the operator's identity and connects.
    pub(crate) async fn open(global: &Global) -> Result<Self> {
        Ok(Self { printer: Printer::new(global.output), connection: Connection::open(global).await? })
    }
}

/// Records asked for in one call; the contract allows 1,000.
const PAGE: u32 = 500;
/// Records that one list prints at most, so that a mistyped filter cannot fill memory; more needs a filter.
const MOST: usize = 100_000;

/// Gathers all pages of a list.
async fn pages<T, F>(mut page: F) -> Result<Vec<T>>
where
    F: AsyncFnMut(String) -> Result<(Vec<T>, String)>,
{
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (mut items, next) = page(token).await?;
        all.append(&mut items);
        if next.is_empty() {
            return Ok(all);
        }
        if all.len() >= MOST {
            return Err(
                Error::new(Exit::Failed, format!("more than {MOST} records")).remedy("narrow the list by a filter")
            );
        }
        token = next;
    }
}
