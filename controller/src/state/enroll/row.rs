//! Rows of enrollment. Numbers are part of the store: never reuse one. All since level 6.

use sallyport_proto::v1;

use super::super::net::Net;
use super::super::row::CertificateRow;

/// What the operator decides for all certificates of a kind. What they may *contain* is in the software (`sallyport_ca::Profile`): no
/// row can make an authority, or a certificate for any purpose.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProfileRow {
    /// Grows with each change.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// How long a certificate lives, seconds.
    #[prost(uint64, tag = "2")]
    pub validity_s: u64,
    /// Kinds of key that are certified.
    #[prost(enumeration = "v1::KeyAlgorithm", repeated, tag = "3")]
    pub keys: Vec<i32>,
    /// The part of its life after which a machine that has not renewed is overdue, percent. Machines renew from two thirds to five
    /// sixths.
    #[prost(uint32, tag = "4")]
    pub overdue_percent: u32,
    /// How long after its end a certificate can still be renewed, seconds.
    #[prost(uint64, tag = "5")]
    pub late_renewal_s: u64,
    /// Ways to one.
    #[prost(enumeration = "v1::EnrollMethod", repeated, tag = "6")]
    pub methods: Vec<i32>,
    /// Names must end in one of these; none is no bound.
    #[prost(string, repeated, tag = "7")]
    pub name_suffixes: Vec<String>,
    /// Whether the controllers make the key if they are asked to (RFC 7030 §4.4).
    #[prost(bool, tag = "8")]
    pub server_keys: bool,
    /// Whether IP addresses may not stand in its certificates. Since level 7.
    #[prost(bool, tag = "9")]
    pub no_addresses: bool,
    /// Whether operators may not have certificates made from it, key and all. Since level 7.
    #[prost(bool, tag = "10")]
    pub not_by_operators: bool,
}

/// A token for first certificates of one name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EnrollTokenRow {
    /// SHA-256 of its secret.
    #[prost(bytes = "vec", tag = "1")]
    pub hash: Vec<u8>,
    /// The profile.
    #[prost(string, tag = "2")]
    pub profile: String,
    /// The name that certificates get.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Further names.
    #[prost(string, repeated, tag = "4")]
    pub sans: Vec<String>,
    /// When it ends, log's time.
    #[prost(uint64, tag = "5")]
    pub expires_ms: u64,
    /// For how many certificates it is good.
    #[prost(uint32, tag = "6")]
    pub uses: u32,
    /// And for how many it was used.
    #[prost(uint32, tag = "7")]
    pub used: u32,
    /// Who made it.
    #[prost(string, tag = "8")]
    pub made_by: String,
    /// When, log's time.
    #[prost(uint64, tag = "9")]
    pub made_ms: u64,
    /// Whose machine it is for, as people say it.
    #[prost(string, tag = "10")]
    pub holder: String,
}

/// A machine that has a certificate or may get one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MachineRow {
    /// The name as written.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The profile.
    #[prost(string, tag = "2")]
    pub profile: String,
    /// Further names.
    #[prost(string, repeated, tag = "3")]
    pub sans: Vec<String>,
    /// Whose it is.
    #[prost(string, tag = "4")]
    pub holder: String,
    /// When it became known, log's time.
    #[prost(uint64, tag = "5")]
    pub known_ms: u64,
    /// SHA-256 of the public key (SubjectPublicKeyInfo) that may enroll without a token; empty for none.
    #[prost(bytes = "vec", tag = "6")]
    pub key_sha256: Vec<u8>,
    /// The network from which it may enroll once without a token.
    #[prost(message, optional, tag = "7")]
    pub network: Option<Net>,
    /// Its newest certificate; empty before the first.
    #[prost(string, tag = "8")]
    pub serial: String,
    /// The one before: good until it ends, as the machine may not use the newest yet.
    #[prost(string, tag = "9")]
    pub previous: String,
    /// When it is overdue with the renewal of the newest, log's time; 0 for never.
    #[prost(uint64, tag = "10")]
    pub due_ms: u64,
    /// When the newest was issued, log's time.
    #[prost(uint64, tag = "11")]
    pub enrolled_ms: u64,
    /// How the newest was had.
    #[prost(enumeration = "v1::EnrollMethod", tag = "12")]
    pub method: i32,
    /// It was removed: none of its certificates renews any more.
    #[prost(bool, tag = "13")]
    pub removed: bool,
    /// Begin of the day in which renewals are counted, log's time.
    #[prost(uint64, tag = "14")]
    pub day_ms: u64,
    /// How many there were in it.
    #[prost(uint32, tag = "15")]
    pub renewals: u32,
}

/// Somebody who asked for a certificate without proof of who it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestRow {
    /// SHA-256 of the public key.
    #[prost(bytes = "vec", tag = "1")]
    pub key_sha256: Vec<u8>,
    /// Kind of key.
    #[prost(enumeration = "v1::KeyAlgorithm", tag = "2")]
    pub key: i32,
    /// What the request says its name is: shown to whoever decides, and nothing else.
    #[prost(string, tag = "3")]
    pub claims: String,
    /// Where it came from.
    #[prost(string, tag = "4")]
    pub source: String,
    /// The profile.
    #[prost(string, tag = "5")]
    pub profile: String,
    /// When, log's time.
    #[prost(uint64, tag = "6")]
    pub at_ms: u64,
    /// What became of it.
    #[prost(enumeration = "v1::RequestState", tag = "7")]
    pub state: i32,
    /// The name that whoever approved gave.
    #[prost(string, tag = "8")]
    pub name: String,
    /// Further names.
    #[prost(string, repeated, tag = "9")]
    pub sans: Vec<String>,
    /// Who decided.
    #[prost(string, tag = "10")]
    pub decided_by: String,
    /// When, log's time.
    #[prost(uint64, tag = "11")]
    pub decided_ms: u64,
    /// Whose machine it is.
    #[prost(string, tag = "12")]
    pub holder: String,
}

/// What shall be signed. It is here before the authority's key is touched.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IntentRow {
    /// Names the question: the same again gets the same certificate.
    #[prost(bytes = "vec", tag = "1")]
    pub transaction: Vec<u8>,
    /// The TBSCertificate, DER.
    #[prost(bytes = "vec", tag = "2")]
    pub tbs: Vec<u8>,
    /// The record to be.
    #[prost(message, optional, tag = "3")]
    pub record: Option<CertificateRow>,
    /// Number of the issuing authority.
    #[prost(uint64, tag = "4")]
    pub issuer: u64,
    /// When, log's time.
    #[prost(uint64, tag = "5")]
    pub at_ms: u64,
    /// What proved that it may be.
    #[prost(message, optional, tag = "6")]
    pub proof: Option<super::Proof>,
    /// Whose machine it is.
    #[prost(string, tag = "7")]
    pub holder: String,
    /// When the machine is overdue with the renewal of the new one, log's time.
    #[prost(uint64, tag = "8")]
    pub due_ms: u64,
    /// SHA-256 of the public key for which it was allowed. Since level 7; empty before.
    #[prost(bytes = "vec", tag = "9")]
    pub key_sha256: Vec<u8>,
    /// The version of the profile by which it was allowed. Since level 7; 0 before.
    #[prost(uint64, tag = "10")]
    pub profile_version: u64,
}

/// A certificate that was issued lately, for whoever asks again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IssuedRow {
    /// The question.
    #[prost(bytes = "vec", tag = "1")]
    pub transaction: Vec<u8>,
    /// The certificate, DER.
    #[prost(bytes = "vec", tag = "2")]
    pub certificate: Vec<u8>,
    /// When, log's time.
    #[prost(uint64, tag = "3")]
    pub at_ms: u64,
    /// Number of the issuing authority.
    #[prost(uint64, tag = "4")]
    pub issuer: u64,
    /// Its serial number.
    #[prost(string, tag = "5")]
    pub serial: String,
}
