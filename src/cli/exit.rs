//! Exit codes (DESIGN, *Command line*) and the failures that lead to them.

use std::process::ExitCode;

/// How a command ended. The numbers are a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed for a reason that has no number of its own.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration is wrong.
    Configuration = 3,
    /// The node cannot be reached.
    Unreachable = 4,
    /// Not allowed.
    Denied = 5,
    /// Something else came first.
    Conflict = 6,
    /// Done for some targets.
    Partly = 7,
    /// No answer in time.
    TimedOut = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do its work: one text for standard error, one number.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The number.
    pub exit: Exit,
    /// The text.
    pub message: String,
}

impl Failure {
    /// A failure without a number of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    /// A failure with this number.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl From<crate::node::StoreError> for Failure {
    fn from(error: crate::node::StoreError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<crate::node::archive::ArchiveError> for Failure {
    fn from(error: crate::node::archive::ArchiveError) -> Self {
        Self::failed(error.to_string())
    }
}

/// The exit that a denial's or error's code leads to.
pub fn of_code(code: &str) -> Exit {
    match code {
        "permission_denied" | "acl_denied_cfg_write" | "untrusted_identity" => Exit::Denied,
        "conflict" | "revision_conflict" | "replayed" | "lease_unavailable" => Exit::Conflict,
        "timeout" => Exit::TimedOut,
        "peer_not_available" | "target_unreachable" | "transport_failure" | "stale_data" | "server_busy" => {
            Exit::Unreachable
        }
        _ => Exit::Failed,
    }
}
