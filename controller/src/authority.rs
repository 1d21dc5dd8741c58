//! The authority at work: keys made here, certificates signed and recorded in the log before anybody gets them.

mod issuers;
pub(crate) mod office;
mod opened;
pub(crate) mod published;
pub(crate) mod rollover;
pub(crate) mod root;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sallyport_ca::{
    AltName, Certificate, Fingerprint, KeyAlgorithm, KeyPair, Profile, PublicKey, Serial, Subject, UnixTime, pem,
};
use sallyport_proto::{CONTROLLER_NAME, v1};
use zeroize::Zeroizing;

use crate::app::Core;
use crate::error::Error;
use crate::seal::Request;
use crate::state::{
    self, Action, CertificateRow, ConflictKind, GATEWAYS_LEVEL, Maker, OfficeProof, Outcome, RecordCertificate,
};

pub(crate) use self::issuers::{Wanted, add as add_issuers, first as first_issuers};
pub(crate) use self::opened::{Issuing, Opened};

/// How often a certificate is made anew because its authority ceased to issue meanwhile.
const MAX_TRIES: u32 = 3;
/// The level from which on answers are kept (see `software`).
const ANSWERS_LEVEL: u32 = 3;

/// A key and its certificate, just made.
pub struct Issued {
    /// PKCS #8 DER: the only copy.
    pub private_key: Zeroizing<Vec<u8>>,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Its issuers, the root last, DER.
    pub chain: Vec<Vec<u8>>,
    /// Its record.
    pub record: CertificateRow,
}

impl Issued {
    /// The certificate and what is between it and the root, PEM: what its owner shows.
    pub fn chain_pem(&self) -> String {
        let issuers = self.chain.split_last().map_or(&[][..], |(_, issuers)| issuers);
        pem_of(std::iter::once(&self.certificate).chain(issuers))
    }
}

/// Certificates one behind the other, PEM.
pub(crate) fn pem_of<'a>(certificates: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    certificates.into_iter().map(|der| pem::encode("CERTIFICATE", der).to_string()).collect()
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("record", &self.record).finish_non_exhaustive()
    }
}

/// What is asked of the authority.
#[derive(Clone, Debug)]
pub struct IssueRequest {
    /// What for.
    pub profile: Profile,
    /// The name.
    pub name: String,
    /// Further names.
    pub sans: Vec<String>,
    /// Kind of key.
    pub key: KeyAlgorithm,
    /// Days from now, 0 for the profile's default.
    pub days: u32,
}

/// An alternative name as people write it.
pub(crate) fn alt_name(text: &str) -> AltName {
    match text.parse::<IpAddr>() {
        Ok(address) => AltName::Ip(address),
        Err(_) if text.contains('@') => AltName::Email(text.to_owned()),
        Err(_) => AltName::Dns(text.to_ascii_lowercase()),
    }
}

/// The subject for a request: the name itself is among the alternative names wherever it can be one.
pub(crate) fn subject(request: &IssueRequest) -> Result<Subject, Error> {
    let refused = |e: sallyport_ca::Error| Error::Refused(e.to_string());
    let mut names: Vec<AltName> = Vec::new();
    if !request.sans.is_empty() {
        let own = Subject::new(&request.name, Vec::new()).map_err(|e| refused(e.into()))?;
        names.extend(own.alt_names().iter().cloned());
        names.extend(request.sans.iter().map(|s| alt_name(s)));
    }
    let subject = Subject::new(&request.name, names).map_err(|e| refused(e.into()))?;
    let pretends = subject.alt_names().iter().any(|n| n.to_string().eq_ignore_ascii_case(CONTROLLER_NAME));
    if pretends && request.profile != Profile::Controller {
        return Err(Error::Refused(format!("{CONTROLLER_NAME} is the name of controllers; choose another")));
    }
    Ok(subject)
}

/// How long a certificate is to live by the profile's rules as they are now, and their version; the log looks at them again.
fn rules(core: &Core, request: &IssueRequest, sans: &[String], maker: Maker) -> Result<(Duration, u64), Error> {
    let names: Vec<String> = std::iter::once(&request.name).chain(sans).cloned().collect();
    let (key, validity_s) = (algorithm_to_proto(request.key), u64::from(request.days).saturating_mul(86_400));
    let state = core.node.shared().read();
    let rules = state.may_make(request.profile, maker, key, &names, validity_s).map_err(Error::Refused)?;
    let validity = Duration::from_secs(if validity_s == 0 { rules.validity_s } else { validity_s });
    Ok((validity, rules.version))
}

/// The kind of key in a certificate record.
pub(crate) const fn algorithm_to_proto(algorithm: KeyAlgorithm) -> v1::KeyAlgorithm {
    match algorithm {
        KeyAlgorithm::EcdsaP256 => v1::KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384 => v1::KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Rsa2048 => v1::KeyAlgorithm::Rsa2048,
        KeyAlgorithm::Rsa3072 => v1::KeyAlgorithm::Rsa3072,
        KeyAlgorithm::Rsa4096 => v1::KeyAlgorithm::Rsa4096,
    }
}

pub(crate) const fn profile_to_proto(profile: Profile) -> v1::CertificateProfile {
    match profile {
        Profile::Machine => v1::CertificateProfile::Machine,
        Profile::Gateway => v1::CertificateProfile::Gateway,
        Profile::GatewayLink => v1::CertificateProfile::GatewayLink,
        Profile::Operator => v1::CertificateProfile::Operator,
        Profile::Controller => v1::CertificateProfile::Controller,
        Profile::Endpoint => v1::CertificateProfile::Endpoint,
        Profile::User => v1::CertificateProfile::User,
    }
}

fn ms(time: UnixTime) -> u64 {
    u64::try_from(time.0).unwrap_or(0).saturating_mul(1_000)
}

/// The record of a certificate.
pub(crate) fn record_of(
    certificate: &Certificate,
    profile: v1::CertificateProfile,
    name: &str,
    sans: Vec<String>,
    key: KeyAlgorithm,
) -> CertificateRow {
    CertificateRow {
        serial: certificate.serial.to_string(),
        profile: profile.into(),
        name: name.to_owned(),
        sans,
        not_before_ms: ms(certificate.not_before),
        not_after_ms: ms(certificate.not_after),
        fingerprint: certificate.fingerprint.0.to_vec(),
        key_algorithm: algorithm_to_proto(key).into(),
        ..CertificateRow::default()
    }
}

/// What a controller's certificate shall say.
#[derive(Clone, Debug)]
pub(crate) struct ControllerCertificate {
    /// Further host names and addresses.
    pub(crate) names: Vec<String>,
    /// Whose it is; 0 while the member has no id yet.
    pub(crate) member: u64,
}

/// What a certificate for somebody's own public key shall say.
#[derive(Clone, Debug)]
pub(crate) struct Certified {
    /// What for.
    pub(crate) profile: Profile,
    /// The name.
    pub(crate) name: String,
    /// Further names.
    pub(crate) names: Vec<String>,
    /// The controller that it goes with, 0 for none.
    pub(crate) member: u64,
}

/// A certificate for somebody's own public key.
pub(crate) struct CertifiedKey {
    /// The certificate, DER.
    pub(crate) certificate: Vec<u8>,
    /// What is between it and the root, DER.
    pub(crate) issuers: Vec<Vec<u8>>,
    /// Its record.
    pub(crate) record: CertificateRow,
}

/// Signs a certificate for a controller's own public key. Nobody may see it before its record is in the log.
pub(crate) async fn controller_certificate(
    core: &Arc<Core>,
    public: &PublicKey,
    what: ControllerCertificate,
) -> Result<CertifiedKey, Error> {
    let ControllerCertificate { names, member } = what;
    certify(core, public, Certified { profile: Profile::Controller, name: CONTROLLER_NAME.into(), names, member }).await
}

/// Has a certificate for anybody's own public key signed and recorded, once for a request of this id.
pub(crate) async fn certify_once(
    core: &Arc<Core>,
    public: &PublicKey,
    what: Certified,
    request_id: [u8; 16],
) -> Result<state::Issued, Error> {
    if !office::intends(core) {
        let made = certify(core, public, what).await?;
        let command = RecordCertificate { record: Some(made.record), answer: made.certificate };
        let issued = record(core, command, Some(request_id)).await?;
        let issued = issued.ok_or_else(|| Error::Internal("recording a certificate brought no answer".into()))?;
        return Ok(state::Issued { certificate: issued.answer.clone(), ..issued });
    }
    if let Some(issued) = core.node.shared().read().answered_with(&request_id) {
        let of_before = issued.certificate.is_empty();
        let certificate = if of_before { issued.answer.clone() } else { issued.certificate.clone() };
        return Ok(state::Issued { certificate, ..issued.clone() });
    }
    let mut tries = 1;
    loop {
        let draft = draft_for(core, public, what.clone())?;
        let office = OfficeProof { request_id: request_id.to_vec(), ..OfficeProof::default() };
        match office::issue(core, draft.wished(public, office)).await {
            // Another authority issues since a moment ago.
            Err(Error::Superseded(_)) if tries < MAX_TRIES => tries += 1,
            issued => return issued,
        }
    }
}

/// A certificate that is not signed yet.
struct Draft {
    prepared: sallyport_ca::Prepared,
    issuing: Issuing,
    record: CertificateRow,
    profile_version: u64,
}

impl Draft {
    fn wished(self, key: &PublicKey, office: OfficeProof) -> office::Wished {
        office::Wished {
            tbs: self.prepared.tbs().to_vec(),
            record: self.record,
            key_sha256: Fingerprint::of(key.spki_der()).0,
            profile_version: self.profile_version,
            office,
        }
    }
}

/// The same for anybody. Nobody may see it before its record is in the log.
async fn certify(core: &Arc<Core>, public: &PublicKey, what: Certified) -> Result<CertifiedKey, Error> {
    let (name, profile, member) = (what.name.clone(), what.profile, what.member);
    let draft = draft_for(core, public, what)?;
    let (worker, signer) = (core.clone(), draft.issuing.clone());
    let made = tokio::task::spawn_blocking(move || signer.authority.sign(&draft.prepared, worker.sealer.rng()));
    let made = made.await.map_err(|_| Error::Internal("making a certificate panicked".into()))?;
    let certificate = made.map_err(|e| Error::Refused(e.to_string()))?;
    let record = record_of(&certificate, profile_to_proto(profile), &name, draft.record.sans, public.algorithm());
    let mut issuers = draft.issuing.chain();
    issuers.pop();
    Ok(CertifiedKey {
        certificate: certificate.der().to_vec(),
        issuers,
        record: CertificateRow { member, issuer: draft.issuing.number, ..record },
    })
}

/// What would be signed for somebody's own public key.
fn draft_for(core: &Core, public: &PublicKey, what: Certified) -> Result<Draft, Error> {
    let (profile, name) = (what.profile, what.name);
    let request = IssueRequest { profile, name: name.clone(), sans: what.names, key: public.algorithm(), days: 0 };
    let subject = subject(&request)?;
    let sans: Vec<String> = subject.alt_names().iter().map(ToString::to_string).collect();
    // As the log sees it: see `Maker::of`.
    let of_cluster = what.member != 0 || profile == Profile::Controller;
    let maker = if of_cluster { Maker::Cluster } else { Maker::Operator };
    let (validity, profile_version) = rules(core, &request, &sans, maker)?;
    let issuing = core.issuing_for(profile, request.key)?;
    let now = UnixTime(i64::try_from(core.now_ms() / 1_000).unwrap_or(i64::MAX));
    let refused = |e: sallyport_ca::Error| Error::Refused(e.to_string());
    let serial = Serial::generate(core.sealer.rng()).map_err(refused)?;
    let prepared =
        issuing.authority.prepare(profile, &subject, public, now, validity, serial.clone()).map_err(refused)?;
    let before = office::record_before(&serial, prepared.period(), profile_to_proto(profile), &name, request.key);
    let record = CertificateRow { sans, member: what.member, issuer: issuing.number, ..before };
    Ok(Draft { prepared, issuing, record, profile_version })
}

/// Makes a key pair and a certificate, and records it. What is returned is in the log.
pub(crate) async fn issue(core: &Arc<Core>, request: IssueRequest) -> Result<Issued, Error> {
    issue_to(core, request, Owner::default()).await
}

/// Whose a certificate is: what is taken back with it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owner<'a> {
    /// The controller in whose state folder it is kept; 0 for none.
    pub(crate) member: u64,
    /// The gateway that shows it to clients; empty for none, and below the level that knows it.
    pub(crate) gateway: &'a str,
}

impl<'a> Owner<'a> {
    /// A gateway, if its records can say so.
    pub(crate) fn gateway(core: &Core, name: &'a str) -> Self {
        let known = core.node.shared().read().level() >= GATEWAYS_LEVEL;
        Self { gateway: if known { name } else { "" }, ..Self::default() }
    }
}

/// The same for somebody with whom it is revoked.
pub(crate) async fn issue_to(core: &Arc<Core>, request: IssueRequest, owner: Owner<'_>) -> Result<Issued, Error> {
    let mut tries = 1;
    while office::intends(core) {
        let (key, draft) = draft(core, request.clone(), owner).await?;
        let chain = draft.issuing.chain();
        let wished = draft.wished(&key.public_key(), OfficeProof::default());
        let record = wished.record.clone();
        match office::issue(core, wished).await {
            // Another authority issues since a moment ago.
            Err(Error::Superseded(_)) if tries < MAX_TRIES => tries += 1,
            Err(e) => return Err(e),
            Ok(had) => {
                let private_key = Zeroizing::new(key.pkcs8_der().to_vec());
                return finish(core, Issued { private_key, certificate: had.certificate, chain, record }).await;
            }
        }
    }
    loop {
        let made = make(core, request.clone(), owner).await?;
        let command = RecordCertificate { record: Some(made.record.clone()), answer: Vec::new() };
        match record(core, command, None).await {
            // Another authority issues since a moment ago.
            Err(Error::Superseded(_)) if tries < MAX_TRIES => tries += 1,
            Err(e) => return Err(e),
            Ok(_) => return finish(core, made).await,
        }
    }
}

/// The same for a caller that may ask again, and then has the same certificate and key. Where not all members know how to keep
/// the answer yet, it has another one.
pub(crate) async fn issue_once(
    core: &Arc<Core>,
    request: IssueRequest,
    owner: Owner<'_>,
    asked: Request<'_>,
) -> Result<Issued, Error> {
    let (knows, earlier) = {
        let state = core.node.shared().read();
        (state.level() >= ANSWERS_LEVEL, state.answered(&asked.id).cloned())
    };
    if !knows {
        return issue_to(core, request, owner).await;
    }
    if let Some(Outcome::Issued(earlier)) = earlier.and_then(|reply| reply.outcome) {
        return reopen(core, &asked, &earlier);
    }
    let mut tries = 1;
    while office::intends(core) {
        let (key, draft) = draft(core, request.clone(), owner).await?;
        let answer = sealed_key(core, &asked, &key)?;
        let office = OfficeProof { request_id: asked.id.to_vec(), answer, ..OfficeProof::default() };
        match office::issue(core, draft.wished(&key.public_key(), office)).await {
            // Another authority issues since a moment ago.
            Err(Error::Superseded(_)) if tries < MAX_TRIES => tries += 1,
            Err(e) => return Err(e),
            // Asked twice at a time: maybe the other one was first.
            Ok(had) => return reopen(core, &asked, &had),
        }
    }
    loop {
        let made = make(core, request.clone(), owner).await?;
        let answer = v1::IssueCertificateResponse {
            private_key: Some(v1::Secret::new(made.private_key.to_vec())),
            certificate: made.certificate.clone(),
            ..Default::default()
        };
        let answer = core.sealer.seal_answer(&core.cluster_id(), &asked, &Zeroizing::new(answer.encode_to_vec()))?;
        let command = RecordCertificate { record: Some(made.record.clone()), answer };
        return match record(core, command, Some(asked.id)).await {
            // Another authority issues since a moment ago.
            Err(Error::Superseded(_)) if tries < MAX_TRIES => {
                tries += 1;
                continue;
            }
            Err(e) => Err(e),
            // Asked twice at a time: the other one was first.
            Ok(Some(first)) if first.serial != made.record.serial => {
                core.catch_up().await;
                reopen(core, &asked, &first)
            }
            Ok(_) => finish(core, made).await,
        };
    }
}

/// What a caller is answered beside the certificate, which is not signed yet: its key, sealed.
fn sealed_key(core: &Core, asked: &Request<'_>, key: &KeyPair) -> Result<Vec<u8>, Error> {
    let private_key = Some(v1::Secret::new(key.pkcs8_der().to_vec()));
    let answer = v1::IssueCertificateResponse { private_key, ..Default::default() };
    core.sealer.seal_answer(&core.cluster_id(), asked, &Zeroizing::new(answer.encode_to_vec()))
}

/// Makes a key pair, and what would be signed for it.
async fn draft(core: &Arc<Core>, request: IssueRequest, owner: Owner<'_>) -> Result<(KeyPair, Draft), Error> {
    let Owner { member, gateway } = owner;
    let subject = subject(&request)?;
    let sans: Vec<String> = subject.alt_names().iter().map(ToString::to_string).collect();
    let maker = if member == 0 { Maker::Operator } else { Maker::Cluster };
    let (validity, profile_version) = rules(core, &request, &sans, maker)?;
    let now = UnixTime(i64::try_from(core.now_ms() / 1_000).unwrap_or(i64::MAX));
    let (profile, algorithm) = (request.profile, request.key);
    let issuing = core.issuing_for(profile, algorithm)?;
    let (worker, authority) = (core.clone(), issuing.authority.clone());
    // Making an RSA key takes a tenth of a second and more.
    let made = tokio::task::spawn_blocking(move || -> Result<_, sallyport_ca::Error> {
        let rng = worker.sealer.rng();
        let key = KeyPair::generate(algorithm, rng)?;
        let serial = Serial::generate(rng)?;
        let prepared = authority.prepare(profile, &subject, &key.public_key(), now, validity, serial.clone())?;
        Ok((key, prepared, serial))
    })
    .await
    .map_err(|_| Error::Internal("making a certificate panicked".into()))?;
    let (key, prepared, serial) = made.map_err(|e| Error::Refused(e.to_string()))?;
    let before = office::record_before(&serial, prepared.period(), profile_to_proto(profile), &request.name, algorithm);
    // The log's time takes the place of this one, wherever the record can be read back.
    let record = CertificateRow {
        sans,
        member,
        gateway: gateway.to_owned(),
        issuer: issuing.number,
        issued_ms: core.now_ms(),
        ..before
    };
    Ok((key, Draft { prepared, issuing, record, profile_version }))
}

/// Makes a key pair and a certificate. Nobody may see them before they are recorded.
async fn make(core: &Arc<Core>, request: IssueRequest, owner: Owner<'_>) -> Result<Issued, Error> {
    let (key, draft) = draft(core, request, owner).await?;
    let (worker, signer) = (core.clone(), draft.issuing.clone());
    let made = tokio::task::spawn_blocking(move || signer.authority.sign(&draft.prepared, worker.sealer.rng()));
    let made = made.await.map_err(|_| Error::Internal("making a certificate panicked".into()))?;
    let certificate = made.map_err(|e| Error::Refused(e.to_string()))?;
    Ok(Issued {
        private_key: Zeroizing::new(key.pkcs8_der().to_vec()),
        certificate: certificate.der().to_vec(),
        chain: draft.issuing.chain(),
        record: CertificateRow { fingerprint: certificate.fingerprint.0.to_vec(), ..draft.record },
    })
}

/// Puts a record into the log. Of a request that was answered before, what it was answered.
pub(crate) async fn record(
    core: &Core,
    command: RecordCertificate,
    id: Option<[u8; 16]>,
) -> Result<Option<state::Issued>, Error> {
    let action = Action::RecordCertificate(command);
    let reply = match id {
        Some(id) => core.propose_as(id, action).await?,
        None => core.propose(action).await?,
    };
    match reply.outcome {
        Some(Outcome::Done(_)) => Ok(None),
        Some(Outcome::Issued(issued)) => Ok(Some(issued)),
        Some(Outcome::Conflict(conflict)) if conflict.kind() == ConflictKind::AlreadyExists => {
            Err(Error::Internal("a random serial number came twice".into()))
        }
        Some(Outcome::Conflict(conflict)) if conflict.kind() == ConflictKind::Changed => {
            Err(Error::Superseded(conflict.message))
        }
        Some(Outcome::Conflict(conflict)) if conflict.kind() == ConflictKind::Precondition => {
            Err(Error::Refused(conflict.message))
        }
        other => Err(Error::Internal(format!("recording a certificate: {other:?}"))),
    }
}

/// The record as it is in the state.
async fn finish(core: &Core, made: Issued) -> Result<Issued, Error> {
    core.catch_up().await;
    let record = core.node.shared().read().certificates.get(&made.record.serial).cloned().unwrap_or(made.record);
    tracing::info!(serial = %record.serial, name = %record.name, profile = ?record.profile(), "issued a certificate");
    Ok(Issued { record, ..made })
}

/// What a request was answered before.
fn reopen(core: &Core, asked: &Request<'_>, earlier: &state::Issued) -> Result<Issued, Error> {
    let opened = core.sealer.open_answer(&core.cluster_id(), asked, &earlier.answer)?;
    let unreadable = || Error::Internal(format!("the answer with certificate {} cannot be read", earlier.serial));
    let answer = v1::IssueCertificateResponse::decode(opened.as_slice()).map_err(|_| unreadable())?;
    let (record, chain) = {
        let state = core.node.shared().read();
        let record = state.certificates.get(&earlier.serial).cloned();
        let issuer = record.as_ref().map_or(0, |r| r.issuer);
        (record, state.chain_of(issuer))
    };
    tracing::info!(serial = %earlier.serial, "gave an issued certificate again, to the same request");
    Ok(Issued {
        private_key: Zeroizing::new(answer.private_key.ok_or_else(unreadable)?.into_inner().to_vec()),
        certificate: if answer.certificate.is_empty() { earlier.certificate.clone() } else { answer.certificate },
        chain,
        record: record.ok_or_else(unreadable)?,
    })
}
