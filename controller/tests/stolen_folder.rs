//! Who steals the state folder without the key files learns no secret.

mod common;

use std::path::{Path, PathBuf};

use common::{Way, add_pool, add_user, allow_all, issue, site};
use sallyport_ca::seal::{SealKey, Sealed};
use sallyport_ca::{Authority, Profile};
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

/// The bytes, and how they look in text.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    let utf16: Vec<u8> = secret.iter().flat_map(|b| [*b, 0]).collect();
    vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), utf16]
}

#[tokio::test]
async fn a_stolen_folder_without_its_keys_holds_no_secret() {
    let site = site().await;
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
    let root = site.running.root_certificate();
    let dir = site.dir;
    drop((operator, gateway));
    site.running.shutdown().await;

    // The root's key as it is when it is open, to look for.
    let read = |name: &str| std::fs::read(dir.path().join(name)).expect("there");
    let seal_key = SealKey::from_file(&read("seal.key")).expect("a key");
    let sealed = Sealed::from_bytes(read("ca/root.key.sealed"));
    let place = sallyport_ca::Fingerprint::of(&root).0;
    let root_key = seal_key.open(sallyport_ca::seal::Purpose::CA_KEY, &[&place], &sealed).expect("opens");
    Authority::open(&sealed, &seal_key, &root).expect("opens");

    let mut secrets = Vec::new();
    for password in [PASSWORD, SECOND] {
        secrets.push(("password", password.as_bytes().to_vec()));
        secrets.push(("NT hash", mschap::nt_password_hash(password).as_bytes().to_vec()));
    }
    secrets.push(("guessed password", b"Falschgeraten-99".to_vec()));
    secrets.push(("pre-shared key", PSK.as_bytes().to_vec()));
    // The private scalar of a P-256 key stands 36 bytes into PKCS #8; the rest of the encoding is public.
    secrets.push(("root key", root_key[36..68].to_vec()));
    secrets.push(("machine's key", laptop.private_key[36..68].to_vec()));

    let (mut all, mut looked_at) = (Vec::new(), 0);
    files(dir.path(), &mut all);
    for file in all {
        let name = file.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        if name == "seal.key" || name == "key.pem" {
            continue; // the key files
        }
        let contents = std::fs::read(&file).expect("reads");
        looked_at += contents.len();
        for (what, secret) in &secrets {
            for form in forms(secret) {
                let found = contents.windows(form.len()).any(|w| w == form);
                assert!(!found, "{what} in {}", file.display());
            }
        }
    }
    // That the search would find something: what is public is there.
    assert!(looked_at > 10_000);
    let mut store = Vec::new();
    files(&dir.path().join("raft"), &mut store);
    let holds_root = store.iter().any(|f| {
        let contents = std::fs::read(f).expect("reads");
        contents.windows(64).any(|w| w == &root[..64])
    });
    assert!(holds_root, "the root certificate is in the store in the clear, and the search sees it");
}

#[tokio::test]
async fn without_its_seal_key_a_state_does_not_start() {
    let site = site().await;
    let dir = site.dir;
    site.running.shutdown().await;
    let key = dir.path().join("seal.key");
    let kept = std::fs::read(&key).expect("there");
    std::fs::remove_file(&key).expect("removes");
    let error = sallyport_controller::Controller::start(common::config(), dir.path()).await.expect_err("refuses");
    assert!(error.to_string().contains("seal.key") && error.to_string().contains("put back"), "{error}");
    // Another key is named as such, too.
    std::fs::write(&key, "00".repeat(32)).expect("writes");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&key, mode).expect("closes");
    let error = sallyport_controller::Controller::start(common::config(), dir.path()).await.expect_err("refuses");
    assert!(error.to_string().contains("does not fit"), "{error}");
    std::fs::write(&key, kept).expect("writes");
    let running = sallyport_controller::Controller::start(common::config(), dir.path()).await.expect("starts");
    running.shutdown().await;
}
