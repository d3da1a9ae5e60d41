//! `scripts/runtime_comms_conformance_gate.sh` over runs of tests that never were.

use std::fs;

use crate::{Verdict, gate};

const TABLE: &str = "# a comment\nRR-1\tapi\tfirst\nRR-1\tlib\tsecond\nRR-2\tapi\tthird\nRR-3\t-\t-\n";

const RUN: &str = "    Starting 3 tests\n        \
    PASS [   0.250s] (1/3) trust-runtime::api runs::first\n        \
    PASS [   0.500s] (2/3) trust-runtime engine::tests::second\n        \
    PASS [   1.000s] (3/3) trust-runtime::api third\n     Summary [   1.750s] 3 tests run: 3 passed\n";

fn judged(table: &str, run: &str, arguments: &[&str]) -> Verdict {
    let folder = tempfile::tempdir().expect("a folder");
    let [at, log] = ["table.tsv", "log"].map(|name| folder.path().join(name));
    fs::write(&at, table).expect("written");
    fs::write(&log, run).expect("written");
    let variables = [("ACCEPTANCE_TABLE", at.as_path()), ("ACCEPTANCE_LOG", log.as_path())];
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
    judged(TABLE, &failed, &[]).is(1, &["FAIL     0.75 s  RR-1; FAIL: lib second", "PASS     1.00 s  RR-2"]);
    let gone = RUN.replace("api third", "api third_of_another_name");
    judged(TABLE, &gone, &[]).is(1, &["RR-2; did not run: api third", "1 passed, 1 failed, 1 open"]);
    let elsewhere = RUN.replace("trust-runtime::api third", "trust-runtime::cluster third");
    judged(TABLE, &elsewhere, &[]).is(1, &["did not run: api third"]);
    for verdict in ["TIMEOUT", "SIGABRT", "LEAK-FAIL", "TRY 1 FAIL"] {
        judged(TABLE, &RUN.replacen("PASS [   1.000s]", &format!("{verdict} [   1.000s]"), 1), &[])
            .is(1, &["FAIL", "RR-2"]);
    }
    // One adapter of two fails under the same name.
    let twice = format!("{RUN}        FAIL [   0.100s] (4/4) trust-runtime other::second\n");
    judged(TABLE, &twice, &[]).is(1, &["RR-1; FAIL: lib second"]);
    judged("RR-3\t-\t-\n", RUN, &[]).is(1, &["0 passed, 0 failed, 1 open"]);
}

const MANY: &str = "RR-1\tapi\tmany\nRR-2\tapi\tmany\nRR-2\tapi\tthird\nRR-3\tapi\tmany\n";

const TOLD: &str = "    CASE many RR-1 ok 0.250\n    CASE many RR-1 ok 0.500\n    CASE many RR-2 ok 0.125\n\
    CASE many RR-3 ok 2.000\n        PASS [   9.000s] (1/2) trust-runtime::api many\n        \
    PASS [   1.000s] (2/2) trust-runtime::api third\n";

#[test]
fn a_test_of_many_lines_gives_each_its_own_verdict_and_time() {
    let times = ["PASS     0.75 s  RR-1\n", "PASS     1.12 s  RR-2\n", "PASS     2.00 s  RR-3\n"];
    judged(MANY, TOLD, &[]).is(0, &times);
    let failed = TOLD.replace("PASS [   9.000s]", "FAIL [   9.000s]");
    // One case of two, and not the last one.
    let one = failed.replace("RR-1 ok 0.250", "RR-1 fail 0.250");
    judged(MANY, &one, &[]).is(1, &["RR-1; FAIL: api many\n", times[1], times[2], "2 passed, 1 failed"]);
    // Whatever has failed, it was none of the lines.
    judged(MANY, &failed, &[]).is(1, &["RR-1; FAIL: api many", "0 passed, 3 failed"]);
    // What it says counts even if it passes all the same, and so does what it keeps to itself.
    judged(MANY, &TOLD.replace("RR-3 ok", "RR-3 fail"), &[]).is(1, &["RR-3; FAIL: api many", "2 passed, 1 failed"]);
    judged(MANY, &TOLD.replace("RR-3 ok", "RR-4 ok"), &[]).is(1, &["RR-3; says nothing of it: api many"]);
    // Words without the test's own end are nothing.
    judged(MANY, &TOLD.replace("PASS [   9.000s] (1/2) trust-runtime::api many", ""), &[])
        .is(1, &["did not run: api many", "0 passed, 3 failed"]);
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
