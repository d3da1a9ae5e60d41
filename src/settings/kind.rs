//! What the value of a key must be, and the check that a value is one.

use std::net::SocketAddr;
use std::str::FromStr;

use toml::value::Datetime;

use crate::domain::id::Segment;
use crate::domain::identity::TrustDomain;
use crate::settings::raw::Raw;
use crate::settings::when;

/// Longest accepted text in bytes: far above a path or a sentence, and a bound on what an error message repeats.
const TEXT_BYTES_MAX: usize = 4_096;

/// Most entries of one list or table: a list that a person can still review.
pub(crate) const ENTRIES_MAX: usize = crate::domain::policy::RULES_MAX;

/// The type of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An IP address with a port.
    Address,
    /// `true` or `false`.
    Bool,
    /// A whole number between these bounds, both included.
    Int {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// One segment of an identity.
    Name,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// Booleans, whole numbers or texts by name.
    Params,
    /// A file or folder.
    Path,
    /// A token that is never shown.
    Secret,
    /// Texts by name that are never shown.
    SecretMap,
    /// Any text with something in it.
    Text,
    /// A list of texts.
    TextList,
    /// Texts by name.
    TextMap,
    /// A moment with its offset.
    Time,
    /// A SPIFFE trust domain.
    TrustDomain,
    /// Three numbers with dots.
    Version,
}

impl Kind {
    /// What would be accepted, in words.
    pub fn wanted(self) -> String {
        match self {
            Self::Address => "an IP address and a port such as \"127.0.0.1:8080\"".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Int { min, max } if min == max => format!("the whole number {min}"),
            Self::Int { min, max } => format!("a whole number from {min} to {max}"),
            Self::Name => "a name of at most 64 letters, digits, '.', '-' or '_'".to_owned(),
            Self::OneOf(texts) => format!("one of {}", quoted(texts)),
            Self::Params => "a table of booleans, whole numbers or strings".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Secret => "a token of 1 to 1024 visible ASCII characters".to_owned(),
            Self::SecretMap | Self::TextMap => "a table of strings".to_owned(),
            Self::Text => "a string".to_owned(),
            Self::TextList => "a list of strings".to_owned(),
            Self::Time => "a moment with its offset such as 2030-01-31T08:00:00Z".to_owned(),
            Self::TrustDomain => "a trust domain of lower-case letters, digits, '.', '-' or '_'".to_owned(),
            Self::Version => "a version such as \"1.7.2\"".to_owned(),
        }
    }

    /// Whether a value of it must never be shown.
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretMap)
    }

    /// Whether one environment variable can hold it.
    pub const fn is_scalar(self) -> bool {
        !matches!(self, Self::Params | Self::SecretMap | Self::TextList | Self::TextMap)
    }

    /// Whether the value is one of this kind.
    pub(crate) fn accepts(self, value: &Raw) -> bool {
        match (self, value) {
            (Self::Bool, Raw::Bool(_)) => true,
            (Self::Int { min, max }, Raw::Int(number)) => (min..=max).contains(number),
            (Self::Time, Raw::Time(moment)) => when::wall(moment).is_some(),
            (Self::TextList, Raw::List(items)) => {
                items.len() <= ENTRIES_MAX && items.iter().all(|item| item.value.text().is_some_and(is_text))
            }
            (Self::TextMap | Self::SecretMap, Raw::Table(entries)) => {
                entries.len() <= ENTRIES_MAX && entries.values().all(|it| it.node.value.text().is_some_and(is_text))
            }
            (Self::Params, Raw::Table(entries)) => {
                let is_scalar = |it: &Raw| matches!(it, Raw::Bool(_) | Raw::Int(_)) || it.text().is_some_and(is_text);
                entries.len() <= ENTRIES_MAX && entries.values().all(|it| is_scalar(&it.node.value))
            }
            (kind, Raw::Text(text)) => kind.accepts_text(text),
            (_, _) => false,
        }
    }

    fn accepts_text(self, text: &str) -> bool {
        match self {
            Self::Address => SocketAddr::from_str(text).is_ok(),
            Self::Name => Segment::from_str(text).is_ok(),
            Self::OneOf(texts) => texts.contains(&text),
            Self::Path | Self::Text => !text.is_empty() && is_text(text),
            Self::Secret => (1..=1_024).contains(&text.len()) && text.chars().all(|it| it.is_ascii_graphic()),
            Self::Time => Datetime::from_str(text).is_ok_and(|moment| when::wall(&moment).is_some()),
            Self::TrustDomain => TrustDomain::from_str(text).is_ok(),
            Self::Version => Version::from_str(text).is_ok(),
            Self::Bool | Self::Int { .. } | Self::Params | Self::SecretMap | Self::TextList | Self::TextMap => false,
        }
    }

    /// What was given, for an error message: the entry at fault where only one is.
    pub(crate) fn got(self, value: &Raw) -> String {
        let items: Vec<&Raw> = match (self, value) {
            (Self::TextList, Raw::List(items)) => items.iter().map(|item| &item.value).collect(),
            (Self::TextMap | Self::Params, Raw::Table(entries)) => entries.values().map(|it| &it.node.value).collect(),
            (_, _) => Vec::new(),
        };
        if items.len() > ENTRIES_MAX {
            return format!("{} entries, and at most {ENTRIES_MAX} are read", items.len());
        }
        let is_fine = |item: &Raw| {
            let is_plain = self == Self::Params && matches!(item, Raw::Bool(_) | Raw::Int(_));
            is_plain || item.text().is_some_and(is_text)
        };
        match items.into_iter().find(|item| !is_fine(item)) {
            Some(item) => format!("{} with {}", value.type_name(), item.shown()),
            None => value.shown(),
        }
    }

    /// What to type instead, where the value shows what was meant.
    pub(crate) fn hint(self, value: &Raw) -> Option<String> {
        match (self, value) {
            (Self::Address, Raw::Text(text)) => address_hint(text),
            (Self::Address, Raw::Int(port)) => Some(format!("write \"127.0.0.1:{port}\"")),
            (Self::OneOf(texts), Raw::Text(text)) => {
                nearest(texts.iter().copied(), text).map(|it| format!("did you mean \"{it}\"?"))
            }
            (Self::Int { .. }, Raw::Text(text)) if text.parse::<i64>().is_ok() => {
                Some("write it without quotes".into())
            }
            (Self::Bool, Raw::Text(text)) if text == "true" || text == "false" => {
                Some("write it without quotes".into())
            }
            (Self::TextList, Raw::Text(_)) => Some("write it between [ and ]".into()),
            (Self::Params, Raw::Table(entries))
                if entries.values().any(|it| matches!(it.node.value, Raw::Table(_))) =>
            {
                Some("quote a name that has dots, such as \"log.level\"".into())
            }
            (_, _) => None,
        }
    }
}

fn address_hint(text: &str) -> Option<String> {
    let bare = text.split_once('/').map_or(text, |(_, rest)| rest);
    if let Some(port) = bare.strip_prefix("localhost:") {
        return Some(format!("write \"127.0.0.1:{}\"", port.chars().take(5).collect::<String>()));
    }
    if bare.parse::<SocketAddr>().is_ok() {
        return Some(format!("write \"{bare}\""));
    }
    let port = bare.strip_prefix(':').unwrap_or(bare);
    if port.parse::<u16>().is_ok() {
        return Some(format!("write \"127.0.0.1:{port}\""));
    }
    let given: u64 = bare.rsplit_once(':')?.1.parse().ok()?;
    (given > u64::from(u16::MAX)).then(|| "a port is at most 65535".to_owned())
}

/// The candidate with the fewest edits, if they are few enough to be a slip of the hand.
pub(crate) fn nearest<'a>(candidates: impl Iterator<Item = &'a str>, given: &str) -> Option<&'a str> {
    let limit = given.chars().count().wrapping_div(3).clamp(1, 4);
    candidates
        .map(|candidate| (crate::domain::config::distance(candidate, given), candidate))
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// A text that fits and can be handed to the operating system, which ends texts at NUL.
fn is_text(text: &str) -> bool {
    text.len() <= TEXT_BYTES_MAX && !text.contains('\0')
}

fn quoted(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(", ")
}

/// A version of three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Incompatible changes.
    pub major: u32,
    /// Additions.
    pub minor: u32,
    /// Corrections.
    pub patch: u32,
}

/// A text that is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted a version such as 1.7.2")]
pub struct NotAVersion;

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let mut parts = text.split('.').map(|part| match part.as_bytes() {
            [b'0', _, ..] | [b'+', ..] => None,
            _ => part.parse::<u32>().ok(),
        });
        let mut next = || parts.next().flatten().ok_or(NotAVersion);
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if parts.next().is_some() { Err(NotAVersion) } else { Ok(version) }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
