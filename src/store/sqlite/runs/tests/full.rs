//! A full disk refuses what does not fit, keeps what was acknowledged, and recovers by itself.

use super::*;
use crate::domain::run::{Event, Kind};
use crate::store::sqlite::tests::full::SmallDisk;

fn long(number: u64, index: u64) -> Change {
    let event = Event { body: "x".repeat(64 << 10).into(), ..event(index, Kind::Log) };
    Change::Append { run: run_id(number), events: vec![event] }
}

/// Appends until nothing more fits: the next number.
async fn append_until_full(store: &SqliteRuns) -> u64 {
    for index in 1..10_000 {
        match store.commit(vec![long(1, index)]).await {
            Ok(outcome) => assert_eq!(outcome.changed, [true]),
            Err(Refused::Store(error @ Error::NoSpace { .. })) => {
                assert_eq!(store.fault(), Some(error));
                return index;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the disk is never full");
}

#[tokio::test]
async fn a_full_file_refuses_and_what_fits_is_written_again() {
    let (_folder, path) = place();
    let store = open_within(&options(&path), file::Pages(Some(600)), LIMITS).expect("opens");
    store.set_runs_kept(1);
    store.commit(vec![create(1), create(2), end(2, 1)]).await.expect("commits");
    let count = append_until_full(&store).await;
    assert!(5 < count, "{count}");
    assert_eq!(store.head(run_id(1)).await.expect("reads").expect("is there").count, count);
    // Nothing of a batch of which a part would fit.
    let refused = store.commit(vec![create(3), long(3, 1), long(3, 2), long(3, 3), long(3, 4)]).await;
    assert!(matches!(refused, Err(Refused::Store(Error::NoSpace { .. }))), "{refused:?}");
    assert_eq!(store.head(run_id(3)).await, Ok(None));
    // What is small fits still, and ends the fault; a run that goes makes room for others.
    store.commit(vec![create(4)]).await.expect("commits");
    assert_eq!(store.fault(), None);
    let outcome = store.commit(vec![end(1, count), end(4, 1)]).await.expect("commits");
    assert_eq!(outcome.forgotten, [run_id(1), run_id(2)]);
    store.commit(vec![create(3), long(3, 1), long(3, 2), long(3, 3), long(3, 4)]).await.expect("commits");
    store.close().await;
}

#[tokio::test]
async fn a_full_disk_refuses_and_space_given_back_ends_the_fault() {
    let Some(disk) = SmallDisk::mount(8 << 20) else { return };
    let store = opened(&disk.path());
    store.commit(vec![create(1)]).await.expect("commits");
    let filler = disk.fill();
    let count = append_until_full(&store).await;
    assert_eq!(store.head(run_id(1)).await.expect("reads").expect("is there").count, count);
    std::fs::remove_file(filler).expect("own file");
    store.commit(vec![long(1, count)]).await.expect("commits");
    assert_eq!(store.fault(), None);
    store.close().await;
    let store = opened(&disk.path());
    assert_eq!(store.head(run_id(1)).await.expect("reads").expect("is there").count, count + 1);
    store.close().await;
}
