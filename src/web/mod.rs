//! The HTTP side of a node: who may ask, how much, and the routes over the node's operations.
//!
//! Requests pass `guard` (Host and Origin), `limit` (how many at once), `auth` (the credential makes the asker), `rate` (how many
//! a second for each credential) and only then a handler. Bodies are `wire::api`; status codes stand in `error` alone; nothing here reaches the engine or the mesh except
//! through [`Operations`].

mod auth;
mod credential;
mod error;
mod guard;
mod limit;
mod rate;
mod router;
mod routes;
mod secure;
mod serve;

use std::net::SocketAddr;
use std::sync::Arc;

pub use auth::digest;
pub use credential::Credentials;
pub use limit::Limits;
pub use rate::Rate;
pub use router::{Access, App, ROUTES, Route};
pub use secure::Secure;
pub use serve::{Bound, PeerAddress, bind};

use crate::handle::Operations;
use crate::store::Store;

/// How the listener is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Further names for the Host allow-list: `name` goes with the own port or none, `name:port` is taken as it is.
    pub hosts: Vec<String>,
    /// Whether a caller without a credential is let in.
    pub auth: Auth,
    /// Which credentials are known.
    pub credentials: Arc<Credentials>,
    /// Bounds on callers.
    pub limits: Limits,
    /// TLS; absent for plain text.
    pub secure: Option<Secure>,
}

/// Whether a caller without a credential is let in (`web.auth`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// In `dev`, from loopback.
    Local,
    /// Never.
    Token,
}

/// What the routes stand on.
#[derive(Debug, Clone)]
pub struct State {
    /// The running node.
    pub node: Arc<dyn Operations>,
    /// Where audit records are read.
    pub store: Arc<dyn Store>,
    /// How the listener is set up.
    pub options: Options,
}
