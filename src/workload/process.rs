//! The launcher with real processes: one guard for each program, this binary again (`guard`).

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};

use crate::workload::frame::{Launch, Refusal, Report};
use crate::workload::guard::{GUARD, SHOWN_NAME};
use crate::workload::{
    Control, Ended, Exit, INPUT_BYTES_MAX, Launcher, Order, Orders, Output, Pending, Process, Program, StartError,
};

/// Variables of the node that every program gets too. Nothing else of the node's environment reaches a program: it may hold
/// the node's secrets.
pub const INHERITED: [&str; 4] = ["HOME", "LANG", "PATH", "TZ"];

/// How long a start may take; a file system that hangs must not hold up whoever asked.
const START_MAX: Duration = Duration::from_secs(20);

/// Starts programs of one project folder.
#[derive(Clone)]
pub struct Processes {
    guard: PathBuf,
    folder: PathBuf,
    inherited: Vec<(String, String)>,
}

impl std::fmt::Debug for Processes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Processes").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Processes {
    /// For this project folder, with the node's environment, of which little is handed on.
    pub fn new(folder: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        // The file may be replaced by an update while the node runs; this name stays that of the running program.
        Self::guarded_by(Path::new("/proc/self/exe"), folder, environment)
    }

    /// The same with another file as guard, for programs that are not the node themselves.
    pub fn guarded_by(guard: &Path, folder: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        // A relative path would count from the program's working folder.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let inherited = environment.into_iter().filter(|(name, _)| INHERITED.contains(&name.as_str())).collect();
        Self { guard: guard.to_owned(), folder, inherited }
    }

    fn launch(&self, program: &Program, input: Vec<u8>) -> Launch {
        let declared = program.env.iter();
        let inherited = self.inherited.iter().map(|(name, value)| (name, value));
        let inherited = inherited.filter(|(name, _)| !program.env.contains_key(*name));
        Launch {
            program: self.folder.join(&program.path),
            dir: program.dir.as_ref().map_or_else(|| self.folder.clone(), |dir| self.folder.join(dir)),
            input,
            args: program.args.iter().map(OsString::from).collect(),
            env: inherited.chain(declared).map(|(name, value)| (name.into(), value.into())).collect(),
        }
    }

    async fn begin(&self, launch: Launch) -> Result<Process, StartError> {
        let unguarded =
            |error: io::Error| StartError::Guard { path: launch.program.clone(), reason: error.to_string() };
        let (mut child, socket) = self.spawn().map_err(unguarded)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (reader, mut writer) = socket.into_split();
        let mut reports = BufReader::new(reader);
        // A guard that reads no more has said why, or is gone.
        drop(writer.write_all(&launch.to_frame()).await);
        match Report::read(&mut reports).await {
            Some(Report::Started(pid)) => Ok(Process {
                pid,
                stdout: stdout.map_or_else(|| Output::new(tokio::io::empty()), Output::new),
                stderr: stderr.map_or_else(|| Output::new(tokio::io::empty()), Output::new),
                control: Control::new(Line(writer)),
                ended: Ended::new(ended(reports, child, pid)),
            }),
            Some(Report::Refused(refusal)) => {
                // It is on its way out; waiting for it leaves nothing behind in the list of processes.
                drop(child.wait().await);
                Err(refused(refusal, launch))
            }
            Some(Report::Ended(_)) | None => {
                Err(StartError::Guard { path: launch.program, reason: "it ended at once".to_owned() })
            }
        }
    }

    fn spawn(&self) -> io::Result<(Child, UnixStream)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // The command holds the guard's end of the socket, and has to be gone before its closing can be seen.
        let child = Command::new(&self.guard)
            .arg0(SHOWN_NAME)
            .arg(GUARD)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok((child, UnixStream::from_std(ours)?))
    }
}

impl Launcher for Processes {
    fn start(&self, program: Program, input: Vec<u8>) -> Pending<'_, Result<Process, StartError>> {
        Box::pin(async move {
            if INPUT_BYTES_MAX < input.len() {
                return Err(StartError::InputTooLarge { bytes: input.len() });
            }
            let launch = self.launch(&program, input);
            let path = launch.program.clone();
            match tokio::time::timeout(START_MAX, self.begin(launch)).await {
                Ok(started) => started,
                Err(_elapsed) => {
                    let reason = format!("it took more than {} s", START_MAX.as_secs());
                    Err(StartError::Guard { path, reason })
                }
            }
        })
    }
}

/// The node's end of the socket. Dropped, it closes, and the guard ends everything.
#[derive(Debug)]
struct Line(OwnedWriteHalf);

impl Orders for Line {
    fn give(&self, order: Order) {
        // Only a guard that is gone takes no byte.
        drop(self.0.try_write(&[order.to_byte()]));
    }
}

async fn ended(mut reports: BufReader<OwnedReadHalf>, mut child: Child, pid: u32) -> Exit {
    let exit = match Report::read(&mut reports).await {
        Some(Report::Ended(exit)) => exit,
        Some(Report::Started(_) | Report::Refused(_)) | None => {
            // The kernel has killed the program together with its guard; what it had started is still there.
            if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                kill_process_group(group, Signal::KILL).ok();
            }
            Exit::Lost
        }
    };
    // Leaves nothing behind in the list of processes.
    drop(child.wait().await);
    exit
}

/// The numbers are the kernel's for the call that becomes another program.
fn refused(refusal: Refusal, launch: Launch) -> StartError {
    use rustix::io::Errno;
    let path = launch.program;
    match refusal {
        Refusal::Missing => StartError::Missing { path },
        Refusal::Folder => StartError::Folder { path },
        Refusal::NoWorkingFolder => StartError::NoWorkingFolder { dir: launch.dir },
        Refusal::System(number) => match Errno::from_raw_os_error(number) {
            Errno::ACCESS | Errno::PERM => StartError::NotExecutable { path },
            Errno::NOEXEC => StartError::Format { path },
            Errno::NOENT => StartError::Interpreter { path },
            _ => StartError::System { path, reason: io::Error::from_raw_os_error(number).to_string() },
        },
    }
}
