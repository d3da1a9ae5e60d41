//! Places for what takes long and much memory: few in all, and of each owner a part of them, so that a slow one leaves room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::id::RuntimeId;

/// All places, and those of each owner.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    of_one_max: usize,
    of_one: Mutex<BTreeMap<RuntimeId, Arc<Semaphore>>>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _of_one: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(all: usize, of_one_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), of_one_max, of_one: Mutex::default() }
    }

    /// Waits for a place. Whoever waits for one of this owner's keeps none of the others'.
    pub(super) async fn take(&self, owner: &RuntimeId) -> Option<Place> {
        let of_one = self.of(owner).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place { _of_one: of_one, _of_all: of_all })
    }

    fn of(&self, owner: &RuntimeId) -> Arc<Semaphore> {
        let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has a place, or waits for one, holds on to it.
        of_one.retain(|_, places| 1 < Arc::strong_count(places));
        let places = of_one.entry(owner.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.of_one_max)));
        Arc::clone(places)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn owner(number: usize) -> RuntimeId {
        format!("s/r{number}").parse().expect("legal")
    }

    #[test]
    fn one_owner_leaves_places_to_the_others_and_all_together_have_no_more_than_there_are() {
        let places = Places::new(16, 4);
        let take = |number| places.take(&owner(number)).now_or_never().flatten();
        let mut taken: Vec<_> = (0..4).map(|_| take(0).expect("a place")).collect();
        assert!(take(0).is_none(), "it has its part");
        let first = owner(0);
        let mut waiting = Box::pin(places.take(&first));
        assert!((&mut waiting).now_or_never().is_none());
        taken.extend((0..12).map(|index| take(1 + index % 3).expect("those who wait for another keep none")));
        assert!(take(9).is_none(), "all are taken");
        assert_eq!(taken.len(), 16);
        drop(taken);
        assert!(waiting.now_or_never().flatten().is_some(), "it was its turn");
        let last = take(9).expect("a place");
        assert_eq!(places.of_one.lock().expect("whole").len(), 1, "who has none is forgotten");
        drop(last);
    }
}
