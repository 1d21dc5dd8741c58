//! One protocol's negotiation: the automaton with its counters, timer and packets (RFC 1661 §4.3 to §4.6, §5).

use std::collections::VecDeque;

use core::time::Duration;

use sallyport_base::{DecodeError, Instant};

use crate::automaton::{Action, Event, State, transition};
use crate::config::LinkConfig;
use crate::packet::{Code, ConfigOption, ControlPacket};
use crate::timer;

/// What is negotiated: the options of one protocol.
pub(crate) trait Options {
    /// A new negotiation begins: forget what the last one agreed on.
    fn restart(&mut self);
    /// The options that we ask for.
    fn request(&self) -> Vec<ConfigOption>;
    /// Judges the peer's wishes, and keeps those that are granted. With `exhausted`, Naks have not helped.
    fn judge(&mut self, options: &[ConfigOption], exhausted: bool) -> Verdict;
    /// The peer wants other values of ours.
    fn handle_nak(&mut self, options: &[ConfigOption]) -> Result<(), Impasse>;
    /// The peer does not know these options of ours.
    fn handle_reject(&mut self, options: &[ConfigOption]) -> Result<(), Impasse>;
}

/// The answer to a Configure-Request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ack,
    Nak(Vec<ConfigOption>),
    Reject(Vec<ConfigOption>),
    /// There is no use in going on.
    Impasse(Impasse),
}

/// Why a negotiation cannot succeed, for the audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Impasse {
    pub(crate) cause: String,
    pub(crate) remedy: &'static str,
}

impl Impasse {
    pub(crate) fn new(cause: impl Into<String>, remedy: &'static str) -> Self {
        Self { cause: cause.into(), remedy }
    }
}

/// What a negotiation tells its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Send this packet.
    Send(Vec<u8>),
    /// This-Layer-Up.
    Up,
    /// This-Layer-Down.
    Down,
    /// This-Layer-Finished, with the event that brought it.
    Finished(Event),
    /// The peer asks for the end, with these data.
    TerminateRequested(Vec<u8>),
    /// There is no use in going on.
    Impasse(Impasse),
}

/// The negotiation of one protocol.
#[derive(Debug)]
pub(crate) struct Negotiation<P> {
    pub(crate) options: P,
    state: State,
    restart: Duration,
    max_configure: u8,
    max_terminate: u8,
    max_failure: u8,
    /// The RFC's restart counter.
    restart_count: u8,
    deadline: Option<Instant>,
    next_id: u8,
    /// Our Configure-Request that waits for an answer: its identifier and options.
    request: Option<(u8, Vec<u8>)>,
    /// The peer's Configure-Request that we acknowledged last.
    acknowledged: Option<(u8, Vec<u8>)>,
    /// Naks sent since the last Ack (Max-Failure).
    naks_sent: u8,
    /// Naks and Rejects received in this negotiation.
    replies: u8,
    /// What our Terminate-Request says.
    farewell: Vec<u8>,
    signals: VecDeque<Signal>,
    pub(crate) retransmissions: u64,
}

/// What an action may need of the packet that caused it.
#[derive(Clone, Copy, Default)]
struct Cause<'a> {
    packet: Option<ControlPacket<'a>>,
    reply: Option<(Code, &'a [ConfigOption])>,
}

impl<P: Options> Negotiation<P> {
    pub(crate) fn new(options: P, config: &LinkConfig) -> Self {
        Self {
            options,
            state: State::Initial,
            restart: config.restart,
            max_configure: config.max_configure,
            max_terminate: config.max_terminate,
            max_failure: config.max_failure,
            restart_count: 0,
            deadline: None,
            next_id: 1,
            request: None,
            acknowledged: None,
            naks_sent: 0,
            replies: 0,
            farewell: Vec::new(),
            signals: VecDeque::new(),
            retransmissions: 0,
        }
    }

    /// Opens at once, or waits up to `delay` for the peer's request in state Stopped.
    pub(crate) fn open(&mut self, now: Instant, delay: Duration) {
        if delay.is_zero() {
            self.run(now, Event::Open, Cause::default());
            self.run(now, Event::Up, Cause::default());
        } else {
            self.state = State::Stopped;
            self.options.restart();
            self.deadline = Some(now + delay);
        }
    }

    /// Closes with a Terminate-Request that carries `farewell`.
    pub(crate) fn close(&mut self, now: Instant, farewell: &[u8]) {
        self.farewell = farewell.to_vec();
        self.run(now, Event::Close, Cause::default());
    }

    /// The layer below is down.
    pub(crate) fn lower_down(&mut self, now: Instant) {
        if !matches!(self.state, State::Initial | State::Starting) {
            self.run(now, Event::Down, Cause::default());
        }
    }

    /// The peer rejects the whole protocol.
    pub(crate) fn protocol_rejected(&mut self, now: Instant) {
        self.run(now, Event::RxjMinus, Cause::default());
    }

    pub(crate) const fn is_opened(&self) -> bool {
        matches!(self.state, State::Opened)
    }

    /// Whether all is said: there is no Terminate-Ack to wait for, either.
    pub(crate) const fn is_down(&self) -> bool {
        matches!(self.state, State::Initial | State::Starting | State::Closed | State::Stopped)
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn poll_signal(&mut self) -> Option<Signal> {
        self.signals.pop_front()
    }

    pub(crate) const fn fresh_id(&mut self) -> u8 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|at| at > now) {
            return;
        }
        self.deadline = None;
        if self.state == State::Stopped {
            // The peer has not begun: we do. Down and Up lead from Stopped to Req-Sent in the table.
            self.run(now, Event::Down, Cause::default());
            self.run(now, Event::Up, Cause::default());
        } else if self.restart_count > 0 {
            self.retransmissions += 1;
            self.run(now, Event::ToPlus, Cause::default());
        } else {
            self.run(now, Event::ToMinus, Cause::default());
        }
    }

    /// Takes a packet of this protocol. `Err` is a packet that makes no sense and was dropped; `Ok(false)` a code that
    /// only the protocol itself can know, and that the caller answers for (or hands to
    /// [`Negotiation::unknown_code`]).
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: ControlPacket<'_>) -> Result<bool, DecodeError> {
        match Code(packet.code) {
            Code::CONFIGURE_REQUEST => self.handle_request(now, packet)?,
            Code::CONFIGURE_ACK => {
                let ours =
                    self.request.as_ref().is_some_and(|(id, data)| *id == packet.identifier && data == packet.data);
                // An Ack of an older request, or one that came twice, is no event (§5.2, "invalid packets").
                if ours || !self.is_negotiating() {
                    self.request = None;
                    self.run(now, Event::Rca, Cause { packet: Some(packet), reply: None });
                }
            }
            code @ (Code::CONFIGURE_NAK | Code::CONFIGURE_REJECT) => self.handle_refusal(now, code, packet)?,
            Code::TERMINATE_REQUEST => {
                self.signals.push_back(Signal::TerminateRequested(packet.data.to_vec()));
                self.run(now, Event::Rtr, Cause { packet: Some(packet), reply: None });
            }
            Code::TERMINATE_ACK => self.run(now, Event::Rta, Cause::default()),
            Code::CODE_REJECT => {
                // Rejecting one of the seven codes without which nothing works is catastrophic (§5.6).
                let catastrophic = packet.data.first().is_some_and(|code| (1..=7).contains(code));
                self.run(now, if catastrophic { Event::RxjMinus } else { Event::RxjPlus }, Cause::default());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Answers a code that nobody knows with a Code-Reject.
    pub(crate) fn unknown_code(&mut self, now: Instant, packet: ControlPacket<'_>) {
        self.run(now, Event::Ruc, Cause { packet: Some(packet), reply: None });
    }

    const fn is_negotiating(&self) -> bool {
        matches!(self.state, State::ReqSent | State::AckRcvd | State::AckSent | State::Opened)
    }

    fn handle_request(&mut self, now: Instant, packet: ControlPacket<'_>) -> Result<(), DecodeError> {
        let options = ConfigOption::parse_all(packet.data)?;
        let again =
            self.acknowledged.as_ref().is_some_and(|(id, data)| *id == packet.identifier && data == packet.data);
        if self.state == State::Opened && again {
            // The very request that we acknowledged: our Ack was lost or the packet is late. The table would take the
            // layer down and negotiate anew; to say the same again does the same good without the harm.
            self.send(Code::CONFIGURE_ACK, packet.identifier, packet.data);
            return Ok(());
        }
        if matches!(self.state, State::Closing | State::Stopping | State::Closed | State::Initial | State::Starting) {
            self.run(now, Event::RcrPlus, Cause { packet: Some(packet), reply: None });
            return Ok(());
        }
        if matches!(self.state, State::Opened | State::Stopped) {
            self.begin_anew();
        }
        let verdict = self.options.judge(&options, self.naks_sent >= self.max_failure);
        let (event, code, list) = match verdict {
            Verdict::Ack => {
                self.naks_sent = 0;
                self.acknowledged = Some((packet.identifier, packet.data.to_vec()));
                (Event::RcrPlus, Code::CONFIGURE_ACK, options)
            }
            Verdict::Nak(list) => {
                self.naks_sent = self.naks_sent.saturating_add(1);
                (Event::RcrMinus, Code::CONFIGURE_NAK, list)
            }
            Verdict::Reject(list) => (Event::RcrMinus, Code::CONFIGURE_REJECT, list),
            Verdict::Impasse(impasse) => {
                self.signals.push_back(Signal::Impasse(impasse));
                return Ok(());
            }
        };
        self.run(now, event, Cause { packet: Some(packet), reply: Some((code, &list)) });
        Ok(())
    }

    fn handle_refusal(&mut self, now: Instant, code: Code, packet: ControlPacket<'_>) -> Result<(), DecodeError> {
        let options = ConfigOption::parse_all(packet.data)?;
        if self.is_negotiating() {
            if self.request.as_ref().is_none_or(|(id, _)| *id != packet.identifier) {
                return Ok(());
            }
            self.replies = self.replies.saturating_add(1);
            let handled = if self.replies > timer::MAX_REPLIES {
                Err(Impasse::new("the peer refuses every form of our request", "compare the PPP settings of both ends"))
            } else if code == Code::CONFIGURE_NAK {
                self.options.handle_nak(&options)
            } else {
                self.options.handle_reject(&options)
            };
            if let Err(impasse) = handled {
                self.signals.push_back(Signal::Impasse(impasse));
                return Ok(());
            }
            self.request = None;
        }
        self.run(now, Event::Rcn, Cause { packet: Some(packet), reply: None });
        Ok(())
    }

    fn begin_anew(&mut self) {
        self.options.restart();
        (self.request, self.acknowledged) = (None, None);
        (self.naks_sent, self.replies) = (0, 0);
    }

    fn send(&mut self, code: Code, identifier: u8, data: &[u8]) {
        self.signals.push_back(Signal::Send(ControlPacket { code: code.0, identifier, data }.emit()));
    }

    fn run(&mut self, now: Instant, event: Event, cause: Cause<'_>) {
        let Some((state, actions)) = transition(self.state, event) else { return };
        let was = self.state;
        self.state = state;
        if was == State::Opened && state != State::Opened && event != Event::RcrPlus && event != Event::RcrMinus {
            self.begin_anew();
        }
        for action in actions {
            self.act(now, *action, event, cause);
        }
        if !state.is_timed() {
            // In Stopped a deadline is the wait of `open`, which goes on.
            self.deadline = self.deadline.filter(|_| was == State::Stopped && state == State::Stopped);
        } else if self.deadline.is_none() {
            // Each timed state is entered by an action that sets the timer; but for Closing out of Stopping and the
            // like, where it goes on, and Opened to Stopping, where Zrc sets it.
            self.deadline = Some(now + self.restart);
        }
    }

    fn act(&mut self, now: Instant, action: Action, event: Event, cause: Cause<'_>) {
        let id = cause.packet.map_or(0, |packet| packet.identifier);
        match action {
            Action::Tlu => self.signals.push_back(Signal::Up),
            Action::Tld => self.signals.push_back(Signal::Down),
            Action::Tls => {}
            Action::Tlf => self.signals.push_back(Signal::Finished(event)),
            Action::Irc => {
                let terminating = matches!(self.state, State::Closing | State::Stopping);
                self.restart_count = if terminating { self.max_terminate } else { self.max_configure };
            }
            Action::Zrc => {
                self.restart_count = 0;
                self.deadline = Some(now + self.restart);
            }
            Action::Scr => {
                let (id, data) = match self.request.take() {
                    // A retransmission says the same under the same identifier, so that a late answer still counts.
                    Some(request) => request,
                    None => (self.fresh_id(), ConfigOption::emit_all(&self.options.request())),
                };
                self.send(Code::CONFIGURE_REQUEST, id, &data);
                self.request = Some((id, data));
                self.start_timer(now);
            }
            Action::Sca | Action::Scn => match cause.reply {
                Some((Code::CONFIGURE_ACK, _)) => {
                    let data = cause.packet.map_or(&[][..], |packet| packet.data);
                    self.send(Code::CONFIGURE_ACK, id, data);
                }
                Some((code, options)) => self.send(code, id, &ConfigOption::emit_all(options)),
                None => {}
            },
            Action::Str => {
                let id = self.fresh_id();
                let farewell = core::mem::take(&mut self.farewell);
                self.send(Code::TERMINATE_REQUEST, id, &farewell);
                self.farewell = farewell;
                self.start_timer(now);
            }
            Action::Sta => self.send(Code::TERMINATE_ACK, id, &[]),
            Action::Scj => {
                let whole = cause.packet.map(|packet| packet.emit()).unwrap_or_default();
                let id = self.fresh_id();
                self.send(Code::CODE_REJECT, id, whole.get(..1200).unwrap_or(&whole));
            }
            // The link answers echoes: the reply carries LCP's magic number.
            Action::Ser => {}
        }
    }

    fn start_timer(&mut self, now: Instant) {
        self.restart_count = self.restart_count.saturating_sub(1);
        self.deadline = Some(now + self.restart);
    }
}
