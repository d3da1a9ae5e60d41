//! A peer-to-peer runtime mesh node, as a library behind the `trust-runtime` binary.
//!
//! The modules stand in the order of the layers: each uses only those above it (see ARCHITECTURE.md).

pub mod domain;
pub mod engine;
pub mod settings;
pub mod metrics;
pub mod handle;
pub mod wire;
pub mod tls;
pub mod store;
pub mod mesh;
pub mod workload;
pub mod web;
pub mod node;
pub mod cli;
