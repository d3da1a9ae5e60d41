//! How full a bounded queue is: what every layer says of its own in the same words.

/// A bounded queue as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Which.
    pub name: &'static str,
    /// What waits in it.
    pub length: usize,
    /// What it takes.
    pub capacity: usize,
}

impl Queue {
    /// One that has this much room left.
    pub const fn with_room(name: &'static str, capacity: usize, room: usize) -> Self {
        Self { name, length: capacity.saturating_sub(room), capacity }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::Queue;

    /// Puts one more into a queue. False where it has no room for it.
    pub(crate) type Put<'a> = Box<dyn FnMut() -> bool + 'a>;

    /// Puts into one empty queue after the other until it takes no more. After each of these it has to say how many it took, and
    /// in the end that it takes no more than that; the others say the same as before.
    pub(crate) fn check(look: impl Fn() -> Vec<Queue>, puts: Vec<(&'static str, Put<'_>)>) {
        let lengths = || look().into_iter().map(|queue| (queue.name, queue.length)).collect::<Vec<_>>();
        let mut wanted: BTreeMap<_, usize> = puts.iter().map(|(name, _)| (*name, 0)).collect();
        let is_said = |wanted: &BTreeMap<&'static str, usize>| {
            let mut said = lengths();
            said.sort_unstable();
            assert!(said.iter().map(|(name, length)| (name, length)).eq(wanted), "{said:?}, wanted {wanted:?}");
        };
        is_said(&wanted);
        for (name, mut put) in puts {
            while put() {
                wanted.entry(name).and_modify(|length| *length = length.saturating_add(1));
                is_said(&wanted);
            }
            is_said(&wanted);
            let capacity = look().into_iter().find(|queue| queue.name == name).map(|queue| queue.capacity);
            assert_eq!(capacity, wanted.get(name).copied(), "{name}");
        }
    }
}
