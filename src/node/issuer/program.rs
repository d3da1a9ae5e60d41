//! A program with an input, an output and an end: its own or the one that it is given.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use super::Program;
use crate::domain::time::Millis;
use crate::node::clock::Clock;

/// Most that is read of either output, in bytes.
const OUTPUT_BYTES_MAX: u64 = 256 * 1_024;
/// How often it is asked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a program that was killed may take to be gone, unless the system holds it.
const GONE_MAX: Duration = Duration::from_secs(1);

/// What an ended program has said.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) is_success: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Why there is no output.
#[derive(Debug)]
pub(super) enum Failed {
    /// The system did not start it, or lost it.
    System(io::Error),
    /// It took too long and was killed. It is given where it is still there: the system holds it in a call without end.
    Hangs(Option<Child>),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Runs it with nothing of this process but the input. Returns in its time, whatever it does.
pub(super) fn run(program: &Program, input: Vec<u8>) -> Result<Output, Failed> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // Threads of their own, which end with the pipes: neither a full nor an empty pipe keeps the clock from being looked at.
    let stdin = child.stdin.take();
    thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let Some(is_success) = wait(&mut child, program.time)? else {
        child.kill()?;
        return Err(Failed::Hangs(wait(&mut child, GONE_MAX)?.is_none().then_some(child)));
    };
    let read = |from: Receiver<Vec<u8>>| from.recv_timeout(GONE_MAX).unwrap_or_default();
    Ok(Output { is_success, stdout: read(stdout), stderr: read(stderr) })
}

/// Whether it has ended by now.
pub(super) fn ended(child: &mut Child) -> Option<()> {
    child.try_wait().ok().flatten().map(drop)
}

/// Whether it succeeded; nothing while it goes on.
fn wait(child: &mut Child, most: Duration) -> io::Result<Option<bool>> {
    let clock = Clock::start();
    let start = clock.now().monotonic;
    let most = Millis(u64::try_from(most.as_millis()).unwrap_or(u64::MAX));
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if most <= clock.now().monotonic.since(start) {
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn drain(from: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until a fault is what there is.
        drop(from.map(|from| from.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)));
        sender.send(bytes)
    });
    receiver
}
