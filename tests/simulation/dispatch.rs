//! A caller's side of a dispatch: begin, carry each envelope with the real exchange, conclude.

use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::code::Code;
use trust_runtime::domain::envelope::{Envelope, Ruling};
use trust_runtime::domain::time::Millis;
use trust_runtime::engine::effect::{Answer, Started};
use trust_runtime::engine::exchange::{self, Exchange, Finding, Question, Step};
use trust_runtime::engine::input::{Conclusion, Request, Write};
use trust_runtime::wire::mesh as wire;

use crate::network::{Body, Ticket};
use crate::turn::{Mail, Purpose, word_of};
use crate::world::{Event, World};

#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) write: Write,
    pub(crate) budget: u64,
    pub(crate) parts: Vec<Part>,
}

#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) target: usize,
    pub(crate) envelope: Envelope,
    sealed: Vec<u8>,
    pub(crate) digest: Hash,
    exchange: Exchange,
    attempt: u64,
    finding: Option<Finding>,
}

impl Dispatch {
    /// The query that waits for an answer at present.
    pub(crate) fn open_ticket(&self, origin: usize, epoch: u64, dispatch: u64) -> Option<Ticket> {
        let part = self.parts.iter().position(|part| part.finding.is_none())?;
        Some(Ticket { origin, epoch, dispatch, part, attempt: self.parts.get(part)?.attempt })
    }
}

/// What a caller was told in the end, for scenarios.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// Denied or refused before anything was sent.
    Nothing,
    /// What came of each sent part.
    Findings(Vec<(usize, Finding)>),
}

impl World {
    /// A caller asks this node. Gives the dispatch's number.
    pub(crate) fn ask(&mut self, origin: usize, write: Write, budget: u64) -> u64 {
        self.ledger.dispatches += 1;
        let number = self.ledger.dispatches;
        let targets: Vec<_> = write.targets.iter().map(ToString::to_string).collect();
        let action = trust_runtime::domain::action::name(&write.action);
        self.log(format!(
            "n{origin} is asked #{number} {} {action} {} {targets:?}",
            write.request_id, write.asker.actor
        ));
        let now = self.nodes[origin].now(self.now);
        let Some(live) = self.nodes[origin].live.as_mut() else { return number };
        live.dispatches.insert(number, Dispatch { write: write.clone(), budget, parts: Vec::new() });
        if !write.action.kind().is_read() {
            self.mail(origin, Mail::Request(Request::Begin { write, planned: None }, Purpose::Begin(number)));
            return number;
        }
        let plan = live.view.plan(&write.asker, &write.action, &write.targets, now);
        if !plan.is_allowed() {
            live.dispatches.remove(&number);
            return number;
        }
        let view = live.view.clone();
        let envelope = |target| view.envelope(&write.asker, &write.request_id, &write.action, target, now.wall);
        for envelope in write.targets.iter().filter_map(envelope) {
            self.begin_part(origin, number, envelope);
        }
        number
    }

    /// The engine's answer to a caller of this node; none means that the batch was not durable.
    pub(crate) fn take_reply(&mut self, node: usize, purpose: Purpose, answer: Option<Answer>) {
        self.log(format!("n{node} replies {purpose:?}: {}", word_of(answer.as_ref())));
        self.take_work_reply(node, purpose, answer.as_ref());
        if let Purpose::Witness { asker, head } = purpose {
            return self.say_word(node, asker, head, answer);
        }
        let Purpose::Begin(number) = purpose else { return };
        let Some(Answer::Begun { started, .. }) = answer else {
            self.end_dispatch(node, number, Told::Nothing);
            return;
        };
        self.check_begun(node, number, &started);
        let mut is_sent = false;
        for part in started {
            if let Started::Send(envelope) = part {
                is_sent = true;
                self.begin_part(node, number, *envelope);
            }
        }
        if !is_sent {
            self.end_dispatch(node, number, Told::Nothing);
        }
    }

    fn end_dispatch(&mut self, node: usize, number: u64, told: Told) {
        if let Some(live) = self.nodes[node].live.as_mut() {
            live.dispatches.remove(&number);
        }
        self.ledger.told.insert(number, told);
    }

    fn begin_part(&mut self, node: usize, number: u64, mut envelope: Envelope) {
        let monotonic = self.nodes[node].monotonic_of(self.now);
        let target = self.nodes.iter().position(|it| it.id == envelope.target).expect("targets are nodes");
        let Some(live) = self.nodes[node].live.as_mut() else { return };
        live.envelopes += 1;
        envelope.sequence = live.envelopes;
        let (sealed, digest) = wire::seal_envelope(&live.keys, &envelope);
        let Some(dispatch) = live.dispatches.get_mut(&number) else { return };
        let is_read = envelope.action.kind().is_read();
        let (exchange, step) = Exchange::begin(is_read, monotonic, Millis(dispatch.budget));
        let part = dispatch.parts.len();
        dispatch.parts.push(Part { target, envelope, sealed, digest, exchange, attempt: 0, finding: None });
        self.take_step(node, number, part, step);
    }

    fn take_step(&mut self, origin: usize, dispatch: u64, part: usize, step: Step) {
        let epoch = self.nodes[origin].epoch;
        let Some(live) = self.nodes[origin].live.as_mut() else { return };
        let Some(it) = live.dispatches.get_mut(&dispatch).and_then(|it| it.parts.get_mut(part)) else { return };
        it.attempt += 1;
        match step {
            Step::Ask { question, after, within } => {
                let ticket = Ticket { origin, epoch, dispatch, part, attempt: it.attempt };
                self.schedule(after.0, Event::AskNow { ticket, question, within: within.0 });
            }
            Step::Done(finding) => {
                it.finding = Some((*finding).clone());
                self.check_finding(origin, dispatch, part, &finding);
                self.conclude(origin, dispatch);
            }
        }
    }

    pub(crate) fn ask_now(&mut self, ticket: Ticket, question: Question, within: u64) {
        let Ticket { origin, dispatch, part, .. } = ticket;
        let Some(live) = self.nodes[origin].live.as_ref() else { return };
        let Some(it) = live.dispatches.get(&dispatch).and_then(|it| it.parts.get(part)) else { return };
        let (target, bytes) = (it.target, it.sealed.clone());
        let claimed = self.nodes[origin].id.clone();
        if self.network.weather.lost > 0 && self.network.chance.happens(10) {
            self.exchange_event(ticket, exchange::Event::Unsent);
            return;
        }
        // A mesh ends a query without an answer when a link breaks: before the query got through, or after it.
        let share = if self.network.is_cut(origin, target) { 500 } else { self.network.weather.lost / 3 };
        if self.network.chance.happens(share) {
            let after = self.network.chance.between(5, 80);
            self.schedule(after, Event::NoReply(ticket));
        }
        self.post(origin, target, Body::Query { question, claimed, bytes, ticket: Some(ticket) });
        self.schedule(within, Event::AskOver(ticket));
    }

    /// An answer came for a query, which counts only while that query is open.
    pub(crate) fn take_answer(&mut self, ticket: Ticket, answer: Result<Vec<u8>, String>) {
        let Ticket { origin, epoch, dispatch, part, .. } = ticket;
        let now = self.nodes[origin].now(self.now);
        let node = &self.nodes[origin];
        let Some(live) = node.live.as_ref().filter(|_| node.epoch == epoch) else { return };
        let Some(it) = live.dispatches.get(&dispatch).and_then(|it| it.parts.get(part)) else { return };
        let event = match answer {
            Err(text) => exchange::Event::Refused(text),
            Ok(bytes) => match wire::open_receipt(&live.view, &it.envelope.target, it.digest, &bytes, now.wall) {
                Ok(receipt) => exchange::Event::Answered(Box::new(receipt)),
                Err(_refusal) => exchange::Event::Forged,
            },
        };
        self.exchange_event(ticket, event);
    }

    pub(crate) fn exchange_event(&mut self, ticket: Ticket, event: exchange::Event) {
        let Ticket { origin, dispatch, part, attempt, epoch } = ticket;
        let monotonic = self.nodes[origin].monotonic_of(self.now);
        let node = &mut self.nodes[origin];
        let Some(live) = node.live.as_mut().filter(|_| node.epoch == epoch) else { return };
        let Some(it) = live.dispatches.get_mut(&dispatch).and_then(|it| it.parts.get_mut(part)) else { return };
        if it.finding.is_some() || it.attempt != attempt {
            return;
        }
        let step = it.exchange.next(monotonic, event);
        self.take_step(origin, dispatch, part, step);
    }

    /// When every part has its finding, a write goes on record.
    fn conclude(&mut self, origin: usize, number: u64) {
        let Some(live) = self.nodes[origin].live.as_ref() else { return };
        let Some(dispatch) = live.dispatches.get(&number) else { return };
        let findings: Option<Vec<(usize, Finding)>> =
            dispatch.parts.iter().map(|part| part.finding.clone().map(|finding| (part.target, finding))).collect();
        // Every part begins before the first can end, because asking goes through the queue.
        let Some(findings) = findings else { return };
        let write = dispatch.write.clone();
        let conclusions: Vec<Conclusion> =
            findings.iter().map(|(target, finding)| conclusion(self.nodes[*target].id.clone(), finding)).collect();
        let is_read = write.action.kind().is_read();
        self.end_dispatch(origin, number, Told::Findings(findings));
        if !is_read {
            self.mail(origin, Mail::Request(Request::Conclude { write, conclusions }, Purpose::Conclude(number)));
        }
    }
}

/// What goes on record about one target.
fn conclusion(target: trust_runtime::domain::id::RuntimeId, finding: &Finding) -> Conclusion {
    match finding {
        // A target whose commit failed may find the batch on its disk after a restart, so its word is no proof.
        Finding::Receipt(receipt) if matches!(&receipt.ruling, Ruling::Refused(denial) if denial.code == Code::StorageUnavailable) => {
            Conclusion { target, ruling: None, audit_id: None }
        }
        Finding::Receipt(receipt) => {
            Conclusion { target, ruling: Some(receipt.ruling.clone()), audit_id: Some(receipt.audit_id) }
        }
        Finding::Denied(denial) if denial.code == Code::Timeout => Conclusion { target, ruling: None, audit_id: None },
        Finding::Denied(denial) => Conclusion { target, ruling: Some(Ruling::Refused(denial.clone())), audit_id: None },
    }
}
