//! What every reader of a log sees, over a log that counts how often it is read.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers of test entries are small")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

/// Longest that a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// An entry that costs nothing.
const FREE: u64 = u64::MAX;

/// A log in memory; its reads may be held up.
#[derive(Debug, Default)]
struct Content {
    entries: Mutex<Option<Vec<u64>>>,
    is_ended: Mutex<bool>,
    reads: AtomicUsize,
    /// Reads wait while it is held.
    gate: tokio::sync::Mutex<()>,
    /// How many have come to the gate.
    arrived: AtomicUsize,
    /// The same for who asks how long it is.
    head_gate: tokio::sync::Mutex<()>,
    heads: AtomicUsize,
}

#[derive(Debug, Clone)]
struct Numbers(Arc<Content>);

impl Log for Numbers {
    type Entry = u64;

    fn head(&self) -> Pending<'_, Result<Option<Head>, Error>> {
        Box::pin(async {
            let is_ended = *self.0.is_ended.lock().expect("no panic under the lock");
            let head = {
                let entries = self.0.entries.lock().expect("no panic under the lock");
                entries.as_ref().map(|it| Head { count: it.len() as u64, is_ended })
            };
            self.0.heads.fetch_add(1, Ordering::SeqCst);
            let _open = self.0.head_gate.lock().await;
            Ok(head)
        })
    }

    fn page(&self, from: u64, limit: usize, bytes_max: usize) -> Pending<'_, Result<Option<Vec<u64>>, Error>> {
        Box::pin(async move {
            self.0.reads.fetch_add(1, Ordering::SeqCst);
            let page = self.0.entries.lock().expect("no panic under the lock").as_ref().map(|it| {
                let wanted = it.iter().copied().skip(usize::try_from(from).expect("small")).take(limit);
                wanted.take((bytes_max / Self::bytes(&0)).max(1)).collect()
            });
            self.0.arrived.fetch_add(1, Ordering::SeqCst);
            let _open = self.0.gate.lock().await;
            Ok(page)
        })
    }

    fn bytes(entry: &u64) -> usize {
        if *entry == FREE { 0 } else { 100 }
    }
}

struct World {
    content: Arc<Content>,
    hub: Arc<Hub<Numbers>>,
}

impl World {
    fn new(count: u64) -> Self {
        let content = Arc::new(Content::default());
        *content.entries.lock().expect("fresh") = Some((0..count).collect());
        let hub = Arc::new(Hub::new(Numbers(Arc::clone(&content))));
        Self { content, hub }
    }

    /// Durable first, then published.
    fn write(&self, count: u64, is_ended: bool) {
        let first = {
            let mut entries = self.content.entries.lock().expect("no panic under the lock");
            let entries = entries.as_mut().expect("is there");
            let first = entries.len() as u64;
            entries.extend(first..first + count);
            first
        };
        *self.content.is_ended.lock().expect("no panic under the lock") = is_ended;
        let new: Vec<u64> = (first..first + count).collect();
        self.hub.publish(first, &new, is_ended);
    }

    fn reads(&self) -> usize {
        self.content.reads.load(Ordering::SeqCst)
    }
}

async fn all(mut reader: Reader<Numbers>, bytes_max: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    let walk = async {
        loop {
            match reader.next_page(bytes_max).await.expect("reads") {
                Next::Page(entries) => seen.extend(entries),
                Next::End => return,
                Next::Gone => panic!("it is there"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, walk).await.expect("comes to an end");
    seen
}

async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("happens in time");
}

#[tokio::test]
async fn a_reader_begins_where_it_says_and_ends_with_the_log() {
    let world = World::new(1_000);
    world.write(10, true);
    assert!(world.hub.look().await.expect("looks"));
    for (after, first) in [(None, 0), (Some(0), 1), (Some(254), 255), (Some(1_008), 1_009), (Some(1_009), 1_010)] {
        for bytes_max in [0, 1_000, usize::MAX] {
            let seen = all(Reader::new(Arc::clone(&world.hub), after), bytes_max).await;
            assert_eq!(seen, (first..1_010).collect::<Vec<_>>(), "{after:?} {bytes_max}");
        }
    }
    assert_eq!(all(Reader::new(Arc::clone(&world.hub), Some(u64::MAX)), 9).await, Vec::<u64>::new());
}

#[tokio::test]
async fn what_is_published_while_the_replay_reads_is_neither_lost_nor_doubled() {
    let world = World::new(600);
    world.hub.look().await.expect("looks");
    let held = world.content.gate.lock().await;
    let reader = Reader::new(Arc::clone(&world.hub), None);
    let reading = tokio::task::JoinSet::from_iter([all(reader, usize::MAX)]);
    until(|| world.content.arrived.load(Ordering::SeqCst) == 1).await;
    // More than the ring holds, in uneven steps, while the first page is on its way.
    for count in [1, 7, 300, 2, 90] {
        world.write(count, false);
    }
    world.write(1, true);
    drop(held);
    assert_eq!(reading.join_all().await, [(0..1_001).collect::<Vec<_>>()]);
}

#[tokio::test]
async fn what_was_published_before_the_first_look_is_not_missed() {
    let world = World::new(5);
    let reader = Reader::new(Arc::clone(&world.hub), Some(3));
    world.write(2, false);
    world.hub.look().await.expect("looks");
    world.write(1, true);
    world.hub.publish(3, &[3, 4], false);
    assert_eq!(all(reader, usize::MAX).await, [4, 5, 6, 7], "and what is published late does no harm");
}

#[tokio::test]
async fn a_thousand_readers_of_one_log_read_its_pages_once() {
    let world = World::new(10_000);
    world.write(0, true);
    world.hub.look().await.expect("looks");
    let readers = (0..1_000).map(|_| all(Reader::new(Arc::clone(&world.hub), None), usize::MAX));
    for seen in tokio::task::JoinSet::from_iter(readers).join_all().await {
        assert_eq!(seen.len(), 10_000);
    }
    // Forty pages, the last of them with none left over.
    assert!(world.reads() <= 40, "{} reads", world.reads());
}

#[tokio::test]
async fn those_who_keep_up_never_read_the_log() {
    let world = World::new(0);
    world.hub.look().await.expect("looks");
    let readers = (0..20).map(|_| all(Reader::new(Arc::clone(&world.hub), None), usize::MAX));
    let readers = tokio::task::JoinSet::from_iter(readers);
    for _ in 0..50 {
        world.write(10, false);
        tokio::task::yield_now().await;
    }
    world.write(1, true);
    for seen in readers.join_all().await {
        assert_eq!(seen, (0..501).collect::<Vec<_>>());
    }
    assert_eq!(world.reads(), 0);
}

#[tokio::test]
async fn memory_is_bounded_whatever_is_written_and_read() {
    let world = World::new(0);
    world.hub.look().await.expect("looks");
    for _ in 0..1_000 {
        world.write(100, false);
    }
    assert!((RING_MAX..RING_MAX + 100).contains(&lock(&world.hub.ring).count()));
    let mut reader = Reader::new(Arc::clone(&world.hub), None);
    while reader.next() < 99_000 {
        assert!(matches!(reader.next_page(usize::MAX).await, Ok(Next::Page(_))));
    }
    let kept = lock(&world.hub.cache).bytes();
    assert!((CACHE_BYTES_MAX / 2..=CACHE_BYTES_MAX).contains(&kept), "{kept}");
}

#[tokio::test]
async fn a_log_that_vanishes_says_so_unless_it_was_read_to_its_end() {
    let world = World::new(1_100);
    world.write(1, true);
    world.hub.look().await.expect("looks");
    let mut early = Reader::new(Arc::clone(&world.hub), None);
    assert!(matches!(early.next_page(1).await, Ok(Next::Page(_))));
    let mut done = Reader::new(Arc::clone(&world.hub), Some(1_100));
    *world.content.entries.lock().expect("no panic under the lock") = None;
    // What is in memory is still given; what is not cannot be.
    let mut late = Reader::new(Arc::clone(&world.hub), Some(600));
    assert_eq!(late.next_page(1).await, Ok(Next::Gone));
    assert_eq!(page(&mut early).await.to_vec(), (1..256).collect::<Vec<_>>());
    assert_eq!(page(&mut early).await.to_vec(), (256..512).collect::<Vec<_>>());
    assert_eq!(early.next_page(usize::MAX).await, Ok(Next::Gone));
    assert_eq!(done.next_page(1).await, Ok(Next::End));
    assert_eq!(world.hub.look().await, Ok(false));
}

/// As when somebody looks for a run in the moment in which it begins.
#[tokio::test]
async fn who_looks_before_a_log_begins_does_not_end_it_for_those_who_read_it() {
    let world = World::new(0);
    *world.content.entries.lock().expect("fresh") = None;
    let early = Reader::new(Arc::clone(&world.hub), None);
    let held = world.content.head_gate.lock().await;
    let hub = Arc::clone(&world.hub);
    let looking = tokio::task::JoinSet::from_iter([async move { hub.look().await }]);
    until(|| world.content.heads.load(Ordering::SeqCst) == 1).await;
    // It was not there when it was looked for, and begins before that is answered.
    *world.content.entries.lock().expect("no panic under the lock") = Some(Vec::new());
    world.write(3, false);
    drop(held);
    assert_eq!(looking.join_all().await, [Ok(true)], "it is there by now");
    assert_eq!(world.content.heads.load(Ordering::SeqCst), 2);
    world.write(1, true);
    assert_eq!(all(early, usize::MAX).await, [0, 1, 2, 3]);
}

/// Nothing of an unknown log, so that who comes after its beginning is let in.
#[tokio::test]
async fn who_looks_for_a_log_that_is_not_there_leaves_no_word_of_it() {
    let world = World::new(0);
    *world.content.entries.lock().expect("fresh") = None;
    let mut early = Reader::new(Arc::clone(&world.hub), None);
    assert_eq!(world.hub.look().await, Ok(false));
    *world.content.entries.lock().expect("no panic under the lock") = Some(Vec::new());
    world.write(2, false);
    assert_eq!(world.hub.look().await, Ok(true));
    assert_eq!(early.next_page(usize::MAX).await, Ok(Next::Page(vec![0, 1].into())));
    world.hub.set_gone();
    assert_eq!((world.hub.look().await, early.next_page(usize::MAX).await), (Ok(false), Ok(Next::Gone)));
}

#[tokio::test]
async fn a_dropped_call_loses_nothing() {
    let world = World::new(300);
    world.hub.look().await.expect("looks");
    let mut reader = Reader::new(Arc::clone(&world.hub), None);
    let held = world.content.gate.lock().await;
    let dropped = tokio::time::timeout(Duration::from_millis(1), reader.next_page(usize::MAX)).await;
    assert!(dropped.is_err(), "the page is held up");
    drop(held);
    world.write(1, true);
    assert_eq!(all(reader, usize::MAX).await, (0..301).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_last_entries_are_given_though_the_log_has_gone() {
    let world = World::new(0);
    world.hub.look().await.expect("looks");
    let mut reader = Reader::new(Arc::clone(&world.hub), None);
    world.write(10, false);
    assert_eq!(reader.next_page(0).await, Ok(Next::Page(vec![0].into())));
    world.write(1, true);
    // As when a run is forgotten in the batch behind its end.
    *world.content.entries.lock().expect("no panic under the lock") = None;
    world.hub.set_gone();
    assert_eq!(reader.next_page(usize::MAX).await, Ok(Next::Page((1..11).collect::<Vec<_>>().into())));
    assert_eq!(reader.next_page(usize::MAX).await, Ok(Next::End));
    assert_eq!(world.reads(), 0, "nobody looks where nothing is");
}

#[tokio::test]
async fn pages_are_few_even_if_they_cost_nothing() {
    let world = World::new(0);
    *world.content.entries.lock().expect("no panic under the lock") = Some(vec![FREE; 1_000]);
    world.hub.look().await.expect("looks");
    // Each begins before all others, and so finds none of their pages.
    for after in (0..999).rev() {
        let mut reader = Reader::new(Arc::clone(&world.hub), Some(after));
        assert!(matches!(reader.next_page(usize::MAX).await, Ok(Next::Page(_))));
    }
    assert_eq!(world.reads(), 999);
    assert_eq!(lock(&world.hub.cache).len(), CACHE_PAGES_MAX);
}

fn reader(world: &World) -> Reader<Numbers> {
    Reader::new(Arc::clone(&world.hub), None)
}

async fn page(reader: &mut Reader<Numbers>) -> Stretch<u64> {
    match reader.next_page(usize::MAX).await {
        Ok(Next::Page(entries)) => entries,
        other => panic!("{other:?}"),
    }
}

/// Where the text of a page lies: at one place for all who share it.
fn place_of_text(page: &Stretch<u64>) -> *const u8 {
    page.text(0, |entries| entries.iter().flat_map(|it| it.to_be_bytes()).collect()).as_ref().as_ptr()
}

#[tokio::test]
async fn what_somebody_still_holds_is_neither_read_nor_written_again() {
    let world = World::new(30_000);
    world.write(0, true);
    world.hub.look().await.expect("looks");
    let stopped = page(&mut reader(&world)).await;
    assert_eq!(all(reader(&world), usize::MAX).await.len(), 30_000);
    let reads = world.reads();
    assert!(CACHE_BYTES_MAX < 30_000 * Numbers::bytes(&0), "the first page is long out of the cache");
    let shared = page(&mut reader(&world)).await;
    assert_eq!((world.reads(), place_of_text(&shared)), (reads, place_of_text(&stopped)));
    drop((stopped, shared));
    assert_eq!(page(&mut reader(&world)).await.first(), Some(&0));
    assert_eq!(world.reads(), reads + 1, "nobody held it any more");
}

#[tokio::test]
async fn what_somebody_holds_in_the_middle_of_a_reading_is_there_once() {
    let world = World::new(30_000);
    world.write(0, true);
    world.hub.look().await.expect("looks");
    // The second page of the first reading.
    let second = |reader: Reader<Numbers>| async move {
        let mut reader = reader;
        assert_eq!(page(&mut reader).await.len(), 256);
        page(&mut reader).await
    };
    let stopped = second(reader(&world)).await;
    assert_eq!(all(reader(&world), usize::MAX).await.len(), 30_000);
    let reads = world.reads();
    let shared = second(reader(&world)).await;
    assert_eq!(world.reads(), reads + 1, "for the sake of the first page");
    assert_eq!(place_of_text(&shared), place_of_text(&stopped));
}

#[tokio::test]
async fn what_is_published_at_once_is_given_in_pages_that_all_readers_share() {
    let world = World::new(0);
    world.hub.look().await.expect("looks");
    world.write(500, true);
    let (mut one, mut other) = (reader(&world), reader(&world));
    // 100 bytes each are two pages of one length.
    for first in [0, 250] {
        let (page, same) = (page(&mut one).await, page(&mut other).await);
        assert_eq!(page.to_vec(), (first..first + 250).collect::<Vec<_>>());
        assert_eq!(place_of_text(&page), place_of_text(&same));
    }
    assert_eq!((one.next_page(0).await, world.reads()), (Ok(Next::End), 0));
}

#[tokio::test]
async fn a_reader_who_comes_late_is_given_many_short_pages_at_once() {
    let world = World::new(0);
    world.hub.look().await.expect("looks");
    let (mut late, mut later) = (reader(&world), Reader::new(Arc::clone(&world.hub), Some(4)));
    for _ in 0..30 {
        world.write(3, false);
    }
    world.write(20, false);
    assert_eq!(page(&mut late).await.to_vec(), (0..90).collect::<Vec<_>>());
    assert_eq!(page(&mut late).await.to_vec(), (90..110).collect::<Vec<_>>());
    assert_eq!(later.next_page(1_000).await, Ok(Next::Page((5..15).collect::<Vec<_>>().into())));
    assert_eq!(page(&mut later).await.to_vec(), (15..90).collect::<Vec<_>>());
}
