//! What a profile promises is asked before each request, whichever route it takes.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use trust_runtime::domain::code::Code;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::web::{ADMIN_ROUTES, Auth, Route, Surface, Unmet};

use crate::access::request;
use crate::fleet::{Bench, TOKEN, bench_with, settings};

/// A node in `plant` without TLS: it would not start like this, and must not go on like this.
fn lacking(surface: Surface) -> Bench {
    let bench = bench_with(|options| {
        options.auth = Auth::Token;
        options.surface = surface;
    });
    bench.node.change(|view| {
        let mut settings = settings(Profile::Plant);
        settings.is_secure = false;
        view.settings = Arc::new(settings);
    });
    bench
}

fn as_admin(route: &Route) -> Request<Body> {
    let mut request = request(route);
    request.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    request
}

#[tokio::test]
async fn no_route_forgets_what_the_profile_promises() {
    for surface in [Surface::Public, Surface::Admin { mount: String::new() }] {
        let routes: &[Route] = if surface == Surface::Public { &trust_runtime::web::ROUTES } else { &ADMIN_ROUTES };
        for route in routes {
            let bench = lacking(surface.clone());
            let (seen, name) = (bench.send(as_admin(route)).await, format!("{} {}", route.method, route.path));
            match route.unmet {
                Unmet::Answered => assert_eq!(seen.status, StatusCode::OK, "{name}: {}", seen.text()),
                Unmet::Told => {
                    assert_eq!(seen.status, StatusCode::OK, "{name}");
                    let place = if route.path.ends_with("dispatch") { "/preflight" } else { "" };
                    assert_eq!(seen.at(&format!("{place}/denial_code")), "not_configured", "{name}");
                }
                Unmet::Refused => {
                    assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE, "{name}: {}", seen.text());
                    assert!(seen.text().contains("not_configured"), "{name}: {}", seen.text());
                }
            }
            let is_told = seen.text().contains("runtime.tls.mode");
            assert_eq!(is_told, route.unmet != Unmet::Answered, "{name} names the setting: {}", seen.text());
            assert!(bench.node.dispatched.lock().unwrap().is_empty(), "{name}");
            let is_control = route.path.ends_with("/shutdown");
            assert_eq!(bench.node.controlled.lock().unwrap().len(), usize::from(is_control), "{name}");
            let recorded = bench.node.recorded.lock().unwrap();
            let codes: Vec<_> = recorded.iter().map(|draft| draft.code).collect();
            let is_refused_write = route.unmet == Unmet::Refused && route.method == "POST";
            let is_recorded = is_refused_write || route.path.ends_with("/dispatch");
            assert_eq!(codes, vec![Some(Code::NotConfigured); usize::from(is_recorded)], "{name}");
        }
    }
}

/// Where all is there, every route is answered: what is refused above is refused for what lacks.
#[tokio::test]
async fn what_is_promised_and_kept_refuses_nothing() {
    for route in &trust_runtime::web::ROUTES {
        let bench = lacking(Surface::Public);
        bench.node.change(|view| view.settings = Arc::new(settings(Profile::Plant)));
        let status = bench.app.answer(as_admin(route)).await.status();
        assert_ne!(status, StatusCode::SERVICE_UNAVAILABLE, "{}", route.path);
    }
}

/// What is left open has its reason here: it says nothing of the plant, or it is how the promise is kept again.
#[test]
fn the_admin_listener_shows_its_description_alone() {
    let answered: Vec<_> = ADMIN_ROUTES.iter().filter(|it| it.unmet == Unmet::Answered).map(|it| it.path).collect();
    assert_eq!(answered, ["/openapi.json"]);
    assert!(ADMIN_ROUTES.iter().all(|it| it.unmet != Unmet::Told));
}
