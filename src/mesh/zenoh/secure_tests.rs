//! What only links inside TLS promise: who is let in, for how long, and what passes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::DistinguishedName;
use rustls::crypto::ring::default_provider;
use rustls::version::TLS13;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use zenoh::{Session, Wait};

use crate::domain::time::Millis;
use crate::mesh::authority::{Authority, address};
use crate::mesh::support::{any_answer, hears, in_time, runtime, wait_until};
use crate::mesh::zenoh::session::{self, Wires};
use crate::mesh::zenoh::tunnel::Tunnel;
use crate::mesh::zenoh::{Options, Role, ZenohMesh, open};
use crate::mesh::{Answer, Fact, Inbox, Mesh, QueryError, Verb};
use crate::tls::support::{Clock, Proof, Stranger, after, id};
use crate::tls::{self, Identity};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const BUDGET: Duration = Duration::from_secs(5);

fn options(name: &str, identity: &Arc<Identity>) -> Options {
    Options { tls: Some(Arc::clone(identity)), ..Options::new(runtime(name), 1, LOOPBACK) }
}

/// A node that listens.
async fn router(name: &str, identity: &Arc<Identity>) -> (Arc<ZenohMesh>, Inbox) {
    let opened = open(Options { role: Role::Router, ..options(name, identity) }).await.expect("opens");
    opened.0.announce().await.expect("announced");
    opened
}

/// A client of a router.
async fn near(name: &str, identity: &Arc<Identity>, far: &ZenohMesh) -> (Arc<ZenohMesh>, Inbox) {
    let options = Options { role: Role::Client, connect: far.listening(), ..options(name, identity) };
    let opened = open(options).await.expect("opens");
    opened.0.announce().await.expect("announced or noted");
    opened
}

fn appeared(name: &str) -> Fact {
    Fact::TokenAppeared { runtime: runtime(name), boot: 1 }
}

fn gone(name: &str) -> Fact {
    Fact::TokenGone { runtime: runtime(name), boot: 1 }
}

/// Asks until the answer comes: right after a link comes up the route may still be missing.
async fn asks(from: &ZenohMesh, target: &str, inbox: &mut Inbox) {
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
async fn clients_and_peers_link_inside_tls_and_ask_each_other() {
    let site = Authority::new();
    for role in [Role::Client, Role::Peer] {
        let (far, mut far_inbox) = router("far", &site.node("far")).await;
        let [at] = far.listening().try_into().expect("one address");
        let connect = vec![format!("tls/{at}")];
        let (near, mut near_inbox) =
            open(Options { role, connect, ..options("near", &site.node("near")) }).await.expect("opens");
        near.announce().await.expect("announced or noted");
        hears(&mut near_inbox, [appeared("far")]).await;
        hears(&mut far_inbox, [appeared("near")]).await;
        asks(&near, "far", &mut far_inbox).await;
        asks(&far, "near", &mut near_inbox).await;
        near.close().await;
        hears(&mut far_inbox, [gone("near")]).await;
        let taken = open(Options { listen: at.parse().expect("an address"), ..options("b", &site.node("b")) }).await;
        assert!(taken.expect_err("taken").to_string().contains(&at));
    }
}

/// Everybody who is not let in, by what is wrong with them.
fn strangers(site: &Authority) -> Vec<(&'static str, Option<Proof>)> {
    let expired = |params: &mut rcgen::CertificateParams| params.not_after = after(time::Duration::minutes(-1));
    let (_, key) = site.proof("x");
    let garbage = CertificateDer::from(b"\x30\x03\x02\x01\x01".to_vec());
    let two_ids = |it: &mut rcgen::CertificateParams| {
        it.subject_alt_names = vec![id("s/runtime/x"), id("s/runtime/y"), address([127, 0, 0, 1])];
    };
    let (leaf, long_key) = site.proof("x");
    let long = leaf.iter().cycle().take(100).cloned().collect();
    vec![
        ("no certificate", None),
        ("another authority", Some(Authority::new().proof("x"))),
        ("expired", Some(site.changed("x", expired))),
        ("a person", Some(site.changed("x", |it| it.subject_alt_names = vec![id("s/alice"), address([127, 0, 0, 1])]))),
        ("another site", Some(site.changed("x", |it| it.subject_alt_names = vec![id("t/runtime/x")]))),
        ("no id", Some(site.changed("x", |it| it.subject_alt_names = vec![address([127, 0, 0, 1])]))),
        ("two ids", Some(site.changed("x", two_ids))),
        ("a chain of a hundred", Some((long, long_key))),
        ("malformed", Some((vec![garbage], key))),
        ("another's key", Some((site.proof("x").0, PrivateKeyDer::clone_key(&site.proof("y").1)))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_leave_the_others_alone() {
    let site = Authority::new();
    let (far, mut far_inbox) = router("far", &site.node("far")).await;
    let (good, mut inbox) = near("good", &site.node("good"), &far).await;
    asks(&good, "far", &mut far_inbox).await;
    let [at] = far.listening().try_into().expect("one address");
    assert!(Stranger::with(Some(site.proof("x"))).is_let_in(&at).await, "a stranger is told from a neighbour");
    for (what, proof) in strangers(&site) {
        assert!(!Stranger::with(proof).is_let_in(&at).await, "{what}");
    }

    let plain =
        Options { role: Role::Client, connect: vec![at.clone()], ..Options::new(runtime("plain"), 1, LOOPBACK) };
    assert!(session::open(&plain, &Wires::tcp(&plain)).await.is_err(), "plain TCP");
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(&at).await.expect("connected"));
    }
    for socket in &mut silent {
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    }

    // None of it reached the link that was there, nor does it keep another one out.
    asks(&good, "far", &mut far_inbox).await;
    let (late, _late_inbox) = near("late", &site.node("late"), &far).await;
    asks(&late, "far", &mut far_inbox).await;
    hears(&mut inbox, [appeared("late")]).await;
    assert_eq!(far.links().await, 2);
    while let Ok(fact) = inbox.facts.try_recv() {
        assert_ne!(fact, gone("far"), "the good link was cut");
    }
}

/// SPIFFE asks for no subject, and Zenoh 1.7.2 does not survive one without a common name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_without_a_common_name_is_as_good() {
    let site = Authority::new();
    let nameless = |name| {
        let proof = site.changed(name, |it| it.distinguished_name = DistinguishedName::new());
        Identity::new(site.snapshot(name, proof, ""), Arc::new(Clock::default()))
    };
    let (far, mut far_inbox) = router("far", &nameless("far")).await;
    let (near, mut near_inbox) = near("near", &nameless("near"), &far).await;
    asks(&near, "far", &mut far_inbox).await;
    asks(&far, "near", &mut near_inbox).await;
}

/// Why a node does not link with whoever answers with this proof.
async fn refusal_of(site: &Authority, proof: Proof) -> Option<String> {
    let listener = TcpListener::bind(LOOPBACK).await.expect("bound");
    let at = listener.local_addr().expect("bound");
    let (chain, key) = proof;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_protocol_versions(&[&TLS13]).expect("a version").with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).expect("a key")));
    let connector =
        TlsConnector::from(tls::link_client(&site.node("near"), &runtime("near").site).expect("a configuration"));
    let name = ServerName::IpAddress(at.ip().into());
    let socket = TcpStream::connect(at).await.expect("connected");
    let accepting = async { acceptor.accept(listener.accept().await?.0).await };
    let (_, dialled) = tokio::join!(accepting, connector.connect(name, socket));
    dialled.err().map(|error| tls::explain(&error))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_node_of_the_site_at_an_address_of_its_own_is_dialled() {
    let site = Authority::new();
    assert_eq!(refusal_of(&site, site.proof("far")).await, None);
    let named = |names| site.changed("far", |it| it.subject_alt_names = names);
    for (proof, words) in [
        (named(vec![id("s/runtime/far"), address([127, 0, 0, 2])]), "does not name it"),
        (named(vec![id("s/runtime/far")]), "--ip or --dns 127.0.0.1"),
        (named(vec![id("s/alice"), address([127, 0, 0, 1])]), "wanted a node of site s"),
        (named(vec![id("t/runtime/far"), address([127, 0, 0, 1])]), "no anchor for site t"),
        (Authority::new().proof("far"), "no anchor of site s has issued it"),
    ] {
        let refusal = refusal_of(&site, proof).await.expect(words);
        assert!(refusal.contains(words), "wanted {words:?}: {refusal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_certificates_bring_the_link_back_and_end_the_old_ones() {
    let (old, new) = (Authority::new(), Authority::new());
    let (far_identity, near_identity) = (old.node("far"), old.node("near"));
    let (far, mut far_inbox) = router("far", &far_identity).await;
    let (near, mut near_inbox) = near("near", &near_identity, &far).await;
    hears(&mut near_inbox, [appeared("far")]).await;
    hears(&mut far_inbox, [appeared("near")]).await;
    asks(&near, "far", &mut far_inbox).await;
    let [at] = far.listening().try_into().expect("one address");

    // A question that is under way when the link ends is ended with it.
    let (target, budget) = (runtime("far"), Duration::from_secs(60));
    let asked = near.query(&target, Verb::Act, b"cut".to_vec(), budget, &any_answer);
    let renew = async {
        let held = in_time("the query", async {
            loop {
                let incoming = far_inbox.queries.recv().await.expect("open");
                if incoming.payload == b"cut" {
                    return incoming;
                }
            }
        });
        let held = held.await;
        far_identity.swap(new.snapshot("far", new.proof("far"), ""));
        near_identity.swap(new.snapshot("near", new.proof("near"), ""));
        held
    };
    let (answer, held) = in_time("the cut query", async { tokio::join!(asked, renew) }).await;
    assert_eq!(answer, Err(QueryError::NoReply));
    held.responder.answer(Answer::Reply(b"to nobody".to_vec()));

    hears(&mut far_inbox, [gone("near")]).await;
    hears(&mut far_inbox, [appeared("near")]).await;
    asks(&near, "far", &mut far_inbox).await;
    asks(&far, "near", &mut near_inbox).await;
    let renewed = Stranger::with(Some(new.proof("x")));
    assert!(renewed.is_let_in(&at).await);
    assert_eq!(renewed.met(), far_identity.snapshot().chain()[0].to_vec());
    assert!(!Stranger::with(Some(old.proof("x"))).is_let_in(&at).await, "the old authority still counts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_was_proved_by_the_certificate_before_the_present_one_is_replaced() {
    let site = Authority::new();
    let near_identity = site.node("near");
    let (far, mut far_inbox) = router("far", &site.node("far")).await;
    let (near, _inbox) = near("near", &near_identity, &far).await;
    hears(&mut far_inbox, [appeared("near")]).await;
    near_identity.swap(site.snapshot("near", site.proof("near"), ""));
    hears(&mut far_inbox, [gone("near")]).await;
    hears(&mut far_inbox, [appeared("near")]).await;
    asks(&near, "far", &mut far_inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_ends_the_links_of_whom_it_names_and_no_others() {
    let site = Authority::new();
    let (identity, proof) = (site.node("far"), site.proof("far"));
    identity.swap(site.snapshot("far", (proof.0.clone(), proof.1.clone_key()), ""));
    let (far, mut far_inbox) = router("far", &identity).await;
    let (good, mut inbox) = near("good", &site.node("good"), &far).await;
    let (_banned, _) = near("banned", &site.node("banned"), &far).await;
    hears(&mut inbox, [appeared("far"), appeared("banned")]).await;

    identity.swap(site.snapshot("far", proof, "id spiffe://trust/s/runtime/banned # left the plant\n"));
    hears(&mut inbox, [gone("banned")]).await;
    asks(&good, "far", &mut far_inbox).await;
    let [at] = far.listening().try_into().expect("one address");
    assert!(!Stranger::with(Some(site.proof("banned"))).is_let_in(&at).await);
    while let Ok(fact) = inbox.facts.try_recv() {
        assert!(fact != gone("far") && fact != appeared("banned"), "{fact:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_does_not_outlive_the_certificate_that_proved_it() {
    let site = Authority::new();
    let clock = Arc::new(Clock::default());
    let long = site.changed("far", |it| it.not_after = after(time::Duration::hours(9)));
    let identity = Identity::new(site.snapshot("far", long, ""), Arc::clone(&clock) as Arc<dyn tls::WallClock>);
    let (far, mut far_inbox) = router("far", &identity).await;
    let (_near, _inbox) = near("near", &site.node("near"), &far).await;
    hears(&mut far_inbox, [appeared("near")]).await;
    clock.pass(Millis::from_hours(2));
    hears(&mut far_inbox, [gone("near")]).await;
    let [at] = far.listening().try_into().expect("one address");
    assert!(!Stranger::with(Some(site.proof("near"))).is_let_in(&at).await);
}

/// A session that keeps no rule of its own, linked to `far`.
async fn lawless(name: &str, site: &Authority, far: &ZenohMesh) -> (Session, Tunnel) {
    let identity = site.node(name);
    let options = Options { role: Role::Client, connect: far.listening(), ..options(name, &identity) };
    let tunnel = Tunnel::open(&options, &identity).await.expect("opens");
    let mut config = session::config(&options, &tunnel.wires).expect("accepted");
    config.insert_json5("access_control", "{ enabled: false }").expect("accepted");
    (zenoh::open(config).await.expect("opens"), tunnel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_carries_what_nodes_say_and_nothing_else() {
    let site = Authority::new();
    let (far, _inbox) = router("far", &site.node("far")).await;
    let (speaker, _speaking) = lawless("speaker", &site, &far).await;
    let (listener, _listening) = lawless("listener", &site, &far).await;
    let heard = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    for pattern in ["elsewhere/**", "truST/**"] {
        let heard = Arc::clone(&heard);
        let note = move |sample: zenoh::sample::Sample| {
            heard.lock().expect("not poisoned").insert(sample.key_expr().to_string());
        };
        listener.declare_subscriber(pattern).callback(note).background().wait().expect("declared");
    }
    for document in ["truST/*/*/_meta/identity", "truST/*/*/diag/observation"] {
        listener.declare_subscriber(document).callback(|_| {}).background().wait().expect("declared");
    }
    let allowed = "truST/s/x/diag/observation";
    wait_until("a document passes", async || {
        for key in ["elsewhere/x", "truST/s/x/io/valve", "truST/s/x/diag/other", allowed] {
            speaker.put(key, "x").wait().expect("put");
        }
        !heard.lock().expect("not poisoned").is_empty()
    })
    .await;
    assert_eq!(*heard.lock().expect("not poisoned"), [allowed.to_owned()].into());
}
