//! The description of the API (OpenAPI 3.1), made from the route table and from the bodies themselves.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::{action, audit, config, control, decision, encode, error, health, state, watch};
use crate::domain::action::ActionKind;
use crate::domain::run::{INSTANCE_BYTES_MAX, Kind};
use crate::wire::run;

/// The title of the public description.
pub const TITLE: &str = "trust-runtime";

/// The title of the admin listener's description.
pub const ADMIN_TITLE: &str = "trust-runtime admin";

/// What preflight is asked: a dispatch without the plan, which preflight makes.
const QUESTION: &str = "QuestionBody";

/// Text that is not blank.
const NOT_BLANK: &str = "\\S";

/// A name of an instance: text that is not blank and has no control character.
const INSTANCE: &str = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$";

/// What a request or an answer consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// A request to dispatch.
    Action,
    /// The declared agents.
    Agents,
    /// A page of the audit log.
    Audit,
    /// A SPIFFE trust bundle.
    Bundle,
    /// The live settings.
    Config,
    /// A request to this node itself.
    Control,
    /// What became of a dispatch.
    Dispatch,
    /// A request to this node itself is done.
    Done,
    /// The node's health.
    Health,
    /// A page of instances.
    Instances,
    /// What a run brought.
    Invoked,
    /// The metrics as text.
    Metrics,
    /// Nothing.
    None,
    /// This description.
    OpenApi,
    /// What a run is given.
    Payload,
    /// A request to this node about a peer.
    Peer,
    /// A page of runs.
    Pointers,
    /// The decisions.
    Preflight,
    /// A request to preflight.
    Question,
    /// What became of reading the node's files again.
    Reloaded,
    /// A run.
    Run,
    /// A page of a run's events.
    RunEvents,
    /// A run's events as they come.
    RunStream,
    /// The fleet.
    State,
    /// The fleet as it changes.
    StateStream,
    /// Plain text.
    Text,
}

/// Which parameters an address may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// Those of a list of all runs.
    AllRuns,
    /// Those of the audit log.
    Audit,
    /// Those of a run's events.
    Events,
    /// Those of the node's health.
    Health,
    /// None.
    None,
    /// Where a page begins and how long it is.
    Page,
    /// Those of a list of runs.
    Runs,
}

/// One operation of the route table.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// The method in lower case.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Who may ask, in words.
    pub access: &'static str,
    /// Whether a credential is looked at.
    pub takes_credential: bool,
    /// The parameters that it takes.
    pub query: Query,
    /// The request's body.
    pub request: Body,
    /// The answer's body.
    pub answer: Body,
    /// Every status that is not the answer, with what it means.
    pub problems: &'static [(u16, &'static str)],
    /// The status of the answer.
    pub success: u16,
    /// What tools call it, where the contract says so.
    pub id: Option<&'static str>,
    /// Whether its errors are in the envelope of the runs API.
    pub is_enveloped: bool,
}

/// What comes of a stream as server-sent events.
const FRAMES: &str = "Events with their name, their id and their data; a comment where nothing happens. An event `error`, \
    whose data is the error, is the last one: a reader that comes back goes on behind the last id that it was given. Its type is \
    `unauthorized` where the credential holds no more.";

/// What comes of a run as lines.
const RUN_LINES: &str = "One event a line, with its `type` and its `eventIndex`; an empty line where nothing happens. A line \
    with the member `error` is the last one.";

/// What comes of the state as lines.
const STATE_LINES: &str = "One event a line, as an object with its name in `event`, its id in `id` and what it says in `data`; an \
    empty line where nothing happens. A line with the event `error`, which has no id, is the last one.";

/// The whole description, of what is served behind a mount.
pub fn document((title, version): (&str, &str), mount: &str, operations: &[Operation]) -> Vec<u8> {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        paths.entry(operation.path).or_default().insert(operation.method.to_owned(), describe(operation));
    }
    encode(&json!({
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": "A peer-to-peer runtime mesh node: see the fleet, ask, act and audit from any node.",
        },
        "servers": [{ "url": if mount.is_empty() { "/" } else { mount } }],
        "paths": paths,
        "components": {
            "schemas": with_question(json!(schemas())),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    }))
}

fn describe(operation: &Operation) -> Value {
    let mut answers = Map::new();
    let mut success = json!({ "description": "The answer." });
    if let Some(content) = content(operation.answer) {
        insert(&mut success, "content", content);
    }
    answers.insert(operation.success.to_string(), success);
    for (status, meaning) in operation.problems {
        answers.insert(status.to_string(), problem(operation, *status, meaning));
    }
    let mut described = json!({
        "summary": operation.summary,
        "description": operation.access,
        "operationId": operation.id.map_or_else(|| operation_id(operation), str::to_owned),
        "responses": answers,
    });
    if operation.takes_credential {
        insert(&mut described, "security", json!([{ "token": [] }, {}]));
    }
    let parameters = parameters(operation);
    if !parameters.is_empty() {
        insert(&mut described, "parameters", Value::from(parameters));
    }
    if let Some(content) = content(operation.request) {
        let required = operation.request != Body::Payload;
        insert(&mut described, "requestBody", json!({ "required": required, "content": content }));
    }
    annotate(operation, &mut described);
    described
}

/// The schema of a problem. What is refused before the route is known is a problem document on every route.
fn problem(operation: &Operation, status: u16, meaning: &str) -> Value {
    let plain = json!({ "application/problem+json": { "schema": reference("ProblemBody") } });
    let content = match (operation.is_enveloped, status) {
        (_, 304) => return json!({ "description": meaning }),
        (false, _) => plain,
        (true, 400 | 403 | 404) => json!({
            "application/json": { "schema": reference("RunErrorBody") },
            "application/problem+json": { "schema": reference("ProblemBody") },
        }),
        (true, _) => json!({ "application/json": { "schema": reference("RunErrorBody") } }),
    };
    json!({ "description": meaning, "content": content })
}

/// What only the runs API has: further answers, and keys for tools, under our name and that of the contract (contract, D31).
fn annotate(operation: &Operation, described: &mut Value) {
    let mut keys = Vec::new();
    if matches!(operation.answer, Body::RunStream | Body::StateStream | Body::Invoked) {
        keys.push(("streaming", Value::from(true)));
    }
    if operation.answer == Body::Invoked {
        keys.push(("invocation-modes", json!(["sync", "webhook", "stream"])));
        keys.push(("user-defined", Value::from(true)));
    }
    for (key, value) in keys {
        for owner in ["trust", "flue"] {
            insert(described, &format!("x-{owner}-{key}"), value.clone());
        }
    }
    if operation.answer == Body::Invoked {
        let content = json!({ "application/json": { "schema": reference("AcceptedBody") } });
        let going_on = links("$response.body#/runId");
        let answer = json!({ "description": "The run goes on by itself.", "content": content, "links": going_on });
        if let Some(responses) = described.get_mut("responses") {
            insert(responses, "202", answer);
            if let Some(awaited) = responses.get_mut("200") {
                insert(awaited, "links", links("$response.body#/_meta/runId"));
            }
        }
    }
}

/// Where to go on with a run that was started.
fn links(run: &str) -> Value {
    let to = |operation| json!({ "operationId": operation, "parameters": { "runId": run } });
    json!({ "record": to("getRun"), "events": to("listRunEvents"), "stream": to("streamRunEvents") })
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let names = operation.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let in_path =
        names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": segment(operation, name) }));
    let whole = |name: &str, least: u32, most: Option<u32>, what: &str| {
        let mut schema = json!({ "type": "integer", "minimum": least });
        if let Some(most) = most {
            insert(&mut schema, "maximum", Value::from(most));
        }
        json!({ "name": name, "in": "query", "required": false, "description": what, "schema": schema })
    };
    let text = |name: &str, what: &str| json!({ "name": name, "in": "query", "required": false, "description": what, "schema": { "type": "string" } });
    let limit = || whole("limit", 1, Some(1_000), "1 to 1,000; 100 when absent.");
    let cursor = || text("cursor", "`nextCursor` of the page before.");
    let status = || {
        let schema = json!({ "type": "string", "enum": ["active", "completed", "errored"] });
        json!({ "name": "status", "in": "query", "required": false, "description": "Only runs that are this far.", "schema": schema })
    };
    let listed = |parameters: Vec<utoipa::openapi::path::Parameter>| {
        parameters.iter().filter_map(|it| serde_json::to_value(it).ok()).collect()
    };
    let in_query: Vec<Value> = match operation.query {
        Query::AllRuns => vec![status(), text("agentName", "Only runs of this agent."), cursor(), limit()],
        Query::Audit => listed(audit::AuditQuery::into_params(|| None)),
        Query::Events => vec![whole("after", 0, None, "Only events behind this number."), types(), limit()],
        Query::Health => listed(health::HealthQuery::into_params(|| None)),
        Query::None => Vec::new(),
        Query::Page => vec![cursor(), limit()],
        Query::Runs => vec![status(), cursor(), limit()],
    };
    in_path.chain(in_query).collect()
}

/// What a variable part of a path may be. Of a name that is no agent's or run's the answer is 404 and not 400; an instance is
/// named by whoever starts a run for it.
fn segment(operation: &Operation, name: &str) -> Value {
    match name {
        "id" if operation.answer == Body::Invoked => {
            json!({ "type": "string", "minLength": 1, "maxLength": INSTANCE_BYTES_MAX, "pattern": INSTANCE })
        }
        "name" => json!({ "type": "string", "minLength": 1, "pattern": NOT_BLANK }),
        _ => json!({ "type": "string", "minLength": 1 }),
    }
}

fn types() -> Value {
    let one = Kind::ALL.map(Kind::as_str).join("|");
    let schema = json!({ "type": "string", "pattern": format!("^({one})(,({one}))*$") });
    let what = "Only these types of events, with commas between them.";
    json!({ "name": "types", "in": "query", "required": false, "description": what, "schema": schema })
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn operation_id(operation: &Operation) -> String {
    let words = operation.path.split(|it: char| !it.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(operation.method).chain(words).collect::<Vec<_>>().join("_")
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn content(body: Body) -> Option<Value> {
    let name = match body {
        Body::None => return None,
        Body::OpenApi => return Some(json!({ "application/json": { "schema": { "type": "object" } } })),
        Body::Bundle => return Some(json!({ "application/json": { "schema": bundle() } })),
        Body::Payload => return Some(json!({ "application/json": { "schema": {} } })),
        Body::RunEvents => {
            let event = json!({ "type": "object", "required": ["type", "runId", "eventIndex", "timestamp"] });
            let events = json!({ "type": "array", "items": event });
            let schema = json!({ "type": "object", "required": ["events"], "properties": { "events": events } });
            return Some(json!({ "application/json": { "schema": schema } }));
        }
        Body::RunStream | Body::StateStream => {
            return Some(streamed(if body == Body::RunStream { RUN_LINES } else { STATE_LINES }));
        }
        Body::Metrics => {
            return Some(json!({ "application/openmetrics-text": { "schema": { "type": "string" } } }));
        }
        Body::Text => return Some(json!({ "text/plain": { "schema": { "type": "string" } } })),
        Body::Action => "ActionBody",
        Body::Agents => "AgentsBody",
        Body::Audit => "AuditBody",
        Body::Config => "ConfigBody",
        Body::Control => "ControlBody",
        Body::Dispatch => "DispatchBody",
        Body::Done => "DoneBody",
        Body::Health => "HealthBody",
        Body::Instances => "InstancesBody",
        Body::Invoked => {
            let mut content = streamed(RUN_LINES);
            insert(&mut content, "application/json", json!({ "schema": reference("InvokedBody") }));
            return Some(content);
        }
        Body::Peer => "PeerBody",
        Body::Pointers => "PointersBody",
        Body::Preflight => "PreflightBody",
        Body::Question => QUESTION,
        Body::Reloaded => "ReloadedBody",
        Body::Run => "RunBody",
        Body::State => "StateBody",
    };
    Some(json!({ "application/json": { "schema": reference(name) } }))
}

/// Events as they come, as the caller's `Accept` wants them. The schema of server-sent events is that of one event.
fn streamed(lines: &str) -> Value {
    let text = || json!({ "type": "string" });
    let event = json!({
        "type": "object",
        "description": FRAMES,
        "required": ["event", "data"],
        "properties": { "event": text(), "id": text(), "data": text() },
    });
    json!({ "text/event-stream": { "schema": event }, "application/x-ndjson": { "schema": { "type": "string", "description": lines } } })
}

/// The form is the specification's: a JWK Set (SPIFFE Trust Domain and Bundle, section 4).
fn bundle() -> Value {
    json!({
        "type": "object",
        "description": "A JWK Set of entries with `use` x509-svid, each with the certificate of one authority in `x5c`.",
        "required": ["keys", "spiffe_sequence"],
        "properties": {
            "keys": { "type": "array", "items": { "type": "object" } },
            "spiffe_sequence": { "type": "integer", "minimum": 0 },
            "spiffe_refresh_hint": { "type": "integer", "minimum": 0, "description": "Seconds." },
        },
    })
}

/// Every body and what it consists of, by name.
fn schemas() -> BTreeMap<String, RefOr<Schema>> {
    let mut all = Vec::new();
    collect::<action::ActionBody<'_>>(&mut all);
    collect::<audit::AuditBody<'_>>(&mut all);
    collect::<config::ConfigBody>(&mut all);
    collect::<control::ControlBody>(&mut all);
    collect::<control::DoneBody<'_>>(&mut all);
    collect::<control::PeerBody>(&mut all);
    collect::<control::ReloadedBody<'_>>(&mut all);
    collect::<decision::DispatchBody<'_>>(&mut all);
    collect::<error::ProblemBody<'_>>(&mut all);
    collect::<health::HealthBody<'_>>(&mut all);
    collect::<run::AcceptedBody>(&mut all);
    collect::<run::AgentsBody>(&mut all);
    collect::<run::InstancesBody>(&mut all);
    collect::<run::InvokedBody>(&mut all);
    collect::<run::PointersBody>(&mut all);
    collect::<run::RunBody>(&mut all);
    collect::<run::RunErrorBody>(&mut all);
    collect::<state::StateBody>(&mut all);
    collect::<watch::RemovedBody<'_>>(&mut all);
    all.into_iter().collect()
}

/// Says which payload goes with which action, and adds what preflight is asked, which is made from what dispatch is asked.
fn with_question(mut schemas: Value) -> Value {
    if let Some(action) = schemas.get_mut("ActionBody") {
        insert(action, "allOf", payloads());
    }
    let mut question = schemas.get("ActionBody").cloned().unwrap_or_default();
    if let Some(properties) = question.get_mut("properties").and_then(Value::as_object_mut) {
        properties.remove("plan_hash");
    }
    insert(&mut schemas, QUESTION, question);
    schemas
}

/// Of what is no action the payload is not looked at: it is denied by its name.
fn payloads() -> Value {
    let object = || json!({ "type": "object" });
    let status_read = json!({ "properties": { "ha": object() }, "additionalProperties": false });
    let mut cfg_apply = status_read.clone();
    if let Some(properties) = cfg_apply.get_mut("properties") {
        insert(properties, "params", object());
    }
    let mut cmd_invoke = cfg_apply.clone();
    if let Some(properties) = cmd_invoke.get_mut("properties") {
        insert(properties, "command", json!({ "type": "string" }));
    }
    insert(&mut cfg_apply, "required", json!(["params"]));
    insert(&mut cmd_invoke, "required", json!(["command"]));
    let of = |kind: ActionKind, payload: Value| {
        let required = if payload.get("required").is_some() { json!(["payload"]) } else { json!([]) };
        json!({
            "if": { "properties": { "action_type": { "const": kind.as_str() } }, "required": ["action_type"] },
            "then": { "properties": { "payload": payload }, "required": required },
        })
    };
    json!([
        of(ActionKind::StatusRead, status_read),
        of(ActionKind::CfgApply, cfg_apply),
        of(ActionKind::CmdInvoke, cmd_invoke),
    ])
}

fn collect<T: ToSchema + PartialSchema>(all: &mut Vec<(String, RefOr<Schema>)>) {
    all.push((T::name().into_owned(), T::schema()));
    T::schemas(all);
}
