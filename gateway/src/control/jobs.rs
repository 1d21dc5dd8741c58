//! The work that IKE hands out: Diffie-Hellman, signatures and certificate checks, on threads of their own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use sallyport_ca::verify::{CertPayload, IkeId, PeerCertificate, PeerRole, TrustStore, verify_peer};
use sallyport_crypto::Rng;
use sallyport_crypto::sign::{IkeKey, verify_ikev1};
use sallyport_ike as ike;
use tokio::sync::mpsc;
use tracing::error;
use zeroize::Zeroizing;

use crate::clock::{Clock, NoRandomness, random};

/// Jobs that may wait; IKE itself keeps fewer open.
const WAITING: usize = 16_384;

/// What changes with the policy.
#[derive(Default)]
pub struct Trust {
    /// Roots whose machines may come.
    pub anchors: TrustStore,
    /// The pre-shared key, if there is one.
    pub psk: Option<Zeroizing<Vec<u8>>>,
}

/// A result for the control plane.
#[derive(Debug)]
pub enum Done {
    /// IKE's answer is complete.
    Answer(ike::JobId, ike::Answer),
    /// The certificate is good as far as a gateway can tell: ask the controllers whether they issued it.
    Admit(ike::JobId, Box<Candidate>),
}

/// A machine whose chain and signature are good.
#[derive(Debug)]
pub struct Candidate {
    /// What its certificate says.
    pub certificate: PeerCertificate,
    /// Outer address.
    pub remote: SocketAddr,
    /// Claimed IKE identity.
    pub identity: String,
}

/// The workers. They end when this is dropped.
pub struct Jobs {
    queue: SyncSender<(ike::JobId, ike::Job)>,
    trust: Arc<RwLock<Trust>>,
    keys: Keys,
    _threads: Vec<JoinHandle<()>>,
}

impl Jobs {
    /// Starts `threads` workers with our private keys. Results arrive at the receiver.
    pub fn start(
        keys: BTreeMap<ike::CredentialId, IkeKey>,
        threads: usize,
    ) -> Result<(Self, mpsc::Receiver<Done>), NoRandomness> {
        let (queue, jobs) = sync_channel(WAITING);
        let jobs = Arc::new(Mutex::new(jobs));
        let (done, results) = mpsc::channel(WAITING);
        let keys = Arc::new(RwLock::new(keys));
        let trust = Arc::new(RwLock::new(Trust::default()));
        let mut handles = Vec::new();
        for n in 0..threads.max(1) {
            let worker = Worker {
                jobs: jobs.clone(),
                keys: keys.clone(),
                trust: trust.clone(),
                done: done.clone(),
                rng: Rng::from_seed(random()?),
            };
            let builder = std::thread::Builder::new().name(format!("ike-crypto-{n}"));
            // Without a thread the gateway would answer nobody; the system is out of everything then.
            handles.push(builder.spawn(move || worker.run()).map_err(|_| NoRandomness)?);
        }
        Ok((Self { queue, trust, keys, _threads: handles }, results))
    }

    /// Queues a job; gives back the answer "failed" when the queue is full.
    pub fn submit(&self, id: ike::JobId, job: ike::Job) -> Option<Done> {
        match self.queue.try_send((id, job)) {
            Ok(()) => None,
            Err(_) => Some(Done::Answer(id, ike::Answer::Failed("the gateway is overloaded".into()))),
        }
    }

    /// Takes up new private keys; of those before only what is still among the `credentials` stays.
    pub fn set_keys(&self, new: BTreeMap<ike::CredentialId, IkeKey>, credentials: &[ike::Credential]) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|id, _| credentials.iter().any(|c| c.id == *id));
        keys.extend(new);
    }

    /// Replaces what the policy says.
    pub fn set_trust(&self, trust: Trust) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = trust;
    }
}

/// Our private keys by the name of their credential.
type Keys = Arc<RwLock<BTreeMap<ike::CredentialId, IkeKey>>>;

struct Worker {
    jobs: Arc<Mutex<Receiver<(ike::JobId, ike::Job)>>>,
    keys: Keys,
    trust: Arc<RwLock<Trust>>,
    done: mpsc::Sender<Done>,
    rng: Rng,
}

impl Worker {
    fn run(mut self) {
        loop {
            let next = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((id, job)) = next else { return };
            // A panic in a library, on some certificate that nobody thought of, costs its sender the handshake and not
            // all others their worker.
            let done = catch_unwind(AssertUnwindSafe(|| self.work(id, job))).unwrap_or_else(|_| {
                error!("a job of IKE panicked; please report this with the lines before it");
                Done::Answer(id, ike::Answer::Failed("an internal error".into()))
            });
            if self.done.blocking_send(done).is_err() {
                return;
            }
        }
    }

    fn work(&mut self, id: ike::JobId, job: ike::Job) -> Done {
        let job = match job.compute(&mut self.rng) {
            Ok(answer) => return Done::Answer(id, answer),
            Err(job) => job,
        };
        let answer = match job {
            ike::Job::Sign { credential, method: _, hash } => {
                let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
                match keys.get(&credential) {
                    Some(key) => match key.sign_ikev1(&hash, &mut self.rng) {
                        Ok(signature) => ike::Answer::Signature(signature),
                        Err(e) => ike::Answer::Failed(e.to_string()),
                    },
                    None => ike::Answer::Failed("the gateway has no such key".into()),
                }
            }
            ike::Job::PreSharedKey { .. } => {
                let trust = self.trust.read().unwrap_or_else(PoisonError::into_inner);
                ike::Answer::PreSharedKey(trust.psk.clone())
            }
            ike::Job::Verify(verify) => return self.verify(id, *verify),
            ike::Job::KeyExchange { .. } | ike::Job::KeyPair { .. } | ike::Job::Agree { .. } => {
                ike::Answer::Failed("not computed".into())
            }
        };
        Done::Answer(id, answer)
    }

    fn verify(&self, id: ike::JobId, verify: ike::Verify) -> Done {
        let trust = self.trust.read().unwrap_or_else(PoisonError::into_inner);
        match check(&trust.anchors, &verify) {
            Ok(certificate) => {
                let candidate = Candidate { certificate, remote: verify.remote, identity: verify.id.to_string() };
                Done::Admit(id, Box::new(candidate))
            }
            Err(refusal) => Done::Answer(id, ike::Answer::Refused(refusal)),
        }
    }
}

/// Chain, identity and signature of a peer, at this moment.
fn check(anchors: &TrustStore, verify: &ike::Verify) -> Result<PeerCertificate, ike::VerifyRefusal> {
    let payloads: Vec<CertPayload<'_>> =
        verify.certificates.iter().map(|(encoding, data)| CertPayload { encoding: encoding.0, data }).collect();
    let id = IkeId { id_type: verify.id.id_type.0, data: &verify.id.data };
    let role = match verify.role {
        ike::Role::Responder => PeerRole::Machine,
        ike::Role::Initiator => PeerRole::Gateway,
    };
    let certificate = verify_peer(anchors, &payloads, Some(id), role, Clock::unix())
        .map_err(|e| ike::VerifyRefusal { name: None, cause: e.cause(), remedy: e.remedy() })?;
    let name = certificate.display_name();
    let refused = |cause: String, remedy: &str| {
        Err(ike::VerifyRefusal { name: Some(name.clone()), cause, remedy: remedy.into() })
    };
    match verify_ikev1(&certificate.spki_der, verify.method, &verify.hash, &verify.signature) {
        Ok(()) => Ok(certificate),
        Err(e) => refused(
            format!("the signature of {name} does not verify: {e}"),
            "the machine's key does not belong to its certificate: install both from one enrollment",
        ),
    }
}
