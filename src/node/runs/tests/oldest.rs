//! Runs that began before all that are kept, and so are forgotten by their own end (contract, RR-60).

use super::faults::Faulty;
use super::*;
use crate::store::memory::Fault;

/// A node that keeps one finished run of each instance, where behind each run that begins another one begins and ends.
async fn crowded(script: Script, timeout: Millis) -> Stage {
    let runs = Arc::new(MemoryRuns::new(1));
    let faulty = Faulty::new(&runs, None);
    faulty.crowds.store(true, Ordering::SeqCst);
    Stage::over_faulty(MemoryStore::new(), runs, faulty, (script, timeout)).await
}

impl Stage {
    async fn assert_forgotten(&self, run: RunId) {
        self.await_closed().await;
        assert_eq!(RunStore::is_forgotten(&*self.runs, run).await, Ok(true));
        assert_eq!(self.run(run).await, Err(Absent::Unknown));
    }
}

#[tokio::test]
async fn who_has_started_a_run_is_told_how_it_ended_though_it_is_forgotten_by_that() {
    let stage = crowded(Script::Echoes, Millis(10_000)).await;
    // Longer than an event: it is not taken from the last one.
    let result = format!("\"{}\"", "x".repeat(400 * 1024));
    let said = format!("{{\"type\":\"result\",\"value\":{result}}}");
    let Started { run, events, ended } = stage.started(&said).await.expect("started");
    assert!(events.is_none());
    let ended = timeout(DEADLINE, ended).await.expect("an end").expect("written");
    assert_eq!((ended.pointer.run, ended.pointer.status()), (run, Status::Completed));
    assert!(ended.result == Some(result) && ended.error.is_none());
    stage.assert_forgotten(run).await;

    let Started { run, ended, .. } =
        stage.started(r#"{"type":"error","name":"Bad","message":"no"}"#).await.expect("it");
    let ended = timeout(DEADLINE, ended).await.expect("an end").expect("written");
    assert_eq!((ended.pointer.status(), ended.result), (Status::Errored, None));
    assert_eq!(ended.error.as_deref(), Some(r#"{"message":"no","name":"Bad"}"#));
    stage.assert_forgotten(run).await;
}

/// Its name is an answer, whatever became of the run meanwhile.
#[tokio::test]
async fn who_does_not_wait_for_a_run_is_told_its_name_though_it_is_forgotten() {
    let stage = crowded(Script::Ends(0), Millis(10_000)).await;
    for _ in 0..20 {
        let run = stage.start("{}").await.expect("accepted");
        stage.assert_forgotten(run).await;
    }
    let Ok(Response::Started { run }) = stage.dispatch("it", &[]).await else { panic!("accepted") };
    stage.assert_forgotten(run).await;
}

#[tokio::test]
async fn who_follows_a_run_from_its_start_reads_it_to_its_end_though_it_is_forgotten() {
    let stage = crowded(Script::Echoes, Millis(10_000)).await;
    let said = r#"{"type":"text_delta","text":"streamed"}"#;
    let Started { run, events, .. } = stage.started(said).await.expect("started");
    stage.assert_forgotten(run).await;
    let (seen, is_whole) = read(&mut *events.expect("it is followed")).await;
    assert!(is_whole);
    assert_eq!(kinds(&seen), [Kind::RunStart, Kind::TextDelta, Kind::Idle, Kind::RunEnd]);
    // More than is in memory, and nobody who reads meanwhile.
    let many = vec![said; 1_000].join("\n");
    let Started { run, events, ended } = stage.started(&many).await.expect("started");
    stage.assert_forgotten(run).await;
    let (seen, is_whole) = read(&mut *events.expect("it is followed")).await;
    assert!(!is_whole && is_gapless(&seen), "the history is trimmed, and that is said: {}", seen.len());
    assert_eq!(timeout(DEADLINE, ended).await.expect("an end").expect("written").pointer.status(), Status::Completed);
}

/// Who follows a run of a command, or of somebody else, has a place before it ends.
#[tokio::test]
async fn who_follows_a_run_when_it_ends_reads_it_to_its_end_though_it_is_forgotten() {
    let stage = crowded(Script::Waits, Millis(600_000)).await;
    let Ok(Response::Started { run }) = stage.dispatch("it", &[]).await else { panic!("accepted") };
    let mut follower = stage.node.runs().follow(engineer(), run, None).await.expect("known");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match timeout(DEADLINE, follower.next()).await.expect("something").expect("readable") {
            Next::Events(events) => seen.extend(events),
            Next::End | Next::Gone => panic!("it waits: {seen:?}"),
        }
    }
    let cancelled = stage.dispatch("cancel", &[("run_id", format!("\"{run}\""))]).await;
    assert_eq!(cancelled, Ok(Response::Cancelling { run }));
    let (rest, is_whole) = read(&mut *follower).await;
    seen.extend(rest);
    assert!(is_whole && is_gapless(&seen), "{seen:?}");
    assert!(seen.last().is_some_and(|event| event.kind == Kind::RunEnd && event.body.contains("Cancelled")));
    stage.assert_forgotten(run).await;
}

/// It is open until the engine has heard of its end, which takes as long as its disk is full.
#[tokio::test]
async fn a_run_that_is_forgotten_is_unknown_also_while_the_engine_has_not_heard_of_its_end() {
    let stage = crowded(Script::Waits, Millis(500)).await;
    let run = stage.start("{}").await.expect("started");
    stage.store.with_disk(|disk| (0..100).for_each(|_| disk.inject(Fault::NoSpace)));
    assert_eq!(stage.run(run).await.map(|run| run.pointer.status()), Ok(Status::Active));
    let forgotten = async {
        while RunStore::is_forgotten(&*stage.runs, run).await != Ok(true) {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, forgotten).await.expect("it ends");
    assert_eq!(stage.run(run).await, Err(Absent::Unknown));
    let asked = EventsAsked { run, after: None, kinds: None, limit: 10 };
    assert_eq!(stage.node.runs().events(engineer(), asked).await, Err(Absent::Unknown));
    assert_eq!(stage.node.runs().follow(engineer(), run, None).await.map(drop), Err(Absent::Unknown));
    assert!(stage.node.operations().view().runs.contains_key(&run), "the engine has not heard of it yet");
}
