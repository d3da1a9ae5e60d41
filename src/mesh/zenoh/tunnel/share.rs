//! Places of which nobody takes more than his share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many places each has taken, by who he is.
#[derive(Debug)]
pub(super) struct Shares<K> {
    most: usize,
    taken: Mutex<BTreeMap<K, usize>>,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place<K: Ord> {
    shares: Arc<Shares<K>>,
    holder: K,
}

impl<K: Ord + Clone> Shares<K> {
    /// For each holder at most so many.
    pub(super) fn of(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// One more place for this holder, if his share has one left.
    pub(super) fn take(self: &Arc<Self>, holder: K) -> Option<Place<K>> {
        let mut taken = self.lock();
        let count = taken.get(&holder).copied().unwrap_or_default();
        if self.most <= count {
            return None;
        }
        taken.insert(holder.clone(), count.saturating_add(1));
        Some(Place { shares: Arc::clone(self), holder })
    }
}

impl<K> Shares<K> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        if let Some(count) = taken.get_mut(&self.holder) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_holder_has_a_share_of_its_own_and_gives_places_back() {
        let shares = Shares::of(2);
        let held = [shares.take('a'), shares.take('a')];
        assert!(held.iter().all(Option::is_some) && shares.take('a').is_none());
        assert!(shares.take('b').is_some(), "another's is its own");
        drop(held);
        assert!(shares.lock().is_empty(), "nothing is kept of who is gone");
        assert!(shares.take('a').is_some());
    }

    #[test]
    fn a_share_of_nothing_has_no_place() {
        let shares = Shares::of(0);
        assert!(shares.take('a').is_none() && shares.take('a').is_none());
    }
}
