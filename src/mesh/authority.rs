//! The authorities of the mesh tests' sites, and the nodes that they vouch for.

use std::sync::Arc;

use rcgen::{CertificateParams, SanType};

use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::identity::anchors::Trust;
use crate::domain::identity::{Bans, Subject};
use crate::tls::support::{Clock, NOW, Proof, Site, trust};
use crate::tls::{Identity, Snapshot, WallClock};

/// The authority of a test site.
pub(super) struct Authority {
    issuer: Site,
    site: SiteId,
}

impl Authority {
    /// That of the site `s`.
    pub(super) fn new() -> Self {
        Self::of("s")
    }

    pub(super) fn of(site: &'static str) -> Self {
        Self { issuer: Site::new(site), site: site.parse().expect("legal") }
    }

    /// What proves a node that is reached on loopback.
    pub(super) fn proof(&self, name: &str) -> Proof {
        self.changed(name, |_| {})
    }

    /// The same, changed in one respect.
    pub(super) fn changed(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Proof {
        self.issuer.issue(&format!("{}/runtime/{name}", self.site), |params| {
            params.subject_alt_names.push(address([127, 0, 0, 1]));
            change(params);
        })
    }

    /// Whom a node trusts that has this authority's anchor and those of others.
    fn trust(&self, others: &[&Self], bans: &str) -> Trust {
        let known: Vec<_> = others.iter().chain([&self]).map(|it| &it.issuer).collect();
        Trust { bans: bans.parse::<Bans>().expect("legal"), ..trust(&known) }
    }

    /// What a node of this name holds.
    pub(super) fn snapshot(&self, name: &str, proof: Proof, bans: &str) -> Snapshot {
        self.snapshot_knowing(&[], name, proof, bans)
    }

    /// The same, where other sites are known.
    pub(super) fn snapshot_knowing(&self, others: &[&Self], name: &str, (chain, key): Proof, bans: &str) -> Snapshot {
        let own = Subject::of_runtime(&self.runtime(name));
        Snapshot::new(chain, key, self.trust(others, bans), &own, NOW).expect("a snapshot")
    }

    /// A runtime of this site.
    pub(super) fn runtime(&self, name: &str) -> RuntimeId {
        format!("{}/{name}", self.site).parse().expect("legal")
    }

    pub(super) fn site(&self) -> &SiteId {
        &self.site
    }

    /// A node that is reached on loopback.
    pub(super) fn node(&self, name: &str) -> Arc<Identity> {
        self.node_at(name, &Arc::default())
    }

    /// The same, by this clock.
    pub(super) fn node_at(&self, name: &str, clock: &Arc<Clock>) -> Arc<Identity> {
        let snapshot = self.snapshot(name, self.proof(name), "");
        Identity::new(snapshot, Arc::clone(clock) as Arc<dyn WallClock>)
    }
}

pub(super) fn address(octets: [u8; 4]) -> SanType {
    SanType::IpAddress(octets.into())
}
