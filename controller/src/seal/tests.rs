use std::fs;
use std::os::unix::fs::PermissionsExt;

use sallyport_ca::seal::JoinKey;

use super::*;

fn by_file() -> UnsealConfig {
    UnsealConfig::default()
}

/// A passphrase in a file beside the state, at a price for tests.
fn by_passphrase(state: &Path, passphrase: &str) -> UnsealConfig {
    let passphrase_file = state.with_extension(passphrase.split(' ').next().unwrap_or_default());
    fs::write(&passphrase_file, passphrase).expect("writes");
    fs::set_permissions(&passphrase_file, fs::Permissions::from_mode(0o600)).expect("closes");
    UnsealConfig {
        method: UnsealMethod::Passphrase,
        passphrase_file,
        argon2_memory_kib: 64,
        argon2_passes: 1,
        ..UnsealConfig::default()
    }
}

fn state() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let state = dir.path().join("state");
    files::private_dir(&state).expect("makes");
    (dir, state)
}

fn error(result: Result<Sealer, Error>) -> String {
    result.expect_err("refused").to_string()
}

fn names(state: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(state)
        .expect("lists")
        .map(|e| e.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_missing_key_is_made_only_for_a_new_state() {
    let (_dir, state) = state();
    assert!(error(Sealer::open(&state, &by_file(), false)).contains("seal.sealed"));
    let first = Sealer::open(&state, &by_file(), true).expect("makes");
    assert_eq!(names(&state), ["node.key", "seal.sealed"]);
    let sealed = first.seal_user(UserSecret::NtHash, b"c", "ada", b"secret").expect("seals");
    let again = Sealer::open(&state, &by_file(), false).expect("reads");
    let open = |which, cluster: &[u8], key| again.open_user(which, cluster, key, &sealed).map(|s| s.to_vec());
    assert_eq!(open(UserSecret::NtHash, b"c", "ada").expect("opens"), b"secret");
    assert!(open(UserSecret::Password, b"c", "ada").is_err());
    assert!(open(UserSecret::NtHash, b"d", "ada").is_err());
    assert!(open(UserSecret::NtHash, b"c", "bob").is_err_and(|e| e.to_string().contains("seal.sealed")));
}

#[test]
fn neither_the_copy_nor_the_node_key_opens_anything_alone() {
    let (_dir, state) = state();
    Sealer::open(&state, &by_file(), true).expect("makes");
    let (copy, key) = (state.join("seal.sealed"), state.join("node.key"));
    let kept = fs::read(&key).expect("reads");
    fs::remove_file(&key).expect("removes");
    assert!(error(Sealer::open(&state, &by_file(), false)).contains("node key is missing"));
    // Not even where a new key could be made: that is for new copies only.
    assert!(error(Sealer::open(&state, &by_file(), true)).contains("node key is missing"));
    files::write_private(&key, "11".repeat(32).as_bytes()).expect("writes");
    assert!(error(Sealer::open(&state, &by_file(), false)).contains("not the node key it was sealed with"));
    files::write_private(&key, b"no key").expect("writes");
    assert!(error(Sealer::open(&state, &by_file(), false)).contains("32 bytes or 64 hexadecimal"));
    files::write_private(&key, &kept).expect("writes");
    Sealer::open(&state, &by_file(), false).expect("opens");
    let sealed = fs::read(&copy).expect("reads");
    files::write_private(&copy, &sealed[..sealed.len() - 1]).expect("writes");
    assert!(error(Sealer::open(&state, &by_file(), false)).contains("damaged"));
    fs::remove_file(&copy).expect("removes");
    assert!(error(Sealer::open(&state, &by_file(), false)).contains("missing"));
}

#[test]
fn the_node_key_may_lie_on_another_disk() {
    let (dir, state) = state();
    let disk = dir.path().join("disk");
    files::private_dir(&disk).expect("makes");
    let config = UnsealConfig { key_file: disk.join("ours.key"), ..by_file() };
    let id = Sealer::open(&state, &config, true).expect("makes").key().id();
    assert_eq!((names(&state), names(&disk)), (vec!["seal.sealed".to_owned()], vec!["ours.key".to_owned()]));
    assert_eq!(Sealer::open(&state, &config, false).expect("opens").key().id(), id);
    assert!(error(Sealer::open(&state, &by_file(), false)).contains("node.key"));
}

#[test]
fn a_passphrase_holds_the_key_and_a_wrong_one_is_named() {
    let (_dir, state) = state();
    let right = by_passphrase(&state, "correct horse battery");
    let id = Sealer::open(&state, &right, true).expect("makes").key().id();
    assert_eq!(names(&state), ["seal.sealed"]);
    assert_eq!(Sealer::open(&state, &right, false).expect("opens").key().id(), id);
    // The costs stand in the copy: other settings make no difference to it.
    let dearer = UnsealConfig { argon2_passes: 2, ..right };
    assert_eq!(Sealer::open(&state, &dearer, false).expect("opens").key().id(), id);
    let wrong = by_passphrase(&state, "wrong horse battery");
    assert!(error(Sealer::open(&state, &wrong, false)).contains("the passphrase is wrong"));
}

#[test]
fn another_method_than_the_copy_was_made_with_is_refused_and_resealing_changes_it() {
    let (_dir, state) = state();
    let passphrase = by_passphrase(&state, "correct horse battery");
    let other = by_passphrase(&state, "different horse battery");
    let id = Sealer::open(&state, &by_file(), true).expect("makes").key().id();
    let refused = error(Sealer::open(&state, &passphrase, false));
    assert!(refused.contains("sallyport controller --reseal") && refused.contains("\"file\""), "{refused}");

    let done = reseal(&state, None, &passphrase).expect("reseals");
    assert_eq!((done.from, done.to), (UnsealMethod::File, UnsealMethod::Passphrase));
    assert_eq!(done.left_over, Some(state.join("node.key")));
    assert_eq!(Sealer::open(&state, &passphrase, false).expect("opens").key().id(), id);
    assert!(error(Sealer::open(&state, &by_file(), false)).contains("\"passphrase\""));

    // From one passphrase to another: the old settings must be told, and wrong ones change nothing.
    let wrong = reseal(&state, Some(&other), &other).expect_err("refused").to_string();
    assert!(wrong.contains("passphrase is wrong"), "{wrong}");
    reseal(&state, Some(&passphrase), &other).expect("reseals");
    assert!(error(Sealer::open(&state, &passphrase, false)).contains("passphrase is wrong"));

    // And back to a file: the one that is there is used again.
    assert_eq!(reseal(&state, Some(&other), &by_file()).expect("reseals").left_over, None);
    assert_eq!(Sealer::open(&state, &by_file(), false).expect("opens").key().id(), id);
    let elsewhere = UnsealConfig { key_file: "second.key".into(), ..by_file() };
    assert_eq!(reseal(&state, None, &elsewhere).expect("reseals").left_over, Some(state.join("node.key")));
    assert_eq!(Sealer::open(&state, &elsewhere, false).expect("opens").key().id(), id);
    assert!(reseal(&state.join("nowhere"), None, &by_file()).is_err());
}

#[test]
fn the_bare_key_of_an_earlier_version_is_taken_over_wherever_the_start_is_cut_short() {
    let (_dir, state) = state();
    let key = SealKey::from_bytes(&[5; 32]);
    let (bare, copy) = (state.join("seal.key"), state.join("seal.sealed"));
    let check = || {
        let sealer = Sealer::open(&state, &by_file(), false).expect("opens");
        assert_eq!(sealer.key().id(), key.id());
        assert_eq!(names(&state), ["node.key", "seal.sealed"]);
    };
    files::write_private(&bare, key.to_file().as_bytes()).expect("writes");
    check();
    // Cut short after the node key, after the copy, and while the bare key was overwritten.
    fs::remove_file(&copy).expect("removes");
    files::write_private(&bare, key.to_file().as_bytes()).expect("writes");
    check();
    files::write_private(&bare, key.to_file().as_bytes()).expect("writes");
    check();
    files::write_private(&bare, &[0; 65]).expect("writes");
    check();
    files::write_private(&bare, &[0; 32]).expect("writes");
    check();
    // Somebody else's key is not destroyed.
    files::write_private(&bare, &[6; 32]).expect("writes");
    assert!(error(Sealer::open(&state, &by_file(), false)).contains("another key"));
    assert_eq!(fs::read(&bare).expect("reads"), [6; 32]);
    // A bare key that is none, with nothing beside it.
    fs::remove_file(&copy).expect("removes");
    files::write_private(&bare, b"no key").expect("writes");
    assert!(error(Sealer::open(&state, &by_file(), false)).contains("put back the key file"));
}

#[test]
fn a_node_that_joins_adopts_the_seal_key() {
    let ((_dir, member), (_other, joiner), (_third, stranger)) = (state(), state(), state());
    let member = Sealer::open(&member, &by_file(), true).expect("makes");
    let (join, public) = JoinKey::generate(&SystemRandom::new()).expect("makes");
    let wrapped = member.wrap_for(&public, b"cluster, node 2").expect("wraps");
    let key = join.unwrap(&wrapped, b"cluster, node 2").expect("opens");
    let sealer = Sealer::adopt(&joiner, &by_file(), key).expect("adopts");
    let sealed = member.seal_psk(b"c", b"a secret").expect("seals");
    assert_eq!(sealer.open_psk(b"c", &sealed).expect("opens").as_slice(), b"a secret");
    assert_eq!(Sealer::open(&joiner, &by_file(), false).expect("opens").key().id(), member.key().id());
    let again = |key: &SealKey| SealKey::from_bytes(&key.to_bytes());
    Sealer::adopt(&joiner, &by_file(), again(member.key())).expect("adopts the same again");
    Sealer::open(&stranger, &by_file(), true).expect("makes");
    assert!(error(Sealer::adopt(&stranger, &by_file(), again(member.key()))).contains("another cluster"));
}

#[test]
fn a_state_whose_restore_was_cut_short_does_not_open() {
    let (_dir, state) = state();
    files::private_dir(&state.join(RESTORING)).expect("makes");
    assert!(error(Sealer::open(&state, &by_file(), true)).contains("sallyport backup restore"));
    assert_eq!(names(&state), [RESTORING]);
}

#[test]
fn an_answer_opens_for_its_request_only_and_only_under_the_name_that_its_caller_gave_it() {
    let (_dir, state) = state();
    let sealer = Sealer::open(&state, &by_file(), true).expect("opens");
    let asked = Request { id: [1; 16], name: b"5d3c" };
    let sealed = sealer.seal_answer(b"cluster", &asked, b"secret").expect("seals");
    assert_eq!(*sealer.open_answer(b"cluster", &asked, &sealed).expect("opens"), b"secret");
    for other in [Request { name: b"5d3d", ..asked }, Request { id: [2; 16], ..asked }] {
        assert!(sealer.open_answer(b"cluster", &other, &sealed).is_err(), "{other:?}");
    }
    // Whoever has the seal key and the log, which holds the id, has no name.
    assert!(sealer.key().open(ANSWER, &[b"cluster", &asked.id], &Sealed::from_bytes(sealed)).is_err());
}
