//! One run from its start to its end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::run::{End, Event, Pointer, Run};
use crate::domain::time::Now;
use crate::engine::record::OpenRun;
use crate::metrics::RunEnd;
use crate::node::runs::Declared;
use crate::node::runs::ends::Teller;
use crate::node::runs::keeper::{Keeper, Unwritten, interrupted, note_own_end};
use crate::node::runs::output::Streams;
use crate::store::runs::{Change, Outcome};
use crate::wire::run::{Frame, Said, error_of, idle, run_end, run_start, said};
use crate::workload::{Control, Ended, Exit, Process, StartError};

/// How long a program may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// The same while the node stops: the whole stop has 4.8 s.
const GRACE_AT_STOP: Duration = Duration::from_millis(2_000);

/// How late a command may begin where there was no space: as long as its envelope counts (contract, *Expiry*), and no longer
/// than it may take. Nobody wants a valve to move hours after it was asked for.
const BEGIN_MAX: Duration = Duration::from_secs(30);

/// Most events of one run. A program that says more is ended.
const EVENTS_MAX: u64 = 100_000;

/// Most bytes of all its events.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long the rest of what a program has said may take to be read once it has ended, for each batch.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Most batches of that rest: more than two pipes hold.
const LAST_BATCHES_MAX: usize = 1_024;

/// A run under way.
pub(super) struct Conduct {
    keeper: Arc<Keeper>,
    run: Arc<OpenRun>,
    cancel: CancellationToken,
    started: Now,
    /// Set when the program says more than it may.
    overflow: CancellationToken,
    index: u64,
    bytes: usize,
    result: Option<String>,
    error: Option<String>,
    /// Whoever has started it.
    teller: Option<Teller>,
}

/// What became of the beginning.
enum Begun {
    /// It is written.
    Yes,
    /// It will never be.
    None,
    /// It is not, and must not begin any more, for this reason.
    Late(String),
    /// It cannot be written in this life.
    Left,
}

/// Why a program was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Cancelled,
    Overflow,
    Stopped,
    Timeout,
}

impl Cause {
    fn error(self, declared: &Declared) -> String {
        match self {
            Self::Cancelled => error_of("Cancelled", "the run was cancelled"),
            Self::Overflow => {
                let message = format!("the program said more than {EVENTS_MAX} events or {BYTES_MAX} bytes");
                error_of("OutputLimit", &message)
            }
            Self::Stopped => interrupted(),
            Self::Timeout => error_of("Timeout", &format!("the run took longer than {} ms", declared.timeout.0)),
        }
    }
}

impl Conduct {
    pub(super) fn new(
        keeper: Arc<Keeper>,
        run: Arc<OpenRun>,
        cancel: CancellationToken,
        teller: Option<Teller>,
    ) -> Self {
        let started = keeper.clock.now();
        let overflow = CancellationToken::new();
        Self { keeper, run, cancel, started, overflow, index: 0, bytes: 0, result: None, error: None, teller }
    }

    pub(super) async fn run(mut self) {
        let id = self.run.run;
        let begun = if self.run.agent.command().is_some() { self.begin_command().await } else { self.begin().await };
        match begun {
            Begun::Yes => {
                self.keeper.tell_begun();
                self.teller.iter_mut().for_each(Teller::begun);
            }
            Begun::None if self.keeper.stop.is_cancelled() => return,
            Begun::None => {
                drop(self.teller.take());
                return self.keeper.refuse(id).await;
            }
            Begun::Late(error) => return self.close(&error).await,
            Begun::Left => return self.keeper.held.hold(id).stay(),
        }
        if let Some(declared) = self.keeper.outside.declared.get(&self.run.agent).cloned() {
            let error = self.carry_out(&declared).await;
            self.error = error.or(self.error.take());
        } else {
            self.error = Some(error_of("NotDeclared", "the program is not declared any more"));
        }
        match self.end().await {
            Err(Unwritten) => self.keeper.held.hold(id).stay(),
            Ok(()) if self.keeper.stop.is_cancelled() => {}
            Ok(()) => self.keeper.forget(id).await,
        }
    }

    fn first(&mut self) -> Vec<Change> {
        let pointer = self.keeper.pointer(&self.run);
        let first = run_start(&pointer, &self.run.payload);
        self.index = 1;
        vec![Change::Create { pointer, first }]
    }

    /// Somebody waits for it, and is refused where it cannot be written: neither record nor pointer (contract, RR-62).
    async fn begin(&mut self) -> Begun {
        let create = self.first();
        match self.keeper.outside.store.commit(create).await {
            Ok(_outcome) => Begun::Yes,
            Err(error) => {
                tracing::error!(run_id = %self.run.run, %error, "a run was not written, and so it is none");
                Begun::None
            }
        }
    }

    /// A command was answered already, with this run's name: it is written, sooner or later, but begins soon or never.
    async fn begin_command(&mut self) -> Begun {
        let create = self.first();
        let cancel = self.cancel.clone();
        let declared = self.keeper.outside.declared.get(&self.run.agent);
        let within = declared.map_or(BEGIN_MAX, |it| Duration::from_millis(it.timeout.0).min(BEGIN_MAX));
        let over = async {
            tokio::select! {
                () = cancel.cancelled() => error_of("Cancelled", "the run was cancelled before it began"),
                () = tokio::time::sleep(within) => {
                    let message = format!("there was no space for it within {} ms, so it was not begun", within.as_millis());
                    error_of("NotStarted", &message)
                }
            }
        };
        match self.keeper.write_until(create, over).await {
            Ok(Ok(_outcome)) => Begun::Yes,
            Ok(Err(error)) => Begun::Late(error),
            // Open at the engine, so that the next start gives it an end.
            Err(Unwritten) => Begun::Left,
        }
    }

    /// Writes its beginning and its end at once.
    async fn close(self, error: &str) {
        let pointer = self.keeper.pointer(&self.run);
        match self.keeper.close(pointer, Some(&self.run.payload), error).await {
            Err(Unwritten) => self.keeper.held.hold(self.run.run).stay(),
            Ok(()) => self.keeper.forget(self.run.run).await,
        }
    }

    /// Gives what went wrong, as a JSON text; none if nothing did.
    async fn carry_out(&mut self, declared: &Declared) -> Option<String> {
        let input = self.run.payload.clone().into_bytes();
        let process = match self.keeper.outside.launcher.start(declared.program.clone(), input).await {
            Ok(process) => process,
            Err(error) => return Some(start_error(&error)),
        };
        let Process { stdout, stderr, control, ended, pid: _ } = process;
        let mut cause = None;
        let exit = {
            let wards = [self.cancel.clone(), self.overflow.clone(), self.keeper.stop.clone()];
            let timeout = Duration::from_millis(declared.timeout.0);
            let ward = guard(wards, timeout, control, &mut cause);
            tokio::select! {
                exit = self.hear(Streams::new(stdout, stderr), ended) => exit,
                never = ward => match never {},
            }
        };
        if let Some(cause) = cause {
            return Some(cause.error(declared));
        }
        match exit {
            Exit::Code(0) => None,
            Exit::Code(_) | Exit::Lost | Exit::Signal(_) if self.error.is_some() => None,
            Exit::Code(_) | Exit::Lost | Exit::Signal(_) => Some(error_of("ExitError", &format!("the program {exit}"))),
        }
    }

    /// Tells what the program says until it has ended and said all of it. Gives how it ended.
    async fn hear(&mut self, mut streams: Streams, mut ended: Ended) -> Exit {
        let exit = loop {
            let batch = tokio::select! {
                batch = streams.next_batch() => batch,
                exit = &mut ended => break exit,
            };
            let is_told = match batch {
                Some(batch) => self.tell(batch).await.is_ok(),
                None => false,
            };
            if !is_told {
                // Dropped, so that the program does not wait for a reader for ever.
                drop(streams);
                return ended.await;
            }
        };
        // Its family is gone, so what it has said is there already. Who holds a stream beyond that, such as a daemon whose guard
        // was ended, is not waited for.
        for _ in 0..LAST_BATCHES_MAX {
            let Ok(Some(batch)) = tokio::time::timeout(LAST_WORD, streams.next_batch()).await else { break };
            if self.tell(batch).await.is_err() {
                break;
            }
        }
        exit
    }

    /// Makes durable what the program says. What comes after too much is left out.
    async fn tell(&mut self, batch: Vec<Said>) -> Result<(), Unwritten> {
        let at = self.keeper.clock.now().wall;
        let mut events: Vec<Event> = Vec::new();
        let (mut index, mut bytes) = (self.index, self.bytes);
        for text in batch {
            if EVENTS_MAX <= index || BYTES_MAX <= bytes {
                self.overflow.cancel();
                break;
            }
            match said(Frame { run: self.run.run, index, at }, text) {
                Ok(event) => {
                    index = index.saturating_add(1);
                    bytes = bytes.saturating_add(event.body.len());
                    events.push(event);
                }
                Err(Said::Result(value)) => self.result = Some(value),
                Err(Said::Error { name, message }) => self.error = Some(error_of(&name, &message)),
                Err(Said::Event { .. } | Said::Log { .. }) => {}
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        let run = self.run.run;
        let written = self.keeper.write(vec![Change::Append { run, events }]).await.map(drop);
        if written.is_ok() {
            // The log goes on behind what is in it, not behind what was said.
            (self.index, self.bytes) = (index, bytes);
        } else {
            let lost = || error_of("NotWritten", "what the program said could not be written");
            self.error.get_or_insert_with(lost);
        }
        written
    }

    async fn end(&mut self) -> Result<(), Unwritten> {
        let now = self.keeper.clock.now();
        let run = self.run.run;
        let mut batch = Vec::new();
        if self.run.is_streamed {
            let event = idle(Frame { run, index: self.index, at: now.wall });
            self.index = self.index.saturating_add(1);
            batch.push(Change::Append { run, events: vec![event] });
        }
        let is_error = self.error.is_some();
        self.keeper.metrics.run_ended(if is_error { RunEnd::Errored } else { RunEnd::Completed });
        let end = End { at: now.wall, is_error, duration: now.monotonic.since(self.started.monotonic) };
        let result = self.result.take().filter(|_| !is_error);
        let error = self.error.take();
        let last = run_end(run, self.index, &end, result.as_deref(), error.as_deref());
        let told = self.teller.as_ref().is_some_and(Teller::is_awaited).then(|| Run {
            pointer: Pointer { end: Some(end), ..self.keeper.pointer(&self.run) },
            result: result.clone(),
            error: error.clone(),
        });
        batch.push(Change::End { run, end, result, error, last });
        let outcome = self.write_end(batch).await?;
        // With the end itself: the store may have forgotten it by now.
        if let (Some(teller), Some(told)) = (self.teller.as_mut(), told) {
            teller.ended(told);
        }
        note_own_end(run, &outcome);
        Ok(())
    }

    /// Also while the node stops: once, because the store may be on its way out.
    async fn write_end(&self, batch: Vec<Change>) -> Result<Outcome, Unwritten> {
        if self.keeper.stop.is_cancelled() {
            self.keeper.write_once(batch).await
        } else {
            self.keeper.write(batch).await
        }
    }
}

fn start_error(error: &StartError) -> String {
    error_of("StartError", &error.to_string())
}

/// Ends the program when there is a cause, and says which.
async fn guard(
    [cancel, overflow, stop]: [CancellationToken; 3],
    timeout: Duration,
    control: Control,
    said: &mut Option<Cause>,
) -> Infallible {
    let cause = tokio::select! {
        () = cancel.cancelled() => Cause::Cancelled,
        () = overflow.cancelled() => Cause::Overflow,
        () = stop.cancelled() => Cause::Stopped,
        () = tokio::time::sleep(timeout) => Cause::Timeout,
    };
    *said = Some(cause);
    control.terminate();
    let grace = if cause == Cause::Stopped { GRACE_AT_STOP } else { GRACE };
    tokio::select! {
        () = tokio::time::sleep(grace) => {}
        () = stopped_later(&stop, cause) => {}
    }
    control.kill();
    std::future::pending().await
}

/// A stop in the middle of the grace makes it shorter.
async fn stopped_later(stop: &CancellationToken, cause: Cause) {
    if cause == Cause::Stopped {
        std::future::pending::<()>().await;
    }
    stop.cancelled().await;
    tokio::time::sleep(GRACE_AT_STOP).await;
}
