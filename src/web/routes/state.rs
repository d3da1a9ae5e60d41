//! `GET /api/runtime-cloud/state`: one snapshot per change, shared by all readers.

use std::sync::Arc;

use axum::http::header::{ETAG, HeaderMap, IF_NONE_MATCH, VARY};
use axum::http::{HeaderValue, Response};

use crate::engine::view::View;
use crate::web::error::not_modified;
use crate::web::router::{Answered, Call, Shared, Waiting, json};
use crate::wire::api::v1::state::Snapshot;

/// Answers with the state, or with nothing if the reader has it.
pub(crate) fn read(shared: Arc<Shared>, call: Call) -> Waiting {
    Box::pin(async move { answer(&shared, &call).await })
}

async fn answer(shared: &Shared, call: &Call) -> Answered {
    let caller = call.caller()?;
    let view = shared.node.view();
    let snapshot = current(shared, view).await;
    let tag = format!("W/\"{}\"", snapshot.etag);
    let mut response = if is_known(&call.headers, &tag) {
        not_modified()
    } else {
        let asker = caller.asker();
        json(snapshot.answer(&asker.actor.to_string(), asker.role, shared.node.now().wall))
    };
    label(&mut response, &tag);
    Ok(response)
}

/// The snapshot of this view, made anew only if the view, the freshness of somebody in it or the workload has
/// changed.
async fn current(shared: &Shared, view: Arc<View>) -> Arc<Snapshot> {
    let mut newest = shared.snapshot.lock().await;
    let now = shared.node.now();
    let workload = shared.node.workload();
    match &*newest {
        // A reader that waited may hold an older view than the one the snapshot was made of.
        Some(snapshot)
            if view.generation <= snapshot.generation
                && now.monotonic < snapshot.good_until
                && snapshot.workload == workload =>
        {
            Arc::clone(snapshot)
        }
        Some(_) | None => Arc::clone(newest.insert(Arc::new(Snapshot::take(&view, workload, now)))),
    }
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let strong = tag.trim_start_matches("W/");
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|candidate| candidate.trim().trim_start_matches("W/"))
        .any(|candidate| candidate == "*" || candidate == strong)
}

fn label<B>(response: &mut Response<B>, tag: &str) {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    // The same name is given to every reader, but the body says who reads.
    response.headers_mut().insert(VARY, HeaderValue::from_static("Authorization"));
}
