//! Runs of a whole node over a store, a mesh and programs in memory.

mod faults;
mod full;
mod oldest;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::domain::action::Action;
use crate::domain::code::Code;
use crate::domain::envelope::Response;
use crate::domain::identity::Role;
use crate::domain::offer::{Agent, Offer};
use crate::domain::run::{Event, Kind, Run, RunId, Status};
use crate::engine::input::Invoke;
use crate::engine::view::Settings as EngineSettings;
use crate::handle::runs::{Absent, EventsAsked, Follower, Next, Started};
use crate::handle::{Failure, Request};
use crate::metrics::Reading;
use crate::node::Node;
use crate::node::tests::{engineer, parsed, settings, start_without_files};
use crate::store::memory::MemoryStore;
use crate::store::runs::memory::MemoryRuns;
use crate::store::{self, Store as _};
use crate::workload::memory::{Memory, Script};

/// A node that offers the agent `it`, the command `it`, and what they run.
struct Stage {
    node: Node,
    store: MemoryStore,
    runs: Arc<MemoryRuns>,
    programs: Memory,
    asked: AtomicUsize,
}

const DEADLINE: Duration = Duration::from_secs(20);

impl Stage {
    async fn new(script: Script, timeout: Millis) -> Self {
        Self::over(MemoryStore::new(), Arc::new(MemoryRuns::new(50)), script, timeout).await
    }

    async fn over(store: MemoryStore, runs: Arc<MemoryRuns>, script: Script, timeout: Millis) -> Self {
        let run_store = Arc::<MemoryRuns>::clone(&runs);
        Self::over_faulty(store, runs, run_store, (script, timeout)).await
    }

    /// Over a run store that may fail where its content does not.
    async fn over_faulty(
        store: MemoryStore,
        runs: Arc<MemoryRuns>,
        run_store: Arc<dyn RunStore>,
        (script, timeout): (Script, Millis),
    ) -> Self {
        let programs = Memory::default();
        programs.put("it", script);
        let declared = Declared { program: Program { path: "it".into(), ..Program::default() }, timeout };
        let names = [AgentName::of_agent(&parsed("it")), AgentName::of_command(&parsed("it"))];
        let registry: Arc<dyn Registry> = Arc::<MemoryRuns>::clone(&runs);
        let outside = Outside {
            store: run_store,
            registry,
            launcher: Arc::new(programs.clone()),
            declared: names.map(|name| (name, declared.clone())).into(),
        };
        let offer = Offer {
            has_workload: false,
            commands: [(parsed("it"), Role::Operator)].into(),
            agents: [(parsed("it"), Agent { role: Role::Operator, webhook: true })].into(),
        };
        let settings = Arc::new(EngineSettings { offer, ..(*settings()).clone() });
        let node = start_without_files(settings, store.clone(), outside).await;
        Self { node, store, runs, programs, asked: AtomicUsize::new(0) }
    }

    async fn start(&self, payload: &str) -> Result<RunId, Failure> {
        self.started(payload).await.map(|started| started.run)
    }

    async fn started(&self, payload: &str) -> Result<Started, Failure> {
        let invoke = Invoke {
            agent: parsed("it"),
            instance: parsed("i1"),
            payload: payload.to_owned(),
            is_streamed: payload.contains("streamed"),
        };
        timeout(DEADLINE, self.node.runs().start(engineer(), invoke)).await.expect("an answer")
    }

    /// Everything that a follower is given, to the end.
    async fn follow(&self, run: RunId) -> Vec<Event> {
        let runs = self.node.runs();
        let mut follower = runs.follow(engineer(), run, None).await.expect("known");
        let (seen, is_whole) = read(&mut *follower).await;
        assert!(is_whole, "{run} is gone after {seen:?}");
        seen
    }

    async fn run(&self, run: RunId) -> Result<Run, Absent> {
        self.node.runs().run(engineer(), run).await
    }

    async fn dispatch(&self, command: &str, params: &[(&str, String)]) -> Result<Response, Code> {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let request = Request {
            asker: engineer(),
            request_id: parsed(&format!("{command}-{}", self.asked.fetch_add(1, Ordering::SeqCst))),
            action: Action::cmd_invoke(command, params).expect("legal"),
            targets: vec![parsed("s/a")],
            budget: Millis(5_000),
            planned: None,
        };
        let dispatched = self.node.operations().dispatch(request).await.expect("carried out");
        let [outcome] = dispatched.outcomes.try_into().expect("one target");
        outcome.result.map_err(|denial| denial.code)
    }

    /// How many runs have ended in this life by its metrics: with a result, and with an error.
    fn ended(&self) -> [u64; 2] {
        let text = self.node.operations().metrics().expose(&Reading::default()).expect("written");
        ["completed", "errored"].map(|result| {
            let series = format!("trust_runtime_runs_ended_total{{result=\"{result}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).expect("from the start")
        })
    }

    /// Until nothing is open: the end of a run is told to the engine after it is in the store.
    async fn await_closed(&self) {
        let closed = async {
            while !self.node.operations().view().runs.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, closed).await.expect("the engine forgets it");
    }
}

/// What is left to read, and whether that is all there was.
async fn read(follower: &mut dyn Follower) -> (Vec<Event>, bool) {
    let mut seen = Vec::new();
    loop {
        match timeout(DEADLINE, follower.next()).await.expect("something").expect("readable") {
            Next::Events(events) => seen.extend(events),
            Next::End => return (seen, true),
            Next::Gone => return (seen, false),
        }
    }
}

fn kinds(events: &[Event]) -> Vec<Kind> {
    events.iter().map(|event| event.kind).collect()
}

fn is_gapless(events: &[Event]) -> bool {
    events.iter().zip(0..).all(|(event, index)| event.index == index)
}

#[tokio::test]
async fn a_run_is_told_from_its_start_to_its_end_and_brings_its_result() {
    let stage = Stage::new(Script::Echoes, Millis(10_000)).await;
    let run = stage.start(r#"{"type":"result","value":{"a":1}}"#).await.expect("started");
    let events = stage.follow(run).await;
    assert_eq!(kinds(&events), [Kind::RunStart, Kind::RunEnd]);
    let kept = stage.run(run).await.expect("known");
    assert_eq!((kept.pointer.status(), kept.result.as_deref()), (Status::Completed, Some(r#"{"a":1}"#)));
    stage.await_closed().await;

    let streamed = stage.start(r#"{"type":"text_delta","text":"streamed"}"#).await.expect("started");
    let events = stage.follow(streamed).await;
    assert_eq!(kinds(&events), [Kind::RunStart, Kind::TextDelta, Kind::Idle, Kind::RunEnd]);
    assert!(is_gapless(&events));
    let failed = stage.start(r#"{"type":"error","name":"Bad","message":"no"}"#).await.expect("started");
    stage.follow(failed).await;
    let kept = stage.run(failed).await.expect("known");
    assert_eq!((kept.pointer.status(), kept.result), (Status::Errored, None));
    assert_eq!(kept.error.as_deref(), Some(r#"{"message":"no","name":"Bad"}"#));
}

#[tokio::test]
async fn a_program_that_fails_ends_its_run_with_the_reason() {
    let stage = Stage::new(Script::Ends(3), Millis(10_000)).await;
    let run = stage.start("{}").await.expect("started");
    stage.follow(run).await;
    let error = stage.run(run).await.expect("known").error.expect("an error");
    assert_eq!(error, r#"{"message":"the program ended with 3","name":"ExitError"}"#);
}

#[tokio::test]
async fn a_run_that_takes_too_long_or_is_cancelled_ends_with_that_name() {
    for (script, limit, name) in
        [(Script::Waits, 50, "Timeout"), (Script::IsStubborn, 50, "Timeout"), (Script::Waits, 600_000, "Cancelled")]
    {
        let stage = Stage::new(script, Millis(limit)).await;
        let Ok(Response::Started { run }) = stage.dispatch("it", &[]).await else { panic!("{name}") };
        if name == "Cancelled" {
            let answer = stage.dispatch("cancel", &[("run_id", format!("\"{run}\""))]).await;
            assert_eq!(answer, Ok(Response::Cancelling { run }));
        }
        let events = stage.follow(run).await;
        assert!(is_gapless(&events));
        assert_eq!(events.last().map(|event| event.kind), Some(Kind::RunEnd));
        let kept = stage.run(run).await.expect("known");
        assert_eq!(kept.pointer.agent.as_str(), "cmd.it");
        assert!(kept.error.as_ref().is_some_and(|error| error.contains(name)), "{kept:?}");
        stage.await_closed().await;
        assert_eq!(stage.dispatch("cancel", &[("run_id", format!("\"{run}\""))]).await, Err(Code::ContractViolation));
    }
}

#[tokio::test]
async fn a_run_that_cannot_be_written_is_refused_and_leaves_nothing() {
    let stage = Stage::new(Script::Echoes, Millis(10_000)).await;
    stage.runs.set_fault(Some(store::Error::NoSpace { place: "runs.db".to_owned(), is_at_the_end: false }));
    let refused = stage.start("{}").await.expect_err("no space");
    assert_eq!(refused.code, Code::StorageUnavailable);
    stage.await_closed().await;
    assert_eq!(stage.programs.starts(), 0);
    stage.runs.set_fault(None);
    assert!(
        stage
            .node
            .runs()
            .list(crate::handle::runs::RunsAsked { limit: 10, ..Default::default() })
            .await
            .expect("readable")
            .pointers
            .is_empty()
    );
    stage.follow(stage.start("{}").await.expect("there is space again")).await;
}

fn full() -> Option<store::Error> {
    Some(store::Error::NoSpace { place: "runs.db".to_owned(), is_at_the_end: false })
}

#[tokio::test]
async fn a_command_whose_run_waits_for_space_is_known_at_once_and_never_begins_once_it_was_cancelled() {
    let stage = Stage::new(Script::Echoes, Millis(10_000)).await;
    stage.runs.set_fault(full());
    let Ok(Response::Started { run }) = stage.dispatch("it", &[]).await else { panic!("accepted") };
    let fault = stage.node.runs().fault().expect("said");
    assert!(fault.is_passing && fault.reason.contains("runs.db"), "{fault:?}");
    let known = stage.run(run).await.expect("its name was given out");
    assert_eq!((known.pointer.status(), known.pointer.agent.as_str()), (Status::Active, "cmd.it"));
    let asked = EventsAsked { run, after: None, kinds: None, limit: 10 };
    assert_eq!(stage.node.runs().events(engineer(), asked).await, Ok(Vec::new()));
    let cancelled = stage.dispatch("cancel", &[("run_id", format!("\"{run}\""))]).await;
    assert_eq!(cancelled, Ok(Response::Cancelling { run }));
    stage.runs.set_fault(None);
    let events = stage.follow(run).await;
    assert_eq!(kinds(&events), [Kind::RunStart, Kind::RunEnd]);
    let kept = stage.run(run).await.expect("known");
    assert!(kept.error.as_ref().is_some_and(|error| error.contains("Cancelled")), "{kept:?}");
    stage.await_closed().await;
    assert_eq!(stage.programs.starts(), 0, "it is not done late");
    assert_eq!(stage.node.runs().fault(), None);
}

#[tokio::test]
async fn a_command_whose_run_finds_no_space_in_its_time_is_not_begun_when_there_is_some() {
    let stage = Stage::new(Script::Echoes, Millis(1)).await;
    stage.runs.set_fault(full());
    let Ok(Response::Started { run }) = stage.dispatch("it", &[]).await else { panic!("accepted") };
    let mut follower = stage.node.runs().follow(engineer(), run, None).await.expect("accepted");
    assert!(timeout(Duration::from_millis(500), follower.next()).await.is_err(), "it has no beginning");
    drop(follower);
    stage.runs.set_fault(None);
    stage.follow(run).await;
    let kept = stage.run(run).await.expect("known");
    assert!(kept.error.as_ref().is_some_and(|error| error.contains("NotStarted")), "{kept:?}");
    assert_eq!(stage.programs.starts(), 0);
    stage.await_closed().await;
    assert_eq!(stage.ended(), [0, 1]);
}

#[tokio::test]
async fn a_store_of_runs_that_is_broken_takes_no_more_and_leaves_what_it_owes_to_the_next_start() {
    let stage = Stage::new(Script::Echoes, Millis(10_000)).await;
    stage.runs.set_fault(Some(store::Error::Broken { place: "runs.db".to_owned(), reason: "bad sector".to_owned() }));
    let Ok(Response::Started { run }) = stage.dispatch("it", &[]).await else { panic!("accepted") };
    let refused = async {
        while stage.dispatch("it", &[]).await != Err(Code::StorageUnavailable) {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, refused).await.expect("the engine hears of it");
    assert!(stage.node.runs().fault().is_some_and(|fault| !fault.is_passing));
    assert_eq!(stage.start("{}").await.map_err(|failure| failure.code), Err(Code::StorageUnavailable));
    assert_eq!(stage.programs.starts(), 0);

    let (store, runs) = (stage.store.clone(), Arc::new(stage.runs.crash()));
    runs.set_fault(None);
    let after = Stage::over(store, runs, Script::Echoes, Millis(10_000)).await;
    let events = after.follow(run).await;
    assert_eq!(kinds(&events), [Kind::RunStart, Kind::RunEnd], "what was promised has an end");
}

#[tokio::test]
async fn a_run_ends_with_its_program_whoever_holds_its_streams() {
    let stage = Stage::new(Script::LeavesHolder, Millis(600_000)).await;
    let run = stage.start("{\"type\":\"result\",\"value\":{\"a\":1}}\n").await.expect("started");
    let events = stage.follow(run).await;
    assert_eq!(events.last().map(|event| event.kind), Some(Kind::RunEnd));
    let kept = stage.run(run).await.expect("known");
    assert_eq!((kept.pointer.status(), kept.result.as_deref()), (Status::Completed, Some(r#"{"a":1}"#)));
}

#[tokio::test]
async fn a_result_that_is_too_long_for_a_line_is_an_error_and_not_no_result() {
    let stage = Stage::new(Script::Echoes, Millis(10_000)).await;
    let payload = format!(r#"{{"type":"result","value":"{}"}}"#, "x".repeat(600 * 1024));
    let run = stage.start(&payload).await.expect("started");
    stage.follow(run).await;
    let kept = stage.run(run).await.expect("known");
    assert!(kept.error.as_ref().is_some_and(|error| error.contains("OutputLimit")), "{:?}", kept.error);
    let text = format!("\"{}\"", "x".repeat(600 * 1024));
    let run = stage.start(&text).await.expect("started");
    stage.follow(run).await;
    assert_eq!(stage.run(run).await.expect("known").pointer.status(), Status::Completed, "a long line for people");
}

#[tokio::test]
async fn a_full_disk_in_the_middle_of_a_run_loses_nothing_of_it() {
    let stage = Stage::new(Script::Counts, Millis(10_000)).await;
    let run = stage.start("{}").await.expect("started");
    let runs = stage.node.runs();
    let mut follower = runs.follow(engineer(), run, None).await.expect("known");
    let mut seen = Vec::new();
    let mut take = async |seen: &mut Vec<Event>| match follower.next().await.expect("readable") {
        Next::Events(events) => seen.extend(events),
        Next::End | Next::Gone => panic!("{seen:?}"),
    };
    while seen.len() < 20 {
        timeout(DEADLINE, take(&mut seen)).await.expect("it counts");
    }
    stage.runs.set_fault(Some(store::Error::NoSpace { place: "runs.db".to_owned(), is_at_the_end: false }));
    // What is durable still comes, and then nothing.
    while timeout(Duration::from_millis(200), take(&mut seen)).await.is_ok() {}
    stage.runs.set_fault(None);
    let held_up_at = seen.len();
    while seen.len() < held_up_at + 20 {
        timeout(DEADLINE, take(&mut seen)).await.expect("it goes on");
    }
    assert!(is_gapless(&seen), "{seen:?}");
    assert!(matches!(
        stage.dispatch("cancel", &[("run_id", format!("\"{run}\""))]).await,
        Ok(Response::Cancelling { .. })
    ));
    let all = stage.follow(run).await;
    assert!(is_gapless(&all));
    let counted = all.iter().filter(|event| event.kind == Kind::Log).zip(0_u64..);
    for (event, number) in counted {
        assert!(
            event.body.contains(&format!("\"{number}\"")) || event.body.contains(&format!("\"{}\"", number + 1)),
            "{event:?}"
        );
    }
}

/// Contract, RR-82.
#[tokio::test]
async fn a_start_gives_an_end_to_what_a_crash_left_open() {
    let stage = Stage::new(Script::Waits, Millis(600_000)).await;
    let told = stage.start("{}").await.expect("started");
    let runs = stage.node.runs();
    let mut follower = runs.follow(engineer(), told, None).await.expect("known");
    while !matches!(follower.next().await, Ok(Next::Events(events)) if events.iter().any(|it| it.kind == Kind::Log)) {}
    // As a kill leaves it: both stores as they are, and nobody who runs anything.
    let (store, runs) = (stage.store.clone(), Arc::new(stage.runs.crash()));
    let after = Stage::over(store, runs, Script::Waits, Millis(600_000)).await;
    let events = after.follow(told).await;
    assert!(is_gapless(&events));
    assert_eq!(events.last().map(|event| event.kind), Some(Kind::RunEnd));
    let kept = after.run(told).await.expect("known");
    assert!(kept.error.as_ref().is_some_and(|error| error.contains("Interrupted")), "{kept:?}");
    after.await_closed().await;
    assert_eq!(after.programs.starts(), 0, "nothing is done a second time by itself");
    drop(after.store.close());
}

#[tokio::test]
async fn a_run_that_a_start_ends_is_counted_in_that_life_and_in_no_other() {
    let stage = Stage::new(Script::Waits, Millis(600_000)).await;
    stage.start("{}").await.expect("started");
    let open = || MemoryStore::on(stage.store.with_disk(|disk| disk.clone()));
    let [both, engine, nobody] = [open(), open(), MemoryStore::new()];
    let next = async |store, runs: &MemoryRuns| {
        let next = Stage::over(store, Arc::new(runs.crash()), Script::Waits, Millis(600_000)).await;
        next.await_closed().await;
        next
    };
    // Both stores know that it is open, and then the engine's alone, which was not told of its end.
    let first = next(both, &stage.runs).await;
    assert_eq!(first.ended(), [0, 1]);
    let second = next(engine, &first.runs).await;
    assert_eq!(second.ended(), [0, 0]);

    // Only the store of runs knows it, so that no engine waits for its end.
    let stage = Stage::new(Script::Waits, Millis(600_000)).await;
    stage.start("{}").await.expect("started");
    let last = next(nobody, &stage.runs).await;
    let counted = async {
        while last.ended() != [0, 1] {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, counted).await.expect("counted");
}

#[tokio::test]
async fn a_stop_ends_the_programs_and_their_runs() {
    let stage = Stage::new(Script::Waits, Millis(600_000)).await;
    let run = stage.start("{}").await.expect("started");
    let Stage { node, runs, programs, .. } = stage;
    node.shutdown().await;
    assert_eq!(programs.running(), 0);
    let after = runs.crash();
    let kept = RunStore::run(&after, run).await.expect("readable").expect("known");
    assert!(kept.error.as_ref().is_some_and(|error| error.contains("Interrupted")), "{kept:?}");
}

#[tokio::test]
async fn an_unknown_run_is_unknown_however_it_is_asked_for() {
    let stage = Stage::new(Script::Echoes, Millis(10_000)).await;
    let run = RunId::new(crate::domain::time::Wall(1), [1; 10]);
    assert_eq!(stage.run(run).await, Err(Absent::Unknown));
    let asked = EventsAsked { run, after: None, kinds: None, limit: 10 };
    assert_eq!(stage.node.runs().events(engineer(), asked).await, Err(Absent::Unknown));
    assert_eq!(stage.node.runs().follow(engineer(), run, None).await.map(drop), Err(Absent::Unknown));
}
