//! Requests, CMS messages and EST bodies, exchanged with OpenSSL in both directions.

mod tools;

use sallyport_ca::cms::{self, ContentCipher, DecryptionKey, Digest, Enveloped, Signed};
use sallyport_ca::{Certificate, Error, KeyAlgorithm, KeyPair, PublicKey, est, request};
use tools::{Bench, has, key, rng};

const ALL_KEYS: [KeyAlgorithm; 3] = [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384];

/// Writes `NAME.key` and a certificate for it by OpenSSL, `NAME.pem`.
fn identity(bench: &Bench, name: &str, key: &KeyPair) -> Certificate {
    bench.write(&format!("{name}.key"), key.pkcs8_pem().as_bytes());
    bench.run(&format!("openssl req -x509 -key {name}.key -subj /O=Ex/CN={name} -days 30 -out {name}.pem"));
    Certificate::from_pem(&bench.read(&format!("{name}.pem"))).unwrap()
}

#[test]
fn requests_are_read_in_both_directions() {
    if !has("openssl") {
        return;
    }
    let bench = Bench::new();
    for algorithm in ALL_KEYS {
        let ours = key(algorithm).request("laptop7.example.com", Some("s3cret"), &rng()).unwrap();
        bench.write("ours.der", &*ours);
        let text = bench.run("openssl req -inform der -in ours.der -verify -noout -text");
        assert!(
            text.contains("verify OK") && text.contains("CN = laptop7.example.com") && text.contains("s3cret"),
            "{text}"
        );

        bench.write("key", key(algorithm).pkcs8_pem().as_bytes());
        bench.write(
            "config",
            "[req]\nprompt=no\ndistinguished_name=n\nattributes=a\n[n]\nCN=x\n[a]\nchallengePassword=t0ken-_=\n",
        );
        bench.run("openssl req -new -key key -config config -outform der -out theirs.der");
        let theirs = bench.read("theirs.der");
        assert_eq!(PublicKey::from_csr_der(&theirs).unwrap(), key(algorithm).public_key());
        assert_eq!(request::challenge_password(&theirs).unwrap().unwrap().as_str(), "t0ken-_=");
    }
    bench.run("openssl req -new -newkey rsa:1024 -nodes -keyout weak -subj /CN=x -outform der -out weak.der");
    assert_eq!(
        PublicKey::from_csr_der(&bench.read("weak.der")),
        Err(Error::PublicKey("RSA keys must have at least 2048 bits"))
    );
    bench.run("openssl req -new -key key -sha1 -subj /CN=x -outform der -out sha1.der");
    assert!(PublicKey::from_csr_der(&bench.read("sha1.der")).is_err());
}

#[test]
fn certificates_travel_in_pkcs7_and_in_base64_both_ways() {
    if !has("openssl") {
        return;
    }
    let bench = Bench::new();
    let leaf = identity(&bench, "leaf", key(KeyAlgorithm::EcdsaP256));
    let root = identity(&bench, "root", key(KeyAlgorithm::EcdsaP384));
    let list = [leaf.der(), root.der()];

    let body = est::body(&cms::certs_only(&list));
    assert!(!body.contains('\n'));
    bench.write("body", &body);
    bench.run("openssl base64 -d -A -in body -out ours.p7");
    let text = bench.run("openssl pkcs7 -inform der -in ours.p7 -print_certs -noout");
    let subjects: Vec<&str> = text.lines().filter(|l| l.starts_with("subject")).collect();
    assert!(subjects.len() == 2 && subjects[0].contains("leaf") && subjects[1].contains("root"), "{text}");
    assert_eq!(est::parse_certificates(body.as_bytes()).unwrap(), list);

    for form in ["der", "pem"] {
        bench.run(&format!(
            "openssl crl2pkcs7 -nocrl -certfile leaf.pem -certfile root.pem -outform {form} -out theirs"
        ));
        assert_eq!(est::parse_certificates(&bench.read("theirs")).unwrap(), list, "{form}");
    }
    bench.run("openssl crl2pkcs7 -nocrl -certfile leaf.pem -outform der -out theirs.der");
    bench.run("openssl base64 -e -in theirs.der -out wrapped");
    assert_eq!(est::parse_certificates(&bench.read("wrapped")).unwrap(), [leaf.der()]);
}

#[test]
fn hints_for_requests_are_what_rfc_9908_says() {
    if !has("openssl") {
        return;
    }
    let bench = Bench::new();
    let keys = [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048, KeyAlgorithm::Rsa3072];
    bench.write("attrs", est::csr_attributes(&keys));
    let text = bench.run("openssl asn1parse -inform der -in attrs");
    let found: Vec<&str> =
        text.lines().filter_map(|l| l.split_once("prim:")).map(|(_, l)| l.rsplit(':').next().unwrap()).collect();
    assert_eq!(
        found,
        [
            "id-ecPublicKey",
            "prime256v1",
            "ecdsa-with-SHA256",
            "rsaEncryption",
            "0800",
            "sha256WithRSAEncryption",
            "rsaEncryption",
            "0C00"
        ]
    );
}

#[test]
fn signatures_of_openssl_are_verified() {
    if !has("openssl") {
        return;
    }
    let bench = Bench::new();
    bench.write("text", b"what is signed\r\n");
    for algorithm in ALL_KEYS {
        let certificate = identity(&bench, "me", key(algorithm));
        for digest in ["sha1", "sha256", "sha384", "sha512"] {
            for options in ["", "-stream", "-keyid", "-noattr"] {
                if !algorithm.is_rsa() && (digest != "sha384" && digest != "sha256" || options == "-noattr") {
                    continue;
                }
                bench.run(&format!(
                    "openssl cms -sign -binary -nodetach -in text -signer me.pem -inkey me.key -md {digest} {options} \
                     -outform der -out signed"
                ));
                let signed =
                    Signed::verify(&bench.read("signed")).unwrap_or_else(|e| panic!("{digest} {options}: {e}"));
                assert_eq!(signed.content, b"what is signed\r\n");
                assert_eq!((signed.signer.as_slice(), signed.certificates.len()), (certificate.der(), 1));
                assert_eq!(format!("{:?}", signed.digest).to_lowercase(), digest);
            }
        }
        let refused = |line: &str| {
            bench.run(&format!(
                "openssl cms -sign -in text -signer me.pem -inkey me.key {line} -outform der -out signed"
            ));
            Signed::verify(&bench.read("signed")).unwrap_err().to_string()
        };
        assert!(refused("-binary").contains("is not in it"));
        assert!(refused("-binary -nodetach -nocerts").contains("certificate of its signer"));
    }
    bench.run("openssl smime -sign -binary -nodetach -in text -signer me.pem -inkey me.key -outform der -out signed");
    assert!(Signed::verify(&bench.read("signed")).is_ok());
    identity(&bench, "other", key(KeyAlgorithm::Rsa2048));
    bench.run("openssl cms -sign -binary -nodetach -in text -signer me.pem -inkey me.key -signer other.pem -inkey other.key -outform der -out signed");
    assert_eq!(Signed::verify(&bench.read("signed")), Err(Error::Message("it has more than one signer")));
}

#[test]
fn openssl_verifies_our_signatures() {
    if !has("openssl") {
        return;
    }
    let bench = Bench::new();
    for algorithm in ALL_KEYS {
        let certificate = identity(&bench, "me", key(algorithm));
        for digest in [Digest::Sha256, Digest::Sha384, Digest::Sha512] {
            let none: [&[u8]; 0] = [];
            let signed = cms::sign(b"our text", &[], key(algorithm), certificate.der(), &none, digest, &rng()).unwrap();
            assert_eq!(Signed::verify(&signed).unwrap().content, b"our text");
            bench.write("signed", &signed);
            for tool in ["cms", "smime"] {
                bench.run(&format!(
                    "openssl {tool} -verify -binary -inform der -in signed -CAfile me.pem -purpose any -out text"
                ));
                assert_eq!(bench.read("text"), b"our text");
            }
        }
    }
}

#[test]
fn what_openssl_encrypts_is_decrypted() {
    if !has("openssl") {
        return;
    }
    let bench = Bench::new();
    bench.write("text", b"a request\0with its secret");
    let certificate = identity(&bench, "ra", key(KeyAlgorithm::Rsa2048));
    let ra = DecryptionKey::new(key(KeyAlgorithm::Rsa2048), certificate.der()).unwrap();
    let ciphers = [
        ("aes128", ContentCipher::Aes128),
        ("aes192", ContentCipher::Aes192),
        ("aes256", ContentCipher::Aes256),
        ("des3", ContentCipher::TripleDes),
    ];
    for (name, cipher) in ciphers {
        for options in [
            "-recip ra.pem",
            "-stream -recip ra.pem",
            "-keyid -recip ra.pem",
            "-recip ra.pem -keyopt rsa_padding_mode:oaep",
            "-recip ra.pem -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256",
            "-recip ra.pem -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha512 -keyopt rsa_mgf1_md:sha1",
        ] {
            bench.run(&format!("openssl cms -encrypt -binary -in text -{name} -outform der -out sealed {options}"));
            let message = Enveloped::parse(&bench.read("sealed")).unwrap();
            assert_eq!(message.cipher(), cipher);
            assert_eq!(
                **message.decrypt(&ra, &rng()).unwrap_or_else(|e| panic!("{options}: {e}")),
                b"a request\0with its secret"[..]
            );
        }
    }
    bench.run("openssl smime -encrypt -binary -in text -aes128 -outform der -out sealed ra.pem");
    assert!(Enveloped::parse(&bench.read("sealed")).unwrap().decrypt(&ra, &rng()).is_ok());

    let refused = |options: &str| {
        bench.run(&format!("openssl cms -encrypt -binary -in text -outform der -out sealed {options}"));
        let message = Enveloped::parse(&bench.read("sealed"));
        message.and_then(|m| m.decrypt(&ra, &rng()).map(drop)).unwrap_err().to_string()
    };
    assert!(refused("-des -provider legacy -provider default -recip ra.pem").contains("single DES"));
    assert!(refused("-rc2 -provider legacy -provider default -recip ra.pem").contains("RC2"));
    assert!(
        refused("-aes128 -recip ra.pem -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_label:61").contains("not known")
    );
    identity(&bench, "other", key(KeyAlgorithm::Rsa2048));
    assert!(refused("-aes128 -recip other.pem").contains("another certificate"));
    assert!(
        refused("-aes128 -secretkey 00112233445566778899aabbccddeeff -secretkeyid 01").contains("another certificate")
    );
}

#[test]
fn openssl_decrypts_what_we_encrypt() {
    if !has("openssl") {
        return;
    }
    let bench = Bench::new();
    let certificate = identity(&bench, "me", key(KeyAlgorithm::Rsa2048));
    for cipher in [ContentCipher::Aes128, ContentCipher::Aes192, ContentCipher::Aes256, ContentCipher::TripleDes] {
        for content in [&b""[..], b"16 octets, whole", &[7; 5000]] {
            bench.write("sealed", cms::encrypt(content, cipher, certificate.der(), &rng()).unwrap());
            bench.run("openssl cms -decrypt -binary -inform der -in sealed -recip me.pem -inkey me.key -out text");
            assert_eq!(bench.read("text"), content);
        }
    }
    let ec = identity(&bench, "ec", key(KeyAlgorithm::EcdsaP256));
    assert!(cms::encrypt(b"", ContentCipher::Aes128, ec.der(), &rng()).is_err());
    assert!(DecryptionKey::new(key(KeyAlgorithm::EcdsaP256), ec.der()).is_err());
    assert!(DecryptionKey::new(key(KeyAlgorithm::Rsa2048), ec.der()).is_err());
}
