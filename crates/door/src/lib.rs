//! The door by which links that a program makes itself come to Zenoh.
//!
//! Zenoh 1.10.2 takes its links from a fixed list of crates, and has no call by which a program adds one. This crate has name,
//! version and interface of one of the list, and `[patch.crates-io]` in the program's `Cargo.toml` puts it there. Behind its
//! protocol are no sockets of the file system but [`Door`]s: a program opens one and gives Zenoh its locator, to dial or to
//! listen at. How the stream behind a link comes to be, and who may be at its other end, is the program's matter; what Zenoh
//! says goes through it unchanged.
//!
//! Another release of Zenoh needs another version here; that the interface is still the same shows when it is built.

mod door;
mod link;
mod interface;

#[cfg(test)]
mod tests;

pub use door::{Door, Opening, Stream};
pub use interface::{LinkManagerUnicastUnixSocketStream, UnixSockStreamLocatorInspector};

/// The word before the door's number in a locator. Zenoh's configuration knows this one, for its access control.
pub const UNIXSOCKSTREAM_LOCATOR_PREFIX: &str = "unixsock-stream";
