//! Main mode, RFC 2409 §5: both roles, and what they share.
//!
//! ```text
//! 1  HDR, SA, VID ...                         ->
//! 2                                          <-  HDR, SA, VID ...
//! 3  HDR, KE, Ni, [CERTREQ ...], NAT-D ...    ->
//! 4                                          <-  HDR, KE, Nr, [CERTREQ ...], NAT-D ...
//! 5  HDR*, IDii, [CERT ...], HASH_I | SIG_I   ->
//! 6                                          <-  HDR*, IDir, [CERT ...], HASH_R | SIG_R
//! ```

mod establish;
mod initiator;
mod responder;
mod timeout;

use std::net::SocketAddr;

use sallyport_base::Instant;

use crate::config::Credential;
use crate::endpoint::{Endpoint, Fate, Purpose, TimerKey, backoff, fingerprint};
use crate::error::{Phase, RefusalKind};
use crate::header::{Cookie, ExchangeType, Header};
use crate::message::Message;
use crate::nat::nat_d;
use crate::output::{Answer, DownReason, Job, Role, Verify};
use crate::payload::{
    CertEncoding, Certificate, CertificateRequest, ChainWriter, DPD, FRAGMENTATION, FRAGMENTATION_FLAGS,
    Identification, NotifyType, Payload, PayloadType, parse_chain,
};
use crate::proposal::AuthMethod;
use crate::v1::isakmp_sa::{IsakmpSa, Requested, SaId, Step};
use crate::v1::keymat::{Iv, Keys, hash_matches, phase1_iv, skeyid_psk, skeyid_signature};

/// Length of our nonces in bytes.
const NONCE_LEN: usize = 32;

/// Certificates of one peer that are handed on.
const MAX_CERTIFICATES: usize = 16;

/// Most that a message with CERTREQs may take: Windows 7 and 8 take fragments only where they expect certificates.
const MAX_WITH_REQUESTS: usize = 1_200;

/// Message 5 or 6, decrypted.
struct Authentication {
    id: Identification,
    id_body: Vec<u8>,
    certificates: Vec<(CertEncoding, Vec<u8>)>,
    hash: Option<Vec<u8>>,
    signature: Option<Vec<u8>>,
    initial_contact: bool,
    /// Which of our credentials the CERTREQs ask for.
    requested: Requested,
    iv: Iv,
}

/// The credentials above which an authority of a CERTREQ stands. A Windows client may send one CERTREQ for each root that
/// it trusts, so they are compared as they come and not kept.
fn asks_for(credentials: &[Credential], authority: &[u8]) -> Requested {
    let mut out = Requested::default();
    for (n, c) in credentials.iter().enumerate() {
        if c.issuers.iter().any(|i| i == authority) {
            out.add(n);
        }
    }
    out
}

/// Decrypts message 5 or 6. `None` if it does not decrypt to one: a wrong key, or a forgery.
fn open_authentication(
    sa: &IsakmpSa,
    header: &Header,
    body: &[u8],
    credentials: &[Credential],
) -> Option<Authentication> {
    let (plain, iv) = sa.keys.as_ref()?.open(&sa.iv, body)?;
    let payloads = parse_chain(header.next_payload, &plain).ok()?;
    let mut out = Authentication {
        id: Identification::phase1(crate::payload::IdType(0), []),
        id_body: Vec::new(),
        certificates: Vec::new(),
        hash: None,
        signature: None,
        initial_contact: false,
        requested: Requested::default(),
        iv,
    };
    let mut found = false;
    for p in payloads {
        match p {
            Payload::Id(id) if !found => {
                out.id_body = id.to_body();
                out.id = id;
                found = true;
            }
            Payload::Cert(c)
                if !matches!(c.encoding, CertEncoding::CRL | CertEncoding::ARL)
                    && out.certificates.len() < MAX_CERTIFICATES =>
            {
                out.certificates.push((c.encoding, c.data.to_vec()));
            }
            Payload::CertRequest(c) => out.requested |= asks_for(credentials, c.authority),
            Payload::Hash(h) => out.hash = Some(h.to_vec()),
            Payload::Signature(s) => out.signature = Some(s.to_vec()),
            Payload::Notify(n) => out.initial_contact |= n.notify_type == NotifyType::INITIAL_CONTACT,
            _ => {}
        }
    }
    found.then_some(out)
}

impl Endpoint {
    /// Takes a message of main mode.
    pub(crate) fn main_mode(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else {
            self.stats.malformed += 1;
            return;
        };
        let h = &message.header;
        if h.message_id != 0 {
            self.stats.malformed += 1;
            return;
        }
        if h.cky_r.is_zero() {
            return self.main_mode_1(now, local, remote, &message, bytes);
        }
        if self.embryonic.of_cookies(h.cky_i, h.cky_r).is_some() {
            return self.main_mode_3(now, local, remote, &message, bytes);
        }
        let found = self.by_cookies.get(&(h.cky_i, h.cky_r)).or_else(|| self.by_cookies.get(&(h.cky_i, Cookie::ZERO)));
        let Some(id) = found.copied() else {
            self.stats.unknown_cookies += 1;
            return;
        };
        let print = fingerprint(bytes);
        self.with_sa(id, |ep, sa| {
            if let Some(last) = &sa.last
                && last.print == print
            {
                ep.stats.repeated += 1;
                let datagrams = last.datagrams.clone();
                ep.transmit(local, remote, &datagrams);
                return Fate::Keep;
            }
            let Some(step) = sa.handshake.as_deref().map(|h| h.step) else { return Fate::Keep };
            match step {
                Step::Expect5 => ep.main_mode_5(now, sa, local, remote, &message, print),
                Step::Expect2 => ep.main_mode_2(now, sa, &message),
                Step::Expect4 => ep.main_mode_4(now, sa, &message),
                Step::Expect6 => ep.main_mode_6(now, sa, local, remote, &message),
                _ => Fate::Keep,
            }
        });
        self.after_main_mode(now);
    }

    /// Takes the answer to a job of main mode.
    pub(crate) fn main_mode_answer(&mut self, now: Instant, id: SaId, purpose: Purpose, answer: Answer) {
        self.with_sa(id, |ep, sa| {
            let Some(step) = sa.handshake.as_deref().map(|h| h.step) else { return Fate::Keep };
            match (step, answer) {
                (_, Answer::Failed(why)) => ep.fail(
                    now,
                    sa,
                    RefusalKind::Crypto,
                    format!("{}: {why}", task(purpose)),
                    match purpose {
                        Purpose::Sign => "check the gateway's certificate and its key",
                        Purpose::Verify => "see the cause",
                        _ => "if this machine is overloaded, add a gateway; a public value that is none is a fault of the client, or an attack",
                    },
                ),
                (Step::MakeKeys, Answer::KeyExchange { public, shared }) => {
                    if let Some(h) = sa.handshake.as_deref_mut() {
                        (h.g_xr, h.shared) = (public, Some(shared));
                    }
                    ep.respond_4(now, sa)
                }
                (Step::MakeKeys | Step::Agree, Answer::PreSharedKey(None)) => {
                    let cause = format!("there is no pre-shared key for {}", sa.remote.ip());
                    ep.fail(
                        now,
                        sa,
                        RefusalKind::NoPreSharedKey,
                        cause,
                        "set a pre-shared key, or set the client to a certificate",
                    )
                }
                (Step::MakeKeys, Answer::PreSharedKey(psk)) => {
                    if let Some(h) = sa.handshake.as_deref_mut() {
                        h.psk = psk;
                    }
                    ep.respond_4(now, sa)
                }
                (Step::Verify5 | Step::Verify6, Answer::Verified(v)) => {
                    if let Some(h) = sa.handshake.as_deref_mut() {
                        h.peer_name = Some((v.name, v.token));
                    }
                    if step == Step::Verify5 { ep.authenticate_6(now, sa) } else { ep.establish(now, sa) }
                }
                (Step::Verify5 | Step::Verify6, Answer::Refused(r)) => {
                    ep.send_notify(sa, NotifyType::AUTHENTICATION_FAILED, None, &[]);
                    if let (Some(h), Some(name)) = (sa.handshake.as_deref_mut(), r.name) {
                        h.peer_name = Some((name, 0));
                    }
                    ep.fail(now, sa, RefusalKind::Certificate, r.cause, &r.remedy)
                }
                (Step::Sign6, Answer::Signature(s)) => ep.respond_6(now, sa, PayloadType::SIGNATURE, &s),
                (Step::MakeKeyPair, Answer::KeyPair(secret)) => ep.request_3(now, sa, secret),
                (Step::Agree, Answer::Agree(shared)) => {
                    if let Some(h) = sa.handshake.as_deref_mut() {
                        h.shared = Some(shared);
                    }
                    ep.authenticate_5(now, sa)
                }
                (Step::Agree, Answer::PreSharedKey(psk)) => {
                    if let Some(h) = sa.handshake.as_deref_mut() {
                        h.psk = psk;
                    }
                    ep.authenticate_5(now, sa)
                }
                (Step::Sign5, Answer::Signature(s)) => ep.request_5(now, sa, PayloadType::SIGNATURE, &s),
                _ => Fate::Keep,
            }
        });
        self.after_main_mode(now);
    }

    /// What can only be done when the SA is back in its table.
    fn after_main_mode(&mut self, now: Instant) {
        while let Some(peer) = self.fresh.pop() {
            self.start_pending(now, peer);
        }
    }

    /// Ends a handshake and reports why. The caller returns the fate.
    pub(crate) fn fail(
        &mut self,
        now: Instant,
        sa: &mut IsakmpSa,
        kind: RefusalKind,
        cause: String,
        remedy: &str,
    ) -> Fate {
        let h = sa.handshake.as_deref();
        let identity = h.and_then(|h| match (&h.peer_name, &h.peer_id) {
            (Some((name, _)), _) => Some(name.clone()),
            (None, Some(id)) => Some(id.to_string()),
            _ => None,
        });
        let said = h.and_then(|h| h.hint.as_ref());
        let cause = match said {
            Some(said) => format!("{cause} (the other side said, unauthenticated: {said})"),
            None => cause,
        };
        self.refuse(now, Phase::MainMode, kind, (sa.local, sa.remote), identity, sa.peer, cause, remedy.to_owned());
        // As initiator the peer stands and falls with its first handshake; a rekey that failed leaves it as it was.
        if let Some(id) = sa.peer
            && let Some(peer) = self.peers.get_mut(&id)
        {
            peer.refused = true;
            peer.sas.retain(|s| *s != sa.id);
            if !peer.up {
                self.peer_down(now, id, DownReason::Failed, false);
            } else {
                self.review_peer(now, id, DownReason::Failed);
            }
        }
        if sa.role == Role::Responder {
            self.remember_refused(sa.origin, sa.cky_i, None);
        }
        Fate::Drop
    }

    /// Repeats our last message as initiator.
    pub(crate) fn repeat_main_mode(&mut self, now: Instant, id: SaId) {
        self.with_sa(id, |ep, sa| {
            let (local, remote) = (sa.local, sa.remote);
            let Some(repeat) = sa.handshake.as_deref_mut().and_then(|h| h.repeat.as_mut()) else { return Fate::Keep };
            if repeat.tries >= ep.config.retransmit_tries {
                return Fate::Keep; // the exchange's own timer ends it
            }
            repeat.tries += 1;
            let (datagrams, wait) = (repeat.datagrams.clone(), backoff(&ep.config, repeat.tries));
            ep.stats.retransmitted += 1;
            ep.transmit(local, remote, &datagrams);
            ep.timers.set(TimerKey::Repeat(id), now + wait);
            Fate::Keep
        });
    }

    /// Keys of phase 1, once the shared secret (and the pre-shared key) are there. `false` if something is missing.
    fn make_keys(sa: &mut IsakmpSa) -> bool {
        let (cky_i, cky_r, transform) = (sa.cky_i, sa.cky_r, sa.transform);
        let Some(h) = sa.handshake.as_deref_mut() else { return false };
        let Some(shared) = &h.shared else { return false };
        let skeyid = match (transform.method, &h.psk) {
            (AuthMethod::PreSharedKey, Some(psk)) => skeyid_psk(transform.hash, psk, &h.nonce_i, &h.nonce_r),
            (AuthMethod::PreSharedKey, None) => return false,
            (AuthMethod::Signature(_), _) => skeyid_signature(transform.hash, &h.nonce_i, &h.nonce_r, shared),
        };
        sa.keys = Some(Keys::derive(&transform, &skeyid, shared, cky_i, cky_r));
        sa.iv = phase1_iv(&transform, &h.g_xi, &h.g_xr);
        h.skeyid = Some(skeyid);
        h.shared = None;
        h.psk = None;
        true
    }

    /// Appends the vendor IDs that we send. Nothing of Microsoft's: it would make a peer expect Windows.
    fn vendor_ids(chain: &mut ChainWriter, nat: &[&[u8]]) {
        for vid in nat {
            chain.bytes(PayloadType::VENDOR_ID, vid);
        }
        let mut fragmentation = [0; 20];
        let (vid, flags) = fragmentation.split_at_mut(16);
        vid.copy_from_slice(&FRAGMENTATION);
        flags.copy_from_slice(&FRAGMENTATION_FLAGS);
        chain.bytes(PayloadType::VENDOR_ID, &fragmentation);
        chain.bytes(PayloadType::VENDOR_ID, &DPD);
    }

    /// Appends one CERTREQ for each root that we trust; a single empty one (RFC 2408 §3.10: any) if they do not fit.
    fn certificate_requests(&self, sa: &IsakmpSa, chain: &mut ChainWriter) {
        if !sa.with_signatures() {
            return;
        }
        let total: usize = self.config.trusted_issuers.iter().map(|n| n.len() + 5).sum();
        let request = |chain: &mut ChainWriter, authority: &[u8]| {
            let r = CertificateRequest { encoding: CertEncoding::X509_SIGNATURE, authority };
            chain.payload(PayloadType::CERT_REQUEST, |w| r.emit(w));
        };
        if self.config.trusted_issuers.is_empty() || chain.as_slice().len() + total > MAX_WITH_REQUESTS {
            request(chain, &[]);
        } else {
            for name in &self.config.trusted_issuers {
                request(chain, name);
            }
        }
    }

    /// Appends NAT-D payloads: the peer's address, then ours. `fake_peer` and `fake_local` make the peer find a NAT.
    fn nat_d_payloads(&mut self, sa: &IsakmpSa, chain: &mut ChainWriter, own: SocketAddr) {
        let Some(variant) = sa.traits.nat else { return };
        let digest = |at| nat_d(sa.transform.hash, sa.cky_i, sa.cky_r, at);
        let mut theirs = digest(sa.remote).to_vec();
        let mut ours = digest(own).to_vec();
        if !self.config.native_esp {
            // Plain ESP cannot be had here. A client takes it well to be behind a NAT itself; Windows by default does
            // not talk to a server behind one. So we never say that of the responder's side.
            let spoiled = if sa.role == Role::Responder { &mut theirs } else { &mut ours };
            self.rng.fill(spoiled);
        }
        chain.bytes(variant.nat_d(), &theirs);
        chain.bytes(variant.nat_d(), &ours);
    }

    /// Our credential for a signature method: one whose authorities the peer asked for, else the first.
    fn choose_credential(&self, sa: &IsakmpSa) -> Option<&Credential> {
        let AuthMethod::Signature(method) = sa.transform.method else { return None };
        let h = sa.handshake.as_deref()?;
        if let Some(id) = h.credential {
            return self.config.credentials.iter().find(|c| c.id == id);
        }
        let fitting = || self.config.credentials.iter().filter(|c| c.method == method);
        let asked_for = |c: &Credential| self.config.credentials.iter().position(|d| d.id == c.id);
        fitting().find(|c| asked_for(c).is_some_and(|n| h.requested.has(n))).or_else(|| fitting().next())
    }

    /// Our identity in this exchange.
    fn own_identity(&self, sa: &IsakmpSa) -> Identification {
        let connect = sa.handshake.as_deref().and_then(|h| h.connect.as_deref());
        if let Some(id) = connect.and_then(|c| c.identity.clone()) {
            return id;
        }
        if let Some(c) = self.choose_credential(sa) {
            return c.identity.clone();
        }
        if let (Role::Responder, Some(id)) = (sa.role, &self.config.psk_identity) {
            return id.clone();
        }
        Identification::address(sa.nat.dialled.unwrap_or(sa.local.ip()))
    }

    /// The payloads of message 5 or 6, without the proof.
    fn authentication_chain(&self, sa: &IsakmpSa, id: &Identification) -> ChainWriter {
        let mut chain = ChainWriter::new();
        chain.payload(PayloadType::ID, |w| id.emit(w));
        if let Some(c) = self.choose_credential(sa) {
            for data in &c.chain {
                let cert = Certificate { encoding: CertEncoding::X509_SIGNATURE, data };
                chain.payload(PayloadType::CERT, |w| cert.emit(w));
            }
        }
        chain
    }

    /// Checks the proof of message 5 or 6, or gives it out to be checked.
    fn check_authentication(&mut self, now: Instant, sa: &mut IsakmpSa, a: Authentication, next: Step) -> Fate {
        let (Some(inputs), role) = (sa.phase1_hash(), sa.role) else { return Fate::Keep };
        let expected = match role {
            Role::Responder => inputs.hash_i(&a.id_body),
            Role::Initiator => inputs.hash_r(&a.id_body),
        };
        match sa.transform.method {
            AuthMethod::PreSharedKey => {
                if !a.hash.as_deref().is_some_and(|h| hash_matches(&expected, h)) {
                    return self.garbage(now, sa);
                }
                self.note_authentication(sa, a, next);
                match role {
                    Role::Responder => self.authenticate_6(now, sa),
                    Role::Initiator => self.establish(now, sa),
                }
            }
            AuthMethod::Signature(method) => {
                let Some(signature) = a.signature.clone() else {
                    // It decrypted, so it is the peer that was there from message 3 on.
                    self.note_authentication(sa, a, next);
                    let cause = "the peer sent no signature".to_owned();
                    return self.fail(
                        now,
                        sa,
                        RefusalKind::NoCertificate,
                        cause,
                        "set the client to authenticate with its machine certificate",
                    );
                };
                let verify = Verify {
                    remote: sa.remote,
                    role,
                    peer: sa.peer,
                    certificates: a.certificates.clone(),
                    id: a.id.clone(),
                    method,
                    hash: expected.to_vec(),
                    signature,
                };
                self.note_authentication(sa, a, next);
                if self.give_job(sa, Purpose::Verify, Job::Verify(Box::new(verify))) {
                    Fate::Keep
                } else {
                    self.too_many_jobs(now, sa)
                }
            }
        }
    }

    fn note_authentication(&mut self, sa: &mut IsakmpSa, a: Authentication, next: Step) {
        sa.iv = a.iv;
        if let Some(h) = sa.handshake.as_deref_mut() {
            h.step = next;
            h.peer_id = Some(a.id);
            h.initial_contact = a.initial_contact;
            h.requested |= a.requested;
            h.repeat = None;
        }
        self.timers.cancel(TimerKey::Repeat(sa.id));
    }

    pub(crate) fn too_many_jobs(&mut self, now: Instant, sa: &mut IsakmpSa) -> Fate {
        self.fail(
            now,
            sa,
            RefusalKind::Limit,
            "too many handshakes wait for this machine's processors".into(),
            "this machine is overloaded: add a gateway, or find out who floods it",
        )
    }

    /// Sends an encrypted message of phase 1 and keeps the IV.
    fn send_sealed(&mut self, sa: &mut IsakmpSa, chain: &ChainWriter) -> Vec<Vec<u8>> {
        let header = sa.header(ExchangeType::MAIN_MODE, 0);
        let Some(keys) = &sa.keys else { return Vec::new() };
        let (message, iv) = keys.seal(&sa.iv, header, chain);
        sa.iv = iv;
        self.send(sa, message)
    }

    fn nonce(&mut self) -> Vec<u8> {
        self.rng.bytes::<NONCE_LEN>().to_vec()
    }
}

/// What a job was for, in words.
const fn task(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Sign => "our signature failed",
        Purpose::Verify => "the verification failed",
        Purpose::PreSharedKey => "the pre-shared key could not be looked up",
        _ => "the key exchange failed",
    }
}
