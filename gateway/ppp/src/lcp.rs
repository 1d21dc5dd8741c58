//! The options of LCP (RFC 1661 §6), for either role.

use sallyport_crypto::Rng;

use crate::config::AuthMethod;
use crate::negotiate::{Impasse, Options, Verdict};
use crate::option::{LcpOption, auth_name};
use crate::packet::ConfigOption;
use crate::timer;

/// The MRU of a peer that names none.
pub(crate) const STANDARD_MRU: u16 = 1500;

/// Which end of the link negotiates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Asks the peer to authenticate.
    Server,
    /// Is asked.
    Client,
}

#[derive(Debug)]
pub(crate) struct Lcp {
    role: Role,
    methods: Vec<AuthMethod>,
    rng: Rng,
    config_mru: u16,
    // What we ask for; `None` and `false` once the peer rejects it.
    mru: Option<u16>,
    magic: Option<u32>,
    pfc: bool,
    acfc: bool,
    /// Server: the method that is on offer.
    offer: Option<AuthMethod>,
    /// Server: the methods that the client refused by a Nak.
    refused: Vec<AuthMethod>,
    /// What the client asked for instead, in words.
    wanted: Option<String>,
    loops: u8,
    peer: Granted,
}

/// What we grant the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Granted {
    mru: u16,
    magic: u32,
    pfc: bool,
    acfc: bool,
    /// Client: the method that the server demands.
    method: Option<AuthMethod>,
}

const NOTHING: Granted = Granted { mru: STANDARD_MRU, magic: 0, pfc: false, acfc: false, method: None };

impl Lcp {
    pub(crate) fn new(role: Role, methods: Vec<AuthMethod>, mru: u16, rng: Rng) -> Self {
        let mut lcp = Self {
            role,
            methods,
            rng,
            config_mru: mru,
            mru: None,
            magic: None,
            pfc: false,
            acfc: false,
            offer: None,
            refused: Vec::new(),
            wanted: None,
            loops: 0,
            peer: NOTHING,
        };
        lcp.restart();
        lcp
    }

    /// The largest packet that the peer may send.
    pub(crate) fn local_mru(&self) -> u16 {
        self.mru.unwrap_or(STANDARD_MRU)
    }

    /// The largest packet that we may send.
    pub(crate) const fn peer_mru(&self) -> u16 {
        self.peer.mru
    }

    /// Our magic number, 0 if the peer wants none.
    pub(crate) fn magic(&self) -> u32 {
        self.magic.unwrap_or(0)
    }

    pub(crate) const fn pfc(&self) -> bool {
        self.peer.pfc
    }

    pub(crate) const fn acfc(&self) -> bool {
        self.peer.acfc
    }

    /// How the client is to authenticate.
    pub(crate) const fn method(&self) -> Option<AuthMethod> {
        match self.role {
            Role::Server => self.offer,
            Role::Client => self.peer.method,
        }
    }

    fn fresh_magic(&mut self) -> u32 {
        self.rng.u32().max(1)
    }

    fn looped(&mut self) -> Result<(), Impasse> {
        self.loops += 1;
        if self.loops > timer::MAX_LOOPS {
            return Err(Impasse::new(
                "the link is looped back: each packet that arrives is our own",
                "look for a tunnel that ends at its own beginning",
            ));
        }
        self.magic = Some(self.fresh_magic());
        Ok(())
    }

    fn allowed(&self) -> String {
        self.methods.iter().map(|method| method.name()).collect::<Vec<_>>().join(", ")
    }

    /// Server: the client wants another method than the one on offer.
    fn next_method(&mut self, suggestions: &[(Option<AuthMethod>, String)]) -> Result<(), Impasse> {
        self.refused.extend(self.offer);
        self.wanted = suggestions.first().map(|(_, name)| name.clone()).or(self.wanted.take());
        let suggested = suggestions.iter().filter_map(|(method, _)| *method);
        let usable = |method: &AuthMethod| self.methods.contains(method) && !self.refused.contains(method);
        let own = self.methods.iter().copied();
        self.offer = suggested.chain(own).find(usable);
        match self.offer {
            Some(_) => Ok(()),
            None => {
                let wanted = self.wanted.as_deref().unwrap_or("something else");
                Err(Impasse::new(
                    format!(
                        "no common authentication method: the client asks for {wanted}; allowed here: {}",
                        self.allowed()
                    ),
                    "allow the client's method at the gateway, or turn on one of the gateway's methods at the client \
                     (Windows: VPN properties, Security, \"Allow these protocols\")",
                ))
            }
        }
    }

    /// Client: whether we authenticate as the server demands.
    fn judge_method(&mut self, option: &LcpOption, reply: &mut Reply) {
        let LcpOption::Auth(protocol, data) = option else { return };
        match AuthMethod::from_lcp_option(*protocol, data).filter(|method| self.methods.contains(method)) {
            Some(method) => self.peer.method = Some(method),
            None => {
                self.wanted = Some(auth_name(*protocol, data));
                match self.methods.first() {
                    Some(method) => reply.naks.push(method.to_lcp_option().to_option()),
                    None => reply.rejects.push(option.to_option()),
                }
            }
        }
    }
}

#[derive(Default)]
struct Reply {
    naks: Vec<ConfigOption>,
    rejects: Vec<ConfigOption>,
}

impl Options for Lcp {
    fn restart(&mut self) {
        self.mru = Some(self.config_mru);
        self.magic = Some(self.fresh_magic());
        (self.pfc, self.acfc) = (true, true);
        self.offer = self.methods.first().copied().filter(|_| self.role == Role::Server);
        self.refused.clear();
        self.loops = 0;
        self.peer = NOTHING;
    }

    fn request(&self) -> Vec<ConfigOption> {
        let offer = self.offer.map(AuthMethod::to_lcp_option);
        let all = [
            self.mru.map(LcpOption::Mru),
            offer,
            self.magic.map(LcpOption::Magic),
            self.pfc.then_some(LcpOption::Pfc),
            self.acfc.then_some(LcpOption::Acfc),
        ];
        all.iter().flatten().map(LcpOption::to_option).collect()
    }

    fn judge(&mut self, options: &[ConfigOption], exhausted: bool) -> Verdict {
        self.peer = NOTHING;
        let mut reply = Reply::default();
        // A loop is looked for first, since a request of our own is full of what we would reject.
        let ours = self.magic.map(|magic| LcpOption::Magic(magic).to_option());
        let looped = options.iter().any(|option| Some(option) == ours.as_ref());
        if looped && let Err(impasse) = self.looped() {
            return Verdict::Impasse(impasse);
        }
        for raw in options {
            let option = LcpOption::parse(raw);
            match option {
                LcpOption::Mru(mru) if mru >= timer::MIN_MRU => self.peer.mru = mru,
                LcpOption::Mru(_) => reply.naks.push(LcpOption::Mru(timer::MIN_MRU).to_option()),
                LcpOption::Accm(_) => {}
                LcpOption::Magic(magic) if magic != 0 && Some(raw) != ours.as_ref() => self.peer.magic = magic,
                LcpOption::Magic(_) => {
                    let other = self.fresh_magic();
                    reply.naks.push(LcpOption::Magic(other).to_option());
                }
                LcpOption::Pfc => self.peer.pfc = true,
                LcpOption::Acfc => self.peer.acfc = true,
                LcpOption::Auth(..) if self.role == Role::Client => self.judge_method(&option, &mut reply),
                // Callback, multilink and all else in one Configure-Reject: Windows and XP then ask without them. A
                // client's demand that *we* authenticate is among these.
                _ => reply.rejects.push(raw.clone()),
            }
        }
        if !reply.rejects.is_empty() && !looped {
            return Verdict::Reject(reply.rejects);
        }
        if reply.naks.is_empty() {
            return Verdict::Ack;
        }
        if exhausted && self.role == Role::Client && self.peer.method.is_none() && self.wanted.is_some() {
            let wanted = self.wanted.as_deref().unwrap_or_default();
            return Verdict::Impasse(Impasse::new(
                format!(
                    "no common authentication method: the server asks for {wanted}; allowed here: {}",
                    self.allowed()
                ),
                "allow the server's method at the client, or another one at the server",
            ));
        }
        if exhausted {
            let refused: Vec<u8> = reply.naks.iter().map(|option| option.kind).collect();
            return Verdict::Reject(options.iter().filter(|option| refused.contains(&option.kind)).cloned().collect());
        }
        Verdict::Nak(reply.naks)
    }

    fn handle_nak(&mut self, options: &[ConfigOption]) -> Result<(), Impasse> {
        let mut methods = Vec::new();
        for raw in options {
            match LcpOption::parse(raw) {
                // A lower value suits us; a higher one we do not promise, and rather leave the option out.
                LcpOption::Mru(mru) => {
                    self.mru = self.mru.filter(|ours| mru < *ours && mru >= timer::MIN_MRU).map(|_| mru)
                }
                LcpOption::Magic(_) => self.looped()?,
                LcpOption::Auth(protocol, data) => {
                    methods.push((AuthMethod::from_lcp_option(protocol, &data), auth_name(protocol, &data)));
                }
                LcpOption::Pfc => self.pfc = false,
                LcpOption::Acfc => self.acfc = false,
                _ => {} // Suggestions of what we might ask for, too: no.
            }
        }
        if self.role == Role::Server && !methods.is_empty() { self.next_method(&methods) } else { Ok(()) }
    }

    fn handle_reject(&mut self, options: &[ConfigOption]) -> Result<(), Impasse> {
        for raw in options {
            match LcpOption::parse(raw) {
                LcpOption::Mru(_) => self.mru = None,
                LcpOption::Magic(_) => self.magic = None,
                LcpOption::Pfc => self.pfc = false,
                LcpOption::Acfc => self.acfc = false,
                LcpOption::Auth(..) if self.role == Role::Server => {
                    return Err(Impasse::new(
                        "the client refuses to authenticate",
                        "set a user name and password at the client",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
