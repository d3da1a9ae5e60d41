//! The only loop that changes anything: take inputs, decide, make durable, then speak.
//!
//! A batch of inputs shares one commit. If the commit fails, nothing of the batch is spoken: its callers hear
//! `storage_unavailable`, and the engine is rebuilt from what is durable (DESIGN, *A failing disk*).

mod waiting;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::audit::{AuditId, Position};
use crate::domain::code::Code;
use crate::domain::config::Value;
use crate::domain::envelope::Receipt;
use crate::domain::run::RunId;
use crate::domain::time::{Millis, Monotonic};
use crate::engine::Engine;
use crate::engine::effect::{Effect, Effects};
use crate::engine::input::{Input, QueryId};
use crate::engine::record::{Batch, Deed, OpenRun};
use crate::engine::view::View;
use crate::mesh::{self, Responder};
use crate::metrics::Metrics;
use crate::node::clock::{Clock, SystemEntropy};
use crate::node::keyring::Keyring;
use crate::node::trace;
use crate::store::{self, Store};
use crate::wire;

pub(super) use waiting::Mail;
use waiting::Waiting;

/// Mails waiting for the loop: a second of observations from 1,000 peers. Senders wait when it is full.
pub(super) const MAILBOX_MAX: usize = 1_024;

/// Mails that go before all others: reloads, and what a person says at this node. Senders wait when it is full.
pub(super) const URGENT_MAX: usize = 4;

/// Most inputs that share one commit, so that the first of them does not wait for the last of many.
const BATCH_INPUTS_MAX: usize = 256;

/// How often a full disk is tried again.
const RETRY_WRITING: Millis = Millis::from_secs(5);

/// Errands waiting for whoever starts programs: runs and commands under way, and cancellations. The loop waits for room.
pub(super) const ERRANDS_MAX: usize = 512;

/// Something to do on this machine, durable as accepted.
#[derive(Debug)]
pub(super) enum Errand {
    /// Tell the program of this run to end.
    Cancel(RunId),
    /// Tell the workload.
    Perform(Box<Deed>),
    /// Begin this run.
    Start(Arc<OpenRun>),
}

/// Applies live settings to the parts of the node that are not the engine.
pub type ApplySettings = Box<dyn Fn(&BTreeMap<String, Value>) + Send + Sync>;

/// The loop's owner of everything that changes.
pub(super) struct Driver {
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn Store>,
    pub(super) views: Arc<ArcSwap<View>>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) tasks: TaskTracker,
    pub(super) apply: ApplySettings,
    pub(super) mailbox: mpsc::Receiver<Mail>,
    /// What is taken back counts for everything that waits.
    pub(super) urgent: mpsc::Receiver<Mail>,
    /// To whoever starts programs.
    pub(super) errands: mpsc::Sender<Errand>,
    pub(super) metrics: Arc<Metrics>,
    /// When a full disk is tried again.
    pub(super) retry_at: Monotonic,
}

impl fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Driver").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Driver {
    /// Runs until told to stop, then empties the mailbox once more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut mails = Vec::with_capacity(BATCH_INPUTS_MAX);
        loop {
            let is_stopping = self.select(&stop, &mut mails).await;
            let is_last = is_stopping && mails.is_empty();
            self.turn(&mut mails).await;
            if is_last {
                return;
            }
        }
    }

    /// Only awaits. Gives whether the node is stopping.
    async fn select(&mut self, stop: &CancellationToken, mails: &mut Vec<Mail>) -> bool {
        let now = self.clock.now().monotonic;
        let deadline = self.engine.next_deadline().map(|at| until(now, at));
        let retry = self.store_may_recover().then(|| until(now, self.retry_at));
        let sleep = [deadline, retry].into_iter().flatten().min().unwrap_or(Duration::from_secs(3_600));
        if stop.is_cancelled() {
            self.mailbox.close();
            self.mailbox.recv_many(mails, BATCH_INPUTS_MAX).await;
            return true;
        }
        tokio::select! {
            biased;
            Some(mail) = self.urgent.recv() => {
                mails.push(mail);
                false
            }
            _count = self.mailbox.recv_many(mails, BATCH_INPUTS_MAX) => false,
            () = stop.cancelled() => false,
            () = tokio::time::sleep(sleep) => false,
        }
    }

    fn store_may_recover(&self) -> bool {
        self.engine.view().is_read_only && !matches!(self.store.fault(), Some(store::Error::Broken { .. }))
    }

    pub(super) async fn turn(&mut self, mails: &mut Vec<Mail>) {
        let mut waiting = Waiting::default();
        let mut effects = Effects::default();
        if mails.is_empty() {
            self.handle(Input::Timer, &mut effects);
        }
        let view = self.views.load_full();
        let urgent = std::iter::from_fn(|| self.urgent.try_recv().ok()).collect::<Vec<_>>();
        for mail in urgent.into_iter().chain(mails.drain(..)) {
            let input = waiting.admit(mail, &self.engine, view.me(), self.clock.now().wall);
            self.handle(input, &mut effects);
        }
        // Not at every turn: each failure costs the answers of its batch.
        if self.store_may_recover() && self.retry_at <= self.clock.now().monotonic {
            self.try_writing(&mut effects).await;
        }
        let ids: Vec<AuditId> = effects.batch.audits.iter().map(|draft| draft.audit_id).collect();
        let positions = if effects.batch.is_empty() {
            Vec::new()
        } else {
            match self.commit(effects.batch).await {
                Ok(positions) => {
                    self.engine.settle();
                    positions
                }
                Err(error) => {
                    self.fall_back(&error, &ids).await;
                    self.ask_again(&mut waiting).await;
                    waiting.fail(&error, &effects.after, &self.engine);
                    return;
                }
            }
        };
        self.views.store(Arc::new(self.engine.view()));
        self.release(effects.after, &mut waiting, &ids.into_iter().zip(positions).collect()).await;
        for met in waiting.met {
            // Whoever went away no longer needs to know.
            if met.send(()).is_err() {}
        }
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Position>, store::Error> {
        let began = self.clock.now().monotonic.0;
        let committed = self.store.commit(batch).await;
        let took = self.clock.now().monotonic.0.saturating_sub(began);
        self.metrics.committed(committed.is_ok(), took);
        note_length(&self.metrics, committed.as_deref().unwrap_or_default());
        committed
    }

    fn handle(&mut self, input: Input, effects: &mut Effects) {
        self.engine.handle(self.clock.now(), &mut SystemEntropy, input, effects);
    }

    /// Asks the engine again, now without the failed batch and without writing: a write that was done before gets its stored
    /// receipt, any other a refusal, which is signed where the engine knows that it was not done. An outcome is put off.
    async fn ask_again(&mut self, waiting: &mut Waiting) {
        let mut effects = Effects::default();
        for (query, received) in std::mem::take(&mut waiting.acts) {
            self.handle(Input::Act { query, received: *received }, &mut effects);
        }
        for (reply, request) in std::mem::take(&mut waiting.outcomes) {
            self.handle(Input::Request { reply, request }, &mut effects);
        }
        self.release(effects.after, waiting, &BTreeMap::new()).await;
    }

    /// Nothing of the failed batch counts: forget it and go on without writing.
    async fn fall_back(&mut self, error: &store::Error, records: &[AuditId]) {
        tracing::error!(%error, "the store failed; going on read-only");
        if error.may_be_written() {
            self.engine.doubt(records);
        }
        if !self.rebuild().await {
            // The last view shows nothing but what was durable before this batch.
            self.engine.go_back_to(&self.views.load());
        }
        self.engine.stop_writing();
        // Settings count from their reload on, and the word to take them may have gone with the batch.
        (self.apply)(&self.engine.values_in_force());
        self.retry_at = self.clock.now().monotonic.plus(RETRY_WRITING);
        self.views.store(Arc::new(self.engine.view()));
    }

    /// Lets the engine write again. One that has forgotten its receipts has to know them first, or it would do a second time
    /// what it did before.
    async fn try_writing(&mut self, effects: &mut Effects) {
        if self.engine.has_forgotten() && !self.rebuild().await {
            self.retry_at = self.clock.now().monotonic.plus(RETRY_WRITING);
            return;
        }
        self.engine.resume_writing(self.clock.now(), &mut SystemEntropy, effects);
    }

    /// Builds the engine from what is durable. Gives whether that could be done.
    async fn rebuild(&mut self) -> bool {
        let now = self.clock.now();
        match self.store.recall().await {
            Ok(records) => match self.engine.rebuilt(records, now) {
                Ok(engine) => {
                    self.engine = engine;
                    return true;
                }
                Err(error) => tracing::error!(%error, "the stored facts do not make an engine"),
            },
            Err(error) => tracing::error!(%error, "the stored facts cannot be read back"),
        }
        false
    }

    async fn release(&self, after: Vec<Effect>, waiting: &mut Waiting, positions: &BTreeMap<AuditId, Position>) {
        for effect in after {
            match effect {
                Effect::Answer { query, receipt } => {
                    self.tell(waiting, query, trace::ruled(&receipt.ruling));
                    if let Some(responder) = waiting.queries.remove(&query) {
                        self.answer(responder, *receipt, positions);
                    }
                }
                Effect::Apply { values } => (self.apply)(&values),
                Effect::AuditLightly { drafts, waiter } => {
                    // A disk that failed must not stop the answers (DESIGN, *A failing disk*); health names it.
                    if let Err(full) = self.store.append_reads(drafts)
                        && self.store.reads_fault().is_none()
                    {
                        waiting.turn_away(waiter, full);
                    }
                }
                Effect::CancelRun(run) => self.hand_over(Errand::Cancel(run)).await,
                Effect::Perform(deed) => self.hand_over(Errand::Perform(deed)).await,
                Effect::StartRun(run) => self.hand_over(Errand::Start(run)).await,
                Effect::Refuse { query, code } => {
                    self.tell(waiting, query, Err(code));
                    if let Some(responder) = waiting.queries.remove(&query) {
                        responder.answer(mesh::Answer::Refusal(code.to_string()));
                    }
                }
                Effect::Reply { reply, answer } => {
                    if let Some(caller) = waiting.replies.remove(&reply) {
                        // A caller that went away needs no answer; what it asked for is on record.
                        drop(caller.send(Ok(waiting.told(reply, *answer, &self.engine))));
                    }
                }
            }
        }
    }

    fn tell(&self, waiting: &Waiting, query: QueryId, result: Result<(), Code>) {
        if let Some((kind, span)) = waiting.asked.get(&query) {
            self.metrics.asked(*kind, result);
            span.in_scope(|| tracing::debug!(code = trace::code(result), "an action is answered"));
        }
    }

    /// Waits for room: whoever takes from the queue waits for nobody. Where he is gone, the next start closes what is open.
    async fn hand_over(&self, errand: Errand) {
        if self.errands.send(errand).await.is_err() {
            tracing::warn!("an accepted errand finds nobody who does it");
        }
    }

    /// Signs off the loop, so that a burst of receipts does not hold the next batch.
    fn answer(&self, responder: Responder, mut receipt: Receipt, positions: &BTreeMap<AuditId, Position>) {
        receipt.position = positions.get(&receipt.audit_id).copied();
        let keyring = Arc::clone(&self.keyring);
        let store = Arc::clone(&self.store);
        self.tasks.spawn(async move {
            if receipt.repeated {
                // A fault here leaves the position out; the receipt itself is what the caller needs.
                receipt.position = store.position(receipt.audit_id).await.ok().flatten();
            }
            let sealed = wire::mesh::seal_receipt(&keyring.keys(), &receipt);
            responder.answer(mesh::Answer::Reply(sealed));
        });
    }
}

/// The chain of writes ends with the last of these records.
fn note_length(metrics: &Metrics, positions: &[Position]) {
    if let Some(last) = positions.last() {
        metrics.audit_length(last.seq);
    }
}

fn until(now: Monotonic, at: Monotonic) -> Duration {
    Duration::from_nanos(at.0.saturating_sub(now.0))
}

#[cfg(test)]
pub(super) mod tests;
