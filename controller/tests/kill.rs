//! `kill -9` under load, many times: what was acknowledged is there after each start.
//!
//! The test runs itself as a child: the child starts a controller on the state folder, checks what the parent knows to be
//! acknowledged, then adds users as fast as it can and prints each acknowledgement. The parent kills it at a
//! random moment.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sallyport_controller::{Controller, PasswordsConfig, Running};
use sallyport_proto::v1;

/// Set for the child: the state folder.
const CHILD: &str = "SALLYPORT_KILL_TEST_STATE";
/// How often to kill; more by hand: `SALLYPORT_KILLS=200 cargo test -p sallyport-controller --test kill`.
const KILLS: &str = "SALLYPORT_KILLS";
const DEFAULT_KILLS: u32 = 12;

fn child(state: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "the_child", "--nocapture"])
        .env(CHILD, state)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts the child")
}

/// Users that exist, from a listing.
async fn users(running: &Running, state: &Path) -> BTreeSet<u32> {
    let mut operator = common::operator(state, running.grpc_address()).await;
    let (mut found, mut page_token) = (BTreeSet::new(), String::new());
    loop {
        let request = v1::ListUsersRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = operator.list_users(request).await.expect("users").into_inner();
        found.extend(page.users.iter().map(|u| u.name.trim_start_matches('u').parse::<u32>().expect("a number")));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

/// The child's life. Not a test of its own: without the variable that the test below sets, it is over at once.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "the pipe to the parent")]
async fn the_child() {
    let Some(state) = std::env::var_os(CHILD).map(std::path::PathBuf::from) else { return };
    let mut config = common::config();
    config.passwords = PasswordsConfig { argon2_memory_kib: 8, argon2_passes: 1, argon2_parallel: 2 };
    config.storage.snapshot_every = 100; // snapshots and purges in the middle of it all
    let running = Controller::start(config, &state).await.expect("starts");
    let there = users(&running, &state).await;
    // One line with everything that is there, then one for each acknowledgement.
    let list: Vec<String> = there.iter().map(ToString::to_string).collect();
    println!("\nTHERE {}", list.join(","));
    let next = there.last().map_or(0, |n| n + 1);
    let writers: Vec<_> = (0..4u32)
        .map(|writer| {
            let (state, address) = (state.clone(), running.grpc_address());
            tokio::spawn(async move {
                let mut operator = common::operator(&state, address).await;
                for i in 0.. {
                    let n = next + writer + 4 * i;
                    common::add_user(&mut operator, &format!("u{n}"), "open sesame").await;
                    println!("\nACK {n}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writes");
    }
}

/// A small generator: the moments of the kills are the same in each run as far as the machine lets them be.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let state = dir.path().join("state");
    let kills = std::env::var(KILLS).ok().and_then(|k| k.parse().ok()).unwrap_or(DEFAULT_KILLS);
    let (mut acknowledged, mut seed, mut during_start) = (BTreeSet::new(), 0x5eed_u64, 0);
    for round in 0..kills {
        let mut child = child(&state);
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        // Every third time it dies at a random moment of its start, else after some acknowledgements.
        let early = round % 3 == 2;
        if early {
            std::thread::sleep(Duration::from_millis(random(&mut seed) % 400));
        } else {
            let (mut seen, wanted) = (0, 1 + random(&mut seed) % 60);
            for line in lines.by_ref() {
                note(&line, &mut acknowledged);
                seen += u64::from(line.starts_with("ACK"));
                if seen == wanted {
                    break;
                }
            }
            assert_eq!(seen, wanted, "the child ended by itself: {}", errors(child));
        }
        child.kill().expect("kills"); // SIGKILL
        child.wait().expect("dies");
        // What was still in the pipe was acknowledged, too.
        let mut started = false;
        for line in lines {
            started |= line.starts_with("THERE");
            note(&line, &mut acknowledged);
        }
        during_start += u32::from(early && !started);
    }
    // A last start without a kill.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let running = Controller::start(common::config(), &state).await.expect("starts");
        let there = users(&running, &state).await;
        assert!(there.is_superset(&acknowledged), "lost: {:?}", acknowledged.difference(&there));
        running.shutdown().await;
    });
    assert!(!acknowledged.is_empty());
    println_summary(kills, during_start, acknowledged.len());
}

#[allow(clippy::print_stdout, reason = "shown with --nocapture")]
fn println_summary(kills: u32, during_start: u32, acknowledged: usize) {
    println!(
        "{kills} kills ({during_start} before the start was complete), {acknowledged} users acknowledged, none lost"
    );
}

fn note(line: &str, acknowledged: &mut BTreeSet<u32>) {
    if let Some(n) = line.strip_prefix("ACK ") {
        acknowledged.insert(n.trim().parse().expect("a number"));
    } else if let Some(list) = line.strip_prefix("THERE ") {
        let there: BTreeSet<u32> = list.split(',').filter_map(|n| n.trim().parse().ok()).collect();
        assert!(there.is_superset(acknowledged), "lost: {:?}", acknowledged.difference(&there));
    }
}

fn errors(mut child: Child) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = child.kill();
        let _ = stderr.read_to_string(&mut text);
    }
    text
}
