//! A disk that confirms what it does not keep: of the log of runs, only what came before some place is there after the crash.

use std::fs;

use super::death::check_whole;
use super::*;
use crate::store::runs::RunsAsked;
use crate::store::sqlite::tests::lying::Loss;

/// Runs that are written one after the other, and the events of each.
const RUNS: u64 = 3;
const EVENTS: u64 = 23;

/// Places at which each way of losing begins.
const PLACES: usize = 12;

/// Writes one run, three events at once.
async fn write(store: &SqliteRuns, number: u64) {
    store.commit(vec![create(number)]).await.expect("confirmed");
    for index in (1..EVENTS - 1).step_by(3) {
        store.commit(vec![append(number, index..index + 3)]).await.expect("confirmed");
    }
    store.commit(vec![end(number, EVENTS - 1)]).await.expect("confirmed");
}

/// How many events of each run are there.
async fn counts(store: &SqliteRuns) -> Vec<u64> {
    let page = store.list(RunsAsked { limit: 100, ..RunsAsked::default() }).await.expect("reads");
    let mut counts = Vec::new();
    for number in 1..=RUNS {
        counts.push(store.head(run_id(number)).await.expect("reads").map_or(0, |head| head.count));
    }
    assert_eq!(page.pointers.len(), counts.iter().filter(|count| 0 < **count).count());
    counts
}

#[tokio::test]
async fn runs_of_which_a_disk_lost_what_it_confirmed_are_whole_up_to_some_moment() {
    let (_folder, path) = place();
    let store = opened(&path);
    for number in 1..=RUNS {
        write(&store, number).await;
    }
    let (file, log) = (fs::read(path.join("runs.db")), fs::read(path.join("runs.db-wal")));
    let (file, log) = (file.expect("it is open"), log.expect("it is open"));
    for loss in Loss::ALL {
        let mut totals = Vec::new();
        for at in (0..=PLACES).map(|part| part * log.len() / PLACES) {
            let (_folder, copy) = place();
            fs::create_dir(&copy).expect("made");
            fs::write(copy.join("runs.db"), &file).expect("written");
            fs::write(copy.join("runs.db-wal"), loss.of(log.clone(), at)).expect("written");
            let left = opened(&copy);
            assert!(left.was_checked());
            check_whole(&left).await;
            let counts = counts(&left).await;
            let total: u64 = counts.iter().sum();
            let wanted = (0..RUNS).map(|before| total.saturating_sub(before * EVENTS).min(EVENTS));
            assert!(counts.iter().copied().eq(wanted), "{loss:?} at {at}: {counts:?} was never so");
            write(&left, RUNS + 1).await;
            check_whole(&left).await;
            left.close().await;
            totals.push(total);
        }
        assert!(totals.is_sorted(), "{loss:?}: what was kept longer is there: {totals:?}");
        assert_eq!((totals[0], totals[PLACES]), (0, RUNS * EVENTS), "{loss:?}: {totals:?}");
        assert!(totals.iter().any(|total| (1..RUNS * EVENTS).contains(total)), "{loss:?}: {totals:?}");
    }
    store.close().await;
}
