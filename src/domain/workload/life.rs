//! The workload's life as a value: what to do when it starts, ends, is asked for something, or a moment has come.
//!
//! No process, no clock and no chance is here: whoever performs brings the moment and a number by chance, and carries out the
//! orders in turn. At most one program is there at a time, a stop always ends in `stopped`, and after it nothing starts by itself.

use crate::domain::time::{Millis, Monotonic};
use crate::domain::workload::{End, Input, Order, Refusal, Restart, State, Verb};

/// The first pause before a restart.
pub const PAUSE_FIRST: Millis = Millis(500);

/// The longest pause before a restart.
pub const PAUSE_MAX: Millis = Millis::from_secs(60);

/// A program that ran so long had started well: its next pause is the first again.
pub const STEADY_AFTER: Millis = Millis::from_secs(60);

/// How long a program may take to obey a request to end, before it is ended.
pub const STOP_MAX: Millis = Millis::from_secs(10);

/// The same when the node itself stops, which has a bound of its own.
pub const SHUTDOWN_MAX: Millis = Millis::from_secs(3);

/// Doublings after which every pause is the longest anyway.
const DOUBLINGS_MAX: u32 = 16;

/// What there is of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    None,
    Launched,
    Alive,
}

/// The workload's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    rule: Restart,
    state: State,
    program: Program,
    /// A stop is followed by a start.
    is_to_return: bool,
    is_leaving: bool,
    failures: u32,
    restarts: u64,
    launches: u64,
    began: Monotonic,
    deadline: Option<Monotonic>,
}

impl Life {
    /// One that has not begun.
    pub const fn new(rule: Restart) -> Self {
        Self {
            rule,
            state: State::Stopped,
            program: Program::None,
            is_to_return: false,
            is_leaving: false,
            failures: 0,
            restarts: 0,
            launches: 0,
            began: Monotonic(0),
            deadline: None,
        }
    }

    /// Where it is.
    pub const fn state(&self) -> State {
        self.state
    }

    /// How often it was started again by itself.
    pub const fn restarts(&self) -> u64 {
        self.restarts
    }

    /// How often it was started at all.
    pub const fn launches(&self) -> u64 {
        self.launches
    }

    /// When to bring `Input::Timer`.
    pub const fn deadline(&self) -> Option<Monotonic> {
        self.deadline
    }

    /// Whether it ends or starts anew only because somebody asked for it.
    pub const fn will_return(&self) -> bool {
        self.is_to_return
    }

    /// Asks for something.
    pub fn ask(&mut self, now: Monotonic, verb: Verb) -> Result<Vec<Order>, Refusal> {
        if self.is_leaving && verb != Verb::Stop {
            return Err(Refusal::NodeStops);
        }
        match verb {
            Verb::Start => self.start(verb),
            Verb::Stop => Ok(self.stop(now, STOP_MAX)),
            Verb::Restart => {
                let orders = self.stop(now, STOP_MAX);
                if self.program == Program::None {
                    return self.start(verb);
                }
                self.is_to_return = true;
                Ok(orders)
            }
            Verb::Pause => match self.state {
                State::Running => Ok(self.become_with(State::Paused, Order::Suspend)),
                State::Paused => Ok(Vec::new()),
                State::Stopped | State::Starting | State::Stopping | State::BackingOff | State::Failed => {
                    Err(self.not_now(verb, "runs"))
                }
            },
            Verb::Resume => match self.state {
                State::Paused => Ok(self.become_with(State::Running, Order::Continue)),
                State::Running => Ok(Vec::new()),
                State::Stopped | State::Starting | State::Stopping | State::BackingOff | State::Failed => {
                    Err(self.not_now(verb, "is paused"))
                }
            },
            Verb::Reload => match self.state {
                State::Running => Ok(vec![Order::HangUp]),
                State::Paused
                | State::Stopped
                | State::Starting
                | State::Stopping
                | State::BackingOff
                | State::Failed => Err(self.not_now(verb, "runs")),
            },
        }
    }

    /// Takes note of what has happened. `chance` is any number, by chance.
    pub fn handle(&mut self, now: Monotonic, chance: u32, input: Input) -> Vec<Order> {
        match input {
            Input::Started => self.started(now),
            Input::Ended(end) => self.ended(now, chance, end),
            Input::Timer => self.timer(now),
            Input::Shutdown => {
                self.is_leaving = true;
                self.stop(now, SHUTDOWN_MAX)
            }
        }
    }

    fn start(&mut self, verb: Verb) -> Result<Vec<Order>, Refusal> {
        match self.state {
            State::Stopped | State::Failed | State::BackingOff => {
                // Somebody looks after it now: the pauses begin anew.
                self.failures = 0;
                Ok(self.launch())
            }
            State::Starting | State::Running => Ok(Vec::new()),
            State::Paused => Err(self.not_now(verb, "is not paused: resume it")),
            State::Stopping => {
                self.is_to_return = true;
                Ok(Vec::new())
            }
        }
    }

    fn stop(&mut self, now: Monotonic, within: Millis) -> Vec<Order> {
        self.is_to_return = false;
        let by = now.plus(within);
        match self.program {
            Program::None => {
                self.state = State::Stopped;
                self.deadline = None;
                Vec::new()
            }
            // What is not there yet is asked to end once it is.
            Program::Launched => {
                self.state = State::Stopping;
                self.deadline = None;
                Vec::new()
            }
            Program::Alive if self.state == State::Stopping => {
                // A second request never gives more time than the first.
                self.deadline = self.deadline.map(|earlier| earlier.min(by));
                Vec::new()
            }
            Program::Alive => {
                let was_paused = self.state == State::Paused;
                self.state = State::Stopping;
                self.deadline = Some(by);
                // Who is suspended cannot obey.
                if was_paused { vec![Order::Terminate, Order::Continue] } else { vec![Order::Terminate] }
            }
        }
    }

    fn launch(&mut self) -> Vec<Order> {
        self.state = State::Starting;
        self.program = Program::Launched;
        self.is_to_return = false;
        self.deadline = None;
        self.launches = self.launches.saturating_add(1);
        vec![Order::Launch]
    }

    fn started(&mut self, now: Monotonic) -> Vec<Order> {
        if self.program != Program::Launched {
            return Vec::new();
        }
        self.program = Program::Alive;
        self.began = now;
        if self.state == State::Stopping {
            let within = if self.is_leaving { SHUTDOWN_MAX } else { STOP_MAX };
            self.deadline = Some(now.plus(within));
            return vec![Order::Terminate];
        }
        self.state = State::Running;
        Vec::new()
    }

    fn ended(&mut self, now: Monotonic, chance: u32, end: End) -> Vec<Order> {
        let before = std::mem::replace(&mut self.program, Program::None);
        self.deadline = None;
        match before {
            Program::None => return Vec::new(),
            Program::Alive if STEADY_AFTER <= now.since(self.began) => self.failures = 0,
            Program::Launched | Program::Alive => {}
        }
        if self.state == State::Stopping {
            if self.is_to_return && !self.is_leaving {
                return self.launch();
            }
            self.state = State::Stopped;
            return Vec::new();
        }
        self.state = match (self.rule, end) {
            (Restart::Always, End::Success | End::Failure) | (Restart::OnFailure, End::Failure) => {
                self.deadline = Some(now.plus(pause(self.failures, chance)));
                self.failures = self.failures.saturating_add(1);
                State::BackingOff
            }
            (Restart::Never, End::Failure) => State::Failed,
            (Restart::OnFailure | Restart::Never, End::Success) => State::Stopped,
        };
        Vec::new()
    }

    fn timer(&mut self, now: Monotonic) -> Vec<Order> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        self.deadline = None;
        match self.state {
            State::BackingOff => {
                self.restarts = self.restarts.saturating_add(1);
                self.launch()
            }
            State::Stopping => vec![Order::Kill],
            State::Stopped | State::Starting | State::Running | State::Paused | State::Failed => Vec::new(),
        }
    }

    fn become_with(&mut self, state: State, order: Order) -> Vec<Order> {
        self.state = state;
        vec![order]
    }

    const fn not_now(&self, verb: Verb, needs: &'static str) -> Refusal {
        Refusal::NotNow { verb, state: self.state, needs }
    }
}

/// The pause after so many failures in a row: doubled each time, and up to a quarter shorter by chance, so that many nodes that
/// lost the same thing do not come back at the same moment.
fn pause(failures: u32, chance: u32) -> Millis {
    let doubled = PAUSE_FIRST.0.saturating_mul(1_u64 << failures.min(DOUBLINGS_MAX)).min(PAUSE_MAX.0);
    let quarter = doubled.wrapping_div(4);
    Millis(doubled.saturating_sub(quarter.saturating_mul(u64::from(chance)).wrapping_shr(u32::BITS)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(seconds.saturating_mul(SECOND))
    }

    fn running(rule: Restart) -> Life {
        let mut life = Life::new(rule);
        assert_eq!(life.ask(at(0), Verb::Start), Ok(vec![Order::Launch]));
        assert_eq!(life.handle(at(0), 0, Input::Started), []);
        assert_eq!(life.state(), State::Running);
        life
    }

    #[test]
    fn the_rule_and_the_end_say_what_comes_next() {
        for (rule, end, expected) in [
            (Restart::Always, End::Success, State::BackingOff),
            (Restart::Always, End::Failure, State::BackingOff),
            (Restart::OnFailure, End::Success, State::Stopped),
            (Restart::OnFailure, End::Failure, State::BackingOff),
            (Restart::Never, End::Success, State::Stopped),
            (Restart::Never, End::Failure, State::Failed),
        ] {
            let mut life = running(rule);
            assert_eq!(life.handle(at(1), 0, Input::Ended(end)), []);
            assert_eq!(life.state(), expected, "{rule:?} {end:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_steady_run() {
        let mut life = running(Restart::OnFailure);
        let mut now = at(1);
        for expected in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            life.handle(now, 0, Input::Ended(End::Failure));
            let due = life.deadline().expect("it backs off");
            assert_eq!(due.since(now), Millis(expected));
            now = due;
            assert_eq!(life.handle(now, 0, Input::Timer), [Order::Launch]);
            life.handle(now, 0, Input::Started);
        }
        assert_eq!(life.restarts(), 9);
        now = now.plus(STEADY_AFTER);
        life.handle(now, 0, Input::Ended(End::Failure));
        assert_eq!(life.deadline(), Some(now.plus(PAUSE_FIRST)));
        assert_eq!(pause(0, u32::MAX), Millis(376));
        assert_eq!(pause(u32::MAX, u32::MAX), Millis(45_001));
    }

    #[test]
    fn a_stop_asks_then_kills_and_a_suspended_program_is_let_go_on_for_it() {
        let mut life = running(Restart::Always);
        assert_eq!(life.ask(at(1), Verb::Pause), Ok(vec![Order::Suspend]));
        assert_eq!(life.ask(at(2), Verb::Stop), Ok(vec![Order::Terminate, Order::Continue]));
        assert_eq!(life.deadline(), Some(at(12)));
        assert_eq!(life.handle(at(11), 0, Input::Timer), []);
        assert_eq!(life.handle(at(12), 0, Input::Timer), [Order::Kill]);
        assert_eq!(life.handle(at(12), 0, Input::Ended(End::Failure)), []);
        assert_eq!(life.state(), State::Stopped);
    }

    #[test]
    fn a_restart_ends_one_program_before_it_starts_the_next() {
        let mut life = running(Restart::Never);
        assert_eq!(life.ask(at(1), Verb::Restart), Ok(vec![Order::Terminate]));
        assert_eq!(life.handle(at(2), 0, Input::Ended(End::Failure)), [Order::Launch]);
        assert_eq!((life.state(), life.launches(), life.restarts()), (State::Starting, 2, 0));
    }

    #[test]
    fn verbs_that_make_no_sense_are_refused_with_what_they_need() {
        let mut life = Life::new(Restart::OnFailure);
        for verb in [Verb::Pause, Verb::Resume, Verb::Reload] {
            let refusal = life.ask(at(0), verb).expect_err("nothing runs").to_string();
            assert!(refusal.contains("stopped") && refusal.contains(verb.as_str()), "{refusal}");
        }
        let mut life = running(Restart::OnFailure);
        assert_eq!(life.ask(at(1), Verb::Reload), Ok(vec![Order::HangUp]));
        life.ask(at(1), Verb::Pause).expect("it runs");
        life.ask(at(1), Verb::Start).expect_err("it is to be resumed");
        assert_eq!(life.ask(at(1), Verb::Resume), Ok(vec![Order::Continue]));
        life.handle(at(2), 0, Input::Shutdown);
        assert_eq!(life.ask(at(2), Verb::Start), Err(Refusal::NodeStops));
        assert_eq!(life.deadline(), Some(at(5)));
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Ask(Verb),
        Happens(Input),
        Passes(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let inputs = [Input::Started, Input::Ended(End::Success), Input::Ended(End::Failure), Input::Timer];
        prop_oneof![
            4 => proptest::sample::select(Verb::ALL.to_vec()).prop_map(Step::Ask),
            8 => proptest::sample::select(inputs.to_vec()).prop_map(Step::Happens),
            2 => (0..90_u64).prop_map(Step::Passes),
            1 => Just(Step::Happens(Input::Shutdown)),
        ]
    }

    /// The world as the orders make it: which program is there, and what was wanted last.
    #[derive(Debug, Default)]
    struct World {
        now: u64,
        is_there: bool,
        is_alive: bool,
        wants_none: bool,
        is_leaving: bool,
    }

    impl World {
        /// Only what can happen does.
        fn turn(&mut self, life: &mut Life, chance: u32, step: Step) {
            let orders = match step {
                Step::Passes(seconds) => {
                    self.now = self.now.saturating_add(seconds);
                    life.handle(at(self.now), chance, Input::Timer)
                }
                Step::Happens(Input::Started) if !self.is_there || self.is_alive => return,
                Step::Happens(Input::Ended(_)) if !self.is_there => return,
                Step::Happens(input) => {
                    match input {
                        Input::Started => self.is_alive = true,
                        Input::Ended(_) => (self.is_there, self.is_alive) = (false, false),
                        Input::Shutdown => (self.wants_none, self.is_leaving) = (true, true),
                        Input::Timer => {}
                    }
                    life.handle(at(self.now), chance, input)
                }
                Step::Ask(verb) => {
                    let asked = life.ask(at(self.now), verb);
                    match verb {
                        Verb::Stop => self.wants_none = true,
                        Verb::Start | Verb::Restart if asked.is_ok() => self.wants_none = false,
                        Verb::Start | Verb::Restart | Verb::Pause | Verb::Resume | Verb::Reload => {}
                    }
                    asked.unwrap_or_default()
                }
            };
            for order in orders {
                if order == Order::Launch {
                    assert!(!self.is_there, "two programs at once");
                    assert!(!self.wants_none && !self.is_leaving, "started after a stop");
                    self.is_there = true;
                } else {
                    assert!(self.is_alive, "{order:?} to nobody");
                }
            }
            let may_be_there = !matches!(life.state(), State::Stopped | State::BackingOff | State::Failed);
            assert_eq!(self.is_there, may_be_there, "{:?}", life.state());
            assert_eq!(life.state() == State::BackingOff, life.deadline().is_some() && !self.is_there);
        }
    }

    proptest! {
        #[test]
        fn never_two_programs_none_after_a_stop_and_a_stop_ends_in_stopped(
            rule in proptest::sample::select(vec![Restart::Always, Restart::Never, Restart::OnFailure]),
            chance in any::<u32>(),
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let (mut life, mut world) = (Life::new(rule), World::default());
            for step in steps {
                world.turn(&mut life, chance, step);
            }
            // However it came here: after a stop, and with time and the kernel doing their part, nothing is left.
            world.turn(&mut life, chance, Step::Ask(Verb::Stop));
            world.turn(&mut life, chance, Step::Happens(Input::Started));
            world.turn(&mut life, chance, Step::Passes(11));
            world.turn(&mut life, chance, Step::Happens(Input::Ended(End::Failure)));
            prop_assert_eq!(life.state(), State::Stopped);
            world.turn(&mut life, chance, Step::Passes(1_000));
            prop_assert_eq!((life.state(), life.deadline()), (State::Stopped, None));
        }

        #[test]
        fn every_pause_is_within_its_bounds(failures in any::<u32>(), chance in any::<u32>()) {
            let pause = pause(failures, chance);
            prop_assert!(Millis(375) <= pause && pause <= PAUSE_MAX, "{:?}", pause);
        }
    }
}
