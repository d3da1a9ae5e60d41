//! The project folder behind a running node: what of its files is taken up while it runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use crate::domain::identity::token::TokenId;
use crate::domain::time::Wall;
use crate::handle::{Rejected, Reloaded};
use crate::node::assemble::engine_settings;
use crate::node::reload::{Fresh, Sources, Stamp};
use crate::settings::{self, FILE_NAME, Settings, tokens};
use crate::web::Credentials;

/// The files of one project, and what of them is in force.
pub(super) struct Project {
    folder: PathBuf,
    state: PathBuf,
    environment: Vec<(String, String)>,
    in_force: Arc<Mutex<InForce>>,
    credentials: Arc<Credentials>,
    noted: Mutex<BTreeMap<TokenId, Wall>>,
}

struct InForce {
    settings: Settings,
    tokens: tokens::Tokens,
}

impl Project {
    pub(super) fn new(
        folder: &Path,
        state: &Path,
        environment: Vec<(String, String)>,
        settings: Settings,
        tokens: tokens::Tokens,
        credentials: Arc<Credentials>,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            state: state.to_owned(),
            environment,
            in_force: Arc::new(Mutex::new(InForce { settings, tokens })),
            credentials,
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
}

impl Sources for Project {
    fn stamp(&self) -> Stamp {
        let files = [self.folder.join(FILE_NAME), self.state.join(tokens::TOKENS_FILE)];
        Stamp(files.iter().map(|path| stamp_of(path)).collect())
    }

    fn read(&self) -> Result<Fresh, Vec<Rejected>> {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.read_settings();
        let tokens = tokens::load(&self.state, in_force.settings.site())
            .map_err(|error| Rejected { what: tokens::TOKENS_FILE.to_owned(), reason: error.to_string() });
        let (file, tokens) = match (file, tokens) {
            (Ok(file), Ok(tokens)) => (file, tokens),
            (file, tokens) => return Err(file.err().into_iter().chain(tokens.err()).collect()),
        };
        let changes = in_force.settings.changes_to(&file);
        let next = in_force.settings.with_live_of(&file);
        let mut applied: Vec<String> = changes.live.iter().map(|it| (*it).to_owned()).collect();
        applied.extend((tokens != in_force.tokens).then(|| tokens::TOKENS_FILE.to_owned()));
        drop(in_force);
        let settings = Arc::new(engine_settings(&next));
        let (credentials, in_force) = (Arc::clone(&self.credentials), Arc::clone(&self.in_force));
        let take = Box::new(move || {
            credentials.replace_tokens(tokens.clone());
            *in_force.lock().unwrap_or_else(PoisonError::into_inner) = InForce { settings: next, tokens };
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
