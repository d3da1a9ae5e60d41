//! The mesh's keys: built from names, and parsed back into them (DESIGN, *Mesh keys*).
//!
//! Every key starts with the discovery service's name. Parsing is total: whatever a stranger puts on the mesh is either one
//! of the documented keys or a [`Malformed`], and a wildcard expression is never a key.

use std::fmt;

use crate::domain::id::{self, RuntimeId, Segment, SiteId};
use crate::mesh::{Document, Verb};

/// The discovery service's name where nothing else is configured.
pub const SERVICE_DEFAULT: &str = "truST";

/// Segments of the longest documented key, `<service>/<site>/<runtime>/svc/rpc/<verb>/<origin-site>/<origin-runtime>`.
const SEGMENTS_MAX: usize = 8;

/// What a key names. Whoever wrote the key chose these names, so they prove nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// `<runtime>/_meta/identity` or `<runtime>/diag/observation`.
    Document {
        /// Whose document.
        runtime: RuntimeId,
        /// Which one.
        document: Document,
    },
    /// `<runtime>/svc/liveliness/<boot>`.
    Liveliness {
        /// Whose token.
        runtime: RuntimeId,
        /// Its boot counter.
        boot: u64,
    },
    /// `<target>/svc/rpc/<verb>/<origin>`.
    Rpc {
        /// Who is asked.
        target: RuntimeId,
        /// What is asked.
        verb: Verb,
        /// Who asks.
        origin: RuntimeId,
    },
}

/// Why a text is none of the documented keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The boot counter is not a plain decimal number of 64 bits.
    #[error("wanted a decimal boot counter")]
    Boot,
    /// A site or runtime name is outside the grammar.
    #[error("in a key: {0}")]
    Name(#[from] id::Error),
    /// The key belongs to another service.
    #[error("wanted a key of this discovery service")]
    Service,
    /// The segments do not form a documented key.
    #[error("wanted one of the documented keys")]
    Shape,
    /// The verb is unknown.
    #[error("wanted one of the documented verbs")]
    Verb,
}

/// All keys of one discovery service.
#[derive(Clone, PartialEq, Eq)]
pub struct Space {
    service: Segment,
}

impl Space {
    /// The keys that start with `service`, which has to be one segment of plain characters.
    pub fn new(service: &str) -> Result<Self, id::Error> {
        Ok(Self { service: service.parse()? })
    }

    /// The key of a runtime's liveliness token.
    pub fn liveliness(&self, runtime: &RuntimeId, boot: u64) -> String {
        format!("{}/{runtime}/svc/liveliness/{boot}", self.service)
    }

    /// The expression that matches every liveliness token.
    pub fn every_liveliness(&self) -> String {
        format!("{}/*/*/svc/liveliness/*", self.service)
    }

    /// The key of a runtime's document.
    pub fn document(&self, runtime: &RuntimeId, document: Document) -> String {
        format!("{}/{runtime}/{}", self.service, suffix(document))
    }

    /// The expression that matches one kind of document of every runtime.
    pub fn every_document(&self, document: Document) -> String {
        format!("{}/*/*/{}", self.service, suffix(document))
    }

    /// The key on which `origin` asks `target`.
    pub fn rpc(&self, target: &RuntimeId, verb: Verb, origin: &RuntimeId) -> String {
        format!("{}/{target}/svc/rpc/{}/{origin}", self.service, verb.as_str())
    }

    /// The expression that matches everything asked of `target`.
    pub fn every_rpc(&self, target: &RuntimeId) -> String {
        format!("{}/{target}/svc/rpc/*/*/*", self.service)
    }

    /// The expression that holds everything asked of anybody, well formed or not.
    pub fn every_question(&self) -> String {
        format!("{}/*/*/svc/rpc/**", self.service)
    }

    /// The expression that matches every liveliness token of a site's runtimes.
    pub fn every_liveliness_of(&self, site: &SiteId) -> String {
        format!("{}/{site}/*/svc/liveliness/*", self.service)
    }

    /// The expression that matches one kind of document of a site's runtimes.
    pub fn every_document_of(&self, site: &SiteId, document: Document) -> String {
        format!("{}/{site}/*/{}", self.service, suffix(document))
    }

    /// The expression that holds everything asked of a site's runtimes, well formed or not.
    pub fn every_question_to(&self, site: &SiteId) -> String {
        format!("{}/{site}/*/svc/rpc/**", self.service)
    }

    /// The expression that matches everything that one site's runtimes are asked by another's.
    pub fn every_question_between(&self, of: &SiteId, by: &SiteId) -> String {
        format!("{}/{of}/*/svc/rpc/*/{by}/*", self.service)
    }

    /// Parses a key.
    pub fn parse(&self, text: &str) -> Result<Key, Malformed> {
        // One more than the longest key, so that a longer text is seen as such without being split to its end.
        let segments: Vec<&str> = text.split('/').take(SEGMENTS_MAX.saturating_add(1)).collect();
        let [service, site, name, rest @ ..] = segments.as_slice() else {
            return Err(Malformed::Shape);
        };
        if *service != self.service.as_str() {
            return Err(Malformed::Service);
        }
        match rest {
            ["_meta", "identity"] => Ok(Key::Document { runtime: runtime(site, name)?, document: Document::Identity }),
            ["diag", "observation"] => {
                Ok(Key::Document { runtime: runtime(site, name)?, document: Document::Observation })
            }
            ["svc", "liveliness", boot] => {
                Ok(Key::Liveliness { runtime: runtime(site, name)?, boot: parse_boot(boot)? })
            }
            ["svc", "rpc", verb, origin_site, origin_name] => Ok(Key::Rpc {
                target: runtime(site, name)?,
                verb: verb.parse().map_err(|()| Malformed::Verb)?,
                origin: runtime(origin_site, origin_name)?,
            }),
            _ => Err(Malformed::Shape),
        }
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/**", self.service)
    }
}

const fn suffix(document: Document) -> &'static str {
    match document {
        Document::Identity => "_meta/identity",
        Document::Observation => "diag/observation",
    }
}

fn runtime(site: &str, name: &str) -> Result<RuntimeId, id::Error> {
    Ok(RuntimeId::new(site.parse()?, name.parse()?))
}

/// Only the form that [`Space::liveliness`] writes: two texts for one boot would be two tokens for one life.
fn parse_boot(text: &str) -> Result<u64, Malformed> {
    let boot: u64 = text.parse().map_err(|_not_a_number| Malformed::Boot)?;
    if boot.to_string() == text { Ok(boot) } else { Err(Malformed::Boot) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space() -> Space {
        Space::new(SERVICE_DEFAULT).expect("legal service")
    }

    fn named(text: &str) -> RuntimeId {
        text.parse().expect("legal runtime")
    }

    #[test]
    fn the_keys_are_the_documented_ones() {
        let (space, a, b) = (space(), named("plant-1/a"), named("plant-2/b"));
        assert_eq!(space.liveliness(&a, 7), "truST/plant-1/a/svc/liveliness/7");
        assert_eq!(space.document(&a, Document::Identity), "truST/plant-1/a/_meta/identity");
        assert_eq!(space.document(&a, Document::Observation), "truST/plant-1/a/diag/observation");
        assert_eq!(space.rpc(&a, Verb::Act, &b), "truST/plant-1/a/svc/rpc/act/plant-2/b");
        assert_eq!(space.every_rpc(&a), "truST/plant-1/a/svc/rpc/*/*/*");
    }

    #[test]
    fn what_is_built_parses_back() {
        let (space, a, b) = (space(), named("plant-1/a.b-c_d"), named("s/t"));
        for boot in [0, 1, u64::MAX] {
            let key = space.liveliness(&a, boot);
            assert_eq!(space.parse(&key), Ok(Key::Liveliness { runtime: a.clone(), boot }));
        }
        for document in [Document::Identity, Document::Observation] {
            let key = space.document(&a, document);
            assert_eq!(space.parse(&key), Ok(Key::Document { runtime: a.clone(), document }));
        }
        for verb in Verb::ALL {
            let key = space.rpc(&a, verb, &b);
            assert_eq!(space.parse(&key), Ok(Key::Rpc { target: a.clone(), verb, origin: b.clone() }));
        }
    }

    #[test]
    fn hostile_keys_are_refused_by_reason() {
        let name = |error| Err(Malformed::Name(error));
        let long = "a".repeat(65);
        let cases: Vec<(String, Result<Key, Malformed>)> = vec![
            (String::new(), Err(Malformed::Shape)),
            ("/".into(), Err(Malformed::Shape)),
            ("truST".into(), Err(Malformed::Shape)),
            ("truST/s/r".into(), Err(Malformed::Shape)),
            ("trust/s/r/_meta/identity".into(), Err(Malformed::Service)),
            ("truST/s/r/_meta/identity/".into(), Err(Malformed::Shape)),
            ("truST/s/r/_meta/identity/x".into(), Err(Malformed::Shape)),
            ("truST/s/r/svc/liveliness".into(), Err(Malformed::Shape)),
            ("truST/s/r/svc/liveliness/-1".into(), Err(Malformed::Boot)),
            ("truST/s/r/svc/liveliness/+1".into(), Err(Malformed::Boot)),
            ("truST/s/r/svc/liveliness/01".into(), Err(Malformed::Boot)),
            ("truST/s/r/svc/liveliness/1e3".into(), Err(Malformed::Boot)),
            ("truST/s/r/svc/liveliness/18446744073709551616".into(), Err(Malformed::Boot)),
            ("truST/s/r/svc/liveliness/*".into(), Err(Malformed::Boot)),
            ("truST/s/r/svc/rpc/erase/s/r".into(), Err(Malformed::Verb)),
            ("truST/s/r/svc/rpc/ACT/s/r".into(), Err(Malformed::Verb)),
            ("truST/s/r/svc/rpc/*/s/r".into(), Err(Malformed::Verb)),
            ("truST/s/r/svc/rpc/act/s/r/extra".into(), Err(Malformed::Shape)),
            ("truST/*/r/_meta/identity".into(), name(id::Error::Character('*'))),
            ("truST/**/_meta/identity".into(), Err(Malformed::Shape)),
            ("truST//r/_meta/identity".into(), name(id::Error::Empty)),
            ("truST/../r/_meta/identity".into(), name(id::Error::DotSegment("..".into()))),
            ("truST/s/r\u{202e}/_meta/identity".into(), name(id::Error::Character('\u{202e}'))),
            ("truST/s/r\0/_meta/identity".into(), name(id::Error::Character('\0'))),
            (format!("truST/s/{long}/diag/observation"), name(id::Error::TooLong { max: 64, got: 65 })),
            ("a/".repeat(100_000), Err(Malformed::Service)),
        ];
        for (text, wanted) in cases {
            assert_eq!(space().parse(&text), wanted, "{:.80}", text);
        }
    }

    #[test]
    fn a_service_is_one_plain_segment() {
        for text in ["", "a/b", "*", "a b", "$*", ".."] {
            assert!(Space::new(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_canonical(text in "(truST|x)?(/([a-z*.0-9]{0,3}|svc|rpc|act|liveliness|_meta|identity|diag|observation)){0,9}") {
            let space = space();
            let back = space.parse(&text).map(|key| match key {
                Key::Document { runtime, document } => space.document(&runtime, document),
                Key::Liveliness { runtime, boot } => space.liveliness(&runtime, boot),
                Key::Rpc { target, verb, origin } => space.rpc(&target, verb, &origin),
            });
            prop_assert!(back.is_err() || back == Ok(text));
        }
    }
}
