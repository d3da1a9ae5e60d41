//! Who is who: actors, roles, and the keys that stand for a runtime.

mod actor;
mod key;
mod role;

pub use actor::{Actor, Error as ActorError, SpiffeId, TrustDomain};
pub use key::{Fingerprint, IdentityKey, NotHex, TrustState};
pub(crate) use key::{parse_hex32, write_hex};
pub use role::Role;
