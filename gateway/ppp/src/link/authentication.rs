//! The authentication phase of a link (RFC 1661 §3.5).

use super::*;
use crate::auth::{client, server};
use crate::config::AuthMethod;

impl Link {
    pub(super) fn start_auth(&mut self, now: Instant, method: Option<AuthMethod>) {
        let rng = self.rng.fork();
        match (&self.config, method) {
            (Config::Server(config), Some(method)) => {
                let attempts = config.auth_attempts;
                let authenticator = Authenticator::new(now, method, &config.name, attempts, &config.link, rng);
                self.auth = Auth::Server(authenticator);
            }
            (Config::Server(_), None) => {
                // Only an empty list of methods leads here: nobody may in.
                self.refuse(now, "the gateway allows no authentication method", "configure at least one method");
            }
            (Config::Client(config), Some(method)) => {
                self.user = Some(config.user.clone());
                self.auth = Auth::Client(Supplicant::new(now, method, config, rng));
            }
            (Config::Client(_), None) => self.client_accepted(now, None),
        }
    }

    pub(super) fn handle_auth(&mut self, now: Instant, protocol: Protocol, payload: &[u8]) {
        let Ok(packet) = ControlPacket::parse(payload) else {
            self.stats.malformed += 1;
            return;
        };
        match &mut self.auth {
            Auth::Server(authenticator) if authenticator.protocol() == protocol => authenticator.handle_packet(packet),
            Auth::Client(supplicant) => supplicant.handle_packet(now, packet),
            Auth::Server(_) | Auth::None => self.stats.out_of_phase += 1,
        }
    }

    /// Carries one signal of the authentication; says whether there was one.
    pub(super) fn settle_auth(&mut self, now: Instant) -> bool {
        match &mut self.auth {
            Auth::None => return false,
            Auth::Server(authenticator) => match authenticator.poll_signal() {
                None => return false,
                Some(signal) => self.handle_server_signal(now, signal),
            },
            Auth::Client(supplicant) => match supplicant.poll_signal() {
                None => return false,
                Some(signal) => self.handle_client_signal(now, signal),
            },
        }
        true
    }

    fn handle_server_signal(&mut self, now: Instant, signal: server::Signal) {
        if let Auth::Server(authenticator) = &self.auth {
            self.user = authenticator.user().map(ToOwned::to_owned);
        }
        match signal {
            server::Signal::Send(protocol, packet) => self.send(protocol, &packet),
            server::Signal::Ask(request) => {
                self.question = QuestionId(self.question.0.wrapping_add(1));
                self.output.push_back(Output::Question(self.question, request));
            }
            server::Signal::Accepted(user, accept) => {
                self.event(Event::Authenticated { user, method: self.lcp.options.method() });
                self.accepted(now, &accept);
            }
            server::Signal::Retry { user, cause } => {
                self.last_failure = Some((cause.clone(), "check the password".into()));
                // A person has to type: the short timeouts do not apply (RFC 2759 §6).
                let timeout = self.link_config().auth_timeout;
                self.timers.set(Timer::Phase, now + timeout);
                self.event(Event::AuthenticationRetry { user, cause });
            }
            server::Signal::Refused { user, cause, remedy } => {
                self.user = user;
                self.end(now, DownReason::Refused, cause, &remedy, Some("authentication failed"));
            }
        }
    }

    fn handle_client_signal(&mut self, now: Instant, signal: client::Signal) {
        match signal {
            client::Signal::Send(protocol, packet) => self.send(protocol, &packet),
            client::Signal::Accepted => self.client_accepted(now, self.lcp.options.method()),
            client::Signal::Refused { cause, remedy } => {
                self.end(now, DownReason::Refused, cause, remedy, Some("authentication failed"));
            }
        }
    }

    fn client_accepted(&mut self, now: Instant, method: Option<AuthMethod>) {
        let Config::Client(config) = &self.config else { return };
        let (user, request_dns) = (config.user.clone(), config.request_dns);
        self.event(Event::Authenticated { user, method });
        self.start_ipcp(now, Ipcp::client(request_dns));
    }
}
