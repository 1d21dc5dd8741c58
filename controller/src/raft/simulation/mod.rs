//! The Raft layer under a simulated network, on simulated disks, in virtual time: interleavings that processes do not reach.
//!
//! Each seed is a group of three or five nodes ([`Node`](super::Node) as it is, on openraft as it is) that suffers cut ways, loss,
//! delay, repetition, slow lines, power failures that forget what was not synced, slow disks, processes that stand still, changes of its
//! members, snapshots and handed-over leads, while clients write and read. [`ledger`] says what must hold throughout; in the
//! end everything works again, and all nodes must come to stand at the same entry with the same state.
//!
//!     SALLYPORT_SEED=4711 cargo test -p sallyport-controller --lib raft::simulation        # replays one, with all that happens
//!     SALLYPORT_SEEDS=10000 SALLYPORT_SEED_FROM=1 cargo test -p sallyport-controller --lib raft::simulation
//!     SALLYPORT_SEED_SECONDS=600 ...                                                          # begins none after ten minutes
//!     SALLYPORT_SLOW_LINE=1 ...                                                               # one follower has a slow line instead
//!
//! # What makes it repeatable
//!
//! openraft leaves tasks, time and chance to [`openraft::AsyncRuntime`]. In tests that is [`runtime::Runtime`], which runs a
//! simulation's tasks on [`executor`]: one thread, time that jumps, and the order of tasks drawn from the seed. No tokio runtime
//! is there. The thread of [`commit`](super::commit) and the blocking thread that writes a snapshot are tasks in a simulation
//! (see [`disk`]). What is left of chance:
//!
//! - `tokio::select!` without `biased`, whose first branch tokio draws from a generator that nobody can seed: openraft has one where
//!   a replication that failed waits (the same events are taken either way, at the same virtual time), and one in
//!   `Raft::wait`, where it decides only if the limit and the change come in the same nanosecond;
//! - the order in which tokio wakes several tasks that watch one value: the executor puts those woken in one poll into an order of its own.
//!
//! So the same seed gives the same run, event by event; `the_same_seed_is_the_same_run` holds it to that.
//!
//! # What is not simulated
//!
//! The engines and the files of snapshots (`tests/power_loss` and `tests/kill.rs` do these); the gRPC layer; more than one thread inside a
//! node. Terms can have two leaders here: openraft orders leaders by term *and* node, so what must hold is that a leader id
//! belongs to one process, that it has all that was committed before, and that nobody disagrees about any entry.

mod chaos;
mod clients;
mod disk;
mod executor;
mod ledger;
mod network;
mod runtime;
mod world;

pub(super) use executor::is_active;
pub(super) use runtime::{AbortHandle, Runtime};

use world::{Outcome, Planted, Settings};

/// What a snapshot's way to the disk takes.
pub(super) async fn disk_pause() {
    let time = executor::Random::new(executor::draw()).micros(100, 80_000);
    executor::sleep(time).await;
}

/// Runs a test whose waits take no time.
pub(super) fn in_virtual_time<T: Send + 'static>(test: impl Future<Output = T> + Send + 'static) -> T {
    executor::run(1, test).expect("it ends, and does not panic")
}

/// Says something past the capturing of output.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}"); // nobody may listen
}

#[cfg(test)]
mod tests;
