//! Keys that never leave their token: of SoftHSM2, and of a TPM (swtpm) behind tpm2-pkcs11. Where these find what is theirs they are told
//! by environment variables, so each test runs itself as a child that has them.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sallyport_ca::{KeyAlgorithm, SystemRandom};
use sallyport_enroll::install::{Connection, Host, Ran, Runner, Software, install};
use sallyport_enroll::{Folder, Identity, Kind, Outcome, Request, TokenPlace, enroll, renew};
use sallyport_pkcs11::Place;
use sallyport_pkcs11::cryptoki::object::{Attribute, ObjectClass};

use crate::support::*;

/// Set for the child: the folder of the test.
const CHILD: &str = "SALLYPORT_ENROLL_TOKEN";
const PIN: &str = "4938\"17";

fn skipped(why: &str) {
    let _ = std::io::stderr().write_all(format!("\nskipped: {why}\n").as_bytes());
}

/// Runs one of these tests again with further environment variables.
fn again(test: &str, dir: &Path, environment: &[(&str, String)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("token::{test}"), "--nocapture"])
        .env(CHILD, dir)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

/// The private keys in a token.
fn keys(place: &TokenPlace) -> usize {
    let pin = fs::read(&place.pin_file).unwrap();
    let at = Place { module: Path::new(&place.module), token: &place.token };
    sallyport_pkcs11::with(at, pin.trim_ascii_end(), |session| {
        session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap().len()
    })
    .unwrap()
}

struct Nothing;

impl Runner for Nothing {
    fn has(&self, _: &str) -> bool {
        false
    }

    fn run(&mut self, program: &str, _: &[&str]) -> std::io::Result<Ran> {
        panic!("{program}")
    }
}

/// A first certificate and two renewals, all of whose keys are made in the token; then nothing is left there.
async fn a_life(place: &TokenPlace, algorithm: KeyAlgorithm) {
    let world = World::new().await;
    let wanted = Request { key: algorithm, key_in: Some(place.clone()), ..request(&world.token) };
    let (settings, first) = enroll(&world.folder(), &wanted, &world.machine).await.unwrap();
    let text = fs::read_to_string(world.dir().join("key.pem")).unwrap();
    assert!(!text.contains("PRIVATE") && text.contains(&place.to_string()), "{text}");
    assert_eq!(first.key.public_key().algorithm(), algorithm);
    assert!(first.key.pkcs8().is_err());
    assert_eq!((settings.key_in.clone(), keys(place)), (Some(place.to_string()), 1));

    let mut present = first;
    for left in [2, 2] {
        // By TLS, whose client signature the token makes.
        let renewed = renew(&world.folder(), &settings, &present, true, Duration::ZERO, &world.machine).await.unwrap();
        let Outcome::Renewed(new) = renewed else { panic!("not renewed") };
        let shown = world.server.requests("simplereenroll").pop().unwrap().certificate;
        assert_eq!(shown.as_deref(), Some(present.certificate.der()));
        assert_ne!(new.key.public_key(), present.key.public_key());
        assert_eq!(keys(place), left, "the pair in force and the one before it");
        present = new;
    }
    for_strongswan(world.temp.path(), &present);
    if place.module.contains("softhsm")
        && let Some(said) = charon_says(world.temp.path())
    {
        assert!(said.contains("loaded key token-sallyport from token"), "{said}");
        assert!(said.contains("has private key") && said.contains(NAME), "{said}");
    }
    assert!(world.folder().remove().unwrap().is_empty());
    assert_eq!(keys(place), 0);
}

fn for_strongswan(temp: &Path, identity: &Identity) {
    let (root, mut nothing, rng) = (temp.join("root"), Nothing, SystemRandom::new());
    let mut host = Host::new(Some(root.clone()), "/etc/sallyport/enroll", &mut nothing);
    let connection = Connection { gateway: "vpn.example.com".into(), user: None, password: None };
    install(Software::Strongswan, &mut host, identity, &connection, &rng).unwrap();
    let secret = fs::read_to_string(root.join("etc/swanctl/conf.d/sallyport-token.conf")).unwrap();
    assert!(secret.contains(&format!("handle = {}\n", identity.key.token().unwrap().handle())), "{secret}");
    assert!(!root.join("etc/swanctl/private/sallyport.pem").exists());
    assert!(root.join("etc/strongswan.d/sallyport-token.conf").exists());
    for other in [Software::Libreswan, Software::NetworkManager] {
        let error = install(other, &mut host, identity, &connection, &rng).unwrap_err();
        assert!(error.cause.contains("in a token"), "{error}");
    }
}

/// Has a charon of its own load the credentials that were written, and says what it has.
fn charon_says(temp: &Path) -> Option<String> {
    let (root, vici) = (temp.join("root"), temp.join("vici"));
    for program in ["charon-systemd", "swanctl"] {
        if Command::new("sh").args(["-c", &format!("command -v {program}")]).output().is_ok_and(|o| !o.status.success())
        {
            skipped(&format!(
                "strongSwan with a key in a token: no {program} (Debian: {program} or strongswan-swanctl)"
            ));
            return None;
        }
    }
    if !Path::new("/usr/lib/ipsec/plugins/libstrongswan-pkcs11.so").exists() {
        skipped("strongSwan with a key in a token: no plugin pkcs11 (Debian: libstrongswan-extra-plugins)");
        return None;
    }
    let conf = temp.join("strongswan.conf");
    let text = format!(
        "charon-systemd {{\n  port = 0\n  port_nat_t = 0\n  load = random nonce openssl pem x509 pubkey pkcs1 pkcs8 pkcs11 \
         socket-default kernel-netlink vici\n  plugins {{ vici {{ socket = unix://{} }} }}\n}}\ninclude {}\n",
        vici.display(),
        root.join("etc/strongswan.d/sallyport-token.conf").display()
    );
    fs::write(&conf, text).unwrap();
    let all = root.join("etc/swanctl/all.conf");
    fs::write(&all, "include conf.d/*.conf\n").unwrap();
    let mut charon = Command::new("charon-systemd");
    charon.env("STRONGSWAN_CONF", &conf).stdout(Stdio::null()).stderr(Stdio::null());
    let mut charon = Ended(charon.spawn().unwrap());
    for _ in 0..3_000 {
        if std::os::unix::net::UnixStream::connect(&vici).is_ok() {
            break;
        }
        assert!(charon.0.try_wait().unwrap().is_none(), "charon ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    let ask = |arguments: &[&str]| {
        let uri = format!("unix://{}", vici.display());
        let output =
            Command::new("timeout").args(["60", "swanctl"]).args(arguments).args(["--uri", &uri]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let loaded = ask(&["--load-creds", "--noprompt", "--file", all.to_str().unwrap()]);
    Some(loaded + &ask(&["--list-certs"]))
}

/// A process that is ended in any case.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_token_makes_the_keys_signs_the_requests_and_proves_the_machine() {
    const TEST: &str = "a_token_makes_the_keys_signs_the_requests_and_proves_the_machine";
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so"];
    let Some(module) = places.iter().find(|p| Path::new(p).exists()) else {
        return skipped("keys in a token: no SoftHSM2 module (Debian: softhsm2)");
    };
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else {
        let dir = tempfile::tempdir().unwrap();
        let (conf, tokens) = (dir.path().join("softhsm2.conf"), dir.path().join("tokens"));
        fs::create_dir(&tokens).unwrap();
        let text = format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
        fs::write(&conf, text).unwrap();
        return again(TEST, dir.path(), &[("SOFTHSM2_CONF", conf.display().to_string())]);
    };
    let folder = Folder::open(&dir.join("pins")).unwrap();
    let pin_file = folder.keep_pin(PIN.as_bytes()).unwrap();
    let place = TokenPlace { token: "my vpn".into(), module: (*module).into(), pin_file };
    folder.make_token(&place, &SystemRandom::new()).unwrap();
    run(async {
        for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048] {
            a_life(&place, algorithm).await;
        }
        let world = World::new().await;
        for (change, part) in [
            (TokenPlace { token: "other".into(), ..place.clone() }, "only: my vpn"),
            (TokenPlace { module: "/nowhere.so".into(), ..place.clone() }, "module-path="),
            (TokenPlace { pin_file: "/nowhere".into(), ..place.clone() }, "--pin-file"),
        ] {
            let wanted = Request { key_in: Some(change), ..request(&world.token) };
            let error = enroll(&world.folder(), &wanted, &world.machine).await.err().unwrap();
            assert!(error.kind == Kind::Machine && error.to_string().contains(part), "{error}");
        }
        assert!(!world.server.heard_a_token(), "no key, no question");
        fs::write(&place.pin_file, "0000").unwrap();
        let wanted = Request { key_in: Some(place.clone()), ..request(&world.token) };
        let error = enroll(&world.folder(), &wanted, &world.machine).await.err().unwrap();
        assert!(error.remedy.contains("correct the PIN"), "{error}");
    });
}

/// A TPM in software, on two ports of its own.
struct Tpm(Ended, u16);

impl Tpm {
    fn start(dir: &Path) -> Option<Self> {
        for _ in 0..20 {
            let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let Some(second) = first.checked_add(1).filter(|p| TcpListener::bind(("127.0.0.1", *p)).is_ok()) else {
                continue;
            };
            let mut swtpm = Command::new("swtpm");
            swtpm.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
            swtpm.arg(format!("dir={}", dir.display()));
            swtpm.args(["--server", &format!("type=tcp,port={first},bindaddr=127.0.0.1")]);
            swtpm.args(["--ctrl", &format!("type=tcp,port={second},bindaddr=127.0.0.1")]);
            let Ok(child) = swtpm.stderr(Stdio::null()).spawn() else { return None };
            let mut tpm = Self(Ended(child), first);
            // Each look takes a moment; a process that ended has lost its port to somebody else.
            for _ in 0..3_000 {
                if std::net::TcpStream::connect(("127.0.0.1", second)).is_ok() {
                    return Some(tpm);
                }
                if tpm.0.0.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("swtpm does not listen");
    }
}

#[test]
fn a_tpm_makes_the_keys_signs_the_requests_and_proves_the_machine() {
    const TEST: &str = "a_tpm_makes_the_keys_signs_the_requests_and_proves_the_machine";
    let Ok(place) = TokenPlace::tpm() else {
        return skipped("keys in a TPM: no tpm2-pkcs11 (Debian: libtpm2-pkcs11-1)");
    };
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else {
        let dir = tempfile::tempdir().unwrap();
        let Some(tpm) = Tpm::start(dir.path()) else {
            return skipped("keys in a TPM: swtpm does not run (Debian: swtpm)");
        };
        let environment = [
            ("TPM2_PKCS11_TCTI", format!("swtpm:host=127.0.0.1,port={}", tpm.1)),
            ("TPM2_PKCS11_STORE", dir.path().display().to_string()),
            ("TPM2_PKCS11_LOG_LEVEL", "0".to_owned()),
            ("TSS2_LOG", "all+NONE".to_owned()),
        ];
        return again(TEST, dir.path(), &environment);
    };
    let folder = Folder::open(&dir.join("machine")).unwrap();
    let rng = SystemRandom::new();
    let place = folder.make_token(&place, &rng).unwrap();
    assert_eq!(folder.make_token(&place, &rng).unwrap(), place, "made once");
    run(a_life(&place, KeyAlgorithm::EcdsaP256));
    // Somebody else's token of that name stays as it is.
    let other = Folder::open(&dir.join("other")).unwrap();
    let error = other.make_token(&place, &rng).unwrap_err();
    assert!(error.remedy.contains("--pin-file") && other.kept_pin().is_none(), "{error}");
}
