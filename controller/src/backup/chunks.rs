//! The payload in encrypted chunks: writing, and reading no more than one at a time.

use std::io::{self, Read, Write};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use super::head::Fault;

/// Bytes of a tag.
pub(super) const TAG: usize = 16;

/// The nonce of a chunk: `zero (3) | number (8, big-endian) | 1 for the last chunk, else 0`.
fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    let (_, rest) = nonce.split_at_mut(3);
    let (counter, flag) = rest.split_at_mut(8);
    counter.copy_from_slice(&number.to_be_bytes());
    flag.fill(u8::from(last));
    Nonce::assume_unique_for_key(nonce)
}

fn cipher(key: &[u8; 32]) -> io::Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| io::Error::other("AES-256-GCM"))
}

/// Encrypts what is written. [`ChunkWriter::finish`] must end it: without the last chunk the payload is refused.
pub(super) struct ChunkWriter<W> {
    out: W,
    key: LessSafeKey,
    size: usize,
    buffer: Zeroizing<Vec<u8>>,
    number: u64,
}

impl<W: Write> ChunkWriter<W> {
    /// Writes chunks of `size` plain bytes to `out`. The key is for this payload alone.
    pub(super) fn new(out: W, key: &[u8; 32], size: usize) -> io::Result<Self> {
        let buffer = Zeroizing::new(Vec::with_capacity(size + TAG));
        Ok(Self { out, key: cipher(key)?, size, buffer, number: 0 })
    }

    fn flush_chunk(&mut self, last: bool) -> io::Result<()> {
        let nonce = nonce(self.number, last);
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut *self.buffer);
        sealed.map_err(|_| io::Error::other("AES-256-GCM"))?;
        self.out.write_all(&self.buffer)?;
        self.buffer.zeroize();
        self.number += 1;
        Ok(())
    }

    /// Takes more of the payload.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // A full chunk waits until it is known not to be the last.
            if self.buffer.len() == self.size {
                self.flush_chunk(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.size - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Writes the last chunk, and gives back what was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.flush_chunk(true)?;
        Ok(self.out)
    }
}

/// Decrypts chunk by chunk. Nothing is given out that was not checked, and no end but the true one.
pub(super) struct ChunkReader<R> {
    input: R,
    key: LessSafeKey,
    size: usize,
    /// The plain text of the present chunk, and how much of it was given out.
    plain: Zeroizing<Vec<u8>>,
    taken: usize,
    number: u64,
    /// The first byte of the next chunk: read to know whether there is one.
    ahead: Option<u8>,
    done: bool,
}

impl<R: Read> ChunkReader<R> {
    /// Reads chunks of `size` plain bytes from `input`, up to its end.
    pub(super) fn new(input: R, key: &[u8; 32], size: usize) -> io::Result<Self> {
        let plain = Zeroizing::new(Vec::with_capacity(size + TAG));
        Ok(Self { input, key: cipher(key)?, size, plain, taken: 0, number: 0, ahead: None, done: false })
    }

    /// Fills `out` from the payload.
    pub(super) fn read_exact(&mut self, mut out: &mut [u8]) -> Result<(), Fault> {
        while !out.is_empty() {
            let left = self.next()?;
            if left.is_empty() {
                return Err(Fault::Content("it ends before what its head announces".into()));
            }
            let n = left.len().min(out.len());
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(left.get(..n).unwrap_or_default());
            self.taken += n;
            out = later;
        }
        Ok(())
    }

    /// All is read and there was no more; `Ok` says that the file is whole.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        if self.next()?.is_empty() {
            return Ok(());
        }
        Err(Fault::Content("it goes on after what its head announces".into()))
    }

    /// What is left of the present chunk, or the next one; empty at the end.
    fn next(&mut self) -> Result<&[u8], Fault> {
        while self.taken == self.plain.len() && !self.done {
            self.decrypt_next()?;
        }
        Ok(self.plain.get(self.taken..).unwrap_or_default())
    }

    fn decrypt_next(&mut self) -> Result<(), Fault> {
        self.plain.zeroize();
        self.taken = 0;
        self.plain.extend(self.ahead.take());
        let whole = self.size + TAG;
        let missing = whole.saturating_sub(self.plain.len());
        (&mut self.input).take(missing as u64).read_to_end(&mut self.plain).map_err(Fault::Io)?;
        if self.plain.len() == whole {
            let mut next = Vec::with_capacity(1);
            (&mut self.input).take(1).read_to_end(&mut next).map_err(Fault::Io)?;
            self.ahead = next.pop();
        }
        let last = self.ahead.is_none();
        match self.key.open_in_place(nonce(self.number, last), Aad::empty(), &mut self.plain).map(|p| p.len()) {
            Ok(length) => {
                self.plain.truncate(length);
                self.number += 1;
                self.done = last;
                Ok(())
            }
            Err(_) => {
                self.plain.zeroize();
                Err(Fault::Altered { chunk: self.number })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 16;

    fn encrypt(payload: &[u8]) -> Vec<u8> {
        let mut writer = ChunkWriter::new(Vec::new(), &[7; 32], SIZE).expect("starts");
        for piece in payload.chunks(5) {
            writer.write(piece).expect("writes");
        }
        writer.finish().expect("ends")
    }

    fn decrypt(bytes: &[u8], length: usize) -> Result<Vec<u8>, Fault> {
        let mut reader = ChunkReader::new(bytes, &[7; 32], SIZE).expect("starts");
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload)?;
        reader.end()?;
        Ok(payload)
    }

    #[test]
    fn every_length_comes_back_in_as_few_chunks_as_can_be() {
        for length in 0..=3 * SIZE + 1 {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let bytes = encrypt(&payload);
            assert_eq!(bytes.len(), length + TAG * length.div_ceil(SIZE).max(1), "{length}");
            assert_eq!(decrypt(&bytes, length).expect("opens"), payload);
            assert!(matches!(decrypt(&bytes, length + 1), Err(Fault::Content(e)) if e.contains("ends before")));
            if length > 0 {
                assert!(matches!(decrypt(&bytes, length - 1), Err(Fault::Content(e)) if e.contains("goes on")));
            }
        }
    }

    #[test]
    fn chunks_cannot_be_cut_off_exchanged_repeated_or_taken_from_elsewhere() {
        let payload = [5; 4 * SIZE];
        let bytes = encrypt(&payload);
        let chunks: Vec<&[u8]> = bytes.chunks(SIZE + TAG).collect();
        let refused = |chunks: &[&[u8]]| {
            let bytes = chunks.concat();
            let length = bytes.len() - TAG * chunks.len();
            assert!(matches!(decrypt(&bytes, length), Err(Fault::Altered { .. })), "{} chunks", chunks.len());
        };
        for kept in 1..chunks.len() {
            refused(&chunks[..kept]);
            refused(&chunks[kept..]);
        }
        refused(&[chunks[1], chunks[0], chunks[2], chunks[3]]);
        refused(&[chunks[0], chunks[1], chunks[1], chunks[2], chunks[3]]);
        refused(&[chunks[0], chunks[1], chunks[2], chunks[3], chunks[3]]);
        refused(&[chunks[0], chunks[3]]);
        assert!(decrypt(&[], 0).is_err());
        for cut in 0..bytes.len() {
            assert!(decrypt(&bytes[..cut], payload.len()).is_err(), "{cut} bytes");
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(decrypt(&longer, payload.len()).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encrypt(&[9; 2 * SIZE + 3]);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decrypt(&bad, 2 * SIZE + 3).is_err(), "bit {bit}");
        }
    }
}
