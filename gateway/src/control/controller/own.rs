//! What concerns the gateway's own certificates: asking for them, and showing them.

use super::*;
use crate::clock::Clock;

impl Controllers {
    /// The names that our certificates for IKE shall have; none where nobody has said.
    pub fn public_names(&self) -> watch::Receiver<Vec<String>> {
        self.names.subscribe()
    }

    /// The controllers' time, milliseconds since 1970: by it certificates end.
    pub fn now_ms(&self) -> u64 {
        Clock::unix_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Where they are, HOST:PORT.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Whether the gateway has ended.
    pub fn is_over(&self) -> bool {
        self.events.is_closed()
    }

    pub(super) fn note_time(&self, controllers_ms: u64) {
        if controllers_ms == 0 {
            return; // not said
        }
        let signed = |ms| i64::try_from(ms).unwrap_or(i64::MAX);
        self.ahead_ms.store(signed(controllers_ms).saturating_sub(signed(Clock::unix_ms())), Ordering::Relaxed);
    }

    /// The roots that are trusted, and who issues below them.
    pub fn roots(&self) -> &Arc<KnownRoots> {
        self.watchman.roots()
    }

    /// Of the roots, as life signs say them.
    pub(super) fn fingerprints(&self) -> Vec<Vec<u8>> {
        self.roots().roots().trusted().iter().map(|root| root.fingerprint.0.to_vec()).collect()
    }

    pub(super) fn note_policy(&self, policy: Option<&v1::Policy>) {
        let Some(policy) = policy else { return };
        self.roots().note(policy);
        self.names.send_if_modified(|names| {
            let changed = *names != policy.public_names;
            names.clone_from(&policy.public_names);
            changed
        });
    }

    /// Asks for a certificate. The same request again gets the same one. The error is the cause in words.
    pub async fn renew(&self, request: v1::RenewRequest) -> Result<v1::RenewResponse, String> {
        let mut client = self.client.clone();
        match tokio::time::timeout(CALL_TIMEOUT, client.renew(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(words(&status)),
            Err(_) => Err("no controller answered in time".into()),
        }
    }

    /// Whether the controllers take calls that come with this certificate, PEM. Else why not.
    pub async fn try_link(&self, chain: &[u8], key: &[u8]) -> Result<(), String> {
        let channels = self.watchman.channels_showing(chain, key).map_err(|e| e.to_string())?;
        let mut client = GatewayClient::new(Failover::new(channels, 0).patience(PER_CONTROLLER));
        let now = *self.vitals.borrow();
        // All that a regular one says: without what is known of revocations the gateway would count as one that knows none.
        let (live, revocations) = self.live.said();
        let request = v1::HeartbeatRequest {
            member: Some(self.member()),
            live_sessions: now.live_sessions,
            half_open: now.half_open,
            draining: false,
            live,
            revocations,
            roots: self.fingerprints(),
        };
        match tokio::time::timeout(CALL_TIMEOUT, client.heartbeat(request)).await {
            Ok(Ok(_)) => Ok(()),
            // One that was given up is told so by its name.
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => Ok(()),
            Ok(Err(status)) => Err(format!("no controller takes the new certificate: {}", words(&status))),
            Err(_) => Err("no controller takes the new certificate: no answer in time".into()),
        }
    }

    /// Shows this certificate (PEM) from now on: calls to come go over connections that are made with it; what is held and what waits
    /// for an answer is not touched.
    pub fn show_link(&self, chain: &[u8], key: &[u8]) -> Result<(), ControllerError> {
        self.watchman.show(chain, key)
    }

    /// Hands new certificates for IKE to the control plane.
    pub async fn hand_on(&self, credentials: NewCredentials) {
        let _ = self.events.send(FromController::Credentials(credentials)).await; // the gateway has ended
    }
}
