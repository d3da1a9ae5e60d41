//! The floor of the HTTP side: an axum server that reads the same bodies and writes the same answers behind the same checks,
//! but decides nothing. Its plans and outcomes stand ready.

use std::future::{Ready, ready};
use std::hint::black_box;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use trust_runtime::domain::audit::AuditId;
use trust_runtime::domain::code::Code;
use trust_runtime::domain::envelope::{Health, Response as Brought, Status};
use trust_runtime::domain::id::{RequestId, RuntimeId};
use trust_runtime::domain::policy::{Decision, Denial};
use trust_runtime::domain::preflight::{Plan, Row, Standing};
use trust_runtime::domain::projection::Lifecycle;
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::wire::api::v1::decision::{self, dispatch_answer, preflight_answer};

use crate::names;
use crate::stand::{Outcome, served};

pub(super) async fn serve() -> Outcome<()> {
    let routes = Router::new()
        .route("/preflight/1", post(answering(ready_plan(1)?)))
        .route("/preflight/1000", post(answering(ready_plan(1_000)?)))
        .route("/dispatch/status_read", post(answering(ready_outcome(&status()?)?)))
        .route("/dispatch/cmd_invoke", post(answering(ready_outcome(&Brought::Pong)?)))
        .layer(DefaultBodyLimit::max(256 * 1024));
    served::serve(routes).await
}

/// A question as an axum server takes it: in texts of its own, because its reader wants them so.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read from the body, and not looked at")]
struct Asked {
    api_version: String,
    request_id: String,
    connected_via: String,
    target_runtimes: Vec<String>,
    actor: String,
    action_type: String,
    query_budget_ms: u64,
    payload: Map<String, Value>,
}

/// A plan as an axum server gives it: derived, and of texts of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    api_version: String,
    request_id: String,
    connected_via: String,
    acting_on: Vec<String>,
    allowed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    denial_code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    denial_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remediation: Option<String>,
    decisions: Vec<Decided>,
    plan_hash: String,
}

/// One row of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decided {
    runtime_id: String,
    allowed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    denial_code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    denial_reason: Option<String>,
    stage: String,
    rule: String,
    target_state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remediation: Option<String>,
}

/// What became of a dispatch, likewise.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dispatched {
    api_version: String,
    request_id: String,
    connected_via: String,
    acting_on: Vec<String>,
    dry_run: bool,
    ok: bool,
    preflight: Planned,
    results: Vec<Done>,
}

/// One row of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    runtime_id: String,
    ok: bool,
    stage: String,
    audit_id: String,
    response: Map<String, Value>,
    receipt: String,
}

/// Reads a body and writes an answer as every axum server does.
fn answering<T: Serialize>(ready_made: T) -> impl Fn(Json<Asked>) -> Ready<Response<Body>> + Clone {
    let ready_made = Arc::new(ready_made);
    move |Json(asked)| {
        black_box(asked);
        ready(Json(&*ready_made).into_response())
    }
}

/// What the node answers, read once.
fn ready_plan(targets: usize) -> Outcome<Planned> {
    let (me, request_id): (RuntimeId, RequestId) = (ME.parse()?, "preflight".parse()?);
    Ok(serde_json::from_slice(&preflight_answer(&me, &request_id, &plan(targets)?, PLAN_HASH))?)
}

fn ready_outcome(response: &Brought) -> Outcome<Dispatched> {
    let (me, request_id): (RuntimeId, RequestId) = (ME.parse()?, "status_read-0-100".parse()?);
    let (plan, audit_id, receipt) = (plan(1)?, AuditId::new(Wall(1), [7; 10]), vec![7; RECEIPT_BYTES]);
    let outcomes = plan.rows.iter().map(|row| outcome(&row.target, response, audit_id, &receipt));
    Ok(serde_json::from_slice(&dispatch_answer(&me, &request_id, false, (&plan, PLAN_HASH), outcomes))?)
}

fn outcome<'a>(
    target: &'a RuntimeId,
    response: &'a Brought,
    audit_id: AuditId,
    receipt: &'a [u8],
) -> decision::Outcome<'a> {
    decision::Outcome { target, result: Ok(response), audit_id: Some(audit_id), receipt: Some(receipt) }
}

/// The first target is there, the others were never heard of.
fn plan(targets: usize) -> Outcome<Plan> {
    let row = |name: &String| {
        let target: RuntimeId = format!("default-site/{name}").parse()?;
        let standing = (name == "b").then_some(Standing { lifecycle: Lifecycle::Online, is_secure: false });
        let reason = format!("this runtime has never heard of {target}");
        let decision = match standing {
            Some(_) => Decision::Allow { rule: "role:engineer".into() },
            None => Decision::Deny(Denial::at_origin(Code::PeerNotAvailable, "known", reason)),
        };
        Ok(Row { target, decision, standing })
    };
    names(targets).iter().map(row).collect::<Outcome<_>>().map(|rows| Plan { rows })
}

fn status() -> Outcome<Brought> {
    Ok(Brought::Status(Box::new(Status {
        runtime: "default-site/b".parse()?,
        version: env!("CARGO_PKG_VERSION").into(),
        boot: 1,
        uptime: Millis(10_000),
        health: Health::Healthy,
        config_revision: 0,
        peers_online: 1,
    })))
}

const ME: &str = "default-site/a";
const PLAN_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// About what a signed receipt takes.
const RECEIPT_BYTES: usize = 1_600;
