//! Events on their way to one who follows: server-sent events, or one JSON text a line.

use crate::domain::run::Event;

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Server-sent events.
    EventStream,
    /// Newline-delimited JSON.
    Lines,
}

impl Form {
    /// The media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::EventStream => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }

    /// What keeps a silent connection open. Readers ignore it.
    pub const fn heartbeat(self) -> &'static [u8] {
        match self {
            Self::EventStream => b": heartbeat\n\n",
            Self::Lines => b"\n",
        }
    }

    /// An event of a run. Its number is its id.
    pub fn event(self, event: &Event, out: &mut Vec<u8>) {
        self.frame(event.kind.as_str(), &event.index.to_string(), event.body.as_bytes(), out);
    }

    /// Any frame. The data is one line.
    pub fn frame(self, name: &str, id: &str, data: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::EventStream => {
                for part in [b"event: ", name.as_bytes(), b"\nid: ", id.as_bytes(), b"\ndata: ", data, b"\n\n"] {
                    out.extend_from_slice(part);
                }
            }
            Self::Lines => {
                out.extend_from_slice(data);
                out.push(b'\n');
            }
        }
    }
}
