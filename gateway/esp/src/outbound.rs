//! Sealing packets: RFC 4303 §3.3.

use core::fmt;
use core::ops::Range;

use sallyport_crypto::Rng;
use sallyport_crypto::cbc::IvCipher;
use sallyport_crypto::suite::EspSuite;

use crate::packet::{HEADER_LEN, PADDING, TRAILER_LEN, pad_len};
use crate::sa::Sealer;
use crate::{EspDrop, Lifetime, Packet, SaConfig, SaLimits, Stats};

/// The sending half of an SA: keys made ready, sequence number, counters. Single writer, no locks.
pub struct OutboundSa {
    /// The last sequence number that was used. 64 bits wide so that extended ones fit.
    seq: u64,
    stats: Stats,
    limits: SaLimits,
    spi: u32,
    suite: EspSuite,
    epoch: u16,
    sealer: Sealer,
    iv_cipher: IvCipher,
}

impl OutboundSa {
    /// Makes the keys ready. `rng` makes the IVs of CBC unpredictable; GCM needs none.
    #[must_use]
    pub fn new(config: &SaConfig, rng: &mut Rng) -> Self {
        Self {
            seq: config.seq.into(),
            stats: Stats::default(),
            limits: config.limits,
            spi: config.spi,
            suite: config.keys.suite(),
            epoch: config.epoch,
            sealer: Sealer::new(&config.keys),
            iv_cipher: IvCipher::generate(rng),
        }
    }

    /// The SPI that the peer listens on.
    #[must_use]
    pub const fn spi(&self) -> u32 {
        self.spi
    }

    /// Cipher and integrity algorithm.
    #[must_use]
    pub const fn suite(&self) -> EspSuite {
        self.suite
    }

    /// What it has done.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How far its life has gone in packets, bytes and sequence numbers.
    #[must_use]
    pub const fn lifetime(&self) -> Lifetime {
        let counted = self.stats.lifetime(&self.limits);
        let spent = if self.seq >= u32::MAX as u64 {
            Lifetime::Expired
        } else if self.seq >= SOFT_SEQ {
            Lifetime::Expiring
        } else {
            Lifetime::Fresh
        };
        if spent as u8 > counted as u8 { spent } else { counted }
    }

    /// The last sequence number that was used.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Encrypts and signs `buf[payload]` in place as IP protocol `next_header`; returns where in `buf` the packet lies.
    ///
    /// It needs up to [`HEAD_ROOM`](crate::HEAD_ROOM) bytes before and [`TAIL_ROOM`](crate::TAIL_ROOM) bytes behind the
    /// payload. After an error nothing was sent: no sequence number is spent, `buf` is as it was.
    pub fn seal(&mut self, buf: &mut [u8], payload: Range<usize>, next_header: u8) -> Result<Range<usize>, EspDrop> {
        let n = payload.len();
        let result = self.seal_uncounted(buf, payload, next_header);
        self.stats.count(result.as_ref().map(|_| n).map_err(|e| *e));
        result
    }

    /// Seals each packet of a batch. Returns how many got through.
    ///
    /// What went wrong with the others stands in [`Packet::outcome`]. Packets that have failed before are left alone.
    pub fn seal_batch(&mut self, packets: &mut [Packet<'_>]) -> usize {
        packets.iter_mut().map(|packet| usize::from(packet.seal_with(self))).sum()
    }

    fn seal_uncounted(
        &mut self,
        buf: &mut [u8],
        payload: Range<usize>,
        next_header: u8,
    ) -> Result<Range<usize>, EspDrop> {
        if self.seq >= u64::from(u32::MAX) {
            return Err(EspDrop::SequenceExhausted);
        }
        if self.lifetime() == Lifetime::Expired {
            return Err(EspDrop::Expired);
        }
        let seq = self.seq + 1;
        let iv = match self.sealer {
            // Unique is all that GCM asks for: sequence numbers never repeat, and the epoch tells owners apart.
            Sealer::Gcm(_) => {
                let [e0, e1] = self.epoch.to_be_bytes();
                let [_, _, s2, s3, s4, s5, s6, s7] = seq.to_be_bytes();
                [e0, e1, s2, s3, s4, s5, s6, s7, 0, 0, 0, 0, 0, 0, 0, 0]
            }
            Sealer::Cbc { .. } => self.iv_cipher.iv(seq),
        };
        let packet = self.seal_as(buf, payload, next_header, seq as u32, iv)?;
        self.seq = seq;
        Ok(packet)
    }

    /// Builds the packet with a given sequence number and IV, of which the suite takes the first bytes.
    fn seal_as(
        &self,
        buf: &mut [u8],
        payload: Range<usize>,
        next_header: u8,
        seq: u32,
        iv: [u8; 16],
    ) -> Result<Range<usize>, EspDrop> {
        let n = payload.len();
        buf.get(payload.clone()).ok_or(EspDrop::NoRoom)?; // so that nothing below can overflow
        let (iv_len, icv_len, pad) = (self.suite.iv_len(), self.suite.icv_len(), pad_len(self.suite, n));
        let start = payload.start.checked_sub(HEADER_LEN + iv_len).ok_or(EspDrop::NoRoom)?;
        let end = payload.end + pad + TRAILER_LEN + icv_len;
        let packet = buf.get_mut(start..end).ok_or(EspDrop::NoRoom)?;

        let (covered, icv) = packet.split_at_mut_checked(end - start - icv_len).ok_or(EspDrop::NoRoom)?;
        let (header, rest) = covered.split_first_chunk_mut::<HEADER_LEN>().ok_or(EspDrop::NoRoom)?;
        let (iv_out, body) = rest.split_at_mut_checked(iv_len).ok_or(EspDrop::NoRoom)?;
        let ([s0, s1, s2, s3], [n0, n1, n2, n3]) = (self.spi.to_be_bytes(), seq.to_be_bytes());
        *header = [s0, s1, s2, s3, n0, n1, n2, n3];
        iv_out.copy_from_slice(iv.get(..iv_len).ok_or(EspDrop::NoRoom)?);
        let (_, trailer) = body.split_at_mut_checked(n).ok_or(EspDrop::NoRoom)?;
        let (padding, last) = trailer.split_last_chunk_mut::<TRAILER_LEN>().ok_or(EspDrop::NoRoom)?;
        padding.copy_from_slice(PADDING.get(..pad).ok_or(EspDrop::NoRoom)?);
        *last = [pad as u8, next_header];

        match &self.sealer {
            Sealer::Gcm(gcm) => {
                let [i0, i1, i2, i3, i4, i5, i6, i7, ..] = iv;
                let tag = gcm.seal([i0, i1, i2, i3, i4, i5, i6, i7], header, body).ok_or(EspDrop::NoRoom)?;
                icv.copy_from_slice(&tag);
            }
            Sealer::Cbc { hmac, cipher } => {
                cipher.encrypt(iv_out, body).map_err(|_| EspDrop::NoRoom)?;
                hmac.mac_into(&[covered], icv);
            }
        }
        Ok(start..end)
    }
}

/// Sequence number from which the SA should be replaced: at 10⁶ packets a second, nine minutes before the end.
const SOFT_SEQ: u64 = u32::MAX as u64 - u32::MAX as u64 / 8;

impl fmt::Debug for OutboundSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutboundSa({:08x} {} seq {})", self.spi, self.suite, self.seq)
    }
}

#[cfg(test)]
mod tests;
