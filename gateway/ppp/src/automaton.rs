//! The option negotiation automaton (RFC 1661 §4).

/// The states of RFC 1661 §4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The layer below is down, and no Open has come.
    Initial,
    /// The layer below is down, and Open has come.
    Starting,
    /// The layer below is up, and no Open has come.
    Closed,
    /// Waits for a Configure-Request after the negotiation came to its end.
    Stopped,
    /// Terminate-Request sent after a Close.
    Closing,
    /// Terminate-Request sent, or acknowledged, without a Close.
    Stopping,
    /// Configure-Request sent.
    ReqSent,
    /// Configure-Request sent and acknowledged.
    AckRcvd,
    /// Configure-Request sent, and the peer's acknowledged.
    AckSent,
    /// Both acknowledged.
    Opened,
}

/// The events of RFC 1661 §4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The layer below is up.
    Up,
    /// The layer below is down.
    Down,
    /// Administrative open.
    Open,
    /// Administrative close.
    Close,
    /// Timeout with counter above zero.
    ToPlus,
    /// Timeout with counter expired.
    ToMinus,
    /// Receive-Configure-Request, good.
    RcrPlus,
    /// Receive-Configure-Request, bad.
    RcrMinus,
    /// Receive-Configure-Ack.
    Rca,
    /// Receive-Configure-Nak or -Reject.
    Rcn,
    /// Receive-Terminate-Request.
    Rtr,
    /// Receive-Terminate-Ack.
    Rta,
    /// Receive-Unknown-Code.
    Ruc,
    /// Receive-Code-Reject or -Protocol-Reject, permitted.
    RxjPlus,
    /// Receive-Code-Reject or -Protocol-Reject, catastrophic.
    RxjMinus,
    /// Receive-Echo-Request, -Reply or Discard-Request.
    Rxr,
}

/// The actions of RFC 1661 §4.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// This-Layer-Up.
    Tlu,
    /// This-Layer-Down.
    Tld,
    /// This-Layer-Started.
    Tls,
    /// This-Layer-Finished.
    Tlf,
    /// Initialize-Restart-Count.
    Irc,
    /// Zero-Restart-Count.
    Zrc,
    /// Send-Configure-Request.
    Scr,
    /// Send-Configure-Ack.
    Sca,
    /// Send-Configure-Nak or -Reject.
    Scn,
    /// Send-Terminate-Request.
    Str,
    /// Send-Terminate-Ack.
    Sta,
    /// Send-Code-Reject.
    Scj,
    /// Send-Echo-Reply.
    Ser,
}

impl State {
    /// Whether the Restart timer runs in this state: those with a TO event (§4.1).
    pub const fn is_timed(self) -> bool {
        matches!(self, Self::Closing | Self::Stopping | Self::ReqSent | Self::AckRcvd | Self::AckSent)
    }
}

/// RFC 1661 §4.1, one arm per cell, in the order of the printed table; a cell marked `-` there is `None` here.
///
/// The restart option `r` is not taken (Open in an open state does nothing), the passive option `p` is not taken
/// either: `ToMinus` ends in `Stopped` after This-Layer-Finished.
#[rustfmt::skip]
pub const fn transition(state: State, event: Event) -> Option<(State, &'static [Action])> {
    use Action::{Irc, Sca, Scj, Scn, Scr, Ser, Sta, Str, Tld, Tlf, Tls, Tlu, Zrc};
    use Event::{Close, Down, Open, Rca, RcrMinus, RcrPlus, Rcn, Rta, Rtr, Ruc, RxjMinus, RxjPlus, Rxr, ToMinus, ToPlus, Up};
    use State::{AckRcvd, AckSent, Closed, Closing, Initial, Opened, ReqSent, Starting, Stopped, Stopping};
    Some(match (event, state) {
        (Up, Initial) => (Closed, &[]),
        (Up, Starting) => (ReqSent, &[Irc, Scr]),
        (Up, _) => return None,

        (Down, Initial | Starting) => return None,
        (Down, Closed) => (Initial, &[]),
        (Down, Stopped) => (Starting, &[Tls]),
        (Down, Closing) => (Initial, &[]),
        (Down, Stopping) => (Starting, &[]),
        (Down, ReqSent) => (Starting, &[]),
        (Down, AckRcvd) => (Starting, &[]),
        (Down, AckSent) => (Starting, &[]),
        (Down, Opened) => (Starting, &[Tld]),

        (Open, Initial) => (Starting, &[Tls]),
        (Open, Starting) => (Starting, &[]),
        (Open, Closed) => (ReqSent, &[Irc, Scr]),
        (Open, Stopped) => (Stopped, &[]),
        (Open, Closing) => (Stopping, &[]),
        (Open, Stopping) => (Stopping, &[]),
        (Open, ReqSent) => (ReqSent, &[]),
        (Open, AckRcvd) => (AckRcvd, &[]),
        (Open, AckSent) => (AckSent, &[]),
        (Open, Opened) => (Opened, &[]),

        (Close, Initial) => (Initial, &[]),
        (Close, Starting) => (Initial, &[Tlf]),
        (Close, Closed) => (Closed, &[]),
        (Close, Stopped) => (Closed, &[]),
        (Close, Closing) => (Closing, &[]),
        (Close, Stopping) => (Closing, &[]),
        (Close, ReqSent) => (Closing, &[Irc, Str]),
        (Close, AckRcvd) => (Closing, &[Irc, Str]),
        (Close, AckSent) => (Closing, &[Irc, Str]),
        (Close, Opened) => (Closing, &[Tld, Irc, Str]),

        (ToPlus, Initial | Starting | Closed | Stopped) => return None,
        (ToPlus, Closing) => (Closing, &[Str]),
        (ToPlus, Stopping) => (Stopping, &[Str]),
        (ToPlus, ReqSent) => (ReqSent, &[Scr]),
        (ToPlus, AckRcvd) => (ReqSent, &[Scr]),
        (ToPlus, AckSent) => (AckSent, &[Scr]),
        (ToPlus, Opened) => return None,

        (ToMinus, Initial | Starting | Closed | Stopped) => return None,
        (ToMinus, Closing) => (Closed, &[Tlf]),
        (ToMinus, Stopping) => (Stopped, &[Tlf]),
        (ToMinus, ReqSent) => (Stopped, &[Tlf]),
        (ToMinus, AckRcvd) => (Stopped, &[Tlf]),
        (ToMinus, AckSent) => (Stopped, &[Tlf]),
        (ToMinus, Opened) => return None,

        (RcrPlus, Initial | Starting) => return None,
        (RcrPlus, Closed) => (Closed, &[Sta]),
        (RcrPlus, Stopped) => (AckSent, &[Irc, Scr, Sca]),
        (RcrPlus, Closing) => (Closing, &[]),
        (RcrPlus, Stopping) => (Stopping, &[]),
        (RcrPlus, ReqSent) => (AckSent, &[Sca]),
        (RcrPlus, AckRcvd) => (Opened, &[Sca, Tlu]),
        (RcrPlus, AckSent) => (AckSent, &[Sca]),
        (RcrPlus, Opened) => (AckSent, &[Tld, Scr, Sca]),

        (RcrMinus, Initial | Starting) => return None,
        (RcrMinus, Closed) => (Closed, &[Sta]),
        (RcrMinus, Stopped) => (ReqSent, &[Irc, Scr, Scn]),
        (RcrMinus, Closing) => (Closing, &[]),
        (RcrMinus, Stopping) => (Stopping, &[]),
        (RcrMinus, ReqSent) => (ReqSent, &[Scn]),
        (RcrMinus, AckRcvd) => (AckRcvd, &[Scn]),
        (RcrMinus, AckSent) => (ReqSent, &[Scn]),
        (RcrMinus, Opened) => (ReqSent, &[Tld, Scr, Scn]),

        (Rca, Initial | Starting) => return None,
        (Rca, Closed) => (Closed, &[Sta]),
        (Rca, Stopped) => (Stopped, &[Sta]),
        (Rca, Closing) => (Closing, &[]),
        (Rca, Stopping) => (Stopping, &[]),
        (Rca, ReqSent) => (AckRcvd, &[Irc]),
        (Rca, AckRcvd) => (ReqSent, &[Scr]), // [x] crossed connection
        (Rca, AckSent) => (Opened, &[Irc, Tlu]),
        (Rca, Opened) => (ReqSent, &[Tld, Scr]), // [x]

        (Rcn, Initial | Starting) => return None,
        (Rcn, Closed) => (Closed, &[Sta]),
        (Rcn, Stopped) => (Stopped, &[Sta]),
        (Rcn, Closing) => (Closing, &[]),
        (Rcn, Stopping) => (Stopping, &[]),
        (Rcn, ReqSent) => (ReqSent, &[Irc, Scr]),
        (Rcn, AckRcvd) => (ReqSent, &[Scr]), // [x]
        (Rcn, AckSent) => (AckSent, &[Irc, Scr]),
        (Rcn, Opened) => (ReqSent, &[Tld, Scr]), // [x]

        (Rtr, Initial | Starting) => return None,
        (Rtr, Closed) => (Closed, &[Sta]),
        (Rtr, Stopped) => (Stopped, &[Sta]),
        (Rtr, Closing) => (Closing, &[Sta]),
        (Rtr, Stopping) => (Stopping, &[Sta]),
        (Rtr, ReqSent) => (ReqSent, &[Sta]),
        (Rtr, AckRcvd) => (ReqSent, &[Sta]),
        (Rtr, AckSent) => (ReqSent, &[Sta]),
        (Rtr, Opened) => (Stopping, &[Tld, Zrc, Sta]),

        (Rta, Initial | Starting) => return None,
        (Rta, Closed) => (Closed, &[]),
        (Rta, Stopped) => (Stopped, &[]),
        (Rta, Closing) => (Closed, &[Tlf]),
        (Rta, Stopping) => (Stopped, &[Tlf]),
        (Rta, ReqSent) => (ReqSent, &[]),
        (Rta, AckRcvd) => (ReqSent, &[]),
        (Rta, AckSent) => (AckSent, &[]),
        (Rta, Opened) => (ReqSent, &[Tld, Scr]),

        (Ruc, Initial | Starting) => return None,
        (Ruc, Closed) => (Closed, &[Scj]),
        (Ruc, Stopped) => (Stopped, &[Scj]),
        (Ruc, Closing) => (Closing, &[Scj]),
        (Ruc, Stopping) => (Stopping, &[Scj]),
        (Ruc, ReqSent) => (ReqSent, &[Scj]),
        (Ruc, AckRcvd) => (AckRcvd, &[Scj]),
        (Ruc, AckSent) => (AckSent, &[Scj]),
        (Ruc, Opened) => (Opened, &[Scj]),

        (RxjPlus, Initial | Starting) => return None,
        (RxjPlus, Closed) => (Closed, &[]),
        (RxjPlus, Stopped) => (Stopped, &[]),
        (RxjPlus, Closing) => (Closing, &[]),
        (RxjPlus, Stopping) => (Stopping, &[]),
        (RxjPlus, ReqSent) => (ReqSent, &[]),
        (RxjPlus, AckRcvd) => (ReqSent, &[]),
        (RxjPlus, AckSent) => (AckSent, &[]),
        (RxjPlus, Opened) => (Opened, &[]),

        (RxjMinus, Initial | Starting) => return None,
        (RxjMinus, Closed) => (Closed, &[Tlf]),
        (RxjMinus, Stopped) => (Stopped, &[Tlf]),
        (RxjMinus, Closing) => (Closed, &[Tlf]),
        (RxjMinus, Stopping) => (Stopped, &[Tlf]),
        (RxjMinus, ReqSent) => (Stopped, &[Tlf]),
        (RxjMinus, AckRcvd) => (Stopped, &[Tlf]),
        (RxjMinus, AckSent) => (Stopped, &[Tlf]),
        (RxjMinus, Opened) => (Stopping, &[Tld, Irc, Str]),

        (Rxr, Initial | Starting) => return None,
        (Rxr, Closed) => (Closed, &[]),
        (Rxr, Stopped) => (Stopped, &[]),
        (Rxr, Closing) => (Closing, &[]),
        (Rxr, Stopping) => (Stopping, &[]),
        (Rxr, ReqSent) => (ReqSent, &[]),
        (Rxr, AckRcvd) => (AckRcvd, &[]),
        (Rxr, AckSent) => (AckSent, &[]),
        (Rxr, Opened) => (Opened, &[Ser]),
    })
}

#[cfg(test)]
mod tests;
