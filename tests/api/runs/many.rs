//! A thousand readers of one run over real connections: each gets exactly the log, whatever the others do.
//!
//! A third of the log is there before they come; the rest is written while they read and while they wait for it; some come
//! after its end.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use trust_runtime::domain::run::Event;
use trust_runtime::store::runs::hub::{CACHE_BYTES_MAX, RING_BYTES_MAX, RING_MAX, SEGMENT_BYTES_MAX, SEGMENT_MAX};
use trust_runtime::store::runs::{EventsAsked, RunStore as _};

use super::http::ask;
use super::played::{PAGE_BYTES, Stage};
use super::readers::{BEFORE, Crowd, EVENTS, MEANWHILE, READERS, Readers, stuck};
use super::{Served, serve};
use crate::sockets::PATIENCE;

/// Tells the readers what the store is about to have, so that no reader is ahead of what it is held against.
fn write(crowd: &Crowd, events: &[Event]) {
    let mut log = crowd.log();
    for event in events {
        assert_eq!(event.index, log.count() as u64);
        log.push(event.kind.as_str(), &event.body);
    }
}

/// Writes so many more, some at a time, and lets others do something in between.
async fn play(crowd: &Crowd, stage: &mut Stage, count: usize) {
    for begin in (0..count).step_by(50) {
        let message = |at: usize| json!({ "type": "log", "level": "info", "message": format!("{at:0>120}") });
        let events: Vec<_> =
            (begin..count.min(begin + 50)).map(|at| stage.event(&message(at), (at - begin) as u64)).collect();
        write(crowd, &events);
        stage.append_all(events).await;
        tokio::task::yield_now().await;
    }
}

async fn crowd() -> (Served, Arc<Crowd>, Stage) {
    let served = serve(|options| {
        // The cutting ones come back before it is known that they have gone.
        options.limits.connections_max = 2 * READERS;
        options.limits.streams_max = 2 * READERS;
        options.limits.requests_max = 2 * READERS;
        // Nobody is cut off for taking nothing: here it is shown that it costs nothing.
        options.limits.write = PATIENCE * 10;
        options.limits.heartbeat = PATIENCE * 10;
    })
    .await;
    let stage = served.played.open("many").await;
    let crowd = Crowd::new(&served.base, &stage.run.to_string(), Box::new(|_log| ()), READERS);
    write(&crowd, &log(&served, &stage).await);
    (served, crowd, stage)
}

/// All that the store has of a run.
async fn log(served: &Served, stage: &Stage) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        let asked =
            EventsAsked { run: stage.run, from: all.len() as u64, kinds: None, limit: 1_000, bytes_max: usize::MAX };
        let page = served.played.store.events(asked).await.unwrap().unwrap();
        if page.events.is_empty() {
            return all;
        }
        all.extend(page.events);
    }
}

/// Bytes of events that are held beside the store: each handle counts as if it were alone.
async fn held(served: &Served, stage: &Stage) -> usize {
    let log = log(served, stage).await;
    // One is the store's, one is the list's.
    log.iter().map(|event| (Arc::strong_count(&event.body) - 2) * event.body.len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_each_get_exactly_the_log() {
    let files = trust_runtime::node::open_files();
    assert!(4 * READERS as u64 <= files, "this test opens two sockets for each reader, and may have {files} open");
    let (served, crowd, mut stage) = crowd().await;
    play(&crowd, &mut stage, BEFORE - 1).await;
    let mut readers = Readers::new(&crowd);
    readers.enter();
    play(&crowd, &mut stage, MEANWHILE - BEFORE).await;
    readers.until_got(MEANWHILE).await;
    play(&crowd, &mut stage, EVENTS - MEANWHILE - 1).await;
    write(&crowd, &[stage.last()]);
    stage.close().await;
    readers.enter_late();
    readers.finish().await;
    assert_held(held(&served, &stage).await, stuck());
    let returns = readers.free().await;
    assert!(100 < returns.cut && returns.cut_off == 0, "{returns:?}");
    assert_reads(&served, returns.cut);
}

/// What all readers hold together: what they share, and a page for each that has stopped in the middle.
fn assert_held(held: usize, stuck: usize) {
    let shared = RING_BYTES_MAX + CACHE_BYTES_MAX + SEGMENT_BYTES_MAX;
    assert!(held <= shared + stuck * PAGE_BYTES, "{held} bytes for {stuck} readers who have stopped");
}

/// The store was read in pages, and each page for many readers at once; whoever comes back may need one for itself.
fn assert_reads(served: &Served, cuts: usize) {
    let reads = served.played.counted.reads.lock().unwrap();
    let is_page = |limit, bytes| limit <= usize::try_from(SEGMENT_MAX).unwrap() && bytes <= SEGMENT_BYTES_MAX;
    assert!(reads.iter().all(|read| is_page(read.limit, read.bytes_max)), "{reads:?}");
    // Each for itself would be a page of the log, forty, for each of a thousand. How many share one hangs on how far apart a busy
    // machine lets them fall: 80 to 3,000 readings were seen, and 75,000 where none is shared.
    let alone = READERS * EVENTS / RING_MAX;
    assert!(reads.len() < alone / 5 + cuts, "{} reads, {cuts} cuts, and {alone} if each read for itself", reads.len());
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
