//! Peers and links: what verified words change, and the transitions that the timeline tells.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::domain::audit::Hash;
use crate::domain::code::Code;
use crate::domain::envelope::SKEW;
use crate::domain::id::RuntimeId;
use crate::domain::identity::TrustState;
use crate::domain::preflight::Profile;
use crate::domain::projection::{Lifecycle, Link, Presence};
use crate::domain::time::{Now, Wall};
use crate::engine::effect::Effects;
use crate::engine::record::{self, Record};
use crate::engine::skew::Skew;
use crate::engine::view::{Category, Peer, RetiredKey, Severity};
use crate::engine::word::{Echo, Identity, Observation, Signer, Word};
use crate::engine::{Engine, Happening, NEVER};

/// Most peers that are remembered (DESIGN, *Scale*): further ones are refused and counted.
const PEERS_MAX: usize = 2_000;

/// Most of one other site: its authority can make as many names as it likes.
const GUESTS_PER_SITE_MAX: usize = 250;

/// Most of all other sites together, so that those of the own site always find room.
const GUESTS_MAX: usize = 1_000;

/// Most that nothing but a first contact vouches for: a stranger in `dev` makes as many as he likes, and those whom a person
/// has approved or a certificate proves find room beside them.
const UNPROVEN_MAX: usize = 500;

/// Most impostors that are told one by one: more are only counted, because a flood of rows tells nobody anything.
const IMPOSTORS_MAX: usize = 100;

/// Most edges taken from one peer: it is linked with at most so many others.
const EDGES_OF_PEER_MAX: usize = 256;

impl Engine {
    /// A token says that a boot is present. Alone it proves nothing, so it only clears what a token took away.
    pub(super) fn token_appeared(&mut self, runtime: &RuntimeId, boot: u64) {
        match self.peer_mut(runtime).map(|peer| (boot.cmp(&peer.boot), peer)) {
            Some((Ordering::Equal, peer)) => {
                peer.presence.token_gone = None;
                self.change();
            }
            Some((Ordering::Less, _)) => {}
            Some((Ordering::Greater, _)) | None => self.count_refused("token_without_identity"),
        }
    }

    /// Nobody holds the token any more: a copy that a stranger takes back is not told (tests/interop). One that a stranger
    /// keeps only hides a death until the silence shows it.
    pub(super) fn token_gone(&mut self, now: Now, runtime: &RuntimeId, boot: u64) {
        if let Some(peer) = self.peer_mut(runtime).filter(|peer| peer.boot == boot) {
            peer.presence.token_gone = Some(now.monotonic);
            self.change();
        }
    }

    /// Takes in a word whose signature holds. What is refused changes nothing and is counted.
    pub(super) fn hear(&mut self, now: Now, signer: &Signer, word: Word, effects: &mut Effects) {
        if signer.runtime() == self.me() {
            self.meet_own_name(now, signer, &word);
            return;
        }
        let boot = boot_of(&word);
        let before = self.delegation_of(signer.runtime());
        if let Err(reason) = self.admit(now, signer, boot, effects) {
            self.count_refused(reason);
            return;
        }
        let is_fresh = is_fresh(&word, now);
        let is_new = match word {
            Word::Echo(echo) => self.take_echo(now, signer.runtime(), echo),
            Word::Identity(identity) => self.take_identity(now, signer.runtime(), identity),
            Word::Observation(observation) => self.take_observation(now, signer.runtime(), observation),
        };
        match self.peer_mut(signer.runtime()) {
            Some(peer) if is_new => {
                if is_fresh {
                    if !peer.presence.left {
                        peer.presence.hear(now.monotonic);
                    }
                    peer.heard_at = Some(now.wall);
                }
                take_signer(now, peer, signer, before);
                self.change();
            }
            Some(_) | None => self.count_refused("repeated_word"),
        }
    }

    /// Under which delegation a peer speaks, and in which boot.
    fn delegation_of(&self, runtime: &RuntimeId) -> Option<(u64, Hash)> {
        let peer = self.peers.get(runtime)?;
        Some((peer.boot, peer.signer.as_ref()?.delegation_hash))
    }

    /// A signed envelope introduces its origin as well as a document would.
    pub(super) fn meet(&mut self, now: Now, signer: &Signer, boot: u64, effects: &mut Effects) {
        if signer.runtime() == self.me() {
            return;
        }
        let before = self.delegation_of(signer.runtime());
        match self.admit(now, signer, boot, effects) {
            Err(reason) => self.count_refused(reason),
            Ok(()) => {
                if let Some(peer) = self.peer_mut(signer.runtime()) {
                    take_signer(now, peer, signer, before);
                    self.change();
                }
            }
        }
    }

    /// Pins an unknown peer's key, refuses a changed one, and moves on to a new boot.
    fn admit(&mut self, now: Now, signer: &Signer, boot: u64, effects: &mut Effects) -> Result<(), &'static str> {
        let runtime = signer.runtime();
        // It may have waited since it was checked, behind a ban on the very key that it would bring.
        let counts = self.settings.vouches_still(signer, now.wall);
        if !counts || (self.settings.profile != Profile::Dev && signer.vouched.is_none()) {
            return Err(Code::UntrustedIdentity.as_str());
        }
        let Some(known) = self.peers.get(runtime) else {
            return self.pin(signer, boot, effects);
        };
        let mut known_boot = known.boot;
        if known.pinned != signer.identity {
            match &known.signer {
                _ if signer.vouched.is_none() => return Err(self.meet_impostor(now, signer)),
                // Somebody repeats a word from before the key was changed.
                Some(newer) if signer.delegation.not_before < newer.delegation.not_before => return Err("old_key"),
                Some(_) | None => known_boot = self.take_new_key(now, signer, boot, effects),
            }
        }
        if boot < known_boot {
            return Err("old_boot");
        }
        if known_boot < boot {
            self.begin_boot(signer, boot, effects);
        }
        Ok(())
    }

    fn meet_impostor(&mut self, now: Now, signer: &Signer) -> &'static str {
        let runtime = signer.runtime();
        let impostor = (runtime.clone(), signer.identity);
        if self.impostors.len() < IMPOSTORS_MAX && self.impostors.insert(impostor) {
            let summary = format!("{runtime} speaks with another key than the pinned one");
            self.tell(now, security(runtime, summary));
        }
        "changed_key"
    }

    /// A certificate says whose key it is, so a new one needs no person: it was renewed, or the runtime came under an
    /// authority. Back from a certificate to a bare key there is no way but `peers forget`.
    /// Gives the boot counter to go on from.
    fn take_new_key(&mut self, now: Now, signer: &Signer, boot: u64, effects: &mut Effects) -> u64 {
        let is_read_only = self.is_read_only;
        let runtime = signer.runtime();
        let Some(peer) = self.peer_mut(runtime) else { return 0 };
        peer.retired = Some(RetiredKey::at(peer.pinned, now.wall));
        peer.pinned = signer.identity;
        peer.trust = TrustState::Trusted;
        // Whoever has stolen the old key may have counted its boots and words up to the end: a new key counts anew. In the same
        // boot it is the same run, of which all that was heard still counts.
        peer.sequence = 0;
        if peer.boot != boot {
            peer.boot = 0;
        }
        let known_boot = peer.boot;
        let record = peer_record(runtime, peer);
        if is_read_only {
            self.unsaved_boots.insert(runtime.clone());
        } else {
            effects.persist(record);
        }
        known_boot
    }

    fn pin(&mut self, signer: &Signer, boot: u64, effects: &mut Effects) -> Result<(), &'static str> {
        let runtime = signer.runtime();
        let is_proven = signer.vouched.is_some();
        if !is_proven && (self.settings.profile != Profile::Dev || runtime.site != self.me().site) {
            return Err(Code::UntrustedIdentity.as_str());
        }
        if self.is_read_only {
            return Err(Code::StorageUnavailable.as_str());
        }
        self.check_room(runtime, is_proven)?;
        let trust = if is_proven { TrustState::Trusted } else { TrustState::Untrusted };
        let peer = Peer { trust, boot, ..Peer::unheard(signer.identity) };
        effects.persist(peer_record(runtime, &peer));
        self.peers.insert_mut(runtime.clone(), Arc::new(peer));
        Ok(())
    }

    /// Whether one more may be remembered: nobody can use up the room of others.
    fn check_room(&self, runtime: &RuntimeId, is_proven: bool) -> Result<(), &'static str> {
        let own = &self.me().site;
        let count = |is_meant: &dyn Fn(&RuntimeId, &Peer) -> bool| {
            self.peers.iter().filter(|(runtime, peer)| is_meant(runtime, peer)).count()
        };
        if self.peers.size() >= PEERS_MAX {
            return Err("too_many_peers");
        }
        if !is_proven && count(&|_, peer| peer.trust == TrustState::Untrusted) >= UNPROVEN_MAX {
            return Err("too_many_unproven_peers");
        }
        if runtime.site == *own {
            return Ok(());
        }
        let of_site = count(&|known, _| known.site == runtime.site);
        if of_site >= GUESTS_PER_SITE_MAX || count(&|known, _| known.site != *own) >= GUESTS_MAX {
            return Err("too_many_peers_of_other_sites");
        }
        Ok(())
    }

    fn begin_boot(&mut self, signer: &Signer, boot: u64, effects: &mut Effects) {
        let is_read_only = self.is_read_only;
        let runtime = signer.runtime();
        let Some(peer) = self.peer_mut(runtime) else { return };
        peer.boot = boot;
        peer.presence = Presence::default();
        peer.sequence = 0;
        // What it said in an earlier life may be true no more, and would pass for said in this one.
        peer.identity = None;
        peer.health = None;
        peer.config_revision = None;
        peer.skew = None;
        peer.runs_head = None;
        peer.edges = Arc::default();
        let record = peer_record(runtime, peer);
        if is_read_only {
            self.unsaved_boots.insert(runtime.clone());
        } else {
            effects.persist(record);
        }
    }

    fn take_echo(&mut self, now: Now, runtime: &RuntimeId, echo: Echo) -> bool {
        let Some(peer) = self.peer_mut(runtime) else { return false };
        peer.link.answered(echo.round_trip_us, now.wall);
        true
    }

    fn take_identity(&mut self, now: Now, runtime: &RuntimeId, identity: Identity) -> bool {
        let Some(peer) = self.peer_mut(runtime) else { return false };
        // A document that is not newer is a repetition: somebody may be replaying it. All that is known is of this boot.
        let is_new = peer.identity.as_ref().is_none_or(|known| {
            // One that was signed by a clock which ran ahead would outlast its time; one of this moment takes its place.
            let is_healed = now.wall.plus(SKEW) < known.at && is_around(identity.at, now);
            known.at < identity.at || is_healed
        });
        if is_new {
            peer.identity = Some(Arc::new(identity));
        }
        is_new
    }

    fn take_observation(&mut self, now: Now, runtime: &RuntimeId, observation: Observation) -> bool {
        let Some(peer) = self.peer_mut(runtime) else { return false };
        if observation.sequence <= peer.sequence {
            return false;
        }
        peer.sequence = observation.sequence;
        peer.health = Some(observation.health);
        peer.config_revision = Some(observation.config_revision);
        peer.runs_head = observation.runs_head;
        peer.skew = Some(Skew::of(observation.at, now));
        peer.presence.left = observation.is_leaving;
        if let Some(mut edges) = observation.edges {
            edges.truncate(EDGES_OF_PEER_MAX);
            peer.edges = Arc::new(edges);
        }
        true
    }

    pub(super) fn lose_probe(&mut self, runtime: &RuntimeId) {
        if let Some(peer) = self.peer_mut(runtime) {
            peer.link.lost();
            self.change();
        }
    }

    /// Somebody else signs with this runtime's name: with its key it is a copy of this node, else an impostor.
    fn meet_own_name(&mut self, now: Now, signer: &Signer, word: &Word) {
        let is_retired = self.retired.iter().any(|retired| retired.key == signer.identity);
        let is_clone = signer.identity == self.identity || is_retired;
        if is_clone && boot_of(word) == self.boot {
            return;
        }
        let reason = if is_clone { "clone_of_this_runtime" } else { "own_name_other_key" };
        if !self.refused.contains_key(reason) {
            let runtime = self.me().clone();
            let summary = format!("another node on the mesh calls itself {runtime} ({reason})");
            self.tell(now, security(&runtime, summary));
        }
        self.count_refused(reason);
    }

    /// One row for each change of state since the last call.
    ///
    /// Not every peer is looked at each time: what was heard of one changes the state of that one, and time alone the state of
    /// any, but of none before `sweep_at`.
    pub(super) fn tell_transitions(&mut self, now: Now) {
        let touched = std::mem::take(&mut self.touched);
        let is_due = self.sweep_at <= now.monotonic;
        let looked_at: Vec<(&RuntimeId, &Arc<Peer>)> = if is_due {
            self.peers.iter().collect()
        } else {
            touched.iter().filter_map(|runtime| self.peers.get_key_value(runtime)).collect()
        };
        let limits = self.limits;
        let next = looked_at.iter().filter_map(|(_, peer)| peer.presence.next_change(&limits, now.monotonic)).min();
        let earlier = if is_due { NEVER } else { self.sweep_at };
        let present = |peer: &Peer| peer.presence.lifecycle(&limits, now.monotonic);
        let changed: Vec<_> = looked_at
            .iter()
            .filter(|(_, peer)| peer.told != present(peer))
            .map(|(runtime, peer)| ((*runtime).clone(), present(peer)))
            .collect();
        self.sweep_at = next.map_or(earlier, |next| next.min(earlier));
        for (runtime, present) in changed {
            self.tell_transition(now, runtime, present);
        }
    }

    fn tell_transition(&mut self, now: Now, runtime: RuntimeId, present: Lifecycle) {
        let Some(peer) = self.peers.get_mut(&runtime) else { return };
        let told = std::mem::replace(&mut Arc::make_mut(peer).told, present);
        let severity = match present {
            Lifecycle::Online => Severity::Info,
            Lifecycle::Offline | Lifecycle::Partitioned | Lifecycle::Stale => Severity::Warning,
        };
        let summary = format!("{runtime} went from {} to {}", told.as_str(), present.as_str());
        self.tell(now, Happening { category: Category::Communication, runtime, request_id: None, summary, severity });
    }

    /// A peer, to be changed: its state is looked at when the input is done.
    pub(super) fn peer_mut(&mut self, runtime: &RuntimeId) -> Option<&mut Peer> {
        // Asked first, so that a miss does not copy the way to it.
        if !self.peers.contains_key(runtime) {
            return None;
        }
        self.touched.push(runtime.clone());
        self.peers.get_mut(runtime).map(Arc::make_mut)
    }
}

impl Peer {
    /// A peer of which nothing but the key is known in this boot.
    pub fn unheard(pinned: crate::domain::identity::Fingerprint) -> Self {
        Self {
            pinned,
            retired: None,
            trust: TrustState::Untrusted,
            boot: 0,
            presence: Presence::default(),
            heard_at: None,
            signer: None,
            identity: None,
            sequence: 0,
            health: None,
            config_revision: None,
            skew: None,
            runs_head: None,
            edges: Arc::default(),
            link: Link::default(),
            told: Lifecycle::Offline,
        }
    }
}

/// Notes under what a peer signs. Another delegation in the same boot goes with another certificate, as a rule, and so with new
/// links: what little else it can mean does no harm.
fn take_signer(now: Now, peer: &mut Peer, signer: &Signer, before: Option<(u64, Hash)>) {
    let is_renewed = before.is_some_and(|(boot, hash)| boot == peer.boot && hash != signer.delegation_hash);
    if is_renewed && signer.vouched.is_some() {
        peer.presence.relink(now.monotonic);
    }
    peer.signer = Some(signer.clone());
}

/// Whether the word says that its sender lives now. Somebody may have kept a genuine one back, or send it again to a
/// runtime that has forgotten its sequence in a restart; only an echo repeats a nonce of ours.
fn is_fresh(word: &Word, now: Now) -> bool {
    let at = match word {
        Word::Echo(_) => return true,
        Word::Identity(identity) => identity.at,
        Word::Observation(observation) => observation.at,
    };
    is_around(at, now)
}

/// Whether this moment is the present one, give or take the permitted skew.
fn is_around(at: Wall, now: Now) -> bool {
    now.wall <= at.plus(SKEW) && at <= now.wall.plus(SKEW)
}

fn boot_of(word: &Word) -> u64 {
    match word {
        Word::Echo(echo) => echo.boot,
        Word::Identity(identity) => identity.boot,
        Word::Observation(observation) => observation.boot,
    }
}

pub(super) fn peer_record(runtime: &RuntimeId, peer: &Peer) -> Record {
    Record::Peer(record::Peer { runtime: runtime.clone(), pinned: peer.pinned, trust: peer.trust, boot: peer.boot })
}

fn security(runtime: &RuntimeId, summary: String) -> Happening {
    let severity = Severity::Critical;
    Happening { category: Category::Security, runtime: runtime.clone(), request_id: None, summary, severity }
}
