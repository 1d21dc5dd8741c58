//! `sallyport enroll` as a user meets it: the program is run, against a server of EST on the loopback interface.

#[path = "../../ca/enroll/tests/enroll/support/mod.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[allow(clippy::disallowed_methods, reason = "the program that is tested reads the same clock")]
fn clock() -> Clock {
    let clock = Clock::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    clock.set(i64::try_from(now.as_secs()).unwrap());
    clock
}

/// The server goes on in another thread of the runtime.
fn run(root: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.arg("enroll").args(arguments).args(["--root", root.to_str().unwrap()]);
    command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    let Output { status, stdout, stderr } = tokio::task::block_in_place(|| command.output()).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_line_enrolls_a_machine_and_others_show_renew_and_remove_it() {
    let clock = clock();
    let hierarchy = Arc::new(Hierarchy::at(clock.now().0));
    let server = Server::start(&hierarchy, "localhost", &clock, Box::new(|_| Vec::new())).await;
    let token = hierarchy.token(&server.name());
    server.behave(honest(&hierarchy, &token, &clock));
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    let secret = |name: &str, content: &str| {
        let path = temp.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (token_file, password) = (secret("token", &token.to_text()), secret("password", "open sesame\n"));

    let (code, _, error) = run(&root, &["status"]);
    assert!(code == 2 && error.contains("not enrolled"), "{error}");
    let (code, _, error) = run(&root, &[]);
    assert!(code == 2 && error.contains("sallyport token create"), "{error}");

    let line = [
        "--token-file",
        &token_file,
        "--for",
        "strongswan,networkmanager",
        "--user",
        "ada",
        "--password-file",
        &password,
    ];
    let (code, out, error) = run(&root, &line);
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.starts_with("laptop7.example.com has a certificate: serial "), "{out}");
    assert!(
        out.contains("wrote /etc/swanctl/conf.d/sallyport.conf\n") && out.contains("wrote /etc/systemd/system/"),
        "{out}"
    );
    assert!(error.contains("Example Root"), "{error}");
    let file = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert!(file("etc/ppp/options.sallyport").contains("name \"ada\"\npassword \"open sesame\"\n"));
    assert!(file("etc/NetworkManager/system-connections/sallyport.nmconnection").contains("password=open sesame\n"));
    assert_eq!(file("etc/swanctl/private/sallyport.pem"), file("etc/sallyport/enroll/key.pem"));

    let status = || {
        let (code, out, error) = run(&root, &["status", "-o", "json"]);
        assert_eq!(code, 0, "{error}");
        serde_json::from_str::<Value>(&out).unwrap()[0].clone()
    };
    let before = status();
    assert_eq!((&before["name"], &before["state"]), (&Value::from(NAME), &Value::from("valid")));
    assert_eq!(before["installed"], serde_json::json!(["strongswan", "networkmanager"]));
    assert!(before["issuer"].as_str().unwrap().contains("Example Issuing CA 1"));

    let (code, out, _) = run(&root, &["renew"]);
    assert!(code == 0 && out.contains("is not due before 20"), "{out}");
    let (code, out, error) = run(&root, &["renew", "--force"]);
    assert!(code == 0 && out.contains("renewed the certificate of laptop7.example.com"), "{out}{error}");
    assert!(out.contains("wrote /etc/swanctl/private/sallyport.pem\n") && !out.contains("conf.d"), "{out}");
    assert_ne!(status()["serial"], before["serial"]);
    assert_eq!(file("etc/swanctl/private/sallyport.pem"), file("etc/sallyport/enroll/key.pem"));

    // What an interrupted renewal left is put right by the next run, due or not.
    fs::write(root.join("etc/swanctl/x509/sallyport.pem"), "half").unwrap();
    let (code, out, _) = run(&root, &["renew"]);
    assert!(code == 0 && out.contains("wrote /etc/swanctl/x509/sallyport.pem\n"), "{out}");

    // A timer that was lost comes back, unless it is not wanted.
    let timer = root.join("etc/systemd/system/sallyport-renew.timer");
    let unit = fs::read_to_string(&timer).unwrap();
    fs::remove_file(&timer).unwrap();
    let (code, _, error) = run(&root, &["install", "--for", "strongswan", "--no-timer"]);
    assert!(code == 0 && !timer.exists(), "{error}");
    let (code, out, error) = run(&root, &["install", "--for", "strongswan"]);
    assert!(code == 0 && out.contains("wrote /etc/systemd/system/sallyport-renew.timer\n"), "{out}{error}");
    assert_eq!(fs::read_to_string(&timer).unwrap(), unit);

    let out = temp.path().join("mac");
    let folder = root.join("etc/sallyport/enroll");
    let mut profile = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    profile.args(["profile", "apple", "--user", "ada", "--from"]).arg(&folder).arg("--out").arg(&out);
    let wrote = profile.output().unwrap();
    let text = String::from_utf8(wrote.stdout).unwrap();
    assert!(wrote.status.success() && text.contains("password of the certificate, shown only here: "), "{text}");
    let file = out.join("laptop7.example.com.mobileconfig");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&file).unwrap().contains("<string>localhost</string>"));
    let again = profile.output().unwrap();
    assert!(!again.status.success() && String::from_utf8(again.stderr).unwrap().contains("--force"));

    server.behave(Box::new(|_| answer("503 Not Now", "", b"")));
    let (code, _, error) = run(&root, &["renew", "--force", "--wait", "0s"]);
    assert!(code == 4, "{code} {error}");
    let serial = status()["serial"].as_str().unwrap().to_owned();
    let (code, out, _) = run(&root, &["remove"]);
    assert!(code == 0 && out.contains(&format!("sallyport cert revoke {serial}")), "{out}");
    let left = support::snapshot(&root);
    assert!(left.is_empty(), "{:?}", left.keys());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_a_token_shows_its_key_leaves_and_the_timers_command_ends_it() {
    let clock = clock();
    let hierarchy = Arc::new(Hierarchy::at(clock.now().0));
    let server = Server::start(&hierarchy, "localhost", &clock, Box::new(|_| Vec::new())).await;
    let list = certs(&hierarchy.authorities());
    let waits = list.clone();
    server.behave(Box::new(move |asked| match asked.path.ends_with("cacerts") {
        true => waits.clone(),
        false => answer("202 Accepted", "Retry-After: 60\r\n", b"the request waits for an operator"),
    }));
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    let (name, ca) = (server.name(), temp.path().join("root.pem"));
    fs::write(&ca, sallyport_ca::pem::encode("CERTIFICATE", &hierarchy.root).as_bytes()).unwrap();
    let line = ["--server", &name, "--ca", ca.to_str().unwrap(), "--for", "strongswan", "--user", "ada", "--no-wait"];
    let (code, out, error) = run(&root, &line);
    assert_eq!(code, 0, "{out}{error}");
    let key =
        error.lines().find_map(|l| l.strip_prefix("the key of this machine has the SHA-256 ")).unwrap().to_owned();
    assert!(out.contains(&key) && out.contains("sallyport request approve"), "{out}");
    assert!(root.join("etc/systemd/system/sallyport-renew.timer").exists());
    let status = || {
        let (code, out, error) = run(&root, &["status", "-o", "json"]);
        assert_eq!(code, 0, "{error}");
        serde_json::from_str::<Value>(&out).unwrap()[0].clone()
    };
    assert_eq!((&status()["state"], &status()["key_sha256"]), (&Value::from("waiting"), &Value::from(&*key)));
    let (code, _, error) = run(&root, &["renew", "--wait", "0s"]);
    assert!(code == 1 && error.contains("yet to approve") && error.contains(&key), "{code} {error}");

    let (of, now) = (Arc::clone(&hierarchy), clock.now());
    server.behave(Box::new(move |asked| {
        if asked.path.ends_with("cacerts") {
            return list.clone();
        }
        let key = sallyport_ca::PublicKey::from_csr_der(&asked.csr).unwrap();
        certs(&[of.issue(sallyport_ca::Profile::Machine, NAME, &key, now, 30).der()])
    }));
    let (code, out, error) = run(&root, &["renew"]);
    assert!(code == 0 && out.contains("laptop7.example.com has a certificate"), "{out}{error}");
    assert!(fs::read_to_string(root.join("etc/ppp/options.sallyport")).unwrap().contains("name \"ada\"\n"));
    assert_eq!((&status()["state"], &status()["key_sha256"]), (&Value::from("valid"), &Value::from(&*key)));
    let (code, _, error) = run(&root, &["remove"]);
    assert_eq!((code, support::snapshot(&root).len()), (0, 0), "{error}");

    // Systemd would not find it there, and that is said before anybody is asked.
    let asked = server.requests("simpleenroll").len();
    let (code, _, error) = run(&root, &[&line[..4], &["--binary", "/root/sallyport"]].concat());
    assert!(code == 2 && error.contains("install -m 755 /root/sallyport /usr/local/bin/sallyport"), "{error}");
    assert_eq!(server.requests("simpleenroll").len(), asked);
}

/// A gateway that was taken over: its own key and certificate for clients, at the port where it should pass connections on. It gives
/// away what anybody may know, and counts who says a token.
async fn taken_over(gateway: &sallyport_controller::Issued) -> (u16, Arc<AtomicUsize>) {
    let chain = std::iter::once(&gateway.certificate).chain(&gateway.chain);
    let chain: Vec<CertificateDer<'static>> = chain.map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::Pkcs8(gateway.private_key.to_vec().into());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, heard) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let (acceptor, tokens) = (tokio_rustls::TlsAcceptor::from(Arc::new(config)), Arc::clone(&heard));
    let list = certs(&gateway.chain);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let mut head = Vec::new();
            while !head.windows(4).any(|w| w == b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|n| n > 0) {}
            let head = String::from_utf8_lossy(&head).to_lowercase();
            tokens.fetch_add(usize::from(head.contains("authorization:")), Ordering::SeqCst);
            let _ = stream.write_all(&list).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_said_to_a_controllers_endpoint_and_not_to_a_gateway_of_the_same_name_and_authority() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = sallyport_controller::Config { metrics_listen: None, ..Default::default() };
    config.listen.set_port(0);
    config.enrollment.names = vec!["localhost".into()];
    config.enrollment.listen = Some(([127, 0, 0, 1], 0).into());
    let state = temp.path().join("state");
    let running = sallyport_controller::Controller::start(config, &state).await.unwrap();
    let [https, _] = running.enrollment_addresses();
    let gateway = sallyport_controller::IssueRequest {
        profile: sallyport_ca::Profile::Gateway,
        name: "localhost".into(),
        sans: Vec::new(),
        key: sallyport_ca::KeyAlgorithm::EcdsaP256,
        days: 0,
    };
    let (hostile, heard) = taken_over(&running.issue(gateway).await.unwrap()).await;

    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.args(["token", "create", "--machine", NAME, "--output", "json", "--identity"]);
    command.arg(running.operator_dir()).env_clear().stdin(Stdio::null());
    let made = tokio::task::block_in_place(|| command.output()).unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let file = temp.path().join("token");
    fs::write(&file, made["token"].as_str().unwrap()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

    let root = temp.path().join("root");
    let enroll = |port: u16| {
        let server = format!("localhost:{port}");
        run(&root, &["--token-file", file.to_str().unwrap(), "--server", &server, "--for", "strongswan"])
    };
    let (code, out, error) = enroll(hostile);
    assert!(code != 0 && error.contains("not the enrollment endpoint's"), "{code} {out}{error}");
    assert_eq!(heard.load(Ordering::SeqCst), 0);
    // A new controller has a certificate for its endpoint after a moment.
    let port = https.unwrap().port();
    let mut said = (-1, String::new(), String::new());
    for _ in 0..120 {
        said = enroll(port);
        if said.0 == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    let (code, out, error) = said;
    assert!(code == 0 && out.starts_with("laptop7.example.com has a certificate: serial "), "{code} {out}{error}");
    running.shutdown().await;
}
