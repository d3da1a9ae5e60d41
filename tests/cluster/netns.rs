//! Network namespaces that a test makes and takes away again: each is a machine of its own as far as the network goes.

use std::fs;
use std::process::Command;

/// What all names begin with; the test's process and a name follow.
const PREFIX: &str = "trust-sites-";

/// The namespaces of one test, joined in pairs. Declare it before what runs in them, so that it ends after that.
pub(crate) struct Spaces {
    names: Vec<String>,
}

impl Spaces {
    /// Makes one for each name, with its loopback up.
    #[track_caller]
    pub(crate) fn new(test: &str, names: &[&str]) -> Self {
        sweep();
        let mut spaces = Self { names: Vec::new() };
        for name in names {
            let full = format!("{PREFIX}{}-{test}-{name}", std::process::id());
            ip(&["netns", "add", &full]);
            spaces.names.push(full);
            ip(&["-n", &spaces.of(name), "link", "set", "lo", "up"]);
        }
        spaces
    }

    /// The full name of a namespace.
    pub(crate) fn of(&self, name: &str) -> String {
        let suffix = format!("-{name}");
        self.names.iter().find(|it| it.ends_with(&suffix)).cloned().expect("one of ours")
    }

    /// Joins two by a cable: the first has `10.77.<number>.1`, the second `.2`.
    #[track_caller]
    pub(crate) fn join(&self, number: u8, one: &str, other: &str) {
        let (one, other) = (self.of(one), self.of(other));
        let cable = cable(number);
        ip(&["link", "add", &cable, "netns", &one, "type", "veth", "peer", "name", &cable, "netns", &other]);
        for (space, end) in [(&one, 1), (&other, 2)] {
            ip(&["-n", space, "address", "add", &format!("10.77.{number}.{end}/24"), "dev", &cable]);
            ip(&["-n", space, "link", "set", &cable, "up"]);
        }
    }

    /// Pulls a cable at this end, or plugs it in again.
    #[track_caller]
    pub(crate) fn set(&self, number: u8, at: &str, state: &str) {
        ip(&["-n", &self.of(at), "link", "set", &cable(number), state]);
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for name in &self.names {
            remove(name);
        }
    }
}

fn cable(number: u8) -> String {
    format!("wan{number}")
}

/// A test that was killed could not take its namespaces away.
fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|it| it.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|it| it.split('-').next()).map(str::to_owned);
        if owner.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    // What does not go now goes with the next run's sweep.
    drop(Command::new("ip").args(["netns", "delete", name]).output());
}

#[track_caller]
fn ip(arguments: &[&str]) {
    const NEED: &str = "this test makes network namespaces, which takes root and the package iproute2";
    let output = match Command::new("ip").args(arguments).output() {
        Ok(output) => output,
        Err(error) => panic!("{NEED}: ip: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{NEED}: ip {}: {said}", arguments.join(" "));
}
