//! Runs of this node: what the engine has accepted is begun, told and ended here, and shown to callers.
//!
//! The engine's word comes first and is durable; then the run store has the run; then its program starts. An end goes the
//! other way: durable in the run store, then told to the engine. So whatever stops this process, the next start finds every
//! run that nobody runs any more, and gives it an end.

mod conduct;
mod ends;
mod held;
mod keeper;
mod local;
mod output;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::run::AgentName;
use crate::domain::time::Millis;
use crate::settings::Settings;
use crate::store::runs::{Registry, RunStore};
use crate::workload::{Launcher, Program};

pub(super) use held::Held;
pub(super) use keeper::Keeper;
pub(super) use local::LocalRuns;

/// What runs need of the outside.
#[derive(Debug, Clone)]
pub struct Outside {
    /// Records and events.
    pub store: Arc<dyn RunStore>,
    /// Pointers.
    pub registry: Arc<dyn Registry>,
    /// Starts programs.
    pub launcher: Arc<dyn Launcher>,
    /// What may be started, by the name of its runs.
    pub declared: BTreeMap<AgentName, Declared>,
}

/// A program that the file declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// What is started.
    pub program: Program,
    /// How long a run may take.
    pub timeout: Millis,
}

/// The declared commands and agents.
pub fn declared(settings: &Settings) -> BTreeMap<AgentName, Declared> {
    let program = |path: &std::path::Path, args: &[String]| Program {
        path: path.to_owned(),
        args: args.to_vec(),
        ..Program::default()
    };
    let commands = settings.commands.iter().map(|command| {
        let declared = Declared { program: program(&command.program, &command.args), timeout: command.timeout };
        (AgentName::of_command(&command.name), declared)
    });
    let agents = settings.agents.iter().map(|agent| {
        let declared = Declared { program: program(&agent.program, &agent.args), timeout: agent.timeout };
        (AgentName::of_agent(&agent.name), declared)
    });
    commands.chain(agents).collect()
}
