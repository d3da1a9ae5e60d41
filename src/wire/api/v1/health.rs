//! How the node does: one word per subsystem, and the detail for whoever may see it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{Fault, encode};

/// The one parameter.
const NAME: &str = "verbose";

/// What is asked for beside the words. Other parameters are nobody's business here: probes add some of their own.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HealthQuery {
    /// What was refused since the start too: alone or with the value `true`.
    #[param(required = false, value_type = String, pattern = "^(true|false)?$")]
    pub verbose: bool,
}

impl HealthQuery {
    /// Reads the part of the address behind the question mark.
    pub fn read(query: Option<&str>) -> Result<Self, Fault> {
        let parts = query.unwrap_or_default().split('&');
        let mut given =
            parts.filter(|part| *part == NAME || part.strip_prefix(NAME).is_some_and(|it| it.starts_with('=')));
        match (given.next(), given.next()) {
            (None | Some("verbose=false"), None) => Ok(Self { verbose: false }),
            (Some("verbose" | "verbose=" | "verbose=true"), None) => Ok(Self { verbose: true }),
            (_, _) => Err(Fault::at("/verbose", "wanted it at most once: alone, or with the value true or false")),
        }
    }
}

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
    refused: Option<BTreeMap<&'static str, u64>>,
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
    refused: Option<BTreeMap<&'static str, u64>>,
) -> Vec<u8> {
    let body = |(name, status, detail)| (name, SubsystemBody { status, detail });
    encode(&HealthBody { status, subsystems: subsystems.map(body).collect(), refused })
}
