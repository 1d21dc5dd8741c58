//! LCP beyond negotiation: echoes, identification, rejects, and the peer's Terminate-Request.

use super::*;
use crate::auth::printable;
use crate::terminate::terminate_reason;

/// An LCP Identification is told of so many times on one link: Windows sends three.
const MAX_IDENTIFICATIONS: u8 = 4;
/// A Protocol-Reject carries at most so much of what it rejects (RFC 1661 §5.7 asks to stay below the peer's MRU).
const MAX_REJECTED: usize = 512;

impl Link {
    pub(super) fn handle_lcp(&mut self, now: Instant, payload: &[u8]) {
        let Ok(packet) = ControlPacket::parse(payload) else {
            self.stats.malformed += 1;
            return;
        };
        match self.lcp.handle_packet(now, packet) {
            Ok(true) => return,
            Ok(false) => {}
            Err(_) => {
                self.stats.malformed += 1;
                return;
            }
        }
        match Code(packet.code) {
            Code::ECHO_REQUEST => self.echo_reply(packet),
            // Whatever arrives shows that the peer lives, so that a reply has done its work already. Discard-Request
            // asks for nothing, and Time-Remaining tells what we need not know.
            Code::ECHO_REPLY | Code::DISCARD_REQUEST | Code::TIME_REMAINING => {}
            Code::IDENTIFICATION => self.identified(packet.data),
            Code::PROTOCOL_REJECT => self.protocol_rejected(now, packet.data),
            _ => self.lcp.unknown_code(now, packet),
        }
    }

    /// The reply carries our magic number in place of the peer's, and the rest as it came (RFC 1661 §5.8).
    fn echo_reply(&mut self, packet: ControlPacket<'_>) {
        if !self.lcp.is_opened() || packet.data.len() < 4 {
            return;
        }
        let magic = self.lcp.options.magic();
        if magic != 0 && packet.data.starts_with(&magic.to_be_bytes()) {
            return; // Our own request: the link is looped back, and our misses will tell.
        }
        let mut data = packet.data.to_vec();
        data.iter_mut().zip(magic.to_be_bytes()).for_each(|(to, from)| *to = from);
        let reply = ControlPacket { code: Code::ECHO_REPLY.0, identifier: packet.identifier, data: &data };
        self.send(Protocol::LCP, &reply.emit());
    }

    pub(super) fn echo_due(&mut self, now: Instant) {
        let Some(interval) = self.link_config().echo_interval else { return };
        let due = self.heard_at + interval;
        if self.echo_misses == 0 && due > now {
            return self.timers.set(Timer::Echo, due);
        }
        if self.echo_misses >= self.link_config().echo_misses {
            let cause = format!("{} no longer answers LCP echo requests, in the phase {}", self.peer(), self.phase);
            let remedy = "it or its network is gone; it may connect again";
            // Nobody hears a Terminate-Request, but an unlucky client still might.
            return self.end(now, DownReason::EchoTimeout, cause, remedy, Some("no answer to echo requests"));
        }
        if self.echo_misses > 0 {
            self.stats.echo_misses += 1;
        }
        self.echo_misses += 1;
        self.echo_id = self.echo_id.wrapping_add(1);
        let magic = self.lcp.options.magic().to_be_bytes();
        let request = ControlPacket { code: Code::ECHO_REQUEST.0, identifier: self.echo_id, data: &magic };
        self.send(Protocol::LCP, &request.emit());
        self.timers.set(Timer::Echo, now + interval);
    }

    /// `| Magic-Number | Message ... |` (RFC 1570 §1.1). Windows' third is the octets of a GUID: never printed.
    fn identified(&mut self, data: &[u8]) {
        let text = printable(data.get(4..).unwrap_or_default());
        let readable = !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b));
        if readable && self.identifications < MAX_IDENTIFICATIONS {
            self.identifications += 1;
            self.event(Event::PeerIdentified(text));
        }
    }

    fn protocol_rejected(&mut self, now: Instant, data: &[u8]) {
        let Some(rejected) = data.first_chunk::<2>().map(|b| Protocol(u16::from_be_bytes(*b))) else { return };
        if !self.lcp.is_opened() {
            return; // RFC 1661 §5.7: only valid in Opened.
        }
        match rejected {
            Protocol::LCP => self.lcp.protocol_rejected(now),
            Protocol::IPCP => {
                if let Some(ipcp) = &mut self.ipcp {
                    ipcp.protocol_rejected(now);
                }
            }
            Protocol::PAP | Protocol::CHAP if self.phase == Phase::Authentication => {
                let cause = format!("{} rejects {rejected}, which it had agreed to", self.peer());
                self.refuse(now, cause, "its PPP is at fault: choose another authentication method");
            }
            _ => {}
        }
    }

    pub(super) fn reject_protocol(&mut self, protocol: Protocol, payload: &[u8]) {
        self.stats.protocol_rejects += 1;
        self.reject_id = self.reject_id.wrapping_add(1);
        let mut data = protocol.0.to_be_bytes().to_vec();
        data.extend_from_slice(payload.get(..MAX_REJECTED).unwrap_or(payload));
        let reject = ControlPacket { code: Code::PROTOCOL_REJECT.0, identifier: self.reject_id, data: &data };
        self.send(Protocol::LCP, &reject.emit());
    }

    pub(super) fn peer_terminates(&mut self, now: Instant, data: &[u8]) {
        let text = terminate_reason(data);
        let why = text.as_deref().unwrap_or("it gave no reason");
        let asking = matches!(&self.auth, Auth::Server(authenticator) if authenticator.is_asking());
        let (cause, remedy) = match (&self.last_failure, self.phase) {
            _ if asking => (
                format!("{} hung up before the controller had answered: {why}", self.peer()),
                "see that a controller is reachable from this gateway, and answers fast".into(),
            ),
            (Some((cause, remedy)), Phase::Authentication) => {
                (format!("{cause}; the client then hung up"), remedy.clone())
            }
            (_, phase) => (format!("{} hung up in the phase {phase}: {why}", self.peer()), "see its own log".into()),
        };
        // The automaton acknowledges. In Opened it needs no request of ours and sends none; before, it would go on.
        self.end(now, DownReason::PeerTerminated(text), cause, &remedy, Some("as the peer wished"));
    }
}
