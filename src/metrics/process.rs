//! What the system says of this process.

use std::fs;

use super::optional::Optional;
use super::{Registrar, table};

/// In how many parts of a second the system counts processor time for programs: the same on every machine that it runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// As far as the system says it: a part that cannot be read is not shown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Process {
    memory_bytes: Option<f64>,
    threads: Option<f64>,
    fds: Option<f64>,
    fds_max: Option<f64>,
    cpu_seconds: Option<f64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let text = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        // The folder that is being listed is open itself.
        let fds = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1));
        Self {
            fds: fds.and_then(|count| u32::try_from(count).ok()).map(f64::from),
            ..Self::parse(&text("status"), &text("stat"), &text("limits"))
        }
    }

    fn parse(status: &str, stat: &str, limits: &str) -> Self {
        let field = |name: &str| number(status.lines().find_map(|line| line.strip_prefix(name))?);
        Self {
            // The system counts in units of 1,024 bytes, and calls them kB.
            memory_bytes: field("VmRSS:").map(|kibibytes| kibibytes * 1_024.0),
            threads: field("Threads:"),
            fds: None,
            // A process without a limit has none to show.
            fds_max: limits.lines().find_map(|line| number(line.strip_prefix("Max open files")?)),
            cpu_seconds: cpu_seconds(stat),
        }
    }
}

/// The first word, if it is a number.
fn number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse::<u32>().ok().map(f64::from)
}

/// Its own and that spent for it in the system: the twelfth and thirteenth word behind the program's name, in which anything
/// may stand.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut words = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (own, system) = (words.next()?.parse::<u64>().ok()?, words.next()?.parse::<u64>().ok()?);
    let ticks = u32::try_from(own.saturating_add(system)).unwrap_or(u32::MAX);
    Some(f64::from(ticks) / TICKS_PER_SECOND)
}

/// The same as it is shown.
#[derive(Debug)]
pub(super) struct Shown {
    memory: Optional,
    threads: Optional,
    fds: Optional,
    fds_max: Optional,
    cpu: Optional,
}

impl Shown {
    pub(super) fn new(of: &mut Registrar<'_>) -> Self {
        Self {
            memory: of.put(&table::PROCESS_MEMORY, Optional::gauge()),
            threads: of.put(&table::PROCESS_THREADS, Optional::gauge()),
            fds: of.put(&table::PROCESS_FDS, Optional::gauge()),
            fds_max: of.put(&table::PROCESS_FDS_MAX, Optional::gauge()),
            cpu: of.put(&table::PROCESS_CPU, Optional::counter()),
        }
    }

    pub(super) fn set(&self, process: &Process) {
        self.memory.set(process.memory_bytes);
        self.threads.set(process.threads);
        self.fds.set(process.fds);
        self.fds_max.set(process.fds_max);
        self.cpu.set(process.cpu_seconds);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn what_the_system_says_is_in_base_units_and_a_line_that_is_not_there_is_no_zero() {
        let stat = "7 (a ) 1 2) S 1 7 7 0 -1 4194560 900 0 3 0 150 25 9 9 20 0 7 0 1234 0 0";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files   1024   524288   files\n";
        let read = Process::parse("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t7\n", stat, limits);
        let wanted = Process {
            memory_bytes: Some(2_097_152.0),
            threads: Some(7.0),
            fds: None,
            fds_max: Some(1_024.0),
            cpu_seconds: Some(1.75),
        };
        assert_eq!(read, wanted);
        let unreadable =
            Process::parse("VmRSS:\tmuch\n", "7 (x) S 1", "Max open files   unlimited   unlimited   files\n");
        assert_eq!(unreadable, Process::default());
    }

    #[test]
    fn a_part_that_cannot_be_read_is_not_shown() {
        let mut registry = prometheus_client::registry::Registry::default();
        let shown = Shown::new(&mut Registrar(&mut registry));
        let said = |process| {
            shown.set(&process);
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("written");
            text
        };
        let text = said(Process { threads: Some(7.0), ..Process::default() });
        assert!(text.contains("process_threads 7"), "{text}");
        assert!(!text.contains("process_resident_memory_bytes") && !text.contains("process_cpu"), "{text}");
        let all = Process {
            memory_bytes: Some(4_096.0),
            threads: Some(8.0),
            fds: Some(9.0),
            fds_max: Some(1_024.0),
            cpu_seconds: Some(1.75),
        };
        let text = said(all);
        for line in [
            "process_resident_memory_bytes 4096.0",
            "process_threads 8.0",
            "process_open_fds 9.0",
            "process_max_fds 1024.0",
            "process_cpu_seconds_total 1.75",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
    }

    #[test]
    fn the_own_process_has_memory_and_open_files_and_has_used_time() {
        let process = Process::read();
        let Process { memory_bytes, threads, fds, fds_max, cpu_seconds } = process;
        assert!(memory_bytes.is_some_and(|it| 100_000.0 < it) && threads.is_some_and(|it| 0.0 < it), "{process:?}");
        assert!(fds.is_some_and(|fds| 2.0 < fds && fds_max.is_none_or(|most| fds <= most)), "{process:?}");
        assert!(cpu_seconds.is_some(), "{process:?}");
    }

    /// Other tests of the same process take and give back as well, so half of it is enough.
    #[test]
    fn what_the_own_process_takes_shows() {
        const MORE: u32 = 32;
        let before = Process::read();
        let ballast = vec![1_u8; 64 << 20];
        let files: Vec<_> = (0..MORE).map(|_| fs::File::open("/dev/null").expect("a file")).collect();
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let waits = std::sync::Arc::new(Mutex::new(waits));
        let wait = || {
            let waits = std::sync::Arc::clone(&waits);
            std::thread::spawn(move || drop(waits.lock().map(|it| it.recv())))
        };
        let threads: Vec<_> = (0..MORE).map(|_| wait()).collect();
        let after = Process::read();
        let rose = |of: fn(&Process) -> Option<f64>| of(&after).expect("known") - of(&before).expect("known");
        let half = f64::from(MORE / 2);
        assert!(half < rose(|it| it.fds) && half < rose(|it| it.threads), "{before:?} {after:?}");
        assert!(f64::from(16 << 20) < rose(|it| it.memory_bytes), "{before:?} {after:?}");
        let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        assert_eq!(after.fds_max, allowed.and_then(|it| u32::try_from(it).ok()).map(f64::from));
        // Only work takes the processor's time.
        let work = || std::hint::black_box(&ballast[..1 << 20]).iter().map(|it| u64::from(*it)).sum::<u64>();
        let shows = |_| std::hint::black_box(work()) > 0 && after.cpu_seconds < Process::read().cpu_seconds;
        assert!((0..1_000).any(shows), "{after:?}");
        drop((go_on, files));
        threads.into_iter().for_each(|it| it.join().expect("it ends"));
    }
}
