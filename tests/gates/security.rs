//! `scripts/runtime_cloud_security_profile_gate.sh` over real nodes whose promises are broken, so that each of its lines is seen
//! to fail. What is broken stands in [`crate::broken`].

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use tempfile::TempDir;

use crate::broken::{BREAKS, Break, DEADLY_BAN, STRAIGHT};
use crate::{Verdict, executable, gate};

const SCRIPT: &str = "runtime_cloud_security_profile_gate.sh";

impl Break {
    /// Runs the lines that it breaks and those that it does not.
    fn judged(&self) -> Verdict {
        let folder = TempDir::new().expect("a folder");
        let path = env::var("PATH").expect("a path");
        let own = env!("CARGO_BIN_EXE_trust-runtime");
        for (name, cases) in
            [("node", self.node), ("curl", self.curl), ("python3", self.python3), ("mount", self.mount)]
        {
            let real = if name == "node" { own.into() } else { found(name, &path) };
            wrap(&folder.path().join(name), cases, &real);
        }
        let path = format!("{}:{path}", folder.path().display());
        let node = folder.path().join("node");
        let variables = [
            ("TRUST_RUNTIME_BIN", node.as_path()),
            ("PATH", Path::new(&path)),
            ("TRUST_GATE_DEADLINE_S", Path::new(self.deadline_s)),
            // What a gate that failed has kept goes with the test.
            ("TMPDIR", folder.path()),
        ];
        let lines: Vec<&str> = self.red.iter().chain(self.green).flat_map(|name| ["--only", name]).collect();
        gate(SCRIPT, &lines, &variables)
    }
}

/// Where a program that the gate runs is.
fn found(name: &str, path: &str) -> PathBuf {
    env::split_paths(path).map(|folder| folder.join(name)).find(|it| it.exists()).expect("a program of the gate")
}

/// Puts a program into the place of a real one.
fn wrap(path: &Path, cases: &str, real: &Path) {
    let (real, node) = (real.display(), env!("CARGO_BIN_EXE_trust-runtime"));
    let text = format!("real='{real}' node='{node}'\ncase \" $* \" in\n{cases}\nesac\nexec \"$real\" \"$@\"");
    executable(path, &format!("#!/bin/sh\n{text}\n"));
}

/// The gate's lines: their names, and what their verdicts say.
fn lines() -> BTreeMap<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(SCRIPT);
    let text = fs::read_to_string(script).expect("the gate");
    let named = text.lines().filter_map(|line| line.strip_prefix("  line ")?.split_once(" \""));
    named.map(|(name, rest)| (name.to_owned(), rest.split('"').next().unwrap_or_default().to_owned())).collect()
}

/// The verdicts by the names of their lines.
fn verdicts(said: &Verdict) -> BTreeMap<String, &str> {
    let verdict = |what: &str| said.out.lines().find(|line| line.ends_with(what))?.split(' ').next();
    lines().into_iter().filter_map(|(name, what)| Some((name, verdict(&what)?))).collect()
}

/// Which lines have this verdict.
fn with<'a>(verdicts: &'a BTreeMap<String, &str>, wanted: &str) -> BTreeSet<&'a str> {
    verdicts.iter().filter(|(_, verdict)| **verdict == wanted).map(|(name, _)| name.as_str()).collect()
}

#[test]
fn promises_that_are_kept_pass_and_what_was_left_out_is_said() {
    let said = STRAIGHT.judged();
    let all = lines().len();
    let left_out = format!("4 passed, 0 failed, {} left out", all - 4);
    said.is(0, &[&left_out, "LEFT OUT    a read crosses"]);
    let verdicts = verdicts(&said);
    assert_eq!(verdicts.len(), all, "every line is told of: {said:#?}");
    assert_eq!(with(&verdicts, "PASS"), STRAIGHT.green.iter().copied().collect());
}

/// All at once: each mostly waits for what does not come.
#[test]
fn a_promise_that_is_broken_fails_its_line_and_the_gate() {
    thread::scope(|scope| {
        for it in BREAKS {
            thread::Builder::new().name(it.breaks.to_owned()).spawn_scoped(scope, || fails(it)).expect("a thread");
        }
    });
}

/// Exactly the lines that it breaks.
fn fails(it: &Break) {
    let said = it.judged();
    let verdicts = verdicts(&said);
    let sets = ["FAIL", "PASS"].map(|verdict| with(&verdicts, verdict));
    let wanted = [it.red, it.green].map(|names| names.iter().copied().collect());
    assert_eq!(sets, wanted, "{}: {said:#?}", it.breaks);
    said.is(1, &[&format!("{} passed, {} failed", it.green.len(), it.red.len())]);
}

#[test]
fn every_line_is_broken_by_something() {
    let all: BTreeSet<String> = lines().into_keys().collect();
    let red: BTreeSet<String> =
        BREAKS.iter().chain([&DEADLY_BAN]).flat_map(|it| it.red).map(|name| (*name).to_owned()).collect();
    assert_eq!(all, red);
}

#[test]
fn a_node_that_dies_of_a_ban_has_shut_nobody_out() {
    fails(&DEADLY_BAN);
}

#[test]
fn a_line_that_nobody_knows_is_refused_before_anything_starts() {
    let listed: Vec<String> = lines().into_keys().collect();
    for arguments in [&["--only", "nothing"][..], &["--only"], &["--only", ".*"]] {
        let said = gate(SCRIPT, arguments, &[]);
        said.is(2, &["no such line", "There are: preconditions"]);
        said.is(2, &listed.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
