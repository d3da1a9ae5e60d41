//! The owner of the workload: it drives `domain::workload::Life` over a launcher, and is the only one that does.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::queue::Queue;
use crate::domain::time::{Millis, Monotonic, Now};
use crate::domain::workload::{self as life, End, Health, Input, Life, Order, Restart, State, Status, Verb};
use crate::workload::log::{self, LINE_KEPT_BYTES_MAX, Log, Stream, Tails, WAITING_MAX};
use crate::workload::{Control, Ended, Exit, Launcher, Lines, Output, Pending, Process, Program, StartError, health};

/// Commands that wait for their turn, and for their end.
const ASKS_MAX: usize = 16;

/// How long a command may take: the ten seconds of a stop, and what comes before and after.
const COMMAND_MAX: Duration = Duration::from_secs(15);

/// How long the last lines may take to the disk.
const LAST_LINES_MAX: Duration = Duration::from_millis(300);

/// What is supervised.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program.
    pub program: Program,
    /// What ends with 0 while it is well.
    pub health: Option<Program>,
    /// When it is started again.
    pub restart: Restart,
    /// The file of its output.
    pub log: PathBuf,
    /// How often its health is asked for, and how long that may take.
    pub checks: Checks,
}

/// The times of health checks.
#[derive(Debug, Clone, Copy)]
pub struct Checks {
    /// From one to the next.
    pub every: Millis,
    /// The longest one.
    pub within: Millis,
}

impl Default for Checks {
    fn default() -> Self {
        Self { every: Millis::from_secs(10), within: Millis::from_secs(5) }
    }
}

/// What the supervisor is given of the outside.
#[derive(Clone)]
pub struct Surroundings {
    /// Starts programs.
    pub launcher: Arc<dyn Launcher>,
    /// The present moment.
    pub now: Arc<dyn Fn() -> Now + Send + Sync>,
    /// Any number, by chance.
    pub chance: Arc<dyn Fn() -> u32 + Send + Sync>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Surroundings").field("launcher", &self.launcher).finish_non_exhaustive()
    }
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It makes no sense now.
    #[error("{0}")]
    NotNow(#[from] life::Refusal),
    /// The program was not there afterwards.
    #[error("the workload did not start: {reason}")]
    NotStarted {
        /// Why.
        reason: String,
    },
    /// Another command came before this one was done.
    #[error("another command came in between; the workload is {}", state.as_str())]
    Superseded {
        /// Where it is.
        state: State,
    },
    /// Too many at once.
    #[error("too many commands wait for the workload already")]
    Busy,
    /// It takes longer than anybody waits.
    #[error("it was not done within {} s, and may be later", COMMAND_MAX.as_secs())]
    TooLate,
}

/// What others hold of the workload.
#[derive(Debug, Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    status: watch::Receiver<Status>,
    tails: Arc<Tails>,
    pub(super) log: mpsc::WeakSender<String>,
}

impl Handle {
    /// Its bounded queues, as they are now.
    pub fn queues(&self) -> [Queue; 2] {
        let room = self.log.upgrade().map_or(WAITING_MAX, |log| log.capacity());
        [
            Queue::with_room("workload_commands", self.asks.max_capacity(), self.asks.capacity()),
            Queue::with_room("workload_log", WAITING_MAX, room),
        ]
    }

    /// Has it done, and answers when it is, or is not to be.
    pub async fn command(&self, verb: Verb) -> Result<Status, Refusal> {
        self.tell(verb).await
    }

    /// The same, told at once whenever the answer is waited for: commands keep the order in which they are told.
    pub fn tell(&self, verb: Verb) -> impl Future<Output = Result<Status, Refusal>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let told = self.asks.try_send(Ask { verb, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::Busy,
            mpsc::error::TrySendError::Closed(_) => life::Refusal::NodeStops.into(),
        });
        async move {
            told?;
            match tokio::time::timeout(COMMAND_MAX, answer).await {
                Ok(answer) => answer.unwrap_or_else(|_gone| Err(life::Refusal::NodeStops.into())),
                Err(_elapsed) => Err(Refusal::TooLate),
            }
        }
    }

    /// How it does. Never waits.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows how it does.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Its newest lines, oldest first.
    pub fn newest_lines(&self, stream: Stream) -> Vec<String> {
        self.tails.newest(stream)
    }
}

#[derive(Debug)]
struct Ask {
    verb: Verb,
    reply: oneshot::Sender<Result<Status, Refusal>>,
}

/// A command that is under way.
struct Waiter {
    goal: Goal,
    reply: oneshot::Sender<Result<Status, Refusal>>,
}

#[derive(Debug, Clone, Copy)]
enum Goal {
    /// It runs, started no earlier than this.
    Runs { launch: u64 },
    /// It is stopped.
    Stopped,
    /// The order alone was wanted.
    Given,
}

/// The owner's loop, to be run.
pub struct Supervisor {
    plan: Plan,
    outside: Surroundings,
    life: Life,
    asks: mpsc::Receiver<Ask>,
    waiters: Vec<Waiter>,
    status: watch::Sender<Status>,
    starting: Option<Pending<'static, Result<Process, StartError>>>,
    ended: Option<Ended>,
    control: Option<Control>,
    pid: Option<u32>,
    last_exit: Option<String>,
    health: Health,
    check: Option<Pending<'static, Result<(), String>>>,
    next_check: Monotonic,
    log: Log,
    readers: TaskTracker,
    is_leaving: bool,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Supervisor").field("plan", &self.plan).field("life", &self.life).finish_non_exhaustive()
    }
}

/// Makes the owner and a handle on it. Nothing runs before the owner does.
pub fn supervise(plan: Plan, outside: Surroundings) -> (Handle, Supervisor) {
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let first = Status {
        state: State::Stopped,
        pid: None,
        since: (outside.now)().wall,
        restarts: 0,
        last_exit: None,
        next_attempt: None,
        health: Health::Unchecked,
    };
    let (status, watched) = watch::channel(first);
    let tails = Arc::new(Tails::default());
    let (log, writing) = log::open(plan.log.clone(), Arc::clone(&tails));
    let file = log.file();
    let readers = TaskTracker::new();
    let supervisor = Supervisor {
        life: Life::new(plan.restart),
        plan,
        outside,
        asks: asked,
        waiters: Vec::new(),
        status,
        starting: None,
        ended: None,
        control: None,
        pid: None,
        last_exit: None,
        health: Health::Unchecked,
        check: None,
        next_check: Monotonic(0),
        log,
        readers,
        is_leaving: false,
    };
    supervisor.readers.spawn(writing);
    (Handle { asks, status: watched, tails, log: file }, supervisor)
}

/// What woke the owner.
enum Event {
    Asked(Ask),
    Launched(Result<Process, StartError>),
    Ended(Exit),
    Checked(Result<(), String>),
    CheckDue,
    Timer,
    Leave,
}

impl Supervisor {
    /// Starts the program and keeps it as the plan says, until told to stop; then ends it and returns.
    pub async fn run(mut self, stop: CancellationToken) {
        let (reply, _nobody) = oneshot::channel();
        self.on_ask(Ask { verb: Verb::Start, reply });
        loop {
            self.publish();
            self.settle();
            if self.is_leaving && self.life.state() == State::Stopped {
                break;
            }
            let event = self.select(&stop).await;
            self.apply(event);
        }
        let Self { log, readers, asks, .. } = self;
        drop((log, asks));
        readers.close();
        if tokio::time::timeout(LAST_LINES_MAX, readers.wait()).await.is_err() {
            tracing::debug!("the workload's last lines were not written");
        }
    }

    /// Only awaits.
    async fn select(&mut self, stop: &CancellationToken) -> Event {
        let now = (self.outside.now)().monotonic;
        let wait = self.life.deadline().map(|deadline| until(now, deadline));
        let is_checked = self.life.state() == State::Running && self.check.is_none() && self.plan.health.is_some();
        let next_check = until(now, self.next_check);
        tokio::select! {
            biased;
            () = stop.cancelled(), if !self.is_leaving => Event::Leave,
            exit = pending(&mut self.ended) => Event::Ended(exit),
            launched = pending(&mut self.starting) => Event::Launched(launched),
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => Event::Timer,
            checked = pending(&mut self.check) => Event::Checked(checked),
            () = tokio::time::sleep(next_check), if is_checked => Event::CheckDue,
            Some(ask) = self.asks.recv() => Event::Asked(ask),
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Asked(ask) => self.on_ask(ask),
            Event::Launched(launched) => {
                self.starting = None;
                self.on_launched(launched);
            }
            Event::Ended(exit) => {
                self.forget_program();
                tracing::info!(%exit, "the workload has ended");
                let end = if exit == Exit::Code(0) { End::Success } else { End::Failure };
                self.on_end(exit.to_string(), end);
            }
            Event::Checked(result) => {
                self.check = None;
                self.plan_check();
                self.on_checked(result);
            }
            Event::CheckDue => {
                let launcher = Arc::clone(&self.outside.launcher);
                let within = Duration::from_millis(self.plan.checks.within.0);
                self.check = self.plan.health.clone().map(|program| health::check(launcher, program, within));
            }
            Event::Timer => self.turn(Input::Timer),
            Event::Leave => {
                self.is_leaving = true;
                self.turn(Input::Shutdown);
            }
        }
    }

    fn on_ask(&mut self, ask: Ask) {
        if ASKS_MAX <= self.waiters.len() {
            ask.reply.send(Err(Refusal::Busy)).ok();
            return;
        }
        match self.life.ask((self.outside.now)().monotonic, ask.verb) {
            Err(refusal) => {
                ask.reply.send(Err(refusal.into())).ok();
            }
            Ok(orders) => {
                let launches = self.life.launches();
                let launch = if self.life.will_return() { launches.saturating_add(1) } else { launches };
                let goal = match ask.verb {
                    Verb::Start | Verb::Restart => Goal::Runs { launch },
                    Verb::Stop => Goal::Stopped,
                    Verb::Pause | Verb::Resume | Verb::Reload => Goal::Given,
                };
                self.waiters.push(Waiter { goal, reply: ask.reply });
                self.carry_out(orders);
            }
        }
    }

    fn on_launched(&mut self, launched: Result<Process, StartError>) {
        match launched {
            Ok(process) => {
                let Process { pid, stdout, stderr, control, ended } = process;
                tracing::info!(pid, "the workload was started");
                (self.pid, self.control, self.ended) = (Some(pid), Some(control), Some(ended));
                self.read(Stream::Out, stdout);
                self.read(Stream::Err, stderr);
                self.plan_check();
                self.turn(Input::Started);
            }
            Err(error) => {
                tracing::warn!(%error, "the workload was not started");
                self.on_end(error.to_string(), End::Failure);
            }
        }
    }

    fn on_end(&mut self, how: String, end: End) {
        self.last_exit = Some(how);
        self.check = None;
        self.health = Health::Unchecked;
        self.turn(Input::Ended(end));
    }

    fn plan_check(&mut self) {
        self.next_check = (self.outside.now)().monotonic.plus(self.plan.checks.every);
    }

    fn on_checked(&mut self, result: Result<(), String>) {
        let before = std::mem::replace(&mut self.health, Health::Healthy);
        let Err(reason) = result else { return };
        let times = match before {
            Health::Failing { times, .. } => times.saturating_add(1),
            Health::Healthy | Health::Unchecked => 1,
        };
        tracing::warn!(times, %reason, "the workload's health check failed");
        self.health = Health::Failing { times, reason };
    }

    fn turn(&mut self, input: Input) {
        let orders = self.life.handle((self.outside.now)().monotonic, (self.outside.chance)(), input);
        self.carry_out(orders);
    }

    fn carry_out(&mut self, orders: Vec<Order>) {
        for order in orders {
            match order {
                // What it asks of a program that does not answer meanwhile would count against it for as long as the pause lasts.
                Order::Suspend => self.check = None,
                Order::Continue => self.plan_check(),
                Order::HangUp | Order::Kill | Order::Launch | Order::Terminate => {}
            }
            match (order, &self.control) {
                (Order::Launch, _) => {
                    let (launcher, program) = (Arc::clone(&self.outside.launcher), self.plan.program.clone());
                    self.starting = Some(Box::pin(async move { launcher.start(program, Vec::new()).await }));
                }
                (Order::Terminate, Some(control)) => control.terminate(),
                (Order::Kill, Some(control)) => control.kill(),
                (Order::Suspend, Some(control)) => control.stop(),
                (Order::Continue, Some(control)) => control.resume(),
                (Order::HangUp, Some(control)) => control.hang_up(),
                (Order::Terminate | Order::Kill | Order::Suspend | Order::Continue | Order::HangUp, None) => {}
            }
        }
    }

    fn forget_program(&mut self) {
        (self.pid, self.control, self.ended) = (None, None, None);
    }

    fn read(&self, stream: Stream, output: Output) {
        let (log, now) = (self.log.clone(), Arc::clone(&self.outside.now));
        self.readers.spawn(async move {
            let mut lines = Lines::within(output, LINE_KEPT_BYTES_MAX);
            while let Ok(Some(line)) = lines.next().await {
                log.keep(now().wall, stream, &line).await;
            }
        });
    }

    fn publish(&self) {
        let now = (self.outside.now)();
        let deadline = self.life.deadline().filter(|_| self.life.state() == State::BackingOff);
        self.status.send_if_modified(|status| {
            let is_same = status.state == self.life.state() && status.pid == self.pid;
            let fresh = Status {
                state: self.life.state(),
                pid: self.pid,
                since: if is_same { status.since } else { now.wall },
                restarts: self.life.restarts(),
                last_exit: self.last_exit.clone(),
                next_attempt: if is_same && deadline.is_some() && status.next_attempt.is_some() {
                    status.next_attempt
                } else {
                    deadline.map(|deadline| now.wall.plus(deadline.since(now.monotonic)))
                },
                health: self.health.clone(),
            };
            let is_new = *status != fresh;
            *status = fresh;
            is_new
        });
    }

    /// Answers the commands that are done, or can no longer be.
    fn settle(&mut self) {
        let status = self.status.borrow().clone();
        for waiter in std::mem::take(&mut self.waiters) {
            match self.outcome(waiter.goal) {
                Some(Ok(())) => waiter.reply.send(Ok(status.clone())).ok(),
                Some(Err(refusal)) => waiter.reply.send(Err(refusal)).ok(),
                None => {
                    self.waiters.push(waiter);
                    None
                }
            };
        }
    }

    fn outcome(&self, goal: Goal) -> Option<Result<(), Refusal>> {
        let state = self.life.state();
        match (goal, state) {
            (Goal::Given, _) | (Goal::Stopped, State::Stopped) => Some(Ok(())),
            (Goal::Runs { launch }, State::Running | State::Paused) if launch <= self.life.launches() => Some(Ok(())),
            (Goal::Runs { .. }, State::Stopped | State::BackingOff | State::Failed) => {
                let reason = self.last_exit.clone().unwrap_or_else(|| "it was stopped".to_owned());
                Some(Err(Refusal::NotStarted { reason }))
            }
            (Goal::Runs { .. }, State::Stopping) if !self.life.will_return() => {
                Some(Err(Refusal::Superseded { state }))
            }
            (Goal::Stopped, State::Stopping) if !self.life.will_return() => None,
            (Goal::Stopped, _) => Some(Err(Refusal::Superseded { state })),
            (Goal::Runs { .. }, State::Starting | State::Running | State::Paused | State::Stopping) => None,
        }
    }
}

/// Waits for what is there; for ever, if nothing is.
async fn pending<T>(future: &mut Option<impl Future<Output = T> + Unpin>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn until(now: Monotonic, deadline: Monotonic) -> Duration {
    Duration::from_nanos(deadline.0.saturating_sub(now.0))
}
