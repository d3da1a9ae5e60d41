//! What a node has in use: memory as the system counts it, and what is alive in it, as it says itself.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::Running;
use crate::plant::Plant;
use crate::secure::Caller;
use crate::watch::let_pass;

/// How a node's memory is measured.
#[derive(Debug, Clone)]
pub(crate) enum Scale {
    /// To the byte: the library of glibc's `memusage` stands between the node and its allocator, and writes down each time what
    /// is in use. It writes much, so it is for a few thousand operations.
    Bytes(PathBuf),
    /// To the page, as the system counts them, for a run that is long enough for it.
    Pages,
}

/// For the pages of a node to say what it has in use: one heap for all threads, of which nothing is taken in advance and nothing
/// is given back, and large pieces beside it, so that they leave no holes. What is over leaves a small hole that the next one
/// fills, and only what stays makes the heap grow.
const ONE_HEAP: [(&str, &str); 4] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "4096"),
    ("MALLOC_TOP_PAD_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "1000000000"),
];

/// What `memusage` writes at a time, and in how many numbers of eight bytes each: in use, the stack, the time.
const ENTRIES_AT_ONCE: &str = "64";
const ENTRY_BYTES: usize = 24;

/// The last entries of which the least counts: what is in use for a moment only is not in all of them.
const ENTRIES: usize = 2_048;

impl Scale {
    /// For a node whose notes may lie at this place.
    pub(crate) fn new(is_long: bool, notes: PathBuf) -> Self {
        if is_long || library().is_none() { Self::Pages } else { Self::Bytes(notes) }
    }

    /// What the node needs in its environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        match self {
            Self::Bytes(notes) => vec![
                ("LD_PRELOAD", library().expect("there")),
                ("MEMUSAGE_OUTPUT", notes.clone()),
                ("MEMUSAGE_BUFFER_SIZE", ENTRIES_AT_ONCE.into()),
            ],
            Self::Pages => ONE_HEAP.map(|(name, value)| (name, value.into())).to_vec(),
        }
    }

    /// What a node's memory grows by in a few seconds whatever is done with it: histories that fill up, or three pages that a
    /// single allocation may begin.
    pub(crate) const fn noise(&self) -> i64 {
        match self {
            Self::Bytes(_) => 8 * 1_024,
            Self::Pages => 3 * 4_096,
        }
    }

    fn read(&self, pid: u32) -> i64 {
        match self {
            Self::Bytes(notes) => least_noted(notes),
            Self::Pages => pages(pid),
        }
    }
}

/// The library, which Debian has in the package of the C library itself.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    folders.flatten().map(|folder| folder.path().join("libmemusage.so")).find(|path| path.exists())
}

fn least_noted(notes: &Path) -> i64 {
    let mut file = fs::File::open(notes).expect("notes");
    let length = file.metadata().expect("a file").len() / ENTRY_BYTES as u64;
    let first = length.saturating_sub(ENTRIES as u64) * ENTRY_BYTES as u64;
    file.seek(SeekFrom::Start(first)).expect("a file");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("a file");
    let in_use = bytes.chunks_exact(ENTRY_BYTES).map(|it| i64::from_ne_bytes(it[..8].try_into().expect("eight")));
    in_use.min().expect("notes")
}

fn pages(pid: u32) -> i64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<i64>().expect("a number") * 1_024
}

/// How often, and how far apart, a node is looked at that is to be at rest.
const READINGS: usize = 10;
const MOMENT: Duration = Duration::from_millis(30);

/// Threads that may be about although nothing goes on.
const SPARE_THREADS: i64 = 4;

/// A node that is looked at.
pub(crate) struct Watched<'a> {
    pub(crate) name: &'a str,
    pid: u32,
    scale: Scale,
    scrape: Box<dyn Fn() -> Result<String, String> + 'a>,
}

/// What goes back to where it was once something is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Living {
    pub(crate) descriptors: i64,
    pub(crate) threads: i64,
    pub(crate) tasks: i64,
    pub(crate) streams: i64,
}

impl Living {
    fn least(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.min(other.descriptors),
            threads: self.threads.min(other.threads),
            tasks: self.tasks.min(other.tasks),
            streams: self.streams.min(other.streams),
        }
    }

    fn each(self) -> [i64; 4] {
        [self.descriptors, self.threads, self.tasks, self.streams]
    }

    /// Whether there is no more of anything than before, but for threads that wait ten seconds for more blocking work.
    pub(crate) fn is_within(self, before: Self) -> bool {
        let most = Self { threads: before.threads + SPARE_THREADS, ..before };
        self.each().iter().zip(most.each()).all(|(now, most)| *now <= most)
    }
}

impl<'a> Watched<'a> {
    pub(crate) fn of(node: &'a Running) -> Self {
        let scrape = || node.try_get("/metrics").map(|answer| answer.text);
        Self { name: node.name(), pid: node.pid(), scale: Scale::Pages, scrape: Box::new(scrape) }
    }

    pub(crate) fn plant(node: &'a Plant, caller: &'a Caller) -> Self {
        let scrape = || caller.ask(node.address(), "/metrics", None).map(|answer| answer.text);
        Self { name: node.name(), pid: node.pid(), scale: Scale::Pages, scrape: Box::new(scrape) }
    }

    /// The value of one series; 0 where it is not there yet.
    pub(crate) fn metric(&self, series: &str) -> Result<f64, String> {
        let page = (self.scrape)()?;
        valued(&page, series).ok_or_else(|| format!("no {series} in {page}"))
    }

    /// What is alive, besides what the question itself takes.
    pub(crate) fn living(&self) -> Result<Living, String> {
        let page = (self.scrape)()?;
        let whole = |series: &str| {
            let value = valued(&page, series).ok_or_else(|| format!("no {series} in {page}"))?;
            value.to_string().parse::<i64>().map_err(|error| error.to_string())
        };
        Ok(Living {
            descriptors: whole("process_open_fds")?,
            threads: whole("process_threads")?,
            tasks: whole("trust_runtime_tasks")?,
            streams: whole("trust_runtime_http_streams_open")?,
        })
    }

    /// The least of everything within a moment, so that what just ends is not in it.
    pub(crate) fn at_rest(&self) -> Living {
        let reading = || {
            let_pass(MOMENT);
            self.living().expect("an answer")
        };
        std::iter::repeat_with(reading).take(READINGS).reduce(Living::least).expect("some")
    }

    /// The same node on another scale.
    pub(crate) fn on(self, scale: &Scale) -> Self {
        Self { scale: scale.clone(), ..self }
    }

    /// What of its memory is its own and in use, and how far that may be wrong.
    pub(crate) fn memory(&self) -> (i64, i64) {
        (self.scale.read(self.pid), self.scale.noise())
    }
}

fn valued(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}
