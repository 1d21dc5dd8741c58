//! The little DER that the crates below do not offer: stepping through PKCS #7, and putting a signature to a TBS.

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
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// `[0]`, constructed, context-specific.
pub(crate) const CONTEXT_0: u8 = 0xa0;

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
}
