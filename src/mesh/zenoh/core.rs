//! What a node says and asks through one set of sessions, from their opening to their end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zenoh::bytes::Encoding;
use zenoh::key_expr::KeyExpr;
use zenoh::liveliness::LivelinessToken;
use zenoh::qos::{CongestionControl, Priority};
use zenoh::query::{ConsolidationMode, QueryTarget, Reply, ReplyError};
use zenoh::sample::Locality;
use zenoh::{Session, Wait};

use crate::domain::id::RuntimeId;
use crate::mesh::intake::Intake;
use crate::mesh::key::Space;
use crate::mesh::zenoh::lost::Lost;
use crate::mesh::zenoh::opener::Opener;
use crate::mesh::zenoh::receive::{self, There};
use crate::mesh::zenoh::session::{self, Opened};
use crate::mesh::zenoh::ways::Ways;
use crate::mesh::{Accept, Document, PAYLOAD_BYTES_MAX, Pending, QueryError, Refusal};

/// Operations, and the identities they are checked with (plane T2). Values (T1) go above, at `InteractiveHigh`.
const OPERATIONS: Priority = Priority::DataHigh;

/// Diagnostics (plane T3), always below operations.
const DIAGNOSTICS: Priority = Priority::DataLow;

/// Most replies to one query that are looked at: one is the target's, the rest are strangers'.
const REPLIES_MAX: usize = 16;

/// How a target marks a refusal's reason.
pub(super) const REFUSAL_ENCODING: Encoding = Encoding::TEXT_PLAIN;

/// Characters of a refusal that are kept. Codes are far shorter; the rest is somebody else's text in our log.
const REFUSAL_CHARS_MAX: usize = 128;

/// Pause between attempts to get a thread on which sessions are ended: whatever has taken all threads wants the processor too.
const END_AGAIN: Duration = Duration::from_millis(100);

/// What runs work on a thread of its own, and gives whether there was one to be had: [`session::apart`].
pub(super) type Apart = fn(Pending<'static, ()>) -> bool;

/// The sessions of a node: with its own site, and a gate for each partner.
pub(super) struct Sessions {
    pub(super) home: Opened,
    pub(super) gates: Vec<Opened>,
}

/// What the tasks of one set of sessions share. Zenoh's callbacks hold parts of it, and never a session.
pub(super) struct Core {
    pub(super) space: Space,
    pub(super) own: RuntimeId,
    boot: u64,
    pub(super) intake: Arc<Intake>,
    pub(super) identity: Arc<receive::Identity>,
    /// Set at once for peers and routers; for a client, when the first router has answered.
    sessions: OnceLock<Sessions>,
    pub(super) ways: Arc<Ways>,
    presence: Mutex<Presence>,
    pub(super) there: Arc<There>,
    pub(super) lost: Arc<Lost>,
    tasks: TaskTracker,
    stop: CancellationToken,
    is_ending: Mutex<bool>,
    ended: CancellationToken,
}

/// The token's life.
#[derive(Default)]
enum Presence {
    /// Nobody asked for it yet, or it was taken back.
    #[default]
    Silent,
    /// Asked for before there was a session.
    Wanted,
    /// On the mesh for as long as this value lives.
    Declared(LivelinessToken),
}

impl Core {
    /// Without sessions yet.
    pub(super) fn new(opener: &Opener) -> Self {
        let Opener { options, space, intake, identity, is_announced, stop, .. } = opener;
        let presence = if is_announced.load(Ordering::SeqCst) { Presence::Wanted } else { Presence::Silent };
        Self {
            space: space.clone(),
            own: options.runtime.clone(),
            boot: options.boot,
            intake: Arc::clone(intake),
            identity: Arc::clone(identity),
            sessions: OnceLock::new(),
            ways: Arc::default(),
            presence: Mutex::new(presence),
            there: Arc::default(),
            lost: Lost::of(options.lost_max),
            tasks: TaskTracker::new(),
            stop: stop.child_token(),
            is_ending: Mutex::new(false),
            ended: CancellationToken::new(),
        }
    }

    /// Runs a task that ends with the sessions.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopped = self.stop.clone();
        self.tasks.spawn(async move {
            stopped.run_until_cancelled(task).await;
        });
    }

    /// Starts hearing and answering.
    pub(super) fn go_live(&self, sessions: Sessions) -> zenoh::Result<()> {
        let Sessions { home, gates } = &sessions;
        for opened in gates.iter().chain([home]) {
            self.lost.watch(opened)?;
        }
        let clerk = receive::declare(&home.session, self)?;
        self.spawn(clerk.run());
        let mut presence = self.lock_presence();
        if matches!(*presence, Presence::Wanted) {
            *presence = Presence::Declared(self.declare_token(&home.session)?);
        }
        // Under the lock, so that an announcement sees either the session or its own wish.
        drop(self.sessions.set(sessions));
        drop(presence);
        // A client may have published before there was anybody to hear it.
        if let Some(bytes) = self.identity.get() {
            self.put(Document::Identity, bytes).map_err(|error| zenoh::Error::from(error.to_string()))?;
        }
        Ok(())
    }

    pub(super) fn session(&self) -> Result<&Session, QueryError> {
        match self.sessions.get() {
            None => Err(QueryError::Session("no router reached yet".into())),
            Some(Sessions { home, .. }) if home.session.is_closed() => Err(QueryError::Session("closed".into())),
            Some(Sessions { home, .. }) => Ok(&home.session),
        }
    }

    /// How many transports to other members of the mesh are up.
    pub(super) async fn links(&self) -> usize {
        let (Ok(session), Some(sessions)) = (self.session(), self.sessions.get()) else { return 0 };
        // What lies between a router and its own gates is no link to anybody.
        let mut links = session.info().transports().await.count();
        for gate in &sessions.gates {
            let inner = session.zid();
            let transports: Vec<_> = gate.session.info().transports().await.map(|it| *it.zid()).collect();
            let partners = transports.iter().filter(|zid| **zid != inner).count();
            links = links.saturating_add(partners).saturating_sub(usize::from(transports.contains(&inner)));
        }
        links
    }

    /// The addresses at which Zenoh itself listens, as `host:port`.
    pub(super) async fn listening(&self) -> Vec<String> {
        match self.sessions.get() {
            Some(sessions) => session::listening(&sessions.home.session).await,
            None => Vec::new(),
        }
    }

    fn declare_token(&self, session: &Session) -> zenoh::Result<LivelinessToken> {
        session.liveliness().declare_token(self.space.liveliness(&self.own, self.boot)).wait()
    }

    pub(super) fn announce(&self) -> Result<(), QueryError> {
        let mut presence = self.lock_presence();
        *presence = match (&*presence, self.sessions.get()) {
            (Presence::Declared(_), _) => return Ok(()),
            (Presence::Silent | Presence::Wanted, None) => Presence::Wanted,
            (Presence::Silent | Presence::Wanted, Some(_)) => {
                Presence::Declared(self.declare_token(self.session()?).map_err(broken)?)
            }
        };
        Ok(())
    }

    pub(super) fn put(&self, document: Document, bytes: Vec<u8>) -> Result<(), QueryError> {
        if PAYLOAD_BYTES_MAX < bytes.len() {
            return Err(QueryError::TooLarge(bytes.len()));
        }
        let priority = match document {
            Document::Identity => OPERATIONS,
            Document::Observation => DIAGNOSTICS,
        };
        if document == Document::Identity {
            self.identity.set(bytes.clone());
            if self.sessions.get().is_none() {
                return Ok(());
            }
        }
        let session = self.session()?;
        // Published every few seconds: often enough.
        self.ways.settle(session);
        session
            .put(self.space.document(&self.own, document), bytes)
            .priority(priority)
            .congestion_control(CongestionControl::Drop)
            .allowed_destination(Locality::Remote)
            .wait()
            .map_err(broken)
    }

    /// Asks everybody who answers on an exact key: only the right one should, but anybody can.
    pub(super) async fn get(
        &self,
        key: KeyExpr<'static>,
        payload: Vec<u8>,
        (budget, answer_bytes_max): (Duration, usize),
        accept: Accept<'_>,
    ) -> Result<Vec<u8>, QueryError> {
        if PAYLOAD_BYTES_MAX < payload.len() {
            return Err(QueryError::TooLarge(payload.len()));
        }
        let (tx, replies) = mpsc::channel(REPLIES_MAX);
        // What does not fit is a flood.
        let pass_on = move |reply: Reply| drop(tx.try_send(reply));
        let builder = self
            .session()?
            .get(key)
            .payload(payload)
            .target(QueryTarget::All)
            .consolidation(ConsolidationMode::None)
            .timeout(budget)
            .priority(OPERATIONS)
            // Not express: that costs a write each, a quarter of the rate with 64 callers, and one caller is no faster.
            .congestion_control(CongestionControl::Drop)
            .allowed_destination(Locality::Remote)
            .callback(pass_on);
        let begun = Instant::now();
        builder.wait().map_err(broken)?;
        self.choose(replies, (begun, budget), answer_bytes_max, accept).await
    }

    /// The first accepted reply. The end of the stream is not waited for: it can be late by the whole timeout (zenoh #2454).
    /// Nor is Zenoh's own timer trusted: it stops while its threads are stuck.
    async fn choose(
        &self,
        mut replies: mpsc::Receiver<Reply>,
        (begun, budget): (Instant, Duration),
        bytes_max: usize,
        accept: Accept<'_>,
    ) -> Result<Vec<u8>, QueryError> {
        let mut other = None;
        let first_accepted = async {
            while let Some(reply) = replies.recv().await {
                match self.judge(reply, bytes_max) {
                    Ok(bytes) if accept(&bytes) => return Some(bytes),
                    judged => other = other.take().or(Some(judged)),
                }
            }
            // Zenoh drops the callback, and the channel with it, when the query ends.
            None
        };
        match tokio::time::timeout(budget, first_accepted).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => other.unwrap_or_else(|| Err(unanswered(begun, budget))),
            Err(_elapsed) => other.unwrap_or(Err(QueryError::Timeout)),
        }
    }

    fn judge(&self, reply: Reply, bytes_max: usize) -> Result<Vec<u8>, QueryError> {
        match reply.into_result() {
            Ok(sample) if bytes_max < sample.payload().len() => {
                self.intake.count(Refusal::TooLarge);
                Err(QueryError::TooLarge(sample.payload().len()))
            }
            Ok(sample) => Ok(sample.payload().to_bytes().into_owned()),
            Err(error) if is_timeout(&error) => Err(QueryError::Timeout),
            Err(error) => Err(QueryError::Refused(reason(&error))),
        }
    }

    /// Takes the token back and closes the sessions. Whoever comes second waits until the first is done with it. While there is no
    /// thread to do it on, nothing has ended, and it is tried again for as long as somebody waits.
    pub(super) async fn end(self: &Arc<Self>) {
        self.end_on(session::apart).await;
    }

    /// The same on a thread of whatever gives them.
    pub(super) async fn end_on(self: &Arc<Self>, apart: Apart) {
        let mut is_told = false;
        while !self.begin_to_end(apart) {
            if !is_told {
                tracing::warn!("there is no thread to close mesh sessions on; it is tried until there is one");
            }
            is_told = true;
            sleep(END_AGAIN).await;
        }
        self.ended.cancelled().await;
    }

    /// Gives whether the end is under way or over.
    fn begin_to_end(self: &Arc<Self>, apart: Apart) -> bool {
        // Under the lock, so that nobody waits for an end that gets no thread.
        let mut is_ending = self.is_ending.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_ending {
            let (core, ended) = (Arc::clone(self), self.ended.clone());
            *is_ending = apart(Box::pin(async move {
                // Also where it panics.
                let _ended = ended.drop_guard();
                core.close().await;
            }));
        }
        *is_ending
    }

    async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        let token = std::mem::take(&mut *self.lock_presence());
        if let Presence::Declared(token) = token {
            session::note(token.undeclare().wait());
        }
        if let Some(Sessions { home, gates }) = self.sessions.get() {
            home.close().await;
            for gate in gates {
                gate.close().await;
            }
        }
        self.tasks.wait().await;
    }

    fn lock_presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Zenoh's timers, here and in every router on the way, answer with this word as if they were the target. Only a target
/// marks its words as text, so one that refuses with this word refuses.
fn is_timeout(error: &ReplyError) -> bool {
    *error.encoding() != REFUSAL_ENCODING && *error.payload().to_bytes() == *b"Timeout"
}

/// What the end of a stream without any reply means. The target's Zenoh has a timer of its own, which may be heard before
/// ours on a busy machine; inside TLS it ends the query without its word, which has no key and so does not pass.
pub(super) fn unanswered(begun: Instant, budget: Duration) -> QueryError {
    if begun.elapsed() < budget { QueryError::NoReply } else { QueryError::Timeout }
}

fn reason(error: &ReplyError) -> String {
    let bytes = error.payload().to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    text.chars().filter(|it| !it.is_control()).take(REFUSAL_CHARS_MAX).collect()
}

pub(super) fn broken(error: zenoh::Error) -> QueryError {
    QueryError::Session(error.to_string())
}
