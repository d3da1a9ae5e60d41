//! What is said of runs, as JSON: what a program says, what every reader of its run gets, and what lists show.
//!
//! Events are made into their text once, where they happen; whoever stores or sends one passes that text on.

mod answer;
mod cursor;
mod cut;
mod event;
mod frame;
mod line;
mod moment;
mod query;
mod record;
mod text;

pub use answer::{
    AcceptedBody, AgentsBody, Envelope, InstancesBody, InvokedBody, PointersBody, RunErrorBody, accepted, agents,
    error, instances, invoked, payload, pointers, record,
};
pub use cursor::{instance_cursor, read_instance_cursor, read_run_cursor, run_cursor};
pub use event::{Frame, idle, run_end, run_start, said};
pub use frame::Form;
pub use line::{Fields, Level, Said, beginning, complaint, line};
pub use moment::{iso, read_iso};
pub use query::{EventsQuery, Issue, LIMIT_DEFAULT, LIMIT_MAX, ListQuery, events_query, list_query, number};
pub use record::{InstanceBody, PointerBody, RunBody, error_of, raw};

#[cfg(test)]
mod tests;
