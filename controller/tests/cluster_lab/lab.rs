//! A cluster, clients that use it, and what is said when something is wrong.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use sallyport_proto::failover::Failover;
use sallyport_proto::v1;
use sallyport_proto::v1::gateway_client::GatewayClient;
use sallyport_proto::v1::operator_client::OperatorClient;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::{Channel, ClientTlsConfig};

use super::check::check;
use super::common::{add_pool, add_user, operator, shown, tls};
use super::history::{Event, excerpt};
use super::member::{Member, Program};
use super::place::{self, PLACES, Place};
use super::planted::{Planted, plant};
use super::workload::{World, lazy};

/// Set for a test that runs in its namespaces: a folder for it.
const INSIDE: &str = "SALLYPORT_LAB_INSIDE";
/// Longer and more of everything: `SALLYPORT_CLUSTER_SLOW=1`.
const SLOW: &str = "SALLYPORT_CLUSTER_SLOW";
/// What a test prints for whoever runs it, from inside its namespaces too.
const SUMMARY: &str = "lab: ";
/// The same for what it could not do.
const SKIPPED: &str = "skipped: ";
/// How long anything may take. The machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a test may take in its namespaces, in the quick set and in the slow one.
const WHOLE: (Duration, Duration) = (Duration::from_secs(1_200), Duration::from_secs(4 * 3_600));
/// Pause before asking again, here and of a controller: its answer about the group makes it ask all others.
const AGAIN: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(100));

/// Whether everything is done longer and more often.
pub(crate) fn slow_set() -> bool {
    std::env::var_os(SLOW).is_some_and(|v| v == "1")
}

/// Says that something cannot be done here, past the capture of a passing test's output.
pub(crate) fn skipped(why: &str) {
    let _ = std::io::stderr().write_all(format!("\n{SKIPPED}{why}\n").as_bytes());
}

/// Prints a line of figures.
#[allow(clippy::print_stdout, reason = "shown with --nocapture")]
pub(crate) fn say(text: &str) {
    println!("\n{SUMMARY}{text}");
}

/// A process that nobody waits for any more ends.
pub(crate) fn end_with_the_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}

/// Runs what the test `name` of `module` is about, in namespaces where there are any.
pub(crate) fn run(module: &str, name: &str, scenario: impl AsyncFnOnce(&mut Lab)) {
    let here = |place, dir| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async { scenario(&mut Lab::new(place, dir)).await });
    };
    if let Some(dir) = std::env::var_os(INSIDE) {
        end_with_the_parent();
        return here(Place::bridge(), dir.into());
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    let words = match place::inside() {
        Ok(words) => words,
        Err(why) => {
            skipped(why);
            return here(Place::loopback(), dir.path().into());
        }
    };
    let test = format!("{}::{name}", module.split_once("::").expect("a module of this crate").1);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(std::env::current_exe().expect("this test"));
    command.args(["--exact", &test, "--nocapture"]).env(INSIDE, dir.path());
    let limit = if slow_set() { WHOLE.1 } else { WHOLE.0 };
    let (status, text, errors) = run_within(command, limit);
    text.lines().filter_map(|line| line.strip_prefix(SUMMARY)).for_each(say);
    errors.lines().filter_map(|line| line.strip_prefix(SKIPPED)).for_each(skipped);
    let passed = status.is_some_and(|status| status.success()) && text.contains("1 passed");
    let how = status.map_or_else(|| format!("not over after {} s", limit.as_secs()), |status| status.to_string());
    assert!(passed, "{test} failed in its namespaces ({how}):\n{text}\n{errors}");
}

/// Waits for a process no longer than `limit`; returns how it ended and what it wrote.
fn run_within(mut command: Command, limit: Duration) -> (Option<ExitStatus>, String, String) {
    fn reads(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes); // what there is
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let _held = child.stdin.take(); // until we end: see end_with_the_parent
    let out = reads(child.stdout.take().expect("a pipe"));
    let errors = reads(child.stderr.take().expect("a pipe"));
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().expect("waits") {
            None if begun.elapsed() < limit => std::thread::sleep(AGAIN.0),
            None => {
                child.kill().expect("kills");
                child.wait().expect("dies");
                break None;
            }
            ended => break ended,
        }
    };
    (status, out.join().expect("reads"), errors.join().expect("reads"))
}

/// Asks again until there is an answer.
pub(crate) async fn wait_for<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(AGAIN.0).await;
    }
}

/// A root (DER), a certificate and what is between (PEM), and its key (DER).
async fn issue(
    operator: &mut OperatorClient<Channel>,
    profile: v1::CertificateProfile,
    name: &str,
) -> (Vec<u8>, String, Vec<u8>) {
    let key_algorithm = v1::KeyAlgorithm::EcdsaP256.into();
    let request =
        v1::IssueCertificateRequest { profile: profile.into(), name: name.into(), key_algorithm, ..Default::default() };
    let mut issued = operator.issue_certificate(request).await.expect("issues").into_inner();
    let key = issued.private_key.expect("a key").into_inner().to_vec();
    let shown = shown(&issued.certificate, &issued.chain);
    (issued.chain.pop().expect("a root"), shown, key)
}

/// A cluster and its clients.
pub(crate) struct Lab {
    pub(crate) place: Place,
    dir: PathBuf,
    pub(crate) members: Vec<Member>,
    world: Option<Arc<World>>,
    tls: Option<ClientTlsConfig>,
    tasks: JoinSet<()>,
    begun: Instant,
}

impl Lab {
    fn new(place: Place, dir: PathBuf) -> Self {
        let begun = Instant::now();
        Self { place, dir, members: Vec::new(), world: None, tls: None, tasks: JoinSet::new(), begun }
    }

    /// Three members that are not there yet, in a folder of their own; those of before end.
    pub(crate) fn renew(&mut self, folder: &str) {
        (self.members, self.world, self.tls) = (Vec::new(), None, None);
        let dir = self.dir.join(folder);
        std::fs::create_dir(&dir).expect("a folder");
        self.members = (1..=3).map(|n| Member::new(&dir, n, &self.place)).collect();
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        self.world.as_ref().expect("formed")
    }

    /// The member whose id is `id`.
    pub(crate) fn member(&mut self, id: u32) -> &mut Member {
        self.members.iter_mut().find(|m| m.number == id).expect("a member")
    }

    /// Starts a member that was there before.
    pub(crate) fn restart(&mut self, id: u32) {
        let at = self.members.iter().position(|m| m.number == id).expect("a member");
        self.members[at].start(&self.place);
    }

    /// The same, and waits until it answers.
    pub(crate) async fn start_again(&mut self, id: u32) {
        self.restart(id);
        self.member(id).ready().await;
    }

    /// Adds a member to the group, with a token from the operator at `via`.
    pub(crate) async fn join(&mut self, number: u32, via: u32) {
        if self.members.iter().all(|m| m.number != number) {
            let dir = self.members[0].state.parent().expect("a folder").to_owned();
            self.members.push(Member::new(&dir, number, &self.place));
        }
        let operator = OperatorClient::new(lazy(self.place.listen(via), self.tls.clone().expect("formed")));
        let token = wait_for("a token", || {
            let mut operator = operator.clone();
            async move { operator.create_cluster_token(v1::CreateClusterTokenRequest { ttl_s: 0 }).await.ok() }
        });
        let token = token.await.into_inner().token.expect("a token").into_inner();
        let token = String::from_utf8(token.to_vec()).expect("text");
        let join = format!("{} {token}", self.place.listen(via));
        self.member(number).join = Some(join);
        self.start_again(number).await;
    }

    /// From now on the clients ask this member too.
    pub(crate) fn ask_too(&self, number: u32) {
        let channel = lazy(self.place.listen(number), self.tls.clone().expect("formed"));
        self.world().add_reader(number, OperatorClient::new(channel));
    }

    /// Makes a cluster of three under load.
    pub(crate) async fn form(&mut self) {
        self.start_again(1).await;
        let (state, listen) = (self.members[0].state.clone(), self.members[0].listen);
        let mut operator = operator(&state, listen).await;
        // The operator of the first member's folder goes with that member when it is removed.
        let (root, certificate, key) = issue(&mut operator, v1::CertificateProfile::Operator, "lab").await;
        self.tls = Some(tls(&root, Some((&certificate, &key))));
        add_user(&mut operator, "ada", "open sesame").await;
        add_pool(&mut operator, "p", "10.0.0.0/16").await;
        for n in [2, 3] {
            self.join(n, 1).await;
        }
        let (root, certificate, key) = issue(&mut operator, v1::CertificateProfile::GatewayLink, "gw1").await;
        let to = |n| lazy(self.place.listen(n), tls(&root, Some((&certificate, &key))));
        // A member that is cut off must not cost the quick set much.
        let patience = Duration::from_secs(if slow_set() { 3 } else { 1 });
        let channels: Vec<Channel> = (1..=PLACES).map(to).collect();
        let mut client = GatewayClient::new(Failover::new(channels, 5).patience(patience));
        let request = v1::RegisterRequest { name: "gw1".into(), boot_id: vec![1; 16], ..Default::default() };
        let member = client.register(request).await.expect("registers").into_inner().member.expect("a member");
        self.world = Some(World::new(client, member));
        for n in 1..=3 {
            self.ask_too(n);
        }
        self.whole(3).await;
        let world = self.world().clone();
        if self.members.iter().all(|member| matches!(member.program, Program::Own)) {
            world.ask_again_for_certificates();
        }
        world.read(1, world.reader(1)).await.expect("the register as it was");
        world.start(&mut self.tasks);
        self.goes_on("the first sessions").await;
    }

    /// What a member shows of the group.
    pub(crate) async fn cluster(&self, at: u32) -> Option<v1::GetClusterResponse> {
        let mut reader = self.world().reader(at);
        let asked = tokio::time::timeout(Duration::from_secs(3), reader.get_cluster(v1::GetClusterRequest {}));
        Some(asked.await.ok()?.ok()?.into_inner())
    }

    /// The leader's id, once so many vote, answer, and follow the same leader, and there are no others.
    pub(crate) async fn whole(&self, voters: usize) -> u32 {
        self.led(|following, members| following == voters && members == voters, &format!("{voters} controllers"))
            .await
            .0
    }

    /// The leader's id and how many follow it, once those are at least two.
    pub(crate) async fn led_by(&self) -> (u32, usize) {
        self.led(|following, _| following >= 2, "two controllers").await
    }

    /// Asks one member after the other, until enough of them vote, answer and follow the same leader.
    async fn led(&self, enough: impl Fn(usize, usize) -> bool, whom: &str) -> (u32, usize) {
        let readers: Vec<u32> = self.world().readers().into_iter().map(|(n, _)| n).collect();
        let (mut turn, mut first, enough) = (readers.iter().cycle(), true, &enough);
        wait_for(&format!("{whom} that vote and answer"), || {
            let (at, first) = (*turn.next().expect("somebody is asked"), std::mem::take(&mut first));
            async move {
                if !first {
                    tokio::time::sleep(AGAIN.1).await;
                }
                let cluster = self.cluster(at).await?;
                let follows = |v: &v1::MemberVitals| v.unsealed && v.leader_id == cluster.leader_id;
                let votes = |m: &&v1::ClusterMember| {
                    matches!(m.role(), v1::MemberRole::Leader | v1::MemberRole::Voter)
                        && m.vitals.as_ref().is_some_and(follows)
                };
                let following = cluster.members.iter().filter(votes).count();
                let leader = u32::try_from(cluster.leader_id).ok().filter(|id| *id != 0)?;
                enough(following, cluster.members.len()).then_some((leader, following))
            }
        })
        .await
    }

    /// The term in the view of a member that is `wanted`.
    pub(crate) async fn term(&self, wanted: impl Fn(u32) -> bool) -> u64 {
        let readers = self.world().readers().into_iter().map(|(n, _)| n).filter(|n| wanted(*n));
        let readers: Vec<u32> = readers.collect();
        wait_for("a view of the group", || async {
            for at in &readers {
                let cluster = self.cluster(*at).await;
                // It may be the view of the leader.
                let of = |c: &v1::GetClusterResponse| u32::try_from(c.seen_by).is_ok_and(&wanted);
                if let Some(cluster) = cluster.filter(of) {
                    return Some(cluster.term);
                }
            }
            None
        })
        .await
    }

    /// Waits until the members other than `but` have a leader among themselves.
    pub(crate) async fn leader_without(&self, but: u32) -> u32 {
        wait_for("another leader", || async {
            for (at, _) in self.world().readers().into_iter().filter(|(n, _)| *n != but) {
                if let Some(cluster) = self.cluster(at).await
                    && let Ok(leader) = u32::try_from(cluster.leader_id)
                    && ![0, but].contains(&leader)
                {
                    return Some(leader);
                }
            }
            tokio::time::sleep(AGAIN.1).await;
            None
        })
        .await
    }

    /// Waits until clients have got on; returns how long a client waited that came when this was called.
    pub(crate) async fn goes_on(&self, what: &str) -> Duration {
        let (world, begun) = (self.world(), Instant::now());
        let patient = tokio::time::timeout(PATIENCE, world.begin()).await;
        let waited = begun.elapsed();
        if !matches!(patient, Ok(Some(_))) {
            panic!("waited in vain for {what}: {}", world.oddity().unwrap_or_default());
        }
        let before = world.acknowledged();
        wait_for(what, || async {
            if let Some(odd) = world.oddity() {
                panic!("while waiting for {what}: {odd}");
            }
            (world.acknowledged() > before + 2).then_some(())
        })
        .await;
        waited
    }

    /// Notes what is done to the cluster.
    pub(crate) fn fault(&self, what: impl Into<String>) {
        let at = self.begun.elapsed().as_millis();
        self.world().history.fault(format!("after {at} ms: {}", what.into()));
    }

    /// Ends the clients. Nothing is checked.
    pub(crate) async fn stop_clients(&mut self) {
        self.world().stop();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no client panicked");
        }
    }

    /// What is wrong with the history and the members' last words; where nothing is, what became of faults put into them.
    pub(crate) async fn verdict(&self) -> Result<Planted, String> {
        let mut lasts = Vec::new();
        for (number, reader) in self.world().readers() {
            let last = wait_for("the last words of a member", || async {
                self.world().last(number, reader.clone()).await.ok()
            });
            lasts.push((number, last.await));
        }
        let events = self.world().history.events();
        for pair in lasts.windows(2) {
            if pair[0].1 != pair[1].1 {
                return Err(format!("members {} and {} differ", pair[0].0, pair[1].0));
            }
        }
        let (_, last) = lasts.swap_remove(0);
        check(&events, &last).map_err(|violation| format!("{}\n{}", violation.what, excerpt(&events, violation.at)))?;
        Ok(plant(&events, &last))
    }

    /// Whether clients are at work, so that the history is yet to be checked.
    pub(crate) fn is_open(&self) -> bool {
        self.world.is_some() && !self.tasks.is_empty()
    }

    /// Waits until clients have seen something of each kind, so that every planted fault finds a place.
    async fn has_seen_everything(&self) {
        let kinds: [fn(&Event) -> bool; 4] = [
            |e| matches!(e, Event::Ended { .. }),
            |e| matches!(e, Event::Listed { .. }),
            |e| matches!(e, Event::Written { .. }),
            |e| matches!(e, Event::Issued { .. }),
        ];
        let world = self.world();
        wait_for("clients to see something of each kind", || async {
            if let Some(odd) = world.oddity() {
                panic!("{odd}");
            }
            kinds.iter().all(|kind| world.history.has(kind)).then_some(())
        })
        .await;
        self.goes_on("the last sessions").await;
    }

    /// Ends the clients and checks everything.
    pub(crate) async fn conclude(&mut self) {
        self.has_seen_everything().await;
        self.stop_clients().await;
        let planted = self.verdict().await.unwrap_or_else(|wrong| panic!("{wrong}"));
        let Planted { found, missed, unplaced } = planted;
        assert!(missed.is_empty(), "the checker is blind for {}", missed.join("; "));
        if std::env::var_os("SALLYPORT_LAB_SAY").is_some() {
            for event in self.world().history.events() {
                if let Event::Fault { what } = event {
                    say(&what);
                }
            }
        }
        assert!(unplaced.is_empty(), "the history has no place for {}", unplaced.join("; "));
        let world = self.world();
        say(&format!(
            "the history of {} events, with {} sessions acknowledged, is one that can be; {found} planted faults found",
            world.history.now(),
            world.acknowledged(),
        ));
    }
}

impl Drop for Lab {
    #[allow(clippy::print_stderr, reason = "what is needed to understand a failure")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if let Some(world) = &self.world {
            let events = world.history.events();
            eprintln!("the last of the history:\n{}", excerpt(&events, events.len().saturating_sub(1)));
            for (at, event) in events.iter().enumerate() {
                if matches!(event, Event::Fault { .. } | Event::Odd { .. }) {
                    eprintln!("{at}: {event:?}");
                }
            }
        }
        for member in &self.members {
            eprintln!("member {}:\n{}", member.number, member.tail());
        }
    }
}
