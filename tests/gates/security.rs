//! `scripts/runtime_cloud_security_profile_gate.sh` over real nodes behind a program that breaks one promise.

use std::env;
use std::path::Path;

use tempfile::TempDir;

use crate::{Verdict, executable, gate};

const BAN: &str = "a ban shuts an actor out of running nodes";
const EDITED: &str = "an edited audit log is found out, and where";
const OLD_TLS: &str = "the listener speaks TLS 1.3 and nothing older";

/// What a program does instead of some of its commands, as cases of `sh`; all else is done by the real one.
struct Bent {
    node: &'static str,
    curl: &'static str,
    /// For how long the gate waits for what does not come, in seconds.
    deadline: &'static str,
}

const STRAIGHT: Bent = Bent { node: "", curl: "", deadline: "30" };

impl Bent {
    /// Runs three lines of the gate, each of which another kind of fault would break.
    fn judged(&self) -> Verdict {
        let folder = TempDir::new().expect("a folder");
        let [node, curl] = ["node", "curl"].map(|name| folder.path().join(name));
        wrap(&node, self.node, env!("CARGO_BIN_EXE_trust-runtime"));
        let path = env::var("PATH").expect("a path");
        wrap(&curl, self.curl, &format!("env PATH='{path}' curl"));
        let path = format!("{}:{path}", folder.path().display());
        let variables = [
            ("TRUST_RUNTIME_BIN", node.as_path()),
            ("PATH", Path::new(&path)),
            ("TRUST_GATE_DEADLINE_S", Path::new(self.deadline)),
            // What a gate that failed has kept goes with the test.
            ("TMPDIR", folder.path()),
        ];
        let lines = ["--only", "old-tls", "--only", "ban", "--only", "audit-edited"];
        gate("runtime_cloud_security_profile_gate.sh", &lines, &variables)
    }
}

fn wrap(path: &Path, cases: &str, real: &str) {
    executable(path, &format!("#!/bin/sh\ncase \" $* \" in\n{cases}\nesac\nexec {real} \"$@\"\n"));
}

/// The line's verdict begins it.
#[track_caller]
fn says(said: &Verdict, verdict: &str, what: &str) {
    let line = said.out.lines().find(|line| line.ends_with(what)).unwrap_or_default();
    assert!(line.starts_with(verdict), "wanted {verdict}: {said:#?}");
}

#[test]
fn promises_that_are_kept_pass_and_what_was_left_out_is_said() {
    let said = STRAIGHT.judged();
    said.is(0, &["3 passed, 0 failed, 20 left out", "LEFT OUT    a read crosses sites"]);
    for what in [OLD_TLS, BAN, EDITED] {
        says(&said, "PASS", what);
    }
}

#[test]
fn a_promise_that_is_broken_fails_its_line_and_the_gate() {
    let said = Bent {
        node: "' identity ban '*) exit 0 ;;\n' audit verify '*) exit 0 ;;",
        // No answer at all is no refusal.
        curl: "*' --tls-max '*) exit 28 ;;",
        deadline: "10",
    }
    .judged();
    said.is(1, &["0 passed, 3 failed"]);
    for what in [OLD_TLS, BAN, EDITED] {
        says(&said, "FAIL", what);
    }
}

/// Nobody gets into a node that has died, which is not what a ban is for.
#[test]
fn a_node_that_dies_of_a_ban_has_shut_nobody_out() {
    let node = "' identity ban '*) kill -KILL \"$(jq .pid north-a/ready.json)\"; exit 0 ;;";
    let said = Bent { node, deadline: "10", ..STRAIGHT }.judged();
    said.is(1, &["2 passed, 1 failed"]);
    says(&said, "FAIL", BAN);
}

#[test]
fn a_line_that_nobody_knows_is_refused_before_anything_starts() {
    for arguments in [&["--only", "nothing"][..], &["--only"], &["--only", ".*"]] {
        gate("runtime_cloud_security_profile_gate.sh", arguments, &[])
            .is(2, &["no such line", "There are: preconditions"]);
    }
}
