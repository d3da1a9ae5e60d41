//! The port to durable storage: what must survive, and what can be read back.
//!
//! `contract.rs` says what every store must hold: a batch is all or nothing, an acknowledged batch survives `kill -9`, the
//! audit chain has no gap, and a failed commit changes nothing.

pub mod memory;
pub mod runs;
pub mod sqlite;
mod thinning;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::domain::audit::{AuditId, Draft, Entry, Hash, NoteKey, Outcome, Position, Rotated};
use crate::domain::queue::Queue;
use crate::domain::time::Wall;
use crate::engine::record::{Batch, Record};

/// A boxed future, so that the port can be a trait object.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Records of reads, and as many of refusals, waiting for their writer. When full, a read is refused with `server_busy`: no
/// read goes unrecorded.
pub const READ_QUEUE_MAX: usize = 8_192;

/// Most audit records on one page.
pub const PAGE_MAX: usize = 1_000;

/// Why a commit or a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The disk is full. A later commit may succeed.
    #[error("{place}: no space left")]
    NoSpace {
        /// Which file.
        place: String,
        /// Whether the end of the batch had been written when space ran out.
        is_at_the_end: bool,
    },
    /// The disk failed. Nothing is written any more until a restart.
    #[error("{place}: {reason}")]
    Broken {
        /// Which file.
        place: String,
        /// What the system said.
        reason: String,
    },
    /// Another process holds the store.
    #[error("{place}: is in use by another process")]
    InUse {
        /// Which file.
        place: String,
    },
    /// The store was written by a newer version, or holds what no version wrote.
    #[error("{place}: {reason}")]
    Unreadable {
        /// Which file and row.
        place: String,
        /// What was wanted and found.
        reason: String,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// Whether a batch whose commit failed so may be found on the disk after a restart: it was written, and what failed is the
    /// word that it was. The next commit that succeeds lies in its place.
    pub fn may_be_written(&self) -> bool {
        match self {
            Self::NoSpace { is_at_the_end, .. } => *is_at_the_end,
            Self::Broken { .. } | Self::Closed => true,
            Self::InUse { .. } | Self::Unreadable { .. } => false,
        }
    }
}

/// The queue of read records is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue of read records is full")]
pub struct Full;

/// The quota of the chain of refusals in MiB: of one actor at its limit, more than six hours. Nobody may set it: whoever could
/// make it smaller could remove what stands in it.
pub const REFUSALS_MAX_MB: u64 = 64;

/// Which of the three chains a record stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chain {
    /// Reads: bounded, rotated, each file's first record carries the chain over.
    Reads,
    /// Refusals, wrong credentials among them: rotated too, and only by refusals, so that what is allowed removes no trace of
    /// what is not.
    Refusals,
    /// Writes and everything that concerns security: never deleted.
    Writes,
}

impl From<Rotated> for Chain {
    fn from(chain: Rotated) -> Self {
        match chain {
            Rotated::Reads => Self::Reads,
            Rotated::Refusals => Self::Refusals,
        }
    }
}

/// The rotated chain that a record belongs to which changed nothing.
fn rotated_for(draft: &Draft) -> Rotated {
    if draft.outcome == Outcome::Denied { Rotated::Refusals } else { Rotated::Reads }
}

/// Which audit records are wanted. Absent means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Exactly this request id.
    pub request_id: Option<String>,
    /// Exactly this actor.
    pub actor: Option<String>,
    /// Exactly this action.
    pub action: Option<String>,
    /// Exactly this target, qualified.
    pub target: Option<String>,
    /// At or after.
    pub since: Option<Wall>,
    /// Before.
    pub until: Option<Wall>,
    /// Only records whose name sorts before this one: where the last page ended.
    pub before: Option<AuditId>,
    /// At most this many, itself at most [`PAGE_MAX`].
    pub limit: usize,
}

/// One page of records of all chains, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The records.
    pub entries: Vec<(Chain, Entry)>,
    /// Whether older ones exist.
    pub has_more: bool,
}

impl Filter {
    /// Whether an entry is wanted, the page's limit aside.
    pub fn admits(&self, draft: &Draft) -> bool {
        let is = |wanted: &Option<String>, got: &str| wanted.as_deref().is_none_or(|wanted| wanted == got);
        self.request_id
            .as_deref()
            .is_none_or(|wanted| draft.request_id.as_ref().is_some_and(|id| id.as_str() == wanted))
            && is(&self.actor, &draft.actor)
            && is(&self.action, &draft.action)
            && is(&self.target, &draft.target.to_string())
            && self.since.is_none_or(|since| since <= draft.at)
            && self.until.is_none_or(|until| draft.at < until)
            && self.before.is_none_or(|before| draft.audit_id < before)
    }
}

impl Page {
    /// Cuts what the chains found, each newest first, to one page.
    fn cut(mut found: Vec<(Chain, Entry)>, limit: usize) -> Self {
        found.sort_by(|(_, left), (_, right)| {
            let newest = |entry: &Entry| (entry.draft.audit_id, entry.position.seq);
            newest(right).cmp(&newest(left))
        });
        let limit = limit.min(PAGE_MAX);
        let has_more = limit < found.len();
        found.truncate(limit);
        Self { entries: found, has_more }
    }
}

/// The newest checkpoint, and how the chain of writes came there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// The checkpoint as a signed note.
    pub note: String,
    /// The subtrees over the records that are newer than the size asked for (`domain::audit::Extension`); none where it
    /// covers no more than that.
    pub subtrees: Vec<Hash>,
}

/// The boot that a batch begins, if it begins one.
fn boot_of(batch: &Batch) -> Option<u64> {
    let counter = |record: &Record| if let Record::Boot { counter } = record { Some(*counter) } else { None };
    batch.records.iter().filter_map(counter).next_back()
}

/// Durable storage, cheap to share.
pub trait Store: Send + Sync + fmt::Debug {
    /// Makes a batch durable, all or nothing, and gives each audit record its place, in order. Concurrent batches may
    /// share one fsync. On an error nothing of the batch counts; a restart may find it where [`Error::may_be_written`].
    fn commit(&self, batch: Batch) -> Pending<'_, Result<Vec<Position>, Error>>;

    /// The newest of every fact, in the order of their keys.
    fn recall(&self) -> Pending<'_, Result<Vec<Record>, Error>>;

    /// Hands over the records of one request that changed nothing, all or none: what was refused goes to the chain of
    /// refusals, the rest to that of reads. Durable soon, in order, without anybody waiting.
    ///
    /// Of very many refusals of one actor in one minute, some are only counted (`thinning.rs`).
    fn append_reads(&self, drafts: Vec<Draft>) -> Result<(), Full>;

    /// Hands over one such record.
    fn append_read(&self, draft: Draft) -> Result<(), Full> {
        self.append_reads(vec![draft])
    }

    /// Reads audit records, newest first.
    fn audit(&self, filter: Filter) -> Pending<'_, Result<Page, Error>>;

    /// The place of one record in the chain of writes, if it is there.
    fn position(&self, audit_id: AuditId) -> Pending<'_, Result<Option<Position>, Error>>;

    /// How many records the chain of writes has.
    fn length(&self) -> Pending<'_, Result<u64, Error>>;

    /// From now on this key signs checkpoints of the chain of writes: at once in each boot, after every
    /// [`crate::domain::audit::RECORDS_MAX`] records, after [`crate::domain::audit::INTERVAL`] where there is a new one, and at the end.
    fn sign_checkpoints(&self, key: NoteKey);

    /// The newest checkpoint as a signed note.
    fn checkpoint(&self) -> Pending<'_, Result<Option<String>, Error>>;

    /// The newest checkpoint, with what the chain of writes has grown by since it held `from` records. Costs a read of those
    /// records; from 0 on it costs nothing.
    fn growth(&self, from: u64) -> Pending<'_, Result<Option<Growth>, Error>>;

    /// Why the store takes no writes at the moment, if so.
    fn fault(&self) -> Option<Error>;

    /// Why reads or refusals cannot be recorded at the moment, if so. Writes may go on.
    fn reads_fault(&self) -> Option<Error> {
        None
    }

    /// What a checkpoint speaks of and this start has not found, one sentence for each chain of reads and refusals.
    fn losses(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether its files are still being checked after a stop that was not clean: until then nobody knows that they are whole.
    fn is_being_checked(&self) -> bool {
        false
    }

    /// Its bounded queues, as they are now.
    fn queues(&self) -> Vec<Queue> {
        Vec::new()
    }

    /// Changes the quota of the chain of reads, in MiB. A store without a quota ignores it.
    fn set_read_quota(&self, _megabytes: u64) {}

    /// Writes out what waits and closes, within two seconds.
    fn close(&self) -> Pending<'_, ()>;
}

#[cfg(test)]
mod contract;
