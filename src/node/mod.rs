//! The assembled process: engine, store, mesh and web joined together, started in order and stopped in order.
//!
//! `Parts` takes the adapters as ports, so that tests assemble a node from memory as well as from files and sockets. Nothing
//! is announced before it is bound, and nothing is spoken before it is durable (`driver`).

pub mod acceptance;
mod admin_token;
pub mod archive;
mod arrived;
pub mod assemble;
mod audit_key;
pub mod bundles;
pub mod certificates;
pub mod clock;
mod courier;
pub mod draft;
mod driver;
mod federation;
mod files;
mod ingress;
mod issuer;
mod keyring;
mod listeners;
mod losses;
mod offers;
mod operations;
mod partners;
mod plan_hash;
mod presence;
mod project;
mod reach;
mod reload;
mod renewal;
pub mod runs;
#[cfg(feature = "spire")]
mod spire;
#[cfg(test)]
mod tests;
mod trace;
mod witness;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::config::Value;
use crate::domain::identity::{Fingerprint, IdentityKey};
use crate::engine::Engine;
use crate::engine::effect::Effects;
use crate::engine::view::{Settings, View};
use crate::handle::Operations;
use crate::handle::runs::Runs;
use crate::mesh::{Inbox, Mesh};
use crate::metrics::Metrics;
use crate::node::clock::{Clock, SystemEntropy};
use crate::node::courier::Courier;
use crate::node::driver::{Driver, MAILBOX_MAX};
use crate::node::ingress::{Counters, Ingress};
use crate::node::issuer::Issuer;
use crate::node::keyring::Keyring;
use crate::node::operations::{NodeOperations, SharedNode};
use crate::node::plan_hash::PlanKey;
use crate::node::presence::{Presence, SelfDescription};
use crate::node::reach::{MeshRuns, Reach, ReachParts};
use crate::node::renewal::Renewer;
use crate::node::runs::{Keeper, LocalRuns};
use crate::node::witness::Witnesses;
use crate::store::Store;
use crate::workload::supervisor::Handle as WorkloadHandle;

pub use driver::ApplySettings;
pub use files::open_files;
pub use keyring::{Error as KeyError, OwnIdentity};
pub use presence::API_VERSION;
pub use project::NoteKey;
pub use reach::Patience;
pub use reload::{Fresh, Sources, Stamp};
pub use renewal::Renewing;
pub use witness::Witnessing;

pub use crate::store::Error as StoreError;

/// How long what is in flight may take to finish at a stop. With the listener's end, the last commit and the closing of store
/// and mesh (two seconds at most, together) a stop stays below five seconds.
const DRAIN_MAX: Duration = Duration::from_millis(800);

/// How long the last commit may take. A disk that hangs must not keep the process.
const COMMIT_MAX: Duration = Duration::from_millis(600);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read or written.
    #[error("{0}")]
    Store(#[from] crate::store::Error),
    /// The stored facts do not make an engine.
    #[error("{0}")]
    Recover(#[from] crate::engine::RecoverError),
    /// The HTTP listener cannot be bound.
    #[error(
        "runtime.web.listen: cannot listen on {address}: {source}; change it in runtime.toml if another program has it"
    )]
    Web {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The node's own admin token cannot be read or made.
    #[error("{0}")]
    Token(std::io::Error),
    /// The file of the node's tokens is not what it should be.
    #[error("{0}")]
    Tokens(#[from] crate::settings::tokens::Error),
    /// The mesh cannot be opened.
    #[error("{0}")]
    Mesh(#[from] crate::mesh::OpenError),
    /// The identity key cannot be loaded or made.
    #[error("{0}")]
    Key(#[from] KeyError),
}

/// A node whose engine has begun its boot, not yet on the mesh.
pub struct Prepared {
    clock: Clock,
    engine: Engine,
    store: Arc<dyn Store>,
    keyring: Arc<Keyring>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Prepared").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// Loads the identity key of a project folder's state, or makes it. Gives whether it is new.
pub fn identity_key(path: &Path) -> Result<(IdentityKey, bool), KeyError> {
    keyring::load_or_create(path)
}

/// Recovers the engine and makes the new boot durable.
pub async fn prepare(
    settings: Arc<Settings>,
    identity: impl Into<OwnIdentity>,
    store: Arc<dyn Store>,
) -> Result<Prepared, Error> {
    let clock = Clock::start();
    let now = clock.now();
    let records = store.recall().await?;
    let keyring = Arc::new(Keyring::new(identity.into(), settings.me.clone(), now.wall)?);
    let fingerprint = keyring.keys().signer().identity;
    let lost = losses::drafts(store.losses(), &settings, now, &mut SystemEntropy);
    let (engine, Effects { mut batch, after: _ }) =
        Engine::start(settings, fingerprint, records, now, &mut SystemEntropy)?;
    batch.audits.extend(lost);
    store.commit(batch).await?;
    let metrics = Arc::new(Metrics::default());
    metrics.audit_length(store.length().await?);
    Ok(Prepared { clock, engine, store, keyring, metrics })
}

/// What a running node needs beside the prepared engine.
pub struct Parts {
    /// The open mesh.
    pub mesh: Arc<dyn Mesh>,
    /// Its receiving ends.
    pub inbox: Inbox,
    /// Where the HTTP listener is, as others may know it.
    pub web: Option<String>,
    /// How often peers are probed, in milliseconds.
    pub probe_ms: u64,
    /// Applies live settings outside the engine.
    pub apply: ApplySettings,
    /// The files to read again when they change.
    pub sources: Arc<dyn Sources>,
    /// How heads of logs are countersigned.
    pub witnessing: Witnessing,
    /// The folder of the site's authority, where this node renews certificates with it.
    pub authority: Option<PathBuf>,
    /// How the own certificate is renewed, if it is.
    pub renewing: Option<Renewing>,
    /// The workload, if there is one.
    pub workload: Option<WorkloadHandle>,
    /// What runs need of the outside.
    pub runs: runs::Outside,
    /// How long to wait for the runtimes that have other runs.
    pub patience: Patience,
}

impl fmt::Debug for Parts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Parts").field("mesh", &self.mesh).field("web", &self.web).finish_non_exhaustive()
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    operations: SharedNode,
    presence: Arc<Presence>,
    ingress: Arc<Ingress>,
    mesh: Arc<dyn Mesh>,
    store: Arc<dyn Store>,
    keeper: Arc<Keeper>,
    runs: Arc<MeshRuns>,
    /// What is in flight: finished or answered at a stop.
    work: TaskTracker,
    /// The loop, which ends last.
    core: TaskTracker,
    stop: CancellationToken,
    stop_core: CancellationToken,
    is_ready: Arc<AtomicBool>,
}

impl Prepared {
    /// This boot's counter, which the liveliness token carries.
    pub fn boot(&self) -> u64 {
        self.engine.view().boot
    }

    /// The name of this node's identity key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.engine.view().identity
    }

    /// Values applied at run time in earlier boots, for the parts outside the engine.
    pub fn applied(&self) -> BTreeMap<String, Value> {
        self.engine.view().overlay.values.clone()
    }

    /// Joins the parts and starts the loops. `stop` is cancelled to begin the stop.
    pub fn start(self, parts: Parts, stop: CancellationToken) -> Node {
        let Self { clock, engine, store, keyring, metrics } = self;
        let views = Arc::new(ArcSwap::from_pointee(engine.view()));
        let (mailbox, mails) = mpsc::channel(MAILBOX_MAX);
        let (urgent, first) = mpsc::channel(driver::URGENT_MAX);
        let (work, core) = (TaskTracker::new(), TaskTracker::new());
        let stop_core = CancellationToken::new();
        let probe_ms = Arc::new(AtomicU64::new(probe_period(&engine, parts.probe_ms)));
        let apply = apply_with_probe(parts.apply, Arc::clone(&probe_ms));
        let (errands, accepted) = mpsc::channel(driver::ERRANDS_MAX);
        let left = engine.view().runs.values().cloned().collect();
        let driver = Driver {
            engine,
            clock,
            store: Arc::clone(&store),
            views: Arc::clone(&views),
            keyring: Arc::clone(&keyring),
            tasks: work.clone(),
            apply,
            mailbox: mails,
            urgent: first,
            errands: errands.clone(),
            metrics: Arc::clone(&metrics),
            retry_at: clock.now().monotonic,
        };
        core.spawn(driver.run(stop_core.clone()));
        let around = (clock, Arc::clone(&views), mailbox.clone(), Arc::clone(&metrics));
        let keeper = Keeper::new(around, (parts.runs, parts.workload.clone()), stop.clone());
        core.spawn(Arc::clone(&keeper).run(left, accepted));
        let (mesh, witnessing) = (parts.mesh, parts.witnessing);
        let issuer = parts.authority.map(|folder| Arc::new(Issuer::new(folder, mailbox.clone())));
        let (renewing, workload) = (parts.renewing, parts.workload);
        let around = ReachParts {
            clock,
            views: Arc::clone(&views),
            keyring: Arc::clone(&keyring),
            mesh: Arc::clone(&mesh),
            audit: Arc::clone(&store),
            refused: Counters::default(),
            tasks: work.clone(),
            stop: stop.clone(),
        };
        let local = LocalRuns::new(Arc::clone(&keeper), mailbox.clone());
        let reach = Reach::new(around, Arc::new(local), parts.patience);
        let assembly = Assembly {
            clock,
            views,
            mailbox,
            urgent,
            keyring,
            store,
            mesh,
            witnessing,
            issuer,
            renewing,
            workload,
            keeper,
            reach,
            work,
            core,
            stop,
            stop_core,
            metrics,
            errands: errands.downgrade(),
        };
        assembly.node(parts.inbox, parts.web, probe_ms, parts.sources)
    }
}

/// What the overlay of earlier boots says of the probes, or else the file.
fn probe_period(engine: &Engine, file: u64) -> u64 {
    match engine.view().overlay.values.get("mesh.timing.probe_ms") {
        Some(Value::Int(applied)) => u64::try_from(*applied).unwrap_or(file),
        Some(Value::Bool(_) | Value::Text(_) | Value::Other(_)) | None => file,
    }
}

fn apply_with_probe(outside: ApplySettings, probe_ms: Arc<AtomicU64>) -> ApplySettings {
    Box::new(move |values| {
        if let Some(Value::Int(millis)) = values.get("mesh.timing.probe_ms") {
            probe_ms.store(u64::try_from(*millis).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        outside(values);
    })
}

/// The shared pieces while the node is put together.
struct Assembly {
    clock: Clock,
    views: Arc<ArcSwap<View>>,
    mailbox: mpsc::Sender<driver::Mail>,
    urgent: mpsc::Sender<driver::Mail>,
    keyring: Arc<Keyring>,
    store: Arc<dyn Store>,
    mesh: Arc<dyn Mesh>,
    witnessing: Witnessing,
    issuer: Option<Arc<Issuer>>,
    renewing: Option<Renewing>,
    workload: Option<WorkloadHandle>,
    keeper: Arc<Keeper>,
    reach: Reach,
    work: TaskTracker,
    core: TaskTracker,
    stop: CancellationToken,
    stop_core: CancellationToken,
    metrics: Arc<Metrics>,
    errands: mpsc::WeakSender<driver::Errand>,
}

impl Assembly {
    fn node(self, inbox: Inbox, web: Option<String>, probe_ms: Arc<AtomicU64>, sources: Arc<dyn Sources>) -> Node {
        let links = Arc::new(AtomicU64::new(0));
        let is_ready = Arc::new(AtomicBool::new(false));
        let ingress = Arc::new(self.ingress());
        ingress.spawn(inbox, &self.stop);
        let presence = Arc::new(self.presence(&ingress, web, probe_ms, &links));
        self.work.spawn(Arc::clone(&presence).speak(self.stop.clone()));
        self.work.spawn(Arc::clone(&presence).probe(self.stop.clone()));
        self.work.spawn(Arc::new(self.witnesses()).run(self.stop.clone()));
        if let Some(renewer) = self.renewer() {
            self.work.spawn(renewer.run(self.stop.clone()));
        }
        let runs = self.reach.begin();
        let operations = Arc::new(self.operations(&ingress, &is_ready, &links, sources));
        self.work.spawn(Arc::clone(&operations).watch(self.stop.clone()));
        let operations = SharedNode(operations);
        let Self { store, mesh, keeper, work, core, stop, stop_core, .. } = self;
        Node { operations, presence, ingress, mesh, store, keeper, runs, work, core, stop, stop_core, is_ready }
    }

    fn ingress(&self) -> Ingress {
        Ingress {
            clock: self.clock,
            views: Arc::clone(&self.views),
            mailbox: self.mailbox.clone(),
            store: Arc::clone(&self.store),
            keyring: Arc::clone(&self.keyring),
            mesh: Arc::clone(&self.mesh),
            tasks: self.work.clone(),
            metrics: Arc::clone(&self.metrics),
            refused: self.reach.refused(),
            witnessing: self.witnessing.clone(),
            issuer: self.issuer.clone(),
            desk: self.reach.desk(),
        }
    }

    fn renewer(&self) -> Option<Renewer> {
        Some(Renewer {
            clock: self.clock,
            views: Arc::clone(&self.views),
            mesh: Arc::clone(&self.mesh),
            own_issuer: self.issuer.clone(),
            options: self.renewing.clone()?,
        })
    }

    fn witnesses(&self) -> Witnesses {
        Witnesses {
            clock: self.clock,
            views: Arc::clone(&self.views),
            mailbox: self.mailbox.clone(),
            keyring: Arc::clone(&self.keyring),
            mesh: Arc::clone(&self.mesh),
            store: Arc::clone(&self.store),
            options: self.witnessing.clone(),
            heard: Mutex::default(),
        }
    }

    fn presence(
        &self,
        ingress: &Arc<Ingress>,
        web: Option<String>,
        probe_ms: Arc<AtomicU64>,
        links: &Arc<AtomicU64>,
    ) -> Presence {
        Presence {
            clock: self.clock,
            views: Arc::clone(&self.views),
            mailbox: self.mailbox.clone(),
            keyring: Arc::clone(&self.keyring),
            mesh: Arc::clone(&self.mesh),
            ingress: Arc::clone(ingress),
            about: SelfDescription {
                version: self.views.load().settings.version.clone(),
                capabilities: self.views.load().settings.offer.capabilities(),
                web,
            },
            probe_ms,
            workload: self.workload.clone(),
            links: Arc::clone(links),
            sequence: AtomicU64::new(0),
            runs_head: self.reach.head(),
        }
    }

    fn operations(
        &self,
        ingress: &Arc<Ingress>,
        is_ready: &Arc<AtomicBool>,
        links: &Arc<AtomicU64>,
        sources: Arc<dyn Sources>,
    ) -> NodeOperations {
        let courier = Courier {
            clock: self.clock,
            views: Arc::clone(&self.views),
            keyring: Arc::clone(&self.keyring),
            mesh: Arc::clone(&self.mesh),
            sequence: AtomicU64::new(0),
            refused: ingress.refused.clone(),
            stop: self.stop.clone(),
        };
        NodeOperations {
            clock: self.clock,
            views: Arc::clone(&self.views),
            mailbox: self.mailbox.clone(),
            urgent: self.urgent.clone(),
            store: Arc::clone(&self.store),
            runs: Arc::clone(&self.keeper.outside.store),
            courier: Arc::new(courier),
            ingress: Arc::clone(ingress),
            plan_key: PlanKey::random(),
            tasks: self.work.clone(),
            stop: self.stop.clone(),
            is_ready: Arc::clone(is_ready),
            links: Arc::clone(links),
            sources,
            workload: self.workload.clone(),
            reloading: tokio::sync::Mutex::default(),
            metrics: Arc::clone(&self.metrics),
            errands: self.errands.clone(),
        }
    }
}

impl Node {
    /// What callers of this node may do.
    pub fn operations(&self) -> Arc<dyn Operations> {
        Arc::new(self.operations.clone())
    }

    /// The runs of this node, and those of all others that can be seen from it.
    pub fn runs(&self) -> Arc<dyn Runs> {
        Arc::<MeshRuns>::clone(&self.runs)
    }

    /// Does something beside the node's own loops until the node stops.
    fn attend(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.work.spawn(self.stop.clone().run_until_cancelled_owned(task));
    }

    /// Declares presence on the mesh; from now on the node is ready.
    pub async fn announce(&self) {
        if let Err(error) = self.mesh.announce().await {
            tracing::warn!(%error, "the liveliness token was not declared");
        }
        self.is_ready.store(true, Ordering::Relaxed);
    }

    /// Reads the files again, as when one of them changes.
    pub async fn reload(&self) {
        // What could not be taken up is on the log.
        let _is_taken_up = self.operations.0.take_up_changes().await;
    }

    /// Not ready any more: whoever watches readiness stops sending.
    pub fn leave(&self) {
        self.is_ready.store(false, Ordering::Relaxed);
        self.stop.cancel();
    }

    /// Resolves when somebody asked this node to stop.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Says goodbye, finishes or answers what is in flight, flushes the store. Call after the web listener has ended.
    pub async fn shutdown(self) {
        self.is_ready.store(false, Ordering::Relaxed);
        self.stop.cancel();
        tokio::join!(self.drain(), self.keeper.ended());
        self.keeper.close_store().await;
        tokio::join!(self.store.close(), self.mesh.close());
        tracing::debug!(refused = ?self.ingress.refused.snapshot(), "stopped");
    }

    /// What is in flight is finished or answered, and the last commit made.
    async fn drain(&self) {
        let presence = Arc::clone(&self.presence);
        // As work, which has a bound: a congested link may hold it up.
        self.work.spawn(async move { presence.say_goodbye().await });
        self.work.close();
        if tokio::time::timeout(DRAIN_MAX, self.work.wait()).await.is_err() {
            tracing::warn!("work in flight was cut off: its outcome is recorded as unknown at the next start");
        }
        self.stop_core.cancel();
        self.core.close();
        if tokio::time::timeout(COMMIT_MAX, self.core.wait()).await.is_err() {
            tracing::error!("the disk does not answer; what was not acknowledged is lost");
        }
        // The last turn may have signed receipts: they are short.
        if tokio::time::timeout(Duration::from_millis(200), self.work.wait()).await.is_err() {
            tracing::debug!("a late receipt was not sent; its origin will ask again");
        }
    }
}
