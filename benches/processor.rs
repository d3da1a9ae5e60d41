//! Where processes run, as far as it changes what is measured.

use std::process::{Command, Stdio};

use crate::stand::Outcome;

/// Holds processes to one processor until dropped. Where caller and server have two, the system wakes the server now on the
/// caller's and now on the other one, which takes twice as long, and stays with either for a while: what is measured then is
/// that and not the server.
pub(crate) struct OneProcessor {
    /// Where each of them ran before.
    before: Vec<(u32, String)>,
}

impl OneProcessor {
    pub(crate) fn hold(processes: &[u32]) -> Outcome<Self> {
        let before = processes.iter().map(|process| Ok((*process, processors(*process)?)));
        let held = Self { before: before.collect::<Outcome<_>>()? };
        let (_, all) = held.before.first().ok_or("somebody to hold")?;
        let first = all.split([',', '-']).next().unwrap_or("0");
        processes.iter().try_for_each(|process| place(*process, first))?;
        Ok(held)
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        for (process, before) in &self.before {
            drop(place(*process, before));
        }
    }
}

/// The list of processors that a process may use.
fn processors(process: u32) -> Outcome<String> {
    let said = Command::new("taskset").args(["-p", "-c", &process.to_string()]).output()?;
    let text = String::from_utf8(said.stdout)?;
    let list = text.trim().rsplit(' ').next().filter(|_| said.status.success());
    Ok(list.ok_or("taskset of util-linux says where a process may run")?.to_owned())
}

/// Moves all threads of a process.
fn place(process: u32, processors: &str) -> Outcome<()> {
    let arguments = ["-a", "-p", "-c", processors, &process.to_string()];
    let moved = Command::new("taskset").args(arguments).stdout(Stdio::null()).status()?;
    if moved.success() { Ok(()) } else { Err(format!("process {process} was not moved").into()) }
}
