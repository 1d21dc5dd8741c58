//! The little DER that the crates below do not offer: stepping through PKCS #7, CMS, OCSP and requests, and writing them.

use crate::UnixTime;

/// A cursor over DER or definite-length BER. Each step either takes one element or fails.
#[derive(Clone, Copy)]
pub(crate) struct Der<'a> {
    rest: &'a [u8],
}

/// One element: identifier octet, content, and the element with its header.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: &[u8] = &[0x05, 0x00];
pub(crate) const OID: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// `[0]`, constructed, context-specific.
pub(crate) const CONTEXT_0: u8 = 0xa0;
/// `[1]`, constructed, context-specific.
pub(crate) const CONTEXT_1: u8 = 0xa1;
/// `[2]`, constructed, context-specific.
pub(crate) const CONTEXT_2: u8 = 0xa2;

impl<'a> Der<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the next element; `None` if the rest does not start with a whole one of a single identifier octet and a
    /// definite length.
    pub(crate) fn next(&mut self) -> Option<Element<'a>> {
        let (&[tag, first], _) = self.rest.split_first_chunk::<2>()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (header, len) = match first {
            0..=0x7f => (2, usize::from(first)),
            0x81..=0x84 => {
                let n = usize::from(first & 0x7f);
                let octets = self.rest.get(2..2 + n)?;
                (2 + n, octets.iter().fold(0_usize, |acc, b| acc << 8 | usize::from(*b)))
            }
            _ => return None, // indefinite length, or longer than anything taken here
        };
        let (whole, rest) = self.rest.split_at_checked(header.checked_add(len)?)?;
        self.rest = rest;
        Some(Element { tag, content: whole.get(header..)?, whole })
    }

    /// Takes the next element and asks that it has this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.next().filter(|e| e.tag == tag)
    }

    /// Takes the next element if it has this tag, which is how optional fields are read.
    pub(crate) fn take_if(&mut self, tag: u8) -> Option<Element<'a>> {
        let mut ahead = *self;
        let element = ahead.expect(tag)?;
        *self = ahead;
        Some(element)
    }

    /// Takes the next element, which has this tag, and goes into it.
    pub(crate) fn enter(&mut self, tag: u8) -> Option<Self> {
        self.expect(tag).map(|e| Self::new(e.content))
    }

    /// What has not been taken yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// The one element of this tag that `bytes` is, without anything behind it.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Option<Element<'_>> {
    let mut der = Der::new(bytes);
    der.expect(tag).filter(|_| der.is_empty())
}

/// `OBJECT IDENTIFIER` of these content octets.
pub(crate) fn oid(content: &[u8]) -> Vec<u8> {
    encode(OID, &[content])
}

/// `AlgorithmIdentifier`; the parameters are an encoded element, or empty where they are absent.
pub(crate) fn algorithm(oid_content: &[u8], parameters: &[u8]) -> Vec<u8> {
    encode(SEQUENCE, &[&oid(oid_content), parameters])
}

/// A small `INTEGER`.
pub(crate) fn integer(value: u8) -> Vec<u8> {
    let octets = [0, value];
    encode(INTEGER, &[if value < 0x80 { &octets[1..] } else { &octets }])
}

/// A non-negative `INTEGER` of these big-endian octets.
pub(crate) fn unsigned(octets: &[u8]) -> Vec<u8> {
    let zeros = octets.iter().take_while(|b| **b == 0).count();
    let octets = octets.get(zeros..).unwrap_or_default();
    let pad: &[u8] = if octets.first().is_none_or(|b| *b >= 0x80) { &[0] } else { &[] };
    encode(INTEGER, &[pad, octets])
}

/// `GeneralizedTime` to the second, or nothing beyond the years that it can hold.
pub(crate) fn generalized_time(at: UnixTime) -> Option<Vec<u8>> {
    let t = time::OffsetDateTime::from_unix_timestamp(at.0).ok().filter(|t| (0..=9999).contains(&t.year()))?;
    let (month, (hour, minute, second)) = (u8::from(t.month()), t.time().as_hms());
    let text = format!("{:04}{month:02}{:02}{hour:02}{minute:02}{second:02}Z", t.year(), t.day());
    Some(encode(GENERALIZED_TIME, &[text.as_bytes()]))
}

/// `Time` of a certificate: UTCTime until 2049 (RFC 5280 §4.1.2.5).
pub(crate) fn certificate_time(at: UnixTime) -> Option<Vec<u8>> {
    /// 1950 and 2050.
    const UTC: core::ops::Range<i64> = -631_152_000..2_524_608_000;
    let time = generalized_time(at)?;
    Some(if UTC.contains(&at.0) { encode(UTC_TIME, &[time.get(4..).unwrap_or_default()]) } else { time })
}

/// The big-endian octets of a non-negative INTEGER's content, without leading zeros; `None` where it is negative or empty.
pub(crate) fn as_unsigned(content: &[u8]) -> Option<&[u8]> {
    if content.first().is_none_or(|b| *b >= 0x80) {
        return None;
    }
    let zeros = content.iter().take_while(|b| **b == 0).count();
    content.get(zeros..)
}

/// `SET OF` as DER orders it (X.690 §11.6).
pub(crate) fn set_of(tag: u8, mut elements: Vec<Vec<u8>>) -> Vec<u8> {
    elements.sort_unstable();
    encode(tag, &elements.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Levels that [`definite`] goes down; deeper down things are copied as they are.
const MAX_DEPTH: usize = 16;

/// BER to what [`Der`] steps through: indefinite lengths become definite, OCTET STRINGs in pieces become one. What has a definite
/// length and no such thing inside is copied as it is, so that signatures over it stay good. The result is at most a little longer.
pub(crate) fn definite(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let rest = copy_definite(bytes, &mut out, MAX_DEPTH)?;
    rest.is_empty().then_some(out)
}

/// Copies one element and gives what stands behind it.
fn copy_definite<'a>(bytes: &'a [u8], out: &mut Vec<u8>, depth: usize) -> Option<&'a [u8]> {
    const PIECES: u8 = OCTET_STRING | 0x20;
    let (&[tag, length], body) = bytes.split_first_chunk::<2>()?;
    let (content, rest) = if length == 0x80 {
        if tag & 0x20 == 0 || tag & 0x1f == 0x1f || depth == 0 {
            return None;
        }
        let (mut content, mut rest) = (Vec::new(), body);
        loop {
            if let Some(after) = rest.strip_prefix(&[0, 0]) {
                break (content, after);
            }
            rest = copy_definite(rest, &mut content, depth - 1)?;
        }
    } else {
        let mut der = Der::new(bytes);
        let element = der.next()?;
        let constructed = tag & 0x20 != 0 && depth > 0;
        let inside = constructed.then(|| {
            let (mut content, mut rest) = (Vec::new(), element.content);
            while !rest.is_empty() {
                rest = copy_definite(rest, &mut content, depth - 1)?;
            }
            Some(content)
        });
        match inside.flatten() {
            Some(content) if tag == PIECES || content != element.content => (content, der.rest()),
            _ => {
                out.extend_from_slice(element.whole);
                return Some(der.rest());
            }
        }
    };
    if tag == PIECES {
        let (mut pieces, mut whole) = (Der::new(&content), Vec::new());
        while !pieces.is_empty() {
            whole.extend_from_slice(pieces.expect(OCTET_STRING)?.content);
        }
        out.extend(encode(OCTET_STRING, &[&whole]));
    } else {
        out.extend(encode(tag, &[&content]));
    }
    Some(rest)
}

/// One element from its tag and the parts of its content.
pub(crate) fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let octets = len.to_be_bytes();
    let octets = octets.get(len.leading_zeros() as usize / 8..).unwrap_or(&[]);
    let mut out = Vec::with_capacity(len + 2 + octets.len());
    out.push(tag);
    if len < 0x80 {
        out.push(len as u8);
    } else {
        out.push(0x80 | octets.len() as u8);
        out.extend_from_slice(octets);
    }
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back_at_every_length_form() {
        for n in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let content = vec![7; n];
            let bytes = encode(SEQUENCE, &[&content]);
            let mut der = Der::new(&bytes);
            let e = der.expect(SEQUENCE).unwrap();
            assert_eq!((e.content.len(), e.whole.len()), (n, bytes.len()));
            assert!(der.is_empty());
            assert!(Der::new(&bytes[..bytes.len() - 1]).next().is_none());
        }
    }

    #[test]
    fn integers_are_minimal_and_never_negative() {
        assert_eq!((integer(0), integer(0x80)), (vec![2, 1, 0], vec![2, 2, 0, 0x80]));
        assert_eq!(unsigned(&[]), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0, 0x7f]), [2, 1, 0x7f]);
        assert_eq!(unsigned(&[0xff]), [2, 2, 0, 0xff]);
        assert_eq!(as_unsigned(&[0, 0xff]), Some(&[0xff][..]));
        assert_eq!((as_unsigned(&[]), as_unsigned(&[0x80])), (None, None));
    }

    #[test]
    fn indefinite_lengths_and_strings_in_pieces_become_plain_ones() {
        let pieces = [&[0x24, 0x80][..], &[4, 2, 1, 2], &[4, 1, 3], &[0, 0]].concat();
        let ber = [&[0x30, 0x80][..], &[2, 1, 5], &pieces, &[0xa0, 0x80, 0x30, 0x80, 0, 0, 0, 0], &[0, 0]].concat();
        assert_eq!(definite(&ber).unwrap(), [0x30, 12, 2, 1, 5, 4, 3, 1, 2, 3, 0xa0, 2, 0x30, 0]);
        // A length in a longer form than DER's stays, for it may be signed.
        let long = [0x30, 0x81, 3, 2, 1, 5];
        assert_eq!(definite(&long).unwrap(), long);
        // What only looks constructed is copied.
        assert_eq!(definite(&[0xa0, 2, 0xff, 0xff]).unwrap(), [0xa0, 2, 0xff, 0xff]);
        for bad in [&[0x30, 0x80][..], &[0x30, 0x80, 0], &[4, 0x80, 0, 0], &[0x30, 0, 0], &[], &[0x30]] {
            assert_eq!(definite(bad), None, "{bad:?}");
        }
        assert_eq!(definite(&[0x30, 0x80].repeat(100_000)), None);
    }
}
