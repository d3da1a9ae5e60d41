//! The head of a log, shown to a witness, and the witness's word for it: both sealed like every other message.
//!
//! Inside are texts that other programs can read: a signed note (C2SP tlog-checkpoint) and a line below it (tlog-cosignature).

use serde::{Deserialize, Serialize};

use super::body;
use super::sealed::{Keys, Opened, Refusal, open, seal};
use crate::domain::audit::witness::{Break, Claim, EXTENSION_MAX};
use crate::domain::audit::{Checkpoint, Countersigner, Hash, Verifier, log_name};
use crate::domain::envelope::dsse::PayloadType;
use crate::domain::id::RuntimeId;
use crate::domain::time::Wall;
use crate::engine::record::{Countersigned, NotContinued};
use crate::engine::view::View;
use crate::engine::word::Signer;

/// The head of a log on its way to a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Who is asked.
    pub witness: RuntimeId,
    /// When.
    pub at: Wall,
    /// The log's key.
    pub key: String,
    /// The newest checkpoint.
    pub note: String,
    /// What the log has grown by since it held so many records.
    pub old: u64,
    /// The subtrees over what is newer.
    pub extension: Vec<Hash>,
}

/// A witness's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It has countersigned.
    Countersigned {
        /// Its key.
        key: Box<Countersigner>,
        /// The note's further line, with its line feed.
        line: String,
    },
    /// It wants to be shown what came since this size.
    Behind(u64),
    /// The log does not continue what it keeps.
    Broken(NotContinued),
    /// It says nothing.
    Refused(String),
}

/// What a witness's word comes to for the owner of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It wants to be shown what came since this size.
    Behind(u64),
    /// A countersignature that holds, or a contradiction that is shown: to be kept.
    Kept(Box<Countersigned>),
}

/// Why a witness's word comes to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// Its countersignature is another's, or is not of this head.
    #[error("forged_countersignature")]
    Forged,
    /// It says nothing.
    #[error("{0}")]
    Refused(String),
    /// It contradicts, and shows nothing of this log that contradicts it.
    #[error("contradicts_without_proof")]
    Unproven,
}

impl Word {
    /// What the word is worth to the owner of the log, whose key is `own` and who has shown `note`.
    pub fn heard(self, own: &Verifier, note: &str, witness: &RuntimeId) -> Result<Heard, Unheard> {
        let kept = |key, note, refused| {
            Ok(Heard::Kept(Box::new(Countersigned { witness: witness.clone(), key, note, refused })))
        };
        match self {
            Self::Behind(size) => Ok(Heard::Behind(size)),
            Self::Countersigned { key, line } => {
                let signed = format!("{note}{line}");
                let holds = key.name() == log_name(witness) && matches!(key.countersigned(&signed), Ok(Some(_)));
                if holds { kept(key.to_string(), signed, None) } else { Err(Unheard::Forged) }
            }
            Self::Broken(found) if is_shown(own, note, &found) => kept(String::new(), String::new(), Some(found)),
            Self::Broken(_) => Err(Unheard::Unproven),
            Self::Refused(reason) => Err(Unheard::Refused(reason)),
        }
    }
}

/// Whether the head that a witness keeps is of this log, and not one that it would continue anyway.
fn is_shown(own: &Verifier, note: &str, found: &NotContinued) -> bool {
    let Some(shown) = checkpoint_of(note) else { return false };
    let is_ours = own.open(&found.held).is_ok();
    let Some(held) = checkpoint_of(&found.held).filter(|held| held.origin == shown.origin) else { return false };
    match found.reason {
        Break::AnotherKey => !is_ours,
        Break::Forked => is_ours,
        Break::WentBack => is_ours && (shown.size < held.size || shown.boot < held.boot),
    }
}

/// The checkpoint in a note, whoever has signed it.
pub fn checkpoint_of(note: &str) -> Option<Checkpoint> {
    Checkpoint::parse(note.split_once("\n\n")?.0).ok()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadBody {
    witness: String,
    at_ns: u64,
    key: String,
    note: String,
    old: u64,
    extension: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CountersignatureBody {
    /// SHA-256 of the head as it was signed.
    head: String,
    word: WordBody,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
enum WordBody {
    Behind { size: u64 },
    Broken { reason: String, held: String },
    Countersigned { key: String, line: String },
    Refused { reason: String },
}

/// Seals a head. Gives the hash of the signed bytes too, which the answer must name.
pub fn seal_head(keys: &Keys, head: &Head) -> (Vec<u8>, Hash) {
    let payload = body::write(&HeadBody {
        witness: head.witness.to_string(),
        at_ns: head.at.0,
        key: head.key.clone(),
        note: head.note.clone(),
        old: head.old,
        extension: head.extension.iter().map(ToString::to_string).collect(),
    });
    (seal(keys, PayloadType::Head, &payload), Hash::of(&payload))
}

/// Opens a head that this runtime is asked to countersign. The note's own signature is checked too.
pub fn open_head(view: &View, claimed: &RuntimeId, bytes: &[u8], now: Wall) -> Result<(Signer, Claim, Hash), Refusal> {
    let Opened { signer, payload } = open(view, claimed, PayloadType::Head, bytes, now)?;
    let head: HeadBody = body::read(&payload)?;
    if head.witness != view.me().to_string() {
        return Err(Refusal::NotItsOwnWord);
    }
    if EXTENSION_MAX < head.extension.len() {
        return Err(Refusal::Malformed);
    }
    let malformed = |_any_fault| Refusal::Malformed;
    let extension = head.extension.iter().map(|it| it.parse()).collect::<Result<_, _>>().map_err(malformed)?;
    let key = head.key.parse().map_err(|_any_fault| Refusal::Malformed)?;
    let claim = Claim::read(key, head.note, Wall(head.at_ns), head.old, extension);
    let claim = claim.map_err(|_unsigned| Refusal::BadSignature)?;
    Ok((signer, claim, Hash::of(&payload)))
}

/// Seals the answer to a head.
pub fn seal_countersignature(keys: &Keys, head: Hash, word: &Word) -> Vec<u8> {
    let word = match word {
        Word::Behind(size) => WordBody::Behind { size: *size },
        Word::Broken(NotContinued { reason, held }) => {
            WordBody::Broken { reason: reason.as_str().to_owned(), held: held.clone() }
        }
        Word::Countersigned { key, line } => WordBody::Countersigned { key: key.to_string(), line: line.clone() },
        Word::Refused(reason) => WordBody::Refused { reason: reason.clone() },
    };
    let body = CountersignatureBody { head: head.to_string(), word };
    seal(keys, PayloadType::Countersignature, &body::write(&body))
}

/// Opens the answer to the head with this hash.
pub fn open_countersignature(
    view: &View,
    witness: &RuntimeId,
    head: Hash,
    bytes: &[u8],
    now: Wall,
) -> Result<Word, Refusal> {
    let Opened { signer, payload } = open(view, witness, PayloadType::Countersignature, bytes, now)?;
    let is_witness = view.is_by(witness, &signer);
    let answer: CountersignatureBody = body::read(&payload)?;
    if !is_witness || answer.head != head.to_string() {
        return Err(Refusal::NotItsOwnWord);
    }
    Ok(match answer.word {
        WordBody::Behind { size } => Word::Behind(size),
        WordBody::Broken { reason, held } => {
            let reason = Break::ALL.into_iter().find(|it| it.as_str() == reason).ok_or(Refusal::Malformed)?;
            Word::Broken(NotContinued { reason, held })
        }
        WordBody::Countersigned { key, line } => {
            let key = key.parse().map_err(|_any_fault| Refusal::Malformed)?;
            Word::Countersigned { key: Box::new(key), line }
        }
        WordBody::Refused { reason } => Word::Refused(reason),
    })
}
