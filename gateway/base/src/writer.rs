//! Fields to bytes, in network byte order.

/// Builds a message. Lengths that are known only later are written with [`Writer::mark_u16`] and [`Writer::patch`].
#[derive(Clone, Debug, Default)]
pub struct Writer {
    buf: Vec<u8>,
}

/// The place of a 16-bit length to be filled in later.
#[derive(Clone, Copy, Debug)]
#[must_use = "a marked length stays zero until it is patched"]
pub struct Mark(usize);

impl Writer {
    /// An empty message.
    pub const fn new() -> Self {
        Self { buf: Vec::new() }
    }

    /// An empty message with room for `n` bytes.
    pub fn with_capacity(n: usize) -> Self {
        Self { buf: Vec::with_capacity(n) }
    }

    /// Appends one byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.buf.push(v);
        self
    }

    /// Appends a big-endian 16-bit number.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// Appends a big-endian 32-bit number.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// Appends a big-endian 64-bit number.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, v: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(v);
        self
    }

    /// Appends `n` zero bytes.
    pub fn zeros(&mut self, n: usize) -> &mut Self {
        self.buf.resize(self.buf.len() + n, 0);
        self
    }

    /// Appends a 16-bit zero and remembers its place.
    pub fn mark_u16(&mut self) -> Mark {
        let mark = Mark(self.buf.len());
        self.u16(0);
        mark
    }

    /// Writes `value` at a marked place, cut to the largest 16-bit number.
    ///
    /// The cut never happens with messages that this project builds: they are far below 64 KiB; a cut length is then a
    /// message that the peer refuses, which beats a panic.
    pub fn patch(&mut self, mark: Mark, value: usize) {
        let value = u16::try_from(value).unwrap_or(u16::MAX);
        self.buf[mark.0..mark.0 + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// Writes at `mark` the number of bytes that were appended since `start` (a value of [`Writer::len`]).
    pub fn patch_len_since(&mut self, mark: Mark, start: usize) {
        let n = self.buf.len() - start;
        self.patch(mark, n);
    }

    /// Overwrites one byte at `at`, such as a Next Payload that is known only later. Out of range does nothing.
    pub fn set_u8(&mut self, at: usize, v: u8) {
        if let Some(b) = self.buf.get_mut(at) {
            *b = v;
        }
    }

    /// How many bytes were written.
    pub const fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing was written.
    pub const fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.buf
    }

    /// The finished message.
    pub fn into_vec(self) -> Vec<u8> {
        self.buf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_length_is_filled_in() {
        let mut w = Writer::new();
        let start = w.len();
        w.u8(7);
        let mark = w.mark_u16();
        w.bytes(b"abc");
        w.patch_len_since(mark, start);
        assert_eq!(w.into_vec(), [7, 0, 6, b'a', b'b', b'c']);
    }
}
