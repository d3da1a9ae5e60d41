//! Real binaries on loopback: whole nodes started, cut off, killed and restarted, seen from outside only.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stderr,
    reason = "a test may stop at the first surprise, and says what it measured"
)]

#[path = "../support/chance.rs"]
mod chance;
mod harness;
mod http;
mod netns;
mod proxy;
mod question;
mod rates;
mod secure;
mod vitals;
mod watch;
#[cfg(feature = "spire")]
mod workload_api;

mod accept;
mod audit;
mod bundles;
mod cli;
mod clock;
mod commands;
mod crash;
mod damage;
mod disk;
mod dispatch;
mod faults;
mod fleet;
mod identity;
mod idle;
mod join;
mod leaks;
mod lines;
mod observed;
mod plant;
mod policy;
mod presence;
mod reload;
mod renewal;
mod roles;
mod rollover;
mod runs;
mod scouting;
mod shutdown;
mod sites;
#[cfg(feature = "spire")]
mod spire;
mod stolen;
mod storm;
mod streams;
mod validate;
mod walkthrough;
mod witness;
mod workload;
