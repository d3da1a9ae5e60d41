//! The store of runs on disk: `runs.db`, with a writer thread of its own, so that a chatty program delays no decision.
//!
//! Pages of events and everything else are read by one thread each: who pages through a long log keeps nobody from finding a
//! run.

mod reader;
mod registry;
mod replica;
mod retention;
mod row;
mod writer;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{mpsc, oneshot};

use self::reader::Reader;
use self::retention::Keep;
use self::writer::{Job, Work, Writer};
use super::damage::{self, Check};
use super::error::Health;
use super::stop::{Closing, Ends, Files};
use super::{CLOSE_WAIT, COMMIT_QUEUE_MAX, Interrupts, QUESTION_QUEUE_MAX, Spawn, file, lock, queue, wait_for_readers};
use crate::domain::id::RuntimeId;
use crate::domain::queue::Queue;
use crate::domain::run::{Pointer, Run, RunId};
use crate::store::runs::{
    Change, EventPage, EventsAsked, Head, InstancePage, InstancesAsked, Limits, Observer, Outcome, PointerChanges,
    Refused, Registry, Replica, RunPage, RunStore, RunsAsked, Upto,
};
use crate::store::{Error, Pending};

/// The tables of `runs.db`, as version 1 had them. Times of starts are also kept in milliseconds, because that is what lists are sorted by.
pub(super) const RUN_TABLES: &str = "
    CREATE TABLE run (
        no INTEGER PRIMARY KEY,
        run TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        agent TEXT NOT NULL,
        instance TEXT NOT NULL,
        started_ns INTEGER NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ns INTEGER,
        is_error INTEGER,
        duration_ms INTEGER,
        result TEXT,
        error TEXT,
        head INTEGER NOT NULL,
        number INTEGER NOT NULL UNIQUE
    ) STRICT;
    CREATE INDEX run_by_start ON run (started_ms, run);
    CREATE INDEX run_by_agent ON run (agent, started_ms, run);
    CREATE INDEX run_by_instance ON run (agent, instance, started_ms, run);
    CREATE INDEX run_unfinished ON run (started_ms, run) WHERE ended_ns IS NULL;
    CREATE TABLE event (
        run_no INTEGER NOT NULL REFERENCES run (no),
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (run_no, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE counter (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        number INTEGER NOT NULL,
        dropped_upto INTEGER NOT NULL
    ) STRICT;
    INSERT INTO counter (only, number, dropped_upto) VALUES (1, 0, 0);
    CREATE TABLE forgotten (
        number INTEGER PRIMARY KEY,
        run TEXT NOT NULL
    ) STRICT;
    CREATE TABLE peer (
        owner TEXT PRIMARY KEY,
        upto INTEGER NOT NULL,
        floor INTEGER NOT NULL,
        kept INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE replica (
        run TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        agent TEXT NOT NULL,
        instance TEXT NOT NULL,
        started_ns INTEGER NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ns INTEGER,
        is_error INTEGER,
        duration_ms INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX replica_by_owner ON replica (owner, started_ms, run);
    CREATE INDEX replica_by_start ON replica (started_ms, run);
";

/// What version 2 of `runs.db` added: finished runs of an instance in the order in which they began, which is that of `no`, and
/// a way to a forgotten run.
pub(super) const RUN_INDICES: &str = "
    CREATE INDEX run_finished ON run (agent, instance) WHERE ended_ns IS NOT NULL;
    CREATE INDEX forgotten_by_run ON forgotten (run);
";

/// What version 1 of `runs.db` defines.
pub(super) const RUN_OBJECTS: &[&str] = &[
    "counter",
    "event",
    "forgotten",
    "peer",
    "replica",
    "replica_by_owner",
    "replica_by_start",
    "run",
    "run_by_agent",
    "run_by_instance",
    "run_by_start",
    "run_unfinished",
];

/// Where the file lies and how much of the past it keeps.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the file, made if absent.
    pub folder: PathBuf,
    /// Finished runs that are kept for each instance.
    pub runs_kept: usize,
    /// What the file may use in MiB. Finished runs give way, the oldest first; runs that go on do not.
    pub runs_max_mb: u64,
}

/// A question and the way of its answer.
type Question = Box<dyn FnOnce(&Reader) + Send>;

/// Whoever is told of what was written.
type SharedObserver = Arc<Mutex<Option<Weak<dyn Observer>>>>;

/// Opens the store of runs, or makes a new one. Blocks; meant for the start of the process.
pub fn open(options: &Options) -> Result<SqliteRuns, Error> {
    open_within(options, file::Pages::UNLIMITED, Limits::OF_A_NODE)
}

/// The same with other limits.
#[cfg(test)]
pub(in crate::store) fn open_bounded(options: &Options, limits: Limits) -> Result<SqliteRuns, Error> {
    open_within(options, file::Pages::UNLIMITED, limits)
}

/// The same with a limit on the size of the file, which stands in for a full disk in tests.
fn open_within(options: &Options, pages: file::Pages, limits: Limits) -> Result<SqliteRuns, Error> {
    let folder = file::Folder::open_runs(&options.folder)?;
    let health = Arc::new(Health::default());
    let observer = SharedObserver::default();
    let runs_kept = Arc::new(AtomicUsize::new(options.runs_kept));
    let runs_max_mb = Arc::new(AtomicU64::new(options.runs_max_mb));
    let (runs, megabytes) = (Arc::clone(&runs_kept), Arc::clone(&runs_max_mb));
    let keep = Keep { runs, megabytes, limits, finished: Cell::new(None) };
    let (alive, done) = blocking::sync_channel(1);
    let (commits, jobs) = mpsc::channel(COMMIT_QUEUE_MAX);
    let (facts, fact_questions) = mpsc::channel(QUESTION_QUEUE_MAX);
    let (pages_asked, page_questions) = mpsc::channel(QUESTION_QUEUE_MAX);
    let mut writer = Writer::open(&folder, pages, Arc::clone(&health), keep, Arc::clone(&observer))?;
    let fact_reader = Reader::open(&folder, Arc::clone(&health))?;
    let page_reader = Reader::open(&folder, Arc::clone(&health))?;
    let interrupts = Interrupts(vec![fact_reader.interrupt(), page_reader.interrupt()]);
    let closing = Arc::new(Closing::of(folder.path(), Files::RUNS));
    let spawn = Spawn { folder: &folder, alive, closing: &closing };
    let check = check(&spawn, &writer, &health)?;
    let was_checked = check.is_some();
    let (reading, unread) = blocking::sync_channel(0);
    let also_reading = reading.clone();
    let ending = Arc::clone(&closing);
    spawn.thread("runs-writer", move || {
        writer.run(jobs);
        wait_for_readers(&unread);
        writer.close(&ending);
    })?;
    spawn.thread("runs-facts", move || {
        answer(fact_reader, fact_questions);
        drop(reading);
    })?;
    spawn.thread("runs-events", move || {
        answer(page_reader, page_questions);
        drop(also_reading);
    })?;
    let links = Links { commits, facts, pages: pages_asked, _interrupts: interrupts, _check: check };
    let (links, done) = (Mutex::new(Some(links)), Mutex::new(Some(done)));
    let place = folder.place();
    Ok(SqliteRuns { links, done, health, runs_kept, runs_max_mb, observer, closing, was_checked, place })
}

/// Has the file checked, unless the last stop was clean.
fn check(spawn: &Spawn<'_>, writer: &Writer, health: &Arc<Health>) -> Result<Option<damage::Under>, Error> {
    let mut ends = Ends::default();
    ends.put(file::Name::Runs, writer.newest()?);
    if spawn.folder.is_clean(&ends) {
        spawn.closing.note_whole();
        return Ok(None);
    }
    Check::open(spawn.folder, [(file::Name::Runs, Arc::clone(health))])?.begin(spawn, damage::CHECK_WAIT).map(Some)
}

/// Answers until every way is gone.
fn answer(reader: Reader, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.blocking_recv() {
        question(&reader);
    }
}

/// The ways to the threads. A thread ends when its way is dropped and what waits on it is done.
struct Links {
    commits: mpsc::Sender<Job>,
    facts: mpsc::Sender<Question>,
    pages: mpsc::Sender<Question>,
    /// Dropped to end the questions under way.
    _interrupts: Interrupts,
    /// Dropped to end the check that a start has begun.
    _check: Option<damage::Under>,
}

/// The store and the registry of runs on disk.
pub struct SqliteRuns {
    links: Mutex<Option<Links>>,
    done: Mutex<Option<blocking::Receiver<()>>>,
    health: Arc<Health>,
    runs_kept: Arc<AtomicUsize>,
    runs_max_mb: Arc<AtomicU64>,
    observer: SharedObserver,
    closing: Arc<Closing>,
    was_checked: bool,
    place: String,
}

impl std::fmt::Debug for SqliteRuns {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "SqliteRuns({})", self.place)
    }
}

impl SqliteRuns {
    /// Whether the last stop was not clean, so that the file was checked at this start.
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

    /// Once handed over, it is written even if the future is dropped.
    async fn hand_over(&self, work: Work) -> Result<Outcome, Refused> {
        let way = self.link(|links| links.commits.clone())?;
        let (reply, answer) = oneshot::channel();
        if way.send(Job { work, reply }).await.is_err() {
            return Err(self.silence().into());
        }
        drop(way);
        answer.await.unwrap_or_else(|_dropped| Err(self.silence().into()))
    }

    async fn ask<T: Send + 'static>(
        &self,
        way: Result<mpsc::Sender<Question>, Error>,
        question: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        // Whoever gave up waiting needs no answer.
        let question: Question = Box::new(move |reader| drop(reply.send(question(reader))));
        if way?.send(question).await.is_err() {
            return Err(self.silence());
        }
        answer.await.unwrap_or_else(|_dropped| Err(self.silence()))
    }

    fn fact<'a, T: Send + 'static>(
        &'a self,
        question: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Pending<'a, Result<T, Error>> {
        Box::pin(self.ask(self.link(|links| links.facts.clone()), question))
    }
}

impl RunStore for SqliteRuns {
    fn commit(&self, batch: Vec<Change>) -> Pending<'_, Result<Outcome, Refused>> {
        Box::pin(self.hand_over(Work::Commit(batch)))
    }

    fn observe(&self, observer: Weak<dyn Observer>) {
        *lock(&self.observer) = Some(observer);
    }

    fn run(&self, run: RunId) -> Pending<'_, Result<Option<Run>, Error>> {
        self.fact(move |reader| reader.run(run))
    }

    fn events(&self, asked: EventsAsked) -> Pending<'_, Result<Option<EventPage>, Error>> {
        Box::pin(self.ask(self.link(|links| links.pages.clone()), move |reader| reader.events(&asked)))
    }

    fn head(&self, run: RunId) -> Pending<'_, Result<Option<Head>, Error>> {
        self.fact(move |reader| reader.head(run))
    }

    fn unfinished(&self) -> Pending<'_, Result<Vec<RunId>, Error>> {
        self.fact(Reader::unfinished)
    }

    fn is_forgotten(&self, run: RunId) -> Pending<'_, Result<bool, Error>> {
        self.fact(move |reader| reader.is_forgotten(run))
    }

    fn set_runs_kept(&self, runs: usize) {
        self.runs_kept.store(runs, Ordering::Relaxed);
    }

    fn set_quota(&self, megabytes: u64) {
        self.runs_max_mb.store(megabytes, Ordering::Relaxed);
    }

    /// None once it is closed.
    fn queues(&self) -> Vec<Queue> {
        let all = |links: &Links| {
            let ways = (&links.commits, &links.facts, &links.pages);
            vec![queue("run_commits", ways.0), queue("run_facts", ways.1), queue("run_pages", ways.2)]
        };
        self.link(all).unwrap_or_default()
    }

    fn fault(&self) -> Option<Error> {
        self.health.fault()
    }

    fn is_being_checked(&self) -> bool {
        !self.closing.is_known_whole() && self.fault().is_none()
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
            let waiter = std::thread::Builder::new().name("runs-close".to_owned()).spawn(wait);
            if waiter.is_err() || closed.await != Ok(true) {
                tracing::warn!(
                    place = self.place,
                    "store of runs is still writing; what waits is written before the end"
                );
            }
        })
    }
}

impl Registry for SqliteRuns {
    fn lookup(&self, run: RunId) -> Pending<'_, Result<Option<Pointer>, Error>> {
        self.fact(move |reader| reader.lookup(run))
    }

    fn list(&self, asked: RunsAsked) -> Pending<'_, Result<RunPage, Error>> {
        self.fact(move |reader| reader.list(&asked))
    }

    fn instances(&self, asked: InstancesAsked) -> Pending<'_, Result<InstancePage, Error>> {
        self.fact(move |reader| reader.instances(&asked))
    }

    fn changes(&self, after: Upto, limit: usize) -> Pending<'_, Result<PointerChanges, Error>> {
        self.fact(move |reader| reader.changes(after, limit))
    }

    fn number(&self) -> Pending<'_, Result<u64, Error>> {
        self.fact(Reader::number)
    }

    fn replicate(&self, replica: Replica) -> Pending<'_, Result<(), Error>> {
        Box::pin(async move {
            match self.hand_over(Work::Replicate(replica)).await {
                Ok(_nothing) => Ok(()),
                Err(Refused::Store(error)) => Err(error),
                Err(wrong @ Refused::Wrong { .. }) => {
                    Err(Error::Unreadable { place: self.place.clone(), reason: wrong.to_string() })
                }
            }
        })
    }

    fn replicated_upto(&self, owner: RuntimeId) -> Pending<'_, Result<Upto, Error>> {
        self.fact(move |reader| reader.replicated_upto(&owner))
    }
}

#[cfg(test)]
mod tests;
