//! What only the store on disk must hold: full and failing disks, strange files, other processes, sudden death.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers of test records are small")]

mod death;
mod evidence;
pub(super) mod lying;
pub(super) mod full;
mod queues;
mod rotated;
mod strange;
pub(super) mod unclean;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{
    Options, Proof, SqliteStore, Verdict, examine, examine_rotated, open, read_chain, read_checkpoints, verify,
};
use crate::domain::audit::{Fault, Findings, GENESIS, Held, Rotated, Source, Verdict as Answer};
use crate::engine::record::Batch;
use crate::store::contract::{check_chain, draft, note_key, receipt, write};
use crate::store::{Chain, Error, Filter, Store};
use crate::wire::record::audit::Anchor;

/// Longest that a test waits for something to happen in the background.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder for one test and the store's folder in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("state");
    (folder, path)
}

fn options(folder: &Path) -> Options {
    Options { folder: folder.to_owned(), read_audit_max_mb: 64 }
}

fn opened(folder: &Path) -> SqliteStore {
    open(options(folder)).expect("opens")
}

/// A store that was written and closed, with this many writes.
async fn written(folder: &Path, writes: u64) {
    let store = opened(folder);
    let audits = (1..=writes).map(draft).collect();
    let records = (1..=writes).map(|number| receipt(number, b"done")).collect();
    store.commit(Batch { records, audits }).await.expect("commits");
    store.append_read(draft(1)).expect("queues");
    store.close().await;
}

fn end_of(folder: &Path, chain: Chain) -> Anchor {
    match verify(folder, chain).expect("reads") {
        Verdict::Whole { end, .. } => end,
        Verdict::Broken(broken) => panic!("{broken}"),
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("happens in time");
}

#[tokio::test]
async fn a_second_process_is_refused_until_the_first_has_closed() {
    let (_folder, path) = place();
    let first = opened(&path);
    let error = open(options(&path)).expect_err("held");
    assert_eq!(error, Error::InUse { place: path.join("lock").display().to_string() });
    first.close().await;
    opened(&path).close().await;
}

#[tokio::test]
async fn a_dropped_store_writes_what_waits_and_lets_go() {
    let (_folder, path) = place();
    let store = opened(&path);
    for number in 1..=100 {
        store.append_read(draft(number)).expect("queues");
    }
    drop(store);
    until(|| open(options(&path)).is_ok()).await;
    assert_eq!(end_of(&path, Chain::Reads).seq, 100);
}

#[tokio::test]
async fn only_the_owner_can_look_inside() {
    let (_folder, path) = place();
    let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    let check = || {
        assert_eq!(mode(&path), 0o700);
        for file in ["lock", "control.db", "control.db-wal", "control.db-shm", "events.db", "events.db-wal"] {
            assert_eq!(mode(&path.join(file)), 0o600, "{file}");
        }
    };
    let store = opened(&path);
    store.commit(write(1)).await.expect("commits");
    store.append_read(draft(2)).expect("queues");
    check();
    store.close().await;
    // Somebody was careless: opening repairs it.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own folder");
    fs::set_permissions(path.join("control.db"), fs::Permissions::from_mode(0o644)).expect("own file");
    let store = opened(&path);
    store.commit(write(3)).await.expect("commits");
    check();
    store.close().await;
}

#[tokio::test]
async fn the_chains_can_be_read_from_outside_while_the_node_runs_and_after() {
    let (_folder, path) = place();
    let store = opened(&path);
    // More than one page of the reader.
    store.commit(Batch { records: Vec::new(), audits: (1..=1_300).map(draft).collect() }).await.expect("commits");
    assert_eq!(end_of(&path, Chain::Writes).seq, 1_300);
    assert_eq!(end_of(&path, Chain::Reads), Anchor::START);
    store.commit(write(1_301)).await.expect("commits during and after a reading");
    store.close().await;
    let reader = read_chain(&path, Chain::Writes).expect("opens");
    assert_eq!(reader.anchor(), Anchor { seq: 0, hash: GENESIS });
    let entries: Vec<_> = reader.map(|link| link.expect("reads").decode().expect("decodes")).collect();
    assert_eq!(entries.len(), 1_301);
    check_chain(&entries);
}

#[tokio::test]
async fn a_record_changed_behind_our_back_is_named() {
    let (_folder, path) = place();
    for (sql, seq) in [
        ("UPDATE audit SET body = replace(body, 'cfg_apply', 'cfg_appla') WHERE seq = 3", 3),
        ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 4", 4),
        ("UPDATE audit SET body = '{}' WHERE seq = 5", 5),
        ("DELETE FROM audit WHERE seq = 6", 6),
        ("DELETE FROM audit WHERE seq < 8", 1),
        ("UPDATE audit SET seq = -seq WHERE seq = 10", 10),
        ("UPDATE anchor SET seq = 1", 2),
    ] {
        if path.exists() {
            fs::remove_dir_all(&path).expect("own folder");
        }
        written(&path, 20).await;
        assert_eq!(end_of(&path, Chain::Writes).seq, 20);
        let connection = Connection::open(path.join("control.db")).expect("opens");
        // What the tables forbid, a file can still hold.
        connection.execute_batch(&format!("PRAGMA ignore_check_constraints = ON; {sql}")).expect("runs");
        connection.close().expect("closes");
        match verify(&path, Chain::Writes).expect("reads") {
            Verdict::Broken(broken) => assert_eq!(broken.seq, seq, "{sql}: {broken}"),
            Verdict::Whole { .. } => panic!("{sql}: not found"),
        }
    }
}

#[tokio::test]
async fn a_columns_copy_changed_behind_our_back_is_named() {
    let (_folder, path) = place();
    written(&path, 9).await;
    for column in ["audit_id", "actor", "action", "target", "request_id"] {
        let connection = Connection::open(path.join("control.db")).expect("opens");
        connection.execute(&format!("UPDATE audit SET {column} = {column} || 'x' WHERE seq = 4"), []).expect("runs");
        match verify(&path, Chain::Writes).expect("reads") {
            Verdict::Broken(broken) => assert_eq!(broken.seq, 4, "{column}: {broken}"),
            Verdict::Whole { .. } => panic!("{column}: not found"),
        }
        let undo = format!("UPDATE audit SET {column} = substr({column}, 1, length({column}) - 1) WHERE seq = 4");
        connection.execute(&undo, []).expect("runs");
        assert_eq!(end_of(&path, Chain::Writes).seq, 9);
    }
}

#[tokio::test]
async fn reads_are_held_to_their_quota_and_the_rest_still_verifies() {
    const MB: u64 = 1024 * 1024;
    let (_folder, path) = place();
    let store = open(Options { folder: path.clone(), read_audit_max_mb: 4 }).expect("opens");
    let size = || fs::metadata(path.join("events.db")).expect("is there").len();
    let begin = || read_chain(&path, Chain::Reads).expect("opens").anchor();
    let mut number = 0;
    let mut append = async |count: u64| {
        for _ in 0..count {
            number += 1;
            let mut draft = draft(number);
            draft.detail = "x".repeat(400);
            until(|| store.append_read(draft.clone()).is_ok()).await;
        }
        until(|| end_of(&path, Chain::Reads).seq == number).await;
    };
    append(20_000).await;
    assert!(4_000 < begin().seq, "{:?}", begin());
    assert!(size() < 6 * MB, "{}", size());
    let end = end_of(&path, Chain::Reads);
    // Smaller at once, without another read.
    store.set_read_quota(1);
    until(|| 18_000 < begin().seq).await;
    assert_eq!(end_of(&path, Chain::Reads), end);
    store.close().await;
    assert!(size() <= MB, "{}", size());
    let store = opened(&path);
    let page = store.audit(Filter { limit: 1_000, ..Filter::default() }).await.expect("reads");
    assert_eq!(page.entries.first().map(|(_, entry)| entry.position.seq), Some(20_000));
    store.append_read(draft(number + 1)).expect("queues");
    store.close().await;
    assert_eq!(end_of(&path, Chain::Reads).seq, 20_001);
}

fn execute(file: &Path, script: &str) {
    let connection = Connection::open(file).expect("opens");
    connection.execute_batch(script).expect("runs");
    connection.close().expect("closes");
}

/// What is found with the node's key and with notes that are kept elsewhere.
fn proven<T>(elsewhere: &[String], find: impl FnOnce(&Proof<'_>) -> T) -> T {
    let key = note_key().verifier();
    let held = |note: &String| Held::read(Source::Elsewhere("kept.note".to_owned()), note, &key);
    let elsewhere: Vec<_> = elsewhere.iter().map(held).collect();
    find(&Proof { key: Some(&key), elsewhere: &elsewhere, witnesses: &[] })
}

/// What is broken of a log, and at which record.
fn fault(answer: &Answer) -> Option<(Fault, u64)> {
    match answer {
        Answer::Holds(_) | Answer::Unproven(_) => None,
        Answer::Broken { fault, record, .. } => Some((*fault, *record)),
    }
}
