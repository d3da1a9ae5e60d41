//! What an agent on this machine has offered last. It is kept in memory alone, and a reload takes it up as it does files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::tls::Offered;

/// The newest offer that belongs together, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Offers {
    newest: ArcSwapOption<Offered>,
    count: AtomicU64,
}

impl Offers {
    /// What was offered last, if anything was.
    pub(super) fn newest(&self) -> Option<Arc<Offered>> {
        self.newest.load_full()
    }

    /// Rises with each offer.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Puts an offer in the place of the one before, unless it is the same.
    #[cfg(feature = "spire")]
    pub(super) fn put(&self, offered: Offered) -> bool {
        let is_new = self.newest.load().as_deref() != Some(&offered);
        if is_new {
            self.newest.store(Some(Arc::new(offered)));
            self.count.fetch_add(1, Ordering::AcqRel);
        }
        is_new
    }
}
