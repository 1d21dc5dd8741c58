//! Keys of IKEv1: RFC 2409 §5 (SKEYID and its children), §5.5 (KEYMAT), appendix B (encryption of ISAKMP messages).

use sallyport_crypto::cbc::{CbcAlg, CbcCipher};
use sallyport_crypto::hash::{Digest, HashAlg};
use sallyport_crypto::suite::{EspKeys, EspSuite};
use sallyport_crypto::{Zeroizing, ct_eq};

use crate::header::{Cookie, Header, flags};
use crate::message::assemble_raw;
use crate::payload::{ChainWriter, PayloadType, ProtocolId};
use crate::proposal::{AuthMethod, Phase1Transform};

/// An IV of CBC: as long as the cipher's block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Iv {
    bytes: [u8; 16],
    len: u8,
}

impl Iv {
    /// The first block of `from` (a hash is never shorter than a block).
    pub(crate) fn first(alg: CbcAlg, from: &[u8]) -> Self {
        Self::of(from.get(..alg.block_len()).unwrap_or(from))
    }

    /// The last block of a ciphertext.
    fn last(alg: CbcAlg, from: &[u8]) -> Self {
        Self::of(from.get(from.len().saturating_sub(alg.block_len())..).unwrap_or(from))
    }

    fn of(block: &[u8]) -> Self {
        let mut iv = Self::default();
        for (to, from) in iv.bytes.iter_mut().zip(block) {
            *to = *from;
            iv.len += 1;
        }
        iv
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// SKEYID of a pre-shared key: `prf(psk, Ni_b | Nr_b)`.
pub(crate) fn skeyid_psk(hash: HashAlg, psk: &[u8], nonce_i: &[u8], nonce_r: &[u8]) -> Digest {
    hash.hmac(psk, &[nonce_i, nonce_r])
}

/// SKEYID of signatures: `prf(Ni_b | Nr_b, g^xy)`.
pub(crate) fn skeyid_signature(hash: HashAlg, nonce_i: &[u8], nonce_r: &[u8], g_xy: &[u8]) -> Digest {
    let key = [nonce_i, nonce_r].concat();
    hash.hmac(&key, &[g_xy])
}

/// The keys of an ISAKMP SA. Wiped on drop, never printed.
#[derive(Clone)]
pub(crate) struct Keys {
    prf: HashAlg,
    cipher: CbcAlg,
    skeyid_d: Digest,
    skeyid_a: Digest,
    /// The encryption key, cut from SKEYID_e or stretched (appendix B).
    ka: Zeroizing<Vec<u8>>,
}

impl core::fmt::Debug for Keys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Keys({}, {})", self.prf, self.cipher)
    }
}

impl Keys {
    /// SKEYID_d, SKEYID_a and the encryption key.
    pub(crate) fn derive(t: &Phase1Transform, skeyid: &Digest, g_xy: &[u8], cky_i: Cookie, cky_r: Cookie) -> Self {
        let prf = t.hash;
        let skeyid_d = prf.hmac(skeyid, &[g_xy, &cky_i.0, &cky_r.0, &[0]]);
        let skeyid_a = prf.hmac(skeyid, &[&skeyid_d, g_xy, &cky_i.0, &cky_r.0, &[1]]);
        let skeyid_e = prf.hmac(skeyid, &[&skeyid_a, g_xy, &cky_i.0, &cky_r.0, &[2]]);
        let ka = stretch(prf, &skeyid_e, t.cipher.key_len());
        Self { prf, cipher: t.cipher, skeyid_d, skeyid_a, ka }
    }

    /// `prf(SKEYID_a, parts)`: the HASH payloads of phase 2.
    pub(crate) fn authenticate(&self, parts: &[&[u8]]) -> Digest {
        self.prf.hmac(&self.skeyid_a, parts)
    }

    /// IV of the first message of a phase 2 exchange: hash of the last block of phase 1 and the message ID.
    pub(crate) fn phase2_iv(&self, last_block: &Iv, message_id: u32) -> Iv {
        Iv::first(self.cipher, &self.prf.digest(&[last_block.as_slice(), &message_id.to_be_bytes()]))
    }

    /// Encrypts a chain and puts it behind `header`. Gives the message and the IV that follows.
    pub(crate) fn seal(&self, iv: &Iv, mut header: Header, chain: &ChainWriter) -> (Vec<u8>, Iv) {
        let block = self.cipher.block_len();
        let mut body = Zeroizing::new(chain.as_slice().to_vec());
        let padded = body.len().next_multiple_of(block);
        body.resize(padded, 0);
        header.flags |= flags::ENCRYPTION;
        header.next_payload = chain.first();
        // Lengths of key, IV and blocks are right by construction; a body left in the clear would be worse than a panic,
        // so a failure (which cannot be) sends nothing that was meant to be secret.
        let sealed = CbcCipher::new(self.cipher, &self.ka).and_then(|c| c.encrypt(iv.as_slice(), &mut body));
        if sealed.is_err() {
            body.clear();
        }
        let next = Iv::last(self.cipher, &body);
        (assemble_raw(header, &body), next)
    }

    /// Decrypts what is behind a header. Gives the plaintext and the IV that follows, or nothing if it is not whole
    /// blocks.
    pub(crate) fn open(&self, iv: &Iv, body: &[u8]) -> Option<(Zeroizing<Vec<u8>>, Iv)> {
        if body.is_empty() {
            return None;
        }
        let mut plain = Zeroizing::new(body.to_vec());
        CbcCipher::new(self.cipher, &self.ka).ok()?.decrypt(iv.as_slice(), &mut plain).ok()?;
        Some((plain, Iv::last(self.cipher, body)))
    }

    /// HASH(1) of quick mode and HASH of informational: `prf(SKEYID_a, M-ID | message behind HASH)`.
    pub(crate) fn hash_1(&self, message_id: u32, rest: &[u8]) -> Digest {
        self.authenticate(&[&message_id.to_be_bytes(), rest])
    }

    /// HASH(2): `prf(SKEYID_a, M-ID | Ni_b | message behind HASH)`.
    pub(crate) fn hash_2(&self, message_id: u32, nonce_i: &[u8], rest: &[u8]) -> Digest {
        self.authenticate(&[&message_id.to_be_bytes(), nonce_i, rest])
    }

    /// HASH(3): `prf(SKEYID_a, 0 | M-ID | Ni_b | Nr_b)`.
    pub(crate) fn hash_3(&self, message_id: u32, nonce_i: &[u8], nonce_r: &[u8]) -> Digest {
        self.authenticate(&[&[0], &message_id.to_be_bytes(), nonce_i, nonce_r])
    }

    /// KEYMAT of one direction, RFC 2409 §5.5: `prf(SKEYID_d, [g(qm)^xy |] protocol | SPI | Ni_b | Nr_b)`, stretched.
    pub(crate) fn esp_keys(
        &self,
        suite: EspSuite,
        spi: u32,
        nonce_i: &[u8],
        nonce_r: &[u8],
        g_qm_xy: Option<&[u8]>,
    ) -> Option<EspKeys> {
        let spi = spi.to_be_bytes();
        let seed = [g_qm_xy.unwrap_or_default(), &[ProtocolId::ESP.0], &spi, nonce_i, nonce_r];
        let mut keymat = Zeroizing::new(Vec::with_capacity(suite.keymat_len() + 64));
        let mut k = self.prf.hmac(&self.skeyid_d, &seed);
        keymat.extend_from_slice(&k);
        while keymat.len() < suite.keymat_len() {
            k = self.prf.hmac(&self.skeyid_d, &[&[&k[..]], &seed[..]].concat());
            keymat.extend_from_slice(&k);
        }
        suite.split_keymat(keymat.get(..suite.keymat_len())?)
    }
}

/// Appendix B: a key longer than SKEYID_e is `K1 | K2 | ...`, `K1 = prf(SKEYID_e, 0)`, `K2 = prf(SKEYID_e, K1)`.
fn stretch(prf: HashAlg, skeyid_e: &[u8], len: usize) -> Zeroizing<Vec<u8>> {
    if let Some(cut) = skeyid_e.get(..len) {
        return Zeroizing::new(cut.to_vec());
    }
    let mut out = Zeroizing::new(Vec::with_capacity(len + 64));
    let mut k = prf.hmac(skeyid_e, &[&[0]]);
    out.extend_from_slice(&k);
    while out.len() < len {
        k = prf.hmac(skeyid_e, &[&k]);
        out.extend_from_slice(&k);
    }
    out.truncate(len);
    out
}

/// What HASH_I and HASH_R are made of.
#[derive(Clone, Copy)]
pub(crate) struct Phase1Hash<'a> {
    pub(crate) transform: &'a Phase1Transform,
    pub(crate) skeyid: &'a Digest,
    pub(crate) cky_i: Cookie,
    pub(crate) cky_r: Cookie,
    pub(crate) g_xi: &'a [u8],
    pub(crate) g_xr: &'a [u8],
    /// Body of the SA payload of message 1.
    pub(crate) sa_i: &'a [u8],
}

impl Phase1Hash<'_> {
    fn prf(&self) -> HashAlg {
        match self.transform.method {
            AuthMethod::PreSharedKey => self.transform.hash,
            // RFC 4754: an ECDSA method has its own hash; the key is still the SKEYID of the negotiated one.
            AuthMethod::Signature(s) => s.hash(self.transform.hash),
        }
    }

    /// `prf(SKEYID, g^xi | g^xr | CKY-I | CKY-R | SAi_b | IDii_b)`.
    pub(crate) fn hash_i(&self, id_body: &[u8]) -> Digest {
        let parts = [self.g_xi, self.g_xr, &self.cky_i.0, &self.cky_r.0, self.sa_i, id_body];
        self.prf().hmac(self.skeyid, &parts)
    }

    /// `prf(SKEYID, g^xr | g^xi | CKY-R | CKY-I | SAi_b | IDir_b)`.
    pub(crate) fn hash_r(&self, id_body: &[u8]) -> Digest {
        let parts = [self.g_xr, self.g_xi, &self.cky_r.0, &self.cky_i.0, self.sa_i, id_body];
        self.prf().hmac(self.skeyid, &parts)
    }
}

/// First IV of phase 1: hash of both public values.
pub(crate) fn phase1_iv(t: &Phase1Transform, g_xi: &[u8], g_xr: &[u8]) -> Iv {
    Iv::first(t.cipher, &t.hash.digest(&[g_xi, g_xr]))
}

/// A phase 2 message whose HASH payload comes first: checks it and gives the bytes behind it.
///
/// `used` is how much of `plain` the payloads take: what follows is padding and not hashed.
pub(crate) fn behind_hash(plain: &[u8], used: usize, hash_len: usize) -> Option<&[u8]> {
    plain.get(4 + hash_len..used)
}

/// Puts a HASH payload in front of `rest`, whose first payload is `first`.
pub(crate) fn prepend_hash(hash: &[u8], rest: &ChainWriter) -> ChainWriter {
    ChainWriter::with_leading(PayloadType::HASH, hash, rest)
}

/// Whether `hash` is what the peer sent.
pub(crate) fn hash_matches(hash: &Digest, sent: &[u8]) -> bool {
    ct_eq(hash, sent)
}

#[cfg(test)]
mod tests;
