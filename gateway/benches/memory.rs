//! Memory of idle sessions in the data plane: `cargo bench -p sallyport-gateway --bench memory`.
//!
//! Sessions are installed as the control plane does it, keys and all, and the growth of the process's resident memory
//! is divided by their number.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

#[path = "../tests/world/mod.rs"]
mod world;

use sallyport_base::PeerId;
use sallyport_client::Auth;
use sallyport_crypto::Rng;
use sallyport_crypto::suite::EspSuite;
use sallyport_esp::{InboundSa, OutboundSa, SaConfig};
use sallyport_gateway::data::fast::Fast;
use sallyport_gateway::data::tables::{Peer, SaPair, Session};
use sallyport_gateway::data::transmit::{Group, OutsideDevice, TransmitBatch};
use sallyport_gateway::data::{DataConfig, DataLimits};
use sallyport_gateway::link::{FromData, InstallSa, InstallSession, OuterPath, SessionNetwork, ToData};

use world::{PSK, Pki, World, settings};

/// Sessions that fill what is allocated once, before the whole gateway is measured.
const WARM_UP: u32 = 100;

struct Nowhere;

impl OutsideDevice for Nowhere {
    fn send(&mut self, _: &Group, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn measure(suite: EspSuite, sessions: u32) -> usize {
    let limits = DataLimits { peers: sessions as usize, sas: sessions as usize, sessions: sessions as usize };
    let mut fast = Fast::with_limits(&DataConfig::default(), limits);
    let (mut transmit, mut control) = (TransmitBatch::default(), Vec::<FromData>::new());
    let mut rng = Rng::from_seed([1; 32]);
    let mut keymat = vec![0; suite.keymat_len()];
    let before = resident();
    for n in 0..sessions {
        let mut config = |spi| {
            rng.fill(&mut keymat);
            SaConfig::new(spi, suite.split_keymat(&keymat).unwrap())
        };
        let (up, down) = (config(0x1000_0000 + n), config(0x2000_0000 + n));
        let path = OuterPath {
            local: "198.51.100.1:4500".parse().unwrap(),
            remote: (Ipv4Addr::from_bits(0xcb00_0000 + n), 4500).into(),
            encap: true,
        };
        let peer = PeerId(u64::from(n));
        let sa = InstallSa {
            peer,
            spi_in: up.spi,
            spi_out: down.spi,
            inbound: InboundSa::new(&up),
            outbound: OutboundSa::new(&down, &mut rng),
            path,
            activate: true,
        };
        let session = InstallSession {
            peer,
            peer_port: 1701,
            local_tunnel: (n >> 8) as u16,
            local_session: n as u16,
            peer_tunnel: 1,
            peer_session: 1,
            sequencing: false,
            network: SessionNetwork {
                opened: true,
                client: Ipv4Addr::from_bits(0x0a00_0000 + n),
                ..SessionNetwork::closed()
            },
        };
        fast.apply(ToData::InstallSa(Box::new(sa)), &mut transmit, &mut Nowhere, &mut control);
        fast.apply(ToData::InstallSession(Box::new(session)), &mut transmit, &mut Nowhere, &mut control);
    }
    let sizes = fast.tables.sizes();
    assert_eq!(sizes, (sessions as usize, sessions as usize, sessions as usize));
    (resident() - before) / sessions as usize
}

/// A whole gateway: IKE, L2TP and PPP machines, ESP and the session. Each client is a real handshake with the pre-shared
/// key from an address of its own, and is forgotten once it is up.
fn measure_whole(sessions: u32) -> usize {
    let pki = Pki::new("Root");
    let laptop = |n: u32| {
        let auth = Auth::PreSharedKey(PSK.to_vec().into());
        let mut settings = settings(auth, "wonderland", false);
        settings.local = Ipv4Addr::from_bits(0xc612_0000 + n).into();
        settings
    };
    // The clients that are forgotten must not be found dead.
    let mut world = World::with(&pki, laptop(0), |config| {
        config.ike.dpd_delay = Duration::ZERO;
        config.ppp.link.echo_interval = None;
    });
    let mut before = 0;
    for n in 0..=WARM_UP + sessions {
        world.connect();
        world.attempts.clear();
        world.sessions.clear();
        if n == WARM_UP {
            before = resident();
        }
        world.replace_client(laptop(n + 1));
    }
    assert_eq!(world.machine.vitals().live_sessions, WARM_UP + sessions + 1);
    (resident() - before) / sessions as usize
}

fn main() {
    let sessions = if std::env::args().any(|a| a == "--bench") { 100_000 } else { 100 };
    println!(
        "in one entry: session {} B, peer {} B, pair of SAs {} + {} B (inbound {}, outbound {})",
        size_of::<Session>(),
        size_of::<Peer>(),
        size_of::<SaPair>(),
        size_of::<InstallSa>(),
        size_of::<InboundSa>(),
        size_of::<OutboundSa>()
    );
    // First: what the tables below leave behind would be used again, and not show as growth.
    let whole = sessions.min(1_000);
    let each = measure_whole(whole);
    println!(
        "whole gateway      {whole} sessions: {each} bytes each, {} thousand in a GiB",
        (1 << 30) / each.max(1) / 1000
    );
    for (name, suite) in [
        ("aes128-gcm", EspSuite::AES128_GCM16),
        ("aes256-gcm", EspSuite::AES256_GCM16),
        ("aes256-cbc-sha1", EspSuite::AES256_CBC_SHA1),
    ] {
        let each = measure(suite, sessions);
        println!(
            "{name:<18} {sessions} sessions: {each} bytes each in the data plane, {} thousand in a GiB",
            (1 << 30) / each.max(1) / 1000
        );
    }
}
