//! One HTTP/1.1 request over a socket of its own: small, blocking, and without a retry that could hide anything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value as Json;

/// Longer than the longest query budget with the time for a write's outcome.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The body; `null` if it is no JSON.
    pub(crate) body: Json,
    pub(crate) text: String,
}

impl Answer {
    /// A text field of the body, by JSON pointer; empty when absent.
    pub(crate) fn text_at(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Json::as_str).unwrap_or_default()
    }
}

/// A request that is on its way.
#[derive(Debug)]
pub(crate) struct Sent(TcpStream);

/// Sends a request; with a body it is a `POST`.
pub(crate) fn send(to: SocketAddr, path: &str, token: Option<&str>, body: Option<&Json>) -> Result<Sent, String> {
    let explain = |error: std::io::Error| format!("{to}{path}: {error}");
    let mut stream = TcpStream::connect_timeout(&to, ANSWER_MAX).map_err(explain)?;
    stream.set_read_timeout(Some(ANSWER_MAX)).map_err(explain)?;
    stream.write_all(request(to, path, token, body).as_bytes()).map_err(explain)?;
    Ok(Sent(stream))
}

/// The text of a request after whose answer the connection is over; with a body it is a `POST`.
pub(crate) fn request(to: SocketAddr, path: &str, token: Option<&str>, body: Option<&Json>) -> String {
    let method = if body.is_some() { "POST" } else { "GET" };
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n");
    if let Some(token) = token {
        head.push_str(&format!("authorization: Bearer {token}\r\n"));
    }
    let text = body.map(Json::to_string).unwrap_or_default();
    if body.is_some() {
        head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", text.len()));
    }
    format!("{head}\r\n{text}")
}

/// What a whole answer says.
pub(crate) fn answer(text: &str) -> Result<Answer, String> {
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("not HTTP: {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).ok_or_else(|| format!("no status: {head}"))?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    if length != Some(body.len()) {
        return Err(format!("cut off: {} bytes of a body of {length:?}", body.len()));
    }
    Ok(Answer { status, body: serde_json::from_str(body).unwrap_or_default(), text: body.to_owned() })
}

impl Sent {
    /// Waits for the answer.
    pub(crate) fn answer(mut self) -> Result<Answer, String> {
        let mut text = String::new();
        self.0.read_to_string(&mut text).map_err(|error| format!("no answer: {error}"))?;
        answer(&text)
    }

    /// Reads a stream to its end, and gives its body.
    pub(crate) fn streamed(mut self) -> Result<String, String> {
        let mut text = String::new();
        self.0.read_to_string(&mut text).map_err(|error| format!("no end: {error}"))?;
        let (head, mut rest) = text.split_once("\r\n\r\n").ok_or_else(|| format!("not HTTP: {text:?}"))?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(text);
        }
        let mut body = String::new();
        while let Some((size, behind)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).map_err(|error| format!("{size:?} is no size: {error}"))?;
            body.push_str(behind.get(..size).ok_or("a chunk is cut off")?);
            rest = behind.get(size + 2..).unwrap_or_default();
        }
        Ok(body)
    }
}
