//! Countersignatures: this node shows the head of its log of writes to a few peers of its site, and answers for theirs.
//!
//! What is said is decided in `domain::audit::witness` and kept by `engine::witness`; here it is carried and signed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::domain::audit::{Hash, NoteKey};
use crate::domain::id::RuntimeId;
use crate::domain::identity::TrustState;
use crate::domain::projection::Lifecycle;
use crate::domain::time::Millis;
use crate::engine::Entropy as _;
use crate::engine::effect::{Answer, Witnessed};
use crate::engine::input::Request;
use crate::engine::record::Countersigned;
use crate::engine::view::View;
use crate::mesh::{self, Mesh, Responder, Verb};
use crate::node::clock::{Clock, SystemEntropy};
use crate::node::driver::Mail;
use crate::node::ingress::Ingress;
use crate::node::keyring::Keyring;
use crate::store::Store;
use crate::wire::mesh::{self as message, Heard, Unheard, WitnessWord, checkpoint_of};

/// How long a peer may take to answer: it writes to its disk first.
const BUDGET: Duration = Duration::from_secs(3);

/// When the first round begins at the latest: a log that was brought back is noticed soon after its node starts.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(5);

/// How heads are countersigned.
#[derive(Debug, Clone)]
pub struct Witnessing {
    /// Signs the own checkpoints, and countersigns those of peers.
    pub key: NoteKey,
    /// How many peers are asked.
    pub count: usize,
    /// How often a head that is new is shown.
    pub every: Duration,
}

impl Witnessing {
    /// What lies between two heads of a peer at least: half of what is usual, because its rounds are not evenly spread.
    fn pause(&self) -> Millis {
        Millis(u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX).wrapping_div(2))
    }
}

/// Shows the own head to peers until the node stops.
#[derive(Debug)]
pub(super) struct Witnesses {
    pub(super) clock: Clock,
    pub(super) views: Arc<ArcSwap<View>>,
    pub(super) mailbox: mpsc::Sender<Mail>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) mesh: Arc<dyn Mesh>,
    pub(super) store: Arc<dyn Store>,
    pub(super) options: Witnessing,
    /// Who has said his word since this node started. Whoever said it before may have forgotten this node meanwhile, and would
    /// hear of its log at its next record only.
    pub(super) heard: Mutex<BTreeSet<RuntimeId>>,
}

impl Witnesses {
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        if self.options.count == 0 {
            return;
        }
        let mut pause = spread(self.options.every.min(FIRST_ROUND_MAX));
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            if stop.run_until_cancelled(self.round()).await.is_none() {
                return;
            }
            pause = spread(self.options.every);
        }
    }

    async fn round(&self) {
        let view = self.views.load_full();
        if view.is_read_only {
            return;
        }
        for witness in chosen(&view, self.options.count, self.clock.now().monotonic) {
            // What failed is tried again in the next round.
            self.show(&view, &witness).await;
        }
    }

    /// Shows the newest head to a peer, unless it has said its word about it already.
    async fn show(&self, view: &View, witness: &RuntimeId) {
        let known = view.witnessing.countersigned.get(witness);
        let held = known.and_then(|known| checkpoint_of(&known.note));
        let mut old = held.as_ref().map_or(0, |held| held.size);
        // Once more if the peer keeps another head than this node believes.
        for _attempt in 0..2 {
            let Ok(Some(growth)) = self.store.growth(old).await else { return };
            let newest = checkpoint_of(&growth.note);
            let is_said = self.has_heard(witness) && known.is_some_and(|it| it.refused.is_none()) && held == newest;
            if newest.is_none() || is_said {
                return;
            }
            let Some(word) = self.ask(witness, &growth.note, old, growth.subtrees).await else { return };
            match self.judged(witness, &growth.note, word) {
                Some(Heard::Behind(size)) => old = size,
                Some(Heard::Kept(word)) => {
                    self.take(word).await;
                    self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(witness.clone());
                    return;
                }
                None => return,
            }
        }
    }

    fn has_heard(&self, witness: &RuntimeId) -> bool {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).contains(witness)
    }

    async fn ask(&self, witness: &RuntimeId, note: &str, old: u64, extension: Vec<Hash>) -> Option<WitnessWord> {
        let head = message::Head {
            witness: witness.clone(),
            at: self.clock.now().wall,
            key: self.options.key.verifier().to_string(),
            note: note.to_owned(),
            old,
            extension,
        };
        let (sealed, digest) = message::seal_head(&self.keyring.keys(), &head);
        let opened = OnceLock::new();
        let accept = |bytes: &[u8]| {
            let now = self.clock.now().wall;
            let word = message::open_countersignature(&self.views.load(), witness, digest, bytes, now);
            word.is_ok_and(|word| opened.set(word).is_ok())
        };
        if let Err(error) = self.mesh.query(witness, Verb::Witness, sealed, BUDGET, &accept).await {
            tracing::debug!(runtime_id = %witness, %error, "no countersignature");
        }
        opened.into_inner()
    }

    /// What a peer's word comes to. Of one that is worthless, somebody who reads the log may want to know.
    fn judged(&self, witness: &RuntimeId, note: &str, word: WitnessWord) -> Option<Heard> {
        match word.heard(&self.options.key.verifier(), note, witness) {
            Ok(heard) => Some(heard),
            Err(reason @ (Unheard::Forged | Unheard::Unproven)) => {
                tracing::warn!(runtime_id = %witness, %reason, "a peer's word for the log is worthless");
                None
            }
            Err(Unheard::Refused(reason)) => {
                tracing::debug!(runtime_id = %witness, %reason, "a peer does not countersign");
                None
            }
        }
    }

    async fn take(&self, word: Box<Countersigned>) {
        let (reply, done) = oneshot::channel();
        if self.mailbox.send(Mail::Request(Request::Countersigned(word), reply)).await.is_ok() {
            // What the store did not take is asked for again.
            drop(done.await);
        }
    }
}

/// The peers to ask: those of the own site that are there, each runtime in an order of its own, so that the work is spread.
fn chosen(view: &View, count: usize, now: crate::domain::time::Monotonic) -> Vec<RuntimeId> {
    let me = view.me();
    let is_fit = |runtime: &RuntimeId, peer: &crate::engine::view::Peer| {
        let is_trusted = peer.trust == TrustState::Trusted || view.settings.is_mesh_on_loopback;
        runtime.site == me.site && is_trusted && peer.presence.lifecycle(&view.limits, now) == Lifecycle::Online
    };
    let mut ranked: Vec<_> = view.peers.iter().filter(|(runtime, peer)| is_fit(runtime, peer)).collect();
    ranked.sort_by_key(|(runtime, _)| Hash::of(format!("{me} {runtime}").as_bytes()).0);
    ranked.into_iter().take(count).map(|(runtime, _)| runtime.clone()).collect()
}

/// A pause of three quarters to five quarters, so that nodes that start together do not ask together.
fn spread(pause: Duration) -> Duration {
    let mut random = [0; 1];
    SystemEntropy.fill(&mut random);
    let [random] = random;
    pause.mul_f64(0.75 + f64::from(random) / 512.0)
}

impl Ingress {
    /// Countersigns the head of a peer's log, if it continues what was countersigned before.
    pub(super) async fn witness(&self, origin: &RuntimeId, payload: &[u8], responder: Responder) {
        let view = self.views.load_full();
        let (signer, claim, digest) = match message::open_head(&view, origin, payload, self.clock.now().wall) {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse(refusal, responder),
        };
        let text = claim.text();
        let pause = self.witnessing.pause();
        let request = Request::Witness { signer: Box::new(signer), claim: Box::new(claim), pause };
        let (reply, answer) = oneshot::channel();
        if self.mailbox.send(Mail::Request(request, reply)).await.is_err() {
            return;
        }
        // A store that failed, or a node that stops: the peer asks again.
        let Ok(Ok(Answer::Witnessed(said))) = answer.await else { return };
        let word = match said {
            Witnessed::Behind(size) => WitnessWord::Behind(size),
            Witnessed::Broken(found) => WitnessWord::Broken(found),
            Witnessed::Continues => WitnessWord::Countersigned {
                key: Box::new(self.witnessing.key.countersigner()),
                line: self.witnessing.key.countersign(&text, self.clock.now().wall.as_millis().wrapping_div(1_000)),
            },
            Witnessed::Refused(reason) => WitnessWord::Refused(reason.to_owned()),
        };
        let sealed = message::seal_countersignature(&self.keyring.keys(), digest, &word);
        responder.answer(mesh::Answer::Reply(sealed));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::domain::action::Action;
    use crate::domain::identity::IdentityKey;
    use crate::engine::view;
    use crate::mesh::memory::Hub;
    use crate::node::tests::{key_of, member, parsed, warm_up};
    use crate::store::memory::MemoryStore;

    /// The witnesses of a node that has just started, and what they tell it.
    fn fresh(hub: &Hub, store: &MemoryStore, view: View) -> (Witnesses, mpsc::Receiver<Mail>) {
        let (mailbox, mails) = mpsc::channel(1);
        let (me, clock) = (view.me().clone(), Clock::start());
        let keyring = Keyring::new(key_of(&me).into(), me.clone(), clock.now().wall).expect("it signs");
        let witnesses = Witnesses {
            clock,
            mailbox,
            keyring: Arc::new(keyring),
            mesh: hub.join(me, view.boot).0,
            store: Arc::new(store.clone()),
            options: Witnessing { key: key(), count: 1, every: Duration::from_secs(60) },
            views: Arc::new(ArcSwap::from_pointee(view)),
            heard: Mutex::default(),
        };
        (witnesses, mails)
    }

    fn key() -> NoteKey {
        NoteKey::new("trust-runtime/s/a", IdentityKey::from_seed([2; 32]))
    }

    /// The word that comes when the head is shown to `s/b`; nothing where it is not shown.
    async fn shown(witnesses: &Witnesses, mails: &mut mpsc::Receiver<Mail>) -> Option<Countersigned> {
        let view = witnesses.views.load_full();
        // A peer takes no second head of one millisecond.
        let began = witnesses.clock.now().wall;
        while witnesses.clock.now().wall == began {
            tokio::task::yield_now().await;
        }
        let (witness, mut said) = (parsed("s/b"), None);
        let mut showing = pin!(witnesses.show(&view, &witness));
        loop {
            tokio::select! {
                () = &mut showing => return said,
                mail = mails.recv() => {
                    let Some(Mail::Request(Request::Countersigned(word), reply)) = mail else { panic!("another mail") };
                    said = Some(*word);
                    reply.send(Ok(Answer::Recorded)).expect("it waits");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_head_is_shown_once_in_each_life_also_where_it_was_countersigned_before() {
        let hub = Hub::new().expect("a hub");
        let store = MemoryStore::new();
        store.with_disk(|disk| disk.sign_checkpoints(key()));
        let (node, _peer) = (member(&hub, "s/a", store.clone()).await, member(&hub, "s/b", MemoryStore::new()).await);
        warm_up(&node, &Action::StatusRead).await;
        let view = View::clone(&node.operations().view());
        let (witnesses, mut mails) = fresh(&hub, &store, view.clone());
        let word = shown(&witnesses, &mut mails).await.expect("it is shown");
        // From now on it is known as countersigned: in this life, and in the next one.
        let countersigned = [(word.witness.clone(), word)].into_iter().collect();
        let view =
            View { witnessing: Arc::new(view::Witnessing { countersigned, ..view::Witnessing::default() }), ..view };
        witnesses.views.store(Arc::new(view.clone()));
        assert_eq!(shown(&witnesses, &mut mails).await, None, "once is enough");
        let (witnesses, mut mails) = fresh(&hub, &store, view);
        assert!(shown(&witnesses, &mut mails).await.is_some(), "the peer may have forgotten it");
        assert_eq!(shown(&witnesses, &mut mails).await, None, "once is enough in this life, too");
    }
}
