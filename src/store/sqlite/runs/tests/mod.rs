//! What only the store of runs on disk must hold: sudden death, full disks, strange files, and that it costs what it should.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers of test runs are small")]

mod death;
mod full;
mod lying;
mod queues;
mod strange;
mod unclean;

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
        retention::SURPLUS,
        "SELECT run FROM replica WHERE owner = 'a' ORDER BY started_ms DESC, run DESC LIMIT -1 OFFSET 9",
    ] {
        // The heading of a part is no part.
        let is_of_index = |line: &String| ["INDEX", "PRIMARY KEY", "SUBQUERY"].iter().any(|word| line.contains(word));
        let plan = plan(&connection, sql);
        assert!(plan.iter().all(is_of_index), "{sql}: {plan:?}");
        assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE")), "{sql}: {plan:?}");
    }
    // In the order of the rows, and not sorted: what stands before the first finished run goes on.
    assert_eq!(plan(&connection, retention::OLDEST), ["SCAN run"]);
}

/// How SQLite would answer a question.
fn plan(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("compiles");
    let unbound = vec![rusqlite::types::Null; statement.parameter_count()];
    let lines = statement.query_map(rusqlite::params_from_iter(unbound), |row| row.get(3)).expect("runs");
    lines.map(|line| line.expect("reads")).collect()
}

/// Nothing of a hot path reads a whole table: whether a run was forgotten is asked by each who follows one that is to come.
#[tokio::test]
async fn whether_a_run_is_forgotten_is_answered_from_an_index() {
    let (_folder, path) = place();
    written(&path, 3).await;
    let connection = Connection::open(path.join("runs.db")).expect("opens");
    let plan = plan(&connection, reader::IS_FORGOTTEN);
    assert!(plan.iter().any(|line| line.contains("USING COVERING INDEX forgotten_by_run (run=?)")), "{plan:?}");
}

/// A file as version 1 had it: the same tables without what was added.
fn as_version_1(path: &Path) {
    let connection = Connection::open(path.join("runs.db")).expect("opens");
    let script = "DROP INDEX run_finished; DROP INDEX forgotten_by_run; PRAGMA user_version = 1;";
    connection.execute_batch(script).expect("runs");
}

#[tokio::test]
async fn a_file_of_version_1_is_carried_over_with_all_it_has() {
    let (_folder, path) = place();
    let store = opened(&path);
    store.set_runs_kept(3);
    // The clock was set back before run 1 and again before run 2.
    for number in [700, 800, 900, 901, 1, 2] {
        store.commit(whole(number).to_vec()).await.expect("commits");
    }
    let list = || RunsAsked { limit: 9, ..RunsAsked::default() };
    let before = store.list(list()).await.expect("reads");
    store.close().await;
    as_version_1(&path);
    let store = opened(&path);
    assert_eq!(store.list(list()).await.expect("reads"), before);
    assert!(store.is_forgotten(run_id(700)).await.expect("reads"));
    let page = store.events(all_of(901)).await.expect("reads").expect("is there");
    assert_eq!(page.events.len(), 11);
    store.set_runs_kept(3);
    let outcome = store.commit(whole(3).to_vec()).await.expect("commits");
    assert_eq!(outcome.forgotten, [run_id(901)], "the first of the old rows to begin");
    store.close().await;
    let connection = Connection::open(path.join("runs.db")).expect("opens");
    let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("reads");
    assert_eq!(version, 2);
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
