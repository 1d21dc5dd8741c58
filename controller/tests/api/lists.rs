//! Revocation lists and answers of OCSP as others fetch and judge them, from a controller that runs: by the addresses in the certificates.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use sallyport_ca::crl::shard_of;
use sallyport_ca::{Certificate, Profile};
use sallyport_controller::{Controller, Issued};
use sallyport_proto::v1;

use crate::common::{self, Site};

fn skipped(why: &str) {
    // Past the capture of a passing test's output, so that ./test can report it.
    let _ = std::io::stderr().write_all(format!("\nskipped: {why}\n").as_bytes());
}

/// A folder in which programs are run.
struct Bench(tempfile::TempDir);

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("writes");
    }

    /// Runs a program with its arguments; whether it was content, and what it said. `None` if it is not there.
    fn run(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &str) -> Option<(bool, String)> {
        let out = Command::new(program).args(arguments.split_whitespace()).current_dir(self.0.path()).output().ok()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        Some((out.status.success(), text))
    }
}

/// One who says which certificates are good, and fails if he is of another opinion.
type Judge = fn(&Bench, &[(&'static str, bool)]);

/// A name, its certificate, and whether it is good.
type Case = (&'static str, Issued, bool);

/// A service that publishes at its own port, an issuing authority that says so, and three certificates of it, one of them revoked.
async fn site() -> (Site, String, Vec<Case>) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut config = common::config();
    config.enrollment.http_listen = Some(([127, 0, 0, 1], 0).into());
    let running = Controller::start(config, dir.path()).await.expect("starts");
    let site = Site { dir, running };
    let at = site.running.enrollment_addresses()[1].expect("listens").to_string();
    let mut operator = site.operator().await;
    common::change_settings(&mut operator, |s| s.publication_name = at.clone()).await;
    let key = v1::KeyAlgorithm::EcdsaP256.into();
    let request = v1::AddIssuerRequest { key_algorithm: key, replace: true, ..Default::default() };
    operator.add_issuer(request).await.expect("adds");
    let issue = async |profile, name: &'static str| common::issue(&site.running, profile, name).await;
    let cases = vec![
        ("laptop", issue(Profile::Machine, "laptop7.example.com").await, true),
        ("stolen", issue(Profile::Machine, "laptop8.example.com").await, false),
        ("vpn", issue(Profile::Gateway, "vpn.example.com").await, true),
        ("old-vpn", issue(Profile::Gateway, "vpn.example.com").await, false),
    ];
    for (_, issued, good) in &cases {
        if !good {
            let serial = issued.record.serial.clone();
            #[allow(clippy::needless_update, reason = "a request may say more one day")]
            let request =
                v1::RevokeCertificateRequest { serial, reason: "key-compromise".into(), ..Default::default() };
            operator.revoke_certificate(request).await.expect("revokes");
        }
    }
    (site, at, cases)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_by_the_addresses_in_a_certificate_finds_the_list_about_it() {
    let (site, at, cases) = site().await;
    let bench = Arc::new(Bench(tempfile::tempdir().expect("temporary folder")));
    let pem = |der: &[u8]| sallyport_ca::pem::encode("CERTIFICATE", der).to_string();
    let [issuing, root] = cases[0].1.chain.as_slice() else { panic!("two authorities") };
    for (name, der) in [("root", root), ("issuing", issuing)] {
        bench.write(&format!("{name}.pem"), pem(der).as_bytes());
        bench.write(&format!("{name}.der"), der);
    }
    let issuer = cases[0].1.record.issuer;
    let mut lines = String::new();
    for (name, issued, _) in &cases {
        bench.write(&format!("{name}.pem"), pem(&issued.certificate).as_bytes());
        bench.write(&format!("{name}.der"), &issued.certificate);
        bench.write(&format!("{name}-chain.pem"), issued.chain_pem().as_bytes());
        // The address in the certificate is where the list is, and the list is what it names.
        let of_gateway = name.contains("vpn");
        let shard = shard_of(&Certificate::from_der(&issued.certificate).expect("a certificate").serial);
        let path = if of_gateway { format!("/ca/{issuer}.crl") } else { format!("/ca/{issuer}/{shard}.crl") };
        let point = format!("http://{at}{path}");
        let has = |der: &[u8]| der.windows(point.len()).any(|part| part == point.as_bytes());
        let list = fetch(&at, &path).await;
        assert!(has(&issued.certificate) && has(&list) != of_gateway, "{name}: {point}");
        bench.write(&format!("{name}.crl"), &list);
        let file = |suffix: &str| bench.path(&format!("{name}{suffix}")).display().to_string();
        let other = |name: &str| bench.path(name).display().to_string();
        let lists = format!("{},{}", file(".crl"), other("root.crl"));
        let chain = format!("{},{}", file(".der"), other("issuing.der"));
        #[allow(clippy::disallowed_methods, reason = "what is compared with has no other clock")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
        lines += &format!("{name}|{now}|{}|{lists}|{chain}\n", other("root.der"));
    }
    bench.write("root.crl", &fetch(&at, "/ca/root.crl").await);
    assert_eq!(fetch(&at, &format!("/ca/{issuer}.cer")).await, *issuing);
    assert_eq!(fetch(&at, "/ca/root.cer").await, *root);
    bench.write("cases", lines.as_bytes());

    // No responder answers for what the root has issued: its list does.
    let says = |part: &str| issuing.windows(part.len()).any(|w| w == part.as_bytes());
    assert!(says(&format!("http://{at}/ca/root.crl")) && !says("/ocsp"));

    let verdicts: Vec<(&'static str, bool)> = cases.iter().map(|(name, _, good)| (*name, *good)).collect();
    let judges: [Judge; 5] = [openssl, gnutls, java, strongswan, pkilint];
    let judged = judges.map(|judge| {
        let (bench, verdicts) = (bench.clone(), verdicts.clone());
        tokio::task::spawn_blocking(move || judge(&bench, &verdicts))
    });
    for judge in judged {
        judge.await.expect("agrees");
    }
    site.running.shutdown().await;
}

/// The body of an answer over plain HTTP.
async fn fetch(at: &str, path: &str) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(at).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("is taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{path}: {}", String::from_utf8_lossy(&answer));
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a header") + 4;
    answer.split_off(end)
}

/// Downloads the leaf's list by itself. It asks for one about the root, too, which names no place of a list.
fn openssl(bench: &Bench, verdicts: &[(&'static str, bool)]) {
    if bench.run("openssl", "crl -inform der -in root.crl -out root-crl.pem").is_none() {
        return skipped("no openssl");
    }
    for (name, good) in verdicts {
        let arguments = format!(
            "verify -x509_strict -crl_check_all -crl_download -CAfile root.pem -CRLfile root-crl.pem -untrusted issuing.pem {name}.pem"
        );
        let (fine, text) = bench.run("openssl", &arguments).expect("it is there");
        assert!(fine == *good && (*good || text.contains("certificate revoked")), "{name}: {text}");
        // And the responder that the certificate names.
        let (fine, at) = bench.run("openssl", &format!("x509 -in {name}.pem -noout -ocsp_uri")).expect("it is there");
        assert!(fine && at.starts_with("http://") && at.trim_end().ends_with("/ocsp"), "{name}: {at}");
        let arguments = format!(
            "ocsp -issuer issuing.pem -cert {name}.pem -url {} -CAfile root.pem -verify_other issuing.pem",
            at.trim_end()
        );
        let (fine, text) = bench.run("openssl", &arguments).expect("it is there");
        let said = format!("{name}.pem: {}", if *good { "good" } else { "revoked" });
        assert!(fine && text.contains("Response verify OK") && text.contains(&said), "{name}: {text}");
    }
}

fn gnutls(bench: &Bench, verdicts: &[(&'static str, bool)]) {
    for (name, good) in verdicts {
        if bench.run("certtool", "--version").is_none() {
            return skipped("no certtool (gnutls-bin)");
        }
        let list =
            sallyport_ca::pem::encode("X509 CRL", &std::fs::read(bench.path(&format!("{name}.crl"))).expect("it"));
        bench.write(&format!("{name}-crl.pem"), list.as_bytes());
        let arguments =
            format!("--verify --load-ca-certificate root.pem --load-crl {name}-crl.pem --infile {name}-chain.pem");
        let (fine, text) = bench.run("certtool", &arguments).expect("it is there");
        assert!(fine == *good && (*good || text.contains("revoked")), "{name}: {text}");
    }
}

/// Fetches by the distribution points by itself, too: it has no lists of its own.
fn java(bench: &Bench, verdicts: &[(&'static str, bool)]) {
    if bench.run("javac", "-version").is_none() {
        return skipped("no JDK to validate chains with (openjdk-17-jdk-headless)");
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ca/tests/validators/Validate.java");
    let cases = std::fs::read_to_string(bench.path("cases")).expect("cases");
    let bare = cases.lines().map(|line| {
        let fields: Vec<&str> = line.split('|').collect();
        format!("{}|{}|{}||{}\n", fields[0], fields[1], fields[2], fields[4])
    });
    bench.write("bare", bare.collect::<String>().as_bytes());
    let options = "-XX:TieredStopAtLevel=1 -Xshare:auto -Dcom.sun.security.enableCRLDP=true";
    let arguments = format!("{options} {} bare", source.display());
    let (fine, text) = bench.run("java", &arguments).expect("it is there");
    let answers: Vec<&str> = text.lines().collect();
    assert!(fine && answers.len() == verdicts.len(), "{text}");
    for ((name, good), answer) in verdicts.iter().zip(answers) {
        let expected = format!("{name} {}", if *good { "good" } else { "REVOKED" });
        assert!(answer.starts_with(&expected), "{answer}");
    }
}

/// What charon does with the certificate of its peer.
fn strongswan(bench: &Bench, verdicts: &[(&'static str, bool)]) {
    let plugins = ["/usr/lib/ipsec/plugins", "/usr/lib/strongswan/plugins"];
    if !plugins.iter().any(|dir| Path::new(dir).join("libstrongswan-curl.so").is_file())
        || bench.run("pki", "--help").is_none()
    {
        return skipped("no strongSwan that fetches lists (strongswan-pki, libstrongswan-extra-plugins)");
    }
    // It asks the responder first, and fetches a list where it is told not to.
    let lists_only = "plugins {\n revocation {\n enable_ocsp = no\n }\n }\n";
    bench.write("lists.conf", format!("libstrongswan {{\n{lists_only}}}\npki {{\n{lists_only}}}\n").as_bytes());
    bench.write("all.conf", b"");
    for (name, good) in verdicts {
        for (settings, way) in [("all.conf", "ocsp response is valid"), ("lists.conf", "fetching crl from")] {
            let arguments = format!(
                "STRONGSWAN_CONF={settings} pki --verify --online --in {name}.pem --cacert issuing.pem --cacert root.pem"
            );
            let (fine, text) = bench.run("env", &arguments).expect("it is there");
            assert!(text.contains(way), "{name}: {text}");
            let said = if *good { "certificate status is good" } else { "certificate was revoked" };
            assert!(fine == *good && text.contains(said), "{name}: {text}");
        }
    }
}

fn pkilint(bench: &Bench, _verdicts: &[(&'static str, bool)]) {
    let beside = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("../validators");
    let bin = std::env::var_os("SALLYPORT_VALIDATORS").map_or_else(beside, PathBuf::from).join("bin");
    if !bin.join("lint_pkix_cert").is_file() {
        return skipped("no Python with pkilint (ca/tests/validators/requirements.txt)");
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ca/tests/validators/lint.py");
    let (fine, text) = bench.run(bin.join("python"), &format!("{} cases", source.display())).expect("it is there");
    assert!(fine && text.lines().count() == 2, "{text}");
}
