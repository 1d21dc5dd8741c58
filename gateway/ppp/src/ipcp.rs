//! The options of IPCP (RFC 1332, RFC 1877), for either role.

use core::net::Ipv4Addr;

use crate::negotiate::{Impasse, Options, Verdict};
use crate::option::{IpcpKind, IpcpOption};
use crate::output::Accept;
use crate::packet::ConfigOption;

#[derive(Debug)]
pub(crate) struct Ipcp {
    kind: Kind,
    /// Whether we still name our address in our request.
    name_address: bool,
}

#[derive(Debug)]
enum Kind {
    Server(Server),
    Client(Client),
}

#[derive(Debug)]
struct Server {
    local: Ipv4Addr,
    peer: Ipv4Addr,
    dns: [Option<Ipv4Addr>; 2],
    nbns: [Option<Ipv4Addr>; 2],
}

#[derive(Debug)]
struct Client {
    local: Ipv4Addr,
    /// The server's own address, as it names it.
    peer: Ipv4Addr,
    /// `None` is not asked for (any more).
    dns: [Option<Ipv4Addr>; 2],
}

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

impl Ipcp {
    pub(crate) const fn server(accept: &Accept) -> Self {
        let server = Server { local: accept.local, peer: accept.peer, dns: accept.dns, nbns: accept.nbns };
        Self { kind: Kind::Server(server), name_address: true }
    }

    pub(crate) const fn client(request_dns: bool) -> Self {
        let dns = if request_dns { [Some(NONE); 2] } else { [None; 2] };
        Self { kind: Kind::Client(Client { local: NONE, peer: NONE, dns }), name_address: true }
    }

    /// Our address and the peer's.
    pub(crate) const fn addresses(&self) -> (Ipv4Addr, Ipv4Addr) {
        match &self.kind {
            Kind::Server(s) => (s.local, s.peer),
            Kind::Client(c) => (c.local, c.peer),
        }
    }

    /// Client: the name servers that we were given.
    pub(crate) fn dns(&self) -> [Option<Ipv4Addr>; 2] {
        match &self.kind {
            Kind::Server(_) => [None; 2],
            Kind::Client(c) => c.dns.map(|dns| dns.filter(|dns| *dns != NONE)),
        }
    }
}

impl Server {
    /// The value of one of the options 129 to 132.
    fn name_server(&self, kind: IpcpKind) -> Option<Ipv4Addr> {
        match kind {
            IpcpKind::DNS1 => self.dns[0],
            IpcpKind::DNS2 => self.dns[1],
            IpcpKind::NBNS1 => self.nbns[0],
            IpcpKind::NBNS2 => self.nbns[1],
            _ => None,
        }
    }

    fn judge(&self, options: &[ConfigOption], exhausted: bool) -> Verdict {
        let (mut naks, mut rejects) = (Vec::new(), Vec::new());
        let mut asked = None;
        for raw in options {
            match IpcpOption::parse(raw) {
                IpcpOption::Address(address) => {
                    asked = Some(address);
                    if address != self.peer {
                        naks.push(IpcpOption::Address(self.peer).to_option());
                    }
                }
                IpcpOption::Server(kind, address) => match self.name_server(kind) {
                    Some(ours) if ours == address => {}
                    Some(ours) => naks.push(IpcpOption::Server(kind, ours).to_option()),
                    // Without a value, a Nak with 0 would make the client ask for ever.
                    None => rejects.push(raw.clone()),
                },
                IpcpOption::Other(_) => rejects.push(raw.clone()),
            }
        }
        if !rejects.is_empty() {
            return Verdict::Reject(rejects);
        }
        if asked.is_none() {
            // A Nak may name an option that the client left out (RFC 1661 §5.3).
            naks.push(IpcpOption::Address(self.peer).to_option());
        }
        if naks.is_empty() {
            return Verdict::Ack;
        }
        if !exhausted {
            return Verdict::Nak(naks);
        }
        if asked == Some(self.peer) {
            // Only name servers are in dispute: then without them.
            let disputed: Vec<u8> = naks.iter().map(|option| option.kind).collect();
            return Verdict::Reject(options.iter().filter(|option| disputed.contains(&option.kind)).cloned().collect());
        }
        let insists = match asked {
            Some(address) => format!("the client insists on the address {address} instead of {}", self.peer),
            None => "the client will not take an address".into(),
        };
        Verdict::Impasse(Impasse::new(
            insists,
            "set the client to obtain its address automatically, or give the user this address as a static one",
        ))
    }
}

impl Options for Ipcp {
    fn restart(&mut self) {
        self.name_address = true;
    }

    fn request(&self) -> Vec<ConfigOption> {
        let address = |address| IpcpOption::Address(address).to_option();
        match &self.kind {
            Kind::Server(s) => self.name_address.then(|| address(s.local)).into_iter().collect(),
            Kind::Client(c) => {
                let [dns1, dns2] = c.dns;
                let all = [
                    self.name_address.then_some(IpcpOption::Address(c.local)),
                    dns1.map(|dns| IpcpOption::Server(IpcpKind::DNS1, dns)),
                    dns2.map(|dns| IpcpOption::Server(IpcpKind::DNS2, dns)),
                ];
                all.iter().flatten().map(IpcpOption::to_option).collect()
            }
        }
    }

    fn judge(&mut self, options: &[ConfigOption], exhausted: bool) -> Verdict {
        let client = match &mut self.kind {
            Kind::Server(server) => return server.judge(options, exhausted),
            Kind::Client(client) => client,
        };
        let mut rejects = Vec::new();
        for raw in options {
            match IpcpOption::parse(raw) {
                IpcpOption::Address(address) => client.peer = address,
                _ => rejects.push(raw.clone()),
            }
        }
        if rejects.is_empty() { Verdict::Ack } else { Verdict::Reject(rejects) }
    }

    fn handle_nak(&mut self, options: &[ConfigOption]) -> Result<(), Impasse> {
        // As a server we do not change our address for a client's taste; the negotiation counts how often it asks.
        let Kind::Client(client) = &mut self.kind else { return Ok(()) };
        for raw in options {
            match IpcpOption::parse(raw) {
                IpcpOption::Address(address) => client.local = address,
                IpcpOption::Server(IpcpKind::DNS1, dns) => client.dns[0] = client.dns[0].map(|_| dns),
                IpcpOption::Server(IpcpKind::DNS2, dns) => client.dns[1] = client.dns[1].map(|_| dns),
                _ => {}
            }
        }
        Ok(())
    }

    fn handle_reject(&mut self, options: &[ConfigOption]) -> Result<(), Impasse> {
        for raw in options {
            match (IpcpOption::parse(raw), &mut self.kind) {
                // A client need not know our address.
                (IpcpOption::Address(_), Kind::Server(_)) => self.name_address = false,
                (IpcpOption::Address(_), Kind::Client(_)) => {
                    return Err(Impasse::new("the server gives no address", "set up an address pool at the server"));
                }
                (IpcpOption::Server(IpcpKind::DNS1, _), Kind::Client(client)) => client.dns[0] = None,
                (IpcpOption::Server(IpcpKind::DNS2, _), Kind::Client(client)) => client.dns[1] = None,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
