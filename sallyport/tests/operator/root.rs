//! The root's key out of a cluster and back, as an operator does it.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::common::Controller;

fn root<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["ca", "root"], arguments].concat()
}

#[test]
fn the_roots_key_goes_into_the_safe_and_comes_back_for_a_ceremony() {
    let controller = Controller::start();
    controller.wait_for_the_level();
    let at = |name: &str| controller.dir.path().join(name);
    let exported = controller.json(&root(&["export", "--shares", "2/3", "--out", "shares"]));
    assert_eq!(exported["files"].as_array().map(Vec::len), Some(4), "{exported}");
    let share = std::fs::read_to_string(at("shares/share-2.txt")).unwrap();
    assert!(share.starts_with("Share 2 of 3 of the private key of O=Sallyport"), "{share}");
    for name in ["shares/share-2.txt", "shares/root.key.enc"] {
        assert_eq!(std::fs::metadata(at(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(controller.run(&root(&["export", "--shares", "2/3", "--out", "shares"])).0, 1, "it is there already");
    // The shares go to other places.
    for (from, to) in [("shares/share-1.txt", "alice.txt"), ("shares/share-3.txt", "bob.txt")] {
        std::fs::rename(at(from), at(to)).unwrap();
    }
    let (code, _, error) = controller.run(&root(&["verify-export", "shares"]));
    assert!(code == 1 && error.contains("1 of the 2 shares"), "{error}");
    let verified =
        controller.ok(&root(&["verify-export", "shares/root.key.enc", "--share", "alice.txt", "--share", "bob.txt"]));
    assert!(verified.contains("nothing was changed"), "{verified}");
    assert_eq!(controller.json(&["ca", "list"])[0]["private_key"], json!("sealed"));
    // Nobody can be asked here.
    let erase = root(&["erase", "shares", "--share", "alice.txt"]);
    assert_eq!(controller.run(&erase).0, 2);
    let erased = controller.ok(&[&erase[..], &["--yes"]].concat());
    assert!(erased.contains("backups of before"), "{erased}");
    assert_eq!(controller.json(&["ca", "list"])[0]["private_key"], json!("kept elsewhere"));
    assert!(controller.ok(&root(&["show"])).contains("list until"));
    controller.ok(&["cert", "issue", "--machine", "laptop7.example.com", "--key", "ecdsa-p256"]);
    let error = controller.refused(&["ca", "issuer", "add", "--key", "ecdsa-p384"]);
    assert!(error.contains("sallyport ca root import"), "{error}");
    // A share that is read from paper.
    let (typed, import) =
        (share.lines().last().unwrap(), root(&["import", "shares/root.key.enc", "--share", "bob.txt", "--share", "-"]));
    let (code, out, error) = controller.with_secret(&import, &format!("{typed}\n\n"));
    assert!(code == 0 && out.contains("until"), "{out}{error}");
    controller.ok(&["ca", "issuer", "add", "--key", "ecdsa-p384"]);
    let csr = controller.ok(&root(&["csr"]));
    assert!(csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{csr}");
    let begun = controller.ok(&["ca", "rollover", "begin", "--key", "ecdsa-p384"]);
    assert!(begun.contains("from root 1 to root 2"), "{begun}");
    assert_eq!(controller.json(&["ca", "rollover", "status"])["under_way"], json!(true));
    controller.ok(&["ca", "rollover", "abort"]);
    assert_eq!(controller.json(&["ca", "rollover", "status"])["under_way"], json!(false));
    let roots = controller.json(&["ca", "list"]);
    let seen = [0, 1].map(|at| (roots[at]["authority"].clone(), roots[at]["state"].clone()));
    assert_eq!(seen, [(json!("root"), json!("in force")), (json!("root-2"), json!("retired"))]);
    // Under a passphrase, which is not to be guessed.
    std::fs::write(at("short"), "secret\n").unwrap();
    std::fs::write(at("long"), "correct horse battery staple\n").unwrap();
    for name in ["short", "long"] {
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let (code, _, error) = controller.run(&root(&["export", "--encrypt", "root.enc", "--passphrase-file", "short"]));
    assert!(code == 1 && error.contains("at least 12") && !at("root.enc").exists(), "{error}");
    controller.ok(&root(&["export", "--encrypt", "root.enc", "--passphrase-file", "long"]));
    controller.ok(&root(&["erase", "root.enc", "--passphrase-file", "long", "--yes"]));
    assert_eq!(controller.json(&["ca", "list"])[0]["private_key"], json!("kept elsewhere"));
    controller.stop();
}
