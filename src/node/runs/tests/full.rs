//! A disk that is full, and those who wait for a run meanwhile: told in time, and never shown what is not durable.

use super::faults::{Faulty, over, until};
use super::*;

/// What is left to read until the reader is told that nothing more can be written.
async fn told(follower: &mut dyn Follower) -> Vec<Event> {
    let mut seen = Vec::new();
    loop {
        match timeout(DEADLINE, follower.next()).await.expect("a word in time") {
            Ok(Next::Events(events)) => seen.extend(events),
            Err(Absent::HeldUp) => return seen,
            other => panic!("{other:?} after {seen:?}"),
        }
    }
}

impl Stage {
    async fn follower(&self, run: RunId) -> Box<dyn Follower> {
        let runs = self.node.runs();
        timeout(Duration::from_secs(2), runs.follow(engineer(), run, None)).await.expect("at once").expect("known")
    }
}

fn broken() -> Option<store::Error> {
    Some(store::Error::Broken { place: "runs.db".to_owned(), reason: "bad sector".to_owned() })
}

#[tokio::test]
async fn who_waits_for_a_run_whose_end_cannot_be_written_is_told_so_in_time() {
    for (fault, comes_back) in [(full(), true), (broken(), false)] {
        let stage = Stage::new(Script::Waits, Millis(500)).await;
        let Started { run, events, ended } = stage.started(r#"{"text":"streamed"}"#).await.expect("started");
        let mut early = events.expect("it is followed");
        let mut elsewhere = stage.follower(run).await;
        let Ok(Next::Events(first)) = early.next().await else { panic!("its start") };
        stage.runs.set_fault(fault);
        assert_eq!(timeout(DEADLINE, ended).await.expect("a word in time"), Err(Absent::HeldUp));
        let seen = [first.to_vec(), told(&mut *early).await].concat();
        assert_eq!(told(&mut *elsewhere).await, seen);
        // Whoever comes later has what is durable, and the same word without another wait.
        let mut late = stage.follower(run).await;
        assert_eq!(timeout(Duration::from_secs(2), told(&mut *late)).await.expect("at once"), seen);
        assert!(seen.iter().all(|event| event.kind != Kind::RunEnd) && seen.first().is_some_and(|it| it.index == 0));
        assert_eq!(stage.run(run).await.expect("known").pointer.status(), Status::Active, "an end that is not durable");
        assert_eq!(stage.programs.running(), 0);
        stage.runs.set_fault(None);
        if comes_back {
            let all = stage.follow_when_written(run).await;
            assert!(is_gapless(&all) && all.starts_with(&seen), "{all:?}");
            let error = stage.run(run).await.expect("known").error.expect("an error");
            assert!(error.contains("Timeout"), "{error}");
        }
    }
}

#[tokio::test]
async fn who_follows_a_run_that_finds_no_space_to_begin_is_let_in_at_once_and_told_so_in_time() {
    let stage = Stage::new(Script::Echoes, Millis(600_000)).await;
    stage.runs.set_fault(full());
    let Ok(Response::Started { run }) = stage.dispatch("it", &[]).await else { panic!("accepted") };
    let mut waits = stage.follower(run).await;
    assert_eq!(told(&mut *waits).await, []);
    let mut goes_on = stage.follower(run).await;
    assert_eq!(told(&mut *goes_on).await, []);
    let mut behind = stage.node.runs().follow(engineer(), run, Some(0)).await.expect("accepted");
    stage.runs.set_fault(None);
    assert_eq!(kinds(&stage.follow_when_written(run).await), [Kind::RunStart, Kind::Log, Kind::RunEnd]);
    let (rest, is_whole) = read(&mut *behind).await;
    assert!(is_whole);
    assert_eq!(rest.first().map(|event| event.index), Some(1), "a place that was taken before the beginning is kept");
}

impl Stage {
    /// The run of one who asks again for as long as it is told to.
    async fn follow_when_written(&self, run: RunId) -> Vec<Event> {
        let mut seen = Vec::new();
        let asking = async {
            loop {
                let mut follower = self.follower(run).await;
                loop {
                    match follower.next().await {
                        Ok(Next::Events(events)) => seen.extend(events),
                        Ok(Next::End) => return seen,
                        Err(Absent::HeldUp) => break,
                        other => panic!("{other:?}"),
                    }
                }
                seen.clear();
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, asking).await.expect("it is written")
    }
}

#[tokio::test]
async fn who_follows_what_an_earlier_life_left_open_is_told_so_while_the_disk_is_full() {
    let stage = Stage::new(Script::Waits, Millis(600_000)).await;
    let left = [stage.start("{}").await.expect("started"), stage.start("{}").await.expect("started")];
    let (store, runs) = (stage.store.clone(), Arc::new(stage.runs.crash()));
    runs.set_fault(full());
    let after = Stage::over(store, runs, Script::Waits, Millis(600_000)).await;
    for run in left {
        let seen = told(&mut *after.follower(run).await).await;
        assert!(is_gapless(&seen) && seen.iter().all(|event| event.kind != Kind::RunEnd), "{seen:?}");
    }
    after.runs.set_fault(None);
    for run in left {
        let all = after.follow_when_written(run).await;
        let end = all.last().expect("an end");
        assert!(end.kind == Kind::RunEnd && end.body.contains("before the end of the run was written"), "{end:?}");
    }
}

#[tokio::test]
async fn a_stop_writes_the_true_end_of_a_run_that_has_waited_for_space() {
    for is_free in [true, false] {
        let faulty = Faulty::new(&Arc::new(MemoryRuns::new(50)), None);
        let stage = over(&faulty, MemoryStore::new(), Script::Waits).await;
        let run = stage.start("{}").await.expect("started");
        stage.runs.set_fault(full());
        let cancelled = stage.dispatch("cancel", &[("run_id", format!("\"{run}\""))]).await;
        assert_eq!(cancelled, Ok(Response::Cancelling { run }));
        until(|| faulty.ends.load(Ordering::SeqCst) == 1).await;
        if is_free {
            stage.runs.set_fault(None);
        }
        let Stage { node, runs, store, .. } = stage;
        node.shutdown().await;
        let (store, runs) = (MemoryStore::on(store.crash()), Arc::new(runs.crash()));
        let kept = RunStore::run(&*runs, run).await.expect("readable").expect("known");
        let said = |kept: &Run, text: &str| kept.error.as_ref().is_some_and(|error| error.contains(text));
        assert_eq!(said(&kept, "Cancelled"), is_free, "{kept:?}");
        runs.set_fault(None);
        let after = Stage::over(store, runs, Script::Waits, Millis(600_000)).await;
        after.follow(run).await;
        let kept = after.run(run).await.expect("known");
        let wanted = if is_free { "Cancelled" } else { "the runtime stopped before the end of the run was written" };
        assert!(said(&kept, wanted), "{kept:?}");
    }
}
