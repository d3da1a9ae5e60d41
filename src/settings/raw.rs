//! The file as it stands: a tree of values that remember where they were written.
//!
//! serde's `deny_unknown_fields` stops at the first fault, so the document is kept as a tree and every key is held
//! against the table of keys. Only size and depth are judged here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::Datetime;

/// Largest accepted file in bytes: 1,000 rules in both directions with reasons fit into half of it.
pub const FILE_BYTES_MAX: usize = 256 * 1024;

/// Deepest accepted nesting of tables and lists: the table of keys needs six.
pub(crate) const DEPTH_MAX: usize = 16;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum At {
    /// These bytes of the file.
    Bytes(Range<usize>),
    /// This environment variable.
    Variable(Arc<str>),
}

impl At {
    /// The file as a whole.
    pub(crate) const FILE: Self = Self::Bytes(0..0);
}

/// One value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Where the value stands.
    pub(crate) at: At,
    /// The value.
    pub(crate) value: Raw,
}

/// One named value of a table.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Where the name stands.
    pub(crate) key_at: At,
    /// What it names.
    pub(crate) node: Node,
}

/// A TOML value.
#[derive(Debug, Clone)]
pub(crate) enum Raw {
    /// `true` or `false`.
    Bool(bool),
    /// A fractional number, which no key takes; kept as its text.
    Float(String),
    /// A whole number of 64 bits.
    Int(i64),
    /// A list.
    List(Vec<Node>),
    /// A table by name.
    Table(BTreeMap<String, Entry>),
    /// A text.
    Text(String),
    /// A date, a time or both.
    Time(Datetime),
    /// A number beyond 64 bits or a value below the deepest accepted level.
    Unreadable,
}

impl Raw {
    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// What was given, for an error message: at most 64 characters of it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Float(text) => format!("the number {}", cut(text)),
            Self::Int(number) => format!("the number {number}"),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Text(text) => format!("{:?}", cut(text)),
            Self::Time(moment) => format!("the time {moment}"),
            Self::Unreadable => "a number beyond 64 bits".to_owned(),
        }
    }

    /// What was given, without its content.
    pub(crate) const fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Float(_) | Self::Int(_) | Self::Unreadable => "a number",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Text(_) => "a string",
            Self::Time(_) => "a time",
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// A fault of the text itself: the file cannot be read any further.
#[derive(Debug)]
pub(crate) struct SyntaxFault {
    /// Where.
    pub(crate) at: Range<usize>,
    /// What is wrong.
    pub(crate) message: String,
}

/// Reads the text into a tree, or says everything that is wrong with its syntax.
pub(crate) fn read(text: &str) -> Result<Node, Vec<SyntaxFault>> {
    let whole = 0..0;
    if text.len() > FILE_BYTES_MAX {
        let message = format!("wanted at most {FILE_BYTES_MAX} bytes, got {}", text.len());
        return Err(vec![SyntaxFault { at: whole, message }]);
    }
    if let Some(at) = too_deep(text) {
        let message = format!("wanted at most {DEPTH_MAX} levels of brackets");
        return Err(vec![SyntaxFault { at, message }]);
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().map(syntax_fault).collect());
    }
    let mut faults = Vec::new();
    let value = table(document.get_ref(), 0, &mut faults);
    if faults.is_empty() { Ok(Node { at: At::FILE, value }) } else { Err(faults) }
}

fn syntax_fault(error: &toml::de::Error) -> SyntaxFault {
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    SyntaxFault { at: error.span().unwrap_or_default(), message }
}

/// The first bracket outside texts and comments that opens one level too many.
///
/// The parser bounds brackets and dotted names apart, which multiplied are deeper than a small stack is; so brackets are
/// counted before it sees them.
fn too_deep(text: &str) -> Option<Range<usize>> {
    let mut depth = 0_usize;
    let mut quote: Option<&str> = None;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut step = first.len_utf8();
        let here = text.len().saturating_sub(rest.len());
        match (quote, first) {
            (Some(_), '\n') if quote.is_some_and(|it| it.len() == 1) => quote = None,
            (Some(mark), '\\') if mark.starts_with('"') => {
                step = step.saturating_add(rest.chars().nth(1).map_or(0, char::len_utf8));
            }
            (Some(mark), _) if rest.starts_with(mark) => (quote, step) = (None, mark.len()),
            (Some(_), _) => (),
            (None, '#') => step = rest.find('\n').unwrap_or(rest.len()),
            (None, '"' | '\'') => {
                let mark = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|mark| rest.starts_with(mark));
                (quote, step) = (mark, mark.map_or(step, str::len));
            }
            (None, '[' | '{') => depth = depth.saturating_add(1),
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, _) => (),
        }
        if depth > DEPTH_MAX {
            return Some(here..here.saturating_add(1));
        }
        rest = rest.get(step..).unwrap_or_default();
    }
    None
}

fn table(entries: &DeTable<'_>, depth: usize, faults: &mut Vec<SyntaxFault>) -> Raw {
    let read = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let name_text: &std::borrow::Cow<'_, str> = name.get_ref();
        let entry = Entry { key_at: At::Bytes(name.span()), node: node(value, depth.saturating_add(1), faults) };
        (name_text.to_string(), entry)
    };
    Raw::Table(entries.iter().map(read).collect())
}

fn node(value: &Spanned<DeValue<'_>>, depth: usize, faults: &mut Vec<SyntaxFault>) -> Node {
    if depth > DEPTH_MAX {
        faults.push(SyntaxFault { at: value.span(), message: format!("wanted at most {DEPTH_MAX} levels of tables") });
        return Node { at: At::Bytes(value.span()), value: Raw::Unreadable };
    }
    let raw = match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Raw::Unreadable, Raw::Int)
        }
        DeValue::Float(number) => Raw::Float(number.as_str().to_owned()),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Datetime(moment) => Raw::Time(*moment),
        DeValue::Array(items) => {
            Raw::List(items.iter().map(|item| node(item, depth.saturating_add(1), faults)).collect())
        }
        DeValue::Table(entries) => table(entries, depth, faults),
    };
    Node { at: At::Bytes(value.span()), value: raw }
}
