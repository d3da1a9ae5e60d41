//! `GET /api/runtime-cloud/audit`: pages of the audit log.

use std::sync::Arc;

use axum::extract::Query;

use crate::store::{Chain, Filter};
use crate::web::error::{Kind, Problem};
use crate::web::router::{Answered, Call, Shared, Waiting, json};
use crate::wire::api::v1::audit::{AuditQuery, Wanted, answer};

/// Answers with one page, newest first.
pub(crate) fn read(shared: Arc<Shared>, call: Call) -> Waiting {
    Box::pin(async move { page(&shared, &call).await })
}

async fn page(shared: &Shared, call: &Call) -> Answered {
    let view = shared.node.view();
    let refuse = |error: axum::extract::rejection::QueryRejection| Problem::new(Kind::Malformed, error.body_text());
    let Query(query) = Query::<AuditQuery>::try_from_uri(&call.uri).map_err(refuse)?;
    let Wanted { request_id, actor, action, target, since, until, limit, before } = query.read(view.me())?;
    let target = target.map(|target| target.to_string());
    let filter = Filter { request_id, actor, action, target, since, until, before, limit };
    let page = shared.store.audit(filter).await?;
    let next = page.entries.last().map(|(_, entry)| entry.draft.audit_id).filter(|_| page.has_more);
    let entries = page.entries.iter().map(|(chain, entry)| {
        let chain = match chain {
            Chain::Reads => "reads",
            Chain::Refusals => "refusals",
            Chain::Writes => "writes",
        };
        (chain, entry)
    });
    Ok(json(answer(view.me(), entries, next)))
}
