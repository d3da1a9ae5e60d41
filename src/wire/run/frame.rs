//! Events on their way to one who follows: server-sent events, or one JSON text a line.

use crate::domain::run::Event;

/// What stands around an event of a run, whose numbers are small: three names, two words and the ends of the lines.
const FRAME_BYTES_MAX: usize = 48;

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

    /// Its number among the forms.
    pub const fn number(self) -> usize {
        match self {
            Self::EventStream => 0,
            Self::Lines => 1,
        }
    }

    /// Events of a run one behind the other.
    pub fn events(self, events: &[Event]) -> Vec<u8> {
        let room = events.iter().map(|event| event.body.len().saturating_add(FRAME_BYTES_MAX));
        let mut out = Vec::with_capacity(room.fold(0, usize::saturating_add));
        events.iter().for_each(|event| self.event(event, &mut out));
        out
    }

    /// An event of a run. Its number is its id.
    pub fn event(self, event: &Event, out: &mut Vec<u8>) {
        self.frame(event.kind.as_str(), Some(&event.index.to_string()), event.body.as_bytes(), out);
    }

    /// Any frame whose data says what it is. The data is one line. Without an id the reader stays where it was: nobody comes
    /// back from behind an event that was never sent.
    pub fn frame(self, name: &str, id: Option<&str>, data: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::EventStream => {
                join(&[b"event: ", name.as_bytes(), b"\n"], out);
                if let Some(id) = id {
                    join(&[b"id: ", id.as_bytes(), b"\n"], out);
                }
                join(&[b"data: ", data, b"\n\n"], out);
            }
            Self::Lines => join(&[data, b"\n"], out),
        }
    }

    /// A frame whose data does not say what it is: a line has the name and the id beside it. Both are plain words.
    pub fn named_frame(self, name: &str, id: Option<&str>, data: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::EventStream => self.frame(name, id, data, out),
            Self::Lines => {
                join(&[b"{\"event\":\"", name.as_bytes(), b"\","], out);
                if let Some(id) = id {
                    join(&[b"\"id\":\"", id.as_bytes(), b"\","], out);
                }
                join(&[b"\"data\":", data, b"}\n"], out);
            }
        }
    }
}

fn join(parts: &[&[u8]], out: &mut Vec<u8>) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::run::Kind;
    use crate::domain::time::Wall;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn events_are_written_one_behind_the_other_into_memory_that_does_not_grow() {
        let event = |kind| Event { index: 999_999, kind, at: Wall(0), body: "{}".into() };
        let events: Vec<Event> = Kind::ALL.into_iter().map(event).collect();
        for form in [Form::EventStream, Form::Lines] {
            let all = form.events(&events);
            assert_eq!(all.capacity(), events.len() * (2 + FRAME_BYTES_MAX));
            let each = events.iter().map(|event| written(|out| form.event(event, out)));
            assert_eq!(String::from_utf8(all).expect("text"), each.collect::<String>());
        }
    }

    #[test]
    fn a_frame_without_an_id_has_no_line_for_it() {
        let framed = |id| written(|out| Form::EventStream.frame("error", id, b"{}", out));
        assert_eq!(framed(Some("7")), "event: error\nid: 7\ndata: {}\n\n");
        assert_eq!(framed(None), "event: error\ndata: {}\n\n");
    }

    #[test]
    fn a_line_says_what_it_is_where_its_data_does_not() {
        let line = |id| written(|out| Form::Lines.named_frame("node", id, b"{\"a\":1}", out));
        assert_eq!(line(Some("5.2")), "{\"event\":\"node\",\"id\":\"5.2\",\"data\":{\"a\":1}}\n");
        assert_eq!(line(None), "{\"event\":\"node\",\"data\":{\"a\":1}}\n");
    }
}
