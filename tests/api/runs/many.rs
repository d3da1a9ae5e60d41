//! A thousand readers of one run: each gets exactly the log, whatever the others do.

use std::sync::Arc;

use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::http::{ask, frames, whole};
use super::{Served, serve};
use crate::sockets::PATIENCE;

const READERS: u64 = 1_000;
const EVENTS: usize = 10_000;

/// Reads for so many bytes at most, and gives what came of the body.
async fn read(served: &Served, run: &str, last: Option<u64>, bytes_max: usize) -> (String, bool) {
    let mut stream = TcpStream::connect(&served.base).await.expect("listening");
    let last = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
    let head = format!("GET /runs/{run}/stream HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{last}\r\n", served.base);
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut text, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    while text.len() < bytes_max {
        let most = buffer.len().min(bytes_max - text.len());
        match stream.read(&mut buffer[..most]).await {
            Ok(0) | Err(_) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
        }
    }
    let is_cut = text.len() == bytes_max;
    let text = String::from_utf8(text).expect("ASCII");
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    // A frame that came in part is none.
    let body = whole(body);
    let end = body.rfind("\n\n").map_or(0, |at| at + 2);
    (body[..end].to_owned(), is_cut)
}

/// Reads the whole run, cut off again and again where chance wants it.
async fn read_in_pieces(served: &Served, run: &str, seed: u64) -> Vec<u64> {
    let (mut ids, mut state) = (Vec::new(), seed * 2 + 1);
    loop {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let is_cutting = seed.is_multiple_of(10);
        let most = if is_cutting { 200_000 + usize::try_from(state >> 44).unwrap() } else { usize::MAX };
        let (body, is_cut) = read(served, run, ids.last().copied(), most).await;
        ids.extend(frames(&body).iter().map(|frame| frame.id.parse::<u64>().unwrap()));
        if !is_cut {
            return ids;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_each_get_exactly_the_log() {
    let room = |options: &mut trust_runtime::web::Options| {
        options.limits.connections_max = 1_200;
        options.limits.streams_max = 1_100;
        options.limits.requests_max = 1_200;
    };
    let served = Arc::new(serve(room).await);
    let headers =
        [("content-type".to_owned(), "application/json".to_owned()), ("x-webhook".to_owned(), "true".to_owned())];
    let body = format!("{{\"n\":{}}}", EVENTS - 2);
    let started = ask(&served.base, "POST", "/agents/many/crowd", &headers, Some(&body)).await;
    let run = started.json()["runId"].as_str().unwrap().to_owned();
    let mut readers = tokio::task::JoinSet::new();
    for seed in 0..READERS {
        let (served, run) = (served.clone(), run.clone());
        readers.spawn(async move { read_in_pieces(&served, &run, seed).await });
    }
    let all: Vec<u64> = (0..EVENTS as u64).collect();
    let read = async {
        while let Some(ids) = readers.join_next().await {
            let ids = ids.expect("no panic");
            assert!(ids == all, "{} events, from {:?} to {:?}", ids.len(), ids.first(), ids.last());
        }
    };
    tokio::time::timeout(PATIENCE * 6, read).await.expect("all in time");
}

/// RR-39.
#[tokio::test]
async fn pages_give_each_event_once() {
    let served = serve(|_| {}).await;
    let json = [("content-type".to_owned(), "application/json".to_owned())];
    let ended = ask(&served.base, "POST", "/agents/many/p", &json, Some("{\"n\":1500}")).await;
    let run = ended.headers["x-trust-run-id"].clone();
    let mut seen: Vec<u64> = Vec::new();
    loop {
        let after = seen.last().map(|last| format!("&after={last}")).unwrap_or_default();
        let page = ask(&served.base, "GET", &format!("/runs/{run}/events?limit=100{after}"), &[], None).await.json();
        let page: Vec<u64> =
            page["events"].as_array().unwrap().iter().filter_map(|event: &Json| event["eventIndex"].as_u64()).collect();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen, (0..1502).collect::<Vec<_>>());
}
