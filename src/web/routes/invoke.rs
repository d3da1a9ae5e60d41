//! `POST /agents/{name}/{id}`: starts a run and waits for it, follows it, or leaves it alone.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;

use crate::domain::id::Segment;
use crate::domain::offer::Agent;
use crate::domain::run::{Instance, Pointer, Run, RunId};
use crate::engine::input::Invoke;
use crate::engine::view::View;
use crate::handle::Failure;
use crate::handle::runs::{Absent, Next, Runs};
use crate::web::auth::Caller;
use crate::web::envelope::RunFault;
use crate::web::error::{Kind, Problem, accepted, name_run};
use crate::web::limit;
use crate::web::router::{Answered, Call, Shared, Waiting, json};
use crate::web::routes::actions;
use crate::web::standing::Standing;
use crate::web::stream::{self, RunStream};
use crate::wire::run::{self, Ending, Form};

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
    let run = begin(shared, &runs, call.caller()?, invoke).await?;
    let mut response = match (mode, place) {
        (Mode::Followed(form), Some((place, standing))) => {
            let asker = call.caller()?.asker();
            let follower = runs.follow(asker, run, None).await.map_err(|absent| Problem::from(absent).about(run))?;
            RunStream::new((shared, standing), form, None, follower, place).into_response()
        }
        (Mode::Accepted, _) => accepted(json(run::accepted(run))),
        (Mode::Awaited | Mode::Followed(_), _) => json(outcome(&runs, call.caller()?, run).await?),
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
async fn begin(shared: &Shared, runs: &Arc<dyn Runs>, caller: &Caller, invoke: Invoke) -> Result<RunId, Problem> {
    let (runs, asker) = (Arc::clone(runs), caller.asker());
    let task = shared.tasks.spawn(async move { runs.start(asker, invoke).await });
    let cut_off = |_panicked| Problem::of_run(RunFault::Internal, "the request was cut off");
    task.await.map_err(cut_off)?.map_err(|failure: Failure| Problem::new(Kind::Failed(failure.code), failure.reason))
}

/// Waits for the end. What went wrong in the run is for those who may read runs, not for whoever may start one.
async fn outcome(runs: &Arc<dyn Runs>, caller: &Caller, run: RunId) -> Result<Vec<u8>, Problem> {
    let about = |problem: Problem| problem.about(run);
    let failed = |absent| about(Problem::from(absent));
    let mut follower = runs.follow(caller.asker(), run, None).await.map_err(failed)?;
    let mut last = None;
    while let Next::Events(events) = follower.next().await.map_err(failed)? {
        last = events.into_iter().next_back().or(last);
    }
    let told = last.as_ref().and_then(run::ending);
    let ending = match runs.run(caller.asker(), run).await {
        Ok(Run { pointer: Pointer { end: Some(end), .. }, result, .. }) if !end.is_error => Ending::Completed(result),
        Ok(Run { pointer: Pointer { end: Some(_), .. }, .. }) => Ending::Errored,
        // It has made room for another since: its last event says how it ended.
        Ok(_) => told.unwrap_or(Ending::Errored),
        Err(Absent::Unknown) => told.ok_or_else(|| failed(Absent::Unknown))?,
        Err(absent) => return Err(failed(absent)),
    };
    match ending {
        Ending::Completed(result) => Ok(run::invoked(run, result.as_deref())),
        Ending::Errored => Err(about(Problem::of_run(RunFault::Internal, "the run ended with an error"))),
    }
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
