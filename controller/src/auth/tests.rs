use hex_literal::hex;

use super::*;
use crate::config::PasswordsConfig;

const CLUSTER: &[u8] = b"cluster";

async fn setup(keep: bool) -> (tempfile::TempDir, Sealer, Authenticator, UserRow) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let sealer = Sealer::open(dir.path(), &crate::config::UnsealConfig::default(), true).expect("makes a key");
    let workers = Workers::new(PasswordsConfig { argon2_memory_kib: 8, argon2_passes: 1, argon2_parallel: 1 });
    let auth = Authenticator::new(workers, &sealer, CLUSTER).await.expect("prepares");
    let password = Zeroizing::new(b"clientPass".to_vec());
    let credentials = credentials(auth.workers(), &sealer, CLUSTER, "user", password, keep).await.expect("seals");
    let user = UserRow { name: "User".into(), credentials: Some(credentials), ..UserRow::default() };
    (dir, sealer, auth, user)
}

fn mschapv2(nt_response: [u8; 24]) -> Proof {
    // RFC 2759 §9.2.
    Proof::MsChapV2 {
        authenticator_challenge: hex!("5B5D7C7D7B3F2F3E3C2C602132262628"),
        peer_challenge: hex!("21402324255E262A28295F2B3A337C7E"),
        nt_response,
    }
}

const RIGHT: [u8; 24] = hex!("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF");

#[tokio::test]
async fn mschapv2_of_rfc_2759_section_9_2_is_right_and_gets_our_proof() {
    let (_dir, sealer, auth, user) = setup(false).await;
    let check = async |name: &str, user: Option<&UserRow>, response| {
        auth.check(&sealer, CLUSTER, "user", name, user, mschapv2(response)).await.expect("opens").expect("not busy")
    };
    let expected = "S=407A5589115FD0D6209F510FE9C04566932CDA56".to_owned();
    assert_eq!(check("User", Some(&user), RIGHT).await, Verdict::Right { authenticator_response: expected });
    let mut wrong = RIGHT;
    wrong[23] ^= 1;
    assert_eq!(check("User", Some(&user), wrong).await, Verdict::Wrong);
    // The name enters the hash as the client wrote it.
    assert_eq!(check("user", Some(&user), RIGHT).await, Verdict::Wrong);
    assert_eq!(check("User", None, RIGHT).await, Verdict::Wrong);
}

#[tokio::test]
async fn pap_compares_the_password() {
    let (_dir, sealer, auth, user) = setup(false).await;
    for (password, known, expected) in [
        ("clientPass", true, Verdict::Right { authenticator_response: String::new() }),
        ("clientpass", true, Verdict::Wrong),
        ("", true, Verdict::Wrong),
        ("clientPass", false, Verdict::Wrong),
    ] {
        let proof = Proof::Pap { password: Zeroizing::new(password.as_bytes().to_vec()) };
        let user = known.then_some(&user);
        let verdict =
            auth.check(&sealer, CLUSTER, "user", "User", user, proof).await.expect("opens").expect("not busy");
        assert_eq!(verdict, expected, "{password} {known}");
    }
}

#[tokio::test]
async fn chap_md5_needs_a_kept_password() {
    for keep in [true, false] {
        let (_dir, sealer, auth, user) = setup(keep).await;
        let response = mschap::chap_md5(7, b"clientPass", b"challenge");
        let check = async |response| {
            let proof = Proof::ChapMd5 { identifier: 7, challenge: b"challenge".to_vec(), response };
            auth.check(&sealer, CLUSTER, "user", "User", Some(&user), proof).await.expect("opens").expect("not busy")
        };
        if keep {
            assert_eq!(check(response).await, Verdict::Right { authenticator_response: String::new() });
            assert_eq!(check([0; 16]).await, Verdict::Wrong);
        } else {
            assert_eq!(check(response).await, Verdict::NotKept);
        }
    }
}

#[test]
fn names_lose_their_domain_and_case() {
    assert_eq!(user_key("EXAMPLE\\Ada"), ("Ada", "ada".to_owned()));
    assert_eq!(user_key("ada@example.com"), ("ada@example.com", "ada@example.com".to_owned()));
}

#[test]
fn proofs_of_a_wrong_length_are_refused() {
    use v1::authenticate_request::Method;
    let chap = |identifier, challenge: usize, response: usize| {
        let proof = v1::ChapMd5 { identifier, challenge: vec![0; challenge], response: vec![0; response] };
        Proof::from_proto(Method::ChapMd5(proof)).is_ok()
    };
    assert!(chap(255, 255, 16));
    assert!(!chap(256, 8, 16) && !chap(1, 0, 16) && !chap(1, 256, 16) && !chap(1, 8, 15));
}
