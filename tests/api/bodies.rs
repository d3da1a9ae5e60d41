//! Bodies that the contract refuses, and how: H5, H9 and H12 of the test table, and the checks of *preflight*.

use axum::body::Body;
use axum::http::StatusCode;

use crate::fleet::{READ, Seen, bench, post};

const PREFLIGHT: &str = "/api/runtime-cloud/actions/preflight";
const DISPATCH: &str = "/api/runtime-cloud/actions/dispatch";

/// A good body with one member replaced or, if the text is empty, taken away.
fn with(member: &str, json: &str) -> String {
    let rest: Vec<String> = members(member).into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let added = if json.is_empty() { String::new() } else { format!(",\"{member}\":{json}") };
    format!("{{{}{added}}}", rest.join(","))
}

fn members(without: &str) -> Vec<(&'static str, &'static str)> {
    let all = [
        ("api_version", "\"1.0\""),
        ("request_id", "\"r-1\""),
        ("connected_via", "\"a\""),
        ("target_runtimes", "[\"b\"]"),
        ("actor", "\"spiffe://trust/site-1/engineer-1\""),
        ("action_type", "\"status_read\""),
    ];
    all.into_iter().filter(|(name, _)| *name != without).collect()
}

async fn check_fault(body: &str, pointer: &str) -> Seen {
    let bench = bench();
    let seen = bench.post(PREFLIGHT, body).await;
    let shown: String = body.chars().take(300).collect();
    assert_eq!(seen.status, StatusCode::BAD_REQUEST, "{shown}: {}", seen.text());
    assert_eq!(seen.header("content-type"), "application/problem+json");
    assert_eq!(seen.at("/code"), "contract_violation", "{shown}");
    assert_eq!(seen.at("/errors/0/pointer"), pointer, "{shown}: {}", seen.text());
    assert!(seen.body.len() < 4_096, "an error is short");
    let dispatched = bench.post(DISPATCH, body).await;
    assert_eq!(dispatched.status, StatusCode::BAD_REQUEST, "{shown}");
    assert!(bench.node.dispatched.lock().unwrap().is_empty());
    seen
}

async fn check_denial(body: &str, code: &str) -> Seen {
    let bench = bench();
    let seen = bench.post(PREFLIGHT, body).await;
    assert_eq!(seen.status, StatusCode::OK, "{body}: {}", seen.text());
    assert_eq!((seen.at("/allowed"), seen.at("/denial_code")), (false.into(), code.into()), "{body}");
    for decision in seen.at("/decisions").as_array().unwrap() {
        assert_eq!(decision["denial_code"], code, "{body}");
        assert!(decision["remediation"].is_string());
    }
    let dispatched = bench.post(DISPATCH, body).await;
    assert_eq!((dispatched.at("/ok"), dispatched.at("/preflight/denial_code")), (false.into(), code.into()), "{body}");
    assert_eq!(bench.node.dispatched.lock().unwrap().len(), 0);
    assert_eq!(bench.node.recorded.lock().unwrap().len(), 1, "a refused dispatch is on record");
    seen
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    for body in ["", "{", "nonsense", "[1,2", "{}x", "{'a':1}", "\u{feff}{}"] {
        let bench = bench();
        assert_eq!(bench.post(PREFLIGHT, body).await.status, StatusCode::BAD_REQUEST, "{body:?}");
    }
    let trailing = format!("{READ} {READ}");
    check_fault(&trailing, "").await;
    check_fault("[]", "").await;
    check_fault("\"text\"", "").await;
    let mut binary = post(PREFLIGHT, "");
    *binary.body_mut() = Body::from(vec![0xff, 0xfe, 0x00]);
    assert_eq!(bench().send(binary).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn every_missing_member_is_named() {
    for (name, _) in members("") {
        check_fault(&with(name, ""), &format!("/{name}")).await;
    }
}

#[tokio::test]
async fn a_wrong_type_is_named() {
    for (name, _) in members("") {
        for json in ["1", "null", "{}", "true"] {
            check_fault(&with(name, json), &format!("/{name}")).await;
        }
    }
    for (name, json) in [
        ("query_budget_ms", "null"),
        ("query_budget_ms", "\"1\""),
        ("query_budget_ms", "1.5"),
        ("query_budget_ms", "-1"),
        ("query_budget_ms", "0"),
        ("query_budget_ms", "10001"),
        ("dry_run", "null"),
        ("dry_run", "\"true\""),
        ("payload", "null"),
        ("payload", "[]"),
        ("plan_hash", "null"),
    ] {
        check_fault(&with(name, json), &format!("/{name}")).await;
    }
    check_fault(&with("target_runtimes", "[\"b\",1]"), "/target_runtimes/1").await;
}

#[tokio::test]
async fn an_unknown_member_is_refused_by_name() {
    let seen = check_fault(&with("targets", "1"), "/targets").await;
    assert!(seen.text().contains("targets"), "{}", seen.text());
    let seen = bench().post(PREFLIGHT, with("plan_hash", "\"x\"")).await;
    assert_eq!((seen.status, seen.at("/errors/0/pointer")), (StatusCode::BAD_REQUEST, "/plan_hash".into()));
}

#[tokio::test]
async fn targets_are_1_to_1000_and_unique_after_qualification() {
    let list = |count: usize| {
        let names: Vec<_> = (0..count).map(|number| format!("\"n{number}\"")).collect();
        with("target_runtimes", &format!("[{}]", names.join(",")))
    };
    check_fault(&list(0), "/target_runtimes").await;
    check_fault(&list(1_001), "/target_runtimes").await;
    let seen = bench().post(PREFLIGHT, list(1_000)).await;
    assert_eq!(seen.at("/decisions").as_array().unwrap().len(), 1_000);
    let seen = check_fault(&with("target_runtimes", r#"["b","b"]"#), "/target_runtimes/1").await;
    assert_eq!(seen.at("/request_id"), "r-1", "a fault names the request where its name could be read");
    check_fault(&with("target_runtimes", r#"["b","c","site-1/b"]"#), "/target_runtimes/2").await;
    check_fault(&with("target_runtimes", r#"["a b","a b"]"#), "/target_runtimes/1").await;
    let seen = bench().post(PREFLIGHT, with("target_runtimes", r#"["b","site-2/b"]"#)).await;
    assert_eq!(seen.at("/acting_on"), serde_json::json!(["b", "site-2/b"]));
}

#[tokio::test]
async fn what_the_contract_forbids_is_denied_for_every_target() {
    let two = with("target_runtimes", r#"["b","site-1/c"]"#);
    for (member, json) in [
        ("api_version", "\"2.0\""),
        ("api_version", "\"\""),
        ("api_version", "\"1.0.0\""),
        ("api_version", "\"01.0\""),
        ("connected_via", "\"b\""),
        ("connected_via", "\"\""),
        ("connected_via", "\"site-2/a\""),
        ("request_id", "\"\""),
        ("actor", "\"\""),
        ("actor", "\"engineer-1\""),
        ("actor", "\"spiffe://trust/site-1/runtime/b\""),
        ("actor", "\"spiffe://TRUST/site-1/x\""),
        ("actor", "\"spiffe://trust/site-1/x/\""),
        ("action_type", "\"\""),
        ("action_type", "\"reboot\""),
    ] {
        let member_json = format!("\"{member}\":{json}");
        let old = members("").into_iter().find(|(name, _)| *name == member).unwrap();
        let body = two.replace(&format!("\"{}\":{}", old.0, old.1), &member_json);
        assert_ne!(body, two, "{member}");
        let seen = check_denial(&body, "contract_violation").await;
        assert_eq!(seen.at("/decisions").as_array().unwrap().len(), 2, "{body}");
        assert_eq!(seen.at("/acting_on"), serde_json::json!(["b", "c"]));
    }
    for targets in [r#"[""]"#, r#"["b",""]"#, r#"["b","a b"]"#, r#"["b/c/d","b"]"#] {
        check_denial(&with("target_runtimes", targets), "contract_violation").await;
    }
    for version in ["\"1\"", "\"1.7\""] {
        let seen = bench().post(PREFLIGHT, with("api_version", version)).await;
        assert_eq!(seen.at("/allowed"), true, "{version}");
    }
}

#[tokio::test]
async fn payloads_are_held_to_their_action() {
    let asking = |kind: &str, payload: &str| {
        with("action_type", &format!("\"{kind}\""))
            .replace("\"api_version\"", &format!("\"payload\":{payload},\"api_version\""))
    };
    for (kind, payload, pointer) in [
        ("status_read", r#"{"params":{}}"#, "/payload/params"),
        ("cfg_apply", "{}", "/payload/params"),
        ("cfg_apply", r#"{"params":[]}"#, "/payload/params"),
        ("cfg_apply", r#"{"params":{"log.level":"debug"},"desired":1}"#, "/payload/desired"),
        ("cmd_invoke", "{}", "/payload/command"),
        ("cmd_invoke", r#"{"command":1}"#, "/payload/command"),
        ("cmd_invoke", r#"{"command":"ping","args":[]}"#, "/payload/args"),
        ("cmd_invoke", r#"{"command":"ping","params":null}"#, "/payload/params"),
        ("cmd_invoke", r#"{"command":"ping","ha":1}"#, "/payload/ha"),
    ] {
        check_fault(&asking(kind, payload), pointer).await;
    }
    check_denial(&asking("cfg_apply", r#"{"params":{}}"#), "contract_violation").await;
    check_denial(&asking("cmd_invoke", r#"{"command":"a b"}"#), "contract_violation").await;
    check_denial(&asking("cmd_invoke", r#"{"command":"ping","ha":{"profile":"dual_host"}}"#), "not_configured").await;
    for (kind, payload, code) in [
        ("cfg_apply", r#"{"params":{"log.level":7}}"#, "schema_mismatch"),
        ("cfg_apply", r#"{"params":{"log.level":null}}"#, "schema_mismatch"),
        ("cfg_apply", r#"{"params":{"no.such":1}}"#, "schema_mismatch"),
        ("cfg_apply", r#"{"params":{"web.listen":"x"}}"#, "acl_denied_cfg_write"),
        ("cmd_invoke", r#"{"command":"restart"}"#, "not_configured"),
        ("cmd_invoke", r#"{"command":"nonsense"}"#, "contract_violation"),
    ] {
        let seen = bench().post(PREFLIGHT, asking(kind, payload)).await;
        assert_eq!(seen.at("/denial_code"), code, "{kind} {payload}: {}", seen.text());
    }
}

#[tokio::test]
async fn command_parameters_reach_the_node_as_canonical_json() {
    let bench = bench();
    let params = r#"{"b":[1,{"y":2,"x":"\u00e4"}],"a":1.50}"#;
    let payload = format!(r#""action_type":"cmd_invoke","payload":{{"command":"ping","params":{params}}}"#);
    bench.post(DISPATCH, READ.replace(r#""action_type":"status_read""#, &payload)).await;
    let dispatched = bench.node.dispatched.lock().unwrap();
    let action = &dispatched.first().expect("dispatched").action;
    assert_eq!(action.parameter("a").as_deref(), Some("1.5"));
    assert_eq!(action.parameter("b").as_deref(), Some(r#"[1,{"x":"ä","y":2}]"#));
}

#[tokio::test]
async fn hostile_json_is_refused_within_bounds() {
    let nested = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep = with("payload", &format!(r#"{{"params":{nested}}}"#));
    check_fault(&deep, &format!("/payload/params{}", "/0".repeat(121))).await;
    let twice = format!("{{\"actor\":\"spiffe://trust/site-1/x\",{}", &READ[1..]);
    check_fault(&twice, "/actor").await;
    let apply = |payload: &str| with("payload", payload).replace("status_read", "cfg_apply");
    check_fault(&apply(r#"{"params":{"log.level":"info","log.level":"debug"}}"#), "/payload/params").await;
    check_fault(&apply(r#"{"params":{"a":[{"x":1,"x":1}]}}"#), "/payload/params/a/0").await;
    check_fault(&apply(r#"{"params":{"x":1e400}}"#), "/payload/params/x").await;
    check_fault(&with("request_id", r#""\ud800""#), "/request_id").await;
    check_fault(&apply(r#"{"params":{"\udead":1}}"#), "/payload/params").await;
    let keys: Vec<_> = (0..20_000).map(|number| format!("\"k{number}\":1")).collect();
    let many = with("action_type", "\"cfg_apply\"")
        .replace("\"api_version\"", &format!("\"payload\":{{\"params\":{{{}}}}},\"api_version\"", keys.join(",")));
    assert!(many.len() < 262_144);
    check_denial(&many, "contract_violation").await;
}

#[tokio::test]
async fn control_and_bidi_characters_are_refused_in_every_name() {
    for evil in [r"a\r\nb", r"a\u202eb", r"a\u0000b", r"a\u2066b", "a b"] {
        check_fault(&with("request_id", &format!("\"{evil}\"")), "/request_id").await;
        check_fault(&with("request_id", &format!("\"{}\"", "r".repeat(129))), "/request_id").await;
        check_denial(&with("actor", &format!("\"spiffe://trust/site-1/{evil}\"")), "contract_violation").await;
        check_denial(&with("connected_via", &format!("\"{evil}\"")), "contract_violation").await;
        check_denial(&with("action_type", &format!("\"{evil}\"")), "contract_violation").await;
        let seen = check_denial(&with("target_runtimes", &format!("[\"b\",\"{evil}\"]")), "contract_violation").await;
        assert!(!seen.text().contains(['\r', '\n', '\0', '\u{202e}', '\u{2066}']), "{}", seen.text());
    }
}

#[tokio::test]
async fn only_json_is_read() {
    let bench = bench();
    for (content_type, status) in [
        ("application/json", StatusCode::OK),
        ("application/json; charset=utf-8", StatusCode::OK),
        ("Application/JSON", StatusCode::OK),
        ("text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/x-www-form-urlencoded", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/jsonx", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let mut request = post(PREFLIGHT, READ);
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        assert_eq!(bench.send(request).await.status, status, "{content_type}");
    }
    let mut request = post(PREFLIGHT, READ);
    request.headers_mut().remove("content-type");
    assert_eq!(bench.send(request).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut request = post(PREFLIGHT, READ);
    request.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    assert_eq!(bench.send(request).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut request = post("/livez", "");
    request.headers_mut().insert("x-http-method-override", "GET".parse().unwrap());
    assert_eq!(bench.send(request).await.status, StatusCode::METHOD_NOT_ALLOWED, "an override header does nothing");
}

#[tokio::test]
async fn a_body_ends_at_its_limit() {
    let limit = 256 * 1_024;
    let padded = |size: usize| format!("{READ}{}", " ".repeat(size - READ.len()));
    assert_eq!(bench().post(PREFLIGHT, padded(limit)).await.status, StatusCode::OK);
    let seen = bench().post(PREFLIGHT, padded(limit + 1)).await;
    assert_eq!((seen.status, seen.at("/code")), (StatusCode::PAYLOAD_TOO_LARGE, "contract_violation".into()));
    assert_eq!(seen.header("connection"), "close");
    let mut declared = post(PREFLIGHT, READ);
    declared.headers_mut().insert("content-length", (limit + 1).into());
    assert_eq!(bench().send(declared).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}
