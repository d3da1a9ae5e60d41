//! What this node has heard of where runs are, beside the pointers that it copies.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Shelf;
use crate::domain::run::{Pointer, RunId};
use crate::store::runs::{PointerChange, Replica};

/// Runs that are remembered where no copy names them: those of other sites, and those of the own one that are new. The oldest
/// go first.
const FOUND_MAX: usize = 1_024;

/// What is known of where runs are.
#[derive(Debug)]
pub(in crate::node) struct Known {
    pub(super) shelf: Shelf,
    /// Where runs were found that no copy names.
    found: Mutex<BTreeMap<RunId, Pointer>>,
}

impl Known {
    pub(super) fn new(shelf: Shelf) -> Self {
        Self { shelf, found: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, Pointer>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the run was found, if it was.
    pub(super) fn found(&self, run: RunId) -> Option<Pointer> {
        self.lock().get(&run).cloned()
    }

    pub(super) fn remember(&self, pointer: Pointer) {
        let mut found = self.lock();
        found.insert(pointer.run, pointer);
        if FOUND_MAX < found.len() {
            found.pop_first();
        }
    }

    /// Drops what was found of a run: a copied pointer says otherwise.
    pub(super) fn drop_found(&self, run: RunId) {
        self.lock().remove(&run);
    }

    /// Its owner has forgotten the run.
    pub(super) async fn forget(&self, pointer: &Pointer) {
        self.drop_found(pointer.run);
        let (owner, registry) = (pointer.owner.clone(), &self.shelf.registry);
        let (Ok(Some(_)), Ok(upto)) =
            (registry.lookup(pointer.run).await, registry.replicated_upto(owner.clone()).await)
        else {
            return;
        };
        let changes = vec![PointerChange::Forgotten(pointer.run)];
        if let Err(error) = registry.replicate(Replica { owner, is_restart: false, changes, upto }).await {
            tracing::debug!(%error, "a pointer to a forgotten run was not dropped");
        }
    }
}
