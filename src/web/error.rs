//! Problems as answers (RFC 9457): the only place with status codes.

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};

use crate::domain::code::Code;
use crate::domain::id::RequestId;
use crate::handle::Failure;
use crate::store;
use crate::wire::api::v1::{Fault, error};

/// What is wrong with a request, as HTTP tells it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The credential is missing or not one of ours.
    BadCredential,
    /// The body did not arrive in time.
    BodyTooSlow,
    /// The body is larger than its route takes.
    BodyTooLarge,
    /// The node could not do it.
    Failed(Code),
    /// It is in doubt where the request ends.
    Framing,
    /// Not with this credential, from this page or under this name.
    Forbidden,
    /// Not HTTP as we take it, or not the body that the contract asks for.
    Malformed,
    /// The body is not JSON.
    MediaType,
    /// The path exists, the method does not. Holds the methods that do.
    MethodNotAllowed(&'static str),
    /// The path does not exist.
    NotFound,
    /// The credential is not one of ours, and too many such came of late.
    TooManyBadCredentials,
}

impl Kind {
    const fn status(self) -> StatusCode {
        match self {
            Self::BadCredential => StatusCode::UNAUTHORIZED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Failed(code) => status_of(code),
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Framing | Self::Malformed => StatusCode::BAD_REQUEST,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooManyBadCredentials => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn code(self) -> Code {
        match self {
            Self::BadCredential | Self::Forbidden => Code::PermissionDenied,
            Self::BodyTooSlow => Code::Timeout,
            Self::Failed(code) => code,
            Self::TooManyBadCredentials => Code::ServerBusy,
            Self::BodyTooLarge
            | Self::Framing
            | Self::Malformed
            | Self::MediaType
            | Self::MethodNotAllowed(_)
            | Self::NotFound => Code::ContractViolation,
        }
    }

    /// Whether the connection ends with the answer.
    const fn closes(self) -> bool {
        match self {
            // Whoever guesses pays for a new connection each time, and one whose certificate has ended or whose token was taken
            // away does not keep what was opened with it.
            Self::BadCredential | Self::TooManyBadCredentials => true,
            // What is left of the body is not read, so the connection cannot carry another request.
            Self::BodyTooSlow | Self::BodyTooLarge | Self::Framing => true,
            Self::Failed(_)
            | Self::Forbidden
            | Self::Malformed
            | Self::MediaType
            | Self::MethodNotAllowed(_)
            | Self::NotFound => false,
        }
    }

    /// The error's name in the runs API, for what happens before a route is known: a caller of either API understands it.
    const fn envelope(self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed(_) => Some("method_not_allowed"),
            Self::NotFound => Some("route_not_found"),
            Self::BadCredential
            | Self::BodyTooSlow
            | Self::BodyTooLarge
            | Self::Failed(_)
            | Self::Forbidden
            | Self::Framing
            | Self::Malformed
            | Self::MediaType
            | Self::TooManyBadCredentials => None,
        }
    }
}

/// The status of a code where it ends a request by itself (contract, *Codes*).
const fn status_of(code: Code) -> StatusCode {
    match code {
        Code::ContractViolation | Code::EnvelopeExpired | Code::SchemaMismatch => StatusCode::BAD_REQUEST,
        Code::AclDeniedCfgWrite | Code::PermissionDenied | Code::UntrustedIdentity => StatusCode::FORBIDDEN,
        Code::PeerNotAvailable => StatusCode::NOT_FOUND,
        Code::Conflict | Code::LeaseUnavailable | Code::Replayed | Code::RevisionConflict | Code::StaleData => {
            StatusCode::CONFLICT
        }
        Code::Interrupted => StatusCode::INTERNAL_SERVER_ERROR,
        Code::TargetUnreachable | Code::TransportFailure => StatusCode::BAD_GATEWAY,
        Code::ClockUncertain | Code::NotConfigured | Code::ServerBusy | Code::StorageUnavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// Why a request gets no answer of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    faults: Vec<Fault>,
    request_id: Option<RequestId>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), faults: Vec::new(), request_id: None }
    }

    /// Of a request whose name is known.
    pub(crate) fn of_request(self, request_id: &RequestId) -> Self {
        Self { request_id: Some(request_id.clone()), ..self }
    }

    /// The node has no room for it now.
    pub(crate) fn busy(detail: &str) -> Self {
        Self::new(Kind::Failed(Code::ServerBusy), detail)
    }

    /// As an answer; `own_name` names the request where the caller did not.
    pub(crate) fn into_response(self, own_name: &str) -> Response<Body> {
        let code = self.kind.code();
        let status = self.kind.status();
        let body = error::answer(error::Problem {
            status: status.as_u16(),
            code,
            detail: &self.detail,
            request_id: self.request_id.as_ref().map_or(own_name, RequestId::as_str),
            faults: &self.faults,
            envelope: self.kind.envelope(),
        });
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.kind.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        match self.kind {
            Kind::BadCredential => headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Kind::MethodNotAllowed(allow) => headers.insert(ALLOW, HeaderValue::from_static(allow)),
            Kind::TooManyBadCredentials => headers.insert(RETRY_AFTER, HeaderValue::from_static("1")),
            Kind::Failed(code) if code.is_retryable() => headers.insert(RETRY_AFTER, HeaderValue::from_static("1")),
            Kind::BodyTooSlow
            | Kind::BodyTooLarge
            | Kind::Failed(_)
            | Kind::Forbidden
            | Kind::Framing
            | Kind::Malformed
            | Kind::MediaType
            | Kind::NotFound => None,
        };
        response
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let detail = if fault.pointer.is_empty() { fault.detail.clone() } else { fault.to_string() };
        let request_id = fault.request_id.clone();
        Self { kind: Kind::Malformed, detail, faults: vec![fault], request_id }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::new(Kind::Failed(failure.code), failure.reason)
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        Self::new(Kind::Failed(Code::StorageUnavailable), error.to_string())
    }
}

/// The reader has it already.
pub(crate) fn not_modified() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// An answer that says itself what is wrong.
pub(crate) fn unavailable(mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// The statuses that are no answer, with their meaning, for the description of the API.
pub(crate) mod described {
    /// Of every route.
    pub(crate) const PUBLIC: &[(u16, &str)] = &[
        (400, "The request is not HTTP as this node takes it."),
        (403, "The Host is not on the allow-list, or a foreign page asks."),
    ];
    /// Of the bundle endpoint.
    pub(crate) const BUNDLE: &[(u16, &str)] = &[
        (400, "The request is not HTTP as this node takes it."),
        (403, "The Host is not on the allow-list, or a foreign page asks."),
        (503, "No bundle is configured here."),
    ];
    /// Of a probe.
    pub(crate) const PROBE: &[(u16, &str)] = &[
        (400, "The request is not HTTP as this node takes it."),
        (403, "The Host is not on the allow-list, or a foreign page asks."),
        (503, "Not in order; Retry-After says when to ask again."),
    ];
    /// Of the node's health.
    pub(crate) const HEALTH: &[(u16, &str)] = &[
        (400, "The request is not HTTP as this node takes it."),
        (401, "The credential is not one of this node's."),
        (403, "The Host is not on the allow-list, or a foreign page asks."),
        (503, "A subsystem is faulted, and the body is the health; or too many requests."),
    ];
    /// Of a route that reads.
    pub(crate) const READ: &[(u16, &str)] = &[
        (400, "A parameter is not what it must be."),
        (401, "The credential is missing or not one of this node's."),
        (403, "The role is too low, the Host is not on the allow-list, or a foreign page asks."),
        (503, "Too many requests, the store cannot be read, or a setting that the profile needs is absent."),
    ];
    /// Of the state.
    pub(crate) const STATE: &[(u16, &str)] = &[
        (304, "The reader has this state already."),
        (400, "A header is not what it must be."),
        (401, "The credential is missing or not one of this node's."),
        (403, "The role is too low, the Host is not on the allow-list, or a foreign page asks."),
        (503, "Too many requests, or a setting that the profile needs is absent."),
    ];
    /// Of a route that takes a body.
    pub(crate) const WRITE: &[(u16, &str)] = &[
        (400, "The body is not JSON, or not of this form."),
        (401, "The credential is missing or not one of this node's."),
        (403, "The role is too low, the Host is not on the allow-list, or a foreign page asks."),
        (408, "The body did not arrive in time."),
        (409, "It contradicts what is on record."),
        (413, "The body is too large."),
        (415, "The body is not application/json."),
        (503, "Too many requests, or the store takes no writes; Retry-After says when to ask again."),
    ];
}
