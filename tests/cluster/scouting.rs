//! Nodes that find each other by multicast: when they serve, and when they see each other. Each test is a network of its own, because
//! multicast does not tell tests apart.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::netns::Spaces;
use crate::plant::{Plant, write_settings};
use crate::watch::Stopwatch;

/// How often a start is timed in each way. The pair with the smallest difference counts: nothing else held up its second one.
const STARTS: usize = 3;

/// What scouting may add to the time of a start. Waiting for it would add half a second or more each time.
const ADDED_MAX: Duration = Duration::from_millis(300);

/// A network where nodes look for each other, or do not.
struct Network {
    spaces: Spaces,
    folder: TempDir,
}

impl Network {
    fn new(test: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("trust-scouting-").tempdir().expect("a folder");
        Self { spaces: Spaces::new(test, &["here"]), folder }
    }

    fn project(&self, name: &str, scouts: bool) -> PathBuf {
        let project = self.folder.path().join(name);
        fs::create_dir_all(&project).expect("a folder");
        let text = format!(
            "[bundle]\nversion = 1\n[resource]\nname = {name:?}\n[runtime.web]\nlisten = \"127.0.0.1:0\"\n\
             [runtime.discovery]\nenabled = {scouts}\n[runtime.mesh]\nlisten = \"127.0.0.1:0\"\n"
        );
        write_settings(&project, &text);
        project
    }

    /// Starts a node and gives how long it took until it said that it is ready.
    fn start(&self, name: &str, scouts: bool) -> (Plant, Duration) {
        let project = self.project(name, scouts);
        let watch = Stopwatch::start();
        let node = Plant::start_in(Some(self.spaces.of("here")), project);
        let took = watch.elapsed();
        let ready = node.curl("/dev/null", "/readyz", &["--fail"], None);
        assert!(ready.status.success(), "{}", String::from_utf8_lossy(&ready.stderr));
        (node, took)
    }
}

#[test]
fn a_node_is_ready_before_it_has_looked_for_others_and_finds_them_afterwards() {
    let network = Network::new("scouting");
    let timed = |scouts: bool, number: usize| {
        // Nobody is there to be found, which is when waiting takes longest.
        let (node, took) = network.start(&format!("alone-{scouts}-{number}"), scouts);
        drop(node);
        took
    };
    // In turns, so that what else the machine does meets both.
    let spans: Vec<_> = (0..STARTS).map(|number| (timed(false, number), timed(true, number))).collect();
    eprintln!("ready without scouting and with it: {spans:?}");
    let added = spans.iter().map(|(without, with)| with.saturating_sub(*without)).min().expect("some");
    assert!(added <= ADDED_MAX, "scouting adds {added:?}");

    let nodes = ["a", "b", "c"].map(|name| network.start(name, true));
    let watch = Stopwatch::start();
    for (node, took) in &nodes {
        eprintln!("{} was ready after {took:?}", node.name());
        for other in ["a", "b", "c"].into_iter().filter(|it| *it != node.name()) {
            node.sees(other, "lifecycle_state", "online");
        }
    }
    eprintln!("all see each other {:?} after the last start", watch.elapsed());
}
