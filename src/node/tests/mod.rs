//! A whole node over a store and a mesh in memory: what its callers are told, and what is on record of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::PrivateKeyDer;
use tokio_util::sync::CancellationToken;

use crate::domain::action::Action;
use crate::domain::audit::{AuditId, Draft, Hash, NoteKey, Outcome, log_name};
use crate::domain::code::Code;
use crate::domain::config::Value;
use crate::domain::envelope::dsse::tally;
use crate::domain::id::RuntimeId;
use crate::domain::identity::{Fingerprint, IdentityKey, Role, Subject};
use crate::domain::preflight::{Asker, Profile};
use crate::domain::time::{Millis, Wall};
use crate::engine::view::{Peer, Settings, View};
use crate::engine::word::Identity;
use crate::handle::{Control, Operations, Reloaded, Request, TargetOutcome};
use crate::mesh::memory::Hub;
use crate::node::arrived::tests::{authority_of_site, trusting};
use crate::node::clock::Clock;
use crate::node::plan_hash::PlanKey;
use crate::node::{Fresh, Node, OwnIdentity, Parts, Sources, Stamp, prepare, runs};
use crate::store::memory::{Disk, Fault, MemoryStore};
use crate::store::runs::Registry;
use crate::store::runs::memory::MemoryRuns;
use crate::store::{Chain, READ_QUEUE_MAX};
use crate::tls;
use crate::workload::memory::Memory;

pub(super) fn settings() -> Arc<Settings> {
    Arc::new(Settings::unset(parsed("s/a"), parsed("trust")))
}

pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("legal")
}

pub(super) fn engineer() -> Asker {
    Asker { actor: parsed("spiffe://trust/s/alice"), role: Role::Engineer, is_verified: true }
}

/// A node without a project.
pub(super) struct NoFiles;

impl Sources for NoFiles {
    fn stamp(&self) -> Stamp {
        Stamp::default()
    }

    fn read(&self) -> Fresh {
        Fresh { settings: settings(), reloaded: Reloaded::default(), take: Box::new(|| {}) }
    }

    fn note_anchors(&self) {}

    fn note(&self) {}
}

/// No programs, and nothing kept of their runs.
pub(super) fn runs_in_memory() -> runs::Outside {
    let store = Arc::new(MemoryRuns::new(50));
    let registry: Arc<dyn Registry> = Arc::<MemoryRuns>::clone(&store);
    let launcher = Arc::new(Memory::default());
    runs::Outside { store, registry, launcher, declared: BTreeMap::new() }
}

/// A node over a mesh of its own.
pub(super) async fn start(
    settings: Arc<Settings>,
    store: MemoryStore,
    sources: Arc<dyn Sources>,
    runs: runs::Outside,
) -> Node {
    let identity = key_of(&settings.me).into();
    start_on(&Hub::new().expect("a hub"), identity, settings, store, sources, runs).await
}

/// The key of a node of `dev`.
pub(super) fn key_of(runtime: &RuntimeId) -> IdentityKey {
    IdentityKey::from_seed([runtime.to_string().bytes().fold(0, u8::wrapping_add); 32])
}

/// A node over a mesh that others may be on.
async fn start_on(
    hub: &Hub,
    identity: OwnIdentity,
    settings: Arc<Settings>,
    store: MemoryStore,
    sources: Arc<dyn Sources>,
    runs: runs::Outside,
) -> Node {
    let me = settings.me.clone();
    let prepared = prepare(settings, identity, Arc::new(store)).await.expect("prepared");
    let key = NoteKey::new(log_name(&me), IdentityKey::from_seed([2; 32]));
    let (mesh, inbox) = hub.join(me, prepared.boot());
    let parts = Parts {
        mesh,
        inbox,
        web: None,
        probe_ms: 1_000,
        apply: Box::new(|_values| {}),
        sources,
        witnessing: crate::node::Witnessing { key, count: 2, every: Duration::from_secs(60) },
        authority: None,
        renewing: None,
        workload: None,
        runs,
        patience: crate::node::Patience::default(),
    };
    prepared.start(parts, CancellationToken::new())
}

/// A node over a mesh of its own that reads no files.
pub(super) async fn start_without_files(settings: Arc<Settings>, store: MemoryStore, runs: runs::Outside) -> Node {
    start(settings, store, Arc::new(NoFiles), runs).await
}

/// One node alone, and the store that it writes.
struct Alone {
    node: Node,
    store: MemoryStore,
}

/// A folder with another policy in it.
#[derive(Default)]
struct Changed {
    is_taken: Arc<AtomicBool>,
    stamp: Stamp,
    /// How often reading it fails at first.
    failures: AtomicU32,
}

impl Sources for Changed {
    fn stamp(&self) -> Stamp {
        self.stamp.clone()
    }

    fn read(&self) -> Fresh {
        let failing = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(failing.is_err(), "the folder is away");
        let is_taken = Arc::clone(&self.is_taken);
        let settings = Settings { policy_hash: Hash([7; 32]), ..(*settings()).clone() };
        let reloaded = Reloaded { applied: vec!["runtime.cloud.wan".to_owned()], ..Reloaded::default() };
        let take = move || is_taken.store(true, Ordering::SeqCst);
        Fresh { settings: Arc::new(settings), reloaded, take: Box::new(take) }
    }

    fn note_anchors(&self) {}

    fn note(&self) {}
}

impl Alone {
    async fn new() -> Self {
        Self::with(Arc::new(NoFiles)).await
    }

    async fn with(sources: Arc<dyn Sources>) -> Self {
        let store = MemoryStore::new();
        let node = start(settings(), store.clone(), sources, runs_in_memory()).await;
        Self { node, store }
    }

    fn operations(&self) -> Arc<dyn Operations> {
        self.node.operations()
    }

    /// Holds the chains of reads and refusals back, that of reads full and the other with so many records in its queue.
    fn fill_reads(&self, refusals: usize) {
        let filler = Draft {
            audit_id: AuditId::new(Wall(1), [0; 10]),
            at: Wall(1),
            actor: String::new(),
            actor_verified: false,
            origin: parsed("s/a"),
            action: String::new(),
            target: parsed("s/a"),
            request_id: Some(parsed("filler")),
            outcome: Outcome::Applied,
            code: None,
            detail: String::new(),
            policy_hash: Hash([0; 32]),
        };
        self.store.with_disk(|disk| {
            disk.hold_reads();
            disk.append_reads(vec![filler.clone(); READ_QUEUE_MAX]).expect("room");
            // Each by somebody else, so that none is only counted.
            let refused =
                |number: usize| Draft { actor: number.to_string(), outcome: Outcome::Denied, ..filler.clone() };
            disk.append_reads((0..refusals).map(refused).collect()).expect("room");
        });
    }

    /// What is on record in one chain.
    fn records(&self, chain: Chain) -> Vec<Draft> {
        self.store.with_disk(|disk| disk.entries(chain).map(|entry| entry.draft.clone()).collect())
    }
}

fn request(id: &str, action: Action, targets: &[&str]) -> Request {
    Request {
        asker: engineer(),
        request_id: parsed(id),
        action,
        targets: targets.iter().map(|target| parsed(target)).collect(),
        budget: Millis(1_000),
        planned: None,
    }
}

fn log_level(level: &str) -> Action {
    Action::cfg_apply([("log.level".to_owned(), Value::Text(level.to_owned()))].into()).expect("one setting")
}

fn codes(outcomes: &[TargetOutcome]) -> Vec<Option<Code>> {
    outcomes.iter().map(|outcome| outcome.result.as_ref().err().map(|denial| denial.code)).collect()
}

/// The configuration changes after the plan was compared and before the dispatch is decided.
#[tokio::test]
async fn a_plan_that_is_overtaken_after_it_was_compared_is_not_carried_out() {
    let alone = Alone::new().await;
    let node = alone.operations();
    for (id, action) in [("write", Action::ping()), ("read", Action::StatusRead)] {
        let mut named = request(id, action, &["s/a"]);
        let preflight = node.preflight(&named);
        named.planned = node.planned(&preflight.plan_hash, &named, &preflight.plan);
        assert!(named.planned.is_some(), "it is good");
        let change = request(&format!("change-{id}"), log_level("debug"), &["s/a"]);
        let changed = node.dispatch(change).await.expect("changed");
        assert_eq!(codes(&changed.outcomes), [None]);

        let dispatched = node.dispatch(named.clone()).await.expect("answered");
        assert_eq!(codes(&dispatched.outcomes), [Some(Code::Conflict)], "{id}");
        assert!(node.planned(&dispatched.preflight.plan_hash, &named, &dispatched.preflight.plan).is_some());
        let of_it: Vec<_> = [Chain::Writes, Chain::Refusals]
            .into_iter()
            .flat_map(|chain| alone.records(chain))
            .filter(|draft| draft.request_id == Some(named.request_id.clone()))
            .map(|draft| (draft.outcome, draft.code))
            .collect();
        assert_eq!(of_it, [(Outcome::Denied, Some(Code::Conflict))], "{id}: refused on record, and nothing else");

        named.planned = node.planned(&dispatched.preflight.plan_hash, &named, &dispatched.preflight.plan);
        let again = node.dispatch(named).await.expect("answered");
        assert_eq!(codes(&again.outcomes), [None], "{id}: the plan of now is carried out");
        alone.operations().dispatch(request(&format!("back-{id}"), log_level("info"), &["s/a"])).await.expect("back");
    }
}

/// A request that changes nothing is on record or it is not answered: there is room for two records and three are wanted.
#[tokio::test]
async fn a_refusal_that_finds_no_room_on_record_is_server_busy_and_leaves_no_part_of_a_record() {
    let alone = Alone::new().await;
    let node = alone.operations();
    let done = node.dispatch(request("once", log_level("debug"), &["s/a"])).await.expect("done");
    assert_eq!(codes(&done.outcomes), [None]);
    let before = alone.records(Chain::Refusals).len();
    alone.fill_reads(READ_QUEUE_MAX - 2);
    let nobody = ["s/x", "s/y", "s/z"];
    for action in [Action::ping(), Action::StatusRead] {
        let answer = node.dispatch(request("denied", action, &nobody)).await;
        assert_eq!(answer.expect_err("no room").code, Code::ServerBusy);
    }
    // For two there is room, and then there is none.
    let denied = node.dispatch(request("denied", Action::ping(), &nobody[..2])).await.expect("room for two");
    assert!(!denied.preflight.plan.is_allowed());
    let conflict = request("once", log_level("info"), &["s/a"]);
    let answer = node.dispatch(conflict).await;
    assert_eq!(answer.expect_err("no room").code, Code::ServerBusy);
    let here = node.dispatch(request("read", Action::StatusRead, &["s/a"])).await;
    assert_eq!(here.expect_err("no room").code, Code::ServerBusy);
    alone.store.with_disk(Disk::release_reads);
    assert_eq!(alone.records(Chain::Reads).len(), READ_QUEUE_MAX);
    let refusals = alone.records(Chain::Refusals);
    assert_eq!(refusals.len(), before + READ_QUEUE_MAX);
    let of_it: Vec<_> = refusals.iter().rev().take(3).map(|draft| draft.request_id.clone()).collect();
    assert_eq!(of_it, [Some(parsed("denied")), Some(parsed("denied")), Some(parsed("filler"))]);
    assert_eq!(alone.records(Chain::Writes).len(), 1);
}

/// What is taken back must not go on because the disk fails at this very moment.
#[tokio::test]
async fn a_reload_counts_although_the_store_fails_at_its_record() {
    for fault in [None, Some(Fault::NoSpace), Some(Fault::Broken)] {
        let changed = Changed::default();
        let is_taken = Arc::clone(&changed.is_taken);
        let alone = Alone::with(Arc::new(changed)).await;
        alone.store.with_disk(|disk| fault.into_iter().for_each(|it| disk.inject(it)));
        let reloaded = alone.operations().reload(engineer()).await;
        assert_eq!(reloaded.map(|it| it.applied), Ok(vec!["runtime.cloud.wan".to_owned()]), "{fault:?}");
        let view = alone.operations().view();
        assert_eq!(view.settings.policy_hash, Hash([7; 32]), "{fault:?}");
        assert_eq!(view.is_read_only, fault.is_some(), "{fault:?}");
        assert!(is_taken.load(Ordering::SeqCst), "tokens and certificates too, {fault:?}");
        let records = alone.records(Chain::Writes).iter().filter(|draft| draft.action == "reload").count();
        assert_eq!(records, usize::from(fault.is_none()), "{fault:?}");
    }
}

/// Files change once, and may be away at that moment.
#[tokio::test]
async fn changed_files_that_could_not_be_read_are_read_again() {
    let changed = Changed { stamp: Stamp(vec![(1, 1)]), failures: AtomicU32::new(2), ..Changed::default() };
    let is_taken = Arc::clone(&changed.is_taken);
    let _alone = Alone::with(Arc::new(changed)).await;
    let taken = async {
        while !is_taken.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken).await.expect("taken up at a later look");
}

/// A node of `dev` on this mesh.
pub(super) async fn member(hub: &Hub, name: &str, store: MemoryStore) -> Node {
    let me: RuntimeId = parsed(name);
    let identity = key_of(&me).into();
    let settings = Arc::new(Settings { me, ..(*settings()).clone() });
    announced(start_on(hub, identity, settings, store, Arc::new(NoFiles), runs_in_memory()).await).await
}

async fn announced(node: Node) -> Node {
    node.announce().await;
    node
}

/// Whether `s/b` has done what it was asked.
async fn is_done(origin: &Node, id: &str, action: Action) -> bool {
    let answer = origin.operations().dispatch(request(id, action, &["s/b"])).await;
    answer.is_ok_and(|it| it.outcomes.first().is_some_and(|outcome| outcome.result.is_ok()))
}

/// Repeats an action until both know each other.
pub(super) async fn warm_up(origin: &Node, action: &Action) {
    let met = async {
        for number in 0.. {
            if is_done(origin, &format!("warm-up-{number}"), action.clone()).await {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), met).await.expect("they meet");
}

/// Two at the origin and two at the target, once both know each other's delegations (all on the thread of this test).
#[tokio::test]
async fn a_dispatch_costs_two_signature_operations_at_each_end() {
    const READS: usize = 200;
    let hub = Hub::new().expect("a hub");
    let (origin, _target) =
        (member(&hub, "s/a", MemoryStore::new()).await, member(&hub, "s/b", MemoryStore::new()).await);
    warm_up(&origin, &Action::StatusRead).await;
    let before = tally::done();
    for number in 0..READS {
        assert!(is_done(&origin, &format!("read-{number}"), Action::StatusRead).await);
    }
    let done = tally::done() - before;
    // What both say and hear of themselves meanwhile comes on top: far less than one operation for each read.
    assert!((4 * READS..4 * READS + READS / 2).contains(&done), "{done} operations for {READS} reads");
}

/// A node of a plant, with a certificate of this authority, that trusts what this has issued.
async fn certified(hub: &Hub, name: &str, issuer: &CertifiedIssuer<'static, KeyPair>) -> Node {
    let me: RuntimeId = parsed(&format!("s/{name}"));
    let settings = trusting(&[("s", issuer.der().clone())], None);
    let trust = settings.authority.as_ref().expect("anchors").trust().clone();
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        vec![SanType::URI(format!("spiffe://trust/s/runtime/{name}").try_into().expect("ASCII"))];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let chain = vec![params.signed_by(&key, issuer).expect("a certificate").der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let clock = Clock::start();
    let own = tls::Snapshot::new(chain, key, trust, &Subject::of_runtime(&me), clock.now().wall).expect("an identity");
    let identity = OwnIdentity::Certificate(tls::Identity::new(own, Arc::new(clock)));
    let settings = Arc::new(Settings { me, profile: Profile::Plant, is_secure: true, ..(*settings).clone() });
    announced(start_on(hub, identity, settings, MemoryStore::new(), Arc::new(NoFiles), runs_in_memory()).await).await
}

/// A chain of certificates is checked when a delegation is new. After that a write costs no more than anywhere else.
#[tokio::test]
async fn a_write_in_a_plant_costs_two_signature_operations_at_each_end_and_no_chain_once_it_is_known() {
    const WRITES: usize = 200;
    let (hub, issuer) = (Hub::new().expect("a hub"), authority_of_site());
    let (origin, _target) = (certified(&hub, "a", &issuer).await, certified(&hub, "b", &issuer).await);
    warm_up(&origin, &Action::ping()).await;
    let (before, chains) = (tally::done(), tally::chains());
    assert!(2 <= chains, "each has proved the other: {chains} chains");
    for number in 0..WRITES {
        assert!(is_done(&origin, &format!("write-{number}"), Action::ping()).await);
    }
    let done = tally::done() - before;
    assert!((4 * WRITES..4 * WRITES + WRITES / 2).contains(&done), "{done} operations for {WRITES} writes");
    assert_eq!(tally::chains(), chains, "no chain is checked for a write");
}

/// A peer that is forgotten because its key is lost must not act by what had already come.
#[tokio::test]
async fn what_a_person_takes_back_goes_before_what_waits_for_the_disk() {
    const WRITES: usize = 50;
    let hub = Hub::new().expect("a hub");
    let store = MemoryStore::new();
    let (here, _other) = (member(&hub, "s/a", store.clone()).await, member(&hub, "s/b", MemoryStore::new()).await);
    let operations = here.operations();
    until(|| operations.view().peers.contains_key(&parsed("s/b"))).await;
    let waiting = || operations.queues().iter().find(|queue| queue.name == "mailbox").expect("it is counted").length;

    let slow = store.hold_commits().await;
    let write = |number: usize| operations.dispatch(request(&number.to_string(), Action::ping(), &["s/a"]));
    let mut writes = FuturesOrdered::from_iter([write(0)]);
    until(|| store.is_held_up()).await;
    writes.extend((1..WRITES).map(write));
    until(|| WRITES / 2 < waiting()).await;
    let forget = operations.control(engineer(), Control::PeersForget { runtime: parsed("s/b") });
    let go_on = async { drop(slow) };
    tokio::join!(forget, go_on).0.expect("forgotten");
    while let Some(done) = writes.next().await {
        done.expect("carried out");
    }
    let records =
        store.with_disk(|disk| disk.entries(Chain::Writes).map(|it| it.draft.action.clone()).collect::<Vec<_>>());
    let place = records.iter().position(|action| action == "peers_forget").expect("on record");
    assert!(place < WRITES / 2, "{records:?}");
}

mod counted;
mod doubted;
mod queues;

/// Waits until this holds.
async fn until(mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), held).await.expect("it holds in time");
}

#[tokio::test]
async fn a_node_that_is_leaving_begins_nothing() {
    let alone = Alone::new().await;
    alone.node.leave();
    for action in [Action::ping(), Action::StatusRead] {
        let answer = alone.operations().dispatch(request("late", action, &["s/a"])).await;
        assert_eq!(answer.expect_err("too late").code, Code::ServerBusy);
    }
    for chain in [Chain::Writes, Chain::Reads, Chain::Refusals] {
        assert_eq!(alone.records(chain), Vec::new());
    }
}

/// The MAC and the comparison at the decision stand for the same things.
#[tokio::test]
async fn a_plan_hash_changes_with_each_part_of_what_the_plan_rests_on() {
    let alone = Alone::new().await;
    let mut view = View::clone(&alone.operations().view());
    let mut peer = Peer::unheard(Fingerprint([2; 32]));
    peer.identity = Some(Arc::new(identity(1)));
    view.peers = [(parsed("s/b"), Arc::new(peer))].into_iter().collect();
    let asked = request("r", Action::StatusRead, &["s/a", "s/b"]);
    let now = alone.operations().now();
    let plan = |view: &View| view.plan(&asked.asker, &asked.action, &asked.targets, now);
    let (first, key) = (plan(&view), PlanKey::random());
    let hash = key.mint(&view, &asked, &first, now.wall);
    let basis = view.basis(&first);

    let changes: [Change; 6] = [
        ("nothing", |view| view.generation += 1),
        ("own rules", |view| Arc::make_mut(&mut view.settings).policy_hash = Hash([9; 32])),
        ("own configuration", |view| Arc::make_mut(&mut view.overlay).revision += 1),
        ("their configuration", |view| change_peer(view, |peer| peer.identity = Some(Arc::new(identity(2))))),
        ("their rules", |view| {
            change_peer(view, |peer| {
                peer.identity = Some(Arc::new(Identity { policy_hash: Hash([9; 32]), ..identity(1) }));
            });
        }),
        ("the decision", |view| {
            let now = view.started.monotonic;
            change_peer(view, |peer| peer.presence.hear(now));
        }),
    ];
    for (what, change) in changes {
        let mut view = view.clone();
        change(&mut view);
        let plan = plan(&view);
        let is_same = what == "nothing";
        assert_eq!(key.is_current(&hash, &view, &asked, &plan, now.wall), is_same, "the hash: {what}");
        assert_eq!(view.basis(&plan) == basis, is_same, "the comparison: {what}");
    }
}

/// A change of a view, by name.
type Change = (&'static str, fn(&mut View));

fn change_peer(view: &mut View, change: impl FnOnce(&mut Peer)) {
    let name: RuntimeId = parsed("s/b");
    change(Arc::make_mut(view.peers.get_mut(&name).expect("known")));
}

fn identity(config_revision: u64) -> Identity {
    Identity {
        runtime: parsed("s/b"),
        boot: 1,
        at: Wall(1),
        api_version: "1.0".to_owned(),
        version: "0".to_owned(),
        capabilities: Vec::new(),
        host: None,
        web: None,
        is_secure: false,
        policy_hash: Hash([3; 32]),
        config_revision,
        config_etag: Hash([0; 32]),
    }
}
