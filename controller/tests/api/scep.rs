//! SCEP with other people's clients: certmonger enrolls, renews and waits for an operator; micromdm's `scepclient`, which knows
//! single DES only, where that is allowed.

use std::net::SocketAddr;
use std::time::Duration;

use sallyport_ca::{Certificate, KeyAlgorithm, pem};
use sallyport_proto::v1;

use super::enrollment::{site, site_with};
use super::status::{good, has, run};
use crate::common::{self, Site};

/// A token for one certificate of this name.
pub(crate) async fn token(site: &Site, name: &str) -> String {
    let request = v1::CreateEnrollTokenRequest {
        name: name.into(),
        profile: "machine".into(),
        ttl_s: 3_600,
        uses: 1,
        ..Default::default()
    };
    let answer = site.operator().await.create_enroll_token(request).await.expect("makes");
    String::from_utf8(answer.into_inner().token.expect("a token").into_inner().to_vec()).expect("text")
}

/// Turns SCEP on; gives the plain port, once it answers.
async fn on(site: &Site, single_des: bool) -> SocketAddr {
    let [_, http] = site.running.enrollment_addresses();
    let http = http.expect("listens");
    common::change_settings(&mut site.operator().await, |s| {
        (s.scep, s.scep_single_des) = (true, single_des);
    })
    .await;
    for _ in 0..1_200 {
        if super::get(http, "/scep?operation=GetCACaps").await.contains("POSTPKIOperation") {
            return http;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("SCEP does not come up");
}

#[tokio::test(flavor = "multi_thread")]
async fn certmonger_enrolls_renews_and_waits_for_an_operator() {
    if !has(&[("getcert", "certmonger"), ("dbus-run-session", "dbus"), ("openssl", "openssl")]) {
        return;
    }
    let site = site().await;
    let off = super::get(site.running.enrollment_addresses()[1].expect("listens"), "/scep?operation=GetCACaps").await;
    assert!(off.starts_with("HTTP/1.1 404"), "{off}");
    let http = on(&site, false).await;
    let (first, other) = (token(&site, "laptop7.example.com").await, token(&site, "laptop8.example.com").await);
    // The same with another secret.
    let (head, tail) = other.split_at(30);
    let wrong = format!("{head}{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = dir.path();
    let root = pem::encode("CERTIFICATE", &site.running.root_certificate());
    std::fs::write(folder.join("root.pem"), root.as_bytes()).expect("writes");
    let script = format!(
        r#"set -e
getcert add-scep-ca -s -c ours -u http://{http}/scep -I $PWD/root.pem
getcert request -s -c ours -k $PWD/key.pem -f $PWD/cert.pem -N CN=boss.example.com -L {first} -w
cp cert.pem first.pem
getcert resubmit -s -f $PWD/cert.pem -w
cp cert.pem second.pem
getcert rekey -s -f $PWD/cert.pem -w
cp cert.pem third.pem
getcert request -s -c ours -k $PWD/no.key -f $PWD/no.pem -N CN=laptop8 -L {wrong} -w || true
getcert list -s -f $PWD/no.pem
"#
    );
    std::fs::write(folder.join("script"), script).expect("writes");
    // The bus starts the daemon when it is first asked, and ends it.
    let text = good(folder, "HOME=$PWD dbus-run-session bash script 2>&1").await;
    assert!(text.contains("status: CA_REJECTED"), "{text}");
    let certificates = ["first", "second", "third"].map(|name| {
        let der = std::fs::read(folder.join(format!("{name}.pem"))).expect("there");
        Certificate::from_pem(&der).expect("a certificate")
    });
    for certificate in &certificates {
        assert!(certificate.names_host("laptop7.example.com") && !certificate.names_host("boss.example.com"));
    }
    let serials = certificates.each_ref().map(|c| c.serial.to_string());
    assert!(serials[0] != serials[1] && serials[1] != serials[2], "{serials:?}\n{text}");
    assert_ne!(certificates[0].spki_der(), certificates[2].spki_der(), "rekey makes another key");
    std::fs::write(folder.join("issuing.pem"), issuing(&site).await).expect("writes");
    good(folder, "openssl verify -x509_strict -CAfile root.pem -untrusted issuing.pem first.pem second.pem third.pem")
        .await;

    // Without a challenge it waits, polls, and hears the decision.
    let script = format!(
        r#"set -e
getcert add-scep-ca -s -c ours -u http://{http}/scep -I $PWD/root.pem
getcert request -s -c ours -k $PWD/new.key -f $PWD/new.pem -N CN=laptop9.example.com
for i in $(seq 400); do getcert list -s -f $PWD/new.pem | grep -q 'status: MONITORING' && exit 0; \
  [ -e decided ] && getcert refresh -s -f $PWD/new.pem >/dev/null; sleep 0.2; done
getcert list -s; exit 1
"#
    );
    std::fs::write(folder.join("script"), script).expect("writes");
    let mut operator = site.operator().await;
    let decide = async {
        for _ in 0..1_200 {
            let requests =
                operator.list_requests(v1::ListRequestsRequest::default()).await.expect("lists").into_inner();
            if let Some(request) = requests.requests.first() {
                let decision = v1::DecideRequestRequest {
                    number: request.number,
                    approve: true,
                    name: "laptop9.example.com".into(),
                    ..Default::default()
                };
                operator.decide_request(decision).await.expect("decides");
                std::fs::write(folder.join("decided"), "").expect("writes");
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody asked");
    };
    // With a folder of its own: the daemon remembers the authority of before.
    let waits = run(folder, "mkdir two && HOME=$PWD/two dbus-run-session bash script 2>&1".to_owned());
    tokio::pin!(waits);
    let (done, text) = tokio::select! {
        early = &mut waits => early,
        () = decide => waits.await,
    };
    assert!(done, "{text}");
    let der = std::fs::read(folder.join("new.pem")).expect("there");
    assert!(Certificate::from_pem(&der).expect("a certificate").names_host("laptop9.example.com"));
    site.running.shutdown().await;
}

/// The certificate of the issuing authority, PEM.
async fn issuing(site: &Site) -> String {
    let issued = common::issue(&site.running, sallyport_ca::Profile::Operator, "olga").await;
    pem::encode("CERTIFICATE", &issued.chain[0]).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn scepclient_is_told_that_single_des_is_not_taken_and_enrolls_where_it_is() {
    if !has(&[("scepclient", "scep")]) {
        return;
    }
    // It encrypts to each certificate that it gets, and so needs an authority with RSA keys only.
    let site = site_with(|config| config.authority.key = KeyAlgorithm::Rsa2048).await;
    let http = on(&site, false).await;
    let dir = tempfile::tempdir().expect("temporary folder");
    let enroll = |challenge: &str| {
        format!(
            "scepclient -server-url http://{http}/scep -challenge {challenge} -cn laptop7 -private-key key.pem \
             -certificate cert.pem"
        )
    };
    let first = token(&site, "laptop7.example.com").await;
    let (done, text) = run(dir.path(), enroll(&first)).await;
    assert!(!done && text.contains("badAlg"), "{text}");
    // An operator who has such devices says so; the token is as good as before.
    let http_again = on(&site, true).await;
    assert_eq!(http, http_again);
    let (done, text) = run(dir.path(), enroll(&first)).await;
    assert!(done, "{text}");
    let der = std::fs::read(dir.path().join("cert.pem")).expect("there");
    assert!(Certificate::from_pem(&der).expect("a certificate").names_host("laptop7.example.com"));
    site.running.shutdown().await;
}
