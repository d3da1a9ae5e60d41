//! `scripts/fault_harness.sh` over storms that nobody saw.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::demo::{repository, until};
use crate::{Verdict, executable, gate, program};

const HELD: &str = "VERDICT seed 7, 3 nodes: holds; 1 storms in 30s";
const BROKEN: &str = "VERDICT seed 8, 3 nodes: BROKEN; 2 storms in 60s";

fn harness(says: &[&str], code: i32) -> Verdict {
    harness_for("0", says, code)
}

fn harness_for(seconds: &str, says: &[&str], code: i32) -> Verdict {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("harness");
    program(&path, &says.join("\n"), code);
    gate("fault_harness.sh", &["--seconds", seconds, "--seed", "7"], &[("FAULTS_HARNESS", &path)])
}

#[test]
fn storms_that_hold_are_good_and_one_that_breaks_a_promise_is_not() {
    harness(&[HELD], 0).is(0, &["1 storms held, 0 broke a promise"]);
    harness(&[HELD, BROKEN], 101).is(1, &["1 storms held, 1 broke a promise", "seed 8"]);
    // Whatever the program makes of it.
    harness(&[HELD, BROKEN], 0).is(1, &["1 broke a promise"]);
}

#[test]
fn a_storm_without_an_end_is_no_storm_that_held() {
    for (says, code) in [(&[HELD][..], 101), (&["running 0 tests"], 0), (&["panicked"], 101)] {
        harness(says, code).is(2, &["did not come to their end"]);
    }
}

#[test]
fn storms_that_end_before_their_time_do_not_count_for_all_of_it() {
    harness_for("3600", &[HELD], 0).is(2, &["wanted 3600"]);
}

#[test]
fn what_is_no_number_is_refused() {
    for arguments in [&["--seconds"][..], &["--seconds", "long"], &["--seed", "-1"], &["--nodes", "9"]] {
        gate("fault_harness.sh", arguments, &[]).is(2, &["wanted"]);
    }
}

/// Processes that work in this folder.
fn workers(folder: &Path) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("the processes").flatten().map(|entry| entry.path());
    let here = all.filter(|it| fs::read_link(it.join("cwd")).is_ok_and(|cwd| cwd == folder));
    here.map(|it| it.display().to_string()).collect()
}

/// Ended, so that a failing test leaves nobody behind either.
struct Storming(Child);

impl Drop for Storming {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Whoever storms, and who has left his family and his session as a node's program may.
#[test]
fn a_harness_that_is_killed_takes_everything_along() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("harness");
    let work = folder.path().join("work");
    fs::create_dir(&work).expect("made");
    let text = format!("#!/bin/bash\ncd '{}'\n(setsid sleep 120 &)\nsleep 120 &\nwait\n", work.display());
    executable(&path, &text);
    let mut command = Command::new(repository().join("scripts/fault_harness.sh"));
    command.args(["--seconds", "600"]).env("FAULTS_HARNESS", &path).env("TMPDIR", folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut storming = Storming(command.spawn().expect("it starts"));
    until("three work", || workers(&work).len() == 3);
    // As `kill -9`: it can end nobody any more.
    storming.0.kill().expect("our child");
    storming.0.wait().expect("our child");
    until("nobody is left", || workers(&work).is_empty());
}
