//! Delivering what is held, over and over until a controller has taken it.

use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tracing::warn;

use super::*;
use crate::clock::{Clock, random};

/// Reports in one call; the contract allows 1,000.
const BATCH: usize = 500;

/// What is held, and a bell.
pub(super) struct Reports {
    held: Mutex<Held>,
    /// Whether something waits or is on its way.
    busy: watch::Sender<bool>,
    /// How many are on their way.
    under_way: AtomicUsize,
}

impl Default for Reports {
    fn default() -> Self {
        Self { held: Mutex::default(), busy: watch::Sender::new(false), under_way: AtomicUsize::new(0) }
    }
}

impl Reports {
    pub(super) fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, report: Report) {
        let mut held = self.lock();
        held.push(report);
        self.busy.send_replace(true);
    }

    /// Returns once nothing waits and nothing is on its way.
    pub(super) async fn delivered(&self) {
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }

    /// Reports that no controller has taken yet.
    pub(super) fn len(&self) -> usize {
        self.lock().len() + self.under_way.load(Ordering::Relaxed)
    }

    fn rest(&self) {
        self.under_way.store(0, Ordering::Relaxed);
        let held = self.lock();
        if held.is_empty() {
            self.busy.send_replace(false);
        }
    }
}

impl Controllers {
    /// Delivers until the gateway ends.
    pub(super) async fn deliver(self) {
        let mut busy = self.reports.busy.subscribe();
        while busy.wait_for(|busy| *busy).await.is_ok() {
            let (sessions, attempts) = {
                let mut held = self.reports.lock();
                (held.take_sessions(BATCH), held.take_attempts(BATCH))
            };
            self.reports.under_way.store(sessions.len() + attempts.len(), Ordering::Relaxed);
            // At the same time: one that is not answered does not keep the other back.
            if tokio::join!(self.deliver_sessions(sessions), self.deliver_attempts(attempts)) != (true, true) {
                return; // the gateway has ended
            }
            self.tell_lost();
            self.reports.rest();
        }
    }

    /// What fell out stands in the audit too, once a controller listens again.
    fn tell_lost(&self) {
        let mut held = self.reports.lock();
        let Some(lost) = held.take_lost() else { return };
        warn!(?lost, "reports fell out while the controllers were away");
        let Ok(id) = random::<16>() else { return };
        held.push(Report::Attempt(Box::new(v1::Attempt {
            id: id.to_vec(),
            time_unix_ms: Clock::unix_ms(),
            outcome: v1::Outcome::Abandoned.into(),
            cause: format!(
                "the gateway could not hold all its reports: {} of refused attempts, {} of ended sessions and {} of \
                 sessions that are up are missing here",
                lost.attempts, lost.ends, lost.updates
            ),
            remedy: "its own log has them; look why the controllers were away for so long".into(),
            ..v1::Attempt::default()
        })));
    }

    async fn deliver_sessions(&self, reports: Vec<v1::SessionReport>) -> bool {
        let call = |reports: Vec<v1::SessionReport>| async move {
            self.persist(|mut client, member| {
                let request = v1::ReportSessionsRequest { member: Some(member), reports: reports.clone() };
                async move { client.report_sessions(request).await }
            })
            .await
        };
        let (taken, refused, going_on) = piecewise(reports, call).await;
        self.reports.lock().note_refused(refused, 0);
        let unknown: Vec<String> = taken.into_iter().flat_map(|answer| answer.unknown_session_ids).collect();
        if !unknown.is_empty() {
            let _ = self.events.send(FromController::UnknownSessions(unknown)).await;
        }
        going_on
    }

    async fn deliver_attempts(&self, attempts: Vec<v1::Attempt>) -> bool {
        let call = |attempts: Vec<v1::Attempt>| async move {
            self.persist(|mut client, member| {
                let request = v1::ReportAttemptsRequest { member: Some(member), attempts: attempts.clone() };
                async move { client.report_attempts(request).await }
            })
            .await
        };
        let (_, refused, going_on) = piecewise(attempts, call).await;
        self.reports.lock().note_refused(0, refused);
        going_on
    }

    /// Repeats `call` until a controller took it, refused it for good, or the gateway stops.
    async fn persist<T, F>(
        &self,
        mut call: impl FnMut(GatewayClient<Failover<Channel>>, v1::Member) -> F,
    ) -> Persisted<T>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut pause = BACKOFF.0;
        let mut heard = self.heard.subscribe();
        loop {
            heard.mark_unchanged();
            let member = self.member();
            match tokio::time::timeout(CALL_TIMEOUT, call(self.client.clone(), member)).await {
                Ok(Ok(response)) => return Persisted::Taken(response.into_inner()),
                Ok(Err(status)) if !passes(&status) => {
                    warn!(status = %status.message(), "the controller refused a report");
                    return Persisted::Refused;
                }
                Ok(Err(_)) | Err(_) if self.events.is_closed() => return Persisted::Stopped,
                Ok(Err(_)) | Err(_) => {}
            }
            wait(pause, &mut heard).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }
}

/// Waits before the next try; shorter when a controller was heard meanwhile: whoever connects right after an outage is to be seen
/// among the sessions at once. Never less than the first pause: that controller may refuse what another one would take.
async fn wait(pause: Duration, heard: &mut watch::Receiver<()>) {
    tokio::time::sleep(pause.min(BACKOFF.0)).await;
    tokio::select! {
        () = tokio::time::sleep(pause.saturating_sub(BACKOFF.0)) => {}
        Ok(()) = heard.changed() => {}
    }
}

/// What became of a call.
enum Persisted<T> {
    Taken(T),
    Refused,
    Stopped,
}

/// Delivers all at once, or one by one if a controller refuses some: one bad report must not take others with it. Says what
/// was answered, how many were refused, and whether the gateway goes on.
async fn piecewise<R, T, F>(reports: Vec<R>, mut call: impl FnMut(Vec<R>) -> F) -> (Vec<T>, u64, bool)
where
    R: Clone,
    F: Future<Output = Persisted<T>>,
{
    if reports.is_empty() {
        return (Vec::new(), 0, true);
    }
    match call(reports.clone()).await {
        Persisted::Taken(answer) => return (vec![answer], 0, true),
        Persisted::Stopped => return (Vec::new(), 0, false),
        Persisted::Refused if reports.len() == 1 => return (Vec::new(), 1, true),
        Persisted::Refused => {}
    }
    let (mut answers, mut refused) = (Vec::new(), 0);
    for report in reports {
        match call(vec![report]).await {
            Persisted::Taken(answer) => answers.push(answer),
            Persisted::Refused => refused += 1,
            Persisted::Stopped => return (answers, refused, false),
        }
    }
    (answers, refused, true)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn once_a_controller_is_heard_what_is_held_waits_no_longer() {
        let (bell, mut heard) = watch::channel(());
        bell.send_replace(());
        let long = wait(Duration::from_secs(3_600), &mut heard);
        tokio::time::timeout(Duration::from_secs(60), long).await.expect("the bell ends it");
        // It has rung once, and a gateway that ends rings no more.
        for bell in [Some(bell), None] {
            let begun = Instant::now();
            wait(BACKOFF.0 * 2, &mut heard).await;
            assert!(begun.elapsed() >= BACKOFF.0 * 2);
            drop(bell);
        }
    }
}
