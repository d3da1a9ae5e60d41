//! `scripts/runtime_comms_bench_gate.sh` over numbers that nobody measured.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Verdict, gate};

struct Bench(TempDir);

impl Bench {
    /// One time and one rate, both at their baseline.
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().expect("a folder"));
        let base = json!([
            { "bench": "mesh", "name": "a time", "unit": "us", "ratio": 1.0, "tolerance": 0.2 },
            { "bench": "mesh", "name": "a rate", "unit": "1/s", "ratio": 0.8, "tolerance": 0.25 },
        ]);
        fs::write(bench.baseline(), base.to_string()).expect("written");
        bench
    }

    fn baseline(&self) -> PathBuf {
        self.0.path().join("baseline.json")
    }

    fn run(&self, rows: &Value, arguments: &[&str]) -> Verdict {
        fs::write(self.0.path().join("mesh.json"), rows.to_string()).expect("written");
        let baseline = self.baseline();
        let variables = [("BENCH_RESULTS", self.0.path()), ("BENCH_BASELINE", baseline.as_path())];
        gate("runtime_comms_bench_gate.sh", &[&["--bench", "mesh"], arguments].concat(), &variables)
    }
}

fn rows(time: f64, rate: f64) -> Value {
    json!([
        { "name": "a time", "ratio": time, "aim": 2.0, "unit": "us" },
        { "name": "a rate", "ratio": rate, "aim": 0.6, "unit": "1/s" },
    ])
}

#[test]
fn within_its_tolerance_and_better_than_its_baseline_is_good() {
    let bench = Bench::new();
    for (time, rate) in [(1.0, 0.8), (1.19, 0.61), (0.1, 9.0)] {
        let said = bench.run(&rows(time, rate), &[]);
        said.is(0, &["PASS", "a time", "a rate"]);
        assert!(!said.out.contains("WORSE") && said.err.is_empty(), "{said:#?}");
    }
}

#[test]
fn a_row_that_is_worse_or_gone_is_told_loudly_and_fails_the_gate() {
    let bench = Bench::new();
    bench.run(&rows(1.21, 0.8), &[]).is(1, &["WORSE than the baseline, or gone: mesh: a time\n", "+21%"]);
    bench.run(&rows(1.0, 0.59), &[]).is(1, &["WORSE than the baseline, or gone: mesh: a rate\n"]);
    let lost = json!([{ "name": "a time", "ratio": 1.0, "aim": 2.0, "unit": "us" }]);
    bench.run(&lost, &[]).is(1, &["GONE", "mesh: a rate"]);
    let said = bench.run(&rows(1.21, 0.8), &["--json"]);
    said.is(1, &["mesh: a time"]);
    let printed: Value = serde_json::from_str(&said.out).expect("JSON");
    let verdicts: Vec<_> = printed.as_array().expect("rows").iter().map(|row| row["verdict"].as_str()).collect();
    assert_eq!(verdicts, [Some("WORSE"), Some("PASS")]);
}

#[test]
fn what_is_new_is_shown_and_saved_with_a_tolerance() {
    let bench = Bench::new();
    let mut more = rows(2.0, 0.9);
    more.as_array_mut().expect("rows").push(json!({ "name": "new", "ratio": 3.0, "aim": 4.0, "unit": "us" }));
    bench.run(&more, &[]).is(1, &["NEW", "new"]);
    bench.run(&more, &["--save"]).is(0, &["saved"]);
    let saved: Value = serde_json::from_str(&fs::read_to_string(bench.baseline()).expect("a baseline")).expect("JSON");
    let row = |name: &str| saved.as_array().expect("rows").iter().find(|row| row["name"] == name).expect(name).clone();
    assert_eq!((&row("a time")["ratio"], &row("a time")["tolerance"]), (&json!(2), &json!(0.2)));
    assert_eq!((&row("new")["ratio"], &row("new")["tolerance"]), (&json!(3), &json!(0.3)));
    bench.run(&more, &[]).is(0, &["PASS"]);
}

#[test]
fn without_numbers_or_a_baseline_there_is_no_verdict() {
    let bench = Bench::new();
    for nothing in [json!([]), json!({}), json!([{ "name": "a time" }]), json!([{ "name": "a time", "ratio": 0 }])] {
        bench.run(&nothing, &[]).is(2, &["printed no rows"]);
    }
    fs::remove_file(bench.baseline()).expect("removed");
    bench.run(&rows(1.0, 0.8), &[]).is(2, &["there is no baseline"]);
    let nowhere = Path::new("/nowhere");
    gate("runtime_comms_bench_gate.sh", &["--bench", "nothing"], &[("BENCH_RESULTS", nowhere)])
        .is(2, &["no such benchmark"]);
    gate("runtime_comms_bench_gate.sh", &[], &[("BENCH_RESULTS", nowhere)]).is(2, &["there is no /nowhere/"]);
}

/// The committed baseline is what the gate compares with.
#[test]
fn the_committed_baseline_has_a_ratio_and_a_tolerance_for_every_row() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/baseline.json");
    let rows: Value = serde_json::from_str(&fs::read_to_string(path).expect("benches/baseline.json")).expect("JSON");
    let rows = rows.as_array().expect("a list");
    assert!(!rows.is_empty());
    for row in rows {
        let is_text = |name: &str| row[name].as_str().is_some_and(|it| !it.is_empty());
        let is_above_zero = |name: &str| row[name].as_f64().is_some_and(|it| 0.0 < it);
        assert!(is_text("bench") && is_text("name") && is_text("unit"), "{row}");
        assert!(is_above_zero("ratio") && is_above_zero("tolerance") && row["tolerance"].as_f64() < Some(1.0), "{row}");
    }
}
