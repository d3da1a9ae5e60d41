//! What every floor over HTTP does: it binds, says where, and checks and heads each request as a node does.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use tokio::net::TcpListener;

use super::Outcome;

/// Prints its address and serves for ever.
pub(crate) async fn serve(routes: Router) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let host = listener.local_addr()?.to_string();
    let app = routes.layer(from_fn_with_state(host.clone(), guard));
    println!("{host}");
    axum::serve(listener, app).await?;
    Ok(())
}

/// What surrounds every request: the check of the Host and the headers of an answer.
async fn guard(State(host): State<String>, request: Request, next: Next) -> Result<impl IntoResponse, StatusCode> {
    if request.headers().get(header::HOST).is_none_or(|name| name.as_bytes() != host.as_bytes()) {
        return Err(StatusCode::FORBIDDEN);
    }
    let headers = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    Ok((headers, next.run(request).await))
}
