//! The audit log as evidence, on a real node: what it leaves verifies, and an earlier copy is found by what was kept elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value as Json, json};

use rusqlite::Connection;

use crate::harness::{Cluster, Running, Setup, program, run_to_end};
use crate::question::{DISPATCH, ping, read, write};

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

/// How often somebody reads until the oldest read is rotated away: ten times what a quota of a MiB holds.
const READS_MAX: usize = 20_000;

/// The exit code and what is said of one chain.
fn verified_chain(project: &Path, name: &str) -> (Option<i32>, Json) {
    let output = audit(project, "verify", &["--json"]);
    let answer: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let chains = answer["chains"].as_array().expect("a list").clone();
    (output.status.code(), chains.into_iter().find(|chain| chain["chain"] == name).expect("every chain"))
}

#[test]
fn a_refused_write_outlives_any_number_of_reads() {
    let cluster = Cluster::new();
    let mut a = cluster.play("a", Setup::new().acts_per_s(100_000).with("[runtime.store]\nread_audit_max_mb = 1\n"));
    let refused = a.post(DISPATCH, &ping("a", "refused", &["nobody"]));
    assert!(refused.text.contains("\"denial_code\""), "{}", refused.text);
    let mut reads = 0;
    while verified_chain(a.project(), "reads").1["rotated"] == 0 {
        assert!(reads < READS_MAX, "nothing is rotated");
        for _ in 0..250 {
            reads += 1;
            assert!(a.dispatch_one(&read("a", &format!("read-{reads}"), &["a"])).ok);
        }
    }
    let record = a.get("/api/runtime-cloud/audit?request_id=refused").body["records"][0].clone();
    assert_eq!((&record["outcome"], &record["chain"]), (&json!("denied"), &json!("refusals")), "{record}");
    a.shutdown();
    let (code, chain) = verified_chain(a.project(), "reads");
    let rotated = chain["rotated"].as_u64().expect("a number");
    assert_eq!((code, &chain["first"]), (Some(0), &json!(rotated + 1)), "{chain}");
    assert_eq!(chain["completeness"]["verdict"], "holds", "{chain}");
    let said = String::from_utf8(audit(a.project(), "verify", &[]).stdout).expect("text");
    assert!(said.contains(&format!("1 to {rotated} rotated away")), "{said}");
    let (_, chain) = verified_chain(a.project(), "refusals");
    assert_eq!((&chain["rotated"], &chain["completeness"]["verdict"]), (&json!(0), &json!("holds")), "{chain}");

    let file = Connection::open(a.state_folder().join("refusals.db")).expect("opens");
    file.execute("DELETE FROM audit", []).expect("runs");
    file.close().expect("closes");
    let (code, chain) = verified_chain(a.project(), "refusals");
    assert_eq!((code, &chain["completeness"]["fault"]), (Some(1), &json!("truncated")), "{chain}");
    a.restart();
    a.shutdown();
    assert_eq!(verified_chain(a.project(), "refusals").0, Some(1), "a start does not bury it");
}

pub(crate) fn act(node: &Running, name: &str, level: u64) {
    let outcome = node.dispatch_one(&write("a", name, &["a"], level));
    assert!(outcome.ok, "{}", outcome.text);
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
