//! Who may ask: credentials, roles and the actors they cover, for every route of the table.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use trust_runtime::domain::code::Code;
use trust_runtime::domain::identity::Role;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::handle::{self, Control, Failure};
use trust_runtime::web::{ADMIN_ROUTES, Access, Auth, PeerAddress, ROUTES, Route};

use crate::fleet::{Bench, READ, Seen, TOKEN, bench, bench_with, get, post, settings};

const PREFLIGHT: &str = "/api/runtime-cloud/actions/preflight";
const DISPATCH: &str = "/api/runtime-cloud/actions/dispatch";
const CONTROL: &str = "/api/runtime-cloud/control";

/// A good body for each route that takes one.
pub(crate) fn body_of(path: &str) -> &'static str {
    match path {
        PREFLIGHT | DISPATCH => READ,
        path if path.contains("/peers-") => r#"{"runtime_id":"b"}"#,
        _ => "{}",
    }
}

pub(crate) fn request(route: &Route) -> Request<Body> {
    let mut request = post(route.path, body_of(route.path));
    *request.method_mut() = route.method.parse().unwrap();
    request
}

/// Every route once, with the least role that may ask, and what becomes of it while the profile lacks what it promises. A new
/// route fails here until it has its row.
#[test]
fn the_table_says_who_may_ask() {
    let rows: BTreeSet<String> = ROUTES
        .iter()
        .map(|route| {
            let Route { method, path, access, body_bytes_max, unmet, .. } = route;
            format!("{method} {path} {access:?} {body_bytes_max} {unmet:?}")
        })
        .collect();
    let expected = [
        "GET / Anyone 0 Answered",
        "GET /api/runtime-cloud/audit Least(Viewer) 0 Refused",
        "GET /api/runtime-cloud/bundle Anyone 0 Answered",
        "GET /api/runtime-cloud/config Least(Viewer) 0 Refused",
        "GET /api/runtime-cloud/state Least(Viewer) 0 Refused",
        "GET /api/runtime-cloud/state/stream Least(Viewer) 0 Refused",
        "GET /healthz AnyoneOrMore 0 Answered",
        "GET /livez Anyone 0 Answered",
        "GET /metrics Least(Viewer) 0 Answered",
        "GET /openapi.json Anyone 0 Answered",
        "GET /readyz Anyone 0 Answered",
        "GET /runs/{runId} Least(Viewer) 0 Refused",
        "GET /runs/{runId}/events Least(Viewer) 0 Refused",
        "GET /runs/{runId}/stream Least(Viewer) 0 Refused",
        "POST /agents/{name}/{id} Least(Viewer) 1048576 Refused",
        "POST /api/runtime-cloud/actions/dispatch Least(Viewer) 262144 Told",
        "POST /api/runtime-cloud/actions/preflight Least(Viewer) 262144 Told",
        "POST /api/runtime-cloud/control/peers-approve Least(Admin) 262144 Refused",
        "POST /api/runtime-cloud/control/peers-forget Least(Admin) 262144 Refused",
        "POST /api/runtime-cloud/control/reload Least(Admin) 262144 Answered",
        "POST /api/runtime-cloud/control/shutdown Least(Admin) 262144 Answered",
        "POST /api/runtime-cloud/control/time-reset Least(Admin) 262144 Refused",
    ];
    assert_eq!(rows, expected.into_iter().map(str::to_owned).collect());
    assert_eq!(rows.len(), ROUTES.len(), "no route stands twice");
    let is_a_read = |route: &Route| (route.method, route.access) == ("GET", Access::Least(Role::Operator));
    assert!(ADMIN_ROUTES.iter().all(is_a_read), "the admin listener only reads, for operators");
}

#[tokio::test]
async fn every_route_holds_to_its_row() {
    for route in &ROUTES {
        let bench = bench();
        let status = async |request| match bench.app.answer(request).await.status() {
            // Let in, to a node that has neither agents nor runs.
            StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED if route.path.contains('{') => StatusCode::OK,
            status => status,
        };
        let anonymous = status(request(route)).await;
        let mut foreign = request(route);
        foreign.extensions_mut().insert(PeerAddress("192.0.2.1:5000".parse().unwrap()));
        let foreign = status(foreign).await;
        let mut bad = request(route);
        bad.headers_mut().insert("authorization", "Bearer wrong".parse().unwrap());
        let bad = status(bad).await;
        let mut admin = request(route);
        admin.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        admin.extensions_mut().insert(PeerAddress("192.0.2.1:5000".parse().unwrap()));
        let admin = status(admin).await;
        let (ok, none, low) = (StatusCode::OK, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN);
        let expected = match route.access {
            Access::Anyone => (ok, ok, ok, ok),
            Access::AnyoneOrMore => (ok, ok, none, ok),
            Access::Least(Role::Admin) => (low, none, none, ok),
            Access::Least(Role::Viewer | Role::Operator | Role::Engineer) => (ok, none, none, ok),
        };
        assert_eq!((anonymous, foreign, bad, admin), expected, "{} {}", route.method, route.path);
    }
}

#[tokio::test]
async fn bad_credentials_get_one_answer() {
    let bench = bench();
    let mut bodies = BTreeSet::new();
    for lines in [
        vec!["Bearer wrong".to_owned()],
        vec![format!("Bearer {}", TOKEN.to_uppercase())],
        vec![format!("Bearer {}", &TOKEN[..TOKEN.len() - 1])],
        vec![format!("Bearer {TOKEN}x")],
        vec![format!("Bearer {TOKEN} ")],
        vec![format!("Bearer  {TOKEN}")],
        vec![format!("Bearer {TOKEN}"), format!("Bearer {TOKEN}")],
        vec![format!("Basic {TOKEN}")],
        vec![TOKEN.to_owned()],
        vec!["Bearer ".to_owned()],
        vec!["Bearer".to_owned()],
        vec![String::new()],
        vec![format!("Bearer {}", "x".repeat(10_000))],
    ] {
        let mut request = get("/api/runtime-cloud/state");
        for line in &lines {
            request = request.header("authorization", line);
        }
        let seen = bench.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED, "{lines:?}");
        assert_eq!(seen.header("www-authenticate"), "Bearer");
        let mut body = seen.json();
        body.as_object_mut().unwrap().remove("request_id").expect("named");
        bodies.insert(body.to_string());
    }
    assert_eq!(bodies.len(), 1, "{bodies:#?}");
    let scheme = get("/api/runtime-cloud/state").header("authorization", format!("bearer {TOKEN}"));
    assert_eq!(bench.send(scheme.body(Body::empty()).unwrap()).await.status, StatusCode::OK, "the scheme has no case");
}

#[tokio::test]
async fn bad_credentials_are_recorded_once_a_second() {
    let bench = bench();
    let guess = async || {
        let guess =
            get("/api/runtime-cloud/state").header("authorization", "Bearer guess").body(Body::empty()).unwrap();
        assert_eq!(bench.send(guess).await.status, StatusCode::UNAUTHORIZED);
    };
    for _ in 0..50 {
        guess().await;
    }
    bench.node.pass(1_000);
    guess().await;
    let recorded = bench.node.recorded.lock().unwrap();
    let details: Vec<_> = recorded.iter().map(|draft| (&*draft.actor, &*draft.action, &*draft.detail)).collect();
    let record = |detail| ("spiffe://trust/site-1/unknown", "authenticate", detail);
    assert_eq!(
        details,
        [
            record("bad credential from 127.0.0.1; 0 others since the last record"),
            record("bad credential from 127.0.0.1; 49 others since the last record"),
        ]
    );
}

#[tokio::test]
async fn without_a_credential_only_this_machine_is_let_in_and_only_in_dev() {
    let state = || get("/api/runtime-cloud/state");
    let ask = async |bench: &Bench, request: Request<Body>| bench.send(request).await.status;
    assert_eq!(ask(&bench(), state().body(Body::empty()).unwrap()).await, StatusCode::OK);
    let mapped = state().extension(PeerAddress("[::ffff:127.0.0.1]:1".parse().unwrap()));
    assert_eq!(ask(&bench(), mapped.body(Body::empty()).unwrap()).await, StatusCode::OK);
    let far = state().extension(PeerAddress("10.0.0.5:1".parse().unwrap()));
    assert_eq!(ask(&bench(), far.body(Body::empty()).unwrap()).await, StatusCode::UNAUTHORIZED);
    let unknown = Request::get("/api/runtime-cloud/state").header("host", "localhost");
    assert_eq!(ask(&bench(), unknown.body(Body::empty()).unwrap()).await, StatusCode::UNAUTHORIZED);
    let proxied = state().header("x-forwarded-for", "127.0.0.1");
    assert_eq!(ask(&bench(), proxied.body(Body::empty()).unwrap()).await, StatusCode::UNAUTHORIZED);
    let strict = bench_with(|options| options.auth = Auth::Token);
    assert_eq!(ask(&strict, state().body(Body::empty()).unwrap()).await, StatusCode::UNAUTHORIZED);
    let plant = bench();
    plant.node.change(|view| view.settings = Arc::new(settings(Profile::Plant)));
    assert_eq!(ask(&plant, state().body(Body::empty()).unwrap()).await, StatusCode::UNAUTHORIZED);
}

async fn ask_as(bench: &Bench, path: &str, actor: &str, is_admin: bool) -> Seen {
    let body = READ.replace("spiffe://trust/site-1/engineer-1", actor);
    if is_admin { bench.post_as_admin(path, body).await } else { bench.post(path, body).await }
}

#[tokio::test]
async fn the_actor_must_be_covered_by_the_credential() {
    for (actor, is_admin, expected) in [
        ("spiffe://trust/site-1/engineer-1", false, true),
        ("spiffe://trust/site-1/admin", false, true),
        ("spiffe://trust/site-2/engineer-1", false, false),
        ("spiffe://other/site-1/engineer-1", false, false),
        ("spiffe://trust/site-1/admin", true, true),
        ("spiffe://trust/site-1/engineer-1", true, false),
        ("spiffe://trust/site-2/admin", true, false),
    ] {
        for path in [PREFLIGHT, DISPATCH] {
            let bench = bench();
            let seen = ask_as(&bench, path, actor, is_admin).await;
            assert_eq!(seen.status, StatusCode::OK, "{actor}");
            let place = if path == DISPATCH { "/preflight" } else { "" };
            assert_eq!(seen.at(&format!("{place}/allowed")), expected, "{actor} {path}: {}", seen.text());
            if !expected {
                assert_eq!(seen.at(&format!("{place}/denial_code")), "permission_denied");
                assert_eq!(seen.at(&format!("{place}/decisions/0/denial_code")), "permission_denied");
            }
            let recorded = bench.node.recorded.lock().unwrap();
            assert_eq!(recorded.len(), usize::from(!expected && path == DISPATCH), "{actor} {path}");
            assert_eq!(bench.node.dispatched.lock().unwrap().len(), usize::from(expected && path == DISPATCH));
        }
    }
}

#[tokio::test]
async fn the_node_is_told_who_asks_by_the_credential() {
    let bench = bench();
    ask_as(&bench, DISPATCH, "spiffe://trust/site-1/engineer-1", false).await;
    ask_as(&bench, DISPATCH, "spiffe://trust/site-1/admin", true).await;
    let dispatched = bench.node.dispatched.lock().unwrap();
    let askers: Vec<_> =
        dispatched.iter().map(|it| (it.asker.actor.to_string(), it.asker.role, it.asker.is_verified)).collect();
    assert_eq!(
        askers,
        [
            ("spiffe://trust/site-1/engineer-1".to_owned(), Role::Engineer, false),
            ("spiffe://trust/site-1/admin".to_owned(), Role::Admin, true),
        ]
    );
}

#[tokio::test]
async fn a_refused_dispatch_is_recorded_under_the_name_that_was_let_in() {
    let bench = bench();
    ask_as(&bench, DISPATCH, "spiffe://trust/site-2/mallory", false).await;
    let recorded = bench.node.recorded.lock().unwrap().clone();
    let draft = recorded.first().expect("one record");
    assert_eq!(draft.actor, "spiffe://trust/site-1/local");
    assert_eq!((draft.code, draft.actor_verified), (Some(Code::PermissionDenied), false));
    assert_eq!(draft.request_id.as_ref().map(ToString::to_string).as_deref(), Some("r-1"));
    assert!(draft.detail.contains("spiffe://trust/site-2/mallory"), "{}", draft.detail);
    drop(recorded);
    *bench.node.failure.lock().unwrap() = Some(Failure { code: Code::ServerBusy, reason: "full".into() });
    let seen = ask_as(&bench, DISPATCH, "spiffe://trust/site-2/mallory", false).await;
    assert_eq!((seen.status, seen.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
}

#[tokio::test]
async fn control_reaches_the_node_as_admin() {
    let bench = bench();
    for (verb, body) in [
        ("shutdown", "{}"),
        ("time-reset", r#"{"api_version":"1.0"}"#),
        (
            "peers-approve",
            r#"{"runtime_id":"site-2/d","fingerprint":"0101010101010101010101010101010101010101010101010101010101010101"}"#,
        ),
        ("peers-forget", r#"{"runtime_id":"b"}"#),
    ] {
        let seen = bench.post_as_admin(&format!("{CONTROL}/{verb}"), body).await;
        assert_eq!(seen.text(), r#"{"api_version":"1.0","ok":true,"connected_via":"a"}"#, "{verb}");
    }
    let controlled = bench.node.controlled.lock().unwrap();
    assert!(controlled.iter().all(|(asker, _)| asker.role == Role::Admin && asker.is_verified));
    let verbs: Vec<_> = controlled.iter().map(|(_, control)| control.clone()).collect();
    let runtime = |text: &str| text.parse().unwrap();
    let fingerprint = Some(trust_runtime::domain::identity::Fingerprint([1; 32]));
    assert_eq!(
        verbs,
        [
            Control::Shutdown,
            Control::TimeReset,
            Control::PeersApprove { runtime: runtime("site-2/d"), fingerprint },
            Control::PeersForget { runtime: runtime("site-1/b") },
        ]
    );
}

#[tokio::test]
async fn a_reload_says_what_holds_what_waits_and_what_was_rejected() {
    let bench = bench();
    *bench.node.reloaded.lock().unwrap() = handle::Reloaded {
        applied: vec!["runtime.cloud.wan".into()],
        needs_restart: vec!["runtime.web".into()],
        rejected: vec![handle::Rejected { what: "tokens.toml".into(), reason: "line 3".into() }],
    };
    let seen = bench.post_as_admin(&format!("{CONTROL}/reload"), "{}").await;
    assert_eq!(
        seen.text(),
        concat!(
            r#"{"api_version":"1.0","ok":false,"connected_via":"a","applied":["runtime.cloud.wan"],"#,
            r#""needs_restart":["runtime.web"],"rejected":[{"what":"tokens.toml","reason":"line 3"}]}"#
        )
    );
}

#[tokio::test]
async fn control_faults_and_refusals_are_named() {
    let bench = bench();
    for (verb, body, pointer) in [
        ("shutdown", r#"{"force":true}"#, "/force"),
        ("shutdown", r#"{"api_version":"2.0"}"#, "/api_version"),
        ("peers-approve", "{}", "/runtime_id"),
        ("peers-approve", r#"{"runtime_id":"a b"}"#, "/runtime_id"),
        ("peers-approve", r#"{"runtime_id":"b","fingerprint":"AB"}"#, "/fingerprint"),
        ("peers-forget", r#"{"runtime_id":"b","fingerprint":null}"#, "/fingerprint"),
    ] {
        let seen = bench.post_as_admin(&format!("{CONTROL}/{verb}"), body).await;
        assert_eq!(seen.status, StatusCode::BAD_REQUEST, "{verb} {body}");
        assert_eq!(seen.at("/errors/0/pointer"), pointer, "{verb} {body}: {}", seen.text());
    }
    assert!(bench.node.controlled.lock().unwrap().is_empty());
    let seen = bench.post(&format!("{CONTROL}/shutdown"), "{}").await;
    assert_eq!(seen.status, StatusCode::FORBIDDEN);
    assert_eq!(bench.node.recorded.lock().unwrap().first().expect("on record").action, "shutdown");
    for (code, status) in [
        (Code::PeerNotAvailable, StatusCode::NOT_FOUND),
        (Code::Conflict, StatusCode::CONFLICT),
        (Code::StorageUnavailable, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        *bench.node.failure.lock().unwrap() = Some(Failure { code, reason: "because".into() });
        let seen = bench.post_as_admin(&format!("{CONTROL}/peers-forget"), r#"{"runtime_id":"b"}"#).await;
        assert_eq!((seen.status, seen.at("/code")), (status, code.as_str().into()));
        assert_eq!(seen.at("/retryable"), code.is_retryable());
    }
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_back_and_probes_are_not() {
    let bench = Arc::new(bench_with(|options| options.limits.requests_max = 2));
    bench.node.gate.forget_permits(1_000);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let bench = Arc::clone(&bench);
            tokio::task::spawn(async move { bench.post(DISPATCH, READ).await.status })
        })
        .collect();
    let full = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let seen = bench.get("/api/runtime-cloud/state").await;
            if seen.status != StatusCode::OK {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    });
    let full = full.await.expect("the third is refused");
    assert_eq!((full.status, full.at("/code")), (StatusCode::SERVICE_UNAVAILABLE, "server_busy".into()));
    assert_eq!((full.header("retry-after"), full.at("/retryable")), ("1", true.into()));
    assert_eq!(bench.get("/livez").await.status, StatusCode::OK);
    bench.node.gate.add_permits(2);
    for task in waiting {
        assert_eq!(task.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(bench.get("/api/runtime-cloud/state").await.status, StatusCode::OK);
}
