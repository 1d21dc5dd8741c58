//! How members know each other where a certificate does not tell.
//!
//! The record of a member that joined lately may be missing in the state of one that was away meanwhile; and the certificates
//! that a cluster made after its last backup are unknown to the cluster that was restored from it, while their owners may still
//! run, and look for it where it is. So each message of Raft carries a proof that its sender holds the seal key of the cluster
//! as it began: HMAC-SHA-256 under a key derived from the seal key, over the cluster's id, the time at which it was restored,
//! sender and receiver. It is no secret between members: TLS keeps it from others.

use ring::hmac;

use super::member::MemberFile;
use crate::seal::Sealer;

/// What makes and checks proofs.
pub(crate) struct Pass {
    key: hmac::Key,
    /// Which cluster, as bytes.
    cluster: Vec<u8>,
}

impl Pass {
    /// The pass of a member.
    pub(crate) fn new(sealer: &Sealer, member: &MemberFile) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*sealer.key_among_members());
        let length = (member.cluster.len() as u64).to_be_bytes();
        Self { key, cluster: [length.as_slice(), &member.cluster, &member.begun_ms.to_be_bytes()].concat() }
    }

    fn message(&self, source: u64, target: u64) -> Vec<u8> {
        [self.cluster.as_slice(), &source.to_be_bytes(), &target.to_be_bytes()].concat()
    }

    /// Proves to `target` that `source` is of this cluster.
    pub(crate) fn proof(&self, source: u64, target: u64) -> Vec<u8> {
        hmac::sign(&self.key, &self.message(source, target)).as_ref().to_vec()
    }

    /// Whether that is proven.
    pub(crate) fn proves(&self, source: u64, target: u64, proof: &[u8]) -> bool {
        hmac::verify(&self.key, &self.message(source, target), proof).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use sallyport_ca::seal::SealKey;

    use super::*;
    use crate::config::UnsealConfig;

    fn pass(seal_key: u8, cluster: u8, begun_ms: u64) -> Pass {
        let dir = tempfile::tempdir().expect("temporary folder");
        let key = SealKey::from_bytes(&[seal_key; 32]);
        let sealer = Sealer::adopt(dir.path(), &UnsealConfig::default(), key).expect("adopts");
        Pass::new(&sealer, &MemberFile { cluster: vec![cluster; 16], begun_ms, id: 1, members: Vec::new() })
    }

    #[test]
    fn a_proof_is_for_one_receiver_in_one_life_of_one_cluster() {
        let proof = pass(1, 2, 3).proof(7, 8);
        assert!(pass(1, 2, 3).proves(7, 8, &proof));
        for (other, source, target) in [
            (pass(9, 2, 3), 7, 8),
            (pass(1, 9, 3), 7, 8),
            (pass(1, 2, 9), 7, 8),
            (pass(1, 2, 3), 9, 8),
            (pass(1, 2, 3), 7, 9),
            (pass(1, 2, 3), 8, 7),
        ] {
            assert!(!other.proves(source, target, &proof));
        }
        assert!(!pass(1, 2, 3).proves(7, 8, &[]));
    }
}
