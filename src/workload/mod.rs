//! The port to programs: what starts them, feeds them, reads them and ends them, whatever they are.
//!
//! Two adapters keep the promises of `contract.rs`: `process` with real processes, each under a guard of its own (`guard`),
//! and `memory` with none. What a program is *for* is known to `supervisor` alone, which keeps the workload.

#[cfg(test)]
mod contract;
mod enter;
mod family;
mod frame;
pub mod guard;
mod health;
mod lines;
pub mod log;
pub mod memory;
pub mod process;
pub mod supervisor;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

pub use lines::{LINE_BYTES_MAX, Line, Lines};

/// Most bytes that a program may be given on standard input: parameters are documents, not files.
pub const INPUT_BYTES_MAX: usize = 1024 * 1024;

/// A boxed future, so that the launcher can be a trait object.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What is to be started. Never a line for a shell.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// The program's file; a relative path counts from the project folder, and no search path is asked.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its variables beside the few that every program gets. They may be secrets.
    pub env: BTreeMap<String, String>,
    /// Its working folder; the project folder where there is none.
    pub dir: Option<PathBuf>,
}

impl fmt::Debug for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.keys().collect();
        let mut shown = formatter.debug_struct("Program");
        shown.field("path", &self.path).field("args", &self.args).field("env", &names).field("dir", &self.dir).finish()
    }
}

/// Starts programs. `contract.rs` says what every adapter must hold.
pub trait Launcher: Send + Sync + fmt::Debug {
    /// Starts a program and gives it the input. It runs once this has an answer; dropped before, nothing is left running.
    fn start(&self, program: Program, input: Vec<u8>) -> Pending<'_, Result<Process, StartError>>;
}

/// A program that runs.
#[derive(Debug)]
pub struct Process {
    /// Its number, which is that of its process group too.
    pub pid: u32,
    /// What it writes. Whoever reads slowly holds it up; whoever drops this lets its writes fail.
    pub stdout: Output,
    /// The same for standard error.
    pub stderr: Output,
    /// Sends it signals, and ends it when the last copy is dropped.
    pub control: Control,
    /// How it ended.
    pub ended: Ended,
}

/// One of a program's two streams.
pub struct Output(Pin<Box<dyn AsyncRead + Send>>);

impl Output {
    /// Any stream of bytes.
    pub fn new(stream: impl AsyncRead + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.0.as_mut().poll_read(context, buffer)
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Output(..)")
    }
}

/// Resolves once the program has ended and nothing of what it started is left.
pub struct Ended(Pending<'static, Exit>);

impl Ended {
    pub(crate) fn new(ended: impl Future<Output = Exit> + Send + 'static) -> Self {
        Self(Box::pin(ended))
    }
}

impl Future for Ended {
    type Output = Exit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Exit> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Ended(..)")
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this number.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Its guard was ended from outside; how the program ended is not known, only that it did.
    Lost,
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "ended with {code}"),
            Self::Signal(signal) => write!(formatter, "ended by signal {signal}"),
            Self::Lost => formatter.write_str("ended together with its guard, which something outside ended"),
        }
    }
}

/// What can be asked of a running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// SIGTERM to its process group. A suspended program goes on, or it could not obey.
    Terminate,
    /// SIGKILL to all of its family.
    Kill,
    /// SIGSTOP to all of its family.
    Stop,
    /// SIGCONT to all of its family.
    Resume,
    /// SIGHUP to the program alone: its children need not know what that means.
    HangUp,
}

/// Carries orders to a program.
pub(crate) trait Orders: Send + Sync + fmt::Debug {
    /// Never waits; an order to a program that has ended is lost.
    fn give(&self, order: Order);
}

/// A handle on a running program. It lives no longer than the last copy of this.
#[derive(Debug, Clone)]
pub struct Control(Arc<dyn Orders>);

impl Control {
    pub(crate) fn new(orders: impl Orders + 'static) -> Self {
        Self(Arc::new(orders))
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.0.give(Order::Terminate);
    }

    /// Ends it.
    pub fn kill(&self) {
        self.0.give(Order::Kill);
    }

    /// Suspends it.
    pub fn stop(&self) {
        self.0.give(Order::Stop);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.0.give(Order::Resume);
    }

    /// Asks it to read its files again.
    pub fn hang_up(&self) {
        self.0.give(Order::HangUp);
    }
}

/// Why a program was not started, with what helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// No file.
    #[error("{} is not there: put the program there or give its full path, no search path is asked", path.display())]
    Missing {
        /// The program.
        path: PathBuf,
    },
    /// A folder.
    #[error("{} is a folder: name the program in it", path.display())]
    Folder {
        /// The program.
        path: PathBuf,
    },
    /// No permission.
    #[error(
        "{} may not be executed: make it executable (chmod +x), and check the folders above it and that its file system \
         is not mounted noexec",
        path.display()
    )]
    NotExecutable {
        /// The program.
        path: PathBuf,
    },
    /// Neither a binary nor a script.
    #[error("{} is no program for this machine: a script begins with a line such as #!/bin/sh", path.display())]
    Format {
        /// The program.
        path: PathBuf,
    },
    /// The file is there and what would run it is not.
    #[error("{} names an interpreter that is not there: correct its first line, or install it", path.display())]
    Interpreter {
        /// The program.
        path: PathBuf,
    },
    /// No working folder.
    #[error("the working folder {} is not there or is no folder: make it, or name another", dir.display())]
    NoWorkingFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// The system refused for a reason of its own.
    #[error("{} was not started: {reason}", path.display())]
    System {
        /// The program.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// There is no guard, and so there is no program.
    #[error("{} was not started, because its guard was not: {reason}", path.display())]
    Guard {
        /// The program.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The input is beyond the limit.
    #[error("an input of {bytes} bytes is more than a program is given, {INPUT_BYTES_MAX}: shorten the parameters")]
    InputTooLarge {
        /// How long it is.
        bytes: usize,
    },
}
