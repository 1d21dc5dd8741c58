//! Sealing and opening 1400 bytes against the primitives alone, at the same place of the same buffers, in one run.
//!
//! `cargo bench -p sallyport-esp` prints criterion's figures and then one table (`-- table`: the table alone) of
//! nanoseconds, ratio and Gbit/s: medians of alternating rounds, so that a noisy neighbour hits both sides. The
//! primitives are taken straight from `ring` and RustCrypto, with keys and HMAC states made ready, as an SA has them.
//! The goal is a ratio below 1.15.

#![allow(missing_docs, clippy::print_stdout, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use cbc::cipher::array::Array;
use cbc::cipher::consts::{U8, U16};
use cbc::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, InnerIvInit, KeyInit,
};
use criterion::{Criterion, Throughput, criterion_group};
use hmac::Mac;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sallyport_crypto::Rng;
use sallyport_crypto::suite::{EspCipher, EspInteg, EspSuite};
use sallyport_esp::{EspDrop, HEAD_ROOM, InboundSa, OutboundSa, Packet, SaConfig, SaLimits, TAIL_ROOM, sealed_len};

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

/// One way to spend time on `BATCH` packets.
trait Work {
    /// Makes the packets ready; not measured.
    fn prepare(&mut self) {}
    fn run(&mut self);
}

fn config(suite: EspSuite) -> SaConfig {
    let keymat: Vec<u8> = (0..suite.keymat_len()).map(|i| i as u8 ^ 0x3c).collect();
    let mut config = SaConfig::new(0x1000_0001, suite.split_keymat(&keymat).expect("its length"));
    let none = u64::MAX;
    config.limits = SaLimits { soft_packets: none, hard_packets: none, soft_bytes: none, hard_bytes: none };
    config
}

fn buffers() -> Vec<Vec<u8>> {
    vec![vec![0xa7; HEAD_ROOM + PAYLOAD + TAIL_ROOM]; BATCH]
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

struct Open {
    sa: InboundSa,
    out: OutboundSa,
    bufs: Vec<Vec<u8>>,
    packets: Vec<Vec<u8>>,
}

impl Work for Open {
    fn prepare(&mut self) {
        for (buf, packet) in self.bufs.iter_mut().zip(&mut self.packets) {
            let sealed = self.out.seal(buf, HEAD_ROOM..HEAD_ROOM + PAYLOAD, 17).expect("sealed");
            packet.clear();
            packet.extend_from_slice(&buf[sealed]);
        }
    }

    fn run(&mut self) {
        for packet in &mut self.packets {
            black_box(self.sa.open(black_box(packet))).expect("opened");
        }
    }
}

/// GCM alone: as many bytes of plaintext and associated data as ESP has, where ESP has them.
struct BareGcm {
    key: LessSafeKey,
    sealing: bool,
    body: std::ops::Range<usize>,
    n: u64,
    bufs: Vec<Vec<u8>>,
}

impl BareGcm {
    fn nonce(n: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&n.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self) {
        for buf in &mut self.bufs {
            self.n += 1;
            let (covered, icv) = black_box(buf).split_at_mut(self.body.end);
            let (clear, body) = covered.split_at_mut(self.body.start);
            let tag = self.key.seal_in_place_separate_tag(Self::nonce(self.n), Aad::from(&clear[..8]), body);
            icv[..16].copy_from_slice(tag.expect("sealed").as_ref());
        }
    }
}

impl Work for BareGcm {
    fn prepare(&mut self) {
        if !self.sealing {
            self.seal();
        }
    }

    fn run(&mut self) {
        if self.sealing {
            return self.seal();
        }
        let first = self.n - BATCH as u64;
        for (buf, n) in self.bufs.iter_mut().zip(first + 1..) {
            let (clear, rest) = black_box(buf).split_at_mut(self.body.start);
            let sealed = &mut rest[..self.body.len() + 16];
            black_box(self.key.open_in_place(Self::nonce(n), Aad::from(&clear[..8]), sealed)).expect("opened");
        }
    }
}

/// CBC and HMAC alone.
struct BareCbc<C, M> {
    cipher: C,
    mac: M,
    sealing: bool,
    /// From the IV to the end of the ciphertext.
    covered: std::ops::Range<usize>,
    bufs: Vec<Vec<u8>>,
}

impl<C, M, N> Work for BareCbc<C, M>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = N>,
    M: Mac + Clone,
    N: cbc::cipher::array::ArraySize,
{
    fn run(&mut self) {
        for buf in &mut self.bufs {
            let covered = &mut black_box(buf)[self.covered.clone()];
            if self.sealing {
                let (clear, body) = covered.split_at_mut(8 + N::USIZE);
                let iv: &Array<u8, N> = clear[8..].try_into().expect("IV");
                let (blocks, _) = Array::slice_as_chunks_mut(body);
                cbc::Encryptor::inner_iv_init(&self.cipher, iv).encrypt_blocks(blocks);
                black_box(self.mac.clone().chain_update(&covered).finalize());
            } else {
                black_box(self.mac.clone().chain_update(&covered).finalize());
                let (clear, body) = covered.split_at_mut(8 + N::USIZE);
                let iv: &Array<u8, N> = clear[8..].try_into().expect("IV");
                let (blocks, _) = Array::slice_as_chunks_mut(body);
                cbc::Decryptor::inner_iv_init(&self.cipher, iv).decrypt_blocks(blocks);
            }
        }
    }
}

fn bare(suite: EspSuite, sealing: bool) -> Box<dyn Work> {
    fn gcm(suite: EspSuite, sealing: bool, alg: &'static ring::aead::Algorithm) -> Box<dyn Work> {
        let key = LessSafeKey::new(UnboundKey::new(alg, config(suite).keys.encr_key()).expect("key"));
        // A sealed packet ends where its buffer does not begin: an opened one lies at the start of its own.
        let start = if sealing { HEAD_ROOM } else { 16 };
        let body = start..start + sealed_len(suite, PAYLOAD) - 8 - 8 - 16;
        Box::new(BareGcm { key, sealing, body, n: 0, bufs: buffers() })
    }
    fn cbc<C, M, N>(suite: EspSuite, sealing: bool) -> Box<dyn Work>
    where
        C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = N> + KeyInit + 'static,
        M: Mac + KeyInit + Clone + 'static,
        N: cbc::cipher::array::ArraySize,
    {
        let keys = config(suite).keys;
        let start = if sealing { HEAD_ROOM - 8 - N::USIZE } else { 0 };
        Box::new(BareCbc {
            cipher: C::new_from_slice(keys.encr_key()).expect("key"),
            mac: <M as KeyInit>::new_from_slice(keys.integ_key()).expect("key"),
            sealing,
            covered: start..start + sealed_len(suite, PAYLOAD) - suite.icv_len(),
            bufs: buffers(),
        })
    }
    type Sha1 = hmac::Hmac<sha1::Sha1>;
    type Sha256 = hmac::Hmac<sha2::Sha256>;
    match (suite.cipher(), suite.integ()) {
        (EspCipher::Aes128Gcm16, _) => gcm(suite, sealing, &AES_128_GCM),
        (EspCipher::Aes256Gcm16, _) => gcm(suite, sealing, &AES_256_GCM),
        (EspCipher::Aes128Cbc, Some(EspInteg::HmacSha1_96)) => cbc::<aes::Aes128, Sha1, U16>(suite, sealing),
        (EspCipher::Aes256Cbc, Some(EspInteg::HmacSha1_96)) => cbc::<aes::Aes256, Sha1, U16>(suite, sealing),
        (EspCipher::Aes128Cbc, _) => cbc::<aes::Aes128, Sha256, U16>(suite, sealing),
        (EspCipher::Aes256Cbc, _) => cbc::<aes::Aes256, Sha256, U16>(suite, sealing),
        (EspCipher::TripleDesCbc, _) => cbc::<des::TdesEde3, Sha1, U8>(suite, sealing),
        _ => unreachable!("not in SUITES"),
    }
}

fn ours(suite: EspSuite, sealing: bool) -> Box<dyn Work> {
    let config = config(suite);
    let out = OutboundSa::new(&config, &mut Rng::from_seed([1; 32]));
    if sealing {
        return Box::new(Seal { sa: out, bufs: buffers() });
    }
    Box::new(Open { sa: InboundSa::new(&config), out, bufs: buffers(), packets: vec![Vec::new(); BATCH] })
}

/// Time of one run.
fn timed(work: &mut dyn Work) -> Duration {
    work.prepare();
    let start = Instant::now();
    work.run();
    start.elapsed()
}

fn esp(c: &mut Criterion) {
    for suite in SUITES {
        let mut group = c.benchmark_group(suite.to_string());
        group.throughput(Throughput::Bytes((PAYLOAD * BATCH) as u64));
        group.sample_size(10).measurement_time(Duration::from_millis(500)).warm_up_time(Duration::from_millis(100));
        for (name, sealing) in [("seal", true), ("open", false)] {
            for (name, mut work) in
                [(name.into(), ours(suite, sealing)), (format!("{name}/bare"), bare(suite, sealing))]
            {
                group.bench_function(name, |b| b.iter_custom(|n| (0..n).map(|_| timed(&mut *work)).sum()));
            }
        }
        group.finish();
    }
}

/// Medians of nanoseconds per packet, of rounds that alternate.
fn compare(rounds: usize, ours: &mut dyn Work, bare: &mut dyn Work) -> (f64, f64) {
    let (mut xs, mut ys): (Vec<_>, Vec<_>) = (0..rounds).map(|_| (timed(ours), timed(bare))).unzip();
    xs.sort_unstable();
    ys.sort_unstable();
    let per_packet = |d: Duration| d.as_nanos() as f64 / BATCH as f64;
    (per_packet(xs[rounds / 2]), per_packet(ys[rounds / 2]))
}

/// A forgery must not cost more than the check that finds it.
struct Forged {
    sa: InboundSa,
    bufs: Vec<Vec<u8>>,
}

impl Work for Forged {
    fn run(&mut self) {
        for buf in &mut self.bufs {
            buf[..8].copy_from_slice(&[0x10, 0, 0, 1, 0, 0, 0, 9]);
            let mut batch = [Packet::sealed(black_box(&mut buf[..]))];
            self.sa.open_batch(&mut batch);
            assert_eq!(batch[0].outcome(), Err(EspDrop::BadIcv));
        }
    }
}

fn summary() {
    println!("\nESP against its primitives, {PAYLOAD} bytes of payload, one core");
    println!("{:<34} {:>9} {:>9} {:>7} {:>8}", "", "ESP ns", "bare ns", "ratio", "Gbit/s");
    for suite in SUITES {
        let rounds = if suite == EspSuite::TRIPLE_DES_SHA1 { 31 } else { 2001 };
        for (name, sealing) in [("seal", true), ("open", false)] {
            let (ours, bare) = compare(rounds, &mut *ours(suite, sealing), &mut *bare(suite, sealing));
            println!(
                "{:<34} {ours:>9.0} {bare:>9.0} {:>7.3} {:>8.2}",
                format!("{suite} {name}"),
                ours / bare,
                PAYLOAD as f64 * 8.0 / ours
            );
        }
        if suite.cipher().is_aead() {
            let mut forged = Forged { sa: InboundSa::new(&config(suite)), bufs: buffers() };
            let (ours, bare) = compare(rounds, &mut forged, &mut *bare(suite, false));
            println!("{:<34} {ours:>9.0} {bare:>9.0} {:>7.3}", format!("{suite} refuse a forgery"), ours / bare);
        }
    }
    println!("memory: InboundSa {} bytes, OutboundSa {} bytes", size_of::<InboundSa>(), size_of::<OutboundSa>());
}

criterion_group!(benches, esp);

fn main() {
    benches();
    summary();
}
