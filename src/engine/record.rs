//! Facts that are made durable before anybody hears of them. `recover` builds the engine from them again.

use std::sync::Arc;

use crate::domain::audit::witness::{Break, Head};
use crate::domain::audit::{AuditId, Draft, Hash};
use crate::domain::config::Overlay;
use crate::domain::envelope::{Envelope, Response};
use crate::domain::id::{RequestId, RuntimeId, Segment};
use crate::domain::identity::{Actor, Fingerprint, TrustState};
use crate::domain::run::{AgentName, Instance, Pointer, RunId};
use crate::domain::time::Wall;

/// One durable fact. Each variant names what it replaces: recovery sees only the newest of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The boot counter; replaces the earlier one.
    Boot {
        /// Counts the starts of this runtime from 1.
        counter: u64,
    },
    /// The latest wall time seen; replaces the earlier one.
    ClockMark {
        /// Time below this is in the past.
        wall: Wall,
    },
    /// When the youngest receipt that was ever dropped was given; replaces the earlier one.
    DroppedUntil {
        /// What is not younger may have been carried out.
        wall: Wall,
    },
    /// What a peer has said to the newest head of this runtime's log; replaces its earlier word.
    Countersigned(Box<Countersigned>),
    /// Removes a peer's word.
    CountersignedForgotten {
        /// Whose.
        witness: RuntimeId,
    },
    /// The newest head of a peer's log; replaces the earlier one.
    Head {
        /// Whose log.
        runtime: RuntimeId,
        /// The head.
        head: Box<Head>,
    },
    /// Removes the head of a peer's log.
    HeadForgotten {
        /// Whose log.
        runtime: RuntimeId,
    },
    /// An action sent to a target whose outcome is not on record yet; replaces the one for the same request and target.
    Intent(Intent),
    /// The outcome is on record: removes the intent.
    IntentClosed(IntentKey),
    /// A command to the workload that is not carried out to its end yet.
    Deed(Deed),
    /// What became of it is on record: removes it.
    DeedClosed(RequestKey),
    /// The configuration applied at run time; replaces the earlier one.
    Overlay(Overlay),
    /// A peer and the key pinned for it; replaces the earlier one for the same runtime.
    Peer(Peer),
    /// Removes a peer and its pin.
    PeerForgotten {
        /// Whom.
        runtime: RuntimeId,
    },
    /// The receipt of a write carried out here; replaces the one for the same key.
    Receipt(Receipt),
    /// Removes one receipt whose time is over.
    ReceiptDropped(RequestKey),
    /// A run that was accepted and has not ended.
    Run(Arc<OpenRun>),
    /// Its end is durable where its events are: removes it.
    RunClosed(RunId),
}

/// What names one write at its target, whoever sends it again (DESIGN, *An action across the mesh*).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKey {
    /// Who asked.
    pub actor: Actor,
    /// The caller's name for it.
    pub request_id: RequestId,
}

impl RequestKey {
    /// The key of a write that arrived.
    pub fn of(envelope: &Envelope) -> Self {
        Self { actor: envelope.actor.clone(), request_id: envelope.request_id.clone() }
    }
}

/// What names one write at its origin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IntentKey {
    /// The write.
    pub request: RequestKey,
    /// To whom it was sent.
    pub target: RuntimeId,
}

/// A write that left or is about to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Which write, to whom.
    pub key: IntentKey,
    /// The action's name in the audit log.
    pub action: String,
    /// When it was sent.
    pub at: Wall,
}

/// What is remembered of a peer over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Whom.
    pub runtime: RuntimeId,
    /// The identity key it must prove.
    pub pinned: Fingerprint,
    /// How far it is trusted.
    pub trust: TrustState,
    /// The highest boot counter it has signed.
    pub boot: u64,
}

/// A peer's word for the own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Countersigned {
    /// Whose word.
    pub witness: RuntimeId,
    /// The key by which it countersigns, as text; empty where it never did.
    pub key: String,
    /// The newest checkpoint that it countersigned, with its signature; empty where there is none.
    pub note: String,
    /// Why it refused since, if it did.
    pub refused: Option<NotContinued>,
}

/// A peer's refusal to countersign: it says that the own log does not continue what it has seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotContinued {
    /// What it found.
    pub reason: Break,
    /// The checkpoint of this log that it keeps.
    pub held: String,
}

/// What a target remembers of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Which write.
    pub key: RequestKey,
    /// Who sent it.
    pub origin: RuntimeId,
    /// SHA-256 over actor, action, target and parameters.
    pub digest: Hash,
    /// When the write was carried out.
    pub at: Wall,
    /// The audit record made in the same transaction.
    pub audit_id: AuditId,
    /// What it brought.
    pub response: Response,
}

/// A command to the workload that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// Which write asked for it.
    pub key: RequestKey,
    /// Who sent that.
    pub origin: RuntimeId,
    /// Whether a credential vouched for the actor.
    pub is_verified: bool,
    /// Which command.
    pub command: Segment,
    /// When it was accepted.
    pub at: Wall,
}

/// A run that was accepted and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRun {
    /// Its name.
    pub run: RunId,
    /// What it executes.
    pub agent: AgentName,
    /// For which instance.
    pub instance: Instance,
    /// What it is given, as a JSON text.
    pub payload: String,
    /// Whether its caller follows it, and is told when nothing is under way any more.
    pub is_streamed: bool,
    /// Who asked for it.
    pub actor: Actor,
    /// When it was accepted.
    pub at: Wall,
}

impl OpenRun {
    /// How it is found: at this runtime, active.
    pub fn pointer(&self, owner: &RuntimeId) -> Pointer {
        Pointer {
            run: self.run,
            owner: owner.clone(),
            agent: self.agent.clone(),
            instance: self.instance.clone(),
            started: self.at,
            end: None,
        }
    }
}

/// What one turn of the engine wants durable, all or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Facts in the order they were decided.
    pub records: Vec<Record>,
    /// Audit records in the order they were decided.
    pub audits: Vec<Draft>,
}

impl Batch {
    /// Whether nothing needs to be written.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.audits.is_empty()
    }
}
