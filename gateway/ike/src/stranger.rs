//! What is said to strangers and about them: within limits, so that a flood costs little and tells little.

use std::net::SocketAddr;

use sallyport_base::{Instant, PeerId};

use crate::endpoint::Endpoint;
use crate::error::{Phase, Refusal, RefusalKind};
use crate::header::{Cookie, ExchangeType, Header, flags};
use crate::message::assemble;
use crate::output::{Event, Output};
use crate::payload::{ChainWriter, Notify, NotifyType, PayloadType, ProtocolId};

/// First messages that were refused, so that their repetitions are not refused anew. The oldest makes room.
const MAX_REFUSED: usize = 1_024;

/// Unauthenticated error notifications in a burst, and per second thereafter: they answer strangers.
pub(crate) const NOTIFY_BURST: u32 = 100;
pub(crate) const NOTIFY_RATE: u32 = 50;

/// Characters of a claimed identity that are reported.
const MAX_NAME: usize = 256;

/// Refusals of one authenticated peer that follow each other more closely count as those of a stranger.
const PEER_REFUSAL_PAUSE: core::time::Duration = core::time::Duration::from_secs(1);

impl Endpoint {
    /// Says something in the clear to a stranger, within limits. Gives the message if it was sent.
    pub(crate) fn notify_stranger(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        cookies: (Cookie, Cookie),
        what: NotifyType,
    ) -> Option<Vec<u8>> {
        if !self.notify_gate.take(now) {
            return None;
        }
        let mid = self.new_message_id();
        let mut chain = ChainWriter::new();
        let notify = Notify::new(ProtocolId::ISAKMP, what, &[], &[]);
        chain.payload(PayloadType::NOTIFY, |w| notify.emit(w));
        let message = assemble(Header::v1(cookies.0, cookies.1, ExchangeType::INFORMATIONAL_V1, mid), &chain);
        self.transmit(local, remote, core::slice::from_ref(&message));
        Some(message)
    }

    /// Reports a failed attempt. Those of strangers are limited in rate; what is left out is counted.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        phase: Phase,
        kind: RefusalKind,
        (local, remote): (SocketAddr, SocketAddr),
        identity: Option<String>,
        peer: Option<PeerId>,
        cause: String,
        remedy: String,
    ) {
        // An authenticated peer can be held to account, but not without end.
        let known = match peer.and_then(|p| self.peers.get_mut(&p)) {
            Some(p) => {
                let recent = p.last_refusal.is_some_and(|at| now.since(at) < PEER_REFUSAL_PAUSE);
                if !recent {
                    p.last_refusal = Some(now);
                }
                !recent
            }
            // A claimed identity proves nothing; it only keeps these apart from a flood of first messages.
            None => identity.is_some() && self.named_gate.take(now),
        };
        if known || self.may_refuse_stranger(now) {
            self.report(phase, kind, (local, remote), identity, peer, cause, remedy);
        }
    }

    /// Whether a refusal of a stranger is reported, or only counted: ask before the words are made.
    pub(crate) fn may_refuse_stranger(&mut self, now: Instant) -> bool {
        let may = self.refusal_gate.take(now);
        if !may {
            self.suppressed += 1;
            self.stats.refusals_suppressed += 1;
        }
        may
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn report(
        &mut self,
        phase: Phase,
        kind: RefusalKind,
        (local, remote): (SocketAddr, SocketAddr),
        identity: Option<String>,
        peer: Option<PeerId>,
        cause: String,
        remedy: String,
    ) {
        self.stats.refusals += 1;
        let suppressed = core::mem::take(&mut self.suppressed);
        let identity = identity.map(|name| name.chars().take(MAX_NAME).collect());
        let refusal = Refusal { phase, kind, local, remote, identity, peer, cause, remedy, suppressed };
        self.output.push_back(Output::Event(Event::Refused(Box::new(refusal))));
    }

    /// Remembers a first message that was refused, and what was said.
    pub(crate) fn remember_refused(&mut self, remote: SocketAddr, cky_i: Cookie, reply: Option<Vec<u8>>) {
        if self.refused_order.len() >= MAX_REFUSED
            && let Some(oldest) = self.refused_order.pop_front()
        {
            self.refused.remove(&oldest);
        }
        if self.refused.insert((remote, cky_i), reply.unwrap_or_default()).is_none() {
            self.refused_order.push_back((remote, cky_i));
        }
    }

    /// Whether a first message was refused before; says it again within limits.
    pub(crate) fn refused_before(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        cky_i: Cookie,
    ) -> bool {
        let Some(reply) = self.refused.get(&(remote, cky_i)).cloned() else { return false };
        self.stats.repeated += 1;
        if !reply.is_empty() && self.notify_gate.take(now) {
            self.transmit(local, remote, &[reply]);
        }
        true
    }

    /// Somebody speaks IKEv2 (RFC 7296 §2.5 lets us say which version we have, in its own format).
    pub(crate) fn ikev2(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, header: &Header) {
        self.stats.ikev2 += 1;
        let request = header.flags & flags::RESPONSE == 0;
        if header.exchange != ExchangeType::IKE_SA_INIT || !header.cky_r.is_zero() || !request {
            return;
        }
        if self.refused_before(now, local, remote, header.cky_i) {
            return;
        }
        let cookies = (header.cky_i, self.new_cookie());
        let reply = self.notify_stranger(now, local, remote, cookies, NotifyType::INVALID_MAJOR_VERSION);
        self.remember_refused(remote, header.cky_i, reply);
        self.refuse(
            now,
            Phase::Other,
            RefusalKind::NotSpoken,
            (local, remote),
            None,
            None,
            "the client speaks IKEv2, this gateway IKEv1 with L2TP".into(),
            "set the client's VPN type to L2TP/IPsec (Windows: not \"Automatic\" or \"IKEv2\")".into(),
        );
    }

    pub(crate) fn aggressive(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, header: &Header) {
        self.stats.not_spoken += 1;
        if self.refused_before(now, local, remote, header.cky_i) {
            return;
        }
        let cookies = (header.cky_i, self.new_cookie());
        let reply = self.notify_stranger(now, local, remote, cookies, NotifyType::UNSUPPORTED_EXCHANGE_TYPE);
        self.remember_refused(remote, header.cky_i, reply);
        self.refuse(
            now,
            Phase::Other,
            RefusalKind::NotSpoken,
            (local, remote),
            None,
            None,
            "the client asks for aggressive mode, which shows its identity to everybody and its pre-shared key to a guesser".into(),
            "empty the group name (Apple) or IPsec identifier (Android) in the client's settings: it then uses main mode".into(),
        );
    }
}
