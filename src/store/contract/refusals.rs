//! What every store must hold of the chain of refusals.

use super::checkpoints::{boot, newest, note_key};
use super::*;

/// Waits until so many refusals are on record.
async fn until_refusals(store: &dyn Store, wanted: usize) {
    within(async {
        while chain(store, Chain::Refusals).await.len() < wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(super) async fn refusals_stand_in_a_chain_of_their_own_and_survive_a_close<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    for number in 1..=10 {
        let both = vec![draft(number), refused(100 + number)];
        store.append_reads(both).expect("queues");
    }
    until_reads(&*store, 10).await;
    until_refusals(&*store, 10).await;
    store.close().await;
    let store = bench.open();
    store.append_read(refused(111)).expect("queues");
    until_refusals(&*store, 11).await;
    let entries = chain(&*store, Chain::Refusals).await;
    check_chain(&entries);
    let drafts: Vec<_> = entries.into_iter().map(|entry| entry.draft).collect();
    assert_eq!(drafts, (101..=111).map(refused).collect::<Vec<_>>());
    assert_eq!(chain(&*store, Chain::Reads).await.len(), 10);
    store.close().await;
}

pub(super) async fn reads_rotate_reads_alone_and_refusals_are_recorded_while_their_queue_is_full<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    store.set_read_quota(1);
    store.append_read(refused(1)).expect("queues");
    until_refusals(&*store, 1).await;
    let newest = async |store: &dyn Store| {
        let page = store.audit(Filter { limit: 1, ..Filter::default() }).await.expect("reads");
        page.entries.first().map(|(_, entry)| entry.position.seq)
    };
    for group in 0..4_u64 {
        let long = |number| Draft { detail: "x".repeat(1_500), ..draft(10 + group * 500 + number) };
        store.append_reads((0..500).map(long).collect()).expect("room");
        within(async {
            while newest(&*store).await != Some((group + 1) * 500) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    within(async {
        while 1_500 < chain(&*store, Chain::Reads).await.len() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(chain(&*store, Chain::Refusals).await.len(), 1, "what is allowed removes nothing of what is not");
    let held = bench.hold_reads();
    while store.append_reads((0..500).map(draft).collect()).is_ok() {}
    store.append_read(refused(2)).expect("has a queue of its own");
    // One that has room and one that has none: neither is taken.
    let both = (0..500).map(draft).chain([refused(3)]).collect();
    assert!(store.append_reads(both).is_err());
    drop(held);
    until_refusals(&*store, 2).await;
    // A close waits for a full queue only so long, and is still writing then.
    within(async {
        while store.queues().iter().any(|queue| 0 < queue.length) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    store.close().await;
    assert_eq!(chain(&*bench.open(), Chain::Refusals).await.len(), 2);
}

pub(super) async fn a_flood_of_one_refusal_is_counted_at_the_latest_at_close<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    store.append_read(Draft { actor: "alice".to_owned(), ..refused(1) }).expect("queues");
    for number in 2..=5_001 {
        let same = Draft { action: "cfg_apply".to_owned(), target: "s/a".parse().expect("legal"), ..refused(number) };
        within(async {
            while store.append_read(Draft { at: Wall(1), actor: "mallory".to_owned(), ..same.clone() }).is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    store.close().await;
    let entries = chain(&*bench.open(), Chain::Refusals).await;
    check_chain(&entries);
    assert_eq!(entries.len(), 18);
    assert_eq!(entries.first().map(|entry| entry.draft.actor.as_str()), Some("alice"), "what differs stays");
    let newest = entries.last().expect("the count");
    assert_eq!(newest.draft.audit_id, refused(5_001).audit_id, "the newest is never lost");
    assert!(newest.draft.detail.contains("and 4983 more like it"), "{}", newest.draft.detail);
}

pub(super) async fn the_last_checkpoint_states_where_reads_and_refusals_end<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    store.sign_checkpoints(note_key());
    store.commit(boot(1)).await.expect("commits");
    store.append_reads(vec![draft(1), draft(2), refused(3)]).expect("queues");
    store.close().await;
    let store = bench.open();
    let stated = newest(&*store).await.expect("left").tails;
    for (of, tail, size) in [(Chain::Reads, stated.reads, 2), (Chain::Refusals, stated.refusals, 1)] {
        let entries = chain(&*store, of).await;
        let wanted = entries.last().map(|entry| (entry.position.seq, entry.position.hash, 1));
        assert_eq!(tail.map(|it| (it.size, it.hash, it.first)), wanted, "{of:?}");
        assert_eq!(entries.len(), size);
    }
    store.close().await;
}
