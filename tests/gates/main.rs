//! The gates themselves, each broken on purpose: a gate that cannot fail shows nothing.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a test may stop at the first surprise, and gives up by the clock"
)]

mod bench;
mod broken;
mod browser;
mod check;
mod conformance;
mod demo;
mod faults;
mod fuzz;
mod root;
mod security;
mod zenoh;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// What a gate said and how it ended.
#[derive(Debug)]
struct Verdict {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs a gate with variables of its own and without any that the surroundings have for it.
fn gate(name: &str, arguments: &[&str], variables: &[(&str, &Path)]) -> Verdict {
    run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name), arguments, variables)
}

fn run(script: &Path, arguments: &[&str], variables: &[(&str, &Path)]) -> Verdict {
    let mut command = Command::new(script);
    for own in [
        "ACCEPTANCE_TABLE",
        "ACCEPTANCE_LOG",
        "ACCEPTANCE_STEPS",
        "BENCH_RESULTS",
        "BENCH_BASELINE",
        "FUZZ_PROGRAMS",
        "FAULTS_HARNESS",
    ] {
        command.env_remove(own);
    }
    let output = command.args(arguments).envs(variables.iter().copied()).output().expect("the gate runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Verdict { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

impl Verdict {
    /// It ended with this code, and said these words somewhere.
    #[track_caller]
    fn is(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "nothing about {word:?}: {self:#?}");
        }
    }
}

/// A program that prints and ends as it is told.
fn program(path: &Path, says: &str, code: i32) {
    executable(path, &format!("#!/bin/sh\ncat >&2 <<'SAID'\n{says}\nSAID\nexit {code}\n"));
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("may be executed");
}

#[test]
fn every_gate_explains_itself_and_refuses_what_it_does_not_know() {
    for name in [
        "check.sh",
        "fault_harness.sh",
        "runtime_cloud_browser_gate.sh",
        "runtime_cloud_security_profile_gate.sh",
        "runtime_comms_bench_gate.sh",
        "runtime_comms_conformance_gate.sh",
        "runtime_comms_fuzz_gate.sh",
    ] {
        gate(name, &["--help"], &[]).is(0, &["Exit codes:", name]);
        gate(name, &["--nonsense"], &[]).is(2, &["unknown argument: --nonsense"]);
    }
}
