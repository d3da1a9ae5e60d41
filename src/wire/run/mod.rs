//! What is said of runs, as JSON: what a program says, what every reader of its run gets, and what lists show.
//!
//! Events are made into their text once, where they happen; whoever stores or sends one passes that text on.

mod cursor;
mod cut;
mod event;
mod line;
mod moment;
mod record;

pub use cursor::{instance_cursor, read_instance_cursor, read_run_cursor, run_cursor};
pub use cut::shortened;
pub use event::{Frame, idle, run_end, run_start, said};
pub use line::{Fields, Level, Said, complaint, line};
pub use moment::{iso, read_iso};
pub use record::{InstanceBody, PointerBody, RunBody, error_of};

#[cfg(test)]
mod tests;
