//! How a controller gets at its seal key: the real program, with files, environment and configuration.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{CONFIG, Controller};
use serde_json::json;

const VARIABLE: &str = "SALLYPORT_SEAL_PASSPHRASE";
const PASSPHRASE: &str = "correct horse battery staple";

#[test]
fn a_controller_goes_from_a_key_file_to_a_passphrase_and_back() {
    let controller = Controller::start();
    controller.ok(&["pool", "add", "office", "--network", "10.88.0.0/24"]);
    let dir = controller.stop_and_keep();
    let state = dir.path().join("state");
    assert!(state.join("node.key").exists() && state.join("seal.sealed").exists());
    let settings = format!("{CONFIG}[controller.unseal]\nmethod = \"passphrase\"\nargon2_memory_kib = 64\n");
    fs::write(dir.path().join("new.toml"), &settings).unwrap();
    fs::write(dir.path().join("old.toml"), CONFIG).unwrap();
    let run = |config: &str, more: &[&str], passphrase: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sallyport"));
        command.args(["controller", "--state", "state", "--config", config]).args(more);
        command.env_clear().envs(passphrase.map(|p| (VARIABLE, p))).current_dir(dir.path());
        common::text(command.stdin(std::process::Stdio::null()).output().unwrap())
    };

    // The settings alone change nothing.
    let (code, _, error) = run("new.toml", &[], Some(PASSPHRASE));
    assert!(code == 1 && error.contains("sallyport controller --reseal"), "{code}: {error}");
    let (code, _, error) = run("new.toml", &["--reseal"], None);
    assert!(code == 3 && error.contains(VARIABLE), "{code}: {error}");
    let (code, _, error) = run("new.toml", &["--reseal"], Some("short"));
    assert!(code == 3 && error.contains("at least 12"), "{code}: {error}");
    let (code, out, error) = run("new.toml", &["--reseal"], Some(PASSPHRASE));
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("held by file, and is by passphrase now") && out.contains("state/node.key"), "{out}");
    fs::remove_file(state.join("node.key")).unwrap();
    let (code, _, error) = run("new.toml", &[], Some("wrong horse battery staple"));
    assert!(code == 1 && error.contains("the passphrase is wrong"), "{code}: {error}");

    // Back, to a key file elsewhere.
    let elsewhere = format!("{CONFIG}[controller.unseal]\nkey_file = \"{}/vpn.key\"\n", dir.path().display());
    fs::write(dir.path().join("elsewhere.toml"), &elsewhere).unwrap();
    let (code, out, error) =
        run("elsewhere.toml", &["--reseal", "--reseal-from", "new.toml", "--output", "json"], Some(PASSPHRASE));
    assert_eq!(code, 0, "{error}");
    let done: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(done, json!({"from": "passphrase", "to": "file", "left_over": null}));
    let mode = fs::metadata(dir.path().join("vpn.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, _, error) = run("old.toml", &[], None);
    assert!(code == 1 && error.contains("node key is missing"), "{code}: {error}");
    // Whoever steals the folder cannot pose as this controller either, once the node key is elsewhere.
    let own_key = state.join("controller/key.pem");
    assert!(own_key.exists());
    let controller = Controller::start_with(dir, &elsewhere, &[]);
    assert_eq!(controller.json(&["pool", "list"])[0]["name"], json!("office"));
    assert!(!own_key.exists() && state.join("controller/key.sealed").exists());
    controller.stop();
}

#[test]
fn a_controller_starts_with_a_passphrase_from_the_environment_or_systemd() {
    let settings = format!("{CONFIG}[controller.unseal]\nmethod = \"passphrase\"\nargon2_memory_kib = 64\n");
    let dir = tempfile::tempdir().unwrap();
    let controller = Controller::start_with(dir, &settings, &[(VARIABLE, PASSPHRASE)]);
    controller.ok(&["pool", "add", "office", "--network", "10.88.0.0/24"]);
    let dir = controller.stop_and_keep();
    assert!(!dir.path().join("state/node.key").exists());
    assert!(!dir.path().join("state/controller/key.pem").exists());
    // As systemd hands it over: a folder with a file that our user may read.
    let credentials = dir.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("sallyport-passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    let variable = [("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())];
    let controller = Controller::start_with(dir, &settings, &variable);
    assert_eq!(controller.json(&["pool", "list"])[0]["name"], json!("office"));
    controller.stop();
}
