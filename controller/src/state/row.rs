//! Rows of the state: what is stored about each thing. Numbers are part of the store: never reuse one.

use sallyport_ca::crl::Reason;
use sallyport_proto::v1;

use super::command::Credentials;
use super::net::Net;
use super::reply::Reply;

/// What there is once.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CoreRow {
    /// Names the cluster; 16 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub cluster_id: Vec<u8>,
    /// The log's time, milliseconds since 1970: the latest that a command carried.
    #[prost(uint64, tag = "2")]
    pub now_ms: u64,
    /// Grows whenever what gateways are told changes.
    #[prost(uint64, tag = "3")]
    pub policy_version: u64,
    /// Number of the next attempt.
    #[prost(uint64, tag = "4")]
    pub next_attempt: u64,
    /// Number of the newest set of credentials.
    #[prost(uint64, tag = "5")]
    pub last_credentials: u64,
    /// Number of the certificate that was issued or revoked last.
    #[prost(uint64, tag = "6")]
    pub last_certificate: u64,
    /// Number of the next dedup row.
    #[prost(uint64, tag = "7")]
    pub next_answer: u64,
    /// The pre-shared key, sealed; empty for none.
    #[prost(bytes = "vec", tag = "8")]
    pub sealed_psk: Vec<u8>,
    /// When it was set.
    #[prost(uint64, tag = "9")]
    pub psk_set_ms: u64,
    /// The settings.
    #[prost(message, optional, tag = "10")]
    pub settings: Option<SettingsRow>,
    /// Epoch of the gateway that registered last: no two incarnations share one, whatever their names and slots.
    #[prost(uint64, tag = "11")]
    pub last_epoch: u64,
    /// Id of the controller that joined last: never used again.
    #[prost(uint64, tag = "12")]
    pub last_member: u64,
    /// When the cluster was restored from a backup, milliseconds since 1970; 0 if it never was. Two restores have two times.
    #[prost(uint64, tag = "20")]
    pub begun_ms: u64,
    /// The level in force; 0 is 1.
    #[prost(uint32, tag = "13")]
    pub level: u32,
    /// The version of this software that brought it.
    #[prost(string, tag = "14")]
    pub level_since: String,
    /// Number of the issuing authority that was made last: never used again.
    #[prost(uint64, tag = "21")]
    pub last_issuer: u64,
    /// Number of what came last in enrollment: requests, intents. Since level 6.
    #[prost(uint64, tag = "25")]
    pub last_enrollment: u64,
    /// Number of the root in force; 0 for the only one. Since level 7.
    #[prost(uint64, tag = "30")]
    pub root_in_force: u64,
    /// While roots change: the one before. Since level 7.
    #[prost(uint64, tag = "31")]
    pub rollover_from: u64,
    /// While roots change: the next one; else 0. Since level 7.
    #[prost(uint64, tag = "32")]
    pub rollover_to: u64,
    /// While roots change: since when the next one is in force; 0 while it is not. Since level 7.
    #[prost(uint64, tag = "33")]
    pub rollover_activated_ms: u64,
    /// Number of the RA of SCEP that was made last: never used again. Since level 7.
    #[prost(uint64, tag = "40")]
    pub last_scep_ra: u64,
    /// Under which name lists are published. Since level 7.
    #[prost(message, optional, tag = "49")]
    pub publication: Option<super::PublicationRow>,
    /// Number of what changed lists last. Since level 7.
    #[prost(uint64, tag = "50")]
    pub lists_number: u64,
    /// When that was.
    #[prost(uint64, tag = "51")]
    pub lists_ms: u64,
    /// What delta lists start from, while they are made. Since level 8.
    #[prost(message, optional, tag = "85")]
    pub deltas: Option<super::DeltasRow>,
    /// From which number on records of attempts are stored in packs. Since level 8.
    #[prost(uint64, optional, tag = "90")]
    pub packed_attempts: Option<u64>,
    /// The same of answers to commands.
    #[prost(uint64, optional, tag = "91")]
    pub packed_answers: Option<u64>,
}

/// Settings of the cluster.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SettingsRow {
    /// Grows with each change.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// Allowed protocols in order.
    #[prost(enumeration = "v1::AuthMethod", repeated, tag = "2")]
    pub auth_methods: Vec<i32>,
    /// Keep passwords for CHAP-MD5.
    #[prost(bool, tag = "3")]
    pub store_chap_secrets: bool,
    /// IKE and ESP.
    #[prost(message, optional, tag = "4")]
    pub ike: Option<v1::IkeSettings>,
    /// PPP.
    #[prost(message, optional, tag = "5")]
    pub ppp: Option<v1::PppSettings>,
    /// Seconds, 0 for never.
    #[prost(uint32, tag = "6")]
    pub idle_timeout_s: u32,
    /// Seconds, 0 for never.
    #[prost(uint32, tag = "7")]
    pub session_timeout_s: u32,
    /// Most sessions of a user, 0 for no limit.
    #[prost(uint32, tag = "8")]
    pub max_sessions_per_user: u32,
    /// Wrong passwords before waiting, 0 for never.
    #[prost(uint32, tag = "9")]
    pub lockout_failures: u32,
    /// How long to wait, seconds.
    #[prost(uint32, tag = "10")]
    pub lockout_s: u32,
    /// Attempts to keep.
    #[prost(uint32, tag = "11")]
    pub audit_keep: u32,
    /// Keep the level of the cluster as it is.
    #[prost(bool, tag = "12")]
    pub hold_upgrade: bool,
    /// How long a gateway lets in what it knows while it hears of no revocations, seconds; 0 for the default. Since level 7.
    #[prost(uint32, tag = "13")]
    pub max_stale_s: u32,
    /// And whether it ends its sessions then. Since level 7.
    #[prost(bool, tag = "14")]
    pub fail_closed: bool,
    /// Speak SCEP. Since level 7.
    #[prost(bool, tag = "15")]
    pub scep: bool,
    /// Read SCEP requests in single DES. Since level 7.
    #[prost(bool, tag = "16")]
    pub scep_single_des: bool,
    /// Host, or host and port, under which lists are published; empty for the name of a gateway. Since level 7.
    #[prost(string, tag = "17")]
    pub publication_name: String,
    /// The names under which clients reach the service. Since level 7.
    #[prost(string, repeated, tag = "18")]
    pub public_names: Vec<String>,
    /// Publish delta lists beside complete ones. Since level 8.
    #[prost(bool, tag = "30")]
    pub delta_crl: bool,
}

impl SettingsRow {
    /// How long a gateway lets in what it knows while it hears of no revocations, seconds.
    pub fn max_stale_s(&self) -> u32 {
        if self.max_stale_s == 0 { crate::api::live::MAX_STALE_S } else { self.max_stale_s }
    }

    /// What a new cluster starts with.
    pub fn initial() -> Self {
        Self {
            version: 1,
            auth_methods: vec![v1::AuthMethod::Mschapv2.into()],
            lockout_failures: 10,
            lockout_s: 60,
            audit_keep: 10_000,
            ..Self::default()
        }
    }
}

/// A user.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UserRow {
    /// The name as written.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Whether the user may connect.
    #[prost(bool, tag = "2")]
    pub enabled: bool,
    /// The password, sealed.
    #[prost(message, optional, tag = "3")]
    pub credentials: Option<Credentials>,
    /// Which credentials these are; never the same twice in a cluster.
    #[prost(uint64, tag = "4")]
    pub credentials_version: u64,
    /// Pool, empty for any.
    #[prost(string, tag = "5")]
    pub pool: String,
    /// Fixed address, 0 for none.
    #[prost(fixed32, tag = "6")]
    pub address: u32,
    /// Most sessions, 0 for the default.
    #[prost(uint32, tag = "7")]
    pub max_sessions: u32,
    /// When added.
    #[prost(uint64, tag = "8")]
    pub created_ms: u64,
    /// When the password was set.
    #[prost(uint64, tag = "9")]
    pub password_set_ms: u64,
    /// Free text.
    #[prost(string, tag = "10")]
    pub comment: String,
    /// The address of the last session: given again when it is free.
    #[prost(fixed32, tag = "11")]
    pub last_address: u32,
}

/// A pool.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PoolRow {
    /// Networks.
    #[prost(message, repeated, tag = "1")]
    pub networks: Vec<Net>,
    /// The gateway's address.
    #[prost(fixed32, tag = "2")]
    pub router: u32,
    /// Name servers.
    #[prost(fixed32, repeated, tag = "3")]
    pub dns: Vec<u32>,
    /// NetBIOS name servers.
    #[prost(fixed32, repeated, tag = "4")]
    pub nbns: Vec<u32>,
    /// Never leased.
    #[prost(message, repeated, tag = "5")]
    pub excluded: Vec<Net>,
    /// The address leased last; the search for a free one starts behind it, so that addresses rest before they are used again.
    #[prost(fixed32, tag = "6")]
    pub cursor: u32,
}

/// Why a session shall end.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Doom {
    /// Why.
    #[prost(enumeration = "v1::EndReason", tag = "1")]
    pub reason: i32,
    /// Why, in words.
    #[prost(string, tag = "2")]
    pub text: String,
}

/// A session, and with it the lease of its address.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionRow {
    /// Folded name of the user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The client's address: nobody else's while this row is there.
    #[prost(fixed32, tag = "2")]
    pub address: u32,
    /// Pool it comes from.
    #[prost(string, tag = "3")]
    pub pool: String,
    /// Slot of the owner.
    #[prost(uint32, tag = "4")]
    pub slot: u32,
    /// Epoch of the owner.
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    /// The owner's number for it.
    #[prost(uint64, tag = "6")]
    pub session_key: u64,
    /// Outer address of the peer when it was opened.
    #[prost(string, tag = "7")]
    pub remote: String,
    /// The machine.
    #[prost(message, optional, tag = "8")]
    pub machine: Option<v1::MachineIdentity>,
    /// The tunnel.
    #[prost(message, optional, tag = "9")]
    pub tunnel: Option<v1::TunnelInfo>,
    /// How the user was authenticated.
    #[prost(enumeration = "v1::AuthMethod", tag = "10")]
    pub method: i32,
    /// When opened, log's time.
    #[prost(uint64, tag = "11")]
    pub created_ms: u64,
    /// When up, log's time; 0 for not yet.
    #[prost(uint64, tag = "12")]
    pub up_ms: u64,
    /// Set when it shall end.
    #[prost(message, optional, tag = "13")]
    pub doom: Option<Doom>,
}

/// A certificate that this authority signed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRow {
    /// Serial number, hexadecimal.
    #[prost(string, tag = "1")]
    pub serial: String,
    /// What for.
    #[prost(enumeration = "v1::CertificateProfile", tag = "2")]
    pub profile: i32,
    /// The name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// All names in it.
    #[prost(string, repeated, tag = "4")]
    pub sans: Vec<String>,
    /// Valid from.
    #[prost(uint64, tag = "5")]
    pub not_before_ms: u64,
    /// Valid until.
    #[prost(uint64, tag = "6")]
    pub not_after_ms: u64,
    /// SHA-256 of the certificate.
    #[prost(bytes = "vec", tag = "7")]
    pub fingerprint: Vec<u8>,
    /// Kind of key.
    #[prost(enumeration = "v1::KeyAlgorithm", tag = "8")]
    pub key_algorithm: i32,
    /// When recorded, log's time.
    #[prost(uint64, tag = "9")]
    pub issued_ms: u64,
    /// When revoked; 0 for not.
    #[prost(uint64, tag = "10")]
    pub revoked_ms: u64,
    /// Why revoked.
    #[prost(string, tag = "11")]
    pub revocation_reason: String,
    /// Place in the order of issuing.
    #[prost(uint64, tag = "12")]
    pub number: u64,
    /// Place in the order of revocations; 0 for not revoked.
    #[prost(uint64, tag = "13")]
    pub revocation_number: u64,
    /// The controller in whose state folder it is, if it is for itself or for the operator's folder there.
    #[prost(uint64, tag = "14")]
    pub member: u64,
    /// Number of the issuing authority that signed it; 0 for the root. Since level 6.
    #[prost(uint64, tag = "15")]
    pub issuer: u64,
    /// Why revoked, as a number of RFC 5280 §5.3.1; 6 is on hold, which can be released. Since level 7.
    #[prost(uint32, tag = "16")]
    pub revocation_code: u32,
    /// Place of its last release from hold in the order of revocations; 0 for none since it was revoked last. Since level 7.
    #[prost(uint64, tag = "17")]
    pub release_number: u64,
    /// SHA-256 of its public key, of what was enrolled for. Since level 7; empty before.
    #[prost(bytes = "vec", tag = "18")]
    pub key_sha256: Vec<u8>,
    /// The gateway that it is for, of one for IKE that an operator had made. Since level 7.
    #[prost(string, tag = "19")]
    pub gateway: String,
}

impl CertificateRow {
    /// Why it is revoked.
    pub fn reason(&self) -> Reason {
        u8::try_from(self.revocation_code).ok().and_then(Reason::from_code).unwrap_or_default()
    }

    /// Whether it is revoked for the time being.
    pub fn is_on_hold(&self) -> bool {
        self.revoked_ms != 0 && self.reason() == Reason::CertificateHold
    }
}

/// A controller of the cluster.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberRow {
    /// Name for lists.
    #[prost(string, tag = "1")]
    pub name: String,
    /// HOST:PORT where other members reach it.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Its software, when it last said so.
    #[prost(string, tag = "3")]
    pub version: String,
    /// Whether it shall vote.
    #[prost(bool, tag = "4")]
    pub wants_vote: bool,
    /// When it joined, log's time.
    #[prost(uint64, tag = "5")]
    pub joined_ms: u64,
    /// When it was removed; 0 for not.
    #[prost(uint64, tag = "6")]
    pub removed_ms: u64,
    /// The id it has now, when it was removed because it came back without its store.
    #[prost(uint64, tag = "7")]
    pub successor: u64,
    /// The highest level that its software understands, when it last said so; 0 is 1.
    #[prost(uint32, tag = "8")]
    pub supports_level: u32,
}

/// A token with which a controller can join.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TokenRow {
    /// SHA-256 of its secret.
    #[prost(bytes = "vec", tag = "1")]
    pub hash: Vec<u8>,
    /// When it ends, log's time.
    #[prost(uint64, tag = "2")]
    pub expires_ms: u64,
    /// Who made it.
    #[prost(string, tag = "3")]
    pub made_by: String,
}

/// Wrong passwords of a user from an address, or through a gateway.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LockoutRow {
    /// How many in a row.
    #[prost(uint32, tag = "1")]
    pub failures: u32,
    /// When the last was given, log's time.
    #[prost(uint64, tag = "2")]
    pub last_ms: u64,
    /// The gateway that brought the last; empty for one of a time before this was noted. Since level 4.
    #[prost(string, tag = "3")]
    pub gateway: String,
    /// Whether there was such a user when the last was given. Since level 5.
    #[prost(bool, tag = "4")]
    pub of_user: bool,
}

/// A root of the authority.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RootRow {
    /// The certificate, DER.
    #[prost(bytes = "vec", tag = "1")]
    pub certificate: Vec<u8>,
    /// Its key, PKCS #8, sealed.
    #[prost(bytes = "vec", tag = "2")]
    pub sealed_key: Vec<u8>,
}

/// An authority below a root, which issues certificates.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IssuerRow {
    /// The certificate, DER.
    #[prost(bytes = "vec", tag = "1")]
    pub certificate: Vec<u8>,
    /// Its key, PKCS #8, sealed.
    #[prost(bytes = "vec", tag = "2")]
    pub sealed_key: Vec<u8>,
    /// Number of the root that signed it.
    #[prost(uint64, tag = "3")]
    pub root: u64,
    /// When it was made, log's time.
    #[prost(uint64, tag = "4")]
    pub made_ms: u64,
    /// Since when it issues no more; 0 while it does.
    #[prost(uint64, tag = "5")]
    pub retired_ms: u64,
    /// Kind of its key.
    #[prost(enumeration = "v1::KeyAlgorithm", tag = "6")]
    pub key_algorithm: i32,
    /// Serial number of its certificate, hexadecimal: where its record is.
    #[prost(string, tag = "7")]
    pub serial: String,
    /// Which names it may certify; nothing for all. Since level 8.
    #[prost(message, optional, tag = "8")]
    pub constraints: Option<ConstraintsRow>,
    /// Since when its key is known to be in other hands; 0 while nobody has said so. Since level 8.
    #[prost(uint64, tag = "9")]
    pub compromised_ms: u64,
}

/// The name constraints of an authority, as they stand in its certificate. Since level 8.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConstraintsRow {
    /// What is permitted: domains, and networks with a slash.
    #[prost(string, repeated, tag = "1")]
    pub permitted: Vec<String>,
    /// What is excluded.
    #[prost(string, repeated, tag = "2")]
    pub excluded: Vec<String>,
}

/// A gateway.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GatewayRow {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Incarnation.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Which process.
    #[prost(bytes = "vec", tag = "3")]
    pub boot_id: Vec<u8>,
    /// Its software.
    #[prost(string, tag = "4")]
    pub version: String,
    /// Public addresses.
    #[prost(string, repeated, tag = "5")]
    pub addresses: Vec<String>,
    /// Most sessions, 0 for no limit.
    #[prost(uint32, tag = "6")]
    pub max_sessions: u32,
    /// When registered, log's time.
    #[prost(uint64, tag = "7")]
    pub registered_ms: u64,
    /// It fell silent and its sessions were ended; it must register again.
    #[prost(bool, tag = "8")]
    pub lost: bool,
    /// When it fell silent, log's time; 0 while it has not. Since level 8; 0 before.
    #[prost(uint64, tag = "9")]
    pub lost_ms: u64,
}

/// A command that was applied, and what was answered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnswerRow {
    /// Its request id.
    #[prost(bytes = "vec", tag = "1")]
    pub request_id: Vec<u8>,
    /// The log's time when it was applied.
    #[prost(uint64, tag = "2")]
    pub at_ms: u64,
    /// The answer.
    #[prost(message, optional, tag = "3")]
    pub reply: Option<Reply>,
}
