//! Who is a controller no more: its certificate chains to the root, but a list that the root, or an authority below it, has signed names it.
//!
//! Whoever carries such a list may keep it back, and whoever was a controller would. So every controller that is configured is
//! asked, before the first is told anything and then again and again; what was learned is kept as long as the process runs. A list
//! cannot be forged, and an old one takes nothing back ([`Revocations`]), so a hostile controller cannot talk us out of anything.

use std::sync::Arc;
use std::time::Duration;

use rustls::time_provider::DefaultTimeProvider;
use sallyport_ca::crl::Revocations;
use sallyport_ca::roots::Roots;
use sallyport_proto::dial::{Anchors, Authorities};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::roots::KnownRoots;
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
    addresses: Vec<String>,
    judge: Judge,
}

impl Way {
    /// A connection to each, made when it is used.
    fn channels(&self, anchors: &Anchors, shown: &Shown) -> Result<Vec<Channel>, ControllerError> {
        let tls = dial::tls_showing(anchors, shown, Arc::new(DefaultTimeProvider), self.judge.clone());
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
    roots: Arc<KnownRoots>,
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
        let roots = KnownRoots::of(identity, known.clone())?;
        let judge: Judge = Arc::new(known.judge("; take it out of [gateway] controllers"));
        let shown = Shown::new(&identity.grpc_chain, &identity.grpc_key).map_err(|e| tls_error(&e))?;
        let way = Way { addresses: addresses.to_vec(), judge };
        let channels = || way.channels(roots.anchors(), &shown);
        let (channels, carriers) = (channels()?, channels()?);
        Ok(Arc::new(Self { known, roots, channels, carriers, shown, way, news: watch::Sender::new(0) }))
    }

    /// The roots that are trusted.
    pub(super) fn roots(&self) -> &Arc<KnownRoots> {
        &self.roots
    }

    /// Other connections, which show this certificate, PEM.
    pub(super) fn channels_showing(&self, chain: &[u8], key: &[u8]) -> Result<Vec<Channel>, ControllerError> {
        let shown = Shown::new(chain, key).map_err(|e| ControllerError::Tls(e.to_string()))?;
        self.way.channels(self.roots.anchors(), &shown)
    }

    /// Shows this certificate (PEM) in connections to come, and has all of them made anew.
    pub(super) fn show(&self, chain: &[u8], key: &[u8]) -> Result<(), ControllerError> {
        self.shown.change(chain, key).map_err(|e| ControllerError::Tls(e.to_string()))?;
        self.reconnect();
        Ok(())
    }

    /// Has all connections made anew.
    fn reconnect(&self) {
        for channel in self.channels.iter().chain(&self.carriers) {
            channel.reconnect();
        }
        self.news.send_modify(|n| *n += 1);
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
        let mut said = Vec::new();
        for one in asked {
            said.extend(one.await.ok().flatten()); // a panic in it was logged
        }
        if let Some(left) = self.roots.without_the_unsaid(&said, self.channels.len()) {
            self.give_up_roots(&said, &left).await;
        }
    }

    /// Trusts only these roots from now on, if most controllers are known for such by them alone: those who said that they trust
    /// the others no more may not mean well.
    async fn give_up_roots(&self, said: &[Authorities], left: &Roots) {
        let channels = match self.roots.anchors_of(left).and_then(|anchors| self.way.channels(&anchors, &self.shown)) {
            Ok(channels) => channels,
            Err(error) => return warn!(%error, "the roots that the controllers trust are not usable"),
        };
        let asked: Vec<_> =
            channels.into_iter().map(|c| tokio::spawn(async move { c.authorities(PATIENCE).await.is_ok() })).collect();
        let mut good = 0;
        for one in asked {
            good += usize::from(one.await.unwrap_or(false));
        }
        if good * 2 <= self.channels.len() {
            return debug!(good, "a root is not given up: by the others not enough controllers are known for such");
        }
        if self.roots.give_up(said, self.channels.len(), left) {
            self.reconnect();
        }
    }

    async fn ask(&self, channel: Channel) -> Option<Authorities> {
        let address = channel.address().to_owned();
        let said = match channel.authorities(PATIENCE).await {
            Ok(said) => said,
            Err(status) => {
                debug!(address, status = %super::words(&status), "no list of revoked controllers");
                self.ask_anybody(&address).await;
                return None;
            }
        };
        // First these: by them some of the lists are known for good.
        self.roots.learn(&said);
        self.take(&address, &said.lists);
        Some(said)
    }

    /// What authorities have signed is so whoever says it: by it we know one for a controller whom a thief's list, or another root, keeps
    /// from us. What is not signed, such as which roots are trusted no more, is not heard here.
    async fn ask_anybody(&self, address: &str) {
        let endpoint = dial::endpoint(address).map(|endpoint| endpoint.connect_timeout(PATIENCE));
        let Some(Ok(channel)) = endpoint.map(|endpoint| dial::to_anybody(endpoint, address)) else { return };
        if let Ok(said) = channel.authorities(PATIENCE).await {
            self.roots.learn(&said);
            self.take(address, &said.lists);
        }
    }

    fn take(&self, address: &str, crl: &[u8]) {
        let before = self.known.lists();
        let taken = self.known.take_all(crl);
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
