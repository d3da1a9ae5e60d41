//! Takes what the engine has accepted, and closes what an earlier life has left open.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::run::{End, Pointer, RunId};
use crate::domain::time::Millis;
use crate::domain::workload::Verb;
use crate::engine::input::Request;
use crate::engine::record::{Deed, OpenRun};
use crate::engine::view::View;
use crate::metrics::{Metrics, RunEnd};
use crate::node::clock::Clock;
use crate::node::driver::{Errand, Mail};
use crate::node::runs::Outside;
use crate::node::runs::conduct::Conduct;
use crate::node::runs::ends::{Ends, LaysOut, Teller};
use crate::node::runs::held::{Held, Hold};
use crate::store;
use crate::store::runs::feed::Feeds;
use crate::store::runs::{Change, Outcome, Refused};
use crate::wire::run::{error_of, run_end, run_start};
use crate::workload::supervisor::Handle;

/// How long a full disk, or an engine that takes no writes, is left alone before it is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// How long runs may take to end: the two seconds before their programs are killed, and a little. They end beside the other
/// steps of a stop, which take no longer together.
const END_MAX: Duration = Duration::from_millis(2_600);

/// How long those may take that were begun while the others ended.
const LATE_END_MAX: Duration = Duration::from_millis(200);

/// The part that owns what runs here.
#[derive(Debug)]
pub(in crate::node) struct Keeper {
    pub(in crate::node) clock: Clock,
    pub(in crate::node) views: Arc<ArcSwap<View>>,
    pub(in crate::node) mailbox: mpsc::Sender<Mail>,
    pub(in crate::node) outside: Outside,
    pub(in crate::node) workload: Option<Handle>,
    pub(super) metrics: Arc<Metrics>,
    /// The runs under way, to be waited for at a stop.
    pub(in crate::node) tasks: TaskTracker,
    pub(in crate::node) stop: CancellationToken,
    /// Moves whenever a run is in the store, or will never be.
    begun: watch::Sender<u64>,
    cancels: Mutex<BTreeMap<RunId, CancellationToken>>,
    /// Accepted runs that are none, until the engine has forgotten them.
    none: Mutex<BTreeSet<RunId>>,
    /// Those who follow runs.
    pub(super) feeds: Arc<Feeds>,
    /// Those who have started one and wait for it.
    pub(super) ends: Arc<Ends>,
    /// Those of which nothing can be written.
    pub(super) held: Arc<Held>,
}

/// It will not be written in this life.
#[derive(Debug)]
pub(super) struct Unwritten;

impl Keeper {
    pub(in crate::node) fn new(
        (clock, views, mailbox, metrics): (Clock, Arc<ArcSwap<View>>, mpsc::Sender<Mail>, Arc<Metrics>),
        (outside, workload): (Outside, Option<Handle>),
        stop: CancellationToken,
    ) -> Arc<Self> {
        let (begun, _) = watch::channel(0);
        let (tasks, cancels, none) = (TaskTracker::new(), Mutex::default(), Mutex::default());
        let (ends, held) = (Arc::default(), Arc::default());
        let feeds = Feeds::new(Arc::clone(&outside.store));
        Arc::new(Self {
            clock,
            views,
            mailbox,
            metrics,
            outside,
            workload,
            tasks,
            stop,
            begun,
            cancels,
            none,
            feeds,
            ends,
            held,
        })
    }

    /// Does what comes until the node stops, and closes these first: they were open when the node started.
    pub(in crate::node) async fn run(self: Arc<Self>, left: Vec<Arc<OpenRun>>, mut errands: mpsc::Receiver<Errand>) {
        let (this, lays_out) = (Arc::clone(&self), self.ends.lays_out());
        self.tasks.spawn(async move { this.close_left(left).await });
        while let Some(errand) = errands.recv().await {
            match errand {
                Errand::Cancel(run) => {
                    if let Some(cancel) = self.cancels().get(&run) {
                        cancel.cancel();
                    }
                }
                Errand::Perform(deed) => self.perform(*deed),
                Errand::Start(run) => {
                    self.metrics.run_started();
                    let cancel = CancellationToken::new();
                    self.cancels().insert(run.run, cancel.clone());
                    let teller = self.lay_out(&lays_out, &run);
                    self.tasks.spawn(Conduct::new(Arc::clone(&self), run, cancel, teller).run());
                }
            }
        }
    }

    /// For whoever has started it. A command was answered with its name, and nobody waits for more.
    fn lay_out(&self, lays_out: &LaysOut, run: &OpenRun) -> Option<Teller> {
        let is_agent = run.agent.command().is_none();
        let reader = || run.is_streamed.then(|| self.feeds.reader_of_new(run.run));
        is_agent.then(|| lays_out.lay_out(run.run, reader()))
    }

    /// Waits until the runs under way have ended, within their bound. Programs were told to end when the node began to stop.
    pub(in crate::node) async fn ended(&self) {
        self.tasks.close();
        drop(tokio::time::timeout(END_MAX, self.tasks.wait()).await);
    }

    /// Closes the store of runs. Call when nothing is accepted any more.
    pub(in crate::node) async fn close_store(&self) {
        if tokio::time::timeout(LATE_END_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!("runs were cut off; the next start gives them an end");
        }
        self.outside.store.close().await;
    }

    fn cancels(&self) -> MutexGuard<'_, BTreeMap<RunId, CancellationToken>> {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows which runs are in the store.
    pub(super) fn begun(&self) -> watch::Receiver<u64> {
        self.begun.subscribe()
    }

    pub(super) fn tell_begun(&self) {
        self.begun.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Its events have an end, or it never began: the engine may forget it.
    pub(super) async fn forget(&self, run: RunId) {
        self.cancels().remove(&run);
        self.tell_engine(|| Request::EndRun { run }).await;
        self.none().remove(&run);
        self.tell_begun();
    }

    /// It was not written and never will be: whoever waits for it is told at once, also where the engine cannot forget it yet.
    pub(super) async fn refuse(&self, run: RunId) {
        self.none().insert(run);
        self.tell_begun();
        self.forget(run).await;
    }

    fn none(&self) -> MutexGuard<'_, BTreeSet<RunId>> {
        self.none.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run if it was accepted here and may be in the store one day.
    pub(super) fn open(&self, run: RunId) -> Option<Arc<OpenRun>> {
        if self.none().contains(&run) {
            return None;
        }
        self.views.load().runs.get(&run).cloned()
    }

    /// Until the engine has it on record; at a stop the next start does it.
    async fn tell_engine(&self, request: impl Fn() -> Request) {
        loop {
            let (tx, rx) = oneshot::channel();
            if self.mailbox.send(Mail::Request(request(), tx)).await.is_err() {
                return;
            }
            match rx.await {
                Ok(Ok(crate::engine::effect::Answer::Recorded)) | Err(_) => return,
                Ok(_) => {
                    if self.pause().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn pause(&self) -> Result<(), Unwritten> {
        let stopped = self.stop.cancelled();
        tokio::time::timeout(RETRY, stopped).await.map_or(Ok(()), |()| Err(Unwritten))
    }

    /// Writes, again and again while there is no space, and once more when the node stops: there may be some by then, and what
    /// is not written now is lost.
    pub(super) async fn write(&self, batch: Vec<Change>) -> Result<Outcome, Unwritten> {
        match self.write_until(batch.clone(), std::future::pending::<Infallible>()).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(never)) => match never {},
            Err(Unwritten) if self.stop.is_cancelled() => self.write_once(batch).await,
            Err(Unwritten) => Err(Unwritten),
        }
    }

    pub(super) async fn write_once(&self, batch: Vec<Change>) -> Result<Outcome, Unwritten> {
        let run = batch.first().map(Change::run);
        self.outside.store.commit(batch).await.map_err(|error| {
            let run_id = run.map(tracing::field::display);
            tracing::warn!(run_id, %error, "not written before the stop; the end of a run is written at the next start");
            Unwritten
        })
    }

    /// The same, until there is a reason not to write it any more. What is written when the reason comes stays written.
    pub(super) async fn write_until<T>(
        &self,
        batch: Vec<Change>,
        over: impl Future<Output = T>,
    ) -> Result<Result<Outcome, T>, Unwritten> {
        let mut over = std::pin::pin!(over);
        let mut hold = None;
        loop {
            match self.outside.store.commit(batch.clone()).await {
                Ok(outcome) => return Ok(Ok(outcome)),
                Err(Refused::Store(store::Error::NoSpace { place, .. })) => {
                    tracing::warn!(%place, "no space for the events of a run; its program is held up");
                    hold = hold.take().or_else(|| batch.first().map(|change| self.held.hold(change.run())));
                }
                Err(error) => {
                    tracing::error!(%error, "the events of a run cannot be written");
                    self.say_fault().await;
                    return Err(Unwritten);
                }
            }
            tokio::select! {
                pause = self.pause() => pause?,
                reason = &mut over => return Ok(Err(reason)),
            }
        }
    }

    /// Lets the engine accept no more runs, where the store has failed for good.
    async fn say_fault(&self) {
        if let Some(fault @ store::Error::Broken { .. }) = self.outside.store.fault() {
            let reason = fault.to_string();
            self.tell_engine(|| Request::RunsFailed { reason: reason.clone() }).await;
        }
    }

    /// Tells the workload, and puts on record what became of it.
    fn perform(self: &Arc<Self>, deed: Deed) {
        let this = Arc::clone(self);
        let verb = Verb::ALL.into_iter().find(|verb| verb.as_str() == deed.command.as_str());
        // Handed over here, so that commands keep their order; waited for in a task of its own.
        let told = match (&self.workload, verb) {
            (Some(workload), Some(verb)) => Ok(workload.tell(verb)),
            (None, _) | (_, None) => Err("there is no workload to tell".to_owned()),
        };
        self.tasks.spawn(async move {
            let result = match told {
                Ok(answer) => {
                    let answer = answer.await;
                    answer.map(|status| status.state.as_str().to_owned()).map_err(|refusal| refusal.to_string())
                }
                Err(reason) => Err(reason),
            };
            let deed = Box::new(deed);
            let conclude = || Request::ConcludeDeed { deed: deed.clone(), result: result.clone() };
            this.tell_engine(conclude).await;
        });
    }

    async fn close_left(&self, left: Vec<Arc<OpenRun>>) {
        // One that cannot be closed leaves the others no less closed; the next start asks again.
        let mut closed = Vec::new();
        // All of them from now on: on a full disk the first one keeps the others waiting.
        let holds: Vec<Hold> = left.iter().map(|run| self.held.hold(run.run)).collect();
        for (run, hold) in left.into_iter().zip(holds) {
            let pointer = self.pointer(&run);
            if self.close(pointer, Some(&run.payload), &left_open()).await.is_ok() {
                closed.push(run.run);
            } else {
                hold.stay();
            }
        }
        let unfinished = self.outside.store.unfinished().await.unwrap_or_else(|error| {
            tracing::error!(%error, "runs that an earlier life left open cannot be found");
            Vec::new()
        });
        for run in unfinished {
            let is_accepted_now = self.views.load().runs.contains_key(&run);
            let kept = self.outside.store.run(run).await.ok().flatten();
            if let (false, Some(kept)) = (is_accepted_now, kept) {
                let hold = self.held.hold(run);
                if self.close(kept.pointer, None, &left_open()).await.is_err() {
                    hold.stay();
                }
            }
        }
        for run in closed {
            self.forget(run).await;
        }
    }

    /// Reads, again and again while it fails for another reason than what is read.
    async fn read<'a, T>(&self, ask: impl Fn() -> store::Pending<'a, Result<T, store::Error>>) -> Result<T, Unwritten> {
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tracing::error!(%error, "a run of an earlier life cannot be read");
            if matches!(error, store::Error::Unreadable { .. }) {
                return Err(Unwritten);
            }
            self.pause().await?;
        }
    }

    /// Gives a run that nobody runs an end, and a beginning if it has none.
    pub(super) async fn close(&self, pointer: Pointer, payload: Option<&str>, error: &str) -> Result<(), Unwritten> {
        let head = self.read(|| self.outside.store.head(pointer.run)).await?;
        let mut batch = Vec::new();
        let index = match head {
            Some(head) if head.is_ended => return Ok(()),
            Some(head) => head.count,
            // It ended in an earlier life, and only the engine was not told.
            None if self.read(|| self.outside.store.is_forgotten(pointer.run)).await? => return Ok(()),
            None => {
                let first = run_start(&pointer, payload.unwrap_or("null"));
                batch.push(Change::Create { pointer: pointer.clone(), first });
                1
            }
        };
        let at = self.clock.now().wall;
        let duration = Millis(at.as_millis().saturating_sub(pointer.started.as_millis()));
        let end = End { at, is_error: true, duration };
        let last = run_end(pointer.run, index, &end, None, Some(error));
        batch.push(Change::End { run: pointer.run, end, result: None, error: Some(error.to_owned()), last });
        note_own_end(pointer.run, &self.write(batch).await?);
        self.metrics.run_ended(RunEnd::Errored);
        Ok(())
    }

    pub(super) fn pointer(&self, run: &OpenRun) -> Pointer {
        run.pointer(self.views.load().me())
    }
}

/// Says it where a run had to go the moment it ended, because those that are kept began later (contract, RR-60). Whoever looks
/// for it finds nothing from now on.
pub(super) fn note_own_end(run: RunId, outcome: &Outcome) {
    if outcome.forgotten.contains(&run) {
        let remedy = "raise runtime.store.runs_kept, or runtime.store.runs_max_mb where runs fill their space";
        tracing::warn!(run_id = %run, code = "run_not_found", remedy, "a run was forgotten by its own end");
    }
}

/// The error of a run that was ended with its runtime.
pub(super) fn interrupted() -> String {
    error_of("Interrupted", "the runtime stopped while the run went on")
}

/// The error of a run that an earlier life has left without an end: how its program ended, if it did, nobody knows any more.
fn left_open() -> String {
    error_of("Interrupted", "the runtime stopped before the end of the run was written")
}
