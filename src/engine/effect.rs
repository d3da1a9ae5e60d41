//! What the engine asks the driver to do, in two parts: what must be durable, and what may be said afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::audit::{AuditId, Draft};
use crate::domain::code::Code;
use crate::domain::config::Value;
use crate::domain::envelope::{Envelope, Receipt, Ruling};
use crate::domain::id::RuntimeId;
use crate::domain::policy::Denial;
use crate::domain::preflight::Plan;
use crate::domain::run::RunId;
use crate::engine::input::{QueryId, ReplyId};
use crate::engine::record::{Batch, Deed, NotContinued, OpenRun, Record};

/// Effects of a batch of inputs. `batch` is made durable first; only then is anything of `after` performed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// What must be durable.
    pub batch: Batch,
    /// What happens then, in order.
    pub after: Vec<Effect>,
}

impl Effects {
    pub(crate) fn persist(&mut self, record: Record) {
        self.batch.records.push(record);
    }

    pub(crate) fn audit(&mut self, draft: Draft) {
        self.batch.audits.push(draft);
    }

    pub(crate) fn then(&mut self, effect: Effect) {
        self.after.push(effect);
    }
}

/// One thing to do once the batch is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Sign this receipt and answer the query with it. The driver fills in the place in the chain.
    Answer {
        /// Which query.
        query: QueryId,
        /// The receipt.
        receipt: Box<Receipt>,
    },
    /// These live settings hold from now on.
    Apply {
        /// The values by key.
        values: BTreeMap<String, Value>,
    },
    /// Hand the records of a request that changed nothing to the chain of reads, all or none: refusals must not cost a disk
    /// write each. Where there is no room, whoever waits hears `server_busy` in place of the answer that follows.
    AuditLightly {
        /// The records.
        drafts: Vec<Draft>,
        /// Who waits for the answer.
        waiter: Waiter,
    },
    /// Tell the program of this run to end.
    CancelRun(RunId),
    /// Tell the workload.
    Perform(Box<Deed>),
    /// Answer the query with nothing but a code.
    Refuse {
        /// Which query.
        query: QueryId,
        /// Why.
        code: Code,
    },
    /// Answer a caller on this node.
    Reply {
        /// Whom.
        reply: ReplyId,
        /// What.
        answer: Box<Answer>,
    },
    /// Begin this run.
    StartRun(Arc<OpenRun>),
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiter {
    /// A query from the mesh.
    Query(QueryId),
    /// A caller on this node.
    Reply(ReplyId),
}

/// What a caller on this node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A dispatch has begun, or was denied as a whole: then nothing was sent anywhere.
    Begun {
        /// The decisions.
        plan: Plan,
        /// What happens for each target in request order; empty when the plan denies.
        started: Vec<Started>,
    },
    /// The plan that the caller named does not hold any more. Nothing was sent anywhere.
    Overtaken {
        /// The decisions of now.
        plan: Plan,
        /// Why it does not happen.
        denial: Denial,
    },
    /// It is done and on record.
    Recorded,
    /// The run is accepted and begins.
    RunAccepted(RunId),
    /// What is said to the head of a peer's log.
    Witnessed(Witnessed),
    /// It was refused.
    Refused {
        /// Why.
        code: Code,
        /// One sentence.
        reason: String,
    },
}

/// What is said to the head of a peer's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witnessed {
    /// Countersign it: it is kept.
    Continues,
    /// Show what came since this size.
    Behind(u64),
    /// It does not continue the head that is kept.
    Broken(NotContinued),
    /// It says nothing, for this reason.
    Refused(&'static str),
}

/// How one target's part of a dispatch starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// It was this runtime's own part and is finished.
    Here {
        /// What became of it.
        ruling: Ruling,
        /// The record.
        audit_id: AuditId,
    },
    /// The envelope to seal and send.
    Send(Box<Envelope>),
}

impl Started {
    /// Whom this part is for, given the own runtime.
    pub fn target<'a>(&'a self, me: &'a RuntimeId) -> &'a RuntimeId {
        match self {
            Self::Here { .. } => me,
            Self::Send(envelope) => &envelope.target,
        }
    }
}
