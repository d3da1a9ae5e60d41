//! All processes below this one: found, suspended, let go on, ended.
//!
//! Meant for a child subreaper: whoever loses a parent below it becomes its own child, so nobody leaves the family.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process};

/// How often a family that grows while it is suspended is looked through again. A suspended process starts nothing, so only
/// those not yet met can; each round leaves fewer of them.
const ROUNDS_MAX: usize = 64;

/// How often the end of all is looked for, with a pause between: five seconds. Beyond it are processes that wait in the kernel
/// for a device; they are ended by then as far as a signal can.
const LOOKS_MAX: usize = 500;

/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// A family that is being suspended: by looks, until one shows that it is done.
///
/// A signal takes effect when its process is next run, and a process that is in the middle of starting another one finishes that
/// first. So who was sent a signal may still have a child that nobody has met.
#[derive(Default)]
pub(super) struct Suspension {
    /// Who was there at the last look.
    met: BTreeSet<u32>,
    /// Whether all of them were suspended.
    were_still: bool,
}

/// What a look at a family that is being suspended has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// All are suspended, and were so at the look before, when the same ones were there: nobody is left who could start others.
    Still,
    /// The same ones, of whom not all are or were suspended: they will be when they are next run.
    Settling,
    /// Somebody who was not there before.
    Growing,
}

impl Suspension {
    /// Looks at everybody below this process and suspends who is not.
    pub(super) fn look(&mut self) -> Seen {
        let found: BTreeSet<u32> = below(std::process::id()).into_iter().collect();
        let moving: Vec<u32> = found.iter().copied().filter(|pid| !is_still(*pid)).collect();
        moving.iter().for_each(|pid| send(*pid, Signal::STOP));
        let were_still = std::mem::replace(&mut self.were_still, moving.is_empty());
        let met = std::mem::replace(&mut self.met, found);
        match self.met.is_subset(&met) {
            true if were_still && self.were_still => Seen::Still,
            true => Seen::Settling,
            false => Seen::Growing,
        }
    }
}

/// Sends a signal to everybody below this process, those included that appear meanwhile.
pub(super) fn signal(signal: Signal) {
    let mut met = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let new: Vec<u32> = below(std::process::id()).into_iter().filter(|pid| met.insert(*pid)).collect();
        if new.is_empty() {
            return;
        }
        new.into_iter().for_each(|pid| send(pid, signal));
    }
}

/// Ends everybody below this process and waits until they are gone.
pub(super) fn end() {
    // Suspended first: who is suspended cannot start others faster than they are found.
    signal(Signal::STOP);
    for look in 0..LOOKS_MAX {
        signal(Signal::KILL);
        if !reap(|_, _| ()) {
            return;
        }
        if look > 0 {
            std::thread::sleep(LOOK_PAUSE);
        } else {
            std::thread::yield_now();
        }
    }
}

/// Takes note of children that have ended. Gives whether any are left.
pub(super) fn reap(mut ended: impl FnMut(Pid, rustix::process::WaitStatus)) -> bool {
    loop {
        // Every child, whatever its group: those of the program and those who left theirs.
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => ended(pid, status),
            Ok(None) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_no_children) => return false,
        }
    }
}

fn send(pid: u32, signal: Signal) {
    // Who is gone meanwhile needs no signal.
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        kill_process(pid, signal).ok();
    }
}

/// Everybody below, parents before their children.
fn below(root: u32) -> Vec<u32> {
    let mut found = children(root);
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(children(parent));
        next = next.saturating_add(1);
    }
    found
}

/// The children of one process. Where the kernel keeps no list of them, the parents of all processes are read.
fn children(parent: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let lists: Vec<_> =
        threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).collect();
    if lists.is_empty() {
        return numbered("/proc").filter(|pid| parent_of(*pid) == Some(parent)).collect();
    }
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process can start nobody: each of its threads is suspended, held by a debugger, or has ended.
fn is_still(pid: u32) -> bool {
    let folder = format!("/proc/{pid}/task");
    numbered(&folder).all(|thread| {
        let stat = fs::read_to_string(format!("{folder}/{thread}/stat")).unwrap_or_default();
        words_of(&stat).and_then(|mut words| words.next()).is_none_or(|state| matches!(state, "T" | "t" | "Z" | "X"))
    })
}

fn numbered(folder: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    words_of(&stat)?.nth(1)?.parse().ok()
}

/// The words of a line of the kernel about a process: its state, its parent, and so on.
fn words_of(stat: &str) -> Option<impl Iterator<Item = &str>> {
    // The name before them stands in parentheses and may hold anything.
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_by_either_list() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a program");
        assert!(children(std::process::id()).contains(&child.id()));
        assert_eq!(parent_of(child.id()), Some(std::process::id()));
        assert!(below(std::process::id()).contains(&child.id()));
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        assert!(!below(std::process::id()).contains(&child.id()));
    }
}
