//! The state as those who follow it see it: a snapshot, then what changes, once for all of them.

use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt as _;
use serde_json::Value as Json;

use crate::fleet::{Bench, bench_with, get};
use crate::sockets::PATIENCE;

const STREAM: &str = "/api/runtime-cloud/state/stream";

/// One who follows.
struct Follower {
    body: Body,
    text: String,
}

impl Follower {
    async fn new(bench: &Bench, last: Option<&str>) -> Self {
        let mut request = get(STREAM);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = bench.app.answer(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event: its name, its id and its data.
    async fn next(&mut self) -> (String, String, Json) {
        let reading = async {
            loop {
                if let Some((frame, rest)) = self.text.split_once("\n\n") {
                    let (frame, rest) = (frame.to_owned(), rest.to_owned());
                    self.text = rest;
                    let mut lines = frame.lines();
                    let mut field = |name: &str| lines.next().unwrap().strip_prefix(name).unwrap().to_owned();
                    let (event, id, data) = (field("event: "), field("id: "), field("data: "));
                    return (event, id, serde_json::from_str(&data).unwrap());
                }
                let frame = self.body.frame().await.expect("goes on").unwrap();
                self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("an event in time")
    }
}

fn silence_b(bench: &Bench) {
    bench.node.change(|view| {
        let b = "site-1/b".parse().unwrap();
        let peer = Arc::make_mut(view.peers.get_mut(&b).unwrap());
        peer.presence.left = true;
        let mut timeline = (*view.timeline).clone();
        let mut row = timeline.back().unwrap().clone();
        row.number += 1;
        row.summary = "b said goodbye".into();
        timeline.push_back(row);
        view.timeline = Arc::new(timeline);
    });
}

#[tokio::test]
async fn a_snapshot_comes_first_and_then_what_changes() {
    let bench = bench_with(|_| {});
    let mut follower = Follower::new(&bench, None).await;
    let (name, id, state) = follower.next().await;
    assert_eq!((name.as_str(), id.as_str()), ("snapshot", "5.0"));
    assert_eq!(state["topology"]["nodes"].as_array().unwrap().len(), 4);
    silence_b(&bench);
    let (mut names, mut last) = (Vec::new(), String::new());
    while names.last().is_none_or(|name| name != "timeline") {
        let (name, id, data) = follower.next().await;
        match name.as_str() {
            "node" => assert_eq!((&data["runtime_id"], &data["lifecycle_state"]), (&"b".into(), &"offline".into())),
            "timeline" => assert_eq!(data["summary"], "b said goodbye"),
            "edge" => assert!(data["source"] == "b" || data["target"] == "b", "{data}"),
            other => panic!("{other}: {data}"),
        }
        names.push(name);
        last = id;
    }
    assert!(names.contains(&"node".to_owned()) && names.contains(&"edge".to_owned()), "{names:?}");
    assert_eq!(last, format!("5.{}", names.len()), "numbers go up one by one");

    // Who comes back goes on where it was; who comes with an id of nowhere begins anew.
    let mut again = Follower::new(&bench, Some("5.0")).await;
    let (name, id, _) = again.next().await;
    assert_eq!((&name, id.as_str()), (&names[0], "5.1"));
    for unknown in ["4.0", "5.99", "x", "", "5.", "5.+1"] {
        let (name, id, _) = Follower::new(&bench, Some(unknown)).await.next().await;
        assert_eq!((name.as_str(), &id), ("snapshot", &last), "{unknown:?}");
    }
}

#[tokio::test]
async fn who_is_removed_is_told_and_time_alone_is_no_change() {
    let bench = bench_with(|_| {});
    let mut follower = Follower::new(&bench, None).await;
    follower.next().await;
    bench.node.change(|_| {});
    bench.node.pass(10);
    bench.node.change(|view| {
        view.peers.remove_mut(&"site-2/d".parse().unwrap());
    });
    let removed = async {
        loop {
            let (name, _, data) = follower.next().await;
            assert!(["edge", "removed"].contains(&name.as_str()), "{name}: {data}");
            if data["kind"] == "node" {
                return data;
            }
        }
    };
    assert_eq!(removed.await["runtime_id"], "site-2/d");
}

/// However many follow, the view is looked at and written once for all of them.
#[tokio::test]
async fn the_cost_of_a_change_does_not_grow_with_the_readers() {
    let bench = bench_with(|options| options.limits.streams_max = 100);
    let mut followers = Vec::new();
    for _ in 0..100 {
        followers.push(Follower::new(&bench, None).await);
    }
    for follower in &mut followers {
        assert_eq!(follower.next().await.0, "snapshot");
    }
    bench.node.views.store(0, std::sync::atomic::Ordering::Relaxed);
    silence_b(&bench);
    for follower in &mut followers {
        while follower.next().await.0 != "timeline" {}
    }
    let looks = bench.node.views.load(std::sync::atomic::Ordering::Relaxed);
    assert!(looks < 50, "{looks} looks for 100 readers");
    let refused = bench.get(STREAM).await;
    assert_eq!((refused.status.as_u16(), refused.at("/code")), (503, "server_busy".into()));
}

/// Runtimes of which each brings a few changes: all of them in one round less than is kept, and in a few rounds more.
const CROWD: usize = 500;

/// How many changes are kept for readers who come back.
const KEPT: u64 = 4_096;

/// Lets all of a crowd of runtimes leave, or come back.
fn turn_crowd(bench: &Bench, has_left: bool) {
    bench.node.change(|view| {
        let mut one = (**view.peers.values().next().unwrap()).clone();
        one.presence.left = has_left;
        let one = Arc::new(one);
        let many = (0..CROWD).map(|number| (format!("site-1/n{number:05}").parse().unwrap(), Arc::clone(&one)));
        view.peers = many.collect();
    });
}

/// The number of an id, behind that of the boot.
fn number(id: &str) -> u64 {
    id.strip_prefix("5.").unwrap().parse().unwrap()
}

/// Whoever takes nothing for too long is told so by a new snapshot: nothing is left out without a word.
#[tokio::test]
async fn who_falls_behind_what_is_kept_gets_a_snapshot_and_no_gap() {
    let bench = bench_with(|_| {});
    turn_crowd(&bench, false);
    let (mut slow, mut quick) = (Follower::new(&bench, None).await, Follower::new(&bench, None).await);
    for follower in [&mut slow, &mut quick] {
        let (name, id, _) = follower.next().await;
        assert_eq!((name.as_str(), id.as_str()), ("snapshot", "5.0"));
    }
    // Who keeps up gets each change once, and never a second snapshot.
    let mut count = 0;
    let mut keep_up = async |until: &dyn Fn(u64, usize) -> bool| {
        let mut nodes = 0;
        while !until(count, nodes) {
            let (name, id, _) = quick.next().await;
            assert_eq!((name.as_str() == "snapshot", number(&id)), (false, count + 1), "{name}");
            count += 1;
            nodes += usize::from(name == "node");
        }
        count
    };
    let mut has_left = false;
    while keep_up(&|_, _| true).await <= 2 * KEPT {
        has_left = !has_left;
        turn_crowd(&bench, has_left);
        keep_up(&|_, nodes| nodes == CROWD).await;
    }
    // What the slow one still gets of them has no gap, and then comes the whole of it.
    let mut place = 0;
    let (whole, state) = loop {
        let (name, id, data) = slow.next().await;
        if name == "snapshot" {
            break (number(&id), data);
        }
        assert_eq!(number(&id), place + 1, "a gap, and nobody says so");
        place += 1;
    };
    assert!(place < whole - KEPT / 2, "{place} of {whole}: all that was changed is still kept");
    let states = state["topology"]["nodes"].as_array().unwrap().iter().map(|node| node["lifecycle_state"] == "offline");
    assert_eq!(states.filter(|is_offline| *is_offline).count(), if has_left { CROWD } else { 0 });
    keep_up(&|count, _| count == whole).await;
    turn_crowd(&bench, !has_left);
    for follower in [&mut slow, &mut quick] {
        let (name, id, _) = follower.next().await;
        assert_eq!((name.as_str() == "snapshot", number(&id)), (false, whole + 1), "both go on from there");
    }
}
