//! What is in memory of a log: the newest pages, which its writer leaves, and those that were last read from it.

use std::collections::{BTreeMap, VecDeque};

use super::{CACHE_BYTES_MAX, CACHE_PAGES_MAX, PAGE_BYTES_MAX, RING_BYTES_MAX, RING_MAX};
use crate::domain::stretch::{Shared, Stretch};

/// Pages with fewer entries are given together: a turn for each of them costs more than to write them anew.
const SHORT: usize = 16;

/// Entries one after the other, which are given and written together.
#[derive(Debug)]
pub(super) struct Page<E> {
    first: u64,
    bytes: usize,
    entries: Stretch<E>,
}

impl<E> Page<E> {
    /// Entries in as few pages as their bytes allow, all of about one length.
    pub(super) fn split(mut first: u64, entries: Vec<E>, bytes_of: fn(&E) -> usize) -> Vec<Self> {
        let bytes = entries.iter().map(bytes_of).fold(0, usize::saturating_add);
        let most = bytes.div_ceil(bytes.div_ceil(PAGE_BYTES_MAX).max(1));
        let mut pages = Vec::new();
        let mut rest = entries;
        while !rest.is_empty() {
            let (count, bytes) = fitting(rest.iter(), most, bytes_of);
            let behind = rest.split_off(count);
            let page = Self { first, bytes, entries: std::mem::replace(&mut rest, behind).into() };
            first = page.end();
            pages.push(page);
        }
        pages
    }

    /// The number behind the last.
    fn end(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }

    /// The entries from a number on, as many as fit and at least one. None if that number is not here.
    pub(super) fn from(&self, from: u64, bytes_max: usize, bytes_of: fn(&E) -> usize) -> Option<Stretch<E>> {
        let skipped = usize::try_from(from.checked_sub(self.first)?).ok().filter(|it| *it < self.entries.len())?;
        let mut entries = self.entries.clone();
        drop(entries.take(skipped));
        if bytes_max < self.bytes {
            let (count, _) = fitting(entries.iter(), bytes_max, bytes_of);
            entries = entries.take(count);
        }
        Some(entries)
    }
}

/// How many entries fit into so many bytes, at least one, and how many bytes they have.
fn fitting<'a, E: 'a>(
    entries: impl Iterator<Item = &'a E>,
    bytes_max: usize,
    bytes_of: fn(&E) -> usize,
) -> (usize, usize) {
    let (mut count, mut bytes) = (0_usize, 0_usize);
    for entry in entries {
        let with = bytes.saturating_add(bytes_of(entry));
        if 0 < count && bytes_max < with {
            break;
        }
        (count, bytes) = (count.saturating_add(1), with);
    }
    (count, bytes)
}

/// The newest entries, without a gap.
#[derive(Debug)]
pub(super) struct Ring<E> {
    pages: VecDeque<Page<E>>,
    count: usize,
    bytes: usize,
}

impl<E> Default for Ring<E> {
    fn default() -> Self {
        Self { pages: VecDeque::new(), count: 0, bytes: 0 }
    }
}

impl<E: Clone> Ring<E> {
    /// Adds what was written, and gives the number behind it.
    pub(super) fn push(&mut self, first: u64, entries: &[E], bytes_of: fn(&E) -> usize) -> u64 {
        if self.pages.back().is_some_and(|last| last.end() != first) {
            // Some were published before this hub was there, or twice: what the ring cannot continue it forgets.
            *self = Self::default();
        }
        for page in Page::split(first, entries.to_vec(), bytes_of) {
            self.count = self.count.saturating_add(page.entries.len());
            self.bytes = self.bytes.saturating_add(page.bytes);
            self.pages.push_back(page);
        }
        while self.is_more_than_enough()
            && let Some(oldest) = self.pages.pop_front()
        {
            self.count = self.count.saturating_sub(oldest.entries.len());
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
        }
        self.pages.back().map_or(first, Page::end)
    }

    /// Whether there is more than the oldest page by which it is too large, or enough without that one.
    fn is_more_than_enough(&self) -> bool {
        let oldest = self.pages.front().map_or(0, |page| page.entries.len());
        1 < self.pages.len() && (RING_MAX <= self.count.saturating_sub(oldest) || RING_BYTES_MAX < self.bytes)
    }

    /// The entries from a number on, as many as fit and at least one. None if that number is not here.
    pub(super) fn from(&self, from: u64, bytes_max: usize, bytes_of: fn(&E) -> usize) -> Option<Stretch<E>> {
        let at = self.pages.partition_point(|page| page.end() <= from);
        let short = || self.pages.range(at..).take_while(|page| page.entries.len() < SHORT);
        if short().nth(1).is_none() || from < self.pages.get(at)?.first {
            return self.pages.get(at)?.from(from, bytes_max, bytes_of);
        }
        let skipped = usize::try_from(from.saturating_sub(self.pages.get(at)?.first)).ok()?;
        let entries = || short().flat_map(|page| page.entries.iter()).skip(skipped);
        let (count, _) = fitting(entries(), bytes_max.min(PAGE_BYTES_MAX), bytes_of);
        Some(entries().take(count).cloned().collect::<Vec<_>>().into())
    }

    #[cfg(test)]
    pub(super) const fn count(&self) -> usize {
        self.count
    }
}

/// Pages that were read.
#[derive(Debug)]
pub(super) struct Cache<E> {
    /// Those last read, newest last.
    newest: VecDeque<Page<E>>,
    /// All that anybody still holds, by their first entry: what is in memory is not read again, and never twice there.
    known: BTreeMap<u64, Known<E>>,
}

#[derive(Debug)]
struct Known<E> {
    bytes: usize,
    entries: Shared<E>,
}

impl<E> Default for Cache<E> {
    fn default() -> Self {
        Self { newest: VecDeque::new(), known: BTreeMap::new() }
    }
}

impl<E> Cache<E> {
    pub(super) fn keep(&mut self, pages: Vec<Page<E>>) {
        self.known.retain(|_, known| known.entries.is_kept());
        for page in pages {
            // Somebody may have stopped in the middle of what was read anew: those who come stop at the same page.
            let page = self.held(&page).unwrap_or(page);
            self.known.insert(page.first, Known { bytes: page.bytes, entries: page.entries.share() });
            self.newest.push_back(page);
        }
        while 1 < self.newest.len() && (CACHE_PAGES_MAX < self.newest.len() || CACHE_BYTES_MAX < self.bytes()) {
            self.newest.pop_front();
        }
    }

    /// The same page, where somebody still holds it.
    fn held(&self, page: &Page<E>) -> Option<Page<E>> {
        let entries = self.known.get(&page.first)?.entries.get()?;
        (entries.len() == page.entries.len()).then_some(Page { first: page.first, bytes: page.bytes, entries })
    }

    /// Of the pages last read.
    pub(super) fn bytes(&self) -> usize {
        self.newest.iter().map(|page| page.bytes).sum()
    }

    /// The entries from a number on, as many as fit and at least one. None if that number is not here.
    pub(super) fn from(&self, from: u64, bytes_max: usize, bytes_of: fn(&E) -> usize) -> Option<Stretch<E>> {
        let (first, known) = self.known.range(..=from).next_back()?;
        let page = Page { first: *first, bytes: known.bytes, entries: known.entries.get()? };
        page.from(from, bytes_max, bytes_of)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.newest.len()
    }
}
