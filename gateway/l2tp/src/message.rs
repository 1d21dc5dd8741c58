//! Control messages.

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

    /// A StopCCN's code in words.
    pub fn describe_stop_ccn(&self) -> String {
        format!("{self:?}")
    }

    /// A CDN's code in words.
    pub fn describe_cdn(&self) -> String {
        format!("{self:?}")
    }
}
