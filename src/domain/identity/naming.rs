//! Whom a SPIFFE ID names here: a site and in it an actor or a runtime, whatever of the two forms a plant writes ids in.
//!
//! `path-site` keeps every site in one trust domain: `spiffe://trust/site-a/alice`. `domain-site` gives each site a trust
//! domain of its own below the common one: `spiffe://site-a.trust/alice`. In both a runtime has the segment `runtime` before
//! its name and an actor does not, so that neither is ever taken for the other. A certificate that is read by the wrong form
//! names nobody.

use std::fmt;

use crate::domain::id::{self, RuntimeId, Segment, SiteId};
use crate::domain::identity::actor::RUNTIME_MARK;
use crate::domain::identity::{Actor, ActorError, SpiffeId, TrustDomain};

/// Where an id says its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mapping {
    /// In the first segment of the path.
    PathSite,
    /// In the trust domain, before the common one.
    DomainSite,
}

/// Why an id names nobody here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamingError {
    /// The id is of another trust domain.
    #[error("wanted an id of trust domain {wanted}, got {got}: compare runtime.identity.trust_domain and mapping")]
    TrustDomain {
        /// What ids begin with here.
        wanted: String,
        /// What this one begins with.
        got: TrustDomain,
    },
    /// The path has neither of the two shapes.
    #[error("wanted {wanted}, got {got} path segments: issue a certificate with an id of that form")]
    Shape {
        /// The two shapes.
        wanted: &'static str,
        /// How many segments there are.
        got: usize,
    },
    /// A site or a name that is no name here.
    #[error("{0}: names here have 1 to 64 letters, digits, '.', '-' or '_'")]
    Name(#[source] id::Error),
    /// A site that cannot be part of a trust domain.
    #[error("site {site} cannot stand in a trust domain ({source}): use lower-case letters, or mapping path-site")]
    Site {
        /// The site.
        site: SiteId,
        /// What a trust domain wants.
        source: ActorError,
    },
}

/// Whom an id or a certificate names: a site's actor or a site's runtime.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The site that vouches for the subject.
    pub site: SiteId,
    /// Which of the site's.
    pub name: SubjectName,
}

/// One of the two kinds of subjects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubjectName {
    /// A person, group or program.
    Actor(Segment),
    /// A node.
    Runtime(Segment),
}

impl Subject {
    /// A runtime as the subject of a certificate.
    pub fn of_runtime(runtime: &RuntimeId) -> Self {
        Self { site: runtime.site.clone(), name: SubjectName::Runtime(runtime.name.clone()) }
    }

    /// The runtime, if it is one.
    pub fn as_runtime(&self) -> Option<RuntimeId> {
        match &self.name {
            SubjectName::Runtime(name) => Some(RuntimeId::new(self.site.clone(), name.clone())),
            SubjectName::Actor(_) => None,
        }
    }

    /// The principal, if it is an actor.
    pub fn as_principal(&self) -> Option<&Segment> {
        match &self.name {
            SubjectName::Actor(principal) => Some(principal),
            SubjectName::Runtime(_) => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            SubjectName::Actor(name) => write!(formatter, "actor {}/{name}", self.site),
            SubjectName::Runtime(name) => write!(formatter, "runtime {}/{name}", self.site),
        }
    }
}

/// How ids are read and written here: the common trust domain and the place of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// The trust domain that all ids here share, as a whole or as an ending.
    pub trust_domain: TrustDomain,
    /// Where the site is.
    pub mapping: Mapping,
}

impl Naming {
    /// The trust domain whose authority speaks for a site.
    pub fn domain_of(&self, site: &SiteId) -> Result<TrustDomain, NamingError> {
        match self.mapping {
            Mapping::PathSite => Ok(self.trust_domain.clone()),
            Mapping::DomainSite => format!("{site}.{}", self.trust_domain)
                .parse()
                .map_err(|source| NamingError::Site { site: site.clone(), source }),
        }
    }

    /// The site whose authority's trust domain this is, where each site has one of its own.
    pub fn site_of(&self, trust_domain: &TrustDomain) -> Option<SiteId> {
        let site = trust_domain.as_str().strip_suffix(self.trust_domain.as_str())?.strip_suffix('.')?;
        let site: SiteId = site.parse().ok()?;
        (self.mapping == Mapping::DomainSite).then_some(site)
    }

    /// Who is named by this id.
    pub fn subject(&self, id: &SpiffeId) -> Result<Subject, NamingError> {
        match self.mapping {
            Mapping::PathSite if id.trust_domain != self.trust_domain => {
                Err(self.foreign(self.trust_domain.to_string(), id))
            }
            Mapping::PathSite => {
                let wanted = "/<site>/<principal> or /<site>/runtime/<name>";
                let (site, rest) = id.path.split_first().ok_or(NamingError::Shape { wanted, got: 0 })?;
                subject(site, rest, id, wanted)
            }
            Mapping::DomainSite => {
                let site = id.trust_domain.as_str().strip_suffix(self.trust_domain.as_str());
                let site = site.and_then(|site| site.strip_suffix('.'));
                let site = site.ok_or_else(|| self.foreign(format!("<site>.{}", self.trust_domain), id))?;
                subject(site, &id.path, id, "/<principal> or /runtime/<name>")
            }
        }
    }

    /// The id of this subject.
    pub fn id_of(&self, subject: &Subject) -> Result<SpiffeId, NamingError> {
        let trust_domain = self.domain_of(&subject.site)?;
        let site = match self.mapping {
            Mapping::PathSite => Some(subject.site.to_string()),
            Mapping::DomainSite => None,
        };
        let (mark, name) = match &subject.name {
            SubjectName::Actor(name) => (None, name),
            SubjectName::Runtime(name) => (Some(RUNTIME_MARK.to_owned()), name),
        };
        let path = site.into_iter().chain(mark).chain([name.to_string()]).collect();
        Ok(SpiffeId { trust_domain, path })
    }

    /// The actor in the one form that envelopes, rules and the audit log use, whatever form its certificate has.
    pub fn actor(&self, subject: &Subject) -> Option<Actor> {
        let principal = subject.as_principal()?.clone();
        Some(Actor { trust_domain: self.trust_domain.clone(), site: subject.site.clone(), principal })
    }

    fn foreign(&self, wanted: String, id: &SpiffeId) -> NamingError {
        NamingError::TrustDomain { wanted, got: id.trust_domain.clone() }
    }
}

fn subject(site: &str, rest: &[String], id: &SpiffeId, wanted: &'static str) -> Result<Subject, NamingError> {
    let name = match rest {
        [principal] => SubjectName::Actor(principal.parse().map_err(NamingError::Name)?),
        [mark, name] if mark == RUNTIME_MARK => SubjectName::Runtime(name.parse().map_err(NamingError::Name)?),
        _ => return Err(NamingError::Shape { wanted, got: id.path.len() }),
    };
    Ok(Subject { site: site.parse().map_err(NamingError::Name)?, name })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naming(mapping: Mapping) -> Naming {
        Naming { trust_domain: "trust".parse().expect("legal"), mapping }
    }

    fn read(mapping: Mapping, id: &str) -> Result<String, NamingError> {
        naming(mapping).subject(&id.parse().expect("a SPIFFE id")).map(|subject| subject.to_string())
    }

    #[test]
    fn both_forms_name_the_same_subjects() {
        use Mapping::{DomainSite, PathSite};
        for (mapping, id, subject) in [
            (PathSite, "spiffe://trust/site-a/alice", "actor site-a/alice"),
            (PathSite, "spiffe://trust/site-a/runtime/r1", "runtime site-a/r1"),
            (PathSite, "spiffe://trust/site-a/runtime", "actor site-a/runtime"),
            (DomainSite, "spiffe://site-a.trust/alice", "actor site-a/alice"),
            (DomainSite, "spiffe://site-a.trust/runtime/r1", "runtime site-a/r1"),
            (DomainSite, "spiffe://hall.1.trust/alice", "actor hall.1/alice"),
        ] {
            assert_eq!(read(mapping, id).as_deref(), Ok(subject), "{id}");
        }
    }

    #[test]
    fn what_the_other_form_names_is_nobody_here() {
        use Mapping::{DomainSite, PathSite};
        for (mapping, id) in [
            (PathSite, "spiffe://site-a.trust/alice"),
            (PathSite, "spiffe://trust2/site-a/alice"),
            (PathSite, "spiffe://trust"),
            (PathSite, "spiffe://trust/site-a"),
            (PathSite, "spiffe://trust/site-a/worker/r1"),
            (PathSite, "spiffe://trust/site-a/runtime/r1/x"),
            (DomainSite, "spiffe://trust/site-a/alice"),
            (DomainSite, "spiffe://xtrust/alice"),
            (DomainSite, "spiffe://.trust/alice"),
            (DomainSite, "spiffe://...trust/alice"),
            (DomainSite, "spiffe://site-a.trust.other/alice"),
            (DomainSite, "spiffe://site-a.trust"),
            (DomainSite, "spiffe://site-a.trust/worker/r1"),
        ] {
            assert!(read(mapping, id).is_err(), "{mapping:?} {id}");
        }
    }

    #[test]
    fn a_trust_domain_is_one_sites_only_where_each_site_has_its_own() {
        use Mapping::{DomainSite, PathSite};
        for (mapping, trust_domain, wanted) in [
            (DomainSite, "site-a.trust", Some("site-a")),
            (DomainSite, "hall.1.trust", Some("hall.1")),
            (DomainSite, "trust", None),
            (DomainSite, "xtrust", None),
            (DomainSite, "site-a.trust.other", None),
            (PathSite, "trust", None),
            (PathSite, "site-a.trust", None),
        ] {
            let site = naming(mapping).site_of(&trust_domain.parse().expect("legal"));
            assert_eq!(site.as_ref().map(SiteId::as_str), wanted, "{trust_domain}");
        }
    }

    #[test]
    fn a_site_in_capitals_has_no_trust_domain_of_its_own() {
        let site = "Site-A".parse().expect("a site");
        let refused = naming(Mapping::DomainSite).domain_of(&site).expect_err("refused").to_string();
        assert!(refused.contains("lower-case"), "{refused}");
        assert!(naming(Mapping::PathSite).domain_of(&site).is_ok());
    }

    proptest! {
        #[test]
        fn a_subject_is_read_back_from_its_id(site in "[a-z0-9._-]{1,40}", name in "[A-Za-z0-9._-]{1,64}", is_runtime: bool) {
            let (Ok(site), Ok(name)) = (site.parse::<SiteId>(), name.parse::<Segment>()) else { return Ok(()) };
            let name = if is_runtime { SubjectName::Runtime(name) } else { SubjectName::Actor(name) };
            let subject = Subject { site, name };
            for mapping in [Mapping::PathSite, Mapping::DomainSite] {
                let id = naming(mapping).id_of(&subject).expect("an id");
                prop_assert_eq!(id.to_string().parse::<SpiffeId>(), Ok(id.clone()));
                prop_assert_eq!(naming(mapping).subject(&id), Ok(subject.clone()));
                prop_assert_eq!(naming(mapping).actor(&subject).is_some(), !is_runtime);
            }
        }
    }
}
