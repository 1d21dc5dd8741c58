//! Sallyport's certificate authority, and the check of other people's certificates, as a library: no sockets, no files,
//! no clock. Time comes in as [`UnixTime`], randomness as a [`SecureRandom`].
//!
//! * [`Authority`] makes the enterprise root and issuing authorities below it, and issues from them. What a certificate contains is decided by its
//!   [`Profile`] and by the [`Subject`] that the caller's records name; of a certification request only the public key
//!   and the proof of possession count ([`PublicKey::from_csr_der`]).
//! * [`crl`] says what it has taken back, signed; [`ocsp`] says it of one certificate.
//! * [`seal`] keeps keys and other secrets at rest; [`shares`] divides one among people, for the key that leaves the cluster.
//! * [`merkle`] is the tree over an audit log: proofs, signed heads, and the witness that holds a log to them.
//! * [`request`], [`est`], [`scep`] and [`cms`] are the messages of enrollment: read from strangers, written for every client.
//! * [`renewal`] says when a certificate is renewed, and when somebody should look why it was not.
//! * [`verify`] validates what an IKE peer presents (RFC 5280 §6, RFC 4945) and says in words what is wrong with it.
//!
//! ```
//! use sallyport_ca::*;
//! let (rng, now) = (SystemRandom::new(), UnixTime(1_800_000_000));
//! let seal_key = seal::SealKey::generate(&rng).unwrap();
//! let (authority, sealed_key) = Authority::create(&RootConfig::new("Example", "Example VPN Root"), &seal_key, now, &rng).unwrap();
//! let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
//! let subject = Subject::new("laptop7.example.com", vec![]).unwrap();
//! let serial = Serial::generate(&rng).unwrap();
//! let machine = authority.issue(Profile::Machine, &subject, &key.public_key(), now, serial, &rng).unwrap();
//! let again = Authority::open(&sealed_key, &seal_key, authority.certificate().der()).unwrap();
//!
//! let mut trust = verify::TrustStore::new();
//! trust.add_anchor_der(again.certificate().der()).unwrap();
//! let received = [verify::CertPayload { encoding: 4, data: machine.der() }];
//! let id = verify::IkeId { id_type: 2, data: b"laptop7.example.com" };
//! let peer = verify::verify_peer(&trust, &received, Some(id), verify::PeerRole::Machine, now).unwrap();
//! assert_eq!(peer.serial, machine.serial);
//! ```

mod authority;
mod certificate;
pub mod cms;
mod constraints;
pub mod crl;
mod der;
mod error;
pub mod est;
mod hash;
mod key;
mod lint;
pub mod merkle;
mod name;
pub mod ocsp;
mod outside;
pub mod pem;
pub mod pkcs12;
mod profile;
pub mod renewal;
pub mod request;
pub mod roots;
pub mod scep;
pub mod seal;
pub mod shares;
mod token;
pub mod verify;
mod weak;

pub use authority::{
    Authority, DEFAULT_ISSUING_VALIDITY, DEFAULT_ROOT_VALIDITY, IssuingConfig, MAX_ABOVE, MAX_OCSP_SIGNER_VALIDITY,
    MAX_RA_VALIDITY, Prepared, RecordedService, RevocationUrls, RootConfig, Service,
};
pub use certificate::{Certificate, Fingerprint, Serial};
pub use constraints::{MAX_CONSTRAINTS, NameConstraints, Outside, Subtree};
pub use error::Error;
pub use key::{KeyAlgorithm, KeyPair, PublicKey};
pub use lint::{Lint, Recorded};
pub use name::{AltName, Subject, check_dns_name, text_of_name};
pub use outside::ecdsa_der;
pub use profile::Profile;
pub use request::claimed_name;
pub use ring::rand::{SecureRandom, SystemRandom};
pub use sallyport_base::UnixTime;
pub use token::EnrollToken;
