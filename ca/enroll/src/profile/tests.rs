use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use sallyport_ca::seal::SealKey;
use sallyport_ca::{Authority, KeyAlgorithm, Profile as Kind, RootConfig, Serial, Subject, SystemRandom, UnixTime};

use sallyport_ca::pem;

use super::*;
use crate::{FileKey, KeyStore as _};

fn identity() -> Identity {
    let (rng, now) = (SystemRandom::new(), UnixTime(1_800_000_000));
    let seal = SealKey::generate(&rng).unwrap();
    let (authority, _) = Authority::create(&RootConfig::new("Bücher & <Söhne>", "Root"), &seal, now, &rng).unwrap();
    let key = FileKey::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
    let (subject, serial) = (Subject::new("laptop7.example.com", vec![]).unwrap(), Serial::generate(&rng).unwrap());
    let life = Duration::from_secs(86_400);
    let prepared = authority.prepare(Kind::Machine, &subject, &key.public_key(), now, life, serial).unwrap();
    let certificate = authority.sign(&prepared, &rng).unwrap();
    let root = authority.certificate().der().to_vec();
    Identity { key: Box::new(key), certificate, chain: vec![root.clone()], roots: vec![root] }
}

fn connection() -> Connection {
    Connection {
        gateway: "vpn.example.com".into(),
        user: Some("o'hara & <co>".into()),
        password: Some(Zeroizing::new("a<b>&'c".into())),
    }
}

fn built(system: System) -> (Identity, Profile) {
    let identity = identity();
    let profile = make(system, &identity, &connection(), &Options::default(), &SystemRandom::new()).unwrap();
    (identity, profile)
}

/// What a program makes of a text; `None` where the machine does not have it.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Option<String> {
    let child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        let _ = writeln!(std::io::stderr(), "skipped: {program} is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn p12_opens(p12: &[u8], password: &str, identity: &Identity) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), p12).unwrap();
    let path = file.path().to_str().unwrap();
    let arguments = ["pkcs12", "-in", path, "-passin", "stdin", "-nodes"];
    let Some(text) = pipe("openssl", &arguments, format!("{password}\n").as_bytes()) else { return };
    assert_eq!(pem::private_key(text.as_bytes()).unwrap(), pem::private_key(identity.key.pem().as_bytes()).unwrap());
    assert_eq!(pem::certificates(text.as_bytes()).unwrap()[0], identity.certificate.der());
}

#[test]
fn a_profile_of_apples_is_a_property_list_with_all_payloads_and_no_password_of_the_key() {
    let (identity, profile) = built(System::Apple);
    let [file] = &profile.files[..] else { panic!("one file") };
    assert_eq!((file.name.as_str(), file.public), ("laptop7.example.com.mobileconfig", false));
    let password = profile.password.unwrap();
    assert!(password.len() == 20 && !String::from_utf8_lossy(&file.content).contains(password.as_str()));
    // Python's reader of property lists is nobody's of ours.
    let script = "\
import base64, json, plistlib, sys
p = plistlib.loads(sys.stdin.buffer.read())
plain = lambda v: base64.b64encode(v).decode() if isinstance(v, bytes) else {k: plain(x) for k, x in v.items()} if isinstance(v, dict) \
else [plain(x) for x in v] if isinstance(v, list) else v
for c in p['PayloadContent']:
    print(c['PayloadType'], c['PayloadUUID'], json.dumps(plain({k: v for k, v in c.items() if not k.startswith('Payload')}), sort_keys=True), \
plain(c.get('PayloadContent', '')) or '-', sep='|')
print(p['PayloadType'], p['PayloadUUID'], p['PayloadScope'], p['PayloadIdentifier'], sep='|')
";
    let Some(text) = pipe("python3", &["-c", script], &file.content) else { return };
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split('|').collect()).collect();
    let kinds: Vec<&str> = lines.iter().map(|l| l[0]).collect();
    let expected = [
        "com.apple.security.root",
        "com.apple.security.pkcs1",
        "com.apple.security.pkcs12",
        "com.apple.vpn.managed",
        "Configuration",
    ];
    assert_eq!(kinds, expected);
    let uuids: std::collections::BTreeSet<&str> = lines.iter().map(|l| l[1]).collect();
    assert!(uuids.len() == 5 && uuids.iter().all(|u| u.len() == 36), "{uuids:?}");
    assert_eq!(Base64::decode_vec(lines[0][3]).unwrap(), identity.roots[0]);
    p12_opens(&Base64::decode_vec(lines[2][3]).unwrap(), &password, &identity);
    let vpn = lines[3][2];
    assert!(
        vpn.contains(&format!(
            "\"IPSec\": {{\"AuthenticationMethod\": \"Certificate\", \"PayloadCertificateUUID\": \"{}\"}}",
            lines[2][1]
        )),
        "{vpn}"
    );
    assert!(vpn.contains("\"AuthName\": \"o'hara & <co>\"") && !vpn.contains("a<b>"), "{vpn}");
    assert!(
        vpn.contains("\"VPNType\": \"L2TP\"") && vpn.contains("\"CommRemoteAddress\": \"vpn.example.com\""),
        "{vpn}"
    );
}

#[test]
fn the_script_for_windows_imports_connects_and_holds_no_password() {
    let (identity, profile) = built(System::Windows);
    let text = String::from_utf8(profile.files[0].content.to_vec()).unwrap();
    assert!(text.starts_with('\u{feff}') && text.lines().all(|l| !l.contains('\r')) && text.contains("\r\n"));
    let root = Base64::encode_string(&identity.roots[0]);
    for part in [
        format!("Add-Certificate 'Root' '{root}'").as_str(),
        format!("Add-Certificate 'CA' '{root}'").as_str(),
        "-CertStoreLocation Cert:\\LocalMachine\\My",
        "$Server = 'vpn.example.com'",
        "-TunnelType L2tp",
        "-AuthenticationMethod MSChapv2 -EncryptionLevel Required",
        "Set-VpnConnectionIPsecConfiguration -AllUserConnection -ConnectionName $Name",
        "with user o''hara & <co>.'",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let password = profile.password.unwrap();
    assert!(!text.contains(password.as_str()) && !text.contains("a<b>"));
    let p12 =
        text.split("WriteAllBytes($file, [Convert]::FromBase64String('").nth(1).unwrap().split('\'').next().unwrap();
    p12_opens(&Base64::decode_vec(p12).unwrap(), &password, &identity);
}

/// What is open at the end of a script in PowerShell: brackets and quotes, comments left out. There are no here-strings in ours.
fn left_open(script: &str) -> Vec<char> {
    let (mut open, mut quote, mut comment) = (Vec::new(), None, false);
    for c in script.chars() {
        match (quote, c) {
            _ if comment => comment = c != '\n',
            // Two of them in a row end a string and begin the next one: the same as far as this goes.
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '#') => comment = true,
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '[' | '{') => open.push(c),
            (None, ')' | ']' | '}') => {
                let matching = open.pop().map(|o| format!("{o}{c}"));
                assert!(matches!(matching.as_deref(), Some("()" | "[]" | "{}")), "{matching:?}");
            }
            _ => {}
        }
    }
    open.into_iter().chain(quote).collect()
}

#[test]
fn the_script_for_windows_ends_with_nothing_open() {
    let (_, profile) = built(System::Windows);
    let text = String::from_utf8(profile.files[0].content.to_vec()).unwrap();
    assert_eq!(left_open(&text), []);
    assert_eq!(left_open("try { f 'it''s (' # }"), ['{']);
    // A line that goes on has nothing behind its mark.
    assert!(
        text.lines()
            .filter(|l| l.contains('`'))
            .all(|l| l.starts_with('#') || l.trim_end_matches('\r').ends_with(" `"))
    );
    let warned = &profile.steps[0];
    assert!(warned.contains("ecdsa-p256") && warned.contains("--key rsa-2048"), "{warned}");
}

#[test]
fn no_text_leaves_its_quotes_in_powershell() {
    assert_eq!(windows::quoted("a'b\u{2019}c`$(d)"), "'a''b\u{2019}\u{2019}c`$(d)'");
}

#[test]
fn networkmanagers_file_names_where_the_others_will_be() {
    let identity = identity();
    let options = Options { dir: Some("/opt/vpn/"), ..Options::default() };
    let profile = make(System::NetworkManager, &identity, &connection(), &options, &SystemRandom::new()).unwrap();
    let names: Vec<(&str, bool)> = profile.files.iter().map(|f| (f.name.as_str(), f.public)).collect();
    assert_eq!(names, [("sallyport.nmconnection", false), ("key.pem", false), ("cert.pem", true), ("ca.pem", true)]);
    let text = String::from_utf8(profile.files[0].content.to_vec()).unwrap();
    assert!(text.contains("machine-key=/opt/vpn/key.pem\n") && text.contains("user=o'hara & <co>\n"), "{text}");
    assert!(profile.password.is_none());
}

#[test]
fn a_plain_file_has_key_certificate_and_roots_under_the_password_that_was_given() {
    let identity = identity();
    for protection in [Protection::Modern, Protection::Legacy] {
        let options = Options { protection, password: Some("open sesame"), dir: None };
        let profile = make(System::Pkcs12, &identity, &connection(), &options, &SystemRandom::new()).unwrap();
        assert_eq!(
            (profile.files[0].name.as_str(), profile.password.unwrap().as_str()),
            ("laptop7.example.com.p12", "open sesame")
        );
        p12_opens(&profile.files[0].content, "open sesame", &identity);
    }
}

#[test]
fn a_name_is_harmless_as_a_files() {
    for (name, file) in [
        ("laptop7.example.com", "laptop7.example.com"),
        ("../../etc/x y'\"$", ".._etc_x_y___"),
        ("...", "machine"),
        ("", "machine"),
    ] {
        let got = file_name(name);
        assert!(!got.contains('/') && !got.starts_with('.'), "{got}");
        if file == "machine" || !name.contains('/') {
            assert_eq!(got, file);
        }
    }
}

#[test]
fn strongswan_and_libreswan_get_files_and_the_commands_that_put_them_in_place() {
    let identity = identity();
    let rng = SystemRandom::new();
    let profile = make(System::Strongswan, &identity, &connection(), &Options::default(), &rng).unwrap();
    let names: Vec<&str> = profile.files.iter().map(|f| f.name.as_str()).collect();
    let l2tp = ["options.sallyport", "xl2tpd.conf"];
    let own = ["key.pem", "cert.pem", "sallyport.conf", "sallyport-ca.pem", "sallyport-ca-1.pem"];
    assert_eq!(names, [own.as_slice(), &l2tp].concat());
    assert!(profile.steps.iter().any(|s| s.contains("sallyport-ca.pem sallyport-ca-1.pem /etc/swanctl/x509ca/")));
    assert!(profile.files.iter().filter(|f| !f.public).map(|f| f.name.as_str()).eq(["key.pem", "options.sallyport"]));
    // An ECDSA key is none for it.
    let error = make(System::Libreswan, &identity, &connection(), &Options::default(), &rng).err().unwrap();
    assert!(error.cause.contains("libreswan"), "{error}");
}
