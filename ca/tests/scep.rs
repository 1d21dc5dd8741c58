//! SCEP with programs of others: OpenSSL opens what we seal and seals what we open, micromdm's `scepclient` enrolls.
//! What speaks HTTP to them here is just enough for that; the endpoint has its own.

mod tools;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sallyport_ca::cms::{self, Digest, Signed};
use sallyport_ca::scep::client::{Authority as Server, Reply, Transaction};
use sallyport_ca::scep::{self, Kind, Outcome, RaIdentity};
use sallyport_ca::seal::{SealKey, Sealed};
use sallyport_ca::{Authority, KeyAlgorithm, KeyPair, Profile, PublicKey, RootConfig, Serial, Subject};
use tools::{Bench, has, key, rng, wall_clock};

/// An authority with an RA.
struct Service {
    authority: Authority,
    ra: RaIdentity,
}

impl Service {
    /// Of an authority with an RSA key: `scepclient` encrypts to each certificate that it gets.
    fn new() -> Self {
        static ROOT: OnceLock<(Sealed, SealKey, Vec<u8>)> = OnceLock::new();
        let (sealed, seal_key, root) = ROOT.get_or_init(|| {
            let config = RootConfig { key: KeyAlgorithm::Rsa2048, ..RootConfig::new("Example", "Example VPN Root") };
            let seal_key = SealKey::generate(&rng()).unwrap();
            let (authority, sealed) = Authority::create(&config, &seal_key, wall_clock(), &rng()).unwrap();
            (sealed, seal_key, authority.certificate().der().to_vec())
        });
        let authority = Authority::open(sealed, seal_key, root).unwrap();
        let ra_key = KeyPair::from_pkcs8_der(key(KeyAlgorithm::Rsa2048).pkcs8_der()).unwrap();
        let (serial, day) = (Serial::generate(&rng()).unwrap(), Duration::from_secs(86_400));
        let public = ra_key.public_key();
        let issued = authority.issue_scep_ra("SCEP RA", &public, wall_clock(), day, serial, &rng()).unwrap();
        Self { ra: RaIdentity::new(ra_key, issued.der(), vec![root.clone()]).unwrap(), authority }
    }

    /// Grants whatever comes with the right password, or from somebody who has a certificate.
    fn answer(&self, message: &[u8]) -> Vec<u8> {
        let request = match scep::open(message, &self.ra, &rng()) {
            Ok(request) => request,
            Err(failure) => return failure.reply(&self.ra, &rng()).unwrap_or_default(),
        };
        let known = request.challenge.as_ref().is_some_and(|c| c.as_str() == "s3cret") || request.kind == Kind::Renew;
        let outcome = if known {
            let public = PublicKey::from_csr_der(&request.csr).unwrap();
            let (subject, serial) =
                (Subject::new("laptop7.example.com", vec![]).unwrap(), Serial::generate(&rng()).unwrap());
            let issued =
                self.authority.issue(Profile::Machine, &subject, &public, wall_clock(), serial, &rng()).unwrap();
            let chain = vec![self.authority.certificate().der().to_vec()];
            Outcome::Success { certificate: issued.der().to_vec(), chain }
        } else {
            Outcome::Failure { info: scep::FailInfo::BadRequest, text: "no such token".into() }
        };
        scep::reply(&request, &outcome, &self.ra, &rng()).unwrap()
    }
}

#[test]
fn openssl_opens_our_answers_and_we_open_its_envelopes() {
    if !has("openssl") {
        return;
    }
    let (bench, service) = (Bench::new(), Service::new());
    let laptop = &KeyPair::generate(KeyAlgorithm::Rsa2048, &rng()).unwrap();
    let own = laptop.self_signed("laptop7", wall_clock(), Duration::from_secs(86_400), &rng()).unwrap();
    let csr = laptop.request("laptop7", Some("s3cret"), &rng()).unwrap();
    let server = Server::parse(&service.ra.ca_certificates()).unwrap();
    bench.write("laptop.key", laptop.pkcs8_pem().as_bytes());
    bench.write("laptop.der", &own);
    bench.run("openssl x509 -inform der -in laptop.der -out laptop.pem");
    bench.write("ca.pem", service.authority.certificate().pem());
    bench.write("csr", &*csr);
    bench.write("ra.der", service.ra.certificate());
    bench.run("openssl x509 -inform der -in ra.der -out ra.pem");
    for (name, cipher) in [("aes128", "aes-128-cbc"), ("aes256", "aes-256-cbc"), ("des3", "des-ede3-cbc")] {
        // Its envelope inside our signature.
        bench.run(&format!(
            "openssl cms -encrypt -binary -in csr -{name} -outform der -out envelope -stream -recip ra.pem"
        ));
        let mut client = Transaction::new(&server, laptop, &own, &csr).unwrap();
        let ours = client.request(Kind::Enroll, &csr, &rng()).unwrap();
        let attributes = Signed::verify(&ours).unwrap().attributes;
        let none: [&[u8]; 0] = [];
        let message =
            cms::sign(&bench.read("envelope"), &attributes, laptop, &own, &none, Digest::Sha512, &rng()).unwrap();
        let answer = service.answer(&message);
        assert!(matches!(client.open(&answer, &rng()), Ok(Reply::Issued(list)) if list.len() == 2));

        bench.write("answer", &answer);
        bench.run("openssl cms -verify -binary -inform der -in answer -CAfile ca.pem -out sealed");
        let text = bench.run("openssl cms -cmsout -print -noout -inform der -in answer");
        assert!(text.contains("algorithm: rsaEncryption") && text.contains("sha512"), "{text}");
        let text = bench.run("openssl cms -cmsout -print -noout -inform der -in sealed");
        assert!(text.contains(cipher), "{text}");
        bench.run("openssl cms -decrypt -binary -inform der -in sealed -recip laptop.pem -inkey laptop.key -out list");
        let text = bench.run("openssl pkcs7 -inform der -in list -print_certs -noout");
        assert!(text.contains("CN = laptop7.example.com") && text.contains("CN = Example VPN Root"), "{text}");
    }
    bench.write("caps", service.ra.ca_certificates());
    let text = bench.run("openssl pkcs7 -inform der -in caps -print_certs -noout");
    assert!(text.lines().find(|l| l.starts_with("subject")).unwrap().contains("SCEP RA"), "{text}");
    assert!(text.contains("CN = Example VPN Root"), "{text}");
}

/// Serves SCEP over HTTP for as long as the test runs; gives the URL.
fn serve(service: Service) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/scep", listener.local_addr().unwrap());
    let service = Arc::new(service);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
            let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
            let (head, body) = loop {
                let n = stream.read(&mut buffer).unwrap_or(0);
                got.extend_from_slice(&buffer[..n]);
                let end = got.windows(4).position(|w| w == b"\r\n\r\n");
                let head = end.map(|end| String::from_utf8_lossy(&got[..end]).into_owned());
                let length = head.as_ref().and_then(|h| {
                    let line = h.lines().find(|l| l.to_ascii_lowercase().starts_with("content-length:"))?;
                    line.split(':').nth(1)?.trim().parse::<usize>().ok()
                });
                if let (Some(head), Some(end)) = (head, end)
                    && got.len() >= end + 4 + length.unwrap_or(0)
                {
                    break (head, got[end + 4..].to_vec());
                }
                if n == 0 {
                    break (String::new(), Vec::new());
                }
            };
            let line = head.lines().next().unwrap_or_default();
            let (kind, answer) = if line.contains("GetCACaps") {
                ("text/plain", scep::CAPABILITIES.as_bytes().to_vec())
            } else if line.contains("GetCACert") {
                (scep::CA_RA_CERTIFICATES, service.ra.ca_certificates())
            } else {
                (scep::PKI_MESSAGE, service.answer(&body))
            };
            let head = format!("HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", answer.len());
            let _ = stream.write_all(&[head.as_bytes(), &answer].concat());
        }
    });
    url
}

#[test]
fn scepclient_which_knows_single_des_only_enrolls_where_that_is_accepted() {
    if !has("scepclient") {
        return;
    }
    let bench = Bench::new();
    let enroll = |url: &str, challenge: &str, name: &str| {
        bench.try_run(&format!(
            "scepclient -server-url {url} -challenge {challenge} -cn laptop7 -private-key {name}.key -certificate {name}.pem"
        ))
    };
    let (good, text) = enroll(&serve(Service::new()), "s3cret", "laptop");
    assert!(!good && text.contains("badAlg"), "{text}");
    let mut service = Service::new();
    service.ra = service.ra.accepting_single_des();
    let url = serve(service);
    let (good, text) = enroll(&url, "s3cret", "laptop");
    assert!(good, "{text}");
    let issued = sallyport_ca::Certificate::from_pem(&bench.read("laptop.pem")).unwrap();
    assert_eq!(issued.subject, "O=Example, CN=laptop7.example.com");
    let (good, text) = enroll(&url, "wrong", "thief");
    assert!(!good && text.contains("badRequest"), "{text}");
}
