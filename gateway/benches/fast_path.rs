//! Packets through the whole fast path on one core, against the bare ESP work on the same packets in the same run.
//!
//! `cargo bench -p sallyport-gateway --bench fast_path` prints criterion's figures for each step and, first, a table in
//! which each round measures the bare work and the fast path one after the other, so that what slows the machine slows
//! both: medians, nanoseconds a packet, and the ratio.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use sallyport_base::PeerId;
use sallyport_crypto::Rng;
use sallyport_crypto::suite::EspSuite;
use sallyport_esp::{HEAD_ROOM, InboundSa, OutboundSa, Packet, SaConfig, TAIL_ROOM, sealed_len};
use sallyport_gateway::data::DataConfig;
use sallyport_gateway::data::buffer::Slice;
use sallyport_gateway::data::coalesce::{Coalescer, InsideDevice};
use sallyport_gateway::data::fast::Fast;
use sallyport_gateway::data::packet::{PROTO_TCP, fold, len16, pseudo_sum, put_u16, put_u32, sum, write_ipv4_checksum};
use sallyport_gateway::data::receive::ReceiveBatch;
use sallyport_gateway::data::segment::{F_NEEDS_CSUM, GSO_TCPV4, VnetHeader};
use sallyport_gateway::data::transmit::{Group, OutsideDevice, TransmitBatch};
use sallyport_gateway::link::{FromData, InstallSa, InstallSession, OuterPath, SessionNetwork, ToData};
use sallyport_gateway::net::Role;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const SPI_IN: u32 = 0x1000_0001;
const SPI_OUT: u32 = 0x2000_0001;
/// Length of the inner packets: TCP over IPv4 at the MTU of a session.
const INNER: usize = 1400;
/// Packets of one buffer of a receive call, and buffers of one call: what a busy client gives.
const PER_BUFFER: usize = 44;
const BUFFERS: usize = 8;
const PACKETS: usize = PER_BUFFER * BUFFERS;
/// UDP, L2TP and PPP headers before each inner packet.
const HEADERS: usize = 8 + 6 + 4;

const SUITES: [(&str, EspSuite); 4] = [
    ("aes128-gcm", EspSuite::AES128_GCM16),
    ("aes256-gcm", EspSuite::AES256_GCM16),
    ("aes256-cbc-sha1", EspSuite::AES256_CBC_SHA1),
    ("aes256-cbc-sha256", EspSuite::AES256_CBC_SHA256),
];

/// Devices that take everything and keep nothing.
struct Nowhere;

impl InsideDevice for Nowhere {
    fn offload(&self) -> bool {
        true
    }
    fn uso(&self) -> bool {
        true
    }
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        black_box(parts);
        Ok(())
    }
}

impl OutsideDevice for Nowhere {
    fn send(&mut self, _: &Group, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }
}

fn config(spi: u32, suite: EspSuite) -> SaConfig {
    let mut keymat = vec![0; suite.keymat_len()];
    Rng::from_seed([spi as u8; 32]).fill(&mut keymat);
    SaConfig::new(spi, suite.split_keymat(&keymat).unwrap())
}

fn tcp(source: Ipv4Addr, destination: Ipv4Addr, seq: u32, len: usize) -> Vec<u8> {
    let mut p = vec![0; len];
    p[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, PROTO_TCP]);
    put_u16(&mut p, 2, len16(len));
    p[12..16].copy_from_slice(&source.octets());
    p[16..20].copy_from_slice(&destination.octets());
    write_ipv4_checksum(&mut p[..20]);
    put_u16(&mut p, 20, 443);
    put_u16(&mut p, 22, 5000);
    put_u32(&mut p, 24, seq);
    p[32] = 0x50;
    p[33] = 0x10;
    let checksum = !fold(sum(&p[20..], pseudo_sum(source, destination, PROTO_TCP, len - 20)));
    put_u16(&mut p, 36, checksum);
    p
}

/// A gateway's core with one open session, and the client that feeds it.
struct Bench {
    suite: EspSuite,
    fast: Fast,
    receive: ReceiveBatch,
    transmit: TransmitBatch,
    coalescer: Coalescer,
    inner: Vec<Slice>,
    control: Vec<FromData>,
    client: OutboundSa,
    bare_inbound: InboundSa,
    bare_outbound: OutboundSa,
    path: OuterPath,
    seq: u32,
    sealed: Vec<Vec<u8>>,
    copies: Vec<Vec<u8>>,
    frame: Vec<u8>,
    plain: Vec<Vec<u8>>,
}

impl Bench {
    fn new(suite: EspSuite) -> Self {
        let path = OuterPath {
            local: "198.51.100.1:4500".parse().unwrap(),
            remote: "203.0.113.5:4500".parse().unwrap(),
            encap: true,
        };
        let mut rng = Rng::from_seed([1; 32]);
        let mut fast = Fast::new(&DataConfig::default());
        let (mut transmit, mut control) = (TransmitBatch::default(), Vec::new());
        let sa = InstallSa {
            peer: PeerId(1),
            spi_in: SPI_IN,
            spi_out: SPI_OUT,
            inbound: InboundSa::new(&config(SPI_IN, suite)),
            outbound: OutboundSa::new(&config(SPI_OUT, suite), &mut rng),
            path,
            activate: true,
        };
        let session = InstallSession {
            peer: PeerId(1),
            peer_port: 1701,
            local_tunnel: 11,
            local_session: 12,
            peer_tunnel: 21,
            peer_session: 22,
            sequencing: false,
            network: SessionNetwork {
                opened: true,
                client: CLIENT,
                router: Ipv4Addr::new(10, 9, 0, 1),
                mtu: 1400,
                ..SessionNetwork::closed()
            },
        };
        fast.apply(ToData::InstallSa(Box::new(sa)), &mut transmit, &mut Nowhere, &mut control);
        fast.apply(ToData::InstallSession(Box::new(session)), &mut transmit, &mut Nowhere, &mut control);

        // 46 segments of a TCP superpacket to the client.
        let mut packet = tcp(SERVER, CLIENT, 0, 40 + (INNER - 40) * 46);
        packet.truncate(40 + (INNER - 40) * 46);
        let vnet = VnetHeader {
            flags: F_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            gso_size: len16(INNER - 40),
            ..VnetHeader::default()
        };
        let frame = [&vnet.emit()[..], &packet].concat();
        let plain = (0..46).map(|_| vec![7; HEAD_ROOM + HEADERS + INNER + TAIL_ROOM]).collect();
        Self {
            suite,
            fast,
            receive: ReceiveBatch::default(),
            transmit,
            coalescer: Coalescer::default(),
            inner: Vec::new(),
            control,
            client: OutboundSa::new(&config(SPI_IN, suite), &mut rng),
            bare_inbound: InboundSa::new(&config(SPI_IN, suite)),
            bare_outbound: OutboundSa::new(&config(SPI_OUT, suite), &mut rng),
            path,
            seq: 0,
            sealed: Vec::new(),
            copies: Vec::new(),
            frame,
            plain,
        }
    }

    /// New packets of the client in the receive buffers, and a copy of them for the bare work. Not timed.
    fn prepare_inbound(&mut self) {
        self.sealed.clear();
        for _ in 0..PACKETS {
            let mut buf = vec![0; HEAD_ROOM + HEADERS];
            put_u16(&mut buf, HEAD_ROOM, 1701);
            put_u16(&mut buf, HEAD_ROOM + 2, 1701);
            put_u16(&mut buf, HEAD_ROOM + 4, len16(HEADERS + INNER));
            buf[HEAD_ROOM + 8..].copy_from_slice(&[0, 2, 0, 11, 0, 12, 0xff, 0x03, 0x00, 0x21]);
            buf.extend(tcp(CLIENT, SERVER, self.seq, INNER));
            self.seq = self.seq.wrapping_add(len16(INNER - 40).into());
            buf.extend([0; TAIL_ROOM]);
            let at = self.client.seal(&mut buf, HEAD_ROOM..HEAD_ROOM + HEADERS + INNER, 17).unwrap();
            self.sealed.push(buf[at].to_vec());
        }
        for packets in self.sealed.chunks(PER_BUFFER) {
            let packets = packets.iter().map(|p| &p[..]);
            assert!(self.receive.push(Role::NatT, self.path.local, self.path.remote, packets));
        }
        self.copies = self.sealed.chunks(PER_BUFFER).map(<[_]>::concat).collect();
    }

    fn bare_open(&mut self) -> Duration {
        let stride = sealed_len(self.suite, HEADERS + INNER);
        let start = Instant::now();
        for buffer in &mut self.copies {
            for batch in buffer.chunks_mut(stride * 32) {
                let mut packets: [Packet<'_>; 32] = std::array::from_fn(|_| Packet::sealed(&mut []));
                let mut n = 0;
                for (to, from) in packets.iter_mut().zip(batch.chunks_mut(stride)) {
                    *to = Packet::sealed(from);
                    n += 1;
                }
                assert_eq!(self.bare_inbound.open_batch(&mut packets[..n]), n);
            }
        }
        start.elapsed()
    }

    fn inbound(&mut self) -> Duration {
        self.inner.clear();
        let start = Instant::now();
        self.fast.inbound(&mut self.receive, &mut self.inner, &mut self.control);
        let elapsed = start.elapsed();
        assert_eq!((self.inner.len(), self.control.len()), (PACKETS, 0));
        elapsed
    }

    fn coalesce(&mut self) -> Duration {
        let start = Instant::now();
        self.coalescer.write(&self.inner, &self.receive.buffers, &mut Nowhere, &mut self.fast.counters);
        start.elapsed()
    }

    fn bare_seal(&mut self) -> Duration {
        let start = Instant::now();
        for plain in self.plain.chunks_mut(32) {
            let n = plain.len();
            let mut packets: [Packet<'_>; 32] = std::array::from_fn(|_| Packet::plain(&mut [], 0..0, 17));
            for (to, from) in packets.iter_mut().zip(plain) {
                *to = Packet::plain(from, HEAD_ROOM..HEAD_ROOM + HEADERS + INNER, 17);
            }
            assert_eq!(self.bare_outbound.seal_batch(&mut packets[..n]), n);
        }
        start.elapsed()
    }

    fn outbound(&mut self) -> Duration {
        let start = Instant::now();
        self.fast.outbound(&mut self.frame, true, &mut self.transmit, &mut Nowhere, &mut Nowhere, &mut self.control);
        self.transmit.flush(&mut Nowhere, &mut self.fast.counters);
        let elapsed = start.elapsed();
        assert_eq!(self.fast.counters.dropped_total(), 0);
        elapsed
    }
}

fn median(mut times: Vec<Duration>, packets: usize) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64 / packets as f64
}

fn table() {
    const ROUNDS: usize = 200;
    println!("one core, {INNER}-byte inner packets, medians of {ROUNDS} rounds, ns a packet");
    println!("{:<20}{:>10}{:>10}{:>8}{:>12}{:>10}", "", "bare esp", "fast path", "ratio", "Mpackets/s", "Gbit/s");
    let row = |name: String, bare: f64, fast: f64| {
        println!(
            "{name:<20}{bare:>10.0}{fast:>10.0}{:>8.2}{:>12.2}{:>10.1}",
            fast / bare,
            1e3 / fast,
            INNER as f64 * 8.0 / fast
        );
    };
    for (name, suite) in SUITES {
        let mut b = Bench::new(suite);
        let (mut bare, mut fast, mut merged) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            b.prepare_inbound();
            bare.push(b.bare_open());
            let through = b.inbound();
            fast.push(through);
            merged.push(through + b.coalesce());
        }
        let bare = median(bare, PACKETS);
        row(format!("in  {name}"), bare, median(fast, PACKETS));
        row(" .. and merged".into(), bare, median(merged, PACKETS));
        let (mut bare, mut fast) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS * 8 {
            bare.push(b.bare_seal());
            fast.push(b.outbound());
        }
        row(format!("out {name}"), median(bare, 46), median(fast, 46));
    }
    println!();
}

fn criterion(c: &mut Criterion) {
    for (name, suite) in SUITES {
        let mut group = c.benchmark_group(format!("fast path/{name}"));
        group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
        let timed = |n: u64, b: &mut Bench, what: fn(&mut Bench) -> Duration| (0..n).map(|_| what(b)).sum();
        group.throughput(Throughput::Elements(PACKETS as u64));
        let mut b = Bench::new(suite);
        group.bench_function("in, bare esp", |bench| {
            bench.iter_custom(|n| {
                timed(n, &mut b, |b| {
                    b.receive.filled.clear();
                    b.prepare_inbound();
                    b.bare_open()
                })
            });
        });
        let mut b = Bench::new(suite);
        group.bench_function("in", |bench| {
            bench.iter_custom(|n| {
                timed(n, &mut b, |b| {
                    b.prepare_inbound();
                    b.inbound()
                })
            });
        });
        group.throughput(Throughput::Elements(46));
        group.bench_function("out, bare esp", |bench| bench.iter_custom(|n| timed(n, &mut b, Bench::bare_seal)));
        group.bench_function("out", |bench| bench.iter_custom(|n| timed(n, &mut b, Bench::outbound)));
        group.finish();
    }
}

fn main() {
    // `cargo test --benches` runs this too: then once is enough.
    if std::env::args().any(|a| a == "--bench") {
        table();
    }
    let mut c = Criterion::default().configure_from_args();
    criterion(&mut c);
    c.final_summary();
}
