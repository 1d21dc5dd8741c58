//! What the targets share: how one input becomes several packets, and the passing of time.

use sallyport_base::Instant;

/// Most packets taken from one input: a state machine's work for an input stays small.
const MAX_PACKETS: usize = 64;

/// One step of a conversation with a state machine.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// A byte to choose with: from whom, in which role, and the like.
    pub choice: u8,
    /// What time it is. It goes forward by 0 to 127 seconds a step.
    pub now: Instant,
    /// The packet.
    pub packet: &'a [u8],
}

/// Cuts an input into packets. In front of each stand a byte to choose with, one for the time that has passed (half seconds)
/// and two for the length; a length that is too large takes what is left.
pub fn steps(mut input: &[u8]) -> impl Iterator<Item = Step<'_>> {
    let mut millis = 0;
    std::iter::from_fn(move || {
        let ([choice, wait, high, low], rest) = input.split_first_chunk::<4>()?;
        millis += u64::from(*wait) * 500;
        let (packet, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes([*high, *low]))));
        input = rest;
        Some(Step { choice: *choice, now: Instant::from_millis(millis), packet })
    })
    .take(MAX_PACKETS)
}
