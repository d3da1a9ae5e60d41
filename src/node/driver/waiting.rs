//! What comes to the loop, and who of it still waits for an answer.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use tracing::Span;

use crate::domain::action::ActionKind;
use crate::domain::code::Code;
use crate::domain::id::RuntimeId;
use crate::domain::time::Wall;
use crate::engine::effect::{Answer, Effect, Waiter};
use crate::engine::input::{Input, QueryId, Received, ReplyId, Request, Write};
use crate::engine::word::Signer;
use crate::engine::{Engine, doubt};
use crate::handle::Failure;
use crate::mesh::{self, Responder};
use crate::node::arrived::Arrived;
use crate::node::trace;
use crate::store;

/// Something for the loop, with the place where its answer goes.
#[derive(Debug)]
pub(in crate::node) enum Mail {
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

/// What a batch still has to answer.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) queries: BTreeMap<QueryId, Responder>,
    /// The writes among the queries, to be asked again if the batch fails.
    pub(super) acts: BTreeMap<QueryId, Box<Received>>,
    /// What those writes ask for, to be counted and told with what became of them.
    pub(super) asked: BTreeMap<QueryId, (ActionKind, Span)>,
    /// The outcomes among the requests, to be handed over again if the batch fails: nobody else has them.
    pub(super) outcomes: BTreeMap<ReplyId, Request>,
    pub(super) replies: BTreeMap<ReplyId, oneshot::Sender<Result<Answer, Failure>>>,
    /// The writes among the requests that ask for something here, to be told what a restart may find if the batch fails.
    writes: BTreeMap<ReplyId, Write>,
    pub(super) met: Vec<oneshot::Sender<()>>,
    next: u64,
}

impl Waiting {
    pub(super) fn admit(&mut self, mail: Mail, engine: &Engine, me: &RuntimeId, now: Wall) -> Input {
        self.next = self.next.saturating_add(1);
        let (query, reply) = (QueryId(self.next), ReplyId(self.next));
        match mail {
            Mail::Input(input) => *input,
            Mail::Request(request, caller) => {
                self.replies.insert(reply, caller);
                if let Request::Begin { write, .. } = &request
                    && write.targets.contains(me)
                {
                    self.writes.insert(reply, write.clone());
                }
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
    pub(super) fn turn_away(&mut self, waiter: Waiter, full: store::Full) {
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

    /// The answer to a request, with what a restart may find of a write that was refused because nothing is written now.
    pub(super) fn told(&self, reply: ReplyId, mut answer: Answer, engine: &Engine) -> Answer {
        if let (Some(write), Answer::Refused { code: Code::StorageUnavailable, reason }) =
            (self.writes.get(&reply), &mut answer)
        {
            reason.push_str(engine.doubt_of(write));
        }
        answer
    }

    /// The commit failed, after which these would have been the answers.
    pub(super) fn fail(&mut self, error: &store::Error, answers: &[Effect], engine: &Engine) {
        for responder in std::mem::take(&mut self.queries).into_values() {
            responder.answer(mesh::Answer::Refusal(Code::StorageUnavailable.to_string()));
        }
        let answer_to = |wanted| {
            answers.iter().find_map(|effect| match effect {
                Effect::Reply { reply, answer } if *reply == wanted => Some(&**answer),
                Effect::Answer { .. }
                | Effect::Apply { .. }
                | Effect::AuditLightly { .. }
                | Effect::CancelRun(_)
                | Effect::Perform(_)
                | Effect::Refuse { .. }
                | Effect::Reply { .. }
                | Effect::StartRun(_) => None,
            })
        };
        for (reply, caller) in std::mem::take(&mut self.replies) {
            let doubt = match self.writes.get(&reply) {
                Some(write) => engine.doubt_of(write),
                None if error.may_be_written() => answer_to(reply).map_or("", doubt::of_answer),
                None => "",
            };
            let failure = Failure { code: Code::StorageUnavailable, reason: format!("{error}{doubt}") };
            drop(caller.send(Err(failure)));
        }
    }
}
