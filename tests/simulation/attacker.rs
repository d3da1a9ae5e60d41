//! Somebody on the wire: sends captured packets again, signs with a key of their own, and grafts payloads.

use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::envelope::Envelope;
use trust_runtime::domain::envelope::Health;
use trust_runtime::domain::envelope::dsse::PayloadType;
use trust_runtime::domain::identity::{IdentityKey, Role};
use trust_runtime::domain::time::Millis;
use trust_runtime::engine::exchange::Question;
use trust_runtime::engine::word::Observation;
use trust_runtime::wire::mesh::{self as wire, Keys};

use crate::fault::log_level;
use crate::network::{Body, Packet};
use crate::node::{asker, runtime, true_wall};
use crate::world::{Event, World};

#[derive(Debug)]
pub(crate) struct Attacker {
    identity: IdentityKey,
    forged: u64,
    replayed: u64,
    pub(crate) replays_words: bool,
}

impl Attacker {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { identity: IdentityKey::from_seed(seed), forged: 0, replayed: 0, replays_words: false }
    }
}

impl World {
    pub(crate) fn attack(&mut self) {
        if !self.is_stormy() {
            return;
        }
        let after = self.chance.between(100, 1_500);
        self.schedule(after, Event::Attack);
        let victim = self.chance.index(self.nodes.len());
        let target = self.chance.index(self.nodes.len());
        match self.chance.below(10) {
            0..6 => self.replay(target),
            6 | 7 => self.forge_write(victim, target),
            8 => self.forge_word(victim, target),
            _ => self.graft(target),
        }
    }

    /// Sends an old packet again, mostly where it was going.
    fn replay(&mut self, elsewhere: usize) {
        let captured = &self.network.captured;
        if captured.is_empty() {
            return;
        }
        let place = self.chance.index(captured.len());
        // Most packets are words. Every third time it is a write, because that is what a copy is kept of.
        self.attacker.replayed += 1;
        let is_act = |packet: &&Packet| packet.body.name() == "act";
        let acts: Vec<_> = captured.iter().filter(is_act).collect();
        let write = self.attacker.replayed.is_multiple_of(3).then(|| acts.get(place % acts.len().max(1))).flatten();
        let mut packet = (*write.unwrap_or(&&captured[place])).clone();
        if self.chance.happens(200) {
            packet.to = elsewhere;
        }
        match &mut packet.body {
            Body::Query { ticket, .. } => *ticket = None,
            Body::Word { .. } if !self.attacker.replays_words => return,
            Body::Answer { ticket, answer } if answer.is_ok() => {
                // An old receipt for whatever this origin waits for now.
                let Some(open) = self.open_ticket(packet.to) else { return };
                *ticket = open;
            }
            // A bare refusal carries no signature: whoever can forge it on the wire can also drop the question.
            Body::Answer { .. } => return,
            Body::Echo { .. }
            | Body::FetchIdentity
            | Body::Head { .. }
            | Body::Probe { .. }
            | Body::Token { .. }
            | Body::WitnessWord { .. }
            | Body::Word { .. } => {}
        }
        self.log(format!("attacker replays {} to n{}", packet.body.name(), packet.to));
        self.schedule(1, Event::Arrive(packet));
    }

    fn open_ticket(&self, origin: usize) -> Option<crate::network::Ticket> {
        let node = self.nodes.get(origin)?;
        let (number, dispatch) = node.live.as_ref()?.dispatches.first_key_value()?;
        dispatch.open_ticket(origin, node.epoch, *number)
    }

    /// Whether a forgery in this victim's name meets a pin, now and without anything in between. On first use the first
    /// key wins by design, so that a forgery there proves nothing.
    fn meets_a_pin(&self, victim: usize, target: usize) -> bool {
        let node = &self.nodes[target];
        let is_idle = node.live.as_ref().is_some_and(|live| live.turn.is_none() && live.inbox.is_empty());
        victim != target && is_idle && !node.is_frozen && node.disk.facts.peers.contains_key(&runtime(victim))
    }

    fn stolen_name(&mut self, victim: usize) -> Keys {
        let now = true_wall(self.now);
        let key = IdentityKey::from_seed(self.chance.bytes());
        wire::delegate(
            &self.attacker.identity,
            key,
            &runtime(victim),
            now.minus(Millis(60_000)),
            now.plus(Millis(60_000)),
        )
    }

    pub(crate) fn forge_write(&mut self, victim: usize, target: usize) {
        if !self.meets_a_pin(victim, target) {
            return;
        }
        let keys = self.stolen_name(victim);
        self.attacker.forged += 1;
        let now = true_wall(self.now);
        let alice = asker("alice");
        let known = self.plan.asked.last().map(|(_, write)| (write.request_id.clone(), write.action.clone()));
        let new = (format!("evil-{}", self.attacker.forged).parse().expect("legal"), log_level("trace"));
        let (request_id, action) = known.filter(|_| self.chance.happens(500)).unwrap_or(new);
        let envelope = Envelope {
            target: runtime(target),
            target_key: self.truth.identities[target],
            target_boot: Some(self.ledger.boots[target]),
            origin: runtime(victim),
            actor: alice.actor,
            role: Role::Admin,
            actor_verified: true,
            request_id,
            expires: now.plus(action.kind().window()),
            action,
            issued: now,
            boot: 1_000,
            sequence: self.attacker.forged,
            policy_hash: Hash([0; 32]),
        };
        let (bytes, _) = wire::seal_envelope(&keys, &envelope);
        let question = if self.chance.happens(500) { Question::Act } else { Question::Outcome };
        self.log(format!("attacker forges {} as n{victim}", envelope.request_id));
        let body = Body::Query { question, claimed: runtime(victim), bytes, ticket: None };
        self.arrive(Packet { from: victim, to: target, body });
    }

    pub(crate) fn forge_word(&mut self, victim: usize, target: usize) {
        if !self.meets_a_pin(victim, target) {
            return;
        }
        let keys = self.stolen_name(victim);
        let observation = Observation {
            runtime: runtime(victim),
            boot: 1_000,
            sequence: 1_000_000,
            at: true_wall(self.now),
            health: Health::Healthy,
            config_revision: 0,
            runs_head: None,
            edges: None,
            is_leaving: self.chance.happens(500),
        };
        let bytes = wire::seal_observation(&keys, &observation);
        let body = Body::Word { about: runtime(victim), document: PayloadType::Observation, bytes };
        self.log(format!("attacker forges an observation of n{victim}"));
        self.arrive(Packet { from: victim, to: target, body });
    }

    /// One genuine message's signature and delegation over another one's payload.
    fn graft(&mut self, target: usize) {
        let words = self.network.captured.iter().filter_map(|packet| match &packet.body {
            Body::Word { about, document, bytes } => Some((about.clone(), *document, bytes.clone())),
            Body::Answer { .. }
            | Body::Echo { .. }
            | Body::FetchIdentity
            | Body::Head { .. }
            | Body::Probe { .. }
            | Body::Query { .. }
            | Body::Token { .. }
            | Body::WitnessWord { .. } => None,
        });
        let words: Vec<_> = words.collect();
        if words.len() < 2 {
            return;
        }
        let (about, document, onto) = words[self.chance.index(words.len())].clone();
        let (_, _, from) = words[self.chance.index(words.len())].clone();
        let parse = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
        let (Some(mut onto), Some(from)) = (parse(&onto), parse(&from)) else { return };
        if onto["payload"] == from["payload"] {
            return;
        }
        onto["payload"] = from["payload"].clone();
        let bytes = serde_json::to_vec(&onto).expect("a value has a text");
        self.log(format!("attacker grafts onto a word of {about}"));
        let to = target;
        self.schedule(1, Event::Arrive(Packet { from: to, to, body: Body::Word { about, document, bytes } }));
    }
}
