//! The supervisor over programs in memory: what it answers, and that there is never more than one program.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::domain::queue::tests::{Put, check};
use crate::domain::time::{Millis, Monotonic, Now, Wall};
use crate::domain::workload::{Condition, Health, Restart, State, Status, Verb};
use crate::workload::Program;
use crate::workload::log::Stream;
use crate::workload::memory::{Memory, Script};
use crate::workload::supervisor::{Checks, Handle, Plan, Refusal, Surroundings, supervise};

/// Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(20);

struct Rig {
    memory: Memory,
    handle: Handle,
    stop: CancellationToken,
    running: JoinHandle<()>,
    /// The workload, and a check beside it.
    programs_max: usize,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new(script: Option<Script>, restart: Restart) -> Self {
        Self::checked(script, restart, None)
    }

    fn checked(script: Option<Script>, restart: Restart, health: Option<Script>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let memory = Memory::default();
        let program = |path: &str| Program { path: PathBuf::from(path), ..Program::default() };
        script.into_iter().for_each(|script| memory.put("work", script));
        health.into_iter().for_each(|script| memory.put("health", script));
        let programs_max = if health.is_some() { 2 } else { 1 };
        let plan = Plan {
            program: program("work"),
            health: health.map(|_| program("health")),
            restart,
            log: folder.path().join("workload.log"),
            checks: Checks { every: Millis(20), within: Millis(2_000) },
        };
        let began = tokio::time::Instant::now();
        let now = move || {
            let nanos = u64::try_from(began.elapsed().as_nanos()).expect("short");
            Now { wall: Wall::from_millis(1_700_000_000_000), monotonic: Monotonic(nanos.saturating_add(1)) }
        };
        let outside =
            Surroundings { launcher: Arc::new(memory.clone()), now: Arc::new(now), chance: Arc::new(|| u32::MAX) };
        let (handle, supervisor) = supervise(plan, outside);
        let stop = CancellationToken::new();
        let running = tokio::runtime::Handle::current().spawn(supervisor.run(stop.clone()));
        Self { memory, handle, stop, running, programs_max, _folder: folder }
    }

    async fn until(&self, what: &str, mut condition: impl FnMut(&Status) -> bool) -> Status {
        let mut watch = self.handle.watch();
        let found = tokio::time::timeout(DEADLINE, watch.wait_for(|status| condition(status))).await;
        found.unwrap_or_else(|_| panic!("{what}: {:?}", self.handle.status())).expect("it runs").clone()
    }

    async fn state(&self, state: State) -> Status {
        self.until(state.as_str(), |status| status.state == state).await
    }

    /// Until so many programs run at once, the checks among them: no status tells that a check has begun.
    async fn programs(&self, wanted: usize) {
        let begun = async {
            while self.memory.running() != wanted {
                // waits: what the programs in memory do is seen by looking again.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let seen = tokio::time::timeout(DEADLINE, begun).await;
        assert!(seen.is_ok(), "wanted {wanted} programs, {} run", self.memory.running());
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.running).await.expect("in time").expect("no panic");
        assert_eq!(self.memory.running(), 0, "a program is left");
        assert!(self.memory.running_most() <= self.programs_max, "{} at once", self.memory.running_most());
        let late = self.handle.command(Verb::Start).await.expect_err("the node stops").to_string();
        assert!(late.contains("stopping"), "{late}");
    }
}

#[tokio::test]
async fn each_command_is_answered_when_it_is_carried_out() {
    let rig = Rig::new(Some(Script::Waits), Restart::OnFailure);
    let first = rig.state(State::Running).await;
    assert_eq!((first.pid, first.restarts, first.last_exit.as_deref()), (Some(1), 0, None));
    let command = async |verb| rig.handle.command(verb).await.map(|status| (status.state, status.pid));
    assert_eq!(command(Verb::Start).await, Ok((State::Running, Some(1))), "it runs already");
    assert_eq!(command(Verb::Pause).await, Ok((State::Paused, Some(1))));
    assert!(matches!(command(Verb::Reload).await, Err(Refusal::NotNow(_))));
    assert_eq!(command(Verb::Resume).await, Ok((State::Running, Some(1))));
    assert_eq!(command(Verb::Restart).await, Ok((State::Running, Some(2))));
    assert_eq!(command(Verb::Stop).await, Ok((State::Stopped, None)));
    let status = rig.handle.status();
    assert_eq!((status.last_exit.as_deref(), status.condition()), (Some("ended by signal 15"), Condition::Ok));
    assert_eq!(command(Verb::Start).await, Ok((State::Running, Some(3))));
    assert_eq!(rig.handle.newest_lines(Stream::Out).first().map(String::as_str), Some("ready"));
    // This one takes the signal as its end.
    assert_eq!(command(Verb::Reload).await, Ok((State::Running, Some(3))));
    rig.state(State::BackingOff).await;
    assert_eq!(rig.memory.running_most(), 1);
    rig.end().await;
}

#[tokio::test]
async fn a_program_that_fails_comes_back_after_a_pause_and_says_how_it_ended() {
    let rig = Rig::new(Some(Script::Ends(7)), Restart::OnFailure);
    let status = rig.state(State::BackingOff).await;
    assert_eq!((status.pid, status.last_exit.as_deref()), (None, Some("ended with 7")));
    assert_eq!(status.condition(), Condition::Degraded);
    assert!(status.since < status.next_attempt.expect("it comes back"), "{status:?}");
    rig.until("two restarts", |status| status.restarts == 2).await;
    rig.memory.put("work", Script::Waits);
    let status = rig.state(State::Running).await;
    assert_eq!(status.next_attempt, None);
    assert_eq!(rig.memory.running_most(), 1);
    rig.end().await;
}

/// The owner does not get to run.
#[tokio::test]
async fn each_queue_of_the_workload_says_how_much_is_in_it_and_how_much_it_takes() {
    let rig = Rig::new(Some(Script::Waits), Restart::Never);
    let log = rig.handle.log.upgrade().expect("it is open");
    let puts: [(&str, Put<'_>); 2] = [
        ("workload_commands", Box::new(|| rig.handle.tell(Verb::Start).now_or_never() != Some(Err(Refusal::Busy)))),
        ("workload_log", Box::new(|| log.try_send(String::new()).is_ok())),
    ];
    check(|| rig.handle.queues().to_vec(), puts.into());
    drop(log);
    rig.end().await;
}

#[tokio::test]
async fn a_program_that_is_missing_is_named_and_found_once_it_is_there() {
    let rig = Rig::new(None, Restart::OnFailure);
    rig.state(State::BackingOff).await;
    let refused = rig.handle.command(Verb::Start).await.expect_err("it is not there");
    assert!(matches!(&refused, Refusal::NotStarted { reason } if reason.contains("work is not there")), "{refused}");
    rig.memory.put("work", Script::Waits);
    rig.state(State::Running).await;
    rig.end().await;
    let rig = Rig::new(None, Restart::Never);
    assert_eq!(rig.state(State::Failed).await.condition(), Condition::Faulted);
    rig.end().await;
}

#[tokio::test]
async fn work_that_is_done_is_not_begun_again() {
    let rig = Rig::new(Some(Script::Ends(0)), Restart::OnFailure);
    rig.until("it was done", |status| status.state == State::Stopped && status.last_exit.is_some()).await;
    assert_eq!((rig.memory.starts(), rig.handle.status().restarts), (1, 0));
    rig.end().await;
}

#[tokio::test]
async fn a_stubborn_program_does_not_outlive_the_node() {
    let rig = Rig::new(Some(Script::IsStubborn), Restart::Always);
    rig.state(State::Running).await;
    let began = tokio::time::Instant::now();
    rig.end().await;
    let took = began.elapsed();
    assert!(Duration::from_secs(3) <= took && took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn failed_checks_degrade_and_three_in_a_row_are_a_fault_until_one_succeeds() {
    let rig = Rig::checked(Some(Script::Waits), Restart::OnFailure, Some(Script::Ends(1)));
    let first = rig.until("a failed check", |status| matches!(status.health, Health::Failing { .. })).await;
    assert_eq!(first.condition(), Condition::Degraded, "{first:?}");
    let third = rig.until("three", |status| matches!(status.health, Health::Failing { times: 3.., .. })).await;
    assert_eq!(third.condition(), Condition::Faulted);
    assert!(third.to_string().contains("3 failed checks in a row: the check ended with 1"), "{third}");
    rig.memory.put("health", Script::Ends(0));
    let well = rig.until("a good check", |status| status.health == Health::Healthy).await;
    assert_eq!(well.condition(), Condition::Ok);
    rig.end().await;
}

#[tokio::test]
async fn a_check_that_hangs_is_a_failed_one_and_is_ended() {
    let rig = Rig::checked(Some(Script::Waits), Restart::OnFailure, Some(Script::IsStubborn));
    let failed = rig.until("a failed check", |status| matches!(status.health, Health::Failing { .. })).await;
    assert!(failed.to_string().contains("more than 2000 ms"), "{failed}");
    assert!(rig.memory.running_most() <= 2, "checks pile up");
    rig.memory.put("health", Script::Ends(0));
    rig.until("a good check", |status| status.health == Health::Healthy).await;
    rig.end().await;
}

#[tokio::test]
async fn a_check_that_began_before_a_pause_does_not_count() {
    let rig = Rig::checked(Some(Script::Waits), Restart::OnFailure, Some(Script::IsStubborn));
    rig.state(State::Running).await;
    let failed = |within| {
        let is_failing = |status: &Status| matches!(status.health, Health::Failing { .. });
        tokio::time::timeout(within, rig.until("a failed check", is_failing))
    };
    rig.programs(2).await;
    assert_eq!(rig.handle.status().health, Health::Unchecked, "the check is under way: it takes two seconds");
    assert_eq!(rig.handle.command(Verb::Pause).await.map(|status| status.state), Ok(State::Paused));
    failed(Duration::from_millis(2_500)).await.expect_err("nothing that is paused is checked");
    assert_eq!((rig.handle.status().health, rig.memory.running()), (Health::Unchecked, 1));
    // The next one begins anew, and counts.
    assert_eq!(rig.handle.command(Verb::Resume).await.map(|status| status.state), Ok(State::Running));
    failed(DEADLINE).await.expect("a failed check");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_many_callers_are_all_answered_and_never_make_two_programs() {
    let rig = Rig::new(Some(Script::Waits), Restart::Always);
    let callers = (0..12_usize).map(|caller| {
        let handle = rig.handle.clone();
        tokio::runtime::Handle::current().spawn(async move {
            for round in 0..20_usize {
                let verb =
                    Verb::ALL[(caller.saturating_mul(7).saturating_add(round.saturating_mul(5))) % Verb::ALL.len()];
                let answer = tokio::time::timeout(DEADLINE, handle.command(verb)).await.expect("answered");
                assert_ne!(answer, Err(Refusal::TooLate));
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no panic");
    }
    assert_eq!(rig.memory.running_most(), 1);
    assert_eq!(rig.handle.command(Verb::Stop).await.map(|status| status.state), Ok(State::Stopped));
    rig.end().await;
}
