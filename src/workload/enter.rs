//! The second stage: between guard and program, it binds its own life to the guard's and becomes the program.
//!
//! The kernel forgets that bond in a new child but keeps it when a process becomes another program, so it has to be made here.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Says that the second stage has begun; what follows it is the number of an error, and silence is success.
pub(super) const BEGUN: u8 = b'b';

/// What a shell ends with where a program cannot be started; only the guard sees it.
const NOT_STARTED: u8 = 127;

/// Becomes the program. Returns only if that failed.
pub(super) fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let failed = ExitCode::from(NOT_STARTED);
    let mut number = || arguments.next()?.into_string().ok()?.parse::<i32>().ok();
    let (Some(guard), Some(descriptor)) = (number(), number()) else { return failed };
    let Some(program) = arguments.next() else { return failed };
    // Opened by name and not inherited, so that it closes by itself when the program begins.
    let Ok(mut report) = OpenOptions::new().write(true).open(format!("/proc/{guard}/fd/{descriptor}")) else {
        return failed;
    };
    let is_bound = set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    // A guard that died before the bond was made would never be missed.
    let is_guarded = getppid().is_some_and(|parent| parent.as_raw_nonzero().get() == guard);
    if !is_bound || !is_guarded || report.write_all(&[BEGUN]).is_err() {
        return failed;
    }
    let error = Command::new(program).args(arguments).exec();
    // Nobody reads it if the guard is gone.
    drop(write!(report, "{}", error.raw_os_error().unwrap_or_default()));
    failed
}
