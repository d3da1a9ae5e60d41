//! The audit log as evidence, on a real node: what it leaves verifies, and an earlier copy is found by what was kept elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::{Cluster, Running, program, run_to_end};
use crate::question::write;

/// How long a command may take that only looks at files.
const COMMAND_MAX: Duration = Duration::from_secs(10);

pub(crate) fn audit(project: &Path, verb: &str, rest: &[&str]) -> Output {
    run_to_end(program().args(["audit", verb, "--project"]).arg(project).args(rest), COMMAND_MAX).0
}

pub(crate) fn verified(project: &Path, rest: &[&str]) -> (Option<i32>, Json) {
    let output = audit(project, "verify", &[&["--json"], rest].concat());
    let answer: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), answer["chains"][0].clone())
}

pub(crate) fn act(node: &Running, name: &str, level: u64) {
    assert!(node.dispatch_one(&write("a", name, &["a"], level)).ok);
}

#[test]
fn a_killed_and_a_stopped_node_leave_evidence_that_holds() {
    let cluster = Cluster::new();
    let [mut a] = cluster.site(["a"]);
    act(&a, "first", 31);
    a.kill();
    a.restart();
    act(&a, "second", 32);
    a.shutdown();
    let (code, writes) = verified(a.project(), &[]);
    assert_eq!(code, Some(0), "{writes}");
    for name in ["integrity", "completeness", "continuity"] {
        assert_eq!(writes[name]["verdict"], "holds", "{writes}");
    }
    assert!(
        writes["completeness"]["text"].as_str().is_some_and(|text| text.contains(" 0 records are newer")),
        "{writes}"
    );
    assert!(writes["continuity"]["text"].as_str().is_some_and(|text| text.contains("boots 1 to 2")), "{writes}");
    let mode = |name: &str| fs::metadata(a.state_folder().join(name)).expect("made").permissions().mode() & 0o777;
    assert_eq!(mode("audit.key"), 0o600);
    let key = fs::read_to_string(a.state_folder().join("audit.vkey")).expect("published");
    assert!(key.starts_with("trust-runtime/default-site/a+"), "{key}");
    assert_ne!(
        fs::read(a.state_folder().join("audit.key")).expect("made"),
        fs::read(a.state_folder().join("identity.key")).expect("made")
    );
}

#[test]
fn an_earlier_copy_is_found_by_the_checkpoints_that_were_kept_elsewhere() {
    let cluster = Cluster::new();
    let [mut a] = cluster.site(["a"]);
    act(&a, "first", 31);
    a.shutdown();
    let backup = cluster.folder().join("backup");
    copy_folder(&a.state_folder(), &backup);
    a.restart();
    act(&a, "second", 32);
    a.shutdown();
    let kept = cluster.folder().join("kept");
    let kept_shown = kept.display().to_string();
    let elsewhere = ["--checkpoints", kept_shown.as_str()];
    let exported = audit(a.project(), "export", &elsewhere);
    assert!(exported.status.success(), "{exported:?}");
    let note = String::from_utf8(exported.stdout).expect("a path");
    let note = fs::read_to_string(note.trim()).expect("written");
    assert!(note.starts_with("trust-runtime/default-site/a\n"), "{note}");
    let (code, writes) = verified(a.project(), &elsewhere);
    assert_eq!((code, &writes["ok"]), (Some(0), &json!(true)), "{writes}");
    assert!(writes["public_key"].as_str().is_some_and(|path| path.starts_with(&kept_shown)), "{writes}");

    fs::remove_dir_all(a.state_folder()).expect("own folder");
    copy_folder(&backup, &a.state_folder());
    assert_eq!(verified(a.project(), &[]).0, Some(0), "by itself an earlier copy is whole");
    let (code, writes) = verified(a.project(), &elsewhere);
    assert_eq!((code, &writes["completeness"]["fault"]), (Some(1), &json!("restored")), "{writes}");
    let said = audit(a.project(), "verify", &elsewhere);
    let said = String::from_utf8(said.stdout).expect("text");
    assert!(said.contains("completeness BROKEN (restored at record"), "{said}");
    // Another log's checkpoints in the same folder say nothing about this one.
    fs::write(kept.join("other.note"), note.replace("/a\n", "/b\n")).expect("written");
    assert_eq!(verified(a.project(), &elsewhere).1["completeness"]["fault"], "restored");
    // A key that is none is said, and not passed over.
    fs::write(kept.join("audit.vkey"), "no key").expect("written");
    let refused = audit(a.project(), "verify", &elsewhere);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("audit.vkey: wanted a key"), "{refused:?}");
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}
