//! Heads of logs on their way to witnesses and back: shown, judged by the witness's engine, countersigned, kept.
//!
//! What must hold is here too: of the witness, that it never goes back behind what it has countersigned; of the owner, that
//! its log still holds it; and that no honest log is called broken.

use trust_runtime::domain::audit::{Checkpoint, Entry, Extension, Hash, NoteKey, Tree, log_name};
use trust_runtime::domain::id::RuntimeId;
use trust_runtime::domain::identity::TrustState;
use trust_runtime::domain::projection::Lifecycle;
use trust_runtime::domain::time::Millis;
use trust_runtime::engine::effect::{Answer, Witnessed};
use trust_runtime::engine::input::Request;
use trust_runtime::engine::record::Record;
use trust_runtime::wire::mesh::{self as wire, Heard, WitnessWord};

use crate::disk::Facts;
use crate::network::Body;
use crate::node::{Live, Node, runtime};
use crate::turn::{Mail, Purpose, Turn};
use crate::world::{Event, World};

/// How often a node shows its head.
pub(crate) const ROUND: u64 = 4_000;
/// What lies between two heads of one boot at least.
const PAUSE: Millis = Millis(ROUND / 2);
/// How many peers are asked.
const WITNESSES: usize = 2;

/// A head that a node has shown, and waits to hear of.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    witness: usize,
    note: String,
    /// Whether it was shown before, from another size on.
    is_again: bool,
}

impl Node {
    fn note_key(&self) -> NoteKey {
        NoteKey::new(log_name(&self.id), self.identity.clone())
    }

    /// The newest head, and what the log has grown by since it held so many records.
    fn growth(&self, old: u64) -> (String, Vec<Hash>) {
        let (mut tree, mut extension) = (Tree::EMPTY, Extension::after(old));
        for (number, entry) in (0_u64..).zip(&self.disk.entries) {
            tree.push(&record(entry));
            if old <= number {
                extension.push(&record(entry));
            }
        }
        let key = self.note_key();
        let boot = self.disk.facts.boot.unwrap_or_default();
        (key.sign(&Checkpoint::of(key.name(), &tree, boot).text()), extension.subtrees())
    }
}

fn record(entry: &Entry) -> Vec<u8> {
    format!("{:?}", entry.draft).into_bytes()
}

impl World {
    /// One round: the newest head goes to those who are there.
    pub(crate) fn show_heads(&mut self, node: usize) {
        let epoch = self.nodes[node].epoch;
        self.schedule(ROUND, Event::ShowHeads { node, epoch });
        let monotonic = self.nodes[node].monotonic_of(self.now);
        let may_show = |live: &&Live| self.has_rounds && !live.view.is_read_only;
        let Some(live) = self.nodes[node].live.as_ref().filter(may_show) else { return };
        let is_there = |other: &usize| {
            let standing = live.view.standing(&runtime(*other), monotonic);
            standing.is_some_and(|it| it.lifecycle == Lifecycle::Online)
        };
        let witnesses: Vec<usize> = self.witnesses_of(node).filter(is_there).collect();
        witnesses.into_iter().for_each(|witness| self.show(node, witness, None));
    }

    fn witnesses_of(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.nodes.len();
        (1..count).map(move |step| (node + step) % count).take(WITNESSES)
    }

    fn show(&mut self, node: usize, witness: usize, again_from: Option<u64>) {
        let at = self.nodes[node].now(self.now).wall;
        let it = &self.nodes[node];
        let Some(live) = it.live.as_ref() else { return };
        let known = live.view.witnessing.countersigned.get(&runtime(witness));
        let held = known.and_then(|known| wire::checkpoint_of(&known.note));
        let old = again_from.unwrap_or_else(|| held.as_ref().map_or(0, |held| held.size));
        let (note, extension) = it.growth(old);
        if known.is_some_and(|known| known.refused.is_none()) && held == wire::checkpoint_of(&note) {
            return;
        }
        let key = it.note_key().verifier().to_string();
        let head = wire::Head { witness: runtime(witness), at, key, note: note.clone(), old, extension };
        let (bytes, digest) = wire::seal_head(&live.keys, &head);
        let shown = Shown { witness, note, is_again: again_from.is_some() };
        if let Some(live) = self.nodes[node].live.as_mut() {
            live.shown.insert(digest, shown);
        }
        self.post(node, witness, Body::Head { claimed: runtime(node), bytes });
    }

    /// Somebody shows a head: what to say of it, the engine decides.
    pub(crate) fn hear_head(&mut self, node: usize, from: usize, claimed: &RuntimeId, bytes: &[u8]) {
        let now = self.nodes[node].now(self.now).wall;
        let Some(live) = self.nodes[node].live.as_mut() else { return };
        let Ok((signer, claim, head)) = wire::open_head(&live.view, claimed, bytes, now) else { return };
        live.asked.insert(head, claim.text());
        let request = Request::Witness { signer: Box::new(signer), claim: Box::new(claim), pause: PAUSE };
        self.mail(node, Mail::Request(request, Purpose::Witness { asker: from, head }));
    }

    /// What the engine has decided is said, now that it is durable.
    pub(crate) fn say_word(&mut self, node: usize, asker: usize, head: Hash, answer: Option<Answer>) {
        let Some(live) = self.nodes[node].live.as_mut() else { return };
        let (Some(Answer::Witnessed(said)), Some(text)) = (answer, live.asked.remove(&head)) else { return };
        let word = match said {
            Witnessed::Behind(size) => WitnessWord::Behind(size),
            Witnessed::Refused(reason) => WitnessWord::Refused(reason.to_owned()),
            Witnessed::Broken(found) => {
                self.check_accusation(node, &text);
                WitnessWord::Broken(found)
            }
            Witnessed::Continues => {
                self.check_countersigned(node, &text);
                let key = self.nodes[node].note_key();
                WitnessWord::Countersigned {
                    key: Box::new(key.countersigner()),
                    line: key.countersign(&text, self.now / 1_000),
                }
            }
        };
        let Some(live) = self.nodes[node].live.as_ref() else { return };
        let bytes = wire::seal_countersignature(&live.keys, head, &word);
        self.post(node, asker, Body::WitnessWord { head, bytes });
    }

    /// A witness's word comes back to the owner of the log.
    pub(crate) fn hear_word(&mut self, node: usize, from: usize, head: Hash, bytes: &[u8]) {
        let now = self.nodes[node].now(self.now).wall;
        let own = self.nodes[node].note_key().verifier();
        let Some(live) = self.nodes[node].live.as_mut() else { return };
        let Some(shown) = live.shown.get(&head).filter(|shown| shown.witness == from).cloned() else { return };
        let witness = runtime(from);
        let Ok(word) = wire::open_countersignature(&live.view, &witness, head, bytes, now) else { return };
        live.shown.remove(&head);
        match word.heard(&own, &shown.note, &witness) {
            Ok(Heard::Behind(size)) if !shown.is_again => self.show(node, from, Some(size)),
            Ok(Heard::Kept(word)) => self.mail(node, Mail::Request(Request::Countersigned(word), Purpose::Admin)),
            Ok(Heard::Behind(_)) | Err(_) => {}
        }
    }
}

impl World {
    fn owner_of(&self, text: &str) -> Option<(usize, Checkpoint)> {
        let checkpoint = Checkpoint::parse(text).ok()?;
        let owner = self.nodes.iter().position(|node| log_name(&node.id) == checkpoint.origin)?;
        Some((owner, checkpoint))
    }

    fn check_countersigned(&mut self, node: usize, text: &str) {
        let Some((owner, checkpoint)) = self.owner_of(text) else {
            return self.breach("only a head of a log is countersigned", format!("n{node}: {text}"));
        };
        let kept = self.nodes[node].disk.facts.heads.get(&runtime(owner));
        if kept.is_none_or(|kept| kept.checkpoint.size < checkpoint.size) {
            let detail = format!("n{node} countersigns {} records of n{owner}", checkpoint.size);
            self.breach("a head is durable at its witness before it is countersigned", detail);
        }
        self.ledger.countersigned.push((owner, checkpoint));
    }

    /// By a clock that was set back, an old head of a log can be the latest word of it.
    fn check_accusation(&mut self, node: usize, text: &str) {
        let owner = self.owner_of(text).map(|(owner, _)| owner);
        if let Some(owner) = owner.filter(|owner| !self.ledger.was_off[*owner] && !self.ledger.was_set_back[*owner]) {
            self.breach("no honest log is called broken", format!("n{node} accuses n{owner}: {text}"));
        }
    }

    /// Whether the owner's log still holds every head that anybody has countersigned.
    pub(crate) fn check_heads_held(&mut self, node: usize) {
        let is_its_own = |(owner, _): &&(usize, Checkpoint)| *owner == node;
        let mut heads: Vec<_> = self.ledger.countersigned.iter().filter(is_its_own).map(|(_, head)| head).collect();
        heads.sort_by_key(|head| head.size);
        let mut tree = Tree::EMPTY;
        let mut entries = self.nodes[node].disk.entries.iter();
        let lost = heads.into_iter().find(|head| {
            let missing = usize::try_from(head.size - tree.size()).expect("few");
            entries.by_ref().take(missing).for_each(|entry| tree.push(&record(entry)));
            (tree.size(), tree.root()) != (head.size, head.root)
        });
        if let Some(detail) = lost.map(|head| format!("n{node}: {head:?}")) {
            self.breach("a head that was countersigned is never lost by its owner's log", detail);
        }
    }

    /// What a witness keeps only goes on, until a person says that it is to be forgotten.
    pub(crate) fn check_heads_kept(&mut self, node: usize, before: &Facts, turn: &Turn) {
        let mut heads = before.heads.clone();
        for change in &turn.effects.batch.records {
            if let Record::HeadForgotten { runtime } = change {
                heads.remove(runtime);
            }
            let Record::Head { runtime, head } = change else { continue };
            let went_back = heads.insert(runtime.clone(), head.clone()).is_some_and(|old| {
                let (was, is) = (&old.checkpoint, &head.checkpoint);
                is.size < was.size || is.boot < was.boot || (old.broken.is_some() && head.broken != old.broken)
            });
            if went_back {
                let detail = format!("n{node}: {head:?}");
                self.breach("a witness never goes back behind what it has countersigned", detail);
            }
        }
    }

    /// In the calm everybody's log is countersigned up to here by those whom it is shown to.
    pub(crate) fn check_witnessed(&mut self, sizes: &[u64]) {
        for (node, size) in sizes.iter().enumerate().filter(|_| self.has_rounds).collect::<Vec<_>>() {
            for witness in self.witnesses_of(node).collect::<Vec<_>>() {
                // Until the moments that a wrong clock has named are over, nothing is countersigned.
                if self.ledger.was_off[node] || self.ledger.was_off[witness] || !self.is_heard_by(node, witness) {
                    continue;
                }
                let word = self.nodes[node].disk.facts.countersigned.get(&runtime(witness));
                let head = word.and_then(|word| wire::checkpoint_of(&word.note));
                let is_said = word.is_some_and(|word| word.refused.is_none());
                if !is_said || head.as_ref().is_none_or(|head| head.size < *size) {
                    let detail = format!("n{witness} of {size} records of n{node}: {word:?}");
                    self.breach("once healed, every log is countersigned", detail);
                }
                self.ledger.witnessed += 1;
            }
        }
    }

    fn is_heard_by(&self, node: usize, witness: usize) -> bool {
        let peer = self.nodes[witness].disk.facts.peers.get(&runtime(node));
        self.setup.is_loopback || peer.is_some_and(|peer| peer.trust == TrustState::Trusted)
    }
}
