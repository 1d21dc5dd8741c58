//! Machines that enroll: EST over HTTPS at all three controllers, each with a token and a key of its own, which were made before.
//!
//! Beside it, in the same run: as many puts in etcd, and what signing alone takes, on every processor.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding as _};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sallyport_ca::{Certificate, KeyAlgorithm, KeyPair};
use sallyport_proto::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::controllers::{ENDPOINT_NAME, Group};
use crate::etcd::Etcd;
use crate::load::{Latencies, closed, median, micros_each};
use crate::{Settings, WARM_UP};

/// Requests of a connection before the client comes from another address, as the next machine would. The endpoint grants an address 60
/// at once.
const OF_A_CONNECTION: u32 = 50;
/// Keys of a kind; each certificate has a name and a token of its own, and one of these.
const KEYS: usize = 64;
/// What an authority signs, bytes: a usual certificate's.
const SIGNED: usize = 600;

/// What one machine sends.
struct Machine {
    body: Arc<str>,
    token: String,
}

/// The table of both kinds of key.
pub(crate) fn measure(runtime: &Runtime, settings: &Settings, three: &Group, etcd: Option<&Etcd>) {
    println!("\n## Certificates per second, durable in a group of three\n");
    println!(
        "A certificate is a request over HTTPS (EST) with a token, in a connection that brings {OF_A_CONNECTION}, or one each; an entry of \
         intent, a signature, an entry of record.\n"
    );
    println!(
        "| key | in a connection | clients | certificates/s | p50, p99 ms | etcd, puts/s | ratio | bare signing/s | ratio | CPU µs each, etcd |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    runtime.block_on(three.add_issuer(v1::KeyAlgorithm::Rsa2048));
    for (kind, wire) in
        [(KeyAlgorithm::EcdsaP256, v1::KeyAlgorithm::EcdsaP256), (KeyAlgorithm::Rsa2048, v1::KeyAlgorithm::Rsa2048)]
    {
        if std::env::var("SALLYPORT_BENCH_KEY").is_ok_and(|only| only != kind.name()) {
            continue;
        }
        let bare = signatures(kind, settings.each);
        let bodies = requests(kind);
        for each in [OF_A_CONNECTION, 1] {
            for &clients in &settings.levels {
                let count = (clients * 30).clamp(60, 3_000) / if wire == v1::KeyAlgorithm::Rsa2048 { 2 } else { 1 };
                let (mut rates, mut puts, mut seen) = (Vec::new(), Vec::new(), Latencies::default());
                let (mut cpu, mut etcd_cpu) = (Vec::new(), Vec::new());
                for _ in 0..settings.rounds {
                    let machines = runtime.block_on(machines(three, &bodies, count));
                    let before = three.cpu();
                    let (rate, latencies) = runtime.block_on(drain(three, machines, clients, each));
                    cpu.push(micros_each(three.cpu() - before, count as f64));
                    rates.push(rate);
                    seen.merge(latencies);
                    if let Some(etcd) = etcd {
                        let before = etcd.cpu();
                        let rate = runtime.block_on(closed(WARM_UP, settings.each, etcd.clients(clients))).0;
                        let count = rate * (WARM_UP + settings.each).as_secs_f64();
                        etcd_cpu.push(micros_each(etcd.cpu() - before, count));
                        puts.push(rate);
                    }
                }
                let (rate, puts) = (median(&mut rates), median(&mut puts));
                let (cpu, etcd_cpu) = (median(&mut cpu), median(&mut etcd_cpu));
                let (p50, p99) = (seen.ms(0.5), seen.ms(0.99));
                let (kind, to_etcd, to_bare) = (kind.name(), rate / puts, rate / bare);
                println!(
                    "| {kind} | {each} | {clients} | {rate:.0} | {p50:.1}, {p99:.1} | {puts:.0} | {to_etcd:.2} | {bare:.0} | {to_bare:.3} | {cpu:.0}, {etcd_cpu:.0} |"
                );
            }
        }
    }
}

/// Signatures per second of all processors together, and nothing else.
fn signatures(kind: KeyAlgorithm, each: Duration) -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let rng = sallyport_ca::SystemRandom::new();
    let key = KeyPair::generate(kind, &rng).unwrap();
    let message = [7_u8; SIGNED];
    let one = || {
        let rng = SystemRandom::new();
        let (begin, mut done) = (Instant::now(), 0_u64);
        let mut run = |sign: &mut dyn FnMut()| {
            while begin.elapsed() < each {
                sign();
                done += 1;
            }
        };
        if kind.is_rsa() {
            let pair = RsaKeyPair::from_pkcs8(key.pkcs8_der()).unwrap();
            let mut signature = vec![0; pair.public().modulus_len()];
            run(&mut || pair.sign(&RSA_PKCS1_SHA256, &rng, &message, &mut signature).unwrap());
        } else {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.pkcs8_der(), &rng).unwrap();
            run(&mut || {
                let _ = pair.sign(&rng, &message).unwrap();
            });
        }
        done as f64 / begin.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Certification requests, as they stand in a body.
fn requests(kind: KeyAlgorithm) -> Vec<Arc<str>> {
    let rng = sallyport_ca::SystemRandom::new();
    let make = |_| {
        let csr = KeyPair::generate(kind, &rng).unwrap().request("machine", None, &rng).unwrap();
        Arc::from(Base64::encode_string(&csr))
    };
    (0..KEYS).map(make).collect()
}

/// So many machines with a token each.
async fn machines(group: &Group, bodies: &[Arc<str>], count: usize) -> Vec<Machine> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut machines = Vec::with_capacity(count);
    let mut left = count;
    while left > 0 {
        let batch = left.min(128);
        let making: Vec<_> = (0..batch)
            .map(|_| {
                let name = format!("machine{}.example.com", NEXT.fetch_add(1, Ordering::Relaxed));
                tokio::spawn(group.token(name))
            })
            .collect();
        for token in making {
            let body = bodies[machines.len() % bodies.len()].clone();
            machines.push(Machine { body, token: token.await.unwrap() });
        }
        left -= batch;
    }
    machines
}

/// Has all of them served by so many clients; certificates per second.
async fn drain(group: &Group, machines: Vec<Machine>, clients: usize, each: u32) -> (f64, Latencies) {
    let count = machines.len();
    let queue = Arc::new(Mutex::new(VecDeque::from(machines)));
    let config = trusting(&group.root());
    let begin = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|number| {
            let (queue, config, address) = (queue.clone(), config.clone(), group.endpoint(number));
            tokio::spawn(async move {
                let (mut seen, mut connection) = (Latencies::default(), None);
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some(machine) = next else { return seen };
                    let asked = Instant::now();
                    while !enroll(&mut connection, &config, address, each, &machine).await {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    seen.note(asked.elapsed());
                }
            })
        })
        .collect();
    let mut all = Latencies::default();
    for task in tasks {
        all.merge(task.await.unwrap());
    }
    (count as f64 / begin.elapsed().as_secs_f64(), all)
}

fn trusting(root: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root.to_vec())).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    // A machine that enrolls was never here before.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// A connection, and how many requests it has brought.
type Connection = Option<(TlsStream<TcpStream>, u32)>;

/// Whether there is a certificate; otherwise the same is to be asked again.
async fn enroll(
    connection: &mut Connection,
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    each: u32,
    machine: &Machine,
) -> bool {
    if connection.as_ref().is_none_or(|(_, brought)| *brought >= each) {
        *connection = Some((connect(config, address).await, 0));
    }
    let Some((stream, brought)) = connection.as_mut() else { return false };
    *brought += 1;
    match ask(stream, machine).await {
        Ok((200, body)) => {
            let certificates = sallyport_ca::est::parse_certificates(&body).unwrap();
            assert!(certificates.iter().any(|der| Certificate::from_der(der).is_ok()));
            true
        }
        Ok((429 | 503, _)) => false,
        Ok((status, body)) => panic!("{status}: {}", String::from_utf8_lossy(&body)),
        Err(_) => {
            *connection = None;
            false
        }
    }
}

/// From an address that was not used before.
async fn connect(config: &Arc<ClientConfig>, address: SocketAddr) -> TlsStream<TcpStream> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % (1 << 22);
    let from = IpAddr::V4(Ipv4Addr::from_bits(0x7f40_0001 + number));
    let mut tries = 0;
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        let name = ServerName::try_from(ENDPOINT_NAME).unwrap();
        let connecting =
            async { TlsConnector::from(config.clone()).connect(name, socket.connect(address).await?).await };
        match connecting.await {
            Ok(stream) => {
                let _ = stream.get_ref().0.set_nodelay(true);
                return stream;
            }
            // A new controller has no certificate for the first moments.
            Err(e) => assert!(tries < 500, "the endpoint at {address}: {e}"),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One request of HTTP/1.1; status and body.
async fn ask(stream: &mut TlsStream<TcpStream>, machine: &Machine) -> std::io::Result<(u16, Vec<u8>)> {
    let Machine { body, token } = machine;
    let password = Base64::encode_string(format!("token:{token}").as_bytes());
    let request = format!(
        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: {ENDPOINT_NAME}\r\nContent-Type: application/pkcs10\r\n\
         Authorization: Basic {password}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(4096);
    let (mut head, mut whole) = (0, usize::MAX);
    while answer.len() < whole {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if head == 0
            && let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n")
        {
            head = end + 4;
            whole = head + length(&answer[..head]);
        }
    }
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Ok((status.expect("a status"), answer.split_off(head)))
}

/// Content-Length.
fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.map_or(0, |v| v.trim().parse().expect("a length"))
}
