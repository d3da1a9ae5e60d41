//! All runs as callers of this node see them: own ones, those whose pointer is known, and those that a peer knows of.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::asking::{Asking, Unanswered, denied};
use super::fetch::{Bounds, Lost, Unfetched, fetch};
use super::follower::RemoteFollower;
use super::known::Known;
use super::locate::Whereabouts;
use super::places::Places;
use super::{Patience, millis};
use crate::domain::code::Code;
use crate::domain::preflight::Asker;
use crate::domain::run::{AgentName, Event, Instance, Pointer, Run, RunId};
use crate::domain::time::Millis;
use crate::engine::input::Invoke;
use crate::handle::runs::{
    Absent, EVENTS_MAX, EventsAsked, Fault, Follower, InstancePage, RunPage, Runs, RunsAsked, Started,
};
use crate::handle::{Failure, Pending};
use crate::wire::mesh::{Announced, Part, RunAnswer, RunAsked, Whole};

/// Questions to everybody at once; others wait as long as one takes. Each is a signature and a message per peer, and made-up
/// names ask them too.
const LOCATING_MAX: usize = 16;

/// Most bytes of events in one answer. The caller goes on behind the last one.
const EVENTS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Long results and errors that are put together at once; others wait as long as one answer takes. Each has at most
/// [`BROUGHT_BYTES_MAX`](crate::wire::mesh::BROUGHT_BYTES_MAX), which makes 32 MiB.
const ASSEMBLING_MAX: usize = 16;

/// Those of one owner, so that a slow one leaves places to the others.
const ASSEMBLING_OF_ONE_MAX: usize = 4;

/// Own runs and those of others.
#[derive(Debug)]
pub(in crate::node) struct MeshRuns {
    pub(in crate::node) local: Arc<dyn Runs>,
    pub(in crate::node) asking: Arc<Asking>,
    pub(in crate::node) known: Arc<Known>,
    pub(in crate::node) patience: Patience,
    pub(in crate::node) locating: Semaphore,
    pub(super) assembling: Places,
}

impl MeshRuns {
    pub(in crate::node) fn new(
        local: Arc<dyn Runs>,
        asking: Arc<Asking>,
        known: Arc<Known>,
        patience: Patience,
    ) -> Self {
        let locating = Semaphore::new(LOCATING_MAX);
        let assembling = Places::new(ASSEMBLING_MAX, ASSEMBLING_OF_ONE_MAX);
        Self { local, asking, known, patience, locating, assembling }
    }

    /// Asks the owner. A run that it has forgotten is unknown here too from now on.
    async fn ask(&self, asker: &Asker, pointer: &Pointer, asked: &RunAsked) -> Result<RunAnswer, Absent> {
        self.ask_within(asker, pointer, asked, millis(self.patience.answer)).await
    }

    async fn ask_within(
        &self,
        asker: &Asker,
        pointer: &Pointer,
        asked: &RunAsked,
        within: Millis,
    ) -> Result<RunAnswer, Absent> {
        let within = Duration::from_millis(within.0);
        match self.asking.ask(asker, &pointer.owner, (pointer.run, asked), within).await {
            Ok(RunAnswer::Unknown) => {
                self.known.forget(pointer).await;
                Err(Absent::Unknown)
            }
            Ok(RunAnswer::Denied(denial)) | Err(Unanswered::Denied(denial)) => Err(denied(&denial)),
            Ok(
                answer @ (RunAnswer::Announced(_)
                | RunAnswer::Events(..)
                | RunAnswer::HeldUp(_)
                | RunAnswer::Piece(_)
                | RunAnswer::Pointer(_)
                | RunAnswer::Record(_)),
            ) => Ok(answer),
            Err(Unanswered::Busy) => Err(Absent::failed(Code::ServerBusy, format!("{} is busy", pointer.owner))),
            Err(Unanswered::Misunderstood | Unanswered::Silent) => Err(unreachable(pointer)),
        }
    }

    async fn record(&self, asker: &Asker, pointer: &Pointer) -> Result<Run, Absent> {
        let announced = match self.ask(asker, pointer, &RunAsked::Record).await? {
            RunAnswer::Record(run) => Announced { run: *run, result: None, error: None },
            RunAnswer::Announced(announced) => *announced,
            RunAnswer::Denied(_)
            | RunAnswer::Events(..)
            | RunAnswer::HeldUp(_)
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
        let place = tokio::time::timeout(self.patience.answer, self.assembling.take(&pointer.owner));
        let Ok(Some(_place)) = place.await else {
            let reason = format!("too many long records of {} are being fetched", pointer.owner);
            return Err(Absent::failed(Code::ServerBusy, reason));
        };
        let bounds = self.bounds();
        if let Some(whole) = result {
            run.result = Some(self.part(asker, pointer, (Part::Result, whole), bounds).await?);
        }
        if let Some(whole) = error {
            run.error = Some(self.part(asker, pointer, (Part::Error, whole), bounds).await?);
        }
        Ok(run)
    }

    /// A long result or error, piece by piece.
    async fn part(
        &self,
        asker: &Asker,
        pointer: &Pointer,
        (part, whole): (Part, Whole),
        bounds: Bounds,
    ) -> Result<String, Absent> {
        let ask = |from, most, within| async move {
            match self.ask_within(asker, pointer, &RunAsked::Part { part, from, most }, within).await {
                Ok(RunAnswer::Piece(piece)) => Ok(piece),
                // Others do not come: the form of an answer is checked.
                Ok(_) | Err(Absent::OwnerUnreachable(_)) => Err(Lost::Silent),
                Err(absent) => Err(Lost::Other(absent)),
            }
        };
        let now = || self.asking.clock.now().monotonic;
        fetch(whole, bounds, now, ask).await.map_err(|unfetched| match unfetched {
            Unfetched::Refused(refusal) => {
                self.asking.refuse(&pointer.owner, refusal);
                unreachable(pointer)
            }
            Unfetched::Silent => unreachable(pointer),
            Unfetched::Slow(has) => self.slow(pointer, part.as_str(), &format!("{has} of {} bytes", whole.bytes)),
            Unfetched::Other(absent) => absent,
        })
    }

    /// What all pages or pieces of one answer may take, however many there are.
    fn bounds(&self) -> Bounds {
        let until = self.asking.clock.now().monotonic.plus(millis(self.patience.whole));
        Bounds { answer: millis(self.patience.answer), until }
    }

    fn slow(&self, pointer: &Pointer, what: &str, came: &str) -> Absent {
        let seconds = self.patience.whole.as_secs_f32();
        let reason = format!("the link to {} is too slow for the {what}: {came} came in {seconds} s", pointer.owner);
        Absent::OwnerTooSlow(Box::new(pointer.clone()), reason)
    }

    /// Pages until there are as many as wanted, or until the time for them is over: a page may be shorter than was asked for
    /// (contract, RR-39).
    async fn pages(&self, asker: &Asker, pointer: &Pointer, wanted: &EventsAsked) -> Result<Vec<Event>, Absent> {
        let (mut events, mut bytes): (Vec<Event>, usize) = (Vec::new(), 0);
        let (mut from, bounds) = (behind(wanted.after), self.bounds());
        let limit = wanted.limit.clamp(1, EVENTS_MAX);
        loop {
            let asked = RunAsked::Events {
                from,
                kinds: wanted.kinds.clone(),
                limit: limit.saturating_sub(events.len()),
                wait: Millis(0),
                takes_held: false,
            };
            let now = || self.asking.clock.now().monotonic;
            let Some(within) = bounds.next(now()) else {
                let slow = || self.slow(pointer, "events", "none of those that were asked for");
                return if events.is_empty() { Err(slow()) } else { Ok(events) };
            };
            let (said, page) = match self.ask_within(asker, pointer, &asked, within).await {
                Ok(RunAnswer::Events(said, page)) => (said, page),
                // The time for all of them was shorter than that of an answer.
                Err(Absent::OwnerUnreachable(_)) if bounds.next(now()).is_none() => continue,
                Ok(_) => return Err(unreachable(pointer)),
                Err(absent) => return Err(absent),
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
        let wait = Millis(0);
        let asked = RunAsked::Events { from: next, kinds: None, limit: EVENTS_MAX, wait, takes_held: false };
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
            takes_held: true,
            heard: self.asking.clock.now().monotonic,
        }))
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
                Whereabouts::Here => self.local.run(asker, run).await,
                Whereabouts::There(pointer) => self.record(&asker, &pointer).await,
            }
        })
    }

    fn events(&self, asker: Asker, asked: EventsAsked) -> Pending<'_, Result<Vec<Event>, Absent>> {
        Box::pin(async move {
            match self.find(&asker, asked.run).await? {
                Whereabouts::Here => self.local.events(asker, asked).await,
                Whereabouts::There(pointer) => self.pages(&asker, &pointer, &asked).await,
            }
        })
    }

    fn follow(&self, asker: Asker, run: RunId, after: Option<u64>) -> Pending<'_, Result<Box<dyn Follower>, Absent>> {
        Box::pin(async move {
            match self.find(&asker, run).await? {
                Whereabouts::Here => self.local.follow(asker, run, after).await,
                Whereabouts::There(pointer) => self.follow_there(asker, pointer, after).await,
            }
        })
    }

    fn fault(&self) -> Option<Fault> {
        self.local.fault()
    }

    fn is_being_checked(&self) -> bool {
        self.local.is_being_checked()
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
