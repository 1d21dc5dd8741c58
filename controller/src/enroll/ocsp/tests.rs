use sallyport_ca::{Certificate, SystemRandom};
use sallyport_endpoint::Office as _;

use super::*;
use crate::authority;
use crate::enroll::ControllerOffice;
use crate::enroll::tests::{Site, key, serial};
use crate::state::RevokeCertificate;

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        n @ 0..=127 => out.push(n as u8),
        n @ 128..=255 => out.extend([0x81, n as u8]),
        n => out.extend([0x82, (n >> 8) as u8, n as u8]),
    }
    out.extend(content);
    out
}

/// A CertID by SHA-1; the issuer has a P-256 key.
fn id(issuer: &[u8], serial: &str) -> Vec<u8> {
    let issuer = Certificate::from_der(issuer).expect("a certificate");
    let sha1 = |data: &[u8]| digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, data).as_ref().to_vec();
    let spki = issuer.spki_der();
    let point = spki.last_chunk::<65>().expect("a point");
    let serial: Serial = serial.parse().expect("a serial number");
    let mut number = serial.as_be_bytes().to_vec();
    if number[0] > 0x7f {
        number.insert(0, 0);
    }
    let algorithm = tlv(0x30, &[&[6, 5, 0x2b, 0x0e, 3, 2, 0x1a], &[5, 0]]);
    tlv(0x30, &[&algorithm, &tlv(4, &[&sha1(&issuer.subject_der())]), &tlv(4, &[&sha1(point)]), &tlv(2, &[&number])])
}

fn request(ids: &[&[u8]], nonce: Option<&[u8]>) -> Vec<u8> {
    const NONCE: &[u8] = &[6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2];
    let list: Vec<Vec<u8>> = ids.iter().map(|id| tlv(0x30, &[id])).collect();
    let list = tlv(0x30, &list.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let extensions = nonce.map_or(Vec::new(), |nonce| {
        let nonce = tlv(0x30, &[NONCE, &tlv(4, &[&tlv(4, &[nonce])])]);
        tlv(0xa2, &[&tlv(0x30, &[&nonce])])
    });
    tlv(0x30, &[&tlv(0x30, &[&list, &extensions])])
}

fn at(whole: &[u8], part: &[u8]) -> usize {
    whole.windows(part.len()).position(|w| w == part).expect("is in it")
}

const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;
const UNKNOWN: u8 = 0x82;

/// What an answer says of a CertID.
fn status_of(answer: &[u8], id: &[u8]) -> u8 {
    answer[at(answer, id) + id.len()]
}

/// A responseStatus without an answer.
fn error(number: u8) -> Vec<u8> {
    vec![0x30, 3, 0x0a, 1, number]
}

struct Bench {
    site: Site,
    office: ControllerOffice,
    issuer: u64,
    above: Vec<u8>,
    machine: String,
}

impl Bench {
    async fn new() -> Self {
        let site = Site::new().await;
        let office = ControllerOffice::new(site.core.clone());
        let machine = serial(&site.issued(&site.token(1).await, &key()).await);
        let issuer = site.core.node.shared().read().certificates.get(&machine).expect("there").issuer;
        let above = office.authority(issuer).expect("known");
        Self { site, office, issuer, above, machine }
    }

    async fn ask(&self, request: Vec<u8>) -> Vec<u8> {
        self.office.ocsp(request).await
    }

    fn signed(&self) -> u64 {
        self.office.ocsp.signed()
    }

    async fn revoke(&self, serial: &str, reason: &str) {
        let command = RevokeCertificate { serial: serial.into(), reason: reason.into() };
        self.site.core.propose(Action::RevokeCertificate(command)).await.expect("proposes");
    }

    async fn end(self) {
        drop(self.office);
        self.site.end().await;
    }

    /// Signers that this controller has recorded.
    fn signers(&self) -> Vec<CertificateRow> {
        let state = self.site.core.node.shared().read();
        let rows = state.certificates.iter().map(|(_, row)| row.clone());
        let mut signers: Vec<_> = rows.filter(|r| r.profile() == v1::CertificateProfile::OcspSigner).collect();
        signers.sort_unstable_by_key(|row| row.number);
        signers
    }
}

#[tokio::test]
async fn what_the_log_says_is_answered_and_a_revocation_at_once() {
    let bench = Bench::new().await;
    let (machine, never) = (id(&bench.above, &bench.machine), id(&bench.above, "abcdef"));
    let both = || request(&[&machine, &never], None);
    let answer = bench.ask(both()).await;
    assert_eq!((status_of(&answer, &machine), status_of(&answer, &never)), (GOOD, UNKNOWN));
    bench.revoke(&bench.machine, "key-compromise").await;
    let answer = bench.ask(both()).await;
    assert_eq!((status_of(&answer, &machine), status_of(&answer, &never)), (REVOKED, UNKNOWN));
    at(&answer, &[0xa0, 3, 0x0a, 1, 1]); // keyCompromise
    // A signer of this controller is in the log, and goes with it.
    let signers = bench.signers();
    assert_eq!(signers.iter().map(|s| (s.member, s.issuer)).collect::<Vec<_>>(), [(1, bench.issuer)]);
    // The authority retires: what it has issued is asked about all the same.
    let kind = sallyport_ca::KeyAlgorithm::EcdsaP256;
    let numbers = authority::add_issuers(&bench.site.core, vec![kind.into()], true).await.expect("adds");
    let answer = bench.ask(request(&[&machine], Some(&[7; 16]))).await;
    assert_eq!(status_of(&answer, &machine), REVOKED);
    bench.revoke(&signers[0].serial, "key-compromise").await;
    let answer = bench.ask(request(&[&machine], None)).await;
    assert_eq!((status_of(&answer, &machine), bench.signers().len()), (REVOKED, 2), "a signer of a retired authority");
    // Of another authority's certificate this signer knows nothing.
    let newer = bench.office.authority(numbers[0]).expect("known");
    let other = id(&newer, &bench.machine);
    let answer = bench.ask(request(&[&machine, &other], None)).await;
    assert_eq!((status_of(&answer, &machine), status_of(&answer, &other)), (REVOKED, UNKNOWN));
    let answer = bench.ask(request(&[&other], None)).await;
    assert_eq!((status_of(&answer, &other), bench.signers().len()), (UNKNOWN, 3));
    bench.end().await;
}

#[tokio::test]
async fn what_is_nobodys_or_no_question_gets_no_signature() {
    let bench = Bench::new().await;
    let root = bench.office.authority(0).expect("a root");
    let issuing = Certificate::from_der(&bench.above).expect("a certificate").serial.to_string();
    assert_eq!(bench.ask(request(&[&id(&root, &issuing)], None)).await, error(6), "the root has a list");
    let foreign = key().self_signed("x", UnixTime(1_800_000_000), Duration::from_secs(60), &SystemRandom::new());
    let foreign = foreign.expect("a certificate");
    assert_eq!(bench.ask(request(&[&id(&foreign, "01")], None)).await, error(6));
    let whole = request(&[&id(&bench.above, &bench.machine)], Some(&[1; 16]));
    for junk in [&b""[..], b"junk", &[0x30; 9_000], &whole[..whole.len() - 1]] {
        assert_eq!(bench.ask(junk.to_vec()).await, error(1));
    }
    let one = id(&bench.above, "01");
    assert_eq!(bench.ask(request(&vec![&one[..]; 17], None)).await, error(1), "too many at a time");
    assert_eq!((bench.signed(), bench.signers().len()), (0, 0));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_question_costs_a_few_signatures_and_a_nonce_one_each() {
    let bench = Arc::new(Bench::new().await);
    let machine = id(&bench.above, &bench.machine);
    let all = (0..500).map(|_| {
        let (bench, asked) = (bench.clone(), request(&[&machine], None));
        tokio::spawn(async move { bench.ask(asked).await })
    });
    for one in all.collect::<Vec<_>>() {
        assert_eq!(status_of(&one.await.expect("no panic"), &machine), GOOD);
    }
    let first = bench.signed();
    assert!((1..=SIGNATURES as u64).contains(&first), "{first}");
    let kept = bench.ask(request(&[&machine], None)).await;
    assert_eq!(bench.signed(), first);
    for n in 0..3_u8 {
        let answer = bench.ask(request(&[&machine], Some(&[n; 16]))).await;
        at(&answer, &tlv(4, &[&[n; 16]]));
    }
    assert_eq!(bench.signed(), first + 3);
    // It grows old.
    bench.site.clock.advance(Duration::from_millis(FRESH_MS - 1_000));
    assert_eq!(bench.ask(request(&[&machine], None)).await, kept);
    bench.site.clock.advance(Duration::from_secs(2));
    assert_ne!(bench.ask(request(&[&machine], None)).await, kept);
    assert_eq!(bench.signed(), first + 4);
    let bench = Arc::into_inner(bench).expect("nobody else asks");
    bench.end().await;
}

#[tokio::test]
async fn another_signer_takes_over_at_half_of_its_life() {
    let bench = Bench::new().await;
    let machine = id(&bench.above, &bench.machine);
    let asked = || request(&[&machine], None);
    let first = bench.ask(asked()).await;
    bench.site.clock.advance(SIGNER_LIFE / 2 + Duration::from_secs(3_600));
    // The present one answers while another is made.
    for _ in 0..2_000 {
        assert_eq!(status_of(&bench.ask(asked()).await, &machine), GOOD);
        if bench.signers().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let [before, after] = &bench.signers()[..] else { panic!("two signers") };
    assert!(before.not_after_ms < after.not_after_ms);
    assert_ne!(bench.ask(asked()).await, first);
    // Long after the end of both.
    bench.site.clock.advance(SIGNER_LIFE * 3);
    assert_eq!(status_of(&bench.ask(asked()).await, &machine), GOOD);
    assert_eq!(bench.signers().len(), 3);
    bench.end().await;
}

#[test]
fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
    let made = |octets: usize| Made {
        statuses: vec![Status::Good],
        serial: String::new(),
        at_ms: 0,
        number: 0,
        der: vec![0; octets],
    };
    let question = |n: usize| {
        let mut question = [0; 32];
        question[..8].copy_from_slice(&(n as u64).to_be_bytes());
        question
    };
    let mut kept = Kept::default();
    for n in 0..MAX_KEPT + 100 {
        kept.put(question(n), made(10));
        kept.put(question(n), made(20)); // the same anew
    }
    assert!(kept.order.len() <= MAX_KEPT && kept.answers.len() <= MAX_KEPT);
    assert_eq!(kept.octets, kept.answers.len() * 20);
    assert!(!kept.answers.contains_key(&question(0)) && kept.answers.contains_key(&question(MAX_KEPT + 99)));
    for n in 0..100 {
        kept.put(question(n), made(MAX_KEPT_OCTETS / 10));
    }
    assert_eq!((kept.answers.len(), kept.octets), (10, MAX_KEPT_OCTETS / 10 * 10));
}
