//! Which machines may in: by the set of live certificates, by what the controllers answer, and where neither says anything.

use std::collections::BTreeMap;
use std::time::Duration;

use sallyport_base::{Instant, PeerId, UnixTime};
use sallyport_ike as ike;
use sallyport_ppp as ppp;
use sallyport_proto::v1;
use sallyport_proto::v1::CertificateVerdict as Verdict;
use tracing::{error, info, warn};

use super::{Machine, MachineKey, Proven, VERIFIED};
use crate::control::audit;
use crate::control::live::{Known, Misfit, Revoked, Standing, Tag, tag};

/// What this gateway has ended because of revocations, that is told again and again for a while.
const DONE: usize = 64;
/// Certificates that are noted in the log one by one.
const NOTED: usize = 20;

/// What becomes of a machine whose certificate is good as such.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is let in.
    Admit,
    /// It is not, and why.
    Refuse(ike::VerifyRefusal),
    /// The controllers are asked. What they say of it counts over what is known here up to this number.
    Ask(u64),
}

/// A certificate that the controllers let in.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) machine: Proven,
    /// Revocations up to this number were looked at.
    pub(super) index: u64,
}

fn text(age: Duration) -> String {
    match age.as_secs() {
        s @ 0..=119 => format!("{s} s"),
        s => format!("{} min", s / 60),
    }
}

fn revoked(machine: &Proven, revoked: Revoked) -> ike::VerifyRefusal {
    let Proven { name, serial, .. } = machine;
    let reason = sallyport_ca::crl::Reason::from_code(revoked.reason as u8).unwrap_or_default();
    let (cause, remedy) = match revoked.reason {
        v1::RevocationReason::CertificateHold => (
            format!("the certificate of {name} (serial number {serial}) is on hold"),
            format!("sallyport cert release {serial} lets the machine in again"),
        ),
        v1::RevocationReason::Unspecified => (
            format!("the certificate of {name} (serial number {serial}) is revoked"),
            "give the machine a new certificate if it may connect again: sallyport token create --machine NAME".into(),
        ),
        _ => (
            format!("the certificate of {name} (serial number {serial}) is revoked: {reason}"),
            "give the machine a new certificate if it may connect again: sallyport token create --machine NAME".into(),
        ),
    };
    ike::VerifyRefusal { name: Some(name.clone()), cause, remedy }
}

impl Machine {
    /// Decides on a machine with a good chain and signature, or says that the controllers must.
    ///
    /// What is known to be live is let in at once, for as long as what is known is not older than the policy allows: the
    /// name of a certificate here is a part of its hash, so somebody with the authority's key cannot make another one that is it. What
    /// is known to be revoked is refused at once while that is current. All else is the controllers': a certificate may be seconds
    /// old, or released from hold.
    pub fn judge(&self, now: Instant, unix: UnixTime, machine: &Proven) -> Judgement {
        let ask = Judgement::Ask(self.live.at().index);
        match (self.live.find(&machine.fingerprint, unix), self.live.standing(now)) {
            (_, Standing::Without) | (Known::Nothing, _) => ask,
            (Known::Revoked(by), Standing::Current) => Judgement::Refuse(revoked(machine, by)),
            (Known::Live, Standing::Current) => Judgement::Admit,
            (Known::Live, Standing::Stale) if self.live.age(now).is_some() => Judgement::Admit,
            (Known::Live | Known::Revoked(_), Standing::Stale | Standing::Shut) => ask,
        }
    }

    /// Refuses a machine by what is known here.
    pub fn handle_refused_here(&mut self, now: Instant, id: ike::JobId, refusal: ike::VerifyRefusal, verdict: Verdict) {
        self.verdict = Some(verdict);
        self.handle_job(now, id, ike::Answer::Refused(refusal));
        self.verdict = None;
    }

    /// A machine was admitted.
    pub fn handle_admitted(&mut self, now: Instant, id: ike::JobId, machine: Proven) {
        let index = self.live.at().index;
        self.handle_admitted_at(now, id, machine, index);
    }

    /// A machine was admitted by the controllers, who were asked when revocations up to `index` were known here: one that has come
    /// since may be newer than their answer.
    pub fn handle_admitted_at(&mut self, now: Instant, id: ike::JobId, machine: Proven, index: u64) {
        if let Some(by) = self.revoked_since(&machine.fingerprint, index) {
            return self.handle_refused_here(now, id, revoked(&machine, by), Verdict::Revoked);
        }
        let token = self.next_token;
        self.next_token += 1;
        let name = machine.name.clone();
        self.certificates.insert(token, Admitted { machine, index });
        // A peer that fails after its certificate was good leaves its entry behind.
        if self.certificates.len() > VERIFIED {
            self.certificates.pop_first();
        }
        self.handle_job(now, id, ike::Answer::Verified(ike::Verified { name, token }));
    }

    /// Whether a certificate was revoked after a number.
    pub(super) fn revoked_since(&self, fingerprint: &[u8; 32], index: u64) -> Option<Revoked> {
        match self.live.find(fingerprint, UnixTime(0)) {
            Known::Revoked(by) if by.number > index => Some(by),
            _ => None,
        }
    }

    /// Whether a machine is in already: with this very certificate, which no controller has revoked since.
    pub fn is_in(&self, machine: &Proven) -> bool {
        let key = MachineKey::Certificate(machine.serial.clone());
        let none = self.allowances.get(&key).is_none_or(|a| a.peers == 0);
        !none
            && self
                .peers
                .values()
                .any(|p| p.certificate_serial == machine.serial && p.fingerprint == Some(machine.fingerprint))
    }

    /// No controller decided on a machine, and `cause` says why. One that is in renews its ISAKMP SA without them: its
    /// certificate is valid now, it was admitted, and of a revocation this gateway would have heard before they went away.
    pub fn handle_undecided(&mut self, now: Instant, id: ike::JobId, machine: Proven, cause: &str) {
        let known = self.live.find(&machine.fingerprint, UnixTime(0));
        if let Known::Revoked(by) = known {
            return self.handle_refused_here(now, id, revoked(&machine, by), Verdict::Revoked);
        }
        if self.is_in(&machine) {
            info!(
                name = machine.name,
                serial = machine.serial,
                cause,
                "a machine that is in is admitted by what is known of it"
            );
            return self.handle_admitted(now, id, machine);
        }
        let (age, max) = (self.live.age(now), self.live.max_stale());
        let (cause, verdict) = match (known, age, max) {
            (Known::Live, Some(age), Some(max)) => {
                let (age, max) = (text(age), text(max));
                (
                    format!(
                        "this gateway has heard nothing of revocations for {age}, and lets nobody in after {max} (the setting \
                         max-stale): {cause}"
                    ),
                    Verdict::Unspecified,
                )
            }
            _ if known == Known::Live || self.live.standing(now) == Standing::Without => {
                (format!("nobody decided whether this machine may in: {cause}"), Verdict::Unknown)
            }
            _ => (
                format!(
                    "unknown: this gateway has not heard of the certificate of {} (serial number {}), and nobody decided \
                     whether the machine may in: {cause}",
                    machine.name, machine.serial
                ),
                Verdict::Unknown,
            ),
        };
        let refusal = ike::VerifyRefusal { name: Some(machine.name), cause, remedy: audit::CONTROLLERS_AWAY.into() };
        self.handle_refused_here(now, id, refusal, verdict);
    }

    /// A controller says what is live. Whoever is in with a certificate that is revoked by it goes at once.
    pub fn handle_live(&mut self, now: Instant, update: &v1::LiveUpdate) -> Result<(), Misfit> {
        let gone = self.live.handle(update)?;
        self.note_standing(now);
        if !gone.is_empty() {
            self.end_revoked(now, gone);
            self.pump(now);
        }
        Ok(())
    }

    /// A controller has answered a question of `asked` with the newest revocation that there was.
    pub fn handle_newest(&mut self, now: Instant, newest: v1::LiveFrom, asked: Instant) {
        self.live.handle_newest(newest, asked);
        self.note_standing(now);
    }

    fn end_revoked(&mut self, now: Instant, gone: Vec<(Tag, Revoked)>) {
        let gone: BTreeMap<Tag, Revoked> = gone.into_iter().collect();
        let by = |peer: &super::Peer| gone.get(&tag(&peer.fingerprint?)).copied();
        let doomed: Vec<(PeerId, Revoked)> =
            self.peers.iter().filter_map(|(id, peer)| Some((*id, by(peer)?))).collect();
        let mut ended: BTreeMap<u64, u32> = BTreeMap::new();
        for (count, (peer, by)) in doomed.into_iter().enumerate() {
            if count < NOTED {
                info!(%peer, reason = by.reason.as_str_name(), "the machine's certificate was revoked");
            }
            *ended.entry(by.number).or_default() += 1;
            self.drop_peer(now, peer, ppp::CloseReason::Revoked);
        }
        for (number, tunnels) in ended {
            self.ended.push_back(v1::RevocationDone { number, tunnels });
        }
        while self.ended.len() > DONE {
            self.ended.pop_front();
        }
    }

    /// A peer is up or has renewed itself by a certificate: it may have been revoked between the decision and now.
    pub(super) fn check_admitted(&mut self, now: Instant, peer: PeerId, admitted: &Admitted) {
        if let Some(by) = self.revoked_since(&admitted.machine.fingerprint, admitted.index) {
            self.end_revoked(now, vec![(tag(&admitted.machine.fingerprint), by)]);
            info!(%peer, "its certificate was revoked while it came up");
        }
    }

    /// Says in the log when what is known becomes old, and does what the policy says of that.
    pub(super) fn note_standing(&mut self, now: Instant) {
        let standing = self.live.standing(now);
        let before = std::mem::replace(&mut self.standing, standing);
        if before == standing {
            return;
        }
        match standing {
            Standing::Without => {}
            Standing::Current => info!(certificates = self.live.len(), "knows which certificates are live"),
            // So it is for a moment at each start: a life sign has yet to be answered.
            Standing::Stale if before == Standing::Without => {
                info!(
                    "was told which certificates are live; a controller has yet to confirm that these are all of them"
                );
            }
            Standing::Stale if before < Standing::Stale => {
                warn!(
                    "hears nothing of revocations: lets in only whom it knows, and only for a while (setting max-stale)"
                );
            }
            Standing::Stale => {}
            Standing::Shut => {
                error!("has heard nothing of revocations for too long (setting max-stale): lets nobody new in");
                if self.live.fails_closed() {
                    error!("and ends all its sessions (setting fail-closed)");
                    let peers: Vec<PeerId> = self.peers.keys().copied().collect();
                    for peer in peers {
                        self.end_peer(
                            now,
                            peer,
                            ppp::CloseReason::Operator,
                            "this gateway has heard nothing of revocations for too long",
                        );
                    }
                    self.pump(now);
                }
            }
        }
    }

    /// What the policy says of silence.
    pub fn set_stale_policy(&mut self, now: Instant, max_stale_s: u32, fail_closed: bool) {
        self.live.set_bounds(max_stale_s, fail_closed);
        self.note_standing(now);
    }

    /// What is known of live certificates, for the controllers; and what was ended lately.
    pub fn live_report(&self, now: Instant) -> (Option<v1::LiveHeld>, Vec<v1::RevocationDone>) {
        (self.live.held(now), self.ended.iter().copied().collect())
    }

    /// How old what is known of revocations is; `None` where nothing is.
    pub fn revocation_lag(&self, now: Instant) -> Option<Duration> {
        self.live.age(now)
    }

    /// How many certificates are known to be live.
    pub fn live_certificates(&self) -> usize {
        self.live.len()
    }

    /// Forgets certificates that have ended, some at a time.
    pub fn sweep_live(&mut self, unix: UnixTime) {
        self.live.sweep(unix);
    }
}
