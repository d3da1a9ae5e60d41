//! `scripts/check_zenoh_baseline.sh` over a repository in which one thing at a time says something else.

use std::fs;
use std::path::Path;

use crate::Verdict;
use crate::root::Root;

const EXAMPLE: &str = "examples/quickstart.toml";
const DECISION: &str = "docs/decisions/0004-zenoh-version.md";

/// What this repository says of the release, in four files.
fn repository() -> Root {
    let root = Root::new();
    for file in ["Cargo.toml", "Cargo.lock", DECISION] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("readable");
        root.write(file, &text);
    }
    root.write(EXAMPLE, "[runtime.mesh]\nzenohd_version = \"1.7.2\"\n");
    root
}

fn checked(root: &Root) -> Verdict {
    root.gate("check_zenoh_baseline.sh", &[], &[])
}

#[test]
fn what_the_four_say_is_the_same() {
    checked(&repository()).is(0, &["built on =1.10.2, baseline 1.7.2 in 1 example settings"]);
}

#[test]
fn each_of_them_that_says_something_else_is_named() {
    for (file, from, to, fault) in [
        ("Cargo.toml", "\"=1.10.2\"", "\"1.10.2\"", "Cargo.toml: wanted zenoh = \"=1.10.2\", got \"1.10.2\""),
        ("Cargo.toml", "\nzenoh = ", "\nother = ", "got \"nothing\""),
        (
            "Cargo.lock",
            "name = \"zenoh\"\nversion = \"1.10.2\"",
            "name = \"zenoh\"\nversion = \"1.10.3\"",
            "got 1.10.3",
        ),
        (
            "Cargo.lock",
            "name = \"zenoh\"\n",
            "name = \"other\"\n",
            "Cargo.lock: wanted zenoh 1.10.2 alone, got nothing",
        ),
        (EXAMPLE, "1.7.2", "1.7.3", "examples/quickstart.toml:2: wanted zenohd_version = \"1.7.2\""),
        (EXAMPLE, "zenohd_version", "# zenohd_version", "no .toml file names zenohd_version"),
        (DECISION, "1.10.2", "1.10.x", "does not name 1.10.2"),
        (DECISION, "1.7.2", "1.7.x", "does not name 1.7.2"),
    ] {
        let root = repository();
        let text = fs::read_to_string(root.path(file)).expect("readable");
        assert!(text.contains(from), "{file} says nothing of {from:?}");
        root.write(file, &text.replace(from, to));
        checked(&root).is(1, &[fault, "zenoh baseline: 1 faults"]);
    }
    let root = repository();
    fs::remove_file(root.path(DECISION)).expect("removed");
    checked(&root).is(1, &["0004-zenoh-version.md is missing"]);
    // A second release beside the pinned one.
    let root = repository();
    let lock = fs::read_to_string(root.path("Cargo.lock")).expect("readable");
    root.write("Cargo.lock", &format!("{lock}\n[[package]]\nname = \"zenoh\"\nversion = \"1.7.2\"\n"));
    checked(&root).is(1, &["Cargo.lock: wanted zenoh 1.10.2 alone, got 1.10.2 1.7.2"]);
}

#[test]
fn without_a_manifest_or_a_lock_there_is_no_verdict() {
    for file in ["Cargo.toml", "Cargo.lock"] {
        let root = repository();
        fs::remove_file(root.path(file)).expect("removed");
        checked(&root).is(2, &[&format!("{file} cannot be read")]);
    }
}
