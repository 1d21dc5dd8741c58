//! Who steals the state folder without the key files learns no secret.

mod common;

use std::path::{Path, PathBuf};

use common::{Way, add_pool, add_user, allow_all, issue, site};
use sallyport_ca::seal::{Purpose, SealKey, Sealed};
use sallyport_ca::{Authority, Profile};
use sallyport_controller::{Config, Controller, Engine, StorageConfig};
use sallyport_crypto::mschap;
use sallyport_proto::v1;

const PASSWORD: &str = "Kaleidoskop-4711-Ada";
const SECOND: &str = "Nachtigall-0815-Ada";
const PSK: &str = "Sonnenblume-2342-Psk";

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The part of a base64 text that the bytes alone decide, for each place they can have in a group of three.
fn base64(secret: &[u8]) -> [Vec<u8>; 3] {
    [0, 1, 2].map(|before| {
        let bits: Vec<u8> = std::iter::repeat_n(0, before)
            .chain(secret.iter().copied())
            .flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1))
            .collect();
        let text = bits.chunks_exact(6).map(|six| BASE64[six.iter().fold(0, |n, bit| n << 1 | usize::from(*bit))]);
        text.skip((before * 8).div_ceil(6)).collect()
    })
}

/// The bytes, and how they look in text.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    let utf16: Vec<u8> = secret.iter().flat_map(|b| [*b, 0]).collect();
    let mut forms = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), utf16];
    for text in base64(secret) {
        forms.push(
            text.iter()
                .map(|b| {
                    if *b == b'+' {
                        b'-'
                    } else if *b == b'/' {
                        b'_'
                    } else {
                        *b
                    }
                })
                .collect(),
        );
        forms.push(text);
    }
    forms
}

#[test]
fn the_search_knows_base64_wherever_it_begins() {
    for before in ["", "x", "xy", "xyz"] {
        let text = sallyport_ca::pem::encode("X", format!("{before}open sesame?>!").as_bytes());
        let found = base64(b"open sesame?>").iter().any(|f| text.as_bytes().windows(f.len()).any(|w| w == f));
        assert!(found, "{}", text.as_str());
    }
}

/// Opens a node's copy of the seal key, as its documentation says.
fn seal_key(state: &Path) -> SealKey {
    let copy = std::fs::read(state.join("seal.sealed")).expect("there");
    let node_key = SealKey::from_file(&std::fs::read(state.join("node.key")).expect("there")).expect("a key");
    let length = u32::from_be_bytes(copy[8..12].try_into().expect("four bytes")) as usize;
    let (head, sealed) = copy.split_at(12 + length);
    let purpose = Purpose::new("node's copy of the seal key");
    let opened = node_key.open(purpose, &[head], &Sealed::from_bytes(sealed.to_vec())).expect("opens");
    SealKey::from_bytes(opened.as_slice().try_into().expect("32 bytes"))
}

fn config(engine: Engine) -> Config {
    let mut config = common::config();
    config.storage = StorageConfig { engine, snapshot_every: 100 };
    config
}

async fn holds_no_secret(engine: Engine) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let running = Controller::start(config(engine), dir.path()).await.expect("starts");
    let site = common::Site { dir, running };
    let mut operator = site.operator().await;
    allow_all(&mut operator).await;
    add_user(&mut operator, "ada", PASSWORD).await;
    add_pool(&mut operator, "p", "10.9.0.0/24").await;
    operator.set_psk(v1::SetPskRequest { psk: Some(v1::Secret::new(PSK)) }).await.expect("sets");
    let mut gateway = site.gateway("gw1").await;
    for way in [Way::Pap, Way::Chap, Way::MsChapV2] {
        gateway.login(way, "ada", PASSWORD).await.expect("accepted");
        gateway.login(way, "ada", "Falschgeraten-99").await.expect_err("refused");
    }
    let second = v1::SetPasswordRequest { name: "ada".into(), password: Some(v1::Secret::new(SECOND)) };
    operator.set_password(second).await.expect("sets");
    let laptop = issue(&site.running, Profile::Machine, "laptop").await;
    // Enough for a snapshot, so that there is one to search.
    for i in 0..120 {
        let request = v1::SetUserEnabledRequest { name: "ada".into(), enabled: i % 2 == 1 };
        operator.set_user_enabled(request).await.expect("sets");
    }
    let root = site.running.root_certificate();
    let dir = site.dir;
    drop((operator, gateway));
    site.running.shutdown().await;

    // The root's key as it is when it is open, to look for.
    let seal_key = seal_key(dir.path());
    let sealed = Sealed::from_bytes(std::fs::read(dir.path().join("ca/root.key.sealed")).expect("there"));
    let place = sallyport_ca::Fingerprint::of(&root).0;
    let root_key = seal_key.open(Purpose::CA_KEY, &[&place], &sealed).expect("opens");
    Authority::open(&sealed, &seal_key, &root).expect("opens");
    // And the issuing authority's.
    let issuer = &laptop.chain[0];
    let sealed = Sealed::from_bytes(std::fs::read(dir.path().join("ca/issuing-1.key.sealed")).expect("there"));
    let place = sallyport_ca::Fingerprint::of(issuer).0;
    let issuing_key = seal_key.open(Purpose::CA_KEY, &[&place], &sealed).expect("opens");
    Authority::open(&sealed, &seal_key, issuer).expect("opens");
    Authority::open(&sealed, &seal_key, &root).expect_err("belongs elsewhere");

    let mut secrets = Vec::new();
    for password in [PASSWORD, SECOND] {
        secrets.push(("password", password.as_bytes().to_vec()));
        secrets.push(("NT hash", mschap::nt_password_hash(password).as_bytes().to_vec()));
    }
    secrets.push(("guessed password", b"Falschgeraten-99".to_vec()));
    secrets.push(("pre-shared key", PSK.as_bytes().to_vec()));
    // The private scalar of a P-256 key stands 36 bytes into PKCS #8; the rest of the encoding is public.
    secrets.push(("root key", root_key[36..68].to_vec()));
    secrets.push(("issuing authority's key", issuing_key[36..68].to_vec()));
    secrets.push(("machine's key", laptop.private_key[36..68].to_vec()));
    secrets.push(("seal key", seal_key.to_bytes().to_vec()));
    let searched: Vec<(&str, Vec<u8>)> =
        secrets.iter().flat_map(|(what, secret)| forms(secret).into_iter().map(|form| (*what, form))).collect();

    let (mut all, mut looked_at, mut snapshots) = (Vec::new(), 0, 0);
    files(dir.path(), &mut all);
    for file in all {
        let name = file.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        if name == "node.key" || name == "key.pem" {
            continue; // the key files
        }
        snapshots += usize::from(name.ends_with(".snapshot"));
        let contents = std::fs::read(&file).expect("reads");
        looked_at += contents.len();
        for (what, form) in &searched {
            assert!(!contents.windows(form.len()).any(|w| w == form), "{what} in {}", file.display());
        }
    }
    // That the search would find something: what is public is there.
    assert!(looked_at > 10_000 && snapshots > 0, "{looked_at} bytes, {snapshots} snapshots");
    let mut store = Vec::new();
    files(&dir.path().join("raft"), &mut store);
    let holds_root = store.iter().any(|f| {
        let contents = std::fs::read(f).expect("reads");
        contents.windows(64).any(|w| w == &root[..64])
    });
    assert!(holds_root, "the root certificate is in the store in the clear, and the search sees it");
}

#[tokio::test]
async fn a_stolen_folder_without_its_keys_holds_no_secret() {
    for engine in Engine::ALL {
        holds_no_secret(engine).await;
    }
}

/// Starts a controller on `state`, which refuses.
async fn refuses(state: &Path) -> String {
    Controller::start(common::config(), state).await.expect_err("refuses").to_string()
}

fn write_private(path: &Path, contents: &[u8]) {
    std::fs::write(path, contents).expect("writes");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode).expect("closes");
}

#[tokio::test]
async fn without_its_node_key_or_its_copy_of_the_seal_key_a_state_does_not_start() {
    let site = site().await;
    let dir = site.dir;
    site.running.shutdown().await;
    for (name, hint) in [("node.key", "node key is missing"), ("seal.sealed", "put back")] {
        let path = dir.path().join(name);
        let kept = std::fs::read(&path).expect("there");
        std::fs::remove_file(&path).expect("removes");
        let error = refuses(dir.path()).await;
        assert!(error.contains(name) && error.contains(hint), "{error}");
        write_private(&path, &kept);
    }
    let (copy, node_key) = (dir.path().join("seal.sealed"), dir.path().join("node.key"));
    let kept = (std::fs::read(&copy).expect("there"), std::fs::read(&node_key).expect("there"));
    // The pair of another cluster opens by itself, and then nothing that is in this state.
    let other = common::site().await;
    for path in [&copy, &node_key] {
        let name = path.file_name().expect("a name");
        write_private(path, &std::fs::read(other.dir.path().join(name)).expect("there"));
    }
    let error = refuses(dir.path()).await;
    assert!(error.contains("does not fit"), "{error}");
    write_private(&copy, &kept.0);
    let error = refuses(dir.path()).await;
    assert!(error.contains("is not the node key"), "{error}");
    write_private(&node_key, &kept.1);
    let running = Controller::start(common::config(), dir.path()).await.expect("starts");
    running.shutdown().await;
    other.running.shutdown().await;
}

#[tokio::test]
async fn a_state_of_an_earlier_version_starts_and_its_bare_seal_key_is_gone() {
    let site = site().await;
    let dir = site.dir;
    site.running.shutdown().await;
    // As version 0.1 left it.
    let key = seal_key(dir.path());
    for name in ["seal.sealed", "node.key"] {
        std::fs::remove_file(dir.path().join(name)).expect("removes");
    }
    write_private(&dir.path().join("seal.key"), key.to_file().as_bytes());
    let running = Controller::start(common::config(), dir.path()).await.expect("starts");
    running.shutdown().await;
    assert!(!dir.path().join("seal.key").exists());
    assert_eq!(seal_key(dir.path()).id(), key.id());
    let running = Controller::start(common::config(), dir.path()).await.expect("starts again");
    running.shutdown().await;
}
