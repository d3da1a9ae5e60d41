//! Records and events.

use std::sync::{Arc, Mutex, Weak};

use super::{Bench, KEPT, Runs, all_of, append, commit, create, create_of, end, end_of, event, pointer, run_id};
use crate::domain::run::{EVENT_BYTES_MAX, Event, Kind, Run, RunId};
use crate::store::Error;
use crate::store::runs::{
    Change, EventPage, EventsAsked, Fault, Head, Observer, Outcome, PAGE_MAX, Refused, RunsAsked,
};

async fn indices(store: &Arc<dyn Runs>, asked: EventsAsked) -> Option<Vec<u64>> {
    let page = store.events(asked).await.expect("reads")?;
    Some(page.events.iter().map(|event| event.index).collect())
}

/// What is known of a run in each of the three places.
async fn known(store: &Arc<dyn Runs>, number: u64) -> [bool; 4] {
    let run = run_id(number);
    let list = store.list(RunsAsked { limit: PAGE_MAX, ..RunsAsked::default() }).await.expect("reads");
    [
        store.run(run).await.expect("reads").is_some(),
        store.events(all_of(number)).await.expect("reads").is_some(),
        store.lookup(run).await.expect("reads").is_some(),
        list.pointers.iter().any(|it| it.run == run),
    ]
}

pub(super) async fn a_run_is_kept_from_its_start_to_its_end<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    assert_eq!(known(&store, 1).await, [false; 4]);
    assert_eq!(commit(&store, [create(1)]).await.changed, [true]);
    let mut wanted = pointer(1, "hello", "i1");
    let active = Run { pointer: wanted.clone(), result: None, error: None };
    assert_eq!(store.run(run_id(1)).await, Ok(Some(active)));
    assert_eq!(store.head(run_id(1)).await, Ok(Some(Head { count: 1, is_ended: false })));
    assert_eq!(commit(&store, [append(1, 1..5), end(1, 5)]).await.changed, [true, true]);
    wanted.end = Some(end_of(1));
    assert_eq!(store.lookup(run_id(1)).await, Ok(Some(wanted.clone())));
    store.close().await;
    drop(store);
    let store = bench.open();
    let ended = Run { pointer: wanted.clone(), result: Some("{\"a\":1}".to_owned()), error: None };
    assert_eq!(store.run(run_id(1)).await, Ok(Some(ended)));
    let page = store.events(all_of(1)).await.expect("reads").expect("is there");
    let events: Vec<Event> = match append(1, 1..5) {
        Change::Append { events, .. } => {
            [vec![event(0, Kind::RunStart)], events, vec![event(5, Kind::RunEnd)]].concat()
        }
        Change::Create { .. } | Change::End { .. } => panic!("not those"),
    };
    assert_eq!(page, EventPage { pointer: wanted, events, next: 6, head: Head { count: 6, is_ended: true } });
    store.close().await;
}

/// Contract, RR-63: a repeated start keeps the first.
pub(super) async fn the_first_start_wins_also_after_the_end<B: Bench>() {
    let store = B::new().open();
    commit(&store, [create(1)]).await;
    let other = create_of(pointer(1, "other", "i2"));
    assert_eq!(commit(&store, [other.clone()]).await.changed, [false]);
    assert_eq!(commit(&store, [end(1, 1), other]).await.changed, [true, false]);
    let kept = store.lookup(run_id(1)).await.expect("reads").expect("is there");
    assert_eq!((kept.agent.as_str(), kept.end), ("hello", Some(end_of(1))));
    assert_eq!(indices(&store, all_of(1)).await, Some(vec![0, 1]));
    store.close().await;
}

/// Contract, RR-63: an end without a start is ignored.
pub(super) async fn an_end_without_a_start_and_a_second_end_change_nothing<B: Bench>() {
    let store = B::new().open();
    assert_eq!(commit(&store, [end(1, 1)]).await, Outcome { changed: vec![false], forgotten: Vec::new() });
    assert_eq!(known(&store, 1).await, [false; 4]);
    commit(&store, [create(1), end(1, 1)]).await;
    let Change::End { run, end: how, last, .. } = end(1, 7) else { panic!("it is one") };
    let other = Change::End { run, end: how, result: None, error: Some("{}".to_owned()), last };
    assert_eq!(commit(&store, [other]).await.changed, [false]);
    assert_eq!(store.run(run).await.expect("reads").expect("is there").error, None);
    assert_eq!(indices(&store, all_of(1)).await, Some(vec![0, 1]));
    store.close().await;
}

pub(super) async fn a_log_has_no_gap_and_no_wrong_frame<B: Bench>() {
    let store = B::new().open();
    commit(&store, [create(1), create(2), end(2, 1)]).await;
    let one = |event: Event| Change::Append { run: run_id(1), events: vec![event] };
    let long = Event { body: "x".repeat(EVENT_BYTES_MAX + 1).into(), ..event(1, Kind::Log) };
    let with_end = {
        let mut pointer = pointer(4, "hello", "i1");
        pointer.end = Some(end_of(4));
        create_of(pointer)
    };
    let start = |first: Event| Change::Create { pointer: pointer(4, "hello", "i1"), first };
    let Change::End { run, end: how, .. } = end(1, 1) else { panic!("it is one") };
    let unframed = Change::End { run, end: how, result: None, error: None, last: event(1, Kind::Log) };
    for (change, number, fault) in [
        (append(1, 2..3), 1, Fault::Number { wanted: 1, got: 2 }),
        (append(1, 0..1), 1, Fault::Number { wanted: 1, got: 0 }),
        (end(1, 2), 1, Fault::Number { wanted: 1, got: 2 }),
        (append(2, 2..3), 2, Fault::Ended),
        (append(3, 1..2), 3, Fault::Unknown),
        (one(event(1, Kind::RunStart)), 1, Fault::Frame(Kind::RunStart)),
        (one(event(1, Kind::RunEnd)), 1, Fault::Frame(Kind::RunEnd)),
        (unframed, 1, Fault::Frame(Kind::Log)),
        (one(long), 1, Fault::TooLong(EVENT_BYTES_MAX + 1)),
        (with_end, 4, Fault::Frame(Kind::RunEnd)),
        (start(event(0, Kind::Log)), 4, Fault::Frame(Kind::Log)),
        (start(event(1, Kind::RunStart)), 4, Fault::Number { wanted: 0, got: 1 }),
    ] {
        assert_eq!(store.commit(vec![change]).await, Err(Refused::Wrong { run: run_id(number), fault }));
    }
    assert_eq!((store.fault(), indices(&store, all_of(1)).await), (None, Some(vec![0])));
    store.close().await;
}

pub(super) async fn a_batch_is_all_or_nothing<B: Bench>() {
    let store = B::new().open();
    commit(&store, [create(1)]).await;
    let refused = store.commit(vec![create(2), append(1, 1..4), end(1, 4), append(2, 1..2), append(1, 9..10)]).await;
    assert_eq!(refused, Err(Refused::Wrong { run: run_id(1), fault: Fault::Ended }));
    assert_eq!(known(&store, 2).await, [false; 4]);
    assert_eq!(store.head(run_id(1)).await, Ok(Some(Head { count: 1, is_ended: false })));
    let batches = (10..40).map(|number| store.commit(vec![create(number), append(number, 1..2), append(number, 2..5)]));
    for outcome in futures_util::future::join_all(batches).await {
        assert_eq!(outcome.expect("commits").changed, [true; 3]);
    }
    for number in 10..40 {
        assert_eq!(indices(&store, all_of(number)).await, Some(vec![0, 1, 2, 3, 4]));
    }
    assert_eq!(commit(&store, []).await, Outcome::default());
    store.close().await;
}

pub(super) async fn pages_are_filtered_before_they_are_cut<B: Bench>() {
    let store = B::new().open();
    commit(&store, [create(1), append(1, 1..1_500), create(2)]).await;
    let ask = |from, kinds: &[Kind], limit| {
        let kinds = (!kinds.is_empty()).then(|| kinds.iter().copied().collect());
        EventsAsked { from, kinds, limit, ..all_of(1) }
    };
    let page = async |asked| {
        let page = store.events(asked).await.expect("reads").expect("is there");
        (page.events.iter().map(|event| event.index).collect::<Vec<_>>(), page.next)
    };
    assert_eq!(page(ask(0, &[], 3)).await, (vec![0, 1, 2], 3));
    assert_eq!(page(ask(1_498, &[], 3)).await, (vec![1_498, 1_499], 1_500));
    assert_eq!(page(ask(0, &[], usize::MAX)).await.1, 1_000, "a page has an end");
    assert_eq!(page(ask(1, &[Kind::Log], 2)).await, (vec![3, 6], 7));
    assert_eq!(page(ask(1_490, &[Kind::Log], 10)).await, (vec![1_491, 1_494, 1_497], 1_500));
    assert_eq!(page(ask(0, &[Kind::RunStart, Kind::Log], 2)).await, (vec![0, 3], 4));
    assert_eq!(page(ask(0, &[Kind::Turn], 5)).await, (vec![], 1_500), "past what was not wanted");
    assert_eq!(page(ask(9_999, &[], 5)).await, (vec![], 9_999));
    assert_eq!(page(ask(u64::MAX, &[], 5)).await, (vec![], u64::MAX));
    assert_eq!(indices(&store, EventsAsked { run: run_id(3), ..all_of(1) }).await, None);
    store.close().await;
}

pub(super) async fn a_page_ends_before_it_is_too_long_but_is_never_empty<B: Bench>() {
    let store = B::new().open();
    let long = |index| Event { body: format!("{index:01000}").into(), ..event(index, Kind::Log) };
    commit(&store, [create(1), Change::Append { run: run_id(1), events: (1..10).map(long).collect() }]).await;
    let page = async |from, bytes_max| {
        let asked = EventsAsked { from, bytes_max, ..all_of(1) };
        let page = store.events(asked).await.expect("reads").expect("is there");
        (page.events.iter().map(|event| event.index).collect::<Vec<_>>(), page.next)
    };
    assert_eq!(page(1, 0).await, (vec![1], 2));
    assert_eq!(page(1, 2_999).await, (vec![1, 2], 3));
    assert_eq!(page(1, 3_000).await, (vec![1, 2, 3], 4));
    assert_eq!(page(8, 2_000).await, (vec![8, 9], 10));
    store.close().await;
}

/// Contract, RR-60 and RR-61.
pub(super) async fn finished_runs_go_with_everything_the_oldest_first<B: Bench>() {
    let store = B::new().open();
    let other = |number, agent, instance| vec![create_of(pointer(number, agent, instance)), end(number, 1)];
    commit(&store, [other(900, "hello", "i2"), other(901, "other", "i1"), vec![create(1)]].concat()).await;
    // The runs begin in one order and end in another; run 1 never ends.
    for number in [2, 3, 4, 5, 6] {
        commit(&store, [create(number), append(number, 1..3)]).await;
    }
    for (number, forgotten) in [(6, vec![]), (3, vec![]), (5, vec![]), (4, vec![3]), (2, vec![2])] {
        let forgotten: Vec<RunId> = forgotten.into_iter().map(run_id).collect();
        assert_eq!(commit(&store, [end(number, 3)]).await.forgotten, forgotten, "{number}");
    }
    for number in [2, 3] {
        assert_eq!(known(&store, number).await, [false; 4], "{number}");
    }
    for number in [1, 4, 5, 6, 900, 901] {
        assert_eq!(known(&store, number).await, [true; 4], "{number}");
    }
    store.set_runs_kept(1);
    let outcome = commit(&store, [create(7), end(7, 1)]).await;
    assert_eq!(outcome.forgotten.len(), KEPT);
    assert_eq!(known(&store, 6).await, [false; 4]);
    // None is less than one.
    store.set_runs_kept(0);
    assert_eq!(commit(&store, [create(8), end(8, 1)]).await.forgotten, [run_id(7)]);
    assert_eq!(known(&store, 8).await, [true; 4]);
    store.close().await;
}

/// Contract, RR-60: what counts is when it began, and not when it ended.
pub(super) async fn a_run_that_began_before_all_that_are_kept_goes_the_moment_it_ends<B: Bench>() {
    let store = B::new().open();
    commit(&store, [create(1), append(1, 1..3)]).await;
    for number in [2, 3, 4, 5, 6] {
        commit(&store, [create(number), end(number, 1)]).await;
    }
    let outcome = commit(&store, [end(1, 3)]).await;
    assert_eq!((outcome.changed, outcome.forgotten), (vec![true], vec![run_id(1)]));
    assert_eq!(known(&store, 1).await, [false; 4]);
    assert_eq!(store.is_forgotten(run_id(1)).await, Ok(true));
    for number in [4, 5, 6] {
        assert_eq!(known(&store, number).await, [true; 4], "{number} is younger");
    }
    assert_eq!(commit(&store, [end(1, 3)]).await, Outcome { changed: vec![false], forgotten: vec![] });
    store.close().await;
}

/// Contract, RR-60: the order is that in which they began, and no clock is asked for it.
pub(super) async fn a_clock_that_was_set_back_makes_no_new_run_vanish<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    commit(&store, [create(800)]).await;
    for number in [900, 901, 902] {
        commit(&store, [create(number), end(number, 1)]).await;
    }
    store.close().await;
    drop(store);
    let store = bench.open();
    // Set back, and back again: what begins now is the newest all the same.
    for (number, forgotten) in [(5, 900), (6, 901), (2, 902), (3, 5), (4, 6)] {
        assert_eq!(commit(&store, [create(number), end(number, 1)]).await.forgotten, [run_id(forgotten)], "{number}");
        assert_eq!(known(&store, number).await, [true; 4], "{number}");
    }
    // One that began before all of them is the oldest, though its clock was ahead.
    assert_eq!(commit(&store, [end(800, 1)]).await.forgotten, [run_id(800)]);
    store.close().await;
}

/// Contract, RR-82: what the next start has to end.
pub(super) async fn what_is_unfinished_is_found_after_a_crash<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    assert_eq!(store.unfinished().await, Ok(Vec::new()));
    commit(&store, [create(3), create(1), create(2), end(2, 1)]).await;
    store.close().await;
    drop(store);
    let store = bench.open();
    assert_eq!(store.unfinished().await, Ok(vec![run_id(1), run_id(3)]));
    commit(&store, [end(1, 1)]).await;
    assert_eq!(store.unfinished().await, Ok(vec![run_id(3)]));
    store.close().await;
}

pub(super) async fn a_closed_store_says_so<B: Bench>() {
    let store = B::new().open();
    store.close().await;
    store.close().await;
    assert_eq!(store.commit(vec![create(1)]).await, Err(Refused::Store(Error::Closed)));
    assert_eq!(store.head(run_id(1)).await, Err(Error::Closed));
    assert_eq!(store.lookup(run_id(1)).await, Err(Error::Closed));
}

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<(RunId, Vec<u64>, bool)>>);

impl Observer for Heard {
    fn committed(&self, batch: &[Change], outcome: &Outcome) {
        let mut heard = self.0.lock().expect("no panic under the lock");
        for (change, is_changed) in batch.iter().zip(&outcome.changed) {
            heard.push((change.run(), change.events().iter().map(|event| event.index).collect(), *is_changed));
        }
    }
}

pub(super) async fn the_observer_is_told_of_what_is_durable_in_order<B: Bench>() {
    let store = B::new().open();
    let heard = Arc::new(Heard::default());
    let observer: Arc<dyn Observer> = heard.clone();
    let observer: Weak<dyn Observer> = Arc::downgrade(&observer);
    store.observe(observer);
    commit(&store, [create(1), append(1, 1..3)]).await;
    let take = || std::mem::take(&mut *heard.0.lock().expect("no panic under the lock"));
    assert_eq!(take(), [(run_id(1), vec![0], true), (run_id(1), vec![1, 2], true)], "told before the answer");
    assert!(store.commit(vec![append(1, 9..10)]).await.is_err());
    assert_eq!(take(), [], "what is refused is not told");
    commit(&store, [end(1, 3), end(1, 3)]).await;
    assert_eq!(take(), [(run_id(1), vec![3], true), (run_id(1), vec![3], false)]);
    drop(heard);
    commit(&store, [create(2)]).await;
    store.close().await;
}

/// Hears, and then fails as badly as anything can.
#[derive(Debug, Default)]
struct Fails(Heard);

impl Observer for Fails {
    fn committed(&self, batch: &[Change], outcome: &Outcome) {
        self.0.committed(batch, outcome);
        panic!("an observer that fails, on purpose");
    }
}

/// Contract, RR-57, at the store: whoever follows cannot take the writer with it.
pub(super) async fn an_observer_that_panics_harms_no_run<B: Bench>() {
    let store = B::new().open();
    let fails = Arc::new(Fails::default());
    let observer: Arc<dyn Observer> = fails.clone();
    let observer: Weak<dyn Observer> = Arc::downgrade(&observer);
    store.observe(observer);
    let batches = (1..9).map(|number| store.commit(vec![create(number), append(number, 1..3), end(number, 3)]));
    for outcome in futures_util::future::join_all(batches).await {
        assert_eq!(outcome.expect("commits").changed, [true; 3]);
    }
    assert_eq!(fails.0.0.lock().expect("no panic under the lock").len(), 24, "it is told of each all the same");
    assert_eq!((store.fault(), indices(&store, all_of(8)).await), (None, Some(vec![0, 1, 2, 3])));
    store.close().await;
}
