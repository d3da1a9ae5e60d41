//! `/openapi.json` and the plain list at `/`, both made from the route table.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response};

use crate::web::Surface;
use crate::web::router::{Answered, Call, Shared, json};
use crate::web::table::{Access, Form, ROUTES, Route};
use crate::wire::api::v1::openapi::{self, Operation};

/// The description of the API.
pub(crate) fn document(shared: &Shared, _call: &Call) -> Answered {
    Ok(json(shared.description.clone()))
}

/// Writes the description; once per start.
pub(crate) fn describe(version: &str, surface: &Surface) -> Vec<u8> {
    let title = match surface {
        Surface::Admin { .. } => openapi::ADMIN_TITLE,
        Surface::Public => openapi::TITLE,
    };
    openapi::document((title, version), surface.mount(), &surface.routes().iter().map(operation).collect::<Vec<_>>())
}

fn operation(route: &Route) -> Operation {
    Operation {
        method: if route.method == "POST" { "post" } else { "get" },
        path: route.path,
        summary: route.summary,
        access: access(route.access),
        takes_credential: route.access != Access::Anyone,
        query: route.query,
        request: route.request,
        answer: route.answer,
        problems: route.problems(),
        success: 200,
        id: route.id,
        is_enveloped: route.form == Form::Envelope,
    }
}

const fn access(access: Access) -> &'static str {
    use crate::domain::identity::Role;
    match access {
        Access::Anyone => "Anyone may ask.",
        Access::AnyoneOrMore => "Anyone may ask; a credential shows more.",
        Access::Least(Role::Viewer) => "Needs the role viewer or more.",
        Access::Least(Role::Operator) => "Needs the role operator or more.",
        Access::Least(Role::Engineer) => "Needs the role engineer or more.",
        Access::Least(Role::Admin) => "Needs the role admin.",
    }
}

/// The routes as plain text, for whoever opens the address in a browser or with curl.
pub(crate) fn index(shared: &Shared, _call: &Call) -> Answered {
    let view = shared.node.view();
    let mut text = format!("trust-runtime {} {}\n\n", view.settings.version, view.me());
    for route in &ROUTES {
        // Writing to a string cannot fail.
        writeln!(text, "{:<5} {:<42} {}", route.method, route.path, route.summary).unwrap_or_default();
    }
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}
