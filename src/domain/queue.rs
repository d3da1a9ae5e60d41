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
