//! What the routes answer: golden bodies, the shared state snapshot, audit pages, health and the description.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::Value;
use trust_runtime::domain::code::Code;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::engine::view::{ClockState, OwnCertificate, Peers};
use trust_runtime::handle::Failure;
use trust_runtime::store;
use trust_runtime::web::{Auth, ROUTES};

use crate::fleet::{Bench, NOW_NS, READ, Seen, TOKEN, bench, bench_with, entry, get, settings};

const STATE: &str = "/api/runtime-cloud/state";
const AUDIT: &str = "/api/runtime-cloud/audit";
const PREFLIGHT: &str = "/api/runtime-cloud/actions/preflight";
const DISPATCH: &str = "/api/runtime-cloud/actions/dispatch";

/// Compares an answer with the kept one. `UPDATE_GOLDEN=1` writes it anew, for a person to review.
fn check_golden(name: &str, seen: &Seen) {
    let path = format!("{}/tests/api/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let got = serde_json::to_string_pretty(&seen.json()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &got).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(got, kept, "{path}");
}

fn asking(targets: &str, rest: &str) -> String {
    READ.replace(r#"["b"]"#, targets).replace(r#""action_type":"status_read""#, rest)
}

#[tokio::test]
async fn the_state_is_as_kept() {
    let seen = bench().get(STATE).await;
    assert_eq!((seen.status, seen.header("content-type")), (StatusCode::OK, "application/json"));
    check_golden("state", &seen);
    assert!(!seen.text().contains("null"), "what is absent is left out");
}

#[tokio::test]
async fn preflight_is_as_kept() {
    let seen = bench().post(PREFLIGHT, READ).await;
    check_golden("preflight_allowed", &seen);
    let cfg = r#""action_type":"cfg_apply","payload":{"params":{"log.level":"debug"}}"#;
    let seen = bench().post(PREFLIGHT, asking(r#"["b","site-1/a","c","x","site-2/d"]"#, cfg)).await;
    check_golden("preflight_denied", &seen);
    let foreign = asking(r#"["b","c","x"]"#, cfg).replace("site-1/engineer-1", "site-2/mallory");
    check_golden("preflight_refused", &bench().post(PREFLIGHT, foreign).await);
}

#[tokio::test]
async fn dispatch_is_as_kept() {
    check_golden("dispatch_status_read", &bench().post(DISPATCH, READ).await);
    let cfg = r#""action_type":"cfg_apply","payload":{"params":{"log.level":"debug"}}"#;
    check_golden("dispatch_cfg_apply", &bench().post(DISPATCH, asking(r#"["a","b"]"#, cfg)).await);
    let ping = r#""action_type":"cmd_invoke","payload":{"command":"ping"}"#;
    check_golden("dispatch_ping", &bench().post(DISPATCH, asking(r#"["b"]"#, ping)).await);
    check_golden("dispatch_denied", &bench().post(DISPATCH, asking(r#"["b","c"]"#, ping)).await);
}

#[tokio::test]
async fn a_dry_run_acts_nowhere() {
    let bench = bench();
    let seen = bench.post(DISPATCH, READ.replace(r#""api_version""#, r#""dry_run":true,"api_version""#)).await;
    assert_eq!((seen.at("/ok"), seen.at("/dry_run")), (true.into(), true.into()));
    assert_eq!(seen.at("/results"), Value::Array(Vec::new()));
    assert_eq!(seen.at("/preflight/allowed"), true);
    assert!(bench.node.dispatched.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_changed_plan_is_a_conflict_and_nothing_is_sent() {
    let bench = bench();
    let plan = bench.post(PREFLIGHT, READ).await.at("/plan_hash");
    let with = |hash: &str| READ.replace(r#""api_version""#, &format!(r#""plan_hash":"{hash}","api_version""#));
    let seen = bench.post(DISPATCH, with(plan.as_str().unwrap())).await;
    assert_eq!(seen.at("/ok"), true, "{}", seen.text());
    for hash in ["", "other", &"x".repeat(512)] {
        let seen = bench.post(DISPATCH, with(hash)).await;
        assert_eq!((seen.status, seen.at("/ok")), (StatusCode::OK, false.into()));
        assert_eq!(seen.at("/results/0/denial_code"), "conflict");
        assert_eq!(seen.at("/preflight/allowed"), true, "the plan of now is shown as it is");
    }
    bench.node.pass(3_000);
    let seen = bench.post(DISPATCH, with(plan.as_str().unwrap())).await;
    assert_eq!(seen.at("/ok"), true, "b is stale, and a read goes ahead");
    bench.node.pass(3_000);
    let seen = bench.post(DISPATCH, with(plan.as_str().unwrap())).await;
    assert_eq!(seen.at("/results/0/denial_code"), "conflict", "b is gone: the decision has changed");
    assert_eq!(bench.node.dispatched.lock().unwrap().len(), 2);
    assert_eq!(bench.node.recorded.lock().unwrap().last().expect("on record").code, Some(Code::Conflict));
}

fn wan() -> Bench {
    let bench = bench_with(|options| options.auth = Auth::Token);
    bench.node.change(|view| {
        let mut settings = settings(Profile::Wan);
        let rule = trust_runtime::domain::policy::Rule {
            id: "all".into(),
            effect: trust_runtime::domain::policy::RuleEffect::Allow,
            action: "*".parse().unwrap(),
            actor: "*".parse().unwrap(),
            target: "*".parse().unwrap(),
            params: Vec::new(),
            not_before: None,
            not_after: None,
            reason: None,
        };
        settings.policy.allow_write.push(rule);
        view.settings = Arc::new(settings);
        let fresh = view.peers.get(&"site-1/b".parse().unwrap()).unwrap().clone();
        view.peers.insert_mut("site-2/d".parse().unwrap(), fresh);
    });
    bench
}

#[tokio::test]
async fn a_cross_site_write_in_wan_needs_a_plan() {
    let bench = wan();
    let ping = r#""action_type":"cmd_invoke","payload":{"command":"ping"}"#;
    let body = asking(r#"["site-2/d"]"#, ping).replace("engineer-1", "admin");
    let seen = bench.post_as_admin(DISPATCH, body.clone()).await;
    assert_eq!(seen.at("/preflight/allowed"), true, "{}", seen.text());
    assert_eq!((seen.at("/ok"), seen.at("/results/0/denial_code")), (false.into(), "contract_violation".into()));
    let plan = bench.post_as_admin(PREFLIGHT, body.clone()).await.at("/plan_hash");
    let with_plan = body.replace(r#""api_version""#, &format!(r#""plan_hash":{plan},"api_version""#));
    assert_eq!(bench.post_as_admin(DISPATCH, with_plan).await.at("/ok"), true);
    let own_site = body.replace("site-2/d", "b");
    assert_eq!(bench.post_as_admin(DISPATCH, own_site).await.at("/ok"), true);
}

#[tokio::test]
async fn a_failure_of_the_node_is_a_problem() {
    let bench = bench();
    for (code, status) in [
        (Code::ServerBusy, StatusCode::SERVICE_UNAVAILABLE),
        (Code::StorageUnavailable, StatusCode::SERVICE_UNAVAILABLE),
        (Code::Conflict, StatusCode::CONFLICT),
    ] {
        *bench.node.failure.lock().unwrap() = Some(Failure { code, reason: "because".into() });
        let seen = bench.post(DISPATCH, READ).await;
        assert_eq!(
            (seen.status, seen.at("/code"), seen.at("/detail")),
            (status, code.as_str().into(), "because".into())
        );
        assert_eq!(seen.header("content-type"), "application/problem+json");
        assert_eq!((seen.at("/status"), seen.at("/request_id")), (status.as_u16().into(), "r-1".into()));
    }
}

#[tokio::test]
async fn the_state_has_a_name_and_is_sent_once() {
    let bench = bench();
    let first = bench.get(STATE).await;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with("W/\""), "{tag}");
    let ask =
        async |known: &str| bench.send(get(STATE).header("if-none-match", known).body(Body::empty()).unwrap()).await;
    for known in [&*tag, tag.trim_start_matches("W/"), &format!("\"x\", {tag}"), "*"] {
        let seen = ask(known).await;
        assert_eq!(
            (seen.status, seen.body.len(), seen.header("etag")),
            (StatusCode::NOT_MODIFIED, 0, &*tag),
            "{known}"
        );
    }
    assert_eq!(ask("\"x\"").await.status, StatusCode::OK);
    // Neither time passing within the period nor another reader gives it another name.
    bench.node.pass(400);
    assert_eq!(ask(&tag).await.status, StatusCode::NOT_MODIFIED);
    let admin = get(STATE).header("authorization", format!("Bearer {TOKEN}")).body(Body::empty()).unwrap();
    let admin = bench.send(admin).await;
    assert_eq!((admin.header("etag"), admin.at("/context/role")), (&*tag, "admin".into()));
    assert_eq!(admin.at("/context/generated_at_ns"), NOW_NS + 400_000_000);
    // Nor does a new view in which somebody was heard of a moment later.
    let hear_b_at = |millis: u64| {
        bench.node.change(|view| {
            let b = view.peers.get_mut(&"site-1/b".parse().unwrap()).unwrap();
            Arc::make_mut(b).heard_at = Some(Wall::from_millis(millis));
        });
    };
    hear_b_at(99_900);
    assert_eq!(ask(&tag).await.status, StatusCode::NOT_MODIFIED);
    hear_b_at(100_100);
    assert_eq!(ask(&tag).await.status, StatusCode::OK, "the next period has begun");
    bench.node.change(|view| view.clock = ClockState::Uncertain);
    let changed = ask(&tag).await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_ne!(changed.header("etag"), tag);
}

#[tokio::test]
async fn a_peer_that_falls_silent_changes_the_state_without_a_new_view() {
    let bench = bench();
    let state_of =
        |seen: &Seen| (seen.at("/topology/nodes/1/lifecycle_state"), seen.at("/topology/nodes/1/health_state"));
    let seen = bench.get(STATE).await;
    assert_eq!(state_of(&seen), ("online".into(), "healthy".into()));
    bench.node.pass(1_500);
    let stale = bench.get(STATE).await;
    assert_eq!(state_of(&stale), ("stale".into(), "degraded".into()));
    assert_eq!(stale.at("/topology/nodes/1/config_state"), "pending");
    bench.node.pass(2_000);
    assert_eq!(state_of(&bench.get(STATE).await), ("partitioned".into(), "faulted".into()));
}

#[tokio::test]
async fn edges_of_a_silent_reporter_are_stale() {
    let seen = bench().get(STATE).await;
    let edges = seen.at("/topology/edges");
    let of = |source: &str| edges.as_array().unwrap().iter().find(|edge| edge["source"] == source).unwrap().clone();
    assert_eq!((of("b")["state"].clone(), of("b")["stale"].clone()), ("healthy".into(), false.into()));
    assert_eq!((of("c")["state"].clone(), of("c")["stale"].clone()), ("stale".into(), true.into()));
    let own = edges.as_array().unwrap().iter().find(|edge| edge["target"] == "c").unwrap();
    assert_eq!((&own["source"], &own["state"], &own["stale"]), (&"a".into(), &"stale".into(), &true.into()));
}

#[tokio::test]
async fn a_large_fleet_is_cut_and_says_so() {
    let bench = bench();
    bench.node.change(|view| {
        let one = view.peers.values().next().unwrap().clone();
        let many = (0..2_005).map(|number| (format!("site-1/n{number:05}").parse().unwrap(), one.clone()));
        view.peers = many.collect();
    });
    let seen = bench.get(STATE).await;
    assert_eq!(seen.at("/topology/nodes").as_array().unwrap().len(), 2_000);
    assert_eq!(seen.at("/topology/omitted/nodes"), 6);
    assert_eq!(seen.at("/topology/omitted/edges"), 0);
}

#[tokio::test]
async fn unmet_preconditions_name_the_setting() {
    let bench = wan();
    bench.node.change(|view| {
        let mut settings = settings(Profile::Plant);
        settings.is_secure = false;
        view.settings = Arc::new(settings);
    });
    let admin = || get(STATE).header("authorization", format!("Bearer {TOKEN}")).body(Body::empty()).unwrap();
    let seen = bench.send(admin()).await;
    assert_eq!((seen.status, seen.at("/code")), (StatusCode::SERVICE_UNAVAILABLE, "not_configured".into()));
    assert!(seen.text().contains("runtime.tls.mode"), "{}", seen.text());
    let seen = bench.post_as_admin(PREFLIGHT, READ.replace("engineer-1", "admin")).await;
    assert_eq!((seen.status, seen.at("/denial_code")), (StatusCode::OK, "not_configured".into()));
}

/// A certificate that ends while the node runs: shown before, degraded near its end, and afterwards nothing is answered.
#[tokio::test]
async fn a_certificate_that_ends_is_told_ahead_and_then_refuses() {
    let day = 24 * 3_600 * 1_000;
    let bench = wan();
    bench.node.change(|view| {
        let mut settings = settings(Profile::Plant);
        let from = Wall(NOW_NS);
        settings.certificate = Some(OwnCertificate { key: view.identity, from, until: from.plus(Millis(40 * day)) });
        view.settings = Arc::new(settings);
    });
    let ask = async |path: &str| {
        let admin = get(path).header("authorization", format!("Bearer {TOKEN}")).body(Body::empty()).unwrap();
        bench.send(admin).await
    };
    let identity = async || {
        let seen = ask("/healthz").await;
        let detail = seen.at("/subsystems/identity/detail").as_str().unwrap().to_owned();
        (seen.at("/subsystems/identity/status").as_str().unwrap().to_owned(), detail)
    };
    assert!(!identity().await.1.contains("certificate"), "40 days ahead nobody is told");
    bench.node.pass(11 * day);
    let (status, detail) = identity().await;
    assert!(status == "ok" && detail.ends_with("the certificate ends in 29 days"), "{status} {detail}");
    bench.node.pass(15 * day);
    let (_, detail) = identity().await;
    assert!(detail.ends_with("the certificate ends in 14 days"), "{detail}");
    bench.node.pass(day);
    let (status, detail) = identity().await;
    assert!(status == "ok" && detail.ends_with("is expiring, it ends in 13 days"), "the last third: {status} {detail}");
    bench.node.pass(10 * day);
    let (status, detail) = identity().await;
    assert!(status == "degraded" && detail.contains("in 3 days: renew it"), "{status} {detail}");
    assert_eq!(ask(STATE).await.status, StatusCode::OK);
    bench.node.pass(3 * day + 1);
    assert_eq!(identity().await.0, "faulted");
    let seen = ask(STATE).await;
    assert_eq!((seen.status, seen.at("/code")), (StatusCode::SERVICE_UNAVAILABLE, "not_configured".into()));
    assert!(seen.text().contains("svid_path"), "{}", seen.text());
}

#[tokio::test]
async fn audit_pages_follow_each_other() {
    let bench = bench();
    *bench.store.entries.lock().unwrap() = (1..=3).rev().map(entry).collect();
    let first = bench.get(&format!("{AUDIT}?limit=2")).await;
    assert_eq!((first.at("/records/0/seq"), first.at("/records/1/seq")), (3.into(), 2.into()));
    check_golden("audit", &first);
    let cursor = first.at("/next_cursor");
    let last = bench.get(&format!("{AUDIT}?limit=2&cursor={}", cursor.as_str().unwrap())).await;
    assert_eq!((last.at("/records/0/seq"), last.at("/next_cursor")), (1.into(), Value::Null));
    assert_eq!(last.at("/records").as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn audit_filters_reach_the_store_in_the_qualified_form() {
    let bench = bench();
    let query = "request_id=r%2D1&actor=spiffe://trust/site-1/x&action=cfg_apply&target=b&since=5&until=9&limit=1000";
    assert_eq!(bench.get(&format!("{AUDIT}?{query}")).await.status, StatusCode::OK);
    let filter = bench.store.asked.lock().unwrap().pop().expect("asked");
    assert_eq!(filter.request_id.as_deref(), Some("r-1"));
    assert_eq!(filter.target.as_deref(), Some("site-1/b"));
    assert_eq!((filter.since.unwrap().0, filter.until.unwrap().0, filter.limit), (5, 9, 1_000));
    for query in
        ["limit=0", "limit=1001", "limit=x", "since=-1", "cursor=x", "target=a%20b", "colour=red", "limit=1&limit=2"]
    {
        let seen = bench.get(&format!("{AUDIT}?{query}")).await;
        assert_eq!(seen.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(seen.at("/code"), "contract_violation");
    }
    assert!(bench.store.asked.lock().unwrap().is_empty());
    *bench.store.fault.lock().unwrap() = Some(store::Error::Closed);
    let seen = bench.get(AUDIT).await;
    assert_eq!((seen.status, seen.at("/code")), (StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable".into()));
}

/// Also where it knows nobody who could be missing.
#[tokio::test]
async fn a_node_that_is_at_no_mesh_is_not_called_in_order() {
    let bench = bench();
    bench.node.change(|view| view.peers = Peers::default());
    let mesh = async || {
        let seen = bench.get("/healthz").await;
        (seen.at("/subsystems/mesh/status"), seen.at("/subsystems/mesh/detail"))
    };
    assert_eq!(mesh().await, ("ok".into(), "2 transports, 0 of 0 peers online".into()));
    *bench.node.mesh_fault.lock().unwrap() = Some("mesh session: closed".into());
    assert_eq!(mesh().await, ("degraded".into(), "2 transports, 0 of 0 peers online; mesh session: closed".into()));
}

#[tokio::test]
async fn health_has_words_for_everyone_and_detail_for_viewers() {
    let bench = bench();
    let far = || get("/healthz").extension(trust_runtime::web::PeerAddress("192.0.2.1:1".parse().unwrap()));
    let words = bench.send(far().body(Body::empty()).unwrap()).await;
    check_golden("healthz_words", &words);
    check_golden("healthz_detail", &bench.get("/healthz").await);
    *bench.store.fault.lock().unwrap() =
        Some(store::Error::NoSpace { place: "control.db".into(), is_at_the_end: false });
    let seen = bench.get("/healthz").await;
    assert_eq!((seen.status, seen.at("/status")), (StatusCode::OK, "degraded".into()));
    *bench.store.fault.lock().unwrap() = Some(store::Error::Broken { place: "x".into(), reason: "y".into() });
    let seen = bench.get("/healthz").await;
    assert_eq!((seen.status, seen.at("/subsystems/store/status")), (StatusCode::SERVICE_UNAVAILABLE, "faulted".into()));
    assert_eq!(bench.get("/readyz").await.status, StatusCode::OK);
    bench.node.is_ready.store(false, std::sync::atomic::Ordering::Relaxed);
    let seen = bench.get("/readyz").await;
    assert_eq!((seen.status, seen.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!(bench.get("/livez").await.text(), r#"{"status":"ok"}"#);
}

#[tokio::test]
async fn every_answer_is_hardened() {
    let bench = bench();
    for path in ["/", "/livez", STATE, "/no/such", AUDIT, "/openapi.json"] {
        let seen = bench.get(path).await;
        assert_eq!(seen.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(seen.header("cache-control"), "no-store", "{path}");
        assert!(seen.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert!(!seen.headers.contains_key("access-control-allow-origin"), "{path}");
    }
}

/// Every parameter that is described changes the answer or is at least taken, and no other one does.
#[tokio::test]
async fn the_description_has_every_parameter_that_a_route_takes() {
    let bench = bench();
    let document = bench.get("/openapi.json").await.json();
    let described = |path: &str| -> Vec<(String, bool)> {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let parameters: Vec<_> = parameters.into_iter().filter(|it| it["in"] == "query").collect();
        let name = |it: &Value| (it["name"].as_str().unwrap().to_owned(), it["required"] == true);
        parameters.iter().map(name).collect()
    };
    assert_eq!(described("/healthz"), [("verbose".to_owned(), false)]);
    for (query, is_shown) in
        [("", false), ("?verbose", true), ("?verbose=true", true), ("?verbose=false", false), ("?a&verbose", true)]
    {
        let body = bench.get(&format!("/healthz{query}")).await.json();
        assert_eq!(body["refused"].is_object(), is_shown, "{query}");
    }
    let of_audit = described(AUDIT);
    assert!(!of_audit.is_empty());
    for (name, is_required) in of_audit {
        let seen = bench.get(&format!("{AUDIT}?{name}=")).await;
        assert_eq!((seen.status, is_required), (StatusCode::OK, false), "{name}");
    }
    assert_eq!(bench.get(&format!("{AUDIT}?verbose")).await.status, StatusCode::BAD_REQUEST);
    let others = ROUTES
        .iter()
        .map(|route| route.path)
        .filter(|path| !["/healthz", AUDIT, "/runs/{runId}/events"].contains(path));
    assert!(others.into_iter().all(|path| described(path).is_empty()));
}

#[tokio::test]
async fn the_description_has_every_route_and_every_member_of_the_answers() {
    let bench = bench();
    let document = bench.get("/openapi.json").await.json();
    assert_eq!((&document["openapi"], &document["info"]["version"]), (&"3.1.0".into(), &"0.1.0".into()));
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert(format!("{} {path}", method.to_uppercase()));
            assert!(operation["responses"]["200"].is_object(), "{path}");
            assert!(operation["responses"]["403"].is_object(), "{path}");
            assert_eq!(operation["requestBody"].is_object(), method == "post", "{path}");
        }
    }
    let routed: BTreeSet<_> = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(described, routed);
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(
            document["components"]["schemas"][reference].is_object(),
            "{reference} is referred to and not described"
        );
    }
    let parameters = document["paths"][AUDIT]["get"]["parameters"].as_array().unwrap();
    assert_eq!(parameters.len(), 8);
    for (path, method, request) in
        [(STATE, "get", None), (PREFLIGHT, "post", Some(READ)), (DISPATCH, "post", Some(READ))]
    {
        let seen = match request {
            None => bench.get(path).await,
            Some(body) => bench.post(path, body).await,
        };
        let content = &document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"];
        check_described(&document, content, &seen.json(), path);
    }
}

/// Every member of an answer is described, and every member that must be there is.
fn check_described(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return check_described(document, &document["components"]["schemas"][name], value, place);
    }
    if schema["oneOf"].is_array() || schema["additionalProperties"].is_object() {
        return;
    }
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let property = &schema["properties"][name];
                assert!(property.is_object(), "{place}/{name} is not described: {schema}");
                check_described(document, property, member, &format!("{place}/{name}"));
            }
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(members.contains_key(name.as_str().unwrap()), "{place}/{name} is promised and missing");
            }
        }
        Value::Array(items) => items.iter().for_each(|item| check_described(document, &schema["items"], item, place)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn the_index_lists_every_route() {
    let seen = bench().get("/").await;
    assert_eq!(seen.header("content-type"), "text/plain; charset=utf-8");
    for route in &ROUTES {
        assert!(seen.text().contains(route.path), "{}", route.path);
    }
}
