//! A database that a disk has damaged, on a real node: told by `audit verify` and by the start after a stop that was not clean.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::json;

use crate::audit::verified;
use crate::harness::{Cluster, Running, SEEN_MAX, Setup};
use crate::question::{read, write};

/// What a start says of a stop that was not clean.
const CHECKED: &str = "the last stop was not clean";

/// SQLite's size of a page, and how an index page begins that holds no entry.
const PAGE: usize = 4_096;
const EMPTY_INDEX_PAGE: [u8; 8] = [0x0a, 0, 0, 0, 0, 0x10, 0, 0];

/// Takes all entries out of an index of a small file, as a disk does that has lost the page.
fn empty_index(file: &Path, index: &str) {
    let connection = Connection::open(file).expect("opens");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let root: u32 = connection.query_row(sql, [index], |row| row.get(0)).expect("is there");
    connection.close().expect("closes");
    let root = usize::try_from(root).expect("a small file");
    let mut bytes = fs::read(file).expect("reads");
    let page = &mut bytes[(root - 1) * PAGE..root * PAGE];
    assert_eq!(page[0], EMPTY_INDEX_PAGE[0], "{index} is larger than a page");
    page.fill(0);
    page[..EMPTY_INDEX_PAGE.len()].copy_from_slice(&EMPTY_INDEX_PAGE);
    fs::write(file, bytes).expect("own file");
}

/// How often a start has checked so far: each checks the store and the runs.
fn checks(node: &Running) -> usize {
    node.log().matches(CHECKED).count()
}

#[test]
fn a_killed_node_checks_its_files_and_starts_and_a_damaged_one_does_not_start() {
    let cluster = Cluster::new();
    let mut a = cluster.play("a", Setup::new());
    assert!(a.dispatch_one(&write("a", "before", &["a"], 31)).ok);
    assert_eq!(checks(&a), 0, "new files");
    a.kill();
    a.restart();
    assert_eq!(checks(&a), 2, "{}", a.log());
    assert!(a.dispatch_one(&write("a", "after", &["a"], 32)).ok);
    a.shutdown();
    a.restart();
    assert_eq!(checks(&a), 2, "after a clean stop");
    a.shutdown();
    let (code, chain) = verified(a.project(), &[]);
    assert_eq!((code, &chain["integrity"]["verdict"]), (Some(0), &json!("holds")), "{chain}");

    let state = a.state_folder();
    empty_index(&state.join("control.db"), "audit_by_target");
    let (code, chain) = verified(a.project(), &[]);
    assert_eq!(
        (code, &chain["ok"], &chain["integrity"]["fault"]),
        (Some(1), &json!(false), &json!("damaged")),
        "{chain}"
    );
    assert!(chain["integrity"]["record"].is_null() && chain["continuity"]["verdict"] == "holds", "{chain}");
    fs::remove_file(state.join("clean")).expect("was left by the clean stop");
    a.launch();
    let (status, _) = a.await_end(SEEN_MAX);
    assert_eq!(status.code(), Some(1), "{}", a.log());
    let log = a.log();
    for word in ["state/control.db", "audit_by_target", "restore the folder from a backup", "audit verify"] {
        assert!(log.lines().last().is_some_and(|line| line.contains(word)), "wanted {word}: {log}");
    }
}

#[test]
fn reads_that_are_gone_are_put_on_record_at_the_next_start() {
    let cluster = Cluster::new();
    let mut a = cluster.play("a", Setup::new());
    a.shutdown();
    let file = a.state_folder().join("events.db");
    let before = fs::read(&file).expect("reads");
    a.restart();
    for number in 0..5 {
        assert!(a.dispatch_one(&read("a", &format!("read-{number}"), &["a"])).ok);
    }
    a.shutdown();
    fs::write(&file, before).expect("own file");
    a.restart();
    let asked = |a: &Running| a.get("/api/runtime-cloud/audit?action=records_lost").body["records"].clone();
    let records = asked(&a);
    let [record] = records.as_array().expect("a list").as_slice() else { panic!("wanted one record, got {records}") };
    assert_eq!((&record["outcome"], &record["chain"]), (&json!("failed"), &json!("writes")), "{record}");
    let detail = record["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("events.db: reads: wanted 5 records, as the newest checkpoint says, got 0"), "{record}");
    a.shutdown();
    a.restart();
    assert_eq!(asked(&a), records, "told once");
}
