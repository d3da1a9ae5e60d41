//! A program's two streams as what it says, in batches: what is there at once becomes durable at once.

use futures_util::FutureExt;
use futures_util::future::{Either, select};

use crate::wire::run::{Level, Said, beginning, complaint, line};
use crate::workload::{LINE_BYTES_MAX, Line, Lines, Output};

/// Most lines of one batch: what the run store may be given at once of one run.
const LINES_MAX: usize = 256;

/// Most bytes of one batch, but for its last line.
const BYTES_MAX: usize = 512 * 1024;

/// Both streams. Lines of one keep their order; between the two there is none.
pub(super) struct Streams {
    stdout: Option<Lines<Output>>,
    stderr: Option<Lines<Output>>,
}

impl Streams {
    pub(super) fn new(stdout: Output, stderr: Output) -> Self {
        Self { stdout: Some(Lines::new(stdout)), stderr: Some(Lines::new(stderr)) }
    }

    /// At least one line, and as many more as are there without waiting. None when both have ended.
    pub(super) async fn next_batch(&mut self) -> Option<Vec<Said>> {
        let mut batch = Vec::new();
        let mut bytes = 0_usize;
        while batch.len() < LINES_MAX && bytes < BYTES_MAX {
            let next = if batch.is_empty() { Some(self.next().await) } else { self.next().now_or_never() };
            match next {
                Some(Some((said, length))) => {
                    bytes = bytes.saturating_add(length);
                    batch.push(said);
                }
                Some(None) | None => break,
            }
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// The next line of either. None when both have ended.
    async fn next(&mut self) -> Option<(Said, usize)> {
        loop {
            let (is_stdout, read) = match (&mut self.stdout, &mut self.stderr) {
                (None, None) => return None,
                (Some(stdout), None) => (true, stdout.next().await),
                (None, Some(stderr)) => (false, stderr.next().await),
                (Some(stdout), Some(stderr)) => {
                    // Lines that are dropped while they wait lose nothing.
                    match select(Box::pin(stdout.next()), Box::pin(stderr.next())).await {
                        Either::Left((read, _)) => (true, read),
                        Either::Right((read, _)) => (false, read),
                    }
                }
            };
            match read {
                Ok(Some(text)) => {
                    let said = if is_stdout { said(&text) } else { complained(&text) };
                    return Some((said, text.text.len()));
                }
                // A stream that fails has ended.
                Ok(None) | Err(_) if is_stdout => self.stdout = None,
                Ok(None) | Err(_) => self.stderr = None,
            }
        }
    }
}

/// A line that was cut is no event any more. Where it looks like one, what it would have said is lost, and a run that lost a
/// result must not look as if it had brought none.
fn said(text: &Line) -> Said {
    match text.cut_from {
        None => line(text.text.as_bytes()),
        Some(length) if text.text.trim_start().starts_with('{') => Said::Error {
            name: "OutputLimit".to_owned(),
            message: format!("a line of {length} bytes is longer than {LINE_BYTES_MAX} bytes, so what it says is lost"),
        },
        Some(size) => beginning(Level::Info, &text.text, size),
    }
}

fn complained(text: &Line) -> Said {
    match text.cut_from {
        None => complaint(text.text.as_bytes()),
        Some(size) => beginning(Level::Warn, &text.text, size),
    }
}
