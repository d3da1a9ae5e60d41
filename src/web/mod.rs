//! The HTTP side of a node: who may ask, how much, and the routes over the node's operations.
//!
//! Requests pass `guard` (Host and Origin), `limit` (how many at once), `auth` (the credential makes the asker), `rate` (how many
//! acts and reads a second for each credential) and only then a handler. Bodies are `wire::api`; status codes stand in `error` alone; nothing here reaches the engine or the mesh except
//! through [`Operations`].

mod auth;
mod credential;
mod envelope;
mod error;
mod guard;
mod limit;
mod places;
mod promise;
mod rate;
mod router;
mod routes;
mod secure;
mod serve;
mod standing;
mod stream;
mod table;
mod timed;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;

pub use auth::digest;
pub use credential::{Admins, Credentials};
pub use limit::Limits;
pub use promise::Unmet;
pub use rate::{Class, Rate};
pub use router::App;
pub use secure::Secure;
pub use serve::{Bound, PeerAddress, bind};
pub use table::{ADMIN_ROUTES, Access, Form, ROUTES, Route};

use crate::handle::Operations;
use crate::handle::runs::Runs;
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
    /// What is served.
    pub surface: Surface,
    /// Whether errors of the runs API say more for who develops an agent (`control.mode = "debug"`).
    pub is_debug: bool,
}

/// What a listener serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surface {
    /// The lists of runs, for operators.
    Admin {
        /// What stands before every path: empty, or a path without a slash at its end.
        mount: String,
    },
    /// Everything else.
    Public,
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
    /// Where runs are started and read; absent where none are kept.
    pub runs: Option<Arc<dyn Runs>>,
    /// How the listener is set up.
    pub options: Options,
}
