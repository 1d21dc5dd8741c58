//! A gateway as the witness of the audit log, over a restore.

use sallyport_ca::Certificate;
use sallyport_ca::merkle::{Answer, Evidence, Fault, Followed, Follower, SignedTreeHead, head_keys};
use sallyport_proto::v1;
use sallyport_proto::v1::operator_client::OperatorClient;
use tonic::transport::Channel;

use super::common::{TestGateway, attempts};

/// A witness and what it knows.
pub(crate) struct Witness {
    root: Certificate,
    follower: Follower,
}

impl Witness {
    pub(crate) fn new(root: &[u8]) -> Self {
        Self { root: Certificate::from_der(root).expect("a root"), follower: Follower::default() }
    }

    async fn ask(&mut self, gateway: &mut TestGateway) -> (Followed, v1::WitnessLogResponse) {
        let known = self.follower.known().map(|known| known.to_bytes()).unwrap_or_default();
        let v1::Member { slot, epoch } = gateway.member;
        let request = v1::WitnessLogRequest { slot, epoch, known };
        let answer = gateway.client.witness_log(request).await.expect("an answer").into_inner();
        let said =
            Answer { head: &answer.head, proof: &answer.proof, issuers: &answer.issuers, accepted: &answer.accepted };
        (self.follower.follow(&said, std::slice::from_ref(&self.root)), answer)
    }

    /// The log begins a moment after the first start, when the level of the cluster has risen.
    pub(crate) async fn begin(&mut self, gateway: &mut TestGateway) {
        for _ in 0..600 {
            match self.ask(gateway).await.0 {
                Followed::Nothing => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
                followed => return assert_eq!(followed, Followed::First),
            }
        }
        panic!("there is no audit log");
    }

    pub(crate) async fn grows(&mut self, gateway: &mut TestGateway) {
        assert_eq!(self.ask(gateway).await.0, Followed::Good(true));
    }

    /// After a restore that lost entries: found by the gateway and by the controllers, with both heads, until an operator says why.
    pub(crate) async fn finds_the_restore(
        &mut self,
        gateway: &mut TestGateway,
        operator: &mut OperatorClient<Channel>,
    ) {
        let known = self.follower.known().expect("a head").clone();
        let (Followed::Wrong(wrong), answer) = self.ask(gateway).await else { panic!("not found") };
        assert!(matches!(wrong.fault, Fault::RolledBack | Fault::Forked | Fault::Unproven), "{wrong:?}");
        assert_ne!(answer.restored_unix_ms, 0, "and the controllers say why that may be");
        let alarm = |gateways: v1::ListGatewaysResponse| gateways.gateways[0].log_alarm.clone();
        let list = v1::ListGatewaysRequest::default;
        let gateways = operator.list_gateways(list()).await.expect("lists").into_inner();
        assert_eq!(gateways.gateways[0].log_size, known.head.size);
        assert!(alarm(gateways).contains("entries of the audit log"));
        let records: Vec<v1::Attempt> =
            attempts(operator).await.into_iter().filter(|a| a.phase() == v1::Phase::AuditLog).collect();
        let [record] = records.as_slice() else { panic!("{records:?}") };
        let evidence = Evidence::from_bytes(&record.evidence).expect("two heads");
        let keys = head_keys(std::slice::from_ref(&self.root), &answer.issuers);
        assert_eq!(evidence.known, known);
        assert_eq!((evidence.known.verify(&keys), evidence.shown.verify(&keys)), (Ok(()), Ok(())), "both were signed");

        self.cannot_accept(operator, &answer, &known).await;
        let request = v1::AcceptLogRequest { heads: vec![known.to_bytes()], reason: "a drill".into(), named: false };
        operator.accept_log(request).await.expect("accepts");
        assert_eq!(self.ask(gateway).await.0, Followed::Replaced(Box::new(known)));
        assert!(matches!(self.ask(gateway).await.0, Followed::Good(_)));
        let gateways = operator.list_gateways(list()).await.expect("lists").into_inner();
        assert_eq!(alarm(gateways), "");
        let read = v1::ReadLogRequest::default();
        let log = operator.read_log(read).await.expect("reads").into_inner();
        let entries = log.entries.iter().map(|entry| prost::Message::decode(entry.as_slice()).expect("an entry"));
        let entries: Vec<v1::LogEntry> = entries.collect();
        let accepted = entries.iter().find(|entry| entry.kind() == v1::LogKind::HeadAccepted).expect("an entry");
        assert_eq!(accepted.detail, "a drill");
        assert!(!accepted.actor.is_empty() && accepted.source == "127.0.0.1", "{accepted:?}");
        assert!(entries.iter().any(|entry| entry.kind() == v1::LogKind::Restored));
        let backup =
            entries.iter().find(|entry| entry.kind() == v1::LogKind::KeyUsed).expect("the backup says so itself");
        assert!(backup.name == "every key" && !backup.actor.is_empty(), "{backup:?}");
    }

    /// What an operator is refused: and nothing of it leaves a trace, whatever else stands beside it.
    async fn cannot_accept(
        &self,
        operator: &mut OperatorClient<Channel>,
        answer: &v1::WitnessLogResponse,
        lost: &SignedTreeHead,
    ) {
        use tonic::Code::{FailedPrecondition, InvalidArgument};
        let made_up = {
            let mut head = lost.clone();
            head.head.size += 1;
            head.to_bytes()
        };
        let of_the_log = answer.head.clone();
        let cut = of_the_log[..of_the_log.len() - 1].to_vec();
        let long = "x".repeat(100_000);
        for (bytes, reason, named, code, says) in [
            (made_up, "", false, FailedPrecondition, "name it if it is right (audit accept --head)"),
            (of_the_log.clone(), "", false, FailedPrecondition, "there is nothing to accept"),
            (of_the_log, "", true, FailedPrecondition, "there is nothing to accept"),
            (Vec::new(), "", true, InvalidArgument, "an empty one"),
            (cut, "", true, InvalidArgument, "heads"),
            (lost.to_bytes(), long.as_str(), false, InvalidArgument, "reason: at most"),
        ] {
            // With one beside it that could be accepted.
            let request = v1::AcceptLogRequest { heads: vec![lost.to_bytes(), bytes], reason: reason.into(), named };
            let refused = operator.accept_log(request).await.expect_err(says);
            assert!(refused.code() == code && refused.message().contains(says), "{says}: {refused:?}");
        }
    }
}
