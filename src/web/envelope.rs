//! Errors in the form of the runs API, for its routes and those of the admin listener (DESIGN, *Shapes*).

use crate::domain::code::Code;
use crate::domain::run::{Pointer, RunId};
use crate::handle::runs::Absent;
use crate::web::error::{Kind, Problem};
use crate::wire::run::Issue;

/// What goes wrong with runs alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunFault {
    /// No agent of this name is declared.
    AgentNotFound,
    /// The agent is not started over HTTP.
    AgentNotWebhook,
    /// The run ended otherwise than it should, or the node failed.
    Internal,
    /// The payload is not JSON.
    InvalidJson,
    /// A part of the path is blank.
    InvalidRequest,
    /// More than one runtime claims the run.
    OwnerContested,
    /// What is wanted of the run does not come in its time.
    OwnerTooSlow,
    /// The run's runtime cannot be reached.
    OwnerUnreachable,
    /// This node keeps no runs.
    RegistryUnavailable,
    /// Nobody knows the run.
    RunNotFound,
    /// This node has pointers to runs and keeps none.
    StoreUnavailable,
    /// A parameter is not what it must be.
    ValidationFailed,
}

impl RunFault {
    /// The stable type.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::AgentNotFound => "agent_not_found",
            Self::AgentNotWebhook => "agent_not_webhook",
            Self::Internal => "internal_error",
            Self::InvalidJson => "invalid_json",
            Self::InvalidRequest => "invalid_request",
            Self::OwnerContested => "run_owner_contested",
            Self::OwnerTooSlow => "run_owner_too_slow",
            Self::OwnerUnreachable => "run_owner_unreachable",
            Self::RegistryUnavailable => "run_registry_unavailable",
            Self::RunNotFound => "run_not_found",
            Self::StoreUnavailable => "run_store_unavailable",
            Self::ValidationFailed => "validation_failed",
        }
    }

    /// The nearest code of the rest of the API.
    pub(crate) const fn code(self) -> Code {
        match self {
            Self::AgentNotFound
            | Self::AgentNotWebhook
            | Self::InvalidJson
            | Self::InvalidRequest
            | Self::RunNotFound
            | Self::ValidationFailed => Code::ContractViolation,
            Self::Internal => Code::Interrupted,
            Self::OwnerContested => Code::Conflict,
            Self::OwnerTooSlow => Code::Timeout,
            Self::OwnerUnreachable => Code::TargetUnreachable,
            Self::RegistryUnavailable | Self::StoreUnavailable => Code::NotConfigured,
        }
    }

    /// What the caller can do about it.
    const fn details(self) -> &'static str {
        match self {
            Self::AgentNotFound => "Declare the agent as [[runtime.agent]] on this runtime, or correct its name.",
            Self::AgentNotWebhook => "Set webhook = true for the agent, or start it in another way.",
            Self::Internal => "The run's record and events say more to whoever may read them.",
            Self::InvalidJson => "Send one JSON value, or no body at all.",
            Self::InvalidRequest => "Give both an agent and an instance: POST /agents/{name}/{id}.",
            Self::OwnerContested => {
                "Read it at the runtime that has it, and ban the one that lies; the audit log names both."
            }
            Self::OwnerTooSlow => {
                "Read it at that runtime, which meta names, or ask again when the link to it carries more."
            }
            Self::OwnerUnreachable => "Ask again when that runtime is back; meta has what was last known.",
            Self::RegistryUnavailable => "Ask a runtime that keeps runs.",
            Self::RunNotFound => "Check the id; finished runs are forgotten in their time.",
            Self::StoreUnavailable => "Ask the runtime that has the run.",
            Self::ValidationFailed => "Correct the parameters that meta names.",
        }
    }
}

/// The type and the advice that an error has in the envelope.
pub(crate) fn worded(kind: Kind) -> (&'static str, &'static str) {
    let name = match kind {
        Kind::Run(fault) => return (fault.as_str(), fault.details()),
        Kind::BadCredential => "unauthorized",
        Kind::BodyTooLarge => "payload_too_large",
        Kind::BodyTooSlow => "request_timeout",
        Kind::Failed(code) => code.as_str(),
        Kind::Forbidden => "forbidden",
        Kind::Framing | Kind::Malformed => "invalid_request",
        Kind::MediaType => "unsupported_media_type",
        Kind::MethodNotAllowed(_) => "method_not_allowed",
        Kind::NotFound => "route_not_found",
        Kind::TooManyBadCredentials | Kind::TooOften(_) => "server_busy",
    };
    (name, kind.code().remediation())
}

/// What an error says beside its type and its message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct More {
    /// For who develops an agent.
    pub(crate) dev: Option<String>,
    /// The faults of the parameters.
    pub(crate) issues: Vec<Issue>,
    /// What was last known of the run.
    pub(crate) last_known: Option<Box<Pointer>>,
    /// The run that this is about, where one was made.
    pub(crate) run: Option<RunId>,
}

impl Problem {
    /// What goes wrong with runs alone.
    pub(crate) fn of_run(fault: RunFault, detail: impl Into<String>) -> Self {
        Self::new(Kind::Run(fault), detail)
    }

    /// The parameters are not what they must be.
    pub(crate) fn of_query(issues: Vec<Issue>) -> Self {
        let mut problem = Self::of_run(RunFault::ValidationFailed, "a parameter is not what it must be");
        problem.more.issues = issues;
        problem
    }

    /// The same, about a run that exists.
    pub(crate) fn about(mut self, run: RunId) -> Self {
        self.more.run = Some(run);
        self
    }

    /// The same, with something more for who develops an agent.
    pub(crate) fn with_dev(mut self, dev: String) -> Self {
        self.more.dev = Some(dev);
        self
    }
}

impl From<Absent> for Problem {
    fn from(absent: Absent) -> Self {
        let detail = absent.to_string();
        match absent {
            Absent::Unknown => Self::of_run(RunFault::RunNotFound, detail),
            Absent::OwnerUnreachable(pointer) => {
                let mut problem = Self::of_run(RunFault::OwnerUnreachable, detail);
                problem.more.last_known = Some(pointer);
                problem
            }
            Absent::OwnerTooSlow(pointer, _reason) => {
                let mut problem = Self::of_run(RunFault::OwnerTooSlow, detail);
                problem.more.last_known = Some(pointer);
                problem
            }
            Absent::Contested(_owners) => Self::of_run(RunFault::OwnerContested, detail),
            Absent::Unanswered => Self::of_run(RunFault::OwnerUnreachable, detail),
            Absent::HeldUp => Self::new(Kind::Failed(Code::StorageUnavailable), detail),
            Absent::Failed(failure) => failure.into(),
        }
    }
}
