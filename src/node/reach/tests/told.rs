//! What owners say of runs that end, are forgotten or turn into others while somebody reads them.

use super::liar::Lied;
use super::support::{ended, key};
use super::*;
use crate::domain::action::Action;
use crate::domain::envelope::Envelope;
use crate::domain::run::End;
use crate::domain::time::{Millis, Wall};
use crate::engine::input::Invoke;
use crate::store::memory::Fault;
use crate::store::runs::Change;
use crate::wire::mesh::RunAsked;

/// Contract, RR-25: also of what is followed already.
#[tokio::test]
async fn a_followed_run_that_turns_into_another_one_is_gone() {
    let Lied { b, liar, known, .. } = Lied::new(patience()).await;
    let other = Pointer { agent: parsed("other"), ..known.clone() };
    let page = |of: &Pointer, index| {
        let events = vec![log(of.run, index, "on")];
        RunAnswer::Events(
            Box::new(of.clone()),
            RunEvents { events, next: index + 1, count: index + 1, is_ended: false },
        )
    };
    liar.answer(vec![page(&known, 0), page(&known, 1), page(&other, 2)]);
    let mut follower = follow(&b, known.run, None).await;
    for _ in 0..2 {
        assert!(matches!(in_time(follower.next()).await, Ok(Next::Events(events)) if events.len() == 1));
    }
    assert_eq!(in_time(follower.next()).await, Ok(Next::Gone));
    assert_eq!(b.kept.runs.lookup(known.run).await, Ok(None), "whoever looks again asks everybody");
}

/// The copy of its pointer may come later, or never.
#[tokio::test]
async fn an_end_that_was_read_is_known_while_its_owner_is_away() {
    let Lied { b, liar, known, .. } = Lied::new(Patience { answer: Duration::from_millis(300), ..patience() }).await;
    let end = End { at: Wall::from_millis(9_000), is_error: false, duration: Millis(7) };
    let over = Pointer { end: Some(end), ..known.clone() };
    let run = Run { pointer: over.clone(), result: Some("1".to_owned()), error: None };
    liar.answer(vec![RunAnswer::Record(Box::new(run.clone()))]);
    assert_eq!(in_time(b.all.run(engineer(), over.run)).await, Ok(run));
    let away = in_time(b.all.run(engineer(), over.run)).await;
    assert_eq!(away, Err(Absent::OwnerUnreachable(Box::new(over))));
}

/// One that is longer than an answer may be is not told in part, nor as something that nobody accepts.
#[tokio::test]
async fn the_rest_of_a_forgotten_run_is_told_whole_or_not_at_all() {
    let (_hub, members) = site(&["s/a", "s/b"]).await;
    let [a, b] = members.as_slice() else { panic!("two") };
    let oldest = a.begin_oldest().await;
    let mut follower = follow(b, oldest, None).await;
    let waiting = waits_at_owner(&mut follower).await;
    let events = (1..=5).map(|index| log(oldest, index, &"x".repeat(200_000))).collect();
    let batch = vec![Change::Append { run: oldest, events }, ended(oldest, 6, "1", false)];
    assert_eq!(a.kept.runs.commit(batch).await.expect("committed").forgotten, [oldest]);
    assert_eq!(in_time(waiting).await, Ok(Next::Gone));
    assert_eq!(b.refused("too_large"), 0, "it was not asked again and again for what it refuses");
}

/// The engine has it open as long as its disk is full.
#[tokio::test]
async fn a_forgotten_run_is_unknown_elsewhere_while_its_engine_has_not_heard_of_its_end() {
    let (_hub, members) = site(&["s/a", "s/b"]).await;
    let [a, b] = members.as_slice() else { panic!("two") };
    RunStore::set_runs_kept(&a.kept.runs, 1);
    let later = pointer(&a.id, 2);
    let instance = later.instance.clone();
    let invoke = Invoke { agent: parsed("hello"), instance, payload: "{}".to_owned(), is_streamed: false };
    let run = in_time(a.all.start(engineer(), invoke)).await.expect("started").run;
    let first = crate::wire::run::run_start(&later, "{}");
    let other = later.run;
    let batch = vec![Change::Create { pointer: later, first }, ended(other, 1, "1", false)];
    a.kept.runs.commit(batch).await.expect("committed");
    assert!(in_time(b.all.run(engineer(), run)).await.expect("known").pointer.end.is_none());
    a.kept.store.with_disk(|disk| (0..100).for_each(|_| disk.inject(Fault::NoSpace)));
    until("it is forgotten", async || RunStore::is_forgotten(&a.kept.runs, run).await == Ok(true)).await;
    assert_eq!(in_time(b.all.events(engineer(), page(run, None, 9))).await, Err(Absent::Unknown));
    assert_eq!(in_time(b.all.run(engineer(), run)).await, Err(Absent::Unknown));
    assert_eq!(in_time(b.all.follow(engineer(), run, None)).await.map(drop), Err(Absent::Unknown));
    assert!(a.node.operations().view().runs.contains_key(&run), "the engine has not heard of it yet");
}

impl Liar {
    /// Asks a node about one of its runs, in its own words, and gives what that says.
    pub(super) async fn asks(&self, hub: &Hub, a: &Member, run: RunId, asked: &RunAsked) -> serde_json::Value {
        let (view, now) = (a.node.operations().view(), a.node.operations().now());
        let read = view.envelope(&engineer(), &parsed("asked-1"), &Action::StatusRead, &self.id, now.wall);
        let target_key = key("s/a").fingerprint();
        let (origin, target) = (self.id.clone(), a.id.clone());
        let read = Envelope { origin, target, target_key, boot: 1, sequence: 1, ..read.expect("known") };
        let (sealed, _) = message::seal_run_question(&self.keys(), &read, run, asked);
        let answer = hub.ask_foreign(&a.id, "truST/s/a/svc/rpc/run/s/l", sealed).await.expect("an answer");
        liar::payload(&answer).expect("signed")["said"].clone()
    }
}

/// Nobody is told more than he has asked for: a reader that takes two does not take three.
#[tokio::test]
async fn the_rest_of_a_forgotten_run_is_not_told_to_whoever_asked_for_less() {
    for (limit, said) in [(2, "unknown"), (3, "events")] {
        let hub = Hub::new().expect("a hub");
        let a = Member::join(&hub, "s/a", Kept::new()).await;
        let asker = Liar::join(&hub, "s/l").await;
        a.sees_liar(&asker, None).await;
        let oldest = a.begin_oldest().await;
        let asked = RunAsked::Events { from: 1, kinds: None, limit, wait: Millis(9_000), takes_held: false };
        let mut waiting = std::pin::pin!(asker.asks(&hub, &a, oldest, &asked));
        assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "it waits at the owner");
        let events = vec![log(oldest, 1, "one"), log(oldest, 2, "two")];
        let batch = vec![Change::Append { run: oldest, events }, ended(oldest, 3, "1", false)];
        assert_eq!(a.kept.runs.commit(batch).await.expect("committed").forgotten, [oldest]);
        assert_eq!(in_time(waiting).await, said, "{limit} were asked for");
    }
}
