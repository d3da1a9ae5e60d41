//! What peers copy of the own pointers, and what is kept of theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Bench, LIMITS, Runs, commit, create, end, end_of, pointer, run_id};
use crate::domain::id::RuntimeId;
use crate::domain::run::{Pointer, RunId};
use crate::store::runs::{PointerChange, Replica, RunsAsked, Upto};

fn peer(name: &str) -> RuntimeId {
    format!("s/{name}").parse().expect("legal")
}

fn of(owner: &str, number: u64) -> Pointer {
    Pointer { owner: peer(owner), ..pointer(number, "hello", "i1") }
}

fn told(owner: &str, changes: Vec<PointerChange>, number: u64) -> Replica {
    Replica { owner: peer(owner), is_restart: false, changes, upto: Upto { number, floor: 0 } }
}

async fn found(store: &Arc<dyn Runs>, number: u64) -> Option<String> {
    store.lookup(run_id(number)).await.expect("reads").map(|it| it.owner.to_string())
}

pub(super) async fn each_change_of_a_pointer_takes_the_next_number<B: Bench>() {
    let store = B::new().open();
    let nothing = store.changes(Upto::default(), 10).await.expect("reads");
    assert_eq!((nothing.is_restart, nothing.changes, nothing.has_more), (false, vec![], false));
    commit(&store, [create(1), create(2), create(1), end(3, 1), end(1, 1), end(1, 1)]).await;
    let page = store.changes(Upto::default(), 10).await.expect("reads");
    let mut ended = pointer(1, "hello", "i1");
    ended.end = Some(end_of(1));
    let wanted = [(2, PointerChange::Put(pointer(2, "hello", "i1"))), (3, PointerChange::Put(ended.clone()))];
    assert_eq!((page.is_restart, page.changes, page.has_more), (false, wanted.to_vec(), false));
    assert_eq!((page.upto, store.number().await), (Upto { number: 3, floor: 0 }, Ok(3)));
    let after = |number| Upto { number, floor: 0 };
    assert_eq!(store.changes(after(2), 10).await.expect("reads").changes, wanted[1..]);
    assert_eq!(store.changes(after(3), 10).await.expect("reads").changes, []);
    let page = store.changes(Upto::default(), 1).await.expect("reads");
    assert_eq!((page.changes.len(), page.has_more, page.upto), (1, true, after(2)));
    // Somebody who was told more than was ever said has copied another log.
    let page = store.changes(after(4), 10).await.expect("reads");
    assert_eq!((page.is_restart, page.changes.len()), (true, 2));
    store.close().await;
}

/// Copies all that is new, in small pages: how often it had to start over.
async fn copy(from: &Arc<dyn Runs>, to: &Arc<dyn Runs>) -> usize {
    let owner = super::owner();
    let mut restarts = 0;
    for _page in 0..1_000 {
        let after = to.replicated_upto(owner.clone()).await.expect("reads");
        let page = from.changes(after, 2).await.expect("reads");
        restarts += usize::from(page.is_restart);
        let changes = page.changes.into_iter().map(|(_, change)| change).collect();
        let replica = Replica { owner: owner.clone(), is_restart: page.is_restart, changes, upto: page.upto };
        to.replicate(replica).await.expect("writes");
        if !page.has_more {
            return restarts;
        }
    }
    panic!("a copy comes to no end");
}

async fn check_same(from: &Arc<dyn Runs>, to: &Arc<dyn Runs>, numbers: std::ops::Range<u64>) {
    let both: BTreeMap<RunId, _> = numbers.map(|it| (run_id(it), ())).collect();
    for run in both.into_keys() {
        assert_eq!(from.lookup(run).await, to.lookup(run).await, "{run}");
    }
}

pub(super) async fn a_copy_follows_its_owner_page_by_page<B: Bench>() {
    let (here, there) = (B::new(), B::new());
    let (from, to) = (here.open(), there.open());
    commit(&from, (1..6).map(create)).await;
    assert_eq!(copy(&from, &to).await, 0);
    check_same(&from, &to, 0..10).await;
    // Four end, of which three are kept.
    commit(&from, [end(1, 1), end(2, 1), end(3, 1), end(4, 1), create(6)]).await;
    assert_eq!(copy(&from, &to).await, 0);
    assert_eq!(found(&to, 1).await, None, "a forgotten run is forgotten by its peers too");
    check_same(&from, &to, 0..10).await;
    from.close().await;
    to.close().await;
}

pub(super) async fn a_copy_that_missed_too_much_starts_over_and_comes_to_an_end<B: Bench>() {
    let (here, there) = (B::new(), B::new());
    let (from, to) = (here.open(), there.open());
    commit(&from, (1..6).map(create)).await;
    copy(&from, &to).await;
    // Ten are forgotten, of which four are remembered.
    commit(&from, (10..23).flat_map(|number| [create(number), end(number, 1)])).await;
    assert_eq!(copy(&from, &to).await, 1);
    check_same(&from, &to, 0..30).await;
    assert_eq!(copy(&from, &to).await, 0, "from then on it follows");
    commit(&from, (30..36).flat_map(|number| [create(number), end(number, 1)])).await;
    assert_eq!(copy(&from, &to).await, 1);
    check_same(&from, &to, 0..40).await;
    // One that begins now has nothing to forget and is not sent back again and again.
    let late = B::new();
    let fresh = late.open();
    assert!(copy(&from, &fresh).await <= 1);
    check_same(&from, &fresh, 0..40).await;
    for store in [from, to, fresh] {
        store.close().await;
    }
}

pub(super) async fn a_peer_speaks_for_itself_alone_and_the_first_wins<B: Bench>() {
    let store = B::new().open();
    commit(&store, [create(1)]).await;
    let all = [of("a", 1), of("a", 2), of("b", 3)].map(PointerChange::Put).to_vec();
    store.replicate(told("a", all, 3)).await.expect("writes");
    assert_eq!(found(&store, 1).await.as_deref(), Some("s/own"), "an own run stays own");
    assert_eq!(found(&store, 2).await.as_deref(), Some("s/a"));
    assert_eq!(found(&store, 3).await, None, "nobody is spoken for by another");
    let all = vec![PointerChange::Put(of("b", 2)), PointerChange::Forgotten(run_id(2)), PointerChange::Put(of("b", 3))];
    store.replicate(told("b", all, 3)).await.expect("writes");
    assert_eq!(found(&store, 2).await.as_deref(), Some("s/a"), "the first one stays");
    assert_eq!(found(&store, 3).await.as_deref(), Some("s/b"));
    // An answer that was overtaken on the way.
    store.replicate(told("b", vec![PointerChange::Forgotten(run_id(3))], 2)).await.expect("writes");
    assert_eq!(found(&store, 3).await.as_deref(), Some("s/b"));
    store.replicate(told("b", vec![PointerChange::Forgotten(run_id(3))], 4)).await.expect("writes");
    assert_eq!(found(&store, 3).await, None);
    let anew = Replica { is_restart: true, ..told("a", vec![PointerChange::Put(of("a", 9))], 1) };
    store.replicate(anew).await.expect("writes");
    assert_eq!((found(&store, 2).await, found(&store, 9).await.as_deref()), (None, Some("s/a")));
    assert_eq!(store.replicated_upto(peer("a")).await, Ok(Upto { number: 1, floor: 0 }));
    assert_eq!(store.replicated_upto(peer("c")).await, Ok(Upto::default()));
    store.close().await;
}

pub(super) async fn copies_are_held_to_their_limits<B: Bench>() {
    let store = B::new().open();
    let count = async |numbers: std::ops::Range<u64>| {
        let mut there = Vec::new();
        for number in numbers {
            there.extend(found(&store, number).await.map(|_| number));
        }
        there
    };
    let puts = |owner, numbers: std::ops::Range<u64>| numbers.map(|it| PointerChange::Put(of(owner, it))).collect();
    store.replicate(told("a", puts("a", 100..115), 15)).await.expect("writes");
    assert_eq!(count(100..120).await, (105..115).collect::<Vec<_>>(), "the newest of a peer stay");
    store.replicate(told("b", puts("b", 200..210), 10)).await.expect("writes");
    assert_eq!(count(0..300).await.len(), 20);
    store.replicate(told("c", puts("c", 0..10), 10)).await.expect("writes");
    let all = count(0..300).await;
    assert_eq!((all.len(), all.first()), (LIMITS.replicated_total, Some(&5)), "the oldest of all went");
    store.replicate(told("d", puts("d", 300..303), 10)).await.expect("writes");
    assert_eq!(count(0..400).await.len(), LIMITS.replicated_total);
    store.close().await;
}

pub(super) async fn copies_survive_a_crash_and_are_only_for_lookup<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    store.replicate(told("a", vec![PointerChange::Put(of("a", 1))], 7)).await.expect("writes");
    store.close().await;
    drop(store);
    let store = bench.open();
    assert_eq!(store.lookup(run_id(1)).await, Ok(Some(of("a", 1))));
    assert_eq!(store.replicated_upto(peer("a")).await, Ok(Upto { number: 7, floor: 0 }));
    let list = store.list(RunsAsked { limit: 9, ..RunsAsked::default() }).await.expect("reads");
    assert_eq!((list.pointers, store.unfinished().await), (vec![], Ok(vec![])));
    assert_eq!(store.run(run_id(1)).await, Ok(None));
    assert_eq!(store.changes(Upto::default(), 9).await.expect("reads").changes, [], "a copy is not passed on");
    store.close().await;
}
