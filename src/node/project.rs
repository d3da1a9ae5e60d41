//! The project folder behind a running node: what of its files is taken up while it runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use crate::domain::identity::authority::Authority;
use crate::domain::identity::token::TokenId;
use crate::domain::time::Wall;
use crate::handle::{Rejected, Reloaded};
use crate::node::assemble::engine_settings;
use crate::node::bundles::{self, Bundles, Federation};
use crate::node::certificates::{self, CertificateTrust};
use crate::node::clock::Clock;
use crate::node::reload::{Fresh, Sources, Stamp};
use crate::settings::{self, FILE_NAME, Settings, tokens};
use crate::tls;
use crate::web::Credentials;

/// What a change of certificate, anchors or bans is called.
const CERTIFICATES: &str = "certificates";

/// What a change of the own bundle, or of what is known of a partner's, is called.
const BUNDLES: &str = "bundles";

/// The files of one project, and what of them is in force.
pub(super) struct Project {
    folder: PathBuf,
    state: PathBuf,
    environment: Vec<(String, String)>,
    in_force: Arc<Mutex<InForce>>,
    credentials: Arc<Credentials>,
    in_use: InUse,
    noted: Mutex<BTreeMap<TokenId, Wall>>,
}

/// The certificates that listeners and words use, changed in place.
#[derive(Debug, Clone)]
pub(super) struct InUse {
    /// The node's identity.
    pub(super) identity: Option<Arc<tls::Identity>>,
    /// The listener's certificate of another PKI.
    pub(super) provisioned: Option<Arc<tls::Provisioned>>,
}

/// What was read of both, checked.
struct ReadCertificates {
    identity: Option<tls::Snapshot>,
    provisioned: Option<Arc<tls::Provisioned>>,
}

/// What of the files is in force.
pub(super) struct InForce {
    pub(super) settings: Settings,
    pub(super) tokens: tokens::Tokens,
    pub(super) federation: Federation,
}

impl Project {
    pub(super) fn new(
        folder: &Path,
        state: &Path,
        environment: Vec<(String, String)>,
        in_force: InForce,
        credentials: Arc<Credentials>,
        in_use: InUse,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            state: state.to_owned(),
            environment,
            in_force: Arc::new(Mutex::new(in_force)),
            credentials,
            in_use,
            noted: Mutex::default(),
        }
    }

    fn read_settings(&self) -> Result<Settings, Rejected> {
        let rejected = |reason| Rejected { what: FILE_NAME.to_owned(), reason };
        let settings = settings::load(&self.folder, self.environment.iter().cloned());
        let settings = settings.map_err(|problems| rejected(problems.to_string()))?;
        match settings::preconditions(&settings).first() {
            None => Ok(settings),
            Some(missing) => Err(rejected(format!("{}: {}", missing.setting, missing.reason))),
        }
    }

    fn read_certificates(&self, settings: &Settings) -> Result<ReadCertificates, Rejected> {
        let rejected = |reason| Rejected { what: CERTIFICATES.to_owned(), reason };
        let identity = self.read_identity(settings).map_err(rejected)?;
        let files =
            certificates::provisioned_files(&self.folder, settings).filter(|_| self.in_use.provisioned.is_some());
        let provisioned = files.map(|(certificate, key)| tls::Provisioned::load(&certificate, &key)).transpose();
        let provisioned = provisioned.map_err(|error| rejected(error.to_string()))?;
        Ok(ReadCertificates { identity, provisioned })
    }

    /// The certificate may be renewed while the node runs, by proof of the same key; another key is another identity.
    fn read_identity(&self, settings: &Settings) -> Result<Option<tls::Snapshot>, String> {
        let sources = certificates::sources(&self.folder, settings);
        let (Some(identity), Some(sources)) = (&self.in_use.identity, sources) else { return Ok(None) };
        let snapshot = certificates::load(&sources, settings, &self.state, Clock::start().now().wall);
        let snapshot = snapshot.map_err(|error| error.to_string())?;
        if snapshot.own().svid.key == identity.snapshot().own().svid.key {
            return Ok(Some(snapshot));
        }
        Err(format!("{}: has another key, which takes a restart", sources.svid.display()))
    }
}

impl InUse {
    fn differs_from(&self, read: &ReadCertificates) -> bool {
        let identity = match (&self.identity, &read.identity) {
            (Some(identity), Some(read)) => {
                let in_use = identity.snapshot();
                in_use.own().svid.certificate != read.own().svid.certificate
                    || Authority::new(in_use.trust().clone()) != Authority::new(read.trust().clone())
            }
            (Some(_), None) | (None, _) => false,
        };
        let provisioned = match (&self.provisioned, &read.provisioned) {
            (Some(in_use), Some(read)) => !in_use.presents_same_as(read),
            (Some(_), None) | (None, _) => false,
        };
        identity || provisioned
    }

    fn take(&self, read: ReadCertificates) {
        if let (Some(identity), Some(snapshot)) = (&self.identity, read.identity) {
            identity.swap(snapshot);
        }
        if let (Some(in_use), Some(read)) = (&self.provisioned, &read.provisioned) {
            in_use.become_like(read);
        }
    }
}

impl Sources for Project {
    fn stamp(&self) -> Stamp {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = certificates::sources(&self.folder, &in_force.settings);
        let identity = identity.map(|it| {
            let anchors = it.anchors.into_iter().map(|(_site, path)| path);
            [it.svid, it.key].into_iter().chain(it.bans).chain(anchors).collect::<Vec<_>>()
        });
        let provisioned = certificates::provisioned_files(&self.folder, &in_force.settings);
        let provisioned = provisioned.into_iter().flat_map(|(certificate, key)| [certificate, key]);
        let files = [self.folder.join(FILE_NAME), self.state.join(tokens::TOKENS_FILE)].into_iter();
        let files = files.chain(identity.into_iter().flatten()).chain(provisioned);
        let own = in_force.settings.identity.bundle_path.as_ref().map(|path| self.folder.join(path));
        let bundles = Bundles::of(&self.state, &in_force.settings).files().into_iter().chain(own);
        Stamp(files.chain(bundles).map(|path| stamp_of(&path)).collect())
    }

    fn read(&self) -> Result<Fresh, Vec<Rejected>> {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.read_settings();
        let tokens = tokens::load(&self.state, in_force.settings.site())
            .map_err(|error| Rejected { what: tokens::TOKENS_FILE.to_owned(), reason: error.to_string() });
        let read = self.read_certificates(&in_force.settings);
        let snapshot = read.as_ref().ok().and_then(|read| read.identity.as_ref());
        let federation = bundles::federation(&self.folder, &self.state, &in_force.settings, snapshot)
            .map_err(|error| Rejected { what: BUNDLES.to_owned(), reason: error.to_string() });
        let (file, tokens, read, federation) = match (file, tokens, read, federation) {
            (Ok(file), Ok(tokens), Ok(read), Ok(federation)) => (file, tokens, read, federation),
            (file, tokens, read, federation) => {
                let rejected = file.err().into_iter().chain(tokens.err()).chain(read.err()).chain(federation.err());
                return Err(rejected.collect());
            }
        };
        let changes = in_force.settings.changes_to(&file);
        let next = in_force.settings.with_live_of(&file);
        let mut applied: Vec<String> = changes.live.iter().map(|it| (*it).to_owned()).collect();
        applied.extend((tokens != in_force.tokens).then(|| tokens::TOKENS_FILE.to_owned()));
        applied.extend((federation != in_force.federation).then(|| BUNDLES.to_owned()));
        drop(in_force);
        applied.extend(self.in_use.differs_from(&read).then(|| CERTIFICATES.to_owned()));
        let trust = read.identity.as_ref().map(CertificateTrust::of).unwrap_or_default().with(federation.clone());
        let settings = Arc::new(engine_settings(&next, trust));
        let in_use = self.in_use.clone();
        let (credentials, in_force) = (Arc::clone(&self.credentials), Arc::clone(&self.in_force));
        let take = Box::new(move || {
            credentials.replace_tokens(tokens.clone());
            in_use.take(read);
            *in_force.lock().unwrap_or_else(PoisonError::into_inner) = InForce { settings: next, tokens, federation };
        });
        let needs_restart = changes.restart.iter().map(|it| (*it).to_owned()).collect();
        Ok(Fresh { settings, reloaded: Reloaded { applied, needs_restart, rejected: Vec::new() }, take })
    }

    fn note(&self) {
        let uses = self.credentials.uses();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if *noted == uses {
            return;
        }
        let tokens = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).tokens.clone();
        match tokens::note_uses(&self.state, &tokens, &uses) {
            Ok(()) => *noted = uses,
            Err(error) => tracing::warn!(%error, "when tokens were last used could not be noted"),
        }
    }
}

/// Length and time of the last change; zeros where there is no file.
fn stamp_of(path: &Path) -> (u64, u128) {
    let Ok(metadata) = fs::metadata(path) else { return (0, 0) };
    let changed = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    (metadata.len(), changed.unwrap_or_default().as_nanos())
}
