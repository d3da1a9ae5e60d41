//! A launcher without processes, for tests of what stands above: programs are scripts under a path.
//!
//! It keeps the promises of `contract.rs`. Its own sides are a count of starts, and of programs that run at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};

use crate::workload::{
    Control, Ended, Exit, INPUT_BYTES_MAX, Launcher, Order, Orders, Output, Pending, Process, Program, StartError,
};

/// What a stream holds that nobody reads: as much as a pipe of the kernel.
const STREAM_BYTES_MAX: usize = 64 * 1024;

/// Orders that wait; a program takes them at once.
const ORDERS_MAX: usize = 16;

/// How often a script that counts says the next number.
const COUNT_PAUSE: Duration = Duration::from_millis(5);

/// What a program without a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Ends at once with this number.
    Ends(i32),
    /// Writes its input to standard output.
    Echoes,
    /// The same, and a process that nobody ends holds both streams from then on.
    LeavesHolder,
    /// Writes a line to either stream.
    SaysBoth,
    /// Says that it is ready and waits for a signal.
    Waits,
    /// The same, and SIGTERM does not impress it.
    IsStubborn,
    /// Writes so many bytes.
    Talks(usize),
    /// Counts, a line for each number.
    Counts,
}

/// The launcher and its programs. Copies share them.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    programs: Mutex<BTreeMap<PathBuf, Script>>,
    starts: AtomicUsize,
    running: AtomicUsize,
    running_most: AtomicUsize,
}

impl Memory {
    /// Puts a program there, in place of an earlier one.
    pub fn put(&self, path: impl Into<PathBuf>, script: Script) {
        self.0.programs.lock().unwrap_or_else(PoisonError::into_inner).insert(path.into(), script);
    }

    /// How many programs were started.
    pub fn starts(&self) -> usize {
        self.0.starts.load(Ordering::SeqCst)
    }

    /// How many run now.
    pub fn running(&self) -> usize {
        self.0.running.load(Ordering::SeqCst)
    }

    /// How many ever ran at the same time.
    pub fn running_most(&self) -> usize {
        self.0.running_most.load(Ordering::SeqCst)
    }

    fn begin(&self, program: Program, input: Vec<u8>) -> Result<Process, StartError> {
        if INPUT_BYTES_MAX < input.len() {
            return Err(StartError::InputTooLarge { bytes: input.len() });
        }
        let found = self.0.programs.lock().unwrap_or_else(PoisonError::into_inner).get(&program.path).copied();
        let script = found.ok_or(StartError::Missing { path: program.path })?;
        let number = self.0.starts.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let running = self.0.running.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        self.0.running_most.fetch_max(running, Ordering::SeqCst);
        let (stdout, out) = tokio::io::duplex(STREAM_BYTES_MAX);
        let (stderr, err) = tokio::io::duplex(STREAM_BYTES_MAX);
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let (end, ended) = oneshot::channel();
        let shared = Arc::clone(&self.0);
        tokio::runtime::Handle::current().spawn(async move {
            let exit = live(script, input, out, err, taken).await;
            shared.running.fetch_sub(1, Ordering::SeqCst);
            // Nobody may be waiting.
            end.send(exit).ok();
        });
        Ok(Process {
            pid: u32::try_from(number).unwrap_or(u32::MAX),
            stdout: Output::new(stdout),
            stderr: Output::new(stderr),
            control: Control::new(Queue(orders)),
            ended: Ended::new(async move { ended.await.unwrap_or(Exit::Lost) }),
        })
    }
}

impl Launcher for Memory {
    fn start(&self, program: Program, input: Vec<u8>) -> Pending<'_, Result<Process, StartError>> {
        Box::pin(async move { self.begin(program, input) })
    }
}

#[derive(Debug)]
struct Queue(mpsc::Sender<Order>);

impl Orders for Queue {
    fn give(&self, order: Order) {
        self.0.try_send(order).ok();
    }
}

/// Plays the script until it ends, or a signal ends it.
async fn live(
    script: Script,
    input: Vec<u8>,
    out: DuplexStream,
    err: DuplexStream,
    mut orders: mpsc::Receiver<Order>,
) -> Exit {
    let acting = act(script, input, out, err);
    tokio::pin!(acting);
    let mut is_suspended = false;
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Terminate) if script == Script::IsStubborn => is_suspended = false,
                Some(Order::Terminate) => return Exit::Signal(15),
                Some(Order::Kill) | None => return Exit::Signal(9),
                Some(Order::HangUp) => return Exit::Signal(1),
                Some(Order::Stop) => is_suspended = true,
                Some(Order::Resume) => is_suspended = false,
            },
            code = &mut acting, if !is_suspended => return Exit::Code(code),
        }
    }
}

async fn act(script: Script, input: Vec<u8>, mut out: DuplexStream, mut err: DuplexStream) -> i32 {
    match script {
        Script::Ends(code) => code,
        Script::Echoes => write(&mut out, &input).await,
        Script::LeavesHolder => {
            let code = write(&mut out, &input).await;
            tokio::runtime::Handle::current().spawn(async move {
                let _held = (out, err);
                std::future::pending::<()>().await;
            });
            code
        }
        Script::SaysBoth => write(&mut out, b"out\n").await.max(write(&mut err, b"err\n").await),
        Script::Waits | Script::IsStubborn => {
            write(&mut out, b"ready\n").await;
            std::future::pending().await
        }
        Script::Talks(bytes) => write(&mut out, &vec![b'x'; bytes]).await,
        Script::Counts => {
            for number in 1_u64.. {
                write(&mut out, format!("{number}\n").as_bytes()).await;
                tokio::time::sleep(COUNT_PAUSE).await;
            }
            0
        }
    }
}

/// Like a program whose reader is gone, it fails then.
async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> i32 {
    i32::from(stream.write_all(bytes).await.is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::contract::{Rig, holds};

    struct Scripts(Memory);

    impl Rig for Scripts {
        fn new() -> Self {
            Self(Memory::default())
        }

        fn launcher(&self) -> Arc<dyn Launcher> {
            Arc::new(self.0.clone())
        }

        fn program(&self, script: Script) -> Program {
            let path = PathBuf::from(format!("{script:?}"));
            self.0.put(&path, script);
            Program { path, ..Program::default() }
        }

        fn missing(&self) -> Program {
            Program { path: "missing".into(), ..Program::default() }
        }

        fn is_running(&self, _pid: u32) -> bool {
            self.0.running() > 0
        }
    }

    holds!(super::Scripts);
}
