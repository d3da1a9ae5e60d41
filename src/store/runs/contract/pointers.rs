//! Lists of own runs and of their instances.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Bench, Runs, commit, create_of, end, pointer, run_id};
use crate::domain::run::{Pointer, RunId, Status};
use crate::domain::time::Wall;
use crate::store::runs::{AgentInstance, InstancesAsked, RunCursor, RunsAsked};

/// The runs of all pages, and how many pages those were.
async fn listed(store: &Arc<dyn Runs>, mut asked: RunsAsked) -> (Vec<RunId>, usize) {
    let (mut runs, mut pages) = (Vec::new(), 0);
    loop {
        let page = store.list(asked.clone()).await.expect("reads");
        assert!(page.pointers.len() <= asked.limit);
        runs.extend(page.pointers.iter().map(|it| it.run));
        pages += 1;
        match page.next {
            None => return (runs, pages),
            next @ Some(_) => asked.cursor = next,
        }
    }
}

pub(super) async fn lists_are_cut_newest_first_without_a_gap<B: Bench>() {
    let store = B::new().open();
    // Three runs in each millisecond; within it the nanoseconds say nothing.
    let at = |number: u64| Pointer {
        started: Wall(1_000_000 * (number / 3) + 900 - number % 3),
        ..pointer(number, "hello", "i1")
    };
    commit(&store, (0..30).map(|number| create_of(at(number)))).await;
    let wanted: Vec<_> = (0..30).rev().map(run_id).collect();
    for (limit, pages) in [(1, 30), (7, 5), (10, 3), (29, 2), (30, 1), (1_000, 1)] {
        let asked = RunsAsked { limit, ..RunsAsked::default() };
        assert_eq!(listed(&store, asked).await, (wanted.clone(), pages), "{limit}");
    }
    let page = store.list(RunsAsked { limit: 2, ..RunsAsked::default() }).await.expect("reads");
    assert_eq!(page.next, Some(RunCursor { started: Wall::from_millis(9), run: run_id(28) }));
    let nowhere = RunCursor { started: Wall::from_millis(0), run: run_id(0) };
    let page = store.list(RunsAsked { limit: 2, cursor: Some(nowhere), ..RunsAsked::default() }).await;
    assert_eq!(page.expect("reads").pointers, []);
    store.close().await;
}

pub(super) async fn filters_admit_exactly_what_they_say<B: Bench>() {
    let store = B::new().open();
    for (number, agent, instance) in
        [(1, "a", "x"), (2, "a", "y"), (3, "b", "x"), (4, "a", "x"), (5, "a", "x"), (6, "b", "y")]
    {
        commit(&store, [create_of(pointer(number, agent, instance))]).await;
    }
    // An even number ends errored.
    commit(&store, [end(1, 1), end(2, 1), end(3, 1), end(4, 1)]).await;
    let (agent, instance) = (|it: &str| it.parse().ok(), |it: &str| it.parse().ok());
    for (status, of_agent, of_instance, wanted) in [
        (None, None, None, vec![6, 5, 4, 3, 2, 1]),
        (Some(Status::Active), None, None, vec![6, 5]),
        (Some(Status::Completed), None, None, vec![3, 1]),
        (Some(Status::Errored), None, None, vec![4, 2]),
        (None, agent("a"), None, vec![5, 4, 2, 1]),
        (None, None, instance("x"), vec![5, 4, 3, 1]),
        (None, agent("a"), instance("x"), vec![5, 4, 1]),
        (Some(Status::Errored), agent("a"), instance("x"), vec![4]),
        (None, agent("c"), None, vec![]),
    ] {
        let asked = RunsAsked { status, agent: of_agent, instance: of_instance, cursor: None, limit: 2 };
        let wanted: Vec<_> = wanted.into_iter().map(run_id).collect();
        assert_eq!(listed(&store, asked.clone()).await.0, wanted, "{asked:?}");
    }
    store.close().await;
}

pub(super) async fn instances_are_listed_once_in_the_order_of_their_bytes<B: Bench>() {
    let store = B::new().open();
    let names = ["B", "a", "Z", "ä", "aa", "漢", "a b", "\u{1f600}"];
    let mut number = 0;
    for (agent, instance) in names.iter().flat_map(|it| [("hello", it), ("Bye", it), ("cmd.purge", it)]) {
        number += 2;
        commit(&store, [create_of(pointer(number, agent, instance)), create_of(pointer(number + 1, agent, instance))])
            .await;
    }
    let mut wanted: Vec<AgentInstance> = names
        .iter()
        .flat_map(|it| ["hello", "Bye", "cmd.purge"].map(|agent| (agent, it)))
        .map(|(agent, it)| AgentInstance { agent: agent.parse().expect("legal"), instance: it.parse().expect("legal") })
        .collect();
    wanted.sort_by_key(|it| format!("{}\0{}", it.agent, it.instance).into_bytes());
    let walk = async |agent: Option<&str>, limit| {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let agent = agent.map(|it| it.parse().expect("legal"));
            let page = store.instances(InstancesAsked { agent, cursor, limit }).await.expect("reads");
            all.extend(page.instances);
            cursor = page.next;
            if cursor.is_none() {
                return all;
            }
        }
    };
    for limit in [1, 5, 24, 1_000] {
        assert_eq!(walk(None, limit).await, wanted, "{limit}");
        let of_one: Vec<_> = wanted.iter().filter(|it| it.agent.as_str() == "hello").cloned().collect();
        assert_eq!(walk(Some("hello"), limit).await, of_one, "{limit}");
    }
    assert_eq!(walk(Some("nobody"), 5).await, []);
    store.close().await;
}

pub(super) async fn ten_thousand_runs_are_listed_while_new_ones_start<B: Bench>() {
    const ALL: u64 = 10_000;
    let store = B::new().open();
    for first in (0..ALL).step_by(1_000) {
        commit(&store, (first..first + 1_000).map(|number| create_of(pointer(number, "hello", "i1")))).await;
    }
    let mut asked = RunsAsked { limit: 500, ..RunsAsked::default() };
    let (mut seen, mut new) = (BTreeSet::new(), ALL);
    loop {
        let page = store.list(asked.clone()).await.expect("reads");
        for pointer in &page.pointers {
            assert!(seen.insert(pointer.run), "{} stands on two pages", pointer.run);
        }
        commit(&store, (new..new + 10).map(|number| create_of(pointer(number, "hello", "i1")))).await;
        new += 10;
        match page.next {
            None => break,
            next @ Some(_) => asked.cursor = next,
        }
    }
    assert_eq!(seen, (0..ALL).map(run_id).collect(), "each that was there, and none that came later");
    store.close().await;
}
