//! The enrollment endpoint in a controller: its certificate, its own ports, and the connections that gateways carry to here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sallyport_ca::renewal::Life;
use sallyport_ca::{
    AltName, Certificate, Fingerprint, KeyAlgorithm, KeyPair, Prepared, Profile, Serial, Subject, UnixTime,
    check_dns_name,
};
use sallyport_endpoint::{Endpoint, Kind, Limits, listen};
use sallyport_proto::v1;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::app::Core;
use crate::authority::{self, Issuing, algorithm_to_proto, office, record_of};
use crate::clock::Clock;
use crate::config::EnrollmentConfig;
use crate::enroll::ControllerOffice;
use crate::error::Error;
use crate::state::{CertificateRow, Maker, OfficeProof, RULES_LEVEL, RecordCertificate, State};

/// Connections that one gateway may carry to one controller at a time: somewhat more than it takes at its ports.
const PER_GATEWAY: usize = 600;
/// Kind of its key.
const KEY: KeyAlgorithm = KeyAlgorithm::EcdsaP256;
/// Names in it; a certificate with hundreds is refused by some clients.
const MAX_NAMES: usize = 64;
/// How often it is looked whether the names are still the same: a machine may enroll by the name of a gateway that has just come.
const LOOK: Duration = Duration::from_secs(2);
/// The same while this node has no authority yet.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The same when a certificate could not be made: each attempt costs an entry of the log.
const LOOK_LATER: Duration = Duration::from_secs(10);

/// The endpoint, and who carries connections to it. It holds the core, which knows it only as long as it is held elsewhere.
#[derive(Debug)]
pub(crate) struct Front {
    endpoint: Arc<Endpoint<ControllerOffice>>,
    gateways: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Front {
    /// Without a certificate yet: see [`keep_certificate`].
    pub(crate) fn new(core: &Arc<Core>) -> Result<Self, Error> {
        let office = Arc::new(ControllerOffice::new(core.clone()));
        let limits = Limits::default();
        let endpoint =
            Endpoint::new(office, Arc::new(core.clock.clone()), limits).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(Self { endpoint: Arc::new(endpoint), gateways: Arc::default() })
    }

    /// The endpoint.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint<ControllerOffice>> {
        &self.endpoint
    }

    /// Room for another connection of a gateway, until it is dropped.
    pub(crate) fn place(&self, gateway: &str) -> Option<Place> {
        let mut gateways = lock(&self.gateways);
        let count = gateways.entry(gateway.to_owned()).or_insert(0);
        if *count >= PER_GATEWAY {
            return None;
        }
        *count += 1;
        Some(Place { gateways: self.gateways.clone(), gateway: gateway.to_owned() })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters: whoever panicked left them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A gateway's connection, counted.
pub(crate) struct Place {
    gateways: Arc<Mutex<BTreeMap<String, usize>>>,
    gateway: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut gateways = lock(&self.gateways);
        if let Some(count) = gateways.get_mut(&self.gateway) {
            *count -= 1;
            if *count == 0 {
                gateways.remove(&self.gateway);
            }
        }
    }
}

impl sallyport_endpoint::Clock for Clock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms())
    }

    fn unix(&self) -> UnixTime {
        seconds(self.unix_ms())
    }
}

fn seconds(ms: u64) -> UnixTime {
    UnixTime(i64::try_from(ms / 1_000).unwrap_or(i64::MAX))
}

/// The controller's own ports.
pub(crate) struct Listeners([Option<TcpListener>; 2]);

impl Listeners {
    /// Opens what is configured.
    pub(crate) async fn bind(config: &EnrollmentConfig) -> Result<Self, Error> {
        let mut listeners = [None, None];
        let wanted = [(config.listen, "enrollment.listen"), (config.http_listen, "enrollment.http_listen")];
        for (listener, (address, what)) in listeners.iter_mut().zip(wanted) {
            if let Some(address) = address {
                let bound = TcpListener::bind(address).await;
                *listener = Some(bound.map_err(|source| Error::Listen { address, what, source })?);
            }
        }
        Ok(Self(listeners))
    }

    /// Where they are.
    pub(crate) fn addresses(&self) -> [Option<SocketAddr>; 2] {
        self.0.each_ref().map(|listener| listener.as_ref().and_then(|l| l.local_addr().ok()))
    }

    /// Serves them until the tasks are aborted.
    pub(crate) fn serve(self, front: &Front) -> Vec<JoinHandle<()>> {
        let ports = self.0.into_iter().zip([Kind::Tls, Kind::Plain]);
        ports.filter_map(|(port, kind)| Some(tokio::spawn(listen(port?, kind, front.endpoint.clone())))).collect()
    }
}

/// The public names of the service: those of all gateways' certificates in force, then those of the configuration.
pub(crate) fn public_names(core: &Core) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let state = core.node.shared().read();
    for name in state.public_names().chain(&core.config.enrollment.names) {
        if names.len() < MAX_NAMES && alt_name(name).is_some() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn alt_name(name: &str) -> Option<AltName> {
    match name.parse() {
        Ok(address) => Some(AltName::Ip(address)),
        Err(_) => check_dns_name(name).is_ok().then(|| AltName::Dns(name.to_ascii_lowercase())),
    }
}

/// Sees that the endpoint shows a certificate with the names of the service, and another one in time.
pub(crate) async fn keep_certificate(core: Arc<Core>, front: Arc<Front>) {
    let mut shown = None;
    loop {
        let pause = match refresh(&core, &front, &mut shown).await {
            Ok(true) => LOOK,
            Ok(false) => LOOK_AGAIN,
            Err(error) => {
                tracing::warn!(%error, "no certificate for the enrollment endpoint; trying again");
                LOOK_LATER
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The certificate that is shown.
#[derive(Debug)]
struct Shown {
    names: Vec<String>,
    /// The authority that issued it, and what is above that.
    above: Vec<Vec<u8>>,
    /// Version of the profile by which it was made.
    version: u64,
    /// Its serial number.
    serial: String,
    /// When another one is due, the log's time.
    due_ms: u64,
}

impl Shown {
    /// Whether it is in the log, once that is where it belongs, and was not taken back.
    fn is_recorded(&self, state: &State) -> bool {
        state.level() < RULES_LEVEL || state.certificates.get(&self.serial).is_some_and(|row| row.revoked_ms == 0)
    }
}

/// In which order they are found changes with each certificate that ends.
fn sorted(names: &[String]) -> Vec<&String> {
    let mut names: Vec<&String> = names.iter().collect();
    names.sort_unstable();
    names
}

/// Whether there is an authority to make one.
async fn refresh(core: &Arc<Core>, front: &Front, shown: &mut Option<Shown>) -> Result<bool, Error> {
    if !core.is_ready() {
        return Ok(false);
    }
    let now_ms = core.now_ms();
    let issuing = core.issuing(KEY)?;
    // What is above its issuer can change without it: another root, or a company's.
    let above = issuing.chain();
    let public = public_names(core);
    let (names, rules) = {
        let state = core.node.shared().read();
        let (names, rules) = (state.allowed_at_endpoint(public), state.profile(Profile::Endpoint));
        let same =
            |s: &Shown| s.above == above && s.version == rules.version && now_ms < s.due_ms && s.is_recorded(&state);
        // Nobody asked by a name yet; the page and the lists are there all the same.
        let own = core.address.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']).to_owned());
        let own = || state.allowed_at_endpoint(own.into_iter().collect());
        let names: Vec<String> = if names.is_empty() { own() } else { names };
        if shown.as_ref().is_some_and(|s| sorted(&s.names) == sorted(&names) && same(s)) {
            return Ok(true);
        }
        // The log would refuse it, after a key was made and an entry written.
        let all: Vec<String> = std::iter::once(common_name(&names)).map(str::to_owned).chain(names.clone()).collect();
        if names.is_empty() && state.level() >= RULES_LEVEL {
            return Err(Error::Refused(
                "the profile endpoint allows none of the service's names: sallyport cert profile show endpoint".into(),
            ));
        }
        let may = state.may_make(Profile::Endpoint, Maker::Cluster, algorithm_to_proto(KEY), &all, 0);
        if let (Err(why), RULES_LEVEL..) = (may, state.level()) {
            return Err(Error::Refused(why));
        }
        (names, rules)
    };
    let (worker, of, by) = (core.clone(), names.clone(), issuing.clone());
    let validity = Duration::from_secs(rules.validity_s);
    let drafted = tokio::task::spawn_blocking(move || draft(&worker, &by, &of, seconds(now_ms), validity));
    let (prepared, key, serial, sans) = drafted.await.map_err(|e| Error::Internal(e.to_string()))??;
    let certificate = if office::intends(core) {
        let profile = v1::CertificateProfile::Endpoint;
        let before = office::record_before(&serial, prepared.period(), profile, common_name(&names), KEY);
        let record = CertificateRow { sans, member: core.node.id(), issuer: issuing.number, ..before };
        let wished = office::Wished {
            tbs: prepared.tbs().to_vec(),
            record,
            key_sha256: Fingerprint::of(key.public_key().spki_der()).0,
            profile_version: rules.version,
            office: OfficeProof::default(),
        };
        match office::issue(core, wished).await {
            // Another authority issues since a moment ago, or the rules are others: at the next look.
            Err(Error::Superseded(_)) => return Ok(false),
            issued => Certificate::from_der(&issued?.certificate).map_err(|e| Error::Internal(e.to_string()))?,
        }
    } else {
        let (worker, by) = (core.clone(), issuing.clone());
        let signed = tokio::task::spawn_blocking(move || by.authority.sign(&prepared, worker.sealer.rng()));
        let signed = signed.await.map_err(|e| Error::Internal(e.to_string()))?;
        let certificate = signed.map_err(|e| Error::Internal(e.to_string()))?;
        if !put_on_record(core, &certificate, common_name(&names), sans, issuing.number).await? {
            return Ok(false);
        }
        certificate
    };
    // With what is between it and the root, which machines have.
    let mut chain = above.clone();
    chain.pop();
    chain.insert(0, certificate.der().to_vec());
    front.endpoint.set_certificate(&chain, key.pkcs8_der()).map_err(|e| Error::Internal(e.to_string()))?;
    let serial = certificate.serial.to_string();
    tracing::info!(names = names.join(" "), %serial, "the enrollment endpoint has a certificate");
    let life = Life { from: now_ms, length: rules.validity_s.saturating_mul(1_000) };
    let due_ms = life.renewed_from(&certificate.serial);
    *shown = Some(Shown { names, above, version: rules.version, serial, due_ms });
    Ok(true)
}

/// Records a certificate that was signed before, from the level on to which that belongs. Whether it may be.
async fn put_on_record(
    core: &Core,
    certificate: &Certificate,
    name: &str,
    sans: Vec<String>,
    issuer: u64,
) -> Result<bool, Error> {
    if core.node.shared().read().level() < RULES_LEVEL {
        return Ok(true);
    }
    let record = record_of(certificate, v1::CertificateProfile::Endpoint, name, sans, KEY);
    let record = CertificateRow { member: core.node.id(), issuer, ..record };
    match authority::record(core, RecordCertificate { record: Some(record), answer: Vec::new() }, None).await {
        // Another authority issues since a moment ago, or the rules are others: at the next look.
        Err(Error::Superseded(_)) => return Ok(false),
        recorded => recorded?,
    };
    core.catch_up().await;
    Ok(true)
}

/// A key for the endpoint of this process, what would be signed for it, and the names in that. The key is nowhere else.
fn draft(
    core: &Core,
    issuing: &Issuing,
    names: &[String],
    now: UnixTime,
    validity: Duration,
) -> Result<(Prepared, KeyPair, Serial, Vec<String>), Error> {
    let rng = core.sealer.rng();
    let refused = |e: &dyn std::fmt::Display| Error::Internal(e.to_string());
    let alt_names = names.iter().filter_map(|name| alt_name(name)).collect();
    let subject = Subject::new(common_name(names), alt_names).map_err(|e| refused(&e))?;
    let sans = subject.alt_names().iter().map(ToString::to_string).collect();
    let make = || {
        let key = KeyPair::generate(KEY, rng)?;
        let serial = Serial::generate(rng)?;
        let (by, public) = (&issuing.authority, key.public_key());
        let prepared = by.prepare(Profile::Endpoint, &subject, &public, now, validity, serial.clone())?;
        Ok((prepared, key, serial, sans))
    };
    make().map_err(|e: sallyport_ca::Error| refused(&e))
}

/// The first name that is short enough for one (RFC 5280, ub-common-name).
fn common_name(names: &[String]) -> &str {
    names.iter().find(|n| n.len() <= 64).map_or("enrollment", String::as_str)
}

#[cfg(test)]
mod tests;
