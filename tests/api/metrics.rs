//! `/metrics`: that it can be read, that it holds every metric and no other, that labels are bounded, and that numbers move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use trust_runtime::domain::action::ActionKind;
use trust_runtime::domain::code::Code;
use trust_runtime::domain::identity::{Fingerprint, Role};
use trust_runtime::domain::offer::Agent;
use trust_runtime::domain::policy::Stage;
use trust_runtime::domain::time::{Millis, Monotonic, Wall};
use trust_runtime::engine::skew::Skew;
use trust_runtime::engine::view::{ClockState, OwnCertificate};
use trust_runtime::metrics::table::{ALL, Kind};
use trust_runtime::metrics::{MEDIA_TYPE, Reading, RunEnd, Side};
use trust_runtime::store;
use trust_runtime::web::ROUTES;

use crate::exposition::{Exposition, parse};
use crate::fleet::{Bench, READ, TOKEN, bench, bench_with, get, post};

const PREFLIGHT: &str = "/api/runtime-cloud/actions/preflight";
const DISPATCH: &str = "/api/runtime-cloud/actions/dispatch";

async fn scrape(bench: &Bench) -> Exposition {
    let seen = bench.get("/metrics").await;
    assert_eq!((seen.status, seen.header("content-type")), (StatusCode::OK, MEDIA_TYPE));
    parse(seen.text()).unwrap_or_else(|why| panic!("{why}\n{}", seen.text()))
}

/// The value of one series; 0 where it is not there yet.
fn value(all: &Exposition, name: &str, labels: &[(&str, &str)]) -> f64 {
    let is_wanted = |sample: &&crate::exposition::Sample| {
        sample.name == name
            && sample.labels.len() == labels.len()
            && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|it| it == value))
    };
    all.values().flat_map(|metric| &metric.samples).find(is_wanted).map_or(0.0, |sample| sample.value)
}

/// Every counter once with every value of its labels that there is: what is bounded has this many series and no more.
fn raise_everything(bench: &Bench) {
    let metrics = &bench.node.metrics;
    for action in ActionKind::ALL {
        metrics.dispatch_took(action, 1);
        metrics.dispatched(action, Ok(()));
        metrics.asked(action, Ok(()));
        for code in Code::ALL {
            metrics.asked(action, Err(code));
            metrics.dispatched(action, Err((code, Stage::Origin)));
            metrics.dispatched(action, Err((code, Stage::Target)));
        }
    }
    for (code, stage) in Code::ALL.into_iter().flat_map(|code| [(code, Stage::Origin), (code, Stage::Target)]) {
        Side::ALL.iter().for_each(|side| metrics.denied(code, stage, *side));
    }
    [true, false].iter().for_each(|it| metrics.committed(*it, 1));
    [RunEnd::Completed, RunEnd::Errored].iter().for_each(|it| metrics.run_ended(*it));
    metrics.run_started();
    metrics.audit_length(3);
    bench.node.refused.lock().unwrap().insert("too_large", 7);
    bench.node.change(|view| {
        let heard = view.peers.get_mut(&"site-1/b".parse().unwrap()).unwrap();
        Arc::make_mut(heard).skew = Some(Skew { ahead_nanos: -2_500_000_000, at: Monotonic(crate::fleet::NOW_NS) });
        Arc::make_mut(&mut view.settings).certificate =
            Some(OwnCertificate { key: Fingerprint([1; 32]), from: Wall(0), until: Wall(1_900_000_000_500_000_000) });
    });
}

#[tokio::test]
async fn every_metric_of_the_table_is_exposed_and_no_other() {
    let bench = bench();
    raise_everything(&bench);
    // The first one is counted when it is answered.
    scrape(&bench).await;
    bench.post(PREFLIGHT, READ).await;
    let all = scrape(&bench).await;
    for row in ALL {
        let metric = all.get(row.name).unwrap_or_else(|| panic!("{} is not exposed", row.name));
        assert_eq!((metric.kind.as_str(), metric.unit.as_deref()), (row.kind.as_str(), row.unit()), "{}", row.name);
        assert_eq!(metric.help, format!("{}.", row.meaning));
        let labels: BTreeSet<&str> = row.labels.iter().map(|(label, _)| *label).collect();
        for sample in &metric.samples {
            let found: BTreeSet<&str> = sample.labels.keys().map(String::as_str).filter(|it| *it != "le").collect();
            assert_eq!(found, labels, "{}", row.name);
        }
    }
    let known: BTreeSet<&str> = ALL.iter().map(|row| row.name).collect();
    assert_eq!(all.keys().map(String::as_str).collect::<BTreeSet<_>>(), known);
    assert_eq!(value(&all, "trust_runtime_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(value(&all, "trust_runtime_mesh_refused_total", &[("reason", "too_large")]), 7.0);
    for (part, wanted) in [("length", 3.0), ("capacity", 10.0)] {
        assert_eq!(value(&all, &format!("trust_runtime_queue_{part}"), &[("queue", "mailbox")]), wanted, "{part}");
    }
    assert_eq!(value(&all, "trust_runtime_audit_records", &[]), 3.0);
    let until = value(&all, "trust_runtime_certificate_expiry_timestamp_seconds", &[("certificate", "node")]);
    assert_eq!(until, 1_900_000_000.5);
}

/// Whatever strangers send, there are no more series than the tables have words.
#[tokio::test]
async fn no_label_has_a_value_that_somebody_outside_chose() {
    let bench = bench();
    for chosen in ["/chosen", "/runs/chosen", "/agents/chosen/chosen", "/metrics?chosen", "/livez/chosen"] {
        bench.get(chosen).await;
        bench.post(chosen, READ.replace("r-1", "chosen").replace("status_read", "chosen")).await;
        let mut named = post(chosen, "{}");
        named.headers_mut().insert("host", "chosen".parse().unwrap());
        bench.send(named).await;
        let strange = get(chosen).method("CHOSEN").header("authorization", "Bearer chosen");
        bench.send(strange.body(axum::body::Body::empty()).unwrap()).await;
    }
    bench.post(PREFLIGHT, READ.replace("engineer-1", "chosen").replace("[\"b\"]", "[\"chosen\"]")).await;
    bench.post(DISPATCH, READ.replace("[\"b\"]", "[\"chosen\"]")).await;
    raise_everything(&bench);
    let all = scrape(&bench).await;
    let paths: BTreeSet<&str> = ROUTES.iter().map(|route| route.path).chain(["refused_host", "unmatched"]).collect();
    for sample in all.values().flat_map(|metric| &metric.samples) {
        assert!(!sample.labels.values().any(|it| it.to_lowercase().contains("chosen")), "{sample:?}");
        if let Some(route) = sample.labels.get("route") {
            assert!(paths.contains(route.as_str()), "{route}");
        }
    }
    let most = |name: &str| all[name].samples.len();
    assert_eq!(most("trust_runtime_dispatch_targets"), ActionKind::ALL.len() * (Code::ALL.len() + 1));
    assert_eq!(most("trust_runtime_mesh_actions"), ActionKind::ALL.len() * (Code::ALL.len() + 1));
    let denials = Code::ALL.iter().filter(|code| code.is_denial()).count();
    assert_eq!(most("trust_runtime_denials"), denials * 2 * Side::ALL.len());
}

#[tokio::test]
async fn requests_are_counted_by_route_and_by_how_they_ended() {
    let bench = bench();
    let requests = "trust_runtime_http_request_duration_seconds_count";
    let labels = |route: &'static str, status| {
        let method = if route.starts_with('/') { "GET" } else { "any" };
        [("method", method), ("route", route), ("status", status)]
    };
    for (path, route, status, answer) in [
        ("/livez", "/livez", "2xx", StatusCode::OK),
        ("/runs/run_1", "/runs/{runId}", "5xx", StatusCode::NOT_IMPLEMENTED),
        ("/nowhere", "unmatched", "4xx", StatusCode::NOT_FOUND),
    ] {
        let before = value(&scrape(&bench).await, requests, &labels(route, status));
        assert_eq!(bench.get(path).await.status, answer, "{path}");
        assert_eq!(value(&scrape(&bench).await, requests, &labels(route, status)), before + 1.0, "{path}");
    }
    let foreign = axum::http::Request::get("/livez").header("host", "evil.example").extension(crate::fleet::loopback());
    bench.send(foreign.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(value(&scrape(&bench).await, requests, &labels("refused_host", "4xx")), 1.0);
}

/// By the clock of the node, in seconds.
#[tokio::test]
async fn the_time_that_an_answer_took_is_in_its_histogram() {
    let bench = bench();
    let held = bench.node.gate.acquire_many(1_000).await.unwrap();
    let wait = async {
        bench.node.pass(1_500);
        drop(held);
    };
    tokio::join!(bench.post(DISPATCH, READ), wait);
    let all = scrape(&bench).await;
    let name = "trust_runtime_http_request_duration_seconds";
    let sum = value(&all, &format!("{name}_sum"), &[("method", "POST"), ("route", DISPATCH), ("status", "2xx")]);
    assert_eq!(sum, 1.5);
}

/// An answer of no time at all would make the others look faster than they are.
#[tokio::test]
async fn what_is_turned_away_is_counted_with_the_time_that_it_took() {
    let bench = bench_with(|options| options.limits.requests_max = 0);
    bench.node.pace.store(250, Ordering::Relaxed);
    bench.get("/nowhere").await;
    bench.post("/livez", "{}").await;
    let foreign = axum::http::Request::get("/livez").header("host", "evil.example").extension(crate::fleet::loopback());
    bench.send(foreign.body(axum::body::Body::empty()).unwrap()).await;
    let state = "/api/runtime-cloud/state";
    assert_eq!(bench.get(state).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let text = bench.node.metrics.expose(&Reading::default()).unwrap();
    let all = parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
    let name = "trust_runtime_http_request_duration_seconds";
    for (method, route, status, wanted) in
        [("any", "unmatched", "4xx", 2.0), ("any", "refused_host", "4xx", 1.0), ("GET", state, "5xx", 1.0)]
    {
        let of =
            |part| value(&all, &format!("{name}_{part}"), &[("method", method), ("route", route), ("status", status)]);
        assert_eq!(of("count"), wanted, "{route}");
        // Between two looks at the clock, and there are two at least.
        assert!(0.25 * wanted <= of("sum"), "{route}: {}", of("sum"));
    }
}

#[tokio::test]
async fn decisions_and_bad_credentials_are_counted() {
    let bench = bench();
    bench.post(PREFLIGHT, READ).await;
    bench.post(PREFLIGHT, READ.replace("[\"b\"]", "[\"nobody\"]")).await;
    bench.post(DISPATCH, READ.replace("site-1/engineer-1", "site-2/engineer-1")).await;
    let guess = get("/api/runtime-cloud/state").header("authorization", "Bearer guess");
    bench.send(guess.body(axum::body::Body::empty()).unwrap()).await;
    let all = scrape(&bench).await;
    for (name, labels) in [
        ("trust_runtime_preflights_total", &[("result", "allowed")][..]),
        ("trust_runtime_preflights_total", &[("result", "denied")]),
        ("trust_runtime_denials_total", &[("code", "permission_denied"), ("stage", "origin"), ("side", "dispatch")]),
        ("trust_runtime_http_bad_credentials_total", &[]),
    ] {
        assert_eq!(value(&all, name, labels), 1.0, "{name} {labels:?}");
    }
    // A question that is denied before there is a plan is one, too.
    bench.post(PREFLIGHT, READ.replace("site-1/engineer-1", "site-2/engineer-1")).await;
    assert_eq!(value(&scrape(&bench).await, "trust_runtime_preflights_total", &[("result", "denied")]), 2.0);
}

/// What failed on the way is no denial; the counters of outcomes have it.
#[tokio::test]
async fn a_denial_is_counted_where_it_is_met_with_and_a_failure_is_none() {
    let bench = bench();
    let nobody = READ.replace("[\"b\"]", "[\"nobody\"]");
    bench.post(PREFLIGHT, nobody.clone()).await;
    bench.post(PREFLIGHT, READ.replace("site-1/engineer-1", "site-2/engineer-1")).await;
    let dry = |body: &str| body.replacen('{', "{\"dry_run\":true,", 1);
    bench.post(DISPATCH, dry(&nobody)).await;
    bench.post(DISPATCH, dry(&READ.replace("\"1.0\"", "\"9.0\""))).await;
    let unplanned = READ.replacen('{', "{\"plan_hash\":\"nobodys\",", 1);
    bench.post(DISPATCH, unplanned.clone()).await;
    bench.post(DISPATCH, dry(&unplanned)).await;
    bench.post("/api/runtime-cloud/control/shutdown", "{}").await;
    let guarded = Agent { role: Role::Admin, webhook: true };
    bench.node.change(|view| {
        Arc::make_mut(&mut view.settings).offer.agents.insert("guarded".parse().unwrap(), guarded);
    });
    assert_eq!(bench.post("/agents/guarded/x", "{}").await.status, StatusCode::FORBIDDEN);
    let metrics = &bench.node.metrics;
    for code in [Code::Replayed, Code::Timeout, Code::ServerBusy] {
        metrics.asked(ActionKind::CmdInvoke, Err(code));
        metrics.dispatched(ActionKind::CmdInvoke, Err((code, Stage::Origin)));
    }
    let all = scrape(&bench).await;
    let denials = |code, stage, side| {
        value(&all, "trust_runtime_denials_total", &[("code", code), ("stage", stage), ("side", side)])
    };
    for (code, stage, side, wanted) in [
        ("peer_not_available", "origin", "preflight", 2.0),
        ("permission_denied", "origin", "preflight", 1.0),
        ("contract_violation", "origin", "preflight", 1.0),
        ("conflict", "origin", "dispatch", 1.0),
        ("conflict", "origin", "preflight", 1.0),
        ("permission_denied", "origin", "route", 2.0),
        ("replayed", "target", "target", 1.0),
        ("replayed", "origin", "dispatch", 1.0),
    ] {
        assert_eq!(denials(code, stage, side), wanted, "{code} {stage} {side}");
    }
    let known = &all["trust_runtime_denials"].samples;
    assert!(!known.iter().any(|it| ["timeout", "server_busy"].contains(&it.labels["code"].as_str())), "{known:?}");
    for name in ["trust_runtime_dispatch_targets_total", "trust_runtime_mesh_actions_total"] {
        assert_eq!(value(&all, name, &[("action", "cmd_invoke"), ("result", "timeout")]), 1.0, "{name}");
    }
}

/// Of both peers' clocks the one that was heard of late.
#[tokio::test]
async fn the_skew_of_the_clock_is_shown_while_a_peer_is_heard() {
    let bench = bench();
    let skew = "trust_runtime_clock_skew_seconds";
    assert!(!scrape(&bench).await.contains_key(skew), "nobody was heard");
    let now = bench.node.now.lock().unwrap().monotonic;
    bench.node.change(|view| {
        for (name, ahead_nanos, at) in [("b", 40_000_000_000, Monotonic(0)), ("c", -20_500_000_000, now)] {
            let peer = view.peers.get_mut(&format!("site-1/{name}").parse().unwrap()).unwrap();
            Arc::make_mut(peer).skew = Some(Skew { ahead_nanos, at });
        }
    });
    assert_eq!(value(&scrape(&bench).await, skew, &[]), -20.5);
    bench.node.now.lock().unwrap().monotonic = now.plus(Millis::from_secs(61));
    assert!(!scrape(&bench).await.contains_key(skew), "that was a minute ago");
}

#[tokio::test]
async fn what_is_looked_at_follows_the_node() {
    let bench = bench();
    let all = scrape(&bench).await;
    for (state, count) in [("online", 1.0), ("stale", 1.0), ("offline", 1.0), ("partitioned", 0.0)] {
        assert_eq!(value(&all, "trust_runtime_peers", &[("state", state)]), count, "{state}");
    }
    let now = |all: &Exposition, name: &str| value(all, name, &[]);
    for (name, wanted) in [
        ("trust_runtime_ready", 1.0),
        ("trust_runtime_store_writable", 1.0),
        ("trust_runtime_clock_certain", 1.0),
        ("trust_runtime_clock_offset_seconds", 0.0),
        ("trust_runtime_mesh_links", 2.0),
        ("trust_runtime_peers_untrusted", 3.0),
        ("trust_runtime_config_revision", 7.0),
        ("process_start_time_seconds", 90.0),
        ("trust_runtime_http_requests_in_flight", 1.0),
    ] {
        assert_eq!(now(&all, name), wanted, "{name}");
    }
    assert!(!all.contains_key("trust_runtime_certificate_expiry_timestamp_seconds"), "there is none");
    assert!(1e6 < now(&all, "process_resident_memory_bytes"), "a process has a megabyte");
    // The engine believes the clock no more, and was rebuilt to be read only.
    bench.node.change(|view| (view.clock, view.is_read_only) = (ClockState::Uncertain, true));
    let all = scrape(&bench).await;
    assert_eq!((now(&all, "trust_runtime_clock_certain"), now(&all, "trust_runtime_store_writable")), (0.0, 0.0));
    bench.node.change(|view| (view.clock, view.is_read_only) = (ClockState::Certain, false));
    // Somebody moves the wall clock by a minute, the disk fails and the node is told to stop.
    bench.node.now.lock().unwrap().wall = Wall(crate::fleet::NOW_NS + 60_000_000_000);
    *bench.store.fault.lock().unwrap() = Some(store::Error::Closed);
    bench.node.is_ready.store(false, Ordering::Relaxed);
    let all = scrape(&bench).await;
    assert_eq!(now(&all, "trust_runtime_clock_offset_seconds"), 60.0);
    assert_eq!((now(&all, "trust_runtime_store_writable"), now(&all, "trust_runtime_ready")), (0.0, 0.0));
}

/// What a node does is not for whoever passes by.
#[tokio::test]
async fn metrics_want_a_credential_from_elsewhere() {
    let bench = bench();
    let far = |builder: axum::http::request::Builder| {
        let from = trust_runtime::web::PeerAddress("192.0.2.1:5000".parse().unwrap());
        builder.extension(from).body(axum::body::Body::empty()).unwrap()
    };
    assert_eq!(bench.send(far(get("/metrics"))).await.status, StatusCode::UNAUTHORIZED);
    let scraper = get("/metrics").header("authorization", format!("Bearer {TOKEN}"));
    assert_eq!(bench.send(far(scraper)).await.status, StatusCode::OK);
    assert!(ALL.iter().all(|row| row.kind != Kind::Info || row.labels.len() == 1), "an info is one text");
}
