//! `*` matches everything; a segment `*` matches exactly one whole segment; all else is compared byte by byte.
//!
//! There is no regular expression and no partial glob: `site-*` is refused at load, because it would grow with names
//! that nobody has thought of yet (DESIGN, *Policy*).

use std::fmt;
use std::str::FromStr;

use crate::domain::id::{self, Segment};

/// Most segments of a pattern: `<site>/<name>` and `<action>/<command>` have two.
const SEGMENTS_MAX: usize = 2;

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `*` beside other characters in one segment.
    #[error("wanted `*` or a whole name in each segment, got the partial glob {0:?}")]
    PartialGlob(String),
    /// More than two segments.
    #[error("wanted at most {SEGMENTS_MAX} segments, got {0}")]
    TooManySegments(usize),
    /// A segment is not a legal name.
    #[error("{0}")]
    Segment(#[from] id::Error),
}

/// A set of slash-separated names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Shape);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Everything,
    Segments(Vec<Part>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    AnySegment,
    Exactly(Segment),
}

impl Pattern {
    /// The pattern `*`.
    pub const fn everything() -> Self {
        Self(Shape::Everything)
    }

    /// Whether this is the pattern `*`.
    pub fn is_everything(&self) -> bool {
        self.0 == Shape::Everything
    }

    /// Whether the name is in the set. A name with more or fewer segments than the pattern is not.
    pub fn matches(&self, name: &str) -> bool {
        match &self.0 {
            Shape::Everything => true,
            Shape::Segments(parts) => {
                let mut segments = name.split('/');
                parts.iter().all(|part| segments.next().is_some_and(|segment| part.matches(segment)))
                    && segments.next().is_none()
            }
        }
    }

    /// Whether every name of the other set is in this one. `*` counts as any name of as many segments as this has, which
    /// is right for actors and targets: their names all have two.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Shape::Everything, _) => true,
            (Shape::Segments(parts), Shape::Everything) => parts.iter().all(|part| *part == Part::AnySegment),
            (Shape::Segments(ours), Shape::Segments(theirs)) => {
                ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| ours.covers(theirs))
            }
        }
    }

    /// The smallest pattern that holds this set and the name, as far as it stays within the name's first segment: a rule
    /// is never widened to another site or another kind of action.
    pub(super) fn widened_to(&self, name: &str) -> Option<Self> {
        let Shape::Segments(parts) = &self.0 else { return None };
        let [first, second] = parts.as_slice() else { return None };
        let (head, tail) = name.split_once('/')?;
        if !first.matches(head) || *first == Part::AnySegment {
            return None;
        }
        let second = if second.matches(tail) { second.clone() } else { Part::AnySegment };
        Some(Self(Shape::Segments(vec![first.clone(), second])))
    }
}

impl Part {
    fn covers(&self, other: &Self) -> bool {
        *self == Self::AnySegment || self == other
    }

    fn matches(&self, segment: &str) -> bool {
        match self {
            Self::AnySegment => !segment.is_empty(),
            Self::Exactly(wanted) => wanted.as_str() == segment,
        }
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "*" {
            return Ok(Self::everything());
        }
        let parts: Vec<_> = text.split('/').map(parse_part).collect::<Result<_, _>>()?;
        if parts.len() > SEGMENTS_MAX {
            return Err(Error::TooManySegments(parts.len()));
        }
        Ok(Self(Shape::Segments(parts)))
    }
}

fn parse_part(text: &str) -> Result<Part, Error> {
    match text {
        "*" => Ok(Part::AnySegment),
        glob if glob.contains('*') => Err(Error::PartialGlob(glob.chars().take(64).collect())),
        name => Ok(Part::Exactly(name.parse()?)),
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Shape::Everything => formatter.write_str("*"),
            Shape::Segments(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        formatter.write_str("/")?;
                    }
                    match part {
                        Part::AnySegment => formatter.write_str("*")?,
                        Part::Exactly(segment) => segment.fmt(formatter)?,
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_segment_matches_one_whole_segment() {
        let pattern: Pattern = "site-a/*".parse().expect("legal");
        for (name, expected) in
            [("site-a/x", true), ("site-a/", false), ("site-a", false), ("site-a/x/y", false), ("site-ab/x", false)]
        {
            assert_eq!(pattern.matches(name), expected, "{name:?}");
        }
        assert!("*".parse::<Pattern>().expect("legal").matches("a/b"));
        assert!(!"*/*".parse::<Pattern>().expect("legal").matches("a"));
    }

    #[test]
    fn only_the_lone_star_is_everything() {
        for (text, expected) in [("*", true), ("*/*", false), ("a/*", false), ("a", false)] {
            assert_eq!(text.parse::<Pattern>().expect("legal").is_everything(), expected, "{text:?}");
        }
    }

    #[test]
    fn partial_globs_and_illegal_names_are_refused() {
        for text in ["site-*", "*/x*", "**", "a/b/c", "", "a//b", "a b", "ä"] {
            assert!(text.parse::<Pattern>().is_err(), "{text:?}");
        }
        // The fault says what is wrong, not merely that `*` is no letter of a name.
        assert_eq!("site-*".parse::<Pattern>(), Err(Error::PartialGlob("site-*".to_owned())));
    }

    #[test]
    fn a_pattern_reads_back_from_its_display() {
        for text in ["*", "a", "a/*", "*/b", "a/b"] {
            let pattern: Pattern = text.parse().expect("legal");
            assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn a_rule_is_widened_within_the_first_segment_and_never_beyond() {
        for (text, name, wanted) in [
            ("a/alice", "a/bob", Some("a/*")),
            ("a/alice", "a/alice", Some("a/alice")),
            ("a/*", "a/bob", Some("a/*")),
            ("a/alice", "b/alice", None),
            ("*/alice", "a/bob", None),
            ("*", "a/bob", None),
            ("a", "a/bob", None),
            ("a/alice", "a", None),
        ] {
            let widened = text.parse::<Pattern>().expect("legal").widened_to(name);
            assert_eq!(widened.map(|it| it.to_string()).as_deref(), wanted, "{text} to {name}");
        }
    }
}
