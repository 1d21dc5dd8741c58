//! What is said of certificates, in OCSP and in lists, judged by OpenSSL and GnuTLS.

mod tools;

use std::time::Duration;

use sallyport_ca::crl::{Contents, Reason, RevocationList, Revoked, Status};
use sallyport_ca::ocsp::{Issuer, Refusal, Request, Responder, Validity};
use sallyport_ca::seal::SealKey;
use sallyport_ca::{
    Authority, Certificate, KeyAlgorithm, KeyPair, Profile, RevocationUrls, RootConfig, Serial, Subject, UnixTime, pem,
};
use tools::{Bench, has, key, rng, wall_clock};

const DAY: i64 = 86_400;

fn shard(number: u32) -> String {
    format!("http://vpn.example.com/ca/1/{number}.crl")
}

/// An authority of this key, and a certificate of each of its shards 0, 1 and 2, in `ca.pem` and `N.pem`.
fn authority(bench: &Bench, key_algorithm: KeyAlgorithm) -> (Authority, Vec<Certificate>) {
    let config = RootConfig { key: key_algorithm, ..RootConfig::new("Example", "Example VPN Root") };
    let seal_key = SealKey::generate(&rng()).unwrap();
    let (mut authority, _) = Authority::create(&config, &seal_key, wall_clock(), &rng()).unwrap();
    bench.write("ca.pem", authority.certificate().pem());
    let subject = Subject::new("laptop7.example.com", vec![]).unwrap();
    let leaves = (0..3).map(|n| {
        authority.set_urls(RevocationUrls { crl: Some(shard(n)), ..Default::default() }).unwrap();
        let (public, serial) = (key(KeyAlgorithm::EcdsaP256).public_key(), Serial::generate(&rng()).unwrap());
        let leaf = authority.issue(Profile::Machine, &subject, &public, wall_clock(), serial, &rng()).unwrap();
        bench.write(&format!("{n}.pem"), leaf.pem());
        leaf
    });
    let leaves = leaves.collect();
    (authority, leaves)
}

fn later(seconds: i64) -> UnixTime {
    UnixTime(wall_clock().0 + seconds)
}

#[test]
fn openssl_and_gnutls_go_by_our_answers() {
    if !has("openssl") || !has("ocsptool") {
        return;
    }
    let bench = Bench::new();
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048] {
        let (authority, leaves) = authority(&bench, algorithm);
        let responder_key = KeyPair::from_pkcs8_der(key(algorithm).pkcs8_der()).unwrap();
        let (public, serial) = (responder_key.public_key(), Serial::generate(&rng()).unwrap());
        let day = Duration::from_secs(86_400);
        let signer = authority.issue_ocsp_signer("OCSP 1", &public, wall_clock(), day, serial, &rng()).unwrap();
        bench.write("signer.pem", signer.pem());
        let text = bench.run("openssl x509 -in signer.pem -noout -text");
        assert!(
            text.contains("OCSP No Check") && text.contains("OCSP Signing") && text.contains("CN = OCSP 1"),
            "{text}"
        );
        bench.run("openssl verify -x509_strict -CAfile ca.pem -purpose ocsphelper signer.pem");
        let responder = Responder::new(responder_key, signer.der()).unwrap();
        let issuer = Issuer::of(authority.certificate().der()).unwrap();
        let revoked_at = later(-3600);
        for (hash, nonce) in [("-sha1", ""), ("-sha256", ""), ("-sha1", "-no_nonce")] {
            let certificates: String = (0..3).map(|n| format!(" {hash} -cert {n}.pem")).collect();
            bench.run(&format!("openssl ocsp -issuer ca.pem {certificates} {nonce} -reqout request"));
            let request = Request::parse(&bench.read("request")).unwrap();
            assert_eq!((request.ids.len(), request.nonce.is_some()), (3, nonce.is_empty()));
            let validity = Validity { from: later(-5), until: later(DAY) };
            let answer = responder.answer(
                &request,
                |id| match leaves.iter().position(|l| id.is_of(&issuer) && l.serial == *id.serial()) {
                    Some(0) => Status::Good,
                    Some(1) => Status::Revoked { at: revoked_at, reason: Reason::KeyCompromise },
                    Some(_) => Status::Revoked { at: revoked_at, reason: Reason::Unspecified },
                    None => Status::Unknown,
                },
                validity,
                &rng(),
            );
            bench.write("answer", answer.unwrap());
            let text = bench.run("openssl ocsp -reqin request -respin answer -CAfile ca.pem -issuer ca.pem");
            assert!(text.contains("Response verify OK") && !text.contains("WARNING"), "{text}");
            let text = bench
                .run(&format!("openssl ocsp -issuer ca.pem {certificates} -no_nonce -respin answer -CAfile ca.pem"));
            assert!(
                text.contains("0.pem: good") && text.contains("1.pem: revoked") && text.contains("2.pem: revoked"),
                "{text}"
            );
            assert_eq!(text.matches("Reason: ").count(), 1, "{text}");
            assert!(text.contains("Reason: keyCompromise"), "{text}");
            let text = bench.run("ocsptool --verify-response --load-response answer --load-trust ca.pem");
            assert!(text.contains("Success"), "{text}");
        }
        // Of a certificate that we never issued.
        let answer = responder.answer(
            &Request::parse(&bench.read("request")).unwrap(),
            |_| Status::Unknown,
            Validity { from: later(-5), until: later(DAY) },
            &rng(),
        );
        bench.write("answer", answer.unwrap());
        let text = bench.run("openssl ocsp -issuer ca.pem -cert 0.pem -no_nonce -respin answer -CAfile ca.pem");
        assert!(text.contains("0.pem: unknown"), "{text}");
    }
    bench.write("answer", Refusal::Unauthorized.response());
    assert!(bench.try_run("openssl ocsp -respin answer -noverify").1.contains("unauthorized"));
}

#[test]
fn openssl_and_gnutls_go_by_our_lists() {
    if !has("openssl") || !has("certtool") {
        return;
    }
    let bench = Bench::new();
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
        let (authority, leaves) = authority(&bench, algorithm);
        let list = |number: u32, revoked: &[(usize, Reason)], next_update| {
            let revoked = revoked.iter().map(|(leaf, reason)| Revoked {
                serial: leaves[*leaf].serial.clone(),
                at: later(-60),
                reason: *reason,
            });
            let revoked: Vec<_> = revoked.collect();
            let contents = Contents {
                distribution_points: &[&shard(number)],
                number: 1 << 40,
                revoked: &revoked,
                this_update: later(-30),
                next_update,
            };
            let tbs = authority.prepare_revocation_list(&contents).unwrap();
            assert_eq!(tbs, authority.prepare_revocation_list(&contents).unwrap());
            let list = authority.sign_revocation_list(&tbs, &rng()).unwrap();
            bench.write("list", pem::encode("X509 CRL", &list).as_bytes());
        };
        let check = |leaf: u32, options: &str| {
            bench.try_run(&format!(
                "openssl verify -x509_strict -crl_check {options} -CAfile ca.pem -CRLfile list {leaf}.pem"
            ))
        };
        list(0, &[], later(DAY));
        assert!(check(0, "").0, "{}", check(0, "").1);
        let text = bench.run("certtool --verify-crl --load-ca-certificate ca.pem --infile list");
        assert!(text.contains("Verified"), "{text}");
        bench.run("certtool --verify --load-ca-certificate ca.pem --load-crl list --infile 0.pem");
        // The list of another shard says nothing about it.
        assert!(check(1, "").1.contains("different CRL scope"), "{}", check(1, "").1);

        for (reason, text) in [
            (Reason::KeyCompromise, "Key Compromise"),
            (Reason::CertificateHold, "Certificate Hold"),
            (Reason::PrivilegeWithdrawn, "Privilege Withdrawn"),
            (Reason::Unspecified, ""),
        ] {
            list(0, &[(0, reason), (1, Reason::Superseded)], later(DAY));
            assert!(check(0, "").1.contains("certificate revoked"), "{}", check(0, "").1);
            let shown = bench.run("openssl crl -in list -noout -text");
            assert!(shown.contains(text) && shown.contains("Superseded"), "{shown}");
            assert_eq!(shown.matches("CRL Reason Code").count(), if text.is_empty() { 1 } else { 2 });
            for part in
                ["X509v3 Issuing Distribution Point: critical", "ca/1/0.crl", "X509v3 CRL Number", "1099511627776"]
            {
                assert!(
                    shown.contains(part)
                        || part
                            .parse::<u64>()
                            .is_ok_and(|n| shown.contains(&format!("0x{n:x}").to_uppercase().replace("0X", "0x"))),
                    "{part}: {shown}"
                );
            }
            let (good, text) =
                bench.try_run("certtool --verify --load-ca-certificate ca.pem --load-crl list --infile 0.pem");
            assert!(!good && text.contains("revoked"), "{text}");
        }
        // What is on hold and released is gone from the next list.
        list(0, &[(1, Reason::Superseded)], later(DAY));
        assert!(check(0, "").0);
        list(0, &[], later(60));
        let late = format!("-attime {}", later(DAY).0);
        assert!(check(0, &late).1.contains("CRL has expired"), "{}", check(0, &late).1);
    }
}

/// The service has another name since these certificates were made: the list has both.
#[test]
fn a_list_that_was_published_under_another_name_is_about_the_certificates_of_both() {
    if !has("openssl") {
        return;
    }
    let bench = Bench::new();
    let (authority, _) = authority(&bench, KeyAlgorithm::EcdsaP256);
    let (point, here) = (shard(0), "http://new.example.com/ca/1/0.crl");
    let contents = Contents {
        distribution_points: &[here, &point],
        number: 1,
        revoked: &[],
        this_update: later(-30),
        next_update: later(DAY),
    };
    let list = authority.sign_revocation_list(&authority.prepare_revocation_list(&contents).unwrap(), &rng()).unwrap();
    bench.write("list", pem::encode("X509 CRL", &list).as_bytes());
    let check = |leaf: u32| {
        bench.try_run(&format!("openssl verify -x509_strict -crl_check -CAfile ca.pem -CRLfile list {leaf}.pem"))
    };
    assert!(check(0).0, "{}", check(0).1);
    assert!(check(1).1.contains("different CRL scope"), "{}", check(1).1);
    assert!(RevocationList::verify(&list, &[authority.certificate().der().to_vec()]).unwrap().revoked.is_empty());
}

#[test]
fn a_list_that_ends_before_it_begins_is_not_made() {
    let bench = Bench::new();
    let (authority, _) = authority(&bench, KeyAlgorithm::EcdsaP256);
    let now = wall_clock();
    let contents =
        Contents { distribution_points: &[&shard(0)], number: 1, revoked: &[], this_update: now, next_update: now };
    assert!(authority.prepare_revocation_list(&contents).is_err());
}
