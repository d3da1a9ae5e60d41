//! How many requests a credential may send, and what guessing brings: the clock is moved by hand.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use trust_runtime::domain::identity::Role;
use trust_runtime::domain::identity::token::{self, Audience, TokenId, TokenRecord, Tokens};
use trust_runtime::domain::time::Wall;
use trust_runtime::web::{Limits, Rate};

use crate::fleet::{Bench, Seen, TOKEN, bench_with, get};

const STATE: &str = "/api/runtime-cloud/state";
const BUSY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

fn slow() -> Bench {
    bench_with(|options| {
        options.limits.rate = Rate { burst: 4, per_second: 2 };
        options.limits.bad_credentials = Rate { burst: 3, per_second: 1 };
    })
}

fn asking(path: &str, token: &str) -> Request<Body> {
    get(path).header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap()
}

/// How many of ten requests with this token are answered, and the last answer.
async fn ten(bench: &Bench, token: &str) -> (usize, Seen) {
    let mut answered = 0;
    let mut last = bench.send(asking(STATE, token)).await;
    for _ in 0..9 {
        answered += usize::from(last.status == StatusCode::OK);
        last = bench.send(asking(STATE, token)).await;
    }
    (answered + usize::from(last.status == StatusCode::OK), last)
}

#[tokio::test]
async fn a_credential_that_asks_too_often_waits_alone() {
    let bench = slow();
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
    let (answered, last) = ten(&bench, &texts[0]).await;
    assert_eq!(answered, 4);
    assert_eq!((last.status, last.at("/code"), last.header("retry-after")), (BUSY, "server_busy".into(), "1"));
    assert_eq!(last.header("connection"), "", "an honest client keeps its connection");
    for other in [&texts[1], TOKEN] {
        assert_eq!(ten(&bench, other).await.0, 4, "{other}");
    }
    for _ in 0..4 {
        assert_eq!(bench.get(STATE).await.status, StatusCode::OK, "without a credential, from this machine");
    }
    assert_eq!(bench.get(STATE).await.status, BUSY);
    bench.node.pass(1_000);
    assert_eq!(ten(&bench, &texts[0]).await.0, 2, "what Retry-After promised");
}

#[tokio::test]
async fn what_is_too_much_has_no_effect() {
    let bench = slow();
    let reload = || bench.post("/api/runtime-cloud/control/reload", "{}");
    for _ in 0..4 {
        assert_eq!(reload().await.status, StatusCode::FORBIDDEN, "what is refused counts too");
    }
    assert_eq!(reload().await.status, BUSY);
    let dispatch = bench.post("/api/runtime-cloud/actions/dispatch", crate::fleet::READ).await;
    assert_eq!(dispatch.status, BUSY);
    assert_eq!(bench.node.dispatched.lock().unwrap().len(), 0);
    assert_eq!(bench.node.recorded.lock().unwrap().len(), 4, "and does not fill the audit log");
}

#[tokio::test]
async fn probes_and_descriptions_are_not_counted() {
    let bench = slow();
    assert_eq!(ten(&bench, TOKEN).await.1.status, BUSY);
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
    assert_eq!(ten(&bench, TOKEN).await.0, 4, "its own limit and no other");
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
