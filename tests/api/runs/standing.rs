//! Who follows something does so for as long as the credential holds, and keeps nobody else out.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use trust_runtime::domain::identity::token::{Audience, TokenId, TokenRecord};
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::web;

use super::http::{ask, frames, heard};
use super::walks::begin;
use super::{Served, record_of, serve, tokens};
use crate::fleet::{CONFIGURED, NOW_NS, TOKEN};
use crate::sockets::{PATIENCE, read_all};

const STATE: &str = "/api/runtime-cloud/state/stream";

/// A stream that was opened with a token, and what came first of it.
async fn open(served: &Served, path: &str, token: &str, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(&served.base).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", served.base);
    stream.write_all(format!("{head}Authorization: Bearer {token}\r\n{more}\r\n").as_bytes()).await.unwrap();
    let mut first = vec![0; 64 * 1024];
    let count = tokio::time::timeout(PATIENCE, stream.read(&mut first)).await.expect("an answer").unwrap();
    (stream, String::from_utf8_lossy(&first[..count]).into_owned())
}

/// What came of a stream until it was ended.
async fn rest(mut stream: TcpStream, first: String) -> (u16, String) {
    let heard = heard(&(first + &read_all(&mut stream).await));
    (heard.status, heard.body)
}

#[track_caller]
fn assert_told(body: &str) {
    assert_ended_by(body, "unauthorized");
}

#[track_caller]
fn assert_ended_by(body: &str, kind: &str) {
    let frames = frames(body);
    let (last, before) = frames.split_last().expect("something came");
    let error: Json = serde_json::from_str(&last.data).expect("JSON");
    assert_eq!((last.event.as_str(), &error["error"]["type"]), ("error", &kind.into()), "{last:?}");
    assert!(before.iter().all(|frame| frame.event != "error"), "{before:?}");
}

#[tokio::test]
async fn a_revoked_token_ends_the_streams_that_it_has_opened_at_once() {
    let served = serve(|options| options.limits.heartbeat = Duration::from_secs(3_600)).await;
    let run = begin(&served, "/agents/slow/i1", "{\"n\":2,\"ms\":3600000}").await;
    let path = format!("/runs/{run}/stream");
    let mut open_ones = Vec::new();
    for path in [STATE, path.as_str()] {
        open_ones.push(open(&served, path, &served.public, "").await);
    }
    served.bench.options.credentials.replace_tokens(tokens(vec![record_of(Audience::Admin)]));
    for (stream, first) in open_ones {
        let (status, body) = rest(stream, first).await;
        assert_eq!(status, 200);
        assert_told(&body);
    }
    let (_stream, first) = open(&served, STATE, &served.public, "").await;
    assert!(first.starts_with("HTTP/1.1 401"), "{first}");
}

#[tokio::test]
async fn what_happens_to_other_tokens_ends_nothing() {
    let served = serve(|_| {}).await;
    let run = begin(&served, "/agents/slow/i1", "{\"n\":40,\"ms\":10}").await;
    let (stream, first) = open(&served, &format!("/runs/{run}/stream"), &served.public, "").await;
    for _ in 0..10 {
        served.bench.options.credentials.replace_tokens(tokens(vec![record_of(Audience::Public)]));
        tokio::task::yield_now().await;
    }
    let (_, body) = rest(stream, first).await;
    let ids: Vec<_> = frames(&body).into_iter().map(|frame| frame.id).collect();
    assert_eq!(ids, (0..42).map(|id| id.to_string()).collect::<Vec<_>>());
}

/// Where something always happens, no silence is waited for.
#[tokio::test]
async fn an_expired_token_ends_its_streams_within_a_heartbeat() {
    let served = serve(|options| options.limits.heartbeat = Duration::from_millis(20)).await;
    let mortal = TokenRecord { expires: Some(Wall(NOW_NS).plus(Millis(1_000))), ..record_of(Audience::Public) };
    served.bench.options.credentials.replace_tokens(tokens(vec![mortal]));
    let busy = begin(&served, "/agents/slow/i1", "{\"n\":100000,\"ms\":1}").await;
    let silent = begin(&served, "/agents/slow/i1", "{\"n\":2,\"ms\":3600000}").await;
    let mut open_ones = Vec::new();
    for path in [STATE.to_owned(), format!("/runs/{busy}/stream"), format!("/runs/{silent}/stream")] {
        open_ones.push(open(&served, &path, &served.public, "").await);
    }
    served.bench.node.pass(1_000);
    for (stream, first) in open_ones {
        assert_told(&rest(stream, first).await.1);
    }
}

/// What the profile promises is asked of those who read on, as it is of those who come.
#[tokio::test]
async fn a_profile_that_lacks_something_ends_the_streams_within_a_heartbeat() {
    let served = serve(|options| options.limits.heartbeat = Duration::from_millis(20)).await;
    let run = begin(&served, "/agents/slow/i1", "{\"n\":2,\"ms\":3600000}").await;
    let mut open_ones = Vec::new();
    for path in [STATE.to_owned(), format!("/runs/{run}/stream")] {
        open_ones.push(open(&served, &path, &served.public, "").await);
    }
    served.bench.node.change(|view| {
        let mut settings = (*view.settings).clone();
        settings.profile = Profile::Plant;
        settings.is_secure = false;
        view.settings = Arc::new(settings);
    });
    for (stream, first) in open_ones {
        assert_ended_by(&rest(stream, first).await.1, "not_configured");
    }
}

#[tokio::test]
async fn one_credential_keeps_no_other_from_following() {
    let served = serve(|options| {
        options.limits.streams_max = 3;
        options.limits.streams_of_one_max = 2;
    })
    .await;
    let text = trust_runtime::domain::identity::token::compose(TokenId::from_bits(99), &[9; 32]);
    let other = TokenRecord { id: TokenId::from_bits(99), digest: web::digest(&text), ..record_of(Audience::Public) };
    served.bench.options.credentials.replace_tokens(tokens(vec![record_of(Audience::Public), other]));
    let mut open_ones = Vec::new();
    for status in ["200", "200", "503"] {
        let (stream, first) = open(&served, STATE, &served.public, "").await;
        assert!(first.starts_with(&format!("HTTP/1.1 {status}")), "wanted {status}: {first}");
        open_ones.push(stream);
    }
    let (_stream, first) = open(&served, STATE, &text, "").await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    drop(open_ones);
}

/// RR-66: a credential of one listener is none of the other, but for that of who has the node's own files.
#[tokio::test]
async fn each_listener_takes_its_own_tokens_and_the_owners() {
    let served = serve(|_| {}).await;
    let told = async |authority: &str, path: &str, token: &str| {
        let headers = [("authorization".to_owned(), format!("Bearer {token}"))];
        ask(authority, "GET", path, &headers, None).await.status
    };
    for (token, public, admin) in [
        (served.public.as_str(), 200, 403),
        (served.token.as_str(), 403, 200),
        (CONFIGURED, 200, 403),
        (TOKEN, 200, 200),
    ] {
        let seen = told(&served.base, "/api/runtime-cloud/state", token).await;
        assert_eq!((seen, told(&served.admin, "/fleet/admin/runs", token).await), (public, admin), "{token}");
    }
    let recorded = served.bench.node.recorded.lock().unwrap().len();
    assert_eq!(recorded, 3, "each refusal is on record");
}

/// Whoever sends a body slowly has no place yet.
#[tokio::test]
async fn a_slow_body_takes_no_place() {
    let served = serve(|options| options.limits.streams_max = 1).await;
    let mut slow = TcpStream::connect(&served.base).await.unwrap();
    let head = format!("POST /agents/hello/i1 HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", served.base);
    let kind = "Accept: text/event-stream\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{";
    slow.write_all(format!("{head}{kind}").as_bytes()).await.unwrap();
    // An answer on another connection: by then the head of the first has been read.
    ask(&served.base, "GET", "/livez", &[], None).await;
    let (stream, first) = open(&served, STATE, &served.public, "").await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    slow.write_all(b"}").await.unwrap();
    assert!(read_all(&mut slow).await.starts_with("HTTP/1.1 503"), "the only place is taken");
    drop(stream);
}

/// A reader who comes back after an error goes on where it was, and where nothing was sent it begins at the beginning.
#[tokio::test]
async fn an_error_before_the_first_event_has_no_id() {
    let served = serve(|_| {}).await;
    let run = begin(&served, "/agents/many/i1", "{\"n\":3}").await;
    served.played.is_broken.store(true, std::sync::atomic::Ordering::Relaxed);
    for (more, id) in [("", ""), ("Last-Event-ID: 2\r\n", "2")] {
        let (stream, first) = open(&served, &format!("/runs/{run}/stream"), &served.public, more).await;
        let frames = frames(&rest(stream, first).await.1);
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert_eq!((frames[0].event.as_str(), frames[0].id.as_str()), ("error", id));
    }
}

/// Lines of the state say what they are.
#[tokio::test]
async fn a_line_of_the_state_has_its_name_and_its_id() {
    let served = serve(|_| {}).await;
    let accept = "Accept: application/x-ndjson\r\n";
    let (mut stream, mut text) = open(&served, STATE, &served.public, accept).await;
    served.bench.options.credentials.replace_tokens(tokens(Vec::new()));
    text += &read_all(&mut stream).await;
    let body = heard(&text).body;
    let lines: Vec<Json> = body.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!((&lines[0]["event"], &lines[0]["id"]), (&"snapshot".into(), &"5.0".into()));
    assert!(lines[0]["data"]["topology"]["nodes"].is_array());
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], last.get("id")), (&"error".into(), None));
    assert_eq!(last["data"]["error"]["type"], "unauthorized");
}
