//! What this runtime believes about others: freshness of each runtime, and the measured state of each link.

mod freshness;
mod link;

pub use freshness::{Lifecycle, Limits, Presence};
pub use link::{Edge, EdgeState, Link};
