//! The closed list of codes that a denial or an error may carry (contract, *Codes*).
//!
//! A code has one meaning, one remediation and is never reused. HTTP statuses are not here: they live in `web`.

use std::fmt;
use std::str::FromStr;

/// Why an action did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The role is too low for a configuration write.
    AclDeniedCfgWrite,
    /// The own clock cannot be trusted at the moment.
    ClockUncertain,
    /// The same request id was used for something else, or the plan changed.
    Conflict,
    /// The request does not follow the contract.
    ContractViolation,
    /// The signed envelope's window has passed or has not begun.
    EnvelopeExpired,
    /// A started action was cut off; whether it took effect is on record as unknown.
    Interrupted,
    /// No current lease.
    LeaseUnavailable,
    /// A setting or part that the action needs is absent.
    NotConfigured,
    /// This runtime has never heard of the target.
    PeerNotAvailable,
    /// Policy, role or credential does not allow it.
    PermissionDenied,
    /// The request is older than the memory of its receipt.
    Replayed,
    /// The expected revision or etag is not the current one.
    RevisionConflict,
    /// A parameter does not have the declared name or type.
    SchemaMismatch,
    /// A queue or table is full.
    ServerBusy,
    /// A write that rests on a state or on a trust bundle which is not fresh.
    StaleData,
    /// The record could not be made durable.
    StorageUnavailable,
    /// The target is known and cannot be reached now.
    TargetUnreachable,
    /// Sent, and no answer in time: the outcome is unknown.
    Timeout,
    /// The mesh could not carry the request.
    TransportFailure,
    /// The peer's identity does not verify or is not trusted for this.
    UntrustedIdentity,
}

impl Code {
    /// Every code, in alphabetical order of its text.
    pub const ALL: [Self; 20] = [
        Self::AclDeniedCfgWrite,
        Self::ClockUncertain,
        Self::Conflict,
        Self::ContractViolation,
        Self::EnvelopeExpired,
        Self::Interrupted,
        Self::LeaseUnavailable,
        Self::NotConfigured,
        Self::PeerNotAvailable,
        Self::PermissionDenied,
        Self::Replayed,
        Self::RevisionConflict,
        Self::SchemaMismatch,
        Self::ServerBusy,
        Self::StaleData,
        Self::StorageUnavailable,
        Self::TargetUnreachable,
        Self::Timeout,
        Self::TransportFailure,
        Self::UntrustedIdentity,
    ];

    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AclDeniedCfgWrite => "acl_denied_cfg_write",
            Self::ClockUncertain => "clock_uncertain",
            Self::Conflict => "conflict",
            Self::ContractViolation => "contract_violation",
            Self::EnvelopeExpired => "envelope_expired",
            Self::Interrupted => "interrupted",
            Self::LeaseUnavailable => "lease_unavailable",
            Self::NotConfigured => "not_configured",
            Self::PeerNotAvailable => "peer_not_available",
            Self::PermissionDenied => "permission_denied",
            Self::Replayed => "replayed",
            Self::RevisionConflict => "revision_conflict",
            Self::SchemaMismatch => "schema_mismatch",
            Self::ServerBusy => "server_busy",
            Self::StaleData => "stale_data",
            Self::StorageUnavailable => "storage_unavailable",
            Self::TargetUnreachable => "target_unreachable",
            Self::Timeout => "timeout",
            Self::TransportFailure => "transport_failure",
            Self::UntrustedIdentity => "untrusted_identity",
        }
    }

    /// What the code means, in one sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::AclDeniedCfgWrite => "the role is too low to change this configuration",
            Self::ClockUncertain => "the node's wall clock went backwards or jumped ahead, so nothing new is granted",
            Self::Conflict => "the request id was used for another request, or the plan has changed since preflight",
            Self::ContractViolation => "the request does not follow the contract",
            Self::EnvelopeExpired => "the signed request arrived outside its time window",
            Self::Interrupted => "the action was cut off and its outcome is unknown",
            Self::LeaseUnavailable => "there is no current lease for this group",
            Self::NotConfigured => "a setting or part that this needs is absent",
            Self::PeerNotAvailable => "this runtime has never heard of the target",
            Self::PermissionDenied => "role, credential or policy does not allow it",
            Self::Replayed => "the request is older than its kept receipt",
            Self::RevisionConflict => "the configuration has moved on since it was read",
            Self::SchemaMismatch => "a key or value does not match the declared schema",
            Self::ServerBusy => "a bounded queue or table is full",
            Self::StaleData => "the target's state, or the trust bundle of a partner site, is too old for a write",
            Self::StorageUnavailable => "the record could not be written to disk",
            Self::TargetUnreachable => "the target is known but partitioned or offline",
            Self::Timeout => "the request was sent and not answered in time: outcome unknown",
            Self::TransportFailure => "the mesh could not carry the request",
            Self::UntrustedIdentity => "the peer's identity does not verify or is not approved",
        }
    }

    /// What the caller can do about it, in one sentence.
    pub const fn remediation(self) -> &'static str {
        match self {
            Self::AclDeniedCfgWrite => "use a credential with the role engineer, or admin for a protected key",
            Self::ClockUncertain => "correct the clock, then `trust-runtime ctl time-reset` as admin",
            Self::Conflict => "use a new request id, or preflight again and send the new plan_hash",
            Self::ContractViolation => "correct the named field; the API description is at /openapi.json",
            Self::EnvelopeExpired => "synchronize the clocks of origin and target, then send the request again",
            Self::Interrupted => "read the target's state before deciding whether to repeat with a new request id",
            Self::LeaseUnavailable => "wait for the group to obtain a lease, then send again",
            Self::NotConfigured => "set the named setting in runtime.toml and restart",
            Self::PeerNotAvailable => "check the target's name and that it runs and can reach this mesh",
            Self::PermissionDenied => "ask for the role or policy rule that the decision names",
            Self::Replayed => "use a new request id",
            Self::RevisionConflict => "read the current configuration and repeat with its revision",
            Self::SchemaMismatch => "correct the named key or the type of its value",
            Self::ServerBusy => "wait for the time in Retry-After, then send again",
            Self::StaleData => {
                "wait until the target is online, or check its link; for a bundle see partners in /healthz"
            }
            Self::StorageUnavailable => "free disk space on the node's store; after an I/O error restart the node",
            Self::TargetUnreachable => "check that the target runs and that the link to it is up",
            Self::Timeout => "repeat with the same request id: the target answers with the stored receipt",
            Self::TransportFailure => "check this runtime's mesh links, then send again",
            Self::UntrustedIdentity => "compare fingerprints, then `trust-runtime peers approve` or `peers forget`",
        }
    }

    /// Whether somebody decided against the request, by a rule, a right or a precondition. Otherwise it was not decided against,
    /// it failed: on the way, for want of room, or at the disk.
    pub const fn is_denial(self) -> bool {
        match self {
            Self::AclDeniedCfgWrite
            | Self::ClockUncertain
            | Self::Conflict
            | Self::ContractViolation
            | Self::EnvelopeExpired
            | Self::LeaseUnavailable
            | Self::NotConfigured
            | Self::PeerNotAvailable
            | Self::PermissionDenied
            | Self::Replayed
            | Self::RevisionConflict
            | Self::SchemaMismatch
            | Self::StaleData
            | Self::UntrustedIdentity => true,
            Self::Interrupted
            | Self::ServerBusy
            | Self::StorageUnavailable
            | Self::TargetUnreachable
            | Self::Timeout
            | Self::TransportFailure => false,
        }
    }

    /// Whether the very same request may succeed later without anybody changing anything.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::ServerBusy
                | Self::StaleData
                | Self::StorageUnavailable
                | Self::TargetUnreachable
                | Self::Timeout
                | Self::TransportFailure
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that is not one of the codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wanted one of the documented codes, got {0:?}")]
pub struct UnknownCode(String);

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| UnknownCode(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_and_says_what_to_do() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(code));
            assert!(!code.meaning().is_empty() && !code.remediation().is_empty(), "{code}");
        }
        let texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(texts.is_sorted(), "ALL is alphabetical, so that nothing stands in it twice");
    }
}
