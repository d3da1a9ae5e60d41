//! The description of the API (OpenAPI 3.1), made from the route table and from the bodies themselves.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::{action, audit, config, control, decision, encode, error, health, state};

/// What a request or an answer consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// A request to preflight or dispatch.
    Action,
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
    /// Nothing.
    None,
    /// This description.
    OpenApi,
    /// A request to this node about a peer.
    Peer,
    /// The decisions.
    Preflight,
    /// What became of reading the node's files again.
    Reloaded,
    /// The fleet.
    State,
    /// Plain text.
    Text,
}

/// Which parameters an address may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// Those of the audit log.
    Audit,
    /// Those of the node's health.
    Health,
    /// None.
    None,
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
}

/// The whole description.
pub fn document(version: &str, operations: &[Operation]) -> Vec<u8> {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        paths.entry(operation.path).or_default().insert(operation.method.to_owned(), describe(operation));
    }
    encode(&json!({
        "openapi": "3.1.0",
        "info": {
            "title": "trust-runtime",
            "version": version,
            "description": "A peer-to-peer runtime mesh node: see the fleet, ask, act and audit from any node.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
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
        let content = json!({ "application/problem+json": { "schema": reference("ProblemBody") } });
        let body = if *status == 304 { json!({}) } else { json!({ "content": content }) };
        let mut answer = body;
        insert(&mut answer, "description", Value::from(*meaning));
        answers.insert(status.to_string(), answer);
    }
    let mut described = json!({
        "summary": operation.summary,
        "description": operation.access,
        "operationId": operation_id(operation),
        "responses": answers,
    });
    if operation.takes_credential {
        insert(&mut described, "security", json!([{ "token": [] }, {}]));
    }
    let parameters = match operation.query {
        Query::Audit => audit::AuditQuery::into_params(|| None),
        Query::Health => health::HealthQuery::into_params(|| None),
        Query::None => Vec::new(),
    };
    if !parameters.is_empty() {
        insert(&mut described, "parameters", serde_json::to_value(parameters).unwrap_or_default());
    }
    if let Some(content) = content(operation.request) {
        insert(&mut described, "requestBody", json!({ "required": true, "content": content }));
    }
    described
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
        Body::Text => return Some(json!({ "text/plain": { "schema": { "type": "string" } } })),
        Body::Action => "ActionBody",
        Body::Audit => "AuditBody",
        Body::Config => "ConfigBody",
        Body::Control => "ControlBody",
        Body::Dispatch => "DispatchBody",
        Body::Done => "DoneBody",
        Body::Health => "HealthBody",
        Body::Peer => "PeerBody",
        Body::Preflight => "PreflightBody",
        Body::Reloaded => "ReloadedBody",
        Body::State => "StateBody",
    };
    Some(json!({ "application/json": { "schema": reference(name) } }))
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
    collect::<state::StateBody>(&mut all);
    all.into_iter().collect()
}

fn collect<T: ToSchema + PartialSchema>(all: &mut Vec<(String, RefOr<Schema>)>) {
    all.push((T::name().into_owned(), T::schema()));
    T::schemas(all);
}
