//! What the runs API answers beside records and events: starts, pages, and errors in an envelope of its own.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::query::Issue;
use super::record::{InstanceBody, PointerBody, RunBody, raw};
use super::{instance_cursor, run_cursor};
use crate::domain::offer::Offer;
use crate::domain::run::{AgentName, Instance, Pointer, Run, RunId};
use crate::domain::text::shown;
use crate::domain::time::Wall;

/// What a run brought, for the caller who waited for it.
#[derive(Debug, Serialize, ToSchema)]
pub struct InvokedBody {
    /// What it brought; `null` where it brought nothing.
    #[schema(value_type = serde_json::Value)]
    result: Option<Box<RawValue>>,
    #[serde(rename = "_meta")]
    meta: InvokedMetaBody,
}

/// About an invocation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InvokedMetaBody {
    /// The run's id.
    run_id: String,
}

/// A run that goes on by itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedBody {
    /// `accepted`.
    status: &'static str,
    /// The run's id.
    run_id: String,
}

/// A page of runs, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PointersBody {
    items: Vec<PointerBody>,
    /// The `cursor` of the next page, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// A page of instances, ascending.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstancesBody {
    items: Vec<InstanceBody>,
    /// The `cursor` of the next page, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// The declared agents.
#[derive(Debug, Serialize, ToSchema)]
pub struct AgentsBody {
    items: Vec<AgentBody>,
}

/// One declared agent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AgentBody {
    name: String,
    triggers: TriggersBody,
}

/// How an agent can be started.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TriggersBody {
    /// Over HTTP; absent where it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    webhook: Option<bool>,
}

/// What went wrong, as the runs API says it.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunErrorBody {
    error: RunFaultBody,
}

/// One error.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunFaultBody {
    /// One of the documented types.
    #[serde(rename = "type")]
    kind: String,
    /// What happened.
    message: String,
    /// What the caller can do about it.
    details: String,
    /// More for who develops an agent; only with `runtime.control.mode = "debug"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    dev: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    meta: Option<RunMetaBody>,
}

/// More about an error, for programs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunMetaBody {
    /// The faults of the parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    issues: Vec<IssueBody>,
    /// What was last known of a run whose owner cannot be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    run: Option<PointerBody>,
    /// The runtime that has the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    owner: Option<String>,
}

/// One fault of a parameter.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IssueBody {
    path: &'static str,
    message: String,
}

/// What goes into an error.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// Its type.
    pub kind: &'a str,
    /// What happened.
    pub message: &'a str,
    /// What the caller can do about it.
    pub details: &'a str,
    /// More for who develops an agent.
    pub dev: Option<&'a str>,
    /// The faults of the parameters.
    pub issues: &'a [Issue],
    /// What was last known of the run.
    pub last_known: Option<&'a Pointer>,
}

/// An error as its answer.
pub fn error(envelope: Envelope<'_>) -> Vec<u8> {
    let Envelope { kind, message, details, dev, issues, last_known } = envelope;
    let meta = RunMetaBody {
        issues: issues.iter().map(|it| IssueBody { path: it.path, message: it.message.clone() }).collect(),
        run: last_known.map(PointerBody::from),
        owner: last_known.map(|pointer| pointer.owner.to_string()),
    };
    let is_said = !issues.is_empty() || last_known.is_some();
    let error = RunFaultBody {
        kind: kind.to_owned(),
        message: shown(message).into_owned(),
        details: details.to_owned(),
        dev: dev.filter(|dev| !dev.is_empty()).map(|dev| shown(dev).into_owned()),
        meta: is_said.then_some(meta),
    };
    encode(&RunErrorBody { error })
}

/// The answer to who waited for a run.
pub fn invoked(run: RunId, result: Option<&str>) -> Vec<u8> {
    encode(&InvokedBody { result: result.map(raw), meta: InvokedMetaBody { run_id: run.to_string() } })
}

/// The answer to who does not wait.
pub fn accepted(run: RunId) -> Vec<u8> {
    encode(&AcceptedBody { status: "accepted", run_id: run.to_string() })
}

/// One run.
pub fn record(run: &Run) -> Vec<u8> {
    encode(&RunBody::from(run))
}

/// A page of runs.
pub fn pointers(page: &[Pointer], next: Option<(Wall, RunId)>) -> Vec<u8> {
    let next_cursor = next.map(|(started, run)| run_cursor(started, run));
    encode(&PointersBody { items: page.iter().map(PointerBody::from).collect(), next_cursor })
}

/// A page of instances.
pub fn instances(page: &[(AgentName, Instance)], next: Option<&(AgentName, Instance)>) -> Vec<u8> {
    let items = page.iter().map(|(agent, instance)| InstanceBody::new(agent, instance)).collect();
    encode(&InstancesBody { items, next_cursor: next.map(|(agent, instance)| instance_cursor(agent, instance)) })
}

/// The declared agents.
pub fn agents(offer: &Offer) -> Vec<u8> {
    let body = |(name, agent): (&crate::domain::id::Segment, &crate::domain::offer::Agent)| AgentBody {
        name: name.to_string(),
        triggers: TriggersBody { webhook: agent.webhook.then_some(true) },
    };
    encode(&AgentsBody { items: offer.agents.iter().map(body).collect() })
}

/// The payload of an invocation as a JSON text: `{}` for nothing.
pub fn payload(body: &[u8]) -> Result<String, String> {
    if body.trim_ascii().is_empty() {
        return Ok("{}".to_owned());
    }
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    // Read as a value, because that is how deep and how it must be readable later; kept as it came, because numbers may be
    // longer than a value holds.
    serde_json::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())?;
    Ok(text.trim().to_owned())
}

fn encode(body: &impl Serialize) -> Vec<u8> {
    // These bodies have text keys and no fallible fields.
    serde_json::to_vec(body).unwrap_or_default()
}
