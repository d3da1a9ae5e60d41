//! What every store and registry of runs must hold, as one suite that runs on each of them.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers of test runs are small")]

mod log;
mod mesh;
mod pointers;
mod retention;

use std::sync::{Arc, Mutex};

use super::memory::MemoryRuns;
use super::{Change, EventsAsked, Limits, Outcome, PAGE_MAX, RUNS_MAX_MB, Registry, RunStore};
use crate::domain::id::RuntimeId;
use crate::domain::run::{End, Event, Kind, Pointer, RunId};
use crate::domain::time::{Millis, Wall};
use crate::store::sqlite;

/// Finished runs that the stores of these tests keep for each instance.
const KEPT: usize = 3;

/// So small that a test reaches them.
pub(in crate::store) const LIMITS: Limits = Limits { replicated: 10, replicated_total: 25, forgotten: 4, finished: 12 };

/// Store and registry in one.
pub(in crate::store) trait Runs: RunStore + Registry {}

impl<T: RunStore + Registry> Runs for T {}

/// A place where stores of one sort can be opened, one after the other.
trait Bench {
    fn new() -> Self;
    fn open(&self) -> Arc<dyn Runs>;
}

struct MemoryBench(Mutex<MemoryRuns>);

impl Bench for MemoryBench {
    fn new() -> Self {
        Self(Mutex::new(MemoryRuns::within(KEPT, LIMITS)))
    }

    fn open(&self) -> Arc<dyn Runs> {
        let mut last = self.0.lock().expect("no panic under the lock");
        *last = last.crash();
        Arc::new(last.clone())
    }
}

struct SqliteBench(tempfile::TempDir);

impl Bench for SqliteBench {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for the test"))
    }

    fn open(&self) -> Arc<dyn Runs> {
        let options =
            sqlite::runs::Options { folder: self.0.path().join("state"), runs_kept: KEPT, runs_max_mb: RUNS_MAX_MB };
        Arc::new(sqlite::runs::open_bounded(&options, LIMITS).expect("opens"))
    }
}

macro_rules! hold_for_every_store {
    ($($part:ident: $($name:ident),* $(,)?;)*) => {
        mod memory {
            $($(#[tokio::test] async fn $name() { super::$part::$name::<super::MemoryBench>().await; })*)*
        }
        mod sqlite_on_disk {
            $($(#[tokio::test] async fn $name() { super::$part::$name::<super::SqliteBench>().await; })*)*
        }
    };
}

hold_for_every_store! {
    log:
        a_run_is_kept_from_its_start_to_its_end,
        the_first_start_wins_also_after_the_end,
        an_end_without_a_start_and_a_second_end_change_nothing,
        a_log_has_no_gap_and_no_wrong_frame,
        a_batch_is_all_or_nothing,
        pages_are_filtered_before_they_are_cut,
        a_page_ends_before_it_is_too_long_but_is_never_empty,
        finished_runs_go_with_everything_the_oldest_first,
        a_run_that_began_before_all_that_are_kept_goes_the_moment_it_ends,
        a_clock_that_was_set_back_makes_no_new_run_vanish,
        what_is_unfinished_is_found_after_a_crash,
        a_closed_store_says_so,
        the_observer_is_told_of_what_is_durable_in_order,
        an_observer_that_panics_harms_no_run;
    retention:
        runs_of_instances_that_callers_make_up_have_a_bound,
        a_clock_that_was_set_back_makes_no_run_of_any_instance_vanish,
        the_space_of_all_runs_has_a_bound,
        what_had_to_go_is_told_from_what_never_was;
    pointers:
        lists_are_cut_newest_first_without_a_gap,
        filters_admit_exactly_what_they_say,
        instances_are_listed_once_in_the_order_of_their_bytes,
        ten_thousand_runs_are_listed_while_new_ones_start;
    mesh:
        each_change_of_a_pointer_takes_the_next_number,
        a_copy_follows_its_owner_page_by_page,
        a_copy_that_missed_too_much_starts_over_and_comes_to_an_end,
        a_peer_speaks_for_itself_alone_and_the_first_wins,
        copies_are_held_to_their_limits,
        copies_survive_a_crash_and_are_only_for_lookup;
}

/// The runtime whose runs these are.
pub(in crate::store) fn owner() -> RuntimeId {
    "s/own".parse().expect("legal")
}

/// The run of a number, started that many milliseconds after 1970.
pub(in crate::store) fn run_id(number: u64) -> RunId {
    RunId::new(Wall::from_millis(number), [3; 10])
}

pub(in crate::store) fn pointer(number: u64, agent: &str, instance: &str) -> Pointer {
    Pointer {
        run: run_id(number),
        owner: owner(),
        agent: agent.parse().expect("legal"),
        instance: instance.parse().expect("legal"),
        started: Wall(number * 1_000_000 + 7),
        end: None,
    }
}

pub(in crate::store) fn event(index: u64, kind: Kind) -> Event {
    let body = format!("{{\"type\":\"{kind}\",\"eventIndex\":{index}}}");
    Event { index, kind, at: Wall(1_000 + index), body: body.into() }
}

pub(in crate::store) fn create_of(pointer: Pointer) -> Change {
    Change::Create { pointer, first: event(0, Kind::RunStart) }
}

pub(in crate::store) fn create(number: u64) -> Change {
    create_of(pointer(number, "hello", "i1"))
}

pub(in crate::store) fn append(number: u64, indices: std::ops::Range<u64>) -> Change {
    let events = indices.map(|index| event(index, if index % 3 == 0 { Kind::Log } else { Kind::TextDelta })).collect();
    Change::Append { run: run_id(number), events }
}

/// What begins later ends earlier, so that neither order passes for the other.
pub(in crate::store) fn end_of(number: u64) -> End {
    End { at: Wall((1 << 50) - number * 1_000_000), is_error: number.is_multiple_of(2), duration: Millis(5) }
}

pub(in crate::store) fn end(number: u64, index: u64) -> Change {
    Change::End {
        run: run_id(number),
        end: end_of(number),
        result: Some("{\"a\":1}".to_owned()),
        error: None,
        last: event(index, Kind::RunEnd),
    }
}

pub(in crate::store) fn all_of(number: u64) -> EventsAsked {
    EventsAsked { run: run_id(number), from: 0, kinds: None, limit: PAGE_MAX, bytes_max: usize::MAX }
}

async fn commit(store: &Arc<dyn Runs>, batch: impl IntoIterator<Item = Change>) -> Outcome {
    store.commit(batch.into_iter().collect()).await.expect("commits")
}
