//! Counts lost links, because Zenoh keeps something of each.
//!
//! Zenoh 1.10.2 forgets a neighbour that is gone only where nobody else listens to what it listened to (`send_close` in its
//! `dispatcher/face.rs`), and all nodes listen to the same documents: 2 to 4 KB stay of each lost link until the session is
//! closed. So sessions are opened anew once they have lost very many, and their memory has a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use zenoh::Wait as _;
use zenoh::sample::SampleKind;
use zenoh::session::TransportEvent;

use crate::mesh::zenoh::session::Opened;

/// After how many lost links sessions are opened anew: some 60 MB, and one more break after ten thousand.
pub(super) const LOST_MAX: u64 = 10_000;

/// The links that the sessions of a node have lost since they were opened.
#[derive(Debug)]
pub(super) struct Lost {
    count: AtomicU64,
    max: u64,
    enough: Notify,
}

impl Lost {
    /// Enough are `max`, and by chance up to a quarter more: one broken switch cuts all nodes of a plant as often, and they must
    /// not all be away at once.
    pub(super) fn of(max: u64) -> Arc<Self> {
        let chance = getrandom::u64().unwrap_or_default().checked_rem((max / 4).max(1)).unwrap_or_default();
        Arc::new(Self { count: AtomicU64::new(0), max: max.saturating_add(chance), enough: Notify::new() })
    }

    /// Counts what this session loses from now on.
    pub(super) fn watch(self: &Arc<Self>, opened: &Opened) -> zenoh::Result<()> {
        let lost = Arc::clone(self);
        let count = move |event: TransportEvent| {
            if event.kind() == SampleKind::Delete {
                lost.add_one();
            }
        };
        opened.session.info().transport_events_listener().callback(count).background().wait()
    }

    pub(super) fn add_one(&self) {
        if self.max <= self.count.fetch_add(1, Ordering::Relaxed).saturating_add(1) {
            self.enough.notify_one();
        }
    }

    /// Waits until it is time to open the sessions anew.
    pub(super) async fn enough(&self) {
        self.enough.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn enough_are_as_many_as_were_said_and_up_to_a_quarter_more() {
        for max in [1, 2, 400] {
            let lost = Lost::of(max);
            assert!((max..=max.saturating_add(max / 4)).contains(&lost.max), "{lost:?}");
            (1..lost.max).for_each(|_| lost.add_one());
            assert!(lost.enough().now_or_never().is_none(), "{lost:?}");
            lost.add_one();
            assert!(lost.enough().now_or_never().is_some(), "{lost:?}");
        }
        let all: std::collections::BTreeSet<u64> = (0..64).map(|_| Lost::of(LOST_MAX).max).collect();
        assert!(1 < all.len(), "{all:?}");
    }
}
