//! Somebody with a certificate that was issued just now comes to a member that may not know it yet. He is never told that it is
//! unknown: that would be final for him.

use std::time::Duration;

use sallyport_proto::v1;
use sallyport_proto::v1::operator_client::OperatorClient;
use tonic::Status;
use tonic::transport::Channel;

use super::common::{shown, tls};
use super::lab::{Lab, slow_set, wait_for};
use super::workload::{lazy, passes};

/// A new operator at one member.
#[derive(Clone)]
pub(crate) struct Newcomer(OperatorClient<Channel>);

impl Lab {
    /// An operator whose certificate is issued now, through the member `via`, and who is going to ask the member `at`.
    pub(crate) async fn newcomer(&self, via: u32, at: u32) -> Newcomer {
        let issued = wait_for("a certificate for a newcomer", || async {
            let request = v1::IssueCertificateRequest {
                profile: v1::CertificateProfile::Operator.into(),
                name: "newcomer".into(),
                key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
                ..Default::default()
            };
            self.world().reader(via).issue_certificate(request).await.ok()
        });
        let issued = issued.await.into_inner();
        let key = issued.private_key.expect("a key").into_inner();
        let tls = tls(issued.chain.last().expect("a root"), Some((&shown(&issued.certificate, &issued.chain), &key)));
        Newcomer(OperatorClient::new(lazy(self.place.listen(at), tls)))
    }
}

impl Newcomer {
    async fn asks(&mut self) -> Result<(), Status> {
        self.0.get_settings(v1::GetSettingsRequest {}).await.map(drop)
    }

    /// Asks once; whether there was an answer. A refusal would come at once.
    pub(crate) async fn is_answered(&mut self) -> bool {
        let patience = Duration::from_millis(if slow_set() { 10_000 } else { 1_500 });
        match tokio::time::timeout(patience, self.asks()).await {
            Ok(Ok(())) => true,
            Ok(Err(status)) if !passes(&status) => panic!("a newcomer was turned away: {status:?}"),
            _ => false,
        }
    }

    /// Asks until there is an answer.
    pub(crate) async fn gets_in(&self) {
        wait_for("a newcomer to be let in", || {
            let mut own = self.clone();
            async move { own.is_answered().await.then_some(()) }
        })
        .await;
    }
}
