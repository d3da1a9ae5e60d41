//! Links between sites: who crosses, for how long, and what may be said over them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpSocket, TcpStream};
use zenoh::query::Query;
use zenoh::sample::Sample;
use zenoh::{Session, Wait};

use crate::mesh::authority::{Authority, address};
use crate::mesh::support::{any_answer, hears, wait_until};
use crate::mesh::zenoh::lost::LOST_MAX;
use crate::mesh::zenoh::secure::PROTOCOL;
use crate::mesh::zenoh::session::{self, Wires};
use crate::mesh::zenoh::tunnel::Tunnel;
use crate::mesh::zenoh::{Options, Partner, Role, ZenohMesh, open};
use crate::mesh::{Answer, Document, Fact, Inbox, Mesh, Verb};
use crate::tls::Identity;
use crate::tls::support::{Clock, Stranger, id};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const BUDGET: Duration = Duration::from_secs(5);

/// One site: its authority, and its router with a node behind it.
struct Site {
    authority: Authority,
    router: Arc<Identity>,
    key: PrivateKeyDer<'static>,
}

impl Site {
    /// Sites that know each other's anchors.
    fn known<const N: usize>(names: [&'static str; N]) -> [Self; N] {
        let authorities = names.map(Authority::of);
        let routers: Vec<_> = authorities.iter().map(|it| router_of(it, &authorities)).collect();
        let mut routers = routers.into_iter();
        authorities.map(|authority| {
            let (router, key) = routers.next().expect("as many");
            Self { authority, router, key }
        })
    }

    fn options(&self, name: &str, identity: Arc<Identity>) -> Options {
        Options { tls: Some(identity), ..Options::new(self.authority.runtime(name), 1, LOOPBACK) }
    }

    /// Opens the site's router with these partners.
    async fn open(&self, partners: Vec<Partner>) -> Member {
        let options = self.options("router", Arc::clone(&self.router));
        Member::open(Options { role: Role::Router, partners, ..options }).await
    }

    /// Opens a second router of the site, linked with the first.
    async fn second(&self, name: &str, router: &Member) -> Member {
        let connect = vec![router.mesh.listening().remove(0)];
        let options = self.options(name, self.authority.node(name));
        Member::open(Options { role: Role::Router, connect, ..options }).await
    }

    /// Opens a node that knows its own site's authority alone, as a client of the router.
    async fn client(&self, name: &str, router: &Member) -> Member {
        let connect = vec![router.mesh.listening().remove(0)];
        let options = self.options(name, self.authority.node(name));
        Member::open(Options { role: Role::Client, connect, ..options }).await
    }
}

/// What the router of this site holds, which knows all these sites.
fn router_of(own: &Authority, all: &[Authority]) -> (Arc<Identity>, PrivateKeyDer<'static>) {
    let others: Vec<&Authority> = all.iter().filter(|it| it.site() != own.site()).collect();
    let (chain, key) = own.proof("router");
    let snapshot = own.snapshot_knowing(&others, "router", (chain, key.clone_key()), "");
    (Identity::new(snapshot, Arc::new(Clock::default())), key)
}

fn partner(site: &Site) -> Partner {
    Partner { site: site.authority.site().clone(), listen: None, connect: Vec::new(), links_max: 4 }
}

fn listening(site: &Site) -> Partner {
    Partner { listen: Some(LOOPBACK), ..partner(site) }
}

fn dialling(site: &Site, at: &str) -> Partner {
    Partner { connect: vec![at.to_owned()], ..partner(site) }
}

/// An open mesh and what it hears.
struct Member {
    mesh: Arc<ZenohMesh>,
    inbox: Inbox,
    options: Options,
}

impl Member {
    async fn open(options: Options) -> Self {
        let (mesh, inbox) = open(options.clone()).await.expect("opens");
        mesh.announce().await.expect("announced or noted");
        Self { mesh, inbox, options }
    }

    /// Where the router's partners come, in their order.
    fn partner_at(&self, index: usize) -> String {
        self.mesh.listening().remove(index.saturating_add(1))
    }

    /// Waits for these facts, in any order, and passes over others.
    async fn hears<const N: usize>(&mut self, wanted: [Fact; N]) {
        hears(&mut self.inbox, wanted).await;
    }

    /// As if it had lost very many links: a real one that is lost while the members still meet would be one too early.
    fn wears_out(&self) {
        let lost = Arc::clone(&self.mesh.core.load().lost);
        (0..LOST_MAX.saturating_mul(2)).for_each(|_| lost.add_one());
    }

    fn appeared(&self) -> Fact {
        Fact::TokenAppeared { runtime: self.options.runtime.clone(), boot: 1 }
    }

    fn gone(&self) -> Fact {
        Fact::TokenGone { runtime: self.options.runtime.clone(), boot: 1 }
    }

    /// Asks until the answer comes: right after a link comes up the route may still be missing.
    async fn asks(&self, other: &mut Self) {
        let runtime = other.options.runtime.clone();
        let answering = async {
            while let Some(incoming) = other.inbox.queries.recv().await {
                incoming.responder.answer(Answer::Reply(b"here".to_vec()));
            }
        };
        let asking = wait_until("the query is answered", async || {
            self.mesh.query(&runtime, Verb::Act, Vec::new(), BUDGET, &any_answer).await == Ok(b"here".to_vec())
        });
        tokio::select! {
            () = answering => panic!("the inbox is open"),
            () = asking => (),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_two_sites_meet_and_ask_each_other_through_their_routers() {
    let [north, south] = Site::known(["north", "south"]);
    let north_router = north.open(vec![listening(&south)]).await;
    let south_router = south.open(vec![dialling(&north, &north_router.partner_at(0))]).await;
    let (mut n, mut s) = (north.client("n", &north_router).await, south.client("s", &south_router).await);
    n.hears([north_router.appeared(), south_router.appeared(), s.appeared()]).await;
    s.hears([south_router.appeared(), north_router.appeared(), n.appeared()]).await;
    n.asks(&mut s).await;
    s.asks(&mut n).await;
    for document in [Document::Identity, Document::Observation] {
        let bytes = format!("{document:?}").into_bytes();
        let runtime = n.options.runtime.clone();
        let wanted = Fact::Published { runtime, document, bytes: bytes.clone() };
        let speaking = wait_until("it is published", async || {
            n.mesh.publish(document, bytes.clone()).await.expect("published");
            s.inbox.facts.try_recv().is_ok_and(|heard| heard == wanted)
        });
        speaking.await;
    }
    let fetched = s.mesh.fetch_identity(&n.options.runtime, BUDGET, &any_answer).await;
    assert_eq!(fetched, Ok(b"Identity".to_vec()));
    assert_eq!((north_router.mesh.links().await, south_router.mesh.links().await), (2, 2), "one client, one partner");
}

/// Everybody who does not cross the listener that a site has for its partner, by who they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_of_the_partner_come_to_its_listener_and_only_own_ones_to_the_own() {
    let [north, south, east] = Site::known(["north", "south", "east"]);
    let router = north.open(vec![listening(&south), listening(&east)]).await;
    let [own, at_south, at_east] = router.mesh.listening().try_into().expect("three addresses");
    let (of_north, of_south, of_east) = (&north.authority, &south.authority, &east.authority);
    let as_south = |by: &Authority, who: &str| {
        let names = vec![id(&format!("south/{who}")), address([127, 0, 0, 1])];
        by.changed("x", |it| it.subject_alt_names = names)
    };
    let lets_in = async |at: &str, proof| Stranger::with(Some(proof)).is_let_in(at).await;
    assert!(lets_in(&at_south, of_south.proof("x")).await, "a stranger is told from a neighbour");
    for (what, at, proof) in [
        ("of the own site", &at_south, of_north.proof("x")),
        ("of a third site", &at_south, of_east.proof("x")),
        ("a person of the partner", &at_south, as_south(of_south, "alice")),
        ("the own authority speaks for the partner", &at_south, as_south(of_north, "runtime/x")),
        ("a third site's authority speaks for the partner", &at_south, as_south(of_east, "runtime/x")),
        ("a stranger's authority speaks for the partner", &at_south, Authority::of("south").proof("x")),
        ("the partner at a third site's", &at_east, of_south.proof("x")),
        ("the partner at the own", &own, of_south.proof("x")),
        ("the partner's authority speaks for the own site", &own, {
            let names = vec![id("north/runtime/x"), address([127, 0, 0, 1])];
            of_south.changed("x", |it| it.subject_alt_names = names)
        }),
    ] {
        assert!(!lets_in(at, proof).await, "{what}");
    }
    assert!(lets_in(&own, of_north.proof("x")).await && lets_in(&at_east, of_east.proof("x")).await);
}

/// Who is dialled has to be of the partner, by the partner's anchors, and to have the address that was dialled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_that_is_dialled_has_to_be_one() {
    let [north, south, east] = Site::known(["north", "south", "east"]);
    let answering = Authority::of("south");
    let elsewhere = south.authority.changed("router", |it| {
        it.subject_alt_names = vec![id("south/runtime/router"), address([127, 0, 0, 2])];
    });
    let other_address = south.authority.snapshot_knowing(&[&north.authority], "router", elsewhere, "");
    for (what, identity) in [
        ("another authority of that name", router_of(&answering, &[Authority::of("north")]).0),
        ("at another address", Identity::new(other_address, Arc::new(Clock::default()))),
        ("a third site", Arc::clone(&east.router)),
    ] {
        let site = identity.snapshot().own().svid.subject.site.clone();
        let runtime = format!("{site}/router").parse().expect("legal");
        let options = Options { tls: Some(identity), role: Role::Router, ..Options::new(runtime, 1, LOOPBACK) };
        let far = Member::open(Options { partners: vec![listening(&north)], ..options }).await;
        let router = north.open(vec![dialling(&south, &far.partner_at(0))]).await;
        // waits: for more than two rounds of dialling; nothing must happen, so there is no condition.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        assert_eq!((router.mesh.links().await, far.mesh.links().await), (0, 0), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_has_no_more_links_than_it_is_given() {
    let [north, south] = Site::known(["north", "south"]);
    let router = north.open(vec![Partner { links_max: 2, ..listening(&south) }]).await;
    let at = router.partner_at(0);
    let proof = || Stranger::with(Some(south.authority.proof("x")));
    let held = [proof().stays(&at).await, proof().stays(&at).await];
    assert!(held.iter().all(Option::is_some), "two are let in");
    assert!(!proof().is_let_in(&at).await, "a third is not");
    assert!(Stranger::with(Some(north.authority.proof("x"))).is_let_in(&router.mesh.listening()[0]).await);
    drop(held);
    wait_until("a place is free", async || proof().is_let_in(&at).await).await;
}

/// A node that opens link after link leaves places to all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_has_no_more_links_than_its_share() {
    let [north, south] = Site::known(["north", "south"]);
    let router = north.open(vec![listening(&south)]).await;
    let at = router.mesh.listening()[0].clone();
    let by = |who: &str| Stranger::with(Some(north.authority.proof(who)));
    let greedy = by("greedy");
    let links = join_all((0..20).map(|_| greedy.stays(&at))).await;
    let held: Vec<_> = links.into_iter().flatten().collect();
    assert_eq!(held.len(), 16, "its share");
    assert!(by("other").is_let_in(&at).await, "there is room for others");
    drop(held);
    wait_until("its places are free", async || by("greedy").is_let_in(&at).await).await;
}

/// Whoever begins handshakes and says nothing keeps nobody else out who comes from elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_at_the_listener_keeps_nobody_out() {
    let [north, south] = Site::known(["north", "south"]);
    let router = north.open(vec![listening(&south)]).await;
    let text = router.partner_at(0);
    let at: SocketAddr = text.parse().expect("an address");
    // More than there are places; all of them wait for the first word.
    let mut silent = Vec::new();
    for _ in 0..48 {
        silent.push(TcpStream::connect(at).await.expect("the system accepts"));
    }
    let south_x = Stranger::with(Some(south.authority.proof("x")));
    assert!(south_x.is_let_in(&text).await, "from the same address");
    let elsewhere = TcpSocket::new_v4().expect("a socket");
    elsewhere.bind(SocketAddr::from(([127, 0, 0, 2], 0))).expect("loopback has many addresses");
    let stream = elsewhere.connect(at).await.expect("connected");
    assert!(south_x.is_let_in_over(stream).await, "from another one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_goes_with_its_anchors_or_a_ban_and_comes_back_with_them() {
    let [north, south] = Site::known(["north", "south"]);
    let mut router = north.open(vec![listening(&south)]).await;
    let far = south.open(vec![dialling(&north, &router.partner_at(0))]).await;
    let near = north.client("n", &router).await;
    router.hears([far.appeared(), near.appeared()]).await;
    let with = |others: &[&Authority], bans: &str| {
        let chain = north.router.snapshot().chain().to_vec();
        north.authority.snapshot_knowing(others, "router", (chain, north.key.clone_key()), bans)
    };
    let ban = "id spiffe://trust/south/runtime/router # sold\n";
    for (what, taken) in [("anchors", with(&[], "")), ("a ban", with(&[&south.authority], ban))] {
        north.router.swap(taken);
        router.hears([far.gone()]).await;
        assert!(near.mesh.links().await == 1, "the own site goes on without {what}");
        north.router.swap(with(&[&south.authority], ""));
        router.hears([far.appeared()]).await;
    }
}

/// A session that keeps no rule of its own, in the partner's place.
async fn lawless(site: &Site, to: &Site, at: &str) -> (Session, Tunnel) {
    lawless_before(site, to, at, Vec::new()).await
}

/// The same, with links of its own making behind it.
async fn lawless_before(site: &Site, to: &Site, at: &str, behind: Vec<String>) -> (Session, Tunnel) {
    let options = Options { role: Role::Router, ..site.options("router", Arc::clone(&site.router)) };
    let options = Options { partners: vec![dialling(to, at)], ..options };
    let tunnel = Tunnel::open(&options, &site.router).await.expect("opens");
    let mut wires = tunnel.partners[0].clone();
    wires.connect.extend(behind);
    let mut config = session::config(&options, &wires).expect("accepted");
    let protocols = serde_json::json!([PROTOCOL, "tcp"]).to_string();
    config.insert_json5("transport/link/protocols", &protocols).expect("accepted");
    config.insert_json5("access_control", "{ enabled: false }").expect("accepted");
    (zenoh::open(config).await.expect("opens"), tunnel)
}

/// What a partner says of itself passes, and nothing that it says of others; nor does it hear what others say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_speaks_for_itself_and_hears_what_it_is_told() {
    let [north, south, east] = Site::known(["north", "south", "east"]);
    let router = north.open(vec![listening(&south), listening(&east)]).await;
    let mut n = north.client("n", &router).await;
    let (from_south, _tunnel) = lawless(&south, &north, &router.partner_at(0)).await;
    let (from_east, _east_tunnel) = lawless(&east, &north, &router.partner_at(1)).await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    for pattern in ["truST/**", "truST/*/*/_meta/identity", "truST/*/*/diag/observation"] {
        let heard = Arc::clone(&heard);
        let note = move |sample: Sample| heard.lock().expect("sound").push(sample.key_expr().to_string());
        from_east.declare_subscriber(pattern).callback(note).background().wait().expect("declared");
    }
    let token = |name: &str| from_south.liveliness().declare_token(format!("truST/{name}/svc/liveliness/1")).wait();
    let _tokens = ["north/ghost", "east/ghost", "south/ghost"].map(|name| token(name).expect("declared"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    for name in ["north/victim", "south/router", "east/router"] {
        let asked = Arc::clone(&asked);
        let key = format!("truST/{name}/svc/rpc/**");
        let note = move |query: Query| asked.lock().expect("sound").push(query.key_expr().to_string());
        from_south.declare_queryable(key).callback(note).background().wait().expect("declared");
    }
    let ghost: Fact = Fact::TokenAppeared { runtime: "south/ghost".parse().expect("legal"), boot: 1 };
    let mut facts = Vec::new();
    let observation = |name: &str| format!("truST/{name}/diag/observation");
    wait_until("all that may pass has passed", async || {
        for name in ["north/n", "east/x", "south/x"] {
            from_south.put(observation(name), "x").wait().expect("put");
        }
        for name in ["north/victim", "east/router", "south/router"] {
            let target = name.parse().expect("legal");
            drop(n.mesh.query(&target, Verb::Act, Vec::new(), Duration::from_millis(50), &any_answer).await);
        }
        // Refused until the client has its router.
        drop(n.mesh.publish(Document::Observation, b"n".to_vec()).await);
        facts.extend(std::iter::from_fn(|| n.inbox.facts.try_recv().ok()));
        facts.contains(&ghost)
            && facts.iter().any(|it| matches!(it, Fact::Published { .. }))
            && !asked.lock().expect("sound").is_empty()
            && !heard.lock().expect("sound").is_empty()
    })
    .await;
    let of_south = |fact: &Fact| match fact {
        Fact::TokenAppeared { runtime, .. } | Fact::TokenGone { runtime, .. } | Fact::Published { runtime, .. } => {
            runtime.site == *south.authority.site() || *fact == router.appeared()
        }
    };
    let foreign: Vec<_> = facts.iter().filter(|it| !of_south(it)).collect();
    assert!(foreign.is_empty(), "said in others' names: {foreign:?}");
    let only = |noted: &Mutex<Vec<String>>, key: &str| noted.lock().expect("sound").iter().all(|it| it == key);
    assert!(only(&asked, "truST/south/router/svc/rpc/act/north/n"), "{asked:?}");
    assert!(only(&heard, &observation("north/n")), "{heard:?}");
}

/// Routers believe each other's lists. A partner's router lists one by the id of a second router of ours, and one that nobody
/// knows: what ours say to each other may end in its gate then, where nobody hears it. It is over when he is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routers_that_a_partner_invents_hear_nothing_and_are_gone_with_him() {
    let [north, south] = Site::known(["north", "south"]);
    let router = north.open(vec![listening(&south)]).await;
    let second = north.second("second", &router).await;
    let n = north.client("n", &router).await;
    let mut m = north.client("m", &second).await;
    n.asks(&mut m).await;

    let id = second.mesh.core.load().session().expect("open").zid().to_string();
    let invented = [invented(&south, Some(&id)).await, invented(&south, None).await];
    let behind = invented.iter().flat_map(|it| it.runtime.get_locators()).map(|it| it.to_string()).collect();
    let (liar, _tunnel) = lawless_before(&south, &north, &router.partner_at(0), behind).await;
    let noted = Arc::new(Mutex::new(Vec::new()));
    for session in invented.iter().map(|it| &it.session).chain([&liar]) {
        let (asked, heard) = (Arc::clone(&noted), Arc::clone(&noted));
        let note = move |query: Query| asked.lock().expect("sound").push(format!("asked {}", query.key_expr()));
        for key in ["truST/**", "truST/north/m/svc/rpc/**", "truST/north/victim/svc/rpc/**"] {
            let queryable = session.declare_queryable(key).complete(true);
            queryable.callback(note.clone()).background().wait().expect("declared");
        }
        let note = move |sample: Sample| heard.lock().expect("sound").push(format!("heard {}", sample.key_expr()));
        for pattern in ["truST/**", "truST/*/*/_meta/identity", "truST/*/*/diag/observation"] {
            session.declare_subscriber(pattern).callback(note.clone()).background().wait().expect("declared");
        }
    }
    let ask = async |from: &Member, target: &str| {
        let target = target.parse().expect("legal");
        drop(from.mesh.query(&target, Verb::Act, Vec::new(), Duration::from_millis(20), &any_answer).await);
    };
    let talk = async || {
        ask(&n, "north/m").await;
        ask(&m, "north/n").await;
        ask(&n, "north/victim").await;
        drop(n.mesh.publish(Document::Observation, b"n".to_vec()).await);
    };
    wait_until("he hears what is told to partners", async || {
        talk().await;
        noted.lock().expect("sound").iter().any(|it| it.starts_with("heard"))
    })
    .await;
    for _ in 0..20 {
        talk().await;
    }
    let told = ["heard truST/north/n/diag/observation", "heard truST/north/n/_meta/identity"];
    let overheard: Vec<_> =
        noted.lock().expect("sound").iter().filter(|it| !told.contains(&it.as_str())).cloned().collect();
    assert!(overheard.is_empty(), "{overheard:?}");

    drop(liar.close().await);
    for it in invented {
        it.close().await;
    }
    n.asks(&mut m).await;
}

/// A router of a partner's making, in the place of the one that has this id.
async fn invented(site: &Site, id: Option<&str>) -> session::Opened {
    let options = Options { role: Role::Router, tls: None, ..site.options("invented", Arc::clone(&site.router)) };
    let wires = Wires { listen: vec!["tcp/127.0.0.1:0".to_owned()], connect: Vec::new() };
    let mut config = session::config(&options, &wires).expect("accepted");
    if let Some(id) = id {
        config.insert_json5("id", &format!("{id:?}")).expect("accepted");
    }
    session::start(config).await.expect("opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_router_inside_tls_has_partners() {
    let [north, south] = Site::known(["north", "south"]);
    let inside = north.options("router", Arc::clone(&north.router));
    for options in
        [Options { role: Role::Peer, ..inside.clone() }, Options { role: Role::Router, tls: None, ..inside.clone() }]
    {
        let refused = open(Options { partners: vec![listening(&south)], ..options }).await;
        assert!(refused.expect_err("refused").to_string().contains("only a router inside TLS"));
    }
    let taken = std::net::TcpListener::bind(LOOPBACK).expect("bound");
    let listen = Some(taken.local_addr().expect("bound"));
    let partners = vec![Partner { listen, ..listening(&south) }];
    let refused = open(Options { role: Role::Router, partners, ..inside }).await;
    assert!(refused.expect_err("taken").to_string().starts_with("runtime.mesh.partner: cannot listen on"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_is_opened_anew_is_back_with_its_site_and_its_partner() {
    let [north, south] = Site::known(["north", "south"]);
    let mut options = north.options("router", Arc::clone(&north.router));
    options = Options { role: Role::Router, partners: vec![listening(&south)], ..options };
    let mut worn = Member::open(options).await;
    let south_router = south.open(vec![dialling(&north, &worn.partner_at(0))]).await;
    let mut n = north.client("n", &worn).await;
    let mut s = south.client("s", &south_router).await;
    n.hears([s.appeared(), worn.appeared()]).await;
    s.hears([n.appeared(), worn.appeared()]).await;
    let (first, at) = (worn.mesh.core.load_full(), worn.mesh.listening());

    worn.wears_out();
    worn.hears([n.gone(), s.gone()]).await;
    n.hears([s.appeared(), worn.appeared()]).await;
    s.hears([n.appeared(), worn.appeared()]).await;
    wait_until("these sessions are others", async || !Arc::ptr_eq(&first, &worn.mesh.core.load_full())).await;
    n.asks(&mut s).await;
    s.asks(&mut n).await;
    s.asks(&mut worn).await;
    wait_until("there are one client and one partner", async || worn.mesh.links().await == 2).await;
    assert_eq!(worn.mesh.listening(), at);
}

/// Nobody is at a dismissed partner's door, and nobody waits for him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_whose_partner_was_dismissed_is_opened_anew_without_him() {
    let [north, south] = Site::known(["north", "south"]);
    let options = north.options("router", Arc::clone(&north.router));
    let partners = vec![listening(&south)];
    let mut worn = Member::open(Options { role: Role::Router, partners, ..options }).await;
    let mut n = north.client("n", &worn).await;
    n.hears([worn.appeared()]).await;
    worn.mesh.dismiss(&south.authority.runtime("any").site);
    worn.wears_out();
    worn.hears([n.gone()]).await;
    n.hears([worn.appeared()]).await;
    n.asks(&mut worn).await;
}
