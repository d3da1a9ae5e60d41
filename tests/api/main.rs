//! The HTTP contract, driven in process and over real sockets, against a small fake of the node.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic and spawn; clippy knows tests only inside the library"
)]

mod access;
mod authority;
mod bodies;
mod exposition;
mod fleet;
mod guard;
mod hostile;
mod metrics;
mod promise;
mod rates;
mod routes;
mod runs;
mod secure;
mod sockets;
mod tokens;
mod watch;
