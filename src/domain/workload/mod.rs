//! The workload, the one program that a node keeps running: the words for its life, and how it does.
//!
//! What happens next is decided in `life`; who performs it is `workload::supervisor`.

mod life;

use std::fmt;

use crate::domain::envelope::Health as NodeHealth;
use crate::domain::time::Wall;

pub use life::{Life, PAUSE_FIRST, PAUSE_MAX, SHUTDOWN_MAX, STEADY_AFTER, STOP_MAX};

/// Where the workload is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing runs, and nothing will by itself.
    Stopped,
    /// Being started.
    Starting,
    /// It runs.
    Running,
    /// It is suspended.
    Paused,
    /// It was asked to end.
    Stopping,
    /// It failed, and is started again in a while.
    BackingOff,
    /// It failed, and is not started again by itself.
    Failed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Stopped, Self::Starting, Self::Running, Self::Paused, Self::Stopping, Self::BackingOff, Self::Failed];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::BackingOff => "backing_off",
            Self::Failed => "failed",
        }
    }
}

/// When it is started again after it ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Whenever.
    Always,
    /// Never.
    Never,
    /// When it failed.
    OnFailure,
}

/// What can be asked of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Run.
    Start,
    /// End, and stay so.
    Stop,
    /// End and run again.
    Restart,
    /// Be suspended.
    Pause,
    /// Go on.
    Resume,
    /// Read your files again.
    Reload,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Start, Self::Stop, Self::Restart, Self::Pause, Self::Resume, Self::Reload];

    /// The word for it, which is the name of its command.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reload => "reload",
        }
    }
}

/// How a program went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It said that all is well.
    Success,
    /// Anything else, a start that failed included.
    Failure,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The program runs.
    Started,
    /// It has ended, or could not be started.
    Ended(End),
    /// The deadline may have come.
    Timer,
    /// The node stops: the program ends soon, and nothing starts any more.
    Shutdown,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start the program.
    Launch,
    /// Ask it to end.
    Terminate,
    /// End it.
    Kill,
    /// Suspend it.
    Suspend,
    /// Let it go on.
    Continue,
    /// Ask it to read its files again.
    HangUp,
}

/// Why a verb cannot be carried out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It makes no sense in this state.
    #[error("the workload is {}: {} needs one that {needs}", state.as_str(), verb.as_str())]
    NotNow {
        /// What was asked.
        verb: Verb,
        /// Where the workload is.
        state: State,
        /// What state it would take.
        needs: &'static str,
    },
    /// The node stops.
    #[error("the node is stopping")]
    NodeStops,
}

/// How the workload does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Where it is in its life.
    pub state: State,
    /// The program's number while there is one.
    pub pid: Option<u32>,
    /// Since when it is in this state.
    pub since: Wall,
    /// How often it was started again by itself since the node started.
    pub restarts: u64,
    /// How the program before ended, or why it did not start.
    pub last_exit: Option<String>,
    /// When it is started again.
    pub next_attempt: Option<Wall>,
    /// What its health check says.
    pub health: Health,
}

/// What the health check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nobody asked yet, or there is no check.
    Unchecked,
    /// Well.
    Healthy,
    /// Not well.
    Failing {
        /// How often in a row.
        times: u32,
        /// What it said.
        reason: String,
    },
}

/// The short form of it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// As it should be.
    Ok,
    /// Somebody should look.
    Degraded,
    /// The work is not done.
    Faulted,
}

/// Failed checks in a row after which the workload counts as faulted.
const FAULTED_AFTER: u32 = 3;

impl Condition {
    /// The health of a node whose own is this.
    pub const fn worsen(self, own: NodeHealth) -> NodeHealth {
        match (self, own) {
            (Self::Faulted, _) | (_, NodeHealth::Faulted) => NodeHealth::Faulted,
            (Self::Degraded, _) | (_, NodeHealth::Degraded) => NodeHealth::Degraded,
            (Self::Ok, NodeHealth::Healthy) => NodeHealth::Healthy,
        }
    }
}

impl Status {
    /// What to think of it. A workload that was stopped, or that has done its work, is as it should be.
    pub const fn condition(&self) -> Condition {
        match (self.state, &self.health) {
            (State::Failed, _) => Condition::Faulted,
            (State::Running, Health::Failing { times, .. }) if FAULTED_AFTER <= *times => Condition::Faulted,
            (State::Running, Health::Failing { .. })
            | (State::Starting | State::Stopping | State::Paused | State::BackingOff, _) => Condition::Degraded,
            (State::Running, Health::Healthy | Health::Unchecked) | (State::Stopped, _) => Condition::Ok,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.state.as_str())?;
        if let Some(pid) = self.pid {
            write!(formatter, " as process {pid}")?;
        }
        write!(formatter, ", {} restarts", self.restarts)?;
        if let Some(last) = &self.last_exit {
            write!(formatter, ", before: {last}")?;
        }
        match &self.health {
            Health::Unchecked => Ok(()),
            Health::Healthy => formatter.write_str(", healthy"),
            Health::Failing { times, reason } => write!(formatter, ", {times} failed checks in a row: {reason}"),
        }
    }
}
