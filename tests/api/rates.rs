//! How often a credential may act and read, and what guessing brings: the clock is moved by hand.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;
use trust_runtime::domain::identity::Role;
use trust_runtime::domain::identity::token::{self, Audience, TokenId, TokenRecord, Tokens};
use trust_runtime::domain::time::Wall;
use trust_runtime::web::{ADMIN_ROUTES, Access, Class, Limits, ROUTES, Rate, Surface};

use crate::access::request;
use crate::fleet::{Bench, READ, Seen, TOKEN, bench_with, get, post};

const STATE: &str = "/api/runtime-cloud/state";
const DISPATCH: &str = "/api/runtime-cloud/actions/dispatch";
const PREFLIGHT: &str = "/api/runtime-cloud/actions/preflight";
const BUSY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
const TOO_OFTEN: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const ACTS: usize = 3;
const READS: usize = 4;

fn slow() -> Bench {
    slow_as(Surface::Public)
}

fn slow_as(surface: Surface) -> Bench {
    bench_with(|options| {
        options.surface = surface;
        options.limits.acts = Rate { burst: 3, per_second: 1 };
        options.limits.reads = Rate { burst: 4, per_second: 2 };
        options.limits.bad_credentials = Rate { burst: 3, per_second: 1 };
    })
}

fn with_token(mut request: Request<Body>, token: &str) -> Request<Body> {
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn asking(path: &str, token: &str) -> Request<Body> {
    with_token(get(path).body(Body::empty()).unwrap(), token)
}

/// A read of so many runtimes' status.
fn dispatching(token: &str, targets: usize) -> Request<Body> {
    let targets: Vec<_> = (0..targets).map(|number| format!("n{number}")).collect();
    let body = json!({
        "api_version": "1.0", "request_id": "r-1", "connected_via": "a", "target_runtimes": targets,
        "actor": "spiffe://trust/site-1/admin", "action_type": "status_read",
    });
    with_token(post(DISPATCH, body.to_string()), token)
}

/// How many of ten requests are answered, and the last answer.
async fn ten_of(bench: &Bench, request: impl Fn() -> Request<Body>) -> (usize, Seen) {
    let mut answered = 0;
    let mut last = bench.send(request()).await;
    for _ in 0..9 {
        answered += usize::from(last.status == StatusCode::OK);
        last = bench.send(request()).await;
    }
    (answered + usize::from(last.status == StatusCode::OK), last)
}

/// The same of reads with this token.
async fn ten(bench: &Bench, token: &str) -> (usize, Seen) {
    ten_of(bench, || asking(STATE, token)).await
}

/// Two tokens that this node knows, for viewers.
fn viewers(bench: &Bench) -> [String; 2] {
    let texts = [1, 2].map(|bits| token::compose(TokenId::from_bits(bits), &[3; 32]));
    let record = |bits: u32, text: &str| TokenRecord {
        id: TokenId::from_bits(bits),
        digest: token::digest(text.as_bytes()),
        role: Role::Viewer,
        audience: Audience::default(),
        actor: "site-1/*".parse().unwrap(),
        created: Wall(0),
        expires: None,
        note: String::new(),
    };
    let records = vec![record(1, &texts[0]), record(2, &texts[1])];
    bench.options.credentials.replace_tokens(Tokens::new(records, &"site-1".parse().unwrap()).unwrap());
    texts
}

/// Where no credential is asked for there is none to count by, and everywhere else one is counted. What has a body does
/// something with it.
#[test]
fn every_route_says_what_it_is_counted_as() {
    for route in ROUTES.iter().chain(&ADMIN_ROUTES) {
        let expected = match (route.access, route.method) {
            (Access::Anyone, _) => Class::Free,
            (Access::AnyoneOrMore | Access::Least(_), "POST") => Class::Act,
            (Access::AnyoneOrMore | Access::Least(_), _) => Class::Read,
        };
        assert_eq!(route.class, expected, "{} {}", route.method, route.path);
    }
}

#[tokio::test]
async fn every_route_is_counted_as_it_says() {
    for route in &ROUTES {
        let bench = slow();
        let mut statuses = Vec::new();
        for _ in 0..ACTS.max(READS) + 1 {
            // A stream has no end to wait for.
            statuses.push(bench.app.answer(with_token(request(route), TOKEN)).await.status());
        }
        let expected = match route.class {
            Class::Act => ACTS,
            Class::Free => statuses.len(),
            Class::Read => READS,
        };
        let answered = statuses.iter().take_while(|status| **status != TOO_OFTEN).count();
        assert_eq!(answered, expected, "{} {}: {statuses:?}", route.method, route.path);
    }
}

#[tokio::test]
async fn a_credential_that_asks_too_often_waits_alone() {
    let bench = slow();
    let [first, second] = viewers(&bench);
    let (answered, last) = ten(&bench, &first).await;
    assert_eq!(answered, READS);
    assert_eq!((last.status, last.at("/code"), last.header("retry-after")), (TOO_OFTEN, "server_busy".into(), "1"));
    assert!(last.at("/detail").as_str().unwrap().contains("runtime.web.reads_per_s"), "{}", last.text());
    assert_eq!(last.header("connection"), "", "an honest client keeps its connection");
    for other in [second.as_str(), TOKEN] {
        assert_eq!(ten(&bench, other).await.0, READS, "{other}");
    }
    for _ in 0..READS {
        assert_eq!(bench.get(STATE).await.status, StatusCode::OK, "without a credential, from this machine");
    }
    assert_eq!(bench.get(STATE).await.status, TOO_OFTEN);
    bench.node.pass(1_000);
    assert_eq!(ten(&bench, &first).await.0, 2, "what Retry-After promised");
}

#[tokio::test]
async fn a_flood_of_dispatches_is_held_back_and_its_reads_and_the_acts_of_others_go_on() {
    let bench = slow();
    let [flooding, other] = viewers(&bench);
    let (answered, last) = ten_of(&bench, || dispatching(&flooding, 1)).await;
    assert_eq!((answered, bench.node.dispatched.lock().unwrap().len()), (ACTS, ACTS));
    assert_eq!((last.status, last.at("/code"), last.header("retry-after")), (TOO_OFTEN, "server_busy".into(), "1"));
    assert_eq!(last.header("content-type"), "application/problem+json");
    assert!(last.at("/detail").as_str().unwrap().contains("runtime.web.acts_per_s"), "{}", last.text());
    assert_eq!(bench.send(with_token(post(PREFLIGHT, READ), &flooding)).await.status, TOO_OFTEN, "judging is an act");
    assert_eq!(ten(&bench, &flooding).await.0, READS, "it still sees what became of them");
    assert_eq!(ten_of(&bench, || dispatching(&other, 1)).await.0, ACTS);
    bench.node.pass(1_000);
    assert_eq!(ten_of(&bench, || dispatching(&flooding, 1)).await.0, 1, "what Retry-After promised");
}

#[tokio::test]
async fn an_error_of_the_runs_api_has_its_form_here_too() {
    let bench = slow();
    let (_, last) = ten_of(&bench, || with_token(post("/agents/nobody/x", "{}"), TOKEN)).await;
    assert_eq!(
        (last.status, last.at("/error/type"), last.header("retry-after")),
        (TOO_OFTEN, "server_busy".into(), "1")
    );
}

/// A dispatch leaves a record for each of its targets, and a thousand of them are no cheaper in one request than in as many.
#[tokio::test]
async fn a_dispatch_counts_once_for_each_of_its_targets() {
    let bench = slow();
    let [first, second] = viewers(&bench);
    let dispatch = async |token: &str, targets| {
        let seen = bench.send(dispatching(token, targets)).await;
        (seen.status, seen.header("retry-after").to_owned())
    };
    let let_through = (StatusCode::OK, String::new());
    let later = |seconds: &str| (TOO_OFTEN, seconds.to_owned());
    assert_eq!(dispatch(&first, 10).await, let_through, "a fan-out is let through however large it is");
    assert_eq!(dispatch(&first, 1).await, later("8"), "and seven are owed");
    assert_eq!(dispatch(&second, 1).await, let_through, "by that credential alone");
    bench.node.pass(7_000);
    assert_eq!(dispatch(&first, 1).await, later("1"));
    bench.node.pass(1_000);
    assert_eq!(dispatch(&first, 1).await, let_through, "what Retry-After promised");
    assert_eq!(bench.node.dispatched.lock().unwrap().len(), 3);
    bench.node.pass(60_000);
    let dry = async || {
        let mut body: serde_json::Value = serde_json::from_str(READ).unwrap();
        body["dry_run"] = true.into();
        body["target_runtimes"] = (0..10).map(|number| format!("n{number}")).collect::<Vec<_>>().into();
        body["actor"] = "spiffe://trust/site-1/admin".into();
        bench.send(with_token(post(DISPATCH, body.to_string()), &first)).await
    };
    for _ in 0..ACTS {
        let seen = dry().await;
        assert_eq!((seen.status, seen.at("/dry_run")), (StatusCode::OK, true.into()), "a question is one");
    }
    assert_eq!(dry().await.status, TOO_OFTEN);
}

#[tokio::test]
async fn what_is_too_much_has_no_effect() {
    let bench = slow();
    let reload = || bench.post("/api/runtime-cloud/control/reload", "{}");
    for _ in 0..ACTS {
        assert_eq!(reload().await.status, StatusCode::FORBIDDEN, "what is refused counts too");
    }
    assert_eq!(reload().await.status, TOO_OFTEN);
    let dispatch = bench.post(DISPATCH, READ).await;
    assert_eq!(dispatch.status, TOO_OFTEN);
    assert_eq!(bench.node.dispatched.lock().unwrap().len(), 0);
    assert_eq!(bench.node.recorded.lock().unwrap().len(), ACTS, "and does not fill the audit log");
}

/// Whoever may not read leaves a record each time, and reads may be many.
#[tokio::test]
async fn a_read_that_is_refused_counts_as_an_act() {
    let bench = slow_as(Surface::Admin { mount: String::new() });
    let [viewer, _] = viewers(&bench);
    let refused = async || bench.send(asking("/runs", &viewer)).await.status;
    for _ in 0..ACTS {
        assert_eq!(refused().await, StatusCode::FORBIDDEN);
    }
    for _ in 0..5 {
        assert_eq!(refused().await, TOO_OFTEN);
    }
    assert_eq!(bench.node.recorded.lock().unwrap().len(), ACTS);
}

#[tokio::test]
async fn probes_and_descriptions_are_not_counted() {
    let bench = slow();
    assert_eq!(ten(&bench, TOKEN).await.1.status, TOO_OFTEN);
    for path in ["/livez", "/readyz", "/", "/openapi.json"] {
        for _ in 0..50 {
            assert_eq!(bench.send(asking(path, TOKEN)).await.status, StatusCode::OK, "{path}");
            assert_eq!(bench.send(asking(path, "guess")).await.status, StatusCode::OK, "{path}");
        }
    }
}

#[tokio::test]
async fn guessing_is_slowed_and_the_right_token_is_let_in_all_the_while() {
    let bench = slow();
    let mut last_words = BTreeSet::new();
    for number in 0..50 {
        let guessed = bench.send(asking(STATE, &format!("guess-{number}"))).await;
        let expected = if number < 3 { StatusCode::UNAUTHORIZED } else { BUSY };
        assert_eq!((guessed.status, guessed.header("connection")), (expected, "close"), "guess {number}");
        if 3 <= number {
            assert_eq!((guessed.header("retry-after"), guessed.at("/code")), ("1", "server_busy".into()));
            last_words.insert(guessed.at("/detail").to_string());
        }
    }
    assert_eq!(last_words.len(), 1);
    assert_eq!(ten(&bench, TOKEN).await.0, READS, "its own limit and no other");
    let nobody = Request::get(STATE).header("host", "localhost").body(Body::empty()).unwrap();
    let seen = bench.send(nobody).await;
    assert_eq!(
        seen.status,
        StatusCode::UNAUTHORIZED,
        "whoever presents nothing does not guess and is told what is wanted"
    );
    bench.node.pass(1_000);
    let guess = async || bench.send(asking(STATE, "guess")).await.status;
    assert_eq!((guess().await, guess().await), (StatusCode::UNAUTHORIZED, BUSY));
}

/// A whole office of panels: 64 callers with one token who ask without a pause, 50 times each within one moment.
#[tokio::test]
async fn nobody_honest_meets_the_limit() {
    let bench = bench_with(|options| options.limits = Limits::default());
    for number in 0..64 * 50 {
        let seen = bench.send(asking("/api/runtime-cloud/config", TOKEN)).await;
        assert_eq!(seen.status, StatusCode::OK, "request {number}");
    }
}
