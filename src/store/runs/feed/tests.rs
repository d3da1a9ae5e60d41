//! Those who follow runs, over every store.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers of test runs are small")]

use std::time::Duration;

use super::*;
use crate::store::runs::RUNS_MAX_MB;
use crate::store::runs::contract::{LIMITS, all_of, append, create, end, run_id};
use crate::store::runs::hub::SEGMENT_MAX;
use crate::store::runs::memory::MemoryRuns;
use crate::store::sqlite;

/// Longest that a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    store: Arc<dyn RunStore>,
    feeds: Arc<Feeds>,
    _folder: Option<tempfile::TempDir>,
}

fn in_memory() -> World {
    let store: Arc<dyn RunStore> = Arc::new(MemoryRuns::new(1));
    World { feeds: Feeds::new(Arc::clone(&store)), store, _folder: None }
}

fn on_disk() -> World {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let options = sqlite::runs::Options { folder: folder.path().join("state"), runs_kept: 1, runs_max_mb: RUNS_MAX_MB };
    let store: Arc<dyn RunStore> = Arc::new(sqlite::runs::open_bounded(&options, LIMITS).expect("opens"));
    World { feeds: Feeds::new(Arc::clone(&store)), store, _folder: Some(folder) }
}

impl World {
    async fn commit(&self, batch: Vec<Change>) {
        self.store.commit(batch).await.expect("commits");
    }

    async fn reader(&self, number: u64, after: Option<u64>) -> RunReader {
        self.feeds.reader(run_id(number), after).await.expect("reads").expect("is there")
    }
}

/// Reads to the end, with a pause of some turns between pages.
async fn all(mut reader: RunReader, pause: u64, bytes_max: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    let walk = async {
        loop {
            match reader.next_page(bytes_max).await.expect("reads") {
                Next::Page(events) => seen.extend(events.iter().map(|event| event.index)),
                Next::End => return,
                Next::Gone => panic!("it is there"),
            }
            for _ in 0..pause {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, walk).await.expect("comes to an end");
    seen
}

fn random(below: u64) -> u64 {
    getrandom::u64().expect("chance") % below
}

#[tokio::test]
async fn a_reader_replays_and_tails_without_a_seam() {
    for world in [in_memory(), on_disk()] {
        world.commit(vec![create(1), append(1, 1..400)]).await;
        let readers = [world.reader(1, None).await, world.reader(1, Some(398)).await, world.reader(1, Some(900)).await];
        let readers = tokio::task::JoinSet::from_iter(readers.map(|it| all(it, 0, 4_000)));
        for first in (400..1_000).step_by(25) {
            world.commit(vec![append(1, first..first + 25)]).await;
        }
        world.commit(vec![end(1, 1_000)]).await;
        let mut seen = readers.join_all().await;
        seen.sort_by_key(Vec::len);
        for (seen, first) in seen.iter().zip([901, 399, 0]) {
            assert_eq!(*seen, (first..=1_000).collect::<Vec<_>>());
        }
        assert_eq!(world.feeds.count(), 0, "nobody reads");
        world.store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_readers_with_pauses_each_see_exactly_the_log() {
    const EVENTS: u64 = 3_000;
    for world in [in_memory(), on_disk()] {
        world.commit(vec![create(1), append(1, 1..500)]).await;
        let mut readers = tokio::task::JoinSet::new();
        let mut firsts = Vec::new();
        for _ in 0..1_000 {
            let after = [None, Some(random(600))][usize::from(random(2) == 0)];
            firsts.push(after.map_or(0, |after| after + 1));
            let (feeds, turns) = (Arc::clone(&world.feeds), random(30));
            let pause = if random(10) == 0 { 200 } else { random(3) };
            readers.spawn(async move {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                let reader = feeds.reader(run_id(1), after).await.expect("reads").expect("is there");
                all(reader, pause, 50 + usize::try_from(random(20_000)).expect("small")).await
            });
        }
        let mut next = 500;
        while next < EVENTS {
            let count = 1 + random(40);
            world.commit(vec![append(1, next..next + count)]).await;
            next += count;
        }
        world.commit(vec![end(1, next)]).await;
        let mut seen = readers.join_all().await;
        // Joined in the order of their ends: told apart by where they began.
        let first = |seen: &Vec<u64>| seen.first().copied().unwrap_or_default();
        seen.sort_by_key(first);
        firsts.sort_unstable();
        for (seen, first) in seen.iter().zip(firsts) {
            assert!(seen.iter().copied().eq(first..=next), "one that began at {first} saw {} events", seen.len());
        }
        assert_eq!(world.feeds.count(), 0);
        world.store.close().await;
    }
}

#[tokio::test]
async fn a_reader_that_panics_harms_nobody() {
    for world in [in_memory(), on_disk()] {
        world.commit(vec![create(1), append(1, 1..400)]).await;
        let (mut dying, living) = (world.reader(1, None).await, world.reader(1, None).await);
        let mut dead = tokio::task::JoinSet::<()>::new();
        dead.spawn(async move {
            dying.next_page(1_000).await.expect("reads");
            panic!("as a subscriber may");
        });
        let mut alive = tokio::task::JoinSet::from_iter([all(living, 3, 1_000)]);
        assert!(dead.join_next().await.expect("one").expect_err("it panics").is_panic());
        for first in (400..1_000).step_by(25) {
            world.commit(vec![append(1, first..first + 25)]).await;
        }
        world.commit(vec![end(1, 1_000)]).await;
        let seen = alive.join_next().await.expect("one").expect("it lives");
        assert_eq!(seen, (0..=1_000).collect::<Vec<_>>());
        assert_eq!(world.feeds.count(), 0, "neither is left");
        world.store.close().await;
    }
}

#[tokio::test]
async fn a_run_that_goes_while_it_is_read_says_so() {
    for world in [in_memory(), on_disk()] {
        world.commit(vec![create(1), append(1, 1..900), end(1, 900)]).await;
        let mut early = world.reader(1, None).await;
        let mut done = world.reader(1, Some(899)).await;
        assert!(matches!(early.next_page(1).await, Ok(Next::Page(_))));
        assert!(matches!(done.next_page(1).await, Ok(Next::Page(_))));
        // One finished run is kept: this one takes the other's place.
        world.commit(vec![create(2), end(2, 1)]).await;
        assert_eq!(world.store.head(run_id(1)).await, Ok(None));
        // What is in memory is still given.
        while let Next::Page(events) = early.next_page(usize::MAX).await.expect("reads") {
            assert!(events.iter().all(|event| event.index < SEGMENT_MAX));
        }
        assert_eq!(early.next_page(1).await, Ok(Next::Gone));
        assert_eq!(done.next_page(1).await, Ok(Next::End), "who has seen the end has seen all");
        assert!(world.feeds.reader(run_id(1), None).await.expect("reads").is_none());
        drop((early, done));
        assert_eq!(world.feeds.count(), 0);
        world.store.close().await;
    }
}

#[tokio::test]
async fn only_runs_that_are_read_have_a_hub() {
    for world in [in_memory(), on_disk()] {
        world.commit((1..50).map(create).collect()).await;
        assert_eq!(world.feeds.count(), 0);
        assert!(world.feeds.reader(run_id(99), None).await.expect("reads").is_none());
        assert_eq!(world.feeds.count(), 0, "asking for nothing leaves nothing");
        let readers = [world.reader(1, None).await, world.reader(1, None).await, world.reader(2, None).await];
        assert_eq!(world.feeds.count(), 2);
        drop(readers);
        assert_eq!(world.feeds.count(), 0);
        world.store.close().await;
        assert_eq!(world.feeds.reader(run_id(1), None).await.err(), Some(Error::Closed));
        assert_eq!(world.feeds.count(), 0, "a failed question leaves nothing");
    }
}

#[tokio::test]
async fn readers_get_what_the_store_has() {
    let world = on_disk();
    world.commit(vec![create(1), append(1, 1..10), end(1, 10)]).await;
    let mut reader = world.reader(1, None).await;
    let wanted = world.store.events(all_of(1)).await.expect("reads").expect("is there").events;
    assert_eq!(reader.next_page(usize::MAX).await, Ok(Next::Page(wanted.into())));
    world.store.close().await;
}

#[tokio::test]
async fn who_follows_a_run_sees_its_end_though_it_is_forgotten_at_once() {
    for world in [in_memory(), on_disk()] {
        world.commit(vec![create(1)]).await;
        let mut reader = world.reader(1, None).await;
        assert!(matches!(reader.next_page(1).await, Ok(Next::Page(_))));
        world.commit(vec![append(1, 1..100)]).await;
        // One finished run is kept, and the second one began later: before anybody could look the first one is gone.
        world.commit(vec![create(2), end(2, 1), end(1, 100)]).await;
        assert_eq!(world.store.head(run_id(1)).await, Ok(None));
        let mut tail = all(reader, 0, 4_000).await;
        assert_eq!(tail.pop(), Some(100), "its run_end");
        assert_eq!(tail, (1..100).collect::<Vec<_>>());
        world.store.close().await;
    }
}

/// As whoever starts a run reads it: from a place that was taken before there was anything.
#[tokio::test]
async fn who_is_there_before_a_run_begins_misses_nothing_of_it() {
    for world in [in_memory(), on_disk()] {
        let [early, slow] = [(); 2].map(|()| world.feeds.reader_of_new(run_id(1)));
        world.commit(vec![create(1), create(2), end(2, 1), append(1, 1..9), end(1, 9)]).await;
        assert_eq!(world.store.head(run_id(1)).await, Ok(None), "gone with its end");
        assert_eq!(all(early, 0, 4_000).await, (0..=9).collect::<Vec<_>>());
        drop(slow);
        // One who falls behind what is in memory is told so, and is given nothing with a gap.
        let mut slow = world.feeds.reader_of_new(run_id(0));
        world.commit(vec![create(0), create(3), end(3, 1), append(0, 1..400), end(0, 400)]).await;
        assert_eq!(slow.next_page(usize::MAX).await, Ok(Next::Gone));
        world.store.close().await;
    }
}

/// Contract, RR-57.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_that_panics_harms_no_other_and_not_the_run() {
    for world in [in_memory(), on_disk()] {
        world.commit(vec![create(1)]).await;
        let mut failing = tokio::task::JoinSet::new();
        for number in 0..20 {
            let mut reader = world.reader(1, None).await;
            failing.spawn(async move {
                while reader.next() < number * 10 {
                    reader.next_page(100).await.expect("reads");
                }
                panic!("a follower that fails, on purpose");
            });
        }
        let reader = world.reader(1, None).await;
        let whole = tokio::task::JoinSet::from_iter([all(reader, 1, 1_000)]);
        for first in (1..301).step_by(10) {
            world.commit(vec![append(1, first..first + 10)]).await;
        }
        world.commit(vec![end(1, 301)]).await;
        while let Some(outcome) = failing.join_next().await {
            assert!(outcome.expect_err("fails").is_panic());
        }
        assert_eq!(whole.join_all().await, [(0..=301).collect::<Vec<_>>()]);
        assert_eq!(world.feeds.count(), 0, "none of them holds anything");
        world.store.close().await;
    }
}
