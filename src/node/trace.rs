//! The spans by which one request is found again in the logs of every node that it met.
//!
//! A dispatch has a span at its origin (`web`, `Operations::dispatch`) and one here at each target, with the same
//! `request_id`. What an action carries is in none of them: a parameter may be a secret.

use tracing::Span;

use crate::domain::action;
use crate::domain::code::Code;
use crate::domain::envelope::{Envelope, Ruling};

/// What another runtime asks of this one.
pub(super) fn of_envelope(envelope: &Envelope) -> Span {
    tracing::info_span!(
        "act",
        runtime_id = %envelope.target,
        request_id = %envelope.request_id,
        origin = %envelope.origin,
        action = action::name(&envelope.action),
    )
}

/// What a target decided, without what it brought.
pub(super) fn ruled(ruling: &Ruling) -> Result<(), Code> {
    match ruling {
        Ruling::Done(_) => Ok(()),
        Ruling::Refused(denial) => Err(denial.code),
    }
}

/// How a result stands in the log.
pub(super) fn code(result: Result<(), Code>) -> &'static str {
    result.map_or_else(Code::as_str, |()| "ok")
}
