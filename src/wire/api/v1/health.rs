//! How the node does: one word per subsystem, and the detail for whoever may see it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::encode;

/// The node's health, or a probe's answer without subsystems.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthBody<'a> {
    /// `ok`, `degraded`, `faulted` or `not_configured`; the worst of the subsystems.
    status: &'static str,
    /// The subsystems by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    subsystems: BTreeMap<&'static str, SubsystemBody<'a>>,
    /// What was refused since the start, by reason: with `?verbose`, for a viewer or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    refused: Option<BTreeMap<String, u64>>,
}

/// One subsystem's health.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubsystemBody<'a> {
    /// `ok`, `degraded`, `faulted` or `not_configured`.
    status: &'static str,
    /// What is known, for a viewer or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'a str>,
}

/// One subsystem: its name, its status word and, for whoever may see it, the detail.
pub type Subsystem<'a> = (&'static str, &'static str, Option<&'a str>);

/// A health answer.
pub fn answer<'a>(status: &'static str, subsystems: impl Iterator<Item = Subsystem<'a>>) -> Vec<u8> {
    report(status, subsystems, None)
}

/// A health answer with what was refused.
pub fn report<'a>(
    status: &'static str,
    subsystems: impl Iterator<Item = Subsystem<'a>>,
    refused: Option<BTreeMap<String, u64>>,
) -> Vec<u8> {
    let body = |(name, status, detail)| (name, SubsystemBody { status, detail });
    encode(&HealthBody { status, subsystems: subsystems.map(body).collect(), refused })
}
