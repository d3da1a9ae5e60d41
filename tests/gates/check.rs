//! `scripts/check.sh` over tools that only say that they were called: which steps it has, and that a failing one fails it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::root::Root;
use crate::{Verdict, executable};

/// What every check but the fast one runs besides cargo.
const WHOLE: [&str; 8] = [
    "check_zenoh_baseline",
    "check_openapi",
    "setup_interop",
    "setup_zenohd",
    "runtime_comms_conformance_gate",
    "quickstart",
    "runtime_cloud_security_profile_gate",
    "runtime_cloud_browser_gate",
];
const LONG: [&str; 2] = ["runtime_comms_fuzz_gate", "runtime_comms_bench_gate"];

/// A repository whose other scripts say their names, and one of which may fail.
fn checked(arguments: &[&str], failing: &str) -> Verdict {
    let root = Root::new();
    for entry in fs::read_dir(root.path("scripts")).expect("scripts") {
        let path = entry.expect("readable").path();
        let name = path.file_stem().and_then(OsStr::to_str).expect("a name").to_owned();
        if !["check", "prerequisites"].contains(&name.as_str()) {
            let code = if name == failing { 3 } else { 0 };
            // The gate of the acceptance table is told which steps have passed.
            let said = r#"[ ! -e "${ACCEPTANCE_STEPS:-}" ] || cut -f1,2 "$ACCEPTANCE_STEPS" | tr '\t\n' ' ;'"#;
            executable(&path, &format!("#!/bin/sh\necho ran {name}\n{said}\nexit {code}\n"));
        }
    }
    root.write("fuzz/Cargo.toml", "");
    root.write("target/check/steps.tsv", "step of an earlier check\tok\t1\n");
    root.write("programs/cargo", "");
    executable(&root.path("programs/cargo"), "#!/bin/sh\necho '     Summary [ 0.1s] 2 tests run: 2 passed'\n");
    let path = format!("{}:{}", root.path("programs").display(), env::var("PATH").expect("a path"));
    let target = root.path("target");
    root.gate("check.sh", arguments, &[("PATH", Path::new(&path)), ("CARGO_TARGET_DIR", &target)])
}

fn ran(said: &Verdict) -> Vec<&str> {
    said.out.lines().filter_map(|line| line.strip_prefix("ran ")).collect()
}

#[test]
fn the_long_check_is_the_whole_one_and_the_gates_that_take_minutes() {
    let said = checked(&["--fast"], "");
    said.is(0, &["8 passed, 0 failed"]);
    assert_eq!(ran(&said), [""; 0]);
    assert_eq!(ran(&checked(&[], "")), WHOLE);
    let said = checked(&["--long"], "");
    said.is(0, &["fuzz gate", "bench gate"]);
    assert_eq!(ran(&said), [&WHOLE[..], &LONG].concat());
    checked(&["--fast", "--long"], "").is(2, &["two different checks"]);
}

#[test]
fn a_step_that_fails_ends_the_check_with_its_name() {
    for (failing, step) in [
        ("check_zenoh_baseline", "zenoh baseline"),
        ("check_openapi", "openapi"),
        ("runtime_comms_conformance_gate", "acceptance"),
        ("runtime_cloud_security_profile_gate", "security gate"),
        ("runtime_cloud_browser_gate", "browser gate"),
        ("runtime_comms_bench_gate", "bench gate"),
    ] {
        let said = checked(&["--long"], failing);
        said.is(3, &[&format!("check: failed in: {step}")]);
        assert_eq!(ran(&said).last(), Some(&failing));
    }
}

#[test]
fn the_gate_of_the_acceptance_table_is_told_what_has_passed_in_this_check_and_nothing_else() {
    let said = checked(&[], "");
    said.is(0, &["fmt ok;", "zenoh baseline ok;", "openapi ok;", "cluster ok;"]);
    for other in ["earlier check", "acceptance ok", "release build ok"] {
        assert!(!said.out.contains(other), "{other}: {said:#?}");
    }
}
