//! What must hold, whatever broke: each rule with its sentence, judged by what was seen from outside alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::cable::Weather;
use super::evidence::{Attempt, Evidence, Kept, Record, Run, Sighting, Told, Wish};
use super::schedule::{Fault, Link, Node};

/// A killed node must not be shown online after this: the contract says a second, the rest is for a busy machine and for a
/// state that is shown up to a period late.
const DEATH_SEEN_MAX: Duration = Duration::from_millis(3_000);

/// Lease plus a second, and the rest as above.
const SILENCE_SEEN_MAX: Duration = Duration::from_millis(6_000);

/// What a node may take in the calm: several times what it takes, so that only a leak or a flood passes it.
const MEMORY_KIB_MAX: u64 = 400 * 1_024;
const DESCRIPTORS_MAX: u64 = 256;
const THREADS_MAX: u64 = 128;

/// A rule that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) rule: &'static str,
    pub(super) detail: String,
}

impl Display for Breach {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "BROKEN: {}: {}", self.rule, self.detail)
    }
}

pub(super) const SETTLES: &str = "after all is healed every node is online for every other one";
pub(super) const VERIFIES: &str = "the audit log of every node verifies";
pub(super) const ACKNOWLEDGED_ONCE: &str = "what was acknowledged is on record at its target exactly once";
pub(super) const AT_MOST_ONCE: &str = "nothing is carried out twice";
pub(super) const REFUSED_NEVER: &str = "what was only refused has no effect";
pub(super) const EFFECT_BY_RECORD: &str = "an effect outside happens once, and only with a record";
pub(super) const SAME_RECEIPT: &str = "a request that is repeated gets the receipt of the first time";
pub(super) const REVISION: &str = "each change of the configuration raises the revision by one, and nothing else does";
pub(super) const AGREE: &str = "origin and target agree on what was done";
pub(super) const CONCLUDED: &str = "what an origin intended it concludes";
pub(super) const RUNS_END: &str = "every run that was accepted has one start, no gap and one end";
pub(super) const NOT_HEALTHY: &str = "nothing that is dead, frozen or cut off is shown online";
pub(super) const NOTHING_LEFT: &str = "no process outlives its run or its node";
pub(super) const BOUNDED: &str = "memory, descriptors and threads of a node stay within bounds";
pub(super) const SOMETHING_SEEN: &str = "a storm of which nothing was seen proves nothing";
pub(super) const ENDS_AS_ASKED: &str = "a node ends when it is asked to, cleanly, and never by itself";

/// Every rule that does not hold.
pub(super) fn judge(evidence: &Evidence) -> Vec<Breach> {
    let mut found = Findings::default();
    for detail in &evidence.unsettled {
        found.breach(SETTLES, detail.clone());
    }
    for detail in &evidence.ends {
        found.breach(ENDS_AS_ASKED, detail.clone());
    }
    for detail in &evidence.left {
        found.breach(NOTHING_LEFT, detail.clone());
    }
    found.anything(evidence);
    found.logs(evidence);
    found.requests(evidence);
    found.runs(evidence);
    found.sightings(evidence);
    found.weights(evidence);
    found.0
}

#[derive(Debug, Default)]
struct Findings(Vec<Breach>);

/// One request, and all that is known of it.
struct Case<'a> {
    id: &'a str,
    wish: Wish,
    target: Node,
    attempts: Vec<&'a Attempt>,
}

impl Case<'_> {
    /// The records of its being carried out at its target.
    fn applied<'a>(&self, kept: &'a BTreeMap<Node, Kept>) -> Vec<&'a Record> {
        let records = kept.get(&self.target).into_iter().flat_map(|kept| &kept.records);
        let is_one =
            |it: &&Record| it.request_id == self.id && it.target == self.target.name() && it.outcome == "applied";
        records.filter(is_one).collect()
    }

    fn marks(&self, kept: &BTreeMap<Node, Kept>) -> usize {
        kept.values().flat_map(|kept| &kept.marks).filter(|mark| *mark == self.id).count()
    }

    fn receipts<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> BTreeSet<(&'a str, Option<&'a str>)> {
        let receipts = attempts.filter_map(|attempt| match &attempt.told {
            Told::Done { audit_id, run } => Some((audit_id.as_str(), run.as_deref())),
            Told::Refused(_) | Told::Unknown(_) => None,
        });
        receipts.collect()
    }
}

impl Findings {
    fn breach(&mut self, rule: &'static str, detail: String) {
        self.0.push(Breach { rule, detail });
    }

    fn must(&mut self, holds: bool, rule: &'static str, detail: impl FnOnce() -> String) {
        if !holds {
            self.breach(rule, detail());
        }
    }

    /// Whether the judge was shown what it judges by: an answer that has changed its form would be silently nothing.
    fn anything(&mut self, evidence: &Evidence) {
        let is_done = |attempt: &Attempt| matches!(attempt.told, Told::Done { .. });
        let has_run = |attempt: &Attempt| matches!(attempt.told, Told::Done { run: Some(_), .. });
        let nodes: Vec<Node> = evidence.after.keys().copied().collect();
        for (holds, what) in [
            (!evidence.done.is_empty(), "no fault was carried out"),
            (evidence.calls.attempts.iter().any(is_done), "no write was done in the storm"),
            (evidence.repeated.iter().any(has_run), "no run was named when all was asked again"),
            (1 < nodes.len() && evidence.before.len() == nodes.len(), "the logs of some nodes are missing"),
            (nodes.iter().all(|node| evidence.weights.contains_key(node)), "some node was not weighed"),
        ] {
            self.must(holds, SOMETHING_SEEN, || what.to_owned());
        }
        for (observer, subject) in nodes.iter().flat_map(|one| nodes.iter().map(move |other| (*one, *other))) {
            let is_one = |it: &Sighting| (it.observer, it.subject) == (observer, subject) && it.lifecycle == "online";
            let is_seen = observer == subject || evidence.sightings.iter().any(is_one);
            self.must(is_seen, SOMETHING_SEEN, || format!("{observer} was never seen to show {subject} online"));
        }
    }

    fn logs(&mut self, evidence: &Evidence) {
        for (node, kept) in evidence.before.iter().chain(&evidence.after) {
            if let Some(why) = &kept.unverified {
                self.breach(VERIFIES, format!("{node}: {why}"));
            }
            let changes = kept
                .records
                .iter()
                .filter(|it| it.action == "cfg_apply" && it.target == node.name() && it.outcome == "applied");
            let changes = u64::try_from(changes.count()).expect("small");
            self.must(changes == kept.revision, REVISION, || {
                format!("{node}: {changes} changes on record, revision {}", kept.revision)
            });
        }
    }

    fn requests(&mut self, evidence: &Evidence) {
        let mut attempts: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
        for attempt in &evidence.calls.attempts {
            attempts.entry(&attempt.id).or_default().push(attempt);
        }
        for (id, asked) in &evidence.calls.requests {
            let attempts = attempts.remove(id.as_str()).unwrap_or_default();
            let case = Case { id, wish: asked.wish, target: asked.target, attempts };
            self.storm(evidence, &case);
            self.repetition(evidence, &case);
            self.effect(evidence, &case);
            self.origins(evidence, &case);
        }
    }

    /// What was told in the storm, against the records after it.
    fn storm(&mut self, evidence: &Evidence, case: &Case<'_>) {
        let applied = case.applied(&evidence.before);
        let receipts = Case::receipts(case.attempts.iter().copied());
        let told = || format!("{} at {}: {applied:?}, told {:?}", case.id, case.target, case.attempts);
        self.must(applied.len() <= 1, AT_MOST_ONCE, told);
        if !receipts.is_empty() {
            let is_kept = receipts.len() == 1 && applied.len() == 1;
            let is_named = receipts.iter().all(|(id, _)| applied.iter().all(|record| record.audit_id == *id));
            self.must(is_kept && is_named, ACKNOWLEDGED_ONCE, told);
        }
        let is_refused = |attempt: &&Attempt| matches!(attempt.told, Told::Refused(_));
        if !case.attempts.is_empty() && case.attempts.iter().all(is_refused) {
            let marks = case.marks(&evidence.before);
            self.must(applied.is_empty() && marks == 0, REFUSED_NEVER, told);
        }
    }

    /// Asked again in the calm it is done, once in all, with the receipt of the first time.
    fn repetition(&mut self, evidence: &Evidence, case: &Case<'_>) {
        let again: Vec<&Attempt> = evidence.repeated.iter().filter(|attempt| attempt.id == case.id).collect();
        let (before, after) = (case.applied(&evidence.before), case.applied(&evidence.after));
        let told = || format!("{} at {}: {before:?}, then {after:?}, told {again:?}", case.id, case.target);
        self.must(after.len() <= 1 && before.len() <= after.len(), AT_MOST_ONCE, told);
        let receipts = Case::receipts(case.attempts.iter().copied().chain(again.iter().copied()));
        let is_done = again.iter().all(|attempt| matches!(attempt.told, Told::Done { .. }));
        let is_named = receipts.iter().all(|(id, _)| after.iter().any(|record| record.audit_id == *id));
        self.must(!again.is_empty() && is_done && receipts.len() == 1 && is_named, SAME_RECEIPT, told);
    }

    /// The files outside, against the records and the runs.
    fn effect(&mut self, evidence: &Evidence, case: &Case<'_>) {
        let (before, after) = (case.marks(&evidence.before), case.marks(&evidence.after));
        let applied = case.applied(&evidence.after).len();
        let detail = || format!("{} at {}: {before} effects, then {after}, {applied} records", case.id, case.target);
        match case.wish {
            Wish::Ping | Wish::Apply { .. } => self.must(after == 0, EFFECT_BY_RECORD, detail),
            Wish::Mark { .. } => {
                let receipts = Case::receipts(evidence.attempts(case.id));
                let runs = receipts.iter().filter_map(|(_, run)| evidence.runs.get((*run)?));
                let is_completed = runs.into_iter().any(|run| run.status == "completed");
                let is_sound = after <= applied && before <= after && (!is_completed || after == 1);
                self.must(is_sound, EFFECT_BY_RECORD, detail);
            }
        }
        let elsewhere =
            |(node, kept): (&Node, &Kept)| *node != case.target && kept.marks.iter().any(|it| it == case.id);
        self.must(!evidence.after.iter().any(elsewhere), EFFECT_BY_RECORD, || format!("{} elsewhere", case.id));
    }

    /// The records of each node that a request went through.
    fn origins(&mut self, evidence: &Evidence, case: &Case<'_>) {
        let applied = case.applied(&evidence.after);
        let mut intended = 0;
        for origin in evidence.origins(case.id).into_iter().filter(|origin| *origin != case.target) {
            let kept = evidence.after.get(&origin).into_iter().flat_map(|kept| &kept.records);
            let own: Vec<&Record> =
                kept.filter(|it| it.request_id == case.id && it.target == case.target.name()).collect();
            let count = |outcome: &str| own.iter().filter(|it| it.outcome == outcome).count();
            let detail = || format!("{} from {origin} to {}: {own:?}, there {applied:?}", case.id, case.target);
            intended += count("intended");
            let names = |it: &&&Record| applied.iter().any(|there| it.detail.contains(&there.audit_id));
            let said = own.iter().filter(|it| it.outcome == "applied");
            let is_agreed =
                count("applied") == 0 || (applied.len() == 1 && said.clone().filter(names).count() == said.count());
            self.must(is_agreed, AGREE, detail);
            let concluded = count("applied") + count("denied") + count("unknown");
            self.must(count("intended") <= concluded, CONCLUDED, detail);
        }
        let is_own = applied.first().is_some_and(|it| it.origin == case.target.name());
        self.must(applied.is_empty() || is_own || intended > 0, AGREE, || {
            format!("{} was carried out at {} and intended nowhere: {applied:?}", case.id, case.target)
        });
    }

    fn runs(&mut self, evidence: &Evidence) {
        for (id, run) in &evidence.runs {
            self.must(is_whole(run), RUNS_END, || format!("{id}: {run:?}"));
        }
        let all = evidence.calls.attempts.iter().chain(&evidence.repeated);
        for (_, run) in Case::receipts(all) {
            let is_looked_at = run.is_none_or(|run| evidence.runs.contains_key(run));
            self.must(is_looked_at, RUNS_END, || format!("{run:?} is nowhere"));
        }
    }

    fn sightings(&mut self, evidence: &Evidence) {
        for sighting in evidence.sightings.iter().filter(|it| it.lifecycle == "online") {
            for (rule, since) in silences(evidence, sighting) {
                self.breach(NOT_HEALTHY, format!("{rule} since {since:?}: {sighting:?}"));
            }
        }
    }

    fn weights(&mut self, evidence: &Evidence) {
        for (node, weight) in &evidence.weights {
            let is_bounded = weight.memory_kib <= MEMORY_KIB_MAX
                && weight.descriptors <= DESCRIPTORS_MAX
                && weight.threads <= THREADS_MAX;
            self.must(is_bounded, BOUNDED, || format!("{node}: {weight:?}"));
        }
    }
}

fn is_whole(run: &Run) -> bool {
    let is_gapless = run.events.iter().zip(0..).all(|((number, _), place)| *number == place);
    let count = |wanted: &str| run.events.iter().filter(|(_, kind)| kind == wanted).count();
    let ends = [run.events.first(), run.events.last()].map(|it| it.map(|(_, kind)| kind.as_str()));
    is_gapless
        && ends == [Some("run_start"), Some("run_end")]
        && (count("run_start"), count("run_end")) == (1, 1)
        && ["completed", "errored"].contains(&run.status.as_str())
}

/// Why the observer could not have heard of the subject for longer than it may take to notice, over the whole time between
/// question and answer. Whatever changed for the observer or on the link gives it that time anew.
fn silences(evidence: &Evidence, sighting: &Sighting) -> Vec<(&'static str, Duration)> {
    let link = Link::between(sighting.observer, sighting.subject);
    let mut since: Vec<(&'static str, Duration, Duration)> = Vec::new();
    let mut fresh = Duration::ZERO;
    for done in &evidence.done {
        if sighting.answered < done.begun {
            break;
        }
        match done.fault {
            Fault::Kill(node) if node == sighting.subject => since.push(("killed", done.ended, DEATH_SEEN_MAX)),
            Fault::Freeze(node) if node == sighting.subject => since.push(("frozen", done.ended, SILENCE_SEEN_MAX)),
            Fault::Start(node) | Fault::Thaw(node) if node == sighting.subject => since.retain(|it| it.0 == "cut"),
            Fault::Start(node) | Fault::Thaw(node) if node == sighting.observer => fresh = done.ended,
            Fault::Link(it, Weather::Cut | Weather::Stalled) if it == link => {
                since.push(("cut", done.ended, SILENCE_SEEN_MAX));
            }
            Fault::Link(it, Weather::Clear) if it == link => {
                since.retain(|it| it.0 != "cut");
                fresh = done.ended;
            }
            Fault::Link(it, Weather::Slow { .. }) if it == link => fresh = done.ended,
            Fault::Kill(_)
            | Fault::Stop(_)
            | Fault::Start(_)
            | Fault::Freeze(_)
            | Fault::Thaw(_)
            | Fault::Step(..)
            | Fault::SetRight(_)
            | Fault::Fill(_)
            | Fault::Free(_)
            | Fault::Link(..) => {}
        }
    }
    let is_bad_weather = weather_at(evidence, link, sighting);
    let too_long = |(_, from, bound): &(&str, Duration, Duration)| {
        // The end of a process shows by its link; where that is slow or cut, only silence tells.
        let bound = if is_bad_weather { SILENCE_SEEN_MAX } else { *bound };
        (*from).max(fresh) + bound < sighting.asked
    };
    since.into_iter().filter(too_long).map(|(why, from, _)| (why, from)).collect()
}

/// Whether anything was wrong with the link within the time of a lease before the question.
fn weather_at(evidence: &Evidence, link: Link, sighting: &Sighting) -> bool {
    let mut is_bad = false;
    for done in evidence.done.iter().take_while(|done| done.begun <= sighting.answered) {
        if let Fault::Link(it, weather) = done.fault
            && it == link
        {
            is_bad = weather != Weather::Clear || done.ended + SILENCE_SEEN_MAX > sighting.asked;
        }
    }
    is_bad
}
