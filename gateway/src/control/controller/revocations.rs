//! Who is a controller no more: its certificate chains to the root, but a list that the root, or an authority below it, has signed names it.
//!
//! Whoever carries such a list may keep it back, and whoever was a controller would. So every controller that is configured is
//! asked, before the first is told anything and then again and again; what was learned is kept as long as the process runs. A list
//! cannot be forged, and an old one takes nothing back ([`Revocations`]), so a hostile controller cannot talk us out of anything.

use std::sync::Arc;
use std::time::Duration;

use rustls::time_provider::DefaultTimeProvider;
use sallyport_ca::crl::Revocations;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{Channel, ControllerError, Identity, Judge, Shown, dial};

/// How long a controller may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time between two rounds, half of it differs between gateways.
const EVERY: Duration = Duration::from_secs(30);

/// The time between two rounds of a gateway.
pub(super) fn pause(seed: u64) -> Duration {
    EVERY / 2 + (EVERY / 2).mul_f64((seed >> 11) as f64 / (1_u64 << 53) as f64)
}

/// How the controllers are reached.
struct Way {
    /// Roots, PEM.
    ca: Vec<u8>,
    addresses: Vec<String>,
    judge: Judge,
}

impl Way {
    /// A connection to each, made when it is used.
    fn channels(&self, shown: &Shown) -> Result<Vec<Channel>, ControllerError> {
        let tls = dial::tls_showing(&self.ca, shown, Arc::new(DefaultTimeProvider), self.judge.clone());
        let tls = tls.map_err(|e| ControllerError::Tls(e.to_string()))?;
        let channel = |address: &String| {
            let endpoint = dial::endpoint(address).ok_or_else(|| ControllerError::Address(address.clone()))?;
            let endpoint = endpoint
                .connect_timeout(Duration::from_secs(3))
                .http2_keep_alive_interval(Duration::from_secs(5))
                .keep_alive_timeout(Duration::from_secs(5))
                .keep_alive_while_idle(true);
            Ok(Channel::new(endpoint, address, tls.clone(), self.judge.clone()))
        };
        self.addresses.iter().map(channel).collect()
    }
}

/// Asks, and judges by what it has heard.
pub(super) struct Watchman {
    known: Arc<Revocations>,
    channels: Vec<Channel>,
    carriers: Vec<Channel>,
    shown: Shown,
    way: Way,
    news: watch::Sender<u64>,
}

impl Watchman {
    /// Connections to these controllers, whose servers are judged.
    pub(super) fn new(addresses: &[String], identity: &Identity) -> Result<Arc<Self>, ControllerError> {
        if addresses.is_empty() {
            return Err(ControllerError::NoAddress);
        }
        let tls_error = |e: &dyn std::fmt::Display| ControllerError::Tls(e.to_string());
        let known = Arc::new(Revocations::trusting(&identity.ca).map_err(|e| tls_error(&e))?);
        if let Some(list) = &identity.revoked
            && let Err(error) = known.take_all(list)
        {
            warn!(%error, "the identity folder's list of revoked controllers is not used, or not all of it");
        }
        let judge: Judge = Arc::new(known.judge("; take it out of [gateway] controllers"));
        let shown = Shown::new(&identity.grpc_chain, &identity.grpc_key).map_err(|e| tls_error(&e))?;
        let way = Way { ca: identity.ca.clone(), addresses: addresses.to_vec(), judge };
        let (channels, carriers) = (way.channels(&shown)?, way.channels(&shown)?);
        Ok(Arc::new(Self { known, channels, carriers, shown, way, news: watch::Sender::new(0) }))
    }

    /// Other connections, which show this certificate, PEM.
    pub(super) fn channels_showing(&self, chain: &[u8], key: &[u8]) -> Result<Vec<Channel>, ControllerError> {
        let shown = Shown::new(chain, key).map_err(|e| ControllerError::Tls(e.to_string()))?;
        self.way.channels(&shown)
    }

    /// Shows this certificate (PEM) in connections to come, and has all of them made anew.
    pub(super) fn show(&self, chain: &[u8], key: &[u8]) -> Result<(), ControllerError> {
        self.shown.change(chain, key).map_err(|e| ControllerError::Tls(e.to_string()))?;
        for channel in self.channels.iter().chain(&self.carriers) {
            channel.reconnect();
        }
        self.news.send_modify(|n| *n += 1);
        Ok(())
    }

    /// The connections, in the order of their addresses.
    pub(super) fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The same again: connections that share nothing with the others.
    pub(super) fn carriers(&self) -> &[Channel] {
        &self.carriers
    }

    /// Changes when a certificate turned out to be revoked, or ours is another.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Asks all controllers at a time; those that do not answer in time have said nothing.
    pub(super) async fn look(self: &Arc<Self>) {
        let asked: Vec<_> = self
            .channels
            .iter()
            .map(|channel| {
                let (this, channel) = (self.clone(), channel.clone());
                tokio::spawn(async move { this.ask(channel).await })
            })
            .collect();
        for one in asked {
            let _ = one.await; // a panic in it was logged
        }
    }

    async fn ask(&self, channel: Channel) {
        let address = channel.address().to_owned();
        let crl = match channel.revoked_controllers(PATIENCE).await {
            Ok(crl) => crl,
            Err(status) => return debug!(address, status = %super::words(&status), "no list of revoked controllers"),
        };
        let before = self.known.lists();
        let taken = self.known.take_all(&crl);
        // Beside what could not be used there may have been something new.
        if taken.is_err() && self.known.lists() != before {
            self.news.send_modify(|n| *n += 1);
        }
        match taken {
            Ok(news) if news.is_empty() => {}
            Ok(news) => {
                for serial in news {
                    warn!(%serial, "a controller's certificate is revoked: whoever shows it is refused from now on");
                }
                self.news.send_modify(|n| *n += 1);
            }
            Err(error) => warn!(address, %error, "a controller sent no list of revoked controllers that can be used"),
        }
    }
}
