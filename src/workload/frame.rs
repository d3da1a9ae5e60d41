//! What node and guard say to each other over their socket.
//!
//! Node to guard: one frame with what to start, then one byte per order. Guard to node: one line on the start, one on the end.
//! Both ends are the same binary, so there is no version.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};

use crate::workload::{Exit, INPUT_BYTES_MAX, Order};

/// Longest frame: the input, and as much for arguments and variables as the kernel takes.
const FRAME_BYTES_MAX: usize = INPUT_BYTES_MAX.saturating_mul(4);

/// Longest line of a guard.
const REPORT_BYTES_MAX: u64 = 256;

/// What the guard is to start. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) input: Vec<u8>,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
}

impl Launch {
    /// The frame: its length, then its parts, each after its own length.
    pub(super) fn to_frame(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put(&mut body, self.program.as_os_str().as_bytes());
        put(&mut body, self.dir.as_os_str().as_bytes());
        put(&mut body, &self.input);
        put_length(&mut body, self.args.len());
        self.args.iter().for_each(|arg| put(&mut body, arg.as_bytes()));
        for (name, value) in &self.env {
            put(&mut body, name.as_bytes());
            put(&mut body, value.as_bytes());
        }
        let mut frame = Vec::new();
        put(&mut frame, &body);
        frame
    }

    /// Reads the frame; none if the node is gone or is no node.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let length = usize::try_from(stream.read_u32().await.ok()?).ok()?;
        if FRAME_BYTES_MAX < length {
            return None;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        Self::parse(&body)
    }

    fn parse(mut body: &[u8]) -> Option<Self> {
        let rest = &mut body;
        let program = PathBuf::from(text(rest)?);
        let dir = PathBuf::from(text(rest)?);
        let input = take(rest)?.to_vec();
        let args = (0..take_length(rest)?).map(|_| text(rest)).collect::<Option<_>>()?;
        let mut env = Vec::new();
        while !rest.is_empty() {
            env.push((text(rest)?, text(rest)?));
        }
        Some(Self { program, dir, input, args, env })
    }
}

fn put(buffer: &mut Vec<u8>, part: &[u8]) {
    put_length(buffer, part.len());
    buffer.extend_from_slice(part);
}

fn put_length(buffer: &mut Vec<u8>, length: usize) {
    // A longer part cannot pass the limit of the frame.
    buffer.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_length(rest)?;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

fn text(rest: &mut &[u8]) -> Option<OsString> {
    take(rest).map(|part| OsString::from_vec(part.to_vec()))
}

impl Order {
    const ALL: [Self; 5] = [Self::Terminate, Self::Kill, Self::Stop, Self::Resume, Self::HangUp];

    pub(super) const fn to_byte(self) -> u8 {
        match self {
            Self::Terminate => b't',
            Self::Kill => b'k',
            Self::Stop => b's',
            Self::Resume => b'r',
            Self::HangUp => b'h',
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.to_byte() == byte)
    }
}

/// Why the guard did not start the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Missing,
    Folder,
    NoWorkingFolder,
    /// What the system answered, by number.
    System(i32),
}

/// One line of the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    Started(u32),
    Refused(Refusal),
    Ended(Exit),
}

impl Report {
    pub(super) fn to_line(self) -> String {
        match self {
            Self::Started(pid) => format!("started {pid}\n"),
            Self::Refused(Refusal::Missing) => "refused missing\n".to_owned(),
            Self::Refused(Refusal::Folder) => "refused folder\n".to_owned(),
            Self::Refused(Refusal::NoWorkingFolder) => "refused dir\n".to_owned(),
            Self::Refused(Refusal::System(number)) => format!("system {number}\n"),
            Self::Ended(Exit::Code(code)) => format!("exit {code}\n"),
            Self::Ended(Exit::Signal(signal)) => format!("signal {signal}\n"),
            Self::Ended(Exit::Lost) => "lost 0\n".to_owned(),
        }
    }

    /// Reads the next line; none if the guard is gone.
    pub(super) async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<Self> {
        let mut line = String::new();
        stream.take(REPORT_BYTES_MAX).read_line(&mut line).await.ok()?;
        Self::parse(&line)
    }

    fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.strip_suffix('\n')?.split_once(' ')?;
        match (word, rest) {
            ("started", pid) => Some(Self::Started(pid.parse().ok()?)),
            ("refused", "missing") => Some(Self::Refused(Refusal::Missing)),
            ("refused", "folder") => Some(Self::Refused(Refusal::Folder)),
            ("refused", "dir") => Some(Self::Refused(Refusal::NoWorkingFolder)),
            ("system", number) => Some(Self::Refused(Refusal::System(number.parse().ok()?))),
            ("exit", code) => Some(Self::Ended(Exit::Code(code.parse().ok()?))),
            ("signal", signal) => Some(Self::Ended(Exit::Signal(signal.parse().ok()?))),
            ("lost", _) => Some(Self::Ended(Exit::Lost)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn launch() -> Launch {
        Launch {
            program: "/p".into(),
            dir: "/".into(),
            input: vec![0; 3],
            args: vec!["a b".into(), OsString::new(), OsString::from_vec(vec![0xff])],
            env: vec![("A".into(), "b=c\n".into()), ("B".into(), OsString::new())],
        }
    }

    #[tokio::test]
    async fn a_frame_is_read_as_it_was_written_and_half_a_frame_is_none() {
        let frame = launch().to_frame();
        assert_eq!(Launch::read(&mut frame.as_slice()).await, Some(launch()));
        for end in 0..frame.len() {
            assert_eq!(Launch::read(&mut &frame[..end]).await, None, "{end} bytes");
        }
        assert_eq!(Launch::read(&mut [0xff_u8; 64].as_slice()).await, None, "beyond the limit");
    }

    #[tokio::test]
    async fn every_report_is_read_as_it_was_written() {
        let refusals = [Refusal::Missing, Refusal::Folder, Refusal::NoWorkingFolder, Refusal::System(13)];
        let ends = [Exit::Code(0), Exit::Code(255), Exit::Signal(9), Exit::Lost].map(Report::Ended);
        for report in refusals.map(Report::Refused).into_iter().chain(ends).chain([Report::Started(7)]) {
            assert_eq!(Report::read(&mut report.to_line().as_bytes()).await, Some(report));
        }
        for broken in ["", "exit 1", "exit\n", "exit x\n", "what 1\n"] {
            assert_eq!(Report::read(&mut broken.as_bytes()).await, None, "{broken:?}");
        }
        assert!(Order::ALL.into_iter().all(|order| Order::from_byte(order.to_byte()) == Some(order)));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(launch) = Launch::parse(&bytes) {
                prop_assert_eq!(Launch::parse(launch.to_frame().get(4..).unwrap_or_default()), Some(launch));
            }
        }
    }
}
