//! Everything that is wrong with the settings, at once: each fault with its file, line, column and source line.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::settings::place::{Line, Source, printable};
use crate::settings::raw::At;

/// Most problems that are listed. Whoever has more is not helped by reading on, and the search for suggestions is bounded.
pub const PROBLEMS_MAX: usize = 100;

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
        if let Some(source) = &self.source {
            source.write(formatter, self.line)?;
        }
        let gutter = " ".repeat(self.line.to_string().len());
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

    /// What must not be shown.
    pub(crate) fn secrets(&self) -> &[Range<usize>] {
        &self.secrets
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
