//! A packet in somebody's buffer, for the batch interfaces.

use core::ops::Range;

use crate::{EspDrop, InboundSa, OutboundSa};

/// A window into a buffer: the ESP packet before opening and after sealing, the payload otherwise.
///
/// It does not own bytes, so that a batch can lie in one receive buffer (GRO) or in many (`recvmmsg`).
#[derive(Debug)]
pub struct Packet<'b> {
    buf: &'b mut [u8],
    start: usize,
    end: usize,
    next_header: u8,
    outcome: Result<(), EspDrop>,
}

impl<'b> Packet<'b> {
    /// An ESP packet that fills `buf`, to be opened.
    #[must_use]
    pub fn sealed(buf: &'b mut [u8]) -> Self {
        let end = buf.len();
        Self { buf, start: 0, end, next_header: 0, outcome: Ok(()) }
    }

    /// A payload of IP protocol `next_header` at `payload` in `buf`, to be sealed, with room around it
    /// ([`HEAD_ROOM`](crate::HEAD_ROOM), [`TAIL_ROOM`](crate::TAIL_ROOM)).
    ///
    /// If `buf` does not have such bytes, the outcome is [`EspDrop::NoRoom`].
    #[must_use]
    pub fn plain(buf: &'b mut [u8], payload: Range<usize>, next_header: u8) -> Self {
        if buf.get(payload.clone()).is_none() {
            return Self { buf, start: 0, end: 0, next_header, outcome: Err(EspDrop::NoRoom) };
        }
        Self { buf, start: payload.start, end: payload.end, next_header, outcome: Ok(()) }
    }

    /// What the packet is now: payload or ESP packet. Empty after an error.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.buf.get(self.range()).unwrap_or_default()
    }

    /// The same, to be changed in place.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        self.buf.get_mut(range).unwrap_or_default()
    }

    /// Where in the buffer it lies.
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// IP protocol number of the payload.
    #[must_use]
    pub const fn next_header(&self) -> u8 {
        self.next_header
    }

    /// Whether it got through so far.
    pub const fn outcome(&self) -> Result<(), EspDrop> {
        self.outcome
    }

    fn fail(&mut self, drop: EspDrop) -> bool {
        self.end = self.start;
        self.outcome = Err(drop);
        false
    }

    pub(crate) fn open_with(&mut self, sa: &mut InboundSa) -> bool {
        if self.outcome.is_err() {
            return false;
        }
        match sa.open(self.data_mut()) {
            Ok(opened) => {
                let payload = opened.payload();
                self.end = self.start + payload.end;
                self.start += payload.start;
                self.next_header = opened.next_header;
                true
            }
            Err(drop) => self.fail(drop),
        }
    }

    pub(crate) fn seal_with(&mut self, sa: &mut OutboundSa) -> bool {
        if self.outcome.is_err() {
            return false;
        }
        match sa.seal(self.buf, self.start..self.end, self.next_header) {
            Ok(packet) => {
                (self.start, self.end) = (packet.start, packet.end);
                true
            }
            Err(drop) => self.fail(drop),
        }
    }
}
