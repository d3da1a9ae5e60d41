//! Runs of one runtime, read at others, while links and nodes come and go.

mod banned;
mod brought;
mod claims;
mod held;
mod liar;
mod support;
mod told;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;

use self::liar::{Liar, Lied, keyring};
use self::support::{Kept, Member, in_time, log, patience, pointer, read_all, until};
use crate::domain::audit::{Hash, Outcome};
use crate::domain::code::Code;
use crate::domain::preflight::Asker;
use crate::domain::run::{Event, Kind, Pointer, Run, RunId};
use crate::handle::Pending;
use crate::handle::runs::{Absent, EventsAsked, Follower, Next};
use crate::mesh::Verb;
use crate::mesh::memory::Hub;
use crate::node::reach::Patience;
use crate::node::tests::{engineer, parsed};
use crate::store::runs::{Registry as _, RunStore};
use crate::wire::mesh::{self as message, PointerNews, PointersPage, RunAnswer, RunEvents};

async fn site(names: &[&str]) -> (Hub, Vec<Member>) {
    let hub = Hub::new().expect("a hub");
    let mut members = Vec::new();
    for name in names {
        members.push(Member::join(&hub, name, Kept::new()).await);
    }
    for member in &members {
        for other in members.iter().filter(|other| other.id != member.id) {
            member.sees(&other.id).await;
        }
    }
    (hub, members)
}

fn page(run: RunId, after: Option<u64>, limit: usize) -> EventsAsked {
    EventsAsked { run, after, kinds: None, limit }
}

/// Reads the first event, and begins to wait for the next one.
async fn waits_at_owner(follower: &mut Box<dyn Follower>) -> Pending<'_, Result<Next, Absent>> {
    assert!(matches!(in_time(follower.next()).await, Ok(Next::Events(events)) if events.len() == 1));
    let mut waiting = follower.next();
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "it waits at the owner");
    waiting
}

async fn follow(member: &Member, run: RunId, after: Option<u64>) -> Box<dyn Follower> {
    in_time(member.all.follow(engineer(), run, after)).await.expect("followed")
}

/// Also before its pointer was copied.
#[tokio::test]
async fn any_node_reads_a_run_by_its_bare_id() {
    let (_hub, members) = site(&["s/a", "s/b", "s/c"]).await;
    let [a, b, c] = members.as_slice() else { panic!("three") };
    let run = a.begin(1).await.run;
    for index in 1..=5 {
        a.say(run, index, &format!("line {index}")).await;
    }
    a.end(run, 6, "null").await;
    let log = a.log(run).await;
    for reader in [b, c] {
        let record = reader.all.run(engineer(), run).await.expect("found");
        assert_eq!((record.pointer.owner.clone(), record.result.as_deref()), (a.id.clone(), Some("null")));
        assert_eq!(reader.all.events(engineer(), page(run, None, 1_000)).await, Ok(log.clone()));
        assert_eq!(reader.all.events(engineer(), page(run, Some(1), 2)).await, Ok(log[2..4].to_vec()));
        assert_eq!(reader.all.events(engineer(), page(run, Some(u64::MAX), 2)).await, Ok(Vec::new()));
        let ends = EventsAsked { kinds: Some([Kind::RunEnd, Kind::RunStart].into()), ..page(run, None, 9) };
        assert_eq!(reader.all.events(engineer(), ends).await, Ok(vec![log[0].clone(), log[6].clone()]));
        assert_eq!(read_all(&mut follow(reader, run, None).await).await, log);
        assert_eq!(read_all(&mut follow(reader, run, Some(3)).await).await, log[4..]);
        assert_eq!(reader.all.run(engineer(), pointer(&a.id, 9).run).await, Err(Absent::Unknown));
    }
    let records = a.run_reads();
    assert!(
        records.iter().all(|draft| draft.outcome == Outcome::Applied && draft.actor == engineer().actor.to_string())
    );
    assert!(records.iter().any(|draft| draft.origin == b.id && draft.detail == format!("record of {run}")));
    assert!(records.iter().any(|draft| draft.origin == c.id && draft.detail == format!("events of {run}")));
    assert!(!records.iter().any(|draft| draft.detail.contains(&pointer(&a.id, 9).run.to_string())), "{records:?}");
    assert_eq!(b.run_reads(), [], "b has been asked for what it does not have");
}

#[tokio::test]
async fn a_run_whose_owner_is_away_is_unreachable_and_not_unknown_also_after_a_restart() {
    let (hub, mut members) = site(&["s/a", "s/b"]).await;
    let (b, a) = (members.pop().expect("two"), members.pop().expect("two"));
    let mut known = a.begin(1).await;
    b.knows(known.run, false).await;
    a.end(known.run, 1, "1").await;
    b.knows(known.run, true).await;
    known.end = a.all.run(engineer(), known.run).await.expect("own").pointer.end;
    let owner = a.id.clone();
    let left = a.down().await;
    until("b has heard", async || !b.sees_now(&owner)).await;
    let unreachable = Err(Absent::OwnerUnreachable(Box::new(known.clone())));
    assert_eq!(b.all.run(engineer(), known.run).await, unreachable);
    assert_eq!(b.all.events(engineer(), page(known.run, None, 9)).await, unreachable.clone().map(|_: Run| Vec::new()));
    let followed = b.all.follow(engineer(), known.run, None).await.map(drop);
    assert_eq!(followed, Err(Absent::OwnerUnreachable(Box::new(known.clone()))));
    assert_eq!(b.all.run(engineer(), pointer(&owner, 9).run).await, Err(Absent::Unknown));

    let b = Member::join(&hub, "s/b", b.down().await).await;
    assert_eq!(b.all.run(engineer(), known.run).await, unreachable, "after a restart");
    let a = Member::join(&hub, "s/a", left).await;
    b.sees(&a.id).await;
    let record = b.all.run(engineer(), known.run).await.expect("back");
    assert_eq!((record.pointer, record.result.as_deref()), (known, Some("1")));
}

#[tokio::test]
async fn a_follower_gets_exactly_the_log_across_cut_links() {
    const EVENTS: u64 = 60;
    let (hub, members) = site(&["s/a", "s/b"]).await;
    let [a, b] = members.as_slice() else { panic!("two") };
    let run = a.begin(1).await.run;
    let mut follower = follow(b, run, None).await;
    let speaking = async {
        for index in 1..EVENTS {
            a.say(run, index, "on").await;
            match index % 20 {
                5 => hub.cut(&a.id, &b.id),
                // It was longer away than one page of waiting.
                15 => {
                    until("b has heard of the cut", async || !b.sees_now(&a.id)).await;
                    hub.heal(&a.id, &b.id);
                }
                _ => tokio::task::yield_now().await,
            }
        }
        a.end(run, EVENTS, "1").await;
    };
    let (read, ()) = tokio::join!(read_all(&mut follower), speaking);
    assert_eq!(read, a.log(run).await);
    assert_eq!(read.len(), 61);
}

#[tokio::test]
async fn a_follower_whose_owner_stays_away_is_told_so() {
    let hub = Hub::new().expect("a hub");
    let a = Member::join(&hub, "s/a", Kept::new()).await;
    let short = Patience { gone: Duration::from_millis(300), ..patience() };
    let b = Member::patient(&hub, "s/b", Kept::new(), short).await;
    b.sees(&a.id).await;
    let known = a.begin(1).await;
    let mut follower = follow(&b, known.run, None).await;
    assert!(matches!(in_time(follower.next()).await, Ok(Next::Events(events)) if events.len() == 1));
    hub.cut(&a.id, &b.id);
    assert_eq!(in_time(follower.next()).await, Err(Absent::OwnerUnreachable(Box::new(known.clone()))));
    a.say(known.run, 1, "meanwhile").await;
    hub.heal(&a.id, &b.id);
    b.sees(&a.id).await;
    let next = in_time(follower.next()).await;
    assert_eq!(next, Ok(Next::Events(vec![log(known.run, 1, "meanwhile")].into())), "it goes on where it was");
}

/// Whoever says at once that there is nothing is not asked as fast as it answers.
#[tokio::test]
async fn an_owner_that_lets_nobody_wait_is_asked_after_pauses() {
    let Lied { b, liar, known, .. } = Lied::new(patience()).await;
    let (keys, questions) = (liar.keys(), Arc::new(Mutex::new(0_usize)));
    let (counted, nothing) = (Arc::clone(&questions), RunAnswer::Events(Box::new(known.clone()), RunEvents::default()));
    liar.tell(move |_, question| {
        *counted.lock().expect("whole") += 1;
        Some(message::seal_run_answer(&keys, question, &nothing))
    });
    let mut follower = follow(&b, known.run, None).await;
    assert!(tokio::time::timeout(Duration::from_secs(1), follower.next()).await.is_err(), "there is nothing");
    let asked = *questions.lock().expect("whole");
    assert!((2..=20).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_run_that_its_owner_has_forgotten_is_forgotten_everywhere() {
    let (_hub, members) = site(&["s/a", "s/b"]).await;
    let [a, b] = members.as_slice() else { panic!("two") };
    let (kept, gone) = (a.begin(1).await, pointer(&a.id, 2));
    b.knows(kept.run, false).await;
    b.is_told(gone.clone()).await;
    assert_eq!(b.all.run(engineer(), gone.run).await, Err(Absent::Unknown));
    assert_eq!(b.kept.runs.lookup(gone.run).await.expect("reads"), None);
    assert_eq!(b.kept.runs.lookup(kept.run).await.expect("reads"), Some(kept), "the other one is still known");
}

/// Contract, RR-25.
#[tokio::test]
async fn a_run_that_is_not_what_its_pointer_says_is_unknown_however_it_is_read() {
    let (_hub, members) = site(&["s/a", "s/b"]).await;
    let [a, b] = members.as_slice() else { panic!("two") };
    let real = a.begin(1).await;
    a.end(real.run, 1, "1").await;
    b.knows(real.run, true).await;
    let wrong =
        [Pointer { agent: parsed("other"), ..real.clone() }, Pointer { instance: parsed("elsewhere"), ..real.clone() }];
    for wrong in wrong {
        let point = async || b.is_told(wrong.clone()).await;
        let is_dropped = async || b.kept.runs.lookup(real.run).await.expect("reads").is_none();
        point().await;
        assert_eq!(b.all.run(engineer(), real.run).await, Err(Absent::Unknown), "{wrong:?}");
        assert!(is_dropped().await, "whoever looks again asks everybody");
        point().await;
        assert_eq!(b.all.events(engineer(), page(real.run, None, 9)).await, Err(Absent::Unknown), "{wrong:?}");
        assert!(is_dropped().await);
        point().await;
        assert_eq!(b.all.follow(engineer(), real.run, None).await.map(drop), Err(Absent::Unknown), "{wrong:?}");
        assert!(is_dropped().await);
    }
    assert_eq!(b.all.events(engineer(), page(real.run, None, 9)).await, Ok(a.log(real.run).await), "found anew");
}

/// Contract, RR-39: a page may be shorter than was asked for, but it is not empty while there is more.
#[tokio::test]
async fn pages_that_are_cut_by_their_bytes_are_continued_until_one_is_empty() {
    let (_hub, members) = site(&["s/a", "s/b"]).await;
    let [a, b] = members.as_slice() else { panic!("two") };
    let run = a.begin(1).await.run;
    let text = "x".repeat(200_000);
    for index in 1..60 {
        a.say(run, index, &text).await;
    }
    a.end(run, 60, "1").await;
    let log = a.log(run).await;
    let logs: Vec<_> = log.iter().filter(|event| event.kind == Kind::Log).cloned().collect();
    for (reader, longest) in [(a, 21), (b, 43)] {
        for (kinds, wanted) in [(None, &log), (Some([Kind::Log].into()), &logs)] {
            let (mut seen, mut sizes) = (Vec::new(), Vec::new());
            loop {
                let after = seen.last().map(|event: &Event| event.index);
                let asked = EventsAsked { kinds: kinds.clone(), ..page(run, after, 1_000) };
                let page = in_time(reader.all.events(engineer(), asked)).await.expect("read");
                if page.is_empty() {
                    break;
                }
                sizes.push(page.len());
                seen.extend(page);
            }
            assert!(seen == *wanted, "{sizes:?}");
            assert!(1 < sizes.len() && sizes.iter().all(|size| *size <= longest), "{sizes:?}");
        }
    }
}

/// Contract, RR-60: it is the oldest, and there is place for one.
#[tokio::test]
async fn who_waits_at_another_node_reads_a_run_to_its_end_though_it_is_forgotten_by_that() {
    let (_hub, members) = site(&["s/a", "s/b"]).await;
    let [a, b] = members.as_slice() else { panic!("two") };
    let oldest = a.begin_oldest().await;
    let mut follower = follow(b, oldest, None).await;
    let waiting = waits_at_owner(&mut follower).await;
    a.say(oldest, 1, "at last").await;
    a.end(oldest, 2, "2").await;
    let mut seen = Vec::new();
    match in_time(waiting).await {
        Ok(Next::Events(events)) => seen.extend(events),
        other => panic!("{other:?}"),
    }
    seen.extend(read_all(&mut follower).await);
    let kinds: Vec<_> = seen.iter().map(|event| (event.index, event.kind)).collect();
    assert_eq!(kinds, [(1, Kind::Log), (2, Kind::RunEnd)]);
    assert_eq!(in_time(follower.next()).await, Ok(Next::End), "nobody needs to be asked");
    assert_eq!(b.all.run(engineer(), oldest).await, Err(Absent::Unknown));
    // Who was not there at the end is told that there is no more, and is given nothing with a gap.
    assert_eq!(b.all.follow(engineer(), oldest, Some(0)).await.map(drop), Err(Absent::Unknown));
}

/// Each event travels within JSON within base64, and a page has a bound.
#[tokio::test]
async fn the_longest_events_and_many_of_them_arrive_whole() {
    let (_hub, members) = site(&["s/a", "s/b"]).await;
    let [a, b] = members.as_slice() else { panic!("two") };
    let run = a.begin(1).await.run;
    for index in 1..=4 {
        a.say(run, index, &"\"".repeat(130_000)).await;
    }
    for index in 5..900 {
        a.say(run, index, "short").await;
    }
    a.end(run, 900, "1").await;
    let log = a.log(run).await;
    assert!(log[1].body.len() > 250_000, "{}", log[1].body.len());
    assert_eq!(b.all.events(engineer(), page(run, None, 1_000)).await.expect("read"), log);
    assert_eq!(read_all(&mut follow(b, run, None).await).await, log);
    assert_eq!(b.refused("too_large"), 0);
}

/// More wait than questions are worked on at once.
#[tokio::test]
async fn those_who_wait_leave_room_for_other_questions() {
    const FOLLOWERS: usize = 300;
    let (_hub, members) = site(&["s/a", "s/b"]).await;
    let [a, b] = members.as_slice() else { panic!("two") };
    let run = a.begin(1).await.run;
    let mut followers = join_all((0..FOLLOWERS).map(|_| follow(b, run, Some(0)))).await;
    let waiting = join_all(followers.iter_mut().map(|follower| in_time(follower.next())));
    let others = async {
        until("one has no place", async || a.refused("too_many_waiters") > 0).await;
        for _ in 0..20 {
            assert_eq!(b.all.run(engineer(), run).await.expect("room").pointer.run, run);
        }
        a.say(run, 1, "at last").await;
    };
    let (told, ()) = tokio::join!(waiting, others);
    for next in told {
        assert_eq!(next, Ok(Next::Events(vec![log(run, 1, "at last")].into())));
    }
    let followed = a.run_reads().into_iter().filter(|draft| draft.detail == format!("events of {run}")).count();
    assert!(followed < 2 * FOLLOWERS, "{followed} records of {FOLLOWERS} followers");
}

/// A runtime of another site that is known here.
#[tokio::test]
async fn another_site_reads_as_reads_are_allowed_and_is_told_no_pointers() {
    let hub = Hub::new().expect("a hub");
    let a = Member::join(&hub, "s/a", Kept::knowing(&["t/x"]).await).await;
    let x = Member::join(&hub, "t/x", Kept::knowing(&["s/a"]).await).await;
    x.sees(&a.id).await;
    a.sees(&x.id).await;
    let known = a.begin(1).await;
    let of_site = |site: &str| Asker { actor: parsed(&format!("spiffe://trust/{site}/eve")), ..engineer() };
    assert_eq!(x.all.run(of_site("t"), known.run).await.map(|run| run.pointer), Ok(known.clone()));
    let forged = x.all.run(of_site("s"), known.run).await.expect_err("not its actor");
    assert!(matches!(&forged, Absent::Failed(failure) if failure.code == Code::PermissionDenied), "{forged:?}");
    let Absent::Failed(failure) = forged else { panic!("failed") };
    assert_eq!(failure.reason, Code::PermissionDenied.meaning(), "no reason for another site");
    let denied: Vec<_> = a.run_reads().into_iter().filter(|draft| draft.outcome == Outcome::Denied).collect();
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!((denied[0].code, &denied[0].origin), (Some(Code::PermissionDenied), &x.id));
    assert_eq!(x.kept.runs.lookup(known.run).await.expect("reads"), None, "nothing is copied across sites");

    let asked = message::PointersAsked {
        owner: a.id.clone(),
        at: x.node.operations().now().wall,
        sequence: 1,
        number: 0,
        floor: 0,
    };
    let (sealed, _) = message::seal_pointers_asked(&keyring("t/x", "t/x").keys(), &asked);
    let answer = hub.ask_foreign(&a.id, "truST/s/a/svc/rpc/pointers/t/x", sealed).await;
    assert_eq!(answer, Err(crate::mesh::QueryError::Refused("permission_denied".to_owned())));
    assert_eq!(a.refused("permission_denied"), 2);
}

/// Every way in which an answer can be another than the one that was asked for.
#[tokio::test]
async fn what_is_no_answer_of_the_owner_to_this_question_is_refused_and_counted() {
    let Lied { b, liar, known, .. } = Lied::new(patience()).await;
    let record = |pointer: Pointer| RunAnswer::Record(Box::new(Run { pointer, result: None, error: None }));
    let honest = record(known.clone());
    let earlier: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();

    let (keys, said, heard) = (liar.keys(), honest.clone(), Arc::clone(&earlier));
    liar.tell(move |_, question| {
        let sealed = message::seal_run_answer(&keys, question, &said);
        *heard.lock().expect("whole") = Some(sealed.clone());
        Some(sealed)
    });
    assert_eq!(b.all.run(engineer(), known.run).await.map(|run| run.pointer), Ok(known.clone()), "the rig answers");

    let replayed = earlier.lock().expect("whole").clone().expect("heard");
    liar.tell(move |_, _| Some(replayed.clone()));
    b.refuses(&known, "not_its_own_word", "an old answer").await;
    let events = RunAnswer::Events(Box::new(known.clone()), RunEvents { next: 1, count: 1, ..RunEvents::default() });
    for (what, answer) in [
        ("another run", record(pointer(&liar.id, 2))),
        ("a run of another", record(pointer(&b.id, 1))),
        ("another question's", events),
        ("only the pointer", RunAnswer::Pointer(Box::new(known.clone()))),
    ] {
        liar.repeat(answer);
        b.refuses(&known, "not_its_own_word", what).await;
    }
    let (stranger, said) = (keyring("s/l", "s/z"), honest.clone());
    liar.tell(move |_, question| Some(message::seal_run_answer(&stranger.keys(), question, &said)));
    b.refuses(&known, "not_its_own_word", "another key").await;
    let (stranger, said) = (keyring("s/z", "s/z"), honest);
    liar.tell(move |_, question| Some(message::seal_run_answer(&stranger.keys(), question, &said)));
    b.refuses(&known, "bad_delegation", "somebody else").await;
    liar.tell(|_, _| Some(b"{}".to_vec()));
    b.refuses(&known, "malformed", "no message").await;
}

/// Who says nothing has not said that it does not know the run.
#[tokio::test]
async fn a_run_of_which_not_everybody_was_heard_is_not_called_unknown() {
    let Lied { b, liar, .. } = Lied::new(patience()).await;
    let run = pointer(&liar.id, 2).run;
    liar.tell(|_, _| None);
    assert_eq!(in_time(b.all.run(engineer(), run)).await, Err(Absent::Unanswered));
    liar.repeat(RunAnswer::Unknown);
    assert_eq!(in_time(b.all.run(engineer(), run)).await, Err(Absent::Unknown));
}

/// A page of events must continue what was read, and be of the run that was asked for.
#[tokio::test]
async fn events_with_a_gap_or_of_another_run_are_refused() {
    let Lied { b, liar, known, .. } = Lied::new(patience()).await;
    let (run, other) = (known.run, pointer(&liar.id, 2).run);
    let events = |indexes: &[u64]| indexes.iter().map(|index| log(run, *index, "on")).collect::<Vec<_>>();
    let page_of = |events, next| {
        RunAnswer::Events(Box::new(known.clone()), RunEvents { events, next, count: 9, is_ended: false })
    };
    let both = RunEvents { events: events(&[0, 1]), next: 2, count: 9, is_ended: false };
    let of_another = RunAnswer::Events(Box::new(pointer(&liar.id, 2)), both);
    for (what, answer, is_taken) in [
        ("the log", page_of(events(&[0, 1]), 2), true),
        ("a gap", page_of(events(&[0, 2]), 3), false),
        ("not the beginning", page_of(events(&[1]), 2), false),
        ("twice the same", page_of(events(&[0, 0]), 2), false),
        ("another run", page_of(vec![log(other, 0, "on")], 1), false),
        ("more than was asked for", page_of(events(&[0, 1, 2]), 3), false),
        ("standing still", page_of(Vec::new(), 0), false),
        ("to go on behind one that was left out", page_of(events(&[0, 1]), 3), false),
        ("said of another run", of_another, false),
    ] {
        let before = b.refused("not_its_own_word");
        liar.repeat(answer);
        let read = b.all.events(engineer(), page(run, None, 2)).await;
        assert_eq!(read.is_ok(), is_taken, "{what}: {read:?}");
        assert_eq!(b.refused("not_its_own_word") - before, u64::from(!is_taken), "{what}");
    }
}

#[tokio::test]
async fn a_runtime_speaks_for_its_own_runs_alone() {
    let hub = Hub::new().expect("a hub");
    let (a, b) = (Member::join(&hub, "s/a", Kept::new()).await, Member::join(&hub, "s/b", Kept::new()).await);
    a.sees(&b.id).await;
    b.sees(&a.id).await;
    let of_a = a.begin(1).await;
    b.knows(of_a.run, false).await;
    let liar = Liar::join(&hub, "s/l").await;
    let (own, keys) = (pointer(&liar.id, 3), liar.keys());
    let claims = vec![
        PointerNews::Put(pointer(&a.id, 2)),
        PointerNews::Put(Pointer { owner: liar.id.clone(), ..of_a.clone() }),
        PointerNews::Forgotten(of_a.run),
        PointerNews::Put(own.clone()),
    ];
    liar.tell(move |verb, question: Hash| {
        let changes = claims.clone();
        let page = PointersPage { is_restart: false, changes, number: 4, floor: 0, has_more: false };
        (verb == Verb::Pointers).then(|| message::seal_pointers(&keys, question, &page))
    });
    b.sees_liar(&liar, Some(4)).await;
    b.knows(own.run, false).await;
    assert_eq!(b.kept.runs.lookup(of_a.run).await.expect("reads"), Some(of_a), "still of a");
    assert_eq!(b.kept.runs.lookup(pointer(&a.id, 2).run).await.expect("reads"), None);
    assert_eq!(b.refused("run_of_another"), 1, "counted once: it is not asked again");
    assert_eq!(b.refused("run_claimed_twice"), 1, "what is not believed is not passed over in silence");
}

impl Member {
    async fn sees_liar(&self, liar: &Liar, runs_head: Option<u64>) {
        let mut sequences = 1..;
        let sees = async || {
            liar.speak(sequences.next().expect("endless"), runs_head).await;
            self.sees_now(&liar.id)
        };
        until("the liar is heard", sees).await;
    }

    async fn refuses(&self, known: &Pointer, reason: &str, what: &str) {
        let before = self.refused(reason);
        let answer = in_time(self.all.run(engineer(), known.run)).await;
        assert_eq!(answer, Err(Absent::OwnerUnreachable(Box::new(known.clone()))), "{what}");
        assert_eq!(self.refused(reason), before.saturating_add(1), "{what}");
    }
}
