//! `sallyport backup` as operators use it: the real program against a real controller.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::Controller;
use serde_json::json;

const PASSPHRASE: &str = "correct horse battery staple\n";

fn private(path: &Path, contents: &str) {
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A controller with a user and a certificate.
fn controller() -> Controller {
    let controller = Controller::start();
    controller.ok(&["pool", "add", "office", "--network", "10.88.0.0/24"]);
    let (code, _, error) = controller.with_secret(&["user", "add", "ada", "--password-stdin"], "open sesame\n");
    assert_eq!(code, 0, "{error}");
    controller.ok(&["cert", "issue", "--machine", "laptop7.example.com", "--key", "ecdsa-p256"]);
    controller
}

#[test]
fn a_backup_is_made_checked_and_restored_under_a_passphrase() {
    let controller = controller();
    let dir = controller.dir.path().to_owned();
    private(&dir.join("passphrase"), PASSPHRASE);
    let with_stdin = |arguments: &[&str]| controller.with_secret(arguments, PASSPHRASE);
    controller.wait_for_the_level();

    let (code, out, error) = with_stdin(&["backup", "create", "--passphrase-stdin", "--out", "vpn.backup"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.starts_with("wrote vpn.backup, ") && out.contains("sallyport backup verify vpn.backup"), "{out}");
    assert_eq!(error, "", "no progress where standard error is no terminal");
    assert_eq!(fs::metadata(dir.join("vpn.backup")).unwrap().permissions().mode() & 0o777, 0o600);
    let made = controller.json(&["backup", "create", "--passphrase-file", "passphrase"]);
    let name = made["file"].as_str().unwrap();
    assert!(name.starts_with("sallyport-20") && name.ends_with("Z.backup") && dir.join(name).exists(), "{name}");
    assert_eq!(made["bytes"], json!(fs::metadata(dir.join(name)).unwrap().len()));

    let (code, out, error) = with_stdin(&["backup", "verify", "vpn.backup", "--passphrase-stdin"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.starts_with("vpn.backup is good\ncluster ") && out.contains("\nusers           1\n"), "{out}");
    let root = controller.json(&["status"])["root_fingerprint"].clone();
    assert!(out.contains(root.as_str().unwrap()), "{out}");
    let good = controller.json(&["backup", "verify", "vpn.backup", "--passphrase-file", "passphrase"]);
    assert_eq!((&good["users"], &good["pools"], &good["psk_set"]), (&json!(1), &json!(1), &json!(false)));
    assert_eq!(good["roots"][0]["fingerprint"], root);
    assert_eq!(good["cluster_id"], made["cluster_id"]);

    // The old one is stopped, the new one starts, and knows what the old one knew.
    let serial = controller.json(&["cert", "list", "laptop7"])[0]["serial"].clone();
    // What happens now is not in it, and an operator has seen it.
    controller.ok(&["cert", "issue", "--machine", "lost.example.com", "--key", "ecdsa-p256"]);
    controller.ok(&["audit", "verify", "--full"]);
    let old = controller.stop_and_keep();
    let new = tempfile::tempdir().unwrap();
    let (state, file) = (new.path().join("state"), old.path().join("vpn.backup"));
    let command = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sallyport"));
        command.args(arguments).env_clear().current_dir(old.path());
        common::text(command.output().unwrap())
    };
    let restore = ["backup", "restore", "vpn.backup", "--passphrase-file", "passphrase", "--state"];
    let (code, out, error) = command(&[restore.as_slice(), &[state.to_str().unwrap()]].concat());
    assert_eq!(code, 0, "{error}");
    assert!(out.starts_with("restored into ") && out.contains("sallyport controller --state"), "{out}");
    assert_eq!(names(&state), ["node.key", "raft", "seal.sealed"]);
    let (code, out, error) = command(&[restore.as_slice(), &[state.to_str().unwrap()]].concat());
    assert_eq!((code, out.as_str()), (1, ""), "{error}");
    assert!(error.contains("not empty"), "{error}");
    let controller = Controller::start_on(new);
    assert_eq!(controller.json(&["user", "list"])[0]["name"], json!("ada"));
    assert_eq!(controller.json(&["status"])["root_fingerprint"], root);
    assert_eq!(controller.json(&["cert", "list", "laptop7", "--live"])[0]["serial"], serial);
    controller.ok(&["cert", "issue", "--machine", "phone3.example.com", "--key", "ecdsa-p256"]);
    the_restore_is_found(&controller, &old.path().join("state"));
    controller.stop();
    assert!(file.exists());
}

/// Two clusters from one backup: who has seen the one finds the other, until an operator says why.
fn the_restore_is_found(controller: &Controller, old: &Path) {
    let folder = controller.state().join("operator");
    fs::copy(old.join("operator/audit-head"), folder.join("audit-head")).unwrap();
    let (code, _, error) = controller.run(&["audit", "verify"]);
    assert!(code == 1 && error.contains("was known here") && error.contains("restored from a backup on 20"), "{error}");
    assert!(error.contains("sallyport audit accept --reason"), "{error}");
    let evidence = names(&folder).into_iter().find(|name| name.starts_with("audit-evidence-")).expect("both heads");
    assert!(error.contains(&evidence), "{error}");
    let head = fs::read(folder.join("audit-head")).unwrap();
    assert_eq!(head, fs::read(old.join("operator/audit-head")).unwrap(), "what was known stays known");

    let out = controller.ok(&["audit", "accept", "--all", "--reason", "the disk died"]);
    assert!(out.contains("these heads are none of it"), "{out}");
    let verified = controller.json(&["audit", "verify", "--full"]);
    assert!(verified["outcome"] == "same" || verified["outcome"] == "grown", "{verified}");
    let list = controller.json(&["audit", "list"]);
    let accepted = list.as_array().unwrap().iter().find(|entry| entry["kind"] == "head-accepted").expect("an entry");
    assert_eq!(accepted["detail"], json!("the disk died"));
}

#[test]
fn a_backup_to_a_public_key_is_read_with_the_private_one() {
    let controller = controller();
    let dir = controller.dir.path().to_owned();
    let out = controller.ok(&["backup", "keygen", "ours"]);
    assert!(out.contains("ours.pub to make backups") && out.contains("ours.key to read them"), "{out}");
    let other = controller.json(&["backup", "keygen", "other"]);
    assert_eq!(other["public_key"].as_str().unwrap().len(), 64);
    assert_eq!(controller.run(&["backup", "keygen", "ours"]).0, 1);

    controller.ok(&["backup", "create", "--recipient", "ours.pub", "--out", "vpn.backup"]);
    let good = controller.json(&["backup", "verify", "vpn.backup", "--key", "ours.key"]);
    assert_eq!(good["users"], json!(1));
    let (code, _, error) = controller.run(&["backup", "verify", "vpn.backup", "--key", "other.key"]);
    assert!(code == 1 && error.contains("not for the key"), "{code}: {error}");
    let (code, _, error) = controller.run(&["backup", "verify", "vpn.backup"]);
    assert!(code == 2 && error.contains("--key NAME.key"), "{code}: {error}");
    let (code, _, error) = controller.run(&["backup", "verify", "vpn.backup", "--key", "ours.pub"]);
    assert!(code == 1 && error.contains("ours.pub"), "{code}: {error}");

    // Whoever has ours.pub can make such a file, but not one that holds this CA.
    let root = controller.json(&["status"])["root_fingerprint"].as_str().unwrap().to_owned();
    controller.ok(&["backup", "verify", "vpn.backup", "--key", "ours.key", "--root", &root]);
    let elsewhere = Controller::start();
    fs::copy(dir.join("ours.pub"), elsewhere.dir.path().join("ours.pub")).unwrap();
    elsewhere.ok(&["backup", "create", "--recipient", "ours.pub", "--out", "forged.backup"]);
    fs::copy(elsewhere.dir.path().join("forged.backup"), dir.join("forged.backup")).unwrap();
    elsewhere.stop();
    let (code, _, error) = controller.run(&["backup", "verify", "forged.backup", "--key", "ours.key", "--root", &root]);
    assert!(code == 1 && error.contains("another authority") && error.contains(&root), "{code}: {error}");
    let restore = ["backup", "restore", "forged.backup", "--key", "ours.key", "--root", &root, "--state", "new"];
    let (code, _, error) = controller.run(&restore);
    assert!(code == 1 && error.contains("another authority") && !dir.join("new").exists(), "{code}: {error}");

    fs::create_dir(dir.join("new")).unwrap();
    let restore =
        ["backup", "restore", "vpn.backup", "--key", "ours.key", "--root", &root, "--state", "new", "--output", "json"];
    let restored: serde_json::Value = serde_json::from_str(&controller.ok(&restore)).unwrap();
    assert_eq!((&restored["restored_into"], &restored["users"]), (&json!("new"), &json!(1)));
    controller.stop();
}

#[test]
fn what_cannot_be_is_said_before_anything_is_written() {
    let controller = controller();
    let dir = controller.dir.path().to_owned();
    let before = names(&dir);
    let says = |arguments: &[&str], secret: &str, code: i32, hint: &str| {
        let (got, out, error) = controller.with_secret(arguments, secret);
        assert_eq!((got, out.as_str()), (code, ""), "{arguments:?}: {error}");
        assert!(error.contains(hint) && error.lines().count() == 1, "{arguments:?}: {error}");
    };
    let create = ["backup", "create", "--passphrase-stdin", "--out", "b"];
    says(&create, "short\n", 1, "at least 12");
    says(&create, "\n", 2, "too short");
    says(&["backup", "create", "--out", "b"], "", 2, "--passphrase-stdin");
    says(&["backup", "create", "--recipient", "none.pub", "--out", "b"], "", 1, "no such file");
    says(&["backup", "create", "--passphrase-stdin", "--out", "no/such/b"], PASSPHRASE, 1, "no/such/b");
    says(&["backup", "create", "--passphrase-stdin", "--out", "sallyport.toml"], PASSPHRASE, 1, "there already");
    assert_eq!(controller.run(&["backup", "create", "--recipient", "x", "--passphrase-stdin"]).0, 2);
    let elsewhere = ["backup", "create", "--passphrase-stdin", "--out", "b", "--controller", "127.0.0.1:1"];
    says(&elsewhere, PASSPHRASE, 4, "127.0.0.1:1");
    assert_eq!(names(&dir), before);

    controller.with_secret(&create, PASSPHRASE);
    let verify = ["backup", "verify", "b", "--passphrase-stdin"];
    says(&verify, "another passphrase\n", 1, "the passphrase is wrong");
    let good = fs::read(dir.join("b")).unwrap();
    fs::write(dir.join("b"), &good[..good.len() - 10]).unwrap();
    says(&verify, PASSPHRASE, 1, "cut off");
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(dir.join("b"), &bad).unwrap();
    says(&verify, PASSPHRASE, 1, "altered or damaged");
    says(&["backup", "restore", "b", "--passphrase-stdin", "--state", "new"], PASSPHRASE, 1, "altered or damaged");
    assert!(!dir.join("new").exists());
    says(&["backup", "verify", "sallyport.toml", "--passphrase-stdin"], PASSPHRASE, 1, "no backup");
    says(&["backup", "verify", "none", "--passphrase-stdin"], PASSPHRASE, 1, "none");
    controller.stop();
}
