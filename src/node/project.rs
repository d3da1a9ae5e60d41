//! The project folder behind a running node: what of its files is taken up while it runs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::identity::Fingerprint;
use crate::domain::identity::authority::Authority;
use crate::domain::identity::token::TokenId;
use crate::domain::time::Wall;
use crate::engine::Entropy as _;
use crate::handle::{Rejected, Reloaded};
use crate::node::acceptance;
use crate::node::admin_token::{self, FILE as OWNER_FILE};
use crate::node::assemble::engine_settings;
use crate::node::bundles::{self, Bundles, Federation};
use crate::node::certificates::{self, CertificateTrust};
use crate::node::clock::{Clock, SystemEntropy};
use crate::node::offers::Offers;
use crate::node::partners::Partners;
use crate::node::reload::{Fresh, Sources, Stamp};
use crate::settings::tokens::{self, TOKENS_FILE};
use crate::settings::{self, FILE_NAME, Settings, Unmet};
use crate::tls;
use crate::web::Credentials;

/// What the own certificate is called in an answer.
const CERTIFICATES: &str = "certificates";

/// What anchors and bans are called in it.
const TRUST: &str = "anchors and bans";

/// What the listener's certificate of another PKI is called in it.
const LISTENER: &str = "the listener's certificate";

/// What a change of the own bundle, or of what is known of a partner's, is called.
const BUNDLES: &str = "bundles";

/// Told of the key that listeners are about to prove, before they do.
pub type NoteKey = Arc<dyn Fn(Fingerprint) + Send + Sync>;

/// The files of one project, and what of them is in force.
pub(super) struct Project {
    folder: PathBuf,
    state: PathBuf,
    environment: Vec<(String, String)>,
    in_force: Arc<Mutex<InForce>>,
    credentials: Arc<Credentials>,
    in_use: InUse,
    offers: Arc<Offers>,
    note_key: NoteKey,
    noted: Mutex<BTreeMap<TokenId, Wall>>,
    noting: acceptance::Noting,
}

/// What listeners, words and links use, changed in place.
#[derive(Debug, Clone)]
pub(super) struct InUse {
    /// The node's identity.
    pub(super) identity: Option<Arc<tls::Identity>>,
    /// The listener's certificate of another PKI.
    pub(super) provisioned: Option<Arc<tls::Provisioned>>,
    /// What runs for partners.
    pub(super) partners: Partners,
}

/// What of the files is in force.
#[derive(Clone)]
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
        (in_use, offers, note_key): (InUse, Arc<Offers>, NoteKey),
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            state: state.to_owned(),
            environment,
            in_force: Arc::new(Mutex::new(in_force)),
            credentials,
            in_use,
            offers,
            note_key,
            noted: Mutex::default(),
            noting: acceptance::Noting::default(),
        }
    }

    fn read_settings(&self) -> Result<Settings, Rejected> {
        let rejected = |reason| Rejected { what: FILE_NAME.to_owned(), reason };
        let environment = self.environment.iter().cloned();
        let reading = settings::read_project(&self.folder, environment, Unmet::Refuse);
        let reading = reading.map_err(|problems| rejected(problems.to_string()))?;
        match reading.missing.first() {
            None => Ok(reading.settings),
            Some(missing) => Err(rejected(format!("{}: {}", missing.setting, missing.reason))),
        }
    }

    fn read_tokens(&self, settings: &Settings) -> Result<tokens::Tokens, Rejected> {
        let rejected = |error: tokens::Error| Rejected { what: TOKENS_FILE.to_owned(), reason: error.to_string() };
        tokens::load(&self.state, settings.site()).map_err(rejected)
    }

    /// The owner's token; a missing file means that a new one is wanted.
    fn read_owner(&self) -> Result<Option<[u8; 32]>, Rejected> {
        let rejected = |error: std::io::Error| Rejected { what: OWNER_FILE.to_owned(), reason: error.to_string() };
        admin_token::load(&self.state).map_err(rejected)
    }

    /// Certificate and key may be replaced while the node runs: who it is does not hang on a key.
    fn read_identity(&self, settings: &Settings) -> Result<Option<tls::Snapshot>, Rejected> {
        let sources = certificates::sources(&self.folder, settings, &self.offers);
        let (Some(in_use), Some(sources)) = (&self.in_use.identity, sources) else { return Ok(None) };
        let rejected = |reason| Rejected { what: CERTIFICATES.to_owned(), reason };
        let in_use = in_use.snapshot();
        let snapshot =
            certificates::load(&sources, settings, &self.state, Some(in_use.as_ref()), Clock::start().now().wall);
        snapshot.map(Some).map_err(|error| rejected(error.to_string()))
    }

    /// What the files say of others although the own certificate in them cannot be used.
    fn read_trust(&self, settings: &Settings) -> Option<tls::Snapshot> {
        let sources = certificates::sources(&self.folder, settings, &self.offers)?;
        let in_use = self.in_use.identity.as_ref()?.snapshot();
        certificates::load_beside(&sources, settings, &self.state, &in_use)
    }

    /// Each bundle for itself: where one cannot be read, what was in force of it stays.
    fn read_federation(
        &self,
        settings: &Settings,
        read: Option<&tls::Snapshot>,
        known: &Federation,
        rejected: &mut Vec<Rejected>,
    ) -> Federation {
        let wrong = |reason| Rejected { what: BUNDLES.to_owned(), reason };
        let partners = Federation::of_partners(&self.state, settings, Some(known));
        rejected.extend(partners.damaged.values().cloned().map(wrong));
        let in_use = self.in_use.identity.as_ref().map(|it| it.snapshot());
        let own = bundles::own(&self.folder, settings, read.or(in_use.as_deref()));
        let own = sorted(own.map_err(|error| wrong(error.to_string())), rejected);
        Federation { own: own.unwrap_or_else(|| known.own.clone()), ..partners }
    }

    fn read_provisioned(&self, settings: &Settings) -> Result<Option<Arc<tls::Provisioned>>, Rejected> {
        let files = certificates::provisioned_files(&self.folder, settings);
        let Some((certificate, key)) = files.filter(|_| self.in_use.provisioned.is_some()) else { return Ok(None) };
        let rejected = |error: tls::ProvisionedError| Rejected { what: LISTENER.to_owned(), reason: error.to_string() };
        tls::Provisioned::load(&certificate, &key).map(Some).map_err(rejected)
    }
}

impl InUse {
    /// The parts of the snapshot that are not in use yet.
    fn changes_to(&self, read: Option<&tls::Snapshot>) -> impl Iterator<Item = &'static str> {
        let both = self.identity.as_ref().map(|it| it.snapshot()).zip(read);
        let is_renewed = both.as_ref().is_some_and(|(in_use, read)| in_use.chain() != read.chain());
        let is_trusting_others = both.is_some_and(|(in_use, read)| {
            Authority::new(in_use.trust().clone()) != Authority::new(read.trust().clone())
        });
        is_renewed.then_some(CERTIFICATES).into_iter().chain(is_trusting_others.then_some(TRUST))
    }

    fn presents_another(&self, read: Option<&Arc<tls::Provisioned>>) -> bool {
        self.provisioned.as_ref().zip(read).is_some_and(|(in_use, read)| !in_use.presents_same_as(read))
    }

    /// What the engine shall go on with: the snapshot, or else what is in use.
    fn trust(&self, read: Option<&tls::Snapshot>) -> CertificateTrust {
        let in_use = self.identity.as_ref().map(|it| it.snapshot());
        read.or(in_use.as_deref()).map(CertificateTrust::of).unwrap_or_default()
    }

    /// The key of the snapshot, if it is another one.
    fn next_key(&self, read: Option<&tls::Snapshot>) -> Option<Fingerprint> {
        let in_use = self.identity.as_ref()?.snapshot().own().svid.key;
        Some(read?.own().svid.key).filter(|next| *next != in_use)
    }

    fn take(&self, snapshot: Option<tls::Snapshot>, provisioned: Option<&Arc<tls::Provisioned>>) {
        if let (Some(identity), Some(snapshot)) = (&self.identity, snapshot) {
            identity.swap(snapshot);
        }
        if let (Some(in_use), Some(read)) = (&self.provisioned, provisioned) {
            in_use.become_like(read);
        }
    }
}

/// Gives what could be read, and puts aside why the rest could not.
fn sorted<T>(read: Result<T, Rejected>, rejected: &mut Vec<Rejected>) -> Option<T> {
    read.map_err(|it| rejected.push(it)).ok()
}

impl Sources for Project {
    fn stamp(&self) -> Stamp {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = certificates::sources(&self.folder, &in_force.settings, &self.offers);
        let identity = identity.map(|it| {
            let anchors = it.anchors.into_iter().map(|(_site, path)| path);
            let own = match it.own {
                tls::Own::Files { svid, key } => vec![acceptance::file_of(&key), svid, key],
                tls::Own::Offered(_) => Vec::new(),
            };
            own.into_iter().chain(it.bans).chain(anchors).collect::<Vec<_>>()
        });
        let provisioned = certificates::provisioned_files(&self.folder, &in_force.settings);
        let provisioned = provisioned.into_iter().flat_map(|(certificate, key)| [certificate, key]);
        let files = [self.folder.join(FILE_NAME), self.state.join(TOKENS_FILE)].into_iter();
        let files = files.chain(identity.into_iter().flatten()).chain(provisioned);
        let own = in_force.settings.identity.bundle_path.as_ref().map(|path| self.folder.join(path));
        let bundles = Bundles::of(&self.state, &in_force.settings).files().into_iter().chain(own);
        let owner = stamp_of_wanted(&self.state.join(OWNER_FILE));
        let offered = [(self.offers.count(), 0), owner];
        Stamp(files.chain(bundles).map(|path| stamp_of(&path)).chain(offered).collect())
    }

    fn read(&self) -> Fresh {
        let InForce { settings: before, tokens: tokens_before, federation: known } =
            self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut rejected = Vec::new();
        let file = sorted(self.read_settings(), &mut rejected);
        let changes = file.as_ref().map(|file| before.changes_to(file)).unwrap_or_default();
        let next = file.map_or_else(|| before.clone(), |file| before.with_live_of(&file));
        let tokens = sorted(self.read_tokens(&before), &mut rejected).unwrap_or_else(|| tokens_before.clone());
        let owner_before = self.credentials.owner();
        let owner = sorted(self.read_owner(), &mut rejected).unwrap_or(Some(owner_before));
        let snapshot = sorted(self.read_identity(&next), &mut rejected);
        let snapshot = snapshot.unwrap_or_else(|| self.read_trust(&next));
        let federation = self.read_federation(&next, snapshot.as_ref(), &known, &mut rejected);
        let provisioned = sorted(self.read_provisioned(&before), &mut rejected).flatten();
        let applied = changes.live.iter().copied();
        let applied = applied.chain((tokens != tokens_before).then_some(TOKENS_FILE));
        let applied = applied.chain((owner != Some(owner_before)).then_some(OWNER_FILE));
        let applied = applied.chain((federation != known).then_some(BUNDLES));
        let applied = applied.chain(self.in_use.changes_to(snapshot.as_ref()));
        let applied = applied.chain(self.in_use.presents_another(provisioned.as_ref()).then_some(LISTENER));
        let reloaded = Reloaded {
            applied: applied.map(str::to_owned).collect(),
            needs_restart: changes.restart.iter().map(|it| (*it).to_owned()).collect(),
            rejected,
        };
        let settings = Arc::new(engine_settings(&next, self.in_use.trust(snapshot.as_ref()).with(federation.clone())));
        let (in_use, in_force) = (self.in_use.clone(), Arc::clone(&self.in_force));
        let (credentials, note_key) = (Arc::clone(&self.credentials), Arc::clone(&self.note_key));
        let state = self.state.clone();
        let take = Box::new(move || {
            credentials.replace_tokens(tokens.clone());
            if owner != Some(owner_before) {
                credentials.replace_owner(owner.unwrap_or_else(|| new_owner(&state)));
            }
            if let Some(key) = in_use.next_key(snapshot.as_ref()) {
                note_key(key);
            }
            in_use.take(snapshot, provisioned.as_ref());
            in_use.partners.end_those_gone(&before, &next);
            *in_force.lock().unwrap_or_else(PoisonError::into_inner) = InForce { settings: next, tokens, federation };
        });
        Fresh { settings, reloaded, take }
    }

    fn note_anchors(&self) {
        let Some(identity) = &self.in_use.identity else { return };
        let settings = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).settings.clone();
        self.noting.attempt(|| certificates::note(&self.folder, &settings, &self.offers, &identity.snapshot()));
    }

    fn note(&self) {
        if self.noting.is_due() {
            self.note_anchors();
        }
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

/// A new token for the owner. Where none can be kept nobody has one: the old one was taken back.
fn new_owner(state: &Path) -> [u8; 32] {
    admin_token::load_or_create(state).unwrap_or_else(|error| {
        tracing::error!(%error, "no new admin token was made; remove what is in its place, or restart the node");
        let mut nobodys = [0; 32];
        SystemEntropy.fill(&mut nobodys);
        nobodys
    })
}

/// Which file it is and when it was changed last; zeros where there is none. The time is the one that nobody sets.
fn stamp_of(path: &Path) -> (u64, u128) {
    let Ok(metadata) = fs::metadata(path) else { return (0, 0) };
    let [seconds, nanos] = [metadata.ctime(), metadata.ctime_nsec()].map(|it| u128::try_from(it).unwrap_or_default());
    (metadata.ino(), seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The same for a file that has to be there: where it is not, each look differs from the one before, so that making it is tried
/// until it works.
fn stamp_of_wanted(path: &Path) -> (u64, u128) {
    match stamp_of(path) {
        (0, 0) => (0, Clock::start().now().wall.0.into()),
        stamp => stamp,
    }
}
