//! `GET /api/runtime-cloud/config`: this node's live settings. They are changed by `cfg_apply`, like everybody's.

use crate::web::router::{Answered, Call, Shared, json};
use crate::wire::api::v1::config::answer;

/// The values applied and in force.
pub(crate) fn read(shared: &Shared, _call: &Call) -> Answered {
    Ok(json(answer(&shared.node.view())))
}
