//! The only way the state changes. Whoever proposes a command puts everything random, timed or secret (sealed) into it.

use sallyport_ca::Profile;
use sallyport_proto::v1;

use super::compaction::{COMPACTION_LEVEL, CompactCertificates};
use super::constraints::CONSTRAINTS_LEVEL;
use super::deltas::DELTAS_LEVEL;
use super::enroll::{
    AbandonCertificate, CompleteCertificate, CreateEnrollToken, DecideRequest, ENROLL_LEVEL, GATEWAYS_LEVEL,
    GUARDS_LEVEL, IntendCertificate, OFFICE_LEVEL, Proof, ProofKind, PutMachines, QueueRequest, RULES_LEVEL,
    RemoveMachine, RevokeEnrollToken, SetGatewayNames, SetProfile,
};
use super::issuers::{COMPROMISED_LEVEL, ISSUERS_LEVEL};
use super::ledger::{AcceptHeads, Attributed, LEDGER_LEVEL, NoteKeyUse};
use super::net::Net;
use super::operators::{ROLES_LEVEL, SetOperatorRoles};
use super::publication::PUBLICATION_LEVEL;
use super::revocation::{REVOCATION_LEVEL, ReleaseCertificates, RevokeCertificates};
use super::root::{BeginRollover, EraseRootKey, InstallRootChain, ROOT_LEVEL, RestoreRootKey, TurnRollover};
use super::row::{CertificateRow, ConstraintsRow, SettingsRow};
use super::scep::{AddScepRa, STATUS_LEVEL};
use super::users::USERS_LEVEL;

/// A change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// 16 bytes; a command with an id that was applied before is answered as then and changes nothing. One that met a
    /// conflict was not applied.
    #[prost(bytes = "vec", tag = "1")]
    pub request_id: Vec<u8>,
    /// When it was proposed, by the time that the leader makes (`raft::LogTime`), milliseconds since 1970. The log's time
    /// never goes back, whatever stands here.
    #[prost(uint64, tag = "2")]
    pub at_ms: u64,
    /// What to do.
    #[prost(
        oneof = "Action",
        tags = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 55, 56, 57, 59, 63, 73"
    )]
    pub action: Option<Action>,
}

/// What to do. Numbers are part of the log: never reuse one.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Action {
    /// First command of a cluster.
    #[prost(message, tag = "3")]
    Bootstrap(Bootstrap),
    /// New user.
    #[prost(message, tag = "4")]
    AddUser(AddUser),
    /// User gone.
    #[prost(message, tag = "5")]
    RemoveUser(RemoveUser),
    /// New password.
    #[prost(message, tag = "6")]
    SetPassword(SetPassword),
    /// On or off.
    #[prost(message, tag = "7")]
    SetUserEnabled(SetUserEnabled),
    /// New pool.
    #[prost(message, tag = "8")]
    AddPool(AddPool),
    /// Pool gone.
    #[prost(message, tag = "9")]
    RemovePool(RemovePool),
    /// A certificate was signed.
    #[prost(message, tag = "10")]
    RecordCertificate(RecordCertificate),
    /// A certificate is no longer good.
    #[prost(message, tag = "11")]
    RevokeCertificate(RevokeCertificate),
    /// New pre-shared key.
    #[prost(message, tag = "12")]
    SetPsk(SetPsk),
    /// No pre-shared key.
    #[prost(message, tag = "13")]
    ClearPsk(ClearPsk),
    /// New settings.
    #[prost(message, tag = "14")]
    UpdateSettings(UpdateSettings),
    /// A gateway joins.
    #[prost(message, tag = "15")]
    RegisterGateway(RegisterGateway),
    /// A gateway fell silent.
    #[prost(message, tag = "16")]
    LoseGateway(LoseGateway),
    /// A gateway is forgotten.
    #[prost(message, tag = "17")]
    RemoveGateway(RemoveGateway),
    /// An authenticated user wants a session.
    #[prost(message, tag = "18")]
    OpenSession(OpenSession),
    /// Sessions came up.
    #[prost(message, tag = "19")]
    SessionsUp(SessionsUp),
    /// Sessions ended.
    #[prost(message, tag = "20")]
    EndSessions(EndSessions),
    /// A session shall end.
    #[prost(message, tag = "21")]
    KillSession(KillSession),
    /// Attempts for the audit.
    #[prost(message, tag = "22")]
    RecordAttempts(RecordAttempts),
    /// A token with which a controller can join.
    #[prost(message, tag = "23")]
    CreateToken(CreateToken),
    /// A controller joins by a token.
    #[prost(message, tag = "24")]
    AdmitMember(AdmitMember),
    /// A controller comes back without its store.
    #[prost(message, tag = "25")]
    ReadmitMember(ReadmitMember),
    /// A controller says what it is.
    #[prost(message, tag = "26")]
    DescribeMember(DescribeMember),
    /// A learner shall vote.
    #[prost(message, tag = "27")]
    PromoteMember(PromoteMember),
    /// A controller is out for good.
    #[prost(message, tag = "28")]
    RemoveMember(RemoveMember),
    /// All members understand more.
    #[prost(message, tag = "29")]
    RaiseLevel(RaiseLevel),
    /// No token is good any more.
    #[prost(message, tag = "30")]
    RevokeTokens(RevokeTokens),
    /// A user is given other bounds.
    #[prost(message, tag = "31")]
    UpdateUser(UpdateUser),
    /// A user's wrong passwords are forgotten.
    #[prost(message, tag = "32")]
    UnlockUser(UnlockUser),
    /// New issuing authorities.
    #[prost(message, tag = "33")]
    AddIssuers(AddIssuers),
    /// An issuing authority issues no more.
    #[prost(message, tag = "34")]
    RetireIssuer(RetireIssuer),
    /// A root's key leaves the state.
    #[prost(message, tag = "35")]
    EraseRootKey(EraseRootKey),
    /// A root's key comes back.
    #[prost(message, tag = "36")]
    RestoreRootKey(RestoreRootKey),
    /// A root stands below another authority's.
    #[prost(message, tag = "37")]
    InstallRootChain(InstallRootChain),
    /// Another root beside the one in force.
    #[prost(message, tag = "38")]
    BeginRollover(BeginRollover),
    /// A step in a change of roots.
    #[prost(message, tag = "39")]
    TurnRollover(TurnRollover),
    /// A profile is set.
    #[prost(message, tag = "40")]
    SetProfile(SetProfile),
    /// A token for first certificates.
    #[prost(message, tag = "41")]
    CreateEnrollToken(CreateEnrollToken),
    /// Such a token is no longer good.
    #[prost(message, tag = "42")]
    RevokeEnrollToken(RevokeEnrollToken),
    /// Machines that may enroll.
    #[prost(message, tag = "43")]
    PutMachines(PutMachines),
    /// A machine is forgotten.
    #[prost(message, tag = "44")]
    RemoveMachine(RemoveMachine),
    /// Somebody asks for a certificate without proof.
    #[prost(message, tag = "45")]
    QueueRequest(QueueRequest),
    /// An operator decides on that.
    #[prost(message, tag = "46")]
    DecideRequest(DecideRequest),
    /// A certificate shall be signed.
    #[prost(message, tag = "47")]
    IntendCertificate(IntendCertificate),
    /// It was signed.
    #[prost(message, tag = "48")]
    CompleteCertificate(CompleteCertificate),
    /// It will not be signed.
    #[prost(message, tag = "49")]
    AbandonCertificate(AbandonCertificate),
    /// Certificates are no longer good, all of a machine or of a holder.
    #[prost(message, tag = "50")]
    RevokeCertificates(RevokeCertificates),
    /// Certificates that were on hold are good again.
    #[prost(message, tag = "51")]
    ReleaseCertificates(ReleaseCertificates),
    /// Certificates that ended long ago make room.
    #[prost(message, tag = "52")]
    CompactCertificates(CompactCertificates),
    /// A key that the cluster shares for SCEP.
    #[prost(message, tag = "59")]
    AddScepRa(AddScepRa),
    /// A change in somebody's name.
    #[prost(message, tag = "55")]
    Attributed(Attributed),
    /// Heads of the audit log that are none of it.
    #[prost(message, tag = "56")]
    AcceptHeads(AcceptHeads),
    /// A key is about to be used, or to leave.
    #[prost(message, tag = "57")]
    NoteKeyUse(NoteKeyUse),
    /// The public names of one gateway are set.
    #[prost(message, tag = "63")]
    SetGatewayNames(SetGatewayNames),
    /// What an operator may change.
    #[prost(message, tag = "73")]
    SetOperatorRoles(SetOperatorRoles),
}

impl Action {
    /// The level from which on this may stand in the log: one for each command, or higher for fields that came later.
    pub fn level(&self) -> u32 {
        match self {
            Self::Bootstrap(_)
            | Self::AddUser(_)
            | Self::RemoveUser(_)
            | Self::SetPassword(_)
            | Self::SetUserEnabled(_)
            | Self::AddPool(_)
            | Self::RemovePool(_)
            | Self::RevokeCertificate(_)
            | Self::SetPsk(_)
            | Self::ClearPsk(_)
            | Self::RegisterGateway(_)
            | Self::LoseGateway(_)
            | Self::RemoveGateway(_)
            | Self::OpenSession(_)
            | Self::SessionsUp(_)
            | Self::EndSessions(_)
            | Self::KillSession(_)
            | Self::CreateToken(_)
            | Self::ReadmitMember(_)
            | Self::DescribeMember(_)
            | Self::PromoteMember(_)
            | Self::RemoveMember(_)
            | Self::RaiseLevel(_) => 1,
            Self::RevokeTokens(_) => 2,
            Self::RecordCertificate(c) => match &c.record {
                Some(record) if record.profile == v1::CertificateProfile::OcspSigner as i32 => STATUS_LEVEL,
                Some(record) if !record.gateway.is_empty() => GATEWAYS_LEVEL,
                Some(record) if record.issuer != 0 => ISSUERS_LEVEL,
                _ if c.answer.is_empty() => 1,
                _ => 3,
            },
            Self::AdmitMember(c) => match &c.record {
                Some(record) if record.issuer != 0 => ISSUERS_LEVEL,
                _ => 1,
            },
            Self::UpdateSettings(c) => match &c.settings {
                Some(settings) if settings.delta_crl => DELTAS_LEVEL,
                Some(settings) if !settings.public_names.is_empty() => GATEWAYS_LEVEL,
                Some(settings) if settings.max_stale_s != 0 || settings.fail_closed => REVOCATION_LEVEL,
                Some(settings) if !settings.publication_name.is_empty() => PUBLICATION_LEVEL,
                Some(settings) if settings.scep || settings.scep_single_des => STATUS_LEVEL,
                _ => 1,
            },
            Self::RecordAttempts(c) if c.attempts.iter().any(|a| !a.evidence.is_empty()) => LEDGER_LEVEL,
            Self::RecordAttempts(c) if c.attempts.iter().any(|a| a.certificate_verdict != 0) => REVOCATION_LEVEL,
            Self::RecordAttempts(c) => {
                if c.gateway.is_empty() {
                    1
                } else {
                    4
                }
            }
            Self::RevokeCertificates(_) | Self::ReleaseCertificates(_) => REVOCATION_LEVEL,
            Self::UpdateUser(_) | Self::UnlockUser(_) => USERS_LEVEL,
            Self::AddIssuers(c) if c.issuers.iter().any(|new| new.constraints.is_some()) => CONSTRAINTS_LEVEL,
            Self::TurnRollover(c) if c.issuers.iter().any(|new| new.constraints.is_some()) => CONSTRAINTS_LEVEL,
            Self::RetireIssuer(c) if c.compromised => COMPROMISED_LEVEL,
            Self::AddIssuers(_) | Self::RetireIssuer(_) => ISSUERS_LEVEL,
            Self::EraseRootKey(_)
            | Self::RestoreRootKey(_)
            | Self::InstallRootChain(_)
            | Self::BeginRollover(_)
            | Self::TurnRollover(_) => ROOT_LEVEL,
            Self::PutMachines(c) if c.keep => GUARDS_LEVEL,
            Self::SetProfile(c) => match &c.profile {
                Some(row) if row.no_addresses || row.not_by_operators => RULES_LEVEL,
                _ => ENROLL_LEVEL,
            },
            Self::RevokeEnrollToken(_)
            | Self::PutMachines(_)
            | Self::RemoveMachine(_)
            | Self::QueueRequest(_)
            | Self::DecideRequest(_)
            | Self::CompleteCertificate(_)
            | Self::AbandonCertificate(_) => ENROLL_LEVEL,
            Self::CompactCertificates(_) => COMPACTION_LEVEL,
            Self::AddScepRa(_) => STATUS_LEVEL,
            Self::AcceptHeads(_) | Self::NoteKeyUse(_) => LEDGER_LEVEL,
            Self::Attributed(c) => match c.action.as_ref().map(|inner| inner.action.as_ref()) {
                // One within another is refused when it is applied.
                Some(Some(Self::Attributed(_))) | Some(None) | None => LEDGER_LEVEL,
                Some(Some(action)) => action.level().max(LEDGER_LEVEL),
            },
            Self::CreateEnrollToken(c) if c.profile == Profile::GatewayLink.name() => GATEWAYS_LEVEL,
            Self::IntendCertificate(IntendCertificate {
                proof: Some(Proof { kind: Some(ProofKind::Office(_)) }),
                ..
            }) => OFFICE_LEVEL,
            Self::IntendCertificate(c) => match &c.record {
                Some(record) if record.profile() != v1::CertificateProfile::Machine => GATEWAYS_LEVEL,
                _ => ENROLL_LEVEL,
            },
            Self::CreateEnrollToken(_) => ENROLL_LEVEL,
            Self::SetGatewayNames(_) => GATEWAYS_LEVEL,
            Self::SetOperatorRoles(_) => ROLES_LEVEL,
        }
    }
}

/// First command of a cluster.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bootstrap {
    /// 16 random bytes; part of what every seal is bound to.
    #[prost(bytes = "vec", tag = "1")]
    pub cluster_id: Vec<u8>,
    /// The root certificate, DER.
    #[prost(bytes = "vec", tag = "2")]
    pub root_certificate: Vec<u8>,
    /// Its key, PKCS #8, sealed.
    #[prost(bytes = "vec", tag = "3")]
    pub sealed_root_key: Vec<u8>,
    /// Its record.
    #[prost(message, optional, tag = "4")]
    pub record: Option<CertificateRow>,
    /// The first member.
    #[prost(message, optional, tag = "5")]
    pub member: Option<DescribeMember>,
}

/// What a password leaves behind, sealed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Credentials {
    /// NT hash, for MS-CHAPv2.
    #[prost(bytes = "vec", tag = "1")]
    pub sealed_nt_hash: Vec<u8>,
    /// Argon2id verifier, for PAP.
    #[prost(bytes = "vec", tag = "2")]
    pub sealed_verifier: Vec<u8>,
    /// The password itself, for CHAP-MD5; empty where the settings do not ask for it.
    #[prost(bytes = "vec", tag = "3")]
    pub sealed_password: Vec<u8>,
}

/// New user.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddUser {
    /// The name folded to lower case: what users are found by.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The name as written.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The password.
    #[prost(message, optional, tag = "3")]
    pub credentials: Option<Credentials>,
    /// Pool, empty for any.
    #[prost(string, tag = "4")]
    pub pool: String,
    /// Fixed address, 0 for none.
    #[prost(fixed32, tag = "5")]
    pub address: u32,
    /// Most sessions, 0 for the default.
    #[prost(uint32, tag = "6")]
    pub max_sessions: u32,
    /// Whether the user may connect.
    #[prost(bool, tag = "7")]
    pub enabled: bool,
    /// Free text.
    #[prost(string, tag = "8")]
    pub comment: String,
}

/// User gone.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveUser {
    /// Folded name.
    #[prost(string, tag = "1")]
    pub key: String,
}

/// New password.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetPassword {
    /// Folded name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The password.
    #[prost(message, optional, tag = "2")]
    pub credentials: Option<Credentials>,
}

/// A user is given other bounds; what is not there stays as it is. Sessions stay.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateUser {
    /// Folded name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Pool, empty for any.
    #[prost(string, optional, tag = "2")]
    pub pool: Option<String>,
    /// Fixed address, 0 for none.
    #[prost(fixed32, optional, tag = "3")]
    pub address: Option<u32>,
    /// Most sessions, 0 for the default.
    #[prost(uint32, optional, tag = "4")]
    pub max_sessions: Option<u32>,
    /// Free text.
    #[prost(string, optional, tag = "5")]
    pub comment: Option<String>,
}

/// A user's wrong passwords are forgotten, from all addresses and through all gateways.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UnlockUser {
    /// Folded name; the user need not exist.
    #[prost(string, tag = "1")]
    pub key: String,
}

/// On or off.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetUserEnabled {
    /// Folded name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// On.
    #[prost(bool, tag = "2")]
    pub enabled: bool,
}

/// New pool.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddPool {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Networks.
    #[prost(message, repeated, tag = "2")]
    pub networks: Vec<Net>,
    /// The gateway's address.
    #[prost(fixed32, tag = "3")]
    pub router: u32,
    /// Name servers.
    #[prost(fixed32, repeated, tag = "4")]
    pub dns: Vec<u32>,
    /// NetBIOS name servers.
    #[prost(fixed32, repeated, tag = "5")]
    pub nbns: Vec<u32>,
    /// Never leased.
    #[prost(message, repeated, tag = "6")]
    pub excluded: Vec<Net>,
}

/// Pool gone.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemovePool {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// End its sessions.
    #[prost(bool, tag = "2")]
    pub force: bool,
}

/// A certificate was signed; nobody has it before this is applied.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RecordCertificate {
    /// Its record.
    #[prost(message, optional, tag = "1")]
    pub record: Option<CertificateRow>,
    /// What the caller is answered, sealed; empty where nobody can ask again.
    #[prost(bytes = "vec", tag = "2")]
    pub answer: Vec<u8>,
}

/// A certificate is no longer good.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RevokeCertificate {
    /// Serial number.
    #[prost(string, tag = "1")]
    pub serial: String,
    /// Why.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// New pre-shared key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetPsk {
    /// The key, sealed.
    #[prost(bytes = "vec", tag = "1")]
    pub sealed: Vec<u8>,
}

/// No pre-shared key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClearPsk {}

/// New settings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateSettings {
    /// All of them; `version` is the one they were made from.
    #[prost(message, optional, tag = "1")]
    pub settings: Option<SettingsRow>,
}

/// A gateway joins or comes back.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegisterGateway {
    /// Name, checked against its certificate.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its software.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Which process.
    #[prost(bytes = "vec", tag = "3")]
    pub boot_id: Vec<u8>,
    /// Public addresses.
    #[prost(string, repeated, tag = "4")]
    pub addresses: Vec<String>,
    /// Most sessions, 0 for no limit.
    #[prost(uint32, tag = "5")]
    pub max_sessions: u32,
}

/// A gateway fell silent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LoseGateway {
    /// Its slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// The incarnation that fell silent.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
}

/// A gateway is forgotten.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveGateway {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// An authenticated user wants a session: authorization and lease are decided here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenSession {
    /// Random id for the new session.
    #[prost(fixed64, tag = "1")]
    pub session_id: u64,
    /// Folded name of the user.
    #[prost(string, tag = "2")]
    pub user: String,
    /// The credentials that were checked; others mean that the password was changed meanwhile.
    #[prost(uint64, tag = "3")]
    pub credentials_version: u64,
    /// The gateway's slot.
    #[prost(uint32, tag = "4")]
    pub slot: u32,
    /// The gateway's epoch.
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    /// The gateway's number for the session.
    #[prost(uint64, tag = "6")]
    pub session_key: u64,
    /// Outer address of the peer.
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
    /// Names the attempt if it is refused here.
    #[prost(bytes = "vec", tag = "11")]
    pub attempt_id: Vec<u8>,
    /// Whose wrong passwords are forgotten, as this one was right.
    #[prost(message, optional, tag = "12")]
    pub guesser: Option<Guesser>,
}

/// Sessions came up.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionsUp {
    /// The gateway's slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// The gateway's epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Which.
    #[prost(fixed64, repeated, tag = "3")]
    pub session_ids: Vec<u64>,
}

/// One session that ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndedSession {
    /// Which.
    #[prost(fixed64, tag = "1")]
    pub session_id: u64,
    /// Why.
    #[prost(enumeration = "v1::EndReason", tag = "2")]
    pub reason: i32,
    /// Why, in words.
    #[prost(string, tag = "3")]
    pub text: String,
}

/// Sessions ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndSessions {
    /// The gateway's slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// The gateway's epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Which and why.
    #[prost(message, repeated, tag = "3")]
    pub sessions: Vec<EndedSession>,
}

/// A session shall end.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KillSession {
    /// Which.
    #[prost(fixed64, tag = "1")]
    pub session_id: u64,
    /// Why, in words.
    #[prost(string, tag = "2")]
    pub text: String,
}

/// A token with which one controller can join.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateToken {
    /// Its id, 8 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// SHA-256 of its secret.
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
    /// How long it is good, milliseconds of the log's time.
    #[prost(uint64, tag = "3")]
    pub ttl_ms: u64,
    /// Who made it.
    #[prost(string, tag = "4")]
    pub made_by: String,
}

/// What a controller is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DescribeMember {
    /// Its id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Name for lists.
    #[prost(string, tag = "2")]
    pub name: String,
    /// HOST:PORT where other members reach it.
    #[prost(string, tag = "3")]
    pub address: String,
    /// Its software.
    #[prost(string, tag = "4")]
    pub version: String,
    /// The highest level that its software understands; 0 is 1.
    #[prost(uint32, tag = "5")]
    pub level: u32,
}

/// A controller joins by a token: the token is used up and the certificate recorded in the same entry.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AdmitMember {
    /// The token's id.
    #[prost(bytes = "vec", tag = "1")]
    pub token: Vec<u8>,
    /// SHA-256 of the secret that was shown.
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
    /// The member; its id is given by the state.
    #[prost(message, optional, tag = "3")]
    pub member: Option<DescribeMember>,
    /// Never to vote unless promoted.
    #[prost(bool, tag = "4")]
    pub learner: bool,
    /// Its certificate; the member's id in it is filled in by the state.
    #[prost(message, optional, tag = "5")]
    pub record: Option<CertificateRow>,
}

/// A controller comes back without its store: whoever forgot how it voted must not vote under the same id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadmitMember {
    /// The id that it had.
    #[prost(uint64, tag = "1")]
    pub old_id: u64,
    /// What it is now; its id is given by the state.
    #[prost(message, optional, tag = "2")]
    pub member: Option<DescribeMember>,
}

/// A learner shall vote.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PromoteMember {
    /// Its id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// A controller is out for good; its certificates are revoked.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveMember {
    /// Its id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// All members understand more than the level in force.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RaiseLevel {
    /// The level from now on.
    #[prost(uint32, tag = "1")]
    pub level: u32,
    /// The version that brought it: what a node with older software is told to install.
    #[prost(string, tag = "2")]
    pub since: String,
}

/// No token is good any more: one may have come into wrong hands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RevokeTokens {}

/// New issuing authorities, all or none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddIssuers {
    /// Each of another kind of key.
    #[prost(message, repeated, tag = "1")]
    pub issuers: Vec<NewIssuer>,
    /// Those of the same kinds that are in force are retired. Without it there must be none.
    #[prost(bool, tag = "2")]
    pub replace: bool,
}

/// A new issuing authority.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NewIssuer {
    /// Its number: the next one, which stands in its name.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The certificate, DER.
    #[prost(bytes = "vec", tag = "2")]
    pub certificate: Vec<u8>,
    /// Its key, PKCS #8, sealed.
    #[prost(bytes = "vec", tag = "3")]
    pub sealed_key: Vec<u8>,
    /// Number of the root that signed it.
    #[prost(uint64, tag = "4")]
    pub root: u64,
    /// The record of its certificate.
    #[prost(message, optional, tag = "5")]
    pub record: Option<CertificateRow>,
    /// Which names it may certify; nothing for all. Since level 8.
    #[prost(message, optional, tag = "6")]
    pub constraints: Option<ConstraintsRow>,
}

/// An issuing authority issues no more; what it has issued stays good.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RetireIssuer {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Its key is in other hands: its certificate is revoked, and its word counts no more. Since level 8.
    #[prost(bool, tag = "2")]
    pub compromised: bool,
}

/// Attempts for the audit.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RecordAttempts {
    /// The records.
    #[prost(message, repeated, tag = "1")]
    pub attempts: Vec<v1::Attempt>,
    /// Whose password was wrong: counted in the same entry.
    #[prost(message, optional, tag = "2")]
    pub guesser: Option<Guesser>,
    /// The gateway that handed that password on: counted, too. Since level 4; empty before.
    #[prost(string, tag = "3")]
    pub gateway: String,
}

/// Who gives passwords for a user.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Guesser {
    /// Folded name of the user, who need not exist.
    #[prost(string, tag = "1")]
    pub user: String,
    /// Address of the peer, 4 or 16 bytes; empty where it is not known.
    #[prost(bytes = "vec", tag = "2")]
    pub source: Vec<u8>,
}
