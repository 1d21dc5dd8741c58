//! What is done to a group, one thing after the other. In the quick set there are two groups for everything; in the slow set each
//! thing has a group of its own, and more of it.

use std::pin::Pin;
use std::time::Duration;

use super::lab::{Lab, run, say, skipped, slow_set};
use super::{changes, clocks, full_disk, partitions, place, rolling, setback, sleeper, slow_link};

/// Only some of it: names, with commas.
const ONLY: &str = "SALLYPORT_LAB_ONLY";

/// A thing that is done.
struct Act {
    name: &'static str,
    /// What it cannot do without on this machine.
    possible: fn(&Lab) -> Result<(), String>,
    /// Before there is a group.
    prepare: fn(&mut Lab),
    /// Returns what was done, in words.
    play: for<'a> fn(&'a mut Lab) -> Pin<Box<dyn Future<Output = String> + 'a>>,
}

const ANYWHERE: fn(&Lab) -> Result<(), String> = |_| Ok(());
const NAMESPACES: fn(&Lab) -> Result<(), String> = |lab| match place::inside() {
    Err(why) if !lab.place.is_a_network() => Err(why.clone()),
    _ => Ok(()),
};
const NOTHING: fn(&mut Lab) = |_| {};

/// To one group. The last one leaves nothing to go on with.
const FIRST: &[Act] = &[
    Act { name: "rolling", possible: ANYWHERE, prepare: rolling::prepare, play: |lab| Box::pin(rolling::act(lab)) },
    Act { name: "partitions", possible: NAMESPACES, prepare: NOTHING, play: |lab| Box::pin(partitions::act(lab)) },
    Act { name: "changes", possible: ANYWHERE, prepare: NOTHING, play: |lab| Box::pin(changes::act(lab)) },
    Act { name: "setback", possible: ANYWHERE, prepare: NOTHING, play: |lab| Box::pin(setback::act(lab)) },
];

/// To another, meanwhile.
const SECOND: &[Act] = &[
    Act { name: "sleeper", possible: ANYWHERE, prepare: NOTHING, play: |lab| Box::pin(sleeper::act(lab)) },
    Act {
        name: "clocks",
        possible: clocks::possible,
        prepare: clocks::prepare,
        play: |lab| Box::pin(clocks::act(lab)),
    },
    Act { name: "slow_link", possible: NAMESPACES, prepare: NOTHING, play: |lab| Box::pin(slow_link::act(lab)) },
    Act {
        name: "full_disk",
        possible: NAMESPACES,
        prepare: full_disk::prepare,
        play: |lab| Box::pin(full_disk::act(lab)),
    },
];

#[test]
fn a_group_goes_on_under_restarts_cut_links_and_changes_of_its_members() {
    let name = "a_group_goes_on_under_restarts_cut_links_and_changes_of_its_members";
    run(module_path!(), name, async |lab: &mut Lab| scenario(lab, FIRST).await);
}

#[test]
fn a_group_goes_on_under_sleep_wrong_clocks_and_full_disks() {
    let name = "a_group_goes_on_under_sleep_wrong_clocks_and_full_disks";
    run(module_path!(), name, async |lab: &mut Lab| scenario(lab, SECOND).await);
}

async fn scenario(lab: &mut Lab, all: &[Act]) {
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut chosen = Vec::new();
    for act in all {
        let named = only.split(',').any(|name| name == act.name);
        match (act.possible)(lab) {
            _ if !named && !only.is_empty() => {}
            Ok(()) => chosen.push(act),
            Err(why) => skipped(&format!("{why}: cluster_lab, {}", act.name)),
        }
    }
    let groups: Vec<&[&Act]> = chosen.chunks(if slow_set() { 1 } else { usize::MAX }).collect();
    for (n, acts) in groups.into_iter().enumerate() {
        lab.renew(&format!("group{n}"));
        acts.iter().for_each(|act| (act.prepare)(lab));
        let begun = tokio::time::Instant::now();
        lab.form().await;
        say(&format!("a group of three after {} ms", begun.elapsed().as_millis()));
        for act in acts {
            lab.play(act).await;
        }
        if lab.is_open() {
            lab.conclude().await;
        }
    }
}

impl Lab {
    async fn play(&mut self, act: &Act) {
        self.fault(act.name);
        let (begun, before) = (tokio::time::Instant::now(), self.world().acknowledged());
        self.world().longest_stall(); // of what was before
        let what = (act.play)(self).await;
        let stall = if self.is_open() { self.world().longest_stall() } else { Duration::ZERO };
        say(&format!(
            "{}: {what}; {} ms, {} sessions acknowledged, longest stall {} ms",
            act.name,
            begun.elapsed().as_millis(),
            self.world().acknowledged() - before,
            stall.as_millis()
        ));
    }
}
