//! Lines of the contract on runs that want a fault, or a clock of their own: only a double can give them.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use trust_runtime::domain::code::Code;
use trust_runtime::domain::identity::Role;
use trust_runtime::handle::runs::Absent;
use trust_runtime::store;
use trust_runtime::store::runs::RunStore as _;

use super::http::{ask, frames};
use super::serve;
use super::walks::{begin, get, post};
use crate::sockets::{PATIENCE, read_all};

/// RR-26.
#[tokio::test]
async fn a_node_without_runs_says_so() {
    let bench = crate::fleet::bench();
    bench.node.change(|view| {
        let mut settings = (*view.settings).clone();
        settings.offer = super::offer();
        view.settings = std::sync::Arc::new(settings);
    });
    let run = "run_00000000000000000000000000";
    for path in [format!("/runs/{run}"), format!("/runs/{run}/events"), format!("/runs/{run}/stream")] {
        let seen = bench.get(&path).await;
        assert_eq!((seen.status.as_u16(), seen.at("/error/type")), (501, "run_registry_unavailable".into()), "{path}");
    }
    let seen = bench.post("/agents/hello/i1", "{}").await;
    assert_eq!((seen.status.as_u16(), seen.at("/error/type")), (501, "run_registry_unavailable".into()));
}

/// RR-26: such a node can still say which runs there are.
#[tokio::test]
async fn a_registry_without_a_store_says_so() {
    let served = serve(|_| {}).await;
    let run = post(&served, "/agents/hello/i1", &[], "{}").await.headers["x-trust-run-id"].clone();
    served.played.is_registry_only.store(true, std::sync::atomic::Ordering::Relaxed);
    for path in ["", "/events", "/stream"] {
        let heard = get(&served, &format!("/runs/{run}{path}")).await;
        assert_eq!((heard.status, &heard.json()["error"]["type"]), (501, &"run_store_unavailable".into()), "{path}");
    }
    let refused = post(&served, "/agents/hello/i1", &[], "{}").await;
    assert_eq!((refused.status, &refused.json()["error"]["type"]), (501, &"run_store_unavailable".into()));
    let admin = [("authorization".to_owned(), format!("Bearer {}", served.token))];
    let listed = ask(&served.admin, "GET", "/fleet/admin/runs", &admin, None).await;
    assert_eq!(listed.json()["items"][0]["runId"], run);
}

/// RR-31 and RR-32.
#[tokio::test]
async fn in_debug_mode_the_known_agents_are_named() {
    let served = serve(|options| options.is_debug = true).await;
    let heard = post(&served, "/agents/nobody/i1", &[], "{}").await;
    let error = &heard.json()["error"];
    assert_eq!(error["dev"], "big, boom, hello, many, nothing, offline, slow");
    let plain = get(&served, "/runs/x").await;
    assert!(plain.json()["error"].get("dev").is_none());
}

/// RR-53.
#[tokio::test]
async fn a_silent_stream_says_that_it_is_there() {
    let served = serve(|options| options.limits.heartbeat = Duration::from_millis(20)).await;
    let asked = post(&served, "/agents/slow/i1", &[("accept", "text/event-stream")], "{\"n\":1,\"ms\":200}").await;
    assert!(2 <= asked.body.matches(": heartbeat\n\n").count(), "{asked:?}");
    let run = begin(&served, "/agents/slow/i1", "{\"n\":1,\"ms\":200}").await;
    let followed = get(&served, &format!("/runs/{run}/stream")).await;
    assert!(2 <= followed.body.matches(": heartbeat\n\n").count(), "{followed:?}");
    assert_eq!(frames(&followed.body).len(), 3);
}

/// RR-55: one reader that takes nothing is cut off in its time and holds up neither the run nor another reader.
#[tokio::test]
async fn a_reader_that_takes_nothing_costs_nobody_anything() {
    let served = serve(|options| {
        options.limits.write = Duration::from_millis(300);
        options.limits.streams_max = 2;
    })
    .await;
    let run = begin(&served, "/agents/many/i1", "{\"n\":100000}").await;
    let mut dead = TcpStream::connect(&served.base).await.unwrap();
    let request = format!("GET /runs/{run}/stream HTTP/1.1\r\nHost: {}\r\n\r\n", served.base);
    dead.write_all(request.as_bytes()).await.unwrap();
    let good = get(&served, &format!("/runs/{run}/stream")).await;
    assert_eq!(frames(&good.body).last().map(|frame| frame.id.clone()), Some("100001".to_owned()));
    // Both places are free again only once the dead reader has been cut off.
    let freed = async {
        loop {
            let path = format!("/runs/{run}/stream");
            let both = [get(&served, &path), get(&served, &path)];
            let both = futures_util::future::join_all(both).await;
            if both.iter().all(|heard| heard.status == 200) {
                return;
            }
            let busy = both.iter().find(|heard| heard.status != 200).unwrap();
            assert_eq!((busy.status, &busy.json()["error"]["type"]), (503, &"server_busy".into()));
            assert_eq!(busy.headers["retry-after"], "1");
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("cut off in time");
    assert!(!read_all(&mut dead).await.contains("\"eventIndex\":100001"), "cut off before its end");
}

/// RR-56.
#[tokio::test]
async fn a_stream_that_breaks_says_so_once_without_secrets() {
    let served = serve(|_| {}).await;
    let run = post(&served, "/agents/many/i1", &[], "{\"n\":3000}").await.headers["x-trust-run-id"].clone();
    served.played.is_breaking.store(true, std::sync::atomic::Ordering::Relaxed);
    let heard = get(&served, &format!("/runs/{run}/stream")).await;
    let frames = frames(&heard.body);
    let (error, before) = frames.split_last().unwrap();
    assert_eq!((error.event.as_str(), &error.id), ("error", &before.last().unwrap().id));
    assert!(error.data.starts_with("{\"error\":{\"type\":\"internal_error\""), "{error:?}");
    assert!(!heard.body.contains("secret"));
    assert!(before.iter().all(|frame| frame.event != "error") && before.len() < 3_000);
}

/// RR-53, RR-56: nobody is left to wait for what a full disk does not take, and nobody is told of an end that is not durable.
#[tokio::test]
async fn who_waits_for_a_run_that_is_held_up_is_told_so_and_asks_again() {
    let served = serve(|_| {}).await;
    served.played.is_held.store(true, std::sync::atomic::Ordering::Relaxed);
    let heard = post(&served, "/agents/hello/i1", &[], "{}").await;
    assert_eq!((heard.status, &heard.json()["error"]["type"]), (503, &"storage_unavailable".into()), "{heard:?}");
    let run = heard.headers["x-trust-run-id"].clone();
    assert_eq!(get(&served, &format!("/runs/{run}")).await.json()["status"], "active");
    let read = get(&served, &format!("/runs/{run}/stream")).await;
    let started = post(&served, "/agents/hello/i1", &[("accept", "text/event-stream")], "{}").await;
    for heard in [read, started] {
        assert_eq!(heard.status, 200);
        let frames = frames(&heard.body);
        let [begun, error] = frames.as_slice() else { panic!("{heard:?}") };
        assert_eq!((begun.event.as_str(), error.event.as_str(), error.id.as_str()), ("run_start", "error", "0"));
        assert!(error.data.starts_with("{\"error\":{\"type\":\"storage_unavailable\""), "{error:?}");
        assert!(error.data.contains("ask again behind the last event"), "{error:?}");
    }
}

/// RR-62.
#[tokio::test]
async fn a_store_that_fails_refuses_and_leaves_nothing() {
    let served = serve(|_| {}).await;
    served.played.store.set_fault(Some(store::Error::NoSpace { place: "runs.db".into(), is_at_the_end: false }));
    for accept in ["application/json", "text/event-stream"] {
        let heard = post(&served, "/agents/hello/i1", &[("accept", accept)], "{}").await;
        assert_eq!((heard.status, &heard.json()["error"]["type"]), (503, &Code::StorageUnavailable.as_str().into()));
        assert!(!heard.headers.contains_key("x-trust-run-id"));
    }
    served.played.store.set_fault(None);
    let admin = [("authorization".to_owned(), format!("Bearer {}", crate::fleet::TOKEN))];
    let listed = ask(&served.admin, "GET", "/fleet/admin/runs", &admin, None).await;
    assert_eq!(listed.body, "{\"items\":[]}");
}

/// RR-81, as far as one node shows it: an owner that is away is no unknown run, and what was known of it is told.
#[tokio::test]
async fn a_run_whose_owner_is_away_or_slow_or_contested_is_not_unknown() {
    let served = serve(|_| {}).await;
    let run = post(&served, "/agents/hello/i1", &[], "{}").await.headers["x-trust-run-id"].clone();
    let page = served.played.store.run(run.parse().unwrap()).await.unwrap().unwrap();
    let known = Box::new(page.pointer);
    let claims = vec!["site-1/a".parse().unwrap(), "site-1/b".parse().unwrap()];
    for (absent, status, kind, message, is_known) in [
        (Absent::OwnerUnreachable(known.clone()), 503, "run_owner_unreachable", "cannot be reached", true),
        (Absent::OwnerTooSlow(known, "9 of 10 bytes".to_owned()), 504, "run_owner_too_slow", "9 of 10 bytes", true),
        (Absent::Contested(claims), 409, "run_owner_contested", "site-1/a and site-1/b", false),
    ] {
        *served.played.away.lock().unwrap() = vec![(run.parse().unwrap(), absent)];
        for path in ["", "/events", "/stream"] {
            let heard = get(&served, &format!("/runs/{run}{path}")).await;
            let error = &heard.json()["error"];
            assert_eq!((heard.status, &error["type"]), (status, &kind.into()), "{path}");
            assert!(error["message"].as_str().is_some_and(|it| it.contains(message)), "{error}");
            assert!(error["details"].as_str().is_some_and(|it| !it.is_empty()), "{error}");
            assert_eq!(error["meta"]["run"]["runId"] == run.as_str(), is_known, "{error}");
            assert_eq!(error["meta"]["owner"] == "site-1/a", is_known, "{error}");
        }
    }
    served.played.away.lock().unwrap().clear();
    assert_eq!(get(&served, &format!("/runs/{run}")).await.status, 200);
}

/// The agent's own role counts, and is asked before the payload is read.
#[tokio::test]
async fn an_agent_is_started_by_its_role_alone() {
    use trust_runtime::domain::identity::token::{Audience, TokenId, TokenRecord, Tokens, compose};
    let served = serve(|_| {}).await;
    let token = compose(TokenId::from_bits(7), &[7; 32]);
    let viewer = TokenRecord {
        id: TokenId::from_bits(7),
        digest: trust_runtime::web::digest(&token),
        role: Role::Viewer,
        audience: Audience::default(),
        actor: "site-1/eve".parse().unwrap(),
        created: trust_runtime::domain::time::Wall(0),
        expires: None,
        note: String::new(),
    };
    served.bench.options.credentials.replace_tokens(Tokens::new(vec![viewer], &"site-1".parse().unwrap()).unwrap());
    let bearer = format!("Bearer {token}");
    let refused = post(&served, "/agents/hello/i1", &[("authorization", &bearer)], "{not read").await;
    assert_eq!((refused.status, &refused.json()["error"]["type"]), (403, &"forbidden".into()));
    let allowed = post(&served, "/agents/slow/i1", &[("authorization", &bearer)], "{\"n\":0}").await;
    assert_eq!(allowed.status, 200, "{allowed:?}");
    let headers = [("authorization".to_owned(), bearer)];
    let admin = ask(&served.admin, "GET", "/fleet/admin/runs", &headers, None).await;
    assert_eq!(admin.status, 403, "RR-66: a viewer's credential is not enough");
}

#[tokio::test]
async fn a_payload_beyond_the_limit_starts_nothing() {
    let served = serve(|_| {}).await;
    let payload = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert_eq!(post(&served, "/agents/hello/i1", &[], &payload(200_000)).await.status, 200);
    let heard = post(&served, "/agents/hello/i1", &[], &payload(1_048_577)).await;
    assert!([0, 413].contains(&heard.status), "{}", heard.status);
}

/// RR-1, RR-9, RR-14 and RR-18 for a run that is forgotten by its own end (RR-60).
#[tokio::test]
async fn who_waits_for_a_run_learns_how_it_ended_though_it_is_forgotten_at_once() {
    let stream = [("accept", "text/event-stream")];
    let lines = [("accept", "application/x-ndjson")];
    let webhook = [("x-webhook", "true")];
    let (ends, fails) = (r#"{"crowded":true}"#, r#"{"crowded":"fails"}"#);
    for (headers, payload, status, wanted) in [
        (&[][..], ends, 200, r#"{"result":{"z":1,"a":12345678901234567890123},"_meta""#),
        (&[][..], fails, 500, "internal_error"),
        (&stream[..], ends, 200, "event: run_end\nid: 3\n"),
        (&stream[..], fails, 200, "event: run_end\nid: 3\n"),
        (&lines[..], ends, 200, r#"{"type":"run_end""#),
        (&webhook[..], ends, 202, r#"{"status":"accepted""#),
    ] {
        let served = serve(|_| {}).await;
        let heard = post(&served, "/agents/hello/i1", headers, payload).await;
        assert!(heard.status == status && heard.body.contains(wanted), "{headers:?}: {heard:?}");
        assert!(!heard.body.contains("event: error"), "{heard:?}");
        let run = heard.headers["x-trust-run-id"].clone();
        for path in ["", "/events", "/stream"] {
            assert_eq!(get(&served, &format!("/runs/{run}{path}")).await.status, 404, "{path}");
        }
    }
}
