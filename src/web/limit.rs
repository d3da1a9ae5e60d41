//! How much a caller may send, how slowly, and how many at once. Overflow has an answer: 503, 413, 408 or a closed connection.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::error::{Kind, Problem};
use super::guard::only;
use super::rate::Rate;

/// Largest body of any route: a thousand targets with their parameters fit four times.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1_024;

/// Largest payload of a run.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1_024 * 1_024;

/// Most header fields: browsers send about twenty.
pub(crate) const HEADERS_MAX: usize = 64;

/// Most bytes of a request's head, and of what is buffered of a connection.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1_024;

/// Bounds on callers. A test sets smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a TLS handshake may take: a silent caller must not hold a place.
    pub handshake: Duration,
    /// How long a request's head may take, from the opening of the connection or the end of the last answer.
    pub head_read: Duration,
    /// How long a body may take.
    pub body_read: Duration,
    /// How many connections are open. Beyond it the one that has been silent longest is closed.
    pub connections_max: usize,
    /// How many of them follow a stream at once. Beyond it the answer is 503.
    pub streams_max: usize,
    /// How many of those have one credential. Beyond it the answer is 503, for that credential alone.
    pub streams_of_one_max: usize,
    /// How long a reader may take nothing of what is sent to it.
    pub write: Duration,
    /// How often a stream on which nothing happens says that it is there.
    pub heartbeat: Duration,
    /// How many requests are worked on. Beyond it the answer is 503.
    pub requests_max: usize,
    /// How often each credential may act. Beyond it the answer is 429, for that credential alone, which can still read.
    pub acts: Rate,
    /// How often each credential may read. Beyond it the answer is 429, for that credential alone, which can still act.
    pub reads: Rate,
    /// How many bad credentials, of all callers together, are answered with 401. Beyond it the answer is 503.
    pub bad_credentials: Rate,
    /// How long requests may take to finish after a shutdown began.
    pub grace: Duration,
}

impl Default for Limits {
    /// Ten seconds are enough for any honest client; 256 connections leave room under a limit of 1,024 open files.
    ///
    /// Each act leaves a record, so a rate of acts is a rate at which one credential fills the disk: 500 a second are some 250
    /// KiB of records, and more than people and their scripts do to a plant. The thousand that go at once are the largest
    /// dispatch, or ten fan-outs to a hundred runtimes, or a thousand runs that a script starts. A read costs a few
    /// microseconds: 2,000 a second are a whole office of panels, and the 4,000 at once a thousand readers of a run who all come
    /// back at the same moment, four times over. Whoever mistypes a token does so a few times; a panel that still has
    /// yesterday's asks ten times a second.
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head_read: Duration::from_secs(10),
            body_read: Duration::from_secs(10),
            connections_max: 256,
            streams_max: 192,
            streams_of_one_max: 1_024,
            write: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            requests_max: 512,
            acts: Rate::of(500),
            reads: Rate::of(2_000),
            bad_credentials: Rate { burst: 100, per_second: 10 },
            grace: Duration::from_secs(5),
        }
    }
}

/// Files of which one may be a connection, so that there is room for everything else.
const FILES_PER_CONNECTION: u64 = 4;

/// Most connections, whatever the number of files: each may hold some 200 KiB.
const CONNECTIONS_MAX: u64 = 2_048;

impl Limits {
    /// The limits of a process that may have so many files open: as many connections as fit beside everything else. Three of
    /// four may follow a stream; the others are for whoever asks and goes.
    pub fn for_files(files: u64) -> Self {
        let least = Self::default();
        let connections = files.checked_div(FILES_PER_CONNECTION).unwrap_or_default().min(CONNECTIONS_MAX);
        let connections_max = usize::try_from(connections).unwrap_or_default().max(least.connections_max);
        let streams_max = connections_max.saturating_sub(connections_max.checked_div(4).unwrap_or_default());
        Self { connections_max, streams_max, streams_of_one_max: share(streams_max), ..least }
    }

    /// The same with at most so many connections, and at most so many of them that follow a stream.
    pub fn at_most(self, connections_max: usize, streams_max: usize) -> Self {
        let connections_max = connections_max.min(self.connections_max);
        let streams_max = streams_max.min(self.streams_max).min(connections_max.saturating_sub(1));
        Self { connections_max, streams_max, streams_of_one_max: share(streams_max), ..self }
    }

    /// The same with so many acts and so many reads a second for each credential.
    pub fn of_each_second(self, acts: u32, reads: u32) -> Self {
        Self { acts: Rate::of(acts), reads: Rate::of(reads), ..self }
    }
}

/// How many streams one credential may have: two thirds, which are a thousand readers where there is room for all, and leave
/// places to others beside them.
fn share(streams_max: usize) -> usize {
    streams_max.saturating_mul(2).div_ceil(3)
}

/// Reads a JSON body of at most `bytes_max`, without decoding it.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    time_max: Duration,
) -> Result<Bytes, Problem> {
    check_json(headers)?;
    collect(headers, body, bytes_max, time_max).await
}

/// Reads what may be a payload: nothing at all, or JSON that says so.
pub(crate) async fn read_payload(headers: &HeaderMap, body: Body, time_max: Duration) -> Result<Bytes, Problem> {
    let bytes = collect(headers, body, PAYLOAD_BYTES_MAX, time_max).await?;
    if !bytes.trim_ascii().is_empty() {
        check_json(headers)?;
    }
    Ok(bytes)
}

fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    if is_json(headers) {
        return Ok(());
    }
    Err(Problem::new(Kind::MediaType, "wanted Content-Type: application/json, not encoded"))
}

async fn collect(headers: &HeaderMap, body: Body, bytes_max: usize, time_max: Duration) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Kind::BodyTooLarge, format!("wanted a body of at most {bytes_max} bytes"));
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| bytes_max < length) {
        return Err(too_large());
    }
    match tokio::time::timeout(time_max, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_broken)) => Err(Problem::new(Kind::Malformed, "the body ended early or is not framed as HTTP/1.1")),
        Err(_elapsed) => Err(Problem::new(Kind::BodyTooSlow, "the body did not arrive in time")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = only(headers, &CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
        && !headers.contains_key(CONTENT_ENCODING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_may_open_more_files_takes_more_connections_up_to_a_limit() {
        for (files, connections, streams) in
            [(0, 256, 192), (1_024, 256, 192), (4_096, 1_024, 768), (8_192, 2_048, 1_536), (u64::MAX, 2_048, 1_536)]
        {
            let limits = Limits::for_files(files);
            assert_eq!((limits.connections_max, limits.streams_max), (connections, streams), "{files}");
        }
    }

    #[test]
    fn settings_lower_the_limits_of_a_process_and_never_raise_them() {
        let process = Limits::for_files(8_192);
        for ((connections, streams), wanted) in [
            ((2_048, 1_536), (2_048, 1_536, 1_024)),
            ((usize::MAX, usize::MAX), (2_048, 1_536, 1_024)),
            ((1_000, 900), (1_000, 900, 600)),
            // Whoever follows leaves at least one connection to who asks.
            ((1_000, 1_536), (1_000, 999, 666)),
            ((16, 16), (16, 15, 10)),
            ((16, 2), (16, 2, 2)),
        ] {
            let Limits { connections_max, streams_max, streams_of_one_max, .. } = process.at_most(connections, streams);
            assert_eq!((connections_max, streams_max, streams_of_one_max), wanted, "{connections}, {streams}");
        }
        let rates = process.of_each_second(3, 40);
        assert_eq!(
            (rates.acts.burst, rates.acts.per_second, rates.reads.burst, rates.reads.per_second),
            (6, 3, 80, 40)
        );
        assert_eq!(process.of_each_second(500, 2_000), process, "what the settings have by default");
        let small = Limits::for_files(1_024).at_most(2_048, 1_536);
        assert_eq!(small, Limits::for_files(1_024), "no more than the files are enough for");
        let few = process.at_most(16, 2);
        assert_eq!(Limits { connections_max: 2_048, streams_max: 1_536, streams_of_one_max: 1_024, ..few }, process);
    }
}
