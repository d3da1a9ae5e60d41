//! The node's certificate identity as its settings name it: where the files lie, and what of them the parts of the node use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::identity::authority::Authority;
use crate::domain::identity::{Mapping, Naming, Subject};
use crate::domain::time::Wall;
use crate::node::clock::Clock;
use crate::node::keyring::{Error, OwnIdentity};
use crate::settings::{self, IdentitySource, Settings};
use crate::tls;

impl tls::WallClock for Clock {
    fn now(&self) -> Wall {
        Self::now(self).wall
    }
}

/// The files of the identity; none where the node makes its own key.
pub(super) fn sources(project: &Path, settings: &Settings) -> Option<tls::Sources> {
    let identity = &settings.identity;
    if identity.source == IdentitySource::Dev {
        return None;
    }
    let place = |path: &PathBuf| project.join(path);
    Some(tls::Sources {
        svid: identity.svid_path.as_ref().map(place)?,
        key: identity.key_path.as_ref().map(place)?,
        anchors: identity.anchors.iter().map(|anchor| (anchor.site.clone(), place(&anchor.path))).collect(),
        bans: identity.bans_path.as_ref().map(place),
    })
}

/// Reads and checks all files of the identity.
pub(super) fn load(sources: &tls::Sources, settings: &Settings, now: Wall) -> Result<tls::Snapshot, tls::LoadError> {
    let naming = Naming {
        trust_domain: settings.identity.trust_domain.clone(),
        mapping: match settings.identity.mapping {
            settings::Mapping::DomainSite => Mapping::DomainSite,
            settings::Mapping::PathSite => Mapping::PathSite,
        },
    };
    tls::load(sources, &naming, &Subject::of_runtime(&settings.runtime_id), now)
}

/// The certificate identity in use, if the settings ask for one.
pub(super) fn identity(project: &Path, settings: &Settings) -> Result<Option<Arc<tls::Identity>>, Error> {
    let Some(sources) = sources(project, settings) else { return Ok(None) };
    let clock = Clock::start();
    let snapshot = load(&sources, settings, clock.now().wall)?;
    Ok(Some(tls::Identity::new(snapshot, Arc::new(clock))))
}

/// Whose certificates count, by the snapshot in use.
pub(super) fn authority(identity: &OwnIdentity) -> Option<Authority> {
    match identity {
        OwnIdentity::Certificate(identity) => Some(Authority::new(identity.snapshot().trust().clone())),
        OwnIdentity::Key(_) => None,
    }
}
