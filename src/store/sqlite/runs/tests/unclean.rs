//! Which starts check the file, and what becomes of damage that the check finds.

use std::fs;

use super::death::killed;
use super::*;
use crate::store::sqlite::tests::unclean::move_away;

fn execute(path: &Path, script: &str) {
    let connection = Connection::open(path.join("runs.db")).expect("opens");
    connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; {script}")).expect("runs");
    connection.close().expect("closes");
}

#[tokio::test]
async fn a_start_checks_after_a_kill_and_not_after_a_clean_stop() {
    let (_folder, path) = place();
    let store = opened(&path);
    assert!(!store.was_checked(), "a new file");
    store.close().await;
    assert!(path.join("runs.clean").exists());
    assert!(!killed(&path, 1).is_empty());
    let store = opened(&path);
    assert!(store.was_checked());
    assert_eq!(store.fault(), None);
    store.close().await;
    let store = opened(&path);
    assert!(!store.was_checked());
    store.commit(whole(1).to_vec()).await.expect("commits");
    store.close().await;
}

#[tokio::test]
async fn what_a_disk_has_lost_of_runs_is_refused_after_a_stop_that_was_not_clean() {
    // A page of the table of events has no index that would miss it.
    for (script, wanted) in [
        ("DELETE FROM event WHERE run_no = 2 AND number = 10", "wanted 11 events, got 10"),
        ("DELETE FROM event WHERE run_no = 2", "wanted 11 events, got 0"),
        ("DELETE FROM run WHERE no = 3", "events of number 3 without one"),
    ] {
        let (_folder, path) = place();
        written(&path, 5).await;
        execute(&path, script);
        fs::remove_file(path.join("runs.clean")).expect("was left");
        let error = open(&options(&path)).expect_err("refused").to_string();
        let file = path.join("runs.db").display().to_string();
        assert!(error.starts_with(&file) && error.contains(wanted), "{script}: {error}");
        assert!(error.contains("move the file away") && !error.contains("audit verify"), "{error}");
        move_away(&path, "runs.db");
        let store = opened(&path);
        assert_eq!((store.fault(), store.is_being_checked()), (None, false), "{script}");
        store.commit(whole(1).to_vec()).await.expect("commits");
        store.close().await;
        assert!(path.join("runs.clean").exists(), "{script}");
    }
}
