//! The guard: a small process between the node and one program, so that nothing of the program outlives either of them.
//!
//! It is this binary again, started by the node with one end of a socket as its standard input. It is the subreaper of all that
//! the program starts: who forks twice and changes the session still ends up here. When the program ends, it ends what is left
//! and only then reports. When the socket closes, the node is gone, even by kill -9, and it ends everything. When it is killed
//! itself, the kernel kills the program (`enter`) and the node its process group (`process`).

use std::ffi::OsString;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal as Kind, WaitStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::workload::family::Seen;
use crate::workload::frame::{Launch, Refusal, Report};
use crate::workload::{Exit, Order, enter, family};

/// How soon a family that was sent the signal is looked at again: it takes effect when each is run next.
const SOONEST_LOOK: Duration = Duration::from_millis(1);

/// How long at most between two looks, for those that wait in the kernel for a device and cannot be suspended until then.
const LATEST_LOOK: Duration = Duration::from_secs(1);

/// The first argument of a guard. Not a command for people, and in no help.
pub(super) const GUARD: &str = "__guard";

/// The first argument of the stage between guard and program.
const ENTER: &str = "__enter";

/// What processes of this binary are called in a list of processes.
pub(super) const SHOWN_NAME: &str = "trust-runtime";

/// This very binary, even if its file was replaced meanwhile.
const SELF: &str = "/proc/self/exe";

/// Runs as guard or as the stage after it, if the arguments say so. To be asked before anything else in `main`.
pub fn stage(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    let first = arguments.next()?;
    if first == ENTER {
        return Some(enter::run(arguments));
    }
    (first == GUARD).then(|| match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started it by hand sees why nothing happens; the node does not read it.
            drop(io::Write::write_fmt(&mut io::stderr(), format_args!("only a node starts a guard: {error}\n")));
            ExitCode::from(2)
        }
    })
}

fn run() -> io::Result<()> {
    // One thread: the program's bond to its parent is one to the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let socket = std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        socket.set_nonblocking(true)?;
        let (control, reports) = UnixStream::from_std(socket)?.into_split();
        let guard = Guard { control, reports, children: signal(SignalKind::child())?, suspension: None };
        // Held and never read: what is meant for the terminal's or the service's processes is the node's to decide.
        let _held = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()]
            .map(signal)
            .into_iter()
            .collect::<io::Result<Vec<_>>>()?;
        // No terminal, and no part in the node's own group. Fails only for who leads a group already, which is as good.
        rustix::process::setsid().ok();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        guard.watch().await;
        Ok(())
    })
}

/// The program while it is guarded.
struct Guarded {
    pid: Pid,
    input: Option<Sender>,
}

struct Guard {
    control: OwnedReadHalf,
    reports: OwnedWriteHalf,
    children: Signal,
    suspension: Option<Suspending>,
}

/// That the program's family is suspended, or about to be.
#[derive(Default)]
struct Suspending {
    family: family::Suspension,
    /// The pause before the next look, which grows while nobody new appears.
    pause: Duration,
    /// When the next look is due; never once all of it is suspended.
    due: Option<Instant>,
}

impl Suspending {
    fn look(&mut self) {
        let seen = self.family.look();
        self.note(seen);
    }

    /// When the next look is due after this one.
    fn note(&mut self, seen: Seen) {
        self.pause = match seen {
            // Who starts others all the time would be ahead of looks that become rare.
            Seen::Growing => SOONEST_LOOK,
            Seen::Settling | Seen::Still => self.pause.saturating_mul(2).clamp(SOONEST_LOOK, LATEST_LOOK),
        };
        self.due = if seen == Seen::Still { None } else { Instant::now().checked_add(self.pause) };
    }

    /// Waits for the next look, if there is to be one.
    async fn due(this: Option<&mut Self>) -> &mut Self {
        match this {
            Some(suspending) => {
                match suspending.due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
                suspending
            }
            None => std::future::pending().await,
        }
    }
}

impl Guard {
    /// From the frame to the report of the end.
    async fn watch(mut self) {
        let Some(launch) = Launch::read(&mut self.control).await else { return };
        let (guarded, status) = match self.launch(&launch).await {
            Ok(started) => started,
            Err(refusal) => {
                family::end();
                return self.report(Report::Refused(refusal)).await;
            }
        };
        self.report(Report::Started(guarded.pid.as_raw_nonzero().get().unsigned_abs())).await;
        let ended = match status {
            Some(status) => Some(status),
            None => self.attend(guarded, launch.input).await,
        };
        family::end();
        if let Some(status) = ended {
            self.report(Report::Ended(exit(status))).await;
        }
    }

    /// A node that is gone hears nothing; the next read finds that out.
    async fn report(&mut self, report: Report) {
        drop(self.reports.write_all(report.to_line().as_bytes()).await);
    }

    /// Starts the program and waits until it has begun, or has even ended.
    async fn launch(&mut self, launch: &Launch) -> Result<(Guarded, Option<WaitStatus>), Refusal> {
        match std::fs::metadata(&launch.program) {
            Ok(file) if file.is_dir() => return Err(Refusal::Folder),
            Ok(file) if file.is_file() && !may_be_a_program(&launch.program) => {
                return Err(Refusal::System(rustix::io::Errno::NOEXEC.raw_os_error()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Refusal::Missing),
            Ok(_) | Err(_) => {}
        }
        if !std::fs::metadata(&launch.dir).is_ok_and(|dir| dir.is_dir()) {
            return Err(Refusal::NoWorkingFolder);
        }
        let (guarded, begun, writer) = spawn(launch).map_err(system)?;
        let status = self.begun(guarded.pid, begun, writer).await?;
        // What the program writes ends with its family: this process must not hold it open.
        let_go_of_output().map_err(system)?;
        Ok((guarded, status))
    }

    /// Waits until the second stage has become the program. Gives its end, if it has ended already.
    async fn begun(
        &mut self,
        program: Pid,
        mut begun: Receiver,
        writer: PipeWriter,
    ) -> Result<Option<WaitStatus>, Refusal> {
        // Open for as long as the second stage may still have to open it.
        let mut writer = Some(writer);
        let mut said = Vec::new();
        let mut status = None;
        let mut nothing = [0];
        loop {
            tokio::select! {
                biased;
                read = begun.read_buf(&mut said) => match read {
                    Ok(1..) => drop(writer.take()),
                    Ok(0) | Err(_) => break,
                },
                read = self.control.read(&mut nothing), if status.is_none() => {
                    if matches!(read, Ok(0) | Err(_)) {
                        return Err(Refusal::System(rustix::io::Errno::PIPE.raw_os_error()));
                    }
                }
                _ = self.children.recv(), if status.is_none() => {
                    status = ended(program);
                    if status.is_some() {
                        drop(writer.take());
                    }
                }
            }
        }
        match said.strip_prefix(&[enter::BEGUN]) {
            Some([]) => Ok(status),
            Some(number) => Err(Refusal::System(String::from_utf8_lossy(number).parse().unwrap_or_default())),
            None => Err(Refusal::System(0)),
        }
    }

    /// Feeds the program and passes orders on until it has ended, and then gives how; nothing if the node is gone.
    async fn attend(&mut self, mut guarded: Guarded, input: Vec<u8>) -> Option<WaitStatus> {
        let mut feed = guarded.input.take();
        let mut fed = 0_usize;
        loop {
            let rest = input.get(fed..).unwrap_or_default();
            tokio::select! {
                order = self.control.read_u8() => match order {
                    Ok(order) => self.obey(Order::from_byte(order)?, guarded.pid),
                    Err(_gone) => return None,
                },
                _ = self.children.recv() => {
                    if let Some(status) = ended(guarded.pid) {
                        return Some(status);
                    }
                }
                suspending = Suspending::due(self.suspension.as_mut()) => suspending.look(),
                written = write_some(&mut feed, rest), if feed.is_some() => {
                    fed = fed.saturating_add(written);
                    // All was written, or the program reads no more.
                    if written == 0 || input.len() <= fed {
                        feed = None;
                    }
                }
            }
        }
    }

    fn obey(&mut self, order: Order, program: Pid) {
        match order {
            Order::Terminate => {
                rustix::process::kill_process_group(program, Kind::TERM).ok();
                if self.suspension.take().is_some() {
                    family::signal(Kind::CONT);
                }
            }
            Order::Kill => family::signal(Kind::KILL),
            Order::Stop => {
                self.suspension.get_or_insert_default().look();
            }
            Order::Resume => {
                self.suspension = None;
                family::signal(Kind::CONT);
            }
            Order::HangUp => {
                rustix::process::kill_process(program, Kind::HUP).ok();
            }
        }
    }
}

/// Whether the file begins as a binary or a script does. What the kernel refuses, the C library would hand to a shell.
fn may_be_a_program(path: &Path) -> bool {
    // A program that may be executed and not read is left to the kernel.
    let Ok(mut file) = std::fs::File::open(path) else { return true };
    let mut head = [0; 4];
    let length = io::Read::read(&mut file, &mut head).unwrap_or_default();
    head.get(..length).is_some_and(|head| head.starts_with(b"#!") || head == b"\x7fELF")
}

async fn write_some(feed: &mut Option<Sender>, bytes: &[u8]) -> usize {
    match feed {
        Some(feed) if !bytes.is_empty() => feed.write(bytes).await.unwrap_or_default(),
        Some(_) | None => 0,
    }
}

/// Starts the second stage, in a group of its own.
fn spawn(launch: &Launch) -> io::Result<(Guarded, Receiver, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(SELF);
    command.arg0(SHOWN_NAME).arg(ENTER).arg(std::process::id().to_string()).arg(writer.as_raw_fd().to_string());
    command.arg(&launch.program).args(&launch.args);
    command.env_clear().envs(launch.env.iter().map(|(name, value)| (name, value)));
    command.current_dir(&launch.dir).process_group(0).stdin(Stdio::piped());
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let input = child.stdin.take().map(|input| Sender::from_owned_fd(input.into())).transpose()?;
    Ok((Guarded { pid, input }, Receiver::from_owned_fd(reader.into())?, writer))
}

fn let_go_of_output() -> io::Result<()> {
    let nothing = OwnedFd::from(std::fs::File::options().write(true).open("/dev/null")?);
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    Ok(())
}

/// Takes note of everybody who has ended, and gives how the program did, if it was among them.
fn ended(program: Pid) -> Option<WaitStatus> {
    let mut found = None;
    family::reap(|pid, status| {
        if pid == program {
            found = Some(status);
        }
    });
    found
}

fn exit(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Lost,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as a function for map_err")]
fn system(error: io::Error) -> Refusal {
    Refusal::System(error.raw_os_error().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_rare_while_nobody_new_appears_and_frequent_again_when_somebody_does() {
        let mut suspending = Suspending::default();
        let mut after = |seen| {
            suspending.note(seen);
            suspending.due.is_some().then_some(suspending.pause)
        };
        let settling: Vec<_> = (0..12).map(|_| after(Seen::Settling).expect("one more")).collect();
        assert_eq!(settling.first(), Some(&SOONEST_LOOK));
        assert!(settling.windows(2).all(|two| two[1] == LATEST_LOOK.min(two[0] * 2)), "{settling:?}");
        assert_eq!(settling.last(), Some(&LATEST_LOOK));
        assert_eq!([after(Seen::Growing), after(Seen::Growing)], [Some(SOONEST_LOOK); 2]);
        assert_eq!(after(Seen::Settling), Some(SOONEST_LOOK * 2));
        assert_eq!(after(Seen::Still), None);
    }
}
