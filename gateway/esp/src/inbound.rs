//! Opening packets: RFC 4303 §3.4.

use core::fmt;
use core::ops::Range;

use sallyport_crypto::suite::EspSuite;

use crate::packet::{HEADER_LEN, NO_NEXT_HEADER, PADDING, TRAILER_LEN};
use crate::sa::Opener;
use crate::{EspDrop, Lifetime, Packet, ReplayWindow, SaConfig, SaLimits, Stats};

/// Where in an opened packet its payload lies, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    start: usize,
    end: usize,
    /// IP protocol number of the payload: 17 for UDP.
    pub next_header: u8,
}

impl Opened {
    /// The payload's place in the packet that was given to [`InboundSa::open`].
    #[must_use]
    pub const fn payload(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// The receiving half of an SA: keys made ready, anti-replay window, counters. Single writer, no locks.
pub struct InboundSa {
    window: ReplayWindow,
    stats: Stats,
    limits: SaLimits,
    spi: u32,
    suite: EspSuite,
    strict_padding: bool,
    opener: Opener,
}

impl InboundSa {
    /// Makes the keys ready.
    #[must_use]
    pub fn new(config: &SaConfig) -> Self {
        Self {
            window: if config.seq == 0 { ReplayWindow::new() } else { ReplayWindow::after(config.seq.into()) },
            stats: Stats::default(),
            limits: config.limits,
            spi: config.spi,
            suite: config.keys.suite(),
            strict_padding: config.strict_padding,
            opener: Opener::new(&config.keys),
        }
    }

    /// The SPI that peers send to.
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

    /// How far its life in packets and bytes has gone.
    #[must_use]
    pub const fn lifetime(&self) -> Lifetime {
        self.stats.lifetime(&self.limits)
    }

    /// The highest sequence number that was verified.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.window.top()
    }

    /// Verifies and decrypts `packet`, which starts with the SPI and ends with the ICV, in place.
    ///
    /// After an error its contents are undefined; the window has moved only if the ICV was right.
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, EspDrop> {
        let result = self.open_uncounted(packet);
        self.stats.count(result.map(|opened| opened.payload().len()));
        result
    }

    /// Opens each packet of a batch; the packets must be of this SA. Returns how many got through.
    ///
    /// What went wrong with the others stands in [`Packet::outcome`]. Packets that have failed before are left alone.
    pub fn open_batch(&mut self, packets: &mut [Packet<'_>]) -> usize {
        packets.iter_mut().map(|packet| usize::from(packet.open_with(self))).sum()
    }

    fn open_uncounted(&mut self, packet: &mut [u8]) -> Result<Opened, EspDrop> {
        let (header, rest) = packet.split_first_chunk_mut::<HEADER_LEN>().ok_or(EspDrop::Truncated)?;
        let [s0, s1, s2, s3, n0, n1, n2, n3] = *header;
        if u32::from_be_bytes([s0, s1, s2, s3]) != self.spi {
            return Err(EspDrop::UnknownSpi);
        }
        // Cheap refusals first; with extended sequence numbers the high half would be guessed here (RFC 4303 §A2.2).
        let seq = u64::from(u32::from_be_bytes([n0, n1, n2, n3]));
        let iv_len = self.suite.iv_len();
        let (iv, body) = rest.split_at_mut_checked(iv_len).ok_or(EspDrop::Truncated)?;
        let cipher_len = body.len().checked_sub(self.suite.icv_len()).ok_or(EspDrop::Truncated)?;
        if cipher_len < self.suite.block_len() {
            return Err(EspDrop::Truncated);
        }
        if self.lifetime() == Lifetime::Expired {
            return Err(EspDrop::Expired);
        }
        self.window.check(seq)?;

        let start = HEADER_LEN + iv_len;
        match &self.opener {
            Opener::Gcm(gcm) => {
                let iv = iv.first_chunk().ok_or(EspDrop::Truncated)?;
                if !gcm.open(*iv, header, body) {
                    return Err(EspDrop::BadIcv);
                }
            }
            Opener::Cbc { hmac, cipher } => {
                if cipher_len % self.suite.block_len() != 0 {
                    return Err(EspDrop::BadLength);
                }
                let (covered, icv) = packet.split_at_mut_checked(start + cipher_len).ok_or(EspDrop::Truncated)?;
                if !hmac.verify(&[covered], icv) {
                    return Err(EspDrop::BadIcv);
                }
                let (iv, body) = covered
                    .get_mut(HEADER_LEN..)
                    .and_then(|rest| rest.split_at_mut_checked(iv_len))
                    .ok_or(EspDrop::Truncated)?;
                cipher.decrypt(iv, body).map_err(|_| EspDrop::BadLength)?;
            }
        }
        self.window.advance(seq); // only now: RFC 4303 §3.4.3

        let plain = packet.get(start..start + cipher_len).ok_or(EspDrop::Truncated)?;
        let (len, next_header) = strip_trailer(plain, self.strict_padding)?;
        if next_header == NO_NEXT_HEADER {
            return Err(EspDrop::Dummy);
        }
        Ok(Opened { start, end: start + len, next_header })
    }
}

/// Length of the payload, and Next Header: `| payload | padding 1 2 3 ... | Pad Length | Next Header |`.
fn strip_trailer(plain: &[u8], strict: bool) -> Result<(usize, u8), EspDrop> {
    let (padded, [pad_len, next_header]) = plain.split_last_chunk::<TRAILER_LEN>().ok_or(EspDrop::BadPadding)?;
    let len = padded.len().checked_sub(usize::from(*pad_len)).ok_or(EspDrop::BadPadding)?;
    let padding = padded.get(len..).unwrap_or_default();
    if strict && Some(padding) != PADDING.get(..padding.len()) {
        return Err(EspDrop::BadPadding);
    }
    Ok((len, *next_header))
}

impl fmt::Debug for InboundSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InboundSa({:08x} {} seq {})", self.spi, self.suite, self.seq())
    }
}

#[cfg(test)]
mod tests;
