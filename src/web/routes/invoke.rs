//! `POST /agents/{name}/{id}`: starts a run and waits for it, follows it, or leaves it alone.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;

use crate::domain::code::Code;
use crate::domain::id::Segment;
use crate::domain::offer::Agent;
use crate::domain::policy::Stage;
use crate::domain::run::{Instance, Run, RunId};
use crate::engine::input::Invoke;
use crate::engine::view::View;
use crate::handle::Failure;
use crate::handle::runs::{Absent, Runs, Started};
use crate::metrics::Side;
use crate::web::auth::Caller;
use crate::web::envelope::RunFault;
use crate::web::error::{Kind, Problem, accepted, name_run};
use crate::web::limit;
use crate::web::router::{Answered, Call, Shared, Waiting, json};
use crate::web::routes::actions;
use crate::web::standing::Standing;
use crate::web::stream::{self, RunStream};
use crate::wire::run::{self, Form};

/// Starts a run.
pub(crate) fn start(shared: Arc<Shared>, call: Call, body: Body) -> Waiting {
    Box::pin(async move { invoke(&shared, &call, body).await })
}

/// How the caller wants to hear of the run.
#[derive(Clone, Copy)]
enum Mode {
    /// Not at all.
    Accepted,
    /// When it has ended.
    Awaited,
    /// As it happens.
    Followed(Form),
}

fn mode(headers: &HeaderMap) -> Mode {
    let is_webhook = headers.get("x-webhook").is_some_and(|value| value.as_bytes() == b"true");
    match stream::wanted(headers) {
        _ if is_webhook => Mode::Accepted,
        Some(form) => Mode::Followed(form),
        None => Mode::Awaited,
    }
}

/// What can be known without the body is decided before it is read, in the order of the contract.
async fn invoke(shared: &Arc<Shared>, call: &Call, body: Body) -> Answered {
    let (name, instance) = target(call)?;
    let agent = admitted(shared, call.caller()?, &name)?;
    let runs = Arc::clone(store(shared)?);
    let mode = mode(&call.headers);
    let body = limit::read_payload(&call.headers, body, shared.options.limits.body_read).await?;
    let payload = run::payload(&body).map_err(|error| Problem::of_run(RunFault::InvalidJson, error))?;
    // Only now: whoever sends a body slowly must not keep a place from those who read.
    let place = match mode {
        Mode::Followed(_) => Some((stream::place(shared, call)?, Standing::new(shared, call)?)),
        Mode::Accepted | Mode::Awaited => None,
    };
    let invoke = Invoke { agent, instance, payload, is_streamed: matches!(mode, Mode::Followed(_)) };
    let Started { run, events, ended } = begin(shared, &runs, call.caller()?, invoke).await?;
    let mut response = match (mode, place) {
        (Mode::Followed(form), Some((place, standing))) => {
            let no_events = || Problem::of_run(RunFault::Internal, "the run cannot be followed").about(run);
            let follower = events.ok_or_else(no_events)?;
            RunStream::new((shared, standing), form, None, follower, place).into_response()
        }
        (Mode::Accepted, _) => accepted(json(run::accepted(run))),
        (Mode::Awaited | Mode::Followed(_), _) => json(outcome(run, ended.await)?),
    };
    name_run(&mut response, run);
    Ok(response)
}

fn target(call: &Call) -> Result<(String, Instance), Problem> {
    let invalid = |detail: String| Problem::of_run(RunFault::InvalidRequest, detail);
    let part = |number| call.segment(number).ok_or_else(|| invalid("wanted text in the path".to_owned()));
    let name = part(1)?;
    if name.trim().is_empty() {
        return Err(invalid("wanted an agent, got nothing".to_owned()));
    }
    let instance = part(2)?.parse().map_err(|error: crate::domain::run::NotAnInstance| invalid(error.to_string()))?;
    Ok((name, instance))
}

/// The agent, if it is declared, can be started over HTTP, and the caller may.
fn admitted(shared: &Shared, caller: &Caller, name: &str) -> Result<Segment, Problem> {
    let view = shared.node.view();
    let (name, agent) = declared(&view, name)?;
    if !agent.webhook {
        return Err(Problem::of_run(RunFault::AgentNotWebhook, format!("{name} is not started over HTTP")));
    }
    if caller.role() < agent.role {
        shared.node.metrics().denied(Code::PermissionDenied, Stage::Origin, Side::Route);
        if let Err(failure) = actions::record(shared, &view, &actions::Refusal::of_route(caller, "agent_invoke")) {
            tracing::warn!(code = %failure.code, "a refusal could not be recorded");
        }
        let detail = format!("{name} needs the role {}, the credential has {}", agent.role, caller.role());
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    Ok(name)
}

fn declared(view: &View, name: &str) -> Result<(Segment, Agent), Problem> {
    let agents = &view.settings.offer.agents;
    let known = name.parse::<Segment>().ok().and_then(|name| agents.get_key_value(&name));
    known.map(|(name, agent)| (name.clone(), *agent)).ok_or_else(|| {
        let names: Vec<_> = agents.keys().map(Segment::as_str).collect();
        let dev = if names.is_empty() { "no agents are declared".to_owned() } else { names.join(", ") };
        Problem::of_run(RunFault::AgentNotFound, "no agent of this name is declared on this runtime").with_dev(dev)
    })
}

/// In a task of its own: a caller who hangs up now has started the run all the same, or not at all.
async fn begin(shared: &Shared, runs: &Arc<dyn Runs>, caller: &Caller, invoke: Invoke) -> Result<Started, Problem> {
    let (runs, asker) = (Arc::clone(runs), caller.asker());
    let task = shared.tasks.spawn(async move { runs.start(asker, invoke).await });
    let cut_off = |_panicked| Problem::of_run(RunFault::Internal, "the request was cut off");
    task.await.map_err(cut_off)?.map_err(|failure: Failure| Problem::new(Kind::Failed(failure.code), failure.reason))
}

/// How it ended. What went wrong in the run is for those who may read runs, not for whoever may start one.
fn outcome(run: RunId, ended: Result<Run, Absent>) -> Result<Vec<u8>, Problem> {
    let Run { pointer, result, .. } = ended.map_err(|absent| Problem::from(absent).about(run))?;
    if pointer.end.is_some_and(|end| !end.is_error) {
        return Ok(run::invoked(run, result.as_deref()));
    }
    Err(Problem::of_run(RunFault::Internal, "the run ended with an error").about(run))
}

/// The runs, to list them.
pub(crate) fn registry(shared: &Shared) -> Result<&Arc<dyn Runs>, Problem> {
    let missing = || Problem::of_run(RunFault::RegistryUnavailable, "this node keeps no runs");
    shared.runs.as_ref().ok_or_else(missing)
}

/// The runs, to start them and to read what they have said.
pub(crate) fn store(shared: &Shared) -> Result<&Arc<dyn Runs>, Problem> {
    let missing = || Problem::of_run(RunFault::StoreUnavailable, "this node has pointers to runs and keeps none");
    registry(shared)?.has_store().then_some(()).ok_or_else(missing)?;
    registry(shared)
}
