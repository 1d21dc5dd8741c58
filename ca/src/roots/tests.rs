use super::*;
use crate::seal::SealKey;
use crate::{Authority, IssuingConfig, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject, SystemRandom};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn root(name: &str) -> Authority {
    let rng = SystemRandom::new();
    Authority::create(&RootConfig::new("Example", name), &SealKey::generate(&rng).unwrap(), NOW, &rng).unwrap().0
}

fn issuing(root: &Authority) -> Authority {
    let rng = SystemRandom::new();
    let config = IssuingConfig::new("Example Issuing", KeyAlgorithm::EcdsaP256);
    Authority::create_issuing(root, &config, &SealKey::generate(&rng).unwrap(), NOW, &rng).unwrap().0
}

fn cross(by: &Authority, of: &Authority) -> Vec<u8> {
    by.cross_certify(of.certificate(), NOW, &SystemRandom::new()).unwrap().der().to_vec()
}

fn der(of: &Authority) -> Vec<u8> {
    of.certificate().der().to_vec()
}

fn trusting(of: &[&Authority]) -> Roots {
    Roots::of(&of.iter().map(|a| der(a)).collect::<Vec<_>>())
}

#[test]
fn a_root_is_learned_by_the_certificate_that_a_trusted_one_gave_it_and_by_nothing_else() {
    let (one, two, stranger) = (root("One"), root("Two"), root("Two"));
    let mut roots = trusting(&[&one]);
    assert_eq!(roots.learn(&[der(&two)], NOW), [], "nobody vouches for it");
    assert_eq!(roots.learn(&[cross(&one, &two)], NOW), [], "the root itself is missing");
    let forged = [der(&stranger), cross(&stranger, &two), cross(&two, &one), der(&two)];
    assert_eq!(roots.learn(&forged, NOW), [], "vouched for by itself and by one whom nobody knows");
    // The name fits, and the key does not.
    assert_eq!(roots.learn(&[der(&stranger), cross(&one, &two)], NOW), []);
    assert_eq!(roots.learn(&[der(&stranger), der(&two), cross(&one, &two)], NOW), [two.certificate().clone()]);
    assert_eq!(roots, trusting(&[&one, &two]));
    assert_eq!(roots.learn(&[der(&two), cross(&one, &two)], NOW), [], "once");
    assert_eq!(Roots::from_pem(roots.pem().as_bytes(), Some(b"")).unwrap(), roots);
}

#[test]
fn a_damaged_signature_vouches_for_nothing() {
    let (one, two) = (root("One"), root("Two"));
    let good = cross(&one, &two);
    for at in [good.len() - 1, good.len() - 20, good.len() / 2] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(trusting(&[&one]).learn(&[der(&two), bad], NOW), [], "octet {at}");
    }
}

#[test]
fn who_may_have_no_authority_below_it_and_who_is_none_vouches_for_nobody() {
    let (one, two, rng) = (root("One"), root("Two"), SystemRandom::new());
    // An issuing authority's path length is 0.
    let below = issuing(&one);
    let by_issuing = below.cross_certify(two.certificate(), NOW, &rng).unwrap().der().to_vec();
    assert_eq!(trusting(&[&one]).learn(&[der(&two), der(&below), by_issuing], NOW), []);
    // A leaf with the next root's key.
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
    let subject = Subject::new("m.example.com", vec![]).unwrap();
    let serial = Serial::generate(&rng).unwrap();
    let leaf = below.issue(Profile::Machine, &subject, &key.public_key(), NOW, serial, &rng).unwrap();
    assert_eq!(trusting(&[&one]).learn(&[leaf.der().to_vec(), der(&below), der(&two)], NOW), []);
    // A "root" that may have none below it, with a certificate of a root that gives it path length 0, too.
    assert_eq!(trusting(&[&one]).learn(&[der(&below), der(&two)], NOW), []);
}

#[test]
fn what_is_not_in_force_vouches_for_nothing() {
    let (one, two) = (root("One"), root("Two"));
    let shown = [der(&two), cross(&one, &two)];
    let (early, late) = (UnixTime(NOW.0 - 86_400), UnixTime(two.certificate().not_after.0 + 1));
    assert_eq!(trusting(&[&one]).learn(&shown, early), []);
    assert_eq!(trusting(&[&one]).learn(&shown, late), []);
    assert_eq!(trusting(&[&one]).learn(&shown, NOW).len(), 1);
}

#[test]
fn several_changes_that_were_missed_are_caught_up_with_and_a_circle_ends() {
    let all = ["A", "B", "C", "D"].map(root);
    let [a, b, c, d] = &all;
    // In an order that takes several rounds, with a circle back to the first.
    let shown = [cross(c, d), der(d), cross(b, c), cross(d, a), cross(a, b), cross(c, b), der(c), der(a), der(b)];
    let mut roots = trusting(&[a]);
    assert_eq!(roots.learn(&shown, NOW).len(), 3);
    assert_eq!(roots.trusted().len(), 4);
    // A circle that nobody who is trusted has a part in.
    let mut other = trusting(&[&root("Other")]);
    assert_eq!(other.learn(&shown, NOW), []);
}

#[test]
fn a_thousand_roots_are_not_looked_at() {
    let (one, two) = (root("One"), root("Two"));
    let mut shown: Vec<_> =
        (0..40).map(|n| root(&format!("Root {n}"))).flat_map(|r| [cross(&one, &r), der(&r)]).collect();
    let mut roots = trusting(&[&one]);
    assert_eq!(roots.learn(&shown, NOW).len(), MAX_TRUSTED - 1, "the key of a root can make many; they are bounded");
    // What lies behind a thousand others is not read.
    let filler = shown.pop().unwrap();
    let mut many = vec![filler; 1_000];
    many.extend([der(&two), cross(&one, &two)]);
    assert_eq!(trusting(&[&one]).learn(&many, NOW), []);
    assert_eq!(trusting(&[&one]).learn(&[vec![0x30; 100_000], Vec::new(), b"x".to_vec()], NOW), []);
}

#[test]
fn a_root_is_given_up_when_most_controllers_trust_it_no_more_and_comes_never_back() {
    let (one, two) = (root("One"), root("Two"));
    let both = trusting(&[&one, &two]);
    let (old, new) = (vec![der(&one), der(&two)], vec![der(&two)]);
    // One hostile controller of three, alone or while others are away.
    assert_eq!(both.without_the_unsaid(std::slice::from_ref(&new), 3), None);
    assert_eq!(both.without_the_unsaid(&[new.clone(), old.clone(), old], 3), None);
    assert_eq!(both.without_the_unsaid(&[new.clone(), new.clone(), Vec::new()], 3), None, "one says nothing");
    assert_eq!(both.without_the_unsaid(&[], 0), None);
    let strange = vec![der(&root("Two"))];
    assert_eq!(both.without_the_unsaid(&[strange.clone(), strange], 3), None, "nothing would be left");
    assert_eq!(both.without_the_unsaid(&[new.clone(), vec![der(&one)]], 2), None, "they do not agree");
    let mut left = both.without_the_unsaid(&[new.clone(), new.clone()], 3).expect("two of three");
    assert_eq!(left.trusted(), [two.certificate().clone()]);
    assert_eq!(left.without_the_unsaid(&[new.clone(), new], 3), None, "nothing changes");
    // The way back is there, by the next root's own hand.
    let back = [cross(&two, &one), der(&one)];
    assert_eq!(left.learn(&back, NOW), []);
    assert!(left.is_gone(&back[0]) && left.is_gone(&back[1]) && !left.is_gone(&der(&two)));
    // Nor does it vouch for another one.
    let three = root("Three");
    assert_eq!(left.learn(&[back[0].clone(), cross(&one, &three), der(&three)], NOW), []);
    let mut kept = Roots::from_pem(left.pem().as_bytes(), Some(left.gone_pem().as_bytes())).unwrap();
    assert_eq!(kept, left);
    assert_eq!(kept.learn(&back, NOW), []);
    // Unless an operator puts it there.
    assert_eq!(Roots::from_pem(both.pem().as_bytes(), Some(left.gone_pem().as_bytes())).unwrap(), both);
}

#[test]
fn another_encoding_of_a_trusted_root_is_no_other_root() {
    let one = root("One");
    let der = der(&one);
    // What no signature covers is behind the part that is signed: the algorithm again, and the signature.
    for at in der.len() - 140..der.len() {
        for bit in 0..8 {
            let mut other = der.clone();
            other[at] ^= 1 << bit;
            let mut roots = trusting(&[&one]);
            assert_eq!(roots.learn(&[other], NOW), [], "octet {at}, bit {bit}");
            assert_eq!(roots.trusted().len(), 1);
        }
    }
}
