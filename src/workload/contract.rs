//! What every launcher holds, as one suite that runs against each: here without processes, in `tests/adapters` with them.

// waits: a suspended program is given time in which it must not speak.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::memory::Script;
use super::{Exit, INPUT_BYTES_MAX, Launcher, Lines, Output, Process, Program, StartError};

/// Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a program is watched that must not do anything.
const QUIET: Duration = Duration::from_millis(300);

/// A launcher with programs that do what the suite needs.
pub(crate) trait Rig {
    fn new() -> Self;
    fn launcher(&self) -> Arc<dyn Launcher>;
    fn program(&self, script: Script) -> Program;
    fn missing(&self) -> Program;
    fn is_running(&self, pid: u32) -> bool;
}

/// Runs the suite against a rig.
macro_rules! holds {
    ($rig:ty) => {
        crate::workload::contract::holds! { $rig =>
            the_number_that_a_program_ends_with_is_given,
            what_is_given_as_input_comes_back_up_to_the_limit,
            the_two_streams_are_apart,
            a_signal_ends_a_program_and_is_named,
            a_stubborn_program_goes_on_until_it_is_killed,
            a_suspended_program_is_silent_until_it_is_resumed,
            a_suspended_program_can_be_asked_to_end,
            a_slow_reader_holds_the_program_up_and_loses_nothing,
            a_program_without_a_handle_ends,
            a_program_that_is_not_there_is_named,
            many_programs_run_at_once,
        }
    };
    ($rig:ty => $($promise:ident),* $(,)?) => {
        mod contract {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                crate::workload::contract::in_time(crate::workload::contract::$promise::<$rig>()).await;
            })*
        }
    };
}

pub(crate) use holds;

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

async fn start<R: Rig>(rig: &R, script: Script, input: &[u8]) -> Process {
    rig.launcher().start(rig.program(script), input.to_vec()).await.expect("it starts")
}

/// Starts a program that says when it is ready, and waits for that.
async fn ready<R: Rig>(rig: &R, script: Script) -> (Process, Lines<Output>) {
    let mut process = start(rig, script, b"").await;
    let mut lines = Lines::new(std::mem::replace(&mut process.stdout, Output::new(tokio::io::empty())));
    assert_eq!(lines.next().await.expect("readable").expect("a line").text, "ready");
    (process, lines)
}

async fn all(mut stream: Output) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("readable");
    bytes
}

pub(crate) async fn the_number_that_a_program_ends_with_is_given<R: Rig>() {
    let rig = R::new();
    for code in [0, 1, 7, 255] {
        let process = start(&rig, Script::Ends(code), b"unread").await;
        assert_eq!(process.ended.await, Exit::Code(code));
        assert_eq!(all(process.stdout).await, b"");
    }
}

pub(crate) async fn what_is_given_as_input_comes_back_up_to_the_limit<R: Rig>() {
    let rig = R::new();
    for length in [0, 1, 70_000, INPUT_BYTES_MAX] {
        let input: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).expect("small")).collect();
        let process = start(&rig, Script::Echoes, &input).await;
        assert!(all(process.stdout).await == input, "{length} bytes");
        assert_eq!(process.ended.await, Exit::Code(0));
    }
    let refused = rig.launcher().start(rig.program(Script::Echoes), vec![0; INPUT_BYTES_MAX + 1]).await;
    assert_eq!(refused.expect_err("refused"), StartError::InputTooLarge { bytes: INPUT_BYTES_MAX + 1 });
}

pub(crate) async fn the_two_streams_are_apart<R: Rig>() {
    let rig = R::new();
    let process = start(&rig, Script::SaysBoth, b"").await;
    assert_eq!(all(process.stdout).await, b"out\n");
    assert_eq!(all(process.stderr).await, b"err\n");
}

pub(crate) async fn a_signal_ends_a_program_and_is_named<R: Rig>() {
    let rig = R::new();
    let (process, _lines) = ready(&rig, Script::Waits).await;
    process.control.terminate();
    assert_eq!(process.ended.await, Exit::Signal(15));
    let (process, _lines) = ready(&rig, Script::Waits).await;
    process.control.hang_up();
    assert_eq!(process.ended.await, Exit::Signal(1));
    // An order to who is gone harms nobody.
    process.control.kill();
}

pub(crate) async fn a_stubborn_program_goes_on_until_it_is_killed<R: Rig>() {
    let rig = R::new();
    let (mut process, _lines) = ready(&rig, Script::IsStubborn).await;
    process.control.terminate();
    let ended = tokio::time::timeout(QUIET, &mut process.ended).await;
    assert!(ended.is_err(), "{ended:?}");
    process.control.kill();
    assert_eq!(process.ended.await, Exit::Signal(9));
}

pub(crate) async fn a_suspended_program_is_silent_until_it_is_resumed<R: Rig>() {
    let rig = R::new();
    let process = start(&rig, Script::Counts, b"").await;
    let mut lines = Lines::new(process.stdout);
    lines.next().await.expect("readable").expect("it counts");
    process.control.stop();
    // What it said before it took the signal is read first.
    while tokio::time::timeout(QUIET, lines.next()).await.is_ok() {}
    let silent = tokio::time::timeout(QUIET, lines.next()).await;
    assert!(silent.is_err(), "{silent:?}");
    process.control.resume();
    lines.next().await.expect("readable").expect("it goes on");
    process.control.kill();
    assert_eq!(process.ended.await, Exit::Signal(9));
}

pub(crate) async fn a_suspended_program_can_be_asked_to_end<R: Rig>() {
    let rig = R::new();
    let (process, _lines) = ready(&rig, Script::Waits).await;
    process.control.stop();
    process.control.terminate();
    assert_eq!(process.ended.await, Exit::Signal(15));
}

pub(crate) async fn a_slow_reader_holds_the_program_up_and_loses_nothing<R: Rig>() {
    let bytes = 1024 * 1024;
    let rig = R::new();
    let mut process = start(&rig, Script::Talks(bytes), b"").await;
    let ended = tokio::time::timeout(QUIET, &mut process.ended).await;
    assert!(ended.is_err(), "somewhere a megabyte was kept: {ended:?}");
    assert_eq!(all(process.stdout).await.len(), bytes);
    assert_eq!(process.ended.await, Exit::Code(0));
}

pub(crate) async fn a_program_without_a_handle_ends<R: Rig>() {
    let rig = R::new();
    let (process, _lines) = ready(&rig, Script::IsStubborn).await;
    assert!(rig.is_running(process.pid));
    let copy = process.control.clone();
    drop(process.control);
    drop(copy);
    // How it ended nobody reports any more: only that it did.
    let exit = process.ended.await;
    assert!(matches!(exit, Exit::Lost | Exit::Signal(9)), "{exit:?}");
    assert!(!rig.is_running(process.pid));
}

pub(crate) async fn a_program_that_is_not_there_is_named<R: Rig>() {
    let rig = R::new();
    let refused = rig.launcher().start(rig.missing(), Vec::new()).await.expect_err("it is not there");
    assert!(matches!(refused, StartError::Missing { .. }), "{refused:?}");
    assert!(refused.to_string().contains("missing"), "{refused}");
}

pub(crate) async fn many_programs_run_at_once<R: Rig>() {
    let rig = R::new();
    let starts: Vec<_> = (0..64).map(|_| (rig.launcher(), rig.program(Script::Waits))).collect();
    let starting = starts.iter().map(|(launcher, program)| launcher.start(program.clone(), Vec::new()));
    let processes = futures_util::future::join_all(starting).await;
    for process in processes {
        let process = process.expect("it starts");
        process.control.terminate();
        assert_eq!(process.ended.await, Exit::Signal(15));
    }
}
