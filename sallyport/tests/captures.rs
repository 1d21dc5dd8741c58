//! `sallyport decode` on real captures: our own in `tests/captures`, held against their INDEX, and those of others, which
//! are read in place where they are and are no part of this project.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folder of captures of others, from `SALLYPORT_CAPTURES` or beside the project.
fn foreign() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    let folder = std::env::var_os("SALLYPORT_CAPTURES").map_or_else(beside, PathBuf::from);
    if folder.join("INDEX.md").is_file() {
        return Some(folder);
    }
    skipped(&format!("foreign captures: there is no folder {}; set SALLYPORT_CAPTURES", folder.display()));
    None
}

fn skipped(why: &str) {
    // Past the capture of a passing test's output, so that ./test can report it.
    let _ = std::io::stderr().write_all(format!("\nskipped: {why}\n").as_bytes());
}

fn decode_with(arguments: &[&str], file: &Path) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    let out = command.args(["decode", "--output", "json"]).args(arguments).arg(file).output().unwrap();
    assert!(out.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn decode(file: &Path) -> Vec<Value> {
    decode_with(&[], file)
}

/// IKE by exchange, PPTP by its kind, data by what it is, all else by protocol; malformed messages apart.
fn kind(message: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let protocol = text(&message["protocol"]);
    if message.get("malformed").is_some() {
        return "malformed".into();
    }
    match protocol.as_str() {
        "IKEv1" | "IKEv2" => text(&message["message"]["exchange"]),
        "PPP" => match message["message"]["ip_version"].as_u64() {
            Some(version) => format!("IPv{version}"),
            None => text(&message["message"]["name"]),
        },
        _ => protocol,
    }
}

fn counts(messages: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    messages.iter().for_each(|m| *counts.entry(kind(m)).or_default() += 1);
    counts
}

/// `MAIN_MODE 6, ESP 2` as counts.
fn expected(text: &str) -> BTreeMap<String, usize> {
    let entry = |e: &str| e.rsplit_once(' ').map(|(name, n)| (name.to_owned(), n.parse().unwrap()));
    text.split(", ").filter_map(entry).collect()
}

/// What the INDEX of the captures of others says that a tshark has found, in our names. Where the two differ the note
/// says why.
const FOREIGN: &[(&str, &str)] = &[
    ("ikev1/main-psk-aes128-modp1024.pcap", "MAIN_MODE 6, QUICK_MODE 3"),
    ("ikev1/main-psk-3des-strongswan-retry.pcap", "MAIN_MODE 7, INFORMATIONAL 1, QUICK_MODE 3, ESP 16"),
    ("ikev1/natt-4500-pluto.pcap", "MAIN_MODE 6, QUICK_MODE 8, INFORMATIONAL 1, ESP 8, NAT-T 4"),
    ("ikev1/main-ipv6-aes256-sha512-ecp384-2qm.pcap", "MAIN_MODE 7, QUICK_MODE 6, ESP 296"),
    ("ikev1/aggressive-psk-xauth-shrew.pcapng.gz", "AGGRESSIVE 3, INFORMATIONAL 1, TRANSACTION 6"),
    ("ikev1/lab-psk-nat-transport.pcap", "MAIN_MODE 6, QUICK_MODE 2, INFORMATIONAL 2"),
    ("ikev1/lab-rsa-cert-nat-transport.pcap", "MAIN_MODE 6, QUICK_MODE 2, INFORMATIONAL 2"),
    ("ikev1/vid-before-sa.pcap", "MAIN_MODE 1"),
    ("ikev1/vid-second-resp.pcap", "MAIN_MODE 1"),
    ("ikev1/malformed-delete.pcap", "malformed 1"),
    ("ikev1/malformed-identification.pcap", "malformed 1"),
    ("ikev1/malformed-pointer-loop.pcap", "malformed 1"),
    ("ikev1/malformed-payload-length.pcap", "malformed 1"),
    ("ikev1/informational-np-nonzero-last.pcapng", "malformed 1"),
    // 22 frames of an Ethertype that nobody has, and the header of a UDP datagram to port 4500.
    ("ikev1/malformed-rfc3948-oobr.pcap", "malformed 1"),
    ("ikev2/windows10-sa-init.pcap", "IKE_SA_INIT 2, IKE_AUTH 3"),
    ("ikev2/decrypt-3des-sha1_160.pcap", "IKE_SA_INIT 2, IKE_AUTH 2, INFORMATIONAL 2"),
    ("ikev2/decrypt-aes128ccm12.pcap", "IKE_SA_INIT 2, IKE_AUTH 2, INFORMATIONAL 2"),
    ("ikev2/decrypt-aes256cbc.pcapng", "IKE_SA_INIT 2, IKE_AUTH 2"),
    ("ikev2/decrypt-aes256gcm16.pcap", "IKE_SA_INIT 2, IKE_AUTH 2, INFORMATIONAL 2"),
    ("ikev2/cookie-invalid-ke-auth-child.pcap", "IKE_SA_INIT 4, IKE_AUTH 2, CREATE_CHILD_SA 14, INFORMATIONAL 1"),
    ("ikev2/nat-t-two-sessions.pcapng", "IKE_SA_INIT 6, IKE_AUTH 6, INFORMATIONAL 18, ESP 24"),
    ("ikev2/psk-esp-short.pcapng", "IKE_SA_INIT 2, IKE_AUTH 2, ESP 2"),
    ("ikev2/lab-eap-mschapv2-frag-natt.pcap", "IKE_SA_INIT 2, IKE_AUTH 12, CREATE_CHILD_SA 2, INFORMATIONAL 4, ESP 8"),
    ("esp/aes128-sha1-known-keys.pcapng.gz", "ESP 6"),
    ("esp/3des-sunrise.pcap", "ESP 8"),
    ("esp/udp-encap-3des.pcap", "ESP 8"),
    ("esp/eve-flow-esp.pcap", "ESP 8"),
    ("l2tp/xl2tpd-plain.pcap", "L2TP 15"),
    ("l2tp/xl2tpd-challenge-hidden.pcap", "L2TP 15"),
    // An IPCP packet that tshark counts although it is impossible.
    ("ppp/invalid-lengths.pcap", "malformed 1"),
    ("ppp/mlppp-short.pcap", "malformed 1"),
    ("ppp/gre-ppp-ipv4-fragments.pcap", "IPv4 1024"),
    ("ppp/pppoes-echo.pcap", "LCP 2"),
    ("ppp/windows7-inner-lulu.pcap", "IPv4 25"),
    // tshark counts the IPV6CP packet inside an LCP Protocol-Reject as well.
    ("pptp/windows-pptpd-mppe-lulu.pcap", "PPTP 6, LCP 13, CHAP 3, IPCP 10, IPV6CP 1, CCP 4, COMPRESSED 25"),
    ("pptp/win2k-linux.pcap", "PPTP 5, LCP 1"),
    // Not ours: EAPOL, RADIUS.
    ("eap/eap-over-lan.pcap", ""),
    ("radius/eap-md5-pap-chap.pcapng", ""),
    ("radius/basic.pcap", ""),
    ("radius/coa-disconnect.pcap", ""),
    ("radius/ipv6-attributes.pcap", ""),
];

#[test]
fn captures_of_others_hold_what_their_index_says() {
    let Some(folder) = foreign() else { return };
    for (file, wanted) in FOREIGN {
        let found = counts(&decode(&folder.join(file)));
        assert_eq!(found, expected(wanted), "{file}");
    }
    // The table has every capture of the folder.
    let mut missing = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap().flatten().filter(|e| e.path().is_dir()) {
        for file in std::fs::read_dir(entry.path()).unwrap().flatten() {
            let name = format!("{}/{}", entry.file_name().display(), file.file_name().display());
            if name.contains(".pcap") && !FOREIGN.iter().any(|(f, _)| *f == name) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

/// Details that the INDEX names: a file, a frame, and what its line must hold.
const DETAILS: &[(&str, u64, &[&str])] = &[
    (
        "ikev1/main-psk-aes128-modp1024.pcap",
        1,
        &[
            "AES_CBC-128/SHA1/MODP_1024/PRE_SHARED_KEY/86400s",
            "RFC 3947 NAT-T",
            "NAT-T draft 07",
            "draft 03",
            "draft 02\\n",
        ],
    ),
    ("ikev1/main-psk-aes128-modp1024.pcap", 5, &["MAIN_MODE", "encrypted"]),
    ("ikev1/main-psk-3des-strongswan-retry.pcap", 3, &["INFORMATIONAL", "N(NO_PROPOSAL_CHOSEN)"]),
    (
        "ikev1/main-psk-3des-strongswan-retry.pcap",
        1,
        &[
            "TRIPLE_DES_CBC/SHA1/MODP_1024/PRE_SHARED_KEY/7800s",
            "strongSwan",
            "Cisco Unity",
            "XAUTH",
            "DPD",
            "NAT-T draft 00",
        ],
    ),
    ("ikev1/main-ipv6-aes256-sha512-ecp384-2qm.pcap", 2, &["AES_CBC-256/SHA2_512/ECP_384", "VID(fragmentation"]),
    ("ikev1/aggressive-psk-xauth-shrew.pcapng.gz", 1, &["XAUTH_INIT_PRE_SHARED", "MODP_1024"]),
    ("ikev1/aggressive-psk-xauth-shrew.pcapng.gz", 3, &["AGGRESSIVE", "HASH("]),
    ("ikev1/lab-rsa-cert-nat-transport.pcap", 4, &["KE(256 bytes)", "NONCE(", "CERTREQ(X509_SIGNATURE", "NAT-D("]),
    ("ikev1/vid-before-sa.pcap", 1, &[": VID(", ", SA("]),
    ("ikev1/vid-second-resp.pcap", 1, &[": SA(", ", VID("]),
    (
        "ikev2/windows10-sa-init.pcap",
        1,
        &["#12 ", "MS NT5 ISAKMPOAKLEY", "MS negotiation discovery", "MS initial contact", "MS keying modules"],
    ),
    ("ikev2/windows10-sa-init.pcap", 5, &["IKE_AUTH", "SK(3436 bytes"]),
    ("ikev2/cookie-invalid-ke-auth-child.pcap", 2, &["response", "N(COOKIE"]),
    ("ikev2/lab-eap-mschapv2-frag-natt.pcap", 4, &["SKF(1 of 3"]),
    ("esp/3des-sunrise.pcap", 8, &["spi 12345678 seq 8"]),
    ("esp/udp-encap-3des.pcap", 1, &["spi 12345678 seq 1"]),
    ("l2tp/xl2tpd-plain.pcap", 1, &["SCCRQ tunnel 0 session 0 ns 0 nr 0", "HOST_NAME=\"lachost\""]),
    ("l2tp/xl2tpd-plain.pcap", 9, &["ZLB", "session 6088"]),
    ("l2tp/xl2tpd-plain.pcap", 10, &["HELLO"]),
    ("l2tp/xl2tpd-plain.pcap", 14, &["STOPCCN", "RESULT_CODE=1"]),
    ("l2tp/xl2tpd-challenge-hidden.pcap", 1, &["CHALLENGE=", "RANDOM_VECTOR="]),
    ("l2tp/xl2tpd-challenge-hidden.pcap", 3, &["CHALLENGE_RESPONSE="]),
    ("l2tp/xl2tpd-challenge-hidden.pcap", 4, &["ICRQ", "ASSIGNED_SESSION_ID=hidden"]),
    ("ppp/pppoes-echo.pcap", 1, &["Echo-Request"]),
    ("ppp/windows7-inner-lulu.pcap", 4, &["255.255.255.255 UDP 68 → 67"]),
    ("pptp/win2k-linux.pcap", 16, &["CALLBACK=6", "MRRU=1614", "ENDPOINT=1:"]),
    ("pptp/windows-pptpd-mppe-lulu.pcap", 17, &["MRU=1400", "MAGIC=", "PFC", "ACFC", "CALLBACK=6"]),
    ("pptp/windows-pptpd-mppe-lulu.pcap", 18, &["Configure-Reject", "CALLBACK"]),
    ("pptp/windows-pptpd-mppe-lulu.pcap", 31, &["Identification", "MSRASV5.20"]),
    ("pptp/windows-pptpd-mppe-lulu.pcap", 35, &["user \"lulu\", MS-CHAPv2"]),
    ("pptp/windows-pptpd-mppe-lulu.pcap", 36, &["S=460874E1CADF35FBD9F6E80C01A1ADC5746F0B6A"]),
    ("pptp/windows-pptpd-mppe-lulu.pcap", 39, &["Protocol-Reject", "IPV6CP"]),
    ("pptp/windows-pptpd-mppe-lulu.pcap", 40, &["Configure-Request", "stateless 128"]),
    ("pptp/windows-pptpd-mppe-lulu.pcap", 43, &["Terminate-Ack"]),
    ("pptp/windows-pptpd-mppe-lulu.pcap", 49, &["Configure-Reject", "DNS1=", "NBNS2="]),
    ("pptp/windows-pptpd-mppe-lulu.pcap", 51, &["Configure-Nak", "ADDRESS=192.168.2.234"]),
];

#[test]
fn captures_of_others_show_the_details_that_their_index_names() {
    let Some(folder) = foreign() else { return };
    for (file, frame, wanted) in DETAILS {
        let messages = decode(&folder.join(file));
        let message = messages.iter().find(|m| m["frame"] == *frame);
        let summary = message.and_then(|m| m["summary"].as_str()).unwrap_or_else(|| panic!("{file}: no frame {frame}"));
        for part in *wanted {
            assert!(summary.contains(part), "{file} frame {frame} has no {part}: {summary}");
        }
    }
}

#[test]
fn bare_messages_of_others_are_read() {
    let Some(folder) = foreign() else { return };
    let ike = |file: &str| {
        let messages = decode_with(&["--raw", "ike"], &folder.join(file));
        assert_eq!(messages.len(), 1, "{file}");
        (kind(&messages[0]), messages[0].clone())
    };
    for (file, exchange) in [
        ("raw-udp-payload/pkt-aggr-cert-response.dat", "AGGRESSIVE"),
        ("raw-udp-payload/pkt-aggressive.dat", "AGGRESSIVE"),
        ("raw-udp-payload/pkt-custom-proposal.dat", "MAIN_MODE"),
        ("raw-udp-payload/pkt-ikev2.dat", "IKE_SA_INIT"),
        ("raw-udp-payload/pkt-main-natt-response.dat", "MAIN_MODE"),
        ("raw-udp-payload/pkt-notify-response.dat", "INFORMATIONAL"),
        ("raw-udp-payload/pkt-v2-notify-response.dat", "IKE_SA_INIT"),
    ] {
        assert_eq!(ike(file).0, exchange, "{file}");
    }
    assert_eq!(ike("raw-udp-payload/pkt-main-natt-response.dat").1["message"]["non_esp_marker"], true);

    // Windows 7: five transforms with a lifetime of 28800 s in four bytes, then seven vendor ids.
    let (exchange, message) = ike("hex/windows7-l2tp-main-mode-1.hex");
    let payloads = message["message"]["payloads"].as_array().unwrap();
    let proposal = &payloads[0]["proposals"][0];
    assert_eq!((exchange.as_str(), payloads.len(), &message["message"]["length"]), ("MAIN_MODE", 8, &Value::from(384)));
    assert_eq!((&proposal["number"], &proposal["spi"]), (&Value::from(1), &Value::from("")));
    let transforms: Vec<&str> =
        proposal["transforms"].as_array().unwrap().iter().filter_map(|t| t["text"].as_str()).collect();
    assert_eq!(
        transforms,
        [
            "AES_CBC-256/SHA1/ECP_384/PRE_SHARED_KEY/28800s",
            "AES_CBC-128/SHA1/ECP_256/PRE_SHARED_KEY/28800s",
            "AES_CBC-256/SHA1/MODP_2048/PRE_SHARED_KEY/28800s",
            "TRIPLE_DES_CBC/SHA1/MODP_2048/PRE_SHARED_KEY/28800s",
            "TRIPLE_DES_CBC/SHA1/MODP_1024/PRE_SHARED_KEY/28800s",
        ]
    );
    let known = payloads.iter().filter(|p| p["type"] == "VID" && p["name"].is_string()).count();
    assert_eq!(known, 7, "{payloads:?}");
}

#[test]
fn hexadecimal_collections_of_others_are_read() {
    let Some(folder) = foreign() else { return };
    let read = |file: &str| -> Vec<Value> {
        serde_json::from_str(&std::fs::read_to_string(folder.join(file)).unwrap()).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let one = |protocol: &str, digits: &str| {
        let file = dir.path().join("message");
        std::fs::write(&file, digits).unwrap();
        decode_with(&["--raw", protocol], &file)
    };
    let l2tp: Vec<String> = read("hex/l2tp-hello-zlb.json")
        .iter()
        .flat_map(|m| one("l2tp", m["hex"].as_str().unwrap()))
        .map(|m| m["message"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(l2tp, ["HELLO", "ZLB"]);

    // Protocol and packet apart; together they are a frame.
    let frames = read("hex/windows7-ppp-control-frames.json");
    let messages: Vec<Value> = frames
        .iter()
        .flat_map(|m| one("ppp", &(m["protocol"].as_str().unwrap().to_owned() + m["hex"].as_str().unwrap())))
        .collect();
    assert_eq!(messages.len(), frames.len());
    assert!(messages.iter().all(|m| m.get("malformed").is_none()), "{messages:?}");
    assert!(!counts(&messages).contains_key("malformed"));

    // Packets of many layers: whichever way they are taken, nothing stops.
    for packet in read("hex/scapy-packets.json") {
        for digits in packet["hex"].as_array().unwrap() {
            for protocol in ["ike", "esp", "l2tp", "ppp", "ip", "ethernet"] {
                one(protocol, digits.as_str().unwrap());
            }
        }
    }
}

/// The rows of the table in our own INDEX: file and, for each of its columns, a count.
fn own_index(text: &str) -> Vec<(String, BTreeMap<String, usize>)> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = text.lines().filter(|l| l.starts_with('|')).map(cells).collect();
    let (heading, rows) = rows.split_first().unwrap();
    let row = |row: &Vec<String>| {
        let named = heading.iter().zip(row).skip(2); // file, what it shows
        let counts = named.map(|(name, count)| (name.clone(), count.parse().unwrap_or(usize::MAX)));
        (row[0].trim_matches('`').to_owned(), counts.collect())
    };
    rows.iter().skip(1).map(row).collect()
}

#[test]
fn our_own_captures_hold_what_their_index_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures");
    let index = std::fs::read_to_string(folder.join("INDEX.md")).unwrap();
    let rows = own_index(&index);
    assert!(rows.len() >= 11);
    for (file, wanted) in rows {
        let messages = decode(&folder.join(&file));
        let count = |test: &dyn Fn(&Value) -> bool| messages.iter().filter(|m| test(m)).count();
        let protocol = |m: &Value, name: &str| m["protocol"] == name;
        let in_l2tp = |m: &Value| m["inside"].get("l2tp").is_some();
        assert_eq!(count(&|m| m.get("malformed").is_some()), 0, "{file}");
        for (column, expected) in wanted {
            let found = match column.as_str() {
                "frames" => continue,
                "IKE" => count(&|m| protocol(m, "IKEv1") || protocol(m, "IKEv2")),
                "L2TP control" => count(&|m| protocol(m, "L2TP") && m["message"]["control"] == true),
                "L2TP data" => count(&in_l2tp),
                // tshark counts the packet inside an LCP Protocol-Reject as well.
                "IPV6CP" => count(&|m| protocol(m, "IPV6CP") || m["message"]["rejected"] == "IPV6CP"),
                "IPv4" => count(&|m| m["message"]["ip_version"] == 4),
                "IPv6" => count(&|m| m["message"]["ip_version"] == 6),
                other => count(&|m| protocol(m, other)),
            };
            assert_eq!(found, expected, "{file}: {column}");
        }
    }
}

#[test]
fn text_output_has_one_line_for_each_message_and_no_password() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures");
    let file = folder.join("l2tp-xl2tpd-pap.pcap");
    let run = |arguments: &[&str]| {
        let out =
            Command::new(env!("CARGO_BIN_EXE_sallyport")).arg("decode").args(arguments).arg(&file).output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    };
    let text = run(&[]);
    assert_eq!(text.lines().count(), decode(&file).len());
    assert!(text.contains("user \"alice\" password (not shown)") && !text.contains("wonderland"));
    assert!(run(&["--show-secrets"]).contains("password \"wonderland\""));
    assert!(run(&["--time", "utc"]).lines().all(|l| l.contains("T") && l.contains("Z  ")));
}

#[test]
fn what_is_no_capture_is_refused_with_the_reason() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let out = Command::new(env!("CARGO_BIN_EXE_sallyport")).arg("decode").arg(&file).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(text.contains("it is neither pcap nor pcapng"), "{text}");
}
