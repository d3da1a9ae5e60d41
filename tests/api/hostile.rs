//! Text that deceives whoever reads it, and paths that mean another one: H9, H11 and H12 of the test table (reference,
//! *security* 7), where bodies and guards do not show them already.

use axum::http::StatusCode;

use crate::fleet::{Bench, READ, TOKEN, bench};
use crate::sockets::{serve, status};

const PREFLIGHT: &str = "/api/runtime-cloud/actions/preflight";
const DISPATCH: &str = "/api/runtime-cloud/actions/dispatch";
const CONTROL: &str = "/api/runtime-cloud/control";

/// As JSON writes them, and as a query does.
const EVIL: [(&str, &str); 6] = [
    (r"a\r\nb", "a%0D%0Ab"),
    (r"a\u0000b", "a%00b"),
    (r"a\u001b[2Jb", "a%1B%5B2Jb"),
    (r"a\u202eb", "a%E2%80%AEb"),
    (r"a\u2066b", "a%E2%81%A6b"),
    (r"a\u2028b", "a%E2%80%A8b"),
];

/// Whether a reader could be shown something else than what is there.
fn deceives(text: &str) -> bool {
    text.contains(|it: char| it.is_control() || matches!(it, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

#[track_caller]
fn check_clean(bench: &Bench, answer: &str, asked: &str) {
    assert!(!deceives(answer), "{asked}: {answer:?}");
    for draft in bench.node.recorded.lock().unwrap().iter() {
        for text in [&draft.actor, &draft.action, &draft.detail] {
            assert!(!deceives(text), "{asked}: on record as {text:?}");
        }
    }
    assert!(bench.node.controlled.lock().unwrap().is_empty(), "{asked}");
}

#[tokio::test]
async fn deceiving_characters_are_refused_in_actions_and_never_sent_back() {
    let apply = READ.replace("status_read", "cfg_apply");
    let invoke = READ.replace("status_read", "cmd_invoke");
    let paying = |body: &str, payload: &str| body.replacen('{', &format!("{{\"payload\":{payload},"), 1);
    for (evil, _) in EVIL {
        for body in [
            READ.replacen("1.0", evil, 1),
            READ.replacen('{', &format!("{{\"plan_hash\":\"{evil}\","), 1),
            READ.replacen('{', &format!("{{\"{evil}\":1,"), 1),
            paying(&apply, &format!(r#"{{"params":{{"{evil}":1}}}}"#)),
            paying(&apply, &format!(r#"{{"params":{{"agent.{evil}":1}}}}"#)),
            paying(&apply, &format!(r#"{{"params":{{"log.level":"{evil}"}}}}"#)),
            paying(&apply, &format!(r#"{{"params":{{"log.level":["{evil}"]}}}}"#)),
            paying(&apply, &format!(r#"{{"{evil}":1,"params":{{"log.level":"info"}}}}"#)),
            paying(&invoke, &format!(r#"{{"command":"{evil}"}}"#)),
            paying(&invoke, &format!(r#"{{"command":"ping","{evil}":1}}"#)),
            paying(&invoke, &format!(r#"{{"command":"ping","ha":{{"profile":"{evil}"}}}}"#)),
        ] {
            for path in [PREFLIGHT, DISPATCH] {
                let bench = bench();
                let seen = bench.post(path, &*body).await;
                let allowed = seen.at(if path == DISPATCH { "/ok" } else { "/allowed" });
                assert!(seen.status.is_client_error() || allowed == false, "{path} {body}: {}", seen.text());
                check_clean(&bench, seen.text(), &body);
            }
        }
    }
}

#[tokio::test]
async fn deceiving_characters_are_refused_in_control_and_queries_too() {
    for (evil, escaped) in EVIL {
        for (verb, body) in [
            ("reload", format!(r#"{{"{evil}":1}}"#)),
            ("shutdown", format!(r#"{{"api_version":"{evil}"}}"#)),
            ("peers-approve", format!(r#"{{"runtime_id":"{evil}"}}"#)),
            ("peers-approve", format!(r#"{{"runtime_id":"b","fingerprint":"{evil}"}}"#)),
            ("peers-forget", format!(r#"{{"runtime_id":"{evil}"}}"#)),
        ] {
            let bench = bench();
            let seen = bench.post_as_admin(&format!("{CONTROL}/{verb}"), &*body).await;
            assert_eq!(seen.status, StatusCode::BAD_REQUEST, "{verb} {body}: {}", seen.text());
            check_clean(&bench, seen.text(), &body);
        }
        for query in ["request_id", "actor", "action", "target", "since", "until", "limit", "cursor"]
            .map(|name| format!("{name}={escaped}"))
            .into_iter()
            .chain([format!("{escaped}=1")])
        {
            let bench = bench();
            let seen = bench.get(&format!("/api/runtime-cloud/audit?{query}")).await;
            // A name that nobody can have is no fault in a filter: it finds nothing.
            let finds_nothing = ["request_id", "actor", "action"].iter().any(|name| query.starts_with(name));
            let expected = if finds_nothing { StatusCode::OK } else { StatusCode::BAD_REQUEST };
            assert_eq!(seen.status, expected, "{query}: {}", seen.text());
            check_clean(&bench, seen.text(), &query);
        }
    }
}

/// As they come over the wire, where nothing has put them in order before.
#[tokio::test]
async fn no_other_writing_of_a_path_is_a_route() {
    let served = serve(|_| {}).await;
    for path in [
        "//livez",
        "/./livez",
        "/x/../livez",
        "/x/%2e%2e/livez",
        "/%2e/livez",
        "/livez/",
        "/livez//",
        "/livez;x=1",
        "/livez%00",
        "/livez%0d%0aX: y",
        "/LIVEZ",
        "/livez%20",
        "/%6civez",
        "\\livez",
        "/\\livez",
        "/livez\\",
        "/api%2fruntime-cloud%2fstate",
        "/api/runtime-cloud\\state",
        "/api/runtime-cloud/actions/../state",
        "livez",
        "*",
        "",
        "/liv\u{0435}z",
    ] {
        let answer = served
            .say(&format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n",
                served.addr
            ))
            .await;
        assert!([400, 404].contains(&status(&answer)), "{path:?}: {answer}");
        assert!(!answer.contains("nodes"), "{path:?}: {answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(60_000), served.addr);
    assert!([400, 404, 414].contains(&status(&served.say(&long).await)));
}

/// Memory is not set aside for what is only announced: the answer comes before the body.
#[tokio::test]
async fn a_body_that_is_announced_too_large_is_not_waited_for() {
    let served = serve(|options| options.limits.body_read = crate::sockets::PATIENCE * 3).await;
    for length in ["262145", "1000000000000", "18446744073709551613"] {
        let answer = served.say(&served.dispatch(&format!("Content-Length: {length}\r\n"), "{")).await;
        assert_eq!(status(&answer), 413, "{length}: {answer}");
    }
}
