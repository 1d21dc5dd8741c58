//! A whole state as a stream of bytes: `format (1) | { length (4) key length (4) value }*`, the rows in the order of their
//! keys as they are stored. Equal states give equal bytes.

use std::io::{self, Read, Write};

use super::{RowError, State};
use crate::raft::kv::Row;

/// First byte.
const FORMAT: u8 = 1;
/// Longest key or value that is believed, bytes.
const MAX_PART: u32 = 64 * 1024 * 1024;

/// Writes a state row by row.
pub(crate) struct RowWriter<W: Write>(W);

impl<W: Write> RowWriter<W> {
    /// Begins a state.
    pub(crate) fn begin(mut out: W) -> io::Result<Self> {
        out.write_all(&[FORMAT])?;
        Ok(Self(out))
    }

    /// The next row.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        for part in [key, value] {
            let length = u32::try_from(part.len()).ok().filter(|n| *n <= MAX_PART);
            let length = length.ok_or_else(|| io::Error::other("a row is too long"))?;
            self.0.write_all(&length.to_be_bytes())?;
            self.0.write_all(part)?;
        }
        Ok(())
    }

    /// Where it was written to.
    pub(crate) fn end(self) -> W {
        self.0
    }
}

/// Reads a state row by row.
pub(crate) struct RowReader<R: Read>(R);

impl<R: Read> RowReader<R> {
    /// Begins to read a state.
    pub(crate) fn begin(mut from: R) -> io::Result<Self> {
        let mut format = [0];
        from.read_exact(&mut format)?;
        match format {
            [FORMAT] => Ok(Self(from)),
            [other] => Err(damaged(RowError::Format(other))),
        }
    }

    fn length(&mut self) -> io::Result<Option<usize>> {
        let mut length = [0; 4];
        if self.0.read(&mut length[..1])? == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut length[1..])?;
        match u32::from_be_bytes(length) {
            length @ ..=MAX_PART => Ok(usize::try_from(length).ok()),
            _ => Err(damaged(RowError::Damaged(0))),
        }
    }

    fn part(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut part = vec![0; length];
        self.0.read_exact(&mut part)?;
        Ok(part)
    }

    fn row(&mut self) -> io::Result<Option<Row>> {
        let Some(length) = self.length()? else { return Ok(None) };
        let key = self.part(length)?;
        let length = self.length()?.ok_or_else(|| damaged(RowError::Damaged(0)))?;
        Ok(Some((key, self.part(length)?)))
    }
}

impl<R: Read> Iterator for RowReader<R> {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.row().transpose()
    }
}

fn damaged(e: RowError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

impl State {
    /// The whole state as bytes, equal for equal states.
    pub fn to_bytes(&self) -> Vec<u8> {
        let written = || -> io::Result<Vec<u8>> {
            let mut out = RowWriter::begin(Vec::new())?;
            self.each_row(|key, value| out.row(&key, &value))?;
            Ok(out.end())
        };
        written().unwrap_or_default() // memory takes everything
    }

    /// The reverse of [`State::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RowError> {
        let broken = |e: io::Error| match e.downcast::<RowError>() {
            Ok(e) => e,
            Err(_) => RowError::Damaged(0),
        };
        let mut loading = Self::loading();
        for row in RowReader::begin(bytes).map_err(broken)? {
            let (key, value) = row.map_err(broken)?;
            loading.row(&key, &value)?;
        }
        Ok(loading.end())
    }
}
