//! Trust bundles as bytes: the SPIFFE form that endpoints serve, the signed file that travels on a stick, and what is kept of a
//! partner's bundle on disk.

mod jwks;
mod kept;
mod signed;

pub use jwks::{BUNDLE_BYTES_MAX, KEYS_MAX, Malformed, parse, render};
pub use kept::{read as read_kept, write as write_kept};
pub use signed::{SIGNED_BYTES_MAX, Sealed, Statement, payload, seal};
