use std::collections::BTreeSet;

use super::*;
use crate::seal::SealKey;
use crate::{Certificate, KeyAlgorithm, KeyPair, Profile, RootConfig, Subject, SystemRandom};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn authority(key: KeyAlgorithm) -> Authority {
    let rng = SystemRandom::new();
    let config = RootConfig { key, ..RootConfig::new("Example", "Example VPN Root") };
    Authority::create(&config, &SealKey::generate(&rng).unwrap(), NOW, &rng).unwrap().0
}

fn controller(authority: &Authority) -> Certificate {
    let rng = SystemRandom::new();
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
    let (subject, serial) = (Subject::new("c1.example.com", vec![]).unwrap(), Serial::generate(&rng).unwrap());
    authority.issue(Profile::Controller, &subject, &key.public_key(), NOW, serial, &rng).unwrap()
}

fn list(authority: &Authority, number: u64, revoked: &[&Certificate]) -> Vec<u8> {
    let revoked: Vec<_> = revoked.iter().map(|c| (c.serial.clone(), NOW)).collect();
    authority.revocation_list(CONTROLLERS, number, &revoked, NOW, &SystemRandom::new()).unwrap()
}

#[test]
fn what_is_on_a_list_is_refused_and_stays_refused_whatever_list_comes_later() {
    for key in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
        let authority = authority(key);
        let (bad, good) = (controller(&authority), controller(&authority));
        let known = Revocations::trusting(authority.certificate().pem().as_bytes()).unwrap();
        assert_eq!(known.refuses(bad.der()), None);
        assert_eq!(known.take(&list(&authority, 1, &[])).unwrap(), []);
        assert_eq!(known.take(&list(&authority, 2, &[&bad])).unwrap(), std::slice::from_ref(&bad.serial));
        assert_eq!(known.take(&list(&authority, 3, &[])).unwrap(), [], "{key}");
        assert_eq!(known.refuses(bad.der()), Some(bad.serial.clone()));
        assert_eq!(known.refuses(good.der()), None);
        assert!(known.refuses(b"no certificate").is_some());
    }
}

#[test]
fn a_list_that_the_authority_has_not_signed_says_nothing() {
    let (authority, other) = (authority(KeyAlgorithm::EcdsaP256), authority(KeyAlgorithm::EcdsaP256));
    let good = controller(&authority);
    let known = Revocations::trusting(authority.certificate().pem().as_bytes()).unwrap();
    // Of the same name, by another key.
    assert!(known.take(&list(&other, 9, &[&good])).is_err());
    let signed = list(&authority, 9, &[&good]);
    let serial = signed.windows(17).position(|w| w == good.serial.as_be_bytes()).unwrap();
    for at in [serial + 3, signed.len() - 1] {
        let mut changed = signed.clone();
        changed[at] ^= 1;
        assert!(known.take(&changed).is_err(), "{at}");
    }
    assert!(known.take(&[]).is_err() && known.take(good.der()).is_err());
    assert!(known.take(&[signed.as_slice(), &[0]].concat()).is_err());
    assert_eq!(known.refuses(good.der()), None);
    assert_eq!(
        RevocationList::verify(&signed, &[authority.certificate().der().to_vec()]).unwrap().number,
        Serial::from_be_bytes(&[9])
    );
}

/// Lists of one authority with the certificates of these numbers, each revoked at its number.
struct Issuer(Authority, std::cell::Cell<u64>);

impl Issuer {
    fn new() -> Self {
        Self(authority(KeyAlgorithm::EcdsaP256), std::cell::Cell::new(0))
    }

    fn list(&self, revoked: &[u8]) -> Vec<u8> {
        self.1.set(self.1.get() + 1);
        let revoked: Vec<_> = revoked.iter().map(|n| (serial(*n), UnixTime(NOW.0 + i64::from(*n)))).collect();
        self.0.revocation_list(CONTROLLERS, self.1.get(), &revoked, NOW, &SystemRandom::new()).unwrap()
    }

    fn reader(&self) -> Revocations {
        Revocations::trusting(self.0.certificate().pem().as_bytes()).unwrap()
    }

    /// What somebody knows who begins with what a reader has kept.
    fn known(&self, kept: &Revocations) -> BTreeSet<Serial> {
        self.reader().take_all(&kept.lists()).unwrap().into_iter().collect()
    }
}

fn serial(number: u8) -> Serial {
    Serial::from_be_bytes(&[1, number])
}

fn serials(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<Serial> {
    numbers.into_iter().map(serial).collect()
}

#[test]
fn an_old_list_with_a_good_signature_takes_nothing_back_from_what_is_kept() {
    let issuer = Issuer::new();
    let (five, three) = (issuer.list(&[5]), issuer.list(&[3]));
    for lists in [[&five, &three], [&three, &five]] {
        let kept = issuer.reader();
        for list in lists {
            assert_eq!(kept.take(list).unwrap().len(), 1);
        }
        assert_eq!(issuer.known(&kept), serials([3, 5]), "both are kept");
        kept.take(&issuer.list(&[])).unwrap();
        assert_eq!(issuer.known(&kept), serials([3, 5]));
        let before = kept.lists();
        kept.take(&five).unwrap();
        assert_eq!(kept.lists(), before, "what says nothing new changes nothing");
        let all = issuer.list(&[3, 4, 5]);
        kept.take(&all).unwrap();
        assert_eq!(kept.lists(), all, "one that has all takes the place of both");
        kept.take(&issuer.list(&[3, 4, 5])).unwrap();
        assert_eq!(kept.lists(), all);
    }
    let nothing = issuer.reader();
    nothing.take(&issuer.list(&[])).unwrap();
    assert!(nothing.lists().is_empty());
}

#[test]
fn a_list_that_others_make_up_for_goes() {
    let issuer = Issuer::new();
    let kept = issuer.reader();
    let lists = [[1, 2, 3], [2, 3, 4], [3, 4, 5]].map(|revoked| issuer.list(&revoked));
    for list in &lists {
        kept.take(list).unwrap();
    }
    assert_eq!(issuer.known(&kept), serials(1..=5));
    assert_eq!(
        kept.lists(),
        [lists[0].as_slice(), &lists[2]].concat(),
        "the others name all that is on the middle one"
    );
}

#[test]
fn lists_beside_each_other_are_bounded_and_those_with_the_oldest_revocations_go_first() {
    let issuer = Issuer::new();
    let kept = issuer.reader();
    let many = u8::try_from(MAX_LISTS).unwrap() + 3;
    for number in (1..=many).rev() {
        kept.take(&issuer.list(&[number])).unwrap();
    }
    assert_eq!(issuer.known(&kept), serials(4..=many));
    kept.take(&issuer.list(&[1])).unwrap();
    assert_eq!(issuer.known(&kept), serials(4..=many));
    assert_eq!(kept.refuses(controller(&issuer.0).der()), None);
}

#[test]
fn of_lists_that_were_kept_the_good_ones_are_taken_whatever_stands_beside_them() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let (good, foreign) = (issuer.list(&[7]), other.list(&[8]));
    for lists in [[&foreign[..], &good], [&good, &foreign], [&good, b"no list"], [&good, &good[..9]]] {
        let reader = issuer.reader();
        assert!(reader.take_all(&lists.concat()).is_err());
        assert_eq!(issuer.known(&reader), serials([7]), "{lists:?}");
        assert!(reader.take(&lists.concat()).is_err(), "one that is sent stands alone");
    }
    assert_eq!(issuer.reader().take_all(&[]), Ok(Vec::new()));
}

fn below(root: &Authority, key: KeyAlgorithm) -> Authority {
    let rng = SystemRandom::new();
    let config = crate::IssuingConfig::new("Example VPN Issuing", key);
    Authority::create_issuing(root, &config, &SealKey::generate(&rng).unwrap(), NOW, &rng).unwrap().0
}

#[test]
fn a_list_of_an_authority_below_the_root_counts_where_the_way_to_the_root_comes_with_it() {
    let (root, rng) = (authority(KeyAlgorithm::EcdsaP256), SystemRandom::new());
    let issuing = below(&root, KeyAlgorithm::Rsa2048);
    let (bad, good) = (controller(&issuing), controller(&issuing));
    let (signed, signer) = (list(&issuing, 1, &[&bad]), issuing.certificate().der().to_vec());
    let reader = || Revocations::trusting(root.certificate().pem().as_bytes()).unwrap();
    let known = reader();
    assert!(known.take(&signed).is_err() && known.take_all(&signed).is_err(), "who signed it?");
    let both = [signer.as_slice(), &signed].concat();
    assert_eq!(known.take_all(&both).unwrap(), std::slice::from_ref(&bad.serial));
    assert_eq!((known.refuses(bad.der()), known.refuses(good.der())), (Some(bad.serial.clone()), None));
    // What is kept says as much, beside a list of the root's.
    let by_root = list(&root, 2, &[&good]);
    known.take(&by_root).unwrap();
    let again = reader();
    assert_eq!(again.take_all(&known.lists()).unwrap().len(), 2);
    assert_eq!(again.lists(), known.lists());
    // Older software takes the root's list of it.
    assert!(RevocationList::verify(&by_root, &[root.certificate().der().to_vec()]).is_ok());
    // Who trusts another root only finds the way over a cross-certificate.
    let config = RootConfig::new("Example", "Example VPN Root 2");
    let other = Authority::create(&config, &SealKey::generate(&rng).unwrap(), NOW, &rng).unwrap().0;
    let reader = Revocations::trusting(other.certificate().pem().as_bytes()).unwrap();
    assert!(reader.take_all(&both).is_err());
    let cross = other.cross_certify(root.certificate(), NOW, &rng).unwrap();
    assert_eq!(reader.take_all(&[cross.der(), &both].concat()).unwrap(), std::slice::from_ref(&bad.serial));
    assert_eq!(reader.take_all(&reader.lists()), Ok(Vec::new()), "and keeps it");
}

#[test]
fn machines_strangers_and_authorities_that_were_taken_back_sign_no_list() {
    let (root, rng) = (authority(KeyAlgorithm::EcdsaP256), SystemRandom::new());
    let (issuing, stranger) = (below(&root, KeyAlgorithm::EcdsaP256), authority(KeyAlgorithm::EcdsaP256));
    let good = controller(&issuing);
    let reader = || Revocations::trusting(root.certificate().pem().as_bytes()).unwrap();
    // A machine's key, under the certificate of an authority and under its own.
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
    let (subject, serial) = (Subject::new("m.example.com", vec![]).unwrap(), Serial::generate(&rng).unwrap());
    let machine = issuing.issue(Profile::Machine, &subject, &key.public_key(), NOW, serial, &rng).unwrap();
    let tbs = issuing
        .prepare_revocation_list(&Contents {
            distribution_points: &[CONTROLLERS],
            number: 1,
            revoked: &[Revoked { serial: good.serial.clone(), at: NOW, reason: Reason::Unspecified }],
            this_update: NOW,
            next_update: UnixTime(NOW.0 + 1),
        })
        .unwrap();
    let forged = crate::authority::attach_signature(&tbs, &[crate::der::INTEGER], &key, &rng).unwrap();
    let of_stranger = below(&stranger, KeyAlgorithm::EcdsaP256);
    let (fine, issuer) = (list(&issuing, 1, &[&good]), issuing.certificate().der());
    for all in [
        [issuer, machine.der(), &forged].concat(),
        [of_stranger.certificate().der(), &list(&of_stranger, 1, &[&good])].concat(),
        [stranger.certificate().der(), &list(&stranger, 1, &[&good])].concat(),
        // Its public list is not about controllers.
        [issuer, &issuing.revocation_list("", 1, &[(good.serial.clone(), NOW)], NOW, &rng).unwrap()].concat(),
        [issuer.repeat(65), fine.clone()].concat(),
    ] {
        let reader = reader();
        assert!(reader.take_all(&all).is_err());
        assert_eq!(reader.refuses(good.der()), None);
    }
    let reader = reader();
    reader.take(&list(&root, 1, &[issuing.certificate()])).unwrap();
    assert!(reader.take_all(&[issuer, &fine].concat()).is_err(), "the root has taken it back");
    assert_eq!(reader.refuses(good.der()), None);
}

#[test]
fn whoever_has_stolen_the_key_of_an_authority_locks_nobody_out_once_the_root_has_said_so() {
    let root = authority(KeyAlgorithm::EcdsaP256);
    let (stolen, other) = (below(&root, KeyAlgorithm::EcdsaP256), below(&root, KeyAlgorithm::EcdsaP256));
    let (gone, good) = (controller(&other), controller(&other));
    let signer = |of: &Authority| of.certificate().der().to_vec();
    let known = std::sync::Arc::new(Revocations::trusting(root.certificate().pem().as_bytes()).unwrap());
    let judge = known.judge("");
    // A controller that was removed, by the honest one. The thief names those that are good, and the other authority.
    known.take_all(&[signer(&other), list(&other, 1, &[&gone])].concat()).unwrap();
    let false_one = [signer(&stolen), list(&stolen, 9, &[&good, other.certificate()])].concat();
    known.take_all(&false_one).unwrap();
    assert!(judge(good.der()).is_err(), "nobody knows better yet");
    assert!(known.judge_authority(other.certificate().der()).is_ok(), "an authority is the root's to take back");
    known.take_all(&[signer(&other), list(&other, 2, &[&gone])].concat()).unwrap();
    // The root says so: what the thief has said is forgotten, and what he says from then on is not heard.
    known.take(&list(&root, 3, &[stolen.certificate()])).unwrap();
    assert!(judge(good.der()).is_ok() && judge(gone.der()).is_err());
    assert!(known.judge_authority(stolen.certificate().der()).is_err());
    assert!(known.judge_authority(other.certificate().der()).is_ok());
    assert!(known.take_all(&false_one).is_err());
    let more: Vec<Certificate> = (0..MAX_LISTS + 4).map(|_| controller(&other)).collect();
    for (at, one) in more.iter().enumerate() {
        // Nor do many lists of an authority push the root's out, or one that says the same take its place.
        let said = [signer(&other), list(&other, 10 + at as u64, &[&gone, one, stolen.certificate()])].concat();
        known.take_all(&said).unwrap();
    }
    let again = std::sync::Arc::new(Revocations::trusting(root.certificate().pem().as_bytes()).unwrap());
    let _ = again.take_all(&known.lists());
    assert!(again.refuses_authority(stolen.certificate().der()).is_some(), "what is kept says so, too");
    assert!(again.take_all(&false_one).is_err() && again.refuses(good.der()).is_none());
}
