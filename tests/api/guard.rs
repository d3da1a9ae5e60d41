//! Names, origins and paths: H1 to H6 and H11 of the test table (reference, *security* 7).

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Request, StatusCode};

use crate::fleet::{BOUND, READ, bench, get, loopback};

const STATE: &str = "/api/runtime-cloud/state";

async fn check_host(host: &[&str], expected: StatusCode) {
    let bench = bench();
    for path in [STATE, "/no/such/path", "/livez"] {
        let mut request = Request::get(path).extension(loopback());
        for name in host {
            request = request.header("host", *name);
        }
        let seen = bench.send(request.body(Body::empty()).unwrap()).await;
        let expected = match (path, expected) {
            ("/no/such/path", StatusCode::OK) => StatusCode::NOT_FOUND,
            _ => expected,
        };
        assert_eq!(seen.status, expected, "{host:?} {path}: {}", seen.text());
        if expected.is_client_error() && expected != StatusCode::NOT_FOUND {
            // One look at the view names the problem; a handler or the credential check would take more.
            assert!(bench.node.views.load(Ordering::Relaxed) <= 3, "{host:?} {path} came further than the guard");
            assert_eq!(seen.header("content-type"), "application/problem+json");
        }
    }
    assert!(bench.node.recorded.lock().unwrap().is_empty());
}

#[tokio::test]
async fn foreign_hosts_are_refused_before_anything_else() {
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "2130706433",
        "0.0.0.0",
        "0.0.0.0:8080",
        "[::ffff:127.0.0.1]",
        "localhost@evil",
        "localhost:1",
        "localhost:08080",
        "localhost.",
        "LOCALHOST",
        "Panel.example",
        "panel.example:9000",
        "proxy.example",
    ] {
        check_host(&[host], StatusCode::FORBIDDEN).await;
    }
    check_host(&[], StatusCode::BAD_REQUEST).await;
    check_host(&[""], StatusCode::BAD_REQUEST).await;
    check_host(&["localhost", "localhost"], StatusCode::BAD_REQUEST).await;
    check_host(&["localhost", "evil.example"], StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn own_names_are_answered() {
    for host in [
        "localhost",
        "localhost:8080",
        "127.0.0.1",
        BOUND,
        "[::1]:8080",
        "panel.example",
        "panel.example:8080",
        "proxy.example:9000",
    ] {
        check_host(&[host], StatusCode::OK).await;
    }
}

#[tokio::test]
async fn the_request_line_and_the_host_header_must_agree() {
    let bench = bench();
    for (uri, host, expected) in [
        ("http://localhost/livez", "localhost", StatusCode::OK),
        ("http://evil.example/livez", "localhost", StatusCode::BAD_REQUEST),
        ("http://localhost/livez", "evil.example", StatusCode::BAD_REQUEST),
        ("http://evil.example/livez", "evil.example", StatusCode::FORBIDDEN),
        ("http://user@localhost/livez", "localhost", StatusCode::BAD_REQUEST),
    ] {
        let request = Request::get(uri).header("host", host).body(Body::empty()).unwrap();
        assert_eq!(bench.send(request).await.status, expected, "{uri} {host}");
    }
    let request = Request::connect("localhost:80").header("host", "localhost:80").body(Body::empty()).unwrap();
    assert_eq!(bench.send(request).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let bench = bench();
    for (name, value, expected) in [
        ("origin", "http://evil.example", StatusCode::FORBIDDEN),
        ("origin", "null", StatusCode::FORBIDDEN),
        ("origin", "", StatusCode::FORBIDDEN),
        ("origin", "http://localhost:3000", StatusCode::FORBIDDEN),
        ("origin", "http://localhost.evil.example", StatusCode::FORBIDDEN),
        ("origin", "ftp://localhost", StatusCode::FORBIDDEN),
        ("origin", "http://localhost", StatusCode::OK),
        ("sec-fetch-site", "cross-site", StatusCode::FORBIDDEN),
        ("sec-fetch-site", "same-site", StatusCode::FORBIDDEN),
        ("sec-fetch-site", "same-origin", StatusCode::OK),
        ("sec-fetch-site", "none", StatusCode::OK),
        ("x-nothing", "", StatusCode::OK),
    ] {
        let request = get(STATE).header(name, value).body(Body::empty()).unwrap();
        assert_eq!(bench.send(request).await.status, expected, "{name}: {value}");
        let mut request = crate::fleet::post("/api/runtime-cloud/actions/preflight", READ);
        request.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(bench.send(request).await.status, expected, "{name}: {value}");
    }
    let upgrade = get(STATE).header("upgrade", "websocket").header("origin", "http://evil.example");
    assert_eq!(bench.send(upgrade.body(Body::empty()).unwrap()).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn only_the_exact_path_is_a_route() {
    let bench = bench();
    for path in [
        "//api/runtime-cloud/state",
        "/api/../api/runtime-cloud/state",
        "/api/%2e%2e/api/runtime-cloud/state",
        "/api/runtime-cloud/state/",
        "/api/runtime-cloud/state;x",
        "/api/runtime-cloud/State",
        "/api/runtime-cloud/stat%65",
        "/api/runtime-cloud/state%00",
        "/api/runtime-cloud",
        "/api/v1",
        "/favicon.ico",
    ] {
        let seen = bench.get(path).await;
        assert_eq!(seen.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(seen.header("content-type"), "application/problem+json");
        assert_eq!(seen.at("/error/type"), "route_not_found", "{path}");
        assert_eq!(seen.at("/code"), "contract_violation");
        assert_eq!(seen.at("/error/message"), seen.at("/detail"));
    }
}

#[tokio::test]
async fn a_known_path_names_its_methods() {
    let bench = bench();
    for (method, path, allow) in [
        ("POST", STATE, "GET, HEAD"),
        ("OPTIONS", STATE, "GET, HEAD"),
        ("GET", "/api/runtime-cloud/actions/dispatch", "POST"),
        ("HEAD", "/api/runtime-cloud/actions/dispatch", "POST"),
        ("DELETE", "/", "GET, HEAD"),
    ] {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let seen = bench.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(seen.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert_eq!(seen.header("allow"), allow, "{method} {path}");
        if method != "HEAD" {
            assert_eq!(seen.at("/error/type"), "method_not_allowed");
        }
    }
    let request = Request::head("/livez").header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(bench.send(request).await.status, StatusCode::OK);
}
