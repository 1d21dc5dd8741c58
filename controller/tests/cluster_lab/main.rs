//! A cluster of real processes, clients that use it all the while, and what operators fear: kills, cut and slow links, processes
//! that sleep, clocks that jump, full disks, restarts, members that come and go. A history of all that was acknowledged is
//! checked afterwards (`check`), and the checker is checked by faults put in on purpose (`planted`, `setback`).
//!
//! Each controller is a process of its own, this test as a child, in a network namespace of its own where the machine allows
//! that (`place`). By hand, longer and more of everything, and what was seen:
//!
//!     SALLYPORT_CLUSTER_SLOW=1 cargo test -p sallyport-controller --test cluster_lab -- --nocapture

mod changes;
mod check;
mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod full_disk;
mod history;
mod kills;
mod lab;
mod member;
mod newcomer;
mod partitions;
mod place;
mod planted;
mod rolling;
mod row;
mod setback;
mod sleeper;
mod slow_link;
mod workload;
