//! `GET /runs/{runId}` with `/events` and `/stream`: a run by its bare id, wherever in the mesh it is.

use std::sync::Arc;

use axum::http::HeaderValue;

use crate::domain::run::RunId;
use crate::handle::runs::{Absent, EventsAsked, Runs};
use crate::web::error::Problem;
use crate::web::router::{Answered, Call, Shared, Waiting, json};
use crate::web::routes::invoke::store;
use crate::web::standing::Standing;
use crate::web::stream::{self, RunStream};
use crate::wire::run::{self, EventsQuery, Form};

/// The runtime that has the run: whoever wants to act on it has to name it.
const OWNER: &str = "x-trust-run-owner";

/// The record.
pub(crate) fn record(shared: Arc<Shared>, call: Call) -> Waiting {
    Box::pin(async move {
        let (runs, run) = named(&shared, &call)?;
        let run = runs.run(call.caller()?.asker(), run).await?;
        let owner = run.pointer.owner.shown_in(&shared.node.view().me().site);
        let mut response = json(run::record(&run));
        if let Ok(owner) = HeaderValue::from_str(&owner) {
            response.headers_mut().insert(OWNER, owner);
        }
        Ok(response)
    })
}

/// A page of its events.
pub(crate) fn events(shared: Arc<Shared>, call: Call) -> Waiting {
    Box::pin(async move { page(&shared, &call).await })
}

async fn page(shared: &Shared, call: &Call) -> Answered {
    // The parameters come first: they are wrong for any run.
    let EventsQuery { after, kinds, limit } = run::events_query(&call.pairs()?).map_err(Problem::of_query)?;
    let (runs, run) = named(shared, call)?;
    let events = runs.events(call.caller()?.asker(), EventsAsked { run, after, kinds, limit }).await?;
    let bodies: usize = events.iter().map(|event| event.body.len().saturating_add(1)).sum();
    let mut out = Vec::with_capacity(bodies.saturating_add(16));
    out.extend_from_slice(b"{\"events\":[");
    for (number, event) in events.iter().enumerate() {
        if 0 < number {
            out.push(b',');
        }
        out.extend_from_slice(event.body.as_bytes());
    }
    out.extend_from_slice(b"]}");
    Ok(json(out))
}

/// Its events as they come.
pub(crate) fn stream(shared: Arc<Shared>, call: Call) -> Waiting {
    Box::pin(async move {
        let (runs, run) = named(&shared, &call)?;
        let place = stream::place(&shared, &call)?;
        let standing = Standing::new(&shared, &call)?;
        let after = stream::last_seen(&call.headers);
        let follower = runs.follow(call.caller()?.asker(), run, after).await?;
        let form = stream::wanted(&call.headers).unwrap_or(Form::EventStream);
        Ok(RunStream::new((&shared, standing), form, after, follower, place).into_response())
    })
}

fn named<'a>(shared: &'a Shared, call: &Call) -> Result<(&'a Arc<dyn Runs>, RunId), Problem> {
    let runs = store(shared)?;
    let run = call.segment(1).and_then(|id| id.parse().ok());
    Ok((runs, run.ok_or(Absent::Unknown)?))
}
