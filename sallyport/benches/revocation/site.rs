//! Controllers and gateways, each a process of the real program, and an operator.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use rtnetlink::LinkUnspec;
use sallyport_proto::v1;
use sallyport_proto::v1::operator_client::OperatorClient;
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::Settings;
use crate::machines::Machine;

/// Controllers of the group.
const CONTROLLERS: usize = 3;
pub(crate) const PASSWORD: &str = "open sesame";
/// Until a process is there, on a machine that does much else.
const START: Duration = Duration::from_secs(120);

pub(crate) type Operator = OperatorClient<Channel>;

/// Moves this process, and those that it starts, into a network of its own, in which it may open devices.
pub(crate) fn enter_network() {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .expect("this machine allows no user namespace; `sallyport demo` says what to do");
    // user_namespaces(7): the group may be mapped only after giving up setgroups(2).
    std::fs::write("/proc/self/setgroups", "deny").unwrap();
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
}

fn controller_address(number: usize) -> String {
    format!("127.0.0.{}:7443", number + 1)
}

pub(crate) fn gateway_name(number: usize) -> String {
    format!("gw{number}.bench.test")
}

pub(crate) fn gateway_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number as u8 + 1)
}

pub(crate) fn user(gateway: usize) -> String {
    format!("user{gateway}")
}

/// A process of the real program; it ends with this.
struct Process {
    child: Child,
    /// On which it says that it is ready, as to a service manager.
    ready: UnixDatagram,
    _socket: TempDir,
    log: PathBuf,
}

impl Process {
    /// Starts it with a folder, settings and arguments of its own.
    fn start(dir: &Path, config: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let (file, log) = (dir.join("sallyport.toml"), dir.join("log"));
        std::fs::write(&file, config).unwrap();
        // Not in the folder: the paths of sockets are short.
        let socket = tempfile::tempdir().unwrap();
        let address = socket.path().join("notify");
        let ready = UnixDatagram::bind(&address).unwrap();
        ready.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
        command.args(arguments).arg("--config").arg(&file).env_clear().env("SALLYPORT_STATE", dir.join("state"));
        command.env("NOTIFY_SOCKET", &address).envs(variables.iter().copied());
        let output = std::fs::File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        Self { child: command.spawn().unwrap(), ready, _socket: socket, log }
    }

    /// Waits until it is ready.
    fn wait(&mut self) {
        let mut said = [0; 256];
        let end = std::time::Instant::now() + START;
        while !self.ready.recv(&mut said).is_ok_and(|len| said[..len].starts_with(b"READY=1")) {
            let ended = self.child.try_wait().unwrap();
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(ended.is_none(), "a process ended: {}", log());
            assert!(std::time::Instant::now() < end, "a process does not get ready: {}", log());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that runs.
pub(crate) struct Site {
    operators: Vec<Operator>,
    gateways: usize,
    pub(crate) root: Vec<u8>,
    _processes: Vec<Process>,
}

impl Site {
    /// Forms the group, adds a pool and users, and starts the gateways, each with a token.
    pub(crate) async fn start(settings: &Settings, dir: &Path) -> Self {
        let (connection, links, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        links.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await.unwrap();

        let mut processes = Vec::new();
        let first = dir.join("controller0");
        let mut start = |number: usize, arguments: &[&str], variables: &[(&str, &str)]| {
            let address = controller_address(number);
            let config = format!(
                "[controller]\nlisten = \"{address}\"\nmetrics_listen = \"\"\n[controller.enrollment]\nlisten = \"\"\n\
                 http_listen = \"\"\n[log]\nlevel = \"warn\"\n"
            );
            let folder = dir.join(format!("controller{number}"));
            let mut process = Process::start(&folder, &config, &[&["controller"], arguments].concat(), variables);
            process.wait();
            processes.push(process);
        };
        start(0, &["--bootstrap"], &[]);
        let folder = first.join("state/operator");
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let root = read("ca.pem");
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&root))
            .identity(Identity::from_pem(read("cert.pem"), read("key.pem")))
            .domain_name(sallyport_proto::CONTROLLER_NAME);
        let operators: Vec<Operator> = (0..CONTROLLERS)
            .map(|number| {
                let endpoint = Endpoint::from_shared(format!("https://{}", controller_address(number))).unwrap();
                OperatorClient::new(endpoint.tls_config(tls.clone()).unwrap().tcp_nodelay(true).connect_lazy())
            })
            .collect();
        let mut operator = operators[0].clone();
        for number in 1..CONTROLLERS {
            let made = operator.create_cluster_token(v1::CreateClusterTokenRequest { ttl_s: 0 }).await.unwrap();
            let token = text(made.into_inner().token);
            start(number, &["--join", &controller_address(0), "--token", &token], &[]);
        }
        let pool = v1::AddPoolRequest { name: "p".into(), networks: vec!["10.0.0.0/16".into()], ..Default::default() };
        operator.add_pool(pool).await.unwrap();

        let controllers: Vec<String> = (0..CONTROLLERS).map(|n| format!("{:?}", controller_address(n))).collect();
        let mut gateways = Vec::new();
        for number in 0..settings.gateways {
            let (name, password) = (user(number), Some(v1::Secret::new(PASSWORD)));
            let max_sessions = u32::try_from(settings.sessions.max(1)).unwrap();
            let request = v1::AddUserRequest { name, password, max_sessions, ..Default::default() };
            operator.add_user(request).await.unwrap();
            let name = gateway_name(number);
            let request = v1::CreateEnrollTokenRequest {
                profile: "gateway-link".into(),
                name: name.clone(),
                uses: 1,
                ..Default::default()
            };
            let token = text(operator.create_enroll_token(request).await.unwrap().into_inner().token);
            let config = format!(
                "[gateway]\nname = \"{name}\"\ncontrollers = [{}]\nlisten = \"{}\"\n[gateway.inside]\ndevice = \"gw{number}\"\n\
                 forwarding = false\n[gateway.enrollment]\nlisten = \"\"\nhttp_listen = \"\"\n[log]\nlevel = \"warn\"\n",
                controllers.join(", "),
                gateway_address(number),
            );
            let folder = dir.join(format!("gateway{number}"));
            gateways.push(Process::start(&folder, &config, &["gateway"], &[("SALLYPORT_TOKEN", &token)]));
        }
        gateways.iter_mut().for_each(Process::wait);
        processes.extend(gateways);
        Self { operators, gateways: settings.gateways, root, _processes: processes }
    }

    /// An operator who asks one of the controllers, which passes on what is the leader's.
    pub(crate) fn operator(&self, number: usize) -> Operator {
        // The gateways are as many as the controllers' multiple or not: each of these meets each of those.
        self.operators[(number / self.gateways + number) % self.operators.len()].clone()
    }

    /// The certificate of a machine.
    pub(crate) async fn issue(&self, number: usize, key: v1::KeyAlgorithm) -> Machine {
        let request = v1::IssueCertificateRequest {
            profile: v1::CertificateProfile::Machine.into(),
            name: format!("machine{number}.bench.test"),
            key_algorithm: key.into(),
            ..Default::default()
        };
        let issued = self.operator(number).issue_certificate(request).await.unwrap().into_inner();
        let mut chain = issued.chain;
        chain.pop(); // the root
        chain.insert(0, issued.certificate);
        let serial = issued.info.unwrap().serial;
        Machine {
            number,
            gateway: number % self.gateways,
            key: issued.private_key.unwrap().into_inner(),
            chain,
            serial,
        }
    }

    /// Sessions that the controllers have.
    pub(crate) async fn sessions(&self) -> usize {
        let (mut count, mut page_token) = (0, String::new());
        loop {
            let request = v1::ListSessionsRequest { page_size: 1_000, page_token, ..Default::default() };
            let page = self.operators[0].clone().list_sessions(request).await.unwrap().into_inner();
            count += page.sessions.len();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return count;
            }
        }
    }

    /// Sessions that are left once nothing more changes.
    pub(crate) async fn none_left(&self) -> usize {
        for _ in 0..50 {
            if self.sessions().await == 0 {
                return 0;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.sessions().await
    }
}

fn text(secret: Option<v1::Secret>) -> String {
    String::from_utf8(secret.unwrap().into_inner().to_vec()).unwrap()
}
