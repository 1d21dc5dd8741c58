//! The authenticated end: says who it is, and in MS-CHAPv2 checks that the server knows the password, too.

use std::collections::VecDeque;

use core::time::Duration;

use sallyport_base::Instant;
use sallyport_crypto::{Rng, mschap};

use super::{Chap, MsChapFailure, MsChapV2Response, Pap, error_words, printable};
use crate::config::{AuthMethod, ClientConfig, Password};
use crate::frame::Protocol;
use crate::packet::ControlPacket;

/// What the authenticated end tells its link.
#[derive(Debug)]
pub(crate) enum Signal {
    Send(Protocol, Vec<u8>),
    Accepted,
    Refused { cause: String, remedy: &'static str },
}

#[derive(Debug)]
pub(crate) struct Supplicant {
    method: AuthMethod,
    user: String,
    password: Password,
    rng: Rng,
    done: bool,
    identifier: u8,
    /// The server's last challenge, and our own.
    challenge: Vec<u8>,
    peer_challenge: [u8; 16],
    /// What we sent last, to be sent again when nothing comes back. It may hold the password.
    last: Option<Password>,
    interval: Duration,
    resends: u8,
    deadline: Option<Instant>,
    signals: VecDeque<Signal>,
    pub(crate) retransmissions: u64,
}

impl Supplicant {
    pub(crate) fn new(now: Instant, method: AuthMethod, config: &ClientConfig, rng: Rng) -> Self {
        let mut this = Self {
            method,
            user: config.user.clone(),
            password: config.password.clone(),
            rng,
            done: false,
            identifier: 1,
            challenge: Vec::new(),
            peer_challenge: [0; 16],
            last: None,
            interval: config.link.restart,
            resends: config.link.max_configure,
            deadline: None,
            signals: VecDeque::new(),
            retransmissions: 0,
        };
        if method == AuthMethod::Pap {
            let request = Pap::Request { user: this.user.clone().into_bytes(), password: this.password.clone() };
            this.send(now, request.emit(this.identifier));
        }
        this
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn poll_signal(&mut self) -> Option<Signal> {
        self.signals.pop_front()
    }

    const fn protocol(&self) -> Protocol {
        match self.method {
            AuthMethod::Pap => Protocol::PAP,
            AuthMethod::ChapMd5 | AuthMethod::MsChapV2 => Protocol::CHAP,
        }
    }

    fn send(&mut self, now: Instant, packet: Vec<u8>) {
        self.last = Some(Password::new(packet.as_slice()));
        self.signals.push_back(Signal::Send(self.protocol(), packet));
        self.deadline = Some(now + self.interval);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|at| at > now) {
            return;
        }
        self.deadline = None;
        if self.resends == 0 {
            return; // The link's own limit for authentication ends it.
        }
        self.resends -= 1;
        if let Some(packet) = self.last.take() {
            self.retransmissions += 1;
            self.send(now, packet.as_bytes().to_vec());
        }
    }

    pub(crate) fn handle_packet(&mut self, now: Instant, packet: ControlPacket<'_>) {
        if self.method == AuthMethod::Pap {
            if packet.identifier != self.identifier || self.done {
                return;
            }
            match Pap::parse(&packet) {
                Ok(Pap::Ack(_)) => self.accepted(),
                Ok(Pap::Nak(text)) => self.refused(&format!("the server refused the password: {}", printable(&text))),
                Ok(Pap::Request { .. }) | Err(_) => {}
            }
            return;
        }
        match Chap::parse(&packet) {
            Ok(Chap::Challenge { value, .. }) => self.respond(now, packet.identifier, value),
            Ok(Chap::Success(text)) if !self.done && self.last.is_some() && packet.identifier == self.identifier => {
                self.succeed(&text);
            }
            Ok(Chap::Failure(text)) if !self.done && packet.identifier == self.identifier => {
                let words = if self.method == AuthMethod::MsChapV2 {
                    let failure = MsChapFailure::parse(&text);
                    let words = error_words(failure.error);
                    let message = Some(failure.message).filter(|m| !m.eq_ignore_ascii_case(words)).unwrap_or_default();
                    format!("{words} (error {}) {message}", failure.error)
                } else {
                    printable(&text)
                };
                self.refused(&format!("the server refused the user: {}", words.trim_end()));
            }
            _ => {}
        }
    }

    fn respond(&mut self, now: Instant, identifier: u8, challenge: Vec<u8>) {
        let again = identifier == self.identifier && challenge == self.challenge;
        if let Some(packet) = self.last.take().filter(|_| again) {
            return self.send(now, packet.as_bytes().to_vec());
        }
        self.identifier = identifier;
        self.challenge = challenge;
        let value = match (self.method, self.challenge.first_chunk::<16>()) {
            (AuthMethod::ChapMd5, _) => {
                mschap::chap_md5(identifier, self.password.as_bytes(), &self.challenge).to_vec()
            }
            (_, Some(challenge)) if self.challenge.len() == 16 => {
                let challenge = *challenge;
                self.peer_challenge = self.rng.bytes();
                let nt_response = mschap::nt_response(&challenge, &self.peer_challenge, self.name(), &self.nt_hash());
                MsChapV2Response { peer_challenge: self.peer_challenge, nt_response, flags: 0 }.emit()
            }
            _ => return, // Not a challenge of MS-CHAPv2.
        };
        let response = Chap::Response { value, name: self.user.clone().into_bytes() };
        self.send(now, response.emit(identifier));
    }

    fn name(&self) -> &str {
        crate::user_part(&self.user)
    }

    fn nt_hash(&self) -> mschap::NtHash {
        mschap::nt_password_hash(&String::from_utf8_lossy(self.password.as_bytes()))
    }

    fn succeed(&mut self, text: &[u8]) {
        if self.method == AuthMethod::MsChapV2 && !self.server_knows_the_password(text) {
            // RFC 2759 §5: a peer that cannot verify the response ends the session.
            return self.end(Signal::Refused {
                cause: "the server could not prove that it knows the password".into(),
                remedy: "this may be another server than the one meant: check its certificate and address",
            });
        }
        self.accepted();
    }

    fn server_knows_the_password(&self, text: &[u8]) -> bool {
        let text = String::from_utf8_lossy(text);
        let received = text.split_whitespace().next().unwrap_or_default();
        let Some(challenge) = self.challenge.first_chunk::<16>() else { return false };
        let hash = self.nt_hash();
        let nt_response = mschap::nt_response(challenge, &self.peer_challenge, self.name(), &hash);
        mschap::check_authenticator_response(
            &hash,
            &nt_response,
            &self.peer_challenge,
            challenge,
            self.name(),
            received,
        )
    }

    fn accepted(&mut self) {
        self.end(Signal::Accepted);
    }

    fn refused(&mut self, cause: &str) {
        self.end(Signal::Refused { cause: cause.into(), remedy: "check user name and password" });
    }

    fn end(&mut self, signal: Signal) {
        self.done = true;
        self.deadline = None;
        self.signals.push_back(signal);
    }
}
