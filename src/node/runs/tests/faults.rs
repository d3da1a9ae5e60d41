//! Runs over a store that is slow, or that fails for one run and not for the others.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, Weak};

use super::*;
use crate::domain::run::{End, Pointer};
use crate::domain::time::Wall;
use crate::store::Error;
use crate::store::runs::{Change, EventPage, EventsAsked as PageAsked, Head, Observer, Outcome, Refused};
use crate::wire::run::{run_end, run_start};

/// A store whose appends can be held up, and whose writes can fail for a reason that a repetition does not mend.
#[derive(Debug)]
pub(super) struct Faulty {
    inner: Arc<MemoryRuns>,
    /// Batches that append wait while it is held.
    gate: tokio::sync::Mutex<()>,
    /// How many have come to the gate.
    arrived: AtomicUsize,
    /// Batches with an end that were asked for.
    pub(super) ends: AtomicUsize,
    fails_next_append: AtomicBool,
    /// Nothing of this run can be written.
    cursed: Mutex<Option<RunId>>,
    /// Whether each run that begins is followed by another one of its instance, which begins and ends at once.
    pub(super) crowds: AtomicBool,
    rivals: AtomicUsize,
}

impl Faulty {
    pub(super) fn new(inner: &Arc<MemoryRuns>, cursed: Option<RunId>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            gate: tokio::sync::Mutex::default(),
            arrived: AtomicUsize::new(0),
            ends: AtomicUsize::new(0),
            fails_next_append: AtomicBool::new(false),
            cursed: Mutex::new(cursed),
            crowds: AtomicBool::new(false),
            rivals: AtomicUsize::new(0),
        })
    }

    /// A short run that began behind this one.
    async fn crowd(&self, behind: Pointer) {
        let number = u8::try_from(self.rivals.fetch_add(1, Ordering::SeqCst)).expect("few");
        let pointer = Pointer { run: RunId::new(behind.started, [number; 10]), ..behind };
        let end = End { at: pointer.started, is_error: false, duration: Millis(1) };
        let (run, first) = (pointer.run, run_start(&pointer, "{}"));
        let last = run_end(run, 1, &end, None, None);
        let batch = vec![Change::Create { pointer, first }, Change::End { run, end, result: None, error: None, last }];
        self.inner.commit(batch).await.expect("commits");
    }

    fn is_cursed(&self, batch: &[Change]) -> bool {
        let cursed = *self.cursed.lock().expect("no panic under the lock");
        batch.iter().any(|change| Some(change.run()) == cursed)
    }
}

impl RunStore for Faulty {
    fn commit(&self, batch: Vec<Change>) -> store::Pending<'_, Result<Outcome, Refused>> {
        Box::pin(async move {
            let damaged = || Error::Unreadable { place: "runs.db".to_owned(), reason: "on purpose".to_owned() };
            if batch.iter().any(|change| matches!(change, Change::End { .. })) {
                self.ends.fetch_add(1, Ordering::SeqCst);
            }
            if batch.iter().any(|change| matches!(change, Change::Append { .. })) {
                self.arrived.fetch_add(1, Ordering::SeqCst);
                let _open = self.gate.lock().await;
                if self.fails_next_append.swap(false, Ordering::SeqCst) {
                    return Err(damaged().into());
                }
            }
            if self.is_cursed(&batch) {
                return Err(damaged().into());
            }
            let outcome = self.inner.commit(batch.clone()).await?;
            for change in batch {
                match change {
                    Change::Create { pointer, .. } if self.crowds.load(Ordering::SeqCst) => self.crowd(pointer).await,
                    Change::Append { .. } | Change::Create { .. } | Change::End { .. } => {}
                }
            }
            Ok(outcome)
        })
    }

    fn observe(&self, observer: Weak<dyn Observer>) {
        self.inner.observe(observer);
    }

    fn run(&self, run: RunId) -> store::Pending<'_, Result<Option<Run>, Error>> {
        RunStore::run(&*self.inner, run)
    }

    fn events(&self, asked: PageAsked) -> store::Pending<'_, Result<Option<EventPage>, Error>> {
        self.inner.events(asked)
    }

    fn head(&self, run: RunId) -> store::Pending<'_, Result<Option<Head>, Error>> {
        self.inner.head(run)
    }

    fn unfinished(&self) -> store::Pending<'_, Result<Vec<RunId>, Error>> {
        self.inner.unfinished()
    }

    fn is_forgotten(&self, run: RunId) -> store::Pending<'_, Result<bool, Error>> {
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

    fn close(&self) -> store::Pending<'_, ()> {
        self.inner.close()
    }
}

pub(super) async fn over(faulty: &Arc<Faulty>, store: MemoryStore, script: Script) -> Stage {
    let runs = Arc::clone(&faulty.inner);
    Stage::over_faulty(store, runs, Arc::<Faulty>::clone(faulty), (script, Millis(600_000))).await
}

pub(super) async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, wait).await.expect("happens in time");
}

/// Contract, RR-42.
#[tokio::test]
async fn all_events_are_stored_before_run_end_even_when_the_store_is_slow() {
    let faulty = Faulty::new(&Arc::new(MemoryRuns::new(50)), None);
    let stage = over(&faulty, MemoryStore::new(), Script::Echoes).await;
    let held = faulty.gate.lock().await;
    let run = stage.start(r#"{"type":"text_delta","text":"ho"}"#).await.expect("started");
    // The program has ended, and what it said is still on its way.
    until(|| faulty.arrived.load(Ordering::SeqCst) == 1 && stage.programs.running() == 0).await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(faulty.ends.load(Ordering::SeqCst), 0, "no end overtakes what comes before it");
    assert_eq!(stage.run(run).await.expect("known").pointer.status(), Status::Active);
    drop(held);
    assert_eq!(kinds(&stage.follow(run).await), [Kind::RunStart, Kind::TextDelta, Kind::RunEnd]);
}

#[tokio::test]
async fn a_run_of_which_something_could_not_be_written_has_an_end_that_says_so() {
    for said in [r#"{"type":"text_delta","text":"ho"}"#, r#"{"type":"text_delta","text":"streamed"}"#] {
        let faulty = Faulty::new(&Arc::new(MemoryRuns::new(50)), None);
        let stage = over(&faulty, MemoryStore::new(), Script::Echoes).await;
        faulty.fails_next_append.store(true, Ordering::SeqCst);
        let run = stage.start(said).await.expect("started");
        let events = stage.follow(run).await;
        assert!(is_gapless(&events), "{events:?}");
        assert_eq!(events.last().map(|event| event.kind), Some(Kind::RunEnd));
        let kept = stage.run(run).await.expect("known");
        assert!(kept.error.as_ref().is_some_and(|error| error.contains("NotWritten")), "{kept:?}");
        stage.await_closed().await;
    }
}

/// Contract, RR-82.
#[tokio::test]
async fn a_run_that_cannot_be_closed_leaves_no_other_open() {
    for (is_on_record, which) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
        let stage = Stage::new(Script::Waits, Millis(600_000)).await;
        let left = [stage.start("{}").await.expect("started"), stage.start("{}").await.expect("started")];
        let store = if is_on_record { stage.store.clone() } else { MemoryStore::new() };
        let faulty = Faulty::new(&Arc::new(stage.runs.crash()), Some(left[which]));
        let after = over(&faulty, store, Script::Waits).await;
        let events = after.follow(left[1 - which]).await;
        assert_eq!(events.last().map(|event| event.kind), Some(Kind::RunEnd), "{is_on_record} {which}");
        assert_eq!(after.run(left[which]).await.expect("known").pointer.status(), Status::Active);
    }
}

/// Contract, RR-82: a crash after the end is written and before the engine knows.
#[tokio::test]
async fn a_run_that_has_ended_and_is_forgotten_does_not_come_back_as_interrupted() {
    let stage = Stage::new(Script::Waits, Millis(600_000)).await;
    let told = stage.start("{}").await.expect("started");
    let (store, runs) = (stage.store.clone(), Arc::new(stage.runs.crash()));
    runs.set_runs_kept(1);
    let kept = RunStore::run(&*runs, told).await.expect("readable").expect("known").pointer;
    let later = Pointer { run: RunId::new(Wall(kept.started.0 + 1_000_000), [9; 10]), ..kept.clone() };
    let end = End { at: kept.started, is_error: false, duration: Millis(1) };
    let head = runs.head(told).await.expect("readable").expect("known");
    let ended = |run, index| {
        let last = run_end(run, index, &end, None, None);
        Change::End { run, end, result: None, error: None, last }
    };
    let first = run_start(&later, "{}");
    let batch = vec![ended(told, head.count), Change::Create { pointer: later.clone(), first }, ended(later.run, 1)];
    assert_eq!(runs.commit(batch).await.expect("commits").forgotten, [told]);
    let after = Stage::over(store, Arc::clone(&runs), Script::Waits, Millis(600_000)).await;
    after.await_closed().await;
    assert_eq!(after.run(told).await, Err(Absent::Unknown));
    let number = runs.number().await.expect("readable");
    assert_eq!(number, 5, "two starts, two ends and one that is forgotten; nothing since");
}
