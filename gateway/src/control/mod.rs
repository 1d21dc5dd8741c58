//! The control plane: one task owns every state machine, and this loop carries what they say to the data plane, the
//! crypto workers and the controllers. No protocol lives here.

pub mod audit;
pub mod controller;
pub mod held;
pub mod jobs;
pub mod live;
pub mod machine;
pub mod policy;
pub mod session;

use std::sync::Arc;
use std::time::Duration;

use sallyport_base::Instant;
use sallyport_ike as ike;
use sallyport_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use self::controller::{Controllers, FromController};
use self::jobs::{Candidate, Done, Jobs};
use self::machine::{Judgement, Machine, Output, Proven};
use crate::app::succeed;
use crate::clock::Clock;
use crate::link::{FromData, FromDataReceiver, ToData, ToDataSender};
use crate::metrics::Metrics;

/// Messages of the data plane that are handled before others get their turn.
const BURST: usize = 64;
/// How long clients get to answer our goodbye.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often heartbeat figures and gauges are brought up to date.
const VITALS: Duration = Duration::from_secs(1);

/// Everything the loop holds.
pub struct Runner {
    /// The machines.
    pub machine: Machine,
    /// Towards the data plane.
    pub to_data: ToDataSender,
    /// From the data plane.
    pub from_data: FromDataReceiver,
    /// Towards the controllers.
    pub controllers: Controllers,
    /// From the controllers.
    pub events: mpsc::Receiver<FromController>,
    /// The crypto workers.
    pub jobs: Jobs,
    /// Their results.
    pub results: mpsc::Receiver<Done>,
    /// What a policy changes beside the machines.
    pub policy: policy::Applier,
    /// The clock.
    pub clock: Clock,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

impl Runner {
    /// Runs until `stop` is sent or dropped, then says goodbye to every client.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut admissions = Admissions::default();
        let mut vitals = tokio::time::interval(VITALS);
        vitals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut leaving: Option<Instant> = None;
        loop {
            self.carry_out().await;
            let now = self.clock.now();
            if let Some(deadline) = leaving
                && (self.machine.is_idle() || now >= deadline)
            {
                break;
            }
            let wake = [self.machine.poll_timeout(), leaving].into_iter().flatten().min();
            let wake = wake.unwrap_or(now + Duration::from_secs(3600));
            tokio::select! {
                message = self.from_data.recv() => match message {
                    Some(message) => self.handle_data(message),
                    None => {
                        warn!("the data plane is gone; the gateway stops");
                        self.metrics.working.store(false, std::sync::atomic::Ordering::Relaxed);
                        break;
                    }
                },
                Some(done) = self.results.recv() => self.handle_done(done, &mut admissions),
                Some(event) = self.events.recv() => self.handle_controller(event, &mut admissions).await,
                _ = vitals.tick() => self.publish(),
                _ = &mut stop, if leaving.is_none() => {
                    info!("stopping: saying goodbye to every client");
                    let now = self.clock.now();
                    self.machine.shutdown(now);
                    leaving = Some(now + FAREWELL);
                }
                () = tokio::time::sleep_until(self.clock.to_tokio(wake)) => self.machine.handle_timeout(self.clock.now()),
            }
        }
        self.machine.farewell(self.clock.now());
        self.carry_out().await;
        self.controllers.flush().await;
        let _ = self.to_data.send(ToData::Stop);
    }

    fn handle_data(&mut self, first: FromData) {
        let now = self.clock.now();
        self.machine.handle_data(now, first);
        for _ in 1..BURST {
            let Ok(message) = self.from_data.try_recv() else { break };
            self.machine.handle_data(now, message);
        }
    }

    fn handle_done(&mut self, done: Done, admissions: &mut Admissions) {
        let now = self.clock.now();
        match done {
            Done::Answer(id, answer) => self.machine.handle_job(now, id, answer),
            Done::Admit(id, candidate) => {
                let proven = proven(&candidate);
                let judgement = self.machine.judge(now, Clock::unix(), &proven);
                self.metrics.note_judgement(&judgement);
                match judgement {
                    Judgement::Admit => self.machine.handle_admitted(now, id, proven),
                    Judgement::Refuse(refusal) => {
                        self.machine.handle_refused_here(now, id, refusal, v1::CertificateVerdict::Revoked);
                    }
                    Judgement::Ask(index) => self.ask(id, &candidate, (proven, index), admissions),
                }
            }
        }
    }

    /// Asks the controllers about a machine.
    fn ask(
        &mut self,
        id: ike::JobId,
        candidate: &Candidate,
        (machine, index): (Proven, u64),
        admissions: &mut Admissions,
    ) {
        match crate::clock::random::<16>() {
            Ok(request_id) => {
                let known = self.machine.is_in(&machine);
                let question = admissions.ask(Asked { id, machine, request_id, index });
                self.controllers.admit(question, request(candidate, request_id), known);
            }
            Err(e) => self.machine.handle_job(self.clock.now(), id, ike::Answer::Failed(e.to_string())),
        }
    }

    /// Takes in which certificates are live, and lets the controllers know when that is done.
    async fn handle_live(&mut self, update: &v1::LiveUpdate) {
        let urgent = !update.revoked.is_empty() || update.snapshot;
        if let Err(misfit) = self.machine.handle_live(self.clock.now(), update) {
            warn!(%misfit, "asks for the live certificates again");
            return self.controllers.follow_again();
        }
        // What is revoked is out before that is acknowledged.
        self.carry_out().await;
        self.report_live(urgent);
    }

    fn report_live(&self, urgent: bool) {
        let (held, done) = self.machine.live_report(self.clock.now());
        self.controllers.report_live(held, done, urgent);
    }

    async fn handle_controller(&mut self, event: FromController, admissions: &mut Admissions) {
        let now = self.clock.now();
        match event {
            FromController::Policy(policy) => {
                self.machine.set_stale_policy(now, policy.max_stale_s, policy.fail_closed);
                self.policy.apply(policy, &mut self.machine, &self.jobs).await;
            }
            FromController::Live(update) => self.handle_live(&update).await,
            FromController::Newest { newest, asked } => {
                let ago = asked.elapsed();
                let asked = Instant::from_micros(
                    now.as_micros().saturating_sub(u64::try_from(ago.as_micros()).unwrap_or(u64::MAX)),
                );
                self.machine.handle_newest(now, newest, asked);
            }
            FromController::Command(command) => self.machine.handle_command(now, command),
            FromController::GivenUp => self.machine.handle_given_up(now),
            FromController::Credentials(new) => {
                self.policy.base.credentials = succeed(new.credentials, &self.policy.base.credentials);
                self.jobs.set_keys(new.keys, &self.policy.base.credentials);
                self.machine.set_credentials(self.policy.base.credentials.clone());
            }
            FromController::UnknownSessions(sessions) => self.machine.handle_unknown_sessions(now, &sessions),
            FromController::Authenticated { question, decision } => {
                self.machine.handle_decision(now, question, decision);
            }
            FromController::Admitted { question, decision } => {
                let Some(Asked { id, machine: proven, request_id, index }) = admissions.take(question) else { return };
                use v1::admit_peer_response::Decision;
                match decision {
                    Ok(Decision::Admitted(admitted)) => {
                        let machine = Proven { name: admitted.name, ..proven };
                        self.machine.handle_admitted_at(now, id, machine, index);
                    }
                    Ok(Decision::Refused(r)) => {
                        let refusal = ike::VerifyRefusal { name: None, cause: r.cause, remedy: r.remedy };
                        self.machine.handle_not_admitted(now, id, refusal, request_id);
                    }
                    Err(cause) => self.machine.handle_undecided(now, id, proven, &cause),
                }
            }
        }
    }

    async fn carry_out(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Data(message) => {
                    // The worker's end is reported as `FromData::Stopped`, or by the closed queue.
                    let _ = self.to_data.send(message);
                }
                Output::Job(id, job) => {
                    if let Some(Done::Answer(id, answer)) = self.jobs.submit(id, job) {
                        self.machine.handle_job(self.clock.now(), id, answer);
                    }
                }
                Output::Authenticate(question, request) => self.controllers.authenticate(question, *request),
                Output::Report(report) => {
                    self.metrics.note_report(&report);
                    self.controllers.report(report);
                }
            }
        }
    }

    fn publish(&mut self) {
        self.machine.sweep_live(Clock::unix());
        self.report_live(false);
        self.metrics.publish_live(self.machine.live_certificates(), self.machine.revocation_lag(self.clock.now()));
        let vitals = self.machine.vitals();
        self.controllers.set_vitals(vitals);
        self.metrics.publish(vitals, &self.machine);
        let (held, lost) = self.controllers.held();
        self.metrics.publish_reports(self.controllers.are_away(), held, lost);
        self.metrics.publish_log(self.controllers.log_sight());
    }
}

/// A question about a machine.
struct Asked {
    id: ike::JobId,
    machine: Proven,
    request_id: [u8; 16],
    /// Revocations up to this number were known when it was asked.
    index: u64,
}

/// Questions about machines that the controllers have not answered.
#[derive(Default)]
struct Admissions {
    open: std::collections::BTreeMap<u64, Asked>,
    next: u64,
}

impl Admissions {
    fn ask(&mut self, asked: Asked) -> u64 {
        self.next += 1;
        self.open.insert(self.next, asked);
        self.next
    }

    fn take(&mut self, question: u64) -> Option<Asked> {
        self.open.remove(&question)
    }
}

/// What a machine's certificate says of it.
pub fn proven(candidate: &Candidate) -> Proven {
    let certificate = &candidate.certificate;
    Proven {
        name: certificate.display_name(),
        serial: certificate.serial.to_string(),
        fingerprint: certificate.fingerprint.0,
    }
}

fn request(candidate: &Candidate, request_id: [u8; 16]) -> v1::AdmitPeerRequest {
    let certificate = &candidate.certificate;
    v1::AdmitPeerRequest {
        member: None,
        request_id: request_id.to_vec(),
        certificate_serial: certificate.serial.to_string(),
        fingerprint: certificate.fingerprint.0.to_vec(),
        subject: certificate.subject.clone(),
        remote: candidate.remote.to_string(),
        claimed_identity: candidate.identity.clone(),
        not_before_unix_ms: u64::try_from(certificate.not_before.0).unwrap_or(0).saturating_mul(1_000),
    }
}
