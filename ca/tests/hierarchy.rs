//! A root, issuing authorities below it, and what they issue: held against our own validation, OpenSSL and GnuTLS.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use sallyport_ca::seal::{SealError, SealKey};
use sallyport_ca::verify::{CertPayload, IkeId, PeerRole, TrustStore, verify_peer};
use sallyport_ca::*;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: i64 = 86_400;
const ROOT_CRL: &str = "http://vpn.example.com/ca/root.crl";
const LEAF_CRL: &str = "http://vpn.example.com/ca/1/0.crl";

fn rng() -> SystemRandom {
    SystemRandom::new()
}

fn seal_key() -> &'static SealKey {
    static KEY: OnceLock<SealKey> = OnceLock::new();
    KEY.get_or_init(|| SealKey::generate(&rng()).unwrap())
}

fn root(key: KeyAlgorithm, now: UnixTime) -> Authority {
    let config = RootConfig { key, ..RootConfig::new("Example Org", "Example Root") };
    let mut root = Authority::create(&config, seal_key(), now, &rng()).unwrap().0;
    root.set_urls(RevocationUrls {
        crl: Some(ROOT_CRL.into()),
        ca_issuers: Some("http://vpn.example.com/ca/0.cer".into()),
        ..Default::default()
    })
    .unwrap();
    root
}

fn issuing(root: &Authority, key: KeyAlgorithm, now: UnixTime) -> Authority {
    let config = IssuingConfig::new("Example Issuing 1", key);
    let mut made = Authority::create_issuing(root, &config, seal_key(), now, &rng()).unwrap().0;
    made.set_urls(RevocationUrls { crl: Some(LEAF_CRL.into()), ..Default::default() }).unwrap();
    made
}

fn leaf(authority: &Authority, profile: Profile, name: &str, now: UnixTime) -> Certificate {
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng()).unwrap();
    let (subject, serial) = (Subject::new(name, vec![]).unwrap(), Serial::generate(&rng()).unwrap());
    authority.issue(profile, &subject, &key.public_key(), now, serial, &rng()).unwrap()
}

fn revoked(authority: &Authority, scope: &str, serials: &[&Serial], now: UnixTime) -> Vec<u8> {
    let entries: Vec<_> = serials.iter().map(|s| ((*s).clone(), now)).collect();
    authority.revocation_list(scope, 7, &entries, now, &rng()).unwrap()
}

fn there(program: &str) -> bool {
    if Command::new(program).arg("--version").output().is_ok() {
        return true;
    }
    // Past the capture of a passing test's output, so that ./test can report it.
    let _ = writeln!(std::io::stderr(), "\nskipped: no {program} command to verify chains with");
    false
}

/// Runs a program; whether it succeeded, and what it said.
fn says(program: &str, args: &[&str], dir: &Path) -> (bool, String) {
    let out = Command::new(program).args(args).current_dir(dir).output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

#[test]
fn an_issuing_authority_says_what_rfc_5280_wants_of_one_and_every_pair_of_keys_works() {
    for (above, below) in [
        (KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048),
        (KeyAlgorithm::EcdsaP384, KeyAlgorithm::EcdsaP256),
        (KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP384),
    ] {
        let root = root(above, NOW);
        let issuing = issuing(&root, below, NOW);
        assert_eq!(issuing.key_algorithm(), below);
        let (_, parsed) = X509Certificate::from_der(issuing.certificate().der()).unwrap();
        assert_eq!(issuing.certificate().subject, "O=Example Org, CN=Example Issuing 1");
        assert_eq!(parsed.issuer().as_raw(), root.certificate().subject_der());
        let constraints = parsed.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = parsed.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert_eq!(usage.value.flags, 0b110_0000);
        assert!(parsed.extended_key_usage().unwrap().is_none());
        let (mut points, mut information, mut identifiers) = (0, 0, 0);
        for extension in parsed.iter_extensions() {
            match extension.parsed_extension() {
                ParsedExtension::CRLDistributionPoints(p) => points += p.len(),
                ParsedExtension::AuthorityInfoAccess(a) => information += a.accessdescs.len(),
                ParsedExtension::SubjectKeyIdentifier(_) | ParsedExtension::AuthorityKeyIdentifier(_) => {
                    identifiers += 1;
                }
                _ => {}
            }
        }
        assert_eq!((points, information, identifiers), (1, 1, 2), "the root's addresses, and both identifiers");
        let chain: Vec<&Certificate> = issuing.chain().collect();
        assert_eq!(chain, [issuing.certificate(), root.certificate()]);
        assert!(issuing.certificate().is_issued_by(root.certificate()));
    }
}

#[test]
fn a_client_that_sends_its_leaf_only_is_verified_where_the_issuing_authority_is_known_and_nowhere_else() {
    let root = root(KeyAlgorithm::EcdsaP256, NOW);
    let issuing = issuing(&root, KeyAlgorithm::Rsa2048, NOW);
    let machine = leaf(&issuing, Profile::Machine, "laptop7.example.com", NOW);
    let payload = |der| CertPayload { encoding: 4, data: der };
    let id = Some(IkeId { id_type: 2, data: b"laptop7.example.com" });
    let verify = |trust: &TrustStore, received: &[CertPayload<'_>]| {
        verify_peer(trust, received, id, PeerRole::Machine, NOW).map(|peer| (peer.serial, peer.anchor))
    };
    let good = Ok((machine.serial.clone(), root.certificate().fingerprint));
    let mut trust = TrustStore::new();
    trust.add_anchor_der(root.certificate().der()).unwrap();
    let alone = [payload(machine.der())];
    assert_eq!(verify(&trust, &alone).unwrap_err().label(), "unknown-issuer");
    assert_eq!(verify(&trust, &[payload(issuing.certificate().der()), payload(machine.der())]), good);
    for _ in 0..2 {
        trust.add_intermediate_der(issuing.certificate().der()).unwrap();
    }
    assert_eq!(verify(&trust, &alone), good);
    // Known is not trusted: without the root the same path ends nowhere.
    let mut stranger = TrustStore::new();
    stranger.add_anchor_der(self::root(KeyAlgorithm::EcdsaP256, NOW).certificate().der()).unwrap();
    stranger.add_intermediate_der(issuing.certificate().der()).unwrap();
    assert!(verify(&stranger, &alone).is_err());
    // With whatever an issuing authority's key signs, nobody is an authority below it.
    let config = IssuingConfig::new("Below", KeyAlgorithm::EcdsaP256);
    let below = Authority::create_issuing(&issuing, &config, seal_key(), NOW, &rng()).unwrap_err();
    assert_eq!(below, Error::Lint(Lint::PathLen));
}

#[test]
fn an_issuing_authority_lives_no_longer_than_its_root_and_opens_only_in_its_own_place() {
    let root = root(KeyAlgorithm::EcdsaP256, NOW);
    let config = IssuingConfig {
        validity: Duration::from_secs(20 * 365 * 86_400),
        ..IssuingConfig::new("Long", KeyAlgorithm::EcdsaP256)
    };
    let (first, sealed) = Authority::create_issuing(&root, &config, seal_key(), NOW, &rng()).unwrap();
    assert_eq!(first.certificate().not_after, root.certificate().not_after);
    let at_the_end = UnixTime(root.certificate().not_after.0);
    let late = Authority::create_issuing(&root, &config, seal_key(), at_the_end, &rng()).unwrap_err();
    assert_eq!(late, Error::AuthorityExpired);
    for validity in [Duration::ZERO, Duration::from_secs(31 * 366 * 86_400)] {
        let config = IssuingConfig { validity, ..config.clone() };
        let error = Authority::create_issuing(&root, &config, seal_key(), NOW, &rng()).unwrap_err();
        assert!(matches!(error, Error::Validity(_)), "{error}");
    }
    for name in ["", "a\nb", &"x".repeat(65)] {
        let config = IssuingConfig::new(name, KeyAlgorithm::EcdsaP256);
        assert!(Authority::create_issuing(&root, &config, seal_key(), NOW, &rng()).is_err(), "{name:?}");
    }

    let mut again = Authority::open(&sealed, seal_key(), first.certificate().der()).unwrap();
    assert_eq!(again.chain().count(), 1, "whoever opens it says what is above it");
    again.set_issuers(vec![root.certificate().clone()]).unwrap();
    assert_eq!(again.chain().last(), Some(root.certificate()));
    let stranger = self::root(KeyAlgorithm::EcdsaP256, NOW);
    assert!(again.set_issuers(vec![stranger.certificate().clone()]).is_err());
    let elsewhere = Authority::open(&sealed, seal_key(), root.certificate().der()).unwrap_err();
    assert_eq!(elsewhere, Error::Seal(SealError::Altered));
}

#[test]
fn a_name_that_is_the_roots_own_is_refused() {
    let root = root(KeyAlgorithm::EcdsaP256, NOW);
    let config = IssuingConfig::new("Example Root", KeyAlgorithm::EcdsaP256);
    let refused = Authority::create_issuing(&root, &config, seal_key(), NOW, &rng()).unwrap_err();
    assert_eq!(refused, Error::Lint(Lint::Subject));
}

#[test]
fn openssl_agrees_with_the_whole_chain_and_with_both_revocation_lists() {
    if !there("openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    for (above, below) in
        [(KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048), (KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256)]
    {
        let root = root(above, NOW);
        let issuing = issuing(&root, below, NOW);
        let good = leaf(&issuing, Profile::Machine, "laptop7.example.com", NOW);
        let stolen = leaf(&issuing, Profile::Machine, "laptop8.example.com", NOW);
        let endpoint = leaf(&issuing, Profile::Endpoint, "vpn.example.com", NOW);
        write("root.pem", &root.certificate().pem());
        write("issuing.pem", &issuing.certificate().pem());
        let lists = [revoked(&root, "", &[], NOW), revoked(&issuing, LEAF_CRL, &[&stolen.serial], NOW)];
        write("lists.pem", &lists.map(|der| pem::encode("X509 CRL", &der).to_string()).concat());
        let now = (NOW.0 + 60).to_string();
        let verify = |leaf: &Certificate, purpose: &str| {
            write("leaf.pem", &leaf.pem());
            let args = [
                "verify",
                "-x509_strict",
                "-check_ss_sig",
                "-crl_check_all",
                "-attime",
                &now,
                "-purpose",
                purpose,
                "-CAfile",
                "root.pem",
                "-untrusted",
                "issuing.pem",
                "-CRLfile",
                "lists.pem",
                "leaf.pem",
            ];
            says("openssl", &args, dir.path())
        };
        let (ok, text) = verify(&good, "sslclient");
        assert!(ok, "{text}");
        let (ok, text) = verify(&endpoint, "sslserver");
        assert!(ok, "{text}");
        assert!(!verify(&endpoint, "sslclient").0, "an endpoint is no client");
        let (ok, text) = verify(&stolen, "sslclient");
        assert!(!ok && text.contains("revoked"), "{text}");
        // The root can take back an issuing authority, and with it all that it issued.
        let serial = &issuing.certificate().serial;
        let lists = [revoked(&root, "", &[serial], NOW), revoked(&issuing, LEAF_CRL, &[], NOW)];
        write("lists.pem", &lists.map(|der| pem::encode("X509 CRL", &der).to_string()).concat());
        let (ok, text) = verify(&good, "sslclient");
        assert!(!ok && text.contains("revoked"), "{text}");
    }
}

#[test]
fn gnutls_agrees_with_the_whole_chain_and_with_both_revocation_lists() {
    if !there("certtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    // certtool goes by the clock of the machine.
    #[allow(clippy::disallowed_methods, reason = "what is compared with has no other clock")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = UnixTime(i64::try_from(since.as_secs()).unwrap() - DAY);
    let root = root(KeyAlgorithm::EcdsaP384, now);
    let issuing = issuing(&root, KeyAlgorithm::Rsa2048, now);
    let (good, stolen) = (
        leaf(&issuing, Profile::Machine, "laptop7.example.com", now),
        leaf(&issuing, Profile::Machine, "laptop8.example.com", now),
    );
    write("root.pem", &root.certificate().pem());
    let lists = [revoked(&root, "", &[], now), revoked(&issuing, LEAF_CRL, &[&stolen.serial], now)];
    write("lists.pem", &lists.map(|der| pem::encode("X509 CRL", &der).to_string()).concat());
    let verify = |leaf: &Certificate| {
        write("chain.pem", &(leaf.pem() + &issuing.certificate().pem()));
        let args =
            ["--verify", "--load-ca-certificate", "root.pem", "--load-crl", "lists.pem", "--infile", "chain.pem"];
        says("certtool", &args, dir.path())
    };
    let (ok, text) = verify(&good);
    assert!(ok && text.contains("The certificate is trusted"), "{text}");
    let (ok, text) = verify(&stolen);
    assert!(!ok && text.contains("revoked"), "{text}");
}
