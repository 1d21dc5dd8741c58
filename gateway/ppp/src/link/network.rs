//! The network phase of a link: IPCP (RFC 1332).

use super::*;
use crate::automaton;
use crate::terminate::terminate_reason;

impl Link {
    pub(super) fn start_ipcp(&mut self, now: Instant, options: Ipcp) {
        let config = self.link_config();
        let mut ipcp = Negotiation::new(options, config);
        self.timers.set(Timer::Phase, now + config.network_timeout);
        self.phase = Phase::Ipcp;
        ipcp.open(now, Duration::ZERO);
        self.ipcp = Some(ipcp);
        if let Some(packet) = self.held_ipcp.take() {
            self.handle_ipcp(now, &packet);
        }
    }

    pub(super) fn accepted(&mut self, now: Instant, accept: &Accept) {
        self.idle_timeout = accept.idle_timeout;
        if let Some(timeout) = accept.session_timeout {
            self.timers.set(Timer::Session, now + timeout);
        }
        self.start_ipcp(now, Ipcp::server(accept));
    }

    pub(super) fn handle_ipcp(&mut self, now: Instant, payload: &[u8]) {
        let Ok(packet) = ControlPacket::parse(payload) else {
            self.stats.malformed += 1;
            return;
        };
        if self.down {
            return;
        }
        let Some(ipcp) = &mut self.ipcp else {
            // Too early: kept, and answered once authentication is. A Terminate-Ack would cost Windows two seconds.
            if packet.code == Code::CONFIGURE_REQUEST.0 {
                self.held_ipcp = Some(payload.to_vec());
            }
            return;
        };
        match ipcp.handle_packet(now, packet) {
            Ok(true) => {}
            Ok(false) => ipcp.unknown_code(now, packet),
            Err(_) => self.stats.malformed += 1,
        }
    }

    pub(super) fn handle_ipcp_signal(&mut self, now: Instant, signal: Signal) {
        match signal {
            Signal::Send(packet) => self.send(Protocol::IPCP, &packet),
            Signal::Up => self.ipcp_up(now),
            // The client asks again with the link up: data go on meanwhile, and the address cannot change.
            Signal::Down => {
                let timeout = self.link_config().network_timeout;
                self.timers.set(Timer::Phase, now + timeout);
            }
            Signal::TerminateRequested(data) => {
                let text = terminate_reason(&data).unwrap_or_else(|| "no reason given".into());
                self.refuse(now, format!("{} ended IPCP: {text}", self.peer()), "see its own log");
            }
            Signal::Finished(automaton::Event::RxjMinus) => {
                let remedy = "turn on the Internet protocol (TCP/IPv4) for the client's connection";
                self.refuse(now, format!("{} rejects IPCP", self.peer()), remedy);
            }
            Signal::Finished(_) => {
                let remedy = "see its own log; look for packet loss";
                self.refuse(now, format!("{} does not answer IPCP", self.peer()), remedy);
            }
            Signal::Impasse(impasse) => self.refuse(now, impasse.cause, impasse.remedy),
        }
    }

    fn ipcp_up(&mut self, now: Instant) {
        self.timers.cancel(Timer::Phase);
        let Some(ipcp) = self.ipcp.as_ref().filter(|_| !self.network_up && !self.down) else { return };
        let (local, peer) = ipcp.options.addresses();
        if local.is_unspecified() || (peer.is_unspecified() && matches!(self.config, Config::Server(_))) {
            let whose = if local.is_unspecified() { "our" } else { "the client's" };
            return self.refuse(now, format!("IPCP ended without {whose} address"), "set up an address pool");
        }
        let lcp = &self.lcp.options;
        let up = NetworkUp {
            local,
            peer,
            dns: ipcp.options.dns(),
            mtu: lcp.peer_mru().min(self.link_config().mru),
            ipv4_header: if lcp.acfc() { IPV4_HEADER_ACFC } else { IPV4_HEADER },
        };
        self.network_up = true;
        self.data_at = now;
        if let Some(idle) = self.idle_timeout {
            self.timers.set(Timer::Idle, now + idle);
        }
        self.event(Event::NetworkUp(up));
    }
}
