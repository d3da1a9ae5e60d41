//! Runs: one execution of a declared program each, told as a gap-free sequence of events.
//!
//! Whoever has a run's bare id finds it from any runtime. The pointer says where it is; the record and the events stay with
//! its owner (contract, *Runs*).

mod event;

use std::fmt;
use std::str::FromStr;

use smol_str::SmolStr;
use ulid::Ulid;

use crate::domain::id::{self, RuntimeId, Segment};
use crate::domain::time::{Millis, Wall};

pub use event::{EVENT_BYTES_MAX, Event, Kind, UnknownKind};

/// What stands before the ULID of a run's id.
const PREFIX: &str = "run_";

/// What stands before a command's name in the agent name of its runs (DESIGN, *The project folder*).
const COMMAND_PREFIX: &str = "cmd.";

/// Longest instance in bytes: room for a path of names, little enough for an index.
pub const INSTANCE_BYTES_MAX: usize = 256;

/// A run's name over the whole mesh: `run_` and a ULID, so that names sort by their start (contract, RR-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(Ulid);

impl RunId {
    /// Makes a name from the wall clock and 80 random bits.
    pub fn new(now: Wall, random: [u8; 10]) -> Self {
        let mut wide = [0; 16];
        if let Some(tail) = wide.last_chunk_mut::<10>() {
            *tail = random;
        }
        Self(Ulid::from_parts(now.as_millis(), u128::from_be_bytes(wide)))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}{}", self.0)
    }
}

/// A text that names no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted run_ and a ULID of 26 upper-case characters")]
pub struct NotARunId;

impl FromStr for RunId {
    type Err = NotARunId;

    fn from_str(text: &str) -> Result<Self, NotARunId> {
        let tail = text.strip_prefix(PREFIX).ok_or(NotARunId)?;
        let id = Ulid::from_string(tail).map_err(|_any_fault| NotARunId)?;
        if id.to_string() == tail { Ok(Self(id)) } else { Err(NotARunId) }
    }
}

/// What a run executes: a declared agent, or a command as `cmd.<command>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName(SmolStr);

impl AgentName {
    /// The name under which the runs of a command stand.
    pub fn of_command(command: &Segment) -> Self {
        Self(format!("{COMMAND_PREFIX}{command}").into())
    }

    /// The name of a declared agent.
    pub fn of_agent(name: &Segment) -> Self {
        Self(name.as_str().into())
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The command whose runs these are, if they are a command's.
    pub fn command(&self) -> Option<&str> {
        self.0.strip_prefix(COMMAND_PREFIX)
    }
}

impl FromStr for AgentName {
    type Err = id::Error;

    fn from_str(text: &str) -> Result<Self, id::Error> {
        let name: Segment = text.strip_prefix(COMMAND_PREFIX).unwrap_or(text).parse()?;
        let is_command = text.starts_with(COMMAND_PREFIX);
        Ok(if is_command { Self::of_command(&name) } else { Self::of_agent(&name) })
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for AgentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, formatter)
    }
}

/// Which instance of an agent a run belongs to, as the caller names it: 1 to 256 bytes of any text that is not blank and has
/// no control character.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(SmolStr);

/// Why a text names no instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnInstance {
    /// Nothing but blanks.
    #[error("wanted an instance, got nothing")]
    Blank,
    /// Longer than an instance may be.
    #[error("wanted at most {INSTANCE_BYTES_MAX} bytes, got {0}")]
    TooLong(usize),
    /// A character that a reader of a list would not see.
    #[error("wanted no control character, got {0:?}")]
    Control(char),
}

impl Instance {
    /// The instance of a runtime's own runs: those of its commands.
    pub fn of_runtime(name: &Segment) -> Self {
        Self(name.as_str().into())
    }

    /// The instance's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Instance {
    type Err = NotAnInstance;

    fn from_str(text: &str) -> Result<Self, NotAnInstance> {
        if text.len() > INSTANCE_BYTES_MAX {
            return Err(NotAnInstance::TooLong(text.len()));
        }
        match text.chars().find(|it| it.is_control()) {
            Some(control) => Err(NotAnInstance::Control(control)),
            None if text.trim().is_empty() => Err(NotAnInstance::Blank),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, formatter)
    }
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It goes on.
    Active,
    /// It ended as it should.
    Completed,
    /// It ended otherwise: by an error, a time-out, a cancellation, or with its runtime.
    Errored,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Active, Self::Completed, Self::Errored];

    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Errored => "errored",
        }
    }
}

/// How a run ended, as far as everybody may know who knows its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at: Wall,
    /// Whether it ended otherwise than it should.
    pub is_error: bool,
    /// How long it took.
    pub duration: Millis,
}

/// Where a run is and how far: what the registry knows, without payload, result or error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// Which run.
    pub run: RunId,
    /// The runtime that has its record and its events.
    pub owner: RuntimeId,
    /// What it executes.
    pub agent: AgentName,
    /// For which instance.
    pub instance: Instance,
    /// When it began.
    pub started: Wall,
    /// How it ended; absent while it goes on.
    pub end: Option<End>,
}

impl Pointer {
    /// How far it is.
    pub const fn status(&self) -> Status {
        match self.end {
            None => Status::Active,
            Some(End { is_error: true, .. }) => Status::Errored,
            Some(End { is_error: false, .. }) => Status::Completed,
        }
    }

    /// Whether both say the same of what began, however far it is by now.
    pub fn is_of_one_run_with(&self, other: &Self) -> bool {
        let name = |it: &Self| (it.run, it.owner.clone(), it.agent.clone(), it.instance.clone());
        name(self) == name(other)
    }
}

/// A run as its owner keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Where and how far.
    pub pointer: Pointer,
    /// What it brought, as a JSON text; absent where it brought nothing.
    pub result: Option<String>,
    /// What went wrong, as a JSON text; absent where nothing did.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_its_canonical_text_alone() {
        let id = RunId::new(Wall::from_millis(1_469_922_850_259), [1; 10]);
        let text = id.to_string();
        assert_eq!((text.len(), text.parse()), (30, Ok(id)));
        let other = |change: fn(&str) -> String| change(&text).parse::<RunId>();
        for changed in [
            other(str::to_lowercase),
            other(|it| it.replace("run_", "")),
            other(|it| format!("{it}0")),
            other(|it| it.replace("run_0", "run_9")),
            other(|it| format!(" {it}")),
        ] {
            assert_eq!(changed, Err(NotARunId));
        }
        assert!(id < RunId::new(Wall::from_millis(1_469_922_850_260), [0; 10]), "names sort by their start");
    }

    #[test]
    fn instances_are_texts_that_a_reader_sees() {
        for text in ["i1", "Linie 4 / Zelle ä", "漢", "-"] {
            assert_eq!(text.parse::<Instance>().map(|it| it.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("".parse::<Instance>(), Err(NotAnInstance::Blank));
        assert_eq!(" \u{a0} ".parse::<Instance>(), Err(NotAnInstance::Blank));
        assert_eq!("a\0".parse::<Instance>(), Err(NotAnInstance::Control('\0')));
        assert_eq!("ä".repeat(129).parse::<Instance>(), Err(NotAnInstance::TooLong(258)));
    }

    #[test]
    fn the_runs_of_commands_are_told_by_their_prefix() {
        let purge: Segment = "purge".parse().expect("legal");
        let name = AgentName::of_command(&purge);
        assert_eq!((name.as_str(), name.command()), ("cmd.purge", Some("purge")));
        assert_eq!("cmd.purge".parse(), Ok(name));
        assert_eq!("hello".parse::<AgentName>().map(|it| it.command().map(str::to_owned)), Ok(None));
        assert!("cmd.".parse::<AgentName>().is_err());
        assert!("a b".parse::<AgentName>().is_err());
    }
}
