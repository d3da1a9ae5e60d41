//! What comes in from the mesh: checked for signatures here, in parallel, before the loop or a read ever sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::audit::Outcome;
use crate::domain::code::Code;
use crate::domain::envelope::dsse::PayloadType;
use crate::domain::envelope::{Receipt, Response, Ruling};
use crate::domain::id::RuntimeId;
use crate::domain::policy::Stage;
use crate::engine::input::{Input, Received};
use crate::engine::judge;
use crate::engine::view::View;
use crate::engine::{self};
use crate::mesh::{Answer, Document, Fact, Inbox, Incoming, Mesh, Responder, Verb};
use crate::metrics::{Metrics, Side};
use crate::node::arrived::Arrived;
use crate::node::clock::{Clock, SystemEntropy};
use crate::node::driver::Mail;
use crate::node::issuer::Issuer;
use crate::node::keyring::Keyring;
use crate::node::reach::Desk;
use crate::node::trace;
use crate::node::witness::Witnessing;
use crate::store::Store;
use crate::wire::mesh::{self as message, Refusal};

/// Queries worked on at once: enough for every core, small enough that a flood does not become memory.
const QUERIES_AT_ONCE: usize = 256;

/// Identity documents fetched at once.
const FETCHES_AT_ONCE: usize = 16;

/// How long a peer may take to show its identity. It is asked again when its token or word comes again.
const IDENTITY_BUDGET: Duration = Duration::from_secs(2);

/// The parts that everything coming in needs.
#[derive(Debug)]
pub(super) struct Ingress {
    pub(super) clock: Clock,
    pub(super) views: Arc<ArcSwap<View>>,
    pub(super) mailbox: mpsc::Sender<Mail>,
    pub(super) store: Arc<dyn Store>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) mesh: Arc<dyn Mesh>,
    pub(super) tasks: TaskTracker,
    pub(super) metrics: Arc<Metrics>,
    pub(super) refused: Counters,
    pub(super) witnessing: Witnessing,
    pub(super) issuer: Option<Arc<Issuer>>,
    pub(super) desk: Arc<Desk>,
}

/// Counts of refused messages by reason.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Counters {
    pub(super) fn count(&self, reason: &'static str) {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = counters.entry(reason).or_default();
        *counter = counter.saturating_add(1);
    }

    pub(super) fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ingress {
    /// Starts both loops. They end with the inbox or the stop.
    pub(super) fn spawn(self: &Arc<Self>, inbox: Inbox, stop: &CancellationToken) {
        let Inbox { facts, queries } = inbox;
        self.tasks.spawn(stop.clone().run_until_cancelled_owned(Arc::clone(self).take_facts(facts)));
        self.tasks.spawn(stop.clone().run_until_cancelled_owned(Arc::clone(self).take_queries(queries)));
    }

    async fn take_facts(self: Arc<Self>, mut facts: mpsc::Receiver<Fact>) {
        let fetches = Arc::new(Semaphore::new(FETCHES_AT_ONCE));
        while let Some(fact) = facts.recv().await {
            match fact {
                Fact::TokenAppeared { runtime, boot } => {
                    if self.views.load().peers.get(&runtime).is_none_or(|peer| peer.boot != boot) {
                        self.fetch_identity(&runtime, &fetches);
                    }
                    self.send(Mail::Input(Box::new(Input::TokenAppeared { runtime, boot }))).await;
                }
                Fact::TokenGone { runtime, boot } => {
                    self.send(Mail::Input(Box::new(Input::TokenGone { runtime, boot }))).await;
                }
                Fact::Published { runtime, document, bytes } => {
                    if let Some(input) = self.open_document(&runtime, document, &bytes) {
                        self.send(Mail::Input(Box::new(input))).await;
                    }
                }
            }
        }
    }

    /// The mailbox closes only when the node stops; what comes then comes too late.
    async fn send(&self, mail: Mail) {
        drop(self.mailbox.send(mail).await);
    }

    fn open_document(&self, runtime: &RuntimeId, document: Document, bytes: &[u8]) -> Option<Input> {
        let payload_type = match document {
            Document::Identity => PayloadType::Identity,
            Document::Observation => PayloadType::Observation,
        };
        let view = self.views.load();
        if runtime == view.me() && view.identity == self.keyring.keys().signer().identity && self.is_own(bytes) {
            return None;
        }
        match message::open_word(&view, runtime, payload_type, bytes, self.clock.now().wall) {
            Ok((signer, word)) => Some(Input::Word { signer, word }),
            Err(refusal) => {
                self.refused.count(refusal.as_str());
                None
            }
        }
    }

    /// Whether the bytes were signed in this very boot: an echo of ourselves, not a clone.
    fn is_own(&self, bytes: &[u8]) -> bool {
        let keyid = self.keyring.keys().signer().delegation_hash.to_string();
        bytes.windows(keyid.len()).any(|window| window == keyid.as_bytes())
    }

    /// Fetches in the background, so that one silent peer does not hold the facts of all others.
    fn fetch_identity(self: &Arc<Self>, runtime: &RuntimeId, fetches: &Arc<Semaphore>) {
        if runtime == self.views.load().me() {
            return;
        }
        let Ok(permit) = Arc::clone(fetches).try_acquire_owned() else { return };
        let (this, runtime) = (Arc::clone(self), runtime.clone());
        self.tasks.spawn(async move {
            this.ask_identity(&runtime).await;
            drop(permit);
        });
    }

    /// Asks a runtime who it is, and takes the answer in if it holds.
    pub(super) async fn ask_identity(&self, runtime: &RuntimeId) {
        let opened = OnceLock::new();
        let accept = |bytes: &[u8]| {
            self.open_document(runtime, Document::Identity, bytes).is_some_and(|input| opened.set(input).is_ok())
        };
        // Why there was none shows in the counters; the peer is asked again.
        drop(self.mesh.fetch_identity(runtime, IDENTITY_BUDGET, &accept).await);
        if let Some(input) = opened.into_inner() {
            self.send(Mail::Input(Box::new(input))).await;
        }
    }

    async fn take_queries(self: Arc<Self>, mut queries: mpsc::Receiver<Incoming>) {
        let workers = Arc::new(Semaphore::new(QUERIES_AT_ONCE));
        while let Some(incoming) = queries.recv().await {
            let Ok(permit) = Arc::clone(&workers).acquire_owned().await else { return };
            let this = Arc::clone(&self);
            self.tasks.spawn(async move {
                this.take_query(incoming).await;
                drop(permit);
            });
        }
    }

    async fn take_query(&self, incoming: Incoming) {
        let Incoming { verb, origin, payload, responder } = incoming;
        match verb {
            Verb::Pointers => self.tell_pointers(&origin, &payload, responder).await,
            Verb::Probe => self.echo(&payload, responder),
            Verb::Renew => self.renew(&origin, &payload, responder).await,
            Verb::Run => self.tell_of_run(&origin, &payload, responder).await,
            Verb::Witness => self.witness(&origin, &payload, responder).await,
            Verb::Act | Verb::Outcome => match self.open_envelope(&origin, &payload).await {
                Err(refusal) => {
                    if verb == Verb::Act {
                        self.metrics.denied(code_of(refusal), Stage::Target, Side::Target);
                    }
                    self.refuse(refusal, responder);
                }
                Ok(received) if verb == Verb::Outcome => {
                    arrived(&received, "an outcome is asked for");
                    self.send(Mail::AskOutcome(Box::new(received), responder)).await;
                }
                Ok(received) if received.envelope.action.kind().is_read() => {
                    let span = arrived(&received, "a read has arrived");
                    span.in_scope(|| self.answer_read(Arrived::new(received, payload), responder));
                }
                Ok(received) => {
                    arrived(&received, "a write has arrived");
                    self.send(Mail::Act(Box::new(Arrived::new(received, payload)), responder)).await;
                }
            },
        }
    }

    pub(super) fn refuse(&self, refusal: Refusal, responder: Responder) {
        self.refused.count(refusal.as_str());
        responder.answer(Answer::Refusal(code_of(refusal).to_string()));
    }

    fn echo(&self, payload: &[u8], responder: Responder) {
        match message::Probe::parse(payload) {
            Ok(probe) => {
                let echo = message::Echo { nonce: probe.nonce, boot: self.views.load().boot };
                responder.answer(Answer::Reply(message::seal_echo(&self.keyring.keys(), &echo)));
            }
            Err(refusal) => self.refuse(refusal, responder),
        }
    }

    /// Opens an envelope; an unknown signer is introduced to the engine first, so that its key is pinned before it counts.
    async fn open_envelope(&self, origin: &RuntimeId, payload: &[u8]) -> Result<Received, Refusal> {
        let view = self.views.load_full();
        let received = message::open_envelope(&view, origin, payload, self.clock.now().wall)?;
        self.introduce(&view, &received).await;
        Ok(received)
    }

    /// Introduces a signer to the engine that the view does not show.
    pub(super) async fn introduce(&self, view: &View, received: &Received) {
        let known = view.peers.get(received.signer.runtime()).and_then(|peer| peer.signer.as_ref());
        if known.is_none_or(|signer| signer.delegation_hash != received.signer.delegation_hash) {
            let (tx, met) = oneshot::channel();
            self.send(Mail::Met(received.signer.clone(), received.envelope.boot, tx)).await;
            // Whether it was admitted shows in the view; a closed channel means the node is stopping.
            drop(met.await);
        }
    }

    /// Answers a read from the snapshot. It leaves a record that nobody waits for.
    fn answer_read(&self, arrived: Arrived, responder: Responder) {
        let now = self.clock.now();
        let view = self.views.load();
        let received = arrived.by_now(&view, now.wall);
        let result = judge::judge(&view, &received, now.wall);
        let mut draft = engine::act_draft(
            now,
            &mut SystemEntropy,
            view.settings.policy_hash,
            &received.envelope,
            result.as_ref().map(|_rule| ()),
        );
        if result.is_ok() {
            draft.outcome = Outcome::Applied;
        }
        let audit_id = draft.audit_id;
        let is_recorded = self.store.append_read(draft).is_ok();
        if !is_recorded {
            self.refused.count("unrecorded_read");
        }
        // A disk that failed must not stop the reads (DESIGN, *A failing disk*); health names it. A flood must.
        if !is_recorded && self.store.reads_fault().is_none() {
            responder.answer(Answer::Refusal(Code::ServerBusy.to_string()));
            return;
        }
        let ruled = result.as_ref().map(drop).map_err(|denial| denial.code);
        self.metrics.asked(received.envelope.action.kind(), ruled);
        tracing::debug!(code = trace::code(ruled), "an action is answered");
        let ruling = match result {
            Ok(_rule) => Ruling::Done(Response::Status(Box::new(view.status(now)))),
            Err(denial) => {
                self.refused.count(denial.code.as_str());
                let is_own_site = received.envelope.origin.site == view.me().site;
                Ruling::Refused(if is_own_site { denial } else { denial.for_another_site() })
            }
        };
        let receipt = Receipt {
            envelope: received.digest,
            target: view.me().clone(),
            origin: received.envelope.origin.clone(),
            request_id: received.envelope.request_id.clone(),
            ruling,
            audit_id,
            position: None,
            repeated: false,
            at: now.wall,
        };
        responder.answer(Answer::Reply(message::seal_receipt(&self.keyring.keys(), &receipt)));
    }
}

/// What whoever asks is told.
const fn code_of(refusal: Refusal) -> Code {
    match refusal {
        Refusal::BadSignature | Refusal::BadDelegation | Refusal::BadCertificate | Refusal::NotItsOwnWord => {
            Code::UntrustedIdentity
        }
        Refusal::Malformed | Refusal::TooLarge => Code::ContractViolation,
    }
}

/// Its signature holds. Gives the span of what follows.
fn arrived(received: &Received, what: &'static str) -> tracing::Span {
    let span = trace::of_envelope(&received.envelope);
    span.in_scope(|| tracing::debug!("{what}"));
    span
}
