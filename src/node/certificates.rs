//! The node's certificate identity as its settings name it: where the files lie, and what of them the parts of the node use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;

use crate::domain::id::RuntimeId;
use crate::domain::identity::anchors::Trust;
use crate::domain::identity::authority::Authority;
use crate::domain::identity::{Fingerprint, Subject};
use crate::domain::time::Wall;
use crate::engine::view::OwnCertificate;
use crate::node::acceptance;
use crate::node::bundles::{self, Bundles, Federation};
use crate::node::clock::Clock;
use crate::node::draft::sweep;
use crate::node::keyring::{Error, OwnIdentity};
use crate::node::offers::Offers;
use crate::settings::{IdentitySource, Settings, TlsMode};
use crate::tls;
use crate::web;

/// Most CA certificates that a call may rest on.
const AUTHORITIES_MAX: usize = 64;

impl tls::WallClock for Clock {
    fn now(&self) -> Wall {
        Self::now(self).wall
    }
}

/// Where the identity comes from; nothing where the node makes its own key.
pub(super) fn sources(project: &Path, settings: &Settings, offers: &Offers) -> Option<tls::Sources> {
    let identity = &settings.identity;
    let place = |path: &PathBuf| project.join(path);
    let own = match identity.source {
        IdentitySource::Dev => return None,
        IdentitySource::Files => tls::Own::Files {
            svid: identity.svid_path.as_ref().map(place)?,
            key: identity.key_path.as_ref().map(place)?,
        },
        IdentitySource::Spire => tls::Own::Offered(offers.newest()?),
    };
    Some(tls::Sources {
        own,
        anchors: identity.anchors.iter().map(|anchor| (anchor.site.clone(), place(&anchor.path))).collect(),
        bans: identity.bans_path.as_ref().map(place),
    })
}

/// Reads and checks all files of the identity, with the authorities that partners have named since.
pub(super) fn load(
    sources: &tls::Sources,
    settings: &Settings,
    state: &Path,
    before: Option<&tls::Snapshot>,
    now: Wall,
) -> Result<tls::Snapshot, Error> {
    let (known, naming) = (Bundles::of(state, settings).all(), settings.identity.naming());
    let own = Subject::of_runtime(&settings.runtime_id);
    let read = tls::load_with(sources, &known.in_place(), &naming, &own, now)?;
    acceptance::check(sources, settings, &read).map_err(Box::new)?;
    Ok(keeping(&known, settings, before, &read).unwrap_or(read))
}

/// What the files say of others, beside the own certificate that is in use.
pub(super) fn load_beside(
    sources: &tls::Sources,
    settings: &Settings,
    state: &Path,
    in_use: &tls::Snapshot,
) -> Option<tls::Snapshot> {
    let known = Bundles::of(state, settings).all();
    let read = tls::load_beside(sources, &known.in_place(), &settings.identity.naming(), in_use)?;
    let read = match acceptance::check(sources, settings, &read) {
        Ok(()) => read,
        Err(_told_of_before) => read.trusting(with_own_of(in_use, settings, read.trust())?).ok()?,
    };
    Some(keeping(&known, settings, Some(in_use), &read).unwrap_or(read))
}

/// With the own site's anchors that are in use.
fn with_own_of(in_use: &tls::Snapshot, settings: &Settings, read: &Trust) -> Option<Trust> {
    let (site, mut trust) = (settings.site(), read.clone());
    trust.anchors.keep(&in_use.trust().anchors, &trust.naming.domain_of(site).ok()?, site);
    Some(trust)
}

/// Notes that the own site's anchors in this snapshot are in use.
pub(super) fn note(
    project: &Path,
    settings: &Settings,
    offers: &Offers,
    in_use: &tls::Snapshot,
) -> Result<(), acceptance::NotNoted> {
    let sources = sources(project, settings, offers);
    sources.map_or(Ok(()), |sources| acceptance::note(&sources, settings, in_use))
}

/// With the anchors that are in force for the sites whose bundle cannot be read.
fn keeping(
    known: &bundles::Known,
    settings: &Settings,
    before: Option<&tls::Snapshot>,
    read: &tls::Snapshot,
) -> Option<tls::Snapshot> {
    let (before, mut trust) = (before?, read.trust().clone());
    for site in known.damaged.keys() {
        trust.anchors.keep(&before.trust().anchors, &settings.identity.naming().domain_of(site).ok()?, site);
    }
    read.trusting(trust).ok()
}

/// The certificate identity in use, if the settings ask for one.
pub(super) fn identity(
    project: &Path,
    settings: &Settings,
    offers: &Offers,
) -> Result<Option<Arc<tls::Identity>>, Error> {
    let Some(sources) = sources(project, settings, offers) else { return Ok(None) };
    if let tls::Own::Files { svid, key } = &sources.own {
        sweep([svid.as_path(), key.as_path(), &acceptance::file_of(key)]);
    }
    let clock = Clock::start();
    let snapshot = load(&sources, settings, &project.join(&settings.store.path), None, clock.now().wall)?;
    acceptance::tell_if_unasked(&sources, settings);
    // Where it fails, the first look at the files tries again and tells.
    acceptance::note(&sources, settings, &snapshot).ok();
    Ok(Some(tls::Identity::new(snapshot, Arc::new(clock))))
}

/// What of the files that the settings name would keep a node from starting, or from being believed: all of it at once, as a start
/// would find it. Nothing is written, and no agent is asked.
pub fn faults(project: &Path, settings: &Settings) -> Vec<Error> {
    let (offers, clock, mut faults) = (Offers::default(), Clock::start(), Vec::new());
    let mut sorted = |fault: Error| faults.push(fault);
    let state = project.join(&settings.store.path);
    let snapshot = sources(project, settings, &offers).and_then(|sources| {
        let known = Bundles::of(&state, settings).all();
        let unread = tls::files::faults(&sources, &known.in_place(), &settings.identity.naming());
        if unread.is_empty() {
            return load(&sources, settings, &state, None, clock.now().wall).map_err(&mut sorted).ok();
        }
        unread.into_iter().for_each(|fault| sorted(Error::Certificate(fault.into())));
        None
    });
    if let Some((certificate, key)) = provisioned_files(project, settings) {
        let presented = tls::Provisioned::load(&certificate, &key).map_err(|fault| sorted(fault.into())).ok();
        let ended = presented.and_then(|it| it.ends()).filter(|ends| *ends < clock.now().wall);
        if ended.is_some() {
            sorted(Error::Ended(certificate));
        }
    }
    if let Some(authorities) = &settings.tls.ca_path {
        authorities_in(&project.join(authorities)).map_err(&mut sorted).ok();
    }
    bundles::own(project, settings, snapshot.as_ref()).map_err(|fault| sorted(fault.into())).ok();
    faults
}

/// How the certificate in use is renewed, if the settings name somebody to ask: another node, or the authority's folder here.
pub(super) fn renewing(
    project: &Path,
    settings: &Settings,
    identity: Option<&Arc<tls::Identity>>,
) -> Option<super::Renewing> {
    let me = &settings.runtime_id;
    let issuer = match (&settings.identity.renew_from, &settings.identity.authority) {
        (Some(name), _) => RuntimeId::new(me.site.clone(), name.clone()),
        (None, Some(_)) => me.clone(),
        (None, None) => return None,
    };
    let (svid, key) = (settings.identity.svid_path.as_ref()?, settings.identity.key_path.as_ref()?);
    let (svid, key) = (project.join(svid), project.join(key));
    Some(super::Renewing { identity: Arc::clone(identity?), svid, key, issuer })
}

/// How the listener speaks TLS, as the settings ask for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Listener {
    /// What is handed to it; absent for plain text.
    pub(super) secure: Option<web::Secure>,
    /// The certificate of another PKI, where it presents one.
    pub(super) provisioned: Option<Arc<tls::Provisioned>>,
}

/// The files of the listener's own certificate, where it is of another PKI.
pub(super) fn provisioned_files(project: &Path, settings: &Settings) -> Option<(PathBuf, PathBuf)> {
    let tls = &settings.tls;
    let is_provisioned = settings.web.enabled && settings.web.tls && tls.mode == TlsMode::Provisioned;
    if !is_provisioned {
        return None;
    }
    Some((project.join(tls.cert_path.as_ref()?), project.join(tls.key_path.as_ref()?)))
}

/// Reads what the listener presents and makes its TLS configuration.
pub(super) fn listener(
    project: &Path,
    settings: &Settings,
    identity: Option<&Arc<tls::Identity>>,
) -> Result<Listener, Error> {
    if !(settings.web.tls && (settings.web.enabled || settings.admin.enabled)) {
        return Ok(Listener::default());
    }
    let provisioned =
        provisioned_files(project, settings).map(|(certificate, key)| tls::Provisioned::load(&certificate, &key));
    let provisioned = provisioned.transpose()?;
    let config = match (&provisioned, identity) {
        (Some(presented), identity) => tls::provisioned_server(Arc::clone(presented), identity)?,
        (None, Some(identity)) => tls::server(identity, tls::ClientCertificates::Optional)?,
        (None, None) => return Err(Error::NoCertificate),
    };
    let secure = web::Secure { config, identity: identity.cloned(), provisioned: provisioned.clone() };
    Ok(Listener { secure: Some(secure), provisioned })
}

/// How the command line of this project calls the project's own node, whose listener presents a certificate of another PKI.
pub fn own_client(project: &Path, settings: &Settings) -> Result<ClientConfig, Error> {
    let authorities = settings.tls.ca_path.as_ref().ok_or(Error::NoCertificate)?;
    client_by(&project.join(authorities))
}

/// How it calls the project's own node otherwise: by the key that the node has noted beside its address.
pub fn client_of_key(key: Fingerprint) -> Result<ClientConfig, Error> {
    Ok(tls::pinned::client(key)?)
}

/// How the command line calls any node whose certificate these CAs have issued for its address.
pub fn client_by(authorities: &Path) -> Result<ClientConfig, Error> {
    Ok(tls::plain_client(authorities_in(authorities)?)?)
}

/// The CA certificates in a PEM file.
fn authorities_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    tls::files::certificates(path, AUTHORITIES_MAX).map_err(Error::Authorities)
}

/// What the engine is told of certificates: whose count, and when the own one holds.
#[derive(Debug, Clone, Default)]
pub(super) struct CertificateTrust {
    pub(super) authority: Option<Authority>,
    pub(super) own: Option<OwnCertificate>,
    pub(super) federation: Federation,
}

impl CertificateTrust {
    pub(super) fn of(snapshot: &tls::Snapshot) -> Self {
        let own = snapshot.own();
        let authority = Some(Authority::new(snapshot.trust().clone()).asked_of_own(snapshot.chain(), own.until));
        let own = OwnCertificate { key: own.svid.key, from: own.svid.not_before, until: own.until };
        Self { authority, own: Some(own), federation: Federation::default() }
    }

    pub(super) fn with(self, federation: Federation) -> Self {
        Self { federation, ..self }
    }
}

/// By the identity in use.
pub(super) fn trust(identity: &OwnIdentity) -> CertificateTrust {
    match identity {
        OwnIdentity::Certificate(identity) => CertificateTrust::of(&identity.snapshot()),
        OwnIdentity::Key(_) => CertificateTrust::default(),
    }
}
