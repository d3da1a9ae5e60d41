//! Who is shut out although a path to an anchor exists: certificates, keys and ids, as a text that people can read.
//!
//! One ban a line: `certificate <hex>`, `key <hex>` or `id <SPIFFE ID>`; what follows `#` is for people. A list with a line
//! that cannot be read is refused as a whole, because a ban that is skipped is a ban that is lifted.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::domain::identity::{ActorError, Fingerprint, NotHex, SpiffeId, TrustDomain};

/// Most bans of one list. Certificates are short-lived, so old bans can go; more than this is a list that nobody tends.
pub const BANS_MAX: usize = 10_000;

/// One thing that is shut out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ban {
    /// One certificate, by the SHA-256 of its DER.
    Certificate(Fingerprint),
    /// Every certificate with this public key, by the SHA-256 of its SubjectPublicKeyInfo.
    Key(Fingerprint),
    /// Every certificate with this id: its trust domain and the segments of its path.
    Id(TrustDomain, Vec<String>),
}

/// Why a line is no ban.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BanFault {
    /// The first word is none of the three.
    #[error("wanted `certificate <hex>`, `key <hex>` or `id <SPIFFE ID>`, got {0:?}")]
    Shape(String),
    /// Not a fingerprint.
    #[error("{0}")]
    Hex(#[from] NotHex),
    /// Not a SPIFFE ID.
    #[error("{0}")]
    Id(#[from] ActorError),
}

/// Why a list was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BansFault {
    /// A line cannot be read.
    #[error("line {line}: {fault}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        fault: BanFault,
    },
    /// Too many.
    #[error("wanted at most {BANS_MAX} bans: remove those whose certificates have expired")]
    TooMany,
}

/// What is shut out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bans(BTreeSet<Ban>);

impl Bans {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this very ban is there.
    pub fn has(&self, ban: &Ban) -> bool {
        self.0.contains(ban)
    }

    /// Every ban, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Ban> {
        self.0.iter()
    }

    /// Adds a ban. Gives whether it is new.
    pub fn add(&mut self, ban: Ban) -> bool {
        self.0.insert(ban)
    }

    /// The ban that shuts this certificate or its key out.
    pub fn on_certificate(&self, certificate: Fingerprint, key: Fingerprint) -> Option<Ban> {
        [Ban::Certificate(certificate), Ban::Key(key)].into_iter().find(|ban| self.has(ban))
    }

    /// The ban that shuts this id out.
    pub fn on_id(&self, id: &SpiffeId) -> Option<Ban> {
        Some(Ban::of_id(id)).filter(|ban| self.has(ban))
    }
}

impl FromStr for Bans {
    type Err = BansFault;

    fn from_str(text: &str) -> Result<Self, BansFault> {
        let mut bans = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line_text = line.split('#').next().unwrap_or_default().trim();
            if line_text.is_empty() {
                continue;
            }
            let ban = line_text.parse().map_err(|fault| BansFault::Line { line: index.saturating_add(1), fault })?;
            if bans.add(ban) && bans.len() > BANS_MAX {
                return Err(BansFault::TooMany);
            }
        }
        Ok(bans)
    }
}

impl Ban {
    /// A ban of an id.
    pub fn of_id(id: &SpiffeId) -> Self {
        Self::Id(id.trust_domain.clone(), id.path.clone())
    }
}

impl FromStr for Ban {
    type Err = BanFault;

    fn from_str(text: &str) -> Result<Self, BanFault> {
        match text.split_once(' ') {
            Some(("certificate", hex)) => Ok(Self::Certificate(hex.parse()?)),
            Some(("key", hex)) => Ok(Self::Key(hex.parse()?)),
            Some(("id", id)) => Ok(Self::of_id(&id.parse()?)),
            Some(_) | None => Err(BanFault::Shape(text.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for Ban {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(fingerprint) => write!(formatter, "certificate {fingerprint}"),
            Self::Key(fingerprint) => write!(formatter, "key {fingerprint}"),
            Self::Id(domain, path) => {
                let id = SpiffeId { trust_domain: domain.clone(), path: path.clone() };
                write!(formatter, "id {id}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_is_written() {
        let hex = "0b".repeat(32);
        let text = format!("# lost in May\n\ncertificate {hex}\nkey {hex} # panel 3\nid spiffe://trust/s/alice\n");
        let bans: Bans = text.parse().expect("a list");
        assert_eq!(bans.len(), 3);
        // Whoever asks first whether there is any ban at all must not be told that there is none.
        assert!(!bans.is_empty());
        assert!(Bans::default().is_empty());
        let print = Fingerprint([11; 32]);
        let other = Fingerprint([12; 32]);
        assert_eq!(bans.on_certificate(print, other), Some(Ban::Certificate(print)));
        assert_eq!(bans.on_certificate(other, print), Some(Ban::Key(print)));
        assert_eq!(bans.on_certificate(other, other), None);
        assert!(bans.on_id(&"spiffe://trust/s/alice".parse().expect("an id")).is_some());
        assert!(bans.on_id(&"spiffe://trust/s/alice2".parse().expect("an id")).is_none());
        assert!(!bans.clone().add(Ban::Key(print)), "it is there");
        assert!(bans.clone().add(Ban::Key(other)), "it is new");
        let again: String = bans.iter().map(|ban| format!("{ban}\n")).collect();
        assert_eq!(again.parse(), Ok(bans));
    }

    #[test]
    fn a_list_with_one_unreadable_line_is_no_list() {
        for line in ["key", "key 12", "keys 00", "id https://trust/a", "spiffe://trust/s/a", "KEY 00", "key  00"] {
            let text = format!("id spiffe://trust/s/a\n{line}\n");
            assert!(matches!(text.parse::<Bans>(), Err(BansFault::Line { line: 2, .. })), "{line}");
        }
    }

    #[test]
    fn a_list_ends_at_its_limit() {
        let list = |count: usize| (0..count).map(|it| format!("id spiffe://trust/s/a{it}\n")).collect::<String>();
        assert!(list(BANS_MAX).parse::<Bans>().is_ok());
        assert_eq!(list(BANS_MAX + 1).parse::<Bans>(), Err(BansFault::TooMany));
    }
}
