//! Files that changed while the node runs.
//!
//! Each of them is taken up as a whole or not at all, and for itself: a token that is revoked, a rule or a ban must not go on, or
//! wait, because another file cannot be read. Certificate, anchors and bans belong together and change as one; where the own
//! certificate cannot be used, anchors and bans are taken up beside the one in force.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::code::Code;
use crate::domain::identity::{Actor, Role};
use crate::domain::preflight::Asker;
use crate::engine::input::Request as EngineRequest;
use crate::engine::view;
use crate::handle::{Failure, Rejected, Reloaded};
use crate::node::operations::NodeOperations;

/// How often the files are looked at. A revoked token or a changed rule counts within this and the reading.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How many looks lie between two notes: one minute.
const LOOKS_PER_NOTE: u32 = 120;

/// What was read. Where a file is not valid, what is in force stands in its place.
pub struct Fresh {
    /// What the engine runs with from now on.
    pub settings: Arc<view::Settings>,
    /// What the caller is told.
    pub reloaded: Reloaded,
    /// Takes up what stands outside the engine.
    pub take: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Fresh {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Fresh").field("reloaded", &self.reloaded).finish_non_exhaustive()
    }
}

/// The files behind a running node.
pub trait Sources: Send + Sync {
    /// Something that differs whenever a file may differ. Cheap, because it is asked all the time.
    fn stamp(&self) -> Stamp;

    /// Reads and checks everything; nothing is changed yet.
    fn read(&self) -> Fresh;

    /// Notes whose anchors are in use, after each reading: beside the key may stand another word since, as of whoever has accepted
    /// the very anchors that are in use.
    fn note_anchors(&self);

    /// Notes what is worth keeping and not worth a commit, such as when a token was last used; and again what could not be noted.
    fn note(&self);
}

/// Names a state of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp(pub Vec<(u64, u128)>);

impl NodeOperations {
    /// Reads everything again. One reload at a time, so that two never mix their halves.
    pub(super) async fn reload(&self, asker: Asker) -> Result<Reloaded, Failure> {
        let _one_at_a_time = self.reloading.lock().await;
        let failure = |error| {
            let reason = format!("the files could not be read: {error}");
            Failure { code: Code::Interrupted, reason }
        };
        let sources = Arc::clone(&self.sources);
        let read = tokio::task::spawn_blocking(move || sources.read()).await;
        let Fresh { settings, reloaded, take } = read.map_err(failure)?;
        if !reloaded.applied.is_empty() {
            let detail = reloaded.applied.join(", ");
            self.tell_engine(&asker, &settings, &detail).await?;
            take();
        }
        let sources = Arc::clone(&self.sources);
        tokio::task::spawn_blocking(move || sources.note_anchors()).await.map_err(failure)?;
        Ok(reloaded)
    }

    /// Before all that waits: what is taken back must not be done by an envelope that came before and was held up by the disk.
    /// A store that fails at this very moment goes read-only, and then holds nothing up: what is taken back must not go on
    /// because it cannot be put on record.
    async fn tell_engine(&self, asker: &Asker, settings: &Arc<view::Settings>, detail: &str) -> Result<(), Failure> {
        let ask = || EngineRequest::Reload {
            asker: asker.clone(),
            settings: Arc::clone(settings),
            detail: detail.to_owned(),
        };
        match self.ask_engine_first(ask()).await {
            Err(failure) if failure.code == Code::StorageUnavailable => self.ask_engine_first(ask()).await.map(drop),
            answer => answer.map(drop),
        }
    }

    /// Reloads whenever a file has changed, until the node stops. What is rejected is logged once per change.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        // Everything is read once more at the first look: it may have changed since the start read it.
        let mut seen = Stamp::default();
        let mut looks: u32 = 0;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_PER_NOTE) {
                self.sources.note();
            }
            let now = self.sources.stamp();
            // What could not be taken up is tried again at the next look.
            if now != seen && self.take_up_changes().await {
                seen = now;
            }
        }
        self.sources.note();
    }

    /// Reloads in the name of whoever changed the files: an owner of this machine's account. Gives whether the files count now, but
    /// for what was rejected.
    pub(super) async fn take_up_changes(&self) -> bool {
        let Some(asker) = self.owner() else { return false };
        match self.reload(asker).await {
            Ok(reloaded) => tell(&reloaded),
            Err(failure) => {
                tracing::error!(%failure, "changed files were not taken up yet");
                return false;
            }
        }
        true
    }

    fn owner(&self) -> Option<Asker> {
        let view = self.views.load();
        let actor = Actor {
            trust_domain: view.settings.trust_domain.clone(),
            site: view.me().site.clone(),
            principal: "local".parse().ok()?,
        };
        Some(Asker { actor, role: Role::Admin, is_verified: false })
    }
}

fn tell(reloaded: &Reloaded) {
    let Reloaded { applied, needs_restart, rejected } = reloaded;
    for Rejected { what, reason } in rejected {
        tracing::error!(%what, %reason, "a changed file is not valid; what was in force stays");
    }
    if !applied.is_empty() || !needs_restart.is_empty() {
        tracing::info!(?applied, ?needs_restart, "files were read again");
    }
}
