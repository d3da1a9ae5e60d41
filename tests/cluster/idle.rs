//! What a node costs while nothing happens: memory and processor, read from the system.

use std::fs;
use std::time::Duration;

use crate::harness::{Cluster, Running};
use crate::watch::{Stopwatch, let_pass};

/// Resident memory of one node.
/// The promise is 40 MiB. An unoptimized build needs some more for its code alone, which tells nothing about the product.
const MEMORY_KIB_MAX: u64 = if cfg!(debug_assertions) { 48 * 1_024 } else { 40 * 1_024 };

/// Long enough for a hundred words and probes, short enough for every run.
const MEASURED: Duration = Duration::from_secs(10);

/// What Linux counts in, whatever the kernel's own clock.
const TICKS_PER_SECOND: u64 = 100;

/// Share of one core. The promise is one per cent; an unoptimized build is several times slower at the same work.
const BUSY_MAX: f64 = if cfg!(debug_assertions) { 0.03 } else { 0.01 };

#[test]
fn two_linked_nodes_that_do_nothing_cost_next_to_nothing() {
    let cluster = Cluster::new();
    let nodes = cluster.site(["a", "b"]);
    // The start is over when the links are measured and the last page of it is no longer counted.
    let_pass(Duration::from_secs(2));
    let watch = Stopwatch::start();
    let before = nodes.each_ref().map(busy);
    let_pass(MEASURED);
    let after = nodes.each_ref().map(busy);
    let span = watch.elapsed().as_secs_f64();
    for (place, node) in nodes.iter().enumerate() {
        let share = after[place].saturating_sub(before[place]).as_secs_f64() / span;
        let memory = memory_kib(node);
        eprintln!("{}: {memory} KiB resident, {:.2} % of a core", node.name(), share * 100.0);
        assert!(memory <= MEMORY_KIB_MAX, "{memory} KiB");
        assert!(share < BUSY_MAX, "{share}");
    }
}

fn memory_kib(node: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Time on a processor so far, of all threads, ended ones included.
fn busy(node: &Running) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid())).expect("it runs");
    // The name in parentheses may hold anything; behind it `utime` and `stime` are the twelfth and thirteenth field.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|it| it.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}
