//! The endpoint on real ports against other people's clients: curl with OpenSSL, and strongSwan's `pki`.

mod common;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use sallyport_ca::{Certificate, pem};
use sallyport_endpoint::{Kind, Limits, listen};
use tokio::net::TcpListener;

use common::{FORBIDDEN, PENDING, RIGHT, World};

/// Whether a program is here; says so where it is not.
fn has(program: &str, package: &str) -> bool {
    let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let there = there.is_ok_and(|out| out.status.success());
    if !there {
        // Past the capture of a passing test's output, so that ./test can report it.
        let why = format!("\nskipped: enrollment with {program}: it is not installed (Debian: {package})\n");
        let _ = std::io::stderr().write_all(why.as_bytes());
    }
    there
}

async fn port(world: &World, kind: Kind) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(listen(listener, kind, world.endpoint.clone()));
    address
}

async fn run(folder: &Path, command: String) -> Output {
    let folder = folder.to_owned();
    let run = move || Command::new("bash").args(["-c", &command]).current_dir(folder).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn good(folder: &Path, command: String) -> String {
    let out = run(folder, command.clone()).await;
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command}\n{text}\n{errors}");
    text.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_and_openssl_fetch_the_root_enroll_and_renew() {
    if !has("curl", "curl") || !has("openssl", "openssl") {
        return;
    }
    let (world, folder) = (World::new(Limits::default()), tempfile::tempdir().unwrap());
    let (https, http) = (port(&world, Kind::Tls).await, port(&world, Kind::Plain).await);
    let (https, folder) = (https.port(), folder.path());
    good(folder, format!("curl -fsS http://{http}/ca/root.cer | openssl x509 -inform der -out root.pem")).await;
    let print = good(folder, "openssl x509 -in root.pem -noout -fingerprint -sha256".into()).await;
    let page = good(folder, format!("curl -fsS --cacert root.pem https://localhost:{https}/")).await;
    assert!(page.contains(print.trim().split_once('=').unwrap().1), "{print}");
    // As the page says it.
    let request = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout KEY -subj /CN=machine -outform der";
    let est = format!(
        "base64 -w0 | curl -fsS --cacert root.pem CREDENTIALS -H 'Content-Type: application/pkcs10' --data-binary @- \
         https://localhost:{https}/.well-known/est/OPERATION | base64 -d | openssl pkcs7 -inform der -print_certs -out CERT"
    );
    let enroll = |operation: &str, credentials: &str, name: &str| {
        let est = est.replace("OPERATION", operation).replace("CREDENTIALS", credentials);
        let request = request.replace("KEY", &format!("{name}.key"));
        format!("set -o pipefail; {request} | {}", est.replace("CERT", &format!("{name}.pem")))
    };
    let token = format!(r#"--config <(printf 'user = ":%s"\n' '{RIGHT}')"#);
    good(folder, enroll("simpleenroll", &token, "first")).await;
    good(folder, enroll("simplereenroll", "--cert first.pem --key first.key", "second")).await;
    for name in ["first", "second"] {
        let verify = format!("openssl verify -x509_strict -CAfile root.pem -purpose sslclient {name}.pem");
        assert!(good(folder, verify).await.contains("OK"));
        let keys = format!("diff <(openssl x509 -in {name}.pem -noout -pubkey) <(openssl pkey -in {name}.key -pubout)");
        good(folder, keys).await;
    }
    for (credentials, status) in [("", "401"), ("-u :spt1.wrong", "401"), (&*format!("-u :{PENDING}"), "202")] {
        let command = format!(
            "openssl req -in /dev/stdin -outform der < request.pem | curl -s --cacert root.pem {credentials} -o /dev/null \
             -w '%{{http_code}}' -H 'Content-Type: application/pkcs10' --data-binary @- \
             https://localhost:{https}/.well-known/est/simpleenroll"
        );
        std::fs::write(folder.join("request.pem"), include_bytes!("common/request.pem")).unwrap();
        assert_eq!(good(folder, command).await, status, "{credentials}");
    }
    // Both versions of TLS.
    for version in ["--tls-max 1.2", "--tlsv1.3"] {
        good(folder, format!("curl -fsS {version} --cacert root.pem https://localhost:{https}/ca.pem")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pki_of_strongswan_enrolls_and_renews() {
    if !has("pki", "strongswan-pki") || !has("openssl", "openssl") {
        return;
    }
    let (world, folder) = (World::new(Limits::default()), tempfile::tempdir().unwrap());
    let (https, folder) = (port(&world, Kind::Tls).await, folder.path());
    let url = format!("https://localhost:{}", https.port());
    let root = world.desk().authority.certificate();
    std::fs::write(folder.join("root.pem"), root.pem()).unwrap();
    good(folder, format!("pki --estca --url {url} --cacert root.pem --caout got --outform pem --force")).await;
    let got: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    let got = got.iter().find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("got"))).unwrap();
    assert_eq!(pem::certificates(&std::fs::read(got).unwrap()).unwrap(), [root.der().to_vec()]);
    for name in ["first", "second"] {
        let key = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
        let pair =
            format!("{key} -out {name}.key && pki --req --in {name}.key --type ecdsa --dn CN=machine --outform pem");
        good(folder, format!("{pair} > {name}.req")).await;
    }
    let est = format!("pki --est --url {url} --cacert root.pem --outform pem");
    // As the page says it: on no command line.
    std::fs::write(folder.join("token.options"), format!("--userpass :{RIGHT}\n")).unwrap();
    good(folder, format!("{est} --in first.req --options token.options > first.pem")).await;
    good(folder, format!("{est} --in second.req --cert first.pem --key first.key > second.pem")).await;
    let serials = ["first", "second"].map(|name| {
        let text = std::fs::read(folder.join(format!("{name}.pem"))).unwrap();
        Certificate::from_pem(&text).unwrap().serial
    });
    assert_ne!(serials[0], serials[1]);
    assert!(
        good(folder, "openssl verify -x509_strict -CAfile root.pem first.pem second.pem".into()).await.contains("OK")
    );
    let refused = run(folder, format!("{est} --in first.req --userpass anyone:spt1.wrong")).await;
    assert!(!refused.status.success());
    assert_eq!(world.desk().asked(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certmonger_enrolls_and_renews_over_scep() {
    if !has("getcert", "certmonger") || !has("dbus-run-session", "dbus") || !has("openssl", "openssl") {
        return;
    }
    let (world, folder) = (World::new(Limits::default()), tempfile::tempdir().unwrap());
    world.desk().open_scep();
    let (http, folder) = (port(&world, Kind::Plain).await, folder.path());
    let root = pem::encode("CERTIFICATE", world.desk().authority.certificate().der());
    std::fs::write(folder.join("root.pem"), root.as_bytes()).unwrap();
    let script = format!(
        r#"set -e
getcert add-scep-ca -s -c ours -u http://{http}/scep -I $PWD/root.pem
getcert request -s -c ours -k $PWD/key.pem -f $PWD/cert.pem -N CN=laptop -L {RIGHT} -w
cp cert.pem first.pem
getcert resubmit -s -f $PWD/cert.pem -w
cp cert.pem second.pem
getcert request -s -c ours -k $PWD/no.key -f $PWD/no.pem -N CN=laptop -L {FORBIDDEN} -w || true
getcert list -s -f $PWD/no.pem
"#
    );
    std::fs::write(folder.join("script"), script).unwrap();
    // The bus starts the daemon when it is first asked, and ends it.
    let text = good(folder, "HOME=$PWD timeout 120 dbus-run-session bash script 2>&1".into()).await;
    assert!(text.contains("status: CA_REJECTED"), "{text}");
    let serials = ["first", "second"].map(|name| {
        let der = std::fs::read(folder.join(format!("{name}.pem"))).unwrap();
        Certificate::from_pem(&der).unwrap().serial
    });
    assert_ne!(serials[0], serials[1]);
    good(folder, "openssl verify -CAfile root.pem first.pem second.pem".into()).await;
}

/// Where Debian puts what the Java program needs.
const JARS: [&str; 3] = ["/usr/share/java/bcpkix.jar", "/usr/share/java/bcprov.jar", "/usr/share/java/bcutil.jar"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bouncy_castle_enrolls_renews_is_refused_and_put_off() {
    if !has("java", "openjdk-17-jdk-headless") || !has("openssl", "openssl") {
        return;
    }
    if !JARS.iter().all(|jar| Path::new(jar).exists()) {
        let _ = std::io::stderr()
            .write_all(b"\nskipped: enrollment with Bouncy Castle: it is not installed (Debian: libbcpkix-java)\n");
        return;
    }
    let (world, folder) = (World::new(Limits::default()), tempfile::tempdir().unwrap());
    let (https, folder) = (port(&world, Kind::Tls).await, folder.path());
    std::fs::write(folder.join("root.pem"), world.desk().authority.certificate().pem()).unwrap();
    // It runs for a second: no need to compile it well.
    let java = format!("timeout 120 java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto -cp {}", JARS.join(":"));
    let words = format!("localhost:{} root.pem {RIGHT} spt1.wrong {PENDING}", https.port());
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/Est.java");
    let said = good(folder, format!("{java} '{program}' {words}")).await;
    let lines: Vec<&str> = said.lines().collect();
    // The kinds of key that are taken, by their object identifiers: P-256, P-384 and RSA.
    assert_eq!(lines.first(), Some(&"cacerts 1"), "{said}");
    for line in ["csrattr 1.2.840.10045.2.1", "csrattr 1.2.840.113549.1.1.1", "refused 401", "later true"] {
        assert!(lines.contains(&line), "{line}: {said}");
    }
    let serials = ["first", "second"].map(|name| {
        let text = std::fs::read(folder.join(format!("{name}.pem"))).unwrap();
        Certificate::from_pem(&text).unwrap().serial
    });
    assert_ne!(serials[0], serials[1]);
    let verify = "openssl verify -x509_strict -CAfile root.pem first.pem second.pem";
    assert!(good(folder, verify.into()).await.contains("OK"));
}
