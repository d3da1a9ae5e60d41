//! The store as those who follow runs read it, with every read on a list.

use std::sync::{Arc, Mutex, Weak};

use trust_runtime::domain::run::{Run, RunId};
use trust_runtime::store::runs::memory::MemoryRuns;
use trust_runtime::store::runs::{Change, EventPage, EventsAsked, Head, Observer, Outcome, Refused, RunStore};
use trust_runtime::store::{Error, Pending};

/// One read of events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read {
    /// Most events that were asked for.
    pub(crate) limit: usize,
    /// Most bytes.
    pub(crate) bytes_max: usize,
}

/// Keeps count and passes everything on.
#[derive(Debug)]
pub(crate) struct Counted {
    inner: Arc<MemoryRuns>,
    pub(crate) reads: Mutex<Vec<Read>>,
}

impl Counted {
    pub(crate) fn new(inner: Arc<MemoryRuns>) -> Self {
        Self { inner, reads: Mutex::default() }
    }
}

impl RunStore for Counted {
    fn commit(&self, batch: Vec<Change>) -> Pending<'_, Result<Outcome, Refused>> {
        self.inner.commit(batch)
    }

    fn observe(&self, observer: Weak<dyn Observer>) {
        self.inner.observe(observer);
    }

    fn run(&self, run: RunId) -> Pending<'_, Result<Option<Run>, Error>> {
        self.inner.run(run)
    }

    fn events(&self, asked: EventsAsked) -> Pending<'_, Result<Option<EventPage>, Error>> {
        self.reads.lock().unwrap().push(Read { limit: asked.limit, bytes_max: asked.bytes_max });
        self.inner.events(asked)
    }

    fn head(&self, run: RunId) -> Pending<'_, Result<Option<Head>, Error>> {
        self.inner.head(run)
    }

    fn unfinished(&self) -> Pending<'_, Result<Vec<RunId>, Error>> {
        self.inner.unfinished()
    }

    fn is_forgotten(&self, run: RunId) -> Pending<'_, Result<bool, Error>> {
        self.inner.is_forgotten(run)
    }

    fn set_quota(&self, megabytes: u64) {
        self.inner.set_quota(megabytes);
    }

    fn set_runs_kept(&self, runs: usize) {
        self.inner.set_runs_kept(runs);
    }

    fn fault(&self) -> Option<Error> {
        self.inner.fault()
    }

    fn close(&self) -> Pending<'_, ()> {
        self.inner.close()
    }
}
