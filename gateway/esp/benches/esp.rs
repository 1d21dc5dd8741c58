//! Sealing and opening 1400 bytes against the bare cipher (and HMAC) on the same bytes, in the same run.
//!
//! `cargo bench -p sallyport-esp`; the last table has nanoseconds, Gbit/s and the ratio, medians of alternating rounds.

#![allow(missing_docs, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group};
use sallyport_crypto::Rng;
use sallyport_crypto::cbc::{CbcDecryptor, CbcEncryptor};
use sallyport_crypto::gcm::GcmCipher;
use sallyport_crypto::hash::Hmac;
use sallyport_crypto::suite::EspSuite;
use sallyport_esp::{EspDrop, HEAD_ROOM, InboundSa, OutboundSa, Packet, SaConfig, SaLimits, TAIL_ROOM};

const PAYLOAD: usize = 1400;
/// Packets in a batch.
const BATCH: usize = 32;

const SUITES: [EspSuite; 7] = [
    EspSuite::AES128_GCM16,
    EspSuite::AES256_GCM16,
    EspSuite::AES128_CBC_SHA1,
    EspSuite::AES256_CBC_SHA1,
    EspSuite::AES128_CBC_SHA256,
    EspSuite::AES256_CBC_SHA256,
    EspSuite::TRIPLE_DES_SHA1,
];

fn config(suite: EspSuite) -> SaConfig {
    let keymat: Vec<u8> = (0..suite.keymat_len()).map(|i| i as u8 ^ 0x3c).collect();
    let mut config = SaConfig::new(0x1000_0001, suite.split_keymat(&keymat).expect("its length"));
    let none = u64::MAX;
    config.limits = SaLimits { soft_packets: none, hard_packets: none, soft_bytes: none, hard_bytes: none };
    config
}

/// One way to spend time on packets of a suite; each call does `BATCH` packets.
trait Work {
    fn run(&mut self);
}

struct Seal {
    sa: OutboundSa,
    bufs: Vec<Vec<u8>>,
}

impl Work for Seal {
    fn run(&mut self) {
        for buf in &mut self.bufs {
            black_box(self.sa.seal(black_box(buf), HEAD_ROOM..HEAD_ROOM + PAYLOAD, 17)).expect("sealed");
        }
    }
}

/// Opening spoils the packet and the window: the SA is cloned by its configuration, packets are copied back.
struct Open {
    sa: InboundSa,
    out: OutboundSa,
    originals: Vec<Vec<u8>>,
    bufs: Vec<Vec<u8>>,
}

impl Open {
    /// New packets with new sequence numbers. Not measured.
    fn refill(&mut self) {
        for (original, buf) in self.originals.iter_mut().zip(&mut self.bufs) {
            let packet = self.out.seal(original, HEAD_ROOM..HEAD_ROOM + PAYLOAD, 17).expect("sealed");
            buf.clear();
            buf.extend_from_slice(&original[packet]);
        }
    }
}

impl Work for Open {
    fn run(&mut self) {
        for buf in &mut self.bufs {
            black_box(self.sa.open(black_box(buf))).expect("opened");
        }
    }
}

enum Bare {
    GcmSeal(GcmCipher),
    GcmOpen(GcmCipher),
    CbcSeal(CbcEncryptor, Hmac, usize),
    CbcOpen(CbcDecryptor, Hmac, usize),
}

/// The primitives alone over as many bytes as ESP gives them: no header, padding, window or counters.
struct BareWork {
    bare: Bare,
    bufs: Vec<Vec<u8>>,
    n: u64,
}

impl Work for BareWork {
    fn run(&mut self) {
        for buf in &mut self.bufs {
            self.n += 1;
            let mut nonce = [0; 16];
            nonce[..8].copy_from_slice(&self.n.to_be_bytes());
            let [a, b, c, d, e, f, g, h, ..] = nonce;
            let gcm_nonce = [0, 0, 0, 0, a, b, c, d, e, f, g, h];
            let buf = black_box(&mut buf[..]);
            match &self.bare {
                Bare::GcmSeal(gcm) => {
                    let n = buf.len() - 16;
                    black_box(gcm.seal_in_place(gcm_nonce, &nonce[..8], &mut buf[..n])).expect("sealed");
                }
                Bare::GcmOpen(gcm) => {
                    // The tag is wrong, and found to be so at the end of the same work.
                    black_box(gcm.open_in_place(gcm_nonce, &nonce[..8], buf)).expect_err("no tag");
                }
                Bare::CbcSeal(cipher, hmac, block) => {
                    let (head, body) = buf.split_at_mut(8 + block);
                    cipher.encrypt(&head[8..], body).expect("blocks");
                    black_box(hmac.mac(&[buf]));
                }
                Bare::CbcOpen(cipher, hmac, block) => {
                    black_box(hmac.mac(&[buf]));
                    let (head, body) = buf.split_at_mut(8 + block);
                    cipher.decrypt(&head[8..], body).expect("blocks");
                }
            }
        }
    }
}

fn seal(suite: EspSuite) -> Seal {
    let sa = OutboundSa::new(&config(suite), &mut Rng::from_seed([1; 32]));
    Seal { sa, bufs: vec![vec![0xa7; HEAD_ROOM + PAYLOAD + TAIL_ROOM]; BATCH] }
}

fn open(suite: EspSuite) -> Open {
    let config = config(suite);
    let out = OutboundSa::new(&config, &mut Rng::from_seed([1; 32]));
    let room = vec![0xa7; HEAD_ROOM + PAYLOAD + TAIL_ROOM];
    Open { sa: InboundSa::new(&config), out, originals: vec![room; BATCH], bufs: vec![Vec::new(); BATCH] }
}

fn bare(suite: EspSuite, sealing: bool) -> BareWork {
    let keys = config(suite).keys;
    let sealed = sallyport_esp::sealed_len(suite, PAYLOAD);
    let (bare, len) = match (suite.cipher().gcm(), suite.cipher().cbc(), suite.integ()) {
        (Some(alg), ..) => {
            let gcm = GcmCipher::new(alg, keys.encr_key()).expect("key");
            (if sealing { Bare::GcmSeal(gcm) } else { Bare::GcmOpen(gcm) }, sealed - 16)
        }
        (_, Some(alg), Some(integ)) => {
            let hmac = Hmac::new(integ.hash(), keys.integ_key());
            let (key, block) = (keys.encr_key(), alg.block_len());
            let bare = if sealing {
                Bare::CbcSeal(CbcEncryptor::new(alg, key).expect("key"), hmac, block)
            } else {
                Bare::CbcOpen(CbcDecryptor::new(alg, key).expect("key"), hmac, block)
            };
            (bare, sealed - suite.icv_len())
        }
        _ => unreachable!("a suite is GCM, or CBC with integrity"),
    };
    BareWork { bare, bufs: vec![vec![0xa7; len]; BATCH], n: 0 }
}

fn esp(c: &mut Criterion) {
    for suite in SUITES {
        let mut group = c.benchmark_group(suite.to_string());
        group.throughput(Throughput::Bytes((PAYLOAD * BATCH) as u64));
        group.sample_size(20).measurement_time(std::time::Duration::from_secs(1));
        group.warm_up_time(std::time::Duration::from_millis(300));
        let mut sealing = seal(suite);
        group.bench_function("seal", |b| b.iter(|| sealing.run()));
        let mut primitives = bare(suite, true);
        group.bench_function("seal/bare", |b| b.iter(|| primitives.run()));
        let mut opening = open(suite);
        group.bench_function("open", |b| {
            b.iter_custom(|n| {
                let mut total = std::time::Duration::ZERO;
                for _ in 0..n {
                    opening.refill();
                    let start = Instant::now();
                    opening.run();
                    total += start.elapsed();
                }
                total
            });
        });
        let mut primitives = bare(suite, false);
        group.bench_function("open/bare", |b| b.iter(|| primitives.run()));
        group.finish();
    }
}

/// Nanoseconds of one run of each, alternating so that noise hits both; medians.
fn compare(rounds: usize, mut a: impl FnMut() -> f64, mut b: impl FnMut() -> f64) -> (f64, f64) {
    let (mut xs, mut ys): (Vec<f64>, Vec<f64>) = (0..rounds).map(|_| (a(), b())).unzip();
    xs.sort_by(f64::total_cmp);
    ys.sort_by(f64::total_cmp);
    (xs[rounds / 2] / BATCH as f64, ys[rounds / 2] / BATCH as f64)
}

fn timed(work: &mut impl Work) -> f64 {
    let start = Instant::now();
    work.run();
    start.elapsed().as_nanos() as f64
}

fn summary() {
    println!("\nESP against its primitives, {PAYLOAD} bytes, one core, medians of alternating rounds");
    println!("{:<34} {:>9} {:>9} {:>7} {:>8}", "", "ESP ns", "bare ns", "ratio", "Gbit/s");
    let line = |name: String, (ours, theirs): (f64, f64)| {
        let gbits = PAYLOAD as f64 * 8.0 / ours;
        println!("{name:<34} {ours:>9.0} {theirs:>9.0} {:>7.3} {gbits:>8.2}", ours / theirs);
    };
    for suite in SUITES {
        let rounds = if suite == EspSuite::TRIPLE_DES_SHA1 { 51 } else { 2001 };
        let (mut sealing, mut primitives) = (seal(suite), bare(suite, true));
        line(format!("{suite} seal"), compare(rounds, || timed(&mut sealing), || timed(&mut primitives)));
        let (mut opening, mut primitives) = (open(suite), bare(suite, false));
        let ours = || {
            opening.refill();
            timed(&mut opening)
        };
        line(format!("{suite} open"), compare(rounds, ours, || timed(&mut primitives)));
    }
    // A forgery must not cost more than the check that finds it.
    let mut sa = InboundSa::new(&config(EspSuite::AES256_GCM16));
    let mut forged = vec![0; 1400];
    forged[..8].copy_from_slice(&[0x10, 0, 0, 1, 0, 0, 0, 9]);
    let start = Instant::now();
    for _ in 0..10_000 {
        let mut batch = [Packet::sealed(black_box(&mut forged))];
        sa.open_batch(&mut batch);
        assert_eq!(batch[0].outcome(), Err(EspDrop::BadIcv));
    }
    println!("a forged packet costs {} ns", start.elapsed().as_nanos() / 10_000);
    println!("memory: InboundSa {} bytes, OutboundSa {} bytes", size_of::<InboundSa>(), size_of::<OutboundSa>());
}

criterion_group!(benches, esp);

fn main() {
    benches();
    summary();
}
