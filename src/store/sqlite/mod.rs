//! The store on disk: SQLite, one file per concern.
//!
//! `control.db` holds the facts and the chain of writes, `events.db` the chain of reads. Each file has one writer thread,
//! which alone knows the end of its chain; questions are answered by threads with read-only connections of their own, so that
//! no reader ever stands in a writer's way. Nothing here runs on the async runtime's threads.

mod chain;
mod control;
mod error;
mod events;
mod evidence;
mod file;
mod query;
pub mod runs;
mod words;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::error::Health;
use self::query::Question;
use super::{Error, Filter, Full, Growth, Page, Pending, READ_QUEUE_MAX, Store};
use crate::domain::audit::{self, AuditId, Draft, NoteKey, Position};
use crate::domain::queue::Queue;
use crate::engine::record::{Batch, Record};

pub use self::chain::{ChainReader, Link, Verdict, read_chain, verify};
pub use self::evidence::{examine, read_checkpoints};
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
    open_within(options, file::Pages::UNLIMITED, INTERVAL)
}

/// The same with a limit on the size of `control.db`, which stands in for a full disk in tests, and another interval.
fn open_within(options: Options, pages: file::Pages, interval: Duration) -> Result<SqliteStore, Error> {
    let folder = file::Folder::open(&options.folder)?;
    let quota_mb = Arc::new(AtomicU64::new(options.read_audit_max_mb));
    let health = Arc::new(Health::default());
    let reads_health = Arc::new(Health::default());
    let (alive, done) = blocking::sync_channel(1);
    let (commits, jobs) = mpsc::channel(COMMIT_QUEUE_MAX);
    let (reads, drafts) = blocking::sync_channel(READ_QUEUE_MAX);
    let (stop, stopped) = blocking::sync_channel(1);
    let (facts, fact_questions) = mpsc::channel(QUESTION_QUEUE_MAX);
    let (pages_asked, page_questions) = mpsc::channel(QUESTION_QUEUE_MAX);

    let key = evidence::SharedKey::default();
    let (end_ticks, ticks_end) = blocking::sync_channel(1);

    let mut control = control::Writer::open(&folder, pages, Arc::clone(&health), Arc::clone(&key))?;
    let mut events = events::Writer::open(&folder, Arc::clone(&quota_mb), Arc::clone(&reads_health))?;
    let waiting = events.waiting();
    let fact_reader = query::Reader::open(&folder, Arc::clone(&health), Arc::clone(&reads_health))?;
    let page_reader = query::Reader::open(&folder, Arc::clone(&health), Arc::clone(&reads_health))?;
    let interrupts = Interrupts(fact_reader.interrupts().into_iter().chain(page_reader.interrupts()).collect());

    let spawn = Spawn { folder: &folder, alive };
    let (control_read, control_unread) = blocking::sync_channel(0);
    let (events_read, events_unread) = blocking::sync_channel(0);
    let reading = (control_read, events_read);
    let also_reading = reading.clone();
    spawn.thread("store-control", move || {
        control.run(jobs);
        wait_for_readers(&control_unread);
        drop(control);
    })?;
    spawn.thread("store-events", move || {
        events.run(&drafts, &stopped);
        wait_for_readers(&events_unread);
        drop(events);
    })?;
    let weak = commits.downgrade();
    spawn.thread("store-interval", move || tell_time(&weak, &ticks_end, interval))?;
    spawn.thread("store-facts", move || {
        fact_reader.run(fact_questions);
        drop(reading);
    })?;
    spawn.thread("store-audit", move || {
        page_reader.run(page_questions);
        drop(also_reading);
    })?;
    let links = Links {
        commits,
        reads,
        waiting,
        _stop: stop,
        _end_ticks: end_ticks,
        facts,
        pages: pages_asked,
        _interrupts: interrupts,
    };
    let links = Mutex::new(Some(links));
    Ok(SqliteStore { links, done: Mutex::new(Some(done)), key, quota_mb, health, reads_health, place: folder.place() })
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
}

impl Spawn<'_> {
    fn thread(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let held = (self.folder.lock(), self.alive.clone());
        let body = move || {
            run();
            drop(held);
        };
        match std::thread::Builder::new().name(name.to_owned()).spawn(body) {
            Ok(_detached) => Ok(()),
            Err(error) => Err(Error::Broken { place: name.to_owned(), reason: error.to_string() }),
        }
    }
}

/// The ways to the threads. A thread ends when its way is dropped and what waits on it is done.
struct Links {
    commits: mpsc::Sender<control::Job>,
    reads: blocking::SyncSender<Option<Draft>>,
    /// How many are in the queue of reads. Only raised under the lock, so that it is never less than what is in there.
    waiting: Arc<AtomicUsize>,
    /// Dropped to end the lingering of the events writer.
    _stop: blocking::SyncSender<()>,
    /// Dropped to end the thread that tells the writer the time.
    _end_ticks: blocking::SyncSender<()>,
    facts: mpsc::Sender<Question>,
    pages: mpsc::Sender<Question>,
    /// Dropped to end the questions under way.
    _interrupts: Interrupts,
}

impl Links {
    fn queues(&self) -> Vec<Queue> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        vec![
            Queue { name: "read_records", length: waiting, capacity: READ_QUEUE_MAX },
            queue("store_commits", &self.commits),
            queue("store_facts", &self.facts),
            queue("store_pages", &self.pages),
        ]
    }

    /// Puts one message into the queue of reads.
    fn send(&self, message: Option<Draft>) -> Result<(), Full> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.reads.try_send(message).map_err(|_full_or_stopped| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            Full
        })
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
    reads_health: Arc<Health>,
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

    /// After `close`, and while the file of reads is broken, every record is refused.
    fn append_reads(&self, drafts: Vec<Draft>) -> Result<(), Full> {
        // Held until the last is in: nobody else can take the room that was found.
        let links = lock(&self.links);
        let links = links.as_ref().ok_or(Full)?;
        if READ_QUEUE_MAX < links.waiting.load(Ordering::Relaxed).saturating_add(drafts.len()) {
            return Err(Full);
        }
        // If the writer ends in between, what was sent is gone with the rest.
        drafts.into_iter().try_for_each(|draft| links.send(Some(draft)))
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
        self.reads_health.fault()
    }

    fn set_read_quota(&self, megabytes: u64) {
        self.quota_mb.store(megabytes, Ordering::Relaxed);
        // A full queue is looked at soon anyway, and a closed store has no quota.
        let woken = self.link(|links| links.send(None).is_ok());
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
