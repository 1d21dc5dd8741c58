//! The operator's nouns against a controller: both are the real program, in processes of their own.

mod common;
#[path = "operator/root.rs"]
mod root;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::Controller;
use serde_json::json;

#[test]
fn an_operator_sets_a_site_up_and_ends_it() {
    let controller = Controller::start();
    pools(&controller);
    users(&controller);
    psk(&controller);
    settings(&controller);
    empty_lists(&controller);
    status(&controller);
    audit(&controller);
    controller.stop();
}

fn pools(controller: &Controller) {
    assert!(controller.ok(&["pool", "list"]).starts_with("no pools;"));
    let added = controller.ok(&["pool", "add", "office", "--network", "10.88.0.0/24", "--dns", "10.77.0.53"]);
    assert!(added.starts_with("added pool office: 253 addresses, router 10.88.0.1"), "{added}");
    let pools = controller.json(&["pool", "list"]);
    assert_eq!(pools[0]["networks"], json!(["10.88.0.0/24"]));
    assert_eq!(pools[0]["dns"], json!(["10.77.0.53"]));
    let error = controller.refused(&["pool", "add", "office", "--network", "10.99.0.0/24"]);
    assert!(error.contains("office"), "{error}");
    controller.refused(&["pool", "add", "other", "--network", "10.88.0.0/16"]);
    controller.refused(&["pool", "remove", "nothing"]);
}

fn users(controller: &Controller) {
    assert!(controller.ok(&["user", "list"]).starts_with("no users;"));
    let (code, out, error) = controller.with_secret(&["user", "add", "ada", "--password-stdin"], "open sesame\n");
    assert_eq!((code, out.as_str()), (0, "added user ada\n"), "{error}");
    let (code, _, error) = controller.with_secret(&["user", "add", "ADA", "--password-stdin"], "x\n");
    assert_eq!(code, 5, "{error}");
    let (code, _, error) = controller.with_secret(&["user", "passwd", "ada", "--password-stdin"], "other\n");
    assert_eq!(code, 0, "{error}");
    let table = controller.ok(&["user", "list"]);
    assert!(table.starts_with("USER  STATE    SESSIONS") && table.contains("\nada   enabled "), "{table}");
    assert_eq!(controller.ok(&["user", "disable", "ada"]), "disabled user ada\n");
    assert_eq!(controller.json(&["user", "list", "ad"])[0]["enabled"], json!(false));
    assert_eq!(controller.json(&["user", "list", "bob"]), json!([]));
    controller.ok(&["user", "enable", "ada"]);
    user_set(controller);
    assert!(controller.refused(&["user", "remove", "bob"]).contains("bob"));
    assert_eq!(controller.ok(&["user", "remove", "ada"]), "removed user ada\n");
}

fn user_set(controller: &Controller) {
    controller.wait_for_the_level();
    let set = controller.ok(&["user", "set", "ada", "--max-sessions", "2", "--address", "10.88.0.9"]);
    assert_eq!(set, "changed user ada: pool any, address 10.88.0.9, at most 2 sessions\n");
    let set = controller.json(&["user", "set", "ADA", "--address", "", "--pool", "office", "--comment", "2nd floor"]);
    let seen = ["name", "pool", "address", "max_sessions", "comment"].map(|field| set[field].clone());
    assert_eq!(seen, [json!("ada"), json!("office"), json!(""), json!(2), json!("2nd floor")]);
    assert!(controller.refused(&["user", "set", "bob", "--max-sessions", "1"]).contains("bob"));
    assert!(controller.refused(&["user", "set", "ada", "--pool", "attic"]).contains("attic"));
    assert_eq!(controller.run(&["user", "set", "ada"]).0, 2, "nothing to change");
    assert_eq!(controller.run(&["user", "set", "ada", "--address", "10.88"]).0, 2);
    assert_eq!(controller.ok(&["user", "unlock", "ada"]), "no wrong passwords counted for user ada\n");
    assert_eq!(controller.json(&["user", "unlock", "ada"]), json!({ "user": "ada", "forgotten": 0 }));
    assert!(controller.refused(&["user", "unlock", "bob"]).contains("bob"));
}

fn psk(controller: &Controller) {
    assert!(controller.ok(&["psk", "status"]).starts_with("no pre-shared key"));
    let (code, out, error) = controller.with_secret(&["psk", "set", "--psk-stdin"], "a long secret\n");
    assert_eq!(code, 0, "{error}");
    assert!(out.starts_with("a pre-shared key is set since 20") && !out.contains("secret"), "{out}");
    assert_eq!(controller.json(&["psk", "clear"])["set"], json!(false));
    assert_eq!(controller.with_secret(&["psk", "set", "--psk-stdin"], "short\n").0, 2);
}

fn settings(controller: &Controller) {
    let error = controller.refused(&["setting", "set", "auth-methods=mschapv2,chap-md5"]);
    assert!(error.contains("store_chap_secrets"), "{error}");
    let set = controller.ok(&["setting", "set", "auth-methods=mschapv2,chap-md5", "store-chap-secrets=true"]);
    assert_eq!(set, "auth-methods is now mschapv2,chap-md5\nstore-chap-secrets is now true\n");
    let settings = controller.json(&["setting", "show"]);
    let found = settings.as_array().unwrap().iter().find(|s| s["setting"] == "auth-methods").unwrap();
    assert_eq!(found["value"], json!("mschapv2,chap-md5"));
    assert_eq!(controller.run(&["setting", "set", "auth-methods=telepathy"]).0, 2);
    assert_eq!(controller.ok(&["setting", "set", "idle-timeout", "3600"]), "idle-timeout is now 3600\n");
}

fn empty_lists(controller: &Controller) {
    assert!(controller.ok(&["session", "list"]).starts_with("no sessions;"));
    assert!(controller.ok(&["gateway", "list"]).starts_with("no gateways;"));
    assert_eq!(controller.json(&["attempt", "list", "--failed", "--since", "1h", "--limit", "5"]), json!([]));
    controller.refused(&["session", "kill", "0123456789abcdef"]);
    controller.refused(&["gateway", "remove", "gw9"]);
}

fn status(controller: &Controller) {
    let status = controller.json(&["status", "--wait", "5s"]);
    assert_eq!((status["users"].as_u64(), status["leader_id"].as_u64()), (Some(0), status["node_id"].as_u64()));
    assert_eq!(status["root_fingerprint"].as_str().unwrap().len(), 64);
    assert!(controller.ok(&["status"]).contains("\naddresses     0 leased of 253\n"));
}

fn audit(controller: &Controller) {
    let list = controller.json(&["audit", "list"]);
    assert_eq!(list.as_array().unwrap().last().unwrap()["kind"], "begun", "{list}");
    let settings = list.as_array().unwrap().iter().find(|entry| entry["kind"] == "settings-set").unwrap();
    assert!(settings["source"] == "127.0.0.1" && !settings["actor"].as_str().unwrap().is_empty(), "{settings}");
    assert!(controller.ok(&["audit", "list"]).contains("settings-set"));
    assert_eq!(controller.json(&["audit", "list", "--limit", "1"]).as_array().unwrap().len(), 1);

    let first = controller.json(&["audit", "verify"]);
    let entries = first["entries"].as_u64().unwrap();
    assert!(first["outcome"] == "first" && entries >= list.as_array().unwrap().len() as u64, "{first}");
    controller.ok(&["setting", "set", "idle-timeout", "3601"]);
    let grown = controller.json(&["audit", "verify", "--full"]);
    assert_eq!((&grown["outcome"], &grown["known_before"]), (&json!("grown"), &json!(entries)));
    let out = controller.ok(&["audit", "verify"]);
    assert!(out.contains("are among them, as they were") && out.contains("0 of 0 gateways"), "{out}");

    controller.ok(&["audit", "export", "--out", "audit.jsonl"]);
    assert_eq!(controller.run(&["audit", "export", "--out", "audit.jsonl"]).0, 1, "is there already");
    controller.ok(&["audit", "export", "--since", "2", "--out", "later.jsonl"]);
    for file in ["audit.jsonl", "later.jsonl"] {
        controller.ok(&["audit", "verify", "--file", file]);
        let root = controller.state().join("operator/ca.pem");
        let elsewhere = ["--state", "/nowhere", "--root", root.to_str().unwrap()];
        controller.ok(&[&["audit", "verify", "--file", file][..], &elsewhere].concat());
    }
    let path = controller.dir.path().join("audit.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("psk-set", "psk-cleared")).unwrap();
    let (code, _, error) = controller.run(&["audit", "verify", "--file", "audit.jsonl"]);
    assert!(code == 1 && error.contains("something else than its leaf"), "{error}");
    assert!(controller.refused(&["audit", "accept", "--reason", "none"]).contains("no witness"));
}

#[test]
fn certificates_are_issued_into_folders_and_revoked() {
    let controller = Controller::start();
    let out = controller.ok(&["cert", "issue", "--machine", "laptop7.example.com", "--key", "ecdsa-p256"]);
    assert!(out.starts_with("issued machine certificate laptop7.example.com: ecdsa-p256, serial "), "{out}");
    let dir = controller.dir.path().join("laptop7.example.com");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("key.pem")), mode(&dir.join("cert.pem"))), (0o700, 0o600, 0o644));
    let root = controller.ok(&["cert", "root"]);
    assert_eq!(std::fs::read_to_string(dir.join("ca.pem")).unwrap(), root);

    let again = controller.run(&["cert", "issue", "--machine", "laptop7.example.com"]);
    assert!(again.0 == 1 && again.2.contains("is there already"), "{again:?}");

    let gateway = ["cert", "issue", "--gateway", "gw1.example.com", "--san", "192.0.2.1", "--out", "gw1"];
    let issued = controller.json(&gateway);
    assert_eq!(issued["certificates"].as_array().unwrap().len(), 3);
    for file in ["ca.pem", "grpc.pem", "grpc.key", "ike-rsa.pem", "ike-rsa.key", "ike-ecdsa.pem", "ike-ecdsa.key"] {
        assert!(controller.dir.path().join("gw1").join(file).exists(), "{file} is missing");
    }

    controller.ok(&["cert", "issue", "--operator", "grace", "--out", "grace", "--validity", "1d"]);
    let grace = controller.dir.path().join("grace");
    controller.ok(&["status", "--identity", grace.to_str().unwrap()]);
    // A machine's certificate is of the same authority and opens nothing here.
    let text = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let issuing = controller.ok(&["ca", "show", "1", "--pem"]);
    assert_eq!(text("chain.pem"), issuing);
    std::fs::write(dir.join("cert.pem"), text("cert.pem") + &issuing).unwrap();
    let identity = dir.to_str().unwrap();
    let address = std::fs::read_to_string(grace.join("controller")).unwrap();
    let (code, _, error) = controller.run(&["status", "--identity", identity, "--controller", address.trim()]);
    assert!(code == 5 || code == 4, "{code}: {error}");

    controller.wait_for_the_level();
    let live = controller.json(&["cert", "list", "laptop7", "--profile", "machine", "--live"]);
    let serial = live[0]["serial"].as_str().unwrap();
    let why = ["--reason", "key-compromise", "--note", "lost on a train"];
    let revoked = controller.json(&[&["cert", "revoke", serial][..], &why].concat());
    let certificate = &revoked["certificates"][0];
    assert_eq!((&certificate["state"], &certificate["reason"]), (&json!("revoked"), &json!("key-compromise")));
    assert_eq!(certificate["revocation_reason"], json!("lost on a train"));
    let shown = controller.json(&["cert", "show", &serial.to_uppercase()]);
    assert_eq!((&shown["serial"], &shown["reason"]), (&certificate["serial"], &json!("key-compromise")));
    assert!(controller.ok(&["cert", "show", serial]).contains("reason: key-compromise (lost on a train)\n"));
    controller.refused(&["cert", "show", "0123456789abcdef0123456789abcdef"]);
    assert_eq!(controller.json(&["cert", "list", "laptop7", "--live"]), json!([]));
    controller.refused(&["cert", "revoke", "0123456789abcdef0123456789abcdef"]);

    // On hold and back, by the machine's name; with nobody to wait for.
    controller.ok(&["cert", "issue", "--machine", "phone3.example.com", "--key", "ecdsa-p256"]);
    let held = controller.ok(&["cert", "revoke", "--machine", "phone3.example.com", "--hold", "--wait"]);
    assert!(held.starts_with("put on hold the machine certificate of phone3.example.com"), "{held}");
    assert!(held.contains("no gateway runs"), "{held}");
    assert_eq!(controller.json(&["cert", "list", "phone3"])[0]["state"], json!("on hold"));
    let released = controller.json(&["cert", "release", "--machine", "phone3.example.com", "--wait"]);
    assert_eq!((&released["certificates"][0]["state"], &released["gateways"]), (&json!("valid"), &json!([])));
    controller.refused(&["cert", "release", "--machine", "phone3.example.com"]);
    controller.refused(&["cert", "revoke", "--holder", "nobody"]);
    controller.ok(&["machine", "remove", "phone3.example.com", "--revoke"]);
    assert_eq!(controller.json(&["cert", "list", "phone3"])[0]["reason"], json!("cessation-of-operation"));
    let (code, _, error) = controller.run(&["cert", "revoke", "--machine", "x", "--reason", "stolen"]);
    assert!(code == 2 && error.contains("key-compromise"), "{code}: {error}");
    let (code, _, error) = controller.run(&["cert", "revoke"]);
    assert!(code == 2 && error.contains("--machine"), "{code}: {error}");
}

#[test]
fn issuing_authorities_are_listed_added_and_retired() {
    let controller = Controller::start();
    let list = || controller.json(&["ca", "list"]);
    let facts = |row: &serde_json::Value| {
        ["authority", "key", "state", "private_key"].map(|key| row[key].as_str().unwrap().to_owned())
    };
    assert_eq!(facts(&list()[0]), ["root", "ecdsa-p256", "in force", "sealed"]);
    assert_eq!(facts(&list()[1]), ["1", "ecdsa-p256", "in force", "sealed"]);
    assert_eq!(controller.ok(&["ca", "show", "root", "--pem"]), controller.ok(&["cert", "root"]));
    assert!(controller.ok(&["ca", "show", "1"]).contains("Issuing 1"));
    controller.refused(&["ca", "issuer", "add", "--key", "ecdsa-p256"]);
    controller.refused(&["ca", "issuer", "retire", "1"]);
    assert_eq!(controller.json(&["ca", "issuer", "add", "--key", "rsa-2048"])["authority"], json!(2));
    controller.ok(&["ca", "issuer", "retire", "1"]);
    assert_eq!(facts(&list()[1])[2], "retired");
    assert_eq!(facts(&list()[2]), ["2", "rsa-2048", "in force", "sealed"]);
    assert_eq!(controller.run(&["ca", "show", "7"]).0, 1);
    controller.ok(&["cert", "issue", "--machine", "laptop7.example.com", "--key", "ecdsa-p256"]);
    let row = &list()[2];
    assert!(row["certificates"].as_u64().unwrap() >= 1, "{row}");
}

#[test]
fn a_second_controller_on_the_same_state_is_refused() {
    let controller = Controller::start();
    let config = controller.dir.path().join("sallyport.toml");
    let (code, _, error) = controller.run(&["controller", "--config", config.to_str().unwrap()]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("in use by another process"), "{error}");
    controller.ok(&["status"]);
}

#[test]
fn machines_are_let_in_by_tokens_a_list_and_profiles() {
    let controller = Controller::start();
    controller.wait_for_the_level();
    tokens(&controller);
    machines(&controller);
    profiles(&controller);
    assert_eq!(controller.ok(&["request", "list"]), "no requests\n");
    assert!(controller.refused(&["request", "approve", "7", "--name", "a.example.com"]).contains("no request 7"));
    controller.stop();
}

fn tokens(controller: &Controller) {
    assert!(controller.ok(&["token", "list"]).starts_with("no tokens;"));
    let made = controller.ok(&["token", "create", "--machine", "laptop7.example.com", "--server", "vpn.example.com"]);
    let (token, rest) = made.split_once('\n').unwrap();
    assert!(token.starts_with("spt1.") && rest.contains("sallyport enroll --token-file -\n"), "{made}");
    assert!(rest.contains("1 certificate(s) of laptop7.example.com"), "{made}");
    let made = controller.json(&["token", "create", "--machine", "b.example.com", "--uses", "3", "--holder", "Bob"]);
    assert_eq!((&made["name"], &made["uses"], &made["used"]), (&json!("b.example.com"), &json!(3), &json!(0)));
    let table = controller.ok(&["token", "list", "--live"]);
    assert!(table.starts_with("TOKEN ") && table.contains(" b.example.com ") && !table.contains("spt1."), "{table}");
    controller.ok(&["token", "revoke", made["id"].as_str().unwrap()]);
    assert_eq!(controller.json(&["token", "list"]).as_array().unwrap().len(), 1);
    controller.refused(&["token", "revoke", made["id"].as_str().unwrap()]);
    let error = controller.refused(&["token", "create", "--machine", "two words"]);
    assert!(error.contains("two words"), "{error}");
    controller.refused(&["token", "create", "--machine", "a.example.com", "--profile", "operator"]);
    controller.refused(&["token", "create", "--machine", "a.example.com", "--expires", "91d"]);
}

fn machines(controller: &Controller) {
    assert!(controller.ok(&["machine", "list"]).starts_with("no machines;"));
    let file = controller.dir.path().join("machines.csv");
    let file = file.to_str().unwrap();
    std::fs::write(file, "name,holder,network\npos1.example.com,shop 1,198.51.100.0/28\npos2.example.com,,\n").unwrap();
    assert!(controller.ok(&["machine", "import", file]).starts_with("2 machines are known; of 1 the list names"));
    let key = "ab".repeat(32);
    controller.ok(&["machine", "add", "Pos3.example.com", "--key", &key, "--san", "2001:DB8:0::3"]);
    assert_eq!(
        controller.ok(&["machine", "add", "pos3.example.com", "--holder", "shop 3"]),
        "pos3.example.com may enroll\n"
    );
    let list = controller.json(&["machine", "list"]);
    assert_eq!((&list[0]["network"], &list[0]["state"]), (&json!("198.51.100.0/28"), &json!("expected")));
    assert_eq!((&list[2]["name"], &list[2]["key_sha256"]), (&json!("pos3.example.com"), &json!(key)));
    assert_eq!((&list[2]["sans"], &list[2]["holder"]), (&json!(["2001:db8::3"]), &json!("shop 3")));
    assert_eq!(controller.json(&["machine", "list", "--overdue"]), json!([]));
    assert_eq!(controller.json(&["machine", "list", "shop"]).as_array().unwrap().len(), 2);
    // All or none.
    std::fs::write(file, "name\nfine.example.com\nnot fine\n").unwrap();
    assert!(controller.refused(&["machine", "import", file]).contains("not fine"));
    assert_eq!(controller.json(&["machine", "list", "fine"]), json!([]));
    assert_eq!(controller.run(&["machine", "add", "a.example.com"]).0, 2, "nothing would let it in");
    controller.ok(&["machine", "remove", "POS2.example.com"]);
    controller.refused(&["machine", "remove", "pos2.example.com"]);
    assert_eq!(controller.json(&["machine", "list", "pos2"]), json!([]));
    // Who is given a certificate by hand is known, too.
    controller.ok(&["cert", "issue", "--machine", "desk.example.com", "--key", "ecdsa-p256"]);
    let desk = controller.json(&["machine", "list", "desk"]);
    assert_eq!((&desk[0]["state"], &desk[0]["method"]), (&json!("valid"), &json!("operator")));
    assert!(desk[0]["due"].as_str().unwrap() < desk[0]["not_after"].as_str().unwrap());
}

fn profiles(controller: &Controller) {
    let set =
        ["cert", "profile", "set", "machine", "--validity", "30d", "--names", "example.com", "--keys", "ecdsa-p256"];
    let shown = controller.ok(&set);
    assert!(shown.contains("30d 0h (at most 398d 0h)") && shown.contains("version 2"), "{shown}");
    assert_eq!(controller.ok(&["cert", "profile", "show", "machine"]), shown);
    assert!(controller.refused(&["token", "create", "--machine", "a.example.org"]).contains("example.com"));
    assert!(controller.refused(&["cert", "profile", "set", "machine", "--validity", "400d"]).contains("398"));
    // A certificate made by hand goes by it, too.
    let by_hand = |name: &str, more: &[&str]| {
        let command = [&["cert", "issue", "--machine", name, "--out", name, "--force"], more].concat();
        controller.refused(&command)
    };
    assert!(by_hand("a.example.com", &[]).contains("certifies no rsa-2048 keys"));
    assert!(by_hand("a.example.org", &["--key", "ecdsa-p256"]).contains("does not allow the name a.example.org"));
    let long = ["--key", "ecdsa-p256", "--validity", "31d"];
    assert!(by_hand("a.example.com", &long).contains("at most 30 days"));
    let ways =
        controller.ok(&["cert", "profile", "set", "machine", "--methods", "token,renewal", "--addresses", "false"]);
    assert!(ways.contains("ways to it     token, renewal\n") && ways.contains("addresses      none\n"), "{ways}");
    assert!(by_hand("a.example.com", &["--key", "ecdsa-p256"]).contains("does not let operators make"));
    assert!(controller.refused(&["cert", "profile", "set", "operator", "--methods", "token"]).contains("operator"));
    let list = controller.ok(&["cert", "profile", "list"]);
    assert!(list.contains("\nmachine ") && list.contains("\ncontroller "), "{list}");
    assert_eq!(controller.run(&["cert", "profile", "set", "machine"]).0, 2, "nothing to change");
    assert_eq!(controller.run(&["cert", "profile", "show", "root"]).0, 2);
}

#[test]
fn gateways_get_tokens_and_public_names_and_an_operator_renews() {
    let controller = Controller::start();
    let made = controller.json(&["gateway", "token", "gw1.example.com"]);
    let (token, command) = (made["token"].as_str().unwrap(), made["command"].as_str().unwrap());
    assert!(token.starts_with("spt1.") && command.ends_with("--token-file -") && !command.contains(token), "{made}");
    assert!(controller.refused(&["gateway", "token", "gw1.example.com", "--uses", "2"]).contains("gw-*.example.com"));
    controller.ok(&["gateway", "token", "gw-*.example.com", "--uses", "2", "--expires", "90d"]);
    assert_eq!(controller.json(&["token", "list", "--live"]).as_array().unwrap().len(), 2);

    controller.ok(&["setting", "set", "public-names=VPN.example.com,192.0.2.1"]);
    let settings = controller.json(&["setting", "show"]);
    let names = settings.as_array().unwrap().iter().find(|s| s["setting"] == "public-names").unwrap();
    assert_eq!(names["value"], "vpn.example.com,192.0.2.1");
    controller.refused(&["setting", "set", "public-names=not a name"]);
    controller.ok(&["gateway", "set", "gw1.example.com", "--public-name", "gw1.example.com"]);
    controller.refused(&["gateway", "set", "gw1.example.com", "--public-name", "ada@example.com"]);
    controller.ok(&["gateway", "set", "gw1.example.com"]);

    controller.ok(&["cert", "issue", "--operator", "grace", "--out", "grace", "--validity", "30d"]);
    let grace = controller.dir.path().join("grace");
    let read = |name: &str| std::fs::read_to_string(grace.join(name)).unwrap();
    let (certificate, key) = (read("cert.pem"), read("key.pem"));
    let identity = grace.to_str().unwrap();
    let early = controller.json(&["cert", "renew", "--identity", identity]);
    assert_eq!(early["renewed"], false);
    let renewed = controller.json(&["cert", "renew", "--force", "--identity", identity]);
    assert!(read("cert.pem") != certificate && read("key.pem") != key && !grace.join("cert.next").exists());
    controller.ok(&["status", "--identity", identity]);
    let listed = controller.json(&["cert", "list", "grace", "--profile", "operator", "--live"]);
    assert_eq!((listed[0]["serial"].clone(), listed.as_array().unwrap().len()), (renewed["serial"].clone(), 2));
    // A crash before the new certificate took its place.
    std::fs::rename(grace.join("cert.pem"), grace.join("cert.next")).unwrap();
    std::fs::write(grace.join("cert.pem"), certificate).unwrap();
    controller.ok(&["status", "--identity", identity]);
    controller.stop();
}

#[test]
fn an_operator_changes_only_what_its_roles_allow() {
    let controller = Controller::start();
    controller.wait_for_the_level();
    let set = controller.json(&["operator", "set", "helpdesk", "--role", "users", "--role", "enrollment"]);
    assert_eq!((&set["roles"], &set["restricted"]), (&json!(["users", "enrollment"]), &json!(true)));
    controller.ok(&["cert", "issue", "--operator", "helpdesk", "--out", "helpdesk"]);
    let folder = controller.dir.path().join("helpdesk");
    let identity = ["--identity", folder.to_str().unwrap()];
    controller.ok(&[&identity[..], &["token", "create", "--machine", "laptop7.example.com"]].concat());
    controller.ok(&[&identity[..], &["setting", "show"]].concat());
    let refused = controller.refused(&[&identity[..], &["setting", "set", "scep=true"]].concat());
    assert!(
        refused.contains("does not have the role policy") && refused.contains("sallyport operator list"),
        "{refused}"
    );
    controller.refused(&[&identity[..], &["cluster", "token"]].concat());
    assert!(
        controller
            .refused(&[&identity[..], &["operator", "set", "helpdesk", "--all-roles"]].concat())
            .contains("role operators")
    );
    let list = controller.ok(&["operator", "list"]);
    assert!(list.contains("users enrollment") && list.lines().any(|l| l.contains(" all ")), "{list}");
    controller.ok(&["operator", "set", "helpdesk", "--no-role"]);
    assert!(controller.ok(&["operator", "list"]).contains("none: only looks"));
    assert_eq!(controller.run(&["operator", "set", "helpdesk"]).0, 2, "which roles?");
    controller.stop();
}
