//! Several nodes on one mesh in memory, each with a store of runs.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::audit::{Draft, NoteKey};
use crate::domain::id::RuntimeId;
use crate::domain::identity::{IdentityKey, Role, TrustState};
use crate::domain::offer::{Agent, Offer};
use crate::domain::projection::Limits;
use crate::domain::run::{AgentName, End, Event, Pointer, RunId};
use crate::domain::time::{Millis, Wall};
use crate::engine::record::{self, Batch, Record};
use crate::engine::view::Settings;
use crate::handle::runs::{Follower, Next, Runs};
use crate::mesh::memory::Hub;
use crate::node::reach::Patience;
use crate::node::runs::{Declared, Outside};
use crate::node::tests::{NoFiles, parsed, runs_in_memory, settings};
use crate::node::{Node, Parts, Witnessing, prepare};
use crate::store::memory::MemoryStore;
use crate::store::runs::memory::MemoryRuns;
use crate::store::runs::{Change, PointerChange, RUNS_KEPT, Registry, Replica, RunStore};
use crate::store::{Chain, Store as _};
use crate::wire::run::{Frame, Level, Said, run_end, run_start, said};
use crate::workload::Program;
use crate::workload::memory::{Memory, Script};

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until something holds.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_late| panic!("never: {what}"));
}

/// Waits as long as it takes, but not for ever.
pub(super) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// What is left of a node when it is down.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) runs: MemoryRuns,
    pub(super) store: MemoryStore,
}

impl Kept {
    pub(super) fn new() -> Self {
        Self { runs: MemoryRuns::new(RUNS_KEPT), store: MemoryStore::new() }
    }

    /// One that knows these already, as after an approval.
    pub(super) async fn knowing(peers: &[&str]) -> Self {
        let kept = Self::new();
        let known = |peer: &&str| {
            let (runtime, pinned) = (parsed(peer), key(peer).fingerprint());
            Record::Peer(record::Peer { runtime, pinned, trust: TrustState::Trusted, boot: 0 })
        };
        let batch = Batch { records: peers.iter().map(known).collect(), ..Batch::default() };
        kept.store.commit(batch).await.expect("stored");
        kept
    }
}

/// The identity key of a runtime.
pub(super) fn key(runtime: &str) -> IdentityKey {
    let mut seed = [0; 32];
    seed.iter_mut().zip(runtime.bytes()).for_each(|(seed, byte)| *seed = byte);
    IdentityKey::from_seed(seed)
}

/// One node with its stores.
pub(super) struct Member {
    pub(super) id: RuntimeId,
    pub(super) node: Node,
    pub(super) kept: Kept,
    pub(super) all: Arc<dyn Runs>,
}

/// What the agent of these nodes runs: it waits, and takes too long with that.
fn program() -> Outside {
    let programs = Memory::default();
    programs.put("hello", Script::Waits);
    let program = Program { path: "hello".into(), ..Program::default() };
    let declared = Declared { program, timeout: Millis(1_000) };
    let declared = [(AgentName::of_agent(&parsed("hello")), declared)].into();
    Outside { launcher: Arc::new(programs), declared, ..runs_in_memory() }
}

pub(super) fn patience() -> Patience {
    Patience { pull: Duration::from_millis(30), event: Duration::from_secs(2), ..Patience::default() }
}

impl Member {
    pub(super) async fn join(hub: &Hub, name: &str, kept: Kept) -> Self {
        Self::patient(hub, name, kept, patience()).await
    }

    pub(super) async fn patient(hub: &Hub, name: &str, kept: Kept, patience: Patience) -> Self {
        let id: RuntimeId = parsed(name);
        let limits = Limits { period: Millis(100), ..Limits::default() };
        let agents = [(parsed("hello"), Agent { role: Role::Operator, webhook: true })].into();
        let offer = Offer { agents, ..Offer::default() };
        let settings = Arc::new(Settings { me: id.clone(), limits, offer, ..(*settings()).clone() });
        let kept = Kept { runs: kept.runs.crash(), store: kept.store };
        let prepared = prepare(settings, key(name), Arc::new(kept.store.clone())).await.expect("prepared");
        let (mesh, inbox) = hub.join(id.clone(), prepared.boot());
        let store = Arc::new(kept.runs.clone());
        let registry: Arc<dyn Registry> = Arc::<MemoryRuns>::clone(&store);
        let runs = Outside { store, registry, ..program() };
        let parts = Parts {
            mesh,
            inbox,
            web: None,
            probe_ms: 200,
            apply: Box::new(|_values| {}),
            sources: Arc::new(NoFiles),
            witnessing: Witnessing {
                key: NoteKey::new(format!("trust-runtime/{name}"), IdentityKey::from_seed([2; 32])),
                count: 0,
                every: Duration::from_secs(60),
            },
            authority: None,
            renewing: None,
            workload: None,
            runs,
            patience,
        };
        let node = prepared.start(parts, CancellationToken::new());
        node.announce().await;
        let all = node.runs();
        Self { id, node, kept, all }
    }

    /// Takes the node down and gives what is left.
    pub(super) async fn down(self) -> Kept {
        in_time(self.node.shutdown()).await;
        Kept { runs: self.kept.runs, store: MemoryStore::on(self.kept.store.crash()) }
    }

    /// Waits until the other one is online here.
    pub(super) async fn sees(&self, other: &RuntimeId) {
        until(&format!("{} sees {other}", self.id), async || self.sees_now(other)).await;
    }

    pub(super) fn sees_now(&self, other: &RuntimeId) -> bool {
        let (view, now) = (self.node.operations().view(), self.node.operations().now());
        let standing = view.standing(other, now.monotonic);
        standing.is_some_and(|it| it.lifecycle == crate::domain::projection::Lifecycle::Online)
    }

    /// Waits until the pointer to a run is known here, and ended or not.
    pub(super) async fn knows(&self, run: RunId, is_ended: bool) {
        let is_known = async || {
            let known = self.kept.runs.lookup(run).await.expect("reads");
            known.is_some_and(|pointer| pointer.end.is_some() == is_ended)
        };
        until(&format!("{} knows {run}", self.id), is_known).await;
    }

    /// Begins a run.
    pub(super) async fn begin(&self, number: u8) -> Pointer {
        let pointer = pointer(&self.id, number);
        let first = run_start(&pointer, "{\"n\":1}");
        self.commit(Change::Create { pointer: pointer.clone(), first }).await;
        pointer
    }

    /// Begins the oldest run of an instance of which one finished run is kept, and there is one.
    pub(super) async fn begin_oldest(&self) -> RunId {
        RunStore::set_runs_kept(&self.kept.runs, 1);
        let oldest = self.begin(1).await.run;
        let other = self.begin(2).await.run;
        self.end(other, 1, "1").await;
        oldest
    }

    /// Copies a pointer, as if its owner had said it.
    pub(super) async fn is_told(&self, pointer: Pointer) {
        let owner = pointer.owner.clone();
        let upto = self.kept.runs.replicated_upto(owner.clone()).await.expect("reads");
        let replica = Replica { owner, is_restart: false, changes: vec![PointerChange::Put(pointer)], upto };
        self.kept.runs.replicate(replica).await.expect("kept");
    }

    /// Adds an event with this text.
    pub(super) async fn say(&self, run: RunId, index: u64, text: &str) {
        let event = log(run, index, text);
        self.commit(Change::Append { run, events: vec![event] }).await;
    }

    /// Ends a run.
    pub(super) async fn end(&self, run: RunId, index: u64, result: &str) {
        self.commit(ended(run, index, result, false)).await;
    }

    async fn commit(&self, change: Change) {
        self.kept.runs.commit(vec![change]).await.expect("committed");
    }

    /// All events of an own run.
    pub(super) async fn log(&self, run: RunId) -> Vec<Event> {
        let asked = crate::store::runs::EventsAsked { run, from: 0, kinds: None, limit: 1_000, bytes_max: usize::MAX };
        self.kept.runs.events(asked).await.expect("reads").expect("known").events
    }

    /// What is on record of runs that were read here.
    pub(super) fn run_reads(&self) -> Vec<Draft> {
        let is_read = |draft: &Draft| draft.action == "run_read";
        self.kept.store.with_disk(|disk| {
            let both = disk.entries(Chain::Reads).chain(disk.entries(Chain::Refusals));
            both.map(|entry| entry.draft.clone()).filter(is_read).collect()
        })
    }

    /// How often something was refused here, for this reason.
    pub(super) fn refused(&self, reason: &str) -> u64 {
        self.node.operations().refused().get(reason).copied().unwrap_or_default()
    }
}

pub(super) fn pointer(owner: &RuntimeId, number: u8) -> Pointer {
    let started = Wall::from_millis(1_000);
    Pointer {
        run: RunId::new(started, [number; 10]),
        owner: owner.clone(),
        agent: parsed("hello"),
        instance: parsed("line \"4\""),
        started,
        end: None,
    }
}

/// The end of a run that brings this, or fails with it.
pub(super) fn ended(run: RunId, index: u64, brought: &str, is_error: bool) -> Change {
    let end = End { at: Wall::from_millis(9_000), is_error, duration: Millis(7) };
    let text = |is_wanted: bool| is_wanted.then(|| brought.to_owned());
    let (result, error) = (text(!is_error), text(is_error));
    let last = run_end(run, index, &end, result.as_deref(), error.as_deref());
    Change::End { run, end, result, error, last }
}

pub(super) fn log(run: RunId, index: u64, text: &str) -> Event {
    let frame = Frame { run, index, at: Wall::from_millis(2_000) };
    said(frame, Said::Log { level: Level::Info, message: text.to_owned() }).expect("an event")
}

/// Reads a run to its end.
pub(super) async fn read_all(follower: &mut Box<dyn Follower>) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        match in_time(follower.next()).await.expect("goes on") {
            Next::Events(events) => all.extend(events),
            Next::End => return all,
            Next::Gone => panic!("gone after {} events", all.len()),
        }
    }
}
