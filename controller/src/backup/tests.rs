use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use proptest::prelude::*;
use ring::rand::SystemRandom;
use sallyport_ca::seal::{Purpose, RecipientKey, SealKey};
use sallyport_ca::{Authority, IssuingConfig, KeyAlgorithm, RootConfig, UnixTime};
use sallyport_proto::v1;
use zeroize::Zeroizing;

use super::keys::Kind;
use super::*;
use crate::seal::passphrase::Costs;
use crate::state::{
    Action, AddIssuers, AddUser, Bootstrap, CertificateRow, Command, Credentials, NewIssuer, Outcome, SetPsk, State,
};

const CLUSTER: [u8; 16] = [3; 16];
/// Plain bytes of a chunk in these tests: a small state has many.
const CHUNK: u32 = 256;

fn quiet(_done: u64, _all: u64) {}

fn seal_key() -> SealKey {
    SealKey::from_bytes(&[8; 32])
}

/// A cluster with a root, a pre-shared key and a user, as bytes.
fn state() -> &'static [u8] {
    static STATE: OnceLock<Vec<u8>> = OnceLock::new();
    STATE.get_or_init(|| make_state().to_bytes())
}

fn make_state() -> State {
    let rng = SystemRandom::new();
    let now = UnixTime(1_800_000_000);
    let (authority, sealed) =
        Authority::create(&RootConfig::new("Test", "Test Root"), &seal_key(), now, &rng).expect("makes");
    let record = CertificateRow { serial: "01".into(), name: "Test Root".into(), ..CertificateRow::default() };
    let config = IssuingConfig::new("Test Issuing 1", KeyAlgorithm::EcdsaP256);
    let (issuing, sealed_issuing) =
        Authority::create_issuing(&authority, &config, &seal_key(), now, &rng).expect("makes");
    let psk = seal_key().seal(Purpose::PRE_SHARED_KEY, &[&CLUSTER], b"a shared secret", &rng).expect("seals");
    let actions = [
        Action::Bootstrap(Bootstrap {
            cluster_id: CLUSTER.to_vec(),
            root_certificate: authority.certificate().der().to_vec(),
            sealed_root_key: sealed.into_bytes(),
            record: Some(record),
            member: None,
        }),
        Action::AddIssuers(AddIssuers {
            issuers: vec![NewIssuer {
                constraints: None,
                number: 1,
                certificate: issuing.certificate().der().to_vec(),
                sealed_key: sealed_issuing.into_bytes(),
                root: 1,
                record: Some(CertificateRow {
                    serial: "02".into(),
                    profile: v1::CertificateProfile::Issuing.into(),
                    ..CertificateRow::default()
                }),
            }],
            replace: false,
        }),
        Action::SetPsk(SetPsk { sealed: psk.into_bytes() }),
        Action::AddUser(AddUser {
            key: "ada".into(),
            name: "Ada".into(),
            enabled: true,
            credentials: Some(Credentials::default()),
            ..AddUser::default()
        }),
    ];
    let mut state = State::new();
    for (i, action) in actions.into_iter().enumerate() {
        let command = Command { request_id: vec![i as u8; 16], at_ms: 1_800_000_000_000, action: Some(action) };
        let reply = state.apply(&command);
        assert!(matches!(reply.outcome, Some(Outcome::Done(_))), "{reply:?}");
    }
    state
}

fn info(state: &[u8]) -> Info {
    Info {
        cluster_id: CLUSTER.to_vec(),
        created_unix_ms: 1_800_000_001_000,
        log_time_unix_ms: 1_800_000_000_000,
        applied_index: 17,
        version: "0.1.0".into(),
        state_bytes: state.len() as u64,
    }
}

fn passphrase(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

fn cheap(text: &str) -> Lock {
    Lock(Kind::Passphrase(passphrase(text), Costs { memory_kib: 8, passes: 1, lanes: 1 }))
}

fn write(path: &Path, lock: &Lock, state: &[u8]) {
    let rng = SystemRandom::new();
    let mut writer = Writer::create_with(path, info(state), lock, &seal_key(), &rng, CHUNK).expect("begins");
    for piece in state.chunks(100) {
        writer.write(piece).expect("writes");
    }
    let size = writer.finish().expect("ends");
    assert_eq!(fs::metadata(path).expect("there").len(), size);
}

/// A folder, a backup in it for the key, and its bytes.
fn backup(key: &RecipientKey) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("b");
    write(&path, &Lock::recipients(vec![key.public()]).expect("a lock"), state());
    let bytes = fs::read(&path).expect("reads");
    (dir, path, bytes)
}

fn key() -> RecipientKey {
    RecipientKey::from_bytes(&[4; 32])
}

fn error(path: &Path, secret: &Secret) -> String {
    verify(path, secret, &mut quiet).expect_err("refused").to_string()
}

#[test]
fn a_backup_is_read_with_its_passphrase_and_says_what_is_inside() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("b");
    let state = state();
    write(&path, &cheap("correct horse battery"), state);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (head, recipients) = open(&path).expect("opens");
    assert_eq!(head, info(state));
    assert_eq!(recipients, Recipients { passphrase: true, keys: Vec::new() });
    let mut steps = Vec::new();
    let contents = verify(&path, &Secret::Passphrase(passphrase("correct horse battery")), &mut |done, all| {
        steps.push((done, all));
    });
    let contents = contents.expect("good");
    assert_eq!(steps.last(), Some(&(state.len() as u64, state.len() as u64)));
    assert_eq!((contents.users, contents.certificates, contents.psk), (1, 2, true));
    assert_eq!((contents.info, contents.last_certificate), (head, 2));
    assert!(contents.roots[0].subject.contains("Test Root"), "{:?}", contents.roots);

    let wrong = error(&path, &Secret::Passphrase(passphrase("wrong horse battery")));
    assert!(wrong.contains("the passphrase is wrong") && wrong.contains(path.to_str().expect("text")), "{wrong}");
    let other = error(&path, &Secret::Key(key()));
    assert!(other.contains("not for the key") && other.contains("a passphrase"), "{other}");
    // Neither secret nor name is in it.
    let bytes = fs::read(&path).expect("reads");
    for secret in [[8; 32].as_slice(), b"ada", b"Test Root"] {
        assert!(!bytes.windows(secret.len()).any(|w| w == secret));
    }
}

#[test]
fn a_backup_is_read_by_each_of_its_recipients_and_by_no_one_else() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("b");
    let (one, two) = (key(), RecipientKey::from_bytes(&[5; 32]));
    let (publics, state) = (vec![one.public(), two.public()], state());
    write(&path, &Lock::recipients(publics.clone()).expect("a lock"), state);
    assert_eq!(open(&path).expect("opens").1.keys, publics);
    for key in [one, two] {
        verify(&path, &Secret::Key(key), &mut quiet).expect("good");
    }
    assert!(error(&path, &Secret::Key(RecipientKey::from_bytes(&[6; 32]))).contains("not for the key"));
    assert!(error(&path, &Secret::Passphrase(passphrase("any"))).contains("has no passphrase"));
}

#[test]
fn every_flipped_byte_is_refused() {
    let (_dir, path, good) = backup(&key());
    let secret = Secret::Key(key());
    verify(&path, &secret, &mut quiet).expect("good");
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1 << (i % 8);
        fs::write(&path, &bad).expect("writes");
        assert!(verify(&path, &secret, &mut quiet).is_err(), "byte {i}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_else_is_done_to_a_backup_is_refused(
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 2..6), bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let (_dir, path, good) = backup(&key());
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(good.len())).collect();
        cuts.sort_unstable();
        // Something is replaced, and something is moved.
        let replaced = [&good[..cuts[0]], &bytes, &good[cuts[1]..]].concat();
        let moved = [&good[..cuts[0]], &good[cuts[1]..], &good[cuts[0]..cuts[1]]].concat();
        for bad in [replaced, moved].iter().filter(|b| **b != good) {
            fs::write(&path, bad).expect("writes");
            prop_assert!(verify(&path, &Secret::Key(key()), &mut quiet).is_err());
        }
    }
}

#[test]
fn a_backup_that_is_cut_off_at_any_chunk_says_so() {
    let (_dir, path, good) = backup(&key());
    let payload = 40 + state().len();
    let chunk = CHUNK as usize + 16;
    let head = good.len() - payload - 16 * payload.div_ceil(CHUNK as usize);
    let (mut ends, mut end): (Vec<usize>, usize) = (Vec::new(), head);
    while end < good.len() {
        ends.push(end);
        end += chunk;
    }
    assert!(ends.len() > 3, "{} bytes", good.len());
    for end in ends {
        fs::write(&path, &good[..end]).expect("writes");
        let error = error(&path, &Secret::Key(key()));
        assert!(error.contains(&format!("cut off: {end} bytes of {}", good.len())), "{error}");
    }
    fs::write(&path, &good[..head - 1]).expect("writes");
    assert!(error(&path, &Secret::Key(key())).contains("no backup"));
    fs::write(&path, [good.as_slice(), b"more"].concat()).expect("writes");
    assert!(error(&path, &Secret::Key(key())).contains("4 bytes after the end"));
    fs::write(&path, "hello").expect("writes");
    assert!(error(&path, &Secret::Key(key())).contains("no backup"));
    let mut newer = good;
    newer[7] = 9;
    fs::write(&path, newer).expect("writes");
    let error = error(&path, &Secret::Key(key()));
    assert!(error.contains("format 9") && error.contains("newer version"), "{error}");
}

/// Who changes lengths and digest as well meets the key of the payload, which depends on both.
#[test]
fn a_head_that_was_rewritten_consistently_does_not_open() {
    let (dir, path, good) = backup(&key());
    let other = dir.path().join("other");
    let shorter = &state()[1..];
    write(&other, &Lock::recipients(vec![key().public()]).expect("a lock"), shorter);
    let (head, other_head) = (head_of(&path), head_of(&other));
    let swapped = [&other_head, &good[head.len()..good.len() - 1]].concat();
    fs::write(&path, swapped).expect("writes");
    assert!(error(&path, &Secret::Key(key())).contains("chunk 0"), "{}", error(&path, &Secret::Key(key())));
}

fn head_of(path: &Path) -> Vec<u8> {
    let head = super::head::Head::read(&mut fs::File::open(path).expect("opens"));
    head.unwrap_or_else(|e| panic!("{e}")).bytes
}

#[test]
fn a_writer_leaves_nothing_behind_unless_it_ends_well() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("b");
    let rng = SystemRandom::new();
    let state = state();
    let lock = cheap("correct horse battery");
    let begin = || Writer::create_with(&path, info(state), &lock, &seal_key(), &rng, CHUNK);
    let left = || fs::read_dir(dir.path()).expect("lists").count();
    drop(begin().expect("begins"));
    assert_eq!(left(), 0);
    let mut short = begin().expect("begins");
    short.write(&state[1..]).expect("writes");
    assert!(short.finish().is_err_and(|e| e.to_string().contains("before its announced end")));
    let mut long = begin().expect("begins");
    long.write(state).expect("writes");
    assert!(long.write(b"x").is_err_and(|e| e.to_string().contains("more state than it announced")));
    drop(long);
    assert_eq!(left(), 0);
    // What an attempt left that was killed is no obstacle, an older backup is.
    fs::write(dir.path().join("b.partial"), "half").expect("writes");
    write(&path, &lock, state);
    assert_eq!(left(), 1);
    assert!(begin().is_err_and(|e| e.to_string().contains("there already")));
    assert!(Writer::create(&dir.path().join("no/b"), info(state), &lock, &seal_key(), &rng).is_err());
}

#[test]
fn contents_that_do_not_fit_each_other_are_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let rng = SystemRandom::new();
    let lock = Lock::recipients(vec![key().public()]).expect("a lock");
    let make = |name: &str, info: Info, seal_key: &SealKey, state: &[u8]| {
        let path = dir.path().join(name);
        let mut writer = Writer::create(&path, info, &lock, seal_key, &rng).expect("begins");
        writer.write(state).expect("writes");
        writer.finish().expect("ends");
        error(&path, &Secret::Key(key()))
    };
    let good = state();
    let other_key = make("key", info(good), &SealKey::from_bytes(&[9; 32]), good);
    assert!(other_key.contains("the key of the root") && other_key.contains("does not open"), "{other_key}");
    // A root that has not signed the issuing authority beside it.
    let mut strange = State::from_bytes(good).expect("reads");
    let config = RootConfig::new("Test", "Test Root");
    let (root, sealed) = Authority::create(&config, &seal_key(), UnixTime(1_800_000_000), &rng).expect("another root");
    strange.set_root_for_test(root.certificate().der(), sealed.as_bytes());
    let strange = strange.to_bytes();
    let unsigned = make("unsigned", info(&strange), &seal_key(), &strange);
    assert!(unsigned.contains("issuing authority 1") && unsigned.contains("no root"), "{unsigned}");
    let other_cluster = make("cluster", Info { cluster_id: vec![9; 16], ..info(good) }, &seal_key(), good);
    assert!(other_cluster.contains("another cluster"), "{other_cluster}");
    let half = &good[..good.len() / 2];
    let damaged = make("state", info(half), &seal_key(), half);
    assert!(damaged.contains("cannot be used"), "{damaged}");
    let empty = State::new().to_bytes();
    let nothing = make("empty", Info { cluster_id: Vec::new(), ..info(&empty) }, &seal_key(), &empty);
    assert!(nothing.contains("no root"), "{nothing}");
}
