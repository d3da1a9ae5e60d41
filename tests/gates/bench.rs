//! `scripts/runtime_comms_bench_gate.sh` over numbers that nobody measured.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::root::Root;
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

    fn saved(&self) -> Vec<Value> {
        serde_json::from_str(&fs::read_to_string(self.baseline()).expect("a baseline")).expect("JSON")
    }

    fn row(&self, name: &str) -> Option<Value> {
        self.saved().into_iter().find(|row| row["name"] == name)
    }

    fn save(&self, rows: &[Value]) {
        fs::write(self.baseline(), json!(rows).to_string()).expect("written");
    }

    fn add(&self, row: &Value) {
        self.save(&[self.saved(), vec![row.clone()]].concat());
    }

    fn edit(&self, name: &str, key: &str, value: &Value) {
        let mut rows = self.saved();
        rows.iter_mut().filter(|row| row["name"] == name).for_each(|row| row[key] = value.clone());
        self.save(&rows);
    }

    /// All benchmarks of a manifest that has these, with what was measured last.
    fn run_whole(&self, benches: &[&str], arguments: &[&str]) -> Verdict {
        let root = Root::new();
        let manifest: String = benches.iter().map(|it| format!("[[bench]]\nname = \"{it}\"\n")).collect();
        root.write("Cargo.toml", &manifest);
        let baseline = self.baseline();
        let variables = [("BENCH_RESULTS", self.0.path()), ("BENCH_BASELINE", baseline.as_path())];
        root.gate("runtime_comms_bench_gate.sh", arguments, &variables)
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
    bench.run(&rows(1.21, 0.8), &[]).is(1, &["WORSE than the baseline: mesh: a time\n", "+21%"]);
    bench.run(&rows(1.0, 0.59), &[]).is(1, &["WORSE than the baseline: mesh: a rate\n"]);
    let lost = json!([{ "name": "a time", "ratio": 1.0, "aim": 2.0, "unit": "us" }]);
    bench.run(&lost, &[]).is(1, &["GONE, it has a baseline and was not measured: mesh: a rate\n"]);
    let said = bench.run(&rows(1.21, 0.8), &["--json"]);
    said.is(1, &["mesh: a time"]);
    let printed: Value = serde_json::from_str(&said.out).expect("JSON");
    let verdicts: Vec<_> = printed.as_array().expect("rows").iter().map(|row| row["verdict"].as_str()).collect();
    assert_eq!(verdicts, [Some("WORSE"), Some("PASS")]);
}

/// All else is as it was, so that nothing else can have failed the gate.
#[test]
fn a_row_without_a_baseline_fails_the_gate_until_it_is_saved() {
    let bench = Bench::new();
    let mut more = rows(1.0, 0.8);
    more.as_array_mut().expect("rows").push(json!({ "name": "new", "ratio": 3.0, "aim": 4.0, "unit": "us" }));
    bench.run(&more, &[]).is(1, &["NEW, it has no baseline: mesh: new\n"]);
    bench.run(&more, &["--save"]).is(0, &["saved"]);
    bench.run(&more, &[]).is(0, &["PASS"]);
}

/// Five times as much of what was a time is no improvement because it now calls itself a rate.
#[test]
fn a_row_in_another_unit_than_its_baseline_is_compared_with_nothing() {
    let changed = json!([
        { "name": "a time", "ratio": 5.0, "aim": 2.0, "unit": "1/s" },
        { "name": "a rate", "ratio": 0.8, "aim": 0.6, "unit": "1/s" },
    ]);
    Bench::new().run(&changed, &[]).is(1, &["UNIT differs from that of the baseline: mesh: a time\n"]);
}

#[test]
fn a_benchmark_that_is_gone_fails_the_gate_with_each_row_of_its_baseline() {
    let bench = Bench::new();
    bench.add(&json!({ "bench": "runs", "name": "of another", "unit": "us", "ratio": 1.0, "tolerance": 0.2 }));
    // Who asks for one benchmark asks for no other's rows.
    bench.run(&rows(1.0, 0.8), &[]).is(0, &["PASS"]);
    let said = bench.run_whole(&["mesh"], &[]);
    said.is(1, &["GONE, it has a baseline and was not measured: runs: of another\n"]);
    bench.run_whole(&[], &[]).is(2, &["has no benchmark"]);
}

#[test]
fn a_row_beyond_its_aim_fails_the_gate_unless_the_baseline_says_why() {
    let bench = Bench::new();
    bench.add(&json!({ "bench": "mesh", "name": "late", "unit": "us", "ratio": 1.0, "tolerance": 0.5 }));
    let measured = |ratio: f64| {
        let mut rows = rows(1.0, 0.8);
        rows.as_array_mut().expect("rows").push(json!({ "name": "late", "ratio": ratio, "aim": 1.1, "unit": "us" }));
        rows
    };
    bench.run(&measured(1.1), &[]).is(0, &["PASS"]);
    bench.run(&measured(1.11), &[]).is(1, &["MISSED the aim: mesh: late\n"]);
    // A rate misses when it is less.
    let slow = json!([
        { "name": "a time", "ratio": 1.0, "aim": 2.0, "unit": "us" },
        { "name": "a rate", "ratio": 0.7, "aim": 0.75, "unit": "1/s" },
        { "name": "late", "ratio": 1.0, "aim": 1.1, "unit": "us" },
    ]);
    bench.run(&slow, &[]).is(1, &["MISSED the aim: mesh: a rate\n"]);
    for (missed, code) in [("", 1), ("for a reason", 0)] {
        bench.edit("late", "missed", &json!(missed));
        bench.run(&measured(1.11), &[]).is(code, &["MISSED", missed]);
        bench.run(&measured(1.51), &[]).is(1, &["WORSE than the baseline: mesh: late\n"]);
    }
    bench.run(&measured(1.2), &["--save"]).is(0, &["saved"]);
    assert_eq!(bench.row("late").expect("saved")["missed"], "for a reason");
}

#[test]
fn what_is_saved_replaces_what_was_measured_anew_and_leaves_the_rest() {
    let bench = Bench::new();
    bench.add(&json!({ "bench": "runs", "name": "of another", "unit": "us", "ratio": 1.0, "tolerance": 0.2 }));
    let measured = json!([
        { "name": "a time", "ratio": 2.0, "aim": 2.0, "unit": "us" },
        { "name": "new", "ratio": 0.000_474_9, "aim": 4.0, "unit": "us" },
        { "name": "long", "ratio": 12.345_678, "aim": 40.0, "unit": "us" },
    ]);
    bench.run(&measured, &["--save"]).is(0, &["saved"]);
    let of = |name: &str| bench.row(name).map(|row| (row["ratio"].clone(), row["tolerance"].clone()));
    assert_eq!(of("a time"), Some((json!(2), json!(0.2))));
    assert_eq!(of("new"), Some((json!(0.000_475), json!(0.3))));
    assert_eq!(of("long"), Some((json!(12.346), json!(0.3))));
    assert_eq!(of("a rate"), None, "it was not measured");
    assert!(of("of another").is_some(), "nobody has asked for it");
    bench.run_whole(&["mesh"], &["--save"]).is(0, &["saved"]);
    assert!(of("of another").is_none(), "its benchmark is gone");
    bench.run_whole(&["mesh"], &[]).is(0, &["PASS"]);
}

#[test]
fn without_numbers_or_a_baseline_there_is_no_verdict() {
    let bench = Bench::new();
    let mut rows_of_little = vec![json!([]), json!({})];
    for (ratio, aim, unit) in [(json!(null), json!(2), "us"), (json!(0), json!(2), "us"), (json!(1), json!(null), "us")]
    {
        rows_of_little.push(json!([{ "name": "a time", "ratio": ratio, "aim": aim, "unit": unit }]));
    }
    rows_of_little.push(json!([{ "name": "a time", "ratio": 1, "aim": 2 }]));
    for nothing in rows_of_little {
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
        assert!(row.get("missed").is_none() || is_text("missed"), "{row}");
    }
}
