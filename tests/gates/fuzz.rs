//! `scripts/runtime_comms_fuzz_gate.sh` over fuzzers that find something, or see nothing.

use std::path::Path;

use crate::root::Root;
use crate::{Verdict, gate, program};

const GOOD: &str = "#1024 INITED cov: 812 ft: 900 corp: 31/2Kb exec/s: 0 rss: 60Mb\n\
    #50000 DONE   cov: 840 ft: 1000 corp: 40/3Kb exec/s: 9000 rss: 70Mb\nstat::number_of_executed_units: 50000";

fn fuzzed(says: &str, code: i32, arguments: &[&str]) -> Verdict {
    let folder = tempfile::tempdir().expect("a folder");
    program(&folder.path().join("actor"), says, code);
    let arguments = [&["--target", "actor", "--seconds", "1"], arguments].concat();
    let target = folder.path().join("target");
    let variables = [("FUZZ_PROGRAMS", folder.path()), ("CARGO_TARGET_DIR", target.as_path())];
    gate("runtime_comms_fuzz_gate.sh", &arguments, &variables)
}

#[test]
fn a_target_that_nothing_breaks_passes_with_what_it_reached() {
    fuzzed(GOOD, 0, &[]).is(0, &["PASS", "actor", "50000 runs", "840 edges", "1 passed, 0 failed"]);
}

#[test]
fn an_input_that_breaks_a_target_is_named_and_fails_the_gate() {
    let found = format!("{GOOD}\nTest unit written to broken/actor/crash-0123");
    fuzzed(&found, 77, &[]).is(1, &["FAIL", "Test unit written to broken/actor/crash-0123", "0 passed, 1 failed"]);
    fuzzed(GOOD, 1, &[]).is(1, &["FAIL", "it ended with 1"]);
}

#[test]
fn a_fuzzer_that_sees_no_coverage_is_no_fuzzer() {
    fuzzed(&GOOD.replace("cov: ", "ft: "), 0, &[]).is(1, &["no coverage was seen"]);
    fuzzed(&GOOD.replace("stat::number_of_executed_units: 50000", ""), 0, &[]).is(1, &["nothing was executed"]);
}

#[test]
fn a_fuzzer_that_ends_before_its_time_or_its_corpus_has_not_fuzzed() {
    fuzzed(GOOD, 0, &["--seconds", "30"]).is(1, &["FAIL", "it ended after 0 s of 30", "0 passed, 1 failed"]);
    fuzzed(&GOOD.replace("units: 50000", "units: 2"), 0, &[]).is(1, &["FAIL", "2 runs, but its corpus has"]);
}

#[test]
fn without_targets_or_their_corpora_there_is_no_verdict() {
    let root = Root::new();
    let programs = root.path("programs");
    let run = || root.gate("runtime_comms_fuzz_gate.sh", &["--seconds", "1"], &[("FUZZ_PROGRAMS", &programs)]);
    run().is(2, &["there is no target in fuzz/fuzz_targets"]);
    root.write("fuzz/fuzz_targets/actor.rs", "");
    root.write("programs/actor", "");
    program(&programs.join("actor"), GOOD, 0);
    run().is(2, &["there is no corpus fuzz/corpus/actor"]);
    root.write("fuzz/corpus/actor/one", "");
    run().is(0, &["PASS", "1 passed, 0 failed"]);
    root.write("fuzz/corpus/envelope/one", "");
    run().is(2, &["a corpus without a target: envelope"]);
}

#[test]
fn what_cannot_be_fuzzed_is_said_before_anything_runs() {
    let nowhere = Path::new("/nowhere");
    let run = |arguments: &[&str]| gate("runtime_comms_fuzz_gate.sh", arguments, &[("FUZZ_PROGRAMS", nowhere)]);
    run(&["--target", "nothing"]).is(2, &["no such target: 'nothing'", "There are: actor"]);
    for seconds in ["0", "-1", "1.5", "soon"] {
        run(&["--seconds", seconds]).is(2, &["--seconds wants a whole number above 0"]);
    }
    run(&["--target", "actor"]).is(2, &["there is no program /nowhere/actor"]);
}
