//! The mesh over Zenoh.
//!
//! `opener` opens sessions and `session` knows how, `receive` takes in what others send, `core` sends what this node says. Delivery is at most once and
//! never waits for a congested link longer than `session::WAIT_BEFORE_DROP`: what is lost shows as a missing answer, which
//! the engine handles anyway.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zenoh::key_expr::KeyExpr;

use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::queue::Queue;
use crate::mesh::intake::Intake;
use crate::mesh::key::{SERVICE_DEFAULT, Space};
use crate::mesh::zenoh::core::{Core, broken};
use crate::mesh::zenoh::opener::Opener;
use crate::mesh::zenoh::session::Wires;
use crate::mesh::zenoh::tunnel::Tunnel;
use crate::mesh::{Accept, Document, Inbox, Mesh, OpenError, PAYLOAD_BYTES_MAX, Pending, QueryError, Refusals, Verb};
use crate::tls;

mod apart;
mod core;
mod gate;
mod lost;
mod opener;
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

/// How long a closing session may take: the port promises two seconds.
const CLOSE_MAX: Duration = Duration::from_millis(1_900);

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
    /// After how many lost links the sessions are opened anew.
    pub lost_max: u64,
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
            lost_max: lost::LOST_MAX,
        }
    }
}

/// An open mesh over Zenoh. Call [`Mesh::close`] before dropping it: a drop waits on its thread until the session is gone.
pub struct ZenohMesh {
    opener: Opener,
    /// What is said and asked with the sessions of now.
    core: ArcSwap<Core>,
    listening: Vec<String>,
    tasks: TaskTracker,
    /// The sessions that were replaced and have not ended.
    ending: TaskTracker,
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
    let tunnel = match &options.tls {
        Some(identity) => Some(Tunnel::open(&options, identity).await?),
        None => None,
    };
    let wires = tunnel.as_ref().map_or_else(|| Wires::tcp(&options), |tunnel| tunnel.wires.clone());
    let mut opener = Opener {
        options,
        space,
        intake: Arc::new(intake),
        identity: Arc::default(),
        tunnel,
        wires,
        is_announced: AtomicBool::new(false),
        dismissed: Mutex::default(),
        stop: CancellationToken::new(),
    };
    let core = opener.open().await?;
    let listening = opener.settle(&core).await;
    let (tasks, ending) = (TaskTracker::new(), TaskTracker::new());
    let mesh = Arc::new(ZenohMesh { opener, core: ArcSwap::new(core), listening, tasks, ending });
    let (intake, stop) = (Arc::clone(&mesh.opener.intake), mesh.opener.stop.clone());
    let stopped = stop.clone();
    mesh.tasks.spawn(async move {
        stopped.run_until_cancelled(intake.deliver_backlog()).await;
    });
    // Ends by itself then, and leaves no session half open.
    mesh.tasks.spawn(opener::reopen(Arc::downgrade(&mesh), stop));
    Ok((mesh, inbox))
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
        let key = self.opener.space.rpc(target, verb, &self.opener.options.runtime);
        Box::pin(async move {
            let core = self.core.load_full();
            let key = match verb {
                Verb::Act | Verb::Probe => core.ways.to(core.session()?, key).map_err(broken)?,
                Verb::Outcome | Verb::Pointers | Verb::Renew | Verb::Run | Verb::Witness => {
                    KeyExpr::try_from(key).map_err(broken)?
                }
            };
            core.get(key, payload, (budget, verb.answer_bytes_max()), accept).await
        })
    }

    fn fetch_identity<'a>(
        &'a self,
        runtime: &'a RuntimeId,
        budget: Duration,
        accept: Accept<'a>,
    ) -> Pending<'a, Result<Vec<u8>, QueryError>> {
        let key = self.opener.space.document(runtime, Document::Identity);
        Box::pin(async move {
            let key = KeyExpr::try_from(key).map_err(broken)?;
            self.core.load_full().get(key, Vec::new(), (budget, PAYLOAD_BYTES_MAX), accept).await
        })
    }

    fn publish<'a>(&'a self, document: Document, bytes: Vec<u8>) -> Pending<'a, Result<(), QueryError>> {
        Box::pin(async move { self.core.load().put(document, bytes) })
    }

    fn announce<'a>(&'a self) -> Pending<'a, Result<(), QueryError>> {
        Box::pin(async move {
            self.opener.is_announced.store(true, Ordering::SeqCst);
            self.core.load().announce()
        })
    }

    fn listening(&self) -> Vec<String> {
        self.listening.clone()
    }

    fn links(&self) -> Pending<'_, usize> {
        Box::pin(async move { self.core.load_full().links().await })
    }

    fn fault(&self) -> Option<QueryError> {
        self.core.load().session().err()
    }

    fn dismiss(&self, site: &SiteId) {
        self.opener.dismiss(site);
    }

    fn refusals(&self) -> Refusals {
        self.opener.intake.refusals()
    }

    fn queues(&self) -> Vec<Queue> {
        self.opener.intake.queues().to_vec()
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            self.opener.stop.cancel();
            self.tasks.close();
            self.ending.close();
            let closed = async {
                // Nobody opens anything any more.
                self.tasks.wait().await;
                let core = self.core.load_full();
                tokio::join!(core.end(), self.ending.wait());
                if let Some(tunnel) = &self.opener.tunnel {
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
        self.opener.stop.cancel();
    }
}

impl fmt::Debug for ZenohMesh {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ZenohMesh({} on {:?})", self.opener.options.runtime, self.listening)
    }
}
