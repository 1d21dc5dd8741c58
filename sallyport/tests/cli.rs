//! The command line as its users meet it: the program is run.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn sallyport(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    text(sallyport(arguments).output().unwrap())
}

fn text(output: Output) -> (i32, String, String) {
    let string = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), string(output.stdout), string(output.stderr))
}

/// Every command and subcommand, as words after the program's name.
fn commands() -> Vec<Vec<String>> {
    fn below(path: &[String], found: &mut Vec<Vec<String>>) {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let (code, help, _) = run(&arguments);
        assert_eq!(code, 0, "{path:?}");
        found.push(path.to_vec());
        let list =
            help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or_default());
        for line in list.lines() {
            let Some(name) = line.strip_prefix("  ").and_then(|l| l.split(' ').next()).filter(|n| !n.is_empty()) else {
                continue;
            };
            if name != "help" {
                below(&[path, &[name.to_owned()]].concat(), found);
            }
        }
    }
    let mut found = Vec::new();
    below(&[], &mut found);
    found
}

#[test]
fn every_command_of_the_issue_is_there_and_has_help() {
    let all: Vec<String> = commands().iter().map(|c| c.join(" ")).collect();
    for expected in [
        "controller",
        "gateway",
        "standalone",
        "user add",
        "user list",
        "user remove",
        "user passwd",
        "user enable",
        "user disable",
        "user set",
        "user unlock",
        "pool add",
        "pool list",
        "pool remove",
        "psk set",
        "psk clear",
        "psk status",
        "cert issue",
        "cert list",
        "cert show",
        "cert revoke",
        "cert release",
        "session list",
        "session kill",
        "gateway list",
        "attempt list",
        "status",
        "config check",
        "config show-default",
        "decode",
        "demo",
        "completion",
        "man",
    ] {
        assert!(all.iter().any(|c| c == expected), "{expected} is missing from {all:?}");
    }
    assert!(!all.iter().any(|c| c.contains("helper")), "the demo's helper is no command for people");
}

#[test]
fn the_help_teaches_first_steps_and_exit_codes() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for expected in ["First steps:", "sallyport demo", "Exit codes:", "SALLYPORT_STATE", "--output"] {
        assert!(help.contains(expected), "{expected} is missing from\n{help}");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = run(&["completion", shell]);
        assert_eq!(code, 0);
        assert!(script.contains("sallyport") && script.contains("standalone"), "{shell}");
    }
    let (code, _, error) = run(&["completion", "csh"]);
    assert_eq!(code, 2);
    assert!(error.contains("possible values: bash"), "{error}");
}

#[test]
fn manual_pages_are_printed_or_written() {
    let (code, page, _) = run(&["man"]);
    assert_eq!(code, 0);
    assert!(page.contains(".TH sallyport 1"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    let (code, _, error) = run(&["man", dir.path().to_str().unwrap()]);
    assert_eq!(code, 0, "{error}");
    for page in ["sallyport.1", "sallyport-user-add.1", "sallyport-cert-issue.1"] {
        assert!(dir.path().join(page).exists(), "{page} is missing");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    for arguments in [&["config", "show-default"][..], &["completion", "bash"], &["man"], &["--help"]] {
        let mut child = sallyport(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let (code, _, error) = text(child.wait_with_output().unwrap());
        assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn the_default_configuration_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let (code, default, _) = run(&["config", "show-default"]);
    assert_eq!(code, 0);
    let file = dir.path().join("sallyport.toml");
    std::fs::write(&file, default).unwrap();
    let (code, out, error) = run(&["config", "check", file.to_str().unwrap()]);
    let expected = format!("{}: the configuration is valid\n", file.display());
    assert_eq!((code, out, error.as_str()), (0, expected, ""));
    let (_, json, _) = run(&["config", "check", file.to_str().unwrap(), "--output", "json"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap(),
        serde_json::json!({"valid": true, "file": file})
    );
}

#[test]
fn a_wrong_configuration_is_named_by_every_role_and_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.toml");
    std::fs::write(&file, "[gateway.ppp]\nmru = 9000\n").unwrap();
    let path = file.to_str().unwrap();
    let state = dir.path().join("state");
    for role in ["standalone", "controller", "gateway"] {
        let (code, out, error) = run(&[role, "--config", path, "--state", state.to_str().unwrap()]);
        assert_eq!((code, out.as_str()), (3, ""), "{role}: {error}");
        assert!(error.starts_with(&format!("sallyport: {path}:2:7: 9000: allowed are 576 to 1500")), "{role}: {error}");
        assert_eq!(error.lines().count(), 1, "{role}: {error}");
        assert!(!state.exists(), "{role} wrote to its state");
    }
    let (code, _, error) = run(&["config", "check", path]);
    assert_eq!(code, 3);
    assert!(error.contains(":2:7:"), "{error}");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let (code, _, error) = run(&["config", "check", "/nonexistent/sallyport.toml"]);
    assert_eq!(code, 3);
    assert!(error.contains("/nonexistent/sallyport.toml"), "{error}");
}

#[test]
fn a_missing_identity_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    for command in [&["status"][..], &["user", "list"], &["attempt", "list"], &["session", "list", "-o", "json"]] {
        let state = dir.path().to_str().unwrap();
        let (code, out, error) = run(&[command, &["--state", state]].concat());
        assert_eq!((code, out.as_str()), (4, ""));
        assert!(error.contains("no operator's identity") && error.contains("--identity"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_controller_that_is_away_has_its_own_exit_code() {
    let dir = identity();
    // A port that was free a moment ago and on which nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let controller = format!("127.0.0.1:{port}");
    let identity = dir.path().to_str().unwrap();
    let (code, _, error) = run(&["status", "--identity", identity, "--controller", &controller]);
    assert_eq!(code, 4, "{error}");
    assert!(error.contains(&controller) && error.contains("refused"), "{error}");
    let (code, _, error) = run(&["status", "--identity", identity, "--controller", "no address"]);
    assert_eq!(code, 2, "{error}");
}

/// An operator's folder of a certificate authority of the test's own.
fn identity() -> tempfile::TempDir {
    use sallyport_ca::{
        Authority, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject, SystemRandom, UnixTime, pem, seal,
    };
    let (rng, now) = (SystemRandom::new(), UnixTime(1_800_000_000));
    let seal_key = seal::SealKey::generate(&rng).unwrap();
    let (authority, _) = Authority::create(&RootConfig::new("Test", "Test Root"), &seal_key, now, &rng).unwrap();
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
    let subject = Subject::new("operator.example.com", vec![]).unwrap();
    let serial = Serial::generate(&rng).unwrap();
    let certificate = authority.issue(Profile::Operator, &subject, &key.public_key(), now, serial, &rng).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(Path::new(dir.path()).join(name), text).unwrap();
    put("key.pem", &pem::encode("PRIVATE KEY", key.pkcs8_der()));
    put("cert.pem", &pem::encode("CERTIFICATE", certificate.der()));
    put("ca.pem", &pem::encode("CERTIFICATE", authority.certificate().der()));
    dir
}

#[test]
fn a_password_is_asked_for_at_a_terminal_or_read_from_standard_input_only() {
    let (code, _, error) = run(&["user", "add", "ada"]);
    assert_eq!(code, 2);
    assert!(error.contains("--password-stdin"), "{error}");
    for (input, expected) in [("\n".to_owned(), "too short"), ("x".repeat(300), "too long")] {
        let mut command = sallyport(&["user", "add", "ada", "--password-stdin"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let (code, _, error) = text(child.wait_with_output().unwrap());
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn certificates_are_of_one_kind_at_a_time() {
    let (code, _, error) = run(&["cert", "issue"]);
    assert_eq!(code, 2);
    assert!(error.contains("--machine") && error.contains("--gateway") && error.contains("--operator"), "{error}");
    let (code, _, _) = run(&["cert", "issue", "--machine", "a", "--gateway", "b"]);
    assert_eq!(code, 2);
}

/// `./test` builds with the settings of tests/build.toml, which names each crate of ours.
#[test]
fn each_crate_of_the_workspace_is_in_the_settings_of_the_test_build() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let (workspace, settings) = (read("Cargo.toml"), read("tests/build.toml"));
    let members = workspace.split_once("\nmembers = [").and_then(|(_, rest)| rest.split_once(']')).unwrap().0;
    let folders: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(folders.len() > 10, "{folders:?}");
    for folder in folders {
        let manifest = read(&format!("{folder}/Cargo.toml"));
        let name = manifest.lines().find_map(|l| l.strip_prefix("name = \"")).unwrap().trim_end_matches('"');
        assert!(settings.contains(&format!("\n[profile.release.package.{name}]\n")), "tests/build.toml lacks {name}");
    }
}
