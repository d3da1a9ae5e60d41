//! Problems as answers (RFC 9457): the only place with status codes.

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};

use crate::domain::code::Code;
use crate::domain::id::RequestId;
use crate::domain::run::RunId;
use crate::handle::Failure;
use crate::store;
use crate::web::envelope::{More, RunFault, worded};
use crate::wire::api::v1::{Fault, error};
use crate::wire::run;

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
    /// Of runs alone.
    Run(RunFault),
    /// The credential is not one of ours, and too many such came of late.
    TooManyBadCredentials,
    /// The credential acts or reads too often. Holds the seconds until it may again.
    TooOften(u32),
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
            Self::Run(fault) => status_of_run(fault),
            Self::TooManyBadCredentials => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    pub(crate) const fn code(self) -> Code {
        match self {
            Self::BadCredential | Self::Forbidden => Code::PermissionDenied,
            Self::BodyTooSlow => Code::Timeout,
            Self::Failed(code) => code,
            Self::Run(fault) => fault.code(),
            Self::TooManyBadCredentials | Self::TooOften(_) => Code::ServerBusy,
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
            | Self::NotFound
            | Self::Run(_)
            | Self::TooOften(_) => false,
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
            | Self::Run(_)
            | Self::TooManyBadCredentials
            | Self::TooOften(_) => None,
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

/// The status of what goes wrong with runs alone.
const fn status_of_run(fault: RunFault) -> StatusCode {
    match fault {
        RunFault::AgentNotFound | RunFault::AgentNotWebhook | RunFault::RunNotFound => StatusCode::NOT_FOUND,
        RunFault::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        RunFault::InvalidJson | RunFault::InvalidRequest | RunFault::ValidationFailed => StatusCode::BAD_REQUEST,
        RunFault::OwnerContested => StatusCode::CONFLICT,
        RunFault::OwnerTooSlow => StatusCode::GATEWAY_TIMEOUT,
        RunFault::OwnerUnreachable => StatusCode::SERVICE_UNAVAILABLE,
        RunFault::RegistryUnavailable | RunFault::StoreUnavailable => StatusCode::NOT_IMPLEMENTED,
    }
}

/// Why a request gets no answer of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    faults: Vec<Fault>,
    request_id: Option<RequestId>,
    /// What the runs API says beside it.
    pub(crate) more: Box<More>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), faults: Vec::new(), request_id: None, more: Box::default() }
    }

    /// Of a request whose name is known.
    pub(crate) fn of_request(self, request_id: &RequestId) -> Self {
        Self { request_id: Some(request_id.clone()), ..self }
    }

    /// The code that its answer carries.
    pub(crate) const fn code(&self) -> Code {
        self.kind.code()
    }

    /// The node has no room for it now.
    pub(crate) fn busy(detail: &str) -> Self {
        Self::new(Kind::Failed(Code::ServerBusy), detail)
    }

    /// Whether the node failed, and says so in words that are not for every reader. Which setting lacks, whoever asks anew is
    /// told too.
    pub(crate) fn is_own_fault(&self) -> bool {
        matches!(self.kind, Kind::Failed(code) if code != Code::NotConfigured)
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
        self.answer(body, "application/problem+json")
    }

    /// As an answer of the runs API.
    pub(crate) fn into_envelope(self, is_debug: bool) -> Response<Body> {
        let body = self.envelope(is_debug);
        let run = self.more.run;
        let mut response = self.answer(body, "application/json");
        if let Some(run) = run {
            name_run(&mut response, run);
        }
        response
    }

    /// The body in the form of the runs API.
    pub(crate) fn envelope(&self, is_debug: bool) -> Vec<u8> {
        let (kind, details) = worded(self.kind);
        run::error(run::Envelope {
            kind,
            message: &self.detail,
            details,
            dev: self.more.dev.as_deref().filter(|_| is_debug),
            issues: &self.more.issues,
            last_known: self.more.last_known.as_deref(),
        })
    }

    fn answer(&self, body: Vec<u8>, media_type: &'static str) -> Response<Body> {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if self.kind.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        match self.kind {
            Kind::BadCredential => headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Kind::MethodNotAllowed(allow) => headers.insert(ALLOW, HeaderValue::from_static(allow)),
            Kind::TooManyBadCredentials | Kind::Run(RunFault::OwnerUnreachable) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))
            }
            Kind::TooOften(seconds) => headers.insert(RETRY_AFTER, HeaderValue::from(seconds)),
            Kind::Failed(code) if code.is_retryable() => headers.insert(RETRY_AFTER, HeaderValue::from_static("1")),
            Kind::BodyTooSlow
            | Kind::BodyTooLarge
            | Kind::Failed(_)
            | Kind::Forbidden
            | Kind::Framing
            | Kind::Malformed
            | Kind::MediaType
            | Kind::NotFound
            | Kind::Run(_) => None,
        };
        response
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let detail = if fault.pointer.is_empty() { fault.detail.clone() } else { fault.to_string() };
        let request_id = fault.request_id.clone();
        Self { faults: vec![fault], request_id, ..Self::new(Kind::Malformed, detail) }
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

/// The header that names a run, and its alias from the contract on runs (DESIGN, *Shapes*).
const RUN_HEADERS: [&str; 2] = ["x-trust-run-id", "x-flue-run-id"];

/// Says which run an answer is about: only where that run exists (contract, D27).
pub(crate) fn name_run(response: &mut Response<Body>, run: RunId) {
    if let Ok(value) = HeaderValue::from_str(&run.to_string()) {
        for name in RUN_HEADERS {
            response.headers_mut().insert(name, value.clone());
        }
    }
}

/// The work goes on behind the answer.
pub(crate) fn accepted(mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = StatusCode::ACCEPTED;
    response
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
    const ACTS_TOO_OFTEN: &str = "This credential acts too often; Retry-After says when to ask again.";
    const READS_TOO_OFTEN: &str = "This credential reads too often; Retry-After says when to ask again.";

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
        (400, "A parameter is not what it must be."),
        (401, "The credential is not one of this node's."),
        (403, "The Host is not on the allow-list, or a foreign page asks."),
        (429, READS_TOO_OFTEN),
        (503, "A subsystem is faulted, and the body is the health; or too many requests at once."),
    ];
    /// Of a route that reads.
    pub(crate) const READ: &[(u16, &str)] = &[
        (400, "A parameter is not what it must be."),
        (401, "The credential is missing or not one of this node's."),
        (
            403,
            "The role is too low or for another listener, the Host is not on the allow-list, or a foreign page asks.",
        ),
        (429, READS_TOO_OFTEN),
        (503, "Too many requests at once, the store cannot be read, or a setting that the profile needs is absent."),
    ];
    /// Of the state.
    pub(crate) const STATE: &[(u16, &str)] = &[
        (304, "The reader has this state already."),
        (400, "A header is not what it must be."),
        (401, "The credential is missing or not one of this node's."),
        (
            403,
            "The role is too low or for another listener, the Host is not on the allow-list, or a foreign page asks.",
        ),
        (429, READS_TOO_OFTEN),
        (503, "Too many requests at once, or a setting that the profile needs is absent."),
    ];
    /// Of a route that takes a body.
    pub(crate) const WRITE: &[(u16, &str)] = &[
        (400, "The body is not JSON, or not of this form."),
        (401, "The credential is missing or not one of this node's."),
        (
            403,
            "The role is too low or for another listener, the Host is not on the allow-list, or a foreign page asks.",
        ),
        (408, "The body did not arrive in time."),
        (409, "It contradicts what is on record."),
        (413, "The body is too large."),
        (415, "The body is not application/json."),
        (429, ACTS_TOO_OFTEN),
        (
            503,
            "Too many requests at once, the store takes no writes, or a setting that the profile needs is absent; Retry-After says when to ask again.",
        ),
    ];
    /// Of a route that takes a body about a peer.
    pub(crate) const PEER: &[(u16, &str)] = &[
        (400, "The body is not JSON, or not of this form."),
        (401, "The credential is missing or not one of this node's."),
        (403, "The role is too low, the Host is not on the allow-list, or a foreign page asks."),
        (404, "This node has never heard of the peer."),
        (408, "The body did not arrive in time."),
        (409, "It contradicts what is on record."),
        (413, "The body is too large."),
        (415, "The body is not application/json."),
        (429, ACTS_TOO_OFTEN),
        (
            503,
            "Too many requests at once, the store takes no writes, or a setting that the profile needs is absent; Retry-After says when to ask again.",
        ),
    ];
    /// Of an invocation.
    pub(crate) const INVOKE: &[(u16, &str)] = &[
        (400, "A part of the path is blank, or the payload is not JSON."),
        (401, "The credential is missing or not one of this node's."),
        (
            403,
            "The role is lower than the agent asks for or for another listener, the Host is not on the allow-list, or a foreign page asks.",
        ),
        (404, "No such agent is declared, or it is not started over HTTP."),
        (405, "Wanted POST."),
        (408, "The payload did not arrive in time."),
        (413, "The payload is too large."),
        (415, "The payload is not application/json."),
        (429, ACTS_TOO_OFTEN),
        (500, "The run ended with an error; its record says which."),
        (501, "This node keeps no runs."),
        (
            503,
            "Too many requests at once, streams or runs, the store takes no writes, or a setting that the profile needs is absent; nothing was started.",
        ),
    ];
    /// Of a run that is read.
    pub(crate) const RUN: &[(u16, &str)] = &[
        (400, "A parameter is not what it must be."),
        (401, "The credential is missing or not one of this node's."),
        (
            403,
            "The role is too low or for another listener, the Host is not on the allow-list, or a foreign page asks.",
        ),
        (404, "Nobody who could be asked knows the run."),
        (405, "Wanted GET."),
        (409, "More than one runtime claims the run."),
        (429, READS_TOO_OFTEN),
        (500, "The node failed."),
        (501, "This node keeps no runs."),
        (
            503,
            "Too many requests or streams at once, the store cannot be read, the run's owner cannot be reached, or a setting that the profile needs is absent.",
        ),
        (504, "The run's owner can be reached, and what is wanted does not come from it in its time."),
    ];
    /// Of the admin listener.
    pub(crate) const ADMIN: &[(u16, &str)] = &[
        (400, "A parameter is not what it must be."),
        (401, "The credential is missing or not one of this node's."),
        (
            403,
            "The role is lower than operator or for another listener, the Host is not on the allow-list, or a foreign page asks.",
        ),
        (404, "No such agent or run."),
        (405, "Wanted GET."),
        (409, "More than one runtime claims the run."),
        (429, READS_TOO_OFTEN),
        (501, "This node keeps no runs."),
        (503, "Too many requests at once, the store cannot be read, or a setting that the profile needs is absent."),
        (504, "The run's owner can be reached, and what is wanted does not come from it in its time."),
    ];
}
