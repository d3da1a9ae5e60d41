//! The programs that the node may start: the workload, declared commands and agents. Nothing else can be started.

use std::collections::BTreeSet;

use crate::domain::id::Segment;
use crate::domain::offer::{self, BUILT_IN_COMMANDS, DECLARED_MAX, Offer};
use crate::domain::time::Millis;
use crate::settings::problem::Faults;
use crate::settings::raw::Node;
use crate::settings::secret::Secret;
use crate::settings::table::Table;
use crate::settings::valid::{Agent, Command, Settings, Workload};

impl Settings {
    /// What the runtime can be asked to do.
    pub fn offer(&self) -> Offer {
        let agent = |it: &Agent| (it.name.clone(), offer::Agent { role: it.role, webhook: it.webhook });
        Offer {
            has_workload: self.workload.is_some(),
            commands: self.commands.iter().map(|it| (it.name.clone(), it.role)).collect(),
            agents: self.agents.iter().map(agent).collect(),
        }
    }
}

/// Reads `[runtime.workload]`.
pub(crate) fn workload(root: &Node, faults: &mut Faults) -> Option<Workload> {
    let table = Table::of(root, "runtime.workload");
    if !table.is_written() {
        return None;
    }
    if !table.has("program") {
        faults.push(&table.at, table.key("program"), "wanted a path, got nothing");
    }
    let mut env = std::collections::BTreeMap::new();
    for (name, entry) in table.map("env") {
        if name.is_empty() || name.contains(['=', '\0']) {
            faults.push(&entry.key_at, table.key("env"), "wanted a variable's name without '='");
        }
        if let Some(value) = entry.node.value.text() {
            env.insert(name.to_owned(), Secret::new(value));
        }
    }
    Some(Workload {
        program: table.path("program")?,
        args: table.owned_texts("args"),
        env,
        dir: table.path("dir"),
        restart: table.parsed("restart")?,
        health: table.owned_texts("health"),
    })
}

/// Reads `[[runtime.command]]`.
pub(crate) fn commands(root: &Node, faults: &mut Faults) -> Vec<Command> {
    let mut taken = BTreeSet::new();
    let mut commands = Vec::new();
    for entry in Table::of(root, "runtime").list("command") {
        let Some(name) = unique_name(&entry, &mut taken, faults) else { continue };
        if !has_room(&entry, commands.len(), faults) {
            break;
        }
        if BUILT_IN_COMMANDS.contains(&name.as_str()) {
            faults.push(&entry.at("name"), entry.key("name"), format!("{name} is a built-in command"));
        }
        let command = || {
            Some(Command {
                name,
                program: entry.path("program")?,
                args: entry.owned_texts("args"),
                role: entry.parsed("role")?,
                timeout: Millis(entry.number("timeout_ms")),
                effect: entry.parsed("effect")?,
            })
        };
        commands.extend(command());
    }
    commands
}

/// Reads `[[runtime.agent]]`.
pub(crate) fn agents(root: &Node, faults: &mut Faults) -> Vec<Agent> {
    let mut taken = BTreeSet::new();
    let mut agents = Vec::new();
    for entry in Table::of(root, "runtime").list("agent") {
        let Some(name) = unique_name(&entry, &mut taken, faults) else { continue };
        if !has_room(&entry, agents.len(), faults) {
            break;
        }
        // Runs of commands carry this prefix, so an agent with it could be mistaken for one.
        if name.as_str().starts_with("cmd.") {
            faults.push(&entry.at("name"), entry.key("name"), "names that begin with \"cmd.\" are those of commands");
        }
        let agent = || {
            Some(Agent {
                name,
                program: entry.path("program")?,
                args: entry.owned_texts("args"),
                role: entry.parsed("role")?,
                timeout: Millis(entry.number("timeout_ms")),
                effect: entry.parsed("effect")?,
                webhook: entry.flag("webhook"),
            })
        };
        agents.extend(agent());
    }
    agents
}

/// Whether there is room for one more, so that an identity document holds all their names.
fn has_room(entry: &Table<'_>, count: usize, faults: &mut Faults) -> bool {
    if count == DECLARED_MAX {
        faults.push(&entry.at("name"), entry.key("name"), format!("wanted at most {DECLARED_MAX} of these, got more"));
    }
    count < DECLARED_MAX
}

fn unique_name(entry: &Table<'_>, taken: &mut BTreeSet<Segment>, faults: &mut Faults) -> Option<Segment> {
    let name: Segment = entry.parsed("name")?;
    if !taken.insert(name.clone()) {
        faults.push(&entry.at("name"), entry.key("name"), format!("the name {name} is given twice"));
    }
    Some(name)
}
