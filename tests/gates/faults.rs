//! `scripts/fault_harness.sh` over storms that nobody saw.

use tempfile::TempDir;

use crate::{Verdict, gate, program};

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
