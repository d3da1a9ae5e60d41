//! Messages between runtimes: contents to signed bytes and back.
//!
//! A signed message is DSSE as JSON: `{payloadType, payload, signatures: [{keyid, sig}], delegation}`. `keyid` is the hash of
//! the delegation and only a hint where to look for the key. The bytes that were verified are the bytes that are parsed.

mod body;
mod sealed;

pub(crate) use body::ResponseBody;
pub use body::{Echo, Probe};
pub use sealed::{Keys, Opened, Refusal, delegate, open, open_echo, open_envelope, open_receipt, open_word, seal};
pub use sealed::{seal_echo, seal_envelope, seal_identity, seal_observation, seal_receipt};

/// Largest signed message in bytes (DESIGN: an envelope is at most 64 KiB).
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
