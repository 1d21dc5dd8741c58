//! The group of controllers: how a node becomes a member, how members reach each other, who takes part.
//!
//! | file | what |
//! |---|---|
//! | `token` | what an operator carries from a member to a node that shall join |
//! | `member` | the file that says which member a node is |
//! | `join` | the side of the node that joins, or comes back without its store |
//! | `admit` | the side of the leader that takes it in |
//! | `links` | mutual TLS to other members |
//! | `known` | whether who answers at a member's address is a member |
//! | `trust` | the same where the state cannot tell |
//! | `removal` | whether this node was removed, by what the others say |
//! | `pass` | how members know each other where a certificate does not tell |
//! | `keeper` | the leader's duty: Raft's membership follows the rows of the state |
//! | `status` | what the members say of themselves |
//! | `lead` | handing the lead over |

pub(crate) mod admit;
pub(crate) mod join;
pub(crate) mod keeper;
mod known;
pub(crate) mod lead;
pub(crate) mod links;
pub(crate) mod member;
pub(crate) mod pass;
pub(crate) mod removal;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod trust;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::app::Core;
use crate::config::Config;
use crate::error::Error;

/// What a start on an empty state folder shall do.
#[derive(Clone, Debug, Default)]
pub enum Formation {
    /// Nothing: the folder must hold a state.
    #[default]
    Existing,
    /// Make a cluster.
    Found,
    /// Join one.
    Join {
        /// HOST:PORT of members.
        addresses: Vec<String>,
        /// The token's text.
        token: zeroize::Zeroizing<String>,
        /// Receive the log without voting.
        learner: bool,
    },
}

/// From now on, whoever answers at a member's address must be a member by the state of this node.
pub(crate) fn know_servers(core: &Arc<Core>) {
    let (core_of_links, faces) = (Arc::downgrade(core), known::Faces::default());
    core.links.judge_by(Arc::new(move |certificate| match core_of_links.upgrade() {
        Some(core) => known::judge(&core, &faces, certificate),
        None => Err("this controller stops".into()),
    }));
    let core_of_links = Arc::downgrade(core);
    core.links.removal().decided_by(Arc::new(move || {
        core_of_links.upgrade().map(|core| removal::Electorate::of(&core.node)).unwrap_or_default()
    }));
}

/// HOST:PORT under which others reach this node: as configured, or where it listens.
pub(crate) fn advertised(config: &Config, listening: SocketAddr) -> Result<String, Error> {
    if !config.advertise.is_empty() {
        return Ok(config.advertise.clone());
    }
    if listening.ip().is_unspecified() {
        return Err(Error::Config(format!(
            "controller.listen is {listening}, which is every address of this machine: say in controller.advertise under which one \
             other controllers reach it, such as \"10.0.0.5:{}\"",
            listening.port()
        )));
    }
    Ok(listening.to_string())
}

/// Where a program on this machine reaches something that listens at `address`.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

/// Whether only programs on the same machine reach an address.
pub(crate) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
