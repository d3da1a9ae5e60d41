//! Who is who: actors, roles, and the keys that stand for a runtime.

pub mod acceptance;
mod actor;
pub mod anchors;
pub mod authority;
mod bans;
pub mod bundle;
pub mod join;
mod key;
mod naming;
pub mod renewal;
mod role;
pub mod svid;
pub mod token;
pub mod words;

pub use actor::{Actor, Error as ActorError, SpiffeId, TrustDomain};
pub use bans::{BANS_MAX, Ban, BanFault, Bans, BansFault};
pub use key::{Fingerprint, IdentityKey, NotHex, TrustState};
pub(crate) use key::{parse_hex32, write_hex};
pub use naming::{Mapping, Naming, NamingError, Subject, SubjectName};
pub use role::{Role, UnknownRole};
