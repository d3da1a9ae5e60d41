//! The stored form, version 1: durable facts as changes to rows, audit records as canonical bytes.
//!
//! A store keeps rows of `(kind, key, body)` and knows nothing of what they mean. A row that was written by this version
//! must be readable for ever: a change that old readers cannot take is a new version beside this one.

pub mod audit;
mod fact;
mod witness;
mod work;

pub use fact::{decode, encode};
pub use witness::{COUNTERSIGNED, HEAD};

/// Why a stored form was refused or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {key:?}: {reason}")]
pub struct Error {
    /// The kind of row, such as `receipt`, or `audit`.
    pub kind: String,
    /// Which row.
    pub key: String,
    /// What was wanted and got.
    pub reason: String,
}

impl Error {
    fn new(kind: &str, key: &str, reason: impl ToString) -> Self {
        Self { kind: kind.to_owned(), key: key.to_owned(), reason: reason.to_string() }
    }
}

/// What one fact does to the rows of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Replaces or adds the row of this kind and key.
    Put {
        /// What sort of fact.
        kind: &'static str,
        /// Which one of its sort.
        key: String,
        /// The fact as JSON.
        body: String,
    },
    /// Removes the row of this kind and key, if it is there.
    Delete {
        /// What sort of fact.
        kind: &'static str,
        /// Which one of its sort.
        key: String,
    },
}

#[cfg(test)]
mod tests;
