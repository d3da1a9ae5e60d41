//! Some engines, their clocks, disks and network, and one queue of what happens next.

use std::collections::{BTreeMap, VecDeque};

use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::identity::{IdentityKey, TrustState};
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::run::RunId;
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::engine::Engine;
use trust_runtime::engine::exchange::Question;
use trust_runtime::engine::input::Input;
use trust_runtime::engine::record::{Deed, Peer, Record};
use trust_runtime::wire::mesh as wire;

use crate::attacker::Attacker;
use crate::authority::{self, fingerprint};
use crate::chance::Chance;
use crate::disk::{Disk, Written};
use crate::fault::Plan;
use crate::invariant::{Ledger, Truth};
use crate::network::{Body, LEASE, Network, Packet, Ticket};
use crate::node::{Live, Node, Setup, runtime, settings};
use crate::turn::{Mail, Turn};
use crate::witness::ROUND;
use crate::work::Moment;

/// Rows of the log that a failure shows.
const LOG_ROWS: usize = 50;

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Arrive(Packet),
    AskNow { ticket: Ticket, question: Question, within: u64 },
    AskOver(Ticket),
    Attack,
    Client,
    Commit { node: usize, epoch: u64 },
    Deed { node: usize, epoch: u64, deed: Box<Deed> },
    Fault,
    LeaseOver { one: usize, other: usize },
    NoReply(Ticket),
    Period { node: usize, epoch: u64 },
    ProbeOver { node: usize, epoch: u64, nonce: String },
    Release { node: usize, epoch: u64 },
    Run { node: usize, epoch: u64, run: RunId, moment: Moment },
    ShowHeads { node: usize, epoch: u64 },
    Start { node: usize },
    Timer { node: usize, epoch: u64 },
}

impl Event {
    /// Which node in which life it belongs to; no epoch means any.
    fn owner(&self) -> Option<(usize, Option<u64>)> {
        match self {
            Self::Arrive(packet) => Some((packet.to, None)),
            Self::AskNow { ticket, .. } | Self::AskOver(ticket) | Self::NoReply(ticket) => {
                Some((ticket.origin, Some(ticket.epoch)))
            }
            Self::Commit { node, epoch }
            | Self::Deed { node, epoch, .. }
            | Self::Period { node, epoch }
            | Self::ProbeOver { node, epoch, .. }
            | Self::Release { node, epoch }
            | Self::Run { node, epoch, .. }
            | Self::ShowHeads { node, epoch }
            | Self::Timer { node, epoch } => Some((*node, Some(*epoch))),
            Self::Attack | Self::Client | Self::Fault | Self::LeaseOver { .. } | Self::Start { .. } => None,
        }
    }
}

/// What broke: the sentence that does not hold and what showed it.
#[derive(Debug, Clone)]
pub(crate) struct Breach {
    pub(crate) sentence: &'static str,
    pub(crate) detail: String,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) now: u64,
    pub(crate) chance: Chance,
    queue: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) truth: Truth,
    pub(crate) ledger: Ledger,
    pub(crate) plan: Plan,
    pub(crate) attacker: Attacker,
    /// Whether heads of logs are shown to witnesses.
    pub(crate) has_rounds: bool,
    pub(crate) log: VecDeque<String>,
    /// A running hash of every row ever logged: the trace's name.
    pub(crate) trace: Hash,
    pub(crate) steps: u64,
    pub(crate) breach: Option<Breach>,
}

impl World {
    pub(crate) fn new(setup: Setup, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let network = Network::new(chance.fork());
        let nodes: Vec<Node> = (0..setup.nodes).map(|index| node(&mut chance, index)).collect();
        let named = |(index, node): (usize, &Node)| fingerprint(setup.profile, index, &node.identity);
        let identities: Vec<_> = nodes.iter().enumerate().map(named).collect();
        let mut world = Self {
            setup,
            now: 0,
            attacker: Attacker::new(chance.bytes()),
            plan: Plan::default(),
            ledger: Ledger::new(setup.nodes),
            truth: Truth { identities, is_loopback: setup.is_loopback, profile: setup.profile },
            chance,
            queue: BTreeMap::new(),
            scheduled: 0,
            nodes,
            network,
            has_rounds: true,
            log: VecDeque::new(),
            trace: Hash([0; 32]),
            steps: 0,
            breach: None,
        };
        if setup.profile != Profile::Dev {
            world.seed_trust();
        }
        for node in 0..setup.nodes {
            let after = world.chance.below(700);
            world.schedule(after, Event::Start { node });
        }
        world
    }

    /// Outside `dev` nobody is pinned on first use: the anchors' peers stand on the disks from the beginning.
    fn seed_trust(&mut self) {
        for index in 0..self.setup.nodes {
            for (other, pinned) in self.truth.identities.clone().into_iter().enumerate().filter(|(it, _)| *it != index)
            {
                let peer = Peer { runtime: runtime(other), pinned, trust: TrustState::Trusted, boot: 0 };
                self.nodes[index].disk.facts.peers.insert(peer.runtime.clone(), peer);
            }
        }
    }

    pub(crate) fn schedule(&mut self, after: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + after, self.scheduled), event);
    }

    pub(crate) fn log(&mut self, row: String) {
        let row = format!("{:>7} {row}", self.now);
        self.trace = Hash::chain(self.trace, row.as_bytes());
        if self.log.len() >= LOG_ROWS {
            self.log.pop_front();
        }
        self.log.push_back(row);
    }

    /// Notes the first sentence that does not hold; the run ends there.
    pub(crate) fn breach(&mut self, sentence: &'static str, detail: String) {
        self.log(format!("BROKEN {sentence}: {detail}"));
        self.breach.get_or_insert(Breach { sentence, detail });
    }

    /// Runs for so long, or until something broke.
    pub(crate) fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.breach.is_none() && self.queue.keys().next().is_some_and(|(at, _)| *at <= end) {
            self.step();
        }
        self.now = self.now.max(end);
    }

    /// One event.
    pub(crate) fn step(&mut self) {
        let Some(((at, _), event)) = self.queue.pop_first() else { return };
        self.now = self.now.max(at);
        self.steps += 1;
        if let Some((node, epoch)) = event.owner() {
            let it = &mut self.nodes[node];
            if epoch.is_some_and(|epoch| epoch != it.epoch || it.live.is_none()) {
                return;
            }
            if it.is_frozen {
                it.held.push(event);
                return;
            }
        }
        self.perform(event);
    }

    fn perform(&mut self, event: Event) {
        match event {
            Event::Arrive(packet) => self.arrive(packet),
            Event::AskNow { ticket, question, within } => self.ask_now(ticket, question, within),
            Event::AskOver(ticket) => self.exchange_event(ticket, trust_runtime::engine::exchange::Event::Silence),
            Event::Attack => self.attack(),
            Event::Client => self.client(),
            Event::Commit { node, .. } | Event::Release { node, .. } if self.may_crash_here(node) => {}
            Event::Commit { node, .. } => self.commit(node),
            Event::Deed { node, deed, .. } => self.conclude_deed(node, deed),
            Event::Fault => self.fault(),
            Event::LeaseOver { one, other } => self.lease_over(one, other),
            Event::NoReply(ticket) => self.exchange_event(ticket, trust_runtime::engine::exchange::Event::NoReply),
            Event::Period { node, .. } => self.period(node),
            Event::ProbeOver { node, nonce, .. } => self.probe_over(node, &nonce),
            Event::Release { node, .. } => {
                self.release(node);
                self.kick(node);
            }
            Event::Run { node, run, moment, .. } => self.run_moment(node, run, moment),
            Event::ShowHeads { node, .. } => self.show_heads(node),
            Event::Start { node } => self.start(node),
            Event::Timer { node, .. } => self.tell(node, Input::Timer),
        }
    }

    /// A new life of the node, from nothing but its disk.
    pub(crate) fn start(&mut self, index: usize) {
        if self.nodes[index].live.is_some() {
            return;
        }
        self.find_what_was_written(index);
        let mut chance = self.chance.fork();
        let settings = settings(self.setup, index, self.nodes[index].policy);
        let world_ms = self.now;
        let node = &mut self.nodes[index];
        let now = node.now(world_ms);
        let identity = fingerprint(self.setup.profile, index, &node.identity);
        let records: Vec<Record> = node.disk.recall();
        let (engine, effects) = Engine::start(settings, identity, records, now, &mut chance).expect("no removal");
        let turn = Turn { effects, ..Default::default() };
        let before = node.disk.facts.clone();
        if let Err(condition) = node.disk.commit(&turn.effects.batch) {
            self.log(format!("n{index} cannot start: {condition:?}"));
            self.schedule(1_000, Event::Start { node: index });
            return;
        }
        node.epoch += 1;
        let epoch = node.epoch;
        let keys = delegate(self.setup.profile, node, index, now.wall, &mut chance);
        let view = engine.view();
        let boot = view.boot;
        node.live = Some(Live {
            engine,
            view,
            keys,
            entropy: chance,
            booted_at: world_ms,
            shown: BTreeMap::new(),
            asked: BTreeMap::new(),
            inbox: VecDeque::new(),
            turn: None,
            deeds: BTreeMap::new(),
            dispatches: BTreeMap::new(),
            probes: BTreeMap::new(),
            observations: 0,
            envelopes: 0,
            names: 0,
            timer_at: None,
            said: None,
            said_edges: Vec::new(),
        });
        self.log(format!("n{index} starts boot {boot}"));
        self.check_started(index, &before, &turn);
        self.works_started(index, &turn);
        self.announce(index, boot);
        self.schedule(0, Event::Period { node: index, epoch });
        // Not all at once, and not by chance, so that a world without rounds is the same one.
        let after = ROUND / 4 * (1 + u64::try_from(index).unwrap_or(0) % 4);
        self.schedule(after, Event::ShowHeads { node: index, epoch });
        self.reach_changed();
    }

    /// What a commit wrote that was said to have failed.
    fn find_what_was_written(&mut self, index: usize) {
        let disk = &mut self.nodes[index].disk;
        disk.has_failed = false;
        let Some(written) = disk.written.take() else { return };
        let before = disk.facts.clone();
        if let Err(condition) = disk.commit(&written.effects.batch) {
            self.log(format!("n{index} finds nothing: {condition:?}"));
            return;
        }
        self.log(format!("n{index} finds what was said to have failed"));
        let Written { effects, replies, allowances, at } = *written;
        // None of its effects came about. A run whose cancel stood in it is ended all the same: by the start, with every other.
        let found = Turn { effects, replies, allowances, written: Some(at), ..Turn::default() };
        self.check_committed(index, &before, &found);
    }

    /// The new token shows at the others, and theirs here.
    fn announce(&mut self, index: usize, boot: u64) {
        for other in 0..self.nodes.len() {
            let Some(live) = self.nodes[other].live.as_ref().filter(|_| other != index) else { continue };
            let their_boot = live.view.boot;
            let body = |about: usize, boot| Body::Token { about: runtime(about), boot, is_there: true };
            self.post(index, other, body(index, boot));
            self.post(other, index, body(other, their_boot));
        }
    }

    pub(crate) fn crash(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.is_frozen = false;
        node.held.clear();
        let Some(live) = node.live.take() else { return };
        node.disk.crash();
        node.epoch += 1;
        self.ledger.stopped_at[index] = self.now;
        self.log(format!("n{index} crashes"));
        self.works_crashed(index);
        for other in (0..self.nodes.len()).filter(|other| *other != index) {
            let body = Body::Token { about: runtime(index), boot: live.view.boot, is_there: false };
            self.post(index, other, body);
        }
        self.reach_changed();
    }

    pub(crate) fn cut(&mut self, one: usize, other: usize) {
        if one != other && self.network.cuts.insert((one.min(other), one.max(other))) {
            self.log(format!("cut n{one} n{other}"));
            self.schedule(LEASE, Event::LeaseOver { one, other });
            self.reach_changed();
        }
    }

    pub(crate) fn mend(&mut self, one: usize, other: usize) {
        if !self.network.cuts.remove(&(one.min(other), one.max(other))) {
            return;
        }
        self.log(format!("mended n{one} n{other}"));
        for (about, to) in [(one, other), (other, one)] {
            if let Some(live) = self.nodes[about].live.as_ref() {
                let body = Body::Token { about: runtime(about), boot: live.view.boot, is_there: true };
                self.post(about, to, body);
            }
        }
        self.reach_changed();
    }

    fn lease_over(&mut self, one: usize, other: usize) {
        if !self.network.is_cut(one, other) {
            return;
        }
        for (about, to) in [(one, other), (other, one)] {
            let boot = self.nodes[about].live.as_ref().map_or(0, |live| live.view.boot);
            self.tell(to, Input::TokenGone { runtime: runtime(about), boot });
        }
    }

    pub(crate) fn freeze(&mut self, index: usize) {
        if self.nodes[index].is_running() {
            self.nodes[index].is_frozen = true;
            self.ledger.stopped_at[index] = self.now;
            self.log(format!("n{index} freezes"));
            self.reach_changed();
        }
    }

    pub(crate) fn resume(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.is_frozen {
            return;
        }
        node.is_frozen = false;
        let held = std::mem::take(&mut node.held);
        self.log(format!("n{index} resumes with {} held events", held.len()));
        held.into_iter().for_each(|event| self.schedule(0, event));
        // What waited in its buffers is heard now, however old it is.
        self.ledger.resumed(index, self.now);
        self.reach_changed();
    }

    /// Puts an input into the node's mailbox.
    pub(crate) fn tell(&mut self, node: usize, input: Input) {
        self.mail(node, Mail::Input(Box::new(input)));
    }

    pub(crate) fn mail(&mut self, node: usize, mail: Mail) {
        if let Some(live) = self.nodes[node].live.as_mut() {
            live.inbox.push_back(mail);
            self.kick(node);
        }
    }

    /// Gives a packet to the network.
    pub(crate) fn post(&mut self, from: usize, to: usize, body: Body) {
        if self.network.is_cut(from, to) {
            return;
        }
        let mut packet = Packet { from, to, body };
        for after in self.network.carry(&mut packet) {
            self.schedule(after, Event::Arrive(packet.clone()));
        }
    }
}

/// A new envelope key and a day's delegation for it.
pub(crate) fn delegate(profile: Profile, node: &Node, index: usize, now: Wall, chance: &mut Chance) -> wire::Keys {
    let envelope = IdentityKey::from_seed(chance.bytes());
    authority::delegate(profile, node, index, envelope, now, now.plus(Millis::from_hours(24)))
}

fn node(chance: &mut Chance, index: usize) -> Node {
    Node {
        id: runtime(index),
        identity: IdentityKey::from_seed(chance.bytes()),
        disk: Disk::empty(),
        shelf: BTreeMap::new(),
        live: None,
        epoch: 0,
        wall_fault_ms: 0,
        is_frozen: false,
        held: Vec::new(),
        policy: 0,
    }
}
