//! Places among those who follow something: so many in all, and of these so many for each credential, so that whoever follows
//! too much keeps nobody else out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::Problem;
use super::rate::Holder;

/// The places of one listener.
#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    of_one_max: usize,
    taken: Mutex<BTreeMap<Holder, usize>>,
}

/// A place that is taken; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    holder: Holder,
}

impl Places {
    pub(crate) const fn new(max: usize, of_one_max: usize) -> Self {
        Self { max, of_one_max, taken: Mutex::new(BTreeMap::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Holder, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().values().sum()
    }

    /// A place for whoever has this credential.
    pub(crate) fn take(self: &Arc<Self>, holder: Holder) -> Result<Place, Problem> {
        let mut taken = self.lock();
        let own = taken.get(&holder).copied().unwrap_or_default();
        if self.of_one_max <= own {
            return Err(Problem::busy("this credential follows too many streams at once"));
        }
        if self.max <= taken.values().sum() {
            return Err(Problem::busy("too many streams at once"));
        }
        taken.insert(holder.clone(), own.saturating_add(1));
        Ok(Place { places: Arc::clone(self), holder })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match taken.get_mut(&self.holder) {
            Some(own) if 1 < *own => *own = own.saturating_sub(1),
            Some(_) | None => drop(taken.remove(&self.holder)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::identity::token::TokenId;

    fn token(bits: u32) -> Holder {
        Holder::Token(TokenId::from_bits(bits))
    }

    #[test]
    fn one_credential_does_not_take_the_places_of_the_others() {
        let places = Arc::new(Places::new(5, 3));
        let mut own: Vec<_> = (0..3).map(|_| places.take(token(1)).expect("free")).collect();
        assert!(places.take(token(1)).is_err(), "its share is used up");
        let others: Vec<_> = (2..4).map(|bits| places.take(token(bits)).expect("free")).collect();
        assert!(places.take(Holder::Local).is_err(), "all are taken");
        own.pop();
        own.push(places.take(token(1)).expect("one was given back"));
        drop((own, others));
        assert!(places.lock().is_empty());
    }
}
