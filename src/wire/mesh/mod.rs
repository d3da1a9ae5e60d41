//! Messages between runtimes: contents to signed bytes and back.
//!
//! A signed message is DSSE as JSON: `{payloadType, payload, signatures: [{keyid, sig}], delegation}`. `keyid` is the hash of
//! the delegation and only a hint where to look for the key. The bytes that were verified are the bytes that are parsed. A
//! delegation is such a message itself; one by a certificate's key has `chain`, base64 of the DER of each certificate.

mod body;
mod brought;
mod delegation;
mod head;
mod pointers;
mod renewal;
mod run;
mod sealed;

pub(crate) use body::ResponseBody;
pub use body::{Echo, Probe};
pub use brought::{
    Announced, Assembly, BROUGHT_AT_ONCE_MAX, BROUGHT_BYTES_MAX, PIECE_BYTES_MAX, Part, RunPiece, Whole,
};
pub use delegation::{CertificateKey, delegate, delegate_by_certificate};
pub use head::{Head, Heard, Unheard, Word as WitnessWord, checkpoint_of};
pub use head::{open_countersignature, open_head, seal_countersignature, seal_head};
pub use pointers::{POINTERS_MAX, PointerNews, PointersAsked, PointersPage};
pub use pointers::{open_pointers, open_pointers_asked, seal_pointers, seal_pointers_asked};
pub use renewal::{Renewal, Renewed, open_renewal, open_renewed, seal_renewal, seal_renewed};
pub use run::{RUN_EVENTS_BYTES_MAX, RunAnswer, RunAsked, RunEvents, RunQuestion};
pub use run::{open_run_answer, open_run_question, seal_run_answer, seal_run_question};
pub use sealed::{Keys, Opened, Refusal, open, open_echo, open_envelope, open_receipt, open_word, seal};
pub use sealed::{seal_echo, seal_envelope, seal_identity, seal_observation, seal_receipt};

/// Largest signed message in bytes (DESIGN: an envelope is at most 64 KiB).
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Largest signed answer about runs in bytes: room for the longest event, base64 included, and for a page of as many bytes.
pub const ANSWER_BYTES_MAX: usize = 512 * 1024;
