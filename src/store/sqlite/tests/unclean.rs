//! Which starts check the files, and what becomes of damage that the check finds.

use std::sync::Mutex;

use super::death::killed;
use super::*;
use crate::store::sqlite::damage::Wait;
use crate::store::sqlite::{Bounds, open_within};

/// SQLite's size of a page, and an index page that holds no entry.
const PAGE: usize = 4_096;
const EMPTY_INDEX_PAGE: [u8; 8] = [0x0a, 0, 0, 0, 0, 0x10, 0, 0];

/// Records whose check takes far longer than the rest of a start.
const MANY: u64 = 5_000;

/// Takes all entries out of an index of a small file, as a disk does that has lost the page.
fn empty_index(file: &Path, index: &str) {
    let connection = Connection::open(file).expect("opens");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let root: u32 = connection.query_row(sql, [index], |row| row.get(0)).expect("is there");
    let root = usize::try_from(root).expect("a small file");
    connection.close().expect("closes");
    let mut bytes = fs::read(file).expect("reads");
    let page = &mut bytes[(root - 1) * PAGE..root * PAGE];
    assert_eq!(page[0], EMPTY_INDEX_PAGE[0], "{index} is larger than a page");
    page.fill(0);
    page[..EMPTY_INDEX_PAGE.len()].copy_from_slice(&EMPTY_INDEX_PAGE);
    fs::write(file, bytes).expect("own file");
}

/// What the node left is taken away, as by a power cut.
fn forget_clean_stop(folder: &Path) {
    fs::remove_file(folder.join("clean")).expect("was left");
}

#[tokio::test]
async fn a_clean_stop_leaves_a_word_and_the_next_start_checks_nothing() {
    let (_folder, path) = place();
    let store = opened(&path);
    assert!(!store.was_checked(), "a new store");
    store.close().await;
    for number in 1..4 {
        assert!(path.join("clean").exists(), "{number}");
        let store = opened(&path);
        assert!(!store.was_checked() && !store.is_being_checked(), "{number}");
        assert!(!path.join("clean").exists(), "{number}: it is not about what is written now");
        store.commit(write(number)).await.expect("commits");
        store.append_read(draft(number)).expect("queues");
        store.close().await;
    }
}

#[tokio::test]
async fn a_start_after_a_kill_checks_and_the_one_after_a_clean_stop_does_not() {
    let (_folder, path) = place();
    assert!(!killed(&path, 0).is_empty());
    let store = opened(&path);
    assert!(store.was_checked() && !store.is_being_checked());
    assert_eq!((store.fault(), store.reads_fault(), store.losses().len()), (None, None, 0));
    store.close().await;
    let store = opened(&path);
    assert!(!store.was_checked());
    store.close().await;
}

#[tokio::test]
async fn a_word_about_other_files_is_none() {
    let (_folder, path) = place();
    written(&path, 3).await;
    let word = fs::read(path.join("clean")).expect("was left");
    written(&path, 3).await;
    for other in [&word[..], &word[..20], b"", &[0xff; 4_000]] {
        fs::write(path.join("clean"), other).expect("own file");
        let store = opened(&path);
        assert!(store.was_checked());
        store.close().await;
    }
    let log = path.join("events.db-wal");
    fs::write(&log, b"left").expect("own file");
    let store = opened(&path);
    assert!(store.was_checked(), "a log was left");
    store.close().await;
}

/// What operators are told to do.
pub(in crate::store::sqlite) fn move_away(folder: &Path, name: &str) {
    for ending in ["", "-wal", "-shm"] {
        let file = format!("{name}{ending}");
        if folder.join(&file).exists() {
            fs::rename(folder.join(&file), folder.join("..").join(&file)).expect("own file");
        }
    }
}

/// Waits until so many reads and refusals are on the disk: a close, and its last checkpoint, wait for a slow one only so long.
async fn until_written(path: &Path, records: u64) {
    until(|| end_of(path, Chain::Reads).seq + end_of(path, Chain::Refusals).seq == records).await;
}

/// What damage a start is refused for when it finds it in this file.
async fn damaged(path: &Path, name: &str) {
    let store = opened(path);
    store.sign_checkpoints(note_key());
    store.commit(crate::store::contract::boot(1)).await.expect("commits");
    store.append_reads(vec![draft(1), crate::store::contract::refused(2)]).expect("queues");
    until_written(path, 2).await;
    store.close().await;
    empty_index(&path.join(name), "audit_by_name");
    forget_clean_stop(path);
}

#[tokio::test]
async fn a_damaged_file_of_reads_or_refusals_is_moved_away_and_the_next_start_goes_on_with_every_write() {
    for (name, lost) in [("events.db", "reads"), ("refusals.db", "refusals")] {
        let (_folder, path) = place();
        damaged(&path, name).await;
        let end = end_of(&path, Chain::Writes);
        let error = open(options(&path)).expect_err("refused").to_string();
        let remedy = format!(
            "move the file away with its -wal and -shm, keep them for the auditor and start again: its {lost} are lost"
        );
        assert!(error.contains(&remedy) && !error.contains("audit verify"), "{error}");
        move_away(&path, name);
        let store = opened(&path);
        assert!(store.was_checked() && !store.is_being_checked(), "{name}");
        assert_eq!((store.fault(), store.reads_fault()), (None, None), "{name}");
        let losses = store.losses();
        assert!(matches!(&losses[..], [loss] if loss.contains(name) && loss.contains("got 0")), "{losses:?}");
        assert_eq!(end_of(&path, Chain::Writes), end, "{name}");
        store.append_reads(vec![draft(3), crate::store::contract::refused(4)]).expect("queues");
        store.commit(write(5)).await.expect("commits");
        until_written(&path, 3).await;
        store.close().await;
        let store = opened(&path);
        assert!(!store.was_checked(), "{name}");
        store.close().await;
    }
}

/// The writer takes up what waits only after the damage is known.
#[tokio::test]
async fn a_file_that_is_found_damaged_late_takes_no_further_group() {
    let (_folder, path) = place();
    damaged(&path, "events.db").await;
    let count = || {
        let connection = Connection::open(path.join("events.db")).expect("opens");
        connection.query_row("SELECT count(*) FROM audit", [], |row| row.get::<_, i64>(0)).expect("counts")
    };
    let before = count();
    let store = opened_while_checked(&path);
    until(|| store.reads_fault().is_some()).await;
    store.append_read(draft(3)).expect("queues");
    store.close().await;
    assert_eq!(count(), before);
    assert!(!path.join("clean").exists());
}

#[tokio::test]
async fn an_index_that_lost_its_entries_is_told_offline_and_by_a_start_after_a_stop_that_was_not_clean() {
    for (name, index) in [
        ("control.db", "audit_by_target"),
        ("control.db", "audit_by_name"),
        ("events.db", "audit_by_name"),
        ("refusals.db", "audit_by_name"),
    ] {
        let (_folder, path) = place();
        written(&path, 9).await;
        let store = opened(&path);
        store.append_read(crate::store::contract::refused(1)).expect("queues");
        store.close().await;
        let file = path.join(name);
        empty_index(&file, index);
        let integrity = proven(&[], |proof| match name {
            "control.db" => examine(&path, proof).expect("reads").0,
            "events.db" => examine_rotated(&path, Rotated::Reads, proof).expect("reads").0,
            _ => examine_rotated(&path, Rotated::Refusals, proof).expect("reads").0,
        })
        .integrity;
        assert_eq!(fault(&integrity), Some((Fault::Damaged, 0)), "{name}: {integrity:?}");
        forget_clean_stop(&path);
        for _again in 0..2 {
            match open(options(&path)).expect_err("refused") {
                Error::Unreadable { place, reason } => {
                    assert_eq!(place, file.display().to_string());
                    assert!(reason.contains(index), "{reason}");
                    let restores =
                        reason.contains("restore the folder from a backup") && reason.contains("audit verify");
                    assert_eq!(restores, name == "control.db", "{reason}");
                }
                other @ (Error::NoSpace { .. } | Error::Broken { .. } | Error::InUse { .. } | Error::Closed) => {
                    panic!("{name}: {other:?}")
                }
            }
        }
    }
}

#[tokio::test]
async fn a_record_that_does_not_continue_its_chain_is_refused_after_a_stop_that_was_not_clean() {
    for (name, script, wanted) in [
        ("control.db", "UPDATE audit SET body = replace(body, 's/origin', 's/orisin') WHERE seq = 4", "record 4: "),
        ("control.db", "DELETE FROM audit WHERE seq = 5", "record 5 is missing"),
        ("events.db", "UPDATE audit SET hash = zeroblob(32) WHERE seq = 1", "record 1"),
    ] {
        let (_folder, path) = place();
        written(&path, 9).await;
        let store = opened(&path);
        store.append_read(draft(2)).expect("queues");
        store.close().await;
        execute(&path.join(name), script);
        forget_clean_stop(&path);
        let error = open(options(&path)).expect_err("refused").to_string();
        assert!(error.starts_with(&path.join(name).display().to_string()) && error.contains(wanted), "{error}");
    }
}

/// A store that is open while its files are checked: the check has no end before that of the start.
fn opened_while_checked(path: &Path) -> SqliteStore {
    let hold: &'static Mutex<()> = Box::leak(Box::default());
    let held = hold.lock().expect("own lock");
    let bounds = Bounds { check_wait: Wait::held(hold), ..Bounds::OF_A_NODE };
    let store = open_within(&options(path), bounds).expect("opens");
    assert!(store.was_checked() && store.is_being_checked());
    drop(held);
    store
}

/// A file that is too large to wait for: the node serves, says that it does not know, and takes no writes from then on.
#[tokio::test]
async fn damage_that_is_found_after_the_start_stops_the_writes_and_is_no_clean_stop() {
    let (_folder, path) = place();
    written(&path, MANY).await;
    let script = format!("UPDATE audit SET body = replace(body, 's/origin', 's/orisin') WHERE seq = {}", MANY - 1);
    execute(&path.join("control.db"), &script);
    forget_clean_stop(&path);
    let store = opened_while_checked(&path);
    until(|| store.fault().is_some()).await;
    let fault = store.fault().expect("found");
    assert!(matches!(&fault, Error::Broken { reason, .. } if reason.contains("record 4999")), "{fault}");
    assert!(!store.is_being_checked(), "it is known now");
    assert_eq!(store.commit(write(10)).await, Err(fault));
    store.close().await;
    assert!(!path.join("clean").exists());
}

#[tokio::test]
async fn a_check_that_goes_on_beside_the_work_ends_with_the_store_or_with_an_answer() {
    let (_folder, path) = place();
    written(&path, MANY).await;
    for closes_at_once in [true, true, true, true, false] {
        fs::remove_file(path.join("clean")).unwrap_or_default();
        let store = opened_while_checked(&path);
        if !closes_at_once {
            until(|| !store.is_being_checked()).await;
            store.commit(write(10)).await.expect("commits");
        }
        store.close().await;
        let (is_known, is_clean) = (!store.is_being_checked(), path.join("clean").exists());
        assert!(is_known || !is_clean, "a check that was cut short: the next start checks");
        assert!(is_clean || closes_at_once, "what is whole and closed is a clean stop");
    }
}
