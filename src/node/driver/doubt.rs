//! Who is told that a restart may find carried out what was answered with an error.
//!
//! That is whoever asked for something that stood in the batch whose commit failed, and whoever repeats such a write until a later
//! commit lies in its place. What was to be done elsewhere was not sent, and what was refused is in no batch.

use std::collections::BTreeSet;

use crate::domain::audit::Hash;
use crate::domain::code::Code;
use crate::domain::envelope::request_digest;
use crate::domain::id::RuntimeId;
use crate::engine::effect::Answer;
use crate::engine::input::Request;
use crate::engine::record::{Batch, Record, RequestKey};

const CARRIED_OUT: &str = "; it may be found carried out after a restart";

/// A run that was accepted is given an end by the next start, and its program is not started.
const ACCEPTED: &str = "; it may be found after a restart, as a run that ended before its program was started";

/// A write as its target remembers it: by its name and its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Known(RequestKey, Hash);

impl Known {
    /// What a request asks to be done here by a name that it may be repeated with.
    pub(super) fn of(request: &Request, me: &RuntimeId) -> Option<Self> {
        let Request::Begin { write, .. } = request else { return None };
        let key = RequestKey { actor: write.asker.actor.clone(), request_id: write.request_id.clone() };
        write.targets.contains(me).then(|| Self(key, request_digest(&write.asker.actor, &write.action, me)))
    }

    /// What was done here in a batch, for whomever.
    pub(super) fn all_of(batch: &Batch) -> Vec<Self> {
        let known = |record: &Record| {
            let Record::Receipt(receipt) = record else { return None };
            Some(Self(receipt.key.clone(), receipt.digest))
        };
        batch.records.iter().filter_map(known).collect()
    }
}

/// The writes of which nobody knows whether a restart finds them.
#[derive(Debug, Default)]
pub(in crate::node) struct Doubts(BTreeSet<Known>);

impl Doubts {
    /// These stood in a batch that may be on the disk although its commit failed.
    pub(super) fn add(&mut self, writes: Vec<Known>) {
        self.0.extend(writes);
    }

    /// A commit succeeded: it lies where the failed one would have been.
    pub(super) fn settle(&mut self) {
        self.0.clear();
    }

    /// What is added to the error of whoever would have had this answer, had the commit not failed.
    pub(super) fn of_failed(
        &self,
        write: Option<&Known>,
        answer: Option<&Answer>,
        may_be_written: bool,
    ) -> &'static str {
        match (write, answer) {
            (Some(write), _) => self.of(write),
            (None, Some(Answer::Recorded)) if may_be_written => CARRIED_OUT,
            (None, Some(Answer::RunAccepted(_))) if may_be_written => ACCEPTED,
            (
                None,
                Some(
                    Answer::Begun { .. }
                    | Answer::Overtaken { .. }
                    | Answer::Recorded
                    | Answer::Refused { .. }
                    | Answer::RunAccepted(_)
                    | Answer::Witnessed(_),
                )
                | None,
            ) => "",
        }
    }

    /// The same for a write that is repeated and refused, because nothing is written now.
    pub(super) fn told(&self, write: Option<&Known>, mut answer: Answer) -> Answer {
        if let (Some(write), Answer::Refused { code: Code::StorageUnavailable, reason }) = (write, &mut answer) {
            reason.push_str(self.of(write));
        }
        answer
    }

    fn of(&self, write: &Known) -> &'static str {
        if self.0.contains(write) { CARRIED_OUT } else { "" }
    }
}
