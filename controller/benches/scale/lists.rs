//! How long the revocation lists of a state are.

use sallyport_ca::crl::{Contents, Revoked, SHARDS, shard_of};
use sallyport_ca::{SystemRandom, UnixTime};
use sallyport_controller::state::State;

use crate::enrolled::authority;

/// Makes the list of all that is revoked, and those of the shards, at the time of the log.
pub(crate) fn measure(state: &State) {
    // A state holds what no authority of today could have signed: its own time counts, not the machine's.
    let now = UnixTime((state.now_ms() / 1_000) as i64);
    let authority = authority();
    let begun = std::time::Instant::now();
    let entry = |row: &sallyport_controller::state::CertificateRow| Revoked {
        serial: row.serial.parse().unwrap(),
        at: UnixTime((row.revoked_ms / 1_000) as i64),
        reason: row.reason(),
    };
    let all: Vec<Revoked> = state.revoked_of(0, state.now_ms()).map(entry).collect();
    let list = |points: &[&str], revoked: &[Revoked]| {
        let next_update = UnixTime(now.0 + 2 * 86_400);
        let contents = Contents { distribution_points: points, number: 1, revoked, this_update: now, next_update };
        let tbs = authority.prepare_revocation_list(&contents).unwrap();
        authority.sign_revocation_list(&tbs, &SystemRandom::new()).unwrap().len()
    };
    let whole = list(&[], &all);
    let made = begun.elapsed().as_secs_f64() * 1e3;
    let mut shards: Vec<usize> = (0..SHARDS)
        .map(|shard| {
            let part: Vec<Revoked> = all.iter().filter(|r| shard_of(&r.serial) == shard).cloned().collect();
            list(&[&format!("http://vpn.example.org/ca/1/{shard}.crl")], &part)
        })
        .collect();
    shards.sort_unstable();
    println!(
        "  lists: {} revoked; the whole one {whole} octets, made in {made:.0} ms; {SHARDS} shards of {} to {} octets, {} in the middle",
        all.len(),
        shards[0],
        shards[shards.len() - 1],
        shards[shards.len() / 2]
    );
}
