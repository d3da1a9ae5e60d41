//! The only loop that changes anything: take inputs, decide, make durable, then speak.
//!
//! A batch of inputs shares one commit. If the commit fails, nothing of the batch is spoken: its callers hear
//! `storage_unavailable`, and the engine is rebuilt from what is durable (DESIGN, *A failing disk*).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;

use crate::domain::action::ActionKind;
use crate::domain::audit::{AuditId, Position};
use crate::domain::code::Code;
use crate::domain::config::Value;
use crate::domain::envelope::Receipt;
use crate::domain::run::RunId;
use crate::domain::time::{Millis, Monotonic, Wall};
use crate::engine::Engine;
use crate::engine::effect::{Answer, Effect, Effects, Waiter};
use crate::engine::input::{Input, QueryId, Received, ReplyId, Request};
use crate::engine::record::{Batch, Deed, OpenRun};
use crate::engine::view::View;
use crate::engine::word::Signer;
use crate::handle::Failure;
use crate::mesh::{self, Responder};
use crate::metrics::Metrics;
use crate::node::arrived::Arrived;
use crate::node::clock::{Clock, SystemEntropy};
use crate::node::keyring::Keyring;
use crate::node::trace;
use crate::store::{self, Store};
use crate::wire;

/// Mails waiting for the loop: a second of observations from 1,000 peers. Senders wait when it is full.
pub(super) const MAILBOX_MAX: usize = 1_024;

/// Mails that go before all others: reloads, and what a person says at this node. Senders wait when it is full.
pub(super) const URGENT_MAX: usize = 4;

/// Most inputs that share one commit, so that the first of them does not wait for the last of many.
const BATCH_INPUTS_MAX: usize = 256;

/// How often a full disk is tried again.
const RETRY_WRITING: Millis = Millis::from_secs(5);

/// Something for the loop, with the place where its answer goes.
#[derive(Debug)]
pub(super) enum Mail {
    /// A fact about peers, without an answer.
    Input(Box<Input>),
    /// A request of this node's own callers.
    Request(Request, oneshot::Sender<Result<Answer, Failure>>),
    /// A write from the mesh.
    Act(Box<Arrived>, Responder),
    /// A question for an outcome from the mesh.
    AskOutcome(Box<Received>, Responder),
    /// An unknown signer; answered when the view knows it or never will.
    Met(Signer, u64, oneshot::Sender<()>),
}

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

/// What a batch still has to answer.
#[derive(Default)]
struct Waiting {
    queries: BTreeMap<QueryId, Responder>,
    /// The writes among the queries, to be asked again if the batch fails.
    acts: BTreeMap<QueryId, Box<Received>>,
    /// What those writes ask for, to be counted and told with what became of them.
    asked: BTreeMap<QueryId, (ActionKind, Span)>,
    /// The outcomes among the requests, to be handed over again if the batch fails: nobody else has them.
    outcomes: BTreeMap<ReplyId, Request>,
    replies: BTreeMap<ReplyId, oneshot::Sender<Result<Answer, Failure>>>,
    met: Vec<oneshot::Sender<()>>,
    next: u64,
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
    /// Whether the engine could not be rebuilt after a failed commit, and does not know what is durable.
    pub(super) is_behind: bool,
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
        let urgent = std::iter::from_fn(|| self.urgent.try_recv().ok()).collect::<Vec<_>>();
        for mail in urgent.into_iter().chain(mails.drain(..)) {
            let input = waiting.admit(mail, &self.engine, self.clock.now().wall);
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
                Ok(positions) => positions,
                Err(error) => {
                    self.fall_back(&error).await;
                    self.ask_again(&mut waiting).await;
                    waiting.fail(&error);
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
    /// receipt, any other a signed refusal. An unsigned word would prove nothing to its origin. An outcome is put off.
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

    /// Nothing of the failed batch happened: forget it and go on without writing.
    async fn fall_back(&mut self, error: &store::Error) {
        tracing::error!(%error, "the store failed; going on read-only");
        self.is_behind = !self.rebuild().await;
        if self.is_behind {
            // The last view shows nothing but what was durable before this batch.
            self.engine.go_back_to(&self.views.load());
        }
        self.engine.stop_writing();
        self.retry_at = self.clock.now().monotonic.plus(RETRY_WRITING);
        self.views.store(Arc::new(self.engine.view()));
    }

    /// Lets the engine write again. One that has forgotten its receipts has to know them first, or it would do a second time
    /// what it did before.
    async fn try_writing(&mut self, effects: &mut Effects) {
        if self.is_behind && !self.rebuild().await {
            self.retry_at = self.clock.now().monotonic.plus(RETRY_WRITING);
            return;
        }
        self.is_behind = false;
        self.engine.resume_writing(effects);
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
                        drop(caller.send(Ok(*answer)));
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

impl Waiting {
    fn admit(&mut self, mail: Mail, engine: &Engine, now: Wall) -> Input {
        self.next = self.next.saturating_add(1);
        let (query, reply) = (QueryId(self.next), ReplyId(self.next));
        match mail {
            Mail::Input(input) => *input,
            Mail::Request(request, caller) => {
                self.replies.insert(reply, caller);
                if matches!(request, Request::Conclude { .. }) {
                    self.outcomes.insert(reply, request.clone());
                }
                Input::Request { reply, request }
            }
            Mail::Act(arrived, responder) => {
                self.queries.insert(query, responder);
                let received = arrived.by_now(&engine.view(), now);
                let envelope = &received.envelope;
                self.asked.insert(query, (envelope.action.kind(), trace::of_envelope(envelope)));
                self.acts.insert(query, Box::new(received.clone()));
                Input::Act { query, received }
            }
            Mail::AskOutcome(received, responder) => {
                self.queries.insert(query, responder);
                Input::AskOutcome { query, received: *received }
            }
            Mail::Met(signer, boot, met) => {
                self.met.push(met);
                Input::Met { signer, boot }
            }
        }
    }

    /// Nothing goes unrecorded: whoever waits hears that there is no room, and the answer that follows finds nobody.
    fn turn_away(&mut self, waiter: Waiter, full: store::Full) {
        match waiter {
            Waiter::Query(query) => {
                if let Some(responder) = self.queries.remove(&query) {
                    responder.answer(mesh::Answer::Refusal(Code::ServerBusy.to_string()));
                }
            }
            Waiter::Reply(reply) => {
                if let Some(caller) = self.replies.remove(&reply) {
                    drop(caller.send(Err(Failure { code: Code::ServerBusy, reason: full.to_string() })));
                }
            }
        }
    }

    fn fail(&mut self, error: &store::Error) {
        for responder in std::mem::take(&mut self.queries).into_values() {
            responder.answer(mesh::Answer::Refusal(Code::StorageUnavailable.to_string()));
        }
        for caller in std::mem::take(&mut self.replies).into_values() {
            let failure = Failure { code: Code::StorageUnavailable, reason: error.to_string() };
            drop(caller.send(Err(failure)));
        }
    }
}

/// The chain of writes ends with the last of these records.
pub(super) fn note_length(metrics: &Metrics, positions: &[Position]) {
    if let Some(last) = positions.last() {
        metrics.audit_length(last.seq);
    }
}

fn until(now: Monotonic, at: Monotonic) -> Duration {
    Duration::from_nanos(at.0.saturating_sub(now.0))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::action::Action;
    use crate::domain::audit::{Hash, Outcome};
    use crate::domain::envelope::{Envelope, Response, Ruling};
    use crate::domain::identity::IdentityKey;
    use crate::domain::time::Wall;
    use crate::engine::effect::Started;
    use crate::engine::input::{Conclusion, Write};
    use crate::node::tests::{engineer, parsed, settings};
    use crate::store::memory::{Fault, MemoryStore};
    use crate::store::{Chain, READ_QUEUE_MAX};

    pub(in crate::node) fn driver(store: &MemoryStore) -> Driver {
        let clock = Clock::start();
        let now = clock.now();
        let keyring =
            Keyring::new(IdentityKey::from_seed([1; 32]).into(), settings().me.clone(), now.wall).expect("a key signs");
        let identity = keyring.keys().signer().identity;
        let engine = Engine::recover(settings(), identity, [], now).expect("no removal");
        let (_nobody, mailbox) = mpsc::channel(1);
        let urgent = mpsc::channel(1).1;
        Driver {
            clock,
            store: Arc::new(store.clone()),
            views: Arc::new(ArcSwap::from_pointee(engine.view())),
            engine,
            keyring: Arc::new(keyring),
            tasks: TaskTracker::new(),
            apply: Box::new(|_values| {}),
            mailbox,
            urgent,
            errands: mpsc::channel(1).0,
            metrics: Arc::default(),
            retry_at: Monotonic::default(),
            is_behind: false,
        }
    }

    fn ping(id: &str, target: &str) -> Write {
        let targets = vec![parsed(target)];
        Write { asker: engineer(), request_id: parsed(id), action: Action::ping(), targets }
    }

    /// A run whose errand is dropped would be open and never begun, and whoever started it would wait for ever.
    #[tokio::test]
    async fn what_finds_no_room_in_the_queue_waits_for_it_and_is_not_lost() {
        let (errands, mut accepted) = mpsc::channel(1);
        let driver = Driver { errands, ..driver(&MemoryStore::new()) };
        let runs = [1, 2, 3, 4].map(|number| RunId::new(Wall::from_millis(1), [number; 10]));
        let after = runs.map(Effect::CancelRun).into();
        let release = async move { driver.release(after, &mut Waiting::default(), &BTreeMap::new()).await };
        let take = async {
            let mut taken = Vec::new();
            while let Some(Errand::Cancel(run)) = accepted.recv().await {
                taken.push(run);
            }
            taken
        };
        assert_eq!(tokio::join!(release, take).1, runs);
    }

    /// One turn with one request in it.
    async fn ask(driver: &mut Driver, request: Request) -> Result<Answer, Failure> {
        let (tx, rx) = oneshot::channel();
        driver.turn(&mut vec![Mail::Request(request, tx)]).await;
        rx.await.expect("answered")
    }

    fn begin(write: Write) -> Request {
        Request::Begin { write, planned: None }
    }

    /// The record of a ping of this runtime itself.
    async fn done(driver: &mut Driver, id: &str) -> AuditId {
        match ask(driver, begin(ping(id, "s/a"))).await {
            Ok(Answer::Begun { started, .. }) => match started.as_slice() {
                [Started::Here { ruling: Ruling::Done(Response::Pong), audit_id }] => *audit_id,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// What a target did with a ping, for the record.
    fn outcome() -> Request {
        let ruling = Some(Ruling::Done(Response::Pong));
        let conclusions = vec![Conclusion { target: "s/b".parse().expect("legal"), ruling, audit_id: None }];
        Request::Conclude { write: ping("r", "s/b"), conclusions }
    }

    fn outcomes(store: &MemoryStore) -> Vec<Outcome> {
        store.with_disk(|disk| disk.entries(Chain::Writes).map(|entry| entry.draft.outcome).collect())
    }

    /// A turn in which the disk is tried again.
    async fn retry(driver: &mut Driver) {
        driver.retry_at = Monotonic::default();
        driver.turn(&mut Vec::new()).await;
    }

    #[tokio::test]
    async fn an_engine_that_forgot_its_receipts_writes_only_when_it_knows_them_again() {
        let store = MemoryStore::new();
        let mut driver = driver(&store);
        let first = done(&mut driver, "once").await;
        store.with_disk(|disk| {
            disk.inject(Fault::NoSpace);
            disk.hide_facts();
        });
        let failed = ask(&mut driver, begin(ping("other", "s/a"))).await;
        assert_eq!(failed.expect_err("no space").code, Code::StorageUnavailable);
        retry(&mut driver).await;
        assert!(driver.views.load().is_read_only, "nobody knows what is durable");
        ask(&mut driver, outcome()).await.expect("put off");
        store.with_disk(|disk| disk.show_facts());
        retry(&mut driver).await;
        assert!(!driver.views.load().is_read_only);
        assert_eq!(outcomes(&store).len(), 2, "the ping and the outcome that was put off");
        assert_eq!(done(&mut driver, "once").await, first, "the stored receipt, not a second time");
    }

    #[tokio::test]
    async fn an_outcome_in_a_failed_batch_is_on_record_once_there_is_space() {
        let store = MemoryStore::new();
        let mut driver = driver(&store);
        let on_record = || outcomes(&store);
        // In the batch that fails, in the batch with which the disk is tried again, and while it is not tried.
        store.with_disk(|disk| (0..2).for_each(|_| disk.inject(Fault::NoSpace)));
        let failed = ask(&mut driver, outcome()).await;
        assert!(matches!(failed, Ok(Answer::Refused { code: Code::StorageUnavailable, .. })), "{failed:?}");
        retry(&mut driver).await;
        let refused = ask(&mut driver, outcome()).await;
        assert!(matches!(refused, Ok(Answer::Refused { code: Code::StorageUnavailable, .. })), "{refused:?}");
        assert_eq!(on_record(), []);
        retry(&mut driver).await;
        assert_eq!(on_record(), [Outcome::Applied; 2]);
        driver.turn(&mut Vec::new()).await;
        store.with_disk(|disk| disk.inject(Fault::NoSpace));
        let later = ask(&mut driver, begin(ping("later", "s/a"))).await;
        assert_eq!(later.expect_err("no space").code, Code::StorageUnavailable);
        retry(&mut driver).await;
        assert_eq!(on_record().len(), 2, "once is enough");
    }

    /// It is for somebody else, so that it is refused before anything else is asked.
    #[tokio::test]
    async fn a_refused_write_from_the_mesh_is_on_record_or_is_told_that_there_is_no_room() {
        let store = MemoryStore::new();
        let mut driver = driver(&store);
        for (is_full, records) in [(false, 1), (true, 1)] {
            if is_full {
                store.with_disk(|disk| {
                    disk.hold_reads();
                    let draft = disk.entries(Chain::Refusals).next().expect("one").draft.clone();
                    disk.append_reads(vec![draft; READ_QUEUE_MAX]).expect("room");
                });
            }
            let (responder, answer) = Responder::channel();
            driver
                .turn(&mut vec![Mail::Act(Box::new(Arrived::new(misdirected(&driver), Vec::new())), responder)])
                .await;
            match answer.await.expect("answered") {
                mesh::Answer::Reply(_) => assert!(!is_full, "a signed refusal without its record"),
                mesh::Answer::Refusal(text) => assert_eq!((is_full, text.as_str()), (true, "server_busy")),
            }
            assert_eq!(store.with_disk(|disk| disk.entries(Chain::Refusals).count()), records);
        }
    }

    fn misdirected(driver: &Driver) -> Received {
        let view = driver.engine.view();
        let signer = driver.keyring.keys().signer().clone();
        let Write { asker, request_id, action, .. } = ping("w", "s/b");
        let envelope = Envelope {
            target: parsed("s/b"),
            target_key: view.identity,
            target_boot: Some(view.boot),
            origin: view.me().clone(),
            actor: asker.actor,
            role: asker.role,
            actor_verified: true,
            request_id,
            action,
            issued: driver.clock.now().wall,
            expires: driver.clock.now().wall,
            boot: 1,
            sequence: 1,
            policy_hash: Hash([0; 32]),
        };
        Received { signer, envelope, digest: Hash([0; 32]) }
    }
}
