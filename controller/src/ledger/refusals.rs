//! Refused certificates on their way into the records. Anybody can be refused as often as he likes, and the log forgets nothing: so
//! there is room for some at once and for one every half minute from then on, and for a few an hour of one place. What is left out
//! is counted, and the next one that is recorded says how many.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use sallyport_proto::v1;

use crate::app::Core;
use crate::state::{Action, LEDGER_LEVEL, RecordAttempts, Refusal};

/// Refusals that are recorded at once.
const BURST: u64 = 20;
/// Time in which there is room for another, milliseconds: some 3,000 a day for each controller, less than a megabyte.
const REFILL_MS: u64 = 30_000;
/// Refusals of one place that are recorded in an hour.
const OF_PLACE: u32 = 6;
/// The time after which places are counted anew, milliseconds.
const HOUR_MS: u64 = 3_600_000;
/// Places that are counted.
const PLACES: usize = 4_096;

/// Longest text of a record, characters: what strangers showed may be in it, and it is kept for ever.
const MAX_TEXT: usize = 512;

#[derive(Debug)]
struct Room {
    /// Up to when the room is used up, monotonic milliseconds.
    used_up_to_ms: u64,
    hour_ms: u64,
    places: BTreeMap<[u8; 8], u32>,
    left_out: u64,
}

/// The room for refusals.
#[derive(Debug)]
pub(crate) struct Refusals(Mutex<Room>);

impl Default for Refusals {
    fn default() -> Self {
        let room = Room { used_up_to_ms: 0, hour_ms: 0, places: BTreeMap::new(), left_out: 0 };
        Self(Mutex::new(room))
    }
}

/// A network that one party has: an IPv4 address, or 64 bits of an IPv6 one.
fn place(source: IpAddr) -> [u8; 8] {
    match source.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [0, 0, 0, 4, a, b, c, d]
        }
        IpAddr::V6(v6) => v6.octets().first_chunk().copied().unwrap_or_default(),
    }
}

impl Refusals {
    /// Whether there is room for one of this place now, monotonic milliseconds; if so, how many were left out before it.
    pub(crate) fn admit(&self, source: IpAddr, now_ms: u64) -> Option<u64> {
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ms.saturating_sub(room.hour_ms) >= HOUR_MS {
            room.hour_ms = now_ms;
            room.places.clear();
        }
        let full = room.places.len() >= PLACES;
        let of_place = match room.places.get_mut(&place(source)) {
            Some(count) => {
                *count = count.saturating_add(1);
                *count
            }
            None if full => OF_PLACE + 1,
            None => {
                room.places.insert(place(source), 1);
                1
            }
        };
        // What was used long ago has come back.
        let used_up_to = room.used_up_to_ms.max(now_ms);
        if of_place > OF_PLACE || used_up_to + REFILL_MS > now_ms + BURST * REFILL_MS {
            room.left_out += 1;
            return None;
        }
        room.used_up_to_ms = used_up_to + REFILL_MS;
        Some(std::mem::take(&mut room.left_out))
    }

    fn leave_out(&self, more: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).left_out += more;
    }
}

/// Records a refused certificate, if there is room. Whoever asked does not wait for it.
pub(crate) fn record(core: &Arc<Core>, source: IpAddr, refusal: &Refusal) {
    if core.node.shared().read().level() < LEDGER_LEVEL {
        return;
    }
    let Some(left_out) = core.audit.refusals.admit(source, core.clock.monotonic_ms()) else { return };
    let short = |text: &str| text.chars().take(MAX_TEXT).collect::<String>();
    let mut cause = short(&refusal.cause);
    if left_out > 0 {
        cause = format!("{cause} ({left_out} more refusals were left out before this one)");
    }
    let (core, remedy) = (core.clone(), short(&refusal.remedy));
    tokio::spawn(async move {
        let Ok(id) = core.new_id() else { return };
        let attempt = v1::Attempt {
            id: id.to_vec(),
            time_unix_ms: core.now_ms(),
            remote: source.to_canonical().to_string(),
            phase: v1::Phase::Enrollment.into(),
            outcome: v1::Outcome::Refused.into(),
            cause,
            remedy,
            controller_time: true,
            ..v1::Attempt::default()
        };
        let command = RecordAttempts { attempts: vec![attempt], ..RecordAttempts::default() };
        if let Err(error) = core.propose_plain(Action::RecordAttempts(command)).await {
            tracing::debug!(%error, "a refused certificate was not recorded");
            core.audit.refusals.leave_out(left_out + 1);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn one_place_has_little_room_and_leaves_that_of_others() {
        let refusals = Refusals::default();
        let admitted = (0..1_000).filter(|_| refusals.admit(from(1), 0).is_some()).count();
        assert_eq!(admitted, OF_PLACE as usize);
        assert_eq!(refusals.admit(from(2), 0), Some(1_000 - u64::from(OF_PLACE)), "which says how many are missing");
        assert_eq!(refusals.admit(from(1), HOUR_MS), Some(0), "an hour later");
        let v6: IpAddr = "2001:db8::1".parse().expect("an address");
        let near: IpAddr = "2001:db8::2:3".parse().expect("an address");
        assert_eq!(place(v6), place(near));
    }

    #[test]
    fn a_crowd_of_places_has_the_room_of_all_and_no_more() {
        let refusals = Refusals::default();
        let admitted = |from_ms: u64, n: u32| (0..n).filter(|i| refusals.admit(from(*i), from_ms).is_some()).count();
        assert_eq!(admitted(0, 10_000), BURST as usize);
        assert_eq!(admitted(10 * REFILL_MS, 20), 10, "it comes back with time");
        let room = refusals.0.lock().expect("whole");
        assert!(room.places.len() <= PLACES);
    }
}
