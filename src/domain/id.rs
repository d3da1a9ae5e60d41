//! Names of things: sites, runtimes, requests. Parsed once at the boundary, then carried as types.
//!
//! A runtime is `<site>/<name>`. A bare name means the own site, so parsing takes that site. Signed, stored, hashed and
//! audited data hold the qualified form (DESIGN, *Ids*).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use smol_str::SmolStr;

/// Longest accepted segment in bytes: a DNS label is 63, and a certificate's common name ends at 64.
pub const SEGMENT_BYTES_MAX: usize = 64;

/// Longest accepted request id in characters (contract, *preflight*).
pub const REQUEST_ID_CHARS_MAX: usize = 128;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing stands where a name is wanted.
    #[error("wanted a name, got nothing")]
    Empty,
    /// The name is longer than its limit.
    #[error("wanted at most {max} bytes, got {got}")]
    TooLong {
        /// The limit in bytes.
        max: usize,
        /// The length found in bytes.
        got: usize,
    },
    /// A character outside the grammar.
    #[error("wanted letters, digits, '.', '-' or '_', got {0:?}")]
    Character(char),
    /// `.` and `..` are path modifiers, not names.
    #[error("wanted a name, got the path modifier {0:?}")]
    DotSegment(String),
    /// More than one `/` in a runtime id.
    #[error("wanted <name> or <site>/<name>, got {0:?}")]
    Shape(String),
    /// A request id has a character that is not visible ASCII.
    #[error("wanted visible ASCII characters, got {0:?}")]
    NotVisible(char),
}

/// One SPIFFE path segment: `[A-Za-z0-9._-]+`, neither `.` nor `..` (SPIFFE-ID section 2.2), at most 64 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment(SmolStr);

impl Segment {
    /// The segment's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Segment {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > SEGMENT_BYTES_MAX {
            return Err(Error::TooLong { max: SEGMENT_BYTES_MAX, got: text.len() });
        }
        // By bytes, because there may be a thousand names; by characters only to say which one is wrong.
        if !text.bytes().all(is_segment_byte) {
            let bad = text.chars().find(|it| !u8::try_from(*it).is_ok_and(is_segment_byte));
            return Err(Error::Character(bad.unwrap_or_default()));
        }
        if text == "." || text == ".." {
            return Err(Error::DotSegment(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

const fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

impl fmt::Display for Segment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, formatter)
    }
}

/// A trust boundary: own anchors, own policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(Segment);

impl SiteId {
    /// The site's name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for SiteId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(Self)
    }
}

impl From<Segment> for SiteId {
    fn from(segment: Segment) -> Self {
        Self(segment)
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One runtime of the mesh, qualified by its site. Displays as `<site>/<name>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuntimeId {
    /// Where it belongs.
    pub site: SiteId,
    /// Its name inside the site.
    pub name: Segment,
}

impl RuntimeId {
    /// Puts a site and a name together.
    pub fn new(site: SiteId, name: Segment) -> Self {
        Self { site, name }
    }

    /// Parses `<name>` (of `own_site`) or `<site>/<name>`.
    pub fn parse_in(text: &str, own_site: &SiteId) -> Result<Self, Error> {
        match text.split_once('/') {
            None => Ok(Self::new(own_site.clone(), text.parse()?)),
            Some((_, name)) if name.contains('/') => Err(Error::Shape(text.chars().take(SEGMENT_BYTES_MAX).collect())),
            Some((site, name)) => Ok(Self::new(site.parse()?, name.parse()?)),
        }
    }

    /// The form HTTP answers show: bare for the own site, qualified for others (DESIGN, *Ids*).
    pub fn shown_in(&self, own_site: &SiteId) -> String {
        if self.site == *own_site { self.name.to_string() } else { self.to_string() }
    }
}

impl FromStr for RuntimeId {
    type Err = Error;

    /// Parses the qualified form only.
    fn from_str(text: &str) -> Result<Self, Error> {
        let Some((site, name)) = text.split_once('/') else {
            return Err(Error::Shape(text.chars().take(SEGMENT_BYTES_MAX).collect()));
        };
        Ok(Self::new(site.parse()?, name.parse()?))
    }
}

impl fmt::Display for RuntimeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every denial names its target: writing the parts costs a third of formatting them.
        formatter.write_str(self.site.as_str())?;
        formatter.write_str("/")?;
        formatter.write_str(self.name.as_str())
    }
}

impl fmt::Debug for RuntimeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.site, self.name)
    }
}

/// The caller's name for one request: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > REQUEST_ID_CHARS_MAX {
            return Err(Error::TooLong { max: REQUEST_ID_CHARS_MAX, got: text.len() });
        }
        match text.chars().find(|it| !it.is_ascii_graphic()) {
            Some(bad) => Err(Error::NotVisible(bad)),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(text: &str) -> SiteId {
        text.parse().expect("legal site")
    }

    #[test]
    fn a_bare_name_means_the_own_site() {
        let id = RuntimeId::parse_in("runtime-a", &site("plant-1")).expect("legal");
        assert_eq!(id.to_string(), "plant-1/runtime-a");
        assert_eq!(id.shown_in(&site("plant-1")), "runtime-a");
        assert_eq!(id.shown_in(&site("plant-2")), "plant-1/runtime-a");
    }

    #[test]
    fn both_forms_of_one_runtime_are_equal() {
        let own = site("default-site");
        assert_eq!(RuntimeId::parse_in("a", &own), RuntimeId::parse_in("default-site/a", &own));
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        let own = site("s");
        for text in ["", "/", "a/", "/a", "a/b/c", "a b", "ä", ".", "..", "s/..", "a*", "a\0", "a$b", "%61"] {
            assert!(RuntimeId::parse_in(text, &own).is_err(), "{text:?}");
        }
        assert!(RuntimeId::parse_in(&"a".repeat(65), &own).is_err());
        assert!(RuntimeId::parse_in(&"a".repeat(64), &own).is_ok());
    }

    #[test]
    fn a_request_id_is_visible_ascii_up_to_128() {
        assert!("r".repeat(128).parse::<RequestId>().is_ok());
        for text in ["", "a b", "a\n", "ü", "\u{202e}x", &"r".repeat(129)] {
            assert!(text.parse::<RequestId>().is_err(), "{text:?}");
        }
    }
}
