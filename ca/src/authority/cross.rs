//! A second certificate for an authority's name and key, by another authority: whoever trusts the other finds the way to what this one
//! has issued (RFC 4210 §4.4 between two roots of ours; a company's root above ours).

use ring::rand::SecureRandom;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use super::{Authority, CERTIFICATE_HEAD, attach_signature, period};
use crate::der::{self, BIT_STRING, CONTEXT_0, OCTET_STRING, SEQUENCE, SET};
use crate::{Certificate, Error, Serial, UnixTime, lint};

/// Issuing authorities below a root, and below what cross-certifies it.
const BELOW: u32 = 1;
/// Certificates of a chain above a root of ours: its own by the other authority, one between, and the other root. With an issuing
/// authority and a machine below it is as long as all clients take.
pub const MAX_ABOVE: usize = 3;
/// id-ce, 2.5.29.
const ID_CE: [u8; 2] = [0x55, 29];
/// extensionRequest, 1.2.840.113549.1.9.14 (RFC 2985 §5.4.2).
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];

fn extension(arc: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    der::encode(SEQUENCE, &[&der::oid(&[ID_CE[0], ID_CE[1], arc]), critical, &der::encode(OCTET_STRING, &[value])])
}

/// basicConstraints with room for issuing authorities; keyUsage keyCertSign and cRLSign; both critical.
fn authority_extensions() -> Vec<u8> {
    let constraints = der::encode(SEQUENCE, &[&[1, 1, 0xff], &der::integer(BELOW as u8)]);
    let usage = der::encode(BIT_STRING, &[&[1, 0b0000_0110]]);
    [extension(19, true, &constraints), extension(15, true, &usage)].concat()
}

impl Authority {
    /// A certificate for the name and key of `other`, a root, by this one; it ends with the sooner of the two. With it, who trusts
    /// this authority only is led to what is below the other, if this one's path length allows it ([`Certificate::path_length`]).
    pub fn cross_certify(
        &self,
        other: &Certificate,
        now: UnixTime,
        rng: &dyn SecureRandom,
    ) -> Result<Certificate, Error> {
        const OUT_OF_RANGE: Error = Error::Validity("beyond the dates that a certificate can hold");
        let Ok(([], parsed)) = X509Certificate::from_der(other.der()) else {
            return Err(Error::Authority("not an X.509 certificate in DER"));
        };
        let constraints = parsed.basic_constraints().ok().flatten();
        if !constraints.is_some_and(|c| c.value.ca && c.value.path_len_constraint != Some(0)) {
            return Err(Error::Authority("it may have no authorities below it"));
        }
        if now < self.certificate.not_before || now >= self.certificate.not_after {
            return Err(Error::AuthorityExpired);
        }
        let facts = lint::Issuer::from_certificate(&parsed);
        let (not_before, not_after) = period(now, super::MAX_ROOT_VALIDITY, Some(&self.certificate))?;
        let not_after = not_after.min(other.not_after);
        if not_before >= not_after {
            return Err(Error::AuthorityExpired);
        }
        let time = |at| der::certificate_time(at).ok_or(OUT_OF_RANGE);
        let validity = [time(not_before)?, time(not_after)?].concat();
        let own_key = der::encode(OCTET_STRING, &[&facts.key_id]);
        let authority_key = der::encode(SEQUENCE, &[&der::encode(0x80, &[&self.facts.key_id])]);
        let extensions = [authority_extensions(), extension(14, false, &own_key), extension(35, false, &authority_key)];
        let tbs = der::encode(
            SEQUENCE,
            &[
                &der::encode(CONTEXT_0, &[&der::integer(2)]),
                &der::unsigned(Serial::generate(rng)?.as_be_bytes()),
                &self.key.signature_algorithm_der(),
                &self.facts.subject,
                &der::encode(SEQUENCE, &[&validity]),
                &facts.subject,
                parsed.public_key().raw,
                &der::encode(0xa3, &[&der::encode(SEQUENCE, &[&extensions.concat()])]),
            ],
        );
        Certificate::from_der(&attach_signature(&tbs, CERTIFICATE_HEAD, &self.key, rng)?)
    }

    /// What the certificates of this authority name as their issuer's key.
    fn own_key_id(&self) -> &[u8] {
        &self.facts.key_id
    }

    /// A request (PKCS #10, DER) for such a certificate, to an authority elsewhere: this one's name and key, and what an authority with
    /// issuing ones below it needs.
    pub fn authority_request(&self, rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        // The key identifier, too: what is below names it already.
        let own_key = extension(14, false, &der::encode(OCTET_STRING, &[self.own_key_id()]));
        let extensions = der::encode(SEQUENCE, &[&authority_extensions(), &own_key]);
        let attribute = [der::oid(EXTENSION_REQUEST), der::encode(SET, &[&extensions])].concat();
        let attributes = der::encode(CONTEXT_0, &[&der::encode(SEQUENCE, &[&attribute])]);
        let public = self.key.public_key();
        let info = der::encode(SEQUENCE, &[&der::integer(0), &self.facts.subject, public.spki_der(), &attributes]);
        let signature = Zeroizing::new(self.key.sign(&info, rng)?);
        let signature = der::encode(BIT_STRING, &[&[0], &signature]);
        Ok(der::encode(SEQUENCE, &[&info, &self.key.signature_algorithm_der(), &signature]))
    }
}

impl Certificate {
    /// How many authorities may follow below this one, if that is limited (RFC 5280 §4.2.1.9).
    pub fn path_length(&self) -> Option<u32> {
        let Ok((_, parsed)) = X509Certificate::from_der(&self.der) else { return Some(0) };
        parsed.basic_constraints().ok().flatten().and_then(|c| c.value.path_len_constraint)
    }

    /// Whether these certificates lead from this root's name and key to another root: the first is for this name and key, each is
    /// signed by the next, the last by itself, all may have authorities below them as deep as it takes, and are in force. Says what
    /// is wrong and whom to ask.
    pub fn stands_below(&self, above: &[Self], now: UnixTime) -> Result<(), String> {
        let Some(first) = above.first() else { return Err("there is no certificate".into()) };
        if above.len() > MAX_ABOVE {
            return Err(format!(
                "{} certificates are too many: at most {MAX_ABOVE}, the last the company's root, since clients take no longer paths",
                above.len()
            ));
        }
        if first.spki_der() != self.spki_der() {
            return Err(format!("the first certificate ({}) is for another key than the request's", first.subject));
        }
        if first.subject_der() != self.subject_der() {
            return Err(format!(
                "the first certificate is for {}, not {}; ask for one with exactly the name in the request",
                first.subject, self.subject
            ));
        }
        for (depth, authority) in above.iter().enumerate() {
            let name = &authority.subject;
            let Ok((_, parsed)) = X509Certificate::from_der(&authority.der) else {
                return Err(format!("{name}: it cannot be read"));
            };
            let constraints = parsed.basic_constraints().ok().flatten().map(|c| c.value);
            if !constraints.is_some_and(|c| c.ca) {
                return Err(format!("{name}: it is no authority's (no CA:TRUE); ask for a subordinate CA"));
            }
            let below = depth + BELOW as usize;
            if let Some(limit) = authority.path_length()
                && (limit as usize) < below
            {
                return Err(format!(
                    "{name}: its path length is {limit}, and there will be {below} authorities below it; ask for {below} or none"
                ));
            }
            let usage = parsed.key_usage().ok().map(|usage| usage.is_none_or(|u| u.value.key_cert_sign()));
            if usage != Some(true) {
                return Err(format!("{name}: its key usage does not allow issuing certificates (keyCertSign)"));
            }
            if now < authority.not_before || now >= authority.not_after {
                return Err(format!("{name}: it is not in force now"));
            }
            match above.get(depth + 1) {
                Some(next) if !authority.is_issued_by(next) => {
                    return Err(format!(
                        "{name}: the next certificate ({}) has not signed it; give them in order",
                        next.subject
                    ));
                }
                None if !authority.is_issued_by(authority) => {
                    return Err(format!("{name}: it is the last and no root; append the company's root"));
                }
                _ => {}
            }
        }
        if first.is_issued_by(self) {
            return Err("the first certificate is this root's own; give the one that the company has signed".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::SealKey;
    use crate::verify::{CertPayload, PeerRole, TrustStore, verify_peer};
    use crate::{IssuingConfig, KeyAlgorithm, KeyPair, Profile, PublicKey, RootConfig, Subject, SystemRandom};

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn root(name: &str, key: KeyAlgorithm) -> Authority {
        let rng = SystemRandom::new();
        let config = RootConfig { key, ..RootConfig::new("Example", name) };
        Authority::create(&config, &SealKey::generate(&rng).unwrap(), NOW, &rng).unwrap().0
    }

    fn below(root: &Authority) -> (Authority, Certificate) {
        let rng = SystemRandom::new();
        let config = IssuingConfig::new("Example Issuing", KeyAlgorithm::EcdsaP256);
        let seal = SealKey::generate(&rng).unwrap();
        let issuing = Authority::create_issuing(root, &config, &seal, NOW, &rng).unwrap().0;
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
        let (subject, serial) = (Subject::new("m.example.com", vec![]).unwrap(), Serial::generate(&rng).unwrap());
        let leaf = issuing.issue(Profile::Machine, &subject, &key.public_key(), NOW, serial, &rng).unwrap();
        (issuing, leaf)
    }

    fn accepts(anchor: &Certificate, path: &[&Certificate]) -> bool {
        let mut trust = TrustStore::new();
        trust.add_anchor_der(anchor.der()).unwrap();
        let shown: Vec<_> = path.iter().map(|c| CertPayload { encoding: 4, data: c.der() }).collect();
        verify_peer(&trust, &shown, None, PeerRole::Machine, NOW).is_ok()
    }

    #[test]
    fn who_trusts_either_root_finds_the_way_to_what_is_below_the_other() {
        use KeyAlgorithm::{EcdsaP256, EcdsaP384, Rsa2048};
        for (old, new) in [(EcdsaP256, EcdsaP384), (Rsa2048, EcdsaP256), (EcdsaP384, Rsa2048)] {
            let rng = SystemRandom::new();
            let (old, new) = (root("Example Root", old), root("Example Root 2", new));
            let forth = old.cross_certify(new.certificate(), NOW, &rng).unwrap();
            let back = new.cross_certify(old.certificate(), NOW, &rng).unwrap();
            assert!(forth.is_issued_by(old.certificate()) && !forth.is_issued_by(new.certificate()));
            assert_eq!(
                (forth.subject_der(), forth.spki_der()),
                (new.certificate().subject_der(), new.certificate().spki_der())
            );
            let ((of_old, old_leaf), (of_new, new_leaf)) = (below(&old), below(&new));
            let (of_old, of_new) = (of_old.certificate(), of_new.certificate());
            for (anchor, leaf, issuing, cross) in
                [(new.certificate(), &old_leaf, of_old, &back), (old.certificate(), &new_leaf, of_new, &forth)]
            {
                assert!(accepts(anchor, &[leaf, issuing, cross]));
                assert!(!accepts(anchor, &[leaf, issuing]), "there is no way without");
            }
            assert!(accepts(new.certificate(), &[&new_leaf, of_new, &forth]), "the cross-certificate does not mislead");
        }
    }

    #[test]
    fn an_authority_that_may_have_none_below_it_is_not_cross_certified() {
        let (one, other) = (root("One", KeyAlgorithm::EcdsaP256), root("Other", KeyAlgorithm::EcdsaP256));
        let issuing = below(&one).0;
        assert!(other.cross_certify(issuing.certificate(), NOW, &SystemRandom::new()).is_err());
        let late = UnixTime(other.certificate().not_after.0 + 1);
        assert!(other.cross_certify(one.certificate(), late, &SystemRandom::new()).is_err());
    }

    #[test]
    fn a_chain_above_a_root_is_held_against_name_key_order_dates_and_path_lengths() {
        let (ours, company) = (root("Ours", KeyAlgorithm::EcdsaP256), root("Company", KeyAlgorithm::Rsa2048));
        let (own, rng) = (ours.certificate(), SystemRandom::new());
        let ours_by_company = company.cross_certify(own, NOW, &rng).unwrap();
        let top = company.certificate().clone();
        assert_eq!(own.stands_below(&[ours_by_company.clone(), top.clone()], NOW), Ok(()));
        let why = |above: &[Certificate], now| own.stands_below(above, now).unwrap_err();
        assert!(why(&[], NOW).contains("no certificate"));
        assert!(why(std::slice::from_ref(&ours_by_company), NOW).contains("append the company's root"));
        assert!(why(&[top.clone(), ours_by_company.clone()], NOW).contains("another key"));
        assert!(why(std::slice::from_ref(own), NOW).contains("own"));
        assert!(why(&[ours_by_company.clone(), own.clone()], NOW).contains("in order"));
        assert!(why(&vec![ours_by_company.clone(); 4], NOW).contains("too many"));
        assert!(why(&[ours_by_company.clone(), top], UnixTime(NOW.0 - 100_000)).contains("in force"));
    }

    #[test]
    fn the_request_names_the_authority_and_is_signed_by_its_key() {
        for key in KeyAlgorithm::ALL.into_iter().filter(|k| *k != KeyAlgorithm::Rsa4096) {
            let root = root("Ours", key);
            let request = root.authority_request(&SystemRandom::new()).unwrap();
            let public = PublicKey::from_csr_der(&request).unwrap();
            assert_eq!(public.spki_der(), root.certificate().spki_der());
            assert!(crate::claimed_name(&request).contains("Ours"));
        }
    }
}
