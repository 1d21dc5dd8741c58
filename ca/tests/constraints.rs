//! Name constraints of an issuing authority: ours refuses to sign what is outside, and what another software signed in its name is
//! refused by our own validation, OpenSSL, GnuTLS, NSS, Java and Python's cryptography; pkilint reads the constraints themselves.

use sallyport_ca::seal::SealKey;
use sallyport_ca::verify::{CertPayload, PeerRole, TrustStore, verify_peer};
use sallyport_ca::*;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use self::tools::{Bench, has, has_java, has_nss, key, python, rng, source, wall_clock};

mod tools;

/// A root, an issuing authority with constraints below it, and what has its name and key and no constraints: with that, a thief of
/// the key signs whatever he likes.
struct Site {
    root: Authority,
    issuing: Authority,
    loose: Authority,
    now: UnixTime,
}

fn constraints() -> NameConstraints {
    let domain = |text| Subtree::dns(text).unwrap();
    let network = |text| Subtree::ip(text).unwrap();
    let permitted =
        vec![domain("example.com"), domain("corp.example"), network("10.0.0.0/8"), network("2001:db8::/32")];
    NameConstraints::new(permitted, vec![domain("secret.example.com"), network("10.9.0.0/16")]).unwrap()
}

fn site(above: KeyAlgorithm, below: KeyAlgorithm) -> Site {
    // A day before now: certtool goes by the clock of the machine.
    let (now, seal_key) = (UnixTime(wall_clock().0 - 86_400), SealKey::generate(&rng()).unwrap());
    let config = RootConfig { key: above, ..RootConfig::new("Example Org", "Example Root") };
    let root = Authority::create(&config, &seal_key, now, &rng()).unwrap().0;
    let loose = IssuingConfig::new("Example Issuing 1", below);
    let config = IssuingConfig { constraints: constraints(), ..loose.clone() };
    let key = KeyPair::generate(below, &rng()).unwrap();
    let open = |config: &IssuingConfig| {
        let certificate = root.certify_issuing(config, &key.public_key(), now, &rng()).unwrap();
        Authority::from_parts(KeyPair::from_pkcs8_der(key.pkcs8_der()).unwrap(), certificate.der()).unwrap()
    };
    let (issuing, loose) = (open(&config), open(&loose));
    Site { root, issuing, loose, now }
}

/// What is asked for: profile, common name, alternative names; and whether it is inside.
type Case = (&'static str, Profile, &'static str, &'static [&'static str], bool);

const CASES: &[Case] = &[
    ("machine", Profile::Machine, "laptop7.example.com", &["laptop7.example.com"], true),
    ("gateway", Profile::Gateway, "vpn.example.com", &["vpn.example.com", "10.1.2.3"], true),
    ("six", Profile::Gateway, "vpn.corp.example", &["vpn.corp.example", "2001:db8::7"], true),
    ("apex", Profile::Machine, "example.com", &["example.com"], true),
    ("other", Profile::Machine, "laptop7.other.net", &["laptop7.other.net"], false),
    ("tail", Profile::Gateway, "vpn.badexample.com", &["vpn.badexample.com"], false),
    ("hidden", Profile::Machine, "laptop7.example.com", &["laptop7.example.com", "a.secret.example.com"], false),
    ("far", Profile::Gateway, "vpn.example.com", &["vpn.example.com", "192.0.2.1"], false),
    ("cut", Profile::Gateway, "vpn.example.com", &["vpn.example.com", "10.9.1.1"], false),
    ("far-six", Profile::Machine, "laptop7.example.com", &["laptop7.example.com", "2001:db9::1"], false),
];

fn subject(common_name: &str, names: &[&str]) -> Subject {
    let alt = |n: &&str| n.parse().map_or_else(|_| AltName::Dns((*n).to_owned()), AltName::Ip);
    Subject::new(common_name, names.iter().map(alt).collect()).unwrap()
}

fn issue(authority: &Authority, profile: Profile, subject: &Subject, now: UnixTime) -> Result<Certificate, Error> {
    let key = key(KeyAlgorithm::EcdsaP256).public_key();
    authority.issue(profile, subject, &key, now, Serial::generate(&rng()).unwrap(), &rng())
}

/// Each case as the thief signs it.
fn signed(site: &Site) -> Vec<(&'static str, Profile, Certificate, bool)> {
    let sign = |(name, profile, common_name, names, inside): &Case| {
        (*name, *profile, issue(&site.loose, *profile, &subject(common_name, names), site.now).unwrap(), *inside)
    };
    CASES.iter().map(sign).collect()
}

#[test]
fn the_constraints_are_critical_and_read_back_and_an_authority_without_has_no_such_extension() {
    let site = site(KeyAlgorithm::EcdsaP384, KeyAlgorithm::EcdsaP256);
    let critical = |authority: &Authority| {
        let (_, parsed) = X509Certificate::from_der(authority.certificate().der()).unwrap();
        let mut all = parsed.iter_extensions();
        all.find(|e| matches!(e.parsed_extension(), ParsedExtension::NameConstraints(_))).map(|e| e.critical)
    };
    assert_eq!((critical(&site.issuing), critical(&site.loose), critical(&site.root)), (Some(true), None, None));
    assert_eq!(NameConstraints::of_certificate(site.issuing.certificate().der()).unwrap(), constraints());
    assert_eq!(*site.issuing.name_constraints(), constraints());
    assert!(NameConstraints::of_certificate(site.loose.certificate().der()).unwrap().is_empty());
}

#[test]
fn nothing_outside_is_signed_and_the_refusal_names_the_constraint() {
    let site = site(KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP256);
    for (name, profile, common_name, names, inside) in CASES {
        let said = issue(&site.issuing, *profile, &subject(common_name, names), site.now);
        assert_eq!(said.is_ok(), *inside, "{name}: {said:?}");
        let Err(error) = said else { continue };
        assert!(matches!(error, Error::Outside(_)), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains("refused before signing") && text.contains("name constraints"), "{text}");
    }
    // Whose only name is a common name: it counts as a host name.
    let operator = issue(&site.issuing, Profile::Operator, &subject("Ann Example", &[]), site.now);
    assert!(operator.unwrap_err().to_string().contains("common name"));
    // The lint knows without whoever built it: what was intended under another certificate of the same key.
    let subject = subject("laptop7.other.net", &["laptop7.other.net"]);
    let key = key(KeyAlgorithm::EcdsaP256).public_key();
    let (serial, life) = (Serial::generate(&rng()).unwrap(), Profile::Machine.default_validity());
    let prepared = site.loose.prepare(Profile::Machine, &subject, &key, site.now, life, serial.clone()).unwrap();
    let recorded = Recorded {
        profile: Profile::Machine,
        serial: &serial,
        subject: &subject,
        period: prepared.period(),
        key: KeyAlgorithm::EcdsaP256,
        key_sha256: None,
    };
    assert!(site.loose.sign_recorded(prepared.tbs(), &recorded, &rng()).is_ok());
    let refused = site.issuing.sign_recorded(prepared.tbs(), &recorded, &rng()).unwrap_err();
    assert_eq!(refused, Error::Lint(Lint::NameConstraints));
}

#[test]
fn gateways_refuse_what_is_outside() {
    for (above, below) in
        [(KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048), (KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256)]
    {
        let site = site(above, below);
        let mut trust = TrustStore::new();
        trust.add_anchor_der(site.root.certificate().der()).unwrap();
        trust.add_intermediate_der(site.issuing.certificate().der()).unwrap();
        for (name, profile, leaf, inside) in signed(&site) {
            let role = if profile == Profile::Gateway { PeerRole::Gateway } else { PeerRole::Machine };
            // As gateways know it, and as clients send it.
            for sent in [vec![leaf.der()], vec![leaf.der(), site.issuing.certificate().der()]] {
                let sent: Vec<_> = sent.into_iter().map(|data| CertPayload { encoding: 4, data }).collect();
                let said = verify_peer(&trust, &sent, None, role, site.now);
                assert_eq!(said.is_ok(), inside, "{name}: {said:?}");
                assert!(inside || said.unwrap_err().label() == "name-not-permitted", "{name}");
            }
        }
    }
}

#[test]
fn openssl_and_gnutls_agree_with_each_name() {
    let (openssl, certtool) = (has("openssl"), has("certtool"));
    for (above, below) in
        [(KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048), (KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256)]
    {
        let (site, bench) = (site(above, below), Bench::new());
        bench.write("root.pem", site.root.certificate().pem());
        bench.write("issuing.pem", site.issuing.certificate().pem());
        for (name, profile, leaf, inside) in signed(&site) {
            bench.write("leaf.pem", leaf.pem());
            bench.write("chain.pem", leaf.pem() + &site.issuing.certificate().pem());
            if openssl {
                let purpose = if profile == Profile::Gateway { "sslserver" } else { "sslclient" };
                let (ok, text) = bench.try_run(&format!(
                    "openssl verify -x509_strict -check_ss_sig -purpose {purpose} -CAfile root.pem -untrusted issuing.pem leaf.pem"
                ));
                assert!(ok == inside && (ok || text.contains("subtree violation")), "{name}: {text}");
            }
            if certtool {
                let (ok, text) = bench.try_run("certtool --verify --load-ca-certificate root.pem --infile chain.pem");
                assert_eq!(ok, inside, "{name}: {text}");
            }
        }
        // A responder below it, and a list, are none the worse.
        let key = key(KeyAlgorithm::EcdsaP256).public_key();
        let (serial, life) = (Serial::generate(&rng()).unwrap(), std::time::Duration::from_secs(86_400 * 3));
        let name = "OCSP signer 2 of controller 1";
        let signer = site.issuing.issue_ocsp_signer(name, &key, site.now, life, serial, &rng()).unwrap();
        bench.write("leaf.pem", signer.pem());
        if openssl {
            bench.run(
                "openssl verify -x509_strict -purpose ocsphelper -CAfile root.pem -untrusted issuing.pem leaf.pem",
            );
        }
        // The address is inside, and so is nothing else: yet the common name counts, which is why it is not signed here.
        let named = subject("gw.other.net", &["10.1.2.3"]);
        assert!(issue(&site.issuing, Profile::Gateway, &named, site.now).is_err());
        bench.write("leaf.pem", issue(&site.loose, Profile::Gateway, &named, site.now).unwrap().pem());
        if openssl {
            let (ok, text) = bench.try_run("openssl verify -CAfile root.pem -untrusted issuing.pem leaf.pem");
            assert!(!ok && text.contains("permitted subtree violation"), "{text}");
        }
    }
}

#[test]
fn nss_agrees_with_each_name() {
    if !has_nss() {
        return;
    }
    let (site, bench) = (site(KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048), Bench::new());
    bench.run("certutil -N -d sql:. --empty-password");
    for (name, trust, certificate) in
        [("root", "CT,C,C", site.root.certificate()), ("ca", ",,", site.issuing.certificate())]
    {
        bench.write("added.der", certificate.der());
        bench.run(&format!("certutil -A -d sql:. -n {name} -t {trust} -i added.der"));
    }
    for (name, _, leaf, inside) in signed(&site) {
        bench.write("added.der", leaf.der());
        bench.run(&format!("certutil -A -d sql:. -n {name} -t ,, -i added.der"));
        let (ok, text) = bench.try_run(&format!("certutil -V -d sql:. -n {name} -u I -e"));
        assert_eq!(ok, inside, "{name}: {text}");
        let (ok, text) = bench.try_run("vfychain -d sql:. -u 12 added.der");
        assert_eq!(ok, inside, "{name}: {text}");
    }
}

#[test]
fn java_agrees_with_each_name() {
    if !has_java() {
        return;
    }
    let (site, bench) = (site(KeyAlgorithm::EcdsaP384, KeyAlgorithm::EcdsaP256), Bench::new());
    let list = |authority: &Authority| authority.revocation_list("", 1, &[], site.now, &rng()).unwrap();
    bench.write("root.der", site.root.certificate().der());
    bench.write("issuing.der", site.issuing.certificate().der());
    bench.write("root.crl", list(&site.root));
    bench.write("issuing.crl", list(&site.issuing));
    let (signed, mut lines) = (signed(&site), String::new());
    let millis = (site.now.0 + 60) * 1_000;
    for (name, _, leaf, _) in &signed {
        bench.write(&format!("{name}.der"), leaf.der());
        lines += &format!("{name}|{millis}|root.der|root.crl,issuing.crl|{name}.der,issuing.der\n");
    }
    bench.write("cases", lines);
    let program = source("Validate.java");
    let text = bench.run(&format!("java -XX:TieredStopAtLevel=1 {} cases", program.display()));
    assert_eq!(text.lines().count(), signed.len(), "{text}");
    for ((name, _, _, inside), said) in signed.iter().zip(text.lines()) {
        let expected = if *inside { format!("{name} good") } else { format!("{name} INVALID_NAME") };
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn pythons_cryptography_agrees_with_each_name_and_pkilint_finds_nothing() {
    let Some(python) = python() else { return };
    for (above, below) in
        [(KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048), (KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256)]
    {
        let (site, bench) = (site(above, below), Bench::new());
        bench.write("root.der", site.root.certificate().der());
        bench.write("issuing.der", site.issuing.certificate().der());
        bench.write("empty.crl", site.issuing.revocation_list("", 1, &[], site.now, &rng()).unwrap());
        let (signed, mut lines, mut good) = (signed(&site), String::new(), String::new());
        let millis = (site.now.0 + 60) * 1_000;
        for (name, profile, leaf, inside) in &signed {
            bench.write(&format!("{name}.der"), leaf.der());
            let prefix = if *profile == Profile::Gateway { "vpn-" } else { "" }; // what begins so is dialled
            let line = format!("{prefix}{name}|{millis}|root.der|empty.crl|{name}.der,issuing.der\n");
            lines += &line;
            good += if *inside { &line } else { "" };
        }
        bench.write("cases", lines);
        bench.write("good", good);
        let text = bench.run(&format!("{} {} cases", python.display(), source("validate.py").display()));
        assert_eq!(text.lines().count(), signed.len(), "{text}");
        for ((name, _, _, inside), said) in signed.iter().zip(text.lines()) {
            assert_eq!(said.ends_with(&format!("{name} good")), *inside, "{said}");
            assert!(*inside || said.contains("name constraint") || said.contains("subtree"), "{said}");
        }
        let text = bench.run(&format!("{} {} good", python.display(), source("lint.py").display()));
        assert!(text.contains("lint_pkix_cert: 6 files"), "{text}");
    }
}
