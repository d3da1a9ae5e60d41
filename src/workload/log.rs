//! What the workload says, within limits: the newest lines in memory, and two files that take turns.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

use crate::domain::text::shown;
use crate::domain::time::Wall;
use crate::workload::Line;

/// Lines of each stream that are kept in memory.
pub const LINES_KEPT: usize = 256;

/// Longest line of the workload: its log is for people, and 256 of them have to fit into memory.
pub const LINE_KEPT_BYTES_MAX: usize = 8 * 1024;

/// Size at which the file becomes the older of two.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Lines on their way to the disk. When so many wait, the program is held up rather than its lines dropped.
pub(super) const WAITING_MAX: usize = 256;

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    /// The word for it in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

/// The newest lines, as readers and the writers share them.
#[derive(Debug, Default)]
pub(super) struct Tails {
    out: Mutex<VecDeque<String>>,
    err: Mutex<VecDeque<String>>,
}

impl Tails {
    pub(super) fn newest(&self, stream: Stream) -> Vec<String> {
        self.of(stream).lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn keep(&self, stream: Stream, line: String) {
        let mut kept = self.of(stream).lock().unwrap_or_else(PoisonError::into_inner);
        if LINES_KEPT <= kept.len() {
            kept.pop_front();
        }
        kept.push_back(line);
    }

    const fn of(&self, stream: Stream) -> &Mutex<VecDeque<String>> {
        match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        }
    }
}

/// Takes lines. Copies share the files.
#[derive(Debug, Clone)]
pub(super) struct Log {
    tails: Arc<Tails>,
    file: mpsc::Sender<String>,
}

/// The log and what writes its file, until the last copy of the log is gone.
pub(super) fn open(path: PathBuf, tails: Arc<Tails>) -> (Log, impl Future<Output = ()> + Send) {
    let (file, lines) = mpsc::channel(WAITING_MAX);
    (Log { tails, file }, write(path, lines))
}

impl Log {
    /// What sees how many lines wait, and keeps nothing alive.
    pub(super) fn file(&self) -> mpsc::WeakSender<String> {
        self.file.downgrade()
    }

    /// Keeps a line.
    pub(super) async fn keep(&self, at: Wall, stream: Stream, line: &Line) {
        let text = sentence(line);
        let row = format!("{} {} {text}\n", moment(at), stream.as_str());
        self.tails.keep(stream, text);
        // The writer goes only after the last of these.
        self.file.send(row).await.ok();
    }
}

/// The line as a person may see it in a terminal.
fn sentence(line: &Line) -> String {
    let mut text = shown(line.text.trim_end_matches('\r')).into_owned();
    if let Some(bytes) = line.cut_from {
        text.push_str(&format!(" [cut, {bytes} bytes]"));
    }
    if line.is_lossy {
        text.push_str(" [not UTF-8]");
    }
    text
}

fn moment(at: Wall) -> String {
    let whole = i128::from(at.as_millis()).saturating_mul(1_000_000);
    let moment = OffsetDateTime::from_unix_timestamp_nanos(whole).ok().and_then(|it| it.format(&Rfc3339).ok());
    moment.unwrap_or_else(|| at.to_string())
}

async fn write(path: PathBuf, mut lines: mpsc::Receiver<String>) {
    let mut file = Rotating::new(path);
    let mut rows = Vec::new();
    let mut is_failing = false;
    while 0 < lines.recv_many(&mut rows, WAITING_MAX).await {
        let text = rows.concat();
        rows.clear();
        let written = tokio::task::spawn_blocking(move || {
            let result = file.append(text.as_bytes());
            (file, result)
        });
        // Only a panic ends a blocking task early, and there is nothing in it that panics.
        let Ok((returned, result)) = written.await else { return };
        file = returned;
        match result {
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::warn!(%error, "the workload's log cannot be written; its lines stay in memory only");
            }
            Err(_) => {}
            Ok(()) => is_failing = false,
        }
    }
}

/// A file that gives way to a new one when it is full; one older one is kept.
#[derive(Debug)]
struct Rotating {
    path: PathBuf,
    open: Option<(File, u64)>,
    bytes_max: u64,
}

impl Rotating {
    const fn new(path: PathBuf) -> Self {
        Self { path, open: None, bytes_max: FILE_BYTES_MAX }
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        for row in text.split_inclusive(|byte| *byte == b'\n') {
            self.append_row(row)?;
        }
        Ok(())
    }

    fn append_row(&mut self, row: &[u8]) -> io::Result<()> {
        let length = u64::try_from(row.len()).unwrap_or(u64::MAX);
        let (mut file, mut size) = match self.open.take() {
            Some(open) => open,
            None => open_file(&self.path)?,
        };
        if 0 < size && self.bytes_max < size.saturating_add(length) {
            std::fs::rename(&self.path, older(&self.path))?;
            (file, size) = open_file(&self.path)?;
        }
        file.write_all(row)?;
        self.open = Some((file, size.saturating_add(length)));
        Ok(())
    }
}

/// Nobody but the node's user reads what a program says.
fn open_file(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line { text: text.to_owned(), is_lossy: false, cut_from: None }
    }

    #[tokio::test]
    async fn the_newest_lines_are_kept_and_all_are_written_harmless() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("workload.log");
        let tails = Arc::new(Tails::default());
        let (log, writer) = open(path.clone(), Arc::clone(&tails));
        let writing = tokio::runtime::Handle::current().spawn(writer);
        for number in 0..LINES_KEPT + 44 {
            log.keep(Wall::from_millis(1_234), Stream::Out, &line(&number.to_string())).await;
        }
        let evil = Line { cut_from: Some(9_000), is_lossy: true, ..line("\u{1b}[2Jgone\r") };
        log.keep(Wall::from_millis(1_234), Stream::Err, &evil).await;
        drop(log);
        writing.await.expect("it ends");
        let kept = tails.newest(Stream::Out);
        assert_eq!((kept.len(), kept[0].as_str(), kept[LINES_KEPT - 1].as_str()), (LINES_KEPT, "44", "299"));
        assert_eq!(tails.newest(Stream::Err), ["\\u{1b}[2Jgone [cut, 9000 bytes] [not UTF-8]"]);
        let text = std::fs::read_to_string(&path).expect("it was written");
        assert_eq!(text.lines().count(), LINES_KEPT + 45);
        assert!(text.starts_with("1970-01-01T00:00:01.234Z stdout 0\n"), "{text}");
        assert!(text.ends_with("stderr \\u{1b}[2Jgone [cut, 9000 bytes] [not UTF-8]\n"), "{text}");
    }

    #[test]
    fn two_files_take_turns_and_no_line_is_torn() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("workload.log");
        for number in 0..10 {
            // Opened anew, as after a restart of the node.
            let mut file = Rotating { bytes_max: 10, ..Rotating::new(path.clone()) };
            file.append(format!("a{number}\nb{number}\n").as_bytes()).expect("writable");
        }
        let read = |path: &Path| std::fs::read_to_string(path).expect("it is there");
        assert_eq!((read(&older(&path)).as_str(), read(&path).as_str()), ("b7\na8\nb8\n", "a9\nb9\n"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2);
    }
}
