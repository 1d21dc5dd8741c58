//! The ESP packet, RFC 4303 §2, and how many bytes it takes.

use sallyport_base::{DecodeError, Reader, Writer};
use sallyport_crypto::suite::EspSuite;

/// Bytes of SPI and sequence number.
pub(crate) const HEADER_LEN: usize = 8;

/// Bytes of Pad Length and Next Header, which end the plaintext.
pub(crate) const TRAILER_LEN: usize = 2;

/// Room that [`crate::OutboundSa::seal`] needs before the payload at most: header and the longest IV.
pub const HEAD_ROOM: usize = HEADER_LEN + 16;

/// Room that [`crate::OutboundSa::seal`] needs behind the payload at most: padding to the longest block, trailer, and
/// the longest ICV.
pub const TAIL_ROOM: usize = 15 + TRAILER_LEN + 32;

/// Next Header of a dummy packet (RFC 4303 §2.6; IPv6 "no next header").
pub const NO_NEXT_HEADER: u8 = 59;

/// The smallest SPI of an SA: 0 is local use and the non-ESP marker, 1 to 255 are reserved by IANA (RFC 4303 §2.1).
pub const MIN_SPI: u32 = 256;

/// What stands in the clear: `| SPI (32) | Sequence Number (32) | IV, ciphertext, ICV ... |`, RFC 4303 §2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspHeader {
    /// Names the SA at the receiver.
    pub spi: u32,
    /// Low half of the sequence number if the SA has extended ones.
    pub seq: u32,
}

impl EspHeader {
    /// Reads the header and leaves the rest.
    pub fn parse(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { spi: r.u32("ESP SPI")?, seq: r.u32("ESP sequence number")? })
    }

    /// Writes the header.
    pub fn emit(&self, w: &mut Writer) {
        w.u32(self.spi).u32(self.seq);
    }
}

/// The SPI of what looks like an ESP packet, to find its SA; `None` if it is too short or the SPI is reserved.
#[must_use]
pub fn spi(packet: &[u8]) -> Option<u32> {
    packet.first_chunk().map(|b| u32::from_be_bytes(*b)).filter(|spi| *spi >= MIN_SPI)
}

/// The default padding 1, 2, 3 ... (RFC 4303 §2.4) at its longest.
pub(crate) static PADDING: [u8; 255] = {
    let mut bytes = [0; 255];
    let mut i = 0;
    while i < bytes.len() {
        bytes[i] = i as u8 + 1;
        i += 1;
    }
    bytes
};

/// Bytes of padding that fill the payload and the trailer up to whole blocks.
pub(crate) const fn pad_len(suite: EspSuite, payload: usize) -> usize {
    let block = suite.block_len(); // 4, 8 or 16
    (block - (payload % block + TRAILER_LEN) % block) % block
}

/// Bytes of the ESP packet around a payload of `payload` bytes.
#[must_use]
pub const fn sealed_len(suite: EspSuite, payload: usize) -> usize {
    HEADER_LEN + suite.iv_len() + payload + pad_len(suite, payload) + TRAILER_LEN + suite.icv_len()
}

/// The longest payload whose ESP packet fits into `space` bytes, such as a path's MTU less the IP and UDP headers.
/// Zero if not even an empty one does.
#[must_use]
pub const fn max_payload_len(suite: EspSuite, space: usize) -> usize {
    let cipher = space.saturating_sub(HEADER_LEN + suite.iv_len() + suite.icv_len());
    (cipher - cipher % suite.block_len()).saturating_sub(TRAILER_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips_and_short_ones_are_refused() {
        let header = EspHeader { spi: 0xdead_beef, seq: 7 };
        let mut w = Writer::new();
        header.emit(&mut w);
        let bytes = w.into_vec();
        assert_eq!(bytes, [0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 7]);
        assert_eq!(EspHeader::parse(&mut Reader::new(&bytes)), Ok(header));
        for n in 0..8 {
            assert!(EspHeader::parse(&mut Reader::new(&bytes[..n])).is_err());
        }
    }

    #[test]
    fn reserved_spis_name_no_sa() {
        assert_eq!(spi(&[0, 0, 1, 0, 9]), Some(256));
        assert_eq!(spi(&[0, 0, 0, 255]), None);
        assert_eq!(spi(&[0, 0, 0, 0]), None);
        assert_eq!(spi(&[1, 2, 3]), None);
    }

    #[test]
    fn the_longest_payload_fits_and_one_more_does_not() {
        for suite in EspSuite::all() {
            for space in 0..200 {
                let n = max_payload_len(suite, space);
                assert!(n == 0 || sealed_len(suite, n) <= space, "{suite} {space}");
                assert!(sealed_len(suite, n + 1) > space, "{suite} {space}");
            }
            for n in 0..64 {
                assert_eq!((n + pad_len(suite, n) + TRAILER_LEN) % suite.block_len(), 0);
                assert!(pad_len(suite, n) < suite.block_len());
                assert!(sealed_len(suite, n) <= HEAD_ROOM + n + TAIL_ROOM);
            }
        }
    }
}
