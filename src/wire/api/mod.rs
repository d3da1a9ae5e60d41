//! The bodies of the HTTP contract, one folder per major version.

pub mod v1;
