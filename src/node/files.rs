//! How many files this process may have open: a connection is one of them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as are of use: 2,048 connections, and room for the store, the mesh and the pipes of programs. Not more, because
/// programs inherit it, and some close every descriptor that they could have.
const WANTED: u64 = 8_192;

/// Raises the limit as far as it is of use and allowed, and gives what it is then.
pub fn open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Absent means that there is no limit.
    let (now, wanted) = (current.unwrap_or(u64::MAX), maximum.map_or(WANTED, |most| most.min(WANTED)));
    if wanted <= now {
        return now;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::debug!(%error, now, wanted, "the limit of open files stays as it was");
            now
        }
    }
}
