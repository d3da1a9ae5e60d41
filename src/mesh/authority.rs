//! The authority of the mesh tests' own site, and the nodes that it vouches for.

use std::sync::Arc;

use rcgen::{CertificateParams, SanType};

use crate::domain::identity::Bans;
use crate::domain::identity::anchors::Trust;
use crate::tls::support::{Clock, NOW, Proof, Site, trust};
use crate::tls::{Identity, Snapshot, WallClock};

/// The authority of the test site `s`.
pub(super) struct Authority(Site);

impl Authority {
    pub(super) fn new() -> Self {
        Self(Site::new("s"))
    }

    /// What proves a node that is reached on loopback.
    pub(super) fn proof(&self, name: &str) -> Proof {
        self.changed(name, |_| {})
    }

    /// The same, changed in one respect.
    pub(super) fn changed(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Proof {
        self.0.issue(&format!("s/runtime/{name}"), |params| {
            params.subject_alt_names.push(address([127, 0, 0, 1]));
            change(params);
        })
    }

    /// Whom a node trusts that has this authority's anchor.
    pub(super) fn trust(&self, bans: &str) -> Trust {
        Trust { bans: bans.parse::<Bans>().expect("legal"), ..trust(&[&self.0]) }
    }

    /// What a node of this name holds.
    pub(super) fn snapshot(&self, name: &str, (chain, key): Proof, bans: &str) -> Snapshot {
        Snapshot::new(chain, key, self.trust(bans), &self.0.subject(name), NOW).expect("a snapshot")
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
