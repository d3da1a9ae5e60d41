//! Those who follow runs: a hub for each run that somebody reads, and none for any other.
//!
//! The store tells this part of every batch once it is durable, on the writer's thread and in the order of the logs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::hub::{Hub, Log, Next, Reader};
use super::{Change, EventsAsked, Head, Observer, Outcome, RunStore};
use crate::domain::run::{Event, RunId};
use crate::store::{Error, Pending};

/// The log of one run.
#[derive(Debug)]
pub struct RunLog {
    store: Arc<dyn RunStore>,
    run: RunId,
}

impl Log for RunLog {
    type Entry = Event;

    fn head(&self) -> Pending<'_, Result<Option<Head>, Error>> {
        self.store.head(self.run)
    }

    fn page(&self, from: u64, limit: usize, bytes_max: usize) -> Pending<'_, Result<Option<Vec<Event>>, Error>> {
        let asked = EventsAsked { run: self.run, from, kinds: None, limit, bytes_max };
        Box::pin(async move { Ok(self.store.events(asked).await?.map(|page| page.events)) })
    }

    fn bytes(entry: &Event) -> usize {
        entry.body.len()
    }
}

/// A hub and how many read from it.
#[derive(Debug)]
struct Followed {
    hub: Arc<Hub<RunLog>>,
    readers: usize,
}

type Hubs = Mutex<BTreeMap<RunId, Followed>>;

fn lock(hubs: &Hubs) -> MutexGuard<'_, BTreeMap<RunId, Followed>> {
    // Nothing that runs under this lock can leave it half changed.
    hubs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hubs of all runs that are read.
#[derive(Debug)]
pub struct Feeds {
    store: Arc<dyn RunStore>,
    /// Held by the readers too, who take their hub out when they are the last.
    hubs: Arc<Hubs>,
}

impl Feeds {
    /// The feeds of a store's runs. The store tells them of what it writes for as long as they live.
    pub fn new(store: Arc<dyn RunStore>) -> Arc<Self> {
        let feeds = Arc::new(Self { store: Arc::clone(&store), hubs: Arc::default() });
        let observer: Weak<dyn Observer> = Arc::<Self>::downgrade(&feeds);
        store.observe(observer);
        feeds
    }

    /// A reader of a run's events behind one of them, or from the first. None if the run is not known.
    pub async fn reader(&self, run: RunId, after: Option<u64>) -> Result<Option<RunReader>, Error> {
        let seat = self.seat(run);
        // From here on nothing that is published is missed; what was before is in the store.
        if !seat.hub.look().await? {
            return Ok(None);
        }
        let reader = Reader::new(Arc::clone(&seat.hub), after);
        Ok(Some(RunReader { reader, _seat: seat }))
    }

    /// A reader of a run that is not in the store yet, from its first event on. It waits for ever if the run never will be.
    pub fn reader_of_new(&self, run: RunId) -> RunReader {
        let seat = self.seat(run);
        RunReader { reader: Reader::new(Arc::clone(&seat.hub), None), _seat: seat }
    }

    /// How many runs are read.
    pub fn count(&self) -> usize {
        lock(&self.hubs).len()
    }

    fn seat(&self, run: RunId) -> Seat {
        let mut hubs = lock(&self.hubs);
        let log = || RunLog { store: Arc::clone(&self.store), run };
        let followed = hubs.entry(run).or_insert_with(|| Followed { hub: Arc::new(Hub::new(log())), readers: 0 });
        followed.readers = followed.readers.saturating_add(1);
        Seat { run, hub: Arc::clone(&followed.hub), hubs: Arc::clone(&self.hubs) }
    }
}

impl Observer for Feeds {
    fn committed(&self, batch: &[Change], outcome: &Outcome) {
        let hubs = lock(&self.hubs);
        for (change, is_changed) in batch.iter().zip(&outcome.changed) {
            let events = change.events();
            if let (true, Some(Followed { hub, .. }), Some(first)) =
                (*is_changed, hubs.get(&change.run()), events.first())
            {
                hub.publish(first.index, events, matches!(change, Change::End { .. }));
            }
        }
        for run in &outcome.forgotten {
            if let Some(Followed { hub, .. }) = hubs.get(run) {
                hub.set_gone();
            }
        }
    }
}

/// A reader's place at its hub, free again when dropped.
#[derive(Debug)]
struct Seat {
    run: RunId,
    hub: Arc<Hub<RunLog>>,
    hubs: Arc<Hubs>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut hubs = lock(&self.hubs);
        if let Some(followed) = hubs.get_mut(&self.run) {
            followed.readers = followed.readers.saturating_sub(1);
            if followed.readers == 0 {
                hubs.remove(&self.run);
            }
        }
    }
}

/// One who follows a run.
#[derive(Debug)]
pub struct RunReader {
    reader: Reader<RunLog>,
    _seat: Seat,
}

impl RunReader {
    /// The next events, as [`Reader::next_page`] gives them.
    pub async fn next_page(&mut self, bytes_max: usize) -> Result<Next<Event>, Error> {
        self.reader.next_page(bytes_max).await
    }

    /// Whether the next call has something to give without waiting for the run.
    pub fn has_news(&self) -> bool {
        self.reader.has_news()
    }

    /// The number of the event that comes next.
    pub const fn next(&self) -> u64 {
        self.reader.next()
    }
}

#[cfg(test)]
mod tests;
