//! Keys and certificates on disk, and TLS that knows who is at the other end.
//!
//! `files` reads what a project's settings name, `identity` holds it as one snapshot that is changed as a whole, `verifier` asks
//! the rules of `domain::identity` about a peer, `config` makes what a listener and a caller need. Who a peer is never comes
//! from a name that was dialed, nor from a pool of authorities: the rules decide, with the anchors of the site that the peer's
//! certificate names. Handshakes and sockets are not here.

pub mod config;
pub mod files;
pub mod identity;
pub mod link;
pub mod pinned;
pub mod provisioned;
mod signatures;
mod verifier;

#[cfg(test)]
pub(crate) mod support;
#[cfg(test)]
mod tests;

pub use config::{ClientCertificates, client, link_client, link_server, plain_client, provisioned_server, server};
pub use files::{FileError, LoadError, OfferFault, Offered, Own, Sources, load, load_beside, load_with};
pub use identity::{Identity, IdentityError, Peer, Snapshot, WallClock, install_provider};
pub use link::{Look, Neighbour, NotANeighbour};
pub use provisioned::{Error as ProvisionedError, Provisioned};
pub use verifier::{WrongPeer, explain, refusal_of};
