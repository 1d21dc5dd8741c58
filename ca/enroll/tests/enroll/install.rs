//! Installation judged by the software that it is for, where this machine has it.

use std::io::Write as _;
use std::process::Command;

use sallyport_ca::{KeyAlgorithm, SystemRandom};
use sallyport_enroll::install::{Connection, Host, Ran, Runner, Software, install, refresh, uninstall};
use sallyport_enroll::{Outcome, enroll, renew};

use crate::support::*;

/// Runs what the machine has.
struct Real;

impl Runner for Real {
    fn has(&self, program: &str) -> bool {
        Command::new(program).arg("-H").output().is_ok()
    }

    fn run(&mut self, program: &str, arguments: &[&str]) -> std::io::Result<Ran> {
        let output = Command::new(program).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        Ok(Ran { success: output.status.success(), said })
    }
}

fn connection() -> Connection {
    Connection { gateway: "vpn.example.com".into(), user: Some("ada".into()), password: None }
}

#[tokio::test]
async fn libreswans_database_holds_the_pair_in_force_and_trusts_the_root() {
    if !Real.has("certutil") || !Real.has("pk12util") {
        let _ = writeln!(std::io::stderr(), "skipped: certutil and pk12util (libnss3-tools) are not installed");
        return;
    }
    let world = World::new().await;
    let wanted = sallyport_enroll::Request { key: KeyAlgorithm::Rsa2048, ..request(&world.token) };
    let (settings, first) = enroll(&world.folder(), &wanted, &world.machine).await.unwrap();
    let (rng, root) = (SystemRandom::new(), world.temp.path().join("root"));
    let mut runner = Real;
    let mut host = Host::new(Some(root.clone()), "/etc/sallyport/enroll", &mut runner);
    install(Software::Libreswan, &mut host, &first, &connection(), &rng).unwrap();
    let db = format!("sql:{}", root.join("var/lib/ipsec/nss").display());
    let say = |arguments: &[&str]| {
        let output = Command::new("certutil").args(arguments).args(["-d", &db]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let held = |certificate: &sallyport_ca::Certificate| {
        let one = sallyport_ca::pem::certificates(say(&["-L", "-n", "sallyport", "-a"]).as_bytes()).unwrap();
        assert_eq!(one, [certificate.der()]);
        let keys = say(&["-K"]);
        assert_eq!(keys.matches("< 0>").count() + keys.matches("< 1>").count(), 1, "{keys}");
    };
    held(&first.certificate);
    let listed = say(&["-L"]);
    assert!(listed.contains("CT,,") && listed.contains("u,u,u"), "{listed}");
    // For an IPsec end system, at the time of the certificates.
    let valid = say(&["-V", "-n", "sallyport", "-u", "C", "-b", "270115080000Z"]);
    assert!(valid.contains("valid"), "{valid}");

    let renewed =
        renew(&world.folder(), &settings, &first, true, std::time::Duration::ZERO, &world.machine).await.unwrap();
    let Outcome::Renewed(second) = renewed else { panic!("not renewed") };
    refresh(Software::Libreswan, &mut host, &second, &rng).unwrap();
    held(&second.certificate);
    uninstall(Software::Libreswan, &mut host, &[]).unwrap();
    let left = Command::new("certutil").args(["-L", "-n", "sallyport", "-d", &db]).output().unwrap();
    assert!(!left.status.success());
    assert!(!root.join("etc/ipsec.d/sallyport.conf").exists());
}
