//! What preflight and dispatch answer: what was decided, what became of it. The questions are in `action`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::action::Refused;
use super::{API_VERSION, Shown, encode, encode_within};
use crate::domain::audit::AuditId;
use crate::domain::envelope::{Response, Status};
use crate::domain::id::{RequestId, RuntimeId};
use crate::domain::policy::{Decision, Denial, Reason, Stage};
use crate::domain::preflight::{Plan, Row, Standing};
use crate::domain::projection::Lifecycle;
use crate::domain::time::Monotonic;
use crate::engine::view::View;

/// About what an answer takes beside its rows.
const HEAD_BYTES: usize = 1_024;

/// More than most rows take: room that is not used costs nothing.
const ROW_BYTES: usize = 512;

/// Whether all of it may happen, and for each target why.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreflightBody<'a> {
    api_version: &'static str,
    request_id: &'a str,
    #[schema(value_type = String)]
    connected_via: Shown<'a>,
    #[schema(value_type = Vec<String>)]
    acting_on: ActingOn<'a>,
    /// Whether every target may be acted on.
    allowed: bool,
    /// The code of the first denied target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    denial_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    denial_reason: Option<Why<'a>>,
    /// What the caller can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    remediation: Option<&'static str>,
    /// One per target, in request order.
    #[schema(value_type = Vec<DecisionBody<'a>>)]
    decisions: Decisions<'a>,
    /// Names this plan for ten minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    plan_hash: Option<&'a str>,
}

/// A reason, written from its parts.
#[derive(Debug, Clone, Copy)]
struct Why<'a>(&'a Reason);

impl Serialize for Why<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// Whom it is about, in request order. Written from where they stand: a thousand bodies would be a list of their own first.
#[derive(Debug, Clone, Copy)]
enum Targets<'a> {
    /// As this runtime planned it.
    Planned(&'a RuntimeId, &'a [Row]),
    /// As the caller gave them, all denied for the same reason.
    Refused(&'a View, Monotonic, &'a Refused),
}

#[derive(Debug, Clone, Copy)]
struct ActingOn<'a>(Targets<'a>);

impl Serialize for ActingOn<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Targets::Planned(me, rows) => {
                serializer.collect_seq(rows.iter().map(|row| Shown::Id(&row.target, &me.site)))
            }
            Targets::Refused(view, _, refused) => {
                serializer.collect_seq(refused.targets.iter().map(|target| shown(view, target)))
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Decisions<'a>(Targets<'a>);

impl Serialize for Decisions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Targets::Planned(me, rows) => serializer.collect_seq(rows.iter().map(|row| decision(me, row))),
            Targets::Refused(view, now, refused) => serializer.collect_seq(refused.targets.iter().map(|target| {
                let standing = target.as_ref().ok().and_then(|id| view.standing(id, now));
                denied_one(shown(view, target), &refused.denial, target_state(standing))
            })),
        }
    }
}

fn shown<'a>(view: &'a View, target: &'a Result<RuntimeId, String>) -> Shown<'a> {
    match target {
        Ok(id) => Shown::Id(id, &view.me().site),
        Err(text) => Shown::Text(text),
    }
}

/// The decision about one target.
#[derive(Debug, Serialize, ToSchema)]
pub struct DecisionBody<'a> {
    #[schema(value_type = String)]
    runtime_id: Shown<'a>,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    denial_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    denial_reason: Option<Why<'a>>,
    /// Who decided: `origin` or `target`.
    stage: &'static str,
    /// The rule that allowed or denied, or the name of the check.
    rule: &'a str,
    /// `reachable`, `stale`, `partitioned` or `unknown`.
    target_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    remediation: Option<&'static str>,
}

/// What became of a dispatch.
#[derive(Debug, Serialize, ToSchema)]
pub struct DispatchBody<'a> {
    api_version: &'static str,
    request_id: &'a str,
    #[schema(value_type = String)]
    connected_via: Shown<'a>,
    #[schema(value_type = Vec<String>)]
    acting_on: ActingOn<'a>,
    dry_run: bool,
    /// Whether it was allowed and, unless it was a dry run, done at every target.
    ok: bool,
    preflight: PreflightBody<'a>,
    /// One per target, in request order; empty when nothing was sent.
    results: Vec<ResultBody<'a>>,
}

/// What became of it at one target.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResultBody<'a> {
    #[schema(value_type = String)]
    runtime_id: Shown<'a>,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    denial_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    denial_reason: Option<Why<'a>>,
    /// Who decided: `origin` or `target`.
    stage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    remediation: Option<&'static str>,
    /// The record at the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    audit_id: Option<String>,
    /// What the action brought.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    response: Option<ResponseBody<'a>>,
    /// The run that was started, by which it is found from any runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    run_id: Option<String>,
    /// The target's signed receipt as it came over the mesh, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    receipt: Option<String>,
}

/// What an action brought.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ResponseBody<'a> {
    /// Of `cfg_apply`.
    Applied {
        /// The configuration's revision after the application.
        applied_revision: u64,
        /// The keys that were asked for.
        keys: &'a [String],
    },
    /// Of the command `cancel`: the run is told to end.
    Cancelling {
        /// Which.
        cancelling: String,
    },
    /// Of a command to the workload: it is told, and `state` says what became of it.
    Commanded {
        /// What it is told.
        commanded: &'a str,
    },
    /// Of the command `ping`.
    Pong {
        /// Always true.
        pong: bool,
    },
    /// Of a declared command: it has begun.
    Started {
        /// Whether it has.
        started: bool,
    },
    /// Of `status_read`.
    Status {
        /// Whose status.
        #[schema(value_type = String)]
        runtime_id: Shown<'a>,
        /// The program's version.
        version: &'a str,
        /// The boot counter.
        boot_id: u64,
        /// How long it has been up.
        uptime_ms: u64,
        /// Its own judgement.
        health_state: &'static str,
        /// The configuration's revision.
        config_revision: u64,
        /// How many peers it sees online.
        peers_online: u64,
    },
}

/// What became of it at one target, for [`dispatch_answer`].
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// Whom.
    pub target: &'a RuntimeId,
    /// What it brought, or why not.
    pub result: Result<&'a Response, &'a Denial>,
    /// The record.
    pub audit_id: Option<AuditId>,
    /// The signed receipt.
    pub receipt: Option<&'a [u8]>,
}

/// A plan as an answer to preflight.
pub fn preflight_answer(me: &RuntimeId, request_id: &RequestId, plan: &Plan, plan_hash: &str) -> Vec<u8> {
    let bytes = plan.rows.len().saturating_mul(ROW_BYTES).saturating_add(HEAD_BYTES);
    encode_within(&planned(me, request_id, plan, plan_hash), bytes)
}

/// A refusal of the whole request as an answer to preflight.
pub fn preflight_refusal(view: &View, now: Monotonic, refused: &Refused) -> Vec<u8> {
    encode(&denied(view, now, refused))
}

/// What became of a dispatch.
pub fn dispatch_answer<'a>(
    me: &'a RuntimeId,
    request_id: &'a RequestId,
    is_dry_run: bool,
    (plan, plan_hash): (&'a Plan, &'a str),
    outcomes: impl Iterator<Item = Outcome<'a>>,
) -> Vec<u8> {
    let preflight = planned(me, request_id, plan, plan_hash);
    let results: Vec<_> = outcomes.map(|outcome| result(me, outcome)).collect();
    let is_done = is_dry_run || !results.is_empty();
    encode(&DispatchBody {
        api_version: API_VERSION,
        request_id: request_id.as_str(),
        connected_via: Shown::Id(me, &me.site),
        acting_on: preflight.acting_on,
        dry_run: is_dry_run,
        ok: preflight.allowed && is_done && results.iter().all(|result| result.ok),
        preflight,
        results,
    })
}

/// A refusal of the whole request as an answer to dispatch.
pub fn dispatch_refusal(view: &View, now: Monotonic, refused: &Refused) -> Vec<u8> {
    let preflight = denied(view, now, refused);
    encode(&DispatchBody {
        api_version: API_VERSION,
        request_id: &refused.request_id,
        connected_via: preflight.connected_via,
        acting_on: preflight.acting_on,
        dry_run: refused.dry_run,
        ok: false,
        preflight,
        results: Vec::new(),
    })
}

fn planned<'a>(me: &'a RuntimeId, request_id: &'a RequestId, plan: &'a Plan, plan_hash: &'a str) -> PreflightBody<'a> {
    let (denial, targets) = (plan.first_denial(), Targets::Planned(me, &plan.rows));
    PreflightBody {
        api_version: API_VERSION,
        request_id: request_id.as_str(),
        connected_via: Shown::Id(me, &me.site),
        acting_on: ActingOn(targets),
        allowed: denial.is_none(),
        denial_code: denial.map(|denial| denial.code.as_str()),
        denial_reason: denial.map(|denial| Why(&denial.reason)),
        remediation: denial.map(|denial| denial.code.remediation()),
        decisions: Decisions(targets),
        plan_hash: Some(plan_hash),
    }
}

fn decision<'a>(me: &'a RuntimeId, row: &'a Row) -> DecisionBody<'a> {
    let runtime_id = Shown::Id(&row.target, &me.site);
    let target_state = target_state(row.standing);
    match &row.decision {
        Decision::Allow { rule } => DecisionBody {
            runtime_id,
            allowed: true,
            denial_code: None,
            denial_reason: None,
            stage: Stage::Origin.as_str(),
            rule,
            target_state,
            remediation: None,
        },
        Decision::Deny(denial) => denied_one(runtime_id, denial, target_state),
    }
}

fn denied_one<'a>(runtime_id: Shown<'a>, denial: &'a Denial, target_state: &'static str) -> DecisionBody<'a> {
    DecisionBody {
        runtime_id,
        allowed: false,
        denial_code: Some(denial.code.as_str()),
        denial_reason: Some(Why(&denial.reason)),
        stage: denial.stage.as_str(),
        rule: &denial.rule,
        target_state,
        remediation: Some(denial.code.remediation()),
    }
}

/// A target that said goodbye or was never heard is not cut off as far as we know: its state is unknown.
const fn target_state(standing: Option<Standing>) -> &'static str {
    match standing {
        None => "unknown",
        Some(standing) => match standing.lifecycle {
            Lifecycle::Offline => "unknown",
            Lifecycle::Online => "reachable",
            Lifecycle::Partitioned => "partitioned",
            Lifecycle::Stale => "stale",
        },
    }
}

fn denied<'a>(view: &'a View, now: Monotonic, refused: &'a Refused) -> PreflightBody<'a> {
    let me = view.me();
    let denial = &refused.denial;
    let targets = Targets::Refused(view, now, refused);
    PreflightBody {
        api_version: API_VERSION,
        request_id: &refused.request_id,
        connected_via: Shown::Id(me, &me.site),
        acting_on: ActingOn(targets),
        allowed: false,
        denial_code: Some(denial.code.as_str()),
        denial_reason: Some(Why(&denial.reason)),
        remediation: Some(denial.code.remediation()),
        decisions: Decisions(targets),
        plan_hash: None,
    }
}

fn result<'a>(me: &'a RuntimeId, outcome: Outcome<'a>) -> ResultBody<'a> {
    let denial = outcome.result.err();
    ResultBody {
        runtime_id: Shown::Id(outcome.target, &me.site),
        ok: denial.is_none(),
        denial_code: denial.map(|denial| denial.code.as_str()),
        denial_reason: denial.map(|denial| Why(&denial.reason)),
        stage: denial.map_or(Stage::Target, |denial| denial.stage).as_str(),
        remediation: denial.map(|denial| denial.code.remediation()),
        audit_id: outcome.audit_id.map(|audit_id| audit_id.to_string()),
        response: outcome.result.ok().map(|brought| response(me, brought)),
        run_id: outcome.result.ok().and_then(Response::run).map(|run| run.to_string()),
        receipt: outcome.receipt.map(|receipt| STANDARD.encode(receipt)),
    }
}

fn response<'a>(me: &'a RuntimeId, response: &'a Response) -> ResponseBody<'a> {
    match response {
        Response::Applied { revision, keys } => ResponseBody::Applied { applied_revision: *revision, keys },
        Response::Cancelling { run } => ResponseBody::Cancelling { cancelling: run.to_string() },
        Response::Commanded { command } => ResponseBody::Commanded { commanded: command.as_str() },
        Response::Pong => ResponseBody::Pong { pong: true },
        Response::Started { run: _ } => ResponseBody::Started { started: true },
        Response::Status(status) => {
            let Status { runtime, version, boot, uptime, health, config_revision, peers_online } = &**status;
            ResponseBody::Status {
                runtime_id: Shown::Id(runtime, &me.site),
                version,
                boot_id: *boot,
                uptime_ms: uptime.0,
                health_state: health.as_str(),
                config_revision: *config_revision,
                peers_online: *peers_online,
            }
        }
    }
}
