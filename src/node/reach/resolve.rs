//! All runs as callers of this node see them: own ones, those whose pointer is known, and those that a peer knows of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use super::Patience;
use super::asking::{Asking, Unanswered, denied};
use super::follower::RemoteFollower;
use crate::domain::code::Code;
use crate::domain::preflight::Asker;
use crate::domain::run::{AgentName, Event, Instance, Pointer, Run, RunId};
use crate::domain::time::Millis;
use crate::engine::input::Invoke;
use crate::handle::runs::{
    Absent, EVENTS_MAX, EventsAsked, Fault, Follower, InstancePage, RunPage, Runs, RunsAsked, Started,
};
use crate::handle::{Failure, Pending};
use crate::store::runs::{PointerChange, Registry, Replica, RunStore};
use crate::wire::mesh::{Announced, Assembly, Part, RunAnswer, RunAsked, Whole};

/// Pointers of other sites that are remembered: those of the own site are copied. The oldest go first.
const FOUND_MAX: usize = 1_024;

/// Questions to everybody at once; others wait as long as one takes. Each is a signature and a message per peer, and made-up
/// names ask them too.
const LOCATING_MAX: usize = 16;

/// Most bytes of events in one answer. The caller goes on behind the last one.
const EVENTS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long all pages or pieces of one answer may take, however many there are.
const WHOLE_BUDGET: Duration = Duration::from_secs(10);

/// Long results and errors that are put together at once; others wait as long as one answer takes. Each has at most
/// [`BROUGHT_BYTES_MAX`](crate::wire::mesh::BROUGHT_BYTES_MAX), which makes 32 MiB.
const ASSEMBLING_MAX: usize = 16;

/// What is known of where runs are.
#[derive(Debug)]
pub(in crate::node) struct Known {
    shelf: super::Shelf,
    /// Where runs were found that no copy names.
    found: Mutex<BTreeMap<RunId, Pointer>>,
}

impl Known {
    pub(in crate::node) fn new(shelf: super::Shelf) -> Self {
        Self { shelf, found: Mutex::default() }
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<RunId, Pointer>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, pointer: Pointer) {
        let mut found = self.found();
        found.insert(pointer.run, pointer);
        if FOUND_MAX < found.len() {
            found.pop_first();
        }
    }

    /// The newest that is known of a run: its end may have been read before the copy of the pointers has it.
    fn newest(&self, pointer: Pointer) -> Pointer {
        if pointer.end.is_some() {
            return pointer;
        }
        self.found().get(&pointer.run).cloned().unwrap_or(pointer)
    }

    /// Its owner has forgotten the run.
    pub(super) async fn forget(&self, pointer: &Pointer) {
        self.found().remove(&pointer.run);
        let (owner, registry) = (pointer.owner.clone(), &self.shelf.registry);
        let (Ok(Some(_)), Ok(upto)) =
            (registry.lookup(pointer.run).await, registry.replicated_upto(owner.clone()).await)
        else {
            return;
        };
        let changes = vec![PointerChange::Forgotten(pointer.run)];
        if let Err(error) = registry.replicate(Replica { owner, is_restart: false, changes, upto }).await {
            tracing::debug!(%error, "a pointer to a forgotten run was not dropped");
        }
    }
}

/// Own runs and those of others.
#[derive(Debug)]
pub(in crate::node) struct MeshRuns {
    pub(in crate::node) local: Arc<dyn Runs>,
    pub(in crate::node) asking: Arc<Asking>,
    pub(in crate::node) known: Arc<Known>,
    pub(in crate::node) patience: Patience,
    pub(in crate::node) locating: Semaphore,
    pub(in crate::node) assembling: Semaphore,
}

/// Where a run is.
#[derive(Debug)]
enum Place {
    Here,
    There(Pointer),
}

/// What one runtime said of where a run is.
enum Heard {
    Pointer(Box<Pointer>),
    No,
    Nothing,
}

impl MeshRuns {
    pub(in crate::node) fn new(
        local: Arc<dyn Runs>,
        asking: Arc<Asking>,
        known: Arc<Known>,
        patience: Patience,
    ) -> Self {
        let (locating, assembling) = (Semaphore::new(LOCATING_MAX), Semaphore::new(ASSEMBLING_MAX));
        Self { local, asking, known, patience, locating, assembling }
    }

    async fn find(&self, asker: &Asker, run: RunId) -> Result<Place, Absent> {
        let shelf = &self.known.shelf;
        // Looked for in this order: a run that is accepted here may not be in the store yet.
        if self.asking.views.load().runs.contains_key(&run) {
            return Ok(Place::Here);
        }
        match on_shelf(&*shelf.store, &*shelf.registry, run).await? {
            Some(Place::Here) => return Ok(Place::Here),
            Some(Place::There(pointer)) => return Ok(Place::There(self.known.newest(pointer))),
            None => {}
        }
        if let Some(pointer) = self.known.found().get(&run).cloned() {
            return Ok(Place::There(pointer));
        }
        Ok(Place::There(self.locate(asker, run).await?))
    }

    /// Asks everybody who is there. Only a run's owner knows it.
    async fn locate(&self, asker: &Asker, run: RunId) -> Result<Pointer, Absent> {
        let Ok(Ok(_place)) = tokio::time::timeout(self.patience.locate, self.locating.acquire()).await else {
            return Err(Absent::failed(Code::ServerBusy, "too many runs are being looked for"));
        };
        if let Some(pointer) = self.known.found().get(&run).cloned() {
            return Ok(pointer);
        }
        let owners = self.asking.reachable(asker);
        let ask = |owner| async move {
            let asked = (run, &RunAsked::Pointer);
            match self.asking.ask(asker, owner, asked, self.patience.locate).await {
                Ok(RunAnswer::Pointer(pointer)) => Heard::Pointer(pointer),
                Ok(RunAnswer::Denied(_) | RunAnswer::Unknown) | Err(Unanswered::Denied(_)) => Heard::No,
                // The form of an answer is checked: others than these do not come.
                Ok(RunAnswer::Announced(_) | RunAnswer::Events(..) | RunAnswer::Piece(_) | RunAnswer::Record(_))
                | Err(Unanswered::Busy | Unanswered::Silent) => Heard::Nothing,
            }
        };
        let mut answers: FuturesUnordered<_> = owners.iter().map(ask).collect();
        let first = async {
            let mut nobody = Absent::Unknown;
            while let Some(answer) = answers.next().await {
                match answer {
                    Heard::Pointer(pointer) => {
                        self.known.remember(Pointer::clone(&pointer));
                        return Ok(*pointer);
                    }
                    Heard::No => {}
                    Heard::Nothing => nobody = Absent::Unanswered,
                }
            }
            Err(nobody)
        };
        tokio::time::timeout(self.patience.locate, first).await.unwrap_or(Err(Absent::Unanswered))
    }

    /// Asks the owner. A run that it has forgotten is unknown here too from now on.
    async fn ask(&self, asker: &Asker, pointer: &Pointer, asked: &RunAsked) -> Result<RunAnswer, Absent> {
        match self.asking.ask(asker, &pointer.owner, (pointer.run, asked), self.patience.answer).await {
            Ok(RunAnswer::Unknown) => {
                self.known.forget(pointer).await;
                Err(Absent::Unknown)
            }
            Ok(RunAnswer::Denied(denial)) | Err(Unanswered::Denied(denial)) => Err(denied(&denial)),
            Ok(
                answer @ (RunAnswer::Announced(_)
                | RunAnswer::Events(..)
                | RunAnswer::Piece(_)
                | RunAnswer::Pointer(_)
                | RunAnswer::Record(_)),
            ) => Ok(answer),
            Err(Unanswered::Busy) => Err(Absent::failed(Code::ServerBusy, format!("{} is busy", pointer.owner))),
            Err(Unanswered::Silent) => Err(unreachable(pointer)),
        }
    }

    async fn record(&self, asker: &Asker, pointer: &Pointer) -> Result<Run, Absent> {
        let announced = match self.ask(asker, pointer, &RunAsked::Record).await? {
            RunAnswer::Record(run) => Announced { run: *run, result: None, error: None },
            RunAnswer::Announced(announced) => *announced,
            RunAnswer::Denied(_)
            | RunAnswer::Events(..)
            | RunAnswer::Piece(_)
            | RunAnswer::Pointer(_)
            | RunAnswer::Unknown => return Err(unreachable(pointer)),
        };
        self.check(pointer, &announced.run.pointer).await?;
        if announced.run.pointer.end.is_some() && pointer.end.is_none() {
            self.known.remember(announced.run.pointer.clone());
        }
        self.assemble(asker, pointer, announced).await
    }

    /// Whether the owner speaks of the run that the pointer names (contract, RR-25).
    async fn check(&self, pointer: &Pointer, said: &Pointer) -> Result<(), Absent> {
        if said.is_of_one_run_with(pointer) {
            return Ok(());
        }
        // The pointer is wrong, and whoever looks again asks everybody.
        self.known.forget(pointer).await;
        Err(Absent::Unknown)
    }

    /// Fetches what is too long for one answer.
    async fn assemble(&self, asker: &Asker, pointer: &Pointer, announced: Announced) -> Result<Run, Absent> {
        let Announced { mut run, result, error } = announced;
        if result.is_none() && error.is_none() {
            return Ok(run);
        }
        let Ok(Ok(_place)) = tokio::time::timeout(self.patience.answer, self.assembling.acquire()).await else {
            return Err(Absent::failed(Code::ServerBusy, "too many long records are being fetched"));
        };
        let fetch = async {
            if let Some(whole) = result {
                run.result = Some(self.part(asker, pointer, Part::Result, whole).await?);
            }
            if let Some(whole) = error {
                run.error = Some(self.part(asker, pointer, Part::Error, whole).await?);
            }
            Ok(run)
        };
        tokio::time::timeout(WHOLE_BUDGET, fetch).await.unwrap_or_else(|_late| Err(unreachable(pointer)))
    }

    /// A long result or error, piece by piece.
    async fn part(&self, asker: &Asker, pointer: &Pointer, part: Part, whole: Whole) -> Result<String, Absent> {
        let refuse = |refusal| {
            self.asking.refuse(&pointer.owner, refusal);
            unreachable(pointer)
        };
        let mut assembly = Assembly::new(whole);
        while let Some(from) = assembly.wanted() {
            let RunAnswer::Piece(piece) = self.ask(asker, pointer, &RunAsked::Part { part, from }).await? else {
                return Err(unreachable(pointer));
            };
            assembly.take(&piece).map_err(refuse)?;
        }
        assembly.text().map_err(refuse)
    }

    /// Pages until there are as many as wanted.
    async fn pages(&self, asker: &Asker, pointer: &Pointer, wanted: &EventsAsked) -> Result<Vec<Event>, Absent> {
        let (mut events, mut bytes): (Vec<Event>, usize) = (Vec::new(), 0);
        let mut from = behind(wanted.after);
        let limit = wanted.limit.clamp(1, EVENTS_MAX);
        loop {
            let asked = RunAsked::Events {
                from,
                kinds: wanted.kinds.clone(),
                limit: limit.saturating_sub(events.len()),
                wait: Millis(0),
            };
            let RunAnswer::Events(said, page) = self.ask(asker, pointer, &asked).await? else {
                return Err(unreachable(pointer));
            };
            self.check(pointer, &said).await?;
            let is_last = page.is_last();
            from = page.next;
            bytes = page.events.iter().map(|event| event.body.len()).fold(bytes, usize::saturating_add);
            events.extend(page.events);
            if is_last || limit <= events.len() || EVENTS_BYTES_MAX <= bytes {
                return Ok(events);
            }
        }
    }

    async fn follow_there(
        &self,
        asker: Asker,
        pointer: Pointer,
        after: Option<u64>,
    ) -> Result<Box<dyn Follower>, Absent> {
        let next = behind(after);
        let asked = RunAsked::Events { from: next, kinds: None, limit: EVENTS_MAX, wait: Millis(0) };
        let RunAnswer::Events(said, first) = self.ask(&asker, &pointer, &asked).await? else {
            return Err(unreachable(&pointer));
        };
        self.check(&pointer, &said).await?;
        Ok(Box::new(RemoteFollower {
            asking: Arc::clone(&self.asking),
            known: Arc::clone(&self.known),
            asker,
            pointer,
            patience: self.patience,
            next,
            is_over: false,
            first: Some(first),
            heard: self.asking.clock.now().monotonic,
        }))
    }
}

/// Where a run is as far as this node has written it down. A record that is not what its pointer says is nobody's (contract,
/// RR-25).
async fn on_shelf(store: &dyn RunStore, registry: &dyn Registry, run: RunId) -> Result<Option<Place>, Absent> {
    let fault = |error: crate::store::Error| Absent::failed(Code::StorageUnavailable, error.to_string());
    let pointer = registry.lookup(run).await.map_err(fault)?;
    match (store.run(run).await.map_err(fault)?, pointer) {
        (Some(kept), Some(pointer)) if !kept.pointer.is_of_one_run_with(&pointer) => Err(Absent::Unknown),
        (Some(_), _) => Ok(Some(Place::Here)),
        (None, pointer) => Ok(pointer.map(Place::There)),
    }
}

/// The number behind this one.
fn behind(after: Option<u64>) -> u64 {
    after.map_or(0, |after| after.saturating_add(1))
}

fn unreachable(pointer: &Pointer) -> Absent {
    Absent::OwnerUnreachable(Box::new(pointer.clone()))
}

impl Runs for MeshRuns {
    fn has_store(&self) -> bool {
        self.local.has_store()
    }

    fn start(&self, asker: Asker, invoke: Invoke) -> Pending<'_, Result<Started, Failure>> {
        self.local.start(asker, invoke)
    }

    fn run(&self, asker: Asker, run: RunId) -> Pending<'_, Result<Run, Absent>> {
        Box::pin(async move {
            match self.find(&asker, run).await? {
                Place::Here => self.local.run(asker, run).await,
                Place::There(pointer) => self.record(&asker, &pointer).await,
            }
        })
    }

    fn events(&self, asker: Asker, asked: EventsAsked) -> Pending<'_, Result<Vec<Event>, Absent>> {
        Box::pin(async move {
            match self.find(&asker, asked.run).await? {
                Place::Here => self.local.events(asker, asked).await,
                Place::There(pointer) => {
                    let pages = self.pages(&asker, &pointer, &asked);
                    tokio::time::timeout(WHOLE_BUDGET, pages).await.unwrap_or_else(|_late| Err(unreachable(&pointer)))
                }
            }
        })
    }

    fn follow(&self, asker: Asker, run: RunId, after: Option<u64>) -> Pending<'_, Result<Box<dyn Follower>, Absent>> {
        Box::pin(async move {
            match self.find(&asker, run).await? {
                Place::Here => self.local.follow(asker, run, after).await,
                Place::There(pointer) => self.follow_there(asker, pointer, after).await,
            }
        })
    }

    fn fault(&self) -> Option<Fault> {
        self.local.fault()
    }

    fn list(&self, asked: RunsAsked) -> Pending<'_, Result<RunPage, Failure>> {
        self.local.list(asked)
    }

    fn instances(
        &self,
        agent: Option<AgentName>,
        cursor: Option<(AgentName, Instance)>,
        limit: usize,
    ) -> Pending<'_, Result<InstancePage, Failure>> {
        self.local.instances(agent, cursor, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::run::{Event, Kind};
    use crate::domain::time::Wall;
    use crate::store::runs::Change;
    use crate::store::runs::memory::MemoryRuns;

    fn run_id() -> RunId {
        RunId::new(Wall::from_millis(1), [7; 10])
    }

    async fn holding(agent: &str, instance: &str) -> Arc<MemoryRuns> {
        let store = Arc::new(MemoryRuns::new(50));
        let pointer = Pointer {
            run: run_id(),
            owner: "site/a".parse().expect("legal"),
            agent: agent.parse().expect("legal"),
            instance: instance.parse().expect("legal"),
            started: Wall::from_millis(1),
            end: None,
        };
        let first = Event { index: 0, kind: Kind::RunStart, at: Wall::from_millis(1), body: "{}".into() };
        store.commit(vec![Change::Create { pointer, first }]).await.expect("written");
        store
    }

    #[tokio::test]
    async fn a_record_that_is_not_what_its_pointer_says_is_none() {
        let store = holding("hello", "i1").await;
        let beside = async |registry: Arc<MemoryRuns>| on_shelf(&*store, &*registry, run_id()).await;
        assert!(matches!(beside(holding("hello", "i1").await).await, Ok(Some(Place::Here))));
        for (agent, instance) in [("hello", "i2"), ("boom", "i1")] {
            let found = beside(holding(agent, instance).await).await;
            assert!(matches!(found, Err(Absent::Unknown)), "{found:?}");
        }
        assert!(matches!(beside(Arc::new(MemoryRuns::new(50))).await, Ok(Some(Place::Here))));
    }
}
