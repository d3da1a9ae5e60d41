//! `POST …/actions/preflight` and `…/actions/dispatch`: the same question, without and with effects.

use std::sync::Arc;

use tracing::Instrument as _;

use crate::domain::audit::{AuditId, Draft, Outcome};
use crate::domain::code::Code;
use crate::domain::id::{RequestId, RuntimeId};
use crate::domain::policy::Denial;
use crate::domain::preflight::{Asker, Plan, Profile};
use crate::engine::view::{Basis, View};
use crate::engine::{among, plan_overtaken};
use crate::handle::{Dispatched, Failure, Preflight, Request};
use crate::metrics::Side;
use crate::web::auth::Caller;
use crate::web::error::Problem;
use crate::web::router::{Answered, Call, Shared, Waiting, json};
use crate::web::routes::trace;
use crate::wire::api::v1::Fault;
use crate::wire::api::v1::action::{self, Ask, Reading, Refused, Wanted};
use crate::wire::api::v1::decision::{self, dispatch_answer, dispatch_refusal, preflight_answer, preflight_refusal};

/// Longest text of a refusal that goes on record.
const DETAIL_CHARS_MAX: usize = 512;

/// What the log says of an answer in which nothing is denied.
const OK: &str = "ok";

/// Decides, without effects and without waiting.
pub(crate) fn preflight(shared: &Shared, call: &Call) -> Answered {
    let caller = call.caller()?;
    let view = shared.node.view();
    let body = action::read(&call.body, Ask::Preflight, view.me());
    trace::of_body(view.me(), Ask::Preflight, &body).in_scope(|| {
        tracing::debug!("a preflight was asked for over HTTP");
        let told = decide(shared, &view, caller, body);
        tracing::debug!(code = code_of(&told), "a preflight is answered over HTTP");
        told.map(|told| json(told.body))
    })
}

fn decide(shared: &Shared, view: &View, caller: &Caller, body: Result<Reading, Fault>) -> Result<Told, Problem> {
    let metrics = shared.node.metrics();
    let admitted = match admit(shared, caller, view, body?) {
        Ok(admitted) => admitted,
        Err(refused) => {
            metrics.preflighted(false);
            metrics.denied(refused.denial.code, refused.denial.stage, Side::Preflight);
            let body = preflight_refusal(view, shared.node.now().monotonic, &refused);
            return Ok(Told { code: refused.denial.code.as_str(), body });
        }
    };
    let Preflight { plan, plan_hash } = shared.node.preflight(&admitted.request);
    metrics.preflighted(plan.is_allowed());
    metrics.plan_denied(&plan, Side::Preflight);
    let body = preflight_answer(view.me(), &admitted.request.request_id, &plan, &plan_hash);
    Ok(Told { code: plan.first_denial().map_or(OK, |denial| denial.code.as_str()), body })
}

/// Decides again and acts.
pub(crate) fn dispatch(shared: Arc<Shared>, call: Call) -> Waiting {
    Box::pin(async move {
        let caller = call.caller()?;
        let view = shared.node.view();
        let body = action::read(&call.body, Ask::Dispatch, view.me());
        let span = trace::of_body(view.me(), Ask::Dispatch, &body);
        let answered = async {
            tracing::debug!("a dispatch was asked for over HTTP");
            let told = act(&shared, &view, caller, body).await;
            tracing::debug!(code = code_of(&told), "a dispatch is answered over HTTP");
            told.map(|told| json(told.body))
        };
        answered.instrument(span).await
    })
}

/// An answer, and the code that the log names it by.
struct Told {
    code: &'static str,
    body: Vec<u8>,
}

fn code_of(told: &Result<Told, Problem>) -> &'static str {
    told.as_ref().map_or_else(|problem| problem.code().as_str(), |told| told.code)
}

/// A request whose actor the credential covers.
struct Admitted {
    request: Request,
    dry_run: bool,
    plan_hash: Option<String>,
}

fn admit(shared: &Shared, caller: &Caller, view: &View, body: Reading) -> Result<Admitted, Box<Refused>> {
    let wanted = match body {
        Reading::Refused(refused) => return Err(refused),
        Reading::Wanted(wanted) => *wanted,
    };
    if let Some(missing) = shared.lacking(view) {
        return Err(Box::new(wanted.refuse(Denial::at_origin(Code::NotConfigured, "profile", missing))));
    }
    let asker = match caller.asker_for(&wanted.actor) {
        Ok(asker) => asker,
        Err(denial) => return Err(Box::new(wanted.refuse(denial))),
    };
    let Wanted { request_id, actor: _, action, targets, budget, dry_run, plan_hash } = wanted;
    let request = Request { asker, request_id, action, targets, budget, planned: None };
    Ok(Admitted { request, dry_run, plan_hash })
}

async fn act(shared: &Shared, view: &View, caller: &Caller, body: Result<Reading, Fault>) -> Result<Told, Problem> {
    let Admitted { mut request, dry_run, plan_hash } = match admit(shared, caller, view, body?) {
        Ok(admitted) => admitted,
        Err(refused) => return turn_away(shared, view, caller, &refused),
    };
    if !dry_run {
        shared
            .count_targets(caller, request.targets.len())
            .map_err(|problem| problem.of_request(&request.request_id))?;
    }
    if dry_run || plan_hash.is_some() || view.settings.profile == Profile::Wan {
        let preflight = shared.node.preflight(&request);
        match check_plan(shared, view, &request, &preflight.plan, plan_hash.as_deref(), dry_run) {
            Ok(planned) if !dry_run => request.planned = planned,
            checked => return stay(shared, view, &request, &preflight, checked.err(), dry_run),
        }
    }
    let request_id = request.request_id.clone();
    let failed = |failure| Problem::from(failure).of_request(&request_id);
    let done = shared.node.dispatch(request).await.map_err(failed)?;
    let code = worst(&done);
    let Dispatched { preflight, outcomes } = &done;
    let outcomes = outcomes.iter().map(|outcome| decision::Outcome {
        target: &outcome.target,
        result: outcome.result.as_ref(),
        audit_id: outcome.audit_id,
        receipt: outcome.receipt.as_deref(),
    });
    let plan = (&preflight.plan, preflight.plan_hash.as_str());
    Ok(Told { code, body: dispatch_answer(view.me(), &request_id, false, plan, outcomes) })
}

/// The answer to a request of which nothing is asked of the node. A dry run is a question and goes on no record.
fn turn_away(shared: &Shared, view: &View, caller: &Caller, refused: &Refused) -> Result<Told, Problem> {
    let Denial { code, stage, .. } = refused.denial;
    shared.node.metrics().denied(code, stage, side(refused.dry_run));
    if !refused.dry_run {
        record(shared, view, &Refusal::of_request(&caller.asker(), refused))?;
    }
    Ok(Told { code: code.as_str(), body: dispatch_refusal(view, shared.node.now().monotonic, refused) })
}

/// The answer to a request that goes no further than its plan: a dry run, or one whose plan may not be carried out.
fn stay(
    shared: &Shared,
    view: &View,
    request: &Request,
    preflight: &Preflight,
    denial: Option<Denial>,
    dry_run: bool,
) -> Result<Told, Problem> {
    let plan = &preflight.plan;
    match &denial {
        Some(denial) => shared.node.metrics().denied(denial.code, denial.stage, side(dry_run)),
        None => shared.node.metrics().plan_denied(plan, Side::Preflight),
    }
    if let Some(denial) = denial.as_ref().filter(|_| !dry_run) {
        record(shared, view, &Refusal::of_plan(request, denial))?;
    }
    let outcomes = denial.iter().flat_map(|denial| plan.rows.iter().map(move |row| denied(&row.target, denial)));
    let of_plan = (plan, preflight.plan_hash.as_str());
    let body = dispatch_answer(view.me(), &request.request_id, dry_run, of_plan, outcomes);
    let first = denial.as_ref().or_else(|| plan.first_denial());
    Ok(Told { code: first.map_or(OK, |denial| denial.code.as_str()), body })
}

/// What a denial counts as: a dry run only asks.
const fn side(is_dry_run: bool) -> Side {
    if is_dry_run { Side::Preflight } else { Side::Dispatch }
}

/// The first code that stands in an answer, in the order of its targets.
fn worst(done: &Dispatched) -> &'static str {
    let denied = done.outcomes.iter().find_map(|outcome| outcome.result.as_ref().err());
    denied.or_else(|| done.preflight.plan.first_denial()).map_or(OK, |denial| denial.code.as_str())
}

/// What the plan rests on that the caller names, or why this plan may not be carried out although the caller asks for it.
/// The node compares once more, with what it decides by.
fn check_plan(
    shared: &Shared,
    view: &View,
    request: &Request,
    plan: &Plan,
    plan_hash: Option<&str>,
    is_dry_run: bool,
) -> Result<Option<Basis>, Denial> {
    match plan_hash {
        Some(hash) => shared.node.planned(hash, request, plan).map(Some).ok_or_else(plan_overtaken),
        None if is_dry_run || !needs_plan(view, request) || !plan.is_allowed() => Ok(None),
        None => {
            let reason = "plan_hash: a write to another site needs the plan of a preflight in the profile wan";
            Err(Denial::at_origin(Code::ContractViolation, "plan_hash", reason))
        }
    }
}

fn needs_plan(view: &View, request: &Request) -> bool {
    let site = &request.asker.actor.site;
    let is_write = !request.action.kind().is_read();
    view.settings.profile == Profile::Wan && is_write && request.targets.iter().any(|target| target.site != *site)
}

const fn denied<'a>(target: &'a RuntimeId, denial: &'a Denial) -> decision::Outcome<'a> {
    decision::Outcome { target, result: Err(denial), audit_id: None, receipt: None }
}

/// A refusal that the engine never sees, as it goes on record.
pub(crate) struct Refusal {
    asker: Asker,
    action: String,
    target: Option<RuntimeId>,
    request_id: Option<RequestId>,
    code: Code,
    detail: String,
}

impl Refusal {
    /// Of a route whose role the caller does not have.
    pub(crate) fn of_route(caller: &Caller, verb: &str) -> Self {
        let detail = format!("the role {} is too low", caller.role());
        let code = Code::PermissionDenied;
        Self { asker: caller.asker(), action: verb.to_owned(), target: None, request_id: None, code, detail }
    }

    /// Of a route that rests on what the profile promises.
    pub(crate) fn of_promise(caller: &Caller, verb: &str, missing: String) -> Self {
        let code = Code::NotConfigured;
        Self { asker: caller.asker(), action: verb.to_owned(), target: None, request_id: None, code, detail: missing }
    }

    /// Of credentials that are not ours, with how many others there were since the last record.
    pub(crate) fn of_credential(nobody: Asker, peer: &str, others: u64) -> Self {
        let detail = format!("bad credential from {peer}; {others} others since the last record");
        let (action, code) = ("authenticate".to_owned(), Code::PermissionDenied);
        Self { asker: nobody, action, target: None, request_id: None, code, detail }
    }

    /// Of a request that names an actor whom the credential does not cover, or breaks the contract. On record stands who
    /// was let in, not whom the body claims.
    fn of_request(asker: &Asker, refused: &Refused) -> Self {
        Self {
            asker: asker.clone(),
            action: refused.action.map_or_else(|| "unknown".to_owned(), |action| action.to_string()),
            target: refused.targets.iter().find_map(|target| target.as_ref().ok()).cloned(),
            request_id: refused.request_id.parse().ok(),
            code: refused.denial.code,
            detail: among(refused.targets.len(), &refused.denial.reason),
        }
    }

    /// Of a plan that the caller has not seen.
    fn of_plan(request: &Request, denial: &Denial) -> Self {
        let kind = request.action.kind();
        let action = request.action.command().map_or_else(|| kind.to_string(), |command| format!("{kind}/{command}"));
        Self {
            asker: request.asker.clone(),
            action,
            target: request.targets.first().cloned(),
            request_id: Some(request.request_id.clone()),
            code: denial.code,
            detail: among(request.targets.len(), &denial.reason),
        }
    }
}

/// Puts a refusal on record; a full queue refuses the request instead.
pub(crate) fn record(shared: &Shared, view: &View, refusal: &Refusal) -> Result<(), Failure> {
    let mut random = [0; 10];
    getrandom::fill(&mut random)
        .map_err(|error| Failure { code: Code::StorageUnavailable, reason: format!("no random numbers: {error}") })?;
    let at = shared.node.now().wall;
    shared.node.record(Draft {
        audit_id: AuditId::new(at, random),
        at,
        actor: refusal.asker.actor.to_string(),
        actor_verified: refusal.asker.is_verified,
        origin: view.me().clone(),
        action: refusal.action.clone(),
        target: refusal.target.clone().unwrap_or_else(|| view.me().clone()),
        request_id: refusal.request_id.clone(),
        outcome: Outcome::Denied,
        code: Some(refusal.code),
        detail: refusal.detail.chars().take(DETAIL_CHARS_MAX).collect(),
        policy_hash: view.settings.policy_hash,
    })
}
