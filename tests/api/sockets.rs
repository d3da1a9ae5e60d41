//! The accept loop over real sockets: H7 and H8 of the test table, time-outs, the connection cap and the shutdown.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trust_runtime::web::{self, Options};

use crate::fleet::{Bench, READ, bench_with};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A node that really listens.
pub(crate) struct Served {
    pub(crate) bench: Bench,
    pub(crate) addr: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

pub(crate) async fn serve(change: impl FnOnce(&mut Options)) -> Served {
    let bench = bench_with(change);
    let bound = web::bind(&bench.options).await.expect("a free port");
    let (addr, shutdown) = (bound.addr(), CancellationToken::new());
    let task = tokio::task::spawn(bound.serve(bench.state(), shutdown.clone()));
    Served { bench, addr, shutdown, task }
}

impl Served {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("listening")
    }

    /// Sends bytes and reads until the node closes.
    pub(crate) async fn say(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    pub(crate) fn livez(&self, rest: &str) -> String {
        format!("GET /livez HTTP/1.1\r\nHost: {}\r\n{rest}\r\n", self.addr)
    }

    pub(crate) fn dispatch(&self, headers: &str, body: &str) -> String {
        let head = format!("POST /api/runtime-cloud/actions/dispatch HTTP/1.1\r\nHost: {}\r\n", self.addr);
        format!("{head}Content-Type: application/json\r\n{headers}\r\n{body}")
    }
}

/// Everything until the node closes; a reset counts as closed.
pub(crate) async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    let reading = async {
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the node closes in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One answer on a connection that stays open.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4_096];
    let reading = async {
        loop {
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
            let is_whole =
                length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| body >= Some(length));
            if count == 0 || is_whole {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer in time");
    text
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_connection_carries_several_requests() {
    let served = serve(|_| {}).await;
    let mut stream = served.connect().await;
    for _ in 0..3 {
        stream.write_all(served.livez("").as_bytes()).await.unwrap();
        assert_eq!(status(&read_answer(&mut stream).await), 200);
    }
    let read = served.dispatch(&format!("Content-Length: {}\r\n", READ.len()), READ);
    stream.write_all(read.as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.contains(r#""ok":true"#), "a caller on loopback is let in: {answer}");
}

#[tokio::test]
async fn hosts_are_checked_with_the_bound_port() {
    let served = serve(|_| {}).await;
    let port = served.addr.port();
    for (host, expected) in [
        (format!("127.0.0.1:{port}"), 200),
        (format!("localhost:{port}"), 200),
        (format!("localhost:{}", port ^ 1), 403),
        ("evil.example".to_owned(), 403),
        (String::new(), 400),
    ] {
        let answer = served.say(&format!("GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(status(&answer), expected, "{host}");
    }
    let none = served.say("GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&none), 400);
    let old = served.say("GET /livez HTTP/1.0\r\n\r\n").await;
    assert_eq!(status(&old), 400);
    let two =
        served.say("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&two), 400);
    let absolute = format!("GET http://evil/livez HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&served.say(&absolute).await), 400);
}

/// Framing in doubt: refused and closed, and what follows on the connection is never carried out.
#[tokio::test]
async fn ambiguous_framing_is_refused_and_the_next_request_is_not_run() {
    let served = serve(|_| {}).await;
    let chunked = format!("{:x}\r\n{READ}\r\n0\r\n\r\n", READ.len());
    let length = READ.len();
    for (headers, body) in [
        ("Transfer-Encoding: xchunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: chunked, identity\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: chunked, chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: gzip, chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding : chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding:\x0bchunked\r\n".to_owned(), chunked.clone()),
        ("X: y\rContent-Length: 3\r\n".to_owned(), READ.to_owned()),
        (format!("Content-Length: {length};x\r\n"), READ.to_owned()),
        (format!("Content-Length: {length} {length}\r\n"), READ.to_owned()),
        ("Content-Length: 99999999999999999999\r\n".to_owned(), READ.to_owned()),
        ("Content-Length: \r\n".to_owned(), READ.to_owned()),
        (format!("Content-Length: +{length}\r\n"), READ.to_owned()),
        (format!("Content-Length: {length},{length}\r\n"), READ.to_owned()),
        (format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length + 1), READ.to_owned()),
        (format!("Content-Length: 0x{length:x}\r\n"), READ.to_owned()),
        (format!("Content-Length: -{length}\r\n"), READ.to_owned()),
        (format!("Content-Length: {length}\r\n folded: x\r\n"), READ.to_owned()),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("0x{length:x}\r\n{READ}\r\n0\r\n\r\n")),
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            format!("{length:x};{}\r\n{READ}\r\n0\r\n\r\n", "x".repeat(70_000)),
        ),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{length:x}\r\n{READ}XX0\r\n\r\n")),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{length:x}\n{READ}\r\n0\r\n\r\n")),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{length:x};x\n{READ}\r\n0\r\n\r\n")),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{length:x}\r\n{READ}\n0\r\n\r\n")),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("-1\r\n{READ}\r\n0\r\n\r\n")),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("ffffffffffffffff1\r\n{READ}\r\n0\r\n\r\n")),
    ] {
        let shown: String = format!("{headers:?} {body:?}").chars().take(120).collect();
        let pipelined = served.dispatch(&format!("Content-Length: {length}\r\n"), READ);
        let answer = served.say(&(served.dispatch(&headers, &body) + &pipelined)).await;
        assert!([0, 400, 413].contains(&status(&answer)), "{shown}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count() + usize::from(answer.is_empty()), 1, "{shown}: {answer}");
        assert_eq!(served.bench.node.dispatched.lock().unwrap().len(), 0, "{shown}");
    }
}

/// hyper takes the chunks and drops the length when both are given, in either order: carried out once, then closed.
#[tokio::test]
async fn a_length_beside_chunks_ends_the_connection() {
    let served = serve(|_| {}).await;
    let chunked = format!("{:x}\r\n{READ}\r\n0\r\n\r\n", READ.len());
    for (number, headers) in
        ["Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"]
            .into_iter()
            .enumerate()
    {
        let pipelined = served.dispatch(&format!("Content-Length: {}\r\n", READ.len()), READ);
        let answer = served.say(&(served.dispatch(headers, &chunked) + &pipelined)).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{headers:?}: {answer}");
        assert_eq!(served.bench.node.dispatched.lock().unwrap().len(), number + 1, "{headers:?}");
    }
}

/// Nothing is in doubt here, for any reader that keeps RFC 9112: the same length twice (6.3), blanks around it (5.5), and lines
/// that end by a line feed alone (2.2). Each is one request of that length, and what follows is the next one.
#[tokio::test]
async fn lenient_framing_is_read_to_the_one_end_that_it_has() {
    let served = serve(|_| {}).await;
    let length = READ.len();
    let twice = served.dispatch(&format!("Content-Length: {length}\r\nContent-Length: {length}\r\n"), READ);
    let blank = served.dispatch(&format!("Content-Length:  {length} \r\n"), READ);
    let (head, body) = blank.split_once("\r\n\r\n").unwrap();
    let feeds = format!("{}\n\n{body}", head.replace("\r\n", "\n"));
    for (number, request) in [twice, blank.clone(), feeds].into_iter().enumerate() {
        let answer = served.say(&(request.clone() + &served.livez("Connection: close\r\n"))).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{request:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{request:?}: {answer}");
        assert_eq!(served.bench.node.dispatched.lock().unwrap().len(), number + 1, "{request:?}");
    }
}

#[tokio::test]
async fn malformed_heads_are_refused() {
    let served = serve(|_| {}).await;
    let many: String = (0..65).map(|number| format!("X-{number}: 1\r\n")).collect();
    for (bytes, expected) in [
        ("GET /livez\0 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), vec![400]),
        ("GET /livez HTTP/1.1\r\nHost : localhost\r\n\r\n".to_owned(), vec![400]),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(), vec![400]),
        ("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\nConnection: close\r\n\r\n".to_owned(), vec![400]),
        ("GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n".to_owned(), vec![400, 505, 0]),
        (served.livez(&many), vec![431]),
        (served.livez(&format!("X-Long: {}\r\n", "x".repeat(70_000))), vec![431]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), vec![400, 505, 0]),
    ] {
        let shown: String = bytes.chars().take(60).collect();
        let answer = served.say(&bytes).await;
        assert!(expected.contains(&status(&answer)), "{shown:?}: {answer}");
    }
}

#[tokio::test]
async fn a_chunked_body_ends_at_the_limit_too() {
    let served = serve(|_| {}).await;
    let chunk = format!("{:x}\r\n{}\r\n", 16_384, " ".repeat(16_384));
    let answer =
        served.say(&served.dispatch("Transfer-Encoding: chunked\r\n", &format!("{}0\r\n\r\n", chunk.repeat(17)))).await;
    assert!([0, 413].contains(&status(&answer)), "{answer}");
    let small = format!("{:x}\r\n{READ}\r\n0\r\n\r\n", READ.len());
    let answer = served.say(&served.dispatch("Connection: close\r\nTransfer-Encoding: chunked\r\n", &small)).await;
    assert!(answer.contains(r#""ok":true"#), "{answer}");
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_are_cut_off() {
    let served = serve(|_| {}).await;
    let mut silent = served.connect().await;
    let mut slow = served.connect().await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: localh").await.unwrap();
    let mut idle = served.connect().await;
    idle.write_all(served.livez("").as_bytes()).await.unwrap();
    assert_eq!(status(&read_answer(&mut idle).await), 200);
    let mut body = served.connect().await;
    body.write_all(served.dispatch("Content-Length: 1000\r\n", "{").as_bytes()).await.unwrap();
    assert_eq!(status(&read_all(&mut body).await), 408);
    assert!([0, 408].contains(&status(&read_all(&mut slow).await)));
    assert_eq!(read_all(&mut silent).await, "");
    assert_eq!(read_all(&mut idle).await, "");
}

#[tokio::test]
async fn a_thousand_silent_connections_do_not_keep_a_good_client_out() {
    let served = serve(|options| {
        options.limits.connections_max = 64;
        options.limits.head_read = PATIENCE;
    })
    .await;
    let mut good = served.connect().await;
    good.write_all(served.livez("").as_bytes()).await.unwrap();
    assert_eq!(status(&read_answer(&mut good).await), 200);
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(served.connect().await);
    }
    // Known and polite: it keeps its place although it was silent all the while.
    good.write_all(served.livez("").as_bytes()).await.unwrap();
    assert_eq!(status(&read_answer(&mut good).await), 200);
    let fresh = served.say(&served.livez("Connection: close\r\n")).await;
    assert_eq!(status(&fresh), 200);
    // Those that came first had to go.
    assert_eq!(read_all(silent.first_mut().expect("opened")).await, "");
}

#[tokio::test]
async fn when_all_connections_are_busy_a_new_one_is_refused() {
    let served = serve(|options| options.limits.connections_max = 2).await;
    served.bench.node.gate.forget_permits(1_000);
    let ask = served.dispatch(&format!("Content-Length: {}\r\nConnection: close\r\n", READ.len()), READ);
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = served.connect().await;
        stream.write_all(ask.as_bytes()).await.unwrap();
        busy.push(stream);
    }
    // A connection that is accepted while the two are not busy yet would displace one: ask until it is refused.
    let refused = async {
        while !served.say(&served.livez("Connection: close\r\n")).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("refused at last");
    served.bench.node.gate.add_permits(2);
    let mut answered = 0;
    for stream in &mut busy {
        answered += usize::from(status(&read_all(stream).await) == 200);
    }
    assert!(0 < answered, "who is being served is not displaced");
    assert_eq!(status(&served.say(&served.livez("Connection: close\r\n")).await), 200);
}

#[tokio::test]
async fn a_shutdown_lets_running_requests_finish() {
    // Neither time-out nor grace closes anything while this test is patient.
    let served = serve(|options| {
        options.limits.head_read = PATIENCE * 3;
        options.limits.grace = PATIENCE * 3;
    })
    .await;
    served.bench.node.gate.forget_permits(1_000);
    let mut running = served.connect().await;
    let ask = served.dispatch(&format!("Content-Length: {}\r\n", READ.len()), READ);
    running.write_all(ask.as_bytes()).await.unwrap();
    let mut idle = served.connect().await;
    idle.write_all(served.livez("").as_bytes()).await.unwrap();
    assert_eq!(status(&read_answer(&mut idle).await), 200);
    let has_begun = async {
        while served.bench.node.views.load(std::sync::atomic::Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, has_begun).await.expect("the dispatch has begun");
    served.shutdown.cancel();
    assert_eq!(read_all(&mut idle).await, "", "an idle connection is closed at once");
    served.bench.node.gate.add_permits(1);
    assert_eq!(status(&read_all(&mut running).await), StatusCode::OK.as_u16());
    tokio::time::timeout(PATIENCE, served.task).await.expect("stops").expect("without a panic");
    assert!(TcpStream::connect(served.addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let served = serve(|options| options.limits.grace = Duration::from_millis(200)).await;
    served.bench.node.gate.forget_permits(1_000);
    let mut running = served.connect().await;
    let ask = served.dispatch(&format!("Content-Length: {}\r\n", READ.len()), READ);
    running.write_all(ask.as_bytes()).await.unwrap();
    let has_begun = async {
        while served.bench.node.views.load(std::sync::atomic::Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, has_begun).await.expect("the dispatch has begun");
    served.shutdown.cancel();
    tokio::time::timeout(PATIENCE, served.task).await.expect("stops all the same").expect("without a panic");
    assert_eq!(read_all(&mut running).await, "");
}
