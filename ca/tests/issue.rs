//! What the authority issues, held against its profiles by this test, by a parser and by OpenSSL, and what it refuses.

use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use sallyport_ca::seal::{SealError, SealKey};
use sallyport_ca::verify::{CertPayload, IkeId, PeerRole, TrustStore, verify_peer};
use sallyport_ca::*;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: i64 = 86_400;

fn rng() -> SystemRandom {
    SystemRandom::new()
}

/// RSA keys take long to make, so each kind is made once.
fn key(algorithm: KeyAlgorithm) -> &'static KeyPair {
    static KEYS: [OnceLock<KeyPair>; 5] = [const { OnceLock::new() }; 5];
    let at = KeyAlgorithm::ALL.iter().position(|a| *a == algorithm).unwrap();
    KEYS[at].get_or_init(|| KeyPair::generate(algorithm, &rng()).unwrap())
}

fn authority(algorithm: KeyAlgorithm) -> Authority {
    let config = RootConfig { key: algorithm, ..RootConfig::new("Example Org", "Example VPN Root") };
    let seal_key = SealKey::generate(&rng()).unwrap();
    Authority::create(&config, &seal_key, NOW, &rng()).unwrap().0
}

fn serial() -> Serial {
    Serial::generate(&rng()).unwrap()
}

fn subject(profile: Profile) -> Subject {
    let ip = AltName::Ip("192.0.2.1".parse().unwrap());
    match profile {
        Profile::Gateway => Subject::new("vpn.example.com", vec![AltName::Dns("vpn.example.com".into()), ip]),
        Profile::GatewayLink => Subject::new("gw1", vec![]),
        Profile::Controller => Subject::new("controller1", vec![AltName::Dns("c1.example.com".into()), ip]),
        Profile::Operator => Subject::new("Ann Example", vec![AltName::Email("ann@example.com".into())]),
        _ => Subject::new("laptop7.example.com", vec![]),
    }
    .unwrap()
}

const ISSUED: [Profile; 7] = [
    Profile::Gateway,
    Profile::GatewayLink,
    Profile::Controller,
    Profile::Operator,
    Profile::Machine,
    Profile::Endpoint,
    Profile::User,
];

/// The extended key usages that the profiles promise, as dotted identifiers.
fn promised(profile: Profile) -> Vec<&'static str> {
    const SERVER: &str = "1.3.6.1.5.5.7.3.1";
    const CLIENT: &str = "1.3.6.1.5.5.7.3.2";
    const IKE: [&str; 2] = ["1.3.6.1.5.5.8.2.2", "1.3.6.1.5.5.7.3.17"];
    match profile {
        Profile::Gateway => vec![SERVER, IKE[0], IKE[1]],
        Profile::Controller => vec![SERVER, CLIENT],
        Profile::Endpoint => vec![SERVER, "1.3.6.1.5.5.7.3.28"],
        Profile::Machine => vec![CLIENT, IKE[0], IKE[1]],
        _ => vec![CLIENT],
    }
}

fn openssl_verify(root: &Certificate, leaf: &Certificate, purpose: &str) {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    if !PRESENT.get_or_init(|| Command::new("openssl").arg("version").output().is_ok()) {
        // Past the capture of a passing test's output, so that ./test can report it.
        let _ = std::io::stderr().write_all(b"\nskipped: no openssl command to verify certificates with\n");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (ca, cert) = (dir.path().join("ca.pem"), dir.path().join("cert.pem"));
    std::fs::write(&ca, root.pem()).unwrap();
    std::fs::write(&cert, leaf.pem()).unwrap();
    let now = NOW.0.to_string();
    let args = ["verify", "-x509_strict", "-check_ss_sig", "-attime", &now, "-purpose", purpose, "-CAfile"];
    let out = Command::new("openssl").args(args).args([&ca, &cert]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}: {text}", leaf.subject);
}

#[test]
fn every_profile_and_key_is_issued_as_promised_by_every_kind_of_root() {
    for root_key in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
        let authority = authority(root_key);
        let root = authority.certificate();
        assert_eq!(root.subject, "O=Example Org, CN=Example VPN Root");
        for profile in ISSUED {
            for algorithm in KeyAlgorithm::ALL {
                let subject = subject(profile);
                let public = key(algorithm).public_key();
                let serial = serial();
                let cert = authority.issue(profile, &subject, &public, NOW, serial.clone(), &rng()).unwrap();
                check(&cert, &subject, profile, algorithm, root);
                assert_eq!(cert.serial, serial);
                assert_eq!(cert.spki_der(), public.spki_der());
                let server = matches!(profile, Profile::Gateway | Profile::Controller | Profile::Endpoint);
                openssl_verify(root, &cert, if server { "sslserver" } else { "sslclient" });
            }
        }
    }
}

fn check(cert: &Certificate, subject: &Subject, profile: Profile, algorithm: KeyAlgorithm, root: &Certificate) {
    let (_, parsed) = X509Certificate::from_der(cert.der()).unwrap();
    let organization = parsed.subject().iter_organization().next().unwrap().as_str().unwrap();
    let common_name = parsed.subject().iter_common_name().next().unwrap().as_str().unwrap();
    assert_eq!((organization, common_name), ("Example Org", subject.common_name()));
    assert_eq!(parsed.issuer().as_raw(), root.subject_der());
    assert_eq!(cert.not_before, UnixTime(NOW.0 - 300));
    assert_eq!(cert.not_after.0 - NOW.0, profile.default_validity().as_secs() as i64);
    let constraints = parsed.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature());
    assert_eq!(usage.value.key_encipherment(), algorithm.is_rsa());
    assert_eq!(usage.value.flags & !0b101, 0);
    let usages = parsed.extended_key_usage().unwrap().unwrap().value;
    let mut found = vec![];
    found.extend(usages.server_auth.then(|| "1.3.6.1.5.5.7.3.1".to_owned()));
    found.extend(usages.client_auth.then(|| "1.3.6.1.5.5.7.3.2".to_owned()));
    found.extend(usages.other.iter().map(|o| o.to_string()));
    assert_eq!(found, promised(profile));
    let identifiers = parsed.iter_extensions().filter(|e| {
        matches!(
            e.parsed_extension(),
            ParsedExtension::AuthorityKeyIdentifier(_) | ParsedExtension::SubjectKeyIdentifier(_)
        )
    });
    assert_eq!(identifiers.count(), 2);
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), subject.alt_names().len());
}

#[test]
fn an_address_stands_as_text_too_only_where_it_was_asked_for() {
    let authority = authority(KeyAlgorithm::EcdsaP256);
    let public = key(KeyAlgorithm::EcdsaP256).public_key();
    let names = |subject: &Subject| {
        let cert = authority.issue(Profile::Gateway, subject, &public, NOW, serial(), &rng()).unwrap();
        let (_, parsed) = X509Certificate::from_der(cert.der()).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        names.value.general_names.iter().filter(|n| **n == GeneralName::DNSName("192.0.2.1")).count()
    };
    let plain = subject(Profile::Gateway);
    assert_eq!(names(&plain), 0);
    assert_eq!(names(&plain.with_addresses_as_dns()), 1);
}

#[test]
fn what_is_issued_passes_our_own_validation() {
    let authority = authority(KeyAlgorithm::EcdsaP384);
    let mut trust = TrustStore::new();
    assert_eq!(trust.add_anchors_pem(authority.certificate().pem().as_bytes()).unwrap(), 1);
    let public = key(KeyAlgorithm::Rsa2048).public_key();
    let cert = authority.issue(Profile::Machine, &subject(Profile::Machine), &public, NOW, serial(), &rng()).unwrap();
    let payload = [CertPayload { encoding: 4, data: cert.der() }];
    let dn = cert.subject_der();
    let peer = verify_peer(&trust, &payload, Some(IkeId { id_type: 9, data: &dn }), PeerRole::Machine, NOW).unwrap();
    assert_eq!((peer.serial, peer.spki_der.as_slice()), (cert.serial.clone(), public.spki_der()));
    // A machine cannot pose as a gateway by serverAuth; it may by ipsecIKE, so a client checks the name it dialled.
    let name = Some(IkeId { id_type: 2, data: b"vpn.example.com" });
    let refused = verify_peer(&trust, &payload, name, PeerRole::Gateway, NOW).unwrap_err();
    assert_eq!(refused.label(), "name-mismatch");
    let last = UnixTime(cert.not_after.0);
    assert!(verify_peer(&trust, &payload, None, PeerRole::Machine, last).is_ok());
    let late = verify_peer(&trust, &payload, None, PeerRole::Machine, UnixTime(last.0 + 1)).unwrap_err();
    assert_eq!(late.label(), "expired");
}

#[test]
fn equal_input_gives_equal_bytes_to_sign() {
    let authority = authority(KeyAlgorithm::EcdsaP256);
    let public = key(KeyAlgorithm::EcdsaP256).public_key();
    let serial = serial();
    let day = Duration::from_secs(86_400);
    let prepare =
        || authority.prepare(Profile::Machine, &subject(Profile::Machine), &public, NOW, day, serial.clone()).unwrap();
    assert_eq!(prepare(), prepare());
    let cert = authority.sign(&prepare(), &rng()).unwrap();
    assert!(cert.der().windows(prepare().tbs().len()).any(|w| w == prepare().tbs()));
}

#[test]
fn what_is_signed_later_is_what_was_recorded_and_by_the_authoritys_key() {
    let authority = authority(KeyAlgorithm::EcdsaP256);
    let (profile, subject, serial) = (Profile::Gateway, subject(Profile::Gateway), serial());
    let (own, other) = (key(KeyAlgorithm::EcdsaP256).public_key(), key(KeyAlgorithm::EcdsaP384).public_key());
    let day = Duration::from_secs(86_400);
    let prepared = authority.prepare(profile, &subject, &own, NOW, day, serial.clone()).unwrap();
    let hash = |key: &PublicKey| sallyport_ca::Fingerprint::of(key.spki_der()).0;
    let (right, wrong) = (hash(&own), hash(&other));
    let recorded = Recorded {
        profile,
        serial: &serial,
        subject: &subject,
        period: prepared.period(),
        key: KeyAlgorithm::EcdsaP256,
        key_sha256: Some(&right),
    };
    let signature = authority.sign_recorded(prepared.tbs(), &recorded, &rng()).unwrap();
    let made = authority.check_recorded(prepared.tbs(), &signature, &recorded).unwrap();
    assert!(made.is_issued_by(authority.certificate()) && made.serial == serial);

    let (another, stolen) = (self::serial(), Subject::new("boss.example.com", vec![]).unwrap());
    let later = (prepared.period().0, UnixTime(prepared.period().1.0 + 1));
    let cases = [
        (Recorded { profile: Profile::Endpoint, ..recorded }, Lint::ExtendedKeyUsage),
        (Recorded { profile: Profile::Machine, ..recorded }, Lint::ExtendedKeyUsage),
        (Recorded { serial: &another, ..recorded }, Lint::Record("serial number")),
        (Recorded { subject: &stolen, ..recorded }, Lint::Subject),
        (Recorded { period: later, ..recorded }, Lint::Record("validity period")),
        (Recorded { key: KeyAlgorithm::EcdsaP384, ..recorded }, Lint::Record("kind of key")),
        (Recorded { key_sha256: Some(&wrong), ..recorded }, Lint::Record("public key")),
    ];
    for (recorded, lint) in cases {
        assert_eq!(authority.sign_recorded(prepared.tbs(), &recorded, &rng()), Err(Error::Lint(lint)));
        assert_eq!(authority.check_recorded(prepared.tbs(), &signature, &recorded), Err(Error::Lint(lint)));
    }
    // One name more than was recorded, below the same common name.
    let mut names = subject.alt_names().to_vec();
    names.push(AltName::Dns("boss.example.com".into()));
    let more = Subject::new(subject.common_name(), names).unwrap();
    let wider = authority.prepare(profile, &more, &own, NOW, day, serial.clone()).unwrap();
    assert_eq!(authority.sign_recorded(wider.tbs(), &recorded, &rng()), Err(Error::Lint(Lint::AltNames)));
    // Another authority's name above it, and no certificate at all.
    let foreign = Authority::from_parts(
        KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng()).unwrap(),
        authority.certificate().der(),
    );
    assert!(foreign.is_err(), "a key is not put under another's certificate");
    assert_eq!(authority.sign_recorded(b"junk", &recorded, &rng()), Err(Error::Lint(Lint::Structure)));
    // A signature of another key, and one bit.
    let mut flipped = signature.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for signature in [key(KeyAlgorithm::EcdsaP256).sign(prepared.tbs(), &rng()).unwrap(), flipped, Vec::new()] {
        let refused = authority.check_recorded(prepared.tbs(), &signature, &recorded);
        assert_eq!(refused, Err(Error::Authority("its key has not made this signature")));
    }
}

/// What tells the endpoint from a gateway of the same name: nobody else has it, and it has no usage of theirs.
#[test]
fn only_the_endpoint_has_the_usage_of_the_endpoint() {
    let authority = authority(KeyAlgorithm::EcdsaP256);
    let public = key(KeyAlgorithm::EcdsaP256).public_key();
    for profile in ISSUED {
        let made = authority.issue(profile, &subject(profile), &public, NOW, serial(), &rng()).unwrap();
        let cmc_ra = [0x2b, 6, 1, 5, 5, 7, 3, 28];
        let has = made.der().windows(cmc_ra.len()).any(|w| w == cmc_ra);
        assert_eq!(has, profile == Profile::Endpoint, "{profile}");
    }
}

#[test]
fn no_certificate_outlives_or_predates_its_authority() {
    let seal_key = SealKey::generate(&rng()).unwrap();
    let config = RootConfig { validity: Duration::from_secs(100 * 86_400), ..RootConfig::new("O", "Root") };
    let (authority, _) = Authority::create(&config, &seal_key, NOW, &rng()).unwrap();
    let public = key(KeyAlgorithm::EcdsaP256).public_key();
    let day = Duration::from_secs(86_400);
    let prepare = |at: i64, life: u32| {
        authority.prepare(Profile::Machine, &subject(Profile::Machine), &public, UnixTime(at), day * life, serial())
    };
    assert!(!prepare(NOW.0, 99).unwrap().cut_short());
    let cut = prepare(NOW.0 + 90 * DAY, 99).unwrap();
    assert!(cut.cut_short());
    let cert = authority.sign(&cut, &rng()).unwrap();
    assert_eq!(cert.not_after, authority.certificate().not_after);
    let early = authority.sign(&prepare(NOW.0 - 200, 1).unwrap(), &rng()).unwrap();
    assert_eq!(early.not_before, authority.certificate().not_before);
    assert_eq!(prepare(NOW.0 + 101 * DAY, 1), Err(Error::AuthorityExpired));
    assert_eq!(prepare(NOW.0 - DAY, 1), Err(Error::AuthorityExpired));
    assert!(matches!(prepare(NOW.0, 399), Err(Error::Validity(_))));
    assert!(matches!(prepare(NOW.0, 0), Err(Error::Validity(_))));
}

#[test]
fn profiles_refuse_names_that_they_do_not_carry() {
    let authority = authority(KeyAlgorithm::EcdsaP256);
    let public = key(KeyAlgorithm::EcdsaP256).public_key();
    let issue = |profile, subject: &Subject| authority.issue(profile, subject, &public, NOW, serial(), &rng());
    let nameless = Subject::new("Some Machine", vec![]).unwrap();
    let mailbox = Subject::new("ann@example.com", vec![]).unwrap();
    for profile in [Profile::Gateway, Profile::Controller, Profile::Machine, Profile::Endpoint] {
        assert_eq!(issue(profile, &nameless), Err(Error::Lint(Lint::AltNames)));
        assert_eq!(issue(profile, &mailbox), Err(Error::Lint(Lint::AltNames)));
    }
    assert!(issue(Profile::Operator, &nameless).is_ok());
    assert!(issue(Profile::User, &mailbox).is_ok());
    let short = Serial::from_be_bytes(&[1, 2, 3]);
    let refused = authority.issue(Profile::Machine, &subject(Profile::Machine), &public, NOW, short, &rng());
    assert_eq!(refused, Err(Error::Lint(Lint::Serial)));
}

#[test]
fn nothing_but_the_key_is_taken_from_a_request() {
    let requester = rcgen::KeyPair::from_pem(&key(KeyAlgorithm::Rsa2048).pkcs8_pem()).unwrap();
    let mut asked = rcgen::CertificateParams::new(vec!["admin.example.com".to_owned()]).unwrap();
    asked.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    asked.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    asked.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    asked.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::Any];
    let csr = asked.serialize_request(&requester).unwrap();
    let public = PublicKey::from_csr_pem(csr.pem().unwrap().as_bytes()).unwrap();
    assert_eq!(public, key(KeyAlgorithm::Rsa2048).public_key());
    let authority = authority(KeyAlgorithm::EcdsaP256);
    let subject = subject(Profile::Machine);
    let cert = authority.issue(Profile::Machine, &subject, &public, NOW, serial(), &rng()).unwrap();
    check(&cert, &subject, Profile::Machine, KeyAlgorithm::Rsa2048, authority.certificate());

    let mut altered = csr.der().to_vec();
    let at = altered.windows(5).position(|w| w == b"admin").unwrap();
    altered[at] = b'b';
    assert_eq!(
        PublicKey::from_csr_der(&altered),
        Err(Error::Request("its signature does not verify with its own key"))
    );
    assert!(PublicKey::from_csr_der(&[0x30; 20_000]).is_err());
    assert!(PublicKey::from_csr_der(b"").is_err());
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let csr = asked.serialize_request(&ed25519).unwrap();
    assert!(matches!(PublicKey::from_csr_der(csr.der()), Err(Error::PublicKey(_))));
}

#[test]
fn a_sealed_authority_opens_with_its_seal_key_and_certificate_only() {
    let (seal_key, other_key) = (SealKey::generate(&rng()).unwrap(), SealKey::generate(&rng()).unwrap());
    let config = RootConfig::new("Example Org", "Root");
    let (first, sealed) = Authority::create(&config, &seal_key, NOW, &rng()).unwrap();
    let (second, _) = Authority::create(&config, &seal_key, NOW, &rng()).unwrap();
    let der = first.certificate().der();
    let again = Authority::open(&sealed, &seal_key, der).unwrap();
    let public = key(KeyAlgorithm::EcdsaP256).public_key();
    let cert = again.issue(Profile::Machine, &subject(Profile::Machine), &public, NOW, serial(), &rng()).unwrap();
    openssl_verify(first.certificate(), &cert, "sslclient");
    let error = |r: Result<Authority, Error>| r.unwrap_err();
    assert_eq!(error(Authority::open(&sealed, &other_key, der)), Error::Seal(SealError::WrongKey));
    assert_eq!(error(Authority::open(&sealed, &seal_key, second.certificate().der())), Error::Seal(SealError::Altered));
    // The same key under a new seal key.
    let resealed = again.seal(&other_key, &rng()).unwrap();
    assert!(Authority::open(&resealed, &other_key, der).is_ok());
    assert!(Authority::from_parts(KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng()).unwrap(), der).is_err());
    let leaf_key = KeyPair::from_pkcs8_der(key(KeyAlgorithm::EcdsaP256).pkcs8_der()).unwrap();
    assert!(Authority::from_parts(leaf_key, cert.der()).is_err(), "a machine is no authority");
}

#[test]
fn addresses_of_revocation_services_are_put_in_when_set() {
    let mut authority = authority(KeyAlgorithm::EcdsaP256);
    let urls = RevocationUrls {
        crl: Some("http://pki.example.com/ca/1/{shard}.crl".into()),
        whole_crl: Some("http://pki.example.com/ca/1.crl".into()),
        ca_issuers: Some("http://pki.example.com/root.cer".into()),
        ocsp: Some("http://pki.example.com/ocsp".into()),
    };
    authority.set_urls(urls).unwrap();
    let public = key(KeyAlgorithm::EcdsaP256).public_key();
    let cert = authority.issue(Profile::Machine, &subject(Profile::Machine), &public, NOW, serial(), &rng()).unwrap();
    let (_, parsed) = X509Certificate::from_der(cert.der()).unwrap();
    let found = parsed.iter_extensions().filter(|e| match e.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(aia) => aia.accessdescs.len() == 2,
        ParsedExtension::CRLDistributionPoints(points) => points.len() == 1,
        _ => false,
    });
    assert_eq!(found.count(), 2);
    openssl_verify(authority.certificate(), &cert, "sslclient");

    let text_in = |cert: &Certificate, text: &str| cert.der().windows(text.len()).any(|part| part == text.as_bytes());
    let shard = sallyport_ca::crl::shard_of(&cert.serial);
    assert!(text_in(&cert, &format!("http://pki.example.com/ca/1/{shard}.crl")));
    // What clients of other makers check names the list of everything.
    let of_gateway =
        authority.issue(Profile::Gateway, &subject(Profile::Gateway), &public, NOW, serial(), &rng()).unwrap();
    assert!(text_in(&of_gateway, "http://pki.example.com/ca/1.crl"));
    let silent = authority.with_urls(RevocationUrls::default()).unwrap();
    let plain = silent.issue(Profile::Machine, &subject(Profile::Machine), &public, NOW, serial(), &rng()).unwrap();
    assert!(!text_in(&plain, "http://"));
    openssl_verify(authority.certificate(), &plain, "sslclient");
    let https = RevocationUrls { crl: Some("https://x".into()), ..Default::default() };
    assert!(authority.set_urls(https).is_err());
}

#[test]
fn private_keys_read_back_and_never_show() {
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
        let key = key(algorithm);
        let again = KeyPair::from_pem(key.pkcs8_pem().as_bytes()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(format!("{key:?}"), format!("KeyPair({algorithm}, ..)"));
        assert_eq!(algorithm.name().parse::<KeyAlgorithm>().unwrap(), algorithm);
    }
    assert!(KeyPair::from_pkcs8_der(b"junk").is_err());
    assert!("rsa-1024".parse::<KeyAlgorithm>().is_err());
}
