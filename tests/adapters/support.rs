//! Folders with small programs, the launcher on them, and a look at the list of processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use trust_runtime::workload::process::Processes;
use trust_runtime::workload::{Launcher, Lines, Output, Process, Program, StartError};

/// The program whose guard is tested.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_trust-runtime");

/// Only a failing test waits so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A project folder with programs.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("trust-adapters-").tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn launcher(&self) -> Processes {
        let kept = std::env::vars().filter(|(name, _)| name == "PATH");
        let secret = [("TRUST_RUNTIME__SECRET".to_owned(), "s".to_owned()), ("TZ".to_owned(), "UTC".to_owned())];
        Processes::guarded_by(Path::new(PROGRAM), self.path(), kept.chain(secret))
    }

    /// Writes an executable script. Written by a process of its own: a file that is open for writing cannot be executed, and
    /// a sibling that is being started may hold it open for a moment.
    pub(crate) fn script(&self, name: &str, text: &str) -> Program {
        let path = self.path().join(name);
        if !path.exists() {
            let draft = self.path().join(format!("{name}.draft"));
            fs::write(&draft, text).expect("a script");
            let copied = std::process::Command::new("cp").arg(&draft).arg(&path).status().expect("cp is there");
            assert!(copied.success(), "{}", path.display());
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        Program { path: PathBuf::from(name), ..Program::default() }
    }

    /// A script of the POSIX shell.
    pub(crate) fn sh(&self, name: &str, text: &str) -> Program {
        self.script(name, &format!("#!/bin/sh\n{text}\n"))
    }

    pub(crate) async fn start(&self, program: Program) -> Result<Process, StartError> {
        self.launcher().start(program, Vec::new()).await
    }

    /// Starts it and gives the words of the first line that it says.
    pub(crate) async fn said(&self, program: Program) -> (Process, Lines<Output>, Vec<String>) {
        let mut process = self.start(program).await.expect("it starts");
        let mut lines = Lines::new(std::mem::replace(&mut process.stdout, Output::new(tokio::io::empty())));
        let line = lines.next().await.expect("readable").expect("it says something").text;
        (process, lines, line.split_whitespace().map(str::to_owned).collect())
    }
}

/// Whether there is such a process that is not merely waiting to be forgotten.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Whether a process is suspended.
pub(crate) fn is_suspended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

/// The children of a process of one thread.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

/// The parent of a process.
pub(crate) fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, rest) = stat.rsplit_once(')').expect("a line of the kernel");
    rest.split_whitespace().nth(1).expect("the parent").parse().expect("a number")
}

pub(crate) fn signal(name: &str, pid: u32) {
    let status = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.expect("kill is there").success(), "kill -{name} {pid}");
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let came = tokio::time::timeout(DEADLINE, waiting).await;
    assert!(came.is_ok(), "{what}: not within {DEADLINE:?}");
}
