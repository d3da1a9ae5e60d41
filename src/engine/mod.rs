//! One runtime's decisions, as a value: no clock, no sockets, no tasks, no chance.
//!
//! Start reading at [`Engine::handle`]. Each file below is one use case and the only place that changes its part of the
//! state: `observe` (peers and links), `act` (writes that arrive), `receipts` (what is remembered of them), `dispatch`
//! (writes that leave), `run` (work that is started here), `govern` (trust, time), `steady` (is the wall clock believed), `witness` (whose log continues what
//! was seen of it), `doubt` (what a restart may find although its commit failed). `recover` builds the engine from
//! records, `view` is what readers see.

mod act;
mod dispatch;
pub mod doubt;
pub mod effect;
pub mod exchange;
mod govern;
pub mod input;
pub mod judge;
pub mod lapse;
mod observe;
mod receipts;
pub mod record;
mod recover;
mod refusals;
mod reload;
mod run;
pub mod skew;
mod steady;
#[cfg(test)]
mod rollover_tests;
#[cfg(test)]
mod tests;
mod under_way;
pub mod view;
mod witness;
pub mod word;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::domain::audit::{AuditId, Draft, Hash, Outcome};
use crate::domain::config::{Overlay, Value};
use crate::domain::id::{RequestId, RuntimeId};
use crate::domain::identity::Fingerprint;
use crate::domain::preflight::Asker;
use crate::domain::projection::Limits;
use crate::domain::run::RunId;
use crate::domain::time::{Millis, Monotonic, Now, Wall};
use crate::engine::dispatch::Late;
use crate::engine::effect::Effects;
use crate::engine::input::{Input, Request};
use crate::engine::lapse::Lapses;
use crate::engine::receipts::Receipts;
use crate::engine::record::{Deed, OpenRun, RequestKey};
use crate::engine::refusals::Refusals;
use crate::engine::steady::SteadyClock;
use crate::engine::under_way::UnderWay;
use crate::engine::view::{Category, Event, Peers, RetiredKey, Settings, Severity, TIMELINE_MAX, View, Witnessing};

pub use act::act_draft;
pub use dispatch::{among, plan_overtaken};
pub use govern::renewal_draft;
pub use recover::Error as RecoverError;
pub use run::RUNS_ACTIVE_MAX;

/// A moment that does not come.
const NEVER: Monotonic = Monotonic(u64::MAX);

/// Where random bytes come from. The driver asks the system, a simulation its seed.
pub trait Entropy {
    /// Fills the buffer.
    fn fill(&mut self, buffer: &mut [u8]);
}

/// The whole decision logic of one runtime.
#[derive(Debug, Clone)]
pub struct Engine {
    settings: Arc<Settings>,
    limits: Limits,
    receipts_kept: Millis,
    identity: Fingerprint,
    /// Keys that this runtime had before in this boot, the newest first.
    retired: Arc<Vec<RetiredKey>>,
    boot: u64,
    started: Now,
    clock: SteadyClock,
    lapses: Lapses,
    peers: Peers,
    /// Peers of which something became known since the last look at their states.
    touched: Vec<RuntimeId>,
    /// When the state of any other peer can change, at the earliest.
    sweep_at: Monotonic,
    /// Peers whose new boot could not be made durable, because the store took no writes.
    unsaved_boots: BTreeSet<RuntimeId>,
    overlay: Arc<Overlay>,
    receipts: Receipts,
    refusals: Refusals,
    /// When the youngest dropped receipt was given: what is not younger may have been carried out.
    dropped_until: Wall,
    under_way: UnderWay,
    /// Commands to the workload that are under way, and runs that go on.
    deeds: BTreeMap<RequestKey, Deed>,
    runs: Arc<BTreeMap<RunId, Arc<OpenRun>>>,
    /// Outcomes that the store did not take yet, and those that are in the batch with which it is tried again.
    late: Vec<Late>,
    resuming: Vec<Late>,
    /// The heads of peers' logs, and what peers say to the own one.
    witnessing: Arc<Witnessing>,
    /// Who spoke with another key than the pinned one in this boot, each told once.
    impostors: BTreeSet<(RuntimeId, Fingerprint)>,
    timeline: Arc<VecDeque<Event>>,
    events: u64,
    refused: Arc<BTreeMap<&'static str, u64>>,
    generation: u64,
    is_read_only: bool,
    /// Whether the durable facts could not be read back after a failed commit: which writes were carried out is not known.
    has_forgotten: bool,
    /// The writes in batches that a restart may find although their commit failed, with what each of them asks for.
    doubted: BTreeMap<RequestKey, Hash>,
    /// Why no run can be kept any more.
    runs_fault: Option<String>,
}

impl Engine {
    /// Decides on one input. Never blocks, never fails: a refusal is an answer.
    pub fn handle(&mut self, now: Now, entropy: &mut dyn Entropy, input: Input, effects: &mut Effects) {
        if !self.is_read_only {
            // A failed commit would have stopped the writing before this.
            self.resuming.clear();
        }
        self.watch_clock(now, effects);
        match input {
            Input::Act { query, received } => self.act(now, entropy, query, &received, effects),
            Input::AskOutcome { query, received } => self.tell_outcome(now, query, &received, effects),
            Input::Met { signer, boot } => self.meet(now, &signer, boot, effects),
            Input::ProbeLost { runtime } => self.lose_probe(&runtime),
            Input::Request { reply, request } => {
                let answer = match request {
                    Request::Begin { write, planned } => {
                        self.begin(now, entropy, reply, (&write, planned.as_ref()), effects)
                    }
                    Request::Conclude { write, conclusions } => {
                        self.conclude(now, entropy, &write, conclusions, effects)
                    }
                    Request::ConcludeDeed { deed, result } => {
                        self.conclude_deed(now, entropy, (&deed, result), effects)
                    }
                    Request::EndRun { run } => self.end_run(run, effects),
                    Request::RunsFailed { reason } => self.lose_runs(now, reason),
                    Request::StartRun { asker, invoke } => self.start_run(now, entropy, (&asker, *invoke), effects),
                    Request::Countersigned(word) => self.take_countersignature(now, entropy, *word, effects),
                    Request::Witness { signer, claim, pause } => {
                        effect::Answer::Witnessed(self.witness(now, entropy, (&signer, &claim), pause, effects))
                    }
                    Request::PeersApprove { asker, runtime, fingerprint } => {
                        self.approve(now, entropy, &asker, &runtime, fingerprint, effects)
                    }
                    Request::PeersForget { asker, runtime } => self.forget(now, entropy, &asker, &runtime, effects),
                    Request::Record { asker, action } => self.record(now, entropy, &asker, action, effects),
                    Request::Reload { asker, settings, detail } => {
                        self.reload(now, entropy, &asker, settings, &detail, effects)
                    }
                    Request::Renewed { runtime, detail } => {
                        self.record_renewal(now, entropy, &runtime, detail, effects)
                    }
                    Request::TimeReset { asker } => self.reset_time(now, entropy, &asker, effects),
                };
                effects.then(effect::Effect::Reply { reply, answer: Box::new(answer) });
            }
            Input::Timer => {}
            Input::TokenAppeared { runtime, boot } => self.token_appeared(&runtime, boot),
            Input::TokenGone { runtime, boot } => self.token_gone(now, &runtime, boot),
            Input::Word { signer, word } => self.hear(now, &signer, word, effects),
        }
        self.tell_transitions(now);
        self.tell_lapses(now);
        self.drop_old_receipts(now, effects);
    }

    /// When [`Input::Timer`] is due next, or somewhat earlier.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let sweep = Some(self.sweep_at).filter(|at| *at < NEVER);
        sweep.into_iter().chain(self.lapses.next()).min()
    }

    /// What readers see.
    pub fn view(&self) -> View {
        View {
            generation: self.generation,
            settings: Arc::clone(&self.settings),
            limits: self.limits,
            identity: self.identity,
            retired: Arc::clone(&self.retired),
            boot: self.boot,
            started: self.started,
            peers: self.peers.clone(),
            witnessing: Arc::clone(&self.witnessing),
            overlay: Arc::clone(&self.overlay),
            runs: Arc::clone(&self.runs),
            timeline: Arc::clone(&self.timeline),
            clock: self.clock.state(),
            refused: Arc::clone(&self.refused),
            is_read_only: self.is_read_only,
        }
    }

    /// Whether this engine went back to what was shown ([`Self::go_back_to`]). It may not write until it is rebuilt, or it would
    /// do a second time what it did before.
    pub fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }

    /// From now on nothing is decided that would have to be durable (DESIGN, *A failing disk*).
    pub fn stop_writing(&mut self) {
        self.is_read_only = true;
        self.resuming.append(&mut self.late);
        self.late = std::mem::take(&mut self.resuming);
        self.change();
    }

    /// Tries the store again. The batch gets something to write, so that the store is really asked: what became known of
    /// peers, outcomes and settings meanwhile, and the boot counter once more.
    pub fn resume_writing(&mut self, now: Now, entropy: &mut dyn Entropy, effects: &mut Effects) {
        self.is_read_only = false;
        effects.persist(record::Record::Boot { counter: self.boot });
        for runtime in std::mem::take(&mut self.unsaved_boots) {
            if let Some(peer) = self.peers.get(&runtime) {
                effects.persist(observe::peer_record(&runtime, peer));
            }
        }
        self.write_late_outcomes(effects);
        self.make_up_for_reloads(now, entropy, effects);
        self.change();
    }

    /// A readable generation for ETags rises with every visible change.
    fn change(&mut self) {
        self.generation = self.generation.saturating_add(1);
    }

    fn me(&self) -> &RuntimeId {
        &self.settings.me
    }

    fn count_refused(&mut self, reason: &'static str) {
        let counter = Arc::make_mut(&mut self.refused).entry(reason).or_default();
        *counter = counter.saturating_add(1);
        self.change();
    }

    fn tell(&mut self, now: Now, about: Happening) {
        let rows = Arc::make_mut(&mut self.timeline);
        if rows.len() >= TIMELINE_MAX {
            rows.pop_front();
        }
        self.events = self.events.saturating_add(1);
        rows.push_back(Event {
            number: self.events,
            at: now.wall,
            category: about.category,
            runtime: about.runtime,
            request_id: about.request_id,
            summary: about.summary,
            severity: about.severity,
        });
        self.change();
    }

    /// A draft about what an asker of this node did here.
    fn draft(&self, now: Now, entropy: &mut dyn Entropy, asker: &Asker, action: &str, outcome: Outcome) -> Draft {
        Draft {
            audit_id: audit_id(now, entropy),
            at: now.wall,
            actor: asker.actor.to_string(),
            actor_verified: asker.is_verified,
            origin: self.me().clone(),
            action: action.to_owned(),
            target: self.me().clone(),
            request_id: None,
            outcome,
            code: None,
            detail: String::new(),
            policy_hash: self.settings.policy_hash,
        }
    }

    /// Puts the overlay's values over the file's.
    fn apply_overlay(&mut self) {
        self.limits = self.settings.limits;
        self.sweep_at = Monotonic::default();
        self.receipts_kept = self.settings.receipts_kept;
        for (key, value) in &self.overlay.values {
            let Value::Int(number) = value else { continue };
            let millis = Millis(u64::try_from(*number).unwrap_or(0));
            match key.as_str() {
                "mesh.timing.partition_ms" => self.limits.partition = millis,
                "mesh.timing.period_ms" => self.limits.period = millis,
                "mesh.timing.stale_ms" => self.limits.stale = millis,
                "store.receipts_kept_h" => self.receipts_kept = Millis::from_hours(millis.0),
                // What else is live is applied by the node's parts, not by the engine.
                _ => {}
            }
        }
    }
}

/// A row for the timeline, before it has a number and a time.
struct Happening {
    category: Category,
    runtime: RuntimeId,
    request_id: Option<RequestId>,
    summary: String,
    severity: Severity,
}

/// Names a record.
pub fn audit_id(now: Now, entropy: &mut dyn Entropy) -> AuditId {
    let mut random = [0; 10];
    entropy.fill(&mut random);
    AuditId::new(now.wall, random)
}

/// The configuration's etag: a hash over its keys and values, the same for the same content.
pub fn config_etag(overlay: &Overlay) -> Hash {
    let lines: Vec<String> = overlay.values.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    Hash::of(lines.concat().as_bytes())
}
