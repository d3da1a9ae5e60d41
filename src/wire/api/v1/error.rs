//! Errors outside the answers of the action routes: problem details (RFC 9457).

use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Fault, encode};
use crate::domain::code::Code;
use crate::domain::text::shown;

/// What went wrong, as `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemBody<'a> {
    /// Names the code as a URI.
    #[serde(rename = "type")]
    kind: String,
    /// What the code means.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened this time.
    detail: Cow<'a, str>,
    /// One of the documented codes.
    code: &'static str,
    /// The caller's name for the request; our own where it could not be read.
    request_id: &'a str,
    /// Whether the very same request may succeed later.
    retryable: bool,
    /// What the caller can do about it.
    remediation: &'static str,
    /// The faults found in the body or the query.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FaultBody<'a>>,
    /// Only for an unknown path or method: the same in the form of the runs API.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<EnvelopeBody<'a>>,
}

/// One fault.
#[derive(Debug, Serialize, ToSchema)]
pub struct FaultBody<'a> {
    /// Where in the body, as a JSON pointer.
    pointer: Cow<'a, str>,
    /// What was wanted and got.
    detail: Cow<'a, str>,
}

/// An error in the form of the runs API.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnvelopeBody<'a> {
    /// Which error.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What happened.
    message: Cow<'a, str>,
    /// What the caller can do about it.
    details: &'a str,
}

/// What goes into a problem.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The code.
    pub code: Code,
    /// What happened this time.
    pub detail: &'a str,
    /// The request's name.
    pub request_id: &'a str,
    /// The faults found.
    pub faults: &'a [Fault],
    /// The error's type in the runs API, where that form is wanted too.
    pub envelope: Option<&'static str>,
}

/// A problem as an answer.
pub fn answer(problem: Problem<'_>) -> Vec<u8> {
    let Problem { status, code, detail, request_id, faults, envelope } = problem;
    let fault = |fault: &'static str| EnvelopeBody { kind: fault, message: shown(detail), details: code.remediation() };
    encode(&ProblemBody {
        kind: format!("urn:trust-runtime:code:{code}"),
        title: code.meaning(),
        status,
        detail: shown(detail),
        code: code.as_str(),
        request_id,
        retryable: code.is_retryable(),
        remediation: code.remediation(),
        errors: faults
            .iter()
            .map(|fault| FaultBody { pointer: shown(&fault.pointer), detail: shown(&fault.detail) })
            .collect(),
        error: envelope.map(fault),
    })
}
