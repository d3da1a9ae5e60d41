//! What every store must hold, as one suite that runs on each of them.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers of test records are small")]

mod checkpoints;
mod refusals;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::memory::{Disk, MemoryStore};
use super::{Chain, Error, Filter, PAGE_MAX, READ_QUEUE_MAX, Store, sqlite};
use crate::domain::audit::{
    AuditId, Checkpoint, Draft, Entry, GENESIS, Hash, NoteKey, Outcome, Position, RECORDS_MAX, Tree,
};
use crate::domain::code::Code;
use crate::domain::config::{Overlay, Value};
use crate::domain::envelope::Response;
use crate::domain::identity::{Fingerprint, IdentityKey, TrustState};
use crate::domain::time::Wall;
use crate::engine::record::{Batch, Intent, IntentKey, Peer, Receipt, Record, RequestKey};
use crate::wire::record::audit::canonical;

/// Longest that a test waits for something to happen in the background.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A place where stores of one sort can be opened, one after the other.
pub(super) trait Bench {
    fn new() -> Self;
    fn open(&self) -> Arc<dyn Store>;
    /// Keeps read records in the queue until the guard is dropped.
    fn hold_reads(&self) -> Box<dyn std::any::Any>;
}

struct MemoryBench {
    last: Mutex<MemoryStore>,
}

struct Released(MemoryStore);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.with_disk(Disk::release_reads);
    }
}

impl Bench for MemoryBench {
    fn new() -> Self {
        Self { last: Mutex::new(MemoryStore::new()) }
    }

    fn open(&self) -> Arc<dyn Store> {
        let mut last = self.last.lock().expect("no panic under the lock");
        *last = MemoryStore::on(last.crash());
        Arc::new(last.clone())
    }

    fn hold_reads(&self) -> Box<dyn std::any::Any> {
        let store = self.last.lock().expect("no panic under the lock").clone();
        store.with_disk(Disk::hold_reads);
        Box::new(Released(store))
    }
}

struct SqliteBench {
    folder: tempfile::TempDir,
}

impl SqliteBench {
    fn path(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

impl Bench for SqliteBench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder for the test") }
    }

    fn open(&self) -> Arc<dyn Store> {
        let options = sqlite::Options { folder: self.path(), read_audit_max_mb: 64 };
        Arc::new(sqlite::open(options).expect("opens"))
    }

    fn hold_reads(&self) -> Box<dyn std::any::Any> {
        let connection = rusqlite::Connection::open(self.path().join("events.db")).expect("opens");
        connection.execute_batch("BEGIN IMMEDIATE").expect("nobody writes yet");
        Box::new(connection)
    }
}

macro_rules! hold_for_every_store {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name::<super::MemoryBench>().await; })*
        }
        mod sqlite_on_disk {
            $(#[tokio::test] async fn $name() { super::$name::<super::SqliteBench>().await; })*
        }
    };
}

hold_for_every_store! {
    a_batch_is_acknowledged_with_its_places_in_order,
    recall_gives_the_newest_of_each_fact_in_key_order,
    a_removed_fact_is_gone_and_removing_nothing_is_fine,
    a_record_has_a_place_once_it_is_committed,
    reopening_keeps_everything,
    concurrent_commits_are_all_acknowledged_without_a_gap,
    pages_are_cut_newest_first_over_both_chains,
    filters_admit_exactly_what_they_say,
    reads_are_recorded_in_order_and_survive_a_close,
    a_full_queue_of_reads_refuses_and_recovers,
    the_records_of_one_request_are_taken_all_or_none,
    a_closed_store_says_so,
    an_empty_batch_is_fine,
    writes_go_on_while_reads_are_held,
    nothing_is_signed_without_a_key,
    each_boot_and_every_so_many_records_leave_a_checkpoint,
    a_closed_store_has_left_a_checkpoint_of_everything,
    what_a_log_has_grown_by_leads_from_every_size_to_its_newest_checkpoint,
    refusals_stand_in_a_chain_of_their_own_and_survive_a_close,
    reads_rotate_reads_alone_and_refusals_are_recorded_while_their_queue_is_full,
    a_flood_of_one_refusal_is_counted_at_the_latest_at_close,
    the_last_checkpoint_states_where_reads_and_refusals_end,
}

use checkpoints::{
    a_closed_store_has_left_a_checkpoint_of_everything, each_boot_and_every_so_many_records_leave_a_checkpoint,
    nothing_is_signed_without_a_key, what_a_log_has_grown_by_leads_from_every_size_to_its_newest_checkpoint,
};
pub(super) use checkpoints::{boot, note_key};
use refusals::{
    a_flood_of_one_refusal_is_counted_at_the_latest_at_close,
    reads_rotate_reads_alone_and_refusals_are_recorded_while_their_queue_is_full,
    refusals_stand_in_a_chain_of_their_own_and_survive_a_close,
    the_last_checkpoint_states_where_reads_and_refusals_end,
};

/// A draft whose name and texts follow from a number.
pub(super) fn draft(number: u64) -> Draft {
    Draft {
        audit_id: audit_id(number),
        at: Wall::from_millis(number),
        actor: format!("spiffe://trust/s/{}", if number.is_multiple_of(2) { "alice" } else { "bob" }),
        actor_verified: true,
        origin: "s/origin".parse().expect("legal"),
        action: if number.is_multiple_of(3) { "cfg_apply" } else { "status_read" }.into(),
        target: if number.is_multiple_of(5) { "s/a" } else { "s/b" }.parse().expect("legal"),
        request_id: (!number.is_multiple_of(7)).then(|| format!("r{number}").parse().expect("legal")),
        outcome: Outcome::Applied,
        code: None,
        detail: String::new(),
        policy_hash: Hash([9; 32]),
    }
}

/// The same, refused.
pub(super) fn refused(number: u64) -> Draft {
    Draft { outcome: Outcome::Denied, code: Some(Code::PermissionDenied), ..draft(number) }
}

fn audit_id(number: u64) -> AuditId {
    AuditId::new(Wall::from_millis(number), [0; 10])
}

fn request(number: u64) -> RequestKey {
    RequestKey {
        actor: "spiffe://trust/s/alice".parse().expect("legal"),
        request_id: format!("r{number}").parse().expect("legal"),
    }
}

pub(super) fn receipt(number: u64, result: &[u8]) -> Record {
    Record::Receipt(Receipt {
        key: request(number),
        origin: "s/origin".parse().expect("legal"),
        digest: Hash([1; 32]),
        at: Wall(number),
        audit_id: audit_id(number),
        response: Response::Applied { revision: 1, keys: vec![String::from_utf8_lossy(result).into_owned()] },
    })
}

pub(super) fn peer(name: &str, boot: u64) -> Record {
    let runtime = name.parse().expect("legal");
    Record::Peer(Peer { runtime, pinned: Fingerprint([2; 32]), trust: TrustState::Untrusted, boot })
}

fn intent(number: u64, action: &str) -> Record {
    let key = IntentKey { request: request(number), target: "s/b".parse().expect("legal") };
    Record::Intent(Intent { key, action: action.into(), at: Wall(number) })
}

/// A write as the engine makes it: a fact and its audit record.
pub(super) fn write(number: u64) -> Batch {
    Batch { records: vec![receipt(number, b"done")], audits: vec![draft(number)] }
}

fn facts(records: Vec<Record>) -> Batch {
    Batch { records, audits: Vec::new() }
}

fn any(limit: usize) -> Filter {
    Filter { limit, ..Filter::default() }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("happens in time")
}

/// All records of one chain, oldest first, read page by page.
pub(super) async fn chain(store: &dyn Store, chain: Chain) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut filter = any(PAGE_MAX);
    loop {
        let page = store.audit(filter.clone()).await.expect("reads");
        filter.before = page.entries.last().map(|(_, entry)| entry.draft.audit_id);
        entries.extend(page.entries.into_iter().filter(|(of, _)| *of == chain).map(|(_, entry)| entry));
        if !page.has_more {
            entries.sort_by_key(|entry| entry.position.seq);
            return entries;
        }
    }
}

async fn until_reads(store: &dyn Store, wanted: usize) {
    within(async {
        while chain(store, Chain::Reads).await.len() < wanted {
            // Looking without a rest would take from the writer the processor that it needs.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
}

/// The chain has no gap from its first record on, and every hash holds.
pub(super) fn check_chain(entries: &[Entry]) {
    let mut previous = GENESIS;
    for (entry, seq) in entries.iter().zip(1..) {
        let bytes = canonical(&entry.draft, seq, previous).expect("encodes");
        let hash = Hash::chain(previous, &bytes);
        assert_eq!(entry.position, Position { seq, previous, hash });
        previous = hash;
    }
}

async fn a_batch_is_acknowledged_with_its_places_in_order<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    let batch = Batch { records: vec![receipt(1, b"")], audits: vec![draft(3), draft(1), draft(2)] };
    let first = store.commit(batch).await.expect("commits");
    let second = store.commit(write(4)).await.expect("commits");
    let places: Vec<_> = first.iter().chain(&second).copied().collect();
    let entries = chain(&*store, Chain::Writes).await;
    check_chain(&entries);
    assert_eq!(entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), places);
    let drafts: Vec<_> = entries.into_iter().map(|entry| entry.draft).collect();
    assert_eq!(drafts, [draft(3), draft(1), draft(2), draft(4)]);
    store.close().await;
}

async fn recall_gives_the_newest_of_each_fact_in_key_order<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    let overlay = |revision| {
        let values = [("log.level".to_owned(), Value::Text("debug".into()))].into();
        Record::Overlay(Overlay { revision, values, over: std::collections::BTreeMap::new() })
    };
    let old = [receipt(2, b"x"), receipt(1, b"old"), Record::Boot { counter: 1 }, peer("s/b", 1), overlay(1)];
    store.commit(facts(old.to_vec())).await.expect("commits");
    let new = [intent(1, "old"), Record::Boot { counter: 2 }, receipt(1, b"new"), peer("s/a", 7), overlay(2)];
    store.commit(facts(new.to_vec())).await.expect("commits");
    let last = [intent(1, "new"), Record::ClockMark { wall: Wall(u64::MAX) }, peer("s/b", u64::MAX)];
    store.commit(facts(last.to_vec())).await.expect("commits");
    let wanted = [
        Record::Boot { counter: 2 },
        Record::ClockMark { wall: Wall(u64::MAX) },
        intent(1, "new"),
        overlay(2),
        peer("s/a", 7),
        peer("s/b", u64::MAX),
        receipt(1, b"new"),
        receipt(2, b"x"),
    ];
    assert_eq!(store.recall().await.expect("recalls"), wanted);
    store.close().await;
}

async fn a_removed_fact_is_gone_and_removing_nothing_is_fine<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    let key = IntentKey { request: request(1), target: "s/b".parse().expect("legal") };
    let removals = vec![
        Record::ReceiptDropped(request(1)),
        Record::IntentClosed(key),
        Record::PeerForgotten { runtime: "s/a".parse().expect("legal") },
    ];
    store.commit(facts(removals.clone())).await.expect("removes nothing");
    let kept = receipt(2, b"");
    let made = vec![receipt(1, b""), kept.clone(), intent(1, "x"), peer("s/a", 1)];
    store.commit(facts(made)).await.expect("commits");
    assert_eq!(store.recall().await.expect("recalls").len(), 4);
    store.commit(facts(removals)).await.expect("removes");
    assert_eq!(store.recall().await.expect("recalls"), std::slice::from_ref(&kept));
    // Made and removed in one batch: the order inside it counts.
    let batch = facts(vec![receipt(3, b""), Record::ReceiptDropped(request(3))]);
    store.commit(batch).await.expect("commits");
    assert_eq!(store.recall().await.expect("recalls"), [kept]);
    store.close().await;
}

async fn a_record_has_a_place_once_it_is_committed<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    assert_eq!((store.position(audit_id(1)).await, store.length().await), (Ok(None), Ok(0)));
    let places = store.commit(write(1)).await.expect("commits");
    assert_eq!(store.position(audit_id(1)).await, Ok(places.first().copied()));
    assert_eq!(store.length().await, Ok(1));
    // Reads have no place that a receipt could name.
    store.append_read(draft(2)).expect("queues");
    until_reads(&*store, 1).await;
    assert_eq!(store.position(audit_id(2)).await, Ok(None));
    store.close().await;
}

async fn reopening_keeps_everything<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    for number in 1..=5 {
        store.commit(write(number)).await.expect("commits");
        store.append_read(draft(100 + number)).expect("queues");
    }
    store.close().await;
    let store = bench.open();
    assert_eq!(store.recall().await.expect("recalls").len(), 5);
    let place = store.commit(write(6)).await.expect("commits");
    assert_eq!(place.first().map(|place| place.seq), Some(6));
    store.append_read(draft(106)).expect("queues");
    until_reads(&*store, 6).await;
    for of in [Chain::Reads, Chain::Writes] {
        let entries = chain(&*store, of).await;
        assert_eq!(entries.len(), 6);
        check_chain(&entries);
    }
    store.close().await;
}

async fn concurrent_commits_are_all_acknowledged_without_a_gap<B: Bench>() {
    const TASKS: u64 = 40;
    const EACH: u64 = 10;
    let bench = B::new();
    let store = bench.open();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut places = Vec::new();
            for step in 0..EACH {
                let number = 1 + task * EACH + step;
                places.extend(store.commit(write(number)).await.expect("commits").into_iter().map(|it| (number, it)));
            }
            assert!(places.is_sorted_by_key(|(_, place)| place.seq), "one task's commits keep their order");
            places
        });
    }
    let acknowledged: Vec<_> = within(tasks.join_all()).await.into_iter().flatten().collect();
    let entries = chain(&*store, Chain::Writes).await;
    check_chain(&entries);
    assert_eq!((entries.len(), acknowledged.len()), (400, 400));
    for (number, place) in acknowledged {
        assert_eq!(store.position(audit_id(number)).await, Ok(Some(place)));
    }
    assert_eq!(store.recall().await.expect("recalls").len(), 400);
    store.close().await;
}

async fn pages_are_cut_newest_first_over_both_chains<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    for number in (1..=20).step_by(2) {
        store.append_read(draft(number)).expect("queues");
        store.commit(write(number + 1)).await.expect("commits");
    }
    until_reads(&*store, 10).await;
    let mut seen = Vec::new();
    let mut filter = any(7);
    for (wanted, has_more) in [(7, true), (7, true), (6, false)] {
        let page = store.audit(filter.clone()).await.expect("reads");
        assert_eq!((page.entries.len(), page.has_more), (wanted, has_more));
        filter.before = page.entries.last().map(|(_, entry)| entry.draft.audit_id);
        seen.extend(page.entries.into_iter().map(|(chain, entry)| (chain, entry.draft)));
    }
    let of = |number: u64| if number.is_multiple_of(2) { Chain::Writes } else { Chain::Reads };
    let wanted: Vec<_> = (1..=20).rev().map(|number| (of(number), draft(number))).collect();
    assert_eq!(seen, wanted);
    // Exactly one page: nothing follows it.
    assert!(!store.audit(any(20)).await.expect("reads").has_more);
    assert!(store.audit(any(19)).await.expect("reads").has_more);
    assert_eq!(store.audit(any(0)).await.expect("reads").entries, []);
    store.close().await;
}

async fn filters_admit_exactly_what_they_say<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    let audits = (1..=60).map(draft).collect();
    store.commit(Batch { records: Vec::new(), audits }).await.expect("commits");
    let text = |text: &str| Some(text.to_owned());
    let at = |number| Some(Wall::from_millis(number));
    for filter in [
        any(100),
        Filter { request_id: text("r10"), ..any(100) },
        Filter { request_id: text("r7"), ..any(100) },
        Filter { request_id: text("' OR 1 --"), ..any(100) },
        Filter { actor: text("spiffe://trust/s/alice"), ..any(100) },
        Filter { action: text("cfg_apply"), ..any(100) },
        Filter { target: text("s/a"), ..any(100) },
        Filter { target: text("a"), ..any(100) },
        Filter { since: at(10), until: at(20), ..any(100) },
        Filter { since: at(20), until: at(10), ..any(100) },
        Filter { until: Some(Wall(u64::MAX)), ..any(100) },
        Filter { before: Some(audit_id(30)), ..any(100) },
        Filter { actor: text("spiffe://trust/s/bob"), action: text("cfg_apply"), since: at(9), ..any(100) },
    ] {
        let page = store.audit(filter.clone()).await.expect("reads");
        let got: Vec<_> = page.entries.into_iter().map(|(_, entry)| entry.draft).collect();
        let wanted: Vec<_> = (1..=60).rev().map(draft).filter(|draft| filter.admits(draft)).collect();
        assert_eq!(got, wanted, "{filter:?}");
    }
    let ten_to_twenty = Filter { since: at(10), until: at(20), ..any(100) };
    let numbers = (10..20).rev().map(draft).collect::<Vec<_>>();
    let page = store.audit(ten_to_twenty).await.expect("reads");
    assert_eq!(page.entries.into_iter().map(|(_, entry)| entry.draft).collect::<Vec<_>>(), numbers);
    store.close().await;
}

async fn reads_are_recorded_in_order_and_survive_a_close<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    for number in 1..=3_000 {
        store.append_read(draft(number)).expect("the queue is longer");
    }
    store.close().await;
    let store = bench.open();
    let entries = chain(&*store, Chain::Reads).await;
    check_chain(&entries);
    let drafts: Vec<_> = entries.into_iter().map(|entry| entry.draft).collect();
    assert!(drafts == (1..=3_000).map(draft).collect::<Vec<_>>(), "got {} records", drafts.len());
    store.close().await;
}

async fn a_full_queue_of_reads_refuses_and_recovers<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    let held = bench.hold_reads();
    // A writer may have some in hand besides those in its queue.
    let accepted =
        (1..=3 * READ_QUEUE_MAX as u64).take_while(|number| store.append_read(draft(*number)).is_ok()).count();
    assert!((READ_QUEUE_MAX..3 * READ_QUEUE_MAX).contains(&accepted), "{accepted}");
    drop(held);
    until_reads(&*store, accepted).await;
    store.append_read(draft(999_999)).expect("there is room again");
    until_reads(&*store, accepted + 1).await;
    check_chain(&chain(&*store, Chain::Reads).await);
    store.close().await;
}

async fn the_records_of_one_request_are_taken_all_or_none<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    let held = bench.hold_reads();
    let some = |from: u64, count: u64| (from..from + count).map(draft).collect::<Vec<_>>();
    // A writer may take some in hand meanwhile. What is left in the end is no room for all of a request, and for some of it.
    let mut accepted = 0;
    while store.append_reads(some(accepted, 1_000)).is_ok() {
        accepted += 1_000;
    }
    let whole = usize::try_from(accepted).expect("small");
    assert!((READ_QUEUE_MAX - 1_000..3 * READ_QUEUE_MAX).contains(&whole), "{whole}");
    let singles = (0..1_000).take_while(|number| store.append_read(draft(accepted + number)).is_ok()).count();
    assert!(singles > 0, "there was room for some");
    drop(held);
    until_reads(&*store, whole + singles).await;
    store.append_reads(some(0, 1_000)).expect("there is room again");
    until_reads(&*store, whole + singles + 1_000).await;
    let entries = chain(&*store, Chain::Reads).await;
    check_chain(&entries);
    let drafts = entries.into_iter().map(|entry| entry.draft);
    assert!(drafts.take(whole + singles).eq((0..accepted + singles as u64).map(draft)), "nothing of a refused one");
    store.close().await;
}

async fn writes_go_on_while_reads_are_held<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    let held = bench.hold_reads();
    store.append_read(draft(1)).expect("queues");
    within(store.commit(write(2))).await.expect("commits");
    assert_eq!(store.fault(), None);
    drop(held);
    store.close().await;
}

async fn a_closed_store_says_so<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    store.commit(write(1)).await.expect("commits");
    within(store.close()).await;
    within(store.close()).await;
    assert_eq!(store.commit(write(2)).await, Err(Error::Closed));
    assert_eq!(store.recall().await, Err(Error::Closed));
    assert_eq!(store.audit(any(1)).await, Err(Error::Closed));
    assert_eq!(store.position(audit_id(1)).await, Err(Error::Closed));
    assert!(store.append_read(draft(3)).is_err());
    let store = bench.open();
    assert_eq!(chain(&*store, Chain::Writes).await.len(), 1);
    store.close().await;
}

async fn an_empty_batch_is_fine<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    assert_eq!(store.commit(Batch::default()).await, Ok(Vec::new()));
    assert_eq!(store.recall().await, Ok(Vec::new()));
    store.close().await;
}
