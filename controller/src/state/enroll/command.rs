//! Commands of enrollment. Numbers are part of the log: never reuse one. All since level 6.

use sallyport_proto::v1;

use super::gateways::GatewayProof;
use super::row::{MachineRow, ProfileRow};
use crate::state::row::CertificateRow;

/// What proves that a certificate may be had.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Proof {
    /// Which.
    #[prost(oneof = "ProofKind", tags = "1, 2, 3, 4, 5, 8")]
    pub kind: Option<ProofKind>,
}

/// The kinds of proof. None of them is a word of the request.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ProofKind {
    /// A token.
    #[prost(message, tag = "1")]
    Token(TokenProof),
    /// A certificate of ours, whose key the applicant holds: its serial number.
    #[prost(string, tag = "2")]
    Certificate(String),
    /// A machine of the list: its key, or the network that it comes from. Its folded name.
    #[prost(string, tag = "3")]
    Listed(String),
    /// An operator said yes: the number of the request.
    #[prost(uint64, tag = "4")]
    Approved(u64),
    /// A gateway, by the certificate that it calls with. Since level 7.
    #[prost(message, tag = "5")]
    Gateway(GatewayProof),
    /// Nobody enrolls: the controllers make it for one of themselves, or because an operator asks. Since level 8.
    #[prost(message, tag = "8")]
    Office(OfficeProof),
}

/// What comes of a certificate that nobody enrolls for. Since level 8.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OfficeProof {
    /// What names the request of a caller who may ask again, and has the same answer then; empty where nobody does.
    #[prost(bytes = "vec", tag = "1")]
    pub request_id: Vec<u8>,
    /// What he is answered beside the certificate, sealed.
    #[prost(bytes = "vec", tag = "2")]
    pub answer: Vec<u8>,
    /// Of an RA of SCEP: its key, sealed.
    #[prost(bytes = "vec", tag = "3")]
    pub sealed_key: Vec<u8>,
    /// And its number.
    #[prost(uint64, tag = "4")]
    pub number: u64,
    /// Whether the controller that it goes with was a member by then: the state fills it in.
    #[prost(bool, tag = "5")]
    pub of_member: bool,
}

/// A token that was shown.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TokenProof {
    /// Its id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// SHA-256 of its secret.
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
}

/// A profile is set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetProfile {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// All of it; `version` is the one that it was made from.
    #[prost(message, optional, tag = "2")]
    pub profile: Option<ProfileRow>,
}

/// A token for first certificates of one name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateEnrollToken {
    /// Its id, 8 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// SHA-256 of its secret.
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
    /// The profile.
    #[prost(string, tag = "3")]
    pub profile: String,
    /// The name that certificates get.
    #[prost(string, tag = "4")]
    pub name: String,
    /// Further names.
    #[prost(string, repeated, tag = "5")]
    pub sans: Vec<String>,
    /// How long it is good, milliseconds of the log's time.
    #[prost(uint64, tag = "6")]
    pub ttl_ms: u64,
    /// For how many certificates.
    #[prost(uint32, tag = "7")]
    pub uses: u32,
    /// Who made it.
    #[prost(string, tag = "8")]
    pub made_by: String,
    /// Whose machine it is for.
    #[prost(string, tag = "9")]
    pub holder: String,
}

/// A token is no longer good.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RevokeEnrollToken {
    /// Its id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
}

/// Machines that may enroll, or more about machines that are known. All or none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutMachines {
    /// Name, profile, further names, holder, key, network; the rest is not looked at.
    #[prost(message, repeated, tag = "1")]
    pub machines: Vec<MachineRow>,
    /// What is left out stays as it is known. Since level 7.
    #[prost(bool, tag = "2")]
    pub keep: bool,
}

/// A machine is forgotten: it may enroll by a token again, and not renew. Its certificates stay as they are.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveMachine {
    /// Folded name.
    #[prost(string, tag = "1")]
    pub key: String,
}

/// Somebody asked without proof.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueueRequest {
    /// SHA-256 of the public key.
    #[prost(bytes = "vec", tag = "1")]
    pub key_sha256: Vec<u8>,
    /// Kind of key.
    #[prost(enumeration = "v1::KeyAlgorithm", tag = "2")]
    pub key: i32,
    /// What the request says its name is.
    #[prost(string, tag = "3")]
    pub claims: String,
    /// Where it came from.
    #[prost(string, tag = "4")]
    pub source: String,
    /// The profile.
    #[prost(string, tag = "5")]
    pub profile: String,
}

/// An operator decides on a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DecideRequest {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Yes or no.
    #[prost(bool, tag = "2")]
    pub approve: bool,
    /// The name that its certificate gets.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Further names.
    #[prost(string, repeated, tag = "4")]
    pub sans: Vec<String>,
    /// Who decided.
    #[prost(string, tag = "5")]
    pub decided_by: String,
    /// Whose machine it is.
    #[prost(string, tag = "6")]
    pub holder: String,
}

/// A certificate shall be signed: the proof is used up in the entry that says so.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IntendCertificate {
    /// 16 bytes; the same again changes nothing.
    #[prost(bytes = "vec", tag = "1")]
    pub transaction: Vec<u8>,
    /// Why it may be.
    #[prost(message, optional, tag = "2")]
    pub proof: Option<Proof>,
    /// SHA-256 of the applicant's public key.
    #[prost(bytes = "vec", tag = "3")]
    pub key_sha256: Vec<u8>,
    /// Where the question came from.
    #[prost(string, tag = "4")]
    pub source: String,
    /// The version of the profile by which it was made.
    #[prost(uint64, tag = "5")]
    pub profile_version: u64,
    /// The TBSCertificate, DER.
    #[prost(bytes = "vec", tag = "6")]
    pub tbs: Vec<u8>,
    /// The record to be, without fingerprint.
    #[prost(message, optional, tag = "7")]
    pub record: Option<CertificateRow>,
    /// Number of the issuing authority.
    #[prost(uint64, tag = "8")]
    pub issuer: u64,
}

/// It was signed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CompleteCertificate {
    /// Its serial number.
    #[prost(string, tag = "1")]
    pub serial: String,
    /// The signature over what was intended. The first one counts.
    #[prost(bytes = "vec", tag = "2")]
    pub signature: Vec<u8>,
}

/// It will not be signed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AbandonCertificate {
    /// Its serial number.
    #[prost(string, tag = "1")]
    pub serial: String,
}
