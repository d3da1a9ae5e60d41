//! Replay protection, every way that a few writes, crashes and clock faults can follow on each other, to a bounded depth.
//!
//! The states are those of the real engine and of its disk; `step` says what can happen next, `oracle` what must come of it.
//! Breadth first, so that what is found broken is found in as few steps as can be. A state that was reached before, in
//! whatever order, is not gone on from twice.

mod oracle;
mod step;
mod target;

use std::collections::BTreeSet;
use std::sync::Arc;

use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::preflight::Profile;

use crate::model::step::{Content, Fate, KEPT_MS, NOTICED_MS, Source, Step};
use crate::model::target::{Target, Told};
use crate::number;

/// Steps of one ordinary run, in seconds; `MODEL_DEPTH` sets another number, and each step more takes ten times as long.
const DEPTH: usize = 4;

/// How a state was reached.
#[derive(Debug)]
struct Path {
    step: Step,
    before: Option<Arc<Self>>,
}

/// A state at the edge of what has been explored.
struct Reached {
    target: Target,
    path: Option<Arc<Path>>,
}

impl Reached {
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = self.path.as_ref();
        while let Some(path) = at {
            steps.push(path.step);
            at = path.before.as_ref();
        }
        steps.reverse();
        steps
    }

    /// Everything that can happen next, or the sentence that one of it breaks.
    fn next(&self) -> Result<Vec<(Hash, Self)>, String> {
        let mut next = Vec::new();
        for step in Step::possible(&self.target) {
            let mut target = self.target.clone();
            let path = Some(Arc::new(Path { step, before: self.path.clone() }));
            let result = target.take(step);
            let reached = Self { target, path };
            result.map_err(|breach| format!("{breach}\nafter {:?}", reached.steps()))?;
            next.push((reached.target.fingerprint(), reached));
        }
        Ok(next)
    }
}

/// What was seen of all states together, so that an exploration in which nothing happens is noticed.
#[derive(Debug, Default)]
struct Explored {
    states: usize,
    executed: usize,
    repeated: usize,
    forgotten: usize,
    uncertain: usize,
}

impl Explored {
    fn count(&mut self, told: &Told) {
        self.executed += told.executed;
        self.repeated += told.repeated;
        self.forgotten += told.forgotten;
        self.uncertain += usize::from(told.is_uncertain);
    }
}

fn explore(profile: Profile, depth: usize) -> Result<Explored, String> {
    let start = Reached { target: Target::new(profile), path: None };
    let mut seen = BTreeSet::from([start.target.fingerprint()]);
    let mut edge = vec![start];
    let mut explored = Explored::default();
    for _ in 0..depth {
        // Two halves, because most machines have two processors.
        let (one, other) = edge.split_at(edge.len() / 2);
        let further = |half: &[Reached]| half.iter().map(Reached::next).collect::<Result<Vec<_>, _>>();
        let found = std::thread::scope(|scope| {
            let halves = [scope.spawn(|| further(one)), scope.spawn(|| further(other))];
            halves.map(|half| half.join().expect("a step does not panic"))
        });
        let [one, other] = found;
        let found = one?.into_iter().chain(other?).flatten();
        edge = found.filter(|(name, _)| seen.insert(*name)).map(|(_, reached)| reached).collect();
        explored.states = seen.len();
        edge.iter().for_each(|reached| explored.count(&reached.target.told()));
    }
    Ok(explored)
}

/// Explores, and gives the numbers as a sentence.
fn check(profile: Profile) -> String {
    let depth = number("MODEL_DEPTH").unwrap_or(DEPTH);
    let explored = explore(profile, depth).unwrap_or_else(|broken| panic!("\n{broken}"));
    let Explored { states, executed, repeated, forgotten, uncertain } = explored;
    let all = [states, executed, repeated, forgotten, uncertain];
    assert!(depth < DEPTH || all.iter().all(|it| *it > 0), "nothing of some kind happened: {all:?}");
    format!("{profile:?}, {depth} steps: {explored:?}")
}

#[test]
fn no_order_of_crashes_and_clock_faults_carries_a_write_out_twice_in_plant() {
    println!("{}", check(Profile::Plant));
}

#[test]
fn no_order_of_crashes_and_clock_faults_carries_a_write_out_twice_in_dev() {
    println!("{}", check(Profile::Dev));
}

/// Deeper than the exploration goes: the first mark of a later time does not become durable, and must be tried again.
#[test]
fn a_start_knows_the_time_of_which_the_store_took_no_mark() {
    const HOURS: u64 = 20 * 3_600_000;
    let new = Source::New(Content::First);
    let steps = [
        Step::Arrive(new, Fate::Held),
        Step::Jump(HOURS),
        Step::Arrive(new, Fate::Failed),
        Step::Repair,
        Step::Crash,
        Step::SetRight,
        Step::Start,
        Step::Pass(1),
    ];
    for profile in [Profile::Plant, Profile::Dev] {
        let mut target = Target::new(profile);
        follow(&mut target, &steps);
        assert!(target.is_uncertain());
    }
}

/// Deeper than the exploration goes: a full disk, a refusal, a start with space again, and a copy of the letter.
#[test]
fn what_was_refused_in_one_life_is_carried_out_in_no_other() {
    let copy = |fate| Step::Arrive(Source::Again(0), fate);
    let new = |content, fate| Step::Arrive(Source::New(content), fate);
    let refused = [Step::Delay(Content::First), new(Content::Second, Fate::Failed), copy(Fate::Kept)];
    for profile in [Profile::Plant, Profile::Dev] {
        for lives in 1..3 {
            let mut target = Target::new(profile);
            follow(&mut target, &refused);
            for _ in 0..lives {
                follow(&mut target, &[Step::Crash, Step::Start, copy(Fate::Kept), copy(Fate::Kept)]);
            }
            assert_eq!(target.told().executed, 0, "{profile:?}");
            // Its origin has heard of the start, and asks again.
            follow(&mut target, &[new(Content::First, Fate::Kept), Step::Crash, Step::Start, copy(Fate::Kept)]);
            assert_eq!((target.told().executed, target.told().repeated), (1, 1), "{profile:?}");
        }
    }
}

/// Takes these steps and no others.
fn follow(target: &mut Target, steps: &[Step]) {
    for (index, step) in steps.iter().enumerate() {
        target.take(*step).unwrap_or_else(|broken| panic!("{broken} after {:?}", &steps[..=index]));
    }
}

/// Another start than that of the exploration, which cannot carry out ten thousand writes: a further one displaces the oldest
/// receipt, but not a millisecond before nobody can repeat its request, and not by a clock in doubt. The oracle says at each
/// letter whether there is room.
#[test]
fn a_full_table_gives_up_no_receipt_early_or_by_a_clock_in_doubt() {
    const ARRIVE: Step = Step::Arrive(Source::New(Content::First), Fate::Kept);
    let on_time = [Step::Pass(KEPT_MS - 1), ARRIVE, Step::Pass(1), ARRIVE];
    let in_doubt = [
        Step::Jump(NOTICED_MS),
        ARRIVE,
        Step::SetRight,
        Step::Pass(KEPT_MS),
        ARRIVE,
        Step::Reset,
        // A letter of its own: the one before was refused, and stays so.
        Step::Pass(1),
        ARRIVE,
    ];
    let over_a_start =
        [Step::Pass(KEPT_MS - 1), Step::Crash, Step::Start, ARRIVE, Step::Crash, Step::Pass(1), Step::Start];
    for profile in [Profile::Plant, Profile::Dev] {
        for steps in [on_time.as_slice(), &in_doubt, &over_a_start] {
            let mut target = Target::crowded(profile);
            follow(&mut target, steps);
            let room = if steps == over_a_start { ARRIVE } else { Step::Arrive(Source::Again(0), Fate::Kept) };
            follow(&mut target, &[room]);
            let Told { executed, forgotten, .. } = target.told();
            assert_eq!((executed, forgotten), (1, 1), "{profile:?} {steps:?}");
        }
    }
}
