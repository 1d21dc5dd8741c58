use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use sallyport_ca::seal::SealKey;
use sallyport_ca::{Authority, Profile, RootConfig, Serial, Subject, SystemRandom, UnixTime, pem};

use super::*;
use crate::{FileKey, KeyStore as _};

const NOW: UnixTime = UnixTime(1_800_000_000);

/// Knows some programs, and remembers what it was to run.
#[derive(Default)]
struct Fake {
    programs: Vec<&'static str>,
    ran: Vec<String>,
    failing: Option<&'static str>,
}

impl Runner for Fake {
    fn has(&self, program: &str) -> bool {
        self.programs.contains(&program)
    }

    fn run(&mut self, program: &str, arguments: &[&str]) -> std::io::Result<Ran> {
        self.ran.push(format!("{program} {}", arguments.join(" ")));
        Ok(Ran { success: self.failing != Some(program), said: "out of luck".into() })
    }
}

fn identity(algorithm: KeyAlgorithm) -> Identity {
    let rng = SystemRandom::new();
    let seal = SealKey::generate(&rng).unwrap();
    let (authority, _) = Authority::create(&RootConfig::new("Example", "Root"), &seal, NOW, &rng).unwrap();
    let key = FileKey::generate(algorithm, &rng).unwrap();
    let (subject, serial) = (Subject::new("laptop7.example.com", vec![]).unwrap(), Serial::generate(&rng).unwrap());
    let life = Duration::from_secs(30 * 86_400);
    let prepared = authority.prepare(Profile::Machine, &subject, &key.public_key(), NOW, life, serial).unwrap();
    let root = authority.certificate().der().to_vec();
    // Any certificate does for one in between: nothing here verifies.
    Identity {
        key: Box::new(key),
        certificate: authority.sign(&prepared, &rng).unwrap(),
        chain: vec![root.clone()],
        roots: vec![root],
    }
}

fn connection(password: Option<&str>) -> Connection {
    Connection {
        gateway: "vpn.example.com".into(),
        user: Some("ada".into()),
        password: password.map(|p| Zeroizing::new(p.to_owned())),
    }
}

/// Installs below a folder, and says what is left for a person.
fn put(root: &Path, software: Software, identity: &Identity, connection: &Connection) -> Vec<String> {
    let mut fake = Fake::default();
    let mut host = Host::new(Some(root.to_owned()), "/etc/sallyport/enroll", &mut fake);
    install(software, &mut host, identity, connection, &SystemRandom::new()).unwrap();
    host.advice
}

fn text(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap()
}

fn mode(root: &Path, path: &str) -> u32 {
    fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777
}

#[test]
fn strongswan_gets_what_the_readme_has() {
    let (temp, identity) = (tempfile::tempdir().unwrap(), identity(KeyAlgorithm::EcdsaP256));
    let root = temp.path();
    put(root, Software::Strongswan, &identity, &connection(Some("open \"sesame\\")));
    assert_eq!(text(root, "etc/swanctl/private/sallyport.pem"), *identity.key.pem());
    assert_eq!(text(root, "etc/swanctl/x509/sallyport.pem"), identity.certificate.pem());
    assert_eq!(text(root, "etc/swanctl/x509ca/sallyport.pem"), identity.roots_pem());
    assert_eq!(text(root, "etc/swanctl/x509ca/sallyport-1.pem"), identity.chain_pem());
    assert_eq!(mode(root, "etc/swanctl/private/sallyport.pem"), 0o600);
    let conf = text(root, "etc/swanctl/conf.d/sallyport.conf");
    let readme = "    local {\n      auth = pubkey\n      certs = sallyport.pem\n    }\n    remote {\n      auth = pubkey\n      id = vpn.example.com\n    }\n";
    assert!(conf.contains(readme) && conf.contains("esp_proposals = aes256gcm16") && conf.contains("version = 1\n"));
    assert_eq!(
        text(root, "etc/xl2tpd/xl2tpd.conf"),
        "; Made by sallyport enroll. It has no includes: add further sections here and remove this line.\n[global]\nport = 1701\n\n\
         [lac sallyport]\nlns = vpn.example.com\npppoptfile = /etc/ppp/options.sallyport\nlength bit = yes\n"
    );
    let options = text(root, "etc/ppp/options.sallyport");
    assert!(options.contains("name \"ada\"\npassword \"open \\\"sesame\\\\\"\nnoauth\n"), "{options}");
    assert_eq!(mode(root, "etc/ppp/options.sallyport"), 0o600);
}

#[test]
fn installing_again_changes_nothing_and_keeps_the_password() {
    let (temp, identity) = (tempfile::tempdir().unwrap(), identity(KeyAlgorithm::EcdsaP256));
    put(temp.path(), Software::Strongswan, &identity, &connection(Some("sesame")));
    let mut fake = Fake::default();
    let mut host = Host::new(Some(temp.path().to_owned()), "/etc/sallyport/enroll", &mut fake);
    install(Software::Strongswan, &mut host, &identity, &connection(None), &SystemRandom::new()).unwrap();
    assert_eq!(host.wrote, Vec::<String>::new());
    assert!(text(temp.path(), "etc/ppp/options.sallyport").contains("password \"sesame\"\n"));
}

#[test]
fn a_renewal_replaces_keys_and_certificates_only() {
    let (temp, first) = (tempfile::tempdir().unwrap(), identity(KeyAlgorithm::EcdsaP256));
    let (root, mut second) = (temp.path(), identity(KeyAlgorithm::EcdsaP256));
    put(root, Software::Strongswan, &first, &connection(None));
    let conf = root.join("etc/swanctl/conf.d/sallyport.conf");
    let edited = fs::read_to_string(&conf).unwrap().replace("aes256gcm16", "aes128gcm16");
    fs::write(&conf, &edited).unwrap();
    second.chain.clear();
    let mut fake = Fake::default();
    let mut host = Host::new(Some(root.to_owned()), "/etc/sallyport/enroll", &mut fake);
    refresh(Software::Strongswan, &mut host, &second, &SystemRandom::new()).unwrap();
    assert_eq!(host.removed, ["/etc/swanctl/x509ca/sallyport-1.pem"]);
    assert_eq!(host.wrote.len(), 3);
    assert_eq!(text(root, "etc/swanctl/private/sallyport.pem"), *second.key.pem());
    assert_eq!(fs::read_to_string(&conf).unwrap(), edited);
}

#[test]
fn a_file_of_somebody_else_is_left_and_what_to_add_is_said() {
    let (temp, identity) = (tempfile::tempdir().unwrap(), identity(KeyAlgorithm::EcdsaP256));
    let root = temp.path();
    for (path, content) in [
        ("etc/xl2tpd/xl2tpd.conf", "[global]\nport = 1701\n[lac other]\n"),
        ("etc/swanctl/conf.d/sallyport.conf", "# by hand\n"),
        ("etc/ppp/options.sallyport", "name eve\n"),
    ] {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), content).unwrap();
    }
    let advice = put(root, Software::Strongswan, &identity, &connection(Some("x"))).join("\n");
    assert_eq!(text(root, "etc/xl2tpd/xl2tpd.conf"), "[global]\nport = 1701\n[lac other]\n");
    assert_eq!(text(root, "etc/swanctl/conf.d/sallyport.conf"), "# by hand\n");
    assert_eq!(text(root, "etc/ppp/options.sallyport"), "name eve\n");
    assert!(
        advice.contains("[lac sallyport]\nlns = vpn.example.com") && advice.matches("left as it is").count() == 3,
        "{advice}"
    );

    let mut fake = Fake::default();
    let mut host = Host::new(Some(root.to_owned()), "/etc/sallyport/enroll", &mut fake);
    uninstall(Software::Strongswan, &mut host, &[]).unwrap();
    assert_eq!(text(root, "etc/swanctl/conf.d/sallyport.conf"), "# by hand\n");
    assert!(!root.join("etc/swanctl/private/sallyport.pem").exists());
}

#[test]
fn the_examples_that_a_distribution_brings_make_room_and_come_back() {
    let (temp, identity) = (tempfile::tempdir().unwrap(), identity(KeyAlgorithm::EcdsaP256));
    let (root, conf) = (temp.path(), "etc/xl2tpd/xl2tpd.conf");
    let examples = ";\n; This is a minimal sample\n\n; [global]\n; port = 1701\n";
    fs::create_dir_all(root.join("etc/xl2tpd")).unwrap();
    fs::write(root.join(conf), examples).unwrap();
    put(root, Software::Strongswan, &identity, &connection(Some("x")));
    put(root, Software::Strongswan, &identity, &connection(Some("x")));
    assert!(text(root, conf).contains("[lac sallyport]"));
    let mut fake = Fake::default();
    let mut host = Host::new(Some(root.to_owned()), "/etc/sallyport/enroll", &mut fake);
    // libreswan still needs it.
    uninstall(Software::Strongswan, &mut host, &[Software::Libreswan]).unwrap();
    assert!(host.exists("/etc/ppp/options.sallyport"));
    uninstall(Software::Libreswan, &mut host, &[]).unwrap();
    assert_eq!(text(root, conf), examples);
    assert!(!root.join("etc/ppp/options.sallyport").exists());
}

#[test]
fn networkmanager_names_the_files_of_the_folder() {
    let (temp, identity) = (tempfile::tempdir().unwrap(), identity(KeyAlgorithm::EcdsaP256));
    let path = "etc/NetworkManager/system-connections/sallyport.nmconnection";
    let advice = put(temp.path(), Software::NetworkManager, &identity, &connection(Some("a\\b")));
    let file = text(temp.path(), path);
    assert_eq!(mode(temp.path(), path), 0o600);
    for line in [
        "service-type=org.freedesktop.NetworkManager.l2tp",
        "gateway=vpn.example.com",
        "machine-auth-type=tls",
        "machine-ca=/etc/sallyport/enroll/ca.pem",
        "machine-cert=/etc/sallyport/enroll/cert.pem",
        "machine-key=/etc/sallyport/enroll/key.pem",
        "user=ada",
        "password-flags=0",
        "password=a\\\\b",
    ] {
        assert!(file.lines().any(|l| l == line), "{line}\n{file}");
    }
    assert!(advice.iter().any(|a| a.contains("network-manager-l2tp")));
    put(temp.path(), Software::NetworkManager, &identity, &connection(None));
    let asks = text(temp.path(), path);
    assert!(asks.contains("password-flags=2\n") && !asks.contains("vpn-secrets"));
    let uuid = |t: &str| t.lines().find(|l| l.starts_with("uuid=")).unwrap().to_owned();
    assert_eq!(uuid(&asks), uuid(&file));
}

#[test]
fn libreswan_is_told_in_its_own_words_and_refuses_a_key_that_it_cannot_use() {
    let temp = tempfile::tempdir().unwrap();
    let mut fake = Fake { programs: vec!["certutil", "pk12util"], ..Fake::default() };
    let mut host = Host::new(Some(temp.path().to_owned()), "/etc/sallyport/enroll", &mut fake);
    let (rng, ec) = (SystemRandom::new(), identity(KeyAlgorithm::EcdsaP256));
    let error = install(Software::Libreswan, &mut host, &ec, &connection(None), &rng).unwrap_err();
    assert!(error.remedy.contains("--key rsa-2048"), "{error}");

    let rsa = identity(KeyAlgorithm::Rsa2048);
    install(Software::Libreswan, &mut host, &rsa, &connection(None), &rng).unwrap();
    let conf = text(temp.path(), "etc/ipsec.d/sallyport.conf");
    assert!(
        conf.contains("    right=vpn.example.com\n    rightid=@vpn.example.com\n")
            && conf.contains("leftcert=sallyport\n")
    );
    // Nothing secret is left behind, and nothing of it is on a command line.
    assert_eq!(fs::read_dir(temp.path().join("run/sallyport")).unwrap().count(), 0);
    let imported = host.ran.iter().filter(|c| c.starts_with("pk12util")).count();
    refresh(Software::Libreswan, &mut host, &rsa, &rng).unwrap();
    assert_eq!((imported, host.ran.iter().filter(|c| c.starts_with("pk12util")).count()), (1, 1));
    refresh(Software::Libreswan, &mut host, &identity(KeyAlgorithm::Rsa2048), &rng).unwrap();
    assert_eq!(host.ran.iter().filter(|c| c.starts_with("pk12util")).count(), 2);
}

#[test]
fn a_database_that_takes_nothing_is_tried_again_the_next_time() {
    let temp = tempfile::tempdir().unwrap();
    let (rng, rsa) = (SystemRandom::new(), identity(KeyAlgorithm::Rsa2048));
    let mut fake = Fake { programs: vec!["certutil", "pk12util"], failing: Some("pk12util"), ..Fake::default() };
    for _ in 0..2 {
        let mut host = Host::new(Some(temp.path().to_owned()), "/etc/sallyport/enroll", &mut fake);
        let error = install(Software::Libreswan, &mut host, &rsa, &connection(None), &rng).unwrap_err();
        assert!(error.cause.contains("pk12util") && error.cause.contains("out of luck"), "{error}");
    }
    let mut fake = Fake::default();
    let mut host = Host::new(Some(temp.path().to_owned()), "/etc/sallyport/enroll", &mut fake);
    let error = install(Software::Libreswan, &mut host, &rsa, &connection(None), &rng).unwrap_err();
    assert!(error.remedy.contains("libnss3-tools"), "{error}");
}

#[test]
fn no_name_adds_a_line_to_a_file() {
    let good = connection(Some("any thing; \"goes\" # here"));
    assert!(good.check().is_ok());
    for bad in ["a\nb", "", "a\"b", "a#b", "a;b", " a", "a\\"] {
        assert!(Connection { user: Some(bad.into()), ..good.clone() }.check().is_err(), "{bad:?}");
        assert!(Connection { gateway: bad.into(), ..good.clone() }.check().is_err(), "{bad:?}");
    }
    assert!(Connection { gateway: "a b".into(), ..good.clone() }.check().is_err());
    for bad in ["a\nb", "", "a\0"] {
        assert!(Connection { password: Some(Zeroizing::new(bad.into())), ..good.clone() }.check().is_err(), "{bad:?}");
    }
}

#[test]
fn the_timer_runs_this_program_on_this_folder() {
    let temp = tempfile::tempdir().unwrap();
    let mut fake = Fake::default();
    let mut host = Host::new(Some(temp.path().to_owned()), "/etc/sallyport/enroll", &mut fake);
    install_timer(&mut host, "/usr/local/bin/sallyport", "/etc/sallyport/enroll").unwrap();
    let service = text(temp.path(), "etc/systemd/system/sallyport-renew.service");
    assert!(
        service.contains("ExecStart=/usr/local/bin/sallyport enroll renew --wait 10m --dir /etc/sallyport/enroll\n"),
        "{service}"
    );
    let timer = text(temp.path(), "etc/systemd/system/sallyport-renew.timer");
    assert!(timer.contains("OnCalendar=hourly\nRandomizedDelaySec=1h\nPersistent=true\n"), "{timer}");
    assert_eq!(host.ran, Vec::<String>::new(), "nothing is started in a folder");
    uninstall_timer(&mut host).unwrap();
    assert!(!host.exists("/etc/systemd/system/sallyport-renew.timer"));
}

#[test]
fn no_path_adds_a_line_to_a_unit_or_a_keyfile() {
    let (temp, identity) = (tempfile::tempdir().unwrap(), identity(KeyAlgorithm::EcdsaP256));
    let mut fake = Fake::default();
    for bad in ["/opt/a\nExecStartPre=/bin/evil", "/opt/\u{1b}[31m", "opt/sallyport", "/opt/\u{fffd}", ""] {
        let mut host = Host::new(Some(temp.path().to_owned()), bad, &mut fake);
        assert!(install_timer(&mut host, bad, "/etc/sallyport/enroll").is_err(), "{bad:?}");
        assert!(install_timer(&mut host, "/usr/bin/sallyport", bad).is_err(), "{bad:?}");
        let installed =
            install(Software::NetworkManager, &mut host, &identity, &connection(None), &SystemRandom::new());
        assert!(installed.is_err(), "{bad:?}");
    }
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    let mut host = Host::new(Some(temp.path().to_owned()), "/opt/a\\b/enroll", &mut fake);
    install(Software::NetworkManager, &mut host, &identity, &connection(None), &SystemRandom::new()).unwrap();
    let file = text(temp.path(), "etc/NetworkManager/system-connections/sallyport.nmconnection");
    assert!(file.contains("machine-key=/opt/a\\\\b/enroll/key.pem\n"), "{file}");
}

#[test]
fn a_program_that_the_timer_cannot_run_is_said_before_anything_is_done() {
    let mut fake = Fake::default();
    let host = Host::new(Some("/nowhere".into()), "/etc/sallyport/enroll", &mut fake);
    let folder = "/etc/sallyport/enroll";
    for program in ["/root/sallyport", "/home/ada/bin/sallyport", "/tmp/t/debug/sallyport", "/run/user/0/sallyport"] {
        let error = check_timer(&host, program, folder).unwrap_err();
        assert!(error.cause.contains("cannot run") && error.remedy.contains("install -m 755"), "{error}");
    }
    let error = check_timer(&host, "/usr/bin/sallyport", "/home/ada/enroll").unwrap_err();
    assert!(error.remedy.contains("--dir"), "{error}");
    for good in ["/usr/local/bin/sallyport", "/opt/rooted/sallyport", "/homes/sallyport"] {
        check_timer(&host, good, folder).unwrap();
    }
}

#[test]
fn words_of_a_shell_stay_whole() {
    assert_eq!(shell_word("/opt/vpn"), "/opt/vpn");
    assert_eq!(shell_word("/opt/my 'vpn'; rm"), r"'/opt/my '\''vpn'\''; rm'");
}

#[test]
fn root_certificates_are_one_a_file() {
    let (temp, identity) = (tempfile::tempdir().unwrap(), identity(KeyAlgorithm::EcdsaP256));
    put(temp.path(), Software::Strongswan, &identity, &connection(None));
    for name in ["sallyport.pem", "sallyport-1.pem"] {
        let path = format!("etc/swanctl/x509ca/{name}");
        assert_eq!(pem::certificates(text(temp.path(), &path).as_bytes()).unwrap().len(), 1);
    }
}

#[test]
fn what_was_taken_away_and_is_there_again_was_not_removed() {
    let (temp, mut fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let mut host = Host::new(Some(temp.path().to_owned()), "/etc/sallyport/enroll", &mut fake);
    host.put("/etc/a", 0o600, b"old").unwrap();
    host.put("/etc/b", 0o600, b"old").unwrap();
    host.remove("/etc/a").unwrap();
    host.remove("/etc/b").unwrap();
    host.put("/etc/a", 0o600, b"new").unwrap();
    assert_eq!(host.removed, ["/etc/b"]);
}
