//! The driver's loop in virtual time: take inputs, decide, make durable, then speak. A crash may come between any two.

use std::collections::{BTreeMap, BTreeSet};

use trust_runtime::domain::audit::{AuditId, Hash, Position};
use trust_runtime::domain::code::Code;
use trust_runtime::domain::envelope::Ruling;
use trust_runtime::domain::run::RunId;
use trust_runtime::engine::Engine;
use trust_runtime::engine::effect::{Answer, Effect, Effects};
use trust_runtime::engine::exchange::Question;
use trust_runtime::engine::input::{Input, QueryId, Received, ReplyId, Request};
use trust_runtime::engine::record::RequestKey;
use trust_runtime::engine::word::Signer;
use trust_runtime::wire::mesh as wire;

use crate::disk::{Condition, Written};
use crate::invariant::{self, Allowance};
use crate::network::{Body, Ticket};
use crate::node::Node;
use crate::world::{Event, World};

/// Something for the loop, with the place where its answer goes.
#[derive(Debug)]
pub(crate) enum Mail {
    Act(Box<Received>, Option<Ticket>),
    AskOutcome(Box<Received>, Option<Ticket>),
    Input(Box<Input>),
    /// An unknown signer; its query goes on when the view knows it.
    Met(Box<Signer>, u64, Question, Box<Received>, Option<Ticket>),
    Request(Request, Purpose),
}

/// Why a caller of this node asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Admin,
    /// Starts a run of an agent.
    Agent,
    Begin(u64),
    Conclude(u64),
    /// Tells what became of a command to the workload.
    Deed(u64),
    /// Tells that a run has ended.
    EndRun(RunId),
    /// It was shown a head, and says its word to this node.
    Witness {
        asker: usize,
        head: Hash,
    },
}

/// One batch on its way from decision to speech.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) effects: Effects,
    pub(crate) queries: BTreeMap<QueryId, (Received, Option<Ticket>)>,
    /// Which of the queries ask to act; the others ask for an outcome.
    pub(crate) acts: BTreeSet<QueryId>,
    /// When it was written, where that is found later.
    pub(crate) written: Option<u64>,
    /// How many audit records the batch had once each query was decided.
    pub(crate) decided: BTreeMap<QueryId, usize>,
    pub(crate) replies: BTreeMap<ReplyId, Purpose>,
    /// The outcomes among the requests.
    pub(crate) outcomes: Vec<(ReplyId, Request)>,
    pub(crate) met: Vec<(Question, Received, Option<Ticket>)>,
    /// What the oracle says of each write in it.
    pub(crate) allowances: BTreeMap<RequestKey, Vec<Allowance>>,
    pub(crate) positions: BTreeMap<AuditId, Position>,
}

impl Turn {
    /// Whether a query was decided before that of which this record is, in the same batch.
    pub(crate) fn is_decided_before(&self, query: QueryId, record: AuditId) -> bool {
        let at = self.effects.batch.audits.iter().position(|draft| draft.audit_id == record);
        at.zip(self.decided.get(&query)).is_some_and(|(at, decided)| *decided <= at)
    }
}

impl Node {
    /// Lets the engine decide on one mail. Gives what must be logged.
    fn decide(&mut self, world_ms: u64, truth: &invariant::Truth, mail: Mail, turn: &mut Turn) {
        let now = self.now(world_ms);
        let policy = self.policy;
        let Some(live) = self.live.as_mut() else { return };
        live.names += 1;
        let (query, reply) = (QueryId(live.names), ReplyId(live.names));
        let input = match mail {
            Mail::Act(received, ticket) => {
                let allowance = invariant::allowance(truth, &live.engine.view(), policy, &received, now);
                let envelope = &received.envelope;
                let key = RequestKey { actor: envelope.actor.clone(), request_id: envelope.request_id.clone() };
                turn.allowances.entry(key).or_default().push(allowance);
                turn.queries.insert(query, ((*received).clone(), ticket));
                turn.acts.insert(query);
                Input::Act { query, received: *received }
            }
            Mail::AskOutcome(received, ticket) => {
                turn.queries.insert(query, ((*received).clone(), ticket));
                Input::AskOutcome { query, received: *received }
            }
            Mail::Input(input) => *input,
            Mail::Met(signer, boot, question, received, ticket) => {
                turn.met.push((question, *received, ticket));
                Input::Met { signer: *signer, boot }
            }
            Mail::Request(request, purpose) => {
                turn.replies.insert(reply, purpose);
                if let Request::Begin { write, .. } = &request {
                    let key = RequestKey { actor: write.asker.actor.clone(), request_id: write.request_id.clone() };
                    let allowance = invariant::own_allowance(&live.engine.view(), write);
                    turn.allowances.entry(key).or_default().push(allowance);
                }
                if matches!(request, Request::Conclude { .. }) {
                    turn.outcomes.push((reply, request.clone()));
                }
                Input::Request { reply, request }
            }
        };
        live.engine.handle(now, &mut live.entropy, input, &mut turn.effects);
        turn.decided.insert(query, turn.effects.batch.audits.len());
    }
}

impl World {
    /// Lets the node's loop take what waits, unless a batch is under way.
    pub(crate) fn kick(&mut self, node: usize) {
        loop {
            let most = 1 + self.chance.index(4);
            let it = &mut self.nodes[node];
            let Some(live) = it.live.as_mut() else { return };
            if it.is_frozen || live.turn.is_some() || live.inbox.is_empty() {
                return;
            }
            let count = live.inbox.len().min(most);
            let mails: Vec<Mail> = live.inbox.drain(..count).collect();
            let mut turn = Turn::default();
            for mail in mails {
                it.decide(self.now, &self.truth, mail, &mut turn);
            }
            it.try_writing_again(self.now, &mut turn);
            self.check_decided(node, &turn);
            let is_empty = turn.effects.batch.is_empty();
            if let Some(live) = self.nodes[node].live.as_mut() {
                live.turn = Some(turn);
            }
            if !is_empty {
                let after = self.chance.between(1, 8);
                let epoch = self.nodes[node].epoch;
                self.schedule(after, Event::Commit { node, epoch });
                return;
            }
            self.release(node);
        }
    }

    /// The batch becomes durable, or none of it ever happened.
    pub(crate) fn commit(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let Some(turn) = it.live.as_mut().and_then(|live| live.turn.take()) else { return };
        let mut turn = turn;
        let before = it.disk.facts.clone();
        match it.disk.commit(&turn.effects.batch) {
            Ok(positions) => {
                let ids = turn.effects.batch.audits.iter().map(|draft| draft.audit_id);
                turn.positions = ids.zip(positions).collect();
                self.check_committed(node, &before, &turn);
                if let Some(live) = self.nodes[node].live.as_mut() {
                    live.engine.settle();
                    live.turn = Some(turn);
                }
                let after = self.chance.between(0, 3);
                let epoch = self.nodes[node].epoch;
                self.schedule(after, Event::Release { node, epoch });
            }
            Err(condition) => {
                let is_written = condition == Condition::Broken && self.reaches_the_disk(node, &turn);
                self.log(format!(
                    "n{node} commit fails: {condition:?}, {}",
                    if is_written { "written" } else { "lost" }
                ));
                self.fall_back(node, turn, condition);
            }
        }
    }

    /// The first batch that a broken disk refuses may be there after the restart: what failed was the word that it is.
    fn reaches_the_disk(&mut self, node: usize, turn: &Turn) -> bool {
        let disk = &mut self.nodes[node].disk;
        let is_first = !std::mem::replace(&mut disk.has_failed, true);
        let is_written = is_first && disk.kept.is_none() && self.chance.happens(500);
        if is_written {
            let Turn { effects, replies, allowances, .. } = turn;
            let written = Written {
                effects: effects.clone(),
                replies: replies.clone(),
                allowances: allowances.clone(),
                at: self.now,
            };
            self.nodes[node].disk.written = Some(Box::new(written));
        }
        is_written
    }

    /// Nothing of the failed batch counts: its callers hear so, and the engine is rebuilt, read-only.
    fn fall_back(&mut self, node: usize, mut turn: Turn, condition: Condition) {
        let it = &mut self.nodes[node];
        let now = it.now(self.now);
        let records = it.disk.recall();
        let Some(live) = it.live.as_mut() else { return };
        if condition == Condition::Broken {
            let written: Vec<AuditId> = turn.effects.batch.audits.iter().map(|draft| draft.audit_id).collect();
            live.engine.doubt(&written);
        }
        live.engine = live.engine.rebuilt(records, now).expect("facts hold no removal");
        live.engine.stop_writing();
        live.view = live.engine.view();
        // As the driver does: asked again, a write that was done before gets its receipt and any other a refusal, which is signed
        // where the batch cannot be on the disk.
        let mut again = Effects::default();
        for query in &turn.acts {
            if let Some((received, _)) = turn.queries.get(query) {
                let input = Input::Act { query: *query, received: received.clone() };
                live.engine.handle(now, &mut live.entropy, input, &mut again);
            }
        }
        for (reply, request) in std::mem::take(&mut turn.outcomes) {
            live.engine.handle(now, &mut live.entropy, Input::Request { reply, request }, &mut again);
        }
        assert!(again.batch.is_empty(), "a read-only engine wants nothing durable");
        let keys = live.keys.clone();
        for effect in again.after {
            let Effect::Answer { query, receipt } = effect else { continue };
            let Some((received, ticket)) = turn.queries.remove(&query) else { continue };
            if matches!(receipt.ruling, Ruling::Refused(_)) {
                self.ledger.note_refusal(node, received.digest, self.now);
            }
            self.answer_query(node, &received, ticket, Ok(wire::seal_receipt(&keys, &receipt)));
        }
        for (received, ticket) in turn.queries.into_values() {
            self.answer_query(node, &received, ticket, Err(Code::StorageUnavailable.to_string()));
        }
        for purpose in turn.replies.into_values() {
            self.take_reply(node, purpose, None);
        }
        // An introduction that failed is no answer: its query goes on and is judged by what is known.
        for (question, received, ticket) in turn.met {
            self.take_query(node, question, received, ticket);
        }
        self.kick(node);
    }

    /// What was decided may be said now.
    pub(crate) fn release(&mut self, node: usize) {
        let Some(live) = self.nodes[node].live.as_mut() else { return };
        let Some(mut turn) = live.turn.take() else { return };
        live.view = live.engine.view();
        for effect in std::mem::take(&mut turn.effects.after) {
            match effect {
                Effect::Answer { query, mut receipt } => {
                    let Some((received, ticket)) = turn.queries.remove(&query) else { continue };
                    receipt.position = turn.positions.get(&receipt.audit_id).copied();
                    self.check_answer(node, (query, &received), &receipt, &turn);
                    let Some(live) = self.nodes[node].live.as_ref() else { return };
                    let sealed = wire::seal_receipt(&live.keys, &receipt);
                    self.answer_query(node, &received, ticket, Ok(sealed));
                }
                Effect::Refuse { query, code } => {
                    let Some((received, ticket)) = turn.queries.remove(&query) else { continue };
                    self.answer_query(node, &received, ticket, Err(code.to_string()));
                }
                Effect::Reply { reply, answer } => {
                    let Some(purpose) = turn.replies.remove(&reply) else { continue };
                    self.take_reply(node, purpose, Some(*answer));
                }
                Effect::CancelRun(run) => self.cancel_run(node, run, &turn),
                Effect::Perform(deed) => self.perform_deed(node, deed),
                Effect::StartRun(run) => self.accept_run(node, &run),
                Effect::Apply { .. } | Effect::AuditLightly { .. } => {}
            }
        }
        self.check_all_answered(node, &turn);
        for (question, received, ticket) in turn.met {
            self.take_query(node, question, received, ticket);
        }
        self.check_view(node);
        self.set_timer(node);
    }

    fn set_timer(&mut self, node: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        let epoch = it.epoch;
        let monotonic = it.monotonic_of(now);
        let Some(live) = it.live.as_mut() else { return };
        let Some(due) = live.engine.next_deadline() else { return };
        let due_ms = now + due.since(monotonic).0 + 1;
        if live.timer_at.is_none_or(|at| at <= now || due_ms < at) {
            live.timer_at = Some(due_ms);
            self.schedule(due_ms - now, Event::Timer { node, epoch });
        }
    }

    fn answer_query(
        &mut self,
        node: usize,
        received: &Received,
        ticket: Option<Ticket>,
        answer: Result<Vec<u8>, String>,
    ) {
        let text = answer.as_ref().map_or_else(String::as_str, |_| "receipt");
        self.log(format!("n{node} answers {} with {text}", received.envelope.request_id));
        if let Some(ticket) = ticket {
            self.post(node, ticket.origin, Body::Answer { ticket, answer });
        }
    }
}

impl Node {
    /// A full disk is tried again with each batch; a broken one stays broken until a restart.
    fn try_writing_again(&mut self, world_ms: u64, turn: &mut Turn) {
        let now = self.now(world_ms);
        let may_recover = self.disk.condition != Condition::Broken;
        let Some(live) = self.live.as_mut().filter(|live| may_recover && live.engine.view().is_read_only) else {
            return;
        };
        live.engine.resume_writing(now, &mut live.entropy, &mut turn.effects);
    }
}

/// The engine that a start would make of the disk now.
pub(crate) fn recovered(node: &Node, world_ms: u64) -> Engine {
    let view = &node.live.as_ref().expect("a live node").view;
    let settings = std::sync::Arc::clone(&view.settings);
    Engine::recover(settings, view.identity, node.disk.recall(), node.now(world_ms)).expect("facts hold no removal")
}

/// What a reply says, in a word for the log.
pub(crate) fn word_of(answer: Option<&Answer>) -> String {
    match answer {
        None => "storage_unavailable".to_owned(),
        Some(Answer::Recorded) => "recorded".to_owned(),
        Some(Answer::RunAccepted(run)) => format!("accepted {run}"),
        Some(Answer::Witnessed(said)) => format!("{said:?}"),
        Some(Answer::Refused { code, .. }) => code.to_string(),
        Some(Answer::Overtaken { denial, .. }) => denial.code.to_string(),
        Some(Answer::Begun { plan, started }) => match plan.first_denial() {
            Some(denial) => format!("denied {}", denial.code),
            None => format!("begun {}", started.len()),
        },
    }
}

/// A hash's first digits for the log.
pub(crate) fn short(hash: Hash) -> String {
    hash.to_string().chars().take(6).collect()
}
