//! Clients at a time, and what they see.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One client: each call is a command, and returns once it is acknowledged.
pub(crate) trait Client: Send + 'static {
    fn command(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Durations, seconds.
#[derive(Default)]
pub(crate) struct Latencies(Vec<f32>);

impl Latencies {
    pub(crate) fn note(&mut self, time: Duration) {
        self.0.push(time.as_secs_f32());
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time within which this part of all was done, milliseconds.
    pub(crate) fn ms(&mut self, part: f64) -> f64 {
        self.0.sort_unstable_by(f32::total_cmp);
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).map_or(f64::NAN, |s| f64::from(*s) * 1e3)
    }
}

/// Processor time that a process has taken so far; Linux counts it in hundredths of a second.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|at: &usize| fields[*at].parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Microseconds of processor time for each of so many.
pub(crate) fn micros_each(time: Duration, count: f64) -> f64 {
    time.as_secs_f64() * 1e6 / count
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Every client asks for its next command when the last is acknowledged. Gives commands per second, and how long each took.
pub(crate) async fn closed<C: Client>(warm_up: Duration, each: Duration, clients: Vec<C>) -> (f64, Latencies) {
    let begin = Instant::now() + warm_up;
    let end = begin + each;
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let mut seen = Latencies::default();
                loop {
                    let asked = Instant::now();
                    if asked >= end {
                        return seen;
                    }
                    client.command().await;
                    let now = Instant::now();
                    if now >= begin && now < end {
                        seen.note(now - asked);
                    }
                }
            })
        })
        .collect();
    let mut all = Latencies::default();
    for task in tasks {
        all.merge(task.await.unwrap());
    }
    (all.count() as f64 / each.as_secs_f64(), all)
}

/// Commands at a steady rate, as far as the clients come; `done` counts those acknowledged.
pub(crate) async fn paced<C: Client>(rate: f64, lasting: Duration, clients: Vec<C>, done: Arc<AtomicU64>) {
    let count = clients.len().max(1) as f64;
    let (begin, gap) = (Instant::now(), Duration::from_secs_f64(count / rate));
    let tasks: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(number, mut client)| {
            let done = done.clone();
            tokio::spawn(async move {
                let mut next = begin + gap.mul_f64(number as f64 / count);
                while next < begin + lasting {
                    tokio::time::sleep_until(next.into()).await;
                    client.command().await;
                    done.fetch_add(1, Ordering::Relaxed);
                    next += gap;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
