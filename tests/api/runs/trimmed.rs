//! A history that is gone is said to be gone: nobody is given what is left as if it were all.

use axum::body::Body;
use http_body_util::BodyExt as _;
use serde_json::{Value as Json, json};
use trust_runtime::store::runs::RunStore as _;
use trust_runtime::web::{self, App};

use super::http::{Frame, ask, frames};
use super::{Served, serve};
use crate::fleet::get;
use crate::sockets::PATIENCE;

/// More than what readers share, so that the middle of the log is in the store alone.
const EVENTS: usize = 12_000;

/// A run with an end, and the app that shows it without a socket in between, which would take more than its reader does.
async fn ended_run() -> (Served, App, String) {
    let served = serve(|_| {}).await;
    let app = App::new(web::State { ..served.bench.state() }, served.base.parse().unwrap());
    let mut stage = served.played.open("many").await;
    for _ in 0..EVENTS / 100 {
        let message = json!({ "type": "log", "level": "info", "message": "m".repeat(500) });
        let events = (0..100).map(|behind| stage.event(&message, behind)).collect();
        stage.append_all(events).await;
    }
    stage.close().await;
    (served, app, stage.run.to_string())
}

/// Everything that is still to come.
async fn rest(mut body: Body) -> Vec<Frame> {
    let mut text = String::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("comes to an end");
    frames(&text)
}

/// RR-60 for those who are reading the run that has to go.
#[tokio::test]
async fn a_run_that_is_forgotten_while_it_is_read_is_said_to_be_gone() {
    let (served, app, run) = ended_run().await;
    let path = format!("/runs/{run}/stream");
    let mut body = app.answer(get(&path).body(Body::empty()).unwrap()).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let first = frames(std::str::from_utf8(&first).unwrap()).len();
    assert!(0 < first && first < EVENTS / 10, "a piece of it: {first}");

    served.played.store.set_runs_kept(1);
    served.played.open("many").await.close().await;
    let rest = rest(body).await;
    let (error, before) = rest.split_last().expect("something");
    let ids: Vec<usize> = before.iter().map(|frame| frame.id.parse().unwrap()).collect();
    assert_eq!(ids, (first..first + before.len()).collect::<Vec<_>>(), "what comes is without a gap");
    assert!(before.len() < EVENTS / 2, "{} events of a run that is gone", before.len());
    assert_eq!((error.event.as_str(), error.id.parse()), ("error", Ok(first + before.len() - 1)));
    let data: Json = serde_json::from_str(&error.data).unwrap();
    assert_eq!(data["error"]["type"], "run_not_found", "{data}");
    let message = data["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("forgotten while it was read"), "not as if it had never been: {message}");

    let last = [("last-event-id".to_owned(), error.id.clone())];
    let again = ask(&served.base, "GET", &path, &last, None).await;
    assert_eq!((again.status, &again.json()["error"]["type"]), (404, &"run_not_found".into()));
}
