//! The node's own bearer tokens: what each may do and for whom, until it expires or is taken away.

use axum::http::StatusCode;
use trust_runtime::domain::identity::Role;
use trust_runtime::domain::identity::token::{self, Audience, TokenId, TokenRecord, Tokens};
use trust_runtime::domain::time::{Millis, Wall};

use crate::fleet::{NOW_NS, READ, bench, post};

const PREFLIGHT: &str = "/api/runtime-cloud/actions/preflight";
const RELOAD: &str = "/api/runtime-cloud/control/reload";

fn presenting(token: &str, path: &str, body: impl Into<String>) -> axum::http::Request<axum::body::Body> {
    let mut request = post(path, body);
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn a_token_is_bound_to_its_role_its_actor_and_its_time() {
    let bench = bench();
    let text = token::compose(TokenId::from_bits(7), &[3; 32]);
    let record = TokenRecord {
        id: TokenId::from_bits(7),
        digest: token::digest(text.as_bytes()),
        role: Role::Operator,
        audience: Audience::default(),
        actor: "site-1/alice".parse().unwrap(),
        created: Wall(0),
        expires: Some(Wall(NOW_NS).plus(Millis(1_000))),
        note: String::new(),
    };
    let tokens = Tokens::new(vec![record], &"site-1".parse().unwrap()).unwrap();
    let ask = async |actor: &str, action: &str, payload: &str| {
        let mut body: serde_json::Value = serde_json::from_str(READ).unwrap();
        body["actor"] = actor.into();
        body["action_type"] = action.into();
        body["payload"] = serde_json::from_str(payload).unwrap();
        let seen = bench.send(presenting(&text, PREFLIGHT, body.to_string())).await;
        let code = seen.json()["denial_code"].as_str().map(str::to_owned);
        (seen.status, code)
    };
    let alice = "spiffe://trust/site-1/alice";
    let ping = r#"{"command":"ping"}"#;
    assert_eq!(ask(alice, "cmd_invoke", ping).await.0, StatusCode::UNAUTHORIZED, "not known yet");
    bench.options.credentials.replace_tokens(tokens);
    assert_eq!(ask(alice, "cmd_invoke", ping).await, (StatusCode::OK, None));
    let level = r#"{"params":{"log.level":"debug"}}"#;
    assert_eq!(ask(alice, "cfg_apply", level).await.1.as_deref(), Some("acl_denied_cfg_write"));
    for other in ["spiffe://trust/site-1/bob", "spiffe://trust/site-1/admin", "spiffe://other/site-1/alice"] {
        assert_eq!(ask(other, "cmd_invoke", ping).await.1.as_deref(), Some("permission_denied"), "{other}");
    }
    assert_eq!(bench.send(presenting(&text, RELOAD, "{}")).await.status, StatusCode::FORBIDDEN);
    assert!(bench.options.credentials.uses().contains_key(&TokenId::from_bits(7)));
    bench.node.pass(1_000);
    assert_eq!(ask(alice, "cmd_invoke", ping).await.0, StatusCode::UNAUTHORIZED, "expired");
}
