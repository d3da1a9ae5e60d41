//! A disk that is full at one node, and those who follow its runs at another one.

use std::sync::atomic::Ordering;

use super::liar::Lied;
use super::*;
use crate::domain::run::Status;
use crate::domain::time::Millis;
use crate::engine::input::Invoke;
use crate::store;
use crate::wire::mesh::RunAsked;

fn full() -> Option<store::Error> {
    Some(store::Error::NoSpace { place: "runs.db".to_owned(), is_at_the_end: false })
}

/// Starts a run whose program waits until its time is over.
async fn started(member: &Member) -> RunId {
    let invoke =
        Invoke { agent: parsed("hello"), instance: parsed("i1"), payload: "{}".to_owned(), is_streamed: false };
    in_time(member.all.start(engineer(), invoke)).await.expect("started").run
}

/// What is left to read until the reader is told that nothing more can be written.
async fn told(follower: &mut Box<dyn Follower>) -> Vec<Event> {
    let mut seen = Vec::new();
    loop {
        match in_time(follower.next()).await {
            Ok(Next::Events(events)) => seen.extend(events),
            Err(Absent::HeldUp) => return seen,
            other => panic!("{other:?} after {seen:?}"),
        }
    }
}

#[tokio::test]
async fn who_follows_at_another_node_is_told_that_a_run_is_held_up_and_goes_on_behind_that() {
    let (hub, members) = site(&["s/a", "s/b"]).await;
    let [a, b] = members.as_slice() else { panic!("two") };
    let run = started(a).await;
    let mut follower = follow(b, run, None).await;
    let Ok(Next::Events(first)) = in_time(follower.next()).await else { panic!("its start") };
    a.kept.runs.set_fault(full());
    let seen = [first.to_vec(), told(&mut follower).await].concat();
    assert!(seen.iter().all(|event| event.kind != Kind::RunEnd), "{seen:?}");
    assert_eq!(b.all.run(engineer(), run).await.expect("known").pointer.status(), Status::Active);
    // Whoever comes later is let in, has what is durable, and is told without another wait.
    let late = tokio::time::timeout(Duration::from_secs(3), async { told(&mut follow(b, run, None).await).await });
    assert_eq!(late.await.expect("at once"), seen);
    assert_eq!(b.refused("malformed") + b.refused("not_its_own_word"), 0);
    // One of before this answer is given the answer of before: that nothing has come.
    let asker = Liar::join(&hub, "s/l").await;
    a.sees_liar(&asker, None).await;
    let from = seen.last().expect("a start").index + 1;
    for (takes_held, said) in [(false, "events"), (true, "held_up")] {
        let asked = RunAsked::Events { from, kinds: None, limit: 9, wait: Millis(300), takes_held };
        assert_eq!(in_time(asker.asks(&hub, a, run, &asked)).await, said);
    }
    a.kept.runs.set_fault(None);
    let mut all = seen;
    while all.last().is_none_or(|last| last.kind != Kind::RunEnd) {
        match in_time(follower.next()).await {
            Ok(Next::Events(events)) => all.extend(events),
            Err(Absent::HeldUp) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(all, a.log(run).await, "the same reader goes on where it was");
}

/// It refuses what it does not understand, and is asked in the words that it does.
#[tokio::test]
async fn a_run_of_a_node_of_before_this_answer_is_followed_as_ever() {
    let Lied { b, liar, known, .. } = Lied::new(patience()).await;
    liar.is_older.store(true, Ordering::Relaxed);
    let page = |index| {
        let page =
            RunEvents { events: vec![log(known.run, index, "on")], next: index + 1, count: index + 1, is_ended: false };
        RunAnswer::Events(Box::new(known.clone()), page)
    };
    liar.answer(vec![page(0), page(1), page(2)]);
    let mut follower = follow(&b, known.run, None).await;
    for index in 0..3 {
        assert_eq!(in_time(follower.next()).await, Ok(Next::Events(vec![log(known.run, index, "on")].into())));
    }
}

/// Contract, RR-25: an answer of another run says nothing of this one.
#[tokio::test]
async fn that_another_run_is_held_up_is_not_told_of_this_one() {
    let Lied { b, liar, known, .. } = Lied::new(patience()).await;
    let other = Pointer { agent: parsed("other"), ..known.clone() };
    for (said, wanted) in [(known.clone(), Err(Absent::HeldUp)), (other, Ok(Next::Gone))] {
        let first = RunEvents { events: vec![log(known.run, 0, "on")], next: 1, count: 1, is_ended: false };
        let answers =
            vec![RunAnswer::Events(Box::new(known.clone()), first), RunAnswer::HeldUp(Box::new(said.clone()))];
        liar.answer(answers);
        let mut follower = follow(&b, known.run, None).await;
        assert!(matches!(in_time(follower.next()).await, Ok(Next::Events(_))));
        assert_eq!(in_time(follower.next()).await, wanted, "{said:?}");
    }
}
