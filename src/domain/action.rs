//! The closed set of actions, their typed parameters, and the least role each asks for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::domain::config::{self, Value};
use crate::domain::id::{self, Segment};
use crate::domain::identity::Role;
use crate::domain::run::{NotARunId, RunId};
use crate::domain::time::Millis;

/// Most settings in one `cfg_apply`: far above what a person writes, and a bound on the record.
pub const PARAMS_MAX: usize = 256;

/// The built-in command that ends a run.
pub const CANCEL: &str = "cancel";

/// Which action, without its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActionKind {
    /// Change live settings.
    CfgApply,
    /// Invoke a built-in or declared command.
    CmdInvoke,
    /// Read a runtime's status.
    StatusRead,
}

impl ActionKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::CfgApply, Self::CmdInvoke, Self::StatusRead];

    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CfgApply => "cfg_apply",
            Self::CmdInvoke => "cmd_invoke",
            Self::StatusRead => "status_read",
        }
    }

    /// How long after its issue an envelope of this kind is good (DESIGN, *An action across the mesh*).
    pub const fn window(self) -> Millis {
        match self {
            Self::CfgApply => Millis::from_secs(120),
            Self::CmdInvoke => Millis::from_secs(30),
            Self::StatusRead => Millis::from_secs(10),
        }
    }

    /// Whether it changes nothing.
    pub const fn is_read(self) -> bool {
        matches!(self, Self::StatusRead)
    }
}

impl fmt::Display for ActionKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that names no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wanted status_read, cfg_apply or cmd_invoke, got {0:?}")]
pub struct UnknownAction(String);

impl FromStr for ActionKind {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownAction(text.chars().take(64).collect()))
    }
}

/// What is to be done to one runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Change these live settings, all or none.
    CfgApply(BTreeMap<String, Value>),
    /// Invoke this command.
    CmdInvoke(Invocation),
    /// Read the status.
    StatusRead,
}

/// One command with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The command's name.
    pub command: Segment,
    /// Its parameters by name, as canonical JSON texts: the node hands them on and does not interpret them.
    pub params: BTreeMap<String, String>,
}

/// Why an action is not well-formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The command is not a name.
    #[error("command: {0}")]
    Command(#[from] id::Error),
    /// More than 256 parameters.
    #[error("wanted at most {PARAMS_MAX} parameters, got {0}")]
    TooManyParams(usize),
    /// A configuration write without a setting.
    #[error("wanted at least one setting in params, got none")]
    NothingToApply,
    /// A cancellation that names no run.
    #[error("params.run_id: {NotARunId}, as a JSON string and nothing else")]
    NoRun,
}

impl Invocation {
    /// Whether a built-in command has the parameters that it needs. Those of others are not the node's to judge.
    pub fn check(&self) -> Result<(), Error> {
        if self.command.as_str() == CANCEL { self.run().map(|_run| ()) } else { Ok(()) }
    }

    /// Which run `cancel` is about.
    pub fn run(&self) -> Result<RunId, Error> {
        let text = self.params.get("run_id").filter(|_| self.params.len() == 1).ok_or(Error::NoRun)?;
        let bare = text.strip_prefix('"').and_then(|it| it.strip_suffix('"')).ok_or(Error::NoRun)?;
        bare.parse().map_err(|NotARunId| Error::NoRun)
    }
}

/// An action as the audit log names it: its kind, and the command where there is one.
pub fn name(action: &Action) -> String {
    match action.command() {
        Some(command) => format!("{}/{command}", action.kind()),
        None => action.kind().to_string(),
    }
}

impl Action {
    /// The built-in `ping`, which answers and changes nothing.
    pub fn ping() -> Self {
        #[expect(clippy::expect_used, reason = "a constant of the grammar")]
        let command = "ping".parse().expect("`ping` is a segment");
        Self::CmdInvoke(Invocation { command, params: BTreeMap::new() })
    }

    /// A configuration write of at least one setting.
    pub fn cfg_apply(values: BTreeMap<String, Value>) -> Result<Self, Error> {
        match values.len() {
            0 => Err(Error::NothingToApply),
            count if count > PARAMS_MAX => Err(Error::TooManyParams(count)),
            _ => Ok(Self::CfgApply(values)),
        }
    }

    /// A command with its parameters.
    pub fn cmd_invoke(command: &str, params: BTreeMap<String, String>) -> Result<Self, Error> {
        if params.len() > PARAMS_MAX {
            return Err(Error::TooManyParams(params.len()));
        }
        Ok(Self::CmdInvoke(Invocation { command: command.parse()?, params }))
    }

    /// Which kind this is.
    pub const fn kind(&self) -> ActionKind {
        match self {
            Self::CfgApply(_) => ActionKind::CfgApply,
            Self::CmdInvoke(_) => ActionKind::CmdInvoke,
            Self::StatusRead => ActionKind::StatusRead,
        }
    }

    /// The command's name, where there is one.
    pub fn command(&self) -> Option<&Segment> {
        match self {
            Self::CmdInvoke(invocation) => Some(&invocation.command),
            Self::CfgApply(_) | Self::StatusRead => None,
        }
    }

    /// One parameter as a canonical JSON text.
    pub fn parameter(&self, name: &str) -> Option<String> {
        match self {
            Self::CfgApply(values) => values.get(name).map(Value::to_string),
            Self::CmdInvoke(invocation) => invocation.params.get(name).cloned(),
            Self::StatusRead => None,
        }
    }

    /// The names of all parameters.
    pub fn parameter_names(&self) -> impl Iterator<Item = &str> {
        let (values, params) = match self {
            Self::CfgApply(values) => (Some(values), None),
            Self::CmdInvoke(invocation) => (None, Some(&invocation.params)),
            Self::StatusRead => (None, None),
        };
        let (values, params) = (values.into_iter().flatten(), params.into_iter().flatten());
        values.map(|(name, _)| name.as_str()).chain(params.map(|(name, _)| name.as_str()))
    }

    /// The least role that may ask for it (contract, *preflight*).
    pub fn least_role(&self) -> Role {
        match self {
            Self::StatusRead => Role::Viewer,
            Self::CmdInvoke(_) => Role::Operator,
            Self::CfgApply(values) if values.keys().any(|key| config::is_protected(key)) => Role::Admin,
            Self::CfgApply(_) => Role::Engineer,
        }
    }
}
