//! Delta lists, held against OpenSSL, which applies them; and against readers that know none, which must not mind.

use sallyport_ca::crl::{Contents, Delta, Reason, RevocationList, Revoked};
use sallyport_ca::seal::SealKey;
use sallyport_ca::*;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use self::tools::{Bench, has, has_java, key, python, rng, source, wall_clock};

mod tools;

const DAY: i64 = 86_400;
const CRL: &str = "http://vpn.example.com/ca/1/0.crl";
const FRESHEST: &str = "http://vpn.example.com/ca/1/0-delta.crl";

struct Site {
    root: Authority,
    issuing: Authority,
    now: UnixTime,
}

/// With the address of a list in what it issues, or with none.
fn site(kind: KeyAlgorithm, sharded: bool) -> Site {
    let (now, seal_key) = (UnixTime(wall_clock().0 - DAY), SealKey::generate(&rng()).unwrap());
    let root = Authority::create(&RootConfig::new("Example Org", "Example Root"), &seal_key, now, &rng()).unwrap().0;
    let config = IssuingConfig::new("Example Issuing 1", kind);
    let mut issuing = Authority::create_issuing(&root, &config, &seal_key, now, &rng()).unwrap().0;
    let crl = sharded.then(|| CRL.to_owned());
    issuing.set_urls(RevocationUrls { crl, ..Default::default() }).unwrap();
    Site { root, issuing, now }
}

impl Site {
    fn machine(&self, name: &str) -> Certificate {
        let key = key(KeyAlgorithm::EcdsaP256).public_key();
        let (subject, serial) = (Subject::new(name, vec![]).unwrap(), Serial::generate(&rng()).unwrap());
        self.issuing.issue(Profile::Machine, &subject, &key, self.now, serial, &rng()).unwrap()
    }

    fn list(
        &self,
        points: &[&str],
        number: u64,
        revoked: &[(&Certificate, Reason)],
        delta: Option<&Delta<'_>>,
    ) -> Vec<u8> {
        let entry =
            |(c, reason): &(&Certificate, Reason)| Revoked { serial: c.serial.clone(), at: self.now, reason: *reason };
        let revoked: Vec<Revoked> = revoked.iter().map(entry).collect();
        let (this_update, next_update) = (self.now, UnixTime(self.now.0 + 7 * DAY));
        let contents = Contents { distribution_points: points, number, revoked: &revoked, this_update, next_update };
        let tbs = match delta {
            Some(delta) => self.issuing.prepare_delta_list(&contents, delta),
            None => self.issuing.prepare_revocation_list_with_delta(&contents, FRESHEST),
        };
        self.issuing.sign_revocation_list(&tbs.unwrap(), &rng()).unwrap()
    }
}

#[test]
fn openssl_applies_changes_to_the_list_that_they_start_from_and_to_later_ones() {
    if !has("openssl") {
        return;
    }
    for (kind, sharded) in [(KeyAlgorithm::EcdsaP256, true), (KeyAlgorithm::Rsa2048, false)] {
        let (site, bench) = (site(kind, sharded), Bench::new());
        let points: &[&str] = if sharded { &[CRL] } else { &[] };
        let (stolen, held, good) =
            (site.machine("a.example.com"), site.machine("b.example.com"), site.machine("c.example.com"));
        bench.write("root.pem", site.root.certificate().pem());
        bench.write("issuing.pem", site.issuing.certificate().pem());
        let roots = site.root.revocation_list("", 1, &[], site.now, &rng()).unwrap();
        let verify = |leaf: &Certificate, lists: &[&Vec<u8>]| {
            let lists = lists.iter().copied().chain([&roots]).map(|der| pem::encode("X509 CRL", der).to_string());
            bench.write("lists.pem", lists.collect::<String>());
            bench.write("leaf.pem", leaf.pem());
            let (ok, text) = bench.try_run(
                "openssl verify -x509_strict -crl_check_all -extended_crl -use_deltas -CAfile root.pem -untrusted issuing.pem \
                 -CRLfile lists.pem leaf.pem",
            );
            assert!(ok || text.contains("certificate revoked"), "{text}");
            ok
        };
        let hold = Reason::CertificateHold;
        let base = site.list(points, 10, &[(&held, hold)], None);
        let removed = [held.serial.clone()];
        let from = |base| Delta { base, removed: &removed };
        let changes = site.list(points, 20, &[(&stolen, Reason::KeyCompromise)], Some(&from(10)));
        for (leaf, without, with) in [(&stolen, true, false), (&held, false, true), (&good, true, true)] {
            assert_eq!(verify(leaf, &[&base]), without, "{}", leaf.subject);
            assert_eq!(verify(leaf, &[&base, &changes]), with, "{}", leaf.subject);
        }
        // A later complete list is as good a start, and one before it is none.
        let later = site.list(points, 15, &[(&held, hold)], None);
        assert!(!verify(&stolen, &[&later, &changes]) && verify(&held, &[&later, &changes]));
        let earlier = site.list(points, 9, &[(&held, hold)], None);
        assert!(verify(&stolen, &[&earlier, &changes]) && !verify(&held, &[&earlier, &changes]));
        // What the newest complete list says already, no older changes take back.
        let newest = site.list(points, 30, &[(&held, hold)], None);
        assert!(!verify(&held, &[&newest, &changes]));
        // Nothing changed.
        let nothing = Delta { base: 10, removed: &[] };
        let none = site.list(points, 11, &[], Some(&nothing));
        assert!(!verify(&held, &[&base, &none]) && verify(&stolen, &[&base, &none]));
        let text = {
            bench.write("delta.der", &changes);
            bench.run("openssl crl -inform DER -in delta.der -noout -text")
        };
        for part in ["X509v3 Delta CRL Indicator: critical", "Remove From CRL", "X509v3 CRL Number"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        bench.write("base.der", &base);
        let text = bench.run("openssl crl -inform DER -in base.der -noout -text");
        assert!(text.contains("X509v3 Freshest CRL: \n") && text.contains(FRESHEST), "{text}");
        assert!(!text.contains("Delta"), "{text}");
    }
}

/// Java and GnuTLS apply no changes, and take a complete list beside them for what it is.
#[test]
fn readers_that_know_no_delta_lists_go_by_the_complete_one() {
    let (site, bench) = (site(KeyAlgorithm::EcdsaP256, true), Bench::new());
    let (stolen, good) = (site.machine("a.example.com"), site.machine("c.example.com"));
    let later = site.machine("d.example.com");
    let base = site.list(&[CRL], 10, &[(&stolen, Reason::KeyCompromise)], None);
    let nothing = Delta { base: 10, removed: &[] };
    bench.write("delta.crl", site.list(&[CRL], 11, &[(&later, Reason::KeyCompromise)], Some(&nothing)));
    bench.write("root.der", site.root.certificate().der());
    bench.write("issuing.der", site.issuing.certificate().der());
    bench.write("root.crl", site.root.revocation_list("", 1, &[], site.now, &rng()).unwrap());
    bench.write("base.crl", &base);
    let mut lines = String::new();
    for (name, leaf) in [("stolen", &stolen), ("good", &good), ("later", &later)] {
        bench.write(&format!("{name}.der"), leaf.der());
        let millis = (site.now.0 + 60) * 1_000;
        lines += &format!("{name}|{millis}|root.der|root.crl,base.crl,delta.crl|{name}.der,issuing.der\n");
    }
    bench.write("cases", lines);
    if has_java() {
        let program = source("Validate.java");
        let text = bench.run(&format!("java -XX:TieredStopAtLevel=1 {} cases", program.display()));
        assert!(text.contains("stolen REVOKED") && text.contains("good good") && text.contains("later good"), "{text}");
    }
    if has("certtool") {
        bench.write("root.pem", site.root.certificate().pem());
        let lists = [bench.read("root.crl"), base].map(|der| pem::encode("X509 CRL", &der).to_string());
        bench.write("lists.pem", lists.concat());
        for (leaf, expected) in [(&stolen, false), (&good, true)] {
            bench.write("chain.pem", leaf.pem() + &site.issuing.certificate().pem());
            let (ok, text) = bench
                .try_run("certtool --verify --load-ca-certificate root.pem --load-crl lists.pem --infile chain.pem");
            assert_eq!(ok, expected, "{text}");
        }
    }
}

#[test]
fn pkilint_finds_nothing_in_changes_and_in_what_they_change() {
    let Some(python) = python() else { return };
    for (kind, sharded) in [(KeyAlgorithm::EcdsaP256, true), (KeyAlgorithm::Rsa2048, false)] {
        let (site, bench) = (site(kind, sharded), Bench::new());
        let points: &[&str] = if sharded { &[CRL] } else { &[] };
        let (stolen, held) = (site.machine("a.example.com"), site.machine("b.example.com"));
        let removed = [held.serial.clone()];
        bench.write("base.crl", site.list(points, 10, &[(&held, Reason::CertificateHold)], None));
        let changes = [(&stolen, Reason::KeyCompromise)];
        bench.write("delta.crl", site.list(points, 20, &changes, Some(&Delta { base: 10, removed: &removed })));
        bench.write("none.crl", site.list(points, 20, &[], Some(&Delta { base: 10, removed: &[] })));
        bench.write("root.der", site.root.certificate().der());
        bench.write("leaf.der", stolen.der());
        bench.write("cases", "case|0|root.der|base.crl,delta.crl,none.crl|leaf.der\n");
        let text = bench.run(&format!("{} {} cases", python.display(), source("lint.py").display()));
        assert!(text.contains("lint_crl: 3 files"), "{text}");
    }
}

#[test]
fn a_list_with_the_address_of_its_changes_says_the_same_as_without_and_our_readers_take_no_changes() {
    let site = site(KeyAlgorithm::EcdsaP256, true);
    let stolen = site.machine("a.example.com");
    let authorities = [site.issuing.certificate().der().to_vec()];
    let with = site.list(&[CRL], 10, &[(&stolen, Reason::KeyCompromise)], None);
    let read = RevocationList::verify(&with, &authorities).unwrap();
    assert!(read.revoked.contains_key(&stolen.serial) && read.scope == CRL);
    let removed = [stolen.serial.clone()];
    let changes = site.list(&[CRL], 11, &[], Some(&Delta { base: 10, removed: &removed }));
    let error = RevocationList::verify(&changes, &authorities).unwrap_err().to_string();
    assert!(error.contains("only the change of another one"), "{error}");
    let (_, parsed) = CertificateRevocationList::from_der(&changes).unwrap();
    let critical: Vec<(String, bool)> = parsed.extensions().iter().map(|e| (e.oid.to_string(), e.critical)).collect();
    let expected = [("2.5.29.35", false), ("2.5.29.20", false), ("2.5.29.28", true), ("2.5.29.27", true)];
    assert_eq!(critical, expected.map(|(oid, critical)| (oid.to_owned(), critical)));

    let (this_update, next_update) = (site.now, UnixTime(site.now.0 + DAY));
    let contents = Contents { distribution_points: &[], number: 5, revoked: &[], this_update, next_update };
    let newer = Delta { base: 6, removed: &[] };
    assert!(site.issuing.prepare_delta_list(&contents, &newer).is_err(), "newer than itself");
    for address in ["", "https://vpn.example.com/x", "http://vpn example/", &format!("http://{}", "a".repeat(300))] {
        assert!(site.issuing.prepare_revocation_list_with_delta(&contents, address).is_err(), "{address}");
    }
}
