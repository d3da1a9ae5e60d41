//! SPIFFE IDs in their canonical bytes only, and the actors and runtimes they name.
//!
//! Nothing is normalised: an id that is not already canonical is refused (SPIFFE-ID sections 2.1 to 2.4). An actor is
//! `spiffe://<trust-domain>/<site>/<principal>`, a runtime `spiffe://<trust-domain>/<site>/runtime/<name>`, so that
//! neither can ever be taken for the other.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::domain::id::{self, RuntimeId, Segment, SiteId};

/// Longest accepted SPIFFE ID in bytes (SPIFFE-ID section 2.3).
const SPIFFE_ID_BYTES_MAX: usize = 2_048;
/// Longest accepted trust domain in bytes (SPIFFE-ID section 2.3).
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

const SCHEME: &str = "spiffe://";
pub(super) const RUNTIME_MARK: &str = "runtime";

/// Why a SPIFFE ID was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than 2,048 bytes.
    #[error("wanted at most {SPIFFE_ID_BYTES_MAX} bytes, got {0}")]
    TooLong(usize),
    /// Does not begin with `spiffe://`.
    #[error("wanted an id that begins with spiffe://")]
    Scheme,
    /// Nothing stands where the trust domain is wanted.
    #[error("wanted a trust domain, got nothing")]
    TrustDomainMissing,
    /// The trust domain is longer than 255 bytes.
    #[error("wanted a trust domain of at most {TRUST_DOMAIN_BYTES_MAX} bytes, got {0}")]
    TrustDomainTooLong(usize),
    /// A character that a trust domain may not have.
    #[error("wanted lower-case letters, digits, '.', '-' or '_' in the trust domain, got {0:?}")]
    TrustDomainCharacter(char),
    /// The path ends in a slash.
    #[error("wanted a path without a trailing slash")]
    TrailingSlash,
    /// A path segment is not legal.
    #[error("path segment: {0}")]
    Segment(#[source] id::Error),
    /// A well-formed SPIFFE ID that does not name an actor.
    #[error("wanted spiffe://<trust-domain>/<site>/<principal>, got {0} path segments")]
    NotAnActor(usize),
}

/// A trust domain: `[a-z0-9._-]{1,255}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The domain's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::TrustDomainMissing);
        }
        if text.len() > TRUST_DOMAIN_BYTES_MAX {
            return Err(Error::TrustDomainTooLong(text.len()));
        }
        let is_legal = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, '.' | '-' | '_');
        match text.chars().find(|it| !is_legal(*it)) {
            Some(bad) => Err(Error::TrustDomainCharacter(bad)),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Any canonical SPIFFE ID, with its path already cut into segments.
///
/// A segment may be as long as the whole id allows; only the segments that become our own names have the 64 byte limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeId {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The path's segments, none for the trust domain itself.
    pub path: Vec<String>,
}

impl FromStr for SpiffeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(Error::TooLong(text.len()));
        }
        let rest = text.strip_prefix(SCHEME).ok_or(Error::Scheme)?;
        let (domain, path) = match rest.split_once('/') {
            None => (rest, None),
            Some((domain, path)) => (domain, Some(path)),
        };
        let trust_domain = domain.parse()?;
        let path = path.map_or_else(|| Ok(Vec::new()), parse_path)?;
        Ok(Self { trust_domain, path })
    }
}

fn parse_path(path: &str) -> Result<Vec<String>, Error> {
    if path.is_empty() || path.ends_with('/') {
        return Err(Error::TrailingSlash);
    }
    path.split('/').map(parse_path_segment).collect()
}

fn parse_path_segment(text: &str) -> Result<String, Error> {
    match text.parse::<Segment>() {
        Ok(_) => Ok(text.to_owned()),
        // The SPIFFE grammar has no limit of its own for one segment.
        Err(id::Error::TooLong { .. }) => text
            .chars()
            .find(|it| !(it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_')))
            .map_or_else(|| Ok(text.to_owned()), |bad| Err(Error::Segment(id::Error::Character(bad)))),
        Err(error) => Err(Error::Segment(error)),
    }
}

impl SpiffeId {
    /// The id of a runtime: `spiffe://<trust-domain>/<site>/runtime/<name>`.
    pub fn of_runtime(trust_domain: &TrustDomain, runtime: &RuntimeId) -> Self {
        let path = vec![runtime.site.to_string(), RUNTIME_MARK.to_owned(), runtime.name.to_string()];
        Self { trust_domain: trust_domain.clone(), path }
    }

    /// The runtime that this id names, if it names one.
    pub fn as_runtime(&self) -> Option<RuntimeId> {
        let [site, mark, name] = self.path.as_slice() else { return None };
        if mark != RUNTIME_MARK {
            return None;
        }
        Some(RuntimeId::new(site.parse().ok()?, name.parse().ok()?))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}", self.trust_domain)?;
        self.path.iter().try_for_each(|segment| write!(formatter, "/{segment}"))
    }
}

/// Who asks: `spiffe://<trust-domain>/<site>/<principal>`, canonical.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The site that vouches for the actor.
    pub site: SiteId,
    /// The person, group or program.
    pub principal: Segment,
}

impl FromStr for Actor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let id: SpiffeId = text.parse()?;
        let [site, principal] = id.path.as_slice() else {
            return Err(Error::NotAnActor(id.path.len()));
        };
        Ok(Self {
            site: site.parse().map_err(Error::Segment)?,
            principal: principal.parse().map_err(Error::Segment)?,
            trust_domain: id.trust_domain,
        })
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}/{}/{}", self.trust_domain, self.site, self.principal)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_never_an_actor_nor_an_actor_a_runtime() {
        let runtime = "spiffe://trust/site-a/runtime/r1";
        assert_eq!(runtime.parse::<Actor>(), Err(Error::NotAnActor(3)));
        assert!(runtime.parse::<SpiffeId>().expect("legal").as_runtime().is_some());
        let actor = "spiffe://trust/site-a/alice";
        assert_eq!(actor.parse::<Actor>().expect("legal").to_string(), actor);
        assert!(actor.parse::<SpiffeId>().expect("legal").as_runtime().is_none());
    }
}
