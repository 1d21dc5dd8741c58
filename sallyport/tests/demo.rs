//! The demo's hosts and wires, and the demo itself, on a machine that allows them.

use std::io::Write;
use std::process::Command;

/// Exit code for "this machine cannot do it".
const MACHINE: i32 = 6;

/// Runs the demo with `arguments`; `None`, and the reason on standard error, where the machine does not allow it.
fn demo(arguments: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_sallyport")).arg("demo").args(arguments).output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => Some(out.into_owned()),
        Some(MACHINE) => {
            assert!(error.starts_with("sallyport: ") && error.trim_end().ends_with(')'), "no remedy in: {error}");
            skipped(&error);
            None
        }
        code => panic!("exit code {code:?}\n{out}\n{error}"),
    }
}

fn skipped(why: &str) {
    // Past the capture of a passing test's output, so that ./test can report it.
    let _ = std::io::stderr().write_all(format!("\nskipped: {}\n", why.trim_end()).as_bytes());
}

#[test]
fn three_hosts_are_joined_by_two_wires() {
    let Some(out) = demo(&["--plumbing"]) else { return };
    assert!(out.contains("the inside host 10.77.0.10 answers the gateway only"), "{out}");
}

#[test]
fn a_vpn_comes_up_carries_traffic_and_is_taken_down() {
    let Some(out) = demo(&["--output", "json"]) else { return };
    let steps: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let position = |step: &str| {
        let found = steps.iter().position(|s| s["step"] == step);
        found.unwrap_or_else(|| panic!("no step {step} in\n{out}"))
    };
    let order = [
        "hosts",
        "controller",
        "gateway",
        "machine",
        "user",
        "IKE SA",
        "IPsec SA",
        "L2TP tunnel",
        "L2TP session",
        "PPP link",
        "PPP authentication",
        "PPP address",
        "connected",
        "ping",
        "page",
        "sallyport session list",
        "hung up",
        "a wrong password",
        "sallyport attempt list --failed",
        "done",
    ]
    .map(position);
    assert!(order.is_sorted(), "{out}");
    assert!(steps[position("page")]["detail"].as_str().unwrap().contains("sees 10.88.0."), "{out}");
}
