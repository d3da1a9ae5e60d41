//! What callers of this node may do: preflight from the snapshot, reads past the loop, writes through it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use futures_util::future::{join, join_all};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::domain::action::{self, ActionKind};
use crate::domain::audit::{Draft, Outcome};
use crate::domain::code::Code;
use crate::domain::envelope::{Response, Ruling};
use crate::domain::id::RuntimeId;
use crate::domain::policy::{Decision, Denial, Stage};
use crate::domain::preflight::{Asker, Plan, Row};
use crate::domain::queue::Queue;
use crate::domain::time::Now;
use crate::domain::workload;
use crate::engine::effect::{Answer, Started};
use crate::engine::exchange::Finding;
use crate::engine::input::{Conclusion, Request as EngineRequest, Write};
use crate::engine::view::{Basis, View};
use crate::engine::{among, audit_id, plan_overtaken};
use crate::handle::{Control, Dispatched, Failure, Operations, Pending, Preflight, Reloaded, Request, TargetOutcome};
use crate::metrics::Metrics;
use crate::node::clock::{Clock, SystemEntropy};
use crate::node::courier::{Courier, Delivery};
use crate::node::driver::{ERRANDS_MAX, Errand, Mail};
use crate::node::ingress::Ingress;
use crate::node::plan_hash::PlanKey;
use crate::node::reload::Sources;
use crate::store::Store;
use crate::store::runs::RunStore;

/// The node as its callers see it.
pub(super) struct NodeOperations {
    pub(super) clock: Clock,
    pub(super) views: Arc<ArcSwap<View>>,
    pub(super) mailbox: mpsc::Sender<Mail>,
    pub(super) urgent: mpsc::Sender<Mail>,
    pub(super) store: Arc<dyn Store>,
    pub(super) runs: Arc<dyn RunStore>,
    pub(super) courier: Arc<Courier>,
    pub(super) ingress: Arc<Ingress>,
    pub(super) plan_key: PlanKey,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) is_ready: Arc<AtomicBool>,
    pub(super) links: Arc<AtomicU64>,
    pub(super) sources: Arc<dyn Sources>,
    pub(super) workload: Option<crate::workload::supervisor::Handle>,
    pub(super) reloading: tokio::sync::Mutex<()>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) errands: mpsc::WeakSender<Errand>,
}

impl fmt::Debug for NodeOperations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NodeOperations").field("mesh", &self.ingress.mesh).finish_non_exhaustive()
    }
}

impl NodeOperations {
    fn preflight(&self, view: &View, request: &Request, now: Now) -> Preflight {
        let plan = view.plan(&request.asker, &request.action, &request.targets, now);
        let plan_hash = self.plan_key.mint(view, request, &plan, now.wall);
        Preflight { plan, plan_hash }
    }

    /// Decided, compared with the plan that was named, and carried out from one snapshot.
    async fn read(self: Arc<Self>, request: Request, view: Arc<View>) -> Result<Dispatched, Failure> {
        let now = self.clock.now();
        let plan = view.plan(&request.asker, &request.action, &request.targets, now);
        let name = |plan: &Plan| self.plan_key.mint(&view, &request, plan, now.wall);
        if request.planned.as_ref().is_some_and(|planned| *planned != view.basis(&plan)) {
            let denial = plan_overtaken();
            let first = request.targets.first().unwrap_or(view.me());
            let mut draft = self.draft(&request, first, Some(&denial), now);
            draft.detail = among(request.targets.len(), &denial.reason);
            self.record(vec![draft])?;
            return Ok(self.overtaken(&request, plan, &denial));
        }
        if !plan.is_allowed() {
            self.record(self.denials(&request, &plan, now))?;
            let plan_hash = name(&plan);
            return Ok(Dispatched { preflight: Preflight { plan, plan_hash }, outcomes: Vec::new() });
        }
        let asked = join_all(request.targets.iter().map(|target| self.read_one(&view, &request, target)));
        // The plan is named while the targets work.
        let (outcomes, plan_hash) = join(asked, async { name(&plan) }).await;
        let preflight = Preflight { plan, plan_hash };
        self.record(outcomes.iter().map(|outcome| self.outcome_draft(&request, outcome)).collect())?;
        Ok(Dispatched { preflight, outcomes })
    }

    async fn read_one(&self, view: &View, request: &Request, target: &RuntimeId) -> TargetOutcome {
        let now = self.clock.now();
        if target == view.me() {
            let response = Response::Status(Box::new(view.status(now)));
            let audit_id = Some(audit_id(now, &mut SystemEntropy));
            return TargetOutcome { target: target.clone(), result: Ok(response), audit_id, receipt: None };
        }
        let Request { asker, request_id, action, budget, .. } = request;
        match view.envelope(asker, request_id, action, target, now.wall) {
            Some(envelope) => outcome_of(target, self.courier.carry(envelope, *budget).await),
            None => {
                let denial =
                    Denial::at_origin(Code::PeerNotAvailable, "known", format!("no key is pinned for {target}"));
                TargetOutcome { target: target.clone(), result: Err(denial), audit_id: None, receipt: None }
            }
        }
    }

    /// The origin's own record of one target of a read. Its own part at this runtime is that record itself.
    fn outcome_draft(&self, request: &Request, outcome: &TargetOutcome) -> Draft {
        let result = outcome.result.as_ref().err();
        let mut draft = self.draft(request, &outcome.target, result, self.clock.now());
        if outcome.target == *self.views.load().me()
            && let Some(audit_id) = outcome.audit_id
        {
            draft.audit_id = audit_id;
        } else if let Some(there) = outcome.audit_id {
            draft.detail = format!("{} record {there} at the target", draft.detail).trim_start().to_owned();
        }
        draft
    }

    fn denials(&self, request: &Request, plan: &Plan, now: Now) -> Vec<Draft> {
        let denial = |row: &Row| match &row.decision {
            Decision::Allow { .. } => None,
            Decision::Deny(denial) => Some(self.draft(request, &row.target, Some(denial), now)),
        };
        plan.rows.iter().filter_map(denial).collect()
    }

    fn draft(&self, request: &Request, target: &RuntimeId, denial: Option<&Denial>, now: Now) -> Draft {
        let view = self.views.load();
        Draft {
            audit_id: audit_id(now, &mut SystemEntropy),
            at: now.wall,
            actor: request.asker.actor.to_string(),
            actor_verified: request.asker.is_verified,
            origin: view.me().clone(),
            action: action::name(&request.action),
            target: target.clone(),
            request_id: Some(request.request_id.clone()),
            outcome: match denial {
                None => Outcome::Applied,
                Some(denial) if denial.code == Code::Timeout => Outcome::Unknown,
                Some(_) => Outcome::Denied,
            },
            code: denial.map(|denial| denial.code),
            detail: denial.map(|denial| denial.reason.to_string()).unwrap_or_default(),
            policy_hash: view.settings.policy_hash,
        }
    }

    async fn write(self: Arc<Self>, request: Request) -> Result<Dispatched, Failure> {
        let Request { asker, request_id, action, targets, budget, planned } = request.clone();
        let write = Write { asker, request_id, action, targets };
        let (plan, started) = match self.ask_engine(EngineRequest::Begin { write: write.clone(), planned }).await? {
            Answer::Begun { plan, started } => (plan, started),
            Answer::Overtaken { plan, denial } => return Ok(self.overtaken(&request, plan, &denial)),
            Answer::Refused { code, reason } => return Err(Failure { code, reason }),
            Answer::Recorded | Answer::RunAccepted(_) | Answer::Witnessed(_) => return Err(unexpected_answer()),
        };
        let plan_hash = self.plan_key.mint(&self.views.load(), &request, &plan, self.clock.now().wall);
        let me = self.views.load().me().clone();
        let parts = started.into_iter().map(|part| self.finish(&me, part, budget));
        let outcomes = join_all(parts).await;
        let conclusions: Vec<Conclusion> =
            outcomes.iter().filter(|outcome| outcome.target != me).map(conclude).collect();
        if !conclusions.is_empty() {
            // On record soon; the caller need not wait for it.
            let (tx, _nobody_waits) = oneshot::channel();
            let conclude = EngineRequest::Conclude { write, conclusions };
            drop(self.mailbox.send(Mail::Request(conclude, tx)).await);
        }
        Ok(Dispatched { preflight: Preflight { plan, plan_hash }, outcomes })
    }

    /// What a caller is told whose plan does not hold any more: the plan of now, and that nothing was sent to any target.
    fn overtaken(&self, request: &Request, plan: Plan, denial: &Denial) -> Dispatched {
        let plan_hash = self.plan_key.mint(&self.views.load(), request, &plan, self.clock.now().wall);
        let outcome = |target: &RuntimeId| TargetOutcome {
            target: target.clone(),
            result: Err(denial.clone()),
            audit_id: None,
            receipt: None,
        };
        let outcomes = request.targets.iter().map(outcome).collect();
        Dispatched { preflight: Preflight { plan, plan_hash }, outcomes }
    }

    async fn finish(&self, me: &RuntimeId, part: Started, budget: crate::domain::time::Millis) -> TargetOutcome {
        match part {
            Started::Here { ruling, audit_id } => {
                let result = match ruling {
                    Ruling::Done(response) => Ok(response),
                    Ruling::Refused(denial) => Err(denial),
                };
                TargetOutcome { target: me.clone(), result, audit_id: Some(audit_id), receipt: None }
            }
            Started::Send(envelope) => {
                let target = envelope.target.clone();
                outcome_of(&target, self.courier.carry(*envelope, budget).await)
            }
        }
    }

    pub(super) async fn ask_engine(&self, request: EngineRequest) -> Result<Answer, Failure> {
        ask_by(&self.mailbox, request).await
    }

    /// The same, before whatever waits.
    pub(super) async fn ask_engine_first(&self, request: EngineRequest) -> Result<Answer, Failure> {
        ask_by(&self.urgent, request).await
    }
}

async fn ask_by(mails: &mpsc::Sender<Mail>, request: EngineRequest) -> Result<Answer, Failure> {
    let (tx, rx) = oneshot::channel();
    mails.send(Mail::Request(request, tx)).await.map_err(|_closed| stopping())?;
    rx.await.map_err(|_dropped| stopping())?
}

fn stopping() -> Failure {
    Failure { code: Code::ServerBusy, reason: "this runtime is stopping".to_owned() }
}

fn outcome_of(target: &RuntimeId, delivery: Delivery) -> TargetOutcome {
    let Delivery { finding, receipt } = delivery;
    let (result, audit_id) = match finding {
        Finding::Receipt(receipt) => match receipt.ruling {
            Ruling::Done(response) => (Ok(response), Some(receipt.audit_id)),
            Ruling::Refused(denial) => (Err(denial), Some(receipt.audit_id)),
        },
        Finding::Denied(denial) => (Err(denial), None),
    };
    TargetOutcome { target: target.clone(), result, audit_id, receipt }
}

/// What goes on record about one target: a refusal decided before anything was sent is no unknown outcome.
fn conclude(outcome: &TargetOutcome) -> Conclusion {
    let ruling = match &outcome.result {
        Ok(response) => Some(Ruling::Done(response.clone())),
        // A target whose commit failed may find the batch on its disk after a restart, so its word is no proof.
        Err(denial) if matches!(denial.code, Code::Timeout | Code::StorageUnavailable) => None,
        Err(denial) => Some(Ruling::Refused(denial.clone())),
    };
    Conclusion { target: outcome.target.clone(), ruling, audit_id: outcome.audit_id }
}

fn unexpected_answer() -> Failure {
    Failure { code: Code::Interrupted, reason: "the engine gave an answer to another question".to_owned() }
}

/// The shared node, as the trait object that outer layers hold.
#[derive(Debug, Clone)]
pub(super) struct SharedNode(pub(super) Arc<NodeOperations>);

impl Operations for SharedNode {
    fn view(&self) -> Arc<View> {
        self.0.views.load_full()
    }

    fn now(&self) -> Now {
        self.0.clock.now()
    }

    fn preflight(&self, request: &Request) -> Preflight {
        self.0.preflight(&self.0.views.load(), request, self.now())
    }

    fn planned(&self, plan_hash: &str, request: &Request, plan: &Plan) -> Option<Basis> {
        let view = self.0.views.load();
        self.0.plan_key.is_current(plan_hash, &view, request, plan, self.now().wall).then(|| view.basis(plan))
    }

    fn dispatch(&self, request: Request) -> Pending<'_, Result<Dispatched, Failure>> {
        let node = Arc::clone(&self.0);
        if node.stop.is_cancelled() {
            return Box::pin(async { Err(stopping()) });
        }
        let view = self.0.views.load_full();
        // A task of its own: a caller that goes away must not leave a write half reported.
        let carried = async move {
            let (kind, began) = (request.action.kind(), node.clock.now().monotonic.0);
            let counted = Arc::clone(&node);
            let done = if kind.is_read() { node.read(request, view).await } else { node.write(request).await };
            counted.count(kind, &done, began);
            done
        };
        let task = self.0.tasks.spawn(carried.in_current_span());
        Box::pin(async move {
            task.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a dispatch was cut off");
                Err(Failure { code: Code::Interrupted, reason: "the dispatch was cut off; ask again".to_owned() })
            })
        })
    }

    fn control(&self, asker: Asker, control: Control) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move {
            let is_shutdown = control == Control::Shutdown;
            let request = match control {
                Control::PeersApprove { runtime, fingerprint } => {
                    EngineRequest::PeersApprove { asker, runtime, fingerprint }
                }
                Control::PeersForget { runtime } => EngineRequest::PeersForget { asker, runtime },
                Control::Shutdown => EngineRequest::Record { asker, action: "shutdown" },
                Control::TimeReset => EngineRequest::TimeReset { asker },
            };
            // What a person takes back counts for everything that waits.
            let answer = self.0.ask_engine_first(request).await;
            if is_shutdown {
                // A node whose disk failed must still be stoppable.
                self.0.stop.cancel();
                return Ok(());
            }
            match answer? {
                Answer::Recorded => Ok(()),
                Answer::Refused { code, reason } => Err(Failure { code, reason }),
                Answer::Begun { .. } | Answer::Overtaken { .. } | Answer::RunAccepted(_) | Answer::Witnessed(_) => {
                    Err(unexpected_answer())
                }
            }
        })
    }

    fn reload(&self, asker: Asker) -> Pending<'_, Result<Reloaded, Failure>> {
        Box::pin(self.0.reload(asker))
    }

    fn record(&self, draft: Draft) -> Result<(), Failure> {
        self.0.record(vec![draft])
    }

    fn is_ready(&self) -> bool {
        self.0.is_ready.load(Ordering::Relaxed) && !self.0.stop.is_cancelled()
    }

    fn mesh_links(&self) -> usize {
        usize::try_from(self.0.links.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    fn mesh_fault(&self) -> Option<String> {
        self.0.ingress.mesh.fault().map(|fault| fault.to_string())
    }

    fn workload(&self) -> Option<workload::Status> {
        self.0.workload.as_ref().map(crate::workload::supervisor::Handle::status)
    }

    fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn queues(&self) -> Vec<Queue> {
        self.0.queues()
    }

    fn refused(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        let parts = [self.0.ingress.mesh.refusals(), self.0.ingress.refused.snapshot()];
        let engine = self.0.views.load();
        for (reason, count) in parts.iter().flatten().chain(engine.refused.iter()) {
            let sum: &mut u64 = all.entry(*reason).or_default();
            *sum = sum.saturating_add(*count);
        }
        all
    }
}

impl NodeOperations {
    /// Counts what became of a dispatch: of its targets, or of those whom the plan denied.
    fn count(&self, kind: ActionKind, done: &Result<Dispatched, Failure>, began: u64) {
        self.metrics.dispatch_took(kind, self.clock.now().monotonic.0.saturating_sub(began));
        let done = match done {
            Ok(done) => done,
            Err(failure) => return self.metrics.dispatched(kind, Err((failure.code, Stage::Origin))),
        };
        let why = |denial: &Denial| (denial.code, denial.stage);
        for outcome in &done.outcomes {
            self.metrics.dispatched(kind, outcome.result.as_ref().map(drop).map_err(why));
        }
        if done.outcomes.is_empty() {
            for row in &done.preflight.plan.rows {
                if let Decision::Deny(denial) = &row.decision {
                    self.metrics.dispatched(kind, Err(why(denial)));
                }
            }
        }
    }

    fn queues(&self) -> Vec<Queue> {
        let mails = |name, way: &mpsc::Sender<Mail>| Queue::with_room(name, way.max_capacity(), way.capacity());
        // Nobody has the other end any more once the node has stopped.
        let room = self.errands.upgrade().map_or(ERRANDS_MAX, |errands| errands.capacity());
        let own = [
            Queue::with_room("errands", ERRANDS_MAX, room),
            mails("mailbox", &self.mailbox),
            mails("urgent", &self.urgent),
        ];
        let workload = self.workload.iter().flat_map(crate::workload::supervisor::Handle::queues);
        let kept = self.store.queues().into_iter().chain(self.runs.queues());
        own.into_iter().chain(kept).chain(self.ingress.mesh.queues()).chain(workload).collect()
    }

    /// Puts the records of one request on the chain of reads, all or none.
    fn record(&self, drafts: Vec<Draft>) -> Result<(), Failure> {
        match self.store.append_reads(drafts) {
            Ok(()) => Ok(()),
            // A disk that failed must not stop the reads (DESIGN, *A failing disk*); health names it.
            Err(_full) if self.store.reads_fault().is_some() => Ok(()),
            Err(full) => Err(Failure { code: Code::ServerBusy, reason: full.to_string() }),
        }
    }
}
