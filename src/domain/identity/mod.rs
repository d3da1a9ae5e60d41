//! Who is who: actors, roles, and the keys that stand for a runtime.

mod actor;
mod key;
mod role;
pub mod token;

pub use actor::{Actor, Error as ActorError, SpiffeId, TrustDomain};
pub(crate) use key::parse_hex32;
pub use key::{Fingerprint, IdentityKey, NotHex, TrustState};
pub use role::{Role, UnknownRole};
