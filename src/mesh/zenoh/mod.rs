//! The mesh over Zenoh.
//!
//! `session` opens sessions, `receive` takes in what others send; here is what this node sends. Delivery is at most once and
//! never waits for a congested link longer than `session::WAIT_BEFORE_DROP`: what is lost shows as a missing answer, which
//! the engine handles anyway.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zenoh::bytes::Encoding;
use zenoh::key_expr::KeyExpr;
use zenoh::liveliness::LivelinessToken;
use zenoh::qos::{CongestionControl, Priority};
use zenoh::query::{ConsolidationMode, QueryTarget, Reply, ReplyError};
use zenoh::sample::Locality;
use zenoh::{Session, Wait};

use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::queue::Queue;
use crate::mesh::intake::Intake;
use crate::mesh::key::{SERVICE_DEFAULT, Space};
use crate::mesh::zenoh::redial::Redial;
use crate::mesh::zenoh::session::{Opened, Wires};
use crate::mesh::zenoh::tunnel::Tunnel;
use crate::mesh::zenoh::ways::Ways;
use crate::mesh::{
    Accept, Document, Inbox, Mesh, OpenError, PAYLOAD_BYTES_MAX, Pending, QueryError, Refusal, Refusals, Verb,
};
use crate::tls;

mod apart;
mod gate;
mod receive;
mod redial;
mod secure;
pub(super) mod session;
pub(super) mod tunnel;
mod ways;

#[cfg(test)]
mod partner_tests;
#[cfg(test)]
mod secure_tests;
#[cfg(test)]
mod stranger;
#[cfg(test)]
mod tests;

/// Operations, and the identities they are checked with (plane T2). Values (T1) go above, at `InteractiveHigh`.
const OPERATIONS: Priority = Priority::DataHigh;

/// Diagnostics (plane T3), always below operations.
const DIAGNOSTICS: Priority = Priority::DataLow;

/// How long a closing session may take: the port promises two seconds.
const CLOSE_MAX: Duration = Duration::from_millis(1_900);

/// Pause between a client's attempts to reach one of its routers.
const CLIENT_REDIAL: Duration = Duration::from_secs(1);

/// Most replies to one query that are looked at: one is the target's, the rest are strangers'.
const REPLIES_MAX: usize = 16;

/// How a target marks a refusal's reason.
const REFUSAL_ENCODING: Encoding = Encoding::TEXT_PLAIN;

/// Characters of a refusal that are kept. Codes are far shorter; the rest is somebody else's text in our log.
const REFUSAL_CHARS_MAX: usize = 128;

/// A node's part in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Dials routers and listens to nobody.
    Client,
    /// Dials and is dialled, and carries nobody else's traffic.
    Peer,
    /// Carries others' traffic.
    Router,
}

impl Role {
    /// The role's name in the configuration, ours and Zenoh's.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Router => "router",
        }
    }
}

/// Where nodes are looked for by multicast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scouting {
    /// Nowhere: only configured endpoints, and who is met through them.
    Off,
    /// On this machine.
    Loopback,
    /// On these interfaces, by name or address.
    Interface(Vec<String>),
}

/// Another site, and the way to its routers. One of two partners dials the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partner {
    /// The only site whose nodes may be at the other end.
    pub site: SiteId,
    /// Where its routers come; port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// Its routers to dial, as in [`Options::connect`].
    pub connect: Vec<String>,
    /// Most links with it at once.
    pub links_max: usize,
}

/// How to open the mesh.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who this node is.
    pub runtime: RuntimeId,
    /// Its boot counter.
    pub boot: u64,
    /// The discovery service's name, which every key starts with.
    pub service: String,
    /// The node's part.
    pub role: Role,
    /// Where to listen; port 0 takes a free one. Not used by a client.
    pub listen: SocketAddr,
    /// Whom to dial, for ever: `host:port`, or with `tcp/` or `tls/` before it.
    pub connect: Vec<String>,
    /// How long a silent link counts as up.
    pub lease: Duration,
    /// Who this node is on links. Without it they speak plain TCP; with it they run inside TLS, and nobody is looked for.
    pub tls: Option<Arc<tls::Identity>>,
    /// Other sites to link with, each by its own anchors. Only for a router whose links run inside TLS.
    pub partners: Vec<Partner>,
    /// Where to look for others.
    pub scouting: Scouting,
    /// The multicast group and port to look on, where it is not Zenoh's (`224.0.0.224:7446`).
    pub scouting_address: Option<String>,
}

impl Options {
    /// A peer on `listen` that dials nobody and looks for nobody, with the defaults of a site.
    pub fn new(runtime: RuntimeId, boot: u64, listen: SocketAddr) -> Self {
        Self {
            runtime,
            boot,
            service: SERVICE_DEFAULT.to_owned(),
            role: Role::Peer,
            listen,
            connect: Vec::new(),
            lease: Duration::from_secs(3),
            tls: None,
            partners: Vec::new(),
            scouting: Scouting::Off,
            scouting_address: None,
        }
    }
}

/// An open mesh over Zenoh. Call [`Mesh::close`] before dropping it: a drop waits on its thread until the session is gone.
pub struct ZenohMesh {
    core: Arc<Core>,
    tunnel: Option<Tunnel>,
    gates: Arc<[Opened]>,
    listening: Vec<String>,
}

/// What the node's own tasks share. Zenoh's callbacks hold the intake only.
struct Core {
    space: Space,
    own: RuntimeId,
    boot: u64,
    intake: Arc<Intake>,
    identity: Arc<receive::Identity>,
    /// Set at once for peers and routers; for a client, when the first router has answered.
    session: OnceLock<Opened>,
    ways: Arc<Ways>,
    presence: Mutex<Presence>,
    tasks: TaskTracker,
    stop: CancellationToken,
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

/// Opens the mesh. Returns once this node listens; links come up afterwards.
pub async fn open(options: Options) -> Result<(Arc<ZenohMesh>, Inbox), OpenError> {
    let space = Space::new(&options.service).map_err(|error| OpenError::Session(error.to_string()))?;
    if options.role == Role::Client && options.connect.is_empty() && options.scouting == Scouting::Off {
        return Err(OpenError::Session("a client needs endpoints to dial".into()));
    }
    if !options.partners.is_empty() && (options.tls.is_none() || options.role != Role::Router) {
        return Err(OpenError::Session("only a router inside TLS links with other sites".into()));
    }
    let (intake, inbox) = Intake::new(space.clone(), options.runtime.clone(), options.boot);
    let intake = Arc::new(intake);
    let core = Arc::new(Core {
        space,
        own: options.runtime.clone(),
        boot: options.boot,
        intake: intake.clone(),
        identity: Arc::default(),
        session: OnceLock::new(),
        ways: Arc::default(),
        presence: Mutex::default(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    });
    core.spawn(async move { intake.deliver_backlog().await });
    let tunnel = match &options.tls {
        Some(identity) => Some(Tunnel::open(&options, identity).await?),
        None => None,
    };
    let wires = tunnel.as_ref().map_or_else(|| Wires::tcp(&options), |tunnel| tunnel.wires.clone());
    let (mut listening, mut gates) = (Vec::new(), Vec::new());
    if options.role == Role::Client {
        core.spawn(dial(core.clone(), options, wires));
    } else {
        let opened = session::open(&options, &wires).await?;
        listening = match &tunnel {
            Some(tunnel) => tunnel.listening.clone(),
            None => session::listening(&opened.session).await,
        };
        for (partner, outside) in options.partners.iter().zip(tunnel.iter().flat_map(|it| &it.partners)) {
            gates.push(gate::open(&options, &partner.site, outside, (&opened, &wires)).await?);
        }
        // Inside TLS nobody is dialled but by configuration, and that is Zenoh's to do again.
        if tunnel.is_none() {
            let redial = Redial::watch(&opened, wires.connect);
            let redial = redial.map_err(|error| OpenError::Session(error.to_string()))?;
            core.spawn(redial.run());
        } else if options.role == Role::Peer {
            apart::tell(&opened).map_err(|error| OpenError::Session(error.to_string()))?;
        }
        core.go_live(opened).map_err(|error| OpenError::Session(error.to_string()))?;
    }
    Ok((Arc::new(ZenohMesh { core, tunnel, gates: gates.into(), listening }), inbox))
}

/// Tries a client's routers until one answers. From then on Zenoh itself moves between them.
async fn dial(core: Arc<Core>, options: Options, wires: Wires) {
    loop {
        let opened = session::open(&options, &wires).await.map_err(|error| error.to_string());
        match opened.and_then(|opened| core.go_live(opened).map_err(|error| error.to_string())) {
            Ok(()) => return,
            Err(error) => tracing::debug!(error, "no router reached"),
        }
        tokio::time::sleep(CLIENT_REDIAL).await;
    }
}

impl Core {
    /// Runs a task of this mesh, which ends when the mesh is closed.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopped = self.stop.clone();
        self.tasks.spawn(async move {
            stopped.run_until_cancelled(task).await;
        });
    }

    /// Starts hearing and answering on a session.
    fn go_live(&self, opened: Opened) -> zenoh::Result<()> {
        let clerk = receive::declare(&opened.session, self)?;
        self.spawn(clerk.run());
        let mut presence = self.lock_presence();
        if matches!(*presence, Presence::Wanted) {
            *presence = Presence::Declared(self.declare_token(&opened.session)?);
        }
        // Under the lock, so that an announcement sees either the session or its own wish.
        drop(self.session.set(opened));
        drop(presence);
        // A client may have published before there was anybody to hear it.
        if let Some(bytes) = self.identity.get() {
            self.put(Document::Identity, bytes).map_err(|error| zenoh::Error::from(error.to_string()))?;
        }
        Ok(())
    }

    fn session(&self) -> Result<&Session, QueryError> {
        match self.session.get() {
            None => Err(QueryError::Session("no router reached yet".into())),
            Some(opened) if opened.session.is_closed() => Err(QueryError::Session("closed".into())),
            Some(opened) => Ok(&opened.session),
        }
    }

    fn declare_token(&self, session: &Session) -> zenoh::Result<LivelinessToken> {
        session.liveliness().declare_token(self.space.liveliness(&self.own, self.boot)).wait()
    }

    fn announce(&self) -> Result<(), QueryError> {
        let mut presence = self.lock_presence();
        *presence = match (&*presence, self.session.get()) {
            (Presence::Declared(_), _) => return Ok(()),
            (Presence::Silent | Presence::Wanted, None) => Presence::Wanted,
            (Presence::Silent | Presence::Wanted, Some(_)) => {
                Presence::Declared(self.declare_token(self.session()?).map_err(broken)?)
            }
        };
        Ok(())
    }

    fn put(&self, document: Document, bytes: Vec<u8>) -> Result<(), QueryError> {
        if PAYLOAD_BYTES_MAX < bytes.len() {
            return Err(QueryError::TooLarge(bytes.len()));
        }
        let priority = match document {
            Document::Identity => OPERATIONS,
            Document::Observation => DIAGNOSTICS,
        };
        if document == Document::Identity {
            self.identity.set(bytes.clone());
            if self.session.get().is_none() {
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
    async fn get(
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

    async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        let token = std::mem::take(&mut *self.lock_presence());
        if let Presence::Declared(token) = token {
            session::note(token.undeclare().wait());
        }
        if let Some(opened) = self.session.get() {
            opened.close().await;
        }
        self.tasks.wait().await;
    }

    fn lock_presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mesh for ZenohMesh {
    fn query<'a>(
        &'a self,
        target: &'a RuntimeId,
        verb: Verb,
        payload: Vec<u8>,
        budget: Duration,
        accept: Accept<'a>,
    ) -> Pending<'a, Result<Vec<u8>, QueryError>> {
        let key = self.core.space.rpc(target, verb, &self.core.own);
        Box::pin(async move {
            let key = match verb {
                Verb::Act | Verb::Probe => self.core.ways.to(self.core.session()?, key).map_err(broken)?,
                Verb::Outcome | Verb::Pointers | Verb::Renew | Verb::Run | Verb::Witness => {
                    KeyExpr::try_from(key).map_err(broken)?
                }
            };
            self.core.get(key, payload, (budget, verb.answer_bytes_max()), accept).await
        })
    }

    fn fetch_identity<'a>(
        &'a self,
        runtime: &'a RuntimeId,
        budget: Duration,
        accept: Accept<'a>,
    ) -> Pending<'a, Result<Vec<u8>, QueryError>> {
        let key = self.core.space.document(runtime, Document::Identity);
        Box::pin(async move {
            let key = KeyExpr::try_from(key).map_err(broken)?;
            self.core.get(key, Vec::new(), (budget, PAYLOAD_BYTES_MAX), accept).await
        })
    }

    fn publish<'a>(&'a self, document: Document, bytes: Vec<u8>) -> Pending<'a, Result<(), QueryError>> {
        Box::pin(async move { self.core.put(document, bytes) })
    }

    fn announce<'a>(&'a self) -> Pending<'a, Result<(), QueryError>> {
        Box::pin(async move { self.core.announce() })
    }

    fn listening(&self) -> Vec<String> {
        self.listening.clone()
    }

    fn links(&self) -> Pending<'_, usize> {
        Box::pin(async move {
            let Ok(session) = self.core.session() else { return 0 };
            // What lies between a router and its own gates is no link to anybody.
            let mut links = session.info().transports().await.count();
            for gate in self.gates.iter() {
                let inner = session.zid();
                let transports: Vec<_> = gate.session.info().transports().await.map(|it| *it.zid()).collect();
                let partners = transports.iter().filter(|zid| **zid != inner).count();
                links = links.saturating_add(partners).saturating_sub(usize::from(transports.contains(&inner)));
            }
            links
        })
    }

    fn dismiss(&self, site: &SiteId) {
        if let Some(tunnel) = &self.tunnel {
            tunnel.dismiss(site);
        }
    }

    fn refusals(&self) -> Refusals {
        self.core.intake.refusals()
    }

    fn queues(&self) -> Vec<Queue> {
        self.core.intake.queues().to_vec()
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            let (core, (done, ended)) = (self.core.clone(), oneshot::channel::<()>());
            let gates = Arc::clone(&self.gates);
            session::apart(async move {
                core.close().await;
                for gate in gates.iter() {
                    gate.close().await;
                }
                drop(done);
            });
            let closed = async {
                // Nothing is ever sent: the wait ends when the thread's end is dropped.
                drop(ended.await);
                if let Some(tunnel) = &self.tunnel {
                    tunnel.close().await;
                }
            };
            if tokio::time::timeout(CLOSE_MAX, closed).await.is_err() {
                tracing::warn!("mesh session did not close in time");
            }
        })
    }
}

impl Drop for ZenohMesh {
    fn drop(&mut self) {
        self.core.stop.cancel();
    }
}

impl fmt::Debug for ZenohMesh {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ZenohMesh({} on {:?})", self.core.own, self.listening)
    }
}

/// Zenoh's timers, here and in every router on the way, answer with this word as if they were the target. Only a target
/// marks its words as text, so one that refuses with this word refuses.
fn is_timeout(error: &ReplyError) -> bool {
    *error.encoding() != REFUSAL_ENCODING && *error.payload().to_bytes() == *b"Timeout"
}

/// What the end of a stream without any reply means. The target's Zenoh has a timer of its own, which may be heard before
/// ours on a busy machine; inside TLS it ends the query without its word, which has no key and so does not pass.
fn unanswered(begun: Instant, budget: Duration) -> QueryError {
    if begun.elapsed() < budget { QueryError::NoReply } else { QueryError::Timeout }
}

fn reason(error: &ReplyError) -> String {
    let bytes = error.payload().to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    text.chars().filter(|it| !it.is_control()).take(REFUSAL_CHARS_MAX).collect()
}

fn broken(error: zenoh::Error) -> QueryError {
    QueryError::Session(error.to_string())
}
