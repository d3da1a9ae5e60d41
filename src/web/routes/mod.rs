//! One file per subject: each handler asks the node or the store and lets `wire` write the answer.

pub(crate) mod actions;
pub(crate) mod admin;
pub(crate) mod audit;
pub(crate) mod bundle;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod health;
pub(crate) mod invoke;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod runs;
pub(crate) mod state;
mod trace;
pub(crate) mod watch;
