//! The store on disk: SQLite, one file per concern.
//!
//! `control.db` holds the facts and the chain of writes, `events.db` the chain of reads, `refusals.db` that of refusals. Each file has one writer thread,
//! which alone knows the end of its chain; questions are answered by threads with read-only connections of their own, so that
//! no reader ever stands in a writer's way. Nothing here runs on the async runtime's threads.

mod chain;
mod control;
mod damage;
mod error;
mod events;
mod evidence;
mod file;
mod query;
pub mod runs;
mod stop;
mod words;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::damage::Check;
use self::error::Health;
use self::events::Each;
use self::query::Question;
use self::stop::{Closing, Ends, Files};
use super::{Error, Filter, Full, Growth, Page, Pending, READ_QUEUE_MAX, REFUSALS_MAX_MB, Store, rotated_for};
use crate::domain::audit::{self, AuditId, Draft, NoteKey, Position, Rotated};
use crate::domain::queue::Queue;
use crate::engine::record::{Batch, Record};

pub use self::chain::{ChainReader, Link, Verdict, file_name, has_refusals, read_chain, verify};
pub use self::evidence::{Proof, examine, examine_rotated, read_checkpoints};
pub use self::words::{Words, read_words};

/// Batches waiting for the writer. When full, `commit` waits: the engine hands over one batch a turn, so this is never
/// reached by one engine.
const COMMIT_QUEUE_MAX: usize = 1_024;

/// Questions waiting for a reader. When full, the asker waits.
const QUESTION_QUEUE_MAX: usize = 64;

/// How long `close` waits for the threads: what the port promises.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// How long a writer that has nothing more to write waits for the readers to leave, whose questions are cut short.
const READERS_WAIT: Duration = Duration::from_secs(1);

/// How often the writer is asked to look for records that wait for a checkpoint.
const INTERVAL: Duration = Duration::from_millis(audit::INTERVAL.0);

/// Where the store lies and how large it may grow.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the files, made if absent.
    pub folder: PathBuf,
    /// The quota of the chain of reads in MiB.
    pub read_audit_max_mb: u64,
}

/// Opens the store, or makes a new one. Blocks; meant for the start of the process.
pub fn open(options: Options) -> Result<SqliteStore, Error> {
    open_within(&options, Bounds::OF_A_NODE)
}

/// What tests set otherwise.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// A limit on the size of `control.db`, which stands in for a full disk.
    pages: file::Pages,
    interval: Duration,
    /// The quota of the chain of refusals.
    refusals_max_mb: u64,
    /// How long the start waits for a check of the files.
    check_wait: damage::Wait,
}

impl Bounds {
    const OF_A_NODE: Self = Self {
        pages: file::Pages::UNLIMITED,
        interval: INTERVAL,
        refusals_max_mb: REFUSALS_MAX_MB,
        check_wait: damage::CHECK_WAIT,
    };
}

fn open_within(options: &Options, bounds: Bounds) -> Result<SqliteStore, Error> {
    let folder = file::Folder::open(&options.folder)?;
    let quota_mb = Arc::new(AtomicU64::new(options.read_audit_max_mb));
    let health = Arc::new(Health::default());
    let rotated_health = Each::<Arc<Health>>::default();
    let (alive, done) = blocking::sync_channel(1);
    let (commits, jobs) = mpsc::channel(COMMIT_QUEUE_MAX);
    let (facts, fact_questions) = mpsc::channel(QUESTION_QUEUE_MAX);
    let (pages_asked, page_questions) = mpsc::channel(QUESTION_QUEUE_MAX);
    let key = evidence::SharedKey::default();
    let (end_ticks, ticks_end) = blocking::sync_channel(1);
    let shared = events::Shared { tails: Arc::default(), key: Arc::clone(&key), checkpoints: commits.downgrade() };
    let opened = Opened::open(&folder, bounds, &quota_mb, (&health, &rotated_health), &shared)?;
    let losses = opened.losses()?;

    let closing = Arc::new(Closing::of(folder.path(), Files::AUDIT));
    let spawn = Spawn { folder: &folder, alive, closing: &closing };
    let check = opened.check(&spawn, (&health, &rotated_health), bounds.check_wait)?;
    let was_checked = check.is_some();
    let Opened { mut control, reads, refusals, fact_reader, page_reader } = opened;
    let interrupts = Interrupts(fact_reader.interrupts().into_iter().chain(page_reader.interrupts()).collect());
    let (writing, others_ended) = blocking::sync_channel(0);
    let (control_read, control_unread) = blocking::sync_channel(0);
    let ending = Arc::clone(&closing);
    spawn.thread("store-control", move || {
        control.run(jobs, &others_ended);
        wait_for_readers(&control_unread);
        control.close(&ending);
    })?;
    let (reads, reads_read) = spawn.rotated("store-events", reads, writing.clone())?;
    let (refusals, refusals_read) = spawn.rotated("store-refusals", refusals, writing)?;
    let reading = (control_read, reads_read, refusals_read);
    let weak = commits.downgrade();
    spawn.thread("store-interval", move || tell_time(&weak, &ticks_end, bounds.interval))?;
    spawn.reader("store-facts", fact_reader, fact_questions, reading.clone())?;
    spawn.reader("store-audit", page_reader, page_questions, reading)?;
    let links = Links {
        commits,
        rotated: Each { reads, refusals },
        _end_ticks: end_ticks,
        facts,
        pages: pages_asked,
        _interrupts: interrupts,
        _check: check,
    };
    let (links, done) = (Mutex::new(Some(links)), Mutex::new(Some(done)));
    let place = folder.place();
    Ok(SqliteStore { links, done, key, quota_mb, health, rotated_health, closing, was_checked, losses, place })
}

/// The files, opened to write and to read.
struct Opened {
    control: control::Writer,
    reads: events::Writer,
    refusals: events::Writer,
    fact_reader: query::Reader,
    page_reader: query::Reader,
}

/// What goes wrong with the files.
type Healths<'a> = (&'a Arc<Health>, &'a Each<Arc<Health>>);

impl Opened {
    fn open(
        folder: &file::Folder,
        bounds: Bounds,
        quota_mb: &Arc<AtomicU64>,
        (health, rotated_health): Healths<'_>,
        shared: &events::Shared,
    ) -> Result<Self, Error> {
        let refusals_mb = Arc::new(AtomicU64::new(bounds.refusals_max_mb));
        let rotated = |chain, quota| {
            events::Writer::open(folder, chain, quota, Arc::clone(rotated_health.of(chain)), shared.clone())
        };
        Ok(Self {
            control: control::Writer::open(folder, bounds.pages, Arc::clone(health), shared)?,
            reads: rotated(Rotated::Reads, Arc::clone(quota_mb))?,
            refusals: rotated(Rotated::Refusals, refusals_mb)?,
            fact_reader: query::Reader::open(folder, Arc::clone(health), rotated_health)?,
            page_reader: query::Reader::open(folder, Arc::clone(health), rotated_health)?,
        })
    }

    /// What the newest checkpoint states of the rotated chains and is not there.
    fn losses(&self) -> Result<Vec<String>, Error> {
        let stated = self.control.stated();
        let lost = [self.reads.lost(&stated)?, self.refusals.lost(&stated)?];
        let lost: Vec<String> = lost.into_iter().flatten().collect();
        lost.iter().for_each(|lost| tracing::error!(lost, "records that a checkpoint speaks of are gone"));
        Ok(lost)
    }

    /// Has the files checked, unless the last stop was clean.
    fn check(
        &self,
        spawn: &Spawn<'_>,
        (health, rotated_health): Healths<'_>,
        wait: damage::Wait,
    ) -> Result<Option<damage::Under>, Error> {
        let mut ends = Ends::default();
        ends.put(file::Name::Control, self.control.end().to_string());
        ends.put(file::Name::Events, self.reads.end().to_string());
        ends.put(file::Name::Refusals, self.refusals.end().to_string());
        if spawn.folder.is_clean(&ends) {
            spawn.closing.note_whole();
            return Ok(None);
        }
        let files = [
            (file::Name::Control, Arc::clone(health)),
            (file::Name::Events, Arc::clone(&rotated_health.reads)),
            (file::Name::Refusals, Arc::clone(&rotated_health.refusals)),
        ];
        Check::open(spawn.folder, files)?.begin(spawn, wait).map(Some)
    }
}

/// Wakes the writer at each interval until the store is closed. It holds no way of its own, so that it keeps nobody waiting.
fn tell_time(commits: &mpsc::WeakSender<control::Job>, end: &blocking::Receiver<()>, interval: Duration) {
    while end.recv_timeout(interval) == Err(blocking::RecvTimeoutError::Timeout) {
        let Some(commits) = commits.upgrade() else { return };
        // A full queue has the writer awake anyway.
        drop(commits.try_send(control::Job::Interval));
    }
}

/// The last connection to leave a file copies its log and removes it, and only a writer may do that.
fn wait_for_readers(unread: &blocking::Receiver<()>) {
    // Nothing is ever sent: the wait ends when the last reader's end is dropped.
    unread.recv_timeout(READERS_WAIT).unwrap_or_default();
}

/// Starts the store's threads. Each holds the folder's lock and a sign of life until it ends.
struct Spawn<'a> {
    folder: &'a file::Folder,
    alive: blocking::SyncSender<()>,
    /// Where the writers say that they have closed their files.
    closing: &'a Arc<Closing>,
}

impl Spawn<'_> {
    fn thread(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
        let held = (self.folder.lock(), self.alive.clone());
        let body = move || {
            run();
            drop(held);
        };
        match std::thread::Builder::new().name(name.to_owned()).spawn(body) {
            Ok(thread) => Ok(thread),
            Err(error) => Err(Error::Broken { place: name.to_owned(), reason: error.to_string() }),
        }
    }

    /// Starts the writer of a rotated chain, which is `writing` until it has written all. Gives the way to it, and what its readers
    /// hold.
    fn rotated(
        &self,
        name: &str,
        mut writer: events::Writer,
        writing: blocking::SyncSender<()>,
    ) -> Result<(Way, blocking::SyncSender<()>), Error> {
        let (records, drafts) = blocking::sync_channel(READ_QUEUE_MAX);
        let (stop, stopped) = blocking::sync_channel(1);
        let (read, unread) = blocking::sync_channel(0);
        let waiting = writer.waiting();
        let closing = Arc::clone(self.closing);
        self.thread(name, move || {
            writer.run(&drafts, &stopped);
            drop((drafts, writing));
            wait_for_readers(&unread);
            writer.close(&closing);
        })?;
        Ok((Way { records, waiting, _stop: stop }, read))
    }

    /// Starts a reader, which is `reading` until nobody asks any more.
    fn reader(
        &self,
        name: &str,
        reader: query::Reader,
        questions: mpsc::Receiver<Question>,
        reading: impl Send + 'static,
    ) -> Result<(), Error> {
        self.thread(name, move || {
            reader.run(questions);
            drop(reading);
        })
        .map(drop)
    }
}

/// The way to the writer of a rotated chain.
struct Way {
    records: blocking::SyncSender<Option<Draft>>,
    /// How many are in its queue. Only raised under the lock, so that it is never less than what is in there.
    waiting: Arc<AtomicUsize>,
    /// Dropped to end the lingering of the writer.
    _stop: blocking::SyncSender<()>,
}

impl Way {
    fn has_room(&self, records: usize) -> bool {
        self.waiting.load(Ordering::Relaxed).saturating_add(records) <= READ_QUEUE_MAX
    }

    /// Puts one message into the queue.
    fn send(&self, message: Option<Draft>) -> Result<(), Full> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.records.try_send(message).map_err(|_full_or_stopped| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            Full
        })
    }

    fn queue(&self, name: &'static str) -> Queue {
        Queue { name, length: self.waiting.load(Ordering::Relaxed), capacity: READ_QUEUE_MAX }
    }
}

/// The ways to the threads. A thread ends when its way is dropped and what waits on it is done.
struct Links {
    commits: mpsc::Sender<control::Job>,
    rotated: Each<Way>,
    /// Dropped to end the thread that tells the writer the time.
    _end_ticks: blocking::SyncSender<()>,
    facts: mpsc::Sender<Question>,
    pages: mpsc::Sender<Question>,
    /// Dropped to end the questions under way.
    _interrupts: Interrupts,
    /// Dropped to end the check that a start has begun.
    _check: Option<damage::Under>,
}

impl Links {
    fn queues(&self) -> Vec<Queue> {
        vec![
            self.rotated.reads.queue("read_records"),
            self.rotated.refusals.queue("refusal_records"),
            queue("store_commits", &self.commits),
            queue("store_facts", &self.facts),
            queue("store_pages", &self.pages),
        ]
    }
}

/// A queue of which the way in says how much room it has.
fn queue<T>(name: &'static str, way: &mpsc::Sender<T>) -> Queue {
    Queue::with_room(name, way.max_capacity(), way.capacity())
}

/// Ends long questions at close.
struct Interrupts(Vec<rusqlite::InterruptHandle>);

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.0.iter().for_each(rusqlite::InterruptHandle::interrupt);
    }
}

/// The store on disk.
pub struct SqliteStore {
    links: Mutex<Option<Links>>,
    done: Mutex<Option<blocking::Receiver<()>>>,
    key: evidence::SharedKey,
    quota_mb: Arc<AtomicU64>,
    health: Arc<Health>,
    rotated_health: Each<Arc<Health>>,
    closing: Arc<Closing>,
    was_checked: bool,
    losses: Vec<String>,
    place: String,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "SqliteStore({})", self.place)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can leave a value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SqliteStore {
    /// Whether the last stop was not clean, so that the files were checked at this start.
    pub const fn was_checked(&self) -> bool {
        self.was_checked
    }

    fn link<T>(&self, pick: impl FnOnce(&Links) -> T) -> Result<T, Error> {
        lock(&self.links).as_ref().map(pick).ok_or(Error::Closed)
    }

    /// Why a thread did not answer: closed, or it stopped with an error of its own.
    fn silence(&self) -> Error {
        match self.link(|_| ()) {
            Err(closed) => closed,
            Ok(()) => {
                let stopped = || Error::Broken { place: self.place.clone(), reason: "a thread has stopped".into() };
                self.health.fault().unwrap_or_else(stopped)
            }
        }
    }

    async fn ask<T>(
        &self,
        way: Result<mpsc::Sender<Question>, Error>,
        question: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Question,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        // A send fails only when the thread is gone; the reply is then dropped with the question.
        if way?.send(question(reply)).await.is_err() {
            return Err(self.silence());
        }
        answer.await.unwrap_or_else(|_dropped| Err(self.silence()))
    }
}

impl Store for SqliteStore {
    /// Once handed over, a batch is written even if the future is dropped.
    fn commit(&self, batch: Batch) -> Pending<'_, Result<Vec<Position>, Error>> {
        Box::pin(async move {
            let way = self.link(|links| links.commits.clone())?;
            let (reply, answer) = oneshot::channel();
            if way.send(control::Job::Commit { batch, reply }).await.is_err() {
                return Err(self.silence());
            }
            drop(way);
            answer.await.unwrap_or_else(|_dropped| Err(self.silence()))
        })
    }

    fn recall(&self) -> Pending<'_, Result<Vec<Record>, Error>> {
        Box::pin(self.ask(self.link(|links| links.facts.clone()), |reply| Question::Recall { reply }))
    }

    /// After `close`, and while the file of their chain is broken, every record is refused.
    fn append_reads(&self, drafts: Vec<Draft>) -> Result<(), Full> {
        // Held until the last is in: nobody else can take the room that was found.
        let links = lock(&self.links);
        let links = links.as_ref().ok_or(Full)?;
        let refused = drafts.iter().filter(|draft| rotated_for(draft) == Rotated::Refusals).count();
        let has_room = links.rotated.refusals.has_room(refused)
            && links.rotated.reads.has_room(drafts.len().saturating_sub(refused));
        if !has_room {
            return Err(Full);
        }
        // If a writer ends in between, what was sent is gone with the rest.
        drafts.into_iter().try_for_each(|draft| links.rotated.of(rotated_for(&draft)).send(Some(draft)))
    }

    /// None once it is closed.
    fn queues(&self) -> Vec<Queue> {
        self.link(Links::queues).unwrap_or_default()
    }

    fn audit(&self, filter: Filter) -> Pending<'_, Result<Page, Error>> {
        let filter = Box::new(filter);
        Box::pin(self.ask(self.link(|links| links.pages.clone()), |reply| Question::Page { filter, reply }))
    }

    fn position(&self, audit_id: AuditId) -> Pending<'_, Result<Option<Position>, Error>> {
        Box::pin(self.ask(self.link(|links| links.facts.clone()), move |reply| Question::Place { audit_id, reply }))
    }

    fn length(&self) -> Pending<'_, Result<u64, Error>> {
        Box::pin(self.ask(self.link(|links| links.facts.clone()), |reply| Question::Length { reply }))
    }

    fn sign_checkpoints(&self, key: NoteKey) {
        *lock(&self.key) = Some(key);
    }

    fn checkpoint(&self) -> Pending<'_, Result<Option<String>, Error>> {
        Box::pin(self.ask(self.link(|links| links.facts.clone()), |reply| Question::Checkpoint { reply }))
    }

    fn growth(&self, from: u64) -> Pending<'_, Result<Option<Growth>, Error>> {
        Box::pin(self.ask(self.link(|links| links.pages.clone()), move |reply| Question::Growth { from, reply }))
    }

    fn fault(&self) -> Option<Error> {
        self.health.fault()
    }

    fn reads_fault(&self) -> Option<Error> {
        self.rotated_health.reads.fault().or_else(|| self.rotated_health.refusals.fault())
    }

    fn losses(&self) -> Vec<String> {
        self.losses.clone()
    }

    fn is_being_checked(&self) -> bool {
        !self.closing.is_known_whole() && self.fault().is_none() && self.reads_fault().is_none()
    }

    fn set_read_quota(&self, megabytes: u64) {
        self.quota_mb.store(megabytes, Ordering::Relaxed);
        // A full queue is looked at soon anyway, and a closed store has no quota.
        let woken = self.link(|links| links.rotated.reads.send(None).is_ok());
        drop(woken);
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            drop(lock(&self.links).take());
            let Some(done) = lock(&self.done).take() else { return };
            let (reply, closed) = oneshot::channel();
            // A thread and not a timer: the wait is for real threads, even where a test has stopped the runtime's clock.
            let wait = move || {
                let ended = done.recv_timeout(CLOSE_WAIT) == Err(blocking::RecvTimeoutError::Disconnected);
                // Whoever closed may have gone away meanwhile.
                reply.send(ended).unwrap_or_default();
            };
            let waiter = std::thread::Builder::new().name("store-close".to_owned()).spawn(wait);
            if waiter.is_err() || closed.await != Ok(true) {
                tracing::warn!(
                    place = self.place,
                    "store is still writing; what waits is written before the process ends"
                );
            }
        })
    }
}

#[cfg(test)]
mod tests;
