//! What is kept over all instances, which callers name as they like.

use std::sync::Arc;

use super::{Bench, LIMITS, Runs, commit, create_of, end, event, pointer, run_id};
use crate::domain::run::{Event, Kind, RunId};
use crate::store::runs::{Change, Fault, PAGE_MAX, Refused, RunsAsked};

/// A run of an instance of its own.
fn begun(number: u64) -> Change {
    create_of(pointer(number, "hello", &format!("i{number}")))
}

/// This many KiB of events, in the parts that an event may have.
fn long(number: u64, kib: u64) -> Change {
    let part = |index| Event { body: "x".repeat(64 << 10).into(), ..event(index, Kind::Log) };
    Change::Append { run: run_id(number), events: (1..=kib / 64).map(part).collect() }
}

/// A run of that length from its start to its end.
fn whole(number: u64, kib: u64) -> [Change; 3] {
    [begun(number), long(number, kib), end(number, kib / 64 + 1)]
}

/// The numbers below 1,000 of the runs that are kept, ascending.
async fn kept(store: &Arc<dyn Runs>) -> Vec<u64> {
    let page = store.list(RunsAsked { limit: PAGE_MAX, ..RunsAsked::default() }).await.expect("reads");
    let is_kept = |number: &u64| page.pointers.iter().any(|it| it.run == run_id(*number));
    (0..1_000).filter(is_kept).collect()
}

pub(super) async fn runs_of_instances_that_callers_make_up_have_a_bound<B: Bench>() {
    let store = B::new().open();
    let most = LIMITS.finished as u64;
    commit(&store, [begun(1), begun(2)]).await;
    for number in 10..50 {
        // What is refused counts for nothing.
        let refused =
            store.commit(vec![begun(900), end(900, 1), Change::Append { run: run_id(900), events: vec![] }]).await;
        assert_eq!(refused, Err(Refused::Wrong { run: run_id(900), fault: Fault::Ended }));
        let outcome = commit(&store, whole(number, 0)).await;
        let gone: Vec<RunId> = (10 + most <= number).then(|| run_id(number - most)).into_iter().collect();
        assert_eq!(outcome.forgotten, gone, "{number}");
    }
    let newest = 50 - most..50;
    assert_eq!(kept(&store).await, [1, 2].into_iter().chain(newest).collect::<Vec<_>>(), "what goes on stays");
    // The one that ends is the oldest of all, and goes.
    assert_eq!(commit(&store, [end(1, 1)]).await.forgotten, [run_id(1)]);
    assert!(kept(&store).await.starts_with(&[2, 50 - most]));
    assert_eq!(commit(&store, whole(60, 0)).await.forgotten, [run_id(50 - most)]);
    store.close().await;
}

pub(super) async fn a_clock_that_was_set_back_makes_no_run_of_any_instance_vanish<B: Bench>() {
    let store = B::new().open();
    let most = LIMITS.finished as u64;
    for number in 500..500 + most {
        commit(&store, whole(number, 0)).await;
    }
    for number in 0..most {
        // Each of them before the one before it.
        let outcome = commit(&store, whole(100 - number, 0)).await;
        assert_eq!(outcome.forgotten, [run_id(500 + number)], "{number}");
    }
    assert_eq!(commit(&store, whole(600, 0)).await.forgotten, [run_id(100)]);
    store.close().await;
}

pub(super) async fn the_space_of_all_runs_has_a_bound<B: Bench>() {
    let store = B::new().open();
    store.set_quota(1);
    commit(&store, [begun(1)]).await;
    for number in 10..20 {
        commit(&store, whole(number, 192)).await;
        let kept = kept(&store).await;
        assert!(kept.len() <= 6 && kept.first() == Some(&1) && kept.last() == Some(&number), "{number}: {kept:?}");
    }
    assert!((4..=6).contains(&kept(&store).await.len()), "as many as there is space for: {:?}", kept(&store).await);
    // One that goes on may be longer than all that may be kept; it is neither cut nor forgotten.
    commit(&store, [long(1, 2_048)]).await;
    commit(&store, whole(20, 64)).await;
    assert_eq!(kept(&store).await, [1, 20]);
    assert_eq!(commit(&store, [end(1, 33)]).await.forgotten, [run_id(1)]);
    assert_eq!(commit(&store, whole(21, 64)).await.forgotten, []);
    // The newest stays, whatever it takes.
    assert_eq!(commit(&store, whole(22, 2_048)).await.forgotten, [run_id(20), run_id(21)]);
    assert_eq!(kept(&store).await, [22]);
    assert_eq!(commit(&store, whole(23, 64)).await.forgotten, [run_id(22)]);
    // A larger quota is felt at once.
    store.set_quota(100);
    for number in 30..40 {
        assert_eq!(commit(&store, whole(number, 192)).await.forgotten, []);
    }
    store.close().await;
}

pub(super) async fn what_had_to_go_is_told_from_what_never_was<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    commit(&store, [begun(1)]).await;
    let asked = async |store: &Arc<dyn Runs>, number| store.is_forgotten(run_id(number)).await.expect("reads");
    for number in 10..30 {
        commit(&store, whole(number, 0)).await;
    }
    store.close().await;
    drop(store);
    let store = bench.open();
    let last_gone = 29 - LIMITS.finished as u64;
    let remembered = last_gone + 1 - LIMITS.forgotten as u64;
    assert!(asked(&store, remembered).await && asked(&store, last_gone).await);
    for number in [1, 2, remembered - 1, last_gone + 1, 29] {
        assert!(!asked(&store, number).await, "{number}");
    }
    store.close().await;
}
