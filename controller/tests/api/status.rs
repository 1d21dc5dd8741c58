//! OCSP, as OpenSSL and GnuTLS ask for it: at the controller's own ports, and through a gateway.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use sallyport_ca::{Profile, pem};
use sallyport_controller::Issued;
use sallyport_proto::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::enrollment::{site, through, tls};
use crate::common::{self, Site};

/// Whether programs are here; says so where one is not.
pub(crate) fn has(programs: &[(&str, &str)]) -> bool {
    programs.iter().all(|(program, package)| {
        let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        let there = there.is_ok_and(|out| out.status.success());
        if !there {
            // Past the capture of a passing test's output, so that ./test can report it.
            let why = format!("\nskipped: {program} is not installed (Debian: {package})\n");
            let _ = std::io::stderr().write_all(why.as_bytes());
        }
        there
    })
}

/// What a command line says, and whether it succeeds. It is ended after two minutes.
pub(crate) async fn run(folder: &Path, command: String) -> (bool, String) {
    let folder = folder.to_owned();
    let run = move || {
        let out = Command::new("timeout").args(["120", "bash", "-c", &command]).current_dir(folder).output();
        let out = out.expect("runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.success(), text)
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

/// What a command line says, which must succeed.
pub(crate) async fn good(folder: &Path, command: &str) -> String {
    let (good, text) = run(folder, command.to_owned()).await;
    assert!(good, "{command}\n{text}");
    text
}

async fn revoke(site: &Site, issued: &Issued, reason: &str) {
    let request = v1::RevokeCertificateRequest { serial: issued.record.serial.clone(), reason: reason.into() };
    site.operator().await.revoke_certificate(request).await.expect("revokes");
}

/// An answer to a POST, without its header.
async fn post(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /ocsp HTTP/1.1\r\nHost: vpn.example.com\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.expect("is taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a header") + 4;
    answer.split_off(end)
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_and_gnutls_hear_what_is_good_revoked_and_unknown() {
    if !has(&[("openssl", "openssl"), ("ocsptool", "gnutls-bin"), ("curl", "curl")]) {
        return;
    }
    let site = site().await;
    let gateway = site.gateway("gw1").await;
    let [https, http] = site.running.enrollment_addresses().map(|address| address.expect("listens"));
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = dir.path();
    let write = |name: &str, all: &[&[u8]]| {
        let text: String = all.iter().map(|der| pem::encode("CERTIFICATE", der).to_string()).collect();
        std::fs::write(folder.join(name), text).expect("writes");
    };
    let live = common::issue(&site.running, Profile::Machine, "laptop7.example.com").await;
    let stolen = common::issue(&site.running, Profile::Machine, "laptop8.example.com").await;
    write("live.pem", &[&live.certificate]);
    write("stolen.pem", &[&stolen.certificate]);
    write("issuing.pem", &[&live.chain[0]]);
    write("root.pem", &[&live.chain[1]]);
    write("both.pem", &[&live.chain[0], &live.chain[1]]);
    revoke(&site, &stolen, "key-compromise").await;

    let ask = |what: &str| {
        format!("openssl ocsp -issuer issuing.pem {what} -url http://{http}/ocsp -CAfile both.pem -respout answer.der")
    };
    for nonce in ["", "-no_nonce"] {
        for hash in ["-sha1", "-sha256"] {
            let what = format!("{hash} -cert live.pem {hash} -cert stolen.pem {hash} -serial 0x123456 {nonce}");
            let text = good(folder, &ask(&what)).await;
            for line in
                ["Response verify OK", "live.pem: good", "stolen.pem: revoked", "keyCompromise", "0x123456: unknown"]
            {
                assert!(text.contains(line), "{what}: {line}\n{text}");
            }
            assert!(!text.contains("WARNING"), "{what}\n{text}");
        }
    }
    let text = good(folder, "openssl ocsp -respin answer.der -noverify -text").await;
    assert!(text.contains("OCSP Signing") && text.contains("OCSP No Check"), "{text}");
    // The root is not asked this way.
    let root = format!("openssl ocsp -issuer root.pem -cert issuing.pem -url http://{http}/ocsp -CAfile both.pem");
    let (_, text) = run(folder, root).await;
    assert!(text.contains("unauthorized"), "{text}");

    for (name, says) in [("live", "Certificate Status: good"), ("stolen", "Certificate Status: revoked")] {
        let tool = format!(
            "ocsptool --ask=http://{http}/ocsp --load-cert={name}.pem --load-issuer=issuing.pem --load-trust=both.pem"
        );
        let (_, text) = run(folder, tool).await;
        assert!(text.contains(says) && text.contains("Success"), "{name}: {text}");
    }

    // GET (RFC 6960 §A.1), which caches may keep; the slashes of base64 are escaped or not.
    good(folder, "openssl ocsp -issuer issuing.pem -cert live.pem -no_nonce -reqout request.der").await;
    let get = format!(
        "set -e; r=$(base64 -w0 request.der); curl -fsS -D head http://{http}/ocsp/$r -o got.der; \
         e=$(printf %s \"$r\" | sed 's,/,%2F,g; s,+,%2B,g; s,=,%3D,g'); curl -fsS http://{http}/ocsp/$e -o again.der; \
         cmp got.der again.der; grep -i 'max-age' head; openssl ocsp -respin got.der -reqin request.der -CAfile both.pem"
    );
    assert!(good(folder, &get).await.contains("Response verify OK"));
    // The same bytes over HTTPS and through a gateway's ports.
    let request = std::fs::read(folder.join("request.der")).expect("there");
    let got = std::fs::read(folder.join("got.der")).expect("there");
    assert_eq!(post(through(&gateway, v1::EnrollmentPort::Http).await.expect("is carried"), &request).await, got);
    let mut tries = 0;
    let stream = loop {
        match tls(&site.running, TcpStream::connect(https).await.expect("connects")).await {
            Ok(stream) => break stream,
            // A new controller has a certificate after a moment.
            Err(e) => {
                tries += 1;
                assert!(tries < 600, "{e}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    };
    assert_eq!(post(stream, &request).await, got);
    site.running.shutdown().await;
}
