//! The state of a cluster that people connect to: users, certificate records and sessions, with the answers that are remembered.

use std::path::Path;

use sallyport_controller::Engine;
use sallyport_controller::state::{
    Action, AddPool, AddUser, CertificateRow, Credentials, OpenSession, RecordCertificate, RegisterGateway, SessionsUp,
};
use sallyport_proto::v1;

use crate::fill::{Filler, serial};

/// A record of a certificate for a machine, as one was before there was enrollment.
pub(crate) fn certificate(n: u64) -> CertificateRow {
    CertificateRow {
        serial: serial(n),
        profile: v1::CertificateProfile::Machine.into(),
        name: format!("laptop-{n:07}.example.org"),
        sans: vec![format!("laptop-{n:07}.example.org")],
        not_before_ms: 1_700_000_000_000,
        not_after_ms: 1_800_000_000_000,
        fingerprint: n.to_be_bytes().repeat(4),
        ..CertificateRow::default()
    }
}

/// Makes the state in an empty folder.
pub(crate) async fn fill(path: &Path, engine: Engine, certificates: u64, sessions: u64) {
    let mut filler = Filler::begin(path, engine, 0).await;
    let gateway = RegisterGateway { name: "gw".into(), boot_id: vec![1; 16], ..RegisterGateway::default() };
    filler.put(Action::RegisterGateway(gateway)).await;
    let networks = vec!["10.0.0.0/8".parse().unwrap()];
    filler.put(Action::AddPool(AddPool { name: "office".into(), networks, ..AddPool::default() })).await;
    let users = sessions / 2 + 1;
    let user = |n: u64| format!("user-{:06}", n % users);
    for n in 0..users {
        let credentials = Credentials {
            sealed_nt_hash: vec![n as u8; 48],
            sealed_verifier: vec![n as u8; 130],
            sealed_password: Vec::new(),
        };
        let (key, credentials) = (user(n), Some(credentials));
        let more = AddUser { max_sessions: 10, enabled: true, ..AddUser::default() };
        filler.put(Action::AddUser(AddUser { name: key.clone(), key, credentials, ..more })).await;
    }
    filler.apply().await;
    let shared = filler.machine.shared();
    let epoch = shared.read().gateways.get(&1).unwrap().epoch;
    for n in 0..certificates {
        filler
            .put(Action::RecordCertificate(RecordCertificate { record: Some(certificate(n)), answer: Vec::new() }))
            .await;
    }
    for n in 0..sessions {
        let version = shared.read().users.get(&user(n)).unwrap().credentials_version;
        let session = OpenSession {
            session_id: n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            user: user(n),
            credentials_version: version,
            slot: 1,
            epoch,
            session_key: n,
            remote: format!("192.0.2.{}:4500", n % 250),
            attempt_id: n.to_be_bytes().to_vec(),
            ..OpenSession::default()
        };
        filler.put(Action::OpenSession(session)).await;
    }
    filler.apply().await;
    let ids: Vec<u64> = shared.read().sessions.iter().map(|(id, _)| *id).collect();
    for ids in ids.chunks(1_000) {
        filler.put(Action::SessionsUp(SessionsUp { slot: 1, epoch, session_ids: ids.to_vec() })).await;
    }
    filler.apply().await;
    {
        let state = shared.read();
        assert_eq!((state.certificates.len() as u64, state.sessions.len() as u64), (certificates + 1, sessions));
    }
    filler.end().await;
}
