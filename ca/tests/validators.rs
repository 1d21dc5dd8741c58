//! What other validators say of our chains and lists: NSS, which libreswan is built on, Java, and Python's cryptography; and
//! pkilint, which reads them against the letter of RFC 5280. OpenSSL and GnuTLS are asked elsewhere (`issue.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sallyport_ca::crl::{Contents, Reason, Revoked, Status};
use sallyport_ca::ocsp::{Request, Responder, Validity};
use sallyport_ca::seal::SealKey;
use sallyport_ca::*;

use self::tools::{has_java, has_nss, python, rng, source};

mod tools;

/// A day before now: NSS and pkilint go by the clock of the machine.
fn now() -> UnixTime {
    #[allow(clippy::disallowed_methods, reason = "what is compared with has no other clock")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime(i64::try_from(since.as_secs()).unwrap() - DAY)
}

const DAY: i64 = 86_400;
const ROOT_CRL: &str = "http://vpn.example.com/ca/root.crl";
const CRL: &str = "http://vpn.example.com/ca/1/0.crl";

/// A chain and what shall be said of it.
struct Case {
    name: String,
    root: Certificate,
    /// The leaf, then the issuing authority.
    chain: [Certificate; 2],
    /// Those that are served: the root's, and a shard of the issuing authority's with its issuing distribution point.
    lists: [Vec<u8>; 2],
    /// The same without distribution points.
    whole_lists: [Vec<u8>; 2],
    at: UnixTime,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Revoked,
    /// The issuing authority is.
    AuthorityRevoked,
    Expired,
    /// By another authority of the same name.
    Strange,
}

/// Chains of each kind of root and issuing authority, with leaves of both kinds of key, and bad ones of each sort.
fn cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        use KeyAlgorithm::{EcdsaP256, EcdsaP384, Rsa2048};
        let leaf_keys = [EcdsaP256, Rsa2048].map(|kind| KeyPair::generate(kind, &rng()).unwrap().public_key());
        let kinds = [(EcdsaP384, Rsa2048), (EcdsaP256, EcdsaP256), (Rsa2048, EcdsaP384)];
        kinds.iter().flat_map(|(root, issuing)| of_hierarchy(*root, *issuing, &leaf_keys)).collect()
    })
}

fn of_hierarchy(above: KeyAlgorithm, below: KeyAlgorithm, leaf_keys: &[PublicKey]) -> Vec<Case> {
    let (now, seal_key) = (now(), SealKey::generate(&rng()).unwrap());
    let root = || {
        let config = RootConfig { key: above, ..RootConfig::new("Example Org", "Example Root") };
        let mut made = Authority::create(&config, &seal_key, now, &rng()).unwrap().0;
        made.set_urls(RevocationUrls { crl: Some(ROOT_CRL.into()), ..Default::default() }).unwrap();
        made
    };
    let (root, other_root) = (root(), root());
    let config = IssuingConfig::new("Example Issuing 1", below);
    let mut issuing = Authority::create_issuing(&root, &config, &seal_key, now, &rng()).unwrap().0;
    let ca_issuers = Some("http://vpn.example.com/ca/1.cer".into());
    issuing.set_urls(RevocationUrls { crl: Some(CRL.into()), ca_issuers, ..Default::default() }).unwrap();
    let issue = |profile: Profile, name: &str, key: &PublicKey| {
        let subject = Subject::new(name, vec![]).unwrap();
        issuing.issue(profile, &subject, key, now, Serial::generate(&rng()).unwrap(), &rng()).unwrap()
    };
    let stolen: Vec<_> = leaf_keys.iter().map(|key| issue(Profile::Machine, "laptop8.example.com", key)).collect();
    let list = |authority: &Authority, distribution_point: &str, serials: &[Serial], this_update: UnixTime| {
        let entry = |serial: &Serial| Revoked { serial: serial.clone(), at: now, reason: Reason::KeyCompromise };
        let revoked: Vec<Revoked> = serials.iter().map(entry).collect();
        let next_update = UnixTime(this_update.0 + 7 * DAY);
        let points: &[&str] = if distribution_point.is_empty() { &[] } else { &[distribution_point] };
        let contents = Contents { distribution_points: points, number: 7, revoked: &revoked, this_update, next_update };
        authority.sign_revocation_list(&authority.prepare_revocation_list(&contents).unwrap(), &rng()).unwrap()
    };
    let lists = |shard: &str, verdict: Verdict, at: UnixTime| {
        let authority = [issuing.certificate().serial.clone()];
        let above: &[Serial] = if verdict == Verdict::AuthorityRevoked { &authority } else { &[] };
        let below: Vec<Serial> = stolen.iter().map(|leaf| leaf.serial.clone()).collect();
        [list(&root, "", above, at), list(&issuing, shard, &below, at)]
    };
    let mut out = Vec::new();
    for (key, stolen) in leaf_keys.iter().zip(&stolen) {
        let gateway = issue(Profile::Gateway, "vpn.example.com", key);
        let machine = issue(Profile::Machine, "laptop7.example.com", key);
        let late = UnixTime(machine.not_after.0 + DAY);
        for (name, leaf, root_shown, at, verdict) in [
            ("vpn", &gateway, &root, now, Verdict::Good),
            ("laptop", &machine, &root, now, Verdict::Good),
            ("stolen", stolen, &root, now, Verdict::Revoked),
            ("below-revoked", &machine, &root, now, Verdict::AuthorityRevoked),
            ("late", &machine, &root, late, Verdict::Expired),
            ("vpn-strange", &gateway, &other_root, now, Verdict::Strange),
            ("strange", &machine, &other_root, now, Verdict::Strange),
        ] {
            out.push(Case {
                name: format!("{name}-{}-{below}-{above}", key.algorithm()),
                root: root_shown.certificate().clone(),
                chain: [leaf.clone(), issuing.certificate().clone()],
                lists: lists(CRL, verdict, at),
                whole_lists: lists("", verdict, at),
                at,
                verdict,
            });
        }
    }
    out
}

/// Writes the files of all cases, and the list of them that the validators in this folder read.
fn written(dir: &Path) -> PathBuf {
    let mut lines = String::new();
    for (number, case) in cases().iter().enumerate() {
        let write = |kind: &str, index: usize, der: &[u8]| {
            let path = dir.join(format!("{number}-{kind}{index}.der"));
            std::fs::write(&path, der).unwrap();
            path.display().to_string()
        };
        let root = write("root", 0, case.root.der());
        let lists: Vec<String> = case.lists.iter().enumerate().map(|(i, der)| write("list", i, der)).collect();
        let chain: Vec<String> = case.chain.iter().enumerate().map(|(i, c)| write("cert", i, c.der())).collect();
        let millis = (case.at.0 + 60) * 1000;
        lines += &format!("{}|{millis}|{root}|{}|{}\n", case.name, lists.join(","), chain.join(","));
    }
    let file = dir.join("cases");
    std::fs::write(&file, lines).unwrap();
    file
}

/// Runs a validator over the file of cases and gives its answers in their order.
fn answers(command: &mut Command) -> Vec<String> {
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let answers: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), cases().len(), "{text}");
    answers
}

#[test]
fn java_agrees_with_chains_and_lists() {
    if !has_java() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = written(dir.path());
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-Xshare:auto"]).arg(source("Validate.java")).arg(file);
    for (case, answer) in cases().iter().zip(answers(&mut java)) {
        let expected = match case.verdict {
            Verdict::Good => " good",
            Verdict::Revoked | Verdict::AuthorityRevoked => " REVOKED",
            Verdict::Expired => " EXPIRED",
            Verdict::Strange => " NO_TRUST_ANCHOR",
        };
        assert!(answer.starts_with(&format!("{}{expected}", case.name)), "{answer}");
    }
}

#[test]
fn pythons_cryptography_agrees_with_chains() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = written(dir.path());
    let answers = answers(Command::new(python).arg(source("validate.py")).arg(file));
    for (case, answer) in cases().iter().zip(answers) {
        let good = matches!(case.verdict, Verdict::Good | Verdict::Revoked | Verdict::AuthorityRevoked);
        assert_eq!(answer == format!("{} good", case.name), good, "{answer}");
    }
}

fn run(program: &str, args: &[&str], dir: &Path) -> (bool, String) {
    let out = Command::new(program).args(args).current_dir(dir).output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

/// NSS refuses a list with an issuing distribution point, which RFC 5280 §5.2.5 has as critical, as one that it does not
/// understand. So its users, libreswan among them, need lists without.
#[test]
fn nss_agrees_with_chains_and_whole_lists_for_ipsec() {
    if !has_nss() {
        return;
    }
    // What is revoked stays so in a database: one for each root and each pair of lists.
    let mut databases: BTreeMap<(&[u8], bool, UnixTime), Vec<&Case>> = BTreeMap::new();
    for case in cases() {
        let key = (case.root.der(), case.verdict == Verdict::AuthorityRevoked, case.at);
        databases.entry(key).or_default().push(case);
    }
    assert_eq!(databases.len(), 12);
    std::thread::scope(|scope| databases.values().for_each(|cases| drop(scope.spawn(|| ask_nss(cases)))));
}

/// Cases with the same root and lists.
fn ask_nss(cases: &[&Case]) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, der: &[u8]| std::fs::write(dir.path().join(name), der).unwrap();
    let run = |program: &str, args: &[&str]| run(program, args, dir.path());
    let done = |program: &str, args: &[&str]| {
        let (ok, text) = run(program, args);
        assert!(ok, "{program} {args:?}: {text}");
    };
    let add = |name: &str, trust: &str, der: &[u8]| {
        write("added.der", der);
        done("certutil", &["-A", "-d", "sql:.", "-n", name, "-t", trust, "-i", "added.der"]);
    };
    let first = cases.first().unwrap();
    done("certutil", &["-N", "-d", "sql:.", "--empty-password"]);
    add("root", "CT,C,C", first.root.der());
    add("issuing", ",,", first.chain[1].der());
    // A stranger's root has signed none of the lists.
    if first.verdict != Verdict::Strange {
        write("shard.der", &first.lists[1]);
        let (ok, text) = run("crlutil", &["-I", "-d", "sql:.", "-i", "shard.der", "-t", "1"]);
        assert!(!ok && text.contains("CRL_UNKNOWN_CRITICAL_EXTENSION"), "NSS has learned it: {text}");
        for der in &first.whole_lists {
            write("list.der", der);
            done("crlutil", &["-I", "-d", "sql:.", "-i", "list.der", "-t", "1"]);
        }
    }
    for case in cases {
        let at = time::OffsetDateTime::from_unix_timestamp(case.at.0 + 120).unwrap();
        let (year, month) = (at.year() % 100, u8::from(at.month()));
        let at = format!("{year:02}{month:02}{:02}{:02}{:02}", at.day(), at.hour(), at.minute());
        add(&case.name, ",,", case.chain[0].der());
        let said = [
            run("vfychain", &["-d", "sql:.", "-u", "12", "-b", &format!("{at}Z"), "added.der"]),
            run("certutil", &["-V", "-d", "sql:.", "-n", &case.name, "-u", "I", "-e", "-b", &format!("{at}00Z")]),
        ];
        for (ok, text) in said {
            let expected = match case.verdict {
                Verdict::Good => "",
                Verdict::Revoked | Verdict::AuthorityRevoked => "revoked",
                Verdict::Expired => "expired",
                Verdict::Strange => "issuer is not recognized",
            };
            let good = case.verdict == Verdict::Good;
            assert!(ok == good && text.contains(expected), "{}: {:?}, {text}", case.name, case.verdict);
        }
    }
}

#[test]
fn pkilint_finds_nothing_in_certificates_and_lists() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = written(dir.path());
    let (ok, text) =
        run(python.to_str().unwrap(), &[source("lint.py").to_str().unwrap(), file.to_str().unwrap()], dir.path());
    assert!(ok && text.lines().count() == 2, "{text}");
}

#[test]
fn pkilint_finds_nothing_in_answers_of_ocsp() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let seal_key = SealKey::generate(&rng()).unwrap();
    for kind in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048] {
        let root =
            Authority::create(&RootConfig::new("Example Org", "Example Root"), &seal_key, now(), &rng()).unwrap().0;
        let config = IssuingConfig::new("Example Issuing 1", kind);
        let issuing = Authority::create_issuing(&root, &config, &seal_key, now(), &rng()).unwrap().0;
        std::fs::write(dir.path().join("issuing.pem"), issuing.certificate().pem()).unwrap();
        let key = KeyPair::generate(kind, &rng()).unwrap();
        let (serial, life) = (Serial::generate(&rng()).unwrap(), std::time::Duration::from_secs(3 * 86_400));
        let signer =
            issuing.issue_ocsp_signer("OCSP signer 1", &key.public_key(), now(), life, serial, &rng()).unwrap();
        let responder = Responder::new(key, signer.der()).unwrap();
        for (case, nonce) in ["-no_nonce", ""].into_iter().enumerate() {
            let mut words = vec!["ocsp", "-issuer", "issuing.pem", "-reqout", "request"];
            words.extend(["-serial", "0x1001", "-sha256", "-serial", "0x1002", "-serial", "0x1003"]);
            words.extend(Some(nonce).filter(|n| !n.is_empty()));
            let (ok, text) = run("openssl", &words, dir.path());
            assert!(ok, "{text}");
            let request = Request::parse(&std::fs::read(dir.path().join("request")).unwrap()).unwrap();
            let statuses =
                [Status::Good, Status::Revoked { at: now(), reason: Reason::KeyCompromise }, Status::Unknown];
            let mut next = statuses.into_iter();
            let validity = Validity { from: now(), until: UnixTime(now().0 + 3_600) };
            let answer = responder.answer(&request, |_| next.next().unwrap(), validity, &rng()).unwrap();
            let file = format!("{kind}-{case}.der");
            // It does see what is wrong: an answer without its last octet.
            std::fs::write(dir.path().join("short.der"), &answer[..answer.len() - 1]).unwrap();
            std::fs::write(dir.path().join(&file), answer).unwrap();
            files.push(file);
        }
    }
    // Its exit codes, of all files in one process: 0 is "nothing found".
    let script = "import sys; from pkilint.bin import lint_ocsp_response as lint; \
        say = [lint.main(['lint', '-s', 'WARNING', '--document-format', 'DER', f]) for f in sys.argv[1:]]; print(say)";
    let mut words = vec!["-c", script];
    words.extend(files.iter().map(String::as_str));
    let (ok, text) = run(python.to_str().unwrap(), &words, dir.path());
    assert!(ok && text.contains("[0, 0, 0, 0]"), "{text}");
    let (ok, text) = run(python.to_str().unwrap(), &["-c", script, "short.der"], dir.path());
    assert!(!ok || !text.contains("[0]"), "{text}");
}
