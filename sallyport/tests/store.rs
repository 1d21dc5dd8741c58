//! The engine of the store, changed by an operator: the real program.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::{CONFIG, Controller};
use serde_json::{Value, json};

#[test]
fn an_operator_changes_the_engine_of_the_store_and_back() {
    let controller = Controller::start();
    controller.ok(&["pool", "add", "office", "--network", "10.88.0.0/24"]);
    let redb = format!("{CONFIG}[controller.storage]\nengine = \"redb\"\n");
    fs::write(controller.dir.path().join("redb.toml"), &redb).unwrap();
    let run = |dir: &std::path::Path, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
        command.args(["controller", "--state", "state", "--config", "redb.toml"]).args(more);
        common::text(command.env_clear().current_dir(dir).stdin(Stdio::null()).output().unwrap())
    };
    // Not under a controller that runs.
    let (code, _, error) = run(controller.dir.path(), &["--convert-store"]);
    assert!(code == 1 && error.contains("in use by another process"), "{code}: {error}");

    let dir = controller.stop_and_keep();
    let raft = dir.path().join("state/raft");
    // The setting alone changes nothing, and names the way.
    let (code, _, error) = run(dir.path(), &[]);
    assert!(code == 1 && error.contains("sallyport controller --convert-store"), "{code}: {error}");
    let (code, out, error) = run(dir.path(), &["--convert-store"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("converted from sled to redb") && out.contains("store.before-conversion"), "{out}");
    assert!(raft.join("store/db.redb").is_file() && raft.join("store.before-conversion/db").is_file());
    let (code, out, error) = run(dir.path(), &["--convert-store", "--output", "json"]);
    assert_eq!(code, 0, "{error}");
    let done: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(done, json!({"from": "redb", "to": "redb", "rows": 0, "kept": null}));

    let controller = Controller::start_with(dir, &redb, &[]);
    assert_eq!(controller.json(&["pool", "list"])[0]["name"], json!("office"));
    controller.ok(&["pool", "add", "lab", "--network", "10.89.0.0/24"]);
    let dir = controller.stop_and_keep();

    // Back, once there is a place to keep the store.
    fs::write(dir.path().join("redb.toml"), CONFIG).unwrap();
    let (code, _, error) = run(dir.path(), &["--convert-store"]);
    assert!(code == 1 && error.contains("earlier conversion"), "{code}: {error}");
    fs::remove_dir_all(raft.join("store.before-conversion")).unwrap();
    let (code, _, error) = run(dir.path(), &["--convert-store"]);
    assert_eq!(code, 0, "{error}");
    let controller = Controller::start_on(dir);
    assert_eq!(controller.json(&["pool", "list"]).as_array().map(Vec::len), Some(2));
    controller.stop();
}
