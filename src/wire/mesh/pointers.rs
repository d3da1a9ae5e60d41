//! Where runs are, from their owner to the runtimes of its site: both question and page sealed like every other message.

use serde::{Deserialize, Serialize};

use super::ANSWER_BYTES_MAX;
use super::body::{self, parse};
use super::sealed::{Keys, Opened, Refusal, open, open_within, seal};
use crate::domain::audit::Hash;
use crate::domain::envelope::SKEW;
use crate::domain::envelope::dsse::PayloadType;
use crate::domain::id::RuntimeId;
use crate::domain::run::{End, Pointer, RunId};
use crate::domain::time::{Millis, Wall};
use crate::engine::view::View;
use crate::engine::word::Signer;
use crate::wire::named::{each, maybe};

/// Most changes on one page: with the longest names and base64 they stay below [`ANSWER_BYTES_MAX`].
pub const POINTERS_MAX: usize = 256;

/// A question for what became of an owner's pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointersAsked {
    /// Who is asked.
    pub owner: RuntimeId,
    /// When.
    pub at: Wall,
    /// Counts the questions of whoever asks, so that no two of them are the same.
    pub sequence: u64,
    /// The number of the last change that was told, as the owner gave it.
    pub number: u64,
    /// The floor of the copy, as the owner gave it.
    pub floor: u64,
}

/// What became of one pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointerNews {
    /// It is now this.
    Put(Pointer),
    /// Its run is forgotten.
    Forgotten(RunId),
}

/// A page of what became of an owner's pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointersPage {
    /// Whether whoever asked has to forget all it had of the owner.
    pub is_restart: bool,
    /// What became of them, in the owner's order, at most [`POINTERS_MAX`].
    pub changes: Vec<PointerNews>,
    /// The number of the last change that is told with this page.
    pub number: u64,
    /// The floor of the copy.
    pub floor: u64,
    /// Whether there is more.
    pub has_more: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedBody {
    owner: String,
    at_ns: u64,
    sequence: u64,
    number: u64,
    floor: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageBody {
    /// SHA-256 of the question as it was signed.
    asked: String,
    is_restart: bool,
    #[serde(deserialize_with = "each")]
    changes: Vec<ChangeBody>,
    number: u64,
    floor: u64,
    has_more: bool,
}

/// One of both.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    put: Option<PointerBody>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forgotten: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PointerBody {
    run: String,
    owner: String,
    agent: String,
    instance: String,
    started_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    end: Option<EndBody>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndBody {
    at_ns: u64,
    is_error: bool,
    duration_ms: u64,
}

impl From<&Pointer> for PointerBody {
    fn from(pointer: &Pointer) -> Self {
        let end = |end: End| EndBody { at_ns: end.at.0, is_error: end.is_error, duration_ms: end.duration.0 };
        Self {
            run: pointer.run.to_string(),
            owner: pointer.owner.to_string(),
            agent: pointer.agent.to_string(),
            instance: pointer.instance.to_string(),
            started_ns: pointer.started.0,
            end: pointer.end.map(end),
        }
    }
}

impl TryFrom<PointerBody> for Pointer {
    type Error = Refusal;

    fn try_from(body: PointerBody) -> Result<Self, Refusal> {
        let end = |end: EndBody| End { at: Wall(end.at_ns), is_error: end.is_error, duration: Millis(end.duration_ms) };
        Ok(Self {
            run: parse(&body.run)?,
            owner: parse(&body.owner)?,
            agent: parse(&body.agent)?,
            instance: parse(&body.instance)?,
            started: Wall(body.started_ns),
            end: body.end.map(end),
        })
    }
}

impl From<&PointerNews> for ChangeBody {
    fn from(news: &PointerNews) -> Self {
        match news {
            PointerNews::Put(pointer) => Self { put: Some(pointer.into()), forgotten: None },
            PointerNews::Forgotten(run) => Self { put: None, forgotten: Some(run.to_string()) },
        }
    }
}

impl TryFrom<ChangeBody> for PointerNews {
    type Error = Refusal;

    fn try_from(body: ChangeBody) -> Result<Self, Refusal> {
        match (body.put, body.forgotten) {
            (Some(pointer), None) => Ok(Self::Put(pointer.try_into()?)),
            (None, Some(run)) => Ok(Self::Forgotten(parse(&run)?)),
            (None, None) | (Some(_), Some(_)) => Err(Refusal::Malformed),
        }
    }
}

/// Seals a question. Gives the hash of the signed bytes too, which the page must name.
pub fn seal_pointers_asked(keys: &Keys, asked: &PointersAsked) -> (Vec<u8>, Hash) {
    let PointersAsked { owner, at, sequence, number, floor } = asked;
    let (sequence, number, floor) = (*sequence, *number, *floor);
    let payload = body::write(&AskedBody { owner: owner.to_string(), at_ns: at.0, sequence, number, floor });
    (seal(keys, PayloadType::PointersAsked, &payload), Hash::of(&payload))
}

/// Opens a question to this runtime, of this moment.
pub fn open_pointers_asked(
    view: &View,
    claimed: &RuntimeId,
    bytes: &[u8],
    now: Wall,
) -> Result<(Signer, PointersAsked, Hash), Refusal> {
    let Opened { signer, payload } = open(view, claimed, PayloadType::PointersAsked, bytes, now)?;
    let body: AskedBody = body::read(&payload)?;
    let AskedBody { owner, at_ns, sequence, number, floor } = body;
    let asked = PointersAsked { owner: parse(&owner)?, at: Wall(at_ns), sequence, number, floor };
    let is_of_now = now <= asked.at.plus(SKEW) && asked.at <= now.plus(SKEW);
    if asked.owner == *view.me() && is_of_now {
        Ok((signer, asked, Hash::of(&payload)))
    } else {
        Err(Refusal::NotItsOwnWord)
    }
}

/// Seals the answer to a question.
pub fn seal_pointers(keys: &Keys, asked: Hash, page: &PointersPage) -> Vec<u8> {
    let body = PageBody {
        asked: asked.to_string(),
        is_restart: page.is_restart,
        changes: page.changes.iter().map(ChangeBody::from).collect(),
        number: page.number,
        floor: page.floor,
        has_more: page.has_more,
    };
    seal(keys, PayloadType::Pointers, &body::write(&body))
}

/// Opens the answer to the question with this hash. Whose the runs are in it is not judged here.
pub fn open_pointers(
    view: &View,
    owner: &RuntimeId,
    asked: Hash,
    bytes: &[u8],
    now: Wall,
) -> Result<PointersPage, Refusal> {
    let from = (owner, PayloadType::Pointers);
    let Opened { signer, payload } = open_within(ANSWER_BYTES_MAX, view, from, bytes, now)?;
    let is_pinned = view.peers.get(owner).is_some_and(|peer| peer.pinned == signer.identity);
    let body: PageBody = body::read(&payload)?;
    if !is_pinned || body.asked != asked.to_string() {
        return Err(Refusal::NotItsOwnWord);
    }
    if POINTERS_MAX < body.changes.len() {
        return Err(Refusal::Malformed);
    }
    Ok(PointersPage {
        is_restart: body.is_restart,
        changes: body.changes.into_iter().map(PointerNews::try_from).collect::<Result<_, _>>()?,
        number: body.number,
        floor: body.floor,
        has_more: body.has_more,
    })
}
