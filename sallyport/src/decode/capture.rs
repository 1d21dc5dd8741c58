//! Capture files: pcap and pcapng (draft-ietf-opsawg-pcap and -pcapng), plain or compressed with gzip, frame by frame.
//!
//! Files come from crashes, full disks and strangers, so nothing in them is believed: a length that cannot be right ends
//! the reading with a warning, and everything before it is still decoded. One frame is held in memory at a time.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// The longest frame that is read. tcpdump's largest snapshot length is 262,144.
const MAX_FRAME: usize = 512 * 1024;
/// The longest block of a pcapng file that is read into memory; longer ones of kinds that do not matter are passed over.
const MAX_BLOCK: usize = MAX_FRAME + 64 * 1024;
/// How many interfaces of one pcapng section are remembered.
const MAX_INTERFACES: usize = 1024;

/// One captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Its place in the file, from 1.
    pub(super) number: u64,
    /// Nanoseconds since 1970-01-01 UTC, if the file says.
    pub(super) time: Option<u64>,
    /// What the bytes begin with: a LINKTYPE number.
    pub(super) link: u32,
    /// How long the frame was on the wire.
    pub(super) original_len: usize,
    /// What was kept of it.
    pub(super) data: Vec<u8>,
}

/// Why a file gives no more frames.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The file is not a capture at all.
    NotACapture(&'static str),
    /// The file breaks off or is damaged from here on.
    Damaged(String),
    /// Reading failed.
    Io(io::Error),
}

impl Trouble {
    fn io(error: io::Error) -> Self {
        match error.kind() {
            // A compressed file that breaks off, or whose checksum is wrong.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                Self::Damaged("the compressed data breaks off or is damaged".into())
            }
            _ => Self::Io(error),
        }
    }
}

/// Reads the frames of one file.
pub(super) struct Reader<'a> {
    input: Box<dyn Read + 'a>,
    format: Format,
    frames: u64,
}

enum Format {
    Pcap { big_endian: bool, nanoseconds: bool, link: u32, extra: usize },
    Pcapng { big_endian: bool, interfaces: Vec<Interface> },
}

#[derive(Clone, Copy)]
struct Interface {
    link: u32,
    snap_len: u32,
    ticks_per_second: u64,
    offset_seconds: i64,
}

const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

impl<'a> Reader<'a> {
    /// Looks at the first bytes and finds out what the file is.
    pub(super) fn new(input: impl Read + 'a) -> Result<Self, Trouble> {
        let mut raw = BufReader::with_capacity(64 * 1024, input);
        let mut magic = [0; 4];
        let n = fill(&mut raw, &mut magic)?;
        let restored = io::Cursor::new(magic.get(..n).unwrap_or_default().to_vec()).chain(raw);
        if magic.starts_with(&[0x1f, 0x8b]) {
            let mut plain = BufReader::new(MultiGzDecoder::new(BufReader::new(restored)));
            let n = fill(&mut plain, &mut magic)?;
            return Self::with_magic(Box::new(plain), magic, n);
        }
        let mut restored = restored;
        let n = fill(&mut restored, &mut magic)?;
        Self::with_magic(Box::new(restored), magic, n)
    }

    fn with_magic(input: Box<dyn Read + 'a>, magic: [u8; 4], n: usize) -> Result<Self, Trouble> {
        let pcap = |big_endian, nanoseconds, extra| Format::Pcap { big_endian, nanoseconds, link: 0, extra };
        let format = match magic {
            _ if n == 0 => return Err(Trouble::NotACapture("the file is empty")),
            [0xa1, 0xb2, 0xc3, 0xd4] => pcap(true, false, 0),
            [0xd4, 0xc3, 0xb2, 0xa1] => pcap(false, false, 0),
            [0xa1, 0xb2, 0x3c, 0x4d] => pcap(true, true, 0),
            [0x4d, 0x3c, 0xb2, 0xa1] => pcap(false, true, 0),
            // Kuznetzov's patched libpcap: eight more bytes in each record header.
            [0xa1, 0xb2, 0xcd, 0x34] => pcap(true, false, 8),
            [0x34, 0xcd, 0xb2, 0xa1] => pcap(false, false, 8),
            SECTION_HEADER => Format::Pcapng { big_endian: false, interfaces: Vec::new() },
            [b'B', b'Z', b'h', _] | [0xfd, b'7', b'z', b'X'] | [0x28, 0xb5, 0x2f, 0xfd] => {
                return Err(Trouble::NotACapture("it is compressed with something else than gzip; unpack it first"));
            }
            _ => return Err(Trouble::NotACapture("it is neither pcap nor pcapng")),
        };
        let mut reader = Self { input, format, frames: 0 };
        match &mut reader.format {
            Format::Pcap { big_endian, link, .. } => {
                let big_endian = *big_endian;
                let mut header = [0; 20];
                if fill(&mut reader.input, &mut header)? < header.len() {
                    return Err(Trouble::Damaged("the file ends inside its header".into()));
                }
                // The upper bits say whether, and how long, a frame check sequence follows each frame.
                *link = u32_at(&header, 16, big_endian) & 0x03ff_ffff;
            }
            Format::Pcapng { .. } => reader.section()?,
        }
        Ok(reader)
    }

    /// The next frame; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Trouble> {
        let frame = match self.format {
            Format::Pcap { big_endian, nanoseconds, link, extra } => {
                self.next_record(big_endian, nanoseconds, link, extra)?
            }
            Format::Pcapng { .. } => self.next_block()?,
        };
        self.frames += u64::from(frame.is_some());
        Ok(frame)
    }

    fn damaged(&self, what: impl core::fmt::Display) -> Trouble {
        Trouble::Damaged(format!("{what} behind frame {}", self.frames))
    }

    fn next_record(
        &mut self,
        big_endian: bool,
        nanoseconds: bool,
        link: u32,
        extra: usize,
    ) -> Result<Option<Frame>, Trouble> {
        let mut header = [0; 24];
        let header = header.get_mut(..16 + extra).unwrap_or_default();
        match fill(&mut self.input, header)? {
            0 => return Ok(None),
            n if n < header.len() => return Err(self.damaged("the file ends inside a record")),
            _ => {}
        }
        let field = |at| u32_at(header, at, big_endian);
        let (seconds, fraction, kept, original) = (field(0), field(4), field(8) as usize, field(12) as usize);
        if kept > MAX_FRAME {
            return Err(self.damaged(format_args!("a record claims {kept} bytes")));
        }
        let fraction = u64::from(fraction).saturating_mul(if nanoseconds { 1 } else { 1000 });
        let time = u64::from(seconds).saturating_mul(1_000_000_000).saturating_add(fraction);
        let data = self.data(kept)?;
        Ok(Some(Frame {
            number: self.frames + 1,
            time: Some(time),
            link,
            original_len: original.max(data.len()),
            data,
        }))
    }

    fn data(&mut self, len: usize) -> Result<Vec<u8>, Trouble> {
        let mut data = vec![0; len];
        let n = fill(&mut self.input, &mut data)?;
        if n < len {
            return Err(self.damaged(format_args!("the file ends inside a frame ({n} of {len} bytes)")));
        }
        Ok(data)
    }

    /// Reads a section header block behind its type, and with it the byte order.
    fn section(&mut self) -> Result<(), Trouble> {
        let mut start = [0; 8];
        if fill(&mut self.input, &mut start)? < start.len() {
            return Err(self.damaged("the file ends inside a section header"));
        }
        let big_endian = match start {
            [.., 0x1a, 0x2b, 0x3c, 0x4d] => true,
            [.., 0x4d, 0x3c, 0x2b, 0x1a] => false,
            _ => return Err(self.damaged("a section header without byte order")),
        };
        let len = u32_at(&start, 0, big_endian) as usize;
        let rest = len.checked_sub(12).ok_or_else(|| self.damaged("a section header of no length"))?;
        self.skip(rest)?;
        self.format = Format::Pcapng { big_endian, interfaces: Vec::new() };
        Ok(())
    }

    fn skip(&mut self, len: usize) -> Result<(), Trouble> {
        let skipped = io::copy(&mut (&mut self.input).take(len as u64), &mut io::sink()).map_err(Trouble::io)?;
        if skipped < len as u64 { Err(self.damaged("the file ends inside a block")) } else { Ok(()) }
    }

    fn next_block(&mut self) -> Result<Option<Frame>, Trouble> {
        loop {
            let mut kind = [0; 4];
            match fill(&mut self.input, &mut kind)? {
                0 => return Ok(None),
                4 => {}
                _ => return Err(self.damaged("the file ends inside a block")),
            }
            if kind == SECTION_HEADER {
                self.section()?;
                continue;
            }
            let Format::Pcapng { big_endian, .. } = self.format else { return Ok(None) };
            let mut len = [0; 4];
            if fill(&mut self.input, &mut len)? < 4 {
                return Err(self.damaged("the file ends inside a block"));
            }
            let len = u32_at(&len, 0, big_endian) as usize;
            let rest = len.checked_sub(8).filter(|rest| *rest >= 4 && len.is_multiple_of(4));
            let rest = rest.ok_or_else(|| self.damaged(format_args!("a block of {len} bytes")))?;
            let kind = u32_at(&kind, 0, big_endian);
            // Interface description, packet (obsolete), simple packet, enhanced packet.
            if !matches!(kind, 1 | 2 | 3 | 6) {
                self.skip(rest)?;
                continue;
            }
            if rest > MAX_BLOCK {
                return Err(self.damaged(format_args!("a block claims {len} bytes")));
            }
            let mut body = self.data(rest)?;
            body.truncate(rest - 4); // the length comes again at the end
            if kind == 1 {
                self.interface(&body, big_endian)?;
            } else {
                return self.packet(kind, &body, big_endian).map(Some);
            }
        }
    }

    fn interface(&mut self, body: &[u8], big_endian: bool) -> Result<(), Trouble> {
        if body.len() < 8 {
            return Err(self.damaged("an interface description that is too short"));
        }
        let mut interface = Interface {
            link: u32::from(u16_at(body, 0, big_endian)),
            snap_len: u32_at(body, 4, big_endian),
            ticks_per_second: 1_000_000,
            offset_seconds: 0,
        };
        let mut options = body.get(8..).unwrap_or_default();
        while let Some((head, rest)) = options.split_first_chunk::<4>() {
            let (code, len) = (u16_at(head, 0, big_endian), usize::from(u16_at(head, 2, big_endian)));
            let Some(value) = rest.get(..len) else { break };
            match (code, value) {
                (0, _) => break,
                (9, [resolution]) => {
                    let exponent = u32::from(resolution & 0x7f);
                    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
                    interface.ticks_per_second = base.checked_pow(exponent).unwrap_or(u64::MAX);
                }
                (14, value) if len == 8 => {
                    let (first, second) = (u32_at(value, 0, big_endian), u32_at(value, 4, big_endian));
                    let (high, low) = if big_endian { (first, second) } else { (second, first) };
                    interface.offset_seconds = (u64::from(high) << 32 | u64::from(low)).cast_signed();
                }
                _ => {}
            }
            options = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        let Format::Pcapng { interfaces, .. } = &mut self.format else { return Ok(()) };
        if interfaces.len() >= MAX_INTERFACES {
            return Err(self.damaged(format_args!("more than {MAX_INTERFACES} interfaces")));
        }
        interfaces.push(interface);
        Ok(())
    }

    fn packet(&self, kind: u32, body: &[u8], big_endian: bool) -> Result<Frame, Trouble> {
        let field = |at| u32_at(body, at, big_endian);
        let header_len = if kind == 3 { 4 } else { 20 };
        if body.len() < header_len {
            return Err(self.damaged("a packet block that is too short"));
        }
        let index = match kind {
            2 => usize::from(u16_at(body, 0, big_endian)),
            3 => 0,
            _ => field(0) as usize,
        };
        let Format::Pcapng { interfaces, .. } = &self.format else { return Err(self.damaged("a block")) };
        let interface = interfaces.get(index).copied();
        let interface = interface
            .ok_or_else(|| self.damaged(format_args!("a packet of interface {index}, which is not described")))?;
        let data = body.get(header_len..).unwrap_or_default();
        let (kept, original, time) = if kind == 3 {
            let original = field(0) as usize;
            let snap = if interface.snap_len == 0 { usize::MAX } else { interface.snap_len as usize };
            (original.min(snap).min(data.len()), original, None)
        } else {
            let ticks = u64::from(field(4)) << 32 | u64::from(field(8));
            (field(12) as usize, field(16) as usize, nanoseconds(ticks, interface))
        };
        let data = data.get(..kept).ok_or_else(|| self.damaged("a frame that is longer than its block"))?;
        Ok(Frame {
            number: self.frames + 1,
            time,
            link: interface.link,
            original_len: original.max(data.len()),
            data: data.to_vec(),
        })
    }
}

/// Nanoseconds since 1970; `None` where that leaves the range.
fn nanoseconds(ticks: u64, interface: Interface) -> Option<u64> {
    let per_second = u128::from(interface.ticks_per_second.max(1));
    let nanos = u128::from(ticks).checked_mul(1_000_000_000)? / per_second;
    let offset = i128::from(interface.offset_seconds).checked_mul(1_000_000_000)?;
    u64::try_from(i128::try_from(nanos).ok()?.checked_add(offset)?).ok()
}

/// Fills `buffer` as far as the input goes, and says how far.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Trouble> {
    let mut n = 0;
    while let Some(rest) = buffer.get_mut(n..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => n += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Trouble::io(e)),
        }
    }
    Ok(n)
}

/// Four bytes at a place that the caller knows to be there.
fn u32_at(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let bytes = bytes.get(at..).and_then(|b| b.first_chunk::<4>()).copied().unwrap_or_default();
    if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

fn u16_at(bytes: &[u8], at: usize, big_endian: bool) -> u16 {
    let bytes = bytes.get(at..).and_then(|b| b.first_chunk::<2>()).copied().unwrap_or_default();
    if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
}
