//! What a restart may find carried out although its commit failed, and who is told so.
//!
//! That is whoever asked for something that stood in the failed batch, and whoever repeats such a write until a later commit lies
//! in its place. What was to be done elsewhere was not sent, and what was refused is in no batch.

use std::collections::BTreeSet;

use crate::domain::audit::AuditId;
use crate::domain::envelope::request_digest;
use crate::engine::Engine;
use crate::engine::effect::Answer;
use crate::engine::input::Write;
use crate::engine::record::RequestKey;

/// What is added to the reason of an error or a refusal.
const CARRIED_OUT: &str = "; it may be found carried out after a restart";

/// A run that was accepted is given an end by the next start, and its program is not started.
const ACCEPTED: &str = "; it may be found after a restart, as a run that ended before its program was started";

impl Engine {
    /// The batch with these audit records may have reached the disk although its commit failed: a restart may find its writes carried
    /// out. Said before the engine is rebuilt or goes back. Until a commit succeeds no refusal of one of these writes is signed.
    pub fn doubt(&mut self, records: &[AuditId]) {
        let records: BTreeSet<&AuditId> = records.iter().collect();
        let written = self.receipts.all().filter(|receipt| records.contains(&receipt.audit_id));
        self.doubted.extend(written.map(|receipt| (receipt.key.clone(), receipt.digest)));
    }

    /// Whether there are writes of which it is not known whether a restart finds them.
    #[cfg(test)]
    pub(crate) fn has_doubts(&self) -> bool {
        !self.doubted.is_empty()
    }

    /// A commit succeeded: it lies where the failed one would have been.
    pub fn settle(&mut self) {
        self.doubted.clear();
        self.under_way.settle();
    }

    /// What is added to the error or the refusal of whoever asks for this write, when he is told. Another content under the same
    /// name was in no batch.
    pub fn doubt_of(&self, write: &Write) -> &'static str {
        let Write { asker, request_id, action, targets } = write;
        let key = RequestKey { actor: asker.actor.clone(), request_id: request_id.clone() };
        let digest = request_digest(&asker.actor, action, self.me());
        if targets.contains(self.me()) && self.doubted.get(&key) == Some(&digest) { CARRIED_OUT } else { "" }
    }
}

/// What is added to the error of whoever would have had this answer, had the commit of a batch not failed that a restart may find.
/// A write is asked for by its name instead ([`Engine::doubt_of`]).
pub fn of_answer(answer: &Answer) -> &'static str {
    match answer {
        Answer::Recorded => CARRIED_OUT,
        Answer::RunAccepted(_) => ACCEPTED,
        Answer::Begun { .. } | Answer::Overtaken { .. } | Answer::Refused { .. } | Answer::Witnessed(_) => "",
    }
}
