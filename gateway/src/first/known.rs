//! The controllers, for a gateway that is no client of theirs yet: who of them is none any more is asked of all before one is told anything,
//! and what one refuses, another may grant.

use std::sync::Arc;
use std::time::Duration;

use rustls::time_provider::DefaultTimeProvider;
use sallyport_ca::crl::Revocations;
use sallyport_ca::roots::Roots;
use sallyport_proto::dial::{self, Anchors, Channel, Judge, Shown};
use sallyport_proto::v1;
use sallyport_proto::v1::joining_client::JoiningClient;
use tonic::Code;
use tracing::{debug, warn};

use super::{Said, endpoint, words};
use crate::control::controller::BELOW_GONE;
use crate::identity::Identity;
use crate::renewal::RenewalError;

/// How long a controller may take to say who is none any more.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of the controllers.
pub(super) struct Known {
    anchors: Anchors,
    revoked: Arc<Revocations>,
    judge: Judge,
}

impl Known {
    /// Whoever chains to the roots of an identity, by none that was given up, and is on none of its lists.
    pub(super) fn by_identity(identity: &Identity) -> Result<Self, RenewalError> {
        let mut known = Self::by(&identity.ca, identity.revoked.as_deref())?;
        let roots = Roots::from_pem(&identity.ca, Some(&identity.gone));
        let roots = roots.map_err(|e| RenewalError::Unusable(e.to_string()))?;
        let revoked = known.revoked.clone();
        let authorities: Judge = Arc::new(move |shown| match roots.is_gone(shown) {
            true => Err(BELOW_GONE.into()),
            false => revoked.judge_authority(shown),
        });
        let anchors = Anchors::judging(&identity.ca, authorities);
        known.anchors = anchors.map_err(|e| RenewalError::Unusable(e.to_string()))?;
        Ok(known)
    }

    /// Whoever chains to these roots (PEM) and is on no list of `revoked`, which may be several.
    pub(super) fn by(ca: &[u8], revoked: Option<&[u8]>) -> Result<Self, RenewalError> {
        let known = Revocations::trusting(ca).map_err(|e| RenewalError::Unusable(e.to_string()))?;
        let known = Arc::new(known);
        if let Some(list) = revoked
            && let Err(error) = known.take_all(list)
        {
            warn!(%error, "the list of revoked controllers is not used, or not all of it");
        }
        let judge: Judge = Arc::new(known.judge("; take it out of [gateway] controllers"));
        let anchors = Anchors::new(ca).map_err(|e| RenewalError::Unusable(e.to_string()))?;
        Ok(Self { anchors, revoked: known, judge })
    }

    /// A connection to each that shows no certificate.
    fn strangers(&self, addresses: &[String]) -> Result<Vec<Channel>, RenewalError> {
        let tls = dial::tls_of_stranger(&self.anchors, Arc::new(DefaultTimeProvider), self.judge.clone());
        let tls = tls.map_err(|e| RenewalError::Unusable(e.to_string()))?;
        let channel = |address: &String| Ok(Channel::new(endpoint(address)?, address, tls.clone(), self.judge.clone()));
        addresses.iter().map(channel).collect()
    }

    /// The same with the link's certificate.
    pub(super) fn callers(&self, addresses: &[String], identity: &Identity) -> Result<Vec<Channel>, RenewalError> {
        let shown = Shown::new(&identity.grpc_chain, &identity.grpc_key);
        let shown = shown.map_err(|e| RenewalError::Unusable(e.to_string()))?;
        let tls = dial::tls_showing(&self.anchors, &shown, Arc::new(DefaultTimeProvider), self.judge.clone());
        let tls = tls.map_err(|e| RenewalError::Unusable(e.to_string()))?;
        let channel = |address: &String| Ok(Channel::new(endpoint(address)?, address, tls.clone(), self.judge.clone()));
        addresses.iter().map(channel).collect()
    }

    /// Asks all of them at a time who is none any more. Those that do not answer in time have said nothing.
    pub(super) async fn look(&self, channels: &[Channel]) {
        let ask = |channel: &Channel| {
            let (known, channel) = (self.revoked.clone(), channel.clone());
            tokio::spawn(async move {
                let address = channel.address().to_owned();
                match channel.authorities(PATIENCE).await {
                    Ok(said) => {
                        if let Err(error) = known.take_all(&said.lists) {
                            warn!(address, %error, "a controller sent no list of revoked controllers that can be used");
                        }
                    }
                    Err(status) => debug!(address, status = %words(&status), "no list of revoked controllers"),
                }
            })
        };
        let asked: Vec<_> = channels.iter().map(ask).collect();
        for one in asked {
            let _ = one.await; // a panic in it was logged
        }
    }

    /// One round over all controllers. Whoever refuses speaks for himself: he may be behind, or not mean well.
    pub(super) async fn round(
        &self,
        addresses: &[String],
        request: &v1::EnrollGatewayRequest,
    ) -> Result<Said<v1::EnrollGatewayResponse>, RenewalError> {
        let channels = self.strangers(addresses)?;
        self.look(&channels).await;
        let mut said = Round::default();
        for channel in channels {
            let address = channel.address().to_owned();
            match JoiningClient::new(channel).enroll_gateway(request.clone()).await {
                Ok(answer) => return Ok(Said::Yes(answer.into_inner())),
                Err(status) => match status.code() {
                    Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented => {
                        let text = format!("the controllers refuse this gateway: {}", status.message());
                        said.refused(&address, RenewalError::Refused(text));
                    }
                    _ => said.not_now(&address, &words(&status)),
                },
            }
        }
        said.end()
    }
}

/// What the controllers said in one round, none of which was yes.
#[derive(Default)]
pub(super) struct Round {
    text: String,
    open: bool,
    refusal: Option<RenewalError>,
}

impl Round {
    /// One that may say yes later.
    pub(super) fn not_now(&mut self, address: &str, text: &str) {
        self.text.push_str(&format!("{address}: {text}; "));
        self.open = true;
    }

    /// One that said no.
    pub(super) fn refused(&mut self, address: &str, refusal: RenewalError) {
        self.text.push_str(&format!("{address}: {refusal}; "));
        self.refusal.get_or_insert(refusal);
    }

    /// It is no if all said so.
    pub(super) fn end<T>(self) -> Result<Said<T>, RenewalError> {
        match self.refusal {
            Some(refusal) if !self.open => Err(refusal),
            _ => Ok(Said::NotNow(self.text)),
        }
    }
}
