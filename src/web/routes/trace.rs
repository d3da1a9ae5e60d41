//! The span of a request that names itself: open from when its name has been read, also where nothing else of it is taken.
//!
//! With the same `request_id` there is one in `node` at each target. What an action carries is in none of them: a parameter
//! may be a secret.

use tracing::Span;

use crate::domain::action::{self, ActionKind};
use crate::domain::id::{RequestId, RuntimeId};
use crate::wire::api::v1::Fault;
use crate::wire::api::v1::action::{Ask, Reading};

/// Of what was read of a body, be it what is wrong with it.
pub(super) fn of_body(me: &RuntimeId, ask: Ask, read: &Result<Reading, Fault>) -> Span {
    let request_id = match read {
        Ok(Reading::Wanted(wanted)) => Some(wanted.request_id.as_str()),
        Ok(Reading::Refused(refused)) => Some(refused.request_id.as_str()),
        Err(fault) => fault.request_id.as_ref().map(RequestId::as_str),
    };
    let targets = match read {
        Ok(Reading::Wanted(wanted)) => Some(wanted.targets.len()),
        Ok(Reading::Refused(refused)) => Some(refused.targets.len()),
        Err(_) => None,
    };
    match ask {
        Ask::Dispatch => {
            tracing::info_span!("dispatch", runtime_id = %me, request_id, action = action_of(read), targets)
        }
        Ask::Preflight => {
            tracing::info_span!("preflight", runtime_id = %me, request_id, action = action_of(read), targets)
        }
    }
}

/// As the audit log names it; nothing where it is none.
fn action_of(read: &Result<Reading, Fault>) -> Option<String> {
    match read {
        Ok(Reading::Wanted(wanted)) => Some(action::name(&wanted.action)),
        Ok(Reading::Refused(refused)) => refused.action.map(ActionKind::as_str).map(str::to_owned),
        Err(_) => None,
    }
}
