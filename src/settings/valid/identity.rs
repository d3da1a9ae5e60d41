//! `[runtime.identity]`: who the node is, and whom it knows.

use std::path::PathBuf;

use crate::domain::id::{RuntimeId, Segment, SiteId};
use crate::domain::identity::{self, Naming, Role, TrustDomain};
use crate::domain::policy::Pattern;
use crate::domain::time::Millis;
use crate::settings::valid::{IdentitySource, Mapping};

/// Where the node's identity comes from and what others are granted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The trust domain of every SPIFFE ID.
    pub trust_domain: TrustDomain,
    /// Where an id says its site.
    pub mapping: Mapping,
    /// Where the own identity comes from.
    pub source: IdentitySource,
    /// The certificate chain; always there with source `files`.
    pub svid_path: Option<PathBuf>,
    /// The private key; always there with source `files`.
    pub key_path: Option<PathBuf>,
    /// Who is shut out.
    pub bans_path: Option<PathBuf>,
    /// Anchors by site, never pooled.
    pub anchors: Vec<Anchor>,
    /// The own site's bundle, where it is served.
    pub bundle_path: Option<PathBuf>,
    /// Sites known by their bundles, each once and never the own.
    pub partners: Vec<BundlePartner>,
    /// Grants, at most one for each actor pattern.
    pub grants: Vec<Grant>,
    /// The node of this site that is asked for the next certificate.
    pub renew_from: Option<Segment>,
    /// The folder of the site's authority, on the node that holds it.
    pub authority: Option<PathBuf>,
}

impl Identity {
    /// Whether anchors of this site are here, or come by its bundle or from an agent.
    pub(crate) fn knows(&self, site: &SiteId) -> bool {
        // An agent that federates says which trust domains it knows, and with this mapping each is a site's.
        let is_told = self.source == IdentitySource::Spire && self.mapping == Mapping::DomainSite;
        is_told || self.anchors.iter().any(|it| it.site == *site) || self.partners.iter().any(|it| it.site == *site)
    }

    /// How SPIFFE IDs are read and written here.
    pub fn naming(&self) -> Naming {
        self.mapping.naming(&self.trust_domain)
    }
}

impl Mapping {
    /// How ids are read and written with this mapping.
    pub(crate) fn naming(self, trust_domain: &TrustDomain) -> Naming {
        let mapping = match self {
            Self::DomainSite => identity::Mapping::DomainSite,
            Self::PathSite => identity::Mapping::PathSite,
        };
        Naming { trust_domain: trust_domain.clone(), mapping }
    }
}

/// The anchor certificates that speak for one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The site.
    pub site: SiteId,
    /// The file.
    pub path: PathBuf,
}

/// A site that is known by its trust bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundlePartner {
    /// The site.
    pub site: SiteId,
    /// Where its bundle is fetched; absent where it comes by files alone.
    pub endpoint: Option<BundleEndpoint>,
    /// How long after the endpoint's last confirmation writes go on.
    pub age_max: Millis,
}

/// Where a bundle is fetched, and who has to answer there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleEndpoint {
    /// An https address.
    pub url: String,
    /// Who answers.
    pub proof: EndpointProof,
}

/// How an endpoint proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointProof {
    /// By the certificate of this runtime, under the anchors known so far (`https_spiffe`).
    Runtime(RuntimeId),
    /// By a certificate for its name or address that leads to one of these CAs (`https_web`).
    Web(PathBuf),
}

/// The most that an actor may be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whom, as `<site>/<principal>` or `<site>/*`; ask it with `domain::policy::actor_name`.
    pub actor: Pattern,
    /// What.
    pub role: Role,
}
