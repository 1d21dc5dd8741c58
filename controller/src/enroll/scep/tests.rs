use std::net::Ipv4Addr;
use std::sync::LazyLock;

use sallyport_ca::SystemRandom;
use sallyport_ca::cms::{self, Digest, Signed};
use sallyport_ca::scep::client::{Authority as Server, Reply, Transaction};
use sallyport_endpoint::Office as _;

use super::*;
use crate::enroll::tests::{NAME, Site, serial};
use crate::state::{DecideRequest, RemoveMachine, RevokeCertificate, SettingsRow, UpdateSettings};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn rng() -> SystemRandom {
    SystemRandom::new()
}

/// A machine's key and what it has signed itself with.
struct Party {
    key: KeyPair,
    own: Vec<u8>,
}

impl Party {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate(KeyAlgorithm::Rsa2048, &rng()).expect("a key");
        let own = key.self_signed(name, NOW, Duration::from_secs(3_600), &rng()).expect("a certificate");
        Self { key, own }
    }

    fn csr(&self, challenge: Option<&str>) -> Vec<u8> {
        self.key.request("boss.example.com", challenge, &rng()).expect("a request").to_vec()
    }
}

// RSA keys take long to make.
static LAPTOP: LazyLock<Party> = LazyLock::new(|| Party::new("laptop"));
static THIEF: LazyLock<Party> = LazyLock::new(|| Party::new("thief"));

struct Bench {
    site: Site,
    office: ControllerOffice,
}

impl Bench {
    /// With SCEP off.
    async fn new() -> Self {
        let site = Site::new().await;
        let office = ControllerOffice::new(site.core.clone());
        Self { site, office }
    }

    async fn set(&self, change: impl FnOnce(&mut SettingsRow)) {
        let mut settings = self.site.core.node.shared().read().settings();
        change(&mut settings);
        self.site.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) })).await;
    }

    /// What a machine fetches first, once there is an RA with this number.
    async fn server(&self, number: u64) -> Server {
        for _ in 0..600 {
            // The controller does the same by itself.
            refresh(&self.site.core).await.expect("makes an RA");
            let newest = self.site.core.node.shared().read().next_scep_ra() - 1;
            if newest >= number
                && let Some(certificates) = self.office.scep_ca()
            {
                assert_eq!(newest, number);
                return Server::parse(&cms::certs_only(&certificates)).expect("reads");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no RA {number}");
    }

    async fn send(&self, message: Vec<u8>) -> ScepAnswer {
        self.office.scep(message, Ipv4Addr::LOCALHOST.into()).await
    }

    /// The answer to a message of a transaction, and whether a token was right.
    async fn answer(&self, transaction: &Transaction<'_>, message: Vec<u8>) -> (Reply, Option<bool>) {
        match self.send(message).await {
            ScepAnswer::Reply { der, token } => (transaction.open(&der, &rng()).expect("reads"), token),
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&self, server: &Server, party: &Party, challenge: Option<&str>) -> (Reply, Option<bool>) {
        let csr = party.csr(challenge);
        let mut transaction = Transaction::new(server, &party.key, &party.own, &csr).expect("begins");
        let message = transaction.request(Kind::Enroll, &csr, &rng()).expect("writes");
        self.answer(&transaction, message).await
    }

    async fn poll(&self, server: &Server, party: &Party) -> Reply {
        let csr = party.csr(None);
        let mut transaction = Transaction::new(server, &party.key, &party.own, &csr).expect("begins");
        let message = transaction.poll(&rng()).expect("writes");
        self.answer(&transaction, message).await.0
    }

    /// Asks for a certificate for another key by one that `party` has.
    async fn renew(&self, server: &Server, party: &Party, present: &[u8], next: &Party) -> Reply {
        let csr = next.csr(None);
        let mut transaction = Transaction::new(server, &party.key, present, &csr).expect("begins");
        let message = transaction.request(Kind::Renew, &csr, &rng()).expect("writes");
        let (reply, token) = self.answer(&transaction, message).await;
        assert_eq!(token, None);
        reply
    }

    async fn token(&self) -> String {
        match self.site.token(1).await {
            Shown::Token(text) => text.to_string(),
            _ => panic!("a token"),
        }
    }

    async fn end(self) {
        drop(self.office);
        self.site.end().await;
    }
}

/// The token with another secret.
fn guessed(token: &str) -> String {
    let (head, tail) = token.split_at(30);
    let other = if tail.starts_with('A') { 'B' } else { 'A' };
    format!("{head}{other}{}", &tail[1..])
}

fn certificate(reply: Reply) -> Vec<u8> {
    match reply {
        Reply::Issued(all) => {
            assert!(all.len() >= 3, "with its chain");
            all[0].clone()
        }
        other => panic!("{other:?}"),
    }
}

fn refusal(reply: Reply) -> (FailInfo, String) {
    match reply {
        Reply::Refused { info, text } => (info, text),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_machine_enrolls_over_scep_by_a_token_renews_and_is_out_when_it_is_revoked() {
    let bench = Bench::new().await;
    assert_eq!(bench.office.scep_ca(), None, "off unless it is set");
    assert!(matches!(bench.send(vec![1, 2, 3]).await, ScepAnswer::Invalid(text) if text.contains("off")));
    bench.set(|s| s.scep = true).await;
    let server = bench.server(1).await;

    let token = bench.token().await;
    let (reply, right) = bench.ask(&server, &LAPTOP, Some(&token)).await;
    let first = certificate(reply);
    assert_eq!(right, Some(true));
    let issued = Certificate::from_der(&first).expect("a certificate");
    assert!(issued.names_host(NAME) && !issued.names_host("boss.example.com"), "{}", issued.subject);
    assert_eq!(issued.spki_der(), LAPTOP.key.public_key().spki_der());
    let (again, _) = bench.ask(&server, &LAPTOP, Some(&token)).await;
    assert_eq!(certificate(again), first, "the answer was lost: the same again");
    let (reply, right) = bench.ask(&server, &THIEF, Some(&token)).await;
    assert_eq!((refusal(reply).0, right), (FailInfo::BadRequest, Some(false)), "used up, and another key");

    // A renewal is signed with the present certificate; the challenge of before is of no use and does no harm.
    let next = bench.renew(&server, &LAPTOP, &first, &THIEF).await;
    let second = certificate(next);
    assert_ne!(serial(&first), serial(&second));
    assert_eq!(certificate(bench.renew(&server, &LAPTOP, &first, &THIEF).await), second);
    let csr = THIEF.csr(Some(&token));
    let mut transaction = Transaction::new(&server, &THIEF.key, &second, &csr).expect("begins");
    let message = transaction.request(Kind::Enroll, &csr, &rng()).expect("writes");
    let third = certificate(bench.answer(&transaction, message).await.0);
    assert_ne!(serial(&third), serial(&second), "as certmonger renews: a PKCSReq with the same key");
    // Nobody renews by what he has signed himself.
    let (info, text) = refusal(bench.renew(&server, &LAPTOP, &LAPTOP.own, &THIEF).await);
    assert!(info == FailInfo::BadRequest && text.contains("token"), "{text}");

    let revoke = RevokeCertificate { serial: serial(&third), reason: "stolen".into() };
    bench.site.done(Action::RevokeCertificate(revoke)).await;
    let (info, text) = refusal(bench.renew(&server, &THIEF, &third, &LAPTOP).await);
    assert!(info == FailInfo::BadRequest && text.contains("revoked"), "{text}");
    bench.end().await;
}

#[tokio::test]
async fn who_guesses_replays_or_steals_gets_nothing() {
    let bench = Bench::new().await;
    bench.set(|s| s.scep = true).await;
    let server = bench.server(1).await;
    for wrong in ["hunter2", "spt1.AAAA", &guessed(&bench.token().await)] {
        let (reply, right) = bench.ask(&server, &THIEF, Some(wrong)).await;
        assert_eq!((refusal(reply).0, right), (FailInfo::BadRequest, Some(false)), "{wrong}");
    }
    for junk in [Vec::new(), b"junk".to_vec(), vec![0x30; 60_000], vec![0x30; 200_000], cms::certs_only(&[&LAPTOP.own])]
    {
        assert!(matches!(bench.send(junk).await, ScepAnswer::Invalid(_)));
    }

    // The laptop's message, seen on the way: a thief signs its envelope, and its transaction with an envelope of his own.
    let token = bench.token().await;
    let csr = LAPTOP.csr(Some(&token));
    let mut transaction = Transaction::new(&server, &LAPTOP.key, &LAPTOP.own, &csr).expect("begins");
    let message = transaction.request(Kind::Enroll, &csr, &rng()).expect("writes");
    let seen = Signed::verify(&message).expect("reads");
    let none: [&[u8]; 0] = [];
    let resigned = |content: &[u8]| {
        cms::sign(content, &seen.attributes, &THIEF.key, &THIEF.own, &none, Digest::Sha256, &rng()).expect("signs")
    };
    let stolen = bench.send(resigned(&seen.content)).await;
    let own_csr = THIEF.csr(None);
    let mut own = Transaction::new(&server, &THIEF.key, &THIEF.own, &own_csr).expect("begins");
    let own_envelope = Signed::verify(&own.request(Kind::Enroll, &own_csr, &rng()).expect("writes")).expect("reads");
    let replayed = bench.send(resigned(&own_envelope.content)).await;
    let ScepAnswer::Reply { der, token: right } = stolen else { panic!("{stolen:?}") };
    assert_eq!(right, None, "his guess is not even looked at");
    let answer = Signed::verify(&der).expect("reads");
    assert!(answer.content.is_empty(), "nothing is in it");
    let ScepAnswer::Reply { der, token: None } = replayed else { panic!("{replayed:?}") };
    assert!(Signed::verify(&der).expect("reads").content.is_empty(), "it waits for an operator, as any stranger");
    let waiting: Vec<Vec<u8>> =
        bench.site.core.node.shared().read().requests.iter().map(|(_, row)| row.key_sha256.clone()).collect();
    assert_eq!(waiting, [Fingerprint::of(THIEF.key.public_key().spki_der()).0.to_vec()]);
    // The token is as good as before, and the message itself, replayed by anybody, brings its owner what it has.
    let (reply, _) = bench.answer(&transaction, message.clone()).await;
    let first = certificate(reply);
    let (reply, _) = bench.answer(&transaction, message).await;
    assert_eq!(certificate(reply), first);
    bench.end().await;
}

#[tokio::test]
async fn without_proof_it_waits_polls_and_hears_the_decision() {
    let bench = Bench::new().await;
    bench.set(|s| s.scep = true).await;
    let server = bench.server(1).await;
    assert_eq!(refusal(bench.poll(&server, &LAPTOP).await).0, FailInfo::BadCertId, "nothing was asked");
    for _ in 0..2 {
        assert_eq!(bench.ask(&server, &LAPTOP, None).await, (Reply::Pending, None));
        assert_eq!(bench.poll(&server, &LAPTOP).await, Reply::Pending);
    }
    assert_eq!(refusal(bench.poll(&server, &THIEF).await).0, FailInfo::BadCertId, "another key");
    let number = *bench.site.core.node.shared().read().requests.iter().next().expect("one").0;
    let decide = |approve| DecideRequest { number, approve, name: NAME.into(), ..DecideRequest::default() };
    bench.site.done(Action::DecideRequest(decide(false))).await;
    let (info, text) = refusal(bench.poll(&server, &LAPTOP).await);
    assert!(info == FailInfo::BadRequest && text.contains("operator"), "{text}");
    bench.site.done(Action::DecideRequest(decide(true))).await;
    let issued = certificate(bench.poll(&server, &LAPTOP).await);
    assert!(Certificate::from_der(&issued).expect("a certificate").names_host(NAME));
    assert_eq!(certificate(bench.poll(&server, &LAPTOP).await), issued, "the answer was lost");
    assert_eq!(certificate(bench.ask(&server, &LAPTOP, None).await.0), issued);
    bench.site.done(Action::RemoveMachine(RemoveMachine { key: NAME.into() })).await;
    let (_, text) = refusal(bench.renew(&server, &LAPTOP, &issued, &THIEF).await);
    assert!(text.contains("revoked"), "{text}");
    bench.end().await;
}

#[tokio::test]
async fn the_ra_is_replaced_in_time_and_the_former_opens_messages_until_it_ends() {
    let bench = Bench::new().await;
    bench.set(|s| s.scep = true).await;
    let first = bench.server(1).await;
    let day = Duration::from_secs(86_400);
    bench.site.clock.advance(300 * day);
    assert_eq!(bench.server(1).await.certificates(), first.certificates());
    bench.site.clock.advance(10 * day);
    let second = bench.server(2).await;
    assert_ne!(second.certificates(), first.certificates());
    for server in [&first, &second] {
        assert_eq!(bench.ask(server, &LAPTOP, None).await.0, Reply::Pending);
    }
    bench.site.clock.advance(60 * day);
    let csr = LAPTOP.csr(None);
    let mut transaction = Transaction::new(&first, &LAPTOP.key, &LAPTOP.own, &csr).expect("begins");
    let message = transaction.request(Kind::Enroll, &csr, &rng()).expect("writes");
    let late = bench.send(message).await;
    let ScepAnswer::Reply { der, token: None } = late else { panic!("{late:?}") };
    assert_eq!(Signed::verify(&der).expect("reads").signer, second.certificates()[0], "fetch the RA again");
    // One that was revoked is of no use from then on.
    let revoked = serial(&second.certificates()[0]);
    bench.site.done(Action::RevokeCertificate(RevokeCertificate { serial: revoked, reason: "x".into() })).await;
    let third = bench.server(3).await;
    assert_eq!(bench.ask(&third, &LAPTOP, None).await.0, Reply::Pending);
    // And one whose authority has retired goes with it.
    crate::authority::add_issuers(&bench.site.core, vec![KeyAlgorithm::EcdsaP256.into()], true).await.expect("adds");
    let fourth = bench.server(4).await;
    assert_ne!(fourth.certificates()[1], third.certificates()[1]);
    bench.set(|s| s.scep = false).await;
    assert_eq!(bench.office.scep_ca(), None);
    bench.end().await;
}

#[tokio::test]
async fn below_level_7_scep_stays_off_and_ocsp_says_later() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut config = crate::Config { metrics_listen: None, ..crate::Config::default() };
    config.listen.set_port(0);
    let mut start = crate::Start::new(crate::Formation::Found);
    start.software.level = STATUS_LEVEL - 1;
    let running = crate::Controller::start_as(config, dir.path(), start).await.expect("starts");
    let core = running.core().clone();
    let settings = Some(SettingsRow { scep: true, ..core.node.shared().read().settings() });
    let refused = core.propose(Action::UpdateSettings(UpdateSettings { settings })).await.expect_err("too early");
    assert!(refused.to_string().contains("level 7"), "{refused}");
    refresh(&core).await.expect("nothing is to be done");
    assert!(core.node.shared().read().scep_ras.is_empty());
    drop(core);
    running.shutdown().await;
}

/// Plain HTTP carries SCEP: anybody on the way can record a message and send it again.
#[tokio::test]
async fn a_message_that_is_replayed_after_days_brings_the_same_certificate_and_costs_the_machine_nothing() {
    let bench = Bench::new().await;
    bench.set(|s| s.scep = true).await;
    let server = bench.server(1).await;
    let Shown::Token(token) = bench.site.token(5).await else { panic!("a token") };
    let csr = LAPTOP.csr(Some(&token));
    let mut enroll = Transaction::new(&server, &LAPTOP.key, &LAPTOP.own, &csr).expect("begins");
    let recorded = enroll.request(Kind::Enroll, &csr, &rng()).expect("writes");
    let first = certificate(bench.answer(&enroll, recorded.clone()).await.0);
    let csr = THIEF.csr(None);
    let mut renew = Transaction::new(&server, &LAPTOP.key, &first, &csr).expect("begins");
    let renewal = renew.request(Kind::Renew, &csr, &rng()).expect("writes");
    let second = certificate(bench.answer(&renew, renewal.clone()).await.0);
    assert_ne!(first, second);
    for _ in 0..2 {
        bench.site.clock.advance(Duration::from_secs(86_400 + 60));
        assert_eq!(certificate(bench.answer(&enroll, recorded.clone()).await.0), first);
        assert_eq!(certificate(bench.answer(&renew, renewal.clone()).await.0), second);
    }
    {
        let state = bench.site.core.node.shared().read();
        let (machine, now_ms) = (state.machine(NAME).expect("known").clone(), bench.site.core.now_ms());
        assert_eq!((machine.serial.as_str(), machine.previous.as_str()), (&*serial(&second), &*serial(&first)));
        for one in [&first, &second] {
            assert!(state.machine_certificate(&serial(one), now_ms).is_ok(), "what the machine has is good");
        }
    }
    bench.end().await;
}
