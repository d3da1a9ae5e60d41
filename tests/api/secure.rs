//! The listener with TLS: slow callers beside a good one, and credentials that end while their connection lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust_runtime::domain::identity::Role;
use trust_runtime::domain::identity::token::{self, Audience, TokenId, TokenRecord, Tokens};
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::web::{Auth, Options, Surface};

use crate::authority::{HOLDS, Site, shake};
use crate::fleet::{READ, TOKEN};
use crate::sockets::{PATIENCE, Served, read_all, read_answer, serve, status};

/// How long a slow caller is borne in each step.
const STEP: Duration = Duration::from_millis(1_500);

/// Slow callers at once.
const SLOW: usize = 200;

async fn serve_securely(site: &Site, change: impl FnOnce(&mut Options)) -> Served {
    let served = serve(|options| {
        options.auth = Auth::Token;
        options.secure = Some(site.secure());
        change(options);
    })
    .await;
    site.install(&served.bench);
    served
}

impl Served {
    async fn shake(&self, caller: &TlsConnector) -> TlsStream<TcpStream> {
        shake(caller, self.connect().await).await
    }

    /// A dispatch with these headers; its body names no actor that a credential could fail to cover.
    fn reading(&self, headers: &str) -> String {
        let body = READ.replace("engineer-1", "alice");
        self.dispatch(&format!("{headers}Content-Length: {}\r\n", body.len()), &body)
    }

    fn dispatched(&self) -> usize {
        self.bench.node.dispatched.lock().unwrap().len()
    }
}

/// What a slow caller does until the node has closed; gives how long that took.
async fn dawdle(served: &Served, caller: &TlsConnector, number: usize) -> Duration {
    let stream = served.connect().await;
    let begin = Instant::now();
    let until_closed = async {
        match number % 5 {
            0 => drop(read_all(&mut { stream }).await),
            // The beginning of a record of 512 bytes.
            1 => {
                let mut stream = stream;
                stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
                drop(read_all(&mut stream).await);
            }
            2 => drop(read_all(&mut shake(caller, stream).await).await),
            3 => trickle(shake(caller, stream).await, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ").await,
            _ => {
                let length = "Content-Length: 100000\r\n";
                let head = served.dispatch(&format!("Authorization: Bearer {TOKEN}\r\n{length}"), "{");
                trickle(shake(caller, stream).await, &head).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, until_closed).await.expect("closed at last");
    begin.elapsed()
}

/// A head or a body that never ends, one byte at a time, each well within the step.
async fn trickle(stream: TlsStream<TcpStream>, beginning: &str) {
    let (mut reading, mut writing) = split(stream);
    let sending = async {
        let mut beat = tokio::time::interval(STEP / 30);
        writing.write_all(beginning.as_bytes()).await.unwrap();
        while writing.write_all(b" ").await.is_ok() && writing.flush().await.is_ok() {
            beat.tick().await;
        }
    };
    let mut buffer = [0; 4_096];
    let reading = async { while matches!(reading.read(&mut buffer).await, Ok(1..)) {} };
    tokio::select! {
        () = sending => {}
        () = reading => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_slow_callers_are_closed_and_a_good_one_does_not_notice() {
    let site = Site::new();
    let served = Arc::new(
        serve_securely(&site, |options| {
            options.limits.handshake = STEP;
            options.limits.head_read = STEP;
            options.limits.body_read = STEP;
        })
        .await,
    );
    let caller = site.caller(None);
    let good = site.caller(Some("alice"));
    let slow: Vec<_> = (0..SLOW)
        .map(|number| {
            let (served, caller) = (Arc::clone(&served), caller.clone());
            tokio::task::spawn(async move { dawdle(&served, &caller, number).await })
        })
        .collect();
    let slow = tokio::task::spawn(join_all(slow));
    let mut kept = served.shake(&good).await;
    let (mut slowest, mut rounds) = (Duration::ZERO, 0);
    while !slow.is_finished() {
        let begin = Instant::now();
        kept.write_all(served.reading("").as_bytes()).await.unwrap();
        let answer = read_answer(&mut kept).await;
        assert!(answer.contains(r#""ok":true"#), "round {rounds}: {answer}");
        let mut fresh = served.shake(&good).await;
        fresh.write_all(served.livez("Connection: close\r\n").as_bytes()).await.unwrap();
        assert_eq!(status(&read_all(&mut fresh).await), 200, "round {rounds}");
        slowest = slowest.max(begin.elapsed());
        rounds += 1;
    }
    assert!(10 < rounds && slowest < STEP, "{rounds} rounds, the slowest {slowest:?}");
    for (number, lived) in slow.await.unwrap().into_iter().enumerate() {
        let lived = lived.unwrap();
        assert!(STEP / 2 < lived && lived < STEP * 4, "caller {number} was closed after {lived:?}");
    }
}

/// Says the same twice on a connection whose credential has ended: one refusal, nothing carried out, closed.
async fn check_ended(served: &Served, mut stream: TlsStream<TcpStream>, headers: &str) {
    let before = served.dispatched();
    let twice = served.reading(headers).repeat(2);
    stream.write_all(twice.as_bytes()).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert_eq!((status(&answer), answer.matches("HTTP/1.1 ").count()), (401, 1), "{answer}");
    assert_eq!(served.dispatched(), before);
}

async fn check_good(served: &Served, stream: &mut TlsStream<TcpStream>, headers: &str) {
    let before = served.dispatched();
    stream.write_all(served.reading(headers).as_bytes()).await.unwrap();
    let answer = read_answer(stream).await;
    assert!(answer.contains(r#""ok":true"#), "{answer}");
    assert_eq!(served.dispatched(), before + 1);
}

/// Neither idle connection nor slow test is closed by a time-out.
async fn patient(site: &Site) -> Served {
    serve_securely(site, |options| options.limits.head_read = PATIENCE * 3).await
}

#[tokio::test]
async fn a_certificate_that_ends_ends_its_connection() {
    let site = Site::new();
    let served = patient(&site).await;
    let mut alice = served.shake(&site.caller(Some("alice"))).await;
    check_good(&served, &mut alice, "").await;
    site.pass(&served.bench, HOLDS);
    check_good(&served, &mut alice, "").await;
    site.pass(&served.bench, Millis(1));
    check_ended(&served, alice, "").await;
}

#[tokio::test]
async fn a_ban_ends_a_connection_and_no_other() {
    let site = Site::new();
    let served = patient(&site).await;
    let mut alice = served.shake(&site.caller(Some("alice"))).await;
    check_good(&served, &mut alice, "").await;
    site.ban(&served.bench, "spiffe://trust/site-1/bob");
    check_good(&served, &mut alice, "").await;
    site.ban(&served.bench, "spiffe://trust/site-1/alice");
    check_ended(&served, alice, "").await;
}

/// A stream is one answer, and asks again all the same.
#[tokio::test]
async fn a_ban_ends_the_streams_of_its_certificate() {
    let site = Site::new();
    let served = serve_securely(&site, |options| options.limits.heartbeat = STEP / 30).await;
    let mut streams = Vec::new();
    for actor in ["alice", "bob"] {
        let mut stream = served.shake(&site.caller(Some(actor))).await;
        let head = served.livez("Connection: close\r\n").replace("/livez", "/api/runtime-cloud/state/stream");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 512];
        let count = stream.read(&mut first).await.unwrap();
        assert!(String::from_utf8_lossy(&first[..count]).starts_with("HTTP/1.1 200"), "{actor}");
        streams.push(stream);
    }
    site.ban(&served.bench, "spiffe://trust/site-1/alice");
    let [alice, bob] = streams.as_mut_slice() else { panic!("two streams") };
    let rest = read_all(alice).await;
    assert!(rest.contains("event: error\ndata: ") && rest.contains("\"unauthorized\""), "{rest}");
    // Bob's goes on: that there is something to read is a sign of life, and no end.
    let mut more = [0; 16 * 1_024];
    for _ in 0..3 {
        let count = bob.read(&mut more).await.unwrap();
        assert!(0 < count && !String::from_utf8_lossy(&more[..count]).contains("unauthorized"));
    }
}

/// Regression: who asked in the middle of a reload was judged by the old rules, and kept as good under the new ones.
#[tokio::test]
async fn a_ban_counts_in_the_middle_of_a_reload_too() {
    let site = Site::new();
    let served = patient(&site).await;
    let mut alice = served.shake(&site.caller(Some("alice"))).await;
    check_good(&served, &mut alice, "").await;
    site.begin_ban(&served.bench, "spiffe://trust/site-1/alice");
    check_ended(&served, alice, "").await;
}

/// A ban is on somebody, whatever credential he comes with.
#[tokio::test]
async fn a_token_opens_nothing_for_whom_a_ban_names() {
    let site = Site::new();
    let served = patient(&site).await;
    let text = token::compose(TokenId::from_bits(8), &[4; 32]);
    let record = TokenRecord {
        id: TokenId::from_bits(8),
        digest: token::digest(text.as_bytes()),
        audience: Audience::default(),
        role: Role::Operator,
        actor: "site-1/alice".parse().unwrap(),
        created: Wall(0),
        expires: None,
        note: String::new(),
    };
    let bearing = format!("Authorization: Bearer {text}\r\n");
    served.bench.options.credentials.replace_tokens(Tokens::new(vec![record], &"site-1".parse().unwrap()).unwrap());
    let mut stream = served.shake(&site.caller(None)).await;
    check_good(&served, &mut stream, &bearing).await;
    site.ban(&served.bench, "spiffe://trust/site-1/bob");
    check_good(&served, &mut stream, &bearing).await;
    site.ban(&served.bench, "spiffe://trust/site-1/alice");
    check_ended(&served, stream, &bearing).await;
}

#[tokio::test]
async fn a_token_that_is_taken_away_ends_its_connection() {
    let site = Site::new();
    let served = patient(&site).await;
    let text = token::compose(TokenId::from_bits(7), &[3; 32]);
    let record = TokenRecord {
        id: TokenId::from_bits(7),
        digest: token::digest(text.as_bytes()),
        role: Role::Operator,
        audience: Audience::default(),
        actor: "site-1/alice".parse().unwrap(),
        created: Wall(0),
        expires: None,
        note: String::new(),
    };
    let credentials = &served.bench.options.credentials;
    let mut stream = served.shake(&site.caller(None)).await;
    let bearing = format!("Authorization: Bearer {text}\r\n");
    credentials.replace_tokens(Tokens::new(vec![record], &"site-1".parse().unwrap()).unwrap());
    check_good(&served, &mut stream, &bearing).await;
    credentials.replace_tokens(Tokens::default());
    check_ended(&served, stream, &bearing).await;
}

/// The admin listener has a credential of its own: a person's certificate is for the public one, whatever role it brings.
#[tokio::test]
async fn a_certificate_opens_nothing_at_the_admin_listener() {
    let site = Site::new();
    let served = serve_securely(&site, |options| options.surface = Surface::Admin { mount: "/fleet".into() }).await;
    let text = token::compose(TokenId::from_bits(9), &[5; 32]);
    let record = TokenRecord {
        id: TokenId::from_bits(9),
        digest: token::digest(text.as_bytes()),
        role: Role::Operator,
        audience: Audience::Admin,
        actor: "site-1/alice".parse().unwrap(),
        created: Wall(0),
        expires: None,
        note: String::new(),
    };
    served.bench.options.credentials.replace_tokens(Tokens::new(vec![record], &"site-1".parse().unwrap()).unwrap());
    let bearing = format!("Authorization: Bearer {text}\r\n");
    // The agents are declared in the settings: here nothing answers for another reason than the credential.
    let asking = |headers: &str| served.livez(headers).replace("/livez", "/fleet/agents");
    for (person, headers, wanted) in [
        (Some("alice"), "", 403),
        (None, "", 401),
        (None, bearing.as_str(), 200),
        // Who brings both is who the token says.
        (Some("bob"), bearing.as_str(), 200),
    ] {
        let mut stream = served.shake(&site.caller(person)).await;
        stream.write_all(asking(headers).as_bytes()).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert_eq!(status(&answer), wanted, "{person:?}, {headers:?}: {answer}");
        assert_eq!(answer.contains("this credential is not for this listener"), wanted == 403, "{answer}");
    }
}

/// A certificate that has ended is not made good by a probe, nor does it take a right token with it.
#[tokio::test]
async fn what_needs_no_certificate_goes_on_without_one() {
    let site = Site::new();
    let served = patient(&site).await;
    let mut alice = served.shake(&site.caller(Some("alice"))).await;
    check_good(&served, &mut alice, "").await;
    site.ban(&served.bench, "spiffe://trust/site-1/alice");
    alice.write_all(served.livez("").as_bytes()).await.unwrap();
    assert_eq!(status(&read_answer(&mut alice).await), 200);
    let config = format!(
        "GET /api/runtime-cloud/config HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
        served.addr
    );
    alice.write_all(config.as_bytes()).await.unwrap();
    assert_eq!(status(&read_answer(&mut alice).await), 200);
    check_ended(&served, alice, "").await;
}
