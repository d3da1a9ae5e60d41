//! The ports to what is kept of runs, in three parts: [`RunStore`] has the records and the events, [`Registry`] the pointers,
//! and [`feed`] those who follow.
//!
//! The store is the only way to change a run. Its writer changes record, events and pointer in one transaction, so that no
//! part ever knows a run that another has forgotten; the registry is what may be asked by anybody who has no business with
//! payloads and results. `contract.rs` says what every pair of them must hold.

pub mod feed;
pub mod hub;
pub mod memory;

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;

use super::{Error, Pending};
use crate::domain::id::RuntimeId;
use crate::domain::queue::Queue;
use crate::domain::run::{AgentName, EVENT_BYTES_MAX, End, Event, Instance, Kind, Pointer, Run, RunId, Status};
use crate::domain::time::Wall;

/// Most events, pointers or instances on one page.
pub const PAGE_MAX: usize = 1_000;

/// Finished runs that are kept for each instance of an agent unless the settings say otherwise (contract, RR-60).
pub const RUNS_KEPT: usize = 50;

/// Space in MiB that runs may take unless the settings say otherwise: what a small controller can spare.
pub const RUNS_MAX_MB: u64 = 512;

/// Finished runs that are kept over all instances, which their callers name. The oldest go first.
pub const FINISHED_MAX: usize = 100_000;

/// What the settings call a megabyte.
pub(in crate::store) const BYTES_PER_MB: u64 = 1024 * 1024;

/// Pointers that are kept of one peer: as many as a node with 200 busy instances has by default. The oldest go first.
pub const REPLICATED_MAX: usize = 10_000;

/// Pointers that are kept of all peers together: some 60 MiB on disk. The oldest go first.
pub const REPLICATED_TOTAL_MAX: usize = 200_000;

/// Forgotten runs that are remembered for peers which have not heard of it. A peer that missed more starts over.
pub const FORGOTTEN_MAX: usize = 10_000;

/// The limits of what is kept that no setting changes.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Limits {
    /// See [`REPLICATED_MAX`].
    pub(in crate::store) replicated: usize,
    /// See [`REPLICATED_TOTAL_MAX`].
    pub(in crate::store) replicated_total: usize,
    /// See [`FORGOTTEN_MAX`].
    pub(in crate::store) forgotten: usize,
    /// See [`FINISHED_MAX`].
    pub(in crate::store) finished: usize,
}

impl Limits {
    /// What a node keeps. Tests keep less.
    pub(in crate::store) const OF_A_NODE: Self = Self {
        replicated: REPLICATED_MAX,
        replicated_total: REPLICATED_TOTAL_MAX,
        forgotten: FORGOTTEN_MAX,
        finished: FINISHED_MAX,
    };
}

/// One change of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A run begins. A second one of the same id changes nothing, also after the first has ended.
    Create {
        /// Where and what it is; it has no end.
        pointer: Pointer,
        /// Its `run_start`, number 0.
        first: Event,
    },
    /// Something happened in it. The numbers continue its log.
    Append {
        /// Which run.
        run: RunId,
        /// What happened, in order; neither `run_start` nor `run_end`.
        events: Vec<Event>,
    },
    /// It ends. One that has ended or is unknown is left as it is.
    End {
        /// Which run.
        run: RunId,
        /// How.
        end: End,
        /// What it brought, as a JSON text.
        result: Option<String>,
        /// What went wrong, as a JSON text.
        error: Option<String>,
        /// Its `run_end`, which continues its log.
        last: Event,
    },
}

/// Why a batch was not written. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// The batch is wrong: a bug of who made it.
    #[error("{run}: {fault}")]
    Wrong {
        /// Which run.
        run: RunId,
        /// What of it.
        fault: Fault,
    },
}

/// What is wrong with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The event does not continue the log.
    #[error("wanted event {wanted}, got {got}")]
    Number {
        /// The number that comes next.
        wanted: u64,
        /// The one given.
        got: u64,
    },
    /// Nothing can be said of a run that is not there.
    #[error("wanted a run that is known")]
    Unknown,
    /// Nothing can be said of a run after its end.
    #[error("wanted a run that has not ended")]
    Ended,
    /// `run_start` is the first event and `run_end` the last, and a run is created without an end.
    #[error("{0} does not belong here")]
    Frame(Kind),
    /// Longer than an event may be.
    #[error("wanted an event of at most {EVENT_BYTES_MAX} bytes, got {0}")]
    TooLong(usize),
}

/// What a batch did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For each change of the batch, whether it changed anything.
    pub changed: Vec<bool>,
    /// Runs that had to go where one has ended: those that began first, be it that one itself.
    pub forgotten: Vec<RunId>,
}

/// How long a run's log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// How many events there are: the next number.
    pub count: u64,
    /// Whether there will be no more.
    pub is_ended: bool,
}

/// Which events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsAsked {
    /// Of which run.
    pub run: RunId,
    /// From this number on.
    pub from: u64,
    /// Only these kinds; all of them if absent.
    pub kinds: Option<BTreeSet<Kind>>,
    /// At most this many, itself at most [`PAGE_MAX`].
    pub limit: usize,
    /// The page ends before the event with which its bodies would be longer; but it has one event, if there is any.
    pub bytes_max: usize,
}

/// Events in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// Of which run, as its record says it.
    pub pointer: Pointer,
    /// Those that were wanted.
    pub events: Vec<Event>,
    /// The number to go on at: past the last one on the page, or past all there were when nothing more was wanted.
    pub next: u64,
    /// How long the log was when it was read.
    pub head: Head,
}

/// Told of every batch after it is durable and before whoever committed it, in the order of the log.
pub trait Observer: Send + Sync + fmt::Debug {
    /// A batch was written. Called on the writer's thread, so it must be quick.
    fn committed(&self, batch: &[Change], outcome: &Outcome);
}

/// Tells an observer. One that panics has failed alone: what was written stays written, and is acknowledged.
pub(in crate::store) fn tell(observer: &dyn Observer, batch: &[Change], outcome: &Outcome) {
    let told = catch_unwind(AssertUnwindSafe(|| observer.committed(batch, outcome)));
    if told.is_err() {
        tracing::error!("whoever follows runs has failed over what was written");
    }
}

/// Records and events.
pub trait RunStore: Send + Sync + fmt::Debug {
    /// Makes a batch durable, all or nothing: records, events and pointers together. Concurrent batches may share one fsync.
    fn commit(&self, batch: Vec<Change>) -> Pending<'_, Result<Outcome, Refused>>;

    /// From now on this one is told. There is one; another takes its place.
    fn observe(&self, observer: Weak<dyn Observer>);

    /// One run.
    fn run(&self, run: RunId) -> Pending<'_, Result<Option<Run>, Error>>;

    /// A page of its events. None if the run is not known.
    fn events(&self, asked: EventsAsked) -> Pending<'_, Result<Option<EventPage>, Error>>;

    /// How long its log is. None if the run is not known.
    fn head(&self, run: RunId) -> Pending<'_, Result<Option<Head>, Error>>;

    /// The runs that have not ended, oldest first: after a crash those that have to be ended.
    fn unfinished(&self) -> Pending<'_, Result<Vec<RunId>, Error>>;

    /// Whether it had an end and has made room since. Of the last [`FORGOTTEN_MAX`] that is known.
    fn is_forgotten(&self, run: RunId) -> Pending<'_, Result<bool, Error>>;

    /// Changes how many finished runs are kept for each instance; felt when the next one ends. At least one is.
    fn set_runs_kept(&self, runs: usize);

    /// Changes how many MiB runs may take; felt when the next one ends. Of the finished ones the newest stays, whatever it takes.
    fn set_quota(&self, megabytes: u64);

    /// Why nothing can be written at the moment, if so.
    fn fault(&self) -> Option<Error>;

    /// Whether its file is still being checked after a stop that was not clean: until then nobody knows that it is whole.
    fn is_being_checked(&self) -> bool {
        false
    }

    /// Its bounded queues, as they are now.
    fn queues(&self) -> Vec<Queue> {
        Vec::new()
    }

    /// Writes out what waits and closes, within two seconds.
    fn close(&self) -> Pending<'_, ()>;
}

/// Where a page of runs begins: behind this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunCursor {
    /// When the last run of the page before began, in whole milliseconds.
    pub started: Wall,
    /// Which one it was.
    pub run: RunId,
}

/// Which own runs are wanted. Absent means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunsAsked {
    /// Only those which are this far.
    pub status: Option<Status>,
    /// Only those of this agent.
    pub agent: Option<AgentName>,
    /// Only those for this instance.
    pub instance: Option<Instance>,
    /// Where the page begins; at the newest if absent.
    pub cursor: Option<RunCursor>,
    /// At most this many, itself at most [`PAGE_MAX`].
    pub limit: usize,
}

/// Own runs: newest start first, by milliseconds, then by id, both descending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunPage {
    /// The runs.
    pub pointers: Vec<Pointer>,
    /// Where the next page begins, if there is more.
    pub next: Option<RunCursor>,
}

/// An agent and one of its instances.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentInstance {
    /// The agent.
    pub agent: AgentName,
    /// The instance.
    pub instance: Instance,
}

/// Which instances are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstancesAsked {
    /// Only those of this agent.
    pub agent: Option<AgentName>,
    /// The page begins behind this one.
    pub cursor: Option<AgentInstance>,
    /// At most this many, itself at most [`PAGE_MAX`].
    pub limit: usize,
}

/// Instances that have own runs, in ascending order of the bytes of agent and instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstancePage {
    /// The instances.
    pub instances: Vec<AgentInstance>,
    /// Where the next page begins, if there is more.
    pub next: Option<AgentInstance>,
}

/// What became of one pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointerChange {
    /// It is now this.
    Put(Pointer),
    /// Its run is forgotten.
    Forgotten(RunId),
}

/// How far a copy of a runtime's pointers has been told. Made by the runtime, kept and handed back by who copies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upto {
    /// The number of the last change.
    pub number: u64,
    /// Runs that were forgotten up to this number are not missing in the copy: they were gone before it was begun.
    pub floor: u64,
}

/// What became of pointers since a place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PointerChanges {
    /// Whether whoever asked has to forget all it had of the owner: these are from the beginning, because what was asked for
    /// is no longer remembered or was never said.
    pub is_restart: bool,
    /// The changes with their numbers, ascending; of each run only the newest.
    pub changes: Vec<(u64, PointerChange)>,
    /// The place with these changes: what is to be asked for next.
    pub upto: Upto,
    /// Whether there is more.
    pub has_more: bool,
}

/// A page of pointer changes from a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The peer. What it says of runs of others is left out.
    pub owner: RuntimeId,
    /// Whether all that was kept of it goes first.
    pub is_restart: bool,
    /// What it said, in its order.
    pub changes: Vec<PointerChange>,
    /// How far it is told with this. A page that is older than what is kept changes nothing, unless it is a new beginning.
    pub upto: Upto,
}

/// Where runs are: pointers and nothing else.
pub trait Registry: Send + Sync + fmt::Debug {
    /// Where a run is, own or a peer's.
    fn lookup(&self, run: RunId) -> Pending<'_, Result<Option<Pointer>, Error>>;

    /// Own runs.
    fn list(&self, asked: RunsAsked) -> Pending<'_, Result<RunPage, Error>>;

    /// The instances of own runs.
    fn instances(&self, asked: InstancesAsked) -> Pending<'_, Result<InstancePage, Error>>;

    /// What became of own pointers after a place: the default one for all. Starts, ends and forgotten runs each take the
    /// next number.
    fn changes(&self, after: Upto, limit: usize) -> Pending<'_, Result<PointerChanges, Error>>;

    /// The number of the last change of own pointers.
    fn number(&self) -> Pending<'_, Result<u64, Error>>;

    /// Keeps what a peer said. Of a run that is own or of another peer nothing is taken: the first wins.
    fn replicate(&self, replica: Replica) -> Pending<'_, Result<(), Error>>;

    /// How far a peer's pointers are kept; the default place if none ever were.
    fn replicated_upto(&self, owner: RuntimeId) -> Pending<'_, Result<Upto, Error>>;
}

impl Change {
    /// Which run.
    pub const fn run(&self) -> RunId {
        match self {
            Self::Create { pointer, .. } => pointer.run,
            Self::Append { run, .. } | Self::End { run, .. } => *run,
        }
    }

    /// Its events, in order.
    pub fn events(&self) -> &[Event] {
        match self {
            Self::Create { first: event, .. } | Self::End { last: event, .. } => std::slice::from_ref(event),
            Self::Append { events, .. } => events,
        }
    }

    /// What is wrong with it whatever the store holds.
    pub(in crate::store) fn check(&self) -> Result<(), Refused> {
        let run = self.run();
        let wrong = |fault| Err(Refused::Wrong { run, fault });
        if let Some(event) = self.events().iter().find(|event| EVENT_BYTES_MAX < event.body.len()) {
            return wrong(Fault::TooLong(event.body.len()));
        }
        match self {
            Self::Create { pointer, .. } if pointer.end.is_some() => wrong(Fault::Frame(Kind::RunEnd)),
            Self::Create { first, .. } if first.kind != Kind::RunStart => wrong(Fault::Frame(first.kind)),
            Self::Create { first, .. } => continues(run, 0, first),
            Self::Append { events, .. } => {
                let is_frame = |event: &&Event| matches!(event.kind, Kind::RunStart | Kind::RunEnd);
                events.iter().find(is_frame).map_or(Ok(()), |event| wrong(Fault::Frame(event.kind)))
            }
            Self::End { last, .. } if last.kind != Kind::RunEnd => wrong(Fault::Frame(last.kind)),
            Self::End { .. } => Ok(()),
        }
    }
}

/// Whether an event is the one that comes next.
pub(in crate::store) fn continues(run: RunId, wanted: u64, event: &Event) -> Result<(), Refused> {
    let got = event.index;
    if got == wanted { Ok(()) } else { Err(Refused::Wrong { run, fault: Fault::Number { wanted, got } }) }
}

impl RunCursor {
    /// The place of a run in the order of lists.
    pub const fn of(pointer: &Pointer) -> Self {
        Self { started: Wall::from_millis(pointer.started.as_millis()), run: pointer.run }
    }
}

impl Upto {
    /// Whether a log of this length that has dropped its forgotten runs up to a number can go on from here.
    pub(in crate::store) const fn is_continued_by(self, head: u64, dropped_upto: u64) -> bool {
        self.number <= head && (dropped_upto <= self.number || dropped_upto <= self.floor)
    }
}

impl PointerChange {
    /// Which run.
    pub const fn run(&self) -> RunId {
        match self {
            Self::Put(pointer) => pointer.run,
            Self::Forgotten(run) => *run,
        }
    }
}

#[cfg(test)]
pub(in crate::store) mod contract;
