//! A client of plain bytes: requests to an address, and what came back, frames included.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::sockets::read_all;

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// A server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

/// Asks once, and reads to the end.
pub(crate) async fn ask(
    authority: &str,
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: Option<&str>,
) -> Heard {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let mut stream = TcpStream::connect(authority).await.expect("listening");
    stream.write_all(format!("{head}\r\n{}", body.unwrap_or_default()).as_bytes()).await.unwrap();
    heard(&read_all(&mut stream).await)
}

/// An answer from its bytes.
pub(crate) fn heard(text: &str) -> Heard {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: BTreeMap<_, _> = lines.filter_map(header).collect();
    let is_chunked = headers.get("transfer-encoding").is_some_and(|it| it == "chunked");
    let body = if is_chunked { whole(body) } else { body.to_owned() };
    Heard { status, headers, body }
}

/// The chunks that came whole, joined.
pub(crate) fn whole(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, behind)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        let Some(chunk) = behind.get(..size) else { break };
        body.push_str(chunk);
        rest = behind.get(size + 2..).unwrap_or_default();
    }
    body
}

/// The events of a stream, comments left out.
pub(crate) fn frames(body: &str) -> Vec<Frame> {
    let block = |block: &str| {
        let mut lines = block.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name).map(str::to_owned);
        Some(Frame { event: field("event: ")?, id: field("id: ")?, data: field("data: ")? })
    };
    let blocks = body.split("\n\n").filter(|it| !it.is_empty() && !it.starts_with(':'));
    blocks.map(|it| block(it).unwrap_or_else(|| panic!("not a frame: {it:?}"))).collect()
}

impl Heard {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
