//! PKCS #12 files, opened by those who will have to: OpenSSL, GnuTLS and NSS.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use sallyport_ca::pkcs12::{Contents, Protection, encode};
use sallyport_ca::seal::SealKey;
use sallyport_ca::{
    Authority, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject, SystemRandom, UnixTime, pem,
};

const PASSWORD: &str = "open sesame, bücher";

struct Machine {
    key: KeyPair,
    certificate: Vec<u8>,
    root: Vec<u8>,
}

fn machine(algorithm: KeyAlgorithm) -> Machine {
    let (rng, now) = (SystemRandom::new(), UnixTime(1_790_000_000));
    let seal = SealKey::generate(&rng).unwrap();
    let (authority, _) = Authority::create(&RootConfig::new("Example", "Example VPN Root"), &seal, now, &rng).unwrap();
    let key = KeyPair::generate(algorithm, &rng).unwrap();
    let subject = Subject::new("laptop7.example.com", vec![]).unwrap();
    let serial = Serial::generate(&rng).unwrap();
    let certificate = authority.issue(Profile::Machine, &subject, &key.public_key(), now, serial, &rng).unwrap();
    Machine { key, certificate: certificate.der().to_vec(), root: authority.certificate().der().to_vec() }
}

fn file(machine: &Machine, password: &str, protection: Protection) -> Vec<u8> {
    let authorities = [machine.root.as_slice()];
    let contents = Contents {
        key: machine.key.pkcs8_der(),
        certificate: &machine.certificate,
        authorities: &authorities,
        name: "laptop7.example.com",
    };
    encode(&contents, password, protection, &SystemRandom::new()).unwrap().to_vec()
}

/// What a tool prints on standard output, if this machine has it.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert!(
                output.status.success(),
                "{program} {arguments:?}: {}{}",
                text(&output.stdout),
                text(&output.stderr)
            );
            Some(text(&output.stdout) + &text(&output.stderr))
        }
        Err(_) => {
            // Past the harness, which keeps what a test prints.
            let _ = writeln!(std::io::stderr(), "skipped: {program} is not installed");
            None
        }
    }
}

fn written(dir: &Path, name: &str, content: &[u8]) -> String {
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn openssl_reads_key_and_certificates_out_again() {
    for (algorithm, protection) in [
        (KeyAlgorithm::EcdsaP256, Protection::Modern),
        (KeyAlgorithm::EcdsaP384, Protection::Modern),
        (KeyAlgorithm::Rsa2048, Protection::Modern),
        (KeyAlgorithm::Rsa2048, Protection::Legacy),
    ] {
        let (dir, machine) = (tempfile::tempdir().unwrap(), machine(algorithm));
        let p12 = written(dir.path(), "x.p12", &file(&machine, PASSWORD, protection));
        let password = written(dir.path(), "password", PASSWORD.as_bytes());
        let from = format!("file:{password}");
        let Some(text) = run("openssl", &["pkcs12", "-in", &p12, "-passin", &from, "-nodes", "-info"]) else { return };
        assert_eq!(*pem::private_key(text.as_bytes()).unwrap(), machine.key.pkcs8_der());
        assert_eq!(pem::certificates(text.as_bytes()).unwrap(), [machine.certificate, machine.root]);
        let (mac, cipher) = match protection {
            Protection::Modern => {
                ("MAC: sha256, Iteration 10000", "PBES2, PBKDF2, AES-256-CBC, Iteration 10000, PRF hmacWithSHA256")
            }
            Protection::Legacy => ("MAC: sha1, Iteration 10000", "pbeWithSHA1And3-KeyTripleDES-CBC, Iteration 10000"),
        };
        assert!(text.contains(mac) && text.matches(cipher).count() == 2, "{text}");
        assert!(text.contains("friendlyName: laptop7.example.com"), "{text}");
    }
}

#[test]
fn gnutls_reads_both_kinds() {
    for protection in [Protection::Modern, Protection::Legacy] {
        let (dir, machine) = (tempfile::tempdir().unwrap(), machine(KeyAlgorithm::EcdsaP256));
        let p12 = written(dir.path(), "x.p12", &file(&machine, PASSWORD, protection));
        let arguments = ["--p12-info", "--inder", "--password", PASSWORD, "--infile", &p12];
        let Some(text) = run("certtool", &arguments) else { return };
        assert_eq!(pem::certificates(text.as_bytes()).unwrap(), [machine.certificate, machine.root], "{text}");
        assert!(text.contains("PRIVATE KEY"), "{text}");
    }
}

#[test]
fn nss_imports_both_kinds_with_their_keys() {
    for (protection, algorithm) in
        [(Protection::Modern, KeyAlgorithm::Rsa2048), (Protection::Legacy, KeyAlgorithm::EcdsaP256)]
    {
        let (dir, machine) = (tempfile::tempdir().unwrap(), machine(algorithm));
        let p12 = written(dir.path(), "x.p12", &file(&machine, PASSWORD, protection));
        let password = written(dir.path(), "password", PASSWORD.as_bytes());
        let db = format!("sql:{}", dir.path().display());
        if run("certutil", &["-N", "--empty-password", "-d", &db]).is_none() {
            return;
        }
        run("pk12util", &["-i", &p12, "-d", &db, "-w", &password, "-K", ""]);
        let keys = run("certutil", &["-K", "-d", &db]).unwrap();
        assert!(keys.contains("laptop7.example.com"), "{keys}");
        let listed = run("certutil", &["-L", "-d", &db, "-n", "laptop7.example.com", "-a"]).unwrap();
        assert_eq!(pem::certificates(listed.as_bytes()).unwrap(), [machine.certificate]);
    }
}

#[test]
fn another_password_opens_nothing() {
    let (dir, machine) = (tempfile::tempdir().unwrap(), machine(KeyAlgorithm::EcdsaP256));
    let p12 = written(dir.path(), "x.p12", &file(&machine, PASSWORD, Protection::Modern));
    match Command::new("openssl").args(["pkcs12", "-in", &p12, "-passin", "pass:wrong", "-nodes"]).output() {
        Ok(output) => assert!(!output.status.success()),
        Err(_) => drop(writeln!(std::io::stderr(), "skipped: openssl is not installed")),
    }
}
