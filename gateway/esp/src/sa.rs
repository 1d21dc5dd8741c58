//! What both directions of an SA share: configuration, limits, counters, keys made ready.

use sallyport_crypto::CipherError;
use sallyport_crypto::cbc::{CbcAlg, CbcDecryptor, CbcEncryptor};
use sallyport_crypto::gcm::GcmCipher;
use sallyport_crypto::hash::Hmac;
use sallyport_crypto::suite::{EspKeys, EspSuite};

use crate::EspDrop;

/// How much an SA may carry (RFC 4301 §4.4.2.1). `u64::MAX` is no limit. Seconds are the control plane's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaLimits {
    /// Packets after which the SA should be replaced.
    pub soft_packets: u64,
    /// Packets after which nothing passes any more. The sequence number ends at 2³² − 1 in any case.
    pub hard_packets: u64,
    /// Payload bytes after which the SA should be replaced.
    pub soft_bytes: u64,
    /// Payload bytes after which nothing passes any more.
    pub hard_bytes: u64,
}

/// Bytes that 3DES may carry under one key: 2²⁹ blocks, where two of them are equal with a chance of 1 in 128.
/// (Sweet32, CVE-2016-2183: equal blocks reveal the XOR of two plaintexts.)
const TRIPLE_DES_BYTES: u64 = 1 << 32;

impl SaLimits {
    /// What the suite itself can bear: sequence numbers of 32 bits, and 4 GiB under 3DES. The soft limits stand at
    /// 7/8 of the hard ones.
    #[must_use]
    pub const fn of(suite: EspSuite) -> Self {
        let hard_packets = u32::MAX as u64;
        let hard_bytes = match suite.cipher().cbc() {
            Some(CbcAlg::TripleDes) => TRIPLE_DES_BYTES,
            _ => u64::MAX,
        };
        Self {
            soft_packets: hard_packets - hard_packets / 8,
            hard_packets,
            soft_bytes: if hard_bytes == u64::MAX { u64::MAX } else { hard_bytes - hard_bytes / 8 },
            hard_bytes,
        }
    }

    /// These limits, and no bytes beyond a negotiated lifetime in kilobytes (RFC 2407 §4.5, SA Life Type 2); the soft
    /// one at 7/8 of it. Zero is no lifetime.
    #[must_use]
    pub fn within_kilobytes(mut self, kilobytes: u64) -> Self {
        if kilobytes != 0 {
            let bytes = kilobytes.saturating_mul(1024);
            self.hard_bytes = self.hard_bytes.min(bytes);
            self.soft_bytes = self.soft_bytes.min(self.hard_bytes - self.hard_bytes / 8);
        }
        self
    }
}

/// How far an SA's life in packets and bytes has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifetime {
    /// Below every limit.
    Fresh,
    /// Past a soft limit: it works, and should be replaced.
    Expiring,
    /// Past a hard limit: everything is dropped.
    Expired,
}

/// What an SA has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets that got through.
    pub packets: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
    /// Packets whose ICV did not match.
    pub bad_icv: u64,
    /// Packets that were seen before or came too late.
    pub replayed: u64,
    /// Packets dropped for any other reason, dummies included.
    pub dropped: u64,
}

impl Stats {
    pub(crate) fn count(&mut self, result: Result<usize, EspDrop>) {
        match result {
            Ok(bytes) => {
                self.packets += 1;
                self.bytes += bytes as u64;
            }
            Err(EspDrop::BadIcv) => self.bad_icv += 1,
            Err(EspDrop::Replayed | EspDrop::TooOld) => self.replayed += 1,
            Err(_) => self.dropped += 1,
        }
    }

    pub(crate) const fn lifetime(&self, limits: &SaLimits) -> Lifetime {
        if self.packets >= limits.hard_packets || self.bytes >= limits.hard_bytes {
            Lifetime::Expired
        } else if self.packets >= limits.soft_packets || self.bytes >= limits.soft_bytes {
            Lifetime::Expiring
        } else {
            Lifetime::Fresh
        }
    }
}

/// One direction of an SA, as the key exchange or a checkpoint gives it.
#[derive(Clone, Debug)]
pub struct SaConfig {
    /// The receiver's name for the SA.
    pub spi: u32,
    /// Suite and keys.
    pub keys: EspKeys,
    /// Limits in packets and bytes.
    pub limits: SaLimits,
    /// High 16 bits of the IV of GCM. Each owner of the same outbound key must have another one: then no two of them
    /// can ever use a nonce twice, whatever they remember of each other.
    pub epoch: u16,
    /// Sequence numbers up to this one are taken: outbound starts behind it, inbound accepts nothing up to it. Zero
    /// for a new SA.
    pub seq: u32,
    /// Whether the padding must be 1, 2, 3 ... (RFC 4303 §2.4). Switch it off for peers that pad otherwise; the ICV
    /// protects the padding either way.
    pub strict_padding: bool,
}

impl SaConfig {
    /// A new SA with the limits of its suite.
    #[must_use]
    pub fn new(spi: u32, keys: EspKeys) -> Self {
        Self { spi, limits: SaLimits::of(keys.suite()), keys, epoch: 0, seq: 0, strict_padding: true }
    }
}

/// GCM made ready, for either direction.
pub(crate) struct Gcm {
    cipher: GcmCipher,
    salt: [u8; 4],
}

impl Gcm {
    fn new(keys: &EspKeys) -> Option<Result<Self, CipherError>> {
        let alg = keys.suite().cipher().gcm()?;
        Some(GcmCipher::new(alg, keys.encr_key()).map(|cipher| Self { cipher, salt: keys.salt() }))
    }

    /// RFC 4106 §4: salt, then the IV of the packet.
    fn nonce(&self, iv: [u8; 8]) -> [u8; 12] {
        let ([s0, s1, s2, s3], [i0, i1, i2, i3, i4, i5, i6, i7]) = (self.salt, iv);
        [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]
    }

    /// `aad` is SPI and sequence number (RFC 4106 §5).
    pub(crate) fn seal(&self, iv: [u8; 8], aad: &[u8], plain: &mut [u8]) -> Option<[u8; 16]> {
        self.cipher.seal_in_place(self.nonce(iv), aad, plain).ok()
    }

    /// `sealed` is ciphertext and tag; the plaintext takes the ciphertext's place.
    pub(crate) fn open(&self, iv: [u8; 8], aad: &[u8], sealed: &mut [u8]) -> bool {
        self.cipher.open_in_place(self.nonce(iv), aad, sealed).is_ok()
    }
}

/// The keys of an inbound SA made ready. Inline: the packet path touches all of it.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Opener {
    Gcm(Gcm),
    Cbc { hmac: Hmac, cipher: CbcDecryptor },
}

impl Opener {
    pub(crate) fn new(keys: &EspKeys) -> Self {
        match (Gcm::new(keys), keys.suite().cipher().cbc(), keys.suite().integ()) {
            (Some(Ok(gcm)), _, _) => Self::Gcm(gcm),
            (None, Some(alg), Some(integ)) => match CbcDecryptor::new(alg, keys.encr_key()) {
                Ok(cipher) => Self::Cbc { hmac: Hmac::new(integ.hash(), keys.integ_key()), cipher },
                Err(e) => unreachable!("EspKeys have the lengths of their suite: {e}"),
            },
            _ => unreachable!("EspSuite is GCM, or CBC with integrity; EspKeys have its lengths"),
        }
    }
}

/// The keys of an outbound SA made ready.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Sealer {
    Gcm(Gcm),
    Cbc { hmac: Hmac, cipher: CbcEncryptor },
}

impl Sealer {
    pub(crate) fn new(keys: &EspKeys) -> Self {
        match (Gcm::new(keys), keys.suite().cipher().cbc(), keys.suite().integ()) {
            (Some(Ok(gcm)), _, _) => Self::Gcm(gcm),
            (None, Some(alg), Some(integ)) => match CbcEncryptor::new(alg, keys.encr_key()) {
                Ok(cipher) => Self::Cbc { hmac: Hmac::new(integ.hash(), keys.integ_key()), cipher },
                Err(e) => unreachable!("EspKeys have the lengths of their suite: {e}"),
            },
            _ => unreachable!("EspSuite is GCM, or CBC with integrity; EspKeys have its lengths"),
        }
    }
}
