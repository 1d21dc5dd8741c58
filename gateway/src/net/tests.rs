//! Sockets, device and worker together. What needs a network namespace says so when it cannot have one.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use sallyport_base::PeerId;
use sallyport_crypto::Rng;
use sallyport_crypto::suite::EspSuite;
use sallyport_esp::{InboundSa, OutboundSa, SaConfig};

use super::{Inside, Pool, Role, Tun};
use crate::data::{Count, DataConfig, DataPlane};
use crate::link::{FromData, InstallSa, InstallSession, OuterPath, SessionNetwork, ToData};

const SUBNET: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 0);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

fn loopback(last: u8, native: bool) -> DataConfig {
    DataConfig {
        listen: vec![Ipv4Addr::new(127, 0, 0, last).into()],
        ike_port: 0,
        nat_t_port: 0,
        clear_l2tp_port: Some(0),
        native_esp: native,
        ..DataConfig::default()
    }
}

fn address(plane: &DataPlane, role: Role) -> SocketAddr {
    plane.handle.addresses().iter().find(|(r, _)| *r == role).map(|(_, a)| *a).unwrap()
}

#[test]
fn the_worker_carries_ike_both_ways_counts_clear_l2tp_and_stops_when_told() {
    ike_both_ways(Ipv4Addr::LOCALHOST.into());
}

#[test]
fn the_same_over_ipv6() {
    match UdpSocket::bind("[::1]:0") {
        Ok(_) => ike_both_ways(Ipv6Addr::LOCALHOST.into()),
        Err(e) => eprintln_test(&format!("skipped: IPv6: {e}")),
    }
}

fn ike_both_ways(at: IpAddr) {
    let mut plane = DataPlane::start(DataConfig { listen: vec![at], ..loopback(1, false) }, None).unwrap();
    let client = UdpSocket::bind((at, 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let from = client.local_addr().unwrap();
    let message = vec![9; 28];
    for (role, marker) in [(Role::Ike, &[][..]), (Role::NatT, &[0; 4][..])] {
        let local = address(&plane, role);
        let datagram = [marker, &message].concat();
        client.send_to(&datagram, local).unwrap();
        let heard = plane.from_data.blocking_recv().unwrap();
        assert_eq!(heard, FromData::IkeDatagram { local, remote: from, bytes: message.clone() });
        plane.to_data.send(ToData::SendIke { local, remote: from, bytes: message.clone() }).unwrap();
        let mut buf = [0; 100];
        let (n, source) = client.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..n], source), (&datagram[..], local));
    }
    client.send_to(&[0xc8, 2], address(&plane, Role::ClearL2tp)).unwrap();
    // What comes later on another socket may be taken earlier; the last report is after everything.
    client.send_to(&message, address(&plane, Role::Ike)).unwrap();
    plane.from_data.blocking_recv().unwrap();
    plane.to_data.send(ToData::Stop).unwrap();
    assert_eq!(plane.from_data.blocking_recv(), Some(FromData::Stopped { reason: String::new() }));
    plane.handle.join();
    assert_eq!(plane.handle.stats().count(Count::IkeIn), 3);
    assert!(plane.to_data.send(ToData::Stop).is_err());
}

#[test]
fn an_address_in_use_is_named_with_what_to_do() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = DataConfig { ike_port: taken.local_addr().unwrap().port(), ..loopback(1, false) };
    let text = DataPlane::start(config, None).unwrap_err().to_string();
    assert!(text.contains("UDP 127.0.0.1:") && text.contains("another IKE daemon"), "{text}");
}

/// Runs `test` in a network namespace of its own, or says why not. Without the privilege for one, the test binary is
/// started anew in a user namespace where it has it.
fn in_namespace(name: &str, test: fn() -> Result<(), String>) {
    let inner = std::thread::spawn(move || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => Some(test()),
        Err(_) => None,
    });
    let skipped = |why: &str| eprintln_test(&format!("skipped: {}", why.trim_end()));
    match inner.join().unwrap() {
        Some(Ok(())) => {}
        Some(Err(why)) => skipped(&why),
        None if std::env::var_os("SALLYPORT_IN_USER_NAMESPACE").is_some() => {
            panic!("a user namespace that gives no network namespace");
        }
        None => {
            let exe = std::env::current_exe().unwrap();
            let run = std::process::Command::new("unshare")
                .args(["--user", "--map-root-user", "--net"])
                .arg(exe)
                .args(["--exact", name, "--nocapture"])
                .env("SALLYPORT_IN_USER_NAMESPACE", "1")
                .output();
            match run {
                Ok(out) if String::from_utf8_lossy(&out.stderr).starts_with("unshare:") => {
                    skipped(&String::from_utf8_lossy(&out.stderr));
                }
                Ok(out) => {
                    let text = String::from_utf8_lossy(&out.stderr);
                    assert!(out.status.success(), "{text}");
                    eprintln_test(text.trim_end());
                }
                Err(e) => skipped(&format!("no network namespace, and the unshare command: {e}")),
            }
        }
    }
}

/// Past the capture of a passing test's output, so that ./test can report it.
fn eprintln_test(text: &str) {
    if !text.is_empty() {
        let _ = std::io::stderr().write_all(format!("\n{text}\n").as_bytes());
    }
}

/// Both ends of a pair of SAs, with fixed keys.
fn pairs(suite: EspSuite, gateway: OuterPath) -> (InstallSa, InstallSa) {
    let config = |spi: u32| SaConfig::new(spi, suite.split_keymat(&vec![spi as u8; suite.keymat_len()]).unwrap());
    let (up, down) = (config(0x1111), config(0x2222));
    let mut rng = Rng::from_seed([5; 32]);
    let client = OuterPath { local: gateway.remote, remote: gateway.local, ..gateway };
    let mut side = |inbound: &SaConfig, outbound: &SaConfig, path| InstallSa {
        peer: PeerId(1),
        spi_in: inbound.spi,
        spi_out: outbound.spi,
        inbound: InboundSa::new(inbound),
        outbound: OutboundSa::new(outbound, &mut rng),
        path,
        activate: true,
    };
    (side(&up, &down, gateway), side(&down, &up, client))
}

fn session(network: SessionNetwork) -> ToData {
    ToData::InstallSession(Box::new(InstallSession {
        peer: PeerId(1),
        peer_port: 1701,
        local_tunnel: 5,
        local_session: 6,
        peer_tunnel: 5,
        peer_session: 6,
        sequencing: false,
        network,
    }))
}

/// A device in the namespace of this thread, with its addresses; loopback is brought up too.
fn device(runtime: &tokio::runtime::Runtime, name: &str, router: Ipv4Addr) -> Result<(Inside, Tun), String> {
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        let up = rtnetlink::LinkUnspec::new_with_index(1).up().build();
        handle.link().set(up).execute().await.map_err(|e| format!("loopback: {e}"))?;
        let (mut inside, tun) = Inside::create(name, 1400).await.map_err(|e| e.to_string())?;
        let pool = Pool { network: SUBNET, prefix: 24, router };
        inside.set_pools(&[pool]).await.unwrap();
        // Again, other and back: nothing may be there twice or be missing.
        inside.set_pools(&[pool]).await.unwrap();
        inside.set_pools(&[Pool { network: Ipv4Addr::new(10, 77, 0, 3), prefix: 16, ..pool }]).await.unwrap();
        inside.set_pools(&[pool]).await.unwrap();
        Ok((inside, tun))
    })
}

/// TCP through two data planes, each with a device in a namespace of its own: 8 MiB each way, and what came is what was
/// sent. `encap` is UDP encapsulation, else protocol 50.
fn tcp_through_two_planes(encap: bool, suite: EspSuite) -> Result<(), String> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string());
    let here = runtime()?;
    let (_inside, tun) = device(&here, "sp-gateway", GATEWAY)?;
    let home = std::fs::File::open("/proc/thread-self/ns/net").map_err(|e| e.to_string())?;

    // The client's device and its TCP stack live in another namespace; its data plane's sockets are here.
    let (give_tun, take_tun) = channel();
    let (give_result, take_result) = channel::<Vec<u8>>();
    let (start, started) = channel::<()>();
    let there = std::thread::spawn(move || -> Result<(), String> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| e.to_string())?;
        let runtime = runtime()?;
        let (inside, tun) = device(&runtime, "sp-client", CLIENT)?;
        give_tun.send(tun).unwrap();
        started.recv().unwrap();
        let mut stream = TcpStream::connect((GATEWAY, 7000)).map_err(|e| format!("connect: {e}"))?;
        let mut up = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            up.write_all(&pattern(1)).unwrap();
            up.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        writer.join().unwrap();
        give_result.send(got).unwrap();
        drop(inside);
        Ok(())
    });
    let Ok(client_tun) = take_tun.recv() else { return there.join().unwrap() };
    setns(home.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| e.to_string())?;

    let mut gateway = DataPlane::start(loopback(1, !encap), Some(tun)).map_err(|e| e.to_string())?;
    let mut client = DataPlane::start(loopback(2, !encap), Some(client_tun)).map_err(|e| e.to_string())?;
    let role = if encap { Role::NatT } else { Role::Esp };
    let path = OuterPath { local: address(&gateway, role), remote: address(&client, role), encap };
    let (ours, theirs) = pairs(suite, path);
    let open = SessionNetwork { opened: true, client: CLIENT, router: GATEWAY, mtu: 1400, ..SessionNetwork::closed() };
    gateway.to_data.send(ToData::InstallSa(Box::new(ours))).unwrap();
    gateway.to_data.send(session(open)).unwrap();
    client.to_data.send(ToData::InstallSa(Box::new(theirs))).unwrap();
    client.to_data.send(session(SessionNetwork { default_route: true, ..open })).unwrap();

    let listener = TcpListener::bind((GATEWAY, 7000)).unwrap();
    start.send(()).unwrap();
    let (mut stream, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), CLIENT);
    let mut down = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        down.write_all(&pattern(2)).unwrap();
        down.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == pattern(1), "up: {} bytes came", got.len());
    let got = take_result.recv().unwrap();
    assert!(got == pattern(2), "down: {} bytes came", got.len());
    writer.join().unwrap();
    there.join().unwrap()?;

    for plane in [&mut gateway, &mut client] {
        plane.to_data.send(ToData::Stop).unwrap();
        let mut liveness = false;
        while let Some(message) = plane.from_data.blocking_recv() {
            liveness |= matches!(message, FromData::Liveness { .. } | FromData::CounterSnapshot { .. });
        }
        assert!(liveness);
        plane.handle.join();
        let stats = plane.handle.stats();
        assert!(stats.count(Count::InnerBytesIn) > 8 << 20 && stats.count(Count::InnerBytesOut) > 8 << 20);
    }
    Ok(())
}

fn pattern(seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; 8 << 20];
    Rng::from_seed([seed; 32]).fill(&mut bytes);
    bytes
}

#[test]
fn tcp_passes_in_udp_encapsulation() {
    in_namespace("net::tests::tcp_passes_in_udp_encapsulation", || {
        tcp_through_two_planes(true, EspSuite::AES128_GCM16)
    });
}

#[test]
fn tcp_passes_in_native_esp() {
    in_namespace("net::tests::tcp_passes_in_native_esp", || tcp_through_two_planes(false, EspSuite::AES256_CBC_SHA1));
}

#[test]
fn a_worker_that_nobody_can_talk_to_any_more_ends() {
    let config = DataConfig { liveness_interval: Duration::from_millis(1), ..loopback(1, false) };
    let DataPlane { to_data, mut from_data, mut handle } = DataPlane::start(config, None).unwrap();
    drop(to_data);
    assert_eq!(from_data.blocking_recv(), Some(FromData::Stopped { reason: String::new() }));
    handle.join();
}
