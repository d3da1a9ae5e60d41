//! From valid settings and a project folder to a running node: the only place that knows every adapter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::audit::{Hash, NoteKey};
use crate::domain::config::Value;
use crate::domain::identity::{self, Fingerprint};
use crate::domain::policy::Pattern;
use crate::domain::preflight::Profile;
use crate::domain::projection::Limits;
use crate::engine::view;
use crate::mesh::zenoh::{self, Role, Scouting};
use crate::mesh::{Inbox, Mesh, OpenError};
use crate::node::certificates::CertificateTrust;
use crate::node::listeners::Listeners;
use crate::node::offers::Offers;
use crate::node::partners::Partners;
use crate::node::project::{self, InForce, InUse, Project};
use crate::node::runs;
use crate::node::work::{self, Work};
use crate::node::{
    self, ApplySettings, Error, Node, OwnIdentity, Parts, Witnessing, bundles, certificates, federation,
};
use crate::settings::{self, MeshRole, Settings};
use crate::store::Store;
use crate::store::runs::{Registry, RunStore};
use crate::store::sqlite::runs::SqliteRuns;
use crate::store::sqlite::{self, SqliteStore};
use crate::tls;
use crate::web;
use crate::workload::Launcher;
use crate::workload::process::Processes;

/// The identity key's file in the state folder.
pub const IDENTITY_FILE: &str = "identity.key";

/// How long the listener may take to end: idle connections end at once, requests in flight are answered.
const WEB_END_MAX: Duration = Duration::from_millis(1_200);

/// A node that serves.
#[derive(Debug)]
pub struct Running {
    node: Node,
    web_ended: Vec<tokio::task::JoinHandle<()>>,
    stop_web: CancellationToken,
    work: Option<tokio::task::JoinHandle<()>>,
    /// Where HTTP is served, with its scheme, if it is.
    pub web: Option<String>,
    /// Where the admin listener is, with its scheme, if it is open.
    pub admin: Option<String>,
    /// The identity that the listener presents, where it is the node's own.
    presented: Option<Arc<tls::Identity>>,
    /// The mesh addresses.
    pub mesh: Vec<String>,
    /// The name of the identity key.
    pub fingerprint: Fingerprint,
    /// Whether the identity key was made just now.
    pub is_new_identity: bool,
    /// The boot counter.
    pub boot: u64,
}

/// The folder that holds the node's state.
pub fn state_folder(project: &Path, settings: &Settings) -> PathBuf {
    project.join(&settings.store.path)
}

/// The files of a node, both of them checked before anything is written.
#[derive(Clone)]
struct Stores {
    audit: Arc<SqliteStore>,
    runs: Arc<SqliteRuns>,
}

/// Opens the stores, binds the listeners, begins a boot, joins the mesh and announces itself. An error leaves nothing bound, and
/// the stores closed as after a stop. A start that is refused before the boot has put nothing on record; one that is refused after
/// it, as for the mesh's port, has left its boot there.
pub async fn run(
    project: &Path,
    settings: &Settings,
    environment: Vec<(String, String)>,
    (set_log_level, note_key): (LogLevel, project::NoteKey),
    stop: CancellationToken,
) -> Result<Running, Error> {
    let agent = agent(settings, &environment).await?;
    let folder = state_folder(project, settings);
    let stores = Stores::open(settings, &folder).await?;
    let outside = (set_log_level, note_key);
    let started = start((project, &folder, settings), environment, agent, stores.clone(), outside, stop).await;
    if started.is_err() {
        stores.close().await;
    }
    started
}

async fn start(
    (project, folder, settings): (&Path, &Path, &Settings),
    environment: Vec<(String, String)>,
    agent: Agent,
    Stores { audit: store, runs }: Stores,
    (set_log_level, note_key): (LogLevel, project::NoteKey),
    stop: CancellationToken,
) -> Result<Running, Error> {
    let certificates = certificates::identity(project, settings, &agent.offers)?;
    let (own, is_new_identity) = own_identity(folder, certificates.as_ref())?;
    let audit_key = super::audit_key::load_or_create(folder, &settings.runtime_id)?;
    store.sign_checkpoints(audit_key.clone());
    let tokens = settings::tokens::load(folder, settings.site())?;
    let credentials = Arc::new(web::Credentials::new(admins(settings, folder)?, tokens.clone()));
    let listener = certificates::listener(project, settings, certificates.as_ref())?;
    let listeners = Listeners::bind(settings, &credentials, listener.secure).await?;
    let (web, admin) = listeners.urls();
    let snapshot = certificates.as_ref().map(|identity| identity.snapshot());
    let federation = federated(project, folder, settings, snapshot.as_deref())?;
    let running = Arc::new(engine_settings(settings, certificates::trust(&own).with(federation.clone())));
    let prepared = node::prepare(running, own, Arc::<SqliteStore>::clone(&store)).await?;
    let (boot, fingerprint) = (prepared.boot(), prepared.fingerprint());
    let (mesh, inbox) = open_mesh(settings, boot, certificates.clone()).await?;
    let (work, runs) = programs(project, folder, settings, &environment, runs);
    let apply = apply_live(Arc::clone(&store), Arc::clone(&runs.store), set_log_level);
    apply(&prepared.applied());
    let listening = mesh.listening();
    let renewing = certificates::renewing(project, settings, certificates.as_ref());
    let mut partners = Partners::new(Arc::clone(&mesh));
    let polls = federation::polls(project, folder, settings, certificates.as_ref()).into_iter();
    let polls: Vec<_> = polls.map(|poll| partners.until_gone(poll.site().clone(), poll.run())).collect();
    let in_use = InUse { identity: certificates, provisioned: listener.provisioned, partners };
    let presents_own = web.is_some() && settings.web.tls && in_use.provisioned.is_none();
    let presented = in_use.identity.clone().filter(|_| presents_own);
    let in_force = InForce { settings: settings.clone(), tokens, federation };
    let sources =
        Arc::new(Project::new(project, folder, environment, in_force, credentials, (in_use, agent.offers, note_key)));
    let parts = Parts {
        mesh,
        inbox,
        web: web.clone(),
        probe_ms: settings.timing.probe_ms.0,
        apply,
        sources,
        witnessing: witnessing(settings, audit_key),
        authority: settings.identity.authority.as_ref().map(|path| project.join(path)),
        renewing,
        workload: work.as_ref().map(|work| work.handle.clone()),
        runs,
        patience: node::Patience::default(),
    };
    let node = prepared.start(parts, stop.clone());
    polls.into_iter().for_each(|poll| node.attend(poll));
    if let Some(following) = agent.following {
        node.attend(following);
    }
    let stop_web = CancellationToken::new();
    let web_ended = listeners.serve(&node, &store, &stop_web);
    node.announce().await;
    let work = work.map(|work| work.begin(stop));
    Ok(Running {
        node,
        web_ended,
        stop_web,
        work,
        web,
        admin,
        presented,
        mesh: listening,
        fingerprint,
        is_new_identity,
        boot,
    })
}

impl Stores {
    async fn open(settings: &Settings, folder: &Path) -> Result<Self, Error> {
        let read_audit_max_mb = settings.store.read_audit_max_mb;
        let audit = Arc::new(sqlite::open(sqlite::Options { folder: folder.to_owned(), read_audit_max_mb })?);
        let runs_kept = usize::try_from(settings.store.runs_kept).unwrap_or(usize::MAX);
        let runs_max_mb = settings.store.runs_max_mb;
        let options = sqlite::runs::Options { folder: folder.to_owned(), runs_kept, runs_max_mb };
        match sqlite::runs::open(&options) {
            Ok(runs) => Ok(Self { audit, runs: Arc::new(runs) }),
            Err(error) => {
                audit.close().await;
                Err(error.into())
            }
        }
    }

    async fn close(&self) {
        tokio::join!(Store::close(&*self.audit), RunStore::close(&*self.runs));
    }
}

/// What this node starts: its workload, and its runs with their store.
fn programs(
    project: &Path,
    folder: &Path,
    settings: &Settings,
    environment: &[(String, String)],
    store: Arc<SqliteRuns>,
) -> (Option<Work>, runs::Outside) {
    let launcher: Arc<dyn Launcher> = Arc::new(Processes::new(project, environment.iter().cloned()));
    let work = Work::of(settings, folder, Arc::clone(&launcher));
    let registry: Arc<dyn Registry> = Arc::<SqliteRuns>::clone(&store);
    (work, runs::Outside { store, registry, launcher, declared: runs::declared(settings) })
}

impl Running {
    /// The key that the listener proves now, where it presents the node's own certificate.
    pub fn web_key(&self) -> Option<Fingerprint> {
        Some(self.presented.as_ref()?.snapshot().own().svid.key)
    }

    /// Resolves when a caller of the node asked it to stop.
    pub async fn stopping(&self) {
        self.node.stopping().await;
    }

    /// Reads the project's files again, as when one of them changes.
    pub async fn reload(&self) {
        self.node.reload().await;
    }

    /// Readiness off, listener ended, goodbye said, work finished, store flushed. The workload ends meanwhile.
    pub async fn shutdown(self) {
        self.node.leave();
        self.stop_web.cancel();
        let ended = futures_util::future::join_all(self.web_ended);
        if tokio::time::timeout(WEB_END_MAX, ended).await.is_err() {
            tracing::warn!("HTTP callers were cut off");
        }
        tokio::join!(self.node.shutdown(), work::ended(self.work));
    }
}

fn witnessing(settings: &Settings, key: NoteKey) -> Witnessing {
    Witnessing {
        key,
        count: usize::try_from(settings.store.witnesses).unwrap_or(0),
        every: Duration::from_millis(settings.store.witness_every.0),
    }
}

/// The agent that gives this node its identity, where the settings ask for one.
#[derive(Default)]
struct Agent {
    offers: Arc<Offers>,
    /// Takes what it offers from now on.
    following: Option<Following>,
}

type Following = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits for what the agent offers first.
#[cfg(feature = "spire")]
async fn agent(settings: &Settings, environment: &[(String, String)]) -> Result<Agent, Error> {
    if settings.identity.source != settings::IdentitySource::Spire {
        return Ok(Agent::default());
    }
    let mut follower = super::spire::Follower::new(settings, environment).map_err(node::KeyError::Agent)?;
    follower.first().await.map_err(node::KeyError::Agent)?;
    let offers = follower.offers();
    Ok(Agent { offers, following: Some(Box::pin(follower.follow())) })
}

/// Without the feature no settings get here that ask for one (`settings::profile`).
#[cfg(not(feature = "spire"))]
#[expect(clippy::unused_async, reason = "it waits where there is an agent")]
async fn agent(_settings: &Settings, _environment: &[(String, String)]) -> Result<Agent, Error> {
    Ok(Agent::default())
}

/// What is known of partners and of the own bundle. A partner's damaged file is told, and stops that partner alone.
fn federated(
    project: &Path,
    state: &Path,
    settings: &Settings,
    snapshot: Option<&tls::Snapshot>,
) -> Result<bundles::Federation, Error> {
    let partners = bundles::Federation::of_partners(state, settings, None);
    for (site, reason) in &partners.damaged {
        tracing::error!(%site, %reason, "nobody speaks for this partner, because its bundle cannot be read");
    }
    let own = bundles::own(project, settings, snapshot).map_err(node::KeyError::from)?;
    Ok(bundles::Federation { own, ..partners })
}

/// The certificate that the settings name, or else the key in the state folder. Gives whether it is new.
fn own_identity(folder: &Path, certificates: Option<&Arc<tls::Identity>>) -> Result<(OwnIdentity, bool), Error> {
    match certificates {
        Some(identity) => Ok((OwnIdentity::Certificate(Arc::clone(identity)), false)),
        None => {
            let (key, is_new) = node::identity_key(&folder.join(IDENTITY_FILE))?;
            Ok((key.into(), is_new))
        }
    }
}

/// The node's own admin token and the configured one, as digests.
fn admins(settings: &Settings, folder: &Path) -> Result<web::Admins, Error> {
    let own = super::admin_token::load_or_create(folder).map_err(Error::Token)?;
    let configured = settings.control.auth_token.as_ref().map(|token| web::digest(token.expose()));
    Ok(web::Admins { own, configured })
}

/// Opens the mesh that the settings ask for; a mesh of one's own where it is disabled.
async fn open_mesh(
    settings: &Settings,
    boot: u64,
    certificates: Option<Arc<tls::Identity>>,
) -> Result<(Arc<dyn Mesh>, Inbox), Error> {
    if !settings.mesh.enabled {
        let (mesh, inbox) = crate::mesh::memory::Hub::new()?.join(settings.runtime_id.clone(), boot);
        return Ok((mesh, inbox));
    }
    if settings.mesh.tls && certificates.is_none() {
        // Never plain text in its place.
        return Err(
            OpenError::Session("runtime.mesh.tls wants a certificate: set runtime.identity.source".into()).into()
        );
    }
    let tls = certificates.filter(|_| settings.mesh.tls);
    let (mesh, inbox) = zenoh::open(zenoh::Options { tls, ..mesh_options(settings, boot) }).await?;
    Ok((mesh, inbox))
}

/// Sets the level of the log while the node runs.
pub type LogLevel = Box<dyn Fn(&str) + Send + Sync>;

/// The live settings that are neither the engine's nor the probes'.
fn apply_live(store: Arc<SqliteStore>, runs: Arc<dyn RunStore>, log_level: LogLevel) -> ApplySettings {
    Box::new(move |values| {
        if let Some(Value::Text(level)) = values.get("log.level") {
            log_level(level);
        }
        if let Some(Value::Int(megabytes)) = values.get("store.read_audit_max_mb") {
            store.set_read_quota(u64::try_from(*megabytes).unwrap_or(u64::MAX));
        }
        if let Some(Value::Int(count)) = values.get("store.runs_kept") {
            runs.set_runs_kept(usize::try_from(*count).unwrap_or(usize::MAX));
        }
        if let Some(Value::Int(megabytes)) = values.get("store.runs_max_mb") {
            runs.set_quota(u64::try_from(*megabytes).unwrap_or(u64::MAX));
        }
    })
}

pub(super) fn engine_settings(settings: &Settings, trust: CertificateTrust) -> view::Settings {
    let timing = settings.timing;
    view::Settings {
        me: settings.runtime_id.clone(),
        trust_domain: settings.identity.trust_domain.clone(),
        profile: match settings.profile {
            settings::Profile::Dev => Profile::Dev,
            settings::Profile::Plant => Profile::Plant,
            settings::Profile::Wan => Profile::Wan,
        },
        is_mesh_on_loopback: settings.is_mesh_on_loopback(),
        is_secure: settings.web.tls && settings.mesh.tls,
        policy_hash: policy_hash(settings),
        policy: settings.policy.clone(),
        authority: trust.authority,
        certificate: trust.own,
        partners: trust.federation.partners,
        damaged: trust.federation.damaged,
        bundle: trust.federation.own,
        grants: granted(settings),
        limits: Limits { period: timing.period_ms, stale: timing.stale_ms, partition: timing.partition_ms },
        offer: settings.offer(),
        receipts_kept: settings.store.receipts_kept,
        file_values: file_values(settings),
        host: settings.discovery.host_group.as_ref().map(ToString::to_string).or_else(host_name),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The live settings as the file gives them, under the names that the API knows.
fn file_values(settings: &Settings) -> BTreeMap<String, Value> {
    let whole = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let timing = settings.timing;
    let hours = settings.store.receipts_kept.0.checked_div(3_600_000).unwrap_or(0);
    [
        ("log.level", Value::Text(settings.log.level.as_str().to_owned())),
        ("mesh.timing.partition_ms", whole(timing.partition_ms.0)),
        ("mesh.timing.period_ms", whole(timing.period_ms.0)),
        ("mesh.timing.probe_ms", whole(timing.probe_ms.0)),
        ("mesh.timing.stale_ms", whole(timing.stale_ms.0)),
        ("store.read_audit_max_mb", whole(settings.store.read_audit_max_mb)),
        ("store.receipts_kept_h", whole(hours)),
        ("store.runs_kept", whole(settings.store.runs_kept)),
        ("store.runs_max_mb", whole(settings.store.runs_max_mb)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Names the policy by its content, whatever the file's layout and order.
fn policy_hash(settings: &Settings) -> Hash {
    Hash::of(&settings.policy.canonical_bytes(&granted(settings)))
}

fn granted(settings: &Settings) -> Vec<(Pattern, identity::Role)> {
    settings.identity.grants.iter().map(|grant| (grant.actor.clone(), grant.role)).collect()
}

fn host_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = text.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn mesh_options(settings: &Settings, boot: u64) -> zenoh::Options {
    let role = match settings.mesh.role {
        MeshRole::Client => Role::Client,
        MeshRole::Peer => Role::Peer,
        MeshRole::Router => Role::Router,
    };
    let scouting = match &settings.discovery.scouting {
        settings::Scouting::Address(address) => Scouting::Interface(vec![address.to_string()]),
        settings::Scouting::Everywhere => Scouting::Interface(vec!["auto".to_owned()]),
        settings::Scouting::Interfaces(names) => Scouting::Interface(names.clone()),
        settings::Scouting::Loopback => Scouting::Loopback,
        settings::Scouting::Off => Scouting::Off,
    };
    zenoh::Options {
        service: settings.discovery.service_name.to_string(),
        role,
        connect: settings.mesh.connect.iter().map(ToString::to_string).collect(),
        lease: Duration::from_millis(settings.timing.lease_ms.0),
        scouting,
        partners: settings.mesh.partners.iter().map(mesh_partner).collect(),
        ..zenoh::Options::new(settings.runtime_id.clone(), boot, settings.mesh.listen)
    }
}

fn mesh_partner(partner: &settings::Partner) -> zenoh::Partner {
    zenoh::Partner {
        site: partner.site.clone(),
        listen: partner.listen,
        connect: partner.connect.iter().map(ToString::to_string).collect(),
        links_max: usize::try_from(partner.links_max).unwrap_or(usize::MAX),
    }
}

/// The fingerprint as people compare it: groups of four digits.
pub fn spoken(fingerprint: &Fingerprint) -> String {
    let digits: Vec<char> = fingerprint.to_string().chars().collect();
    digits.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::run::{End, Event, Kind, Pointer, RunId};
    use crate::domain::time::{Millis, Wall};
    use crate::store::runs::Change;
    use crate::store::runs::memory::MemoryRuns;

    /// A run of an instance, from its start to its end, with an event of that many bytes.
    fn whole(number: u64, instance: u64, bytes: usize) -> Vec<Change> {
        let at = Wall::from_millis(number);
        let event = |index, kind, body: String| Event { index, kind, at, body: body.into() };
        let pointer = Pointer {
            run: RunId::new(at, [3; 10]),
            owner: "s/a".parse().expect("legal"),
            agent: "hello".parse().expect("legal"),
            instance: format!("i{instance}").parse().expect("legal"),
            started: at,
            end: None,
        };
        let run = pointer.run;
        vec![
            Change::Create { pointer, first: event(0, Kind::RunStart, "{}".to_owned()) },
            Change::Append { run, events: vec![event(1, Kind::Log, "x".repeat(bytes))] },
            Change::End {
                run,
                end: End { at, is_error: false, duration: Millis(1) },
                result: None,
                error: None,
                last: event(2, Kind::RunEnd, "{}".to_owned()),
            },
        ]
    }

    #[tokio::test]
    async fn the_settings_of_the_stores_and_of_the_log_are_live() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let options = sqlite::Options { folder: folder.path().to_owned(), read_audit_max_mb: 64 };
        let store = Arc::new(sqlite::open(options).expect("opens"));
        let runs: Arc<dyn RunStore> = Arc::new(MemoryRuns::new(50));
        let level = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&level);
        let set_level =
            Box::new(move |text: &str| text.clone_into(&mut heard.lock().expect("no panic under the lock")));
        let apply = apply_live(store, Arc::clone(&runs), set_level);
        let gone = async |change| runs.commit(change).await.expect("commits").forgotten.len();
        for number in 1..=4 {
            assert_eq!(gone(whole(number, 0, 1)).await, 0);
        }
        let set = |key: &str, value| apply(&BTreeMap::from([(key.to_owned(), value)]));
        set("store.runs_kept", Value::Int(2));
        assert_eq!(gone(whole(5, 0, 1)).await, 3);
        for number in 10..20 {
            assert_eq!(gone(whole(number, number, 200_000)).await, 0);
        }
        set("store.runs_max_mb", Value::Int(1));
        assert!(5 < gone(whole(20, 20, 200_000)).await);
        set("log.level", Value::Text("warn".to_owned()));
        assert_eq!(*level.lock().expect("no panic under the lock"), "warn");
    }
}
