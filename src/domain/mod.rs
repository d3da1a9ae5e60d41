//! Rules and words: what the mesh decides about, as plain values.
//!
//! No clock, no IO, no serialisation, no chance. Read in this order: `id`, `time`, `code`, `identity`, `action`,
//! `policy`, then what is built from them.

pub mod action;
pub mod audit;
pub mod code;
pub mod config;
pub mod envelope;
pub mod id;
pub mod identity;
pub mod offer;
pub mod policy;
pub mod preflight;
pub mod projection;
pub mod queue;
pub mod run;
pub mod stretch;
pub mod text;
pub mod time;
pub mod workload;
