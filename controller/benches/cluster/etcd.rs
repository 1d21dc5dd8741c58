//! etcd, three members on the same disk, and a client that is equal to a gateway: as many connections, mutual TLS, one put for
//! each command.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sallyport_ca::seal::SealKey;
use sallyport_ca::{
    AltName, Authority, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject, SystemRandom, UnixTime,
};
use tokio::runtime::Runtime;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, client};
use tonic_prost::ProstCodec;

use crate::CONNECTIONS;
use crate::controllers::payload;
use crate::load::{Client, cpu_of};

pub(crate) const MISSING: &str =
    "etcd is not installed, so nothing is compared: apt-get install etcd-server etcd-client, and run this again.";
const MEMBERS: usize = 3;

/// Of etcd's `PutRequest`, what we set.
#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Of its `PutResponse`, what we look at: nothing. It comes when the put is committed and applied.
#[derive(Clone, PartialEq, prost::Message)]
struct Done {}

/// A running group.
pub(crate) struct Etcd {
    members: Vec<Child>,
    clients: Vec<SocketAddr>,
    dir: PathBuf,
    channels: Vec<Channel>,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// One certificate for all, for server and client, from an authority of our own kind.
fn write_identity(dir: &Path) {
    let rng = SystemRandom::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let now = UnixTime(now.try_into().unwrap());
    let seal = SealKey::from_bytes(&[1; 32]);
    let (authority, _) = Authority::create(&RootConfig::new("bench", "bench"), &seal, now, &rng).unwrap();
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
    let names = vec![AltName::Dns("localhost".into()), AltName::Ip("127.0.0.1".parse().unwrap())];
    let subject = Subject::new("etcd", names).unwrap();
    let serial = Serial::generate(&rng).unwrap();
    let issued = authority.issue(Profile::Controller, &subject, &key.public_key(), now, serial, &rng).unwrap();
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.certificate().pem()).unwrap();
    std::fs::write(dir.join("cert.pem"), issued.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.pkcs8_pem().as_bytes()).unwrap();
}

impl Etcd {
    /// Processor time that all members have taken so far.
    pub(crate) fn cpu(&self) -> Duration {
        self.members.iter().map(|member| cpu_of(member.id())).sum()
    }

    /// Starts three members with their default settings, if etcd is installed.
    pub(crate) fn start(runtime: &Runtime, dir: &Path) -> Option<Self> {
        Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        write_identity(dir);
        let peers: Vec<SocketAddr> = (0..MEMBERS).map(|_| free()).collect();
        let clients: Vec<SocketAddr> = (0..MEMBERS).map(|_| free()).collect();
        let cluster: Vec<String> = peers.iter().enumerate().map(|(n, a)| format!("m{n}=https://{a}")).collect();
        let file = |name: &str| dir.join(name).display().to_string();
        let members = (0..MEMBERS)
            .map(|n| {
                let log = std::fs::File::create(dir.join(format!("m{n}.log"))).unwrap();
                let mut command = Command::new("etcd");
                command.arg("--name").arg(format!("m{n}")).arg("--data-dir").arg(dir.join(format!("m{n}")));
                let (peer, client) = (format!("https://{}", peers[n]), format!("https://{}", clients[n]));
                for (flag, value) in [
                    ("--listen-peer-urls", &peer),
                    ("--initial-advertise-peer-urls", &peer),
                    ("--listen-client-urls", &client),
                    ("--advertise-client-urls", &client),
                    ("--initial-cluster", &cluster.join(",")),
                    ("--cert-file", &file("cert.pem")),
                    ("--key-file", &file("key.pem")),
                    ("--trusted-ca-file", &file("ca.pem")),
                    ("--peer-cert-file", &file("cert.pem")),
                    ("--peer-key-file", &file("key.pem")),
                    ("--peer-trusted-ca-file", &file("ca.pem")),
                ] {
                    command.arg(flag).arg(value);
                }
                command.args(["--client-cert-auth", "--peer-client-cert-auth", "--logger", "zap"]);
                command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
            })
            .collect();
        let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(Identity::from_pem(read("cert.pem"), read("key.pem")))
            .domain_name("localhost");
        let channels: Vec<Channel> = {
            let _inside = runtime.enter();
            let connect = |n: usize| {
                let endpoint = Endpoint::from_shared(format!("https://{}", clients[n % MEMBERS])).unwrap();
                endpoint.tls_config(tls.clone()).unwrap().tcp_nodelay(true).connect_lazy()
            };
            (0..CONNECTIONS).map(connect).collect()
        };
        let this = Self { members, clients, dir: dir.into(), channels };
        runtime.block_on(this.ready());
        Some(this)
    }

    async fn ready(&self) {
        for (number, channel) in self.channels.iter().enumerate() {
            let mut tries = 0;
            while let Err(e) = put(channel.clone(), vec![0], vec![0]).await {
                tries += 1;
                assert!(
                    tries < 300,
                    "etcd does not answer on connection {number} ({e}); its log is in {}",
                    self.dir.display()
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    pub(crate) fn clients(&self, count: usize) -> Vec<Writer> {
        let channel = |number: usize| self.channels[number % self.channels.len()].clone();
        (0..count).map(|number| Writer { channel: channel(number), number, puts: 0 }).collect()
    }

    /// What its own tool says of this group.
    pub(crate) fn check_perf(&self) -> String {
        let endpoints: Vec<String> = self.clients.iter().map(|c| format!("https://{c}")).collect();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(endpoints.join(","));
        for (flag, file) in [("--cacert", "ca.pem"), ("--cert", "cert.pem"), ("--key", "key.pem")] {
            command.arg(flag).arg(self.dir.join(file));
        }
        match command.args(["check", "perf", "--load=m"]).output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                // Without its progress bar.
                let lines = text.rsplit('\r').next().unwrap_or_default().lines();
                lines.filter(|l| l.contains(':')).map(|l| format!("    {}\n", l.trim())).collect()
            }
            Err(e) => format!("    etcdctl cannot be run: {e}\n"),
        }
    }
}

async fn put(channel: Channel, key: Vec<u8>, value: Vec<u8>) -> Result<(), tonic::Status> {
    let mut grpc = client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    grpc.unary::<Put, Done, _>(Request::new(Put { key, value }), path, ProstCodec::default()).await.map(drop)
}

/// Somebody who puts a value under a new key, and another under the same, as a session comes and goes.
pub(crate) struct Writer {
    channel: Channel,
    number: usize,
    puts: u64,
}

impl Client for Writer {
    fn command(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let key = format!("session/{:04}/{:08}", self.number, self.puts / 2).into_bytes();
            self.puts += 1;
            let value = vec![b'v'; payload().saturating_sub(key.len())];
            put(self.channel.clone(), key, value).await.unwrap();
        })
    }
}
