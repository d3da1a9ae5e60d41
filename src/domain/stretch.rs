//! A stretch of a log, shared by all who read it: its entries, and what the first of them has written of them for the others.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock, Weak};

/// In how many forms a stretch may be kept written.
pub const FORMS: usize = 2;

/// Entries with what was written of them.
#[derive(Debug)]
struct Page<E> {
    entries: Vec<E>,
    texts: [OnceLock<Vec<u8>>; FORMS],
}

/// Some entries one behind the other. A copy is the same stretch and costs nothing.
pub struct Stretch<E> {
    page: Arc<Page<E>>,
    begin: usize,
    end: usize,
}

/// A stretch that is kept by nobody here, but may be by others.
#[derive(Debug)]
pub struct Shared<E>(Weak<Page<E>>);

/// What was written of a stretch.
#[derive(Debug)]
pub struct Text<E>(Written<E>);

#[derive(Debug)]
enum Written<E> {
    /// With the entries, for all.
    ForAll(Arc<Page<E>>, usize),
    /// For one.
    Once(Vec<u8>),
}

impl<E> Stretch<E> {
    /// The first so many, which leave this one.
    #[must_use]
    pub fn take(&mut self, count: usize) -> Self {
        let middle = self.begin.saturating_add(count).min(self.end);
        let taken = Self { page: Arc::clone(&self.page), begin: self.begin, end: middle };
        self.begin = middle;
        taken
    }

    /// Text of the whole of it, in the form of this number. Who shares the stretch shares that too, unless it is only a part.
    pub fn text(&self, form: usize, write: impl FnOnce(&[E]) -> Vec<u8>) -> Text<E> {
        let is_whole = self.len() == self.page.entries.len();
        let Some(text) = self.page.texts.get(form).filter(|_| is_whole) else {
            return Text(Written::Once(write(self)));
        };
        text.get_or_init(|| write(self));
        Text(Written::ForAll(Arc::clone(&self.page), form))
    }

    /// So that it can be found for as long as anybody keeps it, but not beyond.
    pub fn share(&self) -> Shared<E> {
        Shared(Arc::downgrade(&self.page))
    }
}

impl<E> Shared<E> {
    /// All of it, if somebody still keeps it.
    pub fn get(&self) -> Option<Stretch<E>> {
        let page = self.0.upgrade()?;
        let end = page.entries.len();
        Some(Stretch { page, begin: 0, end })
    }

    /// Whether somebody still keeps it.
    pub fn is_kept(&self) -> bool {
        0 < self.0.strong_count()
    }
}

impl<E> From<Vec<E>> for Stretch<E> {
    fn from(entries: Vec<E>) -> Self {
        let end = entries.len();
        Self { page: Arc::new(Page { entries, texts: Default::default() }), begin: 0, end }
    }
}

impl<E> Deref for Stretch<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        self.page.entries.get(self.begin..self.end).unwrap_or_default()
    }
}

impl<E> Clone for Stretch<E> {
    fn clone(&self) -> Self {
        Self { page: Arc::clone(&self.page), begin: self.begin, end: self.end }
    }
}

impl<E: fmt::Debug> fmt::Debug for Stretch<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

impl<E: PartialEq> PartialEq for Stretch<E> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<E: Eq> Eq for Stretch<E> {}

impl<E: Clone> IntoIterator for Stretch<E> {
    type Item = E;
    type IntoIter = std::vec::IntoIter<E>;

    fn into_iter(self) -> Self::IntoIter {
        Vec::from(&*self).into_iter()
    }
}

impl<E> AsRef<[u8]> for Text<E> {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Written::ForAll(page, form) => {
                page.texts.get(*form).and_then(OnceLock::get).map(Vec::as_slice).unwrap_or_default()
            }
            Written::Once(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn numbers() -> Stretch<u8> {
        Stretch::from(vec![1, 2, 3, 4])
    }

    #[test]
    fn what_is_taken_leaves_the_rest() {
        let mut rest = numbers();
        assert_eq!((rest.take(3).to_vec(), rest.to_vec()), (vec![1, 2, 3], vec![4]));
        assert_eq!((rest.take(9).to_vec(), rest.to_vec()), (vec![4], Vec::new()));
        assert_eq!(rest.take(1).to_vec(), Vec::<u8>::new());
    }

    #[test]
    fn a_whole_stretch_is_written_once_in_each_form_and_a_part_by_each_who_has_it() {
        let writings = Cell::new(0);
        let write = |entries: &[u8]| {
            writings.set(writings.get() + 1);
            entries.to_vec()
        };
        let one = numbers();
        let mut other = one.clone();
        let pointers = [one.text(0, write), other.text(0, write)].map(|text| text.as_ref().as_ptr());
        assert_eq!((pointers[0], writings.get()), (pointers[1], 1));
        assert_eq!(one.text(1, write).as_ref(), [1, 2, 3, 4]);
        assert_eq!(writings.get(), 2, "another form");
        let part = other.take(2);
        assert_eq!(part.text(0, write).as_ref(), [1, 2]);
        assert_eq!(other.text(0, write).as_ref(), [3, 4]);
        assert_eq!(one.text(FORMS, write).as_ref(), [1, 2, 3, 4], "a form without a place");
        assert_eq!(writings.get(), 5);
    }

    #[test]
    fn it_is_found_for_as_long_as_it_or_its_text_is_kept() {
        let stretch = numbers();
        let shared = stretch.share();
        let text = stretch.text(0, <[u8]>::to_vec);
        drop(stretch);
        assert_eq!(shared.get(), Some(numbers()));
        drop(text);
        assert!(!shared.is_kept() && shared.get().is_none());
    }
}
