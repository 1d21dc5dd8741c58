//! What the state machine answers to a command. Replies are remembered, so that a repeated command is answered as before.

use sallyport_proto::v1;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::batch::{decode_tagged, encode_tagged};
use super::revocation::Revoked;

/// Answers to a batch, one for each command, in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReplyBatch {
    /// The answers.
    #[prost(message, repeated, tag = "1")]
    pub replies: Vec<Reply>,
}

/// An answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// What it is.
    #[prost(oneof = "Outcome", tags = "1, 2, 3, 4, 5, 6, 7, 8, 50")]
    pub outcome: Option<Outcome>,
}

/// What came of a command. Numbers are stored: never reuse one.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Outcome {
    /// Done.
    #[prost(message, tag = "1")]
    Done(Done),
    /// Not done, for a reason in the state.
    #[prost(message, tag = "2")]
    Conflict(Conflict),
    /// A gateway has its place.
    #[prost(message, tag = "3")]
    Registered(Registered),
    /// A session is open.
    #[prost(message, tag = "4")]
    Opened(Opened),
    /// A session was refused.
    #[prost(message, tag = "5")]
    Denied(Denied),
    /// A controller is a member.
    #[prost(message, tag = "6")]
    Admitted(Admitted),
    /// A certificate is recorded, for a caller who may ask again.
    #[prost(message, tag = "7")]
    Issued(Issued),
    /// What will be signed is in the state.
    #[prost(message, tag = "8")]
    Intended(Intended),
    /// Certificates were revoked or released.
    #[prost(message, tag = "50")]
    Revoked(Revoked),
}

/// Done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Done {
    /// Sessions that end because of it.
    #[prost(uint32, tag = "1")]
    pub ended_sessions: u32,
    /// Sessions named in the command that are not (or no longer) there.
    #[prost(fixed64, repeated, tag = "2")]
    pub unknown: Vec<u64>,
    /// Addresses and gateways whose wrong passwords are forgotten because of it. Since level 5.
    #[prost(uint32, tag = "3")]
    pub forgotten: u32,
}

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConflictKind {
    /// A command that cannot be meant so.
    Invalid = 0,
    /// The thing is not there.
    NotFound = 1,
    /// There is one already.
    AlreadyExists = 2,
    /// Something else must happen first.
    Precondition = 3,
    /// Somebody changed it meanwhile.
    Changed = 4,
    /// The gateway is not (any more) who it says: register again.
    StaleMember = 5,
    /// The user's password was changed while it was checked.
    StaleCredentials = 6,
    /// A limit is reached.
    Exhausted = 7,
}

/// Not done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Conflict {
    /// What kind.
    #[prost(enumeration = "ConflictKind", tag = "1")]
    pub kind: i32,
    /// For a person: cause, then remedy.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// A member's id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Admitted {
    /// The id.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
}

/// A certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Issued {
    /// Its serial number.
    #[prost(string, tag = "1")]
    pub serial: String,
    /// What the caller is answered, sealed.
    #[prost(bytes = "vec", tag = "2")]
    pub answer: Vec<u8>,
    /// The certificate, DER, where that is not in the answer. Since level 8.
    #[prost(bytes = "vec", tag = "3")]
    pub certificate: Vec<u8>,
}

/// What will be signed, or was, is in the state under the transaction: this or what the same question brought before.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Intended {}

/// A gateway's place.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Registered {
    /// Slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// Epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
}

/// A new session.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Opened {
    /// Its id.
    #[prost(fixed64, tag = "1")]
    pub session_id: u64,
    /// The client's address.
    #[prost(fixed32, tag = "2")]
    pub address: u32,
    /// The gateway's address.
    #[prost(fixed32, tag = "3")]
    pub router: u32,
    /// Name servers.
    #[prost(fixed32, repeated, tag = "4")]
    pub dns: Vec<u32>,
    /// NetBIOS name servers.
    #[prost(fixed32, repeated, tag = "5")]
    pub nbns: Vec<u32>,
    /// Pool.
    #[prost(string, tag = "6")]
    pub pool: String,
    /// The user's name as stored.
    #[prost(string, tag = "7")]
    pub user: String,
    /// Seconds, 0 for never.
    #[prost(uint32, tag = "8")]
    pub idle_timeout_s: u32,
    /// Seconds, 0 for never.
    #[prost(uint32, tag = "9")]
    pub session_timeout_s: u32,
    /// Bytes, 0 for the gateway's default.
    #[prost(uint32, tag = "10")]
    pub mru: u32,
}

/// Why a session was refused: a closed set, also for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum DenialKind {
    /// Not said.
    Unspecified = 0,
    /// The user is disabled.
    Disabled = 1,
    /// The user has as many sessions as allowed.
    SessionLimit = 2,
    /// The gateway has as many sessions as it wants.
    GatewayFull = 3,
    /// No address is free.
    NoAddress = 4,
    /// The machine's certificate is revoked, expired or unknown.
    MachineRefused = 5,
    /// The user was removed while the password was checked.
    UserGone = 6,
}

/// A refusal of the authorization step.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Denied {
    /// Which.
    #[prost(enumeration = "DenialKind", tag = "1")]
    pub kind: i32,
    /// For the operator.
    #[prost(string, tag = "2")]
    pub cause: String,
    /// For the operator.
    #[prost(string, tag = "3")]
    pub remedy: String,
    /// For the client: RFC 2759 §6.
    #[prost(uint32, tag = "4")]
    pub error_code: u32,
}

impl Reply {
    /// Done, nothing more to say.
    pub(super) fn done() -> Self {
        Self::ended(0)
    }

    /// Done, and sessions end.
    pub(super) fn ended(ended_sessions: u32) -> Self {
        Outcome::Done(Done { ended_sessions, ..Done::default() }).into()
    }

    /// Not done.
    pub(super) fn conflict(kind: ConflictKind, message: impl Into<String>) -> Self {
        Outcome::Conflict(Conflict { kind: kind.into(), message: message.into() }).into()
    }
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        Self { outcome: Some(outcome) }
    }
}

impl DenialKind {
    /// The code for the client.
    pub const fn error_code(self) -> u32 {
        match self {
            Self::Disabled => 647,
            Self::UserGone => 691,
            Self::Unspecified | Self::SessionLimit | Self::GatewayFull | Self::NoAddress | Self::MachineRefused => 649,
        }
    }
}

/// The phase of a denial.
pub const DENIAL_PHASE: v1::Phase = v1::Phase::Authorization;

impl Serialize for ReplyBatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&encode_tagged(self))
    }
}

impl<'de> Deserialize<'de> for ReplyBatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decode_tagged(deserializer)
    }
}
