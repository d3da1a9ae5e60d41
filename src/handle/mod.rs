//! What the outer layers may ask of the running node, as one trait: `web` calls it, `node` implements it.
//!
//! Whoever holds it cannot reach the engine, the mesh or the store's writer in any other way.

pub mod runs;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::domain::action::Action;
use crate::domain::audit::{AuditId, Draft};
use crate::domain::code::Code;
use crate::domain::envelope::Response;
use crate::domain::id::{RequestId, RuntimeId};
use crate::domain::identity::Fingerprint;
use crate::domain::policy::Denial;
use crate::domain::preflight::{Asker, Plan};
use crate::domain::queue::Queue;
use crate::domain::time::{Millis, Now};
use crate::domain::workload;
use crate::engine::view::{Basis, View};
use crate::metrics::Metrics;

/// A boxed future, so that the operations can be a trait object.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something asked of one or more runtimes, well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks, as the credential says.
    pub asker: Asker,
    /// The caller's name for it.
    pub request_id: RequestId,
    /// What.
    pub action: Action,
    /// To whom: 1 to 1,000, unique, qualified.
    pub targets: Vec<RuntimeId>,
    /// How long each target may take.
    pub budget: Millis,
    /// What the plan rests on that the caller has seen, if one was named: it is carried out only while that is the same.
    pub planned: Option<Basis>,
}

/// The answer to "would this be allowed?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// A decision per target.
    pub plan: Plan,
    /// Names this plan for ten minutes; opaque.
    pub plan_hash: String,
}

/// What became of a dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatched {
    /// What was decided before anything was sent.
    pub preflight: Preflight,
    /// One per target in request order; empty when the plan denied or it was a dry run.
    pub outcomes: Vec<TargetOutcome>,
}

/// What became of it at one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetOutcome {
    /// Whom.
    pub target: RuntimeId,
    /// What it brought, or why not. A denial's stage says who decided.
    pub result: Result<Response, Denial>,
    /// The record at the target; at the origin where the target did not answer.
    pub audit_id: Option<AuditId>,
    /// The target's signed receipt as it came over the mesh.
    pub receipt: Option<Vec<u8>>,
}

/// Local control of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Trust a peer; with a fingerprint only if that is the pinned key.
    PeersApprove {
        /// Whom.
        runtime: RuntimeId,
        /// The key that a person has compared.
        fingerprint: Option<Fingerprint>,
    },
    /// Forget a peer and its key.
    PeersForget {
        /// Whom.
        runtime: RuntimeId,
    },
    /// Stop this node.
    Shutdown,
    /// Accept the wall clock as it is.
    TimeReset,
}

/// What became of reading the node's files again: everything that changed was taken up, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What changed and holds from now on, as sections of runtime.toml or names of files.
    pub applied: Vec<String>,
    /// What changed and takes effect at the next start.
    pub needs_restart: Vec<String>,
    /// What is not valid: of it, what was in force stays.
    pub rejected: Vec<Rejected>,
}

/// A file that was not taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which.
    pub what: String,
    /// What is wrong with it, with places.
    pub reason: String,
}

/// Why an operation could not be carried out at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// One sentence.
    pub reason: String,
}

/// The running node as its callers see it.
pub trait Operations: Send + Sync + fmt::Debug {
    /// The present snapshot. Never waits.
    fn view(&self) -> Arc<View>;

    /// The present moment, from the node's clock.
    fn now(&self) -> Now;

    /// Answers from the snapshot, without effects and without waiting.
    fn preflight(&self, request: &Request) -> Preflight;

    /// What this plan rests on, if the plan hash names exactly it and is still good.
    fn planned(&self, plan_hash: &str, request: &Request, plan: &Plan) -> Option<Basis>;

    /// Decides again and carries out, each target within its budget. Nothing is sent if any target is denied, or if the plan
    /// that the request names does not hold at the very moment of this decision. It goes on to its outcome on record also when
    /// the answer is not waited for.
    fn dispatch(&self, request: Request) -> Pending<'_, Result<Dispatched, Failure>>;

    /// Changes this node itself. The caller has checked that the asker is an admin.
    fn control(&self, asker: Asker, control: Control) -> Pending<'_, Result<(), Failure>>;

    /// Reads the node's files again. The caller has checked that the asker is an admin.
    fn reload(&self, asker: Asker) -> Pending<'_, Result<Reloaded, Failure>>;

    /// Puts a refusal at the HTTP boundary on record. A full queue is a `server_busy`.
    fn record(&self, draft: Draft) -> Result<(), Failure>;

    /// Whether the node takes requests: bound, recovered and not stopping.
    fn is_ready(&self) -> bool;

    /// How many mesh transports are up, as last counted.
    fn mesh_links(&self) -> usize;

    /// Why the node is at no mesh now, if it is not. Never waits.
    fn mesh_fault(&self) -> Option<String> {
        None
    }

    /// How the workload does, if there is one. Never waits.
    fn workload(&self) -> Option<workload::Status> {
        None
    }

    /// What was refused since the start, by reason: at the mesh's boundary, by signature and by the engine.
    fn refused(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::new()
    }

    /// What is counted on this node.
    fn metrics(&self) -> &Metrics;

    /// The bounded queues between its parts, as they are now.
    fn queues(&self) -> Vec<Queue> {
        Vec::new()
    }
}
