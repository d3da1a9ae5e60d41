//! The runs of this node as its callers see them.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::domain::code::Code;
use crate::domain::preflight::Asker;
use crate::domain::run::{AgentName, Event, Instance, Run, RunId};
use crate::engine::effect::Answer;
use crate::engine::input::{Invoke, Request};
use crate::engine::record::OpenRun;
use crate::handle::runs::{
    Absent, EventsAsked, Fault, Follower, InstancePage, Next, RunPage, Runs, RunsAsked, Started,
};
use crate::handle::{Failure, Pending};
use crate::node::driver::Mail;
use crate::node::reach::Shelf;
use crate::node::runs::Outside;
use crate::node::runs::ends::Awaited;
use crate::node::runs::keeper::Keeper;
use crate::store;
use crate::store::runs::feed::RunReader;
use crate::store::runs::{self, AgentInstance, InstancesAsked, RunCursor, hub};

/// Most bytes of events in one answer: a page may be shorter than asked for, but never empty while there is more.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most bytes of events that a follower is given at once.
const FOLLOW_BYTES_MAX: usize = 256 * 1024;

/// Own runs.
pub(in crate::node) struct LocalRuns {
    keeper: Arc<Keeper>,
    mailbox: mpsc::Sender<Mail>,
}

impl fmt::Debug for LocalRuns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LocalRuns").field("feeds", &self.keeper.feeds.count()).finish_non_exhaustive()
    }
}

impl LocalRuns {
    pub(in crate::node) fn new(keeper: Arc<Keeper>, mailbox: mpsc::Sender<Mail>) -> Self {
        Self { keeper, mailbox }
    }

    /// Where own runs are kept.
    pub(in crate::node) fn shelf(&self) -> Shelf {
        let Outside { store, registry, .. } = self.outside();
        let (store, registry, feeds) = (Arc::clone(store), Arc::clone(registry), Arc::clone(&self.keeper.feeds));
        Shelf { store, registry, feeds, begun: self.keeper.begun(), held: Arc::clone(&self.keeper.held) }
    }

    fn outside(&self) -> &Outside {
        &self.keeper.outside
    }

    async fn accept(&self, asker: Asker, invoke: Invoke) -> Result<Started, Failure> {
        let stopping = || Failure { code: Code::ServerBusy, reason: "this runtime is stopping".to_owned() };
        let asking = self.keeper.ends.ask();
        let (tx, rx) = oneshot::channel();
        let request = Request::StartRun { asker, invoke: Box::new(invoke) };
        self.mailbox.send(Mail::Request(request, tx)).await.map_err(|_closed| stopping())?;
        let run = match rx.await.map_err(|_dropped| stopping())?? {
            Answer::RunAccepted(run) => run,
            Answer::Refused { code, reason } => return Err(Failure { code, reason }),
            Answer::Begun { .. } | Answer::Overtaken { .. } | Answer::Recorded | Answer::Witnessed(_) => {
                let reason = "the engine gave an answer to another question".to_owned();
                return Err(Failure { code: Code::Interrupted, reason });
            }
        };
        let Awaited { begun, ended, reader } = asking.take(run).await.ok_or_else(stopping)?;
        if begun.await.is_err() {
            let reason = format!("{run} was not written, and so it is none");
            return Err(Failure { code: Code::StorageUnavailable, reason });
        }
        let follower = |reader| LocalFollower { keeper: Arc::clone(&self.keeper), run, place: Place::Taken(reader) };
        let events = reader.map(|reader| -> Box<dyn Follower> { Box::new(follower(reader)) });
        let held = Arc::clone(&self.keeper.held);
        let ended = async move {
            tokio::select! {
                biased;
                ended = ended => ended.map_err(|_dropped| Absent::HeldUp),
                () = held.too_long(run) => Err(Absent::HeldUp),
            }
        };
        Ok(Started { run, events, ended: Box::pin(ended) })
    }

    async fn find(&self, run: RunId) -> Result<Run, Absent> {
        // The engine knows it before the store does.
        let open = self.keeper.open(run);
        let kept = self.outside().store.run(run).await.map_err(|error| unavailable(&error))?;
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let open = self.to_come(run, open).await?;
        Ok(Run { pointer: self.keeper.pointer(&open), result: None, error: None })
    }

    async fn page(&self, asked: EventsAsked) -> Result<Vec<Event>, Absent> {
        let EventsAsked { run, after, kinds, limit } = asked;
        let from = after.map_or(0, |after| after.saturating_add(1));
        let asked = runs::EventsAsked { run, from, kinds, limit, bytes_max: PAGE_BYTES_MAX };
        let open = self.keeper.open(run);
        match self.outside().store.events(asked).await.map_err(|error| unavailable(&error))? {
            Some(page) => Ok(page.events),
            None => self.to_come(run, open).await.map(|_open| Vec::new()),
        }
    }

    async fn to_come(&self, run: RunId, open: Option<Arc<OpenRun>>) -> Result<Arc<OpenRun>, Absent> {
        to_come(&self.keeper, run, open).await
    }

    /// One who follows a run from now on, whether or not it is in the store already: who follows is answered at once.
    async fn follower(&self, run: RunId, after: Option<u64>) -> Result<LocalFollower, Absent> {
        let reader = reader(&self.keeper, run, after).await?;
        let place = reader.map_or(Place::ToCome { after }, Place::Taken);
        Ok(LocalFollower { keeper: Arc::clone(&self.keeper), run, place })
    }
}

/// A run that was open before it was looked for and not found: accepted and not in the store yet. One that has ended and is
/// forgotten is open too, until the engine has heard of it.
async fn to_come(keeper: &Keeper, run: RunId, open: Option<Arc<OpenRun>>) -> Result<Arc<OpenRun>, Absent> {
    let open = open.ok_or(Absent::Unknown)?;
    let is_forgotten = keeper.outside.store.is_forgotten(run).await.map_err(|error| unavailable(&error))?;
    if is_forgotten { Err(Absent::Unknown) } else { Ok(open) }
}

/// A reader of a run, if it is in the store; none of one that is accepted and not there yet.
async fn reader(keeper: &Keeper, run: RunId, after: Option<u64>) -> Result<Option<RunReader>, Absent> {
    let open = keeper.open(run);
    let reader = keeper.feeds.reader(run, after).await.map_err(|error| unavailable(&error))?;
    if reader.is_none() {
        to_come(keeper, run, open).await?;
    }
    Ok(reader)
}

fn unavailable(error: &store::Error) -> Failure {
    Failure { code: Code::StorageUnavailable, reason: error.to_string() }
}

/// One reader of one own run.
#[derive(Debug)]
struct LocalFollower {
    keeper: Arc<Keeper>,
    run: RunId,
    place: Place,
}

/// Where it stands.
#[derive(Debug)]
enum Place {
    /// In the run's log.
    Taken(RunReader),
    /// Before its beginning, which is to be written.
    ToCome {
        /// The event behind which it wants to stand.
        after: Option<u64>,
    },
}

impl LocalFollower {
    /// Takes its place in the log, if there is one by now. Whether it has one.
    async fn take_place(&mut self) -> Result<bool, Absent> {
        if let Place::ToCome { after } = self.place {
            let Some(found) = reader(&self.keeper, self.run, after).await? else { return Ok(false) };
            self.place = Place::Taken(found);
        }
        Ok(true)
    }

    /// Whether there is something for it now.
    async fn has_news(&mut self) -> Result<bool, Absent> {
        self.take_place().await?;
        Ok(match &self.place {
            Place::Taken(reader) => reader.has_news(),
            Place::ToCome { .. } => false,
        })
    }

    async fn next_written(&mut self) -> Result<Next, Absent> {
        let mut begun = self.keeper.begun();
        while !self.take_place().await? {
            begun.changed().await.map_err(|_gone| Absent::Unknown)?;
        }
        let Place::Taken(reader) = &mut self.place else { return Err(Absent::Unknown) };
        match reader.next_page(FOLLOW_BYTES_MAX).await.map_err(|error| unavailable(&error))? {
            hub::Next::Page(events) => Ok(Next::Events(events)),
            hub::Next::End => Ok(Next::End),
            hub::Next::Gone => Ok(Next::Gone),
        }
    }

    /// What is written comes first, however long nothing can be added to it.
    async fn next_or_told(&mut self) -> Result<Next, Absent> {
        if self.has_news().await? {
            return self.next_written().await;
        }
        let (held, run) = (Arc::clone(&self.keeper.held), self.run);
        tokio::select! {
            biased;
            next = self.next_written() => next,
            () = held.too_long(run) => Err(Absent::HeldUp),
        }
    }
}

impl Follower for LocalFollower {
    fn next(&mut self) -> Pending<'_, Result<Next, Absent>> {
        Box::pin(self.next_or_told())
    }
}

impl Runs for LocalRuns {
    fn has_store(&self) -> bool {
        true
    }

    fn start(&self, asker: Asker, invoke: Invoke) -> Pending<'_, Result<Started, Failure>> {
        Box::pin(self.accept(asker, invoke))
    }

    fn run(&self, _asker: Asker, run: RunId) -> Pending<'_, Result<Run, Absent>> {
        Box::pin(self.find(run))
    }

    fn events(&self, _asker: Asker, asked: EventsAsked) -> Pending<'_, Result<Vec<Event>, Absent>> {
        Box::pin(self.page(asked))
    }

    fn follow(&self, _asker: Asker, run: RunId, after: Option<u64>) -> Pending<'_, Result<Box<dyn Follower>, Absent>> {
        Box::pin(async move {
            let follower: Box<dyn Follower> = Box::new(self.follower(run, after).await?);
            Ok(follower)
        })
    }

    fn fault(&self) -> Option<Fault> {
        let error = self.outside().store.fault()?;
        Some(Fault { is_passing: matches!(error, store::Error::NoSpace { .. }), reason: error.to_string() })
    }

    fn is_being_checked(&self) -> bool {
        self.outside().store.is_being_checked()
    }

    fn list(&self, asked: RunsAsked) -> Pending<'_, Result<RunPage, Failure>> {
        let RunsAsked { status, agent, instance, cursor, limit } = asked;
        let cursor = cursor.map(|(started, run)| RunCursor { started, run });
        let asked = runs::RunsAsked { status, agent, instance, cursor, limit };
        Box::pin(async move {
            let page = self.outside().registry.list(asked).await.map_err(|error| unavailable(&error))?;
            let next = page.next.map(|cursor| (cursor.started, cursor.run));
            Ok(RunPage { pointers: page.pointers, next })
        })
    }

    fn instances(
        &self,
        agent: Option<AgentName>,
        cursor: Option<(AgentName, Instance)>,
        limit: usize,
    ) -> Pending<'_, Result<InstancePage, Failure>> {
        let cursor = cursor.map(|(agent, instance)| AgentInstance { agent, instance });
        Box::pin(async move {
            let asked = InstancesAsked { agent, cursor, limit };
            let page = self.outside().registry.instances(asked).await.map_err(|error| unavailable(&error))?;
            let pair = |it: AgentInstance| (it.agent, it.instance);
            let next = page.next.map(pair);
            Ok(InstancePage { instances: page.instances.into_iter().map(pair).collect(), next })
        })
    }
}
