//! `GET /api/runtime-cloud/state/stream`: the fleet as it changes.

use std::sync::Arc;

use axum::body::Body;

use crate::web::router::{Answered, Call, Shared, Waiting};
use crate::web::standing::Standing;
use crate::web::stream::{lasting, place, wanted};
use crate::web::watch::Watching;
use crate::wire::run::Form;

/// Follows the state from where the reader was, or from a snapshot on.
pub(crate) fn read(shared: Arc<Shared>, call: Call) -> Waiting {
    Box::pin(async move { follow(&shared, &call) })
}

fn follow(shared: &Arc<Shared>, call: &Call) -> Answered {
    let asker = call.caller()?.asker();
    let place = place(shared, call)?;
    let standing = Standing::new(shared, call)?;
    let form = wanted(&call.headers).unwrap_or(Form::EventStream);
    let last = call.headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let watching = Watching::new(Arc::clone(shared), (asker, standing), form, last, place);
    Ok(lasting(form, Body::from_stream(watching.pieces())))
}
