//! What breaks when: drawn from a seed alone, with every fault ended before the schedule is over.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::cable::Weather;
use crate::chance::Chance;

/// Pause between the beginnings of two incidents.
const PAUSE_MS: (u64, u64) = (250, 1_400);

/// The end of a schedule in which nothing begins, so that what begins has some length.
const LAST_MS: u64 = 1_500;

/// A node by its number; shown by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(pub(super) usize);

/// The link between two nodes. The second one dials the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link(pub(super) Node, pub(super) Node);

/// One thing that happens to a node or to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The node's process ends as in a crash.
    Kill(Node),
    /// The node is asked to end.
    Stop(Node),
    Start(Node),
    /// Suspended: alive, silent.
    Freeze(Node),
    Thaw(Node),
    /// Its wall clock is off by so many seconds.
    Step(Node, i64),
    SetRight(Node),
    /// The disk below its state has no byte left.
    Fill(Node),
    Free(Node),
    /// The link is like that from now on.
    Link(Link, Weather),
}

/// A fault at its time since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) at: Duration,
    pub(super) fault: Fault,
}

/// All that breaks and heals in one storm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) steps: Vec<Step>,
}

impl Node {
    pub(super) fn name(self) -> &'static str {
        ["a", "b", "c", "d", "e"][self.0]
    }
}

/// Every link of a full mesh of so many nodes.
pub(super) fn links(nodes: usize) -> Vec<Link> {
    let pairs = (0..nodes).flat_map(|low| (low + 1..nodes).map(move |high| Link(Node(low), Node(high))));
    pairs.collect()
}

impl Link {
    pub(super) fn between(one: Node, other: Node) -> Self {
        Self(one.min(other), one.max(other))
    }
}

impl Schedule {
    /// The same for the same arguments, always.
    pub(super) fn draw(seed: u64, nodes: usize, span: Duration) -> Self {
        let span = u64::try_from(span.as_millis()).expect("a span that a test lives");
        let mut draft = Draft {
            chance: Chance::new(seed),
            span,
            now: 0,
            steps: Vec::new(),
            links: links(nodes).into_iter().map(|link| (link, 0)).collect(),
            nodes: vec![Busy::default(); nodes],
        };
        loop {
            draft.now += draft.chance.between(PAUSE_MS.0, PAUSE_MS.1);
            if span < draft.now + LAST_MS {
                break;
            }
            draft.incident();
        }
        draft.steps.sort_by_key(|step| step.at);
        Self { seed, steps: draft.steps }
    }
}

/// Until when something of a node is broken; one thing breaks once at a time.
#[derive(Debug, Clone, Copy, Default)]
struct Busy {
    process: u64,
    disk: u64,
    clock: u64,
}

#[derive(Debug)]
struct Draft {
    chance: Chance,
    span: u64,
    now: u64,
    steps: Vec<Step>,
    links: Vec<(Link, u64)>,
    nodes: Vec<Busy>,
}

impl Draft {
    /// Something breaks and is repaired later. What is broken already is left alone.
    fn incident(&mut self) {
        let place = self.chance.index(self.nodes.len());
        let link = self.chance.index(self.links.len());
        match self.chance.below(100) {
            0..20 => self.crash(place),
            20..32 => self.restart(place),
            32..48 => self.freeze(place),
            48..56 => self.step_clock(place),
            56..66 => self.fill(place),
            66..76 => self.cut(link),
            76..82 => self.isolate(place),
            82..89 => self.stall(link),
            _ => self.slow(link),
        }
    }

    /// A moment so long after now, or the last one.
    fn until(&mut self, low: u64, high: u64) -> u64 {
        (self.now + self.chance.between(low, high)).min(self.span)
    }

    fn push(&mut self, at: u64, fault: Fault) {
        self.steps.push(Step { at: Duration::from_millis(at), fault });
    }

    fn both(&mut self, until: u64, begin: Fault, end: Fault) {
        self.push(self.now, begin);
        self.push(until, end);
    }

    fn crash(&mut self, place: usize) {
        let until = self.until(100, 6_000);
        if self.nodes[place].process < self.now {
            // A node does not start on a full disk.
            let until = until.max(self.nodes[place].disk);
            self.nodes[place].process = until;
            self.both(until, Fault::Kill(Node(place)), Fault::Start(Node(place)));
        }
    }

    fn restart(&mut self, place: usize) {
        let until = self.until(50, 3_000);
        if self.nodes[place].process < self.now {
            let until = until.max(self.nodes[place].disk);
            self.nodes[place].process = until;
            self.both(until, Fault::Stop(Node(place)), Fault::Start(Node(place)));
        }
    }

    /// Shorter than the lease or longer.
    fn freeze(&mut self, place: usize) {
        let until = self.until(200, 9_000);
        if self.nodes[place].process < self.now {
            self.nodes[place].process = until;
            self.both(until, Fault::Freeze(Node(place)), Fault::Thaw(Node(place)));
        }
    }

    /// Within what messages may differ, and beyond it; never so far that receipts are too old to be kept.
    fn step_clock(&mut self, place: usize) {
        let choices = [-7_200, -600, -45, -20, -1, 1, 20, 45, 600, 7_200];
        let seconds = choices[self.chance.index(choices.len())];
        let until = self.until(1_500, 8_000);
        if self.nodes[place].clock < self.now {
            self.nodes[place].clock = until;
            self.both(until, Fault::Step(Node(place), seconds), Fault::SetRight(Node(place)));
        }
    }

    fn fill(&mut self, place: usize) {
        let until = self.until(1_000, 7_000);
        let busy = self.nodes[place];
        if busy.disk < self.now && busy.process < self.now {
            self.nodes[place].disk = until;
            self.both(until, Fault::Fill(Node(place)), Fault::Free(Node(place)));
        }
    }

    fn cut(&mut self, place: usize) {
        let until = self.until(300, 9_000);
        self.on_link(place, until, Weather::Cut);
    }

    /// Every link of one node.
    fn isolate(&mut self, place: usize) {
        let until = self.until(500, 9_000);
        for link in 0..self.links.len() {
            let Link(one, other) = self.links[link].0;
            if one.0 == place || other.0 == place {
                self.on_link(link, until, Weather::Cut);
            }
        }
    }

    fn stall(&mut self, place: usize) {
        let until = self.until(200, 6_000);
        self.on_link(place, until, Weather::Stalled);
    }

    fn slow(&mut self, place: usize) {
        let until = self.until(1_500, 8_000);
        let delay = self.chance.between(2, 250);
        let jitter = self.chance.below(delay);
        let [delay, jitter] = [delay, jitter].map(Duration::from_millis);
        self.on_link(place, until, Weather::Slow { delay, jitter });
    }

    fn on_link(&mut self, place: usize, until: u64, weather: Weather) {
        let (link, busy) = self.links[place];
        if busy < self.now {
            self.links[place].1 = until;
            self.both(until, Fault::Link(link, weather), Fault::Link(link, Weather::Clear));
        }
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Display for Link {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(node) => write!(f, "{node}: kill"),
            Self::Stop(node) => write!(f, "{node}: stop"),
            Self::Start(node) => write!(f, "{node}: start"),
            Self::Freeze(node) => write!(f, "{node}: freeze"),
            Self::Thaw(node) => write!(f, "{node}: thaw"),
            Self::Step(node, seconds) => write!(f, "{node}: clock {seconds:+} s"),
            Self::SetRight(node) => write!(f, "{node}: clock right"),
            Self::Fill(node) => write!(f, "{node}: disk full"),
            Self::Free(node) => write!(f, "{node}: disk free"),
            Self::Link(link, Weather::Cut) => write!(f, "{link}: cut"),
            Self::Link(link, Weather::Stalled) => write!(f, "{link}: stall"),
            Self::Link(link, Weather::Slow { delay, jitter }) => {
                write!(f, "{link}: slow, {} to {} ms", delay.as_millis(), (*delay + *jitter).as_millis())
            }
            Self::Link(link, Weather::Clear) => write!(f, "{link}: heal"),
        }
    }
}

impl Display for Schedule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}", self.seed)?;
        self.steps.iter().try_for_each(|Step { at, fault }| write!(f, "\n{:8.3} s  {fault}", at.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Duration, Fault, Schedule};
    use crate::faults::{GATE_SEED, STORM, nodes_of};

    const WORDS: [&str; 13] = [
        "clock ",
        "clock right",
        "cut",
        "disk free",
        "disk full",
        "freeze",
        "heal",
        "kill",
        "slow",
        "stall",
        "start",
        "stop",
        "thaw",
    ];

    const SPAN: Duration = Duration::from_secs(30);

    /// The word of a fault, without its place and its numbers.
    fn word(fault: Fault) -> String {
        let text = fault.to_string();
        let (_, word) = text.split_once(": ").expect("a place and a word");
        word.split([',', '+', '-']).next().expect("a word").to_owned()
    }

    /// What a fault is about: a link, or a node's process, disk or clock.
    fn subject(fault: Fault) -> String {
        let part = match fault {
            Fault::Kill(_) | Fault::Stop(_) | Fault::Start(_) | Fault::Freeze(_) | Fault::Thaw(_) => "process",
            Fault::Step(..) | Fault::SetRight(_) => "clock",
            Fault::Fill(_) | Fault::Free(_) => "disk",
            Fault::Link(..) => "link",
        };
        format!("{part} {}", fault.to_string().split(": ").next().expect("a place"))
    }

    fn is_end(fault: Fault) -> bool {
        let ends = ["start", "thaw", "clock right", "disk free", "heal"];
        ends.contains(&word(fault).as_str())
    }

    #[test]
    fn a_seed_is_its_schedule() {
        let all: BTreeSet<String> = (0..200).map(|seed| Schedule::draw(seed, 4, SPAN).to_string()).collect();
        assert_eq!(all.len(), 200, "two seeds give one schedule");
        for seed in [0, 7, u64::MAX] {
            assert_eq!(Schedule::draw(seed, 4, SPAN), Schedule::draw(seed, 4, SPAN));
        }
    }

    #[test]
    fn every_fault_begins_once_at_a_time_and_ends_before_the_schedule_does() {
        let mut seen = BTreeSet::new();
        for seed in 0..300 {
            let schedule = Schedule::draw(seed, 3 + usize::try_from(seed % 3).expect("small"), SPAN);
            let mut open = BTreeSet::new();
            assert!(schedule.steps.is_sorted_by_key(|step| step.at), "{schedule}");
            assert!(schedule.steps.len() > 20, "{schedule}");
            for step in &schedule.steps {
                assert!(step.at <= SPAN, "{schedule}");
                let place = subject(step.fault);
                let is_legal = if is_end(step.fault) { open.remove(&place) } else { open.insert(place) };
                assert!(is_legal, "{:?} in {schedule}", step.fault);
                seen.insert(word(step.fault));
            }
            assert!(open.is_empty(), "{open:?} stay broken: {schedule}");
        }
        assert_eq!(seen, WORDS.map(str::to_owned).into());
    }

    #[test]
    fn the_storm_of_the_gate_has_every_fault() {
        let schedule = Schedule::draw(GATE_SEED, nodes_of(GATE_SEED), STORM);
        let seen: BTreeSet<String> = schedule.steps.iter().map(|step| word(step.fault)).collect();
        assert_eq!(seen, WORDS.map(str::to_owned).into(), "{schedule}");
    }

    #[test]
    fn no_node_starts_on_a_full_disk() {
        for seed in 0..300 {
            let schedule = Schedule::draw(seed, 4, SPAN);
            let mut full = BTreeSet::new();
            for step in &schedule.steps {
                match step.fault {
                    Fault::Fill(node) => drop(full.insert(node)),
                    Fault::Free(node) => drop(full.remove(&node)),
                    Fault::Start(node) => assert!(!full.contains(&node), "{schedule}"),
                    Fault::Kill(_)
                    | Fault::Stop(_)
                    | Fault::Freeze(_)
                    | Fault::Thaw(_)
                    | Fault::Step(..)
                    | Fault::SetRight(_)
                    | Fault::Link(..) => {}
                }
            }
        }
    }
}
