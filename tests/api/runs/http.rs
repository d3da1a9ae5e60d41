//! A client of plain bytes: requests to an address, and what came back, frames included.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long an answer may take: those that are followed end with their run.
const ANSWER_MAX: Duration = Duration::from_secs(60);

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
    /// Empty where it has none.
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
    stream.write_all(format!("{head}\r\n{}", body.unwrap_or_default()).as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    // A reset counts as closed: what came before it is what was heard.
    let read = tokio::time::timeout(ANSWER_MAX, stream.read_to_end(&mut bytes)).await.expect("an answer in time");
    drop(read);
    heard(&String::from_utf8_lossy(&bytes))
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
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let lines = block.lines().count();
        let id = field("id: ");
        let is_whole = lines == 2 + usize::from(id.is_some());
        is_whole.then_some(Frame { event: field("event: ")?, id: id.unwrap_or_default(), data: field("data: ")? })
    };
    let blocks = body.split("\n\n").filter(|it| !it.is_empty() && !it.starts_with(':'));
    blocks.map(|it| block(it).unwrap_or_else(|| panic!("not a frame: {it:?}"))).collect()
}

impl Heard {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
