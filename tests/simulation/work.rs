//! Runs and commands to the workload: what the driver does with them in virtual time, and what must come of each.
//!
//! The shelf of runs is a disk of its own kind: durable apart from the engine's records, so that a crash may come between the
//! two, in either order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trust_runtime::domain::action::Action;
use trust_runtime::domain::audit::Outcome;
use trust_runtime::domain::envelope::{Response, Ruling};
use trust_runtime::domain::identity::Role;
use trust_runtime::domain::offer::{Agent, Offer};
use trust_runtime::domain::run::RunId;
use trust_runtime::engine::effect::{Answer, Effect};
use trust_runtime::engine::input::{Invoke, Request};
use trust_runtime::engine::record::{Deed, OpenRun, Receipt, Record, RequestKey};

use crate::disk::{Condition, Facts};
use crate::node::asker;
use crate::turn::{Mail, Purpose, Turn};
use crate::world::{Event, World};

/// How long whoever could not write waits before the next try.
const RETRY: u64 = 1_000;

/// A run as it is kept where its events are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kept {
    /// How it ended, if it has: whether by an error.
    pub(crate) ended: Option<bool>,
}

/// What happens in a run's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It is written down, and its program starts.
    Begin,
    /// Its program has ended; whether badly.
    End(bool),
    /// The engine is told.
    Told,
    /// It was open when the node started, and nobody runs it.
    Left,
}

/// What really happened to runs and deeds.
#[derive(Debug, Default)]
pub(crate) struct Works {
    /// Programs that were started: once for each run, whatever crashes.
    pub(crate) begun: BTreeSet<(usize, RunId)>,
    /// Programs that run now.
    running: BTreeSet<(usize, RunId)>,
    /// Whose program ran, or was promised, when the node crashed.
    interrupted: BTreeSet<(usize, RunId)>,
    /// Starts that somebody was told of.
    pub(crate) acknowledged: BTreeSet<(usize, RunId)>,
    /// Which run a request has brought.
    of_request: BTreeMap<(usize, RequestKey), RunId>,
    /// How often a command was accepted, and how often the workload was told.
    accepted: BTreeMap<(usize, RequestKey), u64>,
    told: BTreeMap<(usize, RequestKey), u64>,
    pub(crate) cancelled: u64,
    pub(crate) closed: u64,
    pub(crate) deeds: u64,
}

impl Works {
    /// The receipt of a request has gone: asked again it is a new one.
    pub(crate) fn forget(&mut self, node: usize, key: &RequestKey) {
        self.of_request.remove(&(node, key.clone()));
    }
}

/// What every node of the simulation offers.
pub(crate) fn offer() -> Offer {
    let name = |text: &str| text.parse().expect("legal");
    Offer {
        has_workload: true,
        commands: [(name("purge"), Role::Operator)].into(),
        agents: [(name("hello"), Agent { role: Role::Operator, webhook: true })].into(),
    }
}

impl World {
    /// A command: of the workload, of a program, or to end what goes on.
    pub(crate) fn command(&mut self) -> Action {
        // What goes on, and now and then what has ended.
        let works = &self.ledger.works;
        let known = if self.chance.happens(700) { &works.running } else { &works.begun };
        let known: Vec<RunId> = known.iter().map(|(_, run)| *run).collect();
        let (name, params) = match self.chance.below(10) {
            0..5 => ("purge", BTreeMap::from([("line".to_owned(), self.chance.below(9).to_string())])),
            5 => ("pause", BTreeMap::new()),
            6 | 7 => ("restart", BTreeMap::new()),
            _ if known.is_empty() => ("ping", BTreeMap::new()),
            _ => {
                let run = known[self.chance.index(known.len())];
                ("cancel", BTreeMap::from([("run_id".to_owned(), format!("\"{run}\""))]))
            }
        };
        Action::cmd_invoke(name, params).expect("legal")
    }

    /// Where the run goes on that an action is about, if it is about one.
    pub(crate) fn place_of(&self, action: &Action) -> Option<usize> {
        let Action::CmdInvoke(invocation) = action else { return None };
        let run = invocation.run().ok()?;
        let works = &self.ledger.works;
        works.running.iter().chain(&works.begun).find(|(_, it)| *it == run).map(|(node, _)| *node)
    }

    /// Somebody starts a run of an agent at this node.
    pub(crate) fn start_agent(&mut self, node: usize) {
        let people = ["alice", "bob", "victor"];
        let asker = asker(people[self.chance.index(people.len())]);
        let (agent, instance) = ("hello".parse().expect("legal"), "i1".parse().expect("legal"));
        let invoke = Box::new(Invoke { agent, instance, payload: "{}".to_owned(), is_streamed: false });
        self.mail(node, Mail::Request(Request::StartRun { asker, invoke }, Purpose::Agent));
    }

    /// The engine has accepted it, and that is durable.
    pub(crate) fn accept_run(&mut self, node: usize, run: &Arc<OpenRun>) {
        let id = run.run;
        if !self.nodes[node].disk.facts.runs.contains_key(&id) {
            self.breach("no run begins before it is durable", format!("n{node}: {id}"));
        }
        if !self.ledger.works.running.insert((node, id)) || self.ledger.works.begun.contains(&(node, id)) {
            self.breach("no run is begun twice", format!("n{node}: {id}"));
        }
        self.live_on(node, id, Moment::Begin, 5);
    }

    fn live_on(&mut self, node: usize, run: RunId, moment: Moment, within: u64) {
        let after = self.chance.between(0, within);
        let epoch = self.nodes[node].epoch;
        self.schedule(after, Event::Run { node, epoch, run, moment });
    }

    fn again(&mut self, node: usize, event: impl FnOnce(u64) -> Event) {
        let event = event(self.nodes[node].epoch);
        self.schedule(RETRY, event);
    }

    /// As the keeper of runs does: written down, then started; ended where its events are, then told to the engine.
    pub(crate) fn run_moment(&mut self, node: usize, run: RunId, moment: Moment) {
        let is_writable = self.nodes[node].disk.condition == Condition::Fine;
        if !is_writable && moment != Moment::Told {
            return self.again(node, |epoch| Event::Run { node, epoch, run, moment });
        }
        match moment {
            Moment::Begin => {
                self.nodes[node].shelf.entry(run).or_default();
                self.ledger.works.begun.insert((node, run));
                self.log(format!("n{node} begins {run}"));
                let is_bad = self.chance.happens(200);
                self.live_on(node, run, Moment::End(is_bad), 2_500);
            }
            Moment::End(is_error) => self.end_run(node, run, is_error),
            Moment::Left => self.end_run(node, run, true),
            Moment::Told => self.mail(node, Mail::Request(Request::EndRun { run }, Purpose::EndRun(run))),
        }
    }

    fn end_run(&mut self, node: usize, run: RunId, is_error: bool) {
        let kept = self.nodes[node].shelf.entry(run).or_default();
        // A cancelled one ends once, and so does one whose end was not told before a crash.
        if kept.ended.is_none() {
            kept.ended = Some(is_error);
            self.log(format!("n{node} ends {run}"));
        }
        self.ledger.works.running.remove(&(node, run));
        self.live_on(node, run, Moment::Told, 20);
    }

    /// One that ended in the same batch, after the cancel in it, went on when it was cancelled.
    pub(crate) fn cancel_run(&mut self, node: usize, run: RunId, turn: &Turn) {
        let is_open = self.nodes[node].disk.facts.runs.contains_key(&run);
        if !is_open && !turn.effects.batch.records.contains(&Record::RunClosed(run)) {
            self.breach("nothing is cancelled but what goes on", format!("n{node}: {run}"));
        }
        self.ledger.works.cancelled += 1;
        if self.ledger.works.begun.contains(&(node, run)) {
            self.live_on(node, run, Moment::End(true), 50);
        }
    }

    /// The workload is told, and what became of it goes on record.
    pub(crate) fn perform_deed(&mut self, node: usize, deed: Box<Deed>) {
        let key = (node, deed.key.clone());
        let told = self.ledger.works.told.entry(key.clone()).or_default();
        *told += 1;
        if *told > self.ledger.works.accepted.get(&key).copied().unwrap_or_default() {
            self.breach("no deed is done twice", format!("n{node}: {} {}", deed.command, deed.key.request_id));
        }
        if !self.nodes[node].disk.facts.deeds.contains_key(&deed.key) {
            self.breach("no deed is done before it is durable", format!("n{node}: {}", deed.key.request_id));
        }
        self.ledger.works.deeds += 1;
        let after = self.chance.between(1, 800);
        let epoch = self.nodes[node].epoch;
        self.schedule(after, Event::Deed { node, epoch, deed });
    }

    pub(crate) fn conclude_deed(&mut self, node: usize, deed: Box<Deed>) {
        let Some(live) = self.nodes[node].live.as_mut() else { return };
        live.names += 1;
        let purpose = Purpose::Deed(live.names);
        live.deeds.insert(live.names, deed.clone());
        let result = Ok("running".to_owned());
        let request = Request::ConcludeDeed { deed, result };
        // Whoever did not hear the answer says it again.
        if self.chance.happens(150) {
            self.mail(node, Mail::Request(request.clone(), Purpose::Admin));
        }
        self.mail(node, Mail::Request(request, purpose));
    }

    /// The engine's answer to what was told of work; none where the batch was not durable.
    pub(crate) fn take_work_reply(&mut self, node: usize, purpose: Purpose, answer: Option<&Answer>) {
        let is_recorded = answer == Some(&Answer::Recorded);
        match (purpose, answer) {
            (Purpose::EndRun(run), _) if !is_recorded => {
                self.again(node, |epoch| Event::Run { node, epoch, run, moment: Moment::Told });
            }
            (Purpose::EndRun(run), _) => {
                self.ledger.works.closed += 1;
                if self.nodes[node].shelf.get(&run).is_none_or(|kept| kept.ended.is_none()) {
                    self.breach("the engine forgets no run before its end is durable", format!("n{node}: {run}"));
                }
            }
            (Purpose::Deed(name), _) => {
                let deed = self.nodes[node].live.as_mut().and_then(|live| live.deeds.remove(&name));
                if let (false, Some(deed)) = (is_recorded, deed) {
                    self.again(node, |epoch| Event::Deed { node, epoch, deed });
                }
            }
            (Purpose::Agent, Some(Answer::RunAccepted(run))) => {
                self.ledger.works.acknowledged.insert((node, *run));
            }
            (
                Purpose::Admin | Purpose::Agent | Purpose::Begin(_) | Purpose::Conclude(_) | Purpose::Witness { .. },
                _,
            ) => {}
        }
    }

    /// What the engine had accepted when the node died, and what it still takes to be open in its next life.
    pub(crate) fn works_crashed(&mut self, node: usize) {
        let works = &mut self.ledger.works;
        let of_node: Vec<_> = works.running.iter().filter(|(of, _)| *of == node).copied().collect();
        for run in of_node {
            works.running.remove(&run);
            works.interrupted.insert(run);
        }
    }

    pub(crate) fn works_started(&mut self, node: usize, turn: &Turn) {
        let is_work = |effect: &Effect| matches!(effect, Effect::Perform(_) | Effect::StartRun(_));
        if let Some(effect) = turn.effects.after.iter().find(|effect| is_work(effect)) {
            self.breach("a start repeats nothing by itself", format!("n{node}: {effect:?}"));
        }
        let Some(live) = self.nodes[node].live.as_ref() else { return };
        let left: Vec<RunId> = live.engine.view().runs.keys().copied().collect();
        left.into_iter().for_each(|run| self.live_on(node, run, Moment::Left, 100));
        self.check_starts(node);
    }

    /// The records of work in a batch that has become durable, in their order.
    pub(crate) fn check_work(&mut self, node: usize, before: &Facts, turn: &Turn) {
        let records = &turn.effects.batch.records;
        let mut open: BTreeSet<RunId> = before.runs.keys().copied().collect();
        for record in records {
            match record {
                Record::Run(run) => drop(open.insert(run.run)),
                Record::RunClosed(run) => self.check_closed_run(node, *run, open.remove(run), turn),
                Record::Receipt(receipt) => self.check_work_receipt(node, receipt, &open, turn),
                Record::Boot { .. }
                | Record::ClockMark { .. }
                | Record::Countersigned(_)
                | Record::CountersignedForgotten { .. }
                | Record::Deed(_)
                | Record::DeedClosed(_)
                | Record::DroppedUntil { .. }
                | Record::Head { .. }
                | Record::HeadForgotten { .. }
                | Record::Intent(_)
                | Record::IntentClosed(_)
                | Record::Overlay(_)
                | Record::Peer(_)
                | Record::PeerForgotten { .. }
                | Record::ReceiptDropped(_) => {}
            }
        }
        self.check_starts(node);
    }

    fn check_work_receipt(&mut self, node: usize, receipt: &Receipt, open: &BTreeSet<RunId>, turn: &Turn) {
        let key = (node, receipt.key.clone());
        match &receipt.response {
            Response::Started { run } => self.check_started_run(node, receipt, *run, &turn.effects.batch.records),
            Response::Commanded { .. } => *self.ledger.works.accepted.entry(key).or_default() += 1,
            Response::Cancelling { run } => {
                if !open.contains(run) {
                    self.breach(
                        "nobody is told that a run is cancelled which does not go on",
                        format!("n{node}: {run}"),
                    );
                }
                if !turn.effects.after.contains(&Effect::CancelRun(*run)) {
                    self.breach("a cancel that is answered is carried out", format!("n{node}: {run}"));
                }
            }
            Response::Applied { .. } | Response::Pong | Response::Status(_) => {}
        }
    }

    /// The end of a run closes that run, whose end is kept where its events are, and no other.
    fn check_closed_run(&mut self, node: usize, run: RunId, was_open: bool, turn: &Turn) {
        if !was_open {
            self.breach("only a run that is open is closed", format!("n{node}: {run}"));
        }
        if self.nodes[node].shelf.get(&run).is_none_or(|kept| kept.ended.is_none()) {
            self.breach("no run is closed before its end is durable", format!("n{node}: {run}"));
        }
        if !turn.replies.values().any(|purpose| *purpose == Purpose::EndRun(run)) {
            self.breach("the end of one run closes no other", format!("n{node}: {run}"));
        }
    }

    fn check_started_run(&mut self, node: usize, receipt: &Receipt, run: RunId, records: &[Record]) {
        let opened = records.iter().filter(|it| matches!(it, Record::Run(open) if open.run == run)).count();
        if opened != 1 {
            let detail = format!("n{node}: {} opens {opened}", receipt.key.request_id);
            self.breach("a run and the receipt that names it are one transaction", detail);
        }
        let before = self.ledger.works.of_request.insert((node, receipt.key.clone()), run);
        if before.is_some_and(|before| before != run) {
            let detail = format!("n{node}: {} brought {before:?} and {run}", receipt.key.request_id);
            self.breach("one run for each request", detail);
        }
    }

    /// Open at the engine, or kept where its events are.
    fn check_starts(&mut self, node: usize) {
        let it = &self.nodes[node];
        let is_there = |run: &RunId| it.disk.facts.runs.contains_key(run) || it.shelf.contains_key(run);
        let mut starts = self.ledger.works.acknowledged.iter().filter(|(of, _)| *of == node);
        if let Some((_, run)) = starts.find(|(_, run)| !is_there(run)) {
            let detail = format!("n{node} lost {run}");
            self.breach("an acknowledged start is never lost", detail);
        }
    }

    /// What a caller was told of a command: the run that it names is at the target.
    pub(crate) fn check_told_run(&mut self, target: usize, ruling: &Ruling) {
        let Ruling::Done(Response::Started { run }) = ruling else { return };
        self.ledger.works.acknowledged.insert((target, *run));
        self.check_starts(target);
    }

    /// In the calm nothing is open any more, and everything has the end that it should have.
    pub(crate) fn check_works_settled(&mut self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let open: Vec<_> = node.disk.facts.runs.keys().map(ToString::to_string).collect();
            let deeds: Vec<_> = node.disk.facts.deeds.keys().map(|key| key.request_id.to_string()).collect();
            if !open.is_empty() || !deeds.is_empty() {
                let detail = format!("n{index}: {open:?} {deeds:?}");
                return self.breach("every run and every deed is closed in the end", detail);
            }
        }
        let ended = |(node, run): &(usize, RunId)| self.nodes[*node].shelf.get(run).and_then(|kept| kept.ended);
        let works = &self.ledger.works;
        let without_end = works.acknowledged.iter().find(|it| ended(it).is_none()).copied();
        let completed = works.interrupted.iter().find(|it| ended(it) == Some(false)).copied();
        if let Some((node, run)) = without_end {
            self.breach("a run that was told of is kept, with an end", format!("n{node}: {run}"));
        } else if let Some((node, run)) = completed {
            self.breach("a run that was active at a crash ends errored", format!("n{node}: {run}"));
        }
        self.check_deeds_concluded();
    }

    /// A deed that was accepted has one word on record about what became of it.
    fn check_deeds_concluded(&mut self) {
        for ((node, key), accepted) in &self.ledger.works.accepted {
            let entries = self.nodes[*node].disk.entries.iter().map(|entry| &entry.draft);
            let own = entries.filter(|it| {
                it.request_id.as_ref() == Some(&key.request_id)
                    && it.actor == key.actor.to_string()
                    && it.target == self.nodes[*node].id
                    && ["cmd_invoke/restart", "cmd_invoke/pause"].contains(&it.action.as_str())
            });
            let words = own.filter(|it| it.detail == "running" || it.outcome == Outcome::Unknown).count();
            if u64::try_from(words).unwrap_or(0) != *accepted {
                let detail = format!("n{node}: {} accepted {accepted}, concluded {words}", key.request_id);
                return self.breach("a deed is concluded once on record", detail);
            }
        }
    }
}
