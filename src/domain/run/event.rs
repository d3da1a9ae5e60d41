//! What happens in a run, one numbered fact after the other.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::domain::time::Wall;

/// Longest event in bytes of its JSON (contract, RR-58).
pub const EVENT_BYTES_MAX: usize = 256 * 1024;

/// The closed set of what an event may be (contract, *Events*).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The context was made shorter.
    Compaction,
    /// The context is being made shorter.
    CompactionStart,
    /// Nothing is under way.
    Idle,
    /// A line for people.
    Log,
    /// An operation ended.
    Operation,
    /// An operation began.
    OperationStart,
    /// The run ended: the last event of each.
    RunEnd,
    /// The run began: the first event of each.
    RunStart,
    /// A task ended.
    Task,
    /// A task began.
    TaskStart,
    /// A piece of text.
    TextDelta,
    /// A piece of a thought.
    ThinkingDelta,
    /// A thought ended.
    ThinkingEnd,
    /// A thought began.
    ThinkingStart,
    /// A tool was called and has answered.
    ToolCall,
    /// A tool is being called.
    ToolStart,
    /// A turn ended.
    Turn,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Compaction,
        Self::CompactionStart,
        Self::Idle,
        Self::Log,
        Self::Operation,
        Self::OperationStart,
        Self::RunEnd,
        Self::RunStart,
        Self::Task,
        Self::TaskStart,
        Self::TextDelta,
        Self::ThinkingDelta,
        Self::ThinkingEnd,
        Self::ThinkingStart,
        Self::ToolCall,
        Self::ToolStart,
        Self::Turn,
    ];

    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compaction => "compaction",
            Self::CompactionStart => "compaction_start",
            Self::Idle => "idle",
            Self::Log => "log",
            Self::Operation => "operation",
            Self::OperationStart => "operation_start",
            Self::RunEnd => "run_end",
            Self::RunStart => "run_start",
            Self::Task => "task",
            Self::TaskStart => "task_start",
            Self::TextDelta => "text_delta",
            Self::ThinkingDelta => "thinking_delta",
            Self::ThinkingEnd => "thinking_end",
            Self::ThinkingStart => "thinking_start",
            Self::ToolCall => "tool_call",
            Self::ToolStart => "tool_start",
            Self::Turn => "turn",
        }
    }

    /// Whether a program may say it of itself: what frames a run, the node alone says (DESIGN, *The project folder*).
    pub const fn may_be_said(self) -> bool {
        !matches!(self, Self::Idle | Self::RunEnd | Self::RunStart)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that names no kind of event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wanted a type of event, got {0:?}")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind(text.chars().take(64).collect()))
    }
}

/// One numbered fact of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place: from 0, without a gap.
    pub index: u64,
    /// What it is.
    pub kind: Kind,
    /// When.
    pub at: Wall,
    /// The whole event as a JSON object on one line, as every reader gets it: at most 256 KiB (contract, RR-58).
    pub body: Arc<str>,
}
