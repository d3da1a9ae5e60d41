//! `scripts/runtime_comms_conformance_gate.sh` over runs of tests that never were.

use std::fs;

use crate::root::Root;
use crate::{Verdict, gate, program};

const TABLE: &str =
    "# a comment\nRR-1\tapi\truns::first\nRR-1\tlib\tengine::tests::second\nRR-2\tapi\tthird\nRR-3\t-\t-\n";

const RUN: &str = "    Starting 3 tests\n        \
    PASS [   0.250s] (1/3) trust-runtime::api runs::first\n        \
    PASS [   0.500s] (2/3) trust-runtime engine::tests::second\n        \
    PASS [   1.000s] (3/3) trust-runtime::api third\n     Summary [   1.750s] 3 tests run: 3 passed\n";

fn judged(table: &str, run: &str, arguments: &[&str]) -> Verdict {
    judged_with(table, run, None, arguments)
}

/// With what the steps of the check have come to, where it says so.
fn judged_with(table: &str, run: &str, steps: Option<&str>, arguments: &[&str]) -> Verdict {
    let folder = tempfile::tempdir().expect("a folder");
    let [at, log, ended] = ["table.tsv", "log", "steps.tsv"].map(|name| folder.path().join(name));
    fs::write(&at, table).expect("written");
    fs::write(&log, run).expect("written");
    let mut variables = vec![("ACCEPTANCE_TABLE", at.as_path()), ("ACCEPTANCE_LOG", log.as_path())];
    if let Some(steps) = steps {
        fs::write(&ended, steps).expect("written");
        variables.push(("ACCEPTANCE_STEPS", ended.as_path()));
    }
    gate("runtime_comms_conformance_gate.sh", arguments, &variables)
}

#[test]
fn every_line_has_its_verdict_and_its_time() {
    let said = judged(TABLE, RUN, &[]);
    said.is(0, &["PASS     0.75 s  RR-1\n", "PASS     1.00 s  RR-2\n", "RR-3\n", "2 passed, 0 failed, 1 open"]);
    judged(TABLE, RUN, &["--suite", "lib"]).is(0, &["PASS     0.50 s  RR-1\n", "1 passed, 0 failed, 1 open"]);
}

#[test]
fn a_test_that_fails_or_did_not_run_or_broke_off_fails_its_line_and_the_gate() {
    let failed = RUN.replacen("PASS [   0.500s]", "FAIL [   0.500s]", 1);
    judged(TABLE, &failed, &[])
        .is(1, &["FAIL     0.75 s  RR-1; FAIL: lib engine::tests::second", "PASS     1.00 s  RR-2"]);
    let gone = RUN.replace("api third", "api third_of_another_name");
    judged(TABLE, &gone, &[]).is(1, &["RR-2; did not run: api third", "1 passed, 1 failed, 1 open"]);
    let elsewhere = RUN.replace("trust-runtime::api third", "trust-runtime::cluster third");
    judged(TABLE, &elsewhere, &[]).is(1, &["did not run: api third"]);
    for verdict in ["TIMEOUT", "SIGABRT", "LEAK-FAIL", "TRY 1 FAIL"] {
        judged(TABLE, &RUN.replacen("PASS [   1.000s]", &format!("{verdict} [   1.000s]"), 1), &[])
            .is(1, &["FAIL", "RR-2"]);
    }
    // It is said twice, and not the same.
    let twice = format!("{RUN}        FAIL [   0.100s] (4/4) trust-runtime engine::tests::second\n");
    judged(TABLE, &twice, &[]).is(1, &["RR-1; FAIL: lib engine::tests::second"]);
    judged("RR-3\t-\t-\n", RUN, &[]).is(1, &["0 passed, 0 failed, 1 open"]);
}

/// It has passed, under the last name of the one that is gone: another module of the suite has it, or an inner or outer one.
#[test]
fn a_test_of_the_same_name_in_another_module_is_another_test() {
    for other in ["runs::other::first", "runs::first::first", "first", "other::runs::first", "runs::first_of_all"] {
        let run = RUN.replace("runs::first", other);
        judged(TABLE, &run, &[]).is(1, &["RR-1; did not run: api runs::first\n", "1 passed, 1 failed, 1 open"]);
    }
    // Nor does one elsewhere that fails cost the line anything.
    let other = format!("{RUN}        FAIL [   0.100s] (4/4) trust-runtime::api runs::other::first\n");
    judged(TABLE, &other, &[]).is(0, &["2 passed, 0 failed, 1 open"]);
    // What is promised of two adapters is promised of both.
    let both = format!("{TABLE}RR-1\tlib\tengine::others::second\n");
    judged(&both, RUN, &[]).is(1, &["RR-1; did not run: lib engine::others::second"]);
    // A test of many lines speaks for itself alone.
    let told = TOLD.replace("CASE api::runs::many", "CASE api::other::many");
    judged(MANY, &told, &[]).is(0, &["PASS     9.00 s  RR-1\n"]);
    let failed = TOLD.replace("CASE api::runs::many RR-1 ok 0.250", "CASE api::other::many RR-1 fail 0.250");
    judged(MANY, &failed, &[]).is(0, &["3 passed, 0 failed"]);
}

const STEPS: &str = "fmt\tok\t1\nopenapi\tok\t47\nzenoh baseline\tok\t2\n";

#[test]
fn a_step_of_the_check_shows_a_line_only_if_this_check_has_passed_it() {
    let table = format!("{TABLE}RR-4\tcheck\topenapi\nRR-5\tcheck\tzenoh baseline\nRR-5\tapi\tthird\n");
    let with = |steps: &str, arguments: &[&str]| judged_with(&table, RUN, Some(steps), arguments);
    with(STEPS, &[]).is(0, &["PASS    47.00 s  RR-4\n", "PASS     3.00 s  RR-5\n", "4 passed, 0 failed, 1 open"]);
    with(STEPS, &["--suite", "check"]).is(0, &["PASS    47.00 s  RR-4\n", "2 passed, 0 failed, 1 open"]);
    // Another step of a similar name, one that is not over, one that has failed, and one that has failed and passed.
    for (steps, why) in [
        (STEPS.replace("openapi", "openapis"), "RR-4; did not run: check openapi\n"),
        (STEPS.replace("openapi\tok\t47", "openapi"), "RR-4; FAIL: check openapi\n"),
        (STEPS.replace("openapi\tok", "openapi\tfail"), "RR-4; FAIL: check openapi\n"),
        (format!("openapi\tfail\t3\n{STEPS}"), "RR-4; FAIL: check openapi\n"),
    ] {
        with(&steps, &[]).is(1, &[why, "3 passed, 1 failed, 1 open"]);
    }
    // What tests print is no word of a step, and a log without steps has none.
    let forged = format!("{RUN}{STEPS}        PASS [   0.100s] (4/4) trust-runtime::check openapi\n");
    judged(&table, &forged, &[])
        .is(1, &["RR-4; did not run: check openapi\n", "RR-5; did not run: check zenoh baseline"]);
    let nowhere = std::path::Path::new("/nowhere");
    let log = tempfile::NamedTempFile::new().expect("a file");
    let variables = [("ACCEPTANCE_LOG", log.path()), ("ACCEPTANCE_STEPS", nowhere)];
    gate("runtime_comms_conformance_gate.sh", &[], &variables).is(2, &["there are no steps /nowhere"]);
}

/// A gate that runs a step by itself: a table whose only line is that step, and a script that ends so.
fn stepped(says: &str, code: i32) -> Verdict {
    let root = Root::new();
    program(&root.path("scripts/check_openapi.sh"), says, code);
    root.write("tests/acceptance.tsv", "RR-4\tcheck\topenapi\n");
    let target = root.path("target");
    root.gate("runtime_comms_conformance_gate.sh", &[], &[("CARGO_TARGET_DIR", target.as_path())])
}

#[test]
fn a_gate_that_is_run_by_itself_runs_the_step_and_believes_its_end() {
    stepped("nothing was found", 0).is(0, &["RR-4\n", "1 passed, 0 failed, 0 open"]);
    stepped("something was found", 1).is(1, &["RR-4; FAIL: check openapi", "0 passed, 1 failed, 0 open"]);
    stepped("missing: a thing", 2).is(2, &["missing: a thing", "the step openapi could not be run"]);
    let root = Root::new();
    root.write("tests/acceptance.tsv", "RR-4\tcheck\tno such step\n");
    let target = root.path("target");
    root.gate("runtime_comms_conformance_gate.sh", &[], &[("CARGO_TARGET_DIR", target.as_path())])
        .is(2, &["there is no", "check_no_such_step.sh"]);
}

const MANY: &str = "RR-1\tapi\truns::many\nRR-2\tapi\truns::many\nRR-2\tapi\tthird\nRR-3\tapi\truns::many\n";

const TOLD: &str = "    CASE api::runs::many RR-1 ok 0.250\n    CASE api::runs::many RR-1 ok 0.500\n    CASE api::runs::many RR-2 ok 0.125\n\
    CASE api::runs::many RR-3 ok 2.000\n        PASS [   9.000s] (1/2) trust-runtime::api runs::many\n        \
    PASS [   1.000s] (2/2) trust-runtime::api third\n";

#[test]
fn a_test_of_many_lines_gives_each_its_own_verdict_and_time() {
    let times = ["PASS     0.75 s  RR-1\n", "PASS     1.12 s  RR-2\n", "PASS     2.00 s  RR-3\n"];
    judged(MANY, TOLD, &[]).is(0, &times);
    let failed = TOLD.replace("PASS [   9.000s]", "FAIL [   9.000s]");
    // One case of two, and not the last one.
    let one = failed.replace("RR-1 ok 0.250", "RR-1 fail 0.250");
    judged(MANY, &one, &[]).is(1, &["RR-1; FAIL: api runs::many\n", times[1], times[2], "2 passed, 1 failed"]);
    // Whatever has failed, it was none of the lines.
    judged(MANY, &failed, &[]).is(1, &["RR-1; FAIL: api runs::many", "0 passed, 3 failed"]);
    // What it says counts even if it passes all the same, and so does what it keeps to itself.
    judged(MANY, &TOLD.replace("RR-3 ok", "RR-3 fail"), &[])
        .is(1, &["RR-3; FAIL: api runs::many", "2 passed, 1 failed"]);
    judged(MANY, &TOLD.replace("RR-3 ok", "RR-4 ok"), &[]).is(1, &["RR-3; says nothing of it: api runs::many"]);
    // Words without the test's own end are nothing.
    judged(MANY, &TOLD.replace("PASS [   9.000s] (1/2) trust-runtime::api runs::many", ""), &[])
        .is(1, &["did not run: api runs::many", "0 passed, 3 failed"]);
}

#[test]
fn a_line_that_is_not_understood_is_no_line_less() {
    for (line, why) in [
        ("RR-4\tapi fourth", "line 6: wanted three cells, got 2"),
        ("RR-4\tapi\tfourth\t", "line 6: wanted three cells, got 4"),
        ("", "line 6: wanted three cells, got 0"),
        ("RR-4\tapis\tfourth", "line 6: no such suite: apis"),
        ("RR-4\tlib api\tfourth", "line 6: no such suite: lib api"),
        ("RR-4\t\tfourth", "line 6: no such suite: \n"),
        ("RR-4\tapi\t-", "line 6: an empty cell, or a suite without a test"),
        ("RR-4\t-\tfourth", "line 6: an empty cell, or a suite without a test"),
        ("\tapi\tfirst", "line 6: an empty cell"),
    ] {
        // Also where other suites were asked for.
        for arguments in [&[][..], &["--suite", "lib"]] {
            judged(&format!("{TABLE}{line}\n"), RUN, arguments).is(2, &[why]);
        }
    }
}

#[test]
fn without_a_table_or_a_log_there_is_no_verdict() {
    judged("", RUN, &[]).is(2, &["there is no table"]);
    judged(TABLE, RUN, &["--suite", "nothing"]).is(2, &["no such suite: 'nothing'"]);
    let nowhere = std::path::Path::new("/nowhere");
    gate("runtime_comms_conformance_gate.sh", &[], &[("ACCEPTANCE_LOG", nowhere)]).is(2, &["there is no log"]);
}
