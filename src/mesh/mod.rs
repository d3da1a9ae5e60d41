//! The port to the mesh: what a node says to other runtimes and hears from them, as bytes and names.
//!
//! The adapters (`zenoh`, `memory`) carry bytes. They check sizes and key shapes, count what they refuse, and decide nothing:
//! signatures, trust and policy are the engine's. Whatever an adapter reports about *who* sent something is a claim.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::queue::Queue;

mod intake;
pub mod key;
pub mod memory;
pub mod zenoh;

#[cfg(test)]
mod authority;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod support;

/// Largest payload in bytes that is accepted from or given to the mesh: a signed envelope at its largest.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Largest answer in bytes where runs are asked for: an event alone may have 256 KiB, and travels as base64.
pub const ANSWER_BYTES_MAX: usize = 512 * 1024;

/// Facts waiting for the engine. A second of observations from 1,000 peers; when full, the newest fact is dropped and
/// counted, because the next period brings it again.
pub const FACTS_QUEUE_MAX: usize = 4_096;

/// Queries waiting for a worker. When full, a query is refused at once as `busy`, so that its origin does not wait.
pub const QUERIES_QUEUE_MAX: usize = 1_024;

/// What is asked of another runtime (DESIGN, *Mesh keys*: `svc/rpc/<verb>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Carry out one signed envelope; the answer is a signed receipt.
    Act,
    /// What became of an envelope sent before; the answer is a signed receipt.
    Outcome,
    /// What became of the pointers to runs since a place; the answer is a signed page.
    Pointers,
    /// Are you there; the answer is a signed echo.
    Probe,
    /// Issue the next certificate for the same key; the answer is signed.
    Renew,
    /// What an actor wants to know of a run; the answer is signed.
    Run,
    /// Countersign the head of a log; the answer is a signed word.
    Witness,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 7] =
        [Self::Act, Self::Outcome, Self::Pointers, Self::Probe, Self::Renew, Self::Run, Self::Witness];

    /// The verb's segment in the key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::Outcome => "outcome",
            Self::Pointers => "pointers",
            Self::Probe => "probe",
            Self::Renew => "renew",
            Self::Run => "run",
            Self::Witness => "witness",
        }
    }

    /// Largest answer in bytes that is taken.
    pub const fn answer_bytes_max(self) -> usize {
        match self {
            Self::Pointers | Self::Run => ANSWER_BYTES_MAX,
            Self::Act | Self::Outcome | Self::Probe | Self::Renew | Self::Witness => PAYLOAD_BYTES_MAX,
        }
    }
}

impl FromStr for Verb {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text).ok_or(())
    }
}

/// A document that a runtime publishes about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Document {
    /// `_meta/identity`: published on change, and answered to whoever asks.
    Identity,
    /// `diag/observation`: published every period.
    Observation,
}

/// Something heard about a runtime. `runtime` is what the key says, and proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A liveliness token appeared.
    TokenAppeared {
        /// Whose key it is.
        runtime: RuntimeId,
        /// The boot counter in the key.
        boot: u64,
    },
    /// A liveliness token went away: by goodbye, death or a cut link, which cannot be told apart here.
    TokenGone {
        /// Whose key it was.
        runtime: RuntimeId,
        /// The boot counter in the key.
        boot: u64,
    },
    /// A published document, at most [`PAYLOAD_BYTES_MAX`] long.
    Published {
        /// Whose key it came on.
        runtime: RuntimeId,
        /// Which document.
        document: Document,
        /// Its bytes as sent.
        bytes: Vec<u8>,
    },
}

/// A query from another runtime. Dropping it unanswered tells the origin that nobody answered.
#[derive(Debug)]
pub struct Incoming {
    /// What is asked.
    pub verb: Verb,
    /// Who the key says is asking; proves nothing.
    pub origin: RuntimeId,
    /// The payload as sent, at most [`PAYLOAD_BYTES_MAX`] long.
    pub payload: Vec<u8>,
    /// Where the answer goes.
    pub responder: Responder,
}

/// Answers one query, once.
pub struct Responder(Channel);

/// Where an answer goes: to a task that waits for it, or straight to the adapter, which saves waking one.
enum Channel {
    Direct(Box<dyn FnOnce(Answer) + Send>),
    Waiting(oneshot::Sender<Answer>),
}

/// What a target says to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The answer's bytes.
    Reply(Vec<u8>),
    /// Nothing was done, for this reason (a stable code's text).
    Refusal(String),
}

impl Responder {
    /// Makes a responder and the end on which its answer arrives.
    pub fn channel() -> (Self, oneshot::Receiver<Answer>) {
        let (tx, rx) = oneshot::channel();
        (Self(Channel::Waiting(tx)), rx)
    }

    /// Makes a responder that gives its answer to `send`, which must not wait for anybody.
    pub fn direct(send: impl FnOnce(Answer) + Send + 'static) -> Self {
        Self(Channel::Direct(Box::new(send)))
    }

    /// Answers. An origin that has gone away is not an error: it will ask for the outcome.
    pub fn answer(self, answer: Answer) {
        match self.0 {
            Channel::Direct(send) => send(answer),
            Channel::Waiting(tx) => drop(tx.send(answer)),
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Responder")
    }
}

/// The receiving ends of an open mesh.
#[derive(Debug)]
pub struct Inbox {
    /// Facts, in order for each runtime.
    pub facts: mpsc::Receiver<Fact>,
    /// Queries for this runtime.
    pub queries: mpsc::Receiver<Incoming>,
}

/// Why a query brought no answer. None of these says that the target did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The mesh ended the query without an answer: no route, a cut link, or the target dropped it.
    #[error("the mesh ended the query without an answer")]
    NoReply,
    /// The budget ran out.
    #[error("no answer within the budget")]
    Timeout,
    /// The target answered that it refuses.
    #[error("the target refuses: {0}")]
    Refused(String),
    /// The payload is larger than [`PAYLOAD_BYTES_MAX`], or the answer than the verb's may be.
    #[error("{0} bytes are too many")]
    TooLarge(usize),
    /// The session is closed or broken; for a payload that was not handed over at all.
    #[error("mesh session: {0}")]
    Session(String),
}

/// Why the mesh could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A listen endpoint could not be bound.
    #[error("{setting}: cannot listen on {endpoint}: {reason}")]
    Listen {
        /// The setting that names it.
        setting: &'static str,
        /// The endpoint.
        endpoint: String,
        /// What the system said.
        reason: String,
    },
    /// Anything else.
    #[error("mesh session: {0}")]
    Session(String),
}

/// What an adapter refused since it was opened, by reason. Every reason is one of [`Refusal::ALL`].
pub type Refusals = BTreeMap<&'static str, u64>;

/// Why an adapter did not pass something on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// A bounded queue was full.
    Busy,
    /// A key does not have the documented shape.
    MalformedKey,
    /// A payload over the limit.
    TooLarge,
    /// A query whose key is a wildcard expression.
    WildcardQuery,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Busy, Self::MalformedKey, Self::TooLarge, Self::WildcardQuery];

    /// The reason's label in counters and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "server_busy",
            Self::MalformedKey => "malformed_key",
            Self::TooLarge => "too_large",
            Self::WildcardQuery => "wildcard_query",
        }
    }
}

/// A boxed future, so that the port can be a trait object.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whether an answer is the target's own word on this question. Anybody on the mesh may answer, and sooner than the target.
pub type Accept<'a> = &'a (dyn Fn(&[u8]) -> bool + Send + Sync);

/// An open mesh, cheap to share. `contract.rs` says what every adapter must hold.
pub trait Mesh: Send + Sync + fmt::Debug {
    /// Asks one runtime and waits at most `budget`. The first answer that is accepted counts, and the end of the stream is
    /// not waited for. Without one, the first of the others is given when the stream or the budget ends.
    fn query<'a>(
        &'a self,
        target: &'a RuntimeId,
        verb: Verb,
        payload: Vec<u8>,
        budget: Duration,
        accept: Accept<'a>,
    ) -> Pending<'a, Result<Vec<u8>, QueryError>>;

    /// Asks a runtime for its identity document, by the same rule.
    fn fetch_identity<'a>(
        &'a self,
        runtime: &'a RuntimeId,
        budget: Duration,
        accept: Accept<'a>,
    ) -> Pending<'a, Result<Vec<u8>, QueryError>>;

    /// Publishes a document of this runtime. The newest identity is also what [`Mesh::fetch_identity`] gives to others.
    /// Nobody listening is not an error.
    fn publish<'a>(&'a self, document: Document, bytes: Vec<u8>) -> Pending<'a, Result<(), QueryError>>;

    /// Declares this runtime's liveliness token. Called once it can answer.
    fn announce<'a>(&'a self) -> Pending<'a, Result<(), QueryError>>;

    /// The addresses this runtime really listens on, as `host:port`, port 0 resolved.
    fn listening(&self) -> Vec<String>;

    /// How many transports to other mesh members are up.
    fn links(&self) -> Pending<'_, usize>;

    /// Why this runtime is at no mesh now, if it is not: its session could not be opened anew, or no router was reached yet.
    fn fault(&self) -> Option<QueryError> {
        None
    }

    /// Ends all links with a partner and lets none in any more, until the next start. There may be no such partner.
    fn dismiss(&self, _site: &SiteId) {}

    /// Counts of what was refused.
    fn refusals(&self) -> Refusals;

    /// The bounded queues of its way in, as they are now.
    fn queues(&self) -> Vec<Queue>;

    /// Takes the token back and closes the session, within two seconds.
    fn close(&self) -> Pending<'_, ()>;
}
