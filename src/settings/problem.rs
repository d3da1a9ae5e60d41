//! Everything that is wrong with the settings, at once: each fault with its file, line, column and source line.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::settings::raw::At;

/// Most problems that are listed. Whoever has more is not helped by reading on, and the search for suggestions is bounded.
pub const PROBLEMS_MAX: usize = 100;

/// Widest part of a source line that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 120;

/// Longest message in characters: it may repeat what the file says.
const MESSAGE_CHARS_MAX: usize = 400;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, or `environment`.
    pub file: String,
    /// The line from 1; 0 for the environment and for the file as a whole.
    pub line: usize,
    /// The column from 1 in characters; 0 as with `line`.
    pub column: usize,
    /// The key at fault, such as `runtime.web.listen`, or the variable's name; empty for faults of syntax.
    pub key: String,
    /// What was wanted and what was given.
    pub message: String,
    /// What to write instead, where that can be guessed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The source line with the place that is marked; secrets are covered.
    #[serde(skip)]
    source: Option<Source>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    shown: String,
    caret: Range<usize>,
}

/// All faults of one file and environment, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The first 100 faults.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub omitted: usize,
}

impl Problems {
    /// One fault of the file as a whole.
    pub(crate) fn of_file(file: &str, message: String, suggestion: Option<String>) -> Self {
        let file = file.to_owned();
        let key = String::new();
        Self {
            problems: vec![Problem { file, line: 0, column: 0, key, message, suggestion, source: None }],
            omitted: 0,
        }
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(formatter, "{problem}")?;
        }
        let count = self.problems.len().saturating_add(self.omitted);
        let noun = if count == 1 { "problem" } else { "problems" };
        match self.omitted {
            0 => write!(formatter, "{count} {noun}"),
            omitted => write!(formatter, "{count} {noun}, {omitted} of them not shown"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.file)?;
        if self.line > 0 {
            write!(formatter, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(formatter, ": {}", self.key)?;
        }
        writeln!(formatter, ": {}", self.message)?;
        let gutter = " ".repeat(self.line.to_string().len());
        if let Some(source) = &self.source {
            writeln!(formatter, " {} | {}", self.line, source.shown)?;
            let marks = "^".repeat(source.caret.len().max(1));
            writeln!(formatter, " {gutter} | {}{marks}", " ".repeat(source.caret.start))?;
        }
        match &self.suggestion {
            Some(suggestion) => writeln!(formatter, " {gutter} = {suggestion}"),
            None => Ok(()),
        }
    }
}

/// A fault before its place has been turned into a line.
#[derive(Debug)]
struct Fault {
    at: At,
    key: String,
    message: String,
    suggestion: Option<String>,
}

/// Collects faults while the settings are read.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    faults: Vec<Fault>,
    omitted: usize,
    secrets: Vec<Range<usize>>,
}

impl Faults {
    /// Notes a fault.
    pub(crate) fn push(&mut self, at: &At, key: impl Into<String>, message: impl Into<String>) {
        self.push_with(at, key, message, None);
    }

    /// Notes a fault with what to write instead.
    pub(crate) fn push_with(
        &mut self,
        at: &At,
        key: impl Into<String>,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        if self.is_full() {
            self.omitted = self.omitted.saturating_add(1);
            return;
        }
        let message = message.into().chars().take(MESSAGE_CHARS_MAX).map(printable).collect();
        self.faults.push(Fault { at: at.clone(), key: key.into(), message, suggestion });
    }

    /// Whether further faults are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.faults.len() >= PROBLEMS_MAX
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// Covers these bytes wherever a source line is shown.
    pub(crate) fn cover(&mut self, at: &At) {
        if let At::Bytes(range) = at {
            self.secrets.push(range.clone());
        }
    }

    /// The faults with their lines, in the order of the file, those of the environment last.
    pub(crate) fn into_problems(mut self, file: &str, text: &str) -> Problems {
        self.faults.sort_by_key(|fault| match &fault.at {
            At::Bytes(range) => range.start,
            At::Variable(_) => usize::MAX,
        });
        let secrets = std::mem::take(&mut self.secrets);
        let problems = self.faults.into_iter().map(|fault| fault.into_problem(file, text, &secrets)).collect();
        Problems { problems, omitted: self.omitted }
    }
}

impl Fault {
    fn into_problem(self, file: &str, text: &str, secrets: &[Range<usize>]) -> Problem {
        let Self { at, key, message, suggestion } = self;
        match at {
            At::Variable(name) => {
                let key = if key.is_empty() { name.to_string() } else { format!("{name} ({key})") };
                let file = "environment".to_owned();
                Problem { file, line: 0, column: 0, key, message, suggestion, source: None }
            }
            At::Bytes(range) if range.is_empty() && range.start == 0 => {
                Problem { file: file.to_owned(), line: 0, column: 0, key, message, suggestion, source: None }
            }
            At::Bytes(range) => {
                let line = Line::around(text, &range);
                // Where the syntax is broken nobody knows the values, so that the line's own words have to tell.
                let covered = if key.is_empty() { line.covered_from(text) } else { None };
                let source = Some(line.source(text, &range, secrets, covered));
                let column = line.column(text, range.start);
                Problem { file: file.to_owned(), line: line.number, column, key, message, suggestion, source }
            }
        }
    }
}

/// The line in which a range begins.
struct Line {
    number: usize,
    bytes: Range<usize>,
}

impl Line {
    fn around(text: &str, range: &Range<usize>) -> Self {
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

    fn column(&self, text: &str, at: usize) -> usize {
        self.characters(text).take_while(|(place, _)| *place < at).count().saturating_add(1)
    }

    fn source(&self, text: &str, range: &Range<usize>, secrets: &[Range<usize>], covered: Option<usize>) -> Source {
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
    fn covered_from(&self, text: &str) -> Option<usize> {
        let line = text.get(self.bytes.clone())?.to_ascii_lowercase();
        let end = |word: &str| line.find(word).map(|at| at.saturating_add(word.len()));
        let first = ["token", "secret", "passw"].into_iter().filter_map(end).min()?;
        Some(self.bytes.start.saturating_add(first))
    }
}

/// Keeps a hostile file from steering the terminal: control and direction characters become a mark, a tab one column.
fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        it if it.is_control() => '\u{fffd}',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => '\u{fffd}',
        it => it,
    }
}
