//! The cases of the contract on a node in this process, whose agents are played; and that every line has a case.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use trust_runtime::web::Rate;

use super::contract::cases;
use super::{serve, walks};

/// Which lines there are, and which of them are shown by more than requests one after the other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// The number of the last line; they begin with 1.
    lines: usize,
    shown: Vec<Shown>,
}

/// Lines that a test shows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    lines: Vec<String>,
    file: String,
    test: String,
    /// Why that is not a real node, if it is none.
    double: Option<String>,
}

fn table() -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/cases/runs_lines.toml");
    toml::from_str(&std::fs::read_to_string(path).expect("the table")).expect("the table of lines")
}

#[tokio::test]
async fn every_line_of_the_contract_holds() {
    let mut failed = Vec::new();
    for case in cases(None) {
        let began = Instant::now();
        let served = serve(|_| {}).await;
        let ran = case.run(&served.target).await;
        // For scripts/runtime_comms_conformance_gate.sh: a verdict and a time for each line instead of one for all.
        for line in &case.lines {
            let verdict = if ran.is_ok() { "ok" } else { "fail" };
            let seconds = began.elapsed().as_secs_f64();
            let test = concat!(module_path!(), "::every_line_of_the_contract_holds");
            println!("CASE {test} {line} {verdict} {seconds:.3}");
        }
        if let Err(fault) = ran {
            failed.push(format!("{} {:?}: {fault}", case.says, case.lines));
        }
    }
    assert!(failed.is_empty(), "{}:\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test]
async fn what_wants_many_requests_holds() {
    let served = serve(|options| options.limits.acts = Rate::of(100_000)).await;
    walks::every_run_has_a_name_of_its_own(&served).await;
    walks::a_caller_who_goes_away_stops_nothing(&served).await;
    walks::whenever_one_comes_each_event_comes_once(&served).await;
}

#[test]
fn every_line_of_the_contract_has_a_case() {
    let Table { lines, shown } = table();
    let known: BTreeSet<_> = (1..=lines).map(|number| format!("RR-{number}")).collect();
    let mut covered = BTreeMap::<String, bool>::new();
    let mut cover = |lines: Vec<String>, is_real: bool| {
        for line in lines {
            *covered.entry(line).or_default() |= is_real;
        }
    };
    for case in cases(None) {
        assert!(case.double.as_ref().is_none_or(|reason| 20 < reason.len()), "{}: wanted a reason", case.says);
        cover(case.lines, case.double.is_none());
    }
    for Shown { lines, file, test, double } in shown {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file)).expect(&file);
        assert!(text.contains(&format!("fn {test}")), "{file} has no test {test}");
        assert!(double.as_ref().is_none_or(|reason| 20 < reason.len()), "{test}: wanted a reason");
        cover(lines, double.is_none());
    }
    let named: BTreeSet<_> = covered.keys().cloned().collect();
    let missing: Vec<_> = known.difference(&named).collect();
    let unknown: Vec<_> = named.difference(&known).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "without a case: {missing:?}; no such line: {unknown:?}");
}
