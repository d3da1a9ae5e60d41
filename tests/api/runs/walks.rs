//! Lines of the contract that want more than one request after the other, asked of whatever serves.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::contract::Target;
use super::http::{Heard, ask, frames, heard};

/// How long a run may take that is waited for.
const RUN_MAX: Duration = Duration::from_secs(60);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(crate) async fn post(target: &Target, path: &str, headers: &[(&str, &str)], body: &str) -> Heard {
    let json = [("content-type", "application/json")];
    let headers: Vec<_> =
        json.iter().chain(headers).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ask(&target.base, "POST", path, &headers, Some(body)).await
}

pub(crate) async fn get(target: &Target, path: &str) -> Heard {
    ask(&target.base, "GET", path, &[], None).await
}

/// Starts a run that goes on by itself.
pub(crate) async fn begin(target: &Target, path: &str, body: &str) -> String {
    let begun = post(target, path, &[("x-webhook", "true")], body).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    begun.json()["runId"].as_str().expect("an answer").to_owned()
}

pub(crate) async fn until_ended(target: &Target, run: &str) -> Heard {
    let ending = async {
        loop {
            let record = get(target, &format!("/runs/{run}")).await;
            if record.body.contains("endedAt") {
                return record;
            }
            // waits: what another process does is seen by looking again.
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(RUN_MAX, ending).await.expect("ended in time")
}

/// RR-2.
pub(crate) async fn every_run_has_a_name_of_its_own(target: &Target) {
    let mut names = BTreeSet::new();
    for _ in 0..20 {
        let asked = (0..50).map(|_| post(target, "/agents/hello/i1", &[], "{}"));
        for heard in futures_util::future::join_all(asked).await {
            let run = heard.headers["x-trust-run-id"].clone();
            let tail = run.strip_prefix("run_").expect("its prefix");
            let is_crockford = |it: u8| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(&it);
            assert!(tail.len() == 26 && tail.bytes().all(is_crockford), "{run}");
            names.insert(run);
        }
    }
    assert_eq!(names.len(), 1_000);
}

/// RR-17.
pub(crate) async fn a_caller_who_goes_away_stops_nothing(target: &Target) {
    let mut stream = TcpStream::connect(&target.base).await.expect("an answer");
    let body = "{\"n\":20,\"ms\":10}";
    let head = format!("POST /agents/slow/i1 HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n", target.base);
    let length = body.len();
    let request = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("an answer");
    let mut first = [0; 512];
    tokio::io::AsyncReadExt::read(&mut stream, &mut first).await.expect("an answer");
    let run = heard(&String::from_utf8_lossy(&first[..])).headers["x-trust-run-id"].clone();
    drop(stream);
    let record = until_ended(target, &run).await;
    assert_eq!(record.json()["status"], "completed");
    let events = get(target, &format!("/runs/{run}/events")).await.json();
    assert_eq!(events["events"].as_array().expect("an answer").len(), 23);
}

/// RR-50, RR-51, RR-52 and RR-54: those who come early, in the middle and late, with a place far ahead too.
pub(crate) async fn whenever_one_comes_each_event_comes_once(target: &Target) {
    let run = begin(target, "/agents/slow/i1", "{\"n\":60,\"ms\":5}").await;
    let path = format!("/runs/{run}/stream");
    let stale = async {
        let last = [("last-event-id".to_owned(), "1000".to_owned())];
        ask(&target.base, "GET", &path, &last, None).await
    };
    let late = async {
        while !get(target, &format!("/runs/{run}/events?after=30")).await.body.contains("tick") {
            // waits: what another process does is seen by looking again.
            tokio::time::sleep(LOOK_EVERY).await;
        }
        get(target, &path).await
    };
    let (first, second, third, stale) = tokio::join!(get(target, &path), get(target, &path), late, stale);
    let ids: Vec<_> = frames(&first.body).iter().map(|frame| frame.id.clone()).collect();
    assert_eq!(ids, (0..62).map(|id| id.to_string()).collect::<Vec<_>>());
    assert_eq!((&first.body, &first.body), (&second.body, &third.body));
    assert_eq!(stale.body, "", "nothing that was seen is sent again, and the end ends it");
}
