//! What a node costs while nothing happens: memory and processor, read from the system.

use std::fs;
use std::time::Duration;

use crate::harness::{Cluster, OTHER_PROGRAM, Running};
use crate::watch::{Stopwatch, let_pass};

/// Resident memory of one node and its share of one core: what is promised of the build that is delivered. The gate runs
/// this test on that build too.
const PROMISED: Bounds = Bounds { memory_kib: 40 * 1_024, busy: 0.01 };

/// An unoptimized build needs more for its code alone and is several times slower at the same work.
const UNOPTIMIZED: Bounds = Bounds { memory_kib: 64 * 1_024, busy: 0.03 };

struct Bounds {
    memory_kib: u64,
    busy: f64,
}

/// Long enough for a hundred words and probes, short enough for every run.
const MEASURED: Duration = Duration::from_secs(10);

/// What Linux counts in, whatever the kernel's own clock.
const TICKS_PER_SECOND: u64 = 100;

#[test]
fn two_linked_nodes_that_do_nothing_cost_next_to_nothing() {
    let bounds = if std::env::var_os(OTHER_PROGRAM).is_some() { PROMISED } else { UNOPTIMIZED };
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
        assert!(memory <= bounds.memory_kib, "{memory} KiB");
        assert!(share < bounds.busy, "{share}");
    }
}

pub(crate) fn memory_kib(node: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Time on a processor so far, of all threads, ended ones included.
pub(crate) fn busy(node: &Running) -> Duration {
    busy_of(node.pid())
}

/// The same of any process.
pub(crate) fn busy_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name in parentheses may hold anything; behind it `utime` and `stime` are the twelfth and thirteenth field.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|it| it.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}
