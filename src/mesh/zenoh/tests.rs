//! What only the Zenoh adapter promises: ports, dialling, scouting, healing. The rest is in `mesh::contract`.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use zenoh::Wait as _;

use crate::mesh::support::{DEADLINE, any_answer, hears, in_time, runtime, wait_until};
use crate::mesh::zenoh::core::{Core, unanswered};
use crate::mesh::zenoh::redial::Redial;
use crate::mesh::zenoh::session::{self, Opened, Wires};
use crate::mesh::zenoh::{Options, Role, Scouting, ZenohMesh, open};
use crate::mesh::{Answer, Document, Fact, Inbox, Mesh, OpenError, PAYLOAD_BYTES_MAX, QueryError, Verb};

/// How long `open` may take: far below any handshake, scouting or retry time, so that waiting for one shows.
const OPEN_MAX: Duration = Duration::from_millis(1_500);

/// The group that a test process scouts on, for the process it starts.
const GROUP_VARIABLE: &str = "TRUST_TEST_SCOUTING";

const BUDGET: Duration = Duration::from_secs(5);

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(super) fn options(name: &str) -> Options {
    Options::new(runtime(name), 1, LOOPBACK)
}

/// A port that nothing listens on, and the socket that keeps it: no connection gets it, and a node can listen there.
fn reserved() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option of every socket");
    socket.bind(LOOPBACK).expect("a free port");
    (socket.local_addr().expect("bound"), socket)
}

/// Scouting on loopback, on a port that no other test has: multicast does not tell tests apart.
fn scouting(name: &str) -> Options {
    let port = UdpSocket::bind(LOOPBACK).and_then(|it| it.local_addr()).expect("bound").port();
    Options { scouting: Scouting::Loopback, scouting_address: Some(format!("224.0.0.224:{port}")), ..options(name) }
}

pub(super) async fn opened(options: Options) -> (Arc<ZenohMesh>, Inbox) {
    tokio::time::timeout(OPEN_MAX, open(options)).await.expect("waits for nobody").expect("opens")
}

pub(super) fn appeared(name: &str) -> Fact {
    Fact::TokenAppeared { runtime: runtime(name), boot: 1 }
}

pub(super) fn gone(name: &str) -> Fact {
    Fact::TokenGone { runtime: runtime(name), boot: 1 }
}

/// Asks until the answer comes: right after a link comes up the route may still be missing.
pub(super) async fn asks(from: &ZenohMesh, target: &str, inbox: &mut Inbox) {
    let answering = async {
        while let Some(incoming) = inbox.queries.recv().await {
            incoming.responder.answer(Answer::Reply(b"here".to_vec()));
        }
    };
    let asking = wait_until("the query is answered", async || {
        from.query(&runtime(target), Verb::Probe, Vec::new(), BUDGET, &any_answer).await == Ok(b"here".to_vec())
    });
    tokio::select! {
        () = answering => panic!("the inbox is open"),
        () = asking => (),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named() {
    let (first, _inbox) = opened(options("a")).await;
    let [listening] = first.listening().try_into().expect("one address");
    let listen: SocketAddr = listening.parse().expect("host:port");
    assert_ne!(listen.port(), 0);
    let error = open(Options { listen, ..options("b") }).await.expect_err("taken");
    assert!(matches!(&error, OpenError::Listen { endpoint, .. } if *endpoint == listening), "{error}");
    first.close().await;
    wait_until("the port is free again", async || open(Options { listen, ..options("b") }).await.is_ok()).await;
}

#[test]
fn a_query_that_ends_unanswered_is_a_timeout_once_its_budget_is_over() {
    let begun = Instant::now();
    assert_eq!(unanswered(begun, DEADLINE), QueryError::NoReply);
    assert_eq!(unanswered(begun, Duration::ZERO), QueryError::Timeout);
}

#[tokio::test]
async fn one_thread_is_an_error_and_no_panic() {
    let error = open(options("a")).await.expect_err("refused");
    assert!(error.to_string().contains("multi-thread"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_endpoints_and_a_service_with_a_slash_are_refused() {
    assert!(open(Options { role: Role::Client, ..options("a") }).await.is_err());
    assert!(open(Options { service: "tru/ST".into(), ..options("a") }).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_opens_while_its_endpoints_are_down_and_links_when_they_come() {
    for role in [Role::Client, Role::Peer, Role::Router] {
        let [(listen, _held), (nobody, _kept)] = [reserved(), reserved()];
        let connect = vec![nobody.to_string(), listen.to_string()];
        let (early, mut early_inbox) = opened(Options { role, connect, ..options("early") }).await;
        early.announce().await.expect("announced or noted");
        early.publish(Document::Identity, b"early".to_vec()).await.expect("published or kept");
        let (late, mut late_inbox) = opened(Options { role: Role::Router, listen, ..options("late") }).await;
        late.announce().await.expect("announced");
        hears(&mut late_inbox, [appeared("early")]).await;
        hears(&mut early_inbox, [appeared("late")]).await;
        asks(&early, "late", &mut late_inbox).await;
        asks(&late, "early", &mut early_inbox).await;
        assert_eq!(late.fetch_identity(&runtime("early"), BUDGET, &any_answer).await, Ok(b"early".to_vec()));
        in_time("both close", async { tokio::join!(early.close(), late.close()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reached_a_router_closes_and_says_so() {
    let (nobody, _held) = reserved();
    let connect = vec![nobody.to_string()];
    let (client, _inbox) = opened(Options { role: Role::Client, connect, ..options("a") }).await;
    let answer = client.query(&runtime("b"), Verb::Act, Vec::new(), BUDGET, &any_answer).await;
    assert!(matches!(answer, Err(QueryError::Session(_))), "{answer:?}");
    tokio::time::timeout(Duration::from_secs(2), client.close()).await.expect("closes in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_ask_each_other_through_a_router() {
    let (router, _inbox) = opened(Options { role: Role::Router, ..options("router") }).await;
    let client = |name| Options { role: Role::Client, connect: router.listening(), ..options(name) };
    let ((a, mut a_inbox), (b, mut b_inbox)) = (opened(client("a")).await, opened(client("b")).await);
    a.announce().await.expect("announced");
    b.announce().await.expect("announced");
    hears(&mut a_inbox, [appeared("b")]).await;
    hears(&mut b_inbox, [appeared("a")]).await;
    asks(&a, "b", &mut b_inbox).await;
    assert!(a.listening().is_empty(), "a client listens to nobody");
    b.close().await;
    hears(&mut a_inbox, [gone("b")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_meet_by_multicast_on_loopback() {
    let options_a = scouting("a");
    let options_b = Options { runtime: runtime("b"), ..options_a.clone() };
    let ((a, mut a_inbox), (b, mut b_inbox)) = (opened(options_a).await, opened(options_b).await);
    a.announce().await.expect("announced");
    b.announce().await.expect("announced");
    hears(&mut a_inbox, [appeared("b")]).await;
    hears(&mut b_inbox, [appeared("a")]).await;
    asks(&a, "b", &mut b_inbox).await;
}

/// This test program again, as a node of its own. Killed when dropped.
struct OtherProcess {
    node: Child,
    signaller: Child,
}

impl OtherProcess {
    fn start(near: &Options) -> Self {
        let node = Command::new(std::env::current_exe().expect("known"))
            .args(["--exact", "mesh::zenoh::tests::other_process"])
            .env(GROUP_VARIABLE, near.scouting_address.as_deref().expect("scouts"))
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        // Started now, because a process that is started while Zenoh closes a full link inherits the socket, and hangs for
        // ten seconds on its linger time before it runs.
        let signaller = Command::new("sh")
            .args(["-c", &format!("while read signal; do kill -$signal {}; done", node.id())])
            .stdin(Stdio::piped())
            .spawn()
            .expect("started");
        Self { node, signaller }
    }

    fn signal(&mut self, signal: &str) {
        writeln!(self.signaller.stdin.as_mut().expect("piped"), "{signal}").expect("written");
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        for child in [&mut self.node, &mut self.signaller] {
            drop(child.kill().and_then(|()| child.wait()));
        }
    }
}

async fn other_process_answers(from: &ZenohMesh) {
    wait_until("the other process answers", async || {
        from.query(&runtime("other-process"), Verb::Probe, Vec::new(), BUDGET, &any_answer).await
            == Ok(b"here".to_vec())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_two_processes_meet_by_multicast_on_loopback() {
    let options = scouting("a");
    let (a, mut inbox) = opened(options.clone()).await;
    a.announce().await.expect("announced");
    let other = OtherProcess::start(&options);
    hears(&mut inbox, [appeared("other-process")]).await;
    other_process_answers(&a).await;
    drop(other);
    hears(&mut inbox, [gone("other-process")]).await;
}

/// More than the sockets between two nodes hold, so that the link to a frozen neighbour is full before its lease ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_neighbour_costs_a_caller_no_more_than_the_budget() {
    const SHORT: Duration = Duration::from_millis(100);
    const LATE: Duration = Duration::from_secs(1);
    let options = scouting("a");
    let (a, mut inbox) = opened(options.clone()).await;
    let mut other = OtherProcess::start(&options);
    hears(&mut inbox, [appeared("other-process")]).await;
    other_process_answers(&a).await;
    other.signal("STOP");
    wait_until("the other process stands still", async || {
        let asked = a.query(&runtime("other-process"), Verb::Probe, Vec::new(), SHORT, &any_answer).await;
        asked == Err(QueryError::Timeout)
    })
    .await;
    let mut asking = JoinSet::new();
    for _ in 0..200 {
        let a = a.clone();
        asking.spawn(async move {
            let asked = Instant::now();
            let payload = vec![0; PAYLOAD_BYTES_MAX];
            let answer = a.query(&runtime("other-process"), Verb::Act, payload, SHORT, &any_answer).await;
            assert!(matches!(answer, Err(QueryError::Timeout | QueryError::NoReply)), "{answer:?}");
            assert!(asked.elapsed() < LATE, "waited {:?}", asked.elapsed());
        });
    }
    in_time("every query", asking.join_all()).await;
    hears(&mut inbox, [gone("other-process")]).await;
    other.signal("CONT");
    hears(&mut inbox, [appeared("other-process")]).await;
    other_process_answers(&a).await;
}

/// Two peers that met by an address nobody configured, as by gossip. The peer's identity outlives its link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_met_is_dialled_again() {
    let linked = async |opened: &Opened| opened.session.info().transports().await.count() != 0;
    let (listen, _held) = reserved();
    let config = |options: Options| session::config(&options, &Wires::tcp(&options)).expect("accepted");
    let mut far_config = config(Options { listen, ..options("far") });
    far_config.insert_json5("id", "\"fa4\"").expect("accepted");
    let near = session::start(config(options("near"))).await.expect("opens");
    let mut redialling = JoinSet::new();
    redialling.spawn(Redial::watch(&near, Vec::new()).expect("watches").run());

    let far = session::start(far_config.clone()).await.expect("opens");
    let (peer, locators) = (far.session.zid(), far.runtime.get_locators());
    assert!(near.runtime.connect_peer(&peer.into(), &locators).await);
    far.close().await;
    wait_until("the link is gone", async || !linked(&near).await).await;
    wait_until("the port is free", async || TcpListener::bind(listen).await.is_ok()).await;
    let far = session::start(far_config).await.expect("opens again");
    wait_until("the link is back", async || linked(&near).await).await;
    assert_eq!(far.session.zid(), peer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_process() {
    let Ok(scouting_address) = std::env::var(GROUP_VARIABLE) else {
        return;
    };
    let options = Options { scouting_address: Some(scouting_address), ..scouting("other-process") };
    let (mesh, mut inbox) = opened(options).await;
    mesh.announce().await.expect("announced");
    // Ends by itself too, in case the test that started it could not end it.
    let answering = async {
        while let Some(incoming) = inbox.queries.recv().await {
            incoming.responder.answer(Answer::Reply(b"here".to_vec()));
        }
    };
    drop(tokio::time::timeout(DEADLINE.saturating_mul(3), answering).await);
}

/// A cable between two nodes that a test can pull: relays TCP to `target` while `whole` holds.
struct Cable {
    address: String,
    whole: watch::Sender<bool>,
    _relaying: JoinSet<()>,
}

impl Cable {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind(LOOPBACK).await.expect("bound");
        let address = listener.local_addr().expect("bound").to_string();
        let (whole, state) = watch::channel(true);
        let mut relaying = JoinSet::new();
        relaying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (target, mut state) = (target.clone(), state.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = relay(near, &target) => (),
                        _ = state.wait_for(|whole| !whole) => (),
                    }
                });
            }
        });
        Self { address, whole, _relaying: relaying }
    }
}

async fn relay(mut near: TcpStream, target: &str) {
    if let Ok(mut far) = TcpStream::connect(target).await {
        drop(copy_bidirectional(&mut near, &mut far).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_to_a_configured_endpoint_heals() {
    for role in [Role::Client, Role::Peer] {
        let (far, mut far_inbox) = opened(Options { role: Role::Router, ..options("far") }).await;
        let [target] = far.listening().try_into().expect("one address");
        let cable = Cable::to(target).await;
        let connect = vec![cable.address.clone()];
        let (near, mut near_inbox) = opened(Options { role, connect, ..options("near") }).await;
        far.announce().await.expect("announced");
        near.announce().await.expect("announced");
        hears(&mut near_inbox, [appeared("far")]).await;
        hears(&mut far_inbox, [appeared("near")]).await;
        asks(&near, "far", &mut far_inbox).await;

        // A query under way when the cable is pulled ends, and does not wait for its budget.
        let (target, budget) = (runtime("far"), Duration::from_secs(60));
        let asked = near.query(&target, Verb::Act, b"cut".to_vec(), budget, &any_answer);
        let pull = async {
            let held = in_time("the query", async {
                loop {
                    let incoming = far_inbox.queries.recv().await.expect("open");
                    if incoming.payload == b"cut" {
                        return incoming;
                    }
                }
            });
            let held = held.await;
            cable.whole.send_replace(false);
            held
        };
        let (answer, held) = in_time("the cut query", async { tokio::join!(asked, pull) }).await;
        assert_eq!(answer, Err(QueryError::NoReply));
        held.responder.answer(Answer::Reply(b"to nobody".to_vec()));
        hears(&mut near_inbox, [gone("far")]).await;
        hears(&mut far_inbox, [gone("near")]).await;

        cable.whole.send_replace(true);
        hears(&mut near_inbox, [appeared("far")]).await;
        hears(&mut far_inbox, [appeared("near")]).await;
        asks(&near, "far", &mut far_inbox).await;
        asks(&far, "near", &mut near_inbox).await;
    }
}

/// A node of each role that has lost as many links as it may. What comes and goes beside it is all that it notices of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_have_lost_enough_links_are_opened_anew() {
    for role in [Role::Peer, Role::Router] {
        let (worn, mut worn_inbox) = opened(Options { role, lost_max: 1, ..options("worn") }).await;
        worn.announce().await.expect("announced");
        worn.publish(Document::Identity, b"worn".to_vec()).await.expect("published");
        let near = |name| Options { connect: worn.listening(), ..options(name) };
        let (stays, mut stays_inbox) = opened(near("stays")).await;
        let (leaves, _inbox) = opened(near("leaves")).await;
        stays.announce().await.expect("announced");
        // Its link has to be there to be lost.
        leaves.announce().await.expect("announced");
        hears(&mut worn_inbox, [appeared("stays"), appeared("leaves")]).await;
        hears(&mut stays_inbox, [appeared("worn")]).await;
        let (first, at) = (worn.core.load_full(), worn.listening());

        leaves.close().await;
        hears(&mut worn_inbox, [gone("stays")]).await;
        hears(&mut worn_inbox, [appeared("stays")]).await;
        hears(&mut stays_inbox, [gone("worn")]).await;
        hears(&mut stays_inbox, [appeared("worn")]).await;
        wait_until("these sessions are others", async || !Arc::ptr_eq(&first, &worn.core.load_full())).await;
        asks(&stays, "worn", &mut worn_inbox).await;
        asks(&worn, "stays", &mut stays_inbox).await;
        wait_until("its document is there", async || {
            stays.fetch_identity(&runtime("worn"), BUDGET, &any_answer).await == Ok(b"worn".to_vec())
        })
        .await;
        wait_until("there is one link", async || worn.links().await == 1).await;
        assert_eq!(worn.listening(), at);
        in_time("both close", async { tokio::join!(worn.close(), stays.close()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_router_went_often_enough_opens_its_session_anew() {
    let (listen, _held) = reserved();
    let router = || opened(Options { role: Role::Router, listen, ..options("router") });
    let (first, _inbox) = router().await;
    let connect = vec![listen.to_string()];
    let (client, mut inbox) = opened(Options { role: Role::Client, connect, lost_max: 1, ..options("client") }).await;
    client.announce().await.expect("announced or noted");
    first.announce().await.expect("announced");
    hears(&mut inbox, [appeared("router")]).await;
    let before = client.core.load_full();
    first.close().await;
    hears(&mut inbox, [gone("router")]).await;
    let (second, mut second_inbox) = router().await;
    second.announce().await.expect("announced");
    hears(&mut inbox, [appeared("router")]).await;
    hears(&mut second_inbox, [appeared("client")]).await;
    asks(&second, "client", &mut inbox).await;
    wait_until("this session is another", async || !Arc::ptr_eq(&before, &client.core.load_full())).await;
}

/// Between two sessions the port is anybody's. Whoever closes the mesh does not wait until it is free again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_that_cannot_be_opened_anew_closes_in_time() {
    // The node itself may be faster, and opens anew only once in a long while.
    while !closes_without_its_port().await {}
}

/// Whether somebody got the port of a worn node, which was closed then.
async fn closes_without_its_port() -> bool {
    let (worn, mut inbox) = opened(Options { lost_max: 1, ..options("worn") }).await;
    let [at] = worn.listening().try_into().expect("one address");
    let (leaves, _inbox) = opened(Options { connect: worn.listening(), ..options("leaves") }).await;
    leaves.announce().await.expect("announced");
    hears(&mut inbox, [appeared("leaves")]).await;
    assert_eq!(worn.fault(), None);
    let before = worn.core.load_full();
    let mut taking = JoinSet::new();
    taking.spawn(async move {
        loop {
            match TcpListener::bind(&at).await {
                Ok(taken) => return taken,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    leaves.close().await;
    let mut taken = None;
    wait_until("the port is somebody's", async || {
        taken = taken.take().or_else(|| taking.try_join_next());
        taken.is_some() || !Arc::ptr_eq(&before, &worn.core.load_full())
    })
    .await;
    if taken.is_some() {
        let answer = worn.query(&runtime("leaves"), Verb::Probe, Vec::new(), BUDGET, &any_answer).await;
        assert!(matches!(answer, Err(QueryError::Session(_))), "{answer:?}");
        assert_eq!((worn.links().await, worn.fault().is_some()), (0, true));
    }
    tokio::time::timeout(Duration::from_secs(2), worn.close()).await.expect("closes in time");
    taken.is_some()
}

/// What holds up the end of a session for as long as its other end is there.
struct Holds(std::sync::mpsc::Receiver<()>);

impl Drop for Holds {
    fn drop(&mut self) {
        // Nothing is ever sent.
        self.0.recv().unwrap_or_default();
    }
}

/// Holds up the end of these sessions until what it gives is dropped. A client may have heard of others before its session counts
/// as open.
pub(super) async fn hold(core: &Core) -> std::sync::mpsc::Sender<()> {
    wait_until("it is open", async || core.session().is_ok()).await;
    let session = core.session().expect("open");
    let (held, holds) = std::sync::mpsc::channel();
    let holds = std::sync::Mutex::new(Holds(holds));
    session.declare_subscriber("held").callback(move |_| drop(holds.lock())).background().wait().expect("declared");
    held
}

/// Whoever opens it next has to find its port and its peers as after any other close.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_that_is_closed_while_it_is_opened_anew_waits_for_the_end_of_its_old_sessions() {
    let (worn, mut inbox) = opened(Options { lost_max: 1, ..options("worn") }).await;
    let (leaves, _inbox) = opened(Options { connect: worn.listening(), ..options("leaves") }).await;
    leaves.announce().await.expect("announced");
    hears(&mut inbox, [appeared("leaves")]).await;
    let old = worn.core.load_full();
    let held = hold(&old).await;
    leaves.close().await;
    wait_until("the old session is on its way out", async || old.session().is_err()).await;
    let mut closing = worn.close();
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut closing).await.is_err(), "it has not ended");
    drop(held);
    in_time("it closes", closing).await;
    std::net::TcpListener::bind(worn.listening().first().expect("one").as_str()).expect("the port is free");
}
