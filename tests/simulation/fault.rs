//! The generated schedule: what callers ask, what breaks, what is repaired, and the calm after it.

use std::collections::BTreeMap;

use trust_runtime::domain::action::Action;
use trust_runtime::domain::config::Value;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::engine::input::{Request, Write};
use trust_runtime::engine::view::ClockState;

use crate::disk::Condition;
use crate::network::Weather;
use crate::node::{asker, runtime};
use crate::turn::{Mail, Purpose};
use crate::world::{Event, World};

const HOUR_MS: i64 = 3_600_000;

/// The schedule's own memory.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Faults and callers stop here.
    pub(crate) storm_ends: u64,
    pub(crate) written: u64,
    /// What was asked where, to be asked again.
    pub(crate) asked: Vec<(usize, Write)>,
}

impl World {
    /// Begins a storm of faults, callers and attacks.
    pub(crate) fn begin_storm(&mut self, millis: u64) {
        self.plan.storm_ends = self.now + millis;
        let chance = &mut self.chance;
        self.network.weather = Weather {
            lost: chance.below(150),
            repeated: chance.below(120),
            bent: chance.below(30),
            slow: chance.below(120),
        };
        self.attacker.replays_words = chance.happens(500);
        self.schedule(900, Event::Client);
        self.schedule(2_000, Event::Fault);
        self.schedule(1_500, Event::Attack);
        for node in 0..self.nodes.len() {
            self.approve_all(node);
        }
    }

    pub(crate) fn is_stormy(&self) -> bool {
        self.now < self.plan.storm_ends
    }

    /// A caller somewhere asks for something.
    pub(crate) fn client(&mut self) {
        if !self.is_stormy() {
            return;
        }
        let after = self.chance.between(100, 900);
        self.schedule(after, Event::Client);
        let origin = self.chance.index(self.nodes.len());
        let kind = self.chance.below(100);
        let budget = self.chance.between(200, 2_500);
        let known = self.plan.asked.len();
        if kind < 25 && known > 0 {
            let place = self.chance.index(known);
            let (origin, mut write) = self.plan.asked[place].clone();
            if kind < 5 {
                write.action = self.action();
            }
            self.ask(origin, write, budget);
            return;
        }
        if kind < 35 {
            return self.start_agent(origin);
        }
        let write = self.new_write(origin);
        if !write.action.kind().is_read() {
            self.plan.asked.push((origin, write.clone()));
        }
        self.ask(origin, write, budget);
    }

    fn new_write(&mut self, origin: usize) -> Write {
        self.plan.written += 1;
        let is_bad = self.chance.happens(60);
        let action = if is_bad { log_level("loud") } else { self.action() };
        let place = self.place_of(&action);
        let request_id = format!("{}{}", if is_bad { "bad-" } else { "r-" }, self.plan.written);
        let people = ["alice", "alice", "alice", "bob", "eve", "victor"];
        let person = people[self.chance.index(people.len())];
        let mut targets = Vec::new();
        for index in 0..self.nodes.len() {
            let share = if index == origin { 150 } else { 500 };
            if self.chance.happens(share) {
                targets.push(runtime(index));
            }
        }
        if let Some(place) = place {
            targets = vec![runtime(place)];
        } else if targets.is_empty() {
            targets.push(runtime((origin + 1) % self.nodes.len()));
        }
        Write { asker: asker(person), request_id: request_id.parse().expect("legal"), action, targets }
    }

    fn action(&mut self) -> Action {
        let levels = ["trace", "debug", "info", "warn", "error"];
        match self.chance.below(11) {
            0..5 => log_level(levels[self.chance.index(levels.len())]),
            5 => timing(self.chance.between(4_000, 6_000)),
            6 => Action::ping(),
            7 | 8 => self.command(),
            _ => Action::StatusRead,
        }
    }

    /// Something breaks or is repaired.
    pub(crate) fn fault(&mut self) {
        if !self.is_stormy() {
            return;
        }
        let after = self.chance.between(150, 2_200);
        self.schedule(after, Event::Fault);
        let node = self.chance.index(self.nodes.len());
        let other = self.chance.index(self.nodes.len());
        match self.chance.below(100) {
            0..14 => self.crash_and_restart(node),
            14..28 => self.cut(node, other),
            28..44 => self.mend(node, other),
            44..50 => self.freeze(node),
            50..62 => (0..self.nodes.len()).for_each(|node| self.resume(node)),
            62..68 => self.set_disk(node, Condition::Full),
            68..71 => self.set_disk(node, Condition::Broken),
            71..80 => self.repair_disks(),
            80..86 => self.jump_clock(node),
            86..90 => self.set_wall(node, 0),
            90..93 => self.forget(node, other),
            93..97 => self.approve_all(node),
            97..99 => {
                self.nodes[node].policy = self.chance.index(3);
                self.crash_and_restart(node);
            }
            _ => self.admin(node, Request::TimeReset { asker: asker("admin") }),
        }
    }

    /// A crash in the middle of a turn, which a random moment would seldom meet.
    pub(crate) fn may_crash_here(&mut self, node: usize) -> bool {
        let crashes = self.is_stormy() && self.chance.happens(15);
        if crashes {
            self.crash_and_restart(node);
        }
        crashes
    }

    pub(crate) fn crash_and_restart(&mut self, node: usize) {
        self.crash(node);
        let disk = &mut self.nodes[node].disk;
        // A restart finds a disk that was broken replaced or working again.
        if disk.condition == Condition::Broken {
            disk.condition = Condition::Fine;
        }
        let after = self.chance.between(100, 6_000);
        self.schedule(after, Event::Start { node });
    }

    pub(crate) fn set_disk(&mut self, node: usize, condition: Condition) {
        self.log(format!("n{node} disk {condition:?}"));
        self.nodes[node].disk.condition = condition;
    }

    fn repair_disks(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].disk.condition == Condition::Full {
                self.set_disk(node, Condition::Fine);
            }
        }
    }

    fn jump_clock(&mut self, node: usize) {
        let choices = [25 * HOUR_MS, 72 * HOUR_MS, 2 * HOUR_MS, -HOUR_MS, -30 * HOUR_MS, 400, -400, 20_000, -20_000];
        let jump = choices[self.chance.index(choices.len())];
        self.set_wall(node, jump);
    }

    pub(crate) fn set_wall(&mut self, node: usize, fault_ms: i64) {
        self.log(format!("n{node} wall clock off by {fault_ms} ms"));
        self.nodes[node].wall_fault_ms = fault_ms;
        self.ledger.was_off[node] |= fault_ms != 0;
    }

    fn forget(&mut self, node: usize, other: usize) {
        // Outside `dev` a forgotten peer never comes back by itself.
        if node != other && self.setup.profile == Profile::Dev {
            self.admin(node, Request::PeersForget { asker: asker("admin"), runtime: runtime(other) });
        }
    }

    pub(crate) fn approve_all(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let fingerprint = Some(self.truth.identities[other]);
            self.admin(node, Request::PeersApprove { asker: asker("admin"), runtime: runtime(other), fingerprint });
        }
    }

    pub(crate) fn admin(&mut self, node: usize, request: Request) {
        self.mail(node, Mail::Request(request, Purpose::Admin));
    }

    /// Ends every fault. What only a restart can heal is restarted.
    pub(crate) fn heal(&mut self) {
        self.plan.storm_ends = self.now;
        self.network.weather = Weather::default();
        for node in 0..self.nodes.len() {
            for other in 0..node {
                self.mend(node, other);
            }
            self.resume(node);
            self.set_wall(node, 0);
            if self.nodes[node].disk.condition == Condition::Broken {
                self.crash(node);
            }
            self.nodes[node].disk.condition = Condition::Fine;
            self.start(node);
        }
        self.run(1_000);
        for node in 0..self.nodes.len() {
            if self.nodes[node].live.as_ref().is_some_and(|live| live.engine.view().clock == ClockState::Uncertain) {
                self.admin(node, Request::TimeReset { asker: asker("admin") });
            }
        }
    }
}

pub(crate) fn log_level(level: &str) -> Action {
    let values = BTreeMap::from([("log.level".to_owned(), Value::Text(level.to_owned()))]);
    Action::cfg_apply(values).expect("one setting")
}

fn timing(partition_ms: u64) -> Action {
    let value = Value::Int(i64::try_from(partition_ms).expect("small"));
    Action::cfg_apply(BTreeMap::from([("mesh.timing.partition_ms".to_owned(), value)])).expect("one setting")
}
