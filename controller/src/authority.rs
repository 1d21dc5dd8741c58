//! The authority at work: keys made here, certificates signed and recorded in the log before anybody gets them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sallyport_ca::seal::Sealed;
use sallyport_ca::{
    AltName, Authority, Certificate, KeyAlgorithm, KeyPair, Profile, PublicKey, Serial, Subject, UnixTime,
};
use sallyport_proto::{CONTROLLER_NAME, v1};
use zeroize::Zeroizing;

use crate::app::Core;
use crate::error::Error;
use crate::state::{Action, CertificateRow, ConflictKind, Outcome, RecordCertificate};

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
fn alt_name(text: &str) -> AltName {
    match text.parse::<IpAddr>() {
        Ok(address) => AltName::Ip(address),
        Err(_) if text.contains('@') => AltName::Email(text.to_owned()),
        Err(_) => AltName::Dns(text.to_ascii_lowercase()),
    }
}

/// The subject for a request: the name itself is among the alternative names wherever it can be one.
fn subject(request: &IssueRequest) -> Result<Subject, Error> {
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

const fn profile_to_proto(profile: Profile) -> v1::CertificateProfile {
    match profile {
        Profile::Machine => v1::CertificateProfile::Machine,
        Profile::Gateway => v1::CertificateProfile::Gateway,
        Profile::GatewayLink => v1::CertificateProfile::GatewayLink,
        Profile::Operator => v1::CertificateProfile::Operator,
        Profile::Controller => v1::CertificateProfile::Controller,
        Profile::User => v1::CertificateProfile::Unspecified,
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

/// Opens the authority from what the state holds.
pub(crate) fn open(core: &Core) -> Result<Authority, Error> {
    let root = {
        let state = core.node.shared().read();
        state.roots.iter().next_back().map(|(_, root)| root.clone())
    };
    let root = root.ok_or_else(|| Error::Internal("there is no root".into()))?;
    Authority::open(&Sealed::from_bytes(root.sealed_key), core.sealer.key(), &root.certificate).map_err(|e| match e {
        sallyport_ca::Error::Seal(_) => Error::Seal { what: "the root's key".into(), key: core.sealer.path().into() },
        other => Error::Authority(other.to_string()),
    })
}

/// What a controller's certificate shall say.
#[derive(Clone, Debug)]
pub(crate) struct ControllerCertificate {
    /// Further host names and addresses.
    pub(crate) names: Vec<String>,
    /// Whose it is; 0 while the member has no id yet.
    pub(crate) member: u64,
}

/// Signs a certificate for a controller's own public key. Nobody may see it before its record is in the log.
pub(crate) async fn controller_certificate(
    core: &Arc<Core>,
    public: &PublicKey,
    what: ControllerCertificate,
) -> Result<(Vec<u8>, CertificateRow), Error> {
    let request = IssueRequest {
        profile: Profile::Controller,
        name: CONTROLLER_NAME.into(),
        sans: what.names,
        key: public.algorithm(),
        days: 0,
    };
    let subject = subject(&request)?;
    let sans: Vec<String> = subject.alt_names().iter().map(ToString::to_string).collect();
    let now = UnixTime(i64::try_from(core.now_ms() / 1_000).unwrap_or(i64::MAX));
    let (worker, public) = (core.clone(), public.clone());
    let made = tokio::task::spawn_blocking(move || -> Result<Certificate, sallyport_ca::Error> {
        let (rng, profile) = (worker.sealer.rng(), Profile::Controller);
        let serial = Serial::generate(rng)?;
        let prepared =
            worker.authority().prepare(profile, &subject, &public, now, profile.default_validity(), serial)?;
        worker.authority().sign(&prepared, rng)
    })
    .await
    .map_err(|_| Error::Internal("making a certificate panicked".into()))?;
    let certificate = made.map_err(|e| Error::Refused(e.to_string()))?;
    let profile = v1::CertificateProfile::Controller;
    let record = record_of(&certificate, profile, CONTROLLER_NAME, sans, request.key);
    Ok((certificate.der().to_vec(), CertificateRow { member: what.member, ..record }))
}

/// Makes a key pair and a certificate, and records it. What is returned is in the log.
pub(crate) async fn issue(core: &Arc<Core>, request: IssueRequest) -> Result<Issued, Error> {
    issue_to(core, request, 0).await
}

/// The same for what is kept in the state folder of a controller: it is revoked when that member is removed.
pub(crate) async fn issue_to(core: &Arc<Core>, request: IssueRequest, member: u64) -> Result<Issued, Error> {
    let subject = subject(&request)?;
    let sans: Vec<String> = subject.alt_names().iter().map(ToString::to_string).collect();
    let validity = match request.days {
        0 => request.profile.default_validity(),
        days => Duration::from_secs(u64::from(days) * 86_400),
    };
    let now = UnixTime(i64::try_from(core.now_ms() / 1_000).unwrap_or(i64::MAX));
    let (profile, algorithm) = (request.profile, request.key);
    let worker = core.clone();
    // Making an RSA key takes a tenth of a second and more.
    let made = tokio::task::spawn_blocking(move || -> Result<(KeyPair, Certificate), sallyport_ca::Error> {
        let rng = worker.sealer.rng();
        let key = KeyPair::generate(algorithm, rng)?;
        let serial = Serial::generate(rng)?;
        let prepared = worker.authority().prepare(profile, &subject, &key.public_key(), now, validity, serial)?;
        let certificate = worker.authority().sign(&prepared, rng)?;
        Ok((key, certificate))
    })
    .await
    .map_err(|_| Error::Internal("making a certificate panicked".into()))?;
    let (key, certificate) = made.map_err(|e| Error::Refused(e.to_string()))?;
    let record = record_of(&certificate, profile_to_proto(profile), &request.name, sans, algorithm);
    let record = CertificateRow { member, ..record };
    let reply = core.propose(Action::RecordCertificate(RecordCertificate { record: Some(record.clone()) })).await?;
    match reply.outcome {
        Some(Outcome::Done(_)) => {}
        Some(Outcome::Conflict(conflict)) if conflict.kind() == ConflictKind::AlreadyExists => {
            return Err(Error::Internal("a random serial number came twice".into()));
        }
        other => return Err(Error::Internal(format!("recording a certificate: {other:?}"))),
    }
    let record = core.node.shared().read().certificates.get(&record.serial).cloned().unwrap_or(record);
    tracing::info!(serial = %record.serial, name = %record.name, profile = profile.name(), "issued a certificate");
    Ok(Issued {
        private_key: Zeroizing::new(key.pkcs8_der().to_vec()),
        certificate: certificate.der().to_vec(),
        chain: vec![core.authority().certificate().der().to_vec()],
        record,
    })
}
