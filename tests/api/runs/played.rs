//! Runs over the stores in memory, whose agents are played: what they do is said here and not in a program.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::counted::Counted;
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;
use trust_runtime::domain::code::Code;
use trust_runtime::domain::preflight::Asker;
use trust_runtime::domain::run::{AgentName, End, Event, Instance, Kind, Pointer, Run, RunId};
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::engine::input::Invoke;
use trust_runtime::handle::runs::{
    Absent, EventsAsked, Fault, Follower, InstancePage, Next, RunPage, Runs, RunsAsked, Started,
};
use trust_runtime::handle::{Failure, Pending};
use trust_runtime::store::runs::feed::{Feeds, RunReader};
use trust_runtime::store::runs::memory::MemoryRuns;
use trust_runtime::store::runs::{
    AgentInstance, Change, EventsAsked as Asked, InstancesAsked, RUNS_KEPT, Registry, RunCursor, RunStore,
    RunsAsked as Listed, hub,
};
use trust_runtime::wire::run::{Frame, error_of, line, run_end, run_start, said};

/// What a reader is given at once.
pub(crate) const PAGE_BYTES: usize = 64 * 1024;

/// Runs whose agents are played.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) store: Arc<MemoryRuns>,
    /// How those who follow read the store.
    pub(crate) counted: Arc<Counted>,
    feeds: Arc<Feeds>,
    made: Arc<AtomicU64>,
    /// Whether whoever is followed from now on breaks off after the first page.
    pub(crate) is_breaking: Arc<AtomicBool>,
    /// Whether whoever is followed from now on breaks off before anything else.
    pub(crate) is_broken: Arc<AtomicBool>,
    /// Whether nothing more can be written of runs that have begun.
    pub(crate) is_held: Arc<AtomicBool>,
    /// Whether it has pointers alone.
    pub(crate) is_registry_only: AtomicBool,
    /// Whether the file of the runs is being checked.
    pub(crate) is_being_checked: AtomicBool,
    /// Runs that are elsewhere, and why they cannot be shown.
    pub(crate) away: Mutex<Vec<(RunId, Absent)>>,
}

impl Played {
    pub(crate) fn new() -> Arc<Self> {
        let store = Arc::new(MemoryRuns::new(RUNS_KEPT));
        let counted = Arc::new(Counted::new(store.clone()));
        let feeds = Feeds::new(counted.clone());
        let (made, is_breaking, is_broken, is_held) = Default::default();
        let (is_registry_only, is_being_checked, away) = Default::default();
        Arc::new(Self {
            store,
            counted,
            feeds,
            made,
            is_breaking,
            is_broken,
            is_held,
            is_registry_only,
            is_being_checked,
            away,
        })
    }

    /// A run that the test plays itself.
    pub(crate) async fn open(&self, agent: &str) -> Stage {
        let (agent, instance) = (agent.parse().unwrap(), "i1".parse().unwrap());
        let invoke = Invoke { agent, instance, payload: "{}".into(), is_streamed: false };
        let (run, _) = self.begin(&invoke).await.expect("begun");
        Stage { store: self.store.clone(), run, at: self.now(), index: 1, told: None }
    }

    fn reading(&self, reader: RunReader) -> Box<dyn Follower> {
        let (is_breaking, is_broken) = (self.is_breaking.clone(), self.is_broken.clone());
        Box::new(Reading { reader, is_breaking, is_broken, is_held: self.is_held.clone(), pages: 0 })
    }

    fn now(&self) -> Wall {
        Wall::from_millis(1_700_000_000_000 + self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// Gives a place in its log too, taken before there is one, where it is to be followed.
    async fn begin(&self, invoke: &Invoke) -> Result<(RunId, Option<RunReader>), Failure> {
        let at = self.now();
        let number = u128::from(at.as_millis()).to_be_bytes();
        let run = RunId::new(at, *number.last_chunk().unwrap());
        let pointer = Pointer {
            run,
            owner: "site-1/a".parse().unwrap(),
            agent: AgentName::of_agent(&invoke.agent),
            instance: invoke.instance.clone(),
            started: at,
            end: None,
        };
        let first = run_start(&pointer, &invoke.payload);
        let refused = |error: trust_runtime::store::runs::Refused| Failure {
            code: Code::StorageUnavailable,
            reason: error.to_string(),
        };
        let reader = invoke.is_streamed.then(|| self.feeds.reader_of_new(run));
        self.store.commit(vec![Change::Create { pointer, first }]).await.map_err(refused)?;
        Ok((run, reader))
    }
}

/// One run while it is played.
pub(crate) struct Stage {
    store: Arc<MemoryRuns>,
    pub(crate) run: RunId,
    at: Wall,
    index: u64,
    /// Who has started it and waits for its end.
    told: Option<oneshot::Sender<Run>>,
}

impl Stage {
    async fn say(&mut self, text: &Json) {
        let event = self.event(text, 0);
        self.append(event).await;
    }

    /// The event that comes so many behind the next one, which nobody has seen yet.
    pub(crate) fn event(&self, text: &Json, behind: u64) -> Event {
        let frame = Frame { run: self.run, index: self.index + behind, at: self.at };
        said(frame, line(text.to_string().as_bytes())).expect("an event")
    }

    /// Writes several at once.
    pub(crate) async fn append_all(&mut self, events: Vec<Event>) {
        self.index += events.len() as u64;
        self.store.commit(vec![Change::Append { run: self.run, events }]).await.expect("appended");
    }

    async fn append(&mut self, event: Event) {
        self.index += 1;
        self.store.commit(vec![Change::Append { run: self.run, events: vec![event] }]).await.expect("appended");
    }

    /// Says that nothing is under way.
    pub(crate) async fn idle(&mut self) {
        let body = json!({
            "type": "idle", "runId": self.run.to_string(), "eventIndex": self.index,
            "timestamp": trust_runtime::wire::run::iso(self.at),
        });
        let event = Event { index: self.index, kind: Kind::Idle, at: self.at, body: body.to_string().into() };
        self.append(event).await;
    }

    async fn end(&mut self, result: Option<String>, error: Option<String>) {
        let (end, last) = self.ending(result.as_deref(), error.as_deref());
        let own = Change::End { run: self.run, end, result: result.clone(), error: error.clone(), last };
        let mut pointer = self.store.lookup(self.run).await.unwrap().expect("begun");
        pointer.end = Some(end);
        self.store.commit(vec![own]).await.expect("ended");
        if let Some(told) = self.told.take() {
            drop(told.send(Run { pointer, result, error }));
        }
    }

    fn ending(&self, result: Option<&str>, error: Option<&str>) -> (End, Event) {
        let end = End { at: self.at, is_error: error.is_some(), duration: Millis(1) };
        (end, run_end(self.run, self.index, &end, result, error))
    }

    /// The last event of a run that ends well with nothing.
    pub(crate) fn last(&self) -> Event {
        self.ending(None, None).1
    }

    /// Ends it so.
    pub(crate) async fn close(&mut self) {
        self.end(None, None).await;
    }
}

/// What each agent of the contract's fixture does.
async fn play(mut stage: Stage, invoke: Invoke) {
    let payload: Json = serde_json::from_str(&invoke.payload).expect("JSON");
    let number = |name: &str| payload[name].as_u64().unwrap_or(3);
    let (mut result, mut error) = (None, None);
    match invoke.agent.as_str() {
        "hello" => result = Some(json!({ "greeting": "hello", "payload": payload }).to_string()),
        "boom" => error = Some(error_of("TypeError", "the secret of the house")),
        "many" | "slow" => {
            for tick in 0..number("n") {
                stage.say(&json!({ "type": "log", "level": "info", "message": format!("tick {tick}") })).await;
                if invoke.agent.as_str() == "slow" {
                    // waits: the agent is slow by its nature, and what is tested is who follows meanwhile.
                    tokio::time::sleep(Duration::from_millis(number("ms"))).await;
                }
            }
            result = Some("\"done\"".to_owned());
        }
        "big" => {
            let result = "r".repeat(400 * 1024);
            stage.say(&json!({ "type": "tool_call", "toolName": "t", "toolCallId": "1", "isError": false, "result": result, "durationMs": 1 })).await;
            stage.say(&json!({ "type": "log", "level": "info", "message": "m".repeat(300 * 1024) })).await;
        }
        _ => {}
    }
    if invoke.is_streamed {
        stage.idle().await;
    }
    stage.end(result, error).await;
}

/// Ends at once, and is forgotten by that: there is place for one run, and another one began later.
async fn crowded(mut stage: Stage, invoke: Invoke) {
    let mut pointer = stage.store.lookup(stage.run).await.unwrap().expect("begun");
    pointer.run = RunId::new(Wall(u64::MAX), [0xff; 10]);
    pointer.started = Wall(pointer.started.0 + 3_600_000_000_000);
    let (run, first, end) = (pointer.run, run_start(&pointer, "{}"), stage.ending(None, None).0);
    let last = run_end(run, 1, &end, None, None);
    let other = Change::End { run, end, result: None, error: None, last };
    stage.store.set_runs_kept(1);
    stage.store.commit(vec![Change::Create { pointer, first }, other]).await.expect("ended");
    stage.say(&json!({ "type": "log", "level": "info", "message": "tick" })).await;
    if invoke.is_streamed {
        stage.idle().await;
    }
    let error = invoke.payload.contains("fails").then(|| error_of("TypeError", "the secret of the house"));
    let result = error.is_none().then(|| r#"{"z":1,"a":12345678901234567890123}"#.to_owned());
    stage.end(result, error).await;
    assert_eq!(stage.store.head(stage.run).await, Ok(None), "forgotten by its own end");
}

#[derive(Debug)]
struct Reading {
    reader: RunReader,
    is_breaking: Arc<AtomicBool>,
    is_broken: Arc<AtomicBool>,
    is_held: Arc<AtomicBool>,
    pages: usize,
}

impl Follower for Reading {
    fn next(&mut self) -> Pending<'_, Result<Next, Absent>> {
        Box::pin(async move {
            let is_breaking = 0 < self.pages && self.is_breaking.load(Ordering::Relaxed);
            if is_breaking || self.is_broken.load(Ordering::Relaxed) {
                return Err(Absent::failed(Code::StorageUnavailable, "the secret of the disk"));
            }
            if self.is_held.load(Ordering::Relaxed) && !self.reader.has_news() {
                return Err(Absent::HeldUp);
            }
            let next = match self.reader.next_page(PAGE_BYTES).await.map_err(unread)? {
                hub::Next::Page(events) => Next::Events(events),
                hub::Next::End => Next::End,
                hub::Next::Gone => Next::Gone,
            };
            // Who is asked may be left for a sign of life, and is asked again: then nothing was given yet.
            self.pages += 1;
            Ok(next)
        })
    }
}

fn unread(error: trust_runtime::store::Error) -> Failure {
    Failure { code: Code::StorageUnavailable, reason: error.to_string() }
}

impl Runs for Played {
    fn has_store(&self) -> bool {
        !self.is_registry_only.load(Ordering::Relaxed)
    }

    fn start(&self, _asker: Asker, invoke: Invoke) -> Pending<'_, Result<Started, Failure>> {
        Box::pin(async move {
            let (run, reader) = self.begin(&invoke).await?;
            let events = reader.map(|reader| self.reading(reader));
            let (told, ended) = oneshot::channel();
            let stage = Stage { store: self.store.clone(), run, at: self.now(), index: 1, told: Some(told) };
            if self.is_held.load(Ordering::Relaxed) {
                let ended = Box::pin(std::future::ready(Err(Absent::HeldUp)));
                return Ok(Started { run, events, ended });
            }
            if invoke.payload.contains("\"crowded\"") {
                crowded(stage, invoke).await;
            } else {
                tokio::spawn(play(stage, invoke));
            }
            let gone = |_dropped| Absent::failed(Code::StorageUnavailable, "the agent has failed");
            Ok(Started { run, events, ended: Box::pin(async move { ended.await.map_err(gone) }) })
        })
    }

    fn run(&self, _asker: Asker, run: RunId) -> Pending<'_, Result<Run, Absent>> {
        Box::pin(async move {
            if let Some((_, absent)) = self.away.lock().unwrap().iter().find(|(away, _)| *away == run) {
                return Err(absent.clone());
            }
            self.store.run(run).await.map_err(unread)?.ok_or(Absent::Unknown)
        })
    }

    fn events(&self, asker: Asker, asked: EventsAsked) -> Pending<'_, Result<Vec<Event>, Absent>> {
        Box::pin(async move {
            let EventsAsked { run, after, kinds, limit } = asked;
            self.run(asker, run).await?;
            let from = after.map_or(0, |after| after + 1);
            let asked = Asked { run, from, kinds, limit, bytes_max: usize::MAX };
            Ok(self.store.events(asked).await.map_err(unread)?.ok_or(Absent::Unknown)?.events)
        })
    }

    fn follow(&self, asker: Asker, run: RunId, after: Option<u64>) -> Pending<'_, Result<Box<dyn Follower>, Absent>> {
        Box::pin(async move {
            self.run(asker, run).await?;
            let reader = self.feeds.reader(run, after).await.map_err(unread)?.ok_or(Absent::Unknown)?;
            Ok(self.reading(reader))
        })
    }

    fn fault(&self) -> Option<Fault> {
        None
    }

    fn is_being_checked(&self) -> bool {
        self.is_being_checked.load(Ordering::Relaxed)
    }

    fn list(&self, asked: RunsAsked) -> Pending<'_, Result<RunPage, Failure>> {
        Box::pin(async move {
            let RunsAsked { status, agent, instance, cursor, limit } = asked;
            let cursor = cursor.map(|(started, run)| RunCursor { started, run });
            let page = self.store.list(Listed { status, agent, instance, cursor, limit }).await.map_err(unread)?;
            Ok(RunPage { pointers: page.pointers, next: page.next.map(|it| (it.started, it.run)) })
        })
    }

    fn instances(
        &self,
        agent: Option<AgentName>,
        cursor: Option<(AgentName, Instance)>,
        limit: usize,
    ) -> Pending<'_, Result<InstancePage, Failure>> {
        Box::pin(async move {
            let cursor = cursor.map(|(agent, instance)| AgentInstance { agent, instance });
            let page = self.store.instances(InstancesAsked { agent, cursor, limit }).await.map_err(unread)?;
            let pair = |it: AgentInstance| (it.agent, it.instance);
            Ok(InstancePage { instances: page.instances.into_iter().map(pair).collect(), next: page.next.map(pair) })
        })
    }
}
