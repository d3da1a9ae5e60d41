//! Who gets through a handshake, over loopback sockets.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertificateParams, DistinguishedName};
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls13ClientSessionValue};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::domain::identity::anchors::Refusal;
use crate::domain::identity::svid::Fault;
use crate::domain::identity::{Ban, Fingerprint};
use crate::domain::time::Millis;
use crate::tls::identity::provider;
use crate::tls::support::{Chain, NOW, Site, Stranger, id, trust};
use crate::tls::{ClientCertificates, Identity, Peer, client, explain, refusal_of, server};

/// What the two ends say of one connection.
struct Ends {
    /// Who called, if the server let it in.
    server: io::Result<Option<Peer>>,
    /// What the caller knows once it has read something.
    client: io::Result<(HandshakeKind, Option<Vec<u8>>)>,
}

impl Ends {
    fn refused_by_server(&self) -> Option<Refusal> {
        self.server.as_ref().err().and_then(refusal_of).cloned()
    }

    fn are_joined(&self) -> bool {
        self.server.is_ok() && self.client.is_ok()
    }
}

/// A listener that serves one connection after another.
struct Door {
    listener: TcpListener,
    identity: Arc<Identity>,
    config: Arc<ServerConfig>,
}

impl Door {
    async fn open(identity: &Arc<Identity>, certificates: ClientCertificates) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let config = server(identity, certificates).expect("a configuration");
        Self { listener, identity: Arc::clone(identity), config }
    }

    async fn meet(&self, config: &Arc<ClientConfig>) -> Ends {
        let address = self.listener.local_addr().expect("bound");
        let (server, client) = tokio::join!(self.serve(), call(address, Arc::clone(config)));
        Ends { server, client }
    }

    async fn serve(&self) -> io::Result<Option<Peer>> {
        let (socket, _) = self.listener.accept().await?;
        let mut stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(socket).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let peer = self.identity.caller(certificates).map_err(io::Error::other)?;
        stream.write_all(b"x").await?;
        stream.shutdown().await?;
        Ok(peer)
    }
}

/// A TLS 1.3 caller hears of its refusal only when it reads.
async fn call(
    address: std::net::SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<(HandshakeKind, Option<Vec<u8>>)> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    let mut stream = TlsConnector::from(config).connect(name, socket).await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    let connection = stream.get_ref().1;
    let kind = connection.handshake_kind().expect("done");
    Ok((kind, connection.alpn_protocol().map(<[u8]>::to_vec)))
}

#[tokio::test]
async fn two_nodes_of_two_sites_know_each_other() {
    let (a, b) = (Site::new("site-a"), Site::new("site-b"));
    let clock = Arc::default();
    let door = Door::open(&a.node("r1", &[&a, &b], &clock), ClientCertificates::Required).await;
    let caller = b.node("r2", &[&a, &b], &clock);
    let config = client(&caller, &"site-a/r1".parse().expect("a runtime")).expect("a configuration");
    let ends = door.meet(&config).await;
    let peer = ends.server.expect("let in").expect("it presented one");
    assert_eq!(peer.verified.svid.subject, b.subject("r2"));
    assert_eq!(ends.client.expect("joined"), (HandshakeKind::Full, Some(b"http/1.1".to_vec())));
}

#[tokio::test]
async fn an_absent_certificate_is_none_and_a_refused_one_is_not() {
    let a = Site::new("site-a");
    let clock = Arc::default();
    let node = a.node("r1", &[&a], &clock);
    let none = Arc::new(Stranger::with(None).config());
    let optional = Door::open(&node, ClientCertificates::Optional).await;
    let ends = optional.meet(&none).await;
    assert!(ends.are_joined() && ends.server.expect("let in").is_none());
    let required = Door::open(&node, ClientCertificates::Required).await;
    let ends = required.meet(&none).await;
    assert!(ends.server.is_err() && ends.client.is_err());

    let two = |it: &mut CertificateParams| it.subject_alt_names.push(id("site-a/bob"));
    let bad = Arc::new(Stranger::with(Some(a.issue("site-a/alice", two))).config());
    for door in [&optional, &required] {
        let ends = door.meet(&bad).await;
        assert_eq!(ends.refused_by_server(), Some(Refusal::Leaf(Fault::UriCount(2))));
        assert!(ends.client.is_err(), "the caller was told");
    }
}

#[tokio::test]
async fn whatever_a_stranger_presents_ends_its_own_handshake_alone() {
    let (a, b) = (Site::new("site-a"), Site::new("site-b"));
    let clock = Arc::default();
    let door = Door::open(&a.node("r1", &[&a, &b], &clock), ClientCertificates::Optional).await;
    let no_subject = |it: &mut CertificateParams| it.distinguished_name = DistinguishedName::new();
    let ends = door.meet(&Arc::new(Stranger::with(Some(a.issue("site-a/alice", no_subject))).config())).await;
    assert!(ends.are_joined(), "a subject is not needed: {:?}", ends.server.err());

    let good = || a.issue("site-a/alice", |_| {});
    let with = |change: fn(&mut Chain)| {
        let (mut chain, key) = good();
        change(&mut chain);
        (chain, key)
    };
    let strangers = [
        ("no certificate at all", with(|chain| chain[0] = vec![0x30, 0x82, 0xff].into())),
        ("no bytes", with(|chain| chain[0] = Vec::new().into())),
        ("a chain of 17", with(|chain| chain.extend(vec![chain[0].clone(); 16]))),
        ("one large certificate", with(|chain| chain[0] = vec![0x30; 60_000].into())),
        ("another's certificate", (good().0, good().1)),
        // Signed by site-a's authority, for site-b, whose anchors are here too.
        ("site-b by site-a", a.issue("site-b/bob", |_| {})),
        ("a site that is unknown", a.issue("site-c/carl", |_| {})),
        ("the authority itself", (vec![a.anchor()], good().1)),
    ];
    for (what, stranger) in strangers {
        let ends = door.meet(&Arc::new(Stranger::with(Some(stranger)).config())).await;
        assert!(ends.server.is_err() && ends.client.is_err(), "{what}");
        let next = door.meet(&Arc::new(Stranger::with(Some(good())).config())).await;
        assert!(next.are_joined(), "after {what}: {:?}", next.server.err());
    }
}

#[tokio::test]
async fn a_refusal_names_its_rule_on_this_side() {
    let (a, b) = (Site::new("site-a"), Site::new("site-b"));
    let door = Door::open(&a.node("r1", &[&a, &b], &Arc::default()), ClientCertificates::Optional).await;
    let ends = door.meet(&Arc::new(Stranger::with(Some(a.issue("site-b/bob", |_| {}))).config())).await;
    assert_eq!(ends.refused_by_server(), Some(Refusal::UnknownIssuer("site-b".parse().expect("a site"))));
    let error = explain(&ends.server.map(drop).expect_err("refused"));
    assert!(error.contains("no anchor of site site-b"), "{error}");
    let told = ends.client.map(drop).expect_err("refused").to_string();
    assert!(!told.contains("site-b"), "the stranger learns nothing: {told}");
}

#[tokio::test]
async fn a_caller_takes_only_the_runtime_that_it_dialed() {
    let (a, b) = (Site::new("site-a"), Site::new("site-b"));
    let clock = Arc::default();
    let door = Door::open(&a.node("r1", &[&a, &b], &clock), ClientCertificates::Optional).await;
    let caller = b.node("r2", &[&a, &b], &clock);
    for wanted in ["site-a/r2", "site-b/r1"] {
        let config = client(&caller, &wanted.parse().expect("a runtime")).expect("a configuration");
        let ends = door.meet(&config).await;
        let error = explain(&ends.client.map(drop).expect_err("another runtime"));
        assert!(error.contains(&format!("wanted runtime {wanted}")) && error.contains("site-a/r1"), "{error}");
        assert!(ends.server.is_err());
    }
    let stranger = b.node("r3", &[&b], &clock);
    let config = client(&stranger, &"site-a/r1".parse().expect("a runtime")).expect("a configuration");
    let refused = door.meet(&config).await.client.map(drop).expect_err("no anchor");
    assert!(matches!(refusal_of(&refused), Some(Refusal::NoAnchor { .. })), "{refused}");
}

#[tokio::test]
async fn a_session_ends_with_its_certificate_or_with_a_ban() {
    let a = Site::new("site-a");
    let clock = Arc::default();
    let node = a.node("r1", &[&a], &clock);
    let door = Door::open(&node, ClientCertificates::Optional).await;
    let config = Arc::new(Stranger::with(Some(a.issue("site-a/alice", |_| {}))).config());
    let peer = door.meet(&config).await.server.expect("let in").expect("presented");
    assert_eq!(peer.verified.until, peer.verified.svid.not_after);
    assert_eq!(peer.recheck(node.snapshot().trust(), node.now()), Ok(()));

    let mut banned = trust(&[&a]);
    banned.bans.add(Ban::Key(peer.verified.svid.key));
    let (chain, key) = a.issue("site-a/runtime/r1", |_| {});
    let before = node.snapshot();
    let with_ban = crate::tls::Snapshot::new(chain, key, banned, &a.subject("r1"), NOW);
    node.swap(with_ban.expect("a snapshot"));
    assert!(matches!(peer.recheck(node.snapshot().trust(), node.now()), Err(Refusal::Banned(_))));
    assert!(matches!(door.meet(&config).await.refused_by_server(), Some(Refusal::Banned(_))));

    node.swap((*before).clone());
    assert_eq!(peer.recheck(node.snapshot().trust(), node.now()), Ok(()));
    clock.pass(Millis::from_hours(1));
    assert_eq!(peer.recheck(node.snapshot().trust(), node.now()), Ok(()), "the last second is part of it");
    clock.pass(Millis::from_secs(1));
    assert_eq!(peer.recheck(node.snapshot().trust(), node.now()), Err(Refusal::Expired));
    assert_eq!(door.meet(&config).await.refused_by_server(), Some(Refusal::Expired));
}

#[tokio::test]
async fn another_identity_is_used_from_the_next_connection_on() {
    let (a, next) = (Site::new("site-a"), Site::new("site-a"));
    let clock = Arc::default();
    let node = a.node("r1", &[&a], &clock);
    let door = Door::open(&node, ClientCertificates::Required).await;
    let caller = a.node("r2", &[&a], &clock);
    let config = client(&caller, &"site-a/r1".parse().expect("a runtime")).expect("a configuration");
    assert!(door.meet(&config).await.are_joined());
    // The listener moves to the site's next authority; a caller that did not is refused on both sides.
    node.swap(next.snapshot("r1", &[&next]));
    let ends = door.meet(&config).await;
    assert!(ends.client.is_err() && ends.server.is_err());
    caller.swap(next.snapshot("r2", &[&next]));
    let peer = door.meet(&config).await.server.expect("let in").expect("presented");
    assert_eq!(peer.verified.anchor, Fingerprint::of_der(&next.anchor()));
}

/// Counts the tickets that a server sends.
#[derive(Debug)]
struct Purse(ClientSessionMemoryCache, AtomicUsize);

impl ClientSessionStore for Purse {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: rustls::client::Tls12ClientSessionValue) {
        self.0.set_tls12_session(name, value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.0.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.0.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.insert_tls13_ticket(name, value);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(name)
    }
}

#[tokio::test]
async fn no_session_can_be_resumed_and_no_data_come_early() {
    let a = Site::new("site-a");
    let door = Door::open(&a.node("r1", &[&a], &Arc::default()), ClientCertificates::Optional).await;
    let purse = Arc::new(Purse(ClientSessionMemoryCache::new(8), AtomicUsize::new(0)));
    let mut config = Stranger::with(Some(a.issue("site-a/alice", |_| {}))).config();
    config.resumption = Resumption::store(Arc::clone(&purse) as Arc<dyn ClientSessionStore>);
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        let (kind, _) = door.meet(&config).await.client.expect("joined");
        assert_eq!(kind, HandshakeKind::Full);
    }
    assert_eq!(purse.1.load(Ordering::Relaxed), 0, "tickets were sent");
    assert_eq!(door.config.max_early_data_size, 0);
}

#[tokio::test]
async fn a_caller_resumes_nothing_although_it_is_offered() {
    let a = Site::new("site-a");
    let node = a.node("r1", &[&a], &Arc::default());
    let (chain, key) = a.issue("site-a/runtime/r1", |_| {});
    let generous = ServerConfig::builder_with_provider(Arc::new(provider())).with_protocol_versions(&[&TLS13]);
    let generous = generous.expect("a version").with_no_client_auth().with_single_cert(chain, key).expect("a server");
    let door = Door { config: Arc::new(generous), ..Door::open(&node, ClientCertificates::Optional).await };
    let lazy = Arc::new(Stranger::with(None).config());
    let careful = client(&node, &"site-a/r1".parse().expect("a runtime")).expect("a configuration");
    for (config, second) in [(lazy, HandshakeKind::Resumed), (careful, HandshakeKind::Full)] {
        assert_eq!(door.meet(&config).await.client.expect("joined").0, HandshakeKind::Full);
        assert_eq!(door.meet(&config).await.client.expect("joined").0, second);
    }
}

#[tokio::test]
async fn tls_1_2_is_refused_on_both_sides() {
    let a = Site::new("site-a");
    let clock = Arc::default();
    let node = a.node("r1", &[&a], &clock);
    let door = Door::open(&node, ClientCertificates::Optional).await;
    let old = ClientConfig::builder_with_provider(Arc::new(provider()));
    let old = old.with_protocol_versions(&[&TLS12]).expect("linked in tests").dangerous();
    let old = old.with_custom_certificate_verifier(Arc::new(Stranger::default())).with_no_client_auth();
    let ends = door.meet(&Arc::new(old)).await;
    assert!(ends.server.is_err() && ends.client.is_err());

    let (chain, key) = a.issue("site-a/runtime/r1", |_| {});
    let old = ServerConfig::builder_with_provider(Arc::new(provider())).with_protocol_versions(&[&TLS12]);
    let old = old.expect("linked in tests").with_no_client_auth().with_single_cert(chain, key).expect("a server");
    let door = Door { config: Arc::new(old), ..door };
    let config = client(&node, &"site-a/r1".parse().expect("a runtime")).expect("a configuration");
    let refused = door.meet(&config).await.client.map(drop).expect_err("refused").to_string();
    assert!(refused.contains("ProtocolVersion"), "not offered at all: {refused}");
}
