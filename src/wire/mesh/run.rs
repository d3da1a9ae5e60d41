//! What an actor wants to know of a run, from the runtime that it asks to the run's owner, and what the owner says.
//!
//! The question holds a `status_read` of the same actor for the same owner: whoever may read a runtime's status may read its
//! runs, by the same checks. Events travel as they are stored, as JSON within JSON.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::ANSWER_BYTES_MAX;
use super::body::{self, DenialBody, parse};
use super::brought::{Announced, BROUGHT_AT_ONCE_MAX, PIECE_BYTES_MAX, Part, PieceBody, RunPiece, Whole, WholeBody};
use super::pointers::PointerBody;
use super::sealed::{Keys, Opened, Refusal, open, open_within, seal};
use crate::domain::action::ActionKind;
use crate::domain::audit::Hash;
use crate::domain::envelope::Envelope;
use crate::domain::envelope::dsse::PayloadType;
use crate::domain::id::RuntimeId;
use crate::domain::policy::Denial;
use crate::domain::run::{EVENT_BYTES_MAX, Event, Kind, Pointer, Run, RunId};
use crate::domain::time::{Millis, Wall};
use crate::engine::input::Received;
use crate::engine::view::View;
use crate::wire::named::{each, maybe, object};
use crate::wire::run::raw;

/// Most bytes of events on one page, but for one event that is longer by itself. With what surrounds 1,000 events, and as
/// base64, it stays below [`ANSWER_BYTES_MAX`].
pub const RUN_EVENTS_BYTES_MAX: usize = EVENT_BYTES_MAX;

/// Most events on one page.
const EVENTS_MAX: usize = 1_000;

/// What is wanted of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunAsked {
    /// A page of its events.
    Events {
        /// From this number on.
        from: u64,
        /// Only these kinds; all of them if absent.
        kinds: Option<BTreeSet<Kind>>,
        /// At most this many.
        limit: usize,
        /// How long to wait for the first one, where there is none yet.
        wait: Millis,
        /// Whether [`RunAnswer::HeldUp`] is understood. An owner of before that answer refuses the question that says so, and
        /// is asked without.
        takes_held: bool,
    },
    /// A piece of its result or of its error, where that is too long for the answer that has the record.
    Part {
        /// Of which.
        part: Part,
        /// From this byte on.
        from: u64,
        /// At most this many bytes: what the link carries in the time that a question has.
        most: usize,
    },
    /// Where it is and how far.
    Pointer,
    /// Its record.
    Record,
}

impl RunAsked {
    /// What is wanted, as messages and the audit log name it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Events { .. } => "events",
            Self::Part { part, .. } => part.as_str(),
            Self::Pointer => "pointer",
            Self::Record => "record",
        }
    }

    /// Whether an answer is one to this question.
    fn is_answered_by(&self, run: RunId, owner: &RuntimeId, answer: &RunAnswer) -> bool {
        let is_it = |pointer: &Pointer| pointer.run == run && pointer.owner == *owner;
        match (self, answer) {
            (_, RunAnswer::Denied(_) | RunAnswer::Unknown) => true,
            (Self::Pointer, RunAnswer::Pointer(pointer)) => is_it(pointer),
            (Self::Events { takes_held, .. }, RunAnswer::HeldUp(pointer)) => *takes_held && is_it(pointer),
            (Self::Record, RunAnswer::Record(run)) => is_it(&run.pointer),
            (Self::Record, RunAnswer::Announced(announced)) => is_it(&announced.run.pointer),
            (Self::Part { from, most, .. }, RunAnswer::Piece(piece)) => {
                piece.bytes.len() <= *most && piece.begins_at(*from)
            }
            (Self::Events { from, kinds, limit, .. }, RunAnswer::Events(pointer, page)) => {
                is_it(pointer) && page.events.len() <= *limit && page.continues(*from, kinds.as_ref())
            }
            (
                Self::Events { .. } | Self::Part { .. } | Self::Pointer | Self::Record,
                RunAnswer::Announced(_)
                | RunAnswer::Events(..)
                | RunAnswer::HeldUp(_)
                | RunAnswer::Piece(_)
                | RunAnswer::Pointer(_)
                | RunAnswer::Record(_),
            ) => false,
        }
    }
}

/// An actor's question about a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunQuestion {
    /// Who asks whom: a read, with its signer.
    pub read: Received,
    /// About which run.
    pub run: RunId,
    /// What is wanted.
    pub asked: RunAsked,
}

/// A page of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunEvents {
    /// The events, ascending.
    pub events: Vec<Event>,
    /// The number to go on at.
    pub next: u64,
    /// How long the log was.
    pub count: u64,
    /// Whether it will not grow any more.
    pub is_ended: bool,
}

impl RunEvents {
    /// Whether these are events from a number on, of these kinds: ascending, and without a gap where all kinds are wanted.
    fn continues(&self, from: u64, kinds: Option<&BTreeSet<Kind>>) -> bool {
        let mut wanted = from;
        for event in &self.events {
            let is_next = match kinds {
                None => event.index == wanted,
                Some(kinds) => wanted <= event.index && kinds.contains(&event.kind),
            };
            if !is_next {
                return false;
            }
            wanted = event.index.saturating_add(1);
        }
        // Where to go on lies behind what is on the page, at once where nothing may be left out, and a page with more behind it
        // goes forward.
        let is_next = if kinds.is_none() { wanted == self.next } else { wanted <= self.next };
        is_next && (from < self.next || self.count <= from)
    }

    /// Whether nothing more is behind this page.
    pub const fn is_last(&self) -> bool {
        self.count <= self.next
    }
}

/// What a run's owner says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunAnswer {
    /// Its record, of which something is too long for one answer.
    Announced(Box<Announced>),
    /// It may not be seen.
    Denied(Denial),
    /// Events of it, and whose they are.
    Events(Box<Pointer>, RunEvents),
    /// There is nothing to wait for at the moment: nothing more of it can be written.
    HeldUp(Box<Pointer>),
    /// A piece of its result or of its error.
    Piece(RunPiece),
    /// Where it is and how far.
    Pointer(Box<Pointer>),
    /// Its record.
    Record(Box<Run>),
    /// It is not here, or not any more.
    Unknown,
}

impl RunAnswer {
    /// The record, as it fits into an answer.
    pub fn of_record(mut run: Run) -> Self {
        let announce = |text: &mut Option<String>| {
            let long = text.take_if(|text| BROUGHT_AT_ONCE_MAX < text.len());
            long.map(|text| Whole::of(&text))
        };
        let (result, error) = (announce(&mut run.result), announce(&mut run.error));
        if result.is_none() && error.is_none() {
            return Self::Record(Box::new(run));
        }
        Self::Announced(Box::new(Announced { run, result, error }))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionBody {
    #[serde(deserialize_with = "object")]
    read: body::Action,
    run: String,
    asked: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    events: Option<AskedBody>,
    /// Where the piece of a result or an error begins, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    /// Most bytes of it; [`PIECE_BYTES_MAX`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    most: Option<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedBody {
    from: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    types: Option<BTreeSet<String>>,
    limit: usize,
    wait_ms: u64,
    /// Absent unless it is so, as it always was before there was the answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    takes_held: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerBody {
    /// SHA-256 of the question as it was signed.
    question: String,
    said: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    denial: Option<DenialBody>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    pointer: Option<PointerBody>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    brought: Option<BroughtBody>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    announced: Option<AnnouncedBody>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    piece: Option<PieceBody>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    page: Option<PageBody>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BroughtBody {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    result: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    error: Option<Box<RawValue>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnnouncedBody {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    result: Option<WholeBody>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    error: Option<WholeBody>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageBody {
    #[serde(deserialize_with = "each")]
    events: Vec<EventBody>,
    next: u64,
    count: u64,
    is_ended: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventBody {
    at_ns: u64,
    body: Box<RawValue>,
}

/// What the node has put into each event, whoever said the rest of it.
#[derive(Deserialize)]
struct FrameBody<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "runId", borrow)]
    run: Cow<'a, str>,
    #[serde(rename = "eventIndex")]
    index: u64,
}

/// A value that is there is given, also where it is null.
fn given<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(reader).map(Some)
}

/// Seals a question. Gives the hash of the signed bytes too, which the answer must name.
pub fn seal_run_question(keys: &Keys, read: &Envelope, run: RunId, asked: &RunAsked) -> (Vec<u8>, Hash) {
    let events = match asked {
        RunAsked::Events { from, kinds, limit, wait, takes_held } => Some(AskedBody {
            from: *from,
            types: kinds.as_ref().map(|kinds| kinds.iter().map(ToString::to_string).collect()),
            limit: *limit,
            wait_ms: wait.0,
            takes_held: *takes_held,
        }),
        RunAsked::Part { .. } | RunAsked::Pointer | RunAsked::Record => None,
    };
    let (from, most) = match asked {
        RunAsked::Part { from, most, .. } => (Some(*from), Some(*most).filter(|most| *most != PIECE_BYTES_MAX)),
        RunAsked::Events { .. } | RunAsked::Pointer | RunAsked::Record => (None, None),
    };
    let (run, asked) = (run.to_string(), asked.as_str().to_owned());
    let body = QuestionBody { read: read.into(), run, asked, events, from, most };
    let payload = body::write(&body);
    (seal(keys, PayloadType::RunAsked, &payload), Hash::of(&payload))
}

/// Opens a question from the runtime that the key names. Whether it is answered is the engine's to judge.
pub fn open_run_question(view: &View, claimed: &RuntimeId, bytes: &[u8], now: Wall) -> Result<RunQuestion, Refusal> {
    let Opened { signer, payload } = open(view, claimed, PayloadType::RunAsked, bytes, now)?;
    let body: QuestionBody = body::read(&payload)?;
    let envelope = Envelope::try_from(body.read)?;
    if envelope.action.kind() != ActionKind::StatusRead {
        return Err(Refusal::Malformed);
    }
    let asked = match (body.asked.as_str(), body.events, body.from, body.most) {
        ("error", None, Some(from), most) => piece_of(Part::Error, from, most)?,
        ("events", Some(asked), None, None) => asked.try_into()?,
        ("pointer", None, None, None) => RunAsked::Pointer,
        ("record", None, None, None) => RunAsked::Record,
        ("result", None, Some(from), most) => piece_of(Part::Result, from, most)?,
        _ => return Err(Refusal::Malformed),
    };
    let read = Received { signer, envelope, digest: Hash::of(&payload) };
    Ok(RunQuestion { read, run: parse(&body.run)?, asked })
}

fn piece_of(part: Part, from: u64, most: Option<usize>) -> Result<RunAsked, Refusal> {
    let most = most.unwrap_or(PIECE_BYTES_MAX);
    let is_legal = (1..=PIECE_BYTES_MAX).contains(&most);
    is_legal.then_some(RunAsked::Part { part, from, most }).ok_or(Refusal::Malformed)
}

impl TryFrom<AskedBody> for RunAsked {
    type Error = Refusal;

    fn try_from(body: AskedBody) -> Result<Self, Refusal> {
        let kinds = body.types.map(|types| types.iter().map(|it| parse(it)).collect::<Result<_, _>>());
        if !(1..=EVENTS_MAX).contains(&body.limit) {
            return Err(Refusal::Malformed);
        }
        let AskedBody { from, limit, wait_ms, takes_held, .. } = body;
        Ok(Self::Events { from, kinds: kinds.transpose()?, limit, wait: Millis(wait_ms), takes_held })
    }
}

/// Seals the answer to a question.
pub fn seal_run_answer(keys: &Keys, question: Hash, answer: &RunAnswer) -> Vec<u8> {
    let empty = |said: &str| AnswerBody {
        question: question.to_string(),
        said: said.to_owned(),
        denial: None,
        pointer: None,
        brought: None,
        announced: None,
        piece: None,
        page: None,
    };
    let body = match answer {
        RunAnswer::Announced(announced) => AnswerBody {
            pointer: Some((&announced.run.pointer).into()),
            brought: Some((&announced.run).into()),
            announced: Some((&**announced).into()),
            ..empty("record")
        },
        RunAnswer::Denied(denial) => AnswerBody { denial: Some(denial.into()), ..empty("denied") },
        RunAnswer::Unknown => empty("unknown"),
        RunAnswer::HeldUp(pointer) => AnswerBody { pointer: Some((&**pointer).into()), ..empty("held_up") },
        RunAnswer::Pointer(pointer) => AnswerBody { pointer: Some((&**pointer).into()), ..empty("pointer") },
        RunAnswer::Record(run) => {
            AnswerBody { pointer: Some((&run.pointer).into()), brought: Some((&**run).into()), ..empty("record") }
        }
        RunAnswer::Events(pointer, page) => {
            AnswerBody { pointer: Some((&**pointer).into()), page: Some(page.into()), ..empty("events") }
        }
        RunAnswer::Piece(piece) => AnswerBody { piece: Some(piece.into()), ..empty("piece") },
    };
    seal(keys, PayloadType::RunAnswer, &body::write(&body))
}

impl From<&Run> for BroughtBody {
    fn from(run: &Run) -> Self {
        Self { result: run.result.as_deref().map(raw), error: run.error.as_deref().map(raw) }
    }
}

impl From<&Announced> for AnnouncedBody {
    fn from(announced: &Announced) -> Self {
        Self { result: announced.result.as_ref().map(Into::into), error: announced.error.as_ref().map(Into::into) }
    }
}

impl From<&RunEvents> for PageBody {
    fn from(page: &RunEvents) -> Self {
        let event = |event: &Event| EventBody { at_ns: event.at.0, body: raw(&event.body) };
        let events = page.events.iter().map(event).collect();
        Self { events, next: page.next, count: page.count, is_ended: page.is_ended }
    }
}

/// Opens the owner's answer to the question with this hash: about this run, and about what was asked.
pub fn open_run_answer(
    view: &View,
    owner: &RuntimeId,
    question: (Hash, RunId, &RunAsked),
    bytes: &[u8],
    now: Wall,
) -> Result<RunAnswer, Refusal> {
    let (digest, run, asked) = question;
    let from = (owner, PayloadType::RunAnswer);
    let Opened { signer, payload } = open_within(ANSWER_BYTES_MAX, view, from, bytes, now)?;
    let is_pinned = view.peers.get(owner).is_some_and(|peer| peer.pinned == signer.identity);
    let body: AnswerBody = body::read(&payload)?;
    if !is_pinned || body.question != digest.to_string() {
        return Err(Refusal::NotItsOwnWord);
    }
    let answer = said(run, body)?;
    if asked.is_answered_by(run, owner, &answer) { Ok(answer) } else { Err(Refusal::NotItsOwnWord) }
}

fn said(run: RunId, body: AnswerBody) -> Result<RunAnswer, Refusal> {
    let AnswerBody { said, denial, pointer, brought, announced, piece, page, .. } = body;
    match (said.as_str(), denial, pointer, brought, announced, piece, page) {
        ("denied", Some(denial), None, None, None, None, None) => Ok(RunAnswer::Denied(denial.try_into()?)),
        ("unknown", None, None, None, None, None, None) => Ok(RunAnswer::Unknown),
        ("piece", None, None, None, None, Some(piece), None) => Ok(RunAnswer::Piece(piece.try_into()?)),
        ("pointer", None, Some(pointer), None, None, None, None) => {
            Ok(RunAnswer::Pointer(Box::new(pointer.try_into()?)))
        }
        ("held_up", None, Some(pointer), None, None, None, None) => {
            Ok(RunAnswer::HeldUp(Box::new(pointer.try_into()?)))
        }
        ("record", None, Some(pointer), Some(brought), announced, None, None) => record(pointer, brought, announced),
        ("events", None, Some(pointer), None, None, None, Some(page)) => {
            let PageBody { events, next, count, is_ended } = page;
            let events = events.into_iter().map(|it| event(run, it)).collect::<Result<_, _>>()?;
            let page = RunEvents { events, next, count, is_ended };
            Ok(RunAnswer::Events(Box::new(pointer.try_into()?), page))
        }
        _ => Err(Refusal::Malformed),
    }
}

/// What is announced is not brought too.
fn record(pointer: PointerBody, brought: BroughtBody, announced: Option<AnnouncedBody>) -> Result<RunAnswer, Refusal> {
    let text = |raw: Option<Box<RawValue>>| raw.map(|raw| raw.get().to_owned());
    let run = Run { pointer: pointer.try_into()?, result: text(brought.result), error: text(brought.error) };
    let Some(AnnouncedBody { result, error }) = announced else { return Ok(RunAnswer::Record(Box::new(run))) };
    if (result.is_some() && run.result.is_some()) || (error.is_some() && run.error.is_some()) {
        return Err(Refusal::Malformed);
    }
    let result = result.map(Whole::try_from).transpose()?;
    let error = error.map(Whole::try_from).transpose()?;
    Ok(RunAnswer::Announced(Box::new(Announced { run, result, error })))
}

/// An event is what its own text says that it is; nothing beside it could contradict it.
fn event(run: RunId, body: EventBody) -> Result<Event, Refusal> {
    let text = body.body.get();
    let frame: FrameBody<'_> = body::read(text.as_bytes())?;
    if frame.run != run.to_string() {
        return Err(Refusal::NotItsOwnWord);
    }
    // On one line, because streams are made of lines.
    if EVENT_BYTES_MAX < text.len() || text.contains(['\n', '\r']) {
        return Err(Refusal::Malformed);
    }
    Ok(Event { index: frame.index, kind: parse(&frame.kind)?, at: Wall(body.at_ns), body: text.into() })
}
