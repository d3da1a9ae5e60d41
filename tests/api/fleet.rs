//! A hand-made fleet of four runtimes, a node that answers from it, and a store of audit records in memory.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use trust_runtime::domain::action::Action;
use trust_runtime::domain::audit::{AuditId, Draft, Entry, Hash, NoteKey, Position};
use trust_runtime::domain::code::Code;
use trust_runtime::domain::config::Overlay;
use trust_runtime::domain::envelope::{Health, Response as Brought};
use trust_runtime::domain::identity::token::Tokens;
use trust_runtime::domain::identity::{Fingerprint, TrustState};
use trust_runtime::domain::offer::Offer;
use trust_runtime::domain::policy::{Decision, Policy};
use trust_runtime::domain::preflight::{Asker, Plan, Profile};
use trust_runtime::domain::projection::{Edge, EdgeState, Lifecycle, Limits as Freshness, Link, Presence};
use trust_runtime::domain::queue::Queue;
use trust_runtime::domain::time::{Millis, Monotonic, Now, Wall};
use trust_runtime::engine::record::{Batch, Record};
use trust_runtime::engine::view::{Basis, Category, ClockState, Event, Peer, Settings, Severity, View};
use trust_runtime::engine::word::Identity;
use trust_runtime::handle::runs::Runs;
use trust_runtime::handle::{self, Control, Dispatched, Failure, Operations, Preflight, Reloaded, TargetOutcome};
use trust_runtime::metrics::Metrics;
use trust_runtime::store::{self, Chain, Filter, Full, Page, Store};
use trust_runtime::web::{self, Admins, App, Auth, Credentials, Limits, Options, PeerAddress, State};

/// The admin's token.
/// The admin token of the settings.
pub(crate) const CONFIGURED: &str = "the-admin-token-of-the-settings";

pub(crate) const TOKEN: &str = "trt1_00_an-admin-token-of-43-characters-0123456789";

/// A moment that every test can reckon with: 100 s after the epoch and 100 s after the start.
pub(crate) const NOW_NS: u64 = 100_000_000_000;

/// The address as which the app in process is served.
pub(crate) const BOUND: &str = "127.0.0.1:8080";

/// A body of a read of one target.
pub(crate) const READ: &str = r#"{"api_version":"1.0","request_id":"r-1","connected_via":"a","target_runtimes":["b"],
    "actor":"spiffe://trust/site-1/engineer-1","action_type":"status_read"}"#;

/// A node that answers from its view, and remembers what it was told.
#[derive(Debug)]
pub(crate) struct FakeNode {
    pub(crate) view: Mutex<Arc<View>>,
    pub(crate) now: Mutex<Now>,
    pub(crate) recorded: Mutex<Vec<Draft>>,
    pub(crate) controlled: Mutex<Vec<(Asker, Control)>>,
    /// What the next reload brings.
    pub(crate) reloaded: Mutex<Reloaded>,
    pub(crate) dispatched: Mutex<Vec<handle::Request>>,
    /// Times at which the view was asked for: nothing before the guard may do so.
    pub(crate) views: AtomicUsize,
    pub(crate) is_ready: AtomicBool,
    /// How far the clock goes on at each look at it, in milliseconds.
    pub(crate) pace: AtomicU64,
    /// What `record`, `control` and `dispatch` fail with.
    pub(crate) failure: Mutex<Option<Failure>>,
    /// Held by a test to keep dispatches waiting.
    pub(crate) gate: tokio::sync::Semaphore,
    pub(crate) metrics: Metrics,
    pub(crate) refused: Mutex<BTreeMap<&'static str, u64>>,
    /// Why it is at no mesh.
    pub(crate) mesh_fault: Mutex<Option<String>>,
}

impl FakeNode {
    fn fail(&self) -> Result<(), Failure> {
        self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    /// Changes the view as the engine does: a new one with a higher generation.
    pub(crate) fn change(&self, change: impl FnOnce(&mut View)) {
        let mut slot = self.view.lock().unwrap();
        let mut view = View::clone(&slot);
        change(&mut view);
        view.generation += 1;
        *slot = Arc::new(view);
    }

    pub(crate) fn pass(&self, millis: u64) {
        let mut now = self.now.lock().unwrap();
        now.wall = now.wall.plus(Millis(millis));
        now.monotonic = now.monotonic.plus(Millis(millis));
    }
}

impl Operations for FakeNode {
    fn view(&self) -> Arc<View> {
        self.views.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.view.lock().unwrap())
    }

    fn now(&self) -> Now {
        self.pass(self.pace.load(Ordering::Relaxed));
        *self.now.lock().unwrap()
    }

    fn preflight(&self, request: &handle::Request) -> Preflight {
        let plan = self.view().plan(&request.asker, &request.action, &request.targets, self.now());
        let plan_hash = hash_of(&plan);
        Preflight { plan, plan_hash }
    }

    fn planned(&self, plan_hash: &str, _request: &handle::Request, plan: &Plan) -> Option<Basis> {
        (plan_hash == hash_of(plan)).then(|| self.view().basis(plan))
    }

    fn dispatch(&self, request: handle::Request) -> handle::Pending<'_, Result<Dispatched, Failure>> {
        Box::pin(async move {
            let _waited = self.gate.acquire().await.unwrap();
            self.fail()?;
            let preflight = self.preflight(&request);
            let outcomes = if preflight.plan.is_allowed() { self.outcomes(&request) } else { Vec::new() };
            self.dispatched.lock().unwrap().push(request);
            Ok(Dispatched { preflight, outcomes })
        })
    }

    fn control(&self, asker: Asker, control: Control) -> handle::Pending<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.fail()?;
            self.controlled.lock().unwrap().push((asker, control));
            Ok(())
        })
    }

    fn reload(&self, _asker: Asker) -> handle::Pending<'_, Result<Reloaded, Failure>> {
        Box::pin(async move {
            self.fail()?;
            Ok(self.reloaded.lock().unwrap().clone())
        })
    }

    fn record(&self, draft: Draft) -> Result<(), Failure> {
        self.fail()?;
        self.recorded.lock().unwrap().push(draft);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    fn mesh_links(&self) -> usize {
        2
    }

    fn mesh_fault(&self) -> Option<String> {
        self.mesh_fault.lock().unwrap().clone()
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().unwrap().clone()
    }

    fn queues(&self) -> Vec<Queue> {
        vec![Queue { name: "mailbox", length: 3, capacity: 10 }]
    }
}

impl FakeNode {
    fn outcomes(&self, request: &handle::Request) -> Vec<TargetOutcome> {
        let now = self.now();
        let response = match &request.action {
            Action::CfgApply(values) => Brought::Applied { revision: 8, keys: values.keys().cloned().collect() },
            Action::CmdInvoke(_) => Brought::Pong,
            Action::StatusRead => Brought::Status(Box::new(self.view().status(now))),
        };
        let outcome = |target: &_| TargetOutcome {
            target: Clone::clone(target),
            result: Ok(response.clone()),
            audit_id: Some(AuditId::new(now.wall, [7; 10])),
            receipt: Some(b"signed".to_vec()),
        };
        request.targets.iter().map(outcome).collect()
    }
}

fn hash_of(plan: &Plan) -> String {
    let decided: Vec<_> =
        plan.rows.iter().map(|row| (&row.target, matches!(row.decision, Decision::Allow { .. }))).collect();
    Hash::of(format!("{decided:?}").as_bytes()).to_string()
}

/// Audit records in memory, newest first.
#[derive(Debug, Default)]
pub(crate) struct FakeStore {
    pub(crate) entries: Mutex<Vec<(Chain, Entry)>>,
    pub(crate) asked: Mutex<Vec<Filter>>,
    pub(crate) fault: Mutex<Option<store::Error>>,
}

impl Store for FakeStore {
    fn commit(&self, _batch: Batch) -> store::Pending<'_, Result<Vec<Position>, store::Error>> {
        unimplemented!("web never writes")
    }

    fn recall(&self) -> store::Pending<'_, Result<Vec<Record>, store::Error>> {
        unimplemented!("web never recovers")
    }

    fn append_reads(&self, _drafts: Vec<Draft>) -> Result<(), Full> {
        unimplemented!("web never writes")
    }

    fn audit(&self, filter: Filter) -> store::Pending<'_, Result<Page, store::Error>> {
        Box::pin(async move {
            if let Some(fault) = self.fault.lock().unwrap().clone() {
                return Err(fault);
            }
            let all = self.entries.lock().unwrap();
            let older = |entry: &Entry| filter.before.is_none_or(|before| entry.draft.audit_id < before);
            let mut entries: Vec<_> = all.iter().filter(|(_, entry)| older(entry)).cloned().collect();
            let has_more = filter.limit < entries.len();
            entries.truncate(filter.limit);
            self.asked.lock().unwrap().push(filter);
            Ok(Page { entries, has_more })
        })
    }

    fn position(&self, _audit_id: AuditId) -> store::Pending<'_, Result<Option<Position>, store::Error>> {
        unimplemented!("web never asks")
    }

    fn length(&self) -> store::Pending<'_, Result<u64, store::Error>> {
        unimplemented!("web never asks")
    }

    fn sign_checkpoints(&self, _key: NoteKey) {
        unimplemented!("web never signs")
    }

    fn checkpoint(&self) -> store::Pending<'_, Result<Option<String>, store::Error>> {
        unimplemented!("web never asks")
    }

    fn growth(&self, _from: u64) -> store::Pending<'_, Result<Option<store::Growth>, store::Error>> {
        unimplemented!("web never asks")
    }

    fn fault(&self) -> Option<store::Error> {
        self.fault.lock().unwrap().clone()
    }

    fn close(&self) -> store::Pending<'_, ()> {
        Box::pin(async {})
    }
}

/// The app with its fakes.
pub(crate) struct Bench {
    pub(crate) node: Arc<FakeNode>,
    pub(crate) store: Arc<FakeStore>,
    pub(crate) app: App,
    pub(crate) options: Options,
    pub(crate) runs: Option<Arc<dyn Runs>>,
}

/// An app over the hand-made fleet, in `dev`.
pub(crate) fn bench() -> Bench {
    bench_with(|_| {})
}

pub(crate) fn bench_with(change: impl FnOnce(&mut Options)) -> Bench {
    let admins = Admins { own: web::digest(TOKEN), configured: Some(web::digest(CONFIGURED)) };
    let mut options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        hosts: vec!["Panel.example".into(), "proxy.example:9000".into()],
        auth: Auth::Local,
        credentials: Arc::new(Credentials::new(admins, Tokens::default())),
        secure: None,
        surface: web::Surface::Public,
        is_debug: false,
        limits: Limits {
            head_read: Duration::from_millis(500),
            body_read: Duration::from_millis(500),
            ..Limits::default()
        },
    };
    change(&mut options);
    let node = Arc::new(FakeNode {
        view: Mutex::new(Arc::new(view())),
        now: Mutex::new(Now { wall: Wall(NOW_NS), monotonic: Monotonic(NOW_NS) }),
        recorded: Mutex::default(),
        controlled: Mutex::default(),
        reloaded: Mutex::default(),
        dispatched: Mutex::default(),
        views: AtomicUsize::default(),
        is_ready: AtomicBool::new(true),
        pace: AtomicU64::default(),
        failure: Mutex::default(),
        gate: tokio::sync::Semaphore::new(1_000),
        metrics: Metrics::default(),
        refused: Mutex::default(),
        mesh_fault: Mutex::default(),
    });
    let store = Arc::new(FakeStore::default());
    let state = State { node: node.clone(), store: store.clone(), runs: None, options: options.clone() };
    let app = App::new(state, BOUND.parse().unwrap());
    node.views.store(0, Ordering::Relaxed);
    Bench { node, store, app, options, runs: None }
}

impl Bench {
    pub(crate) fn state(&self) -> State {
        State {
            node: self.node.clone(),
            store: self.store.clone(),
            runs: self.runs.clone(),
            options: self.options.clone(),
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Seen {
        Seen::of(self.app.answer(request).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Seen {
        self.send(get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<String>) -> Seen {
        self.send(post(path, body)).await
    }

    pub(crate) async fn post_as_admin(&self, path: &str, body: impl Into<String>) -> Seen {
        let mut request = post(path, body);
        request.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        self.send(request).await
    }
}

/// A request from this machine with a good Host.
pub(crate) fn get(path: &str) -> axum::http::request::Builder {
    Request::get(path).header("host", "localhost").extension(loopback())
}

pub(crate) fn post(path: &str, body: impl Into<String>) -> Request<Body> {
    Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .extension(loopback())
        .body(Body::from(body.into()))
        .unwrap()
}

pub(crate) fn loopback() -> PeerAddress {
    PeerAddress("127.0.0.1:40000".parse::<SocketAddr>().unwrap())
}

/// An answer as its reader sees it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Self { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The member at a JSON pointer, `null` when absent.
    pub(crate) fn at(&self, pointer: &str) -> Value {
        self.json().pointer(pointer).cloned().unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// `a` (this runtime), `b` online on the same host, `c` silent for 3 s, `site-2/d` never heard since the start.
pub(crate) fn view() -> View {
    let peers = [
        ("site-1/b", peer(2, 99_500, true)),
        ("site-1/c", peer(3, 97_000, true)),
        ("site-2/d", Peer { presence: Presence::default(), heard_at: None, ..peer(4, 0, false) }),
    ];
    let peers = peers.into_iter().map(|(id, peer)| (id.parse().unwrap(), Arc::new(peer))).collect();
    View {
        generation: 1,
        settings: Arc::new(settings(Profile::Dev)),
        limits: Freshness::default(),
        identity: Fingerprint([1; 32]),
        retired: Arc::default(),
        boot: 5,
        started: Now { wall: Wall(90_000_000_000), monotonic: Monotonic(90_000_000_000) },
        peers,
        witnessing: Arc::default(),
        overlay: Arc::new(Overlay { revision: 7, ..Overlay::default() }),
        runs: Arc::default(),
        timeline: Arc::new(VecDeque::from([event(1, "site-1/b", "b is online"), event(2, "site-2/d", "d is offline")])),
        clock: ClockState::Certain,
        refused: Arc::default(),
        is_read_only: false,
    }
}

pub(crate) fn settings(profile: Profile) -> Settings {
    Settings {
        me: "site-1/a".parse().unwrap(),
        trust_domain: "trust".parse().unwrap(),
        profile,
        is_mesh_on_loopback: true,
        is_secure: profile != Profile::Dev,
        policy: Policy::default(),
        policy_hash: Hash([9; 32]),
        authority: None,
        certificate: None,
        partners: BTreeMap::new(),
        damaged: BTreeMap::new(),
        bundle: Some(Arc::new(trust_runtime::domain::identity::bundle::Bundle {
            sequence: 7,
            refresh_hint: None,
            authorities: Vec::new(),
        })),
        grants: Vec::new(),
        limits: Freshness::default(),
        offer: Offer::default(),
        receipts_kept: Millis::from_hours(24),
        file_values: BTreeMap::new(),
        host: Some("host-1".into()),
        version: "0.1.0".into(),
    }
}

fn peer(seed: u8, heard_ms: u64, is_known: bool) -> Peer {
    let mut link = Link::default();
    if is_known {
        link.answered(1_500, Wall::from_millis(heard_ms));
    }
    let identity = |seed| Identity {
        runtime: format!("site-1/{}", char::from(b'`' + seed)).parse().unwrap(),
        boot: 1,
        at: Wall::from_millis(90_250),
        api_version: "1.0".into(),
        version: "0.1.0".into(),
        capabilities: vec!["status_read".into()],
        host: Some("host-1".into()).filter(|_| seed == 2),
        web: None,
        is_secure: true,
        policy_hash: Hash([0; 32]),
        config_revision: 3,
        config_etag: Hash([0; 32]),
    };
    let edge = Edge {
        target: "site-1/a".parse().unwrap(),
        state: EdgeState::Healthy,
        latency_p95_us: Some(2_000),
        loss_pct: 0,
        last_ok: Some(Wall::from_millis(heard_ms)),
    };
    Peer {
        pinned: Fingerprint([seed; 32]),
        retired: None,
        trust: TrustState::Untrusted,
        boot: 1,
        presence: Presence { heard: Some(Monotonic::default().plus(Millis(heard_ms))), ..Presence::default() },
        heard_at: Some(Wall::from_millis(heard_ms)),
        signer: None,
        identity: is_known.then(|| Arc::new(identity(seed))),
        sequence: 10,
        health: is_known.then_some(Health::Healthy),
        config_revision: is_known.then_some(3),
        skew: None,
        runs_head: None,
        edges: Arc::new(if is_known { vec![edge] } else { Vec::new() }),
        link,
        told: Lifecycle::Online,
    }
}

fn event(number: u64, runtime: &str, summary: &str) -> Event {
    Event {
        number,
        at: Wall::from_millis(95_000 + number),
        category: Category::Communication,
        runtime: runtime.parse().unwrap(),
        request_id: None,
        summary: summary.into(),
        severity: Severity::Info,
    }
}

/// A record as the store gives it.
pub(crate) fn entry(number: u8) -> (Chain, Entry) {
    let at = Wall::from_millis(u64::from(number));
    let draft = Draft {
        audit_id: AuditId::new(at, [number; 10]),
        at,
        actor: "spiffe://trust/site-1/engineer-1".into(),
        actor_verified: false,
        origin: "site-2/d".parse().unwrap(),
        action: "cfg_apply".into(),
        target: "site-1/a".parse().unwrap(),
        request_id: Some("r-1".parse().unwrap()),
        outcome: trust_runtime::domain::audit::Outcome::Denied,
        code: Some(Code::PermissionDenied),
        detail: String::new(),
        policy_hash: Hash([9; 32]),
    };
    let position = Position { seq: u64::from(number), previous: Hash([number - 1; 32]), hash: Hash([number; 32]) };
    (Chain::Writes, Entry { draft, position })
}
