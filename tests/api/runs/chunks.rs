//! Takes the chunks of an answer apart as its bytes come, wherever they are cut.

/// Where the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the head, behind so many bytes of the blank line that ends it.
    Head(usize),
    /// In the size of a chunk.
    Size(usize),
    /// In a chunk, with so many bytes to come.
    Data(usize),
    /// In the line break behind a chunk.
    Break,
    /// Behind the last chunk.
    Over,
    /// In an answer that is none: a refusal, whose body is kept with its head.
    Refused,
}

/// The answer so far.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: State,
    head: Vec<u8>,
}

impl Chunks {
    pub(crate) fn new() -> Self {
        Self { state: State::Head(0), head: Vec::new() }
    }

    /// Whether the last chunk has come.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether the head has come, and is that of an answer.
    pub(crate) fn has_begun(&self) -> bool {
        !matches!(self.state, State::Head(_) | State::Refused)
    }

    /// Whether the head has come, and is that of a refusal.
    pub(crate) fn is_refused(&self) -> bool {
        self.state == State::Refused
    }

    /// The head, as far as it has come. Behind that of a refusal, what has come of its body.
    pub(crate) fn head(&self) -> &str {
        std::str::from_utf8(&self.head).expect("ASCII")
    }

    /// More bytes; what of them is the body goes to `take`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
        while let [first, rest @ ..] = bytes {
            if let State::Data(left) = self.state {
                let (data, behind) = bytes.split_at(left.min(bytes.len()));
                take(data);
                bytes = behind;
                self.state = if data.len() < left { State::Data(left - data.len()) } else { State::Break };
                continue;
            }
            self.state = self.step(*first);
            bytes = rest;
        }
    }

    fn step(&mut self, byte: u8) -> State {
        match (self.state, byte) {
            (State::Head(matched), _) => {
                self.head.push(byte);
                match if b"\r\n\r\n"[matched] == byte { matched + 1 } else { usize::from(byte == b'\r') } {
                    4 if self.head.starts_with(b"HTTP/1.1 200 ") => State::Size(0),
                    4 => State::Refused,
                    matched => State::Head(matched),
                }
            }
            (State::Size(size), b'\r') => State::Size(size),
            (State::Size(0), b'\n') => State::Over,
            (State::Size(size), b'\n') => State::Data(size),
            (State::Size(size), digit) => {
                State::Size(size * 16 + char::from(digit).to_digit(16).expect("a digit") as usize)
            }
            (State::Break, b'\n') => State::Size(0),
            (State::Break | State::Data(_), _) => self.state,
            (State::Over, _) => State::Over,
            (State::Refused, _) => {
                self.head.push(byte);
                State::Refused
            }
        }
    }
}

#[test]
fn wherever_an_answer_is_cut_its_body_is_the_same() {
    let text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nb\r\n, world\r\n!!\r\n0\r\n\r\n";
    for at in 0..text.len() {
        let (mut chunks, mut body) = (Chunks::new(), Vec::new());
        let (one, other) = text.split_at(at);
        chunks.feed(one, |data| body.extend_from_slice(data));
        chunks.feed(other, |data| body.extend_from_slice(data));
        assert_eq!((body.as_slice(), chunks.is_over()), (&b"hello, world\r\n!!"[..], true), "{at}");
        assert!(chunks.head().ends_with("chunked\r\n\r\n"));
    }
}

#[test]
fn a_refusal_is_no_answer_and_is_kept_whole() {
    let text = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nbusy!";
    for at in 0..text.len() {
        let mut chunks = Chunks::new();
        let (one, other) = text.split_at(at);
        for part in [one, other] {
            chunks.feed(part, |data| panic!("{data:?} is no body"));
        }
        assert_eq!((chunks.is_refused(), chunks.has_begun(), chunks.is_over()), (true, false, false), "{at}");
        assert_eq!(chunks.head().as_bytes(), text);
    }
}
