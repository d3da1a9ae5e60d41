//! A program's stream as lines, with a bound on each: a program that never ends its line cannot fill the node's memory.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Longest line that is kept whole, unless somebody wants less.
pub const LINE_BYTES_MAX: usize = 512 * 1024;

/// One line without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The text, as far as it is kept.
    pub text: String,
    /// Its bytes were not UTF-8 everywhere; what was not is replaced.
    pub is_lossy: bool,
    /// How many bytes it had, if it was cut.
    pub cut_from: Option<u64>,
}

/// Reads lines. Never holds more than one of them.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    bytes_max: usize,
    kept: Vec<u8>,
    seen: u64,
    is_begun: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Cuts lines at the usual limit.
    pub fn new(stream: R) -> Self {
        Self::within(stream, LINE_BYTES_MAX)
    }

    /// Cuts lines at this limit.
    pub fn within(stream: R, bytes_max: usize) -> Self {
        Self { reader: BufReader::new(stream), bytes_max, kept: Vec::new(), seen: 0, is_begun: false }
    }

    /// The next line; none at the end. Dropped while it waits, nothing is lost.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(self.is_begun.then(|| self.line()));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = end.and_then(|end| chunk.get(..end)).unwrap_or(chunk);
            let room = self.bytes_max.saturating_sub(self.kept.len()).min(part.len());
            self.kept.extend_from_slice(part.get(..room).unwrap_or_default());
            self.seen = self.seen.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
            self.is_begun = true;
            let used = part.len().saturating_add(usize::from(end.is_some()));
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some(self.line()));
            }
        }
    }

    fn line(&mut self) -> Line {
        let bytes = std::mem::take(&mut self.kept);
        let seen = std::mem::take(&mut self.seen);
        self.is_begun = false;
        let is_cut = u64::try_from(bytes.len()).unwrap_or(u64::MAX) < seen;
        let whole = if is_cut { before_a_cut_character(&bytes) } else { &bytes };
        let text = String::from_utf8_lossy(whole);
        let is_lossy = matches!(text, std::borrow::Cow::Owned(_));
        Line { text: text.into_owned(), is_lossy, cut_from: is_cut.then_some(seen) }
    }
}

/// The limit may fall into a character: that is a cut, not a fault of the program's bytes.
fn before_a_cut_character(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        // No error length means that the text merely stops too early.
        Err(error) if error.error_len().is_none() => bytes.get(..error.valid_up_to()).unwrap_or(bytes),
        Ok(_) | Err(_) => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(bytes: &[u8], bytes_max: usize, expected: &[(&str, bool, Option<u64>)]) {
        let mut lines = Lines::within(bytes, bytes_max);
        for (text, is_lossy, cut_from) in expected {
            let wanted = Line { text: (*text).to_owned(), is_lossy: *is_lossy, cut_from: *cut_from };
            assert_eq!(lines.next().await.expect("memory"), Some(wanted), "{bytes:?}");
        }
        assert_eq!(lines.next().await.expect("memory"), None, "{bytes:?}");
    }

    #[tokio::test]
    async fn lines_are_whole_up_to_the_limit_and_cut_beyond_it() {
        check(b"", 4, &[]).await;
        check(b"\n", 4, &[("", false, None)]).await;
        check(b"abcd\nabcde\nf", 4, &[("abcd", false, None), ("abcd", false, Some(5)), ("f", false, None)]).await;
        check(b"a\xffb\n", 4, &[("a\u{fffd}b", true, None)]).await;
        check("abcä\nx".as_bytes(), 4, &[("abc", false, Some(5)), ("x", false, None)]).await;
        check(b"abc\xc3", 9, &[("abc\u{fffd}", true, None)]).await;
    }

    #[tokio::test]
    async fn the_reader_goes_on_after_a_line_of_many_megabytes() {
        let mut text = vec![b'x'; 9 * 1024 * 1024];
        text.extend_from_slice(b"\nnext\n");
        let mut lines = Lines::new(text.as_slice());
        let long = lines.next().await.expect("memory").expect("a line");
        assert_eq!((long.text.len(), long.cut_from), (LINE_BYTES_MAX, Some(9 * 1024 * 1024)));
        assert!(lines.kept.capacity() <= 2 * LINE_BYTES_MAX);
        assert_eq!(lines.next().await.expect("memory").expect("a line").text, "next");
    }

    #[tokio::test]
    async fn a_reader_that_is_given_up_loses_nothing() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(reader);
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"one tw").await.expect("memory");
        assert!(futures_util::FutureExt::now_or_never(lines.next()).is_none());
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"o\n").await.expect("memory");
        assert_eq!(lines.next().await.expect("memory").expect("a line").text, "one two");
    }
}
