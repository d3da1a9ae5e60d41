//! What only the store of runs on disk must hold: sudden death, full disks, strange files, and that it costs what it should.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers of test runs are small")]

mod death;
mod full;
mod strange;

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::store::runs::RUNS_MAX_MB;
use crate::store::runs::contract::{LIMITS, all_of, append, create, end, event, run_id};
use crate::store::sqlite;

/// A folder for one test and the store's folder in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("state");
    (folder, path)
}

fn options(folder: &Path) -> Options {
    Options { folder: folder.to_owned(), runs_kept: 50, runs_max_mb: RUNS_MAX_MB }
}

fn opened(folder: &Path) -> SqliteRuns {
    open(&options(folder)).expect("opens")
}

/// A store that was written and closed, with this many finished runs of eleven events.
async fn written(folder: &Path, runs: u64) {
    let store = opened(folder);
    store.commit((1..=runs).flat_map(whole).collect()).await.expect("commits");
    store.close().await;
}

fn whole(number: u64) -> [Change; 3] {
    [create(number), append(number, 1..10), end(number, 10)]
}

#[tokio::test]
async fn it_stands_beside_the_other_store_and_has_a_lock_of_its_own() {
    let (_folder, path) = place();
    let other = sqlite::open(sqlite::Options { folder: path.clone(), read_audit_max_mb: 64 }).expect("opens");
    let store = opened(&path);
    let error = open(&options(&path)).expect_err("held");
    assert_eq!(error, Error::InUse { place: path.join("runs.lock").display().to_string() });
    store.commit(whole(1).to_vec()).await.expect("commits");
    store.close().await;
    opened(&path).close().await;
    crate::store::Store::close(&other).await;
}

#[tokio::test]
async fn a_dropped_future_and_a_dropped_store_write_what_was_handed_over() {
    let (_folder, path) = place();
    let store = opened(&path);
    for number in 1..=30 {
        let mut commit = store.commit(vec![create(number)]);
        // Polled once: it is in the queue.
        let polled = futures_util::poll!(&mut commit);
        assert!(polled.is_pending() || polled.is_ready());
    }
    store.close().await;
    let store = opened(&path);
    assert_eq!(store.unfinished().await.expect("reads").len(), 30);
    store.close().await;
}

#[tokio::test]
async fn a_group_is_one_transaction() {
    let (_folder, path) = place();
    let folder = file::Folder::open_runs(&path).expect("opens");
    let (runs, megabytes) = (Arc::new(AtomicUsize::new(50)), Arc::new(AtomicU64::new(RUNS_MAX_MB)));
    let keep = Keep { runs, megabytes, limits: LIMITS, finished: Cell::new(None) };
    let writer = Writer::open(&folder, file::Pages::UNLIMITED, Arc::default(), keep, SharedObserver::default());
    let writer = writer.expect("opens");
    let frames = || {
        let connection = Connection::open(path.join("runs.db")).expect("opens");
        connection.query_row("PRAGMA wal_checkpoint = NOOP", [], |row| row.get::<_, i64>(1)).expect("counts")
    };
    let before = frames();
    let group: Vec<_> = (1..=100).map(|number| Work::Commit(vec![create(number)])).collect();
    assert_eq!(writer.commit(&group).iter().filter(|outcome| outcome.is_ok()).count(), 100);
    // A hundred transactions would each write every changed page again.
    let pages = frames() - before;
    assert!((1..100).contains(&pages), "{pages} pages");
}

#[tokio::test]
async fn every_list_is_answered_from_an_index() {
    let (_folder, path) = place();
    written(&path, 3).await;
    let connection = Connection::open(path.join("runs.db")).expect("opens");
    for sql in [
        "SELECT * FROM run ORDER BY started_ms DESC, run DESC LIMIT 9",
        "SELECT * FROM run WHERE (started_ms, run) < (5, 'x') ORDER BY started_ms DESC, run DESC LIMIT 9",
        "SELECT * FROM run WHERE agent = 'a' AND (started_ms, run) < (5, 'x') ORDER BY started_ms DESC, run DESC LIMIT 9",
        "SELECT * FROM run WHERE agent = 'a' AND instance = 'b' ORDER BY started_ms DESC, run DESC LIMIT 9",
        "SELECT * FROM run WHERE ended_ns IS NULL ORDER BY started_ms DESC, run DESC LIMIT 9",
        "SELECT DISTINCT agent, instance FROM run WHERE (agent, instance) > ('a', 'b') ORDER BY agent, instance LIMIT 9",
        "SELECT * FROM event WHERE run_no = 1 AND 5 <= number ORDER BY number LIMIT 9",
        "SELECT * FROM run WHERE 3 < number ORDER BY number LIMIT 9",
        "SELECT no, run FROM run WHERE ended_ns IS NOT NULL AND run != 'x' ORDER BY started_ms, run LIMIT 1",
        "SELECT run FROM replica WHERE owner = 'a' ORDER BY started_ms DESC, run DESC LIMIT -1 OFFSET 9",
    ] {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("compiles");
        let plan: Vec<String> =
            statement.query_map([], |row| row.get(3)).expect("runs").map(|line| line.expect("reads")).collect();
        assert!(plan.iter().all(|line| line.contains("INDEX") || line.contains("PRIMARY KEY")), "{sql}: {plan:?}");
        assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE")), "{sql}: {plan:?}");
    }
}

#[tokio::test]
async fn a_smaller_quota_makes_the_file_smaller() {
    let (_folder, path) = place();
    let store = opened(&path);
    for number in 1..50 {
        let long = event(1, crate::domain::run::Kind::Log);
        let long = crate::domain::run::Event { body: "x".repeat(250 << 10).into(), ..long };
        let append = Change::Append { run: run_id(number), events: vec![long] };
        store.commit(vec![create(number), append, end(number, 2)]).await.expect("commits");
    }
    store.set_quota(2);
    for number in 50..60 {
        store.commit(whole(number).to_vec()).await.expect("commits");
    }
    store.close().await;
    let bytes = std::fs::metadata(path.join("runs.db")).expect("is there").len();
    assert!((1 << 20..=2 << 20).contains(&bytes), "{bytes} bytes");
    let store = opened(&path);
    assert!(store.head(run_id(59)).await.expect("reads").is_some());
    assert!(store.head(run_id(1)).await.expect("reads").is_none());
    store.close().await;
}
