//! What the system says of this process.

use std::fs;

/// As far as the system says it: a part that cannot be read is not shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) memory_bytes: Option<i64>,
    pub(super) threads: Option<i64>,
    pub(super) fds: Option<i64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        // The folder that is being listed is open itself.
        let fds = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1));
        Self { fds: fds.and_then(|count| i64::try_from(count).ok()), ..Self::parse(&status) }
    }

    fn parse(status: &str) -> Self {
        let field = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
            rest.split_whitespace().next()?.parse::<i64>().ok()
        };
        // The system counts in units of 1,024 bytes, and calls them kB.
        let memory_bytes = field("VmRSS:").map(|kibibytes| kibibytes.saturating_mul(1_024));
        Self { memory_bytes, threads: field("Threads:"), fds: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_bytes_and_a_line_that_is_not_there_is_no_zero() {
        let read = Process::parse("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t7\n");
        assert_eq!(read, Process { memory_bytes: Some(2_097_152), threads: Some(7), fds: None });
        assert_eq!(Process::parse("VmRSS:\tmuch\n"), Process::default());
    }

    #[test]
    fn the_own_process_has_memory_and_open_files() {
        let Process { memory_bytes, threads, fds } = Process::read();
        assert!(memory_bytes.is_some_and(|it| 100_000 < it), "{memory_bytes:?}");
        assert!(threads.is_some_and(|it| 0 < it) && fds.is_some_and(|it| 2 < it), "{threads:?} {fds:?}");
    }
}
