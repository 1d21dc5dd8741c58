//! The root's life: its key out of the cluster and back, a company's root above it, another root in its place.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sallyport_ca::crl::{RevocationList, Revocations};
use sallyport_ca::verify::{CertPayload, PeerRole, TrustStore, verify_peer};
use sallyport_ca::{Certificate, KeyAlgorithm, KeyPair, Profile, SystemRandom, UnixTime, pem};
use sallyport_controller::root_key::{Exported, RootKey};
use sallyport_controller::{Controller, Issued};
use sallyport_proto::v1;
use sallyport_proto::v1::manage_root_request::Step;
use sallyport_proto::v1::revocation_client::RevocationClient;
use tonic::{Code, Status};

use super::{common, of_kind, start};
use crate::common::{Site, issue};

/// Longer than anything here takes on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(60);

async fn manage(site: &Site, step: Step) -> Result<v1::ManageRootResponse, Status> {
    let request = v1::ManageRootRequest { root: 0, step: Some(step) };
    site.operator().await.manage_root(request).await.map(tonic::Response::into_inner)
}

/// What the audit log says of keys that were used or left.
async fn key_uses(site: &Site) -> Vec<v1::LogEntry> {
    let log = site.operator().await.read_log(v1::ReadLogRequest::default()).await.expect("reads").into_inner();
    let entries = log.entries.iter().map(|entry| prost::Message::decode(entry.as_slice()).expect("an entry"));
    entries.filter(|entry: &v1::LogEntry| entry.kind() == v1::LogKind::KeyUsed).collect()
}

async fn look(site: &Site) -> v1::ManageRootResponse {
    manage(site, Step::Look(v1::LookAtRoot {})).await.expect("answers")
}

async fn has_key(site: &Site) -> bool {
    look(site).await.info.expect("a root").has_key
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}

/// The root's key, through shares, as an operator takes it.
async fn export(site: &Site) -> RootKey {
    let answer = manage(site, Step::Export(v1::ExportRootKey {})).await.expect("hands it out");
    let key = answer.private_key.expect("a key").into_inner();
    let root = RootKey::new(&answer.info.expect("a root").certificate, key).expect("fits");
    let (file, shares) = root.to_shares(2, 3, &SystemRandom::new()).expect("shares");
    Exported::parse(&file).and_then(|exported| exported.open_with_shares(&shares[1..])).expect("any two open it")
}

async fn erase(site: &Site, root: &RootKey) -> Result<v1::ManageRootResponse, Status> {
    let cluster = look(site).await.cluster_id;
    let proof = root.prove_kept(&cluster, &SystemRandom::new()).expect("signs");
    let fingerprint = root.certificate().fingerprint.0.to_vec();
    manage(site, Step::Erase(v1::EraseRootKey { fingerprint, proof })).await
}

async fn import(site: &Site, root: &RootKey, for_s: u32) -> Result<v1::ManageRootResponse, Status> {
    let private_key = Some(v1::Secret::new(root.pkcs8().to_vec()));
    manage(site, Step::Import(v1::ImportRootKey { private_key, for_s })).await
}

async fn add_issuer(site: &Site, key: v1::KeyAlgorithm) -> Result<u64, Status> {
    let request = v1::AddIssuerRequest { key_algorithm: key.into(), replace: true, ..Default::default() };
    site.operator().await.add_issuer(request).await.map(|made| made.into_inner().number)
}

/// What anybody is told of revoked controllers.
async fn said(site: &Site) -> v1::ListControllersResponse {
    let tls = common::tls(&site.running.root_certificate(), None);
    let channel = common::connect(site.running.grpc_address(), tls).await.expect("connects");
    let asked = RevocationClient::new(channel).list_controllers(v1::ListControllersRequest {}).await;
    asked.expect("anybody may ask").into_inner()
}

/// The certificate in the controller's folder.
fn own_certificate(site: &Site) -> Certificate {
    let text = std::fs::read(site.dir.path().join("controller/cert.pem")).expect("there");
    Certificate::from_pem(&text).expect("a certificate")
}

/// Revokes the controller's own certificate; it makes another one.
#[allow(clippy::needless_update, reason = "what else a revocation says does not matter here")]
async fn revoke_own(site: &Site) -> Certificate {
    let own = own_certificate(site);
    let request =
        v1::RevokeCertificateRequest { serial: own.serial.to_string(), reason: "stolen".into(), ..Default::default() };
    site.operator().await.revoke_certificate(request).await.expect("revokes");
    own
}

/// What a gateway says of a machine that shows what it was given, where it trusts only this root.
fn admitted(anchor: &[u8], issued: &Issued) -> Result<(), String> {
    let mut trust = TrustStore::new();
    trust.add_anchor_der(anchor).map_err(|e| e.to_string())?;
    let (_, between) = issued.chain.split_last().expect("a chain");
    let shown = std::iter::once(&issued.certificate).chain(between);
    let shown: Vec<_> = shown.map(|der| CertPayload { encoding: 4, data: der }).collect();
    verify_peer(&trust, &shown, None, PeerRole::Machine, UnixTime(issued.record.issued_ms as i64 / 1_000))
        .map(drop)
        .map_err(|e| e.to_string())
}

fn openssl() -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok_and(|out| out.status.success());
    if !there {
        let _ = std::io::stderr().write_all(b"skipped: no openssl here (Debian package openssl)\n");
    }
    there
}

fn run(dir: &Path, args: &[&str]) -> (bool, String) {
    let out = Command::new("openssl").current_dir(dir).args(args).output().expect("runs");
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// What OpenSSL says of a leaf with what comes with it, to somebody who trusts this root only.
fn openssl_verifies(anchor: &[u8], issued: &Issued) -> (bool, String) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let write = |name: &str, all: &[&Vec<u8>]| {
        let text: String = all.iter().map(|der| pem::encode("CERTIFICATE", der).to_string()).collect();
        std::fs::write(dir.path().join(name), text).expect("writes");
    };
    let (_, between) = issued.chain.split_last().expect("a chain");
    write("root.pem", &[&anchor.to_vec()]);
    write("between.pem", &between.iter().collect::<Vec<_>>());
    write("leaf.pem", &[&issued.certificate]);
    run(
        dir.path(),
        &["verify", "-x509_strict", "-no-CApath", "-CAfile", "root.pem", "-untrusted", "between.pem", "leaf.pem"],
    )
}

#[tokio::test]
async fn the_roots_key_leaves_once_it_is_shown_elsewhere_and_work_goes_on_without_it() {
    let mut site = common::site().await;
    let sealed = site.dir.path().join("ca/root.key.sealed");
    let root = export(&site).await;
    assert!(has_key(&site).await && sealed.exists(), "an export takes nothing away");
    manage(&site, Step::Request(v1::RequestChain {})).await.expect("signs a request");
    let used = key_uses(&site).await;
    let details: Vec<&str> = used.iter().map(|entry| entry.detail.as_str()).collect();
    assert!(
        matches!(details.as_slice(), [out, asked] if out.contains("goes out") && asked.contains("request")),
        "{details:?}"
    );
    assert!(used.iter().all(|entry| entry.name == "root 1" && !entry.actor.is_empty()), "{used:?}");
    // Of another cluster, or of nobody.
    let wrong = v1::EraseRootKey { fingerprint: root.certificate().fingerprint.0.to_vec(), proof: vec![1; 70] };
    let refused = manage(&site, Step::Erase(wrong)).await.expect_err("not shown");
    assert!(refused.message().contains("sallyport ca root export"), "{refused}");
    let proof = root.prove_kept(b"another cluster", &SystemRandom::new()).expect("signs");
    let wrong = v1::EraseRootKey { fingerprint: root.certificate().fingerprint.0.to_vec(), proof };
    assert_eq!(manage(&site, Step::Erase(wrong)).await.expect_err("another cluster's").code(), Code::InvalidArgument);
    let early = revoke_own(&site).await;
    assert!(said(&site).await.below.is_empty(), "the root signs as long as it is here");

    let info = erase(&site, &root).await.expect("erases").info.expect("a root");
    assert!(!info.has_key && info.erased_unix_ms != 0 && info.list_until_unix_ms > info.erased_unix_ms);
    erase(&site, &root).await.expect_err("it is away");
    until("the file of the key is gone", async || !sealed.exists()).await;
    // The daily work, also after a restart.
    issue(&site.running, Profile::Operator, "olga").await;
    site = site.restart().await;
    assert!(!has_key(&site).await && !sealed.exists());
    until("another certificate", async || own_certificate(&site).serial != early.serial).await;
    let late = revoke_own(&site).await;
    let told = said(&site).await;
    let roots = [site.running.root_certificate()];
    let old_reader = RevocationList::verify(&told.crl, &roots).expect("older software takes the root's last list");
    assert!(old_reader.revoked.contains_key(&early.serial) && !old_reader.revoked.contains_key(&late.serial));
    let reader = Revocations::trusting(pem::encode("CERTIFICATE", &roots[0]).as_bytes()).expect("a root");
    reader.take_all(&[told.crl, told.below].concat()).expect("the way to the root is there");
    assert!(reader.refuses(early.der()).is_some() && reader.refuses(late.der()).is_some());
    // What cannot be done says how it can.
    for refused in [
        add_issuer(&site, v1::KeyAlgorithm::EcdsaP384).await.expect_err("needs the key"),
        manage(&site, Step::Begin(v1::BeginRollover::default())).await.expect_err("needs the key"),
        manage(&site, Step::Request(v1::RequestChain {})).await.expect_err("needs the key"),
        manage(&site, Step::Export(v1::ExportRootKey {})).await.map(drop).expect_err("needs the key"),
    ] {
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("sallyport ca root import"), "{refused}");
    }

    // A ceremony.
    let other = KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).expect("a key");
    let private_key = Some(v1::Secret::new(other.pkcs8_der().to_vec()));
    let strange = manage(&site, Step::Import(v1::ImportRootKey { private_key, for_s: 5 })).await;
    assert_eq!(strange.map(drop).expect_err("another key").code(), Code::InvalidArgument);
    let until_ms = import(&site, &root, 600).await.expect("comes back").info.expect("a root").key_until_unix_ms;
    assert!(until_ms != 0);
    add_issuer(&site, v1::KeyAlgorithm::EcdsaP384).await.expect("the key is here");
    // Its time is set anew, and ends by itself.
    import(&site, &root, 1).await.expect("a shorter stay");
    until("the key is erased again", async || !has_key(&site).await).await;
    import(&site, &root, 0).await.expect("for good");
    let twice = import(&site, &root, 0).await.map(drop).expect_err("it is here");
    assert_eq!(twice.code(), Code::FailedPrecondition, "{twice}");
    assert!(said(&site).await.below.is_empty(), "and signs again");
    site.running.shutdown().await;
}

#[tokio::test]
async fn a_cluster_below_level_7_keeps_its_roots_key_and_can_give_it_away_after_the_upgrade() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let site = Site { running: start(common::config(), dir.path(), 6).await, dir };
    let root = export(&site).await;
    let early = erase(&site, &root).await.map(drop).expect_err("too early");
    assert!(early.code() == Code::FailedPrecondition && early.message().contains("level 7"), "{early}");
    let begin = Step::Begin(v1::BeginRollover::default());
    assert_eq!(manage(&site, begin).await.map(drop).expect_err("too early").code(), Code::FailedPrecondition);
    let Site { dir, running } = site;
    running.shutdown().await;
    let site = Site { running: Controller::start(common::config(), dir.path()).await.expect("starts"), dir };
    until("the level rises", async || erase(&site, &root).await.is_ok()).await;
    assert!(!has_key(&site).await);
    site.running.shutdown().await;
}

#[tokio::test]
async fn a_companys_root_stands_above_ours_and_openssl_leads_a_machine_that_trusts_it_to_a_gateway() {
    if !openssl() {
        return;
    }
    let (site, work) = (common::site().await, tempfile::tempdir().expect("temporary folder"));
    let at = |name: &str| work.path().join(name);
    let request = manage(&site, Step::Request(v1::RequestChain {})).await.expect("a request").request;
    std::fs::write(at("ours.csr"), pem::encode("CERTIFICATE REQUEST", &request).as_bytes()).expect("writes");
    let must = |args: &[&str]| {
        let (good, text) = run(work.path(), args);
        assert!(good, "openssl {args:?}: {text}");
    };
    std::fs::write(at("more.cnf"), "authorityKeyIdentifier=keyid:always\n").expect("writes");
    let subject = "/O=Company/CN=Company Root";
    for (name, length) in [("company", "2"), ("narrow", "1")] {
        let constraints = format!("basicConstraints=critical,CA:TRUE,pathlen:{length}");
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        must(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &cert,
            "-subj",
            subject,
            "-days",
            "30",
            "-addext",
            &constraints,
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ]);
        let chain = format!("{name}-ours.pem");
        must(&[
            "x509",
            "-req",
            "-in",
            "ours.csr",
            "-CA",
            &cert,
            "-CAkey",
            &key,
            "-copy_extensions",
            "copyall",
            "-days",
            "20",
            "-extfile",
            "more.cnf",
            "-out",
            &chain,
        ]);
    }
    let chain = |names: &[&str]| -> Vec<Vec<u8>> {
        let read = |name: &&str| pem::certificates(&std::fs::read(at(name)).expect("there")).expect("PEM").remove(0);
        names.iter().map(read).collect()
    };
    let install = async |above| manage(&site, Step::Install(v1::InstallChain { above })).await;
    let refused = install(chain(&["narrow-ours.pem", "narrow.pem"])).await.map(drop).expect_err("too narrow");
    assert!(refused.message().contains("path length is 1"), "{refused}");
    let refused = install(chain(&["company-ours.pem"])).await.map(drop).expect_err("no root");
    assert!(refused.message().contains("append the company's root"), "{refused}");

    let company = chain(&["company.pem"]).remove(0);
    let before = of_kind(&site.running, KeyAlgorithm::EcdsaP256).await;
    assert!(!openssl_verifies(&company, &before).0, "there is no way yet");
    let info = install(chain(&["company-ours.pem", "company.pem"])).await.expect("installs").info.expect("a root");
    assert_eq!(info.above.len(), 2);
    let machine = of_kind(&site.running, KeyAlgorithm::EcdsaP256).await;
    let ours = site.running.root_certificate();
    assert_eq!(machine.chain.last(), Some(&company));
    for anchor in [&company, &ours] {
        assert_eq!(admitted(anchor, &machine), Ok(()));
        let (good, text) = openssl_verifies(anchor, &machine);
        assert!(good, "{text}");
    }
    // The cluster's own go on by our root, and with longer chains.
    let link = issue(&site.running, Profile::GatewayLink, "gw1").await;
    let mut gateway = v1::gateway_client::GatewayClient::new(site.channel(&link).await.expect("connects"));
    let policy = common::register(&mut gateway, "gw1", 1).await.policy.expect("a policy");
    assert_eq!(policy.trusted_roots, [ours]);
    let site = site.restart().await;
    assert_eq!(of_kind(&site.running, KeyAlgorithm::EcdsaP256).await.chain.last(), Some(&company));
    site.running.shutdown().await;
}

#[tokio::test]
async fn roots_change_while_clients_with_the_old_and_the_new_chain_are_admitted() {
    let site = common::site().await;
    let old_root = site.running.root_certificate();
    let old = of_kind(&site.running, KeyAlgorithm::EcdsaP256).await;
    let link = issue(&site.running, Profile::GatewayLink, "gw1").await;
    // A controller's certificate that is revoked stays so for everybody, whichever root he trusts in the end.
    let gone = revoke_own(&site).await;
    until("another certificate", async || own_certificate(&site).serial != gone.serial).await;
    let rollover = async || look(&site).await.rollover;
    let step = async |step| manage(&site, step).await;
    let none = step(Step::Activate(v1::ActivateRollover { force: false })).await.map(drop).expect_err("not begun");
    assert!(none.message().contains("ca rollover begin"), "{none}");

    let key_algorithm = v1::KeyAlgorithm::EcdsaP384.into();
    let begun =
        step(Step::Begin(v1::BeginRollover { key_algorithm, common_name: String::new() })).await.expect("begins");
    let info = begun.rollover.expect("under way");
    assert_eq!((info.from, info.to, info.activated_unix_ms, info.leads_on), (1, 2, 0, true));
    assert!(info.waiting >= 2, "{info:?}");
    assert!(info.waiting_first.iter().any(|w| w.name == "laptop.example.com"), "{info:?}");
    // Gateways trust both from now on, folders hold both, and what is issued is of the old root still.
    let mut gateway = v1::gateway_client::GatewayClient::new(site.channel(&link).await.expect("connects"));
    let policy = common::register(&mut gateway, "gw1", 1).await.policy.expect("a policy");
    assert_eq!((policy.trusted_roots.len(), &policy.trusted_roots[0]), (2, &old_root));
    let new_root = policy.trusted_roots[1].clone();
    assert!(Certificate::from_der(&new_root).is_ok_and(|root| root.subject == "O=Sallyport, CN=Sallyport Root 2"));
    let renewed = of_kind(&site.running, KeyAlgorithm::EcdsaP256).await;
    assert_eq!(renewed.chain.last(), Some(&old_root));
    let counted = rollover().await.expect("under way");
    assert!(counted.ready > info.ready && counted.waiting < info.waiting, "it was told of both: {counted:?}");

    let active = step(Step::Activate(v1::ActivateRollover { force: false })).await.expect("activates");
    let info = active.rollover.expect("under way");
    assert!(info.activated_unix_ms != 0 && info.below_from >= 1, "{info:?}");
    assert_eq!(site.running.root_certificate(), new_root);
    let new = of_kind(&site.running, KeyAlgorithm::EcdsaP256).await;
    let both_know = openssl();
    for (anchor, issued, what) in [
        (&old_root, &old, "old root, old chain"),
        (&old_root, &new, "old root, new chain"),
        (&new_root, &new, "new root, new chain"),
    ] {
        assert_eq!(admitted(anchor, issued), Ok(()), "{what}");
        if both_know {
            let (good, text) = openssl_verifies(anchor, issued);
            assert!(good, "{what}: {text}");
        }
    }
    assert!(admitted(&new_root, &old).is_err(), "for these the old root is trusted until the end");
    // The controller itself admits both, whichever root its caller trusts.
    let new_link = issue(&site.running, Profile::GatewayLink, "gw2").await;
    for (root, link, name) in [(&old_root, &link, "gw1"), (&old_root, &new_link, "gw2")] {
        let shown = link.chain_pem();
        let tls = common::tls(root, Some((&shown, &link.private_key)));
        let channel = common::connect(site.running.grpc_address(), tls).await.expect("connects");
        let policy = common::register(&mut v1::gateway_client::GatewayClient::new(channel), name, 2).await.policy;
        assert_eq!(policy.expect("a policy").trusted_roots, [new_root.clone(), old_root.clone()]);
    }
    let told = said_to(&site, &old_root).await;
    for root in [&old_root, &new_root] {
        let reader = Revocations::trusting(pem::encode("CERTIFICATE", root).as_bytes()).expect("a root");
        let _ = reader.take_all(&told); // beside what it takes is a list for who knows the other root only
        assert!(reader.refuses(gone.der()).is_some(), "it is told to who knows this root alone");
        assert!(reader.refuses(own_certificate(&site).der()).is_none());
    }
    let live =
        step(Step::Finish(v1::FinishRollover { force: false })).await.map(drop).expect_err("certificates are live");
    assert!(live.message().contains("--force"), "{live}");

    // Back, forth again, and done.
    step(Step::Abort(v1::AbortRollover {})).await.expect("goes back");
    assert_eq!(site.running.root_certificate(), old_root);
    let back = of_kind(&site.running, KeyAlgorithm::EcdsaP256).await;
    assert_eq!(back.record.issuer, old.record.issuer);
    for anchor in [&old_root, &new_root] {
        assert_eq!(admitted(anchor, &back), Ok(()), "who trusts the next root only is led back");
    }
    assert_eq!(admitted(&new_root, &new), Ok(()));
    step(Step::Finish(v1::FinishRollover { force: true })).await.expect("ends");
    assert!(rollover().await.is_none());
    let mut gateway = v1::gateway_client::GatewayClient::new(site.channel(&link).await.expect("connects"));
    let policy = common::register(&mut gateway, "gw1", 3).await.policy.expect("a policy");
    assert_eq!(policy.trusted_roots, [old_root]);
    let site = site.restart().await;
    of_kind(&site.running, KeyAlgorithm::EcdsaP256).await;
    site.running.shutdown().await;
}

/// All that is said of revoked controllers, to somebody who trusts this root.
async fn said_to(site: &Site, root: &[u8]) -> Vec<u8> {
    let channel = common::connect(site.running.grpc_address(), common::tls(root, None)).await.expect("connects");
    let asked = RevocationClient::new(channel).list_controllers(v1::ListControllersRequest {}).await;
    let v1::ListControllersResponse { crl, below, .. } = asked.expect("anybody may ask").into_inner();
    [crl, below].concat()
}

#[tokio::test]
async fn a_root_and_what_is_below_it_have_any_kind_of_key() {
    use KeyAlgorithm::{EcdsaP256, EcdsaP384, Rsa2048, Rsa3072, Rsa4096};
    let with_openssl = openssl();
    let pairs = [(EcdsaP384, Rsa3072), (Rsa2048, EcdsaP384), (Rsa3072, EcdsaP256), (Rsa4096, Rsa2048)];
    let all = pairs.map(|(of_root, of_issuer)| {
        tokio::spawn(async move {
            let dir = tempfile::tempdir().expect("temporary folder");
            let mut config = common::config();
            config.authority.key = of_root;
            config.authority.issuing = vec![of_issuer];
            let site = Site { running: Controller::start(config, dir.path()).await.expect("starts"), dir };
            let issued = of_kind(&site.running, EcdsaP256).await;
            let root = site.running.root_certificate();
            assert_eq!(admitted(&root, &issued), Ok(()), "{of_root} above {of_issuer}");
            if with_openssl {
                let (good, text) = openssl_verifies(&root, &issued);
                assert!(good, "{of_root} above {of_issuer}: {text}");
            }
            let request = v1::ListAuthoritiesRequest {};
            let listed = site.operator().await.list_authorities(request).await.expect("lists").into_inner().authorities;
            site.running.shutdown().await;
            listed.iter().map(|a| a.key_algorithm()).collect::<Vec<_>>()
        })
    });
    let mut seen = Vec::new();
    for one in all {
        let [root, issuer] = one.await.expect("it works").try_into().expect("two authorities");
        seen.push((root, issuer));
    }
    use v1::KeyAlgorithm as Kind;
    let expected = [
        (Kind::EcdsaP384, Kind::Rsa3072),
        (Kind::Rsa2048, Kind::EcdsaP384),
        (Kind::Rsa3072, Kind::EcdsaP256),
        (Kind::Rsa4096, Kind::Rsa2048),
    ];
    assert_eq!(seen, expected);
}
