//! Places of the file for people: file, line, column and the source line with a mark under it.

use std::fmt;
use std::ops::Range;

use crate::settings::raw::At;

/// Widest part of a source line that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 120;

/// Where something is written. Displays as `file:line:column`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, or `environment`.
    pub file: String,
    /// The line from 1; 0 for the environment.
    pub line: usize,
    /// The column from 1 in characters; 0 as with `line`.
    pub column: usize,
    source: Option<Source>,
}

impl Place {
    pub(crate) fn of(at: &At, file: &str, text: &str, secrets: &[Range<usize>]) -> Self {
        match at {
            At::Variable(_) => Self { file: "environment".to_owned(), line: 0, column: 0, source: None },
            At::Bytes(range) => {
                let line = Line::around(text, range);
                let source = Some(line.source(text, range, secrets, None));
                let column = line.column(text, range.start);
                Self { file: file.to_owned(), line: line.number, column, source }
            }
        }
    }

    /// The source line with a mark under the place.
    pub fn excerpt(&self) -> String {
        struct Excerpt<'a>(&'a Source, usize);
        impl fmt::Display for Excerpt<'_> {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(formatter, self.1)
            }
        }
        self.source.as_ref().map(|source| Excerpt(source, self.line).to_string()).unwrap_or_default()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.file)?;
        if self.line > 0 { write!(formatter, ":{}:{}", self.line, self.column) } else { Ok(()) }
    }
}

/// A source line and what of it is marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    shown: String,
    caret: Range<usize>,
}

impl Source {
    /// The line with its number, and the mark below.
    pub(crate) fn write(&self, formatter: &mut fmt::Formatter<'_>, line: usize) -> fmt::Result {
        let gutter = " ".repeat(line.to_string().len());
        writeln!(formatter, " {line} | {}", self.shown)?;
        let marks = "^".repeat(self.caret.len().max(1));
        writeln!(formatter, " {gutter} | {}{marks}", " ".repeat(self.caret.start))
    }
}

/// The line in which a range begins.
pub(crate) struct Line {
    pub(crate) number: usize,
    bytes: Range<usize>,
}

impl Line {
    pub(crate) fn around(text: &str, range: &Range<usize>) -> Self {
        let start = range.start.min(text.len());
        let before = text.as_bytes().get(..start).unwrap_or_default();
        let newlines = before.iter().filter(|byte| **byte == b'\n').count();
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        let after = text.as_bytes().get(start..).unwrap_or_default();
        let end = after.iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| start.saturating_add(at));
        Self { number: newlines.saturating_add(1), bytes: begin..end }
    }

    /// The characters of the line with their byte places, without a byte order mark and the carriage return.
    fn characters<'a>(&self, text: &'a str) -> impl Iterator<Item = (usize, char)> + 'a {
        let begin = self.bytes.start;
        let line = text.get(self.bytes.clone()).unwrap_or_default();
        let shown = line.strip_suffix('\r').unwrap_or(line);
        shown
            .char_indices()
            .map(move |(at, it)| (begin.saturating_add(at), it))
            .filter(|(at, it)| !(*at == 0 && *it == '\u{feff}'))
    }

    pub(crate) fn column(&self, text: &str, at: usize) -> usize {
        self.characters(text).take_while(|(place, _)| *place < at).count().saturating_add(1)
    }

    pub(crate) fn source(
        &self,
        text: &str,
        range: &Range<usize>,
        secrets: &[Range<usize>],
        covered: Option<usize>,
    ) -> Source {
        let start = self.column(text, range.start).saturating_sub(1);
        // The marked place stays in view when the line is long.
        let skipped = if start < SHOWN_CHARS_MAX { 0 } else { start.saturating_sub(SHOWN_CHARS_MAX.wrapping_div(2)) };
        let is_sign = |it: char| matches!(it, ' ' | '\t' | '=' | ':' | '"' | '\'');
        let is_secret = |at: usize, it: char| {
            covered.is_some_and(|from| from <= at && !is_sign(it)) || secrets.iter().any(|secret| secret.contains(&at))
        };
        let characters = self.characters(text).skip(skipped).take(SHOWN_CHARS_MAX);
        let shown: String = characters.map(|(at, it)| if is_secret(at, it) { '*' } else { printable(it) }).collect();
        let width = shown.chars().count();
        let marked = self.characters(text).filter(|(at, _)| range.contains(at)).count();
        let begin = start.saturating_sub(skipped);
        let end = begin.saturating_add(marked).min(width).max(begin);
        Source { shown, caret: begin..end }
    }

    /// From where a line that speaks of a secret is covered.
    pub(crate) fn covered_from(&self, text: &str) -> Option<usize> {
        let line = text.get(self.bytes.clone())?.to_ascii_lowercase();
        let end = |word: &str| line.find(word).map(|at| at.saturating_add(word.len()));
        let first = ["token", "secret", "passw"].into_iter().filter_map(end).min()?;
        Some(self.bytes.start.saturating_add(first))
    }
}

/// Keeps a hostile file from steering the terminal: control and direction characters become a mark, a tab one column.
pub(crate) fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        it if it.is_control() => '\u{fffd}',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => '\u{fffd}',
        it => it,
    }
}
