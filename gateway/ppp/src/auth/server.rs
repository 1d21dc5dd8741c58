//! The authenticator: asks the client who it is, and the controller whether it may.

use std::collections::VecDeque;

use core::time::Duration;

use sallyport_base::Instant;
use sallyport_crypto::Rng;

use super::{Chap, MAX_NAME_LEN, MsChapFailure, MsChapV2Response, Pap, error_words};
use crate::config::{AuthMethod, LinkConfig, Password};
use crate::frame::Protocol;
use crate::output::{Accept, Answer, AuthProof, AuthRequest, Reject};
use crate::packet::ControlPacket;

/// What the authenticator tells its link.
#[derive(Debug)]
pub(crate) enum Signal {
    Send(Protocol, Vec<u8>),
    Ask(AuthRequest),
    Accepted(String, Box<Accept>),
    /// A wrong password, and the client may try again.
    Retry {
        user: String,
        cause: String,
    },
    Refused {
        user: Option<String>,
        cause: String,
        remedy: String,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// PAP: the client speaks first. CHAP: the challenge is under way.
    Waiting,
    /// The controller is thinking.
    Asking,
    /// The client may try once more.
    Retrying,
    /// Decided, one way or the other.
    Decided,
}

#[derive(Debug)]
pub(crate) struct Authenticator {
    method: AuthMethod,
    name: String,
    state: State,
    rng: Rng,
    identifier: u8,
    challenge: [u8; 16],
    challenges_sent: u8,
    max_challenges: u8,
    interval: Duration,
    deadline: Option<Instant>,
    attempt: u8,
    max_attempts: u8,
    user: Option<String>,
    /// The content of the packet that the last question came from (it may be a password), and our reply to it once
    /// there is one: a client whose reply was lost sends the same again (RFC 1994 §4.2).
    last_request: Option<Password>,
    last_reply: Option<Vec<u8>>,
    signals: VecDeque<Signal>,
    pub(crate) retransmissions: u64,
    pub(crate) malformed: u64,
}

impl Authenticator {
    pub(crate) fn new(
        now: Instant,
        method: AuthMethod,
        name: &str,
        max_attempts: u8,
        config: &LinkConfig,
        mut rng: Rng,
    ) -> Self {
        let mut this = Self {
            method,
            name: name.into(),
            state: State::Waiting,
            identifier: rng.bytes::<1>()[0],
            challenge: rng.bytes(),
            rng,
            challenges_sent: 0,
            max_challenges: config.max_configure,
            interval: config.restart,
            deadline: None,
            attempt: 0,
            max_attempts,
            user: None,
            last_request: None,
            last_reply: None,
            signals: VecDeque::new(),
            retransmissions: 0,
            malformed: 0,
        };
        if this.method != AuthMethod::Pap {
            this.send_challenge(now);
        }
        this
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Whether the controller owes an answer.
    pub(crate) fn is_asking(&self) -> bool {
        self.state == State::Asking
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn poll_signal(&mut self) -> Option<Signal> {
        self.signals.pop_front()
    }

    pub(crate) const fn protocol(&self) -> Protocol {
        match self.method {
            AuthMethod::Pap => Protocol::PAP,
            AuthMethod::ChapMd5 | AuthMethod::MsChapV2 => Protocol::CHAP,
        }
    }

    fn send_challenge(&mut self, now: Instant) {
        let challenge = Chap::Challenge { value: self.challenge.to_vec(), name: self.name.clone().into_bytes() };
        self.signals.push_back(Signal::Send(Protocol::CHAP, challenge.emit(self.identifier)));
        self.challenges_sent += 1;
        self.deadline = Some(now + self.interval);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|at| at > now) {
            return;
        }
        self.deadline = None;
        if self.challenges_sent < self.max_challenges {
            self.retransmissions += 1;
            self.send_challenge(now);
        } else if self.malformed > 0 {
            self.refuse(
                format!("the client's answers to the {} challenge make no sense", self.method),
                "the client's PPP is at fault: choose another authentication method".into(),
            );
        } else {
            self.refuse(
                format!("the client does not answer the {} challenge", self.method),
                "set a user name and password at the client; look for packet loss".into(),
            );
        }
    }

    pub(crate) fn handle_packet(&mut self, packet: ControlPacket<'_>) {
        let same_id = self.method == AuthMethod::Pap || packet.identifier == self.identifier;
        let again = self.last_request.as_ref().is_some_and(|last| last.as_bytes() == packet.data);
        if self.state != State::Waiting && same_id && again {
            // A PAP client may count up as it repeats itself; the reply carries the newest number.
            self.identifier = packet.identifier;
            if let Some(mut reply) = self.last_reply.clone() {
                reply.iter_mut().skip(1).take(1).for_each(|id| *id = packet.identifier);
                self.retransmissions += 1;
                self.signals.push_back(Signal::Send(self.protocol(), reply));
            }
            return;
        }
        if !matches!(self.state, State::Waiting | State::Retrying) || !self.expects(packet.identifier) {
            return;
        }
        let Some((user, method)) = self.read(&packet) else {
            self.malformed += 1;
            return;
        };
        let user = String::from_utf8_lossy(&user).into_owned();
        self.user = Some(super::printable(user.as_bytes()));
        self.identifier = packet.identifier;
        self.attempt = self.attempt.saturating_add(1);
        self.last_request = Some(Password::new(packet.data));
        self.last_reply = None;
        self.state = State::Asking;
        self.deadline = None;
        self.signals.push_back(Signal::Ask(AuthRequest { user, method, attempt: self.attempt }));
    }

    /// A PAP client numbers its requests as it likes. A response must match its challenge; after a failure that allows
    /// a retry, clients take either the failure's number or the next (RFC 2759 says so for Change-Password only).
    const fn expects(&self, identifier: u8) -> bool {
        match (self.method, &self.state) {
            (AuthMethod::Pap, _) => true,
            (_, State::Retrying) => identifier == self.identifier || identifier == self.identifier.wrapping_add(1),
            _ => identifier == self.identifier,
        }
    }

    fn read(&self, packet: &ControlPacket<'_>) -> Option<(Vec<u8>, AuthProof)> {
        let identifier = packet.identifier;
        if self.method == AuthMethod::Pap {
            let Pap::Request { user, password } = Pap::parse(packet).ok()? else { return None };
            return Some((user, AuthProof::Pap { password }));
        }
        let Chap::Response { value, name } = Chap::parse(packet).ok()? else { return None };
        if name.len() > MAX_NAME_LEN {
            return None;
        }
        let proof = if self.method == AuthMethod::ChapMd5 {
            let response = *value.first_chunk::<16>().filter(|_| value.len() == 16)?;
            AuthProof::ChapMd5 { identifier, challenge: self.challenge, response }
        } else {
            let MsChapV2Response { peer_challenge, nt_response, flags } = MsChapV2Response::parse(&value).ok()?;
            let authenticator_challenge = self.challenge;
            AuthProof::MsChapV2 { identifier, authenticator_challenge, peer_challenge, nt_response, flags }
        };
        Some((name, proof))
    }

    pub(crate) fn handle_answer(&mut self, answer: Answer) {
        if self.state != State::Asking {
            return;
        }
        match answer {
            Answer::Accept(accept) => self.accept(accept),
            Answer::Reject(reject) => self.reject(reject),
        }
    }

    fn reply(&mut self, packet: Vec<u8>) {
        self.last_reply = Some(packet.clone());
        self.signals.push_back(Signal::Send(self.protocol(), packet));
    }

    fn accept(&mut self, accept: Accept) {
        self.state = State::Decided;
        let message = accept.message.clone();
        let packet = match (self.method, &accept.authenticator_response) {
            (AuthMethod::Pap, _) => Pap::Ack(message.into_bytes()).emit(self.identifier),
            (AuthMethod::ChapMd5, _) => Chap::Success(message.into_bytes()).emit(self.identifier),
            (AuthMethod::MsChapV2, Some(response)) if is_authenticator_response(response) => {
                Chap::Success(format!("{response} M={message}").into_bytes()).emit(self.identifier)
            }
            (AuthMethod::MsChapV2, _) => {
                // Windows would hang up with an error that leads nowhere (778): say so here instead.
                self.reply_failure(crate::output::mschap_error::AUTHENTICATION_FAILURE, false, "");
                return self.refuse(
                    "the controller accepted the user without the MS-CHAPv2 authenticator response".into(),
                    "a fault of the controller, or a RADIUS server that leaves MS-CHAP2-Success out".into(),
                );
            }
        };
        self.reply(packet);
        let user = self.user.clone().unwrap_or_default();
        self.signals.push_back(Signal::Accepted(user, Box::new(accept)));
    }

    fn reject(&mut self, reject: Reject) {
        let retry = reject.retry && self.method == AuthMethod::MsChapV2 && self.attempt < self.max_attempts;
        match self.method {
            AuthMethod::Pap => self.reply(Pap::Nak(reject.message.into_bytes()).emit(self.identifier)),
            AuthMethod::ChapMd5 => self.reply(Chap::Failure(reject.message.into_bytes()).emit(self.identifier)),
            AuthMethod::MsChapV2 => self.reply_failure(reject.error, retry, &reject.message),
        }
        let cause = if reject.cause.is_empty() { error_words(reject.error).into() } else { reject.cause };
        if retry {
            self.state = State::Retrying;
            let user = self.user.clone().unwrap_or_default();
            return self.signals.push_back(Signal::Retry { user, cause });
        }
        self.refuse(cause, reject.remedy);
    }

    fn reply_failure(&mut self, error: u32, retry: bool, message: &str) {
        // The challenge of the next try; it must be there even if there is none (RFC 2759 §6).
        self.challenge = self.rng.bytes();
        let failure = MsChapFailure { error, retry, challenge: Some(self.challenge), message: message.into() };
        self.reply(Chap::Failure(failure.emit().into_bytes()).emit(self.identifier));
    }

    fn refuse(&mut self, cause: String, remedy: String) {
        self.state = State::Decided;
        self.deadline = None;
        self.signals.push_back(Signal::Refused { user: self.user.clone(), cause, remedy });
    }
}

/// `S=` and 40 upper-case hexadecimal digits.
fn is_authenticator_response(text: &str) -> bool {
    let digits = text.strip_prefix("S=").map(str::as_bytes).unwrap_or_default();
    digits.len() == 40 && digits.iter().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b))
}
