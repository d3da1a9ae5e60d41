//! What was seen from outside, as plain data: the judge looks at nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::schedule::{Fault, Node};

/// A fault and when it was really done: the schedule's own times are only when it was begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub(super) begun: Duration,
    pub(super) ended: Duration,
    pub(super) fault: Fault,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// No effect but its record.
    Ping,
    /// A live setting; each change raises the target's revision.
    Apply { more: u64 },
    /// A program that writes the request's id into a file, and then takes so long.
    Mark { hold_ms: u64 },
}

/// One request, however often it was asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) wish: Wish,
    pub(super) target: Node,
}

/// What somebody was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Done {
        audit_id: String,
        run: Option<String>,
    },
    /// It was not begun, with the code.
    Refused(String),
    /// Nobody knows: no answer, or one that says so.
    Unknown(String),
}

/// One time that a request was asked.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) id: String,
    pub(super) origin: Node,
    pub(super) told: Told,
}

/// All that callers asked and were told.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) requests: BTreeMap<String, Asked>,
    pub(super) attempts: Vec<Attempt>,
}

/// What one node showed of another one, between the question and the answer.
#[derive(Debug, Clone)]
pub(super) struct Sighting {
    pub(super) asked: Duration,
    pub(super) answered: Duration,
    pub(super) observer: Node,
    pub(super) subject: Node,
    pub(super) lifecycle: String,
}

/// A line of an audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) audit_id: String,
    pub(super) request_id: String,
    /// By their names, without the site.
    pub(super) origin: String,
    pub(super) target: String,
    pub(super) action: String,
    pub(super) outcome: String,
    pub(super) detail: String,
}

/// What a node keeps, and what can be counted outside of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    /// Why `audit verify` does not hold, if so.
    pub(super) unverified: Option<String>,
    pub(super) records: Vec<Record>,
    /// The lines that programs wrote: the request's id, once for each start.
    pub(super) marks: Vec<String>,
    pub(super) revision: u64,
}

/// A run, as some node tells it after all.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    pub(super) status: String,
    /// Types of its events in their order, with their numbers.
    pub(super) events: Vec<(u64, String)>,
}

/// What a process takes of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    pub(super) memory_kib: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
}

/// Everything about one storm and the calm after it.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) done: Vec<Done>,
    pub(super) sightings: Vec<Sighting>,
    /// Until all were healed.
    pub(super) calls: Calls,
    /// What did not come back in time, with the last that was seen.
    pub(super) unsettled: Vec<String>,
    /// Each node after all is healed.
    pub(super) before: BTreeMap<Node, Kept>,
    /// The same request once more, each through some node.
    pub(super) repeated: Vec<Attempt>,
    /// Each node after that.
    pub(super) after: BTreeMap<Node, Kept>,
    pub(super) runs: BTreeMap<String, Run>,
    pub(super) weights: BTreeMap<Node, Weight>,
    /// Nodes that ended by themselves, or not as asked.
    pub(super) ends: Vec<String>,
    /// Processes that nothing accounts for.
    pub(super) left: Vec<String>,
}

impl Evidence {
    /// Whom a request was asked of, during the storm and after it.
    pub(super) fn origins(&self, id: &str) -> BTreeSet<Node> {
        self.attempts(id).map(|attempt| attempt.origin).collect()
    }

    pub(super) fn attempts<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Attempt> {
        self.calls.attempts.iter().chain(&self.repeated).filter(move |attempt| attempt.id == id)
    }
}
