//! Runs as callers of this node see them, wherever in the mesh they are.
//!
//! A caller has a run's bare id and nothing else; where the run is, the implementation finds out.

use std::collections::BTreeSet;
use std::fmt;

use crate::domain::code::Code;
use crate::domain::id::RuntimeId;
use crate::domain::preflight::Asker;
use crate::domain::run::{AgentName, Event, Instance, Kind, Pointer, Run, RunId, Status};
use crate::domain::stretch::Stretch;
use crate::engine::input::Invoke;
use crate::handle::{Failure, Pending};

/// Most events on one page (contract, RR-34).
pub const EVENTS_MAX: usize = 1_000;

/// Which events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsAsked {
    /// Of which run.
    pub run: RunId,
    /// Only those behind this number; all of them if absent.
    pub after: Option<u64>,
    /// Only these kinds; any if absent.
    pub kinds: Option<BTreeSet<Kind>>,
    /// At most this many: 1 to [`EVENTS_MAX`].
    pub limit: usize,
}

/// Why a run cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// Nobody who could be asked knows it.
    #[error("no runtime that could be asked knows this run")]
    Unknown,
    /// More than one runtime says that it has it, and all of them are believed alike.
    #[error("the run is claimed by {}, of which one has it at most", names(.0))]
    Contested(Vec<RuntimeId>),
    /// What is wanted of it did not come in the time that there is for that. What was last known of it is here.
    #[error("{1}")]
    OwnerTooSlow(Box<Pointer>, String),
    /// It is at a runtime that cannot be reached now. What was last known of it is here.
    #[error("the run is at {}, which cannot be reached now", .0.owner)]
    OwnerUnreachable(Box<Pointer>),
    /// There may be more of it, and nothing more can be written: its runtime's disk is full, or has failed.
    #[error(
        "nothing more of the run can be written at the moment; ask again behind the last event, or later for its record"
    )]
    HeldUp,
    /// The asker may not see it, or this node cannot look.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It is not known here, and not everybody who may have it has answered.
    #[error("not known here, and not every runtime that may have it has answered")]
    Unanswered,
}

fn names(owners: &[RuntimeId]) -> String {
    owners.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

impl Absent {
    /// A failure with its code.
    pub fn failed(code: Code, reason: impl Into<String>) -> Self {
        Self::Failed(Failure { code, reason: reason.into() })
    }
}

/// What comes next in a run that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// At least one event, in order, none of them seen before.
    Events(Stretch<Event>),
    /// All events were given, and there will be no more.
    End,
    /// Where the reader stands nothing is kept any more: the run was forgotten, or its history was cut.
    Gone,
}

/// One reader of one run. Its memory is bounded, and its slowness costs nobody else anything.
pub trait Follower: Send + fmt::Debug {
    /// Waits until there is something. Dropped while it waits, it has lost nothing.
    fn next(&mut self) -> Pending<'_, Result<Next, Absent>>;
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
    /// Where the page begins: behind this run.
    pub cursor: Option<(crate::domain::time::Wall, RunId)>,
    /// At most this many: 1 to 1,000.
    pub limit: usize,
}

/// A page of own runs, newest first, and where the next one begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunPage {
    /// The runs.
    pub pointers: Vec<Pointer>,
    /// Where the next page begins, if there is more.
    pub next: Option<(crate::domain::time::Wall, RunId)>,
}

/// A page of instances that have own runs, ascending, and where the next one begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstancePage {
    /// The instances.
    pub instances: Vec<(AgentName, Instance)>,
    /// Where the next page begins, if there is more.
    pub next: Option<(AgentName, Instance)>,
}

/// A run that has begun, with what whoever started it may wait for. All of it comes with what happens, whether or not the run
/// is kept (contract, RR-60).
pub struct Started {
    /// Which run.
    pub run: RunId,
    /// Its events from the first on, if it was to be followed.
    pub events: Option<Box<dyn Follower>>,
    /// Its record once it has ended.
    pub ended: Pending<'static, Result<Run, Absent>>,
}

impl fmt::Debug for Started {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Started").field("run", &self.run).finish_non_exhaustive()
    }
}

/// What is wrong with the store of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whether it ends by itself, as a full disk does, and not only with the next start.
    pub is_passing: bool,
    /// What the store says.
    pub reason: String,
}

/// Runs, started here and seen from here.
pub trait Runs: Send + Sync + fmt::Debug {
    /// Whether records and events are kept here, and not pointers alone.
    fn has_store(&self) -> bool;

    /// Starts a run of a declared agent on this runtime. It is readable from the moment of this answer.
    fn start(&self, asker: Asker, invoke: Invoke) -> Pending<'_, Result<Started, Failure>>;

    /// The record of a run anywhere in the mesh.
    fn run(&self, asker: Asker, run: RunId) -> Pending<'_, Result<Run, Absent>>;

    /// A page of its events, ascending.
    fn events(&self, asker: Asker, asked: EventsAsked) -> Pending<'_, Result<Vec<Event>, Absent>>;

    /// Follows it from behind this number on, from the beginning if absent: what is stored, then what comes, each event
    /// once.
    fn follow(&self, asker: Asker, run: RunId, after: Option<u64>) -> Pending<'_, Result<Box<dyn Follower>, Absent>>;

    /// Why no run can be kept here at the moment, if so.
    fn fault(&self) -> Option<Fault>;

    /// Whether the file of the runs is still being checked after a stop that was not clean.
    fn is_being_checked(&self) -> bool {
        false
    }

    /// Own runs.
    fn list(&self, asked: RunsAsked) -> Pending<'_, Result<RunPage, Failure>>;

    /// Instances of own runs, of this agent if one is named, behind this one.
    fn instances(
        &self,
        agent: Option<AgentName>,
        cursor: Option<(AgentName, Instance)>,
        limit: usize,
    ) -> Pending<'_, Result<InstancePage, Failure>>;
}
