//! What the engine is told: time passing, peers speaking, people asking.

use std::sync::Arc;

use crate::domain::action::Action;
use crate::domain::audit::witness::Claim;
use crate::domain::audit::{AuditId, Hash};
use crate::domain::envelope::{Envelope, Ruling};
use crate::domain::id::{RequestId, RuntimeId, Segment};
use crate::domain::identity::Fingerprint;
use crate::domain::preflight::Asker;
use crate::domain::run::{Instance, RunId};
use crate::domain::time::Millis;
use crate::engine::record::{Countersigned, Deed};
use crate::engine::view::{Basis, Settings};
use crate::engine::word::{Signer, Word};

/// Names a query from the mesh that waits for an answer. Given by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueryId(pub u64);

/// Names a caller of this node who waits for a reply. Given by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplyId(pub u64);

/// One thing to decide on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// An envelope with a write for this runtime, its signature checked.
    Act {
        /// Where the receipt goes.
        query: QueryId,
        /// The write.
        received: Received,
    },
    /// What became of an envelope with a write, asked by its origin.
    AskOutcome {
        /// Where the receipt goes.
        query: QueryId,
        /// The write.
        received: Received,
    },
    /// An envelope came from a runtime that was unknown until now, or that signs with a new key.
    Met {
        /// Who signed it.
        signer: Signer,
        /// The boot counter in it.
        boot: u64,
    },
    /// A probe of a peer was not answered.
    ProbeLost {
        /// Whom.
        runtime: RuntimeId,
    },
    /// Somebody on this node asks.
    Request {
        /// Where the reply goes.
        reply: ReplyId,
        /// What.
        request: Request,
    },
    /// The next deadline is due.
    Timer,
    /// A liveliness token appeared.
    TokenAppeared {
        /// Whose key says so.
        runtime: RuntimeId,
        /// The boot counter in the key.
        boot: u64,
    },
    /// A liveliness token went away.
    TokenGone {
        /// Whose key says so.
        runtime: RuntimeId,
        /// The boot counter in the key.
        boot: u64,
    },
    /// A runtime spoke.
    Word {
        /// Who.
        signer: Signer,
        /// What.
        word: Word,
    },
}

/// An envelope whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Who signed.
    pub signer: Signer,
    /// The content.
    pub envelope: Envelope,
    /// SHA-256 of the signed bytes, for the receipt.
    pub digest: Hash,
}

/// What a caller on this node wants of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A peer's word for the newest head of the own log came; its signature is checked.
    Countersigned(Box<Countersigned>),
    /// Begin a dispatch of a write: intents become durable, envelopes come back.
    Begin {
        /// The write.
        write: Write,
        /// What the plan rests on that the caller has seen; absent where no plan was named.
        planned: Option<Basis>,
    },
    /// Record what became of a dispatched write.
    Conclude {
        /// The write.
        write: Write,
        /// What is known of each target.
        conclusions: Vec<Conclusion>,
    },
    /// A command to the workload was carried out, or not.
    ConcludeDeed {
        /// Which.
        deed: Box<Deed>,
        /// What became of it, or what went wrong, in one sentence.
        result: Result<String, String>,
    },
    /// A run has ended, and its end is durable.
    EndRun {
        /// Which.
        run: RunId,
    },
    /// The store of runs has failed for good: until the next start no run can be kept.
    RunsFailed {
        /// What the store said.
        reason: String,
    },
    /// Start a run of a declared agent.
    StartRun {
        /// Who asks.
        asker: Asker,
        /// Of what, with what.
        invoke: Box<Invoke>,
    },
    /// Trust a peer whose key a person has compared.
    PeersApprove {
        /// Who approves.
        asker: Asker,
        /// Whom.
        runtime: RuntimeId,
        /// The key that was compared; absent approves the pinned one.
        fingerprint: Option<Fingerprint>,
    },
    /// Forget a peer and its pinned key.
    PeersForget {
        /// Who asks.
        asker: Asker,
        /// Whom.
        runtime: RuntimeId,
    },
    /// Put a local control action on record, such as a shutdown.
    Record {
        /// Who asks.
        asker: Asker,
        /// What, as the audit log names it.
        action: &'static str,
    },
    /// Put on record that a runtime's certificate was renewed here, before it is handed out.
    Renewed {
        /// Whose.
        runtime: RuntimeId,
        /// Which certificate, for the record.
        detail: String,
    },
    /// Run with these settings from now on; they are valid.
    Reload {
        /// Who asks, or whose change of a file was noticed.
        asker: Asker,
        /// The settings.
        settings: Arc<Settings>,
        /// What differs, for the record.
        detail: String,
    },
    /// A peer asks for a countersignature of the head of its log.
    Witness {
        /// Who asks.
        signer: Box<Signer>,
        /// The head.
        claim: Box<Claim>,
        /// What lies between two heads of one boot at least.
        pause: Millis,
    },
    /// Accept the wall clock as it is.
    TimeReset {
        /// Who asks.
        asker: Asker,
    },
}

/// A write for one or more targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Who asks.
    pub asker: Asker,
    /// The caller's name for it.
    pub request_id: RequestId,
    /// What.
    pub action: Action,
    /// To whom, unique, qualified.
    pub targets: Vec<RuntimeId>,
}

/// A run of an agent, as somebody asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoke {
    /// Which agent.
    pub agent: Segment,
    /// For which instance.
    pub instance: Instance,
    /// What it is given, as a JSON text.
    pub payload: String,
    /// Whether the caller follows it, and is told when nothing is under way any more (contract, RR-16).
    pub is_streamed: bool,
}

/// What the origin knows of one target after its budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conclusion {
    /// Whom.
    pub target: RuntimeId,
    /// What it said, if anything.
    pub ruling: Option<Ruling>,
    /// The record at the target.
    pub audit_id: Option<AuditId>,
}
