//! How any number of readers follow one growing log, none of them at the cost of another.
//!
//! A reader has no queue: only the number of the entry that it wants next. It takes entries from what all readers share: the
//! newest ones, which the writer leaves in a small ring, else the pages last read from where the log is kept. At the end of
//! the log it waits until the end moves. So there is nothing that can overflow, and nothing between replay and tail that
//! could be lost or doubled.
//!
//! What must hold of the writer: an entry can be read from the log before it is published.

mod pages;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use self::pages::{Cache, Page, Ring};
use super::Head;
use crate::domain::stretch::Stretch;
use crate::store::{Error, Pending};

/// Entries in the ring, and at most one page more: what a reader may fall behind by without reading the log.
pub const RING_MAX: usize = 256;

/// Most bytes in the ring, but for one entry that is larger by itself.
pub const RING_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes of entries that a reader is given at once and that are written once for all, but for one entry that is larger by
/// itself. A reader who takes no more holds one or two of these, which it shares with all who stopped there.
pub const PAGE_BYTES_MAX: usize = 32 * 1024;

/// Most entries that are read from the log at once. Such readings end at multiples of it, so that readers who began at different
/// places soon want the same pages.
pub const SEGMENT_MAX: u64 = 512;

/// Most bytes of such a reading, but for one entry that is larger by itself.
pub const SEGMENT_BYTES_MAX: usize = 512 * 1024;

/// Most bytes of entries in all pages that one hub keeps for readers to come, but for the newest page.
pub const CACHE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Most pages that one hub keeps, whatever they cost: as many as fill its bytes when their entries are short.
pub const CACHE_PAGES_MAX: usize = 128;

/// A log whose entries are numbered from 0 without a gap, and can be read.
pub trait Log: Send + Sync + fmt::Debug + 'static {
    /// What it consists of; cheap to clone.
    type Entry: Clone + Send + Sync + fmt::Debug + 'static;

    /// How long it is. None if it is gone.
    fn head(&self) -> Pending<'_, Result<Option<Head>, Error>>;

    /// The entries from a number on: at most this many and this many bytes, but at least one if there is one. None if the log
    /// is gone.
    fn page(&self, from: u64, limit: usize, bytes_max: usize) -> Pending<'_, Result<Option<Vec<Self::Entry>>, Error>>;

    /// What an entry costs.
    fn bytes(entry: &Self::Entry) -> usize;
}

/// How far the log is known to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    head: Head,
    is_gone: bool,
}

/// What the readers of one log share.
#[derive(Debug)]
pub struct Hub<L: Log> {
    log: L,
    state: watch::Sender<State>,
    ring: Mutex<Ring<L::Entry>>,
    cache: Mutex<Cache<L::Entry>>,
    /// Held while a page is read, so that the others who want it wait for it and do not read it too.
    reading: tokio::sync::Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can leave a value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<L: Log> Hub<L> {
    /// A hub that knows nothing of its log yet. Publish to it first, then let it [`Self::look`], and nothing is missed.
    pub fn new(log: L) -> Self {
        let (state, _) = watch::channel(State::default());
        Self { log, state, ring: Mutex::default(), cache: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// Asks the log how long it is. False if it is gone, or not there yet.
    ///
    /// That it is gone, only who tells of it knows: what is read may be older than what was published meanwhile, and others
    /// read here who have a place in a log that has just begun.
    pub async fn look(&self) -> Result<bool, Error> {
        loop {
            let known = self.state.borrow().head.count;
            if let Some(head) = self.log.head().await? {
                self.raise(head);
                return Ok(!self.state.borrow().is_gone);
            }
            let State { head, is_gone } = *self.state.borrow();
            // Unless something was published since it was asked, the answer stands.
            if is_gone || head.count == known {
                return Ok(false);
            }
        }
    }

    /// Entries that have just been made durable, and whether the last of them is the log's last.
    pub fn publish(&self, first: u64, entries: &[L::Entry], is_ended: bool) {
        let count = lock(&self.ring).push(first, entries, L::bytes);
        self.raise(Head { count, is_ended });
    }

    /// The log is no more: readers are still given what is in memory, and are told so where that ends before the log does.
    pub fn set_gone(&self) {
        self.state.send_modify(|state| state.is_gone = true);
    }

    /// What is known of the length only grows.
    fn raise(&self, head: Head) {
        self.state.send_if_modified(|state| {
            let known = state.head;
            state.head.count = known.count.max(head.count);
            state.head.is_ended |= head.is_ended;
            state.head != known
        });
    }

    /// Entries from a number that is there. None if the log is gone.
    async fn entries(&self, from: u64, bytes_max: usize) -> Result<Option<Stretch<L::Entry>>, Error> {
        if let Some(entries) = self.shared(from, bytes_max) {
            return Ok(Some(entries));
        }
        let _reading = self.reading.lock().await;
        // Whoever read before may have brought it.
        if let Some(entries) = self.shared(from, bytes_max) {
            return Ok(Some(entries));
        }
        if self.state.borrow().is_gone {
            return Ok(None);
        }
        let limit = SEGMENT_MAX.saturating_sub(from.checked_rem(SEGMENT_MAX).unwrap_or_default());
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let Some(entries) = self.log.page(from, limit, SEGMENT_BYTES_MAX).await? else { return Ok(None) };
        let pages = Page::split(from, entries, L::bytes);
        let taken = pages.first().and_then(|page| page.from(from, bytes_max, L::bytes));
        lock(&self.cache).keep(pages);
        Ok(taken)
    }

    /// Entries from what is in memory.
    fn shared(&self, from: u64, bytes_max: usize) -> Option<Stretch<L::Entry>> {
        let newest = lock(&self.ring).from(from, bytes_max, L::bytes);
        newest.or_else(|| lock(&self.cache).from(from, bytes_max, L::bytes))
    }
}

/// What a reader is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next<E> {
    /// The next entries, at least one.
    Page(Stretch<E>),
    /// There will be no more.
    End,
    /// The log was forgotten before its end was read.
    Gone,
}

/// One who reads a log from some place to its end.
#[derive(Debug)]
pub struct Reader<L: Log> {
    hub: Arc<Hub<L>>,
    state: watch::Receiver<State>,
    next: u64,
}

impl<L: Log> Reader<L> {
    /// Begins behind the entry `after`, or at the first.
    pub fn new(hub: Arc<Hub<L>>, after: Option<u64>) -> Self {
        let state = hub.state.subscribe();
        Self { hub, state, next: after.map_or(0, |after| after.saturating_add(1)) }
    }

    /// The next entries: at most this many bytes, but at least one entry; waits for it at the end of a log that goes on. A
    /// dropped call loses nothing: the next one gives the same. After an error it may be tried again.
    pub async fn next_page(&mut self, bytes_max: usize) -> Result<Next<L::Entry>, Error> {
        loop {
            let State { head, is_gone } = *self.state.borrow_and_update();
            if head.count <= self.next && head.is_ended {
                return Ok(Next::End);
            }
            // Also of a log that has gone: its last entries may be in memory, and with them its end.
            if self.next < head.count {
                let Some(entries) = self.hub.entries(self.next, bytes_max).await? else { return Ok(Next::Gone) };
                self.next = self.next.saturating_add(u64::try_from(entries.len()).unwrap_or(u64::MAX));
                return Ok(Next::Page(entries));
            }
            if is_gone {
                return Ok(Next::Gone);
            }
            // The hub, and with it the sender, lives as long as this reader.
            self.state.changed().await.map_err(|_gone| Error::Closed)?;
        }
    }

    /// Whether the next call has something to give without waiting for the log to grow.
    pub fn has_news(&self) -> bool {
        let State { head, is_gone } = *self.state.borrow();
        self.next < head.count || head.is_ended || is_gone
    }

    /// The number of the entry that comes next.
    pub const fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests;
