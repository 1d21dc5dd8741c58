//! Why a tunnel or a call ends: the Result Code AVP and its numbers.

use core::fmt;

use sallyport_base::{Reader, Writer};

use crate::avp::{Fault, printable};

/// The Result Code AVP (RFC 2661 §4.4.2), as sent with StopCCN and CDN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultCode {
    /// The result, whose meaning depends on the message: see [`stop_ccn`] and [`cdn`].
    pub result: u16,
    /// The error, with result 2.
    pub error: Option<u16>,
    /// Text for people.
    pub message: Option<String>,
}

/// Result codes of StopCCN.
pub mod stop_ccn {
    /// General request to clear the control connection.
    pub const CLEAR: u16 = 1;
    /// General error: the error code says which.
    pub const GENERAL_ERROR: u16 = 2;
    /// The control channel already exists.
    pub const EXISTS: u16 = 3;
    /// The requester may not open a control channel.
    pub const NOT_AUTHORIZED: u16 = 4;
    /// The protocol version is not supported.
    pub const VERSION: u16 = 5;
    /// The sender is being shut down.
    pub const SHUTDOWN: u16 = 6;
    /// Finite state machine error.
    pub const STATE: u16 = 7;
}

/// Result codes of CDN.
pub mod cdn {
    /// Loss of carrier.
    pub const CARRIER_LOST: u16 = 1;
    /// General error: the error code says which.
    pub const GENERAL_ERROR: u16 = 2;
    /// Administrative reasons.
    pub const ADMINISTRATIVE: u16 = 3;
    /// Lack of facilities, for now.
    pub const NO_FACILITIES_NOW: u16 = 4;
    /// Lack of facilities, for good.
    pub const NO_FACILITIES: u16 = 5;
    /// Invalid destination.
    pub const INVALID_DESTINATION: u16 = 6;
    /// No carrier.
    pub const NO_CARRIER: u16 = 7;
    /// Busy.
    pub const BUSY: u16 = 8;
    /// No dial tone.
    pub const NO_DIAL_TONE: u16 = 9;
    /// Not established within the time allotted.
    pub const TIMEOUT: u16 = 10;
    /// No appropriate framing was detected.
    pub const NO_FRAMING: u16 = 11;
}

/// General error codes, for result 2.
pub mod error_code {
    /// No general error.
    pub const NONE: u16 = 0;
    /// No control connection exists yet.
    pub const NO_CONNECTION: u16 = 1;
    /// A length is wrong.
    pub const LENGTH: u16 = 2;
    /// A field is out of range, or a reserved one not zero.
    pub const RANGE: u16 = 3;
    /// Not enough resources now.
    pub const RESOURCES: u16 = 4;
    /// The session id is invalid here.
    pub const SESSION_ID: u16 = 5;
    /// A vendor-specific error.
    pub const VENDOR: u16 = 6;
    /// Try another.
    pub const TRY_ANOTHER: u16 = 7;
    /// An unknown AVP had its M bit set.
    pub const UNKNOWN_AVP: u16 = 8;
}

impl ResultCode {
    /// A code with a text.
    pub fn new(result: u16, message: impl Into<String>) -> Self {
        Self { result, error: None, message: Some(message.into()) }
    }

    /// A general error (result 2) with its error code and a text.
    pub fn error(error: u16, message: impl Into<String>) -> Self {
        Self { result: 2, error: Some(error), message: Some(message.into()) }
    }

    /// Reads the value of the AVP.
    ///
    /// Apple's L2TP sends its numbers in the host's byte order, with stale octets behind them: no result code reaches
    /// 256, so a value like 0x0300 is 3 and what follows is nothing.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let result = r.u16("result code").ok()?;
        if result > 0xff && result & 0xff == 0 {
            return Some(Self { result: result.swap_bytes(), error: None, message: None });
        }
        let error = r.u16("error code").ok();
        let message = Some(r.rest()).filter(|text| error.is_some() && !text.is_empty()).map(printable);
        Some(Self { result, error, message })
    }

    pub(crate) fn emit(&self, w: &mut Writer) {
        w.u16(self.result);
        if self.error.is_some() || self.message.is_some() {
            w.u16(self.error.unwrap_or(error_code::NONE));
        }
        w.bytes(self.message.as_deref().unwrap_or_default().as_bytes());
    }

    /// A StopCCN's code in words.
    pub fn describe_stop_ccn(&self) -> String {
        self.describe(match self.result {
            stop_ccn::CLEAR => "regular end",
            stop_ccn::GENERAL_ERROR => self.error_words(),
            stop_ccn::EXISTS => "a control channel exists already",
            stop_ccn::NOT_AUTHORIZED => "not authorized",
            stop_ccn::VERSION => "protocol version not supported",
            stop_ccn::SHUTDOWN => "shutting down",
            stop_ccn::STATE => "unexpected message",
            _ => "no known result code",
        })
    }

    /// A CDN's code in words.
    pub fn describe_cdn(&self) -> String {
        self.describe(match self.result {
            cdn::CARRIER_LOST => "carrier lost",
            cdn::GENERAL_ERROR => self.error_words(),
            cdn::ADMINISTRATIVE => "administrative reasons",
            cdn::NO_FACILITIES_NOW => "no facilities now",
            cdn::NO_FACILITIES => "no such facilities",
            cdn::INVALID_DESTINATION => "invalid destination",
            cdn::NO_CARRIER => "no carrier",
            cdn::BUSY => "busy",
            cdn::NO_DIAL_TONE => "no dial tone",
            cdn::TIMEOUT => "not established in time",
            cdn::NO_FRAMING => "no framing detected",
            _ => "no known result code",
        })
    }

    const fn error_words(&self) -> &'static str {
        match self.error {
            Some(error_code::NO_CONNECTION) => "no control connection exists yet",
            Some(error_code::LENGTH) => "wrong length",
            Some(error_code::RANGE) => "field out of range",
            Some(error_code::RESOURCES) => "not enough resources",
            Some(error_code::SESSION_ID) => "session id invalid",
            Some(error_code::VENDOR) => "vendor-specific error",
            Some(error_code::TRY_ANOTHER) => "try another",
            Some(error_code::UNKNOWN_AVP) => "unknown mandatory AVP",
            _ => "general error",
        }
    }

    fn describe(&self, words: &str) -> String {
        match &self.message {
            Some(message) => format!("{words} ({self}: {message})"),
            None => format!("{words} ({self})"),
        }
    }
}

/// The numbers only: `2/8`.
impl fmt::Display for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error {
            Some(error) => write!(f, "{}/{error}", self.result),
            None => write!(f, "{}", self.result),
        }
    }
}

/// Which general error tells the peer about a fault.
pub(crate) fn fault_code(fault: &Fault) -> ResultCode {
    let error = match fault {
        Fault::Malformed(_) => error_code::LENGTH,
        Fault::BadValue(_) => error_code::RANGE,
        Fault::Unrecognized { .. } | Fault::Hidden(_) => error_code::UNKNOWN_AVP,
    };
    ResultCode::error(error, fault.to_string())
}
