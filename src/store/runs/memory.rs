//! The store and the registry of runs in memory: for tests, and for a node that keeps nothing.
//!
//! Copies share one content, which outlives each of them: [`MemoryRuns::crash`] leaves what was acknowledged.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{
    AgentInstance, BYTES_PER_MB, Change, EventPage, EventsAsked, Fault, Head, InstancePage, InstancesAsked, Limits,
    Observer, Outcome, PAGE_MAX, PointerChange, PointerChanges, RUNS_MAX_MB, Refused, Registry, Replica, RunCursor,
    RunPage, RunStore, RunsAsked, Upto, continues, tell,
};
use crate::domain::id::RuntimeId;
use crate::domain::run::{End, Event, Pointer, Run, RunId};
use crate::store::{Error, Pending};

/// What is kept of a run.
#[derive(Debug, Clone)]
struct Kept {
    run: Run,
    events: Vec<Event>,
    /// The how many-th run this is: the order of the starts, whatever the clock says of them (decision 0016).
    place: u64,
    /// The number of its pointer's newest change.
    number: u64,
    /// What its events, its result and its error take.
    bytes: usize,
}

impl Kept {
    fn head(&self) -> Head {
        let count = u64::try_from(self.events.len()).unwrap_or(u64::MAX);
        Head { count, is_ended: self.run.pointer.end.is_some() }
    }
}

/// What there is.
#[derive(Debug)]
struct Content {
    runs: BTreeMap<RunId, Kept>,
    /// How many there were.
    begun: u64,
    number: u64,
    forgotten: BTreeMap<u64, RunId>,
    dropped_upto: u64,
    peers: BTreeMap<RuntimeId, Upto>,
    replicas: BTreeMap<RunId, Pointer>,
    runs_kept: usize,
    runs_max_mb: u64,
    limits: Limits,
    fault: Option<Error>,
}

/// The store and the registry of runs in memory, cheap to share.
#[derive(Debug, Clone)]
pub struct MemoryRuns {
    content: Arc<Mutex<Content>>,
    /// What dies with this opening of the content.
    opening: Arc<Mutex<Opening>>,
}

#[derive(Debug, Default)]
struct Opening {
    is_closed: bool,
    observer: Option<Weak<dyn Observer>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can leave a value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryRuns {
    /// An empty store that keeps this many finished runs for each instance.
    pub fn new(runs_kept: usize) -> Self {
        Self::within(runs_kept, Limits::OF_A_NODE)
    }

    pub(in crate::store) fn within(runs_kept: usize, limits: Limits) -> Self {
        let content = Content {
            runs: BTreeMap::new(),
            begun: 0,
            number: 0,
            forgotten: BTreeMap::new(),
            dropped_upto: 0,
            peers: BTreeMap::new(),
            replicas: BTreeMap::new(),
            runs_kept,
            runs_max_mb: RUNS_MAX_MB,
            limits,
            fault: None,
        };
        Self { content: Arc::new(Mutex::new(content)), opening: Arc::default() }
    }

    /// The same content, opened anew. Other openings of it are closed.
    #[must_use]
    pub fn crash(&self) -> Self {
        lock(&self.opening).is_closed = true;
        Self { content: Arc::clone(&self.content), opening: Arc::default() }
    }

    /// Until told otherwise, every write fails with this.
    pub fn set_fault(&self, fault: Option<Error>) {
        lock(&self.content).fault = fault;
    }

    fn open<T>(&self, run: impl FnOnce(&mut Content) -> T) -> Result<T, Error> {
        if lock(&self.opening).is_closed { Err(Error::Closed) } else { Ok(run(&mut lock(&self.content))) }
    }

    fn write<T>(&self, run: impl FnOnce(&mut Content) -> T) -> Result<T, Error> {
        self.open(|content| content.fault.clone().map_or_else(|| Ok(run(content)), Err))?
    }

    /// Told under the lock, so that it is in the order of the log.
    fn commit_and_tell(&self, batch: &[Change]) -> Result<Outcome, Refused> {
        let observer = lock(&self.opening).observer.clone().and_then(|observer| observer.upgrade());
        self.write(|content| {
            content.check(batch)?;
            let outcome = content.apply(batch);
            if let Some(observer) = observer {
                tell(&*observer, batch, &outcome);
            }
            Ok(outcome)
        })?
    }
}

impl Content {
    /// Whether a batch can be applied as a whole, so that nothing has to be undone.
    fn check(&self, batch: &[Change]) -> Result<(), Refused> {
        let mut heads: BTreeMap<RunId, Option<Head>> = BTreeMap::new();
        for change in batch {
            change.check()?;
            let run = change.run();
            let wrong = |fault| Refused::Wrong { run, fault };
            let head = heads.entry(run).or_insert_with(|| self.runs.get(&run).map(Kept::head));
            match (change, head.as_mut()) {
                (Change::Create { .. }, None) => *head = Some(Head { count: 1, is_ended: false }),
                (Change::Create { .. }, Some(_)) | (Change::End { .. }, None) => {}
                (Change::Append { .. }, None) => return Err(wrong(Fault::Unknown)),
                (Change::Append { .. }, Some(Head { is_ended: true, .. })) => return Err(wrong(Fault::Ended)),
                (Change::End { .. }, Some(Head { is_ended: true, .. })) => {}
                (Change::Append { .. } | Change::End { .. }, Some(head)) => {
                    for event in change.events() {
                        continues(run, head.count, event)?;
                        head.count = head.count.saturating_add(1);
                    }
                    head.is_ended = matches!(change, Change::End { .. });
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, batch: &[Change]) -> Outcome {
        let mut outcome = Outcome::default();
        for change in batch {
            let is_changed = match change {
                Change::Create { pointer, first } => self.create(pointer, first),
                Change::Append { run, events } => {
                    let kept = self.runs.get_mut(run);
                    kept.is_some_and(|kept| {
                        kept.events.extend_from_slice(events);
                        kept.bytes = kept.bytes.saturating_add(bytes_of(events));
                        !events.is_empty()
                    })
                }
                Change::End { run, end, result, error, last } => {
                    let is_ended = self.end(*run, *end, [result, error], last);
                    if is_ended {
                        outcome.forgotten.extend(self.make_room(*run));
                    }
                    is_ended
                }
            };
            outcome.changed.push(is_changed);
        }
        outcome
    }

    fn next_number(&mut self) -> u64 {
        self.number = self.number.saturating_add(1);
        self.number
    }

    fn create(&mut self, pointer: &Pointer, first: &Event) -> bool {
        if self.runs.contains_key(&pointer.run) {
            return false;
        }
        let run = Run { pointer: pointer.clone(), result: None, error: None };
        let number = self.next_number();
        self.begun = self.begun.saturating_add(1);
        let (bytes, events, place) = (first.body.len(), vec![first.clone()], self.begun);
        self.runs.insert(pointer.run, Kept { run, events, place, number, bytes });
        true
    }

    fn end(&mut self, run: RunId, end: End, [result, error]: [&Option<String>; 2], last: &Event) -> bool {
        let number = self.number.saturating_add(1);
        match self.runs.get_mut(&run) {
            Some(kept) if kept.run.pointer.end.is_none() => {
                kept.run.pointer.end = Some(end);
                kept.run.result.clone_from(result);
                kept.run.error.clone_from(error);
                kept.events.push(last.clone());
                let brought = [result, error].into_iter().flatten().map(String::len);
                kept.bytes = brought.chain([last.body.len()]).fold(kept.bytes, usize::saturating_add);
                kept.number = number;
                self.number = number;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Makes room where a run has ended, which may be the one that goes: first in its instance, then over all, where the
    /// newest one always stays.
    fn make_room(&mut self, ended: RunId) -> Vec<RunId> {
        let Some(of) = self.runs.get(&ended).map(|kept| kept.run.pointer.clone()) else { return Vec::new() };
        let of_instance = self.finished(|it| it.agent == of.agent && it.instance == of.instance);
        let mut gone: Vec<RunId> = of_instance.into_iter().skip(self.runs_kept.max(1)).collect();
        gone.iter().for_each(|run| self.forget(*run));
        for run in self.finished(|_| true).into_iter().skip(1).rev() {
            if !self.has_too_many() {
                break;
            }
            self.forget(run);
            gone.push(run);
        }
        while self.limits.forgotten < self.forgotten.len()
            && let Some((number, _)) = self.forgotten.pop_first()
        {
            self.dropped_upto = number;
        }
        gone
    }

    /// Finished runs, the last one to begin first.
    fn finished(&self, is_of: impl Fn(&Pointer) -> bool) -> Vec<RunId> {
        let is_wanted = |kept: &&Kept| kept.run.pointer.end.is_some() && is_of(&kept.run.pointer);
        let mut finished: Vec<&Kept> = self.runs.values().filter(is_wanted).collect();
        finished.sort_by_key(|kept| Reverse(kept.place));
        finished.into_iter().map(|kept| kept.run.pointer.run).collect()
    }

    fn has_too_many(&self) -> bool {
        let finished = self.runs.values().filter(|kept| kept.run.pointer.end.is_some()).count();
        let bytes = self.runs.values().map(|kept| kept.bytes).fold(0, usize::saturating_add);
        let quota = self.runs_max_mb.saturating_mul(BYTES_PER_MB);
        self.limits.finished < finished || quota < u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn forget(&mut self, run: RunId) {
        self.runs.remove(&run);
        let number = self.next_number();
        self.forgotten.insert(number, run);
    }

    fn events(&self, asked: &EventsAsked) -> Option<EventPage> {
        let kept = self.runs.get(&asked.run)?;
        let head = kept.head();
        let limit = asked.limit.min(PAGE_MAX);
        let is_wanted = |event: &&Event| {
            asked.from <= event.index && asked.kinds.as_ref().is_none_or(|kinds| kinds.contains(&event.kind))
        };
        let mut wanted = kept.events.iter().filter(is_wanted).peekable();
        let (mut events, mut bytes): (Vec<Event>, usize) = (Vec::new(), 0);
        while events.len() < limit
            && let Some(event) =
                wanted.next_if(|it| events.is_empty() || bytes.saturating_add(it.body.len()) <= asked.bytes_max)
        {
            bytes = bytes.saturating_add(event.body.len());
            events.push(event.clone());
        }
        let is_cut = events.len() == limit || wanted.peek().is_some();
        let behind = events.last().map_or(asked.from, |event| event.index.saturating_add(1));
        let next = if is_cut { behind } else { asked.from.max(head.count) };
        Some(EventPage { pointer: kept.run.pointer.clone(), events, next, head })
    }

    fn list(&self, asked: &RunsAsked) -> RunPage {
        let is = |pointer: &&Pointer| {
            let behind = |cursor: RunCursor| newest_first(&cursor) < newest_first(&RunCursor::of(pointer));
            asked.status.is_none_or(|status| status == pointer.status())
                && asked.agent.as_ref().is_none_or(|agent| *agent == pointer.agent)
                && asked.instance.as_ref().is_none_or(|instance| *instance == pointer.instance)
                && asked.cursor.is_none_or(behind)
        };
        let mut found: Vec<&Pointer> = self.runs.values().map(|kept| &kept.run.pointer).filter(is).collect();
        found.sort_by_key(|pointer| newest_first(&RunCursor::of(pointer)));
        let limit = asked.limit.min(PAGE_MAX);
        let has_more = limit < found.len();
        let pointers: Vec<Pointer> = found.into_iter().take(limit).cloned().collect();
        let next = pointers.last().filter(|_| has_more).map(RunCursor::of);
        RunPage { pointers, next }
    }

    fn instances(&self, asked: &InstancesAsked) -> InstancePage {
        let all = self.runs.values().map(|Kept { run: Run { pointer, .. }, .. }| AgentInstance {
            agent: pointer.agent.clone(),
            instance: pointer.instance.clone(),
        });
        let wanted: BTreeSet<AgentInstance> = all
            .filter(|it| asked.agent.as_ref().is_none_or(|agent| *agent == it.agent))
            .filter(|it| asked.cursor.as_ref().is_none_or(|cursor| cursor < it))
            .collect();
        let limit = asked.limit.min(PAGE_MAX);
        let has_more = limit < wanted.len();
        let instances: Vec<AgentInstance> = wanted.into_iter().take(limit).collect();
        let next = instances.last().filter(|_| has_more).cloned();
        InstancePage { instances, next }
    }

    fn changes(&self, after: Upto, limit: usize) -> PointerChanges {
        let limit = limit.min(PAGE_MAX);
        let is_restart = !after.is_continued_by(self.number, self.dropped_upto);
        let from = if is_restart { Upto { number: 0, floor: self.dropped_upto } } else { after };
        let put = |kept: &Kept| (kept.number, PointerChange::Put(kept.run.pointer.clone()));
        let gone = |(number, run): (&u64, &RunId)| (*number, PointerChange::Forgotten(*run));
        let all = self.runs.values().map(put).chain(self.forgotten.iter().map(gone));
        let mut changes: Vec<_> = all.filter(|(number, _)| from.number < *number).collect();
        changes.sort_by_key(|(number, _)| *number);
        let has_more = limit < changes.len();
        changes.truncate(limit);
        let last = changes.last().map_or(from.number, |(number, _)| *number);
        let upto = Upto { number: if has_more { last } else { self.number }, ..from };
        PointerChanges { is_restart, changes, upto, has_more }
    }

    fn replicate(&mut self, replica: Replica) {
        let Replica { owner, is_restart, changes, upto } = replica;
        if !is_restart && self.peers.get(&owner).is_some_and(|kept| upto.number < kept.number) {
            return;
        }
        if is_restart {
            self.replicas.retain(|_, pointer| pointer.owner != owner);
        }
        for change in changes {
            let run = change.run();
            let is_free = self.replicas.get(&run).is_none_or(|kept| kept.owner == owner);
            match change {
                PointerChange::Put(pointer) if is_free && pointer.owner == owner => {
                    self.replicas.insert(run, pointer);
                }
                PointerChange::Put(_) => {}
                PointerChange::Forgotten(_) if is_free => drop(self.replicas.remove(&run)),
                PointerChange::Forgotten(_) => {}
            }
        }
        self.peers.insert(owner.clone(), upto);
        self.trim(self.limits.replicated, |pointer| pointer.owner == owner);
        self.trim(self.limits.replicated_total, |_| true);
    }

    /// The oldest of these go.
    fn trim(&mut self, kept: usize, is_of: impl Fn(&Pointer) -> bool) {
        let mut all: Vec<RunCursor> = self.replicas.values().filter(|it| is_of(it)).map(RunCursor::of).collect();
        all.sort_by_key(newest_first);
        for cursor in all.into_iter().skip(kept) {
            self.replicas.remove(&cursor.run);
        }
    }
}

fn bytes_of(events: &[Event]) -> usize {
    events.iter().map(|event| event.body.len()).fold(0, usize::saturating_add)
}

/// The order of lists.
const fn newest_first(cursor: &RunCursor) -> Reverse<(u64, RunId)> {
    Reverse((cursor.started.as_millis(), cursor.run))
}

/// An answer that is there at once.
fn ready<'a, T: Send + 'a>(answer: T) -> Pending<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl RunStore for MemoryRuns {
    fn commit(&self, batch: Vec<Change>) -> Pending<'_, Result<Outcome, Refused>> {
        ready(self.commit_and_tell(&batch))
    }

    fn observe(&self, observer: Weak<dyn Observer>) {
        lock(&self.opening).observer = Some(observer);
    }

    fn run(&self, run: RunId) -> Pending<'_, Result<Option<Run>, Error>> {
        ready(self.open(|content| content.runs.get(&run).map(|kept| kept.run.clone())))
    }

    fn events(&self, asked: EventsAsked) -> Pending<'_, Result<Option<EventPage>, Error>> {
        ready(self.open(|content| content.events(&asked)))
    }

    fn head(&self, run: RunId) -> Pending<'_, Result<Option<Head>, Error>> {
        ready(self.open(|content| content.runs.get(&run).map(Kept::head)))
    }

    fn unfinished(&self) -> Pending<'_, Result<Vec<RunId>, Error>> {
        ready(self.open(|content| {
            let active = content.runs.values().map(|kept| &kept.run.pointer).filter(|it| it.end.is_none());
            let mut active: Vec<RunCursor> = active.map(RunCursor::of).collect();
            active.sort_by_key(|it| Reverse(newest_first(it)));
            active.into_iter().map(|it| it.run).collect()
        }))
    }

    fn is_forgotten(&self, run: RunId) -> Pending<'_, Result<bool, Error>> {
        ready(self.open(|content| content.forgotten.values().any(|it| *it == run)))
    }

    fn set_runs_kept(&self, runs: usize) {
        lock(&self.content).runs_kept = runs;
    }

    fn set_quota(&self, megabytes: u64) {
        lock(&self.content).runs_max_mb = megabytes;
    }

    fn fault(&self) -> Option<Error> {
        lock(&self.content).fault.clone()
    }

    fn close(&self) -> Pending<'_, ()> {
        lock(&self.opening).is_closed = true;
        ready(())
    }
}

impl Registry for MemoryRuns {
    fn lookup(&self, run: RunId) -> Pending<'_, Result<Option<Pointer>, Error>> {
        ready(self.open(|content| {
            let own = content.runs.get(&run).map(|kept| &kept.run.pointer);
            own.or_else(|| content.replicas.get(&run)).cloned()
        }))
    }

    fn list(&self, asked: RunsAsked) -> Pending<'_, Result<RunPage, Error>> {
        ready(self.open(|content| content.list(&asked)))
    }

    fn instances(&self, asked: InstancesAsked) -> Pending<'_, Result<InstancePage, Error>> {
        ready(self.open(|content| content.instances(&asked)))
    }

    fn changes(&self, after: Upto, limit: usize) -> Pending<'_, Result<PointerChanges, Error>> {
        ready(self.open(|content| content.changes(after, limit)))
    }

    fn number(&self) -> Pending<'_, Result<u64, Error>> {
        ready(self.open(|content| content.number))
    }

    fn replicate(&self, replica: Replica) -> Pending<'_, Result<(), Error>> {
        ready(self.write(|content| content.replicate(replica)))
    }

    fn replicated_upto(&self, owner: RuntimeId) -> Pending<'_, Result<Upto, Error>> {
        ready(self.open(|content| content.peers.get(&owner).copied().unwrap_or_default()))
    }
}
