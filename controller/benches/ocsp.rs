//! Answers of OCSP a second over plain HTTP on loopback: `cargo bench -p sallyport-controller --bench ocsp`.
//!
//! A controller with one issued certificate is asked by clients of many loopback addresses (each has its limit of requests), with a
//! nonce, which costs a signature, and without, which costs one for all. In the same run: bare ring signatures on one core, and
//! `openssl ocsp` as a responder with a key and a certificate of the same kind, asked the same by the same clients.
//!
//! `SALLYPORT_BENCH_SECONDS` (default 5), `SALLYPORT_BENCH_CLIENTS` (default 8).

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustix::net::{AddressFamily, SocketType};
use sallyport_ca::{KeyAlgorithm, Profile, pem};
use sallyport_controller::{Config, Controller, IssueRequest};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Requests of one loopback address: below what the endpoint lets one make at once.
const OF_ADDRESS: u32 = 50;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn openssl(folder: &Path, line: &str) {
    let out = Command::new("openssl").args(line.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A connection from another address of the loopback each time.
fn connect(to: SocketAddr, next: &AtomicU32) -> std::net::TcpStream {
    let SocketAddr::V4(to) = to else { unreachable!() };
    let n = next.fetch_add(1, Ordering::Relaxed) % 4_000_000 + 2;
    let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + n);
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((from, 0))).unwrap();
    rustix::net::connect(&socket, &SocketAddr::V4(to)).unwrap();
    let stream = std::net::TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Reads one answer; gives its body.
fn answer(stream: &mut std::net::TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut part = [0; 8192];
    buffer.clear();
    loop {
        let head = buffer.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(end) = head {
            let text = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let length = text.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok())?;
            if buffer.len() >= end + 4 + length {
                return text.starts_with("http/1.").then(|| buffer[end + 4..end + 4 + length].to_vec());
            }
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return None,
            Ok(n) => buffer.extend_from_slice(&part[..n]),
        }
    }
}

/// Answers a second. `keeps` says whether connections stay open.
fn ask(to: SocketAddr, request: &Arc<Vec<u8>>, keeps: bool) -> f64 {
    let (seconds, clients) = (number("SALLYPORT_BENCH_SECONDS", 5), number("SALLYPORT_BENCH_CLIENTS", 8));
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let each = (0..clients).map(|_| {
        let (stop, count, request) = (stop.clone(), count.clone(), request.clone());
        std::thread::spawn(move || {
            let head = format!(
                "POST /ocsp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/ocsp-request\r\nContent-Length: {}\r\n\r\n",
                request.len()
            );
            let message = [head.as_bytes(), &request].concat();
            let mut buffer = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let mut stream = connect(to, &NEXT);
                for _ in 0..if keeps { OF_ADDRESS } else { 1 } {
                    stream.write_all(&message).unwrap();
                    let body = answer(&mut stream, &mut buffer).expect("an answer");
                    // OCSPResponse { successful, .. }: not an error, which is short.
                    assert!(body.len() > 100, "{body:?}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    });
    let each: Vec<_> = each.collect();
    std::thread::sleep(Duration::from_secs(seconds));
    stop.store(true, Ordering::Relaxed);
    let (n, took) = (count.load(Ordering::Relaxed), begun.elapsed());
    each.into_iter().for_each(|client| client.join().unwrap());
    n as f64 / took.as_secs_f64()
}

fn bare() -> f64 {
    let rng = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &rng).unwrap();
    let (begun, mut n) = (Instant::now(), 0_u64);
    while begun.elapsed() < Duration::from_secs(2) {
        for _ in 0..100 {
            key.sign(&rng, &[7; 300]).unwrap();
        }
        n += 100;
    }
    n as f64 / begun.elapsed().as_secs_f64()
}

/// `openssl ocsp` as a responder, with an authority of its own.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // Its workers go with it: they do not end when it is killed alone.
        let group = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

impl Peer {
    /// Begins to listen somewhere; `None` where it cannot.
    fn listening(folder: &Path) -> Option<(Self, SocketAddr)> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let line =
            format!("ocsp -index index -CA peer.pem -rsigner peer.pem -rkey peer.key -port {port} -multi 2 -nmin 60");
        let mut child = Command::new("openssl");
        child.args(line.split_whitespace()).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
        let (mut peer, to) =
            (Self(child.process_group(0).spawn().unwrap()), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let begun = Instant::now();
        while std::net::TcpStream::connect(to).is_err() {
            if peer.0.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "openssl ocsp does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some((peer, to))
    }
}

fn peer(folder: &Path) -> (Peer, SocketAddr) {
    openssl(
        folder,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout peer.key -out peer.pem -subj /CN=peer -days 2",
    );
    std::fs::write(folder.join("index"), "V\t330101000000Z\t\t1001\tunknown\t/CN=x\n").unwrap();
    // It wants the port at all addresses and ends without a word where some closed connection of the loopback still has it: there are
    // thousands of them after what was measured before.
    (0..50).find_map(|_| Peer::listening(folder)).expect("openssl ocsp finds no port")
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.listen.set_port(0);
    config.metrics_listen = None;
    config.enrollment.http_listen = Some(([127, 0, 0, 1], 0).into());
    let state = dir.path().join("state");
    let running = runtime.block_on(Controller::start(config, &state)).unwrap();
    let request = IssueRequest {
        profile: Profile::Machine,
        name: "laptop.example.com".into(),
        sans: Vec::new(),
        key: KeyAlgorithm::EcdsaP256,
        days: 0,
    };
    let issued = runtime.block_on(running.issue(request)).unwrap();
    let to = running.enrollment_addresses()[1].unwrap();
    let folder = dir.path();
    let write = |name: &str, der: &[u8]| {
        std::fs::write(folder.join(name), pem::encode("CERTIFICATE", der).as_bytes()).unwrap();
    };
    write("leaf.pem", &issued.certificate);
    write("issuing.pem", &issued.chain[0]);
    let read = |name: &str| Arc::new(std::fs::read(folder.join(name)).unwrap());
    openssl(folder, "ocsp -issuer issuing.pem -cert leaf.pem -no_nonce -reqout plain");
    openssl(folder, "ocsp -issuer issuing.pem -cert leaf.pem -reqout nonce");

    let bare = bare();
    let without = ask(to, &read("plain"), true);
    let with = ask(to, &read("nonce"), true);
    // The peer ends each connection.
    let (without_one, with_one) = (ask(to, &read("plain"), false), ask(to, &read("nonce"), false));
    let (_peer, peer_to) = peer(folder);
    openssl(folder, "ocsp -issuer peer.pem -serial 0x1001 -reqout theirs");
    let theirs = ask(peer_to, &read("theirs"), false);
    println!("bare P-256 signatures of ring, one core      {bare:>9.0} /s");
    println!("kept answer, connections stay open           {without:>9.0} /s");
    println!("signed answer (nonce), connections stay open {with:>9.0} /s   {:.2} of bare", with / bare);
    println!(
        "kept answer, a connection each               {without_one:>9.0} /s   {:.1} times openssl",
        without_one / theirs
    );
    println!(
        "signed answer (nonce), a connection each     {with_one:>9.0} /s   {:.1} times openssl",
        with_one / theirs
    );
    println!("openssl ocsp -multi 2 (signed), same clients {theirs:>9.0} /s");
    runtime.block_on(running.shutdown());
}
