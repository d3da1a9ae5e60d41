//! A full disk refuses what does not fit, keeps what was acknowledged, and recovers by itself.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{
    Chain, Error, Filter, PATIENCE, Store, draft, end_of, open, opened, options, place, receipt, until, write,
};
use crate::engine::record::Batch;
use crate::store::sqlite::{Bounds, file, open_within};

/// A file system of a few MiB. Needs the right to mount; without it the test has nothing to run on and says so.
pub(in crate::store::sqlite) struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    pub(in crate::store::sqlite) fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { folder });
        }
        println!("skipped: this user may not mount a file system");
        None
    }

    pub(in crate::store::sqlite) fn path(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Takes what a store needs to open its files. What is returned gives it back.
    fn reserve(&self) -> PathBuf {
        let reserve = self.folder.path().join("reserve");
        fs::write(&reserve, vec![1; 512 << 10]).expect("the disk is empty");
        reserve
    }

    /// Takes all the space that is left, and returns what gives it back.
    pub(in crate::store::sqlite) fn fill(&self) -> PathBuf {
        let filler = self.folder.path().join("filler");
        let filled = fs::write(&filler, vec![1; 64 << 20]);
        assert!(filled.is_err(), "the disk is small");
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "own mount");
    }
}

fn large(number: u64) -> Batch {
    Batch { records: vec![receipt(number, &[7; 64 * 1024])], audits: vec![draft(number)] }
}

/// Commits until the disk is full: how many were acknowledged.
async fn commit_until_full(store: &dyn Store) -> u64 {
    for number in 1..10_000 {
        match store.commit(large(number)).await {
            Ok(places) => assert_eq!(places.first().map(|place| place.seq), Some(number)),
            Err(error) => {
                assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
                assert_eq!(store.fault(), Some(error));
                return number - 1;
            }
        }
    }
    panic!("the disk is never full");
}

#[tokio::test]
async fn a_full_disk_refuses_and_keeps_what_was_acknowledged() {
    let Some(disk) = SmallDisk::mount(8 << 20) else { return };
    let reserve = disk.reserve();
    let store = opened(&disk.path());
    let mut kept = commit_until_full(&store).await;
    assert!(5 < kept, "{kept}");
    // Copying the log may have made room for some more: each is either kept or refused.
    for number in 1_000..1_020 {
        match store.commit(large(number)).await {
            Ok(places) => {
                kept += 1;
                assert_eq!(places.first().map(|place| place.seq), Some(kept));
            }
            Err(error) => assert!(matches!(error, Error::NoSpace { .. }), "{error:?}"),
        }
    }
    let facts = store.recall().await.expect("reads go on");
    assert_eq!(facts.len() as u64, kept);
    assert_eq!(
        store.audit(Filter { limit: 1_000, ..Filter::default() }).await.expect("reads").entries.len() as u64,
        kept
    );
    store.close().await;
    fs::remove_file(reserve).expect("own file");
    let store = opened(&disk.path());
    assert_eq!(store.recall().await.expect("reads"), facts);
    store.close().await;
    assert_eq!(end_of(&disk.path(), Chain::Writes).seq, kept);
}

#[tokio::test]
async fn space_given_back_ends_the_fault_without_a_restart() {
    let Some(disk) = SmallDisk::mount(8 << 20) else { return };
    let store = opened(&disk.path());
    store.commit(write(1)).await.expect("commits");
    store.append_read(draft(1)).expect("queues");
    until(|| end_of(&disk.path(), Chain::Reads).seq == 1).await;
    let filler = disk.fill();
    let error = store.commit(large(2)).await.expect_err("full");
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    // Enough that the log of reads has to grow.
    for number in 2..=2_000 {
        store.append_read(draft(number)).expect("queues");
    }
    until(|| store.reads_fault().is_some()).await;
    assert!(matches!(store.reads_fault(), Some(Error::NoSpace { .. })), "{:?}", store.reads_fault());
    fs::remove_file(filler).expect("own file");
    let places = store.commit(large(2)).await.expect("commits");
    assert_eq!(places.first().map(|place| place.seq), Some(2), "the failed commit left no gap");
    assert_eq!(store.fault(), None);
    until(|| end_of(&disk.path(), Chain::Reads).seq == 2_000).await;
    until(|| store.reads_fault().is_none()).await;
    store.close().await;
    assert_eq!(end_of(&disk.path(), Chain::Writes).seq, 2);
}

#[tokio::test]
async fn concurrent_commits_on_a_full_disk_are_each_told_the_truth() {
    let Some(disk) = SmallDisk::mount(8 << 20) else { return };
    let reserve = disk.reserve();
    let store = std::sync::Arc::new(opened(&disk.path()));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=400 {
        let store = std::sync::Arc::clone(&store);
        let batch = if number % 2 == 0 { large(number) } else { write(number) };
        tasks.spawn(async move { (number, store.commit(batch).await) });
    }
    let outcomes = tokio::time::timeout(PATIENCE, tasks.join_all()).await.expect("answers");
    store.close().await;
    fs::remove_file(reserve).expect("own file");
    let store = opened(&disk.path());
    let mut kept = 0;
    for (number, outcome) in outcomes {
        let found = store.position(draft(number).audit_id).await.expect("reads");
        match outcome {
            Ok(places) => {
                kept += 1;
                assert_eq!(found, places.first().copied());
            }
            Err(error) => {
                assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
                assert_eq!(found, None);
            }
        }
    }
    assert!((1..400).contains(&kept), "{kept}");
    store.close().await;
    assert_eq!(end_of(&disk.path(), Chain::Writes).seq, kept);
}

#[tokio::test]
async fn a_new_store_on_a_full_disk_is_refused_and_made_later() {
    let Some(disk) = SmallDisk::mount(8 << 20) else { return };
    let filler = disk.fill();
    let error = open(options(&disk.path())).expect_err("full");
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    fs::remove_file(filler).expect("own file");
    opened(&disk.path()).close().await;
}

/// The same without a small disk, so that the rule is checked where nobody may mount.
#[tokio::test]
async fn a_file_at_its_limit_refuses_and_keeps_what_was_acknowledged() {
    let (_folder, path) = place();
    let store =
        open_within(&options(&path), Bounds { pages: file::Pages(Some(300)), ..Bounds::OF_A_NODE }).expect("opens");
    let kept = commit_until_full(&store).await;
    store.commit(write(kept + 1)).await.expect("what is small still fits");
    assert_eq!(store.fault(), None);
    store.close().await;
    assert_eq!(end_of(&path, Chain::Writes).seq, kept + 1);
    let store = opened(&path);
    store.commit(large(kept + 2)).await.expect("there is room again");
    assert_eq!(store.recall().await.expect("reads").len() as u64, kept + 2);
    store.close().await;
}
