//! Against SoftHSM2. Its settings come from an environment variable, so each test runs itself as a child with one.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ring::rand::SystemRandom;

use super::*;
use crate::config::{UnsealConfig, UnsealMethod};
use crate::seal::{Sealer, UserSecret};

/// Set for the child: the folder with its token.
const CHILD: &str = "SALLYPORT_TOKEN_TEST";
const PIN: &str = "493817";

fn module() -> Option<PathBuf> {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so"];
    places.iter().map(PathBuf::from).find(|p| p.exists())
}

fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Runs `work` in a child of this process with a fresh token called `vpn`.
fn in_a_child(test: &str, work: impl FnOnce(&Path, &Path)) {
    let Some(module) = module() else { return skipped("no SoftHSM2 module (Debian: softhsm2)") };
    if let Some(dir) = std::env::var_os(CHILD) {
        return work(Path::new(&dir), &module);
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    let conf = dir.path().join("softhsm2.conf");
    let tokens = dir.path().join("tokens");
    fs::create_dir(&tokens).expect("makes");
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
    fs::write(&conf, text).expect("writes");
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "vpn", "--pin", PIN, "--so-pin", "12345678"])
        .env("SOFTHSM2_CONF", &conf)
        .output();
    match made {
        Ok(Output { status, .. }) if status.success() => {}
        Ok(output) => panic!("softhsm2-util: {output:?}"),
        Err(e) => return skipped(&format!("softhsm2-util does not run: {e}")),
    }
    let name = format!("seal::token::tests::{test}");
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", &name, "--nocapture"])
        .env(CHILD, dir.path())
        .env("SOFTHSM2_CONF", &conf)
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn config(dir: &Path, module: &Path) -> UnsealConfig {
    let pin_file = dir.join("pin");
    fs::write(&pin_file, PIN).expect("writes");
    fs::set_permissions(&pin_file, fs::Permissions::from_mode(0o600)).expect("closes");
    let pkcs11 = Pkcs11Config { module: module.into(), token: "vpn".into(), pin_file, ..Pkcs11Config::default() };
    UnsealConfig { method: UnsealMethod::Pkcs11, pkcs11, ..UnsealConfig::default() }
}

fn pin() -> Secret {
    Zeroizing::new(PIN.as_bytes().to_vec())
}

#[test]
fn a_token_holds_the_node_key() {
    in_a_child("a_token_holds_the_node_key", |dir, module| {
        let config = config(dir, module);
        let state = dir.join("state");
        crate::files::private_dir(&state).expect("makes");
        let sealer = Sealer::open(&state, &config, true).expect("makes");
        let sealed = sealer.seal_user(UserSecret::NtHash, b"c", "ada", b"secret").expect("seals");
        let again = Sealer::open(&state, &config, false).expect("opens");
        assert_eq!(again.open_user(UserSecret::NtHash, b"c", "ada", &sealed).expect("opens").as_slice(), b"secret");

        // To a file and back, with the key that is in the token by now.
        let file = UnsealConfig::default();
        crate::seal::reseal(&state, Some(&config), &file).expect("reseals");
        Sealer::open(&state, &file, false).expect("opens");
        crate::seal::reseal(&state, None, &config).expect("reseals");

        let refused = |config: &UnsealConfig| Sealer::open(&state, config, false).expect_err("refused").to_string();
        let with = |change: fn(&mut Pkcs11Config)| {
            let mut config = config.clone();
            change(&mut config.pkcs11);
            refused(&config)
        };
        assert!(with(|c| c.key = "other".into()).contains("controller --reseal"));
        assert!(with(|c| c.token = "other".into()).contains("controller --reseal"));
        assert!(with(|c| c.module = "/nowhere/module.so".into()).contains("pkcs11.module"));
        fs::write(&config.pkcs11.pin_file, "000000").expect("writes");
        assert!(refused(&config).contains("correct the PIN"), "{}", refused(&config));
        fs::write(&config.pkcs11.pin_file, PIN).expect("writes");
        Sealer::open(&state, &config, false).expect("opens");
    });
}

#[test]
fn each_method_works_both_ways_and_an_altered_node_key_is_noticed() {
    in_a_child("each_method_works_both_ways_and_an_altered_node_key_is_noticed", |dir, module| {
        let config = config(dir, module).pkcs11;
        let secret = [7; 32];
        let rsa = Command::new("pkcs11-tool")
            .args(["--module", module.to_str().expect("text"), "--login", "--pin", PIN, "--token-label", "vpn"])
            .args(["--keypairgen", "--key-type", "rsa:2048", "--label", "pair", "--id", "01"])
            .output();
        let pair = match rsa {
            Ok(output) => {
                assert!(output.status.success(), "{output:?}");
                true
            }
            Err(e) => {
                skipped(&format!("RSA-OAEP: pkcs11-tool does not run (Debian: opensc): {e}"));
                false
            }
        };
        let made = encrypt(&config, &pin(), &secret, &SystemRandom::new()).expect("encrypts");
        assert_eq!(made.method(), Method::AesGcm);
        assert_eq!(*decrypt(&config, &pin(), &made).expect("decrypts"), secret);
        let mut altered = made.clone();
        altered.encrypted[3] ^= 1;
        assert!(decrypt(&config, &pin(), &altered).is_err());

        let pairs = Pkcs11Config { key: "pair".into(), ..config.clone() };
        if pair {
            let made = encrypt(&pairs, &pin(), &secret, &SystemRandom::new()).expect("encrypts");
            assert!(matches!(made.method(), Method::RsaOaepSha256 | Method::RsaOaepSha1));
            assert_eq!(*decrypt(&pairs, &pin(), &made).expect("decrypts"), secret);
            altered = made;
            altered.encrypted[3] ^= 1;
            assert!(decrypt(&pairs, &pin(), &altered).is_err());
        }

        with(&config, &pin(), |token| {
            let keys = token.keys()?.expect("made above");
            let mut iv = [9; 16];
            let encrypted = token.encrypt(&keys, Method::AesCbc, &secret, &mut iv).expect("encrypts");
            assert_eq!(encrypted.len(), secret.len());
            assert_ne!(encrypted, secret);
            assert_eq!(token.decrypt(&keys, Method::AesCbc, &encrypted, &iv).expect("decrypts").as_slice(), secret);
            assert!(token.encrypt(&keys, Method::RsaOaepSha1, &secret, &mut iv).is_err());
            Ok(())
        })
        .expect("works");
        let missing = Pkcs11Config { token: "missing".into(), ..config };
        let error = encrypt(&missing, &pin(), &secret, &SystemRandom::new()).expect_err("refused").to_string();
        assert!(error.contains("no token \"missing\", only: vpn"), "{error}");
    });
}
