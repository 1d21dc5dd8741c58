//! From the order to revoke a certificate to the end of its tunnel: `cargo bench -p sallyport --bench revocation`.
//!
//! Three controllers and 20 gateways, each a process of the real program with its default settings, and 1,000 sessions: 50 on each
//! gateway, each opened by a machine with a certificate of its own, which the controllers have issued, over IKE, ESP, L2TP and PPP.
//! Then an operator revokes each of these certificates by its serial number, as `sallyport cert revoke --wait` does: one after the other
//! first, the rest in bursts. Measured is, each from the moment the operator asks:
//!
//! - *recorded*: until he has the answer that the log holds it,
//! - *tunnel dead*: until the machine sees its connection end, because the gateway says so: nothing else ends it here,
//! - *`--wait`*: until he is told that every gateway has acknowledged.
//!
//! What is simpler than the world: all processes are on one machine, over its loopback interface, so a network's delay comes on top; the
//! machines are the built-in client, all in this process, idle, without a device; the operator's connections are open already, to all
//! controllers in turn; the certificates' keys are made by the controllers, not by the machines; each gateway has one user for all of its
//! sessions. Gateways open their devices and ports in a network of this benchmark's own (a user namespace), so it needs no privilege, but
//! `/dev/net/tun`. There is no peer to compare with.
//!
//! | variable | what | else |
//! |---|---|---|
//! | `SALLYPORT_BENCH_DIR` | folder for the controllers' state, on the disk to measure | cargo's `target/tmp` |
//! | `SALLYPORT_BENCH_GATEWAYS` | gateways, at most 250 | 20 |
//! | `SALLYPORT_BENCH_SESSIONS` | sessions | 1000 |
//! | `SALLYPORT_BENCH_IN_TURN` | revocations one after the other | 200 |
//! | `SALLYPORT_BENCH_BURST` | revocations at a time, of the rest | 20 |
//! | `SALLYPORT_BENCH_KEY` | kind of the machines' keys, `ecdsa-p256` or `rsa-2048` | `ecdsa-p256` |

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod machines;
mod site;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use sallyport_proto::v1;

use machines::Session;
use site::{Operator, Site};

/// Machines that enroll or connect at a time.
const AT_A_TIME: usize = 8;
/// How often a machine tries to connect.
const TRIES: usize = 3;
/// After which a session is said not to have ended.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Settings {
    dir: PathBuf,
    gateways: usize,
    sessions: usize,
    in_turn: usize,
    burst: usize,
    key: v1::KeyAlgorithm,
}

impl Settings {
    fn from_env() -> Self {
        let number = |name: &str, default: usize| {
            std::env::var(name).ok().map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name} is no number")))
        };
        let key = std::env::var("SALLYPORT_BENCH_KEY").unwrap_or_else(|_| "ecdsa-p256".into());
        Self {
            dir: std::env::var_os("SALLYPORT_BENCH_DIR")
                .map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from),
            gateways: number("SALLYPORT_BENCH_GATEWAYS", 20).clamp(1, 250),
            sessions: number("SALLYPORT_BENCH_SESSIONS", 1000),
            in_turn: number("SALLYPORT_BENCH_IN_TURN", 200),
            burst: number("SALLYPORT_BENCH_BURST", 20).max(1),
            key: match key.as_str() {
                "ecdsa-p256" => v1::KeyAlgorithm::EcdsaP256,
                "rsa-2048" => v1::KeyAlgorithm::Rsa2048,
                _ => panic!("SALLYPORT_BENCH_KEY is ecdsa-p256 or rsa-2048"),
            },
        }
    }
}

fn main() {
    // `cargo test --benches` starts it, too.
    if !std::env::args().any(|a| a == "--bench") {
        return println!("only cargo bench runs this");
    }
    let settings = Settings::from_env();
    // Before there is any other thread: the kernel asks for that.
    site::enter_network();
    std::fs::create_dir_all(&settings.dir).unwrap();
    let dir = tempfile::Builder::new().prefix("revocation-").tempdir_in(&settings.dir).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run(&settings, dir.path()));
}

async fn run(settings: &Settings, dir: &std::path::Path) {
    let begun = Instant::now();
    let site = Site::start(settings, dir).await;
    eprintln!("3 controllers and {} gateways run after {:.1} s", settings.gateways, begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let numbers = stream::iter(0..settings.sessions);
    let issued: Vec<_> = numbers.map(|n| site.issue(n, settings.key)).buffer_unordered(AT_A_TIME).collect().await;
    let rate = per_second(issued.len(), begun);
    eprintln!("{} machines have their certificates: {rate:.0} a second", issued.len());

    let begun = Instant::now();
    let to = &site;
    let connecting = stream::iter(issued).map(|machine| async move {
        let mut why = String::new();
        for _ in 0..TRIES {
            match Session::connect(&machine, to).await {
                Ok(session) => return Some(session),
                Err(cause) => why = cause,
            }
        }
        eprintln!("a machine does not come in: {why}");
        None
    });
    let mut connecting = connecting.buffer_unordered(AT_A_TIME);
    let mut sessions = Vec::new();
    while let Some(session) = connecting.next().await {
        sessions.extend(session);
        if sessions.len() % 100 == 0 {
            eprintln!("{} sessions after {:.1} s", sessions.len(), begun.elapsed().as_secs_f64());
        }
    }
    drop(connecting);
    let rate = per_second(sessions.len(), begun);
    eprintln!("{} sessions are up: {rate:.0} a second", sessions.len());
    // In the order of the machines' numbers, one gateway follows the other.
    sessions.sort_by_key(|s| s.number);
    assert_eq!(site.sessions().await, sessions.len(), "the controllers count other sessions");

    let mut rest = sessions.into_iter();
    let mut in_turn = Vec::new();
    for session in rest.by_ref().take(settings.in_turn) {
        in_turn.push(revoke(site.operator(session.number), session).await);
    }
    eprintln!("{} revoked in turn", in_turn.len());
    let mut bursts = Vec::new();
    loop {
        let burst: Vec<_> = rest.by_ref().take(settings.burst).collect();
        if burst.is_empty() {
            break;
        }
        bursts.extend(join_all(burst.into_iter().map(|s| revoke(site.operator(s.number), s))).await);
    }
    let left = site.none_left().await;

    println!(
        "\n## Revoke to tunnel death: {} gateways, {} sessions\n",
        settings.gateways,
        in_turn.len() + bursts.len()
    );
    println!("Milliseconds from the operator's question: p50, p99, max.\n");
    println!(
        "| revocations | of them | recorded | tunnel dead | `--wait` returns | never ended | tunnels closed, by the gateways |"
    );
    println!("|---|---|---|---|---|---|---|");
    let names = ["one after the other".to_owned(), format!("{} at a time", settings.burst), "all".to_owned()];
    let all: Vec<Seen> = in_turn.iter().chain(&bursts).cloned().collect();
    for (name, seen) in names.iter().zip([&in_turn, &bursts, &all]) {
        row(name, seen);
    }
    let early = all.iter().filter(|s| s.early).count();
    println!(
        "\nSessions that the controllers still have: {left}. Connections that had ended before they were to: {early}."
    );
    let mut causes: BTreeMap<&str, usize> = BTreeMap::new();
    for cause in all.iter().filter_map(|s| s.cause.as_deref()) {
        *causes.entry(cause).or_default() += 1;
    }
    for (cause, count) in causes {
        println!("{count} machines were told: {cause}.");
    }
}

fn per_second(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

/// What one revocation took.
#[derive(Clone, Default)]
struct Seen {
    recorded: Duration,
    dead: Option<Duration>,
    /// Why, as the machine was told.
    cause: Option<String>,
    acknowledged: Duration,
    tunnels: u32,
    /// It had ended before anybody asked for that: counted, and left out of the times.
    early: bool,
}

/// Revokes the certificate of a session and watches.
async fn revoke(mut operator: Operator, session: Session) -> Seen {
    let asked = Instant::now();
    let request = v1::RevokeCertificatesRequest {
        which: Some(v1::revoke_certificates_request::Which::Serial(session.serial)),
        reason: v1::RevocationReason::KeyCompromise.into(),
        text: String::new(),
    };
    let answer = operator.revoke_certificates(request).await.unwrap().into_inner();
    let recorded = asked.elapsed();
    let waiting = async {
        loop {
            let request = v1::GetRevocationRequest { revocation: answer.revocation, wait_ms: 1_000 };
            let said = operator.get_revocation(request).await.unwrap().into_inner();
            if said.done || asked.elapsed() > PATIENCE {
                let tunnels = said.gateways.iter().map(|g| g.tunnels).sum();
                let behind = |g: &&v1::GatewayRevocation| g.state() != v1::RevocationState::Acknowledged;
                for gateway in said.gateways.iter().filter(behind) {
                    eprintln!("{} has not acknowledged: {:?}", gateway.gateway, gateway.state());
                }
                return (asked.elapsed(), tunnels);
            }
        }
    };
    let ending = tokio::time::timeout(PATIENCE, session.ended);
    let ((acknowledged, tunnels), ended) = tokio::join!(waiting, ending);
    let (at, cause) = ended.ok().and_then(Result::ok).unzip();
    let early = at.is_some_and(|at| at < asked);
    let dead = at.and_then(|at| at.checked_duration_since(asked));
    Seen { recorded, dead, cause, acknowledged, tunnels, early }
}

fn row(name: &str, seen: &[Seen]) {
    let ms = |times: Vec<Duration>| {
        let mut times = times;
        times.sort_unstable();
        let at = |part: f64| {
            let rank = (part * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
        };
        format!("{:.0}, {:.0}, {:.0}", at(0.5), at(0.99), at(1.0))
    };
    let recorded = ms(seen.iter().map(|s| s.recorded).collect());
    let dead = ms(seen.iter().filter_map(|s| s.dead).collect());
    let waited = ms(seen.iter().map(|s| s.acknowledged).collect());
    let never = seen.iter().filter(|s| s.dead.is_none() && !s.early).count();
    let tunnels: u32 = seen.iter().map(|s| s.tunnels).sum();
    println!("| {name} | {} | {recorded} | {dead} | {waited} | {never} | {tunnels} |", seen.len());
}
