//! Runs of which nothing can be written at the moment, as on a full disk, and those who must not wait for that untold.
//!
//! Whatever became of such a run, nothing is shown of it before it is durable. So whoever waits for more is told that there is
//! nothing to wait for, and asks again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::run::RunId;

/// How long anybody waits untold for a run that is held up: longer than a disk is full that only has a file rotated.
const UNTOLD_MAX: Duration = Duration::from_secs(5);

/// The runs that are held up.
#[derive(Debug)]
pub(in crate::node) struct Held {
    untold: Duration,
    since: Mutex<BTreeMap<RunId, Since>>,
    /// Moves whenever there is one more or one less.
    moved: watch::Sender<u64>,
}

#[derive(Debug)]
struct Since {
    /// The moment from which on nobody waits untold.
    told_from: Option<Instant>,
    /// For how many reasons.
    holds: usize,
}

/// One reason why a run is held up, for as long as it lives.
#[derive(Debug)]
pub(super) struct Hold {
    held: Arc<Held>,
    run: Option<RunId>,
}

impl Default for Held {
    fn default() -> Self {
        Self::within(UNTOLD_MAX)
    }
}

impl Held {
    fn within(untold: Duration) -> Self {
        let (moved, _) = watch::channel(0);
        Self { untold, since: Mutex::default(), moved }
    }

    fn since(&self) -> MutexGuard<'_, BTreeMap<RunId, Since>> {
        // Nothing that runs under this lock can leave it half changed.
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// From now on this run is held up; since when it is counted from the first reason on.
    pub(super) fn hold(self: &Arc<Self>, run: RunId) -> Hold {
        let mut since = self.since();
        let entry =
            since.entry(run).or_insert_with(|| Since { told_from: Instant::now().checked_add(self.untold), holds: 0 });
        entry.holds = entry.holds.saturating_add(1);
        drop(since);
        self.tell();
        Hold { held: Arc::clone(self), run: Some(run) }
    }

    fn release(&self, run: RunId) {
        if let Entry::Occupied(mut entry) = self.since().entry(run) {
            entry.get_mut().holds = entry.get().holds.saturating_sub(1);
            if entry.get().holds == 0 {
                entry.remove();
            }
        }
        self.tell();
    }

    /// Waits until a run is held up for longer than anybody should wait untold; for ever if that never comes.
    pub(in crate::node) async fn too_long(&self, run: RunId) {
        let mut moved = self.moved.subscribe();
        loop {
            let until = self.since().get(&run).and_then(|since| since.told_from);
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = over => return,
                // The sender lives as long as this is borrowed.
                _ = moved.changed() => {}
            }
        }
    }
}

impl Hold {
    /// It is held up for the rest of this life.
    pub(super) fn stay(mut self) {
        self.run = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(run) = self.run {
            self.held.release(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::time::Wall;

    fn run_id(number: u8) -> RunId {
        RunId::new(Wall::from_millis(1), [number; 10])
    }

    async fn in_time(told: impl Future<Output = ()>) {
        tokio::time::timeout(Duration::from_secs(20), told).await.expect("told in time");
    }

    /// So long that no test sees the end of it.
    const EVER: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn who_waits_is_told_once_a_run_was_held_up_for_too_long_and_no_other() {
        let held = Arc::new(Held::within(Duration::from_millis(50)));
        let hold = held.hold(run_id(1));
        let again = held.hold(run_id(1));
        let mut waiting = Box::pin(held.too_long(run_id(1)));
        assert!((&mut waiting).now_or_never().is_none(), "not yet");
        drop(again);
        in_time(waiting).await;
        assert!(held.too_long(run_id(1)).now_or_never().is_some(), "and told at once from then on");
        assert!(held.too_long(run_id(2)).now_or_never().is_none());
        drop(hold);
        assert!(held.too_long(run_id(1)).now_or_never().is_none(), "it goes on");
        assert!(held.since().is_empty());
        held.hold(run_id(1)).stay();
        held.hold(run_id(3));
        in_time(held.too_long(run_id(1))).await;
        assert_eq!(held.since().len(), 1, "nobody writes it any more");
    }

    #[tokio::test]
    async fn who_waits_before_a_run_is_held_up_is_told_too() {
        let held = Arc::new(Held::within(Duration::ZERO));
        let mut waiting = Box::pin(held.too_long(run_id(1)));
        assert!((&mut waiting).now_or_never().is_none());
        drop(held.hold(run_id(1)));
        assert!((&mut waiting).now_or_never().is_none(), "that was over before");
        let _hold = held.hold(run_id(1));
        in_time(waiting).await;
        let patient = Arc::new(Held::within(EVER));
        let _hold = patient.hold(run_id(1));
        assert!(patient.too_long(run_id(1)).now_or_never().is_none());
    }
}
