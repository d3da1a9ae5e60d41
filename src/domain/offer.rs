//! What a runtime offers to do: its commands and agents, as its file declares them, and as others know them.

use std::collections::BTreeMap;

use crate::domain::id::Segment;
use crate::domain::identity::Role;
use crate::domain::run::AgentName;

/// Commands that act on the workload (DESIGN, *The project folder*).
pub const WORKLOAD_COMMANDS: [&str; 6] = ["pause", "reload", "restart", "resume", "start", "stop"];

/// Commands that every runtime has: no declared one may take their names.
pub const BUILT_IN_COMMANDS: [&str; 8] = ["cancel", "pause", "ping", "reload", "restart", "resume", "start", "stop"];

/// Most declared commands, and most agents: far above what a person writes, so that an identity document holds their names.
pub const DECLARED_MAX: usize = 100;

/// What a capability says of a command before its name.
const COMMAND: &str = "cmd_invoke/";

/// What a runtime's own file lets it do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Whether there is a workload to act on.
    pub has_workload: bool,
    /// The declared commands, each with the least role that may invoke it.
    pub commands: BTreeMap<Segment, Role>,
    /// The declared agents.
    pub agents: BTreeMap<Segment, Agent>,
}

/// A declared agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    /// The least role that may start a run of it.
    pub role: Role,
    /// Whether it may be started over HTTP.
    pub webhook: bool,
}

impl Offer {
    /// What the identity document says of it, sorted.
    pub fn capabilities(&self) -> Vec<String> {
        let mut all: Vec<String> = ["cfg_apply", "status_read"].map(str::to_owned).into();
        all.extend(["cancel", "ping"].map(|name| format!("{COMMAND}{name}")));
        if self.has_workload {
            all.extend(WORKLOAD_COMMANDS.map(|name| format!("{COMMAND}{name}")));
        }
        all.extend(self.commands.keys().map(|name| format!("{COMMAND}{name}")));
        all.extend(self.agents.keys().map(|name| format!("agent/{name}")));
        all.sort_unstable();
        all
    }

    /// The least role that may start runs of this name. What is not declared any more takes what most programs take.
    pub fn role_to_start(&self, agent: &AgentName) -> Role {
        let declared = match agent.command() {
            Some(name) => self.commands.iter().find(|(it, _)| it.as_str() == name).map(|(_, role)| *role),
            None => self.agents.iter().find(|(it, _)| it.as_str() == agent.as_str()).map(|(_, it)| it.role),
        };
        declared.unwrap_or(Role::Operator)
    }
}

/// What is known of the commands of the runtime that is asked.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// All of it: it is the own runtime.
    Own(&'a Offer),
    /// What it says in its identity document.
    Said(&'a [String]),
    /// Nothing yet.
    Nothing,
}

impl Known<'_> {
    /// Whether it has this command; absent where that is not known.
    pub fn has_command(self, name: &Segment) -> Option<bool> {
        if matches!(name.as_str(), "cancel" | "ping") {
            return Some(true);
        }
        match self {
            Self::Own(offer) => Some(match name.as_str() {
                text if WORKLOAD_COMMANDS.contains(&text) => offer.has_workload,
                _ => offer.commands.contains_key(name),
            }),
            Self::Said(capabilities) => {
                Some(capabilities.iter().any(|it| it.strip_prefix(COMMAND) == Some(name.as_str())))
            }
            Self::Nothing => None,
        }
    }

    /// The least role that its file asks for; absent where only the runtime itself knows it.
    pub fn role_for(self, name: &Segment) -> Option<Role> {
        match self {
            Self::Own(offer) => offer.commands.get(name).copied(),
            Self::Said(_) | Self::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        let name = |text: &str| text.parse::<Segment>().expect("legal");
        Offer {
            has_workload: false,
            commands: [(name("purge"), Role::Engineer)].into(),
            agents: [(name("hello"), Agent { role: Role::Operator, webhook: true })].into(),
        }
    }

    #[test]
    fn what_is_said_of_an_offer_is_what_is_known_of_it() {
        for has_workload in [false, true] {
            let offer = Offer { has_workload, ..offer() };
            let said = offer.capabilities();
            assert!(said.is_sorted() && said.contains(&"agent/hello".to_owned()));
            for name in ["purge", "ping", "cancel", "restart", "stop", "hello", "other"] {
                let name: Segment = name.parse().expect("legal");
                let own = Known::Own(&offer).has_command(&name);
                assert_eq!(own, Known::Said(&said).has_command(&name), "{name}");
                let is_everywhere = ["ping", "cancel"].contains(&name.as_str());
                assert_eq!(Known::Nothing.has_command(&name), is_everywhere.then_some(true));
            }
        }
    }

    #[test]
    fn built_in_commands_are_those_of_the_workload_and_two_more() {
        let mut all: Vec<&str> = WORKLOAD_COMMANDS.into_iter().chain(["cancel", "ping"]).collect();
        all.sort_unstable();
        assert_eq!(all, BUILT_IN_COMMANDS);
    }
}
