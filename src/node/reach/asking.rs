//! Carries an actor's question about a run to its owner, and checks what comes back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::is_trusted;
use crate::domain::action::Action;
use crate::domain::code::Code;
use crate::domain::id::{RequestId, RuntimeId};
use crate::domain::policy::Denial;
use crate::domain::preflight::Asker;
use crate::domain::run::{Pointer, RunId};
use crate::domain::time::Millis;
use crate::engine::act_draft;
use crate::engine::view::View;
use crate::handle::Failure;
use crate::handle::runs::Absent;
use crate::mesh::{Mesh, QueryError, Verb};
use crate::node::clock::{Clock, SystemEntropy};
use crate::node::ingress::Counters;
use crate::node::keyring::Keyring;
use crate::store::Store;
use crate::wire::mesh::{self as message, Refusal, RunAnswer, RunAsked};

/// As which it is counted that more than one runtime has claimed a run.
pub(super) const CLAIMED_TWICE: &str = "run_claimed_twice";

/// What an answer may take longer than the owner was asked to wait.
const MARGIN: Duration = Duration::from_secs(2);

/// Asks the owners of runs.
#[derive(Debug)]
pub(in crate::node) struct Asking {
    pub(in crate::node) clock: Clock,
    pub(in crate::node) views: Arc<ArcSwap<View>>,
    pub(in crate::node) keyring: Arc<Keyring>,
    pub(in crate::node) mesh: Arc<dyn Mesh>,
    /// For the chain of reads.
    pub(in crate::node) audit: Arc<dyn Store>,
    pub(in crate::node) refused: Counters,
    pub(in crate::node) sequence: AtomicU64,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The owner has too much to do.
    Busy,
    /// The question was not sent, for this reason.
    Denied(Denial),
    /// The owner does not know what this question asks, as one of an earlier version. That is nobody's signed word.
    Misunderstood,
    /// The owner cannot be reached, or does not answer.
    Silent,
}

/// Runtimes that are there.
#[derive(Debug)]
pub(super) struct Reachable {
    /// Those that are to be asked.
    pub(super) asked: Vec<RuntimeId>,
    /// How many there are in all.
    pub(super) count: usize,
}

impl Reachable {
    fn first(mut there: Vec<RuntimeId>, most: usize) -> Self {
        let count = there.len();
        there.truncate(most);
        Self { asked: there, count }
    }
}

impl Asking {
    /// Asks one runtime. What it says is about this run and this question, and signed for it.
    pub(super) async fn ask(
        &self,
        asker: &Asker,
        owner: &RuntimeId,
        (run, asked): (RunId, &RunAsked),
        budget: Duration,
    ) -> Result<RunAnswer, Unanswered> {
        let view = self.views.load_full();
        check(&view, self.clock, asker, owner)?;
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let request_id: RequestId = format!("{run}.{sequence}").parse().map_err(|_never| Unanswered::Silent)?;
        let now = self.clock.now().wall;
        let read = view.envelope(asker, &request_id, &Action::StatusRead, owner, now);
        let mut read = read.ok_or(Unanswered::Silent)?;
        read.sequence = sequence;
        let (sealed, digest) = message::seal_run_question(&self.keyring.keys(), &read, run, asked);
        let opened = OnceLock::new();
        let accept = |bytes: &[u8]| {
            let now = self.clock.now().wall;
            match message::open_run_answer(&self.views.load(), owner, (digest, run, asked), bytes, now) {
                Ok(answer) => opened.set(answer).is_ok(),
                Err(refusal) => {
                    self.refuse(owner, refusal);
                    false
                }
            }
        };
        let budget = budget.saturating_add(waits(asked));
        match (self.mesh.query(owner, Verb::Run, sealed, budget, &accept).await, opened.into_inner()) {
            (_, Some(answer)) => Ok(answer),
            (Err(QueryError::Refused(code)), None) if code == Code::ServerBusy.as_str() => Err(Unanswered::Busy),
            (Err(QueryError::Refused(code)), None) if code == Code::ContractViolation.as_str() => {
                Err(Unanswered::Misunderstood)
            }
            (Ok(_) | Err(_), None) => Err(Unanswered::Silent),
        }
    }

    /// What came is no word of the owner about this run.
    pub(super) fn refuse(&self, owner: &RuntimeId, refusal: Refusal) {
        self.refused.count(refusal.as_str());
        tracing::warn!(runtime_id = %owner, %refusal, "an answer about a run does not verify");
    }

    /// Everybody who may be asked by this actor and is there: those who are believed, and the others; of both together at most
    /// so many are to be asked.
    pub(super) fn reachable(&self, asker: &Asker, most: usize) -> [Reachable; 2] {
        let view = self.views.load();
        let is_there = |runtime: &&RuntimeId| check(&view, self.clock, asker, runtime).is_ok();
        let all = view.peers.keys().filter(is_there).cloned();
        let (believed, others): (Vec<_>, Vec<_>) = all.partition(|runtime| is_believed(&view, runtime));
        let left = most.saturating_sub(believed.len());
        [Reachable::first(believed, most), Reachable::first(others, left)]
    }

    /// Whether a runtime is one of the own site that is believed about its own runs.
    pub(super) fn is_believed(&self, runtime: &RuntimeId) -> bool {
        is_believed(&self.views.load(), runtime)
    }

    /// More than one runtime has claimed a run: said in the log, in the counters, and in the chain of reads.
    pub(super) fn note_claims(&self, asker: &Asker, claim: &Pointer, reason: &str) {
        tracing::warn!(run_id = %claim.run, reason, "a run is claimed by more than one runtime");
        self.refused.count(CLAIMED_TWICE);
        let (view, now) = (self.views.load(), self.clock.now());
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let Ok(request_id) = format!("{}.{sequence}", claim.run).parse::<RequestId>() else { return };
        let read = view.envelope(asker, &request_id, &Action::StatusRead, &claim.owner, now.wall);
        let Some(read) = read else { return };
        let denial = Denial::at_origin(Code::Conflict, "run_claims", reason.to_owned());
        let mut draft = act_draft(now, &mut SystemEntropy, view.settings.policy_hash, &read, Err(&denial));
        "run_read".clone_into(&mut draft.action);
        if self.audit.append_read(draft).is_err() {
            self.refused.count("unrecorded_read");
        }
    }
}

fn is_believed(view: &View, runtime: &RuntimeId) -> bool {
    let peer = view.peers.get(runtime);
    peer.is_some_and(|peer| peer.signer.as_ref().is_some_and(|signer| is_trusted(view, peer, signer)))
}

/// Asks the own rules, as for any read of the owner.
fn check(view: &View, clock: Clock, asker: &Asker, owner: &RuntimeId) -> Result<(), Unanswered> {
    let plan = view.plan(asker, &Action::StatusRead, std::slice::from_ref(owner), clock.now());
    match plan.first_denial() {
        None => Ok(()),
        Some(denial) if matches!(denial.code, Code::PeerNotAvailable | Code::TargetUnreachable) => {
            Err(Unanswered::Silent)
        }
        Some(denial) => Err(Unanswered::Denied(denial.clone())),
    }
}

/// What the owner is asked to wait, with what its answer takes.
fn waits(asked: &RunAsked) -> Duration {
    match asked {
        RunAsked::Events { wait, .. } if *wait > Millis(0) => Duration::from_millis(wait.0).saturating_add(MARGIN),
        RunAsked::Events { .. } | RunAsked::Part { .. } | RunAsked::Pointer | RunAsked::Record => Duration::ZERO,
    }
}

/// What a caller is told who may not see a run.
pub(super) fn denied(denial: &Denial) -> Absent {
    Absent::Failed(Failure { code: denial.code, reason: denial.reason.to_string() })
}
