//! The floor of a stream: an axum server that sends the same bytes from memory, in pieces as large as a node's, and does
//! nothing else.

use std::convert::Infallible;
use std::future::ready;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use futures_util::stream;

use crate::stand::{Outcome, served};

/// Most bytes that a node encodes ahead of a reader.
const PIECE_BYTES: usize = 32 * 1024;

/// Serves what stands in a file, as a stream.
pub(super) async fn serve(file: &str) -> Outcome<()> {
    let whole = Bytes::from(std::fs::read(file)?);
    served::serve(Router::new().route("/", get(move || ready(replay(whole.clone()))))).await
}

fn replay(whole: Bytes) -> impl IntoResponse {
    let pieces = stream::unfold(whole, |mut left| async move {
        let piece = left.split_to(PIECE_BYTES.min(left.len()));
        (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), left))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces))
}
