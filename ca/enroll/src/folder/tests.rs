use std::time::Duration;

use sallyport_ca::seal::SealKey;
use sallyport_ca::{Authority, Profile, RootConfig, Serial, Subject, SystemRandom, UnixTime};

use super::*;
use crate::FileKey;

const NOW: UnixTime = UnixTime(1_800_000_000);

struct Office(Authority);

impl Office {
    fn new() -> Self {
        let rng = SystemRandom::new();
        let seal = SealKey::generate(&rng).unwrap();
        Self(Authority::create(&RootConfig::new("Example", "Root"), &seal, NOW, &rng).unwrap().0)
    }

    fn issue(&self, pending: &Pending) -> Issued {
        let (rng, subject) = (SystemRandom::new(), Subject::new("laptop7.example.com", vec![]).unwrap());
        let (key, serial) = (PublicKey::from_csr_der(&pending.csr).unwrap(), Serial::generate(&rng).unwrap());
        let life = Duration::from_secs(86_400);
        let prepared = self.0.prepare(Profile::Machine, &subject, &key, NOW, life, serial).unwrap();
        Issued { leaf: self.0.sign(&prepared, &rng).unwrap(), middle: Vec::new() }
    }

    fn roots(&self) -> Vec<Vec<u8>> {
        vec![self.0.certificate().der().to_vec()]
    }
}

fn begin(folder: &Folder) -> Pending {
    folder.begin((None, KeyAlgorithm::EcdsaP256), "laptop7.example.com", &SystemRandom::new()).unwrap()
}

#[test]
fn a_crash_between_any_two_steps_leaves_one_whole_pair_in_force() {
    for steps in 0..=4 {
        let (temp, office) = (tempfile::tempdir().unwrap(), Office::new());
        let dir = temp.path().join("enroll");
        let folder = Folder::open(&dir).unwrap();
        let first = office.issue(&begin(&folder));
        folder.complete(&first, &office.roots()).unwrap();
        let pending = begin(&folder);
        let second = office.issue(&pending);
        let mut number = 0;
        for step in 0..steps {
            match step {
                0 => folder.fill_pending(&second, &office.roots()).unwrap(),
                1 => number = folder.promote().unwrap(),
                2 => folder.point(number).unwrap(),
                _ => folder.prune(number).unwrap(),
            }
        }
        drop(folder);

        let folder = Folder::open(&dir).unwrap();
        let identity = folder.identity().unwrap().unwrap();
        let expected = if steps < 2 { &first.leaf } else { &second.leaf };
        assert_eq!(&identity.certificate, expected, "after {steps} steps");
        assert_eq!(Identity::read(&dir).unwrap().certificate, identity.certificate, "after {steps} steps");
        match steps {
            0 | 1 => assert_eq!(begin(&folder).csr, pending.csr),
            _ => assert!(!dir.join("pending").exists()),
        }
        let third = office.issue(&begin(&folder));
        folder.complete(&third, &office.roots()).unwrap();
        assert_eq!(Identity::read(&dir).unwrap().certificate, third.leaf, "after {steps} steps");
    }
}

#[test]
fn a_key_is_on_disk_before_its_request_is_known_and_is_used_until_it_is_answered() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("enroll");
    let folder = Folder::open(&dir).unwrap();
    // A crash while the key was written.
    fs::create_dir(dir.join(".pending.new")).unwrap();
    fs::write(dir.join(".pending.new/key.pem"), "half").unwrap();
    drop(folder);
    let folder = Folder::open(&dir).unwrap();
    let pending = begin(&folder);
    assert_eq!(
        FileKey::from_pem(&fs::read(dir.join("pending/key.pem")).unwrap()).unwrap().public_key(),
        pending.key.public_key()
    );
    assert_eq!(begin(&folder).csr, pending.csr);
    // Of another kind, or not whole: then there is a new one.
    let rng = SystemRandom::new();
    let other = folder.begin((None, KeyAlgorithm::EcdsaP384), "x", &rng).unwrap();
    assert_eq!(other.key.public_key().algorithm(), KeyAlgorithm::EcdsaP384);
    for (file, content) in [("key.pem", "junk"), ("request.der", "junk")] {
        let before = begin(&folder);
        fs::write(dir.join("pending").join(file), content).unwrap();
        assert_ne!(begin(&folder).csr, before.csr);
    }
}

#[test]
fn a_certificate_of_another_key_is_no_identity() {
    let (temp, office) = (tempfile::tempdir().unwrap(), Office::new());
    let folder = Folder::open(&temp.path().join("enroll")).unwrap();
    let issued = office.issue(&begin(&folder));
    folder.complete(&issued, &office.roots()).unwrap();
    let key = FileKey::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).unwrap();
    fs::write(folder.path().join("current/key.pem"), key.pem().as_bytes()).unwrap();
    let error = folder.identity().err().unwrap();
    assert!(error.cause.contains("another key"), "{error}");
}

#[test]
fn settings_that_cannot_be_read_are_named() {
    let temp = tempfile::tempdir().unwrap();
    let folder = Folder::open(&temp.path().join("enroll")).unwrap();
    assert_eq!(folder.settings().unwrap(), None);
    fs::write(folder.path().join("enrollment.toml"), "server = 3\n").unwrap();
    assert!(folder.settings().err().unwrap().cause.contains("enrollment.toml"));
}
