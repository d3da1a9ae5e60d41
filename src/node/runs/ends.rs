//! How whoever has started a run hears of it: handed over with the end itself, because the store may have forgotten the run by
//! then (contract, RR-60).
//!
//! The engine names a run after it was asked for, so a run may have ended before its caller has heard its name. What a caller
//! waits for is therefore laid out before the run begins, and stays until nobody who asked before its end is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::domain::run::{Run, RunId};
use crate::store::runs::feed::RunReader;

/// What a caller waits for.
#[derive(Debug)]
pub(super) struct Awaited {
    /// Its beginning is written; closed if it never will be.
    pub(super) begun: oneshot::Receiver<()>,
    /// It has ended so; closed if that could not be written.
    pub(super) ended: oneshot::Receiver<Run>,
    /// A place from which nothing of it is missed, for one that is followed.
    pub(super) reader: Option<RunReader>,
}

/// What tells such a caller.
#[derive(Debug)]
pub(super) struct Teller {
    ends: Arc<Ends>,
    run: RunId,
    begun: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Sender<Run>>,
}

/// What is laid out for callers.
#[derive(Debug, Default)]
pub(super) struct Ends {
    state: Mutex<State>,
    /// Moves whenever something is laid out.
    laid_out: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Those who do not know their run's name yet, by when they came.
    asking: BTreeSet<u64>,
    /// What nobody has taken, and who came first after it was over.
    awaited: BTreeMap<RunId, (Awaited, Option<u64>)>,
    /// Whether nothing will be laid out any more.
    is_over: bool,
}

/// Whoever lays out. Once it is dropped, also by a panic or with its task, nobody waits for what it has not laid out.
#[derive(Debug)]
pub(super) struct LaysOut(Arc<Ends>);

/// One who asks for a run.
#[derive(Debug)]
pub(super) struct Asking {
    ends: Arc<Ends>,
    number: u64,
}

impl Ends {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody asks for a run. To be called before the engine is asked.
    pub(super) fn ask(self: &Arc<Self>) -> Asking {
        let mut state = self.state();
        let number = state.next_number();
        state.asking.insert(number);
        Asking { ends: Arc::clone(self), number }
    }

    /// What comes from now on is laid out by the one who has this.
    pub(super) fn lays_out(self: &Arc<Self>) -> LaysOut {
        LaysOut(Arc::clone(self))
    }

    fn lay_out(self: &Arc<Self>, run: RunId, reader: Option<RunReader>) -> Teller {
        let (begun, on_begun) = oneshot::channel();
        let (ended, on_ended) = oneshot::channel();
        let awaited = Awaited { begun: on_begun, ended: on_ended, reader };
        self.state().awaited.insert(run, (awaited, None));
        self.laid_out.send_modify(|count| *count = count.wrapping_add(1));
        Teller { ends: Arc::clone(self), run, begun: Some(begun), ended: Some(ended) }
    }

    /// Nothing more becomes of a run: who asks from now on asks for another one.
    fn close(&self, run: RunId) {
        let mut state = self.state();
        let number = state.next_number();
        if let Some((_, over)) = state.awaited.get_mut(&run) {
            *over = Some(number);
        }
        state.tidy();
    }
}

impl State {
    fn next_number(&mut self) -> u64 {
        self.next = self.next.saturating_add(1);
        self.next
    }

    /// Drops what is over and whose caller is not among those who still ask.
    fn tidy(&mut self) {
        let first = self.asking.first().copied().unwrap_or(u64::MAX);
        self.awaited.retain(|_, (_, over)| over.is_none_or(|over| first < over));
    }
}

impl Asking {
    /// What was laid out for the run that the engine has accepted. None where nobody is left who would do it.
    pub(super) async fn take(self, run: RunId) -> Option<Awaited> {
        let mut laid_out = self.ends.laid_out.subscribe();
        loop {
            {
                let mut state = self.ends.state();
                if let Some((awaited, _)) = state.awaited.remove(&run) {
                    return Some(awaited);
                }
                if state.is_over {
                    return None;
                }
            }
            laid_out.changed().await.ok()?;
        }
    }
}

impl LaysOut {
    /// A run is about to begin. To be called before it does.
    pub(super) fn lay_out(&self, run: RunId, reader: Option<RunReader>) -> Teller {
        self.0.lay_out(run, reader)
    }
}

impl Drop for LaysOut {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.laid_out.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut state = self.ends.state();
        state.asking.remove(&self.number);
        state.tidy();
    }
}

impl Teller {
    pub(super) fn begun(&mut self) {
        if let Some(begun) = self.begun.take() {
            // Whoever went away needs no word of it.
            begun.send(()).unwrap_or_default();
        }
    }

    /// Whether somebody may still take the end.
    pub(super) fn is_awaited(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| !ended.is_closed())
    }

    pub(super) fn ended(&mut self, run: Run) {
        if let Some(ended) = self.ended.take() {
            drop(ended.send(run));
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.ends.close(self.run);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::run::Pointer;
    use crate::domain::time::Wall;

    fn run_id(number: u8) -> RunId {
        RunId::new(Wall::from_millis(1), [number; 10])
    }

    fn ended(run: RunId) -> Run {
        let pointer = Pointer {
            run,
            owner: "s/a".parse().expect("legal"),
            agent: "hello".parse().expect("legal"),
            instance: "i1".parse().expect("legal"),
            started: Wall::from_millis(1),
            end: None,
        };
        Run { pointer, result: Some("1".to_owned()), error: None }
    }

    fn whole(ends: &Arc<Ends>, run: RunId) {
        let mut teller = ends.lay_out(run, None);
        teller.begun();
        teller.ended(ended(run));
    }

    #[tokio::test]
    async fn an_end_waits_for_a_caller_who_has_not_heard_the_name_of_its_run() {
        let ends = Arc::new(Ends::default());
        let early = ends.ask();
        whole(&ends, run_id(1));
        let late = ends.ask();
        let Awaited { begun, ended: on_ended, .. } = early.take(run_id(1)).await.expect("laid out");
        assert_eq!((begun.await, on_ended.await), (Ok(()), Ok(ended(run_id(1)))));
        let mut taking = Box::pin(late.take(run_id(2)));
        assert!((&mut taking).now_or_never().is_none(), "it is not laid out yet");
        whole(&ends, run_id(2));
        assert!(taking.await.is_some());
        assert!(ends.state().awaited.is_empty());
    }

    /// Its task was dropped, or a panic has ended it.
    #[tokio::test]
    async fn who_waits_for_a_run_that_nobody_will_begin_is_told_so() {
        let ends = Arc::new(Ends::default());
        let lays_out = ends.lays_out();
        let (waits, late, lucky) = (ends.ask(), ends.ask(), ends.ask());
        let mut waiting = Box::pin(waits.take(run_id(1)));
        assert!((&mut waiting).now_or_never().is_none(), "it may come yet");
        whole(&ends, run_id(2));
        let panics = tokio_util::task::TaskTracker::new().spawn(async move {
            let _lays_out = lays_out;
            panic!("as a test wants it");
        });
        assert!(panics.await.is_err());
        let in_time = |taking| tokio::time::timeout(std::time::Duration::from_secs(60), taking);
        assert!(in_time(waiting).await.expect("an end").is_none());
        assert!(late.take(run_id(1)).now_or_never().expect("at once").is_none());
        assert!(lucky.take(run_id(2)).now_or_never().expect("at once").is_some(), "what was laid out is there");
    }

    #[test]
    fn what_nobody_can_ask_for_any_more_is_dropped() {
        let ends = Arc::new(Ends::default());
        whole(&ends, run_id(1));
        assert!(ends.state().awaited.is_empty(), "nobody asks");
        let first = ends.ask();
        whole(&ends, run_id(2));
        let second = ends.ask();
        let goes_on = ends.lay_out(run_id(3), None);
        assert!(goes_on.is_awaited());
        drop(first);
        let left = |ends: &Arc<Ends>| ends.state().awaited.keys().copied().collect::<Vec<_>>();
        assert_eq!(left(&ends), [run_id(3)], "who asked before the end of 2 is gone");
        drop(goes_on);
        assert_eq!(left(&ends), [run_id(3)], "it may be the second one's");
        drop(second);
        assert_eq!(left(&ends), []);
    }
}
